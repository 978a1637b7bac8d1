//! What operators have ordered for a database: that nobody may log in, or that nothing is lent. An order stands until
//! it is taken back, also for pools that are made later.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::watch;

use crate::{backend::ServerManager, pool::Pool};

/// The orders for one database, as clients call it.
#[derive(Debug, Default)]
pub struct Gate {
    inner: Mutex<GateState>,
}

#[derive(Debug, Default)]
struct GateState {
    paused: bool,
    disabled: bool,
    /// All pools of the database.
    pools: Vec<Weak<Pool<ServerManager>>>,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        // No code under the lock can panic half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new pool follows the orders from now on.
    pub fn enter(&self, pool: &Arc<Pool<ServerManager>>) {
        let mut inner = self.lock();
        inner.pools.retain(|pool| pool.strong_count() > 0);
        inner.pools.push(Arc::downgrade(pool));
        if inner.paused {
            pool.pause();
        }
    }

    pub fn pause(&self) {
        let mut inner = self.lock();
        inner.paused = true;
        each(&inner.pools, Pool::pause);
    }

    pub fn resume(&self) {
        let mut inner = self.lock();
        inner.paused = false;
        each(&inner.pools, Pool::resume);
    }

    pub fn is_paused(&self) -> bool {
        self.lock().paused
    }

    pub fn set_disabled(&self, disabled: bool) {
        self.lock().disabled = disabled;
    }

    pub fn is_disabled(&self) -> bool {
        self.lock().disabled
    }

    /// Replaces all server connections, each as soon as it is not lent.
    pub fn reconnect(&self) {
        each(&self.lock().pools, Pool::renew);
    }

    /// Server connections that are to be closed and are not yet.
    pub fn outdated(&self) -> usize {
        self.sum(Pool::outdated)
    }

    /// Server connections that are there or being opened.
    pub fn connections(&self) -> usize {
        self.sum(|pool| {
            let counts = pool.counts();
            counts.lent + counts.idle + counts.opening
        })
    }

    fn sum(&self, count: impl Fn(&Pool<ServerManager>) -> usize) -> usize {
        let inner = self.lock();
        inner.pools.iter().filter_map(Weak::upgrade).map(|pool| count(&pool)).sum()
    }

    fn is_at_rest(&self) -> bool {
        let inner = self.lock();
        !inner.paused && !inner.disabled
    }
}

fn each(pools: &[Weak<Pool<ServerManager>>], order: impl Fn(&Pool<ServerManager>)) {
    pools.iter().filter_map(Weak::upgrade).for_each(|pool| order(&pool));
}

/// The gates of all databases.
#[derive(Debug)]
pub struct Gates {
    inner: Mutex<GatesByName>,
    /// No connections are accepted.
    pub suspended: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct GatesByName {
    gates: BTreeMap<String, Arc<Gate>>,
    /// All are paused, and those that come.
    paused: bool,
}

impl Default for Gates {
    fn default() -> Self {
        Gates { inner: Mutex::default(), suspended: watch::Sender::new(false) }
    }
}

impl Gates {
    fn lock(&self) -> MutexGuard<'_, GatesByName> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That of a database.
    pub fn of(&self, database: &str) -> Arc<Gate> {
        let mut by_name = self.lock();
        if let Some(gate) = by_name.gates.get(database) {
            return gate.clone();
        }
        let gate = Arc::<Gate>::default();
        if by_name.paused {
            gate.pause();
        }
        by_name.gates.insert(database.to_owned(), gate.clone());
        gate
    }

    pub fn all(&self) -> Vec<(String, Arc<Gate>)> {
        self.lock().gates.iter().map(|(name, gate)| (name.clone(), gate.clone())).collect()
    }

    /// Pauses all; false when all were paused before.
    pub fn pause_all(&self) -> bool {
        let mut by_name = self.lock();
        by_name.gates.values().for_each(|gate| gate.pause());
        !std::mem::replace(&mut by_name.paused, true)
    }

    /// Resumes all, also what was paused alone; false when nothing was paused.
    pub fn resume_all(&self) -> bool {
        let suspended = self.suspended.send_replace(false);
        let mut by_name = self.lock();
        let alone = by_name.gates.values().filter(|gate| gate.is_paused()).count();
        by_name.gates.values().for_each(|gate| gate.resume());
        std::mem::replace(&mut by_name.paused, false) || alone > 0 || suspended
    }

    pub fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// Forgets what nobody uses and nothing was ordered for.
    pub fn keep(&self) {
        self.lock().gates.retain(|_, gate| Arc::strong_count(gate) > 1 || !gate.is_at_rest());
    }
}
