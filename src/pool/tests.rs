//! Pools over a scripted manager on a paused clock. Connections are numbered; the world knows which of them are alive,
//! so that the books of the node can be compared with it.

mod fairness;
mod lending;
mod lifetimes;
mod openings;
mod pauses;
mod random;
mod reserve;
mod threads;
mod waits;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::pending,
    pin::Pin,
    sync::LazyLock,
    task::Waker,
    thread,
};

use tokio::{task::yield_now, time::advance, time::sleep};

use super::*;

/// Errors from here on do not pass by themselves.
const LASTING: u32 = 100;

/// Threads that connections and clients live on; they need not run.
static THREADS: LazyLock<Vec<ThreadId>> =
    LazyLock::new(|| (0..3).map(|_| thread::spawn(|| thread::current().id()).join().unwrap()).collect());

fn here() -> ThreadId {
    THREADS[0]
}

fn there() -> ThreadId {
    THREADS[1]
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// How one attempt to open a connection goes.
#[derive(Debug, Clone, Copy)]
enum Step {
    Open,
    OpenOn(ThreadId),
    Fail(u32),
    Panic,
    Hang,
}

#[derive(Debug, Default)]
struct State {
    /// Pool and fitness of each connection that is alive.
    alive: BTreeMap<usize, (usize, bool)>,
    retired: Vec<usize>,
    /// Dropped without a goodbye.
    broken: Vec<usize>,
    /// Attempts that have begun and not ended, by pool.
    opening: BTreeMap<usize, usize>,
    opened: usize,
    /// Connections that a client has in its hands.
    used: BTreeSet<usize>,
    pools: usize,
    /// An opening has panicked, which only `keep` makes good.
    panicked: bool,
}

type World = Arc<Mutex<State>>;

fn look(world: &World) -> MutexGuard<'_, State> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Connection {
    number: usize,
    home: ThreadId,
    retired: bool,
    world: World,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = look(&self.world);
        assert!(state.alive.remove(&self.number).is_some(), "closed twice");
        if self.retired { state.retired.push(self.number) } else { state.broken.push(self.number) }
    }
}

/// What the next attempts of one pool do.
#[derive(Debug)]
struct Script {
    /// The pool lends nothing.
    paused: bool,
    /// As the pool has said.
    troubled: bool,
    /// Openings that have begun.
    attempts: usize,
    delay: Duration,
    steps: VecDeque<Step>,
}

#[derive(Debug)]
struct Scripted {
    pool: usize,
    world: World,
    script: Arc<Mutex<Script>>,
}

/// Counts an attempt for as long as it lasts.
struct Attempt<'a>(&'a Scripted);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        *look(&self.0.world).opening.entry(self.0.pool).or_default() -= 1;
    }
}

impl Scripted {
    fn make(&self, home: ThreadId) -> Connection {
        let mut state = look(&self.world);
        let number = state.opened;
        state.opened += 1;
        state.alive.insert(number, (self.pool, true));
        Connection { number, home, retired: false, world: self.world.clone() }
    }
}

impl Manager for Scripted {
    type Connection = Connection;
    type Error = u32;

    async fn open(&self) -> Result<Connection, u32> {
        *look(&self.world).opening.entry(self.pool).or_default() += 1;
        let attempt = Attempt(self);
        let (delay, step) = {
            let mut script = self.script.lock().unwrap();
            script.attempts += 1;
            (script.delay, script.steps.pop_front().unwrap_or(Step::Open))
        };
        if !delay.is_zero() {
            sleep(delay).await;
        }
        drop(attempt);
        match step {
            Step::Open => Ok(self.make(here())),
            Step::OpenOn(home) => Ok(self.make(home)),
            Step::Fail(error) => Err(error),
            // Unwinds like a panic, without words on standard error.
            Step::Panic => {
                look(&self.world).panicked = true;
                std::panic::resume_unwind(Box::new("scripted"))
            }
            Step::Hang => {
                *look(&self.world).opening.entry(self.pool).or_default() += 1;
                let _attempt = Attempt(self);
                pending().await
            }
        }
    }

