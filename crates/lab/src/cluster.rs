//! Throwaway clusters: a primary and its streaming replicas in a temporary directory, on free ports of 127.0.0.1 and on
//! Unix sockets in that directory. Durability is off for speed (a killed server loses nothing, a killed machine would).
//! The superuser needs no password on the sockets, which only the server's user may reach, and a random one elsewhere.

use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use postgres_protocol::escape::{escape_identifier, escape_literal};

use crate::{
    data::{self, SUPERUSER},
    node::LabNode,
    postgres::{Postgres, PostgresError},
    throwaway::{self, Throwaway},
};

/// The user as which replicas log in to the primary.
const REPLICATOR: &str = "replicator";

/// What replicas may take until all of them receive WAL.
const STREAMING_LIMIT: Duration = Duration::from_secs(60);

/// A port that was free may be taken when the server wants it.
const PORT_ATTEMPTS: u32 = 5;

/// Every server's settings, which `Builder::setting` may override. Files stand in for shared memory because that is
/// small in containers, and what is left of it after a kill goes with the directory.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "100"),
    ("shared_buffers", "64MB"),
    ("dynamic_shared_memory_type", "mmap"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "replica"),
    ("hot_standby", "on"),
    ("wal_keep_size", "512MB"),
    ("max_wal_senders", "20"),
    ("max_prepared_transactions", "10"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_retrieve_retry_interval", "100ms"),
    ("recovery_target_timeline", "latest"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("lc_messages", "C"),
    ("timezone", "UTC"),
];

/// Why there is no cluster, or why something cannot be done to it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error("cannot {what}: {error}")]
    Io { what: &'static str, error: io::Error },
    #[error("initdb {how}; its last words:\n{log}")]
    Initdb { how: String, log: String },
    #[error("{node} did not {what}: {why}; the end of its log:\n{log}")]
    Node { node: String, what: &'static str, why: String, log: String },
    #[error("{node}: {error} (asked: {sql})")]
    Query { node: String, sql: String, error: String },
}

impl ClusterError {
    pub(super) fn io(what: &'static str, error: io::Error) -> ClusterError {
        ClusterError::Io { what, error }
    }

    /// Somebody else has the port.
    fn is_port_taken(&self) -> bool {
        matches!(self, ClusterError::Node { log, .. } if log.contains("Address already in use"))
    }
}

/// How a user logs in, as pg_hba.conf names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabLogin {
    Trust,
    /// In clear text.
    Password,
    Md5,
    Scram,
}

impl LabLogin {
    fn method(self) -> &'static str {
        match self {
            LabLogin::Trust => "trust",
            LabLogin::Password => "password",
            LabLogin::Md5 => "md5",
            LabLogin::Scram => "scram-sha-256",
        }
    }
}

#[derive(Debug, Clone)]
struct LabUser {
    name: String,
    password: String,
    login: LabLogin,
    attributes: &'static str,
}

/// What a cluster will be.
#[derive(Debug, Clone)]
pub struct Builder {
    replicas: usize,
    settings: Vec<(String, String)>,
    users: Vec<LabUser>,
    databases: Vec<String>,
    postgres: Option<Postgres>,
    cache: Option<PathBuf>,
    tls: Option<LabTls>,
}

/// What a server needs for TLS, in PEM.
#[derive(Debug, Clone)]
pub struct LabTls {
    pub certificate: String,
    pub private_key: String,
    /// Clients have to show a certificate of this authority, which names their user.
    pub client_ca: Option<String>,
    /// Nobody but the superuser and replicas gets in without TLS.
    pub only: bool,
}

impl Builder {
    /// How many streaming replicas the primary has.
    pub fn replicas(mut self, replicas: usize) -> Builder {
        self.replicas = replicas;
        self
    }

