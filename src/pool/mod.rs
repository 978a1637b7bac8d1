//! Lending server connections: limits, order and lifetimes. Knows neither SQL nor PostgreSQL.
//!
//! A [`NodePools`] is one server with a budget of connections; a [`Pool`] is what one database and user may have of it.
//! A checkout takes the connection that was used last, or waits in order of arrival. When the budget is used up, the
//! connection that has idled longest in a pool that has more makes room, or in any other once it has idled for a while;
//! when none idles, the pool that has most gives way to the one that has least.
//!
//! Ready-made pools hand out permits, not connections: a task whose permit says "open a new one" waits for the node's
//! budget while connections of its own pool come back and go to others. So this one hands over connections.

mod ledger;
#[cfg(test)]
mod tests;
mod trouble;
mod waiters;

use std::{
    fmt::Debug,
    future::Future,
    ops::{Deref, DerefMut},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    thread::ThreadId,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use crate::tasks::Scope;
use ledger::{Held, Ledger, OpeningPlace, Outcome, TimerNeed, Work};
pub use ledger::{PoolCounts, PoolKey};
pub use trouble::Trouble;

/// How one pool (database, user, node) lends. `[pool]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Most server connections of this pool, at least 1.
    pub size: usize,
    /// Connections beyond `size`, one at a time, for those who have waited for `reserve_timeout` without that any came
    /// back, while a session keeps one of them between its transactions.
    pub reserve_size: usize,
    /// See `reserve_size`.
    pub reserve_timeout: Duration,
    /// Connections kept open even when nobody uses them, at most `size`.
    pub min_idle: usize,
    /// How long a client waits for a connection before it gets SQLSTATE 53300; `None` waits for ever.
    pub checkout_timeout: Option<Duration>,
    /// A client that has waited for this long is told what for; `None` says nothing.
    pub wait_notice: Option<Duration>,
    /// An idle connection is closed after this long; `None` keeps it.
    pub idle_timeout: Option<Duration>,
    /// A connection that has idled for longer is asked whether it still works before it is lent; `None` never asks.
    pub check_delay: Option<Duration>,
    /// A connection is closed once it is this old and idle, give or take a tenth, so that they do not all go at once.
    pub max_lifetime: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            size: 20,
            reserve_size: 5,
            reserve_timeout: Duration::from_secs(1),
            min_idle: 0,
            checkout_timeout: Some(Duration::from_secs(30)),
            wait_notice: Some(Duration::from_secs(5)),
            idle_timeout: Some(Duration::from_secs(600)),
            check_delay: Some(Duration::from_secs(30)),
            max_lifetime: Some(Duration::from_secs(3600)),
        }
    }
}