    fn is_fit(connection: &mut Connection) -> bool {
        look(&connection.world).alive[&connection.number].1
    }

    fn retire(mut connection: Connection) {
        connection.retired = true;
    }

    fn home(connection: &Connection) -> ThreadId {
        connection.home
    }

    /// As if the number were an SQLSTATE.
    fn is_lasting(error: &u32) -> bool {
        *error >= LASTING
    }

    fn note_trouble(&self, troubled: bool) {
        self.script.lock().unwrap().troubled = troubled;
    }
}

type TestLease = Lease<Scripted>;
type TestWait = Waiting<Scripted>;
type Given = Result<TestLease, CheckoutError<u32>>;

/// A pool with its script.
#[derive(Debug, Clone)]
struct TestPool {
    pool: Arc<Pool<Scripted>>,
    number: usize,
    settings: Settings,
    script: Arc<Mutex<Script>>,
}

impl Deref for TestPool {
    type Target = Arc<Pool<Scripted>>;

    fn deref(&self) -> &Arc<Pool<Scripted>> {
        &self.pool
    }
}

impl TestPool {
    fn next(&self, steps: &[Step]) {
        self.script.lock().unwrap().steps.extend(steps);
    }

    fn set_paused(&self, paused: bool) {
        self.script.lock().unwrap().paused = paused;
        if paused { self.pause() } else { self.resume() }
    }

    fn is_paused(&self) -> bool {
        self.script.lock().unwrap().paused
    }

    fn is_troubled(&self) -> bool {
        let troubled = self.script.lock().unwrap().troubled;
        assert_eq!(troubled, self.trouble().is_some());
        troubled
    }

    fn attempts(&self) -> usize {
        self.script.lock().unwrap().attempts
    }

    fn delay(&self, delay: Duration) {
        self.script.lock().unwrap().delay = delay;
    }

    /// Connections that are lent, idle, being opened, and clients that wait.
    fn has(&self) -> [usize; 4] {
        let PoolCounts { lent, idle, opening, waiting, .. } = self.counts();
        [lent, idle, opening, waiting]
    }

    /// One that idles, or nothing: whoever would have to wait goes away again.
    fn try_checkout(&self, thread: ThreadId) -> Option<TestLease> {
        match self.ask(thread) {
            Checkout::There(lease) => Some(lease),
            Checkout::Queued(_) => None,
        }
    }

    async fn lease(&self) -> TestLease {
        self.checkout(here()).await.unwrap()
    }

    async fn leases(&self, count: usize) -> Vec<TestLease> {
        let mut leases = Vec::new();
        for _ in 0..count {
            leases.push(self.lease().await);
        }
        leases
    }

    /// Opens so many connections and leaves them idle, the newest used last.
    async fn warm(&self, count: usize) {
        self.leases(count).await.into_iter().for_each(Lease::give_back);
    }
}

fn settings(size: usize) -> Settings {
    Settings {
        size,
        reserve_size: 0,
        reserve_timeout: ms(100),
        min_idle: 0,
        checkout_timeout: None,
        wait_notice: None,
        idle_timeout: None,
        max_lifetime: None,
        check_delay: None,
    }
}

struct Bench {
    world: World,
    node: Arc<NodePools<Scripted>>,
    budget: usize,
    pools: Vec<TestPool>,
}

impl Bench {
    fn new(budget: usize) -> Bench {
        Bench { world: World::default(), node: NodePools::new(budget, Scope::new()), budget, pools: Vec::new() }
    }

    /// A pool that is part of every check.
    fn pool(&mut self, settings: Settings) -> TestPool {
        let pool = self.loose_pool(settings);
        self.pools.push(pool.clone());
        pool
    }

