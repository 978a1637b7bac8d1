//! Judges the nodes. Keeps the evidence of each, and after every event works out from it anew which node is the
//! primary, what state each node is in, and what is to be done. Nothing else sets a state.
//!
//! - One primary: the node in that role on the highest timeline ever adopted. An older one is stale for as long as it
//!   is a primary; so is a second one on the same timeline, also while the first is away.
//! - The first primary is adopted once every node was asked, and a primary that was away comes back only while no
//!   replica has reached a newer timeline: after a restart of ours an old primary must not win by answering first.
//! - The evidence lives in memory only. Until coordination comes, a restart forgets timelines that no node shows.

use std::{sync::Arc, time::Duration, time::Instant};

use super::{
    Action, Failover, FailoverMode, Node, NodeId, NodeProbe, NodeSettings, Observation, Order, Role, Settings, State,
    Topology,
    election::SignOfLife,
    history::History,
    lag::{Lag, Lags},
};

/// For how long a primary that was proven is believed when clients go on to report it as read-only: they may have
/// made their own transactions read-only.
const TRUST: Duration = Duration::from_secs(10);
/// Probes in a row without a streaming receiver until a replica is pointed at the primary again.
pub(super) const IDLE_PROBES: u32 = 3;

/// What is held against, or spoken for, one node.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence {
    /// Asked at least once, with whatever result.
    pub(super) observed: bool,
    /// The last answer; stays while the node is away.
    pub(super) last: Option<NodeProbe>,
    /// Failed probes in a row.
    pub(super) failures: u32,
    /// A refused connection was counted in `failures` since the last probe.
    refused: bool,
    /// Clients reported trouble, and no probe that was started later has answered yet.
    pub(super) doubt: Option<Instant>,
    /// Said to be read-only while used as primary, and not proven otherwise.
    denied: bool,
    trusted_until: Option<Instant>,
    pub(super) down_since: Option<Instant>,
    /// What the last failure or report said.
    reason: String,
    fresh_as_of: Option<Instant>,
    lags: Lags,
    /// The answer that was noted there last, by its `started`.
    noted: Option<Instant>,
    pub(super) order: Order,
    /// Probes in a row of a replica that does not stream.
    pub(super) idle_probes: u32,
    /// When a replica was last seen to have heard the primary: by its own account, or because it has received more.
    pub(super) heard: Option<Instant>,
    pub(super) follow_after: Option<Instant>,
    pub(super) asked: Option<Instant>,
    /// The last time that a replica was made to ask the primary for a sign of life.
    pub(super) inquiry: Option<SignOfLife>,
    /// Promotions of this node that failed since the last new primary.
    pub(super) promotions_failed: u32,
    /// The last of them may still happen.
    pub(super) promotion_pending: bool,
}

/// Why a node is in its state. Turned into words when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    NotAsked,
    Answered,
    FirstRound,
    Failing,
    Failed,
    Denied,
    Foreign,
    Declared(Role),
    Older { highest: u32 },
    Newer(NodeId),
    Rival(NodeId),
    NotTheFirst(NodeId),
    Promoting(NodeId),
    Drained,
    Paused,
    Gone,
}

/// The primary that was adopted last. Kept while it is away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) node: NodeId,
    pub(super) timeline: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Promotion {
    pub(super) node: NodeId,
    pub(super) started: Instant,
}

/// Decides for one cluster. Fed by one driver; not shared.
#[derive(Debug, Clone)]
pub struct Machine {
    failures: u32,
    pub(super) silence: Option<Duration>,
    pub(super) mode: FailoverMode,
    pub(super) declared: Vec<Option<Role>>,
    pub(super) evidence: Vec<Evidence>,
    causes: Vec<Cause>,
    system: Option<u64>,
    pub(super) known: Option<Known>,
    /// The node that was published as the primary last.
    led: Option<NodeId>,
    pub(super) history: History,
    pub(super) promotion: Option<Promotion>,
    /// No promotion before this, after one that failed.
    pub(super) pause_until: Option<Instant>,
    pub(super) topology: Topology,
}

