//! How long connections live, and how many are kept.

use super::*;

#[tokio::test(start_paused = true)]
async fn min_idle_is_opened_and_kept_up() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(Settings { min_idle: 3, ..settings(5) });
    bench.node.keep();
    bench.settle().await;
    assert_eq!(pool.has(), [0, 3, 0, 0]);
    bench.kill(0);
    bench.kill(1);
    bench.pass_and_keep(ms(1000)).await;
    assert_eq!((pool.has(), bench.alive()), ([0, 3, 0, 0], vec![2, 3, 4]));
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn min_idle_exceeds_neither_size_nor_budget() {
    let mut bench = Bench::new(5);
    let small = bench.pool(Settings { min_idle: 9, ..settings(2) });
    let large = bench.pool(Settings { min_idle: 9, ..settings(9) });
    for _ in 0..3 {
        bench.pass_and_keep(ms(1000)).await;
        bench.check();
        assert_eq!((small.has(), large.has()), ([0, 2, 0, 0], [0, 3, 0, 0]));
    }
}

#[tokio::test(start_paused = true)]
async fn min_idle_is_tried_again_when_opening_fails() {
    let mut bench = Bench::new(5);
    let pool = bench.pool(Settings { min_idle: 1, ..settings(2) });
    pool.next(&[Step::Fail(1), Step::Fail(2)]);
    for expected in [0, 0, 1] {
        bench.pass_and_keep(ms(1000)).await;
        assert_eq!(pool.counts().idle, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_come_before_min_idle() {
    let mut bench = Bench::new(1);
    let kept = bench.pool(Settings { min_idle: 1, ..settings(1) });
    let other = bench.pool(settings(1));
    other.next(&[Step::Panic]);
    let mut wait = other.wait(here());
    bench.settle().await;
    assert_eq!(bench.node.open(), 0);
    bench.node.keep();
    assert_eq!((kept.has(), other.has()), ([0, 0, 0, 0], [0, 0, 1, 1]));
    bench.settle().await;
    got(&mut wait);
}

#[tokio::test(start_paused = true)]
async fn what_idles_too_long_is_closed_down_to_min_idle() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(Settings { min_idle: 1, idle_timeout: Some(ms(10_000)), ..settings(5) });
    bench.node.keep();
    bench.settle().await;
    pool.warm(3).await;
    for _ in 0..9 {
        bench.pass_and_keep(ms(1000)).await;
    }
    assert_eq!(pool.has(), [0, 3, 0, 0]);
    let used = pool.lease().await;
    used.give_back();
    bench.pass_and_keep(ms(1000)).await;
    assert_eq!((pool.has(), bench.alive()), ([0, 1, 0, 0], vec![2]), "the one in use now and then stays");
    bench.pass_and_keep(ms(60_000)).await;
    assert_eq!(pool.has(), [0, 1, 0, 0]);
    assert_eq!(bench.state().opened, 3, "none is replaced");
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn without_timeouts_idle_connections_stay() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(5));
    pool.warm(2).await;
    bench.pass_and_keep(Duration::from_secs(365 * 86_400)).await;
    assert_eq!(pool.has(), [0, 2, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn lifetimes_are_spread_by_a_tenth() {
    let mut bench = Bench::new(100);
    let pool = bench.pool(Settings { max_lifetime: Some(ms(1_000_000)), ..settings(100) });
    pool.warm(100).await;
    bench.pass_and_keep(ms(899_000)).await;
    assert_eq!(pool.counts().idle, 100);
    let mut gone = Vec::new();
    for _ in 0..20 {
        let before = pool.counts().idle;
        bench.pass_and_keep(ms(10_000)).await;
        gone.push(before - pool.counts().idle);
    }
    bench.pass_and_keep(ms(2_000)).await;
    assert_eq!(pool.counts().idle, 0);
    assert!(gone.iter().all(|&count| (3..=7).contains(&count)), "evenly: {gone:?}");
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_too_old_is_closed_when_it_comes_back() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(Settings { max_lifetime: Some(ms(10_000)), ..settings(1) });
    let lease = pool.lease().await;
    let mut wait = pool.wait(here());
    bench.pass_and_keep(ms(12_000)).await;
    assert_eq!(pool.has(), [1, 0, 0, 1]);
    lease.give_back();
    bench.settle().await;
    bench.check();
    assert_eq!(bench.state().retired, [0]);
    assert_eq!(got(&mut wait).number, 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_closes_idle_connections_now_and_lent_ones_later() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(3));
    let mut leases = pool.leases(3).await;
    leases.pop().unwrap().give_back();
    bench.node.renew();
    assert_eq!(bench.state().retired, [2]);
    assert_eq!(pool.has(), [2, 0, 0, 0]);
    leases.pop().unwrap().give_back();
    assert_eq!(bench.state().retired, [2, 1]);
    assert_eq!(pool.lease().await.number, 3);
    drop(leases);
    bench.settle().await;
    bench.check();
    assert_eq!(pool.has(), [0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_was_being_opened_before_a_renewal_is_closed_and_opened_again() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(1));
    pool.delay(ms(10));
    let mut wait = pool.wait(here());
    bench.settle().await;
    bench.node.renew();
    bench.pass(ms(10)).await;
    assert_eq!(bench.state().retired, [0]);
    bench.pass(ms(10)).await;
    assert_eq!(got(&mut wait).number, 1);
    bench.check();
}
