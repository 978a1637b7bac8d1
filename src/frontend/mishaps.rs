//! The last errors that clients were told, for operators.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::report::Words;

/// Older ones are forgotten.
const MISHAPS_MAX: usize = 1_000;

/// The same, of those who were not let in: anybody can make more of them, and what clients met is not to be lost by that.
const REFUSED_MAX: usize = 200;

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
    refused: Mutex<VecDeque<Mishap>>,
}

impl Mishaps {
    /// What Poolhouse has told a client, in its own words or those of a server that did not let it in.
    pub fn add(&self, names: (&str, &str), client: String, words: &Words) {
        let (code, message) = words.code_and_message();
        self.note(names, client, None, code, message);
    }

    /// What the server `node` has answered a client, or nobody's if it is not known.
    pub fn note(&self, names: (&str, &str), client: String, node: Option<&str>, code: &str, message: &str) {
        push(&self.ring, MISHAPS_MAX, mishap(names, client, node, code, message));
    }

    /// What one was told who was not let in.
    pub fn refuse(&self, client: String, words: &Words) {
        let (code, message) = words.code_and_message();
        push(&self.refused, REFUSED_MAX, mishap(("", ""), client, None, code, message));
    }

    /// The newest comes last.
    pub fn all(&self) -> Vec<Mishap> {
        let mut all: Vec<Mishap> = lock(&self.ring).iter().cloned().collect();
        all.extend(lock(&self.refused).iter().cloned());
        all.sort_by_key(|mishap| mishap.time);
        all
    }
}

fn mishap(names: (&str, &str), client: String, node: Option<&str>, code: &str, message: &str) -> Mishap {
    let (code, message) = (code.to_owned(), message.to_owned());
    let (database, user, node) = (names.0.to_owned(), names.1.to_owned(), node.map(str::to_owned));
    Mishap { time: SystemTime::now(), database, user, client, node, code, message }
}

fn push(ring: &Mutex<VecDeque<Mishap>>, most: usize, mishap: Mishap) {
    let mut ring = lock(ring);
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(mishap);
}

/// No code under the lock can panic half-way through a change.
fn lock(ring: &Mutex<VecDeque<Mishap>>) -> MutexGuard<'_, VecDeque<Mishap>> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}
