//! The Poolhouse of the demo: this same program as a child process, with a configuration file in the cluster's
//! directory, so that it is the real thing that is shown and checked.

use std::{
    env,
    fs::{File, OpenOptions},
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use poolhouse_lab::{cluster::LabCluster, data, throwaway};

use super::stage::DemoError;

/// User, password and database of everybody who tries the demo, on Poolhouse and on the servers.
pub const DEMO: &str = "demo";

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 6432);

/// From the start of the process until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What one attempt to connect may take.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(1);

/// For clients to end their transactions when the demo ends; more than `shutdown_timeout` below.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Lines of its log that an error shows.
const LOG_LINES_MAX: usize = 60;

/// Where Poolhouse logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// To our own standard error.
    Shown,
    /// To a file, for when something goes wrong.
    Kept,
}

/// A running Poolhouse. Dropping it ends it.
#[derive(Debug)]
pub struct Pooler {
    child: Child,
    address: SocketAddr,
    http: Option<SocketAddr>,
    log: Option<PathBuf>,
}

impl Pooler {
    /// Starts it in front of the nodes of `cluster`, and returns when it accepts connections.
    ///
    /// # Errors
    /// The configuration cannot be written, or it does not start, or not in time.
    pub fn start(cluster: &LabCluster, address: SocketAddr, log: Log) -> Result<Pooler, DemoError> {
        let directory = cluster.socket_directory();
        let path = directory.join("poolhouse.toml");
        let http = http_address(log)?;
        write_private(&path, &configuration(cluster, address, http)).map_err(DemoError::io("write poolhouse.toml"))?;
        let log = (log == Log::Kept).then(|| directory.join("poolhouse.log"));
        let output = match &log {
            Some(log) => File::create(log).map(Stdio::from).map_err(DemoError::io("make a log file"))?,
            None => Stdio::inherit(),
        };
        let program = env::current_exe().map_err(DemoError::io("find this program"))?;
        let mut command = Command::new(program);
        command.arg("serve").arg(&path).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        // A group of its own: Ctrl-C is for us, and we end it when everything else is over.
        let child = command.process_group(0).spawn().map_err(DemoError::io("start `poolhouse serve`"))?;
        let mut pooler = Pooler { child, address, http, log };
        cluster.watch(pooler.child.id()).map_err(DemoError::io("have Poolhouse watched"))?;
        pooler.wait_for_listener()?;
        Ok(pooler)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves HTTP.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// What it logged last, when that is kept.
    pub fn log(&self) -> String {
        self.log.as_ref().map(|log| data::tail(log, LOG_LINES_MAX)).unwrap_or_default()
    }

    /// # Errors
    /// It has ended.
    pub fn check_alive(&mut self) -> Result<(), DemoError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(format!("ended ({status})"))),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// An error that shows its log.
    pub fn failed(&self, why: impl ToString) -> DemoError {
        DemoError::Poolhouse { why: why.to_string(), log: self.log() }
    }

    fn wait_for_listener(&mut self) -> Result<(), DemoError> {
        let address = self.address;
        let accepts = data::wait(START_LIMIT, || {
            self.check_alive()?;
            Ok::<_, DemoError>(TcpStream::connect_timeout(&address, ATTEMPT_LIMIT).ok())
        })?;
        accepts.map(drop).ok_or_else(|| self.failed(format!("did not listen on {address} within {START_LIMIT:?}")))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already; then it is still ours to wait for, and nobody else has its number.
            let _ = kill_process(pid, Signal::TERM);
        }
        if !matches!(data::wait(STOP_LIMIT, || self.child.try_wait()), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The port that was asked for, else the usual one if it is free, else any.
///
/// # Errors
/// No port is free.
pub fn listen_address(asked: Option<SocketAddr>, log: Log) -> Result<SocketAddr, DemoError> {
    if let Some(address) = asked {
        return Ok(address);
    }
    // Nobody has to know the port of a check, and many can run at once.
    if log == Log::Shown && TcpListener::bind(DEFAULT_LISTEN).is_ok() {
        return Ok(DEFAULT_LISTEN);
    }
    let port = throwaway::free_port().map_err(DemoError::io("find a free port"))?;
    Ok(SocketAddr::new(DEFAULT_LISTEN.ip(), port))
}

/// The usual port if it is free, else any; a check needs none.
fn http_address(log: Log) -> Result<Option<SocketAddr>, DemoError> {
    let usual = SocketAddr::new(DEFAULT_LISTEN.ip(), DEFAULT_LISTEN.port() + 1);
    match log {
        Log::Kept => Ok(None),
        Log::Shown if TcpListener::bind(usual).is_ok() => Ok(Some(usual)),
        Log::Shown => {
            let port = throwaway::free_port().map_err(DemoError::io("find a free port"))?;
            Ok(Some(SocketAddr::new(usual.ip(), port)))
        }
    }
}

/// Short intervals, so that a failover is a matter of a second; few server connections, so that clients share them.
fn configuration(cluster: &LabCluster, address: SocketAddr, http: Option<SocketAddr>) -> String {
    let http = http.map(|http| http.to_string()).unwrap_or_default();
    let nodes: Vec<String> = cluster.nodes().iter().map(|node| node.address()).collect();
    let password = cluster.superuser_password();
    format!(
        r#"[server]
listen = ["{address}"]
shutdown_timeout = "3s"

[pool]
size = 10

[clusters.demo]
nodes = {nodes:?}

[clusters.demo.health]
user = "{superuser}"
password = "{password}"
interval = "100ms"

[clusters.demo.failover]
mode = "promote"

[databases.{DEMO}]

[users.{DEMO}]
password = "{DEMO}"

[admin]
users = ["{DEMO}"]
http = "{http}"
"#,
        superuser = data::SUPERUSER,
    )
}

/// There is a password in it.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
