//! Connections beyond the size, while sessions keep all that there are.

use super::*;

fn with_reserve(size: usize, reserve_size: usize) -> Settings {
    Settings { reserve_size, reserve_timeout: ms(100), ..settings(size) }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_pinned_sessions_gets_one_of_the_reserve() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(with_reserve(2, 1));
    let mut kept = pool.leases(2).await;
    let mut wait = pool.wait(here());
    bench.pass(ms(1_000)).await;
    assert!(peek(&mut wait).is_none(), "both may come back");
    // The other one may wait for what this one holds.
    kept[0].set_pinned(true);
    bench.pass(ms(10)).await;
    let lent = got(&mut wait);
    let (mut second, mut third) = (pool.wait(here()), pool.wait(here()));
    bench.pass(ms(1_000)).await;
    assert!(peek(&mut second).is_none(), "the reserve is used up");
    lent.give_back();
    got(&mut second).give_back();
    got(&mut third).give_back();
    assert_eq!(pool.has(), [2, 0, 0, 0], "nobody waits: it is closed");
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_moves_does_not_grow() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(with_reserve(2, 1));
    let mut kept = pool.leases(2).await;
    kept[0].set_pinned(true);
    let mut lent = kept.pop().unwrap();
    let mut waits: Vec<TestWait> = (0..20).map(|_| pool.wait(here())).collect();
    for wait in &mut waits {
        bench.pass(ms(90)).await;
        lent.give_back();
        lent = got(wait);
        assert_eq!(pool.counts().lent, 2);
    }
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_one_of_the_reserve_before_the_time() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(with_reserve(1, 5));
    let mut kept = pool.lease().await;
    kept.set_pinned(true);
    let mut wait = pool.wait(here());
    bench.pass(ms(90)).await;
    assert_eq!(pool.has(), [1, 0, 0, 1]);
    bench.pass(ms(20)).await;
    got(&mut wait).give_back();
    kept.set_pinned(false);
    let mut wait = pool.wait(here());
    bench.pass(ms(5_000)).await;
    assert_eq!(pool.has(), [1, 0, 0, 1], "it comes back by itself");
    kept.give_back();
    got(&mut wait).give_back();
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn the_reserve_is_bounded_and_keeps_the_budget_of_the_node() {
    let mut bench = Bench::new(4);
    let pool = bench.pool(with_reserve(1, 2));
    let mut kept = vec![pool.lease().await];
    kept[0].set_pinned(true);
    for expected in [2, 3] {
        let mut wait = pool.wait(here());
        bench.pass(ms(110)).await;
        let mut lease = got(&mut wait);
        lease.set_pinned(true);
        kept.push(lease);
        assert_eq!(pool.has(), [expected, 0, 0, 0]);
    }
    let mut wait = pool.wait(here());
    bench.pass(ms(5_000)).await;
    assert!(peek(&mut wait).is_none());
    drop(kept.pop());
    bench.pass(ms(110)).await;
    kept.push(got(&mut wait));
    let other = bench.pool(with_reserve(1, 2));
    let mut last = other.lease().await;
    last.set_pinned(true);
    let mut wait = other.wait(here());
    bench.pass(ms(5_000)).await;
    assert!(peek(&mut wait).is_none(), "the node has no more");
    bench.check();
}