impl Machine {
    /// A cluster of which no node has been asked. `now` is when its watching begins.
    pub fn new(settings: &Settings, now: Instant) -> Machine {
        let mut machine = Machine {
            failures: settings.failures.max(1),
            silence: settings.silence,
            mode: settings.failover,
            declared: Vec::new(),
            evidence: Vec::new(),
            causes: Vec::new(),
            system: None,
            known: None,
            led: None,
            history: History::default(),
            promotion: None,
            pause_until: None,
            topology: Topology {
                version: 0,
                nodes: Vec::new(),
                primary: None,
                timeline: 0,
                primary_seen: None,
                settled: false,
                failover: Failover::Idle,
            },
        };
        machine.add_nodes(settings, now);
        machine
    }

    /// Adds the nodes that are not known yet.
    fn add_nodes(&mut self, settings: &Settings, now: Instant) {
        for node in &settings.nodes[self.evidence.len().min(settings.nodes.len())..] {
            self.declared.push(node.role);
            self.evidence.push(Evidence { observed: node.gone, ..Evidence::default() });
            self.causes.push(if node.gone { Cause::Gone } else { Cause::NotAsked });
            self.topology.nodes.push(new_node(node, now));
        }
    }

    /// Decides by other settings from now on: of the nodes that are known, in their places, and of new ones after them.
    pub fn configure(&mut self, settings: &Settings, now: Instant) -> Vec<Action> {
        self.failures = settings.failures.max(1);
        self.silence = settings.silence;
        self.mode = settings.failover;
        self.add_nodes(settings, now);
        for (id, settings) in self.ids().zip(&settings.nodes) {
            let at = usize::from(id.0);
            self.declared[at] = settings.role;
            if self.topology.nodes[at].gone != settings.gone {
                // Whatever it said, it said as another than it is now.
                self.evidence[at] = Evidence { observed: settings.gone, ..Evidence::default() };
                let fence = self.topology.nodes[at].fence + 1;
                self.topology.nodes[at] = Node { fence, ..new_node(settings, now) };
                self.promotion.take_if(|promotion| promotion.node == id);
            }
            let node = &mut self.topology.nodes[at];
            (node.weight, node.near) = (settings.weight, settings.near);
        }
        // Whoever waits for a node may have one now.
        self.topology.version += 1;
        self.tick(now)
    }

    /// The nodes as they are known now.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Takes in what happened to `node` and answers what to do. An id that is not of this cluster is ignored.
    pub fn observe(&mut self, node: NodeId, observation: Observation, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if usize::from(node.0) < self.evidence.len() && !self.is_gone(node) {
            self.take(node, observation, now, &mut actions);
            self.conclude(now, &mut actions);
        }
        actions
    }

    /// To be called about once per interval: ends promotions that take too long, and repeats what was not answered.
    pub fn tick(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.expire_promotion(now);
        self.conclude(now, &mut actions);
        actions
    }

    fn conclude(&mut self, now: Instant, actions: &mut Vec<Action>) {
        // A node that joins later is no reason to doubt the others until it has answered.
        self.topology.settled |= self.evidence.iter().all(|evidence| evidence.observed);
        self.settle_system();
        let chosen = self.choose();
        if let Some(node) = chosen {
            self.adopt(node);
        }
        self.refresh(now);
        self.publish(chosen, now);
        self.elect(now, actions);
        self.point_replicas(now, actions);
    }

    // ---- taking in -------------------------------------------------------------------------------------------------

