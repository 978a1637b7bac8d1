//! The monitor against pretended servers on loopback, which speak just enough of the protocol. Real servers are asked
//! in `tests/`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use poolhouse_core::topology::{FailoverMode, NodeSettings, Role, Routing, State};

const PATIENCE: Duration = Duration::from_secs(20);

/// What a pretended server is and was asked.
#[derive(Debug, Default)]
struct Pretence {
    is_dead: bool,
    /// SQLSTATE of the refusal.
    refuses: Option<&'static str>,
    /// The next statement breaks its connection.
    breaks: bool,
    may_not_see: bool,
    primary: bool,
    timeline: u32,
    lsn: u32,
    streaming: bool,
    connections: usize,
    asked: Vec<String>,
}

#[derive(Debug, Clone)]
struct Server {
    pretence: Arc<Mutex<Pretence>>,
    address: Address,
}

impl Server {
    async fn start(primary: bool, scope: &Scope) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let pretence = Pretence { primary, timeline: 1, lsn: 256, streaming: !primary, ..Pretence::default() };
        let pretence = Arc::new(Mutex::new(pretence));
        let server = Server { pretence, address: Address::Tcp { host: "127.0.0.1".into(), port } };
        let (this, scope_of_sockets) = (server.clone(), scope.clone());
        scope.spawn("accept", async move {
            while let Ok((socket, _)) = listener.accept().await {
                let server = this.clone();
                scope_of_sockets.spawn("serve", async move { drop(server.serve(socket).await) });
            }
        });
        server
    }

    fn set(&self) -> MutexGuard<'_, Pretence> {
        self.pretence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, mut socket: TcpStream) -> std::io::Result<()> {
        let startup_bytes = socket.read_u32().await? as usize - 4;
        socket.read_exact(&mut vec![0; startup_bytes]).await?;
        let Some(greeting) = self.greet() else { return Ok(()) };
        socket.write_all(&greeting).await?;
        loop {
            socket.read_u8().await?;
            let mut sql = vec![0; socket.read_u32().await? as usize - 4];
            socket.read_exact(&mut sql).await?;
            let sql = String::from_utf8_lossy(&sql[..sql.len() - 1]).into_owned();
            let Some(answer) = self.answer(sql) else { return Ok(()) };
            socket.write_all(&answer).await?;
        }
    }

    /// `None` = nobody is there.
    fn greet(&self) -> Option<Vec<u8>> {
        let mut pretence = self.set();
        pretence.connections += 1;
        if pretence.is_dead {
            return None;
        }
        let welcome = || [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
        Some(pretence.refuses.map_or_else(welcome, |code| error("FATAL", code)))
    }

    /// `None` = the connection breaks.
    fn answer(&self, sql: String) -> Option<Vec<u8>> {
        let mut pretence = self.set();
        if pretence.is_dead || std::mem::take(&mut pretence.breaks) {
            return None;
        }
        let recovering = if pretence.primary { "f" } else { "t" };
        let reply = if sql.contains("pg_control_system") && pretence.may_not_see {
            [error("ERROR", "42501"), message(b'Z', b"I")].concat()
        } else if sql.ends_with("EXECUTE poolhouse") {
            pretence.row()
        } else if sql.contains("pg_is_in_recovery") {
            row(&[Some(recovering)])
        } else if sql.contains("current_setting('primary_conninfo')") {
            row(&[Some(r"user=it password='o\'k' host=gone")])
        } else {
            if sql.contains("pg_promote(true") {
                pretence.primary = true;
                pretence.timeline += 1;
                pretence.streaming = false;
            }
            row(&[Some("t")])
        };
        if !sql.ends_with("EXECUTE poolhouse") {
            pretence.asked.push(sql);
        }
        Some(reply)
    }
}

