//! Connections that cannot be opened, or whose opening is given up.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[track_caller]
fn failure(wait: &mut TestWait) -> u32 {
    match peek(wait) {
        Some(Err(CheckoutError::Open(error))) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_error_reaches_everyone_who_waits() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(2));
    let held = pool.lease().await;
    pool.delay(ms(10));
    pool.next(&[Step::Fail(8)]);
    let mut waits = [pool.wait(here()), pool.wait(here()), pool.wait(here())];
    bench.pass(ms(10)).await;
    assert!(waits.iter_mut().all(|wait| failure(wait) == 8));
    assert!(pool.is_troubled());
    bench.check();
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_a_refusal_hears_of_a_later_try_shared_by_all() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(5));
    pool.next(&[Step::Fail(LASTING), Step::Fail(LASTING)]);
    let mut first = pool.wait(here());
    bench.settle().await;
    assert_eq!(failure(&mut first), LASTING);
    let attempts = pool.attempts();
    let mut waits: Vec<TestWait> = (0..1000).map(|_| pool.wait(here())).collect();
    bench.pass(ms(90)).await;
    assert!(waits.iter_mut().all(|wait| peek(wait).is_none()), "nobody is told what may not be so any more");
    assert_eq!(pool.attempts(), attempts);
    bench.pass(ms(20)).await;
    assert!(waits.iter_mut().all(|wait| failure(wait) == LASTING));
    assert_eq!(pool.attempts(), attempts + 1);
    // It has been mended.
    let mut again = pool.wait(here());
    bench.pass(ms(110)).await;
    got(&mut again).give_back();
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn one_impatient_client_after_the_other_makes_ten_tries_a_second() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(5));
    pool.next(&[Step::Fail(LASTING); 100]);
    let mut wait = pool.wait(here());
    for _ in 0..500 {
        bench.pass(ms(10)).await;
        if peek(&mut wait).is_some() {
            wait = pool.wait(here());
        }
    }
    assert!((40..=51).contains(&pool.attempts()), "{}", pool.attempts());
}

#[tokio::test(start_paused = true)]
async fn a_try_that_finds_no_room_is_not_made_in_a_loop() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(settings(1));
    pool.next(&[Step::Fail(LASTING)]);
    let mut first = pool.wait(here());
    bench.settle().await;
    assert_eq!(failure(&mut first), LASTING);
    let other = bench.pool(settings(1));
    let lease = other.lease().await;
    let mut wait = pool.wait(here());
    bench.pass(ms(1_000)).await;
    assert!(peek(&mut wait).is_none(), "it waits for the room");
    lease.give_back();
    bench.pass(ms(200)).await;
    got(&mut wait).give_back();
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn those_who_come_later_share_one_try_and_all_are_served_once_it_succeeds() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(5));
    pool.next(&[Step::Fail(LASTING)]);
    let mut first = pool.wait(here());
    bench.settle().await;
    assert_eq!(failure(&mut first), LASTING);
    pool.delay(ms(10));
    bench.pass(ms(1_000)).await;
    let mut waits: Vec<TestWait> = (0..5).map(|_| pool.wait(here())).collect();
    assert_eq!(pool.has(), [0, 0, 1, 5]);
    bench.pass(ms(10)).await;
    assert!(!pool.is_troubled());
    bench.pass(ms(10)).await;
    let leases: Vec<TestLease> = waits.iter_mut().map(got).collect();
    assert_eq!(leases.len(), 5);
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_pool_finds_out_by_itself_that_it_is_let_in_again() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(5));
    pool.next(&[Step::Fail(LASTING); 6]);
    let mut first = pool.wait(here());
    bench.settle().await;
    assert_eq!(failure(&mut first), LASTING);
    let before = pool.attempts();
    let mut seconds = 0;
    while pool.is_troubled() {
        bench.pass_and_keep(ms(1_000)).await;
        seconds += 1;
        assert!(seconds < 60, "never tried again");
    }
    assert_eq!(pool.attempts() - before, 6, "five more failures, and one success");
    assert!(seconds >= 10, "it backs off: {seconds}");
    assert_eq!(pool.has(), [0, 1, 0, 0]);
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn while_something_is_lent_it_is_waited_for() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(5));
    let lease = pool.lease().await;
    pool.next(&[Step::Fail(LASTING); 3]);
    let mut told = pool.wait(here());
    bench.settle().await;
    assert_eq!(failure(&mut told), LASTING, "it may look elsewhere");
    let mut wait = pool.wait(here());
    bench.pass_and_keep(ms(1_000)).await;
    bench.pass_and_keep(ms(1_000)).await;
    assert!(peek(&mut wait).is_none(), "another failure tells nothing new");
    lease.give_back();
    got(&mut wait);
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_hangs_sends_others_away_once() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(5));
    pool.next(&[Step::Hang]);
    let mut wait = pool.wait(here());
    bench.pass(ms(990)).await;
    assert!(peek(&mut wait).is_none() && !pool.is_troubled());
    bench.pass(ms(20)).await;
    assert_eq!(peek(&mut wait).unwrap().unwrap_err(), CheckoutError::Slow);
    assert!(pool.is_troubled());
    let mut again = pool.wait(here());
    bench.pass_and_keep(ms(10_000)).await;
    assert!(peek(&mut again).is_none(), "nowhere else is better");
    assert_eq!(pool.has(), [0, 0, 1, 1], "one attempt is enough");
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_is_noticed_once() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(Settings { wait_notice: Some(ms(5_000)), ..settings(1) });
    let _held = pool.lease().await;
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut wait = pool.wait(here());
    assert!(Pin::new(&mut wait).poll(&mut Context::from_waker(&waker)).is_pending());
    for second in 0..20 {
        bench.pass_and_keep(ms(1_000)).await;
        let expected = usize::from(second >= 5);
        assert!(woken.0.load(Ordering::Relaxed).abs_diff(expected) <= usize::from(second == 4), "{second}");
        assert!(Pin::new(&mut wait).poll(&mut Context::from_waker(&waker)).is_pending());
    }
}

