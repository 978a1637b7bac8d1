//! Where the primary's WAL was, and when: what turns a replica's position into "has all that was committed by then".

use std::time::Instant;

/// Probes that are remembered. Beyond that the older half is thinned out: a replica that is that far behind is known
/// a little less exactly, and never as fresher than it is.
const CAPACITY: usize = 512;

/// Probes of one primary on one timeline; both columns rise.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    entries: Vec<Position>,
}

#[derive(Debug, Clone, Copy)]
struct Position {
    lsn: u64,
    started: Instant,
}

impl History {
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Notes that the primary, asked at `started`, was at `lsn`.
    pub(super) fn record(&mut self, started: Instant, lsn: u64) {
        // A primary that crashed may start again below WAL that it had not flushed; nobody will ever reach that.
        while self.entries.last().is_some_and(|last| last.lsn > lsn) {
            self.entries.pop();
        }
        match self.entries.last_mut() {
            Some(last) if last.lsn == lsn => last.started = last.started.max(started),
            _ => self.entries.push(Position { lsn, started }),
        }
        if self.entries.len() > CAPACITY {
            self.thin();
        }
    }

    /// The latest moment such that everything committed before it is at or below `lsn`.
    pub(super) fn as_of(&self, lsn: u64) -> Option<Instant> {
        let behind = self.entries.partition_point(|entry| entry.lsn <= lsn);
        self.entries[..behind].last().map(|entry| entry.started)
    }

    /// When the primary last answered.
    pub(super) fn latest(&self) -> Option<Instant> {
        self.entries.last().map(|entry| entry.started)
    }

    fn thin(&mut self) {
        let mut index = 0;
        self.entries.retain(|_| {
            index += 1;
            index > CAPACITY / 2 || index % 2 == 1
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tells_the_latest_probe_at_or_below_a_position() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut history = History::default();
        assert_eq!(history.as_of(u64::MAX), None);
        history.record(at(0), 100);
        history.record(at(1), 200);
        history.record(at(2), 200);
        history.record(at(3), 300);
        assert_eq!(history.as_of(99), None);
        assert_eq!(history.as_of(100), Some(at(0)));
        assert_eq!(history.as_of(199), Some(at(0)));
        assert_eq!(history.as_of(200), Some(at(2)), "an idle primary's later probe counts");
        assert_eq!(history.as_of(u64::MAX), Some(at(3)));
        // After a crash that lost WAL which was not flushed.
        history.record(at(4), 250);
        assert_eq!(history.as_of(299), Some(at(4)));
        assert_eq!(history.latest(), Some(at(4)));
    }

    #[test]
    fn stays_small_and_never_flatters() {
        let start = Instant::now();
        let mut history = History::default();
        for step in 0..10_000_u64 {
            history.record(start + Duration::from_secs(step), step * 10);
            assert!(history.entries.len() <= CAPACITY);
        }
        for step in 0..10_000_u64 {
            if let Some(moment) = history.as_of(step * 10) {
                assert!(moment <= start + Duration::from_secs(step));
            }
        }
        assert_eq!(history.as_of(99_990), Some(start + Duration::from_secs(9_999)));
    }
}
