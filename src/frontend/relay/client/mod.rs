//! The life of a client that is logged in: idle without a buffer, busy with an exchange, and its server connection
//! between transactions nowhere but in the pool. `running` is what its task does next, `leaving` how it ends.

mod leaving;
mod running;

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::sync::futures::OwnedNotified;

use super::{
    counting::{News, Slow},
    exchange::{Exchange, ExchangeEvent},
    judge::{ClientJudge, Prejudged},
    kept_back::KeptBack,
    lending::{Acquired, FirstTry, acquire_for_client, at_home, cancels_done, first_try, tell_monitor},
    limits::{ClientLimit, LimitTimer},
    mail::{Attended, MailRound, Subscription},
    waiting,
    worker::Worker,
};
use crate::{
    backend::{self, ConnectError, ServerManager},
    clients::{self, ClientPlace, Entry, LeaveOrder},
    databases::{NodeRequest, Target, stays},
    frontend::errors::{self, AcquireError},
    metrics::{Account, Count},
    monitor::ClientReport,
    net::Stream,
    pool::{CheckoutError, Lease, Waiting},
};
use poolhouse_core::{
    session::{AfterLoss, Ending, Loss, Mode, Need, Phase, RefusedRead, Session},
    topology::{Balance, NodeId},
    wire::reply::Status,
};

/// How long a server may take to show whether it still takes logins.
const KNOCK_LIMIT: Duration = Duration::from_secs(2);

/// One client. Thousands of these are idle at once, so what only a busy one needs is in `exchange` and `lent`. In the
/// order written, so that what each turn of its task looks at lies together.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Client {
    /// In sessions that may ask for values of sequences.
    kept_back: Option<Box<KeptBack>>,
    /// It is to look whether both ends of its server connection are there.
    looks: bool,
    /// It waits for the primary to be proven.
    proof: Option<Pin<Box<OwnedNotified>>>,
    exchange: Option<Box<Exchange>>,
    /// If the pool has limits.
    timer: Option<Box<LimitTimer>>,
    worker: Arc<Worker>,
    target: Arc<Target>,
    entry: Entry,
    /// The long text at the front, or the last one.
    prejudged: Option<Box<Prejudged>>,
    stream: Stream,
    lent: Option<Acquired>,
    queued: Option<Queued>,
    choosing: Choosing,
    session: Session,
    /// Since when the session keeps its server connection between transactions.
    pinned_since: Option<Instant>,
    /// Its place at the hub, when it listens.
    subscription: Option<Box<Subscription>>,
    /// The last order to move that has been put to it.
    order_answered: u32,
    /// It had hung up when that was looked at last.
    was_gone: bool,
    /// Frees its place among `max_clients` when the client goes.
    place: Option<ClientPlace>,
}

// Every idle client holds one.
const _: () = assert!(size_of::<Client>() <= 448);

/// What decides between nodes for a client, beside its session.
#[derive(Debug)]
struct Choosing {
    /// Statements so far, as the seed of choices, and for the timer.
    turns: u32,
    /// The rule of the configuration that the client is under.
    rule: Option<u16>,
    /// When its last write was answered; its reads must see it.
    last_write: Option<Instant>,
}

/// A place in a pool's queue.
#[derive(Debug)]
struct Queued {
    waiting: Waiting<ServerManager>,
    node: NodeId,
    need: Need,
    /// Of the topology by which the node was last found to be the right one.
    version: u64,
    /// The client has been told what it waits for.
    told: bool,
}

/// How a client leaves its thread.
pub enum Leave {
    Ended,
    /// It goes on, on the thread of this number.
    ToMove(Box<Client>, usize),
}

/// What the client's task waits for.
enum Wake {
    Event(ExchangeEvent),
    /// The wait in a pool's queue has ended.
    Served(Result<Lease<ServerManager>, CheckoutError<ConnectError>>, NodeId, Need),
    /// The node in whose queue it waited cannot serve it any more.
    Misplaced(Need),
    /// The statement was cancelled while it waited.
    Canceled,
    LeaveOrder(LeaveOrder),
    Limit(ClientLimit),
    /// It becomes active when the database's own code has not been looked at for a while.
    AfterRest,
    /// It becomes active, and is to be served by the thread of this number from now on.
    Move(usize),
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.count(self.worker.counts_for(&self.target.account));
        }
    }
}

