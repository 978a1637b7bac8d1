//! The parameters that a server reports by ParameterStatus, and what a client has been told of them.

/// Names and values as last reported, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reported {
    pairs: Vec<(Box<str>, Box<str>)>,
}

/// Reported by each server for itself: a client that moves between nodes is not told of them again.
const OF_THE_SERVER: [&str; 4] = ["in_hot_standby", "integer_datetimes", "server_encoding", "server_version"];

impl Reported {
    pub fn set(&mut self, name: &str, value: &str) {
        match self.pairs.binary_search_by(|(key, _)| (**key).cmp(name)) {
            Ok(at) if *self.pairs[at].1 == *value => {}
            Ok(at) => self.pairs[at].1 = value.into(),
            Err(at) => self.pairs.insert(at, (name.into(), value.into())),
        }
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
        one.set("TimeZone", "UTC");
        one.set("DateStyle", "ISO");
        let mut two = one.clone();
        two.set("TimeZone", "CET");
        assert_eq!(one.news(&two).collect::<Vec<_>>(), [("TimeZone", "CET")]);
        assert_eq!(one.news(&one).count(), 0);
    }
}
