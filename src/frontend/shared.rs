//! What all clients share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::mpsc;

use super::{
    errors::{self, ErrorWords},
    lookups::{LookupError, Lookups},
    operators::{CONSOLES, Operators, Visitor},
    relay::{OperatorJudge, Worker, begins_with},
    watch::Watch,
};
use crate::{
    backend::LoginFailure,
    clients::{LeaveOrder, Registry},
    databases::{ConfiguredDatabase, DatabaseSettings, Databases, Gates, NewTarget, Target},
    metrics::Accounts,
    net::{Admission, ClientTls, Crowd, Tcp, WrongGuesses},
};
use poolhouse_core::{
    auth::{self, LookedUp, LookupKey},
    session::{self, RouteRow, Session},
    topology::{NodeId, Who},
    wire::error::Report,
};

/// `[server]`, the part that concerns clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The next client gets SQLSTATE 53300.
    pub max_clients: usize,
    /// From accept until the client has proved who it is. The wait for a server connection has limits of its own.
    pub login_timeout: Duration,
    /// How many may be there who have not proved yet who they are; when it is more, the oldest gives way.
    pub logins: Crowd,
    /// How long a drain waits for open transactions.
    pub shutdown_timeout: Duration,
    /// Of the connections of clients.
    pub tcp: Tcp,
    /// How they are encrypted.
    pub tls: Arc<ClientTls>,
}

/// What may change while clients are served.
#[derive(Debug)]
pub struct Live {
    pub directory: auth::Directory,
    pub databases: Databases,
    pub operators: Operators,
    /// Who finds the users that are not listed, if anybody does.
    pub lookups: Option<Arc<Lookups>>,
}

impl Live {
    fn secret_of(&self, user: &str) -> Option<&auth::Secret> {
        self.directory.listed(user).map(|known| known.secret())
    }

    /// Where those are looked up who ask for this database: on whose servers, and in which database there. `None` when
    /// that cannot be said.
    fn place_of_users(&self, database: &str) -> Option<(&DatabaseSettings, String)> {
        let own = self.lookups.as_ref()?.settings().database.clone();
        match self.databases.entry(database).filter(|_| !CONSOLES.contains(&database)) {
            Some(ConfiguredDatabase { settings, .. }) => {
                let named = own.or_else(|| settings.database.clone());
                Some((settings, named.unwrap_or_else(|| database.to_owned())))
            }
            None => Some((&self.databases.only()?.settings, own?)),
        }
    }
}

/// What all clients share.
#[derive(Debug)]
pub struct Frontend {
    settings: ArcSwap<Settings>,
    live: ArcSwap<Live>,
    /// Where operators are handed over.
    pub visitors: mpsc::UnboundedSender<Visitor>,
    pub gates: Gates,
    /// Connections that have not proved yet who they are. They take none of the clients' places.
    pub strangers: Arc<Admission>,
    pub wrong_guesses: WrongGuesses,
    pub registry: Arc<Registry>,
    statements: Arc<session::Statements>,
    pub accounts: Accounts,
    pub watch: Arc<Watch>,
    /// By database and user.
    targets: Mutex<BTreeMap<(String, String), Arc<Target>>>,
}

impl Frontend {
    pub fn new(settings: Settings, live: Live, visitors: mpsc::UnboundedSender<Visitor>) -> Frontend {
        let watch = Watch::default();
        watch.set_client_timeout(settings.tcp.user_timeout);
        Frontend {
            settings: ArcSwap::from_pointee(settings),
            live: ArcSwap::from_pointee(live),
            visitors,
            gates: Gates::default(),
            strangers: Arc::default(),
            wrong_guesses: WrongGuesses::default(),
            registry: Arc::default(),
            statements: Arc::default(),
            accounts: Accounts::default(),
            watch: Arc::new(watch),
            targets: Mutex::default(),
        }
    }

