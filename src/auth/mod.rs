//! Who somebody is: SCRAM-SHA-256, md5, user lists. Pure: randomness comes in as bytes.

use std::{collections::BTreeMap, fmt};

/// How clients prove who they are. `[auth] method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    Trust,
    Md5,
    #[default]
    ScramSha256,
}

/// A password, or what is stored in its place. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Plain(String),
    /// `md5` and 32 hexadecimal digits: md5(password, user).
    Md5(String),
    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, checked to be well-formed.
    Scram(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::Plain(_) => "Plain(…)",
            Secret::Md5(_) => "Md5(…)",
            Secret::Scram(_) => "Scram(…)",
        })
    }
}

/// `[auth]`, with `[users]` and the users file merged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    pub method: Method,
    pub users: BTreeMap<String, Secret>,
}
