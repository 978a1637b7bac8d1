//! The last errors that clients were told, for operators.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use super::report::Words;

/// Older ones are forgotten.
const MISHAPS_MAX: usize = 1_000;

/// What a client was told.
#[derive(Debug, Clone)]
pub struct Mishap {
    pub time: SystemTime,
    /// Both are empty as long as they are not known.
    pub database: String,
    pub user: String,
    /// Its address.
    pub client: String,
    /// The server that has reported it, if one has.
    pub node: Option<String>,
    pub code: String,
    pub message: String,
}

#[derive(Debug, Default)]
pub struct Mishaps {
    ring: Mutex<VecDeque<Mishap>>,
}

impl Mishaps {
    /// What Poolhouse has told a client, in its own words or those of a server that did not let it in.
    pub fn add(&self, names: (&str, &str), client: String, words: &Words) {
        let (code, message) = words.code_and_message();
        self.note(names, client, None, code, message);
    }

    /// What the server `node` has answered a client, or nobody's if it is not known.
    pub fn note(&self, names: (&str, &str), client: String, node: Option<&str>, code: &str, message: &str) {
        let (code, message) = (code.to_owned(), message.to_owned());
        let (database, user, node) = (names.0.to_owned(), names.1.to_owned(), node.map(str::to_owned));
        let mishap = Mishap { time: SystemTime::now(), database, user, client, node, code, message };
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == MISHAPS_MAX {
            ring.pop_front();
        }
        ring.push_back(mishap);
    }

    /// The newest comes last.
    pub fn all(&self) -> Vec<Mishap> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
