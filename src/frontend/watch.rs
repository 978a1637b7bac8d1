//! What is kept of statements that have run, and what is told of clients in the log.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::metrics::Queries;
use poolhouse_core::sql::Cache;

/// For all clients.
#[derive(Debug, Default)]
pub struct Watch {
    pub queries: Queries,
    /// In microseconds; 0 for never.
    slow: AtomicU64,
    /// Slow statements are told of with their values.
    verbatim: AtomicBool,
    connections: AtomicBool,
    /// In milliseconds; 0 for none.
    client_timeout: AtomicU64,
    /// One for each thread.
    caches: Mutex<Vec<Arc<Mutex<Cache>>>>,
}

/// What the caches of verdicts have done and hold, all together.
#[derive(Debug, Clone, Copy, Default)]
pub struct CacheFigures {
    pub hits: u64,
    pub misses: u64,
    pub evictions: u64,
    pub entries: usize,
    pub bytes: usize,
}

impl Watch {
    /// From how long on a statement is told of, with its wait for a server connection.
    pub fn slow(&self) -> Option<Duration> {
        Some(self.slow.load(Ordering::Relaxed)).filter(|micros| *micros > 0).map(Duration::from_micros)
    }

    /// How long what was sent to a client may go without an acknowledgement.
    pub fn client_timeout(&self) -> Option<Duration> {
        Some(self.client_timeout.load(Ordering::Relaxed)).filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    pub fn set_client_timeout(&self, limit: Option<Duration>) {
        let ms = limit.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        self.client_timeout.store(ms, Ordering::Relaxed);
    }

    /// Whether it is told with its values, as the client sent it.
    pub fn tells_values(&self) -> bool {
        self.verbatim.load(Ordering::Relaxed)
    }

    pub fn tell_values(&self, tell: bool) {
        self.verbatim.store(tell, Ordering::Relaxed);
    }

    /// Whether logins and disconnections are logged.
    pub fn tells_connections(&self) -> bool {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn tell_connections(&self, tell: bool) {
        self.connections.store(tell, Ordering::Relaxed);
    }

    /// Keeps an eye on the cache of a thread.
    pub fn add_cache(&self, cache: Arc<Mutex<Cache>>) {
        lock(&self.caches).push(cache);
    }

    /// Each thread waits for no longer than it takes to read five numbers.
    pub fn cache_figures(&self) -> CacheFigures {
        lock(&self.caches).iter().fold(CacheFigures::default(), |sum, cache| {
            let cache = lock(cache);
            CacheFigures {
                hits: sum.hits + cache.hits(),
                misses: sum.misses + cache.misses(),
                evictions: sum.evictions + cache.evictions(),
                entries: sum.entries + cache.len(),
                bytes: sum.bytes + cache.bytes(),
            }
        })
    }

    pub fn set_slow(&self, slow: Option<Duration>) {
        // What is below the unit is not nothing.
        let micros = slow.map_or(0, |slow| u64::try_from(slow.as_micros()).unwrap_or(u64::MAX).max(1));
        self.slow.store(micros, Ordering::Relaxed);
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
