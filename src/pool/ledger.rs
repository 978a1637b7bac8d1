//! Who has which connection of one server, and who waits: the bookkeeping behind the lock. It never waits and opens or
//! closes nothing itself; what is to be done goes out as an [`Outcome`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    task::Waker,
    thread::ThreadId,
    time::{Duration, SystemTime},
};

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::{
    CheckoutError, Manager, Settings,
    trouble::{ONLY_HOPE_PAUSE, SLOW, Trouble, Try},
    waiters::{Waiter, Waiters},
};

/// A pool's place in its node's ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolKey(u64);

/// How long the first in the queue may be passed over by one on the thread where a connection becomes free: moving a
/// connection between threads costs more than the wait.
const PASSED_OVER_MAX: Duration = Duration::from_millis(5);

/// What one pool has at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCounts {
    pub lent: usize,
    /// Of those that are lent, what sessions keep between their transactions.
    pub pinned: usize,
    pub idle: usize,
    pub opening: usize,
    pub waiting: usize,
}

impl PoolCounts {
    pub fn merge(&mut self, other: PoolCounts) {
        self.lent += other.lent;
        self.pinned += other.pinned;
        self.idle += other.idle;
        self.opening += other.opening;
        self.waiting += other.waiting;
    }
}

/// A connection with what the ledger has to know of it wherever it is.
#[derive(Debug)]
pub(super) struct Held<C> {
    pub connection: C,
    expires: Option<Instant>,
    pub generation: u32,
    /// It has idled for so long that it is to be asked whether it still works.
    pub doubtful: bool,
    /// The session that has it keeps it between transactions.
    pub pinned: bool,
}

/// A place that is reserved for a connection being opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpeningPlace {
    key: PoolKey,
    /// As of the start: what is opened before a renewal and arrives after it is old.
    generation: u32,
    begun: Instant,
}

impl OpeningPlace {
    /// When the opening has taken too long.
    pub fn slow_at(self) -> Instant {
        self.begun + SLOW
    }
}

/// What is to be done about the end of waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimerNeed {
    /// Nobody sees to it that waits end in time.
    Start,
    /// Whoever does would wake up too late.
    Sooner,
}

/// What has to be done once the lock is released: at most one to wake, as a rule.
pub(super) struct Outcome<M: Manager> {
    pub wake: Option<Waker>,
    pub work: Option<Box<Work<M>>>,
}

/// What there is to do beyond that.
pub(super) struct Work<M: Manager> {
    pub retire: Vec<Held<M::Connection>>,
    pub open: Vec<(OpeningPlace, Arc<M>)>,
    pub watch: Option<TimerNeed>,
    pub wake: Vec<Waker>,
}

impl<M: Manager> Default for Outcome<M> {
    fn default() -> Self {
        Outcome { wake: None, work: None }
    }
}

impl<M: Manager> Outcome<M> {
    fn work(&mut self) -> &mut Work<M> {
        let empty = || Box::new(Work { retire: Vec::new(), open: Vec::new(), watch: None, wake: Vec::new() });
        self.work.get_or_insert_with(empty)
    }

    /// One that has waited looks for its answer.
    fn wake(&mut self, waker: Option<Waker>) {
        match (waker, &self.wake) {
            (None, _) => {}
            (waker, None) => self.wake = waker,
            (Some(waker), Some(_)) => self.work().wake.push(waker),
        }
    }

    fn retire(&mut self, idle: Vec<(Instant, Held<M::Connection>)>) {
        if !idle.is_empty() {
            self.work().retire.extend(idle.into_iter().map(|(_, held)| held));
        }
    }

    fn watch(&mut self, watch: Option<TimerNeed>) {
        if watch.is_some() {
            self.work().watch = watch;
        }
    }
}

#[derive(Debug)]
pub(super) struct Ledger<M: Manager> {
    connections_max: usize,
    /// Connections lent, idle or being opened, over all pools.
    open: usize,
    lent: usize,
    /// By key, so that walks over them are in a fixed order.
    pools: BTreeMap<PoolKey, PoolLedger<M>>,
    next_key: u64,
    next_ticket: u64,
    next_serial: u64,
    /// How many pools wait for the node's budget.
    starving: usize,
    /// As of the last call of `keep`.
    now: Instant,
    /// As of the call before: what idles since before it is not needed soon.
    before: Instant,
    /// When the task that ends waits in time wakes up; `None` when there is none.
    wakes: Option<Instant>,
}

