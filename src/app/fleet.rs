//! The clusters that are watched and served. They come and go with the configuration.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{interval, timeout};

use crate::{databases::Cluster, frontend::Frontend, monitor, tasks::Scope};

/// How often idle server connections are looked after.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// In every turn of so many it is asked whether those who hold server connections are still there.
const CALL_TURNS: u32 = 5;

/// How long a cluster's connections that listen may take to say goodbye.
const HUBS_LIMIT: Duration = Duration::from_secs(1);

/// All clusters. Their tasks belong below its scope.
pub struct Fleet {
    watching: Scope,
    clusters: Mutex<Clusters>,
}

struct Clusters {
    /// In the order of the configuration.
    current: Vec<Arc<Cluster>>,
    /// Those that the configuration does not have any more, while there are sessions on them.
    leaving: Vec<Arc<Cluster>>,
}

impl Fleet {
    /// Must be called on a tokio runtime.
    pub fn start(settings: &[monitor::Settings], watching: &Scope) -> Arc<Fleet> {
        let current = settings.iter().map(|settings| Cluster::start(settings.clone(), watching)).collect();
        let clusters = Mutex::new(Clusters { current, leaving: Vec::new() });
        Arc::new(Fleet { watching: watching.clone(), clusters })
    }

    /// The clusters in the order of the configuration.
    pub fn clusters(&self) -> Vec<Arc<Cluster>> {
        self.lock().current.clone()
    }

    /// There are these clusters from now on: they are told apart by their names. Must be called on a tokio runtime.
    pub fn configure(&self, settings: &[monitor::Settings]) {
        let mut clusters = self.lock();
        let mut before = std::mem::take(&mut clusters.current);
        for settings in settings {
            let known = before.iter().position(|cluster| cluster.name == settings.name);
            let cluster = match known.map(|at| before.remove(at)) {
                Some(cluster) if *cluster.monitor.settings() == *settings => cluster,
                Some(cluster) => {
                    cluster.configure(settings.clone());
                    cluster
                }
                None => Cluster::start(settings.clone(), &self.watching),
            };
            clusters.current.push(cluster);
        }
        clusters.leaving.extend(before);
    }

    /// Looks after the pools every second, and ends clusters that nobody uses any more.
    pub fn keep(self: &Arc<Self>, frontend: &Arc<Frontend>) {
        let (fleet, frontend, scope) = (self.clone(), frontend.clone(), self.watching.clone());
        self.watching.spawn("keep the pools", async move {
            let mut ticks = interval(KEEP_INTERVAL);
            let mut seen: Vec<Arc<Cluster>> = Vec::new();
            let mut turns = 0_u32;
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = scope.stopping() => return,
                }
                let all = fleet.all();
                seen.retain(|cluster| all.iter().any(|it| Arc::ptr_eq(it, cluster)));
                for cluster in all {
                    cluster.keep();
                    if !seen.iter().any(|it| Arc::ptr_eq(it, &cluster)) {
                        cluster.mind_the_lent(frontend.registry.clone());
                        seen.push(cluster);
                    }
                }
                frontend.keep();
                turns = turns.wrapping_add(1);
                if turns.is_multiple_of(CALL_TURNS) {
                    frontend.call_holders(KEEP_INTERVAL * CALL_TURNS);
                }
                fleet.end_unused();
            }
        });
    }

    fn end_unused(&self) {
        self.lock().leaving.retain(|cluster| {
            let used = cluster.is_used();
            if !used {
                tracing::info!(cluster = cluster.name, "nobody uses it any more");
                cluster.nodes().for_each(|node| node.pools.renew());
                cluster.scope.stop();
            }
            used
        });
    }

    /// Says goodbye to all servers.
    pub async fn close(&self) {
        for cluster in self.all() {
            let _ = timeout(HUBS_LIMIT, cluster.hubs.close()).await;
            cluster.nodes().for_each(|node| node.pools.renew());
        }
    }

    fn all(&self) -> Vec<Arc<Cluster>> {
        let clusters = self.lock();
        clusters.current.iter().chain(&clusters.leaving).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Clusters> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