impl Pretence {
    fn row(&self) -> Vec<u8> {
        let lsn = format!("0/{:X}", self.lsn);
        let file = format!("{:08X}0000000000000001", self.timeline);
        let timeline = self.timeline.to_string();
        let system = Some("7").filter(|_| !self.may_not_see);
        if self.primary {
            return row(&[
                Some("f"),
                Some(&lsn),
                Some(&file),
                Some("256"),
                Some("8192"),
                None,
                None,
                None,
                None,
                system,
                Some("1"),
                Some("0"),
            ]);
        }
        let (pid, status) =
            (Some("9").filter(|_| self.streaming), Some("streaming").filter(|_| self.streaming && !self.may_not_see));
        row(&[
            Some("t"),
            Some(&lsn),
            None,
            None,
            Some("8192"),
            Some(&lsn),
            pid,
            status,
            status.map(|_| timeline.as_str()),
            system,
            Some(&timeline),
            Some("0"),
        ])
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], &(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

fn error(severity: &str, code: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{code}\0Mpretended\0\0").as_bytes())
}

fn row(columns: &[Option<&str>]) -> Vec<u8> {
    let mut body = (columns.len() as u16).to_be_bytes().to_vec();
    for column in columns {
        body.extend(column.map_or(-1, |text| text.len() as i32).to_be_bytes());
        body.extend(column.unwrap_or_default().as_bytes());
    }
    [message(b'D', &body), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
}

/// A monitor over pretended servers, the first of which is the primary.
struct Bench {
    servers: Vec<Server>,
    monitor: Monitor,
    /// Of the monitor.
    scope: Scope,
}

impl Bench {
    async fn start(nodes: usize, failover: FailoverMode, change: impl Fn(usize, &mut Pretence)) -> Bench {
        let mut servers = Vec::new();
        for index in 0..nodes {
            let server = Server::start(index == 0, &Scope::new()).await;
            change(index, &mut server.set());
            servers.push(server);
        }
        let node = |index| NodeSettings { name: format!("n{index}"), weight: 1.0, role: None, near: true, gone: false };
        let settings = Settings {
            name: "main".into(),
            addresses: servers.iter().map(|server| server.address.clone()).collect(),
            topology: topology::Settings {
                nodes: (0..nodes).map(node).collect(),
                failover,
                failures: 3,
                silence: None,
            },
            routing: Routing::default(),
            max_connections: 10,
            health: Health {
                user: "poolhouse".into(),
                password: None,
                database: "postgres".into(),
                interval: Duration::from_millis(50),
                timeout: PATIENCE,
            },
            hold: PATIENCE,
            fence_limit: None,
            tcp: Tcp::TO_SERVERS,
            tls: Arc::default(),
            connect_timeout: PATIENCE,
        };
        let scope = Scope::new();
        let monitor = Monitor::start(Arc::new(settings), &scope);
        assert!(monitor.ready(PATIENCE).await);
        Bench { servers, monitor, scope }
    }

    /// Waits until the published topology is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Topology) -> bool) {
        let wait = async {
            while !wanted(&self.monitor.topology()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{what}: {:#?}", self.monitor.topology());
    }

    fn server(&self, node: usize) -> MutexGuard<'_, Pretence> {
        self.servers[node].set()
    }
}

fn is_up(topology: &Topology, node: usize) -> bool {
    topology.nodes[node].state == State::Up
}

#[tokio::test]
async fn finds_the_roles_and_follows_positions() {
    let bench = Bench::start(3, FailoverMode::Follow, |_, _| {}).await;
    bench.until("all up", |topology| (0..3).all(|node| is_up(topology, node))).await;
    let before = Arc::clone(&bench.monitor.topology());
    assert_eq!((before.primary, before.timeline), (Some(NodeId(0)), 1));
    bench.server(0).lsn = 512;
    bench.server(1).lsn = 512;
    bench
        .until("n1 is fresh again", |topology| {
            topology.nodes[1].lsn == 512 && topology.nodes[1].fresh_as_of > before.nodes[1].fresh_as_of
        })
        .await;
    assert_eq!(bench.monitor.topology().version, before.version, "positions change without it");
    bench.scope.stop();
    assert!(timeout(PATIENCE, bench.scope.ended()).await.is_ok());
}

#[tokio::test]
async fn wakes_who_waits_for_a_new_primary() {
    let bench = Bench::start(2, FailoverMode::Follow, |_, _| {}).await;
    let seen = bench.monitor.topology().version;
    let still = timeout(Duration::from_millis(200), bench.monitor.changed(seen)).await;
    assert!(still.is_err(), "nothing changed");
    bench.server(0).is_dead = true;
    {
        let mut promoted = bench.server(1);
        (promoted.primary, promoted.timeline) = (true, 2);
    }
    let mut seen = seen;
    while bench.monitor.topology().primary != Some(NodeId(1)) {
        assert!(timeout(PATIENCE, bench.monitor.changed(seen)).await.is_ok());
        seen = bench.monitor.topology().version;
    }
    bench.server(0).is_dead = false;
    bench.until("the old one is never used", |topology| topology.nodes[0].state == State::Stale).await;
}

#[tokio::test]
async fn promotes_and_points_the_others() {
    let bench = Bench::start(3, FailoverMode::Promote, |_, _| {}).await;
    bench.server(2).lsn = 300;
    bench.server(0).is_dead = true;
    for replica in 1..3 {
        bench.server(replica).streaming = false;
    }
    bench.until("n2 has most", |topology| topology.primary == Some(NodeId(2))).await;
    let port = match &bench.servers[2].address {
        Address::Tcp { port, .. } => *port,
        Address::Unix { .. } => 0,
    };
    let wanted = format!(
        r"ALTER SYSTEM SET primary_conninfo = E'host=''127.0.0.1'' port={port} user=''it'' password=''o\\''k'''"
    );
    let pointed = async {
        while !bench
            .server(1)
            .asked
            .iter()
            .any(|sql| sql.contains("pg_reload_conf()") && sql.starts_with("SELECT pg_r"))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, pointed).await.is_ok());
    assert!(bench.server(1).asked.contains(&wanted), "{wanted} {:#?}", bench.server(1).asked);
    let promotions =
        |node: usize| bench.server(node).asked.iter().filter(|sql| sql.contains("pg_promote(true")).count();
    assert_eq!((promotions(1), promotions(2)), (0, 1));
}

#[tokio::test]
async fn a_broken_connection_is_no_lost_server() {
    let bench = Bench::start(2, FailoverMode::Follow, |_, _| {}).await;
    bench.until("all up", |topology| (0..2).all(|node| is_up(topology, node))).await;
    let (version, connections) = (bench.monitor.topology().version, bench.server(0).connections);
    bench.server(0).breaks = true;
    let opened = async {
        while bench.server(0).connections == connections {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, opened).await.is_ok());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.monitor.topology().version, version);
}

#[tokio::test]
async fn a_report_of_a_client_is_checked_over_a_new_connection() {
    let bench = Bench::start(1, FailoverMode::Follow, |_, _| {}).await;
    for report in [
        ClientReport::ServerLost { reason: "closed".into() },
        ClientReport::ConnectionRefused { reason: "refused".into() },
        ClientReport::ReadOnly,
    ] {
        let connections = bench.server(0).connections;
        let seen = bench.monitor.topology().version;
        bench.monitor.report(NodeId(0), report);
        assert!(timeout(PATIENCE, bench.monitor.changed(seen + 1)).await.is_ok(), "suspect and back");
        bench.until("proven", |topology| topology.primary == Some(NodeId(0)) && is_up(topology, 0)).await;
        assert_eq!(bench.server(0).connections, connections + 1);
    }
    bench.monitor.order(NodeId(0), Order::Drain);
    bench.until("drained", |topology| topology.nodes[0].state == State::Draining).await;
}

#[tokio::test]
async fn a_refused_login_is_neither_up_nor_down() {
    let bench =
        Bench::start(2, FailoverMode::Follow, |node, server| server.refuses = (node == 1).then_some("28P01")).await;
    bench.until("n0", |topology| topology.primary == Some(NodeId(0))).await;
    let connections = bench.server(1).connections;
    while bench.server(1).connections < connections + 5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let topology = bench.monitor.topology();
    assert_eq!(topology.nodes[1].state, State::Suspect { failures: 0 });
    assert_eq!((topology.nodes[1].role, &*topology.nodes[1].why), (None, "pretended"));
    drop(topology);
    bench.server(1).refuses = Some("57P03");
    bench.until("starting up is as good as gone", |topology| topology.nodes[1].state == State::Down).await;
    bench.server(1).refuses = None;
    bench.until("back", |topology| is_up(topology, 1)).await;
}

#[tokio::test]
async fn does_without_what_it_may_not_see() {
    let bench = Bench::start(2, FailoverMode::Follow, |_, server| server.may_not_see = true).await;
    bench.until("both up", |topology| is_up(topology, 0) && is_up(topology, 1)).await;
    let topology = bench.monitor.topology();
    assert_eq!((topology.primary, topology.nodes[0].system_identifier), (Some(NodeId(0)), None));
    assert_eq!((topology.nodes[1].role, topology.nodes[1].streaming), (Some(Role::Replica), true));
}
