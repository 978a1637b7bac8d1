//! When the primary is lost: whether to promote, whom, and pointing the others at it. Only in mode `promote`.
//!
//! A promotion needs all of these: we knew the primary; our own probes say that it is down; every replica that can be
//! asked, asked after that, no longer hears it; these are at least half of the cluster's replicas; none is in doubt. A
//! replica whose connection to the primary has ended hears it no longer, and neither does one over whose connection nothing
//! has come for a while since the primary was lost: that of a primary that hangs stays open for a minute. A primary that
//! lives and has nothing to say is as silent. So the replica is first made to ask it for a sign of life (an inquiry), once
//! per outage; silence alone counts only where that cannot be done.
//! Then the replica that received most is promoted, provided that it lacks no more than the primary's last seconds.
//! One promotion at a time: until it succeeds or fails, the old primary is not taken back either.

use std::{cmp::Ordering, time::Duration, time::Instant};

use super::{
    Action, Failover, FailoverMode, NodeId, NodeProbe, Obstacle, Order, Role, Testimony,
    machine::{IDLE_PROBES, Machine, Promotion},
};

/// Longer than the driver tries (pg_promote waits for 60 s): its own answer should come first.
const PROMOTION_LIMIT: Duration = Duration::from_secs(75);
/// Between a promotion that failed and the next.
const PROMOTION_PAUSE: Duration = Duration::from_secs(5);
/// A replica that lacks more of what the primary had written by its last answer is not promoted.
const LOSS_LIMIT: Duration = Duration::from_secs(10);
/// Between two attempts to point the same replica at the primary.
const FOLLOW_PAUSE: Duration = Duration::from_secs(10);
/// Between two requests for testimony that was not given.
const ASK_PAUSE: Duration = Duration::from_millis(500);
/// A replica that has heard something more lately is not made to ask: it may well hear more by itself.
const QUIET: Duration = Duration::from_secs(1);
/// Longer than the driver takes to have the primary asked: its own answer should come first.
const INQUIRY_LIMIT: Duration = Duration::from_secs(40);
/// Between two inquiries of the same replica in two outages.
const INQUIRY_PAUSE: Duration = Duration::from_secs(10);
/// Until one that could not be made is tried again.
const INQUIRY_RETRY: Duration = Duration::from_secs(1);
/// In one outage; then silence alone counts.
const INQUIRY_ATTEMPTS_MAX: u32 = 3;

/// A replica is, or was, made to ask the primary for a sign of life.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignOfLife {
    /// Which outage it was for: when the primary was lost.
    lost: Instant,
    started: Instant,
    /// How often it was begun.
    attempts: u32,
    stage: OrderStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrderStage {
    UnderWay,
    /// It could not be made, and may be later.
    Failed,
    /// Nothing more is to be expected of it.
    Ended,
}

impl SignOfLife {
    fn is_under_way(&self, lost: Instant, now: Instant) -> bool {
        self.lost == lost
            && self.stage == OrderStage::UnderWay
            && now.saturating_duration_since(self.started) < INQUIRY_LIMIT
    }
}

impl Machine {
    pub(super) fn elect(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.topology.failover = match self.promotion {
            Some(promotion) => Failover::Promoting(promotion.node),
            None => match self.lost_at() {
                None => Failover::Idle,
                Some(lost) => match self.candidate(lost, now, actions) {
                    Err(obstacle) => Failover::Waiting(obstacle),
                    Ok(node) => {
                        self.promotion = Some(Promotion { node, started: now });
                        actions.push(Action::Promote(node));
                        Failover::Promoting(node)
                    }
                },
            },
        };
    }

    /// Since when the cluster has had no primary, if it is ours to replace it.
    fn lost_at(&self) -> Option<Instant> {
        let known = self.known.filter(|_| self.mode == FailoverMode::Promote && self.topology.primary.is_none())?;
        let evidence = &self.evidence[usize::from(known.node.0)];
        // One that became a replica before it went away was replaced on purpose, by somebody who will finish.
        evidence.down_since.filter(|_| evidence.is_primary())
    }