/// How the connections of one pool are made, judged and ended.
pub trait Manager: Send + Sync + 'static {
    type Connection: Debug + Send + 'static;
    type Error: Clone + Debug + Send + 'static;

    /// Opens a connection, with a time limit of its own, on the event loop of the calling thread.
    fn open(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Whether a connection that idled is still there. Must not wait.
    fn is_fit(connection: &mut Self::Connection) -> bool;

    /// Says goodbye to the server. Must not wait.
    fn retire(connection: Self::Connection);

    /// The thread whose event loop the connection is on.
    fn home(connection: &Self::Connection) -> ThreadId;

    /// Whether a failure does not pass by itself.
    fn is_lasting(error: &Self::Error) -> bool;

    /// From now on connections cannot be opened, or can be again. Must not wait, and not call the pool.
    fn note_trouble(&self, troubled: bool);
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckoutError<E> {
    /// `checkout_timeout` has passed.
    Timeout,
    /// A new connection could not be opened.
    Open(E),
    /// A new connection takes long to be opened; another server may be faster.
    Slow,
}

/// One server with its budget of connections.
#[derive(Debug)]
pub struct NodePools<M: Manager> {
    ledger: Mutex<Ledger<M>>,
    scope: Scope,
    /// Wakes the task that ends waits: one of them ends sooner than it thinks.
    sooner: Notify,
}

impl<M: Manager> NodePools<M> {
    /// A server that may have `connections_max` connections over all its pools, at least 1.
    pub fn new(connections_max: usize, scope: Scope) -> Arc<NodePools<M>> {
        let ledger = Mutex::new(Ledger::new(connections_max, Instant::now()));
        Arc::new(NodePools { ledger, scope, sooner: Notify::new() })
    }

    /// The server may have so many connections from now on, at least 1.
    pub fn set_connections_max(self: &Arc<Self>, most: usize) {
        let outcome = self.lock().set_connections_max(most);
        self.carry_out(outcome);
    }

    /// Adds a pool.
    pub fn pool(self: &Arc<Self>, settings: Settings, manager: M) -> Arc<Pool<M>> {
        let manager = Arc::new(manager);
        let key = self.lock().add(settings, manager);
        Arc::new(Pool { node: self.clone(), key })
    }

    /// Connections that are lent now.
    pub fn lent(&self) -> usize {
        self.lock().lent()
    }

    /// Connections open or being opened, over all pools.
    pub fn open(&self) -> usize {
        self.lock().open()
    }

    /// What has to be done every second or so: closes what has idled or lived too long or has died, and opens what
    /// `min_idle` asks for. Times in the pools are only as fine as the calls to this.
    pub fn keep(self: &Arc<Self>) {
        let outcome = self.lock().keep(Instant::now());
        self.carry_out(outcome);
    }

    /// Closes every idle connection and, when it is given back, every lent one: the server has changed its role, or is
    /// being left.
    pub fn renew(self: &Arc<Self>) {
        self.renew_where(|_| true);
    }

    /// As [`NodePools::renew`], for the pools whose manager is meant.
    pub fn renew_where(self: &Arc<Self>, is_meant: impl Fn(&M) -> bool) {
        let outcome = self.lock().renew(is_meant);
        self.carry_out(outcome);
    }

    fn lock(&self) -> MutexGuard<'_, Ledger<M>> {
        // No code under the lock can panic half-way through a change.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does outside the lock what was decided under it.
    #[inline]
    fn carry_out(self: &Arc<Self>, outcome: Outcome<M>) {
        if let Some(waker) = outcome.wake {
            waker.wake();
        }
        if let Some(work) = outcome.work {
            self.work(*work);
        }
    }

    fn work(self: &Arc<Self>, work: Work<M>) {
        work.wake.into_iter().for_each(Waker::wake);
        for held in work.retire {
            M::retire(held.connection);
        }
        match work.watch {
            Some(TimerNeed::Start) => {
                let watcher = Watcher { node: self.clone(), done: false };
                self.scope.spawn("end waits in time", watcher.end_waits());
            }
            Some(TimerNeed::Sooner) => self.sooner.notify_one(),
            None => {}
        }
        for (place, manager) in work.open {
            // Made here, so that the place is freed even if the task never runs.
            let opening = Opening { node: self.clone(), place, done: false };
            self.scope.spawn("open a server connection", async move {
                let mut opened = pin!(manager.open());
                let result = match timeout_at(place.slow_at(), &mut opened).await {
                    Ok(result) => result,
                    Err(_) => {
                        opening.is_slow();
                        opened.await
                    }
                };
                opening.finish(result);
            });
        }
    }
}

/// Ends the waits that have lasted too long, as long as anybody waits. One task does it for all, since a timer for each
/// wait would cost more than the wait.
struct Watcher<M: Manager> {
    node: Arc<NodePools<M>>,
    done: bool,
}

impl<M: Manager> Watcher<M> {
    async fn end_waits(mut self) {
        loop {
            let mut outcome = Outcome::default();
            let next = self.node.lock().expire(Instant::now(), &mut outcome);
            self.node.carry_out(outcome);
            let Some(next) = next else { break };
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.node.sooner.notified() => {}
            }
        }
        self.done = true;
    }
}

impl<M: Manager> Drop for Watcher<M> {
    fn drop(&mut self) {
        if !self.done {
            self.node.lock().unwatched();
        }
    }
}

/// A connection being opened. Its place is freed when that is given up.
struct Opening<M: Manager> {
    node: Arc<NodePools<M>>,
    place: OpeningPlace,
    done: bool,
}

impl<M: Manager> Opening<M> {
    fn is_slow(&self) {
        let outcome = self.node.lock().slow(self.place);
        self.node.carry_out(outcome);
    }