/// What a client begins with.
pub struct ClientParts {
    pub stream: Stream,
    pub session: Session,
    pub target: Arc<Target>,
    pub worker: Arc<Worker>,
    pub entry: Entry,
    /// The rule of the configuration that it is under.
    pub rule: Option<u16>,
    pub place: ClientPlace,
}

impl Client {
    pub fn new(parts: ClientParts) -> Box<Client> {
        let ClientParts { stream, session, target, worker, entry, rule, place } = parts;
        let timer = LimitTimer::new(&target.limits);
        Box::new(Client {
            stream,
            session,
            target,
            worker,
            entry,
            choosing: Choosing { turns: 0, rule, last_write: None },
            prejudged: None,
            place: Some(place),
            exchange: None,
            lent: None,
            kept_back: None,
            looks: false,
            proof: None,
            queued: None,
            timer,
            pinned_since: None,
            subscription: None,
            order_answered: 0,
            was_gone: false,
        })
    }

    /// The client has a server connection from its login on: session mode.
    pub fn keep(&mut self, acquired: Acquired) {
        self.exchange = Some(self.worker.exchange());
        self.attach(acquired, Need::Write);
    }

    /// The client is served by the calling thread from now on; it holds nothing but its socket.
    ///
    /// # Errors
    /// When the kernel refuses; the client is lost then.
    pub fn arrive(&mut self, worker: Arc<Worker>) -> io::Result<()> {
        self.stream.rehome()?;
        self.worker = worker;
        // A timer belongs to its thread, too.
        self.timer = LimitTimer::new(&self.target.limits);
        Ok(())
    }

    /// Finds out what the long text at the front does, while other clients are served.
    async fn judge_front(&mut self) {
        let Some(text) = self.exchange.as_ref().and_then(|exchange| exchange.front_text()) else { return };
        let worker = self.worker.clone();
        let verdict = self.wait_aside(worker.judge_apart(text.clone())).await;
        self.prejudged = Some(Box::new((text, verdict)));
    }

    /// Lets the database's own code be looked at, so that what it says is judged by what there is now.
    async fn wait_for_look(&mut self) {
        let target = self.target.clone();
        self.wait_aside(target.code_looked_at_again()).await;
    }

