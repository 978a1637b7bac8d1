//! Clients that were not let in: how many, by SQLSTATE, and which of them the log tells of. Strangers decide how many
//! there are, so of each kind a few are told with all that is known of them, and the rest as a number.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Most SQLSTATEs that are told apart; codes that servers make up must not fill the memory.
const KINDS_MAX: usize = 100;

/// So many of one kind are told ...
const TOLD_MAX: u32 = 20;
/// ... in so much time.
const PERIOD: Duration = Duration::from_secs(10);

/// Where all that are too many kinds go.
const OTHERS: &str = "XX000";

#[derive(Debug, Default)]
pub struct RefusedLogins {
    kinds: Mutex<BTreeMap<String, RefusalCount>>,
}

/// Those with one SQLSTATE.
#[derive(Debug)]
struct RefusalCount {
    all: u64,
    /// When the period began, and how many were told in it.
    since: Instant,
    told: u32,
    /// Those since the last sum.
    untold: u64,
}

impl RefusedLogins {
    /// A client was not let in; true when the log is to tell of it.
    pub fn note(&self, code: &str, now: Instant) -> bool {
        let mut kinds = self.lock();
        let code = if kinds.len() < KINDS_MAX || kinds.contains_key(code) { code } else { OTHERS };
        let fresh = RefusalCount { all: 0, since: now, told: 0, untold: 0 };
        let kind = kinds.entry(code.to_owned()).or_insert(fresh);
        kind.all += 1;
        if now.saturating_duration_since(kind.since) >= PERIOD {
            (kind.since, kind.told) = (now, 0);
        }
        let tell = kind.told < TOLD_MAX;
        if tell {
            kind.told += 1;
        } else {
            kind.untold += 1;
        }
        tell
    }

    /// How many of each kind the log was not told of, once their time is over. Each is told of once here.
    pub fn untold(&self, now: Instant) -> Vec<(String, u64)> {
        let mut kinds = self.lock();
        let due =
            kinds.iter_mut().filter(|(_, kind)| kind.untold > 0 && now.saturating_duration_since(kind.since) >= PERIOD);
        let taken = due.map(|(code, kind)| {
            (kind.since, kind.told) = (now, 0);
            (code.clone(), std::mem::take(&mut kind.untold))
        });
        taken.collect()
    }

    /// How many there were, by SQLSTATE.
    pub fn all(&self) -> BTreeMap<String, u64> {
        self.lock().iter().map(|(code, kind)| (code.clone(), kind.all)).collect()
    }

    /// No code under the lock can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, RefusalCount>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_of_a_few_and_of_how_many_more() {
        let (refusals, start) = (RefusedLogins::default(), Instant::now());
        let (mut told, mut summed, mut sums) = (0, 0, 0);
        for millis in 0..100_000 {
            let now = start + Duration::from_millis(millis);
            told += u64::from(refusals.note("28P01", now));
            // As often as the pools are looked after.
            if millis % 1_000 == 999 {
                for (code, more) in refusals.untold(now) {
                    assert_eq!(code, "28P01");
                    (summed, sums) = (summed + more, sums + 1);
                }
            }
        }
        let end = start + Duration::from_millis(200_000);
        summed += refusals.untold(end).iter().map(|(_, more)| more).sum::<u64>();
        assert_eq!(told + summed, 100_000, "all are told, one way or the other");
        assert!((180..=240).contains(&told) && sums <= 10, "{told} {sums}");
        assert!(refusals.note("28P01", end) && refusals.note("3D000", end), "one kind keeps no other from being told");
        assert_eq!(refusals.untold(end), []);
    }

    #[test]
    fn kinds_are_limited() {
        let (refusals, now) = (RefusedLogins::default(), Instant::now());
        let told = (0..10 * KINDS_MAX).filter(|code| refusals.note(&code.to_string(), now)).count();
        assert_eq!(told, KINDS_MAX + TOLD_MAX as usize);
        let all = refusals.all();
        assert_eq!((all.len(), all.values().sum::<u64>()), (KINDS_MAX + 1, 10 * KINDS_MAX as u64));
    }
}
