//! The table that `poolhouse demo --check` prints, and what there is to object to.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    time::{Duration, Instant},
};

use poolhouse_lab::{
    ledger::{Audit, Mishap, WriteKey, WriteLoss, WriterActivity},
    load::{LoadServed, Record},
};

/// Of things that should not be, so many are shown.
const EXAMPLES_MAX: usize = 5;

/// One node, and what it answered.
#[derive(Debug, Clone)]
pub struct NodeLine {
    pub name: String,
    pub address: String,
    pub role: &'static str,
    pub served: LoadServed,
    /// It was a replica when the load began.
    pub is_replica: bool,
}

/// Everything that is known after a check.
#[derive(Debug, Clone)]
pub struct Report {
    pub nodes: Vec<NodeLine>,
    pub audit: Audit,
    pub record: Record,
    pub loss: WriteLoss,
    /// When the primary was killed, before it was surely gone.
    pub killed: Instant,
    /// From the beginning of the load to its end.
    pub span: (Instant, Instant),
    /// Replicas that do not hold what the new primary holds.
    pub differing: Vec<String>,
}

impl Report {
    /// Why the check has failed; nothing when it has not.
    pub fn objections(&self) -> Vec<String> {
        let mut objections = Vec::new();
        let mut object = |number: usize, what: &str, examples: String| {
            if number > 0 {
                objections.push(format!("{what}: {number}{examples}"));
            }
        };
        let audit = &self.audit;
        object(audit.missing.len(), "acknowledged commits that are missing", keys(&audit.missing));
        object(audit.doubled.len(), "writes that are there more than once", keys(&audit.doubled));
        object(audit.unasked.len(), "rows that nobody asked to commit", keys(&audit.unasked));
        object(audit.torn.len(), "clients whose transactions are there by half", list(&audit.torn, u32::to_string));
        object(self.differing.len(), "replicas unlike the primary", list(&self.differing, String::clone));
        let elsewhere: Vec<&Mishap> = self.elsewhere().collect();
        object(elsewhere.len(), "errors where nothing was in flight", list(&elsewhere, |mishap| self.describe(mishap)));
        let stale = &self.record.stale;
        object(stale.len(), "reads that did not show their session's own writes", {
            list(stale, |read| {
                format!("client {} wrote {} and was shown {} by {}", read.client, read.written, read.shown, read.port)
            })
        });
        objections.extend(self.idleness().map(str::to_owned));
        objections
    }