#[derive(Debug, Default)]
struct Woken(AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_passes_over_those_that_have_left() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(1));
    pool.delay(ms(10));
    pool.next(&[Step::Fail(7)]);
    let (first, mut second) = (pool.wait(here()), pool.wait(here()));
    drop(first);
    bench.pass(ms(10)).await;
    assert_eq!(failure(&mut second), 7);
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_frees_its_place_for_other_pools() {
    let mut bench = Bench::new(1);
    let (failing, other) = (bench.pool(settings(1)), bench.pool(settings(1)));
    failing.delay(ms(10));
    failing.next(&[Step::Fail(1)]);
    let mut first = failing.wait(here());
    let mut second = other.wait(here());
    bench.settle().await;
    assert_eq!(other.has(), [0, 0, 0, 1]);
    bench.pass(ms(10)).await;
    assert_eq!(failure(&mut first), 1);
    got(&mut second);
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_always_fails_does_not_starve_others() {
    let mut bench = Bench::new(1);
    let (failing, other) = (bench.pool(settings(1)), bench.pool(settings(1)));
    failing.delay(ms(10));
    failing.next(&[Step::Fail(1); 100]);
    let mut fails: Vec<TestWait> = (0..50).map(|_| failing.wait(here())).collect();
    let mut wait = other.wait(here());
    bench.pass(ms(10)).await;
    got(&mut wait);
    assert!(fails.iter_mut().all(|wait| failure(wait) == 1));
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_panic_frees_its_place_and_is_made_good_later() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(settings(1));
    pool.next(&[Step::Panic, Step::Panic]);
    let mut wait = pool.wait(here());
    bench.settle().await;
    assert_eq!(pool.has(), [0, 0, 0, 1]);
    assert_eq!(bench.node.open(), 0);
    bench.pass_and_keep(ms(1000)).await;
    assert!(peek(&mut wait).is_none());
    bench.pass_and_keep(ms(1000)).await;
    got(&mut wait);
    bench.check();
}

/// Opens on an event loop that ends before the connection is there, after `run` has let it run or not.
fn given_up_with_its_thread(run: bool) {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut bench = Bench::new(1);
    let (pool, other) = (bench.pool(settings(1)), bench.pool(settings(1)));
    pool.next(&[Step::Hang]);
    let ending = runtime();
    let (mut wait, mut later) = ending.block_on(async {
        let waits = (pool.wait(here()), other.wait(there()));
        if run {
            bench.settle().await;
        }
        waits
    });
    assert_eq!((pool.has(), other.has()), ([0, 0, 1, 1], [0, 0, 0, 1]));
    drop(ending);
    assert_eq!((pool.has(), bench.node.open()), ([0, 0, 0, 1], 0));
    pool.script.lock().unwrap().steps.clear();
    runtime().block_on(async {
        bench.node.keep();
        bench.settle().await;
        got(&mut wait).give_back();
        bench.settle().await;
        got(&mut later).give_back();
        bench.check();
    });
}

#[test]
fn an_opening_that_goes_with_its_thread_frees_its_place() {
    given_up_with_its_thread(true);
}

#[test]
fn an_opening_that_never_ran_frees_its_place() {
    given_up_with_its_thread(false);
}