#[derive(Debug)]
struct PoolLedger<M: Manager> {
    settings: Settings,
    manager: Arc<M>,
    /// The one used last is at the end.
    idle: Vec<(Instant, Held<M::Connection>)>,
    lent: usize,
    /// How many of these sessions keep between their transactions.
    pinned: usize,
    /// When a connection was lent to one who waits for the last time.
    moved: Option<Instant>,
    opening: usize,
    waiting: Waiters,
    /// What those get, by their tickets, who wait no more and have not looked since.
    answers: HashMap<u64, Answer<M>, RandomState>,
    /// More wait than connections are being opened for, and only the node's budget is in the way.
    starves: bool,
    /// Connections of an older generation are closed instead of idling.
    generation: u32,
    /// Connections of an older generation that are lent, or being opened.
    outdated: usize,
    /// When the generation has changed last.
    renewed: Option<SystemTime>,
    /// Nothing is lent or opened, and what comes back is closed.
    paused: bool,
    /// Since the last connection that could be opened, none could.
    trouble: Option<Trouble<M::Error>>,
    /// When a connection was opened last.
    opened: Option<Instant>,
    /// Whoever waits with a smaller ticket has been woken because the wait is long.
    nudged: u64,
}

impl<M: Manager> PoolLedger<M> {
    /// Whether connections may be opened for those who wait. One that failed is tried again by one attempt at a time.
    fn may_open(&self) -> bool {
        let Some(trouble) = &self.trouble else { return true };
        self.opening == 0 && trouble.due(self.what_for()) <= Instant::now()
    }

    /// What a try to open a connection is for while somebody waits.
    fn what_for(&self) -> Try {
        if self.connections() == 0 { Try::OnlyHope } else { Try::Wanted }
    }

    /// Nothing comes for those who wait before another try is due, after a failure that may be mended only elsewhere:
    /// why.
    fn hopeless(&self) -> Option<&M::Error> {
        let trouble = self.trouble.as_ref().filter(|trouble| !trouble.is_lasting())?;
        let error = trouble.error.as_ref()?;
        (self.connections() == 0 && !self.paused && !self.may_open()).then_some(error)
    }

    /// Whether the size is no bound for one more connection that is needed: those who wait may wait for a session that
    /// waits for them, as one that holds a lock on the connection that it keeps and works on another.
    fn may_exceed(&self) -> bool {
        self.pinned > 0 && self.connections() < self.settings.size + self.settings.reserve_size
    }

    /// When the first of those who wait gets a connection beyond the size, unless one comes back before.
    fn reserve_due(&self) -> Option<Instant> {
        let first = self.waiting.front()?.since;
        let since = self.moved.map_or(first, |moved| moved.max(first));
        let stands_still = self.idle.is_empty() && self.opening == 0 && self.connections() >= self.settings.size;
        (stands_still && self.may_exceed()).then(|| since + self.settings.reserve_timeout)
    }

    fn has_room(&self) -> bool {
        self.connections() < self.settings.size || self.reserve_due().is_some_and(|due| due <= Instant::now())
    }

    /// When the next thing is due that is done for those who wait, besides telling them that it has taken too long.
    fn next_due(&self) -> Option<Instant> {
        if self.paused { None } else { earlier(self.next_try(), self.reserve_due()) }
    }

    /// When the try is due that those wait for who can get nothing else.
    fn next_try(&self) -> Option<Instant> {
        let trouble = self.trouble.as_ref().filter(|trouble| trouble.is_lasting())?;
        let awaited = !self.waiting.is_empty() && self.connections() == 0;
        awaited.then(|| trouble.due(Try::OnlyHope))
    }

    /// All who wait learn that it is better not to.
    fn turn_away(&mut self, why: &CheckoutError<M::Error>, outcome: &mut Outcome<M>) {
        while let Some(waiter) = self.waiting.pop() {
            self.answer(waiter, Err(why.clone()), outcome);
        }
    }

    fn end_trouble(&mut self) {
        if self.trouble.take().is_some() {
            self.manager.note_trouble(false);
        }
    }

    /// Notes that a connection of this generation is lent, or being opened, no more.
    fn settle(&mut self, generation: u32) {
        self.outdated -= usize::from(generation != self.generation);
    }

    /// Closes what idles, and what is out when it comes back.
    fn renew(&mut self) -> Vec<(Instant, Held<M::Connection>)> {
        self.generation = self.generation.wrapping_add(1);
        self.outdated = self.lent + self.opening;
        self.renewed = Some(SystemTime::now());
        // Whatever was in the way may not be any more.
        self.end_trouble();
        std::mem::take(&mut self.idle)
    }

    /// Whether a connection that has idled since then is to be asked whether it still works.
    fn is_doubtful(&self, since: Instant, now: Instant) -> bool {
        self.settings.check_delay.is_some_and(|delay| now.saturating_duration_since(since) > delay)
    }

    fn connections(&self) -> usize {
        self.lent + self.idle.len() + self.opening
    }

