//! Finding a server connection for a statement: which node, and one of its connections. While no node can serve it, the
//! statement waits.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use super::{exchange::Exchange, waiting, worker::Worker};
use crate::{
    backend::{ConnectError, ServerManager},
    clients::{LeaveOrder, Slot},
    databases::{NodeChoice, NodeRequest, Target, choose, choose_first, stays},
    frontend::errors::AcquireError,
    monitor::ClientReport,
    net::Stream,
    pool::{Checkout, CheckoutError, Lease, Pool, Waiting},
};
use poolhouse_core::{
    session::Need,
    topology::{NodeId, NodeSet, RouteError, State},
};

/// A server connection, and the node that it is on.
pub type Acquired = (Lease<ServerManager>, NodeId);

/// Pause before nodes that could not be connected to are tried again; it doubles each time.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(400);

/// How often one who waits for a node looks whether there is something to be told.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What comes of the first try for a connection.
#[derive(Debug)]
pub enum FirstTry {
    There(Acquired),
    /// A place in the queue of the node that comes first.
    Queued(Waiting<ServerManager>, NodeId),
    /// No node can serve it now.
    Nowhere,
}

/// A connection that is there at once, or a place in the queue.
pub fn first_try(target: &Target, worker: &Worker, request: NodeRequest) -> FirstTry {
    let Ok(NodeChoice { node, lacks }) = choose_first(target, request) else { return FirstTry::Nowhere };
    if lacks && !target.routing.causal_wait.is_zero() {
        return FirstTry::Nowhere;
    }
    let pool = target.pool(node);
    match pool.ask(worker.id) {
        Checkout::There(lease) => at_home(lease, node).map_or(FirstTry::Nowhere, FirstTry::There),
        // Another node may serve, or there is something to be told.
        Checkout::Queued(_) if target.troubled().contains(node) => FirstTry::Nowhere,
        Checkout::Queued(waiting) => FirstTry::Queued(waiting, node),
    }
}

/// Waits a little for replicas to replay more: until they are found to have, or shall be asked again.
async fn until_fresher(target: &Target, left: Duration) {
    const ASKED_AGAIN: Duration = Duration::from_millis(10);
    let _ = timeout(ASKED_AGAIN.min(left), target.cluster.monitor.fresher()).await;
}

/// The connection is used by the calling thread from now on. One that cannot be moved is closed, and so is one on which
/// the server has said something or ended meanwhile, or whose node has been fenced: no statement may be lost on a
/// server that was gone before it came.
pub fn at_home(mut lease: Lease<ServerManager>, node: NodeId) -> Option<Acquired> {
    lease.come_home().ok()?;
    (!lease.is_fenced() && lease.stream.is_quiet()).then_some((lease, node))
}

/// [`at_home`], and one that has idled for long is asked whether it still works: a firewall may have forgotten it,
/// which tells nobody. One that is silent is closed, and so are the others of its pool, which have idled as long or
/// longer.
pub async fn prove(target: &Target, lease: Lease<ServerManager>, node: NodeId) -> Option<Acquired> {
    let doubtful = lease.is_doubtful();
    let (mut lease, node) = at_home(lease, node)?;
    if doubtful {
        let limit = target.cluster.monitor.settings().health.timeout;
        // The shortest round trip there is: a query without a command.
        if let Err(error) = lease.query("", limit).await {
            let node = &target.cluster.node(node).name;
            tracing::info!(node, process = lease.process(), %error, "a server connection that had idled works no more");
            lease.renew_pool();
            return None;
        }
        if lease.is_fenced() {
            return None;
        }
    }
    Some((lease, node))
}

/// Waits for a connection: in the pool's queue, or for a node that can serve the statement.
///
/// # Errors
/// See [`AcquireError`]. Cancel-safe.
pub async fn acquire(target: &Target, worker: &Worker, request: NodeRequest) -> Result<Acquired, AcquireError> {
    acquire_from(target, worker, request, &|node| target.pool(node).clone()).await
}

/// [`acquire`] from other pools than the target's own: `pool` names that of a node.
///
/// # Errors
/// See [`AcquireError`]. Cancel-safe.
pub async fn acquire_from(
    target: &Target,
    worker: &Worker,
    request: NodeRequest,
    pool: &(impl Fn(NodeId) -> Arc<Pool<ServerManager>> + Sync),
) -> Result<Acquired, AcquireError> {
    let hold = target.cluster.hold();
    let since = Instant::now();
    let mut round = Round::default();
    let mut pause = RETRY_PAUSE;
    loop {
        let version = target.cluster.monitor.topology().version;
        let node = match choose(target, request, round.avoid.union(target.troubled())) {
            Ok(NodeChoice { lacks: true, .. }) if since.elapsed() < target.routing.causal_wait => {
                until_fresher(target, target.routing.causal_wait.saturating_sub(since.elapsed())).await;
                continue;
            }
            // All that could serve it have been tried.
            Ok(NodeChoice { node, .. }) if round.avoid.contains(node) => {
                round = round.end(since.elapsed())?;
                // A change of the nodes is what helps; without one, the same node may be back.
                let _ = timeout(pause, target.cluster.monitor.changed(version)).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
                continue;
            }
            Ok(NodeChoice { node, .. }) => node,
            Err(error) => {
                if let Some(told) = waiting::told_of_unknown(target) {
                    return Err(told);
                }
                let left = hold.saturating_sub(since.elapsed());
                // How far a replica has come is no change of the nodes.
                let waits = matches!(error, RouteError::NoReplica | RouteError::NodeUnfit) && !left.is_zero();
                if waits {
                    until_fresher(target, left).await;
                    continue;
                }
                let changed = timeout(left.min(LOOK_AGAIN), target.cluster.monitor.changed(version)).await;
                if changed.is_err() && since.elapsed() >= hold {
                    let error = if any_is_up(target) { error } else { RouteError::NoNode };
                    return Err(AcquireError::Route { error, hold, nodes: target.cluster.how_nodes_are() });
                }
                continue;
            }
        };
        let pool = pool(node);
        let Some(checked_out) = checkout(target, worker, request.need, node, &pool).await else { continue };
        let why = match checked_out {
            Ok(lease) => match prove(target, lease, node).await {
                Some(acquired) => return Ok(acquired),
                None => continue,
            },
            Err(CheckoutError::Slow) => {
                round.slow(node);
                continue;
            }
            Err(CheckoutError::Timeout) => {
                // The pool would be larger if the server had let it.
                let refusal = pool.trouble().and_then(|trouble| trouble.error);
                return Err(match refusal {
                    Some(why) => AcquireError::connect(target, node, why),
                    None => AcquireError::full(target, &pool),
                });
            }
            Err(CheckoutError::Open(why)) => why,
        };
        tell_monitor(target, node, &why);
        // What clients have of the pool comes back.
        let patience = match (why.is_definite(), pool.counts().lent > 0) {
            (true, true) => target.checkout_timeout().unwrap_or(Duration::MAX),
            (true, false) => Duration::ZERO,
            (false, _) => hold,
        };
        round.fail(node, AcquireError::connect(target, node, why), patience);
    }
}

