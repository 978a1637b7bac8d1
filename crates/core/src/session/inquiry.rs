//! What the functions are that a transaction has called. A census tells of a moment that has passed, and functions are made
//! and changed beside Poolhouse: so behind every transaction that calls functions of the database's own the server is asked
//! whether they, and all that they call, still are what the census knows. What is not known, or is not that any more, is
//! read there and then, call by call, for the settings that it names: the server can tell of these only by their names.

use std::collections::BTreeSet;

use super::database_code::DatabaseCode;
use crate::sql::{
    Catalog,
    census::{CUSTOMS_MAX, CatalogRow, NAMED_MAX, Version, array_of, functions_named, stamp, version_of},
};

/// Most questions about one transaction: how deep calls are followed.
const ROUNDS_MAX: u32 = 12;

/// What is found out about one transaction.
#[derive(Debug, Default)]
pub struct Inquiry {
    /// The functions that it has called, as far as their names tell.
    called: BTreeSet<Box<str>>,
    /// The census lacks some of them.
    unknown: bool,
    /// What the server was asked for.
    asked: Asked,
    rounds: u32,
    /// All names that were looked at.
    named: BTreeSet<Box<str>>,
    catalog: Catalog,
    /// The sum of the stamps that the server has told of.
    stamps: u64,
    /// Nobody can tell what all of it may have done.
    unfathomed: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Asked {
    #[default]
    Nothing,
    /// Whether the functions are those of the census.
    Version(Version),
    /// What the functions of these names are.
    Functions(Vec<Box<str>>),
    /// Their settings, which are known now.
    Settings,
}

/// What comes of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The functions are those that are known.
    Known,
    /// They are not: what they are is asked next, and all that the server can tell of the session.
    Changed,
    /// More is to be read.
    More,
    /// All is read, and the server is asked once more, for these settings, too.
    Settings(Vec<Box<str>>),
    /// All is read. Whether it may have changed what the server cannot tell of.
    Read { sets_any: bool },
}

