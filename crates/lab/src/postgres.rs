//! The PostgreSQL server programs of this machine: where they are, which version, and how to run them. PostgreSQL
//! refuses to run as root, so root runs them as an unprivileged user, who then also owns the data directories.

use std::{
    env, fs, io,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Names the directory of the server programs, before any search.
pub const VARIABLE: &str = "POSTGRES_BIN";

/// Where Debian and its relatives keep one directory per major version.
const DEBIAN_VERSIONS: &str = "/usr/lib/postgresql";

/// The programs without which no cluster can be made.
const NEEDED: [&str; 2] = ["initdb", "postgres"];

/// Whom root becomes, the first that exists.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// Why there is no PostgreSQL to run.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(
        "no PostgreSQL server found: looked at pg_config, {DEBIAN_VERSIONS}/*/bin and PATH; install one (Debian and \
         Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server postgresql-contrib; Alpine: apk add \
         postgresql) or set {VARIABLE} to the directory that holds initdb and postgres"
    )]
    NotFound,
    #[error("no {program} in {}; {VARIABLE} names the directory that holds {}", directory.display(), NEEDED.join(" and "))]
    Incomplete { directory: PathBuf, program: &'static str },
    #[error("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to run it as; add one")]
    NoAccount,
    #[error("cannot run {}{}: {error}", program.display(), by(account))]
    Run { program: PathBuf, account: Option<String>, error: io::Error },
    #[error("{} --version says `{output}`, which names no version", program.display())]
    Version { program: PathBuf, output: String },
}

fn by(account: &Option<String>) -> String {
    let Some(name) = account else { return String::new() };
    format!(" as the user {name} (who must be able to enter every directory on the way; root itself may not run it)")
}

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SystemAccount {
    name: String,
    uid: u32,
    gid: u32,
}

/// An installation of PostgreSQL.
#[derive(Debug, Clone)]
pub struct Postgres {
    directory: PathBuf,
    /// As `postgres --version` says it: `postgres (PostgreSQL) 15.18`.
    version: String,
    major: u32,
    /// Whom to run it as; `None` is the calling user.
    account: Option<SystemAccount>,
}

impl Postgres {
    /// The installation that POSTGRES_BIN names, else the one of `pg_config`, else Debian's newest, else the one on PATH.
    ///
    /// # Errors
    /// There is none, POSTGRES_BIN names none, or it cannot be run.
    pub fn find() -> Result<Postgres, PostgresError> {
        if let Some(named) = env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
            return Postgres::at(Path::new(&named));
        }
        let candidates = configured().into_iter().chain(newest_of(Path::new(DEBIAN_VERSIONS))).chain(on_path());
        let found = candidates.into_iter().find(|directory| missing(directory).is_none());
        Postgres::at(&found.ok_or(PostgresError::NotFound)?)
    }

    /// The installation whose programs are in `directory`.
    ///
    /// # Errors
    /// A program is missing or cannot be run.
    pub fn at(directory: &Path) -> Result<Postgres, PostgresError> {
        if let Some(program) = missing(directory) {
            return Err(PostgresError::Incomplete { directory: directory.to_owned(), program });
        }
        let is_root = rustix::process::geteuid().is_root();
        let account = if is_root { Some(unprivileged().ok_or(PostgresError::NoAccount)?) } else { None };
        // The programs run with another working directory.
        let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
        let mut postgres = Postgres { directory, version: String::new(), major: 0, account };
        let program = postgres.program("postgres");
        let output = postgres.command("postgres").arg("--version").output().map_err(|error| {
            let account = postgres.account.as_ref().map(|account| account.name.clone());
            PostgresError::Run { program: program.clone(), account, error }
        })?;
        postgres.version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        postgres.major = major(&postgres.version)
            .ok_or_else(|| PostgresError::Version { program, output: postgres.version.clone() })?;
        Ok(postgres)
    }

    /// The directory of the programs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What `postgres --version` says.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The major version: 15, 18.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The path of one of its programs, which need not exist: some installations have no psql.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A program as the right user, in a process group of its own, so that a Ctrl-C in the terminal ends only us. Its
    /// environment is empty but for PATH, so that no PG… variable or language of the caller changes what it does.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.program(name));
        command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").current_dir("/").stdin(Stdio::null()).process_group(0);
        if let Some(path) = env::var_os("PATH") {
            command.env("PATH", path);
        }
        if let Some(account) = &self.account {
            command.gid(account.gid).uid(account.uid);
        }
        command
    }

    /// Makes the server's user the owner of `path`, when that is not the calling user already.
    ///
    /// # Errors
    /// As `chown(2)`.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        match &self.account {
            Some(account) => chown(path, Some(account.uid), Some(account.gid)),
            None => Ok(()),
        }
    }
}

fn missing(directory: &Path) -> Option<&'static str> {
    NEEDED.into_iter().find(|program| !directory.join(program).is_file())
}

fn configured() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stderr(Stdio::null()).output().ok()?;
    let directory = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(directory.trim()))
}

/// The complete installation with the highest number below `versions`.
fn newest_of(versions: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(versions).ok()?.flatten();
    let numbered = entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    let complete = numbered.map(|(number, path)| (number, path.join("bin"))).filter(|(_, bin)| missing(bin).is_none());
    complete.max_by_key(|(number, _)| *number).map(|(_, bin)| bin)
}

fn on_path() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

fn unprivileged() -> Option<SystemAccount> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    ACCOUNTS.into_iter().find_map(|name| account(&passwd, name))
}

/// Finds a user in the text of passwd(5): name, password, user number, group number, and more.
fn account(passwd: &str, name: &str) -> Option<SystemAccount> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(SystemAccount { name: name.to_owned(), uid, gid })
    })
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian …)`, or in `… 19beta1`.
fn major(version: &str) -> Option<u32> {
    let number = version.split(") ").nth(1)?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(major("postgres"), None);
        assert_eq!(major(""), None);
    }

    #[test]
    fn accounts() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\npostgres:x:101:104:,,,:/var/lib:/bin/bash\n";
        let expected = SystemAccount { name: "postgres".into(), uid: 101, gid: 104 };
        assert_eq!(account(passwd, "postgres"), Some(expected));
        assert_eq!(account(passwd, "nobody"), None);
        assert_eq!(account(passwd, "broken"), None);
    }

    #[test]
    fn an_incomplete_directory_is_refused() {
        let error = Postgres::at(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no initdb in /nonexistent; POSTGRES_BIN names the directory that holds initdb and postgres"
        );
        assert_eq!(newest_of(Path::new("/nonexistent")), None);
    }
}
