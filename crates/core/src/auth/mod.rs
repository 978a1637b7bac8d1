//! Who somebody is: SCRAM-SHA-256, md5, user lists, what servers say of users. Pure: randomness comes in as bytes.
//!
//! Towards clients start at [`Directory`], which names the [`Challenge`] for a user; towards servers at [`Credential`],
//! which knows what it can answer. The exchanges themselves are in [`scram`] and [`md5`]. Nothing here reads a file,
//! sends a byte or decides what a client is told: every [`Error`] is for the log, the client sees one message for all.

mod credential;
mod directory;
mod error;
mod lookup;
pub mod md5;
mod saslprep;
pub mod scram;
mod secret;
mod userlist;

use std::collections::BTreeMap;

pub use credential::Credential;
pub use directory::{Challenge, Directory, KnownUser, Refusal};
pub use error::Error;
pub use lookup::{LOOKUP_QUERY, LookedUp, LookupCache, LookupKey, LookupSettings, USERS_MAX};
pub use saslprep::saslprep;
pub use secret::{Secret, SecretError};
pub use userlist::{UserlistError, UserlistMistake, userlist};

/// How clients prove who they are. `[auth] method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Nobody has to prove anything.
    Trust,
    /// The md5 hash of password and user, salted (manual, "Password Authentication").
    Md5,
    /// SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding.
    #[default]
    ScramSha256,
}

/// `[auth]`, with `[users]` and the users file merged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// How clients prove who they are.
    pub method: Method,
    /// What each user proves it with, by name.
    pub users: BTreeMap<String, Secret>,
    /// How those are found who are not among them.
    pub lookup: LookupSettings,
}
