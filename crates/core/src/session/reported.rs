//! The parameters that a server reports by ParameterStatus, and what a client has been told of them.

use crate::wire;

/// Most parameters of one server connection; PostgreSQL has 15.
const NAMES_MAX: usize = 256;

/// Most bytes of their names and values.
const BYTES_MAX: usize = 256 << 10;

/// Names and values as last reported, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reported {
    pairs: Vec<(Box<str>, Box<str>)>,
    bytes: usize,
}

/// Why a ParameterStatus message cannot be taken in. Its server connection is of no use any more: what the server reports
/// would not be what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    #[error(transparent)]
    Malformed(#[from] wire::Error),
    #[error("the server reports more parameters than {NAMES_MAX}, or more than {} kB of them", BYTES_MAX >> 10)]
    TooMuch,
}

/// Reported by each server for itself: a client that moves between nodes is not told of them again.
const OF_THE_SERVER: [&str; 4] = ["in_hot_standby", "integer_datetimes", "server_encoding", "server_version"];

impl Reported {
    /// # Errors
    /// [`ParameterError::TooMuch`], and nothing is changed.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ParameterError> {
        let found = self.pairs.binary_search_by(|(key, _)| (**key).cmp(name));
        let before = found.map_or(0, |at| name.len() + self.pairs[at].1.len());
        let bytes = self.bytes - before + name.len() + value.len();
        if bytes > BYTES_MAX || found.is_err() && self.pairs.len() >= NAMES_MAX {
            return Err(ParameterError::TooMuch);
        }
        self.bytes = bytes;
        match found {
            Ok(at) if *self.pairs[at].1 == *value => {}
            Ok(at) => self.pairs[at].1 = value.into(),
            Err(at) => self.pairs.insert(at, (name.into(), value.into())),
        }
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.pairs.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
        Some(&self.pairs[at].1)
    }

    /// The encoding of texts, which each connection has its own.
    pub fn encoding(&self) -> Box<str> {
        self.get("client_encoding").unwrap_or("UTF8").into()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether a change of this parameter concerns a client of a pool.
    pub fn is_of_the_session(name: &str) -> bool {
        !OF_THE_SERVER.contains(&name)
    }

    /// What a client that knows `self` has to be told when it moves to a server that reports `now`.
    pub fn news<'a>(&'a self, now: &'a Reported) -> impl Iterator<Item = (&'a str, &'a str)> {
        now.iter().filter(|(name, value)| self.get(name) != Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_what_differs() {
        let mut one = Reported::default();
        one.set("TimeZone", "UTC").unwrap();
        one.set("DateStyle", "ISO").unwrap();
        let mut two = one.clone();
        two.set("TimeZone", "CET").unwrap();
        assert_eq!(one.news(&two).collect::<Vec<_>>(), [("TimeZone", "CET")]);
        assert_eq!(one.news(&one).count(), 0);
    }

    #[test]
    fn a_server_that_reports_ever_more_is_stopped() {
        let mut reported = Reported::default();
        let taken = (0..100_000).take_while(|number| reported.set(&format!("name_{number}"), "on").is_ok()).count();
        assert_eq!((taken, reported.iter().count()), (NAMES_MAX, NAMES_MAX));
        // What is known may change for ever.
        for number in 0..100_000 {
            reported.set("name_7", &number.to_string()).unwrap();
        }
        assert_eq!(reported.set("name_7", &"x".repeat(BYTES_MAX)), Err(ParameterError::TooMuch));
        assert_eq!(reported.get("name_7"), Some("99999"));

        let mut long = Reported::default();
        long.set("search_path", &"x".repeat(BYTES_MAX / 2)).unwrap();
        assert_eq!(long.set("TimeZone", &"x".repeat(BYTES_MAX / 2)), Err(ParameterError::TooMuch));
        long.set("search_path", "public").unwrap();
        long.set("TimeZone", &"x".repeat(BYTES_MAX / 2)).unwrap();
    }
}
