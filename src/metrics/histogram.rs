//! Durations by size, in buckets of our own: fine enough that a quantile is true to a few percent, whatever the sizes,
//! and with the bounds that Prometheus is shown among theirs, so that what it is shown is exact.

use std::time::Duration;

use super::counter::{Counter, Writers};

/// Bounds in one power of ten, in fortieths of it: steps of 0.1 up to 2, of 0.25 up to 5, and of 0.5 up to 10.
const STEPS: usize = 32;
const DECADES: usize = 7;

/// From 10 µs to 100 s.
const BOUNDS_LEN: usize = STEPS * DECADES + 1;

/// The upper bounds of the buckets in nanoseconds; what is above all of them is in one more.
static BOUNDS: [u64; BOUNDS_LEN] = bounds();

/// The upper bounds that Prometheus is shown, in microseconds.
pub const SHOWN_BOUNDS: [u64; 19] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

const fn bounds() -> [u64; BOUNDS_LEN] {
    let mut bounds = [0; BOUNDS_LEN];
    let mut unit = 10_000;
    let mut at = 0;
    while at < BOUNDS_LEN {
        let step = at % STEPS;
        let fortieths = if step < 10 {
            40 + 4 * step
        } else if step < 22 {
            80 + 10 * (step - 10)
        } else {
            200 + 20 * (step - 22)
        };
        bounds[at] = unit * fortieths as u64 / 40;
        at += 1;
        if at % STEPS == 0 {
            unit *= 10;
        }
    }
    bounds
}

fn bucket_of(nanos: u64) -> usize {
    BOUNDS.partition_point(|bound| *bound < nanos)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Read at any time.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BOUNDS_LEN + 1],
    sum: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: [const { Counter::new() }; BOUNDS_LEN + 1], sum: Counter::new() }
    }
}

impl Histogram {
    /// Adds so many that took as long.
    pub fn add(&self, duration: Duration, times: u64, writers: Writers) {
        let nanos = nanos(duration);
        self.buckets[bucket_of(nanos)].add(times, writers);
        self.sum.add(nanos.saturating_mul(times), writers);
    }

    pub fn read(&self) -> Distribution {
        Distribution { buckets: std::array::from_fn(|at| self.buckets[at].get()), sum: self.sum.get() }
    }
}

/// What a histogram held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    buckets: [u64; BOUNDS_LEN + 1],
    sum: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Distribution { buckets: [0; BOUNDS_LEN + 1], sum: 0 }
    }
}

impl Distribution {
    /// Adds one that took so long.
    pub fn add(&mut self, duration: Duration) {
        let nanos = nanos(duration);
        self.buckets[bucket_of(nanos)] += 1;
        self.sum = self.sum.wrapping_add(nanos);
    }

    pub fn merge(&mut self, other: &Distribution) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, more)| *sum += more);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// How many took at most so long. Exact for the bounds in [`SHOWN_BOUNDS`].
    pub fn up_to(&self, micros: u64) -> u64 {
        self.buckets[..=bucket_of(micros.saturating_mul(1_000))].iter().sum()
    }

    /// The duration that this share of all do not exceed; within a bucket they count as spread evenly. `None` without
    /// any.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (share * count as f64).clamp(1.0, count as f64);
        let mut before = 0;
        for (at, held) in self.buckets.iter().enumerate().filter(|(_, held)| **held > 0) {
            if (before + held) as f64 >= rank {
                let low = if at == 0 { 0 } else { BOUNDS[at - 1] };
                // Of the last bucket only the lower bound is known.
                let high = BOUNDS.get(at).copied().unwrap_or(low);
                let part = (rank - before as f64) / *held as f64;
                return Some(Duration::from_nanos(low + ((high - low) as f64 * part) as u64));
            }
            before += held;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_rise_in_small_steps() {
        assert_eq!((BOUNDS[0], BOUNDS[BOUNDS_LEN - 1]), (10_000, 100_000_000_000));
        assert!(BOUNDS.windows(2).all(|pair| pair[0] < pair[1] && pair[1] * 8 <= pair[0] * 9));
        for shown in SHOWN_BOUNDS {
            assert!(BOUNDS.binary_search(&(shown * 1_000)).is_ok(), "{shown} µs");
        }
    }

    #[test]
    fn what_is_shown_counts_each_duration_once() {
        let histogram = Histogram::default();
        for (micros, times) in [(0, 1), (100, 2), (101, 3), (70_000_000, 4), (200_000_000, 5)] {
            histogram.add(Duration::from_micros(micros), times, Writers::Many);
        }
        let held = histogram.read();
        assert_eq!(held.count(), 15);
        assert_eq!((held.up_to(50), held.up_to(100), held.up_to(250), held.up_to(60_000_000)), (1, 3, 6, 6));
        assert_eq!(held.sum(), Duration::from_micros(2 * 100 + 3 * 101 + 4 * 70_000_000 + 5 * 200_000_000));
        let mut twice = held.clone();
        twice.merge(&held);
        assert_eq!((twice.count(), twice.sum()), (30, held.sum() * 2));
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Distribution::default().quantile(0.99), None);
    }

    proptest! {
        /// Within an eighth of the true one.
        #[test]
        fn quantiles_are_true(mut micros in prop::collection::vec(20_u64..90_000_000, 1..200), share in 0.01_f64..1.0) {
            let histogram = Histogram::default();
            micros.iter().for_each(|micros| histogram.add(Duration::from_micros(*micros), 1, Writers::One));
            micros.sort_unstable();
            let rank = ((share * micros.len() as f64).ceil() as usize).clamp(1, micros.len());
            let exact = micros[rank - 1] as f64;
            let found = histogram.read().quantile(share).unwrap().as_secs_f64() * 1e6;
            prop_assert!((found - exact).abs() <= exact / 8.0 + 0.001, "{found} instead of {exact}");
        }
    }
}