    fn take(&mut self, node: NodeId, observation: Observation, now: Instant, actions: &mut Vec<Action>) {
        match observation {
            Observation::Probe(probe) => self.take_probe(node, probe, now, actions),
            Observation::ProbeFailed { reason } => self.take_failure(node, reason, now),
            Observation::LoginRefused { reason } => {
                let evidence = &mut self.evidence[usize::from(node.0)];
                evidence.observed = true;
                evidence.doubt = Some(now);
                evidence.reason = reason;
            }
            Observation::ConnectionRefused { reason } => {
                let evidence = &mut self.evidence[usize::from(node.0)];
                if !evidence.refused && evidence.failures == 0 {
                    evidence.refused = true;
                    self.count_failure(node, now);
                }
                self.doubt(node, reason, now, actions);
            }
            Observation::ServerLost { reason } => self.doubt(node, reason, now, actions),
            Observation::ReadOnly => {
                let evidence = &mut self.evidence[usize::from(node.0)];
                let trusted = evidence.trusted_until.is_some_and(|until| now < until);
                if self.topology.primary == Some(node) && !trusted {
                    evidence.denied = true;
                    evidence.doubt = Some(now);
                }
                actions.push(Action::ProbeNow(node));
            }
            Observation::Turned => {
                actions.push(Action::ProbeNow(node));
                self.ask_others(node, actions);
            }
            Observation::Promoted => actions.push(Action::ProbeNow(node)),
            Observation::PromotionFailed { may_still_happen, .. } => {
                self.promotion_failed(node, may_still_happen, now);
                actions.push(Action::ProbeNow(node));
            }
            Observation::Testified(testimony) => self.take_testimony(node, testimony, now, actions),
            Observation::Ordered(order) => self.evidence[usize::from(node.0)].order = order,
        }
    }

    fn take_probe(&mut self, node: NodeId, mut probe: NodeProbe, now: Instant, actions: &mut Vec<Action>) {
        let evidence = &mut self.evidence[usize::from(node.0)];
        if let Some(last) = &evidence.last {
            if probe.started < last.started {
                return;
            }
            // Without a receiver it names the timeline of its last checkpoint, which may be one failover ago.
            let still_replica = probe.role == Role::Replica && last.role == Role::Replica;
            if still_replica && probe.receiver.is_none() && probe.lsn >= last.lsn {
                probe.timeline = probe.timeline.max(last.timeline);
            }
        }
        evidence.observed = true;
        evidence.refused = false;
        if evidence.doubt.is_none_or(|at| probe.started >= at) {
            evidence.doubt = None;
            evidence.failures = 0;
            evidence.down_since = None;
            if evidence.denied {
                evidence.denied = false;
                evidence.trusted_until = Some(now + TRUST);
            }
        }
        // Restored from somewhere, or restarted and still replaying: what it had is not what it has.
        if evidence.last.as_ref().is_some_and(|last| probe.lsn < last.lsn || probe.role != last.role) {
            evidence.fresh_as_of = None;
        }
        let more = evidence.last.as_ref().is_some_and(|last| last.role == probe.role && probe.received > last.received);
        let received = more.then_some(probe.started);
        evidence.heard = evidence.heard.max(received).max(probe.receiver.and_then(|receiver| receiver.heard));
        let mut asks_all = false;
        if let Some(last) = &evidence.last {
            // A promotion shows first in what it takes away: the primary's receivers, a replica's sender, a role.
            let fewer = probe.role == Role::Primary && probe.senders < last.senders;
            let deaf = last.hears_primary() && !probe.hears_primary();
            let news = fewer || deaf || probe.role != last.role || probe.timeline > last.timeline;
            asks_all = news && self.topology.primary.is_some();
        }
        let idle = probe.role == Role::Replica && !probe.hears_primary();
        if probe.hears_primary() {
            // Whoever is about to be promoted has stopped its receiver.
            evidence.promotion_pending = false;
        }
        evidence.idle_probes = if idle { evidence.idle_probes.saturating_add(1) } else { 0 };
        evidence.last = Some(probe);
        if asks_all {
            self.ask_others(node, actions);
        } else if self.topology.primary == Some(node) {
            self.ask_replicas_behind(node, actions);
        }
    }

    /// Something has happened at this node: whoever is the primary now is to be known as soon as can be.
    fn ask_others(&self, node: NodeId, actions: &mut Vec<Action>) {
        let others = self.ids().filter(|id| *id != node && !self.is_gone(*id));
        actions.extend(others.map(Action::ProbeNow));
    }

