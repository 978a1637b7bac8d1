//! What all measurements share: a throwaway PostgreSQL with pgbench's tables, the programs, and how each contender is
//! configured in front of it.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use poolhouse_lab::{
    cluster::LabCluster,
    postgres::Postgres,
    throwaway::{Throwaway, free_port},
};

use super::{
    Outcome,
    cells::{Cell, Contender, Load},
    idle::{DATABASE, USER},
    load,
    machine::first_line_of,
    proxy::Proxy,
};

/// Server connections per pool.
pub const POOL_SIZE: usize = 20;

/// haproxy and session pooling have one server connection per client, and several contenders hold theirs at once.
const SERVER_CONNECTIONS: &str = "1300";

/// Clients that a contender is set up for.
const CLIENTS_MAX: usize = 11_000;

/// Where Debian keeps daemons, which is not on everybody's PATH.
const DAEMONS: &str = "/usr/sbin";

/// A port that was free may be taken when the proxy wants it.
const PORT_ATTEMPTS: usize = 3;

/// The first version of PgBouncer that has prepared statements in transaction mode.
const PREPARED_SINCE: (u32, u32) = (1, 21);

/// The servers and programs of a run.
pub struct Lab {
    // Dropped in this order: first the servers, then the directory of the configurations.
    cluster: LabCluster,
    scratch: Throwaway,
    postgres: Postgres,
    pgbouncer: PathBuf,
    haproxy: PathBuf,
}

impl Lab {
    /// Finds the programs, starts PostgreSQL and fills pgbench's tables; 100,000 accounts per unit of `scale`.
    pub fn start(scale: usize, replicas: usize) -> Outcome<Lab> {
        let postgres = Postgres::find()?;
        let (pgbouncer, haproxy) = (program("pgbouncer")?, program("haproxy")?);
        let pgbench = postgres.program("pgbench");
        if !pgbench.is_file() {
            let package = "install it (Debian: postgresql; elsewhere often postgresql-contrib)";
            return Err(format!("there is no pgbench beside the server programs; {package}").into());
        }
        let scratch = Throwaway::new()?;
        postgres.own(scratch.path())?;
        let builder =
            LabCluster::primary().replicas(replicas).postgres(postgres.clone()).trust_user(USER).database(DATABASE);
        let settings = [
            ("max_connections", SERVER_CONNECTIONS),
            ("shared_buffers", "256MB"),
            ("max_wal_size", "8GB"),
            ("checkpoint_timeout", "1h"),
            // `tidy` does its work, between the runs.
            ("autovacuum", "off"),
        ];
        let builder = settings.iter().fold(builder, |builder, (name, value)| builder.setting(name, value));
        let lab = Lab { cluster: builder.start()?, scratch, postgres, pgbouncer, haproxy };
        load::initialise(&lab, scale)?;
        Ok(lab)
    }

    /// The port of PostgreSQL.
    pub fn server_port(&self) -> u16 {
        self.cluster.node(0).port()
    }

    /// Where files may be put that pgbench writes.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// pgbench, as the user who may write to `directory`.
    pub fn pgbench(&self) -> Command {
        self.postgres.command("pgbench")
    }

    /// Has a process ended when this one is killed.
    pub fn watch(&self, process: u32) -> Outcome<()> {
        Ok(self.scratch.watch(process)?)
    }

    /// The names that a regular expression matches; PostgreSQL reads it.
    pub fn matching(&self, names: &[String], pattern: &str) -> Outcome<Vec<String>> {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let list: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        let sql = format!("SELECT name FROM unnest(ARRAY[{}]) name WHERE name ~ {}", list.join(", "), quoted(pattern));
        let rows = self.cluster.node(0).query(&sql).map_err(|error| format!("BENCH_ONLY: {error}"))?;
        let chosen: Vec<String> = rows.into_iter().flatten().flatten().collect();
        if chosen.is_empty() {
            return Err(format!("BENCH_ONLY matches none of {}", names.join(", ")).into());
        }
        Ok(chosen)
    }

    /// Removes what updates leave behind, so that no run pays for the one before it.
    pub fn tidy(&self, cell: &Cell) -> Outcome<()> {
        if cell.load == Load::Tpcb {
            for table in ["pgbench_branches", "pgbench_tellers"] {
                self.cluster.node(0).query_in(DATABASE, &format!("VACUUM {table}"))?;
            }
        }
        Ok(())
    }

    /// Starts a contender as a cell needs it.
    pub fn launch(&self, contender: Contender, cell: &Cell) -> Outcome<Proxy> {
        let session = cell.is_prepared() && !self.bouncer_prepares();
        self.launch_with(contender, if session { Some(cell.clients) } else { None })
    }

