//! How others reach a client: its cancel key, and orders to it. A client is known here from its login to its end.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    task::Waker,
};

use subtle::ConstantTimeEq;

use crate::{backend::Canceler, wire::startup::CancelKey};

/// What a client is told to do by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// To leave once its transaction has ended.
    Drain,
    /// To leave now.
    Abort,
}

/// All clients.
#[derive(Debug, Default)]
pub struct Registry {
    clients: Mutex<HashMap<u32, Arc<Slot>>>,
    /// Clients that are connected, logged in or not.
    connected: AtomicUsize,
    /// Given to those that come after a drain has begun.
    order: AtomicU8,
}

/// Bytes of the secret in a cancel key: 4 in protocol 3.0, all of them in 3.2.
pub const SECRET_BYTES: usize = 32;

/// One client, as others see it.
#[derive(Debug)]
pub struct Slot {
    pub process: u32,
    secret: [u8; SECRET_BYTES],
    secret_bytes: u8,
    order: AtomicU8,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waker: Option<Waker>,
    attached: Option<Arc<Canceler>>,
    /// Waits for a server connection.
    queued: bool,
    /// It was cancelled while it waited.
    canceled: bool,
    /// Cancel requests under way to the server connection that is lent.
    canceling: usize,
}

const ORDER_NONE: u8 = 0;
const ORDER_DRAIN: u8 = 1;
const ORDER_ABORT: u8 = 2;

/// A place among `max_clients`, freed when dropped.
#[derive(Debug)]
pub struct Place {
    registry: Arc<Registry>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Registry {
    /// A place for one more client, unless there are `max` already.
    pub fn place(self: &Arc<Self>, max: usize) -> Option<Place> {
        let connected = self.connected.fetch_add(1, Ordering::Relaxed);
        let place = Place { registry: self.clone() };
        (connected < max).then_some(place)
    }

    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// Enters a client under a process id that nobody else has. `random` makes the id and the secret.
    pub fn enter(
        self: &Arc<Self>,
        secret_bytes: usize,
        mut random: impl FnMut(&mut [u8]) -> Result<(), getrandom::Error>,
    ) -> Result<Entry, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        random(&mut secret)?;
        loop {
            let mut process = [0; 4];
            random(&mut process)?;
            // Drivers take it for a signed number, and 0 for none.
            let process = u32::from_be_bytes(process) & 0x7fff_ffff;
            let mut clients = lock(&self.clients);
            if process == 0 || clients.contains_key(&process) {
                continue;
            }
            let slot = Arc::new(Slot {
                process,
                secret,
                secret_bytes: secret_bytes.min(SECRET_BYTES) as u8,
                order: AtomicU8::new(self.order.load(Ordering::Acquire)),
                inner: Mutex::default(),
            });
            clients.insert(process, slot.clone());
            return Ok(Entry { registry: self.clone(), slot });
        }
    }

    /// The client that a cancel request means, if it knows the secret.
    pub fn find(&self, key: &CancelKey) -> Option<Arc<Slot>> {
        let slot = lock(&self.clients).get(&key.process).cloned()?;
        bool::from(slot.secret().ct_eq(&key.secret)).then_some(slot)
    }

    /// Gives every client an order, those that come later, too.
    pub fn order_all(&self, order: Order) {
        self.order.store(order_code(order), Ordering::Release);
        let slots: Vec<Arc<Slot>> = lock(&self.clients).values().cloned().collect();
        for slot in slots {
            slot.give(order);
        }
    }
}

