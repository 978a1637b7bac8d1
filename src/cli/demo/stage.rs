//! What both kinds of demo start with: the cluster, Poolhouse in front of it, and a few tables.

use std::{io, net::SocketAddr, time::Duration};

use poolhouse_lab::{
    cluster::{ClusterError, LabCluster},
    load,
};

use super::pooler::{self, DEMO, Log, Pooler};

/// From asking for synchronous commits until there are some.
const SYNCHRONOUS_LIMIT: Duration = Duration::from_secs(20);

/// What making the tables may take, in which Poolhouse also finds the primary.
const TABLES_LIMIT: Duration = Duration::from_secs(30);

/// Names every node: a commit is acknowledged when one of the others has it. The most advanced replica is promoted, so
/// what was acknowledged survives, and the remaining one, which keeps its name, acknowledges for the new primary.
const SYNCHRONOUS: &str = "ANY 1 (node1, node2, node3)";

const REPLICAS: usize = 2;

/// For people who want to see where a statement ran. In a view because a statement that calls such functions itself
/// goes to the primary: it asks for the server that would have answered without Poolhouse.
const SERVED_BY: &str = "CREATE VIEW served_by AS SELECT current_setting('cluster_name') AS node, \
     inet_server_port() AS port, CASE WHEN pg_is_in_recovery() THEN 'replica' ELSE 'primary' END AS role";

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("cannot {what}: {error}")]
    Io { what: &'static str, error: io::Error },
    #[error("Poolhouse {why}{}", lines_of(log))]
    Poolhouse { why: String, log: String },
    #[error("{why}{}", lines_of(log))]
    Check { why: String, log: String },
}

impl DemoError {
    pub fn io(what: &'static str) -> impl FnOnce(io::Error) -> DemoError {
        move |error| DemoError::Io { what, error }
    }
}

fn lines_of(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; the end of its log:\n{log}") }
}

/// A running demo. Dropping it ends and removes everything, Poolhouse first.
#[derive(Debug)]
pub struct Stage {
    pub pooler: Pooler,
    pub cluster: LabCluster,
}

impl Stage {
    /// Starts everything, and returns when all replicas have the tables.
    ///
    /// # Errors
    /// [`DemoError`]; nothing is left running then.
    pub fn start(listen: Option<SocketAddr>, log: Log) -> Result<Stage, DemoError> {
        let cluster = LabCluster::primary().replicas(REPLICAS).scram_user(DEMO, DEMO).database(DEMO).start()?;
        synchronise(&cluster)?;
        let pooler = Pooler::start(&cluster, pooler::listen_address(listen, log)?, log)?;
        let stage = Stage { pooler, cluster };
        stage.execute(&format!("{SERVED_BY}; {}", load::TABLES))?;
        stage.cluster.catch_up()?;
        Ok(stage)
    }

    /// How clients connect.
    pub fn clients(&self) -> load::Login {
        load::login(self.pooler.address(), DEMO)
    }

    /// Runs statements through Poolhouse.
    fn execute(&self, sql: &str) -> Result<(), DemoError> {
        load::execute(&self.clients(), sql, TABLES_LIMIT).map_err(|why| self.pooler.failed(why))
    }
}

/// Makes commits wait for a replica: not before there are replicas, or nothing could be committed. Every node gets it,
/// because each may become the primary.
fn synchronise(cluster: &LabCluster) -> Result<(), DemoError> {
    for node in cluster.nodes() {
        node.query(&format!("ALTER SYSTEM SET synchronous_standby_names = '{SYNCHRONOUS}'"))?;
        node.query("SELECT pg_reload_conf()")?;
    }
    let primary = cluster.node(0);
    primary.wait_for("take its replicas for synchronous ones", SYNCHRONOUS_LIMIT, || {
        let rows = primary.query("SELECT FROM pg_stat_replication WHERE sync_state = 'quorum'")?;
        Ok(rows.len() == REPLICAS)
    })?;
    Ok(())
}
