//! What the servers of a cluster have done of late to the logins of one database and user: which of them let nobody in
//! at the moment, and how often which said what. When they are tried again is the pool's business.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::ConnectError;

/// Most SQLSTATEs and nodes by which failures are counted: servers may make codes up.
const COUNTS_MAX: usize = 1_000;

/// A failure like the one before is told again after this long.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Told by the pools, asked by whoever chooses a node.
#[derive(Debug, Default)]
pub struct Logins {
    /// A bit for each node where no connection can be opened.
    troubled: [AtomicU64; 2],
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    /// By node and SQLSTATE, of those that nobody has asked for yet.
    counts: BTreeMap<(u16, String), u64>,
    /// What was told last of a node.
    told: BTreeMap<u16, (String, Instant)>,
    news: Vec<LoginFailure>,
}

/// A login that failed, as operators are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginFailure {
    pub node: u16,
    pub code: String,
    pub message: String,
}

impl Logins {
    /// The nodes where no connection can be opened, as bits by their numbers. Cheap.
    pub fn troubled(&self) -> u128 {
        let [low, high] = &self.troubled;
        u128::from(low.load(Ordering::Relaxed)) | u128::from(high.load(Ordering::Relaxed)) << 64
    }

    pub(super) fn set_troubled(&self, node: u16, troubled: bool) {
        let Some(bits) = self.troubled.get(usize::from(node / 64)) else { return };
        let bit = 1 << (node % 64);
        if troubled {
            bits.fetch_or(bit, Ordering::Relaxed);
        } else {
            bits.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    pub(super) fn fail(&self, node: u16, error: &ConnectError, now: Instant) {
        let mut failures = self.lock();
        let Failures { counts, told, news } = &mut *failures;
        let code = error.code().to_owned();
        let key = (node, code.clone());
        if counts.len() < COUNTS_MAX || counts.contains_key(&key) {
            *counts.entry(key).or_default() += 1;
        }
        let is_old = |(before, at): &(String, Instant)| *before != code || now.duration_since(*at) >= TOLD_AGAIN;
        if told.get(&node).is_none_or(is_old) {
            told.insert(node, (code.clone(), now));
            // At most one for each node and each look at them, or nobody looks.
            news.retain(|failure| failure.node != node);
            news.push(LoginFailure { node, code, message: error.to_string() });
        }
    }

    /// What operators have not been told yet.
    pub fn take_news(&self) -> Vec<LoginFailure> {
        std::mem::take(&mut self.lock().news)
    }

    /// How many logins have failed since this was asked last, by node and SQLSTATE.
    pub fn take_counts(&self) -> BTreeMap<(u16, String), u64> {
        std::mem::take(&mut self.lock().counts)
    }

    fn lock(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_its_bit() {
        let logins = Logins::default();
        for node in [0, 63, 64, 127] {
            logins.set_troubled(node, true);
        }
        assert_eq!(logins.troubled(), 1 | 1 << 63 | 1 << 64 | 1 << 127);
        logins.set_troubled(63, false);
        logins.set_troubled(64, false);
        logins.set_troubled(500, true);
        assert_eq!(logins.troubled(), 1 | 1 << 127);
    }

    #[test]
    fn what_repeats_itself_is_counted_and_told_once() {
        let (logins, now) = (Logins::default(), Instant::now());
        let closed = ConnectError::Closed;
        for seconds in 0..100 {
            logins.fail(1, &closed, now + Duration::from_secs(seconds));
        }
        assert_eq!(logins.take_news().len(), 1, "nobody has looked meanwhile");
        logins.fail(1, &closed, now + Duration::from_secs(100));
        assert!(logins.take_news().is_empty());
        logins.fail(1, &ConnectError::NoCredential("x"), now + Duration::from_secs(100));
        assert_eq!(logins.take_news()[0].code, "28000");
        assert_eq!(logins.take_counts()[&(1, "08006".to_owned())], 101);
    }
}