/// A client's place in the registry, left when dropped.
#[derive(Debug)]
pub struct Entry {
    registry: Arc<Registry>,
    pub slot: Arc<Slot>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.registry.clients).remove(&self.slot.process);
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

    pub fn order(&self) -> Option<Order> {
        match self.order.load(Ordering::Acquire) {
            ORDER_DRAIN => Some(Order::Drain),
            ORDER_ABORT => Some(Order::Abort),
            _ => None,
        }
    }

    fn give(&self, order: Order) {
        self.order.fetch_max(order_code(order), Ordering::AcqRel);
        self.wake();
    }

    fn wake(&self) {
        let waker = lock(&self.inner).waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The client waits for a server connection, or does not any more.
    pub fn set_queued(&self, queued: bool) {
        let mut inner = lock(&self.inner);
        inner.queued = queued;
        inner.canceled = false;
    }

    /// Whether the client was cancelled while it waited; it waits no longer then.
    pub fn take_canceled(&self) -> bool {
        let mut inner = lock(&self.inner);
        let canceled = std::mem::take(&mut inner.canceled);
        inner.queued &= !canceled;
        canceled
    }

    /// A server connection has been lent to the client.
    pub fn attach(&self, canceler: Option<Arc<Canceler>>) {
        lock(&self.inner).attached = canceler;
    }

    /// The client lets its server connection go. False while a cancel request for it is under way: the connection must
    /// not be lent to others before that has ended, and the client is woken then.
    pub fn detach(&self) -> bool {
        let mut inner = lock(&self.inner);
        inner.attached = None;
        inner.canceling == 0
    }

    /// A cancel request has come. What it returns is to be asked for the cancel, and kept until that is done.
    pub fn cancel(self: &Arc<Self>) -> Option<Canceling> {
        let mut inner = lock(&self.inner);
        if inner.queued {
            inner.canceled = true;
            drop(inner);
            self.wake();
            return None;
        }
        let server = inner.attached.clone()?;
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

fn order_code(order: Order) -> u8 {
    match order {
        Order::Drain => ORDER_DRAIN,
        Order::Abort => ORDER_ABORT,
    }
}

const _: () = assert!(ORDER_NONE < ORDER_DRAIN && ORDER_DRAIN < ORDER_ABORT);

/// No code under these locks can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(registry: &Arc<Registry>, secret_bytes: usize) -> Entry {
        let mut byte = 0;
        registry
            .enter(secret_bytes, |bytes| {
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
    }

    #[test]
    fn a_server_connection_is_kept_while_its_cancel_is_under_way() {
        let registry = Arc::new(Registry::default());
        let entry = entry(&registry, 4);
        let address = crate::net::Address::Tcp { host: "localhost".into(), port: 5432 };
        let server = Arc::new(Canceler { address, key: CancelKey { process: 7, secret: vec![1; 4] } });
        assert!(entry.slot.cancel().is_none(), "nothing runs");
        entry.slot.attach(Some(server.clone()));
        let canceling = entry.slot.cancel().unwrap();
        assert_eq!(canceling.server, server);
        assert!(entry.slot.cancel().is_none(), "one is enough");
        assert!(!entry.slot.detach());
        drop(canceling);
        assert!(entry.slot.detach());
        assert!(entry.slot.cancel().is_none(), "it is too late");
    }

    #[test]
    fn one_that_waits_is_told() {
        let registry = Arc::new(Registry::default());
        let entry = entry(&registry, 4);
        entry.slot.set_queued(true);
        assert!(entry.slot.cancel().is_none());
        assert!(entry.slot.take_canceled());
        assert!(!entry.slot.take_canceled());
        entry.slot.set_queued(true);
        assert!(!entry.slot.take_canceled());
    }

    #[test]
    fn places_are_counted() {
        let registry = Arc::new(Registry::default());
        let one = registry.place(1);
        assert!(one.is_some());
        assert!(registry.place(1).is_none());
        drop(one);
        assert!(registry.place(1).is_some());
        assert_eq!(registry.connected(), 0);
    }

    #[test]
    fn orders_reach_those_who_come_later() {
        let registry = Arc::new(Registry::default());
        let before = entry(&registry, 4);
        registry.order_all(Order::Drain);
        let after = entry(&registry, 4);
        assert_eq!(before.slot.order(), Some(Order::Drain));
        assert_eq!(after.slot.order(), Some(Order::Drain));
    }
}
