//! Who gets which connection.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_connection_used_last_is_lent_first() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(10));
    let mut leases = pool.leases(3).await;
    let middle = leases.remove(1);
    leases.into_iter().for_each(Lease::give_back);
    middle.give_back();
    for expected in [1, 1, 1] {
        let lease = pool.try_checkout(here()).unwrap();
        assert_eq!(lease.number, expected);
        lease.give_back();
    }
    bench.check();
    assert_eq!(pool.has(), [0, 3, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_the_callers_thread_is_preferred() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(10));
    pool.next(&[Step::OpenOn(there()), Step::OpenOn(there()), Step::Open, Step::Open]);
    pool.warm(4).await;
    assert_eq!(pool.try_checkout(there()).unwrap().number, 1);
    assert_eq!(pool.try_checkout(THREADS[2]).unwrap().number, 3, "else the one used last");
    bench.settle().await;
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_lease_gives_access_to_its_connection() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(settings(1));
    let mut lease = pool.lease().await;
    lease.home = there();
    lease.give_back();
    assert_eq!(pool.try_checkout(there()).unwrap().home, there());
}

#[tokio::test(start_paused = true)]
async fn who_asks_and_finds_nothing_idle_waits() {
    let mut bench = Bench::new(1);
    let pool = bench.pool(settings(1));
    let Checkout::Queued(mut wait) = pool.ask(here()) else { panic!("nothing is there") };
    bench.settle().await;
    let lease = got(&mut wait);
    let Checkout::Queued(mut wait) = pool.ask(here()) else { panic!("it is lent") };
    lease.give_back();
    assert!(pool.try_checkout(here()).is_none(), "it is another's");
    got(&mut wait).give_back();
    assert!(matches!(pool.ask(here()), Checkout::There(_)));
}

#[tokio::test(start_paused = true)]
async fn the_first_to_come_is_the_first_served() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(1));
    let mut lease = pool.lease().await;
    let mut waits: Vec<TestWait> = (0..20).map(|_| pool.wait(here())).collect();
    for served in 0..waits.len() {
        lease.give_back();
        lease = got(&mut waits[served]);
        assert!(waits[served + 1..].iter_mut().all(|wait| peek(wait).is_none()));
        bench.check();
    }
    assert_eq!(bench.state().opened, 1);
}

#[tokio::test(start_paused = true)]
async fn threads_do_not_matter_once_the_first_has_waited_long() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(1));
    let lease = pool.lease().await;
    let (mut first, mut second) = (pool.wait(there()), pool.wait(here()));
    bench.pass(ms(6)).await;
    lease.give_back();
    assert!(peek(&mut second).is_none());
    got(&mut first).give_back();
    got(&mut second);
}

#[tokio::test(start_paused = true)]
async fn one_of_the_connections_thread_passes_those_that_have_waited_for_a_moment() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(1));
    let lease = pool.lease().await;
    let (mut first, mut second) = (pool.wait(there()), pool.wait(there()));
    let (mut own, mut own_later) = (pool.wait(here()), pool.wait(here()));
    bench.pass(ms(1)).await;
    lease.give_back();
    assert!(peek(&mut own_later).is_none());
    let lease = got(&mut own);
    bench.pass(ms(5)).await;
    lease.give_back();
    got(&mut first).give_back();
    got(&mut second).give_back();
    got(&mut own_later);
}

#[tokio::test(start_paused = true)]
async fn a_pool_never_exceeds_its_size() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(3));
    let mut waits: Vec<TestWait> = (0..8).map(|_| pool.wait(here())).collect();
    assert_eq!(pool.has(), [0, 0, 3, 8]);
    bench.settle().await;
    bench.check();
    assert_eq!(pool.has(), [3, 0, 0, 5]);
    let leases: Vec<TestLease> = waits.drain(..3).map(|mut wait| got(&mut wait)).collect();
    leases.into_iter().for_each(Lease::give_back);
    bench.settle().await;
    bench.check();
    assert_eq!((pool.has(), bench.state().opened), ([3, 0, 0, 2], 3));
}

