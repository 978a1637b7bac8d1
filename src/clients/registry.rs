//! How others reach a client: its cancel key, and orders to it. A client is known here from its login to its end.

use std::{
    collections::{HashMap, hash_map},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, Instant, SystemTime},
};

use subtle::ConstantTimeEq;

use super::{LastErrors, RefusedLogins};
use crate::{backend::Canceler, metrics::Account, net::Ends};
use poolhouse_core::{session::Pinned, sql::OWN_PROCESS, wire::startup::CancelKey};

/// What a client is told to do by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveOrder {
    /// To leave once its transaction has ended: its database is served no more.
    Evict,
    /// To leave once its transaction has ended.
    Drain,
    /// To leave now.
    Abort,
    /// To leave now, by the word of an operator.
    Kill,
}

impl LeaveOrder {
    /// Also in the middle of a transaction.
    pub fn is_at_once(self) -> bool {
        !matches!(self, LeaveOrder::Evict | LeaveOrder::Drain)
    }
}

/// All clients.
#[derive(Debug, Default)]
pub struct Registry {
    clients: Mutex<HashMap<u32, Arc<Slot>>>,
    /// Those that have a server connection of their own and go by the id of its process. Servers on two machines may
    /// have processes of the same id: the secret tells their clients apart.
    owners: Mutex<HashMap<u32, Vec<Arc<Slot>>>>,
    /// How many have been entered.
    entered: AtomicU64,
    /// Clients that have proved who they are, and have a place.
    connected: AtomicUsize,
    /// Those of them that have been told the last thing.
    leaving: AtomicUsize,
    /// What clients were told of late.
    pub last_errors: LastErrors,
    pub refused: RefusedLogins,
    /// Given to those that come after a drain has begun.
    order: AtomicU8,
}

/// Bytes of the secret in a cancel key: 4 in protocol 3.0, all of them in 3.2.
pub const SECRET_BYTES: usize = 32;

/// What an operator is told of a client, beyond its account.
#[derive(Debug, Default)]
pub struct About {
    /// As of the login.
    pub application_name: Box<str>,
    pub ends: Ends,
    pub replicates: bool,
}

/// Why a client keeps its server connection between transactions.
#[derive(Debug, Clone)]
pub struct PinnedClient {
    pub why: Arc<Pinned>,
    pub since: Instant,
}

/// One client, as others see it. In the order written, so that what each transaction looks at lies together: between
/// two looks other clients' data pushes it out of the processor's nearest caches, and each line of it has to come anew.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slot {
    order: AtomicU8,
    /// It was cancelled while it waited. Set only under the lock.
    canceled: AtomicBool,
    /// How often its task was asked to show that it still serves somebody, and has not.
    calls: AtomicU8,
    pub process: u32,
    inner: Mutex<SlotState>,
    /// No other client has ever had it.
    pub id: u64,
    pub about: About,
    /// When it logged in.
    pub since: SystemTime,
    pub account: Arc<Account>,
    secret: [u8; SECRET_BYTES],
    secret_bytes: u8,
}

// Every client has one for as long as it is connected.
const _: () = assert!(size_of::<Slot>() <= 256);

/// In the order written, as [`Slot`].
#[derive(Debug, Default)]
#[repr(C)]
struct SlotState {
    attached: Option<Arc<Canceler>>,
    /// Waits for one, since when.
    queued: Option<Instant>,
    /// When it last asked for something that took a server connection, or began to wait for one.
    requested: Option<Instant>,
    /// Cancel requests under way to the server connection that is lent.
    canceling: u32,
    /// Holds a server connection.
    lent: bool,
    /// The server connection is busy with something of ours, which a cancel must not hit.
    shielded: bool,
    /// A cancel has come meanwhile.
    postponed: bool,
    waker: Option<Waker>,
    pin: Option<Box<PinnedClient>>,
}

// Within a slot.
const _: () = assert!(size_of::<SlotState>() <= 72);

impl SlotState {
    fn activity(&self) -> Activity {
        match self.queued {
            Some(since) => Activity::Waiting { since },
            None if self.lent => Activity::Active,
            None => Activity::Idle,
        }
    }
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It has no server connection, and needs none now.
    Idle,
    /// It has one.
    Active,
    /// It waits for one.
    Waiting { since: Instant },
}

