//! What is wrong with a configuration, said so that it can be mended: where, which key, what, and what to write
//! instead. `Findings` collects all of them, so that nobody has to mend one at a time.

use std::fmt;

use super::{Loaded, Settings};

/// One thing that is wrong, or, as a warning, odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file, flag or environment variable that was read.
    pub source: String,
    /// From 1; `None` when no single line is to blame.
    pub line: Option<usize>,
    /// The path of the key, like `pool.checkout_timeout`; empty when no key is to blame.
    pub key: String,
    pub what: String,
    /// What to write instead.
    pub mend: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.source)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.what)?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, "; {}", self.mend) }
    }
}

/// Why there are no settings: everything that was found. Displayed one per line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes {
    /// At least one, in the order of their lines.
    pub mistakes: Vec<Mistake>,
    /// What would not have stopped it.
    pub warnings: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let end_of_last = if index == 0 { "" } else { "\n" };
            write!(f, "{end_of_last}{mistake}")?;
        }
        Ok(())
    }
}

/// Where a key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub key: String,
    pub line: Option<usize>,
}

impl Place {
    /// A key that is not there, or a place without lines.
    pub fn absent(key: &str) -> Place {
        Place { key: key.to_owned(), line: None }
    }
}

/// What is wrong with one value, before its place is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub what: String,
    pub mend: String,
}

impl Wrong {
    pub fn new(what: impl Into<String>, mend: impl Into<String>) -> Wrong {
        Wrong { what: what.into(), mend: mend.into() }
    }
}

/// Collects what is found while one source is read.
#[derive(Debug)]
pub(super) struct Findings {
    source: String,
    /// The offset of the first byte of each line.
    line_starts: Vec<usize>,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
    notes: Vec<Mistake>,
}

impl Findings {
    /// `source` names where `text` comes from, as messages shall say it.
    pub fn new(source: &str, text: &str) -> Findings {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1);
        Findings {
            source: source.to_owned(),
            line_starts: std::iter::once(0).chain(ends).collect(),
            mistakes: Vec::new(),
            warnings: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The line, from 1, of a byte offset into the text.
    pub fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    pub fn mistake(&mut self, place: &Place, what: impl Into<String>, mend: impl Into<String>) {
        let mistake = self.at(place, what.into(), mend.into());
        self.add(mistake);
    }

    pub fn wrong(&mut self, place: &Place, wrong: Wrong) {
        self.mistake(place, wrong.what, wrong.mend);
    }

    /// A mistake in another source than the one that is read.
    pub fn add(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    pub fn warning(&mut self, place: &Place, what: impl Into<String>, mend: impl Into<String>) {
        let warning = self.at(place, what.into(), mend.into());
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Nothing is wrong, and somebody may want to know.
    pub fn note(&mut self, place: &Place, what: impl Into<String>) {
        let note = self.at(place, what.into(), String::new());
        self.notes.push(note);
    }

    fn at(&self, place: &Place, what: String, mend: String) -> Mistake {
        Mistake { source: self.source.clone(), line: place.line, key: place.key.clone(), what, mend }
    }

    /// The settings, when nothing is wrong with them.
    pub fn finish(mut self, settings: Settings) -> Result<Loaded, Mistakes> {
        self.warnings.sort_by_key(|warning| warning.line);
        if self.mistakes.is_empty() {
            return Ok(Loaded { settings, warnings: self.warnings, notes: self.notes });
        }
        Err(self.refuse())
    }

    /// Everything that was found, in the order of the lines; other sources come after the one that was read.
    pub fn refuse(mut self) -> Mistakes {
        let source = self.source;
        self.mistakes.sort_by_key(|mistake| (mistake.source != source, mistake.line));
        Mistakes { mistakes: self.mistakes, warnings: self.warnings }
    }
}
