//! Users that a server is asked for: what is asked, and for how long an answer counts. Asks nobody itself.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{KnownUser, Secret};

/// What is asked when nothing else is said. Only superusers may read that table; a role that may not log in, or whose
/// password has expired, is nobody. `infinity` is later than any moment.
pub const LOOKUP_QUERY: &str = "SELECT rolname, rolpassword FROM pg_catalog.pg_authid \
     WHERE rolname = $1 AND rolcanlogin AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())";

/// Most users of whom something is kept.
pub const USERS_MAX: usize = 10_000;

/// What is younger is believed also after a login that failed: whoever guesses passwords makes the server no work.
const DOUBTED_AGE: Duration = Duration::from_secs(1);

/// `[auth] query` and what belongs to it.
#[derive(Clone, PartialEq, Eq)]
pub struct LookupSettings {
    /// As whom the server is asked; `None` = nobody is looked up.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Has the user's name for `$1`, and gives a row of name and secret, or none.
    pub query: String,
    /// Where it is asked; `None` = in the database that the client asks for.
    pub database: Option<String>,
    /// How long an answer counts.
    pub lifetime: Duration,
}

impl Default for LookupSettings {
    fn default() -> Self {
        LookupSettings {
            user: None,
            password: None,
            query: LOOKUP_QUERY.to_owned(),
            database: None,
            lifetime: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for LookupSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookupSettings").field("user", &self.user).field("query", &self.query).finish_non_exhaustive()
    }
}

/// Where a user is looked up, and who.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LookupKey {
    /// The cluster's name.
    pub cluster: String,
    /// The database's name on the server.
    pub database: String,
    /// As the client says it.
    pub user: String,
}

/// Who has this secret, as a server has answered; `None` = nobody who may log in.
pub type LookedUp = Option<Arc<KnownUser>>;

/// What has been looked up, of at most [`USERS_MAX`] users: the oldest gives way.
#[derive(Debug)]
pub struct LookupCache {
    lifetime: Duration,
    users: HashMap<LookupKey, Kept>,
    /// In the order of their coming. An entry that was looked up again has another number here.
    order: VecDeque<(u64, LookupKey)>,
    number: u64,
}

#[derive(Debug)]
struct Kept {
    answer: LookedUp,
    number: u64,
    since: Instant,
    doubted: bool,
}

impl LookupCache {
    /// An empty one.
    pub fn new(lifetime: Duration) -> LookupCache {
        LookupCache { lifetime, users: HashMap::new(), order: VecDeque::new(), number: 0 }
    }

    /// What is known of a user, if it still counts.
    pub fn known(&self, key: &LookupKey, now: Instant) -> Option<LookedUp> {
        let kept = self.users.get(key)?;
        let age = now.saturating_duration_since(kept.since);
        let counts = age < self.lifetime && !(kept.doubted && age >= DOUBTED_AGE);
        counts.then(|| kept.answer.clone())
    }

    /// A server was asked at `asked` and has answered.
    pub fn keep(&mut self, key: LookupKey, answer: LookedUp, asked: Instant) {
        self.number += 1;
        let kept = Kept { answer, number: self.number, since: asked, doubted: false };
        self.users.insert(key.clone(), kept);
        self.order.push_back((self.number, key));
        while let Some((number, key)) = self.order.front() {
            let kept = self.users.get(key).filter(|kept| kept.number == *number);
            let is_old = kept.is_some_and(|kept| asked.saturating_duration_since(kept.since) >= self.lifetime);
            if kept.is_some() && !is_old && self.users.len() <= USERS_MAX && self.order.len() <= 2 * USERS_MAX {
                return;
            }
            let goes = kept.is_some();
            if let (Some((_, key)), true) = (self.order.pop_front(), goes) {
                self.users.remove(&key);
            }
        }
    }

    /// Somebody did not prove to be this user: perhaps the password was changed. The server is asked again for whoever
    /// comes next, though not more than once a second.
    pub fn doubt(&mut self, key: &LookupKey) {
        if let Some(kept) = self.users.get_mut(key) {
            kept.doubted = true;
        }
    }