    /// A check in which little happened proves nothing.
    fn idleness(&self) -> impl Iterator<Item = &'static str> {
        let acknowledged = &self.record.acknowledged;
        let replicas = self.nodes.iter().filter(|node| node.is_replica);
        [
            (
                acknowledged.iter().any(|at| *at < self.killed),
                "no write was acknowledged before the primary was killed",
            ),
            (
                acknowledged.iter().any(|at| *at > self.loss.gone),
                "no write was acknowledged after the primary was killed",
            ),
            (replicas.clone().any(|node| node.served.writes > 0), "no node but the first ever took a write"),
            (replicas.clone().any(|node| node.served.reads > 0), "no replica ever answered a read"),
        ]
        .into_iter()
        .filter_map(|(holds, objection)| (!holds).then_some(objection))
    }

    fn elsewhere(&self) -> impl Iterator<Item = &Mishap> {
        self.record.mishaps.iter().filter(|mishap| !mishap.was_in_flight(&self.loss))
    }

    fn in_flight(&self) -> impl Iterator<Item = &Mishap> {
        self.record.mishaps.iter().filter(|mishap| mishap.was_in_flight(&self.loss))
    }

    fn describe(&self, mishap: &Mishap) -> String {
        let doing = match mishap.activity {
            WriterActivity::Connecting => "connecting",
            WriterActivity::Reading => "reading",
            WriterActivity::Writing => "writing",
        };
        let (code, words) = (mishap.code.as_deref().unwrap_or("no SQLSTATE"), &mishap.words);
        let when = match mishap.began.checked_duration_since(self.killed) {
            Some(after) => format!("{:.3} s after the kill", after.as_secs_f64()),
            None => format!("{:.3} s before the kill", (self.killed - mishap.began).as_secs_f64()),
        };
        format!("client {}, {doing}, {when}: {code}: {words}", mishap.client)
    }

    /// The longest time after a write in which no other was acknowledged, and when it began, counted from the start.
    fn gap(&self) -> (Duration, Duration) {
        let (start, end) = self.span;
        let mut moments = self.record.acknowledged.clone();
        moments.push(end);
        moments.sort_unstable();
        let gaps = moments.windows(2).map(|pair| (pair[1] - pair[0], pair[0] - start));
        gaps.max().unwrap_or_default()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<54}{:>10}{:>10}", "statements by node", "reads", "writes")?;
        for NodeLine { name, address, role, served, .. } in &self.nodes {
            let node = format!("  {name}  {address}  {role}");
            writeln!(f, "{node:<54}{:>10}{:>10}", served.reads, served.writes)?;
        }
        writeln!(f, "errors that clients saw")?;
        line(f, "  in flight on the lost primary", self.in_flight().count(), &codes(self.in_flight()))?;
        line(f, "  elsewhere", self.elsewhere().count(), &codes(self.elsewhere()))?;
        let (gap, at) = self.gap();
        let at = format!("from second {:.1}", at.as_secs_f64());
        line(f, "seconds without writes", format!("{:.2}", gap.as_secs_f64()), &at)?;
        let audit = &self.audit;
        writeln!(f, "commits")?;
        line(f, "  acknowledged", audit.acknowledged, "")?;
        line(f, "  acknowledged and found", audit.found, "")?;
        line(f, "  missing", audit.missing.len(), "")?;
        line(f, "  doubled", audit.doubled.len(), "")?;
        line(f, "  answer lost, looked for and found", self.seen(), "")?;
        line(f, "  answer lost, looked for, not found and done again", self.record.repeated, "")?;
        let unknown = audit.unknown_found + audit.unknown_not_found;
        let found = format!("{} found", audit.unknown_found);
        line(f, "  answer lost when the load ended", unknown, if unknown > 0 { &found } else { "" })?;
        line(f, "reads that missed their session's own writes", self.record.stale.len(), "")?;
        let objections = self.objections();
        if objections.is_empty() {
            return write!(f, "PASSED: every promise held");
        }
        writeln!(f, "FAILED:")?;
        objections.iter().try_for_each(|objection| writeln!(f, "- {objection}"))
    }
}

impl Report {
    fn seen(&self) -> usize {
        self.record.fates.values().filter(|fate| **fate == poolhouse_lab::ledger::WriteFate::Seen).count()
    }
}

fn line(f: &mut Formatter<'_>, what: &str, number: impl Display, more: &str) -> fmt::Result {
    writeln!(f, "{}", format!("{what:<54}{number:>10}  {more}").trim_end())
}

/// `08006 × 12, 57P01 × 1`.
fn codes<'a>(mishaps: impl Iterator<Item = &'a Mishap>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for mishap in mishaps {
        *counts.entry(mishap.code.as_deref().unwrap_or("no SQLSTATE")).or_default() += 1;
    }
    let counts: Vec<String> = counts.into_iter().map(|(code, count)| format!("{code} × {count}")).collect();
    counts.join(", ")
}

fn keys<'a>(keys: impl IntoIterator<Item = &'a WriteKey>) -> String {
    list(keys, |(client, sequence)| format!("client {client}'s write {sequence}"))
}

