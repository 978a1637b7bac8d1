//! Several pools on one node's budget.

use proptest::prelude::*;

use super::*;

#[tokio::test(start_paused = true)]
async fn the_connection_that_has_idled_longest_in_another_pool_makes_room() {
    let mut bench = Bench::new(4);
    let (old, new, asking) = (bench.pool(settings(4)), bench.pool(settings(4)), bench.pool(settings(4)));
    new.warm(1).await;
    bench.pass_and_keep(ms(1000)).await;
    old.warm(2).await;
    bench.pass_and_keep(ms(1000)).await;
    new.warm(2).await;
    assert_eq!((old.has(), new.has()), ([0, 2, 0, 0], [0, 2, 0, 0]));
    bench.pass_and_keep(ms(1000)).await;
    bench.pass_and_keep(ms(1000)).await;
    let leases = asking.leases(3).await;
    bench.check();
    assert_eq!(bench.state().retired, [1, 2, 0], "the order of their last use");
    drop(leases);
    bench.settle().await;
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_becomes_smaller_is_kept_to_as_connections_come_back() {
    let mut bench = Bench::new(4);
    let (one, other) = (bench.pool(settings(4)), bench.pool(settings(4)));
    let mut busy = one.leases(2).await;
    other.warm(2).await;
    let mut wait = other.wait(here());
    drop(peek(&mut wait));
    bench.node.set_connections_max(1);
    bench.settle().await;
    assert_eq!((one.has(), bench.node.open()), ([2, 0, 0, 0], 2 + other.has()[0]), "what idles goes at once");
    drop(wait);
    busy.pop().unwrap().give_back();
    bench.settle().await;
    assert!(bench.node.open() <= 2);
    busy.pop().unwrap().give_back();
    bench.settle().await;
    bench.budget = 1;
    bench.check();
    // And a larger one serves those who wait.
    let _only = one.lease().await;
    let mut wait = other.wait(here());
    bench.settle().await;
    assert!(peek(&mut wait).is_none());
    bench.node.set_connections_max(2);
    bench.budget = 2;
    bench.settle().await;
    assert!(peek(&mut wait).is_some());
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn what_has_not_idled_for_long_makes_room_for_a_pool_that_has_fewer_only() {
    let mut bench = Bench::new(4);
    let (full, asking) = (bench.pool(settings(4)), bench.pool(settings(4)));
    full.warm(4).await;
    let _leases = asking.leases(2).await;
    let mut wait = asking.wait(here());
    bench.settle().await;
    assert!(peek(&mut wait).is_none());
    bench.check();
    assert_eq!(bench.state().retired, [0, 1]);
    let _busy = full.lease().await;
    bench.pass_and_keep(ms(1000)).await;
    assert!(peek(&mut wait).is_none());
    bench.pass_and_keep(ms(1000)).await;
    assert_eq!(got(&mut wait).number, 6);
    bench.check();
    assert_eq!(bench.state().retired, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_does_not_close_its_own_idle_connections_to_open_others() {
    let mut bench = Bench::new(2);
    let (pool, other) = (bench.pool(settings(2)), bench.pool(settings(2)));
    let _busy = other.lease().await;
    pool.warm(1).await;
    for _ in 0..5 {
        pool.lease().await.give_back();
    }
    assert_eq!(bench.state().opened, 2);
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_has_the_whole_budget_gives_way_to_one_that_has_none() {
    let mut bench = Bench::new(3);
    let (large, small) = (bench.pool(settings(3)), bench.pool(settings(3)));
    let mut leases = large.leases(3).await;
    let mut own: Vec<TestWait> = (0..5).map(|_| large.wait(here())).collect();
    let mut wait = small.wait(here());
    leases.pop().unwrap().give_back();
    bench.settle().await;
    bench.check();
    let lease = got(&mut wait);
    assert_eq!((large.has(), small.has()), ([2, 0, 0, 5], [1, 0, 0, 0]));
    let _more = small.wait(here());
    leases.pop().unwrap().give_back();
    bench.settle().await;
    got(&mut own[0]).give_back();
    assert_eq!((large.has(), small.has()), ([2, 0, 0, 3], [1, 0, 0, 1]), "one more would only turn it round");
    drop(lease);
    bench.settle().await;
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_of_its_pool_waits_for_goes_where_somebody_does() {
    let mut bench = Bench::new(4);
    let (one, two) = (bench.pool(settings(3)), bench.pool(settings(3)));
    let mut leases = one.leases(3).await;
    let _lease = two.lease().await;
    let mut wait = two.wait(here());
    leases.remove(0).give_back();
    bench.settle().await;
    bench.check();
    got(&mut wait);
    assert_eq!(bench.state().retired, [0]);
}

#[tokio::test(start_paused = true)]
async fn the_connections_of_a_pool_that_has_no_more_must_idle_for_a_while_first() {
    let mut bench = Bench::new(3);
    let (one, two) = (bench.pool(settings(3)), bench.pool(settings(3)));
    let lease = one.lease().await;
    let _leases = two.leases(2).await;
    let mut wait = two.wait(here());
    lease.give_back();
    bench.pass_and_keep(ms(1000)).await;
    one.lease().await.give_back();
    bench.pass_and_keep(ms(1000)).await;
    assert!(peek(&mut wait).is_none());
    bench.check();
    bench.pass_and_keep(ms(1000)).await;
    got(&mut wait);
    assert_eq!((one.has(), bench.state().retired.as_slice()), ([0, 0, 0, 0], [0].as_slice()));
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn nothing_moves_between_pools_that_have_equally_many() {
    let mut bench = Bench::new(4);
    let pools = [bench.pool(settings(4)), bench.pool(settings(4))];
    let mut leases = [pools[0].leases(2).await, pools[1].leases(2).await];
    let mut waits: Vec<VecDeque<TestWait>> =
        pools.iter().map(|pool| (0..100).map(|_| pool.wait(here())).collect()).collect();
    for round in 0..160 {
        let pool = round % 2;
        leases[pool].remove(0).give_back();
        bench.settle().await;
        let mut wait = waits[pool].pop_front().unwrap();
        leases[pool].push(got(&mut wait));
        bench.check();
    }
    assert_eq!(bench.state().opened, 4);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_gives_way_does_not_take_the_room_back_itself() {
    let mut bench = Bench::new(1);
    let (one, two) = (bench.pool(settings(1)), bench.pool(settings(1)));
    one.delay(ms(5));
    two.delay(ms(5));
    let lease = one.lease().await;
    let mut own = one.wait(here());
    let mut other = two.wait(here());
    lease.give_back();
    bench.settle().await;
    got(&mut own).give_back();
    bench.pass(ms(5)).await;
    got(&mut other).give_back();
    bench.check();
    assert_eq!(bench.state().opened, 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_connection_of_a_pool_goes_to_those_that_have_waited_longer() {
    let mut bench = Bench::new(1);
    let (one, two) = (bench.pool(settings(1)), bench.pool(settings(1)));
    let lease = one.lease().await;
    let mut other = two.wait(here());
    let mut own = one.wait(here());
    lease.give_back();
    bench.settle().await;
    assert!(peek(&mut own).is_none());
    got(&mut other).give_back();
    bench.settle().await;
    got(&mut own);
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn room_that_becomes_free_at_once_is_shared_out() {
    let mut bench = Bench::new(4);
    let (one, two, three) = (bench.pool(settings(4)), bench.pool(settings(4)), bench.loose_pool(settings(4)));
    three.delay(ms(10));
    let gone: Vec<TestWait> = (0..4).map(|_| three.wait(here())).collect();
    let _waits: Vec<TestWait> = [&one, &one, &one, &two, &two, &two].iter().map(|pool| pool.wait(here())).collect();
    drop(gone);
    drop(three);
    bench.pass(ms(10)).await;
    assert_eq!((one.counts().lent, two.counts().lent), (2, 2));
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn dropped_leases_make_room_for_the_pool_that_has_fewest() {
    let mut bench = Bench::new(2);
    let (one, two) = (bench.pool(settings(2)), bench.pool(settings(2)));
    let mut leases = one.leases(2).await;
    let _own = [one.wait(here()), one.wait(here())];
    let mut other = two.wait(here());
    drop(leases.pop());
    bench.settle().await;
    got(&mut other);
    assert_eq!(bench.state().retired, [0_usize; 0], "no connection was opened in vain");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_was_served_by_its_own_takes_nothing_from_others() {
    let mut bench = Bench::new(2);
    let (one, two) = (bench.pool(settings(2)), bench.pool(settings(2)));
    let (first, second) = (one.lease().await, two.lease().await);
    let mut wait = two.wait(here());
    second.give_back();
    let again = got(&mut wait);
    first.give_back();
    bench.settle().await;
    bench.check();
    assert_eq!((one.has(), two.has()), ([0, 1, 0, 0], [1, 0, 0, 0]));
    again.give_back();
}

#[tokio::test(start_paused = true)]
async fn what_was_opened_serves_one_before_it_gives_way() {
    let mut bench = Bench::new(2);
    let (one, two) = (bench.pool(settings(2)), bench.pool(settings(1)));
    one.delay(ms(5));
    let (mut first, mut second) = (one.wait(here()), one.wait(here()));
    let mut other = two.wait(here());
    bench.pass(ms(5)).await;
    let served = [got(&mut first), got(&mut second)];
    assert!(peek(&mut other).is_none());
    served.into_iter().for_each(Lease::give_back);
    bench.settle().await;
    got(&mut other);
    bench.check();
}

/// Clients of several pools that take a connection, hold it, and give it back or break it, without end.
#[derive(Debug, Clone)]
struct Load {
    budget: usize,
    /// For each pool its size and its clients: how long each holds, in ms, and whether it breaks what it held.
    pools: Vec<(usize, Vec<(u64, bool)>)>,
    open: u64,
}

fn load() -> impl Strategy<Value = Load> {
    let client = (0_u64..=5, prop::bool::weighted(0.2));
    let pool = (1_usize..=4, prop::collection::vec(client, 1..=6));
    (1_usize..=4, prop::collection::vec(pool, 1..=5), 0_u64..=10).prop_map(|(budget, pools, open)| Load {
        budget,
        pools,
        open,
    })
}

/// Since when a client has waited, and its longest wait.
type Waits = Arc<Mutex<Vec<(Instant, Duration)>>>;

async fn load_client(pool: TestPool, waits: Waits, index: usize, hold: Duration, breaks: bool) {
    loop {
        let start = Instant::now();
        waits.lock().unwrap()[index].0 = start;
        let lease = pool.checkout(here()).await.unwrap();
        {
            let wait = &mut waits.lock().unwrap()[index];
            wait.1 = wait.1.max(start.elapsed());
        }
        sleep(hold).await;
        if breaks { drop(lease) } else { lease.give_back() }
    }
}

/// Runs a load for three seconds and ends it. The longest wait of any client comes out, those included that wait still.
async fn run(load: &Load) -> (Bench, Duration) {
    let mut bench = Bench::new(load.budget);
    let waits = Waits::default();
    let mut tasks = Vec::new();
    for (size, clients) in &load.pools {
        let pool = bench.pool(settings(*size));
        pool.delay(ms(load.open));
        for &(hold, breaks) in clients {
            waits.lock().unwrap().push((Instant::now(), Duration::ZERO));
            let client = load_client(pool.clone(), waits.clone(), tasks.len(), ms(hold.max(1)), breaks);
            tasks.push(tokio::spawn(client));
        }
    }
    for _ in 0..3 {
        sleep(ms(1_000)).await;
        bench.node.keep();
    }
    bench.settle().await;
    bench.check();
    let waiting = waits.lock().unwrap().clone();
    // One that holds a connection has waited for less than it seems, by no more than it holds it for.
    let longest = waiting.iter().map(|(since, longest)| (*longest).max(since.elapsed())).max();
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    bench.settle().await;
    bench.pass(ms(load.open)).await;
    bench.check();
    assert_eq!(bench.node.lent(), 0);
    (bench, longest.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn busy_pools_do_not_take_connections_from_each_other_in_turns() {
    let pool = |clients: usize| (20, vec![(1, false); clients]);
    for (budget, clients) in [(2, vec![1, 2]), (4, vec![2, 3, 1]), (20, vec![10, 30])] {
        let load = Load { budget, pools: clients.into_iter().map(pool).collect(), open: 10 };
        let count = run(&load).await.0.state().opened;
        assert!(count <= budget + 20, "{count} connections were opened for {load:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everybody_is_served_in_bounded_time(load in load()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (_, longest) = runtime.block_on(run(&load));
        // As if all clients shared one connection, and each needed a new one.
        let clients: u64 = load.pools.iter().map(|(_, clients)| clients.len() as u64).sum();
        let bound = ms((clients + 1) * (load.open + 7));
        prop_assert!(longest <= bound, "{longest:?} > {bound:?}");
    }
}
