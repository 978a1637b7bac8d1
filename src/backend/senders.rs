//! Which client has sent a notification: a server names only the process of its connection, and that is lent to one
//! client after the other. Clients compare the sender with their own process id, the one that Poolhouse gave them. And
//! which server process each client has at the moment.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// What was sent over a connection longer ago than this has been heard by everybody.
const HEARD: Duration = Duration::from_secs(1);

/// Who has said NOTIFY is more likely the sender than who has only written, and is heard at once.
const HEARD_AT_ONCE: Duration = Duration::from_millis(100);

/// The server connections of one cluster, by the number of their node and the process that serves them.
#[derive(Debug, Default)]
pub struct Senders {
    users: Mutex<ByProcess>,
    /// Somebody listens, or has: it pays to know.
    wanted: AtomicBool,
}

type ByProcess = HashMap<(u16, u32), Arc<Connection>>;

#[derive(Debug, Default)]
struct Connection {
    /// The client that has it now; 0 while nobody does.
    client: AtomicU32,
    users: Mutex<ConnectionUsers>,
}

/// Who uses one connection, and who has written over it last.
#[derive(Debug, Default)]
struct ConnectionUsers {
    now: Option<u32>,
    /// That one has said NOTIFY.
    notifies: bool,
    /// With the time at which they let go, the last one first.
    writers: [Option<(u32, Instant)>; 2],
    /// Those who have said NOTIFY, in the same way.
    notifiers: [Option<(u32, Instant)>; 2],
}

/// One connection's entry, removed when dropped.
#[derive(Debug)]
pub struct Sender {
    senders: Arc<Senders>,
    key: (u16, u32),
    connection: Arc<Connection>,
}

impl Senders {
    /// From now on it is noted who uses a connection.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    pub fn enter(self: &Arc<Self>, node: u16, process: u32) -> Sender {
        let connection = Arc::<Connection>::default();
        lock(&self.users).insert((node, process), connection.clone());
        Sender { senders: self.clone(), key: (node, process), connection }
    }

    /// The client that sent what has come now from this process; `None` when it is none of ours, or one of several.
    pub fn client(&self, node: u16, process: u32) -> Option<u32> {
        let connection = lock(&self.users).get(&(node, process)).cloned()?;
        let users = lock(&connection.users);
        users.sender(Instant::now())
    }

    /// The clients that have a connection of a node now, each with the server's process.
    pub fn lent(&self, node: u16) -> Vec<(u32, u32)> {
        let connections = lock(&self.users);
        let of_node = connections.iter().filter(|((of, _), _)| *of == node);
        let lent = of_node.map(|((_, process), connection)| (connection.client.load(Ordering::Relaxed), *process));
        lent.filter(|(client, _)| *client != 0).collect()
    }
}

impl ConnectionUsers {
    fn sender(&self, now: Instant) -> Option<u32> {
        let lately = |ends: [Option<(u32, Instant)>; 2], limit| {
            let lately = move |time: &Instant| now.saturating_duration_since(*time) < limit;
            ends.into_iter().flatten().filter(move |(_, time)| lately(time)).map(|(client, _)| client)
        };
        let notifying = self.now.filter(|_| self.notifies).into_iter();
        let mut notifiers = notifying.chain(lately(self.notifiers, HEARD_AT_ONCE));
        if let Some(one) = notifiers.next() {
            return notifiers.all(|other| other == one).then_some(one);
        }
        let mut able = self.now.into_iter().chain(lately(self.writers, HEARD));
        match able.next() {
            Some(one) => able.all(|other| other == one).then_some(one),
            None => self.writers[0].map(|(client, _)| client),
        }
    }
}

impl Sender {
    /// The connection has been lent to this client.
    #[inline]
    pub fn lend(&self, client: u32) {
        self.connection.client.store(client, Ordering::Relaxed);
        if self.senders.wanted.load(Ordering::Relaxed) {
            let mut users = lock(&self.connection.users);
            (users.now, users.notifies) = (Some(client), false);
        }
    }

    /// The client to which the connection is lent is about to notify.
    pub fn note_notify(&self) {
        lock(&self.connection.users).notifies = true;
    }