    /// A replica that had not reached the primary's new position when it was last asked probably has by now.
    fn ask_replicas_behind(&self, primary: NodeId, actions: &mut Vec<Action>) {
        let position = self.evidence[usize::from(primary.0)].last.as_ref().map_or(0, |probe| probe.lsn);
        let behind = self.ids().filter(|id| {
            let evidence = &self.evidence[usize::from(id.0)];
            evidence.is_reachable_replica() && evidence.last.as_ref().is_some_and(|probe| probe.lsn < position)
        });
        actions.extend(behind.map(Action::ProbeNow));
    }

    fn take_failure(&mut self, node: NodeId, reason: String, now: Instant) {
        let evidence = &mut self.evidence[usize::from(node.0)];
        evidence.observed = true;
        evidence.reason = reason;
        evidence.fresh_as_of = None;
        if !std::mem::take(&mut evidence.refused) {
            self.count_failure(node, now);
        }
    }

    fn count_failure(&mut self, node: NodeId, now: Instant) {
        let limit = self.failures;
        let evidence = &mut self.evidence[usize::from(node.0)];
        evidence.failures = evidence.failures.saturating_add(1);
        if evidence.failures >= limit && evidence.down_since.is_none() {
            evidence.down_since = Some(now);
        }
    }

    fn doubt(&mut self, node: NodeId, reason: String, now: Instant, actions: &mut Vec<Action>) {
        let evidence = &mut self.evidence[usize::from(node.0)];
        evidence.doubt = Some(now);
        evidence.reason = reason;
        actions.push(Action::ProbeNow(node));
    }

    // ---- choosing the primary --------------------------------------------------------------------------------------

    /// The cluster's system identifier: the one that most nodes show, the first node's among equals. Decided when every
    /// node was asked, and again when no node shows it any more: then the whole cluster was replaced.
    fn settle_system(&mut self) {
        let shown = |id: &u64| self.evidence.iter().any(|evidence| evidence.system() == Some(*id));
        if !self.topology.settled || self.system.as_ref().is_some_and(shown) {
            return;
        }
        let count = |id: u64| self.evidence.iter().filter(|evidence| evidence.system() == Some(id)).count();
        let mut best = None;
        for id in self.evidence.iter().filter_map(Evidence::system) {
            if best.is_none_or(|best| count(id) > count(best)) {
                best = Some(id);
            }
        }
        if best.is_some() && self.system.is_some() {
            self.known = None;
            self.start_over();
        }
        self.system = best.or(self.system);
    }

    /// The node that is to be the primary now.
    fn choose(&self) -> Option<NodeId> {
        let fit = |id: &NodeId| {
            let evidence = &self.evidence[usize::from(id.0)];
            evidence.is_primary() && !self.is_down(*id) && !evidence.denied && self.objection(*id).is_none()
        };
        let highest = self.ids().filter(fit).map(|id| self.timeline(id)).max()?;
        let mut best = self.ids().filter(fit).filter(|id| self.timeline(*id) == highest);
        // Two at once that we know nothing of: neither is proven.
        best.next().filter(|_| best.next().is_none())
    }

    /// What speaks against using this node at all, other than that it does not answer.
    fn objection(&self, id: NodeId) -> Option<Cause> {
        let evidence = &self.evidence[usize::from(id.0)];
        let probe = evidence.last.as_ref()?;
        if self.is_foreign(id) {
            return Some(Cause::Foreign);
        }
        if let Some(role) = self.declared[usize::from(id.0)].filter(|role| *role != probe.role) {
            return Some(Cause::Declared(role));
        }
        if probe.role == Role::Replica {
            return None;
        }
        if !self.topology.settled {
            return Some(Cause::FirstRound);
        }
        let known = self.known?;
        if probe.timeline < known.timeline {
            return Some(Cause::Older { highest: known.timeline });
        }
        let stays = !self.is_gone(known.node);
        if self.mode == FailoverMode::Off && stays {
            return (known.node != id).then_some(Cause::NotTheFirst(known.node));
        }
        // A promotion always starts a new timeline; the same one twice is two histories under one name.
        let newly = probe.timeline > known.timeline;
        if known.node != id && !newly && stays && !self.was_rebuilt(known) {
            return Some(Cause::Rival(known.node));
        }
        let promoting = self.promotion.map(|promotion| promotion.node).or_else(|| self.pending_promotion());
        promoting.filter(|_| !newly).map(Cause::Promoting).or_else(|| self.newer(id))
    }

