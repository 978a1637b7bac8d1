//! Data directories: initdb once, then copies. A copy keeps the system identifier, so that copies of one template that
//! have never been started are a primary and its replicas. (Some installations have no pg_basebackup.)

use std::{
    fs::{self, DirBuilder, File},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::FlockOperation;

use crate::{cluster::ClusterError, postgres::Postgres, throwaway};

/// The superuser of every cluster.
pub const SUPERUSER: &str = "postgres";

/// initdb takes seconds on a slow machine.
const INITDB_LIMIT: Duration = Duration::from_secs(180);

/// How much of a log an error shows.
const LOG_LINES_MAX: usize = 20;

const POLL: Duration = Duration::from_millis(10);

/// Runs initdb, with the new directory at `directory` and what it says in `log`.
pub fn initialise(postgres: &Postgres, directory: &Path, log: &Path) -> Result<(), ClusterError> {
    let mut command = postgres.command("initdb");
    command.arg("-D").arg(directory).args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
    let status = run(&mut command, log, INITDB_LIMIT).map_err(|error| ClusterError::io("run initdb", error))?;
    match status {
        Some(status) if status.success() => Ok(()),
        status => Err(ClusterError::Initdb {
            how: status.map_or("did not end in time".into(), |status| format!("ended with {status}")),
            log: last_lines(log),
        }),
    }
}

/// A data directory to copy from, out of `cache`. The first process makes it, others wait for that meanwhile.
pub fn cached(postgres: &Postgres, cache: &Path, scratch: &Path) -> Result<PathBuf, ClusterError> {
    let failed = |error| ClusterError::io("keep a copy of what initdb makes", error);
    fs::create_dir_all(cache).map_err(failed)?;
    let template = cache.join(template_name(postgres));
    let lock = File::create(template.with_extension("lock")).map_err(failed)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    if !template.exists() {
        let (fresh, log) = (scratch.join("initdb"), scratch.join("initdb.log"));
        initialise(postgres, &fresh, &log)?;
        // Its own name only when it is whole.
        let part = template.with_extension(throwaway::random_hex(6).map_err(failed)?);
        copy(&fresh, &part, &|_| Ok(())).and_then(|()| fs::rename(&part, &template)).map_err(failed)?;
        fs::remove_dir_all(&fresh).map_err(failed)?;
    }
    Ok(template)
}

/// One name per installation, version, and user who can read the files.
fn template_name(postgres: &Postgres) -> String {
    let mut hasher = DefaultHasher::new();
    (postgres.directory(), postgres.version(), rustix::process::geteuid().as_raw()).hash(&mut hasher);
    format!("initdb-{}-{:016x}", postgres.major(), hasher.finish())
}

/// Copies a directory with the files' rights; `own` is called for every new file and directory.
pub fn copy(from: &Path, to: &Path, own: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    own(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target, own)?;
        } else {
            fs::copy(entry.path(), &target)?;
            own(&target)?;
        }
    }
    Ok(())
}

/// Runs a program to its end with its output in `log`; `None` when it had to be killed at the limit.
fn run(command: &mut Command, log: &Path, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let output = File::create(log)?;
    let mut child = command.stdout(output.try_clone()?).stderr(output).spawn()?;
    let ended = wait(limit, || child.try_wait());
    if !matches!(ended, Ok(Some(_))) {
        child.kill()?;
        child.wait()?;
    }
    ended
}

/// Asks again and again until there is an answer; `None` at the limit.
pub fn wait<T, E>(limit: Duration, mut ask: impl FnMut() -> Result<Option<T>, E>) -> Result<Option<T>, E> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(Some(answer));
        }
        if start.elapsed() > limit {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// The end of a server's log, for an error.
pub fn last_lines(log: &Path) -> String {
    tail(log, LOG_LINES_MAX)
}

/// The last lines of a file; none when it cannot be read.
pub fn tail(file: &Path, lines_max: usize) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(lines_max)..].join("\n")
}
