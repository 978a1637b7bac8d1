//! What a client waits for that has no server connection yet, as it is told of it: in a NOTICE once it has waited for a
//! while, and in the error when nothing comes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep};

use super::exchange::Exchange;
use crate::{
    backend::ConnectError,
    databases::{NodeRequest, Target, choose},
    frontend::errors::{self, AcquireError},
    net::Stream,
};
use poolhouse_core::{
    topology::{NodeSet, RouteError},
    wire::error::Report,
};

/// For so long after its start Poolhouse waits for servers of which it has not heard yet as for others: they may be
/// starting as well.
const STARTING: Duration = Duration::from_secs(5);

/// While nothing is known of a cluster there is nothing to wait for but what the health checks find out. Tells what
/// they were told when that does not pass by itself: logins that are refused, and addresses where no server is.
pub fn told_of_unknown(target: &Target) -> Option<AcquireError> {
    let monitor = &target.cluster.monitor;
    let topology = monitor.topology();
    if topology.primary_seen.is_some() || !topology.settled {
        return None;
    }
    let unknown = || topology.in_use().filter(|(_, node)| node.role.is_none());
    let refused = unknown().find_map(|(id, _)| Some((id, monitor.told(id).filter(|told| told.is_definite())?)));
    if let Some((id, told)) = refused {
        let user = monitor.settings().health.user.clone();
        let (node, cluster) = (target.cluster.node(id).name.clone(), target.cluster.name.clone());
        return Some(AcquireError::Health { node, cluster, user, error: (*told).clone() });
    }
    let nobody = |told: &ConnectError| matches!(told, ConnectError::Unreachable(_) | ConnectError::Timeout(_));
    let absent =
        topology.in_use().all(|(id, node)| node.role.is_none() && monitor.told(id).is_some_and(|it| nobody(&it)));
    if !absent || monitor.age() < STARTING {
        return None;
    }
    Some(AcquireError::Absent { cluster: target.cluster.name.clone(), nodes: target.cluster.how_nodes_are() })
}

/// What the client would be waiting for now.
pub fn reason(target: &Target, request: NodeRequest) -> Report {
    let refusal = |node| Some((target.cluster.node(node).name.as_str(), target.refusal(node)?));
    match choose(target, request, NodeSet::NONE) {
        Err(RouteError::NoReplica | RouteError::NodeUnfit) => {
            errors::waits("no replica is fit to serve", target.cluster.how_nodes_are())
        }
        Err(RouteError::NoPrimary) => errors::waits("no primary is known", target.cluster.how_nodes_are()),
        Err(RouteError::NoNode) => errors::waits("no server is reachable", target.cluster.how_nodes_are()),
        Ok(choice) => match refusal(choice.node) {
            Some((node, error)) => errors::waits_for_login(node, &error),
            None => in_queue(target),
        },
    }
}

/// The same for one that waits in a pool's queue, and no server is in its way.
pub fn in_queue(target: &Target) -> Report {
    if target.is_paused() { errors::waits_for_resume() } else { errors::waits_for_others() }
}

/// When a client is to be told what it waits for. Pends for ever when it is not.
#[derive(Debug, Default)]
pub struct WaitNotice {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl WaitNotice {
    /// For a client that has waited `since` then.
    pub fn new(target: &Target, since: Instant) -> WaitNotice {
        let after = target.wait_notice().map(|notice| notice.checked_sub(since.elapsed()));
        // It has been told before when the time has passed already.
        WaitNotice { sleep: after.flatten().map(|after| Box::pin(sleep(after))) }
    }

    /// What it is told, once.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        target: &Target,
        request: impl FnOnce() -> NodeRequest,
    ) -> Poll<Report> {
        let Some(sleep) = &mut self.sleep else { return Poll::Pending };
        let () = std::task::ready!(sleep.as_mut().poll(cx));
        self.sleep = None;
        Poll::Ready(reason(target, request()))
    }
}

/// Tells a client that waits something in between, as a NOTICE.
pub fn say(exchange: &mut Exchange, report: &Report) {
    if let Some((_, out, _)) = exchange.between_messages() {
        report.write_notice("NOTICE", out.to_client);
    }
}

/// Writes what has been said. Ready when the client cannot be written to.
pub fn poll_said(exchange: &mut Exchange, cx: &mut Context<'_>, client: &mut Stream) -> Poll<()> {
    if exchange.client_outbox().is_empty() {
        return Poll::Pending;
    }
    match exchange.poll_flush_client(cx, client) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}