/// The statement was cancelled while it waited.
#[derive(Debug, PartialEq, Eq)]
pub struct Canceled;

const ORDER_NONE: u8 = 0;
const ORDER_EVICT: u8 = 1;
const ORDER_DRAIN: u8 = 2;
const ORDER_ABORT: u8 = 3;
const ORDER_KILL: u8 = 4;

/// A place among `max_clients`, freed when dropped.
#[derive(Debug)]
pub struct ClientPlace {
    registry: Arc<Registry>,
    leaving: bool,
}

impl ClientPlace {
    /// Whoever has it has been told the last thing, and is only heard out.
    pub fn leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.registry.leaving.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        self.registry.connected.fetch_sub(1, Ordering::Relaxed);
        if self.leaving {
            self.registry.leaving.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Registry {
    /// A place for one more client, unless there are `max` already.
    pub fn place(self: &Arc<Self>, max: usize) -> Option<ClientPlace> {
        let connected = self.connected.fetch_add(1, Ordering::Relaxed);
        let place = ClientPlace { registry: self.clone(), leaving: false };
        (connected < max).then_some(place)
    }

    /// Clients that have a place, but for those that have been told to go.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed).saturating_sub(self.leaving.load(Ordering::Relaxed))
    }

    /// Enters a client under a process id: that of the server connection which it keeps, or one that nobody else has.
    /// `random` makes that id and the secret.
    pub fn enter(
        self: &Arc<Self>,
        account: &Arc<Account>,
        about: About,
        process: Option<u32>,
        secret_bytes: usize,
        mut random: impl FnMut(&mut [u8]) -> Result<(), getrandom::Error>,
    ) -> Result<Entry, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        random(&mut secret)?;
        let id = self.entered.fetch_add(1, Ordering::Relaxed) + 1;
        let slot = |process, about| {
            Arc::new(Slot {
                order: AtomicU8::new(self.order.load(Ordering::Acquire)),
                canceled: AtomicBool::new(false),
                calls: AtomicU8::new(0),
                process,
                inner: Mutex::default(),
                id,
                about,
                since: SystemTime::now(),
                account: account.clone(),
                secret,
                secret_bytes: secret_bytes.min(SECRET_BYTES) as u8,
            })
        };
        if let Some(process) = process.filter(|process| process & OWN_PROCESS == 0) {
            // The slot is made under the lock, so that no order passes it by.
            let mut owners = lock(&self.owners);
            let slot = slot(process, about);
            owners.entry(process).or_default().push(slot.clone());
            return Ok(Entry { registry: self.clone(), slot, told: false });
        }
        loop {
            let mut process = [0; 4];
            random(&mut process)?;
            // Drivers take it for a signed number.
            let process = u32::from_be_bytes(process) & 0x7fff_ffff | OWN_PROCESS;
            if let hash_map::Entry::Vacant(vacant) = lock(&self.clients).entry(process) {
                let slot = vacant.insert(slot(process, about)).clone();
                return Ok(Entry { registry: self.clone(), slot, told: false });
            }
        }
    }

    /// The client that a cancel request means, if it knows the secret.
    pub fn find(&self, key: &CancelKey) -> Option<Arc<Slot>> {
        let knows = |slot: &Arc<Slot>| bool::from(slot.secret().ct_eq(&key.secret));
        if key.process & OWN_PROCESS != 0 {
            return lock(&self.clients).get(&key.process).filter(|slot| knows(slot)).cloned();
        }
        lock(&self.owners).get(&key.process)?.iter().find(|slot| knows(slot)).cloned()
    }

    /// Gives every client an order, those that come later, too.
    pub fn order_all(&self, order: LeaveOrder) {
        self.order.store(order_code(order), Ordering::Release);
        for slot in self.slots() {
            slot.give(order);
        }
    }

    /// Lets every client that has a server connection, or waits for one, look at what has changed.
    /// Those who have waited longest first, so that they keep their order in another queue.
    pub fn wake_busy(&self) {
        let mut busy: Vec<_> = self.slots().iter().filter_map(|slot| slot.if_busy()).collect();
        busy.sort_by_key(|(queued, _)| *queued);
        busy.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Asks every client that has held a server connection for so long to show that it still serves somebody.
    pub fn call_holders(&self, after: Duration) {
        self.slots().iter().filter(|slot| slot.holds_for(after)).for_each(|slot| slot.call());
    }

    /// All clients that are logged in.
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        let mut slots: Vec<Arc<Slot>> = lock(&self.clients).values().cloned().collect();
        slots.extend(lock(&self.owners).values().flatten().cloned());
        slots
    }
}

