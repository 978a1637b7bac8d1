//! The console with the programs that people use: psql, Python's drivers, the queries of exporters, and side by side with
//! PgBouncer's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use poolhouse_lab::throwaway::{Throwaway, free_port};

use super::{
    console::{ask, column, console, in_front, table},
    kit::{Message, PATIENCE, Pooler, Program, RawClient, bounded, cluster, messages, wait_until},
};

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap() + &errors
}

fn psql(pooler: &Pooler, arguments: &[&str]) -> String {
    let mut command = bounded("psql");
    let port = pooler.port().to_string();
    command.args(["-X", "-h", "127.0.0.1", "-p", &port, "-U", "admin", "-d", "pgbouncer"]).args(arguments);
    run(command.env("PGPASSWORD", "steer").env("PGCLIENTENCODING", "UTF8"))
}

#[test]
fn psql_is_at_home() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = in_front(&cluster).start();
    let _app = RawClient::login(pooler.port(), "postgres", "app", "secret");
    let pools = psql(&pooler, &["-At", "-c", "SHOW POOLS WHERE database = 'postgres'"]);
    assert!(pools.starts_with("postgres|app|1|0|0|0|"), "{pools}");
    let shown = psql(&pooler, &["-x", "-c", "SHOW STATE"]);
    assert!(shown.contains("-[ RECORD 1 ]") && shown.contains("active"), "{shown}");
    let help = psql(&pooler, &["-c", "SHOW HELP"]);
    assert!(help.contains("NOTICE:  Console usage") && help.contains("SHOW POOLS"), "{help}");
    assert_eq!(psql(&pooler, &["-c", "PAUSE", "-c", "RESUME"]), "PAUSE\nRESUME\n");
    // As typed into it, errors among the rest.
    let script = Throwaway::new().unwrap();
    let file = script.path().join("script.sql");
    fs::write(&file, "SHOW VERSION;\nnonsense;\nSHOW STATE\n WHERE key = 'paused';\n\\gdesc\n").unwrap();
    let typed = psql(&pooler, &["-At", "-f", file.to_str().unwrap()]);
    assert!(typed.contains("invalid command \"nonsense\"") && typed.contains("paused|no"), "{typed}");
}

#[test]
fn drivers_of_python_read_it() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = in_front(&cluster).start();
    let mut app = RawClient::login(pooler.port(), "postgres", "app", "secret");
    ask(&mut app, "SELECT 1");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = run(bounded(root.join("scripts/drivers.sh")).stderr(Stdio::inherit()));
    let mut command = bounded(python.trim());
    command.arg(root.join("tests/it/console_drivers.py")).args([&pooler.port().to_string(), "admin", "steer"]);
    assert_eq!(run(&mut command), "fine\n");
}

/// What exporters ask for and which columns they read, by their names.
const EXPORTERS: &[(&str, &[&str])] = &[
    ("SHOW VERSION", &["version"]),
    ("SHOW LISTS", &["list", "items"]),
    ("SHOW CONFIG", &["key", "value", "default", "changeable"]),
    (
        "SHOW DATABASES",
        &[
            "name",
            "host",
            "port",
            "database",
            "force_user",
            "pool_size",
            "min_pool_size",
            "reserve_pool_size",
            "pool_mode",
            "max_connections",
            "current_connections",
            "max_client_connections",
            "current_client_connections",
            "paused",
            "disabled",
        ],
    ),
    (
        "SHOW STATS",
        &[
            "database",
            "total_server_assignment_count",
            "total_xact_count",
            "total_query_count",
            "total_received",
            "total_sent",
            "total_xact_time",
            "total_query_time",
            "total_wait_time",
            "total_client_parse_count",
            "total_server_parse_count",
            "total_bind_count",
            "avg_xact_count",
            "avg_query_count",
            "avg_recv",
            "avg_sent",
            "avg_xact_time",
            "avg_query_time",
            "avg_wait_time",
        ],
    ),
    (
        "SHOW POOLS",
        &[
            "database",
            "user",
            "cl_active",
            "cl_waiting",
            "cl_active_cancel_req",
            "cl_waiting_cancel_req",
            "sv_active",
            "sv_active_cancel",
            "sv_being_canceled",
            "sv_idle",
            "sv_used",
            "sv_tested",
            "sv_login",
            "maxwait",
            "maxwait_us",
            "pool_mode",
        ],
    ),
    ("SHOW CLIENTS", &["user", "database", "state", "addr", "connect_time", "request_time", "application_name"]),
    ("SHOW SERVERS", &["user", "database", "state", "addr", "connect_time", "request_time", "remote_pid"]),
    ("SHOW MEM", &["name", "size", "used", "free", "memtotal"]),
];

