//! The built `poolhouse serve` with a configuration file of its own. What it logs is kept, and a test in which it logs
//! a warning or an error that the test did not announce fails.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpStream},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use poolhouse_lab::throwaway::{Throwaway, free_port};
use rustix::process::{Pid, Signal, kill_process};

use super::{LabCluster, PATIENCE, wait_until};

/// A port that was free may be taken when Poolhouse wants it.
const PORT_ATTEMPTS: u32 = 5;

/// A configuration, as dotted TOML keys: `pool.size` → `5`.
#[derive(Debug, Clone, Default)]
pub struct Config {
    keys: BTreeMap<String, String>,
    text: String,
    environment: Vec<(String, String)>,
}

impl Config {
    /// A file's whole text; the kit adds nothing but `server.listen`, which the text must leave open, so it must not
    /// have a table `[server]`.
    pub fn of_text(text: &str) -> Config {
        Config { text: text.to_owned(), ..Config::default() }
    }

    /// In front of these nodes of 127.0.0.1, for any database.
    pub fn of_ports(ports: impl IntoIterator<Item = u16>) -> Config {
        let nodes: Vec<String> = ports.into_iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Config::default().set("clusters.main.nodes", &format!("{nodes:?}")).set("databases.'*'.cluster", "'main'")
    }

    /// In front of all nodes of a cluster, which it watches as the superuser. A node that is only slow, on a busy machine, is
    /// not taken for lost, unless the test sets another `health.timeout`.
    pub fn of_cluster(cluster: &LabCluster) -> Config {
        let password = format!("{:?}", cluster.superuser_password());
        let config = Config::of_ports(cluster.nodes().iter().map(|node| node.port()));
        let config = config.set("clusters.main.health.user", "'postgres'").set("clusters.main.health.timeout", "'30s'");
        config.set("clusters.main.health.password", &password).set("clusters.main.health.database", "'postgres'")
    }

    /// A user who may log in, with a plain password.
    pub fn user(self, name: &str, password: &str) -> Config {
        self.set(&format!("users.{name:?}.password"), &format!("{password:?}"))
    }

    /// Sets a variable of the environment of Poolhouse.
    pub fn variable(mut self, name: &str, value: &str) -> Config {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a key to a value, both as TOML writes them. The last one counts.
    pub fn set(mut self, key: &str, value: &str) -> Config {
        self.keys.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Starts Poolhouse and waits until it accepts connections. The test fails when it does not.
    pub fn start(self) -> Pooler {
        for _ in 0..PORT_ATTEMPTS {
            if let Some(pooler) = Pooler::start(&self, free_port().unwrap()) {
                return pooler;
            }
        }
        panic!("no port could be kept free");
    }

    fn file(&self, port: u16) -> String {
        let listen = format!("server.listen = [\"127.0.0.1:{port}\"]\n");
        let mut text = self.keys.iter().fold(listen, |mut text, (key, value)| {
            let _ = writeln!(text, "{key} = {value}");
            text
        });
        text.push_str(&self.text);
        text
    }
}

/// A running Poolhouse. Dropping it kills it and judges its log.
#[derive(Debug)]
pub struct Pooler {
    port: u16,
    child: Mutex<Child>,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    announced: Mutex<Vec<String>>,
    /// Holds the configuration file.
    directory: Throwaway,
}

impl Pooler {
    /// `None` when somebody else took the port.
    fn start(config: &Config, port: u16) -> Option<Pooler> {
        let directory = Throwaway::new().unwrap();
        let path = directory.path().join("poolhouse.toml");
        fs::write(&path, config.file(port)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_poolhouse"));
        command.arg("serve").arg(&path).env_remove("RUST_LOG").env("RUST_BACKTRACE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        command.envs(config.environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().unwrap();
        directory.watch(child.id()).unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let reader = thread::spawn({
            let (log, lines) = (log.clone(), BufReader::new(child.stderr.take().unwrap()).lines());
            move || lines.map_while(Result::ok).for_each(|line| log.lock().unwrap().push(line))
        });
        let pooler = Pooler {
            port,
            child: Mutex::new(child),
            log,
            reader: Some(reader),
            announced: Mutex::default(),
            directory,
        };
        // Of the many that run at once one has it.
        pooler.allow_warnings("the default address is not free");
        wait_until("Poolhouse accepts or ends", PATIENCE, || pooler.accepts() || pooler.exit_status().is_some());
        if pooler.exit_status().is_none() {
            return Some(pooler);
        }
        wait_until("its last words are read", PATIENCE, || pooler.reader.as_ref().is_none_or(|r| r.is_finished()));
        assert!(pooler.logs("cannot listen on"), "poolhouse serve ended at once");
        pooler.allow_warnings("cannot listen on");
        None
    }

    /// Writes another configuration to its file, which it reads when it is told to.
    pub fn rewrite(&self, config: &Config) {
        fs::write(self.directory.path().join("poolhouse.toml"), config.file(self.port)).unwrap();
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child().id()
    }

    /// Sends a signal: TERM drains, INT too, and HUP reloads.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Ends it as a crash would, and returns when it is gone.
    pub fn kill(&self) {
        let mut child = self.child();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to end, and waits for that.
    pub fn terminate(&self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_exit(limit)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_for_exit(&self, limit: Duration) -> ExitStatus {
        wait_until("Poolhouse ends", limit, || self.exit_status().is_some());
        self.exit_status().unwrap()
    }

    /// How it ended, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().unwrap()
    }

    /// Whether it has logged a line with these words.
    pub fn logs(&self, words: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(words))
    }

    /// All lines that it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Announces that warnings and errors with these words may be logged in this test.
    pub fn allow_warnings(&self, words: &str) {
        self.announced.lock().unwrap().push(words.to_owned());
    }

    /// Its memory in bytes, with what it shares with other processes counted in full.
    pub fn rss(&self) -> u64 {
        self.memory("status", "VmRSS:")
    }

    /// Its memory in bytes, with its part of what it shares.
    pub fn pss(&self) -> u64 {
        self.memory("smaps_rollup", "Pss:")
    }

    /// A line of a file of proc(5), in kibibytes there.
    fn memory(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.process())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    fn accepts(&self) -> bool {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Warnings and errors that nobody announced.
    fn unannounced(&self) -> Vec<String> {
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wrong = |line: &&String| is_warning(line) && !announced.iter().any(|words| line.contains(words));
        log.iter().filter(is_wrong).cloned().collect()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        {
            let mut child = self.child();
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let unannounced = self.unannounced();
        if thread::panicking() || !unannounced.is_empty() {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("--- log of Poolhouse\n{}\n---", log.join("\n"));
        }
        if !thread::panicking() {
            assert!(unannounced.is_empty(), "Poolhouse logged what the test did not announce: {unannounced:#?}");
        }
    }
}

/// The level is the second word of a line in the text format; a panic has no level and is the worst.
fn is_warning(line: &str) -> bool {
    matches!(line.split_whitespace().nth(1), Some("WARN" | "ERROR")) || line.contains("panicked at")
}

#[test]
fn levels_of_log_lines() {
    assert!(is_warning("2026-01-01T00:00:00.000000Z  WARN poolhouse::app: careful"));
    assert!(is_warning("2026-01-01T00:00:00.000000Z ERROR poolhouse::app: alas"));
    assert!(is_warning("thread 'main' panicked at src/app.rs:1:1:"));
    assert!(!is_warning("2026-01-01T00:00:00.000000Z  INFO poolhouse::app: no WARN here"));
}
