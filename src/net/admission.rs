//! Who may be there before it is known who they are: so many in all, and so many from one address. Nobody is turned
//! away for it. When it is too many, the one gives way that has been there longest, of the address with the most: who
//! is honest is done within milliseconds, so a crowd that only stands there, however often it is renewed, keeps nobody
//! out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

/// How many there may be. Both count for no less than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowd {
    pub all: usize,
    /// From one address, unless that is on this machine.
    pub per_address: usize,
}

/// What counts as one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Origin {
    /// A Unix socket, or loopback: all clients of a sidecar come from there, so it has no limit of its own.
    ThisMachine,
    /// Whoever has one IPv6 address has all that begin with the same 64 bits.
    Elsewhere(IpAddr),
}

impl Origin {
    pub(super) fn of(peer: Option<IpAddr>) -> Origin {
        match peer.map(|peer| peer.to_canonical()) {
            None => Origin::ThisMachine,
            Some(peer) if peer.is_loopback() => Origin::ThisMachine,
            Some(IpAddr::V6(peer)) => {
                let network = Ipv6Addr::from_bits(peer.to_bits() >> 64 << 64);
                Origin::Elsewhere(IpAddr::V6(network))
            }
            Some(peer) => Origin::Elsewhere(peer),
        }
    }
}

/// Those who are there.
#[derive(Debug, Default)]
pub struct Admission {
    present: Mutex<Present>,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Present {
    /// Of each address: by when they came.
    by_origin: HashMap<Origin, BTreeMap<u64, Arc<Notify>>>,
    /// Those same addresses, by how many are there from them.
    by_size: BTreeSet<(usize, Origin)>,
    all: usize,
    /// How many have come, ever.
    came: u64,
}

impl Present {
    fn insert(&mut self, origin: Origin, notify: Arc<Notify>) -> u64 {
        self.came += 1;
        let members = self.by_origin.entry(origin).or_default();
        self.by_size.remove(&(members.len(), origin));
        members.insert(self.came, notify);
        self.by_size.insert((members.len(), origin));
        self.all += 1;
        self.came
    }

    fn remove(&mut self, origin: Origin, number: u64) -> Option<Arc<Notify>> {
        let members = self.by_origin.get_mut(&origin)?;
        let notify = members.remove(&number)?;
        let left = members.len();
        self.by_size.remove(&(left + 1, origin));
        if left == 0 {
            self.by_origin.remove(&origin);
        } else {
            self.by_size.insert((left, origin));
        }
        self.all -= 1;
        Some(notify)
    }

    /// The one of this address that came first.
    fn oldest(&self, origin: Origin) -> Option<u64> {
        self.by_origin.get(&origin)?.keys().next().copied()
    }

    /// Tells the one that has to give way, if there is one from there.
    fn evict(&mut self, origin: Origin) -> bool {
        let oldest = self.oldest(origin);
        let evicted = oldest.and_then(|oldest| self.remove(origin, oldest));
        evicted.inspect(|evicted| evicted.notify_one()).is_some()
    }

    fn size(&self, origin: Origin) -> usize {
        self.by_origin.get(&origin).map_or(0, BTreeMap::len)
    }
}

impl Admission {
    /// Lets somebody in, for whom others give way when it is too many.
    pub fn admit(self: &Arc<Self>, peer: Option<IpAddr>, crowd: Crowd) -> Admitted {
        let (origin, gives_way) = (Origin::of(peer), Arc::<Notify>::default());
        let mut present = self.lock();
        let mut evicted = 0;
        while origin != Origin::ThisMachine && present.size(origin) >= crowd.per_address.max(1) && present.evict(origin)
        {
            evicted += 1;
        }
        while present.all >= crowd.all.max(1) && self.evict_from(&mut present) {
            evicted += 1;
        }
        let number = present.insert(origin, gives_way.clone());
        drop(present);
        self.evicted.fetch_add(evicted, Ordering::Relaxed);
        Admitted { admission: self.clone(), origin, number, gives_way }
    }

    /// Somebody has to give way, since the machine has no more room; false when nobody is there.
    pub fn make_room(&self) -> bool {
        let evicted = self.evict_from(&mut self.lock());
        self.evicted.fetch_add(u64::from(evicted), Ordering::Relaxed);
        evicted
    }

    fn evict_from(&self, present: &mut Present) -> bool {
        present.by_size.last().copied().is_some_and(|(_, origin)| present.evict(origin))
    }

    /// How many are there.
    pub fn len(&self) -> usize {
        self.lock().all
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many had to give way, ever.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// No code under the lock can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who is there, until dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    origin: Origin,
    number: u64,
    gives_way: Arc<Notify>,
}

impl Admitted {
    /// Resolves when this one has to give way. Cancel-safe.
    pub fn gives_way(&self) -> impl Future<Output = ()> + Send + use<> {
        let gives_way = self.gives_way.clone();
        async move {
            gives_way.notified().await;
            // For whoever asks again.
            gives_way.notify_one();
        }
    }