    fn first_ticket(&self) -> Option<u64> {
        self.waiting.front().map(|waiter| waiter.ticket)
    }

    fn answer(&mut self, waiter: Waiter, answer: Answer<M>, outcome: &mut Outcome<M>) {
        self.answers.insert(waiter.ticket, answer);
        outcome.wake(waiter.waker);
    }

    fn take_answer(&mut self, ticket: u64) -> Option<Answer<M>> {
        self.answers.remove(&ticket)
    }
}

/// What one that waits gets in the end.
pub(super) type Answer<M> = Result<Held<<M as Manager>::Connection>, CheckoutError<<M as Manager>::Error>>;

impl<M: Manager> Ledger<M> {
    pub fn new(connections_max: usize, now: Instant) -> Ledger<M> {
        Ledger {
            connections_max: connections_max.max(1),
            open: 0,
            lent: 0,
            pools: BTreeMap::new(),
            next_key: 0,
            next_ticket: 0,
            next_serial: 0,
            starving: 0,
            now,
            before: now,
            wakes: None,
        }
    }

    pub fn lent(&self) -> usize {
        self.lent
    }

    pub fn open(&self) -> usize {
        self.open
    }

    pub fn add(&mut self, settings: Settings, manager: Arc<M>) -> PoolKey {
        let key = PoolKey(self.next_key);
        self.next_key += 1;
        let pool = PoolLedger {
            settings,
            manager,
            idle: Vec::new(),
            lent: 0,
            pinned: 0,
            moved: None,
            opening: 0,
            waiting: Waiters::default(),
            answers: HashMap::default(),
            starves: false,
            generation: 0,
            outdated: 0,
            renewed: None,
            paused: false,
            trouble: None,
            opened: None,
            nudged: 0,
        };
        self.pools.insert(key, pool);
        key
    }

    /// Nobody holds the pool any more, so nothing of it is lent and nobody waits.
    pub fn remove(&mut self, key: PoolKey) -> Outcome<M> {
        let mut outcome = Outcome::default();
        if let Some(pool) = self.pools.remove(&key) {
            self.starving -= usize::from(pool.starves);
            // What is being opened is still counted, and let go when it arrives.
            self.open -= pool.idle.len() + pool.lent;
            self.lent -= pool.lent;
            outcome.work().retire.extend(pool.idle.into_iter().map(|(_, held)| held));
        }
        self.feed(&mut outcome);
        outcome
    }

    pub fn counts(&self, key: PoolKey) -> PoolCounts {
        self.pools.get(&key).map_or_else(PoolCounts::default, |pool| PoolCounts {
            lent: pool.lent,
            pinned: pool.pinned,
            idle: pool.idle.len(),
            opening: pool.opening,
            waiting: pool.waiting.len(),
        })
    }

    /// Why no connection can be opened at the moment.
    pub fn trouble(&self, key: PoolKey) -> Option<Trouble<M::Error>> {
        self.pools.get(&key)?.trouble.clone()
    }

    /// Each idle connection, and since when, give or take the pause between two calls of [`Ledger::keep`].
    pub fn idle(&self, key: PoolKey) -> impl Iterator<Item = (Instant, &M::Connection)> {
        self.pools
            .get(&key)
            .into_iter()
            .flat_map(|pool| pool.idle.iter().map(|(since, held)| (*since, &held.connection)))
    }

    /// Connections of this pool that are to be closed and are not yet.
    pub fn outdated(&self, key: PoolKey) -> usize {
        self.pools.get(&key).map_or(0, |pool| pool.outdated)
    }

    /// What was opened before this is to be closed when it comes back.
    pub fn renewed(&self, key: PoolKey) -> Option<SystemTime> {
        self.pools.get(&key).and_then(|pool| pool.renewed)
    }

    /// Whether a connection of this pool that comes back is of use to somebody else at once.
    pub fn is_wanted(&self, key: PoolKey) -> bool {
        self.starving > 0 || self.pools.get(&key).is_none_or(|pool| pool.paused || !pool.waiting.is_empty())
    }

    /// Lends nothing any more until [`Ledger::resume`], however long that takes, and closes what idles or comes back.
    pub fn pause(&mut self, key: PoolKey) -> Outcome<M> {
        if let Some(pool) = self.pools.get_mut(&key) {
            pool.paused = true;
        }
        self.renew_pool(key)
    }

    /// Lends by other settings from now on: what is too much is closed, what idles first, and the rest when it comes
    /// back.
    pub fn set_settings(&mut self, key: PoolKey, settings: Settings) -> Outcome<M> {
        let mut outcome = Outcome::default();
        if let Some(pool) = self.pools.get_mut(&key) {
            pool.settings = settings;
            let excess = pool.connections().saturating_sub(pool.settings.size).min(pool.idle.len());
            let closed: Vec<_> = pool.idle.drain(..excess).collect();
            self.open -= closed.len();
            outcome.retire(closed);
        }
        let deadline = self.next_deadline();
        outcome.watch(self.watch_for(deadline));
        self.feed(&mut outcome);
        self.open_for(key, &mut outcome);
        outcome
    }

