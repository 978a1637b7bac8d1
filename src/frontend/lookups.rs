//! Users that are not listed: a server is asked for their secret, over connections that are for that alone. Clients that
//! come at once as the same user wait for one answer; nobody else waits for it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{
    errors::{self, AcquireError, ErrorWords},
    relay::{Worker, acquire},
};
use crate::{
    backend::{ConnectError, QueryError},
    databases::{DatabaseSettings, Target, request_any},
    pool,
};
use poolhouse_core::{
    auth::{Credential, Directory, LookedUp, LookupCache, LookupKey, LookupSettings, Secret},
    session::Route,
};

/// How long a look-up may take, with the wait for a connection.
const LIMIT: Duration = Duration::from_secs(5);

/// Most connections for each node and database that look-ups have at once.
const CONNECTIONS: usize = 2;

/// A connection that was not needed for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// Most databases in which look-ups go on at once: strangers may name any.
const PLACES_MAX: usize = 1_000;

/// By the cluster's name and the database's on the server.
type Place = (String, String);

/// Who finds users that are not listed. Made anew when the configuration is read again: nothing that was found out before
/// counts then.
#[derive(Debug)]
pub struct Lookups {
    settings: LookupSettings,
    cache: Mutex<LookupCache>,
    /// What is under way; whoever holds a lock asks, and the others wait for it.
    under_way: Mutex<HashMap<LookupKey, Arc<Question>>>,
    places: Mutex<BTreeMap<Place, Arc<Target>>>,
}

/// When it was answered last, and what came of it.
type Question = tokio::sync::Mutex<Option<(Instant, Result<LookedUp, Arc<LookupError>>)>>;

/// Why it could not be found out who somebody is.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("no server connection could be had: {}", .0.report())]
    Acquire(AcquireError),
    #[error("auth.query failed: {0}")]
    Query(QueryError),
    #[error("a server did not answer auth.query within {0:?}")]
    Timeout(Duration),
    #[error("auth.query gave {rows} rows of {columns} columns: it must give at most one row, of a name and a secret")]
    Shape { rows: usize, columns: usize },
    #[error("users are looked up in {PLACES_MAX} databases already")]
    Places,
}

impl LookupError {
    /// The words for the client, who has proved nothing yet. That there is no such database is its own business; what
    /// else a server says is ours.
    pub fn words(&self, user: &str) -> ErrorWords {
        match self {
            LookupError::Acquire(AcquireError::Connect { error: ConnectError::Refused { fields }, .. })
                if fields.code() == "3D000" =>
            {
                ErrorWords::Servers(fields.as_ref().clone())
            }
            _ => ErrorWords::Ours(errors::not_looked_up(user)),
        }
    }
}

impl Lookups {
    /// `None` when nobody is to be asked.
    pub fn new(settings: LookupSettings) -> Option<Lookups> {
        settings.user.is_some().then(|| Lookups {
            cache: Mutex::new(LookupCache::new(settings.lifetime)),
            settings,
            under_way: Mutex::default(),
            places: Mutex::default(),
        })
    }

    pub fn settings(&self) -> &LookupSettings {
        &self.settings
    }

    /// What is known of a user, or what a server of this place says.
    ///
    /// # Errors
    /// See [`LookupError`]; those who waited for the same answer have the same error. Cancel-safe.
    pub async fn find(
        &self,
        key: &LookupKey,
        directory: &Directory,
        place: impl FnOnce() -> Result<Arc<Target>, LookupError>,
        worker: &Worker,
    ) -> Result<LookedUp, Arc<LookupError>> {
        let came = Instant::now();
        if let Some(known) = lock(&self.cache).known(key, came) {
            return Ok(known);
        }
        let question = lock(&self.under_way).entry(key.clone()).or_default().clone();
        let mut last = question.lock().await;
        if let Some((answered, outcome)) = &*last
            && *answered >= came
        {
            return outcome.clone();
        }
        let asked = Instant::now();
        let answer = async {
            let target = place()?;
            let secret = timeout(LIMIT, self.ask(&target, worker, &key.user)).await;
            secret.unwrap_or(Err(LookupError::Timeout(LIMIT)))
        };
        let outcome = answer.await.map_err(Arc::new).map(|secret| secret.map(|it| Arc::new(directory.looked_up(it))));
        if let Ok(answer) = &outcome {
            lock(&self.cache).keep(key.clone(), answer.clone(), asked);
        }
        *last = Some((Instant::now(), outcome.clone()));
        drop(last);
        // Two: here and there.
        let mut under_way = lock(&self.under_way);
        if Arc::strong_count(&question) == 2 {
            under_way.remove(key);
        }
        outcome
    }