    /// How many users something is kept of.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user: &str) -> LookupKey {
        LookupKey { cluster: "main".into(), database: "shop".into(), user: user.into() }
    }

    const LIFETIME: Duration = Duration::from_secs(30);

    #[test]
    fn an_answer_counts_for_its_lifetime_from_when_it_was_asked_for() {
        let (mut cache, start) = (LookupCache::new(LIFETIME), Instant::now());
        assert!(cache.known(&key("a"), start).is_none());
        cache.keep(key("a"), None, start);
        assert!(matches!(cache.known(&key("a"), start + LIFETIME - Duration::from_millis(1)), Some(None)));
        assert!(cache.known(&key("a"), start + LIFETIME).is_none());
        let elsewhere = LookupKey { database: "other".into(), ..key("a") };
        assert!(cache.known(&elsewhere, start).is_none(), "another database may have another answer");
        cache.keep(key("b"), None, start + LIFETIME);
        assert_eq!(cache.len(), 1, "what is too old is forgotten");
    }

    #[test]
    fn a_failed_login_makes_a_new_question_worth_while_once_a_second() {
        let (mut cache, start) = (LookupCache::new(LIFETIME), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        cache.keep(key("a"), None, start);
        cache.doubt(&key("a"));
        cache.doubt(&key("nobody"));
        assert!(cache.known(&key("a"), at(999)).is_some());
        assert!(cache.known(&key("a"), at(1_000)).is_none());
        cache.keep(key("a"), None, at(1_000));
        assert!(cache.known(&key("a"), at(20_000)).is_some(), "the new answer is not in doubt");
    }

    #[test]
    fn a_lifetime_of_nothing_keeps_nothing() {
        let (mut cache, start) = (LookupCache::new(Duration::ZERO), Instant::now());
        cache.keep(key("a"), None, start);
        assert!(cache.known(&key("a"), start).is_none());
        assert!(cache.is_empty());
    }

    #[test]
    fn made_up_names_fill_no_memory() {
        let (mut cache, start) = (LookupCache::new(LIFETIME), Instant::now());
        for number in 0..3 * USERS_MAX {
            cache.keep(key(&number.to_string()), None, start);
            assert!(cache.len() <= USERS_MAX);
        }
        assert!(cache.known(&key("0"), start).is_none());
        assert!(cache.known(&key(&(3 * USERS_MAX - 1).to_string()), start).is_some());
        for _ in 0..10 * USERS_MAX {
            cache.keep(key("again"), None, start);
            assert!(cache.order.len() <= 2 * USERS_MAX);
        }
        assert!(cache.known(&key("again"), start).is_some());
    }

    proptest::proptest! {
        /// Against a list of all that was ever said.
        #[test]
        fn what_counts_is_the_last_answer_and_never_an_old_one(
            steps in proptest::collection::vec((0..3_u8, 0..4_u8, 0..2_000_u64), 1..60)
        ) {
            let (mut cache, mut now) = (LookupCache::new(Duration::from_secs(3)), Instant::now());
            let mut said: HashMap<u8, (Instant, bool)> = HashMap::new();
            for (step, user, pause) in steps {
                now += Duration::from_millis(pause);
                let key = key(&user.to_string());
                match step {
                    0 => {
                        cache.keep(key, None, now);
                        said.insert(user, (now, false));
                    }
                    1 => {
                        cache.doubt(&key);
                        said.entry(user).and_modify(|(_, doubted)| *doubted = true);
                    }
                    _ => {
                        let counts = said.get(&user).is_some_and(|(since, doubted)| {
                            let age = now - *since;
                            age < Duration::from_secs(3) && !(*doubted && age >= Duration::from_secs(1))
                        });
                        proptest::prop_assert_eq!(cache.known(&key, now).is_some(), counts);
                    }
                }
            }
        }
    }
}
