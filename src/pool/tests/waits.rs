//! Waits that end without a connection: time limits and clients that leave.

use super::*;

fn limited(size: usize, milliseconds: u64) -> Settings {
    Settings { checkout_timeout: Some(ms(milliseconds)), ..settings(size) }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_after_the_checkout_timeout() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(limited(1, 500));
    let lease = pool.lease().await;
    let start = Instant::now();
    assert_eq!(pool.checkout(here()).await.unwrap_err(), CheckoutError::Timeout);
    let waited = start.elapsed();
    assert!(waited >= ms(500) && waited <= ms(502), "{waited:?}");
    bench.check();
    lease.give_back();
    assert_eq!(pool.has(), [0, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn every_wait_has_its_own_end() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(limited(1, 500));
    let _lease = pool.lease().await;
    let mut waits = Vec::new();
    for _ in 0..5 {
        waits.push(pool.wait(here()));
        bench.pass(ms(100)).await;
    }
    for (ended, wait) in waits.iter_mut().enumerate() {
        bench.pass(ms(2)).await;
        assert_eq!(pool.counts().waiting, 4 - ended);
        assert!(matches!(peek(wait), Some(Err(CheckoutError::Timeout))));
        bench.pass(ms(98)).await;
    }
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_shorter_limit_of_another_pool_is_kept_while_a_longer_one_runs() {
    let mut bench = Bench::new(2);
    let (patient, hasty) = (bench.pool(limited(1, 30_000)), bench.pool(limited(1, 1_000)));
    let _leases = (patient.lease().await, hasty.lease().await);
    let mut long = patient.wait(here());
    bench.pass(ms(100)).await;
    let start = Instant::now();
    assert_eq!(hasty.checkout(here()).await.unwrap_err(), CheckoutError::Timeout);
    assert!(start.elapsed() <= ms(1_002), "{:?}", start.elapsed());
    assert!(peek(&mut long).is_none());
    bench.pass(ms(28_902)).await;
    assert!(matches!(peek(&mut long), Some(Err(CheckoutError::Timeout))));
}

#[tokio::test(start_paused = true)]
async fn limits_are_kept_again_after_nobody_has_waited() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(limited(1, 200));
    let lease = pool.lease().await;
    for _ in 0..3 {
        assert!(pool.checkout(here()).await.is_err());
        bench.pass(ms(1_000)).await;
    }
    drop(lease);
    bench.settle().await;
    assert_eq!(bench.node.scope.len(), 0, "nothing runs while nobody waits");
}

#[test]
fn limits_are_kept_after_the_thread_that_kept_them_is_gone() {
    let paused = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut bench = Bench::new(1);
    let pool = bench.pool(limited(1, 500));
    let (first, second) = (paused(), paused());
    let lease = second.block_on(pool.lease());
    let mut waits = Vec::new();
    first.block_on(async { waits.push(pool.wait(here())) });
    drop(first);
    second.block_on(async {
        bench.node.keep();
        bench.pass(ms(600)).await;
        waits.push(pool.wait(here()));
        bench.pass(ms(600)).await;
        assert!(waits.iter_mut().all(|wait| matches!(peek(wait), Some(Err(CheckoutError::Timeout)))));
        lease.give_back();
    });
}

#[tokio::test(start_paused = true)]
async fn a_timeout_does_not_stop_the_opening_that_it_waited_for() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(limited(1, 100));
    pool.delay(ms(300));
    assert!(pool.checkout(here()).await.is_err());
    bench.pass(ms(300)).await;
    bench.check();
    assert_eq!(pool.has(), [0, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_waits_have_ended_takes_no_connection_from_others() {
    let mut bench = Bench::new(2);
    let (busy, gone) = (bench.pool(settings(2)), bench.pool(limited(2, 100)));
    let leases = busy.leases(2).await;
    assert!(gone.checkout(here()).await.is_err());
    leases.into_iter().for_each(Lease::give_back);
    bench.settle().await;
    bench.check();
    assert_eq!((busy.has(), bench.state().retired.len()), ([0, 2, 0, 0], 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_leaves_before_delivery_is_passed_over() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(settings(1));
    let lease = pool.lease().await;
    let (mut first, second, mut third) = (pool.wait(here()), pool.wait(here()), pool.wait(here()));
    drop(second);
    assert_eq!(pool.counts().waiting, 2);
    lease.give_back();
    got(&mut first).give_back();
    got(&mut third).give_back();
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn what_comes_too_late_goes_to_the_next() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(settings(1));
    let lease = pool.lease().await;
    let (first, second, mut third) = (pool.wait(here()), pool.wait(here()), pool.wait(here()));
    lease.give_back();
    drop(first);
    drop(second);
    assert_eq!(pool.has(), [1, 0, 0, 0], "delivered to the third");
    assert_eq!(got(&mut third).number, 0);
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn what_comes_too_late_idles_when_nobody_waits() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(settings(1));
    let lease = pool.lease().await;
    let wait = pool.wait(here());
    lease.give_back();
    drop(wait);
    bench.check();
    assert_eq!(pool.has(), [0, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn one_that_has_its_connection_and_then_goes_loses_nothing() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(settings(1));
    let lease = pool.lease().await;
    let mut wait = pool.wait(here());
    lease.give_back();
    let lease = got(&mut wait);
    drop(wait);
    bench.check();
    lease.give_back();
    assert_eq!(pool.has(), [0, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn one_that_leaves_while_its_connection_is_opened_leaves_it_to_the_next() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(settings(1));
    pool.delay(ms(10));
    let (first, mut second) = (pool.wait(here()), pool.wait(here()));
    bench.pass(ms(5)).await;
    drop(first);
    bench.pass(ms(5)).await;
    assert_eq!(got(&mut second).number, 0);
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_is_woken() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(settings(1));
    let lease = pool.lease().await;
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.checkout(here()).await })
        })
        .collect();
    bench.settle().await;
    tasks[0].abort();
    bench.settle().await;
    lease.give_back();
    // Aborted between delivery and its next turn.
    tasks[1].abort();
    bench.settle().await;
    bench.check();
    assert_eq!(pool.has(), [1, 0, 0, 0]);
    let last = tasks.into_iter().last().unwrap();
    assert_eq!(last.await.unwrap().unwrap().number, 0);
}
