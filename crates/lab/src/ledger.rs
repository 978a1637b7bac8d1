//! What clients were told against what the database holds. Pure: it takes what both say and finds what is missing, what
//! is there twice, and what nobody wrote. No constraint of the table hides a double; sums per client show torn commits.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// A write: the client, and its own count from 1.
pub type WriteKey = (u32, i64);

/// SQLSTATEs that say that the server was lost under the statement.
const LOST: [&str; 3] = ["08006", "57P01", "57P02"];

/// How a write ended, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFate {
    /// The commit was acknowledged.
    Acknowledged,
    /// The answer to the commit was lost; the client looked, and it was there.
    Seen,
    /// The answer to the commit was lost, and the load ended before the client could look.
    Unknown,
    /// An error came before the commit was asked for, and the load ended before it was done again.
    Undone,
}

/// What the row of a write holds besides its key: any number that is not easily hit by accident.
pub fn value((client, sequence): WriteKey) -> i64 {
    const PRIME: i64 = 999_983;
    (i64::from(client) * 7919 + sequence * 104_729) % PRIME + 1
}

/// The rows of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WrittenRows {
    pub count: i64,
    /// Of their values.
    pub sum: i64,
}

/// What a database holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    pub writes: BTreeMap<WriteKey, WrittenRows>,
    /// What every client has counted up beside its rows, in the same transactions.
    pub tallies: BTreeMap<u32, WrittenRows>,
}

/// The comparison. Keys tell where to look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audit {
    pub acknowledged: usize,
    /// Acknowledged, and there.
    pub found: usize,
    /// Acknowledged or seen, and not there.
    pub missing: BTreeSet<WriteKey>,
    /// There more than once.
    pub doubled: BTreeSet<WriteKey>,
    /// There although no commit was asked for, or with a value that nobody wrote.
    pub unasked: BTreeSet<WriteKey>,
    /// Clients whose rows and running counts do not agree: half of a transaction is there.
    pub torn: BTreeSet<u32>,
    /// Nobody knows whether they were committed, and they are there, or not: both are right.
    pub unknown_found: usize,
    pub unknown_not_found: usize,
}

/// Compares the fates of all writes with what is there.
pub fn audit(fates: &BTreeMap<WriteKey, WriteFate>, held: &Holdings) -> Audit {
    let mut audit = Audit::default();
    for (key, fate) in fates {
        let is_there = held.writes.contains_key(key);
        match (fate, is_there) {
            (WriteFate::Acknowledged, true) => audit.found += 1,
            (WriteFate::Acknowledged | WriteFate::Seen, false) => _ = audit.missing.insert(*key),
            (WriteFate::Unknown, true) => audit.unknown_found += 1,
            (WriteFate::Unknown, false) => audit.unknown_not_found += 1,
            (WriteFate::Undone, true) => _ = audit.unasked.insert(*key),
            (WriteFate::Seen, true) | (WriteFate::Undone, false) => {}
        }
        audit.acknowledged += usize::from(*fate == WriteFate::Acknowledged);
    }
    let mut sums: BTreeMap<u32, WrittenRows> = BTreeMap::new();
    for (key, rows) in &held.writes {
        if rows.count > 1 {
            audit.doubled.insert(*key);
        }
        if !fates.contains_key(key) || rows.sum != value(*key) * rows.count {
            audit.unasked.insert(*key);
        }
        let sum = sums.entry(key.0).or_default();
        sum.count += rows.count;
        sum.sum += rows.sum;
    }
    let clients = sums.keys().chain(held.tallies.keys());
    let none = WrittenRows::default();
    audit.torn = clients
        .filter(|client| sums.get(client).unwrap_or(&none) != held.tallies.get(client).unwrap_or(&none))
        .copied()
        .collect();
    audit
}

/// What a client was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriterActivity {
    Connecting,
    Reading,
    /// Also looking whether a write is there, which is done on the primary.
    Writing,
}

/// An error that a client saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mishap {
    pub client: u32,
    pub activity: WriterActivity,
    /// When the statement was sent, or the first one of its transaction.
    pub began: Instant,
    /// `None` = the connection broke, or no answer came.
    pub code: Option<String>,
    pub words: String,
}

/// The loss of the primary.
#[derive(Debug, Clone)]
pub struct WriteLoss {
    /// `127.0.0.1:port`.
    pub address: String,
    /// From this moment on it was surely gone: what was sent later was never in flight on it.
    pub gone: Instant,
}

