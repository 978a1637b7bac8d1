//! The task that owns the machine: events in, snapshots and orders out, and the log of what changed.

use std::sync::Arc;

use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{Event, MonitorState, inquiry::Inquiry, now, orders};
use crate::tasks::Scope;
use poolhouse_core::topology::{
    Action, Failover, Machine, NodeId, Observation, Obstacle, Role, State, Testimony, Topology,
};

pub(super) fn start(machine: Machine, shared: &Arc<MonitorState>, mut inbox: mpsc::Receiver<Event>, scope: &Scope) {
    let coordinator =
        Coordinator { name: shared.settings().name.clone(), machine, shared: Arc::clone(shared), scope: scope.clone() };
    let stopping = scope.clone();
    scope.spawn("coordinate a cluster", async move {
        tokio::select! {
            () = stopping.stopping() => {}
            () = coordinator.run(&mut inbox) => {}
        }
    });
}

struct Coordinator {
    /// Of the cluster.
    name: String,
    machine: Machine,
    shared: Arc<MonitorState>,
    scope: Scope,
}

impl Coordinator {
    async fn run(mut self, inbox: &mut mpsc::Receiver<Event>) {
        let mut ticks = self.ticks();
        loop {
            let actions = tokio::select! {
                event = inbox.recv() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                _ = ticks.tick() => self.machine.tick(now()),
                () = self.shared.reconfigured.notified() => {
                    ticks = self.ticks();
                    self.machine.configure(&self.shared.settings().topology, now())
                }
            };
            self.publish();
            for action in actions {
                self.carry_out(action);
            }
        }
    }