impl Entry {
    /// Says in the log that the client has logged in, and then that it has gone.
    pub fn tell_login(&mut self) {
        self.told = true;
        let (client, slot) = (self.client(), &self.slot);
        let Account { database, user, .. } = &*slot.account;
        let (process, application) = (slot.process, &slot.about.application_name);
        tracing::info!(client, database, user, process, application, "a client has logged in");
    }

    /// Where it comes from.
    fn client(&self) -> String {
        self.slot.about.ends.peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string())
    }

    /// Notes what the client is told: by the server `node`, if it is known to come from one.
    pub fn note_error(&self, node: Option<&str>, code: &str, message: &str) {
        let account = &self.slot.account;
        self.registry.last_errors.note((&account.database, &account.user), self.client(), node, code, message);
    }
}

/// A client's place in the registry, left when dropped.
#[derive(Debug)]
pub struct Entry {
    registry: Arc<Registry>,
    pub slot: Arc<Slot>,
    /// The log tells of its coming and going.
    told: bool,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let process = self.slot.process;
        if self.told {
            let Account { database, user, .. } = &*self.slot.account;
            let connected = self.slot.since.elapsed().unwrap_or_default();
            tracing::info!(client = self.client(), database, user, process, ?connected, "a client has gone");
        }
        if process & OWN_PROCESS != 0 {
            lock(&self.registry.clients).remove(&process);
            return;
        }
        if let hash_map::Entry::Occupied(mut owners) = lock(&self.registry.owners).entry(process) {
            owners.get_mut().retain(|slot| !Arc::ptr_eq(slot, &self.slot));
            if owners.get().is_empty() {
                owners.remove();
            }
        }
    }
}

impl Slot {
    pub fn secret(&self) -> &[u8] {
        &self.secret[..usize::from(self.secret_bytes)]
    }

    /// The task to wake when an order comes.
    pub fn set_waker(&self, waker: Waker) {
        lock(&self.inner).waker = Some(waker);
    }

    pub fn order(&self) -> Option<LeaveOrder> {
        match self.order.load(Ordering::Acquire) {
            ORDER_EVICT => Some(LeaveOrder::Evict),
            ORDER_DRAIN => Some(LeaveOrder::Drain),
            ORDER_ABORT => Some(LeaveOrder::Abort),
            ORDER_KILL => Some(LeaveOrder::Kill),
            _ => None,
        }
    }

    /// Gives the client an order.
    pub fn give(&self, order: LeaveOrder) {
        self.order.fetch_max(order_code(order), Ordering::AcqRel);
        self.wake();
    }

