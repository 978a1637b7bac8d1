//! The threads that serve clients: how each takes clients in, from the accepting task and from other threads, and how
//! as few of them as suffice are kept busy. `workers::balance` decides; here its orders are carried out.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::{
    frontend::{
        login::{Served, log_in},
        relay::{Client, Leave, Worker},
        shared::Frontend,
        workers::{ALL, BUSY, Load, MoveOrder, Post, Spread},
    },
    net::{Admitted, listener::Accepted},
    tasks::{Scope, TaskToken},
};
use poolhouse_core::session::Route;

/// How often the workers' loads are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The threads that serve clients. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Workers {
    intakes: Arc<[Intake]>,
    /// The first so many take new clients.
    in_use: Arc<AtomicUsize>,
    clients: Scope,
}

#[derive(Debug)]
struct Intake {
    arrivals: mpsc::UnboundedSender<Arrival>,
    post: Arc<Post>,
}

/// What a thread takes its clients from.
#[derive(Debug)]
pub struct Arrivals {
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    pub post: Arc<Post>,
}

/// A client on its way to a thread.
#[derive(Debug)]
struct Arrival {
    client: Arriving,
    /// Whoever waits for the clients to end waits for this one, too.
    _token: TaskToken,
}

#[derive(Debug)]
enum Arriving {
    /// With the route of the listener, if that has one.
    New(Accepted, Option<Route>, Admitted),
    /// One that has been served by another thread.
    Moved(Box<Client>),
}

impl Workers {
    /// For `count` threads; each gets one of the arrivals. `clients` is where the clients' tasks belong.
    pub fn new(count: usize, clients: Scope) -> (Workers, Vec<Arrivals>) {
        let pair = |number| {
            let (sender, arrivals) = mpsc::unbounded_channel();
            let post = Arc::new(Post::of(number));
            (Intake { arrivals: sender, post: post.clone() }, Arrivals { arrivals, post })
        };
        let (intakes, arrivals): (Vec<Intake>, _) = (0..count).map(pair).unzip();
        let in_use = Arc::new(AtomicUsize::new(1));
        (Workers { intakes: intakes.into(), in_use, clients }, arrivals)
    }

    /// Hands a new client to the thread in use with fewest clients; one that is busy gets none while others are not.
    pub fn take_in(&self, client: Accepted, route: Option<Route>, stranger: Admitted) {
        let in_use = &self.intakes[..self.in_use.load(Ordering::Relaxed)];
        let loads = in_use.iter().map(|intake| intake.post.load()).enumerate();
        let fewest = loads.min_by_key(|(_, load)| (load.busy >= BUSY, load.clients));
        if let Some((to, _)) = fewest {
            self.hand_over(Arriving::New(client, route, stranger), to);
        }
    }

    fn hand_over(&self, client: Arriving, to: usize) {
        let intake = &self.intakes[to];
        intake.post.clients.fetch_add(1, Ordering::Relaxed);
        // Fails only when all clients have been waited for long enough: the client sees its socket closed.
        let _ = intake.arrivals.send(Arrival { client, _token: self.clients.token() });
    }

    /// Replaces the orders that stand. `number` is larger each time, and not 0.
    pub fn put_orders(&self, orders: &[MoveOrder], number: u32) {
        for (from, intake) in self.intakes.iter().enumerate() {
            intake.post.put_order(orders.iter().copied().find(|order| order.from == from), number);
        }
    }

    /// How many clients each thread has.
    pub fn clients(&self) -> Vec<usize> {
        self.intakes.iter().map(|intake| intake.post.load().clients).collect()
    }
}

/// Keeps as few threads busy as suffice, until the scope is asked to stop. Nothing to do for one.
pub async fn balance(workers: Workers, scope: Scope) {
    if workers.intakes.len() == 1 {
        return;
    }
    let mut spread = Spread::new(workers.intakes.len());
    let mut looks = looks();
    for number in (1..=u32::MAX).cycle() {
        tokio::select! {
            _ = looks.tick() => {}
            () = scope.stopping() => return,
        }
        let loads: Vec<Load> = workers.intakes.iter().map(|intake| intake.post.load()).collect();
        let orders = spread.look(&loads);
        let before = workers.in_use.swap(spread.in_use(), Ordering::Relaxed);
        if before != spread.in_use() {
            tracing::debug!(workers = spread.in_use(), before, ?loads, "more or fewer threads serve clients");
        }
        workers.put_orders(&orders, number);
    }
}