#[test]
fn exporters_find_their_columns_and_true_figures() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = in_front(&cluster).set("admin.pgbouncer_version", "'1.25.0'").start();
    let mut app = RawClient::login(pooler.port(), "postgres", "app", "secret");
    for _ in 0..7 {
        ask(&mut app, "SELECT 1");
    }
    ask(&mut app, "BEGIN; SELECT 1");
    let mut monitor = RawClient::login(pooler.port(), "pgbouncer", "monitor", "look");
    for (sql, names) in EXPORTERS {
        let (columns, rows) = table(&mut monitor, sql);
        assert!(!rows.is_empty(), "{sql}");
        for name in *names {
            assert!(columns.iter().any(|column| column == name), "{sql}: no {name} in {columns:?}");
        }
    }
    let mut one = |sql: &str, name: &str| column(&mut monitor, sql, name).join(" ");
    let pools = "SHOW POOLS WHERE database = 'postgres'";
    assert_eq!([one(pools, "cl_active"), one(pools, "sv_active"), one(pools, "sv_idle")], ["1", "1", "0"]);
    let servers = "SHOW SERVERS WHERE database = 'postgres'";
    assert_eq!(
        [one(servers, "state"), one(servers, "link")],
        ["active", &*one("SHOW CLIENTS WHERE user = 'app'", "ptr")]
    );
    let process = column(&mut app, "SELECT pid FROM pg_stat_activity WHERE pid = pg_backend_pid()", "pid").join("");
    assert_eq!(one(servers, "remote_pid"), process);
    ask(&mut app, "COMMIT");
    // A client's figures are added up once its transaction is done, which may be after the answer.
    let stats = "SHOW STATS WHERE database = 'postgres'";
    wait_until("all are counted", PATIENCE, || one(stats, "total_xact_count") == "8");
    assert_eq!(one(stats, "total_query_count"), "10");
    assert_eq!([one(stats, "total_server_assignment_count"), one(stats, "total_client_login_count")], ["8", "1"]);
    let sum: u64 =
        column(&mut monitor, "SHOW STATS", "total_sent").iter().map(|sent| sent.parse::<u64>().unwrap()).sum();
    assert_eq!(column(&mut monitor, "SHOW TOTALS WHERE name = 'total_server_bytes'", "value"), [sum.to_string()]);
    assert_eq!(column(&mut monitor, "SHOW NODES", "role"), ["primary"]);
    assert_eq!(column(&mut monitor, "SHOW POOL_NODES", "status"), ["up"]);
}

/// A PgBouncer of the machine's, which knows one database.
struct PgBouncer {
    port: u16,
    _program: Program,
}

