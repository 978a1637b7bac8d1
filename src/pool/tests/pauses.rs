//! Pools that lend nothing for a while, and connections that are replaced.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_paused_pool_closes_what_it_has_and_lets_all_wait_without_limit() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(Settings { checkout_timeout: Some(ms(100)), min_idle: 1, ..settings(2) });
    let mut leases = pool.leases(2).await;
    leases.remove(0).give_back();
    let mut before = pool.wait(here());
    got(&mut before).give_back();
    pool.set_paused(true);
    let mut waits = [pool.wait(here()), pool.wait(here())];
    bench.pass_and_keep(ms(10_000)).await;
    assert_eq!(pool.has(), [1, 0, 0, 2], "the lent one is let go on");
    leases.remove(0).give_back();
    bench.pass_and_keep(ms(10_000)).await;
    assert_eq!(pool.has(), [0, 0, 0, 2]);
    assert!(waits.iter_mut().all(|wait| peek(wait).is_none()));
    pool.set_paused(false);
    bench.pass(ms(90)).await;
    waits.iter_mut().for_each(|wait| got(wait).give_back());
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn after_a_pause_waits_have_all_their_time() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(Settings { checkout_timeout: Some(ms(100)), ..settings(1) });
    pool.next(&[Step::Hang]);
    pool.set_paused(true);
    let mut wait = pool.wait(here());
    bench.pass(ms(10_000)).await;
    pool.set_paused(false);
    bench.pass(ms(90)).await;
    assert!(peek(&mut wait).is_none());
    bench.pass(ms(20)).await;
    assert_eq!(peek(&mut wait).unwrap().unwrap_err(), CheckoutError::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_comes_during_a_pause_is_closed() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(1));
    pool.delay(ms(50));
    let mut wait = pool.wait(here());
    bench.settle().await;
    pool.set_paused(true);
    bench.pass(ms(60)).await;
    assert_eq!((pool.has(), pool.outdated()), ([0, 0, 0, 1], 0));
    pool.set_paused(false);
    bench.pass(ms(60)).await;
    got(&mut wait).give_back();
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn what_is_outdated_is_counted_until_it_is_closed() {
    let mut bench = Bench::new(10);
    let (pool, other) = (bench.pool(settings(4)), bench.pool(settings(4)));
    other.warm(1).await;
    let mut leases = pool.leases(3).await;
    leases.pop().unwrap().give_back();
    pool.renew();
    assert_eq!((pool.has(), pool.outdated(), other.has()), ([2, 0, 0, 0], 2, [0, 1, 0, 0]));
    let fresh = pool.lease().await;
    pool.renew();
    assert_eq!(pool.outdated(), 3);
    leases.pop().unwrap().give_back();
    drop(leases.pop());
    assert_eq!(pool.outdated(), 1);
    fresh.give_back();
    assert_eq!((pool.has(), pool.outdated()), ([0, 0, 0, 0], 0));
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_pool_grows_and_shrinks_while_it_lends() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(4));
    let mut leases = pool.leases(3).await;
    leases.pop().unwrap().give_back();
    pool.set_settings(settings(1));
    assert_eq!(pool.has(), [2, 0, 0, 0], "what idles goes first");
    let mut wait = pool.wait(here());
    leases.pop().unwrap().give_back();
    assert_eq!(pool.has(), [1, 0, 0, 1], "one too many was closed");
    assert!(peek(&mut wait).is_none());
    leases.pop().unwrap().give_back();
    let lease = got(&mut wait);
    let mut waits = [pool.wait(here()), pool.wait(here())];
    pool.set_settings(settings(3));
    bench.settle().await;
    waits.iter_mut().for_each(|wait| got(wait).give_back());
    lease.give_back();
    bench.check();
    assert_eq!(pool.has(), [0, 3, 0, 0]);
}
