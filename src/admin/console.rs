//! The clients of the console: each has a task that reads messages, lets the conversation answer them, and does what it
//! wants done.

use std::{
    future::{Future, poll_fn},
    io,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::{interval, timeout},
};

use super::{
    Desk,
    averages::PERIOD,
    conversation::{CommandResult, Conversation, Identity, Next, Wanted},
    rows,
};
use crate::{
    clients::{LeaveOrder, Slot},
    databases::Cluster,
    frontend::Visitor,
    metrics::Count,
    net::Stream,
    tasks::Scope,
};
use poolhouse_core::{
    topology::Topology,
    wire::{
        error::{Report, SqlState},
        frame::HEADER_BYTES,
        header,
        reply::{Authentication, backend_key_data},
    },
};

/// Longest message that a client of the console may send.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Answers gather up to this size before they are sent.
const ANSWER_BYTES: usize = 64 << 10;

/// How long a client may take to accept an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// How long clients may take to be told that Poolhouse ends.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

/// Serves all who come, until the scope is asked to stop, and keeps what the console shows up to date.
pub async fn serve(desk: Arc<Desk>, mut visitors: mpsc::UnboundedReceiver<Visitor>, scope: Scope) {
    let mut clusters = desk.watch_clusters();
    let mut noted: Arc<[Arc<Cluster>]> = Arc::new([]);
    let visits = scope.child();
    let mut periods = interval(PERIOD);
    loop {
        let now = clusters.borrow_and_update().clone();
        for cluster in now.iter().filter(|cluster| !noted.iter().any(|before| Arc::ptr_eq(before, cluster))) {
            note_changes_of(&desk, cluster.clone(), &scope);
        }
        noted = now;
        tokio::select! {
            Ok(()) = clusters.changed() => {}
            visitor = visitors.recv() => {
                let Some(visitor) = visitor else { break };
                visits.spawn("console", visit(desk.clone(), visitor, visits.clone()));
            }
            now = periods.tick() => {
                let totals = rows::database_totals(&desk);
                let mut averages = desk.averages.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                averages.turn(now.into_std(), totals);
            }
            () = scope.stopping() => break,
        }
    }
    // Those who are there are told, by the tasks of this thread.
    let _ = timeout(FAREWELL_LIMIT, visits.ended()).await;
}

/// Starts the task that writes down what becomes of the nodes of a cluster.
fn note_changes_of(desk: &Arc<Desk>, cluster: Arc<Cluster>, scope: &Scope) {
    let (desk, stopping) = (desk.clone(), scope.clone());
    scope.spawn("note changes of nodes", async move {
        let ended = cluster.scope.clone();
        tokio::select! {
            () = note_changes(&desk, &cluster) => {}
            () = ended.stopping() => {}
            () = stopping.stopping() => {}
        }
    });
}

async fn note_changes(desk: &Desk, cluster: &Cluster) {
    let mut seen: Topology = cluster.monitor.topology().as_ref().clone();
    let mut last = seen.primary;
    loop {
        cluster.monitor.changed(seen.version).await;
        let topology = cluster.monitor.topology().as_ref().clone();
        for (at, node) in topology.nodes.iter().enumerate() {
            let before = seen.nodes.get(at).map(|before| (before.state, before.role));
            if before != Some((node.state, node.role)) {
                let role = node.role.map_or("unknown", |role| match role {
                    poolhouse_core::topology::Role::Primary => "primary",
                    poolhouse_core::topology::Role::Replica => "replica",
                });
                let what = format!("{} is {} ({role})", node.name, node.state.name());
                desk.events.add("node", what, &cluster.name, &*node.why);
            }
        }
        if let Some(primary) = topology.primary.filter(|primary| Some(*primary) != seen.primary) {
            // There may have been none meanwhile.
            if last.replace(primary).is_some_and(|last| last != primary) {
                cluster.failovers.fetch_add(1, Ordering::Relaxed);
            }
            let what = format!("{} is the primary, timeline {}", cluster.node(primary).name, topology.timeline);
            desk.events.add("primary", what, &cluster.name, "");
        }
        seen = topology;
    }
}

/// The end of a visit.
enum VisitEnd {
    /// The client has left, or is to be left.
    Gone,
    /// It is told why.
    Told(Report),
}

impl From<io::Error> for VisitEnd {
    fn from(_: io::Error) -> Self {
        VisitEnd::Gone
    }
}

async fn visit(desk: Arc<Desk>, visitor: Visitor, scope: Scope) {
    let Visitor { mut stream, user, database, may_change, parameters, entry, mut place } = visitor;
    if stream.rehome().is_err() {
        return;
    }
    let slot = entry.slot.clone();
    let (server_version, version) = (desk.server_version(), desk.version());
    let identity =
        Identity { user: user.clone(), database, process: slot.process, may_change, server_version, version };
    let mut visit = Visit {
        desk: &desk,
        slot: &slot,
        stream: &mut stream,
        user: &user,
        conversation: Conversation::new(identity, parameters),
        read: Vec::new(),
        out: Vec::new(),
    };
    let end = tokio::select! {
        end = visit.run() => end.err(),
        () = scope.stopping() => Some(VisitEnd::Told(shutting_down())),
        () = ordered(&slot) => {
            let what = "terminating connection due to administrator command";
            Some(VisitEnd::Told(Report::fatal(SqlState::ADMIN_SHUTDOWN, what)))
        }
    };
    if let Some(VisitEnd::Told(report)) = end {
        let mut out = Vec::new();
        report.write(&mut out);
        // A client that does not take the reason goes without it.
        let _ = timeout(Duration::from_secs(1), stream.write_all(&out)).await;
    }
    desk.left(slot.id);
    drop(entry);
    place.leave();
    stream.part().await;
    drop(place);
}

