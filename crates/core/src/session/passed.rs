//! Prepared statements that pass under the client's own names, in session mode above all: how they are called where their
//! figures are shown, and no more.

use std::collections::HashMap;

use super::Session;
use crate::sql::Called;

/// Most names of one client; figures of further ones are not kept.
const NAMES_MAX: usize = 1_000;

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 256;

pub type Passed = HashMap<Box<[u8]>, Called>;

impl Session {
    pub(super) fn note_passed(&mut self, name: &[u8], called: Called) {
        let passed = self.passed.get_or_insert_default();
        if let Some(known) = passed.get_mut(name) {
            *known = called;
        } else if passed.len() < NAMES_MAX && name.len() <= NAME_BYTES_MAX {
            passed.insert(name.into(), called);
        }
    }

    pub(super) fn called_passed(&self, name: &[u8]) -> Called {
        self.passed.as_ref().and_then(|passed| passed.get(name)).cloned().unwrap_or_default()
    }

    pub(super) fn forget_passed(&mut self, name: &[u8]) {
        if let Some(passed) = &mut self.passed {
            passed.remove(name);
        }
    }
}
