//! Why a client is not let in.

use std::io;

use crate::frontend::errors::Words;
use poolhouse_core::{
    auth,
    wire::{
        self,
        error::{Report, SqlState},
    },
};

/// Why a login ends.
pub enum Refusal {
    /// The client is told.
    Told(Words),
    /// It has not proved who it is, and is told so; only the log says why it cannot, if that is known.
    Unproved(Words, Option<auth::Refusal>),
    /// It is not there any more, or was never meant to become a session.
    Gone,
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Refusal::Gone
    }
}

impl From<Report> for Refusal {
    fn from(report: Report) -> Self {
        Refusal::Told(Words::Ours(report))
    }
}

impl From<wire::Error> for Refusal {
    fn from(error: wire::Error) -> Self {
        let code = match error {
            wire::Error::Version { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            _ => SqlState::PROTOCOL_VIOLATION,
        };
        Report::fatal(code, error.to_string()).into()
    }
}
