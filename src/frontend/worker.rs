//! What the clients of one thread share: buffers that only busy clients hold, and the verdicts on statements.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::ThreadId,
};

use super::exchange::Exchange;
use crate::{
    session::Judge,
    sql::{Cache, Verdict},
};

/// Room of one buffer, in bytes.
pub const BUFFER_BYTES: usize = 16 << 10;

/// Buffers kept for the next busy client; more are freed.
const BUFFERS_KEPT: usize = 256;

/// Bounds of the cache of verdicts.
const VERDICTS_MAX: usize = 10_000;
const VERDICT_BYTES_MAX: usize = 16 << 20;

/// One thread's stock. Its locks are only ever taken by that thread.
#[derive(Debug)]
pub struct Worker {
    pub id: ThreadId,
    buffers: Mutex<Vec<Vec<u8>>>,
    exchanges: Mutex<Vec<Box<Exchange>>>,
    verdicts: Mutex<Cache>,
}

impl Worker {
    /// For the calling thread. `seed` keeps others from making statements collide in the cache.
    pub fn new(seed: u64) -> Worker {
        Worker {
            id: std::thread::current().id(),
            buffers: Mutex::default(),
            exchanges: Mutex::default(),
            verdicts: Mutex::new(Cache::new_seeded(VERDICTS_MAX, VERDICT_BYTES_MAX, seed)),
        }
    }

    /// An empty buffer.
    pub fn buffer(&self) -> Vec<u8> {
        let kept = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// An exchange without buffers.
    pub fn exchange(&self) -> Box<Exchange> {
        let kept = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_default()
    }

    /// Takes back an exchange that has given its buffers back.
    pub fn put_back_exchange(&self, exchange: Box<Exchange>) {
        let mut exchanges = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        if exchanges.len() < BUFFERS_KEPT {
            exchanges.push(exchange);
        }
    }

    /// Takes back buffers; those that have grown are freed.
    pub fn put_back(&self, used: impl IntoIterator<Item = Vec<u8>>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        for mut buffer in used {
            if buffer.capacity() == BUFFER_BYTES && buffers.len() < BUFFERS_KEPT {
                buffer.clear();
                buffers.push(buffer);
            }
        }
    }
}

impl Judge for Worker {
    fn verdict(&self, sql: &[u8]) -> Arc<Verdict> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).verdict(sql)
    }
}
