//! The one question that a probe asks, and what its answer means. Works on PostgreSQL 14 and later, for any user; what
//! a user may not see is told by `Sight`.

use std::time::{Duration, Instant};

use poolhouse_core::topology::{NodeProbe, Receiver, Role};

/// What comes before the question for a user that may not call pg_control_*: the columns stay, empty.
const BLIND: &str = "NULL, NULL, NULL";
/// System identifier, and what a replica without a receiver can tell of its timeline. Executable by everybody unless
/// an administrator revoked it.
const CONTROL: &str = "(SELECT system_identifier FROM pg_control_system()), \
     (SELECT timeline_id FROM pg_control_checkpoint()), \
     (SELECT min_recovery_end_timeline FROM pg_control_recovery())";

/// The question, in one round trip. `with_control` = ask pg_control_* too.
///
/// The position of a primary is where it inserts: a commit with synchronous_commit = off is acknowledged before it is
/// flushed. Its timeline is taken from the name of the WAL file, because the control file follows a promotion late.
fn question(with_control: bool) -> String {
    let control = if with_control { CONTROL } else { BLIND };
    format!(
        "WITH me AS MATERIALIZED (SELECT pg_is_in_recovery() AS recovering), \
         here AS MATERIALIZED (SELECT recovering, CASE WHEN recovering THEN pg_last_wal_replay_lsn() \
         ELSE pg_current_wal_insert_lsn() END AS lsn FROM me) \
         SELECT recovering, lsn, \
         CASE WHEN NOT recovering THEN pg_walfile_name(lsn) END, \
         CASE WHEN NOT recovering THEN (pg_walfile_name_offset(lsn)).file_offset END, \
         current_setting('wal_block_size'), \
         CASE WHEN recovering THEN pg_last_wal_receive_lsn() END, \
         pid, status, received_tli, {control}, \
         (EXTRACT(EPOCH FROM clock_timestamp() - last_msg_receipt_time) * 1000)::bigint, \
         (SELECT count(*) FROM pg_stat_get_wal_senders()) \
         FROM here LEFT JOIN pg_stat_wal_receiver ON true"
    )
}

/// Prepares [`question`] on a connection, and asks it.
pub(super) fn first_question(with_control: bool) -> String {
    format!("DEALLOCATE ALL; PREPARE poolhouse AS {}; {REPEATED}", question(with_control))
}

/// Asks once more what [`first_question`] has prepared.
pub(super) const REPEATED: &str = "EXECUTE poolhouse";

/// What the user that asks may not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    /// There is a receiver, and its row is empty.
    pub receiver_hidden: bool,
}

/// An answer that is none of PostgreSQL's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server's answer to the health check makes no sense: column {column} is {value:?}")]
pub(super) struct Nonsense {
    column: usize,
    value: Option<String>,
}

/// Reads the answer to [`question`], which was sent at `started`.
pub(super) fn read(rows: &[Vec<Option<String>>], started: Instant) -> Result<(NodeProbe, Sight), Nonsense> {
    let row = Row(rows.first().map_or(&[], Vec::as_slice));
    let role = match row.text(0) {
        Some("t") => Role::Replica,
        Some("f") => Role::Primary,
        _ => return Err(row.nonsense(0)),
    };
    let status = row.text(7);
    // A clock that was set back shows a time to come.
    let silent_ms = row.text(12).and_then(|text| text.parse::<i64>().ok()).map(|ms| ms.max(0).cast_unsigned());
    let receiver = row.text(6).map(|_| Receiver {
        streaming: status.is_none_or(|status| status == "streaming"),
        heard: silent_ms.and_then(|ms| started.checked_sub(Duration::from_millis(ms))),
    });
    let probe = match role {
        Role::Primary => {
            let lsn = row.lsn(1)?.ok_or_else(|| row.nonsense(1))?;
            let lsn = without_header(lsn, row.number(3)?.unwrap_or(0), row.number(4)?.unwrap_or(0));
            NodeProbe {
                started,
                role,
                timeline: row.file_timeline(2)?,
                system_identifier: row.number(9)?,
                lsn,
                received: lsn,
                receiver: None,
                senders: row.number(13)?.unwrap_or(0) as u32,
            }
        }
        Role::Replica => {
            let timelines = [row.number(8)?, row.number(10)?, row.number(11)?];
            NodeProbe {
                started,
                role,
                timeline: timelines.into_iter().flatten().max().unwrap_or(0) as u32,
                system_identifier: row.number(9)?,
                lsn: row.lsn(1)?.unwrap_or(0),
                received: row.lsn(5)?.unwrap_or(0),
                receiver,
                senders: row.number(13)?.unwrap_or(0) as u32,
            }
        }
    };
    Ok((probe, Sight { receiver_hidden: receiver.is_some() && status.is_none() }))
}

