//! One server of a throwaway cluster and what can be done to it: stop, kill, freeze, promote, delay, ask. Everything
//! has a time limit, and an error shows the end of the server's log.

use std::{
    fs::{self, OpenOptions},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use postgres_protocol::escape::escape_literal;
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::{
    cluster::ClusterError,
    data::{self, SUPERUSER},
    postgres::Postgres,
    throwaway::Throwaway,
};

/// What a server may take to start or stop, on a machine that does much else.
const SERVER_LIMIT: Duration = Duration::from_secs(180);

/// What a statement of `query` may take.
const QUERY_LIMIT: Duration = Duration::from_secs(120);

/// What one attempt to reach a starting server may take.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(1);

/// An immediate stop is a matter of milliseconds.
const QUIT_LIMIT: Duration = Duration::from_secs(5);

/// The rows of all results; `None` is NULL.
pub type ResultRows = Vec<Vec<Option<String>>>;

/// A server. Dropping it stops it at once.
#[derive(Debug)]
pub struct LabNode {
    pub(super) name: String,
    pub(super) port: u16,
    /// Below the throwaway directory; holds `data` and `log`.
    pub(super) directory: PathBuf,
    /// How its replicas log in, without the host and port.
    pub(super) replication_login: String,
    pub(super) postgres: Postgres,
    pub(super) throwaway: Arc<Throwaway>,
    pub(super) server: Mutex<Option<Child>>,
}

impl LabNode {
    /// `node1`, which is also its application_name as a replica.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its port on 127.0.0.1, the same after every start.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// All that the server has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The first process of the server, when it runs.
    pub fn process(&self) -> Option<u32> {
        let mut server = self.server();
        let child = server.as_mut()?;
        match child.try_wait() {
            Ok(None) => Some(child.id()),
            _ => None,
        }
    }

    pub fn is_running(&self) -> bool {
        self.process().is_some()
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// It runs already, ends, or does not answer in time.
    pub fn start(&self) -> Result<(), ClusterError> {
        if self.is_running() {
            return Err(self.failed("start", "it runs already"));
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log_path());
        let log = log.and_then(|log| Ok((log.try_clone()?, log))).map_err(|error| self.failed("start", error))?;
        let mut command = self.postgres.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]).stdout(log.0).stderr(log.1);
        let child = command.spawn().map_err(|error| self.failed("start", error))?;
        let watched = self.throwaway.watch(child.id());
        *self.server() = Some(child);
        watched.map_err(|error| self.failed("be watched", error))?;
        self.wait_for("start", SERVER_LIMIT, || {
            if !self.is_running() {
                return Err(self.failed("start", "it ended"));
            }
            Ok(self.ask(SUPERUSER, "SELECT 1", ATTEMPT_LIMIT).is_ok())
        })
    }

    /// Ends it with everything cleaned up: transactions are rolled back, clients are told, replicas get all WAL.
    ///
    /// # Errors
    /// It does not run, or does not end in time.
    pub fn stop_fast(&self) -> Result<(), ClusterError> {
        let process = self.running("stop")?;
        send(process, Signal::INT);
        self.wait_for("stop", SERVER_LIMIT, || Ok(!self.is_running()))
    }

    /// Ends it without a checkpoint, each process with a warning to its client (an immediate shutdown, in the manual's
    /// words).
    ///
    /// # Errors
    /// It does not run, or does not end in time.
    pub fn stop_at_once(&self) -> Result<(), ClusterError> {
        let process = self.running("stop")?;
        send(process, Signal::QUIT);
        self.wait_for("stop", SERVER_LIMIT, || Ok(!self.is_running()))
    }

    /// Ends it as the loss of its machine would: SIGKILL to every process at once. Returns when all are gone and the port
    /// is closed.
    ///
    /// # Errors
    /// It does not run, or a process does not end in time.
    pub fn kill9(&self) -> Result<(), ClusterError> {
        let process = self.running("die")?;
        // It must not start more processes between the look at them and their end.
        send(process, Signal::STOP);
        let family = family(process);
        // The first process last: the others would notice its end, and say goodbye to their clients.
        for member in family.iter().rev() {
            send(*member, Signal::KILL);
        }
        self.wait_for("die", SERVER_LIMIT, || {
            let gone = !self.is_running() && family.iter().all(|member| is_gone(*member));
            Ok(gone && TcpStream::connect_timeout(&self.socket_address(), ATTEMPT_LIMIT).is_err())
        })?;
        self.forget_lock();
        Ok(())
    }

    /// Freezes every process of it: connections stay open and nothing answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<(), ClusterError> {
        let process = self.running("pause")?;
        send(process, Signal::STOP);
        family(process).into_iter().for_each(|member| send(member, Signal::STOP));
        Ok(())
    }

    /// Lets it go on after [`LabNode::pause`].
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<(), ClusterError> {
        let process = self.running("resume")?;
        family(process).into_iter().for_each(|member| send(member, Signal::CONT));
        Ok(())
    }

    /// Makes a replica the primary, and waits until it is.
    ///
    /// # Errors
    /// It is a primary already, cannot be asked, or does not finish in time.
    pub fn promote(&self) -> Result<(), ClusterError> {
        let seconds = SERVER_LIMIT.as_secs();
        let promoted = self.query(&format!("SELECT pg_promote(true, {seconds})"))?;
        if promoted != [[Some("t".to_owned())]] {
            return Err(self.failed("promote", "the server gave up"));
        }
        Ok(())
    }

    /// Points a replica at another primary.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn follow(&self, primary: &LabNode) -> Result<(), ClusterError> {
        self.query(&format!("ALTER SYSTEM SET primary_conninfo = '{}'", self.primary_conninfo(primary.port)))?;
        self.reload()
    }

    /// # Errors
    /// It cannot be asked.
    pub fn is_primary(&self) -> Result<bool, ClusterError> {
        Ok(self.query("SELECT pg_is_in_recovery()")? == [[Some("f".to_owned())]])
    }

    /// The port of the primary from which it receives WAL at this moment.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn streams_from(&self) -> Result<Option<u16>, ClusterError> {
        let rows = self.query("SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'")?;
        Ok(first(rows).and_then(|port| port.parse().ok()))
    }

    /// The names of the replicas that receive WAL from it at this moment.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn streams_to(&self) -> Result<Vec<String>, ClusterError> {
        let rows =
            self.query("SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' ORDER BY 1")?;
        Ok(rows.into_iter().flatten().flatten().collect())
    }

    /// How far it has written WAL as a primary, or replayed it as a replica.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn wal_position(&self) -> Result<u64, ClusterError> {
        let rows = self.query(
            "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END \
             - '0/0')::text",
        )?;
        let position = first(rows).and_then(|position| position.parse().ok());
        position.ok_or_else(|| self.failed("say its WAL position", "there is none"))
    }

    /// Waits until it has replayed all that `primary` has written until now.
    ///
    /// # Errors
    /// One cannot be asked, or it takes more than two minutes.
    pub fn catch_up(&self, primary: &LabNode) -> Result<(), ClusterError> {
        let written = primary.wal_position()?;
        self.wait_for("catch up", QUERY_LIMIT, || Ok(self.wal_position()? >= written))
    }

    /// Makes a replica show each commit so much later than the primary made it; zero ends that.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn delay_replay(&self, delay: Duration) -> Result<(), ClusterError> {
        self.query(&format!("ALTER SYSTEM SET recovery_min_apply_delay = {}", delay.as_millis()))?;
        self.reload()
    }

    /// Makes a replica receive WAL and show none of it, until [`LabNode::resume_replay`].
    ///
    /// # Errors
    /// It is no replica or cannot be asked.
    pub fn pause_replay(&self) -> Result<(), ClusterError> {
        self.query("SELECT pg_wal_replay_pause()")?;
        self.wait_for("pause its replay", QUERY_LIMIT, || {
            Ok(first(self.query("SELECT pg_get_wal_replay_pause_state()")?).as_deref() == Some("paused"))
        })
    }

    /// # Errors
    /// It is no replica or cannot be asked.
    pub fn resume_replay(&self) -> Result<(), ClusterError> {
        self.query("SELECT pg_wal_replay_resume()").map(drop)
    }

    /// How many connections `user` has to it.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn connections(&self, user: &str) -> Result<usize, ClusterError> {
        let name = escape_literal(user);
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = {name} AND pid <> pg_backend_pid()");
        Ok(first(self.query(&sql)?).and_then(|count| count.parse().ok()).unwrap_or(0))
    }

    /// Runs statements as the superuser, in database `postgres`, over the socket in the cluster's directory.
    ///
    /// # Errors
    /// A statement fails, the server cannot be reached, or they take more than two minutes.
    pub fn query(&self, sql: &str) -> Result<ResultRows, ClusterError> {
        self.query_in(SUPERUSER, sql)
    }

    /// As [`LabNode::query`], in another database.
    ///
    /// # Errors
    /// As [`LabNode::query`].
    pub fn query_in(&self, database: &str, sql: &str) -> Result<ResultRows, ClusterError> {
        let asked = self.ask(database, sql, QUERY_LIMIT);
        asked.map_err(|error| ClusterError::Query { node: self.name.clone(), sql: sql.to_owned(), error })
    }

    /// On a thread of its own: the caller's may be running a tokio runtime, in which one cannot wait for another.
    fn ask(&self, database: &str, sql: &str, limit: Duration) -> Result<ResultRows, String> {
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|error| error.to_string())?;
                let asked = async { tokio::time::timeout(limit, self.conversation(database, sql)).await };
                runtime.block_on(asked).unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
            });
            asking.join().unwrap_or_else(|_| Err("the asking thread panicked".to_owned()))
        })
    }

    async fn conversation(&self, database: &str, sql: &str) -> Result<ResultRows, String> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.throwaway.path()).port(self.port).user(SUPERUSER).dbname(database);
        config.application_name("poolhouse cluster");
        let (client, connection) = config.connect(NoTls).await.map_err(|error| describe(&error))?;
        let asking = async {
            let answer = client.simple_query(sql).await;
            // The connection ends when nobody can ask any more.
            drop(client);
            answer
        };
        let (answer, _) = tokio::join!(asking, connection);
        let rows = answer.map_err(|error| describe(&error))?.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }

    fn reload(&self) -> Result<(), ClusterError> {
        self.query("SELECT pg_reload_conf()").map(drop)
    }

    /// What a replica's `primary_conninfo` is.
    pub(super) fn primary_conninfo(&self, port: u16) -> String {
        format!("host={} port={port} application_name={} {}", Ipv4Addr::LOCALHOST, self.name, self.replication_login)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn socket_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn server(&self) -> MutexGuard<'_, Option<Child>> {
        // A panic elsewhere cannot have left it half written.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self, what: &'static str) -> Result<u32, ClusterError> {
        self.process().ok_or_else(|| self.failed(what, "it does not run"))
    }

    pub fn wait_for(
        &self,
        what: &'static str,
        limit: Duration,
        mut condition: impl FnMut() -> Result<bool, ClusterError>,
    ) -> Result<(), ClusterError> {
        let done = data::wait(limit, || condition().map(|met| met.then_some(())))?;
        done.ok_or_else(|| self.failed(what, format!("not done within {limit:?}")))
    }

    fn failed(&self, what: &'static str, why: impl ToString) -> ClusterError {
        let (node, log) = (self.name.clone(), data::last_lines(&self.log_path()));
        ClusterError::Node { node, what, why: why.to_string(), log }
    }

    /// Removes what a server that was killed leaves behind, as the restart of a machine would: the lock files that name
    /// its process, and the segment of shared memory (its number ends the seventh line of postmaster.pid).
    fn forget_lock(&self) {
        let lock = self.data().join("postmaster.pid");
        let text = fs::read_to_string(&lock).unwrap_or_default();
        if let Some(segment) = text.lines().nth(6).and_then(|line| line.split_whitespace().last()) {
            let mut command = Command::new("ipcrm");
            command.args(["-m", segment]).stdout(Stdio::null()).stderr(Stdio::null());
            let _ = command.status();
        }
        let _ = fs::remove_file(lock);
        let socket = self.throwaway.path().join(format!(".s.PGSQL.{}", self.port));
        let _ = fs::remove_file(socket.with_extension(format!("{}.lock", self.port)));
        let _ = fs::remove_file(socket);
    }

    /// The owner-only file that says what a replica needs beyond the copied data.
    pub(super) fn write(&self, file: &str, text: &str) -> Result<(), ClusterError> {
        let path = self.data().join(file);
        // Keys must be read by nobody else.
        let only_ours = || fs::set_permissions(&path, fs::Permissions::from_mode(0o600));
        let written = fs::write(&path, text).and_then(|()| only_ours()).and_then(|()| self.postgres.own(&path));
        written.map_err(|error| self.failed("be configured", error))
    }
}

impl Drop for LabNode {
    fn drop(&mut self) {
        // Somebody may have killed it.
        let Some(process) = self.process() else { return self.forget_lock() };
        send(process, Signal::QUIT);
        family(process).into_iter().for_each(|member| send(member, Signal::CONT));
        if !matches!(data::wait(QUIT_LIMIT, || Ok::<_, ()>((!self.is_running()).then_some(()))), Ok(Some(()))) {
            let _ = self.kill9();
        }
    }
}

/// tokio-postgres keeps the server's words in the source.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}

fn first(rows: ResultRows) -> Option<String> {
    rows.into_iter().next()?.into_iter().next()?
}

/// Processes that have ended meanwhile are no concern.
fn send(process: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// A process and its children.
fn family(process: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children = numbers.filter(|child| matches!(state_and_parent(*child), Some((_, parent)) if parent == process));
    std::iter::once(process).chain(children).collect()
}

/// Ended; one that nobody has waited for yet (`Z`) has ended too.
fn is_gone(process: u32) -> bool {
    matches!(state_and_parent(process), None | Some(('Z' | 'X', _)))
}

/// From proc(5): number, name in parentheses (which may hold anything), state, parent.
fn state_and_parent(process: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
