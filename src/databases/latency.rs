//! How long nodes take to answer reads: a mean that forgets, so that a node that was slow is tried again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// After so long half of what was measured is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(5);

/// How much one answer counts.
const SHARE: f64 = 0.1;

/// Of one node. Written by all workers: an answer that is lost when two come at once does not matter.
#[derive(Debug)]
pub struct Latency {
    begin: Instant,
    /// In seconds, as its bits.
    mean: AtomicU64,
    /// When it was measured, in milliseconds since `begin`.
    at: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Latency { begin: Instant::now(), mean: AtomicU64::new(0), at: AtomicU64::new(0) }
    }
}

impl Latency {
    /// The node has begun to answer after such a time.
    pub fn note(&self, time: Duration) {
        let before = self.seconds();
        let time = time.as_secs_f64();
        let mean = if before == 0.0 { time } else { before + (time - before) * SHARE };
        self.mean.store(mean.to_bits(), Ordering::Relaxed);
        self.at.store(self.now(), Ordering::Relaxed);
    }

    /// In seconds; 0 before the first answer.
    pub fn seconds(&self) -> f64 {
        let age = self.now().saturating_sub(self.at.load(Ordering::Relaxed)) as f64 / 1e3;
        f64::from_bits(self.mean.load(Ordering::Relaxed)) * (-age / HALF_LIFE.as_secs_f64()).exp2()
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_and_forgets() {
        let latency = Latency::default();
        assert_eq!(latency.seconds(), 0.0);
        for _ in 0..100 {
            latency.note(Duration::from_millis(10));
        }
        let before = latency.seconds();
        assert!(before <= 0.010 && before > 0.0, "{before}");
        latency.note(Duration::from_millis(110));
        assert!(latency.seconds() > before);
        let old = Latency {
            begin: Instant::now().checked_sub(2 * HALF_LIFE).unwrap_or_else(Instant::now),
            ..Latency::default()
        };
        old.mean.store(0.4_f64.to_bits(), Ordering::Relaxed);
        assert!(old.seconds() <= 0.1, "{}", old.seconds());
    }
}