/// The first few, each on a line.
fn list<'a, T: 'a>(things: impl IntoIterator<Item = &'a T>, describe: impl Fn(&T) -> String) -> String {
    let things = things.into_iter().take(EXAMPLES_MAX);
    things.map(|thing| format!("\n    {}", describe(thing))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use poolhouse_lab::{ledger::WriteFate, load::StaleRead};

    /// A check in which all went well.
    fn fair() -> Report {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let node = |number: u16, is_replica, served| NodeLine {
            name: format!("node{number}"),
            address: format!("127.0.0.1:{}", 13_000 + number),
            role: "replica",
            served,
            is_replica,
        };
        let in_flight = Mishap {
            client: 3,
            activity: WriterActivity::Writing,
            began: at(3999),
            code: Some("08006".into()),
            words: "lost".into(),
        };
        let record = Record {
            fates: [((1, 1), WriteFate::Acknowledged), ((3, 1), WriteFate::Seen)].into(),
            acknowledged: vec![at(1000), at(3900), at(5150)],
            mishaps: vec![in_flight],
            ..Record::default()
        };
        Report {
            nodes: vec![
                node(1, false, LoadServed { reads: 5, writes: 2 }),
                node(2, true, LoadServed { reads: 5, writes: 1 }),
                node(3, true, LoadServed { reads: 5, writes: 0 }),
            ],
            audit: Audit { acknowledged: 3, found: 3, ..Audit::default() },
            record,
            loss: WriteLoss { address: "127.0.0.1:13001".into(), gone: at(4010) },
            killed: at(4000),
            span: (start, at(6000)),
            differing: Vec::new(),
        }
    }

    #[test]
    fn a_fair_check_passes() {
        let report = fair();
        assert_eq!(report.objections(), Vec::<String>::new());
        let text = report.to_string();
        assert!(text.ends_with("PASSED: every promise held"), "{text}");
        let gap = text.lines().find(|line| line.starts_with("seconds without writes")).unwrap();
        assert!(gap.ends_with("2.90  from second 1.0"), "{gap}");
        let in_flight = text.lines().find(|line| line.contains("in flight")).unwrap();
        assert!(in_flight.ends_with("1  08006 × 1"), "{in_flight}");
    }

    /// Plants one thing and expects one objection with these words.
    fn check(plant: impl FnOnce(&mut Report), words: &str) {
        let mut report = fair();
        plant(&mut report);
        let objections = report.objections();
        assert_eq!(objections.len(), 1, "{objections:?}");
        assert!(objections[0].contains(words), "{objections:?}");
        assert!(report.to_string().contains("FAILED"));
    }

    #[test]
    fn every_broken_promise_is_an_objection() {
        check(|report| _ = report.audit.missing.insert((1, 7)), "client 1's write 7");
        check(|report| _ = report.audit.doubled.insert((1, 7)), "more than once: 1");
        check(|report| _ = report.audit.unasked.insert((1, 7)), "nobody asked");
        check(|report| _ = report.audit.torn.insert(4), "by half");
        check(|report| report.differing.push("node3".into()), "node3");
        let stale = StaleRead { client: 2, port: 13_003, written: 9, shown: 8 };
        check(|report| report.record.stale.push(stale), "client 2 wrote 9 and was shown 8 by 13003");
    }

    #[test]
    fn an_error_between_transactions_is_an_objection() {
        let late = |report: &mut Report| report.record.mishaps[0].began = report.loss.gone + Duration::from_millis(1);
        check(
            late,
            "errors where nothing was in flight: 1\n    client 3, writing, 0.011 s after the kill: 08006: lost",
        );
        check(|report| report.record.mishaps[0].code = None, "no SQLSTATE");
        check(|report| report.record.mishaps[0].activity = WriterActivity::Reading, "client 3, reading");
    }

    #[test]
    fn an_idle_load_is_an_objection() {
        check(|report| _ = report.record.acknowledged.pop(), "after the primary was killed");
        check(|report| _ = report.record.acknowledged.drain(..2), "before the primary was killed");
        check(|report| report.nodes[1].served.writes = 0, "no node but the first");
        check(
            |report| report.nodes.iter_mut().filter(|node| node.is_replica).for_each(|node| node.served.reads = 0),
            "no replica ever",
        );
    }
}