    /// A parameter of postgresql.conf, on every node.
    pub fn setting(mut self, name: &str, value: &str) -> Builder {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A user who may log in to every database and create tables in it.
    pub fn user(self, name: &str, password: &str, login: LabLogin) -> Builder {
        self.with_user(name, password, login, "")
    }

    pub fn trust_user(self, name: &str) -> Builder {
        self.user(name, "", LabLogin::Trust)
    }

    pub fn password_user(self, name: &str, password: &str) -> Builder {
        self.user(name, password, LabLogin::Password)
    }

    pub fn md5_user(self, name: &str, password: &str) -> Builder {
        self.user(name, password, LabLogin::Md5)
    }

    pub fn scram_user(self, name: &str, password: &str) -> Builder {
        self.user(name, password, LabLogin::Scram)
    }

    /// A superuser with SCRAM-SHA-256: what Poolhouse promotes with.
    pub fn superuser(self, name: &str, password: &str) -> Builder {
        self.with_user(name, password, LabLogin::Scram, "SUPERUSER")
    }

    fn with_user(mut self, name: &str, password: &str, login: LabLogin, attributes: &'static str) -> Builder {
        self.users.push(LabUser { name: name.to_owned(), password: password.to_owned(), login, attributes });
        self
    }

    /// A user with SCRAM-SHA-256 who may replicate, whole servers and single databases.
    pub fn replication_user(self, name: &str, password: &str) -> Builder {
        self.with_user(name, password, LabLogin::Scram, "REPLICATION")
    }

    /// A database besides `postgres`.
    pub fn database(mut self, name: &str) -> Builder {
        self.databases.push(name.to_owned());
        self
    }

    /// Another PostgreSQL than [`Postgres::find`] finds.
    pub fn postgres(mut self, postgres: Postgres) -> Builder {
        self.postgres = Some(postgres);
        self
    }

    /// Where to keep what initdb makes, for the next cluster; nowhere otherwise.
    pub fn cache(mut self, directory: &Path) -> Builder {
        self.cache = Some(directory.to_owned());
        self
    }

    /// The servers have TLS.
    pub fn tls(mut self, tls: LabTls) -> Builder {
        let shows = tls.client_ca.is_some();
        self.tls = Some(tls);
        let encrypted = self.setting("ssl", "on");
        if shows { encrypted.setting("ssl_ca_file", "root.crt") } else { encrypted }
    }

    /// Starts the primary, makes users and databases, starts the replicas, and returns when all of them receive WAL.
    ///
    /// # Errors
    /// [`ClusterError`]; nothing is left running then.
    pub fn start(mut self) -> Result<LabCluster, ClusterError> {
        let unmade = |error| ClusterError::io("make a temporary directory", error);
        let postgres = self.postgres.take().map_or_else(Postgres::find, Ok)?;
        let throwaway = Arc::new(Throwaway::new().map_err(unmade)?);
        postgres.own(throwaway.path()).map_err(unmade)?;
        let secret = || throwaway::random_hex(16).map_err(unmade);
        let (superuser_password, replicator_password) = (secret()?, secret()?);
        self.users.push(LabUser {
            name: REPLICATOR.to_owned(),
            password: replicator_password,
            login: LabLogin::Scram,
            attributes: "REPLICATION",
        });
        let template = match &self.cache {
            Some(cache) => data::cached(&postgres, cache, throwaway.path())?,
            None => {
                let template = throwaway.path().join("initdb");
                data::initialise(&postgres, &template, &throwaway.path().join("initdb.log"))?;
                template
            }
        };
        let plan = Plan { builder: &self, postgres: &postgres, throwaway: &throwaway, template: &template };
        let primary = plan.start(1, None)?;
        self.populate(&primary, &superuser_password)?;
        let mut nodes = vec![primary];
        nodes.extend(plan.start_replicas(nodes[0].port())?);
        if self.cache.is_none() {
            let _ = fs::remove_dir_all(&template);
        }
        let cluster = LabCluster { nodes, superuser_password, throwaway };
        cluster.wait_for_streaming()?;
        Ok(cluster)
    }

    fn populate(&self, primary: &LabNode, superuser_password: &str) -> Result<(), ClusterError> {
        primary.query(&format!("ALTER ROLE {SUPERUSER} PASSWORD {}", escape_literal(superuser_password)))?;
        for user in &self.users {
            let stored = if user.login == LabLogin::Md5 { "md5" } else { "scram-sha-256" };
            let (name, password) = (escape_identifier(&user.name), escape_literal(&user.password));
            primary.query(&format!(
                "SET password_encryption = '{stored}'; CREATE ROLE {name} LOGIN {} PASSWORD {password}",
                user.attributes
            ))?;
        }
        // Since version 15 only the owner may create tables there.
        let grant = "GRANT CREATE ON SCHEMA public TO PUBLIC";
        primary.query_in("template1", grant)?;
        primary.query(grant)?;
        for database in &self.databases {
            primary.query(&format!("CREATE DATABASE {}", escape_identifier(database)))?;
        }
        Ok(())
    }

    /// postgresql.conf: the later of two lines for one parameter counts.
    fn configuration(&self, name: &str, sockets: &Path) -> String {
        let sockets = sockets.display().to_string();
        let own = [("unix_socket_directories", sockets.as_str()), ("cluster_name", name)];
        let settings = own.iter().chain(SETTINGS).copied();
        let overrides = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        settings.chain(overrides).fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name} = {}", quoted(value));
            text
        })
    }

    /// pg_hba.conf: the first line that fits a connection counts.
    fn access(&self) -> String {
        let mut text = format!("local all {SUPERUSER} trust\nhost all {SUPERUSER} 127.0.0.1/32 scram-sha-256\n");
        for user in &self.users {
            let (name, method) = (escape_identifier(&user.name), user.login.method());
            let database = match user.attributes {
                _ if user.name == REPLICATOR => "replication",
                "REPLICATION" => "all,replication",
                _ => "all",
            };
            let tls = self.tls.as_ref().filter(|_| user.name != REPLICATOR);
            let host = if tls.is_some_and(|tls| tls.only) { "hostssl" } else { "host" };
            let shows = if tls.is_some_and(|tls| tls.client_ca.is_some()) { " clientcert=verify-full" } else { "" };
            let _ = writeln!(text, "local {database} {name} {method}");
            let _ = writeln!(text, "{host} {database} {name} 127.0.0.1/32 {method}{shows}");
        }
        text
    }

    fn replication_login(&self) -> String {
        let replicator = self.users.iter().find(|user| user.name == REPLICATOR);
        replicator.map_or_else(String::new, |user| format!("user={} password={}", user.name, user.password))
    }
}

