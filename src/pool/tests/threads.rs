//! Clients on several threads, in real time: what only a race can show.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::{Builder, Runtime};

use super::*;

const ROUNDS: usize = 300;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// Takes and gives back connections of all pools; some are broken, and some waits are given up after a few turns.
async fn client(pools: Vec<TestPool>, seed: usize) {
    let own = thread::current().id();
    for round in 0..ROUNDS {
        let pool = &pools[(seed + round) % pools.len()];
        let lease = match (seed * 31 + round * 7) % 5 {
            0 => {
                let mut wait = pool.wait(own);
                for _ in 0..round % 4 {
                    yield_now().await;
                }
                peek(&mut wait)
            }
            _ => Some(pool.checkout(own).await),
        };
        let Some(lease) = lease else { continue };
        let lease = lease.expect("nothing fails here");
        assert!(look(&lease.world).used.insert(lease.number), "lent twice");
        yield_now().await;
        look(&lease.world).used.remove(&lease.number);
        if (seed + round).is_multiple_of(11) { drop(lease) } else { lease.give_back() }
    }
}

/// A thread with a few clients. When they are done, its event loop ends, whatever it is opening for others.
fn worker(pools: &[TestPool], number: usize) -> thread::JoinHandle<()> {
    let pools = pools.to_vec();
    thread::spawn(move || {
        runtime().block_on(async {
            let clients: Vec<_> = (0..4).map(|index| tokio::spawn(client(pools.clone(), number * 4 + index))).collect();
            for client in clients {
                client.await.unwrap();
            }
        });
    })
}

#[test]
fn nothing_is_lost_between_threads() {
    let mut bench = Bench::new(3);
    let pools: Vec<TestPool> = (0..3).map(|size| bench.pool(settings(size + 1))).collect();
    let done = Arc::new(AtomicBool::new(false));
    let keeper = thread::spawn({
        let (node, done) = (bench.node.clone(), done.clone());
        move || {
            runtime().block_on(async {
                while !done.load(Ordering::Relaxed) {
                    node.keep();
                    sleep(ms(2)).await;
                }
            });
        }
    });
    let workers: Vec<_> = (0..3).map(|number| worker(&pools, number)).collect();
    let ended: Vec<bool> = workers.into_iter().map(|worker| worker.join().is_ok()).collect();
    done.store(true, Ordering::Relaxed);
    keeper.join().unwrap();
    assert_eq!(ended, [true; 3]);
    bench.check();
    assert_eq!(bench.node.lent(), 0);
    assert!(pools.iter().all(|pool| pool.counts().waiting == 0 && pool.counts().opening == 0));
}