    /// A pool that goes when the test drops it.
    fn loose_pool(&mut self, settings: Settings) -> TestPool {
        let number = {
            let mut state = look(&self.world);
            state.pools += 1;
            state.pools - 1
        };
        let script = Arc::new(Mutex::new(Script {
            paused: false,
            troubled: false,
            attempts: 0,
            delay: Duration::ZERO,
            steps: VecDeque::new(),
        }));
        let manager = Scripted { pool: number, world: self.world.clone(), script: script.clone() };
        TestPool { pool: self.node.pool(settings.clone(), manager), number, settings, script }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        look(&self.world)
    }

    fn alive(&self) -> Vec<usize> {
        self.state().alive.keys().copied().collect()
    }

    fn kill(&self, number: usize) {
        self.state().alive.get_mut(&number).unwrap().1 = false;
    }

    /// Lets every task run that can, without time passing.
    async fn settle(&self) {
        for _ in 0..50 {
            yield_now().await;
        }
    }

    /// Lets time pass for the tasks that run already.
    async fn pass(&self, time: Duration) {
        self.settle().await;
        advance(time).await;
        self.settle().await;
    }

    async fn pass_and_keep(&self, time: Duration) {
        self.pass(time).await;
        self.node.keep();
        self.settle().await;
    }

    /// Compares the books with the world. Every pool must be known to the bench, and every task have run.
    fn check(&self) {
        let state = self.state();
        let mut sum = PoolCounts::default();
        for pool in &self.pools {
            let counts = pool.counts();
            let opening = state.opening.get(&pool.number).copied().unwrap_or_default();
            let alive = state.alive.values().filter(|(number, _)| *number == pool.number).count();
            assert_eq!(counts.lent + counts.idle, alive, "pool {}: {counts:?}", pool.number);
            assert_eq!(counts.opening, opening, "pool {}: {counts:?}", pool.number);
            let most = pool.settings.size + pool.settings.reserve_size;
            assert!(alive + opening <= most, "pool {} exceeds its size: {counts:?}", pool.number);
            assert!(counts.idle == 0 || !pool.is_paused(), "pool {}: {counts:?}", pool.number);
            assert!(pool.outdated() <= counts.lent + counts.opening, "pool {}: {counts:?}", pool.number);
            assert!(counts.idle == 0 || counts.waiting == 0, "pool {}: {counts:?}", pool.number);
            sum.lent += counts.lent;
            sum.idle += counts.idle;
            sum.opening += counts.opening;
        }
        assert_eq!(self.node.lent(), sum.lent);
        assert_eq!(self.node.open(), sum.lent + sum.idle + sum.opening);
        assert!(self.node.open() <= self.budget, "the node's budget is exceeded");
        if !state.panicked {
            self.check_waiters();
        }
    }

    /// Whoever waits has a connection under way, or the pool's size or the node's budget is in use, or it waits for
    /// another try, which is due soon. What idles may only belong to pools that have no more.
    fn check_waiters(&self) {
        for pool in &self.pools {
            let PoolCounts { lent, opening, waiting, .. } = pool.counts();
            let hungry = opening < waiting && lent + opening < pool.settings.size && !pool.is_paused();
            let hungry = hungry && pool.trouble().is_none();
            let spare = self.pools.iter().any(|other| {
                let counts = other.counts();
                counts.idle > 0 && counts.lent + counts.idle + counts.opening > lent + opening
            });
            let full = self.node.open() == self.budget && !spare;
            assert!(!hungry || full, "pool {} is forgotten: {:?}", pool.number, pool.counts());
        }
    }
}

/// What a wait has come to, if anything.
fn peek(wait: &mut TestWait) -> Option<Given> {
    match Pin::new(wait).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(given) => Some(given),
        Poll::Pending => None,
    }
}

/// The connection that a wait has come to.
#[track_caller]
fn got(wait: &mut TestWait) -> TestLease {
    peek(wait).expect("still waits").expect("a connection")
}
