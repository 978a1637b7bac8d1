//! Connections that cannot be opened, or whose opening is given up.

use super::*;

#[track_caller]
fn failure(wait: &mut TestWait) -> u32 {
    match peek(wait) {
        Some(Err(CheckoutError::Open(error))) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_reaches_the_first_only_and_the_others_go_on() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(1));
    pool.next(&[Step::Fail(7)]);
    let (mut first, mut second, mut third) = (pool.wait(here()), pool.wait(here()), pool.wait(here()));
    bench.settle().await;
    assert_eq!(failure(&mut first), 7);
    got(&mut second).give_back();
    got(&mut third);
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn each_failed_attempt_answers_one() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(2));
    pool.next(&[1, 2, 3, 4, 5].map(Step::Fail));
    let mut waits: Vec<TestWait> = (0..5).map(|_| pool.wait(here())).collect();
    bench.settle().await;
    let errors: Vec<u32> = waits.iter_mut().map(failure).collect();
    assert_eq!(errors, [1, 2, 3, 4, 5]);
    bench.check();
    assert_eq!(bench.node.open(), 0);
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
    for _ in 0..49 {
        bench.pass(ms(10)).await;
        bench.check();
    }
    assert!(peek(&mut wait).is_none(), "those that came before it come first");
    bench.pass(ms(10)).await;
    got(&mut wait);
    assert!(fails.iter_mut().all(|wait| failure(wait) == 1));
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
