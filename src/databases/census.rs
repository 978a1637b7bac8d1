//! Takes the census of each database's own code and keeps it true: when statements come after a pause, after a change
//! of code that passed by, when a function is called that it does not know, and every second by a stamp of the catalog,
//! since code can be changed beside Poolhouse. In the background, over a connection of its own that stays as long as
//! statements come, and leaves when the database is to be dropped. The first sessions of a database wait for the first
//! look, and the first statements after a pause, for a moment, for the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    backend::{self, ConnectError, QueryError, Server, ServerLogin},
    monitor::Monitor,
    tasks::Scope,
};
use poolhouse_core::{
    session::{DatabaseCode, Due},
    sql::{
        Catalog, Census,
        census::{
            BEGIN, CatalogRow, DEFAULTS_STAMP, END, FUNCTIONS_PAGE, PRIMARY_ONLY, STAMP, before_login, functions_after,
            references,
        },
    },
    topology::{NodeId, RouteError},
    wire::request::TERMINATE,
};

/// How often the catalog's stamp is looked at while the database is in use: how late a change is noticed that is made
/// beside Poolhouse. With a very large catalog less often: see `STAMP_SHARE`.
const INTERVAL: Duration = Duration::from_secs(1);

/// A look at the stamp may take this part of the time of one server process.
const STAMP_SHARE: u32 = 100;

/// After that long without a statement nobody looks any more, and nothing is known.
const REST: Duration = Duration::from_secs(10);

/// How long the first sessions of a database wait for the first look.
const FIRST_LIMIT: Duration = Duration::from_secs(5);

/// How long the first statements after a rest wait for a look: with a server nearby it takes some milliseconds. Who
/// goes on without goes to the primary.
const AGAIN_LIMIT: Duration = Duration::from_secs(1);

/// How long a login waits for a look at what sessions begin with. Who goes on without begins as sessions did before.
const LOGIN_LIMIT: Duration = Duration::from_millis(250);

/// Logins that come within this time share such a look, so that a storm of them costs a server next to nothing.
const LOGIN_INTERVAL: Duration = Duration::from_millis(5);

/// So many users can be asked for by one look; of more, the others are not looked at.
const LOGIN_USERS_MAX: usize = 1_000;

/// Between two looks that failed, or that were asked for by calls of functions which do not exist.
const PAUSE: Duration = Duration::from_secs(1);

/// After a look, for as many times as long as it took nobody looks again: a series of changes is not to keep a server
/// busy with us.
const SHARE: u32 = 4;

/// What one question may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Most functions in a database that are looked at. With more, every call is taken to touch the session, as without a
/// census.
const FUNCTIONS_MAX: usize = 100_000;

/// As whom, and where, the catalog of a database is read; and who is to learn of what has changed.
pub trait CatalogReader: std::fmt::Debug + Send + Sync {
    /// The database's name on the server.
    fn database(&self) -> &str;

    fn monitor(&self) -> &Monitor;

    /// Where to read.
    ///
    /// # Errors
    /// No node is fit for it now.
    fn primary(&self) -> Result<NodeId, RouteError>;

    /// How to log in to a node.
    fn login(&self, node: NodeId) -> ServerLogin;

    fn connect_timeout(&self) -> Duration;

    /// There is code that was not known: connections that may have run it are not to be lent again.
    fn renew_connections(&self);

    /// Sessions begin with other settings from now on, or as another role: those of one user, or all.
    fn take_defaults(&self, user: Option<&str>);

    /// The server has read its configuration again.
    fn take_configuration(&self);
}

/// The own code of all databases of one cluster.
#[derive(Debug)]
pub struct Censuses {
    by_database: Mutex<BTreeMap<String, Weak<OwnCodeCensus>>>,
    scope: Scope,
}

/// Logins that want to know whether sessions begin as they did before.
#[derive(Debug, Default)]
struct Logins {
    state: Mutex<LoginState>,
    /// Wakes the keeper.
    wanted: Notify,
    /// The number of the last look that is done.
    done: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct LoginState {
    /// How many looks have begun.
    begun: u64,
    /// The users who wait for the next one.
    users: BTreeSet<String>,
    /// One was not there in time, and none has been since: nobody waits.
    late: bool,
}

impl Logins {
    /// Waits for a look that begins after this call, a moment at most.
    async fn looked(&self, user: &str) {
        let (next, waits) = {
            let mut state = lock(&self.state);
            if state.users.len() < LOGIN_USERS_MAX && !state.users.contains(user) {
                state.users.insert(user.to_owned());
            }
            (state.begun + 1, !state.late)
        };
        self.wanted.notify_one();
        if waits && timeout(LOGIN_LIMIT, self.done.subscribe().wait_for(|done| *done >= next)).await.is_err() {
            lock(&self.state).late = true;
        }
    }

