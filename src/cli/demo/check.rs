//! `poolhouse demo --check`: load, the death of the primary in the middle of it, and the judgement.

use std::{
    net::SocketAddr,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use poolhouse_lab::{
    cluster::{ClusterError, LabCluster},
    data,
    ledger::{Holdings, WriteKey, WriteLoss, WrittenRows, audit},
    load::{self, Record},
    node::LabNode,
};

use super::{
    pooler::{DEMO, Log},
    report::{NodeLine, Report},
    say,
    stage::{DemoError, Stage},
};

/// Until all clients have logged in.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What clients may take to end after the load is over: the longest that a statement may take, and to look and connect.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Which node is the primary at first.
const FIRST: usize = 0;

/// Runs the load and prints the report; answers whether all promises held.
///
/// # Errors
/// Something could not be started, done or asked, so that there is nothing to judge.
#[expect(clippy::disallowed_methods, reason = "the load has a thread beside the one that kills the primary")]
pub fn run(listen: Option<SocketAddr>, clients: u32, duration: Duration) -> Result<bool, DemoError> {
    say("Starting a primary, two streaming replicas, and Poolhouse in front of them …");
    let mut stage = Stage::start(listen, Log::Kept)?;
    let (server, (starts, started)) = (stage.clients(), mpsc::channel());
    let load = thread::spawn(move || load::run(server, clients, duration, starts));
    let start = started.recv_timeout(START_LIMIT).map_err(|_| DemoError::Check {
        why: format!("the {clients} clients could not log in within {START_LIMIT:?}"),
        log: stage.pooler.log(),
    })?;
    let until = start + duration;
    say(format!("{clients} clients read and write through Poolhouse for {} seconds …", duration.as_secs()));
    thread::sleep(duration / 3);
    let killed = Instant::now();
    let primary = stage.cluster.node(FIRST);
    primary.kill9()?;
    let loss = WriteLoss { address: primary.address(), gone: Instant::now() };
    let seconds = (killed - start).as_secs_f64();
    say(format!("After {seconds:.1} s the primary, {}, was killed (SIGKILL); the load goes on …", primary.name()));
    let record = join(load, until + END_LIMIT, &stage)?;
    stage.pooler.check_alive()?;
    let report = judge(&stage, &record, killed, loss, (start, until))?;
    say(&report);
    let passed = report.objections().is_empty();
    if !passed {
        say(format!("\nThe end of Poolhouse's log:\n{}", stage.pooler.log()));
    }
    Ok(passed)
}

fn join(load: JoinHandle<std::io::Result<Record>>, limit: Instant, stage: &Stage) -> Result<Record, DemoError> {
    let left = limit.saturating_duration_since(Instant::now());
    let failed = |why: &str| DemoError::Check { why: why.to_owned(), log: stage.pooler.log() };
    let ended = data::wait(left, || Ok::<_, DemoError>(load.is_finished().then_some(())))?;
    if ended.is_none() {
        return Err(failed("the load did not end: a client has waited for an answer for more than a minute"));
    }
    let record = load.join().map_err(|_| failed("the load panicked; this is a bug in the demo"))?;
    record.map_err(DemoError::io("run the load"))
}

fn judge(
    stage: &Stage,
    record: &Record,
    killed: Instant,
    loss: WriteLoss,
    span: (Instant, Instant),
) -> Result<Report, DemoError> {
    let cluster = &stage.cluster;
    let unled = |why: &str| DemoError::Check { why: why.to_owned(), log: stage.pooler.log() };
    let mut survivors = cluster.nodes().iter().skip(FIRST + 1);
    let mut primary = None;
    for node in survivors.by_ref() {
        if node.is_primary()? {
            primary = Some(node);
            break;
        }
    }
    let primary = primary.ok_or_else(|| unled("no replica was promoted"))?;
    let others = cluster.nodes().iter().skip(FIRST + 1).filter(|node| node.name() != primary.name());
    let mut differing = Vec::new();
    let held = holdings(primary)?;
    for replica in others {
        replica.catch_up(primary)?;
        if holdings(replica)? != held {
            differing.push(replica.name().to_owned());
        }
    }
    Ok(Report {
        nodes: lines(cluster, primary, record),
        audit: audit(&record.fates, &held),
        record: record.clone(),
        loss,
        killed,
        span,
        differing,
    })
}

fn lines(cluster: &LabCluster, promoted: &LabNode, record: &Record) -> Vec<NodeLine> {
    let nodes = cluster.nodes().iter().enumerate().map(|(number, node)| NodeLine {
        name: node.name().to_owned(),
        address: node.address(),
        role: match number {
            FIRST => "primary, killed",
            _ if node.name() == promoted.name() => "replica, promoted",
            _ => "replica",
        },
        served: record.served.get(&node.port()).copied().unwrap_or_default(),
        is_replica: number != FIRST,
    });
    nodes.collect()
}

/// What a node holds, asked directly.
fn holdings(node: &LabNode) -> Result<Holdings, DemoError> {
    let writes = "SELECT client, sequence, count(*), sum(value) FROM demo_entry GROUP BY client, sequence";
    let tallies = "SELECT client, 0, entries, checksum FROM demo_tally WHERE entries <> 0 OR checksum <> 0";
    Ok(Holdings {
        writes: ask(node, writes)?.collect(),
        tallies: ask(node, tallies)?.map(|((client, _), rows)| (client, rows)).collect(),
    })
}

fn ask(node: &LabNode, sql: &str) -> Result<impl Iterator<Item = (WriteKey, WrittenRows)> + use<>, ClusterError> {
    let unreadable = || ClusterError::Query {
        node: node.name().to_owned(),
        sql: sql.to_owned(),
        error: "its answer is not made of numbers".to_owned(),
    };
    let rows = node.query_in(DEMO, sql)?.into_iter().map(|row| {
        let numbers: Option<Vec<i64>> = row.into_iter().map(|column| column?.parse().ok()).collect();
        let [client, sequence, count, sum] = numbers?.try_into().ok()?;
        Some((WriteKey::from((u32::try_from(client).ok()?, sequence)), WrittenRows { count, sum }))
    });
    let rows: Option<Vec<_>> = rows.collect();
    Ok(rows.ok_or_else(unreadable)?.into_iter())
}
