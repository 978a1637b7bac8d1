//! Random operations on several pools. After each, the books must agree with the world, and nobody be forgotten.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Operation {
    /// Takes a place in the queue of a pool, from a thread.
    Wait(usize, usize),
    Ask(usize, usize),
    /// Clients look at what has come.
    Collect,
    GiveBack(usize),
    Break(usize),
    Pin(usize, bool),
    Cancel(usize),
    Advance(u64),
    Keep,
    Kill(usize),
    /// What the next attempts of a pool do.
    Script(usize, Step),
    Delay(usize, u64),
    Renew,
    RenewOne(usize),
    Pause(usize, bool),
}

fn operation() -> impl Strategy<Value = Operation> {
    let index = 0_usize..64;
    let step = prop_oneof![
        (0_usize..3).prop_map(|thread| Step::OpenOn(THREADS[thread])),
        prop_oneof![0_u32..9, LASTING..LASTING + 9].prop_map(Step::Fail),
        Just(Step::Panic),
    ];
    prop_oneof![
        8 => (index.clone(), 0_usize..3).prop_map(|(pool, thread)| Operation::Wait(pool, thread)),
        2 => (index.clone(), 0_usize..3).prop_map(|(pool, thread)| Operation::Ask(pool, thread)),
        6 => Just(Operation::Collect),
        6 => index.clone().prop_map(Operation::GiveBack),
        2 => index.clone().prop_map(Operation::Break),
        4 => (index.clone(), any::<bool>()).prop_map(|(lease, pinned)| Operation::Pin(lease, pinned)),
        3 => index.clone().prop_map(Operation::Cancel),
        6 => (0_u64..40).prop_map(Operation::Advance),
        1 => Just(Operation::Advance(1_000)),
        2 => Just(Operation::Keep),
        2 => index.clone().prop_map(Operation::Kill),
        2 => (index.clone(), step).prop_map(|(pool, step)| Operation::Script(pool, step)),
        1 => (index.clone(), 0_u64..50).prop_map(|(pool, delay)| Operation::Delay(pool, delay)),
        1 => Just(Operation::Renew),
        1 => index.clone().prop_map(Operation::RenewOne),
        2 => (index, any::<bool>()).prop_map(|(pool, paused)| Operation::Pause(pool, paused)),
    ]
}

fn pool_settings() -> impl Strategy<Value = Settings> {
    let limit = |range: std::ops::Range<u64>| prop::option::of(range.prop_map(ms));
    (1_usize..=4, 0_usize..=2, 0_usize..=3, limit(1..300), limit(0..2_000), limit(1..3_000)).prop_map(
        |(size, reserve_size, min_idle, checkout_timeout, idle_timeout, max_lifetime)| Settings {
            size,
            reserve_size,
            reserve_timeout: ms(100),
            min_idle,
            checkout_timeout,
            wait_notice: None,
            idle_timeout,
            check_delay: None,
            max_lifetime,
        },
    )
}

/// All clients of the pools.
struct Clients {
    bench: Bench,
    waits: Vec<TestWait>,
    leases: Vec<TestLease>,
}

impl Clients {
    fn new(budget: usize, pools: &[Settings]) -> Clients {
        let mut bench = Bench::new(budget);
        for settings in pools {
            bench.pool(settings.clone());
        }
        Clients { bench, waits: Vec::new(), leases: Vec::new() }
    }

    fn pool(&self, index: usize) -> &TestPool {
        &self.bench.pools[index % self.bench.pools.len()]
    }

    fn take(&mut self, lease: TestLease) {
        assert!(self.bench.state().used.insert(lease.number), "connection {} is lent twice", lease.number);
        self.leases.push(lease);
    }

    fn collect(&mut self) {
        for mut wait in std::mem::take(&mut self.waits) {
            match peek(&mut wait) {
                Some(Ok(lease)) => self.take(lease),
                Some(Err(_)) => {}
                None => self.waits.push(wait),
            }
        }
    }

    fn lease(&mut self, index: usize) -> Option<TestLease> {
        let index = index.checked_rem(self.leases.len())?;
        let lease = self.leases.swap_remove(index);
        self.bench.state().used.remove(&lease.number);
        Some(lease)
    }