    /// Others may wait for what is kept back meanwhile.
    async fn wait_aside<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        poll_fn(|cx| {
            self.poll_kept_back(cx);
            what.as_mut().poll(cx)
        })
        .await
    }

    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if self.kept_back.is_some() {
            self.poll_kept_back(cx);
        }
        let order = self.entry.slot.order();
        if let Some(order) = order
            && (order.is_at_once() || self.is_between_transactions())
        {
            return Poll::Ready(Wake::LeaveOrder(order));
        }
        if self.queued.is_some() {
            return self.poll_queued(cx);
        }
        if self.exchange.is_none()
            && let Poll::Ready(wake) = self.poll_activity(cx)
        {
            return Poll::Ready(wake);
        }
        if let Poll::Ready(event) = self.poll_exchange(cx) {
            return Poll::Ready(Wake::Event(event));
        }
        if self.timer.is_some() { self.poll_limit(cx).map(Wake::Limit) } else { Poll::Pending }
    }

    /// What comes of the client and its server connection, and of the hub for a session that listens: it may have to
    /// hear of the hub before it goes on, also when its client has left.
    #[inline]
    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeEvent> {
        let event = self.poll_event(cx);
        if event.is_pending() && self.session.listens() { self.poll_listening(cx) } else { event }
    }

    #[cold]
    fn poll_kept_back(&mut self, cx: &mut Context<'_>) {
        if let Some(kept_back) = &mut self.kept_back {
            kept_back.poll(cx);
        }
    }

    /// Nothing else can be done for a session that listens: what the hub has for it.
    #[inline(never)]
    fn poll_listening(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeEvent> {
        // Of one that has left nothing is moved to the hub any more.
        let stays = self.exchange.as_ref().is_some_and(|exchange| exchange.is_deserted());
        loop {
            let mut round = MailRound {
                target: &self.target,
                slot: &self.entry.slot,
                worker: &self.worker,
                session: &mut self.session,
                subscription: &mut self.subscription,
                exchange: &mut self.exchange,
                server: self.lent.as_mut().filter(|_| !stays).map(|(lease, _)| &mut ***lease),
            };
            match round.attend() {
                Attended::Nothing => return Poll::Pending,
                Attended::Moved => {}
                Attended::Failed(report) => return Poll::Ready(ExchangeEvent::Failed(report)),
            }
            if let Poll::Ready(event) = self.poll_event(cx) {
                return Poll::Ready(event);
            }
        }
    }

    /// An idle client: it gets an exchange when it becomes active, or is to move.
    fn poll_activity(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if !self.stream.has_news() && ready!(self.stream.poll_readable(cx)).is_err() {
            return Poll::Ready(Wake::Event(ExchangeEvent::Left));
        }
        if let Some(to) = self.worker.post.destination(&mut self.order_answered) {
            return Poll::Ready(Wake::Move(to));
        }
        self.exchange = Some(self.worker.exchange());
        if self.target.is_code_at_rest() { Poll::Ready(Wake::AfterRest) } else { Poll::Pending }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeEvent> {
        if let Some((lease, _)) = &self.lent {
            if lease.is_fenced() {
                return Poll::Ready(ExchangeEvent::Fenced);
            }
            if std::mem::take(&mut self.looks)
                && let Some(event) = self.look_at_ends()
            {
                return Poll::Ready(event);
            }
        }
        if self.target.cluster.monitor.is_strict() {
            self.gate(cx);
        }
        let Some(exchange) = &mut self.exchange else { return Poll::Pending };
        let server = self.lent.as_mut().map(|(lease, _)| &mut ***lease);
        let mut server = server;
        let seed = u64::from(self.choosing.turns);
        let (last_write, rule, prejudged) = (self.choosing.last_write, self.choosing.rule, self.prejudged.as_deref());
        let apart = !exchange.is_deserted();
        let judge = ClientJudge {
            worker: &self.worker,
            target: &self.target,
            apart,
            prejudged,
            last_write,
            rule,
            seed,
            effort: Cell::default(),
        };
        let event = loop {
            let event = exchange.poll(cx, &mut self.stream, &mut self.session, server.as_deref_mut(), &judge);
            if let Some(new) = exchange.pipeline.take(|seldom| &mut seldom.new_defaults) {
                // Before the client hears that it is done.
                self.target.cluster.take_defaults(&new);
            }
            if !matches!(event, Poll::Ready(ExchangeEvent::NewDefaults)) {
                break event;
            }
        };
        if exchange.counting.has_news() || exchange.pipeline.seldom().is_some() {
            self.pass_news();
        }
        if matches!(event, Poll::Ready(ExchangeEvent::Idle)) {
            // The client's socket has been found dry, so the task is woken when something comes.
            self.rest();
            return Poll::Pending;
        }
        if self.session.pinned().is_some() != self.pinned_since.is_some() {
            self.note_pin();
        }
        let Some(exchange) = &mut self.exchange else { return event };
        if event.is_pending() && exchange.is_count_due() {
            exchange.count(self.worker.counts_for(&self.target.account));
        }
        let asks = exchange.pipeline.owed.asks();
        if asks != exchange.shielded && !matches!(event, Poll::Ready(ExchangeEvent::Released)) {
            self.shield(asks);
        }
        event
    }

    /// What operators, or others on the cluster, have to know of.
    #[inline(never)]
    fn pass_news(&mut self) {
        let Some(exchange) = &mut self.exchange else { return };
        if let Some(news) = exchange.counting.take_news() {
            let verbatim = self.worker.watch.tells_values();
            tell(&news, verbatim, &self.target, &self.entry, &self.stream.peer());
        }
        if let Some(database) = exchange.pipeline.take(|seldom| &mut seldom.vacates) {
            self.target.cluster.vacate(&database);
        }
    }

    /// Nothing of a transaction is under way, so the client may be told to leave.
    fn is_between_transactions(&self) -> bool {
        match (&self.lent, &self.exchange) {
            (None, exchange) => {
                self.queued.is_none()
                    && !self.session.in_waiting_block()
                    && exchange.as_ref().is_none_or(|exchange| exchange.front_tag().is_none())
            }
            (Some(_), Some(exchange)) => {
                exchange.pipeline.owed.is_free() && self.session.is_pinned() && exchange.front_tag().is_none()
            }
            (Some(_), None) => false,
        }
    }

    /// In a pool's queue: until there is a connection, the client cancels, or it leaves.
    fn poll_queued(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        let (Some(queued), Some(exchange)) = (&mut self.queued, &mut self.exchange) else {
            return Poll::Pending;
        };
        let (node, need) = (queued.node, queued.need);
        let version = self.target.cluster.monitor.topology().version;
        let misplaced = std::mem::replace(&mut queued.version, version) != version && !stays(&self.target, need, node);
        let wake = if self.entry.slot.take_canceled() {
            Wake::Canceled
        } else if misplaced {
            Wake::Misplaced(need)
        } else if let Poll::Ready(served) = Pin::new(&mut queued.waiting).poll(cx) {
            Wake::Served(served, node, need)
        } else if exchange.poll_gone(cx, &mut self.stream).is_ready() || self.poll_notice(cx).is_ready() {
            Wake::Event(ExchangeEvent::Left)
        } else {
            return Poll::Pending;
        };
        self.queued = None;
        Poll::Ready(wake)
    }

    /// Tells a client that has waited for long what for: the pool wakes it for that. Ready when it cannot be told.
    fn poll_notice(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(queued), Some(exchange)) = (&mut self.queued, &mut self.exchange) else { return Poll::Pending };
        let is_long = |notice| queued.waiting.since.elapsed() >= notice;
        if !queued.told && self.target.wait_notice().is_some_and(is_long) {
            queued.told = true;
            waiting::say(exchange, &waiting::in_queue(&self.target));
        }
        if queued.told { waiting::poll_said(exchange, cx, &mut self.stream) } else { Poll::Pending }
    }

    /// Takes a connection that is there at once, or a place in the queue; false when no node can serve the statement.
    fn lend_or_queue(&mut self, need: Need) -> bool {
        let request = self.request(need);
        if let Some(acquired) = self.take_kept_back(need) {
            self.attach(acquired, need);
            return true;
        }
        let version = self.target.cluster.monitor.topology().version;
        match first_try(&self.target, &self.worker, request) {
            FirstTry::There(acquired) => self.attach(acquired, need),
            FirstTry::Queued(waiting, node) => {
                self.entry.slot.enter_queue(waiting.since.into_std());
                self.queued = Some(Queued { waiting, node, need, version, told: false });
            }
            FirstTry::Nowhere => return false,
        }
        true
    }

    /// The connection that was kept back, if the statement is one for which it was; otherwise it goes back: whoever
    /// waits for a connection keeps none, or it might wait for itself.
    fn take_kept_back(&mut self, need: Need) -> Option<Acquired> {
        let (lease, node) = self.kept_back.as_mut()?.take()?;
        let is_primary = || self.target.cluster.monitor.topology().primary == Some(node);
        if self.session.asks_sequences() && need == Need::Write && is_primary() {
            return at_home(lease, node);
        }
        lease.give_back();
        None
    }

    /// The wait in the queue has ended. False when another try has to be made, perhaps on another node.
    fn take_served(
        &mut self,
        served: Result<Lease<ServerManager>, CheckoutError<ConnectError>>,
        node: NodeId,
        need: Need,
    ) -> bool {
        match served {
            // The nodes may be others than they were when it came.
            Ok(lease) if !stays(&self.target, need, node) => {
                lease.give_back();
                return false;
            }
            Ok(lease) => match at_home(lease, node) {
                Some(acquired) => self.attach(acquired, need),
                None => return false,
            },
            Err(CheckoutError::Open(error)) => {
                tell_monitor(&self.target, node, &error);
                return false;
            }
            Err(CheckoutError::Slow) => return false,
            Err(CheckoutError::Timeout) => {
                self.entry.slot.leave_queue();
                let full = AcquireError::full(&self.target, self.target.pool(node));
                self.refuse_front(&full);
            }
        }
        true
    }

    /// Waits for a connection. An error is answered in the place of the statement; `Err` is for a client that is gone.
    async fn lend(&mut self, need: Need) -> Result<(), ()> {
        let request = self.request(need);
        if let Some(acquired) = self.take_kept_back(need) {
            self.attach(acquired, need);
            return Ok(());
        }
        let Some(exchange) = &mut self.exchange else { return Ok(()) };
        let slot = &self.entry.slot;
        let cluster = self.target.cluster.clone();
        let held = cluster.held.hold();
        let acquired = acquire_for_client(&self.target, &self.worker, request, slot, &mut self.stream, exchange).await;
        match acquired {
            Ok(acquired) => {
                held.serve();
                self.attach(acquired, need);
                Ok(())
            }
            Err(AcquireError::ClientGone) => Err(()),
            Err(AcquireError::Ordered) => {
                errors::ordered(slot.order().unwrap_or(LeaveOrder::Abort)).write(exchange.client_outbox());
                self.flush().await;
                Err(())
            }
            Err(error) => {
                held.fail();
                self.refuse_front(&error);
                Ok(())
            }
        }
    }

    fn request(&mut self, need: Need) -> NodeRequest {
        self.choosing.turns = self.choosing.turns.wrapping_add(1);
        let seed = u64::from(self.choosing.turns) ^ (u64::from(self.entry.slot.process) << 32);
        let after = self.target.must_see(self.choosing.last_write);
        NodeRequest { need, after, lsn: self.session.poolhouse_settings().lsn, rule: self.choosing.rule, seed }
    }

    /// The message at the front cannot be served: its error, and the session goes on.
    fn refuse_front(&mut self, error: &AcquireError) {
        let Some(exchange) = &mut self.exchange else { return };
        let tag = exchange.front_tag().unwrap_or(b'Q');
        exchange.drop_front();
        exchange.pipeline.forget_message();
        let (_, mut out) = exchange.session_parts();
        let before = out.to_client.len();
        let words = error.report();
        let (code, message) = words.code_and_message();
        self.entry.note_error(None, code, message);
        words.write(false, out.to_client);
        self.session.after_refusal(tag, &mut out);
        exchange.note_own(before);
    }

    fn attach(&mut self, mut acquired: Acquired, mut need: Need) {
        if need == Need::Read && self.session.in_waiting_block() {
            let primary = self.target.cluster.monitor.topology().primary;
            if primary == Some(acquired.1) {
                // The block is where its writes would go.
                need = Need::Write;
            }
        }
        let Some(exchange) = &mut self.exchange else { return };
        let server = &mut *acquired.0;
        let process = self.entry.slot.process;
        let writes = &self.target.writes_here;
        let writes = writes.is_wanted().then(|| writes.clone());
        exchange.attach(&mut self.session, server, need, process, writes);
        if self.target.routing.balance == Balance::Latency && matches!(need, Need::Read | Need::Replica) {
            exchange.time(&self.target.cluster.node(acquired.1).latency);
        }
        exchange.shielded = exchange.pipeline.owed.asks();
        let now = Instant::now();
        if let Ok(queued) = self.entry.slot.attach(server.canceler.clone(), exchange.shielded, now) {
            let waited = queued.map(|since| now.duration_since(since));
            exchange.count_assignment(acquired.1, now, waited, self.worker.counts_for(&self.target.account));
            if let Some(sender) = &server.sender {
                sender.lend(process);
            }
            self.lent = Some(acquired);
            return;
        }
        exchange.detach();
        acquired.0.give_back();
        self.refuse_front(&AcquireError::Canceled);
    }

    /// A cancel must hit what the client runs, not what we ask the server in between.
    fn shield(&mut self, asks: bool) {
        let Some(exchange) = &mut self.exchange else { return };
        exchange.shielded = asks;
        let slot = &self.entry.slot;
        if asks {
            slot.shield();
        } else if let Some(canceling) = slot.unshield(!exchange.pipeline.owed.is_empty()) {
            drop(self.worker.cancel(canceling));
        }
    }

    /// Gives the server connection back; false while a cancel for it is under way.
    fn give_back(&mut self) -> bool {
        if !self.entry.slot.detach() {
            return false;
        }
        self.let_go(true);
        true
    }

    async fn give_back_late(&mut self) {
        let done = cancels_done(&self.entry.slot).await;
        self.let_go(done);
    }

    fn let_go(&mut self, mut fit: bool) {
        if self.session.wrote() {
            self.choosing.last_write = Some(Instant::now());
        }
        let mut refused = false;
        if let Some(exchange) = &mut self.exchange {
            refused = exchange.pipeline.unfit;
            // The last line of defence: nothing unsent or unread may go to the next client.
            fit &= exchange.is_clean() && exchange.pipeline.owed.is_free();
            exchange.detach();
        }
        let Some(lent) = self.lent.take() else { return };
        let (mut lease, node) = lent;
        if std::mem::take(&mut lease.state.turned) {
            self.target.cluster.monitor.report(node, ClientReport::Turned);
        }
        if let Some(sender) = &lease.sender {
            sender.give_back(self.entry.slot.process, self.session.wrote());
        }
        let name = &self.target.cluster.node(node).name;
        if fit && refused {
            tracing::info!(
                node = name,
                process = lease.process(),
                "closed a server connection that refused, or may not have lost, what is a session's"
            );
        } else if fit && self.session.lingers() {
            self.kept_back.get_or_insert_default().keep((lease, node));
        } else if fit {
            lease.give_back();
        } else {
            tracing::warn!(node = name, process = lease.process(), "closed a server connection that was not clean");
        }
    }

    /// Nothing to do: all buffers go back.
    fn rest(&mut self) {
        self.prejudged = None;
        if let Some(mut exchange) = self.exchange.take() {
            exchange.count(self.worker.counts_for(&self.target.account));
            exchange.end();
            self.worker.put_back(exchange);
        }
    }

    /// Whether the server has ended only the connection that is lent, and goes on itself.
    async fn is_alone(&mut self) -> bool {
        let (Some((_, node)), Some(exchange)) = (&self.lent, &self.exchange) else { return false };
        match exchange.pipeline.ending() {
            Ending::Connection => true,
            Ending::Node => false,
            Ending::Unclear => {
                let limit = KNOCK_LIMIT.min(self.target.cluster.connect_timeout);
                backend::knock(&self.target.login(*node), limit).await
            }
        }
    }

    /// The server connection has ended; `alone` when its node goes on. What the client is told is the session's
    /// business.
    fn lose_server(&mut self, error: &io::Error, alone: bool) -> AfterLoss {
        let _ = self.entry.slot.detach();
        let Some(lent) = self.lent.take() else { return AfterLoss::GoesOn };
        let cluster = &self.target.cluster;
        let node = &cluster.node(lent.1).name;
        tracing::info!(node, process = lent.0.process(), %error, "lost a server connection in use");
        if !alone {
            cluster.monitor.report(lent.1, ClientReport::ServerLost { reason: error.to_string() });
        }
        let Some(exchange) = &mut self.exchange else { return AfterLoss::GoesOn };
        let elsewhere = !alone || exchange.pipeline.was_in_the_way();
        if elsewhere && exchange.take_back(&mut self.session) {
            return AfterLoss::GoesOn;
        }
        if elsewhere && self.session.outlives(&exchange.pipeline) && !exchange.is_mid_message() {
            self.session.take_back_block(&exchange.pipeline);
            exchange.lose_server();
            return AfterLoss::GoesOn;
        }
        exchange.stop_withholding();
        let loss = Loss { node, mid_message: exchange.is_mid_message(), alone };
        let (pipeline, mut out) = exchange.session_parts();
        let before = out.to_client.len();
        let after = self.session.on_loss(loss, pipeline, &mut out);
        exchange.note_own(before);
        exchange.lose_server();
        if self.session.wrote() {
            self.choosing.last_write = Some(Instant::now());
        }
        after
    }

    /// Commits are to be acknowledged only by a primary that has been proven lately: until then nothing of it passes.
    #[cold]
    fn gate(&mut self, cx: &mut Context<'_>) {
        let (Some((_, node)), Some(exchange)) = (&self.lent, &mut self.exchange) else { return };
        let monitor = &self.target.cluster.monitor;
        exchange.gated = false;
        while monitor.topology().primary == Some(*node) && !monitor.is_proven() {
            let proof = self.proof.get_or_insert_with(|| Box::pin(monitor.proven()));
            // One that was made only now may have missed the answer.
            if !monitor.is_proven() && proof.as_mut().poll(cx).is_pending() {
                exchange.gated = true;
                return;
            }
            self.proof = None;
        }
        self.proof = None;
    }

    /// The statement takes long: whether anybody is there still to answer it, and to be answered. A network that
    /// swallows what it is given tells nobody.
    #[cold]
    fn look_at_ends(&self) -> Option<ExchangeEvent> {
        let (lease, _) = self.lent.as_ref()?;
        let to_servers = self.target.cluster.monitor.settings().tcp.user_timeout;
        if let Some(limit) = to_servers.filter(|limit| lease.stream.is_unheard(*limit)) {
            let error = format!("nothing that was sent was acknowledged within {limit:?}");
            return Some(ExchangeEvent::ServerLost(io::Error::new(io::ErrorKind::TimedOut, error)));
        }
        let to_clients = self.worker.watch.client_timeout();
        to_clients.is_some_and(|limit| self.stream.is_unheard(limit)).then_some(ExchangeEvent::Left)
    }

    /// The node of the lent server connection is not to be used any more as it was: nothing that comes from there
    /// counts.
    fn leave_fenced(&mut self) -> AfterLoss {
        self.cut();
        self.lose_server(&io::Error::other("its node is not to be used any more as it was"), false)
    }

    /// Stops what runs on the lent server connection as far as can be: the server is asked for a cancel, and nothing
    /// that is still on its way there is delivered once the connection is closed.
    fn cut(&mut self) {
        let (Some((lease, _)), Some(exchange)) = (&self.lent, &self.exchange) else { return };
        if let Some(canceler) = lease.canceler.clone().filter(|_| !exchange.pipeline.owed.is_empty()) {
            self.worker.cancel_apart(canceler);
        }
        lease.stream.reset_at_close();
    }

    /// The replica cannot run what was taken for a read: it goes to the primary. What the connection has prepared
    /// meanwhile is not known, so it is closed.
    fn leave_replica(&mut self, why: RefusedRead) {
        let _ = self.entry.slot.detach();
        let Some(lent) = self.lent.take() else { return };
        let node = &self.target.cluster.node(lent.1).name;
        tracing::debug!(node, process = lent.0.process(), ?why, "a replica refused what was taken for a read");
        if self.exchange.as_mut().is_some_and(|exchange| exchange.take_back(&mut self.session)) {
            self.session.on_refused_read(why);
        }
    }

    #[inline(never)]
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<ClientLimit> {
        let (limit, lasts) = self.limit_wanted();
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        timer.poll(cx, limit, lasts)
    }

    /// A statement is over its time. Notes that it is being cancelled; false when it was before, in vain.
    fn has_time_to_cancel(&mut self, turn: u32) -> bool {
        self.timer.as_mut().is_some_and(|timer| timer.has_time_to_cancel(turn))
    }

    /// Notes when the session begins to keep its server connection, and when it does no more.
    fn note_pin(&mut self) {
        let pinned = self.session.pinned();
        match (pinned, self.pinned_since) {
            (Some(why), None) => {
                let process = self.entry.slot.process;
                tracing::debug!(
                    client = self.stream.peer(),
                    process,
                    reason = why.reason,
                    statement = why.statement,
                    "a session keeps its server connection"
                );
                let since = Instant::now();
                self.entry.slot.set_pin(Some(clients::PinnedClient { why: why.clone(), since }));
                self.pinned_since = Some(since);
                if let Some(exchange) = &mut self.exchange {
                    exchange.counting.add(Count::Pins, 1);
                    // The client may idle for long now.
                    exchange.count(self.worker.counts_for(&self.target.account));
                }
            }
            (None, Some(since)) => {
                let (process, kept) = (self.entry.slot.process, since.elapsed());
                tracing::debug!(
                    client = self.stream.peer(),
                    process,
                    ?kept,
                    "a session lets go of its server connection"
                );
                self.entry.slot.set_pin(None);
                self.pinned_since = None;
            }
            _ => {}
        }
        // In session mode nobody counts on a return.
        if self.target.shared.mode != Mode::Session
            && let Some((lease, _)) = &mut self.lent
        {
            lease.set_pinned(self.pinned_since.is_some());
        }
    }

    fn limit_wanted(&self) -> (ClientLimit, Option<Duration>) {
        let limits = &self.target.limits;
        match (&self.lent, &self.exchange) {
            (Some(_), Some(exchange)) => {
                let turn = exchange.pipeline.owed.turns();
                if exchange.pipeline.owed.ready_owed() > 0 || exchange.is_held() {
                    (ClientLimit::Query(turn), limits.query_timeout)
                } else if exchange.pipeline.owed.status() != Status::Idle
                    || exchange.pipeline.owed.phase() != Phase::Ready
                {
                    (ClientLimit::IdleTransaction(turn), limits.idle_transaction_timeout)
                } else {
                    ClientLimit::of_idle(turn, limits, self.pinned_since)
                }
            }
            _ if self.session.in_waiting_block() => {
                (ClientLimit::IdleTransaction(self.choosing.turns), limits.idle_transaction_timeout)
            }
            _ => (ClientLimit::ClientIdle(self.choosing.turns), limits.client_idle_timeout),
        }
    }
}