fn shutting_down() -> Report {
    Report::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection because Poolhouse is being shut down")
}

/// Resolves when the client is ordered to leave. A drain does not concern it: whoever steers Poolhouse stays to the end.
async fn ordered(slot: &Slot) {
    poll_fn(|cx| {
        slot.set_waker(cx.waker().clone());
        if slot.order().is_some_and(LeaveOrder::is_at_once) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

struct Visit<'a> {
    desk: &'a Desk,
    slot: &'a Slot,
    stream: &'a mut Stream,
    user: &'a str,
    conversation: Conversation,
    read: Vec<u8>,
    out: Vec<u8>,
}

impl Visit<'_> {
    async fn run(&mut self) -> Result<(), VisitEnd> {
        Authentication::Ok.write(&mut self.out);
        self.conversation.greet(&mut self.out);
        backend_key_data(self.slot.process, self.slot.secret(), &mut self.out);
        self.conversation.ready(&mut self.out);
        loop {
            self.flush().await?;
            self.stream.read_buf(&mut self.read).await.map_err(VisitEnd::from).and_then(|count| match count {
                0 => Err(VisitEnd::Gone),
                _ => Ok(()),
            })?;
            let mut at = 0;
            while let Some((tag, from, to)) = self.message(at)? {
                self.converse(tag, from, to).await?;
                at = to;
            }
            self.read.drain(..at);
        }
    }

    /// The tag of the message that begins at `at`, and where its body is; `None` when it is not all there.
    fn message(&self, at: usize) -> Result<Option<(u8, usize, usize)>, VisitEnd> {
        let head = header(&self.read[at..]).map_err(|error| violation(&error.to_string()))?;
        let Some(head) = head else { return Ok(None) };
        if head.body > MESSAGE_BYTES_MAX {
            let what = format!("a message of {} bytes is too long for the console", head.body);
            return Err(VisitEnd::Told(Report::fatal(SqlState::LIMIT_EXCEEDED, what)));
        }
        let to = at + head.message();
        Ok((to <= self.read.len()).then_some((head.tag, at + HEADER_BYTES, to)))
    }

    async fn converse(&mut self, tag: u8, from: usize, to: usize) -> Result<(), VisitEnd> {
        if matches!(tag, b'Q' | b'S') {
            let traffic = self.slot.account.traffic(None, None);
            traffic.add(Count::Queries, 1);
            traffic.add(Count::Transactions, 1);
        }
        let mut next = self.conversation.on_message(tag, &self.read[from..to], &mut self.out);
        loop {
            if self.out.len() > ANSWER_BYTES {
                self.flush().await?;
            }
            match next {
                Next::Message => return Ok(()),
                Next::End => {
                    self.flush().await?;
                    return Err(VisitEnd::Gone);
                }
                Next::Run(wanted) => {
                    let outcome = match wanted {
                        Wanted::Table(show) => Ok(CommandResult::Table(self.desk.table(show))),
                        Wanted::Explain(explain) => self.desk.explain(&explain, self.user).map(CommandResult::Table),
                        Wanted::Act(action) => {
                            // What was answered before is not to wait for it.
                            self.flush().await?;
                            let acting = self.desk.act(&action, self.user, self.slot.id);
                            let notes = until_left_or_canceled(self.slot, self.stream, acting).await?;
                            for note in notes.iter().flatten() {
                                Report::error(SqlState::SUCCESS, note).write_notice("NOTICE", &mut self.out);
                            }
                            notes.map(|_| CommandResult::Done)
                        }
                    };
                    next = self.conversation.resume(outcome, &mut self.out);
                }
            }
        }
    }

    async fn flush(&mut self) -> Result<(), VisitEnd> {
        if !self.out.is_empty() {
            timeout(WRITE_LIMIT, self.stream.write_all(&self.out)).await.map_err(|_| VisitEnd::Gone)??;
            self.out.clear();
        }
        Ok(())
    }
}

fn violation(what: &str) -> VisitEnd {
    VisitEnd::Told(Report::fatal(SqlState::PROTOCOL_VIOLATION, what))
}

/// Waits for a command, unless the client cancels that or leaves. What it has ordered stands.
async fn until_left_or_canceled(
    slot: &Slot,
    stream: &mut Stream,
    acting: impl Future<Output = Result<Vec<String>, Report>>,
) -> Result<Result<Vec<String>, Report>, VisitEnd> {
    slot.enter_queue(std::time::Instant::now());
    let canceled = poll_fn(|cx| {
        slot.set_waker(cx.waker().clone());
        if slot.take_canceled() { Poll::Ready(()) } else { Poll::Pending }
    });
    let result = tokio::select! {
        biased;
        result = acting => Ok(result),
        () = canceled => {
            let what = "canceling statement due to user request";
            Ok(Err(Report::error(SqlState::QUERY_CANCELED, what).hint("The command itself is not taken back.")))
        }
        () = poll_fn(|cx| stream.poll_gone(cx)) => Err(VisitEnd::Gone),
    };
    slot.leave_queue();
    result
}
