//! How long a login that failed is kept waiting for its answer, by the address that it came from: the more have failed
//! lately, the longer. Only those that fail wait, so nobody can slow down another who knows the password.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::admission::Origin;

/// So many failures cost nothing: slips of the hand, and a client with an old password that tries again.
const FREE: u32 = 10;

/// The first pause; each further failure doubles it.
const PAUSE: Duration = Duration::from_millis(10);

/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// After so long one failure is forgotten.
const FORGIVEN: Duration = Duration::from_secs(5);

/// More failures than these are not counted: when they stop, the pauses are gone soon.
const COUNTED_MAX: u32 = FREE + 8;

/// Addresses share so many counts. Where two share one, failures of either make those of both slower.
const COUNTS: usize = 4096;

/// Failures of late, by address, in memory that does not grow.
#[derive(Debug)]
pub struct WrongGuesses {
    /// Drawn at each start, so that nobody can choose an address to share a count with.
    hasher: RandomState,
    counts: Mutex<Box<[FailureCount]>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct FailureCount {
    failures: u32,
    /// When the count was brought up to date last.
    since: Option<Instant>,
}

impl FailureCount {
    /// Counts one more, and gives how many there are.
    fn add(&mut self, now: Instant) -> u32 {
        let passed = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let forgiven = u32::try_from(passed.as_nanos() / FORGIVEN.as_nanos()).unwrap_or(u32::MAX);
        if self.since.is_none() || forgiven > 0 {
            self.since = Some(now);
        }
        self.failures = self.failures.saturating_sub(forgiven).saturating_add(1).min(COUNTED_MAX);
        self.failures
    }
}

impl Default for WrongGuesses {
    fn default() -> Self {
        let counts = vec![FailureCount::default(); COUNTS].into_boxed_slice();
        WrongGuesses { hasher: RandomState::new(), counts: Mutex::new(counts) }
    }
}

impl WrongGuesses {
    /// A login from there has failed; how long it is to wait before it is told so.
    pub fn note(&self, peer: Option<IpAddr>, now: Instant) -> Duration {
        let at = (self.hasher.hash_one(Origin::of(peer)) % COUNTS as u64) as usize;
        // No code under the lock can panic half-way through a change.
        let failures = self.counts.lock().unwrap_or_else(PoisonError::into_inner)[at].add(now);
        match failures.checked_sub(FREE + 1) {
            Some(more) => (PAUSE * 2_u32.pow(more.min(10))).min(PAUSE_MAX),
            None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, number]))
    }

    #[test]
    fn pauses_grow_from_nothing_to_a_second_and_are_forgotten() {
        let (guesses, start) = (WrongGuesses::default(), Instant::now());
        let pauses: Vec<_> = (0..30).map(|_| guesses.note(ip(1), start)).collect();
        assert!(pauses[..FREE as usize].iter().all(Duration::is_zero));
        assert!(pauses.is_sorted());
        assert_eq!((pauses[FREE as usize], pauses[29]), (PAUSE, PAUSE_MAX));
        let later = start + FORGIVEN * (COUNTED_MAX - FREE + 1);
        assert_eq!(guesses.note(ip(1), later), Duration::ZERO, "all but the free ones are forgotten");
        let much_later = later + Duration::from_secs(86_400);
        assert_eq!(guesses.note(ip(1), much_later), Duration::ZERO);
        assert_eq!(guesses.note(ip(1), start), Duration::ZERO, "a clock that stands still harms nothing");
    }

    #[test]
    fn a_steady_guesser_stays_slow() {
        let (guesses, start) = (WrongGuesses::default(), Instant::now());
        let mut now = start;
        let mut tries = 0;
        while now < start + Duration::from_secs(3600) {
            now += guesses.note(ip(1), now).max(Duration::from_millis(1));
            tries += 1;
        }
        assert!((3_600..3_700).contains(&tries), "{tries} in an hour");
    }

    #[test]
    fn others_have_counts_of_their_own_and_networks_have_one() {
        let (guesses, start) = (WrongGuesses::default(), Instant::now());
        for _ in 0..30 {
            guesses.note(ip(1), start);
        }
        // A share of a count is an accident of one in thousands.
        let slow = (2..250).filter(|number| !guesses.note(ip(*number), start).is_zero()).count();
        assert!(slow <= 5, "{slow}");
        let v6 = |text: &str| Some(text.parse().unwrap());
        for number in 0..30 {
            guesses.note(v6(&format!("2001:db8::{number:x}")), start);
        }
        assert_eq!(guesses.note(v6("2001:db8::ffff"), start), PAUSE_MAX);
    }
}
