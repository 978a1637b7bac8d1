//! What the console has at hand: where the tables come from, and who carries out commands.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Show, Shutdown, Table, Value, averages::Averages, command::Explain, conversation::route_table, events::Events, rows,
};
use crate::{databases::Cluster, frontend::Frontend, pool, text::plain};
use poolhouse_core::{
    topology::{Node, State},
    wire::error::{Report, SqlState},
};

/// What the console shows of the configuration, which this module does not know.
#[derive(Debug, Default)]
pub struct Catalog {
    pub settings: super::Settings,
    /// Where clients connect to by TCP, for SHOW DATABASES.
    pub port: u16,
    pub users: Vec<User>,
    pub config: Vec<Setting>,
}

type Set = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Sets the level of the log, or says why it is none.
pub struct SetLevel(pub Box<Set>);

impl std::fmt::Debug for SetLevel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SetLevel")
    }
}

/// A user of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// What `[users.X.pool]` says of it.
    pub pool_size: Option<usize>,
    pub pool_mode: Option<String>,
}

/// A line of SHOW CONFIG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub key: String,
    pub value: String,
    pub default: String,
    /// When a new value takes effect: "at once", for "new sessions", or with a "restart".
    pub takes_effect: &'static str,
}

/// What an operator asks of whoever runs Poolhouse.
#[derive(Debug)]
pub enum Request {
    Shutdown(Shutdown),
    /// To read the configuration again; with where the result is to go.
    Reload {
        /// Only to say what it would change.
        dry: bool,
        result: oneshot::Sender<Result<Vec<String>, String>>,
    },
}

/// Shared by all clients of the console.
#[derive(Debug)]
pub struct Desk {
    pub frontend: Arc<Frontend>,
    clusters: watch::Sender<Arc<[Arc<Cluster>]>>,
    pub catalog: ArcSwap<Catalog>,
    pub set_level: SetLevel,
    pub events: Arc<Events>,
    pub averages: Mutex<Averages>,
    /// Whoever runs Poolhouse.
    pub orders: mpsc::UnboundedSender<Request>,
    /// The level of the log, once it has been changed.
    pub log_level: Mutex<Option<String>>,
    /// The client that has suspended everything.
    pub suspended_by: Mutex<Option<u64>>,
    ending: AtomicBool,
    /// How often the configuration was read again and taken over, and how often it was wrong.
    pub reloads: [AtomicU64; 2],
}

impl Desk {
    pub fn new(
        frontend: Arc<Frontend>,
        clusters: Vec<Arc<Cluster>>,
        catalog: Catalog,
        set_level: SetLevel,
        orders: mpsc::UnboundedSender<Request>,
    ) -> Arc<Desk> {
        Arc::new(Desk {
            reloads: Default::default(),
            frontend,
            clusters: watch::Sender::new(clusters.into()),
            catalog: ArcSwap::from_pointee(catalog),
            set_level,
            events: Arc::default(),
            averages: Mutex::new(Averages::new(Instant::now())),
            orders,
            log_level: Mutex::default(),
            suspended_by: Mutex::default(),
            ending: AtomicBool::new(false),
        })
    }

    /// The clusters that there are now.
    pub fn clusters(&self) -> Arc<[Arc<Cluster>]> {
        self.clusters.borrow().clone()
    }

    /// Tells of the clusters when they are others.
    pub fn watch_clusters(&self) -> watch::Receiver<Arc<[Arc<Cluster>]>> {
        self.clusters.subscribe()
    }

    /// These are the clusters from now on.
    pub fn set_clusters(&self, clusters: Vec<Arc<Cluster>>) {
        self.clusters.send_replace(clusters.into());
    }

    /// A table as it is now.
    pub fn table(&self, show: Show) -> Table {
        let mut table = show.table();
        table.rows = match show {
            Show::Databases => rows::databases(self),
            Show::Pools => rows::pools(self),
            Show::PoolNodes => rows::pool_nodes(self),
            Show::Nodes => rows::nodes(self),
            Show::Clients => rows::clients(self),
            Show::Servers => rows::servers(self),
            Show::Sockets => rows::sockets(self, false),
            Show::ActiveSockets => rows::sockets(self, true),
            Show::Stats => rows::stats(self),
            Show::StatsTotals => rows::stats_totals(self),
            Show::StatsAverages => rows::stats_averages(self),
            Show::Totals => rows::totals(self),
            Show::Users => rows::users(self),
            Show::Lists => rows::lists(self),
            Show::Mem => rows::mem(),
            Show::State => rows::state(self),
            Show::Config => rows::config(self),
            Show::Version => vec![crate::admin::table::row![self.version()]],
            Show::Pins => rows::pins(self),
            Show::Queries => rows::queries(self),
            Show::Errors => rows::errors(self),
            Show::Events => self.events.rows(),
            Show::Fds | Show::DnsHosts | Show::DnsZones | Show::Peers | Show::PeerPools => Vec::new(),
        };
        made_plain(table)
    }