    fn ticks(&self) -> Interval {
        let mut ticks = interval(self.shared.settings().health.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    fn take(&mut self, event: Event) -> Vec<Action> {
        let Event { node, observation, reported } = event;
        let failed = matches!(observation, Observation::PromotionFailed { .. });
        if reported || failed {
            self.shared.ring(node, true);
        }
        if let Observation::PromotionFailed { reason, .. } = &observation {
            tracing::error!(cluster = self.cluster(), node = self.name(node), reason, "the promotion failed");
        }
        if let Observation::Testified(testimony) = &observation {
            log_testimony(self.cluster(), self.name(node), testimony);
        }
        self.machine.observe(node, observation, now())
    }

    fn publish(&self) {
        let topology = self.machine.topology();
        let before = self.shared.topology.load_full();
        log_changes(self.cluster(), &before, topology);
        self.shared.topology.store(Arc::new(topology.clone()));
        // Behind the snapshot: a connection that is opened to a node because of the one before is outside.
        for (fence, node) in self.shared.fences.iter().zip(&topology.nodes) {
            fence.raise(node.fence);
        }
        if before.nodes.iter().zip(&topology.nodes).any(|(old, new)| old.fresh_as_of < new.fresh_as_of) {
            self.shared.fresher.notify_waiters();
        }
        if before.primary_seen < topology.primary_seen {
            self.shared.proven.notify_waiters();
        }
        self.shared
            .version
            .send_if_modified(|version| std::mem::replace(version, topology.version) != topology.version);
    }

    fn carry_out(&self, action: Action) {
        match action {
            Action::ProbeNow(node) => self.shared.ring(node, false),
            Action::Inquire(node) => self.inquire(node),
            Action::Promote(node) => self.promote(node),
            Action::Follow { replica, primary } => self.point(replica, primary),
        }
    }

    fn inquire(&self, node: NodeId) {
        let name = self.name(node).to_owned();
        let shared = Arc::clone(&self.shared);
        let stopping = self.scope.clone();
        self.scope.spawn("have a replica ask for the primary", async move {
            let settings = shared.settings();
            let login = settings.login(node);
            let mut inquiry = Inquiry::new(&login, settings.connect_timeout);
            let testimony = tokio::select! {
                () = stopping.stopping() => None,
                testimony = inquiry.ask() => Some(testimony),
            };
            if let Some(testimony) = testimony {
                let observation = Observation::Testified(testimony);
                // Closed only when the coordinator has ended, and then nobody wants to know.
                let _ = shared.events.send(Event { node, observation, reported: false }).await;
            }
            if let Err(error) = inquiry.end(stopping.stopping()).await {
                let (cluster, node) = (&settings.name, name);
                tracing::warn!(cluster, node, error, "wal_receiver_timeout is still short there, and is reset later");
            }
        });
    }

    fn promote(&self, node: NodeId) {
        let shared = Arc::clone(&self.shared);
        let stopping = self.scope.clone();
        self.scope.spawn("promote a replica", async move {
            let settings = shared.settings();
            let login = settings.login(node);
            let observation = tokio::select! {
                // The order may be on its way; whoever watches next finds out.
                () = stopping.stopping() => return,
                observation = orders::promote(&login, settings.connect_timeout) => observation,
            };
            // Closed only when the coordinator has ended, and then nobody wants to know.
            let _ = shared.events.send(Event { node, observation, reported: false }).await;
        });
    }

    fn point(&self, replica: NodeId, primary: NodeId) {
        let (name, primary_name) = (self.name(replica).to_owned(), self.name(primary).to_owned());
        let shared = Arc::clone(&self.shared);
        let stopping = self.scope.clone();
        self.scope.spawn("point a replica at the primary", async move {
            let settings = shared.settings();
            let (cluster, login) = (&settings.name, settings.login(replica));
            let address = &settings.addresses[usize::from(primary.0)];
            let result = tokio::select! {
                () = stopping.stopping() => return,
                result = orders::follow(&login, address, settings.connect_timeout) => result,
            };
            let (node, primary) = (name, primary_name);
            match result {
                Ok(true) => tracing::warn!(cluster, node, primary, "pointed at the primary"),
                Ok(false) => tracing::debug!(cluster, node, primary, "points at the primary already"),
                Err(error) => tracing::error!(cluster, node, primary, %error, "could not be pointed at the primary"),
            }
        });
    }

    fn cluster(&self) -> &str {
        &self.name
    }

    fn name(&self, node: NodeId) -> &str {
        self.machine.topology().node(node).map_or("?", |node| &node.name)
    }
}

/// One line per change. Error where a person must act: nobody but a person mends a stale node.
fn log_changes(cluster: &str, before: &Topology, after: &Topology) {
    for (old, new) in before.nodes.iter().zip(&after.nodes) {
        let (from, to, why) = (old.state.name(), new.state.name(), &*new.why);
        if from == to && old.role == new.role {
            continue;
        }
        let (node, role) = (&*new.name, role(new.role));
        match new.state {
            State::Down if new.gone => tracing::info!(cluster, node, from, to, role, "{why}"),
            State::Stale => tracing::error!(cluster, node, from, to, role, "{why}"),
            State::Down => tracing::warn!(cluster, node, from, to, role, "{why}"),
            State::Unknown | State::Up | State::Suspect { .. } | State::Draining | State::Paused => {
                tracing::info!(cluster, node, from, to, role, "{why}");
            }
        }
    }
    let name = |id: NodeId| after.node(id).map_or("?", |node| &*node.name);
    match (before.primary, after.primary) {
        (old, Some(new)) if old != Some(new) => {
            let timeline = after.node(new).map_or(0, |node| node.timeline);
            tracing::info!(cluster, node = name(new), timeline, "is the primary");
        }
        (Some(old), None) => tracing::warn!(cluster, node = name(old), "was the primary; there is none now"),
        _ => {}
    }
    if before.failover != after.failover {
        log_failover(cluster, after.failover, &name);
    }
}

fn log_testimony(cluster: &str, node: &str, testimony: &Testimony) {
    match testimony {
        Testimony::Answered => {
            tracing::warn!(
                cluster,
                node,
                "the server that this replica follows has answered it: only we cannot reach it"
            );
        }
        Testimony::Silent => tracing::info!(cluster, node, "has asked the primary for a sign of life, and heard none"),
        Testimony::Unable { reason, lasting: true } => {
            tracing::warn!(
                cluster,
                node,
                reason,
                "can't be made to ask the primary for a sign of life: its silence alone counts"
            );
        }
        Testimony::Unable { reason, lasting: false } => {
            tracing::warn!(cluster, node, reason, "could not be made to ask the primary for a sign of life");
        }
    }
}

fn log_failover<'a>(cluster: &str, failover: Failover, name: &dyn Fn(NodeId) -> &'a str) {
    match failover {
        Failover::Idle => {}
        Failover::Promoting(node) => tracing::warn!(cluster, node = name(node), "is being promoted"),
        Failover::Waiting(Obstacle::Unproven(node)) => {
            tracing::info!(cluster, node = name(node), "asked whether it still hears the primary");
        }
        Failover::Waiting(Obstacle::Heard(node)) => {
            tracing::warn!(cluster, node = name(node), "no promotion: this replica still hears the primary");
        }
        Failover::Waiting(Obstacle::Listening(node)) => {
            tracing::info!(
                cluster,
                node = name(node),
                "has heard nothing of the primary since it was lost; waiting a little"
            );
        }
        Failover::Waiting(Obstacle::FewWitnesses) => {
            tracing::error!(cluster, "no promotion: fewer than half of the replicas can be asked");
        }
        Failover::Waiting(Obstacle::NoCandidate) => {
            tracing::error!(cluster, "no promotion: no replica has all but the last seconds of the primary's WAL");
        }
        Failover::Waiting(Obstacle::Pausing) => tracing::info!(cluster, "a pause before the next promotion"),
    }
}

fn role(role: Option<Role>) -> &'static str {
    match role {
        None => "unknown",
        Some(Role::Primary) => "primary",
        Some(Role::Replica) => "replica",
    }
}