fn looks() -> tokio::time::Interval {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// Serves the clients that are handed to the calling thread, until their scope has been asked to stop and all have
/// ended.
pub async fn serve(mut arrivals: Arrivals, frontend: Arc<Frontend>, worker: Arc<Worker>, workers: Workers) {
    let post = arrivals.post.clone();
    let several = workers.intakes.len() > 1;
    let clients = workers.clients.clone();
    let thread = Arc::new(Thread { post: post.clone(), frontend, worker, workers });
    let mut meter = several.then(Meter::new);
    let mut looks = looks();
    let mut ended = pin!(async {
        clients.stopping().await;
        clients.ended().await;
    });
    loop {
        // Without clients a thread has nothing to say, and sleeps.
        let metered = several && post.load() != Load::default();
        tokio::select! {
            arrival = arrivals.arrivals.recv() => {
                let Some(arrival) = arrival else { return };
                clients.spawn("client", serve_one(Box::new(arrival), thread.clone()));
            }
            _ = looks.tick(), if metered => {
                let busy = match &mut meter {
                    Some(meter) if post.clients.load(Ordering::Relaxed) > 0 => meter.look(),
                    _ => 0,
                };
                post.busy.store(busy, Ordering::Relaxed);
            }
            () = &mut ended => return,
        }
    }
}

/// What the calling thread has for each of its clients.
struct Thread {
    post: Arc<Post>,
    frontend: Arc<Frontend>,
    worker: Arc<Worker>,
    workers: Workers,
}

/// All that an idle client needs beside itself is here: what the future holds counts for each of thousands. Hence one
/// pointer to what all share, and the login apart.
async fn serve_one(arrival: Box<Arrival>, thread: Arc<Thread>) {
    let _counted = CountedOut { post: &thread.post };
    let Some(client) = Box::pin(take_in(arrival, &thread)).await else { return };
    if let Leave::ToMove(client, to) = client.run().await {
        thread.workers.hand_over(Arriving::Moved(client), to);
    }
}

/// The client, logged in and at home on the calling thread; `None` when it has left, or was something else than a
/// client.
async fn take_in(arrival: Box<Arrival>, thread: &Thread) -> Option<Box<Client>> {
    match arrival.client {
        Arriving::New(accepted, route, stranger) => {
            let stream = accepted
                .open(thread.frontend.settings().tcp)
                .inspect_err(|error| tracing::debug!(%error, "a client had gone before it was served"))
                .ok()?;
            let (frontend, worker) = (thread.frontend.clone(), thread.worker.clone());
            match log_in(stream, route, stranger, frontend, worker, thread.workers.clients.clone()).await? {
                Served::Client(client) => Some(client),
                Served::Replication(replication) => {
                    replication.run().await;
                    None
                }
            }
        }
        Arriving::Moved(mut client) => {
            client
                .arrive(thread.worker.clone())
                .inspect_err(
                    |error| tracing::warn!(%error, "closed a client that could not be moved to another thread"),
                )
                .ok()?;
            Some(client)
        }
    }
}

/// What the calling thread uses of a core.
struct Meter {
    used: Duration,
    since: Instant,
}

impl Meter {
    fn new() -> Meter {
        Meter { used: thread_time(), since: Instant::now() }
    }

    /// In thousandths, since the last look.
    fn look(&mut self) -> u32 {
        let (used, now) = (thread_time(), Instant::now());
        let (spent, passed) = (used.saturating_sub(self.used), now.saturating_duration_since(self.since));
        (self.used, self.since) = (used, now);
        let busy = spent.as_nanos() * u128::from(ALL) / passed.as_nanos().max(1);
        busy.min(u128::from(ALL)) as u32
    }
}

fn thread_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(tv_sec.unsigned_abs(), tv_nsec.unsigned_abs() as u32)
}

/// Counts a client out of its thread.
struct CountedOut<'a> {
    post: &'a Post,
}

impl Drop for CountedOut<'_> {
    fn drop(&mut self) {
        self.post.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_tells_sleep_from_work() {
        let mut meter = Meter::new();
        std::thread::sleep(Duration::from_millis(50));
        assert!(meter.look() < ALL);
        let start = thread_time();
        while thread_time() - start < Duration::from_millis(5) {}
        assert!(meter.look() > 0);
    }

    #[tokio::test]
    async fn new_clients_go_to_the_threads_in_use_first_to_those_that_are_not_busy() {
        let clients = Scope::new();
        let (workers, mut arrivals) = Workers::new(3, clients.clone());
        let strangers = Arc::<crate::net::Admission>::default();
        let arrive = || {
            let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
            let stranger = strangers.admit(None, crate::net::Crowd { all: 100, per_address: 100 });
            workers.take_in(Accepted::Unix(one), None, stranger);
            other
        };
        let mut kept = vec![arrive(), arrive()];
        assert_eq!(workers.clients(), [2, 0, 0], "one is in use");
        workers.in_use.store(2, Ordering::Relaxed);
        kept.extend([arrive(), arrive()]);
        assert_eq!(workers.clients(), [2, 2, 0]);
        workers.intakes[1].post.busy.store(BUSY, Ordering::Relaxed);
        kept.extend([arrive(), arrive()]);
        assert_eq!(workers.clients(), [4, 2, 0], "the other is busy");
        workers.intakes[0].post.busy.store(BUSY, Ordering::Relaxed);
        kept.extend([arrive(), arrive()]);
        assert_eq!(workers.clients(), [4, 4, 0]);
        assert_eq!(clients.len(), 8, "those on their way are waited for");
        while arrivals[0].arrivals.try_recv().is_ok() {}
        while arrivals[1].arrivals.try_recv().is_ok() {}
        assert!(clients.is_empty());
    }
}