/// All nodes that can serve a statement, tried one after the other.
#[derive(Debug, Default)]
struct Round {
    avoid: NodeSet,
    /// The error that has the client wait longest before it is told, and for how long.
    failed: Option<(AcquireError, Duration)>,
    /// A node has not answered yet.
    slow: bool,
}

impl Round {
    fn fail(&mut self, node: NodeId, error: AcquireError, patience: Duration) {
        self.avoid.insert(node);
        if self.failed.as_ref().is_none_or(|(_, longest)| patience >= *longest) {
            self.failed = Some((error, patience));
        }
    }

    fn slow(&mut self, node: NodeId) {
        self.avoid.insert(node);
        self.slow = true;
    }

    /// The next round, unless there is nothing to be hoped for from it.
    fn end(self, waited: Duration) -> Result<Round, AcquireError> {
        match self.failed {
            Some((error, patience)) if !self.slow && waited >= patience => Err(error),
            _ => Ok(Round::default()),
        }
    }
}

/// A connection of a pool; `None` when the node cannot serve the statement any more while it waits for one.
async fn checkout(
    target: &Target,
    worker: &Worker,
    need: Need,
    node: NodeId,
    pool: &Arc<Pool<ServerManager>>,
) -> Option<Result<Lease<ServerManager>, CheckoutError<ConnectError>>> {
    // None yet: the nodes may have changed since this one was chosen.
    let mut version = 0;
    let mut waiting = pin!(pool.checkout(worker.id));
    loop {
        tokio::select! {
            biased;
            checked_out = &mut waiting => {
                return Some(checked_out).filter(|it| it.is_err() || stays(target, need, node));
            }
            () = target.cluster.monitor.changed(version) => {
                version = target.cluster.monitor.topology().version;
                if !stays(target, need, node) {
                    return None;
                }
            }
        }
    }
}

fn any_is_up(target: &Target) -> bool {
    let topology = target.cluster.monitor.topology();
    let up = |state| matches!(state, State::Up | State::Suspect { .. });
    // One without a role has never answered.
    topology.nodes.iter().any(|node| node.role.is_some() && up(node.state))
}

/// Lets the monitor know of a node that could not be connected to.
pub fn tell_monitor(target: &Target, node: NodeId, error: &ConnectError) {
    if !error.is_definite() {
        target.cluster.monitor.report(node, ClientReport::ConnectionRefused { reason: error.to_string() });
    }
}

/// [`acquire`] for a client: it can cancel, leave, and be ordered to leave while it waits. It counts as waiting until
/// [`Slot::attach`].
pub async fn acquire_for_client(
    target: &Arc<Target>,
    worker: &Worker,
    request: NodeRequest,
    slot: &Slot,
    client: &mut Stream,
    exchange: &mut Exchange,
) -> Result<Acquired, AcquireError> {
    slot.enter_queue(Instant::now());
    let result = {
        let mut acquiring = pin!(acquire(target, worker, request));
        let mut notice = waiting::WaitNotice::new(target, slot.waits_since());
        poll_fn(|cx| {
            if slot.take_canceled() {
                return Poll::Ready(Err(AcquireError::Canceled));
            }
            if let Poll::Ready(result) = acquiring.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            if slot.order().is_some_and(LeaveOrder::is_at_once) {
                return Poll::Ready(Err(AcquireError::Ordered));
            }
            if let Poll::Ready(report) = notice.poll(cx, target, || request) {
                waiting::say(exchange, &report);
            }
            if waiting::poll_said(exchange, cx, client).is_ready() {
                return Poll::Ready(Err(AcquireError::ClientGone));
            }
            exchange.poll_gone(cx, client).map(|()| Err(AcquireError::ClientGone))
        })
        .await
    };
    if result.is_err() {
        slot.leave_queue();
    }
    result
}

/// Waits until no cancel request to the lent server connection is under way; false when that takes too long.
pub async fn cancels_done(slot: &Slot) -> bool {
    const LIMIT: Duration = Duration::from_secs(10);
    let mut limit = pin!(sleep(LIMIT));
    poll_fn(|cx| {
        if slot.detach() {
            return Poll::Ready(true);
        }
        limit.as_mut().poll(cx).map(|()| false)
    })
    .await
}