    /// Starts a contender; PgBouncer in session mode with so many server connections, or else in transaction mode.
    pub fn launch_with(&self, contender: Contender, sessions: Option<usize>) -> Outcome<Proxy> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let port = free_port()?;
            let name = format!("{contender:?}-{port}");
            let command = match contender {
                Contender::PgBouncer => self.pgbouncer(&name, port, sessions)?,
                Contender::Haproxy => self.haproxy(&name, port)?,
                Contender::OneWorker => self.poolhouse(&name, port, 1)?,
                Contender::TwoWorkers => self.poolhouse(&name, port, 2)?,
            };
            match Proxy::start(command, port, self.file(&format!("{name}.log")), &self.scratch) {
                Ok(proxy) => return Ok(proxy),
                Err(error) if attempts == PORT_ATTEMPTS => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Starts Poolhouse with 2 workers, more configuration, and more of the cluster's, in front of all nodes.
    pub fn launch_poolhouse(&self, more: &str, of_cluster: &str) -> Outcome<Proxy> {
        let port = free_port()?;
        let name = format!("poolhouse-{port}");
        let nodes: Vec<String> =
            self.cluster.nodes().iter().map(|node| format!("\"127.0.0.1:{}\"", node.port())).collect();
        let text = poolhouse_config(port, 2, &nodes.join(", "));
        let command = self.poolhouse_of(&name, &format!("{text}{of_cluster}{more}"))?;
        Proxy::start(command, port, self.file(&format!("{name}.log")), &self.scratch)
    }

    /// The default logs every connection; without, it has less to do.
    fn pgbouncer(&self, name: &str, port: u16, sessions: Option<usize>) -> Outcome<Command> {
        let users = self.write(&format!("{name}.users"), &format!("\"{USER}\" \"\"\n"))?;
        let (mode, size) = sessions.map_or(("transaction", POOL_SIZE), |clients| ("session", clients));
        let prepared = if self.bouncer_prepares() { "max_prepared_statements = 500\n" } else { "" };
        let text = format!(
            "[databases]\n{DATABASE} = host=127.0.0.1 port={} dbname={DATABASE}\n\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = {size}\n\
             max_client_conn = {CLIENTS_MAX}\nlog_connections = 0\nlog_disconnections = 0\n{prepared}",
            self.server_port(),
            users.display(),
        );
        // It refuses to run as root, like PostgreSQL.
        let program = self.pgbouncer.to_str().ok_or("the path of pgbouncer is not UTF-8")?;
        let mut command = self.postgres.command(program);
        command.arg(self.write(&format!("{name}.ini"), &text)?);
        Ok(command)
    }

    fn haproxy(&self, name: &str, port: u16) -> Outcome<Command> {
        let text = format!(
            "global\n  maxconn 2000\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  \
             timeout server 1h\nlisten postgres\n  bind 127.0.0.1:{port}\n  server primary 127.0.0.1:{}\n",
            self.server_port()
        );
        let mut command = Command::new(&self.haproxy);
        command.arg("-f").arg(self.write(&format!("{name}.cfg"), &text)?).process_group(0);
        Ok(command)
    }

    /// As delivered, but for what has to be said: the log, the tracking and the judging of statements are on.
    fn poolhouse(&self, name: &str, port: u16, workers: usize) -> Outcome<Command> {
        let node = format!("\"127.0.0.1:{}\"", self.server_port());
        self.poolhouse_of(name, &poolhouse_config(port, workers, &node))
    }

    fn poolhouse_of(&self, name: &str, text: &str) -> Outcome<Command> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_poolhouse"));
        command.arg("serve").arg(self.write(&format!("{name}.toml"), text)?).process_group(0);
        command.env_remove("RUST_LOG");
        Ok(command)
    }

    /// The first lines of what the programs say about their versions.
    pub fn versions(&self) -> Outcome<[String; 3]> {
        let postgres = self.postgres.version().trim_start_matches("postgres (PostgreSQL) ");
        let haproxy = first_line_of(&self.haproxy, "-v")?;
        let haproxy = haproxy.split_whitespace().nth(2).unwrap_or_default().to_owned();
        Ok([
            format!("PostgreSQL {postgres}"),
            first_line_of(&self.pgbouncer, "--version")?,
            format!("haproxy {haproxy}"),
        ])
    }

    /// Whether PgBouncer can do prepared statements in transaction mode.
    pub fn bouncer_prepares(&self) -> bool {
        let version = first_line_of(&self.pgbouncer, "--version").unwrap_or_default();
        let mut numbers =
            version.trim_start_matches("PgBouncer ").split('.').map_while(|part| part.parse::<u32>().ok());
        matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= PREPARED_SINCE)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Outcome<PathBuf> {
        let path = self.file(name);
        fs::write(&path, text)?;
        self.postgres.own(&path)?;
        Ok(path)
    }
}

fn poolhouse_config(port: u16, workers: usize, nodes: &str) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:{port}\"]\nworkers = {workers}\nmax_clients = {CLIENTS_MAX}\n[auth]\nmethod = \"trust\"\n\
         [pool]\nsize = {POOL_SIZE}\n[clusters.main]\nnodes = [{nodes}]\n[clusters.main.health]\n\
         user = \"{USER}\"\ndatabase = \"{DATABASE}\"\n[databases.{DATABASE}]\n"
    )
}

fn program(name: &str) -> Outcome<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories = env::split_paths(&path).chain([PathBuf::from(DAEMONS)]);
    let found = directories.find_map(|directory| Some(directory.join(name)).filter(|path| path.is_file()));
    found.ok_or_else(|| {
        format!("there is no {name}; install the package {name}, or run `make bench`, which does").into()
    })
}
