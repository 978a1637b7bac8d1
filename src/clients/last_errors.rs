//! The last errors that clients were told, for operators.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// Older ones are forgotten.
const ERRORS_MAX: usize = 1_000;

/// The same, of those who were not let in: anybody can make more of them, and what clients met is not to be lost by
/// that.
const REFUSED_MAX: usize = 200;

/// What a client was told.
#[derive(Debug, Clone)]
pub struct ClientError {
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
pub struct LastErrors {
    ring: Mutex<VecDeque<ClientError>>,
    refused: Mutex<VecDeque<ClientError>>,
}

impl LastErrors {
    /// What a client was told: by the server `node`, or by Poolhouse itself, or nobody knows by which server.
    pub fn note(&self, names: (&str, &str), client: String, node: Option<&str>, code: &str, message: &str) {
        push(&self.ring, ERRORS_MAX, error(names, client, node, code, message));
    }

    /// What one was told who was not let in.
    pub fn refuse(&self, client: String, code: &str, message: &str) {
        push(&self.refused, REFUSED_MAX, error(("", ""), client, None, code, message));
    }

    /// The newest comes last.
    pub fn all(&self) -> Vec<ClientError> {
        let mut all: Vec<ClientError> = lock(&self.ring).iter().cloned().collect();
        all.extend(lock(&self.refused).iter().cloned());
        all.sort_by_key(|error| error.time);
        all
    }
}

fn error(names: (&str, &str), client: String, node: Option<&str>, code: &str, message: &str) -> ClientError {
    let (code, message) = (code.to_owned(), message.to_owned());
    let (database, user, node) = (names.0.to_owned(), names.1.to_owned(), node.map(str::to_owned));
    ClientError { time: SystemTime::now(), database, user, client, node, code, message }
}

fn push(ring: &Mutex<VecDeque<ClientError>>, most: usize, error: ClientError) {
    let mut ring = lock(ring);
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(error);
}

/// No code under the lock can panic half-way through a change.
fn lock(ring: &Mutex<VecDeque<ClientError>>) -> MutexGuard<'_, VecDeque<ClientError>> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}
