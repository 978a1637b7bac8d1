//! Taking clients in: each goes to the thread that has fewest, and stays there.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, time::sleep};

use super::{
    Frontend, Worker,
    login::{self, Served},
};
use crate::{
    net::{Listener, listener::Accepted},
    tasks::Scope,
};

/// Pause after an accept that failed for want of a resource, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The threads that serve clients, as the accepting one sees them.
#[derive(Debug, Clone)]
pub struct Workers {
    workers: Arc<Vec<Intake>>,
}

#[derive(Debug)]
struct Intake {
    clients: mpsc::UnboundedSender<Accepted>,
    count: Arc<AtomicUsize>,
}

/// What a thread takes its clients from.
#[derive(Debug)]
pub struct Arrivals {
    clients: mpsc::UnboundedReceiver<Accepted>,
    count: Arc<AtomicUsize>,
}

impl Workers {
    /// For `count` threads; each gets one of the arrivals.
    pub fn new(count: usize) -> (Workers, Vec<Arrivals>) {
        let pair = || {
            let (sender, receiver) = mpsc::unbounded_channel();
            let count = Arc::new(AtomicUsize::new(0));
            (Intake { clients: sender, count: count.clone() }, Arrivals { clients: receiver, count })
        };
        let (intakes, arrivals) = (0..count).map(|_| pair()).unzip();
        (Workers { workers: Arc::new(intakes) }, arrivals)
    }

    /// Hands a client to the thread with fewest.
    fn hand_over(&self, client: Accepted) {
        let fewest = self.workers.iter().min_by_key(|intake| intake.count.load(Ordering::Relaxed));
        if let Some(intake) = fewest {
            intake.count.fetch_add(1, Ordering::Relaxed);
            // A thread that has ended takes nobody in any more: the client sees its socket closed.
            let _ = intake.clients.send(client);
        }
    }
}

/// Accepts clients until the scope is asked to stop.
pub async fn accept(listener: Listener, workers: Workers, scope: Scope) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = scope.stopping() => return,
        };
        match accepted {
            Ok(client) => workers.hand_over(client),
            Err(error) if is_of_one_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept clients; raise the limit of open files (ulimit -n) if that is it");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors that mean only that the client has gone again.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Serves the clients that are handed to the calling thread, until there can be no more.
pub async fn serve(mut arrivals: Arrivals, frontend: Arc<Frontend>, worker: Arc<Worker>, clients: Scope) {
    while let Some(accepted) = arrivals.clients.recv().await {
        let leaving = Leaving { count: arrivals.count.clone() };
        let (frontend, worker, scope) = (frontend.clone(), worker.clone(), clients.clone());
        clients.spawn("client", async move {
            let _leaving = leaving;
            match accepted.open() {
                Ok(stream) => {
                    // The login holds much that the client's later life does not need.
                    let served = Box::pin(login::log_in(stream, frontend, worker, scope)).await;
                    match served {
                        Some(Served::Client(client)) => client.run().await,
                        Some(Served::Relay(relay)) => Box::pin(relay.run()).await,
                        None => {}
                    }
                }
                Err(error) => tracing::debug!(%error, "a client had gone before it was served"),
            }
        });
    }
}

/// Counts a client out of its thread.
struct Leaving {
    count: Arc<AtomicUsize>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