    fn candidate(&mut self, lost: Instant, now: Instant, actions: &mut Vec<Action>) -> Result<NodeId, Obstacle> {
        let (mut unproven, mut listening) = (None, None);
        let (mut replicas, mut witnesses) = (0, 0);
        for id in self.ids() {
            let evidence = &self.evidence[usize::from(id.0)];
            if evidence.is_primary() || self.is_foreign(id) || self.is_gone(id) {
                continue;
            }
            // One that never answered may well be a replica, so it counts as one that cannot be asked.
            replicas += 1;
            let Some(probe) = evidence.last.as_ref().filter(|_| !self.is_down(id)) else { continue };
            let testified = evidence.failures == 0 && evidence.doubt.is_none() && probe.started >= lost;
            if testified && probe.hears_primary() {
                if evidence.heard.is_some_and(|heard| heard >= lost) || self.silence.is_none() {
                    return Err(Obstacle::Heard(id));
                }
                let silent = probe.started.saturating_duration_since(lost);
                let too_short = self.silence.is_some_and(|silence| silent < silence);
                if !self.has_inquired(id, lost, now, actions) || too_short {
                    listening = Some(id);
                    self.ask(id, now, actions);
                    continue;
                }
            } else if testified && evidence.inquiry.is_some_and(|inquiry| inquiry.is_under_way(lost, now)) {
                // The question may have ended the connection. Whether it comes back is known soon.
                listening = Some(id);
                self.ask(id, now, actions);
                continue;
            }
            if testified {
                witnesses += 1;
            } else {
                unproven = Some(id);
                self.ask(id, now, actions);
            }
        }
        if let Some(id) = unproven {
            return Err(Obstacle::Unproven(id));
        }
        if let Some(id) = listening {
            return Err(Obstacle::Listening(id));
        }
        if witnesses == 0 || witnesses * 2 < replicas {
            return Err(Obstacle::FewWitnesses);
        }
        if self.pause_until.is_some_and(|until| now < until) {
            return Err(Obstacle::Pausing);
        }
        self.most_advanced().ok_or(Obstacle::NoCandidate)
    }

    /// Whether the silence of this replica, which holds its connection, has been put to the test; if not, it is seen to.
    fn has_inquired(&mut self, id: NodeId, lost: Instant, now: Instant, actions: &mut Vec<Action>) -> bool {
        if self.is_in_cascade(id) {
            return true;
        }
        let evidence = &mut self.evidence[usize::from(id.0)];
        let (attempts, pause) = match evidence.inquiry.filter(|inquiry| inquiry.lost == lost) {
            Some(inquiry) if inquiry.is_under_way(lost, now) => return false,
            Some(inquiry) if inquiry.stage == OrderStage::Failed && inquiry.attempts < INQUIRY_ATTEMPTS_MAX => {
                (inquiry.attempts, INQUIRY_RETRY)
            }
            Some(_) => return true,
            None => (0, INQUIRY_PAUSE),
        };
        let long_ago = |at: Instant, pause| now.saturating_duration_since(at) >= pause;
        let due = evidence.inquiry.is_none_or(|inquiry| long_ago(inquiry.started, pause));
        if due && evidence.heard.is_none_or(|heard| long_ago(heard, QUIET)) {
            evidence.inquiry =
                Some(SignOfLife { lost, started: now, attempts: attempts + 1, stage: OrderStage::UnderWay });
            actions.push(Action::Inquire(id));
        }
        false
    }

    /// Whether another replica sends WAL on: then it may be that one which would answer this one, and not the primary.
    fn is_in_cascade(&self, id: NodeId) -> bool {
        self.ids().any(|other| {
            let evidence = &self.evidence[usize::from(other.0)];
            let sends = evidence.last.as_ref().is_some_and(|probe| probe.role == Role::Replica && probe.senders > 0);
            other != id && sends && !self.is_gone(other)
        })
    }

    pub(super) fn take_testimony(
        &mut self,
        node: NodeId,
        testimony: Testimony,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let evidence = &mut self.evidence[usize::from(node.0)];
        let stage = match testimony {
            Testimony::Answered => {
                evidence.heard = Some(now);
                OrderStage::Ended
            }
            Testimony::Silent | Testimony::Unable { lasting: true, .. } => OrderStage::Ended,
            Testimony::Unable { lasting: false, .. } => OrderStage::Failed,
        };
        if let Some(inquiry) = &mut evidence.inquiry {
            inquiry.stage = stage;
        }
        actions.push(Action::ProbeNow(node));
    }

