//! What is kept of statements that have run, and what is told of clients in the log.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use crate::metrics::Queries;

/// For all clients.
#[derive(Debug, Default)]
pub struct Watch {
    pub queries: Queries,
    /// In microseconds; 0 for never.
    slow: AtomicU64,
    connections: AtomicBool,
}

impl Watch {
    /// From how long on a statement is told of, with its wait for a server connection.
    pub fn slow(&self) -> Option<Duration> {
        Some(self.slow.load(Ordering::Relaxed)).filter(|micros| *micros > 0).map(Duration::from_micros)
    }

    /// Whether logins and disconnections are logged.
    pub fn tells_connections(&self) -> bool {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn tell_connections(&self, tell: bool) {
        self.connections.store(tell, Ordering::Relaxed);
    }

    pub fn set_slow(&self, slow: Option<Duration>) {
        // What is below the unit is not nothing.
        let micros = slow.map_or(0, |slow| u64::try_from(slow.as_micros()).unwrap_or(u64::MAX).max(1));
        self.slow.store(micros, Ordering::Relaxed);
    }
}
