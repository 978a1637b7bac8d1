//! A temporary directory and the processes that live in it, none of which outlive their owner: dropping it removes
//! them, and when the owner's process is killed, a small shell that waits at the other end of a pipe does the same.
//! (Linux can send a signal when a parent dies, but it does so when the parent's *thread* ends, and tests are threads.)

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Ports below the range from which the system takes the local ports of outgoing connections, so that none of those
/// takes the port of a server while it is down.
const PORT_FIRST: u16 = 12_000;
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const PORT_ATTEMPTS: u32 = 200;

/// Reads process numbers until the pipe's other end is closed. Then ends those that still name the directory ($1) on
/// their command line, with SIGQUIT (for PostgreSQL: at once, but without leaving shared memory behind) and a little
/// later with SIGKILL; stopped ones are woken up for that. A child of a server is one whose fourth field in
/// /proc/…/stat is the server.
const WATCH: &str = r#"
trap '' HUP INT TERM
is_ours() { tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF -- "$directory"; }
family() {
    echo "$1"
    for stat in /proc/[0-9]*/stat; do
        { read -r line <"$stat"; } || continue
        after_name=${line##*) }
        parent=${after_name#? }
        [ "${parent%% *}" = "$1" ] && echo "${line%% *}"
    done
}
directory=$1
exec 2>/dev/null
known=
while read -r process; do known="$known $process"; done
left=
for process in $known; do
    is_ours "$process" || continue
    left="$left $process"
    kill -QUIT "$process"
    kill -CONT $(family "$process")
done
for process in $left; do
    for tenth in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        is_ours "$process" || break
        sleep 0.1
    done
    is_ours "$process" && kill -KILL $(family "$process")
done
rm -rf -- "$directory"
"#;

/// A directory of our own below the system's temporary one, and a watcher. Dropping it removes the directory; end its
/// processes before, they are only cared for when the whole process is killed.
#[derive(Debug)]
pub struct Throwaway {
    path: PathBuf,
    watcher: Child,
}

impl Throwaway {
    /// Makes `<temporary directory>/poolhouse-<random>`, which only the calling user may enter.
    ///
    /// # Errors
    /// The directory cannot be made, or there is no shell.
    pub fn new() -> io::Result<Throwaway> {
        let path = env::temp_dir().join(format!("poolhouse-{}", random_hex(6)?));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCH, "sh"]).arg(&path).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let watcher = command.spawn().inspect_err(|_| {
            let _ = fs::remove_dir_all(&path);
        })?;
        Ok(Throwaway { path, watcher })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has a process ended when ours is killed, if the directory, or a path below it, is on its command line.
    ///
    /// # Errors
    /// The watcher is gone.
    pub fn watch(&self, process: u32) -> io::Result<()> {
        let mut pipe = self.watcher.stdin.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        // One write, which is not torn apart by another thread's.
        pipe.write_all(format!("{process}\n").as_bytes())
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

/// A TCP port of 127.0.0.1 that is free at this moment.
///
/// # Errors
/// None was found.
pub fn free_port() -> io::Result<u16> {
    let range = fs::read_to_string(PORT_RANGE).unwrap_or_default();
    let ephemeral = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768_u16);
    let last = if ephemeral > PORT_FIRST + 1000 { ephemeral } else { u16::MAX };
    let mut error = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_ATTEMPTS {
        let mut random = [0; 2];
        getrandom::fill(&mut random)?;
        let port = PORT_FIRST + u16::from_ne_bytes(random) % (last - PORT_FIRST);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(in_the_way) => error = in_the_way,
        }
    }
    Err(error)
}

/// As many random bytes, in hexadecimal.
///
/// # Errors
/// The system has no random numbers.
pub fn random_hex(bytes: usize) -> io::Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random)?;
    Ok(random.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn the_directory_goes_with_its_owner() {
        let throwaway = Throwaway::new().unwrap();
        let path = throwaway.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(throwaway);
        assert!(!path.exists());
    }

    /// Killed at the end of its test, also when that fails: nothing may hold on to the output of the tests.
    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn the_watcher_cleans_up_after_a_kill() {
        let mut throwaway = Throwaway::new().unwrap();
        let path = throwaway.path().to_owned();
        // A process that ignores SIGQUIT and names the directory, and a stranger that does not.
        let start = |words: &str| {
            let script = format!("trap '' QUIT; while :; do sleep 0.05; done # {words}");
            Killed(Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).spawn().unwrap())
        };
        let (mut ours, mut stranger) = (start(&format!("{}/x", path.display())), start("nothing"));
        throwaway.watch(ours.0.id()).unwrap();
        throwaway.watch(stranger.0.id()).unwrap();
        // What the end of this process would do to the pipe.
        drop(throwaway.watcher.stdin.take());
        let start = Instant::now();
        while ours.0.try_wait().unwrap().is_none() || path.exists() {
            assert!(start.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(20));
        }
        assert!(stranger.0.try_wait().unwrap().is_none());
    }

    #[test]
    fn free_ports_are_free() {
        // A process that another test starts meanwhile may hold what is open here for a moment.
        let free = (0..10).any(|_| {
            let port = free_port().unwrap();
            assert!(port >= PORT_FIRST);
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        assert!(free);
    }
}