    /// It has done something: it gives way after those who are there now.
    pub fn renew(&mut self) {
        let mut present = self.admission.lock();
        if let Some(gives_way) = present.remove(self.origin, self.number) {
            self.number = present.insert(self.origin, gives_way);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.lock().remove(self.origin, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, time::Duration};

    use proptest::prelude::*;
    use tokio::time::timeout;

    use super::*;

    const CROWD: Crowd = Crowd { all: 10, per_address: 4 };

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    async fn has_to_go(admitted: &Admitted) -> bool {
        timeout(Duration::from_millis(1), admitted.gives_way()).await.is_ok()
    }

    #[test]
    fn what_counts_as_one_address() {
        let origin = |text| Origin::of(ip(text));
        for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(origin(here), Origin::of(None), "{here}");
        }
        assert_eq!(origin("10.0.0.1"), origin("::ffff:10.0.0.1"));
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:1"));
        assert_ne!(origin("2001:db8:0:1::1"), origin("2001:db8:0:2::1"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_the_address_with_the_most_gives_way() {
        let admission = Arc::<Admission>::default();
        let honest = admission.admit(ip("10.0.0.9"), CROWD);
        let mut crowd: VecDeque<_> = (0..4).map(|_| admission.admit(ip("10.0.0.1"), CROWD)).collect();
        assert_eq!(admission.len(), 5);
        for _ in 0..20 {
            crowd.push_back(admission.admit(ip("10.0.0.1"), CROWD));
            let oldest = crowd.pop_front().unwrap();
            assert!(has_to_go(&oldest).await && has_to_go(&oldest).await, "its address has too many");
            assert!(!has_to_go(&crowd[0]).await);
        }
        assert_eq!((admission.len(), admission.evicted()), (5, 20));
        crowd.extend((0..5).map(|_| admission.admit(None, CROWD)));
        assert_eq!(admission.len(), 10);
        let late = admission.admit(ip("10.0.0.8"), CROWD);
        assert!(has_to_go(&crowd[4]).await, "there are too many in all, most of them from this machine");
        assert!(!has_to_go(&late).await && !has_to_go(&honest).await);
        drop((late, honest, crowd));
        assert!(admission.is_empty() && !admission.make_room());
        assert!(admission.lock().by_size.is_empty() && admission.lock().by_origin.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_something_gives_way_later() {
        let admission = Arc::<Admission>::default();
        let mut one = admission.admit(None, CROWD);
        let other = admission.admit(None, CROWD);
        one.renew();
        assert!(admission.make_room());
        assert!(has_to_go(&other).await && !has_to_go(&one).await);
        assert!(admission.make_room());
        one.renew();
        assert!(has_to_go(&one).await, "it is too late");
        assert!(admission.is_empty());
    }

    #[test]
    fn many_on_this_machine_have_no_limit_but_that_of_all() {
        let admission = Arc::<Admission>::default();
        let many: Vec<_> = (0..10).map(|_| admission.admit(ip("127.0.0.1"), CROWD)).collect();
        assert_eq!((admission.len(), admission.evicted(), many.len()), (10, 0, 10));
    }

    proptest! {
        /// Whoever comes and goes: no more than may be, no honest one before one of the address with the most.
        #[test]
        fn counts_hold(steps in prop::collection::vec((0..4_u8, 0..6_u8, any::<prop::sample::Index>()), 1..200)) {
            let admission = Arc::<Admission>::default();
            let mut kept: Vec<Admitted> = Vec::new();
            for (step, origin, which) in steps {
                match step {
                    0 | 1 => {
                        let peer = (origin > 0).then(|| IpAddr::from([10, 0, 0, origin]));
                        kept.push(admission.admit(peer, CROWD));
                    }
                    2 if !kept.is_empty() => drop(kept.swap_remove(which.index(kept.len()))),
                    3 if !kept.is_empty() => {
                        let which = which.index(kept.len());
                        kept[which].renew();
                    }
                    _ => {}
                }
                let present = admission.lock();
                let counted: usize = present.by_origin.values().map(BTreeMap::len).sum();
                prop_assert_eq!(counted, present.all);
                prop_assert!(present.all <= CROWD.all && present.all <= kept.len());
                let sizes: BTreeSet<_> = present.by_origin.iter().map(|(of, all)| (all.len(), *of)).collect();
                prop_assert_eq!(&sizes, &present.by_size);
                let elsewhere = sizes.iter().filter(|(_, of)| *of != Origin::ThisMachine);
                prop_assert!(elsewhere.into_iter().all(|(size, _)| *size <= CROWD.per_address));
            }
            drop(kept);
            prop_assert!(admission.is_empty());
        }
    }
}