    /// The primary that was adopted last streams as a replica on the same timeline: it has the same history now as the
    /// primary that it follows, by somebody's choice.
    fn was_rebuilt(&self, known: Known) -> bool {
        let evidence = &self.evidence[usize::from(known.node.0)];
        let streams =
            evidence.last.as_ref().is_some_and(|probe| probe.hears_primary() && probe.timeline == known.timeline);
        streams && evidence.is_reachable_replica()
    }

    /// A replica that has reached a newer timeline than a primary: then there is a newer primary. Against a primary that is in
    /// use only a replica that streams on that timeline counts, from a server that writes there now.
    fn newer(&self, id: NodeId) -> Option<Cause> {
        let in_use = self.topology.primary == Some(id);
        let newer = |other: &NodeId| {
            let evidence = &self.evidence[usize::from(other.0)];
            evidence.is_reachable_replica()
                && !self.is_foreign(*other)
                && self.timeline(*other) > self.timeline(id)
                && (!in_use || evidence.last.as_ref().is_some_and(NodeProbe::hears_primary))
        };
        self.ids().find(newer).map(Cause::Newer)
    }

    fn adopt(&mut self, node: NodeId) {
        let timeline = self.timeline(node);
        let same = self.known.is_some_and(|known| known.node == node && known.timeline == timeline);
        if !same {
            self.known = Some(Known { node, timeline });
            self.start_over();
        }
        if let Some(probe) = &self.evidence[usize::from(node.0)].last {
            self.history.record(probe.started, probe.lsn);
        }
    }

    /// What was measured against, or tried because of, the last primary says nothing about the next.
    fn start_over(&mut self) {
        self.history.clear();
        self.promotion = None;
        self.pause_until = None;
        for evidence in &mut self.evidence {
            evidence.fresh_as_of = None;
            evidence.lags = Lags::default();
            evidence.promotions_failed = 0;
            evidence.promotion_pending = false;
            evidence.follow_after = None;
        }
    }

    /// Works out how fresh each replica is. Positions compare on one timeline only.
    fn refresh(&mut self, now: Instant) {
        let Some(known) = self.known else { return };
        let position = self.evidence[usize::from(known.node.0)].last.as_ref().map_or(0, |probe| probe.lsn);
        let seen = self.history.latest();
        for evidence in &mut self.evidence {
            let Some(probe) = evidence.last.as_ref().filter(|_| evidence.is_reachable_replica()) else { continue };
            if probe.timeline != known.timeline {
                continue;
            }
            evidence.fresh_as_of = evidence.fresh_as_of.max(self.history.as_of(probe.lsn));
            if let (Some(fresh), Some(seen)) = (evidence.fresh_as_of, seen)
                && evidence.noted != Some(probe.started)
            {
                let time = seen.min(probe.started).saturating_duration_since(fresh);
                evidence.lags.note(Lag { time, bytes: position.saturating_sub(probe.lsn) }, now);
                evidence.noted = Some(probe.started);
            }
        }
    }

    // ---- publishing ------------------------------------------------------------------------------------------------

