//! The file as it is written, with the line of every value. Broken TOML and unknown keys are reported here; which keys there
//! are is said in `keys`, and what the values mean is for `check` and its parts.

use toml::de::{DeTable, DeValue};

use super::{
    declare::Section,
    foreign,
    keys::SECTIONS,
    mistake::{Findings, Place},
};
use poolhouse_core::session::nearest_word;

/// One value of the file and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Item<'d> {
    pub place: Place,
    pub value: &'d DeValue<'d>,
}

/// A key of a table.
#[derive(Debug, Clone)]
pub(super) struct Entry<'d> {
    pub name: &'d str,
    pub item: Item<'d>,
}

impl<'d> Item<'d> {
    /// The keys of a table in the order in which they were written; a value that is no table is a mistake.
    pub fn entries(&self, findings: &mut Findings) -> Vec<Entry<'d>> {
        let DeValue::Table(table) = self.value else {
            self.wrong_kind("a table", &format!("write it as a section [{}]", self.place.key), findings);
            return Vec::new();
        };
        entries(table, &self.place.key, findings)
    }

    /// Says that the value is of another kind than the key wants.
    pub fn wrong_kind(&self, wanted: &str, mend: &str, findings: &mut Findings) {
        let kind = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        findings.mistake(&self.place, format!("is {kind} where {wanted} is expected"), mend);
    }
}

/// Parses the file. Broken lines are reported and left out; `None` when what is left would only mislead.
pub(super) fn parse<'d>(text: &'d str, findings: &mut Findings) -> Option<DeValue<'d>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut broken = false;
    let mut lines = Vec::new();
    for error in errors {
        let line = findings.line(error.span().map_or(0, |span| span.start));
        if lines.contains(&line) {
            continue;
        }
        lines.push(line);
        let place = Place { key: String::new(), line: Some(line) };
        if error.message().starts_with("duplicate key") {
            report_duplicate(&error, text, place, findings);
        } else if !broken {
            // What comes after it is most often broken by this one.
            broken = true;
            report_broken(&error, text, &place, findings);
        }
    }
    (!broken).then(|| DeValue::Table(document.into_inner()))
}

fn report_broken(error: &toml::de::Error, text: &str, place: &Place, findings: &mut Findings) {
    if let Some(kind) = foreign::kind_of_file(text) {
        let what = format!("looks like {kind}, and configuration files of Poolhouse are TOML");
        let place = Place::absent("");
        findings.mistake(&place, what, "`poolhouse check --reference` writes one with every key");
        return;
    }
    let what = format!("not TOML: {}", error.message());
    findings.mistake(place, what, "see https://toml.io for how it is written; what follows is looked at after that");
}

fn report_duplicate(error: &toml::de::Error, text: &str, mut place: Place, findings: &mut Findings) {
    let span = error.span().unwrap_or_default();
    place.key = text.get(span.clone()).unwrap_or_default().trim().to_owned();
    let what = match place.line.and_then(|line| first_place(text, line, &place.key)) {
        Some(first) => format!("is already there, in line {first}"),
        None => "is already there".to_owned(),
    };
    findings.mistake(&place, what, "keep one of them");
}

/// The line above this one where a key, or the section of this line, stands as well. A key is looked for in its section only.
fn first_place(text: &str, line: usize, key: &str) -> Option<usize> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let own = lines.get(line - 1)?;
    let above = lines[..line - 1].iter().enumerate().rev();
    if own.starts_with('[') {
        return lines[..line - 1].iter().position(|other| other == own).map(|at| at + 1);
    }
    let is_same = |other: &str| {
        let rest = other.strip_prefix(key).map(str::trim_start);
        rest.is_some_and(|rest| rest.starts_with(['=', '.']))
    };
    let section = above.take_while(|(_, other)| !other.starts_with('['));
    section.filter(|(_, other)| is_same(other)).map(|(at, _)| at + 1).last()
}

fn entries<'d>(table: &'d DeTable<'d>, path: &str, findings: &Findings) -> Vec<Entry<'d>> {
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    let entry = |(key, value): (&'d toml::Spanned<toml::de::DeString<'d>>, &'d toml::Spanned<DeValue<'d>>)| {
        let name: &str = key.get_ref();
        let place = Place { key: join(path, name), line: Some(findings.line(key.span().start)) };
        Entry { name, item: Item { place, value: value.get_ref() } }
    };
    keys.into_iter().map(entry).collect()
}

/// The path of a key as TOML would have it.
pub(super) fn join(path: &str, name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let name = if is_bare { name.to_owned() } else { format!("{name:?}") };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// A key that its section does not hold.
pub(super) fn unknown_key(entry: &Entry<'_>, section: &Place, known: &Section, findings: &mut Findings) {
    let at_top = known.at.is_empty();
    let what = match (entry.item.value, at_top) {
        (DeValue::Table(_), true) => format!("unknown section [{}]", entry.name),
        (_, true) => format!("unknown key `{}` outside of any section", entry.name),
        (_, false) => format!("unknown key `{}` in [{}]", entry.name, section.key),
    };
    let elsewhere =
        || SECTIONS.iter().find(|other| !other.at.is_empty() && other.names().any(|name| name == entry.name));
    // Outside of any section are sections only: what is a key by its very name is no slip of the pen.
    let near = || nearest_word(entry.name, known.names());
    let mend = if let Some(ours) = foreign::of_other_poolers(entry.name) {
        format!("here that is {ours}")
    } else if let Some(meant) = near().filter(|_| !at_top || elsewhere().is_none()) {
        format!("did you mean `{meant}`?")
    } else if let Some(other) = elsewhere() {
        format!("it belongs to [{}]", other.at.replace('*', "X"))
    } else {
        format!("known are {}", known.names().collect::<Vec<_>>().join(", "))
    };
    findings.mistake(&entry.item.place, what, mend);
}
