//! The machine: its limits, its shape, and how busy others keep it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Outcome;

/// 10,000 sockets of ours, and as many of a proxy, which inherits the limit; PgBouncer counts its servers' in, too.
const FILES_MIN: u64 = 12_000;

/// How long a look at the machine takes.
const LOOK: Duration = Duration::from_millis(300);

/// Allows as many open files as the system lets us have.
pub fn raise_file_limit() -> Outcome<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let enough = maximum.is_none_or(|maximum| maximum >= FILES_MIN);
    let wanted = if enough { maximum } else { Some(FILES_MIN) };
    // A soft limit without bound makes some programs allocate a table of that size.
    let soft = wanted.map_or(FILES_MIN, |wanted| wanted.min(FILES_MIN));
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: wanted }).map_err(|error| {
        format!("{FILES_MIN} open files are needed; raise the limit (`ulimit -Hn {FILES_MIN}` as root): {error}").into()
    })
}

/// The share of all cores that is busy right now, 0 to 1; asked while nothing of ours has work.
pub fn others_busy() -> Outcome<f64> {
    let before = cpu_times()?;
    thread::sleep(LOOK);
    let after = cpu_times()?;
    let all = (after.0 - before.0).max(1) as f64;
    Ok(1.0 - (after.1 - before.1) as f64 / all)
}

/// All CPU time of the machine and the idle part of it (idle, waiting for disks), in the first line of /proc/stat. The
/// last two fields, guests, are counted in others already.
fn cpu_times() -> Outcome<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    match fields[..] {
        [_, _, _, idle, waiting, ..] => Ok((fields.iter().sum(), idle + waiting)),
        _ => Err("/proc/stat does not begin with CPU times".into()),
    }
}

/// `2 cores (AMD EPYC), 23 GiB, Linux 6.1`.
pub fn shape() -> Outcome<String> {
    let cores = thread::available_parallelism()?;
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = value_of(&processors, "model name").unwrap_or("unknown model");
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib = value_of(&memory, "MemTotal").and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
    let gib = kib.unwrap_or_default() >> 20;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let linux = release.split('.').take(2).collect::<Vec<_>>().join(".");
    Ok(format!("{cores} cores ({model}), {gib} GiB, Linux {linux}"))
}

fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim())
}

/// `2026-11-24`, in UTC.
pub fn date() -> Outcome<String> {
    first_line_of(Path::new("date"), "-u +%Y-%m-%d")
}

/// The first line that a program prints; `arguments` are split at spaces.
pub fn first_line_of(program: &Path, arguments: &str) -> Outcome<String> {
    let mut command = Command::new(program);
    let output = command.args(arguments.split(' ')).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}