    /// The node may have so many connections from now on, at least 1. Of those that are too many the idle ones are
    /// closed now, that which has idled longest first, and the others when they are given back.
    pub fn set_connections_max(&mut self, most: usize) -> Outcome<M> {
        let mut outcome = Outcome::default();
        self.connections_max = most.max(1);
        while self.open > self.connections_max {
            let idle = self.pools.values_mut().filter_map(|pool| Some((pool.idle.first()?.0, pool)));
            let Some((_, pool)) = idle.min_by_key(|(since, _)| *since) else { break };
            let (_, held) = pool.idle.remove(0);
            self.open -= 1;
            outcome.work().retire.push(held);
        }
        self.feed(&mut outcome);
        outcome
    }

    /// Lends again. Whoever waits has all of `checkout_timeout` from now on.
    pub fn resume(&mut self, key: PoolKey) -> Outcome<M> {
        let mut outcome = Outcome::default();
        if let Some(pool) = self.pools.get_mut(&key).filter(|pool| pool.paused) {
            pool.paused = false;
            let since = Instant::now();
            pool.waiting.iter_mut().for_each(|waiter| waiter.since = since);
            let deadline =
                pool.settings.checkout_timeout.filter(|_| !pool.waiting.is_empty()).map(|limit| since + limit);
            outcome.watch(self.watch_for(deadline));
        }
        self.open_for(key, &mut outcome);
        outcome
    }

    /// As [`Ledger::renew`], for one pool.
    pub fn renew_pool(&mut self, key: PoolKey) -> Outcome<M> {
        let mut outcome = Outcome::default();
        if let Some(pool) = self.pools.get_mut(&key) {
            let idle = pool.renew();
            self.open -= idle.len();
            outcome.retire(idle);
        }
        self.feed(&mut outcome);
        self.open_for(key, &mut outcome);
        outcome
    }

    /// The connection used last, one of the calling thread's if there is any; none when others wait already, or when it
    /// is to be asked whether it still works and such a one is not wanted.
    pub fn take_idle(
        &mut self,
        key: PoolKey,
        worker: ThreadId,
        doubtful_too: bool,
    ) -> (Option<Held<M::Connection>>, Outcome<M>) {
        let mut outcome = Outcome::default();
        let Some(pool) = self.pools.get_mut(&key).filter(|pool| pool.waiting.is_empty()) else {
            return (None, outcome);
        };
        let mut found = None;
        while found.is_none() && !pool.idle.is_empty() {
            let own = pool.idle.iter().rposition(|(_, held)| M::home(&held.connection) == worker);
            let at = own.unwrap_or(pool.idle.len() - 1);
            let doubtful = pool.is_doubtful(pool.idle[at].0, self.now);
            if doubtful && !doubtful_too {
                break;
            }
            let (_, mut held) = pool.idle.remove(at);
            held.doubtful = doubtful;
            if M::is_fit(&mut held.connection) {
                pool.lent += 1;
                self.lent += 1;
                found = Some(held);
            } else {
                self.open -= 1;
                outcome.work().retire.push(held);
            }
        }
        self.feed(&mut outcome);
        (found, outcome)
    }

    /// A place at the end of the queue, from `since` on: a ticket.
    pub fn wait(&mut self, key: PoolKey, worker: ThreadId, since: Instant, outcome: &mut Outcome<M>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Some(pool) = self.pools.get_mut(&key) {
            pool.waiting.push(Waiter::new(ticket, worker, since));
            let limit = pool.settings.checkout_timeout.filter(|_| !pool.paused);
            let deadline = earlier(limit.map(|limit| since + limit), pool.next_due());
            outcome.watch(self.watch_for(deadline));
        }
        self.hand_out_idle(key, outcome);
        self.open_for(key, outcome);
        if let Some(pool) = self.pools.get_mut(&key)
            && let Some(error) = pool.hopeless().cloned()
        {
            pool.turn_away(&CheckoutError::Open(error), outcome);
            self.note_need(key);
        }
        ticket
    }

