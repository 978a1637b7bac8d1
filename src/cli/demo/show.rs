//! The demo that people play with: says how to connect and what to try, and then what becomes of the servers, until
//! Ctrl-C.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use poolhouse_lab::{cluster::LabCluster, node::LabNode};

use super::{
    pooler::{DEMO, Log},
    say,
    stage::{DemoError, Stage},
};

/// How often the servers are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Runs until a signal ends it.
///
/// # Errors
/// Something cannot be started, or Poolhouse ends by itself.
pub fn run(listen: Option<SocketAddr>) -> Result<(), DemoError> {
    say("Starting a primary, two streaming replicas, and Poolhouse in front of them …");
    let mut stage = Stage::start(listen, Log::Shown)?;
    say(introduction(&stage));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(DemoError::io("start a runtime"))?;
    let ended = runtime.block_on(watch(&mut stage));
    say("Stopping and removing everything …");
    ended
}

fn introduction(stage: &Stage) -> String {
    let url = format!("postgres://{DEMO}:{DEMO}@{}/{DEMO}", stage.pooler.address());
    let nodes = stage.cluster.nodes().iter().map(|node| format!("\n  {}  {}", node.name(), node.address()));
    format!(
        r#"
The servers:{nodes}
Poolhouse listens on {address}.

Connect:
  psql {url}
  DATABASE_URL={url}

Try:
  SELECT * FROM served_by;                  a read: a replica answers, now this one, now that one
  BEGIN; SELECT * FROM served_by; COMMIT;   a transaction that may write: the primary
  CREATE TABLE t (x int); INSERT INTO t VALUES (1); SELECT * FROM t;   you read what you wrote
  EXPLAIN ROUTE SELECT 1;                   where a statement would go, and why
  psql {console} -c 'SHOW NODES'   the console
  {http}/   the console's tables and metrics, in a browser
  {kill}   kills the primary: another one takes over within a second, and you stay connected

Ctrl-C ends it and removes everything. Its log and what becomes of the servers follow.
"#,
        nodes = nodes.collect::<String>(),
        address = stage.pooler.address(),
        console = format_args!("postgres://{DEMO}:{DEMO}@{}/poolhouse", stage.pooler.address()),
        http = stage.pooler.http().map(|http| format!("http://{http}")).unwrap_or_default(),
        kill = kill_command(stage.cluster.node(0)),
    )
}

fn kill_command(node: &LabNode) -> String {
    node.process().map_or_else(|| "(it has ended)".to_owned(), |process| format!("kill -9 {process}"))
}

async fn watch(stage: &mut Stage) -> Result<(), DemoError> {
    let listen = |kind| signal(kind).map_err(DemoError::io("listen to signals"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let any = async |signals: [&mut Signal; 3]| {
        let [one, two, three] = signals;
        tokio::select! { _ = one.recv() => {}, _ = two.recv() => {}, _ = three.recv() => {} }
    };
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut scene = Scene { primary: Some(0), running: stage.cluster.nodes().len(), released: false };
    loop {
        tokio::select! {
            () = any([&mut interrupt, &mut terminate, &mut hang_up]) => return Ok(()),
            _ = ticks.tick() => {}
        }
        stage.pooler.check_alive()?;
        scene = scene.next(&stage.cluster);
    }
}

/// What is known of the servers.
struct Scene {
    primary: Option<usize>,
    running: usize,
    /// Commits wait for nobody.
    released: bool,
}

impl Scene {
    /// Looks again and says what has changed.
    fn next(self, cluster: &LabCluster) -> Scene {
        let running: Vec<usize> =
            (0..cluster.nodes().len()).filter(|number| cluster.node(*number).is_running()).collect();
        // One that cannot be asked now is asked again in a moment.
        let primary = running.iter().copied().find(|number| cluster.node(*number).is_primary().unwrap_or(false));
        if running.len() < self.running {
            say(format!("── {} of {} servers run.", running.len(), cluster.nodes().len()));
        }
        if let Some(number) = primary.filter(|_| primary != self.primary) {
            let node = cluster.node(number);
            say(format!("── {} ({}) is the primary now; {}", node.name(), node.address(), kill_command(node)));
        }
        let mut released = self.released;
        if let (Some(number), [_]) = (primary, running.as_slice())
            && !released
        {
            release(cluster.node(number));
            released = true;
        }
        Scene { primary: primary.or(self.primary), running: running.len(), released }
    }
}

/// The last server has nobody who could acknowledge its commits.
fn release(last: &LabNode) {
    let asked = last.query("ALTER SYSTEM SET synchronous_standby_names = ''");
    match asked.and_then(|_| last.query("SELECT pg_reload_conf()")) {
        Ok(_) => say("── No replica is left, so commits do not wait for one any more."),
        Err(error) => say(format!("── No replica is left, and commits wait for one: {error}")),
    }
}