impl Inquiry {
    /// The transaction calls these, or may. `unknown` says that some of them are not in the census.
    pub fn call<'n>(&mut self, names: impl Iterator<Item = &'n Box<str>>, unknown: bool) {
        self.unknown |= unknown;
        for name in names {
            if self.called.len() > NAMED_MAX {
                self.unfathomed = true;
            } else if !self.called.contains(name) {
                self.called.insert(name.clone());
            }
        }
    }

    /// The same question is asked once more.
    pub fn forget_answer(&mut self) {
        (self.catalog, self.stamps) = (Catalog::default(), 0);
        if let Asked::Functions(_) = self.asked {
            self.named.clear();
            self.asked = Asked::Functions(self.called.iter().cloned().collect());
        }
    }

    /// A row of the answer that is about functions; false for any other one.
    pub fn row(&mut self, columns: &[Option<&[u8]>]) -> bool {
        let kind = columns.first().copied().flatten();
        if !matches!(kind, Some(b"f" | b"v")) {
            return false;
        }
        let texts = columns.iter().map(|column| column.map(std::str::from_utf8).transpose());
        let Ok(texts) = texts.collect::<Result<Vec<_>, _>>() else {
            // A name in another encoding is not to be followed.
            self.unfathomed = true;
            return true;
        };
        if kind == Some(b"f") {
            let row: CatalogRow = texts.into_iter().map(|text| text.map(str::to_owned)).collect();
            self.catalog.take(&[row]);
        } else if let [_, Some(oid), Some(xmin)] = texts[..] {
            let stamp = oid.parse().ok().and_then(|oid| stamp(oid, xmin));
            self.stamps = self.stamps.wrapping_add(stamp.unwrap_or_default());
        }
        true
    }

    /// Takes the front of a row of the answer that is too long to be looked into. False for a row of another question.
    pub fn long_row(&mut self, body: &[u8]) -> bool {
        let is_of_this = matches!(body, [_, _, 0, 0, 0, 1, b'f' | b'v', ..]);
        self.unfathomed |= is_of_this;
        is_of_this
    }

    /// Decides what is asked next.
    pub fn begin(&mut self, code: &DatabaseCode) {
        if self.asked == Asked::Nothing {
            let known = code.census().filter(|_| !self.unknown);
            let known = known.and_then(|census| census.version(self.called.iter().map(|name| &**name)));
            self.asked = match known {
                Some(version) => Asked::Version(version),
                None => Asked::Functions(self.called.iter().cloned().collect()),
            };
        }
        if let Asked::Functions(names) = &self.asked {
            self.named.extend(names.iter().cloned());
        }
        self.stamps = 0;
        self.rounds += 1;
    }

    /// The next question as a text; empty when there is none. For `parsed` see [`functions_named`].
    pub fn text(&self, parsed: bool) -> String {
        match &self.asked {
            Asked::Nothing | Asked::Settings => String::new(),
            Asked::Version(version) => version_of(version.names.iter().map(|name| &**name)),
            Asked::Functions(names) => functions_named(names.iter().map(|name| &**name), parsed),
        }
    }

    /// The parameter of the question that is prepared, when that is the next one.
    pub fn parameter(&self) -> Option<String> {
        let Asked::Version(version) = &self.asked else { return None };
        Some(array_of(version.names.iter().map(|name| &**name)))
    }

    /// The question is answered.
    pub fn settle(&mut self, known: &[Box<str>]) -> Outcome {
        match std::mem::take(&mut self.asked) {
            Asked::Version(version) if self.stamps == version.stamps && !self.unfathomed => Outcome::Known,
            Asked::Version(_) => {
                self.asked = Asked::Functions(self.called.iter().cloned().collect());
                Outcome::Changed
            }
            Asked::Functions(_) => {
                let more: BTreeSet<_> = self.catalog.calls().filter(|name| !self.named.contains(*name)).collect();
                let more: Vec<Box<str>> = more.into_iter().map(Box::from).collect();
                self.unfathomed |= self.named.len() + more.len() > NAMED_MAX || self.rounds > ROUNDS_MAX;
                if !more.is_empty() && !self.unfathomed {
                    self.asked = Asked::Functions(more);
                    return Outcome::More;
                }
                let customs: BTreeSet<_> = self.catalog.customs().collect();
                self.unfathomed |= customs.len() > CUSTOMS_MAX;
                let news = customs.into_iter().filter(|name| !known.iter().any(|known| **known == **name));
                let news: Vec<Box<str>> = news.take(CUSTOMS_MAX).map(Box::from).collect();
                if news.is_empty() {
                    return self.read();
                }
                self.asked = Asked::Settings;
                Outcome::Settings(news)
            }
            Asked::Nothing | Asked::Settings => self.read(),
        }
    }

    fn read(&self) -> Outcome {
        Outcome::Read { sets_any: self.unfathomed || self.catalog.sets_any() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sql::Census;

    /// A function of SQL: oid, name, source and stamp.
    fn function(oid: &str, name: &str, source: &str, stamp: &str) -> CatalogRow {
        let columns = ["f", oid, name, "sql", "v", "f", source, "", "", "", "f", stamp];
        columns.iter().map(|column| Some((*column).to_owned())).collect()
    }

    fn known(rows: &[CatalogRow]) -> DatabaseCode {
        let code = DatabaseCode::default();
        let mut catalog = Catalog::default();
        catalog.take(rows);
        code.publish(code.changes(), Some(Arc::new(Census::of(&catalog))));
        code
    }

    fn answer(inquiry: &mut Inquiry, rows: &[CatalogRow]) {
        for row in rows {
            let columns: Vec<_> = row.iter().map(|column| column.as_deref().map(str::as_bytes)).collect();
            assert!(inquiry.row(&columns));
        }
        assert!(!inquiry.row(&[Some(b"s"), Some(b"work_mem"), None]));
    }

    fn version(oid: &str, xmin: &str) -> CatalogRow {
        vec![Some("v".into()), Some(oid.into()), Some(xmin.into())]
    }

    fn question(inquiry: &mut Inquiry, code: &DatabaseCode) -> String {
        inquiry.begin(code);
        inquiry.text(true)
    }

    fn inquiry(names: &[&str], unknown: bool) -> Inquiry {
        let mut inquiry = Inquiry::default();
        let names: Vec<Box<str>> = names.iter().map(|name| Box::from(*name)).collect();
        inquiry.call(names.iter(), unknown);
        inquiry
    }

    #[test]
    fn functions_that_are_what_they_were_cost_one_question() {
        let code = known(&[function("20001", "f", "SELECT g()", "5"), function("20002", "g", "SELECT 1", "7")]);
        let mut inquiry = inquiry(&["f"], false);
        let text = question(&mut inquiry, &code);
        assert!(text.contains("IN (E'f',E'g')") && text.contains("'v'"), "{text}");
        assert_eq!(inquiry.parameter().as_deref(), Some("{\"f\",\"g\"}"));
        answer(&mut inquiry, &[version("20002", "7"), version("20001", "5")]);
        assert_eq!(inquiry.settle(&[]), Outcome::Known);
    }

    #[test]
    fn functions_that_have_changed_are_read_with_all_that_they_call() {
        let code = known(&[function("20001", "f", "SELECT 1", "5")]);
        let mut inquiry = inquiry(&["f"], false);
        question(&mut inquiry, &code);
        answer(&mut inquiry, &[version("20001", "6")]);
        assert_eq!(inquiry.settle(&[]), Outcome::Changed);
        assert!(question(&mut inquiry, &code).contains("IN (E'f')"));
        answer(&mut inquiry, &[function("20001", "f", "SELECT h(), lower('x')", "6")]);
        assert_eq!(inquiry.settle(&[]), Outcome::More);
        assert!(question(&mut inquiry, &code).contains("IN (E'h')"));
        answer(&mut inquiry, &[function("20003", "h", "SELECT set_config('a.b', f(), false)", "8")]);
        assert_eq!(inquiry.settle(&["x.y".into()]), Outcome::Settings(vec!["a.b".into()]));
        assert_eq!(question(&mut inquiry, &code), "");
        assert_eq!(inquiry.settle(&["x.y".into(), "a.b".into()]), Outcome::Read { sets_any: false });
    }

    #[test]
    fn what_the_census_lacks_is_read_at_once() {
        for code in [known(&[]), DatabaseCode::default()] {
            let mut inquiry = inquiry(&["f"], code.census().is_some());
            assert!(question(&mut inquiry, &code).starts_with("SELECT 'f'"));
            answer(&mut inquiry, &[function("20001", "f", "SELECT set_config('a.b', '', false)", "1")]);
            assert_eq!(inquiry.settle(&["a.b".into()]), Outcome::Read { sets_any: false });
        }
    }

    #[test]
    fn what_cannot_be_read_may_set_anything() {
        let code = known(&[]);
        let mut one = inquiry(&["f"], true);
        question(&mut one, &code);
        answer(&mut one, &[function("20001", "f", "SELECT set_config($1, '', false)", "1")]);
        assert_eq!(one.settle(&[]), Outcome::Read { sets_any: true });
        // Too many, and calls without an end.
        let names: Vec<String> = (0..NAMED_MAX + 5).map(|at| format!("f{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut many = inquiry(&names, true);
        question(&mut many, &code);
        assert_eq!(many.settle(&[]), Outcome::Read { sets_any: true });
        let mut deep = inquiry(&["f0"], true);
        let rounds = (0..=ROUNDS_MAX).find(|round| {
            question(&mut deep, &code);
            answer(&mut deep, &[function("20001", &format!("f{round}"), &format!("SELECT f{}()", round + 1), "1")]);
            deep.settle(&[]) != Outcome::More
        });
        assert_eq!(rounds, Some(ROUNDS_MAX));
    }
}