/// What every node of a cluster is made from.
struct Plan<'a> {
    builder: &'a Builder,
    postgres: &'a Postgres,
    throwaway: &'a Arc<Throwaway>,
    template: &'a Path,
}

impl Plan<'_> {
    fn start_replicas(&self, primary: u16) -> Result<Vec<LabNode>, ClusterError> {
        thread::scope(|scope| {
            let numbers = 2..2 + self.builder.replicas;
            let starting: Vec<_> =
                numbers.map(|number| scope.spawn(move || self.start(number, Some(primary)))).collect();
            let panicked = || ClusterError::io("start a replica", io::Error::other("its thread panicked"));
            starting.into_iter().map(|starts| starts.join().unwrap_or_else(|_| Err(panicked()))).collect()
        })
    }

    /// Starts a replica of the primary at that port, or else the primary.
    fn start(&self, number: usize, primary: Option<u16>) -> Result<LabNode, ClusterError> {
        let name = format!("node{number}");
        let directory = self.throwaway.path().join(&name);
        let made = fs::create_dir(&directory).and_then(|()| self.postgres.own(&directory));
        let own = |path: &Path| self.postgres.own(path);
        let copied = made.and_then(|()| data::copy(self.template, &directory.join("data"), &own));
        copied.map_err(|error| ClusterError::io("make a data directory", error))?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let port = throwaway::free_port().map_err(|error| ClusterError::io("find a free port", error))?;
            let node = self.node(&name, port, &directory);
            self.configure(&node, primary)?;
            match node.start() {
                Err(error) if error.is_port_taken() && attempts < PORT_ATTEMPTS => {
                    // Or the next attempt would read of this one.
                    let _ = fs::remove_file(node.log_path());
                }
                started => return started.map(|()| node),
            }
        }
    }

    fn node(&self, name: &str, port: u16, directory: &Path) -> LabNode {
        LabNode {
            name: name.to_owned(),
            port,
            directory: directory.to_owned(),
            replication_login: self.builder.replication_login(),
            postgres: self.postgres.clone(),
            throwaway: self.throwaway.clone(),
            server: Mutex::new(None),
        }
    }

    fn configure(&self, node: &LabNode, primary: Option<u16>) -> Result<(), ClusterError> {
        node.write("postgresql.conf", &self.builder.configuration(node.name(), self.throwaway.path()))?;
        node.write("pg_hba.conf", &self.builder.access())?;
        if let Some(tls) = &self.builder.tls {
            node.write("server.crt", &tls.certificate)?;
            node.write("server.key", &tls.private_key)?;
            if let Some(ca) = &tls.client_ca {
                node.write("root.crt", ca)?;
            }
        }
        if let Some(primary) = primary {
            let conninfo = quoted(&node.primary_conninfo(primary));
            // Where ALTER SYSTEM changes it.
            node.write("postgresql.auto.conf", &format!("primary_conninfo = {conninfo}\n"))?;
            node.write("standby.signal", "")?;
        }
        Ok(())
    }
}

