//! What runs beside the main part of a test, and has to end when that fails: threads and programs.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use poolhouse_lab::throwaway::Throwaway;
use rustix::process::{Pid, Signal, kill_process};

/// Seconds that a program which a test calls may take.
const PROGRAM_SECONDS: &str = "120";

/// Sets a flag when the part of the test that holds it ends, also by a panic: a scope waits for the threads that go by the
/// flag before a panic gets any further.
#[must_use]
pub struct AtEnd<'a>(pub &'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A program that runs for as long as its owner lets it. When the whole process is killed it is ended, too.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// Ends it then.
    directory: Throwaway,
}

impl Program {
    /// Starts a program without input and output, after `change` has said what else there is to say.
    pub fn start(program: impl AsRef<OsStr>, change: impl FnOnce(&mut Command, &Path)) -> Program {
        let directory = Throwaway::new().unwrap();
        let mut command = Command::new(&program);
        // By a path in the directory it is known to who ends it.
        command.arg0(directory.path().join("program"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        change(&mut command, directory.path());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let program = Program { child, directory };
        program.directory.watch(program.child.id()).unwrap();
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that runs to its end, and is ended when that does not come.
pub fn bounded(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", PROGRAM_SECONDS]).arg(program).stdin(Stdio::null());
    command
}

/// Ends a process as a crash would.
pub fn crash(process: &str) {
    kill_process(Pid::from_raw(process.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
}
