//! Takes the census of each database's own code and keeps it true: when statements come after a pause, after a change of
//! code that passed by, when a function is called that it does not know, and now and then by a stamp of the catalog,
//! since code can be changed beside Poolhouse. In the background, over a connection of its own that lasts as long as a
//! look, so that no statement waits for it and it keeps nobody from dropping the database.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    acquire::{Request, choose},
    target::Target,
};
use crate::{
    backend::{self, ConnectError, QueryError, Server},
    session::{Due, Need, OwnCode},
    sql::{
        Catalog, Census,
        census::{BEGIN, END, FUNCTIONS_PAGE, PRIMARY_ONLY, Row, STAMP, functions_after, references},
    },
    tasks::Scope,
    topology::{NodeId, NodeSet, RouteError},
    wire::request::TERMINATE,
};

/// How often the catalog's stamp is looked at while the database is in use: how late a change is noticed that is made
/// beside Poolhouse.
const INTERVAL: Duration = Duration::from_secs(10);

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

/// The own code of all databases of one cluster.
#[derive(Debug)]
pub struct Codes {
    by_database: Mutex<BTreeMap<String, Weak<Kept>>>,
    scope: Scope,
}

/// The own code of one database, as long as somebody may use it.
#[derive(Debug)]
pub struct Kept {
    pub code: Arc<OwnCode>,
    /// Those as whom one may log in to look. Who cannot be upgraded is gone.
    users: Mutex<Vec<Weak<Target>>>,
    /// Where the task lives that keeps it, once there is one.
    scope: Scope,
}

impl Codes {
    pub fn new(scope: Scope) -> Codes {
        Codes { by_database: Mutex::default(), scope }
    }

    /// What is shared by all users of a database, by its name on the server.
    pub fn of(&self, database: &str) -> Arc<Kept> {
        let mut by_database = lock(&self.by_database);
        if let Some(kept) = by_database.get(database).and_then(Weak::upgrade) {
            return kept;
        }
        by_database.retain(|_, kept| kept.strong_count() > 0);
        let kept = Arc::new(Kept { code: Arc::default(), users: Mutex::default(), scope: self.scope.child() });
        by_database.insert(database.to_owned(), Arc::downgrade(&kept));
        kept
    }
}

impl Kept {
    /// A target whose sessions want to know. The first one sets the keeper to work, on the calling thread.
    pub fn join(self: &Arc<Self>, target: &Arc<Target>) {
        let mut users = lock(&self.users);
        users.retain(|user| user.strong_count() > 0);
        users.push(Arc::downgrade(target));
        if self.scope.is_empty() {
            self.code.keep();
            let keeper = Keeper { kept: Arc::downgrade(self), code: self.code.clone(), known: None };
            let stopping = self.scope.clone();
            self.scope.spawn("keep a census", async move {
                tokio::select! {
                    () = stopping.stopping() => {}
                    () = keeper.run() => {}
                }
            });
        }
    }

    fn user(&self) -> Option<Arc<Target>> {
        lock(&self.users).iter().find_map(Weak::upgrade)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.scope.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Keeper {
    kept: Weak<Kept>,
    code: Arc<OwnCode>,
    /// The last census, and the stamp of the catalog that it was made from.
    known: Option<(String, Arc<Census>)>,
}

/// Why there is no census.
#[derive(Debug, thiserror::Error)]
enum Failure {
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
            self.due().await;
            let mut failed = false;
            loop {
                let started = Instant::now();
                failed = !self.look(failed).await;
                sleep((started.elapsed() * SHARE).min(PAUSE)).await;
                let next = started + if failed { PAUSE } else { INTERVAL };
                if !self.is_wanted_again(next).await {
                    break;
                }
            }
            self.code.rest();
        }
    }

    async fn due(&self) -> Due {
        poll_fn(|cx| self.code.poll_due(cx)).await
    }

    /// Waits until there is a reason to look again; false when the time has come and no statement has.
    async fn is_wanted_again(&self, next: Instant) -> bool {
        let doubted = Instant::now() + PAUSE;
        match timeout_at(next, self.due()).await {
            Ok(Due::Changed) => return true,
            Ok(Due::Doubted) => {}
            Err(_) => return self.code.was_used(),
        }
        // More doubts may come while this one waits.
        let changed = async { while self.due().await != Due::Changed {} };
        let _ = timeout_at(doubted, changed).await;
        true
    }

    /// Looks, and makes known what is found. False when that failed; `failed` says that the look before did.
    async fn look(&mut self, failed: bool) -> bool {
        let changes = self.code.changes();
        match self.ask().await {
            Ok(census) => {
                self.code.publish(changes, Some(census));
                true
            }
            Err(failure) => {
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

    async fn ask(&mut self) -> Result<Arc<Census>, Failure> {
        let user = self.kept.upgrade().and_then(|kept| kept.user()).ok_or(Failure::NoUser)?;
        let request = Request { need: Need::Write, after: None, lsn: None, rule: None, seed: 0 };
        let node = choose(&user, request, NodeSet::NONE)?.node;
        let mut server = connect(&user, node).await?;
        query(&mut server, BEGIN).await?;
        let stamp = query(&mut server, STAMP).await?.pop().and_then(|mut row| row.pop().flatten()).unwrap_or_default();
        let census = match &self.known {
            Some((known, census)) if *known == stamp => census.clone(),
            _ => {
                let catalog = read(&mut server).await?;
                let (census, database) = (Census::of(&catalog), user.server_database());
                tracing::debug!(database, functions = catalog.len(), hidden = ?census.hidden(), "took a census");
                Arc::new(census)
            }
        };
        query(&mut server, END).await?;
        // A server that does not take the goodbye finds out by the end of the stream.
        let _ = server.stream.try_write(&TERMINATE);
        self.known = Some((stamp, census.clone()));
        Ok(census)
    }
}

/// A connection for one look: as who checks the node's health, or as a user of the database when that one is not let in.
async fn connect(user: &Target, node: NodeId) -> Result<Server, ConnectError> {
    let limit = user.cluster.connect_timeout;
    match backend::connect(&user.cluster.monitor.login(node, user.server_database()), limit).await {
        Err(error) if error.is_definite() => backend::connect(&user.login(node), limit).await,
        connected => connected,
    }
}

/// Everything that a census is made from.
async fn read(server: &mut Server) -> Result<Catalog, Failure> {
    let mut catalog = Catalog::default();
    loop {
        let last = catalog.last_oid();
        let page = query(server, &functions_after(last)).await?;
        catalog.take(&page);
        if page.len() < FUNCTIONS_PAGE || catalog.last_oid() == last {
            break;
        }
        if catalog.len() > FUNCTIONS_MAX {
            return Err(Failure::TooMany);
        }
    }
    catalog.take(&query(server, &references()).await?);
    catalog.take(&query(server, PRIMARY_ONLY).await?);
    Ok(catalog)
}

async fn query(server: &mut Server, sql: &str) -> Result<Vec<Row>, QueryError> {
    server.query(sql, ANSWER_LIMIT).await
}