    /// Lets the client's task look at what there is for it.
    pub fn wake(&self) {
        let waker = lock(&self.inner).waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What wakes the client's task, and since when it waits for a server connection, if it has one or waits for one.
    fn if_busy(&self) -> Option<(Option<Instant>, Waker)> {
        let inner = lock(&self.inner);
        let waker = inner.waker.clone().filter(|_| inner.lent || inner.queued.is_some())?;
        Some((inner.queued, waker))
    }

    /// Whether the client has held a server connection for so long.
    fn holds_for(&self, long: Duration) -> bool {
        let inner = lock(&self.inner);
        inner.lent && inner.requested.is_some_and(|requested| requested.elapsed() >= long)
    }

    /// Asks the client's task to show that it still serves somebody.
    fn call(&self) {
        let _ = self.calls.fetch_update(Ordering::AcqRel, Ordering::Acquire, |calls| calls.checked_add(1));
        self.wake();
    }

    /// How often the client's task was asked since it last answered.
    #[inline]
    pub fn calls(&self) -> u8 {
        self.calls.load(Ordering::Acquire)
    }

    /// The client's task has looked after its client.
    pub fn answer_calls(&self) {
        self.calls.store(0, Ordering::Release);
    }

    /// The client waits for a server connection since then, if it did not before.
    pub fn enter_queue(&self, since: Instant) {
        let mut inner = lock(&self.inner);
        let since = *inner.queued.get_or_insert(since);
        inner.requested = Some(since);
    }

    /// Since when the client waits; now, if it does not.
    pub fn waits_since(&self) -> Instant {
        lock(&self.inner).queued.unwrap_or_else(Instant::now)
    }

    /// The client waits no more, in vain.
    pub fn leave_queue(&self) {
        let mut inner = lock(&self.inner);
        inner.queued = None;
        self.canceled.store(false, Ordering::Relaxed);
    }

    /// Whether the client was cancelled while it waited; it waits no longer then.
    pub fn take_canceled(&self) -> bool {
        // Whoever cancels wakes the client's task after that, so a look at the wrong moment is not the last.
        if !self.canceled.load(Ordering::Acquire) {
            return false;
        }
        let mut inner = lock(&self.inner);
        let canceled = self.canceled.swap(false, Ordering::Relaxed);
        if canceled {
            inner.queued = None;
        }
        canceled
    }

    /// A server connection has been lent to the client `now`, which tells since when it has waited, if it had to.
    /// `shielded` as in [`Slot::shield`].
    ///
    /// # Errors
    /// The client has been cancelled while it waited: it must not have the connection.
    pub fn attach(
        &self,
        canceler: Option<Arc<Canceler>>,
        shielded: bool,
        now: Instant,
    ) -> Result<Option<Instant>, Canceled> {
        let mut inner = lock(&self.inner);
        let queued = inner.queued.take();
        if self.canceled.load(Ordering::Relaxed) {
            self.canceled.store(false, Ordering::Relaxed);
            return Err(Canceled);
        }
        inner.requested = Some(queued.unwrap_or(now));
        inner.lent = true;
        inner.attached = canceler;
        inner.shielded = shielded;
        Ok(queued)
    }

    /// The server connection that the client has, if it is known which.
    pub fn server(&self) -> Option<Arc<Canceler>> {
        lock(&self.inner).attached.clone()
    }

    /// When the client last needed a server connection; `None` if it never has.
    pub fn requested(&self) -> Option<Instant> {
        lock(&self.inner).requested
    }

    /// The client keeps its server connection between transactions, or does so no more.
    pub fn set_pin(&self, pin: Option<PinnedClient>) {
        lock(&self.inner).pin = pin.map(Box::new);
    }

    pub fn pin(&self) -> Option<PinnedClient> {
        lock(&self.inner).pin.as_deref().cloned()
    }

    /// What the client does now.
    pub fn activity(&self) -> Activity {
        lock(&self.inner).activity()
    }

    /// The same, and why it keeps its server connection, if it does.
    pub fn state(&self) -> (Activity, Option<PinnedClient>) {
        let inner = lock(&self.inner);
        (inner.activity(), inner.pin.as_deref().cloned())
    }

    /// The server connection is busy with something of ours: a cancel waits until that is done.
    pub fn shield(&self) {
        lock(&self.inner).shielded = true;
    }

    /// It is done. What is returned is to be asked for the cancel that has waited; when the client runs nothing
    /// (`runs`), that came too late.
    pub fn unshield(self: &Arc<Self>, runs: bool) -> Option<Canceling> {
        let mut inner = lock(&self.inner);
        inner.shielded = false;
        let wanted = std::mem::take(&mut inner.postponed) && runs;
        wanted.then(|| self.begin_cancel(&mut inner)).flatten()
    }

    /// The client lets its server connection go. False while a cancel request for it is under way: the connection must
    /// not be lent to others before that has ended, and the client is woken then.
    pub fn detach(&self) -> bool {
        let mut inner = lock(&self.inner);
        inner.attached = None;
        inner.lent = false;
        (inner.shielded, inner.postponed) = (false, false);
        inner.canceling == 0
    }

    /// A cancel request has come. What it returns is to be asked for the cancel, and kept until that is done.
    pub fn cancel(self: &Arc<Self>) -> Option<Canceling> {
        let mut inner = lock(&self.inner);
        if inner.queued.is_some() {
            self.canceled.store(true, Ordering::Release);
            drop(inner);
            self.wake();
            return None;
        }
        self.begin_cancel(&mut inner)
    }

    fn begin_cancel(self: &Arc<Self>, inner: &mut SlotState) -> Option<Canceling> {
        let server = inner.attached.clone()?;
        if inner.shielded {
            inner.postponed = true;
            return None;
        }
        // One that is under way already does what this one would do.
        if inner.canceling > 0 {
            return None;
        }
        inner.canceling += 1;
        Some(Canceling { slot: self.clone(), server })
    }
}

/// A cancel request to a server, under way until dropped.
#[derive(Debug)]
pub struct Canceling {
    slot: Arc<Slot>,
    pub server: Arc<Canceler>,
}

impl Drop for Canceling {
    fn drop(&mut self) {
        lock(&self.slot.inner).canceling -= 1;
        self.slot.wake();
    }
}

fn order_code(order: LeaveOrder) -> u8 {
    match order {
        LeaveOrder::Evict => ORDER_EVICT,
        LeaveOrder::Drain => ORDER_DRAIN,
        LeaveOrder::Abort => ORDER_ABORT,
        LeaveOrder::Kill => ORDER_KILL,
    }
}

const _: () = assert!(
    ORDER_NONE < ORDER_EVICT && ORDER_EVICT < ORDER_DRAIN && ORDER_DRAIN < ORDER_ABORT && ORDER_ABORT < ORDER_KILL
);

/// No code under these locks can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Arc<Account> {
        Arc::new(Account::new("app", "alice", None))
    }

    fn entry(registry: &Arc<Registry>, secret_bytes: usize) -> Entry {
        let mut byte = 0;
        registry
            .enter(&account(), About::default(), None, secret_bytes, |bytes| {
                byte += 1;
                bytes.fill(byte);
                Ok(())
            })
            .unwrap()
    }

    fn key_of(slot: &Slot) -> CancelKey {
        CancelKey { process: slot.process, secret: slot.secret().to_vec() }
    }

    #[test]
    fn only_the_right_secret_finds_a_client() {
        let registry = Arc::new(Registry::default());
        for bytes in [4, 32] {
            let entry = entry(&registry, bytes);
            let key = key_of(&entry.slot);
            assert_eq!(key.secret.len(), bytes);
            assert!(registry.find(&key).is_some());
            let mut wrong = key.clone();
            wrong.secret[3] ^= 1;
            assert!(registry.find(&wrong).is_none());
            assert!(registry.find(&CancelKey { secret: key.secret[..3].to_vec(), ..key.clone() }).is_none());
            drop(entry);
            assert!(registry.find(&key).is_none());
        }
    }

    #[test]
    fn process_ids_are_not_given_twice() {
        let registry = Arc::new(Registry::default());
        let one = entry(&registry, 4);
        let two = entry(&registry, 4);
        assert_ne!(one.slot.process, two.slot.process);
        assert!(one.slot.process >= OWN_PROCESS);
    }

    #[test]
    fn clients_of_two_servers_may_have_the_same_process_id() {
        let registry = Arc::new(Registry::default());
        let mut byte = 0;
        let mut owner = || {
            byte += 1;
            let random = |bytes: &mut [u8]| {
                bytes.fill(byte);
                Ok(())
            };
            registry.enter(&account(), About::default(), Some(7), 4, random).unwrap()
        };
        let (one, two) = (owner(), owner());
        for entry in [&one, &two] {
            assert_eq!(entry.slot.process, 7);
            assert!(Arc::ptr_eq(&registry.find(&key_of(&entry.slot)).unwrap(), &entry.slot));
        }
        registry.order_all(LeaveOrder::Drain);
        assert_eq!((one.slot.order(), two.slot.order()), (Some(LeaveOrder::Drain), Some(LeaveOrder::Drain)));
        let key = key_of(&one.slot);
        drop(one);
        assert!(registry.find(&key).is_none());
        assert!(registry.find(&key_of(&two.slot)).is_some());
        drop(two);
        assert!(lock(&registry.owners).is_empty());
    }

    fn server() -> Arc<Canceler> {
        let address = crate::net::Address::Tcp { host: "localhost".into(), port: 5432 };
        let key = CancelKey { process: 7, secret: vec![1; 4] };
        Arc::new(Canceler { address, tls: None, key, ends: Ends::default(), since: SystemTime::now() })
    }

    #[test]
    fn a_server_connection_is_kept_while_its_cancel_is_under_way() {
        let registry = Arc::new(Registry::default());
        let entry = entry(&registry, 4);
        let server = server();
        assert!(entry.slot.cancel().is_none(), "nothing runs");
        assert_eq!(entry.slot.attach(Some(server.clone()), false, Instant::now()), Ok(None));
        let canceling = entry.slot.cancel().unwrap();
        assert_eq!(canceling.server, server);
        assert!(entry.slot.cancel().is_none(), "one is enough");
        assert!(!entry.slot.detach());
        drop(canceling);
        assert!(entry.slot.detach());
        assert!(entry.slot.cancel().is_none(), "it is too late");
    }

    #[test]
    fn who_holds_a_server_connection_is_called_until_it_answers() {
        let registry = Arc::new(Registry::default());
        let (holder, idle) = (entry(&registry, 4), entry(&registry, 4));
        assert!(holder.slot.attach(Some(server()), false, Instant::now()).is_ok());
        registry.call_holders(Duration::from_secs(3600));
        assert_eq!(holder.slot.calls(), 0, "it has not held it for long");
        registry.call_holders(Duration::ZERO);
        registry.call_holders(Duration::ZERO);
        assert_eq!((holder.slot.calls(), idle.slot.calls()), (2, 0));
        holder.slot.answer_calls();
        assert_eq!(holder.slot.calls(), 0);
        (0..300).for_each(|_| registry.call_holders(Duration::ZERO));
        assert_eq!(holder.slot.calls(), u8::MAX);
    }

    #[test]
    fn a_cancel_spares_what_is_ours() {
        let registry = Arc::new(Registry::default());
        let slot = entry(&registry, 4).slot.clone();
        assert!(slot.attach(Some(server()), true, Instant::now()).is_ok());
        assert!(slot.cancel().is_none());
        assert!(slot.unshield(true).is_some(), "it has waited");
        assert!(slot.unshield(true).is_none());
        slot.shield();
        assert!(slot.cancel().is_none());
        assert!(slot.unshield(false).is_none(), "it is too late");
        slot.shield();
        assert!(slot.cancel().is_none());
        slot.detach();
        assert!(slot.attach(Some(server()), false, Instant::now()).is_ok());
        assert!(slot.unshield(true).is_none(), "it was for what ran before");
    }

    #[test]
    fn one_that_waits_is_told() {
        let registry = Arc::new(Registry::default());
        let entry = entry(&registry, 4);
        entry.slot.enter_queue(Instant::now());
        assert!(entry.slot.cancel().is_none());
        entry.slot.enter_queue(Instant::now());
        assert!(entry.slot.take_canceled());
        assert!(!entry.slot.take_canceled());
        entry.slot.enter_queue(Instant::now());
        assert!(!entry.slot.take_canceled());
        assert!(entry.slot.cancel().is_none());
        assert_eq!(
            entry.slot.attach(Some(server()), false, Instant::now()),
            Err(Canceled),
            "it was cancelled before it was served"
        );
        assert!(entry.slot.cancel().is_none());
        assert_eq!(entry.slot.activity(), Activity::Idle);
        entry.slot.enter_queue(Instant::now());
        assert!(matches!(entry.slot.activity(), Activity::Waiting { .. }));
        assert!(matches!(entry.slot.attach(Some(server()), false, Instant::now()), Ok(Some(_))));
        assert_eq!(entry.slot.activity(), Activity::Active);
        assert!(entry.slot.detach());
        assert_eq!(entry.slot.activity(), Activity::Idle);
    }

    #[test]
    fn places_are_counted() {
        let registry = Arc::new(Registry::default());
        let one = registry.place(1);
        assert!(one.is_some());
        assert!(registry.place(1).is_none());
        assert_eq!(registry.connected(), 1);
        let mut one = one.unwrap();
        one.leave();
        one.leave();
        assert_eq!(registry.connected(), 0, "it counts no more");
        assert!(registry.place(1).is_none(), "but it is still there");
        drop(one);
        assert!(registry.place(1).is_some());
        assert_eq!(registry.connected(), 0);
    }

    #[test]
    fn orders_reach_those_who_come_later() {
        let registry = Arc::new(Registry::default());
        let before = entry(&registry, 4);
        registry.order_all(LeaveOrder::Drain);
        let after = entry(&registry, 4);
        assert_eq!(before.slot.order(), Some(LeaveOrder::Drain));
        assert_eq!(after.slot.order(), Some(LeaveOrder::Drain));
    }
}
