//! How far behind a replica has been lately: one that lagged too much has to keep up for a while before it is used again,
//! so that reads do not go to and fro.

use std::time::{Duration, Instant};

/// For so long, and up to twice as long, a lag is remembered.
const SPAN: Duration = Duration::from_secs(2);

/// How far a replica is behind the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// How old what it has replayed last is, as far as it is known.
    pub time: Duration,
    /// WAL, in bytes.
    pub bytes: u64,
}

impl Lag {
    fn max(self, other: Lag) -> Lag {
        Lag { time: self.time.max(other.time), bytes: self.bytes.max(other.bytes) }
    }
}

/// The lags of one replica.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lags {
    since: Option<Instant>,
    now: Lag,
    before: Lag,
}

impl Lags {
    pub(super) fn note(&mut self, lag: Lag, now: Instant) {
        let age = self.since.map(|since| now.saturating_duration_since(since));
        match age {
            Some(age) if age < SPAN => self.now = self.now.max(lag),
            age => {
                self.before = if age.is_some_and(|age| age < 2 * SPAN) { self.now } else { Lag::default() };
                (self.since, self.now) = (Some(now), lag);
            }
        }
    }

    /// The worst of late.
    pub(super) fn worst(&self) -> Lag {
        self.now.max(self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_remembered_for_a_while() {
        let begin = Instant::now();
        let lag = |bytes| Lag { time: Duration::from_millis(bytes), bytes };
        let mut lags = Lags::default();
        assert_eq!(lags.worst(), Lag::default());
        for (millis, bytes, worst) in [
            (0, 5, 5),
            (500, 9, 9),
            (1_000, 1, 9),
            (2_100, 1, 9),
            (4_000, 2, 9),
            (4_100, 2, 2),
            (6_200, 1, 2),
            (20_000, 1, 1),
        ] {
            lags.note(lag(bytes), begin + Duration::from_millis(millis));
            assert_eq!(lags.worst(), lag(worst), "{millis}");
        }
    }
}