    /// The client lets go of the connection, over which it may have written.
    #[inline]
    pub fn give_back(&self, client: u32, wrote: bool) {
        self.connection.client.store(0, Ordering::Relaxed);
        if self.senders.wanted.load(Ordering::Relaxed) {
            let mut users = lock(&self.connection.users);
            let notified = std::mem::take(&mut users.notifies);
            users.now = None;
            if wrote {
                put_first(&mut users.writers, client);
            }
            if notified {
                put_first(&mut users.notifiers, client);
            }
        }
    }

    /// The client that sent what has come over this connection from this process of the same node.
    pub fn client(&self, process: u32) -> Option<u32> {
        self.senders.client(self.key.0, process)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut users = lock(&self.senders.users);
        // The process may be another's already.
        if users.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.connection)) {
            users.remove(&self.key);
        }
    }
}

fn put_first(ends: &mut [Option<(u32, Instant)>; 2], client: u32) {
    let before = ends[0].filter(|(before, _)| *before != client);
    *ends = [Some((client, Instant::now())), before.or(ends[1])];
}

/// No code under these locks can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_while_it_lives() {
        let senders = Arc::new(Senders::default());
        senders.want();
        let old = senders.enter(0, 7);
        old.lend(1);
        assert_eq!(senders.client(0, 7), Some(1));
        assert_eq!((senders.client(1, 7), senders.client(0, 8)), (None, None));
        let new = senders.enter(0, 7);
        new.lend(2);
        drop(old);
        assert_eq!(senders.client(0, 7), Some(2));
        drop(new);
        assert_eq!(senders.client(0, 7), None);
    }

    #[test]
    fn nothing_is_noted_before_somebody_listens() {
        let senders = Arc::new(Senders::default());
        let sender = senders.enter(0, 7);
        sender.lend(1);
        assert_eq!(sender.client(7), None);
    }

    #[test]
    fn a_sender_is_named_only_when_it_is_certain() {
        let now = Instant::now() + 100 * HEARD;
        let (just, long_ago) = (now - HEARD / 2, now - 2 * HEARD);
        let check = |using: Option<u32>, writers: [Option<(u32, Instant)>; 2], expected: Option<u32>| {
            let users = ConnectionUsers { now: using, writers, ..ConnectionUsers::default() };
            assert_eq!(users.sender(now), expected, "{users:?}");
        };
        check(None, [None, None], None);
        check(Some(1), [None, None], Some(1));
        check(Some(1), [Some((2, long_ago)), None], Some(1));
        check(Some(1), [Some((2, just)), None], None);
        check(Some(1), [Some((1, just)), Some((2, long_ago))], Some(1));
        check(None, [Some((1, just)), Some((2, just))], None);
        check(None, [Some((1, just)), Some((2, long_ago))], Some(1));
        check(None, [Some((1, long_ago)), Some((2, long_ago))], Some(1));
    }

    #[test]
    fn who_says_notify_is_the_sender_among_those_who_write() {
        let senders = Arc::new(Senders::default());
        senders.want();
        let sender = senders.enter(0, 7);
        let write = |client| {
            sender.lend(client);
            sender.give_back(client, true);
        };
        // Before all of it, so that nothing is long ago.
        let now = Instant::now();
        let client = || lock(&sender.connection.users).sender(now);
        write(1);
        sender.lend(2);
        assert_eq!(client(), None);
        sender.note_notify();
        assert_eq!(client(), Some(2), "while it is at it");
        sender.give_back(2, true);
        write(3);
        assert_eq!(client(), Some(2));
        sender.lend(4);
        sender.note_notify();
        assert_eq!(client(), None, "one of two");
    }

    #[test]
    fn two_writers_are_kept() {
        let senders = Arc::new(Senders::default());
        senders.want();
        let sender = senders.enter(0, 7);
        for (client, wrote) in [(1, true), (1, true), (2, true), (2, true), (3, false)] {
            sender.lend(client);
            sender.give_back(client, wrote);
        }
        let writers = lock(&sender.connection.users).writers.map(|writer| writer.map(|(client, _)| client));
        assert_eq!(writers, [Some(2), Some(1)]);
        assert_eq!(sender.client(7), None, "it is one of two");
    }
}