    /// The limits that hold now.
    pub fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// Other limits hold from now on, for those who come.
    pub fn set_settings(&self, settings: Settings) {
        self.watch.set_client_timeout(settings.tcp.user_timeout);
        self.settings.store(Arc::new(settings));
    }

    /// Clients that come from now on are shown other certificates.
    pub fn set_tls(&self, tls: Arc<ClientTls>) {
        let settings = Settings { tls, ..Settings::clone(&self.settings()) };
        self.set_settings(settings);
    }

    /// What is so now.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Other users, operators and databases from now on. Pools grow and shrink at once; sessions go on as they began,
    /// but for those of a database that is not there any more: they end with their transactions.
    pub fn renew(&self, live: Live) {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut gone, before) = (BTreeSet::new(), self.live());
        targets.retain(|(database, user), target| {
            let Some(entry) = live.databases.entry(database) else {
                gone.insert(database.clone());
                return false;
            };
            let settings = entry.settings_of(user);
            target.set_pool_settings(&settings.pool);
            // Those who come now begin with the new settings, beside those who are there.
            let same_secret = before.secret_of(user) == live.secret_of(user);
            target.settings.serves_like(settings) && same_secret
        });
        // Under the lock, so that no target is made of what was before.
        self.live.store(Arc::new(live));
        drop(targets);
        for slot in self.registry.slots() {
            if gone.contains(&*slot.account.database) {
                slot.give(LeaveOrder::Evict);
            }
        }
    }

    /// What a client of this database and user shares with others like it; `None` when there is no such database.
    /// `credential` is what the client has proved, for servers that are to see the client's own name.
    pub fn target(&self, database: &str, user: &str, credential: auth::Credential) -> Option<Arc<Target>> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live.load();
        let settings = live.databases.entry(database)?.settings_of(user);
        let key = (database.to_owned(), user.to_owned());
        if let Some(target) = targets.get(&key) {
            target.renew_credential(credential);
            return Some(target.clone());
        }
        let target = targets.entry(key).or_insert_with(|| {
            let target = Arc::new(self.new_target(settings, database, user, credential));
            target.keep_census();
            target
        });
        Some(target.clone())
    }

    /// The same for a client that replicates, which shares nothing with others. When it replicates a whole server it
    /// may name no database that we know (manual, "Streaming Replication Protocol"; its tools name `replication` then):
    /// any will do if all of them are on one cluster.
    pub fn target_alone(
        &self,
        database: &str,
        user: &str,
        whole_server: bool,
        credential: auth::Credential,
    ) -> Result<Arc<Target>, Report> {
        let live = self.live.load();
        let entry = match live.databases.entry(database) {
            Some(entry) => entry,
            None if whole_server => live.databases.only().ok_or_else(|| errors::ambiguous_server(database))?,
            None => return Err(errors::unknown_database(database)),
        };
        Ok(Arc::new(self.new_target(entry.settings_of(user), database, user, credential)))
    }

    /// Who has this name, listed or looked up, and where the look-up was made: whoever fails to prove it is to be doubted
    /// there.
    ///
    /// # Errors
    /// What the client is told, and what only the log says.
    pub async fn who_is(
        &self,
        live: &Live,
        worker: &Worker,
        database: &str,
        user: &str,
    ) -> Result<(LookedUp, Option<LookupKey>), (ErrorWords, Option<Arc<LookupError>>)> {
        if let Some(listed) = live.directory.listed(user) {
            return Ok((Some(listed.clone()), None));
        }
        let Some(lookups) = &live.lookups else { return Ok((None, None)) };
        let Some((settings, named)) = live.place_of_users(database) else {
            let is_console = CONSOLES.contains(&database);
            let unknown = || (ErrorWords::Ours(errors::unknown_database(database)), None);
            return if is_console { Ok((None, None)) } else { Err(unknown()) };
        };
        let key = LookupKey { cluster: settings.cluster.name.clone(), database: named, user: user.to_owned() };
        let place = || {
            let make = |settings: &DatabaseSettings| {
                let user = lookups.settings().user.as_deref().unwrap_or_default();
                self.new_target(settings, &key.database, user, auth::Credential::None)
            };
            lookups.place(&key, settings, make)
        };
        match lookups.find(&key, &live.directory, place, worker).await {
            Ok(known) => Ok((known, Some(key))),
            Err(error) => Err((error.words(user), Some(error))),
        }
    }

    fn new_target(
        &self,
        settings: &DatabaseSettings,
        database: &str,
        user: &str,
        credential: auth::Credential,
    ) -> Target {
        let account = self.accounts.of(database, user, Some(&settings.cluster.names));
        let (statements, gate) = (self.statements.clone(), self.gates.of(database));
        Target::new(NewTarget { settings: settings.clone(), database, user, credential, statements, account, gate })
    }

    /// Where a statement would go that such a client sends now, in the rows of EXPLAIN ROUTE.
    ///
    /// # Errors
    /// There is no such database, or no statement.
    pub fn explain_route(&self, database: &str, user: &str, sql: &str) -> Result<Vec<RouteRow>, Report> {
        let known = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(&(database.to_owned(), user.to_owned())).cloned();
        let target = match known {
            Some(target) => target,
            None => {
                let live = self.live.load();
                let entry = live.databases.entry(database).ok_or_else(|| errors::unknown_database(database))?;
                let settings = entry.settings_of(user);
                Arc::new(self.new_target(settings, database, user, auth::Credential::None))
            }
        };
        let rule = target.routing.rule_for(Who { user, database, application_name: "" });
        let mut session = Session::new(target.shared.clone(), Arc::default(), Arc::default());
        session.steer(begins_with(target.routing.rule(rule), None));
        session.route_of(sql.as_bytes(), &OperatorJudge { target: &target, rule })
    }

    /// How many texts of prepared statements are kept for clients, and how many bytes they take.
    pub fn prepared_statements(&self) -> (usize, usize) {
        (self.statements.len(), self.statements.bytes())
    }

    /// What is in use, by database and user; where users are looked up, too, as long as nobody is logged in by that name.
    pub fn targets(&self) -> Vec<((String, String), Arc<Target>)> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = targets.clone();
        drop(targets);
        for (database, target) in self.live().lookups.iter().flat_map(|lookups| lookups.places()) {
            all.entry((database, target.login_user().to_owned())).or_insert(target);
        }
        all.into_iter().collect()
    }

    /// Lets operators know of servers that do not let in a database's user.
    fn tell_of_logins(&self, database: &str, user: &str, target: &Target) {
        for LoginFailure { node, code, message } in target.logins.take_news() {
            let node = target.cluster.node(NodeId(node)).name.as_str();
            tracing::info!(database, user, node, code, reason = message, "no connection to a server can be opened");
            self.registry.last_errors.note((database, user), String::new(), Some(node), &code, &message);
        }
        for ((node, code), count) in target.logins.take_counts() {
            target.account.add_login_failures(&target.cluster.node(NodeId(node)).name, &code, count);
        }
    }

    /// Asks those who hold server connections whether they still serve somebody. To be called every few seconds: no
    /// more server connections are lent than clients are alive.
    pub fn call_holders(&self, after: Duration) {
        self.registry.call_holders(after);
    }

    /// Lets go of what no client uses and no server connection belongs to. To be called now and then.
    pub fn keep(&self) {
        for (code, more) in self.registry.refused.untold(Instant::now()) {
            tracing::info!(code, more, "refused more clients like those before");
        }
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        for ((database, user), target) in &*targets {
            self.tell_of_logins(database, user, target);
        }
        for (database, target) in self.live().lookups.iter().flat_map(|lookups| lookups.places()) {
            self.tell_of_logins(&database, target.login_user(), &target);
        }
        targets.retain(|_, target| Arc::strong_count(target) > 1 || !target.is_empty());
        drop(targets);
        if let Some(lookups) = &self.live().lookups {
            lookups.keep();
        }
        self.accounts.keep();
        self.gates.keep();
    }
}