    fn ask(&mut self, id: NodeId, now: Instant, actions: &mut Vec<Action>) {
        let evidence = &mut self.evidence[usize::from(id.0)];
        if evidence.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= ASK_PAUSE) {
            evidence.asked = Some(now);
            actions.push(Action::ProbeNow(id));
        }
    }

    /// The best replica to promote. One whose promotion may still happen comes before all others, because a second
    /// primary on the same timeline would be worse than waiting.
    fn most_advanced(&self) -> Option<NodeId> {
        if let Some(id) = self.pending_promotion() {
            return self.may_be_promoted(id).then_some(id);
        }
        self.ids()
            .filter(|id| self.may_be_promoted(*id))
            .reduce(|best, id| if self.compare(id, best) == Ordering::Greater { id } else { best })
    }

    /// The replica that was told to become primary, and has neither done so, nor gone back to streaming, nor died.
    pub(super) fn pending_promotion(&self) -> Option<NodeId> {
        self.ids().find(|id| self.evidence[usize::from(id.0)].promotion_pending && !self.is_down(*id))
    }

    fn may_be_promoted(&self, id: NodeId) -> bool {
        let evidence = &self.evidence[usize::from(id.0)];
        let (Some(known), Some(probe), Some(seen)) = (self.known, &evidence.last, self.history.latest()) else {
            return false;
        };
        let has = self.history.as_of(reached(probe));
        evidence.is_reachable_replica()
            && !self.is_foreign(id)
            && evidence.order == Order::Serve
            && self.declared[usize::from(id.0)] != Some(Role::Replica)
            && probe.timeline == known.timeline
            && has.is_some_and(|has| seen.saturating_duration_since(has) <= LOSS_LIMIT)
    }

    /// Greater is better: fewer failed promotions, more WAL, more weight.
    fn compare(&self, one: NodeId, other: NodeId) -> Ordering {
        let evidence = |id: NodeId| &self.evidence[usize::from(id.0)];
        let position = |id: NodeId| evidence(id).last.as_ref().map_or(0, reached);
        let weight = |id: NodeId| self.topology.nodes[usize::from(id.0)].weight;
        (evidence(other).promotions_failed.cmp(&evidence(one).promotions_failed))
            .then(position(one).cmp(&position(other)))
            .then(weight(one).total_cmp(&weight(other)))
    }

    pub(super) fn promotion_failed(&mut self, node: NodeId, may_still_happen: bool, now: Instant) {
        if self.promotion.is_none_or(|promotion| promotion.node != node) {
            return;
        }
        self.promotion = None;
        self.pause_until = Some(now + PROMOTION_PAUSE);
        let evidence = &mut self.evidence[usize::from(node.0)];
        evidence.promotions_failed += 1;
        evidence.promotion_pending = may_still_happen;
    }

    pub(super) fn expire_promotion(&mut self, now: Instant) {
        let late = |promotion: &Promotion| now.saturating_duration_since(promotion.started) >= PROMOTION_LIMIT;
        if let Some(promotion) = self.promotion.filter(late) {
            self.promotion_failed(promotion.node, true, now);
        }
    }

    /// Points replicas at the primary that are on an older timeline, or that have heard nobody for a while.
    pub(super) fn point_replicas(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let (Some(primary), Some(known)) = (self.topology.primary, self.known) else { return };
        let proven = self.evidence[usize::from(primary.0)].failures == 0;
        if self.mode != FailoverMode::Promote || !proven {
            return;
        }
        for replica in self.ids() {
            let foreign = self.is_foreign(replica);
            let evidence = &mut self.evidence[usize::from(replica.0)];
            let behind = evidence.last.as_ref().is_some_and(|probe| (1..known.timeline).contains(&probe.timeline));
            let astray = behind || evidence.idle_probes >= IDLE_PROBES;
            let paused = evidence.follow_after.is_some_and(|after| now < after);
            if evidence.is_reachable_replica() && !foreign && astray && !paused {
                evidence.follow_after = Some(now + FOLLOW_PAUSE);
                evidence.idle_probes = 0;
                actions.push(Action::Follow { replica, primary });
            }
        }
    }
}

/// How much WAL a replica has. After a restart without a primary it has received nothing and replayed what it had.
fn reached(probe: &NodeProbe) -> u64 {
    probe.received.max(probe.lsn)
}