    fn finish(mut self, result: Result<M::Connection, M::Error>) {
        self.done = true;
        let outcome = match result {
            Ok(connection) => self.node.lock().opened(self.place, connection),
            Err(error) => self.node.lock().open_failed(self.place, &error),
        };
        self.node.carry_out(outcome);
    }
}

impl<M: Manager> Drop for Opening<M> {
    fn drop(&mut self) {
        if !self.done {
            // Nothing new is started here: the thread's event loop may be ending.
            self.node.lock().given_up(self.place);
        }
    }
}

/// What one database and user may have of one server.
#[derive(Debug)]
pub struct Pool<M: Manager> {
    node: Arc<NodePools<M>>,
    key: PoolKey,
}

impl<M: Manager> Pool<M> {
    /// Waits for a connection, in order of arrival. Cancel-safe: a connection that comes too late goes to the next.
    ///
    /// # Errors
    /// [`CheckoutError::Timeout`] after `checkout_timeout`; [`CheckoutError::Open`] when a new one cannot be opened.
    pub async fn checkout(self: &Arc<Self>, worker: ThreadId) -> Result<Lease<M>, CheckoutError<M::Error>> {
        match self.take_or_queue(worker, true) {
            Checkout::There(lease) => Ok(lease),
            Checkout::Queued(waiting) => waiting.await,
        }
    }

    /// A place in the queue.
    pub fn wait(self: &Arc<Self>, worker: ThreadId) -> Waiting<M> {
        let mut outcome = Outcome::default();
        let since = Instant::now();
        let ticket = self.node.lock().wait(self.key, worker, since, &mut outcome);
        self.node.carry_out(outcome);
        Waiting { ticket, since, pool: Some(self.clone()) }
    }

    /// The connection used last, when one idles and nobody waits, or else a place in the queue. `worker` is the calling
    /// thread: among the idle ones one that lives on its event loop is preferred.
    ///
    /// One that is to be asked whether it still works ([`Lease::is_doubtful`]) is not taken: it goes by the queue, at
    /// whose end is somebody who can wait for the answer.
    pub fn ask(self: &Arc<Self>, worker: ThreadId) -> Checkout<M> {
        self.take_or_queue(worker, false)
    }

    fn take_or_queue(self: &Arc<Self>, worker: ThreadId, doubtful_too: bool) -> Checkout<M> {
        let mut ledger = self.node.lock();
        let (held, mut outcome) = ledger.take_idle(self.key, worker, doubtful_too);
        let asked = match held {
            Some(held) => Checkout::There(Lease { pool: self.clone(), held: Some(held) }),
            None => {
                let since = Instant::now();
                let ticket = ledger.wait(self.key, worker, since, &mut outcome);
                Checkout::Queued(Waiting { ticket, since, pool: Some(self.clone()) })
            }
        };
        drop(ledger);
        self.node.carry_out(outcome);
        asked
    }

    /// What this pool has at the moment.
    pub fn counts(&self) -> PoolCounts {
        self.node.lock().counts(self.key)
    }

    /// Why no connection can be opened at the moment. It is tried again from time to time, also when nobody waits.
    pub fn trouble(&self) -> Option<Trouble<M::Error>> {
        self.node.lock().trouble(self.key)
    }

    /// What there is to say of each idle connection, and since when it idles, give or take a second.
    pub fn idle<T>(&self, mut look: impl FnMut(Instant, &M::Connection) -> T) -> Vec<T> {
        self.node.lock().idle(self.key).map(|(since, connection)| look(since, connection)).collect()
    }

    /// Lends nothing until [`Pool::resume`]: whoever asks waits, without a limit, and connections are closed.
    pub fn pause(&self) {
        let outcome = self.node.lock().pause(self.key);
        self.node.carry_out(outcome);
    }

    pub fn resume(&self) {
        let outcome = self.node.lock().resume(self.key);
        self.node.carry_out(outcome);
    }

    /// Lends by other settings from now on.
    pub fn set_settings(&self, settings: Settings) {
        let outcome = self.node.lock().set_settings(self.key, settings);
        self.node.carry_out(outcome);
    }