    /// A look begins: its number, and the users whom it is for.
    fn begin(&self) -> (u64, BTreeSet<String>) {
        let mut state = lock(&self.state);
        state.begun += 1;
        (state.begun, std::mem::take(&mut state.users))
    }

    fn end(&self, number: u64, good: bool) {
        if good {
            lock(&self.state).late = false;
        }
        self.done.send_replace(number);
    }
}

/// The own code of one database, as long as somebody may use it.
#[derive(Debug)]
pub struct OwnCodeCensus {
    pub code: Arc<DatabaseCode>,
    /// Those as whom one may log in to look. Who cannot be upgraded is gone.
    users: Mutex<Vec<Weak<dyn CatalogReader>>>,
    /// How often somebody has looked.
    looks: watch::Sender<u64>,
    logins: Arc<Logins>,
    /// Where the task lives that keeps it, once there is one.
    scope: Scope,
}

impl Censuses {
    pub fn new(scope: Scope) -> Censuses {
        Censuses { by_database: Mutex::default(), scope }
    }

    /// What is shared by all users of a database, by its name on the server.
    pub fn of(&self, database: &str) -> Arc<OwnCodeCensus> {
        let mut by_database = lock(&self.by_database);
        if let Some(kept) = by_database.get(database).and_then(Weak::upgrade) {
            return kept;
        }
        by_database.retain(|_, kept| kept.strong_count() > 0);
        let kept = Arc::new(OwnCodeCensus {
            code: Arc::default(),
            users: Mutex::default(),
            looks: watch::Sender::new(0),
            logins: Arc::default(),
            scope: self.scope.child(),
        });
        by_database.insert(database.to_owned(), Arc::downgrade(&kept));
        kept
    }

    /// Nobody is to be connected to this database for a moment.
    pub fn vacate(&self, database: &str) {
        if let Some(kept) = lock(&self.by_database).get(database).and_then(Weak::upgrade) {
            kept.code.vacate();
        }
    }
}

impl OwnCodeCensus {
    /// One whose sessions want to know. The first one sets the keeper to work, on the calling thread.
    pub fn join(self: &Arc<Self>, reader: Weak<dyn CatalogReader>) {
        let mut users = lock(&self.users);
        users.retain(|user| user.strong_count() > 0);
        users.push(reader);
        if self.scope.is_empty() {
            self.code.keep();
            let keeper = Keeper {
                kept: Arc::downgrade(self),
                code: self.code.clone(),
                logins: self.logins.clone(),
                known: None,
                server: None,
                roles: BTreeMap::new(),
                configured: None,
                login_look: None,
            };
            let stopping = self.scope.clone();
            self.scope.spawn("keep a census", async move {
                tokio::select! {
                    () = stopping.stopping() => {}
                    () = keeper.run() => {}
                }
            });
        }
    }

    /// Waits until somebody has looked, with whatever success, so that nothing is asked of a server in ignorance of the
    /// settings that it tells of only by their names. Only the first time it takes a moment.
    pub async fn looked(&self) {
        if *self.looks.borrow() > 0 || self.scope.is_empty() {
            return;
        }
        self.code.hidden();
        // Whoever keeps it may be gone: then nobody expects anything.
        let _ = timeout(FIRST_LIMIT, self.looks.subscribe().wait_for(|looks| *looks > 0)).await;
    }

    /// Waits for the look that ends a rest.
    pub async fn looked_again(&self) {
        let mut looks = self.looks.subscribe();
        if self.code.is_at_rest() && !self.scope.is_empty() {
            self.code.hidden();
            if timeout(AGAIN_LIMIT, looks.changed()).await.is_err() {
                self.code.end_rest();
            }
        }
    }

    /// Waits for a look at what sessions of this user begin with, a moment at most: somebody may have changed that just
    /// now.
    pub async fn defaults_looked(&self, user: &str) {
        if !self.scope.is_empty() {
            self.code.hidden();
            self.logins.looked(user).await;
        }
    }

