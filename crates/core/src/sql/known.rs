//! A text that has been judged, with what is learned of it later.

use std::{
    ops::Deref,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{normal::Called, verdict::Verdict};

/// What caches keep of a text, and sessions share: its verdict, how it is called, and what servers have taught.
#[derive(Debug, Default)]
pub struct KnownText {
    verdict: Verdict,
    called: Called,
    /// A replica has refused what looked like a read: it goes to the primary for as long as the text is known.
    refused: AtomicBool,
}

impl KnownText {
    /// A text that no replica has refused yet.
    pub fn new(verdict: Verdict, called: Called) -> KnownText {
        KnownText { verdict, called, refused: AtomicBool::new(false) }
    }

    /// What the text calls of the database's own code.
    pub fn called(&self) -> &Called {
        &self.called
    }

    /// A replica has refused to run it.
    pub fn note_refusal(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether a replica has refused to run it.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Of a text without a name.
impl From<Verdict> for KnownText {
    fn from(verdict: Verdict) -> KnownText {
        KnownText::new(verdict, Called::default())
    }
}

impl Deref for KnownText {
    type Target = Verdict;

    fn deref(&self) -> &Verdict {
        &self.verdict
    }
}