    fn publish(&mut self, chosen: Option<NodeId>, now: Instant) {
        let mut changed = false;
        let before = self.led.map(|led| self.topology.nodes[usize::from(led.0)].fence);
        for id in self.ids() {
            let (state, cause) = self.judge(id, chosen);
            changed |= self.publish_node(id, state, cause, now);
        }
        let primary = chosen
            .filter(|id| matches!(self.topology.nodes[usize::from(id.0)].state, State::Up | State::Suspect { .. }));
        changed |= primary != self.topology.primary;
        // Also one that is only doubted, drained or a replica by now: there cannot be two.
        if let (Some(new), Some(old)) = (primary, self.led)
            && new != old
            && let Some(node) = self.topology.nodes.get_mut(usize::from(old.0))
            && before == Some(node.fence)
        {
            node.fence += 1;
        }
        self.led = primary.or(self.led);
        self.topology.primary = primary;
        self.topology.timeline = self.known.map_or(0, |known| known.timeline);
        self.topology.primary_seen = self.history.latest().or(self.topology.primary_seen);
        self.topology.version += u64::from(changed);
    }

    /// The one place that sets a node's state. Answers whether something changed that routing depends on.
    fn publish_node(&mut self, id: NodeId, state: State, cause: Cause, now: Instant) -> bool {
        let index = usize::from(id.0);
        let evidence = &self.evidence[index];
        let role = evidence.last.as_ref().map(|probe| probe.role);
        let before = &self.topology.nodes[index];
        let before_role = before.role;
        let changed = state.name() != before.state.name() || role != before.role;
        let why: Option<Arc<str>> = (changed || cause != self.causes[index]).then(|| self.describe(id, cause).into());
        let node = &mut self.topology.nodes[index];
        if state == State::Up && node.state == State::Down {
            node.returned = Some(now);
        }
        node.state = state;
        node.role = role;
        if let Some(probe) = &evidence.last {
            node.timeline = probe.timeline;
            node.system_identifier = probe.system_identifier;
            node.lsn = probe.lsn;
            node.received = probe.received;
            node.streaming = probe.hears_primary();
        }
        node.fresh_as_of = evidence.fresh_as_of;
        node.worst = evidence.lags.worst();
        if let Some(why) = why {
            node.why = why;
        }
        if changed {
            node.since = now;
            let lost_role = before_role == Some(Role::Primary) && role != before_role;
            node.fence += u64::from(lost_role || matches!(state, State::Down | State::Stale));
        }
        self.causes[index] = cause;
        changed
    }

    fn judge(&self, id: NodeId, chosen: Option<NodeId>) -> (State, Cause) {
        let evidence = &self.evidence[usize::from(id.0)];
        if self.is_gone(id) {
            return (State::Down, Cause::Gone);
        }
        match evidence.order {
            Order::Drain => return (State::Draining, Cause::Drained),
            Order::Pause => return (State::Paused, Cause::Paused),
            Order::Serve => {}
        }
        if self.is_down(id) {
            return (State::Down, Cause::Failed);
        }
        match self.objection(id) {
            Some(Cause::FirstRound) => return (State::Unknown, Cause::FirstRound),
            Some(cause) => return (State::Stale, cause),
            None => {}
        }
        if evidence.denied {
            return (State::Suspect { failures: evidence.failures }, Cause::Denied);
        }
        if evidence.is_primary() && chosen != Some(id) {
            return (State::Stale, self.rivalry(id, chosen));
        }
        if evidence.failures > 0 || evidence.doubt.is_some() {
            return (State::Suspect { failures: evidence.failures }, Cause::Failing);
        }
        if evidence.last.is_none() { (State::Unknown, Cause::NotAsked) } else { (State::Up, Cause::Answered) }
    }

    /// Why a primary that nothing else speaks against was not chosen.
    fn rivalry(&self, id: NodeId, chosen: Option<NodeId>) -> Cause {
        let other = |other: &NodeId| *other != id && self.evidence[usize::from(other.0)].is_primary();
        match chosen {
            Some(chosen) if self.timeline(chosen) > self.timeline(id) => {
                Cause::Older { highest: self.timeline(chosen) }
            }
            Some(chosen) => Cause::Rival(chosen),
            None => Cause::Rival(self.ids().find(other).unwrap_or(id)),
        }
    }

