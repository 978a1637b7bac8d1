//! Numbers that grow, and that others read at any time.

use std::sync::atomic::{AtomicU64, Ordering};

/// Who adds to a [`Counter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// One thread only: it need not keep others away while it adds, which would cost more than all else that a counter
    /// costs.
    One,
    Many,
}

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    #[inline]
    pub fn add(&self, more: u64, writers: Writers) {
        match writers {
            Writers::One => self.0.store(self.get().wrapping_add(more), Ordering::Relaxed),
            Writers::Many => drop(self.0.fetch_add(more, Ordering::Relaxed)),
        }
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
