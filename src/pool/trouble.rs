//! What it has come to of late to open connections of one pool, and when that is worth another try. A pure rule: a
//! server that refuses is not asked by everybody who comes, and not forgotten either.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause after a failure; each failure in a row doubles it.
const PAUSE: Duration = Duration::from_millis(250);

/// The longest pause after failures that may pass in a moment, as of a server that is being started.
const PASSING_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The longest after those that last until a person mends them, as a wrong password.
const LASTING_PAUSE_MAX: Duration = Duration::from_secs(8);

/// Somebody who waits for the pool while connections of it are lent waits no longer than this for another try.
const WANTED_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The same after failures that may pass in a moment.
const WANTED_PASSING_PAUSE: Duration = Duration::from_millis(50);

/// The same when nothing can come back and only a try can help. Whoever comes after a refusal hears of a later try:
/// what was refused may have been mended a moment ago, and nobody is told what is not so any more. Ten tries a second
/// are what one impatient client costs a server directly.
pub const ONLY_HOPE_PAUSE: Duration = Duration::from_millis(100);

/// What a try to open a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try {
    /// To find out whether all is well again; nobody waits.
    Unasked,
    /// Somebody waits who may get what comes back, too.
    Wanted,
    /// Somebody waits, and nothing can come back.
    OnlyHope,
}

/// An opening that takes longer than this is taken for one that fails, until it ends: others may be served elsewhere.
pub const SLOW: Duration = Duration::from_secs(1);

/// Why connections of a pool cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble<E> {
    /// The last failure; `None` when an opening has taken long and not ended yet.
    pub error: Option<E>,
    /// How many attempts have failed one after the other. Those that were under way together are one.
    pub failures: u32,
    /// When the first of them did.
    pub since: Instant,
    last: Instant,
    lasting: bool,
    /// Spreads the tries of pools that have failed together.
    spread: u64,
}

impl<E> Trouble<E> {
    /// An opening takes too long.
    pub fn slow(now: Instant, spread: u64) -> Trouble<E> {
        Trouble { error: None, failures: 0, since: now, last: now, lasting: false, spread }
    }

    /// An attempt has failed that was made at `begun`. `lasting` is a failure that does not pass by itself.
    pub fn fail(&mut self, error: E, lasting: bool, begun: Instant, now: Instant) {
        if self.failures == 0 || begun >= self.last {
            self.failures = self.failures.saturating_add(1);
            self.last = now;
        }
        (self.error, self.lasting) = (Some(error), lasting);
    }

    /// When it is time for another try. One that somebody wants comes sooner than one that only finds out whether all
    /// is well again.
    pub fn due(&self, what_for: Try) -> Instant {
        self.last + self.pause(what_for)
    }

    /// Whether the failure does not pass by itself.
    pub fn is_lasting(&self) -> bool {
        self.lasting
    }

    fn pause(&self, what_for: Try) -> Duration {
        let doubled = PAUSE * 2_u32.pow(self.failures.saturating_sub(1).min(10));
        let most = match (self.lasting, what_for) {
            (false, Try::Wanted | Try::OnlyHope) => return WANTED_PASSING_PAUSE,
            (true, Try::OnlyHope) => return ONLY_HOPE_PAUSE,
            (false, Try::Unasked) => PASSING_PAUSE_MAX,
            (true, Try::Wanted) => WANTED_PAUSE_MAX,
            (true, Try::Unasked) => LASTING_PAUSE_MAX,
        };
        let spread = self.spread.wrapping_add(self.failures.into()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        // Never longer than the longest.
        doubled.min(most).mul_f64(0.75 + 0.25 * spread as f64 / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The pauses before so many tries that all fail at once.
    fn pauses(lasting: bool, what_for: Try, spread: u64, tries: usize) -> Vec<Duration> {
        let mut now = Instant::now();
        let mut trouble = Trouble::slow(now, spread);
        let mut pauses = Vec::new();
        for _ in 0..tries {
            trouble.fail((), lasting, now, now);
            let begun = now;
            while trouble.due(what_for) > now {
                now += Duration::from_millis(10);
            }
            pauses.push(now - begun);
        }
        pauses
    }

    proptest! {
        #[test]
        fn pauses_grow_to_a_bound(spread: u64) {
            for (lasting, what_for, most) in [
                (true, Try::Unasked, LASTING_PAUSE_MAX),
                (true, Try::Wanted, WANTED_PAUSE_MAX),
                (true, Try::OnlyHope, ONLY_HOPE_PAUSE),
                (false, Try::Unasked, PASSING_PAUSE_MAX),
                (false, Try::Wanted, WANTED_PASSING_PAUSE),
                (false, Try::OnlyHope, WANTED_PASSING_PAUSE),
            ] {
                let pauses = pauses(lasting, what_for, spread, 40);
                prop_assert!(pauses.iter().all(|pause| *pause <= most + Duration::from_millis(10)), "{pauses:?}");
                prop_assert!(pauses[0] <= pauses[39] + most / 4);
                prop_assert!(pauses[39] >= most.mul_f64(0.75));
            }
        }
    }

    #[test]
    fn attempts_that_fail_together_are_one() {
        let now = Instant::now();
        let mut trouble = Trouble::slow(now, 0);
        for after in 1..=20 {
            trouble.fail(after, true, now, now + Duration::from_millis(after));
        }
        assert_eq!((trouble.failures, trouble.error), (1, Some(20)));
    }
}