    fn describe(&self, id: NodeId, cause: Cause) -> String {
        let evidence = &self.evidence[usize::from(id.0)];
        let name = |id: NodeId| &self.topology.nodes[usize::from(id.0)].name;
        let (failures, reason) = (evidence.failures, &evidence.reason);
        let timeline = self.timeline(id);
        match cause {
            Cause::NotAsked => "not asked yet".into(),
            Cause::Answered if evidence.is_primary() => format!("answers as primary on timeline {timeline}"),
            Cause::Answered if timeline == 0 => "answers as replica".into(),
            Cause::Answered => format!("answers as replica on timeline {timeline}"),
            Cause::FirstRound => "answers as primary; the other nodes have not been asked yet".into(),
            Cause::Failing => reason.clone(),
            Cause::Failed => format!("{failures} failures in a row, the last: {reason}"),
            Cause::Denied => "a client was told that it is read-only; asking it again".into(),
            Cause::Foreign => format!(
                "belongs to another cluster: system identifier {} instead of {}",
                evidence.system().unwrap_or_default(),
                self.system.unwrap_or_default()
            ),
            Cause::Declared(Role::Replica) => "is a primary, and the configuration says replica".into(),
            Cause::Declared(Role::Primary) => "is a replica, and the configuration says primary".into(),
            Cause::Older { highest } => format!(
                "an old primary on timeline {timeline}, the cluster is on {highest}: \
                 rebuild it as a replica (pg_rewind)"
            ),
            Cause::Newer(other) => format!(
                "a primary on timeline {timeline}, while {} has reached timeline {}: there is a newer primary",
                name(other),
                self.timeline(other)
            ),
            Cause::Rival(other) => format!(
                "a second primary on timeline {timeline}, like {}: two servers take writes, stop the wrong one",
                name(other)
            ),
            Cause::NotTheFirst(first) => {
                format!("became a primary, and failover.mode = \"off\" keeps {} as the only one", name(first))
            }
            Cause::Promoting(other) => format!("came back while {} is being promoted", name(other)),
            Cause::Drained => "drained by an operator".into(),
            Cause::Paused => "paused by an operator".into(),
            Cause::Gone => "removed from the configuration".into(),
        }
    }

    // ---- small questions -------------------------------------------------------------------------------------------

    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.evidence.len() as u16).map(NodeId)
    }

    pub(super) fn timeline(&self, id: NodeId) -> u32 {
        self.evidence[usize::from(id.0)].last.as_ref().map_or(0, |probe| probe.timeline)
    }

    pub(super) fn is_down(&self, id: NodeId) -> bool {
        self.evidence[usize::from(id.0)].failures >= self.failures
    }

    pub(super) fn is_gone(&self, id: NodeId) -> bool {
        self.topology.nodes[usize::from(id.0)].gone
    }

    pub(super) fn is_foreign(&self, id: NodeId) -> bool {
        let shown = self.evidence[usize::from(id.0)].system();
        shown.is_some_and(|shown| self.system.is_some_and(|system| shown != system))
    }
}

/// A node of which nothing is known yet.
fn new_node(settings: &NodeSettings, now: Instant) -> Node {
    Node {
        name: settings.name.as_str().into(),
        weight: settings.weight,
        near: settings.near,
        gone: settings.gone,
        state: State::Unknown,
        role: None,
        timeline: 0,
        system_identifier: None,
        lsn: 0,
        received: 0,
        streaming: false,
        fresh_as_of: None,
        worst: Lag::default(),
        returned: None,
        since: now,
        why: "not asked yet".into(),
        fence: 0,
    }
}

impl Evidence {
    fn system(&self) -> Option<u64> {
        self.last.as_ref()?.system_identifier
    }

    pub(super) fn is_primary(&self) -> bool {
        self.last.as_ref().is_some_and(|probe| probe.role == Role::Primary)
    }

    pub(super) fn is_replica(&self) -> bool {
        self.last.as_ref().is_some_and(|probe| probe.role == Role::Replica)
    }

    /// A replica whose last probe was answered.
    pub(super) fn is_reachable_replica(&self) -> bool {
        self.is_replica() && self.failures == 0
    }
}
