//! Why a client is not let in.

use std::{io, sync::Arc};

use crate::frontend::{errors::ErrorWords, lookups::LookupError};
use poolhouse_core::{
    auth,
    wire::{
        self,
        error::{Report, SqlState},
    },
};

/// Why a login ends.
pub enum LoginRefusal {
    /// The client is told.
    Told(ErrorWords),
    /// It has not proved who it is, and is told so; only the log says why it cannot, if that is known.
    Unproved(ErrorWords, Option<WhyUnproved>),
    /// It is not there any more, or was never meant to become a session.
    Gone,
}

/// Why nobody can prove to be this user.
#[derive(Debug, thiserror::Error)]
pub enum WhyUnproved {
    #[error(transparent)]
    User(#[from] auth::Refusal),
    #[error(transparent)]
    Lookup(#[from] Arc<LookupError>),
}

impl From<io::Error> for LoginRefusal {
    fn from(_: io::Error) -> Self {
        LoginRefusal::Gone
    }
}

impl From<Report> for LoginRefusal {
    fn from(report: Report) -> Self {
        LoginRefusal::Told(ErrorWords::Ours(report))
    }
}

impl From<wire::Error> for LoginRefusal {
    fn from(error: wire::Error) -> Self {
        let code = match error {
            wire::Error::Version { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            _ => SqlState::PROTOCOL_VIOLATION,
        };
        Report::fatal(code, error.to_string()).into()
    }
}
