//! What the clients of one thread share: the exchanges that only busy clients hold, and the verdicts on statements.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::ThreadId,
};

use super::exchange::Exchange;
use crate::{
    session::Judge,
    sql::{Cache, Verdict},
};

/// Exchanges kept for the next busy client; more are freed.
const EXCHANGES_KEPT: usize = 128;

/// Bounds of the cache of verdicts.
const VERDICTS_MAX: usize = 10_000;
const VERDICT_BYTES_MAX: usize = 16 << 20;

/// Boxed, since a client takes its exchange along from here and back.
#[allow(clippy::vec_box)]
type Stock = Vec<Box<Exchange>>;

/// One thread's stock. Its locks are only ever taken by that thread.
#[derive(Debug)]
pub struct Worker {
    pub id: ThreadId,
    exchanges: Mutex<Stock>,
    verdicts: Mutex<Cache>,
}

impl Worker {
    /// For the calling thread. `seed` keeps others from making statements collide in the cache.
    pub fn new(seed: u64) -> Worker {
        Worker {
            id: std::thread::current().id(),
            exchanges: Mutex::default(),
            verdicts: Mutex::new(Cache::new_seeded(VERDICTS_MAX, VERDICT_BYTES_MAX, seed)),
        }
    }

    /// An exchange for a client that becomes busy.
    pub fn exchange(&self) -> Box<Exchange> {
        let kept = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_default()
    }

    /// Takes back an exchange that has been [`Exchange::end`]ed.
    pub fn put_back(&self, exchange: Box<Exchange>) {
        let mut exchanges = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        if exchanges.len() < EXCHANGES_KEPT {
            exchanges.push(exchange);
        }
    }
}

impl Judge for Worker {
    fn verdict(&self, sql: &[u8]) -> Arc<Verdict> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).verdict(sql)
    }
}
