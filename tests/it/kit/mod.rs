//! What the tests are written with: clusters, Poolhouse in front of them, a network that fails on purpose, and clients.
//! Everything ends with its owner, also in a panic, and any number of tests can run at once.

mod authority;
mod beside;
mod client;
mod fault;
mod pooler;
mod raw;
mod selftest;
mod served;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

pub use self::{
    authority::Authority,
    beside::{AtEnd, Program, bounded, crash},
    client::connect,
    fault::{Cut, Direction, Fault},
    pooler::{Config, Pooler},
    raw::{Message, RawClient, messages},
    served::Served,
};
pub use poolhouse_lab::cluster::{Builder, LabCluster, LabLogin, LabTls};

/// What anything that should happen at once may take on a machine that has hardly any time for the tests: it only says when
/// a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A cluster to be started; the tests of a build share what initdb made.
pub fn cluster() -> Builder {
    LabCluster::primary().cache(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("initdb"))
}

/// Waits for a condition, and fails the test when it does not come true.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
