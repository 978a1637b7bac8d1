//! When something was last written to a database by way of this Poolhouse, for sessions that must see what all others
//! have written (`consistency = "global"`).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

/// Those of all databases of one cluster.
#[derive(Debug, Default)]
pub struct Writes {
    by_database: Mutex<BTreeMap<String, Weak<LastWrite>>>,
}

impl Writes {
    /// What is shared by all users of a database, by its name on the server.
    pub fn of(&self, database: &str) -> Arc<LastWrite> {
        let mut by_database = self.by_database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_database.get(database).and_then(Weak::upgrade) {
            return known;
        }
        by_database.retain(|_, known| known.strong_count() > 0);
        let new = Arc::new(LastWrite::new(Instant::now()));
        by_database.insert(database.to_owned(), Arc::downgrade(&new));
        new
    }
}

/// The moment of the last write to one database.
#[derive(Debug)]
pub struct LastWrite {
    /// From when on it counts.
    base: Instant,
    /// Nanoseconds since then; 0 = nothing was written.
    at: AtomicU64,
    wanted: AtomicBool,
}

impl LastWrite {
    fn new(base: Instant) -> LastWrite {
        LastWrite { base, at: AtomicU64::new(0), wanted: AtomicBool::new(false) }
    }

    /// Somebody must see what others write: it is noted from now on, and what was written before may be anything.
    pub fn want(&self) {
        if !self.wanted.swap(true, Ordering::AcqRel) {
            self.note();
        }
    }

    /// Whether anybody wants to know.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Something may have been written until now. To be called before anybody can hear of it.
    pub fn note(&self) {
        self.note_at(Instant::now());
    }

    fn note_at(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.base).as_nanos();
        self.at.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX).max(1), Ordering::AcqRel);
    }

    /// Everything before it must be seen. `None` = nothing was written.
    pub fn last(&self) -> Option<Instant> {
        let at = self.at.load(Ordering::Acquire);
        (at > 0).then(|| self.base + std::time::Duration::from_nanos(at))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_latest_write_counts() {
        let base = Instant::now();
        let writes = LastWrite::new(base);
        assert_eq!(writes.last(), None);
        for (at, last) in [(5, 5), (3, 5), (9, 9)] {
            writes.note_at(base + Duration::from_millis(at));
            assert_eq!(writes.last(), Some(base + Duration::from_millis(last)));
        }
    }

    #[test]
    fn what_was_written_before_anybody_wanted_to_know_counts_too() {
        let all = Writes::default();
        let (one, same) = (all.of("a"), all.of("a"));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &all.of("b")) && !one.is_wanted());
        same.want();
        assert!(one.is_wanted() && one.last().is_some());
    }
}