#[cold]
fn tell(news: &News, verbatim: bool, target: &Target, entry: &Entry, client: &str) {
    for error in &news.errors {
        let node = error.node.map(|node| target.cluster.node(node).name.as_str());
        entry.note_error(node, &error.code, &error.message);
    }
    if let Some(slow) = &news.slow {
        tell_slow(slow, verbatim, target, entry, client);
    }
}

/// Without the values in the text, which may be secret, unless it is to be told `verbatim`.
fn tell_slow(slow: &Slow, verbatim: bool, target: &Target, entry: &Entry, client: &str) {
    let Account { database, user, .. } = &*target.account;
    let node = slow.node.map(|node| target.cluster.node(node).name.as_str());
    // What was kept before a RELOAD says otherwise is not told any more.
    let verbatim = slow.normal.verbatim.as_deref().filter(|_| verbatim);
    let statement = match verbatim.and_then(|verbatim| verbatim.text.as_deref()) {
        Some(text) => text,
        None if slow.normal.text.is_empty() => "(cannot be shown without its values)",
        None => &slow.normal.text,
    };
    let values = verbatim.and_then(|verbatim| verbatim.values.as_deref());
    let (process, waited, took, failed) = (entry.slot.process, slow.waited, slow.took, slow.failed);
    tracing::warn!(
        client,
        database,
        user,
        process,
        node,
        ?waited,
        ?took,
        failed,
        statement,
        values,
        "a slow statement"
    );
}
