//! What the statements since the last release may have done to the session and to others: what the server is asked about
//! once their transaction is over.

use std::collections::BTreeSet;

use super::{carried::Probe, database_code::CodeChange, inquiry::Inquiry};
use crate::sql::PinSet;

/// What the statements since the last release may have done. In the order written: see [`super::Pipeline`]
#[derive(Debug, Default)]
#[repr(C)]
pub struct Effects {
    /// State that the server cannot tell of, by the verdicts of what was sent.
    pub pins: PinSet,
    /// Something of what was sent may well have changed the session. Otherwise the server is asked only since nothing is
    /// known of the database's own code yet.
    pub earnest: bool,
    pub reset_all: bool,
    /// An error or a ROLLBACK may have undone what was set, so that settings may not be the session's any more.
    pub undone: bool,
    /// The end of a transaction, or a write outside a block, was sent and is not answered yet.
    pub may_commit: bool,
    /// The transaction has changed code of the database.
    pub defined: bool,
    /// The search path may have named the schema of temporary objects, if only for the transaction.
    pub temporary_path: bool,
    /// Something may have been created there that was not called temporary.
    pub may_be_temporary: bool,
    pub probe: Probe,
    /// What the functions are that it has called.
    pub inquiry: Option<Box<Inquiry>>,
    /// Names of prepared statements that SQL has made or taken away: until the server is asked, only it knows what they
    /// mean.
    pub names: BTreeSet<Box<[u8]>>,
    /// Settings that were RESET and not set again.
    pub reset: BTreeSet<Box<str>>,
    /// Settings with a dot in their names that were SET.
    pub set_customs: BTreeSet<Box<str>>,
    /// The first statement for which the server has to be asked, or its beginning.
    pub cause: String,
    /// It may have been committed.
    pub change: Option<CodeChange>,
}

impl Effects {
    pub fn reset(&mut self) {
        self.may_commit = false;
        self.end_transaction();
        if self.is_dirty()
            || self.inquiry.is_some()
            || self.undone
            || self.reset_all
            || !self.reset.is_empty()
            || self.temporary_path
        {
            *self = Effects::default();
        }
    }

    /// Whether what was sent can be broken off, when nobody waits for it any more, and nothing is lost by it: it only
    /// reads, or its transaction could not be committed any more.
    pub fn is_idle_talk(&self) -> bool {
        // What it did to the session goes with the client.
        !self.may_commit
    }

    /// The transaction is over: what it has changed can be looked at.
    pub fn end_transaction(&mut self) {
        if self.defined {
            (self.defined, self.change) = (false, None);
        }
    }

    /// Whether the server connection may carry state that is not known.
    pub fn is_dirty(&self) -> bool {
        self.may_have_changed() || !self.pins.is_empty()
    }

    /// Whether the server has to be asked what the session has become, or what the functions are that it has called.
    pub fn is_asked(&self) -> bool {
        self.may_have_changed() || self.inquiry.is_some()
    }

    /// Whether something of what was sent may have changed the session.
    pub fn may_have_changed(&self) -> bool {
        self.probe != Probe::Nothing || !self.names.is_empty() || self.may_be_temporary
    }

    /// Whether only the server knows what a name of a prepared statement means now.
    pub fn uses_name(&self, name: &[u8]) -> bool {
        self.names.contains(name)
    }

    /// What was to make or take away a statement of this name has not run: it means what it meant before.
    pub fn forget_name(&mut self, name: &[u8]) {
        self.names.remove(name);
    }

    pub fn use_name(&mut self, name: &[u8]) {
        if !self.uses_name(name) {
            self.names.insert(name.into());
        }
    }
}