#[tokio::test(start_paused = true)]
async fn pools_together_never_exceed_the_nodes_budget() {
    let mut bench = Bench::new(4);
    let pools = [bench.pool(settings(3)), bench.pool(settings(3)), bench.pool(settings(3))];
    let waits: Vec<TestWait> = (0..9).map(|number| pools[number % 3].wait(here())).collect();
    bench.settle().await;
    bench.check();
    assert_eq!((bench.node.open(), bench.node.lent()), (4, 4));
    drop(waits);
    bench.settle().await;
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_goes_to_whoever_is_first_when_it_is_there() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(2));
    let lease = pool.lease().await;
    pool.delay(ms(10));
    let mut first = pool.wait(here());
    bench.pass(ms(5)).await;
    lease.give_back();
    got(&mut first).give_back();
    bench.pass(ms(5)).await;
    bench.check();
    assert_eq!(pool.has(), [0, 2, 0, 0], "nobody waits for it any more, so it idles");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lease_closes_its_connection_and_another_is_opened_for_those_that_wait() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(1));
    let lease = pool.lease().await;
    let mut wait = pool.wait(here());
    drop(lease);
    assert_eq!(bench.state().broken, [0]);
    bench.settle().await;
    bench.check();
    assert_eq!(got(&mut wait).number, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lease_with_nobody_waiting_only_frees_its_place() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(1));
    drop(pool.lease().await);
    bench.settle().await;
    bench.check();
    assert_eq!((bench.node.open(), bench.state().opened), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_unfit_idle_connection_is_replaced_before_it_is_lent() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(3));
    pool.warm(3).await;
    bench.kill(2);
    assert_eq!(pool.lease().await.number, 1);
    assert_eq!(bench.state().retired, [2]);
    bench.kill(0);
    assert_eq!(pool.lease().await.number, 3);
    bench.settle().await;
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn a_place_in_the_queue_takes_idle_connections_too_but_no_unfit_one() {
    let mut bench = Bench::new(10);
    let pool = bench.pool(settings(2));
    pool.warm(2).await;
    bench.kill(1);
    assert_eq!(got(&mut pool.wait(here())).number, 0);
    bench.settle().await;
    bench.check();
    assert_eq!(bench.state().retired, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_dropped_closes_what_idles() {
    let mut bench = Bench::new(2);
    let loose = bench.loose_pool(settings(2));
    let lease = loose.lease().await;
    loose.warm(1).await;
    drop(loose);
    assert_eq!(bench.node.open(), 2, "a lease keeps its pool");
    lease.give_back();
    assert_eq!((bench.node.open(), bench.node.lent()), (0, 0));
    assert_eq!(bench.alive(), [0_usize; 0]);
    bench.check();
}

#[tokio::test(start_paused = true)]
async fn what_a_dropped_pool_was_opening_is_closed_and_its_place_goes_to_those_that_wait() {
    let mut bench = Bench::new(1);
    let other = bench.pool(settings(1));
    let loose = bench.loose_pool(settings(1));
    loose.delay(ms(10));
    drop(loose.wait(here()));
    let mut wait = other.wait(here());
    drop(loose);
    bench.settle().await;
    assert_eq!((bench.node.open(), other.has()), (1, [0, 0, 0, 1]), "it may be open at the server already");
    bench.pass(ms(10)).await;
    bench.check();
    assert_eq!(bench.state().retired, [0]);
    assert_eq!(got(&mut wait).number, 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_dropped_pool_failed_to_open_frees_its_place() {
    let mut bench = Bench::new(1);
    let other = bench.pool(settings(1));
    let loose = bench.loose_pool(settings(1));
    loose.delay(ms(10));
    loose.next(&[Step::Fail(1)]);
    drop(loose.wait(here()));
    let mut wait = other.wait(here());
    drop(loose);
    bench.pass(ms(10)).await;
    bench.check();
    got(&mut wait);
}
