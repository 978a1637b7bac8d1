//! The configuration: `keys` declares what may be written, `raw` is the file as it is, `check` turns it into the typed
//! settings of each module and reports every mistake at once; `upstream` makes the same settings from a connection string,
//! without a file.
//!
//! What has an effect is in this file alone: reading files and environment variables, and counting cores.
//!
//! # A new setting
//!
//! 1. Its use: a field of the `Settings` type of the module that it is for, with its default there.
//! 2. Its declaration in `keys`: its sentence, its name, its place in that type, what it may be, and when a change takes
//!    effect. Reading and its bounds, the overrides of databases and users, the differences at RELOAD, SHOW CONFIG, the
//!    nearest key to a slip of the pen, `config/reference.toml` and `config/schema.json` come from that. `make reference`
//!    writes the two files anew.
//! 3. Its prose: a row of docs/configuration.md, whose default is compared with the declaration.
//!
//! Only what takes more than its own value to be judged, as a password without a user, is read by hand, in the file of its
//! section. A new section is one more `section!`, its line in `keys::SECTIONS`, and its places in `reference` and `listing`.

mod address;
mod admin;
mod changes;
mod check;
mod cluster;
mod conninfo;
mod database;
mod declare;
mod foreign;
mod keys;
mod kind;
mod listing;
mod mistake;
mod parameters;
mod pooling;
mod raw;
mod reference;
mod schema;
mod seats;
#[cfg(test)]
mod tests;
mod upstream;
mod value;

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::{Path, PathBuf},
};

pub use changes::{Change, Effect, changes};
pub use listing::listing;
pub use mistake::{Mistake, Mistakes};
pub use pooling::PoolOverride;
pub use reference::reference;
pub use schema::schema;
use value::Outside;

use crate::{admin as console, frontend, monitor, net, pool};
use poolhouse_core::{auth, session, topology};

/// Everything that a running Poolhouse needs to know; made by `check`, and by `upstream` without a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub listen: Vec<net::Listen>,
    pub listeners: Vec<Listener>,
    /// Threads that serve clients, at least 1; `workers = 0` has been replaced by the number of cores.
    pub workers: usize,
    pub frontend: frontend::Settings,
    pub auth: auth::Settings,
    pub clusters: Vec<monitor::Settings>,
    /// By the name that clients ask for; `"*"` serves any other name.
    pub databases: BTreeMap<String, Database>,
    /// `[users.X.pool]`: overrides by user, the strongest.
    pub user_pools: BTreeMap<String, PoolOverride>,
    pub admin: console::Settings,
    pub log: Log,
}

/// What holds without a word on it.
impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: vec![net::Listen::Tcp(address::LISTEN_DEFAULT.into())],
            listeners: Vec::new(),
            workers: 0,
            frontend: check::frontend_defaults(),
            auth: auth::Settings::default(),
            clusters: Vec::new(),
            databases: BTreeMap::new(),
            user_pools: BTreeMap::new(),
            admin: console::Settings { http: Some(admin::default_http()), ..console::Settings::default() },
            log: Log::default(),
        }
    }
}

/// `[[listener]]`: an address all of whose sessions have one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub address: net::Listen,
    pub route: session::Route,
}

/// `[databases.X]`. Has no name: clients name it, and `"*"` serves many.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Index into `Settings::clusters`.
    pub cluster: usize,
    /// Name on the server; `None` = the name that the client asked for.
    pub database: Option<String>,
    /// Fixed identity on the server; `None` = the client's own name and password.
    pub login: Option<Login>,
    /// Already merged from `[pool]` and `[databases.X.pool]`.
    pub pool: pool::Settings,
    pub session: session::Settings,
    /// Already merged from the cluster's and the database's own.
    pub routing: topology::Routing,
    /// Settings with which sessions begin that do not say so themselves, as in a startup packet. Only a connection string
    /// has some.
    pub defaults: Vec<(String, String)>,
}

/// Who logs in to the servers of a database, whoever the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: Option<auth::Secret>,
}

/// What `[pool]` is about: how connections are lent, and how conversations go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pooling {
    pub lending: pool::Settings,
    pub session: session::Settings,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter: a level, or directives like `poolhouse::monitor=debug,info`.
    pub level: String,
    pub format: LogFormat,
    /// From how long on a statement is logged, its wait for a server connection included; `None` for never.
    pub slow: Option<std::time::Duration>,
    /// Whether it is logged with its values, as the client sent it.
    pub slow_values: bool,
    /// Whether logins and disconnections of clients are logged.
    pub connections: bool,
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".to_owned(), format: LogFormat::Text, slow: None, slow_values: false, connections: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// A configuration that is right.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub settings: Settings,
    /// What is odd about it, for the log.
    pub warnings: Vec<Mistake>,
    /// What is not, and may still surprise somebody.
    pub notes: Vec<Mistake>,
}

/// What the command line says in place of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// Addresses as in `server.listen`; when there are any, the file's do not count.
    pub listen: Vec<String>,
    /// As in `server.workers`: 0 = one per core.
    pub workers: Option<usize>,
    /// As in `admin.http`.
    pub http: Option<String>,
    /// As in `admin.token`.
    pub token: Option<String>,
}

/// A configuration file of more bytes is none; so is a users file or a secret.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Reads a configuration file, the files that it names, and the environment variables that it names.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load(path: &Path, over: &Overrides) -> Result<Loaded, Mistakes> {
    let source = path.display().to_string();
    let text = read(path).map_err(|why| {
        let (key, mend) = (String::new(), "name a TOML file that can be read".to_owned());
        Mistakes {
            mistakes: vec![Mistake { source: source.clone(), line: None, key, what: why, mend }],
            warnings: vec![],
        }
    })?;
    let directory = path.parent().map(Path::to_owned).unwrap_or_default();
    with_outside(directory, |outside| check::check(&text, &source, outside, over))
}

/// Settings without a file, from a libpq URL (`postgres://…`) or keyword string (`host=… user=…`): clients log in with
/// its user and password, and see the database under the same name. `source` is the flag or variable that it came from.
///
/// # Errors
/// Everything that is wrong with it. No message repeats the password.
pub fn from_upstream(text: &str, source: &str, over: &Overrides) -> Result<Loaded, Mistakes> {
    with_outside(PathBuf::new(), |outside| upstream::settings(text, source, outside, over))
}

fn with_outside<T>(directory: PathBuf, work: impl FnOnce(&Outside<'_>) -> T) -> T {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    work(&Outside { directory, variable: &variable, read: &read, filter: &filter, cores })
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|error| match error {
        std::env::VarError::NotPresent => "is not set".to_owned(),
        std::env::VarError::NotUnicode(_) => "is not UTF-8".to_owned(),
    })
}

fn read(path: &Path) -> Result<String, String> {
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidData => "is not UTF-8".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    let bytes = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(cannot)?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// Whether the log can have this level.
///
/// # Errors
/// Why not.
pub fn check_log_level(text: &str) -> Result<(), String> {
    check::stray_level(text).map_err(|(what, mend)| format!("{what}: {mend}"))?;
    filter(text)
}

fn filter(text: &str) -> Result<(), String> {
    let parsed = tracing_subscriber::EnvFilter::builder().parse(text);
    parsed.map(|_| ()).map_err(|error| error.to_string())
}