impl PgBouncer {
    fn start() -> PgBouncer {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
        let program = places.map(|place: PathBuf| place.join("pgbouncer")).find(|program| program.exists());
        let program = program.expect("pgbouncer is not installed; scripts/deps.sh drivers does that");
        let port = free_port().unwrap();
        // It refuses to run as root.
        let user = if rustix::process::geteuid().is_root() { "user = nobody\n" } else { "" };
        let text = format!(
            "[databases]\npostgres = host=127.0.0.1 port=1\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\nadmin_users = admin\n{user}"
        );
        let program = Program::start(program, |command, directory| {
            let file = directory.join("pgbouncer.ini");
            fs::write(&file, text).unwrap();
            command.arg(file);
        });
        let accepts = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        wait_until("PgBouncer accepts", PATIENCE, accepts);
        PgBouncer { port, _program: program }
    }
}

/// Names and type oids of the columns.
fn shape(client: &mut RawClient, sql: &str) -> Option<Vec<(String, u32)>> {
    let answer = ask(client, sql);
    let head: &Message = answer.iter().find(|message| message.tag == b'T')?;
    let mut types = Vec::new();
    let mut rest = &head.body[2..];
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        types.push(u32::from_be_bytes(rest[end + 7..end + 11].try_into().unwrap()));
        rest = &rest[end + 19..];
    }
    Some(head.columns().into_iter().zip(types).collect())
}

#[test]
fn columns_are_those_of_pgbouncer_in_its_order_and_with_its_types() {
    let peer = PgBouncer::start();
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = in_front(&cluster).start();
    let (mut ours, mut theirs) = (console(&pooler), RawClient::login(peer.port, "pgbouncer", "admin", ""));
    let mut compared = 0;
    for name in [
        "VERSION",
        "DATABASES",
        "POOLS",
        "CLIENTS",
        "SERVERS",
        "SOCKETS",
        "ACTIVE_SOCKETS",
        "STATS",
        "STATS_TOTALS",
        "STATS_AVERAGES",
        "TOTALS",
        "USERS",
        "LISTS",
        "FDS",
        "DNS_HOSTS",
        "DNS_ZONES",
        "MEM",
        "PEERS",
        "PEER_POOLS",
        "STATE",
        "CONFIG",
    ] {
        let sql = format!("SHOW {name}");
        let ours = shape(&mut ours, &sql).unwrap_or_else(|| panic!("{sql} is not known here"));
        // An older version lacks some of them, and some of the columns.
        let Some(mut theirs) = shape(&mut theirs, &sql) else { continue };
        // Renamed in 1.24.
        theirs.iter_mut().filter(|(name, _)| name == "reserve_pool").for_each(|(name, _)| name.push_str("_size"));
        let shared: Vec<_> =
            ours.into_iter().filter(|column| theirs.iter().any(|(name, _)| *name == column.0)).collect();
        assert_eq!(shared, theirs, "{sql}");
        compared += 1;
    }
    assert!(compared >= 17, "only {compared} tables were compared");
    // Both answer what their users may ask.
    for (sql, tag) in [
        ("PAUSE", "PAUSE"),
        ("RESUME", "RESUME"),
        ("RECONNECT", "RECONNECT"),
        ("DISABLE postgres", "DISABLE"),
        ("ENABLE postgres", "ENABLE"),
        ("WAIT_CLOSE", "WAIT_CLOSE"),
        ("KILL postgres", "KILL"),
        ("RESUME postgres", "RESUME"),
        ("SHOW POOLS", "SHOW"),
        ("show help", "SHOW"),
    ] {
        for client in [&mut ours, &mut theirs] {
            client.send(&messages::query(sql));
            let answer = client.read_until_ready();
            let done = answer.iter().find(|message| message.tag == b'C').map(Message::text);
            assert_eq!(done.as_deref(), Some(tag), "{sql}: {answer:?}");
        }
    }
    let mut columns = |sql: &str| (shape(&mut ours, sql).is_some(), shape(&mut theirs, sql).is_some());
    for sql in [
        "SHOW client_encoding",
        "SHOW datestyle",
        "SHOW timezone",
        "SHOW standard_conforming_strings",
        "SELECT version",
    ] {
        assert_eq!(columns(sql), (true, true), "{sql}");
    }
}