/// A position just behind the header of a page, where the next record will start, as the end of the page before: no
/// replica gets there until something is written. The sizes are those of XLogLongPageHeaderData, at the start of a
/// file, and XLogPageHeaderData.
fn without_header(lsn: u64, file_offset: u64, page_bytes: u64) -> u64 {
    const FILE_HEADER_BYTES: u64 = 40;
    const PAGE_HEADER_BYTES: u64 = 24;
    if file_offset == FILE_HEADER_BYTES {
        lsn.saturating_sub(FILE_HEADER_BYTES)
    } else if page_bytes > 0 && file_offset % page_bytes == PAGE_HEADER_BYTES {
        lsn.saturating_sub(PAGE_HEADER_BYTES)
    } else {
        lsn
    }
}

struct Row<'a>(&'a [Option<String>]);

impl Row<'_> {
    fn text(&self, column: usize) -> Option<&str> {
        self.0.get(column)?.as_deref()
    }

    fn number(&self, column: usize) -> Result<Option<u64>, Nonsense> {
        // A system identifier is shown as a signed number.
        let parse = |text: &str| text.parse::<u64>().ok().or_else(|| text.parse::<i64>().ok().map(i64::cast_unsigned));
        self.text(column).map(|text| parse(text).ok_or_else(|| self.nonsense(column))).transpose()
    }

    /// `1A/2B`: the upper and the lower half in hexadecimal.
    fn lsn(&self, column: usize) -> Result<Option<u64>, Nonsense> {
        let half = |text: &str| u32::from_str_radix(text, 16).ok().map(u64::from);
        let parse = |text: &str| {
            let (upper, lower) = text.split_once('/')?;
            Some((half(upper)? << 32) | half(lower)?)
        };
        self.text(column).map(|text| parse(text).ok_or_else(|| self.nonsense(column))).transpose()
    }

    /// The name of a WAL file starts with its timeline: eight hexadecimal digits.
    fn file_timeline(&self, column: usize) -> Result<u32, Nonsense> {
        let digits = self.text(column).and_then(|name| name.get(..8));
        digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or_else(|| self.nonsense(column))
    }

    fn nonsense(&self, column: usize) -> Nonsense {
        Nonsense { column, value: self.text(column).map(str::to_owned) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(row: [&str; 14]) -> Result<(NodeProbe, Sight), Nonsense> {
        let value = |text: &&str| (!text.is_empty()).then(|| (*text).to_owned());
        read(&[row.iter().map(value).collect()], Instant::now())
    }

    #[test]
    fn reads_a_primary() {
        let (probe, sight) = check([
            "f",
            "1/4000100",
            "0000000200000001000000 04",
            "256",
            "8192",
            "",
            "",
            "",
            "",
            "7711829889908768382",
            "1",
            "0",
            "",
            "2",
        ])
        .expect("an answer of a server");
        assert_eq!((probe.role, probe.timeline, probe.lsn), (Role::Primary, 2, 0x1_0400_0100));
        assert_eq!(probe.senders, 2);
        assert_eq!((probe.received, probe.system_identifier), (probe.lsn, Some(7_711_829_889_908_768_382)));
        assert_eq!(sight, Sight { receiver_hidden: false });
    }

    #[test]
    fn reads_replicas() {
        let streams = |status, timeline| {
            check(["t", "0/10", "", "", "8192", "0/20", "4711", status, timeline, "-5", "1", "2", "250", ""])
                .expect("an answer of a server")
        };
        let (probe, sight) = streams("streaming", "3");
        assert_eq!((probe.role, probe.timeline, probe.lsn, probe.received), (Role::Replica, 3, 0x10, 0x20));
        assert_eq!(probe.system_identifier, Some(u64::MAX - 4));
        assert!(probe.hears_primary() && !sight.receiver_hidden);
        let heard = probe.receiver.and_then(|receiver| receiver.heard).expect("it was told");
        assert_eq!(probe.started.duration_since(heard), Duration::from_millis(250));
        assert!(!streams("waiting", "3").0.hears_primary());
        let (probe, sight) = streams("", "");
        assert!(probe.hears_primary() && sight.receiver_hidden, "not allowed to see it: it may well stream");
        assert_eq!(probe.timeline, 2);
        let (probe, _) = check(["t", "", "", "", "8192", "", "", "", "", "", "", "", "", ""]).expect("a bare answer");
        assert_eq!((probe.timeline, probe.lsn, probe.receiver, probe.system_identifier), (0, 0, None, None));
    }

    #[test]
    fn a_position_behind_a_page_header_is_the_end_of_the_page_before() {
        for (lsn, offset, expected) in [
            (0x400_0028, 0x28, 0x400_0000),
            (0x400_2018, 0x2018, 0x400_2000),
            (0x400_2028, 0x2028, 0x400_2028),
            (0x400_2020, 0x2020, 0x400_2020),
        ] {
            assert_eq!(without_header(lsn, offset, 8192), expected, "{lsn:x}");
        }
    }

    #[test]
    fn refuses_nonsense() {
        assert!(read(&[], Instant::now()).is_err());
        for (column, value) in [(0, "maybe"), (1, "12"), (1, "x/y"), (2, "short"), (9, "many")] {
            let mut row =
                ["f", "0/10", "000000010000000000000001", "16", "8192", "", "", "", "", "1", "1", "1", "", "1"];
            row[column] = value;
            assert_eq!(check(row), Err(Nonsense { column, value: Some(value.into()) }));
        }
    }
}