/// A running cluster. Dropping it, also in a panic, ends its servers and removes its directory; so does the end of the
/// process by whatever signal.
#[derive(Debug)]
pub struct LabCluster {
    nodes: Vec<LabNode>,
    superuser_password: String,
    throwaway: Arc<Throwaway>,
}

impl LabCluster {
    /// A primary; [`Builder::replicas`] gives it replicas.
    pub fn primary() -> Builder {
        Builder {
            replicas: 0,
            settings: Vec::new(),
            users: Vec::new(),
            databases: Vec::new(),
            postgres: None,
            cache: None,
            tls: None,
        }
    }

    /// Number 0 began as the primary, the others as its replicas.
    ///
    /// # Panics
    /// There is no such node.
    pub fn node(&self, number: usize) -> &LabNode {
        &self.nodes[number]
    }

    pub fn nodes(&self) -> &[LabNode] {
        &self.nodes
    }

    /// Where the servers' Unix sockets are.
    pub fn socket_directory(&self) -> &Path {
        self.throwaway.path()
    }

    /// The password of user `postgres` over TCP.
    pub fn superuser_password(&self) -> &str {
        &self.superuser_password
    }

    /// Has another process ended when ours is killed, as the servers are: one with a path below the cluster's directory
    /// on its command line.
    ///
    /// # Errors
    /// The watcher is gone.
    pub fn watch(&self, process: u32) -> io::Result<()> {
        self.throwaway.watch(process)
    }

    /// Waits until every replica shows what the first node has written until now.
    ///
    /// # Errors
    /// A node cannot be asked, or it takes more than two minutes.
    pub fn catch_up(&self) -> Result<(), ClusterError> {
        self.nodes[1..].iter().try_for_each(|replica| replica.catch_up(&self.nodes[0]))
    }

    fn wait_for_streaming(&self) -> Result<(), ClusterError> {
        let primary = &self.nodes[0];
        for replica in &self.nodes[1..] {
            let streams = || Ok(replica.streams_from()? == Some(primary.port()));
            replica.wait_for("receive WAL", STREAMING_LIMIT, streams)?;
        }
        let replicas = self.nodes.len() - 1;
        primary.wait_for("send WAL", STREAMING_LIMIT, || Ok(primary.streams_to()?.len() == replicas))
    }
}

/// A value in postgresql.conf, where backslashes are special.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_caller_come_last() {
        let builder = LabCluster::primary().setting("max_connections", "7").setting("search_path", "it's");
        let text = builder.configuration("node1", Path::new("/tmp/x"));
        let (ours, theirs) =
            (text.find("max_connections = '100'").unwrap(), text.find("max_connections = '7'").unwrap());
        assert!(ours < theirs);
        assert!(text.starts_with("unix_socket_directories = '/tmp/x'\n"), "{text}");
        assert!(text.ends_with("search_path = 'it''s'\n"), "{text}");
    }

    #[test]
    fn users_are_let_in_by_their_method_only() {
        let builder =
            LabCluster::primary().trust_user("a").md5_user("b", "x").password_user("c", "x").scram_user("d\"", "x");
        let text = builder.access();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("host")).collect();
        let expected = [
            "host all postgres 127.0.0.1/32 scram-sha-256",
            "host all \"a\" 127.0.0.1/32 trust",
            "host all \"b\" 127.0.0.1/32 md5",
            "host all \"c\" 127.0.0.1/32 password",
            "host all \"d\"\"\" 127.0.0.1/32 scram-sha-256",
        ];
        assert_eq!(lines, expected);
    }
}
