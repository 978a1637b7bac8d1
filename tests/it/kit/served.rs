//! Poolhouse within the process of the test: with its threads at hand, and its figures.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use poolhouse::testing::{
    Bound, Frontend, LeaveOrder, Listen, MoveOrder, Overrides, Scope, Settings, Worker, Workers, accept, assemble,
    bind, from_upstream, serve,
};
use tokio::runtime::{Builder, Runtime};

use super::{LabCluster, PATIENCE, RawClient, wait_until};

/// What `app` makes of settings, but for the signals and for who decides about moves.
pub struct Served {
    pub workers: Workers,
    pub frontend: Arc<Frontend>,
    clients: Scope,
    others: Scope,
    pub port: u16,
    threads: Vec<JoinHandle<()>>,
    orders: u32,
}

impl Served {
    /// With so many threads, in front of the primary, and with settings that are changed like this.
    pub fn start(cluster: &LabCluster, threads: usize, change: impl FnOnce(&mut Settings)) -> Served {
        let count = threads;
        let upstream = format!("postgres://app:secret@127.0.0.1:{}/postgres", cluster.node(0).port());
        let mut settings = from_upstream(&upstream, "the test", &Overrides::default()).unwrap().settings;
        change(&mut settings);
        let (clients, others) = (Scope::new(), Scope::new());
        let (workers, arrivals) = Workers::new(count, clients.clone());
        let mut runtimes: Vec<Runtime> =
            (0..count).map(|_| Builder::new_current_thread().enable_all().build().unwrap()).collect();
        let first = runtimes[0].enter();
        let (_, frontend) = assemble(&settings, tokio::sync::mpsc::unbounded_channel().0, &others).unwrap();
        let bound = bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let Bound::Tcp(socket) = &bound else { panic!("not TCP") };
        let port = socket.local_addr().unwrap().port();
        let (listener, accepting, scope) = (bound.open().unwrap(), workers.clone(), others.clone());
        let at = frontend.clone();
        others.spawn("accept", async move { accept(listener, None, accepting, at, scope).await });
        drop(first);
        let mut threads = Vec::new();
        for (runtime, arrivals) in runtimes.drain(..).zip(arrivals) {
            let (workers, frontend, clients) = (workers.clone(), frontend.clone(), clients.clone());
            threads.push(thread::spawn(move || {
                let worker = Arc::new(Worker::new(arrivals.post.clone(), 7, clients, frontend.watch.clone()));
                runtime.block_on(serve(arrivals, frontend, worker, workers));
            }));
        }
        Served { workers, frontend, clients, others, port, threads, orders: 0 }
    }

    pub fn login(&self) -> RawClient {
        RawClient::login(self.port, "postgres", "app", "secret")
    }

    /// From now on clients that become active on these threads go where it says, a share of them in thousandths.
    pub fn order(&mut self, moves: &[(usize, usize, u32)]) {
        let orders: Vec<MoveOrder> = moves.iter().map(|&(from, to, share)| MoveOrder { from, to, share }).collect();
        self.orders += 1;
        self.workers.put_orders(&orders, self.orders);
    }

    /// As at the end of Poolhouse. Fails the test when a client is waited for in vain.
    pub fn drain(self) {
        self.others.stop();
        self.clients.stop();
        self.frontend.registry.order_all(LeaveOrder::Drain);
        for thread in self.threads {
            wait_until("the threads end with their clients", PATIENCE, || thread.is_finished());
            thread.join().unwrap();
        }
        assert_eq!(self.frontend.registry.connected(), 0);
        assert!(self.workers.clients().iter().all(|clients| *clients == 0));
    }
}