    /// What the one with this ticket gets, once; until that is known it is woken when it is.
    pub fn answer(&mut self, key: PoolKey, ticket: u64, waker: &Waker) -> Option<Answer<M>> {
        let pool = self.pools.get_mut(&key)?;
        if let Some(answer) = pool.take_answer(ticket) {
            return Some(answer);
        }
        let held = &mut pool.waiting.get_mut(ticket)?.waker;
        if !held.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *held = Some(waker.clone());
        }
        None
    }

    /// One may idle that nobody has looked at.
    fn hand_out_idle(&mut self, key: PoolKey, outcome: &mut Outcome<M>) {
        while let Some(pool) = self.pools.get_mut(&key).filter(|pool| !pool.waiting.is_empty()) {
            let Some((since, mut held)) = pool.idle.pop() else { return };
            held.doubtful = pool.is_doubtful(since, self.now);
            if M::is_fit(&mut held.connection) {
                self.place(key, held, outcome);
            } else {
                self.open -= 1;
                outcome.work().retire.push(held);
            }
        }
    }

    /// What is to be done so that a wait ends at its deadline.
    fn watch_for(&mut self, deadline: Option<Instant>) -> Option<TimerNeed> {
        let deadline = deadline?;
        let watch = match self.wakes {
            None => TimerNeed::Start,
            Some(wakes) if deadline < wakes => TimerNeed::Sooner,
            Some(_) => return None,
        };
        self.wakes = Some(deadline);
        Some(watch)
    }

    /// Somebody has stopped waiting, and wants no answer. A connection that it has got already comes back.
    pub fn leave(&mut self, key: PoolKey, ticket: u64) -> Outcome<M> {
        let mut outcome = Outcome::default();
        if let Some(pool) = self.pools.get_mut(&key) {
            if let Some(Ok(held)) = pool.take_answer(ticket) {
                return self.give_back(key, held);
            }
            pool.waiting.leave(ticket);
        }
        self.open_for(key, &mut outcome);
        outcome
    }

    /// A lent connection comes back clean.
    pub fn give_back(&mut self, key: PoolKey, mut held: Held<M::Connection>) -> Outcome<M> {
        let mut outcome = Outcome::default();
        held.doubtful = false;
        let pinned = std::mem::take(&mut held.pinned);
        self.lent -= 1;
        let Some(pool) = self.pools.get_mut(&key) else {
            self.open -= 1;
            outcome.work().retire.push(held);
            return outcome;
        };
        pool.lent -= 1;
        pool.pinned -= usize::from(pinned);
        pool.settle(held.generation);
        self.place(key, held, &mut outcome);
        outcome
    }

    /// The session that has a lent connection begins to keep it between transactions, or does so no more.
    pub fn set_pinned(&mut self, key: PoolKey, pinned: bool) -> Outcome<M> {
        let mut outcome = Outcome::default();
        let Some(pool) = self.pools.get_mut(&key) else { return outcome };
        if pinned {
            pool.pinned += 1
        } else {
            pool.pinned -= 1
        }
        if pinned && !pool.waiting.is_empty() {
            let due = self.next_deadline();
            outcome.watch(self.watch_for(due));
        }
        outcome
    }

    /// A lent connection of this generation was closed.
    pub fn discarded(&mut self, key: PoolKey, generation: u32, pinned: bool) -> Outcome<M> {
        let mut outcome = Outcome::default();
        self.lent -= 1;
        self.open -= 1;
        if let Some(pool) = self.pools.get_mut(&key) {
            pool.lent -= 1;
            pool.pinned -= usize::from(pinned);
            pool.settle(generation);
        }
        self.open_for(key, &mut outcome);
        outcome
    }

    /// A connection that was being opened is there.
    pub fn opened(&mut self, place: OpeningPlace, connection: M::Connection) -> Outcome<M> {
        let mut outcome = Outcome::default();
        let serial = self.next_serial;
        self.next_serial += 1;
        let OpeningPlace { key, generation, .. } = place;
        let Some(pool) = self.pools.get_mut(&key) else {
            self.open -= 1;
            outcome.work().retire.push(Held { connection, expires: None, generation, doubtful: false, pinned: false });
            self.feed(&mut outcome);
            return outcome;
        };
        pool.opening -= 1;
        pool.opened = Some(Instant::now());
        let was_troubled = pool.trouble.is_some();
        pool.end_trouble();
        pool.settle(generation);
        let is_current = generation == pool.generation && !pool.paused;
        let lifetime = pool.settings.max_lifetime.map(|lifetime| jittered(lifetime, serial));
        let expires = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime));
        let held = Held { connection, expires, generation, doubtful: false, pinned: false };
        // It serves one that waits before it gives way: pools that take turns would otherwise open and close for ever.
        let left = if is_current { self.hand_out(key, held, &mut outcome) } else { Some(held) };
        if let Some(held) = left {
            self.place(key, held, &mut outcome);
        }
        if was_troubled {
            // The others have only waited for this try.
            self.open_for(key, &mut outcome);
        }
        outcome
    }

    /// A connection could not be opened. When that is new, or nothing is lent that could come back, those who wait
    /// learn why: they may be served elsewhere. The others go on waiting for what is lent.
    pub fn open_failed(&mut self, place: OpeningPlace, error: &M::Error) -> Outcome<M> {
        let mut outcome = Outcome::default();
        self.given_up(place);
        let OpeningPlace { key, begun, .. } = place;
        if let Some(pool) = self.pools.get_mut(&key) {
            let (now, before) = (Instant::now(), pool.trouble.as_ref().map_or(0, |trouble| trouble.failures));
            let trouble = pool.trouble.get_or_insert_with(|| Trouble::slow(now, key.0));
            trouble.fail(error.clone(), M::is_lasting(error), begun, now);
            pool.manager.note_trouble(true);
            if before == 0 || pool.connections() == pool.opening {
                pool.turn_away(&CheckoutError::Open(error.clone()), &mut outcome);
            }
        }
        self.open_for(key, &mut outcome);
        outcome
    }

    /// A connection has been being opened for long. Unless others were opened meanwhile, the server is taken for one
    /// that does not answer, and those who wait may look elsewhere.
    pub fn slow(&mut self, place: OpeningPlace) -> Outcome<M> {
        let mut outcome = Outcome::default();
        if let Some(pool) = self.pools.get_mut(&place.key)
            && pool.trouble.is_none()
            && pool.generation == place.generation
            && pool.opened.is_none_or(|opened| opened < place.begun)
        {
            pool.trouble = Some(Trouble::slow(Instant::now(), place.key.0));
            pool.manager.note_trouble(true);
            pool.turn_away(&CheckoutError::Slow, &mut outcome);
            self.note_need(place.key);
        }
        outcome
    }

    /// A connection is not being opened any more: the task has panicked or is gone with its thread. Whoever waits for
    /// it gets another with the next call of [`Ledger::keep`], on a thread that lives and after a pause.
    pub fn given_up(&mut self, place: OpeningPlace) {
        self.open -= 1;
        if let Some(pool) = self.pools.get_mut(&place.key) {
            pool.opening -= 1;
            pool.settle(place.generation);
        }
    }

    /// The task that ends waits in time is gone with its thread; the next wait or [`Ledger::keep`] starts another.
    pub fn unwatched(&mut self) {
        self.wakes = None;
    }

    /// Ends the waits that have lasted for `checkout_timeout`, opens what is due for somebody who waits, and tells when
    /// the next one of either is due; `None` when nobody waits, and the next one that does has to start this again.
    pub fn expire(&mut self, now: Instant, outcome: &mut Outcome<M>) -> Option<Instant> {
        let keys: Vec<PoolKey> = self.pools.keys().copied().collect();
        for key in keys {
            if self.pools.get(&key).and_then(PoolLedger::next_due).is_some_and(|due| due <= now) {
                self.open_for(key, outcome);
            }
            let Some(pool) = self.pools.get_mut(&key) else { continue };
            let Some(limit) = pool.settings.checkout_timeout.filter(|_| !pool.paused) else { continue };
            while pool.waiting.front().is_some_and(|waiter| waiter.since + limit <= now) {
                if let Some(waiter) = pool.waiting.pop() {
                    pool.answer(waiter, Err(CheckoutError::Timeout), outcome);
                }
            }
            self.note_need(key);
        }
        self.wakes = self.next_deadline();
        self.wakes
    }

    /// When the first of all waits has lasted for `checkout_timeout`, or something is due for somebody who waits.
    fn next_deadline(&self) -> Option<Instant> {
        // What is due and was not done lacks room: it is looked at again after a pause, not at once for ever.
        let now = Instant::now();
        let after = |due| if due > now { due } else { now + ONLY_HOPE_PAUSE };
        let deadlines = self.pools.values().filter(|pool| !pool.paused).filter_map(|pool| {
            let first = pool.waiting.front()?;
            let limit = pool.settings.checkout_timeout.map(|limit| first.since + limit);
            earlier(limit, pool.next_due().map(after))
        });
        deadlines.min()
    }

    pub fn renew(&mut self, is_meant: impl Fn(&M) -> bool) -> Outcome<M> {
        let mut outcome = Outcome::default();
        let mut freed = Vec::new();
        for (key, pool) in self.pools.iter_mut().filter(|(_, pool)| is_meant(&pool.manager)) {
            if pool.trouble.is_some() {
                freed.push(*key);
            }
            let idle = pool.renew();
            self.open -= idle.len();
            outcome.retire(idle);
        }
        self.feed(&mut outcome);
        for key in freed {
            self.open_for(key, &mut outcome);
        }
        outcome
    }

    pub fn keep(&mut self, now: Instant) -> Outcome<M> {
        let mut outcome = Outcome::default();
        self.before = self.now;
        self.now = now;
        let keys: Vec<PoolKey> = self.pools.keys().copied().collect();
        for &key in &keys {
            self.reap(key, &mut outcome);
            self.note_need(key);
        }
        // Those that wait come before `min_idle`.
        for &key in &keys {
            self.open_for(key, &mut outcome);
        }
        for &key in &keys {
            self.fill(key, &mut outcome);
            self.try_again(key, &mut outcome);
            self.nudge(key, &mut outcome);
        }
        if self.wakes.is_none() {
            outcome.watch(self.watch_for(self.next_deadline()));
        }
        outcome
    }

    /// Closes what has died, has lived long enough, or has idled too long, the longest first.
    fn reap(&mut self, key: PoolKey, outcome: &mut Outcome<M>) {
        let now = self.now;
        let Some(pool) = self.pools.get_mut(&key) else { return };
        let mut spare = pool.connections().saturating_sub(pool.settings.min_idle);
        let idle_timeout = pool.settings.idle_timeout;
        for (since, mut held) in std::mem::take(&mut pool.idle) {
            let expired = held.expires.is_some_and(|expires| expires <= now);
            let idled =
                idle_timeout.is_some_and(|timeout| now.saturating_duration_since(since) >= timeout) && spare > 0;
            if expired || idled || !M::is_fit(&mut held.connection) {
                spare = spare.saturating_sub(1);
                self.open -= 1;
                outcome.work().retire.push(held);
            } else {
                pool.idle.push((since, held));
            }
        }
    }

    fn fill(&mut self, key: PoolKey, outcome: &mut Outcome<M>) {
        let Some(pool) = self.pools.get_mut(&key).filter(|pool| pool.trouble.is_none()) else { return };
        let wanted = if pool.paused { 0 } else { pool.settings.min_idle.min(pool.settings.size) };
        let missing = wanted.saturating_sub(pool.connections());
        for _ in 0..missing.min(self.connections_max.saturating_sub(self.open)) {
            self.begin_opening(key, outcome);
        }
    }

    /// Finds out whether a pool that could open no connection can now, though nobody may wait for it.
    fn try_again(&mut self, key: PoolKey, outcome: &mut Outcome<M>) {
        let (now, room) = (self.now, self.open < self.connections_max);
        let Some(pool) = self.pools.get_mut(&key) else { return };
        let due = pool.trouble.as_ref().is_some_and(|trouble| trouble.due(Try::Unasked) <= now);
        let free = !pool.paused && pool.opening == 0 && pool.connections() < pool.settings.size;
        if due && free && room {
            self.begin_opening(key, outcome);
        }
    }

    /// Wakes those who have waited for long, once, so that they can tell their clients what for.
    fn nudge(&mut self, key: PoolKey, outcome: &mut Outcome<M>) {
        let now = self.now;
        let Some(pool) = self.pools.get_mut(&key) else { return };
        let Some(notice) = pool.settings.wait_notice else { return };
        for waiter in pool.waiting.from(pool.nudged) {
            if now.saturating_duration_since(waiter.since) < notice {
                break;
            }
            pool.nudged = waiter.ticket + 1;
            outcome.wake(waiter.waker.clone());
        }
    }

    /// Finds the place of a connection that nobody uses: a pool that needs the room more, the queue, or the idle ones.
    fn place(&mut self, key: PoolKey, held: Held<M::Connection>, outcome: &mut Outcome<M>) {
        let old = self.pools.get(&key).is_some_and(|pool| pool.generation != held.generation || pool.paused);
        let excess = self.pools.get(&key).is_some_and(|pool| {
            // One of the reserve serves the next one, too, who would have to wait for another of it.
            pool.connections() >= pool.settings.size && (pool.waiting.is_empty() || !pool.may_exceed())
        });
        // The node's budget has become smaller.
        let excess = excess || self.open > self.connections_max;
        let expired = old || excess || held.expires.is_some_and(|expires| expires <= self.now);
        if expired || self.gives_way(key) {
            self.open -= 1;
            outcome.work().retire.push(held);
            self.open_for(key, outcome);
            return;
        }
        let Some(held) = self.hand_out(key, held, outcome) else { return };
        if let Some(pool) = self.pools.get_mut(&key) {
            pool.idle.push((self.now, held));
        }
    }

    /// Gives a connection to the next in the pool's queue; back it comes when nobody waits.
    fn hand_out(
        &mut self,
        key: PoolKey,
        held: Held<M::Connection>,
        outcome: &mut Outcome<M>,
    ) -> Option<Held<M::Connection>> {
        let Some(pool) = self.pools.get_mut(&key) else { return Some(held) };
        let Some(waiter) = next_waiter(&mut pool.waiting, M::home(&held.connection)) else { return Some(held) };
        pool.answer(waiter, Ok(held), outcome);
        pool.moved = Some(Instant::now());
        pool.lent += 1;
        self.lent += 1;
        if pool.starves {
            self.note_need(key);
        }
        None
    }

    /// Whether a connection of this pool should make room for a pool that has fewer and waits. [`Ledger::feed`] must
    /// then choose that pool: if the room went back to this one, it would be made again and again for nothing.
    fn gives_way(&self, key: PoolKey) -> bool {
        if self.starving == 0 {
            return false;
        }
        let Some(pool) = self.pools.get(&key) else { return true };
        // The connection at hand is in none of the counts.
        let rest = pool.connections();
        let ticket = pool.first_ticket();
        let mut hungry = self.pools.iter().filter(|(other, pool)| **other != key && pool.starves);
        hungry.any(|(_, hungry)| match (hungry.connections(), ticket) {
            // Its pool does not need it now, and has no fewer when it is gone than the other has then.
            (connections, None) => connections <= rest,
            // The last connection goes to the one that has waited longer, so that each has its turn.
            (0, Some(ticket)) if rest == 0 => hungry.first_ticket() < Some(ticket),
            (connections, Some(_)) => connections < rest,
        })
    }

    /// Opens connections for the pools that wait for the node's budget, one by one, for the pool with fewest first.
    fn feed(&mut self, outcome: &mut Outcome<M>) {
        while self.starving > 0 && self.open < self.connections_max {
            let hungry = self.pools.iter().filter(|(_, pool)| pool.starves);
            let first = hungry.min_by_key(|(_, pool)| (pool.connections(), pool.first_ticket()));
            let Some(key) = first.map(|(key, _)| *key) else { return };
            if self.note_need(key) {
                self.begin_opening(key, outcome);
                self.note_need(key);
            }
        }
    }

    /// Starts to open as many connections as this pool's queue needs, and its size, the node's budget and hungrier
    /// pools allow.
    fn open_for(&mut self, key: PoolKey, outcome: &mut Outcome<M>) {
        self.note_need(key);
        if self.starving == 0 {
            return;
        }
        self.feed(outcome);
        while self.note_need(key) && self.evict_for(key, outcome) {
            self.feed(outcome);
        }
    }

    /// Finds out whether this pool starves.
    fn note_need(&mut self, key: PoolKey) -> bool {
        let Some(pool) = self.pools.get_mut(&key) else { return false };
        let lacks = pool.opening < pool.waiting.len() && pool.has_room();
        let starves = lacks && !pool.paused && pool.may_open();
        if pool.starves != starves {
            pool.starves = starves;
            if starves { self.starving += 1 } else { self.starving -= 1 }
        }
        starves
    }

    /// Takes a place of the budget for one more connection of this pool.
    fn begin_opening(&mut self, key: PoolKey, outcome: &mut Outcome<M>) {
        let Some(pool) = self.pools.get_mut(&key) else { return };
        pool.opening += 1;
        self.open += 1;
        let place = OpeningPlace { key, generation: pool.generation, begun: Instant::now() };
        outcome.work().open.push((place, pool.manager.clone()));
    }

    /// Closes the connection that has idled longest in a pool that has more, or that has idled for a while in any
    /// other: opening costs much more than a transaction, and a busy pool needs in a moment what it does not need now.
    fn evict_for(&mut self, key: PoolKey, outcome: &mut Outcome<M>) -> bool {
        let Some(own) = self.pools.get(&key).map(PoolLedger::connections) else { return false };
        let before = self.before;
        let others = self.pools.iter_mut().filter(|(other, _)| **other != key).filter_map(|(_, pool)| {
            let since = pool.idle.first()?.0;
            (pool.connections() > own || since < before).then_some((since, pool))
        });
        let Some((_, pool)) = others.min_by_key(|(since, _)| *since) else { return false };
        let (_, held) = pool.idle.remove(0);
        self.open -= 1;
        outcome.work().retire.push(held);
        true
    }
}

/// The first in the queue, or the first of the connection's own thread when nobody has waited long.
fn next_waiter(waiting: &mut Waiters, home: ThreadId) -> Option<Waiter> {
    let first = waiting.front()?;
    if first.worker == home || first.since.elapsed() > PASSED_OVER_MAX {
        return waiting.pop();
    }
    waiting.pop_near(home)
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// Between 0.9 and 1.1 times the lifetime, spread evenly over consecutive connections (multiples of the golden ratio).
fn jittered(lifetime: Duration, serial: u64) -> Duration {
    let spread = serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    lifetime.mul_f64(0.9 + 0.2 * spread as f64 / f64::from(u32::MAX))
}
