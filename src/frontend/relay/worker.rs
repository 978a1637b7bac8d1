//! What the clients of one thread share: the exchanges that only busy clients hold, and the verdicts on statements.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::ThreadId,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{counting::CountedFor, exchange::Exchange};
use crate::{
    backend::{self, Canceler},
    clients::Canceling,
    frontend::{watch::Watch, workers::Post},
    metrics::Account,
    tasks::{self, Scope},
};
use poolhouse_core::sql::{self, Cache, KnownText};

/// How long a cancel request to a server may take.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);

/// Exchanges kept for the next busy client; more are freed.
const EXCHANGES_KEPT: usize = 128;

/// Bounds of the cache of verdicts.
const VERDICTS_MAX: usize = 10_000;
const VERDICT_BYTES_MAX: usize = 16 << 20;

/// Boxed, since a client takes its exchange along from here and back.
#[allow(clippy::vec_box)]
type Stock = Vec<Box<Exchange>>;

/// One thread's stock. Its locks are taken by that thread, and hardly ever by others.
#[derive(Debug)]
pub struct Worker {
    pub id: ThreadId,
    /// From 0 on.
    pub number: usize,
    pub watch: Arc<Watch>,
    /// Where the thread is told which of its clients are to move.
    pub post: Arc<Post>,
    exchanges: Mutex<Stock>,
    /// Others only look at its figures.
    verdicts: Arc<Mutex<Cache>>,
    /// Held while a long text is judged.
    judging: tokio::sync::Mutex<()>,
    /// Where cancel requests to servers run.
    cancels: Scope,
}

impl Worker {
    /// For the calling thread. `seed` keeps others from making statements collide in the cache.
    pub fn new(post: Arc<Post>, seed: u64, cancels: Scope, watch: Arc<Watch>) -> Worker {
        let verdicts = Cache::new_seeded(VERDICTS_MAX, VERDICT_BYTES_MAX, seed);
        let verdicts = Arc::new(Mutex::new(verdicts));
        watch.add_cache(verdicts.clone());
        Worker {
            id: std::thread::current().id(),
            number: post.number,
            watch,
            post,
            exchanges: Mutex::default(),
            verdicts,
            judging: tokio::sync::Mutex::default(),
            cancels,
        }
    }

    /// Where it is added up what a client of this thread has done.
    pub fn counts_for<'a>(&'a self, account: &'a Arc<Account>) -> CountedFor<'a> {
        CountedFor { account, watch: &self.watch, worker: self.number }
    }

    /// Asks a server for a cancel. What is returned resolves when nothing can be hit by it any more; it goes on when
    /// that is dropped.
    pub fn cancel(&self, canceling: Canceling) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        self.cancels.spawn("cancel", async move {
            backend::cancel(&canceling.server, CANCEL_LIMIT).await;
            drop(canceling);
            // Nobody has to wait for it.
            let _ = done.send(());
        });
        receiver
    }

    /// Asks a server that is not to be used any more to stop what it does on one connection, which nobody holds on to.
    pub fn cancel_apart(&self, canceler: Arc<Canceler>) {
        self.cancels.spawn("cancel", async move { backend::cancel(&canceler, CANCEL_LIMIT).await });
    }

    /// What a text of SQL does, and whether it had to be parsed for that.
    pub fn verdict(&self, sql: &[u8]) -> (Arc<KnownText>, bool) {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = verdicts.misses();
        let verdict = verdicts.verdict(sql);
        (verdict, verdicts.misses() != before)
    }

    /// The same, when it is known without a look at the grammar.
    pub fn known_verdict(&self, sql: &[u8]) -> Option<Arc<KnownText>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).find(sql)
    }

    /// What a long text does: found out on another thread, one text at a time.
    pub async fn judge_apart(&self, sql: Arc<[u8]>) -> Arc<KnownText> {
        let _turn = self.judging.lock().await;
        let text = sql.clone();
        let judged = tasks::compute(move || sql::judge_apart(&text)).await;
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        match judged {
            Some(judged) => verdicts.take(&sql, judged),
            None => verdicts.verdict(&sql),
        }
    }

    /// An exchange for a client that becomes busy.
    pub fn exchange(&self) -> Box<Exchange> {
        let kept = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_default()
    }

    /// Takes back an exchange that has ended (`Exchange::end`).
    pub fn put_back(&self, exchange: Box<Exchange>) {
        let mut exchanges = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        if exchanges.len() < EXCHANGES_KEPT {
            exchanges.push(exchange);
        }
    }
}