impl Mishap {
    /// Whether it is the error of a statement or transaction that was under way on the lost primary. Reads must name it,
    /// because they may also have been on a replica. A broken connection never passes for it.
    pub fn was_in_flight(&self, loss: &WriteLoss) -> bool {
        let on_primary = match self.activity {
            WriterActivity::Connecting => false,
            WriterActivity::Reading => self.words.contains(&loss.address),
            WriterActivity::Writing => true,
        };
        on_primary && self.began <= loss.gone && self.code.as_deref().is_some_and(|code| LOST.contains(&code))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Three clients with four acknowledged writes each, and a database that has them all.
    fn fair() -> (BTreeMap<WriteKey, WriteFate>, Holdings) {
        let keys = (1..=3).flat_map(|client| (1..=4).map(move |sequence| (client, sequence)));
        let fates: BTreeMap<WriteKey, WriteFate> = keys.map(|key| (key, WriteFate::Acknowledged)).collect();
        let mut held = Holdings::default();
        fates.keys().for_each(|key| write(&mut held, *key));
        (fates, held)
    }

    fn write(held: &mut Holdings, key: WriteKey) {
        for rows in [held.writes.entry(key).or_default(), held.tallies.entry(key.0).or_default()] {
            rows.count += 1;
            rows.sum += value(key);
        }
    }

    /// As if it had never been committed.
    fn lose(held: &mut Holdings, key: WriteKey) {
        let rows = held.writes.remove(&key).unwrap();
        let tally = held.tallies.get_mut(&key.0).unwrap();
        tally.count -= rows.count;
        tally.sum -= rows.sum;
    }

    #[test]
    fn all_is_well() {
        let (fates, held) = fair();
        assert_eq!(audit(&fates, &held), Audit { acknowledged: 12, found: 12, ..Audit::default() });
    }

    #[test]
    fn a_lost_commit_is_missing() {
        let (fates, mut held) = fair();
        lose(&mut held, (2, 3));
        let missing = [(2, 3)].into();
        assert_eq!(audit(&fates, &held), Audit { acknowledged: 12, found: 11, missing, ..Audit::default() });
    }

    #[test]
    fn a_commit_that_was_seen_and_is_gone_is_missing() {
        let (mut fates, mut held) = fair();
        fates.insert((2, 4), WriteFate::Seen);
        assert_eq!(audit(&fates, &held), Audit { acknowledged: 11, found: 11, ..Audit::default() });
        lose(&mut held, (2, 4));
        assert_eq!(audit(&fates, &held).missing, [(2, 4)].into());
    }

    #[test]
    fn a_commit_that_was_run_twice_is_doubled() {
        let (fates, mut held) = fair();
        write(&mut held, (1, 1));
        let doubled = [(1, 1)].into();
        assert_eq!(audit(&fates, &held), Audit { acknowledged: 12, found: 12, doubled, ..Audit::default() });
    }

    #[test]
    fn an_unknown_commit_may_be_there_or_not_but_not_twice() {
        let (mut fates, mut held) = fair();
        fates.insert((1, 4), WriteFate::Unknown);
        fates.insert((2, 4), WriteFate::Unknown);
        lose(&mut held, (1, 4));
        let right = Audit { acknowledged: 10, found: 10, unknown_found: 1, unknown_not_found: 1, ..Audit::default() };
        assert_eq!(audit(&fates, &held), right);
        write(&mut held, (2, 4));
        assert_eq!(audit(&fates, &held).doubled, [(2, 4)].into());
    }

    #[test]
    fn what_nobody_asked_to_commit_is_unasked() {
        let (mut fates, mut held) = fair();
        fates.insert((3, 5), WriteFate::Undone);
        assert_eq!(audit(&fates, &held).unasked, [].into());
        write(&mut held, (3, 5));
        write(&mut held, (9, 1));
        assert_eq!(audit(&fates, &held).unasked, [(3, 5), (9, 1)].into());
    }

    #[test]
    fn half_a_transaction_is_torn() {
        let (fates, mut held) = fair();
        held.writes.remove(&(3, 1));
        let expected =
            Audit { acknowledged: 12, found: 11, missing: [(3, 1)].into(), torn: [3].into(), ..Audit::default() };
        assert_eq!(audit(&fates, &held), expected);
        let (fates, mut held) = fair();
        held.tallies.remove(&1);
        held.tallies.get_mut(&2).unwrap().sum += 1;
        held.tallies.insert(8, WrittenRows { count: 1, sum: 1 });
        assert_eq!(audit(&fates, &held).torn, [1, 2, 8].into());
    }

    #[test]
    fn a_changed_value_is_unasked() {
        let (fates, mut held) = fair();
        held.writes.get_mut(&(1, 2)).unwrap().sum += 1;
        let audit = audit(&fates, &held);
        assert_eq!((audit.unasked, audit.torn), ([(1, 2)].into(), [1].into()));
    }

    #[test]
    fn only_what_was_on_the_lost_primary_was_in_flight() {
        let gone = Instant::now();
        let loss = WriteLoss { address: "127.0.0.1:13000".into(), gone };
        let before = gone - Duration::from_millis(1);
        let after = gone + Duration::from_millis(1);
        let named = "the connection to the server 127.0.0.1:13000 was lost";
        use WriterActivity::{Connecting, Reading, Writing};
        for (activity, began, code, words, expected) in [
            (Writing, before, Some("08006"), "x", true),
            (Writing, before, Some("57P02"), "x", true),
            (Reading, before, Some("08006"), named, true),
            (Writing, after, Some("08006"), named, false),
            (Writing, before, Some("57P03"), named, false),
            (Writing, before, None, named, false),
            (Reading, before, Some("08006"), "the connection to the server 127.0.0.1:13001 was lost", false),
            (Connecting, before, Some("08006"), named, false),
        ] {
            let mishap = Mishap { client: 1, activity, began, code: code.map(str::to_owned), words: words.to_owned() };
            assert_eq!(mishap.was_in_flight(&loss), expected, "{mishap:?}");
        }
    }
}