    /// Where a statement would go.
    ///
    /// # Errors
    /// It is not known which database is meant, or there is no such one.
    pub fn explain(&self, explain: &Explain, who: &str) -> Result<Table, Report> {
        let live = self.frontend.live();
        let mut names = live.databases.by_name.keys().filter(|name| *name != "*");
        let database = match (&explain.database, names.next(), names.next()) {
            (Some(database), ..) => database,
            (None, Some(only), None) => only,
            _ => {
                return Err(Report::error(SqlState::SYNTAX_ERROR, "EXPLAIN ROUTE needs the name of a database here")
                    .hint("Write it like EXPLAIN ROUTE DATABASE app SELECT 1."));
            }
        };
        let user = explain.user.as_deref().unwrap_or(who);
        let mut table = route_table();
        let rows = self.frontend.explain_route(database, user, &explain.sql)?;
        let value = |value: Option<String>| value.map_or(Value::Null, Value::Text);
        table.rows = rows.into_iter().map(|row| row.into_iter().map(value).collect()).collect();
        Ok(made_plain(table))
    }

    /// Poolhouse has begun to end.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whether writes can be served now, or only reads.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self, reads: bool) -> Result<(), String> {
        if self.ending.load(Ordering::Relaxed) {
            return Err("Poolhouse is shutting down".into());
        }
        for cluster in self.clusters().iter() {
            let topology = cluster.monitor.topology();
            let name = &cluster.name;
            let serves = |node: &Node| matches!(node.state, State::Up | State::Suspect { .. }) && node.role.is_some();
            if reads && !topology.nodes.iter().any(serves) {
                return Err(format!("cluster {name}: no server is up: {}", cluster.how_nodes_are()));
            }
            if !reads && topology.primary.is_none() {
                return Err(format!("cluster {name}: no primary is known: {}", cluster.how_nodes_are()));
            }
        }
        Ok(())
    }

    /// Sets the level of the log, by the word of an operator or of a configuration that was read again.
    ///
    /// # Errors
    /// It is none.
    pub fn set_log_level(&self, level: &str) -> Result<(), String> {
        (self.set_level.0)(level)?;
        *self.log_level.lock().unwrap_or_else(PoisonError::into_inner) = Some(level.to_owned());
        Ok(())
    }

    /// As SHOW VERSION has it.
    pub fn version(&self) -> String {
        match &self.catalog.load().settings.pgbouncer_version {
            Some(version) => format!("PgBouncer {version}"),
            None => format!("Poolhouse {}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// As the parameter `server_version` has it: a number in front, and who it is.
    pub fn server_version(&self) -> String {
        match &self.catalog.load().settings.pgbouncer_version {
            Some(version) => format!("{version}/bouncer"),
            None => format!("{}/poolhouse", env!("CARGO_PKG_VERSION")),
        }
    }

    /// Everything in all pools.
    pub fn counts(&self) -> pool::PoolCounts {
        let mut sum = pool::PoolCounts::default();
        for (_, target) in self.frontend.targets() {
            for (_, pool) in target.pools() {
                sum.merge(pool.counts());
            }
        }
        sum
    }
}

/// Names, errors and statements come from outside: here nothing of them can do anything to whoever looks at the table.
fn made_plain(mut table: Table) -> Table {
    for cell in table.rows.iter_mut().flatten() {
        if let Value::Text(text) = cell
            && let Cow::Owned(plain) = plain(text)
        {
            *text = plain;
        }
    }
    table
}

/// As PgBouncer writes it.
pub fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years ("chrono-Compatible Low-Level Date Algorithms", Howard Hinnant).
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + carry;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_out() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_827_696, "2000-02-29 12:34:56 UTC"),
            (1_795_766_399, "2026-11-27 07:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