    async fn ask(&self, target: &Target, worker: &Worker, user: &str) -> Result<Option<Secret>, LookupError> {
        let acquired = acquire(target, worker, request_any(target, Route::Auto)).await;
        let (mut lease, _) = acquired.map_err(LookupError::Acquire)?;
        let rows = match lease.query_with(&self.settings.query, user, LIMIT).await {
            Ok(rows) => rows,
            Err(error) => {
                if matches!(error, QueryError::Server { .. }) {
                    lease.give_back();
                }
                return Err(LookupError::Query(error));
            }
        };
        lease.give_back();
        secret_of(user, rows)
    }

    /// Somebody did not prove to be this user.
    pub fn doubt(&self, key: &LookupKey) {
        lock(&self.cache).doubt(key);
    }

    /// Where users are looked up who are kept by this cluster and database; `make` makes it with these settings.
    ///
    /// # Errors
    /// There are too many of them.
    pub fn place(
        &self,
        key: &LookupKey,
        settings: &DatabaseSettings,
        make: impl FnOnce(&DatabaseSettings) -> Target,
    ) -> Result<Arc<Target>, LookupError> {
        let mut places = lock(&self.places);
        let place = (key.cluster.clone(), key.database.clone());
        if let Some(target) = places.get(&place) {
            return Ok(target.clone());
        }
        if places.len() >= PLACES_MAX {
            return Err(LookupError::Places);
        }
        let credential = self.settings.password.clone().map_or(Credential::None, Credential::Secret);
        let settings = DatabaseSettings {
            database: Some(key.database.clone()),
            login: self.settings.user.clone().map(|user| (user, credential)),
            pool: pool::Settings {
                size: CONNECTIONS,
                reserve_size: 0,
                min_idle: 0,
                idle_timeout: Some(settings.pool.idle_timeout.map_or(IDLE, |limit| limit.min(IDLE))),
                checkout_timeout: Some(LIMIT),
                ..settings.pool.clone()
            },
            ..settings.clone()
        };
        let target = Arc::new(make(&settings));
        places.insert(place, target.clone());
        Ok(target)
    }

    /// Where users are looked up, by the database's name on the server.
    pub fn places(&self) -> Vec<(String, Arc<Target>)> {
        lock(&self.places).iter().map(|((_, database), target)| (database.clone(), target.clone())).collect()
    }

    /// Lets go of what nobody uses. To be called now and then.
    pub fn keep(&self) {
        lock(&self.under_way).retain(|_, question| Arc::strong_count(question) > 1);
        lock(&self.places).retain(|_, target| Arc::strong_count(target) > 1 || !target.is_empty());
    }
}

/// The secret in the only row. A row for somebody else comes of a name that the server has cut short: nobody has that.
fn secret_of(user: &str, mut rows: Vec<Vec<Option<String>>>) -> Result<Option<Secret>, LookupError> {
    let (count, columns) = (rows.len(), rows.first().map_or(0, Vec::len));
    match (rows.pop(), count) {
        (None, _) => Ok(None),
        (Some(row), 1) if columns >= 2 => {
            let mut values = row.into_iter();
            let (name, secret) = (values.next().flatten(), values.next().flatten());
            let secret = Zeroizing::new(secret.unwrap_or_default());
            // What begins like a verifier and is none is nobody's password either.
            let secret = Secret::parse(&secret).unwrap_or_else(|_| Secret::Scram(secret.to_string()));
            Ok((name.as_deref() == Some(user)).then_some(secret))
        }
        (Some(_), rows) => Err(LookupError::Shape { rows, columns }),
    }
}

/// No code under these locks can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_with_care() {
        let row = |values: &[Option<&str>]| values.iter().map(|value| value.map(str::to_owned)).collect::<Vec<_>>();
        let secret = |rows| secret_of("alice", rows).unwrap();
        assert_eq!(secret(vec![]), None);
        assert_eq!(secret(vec![row(&[Some("alice"), Some("x")])]), Some(Secret::Plain("x".into())));
        assert_eq!(secret(vec![row(&[Some("alice"), Some("x"), Some("more")])]), Some(Secret::Plain("x".into())));
        assert_eq!(secret(vec![row(&[Some("alice"), None])]), Some(Secret::Plain(String::new())));
        let damaged = Some(Secret::Scram("SCRAM-SHA-256$4096:".into()));
        assert_eq!(secret(vec![row(&[Some("alice"), Some("SCRAM-SHA-256$4096:")])]), damaged);
        assert_eq!(secret(vec![row(&[Some("alic"), Some("x")])]), None, "another name");
        assert_eq!(secret(vec![row(&[None, Some("x")])]), None);
        for rows in [vec![row(&[Some("alice")])], vec![row(&[Some("alice"), Some("x")]); 2], vec![vec![]]] {
            assert!(matches!(secret_of("alice", rows), Err(LookupError::Shape { .. })));
        }
    }
}