    /// Makes an idle or lent connection unfit.
    fn kill(&self, index: usize) {
        let alive = self.bench.alive();
        if let Some(index) = index.checked_rem(alive.len()) {
            self.bench.kill(alive[index]);
        }
    }

    async fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Wait(pool, thread) => self.waits.push(self.pool(pool).wait(THREADS[thread])),
            Operation::Ask(pool, thread) => match self.pool(pool).ask(THREADS[thread]) {
                Checkout::There(lease) => {
                    assert!(lease.is_fit(), "an unfit connection is lent");
                    self.take(lease);
                }
                Checkout::Queued(wait) => self.waits.push(wait),
            },
            Operation::Collect => self.collect(),
            Operation::GiveBack(lease) => self.lease(lease).into_iter().for_each(Lease::give_back),
            Operation::Break(lease) => drop(self.lease(lease)),
            Operation::Pin(lease, pinned) => {
                if let Some(index) = lease.checked_rem(self.leases.len()) {
                    self.leases[index].set_pinned(pinned);
                }
            }
            Operation::Cancel(wait) => {
                if let Some(index) = wait.checked_rem(self.waits.len()) {
                    drop(self.waits.swap_remove(index));
                }
            }
            Operation::Advance(time) => self.bench.pass(ms(time)).await,
            Operation::Keep => self.bench.node.keep(),
            Operation::Kill(connection) => self.kill(connection),
            Operation::Script(pool, step) => self.pool(pool).next(&[step]),
            Operation::Delay(pool, delay) => self.pool(pool).delay(ms(delay)),
            Operation::Renew => self.bench.node.renew(),
            Operation::RenewOne(pool) => self.pool(pool).renew(),
            Operation::Pause(pool, paused) => self.pool(pool).set_paused(paused),
        }
    }

    /// The books, also between the start of a task and its first turn.
    fn check_counts(&self) {
        let counts: Vec<PoolCounts> = self.bench.pools.iter().map(|pool| pool.counts()).collect();
        let open: usize = counts.iter().map(|counts| counts.lent + counts.idle + counts.opening).sum();
        assert_eq!(self.bench.node.open(), open);
        assert!(open <= self.bench.budget);
        assert!(counts.iter().map(|counts| counts.waiting).sum::<usize>() <= self.waits.len());
    }

    /// Serves everybody who waits and closes everything.
    async fn drain(mut self) {
        for pool in &self.bench.pools {
            pool.script.lock().unwrap().steps.clear();
            pool.set_paused(false);
        }
        let rounds = self.waits.len() + 5;
        for _ in 0..rounds {
            self.collect();
            while let Some(lease) = self.lease(0) {
                lease.give_back();
            }
            self.bench.pass(ms(1_000)).await;
            self.bench.node.keep();
            self.bench.settle().await;
            self.bench.check();
        }
        self.collect();
        assert_eq!(self.bench.pools.iter().map(|pool| pool.outdated()).sum::<usize>(), 0);
        assert!(self.waits.is_empty(), "{} wait for ever", self.waits.len());
        self.leases.clear();
        let Bench { world, node, pools, .. } = self.bench;
        drop(pools);
        sleep(ms(1_000)).await;
        assert_eq!((node.open(), node.lent()), (0, 0));
        let state = look(&world);
        assert!(state.alive.is_empty());
        assert_eq!(state.opened, state.retired.len() + state.broken.len());
    }
}

impl TestLease {
    fn is_fit(&self) -> bool {
        look(&self.world).alive[&self.number].1
    }
}

async fn run(budget: usize, pools: &[Settings], operations: &[Operation]) {
    let mut clients = Clients::new(budget, pools);
    for operation in operations {
        if matches!(operation, Operation::Keep) {
            clients.bench.state().panicked = false;
        }
        clients.apply(operation).await;
        clients.check_counts();
        clients.bench.settle().await;
        clients.bench.check();
    }
    clients.drain().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_books_are_right_whatever_happens(
        budget in 1_usize..=6,
        pools in prop::collection::vec(pool_settings(), 1..=4),
        operations in prop::collection::vec(operation(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(budget, &pools, &operations));
    }
}