    fn user(&self) -> Option<Arc<dyn CatalogReader>> {
        lock(&self.users).iter().find_map(Weak::upgrade)
    }
}

impl Drop for OwnCodeCensus {
    fn drop(&mut self) {
        self.scope.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Keeper {
    kept: Weak<OwnCodeCensus>,
    code: Arc<DatabaseCode>,
    /// The last census, and the stamps of the catalog that it was made from.
    known: Option<(Stamps, Arc<Census>)>,
    /// The connection over which it looks, as long as statements come.
    server: Option<(NodeId, Server)>,
    logins: Arc<Logins>,
    /// The oids of roles that have logged in.
    roles: BTreeMap<String, String>,
    /// When the server process has read its configuration.
    configured: Option<String>,
    /// When the last look for logins began.
    login_look: Option<Instant>,
}

/// What tells whether something has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamps {
    code: String,
    /// Of the settings with which sessions begin.
    defaults: String,
}

/// Why there is no census.
#[derive(Debug, thiserror::Error)]
enum CensusFailure {
    /// Nobody is left who could want to know.
    #[error("no user is left")]
    NoUser,
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("there are more than {FUNCTIONS_MAX} functions")]
    TooMany,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            // At rest: nothing is known, and nobody asks.
            while self.due().await == Due::Vacated {}
            let (mut failed, mut used) = (false, Instant::now());
            loop {
                let started = Instant::now();
                failed = !self.look(failed).await;
                let took = started.elapsed();
                self.serve_logins(Instant::now() + (took * SHARE).min(PAUSE)).await;
                let next = started + if failed { PAUSE } else { INTERVAL.max(took * STAMP_SHARE).min(REST) };
                self.wait(next).await;
                if self.code.was_used() {
                    used = Instant::now();
                } else if used.elapsed() >= REST {
                    break;
                }
            }
            self.leave();
            self.code.rest();
        }
    }

    async fn due(&self) -> Due {
        poll_fn(|cx| self.code.poll_due(cx)).await
    }

    /// Waits until there is a reason to look again, or it is time.
    async fn wait(&mut self, next: Instant) {
        let mut until = next;
        loop {
            let due = tokio::select! {
                due = timeout_at(until, self.due()) => due.ok(),
                () = self.logins.wanted.notified() => {
                    self.look_for_logins().await;
                    continue;
                }
            };
            match due {
                Some(Due::Changed) | None => return,
                // More doubts may come while this one waits.
                Some(Due::Doubted) => until = until.min(Instant::now() + PAUSE),
                Some(Due::Vacated) => {
                    self.leave();
                    until = Instant::now() + PAUSE;
                }
            }
        }
    }

    /// Until then, whoever logs in has its look.
    async fn serve_logins(&mut self, until: Instant) {
        let logins = self.logins.clone();
        while timeout_at(until, logins.wanted.notified()).await.is_ok() {
            self.look_for_logins().await;
        }
    }

    /// Looks at what sessions begin with, for those who log in now. Without a connection nobody waits for one.
    async fn look_for_logins(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.login_look.filter(|last| *last + LOGIN_INTERVAL > now) {
            sleep_until(last + LOGIN_INTERVAL).await;
        }
        self.login_look = Some(Instant::now());
        let (number, users) = self.logins.begin();
        let looked = self.look_at_beginnings(&users).await;
        self.logins.end(number, looked.is_some());
    }

    async fn look_at_beginnings(&mut self, users: &BTreeSet<String>) -> Option<()> {
        let reader = self.kept.upgrade()?.user()?;
        let (_, server) = self.server.as_mut()?;
        let asked = server.query(&before_login(users.iter().map(String::as_str)), LOGIN_LIMIT).await;
        let Ok(rows) = asked else {
            self.server = None;
            return None;
        };
        let mut single = Vec::new();
        for row in rows {
            match <[Option<String>; 2]>::try_from(row) {
                Ok([Some(name), Some(oid)]) => {
                    if self.roles.insert(name.clone(), oid.clone()).is_some_and(|before| before != oid) {
                        reader.take_defaults(Some(&name));
                    }
                }
                Ok(_) => {}
                Err(mut row) => single.push(row.pop().flatten().unwrap_or_default()),
            }
        }
        let configured = single.pop();
        if let (Some(stamp), Some((known, _))) = (single.pop(), &mut self.known)
            && known.defaults != stamp
        {
            known.defaults = stamp;
            reader.take_defaults(None);
        }
        if self.configured.is_some() && self.configured != configured {
            reader.take_configuration();
        }
        self.configured = configured;
        Some(())
    }

    /// Closes the connection. A server that does not take the goodbye finds out by the end of the stream.
    fn leave(&mut self) {
        if let Some((_, mut server)) = self.server.take() {
            let _ = server.stream.try_write(&TERMINATE);
        }
    }

    /// Looks, and makes known what is found. False when that failed; `failed` says that the look before did.
    async fn look(&mut self, failed: bool) -> bool {
        let changes = self.code.changes();
        let before = self.known.clone();
        match self.ask().await {
            Ok((user, stamps, census)) => {
                self.code.publish(changes, Some(census.clone()));
                if let Some((before, known)) = before {
                    // What came of code that nobody knew of may still be there on connections, for whoever gets them.
                    if census.exceeds(&known) {
                        user.renew_connections();
                    }
                    if stamps.defaults != before.defaults {
                        user.take_defaults(None);
                    }
                }
                self.known = Some((stamps, census));
                self.note_looked();
                true
            }
            Err(failure) => {
                self.server = None;
                self.code.end_rest();
                // No node is there yet: who begins the first sessions waits for that, too.
                if self.known.is_some() || !matches!(failure, CensusFailure::Route(_)) {
                    self.note_looked();
                }
                if !failed {
                    tracing::info!(reason = %failure, "the functions of a database cannot be looked at");
                }
                // What was known of an unreachable server stays known, and what is unknown is not waited for.
                if self.code.census().is_none() {
                    self.code.publish(changes, None);
                }
                false
            }
        }
    }

    fn note_looked(&self) {
        if let Some(kept) = self.kept.upgrade() {
            kept.looks.send_modify(|looks| *looks += 1);
        }
    }

    async fn ask(&mut self) -> Result<(Arc<dyn CatalogReader>, Stamps, Arc<Census>), CensusFailure> {
        let user = self.kept.upgrade().and_then(|kept| kept.user()).ok_or(CensusFailure::NoUser)?;
        let node = primary(&*user).await?;
        let (at, mut server) = match self.server.take() {
            Some((at, server)) if at == node && server.stream.is_quiet() => (at, server),
            _ => (node, connect(&*user, node).await?),
        };
        if let Some((known, census)) = &self.known {
            let stamps = look_at_stamps(&mut server, END).await?;
            if stamps.code == known.code {
                self.server = Some((at, server));
                return Ok((user, stamps, census.clone()));
            }
        }
        let stamps = look_at_stamps(&mut server, "").await?;
        let catalog = read(&mut server).await?;
        query(&mut server, END).await?;
        self.server = Some((at, server));
        let (census, database) = (Census::of(&catalog), user.database());
        tracing::debug!(database, functions = catalog.len(), hidden = ?census.hidden(), "took a census");
        Ok((user, stamps, Arc::new(census)))
    }
}