    /// Closes every idle connection and, when it is given back, every lent one.
    pub fn renew(&self) {
        let outcome = self.node.lock().renew_pool(self.key);
        self.node.carry_out(outcome);
    }

    /// Connections that [`Pool::renew`] and [`NodePools::renew`] have left to be closed.
    pub fn outdated(&self) -> usize {
        self.node.lock().outdated(self.key)
    }

    /// When that was last.
    pub fn renewed(&self) -> Option<SystemTime> {
        self.node.lock().renewed(self.key)
    }

    fn give_back(&self, held: Held<M::Connection>) {
        let outcome = self.node.lock().give_back(self.key, held);
        self.node.carry_out(outcome);
    }
}

impl<M: Manager> Drop for Pool<M> {
    fn drop(&mut self) {
        let outcome = self.node.lock().remove(self.key);
        self.node.carry_out(outcome);
    }
}

/// What comes of asking for a connection.
#[derive(Debug)]
pub enum Checkout<M: Manager> {
    There(Lease<M>),
    Queued(Waiting<M>),
}

/// A place in the queue; left when it is dropped. Once there is a connection, it is what [`Pool::checkout`] gives.
#[derive(Debug)]
pub struct Waiting<M: Manager> {
    ticket: u64,
    /// When the wait began.
    pub since: Instant,
    /// Until there is an answer.
    pool: Option<Arc<Pool<M>>>,
}

impl<M: Manager> Future for Waiting<M> {
    type Output = Result<Lease<M>, CheckoutError<M::Error>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(pool) = self.pool.take() else { return Poll::Pending };
        let answer = pool.node.lock().answer(pool.key, self.ticket, cx.waker());
        match answer {
            Some(answer) => Poll::Ready(answer.map(|held| Lease { pool, held: Some(held) })),
            None => {
                self.pool = Some(pool);
                Poll::Pending
            }
        }
    }
}

impl<M: Manager> Drop for Waiting<M> {
    fn drop(&mut self) {
        let Some(pool) = self.pool.take() else { return };
        let outcome = pool.node.lock().leave(pool.key, self.ticket);
        pool.node.carry_out(outcome);
    }
}

/// A lent connection. Dropping it closes the connection: only [`Lease::give_back`] lets others have it.
#[derive(Debug)]
pub struct Lease<M: Manager> {
    pool: Arc<Pool<M>>,
    held: Option<Held<M::Connection>>,
}

impl<M: Manager> Lease<M> {
    /// Whether somebody waits for it to be given back.
    pub fn is_wanted(&self) -> bool {
        self.pool.node.lock().is_wanted(self.pool.key)
    }

    /// It has idled for longer than `check_delay`: it is to be asked whether it still works before it is used.
    pub fn is_doubtful(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.doubtful)
    }

    /// Notes whether the session that has it keeps it between transactions: the pool counts on its return no more.
    pub fn set_pinned(&mut self, pinned: bool) {
        let Some(held) = self.held.as_mut().filter(|held| held.pinned != pinned) else { return };
        held.pinned = pinned;
        let outcome = self.pool.node.lock().set_pinned(self.pool.key, pinned);
        self.pool.node.carry_out(outcome);
    }

    /// Closes the other connections of its pool that idle, and those that are lent once they come back.
    pub fn renew_pool(&self) {
        self.pool.renew();
    }

    /// The connection is clean, and goes to the next in the queue or idles.
    pub fn give_back(mut self) {
        if let Some(held) = self.held.take() {
            self.pool.give_back(held);
        }
    }
}

impl<M: Manager> Deref for Lease<M> {
    type Target = M::Connection;

    fn deref(&self) -> &M::Connection {
        &self.held.as_ref().expect("a lease holds its connection until it is given back, which consumes it").connection
    }
}

impl<M: Manager> DerefMut for Lease<M> {
    fn deref_mut(&mut self) -> &mut M::Connection {
        let held = self.held.as_mut();
        &mut held.expect("a lease holds its connection until it is given back, which consumes it").connection
    }
}

impl<M: Manager> Drop for Lease<M> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            let (generation, pinned) = (held.generation, held.pinned);
            drop(held);
            let outcome = self.pool.node.lock().discarded(self.pool.key, generation, pinned);
            self.pool.node.carry_out(outcome);
        }
    }
}
