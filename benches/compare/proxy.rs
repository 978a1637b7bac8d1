//! A contender that runs: started with a configuration of its own, asked for its CPU time and memory, killed when
//! dropped.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use poolhouse_lab::throwaway::Throwaway;

use super::{Outcome, idle::Client};

/// What a proxy may take until the first query goes through it.
const START_LIMIT: Duration = Duration::from_secs(15);

const POLL: Duration = Duration::from_millis(20);

/// The unit of CPU time in /proc: USER_HZ, 100 per second on every architecture that PostgreSQL is packaged for.
const TICK: Duration = Duration::from_millis(10);

/// Lines of a log that an error shows.
const LOG_LINES: usize = 10;

/// A running proxy. Dropping it, also in a panic, kills it.
pub struct Proxy {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Proxy {
    /// Starts it with its output in `log`, a file in `scratch` like its configuration, and waits until a query goes
    /// through `port` of 127.0.0.1.
    pub fn start(mut command: Command, port: u16, log: PathBuf, scratch: &Throwaway) -> Outcome<Proxy> {
        let file = fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().map_err(|error| format!("cannot run {:?}: {error}", command.get_program()))?;
        let mut proxy = Proxy { child, port, log };
        scratch.watch(proxy.child.id())?;
        proxy.wait_until_it_serves()?;
        Ok(proxy)
    }

    fn wait_until_it_serves(&mut self) -> Outcome<()> {
        let start = Instant::now();
        loop {
            let served = Client::connect(self.port).and_then(|mut client| client.query("SELECT 1"));
            let Err(error) = served else { return Ok(()) };
            let ended = self.child.try_wait()?;
            if ended.is_some() || start.elapsed() > START_LIMIT {
                let how = ended.map_or_else(|| "does not serve".to_owned(), |status| format!("ended with {status}"));
                return Err(format!("it {how} ({error}); the end of its log:\n{}", last_lines(&self.log)).into());
            }
            thread::sleep(POLL);
        }
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// User and system time of all its threads since it started; to 10 ms.
    pub fn cpu_time(&self) -> Outcome<Duration> {
        let stat = fs::read_to_string(self.proc_file("stat"))?;
        cpu_ticks(&stat).map(|ticks| TICK * ticks).ok_or_else(|| format!("cannot read CPU time from {stat:?}").into())
    }

    /// Its proportional set size: private pages, and its share of those that it shares. In KiB.
    pub fn memory_kib(&self) -> Outcome<f64> {
        let rollup = fs::read_to_string(self.proc_file("smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| "smaps_rollup has no Pss".into())
    }

    fn proc_file(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(name)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fields 14 and 15 of proc(5)'s stat; the name in field 2 stands in parentheses and may hold anything.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// The end of a log, indented, for an error.
pub fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].iter().fold(String::new(), |mut shown, line| {
        let _ = writeln!(shown, "    {line}");
        shown
    })
}