/// The node to look at; when there is none, one that is there within a moment.
async fn primary(user: &dyn CatalogReader) -> Result<NodeId, RouteError> {
    let monitor = user.monitor();
    let until = Instant::now() + PAUSE;
    loop {
        let version = monitor.topology().version;
        let chosen = user.primary();
        if chosen.is_ok() || timeout_at(until, monitor.changed(version)).await.is_err() {
            return chosen;
        }
    }
}

/// The stamps as they are in a transaction, and `then` in the same.
async fn look_at_stamps(server: &mut Server, then: &str) -> Result<Stamps, QueryError> {
    let mut rows = query(server, &format!("{BEGIN}; {STAMP}; {DEFAULTS_STAMP}; {then}")).await?.into_iter();
    let mut next = || rows.next().and_then(|mut row| row.pop().flatten()).unwrap_or_default();
    Ok(Stamps { code: next(), defaults: next() })
}

/// A connection to look: as who checks the node's health, or as a user of the database when that one is not let in.
async fn connect(user: &dyn CatalogReader, node: NodeId) -> Result<Server, ConnectError> {
    let limit = user.connect_timeout();
    match backend::connect(&user.monitor().login(node, user.database()), limit).await {
        Err(error) if error.is_definite() => backend::connect(&user.login(node), limit).await,
        connected => connected,
    }
}

/// Everything that a census is made from.
async fn read(server: &mut Server) -> Result<Catalog, CensusFailure> {
    let mut catalog = Catalog::default();
    loop {
        let last = catalog.last_oid();
        let page = query(server, &functions_after(last)).await?;
        catalog.take(&page);
        if page.len() < FUNCTIONS_PAGE || catalog.last_oid() == last {
            break;
        }
        if catalog.len() > FUNCTIONS_MAX {
            return Err(CensusFailure::TooMany);
        }
    }
    catalog.take(&query(server, &references()).await?);
    catalog.take(&query(server, PRIMARY_ONLY).await?);
    Ok(catalog)
}

async fn query(server: &mut Server, sql: &str) -> Result<Vec<CatalogRow>, QueryError> {
    server.query(sql, ANSWER_LIMIT).await
}
