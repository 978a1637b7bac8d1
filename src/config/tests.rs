//! The whole way from text to settings: one table of mistakes, one of what is right.

use std::{path::Path, time::Duration};

use super::{Loaded, Mistake, Mistakes, Overrides, Settings, check::check, keys::SECTIONS, value::Outside};
use crate::net::{Address, Crowd, Listen};
use poolhouse_core::{
    auth::{Method, Secret},
    session::{Mode, Route},
    topology::{Balance, Consistency, FailoverMode, Preference, Reads, Role, Transactions},
};

/// What a case that is about something else needs to be whole; follows it, so that its lines keep their numbers.
const CLUSTER: &str = "\n[clusters.main]\nnodes = [\"10.0.0.1\"]\nhealth.user = \"h\"\n";
const DATABASE: &str = "\n[databases.app]\n";
const USER: &str = "\n[users.base]\npassword = \"x\"\n";
/// Made by PostgreSQL 15.
const SCRAM: &str = "SCRAM-SHA-256$4096:wpqejCk8AZk/aoVFdUCE1w==$SiAt5zuiRwaEdvE+CTZ/VIMsYVJeBBbCnqlkj31maec=:ItXrfhj8eHt8NGvJ3F2Q5X3NmO1DVIXqVMO3KuM/Xk8=";

fn variable(name: &str) -> Result<String, String> {
    match name {
        "PASSWORD" => Ok("from env".to_owned()),
        "EMPTY" => Ok(String::new()),
        "DAMAGED" => Ok("SCRAM-SHA-256$4096:".to_owned()),
        _ => Err("is not set".to_owned()),
    }
}

fn read(path: &Path) -> Result<String, String> {
    match path.to_str() {
        Some("/etc/poolhouse/secret") => Ok("from file\n".to_owned()),
        Some("/run/secret") => Ok("two\nlines\r\n".to_owned()),
        Some("/etc/poolhouse/users.txt") => {
            Ok("\"alice\" \"sesame\"\n\"bob\" \"md582b97a2d11135bae28f72b6c023e8b4c\"".to_owned())
        }
        Some("/etc/poolhouse/bad.txt") => Ok("\"alice\" \"sesame\"\nbob\n\n\"carol\"\n".to_owned()),
        _ => Err("cannot be read: No such file".to_owned()),
    }
}

fn outside(work: impl FnOnce(&Outside<'_>) -> Result<Loaded, Mistakes>) -> Result<Loaded, Mistakes> {
    let filter = |text: &str| if text.contains("=loud") { Err("invalid level".to_owned()) } else { Ok(()) };
    work(&Outside { directory: "/etc/poolhouse".into(), variable: &variable, read: &read, filter: &filter, cores: 4 })
}

fn load(text: &str, over: &Overrides) -> Result<Loaded, Mistakes> {
    outside(|outside| check(text, "p.toml", outside, over))
}

/// `line key: fragment of what and mend`; the line is `-` for none, and a source other than the file stands before it.
fn compare(found: &[Mistake], expected: &[&str], context: &str) {
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{context}\n{shown:#?}");
    for (found, expected) in found.iter().zip(expected) {
        let (place, fragment) = expected.split_once(": ").expect("an expectation has a place");
        let line = found.line.map_or("-".to_owned(), |line| line.to_string());
        let source = if found.source == "p.toml" { String::new() } else { format!("{} ", found.source) };
        assert_eq!(format!("{source}{line} {}", found.key).trim_end(), place, "{context}\n{shown:#?}");
        let said = format!("{}; {}", found.what, found.mend);
        assert!(said.contains(fragment), "{context}\n{said}\nlacks\n{fragment}");
        assert!(!said.contains("sesame"), "a secret is shown: {said}");
    }
}

fn check_whole(text: &str, expected: &[&str]) {
    match load(text, &Overrides::default()) {
        Ok(loaded) => compare(&[], expected, &format!("{text}\n{:?}", loaded.warnings)),
        Err(mistakes) => compare(&mistakes.mistakes, expected, text),
    }
}

/// A case that is whole with a cluster, a database and a user, unless it brings its own.
fn wrong(text: &str, expected: &[&str]) {
    check_whole(&whole(text), expected);
}

fn whole(text: &str) -> String {
    let mut text = text.to_owned();
    for (mark, rest) in [("[clusters", CLUSTER), ("[databases", DATABASE), ("[users", USER)] {
        if !text.contains(mark) {
            text.push_str(rest);
        }
    }
    text
}

pub fn right(text: &str) -> Settings {
    load(&whole(text), &Overrides::default()).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}")).settings
}

fn warned(text: &str, expected: &[&str]) {
    let loaded = load(&whole(text), &Overrides::default()).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
    compare(&loaded.warnings, expected, text);
}

#[test]
fn unknown_keys() {
    wrong(
        "[pool]\ncheckout_timout = \"1s\"",
        &["2 pool.checkout_timout: unknown key `checkout_timout` in [pool]; did you mean `checkout_timeout`?"],
    );
    wrong("[poool]\nsize = 1", &["1 poool: unknown section [poool]; did you mean `pool`?"]);
    wrong("listen = []", &["1 listen: unknown key `listen` outside of any section; it belongs to [server]"]);
    wrong("[server]\nzzzzzz = 1", &["2 server.zzzzzz: known are listen, workers, max_clients"]);
    wrong("[server]\nsize = 1", &["2 server.size: unknown key `size` in [server]; it belongs to [pool]"]);
    wrong("[server]\nmax-clients = 1", &["2 server.max-clients: did you mean `max_clients`?"]);
    wrong("[users.a]\npasword = \"sesame\"\npassword = \"x\"", &["2 users.a.pasword: did you mean `password`?"]);
    wrong("[databases.\"*\"]\nusr = \"a\"", &["2 databases.\"*\".usr: did you mean `user`?"]);
    wrong(
        "[databases.app.pool]\nsise = 1",
        &["2 databases.app.pool.sise: in [databases.app.pool]; did you mean `size`?"],
    );
    wrong(
        "[users.base]\npassword = \"x\"\n[users.base.pool]\nmodee = 1",
        &["4 users.base.pool.modee: did you mean `mode`?"],
    );
    wrong("[log]\nlevl = \"info\"", &["2 log.levl: did you mean `level`?"]);
    wrong(
        "[clusters.main]\nnodes = [{ adress = \"a\" }]\nhealt = 1\nhealth.usr = \"u\"",
        &[
            "2 clusters.main.nodes[0].adress: did you mean `address`?",
            "2 clusters.main.nodes[0]: has no address",
            "3 clusters.main.healt: did you mean `health`?",
            "4 clusters.main.health.usr: did you mean `user`?",
        ],
    );
}

#[test]
fn broken_toml() {
    wrong("[pool]\nsize = 1\nsize = 2", &["3 size: is already there, in line 2; keep one of them"]);
    wrong("[pool]\nsize = 1\n[log]\n[pool]\nmin_idle = 1", &["4 pool: is already there, in line 1"]);
    wrong("[pool]\nsize = 1\nsize = 2\nsiz = 2", &["3 size: is already there", "4 pool.siz: unknown key"]);
    wrong("\n[pool\nsize = 1", &["2: not TOML"]);
    // One slip is one mistake.
    wrong(
        "[server]\nlisten = [\"127.0.0.1:1\"\n[pool]\nsize = 1\nmode = \"session\"\n[log]\nlevel = \"info\"",
        &["3: not TOML"],
    );
    wrong("[pool]\nsize = \n[log]\nlevel = \"x", &["2: not TOML"]);
    check_whole("pool:\n  size: 1", &["-: looks like YAML, and configuration files of Poolhouse are TOML"]);
    check_whole("[pgbouncer]\nauth_type = md5", &["-: looks like INI"]);
    wrong("[pool]\nserver_idle_timeout = 600", &["2 pool.server_idle_timeout: here that is [pool] idle_timeout"]);
    wrong("[pool]\nquery_wait_timeout = 1", &["2 pool.query_wait_timeout: here that is [pool] checkout_timeout"]);
    wrong("size 1", &["1: not TOML"]);
    check_whole("\u{0}", &["1: not TOML"]);
}

#[test]
fn wrong_types() {
    wrong(
        "[pool]\nsize = \"20\"",
        &["2 pool.size: is text where a whole number is expected; write a whole number from 1"],
    );
    wrong("[pool]\nsize = 1.5", &["2 pool.size: is a number with a fraction where a whole number is expected"]);
    wrong("[pool]\nmode = 1", &["2 pool.mode: is a number where text is expected; write it in quotes"]);
    wrong(
        "[pool]\nidle_timeout = 30",
        &["2 pool.idle_timeout: is a number where a duration is expected; write it with its unit, like \"30s\""],
    );
    wrong("[pool]\nidle_timeout = true", &["2 pool.idle_timeout: is true or false where a duration is expected"]);
    wrong("[pool]\nidle_timeout = 07:32:00", &["2 pool.idle_timeout: is a date or time where a duration"]);
    wrong("pool = 1", &["1 pool: is a number where a table is expected; write it as a section [pool]"]);
    check_whole("clusters = 1\n[databases.app]", &["1 clusters: is a number where a table is expected"]);
    check_whole(&format!("databases = []\n{CLUSTER}"), &["1 databases: is a list where a table is expected"]);
    wrong(
        "[server]\nlisten = \"127.0.0.1:6432\"",
        &["2 server.listen: is text where a list is expected; write it like listen = [\"127.0.0.1:6432\"]"],
    );
    wrong("[server]\nlisten = [6432]", &["2 server.listen[0]: is a number where text is expected"]);
    wrong(
        "[clusters.main]\nnodes = \"10.0.0.1\"",
        &["2 clusters.main.nodes: is text where a list is expected; write it like nodes = ["],
    );
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\nhealth = \"h\"",
        &["3 clusters.main.health: is text where a table is expected"],
    );
    wrong(
        "[users]\nalice = \"sesame\"",
        &["2 users.alice: is text where a table is expected; write it as a section [users.alice]"],
    );
    wrong("[users.a]\npassword = 1234", &["2 users.a.password: is a number where text is expected"]);
}

#[test]
fn numbers_out_of_range() {
    wrong("[pool]\nsize = 0", &["2 pool.size: 0 is out of range; write a whole number from 1 to 100000"]);
    wrong("[pool]\nsize = -1", &["2 pool.size: -1 is out of range"]);
    wrong("[pool]\nsize = 99999999999999999999999999999999999999999999", &["2 pool.size: out of range"]);
    wrong("[pool]\nmin_idle = -5", &["2 pool.min_idle: -5 is out of range"]);
    wrong("[pool]\nprepared_statements = 100_001", &["2 pool.prepared_statements: 100001 is out of range"]);
    wrong("[server]\nmax_clients = 0", &["2 server.max_clients: 0 is out of range"]);
    wrong("[server]\nmax_logins = 0", &["2 server.max_logins: 0 is out of range"]);
    wrong("[server]\nmax_logins_per_address = 0", &["2 server.max_logins_per_address: 0 is out of range"]);
    wrong("[admin]\nreserved = 1001", &["2 admin.reserved: 1001 is out of range"]);
    let logins = |server: &str| right(&format!("[server]\n{server}")).frontend.logins;
    assert_eq!(logins("max_clients = 7"), Crowd { all: 1_000, per_address: 500 });
    assert_eq!(logins("max_clients = 50_000"), Crowd { all: 50_000, per_address: 25_000 });
    assert_eq!(logins("max_logins = 9"), Crowd { all: 9, per_address: 5 });
    assert_eq!(logins("max_logins_per_address = 3"), Crowd { all: 10_000, per_address: 3 });
    wrong("[server]\nworkers = 2000", &["2 server.workers: from 0 to 1024"]);
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\nmax_connections = 0",
        &["3 clusters.main.max_connections: 0 is out of range"],
    );
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\nhealth.failures = 0",
        &["3 clusters.main.health.failures: 0 is out of range"],
    );
    for weight in ["0", "-1", "0.0", "1000.5", "nan", "inf"] {
        wrong(
            &format!("[clusters.main]\nnodes = [\n\"a\",\n{{ address = \"b\", weight = {weight} }}]"),
            &["4 clusters.main.nodes[1].weight: out of range; write a number greater than 0 and at most 1000"],
        );
    }
    wrong(
        "[clusters.main]\nnodes = [{ address = \"b\", weight = \"1\" }]",
        &["2 clusters.main.nodes[0].weight: is text where a number"],
    );
    wrong("[pool]\nsize = 5\nmin_idle = 6", &["3 pool.min_idle: min_idle 6 is more than size 5"]);
    wrong(
        "[pool]\nmin_idle = 10\n[databases.app.pool]\nsize = 5",
        &["4 databases.app.pool.size: min_idle 10 is more than size 5"],
    );
    wrong(
        "[databases.app.pool]\nsize = 5\n[users.base]\npassword = \"x\"\npool.min_idle = 6",
        &["5 users.base.pool.min_idle: min_idle 6 is more than size 5 in database \"app\""],
    );
}

#[test]
fn bad_durations() {
    wrong(
        "[pool]\nidle_timeout = \"30\"",
        &["2 pool.idle_timeout: \"30\" has no unit; write it with its unit, like \"30s\""],
    );
    wrong(
        "[pool]\nidle_timeout = \"30 sec\"",
        &["2 pool.idle_timeout: \"30 sec\" is not a duration; write it like \"30s\" (units: ms, s, m, h, d)"],
    );
    wrong("[pool]\nidle_timeout = \"-1s\"", &["2 pool.idle_timeout: is not a duration"]);
    wrong("[pool]\nidle_timeout = \"\"", &["2 pool.idle_timeout: is not a duration"]);
    wrong("[pool]\nmax_lifetime = \"366d\"", &["2 pool.max_lifetime: \"366d\" is too long; write at most \"365d\""]);
    wrong(
        "[server]\nlogin_timeout = \"0s\"",
        &["2 server.login_timeout: \"0s\" is too short; write at least \"100ms\""],
    );
    wrong("[server]\nshutdown_timeout = \"2d\"", &["2 server.shutdown_timeout: write at most \"1d\""]);
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\nconnect_timeout = \"0s\"",
        &["3 clusters.main.connect_timeout: is too short"],
    );
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\nhealth.interval = \"0s\"",
        &["3 clusters.main.health.interval: is too short"],
    );
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\nhealth.timeout = \"2h\"",
        &["3 clusters.main.health.timeout: write at most \"1h\""],
    );
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\nfailover.hold = \"forever\"",
        &["3 clusters.main.failover.hold: is not a duration"],
    );
}

#[test]
fn bad_choices() {
    wrong(
        "[pool]\nmode = \"transacton\"",
        &[
            "2 pool.mode: unknown value \"transacton\"; did you mean \"transaction\"? (session | transaction | statement)",
        ],
    );
    wrong("[pool]\nmode = \"fast\"", &["2 pool.mode: write session | transaction | statement"]);
    wrong("[auth]\nmethod = \"scram\"", &["2 auth.method: unknown value \"scram\"; write scram-sha-256 | md5 | trust"]);
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\nfailover.mode = \"auto\"",
        &["3 clusters.main.failover.mode: write off | follow | promote"],
    );
    wrong(
        "[clusters.main]\nnodes = [{ address = \"a\", role = \"master\" }]",
        &["2 clusters.main.nodes[0].role: write primary | replica"],
    );
    wrong(
        "[databases.app.routing]\nreads = \"replicas\"",
        &["2 databases.app.routing.reads: did you mean \"replica\"?"],
    );
    wrong(
        "[databases.app.routing]\nconsistency = \"strong\"",
        &["2 databases.app.routing.consistency: write eventual | session"],
    );
    wrong(
        "[databases.app.routing]\nread_functions = [\"app.f\", \"/(/\", \"now\", 1]",
        &[
            "2 databases.app.routing.read_functions[0]: write its name without the schema",
            "2 databases.app.routing.read_functions[1]: write it like [\"name\", \"/^regular_expression/\"]",
            "2 databases.app.routing.read_functions[2]: remove it: what these do is known",
            "2 databases.app.routing.read_functions[3]: write it in quotes",
        ],
    );
    wrong(
        "[databases.app.routing]\ntransactions = \"read-until-writes\"",
        &["2 databases.app.routing.transactions: did you mean \"read-until-write\"?"],
    );
    wrong("[log]\nformat = \"xml\"", &["2 log.format: write text | json"]);
    wrong("[log]\nlevel = \"inof\"", &["2 log.level: unknown level \"inof\"; did you mean \"info\"?"]);
    wrong("[log]\nlevel = \"info,poolhouse\"", &["2 log.level: unknown level \"poolhouse\"; write off"]);
    wrong("[log]\nlevel = \"poolhouse=loud\"", &["2 log.level: is no log filter: invalid level"]);
    wrong("[log]\nlevel = \"\"", &["2 log.level: is empty"]);
}

#[test]
fn bad_addresses() {
    wrong("[server]\nlisten = []", &["2 server.listen: names no address"]);
    wrong("[server]\nlisten = [\"\"]", &["2 server.listen[0]: is empty"]);
    wrong(
        "[server]\nlisten = [\n\"127.0.0.1:1\",\n\"*:6432\",\n\"db:1\"]",
        &["4 server.listen[1]: write \"0.0.0.0:6432\"", "5 server.listen[2]: is a host name"],
    );
    wrong("[server]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", &["2 server.listen[1]: is already in the list"]);
    wrong("[clusters.main]\nnodes = []", &["2 clusters.main.nodes: names no node"]);
    wrong("[clusters.main]\n", &["1 clusters.main: has no nodes; write it like nodes = [\"10.0.0.1:5432\"]"]);
    wrong("[clusters.main]\nnodes = [\"a:99999\"]", &["2 clusters.main.nodes[0]: \"a:99999\" has no valid port"]);
    wrong("[clusters.main]\nnodes = [\"::1:5432\"]", &["2 clusters.main.nodes[0]: write IPv6 addresses in brackets"]);
    wrong(
        "[clusters.main]\nnodes = [\"postgres://u:sesame@a\"]",
        &["2 clusters.main.nodes[0]: is a URL where an address"],
    );
    wrong(
        "[clusters.main]\nnodes = [\"/run/postgresql\"]",
        &["2 clusters.main.nodes[0]: write \"unix:/run/postgresql\""],
    );
    wrong(
        "[clusters.main]\nnodes = [\"a\", \"b\", \"a:5432\"]",
        &["2 clusters.main.nodes[2]: a:5432 is already in the list"],
    );
    wrong(
        "[clusters.main]\nnodes = [{ weight = 1 }]",
        &["2 clusters.main.nodes[0]: has no address; write it like { address ="],
    );
    wrong("[clusters.main]\nnodes = [5432]", &["2 clusters.main.nodes[0]: is a number where text is expected"]);
    wrong(
        "[clusters.main]\nnodes = [\"127.0.0.1:6432\"]",
        &["2 clusters.main.nodes: 127.0.0.1:6432 is where Poolhouse itself listens"],
    );
    let many: Vec<String> = (0..101).map(|index| format!("\"n{index}\"")).collect();
    wrong(
        &format!("[clusters.main]\nnodes = [{}]", many.join(",")),
        &["2 clusters.main.nodes: names 101 nodes; name at most 100"],
    );
}

#[test]
fn dangling_references() {
    check_whole("", &["- clusters: there is no cluster", "- databases: there is no database"]);
    check_whole(USER, &["- clusters: add [clusters.main]", "- databases: add [databases.\"*\"]"]);
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\n[databases.app]\ncluster = \"mian\"",
        &["4 databases.app.cluster: there is no cluster \"mian\"; did you mean \"main\"?"],
    );
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\n[databases.app]\ncluster = \"other\"",
        &["4 databases.app.cluster: known are main"],
    );
    check_whole(
        "[databases.app]\ncluster = \"main\"",
        &["- clusters: there is no cluster", "2 databases.app.cluster: add [clusters.main]"],
    );
    wrong(
        "[clusters.b]\nnodes = [\"b\"]\n[clusters.a]\nnodes = [\"a\"]\n[databases.app]",
        &["5 databases.app: does not say which cluster it is in; add `cluster`, one of b, a"],
    );
    wrong("[databases.poolhouse]", &["1 databases.poolhouse: the name \"poolhouse\" is kept for the console"]);
    wrong("[databases.pgbouncer]", &["1 databases.pgbouncer: is kept for the console"]);
    wrong(
        "[databases.app]\npassword = \"sesame\"",
        &["2 databases.app.password: is a password without a user; add `user`"],
    );
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\nhealth.password = \"sesame\"",
        &["3 clusters.main.health.password: is a password without a user"],
    );
    wrong("[users.alice]", &["1 users.alice: user \"alice\" has no password, so nobody can log in as it"]);
    wrong("[users.alice.pool]\nsize = 1", &["1 users.alice: add `password` here, or the user to users_file"]);
    wrong("[users.\"\"]\npassword = \"x\"", &["1 users.\"\": is a user without a name"]);
    wrong("[users.\"*\"]\npassword = \"x\"", &["2 users.\"*\".password: would be the password of every user"]);
    assert!(right("[users.\"*\".pool]\nsize = 1\n[users.a]\npassword = \"x\"").auth.users.keys().eq(["a"]));
    wrong("[databases.app]\ndatabase = \"\"", &["2 databases.app.database: is empty"]);
    wrong("[databases.app]\ndatabase = \"a\\u0000b\"", &["2 databases.app.database: holds a NUL byte"]);
}

#[test]
fn secrets_and_files() {
    wrong(
        "[users.a]\npassword = \"env:NOPE\"",
        &["2 users.a.password: the environment variable `NOPE` is not set; set it"],
    );
    wrong("[users.a]\npassword = \"env:EMPTY\"", &["2 users.a.password: the secret is empty"]);
    wrong("[users.a]\npassword = \"env:DAMAGED\"", &["2 users.a.password: was it cut short?"]);
    wrong(
        "[users.a]\npassword = \"file:nope\"",
        &["2 users.a.password: the file /etc/poolhouse/nope cannot be read: No such file"],
    );
    wrong("[users.a]\npassword = \"SCRAM-SHA-256$sesame\"", &["2 users.a.password: was it cut short?"]);
    wrong(
        &format!("[databases.app]\nuser = \"a\"\npassword = \"{SCRAM}\""),
        &["3 databases.app.password: cannot log in to a server"],
    );
    wrong("[auth]\nusers_file = \"nope.txt\"", &["2 auth.users_file: the file /etc/poolhouse/nope.txt cannot be read"]);
    wrong(
        "[auth]\nusers_file = \"bad.txt\"",
        &[
            "/etc/poolhouse/bad.txt 2: does not begin with a user name",
            "/etc/poolhouse/bad.txt 4: the user name is not followed by a secret",
        ],
    );
}

#[test]
fn operators() {
    let text = "[auth]\nmethod = \"trust\"\n[admin]\nusers = [\"a\"]\nstats_users = [\"b\", \"c\"]\n";
    let settings = right(&format!("{text}pgbouncer_version = \"1.25.0\""));
    assert_eq!((settings.admin.users, settings.admin.stats_users.len()), (vec!["a".to_owned()], 2));
    assert_eq!(settings.admin.pgbouncer_version.as_deref(), Some("1.25.0"));
    let none = right("").admin;
    assert_eq!((none.users.len(), none.stats_users.len(), none.pgbouncer_version), (0, 0, None));
    wrong(
        "[admin]\nusers = \"a\"\nstats_users = [1]\npgbouncer_version = \"1\"",
        &[
            "2 admin.users: is text where a list is expected; write it like users = [\"alice\"]",
            "3 admin.stats_users[0]: is a number where text is expected",
            "4 admin.pgbouncer_version: \"1\" is no version; write it like \"1.25.0\"",
        ],
    );
    for version in ["", "1.", "a.b", "1.2.3.4", "PgBouncer 1.25"] {
        wrong(&format!("[admin]\npgbouncer_version = \"{version}\""), &["2 admin.pgbouncer_version: "]);
    }
}

#[test]
fn http_for_monitoring() {
    let http = |text: &str| right(text).admin.http;
    let default = http("").unwrap();
    assert_eq!(
        (default.address.to_string().as_str(), default.by_default, default.token),
        ("127.0.0.1:6433", true, None)
    );
    assert_eq!(http("[admin]\nhttp = \"\""), None);
    let chosen = http("[admin]\nhttp = \"localhost:7\"\ntoken = \"sesame\"").unwrap();
    assert_eq!((chosen.address.to_string().as_str(), chosen.by_default), ("127.0.0.1:7", false));
    assert_eq!(chosen.token, Some(Secret::Plain("sesame".into())));
    assert!(!format!("{chosen:?}").contains("sesame"));
    assert!(http("[admin]\nhttp = \"[::1]:7\"").is_some());
    assert!(http("[admin]\nhttp = \"0.0.0.0:7\"\ntoken = \"sesame\"").is_some());
    wrong(
        "[admin]\nhttp = \"6433\"",
        &["2 admin.http: \"6433\" is no address with a port; write it like \"127.0.0.1:6433\""],
    );
    wrong("[admin]\nhttp = 6433", &["2 admin.http: is a number where text is expected"]);
    wrong("[admin]\nhttp = \"0.0.0.0:7\"", &["2 admin.http: add admin.token, or listen on loopback only"]);
    wrong(
        "[admin]\ntoken = \"md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
        &["2 admin.token: is a hash, which nobody can show; give the token itself"],
    );
}

#[test]
fn what_is_not_available_yet_is_refused() {
    let disabled = right(
        "[tls]\nmode = \"disable\"\n[clusters.main]\nnodes = [\"a\"]\ntls.mode = \"disable\"\n[admin]\n[coordination]",
    );
    assert_eq!(disabled.clusters.len(), 1);
    wrong("[tls]\nmode = \"verify-full\"", &["2 tls.mode: \"verify-full\" is not available yet; write \"verify-ca\""]);
    wrong("[tls]\nmode = \"prefered\"", &["2 tls.mode: unknown value \"prefered\"; "]);
    wrong("[tls]\nmode = \"require\"", &["1 tls: `certificate` is missing, and the mode asks for TLS"]);
    wrong("[tls]\ncertificate = \"/nowhere\"", &["1 tls: `private_key` is not there for each certificate"]);
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\n[clusters.main.tls]\nmode = \"verify-full\"",
        &["3 clusters.main.tls: `ca` is missing, and the mode asks for a certificate of an authority"],
    );
    wrong("[auth]\nmethod = \"cert\"", &["2 auth.method: \"cert\" is not available yet; write \"scram-sha-256\""]);
    wrong(
        "[auth]\nmethod = \"hba\"\nhba_file = \"x\"",
        &["2 auth.method: not available yet", "3 auth.hba_file: not available yet"],
    );
    wrong(
        "[auth]\nquery = \"SELECT\"\nquery_password = \"x\"\nquery_lifetime = \"2m\"",
        &[
            "2 auth.query: has no $1, in whose place the user's name is put",
            "2 auth.query: is of no use without auth.query_user; add query_user beside it",
            "3 auth.query_password: is of no use without auth.query_user",
            "4 auth.query_lifetime: is of no use without auth.query_user",
        ],
    );
    wrong(
        "[auth]\nmethod = \"trust\"\nquery_user = \"\"\nquery_database = \"\"",
        &[
            "3 auth.query_user: is empty",
            "3 auth.query_user: nobody is looked up as long as everybody is let in without a password",
            "4 auth.query_database: is empty",
        ],
    );
    wrong(
        "[databases.app.routing]\nmax_lag = [\"1s\", \"5m\"]\n[clusters.main]\nnodes = [\"a\"]\nrouting.max_lag = \"1mb\"",
        &[
            "2 databases.app.routing.max_lag[1]: is a second limit of its kind; keep one of them",
            "5 clusters.main.routing.max_lag: \"1mb\" is no size; write it like \"64MB\"",
        ],
    );
    let lag = |value: &str| {
        let routing = &right(&format!("[databases.app.routing]\nmax_lag = {value}")).databases["app"].routing;
        (routing.max_lag.map(|lag| lag.as_secs()), routing.max_lag_bytes)
    };
    assert_eq!(lag("\"5s\""), (Some(5), None));
    assert_eq!(lag("\"64MB\""), (None, Some(64 << 20)));
    assert_eq!(lag("[\"5s\", \"1_000kB\"]"), (Some(5), Some(1_000 << 10)));
    assert_eq!(lag("\"0s\""), (None, None));
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\nfailover.patroni = []",
        &["3 clusters.main.failover.patroni: not available yet; remove it: mode = \"follow\""],
    );
    wrong(
        "[coordination]\netcd = []\nnamespace = \"a\"\nnode = \"b\"",
        &["2 coordination.etcd: not", "3 coordination.namespace: not", "4 coordination.node: not"],
    );
}

#[test]
fn all_mistakes_come_at_once_in_the_order_of_the_lines() {
    check_whole(
        "[databases.app]\ncluster = \"mian\"\npool.size = 0\n\n[users.a]\npassword = \"env:NOPE\"\n\n[server]\nlisten = [\"x:y\"]\n\
         max_client = 5\n\n[clusters.main]\nnodes = [\"a:b\", \"c\"]\nhealth.interval = 5\n\n[log]\nlevel = 3\nsize = 2\nsize = 3\n",
        &[
            "2 databases.app.cluster: did you mean \"main\"?",
            "3 databases.app.pool.size: out of range",
            "6 users.a.password: is not set",
            "9 server.listen[0]: no valid port",
            "10 server.max_client: did you mean `max_clients`?",
            "13 clusters.main.nodes[0]: no valid port",
            "14 clusters.main.health.interval: like \"5s\"",
            "17 log.level: is a number where text",
            "18 log.size: it belongs to [pool]",
            "19 size: is already there",
        ],
    );
}

#[test]
fn a_mistake_is_said_in_one_line() {
    let mistakes = load(&whole("[pool]\nsize = 0\nmin_idle = -1"), &Overrides::default()).unwrap_err();
    assert_eq!(
        mistakes.to_string(),
        "p.toml:2: pool.size: 0 is out of range; write a whole number from 1 to 100000\n\
         p.toml:3: pool.min_idle: -1 is out of range; write a whole number from 0 to 100000"
    );
}

#[test]
fn oddities_are_warned_of() {
    warned("", &[]);
    warned("[pool]\nsize = 100", &["2 pool.size: pool size 100 is more than max_connections 90 of cluster main"]);
    warned(
        "[databases.app.pool]\nsize = 100\n[databases.b]",
        &["2 databases.app.pool.size: more than max_connections 90"],
    );
    warned(
        "[clusters.main]\nnodes = [\"a\"]\nmax_connections = 5\nhealth.user = \"h\"",
        &["3 clusters.main.max_connections: pool size 20 is more"],
    );
    warned(
        "[clusters.main]\nnodes = [\"a\"]",
        &[
            "1 clusters.main: no health user: checks log in as \"postgres\" without a password; name one under [clusters.main.health]",
        ],
    );
    warned(
        "[clusters.main]\nnodes = [\"a\"]\nfailover.mode = \"promote\"\nhealth.user = \"h\"",
        &["3 clusters.main.failover.mode: there is no replica to promote"],
    );
    warned("[auth]\nmethod = \"trust\"", &[]);
    warned(
        "[server]\nlisten = [\"0.0.0.0:6432\"]\n[auth]\nmethod = \"trust\"",
        &["3 auth: everyone who reaches 0.0.0.0:6432 is let in without a password"],
    );
    warned("[users]", &["- users: there is no user, so nobody can log in"]);
    warned(
        "[auth]\nusers_file = \"users.txt\"\n[users.alice]\npassword = \"x\"",
        &[
            "- users: user \"bob\" has an md5 hash",
            "4 users.alice.password: is in users_file as well; this password counts",
        ],
    );
}

#[test]
fn defaults() {
    let settings = right("");
    assert_eq!(settings.listen, [Listen::Tcp("127.0.0.1:6432".parse().unwrap())]);
    assert_eq!(settings.workers, 4);
    assert_eq!(settings.frontend.max_clients, 10_000);
    assert_eq!(settings.frontend.login_timeout, Duration::from_secs(15));
    assert_eq!(settings.frontend.logins, Crowd { all: 10_000, per_address: 5_000 });
    assert_eq!(settings.frontend.shutdown_timeout, Duration::from_secs(60));
    assert_eq!(settings.auth.method, Method::ScramSha256);
    assert_eq!((settings.log.level.as_str(), settings.user_pools.len()), ("info", 1));
    let database = &settings.databases["app"];
    assert_eq!((&database.database, &database.login, database.cluster), (&None, &None, 0));
    assert_eq!((&database.pool, &database.session), (&Default::default(), &Default::default()));
    assert_eq!(database.routing, Default::default());
    let cluster = &settings.clusters[0];
    assert_eq!((cluster.name.as_str(), cluster.max_connections), ("main", 90));
    assert_eq!(cluster.addresses, [Address::Tcp { host: "10.0.0.1".into(), port: 5432 }]);
    assert_eq!((cluster.hold, cluster.connect_timeout), (Duration::from_secs(30), Duration::from_secs(5)));
    assert_eq!((cluster.health.interval, cluster.health.timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    assert_eq!((cluster.topology.failures, cluster.topology.failover), (3, FailoverMode::Follow));
    assert_eq!((cluster.topology.nodes[0].weight, cluster.topology.nodes[0].role), (1.0, None));
}

#[test]
fn zones_and_fallback() {
    let nodes = "nodes = [\"a\", { address = \"b\", zone = \"x\" }, { address = \"c\", zone = \"y\" }]";
    let near = |server: &str| -> Vec<bool> {
        let settings = right(&format!("{server}\n[clusters.main]\n{nodes}"));
        settings.clusters[0].topology.nodes.iter().map(|node| node.near).collect()
    };
    assert_eq!(near("[server]\nzone = \"y\""), [false, false, true]);
    assert_eq!(near(""), [true, true, true]);
    wrong("[server]\nzone = 1", &["2 server.zone: is a number where text is expected"]);
    let settings = right(
        "[clusters.main]\nnodes = [\"a\"]\nrouting = { fallback = false }\n\
         [databases.app]\n[databases.app.routing]\nfallback = true\n[databases.\"*\"]",
    );
    assert!(settings.databases["app"].routing.fallback && !settings.databases["*"].routing.fallback);
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\nrouting = { fallback = \"yes\" }",
        &["3 clusters.main.routing.fallback: is text where true or false is expected"],
    );
}

#[test]
fn listeners_with_a_route() {
    let settings = right(
        "[[listener]]\naddress = \"127.0.0.1:6434\"\nroute = \"replica\"\n\
         [[listener]]\naddress = \"unix:/run/x:7\"\nroute = \"primary\"",
    );
    let routes: Vec<_> = settings.listeners.iter().map(|listener| listener.route).collect();
    assert_eq!(routes, [Route::Replica, Route::Primary]);
    assert_eq!(settings.listeners[0].address, Listen::Tcp("127.0.0.1:6434".parse().unwrap()));
    assert_eq!(settings.listen.len(), 1);
    wrong(
        "[[listener]]\naddress = \"127.0.0.1:6432\"\nroute = \"replica\"\n[[listener]]\nroute = \"standby\"\nport = 1",
        &[
            "2 listener[0].address: choose another address",
            "4 listener[1]: has no address",
            "5 listener[1].route: write replica | primary | auto",
            "6 listener[1].port: known are address, route",
        ],
    );
    wrong("[listener]\naddress = \"127.0.0.1:1\"", &["1 listener: is a table where a list is expected"]);
    wrong(
        "[[listener]]\naddress = \"127.0.0.1:5432\"\nroute = \"replica\"\n[clusters.main]\nnodes = [\"127.0.0.1:5432\"]",
        &["5 clusters.main.nodes: 127.0.0.1:5432 is where Poolhouse itself listens"],
    );
}

#[test]
fn rules_for_sessions() {
    let settings = right(
        "[clusters.main]\nnodes = [\"a\", { address = \"b\", weight = 3 }]\n\
         [[clusters.main.routing.rules]]\nuser = \"/^report/\"\nroute = \"replica\"\n\
         [[clusters.main.routing.rules]]\ndatabase = \"app\"\napplication_name = \"cron\"\nweights = { \"a:5432\" = 0 }\n\
         [databases.app]\n[databases.other.routing]\nrules = []",
    );
    let rules = &settings.databases["app"].routing.rules;
    assert_eq!((rules.len(), rules[0].route, rules[0].weights.as_deref()), (2, Some(Preference::Replica), None));
    assert_eq!((rules[1].route, rules[1].weights.as_deref()), (None, Some(&[0.0, 3.0][..])));
    assert!(settings.databases["other"].routing.rules.is_empty());
    wrong(
        "[clusters.main]\nnodes = [\"a\"]\n[[clusters.main.routing.rules]]\nroute = \"replica\"\n\
         [[clusters.main.routing.rules]]\nuser = \"/(/\"\n\
         [[clusters.main.routing.rules]]\nuser = \"u\"\nroute = \"reader\"\nweights = { b = 1, \"a:5432\" = -1 }",
        &[
            "3 clusters.main.routing.rules[0]: add `user`, `database` or `application_name`",
            "5 clusters.main.routing.rules[1]: add `route` or `weights`",
            "6 clusters.main.routing.rules[1].user: write a name, or a regular expression between slashes",
            "9 clusters.main.routing.rules[2].route: write auto | primary | replica",
            "10 clusters.main.routing.rules[2].weights.b: known are a:5432",
            "10 clusters.main.routing.rules[2].weights.\"a:5432\": write a number from 0 to",
        ],
    );
}

#[test]
fn pools_and_routing_go_over_those_above_them() {
    let settings = right(
        "[pool]\nmode = \"session\"\nsize = 7\nidle_timeout = \"0s\"\nprepared_statements = 0\n\
         [clusters.main]\nnodes = [\"a\"]\nrouting = { reads = \"any\", balance = \"random\", max_lag = \"0s\", transactions = \"read-until-write\" }\n\
         [databases.app]\n[databases.app.pool]\nsize = 9\ncheckout_timeout = \"1_500ms\"\nquery_timeout = \"1d\"\n\
         [databases.app.routing]\nbalance = \"round-robin\"\nconsistency = \"global\"\ncausal_wait = \"2s\"\ntransactions = \"primary\"\n\
         [databases.\"*\"]\n\
         [users.a]\npassword = \"x\"\n[users.a.pool]\nmode = \"statement\"\nmax_lifetime = \"0s\"\nsize = 2",
    );
    let app = &settings.databases["app"];
    assert_eq!((app.pool.size, app.pool.idle_timeout, app.pool.min_idle), (9, None, 0));
    assert_eq!(app.pool.checkout_timeout, Some(Duration::from_millis(1500)));
    assert_eq!((app.session.mode, app.session.prepared_statements), (Mode::Session, 0));
    assert_eq!(app.session.query_timeout, Some(Duration::from_secs(86_400)));
    assert_eq!((app.routing.reads, app.routing.balance, app.routing.max_lag), (Reads::Any, Balance::RoundRobin, None));
    assert_eq!(app.routing.consistency, Consistency::Global);
    assert_eq!(app.routing.causal_wait, Duration::from_secs(2));
    let transactions = |name: &str| settings.databases[name].routing.transactions;
    assert_eq!((transactions("app"), transactions("*")), (Transactions::Primary, Transactions::ReadUntilWrite));
    let any = &settings.databases["*"];
    assert_eq!(
        (any.pool.size, any.routing.balance, any.routing.consistency),
        (7, Balance::Random, Consistency::Session)
    );
    let user = &settings.user_pools["a"];
    let said: Vec<_> = user.shown().collect();
    assert_eq!(said, [("mode", "statement".to_owned()), ("size", "2".to_owned()), ("max_lifetime", "0s".to_owned())]);
    assert_eq!((user.mode().as_deref(), user.size()), (Some("statement"), Some(2)));
    let mut pooling = super::Pooling { lending: any.pool.clone(), session: any.session.clone() };
    user.apply(&mut pooling);
    assert_eq!((pooling.lending.size, pooling.lending.max_lifetime, pooling.session.mode), (2, None, Mode::Statement));
    assert_eq!((pooling.lending.idle_timeout, pooling.session.prepared_statements), (None, 0));
}

#[test]
fn nodes_as_tables() {
    let settings = right(
        "[clusters.main]\nnodes = [\"a\", { address = \"[::1]:5433\", weight = 2.5, role = \"primary\" },\n\
         { address = \"unix:/run\", weight = 3, role = \"replica\" }]",
    );
    let nodes: Vec<_> =
        settings.clusters[0].topology.nodes.iter().map(|n| (n.name.as_str(), n.weight, n.role)).collect();
    let expected =
        [("a:5432", 1.0, None), ("[::1]:5433", 2.5, Some(Role::Primary)), ("unix:/run:5432", 3.0, Some(Role::Replica))];
    assert_eq!(nodes, expected);
}

#[test]
fn secrets_come_from_where_they_say() {
    let settings = right(&format!(
        "[auth]\nusers_file = \"users.txt\"\n[users.a]\npassword = \"env:PASSWORD\"\n[users.b]\npassword = \"file:secret\"\n\
         [users.c]\npassword = \"file:/run/secret\"\n[users.d]\npassword = \"{SCRAM}\"\n[users.e]\npassword = \"plain\"\n\
         [users.bob.pool]\nsize = 1"
    ));
    let plain = |text: &str| Some(Secret::Plain(text.to_owned()));
    let user = |name: &str| settings.auth.users.get(name).cloned();
    assert_eq!((user("a"), user("b"), user("c")), (plain("from env"), plain("from file"), plain("two\nlines")));
    assert_eq!((user("d"), user("e")), (Some(Secret::Scram(SCRAM.to_owned())), plain("plain")));
    assert_eq!(user("alice"), plain("sesame"));
    assert!(matches!(user("bob"), Some(Secret::Md5(_))));
}

#[test]
fn the_health_user_is_borrowed_from_the_first_database_with_one() {
    let health = |text: &str| {
        let health = right(text).clusters[0].health.clone();
        (health.user, health.password, health.database)
    };
    let plain = |text: &str| Some(Secret::Plain(text.to_owned()));
    let nodes = "[clusters.main]\nnodes = [\"a\"]\n";
    let login = |name: &str| format!("[databases.{name}]\nuser = \"{name}\"\npassword = \"{name}\"\n");
    assert_eq!(health(nodes), ("postgres".into(), None, "postgres".into()));
    let second = format!("{nodes}[databases.z]\n{}database = \"on_server\"\n{}", login("y"), login("x"));
    assert_eq!(health(&second), ("y".into(), plain("y"), "on_server".into()));
    assert_eq!(health(&format!("{nodes}{}", login("x"))), ("x".into(), plain("x"), "x".into()));
    let any = format!("{nodes}[databases.\"*\"]\nuser = \"u\"");
    assert_eq!(health(&any), ("u".into(), None, "postgres".into()));
    let named = format!("{nodes}health = {{ user = \"h\", password = \"p\", database = \"d\" }}\n{}", login("x"));
    assert_eq!(health(&named), ("h".into(), plain("p"), "d".into()));
    let half = format!("{nodes}health = {{ database = \"d\" }}\n{}", login("x"));
    assert_eq!(health(&half), ("x".into(), plain("x"), "d".into()));
}

#[test]
fn the_command_line_goes_over_the_file() {
    let over = |listen: &[&str], workers| Overrides {
        listen: listen.iter().map(|l| l.to_string()).collect(),
        workers,
        ..Overrides::default()
    };
    let text = whole("[server]\nlisten = [\"127.0.0.1:1\"]\nworkers = 3");
    let listen = |over: &Overrides| load(&text, over).unwrap().settings;
    assert_eq!(listen(&over(&[], None)).workers, 3);
    assert_eq!(listen(&over(&[], Some(0))).workers, 4);
    let settings = listen(&over(&["[::1]:7000", "unix:/run"], Some(2)));
    let shown: Vec<_> = settings.listen.iter().map(ToString::to_string).collect();
    assert_eq!((shown, settings.workers), (vec!["[::1]:7000".to_owned(), "unix:/run/.s.PGSQL.7000".to_owned()], 2));
    let mistakes = load(&text, &over(&["nowhere:1"], None)).unwrap_err();
    compare(&mistakes.mistakes, &["--listen -: is a host name"], "--listen");
}

#[test]
fn flags_say_where_http_is_served() {
    let over = |http: Option<&str>, token: Option<&str>| Overrides {
        http: http.map(str::to_owned),
        token: token.map(str::to_owned),
        ..Overrides::default()
    };
    let text = whole("[admin]\nhttp = \"127.0.0.1:1\"\ntoken = \"a\"");
    let both = |over: &Overrides| {
        let upstream = outside(|outside| super::upstream::settings("postgres://u:p@h/d", "--upstream", outside, over));
        let loaded = [load(&text, over).unwrap(), upstream.unwrap()];
        loaded.map(|loaded| loaded.settings.admin.http.map(|http| (http.address.to_string(), http.token.is_some())))
    };
    let at = |address: &str, token| Some((address.to_owned(), token));
    assert_eq!(both(&over(None, None)), [at("127.0.0.1:1", true), at("127.0.0.1:6433", false)]);
    assert_eq!(both(&over(Some(""), None)), [None, None]);
    let open = both(&over(Some("0.0.0.0:7"), Some("sesame")));
    assert_eq!(open, [at("0.0.0.0:7", true), at("0.0.0.0:7", true)]);
    let bare = |over: &Overrides| outside(|o| super::upstream::settings("postgres://u:p@h/d", "--upstream", o, over));
    let mistakes = bare(&over(Some("0.0.0.0:7"), None)).unwrap_err().mistakes;
    compare(
        &mistakes,
        &[
            "--upstream - --http: is asked for a token, and there is none; add admin.token, or listen on loopback only; without a file: --token",
        ],
        "",
    );
    let mistakes = bare(&over(Some("x"), Some("md55f4dcc3b5aa765d61d8327deb882cf99"))).unwrap_err().mistakes;
    compare(&mistakes, &["--upstream - --token: is a hash", "--upstream - --http: is no address"], "");
}

fn upstream(text: &str, listen: &[&str]) -> Result<Loaded, Mistakes> {
    let listen = listen.iter().map(|l| l.to_string()).collect();
    let over = Overrides { listen, workers: Some(1), ..Overrides::default() };
    outside(|outside| super::upstream::settings(text, "--upstream", outside, &over))
}

#[test]
fn upstreams_that_are_right() {
    let check = |text: &str, addresses: &[&str], user: &str, password: Option<&str>, database: &str| {
        let Loaded { settings, warnings, .. } =
            upstream(text, &[]).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
        let cluster = &settings.clusters[0];
        let shown: Vec<_> = cluster.addresses.iter().map(ToString::to_string).collect();
        let names: Vec<_> = cluster.topology.nodes.iter().map(|node| node.name.clone()).collect();
        assert_eq!(
            (shown.iter().map(String::as_str).collect::<Vec<_>>(), names),
            (addresses.to_vec(), shown.clone()),
            "{text}"
        );
        let secret = password.map(|password| Secret::Plain(password.to_owned()));
        let login = settings.databases[database].login.as_ref().expect("the login is fixed");
        assert_eq!((login.user.as_str(), &login.password), (user, &secret), "{text}");
        assert_eq!(settings.auth.users.get(user).cloned(), secret, "{text}");
        let method = if password.is_some() { Method::ScramSha256 } else { Method::Trust };
        assert_eq!((settings.auth.method, warnings.len()), (method, usize::from(password.is_none())), "{text}");
        let health = &cluster.health;
        assert_eq!(
            (health.user.as_str(), &health.password, health.database.as_str()),
            (user, &secret, database),
            "{text}"
        );
    };
    let app = ["10.0.0.100:5432"];
    check("postgres://app:secret@10.0.0.100/app", &app, "app", Some("secret"), "app");
    check("postgresql://app:secret@10.0.0.100", &app, "app", Some("secret"), "app");
    check("postgres://app@10.0.0.100/other", &app, "app", None, "other");
    check("postgres://app:@10.0.0.100/app", &app, "app", None, "app");
    check("postgres://a%20b:p%40%3A@h/d%2Fe", &["h:5432"], "a b", Some("p@:"), "d/e");
    check("postgres://u:md5@h,h2:5433,[::1]/d", &["h:5432", "h2:5433", "[::1]:5432"], "u", Some("md5"), "d");
    check("postgres://u@h1,h2/d?port=6000", &["h1:6000", "h2:6000"], "u", None, "d");
    check("postgres://u@h1:1,h2:2/d", &["h1:1", "h2:2"], "u", None, "d");
    check("postgres://u@/d?host=/run/postgresql&port=5433", &["unix:/run/postgresql:5433"], "u", None, "d");
    check("postgres://u@%2Frun%2Fpg/d", &["unix:/run/pg:5432"], "u", None, "d");
    check("postgres:///?host=h&user=u&password=p&dbname=d", &["h:5432"], "u", Some("p"), "d");
    check(
        "host=a,b port=5432 user=u password='it''s' dbname=d".replace("''", "\\'").as_str(),
        &["a:5432", "b:5432"],
        "u",
        Some("it's"),
        "d",
    );
    check("host=db.example.com hostaddr=10.0.0.9 user=u", &["10.0.0.9:5432"], "u", None, "u");
    check("host=::1 user=u sslmode=prefer gssencmode=disable channel_binding=prefer", &["[::1]:5432"], "u", None, "u");
    check("host=a user=u target_session_attrs=read-write load_balance_hosts=disable", &["a:5432"], "u", None, "u");
    let settings = upstream("postgres://u:SCRAM-SHA-256$x@h/d?connect_timeout=3", &["0.0.0.0:1"]).unwrap().settings;
    assert_eq!(settings.clusters[0].connect_timeout, Duration::from_secs(3));
    assert_eq!(settings.auth.users["u"], Secret::Plain("SCRAM-SHA-256$x".into()));
    assert_eq!((settings.workers, settings.listen.len()), (1, 1));
}

/// What is said of a connection string that is right: notes, and then warnings.
fn said(text: &str) -> Vec<String> {
    let Loaded { notes, warnings, .. } = upstream(text, &[]).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
    notes.iter().chain(&warnings).map(ToString::to_string).collect()
}

#[test]
fn applications_may_give_their_own_urls() {
    let client = "for the application's own driver or pool, ignored here";
    let check = |url: &str, names: &str| {
        let note = format!("--upstream: {names}: {client}");
        assert_eq!(said(&format!("{url}://u:p@h/d")), Vec::<String>::new(), "{url}");
        let query: Vec<_> = names.split(", ").map(|name| format!("{name}=1")).collect();
        assert_eq!(said(&format!("{url}://u:p@h/d?{}", query.join("&"))), [note], "{names}");
    };
    check("postgresql", "schema, connection_limit, pgbouncer, pool_timeout, socket_timeout, statement_cache_size");
    check("postgis", "pool, prepared_statements, reaping_frequency, checkout_timeout, encoding, adapter");
    check("postgresql+asyncpg", "prepared_statement_cache_size, command_timeout, client_encoding");
    check("postgresql+psycopg2", "conn_max_age, load_balance_hosts, max_protocol_version");
    check("jdbc:postgresql", "prepareThreshold, reWriteBatchedInserts, tcpKeepAlive, stringtype, loginTimeout");
    check("postgres", "pool_max_conns, binary_parameters, x-migrations-table, serverVersion");
    let both = said("postgres://u:p@h/d?sslmode=prefer&sslrootcert=x&schema=s&ssl=false&sslcompression=0&pool=5");
    let encryption = "about how the driver encrypts or uses Kerberos, ignored here";
    assert_eq!(
        both,
        [format!("--upstream: schema, pool: {client}"), format!("--upstream: sslcompression: {encryption}")]
    );
    let unknown = said("postgres://u:p@h/d?colour=red&statement_timout=1");
    assert_eq!(unknown.len(), 2);
    assert!(unknown[0].starts_with("--upstream: colour: is no connection parameter of PostgreSQL or of a driver"));
    assert!(unknown[1].ends_with("did you mean `statement_timeout`?"), "{unknown:?}");
}

#[test]
fn parameters_of_libpq_are_honoured() {
    let settings = |query: &str| {
        let url = format!("postgres://u:p@h/d?{query}");
        assert_eq!(said(&url), Vec::<String>::new());
        upstream(&url, &[]).unwrap().settings
    };
    let begins = |query: &str| settings(query).databases["d"].defaults.clone();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(begins("application_name=a&fallback_application_name=b"), [pair("application_name", "a")]);
    assert_eq!(begins("fallback_application_name=b"), [pair("application_name", "b")]);
    assert_eq!(begins("options=-c%20search_path%3Ds"), [pair("options", "-c search_path=s")]);
    assert_eq!(begins("currentSchema=s&options[jit]=off"), [pair("jit", "off"), pair("search_path", "s")]);
    let tcp = |query: &str| settings(query).clusters[0].tcp;
    let to_servers = crate::net::Tcp::TO_SERVERS;
    assert_eq!(tcp("keepalives=1&keepalives_idle=0&tcp_user_timeout=0"), to_servers);
    assert_eq!(tcp("keepalives=0"), crate::net::Tcp { keepalive_idle: None, ..to_servers });
    let all = tcp("keepalives_idle=7&keepalives_interval=3&keepalives_count=2&tcp_user_timeout=9000");
    let seconds = Duration::from_secs;
    assert_eq!((all.keepalive_idle, all.keepalive_interval, all.keepalive_count), (Some(seconds(7)), seconds(3), 2));
    assert_eq!(all.user_timeout, Some(seconds(9)));
    for (text, limit) in [("0", None), ("-1", None), ("7", Some(seconds(7)))] {
        let usual = settings("").clusters[0].connect_timeout;
        let limit = limit.unwrap_or(usual);
        assert_eq!(settings(&format!("connect_timeout={text}")).clusters[0].connect_timeout, limit, "{text}");
    }
    for (value, only) in [("any", 0), ("primary", 0), ("prefer-standby", 0), ("standby", 1), ("read-only", 1)] {
        let routing = &settings(&format!("target_session_attrs={value}")).databases["d"].routing;
        assert_eq!(routing.rules.len(), only, "{value}");
    }
}

#[test]
fn upstreams_that_are_wrong() {
    let check = |text: &str, listen: &[&str], expected: &[&str]| {
        let mistakes = upstream(text, listen).expect_err(text).mistakes;
        let place = |e: &&str| if e.starts_with('-') { e.to_string() } else { format!("--upstream - {e}") };
        let expected: Vec<String> = expected.iter().map(place).collect();
        compare(&mistakes, &expected.iter().map(String::as_str).collect::<Vec<_>>(), text);
    };
    let wrong = |text: &str, expected: &[&str]| check(text, &[], expected);
    wrong("sesame", &["--upstream -: is neither a PostgreSQL URL nor a keyword string"]);
    wrong("mysql://u:sesame@h/d", &["--upstream -: is neither"]);
    wrong("postgres://u:ses@sesame@h/d", &["--upstream -: cannot be taken apart"]);
    wrong("postgres://h/d", &["user: is missing; name the user"]);
    wrong("postgres://", &["user: is missing", "host: is missing"]);
    wrong("postgres://u@h:0/d", &["port: is no port"]);
    wrong("postgres://u@h:x/d", &["port: is no port; write a number from 1 to 65535"]);
    wrong("postgres://u@a,b,c/d?port=1,2", &["port: there are 2 ports for 3 hosts"]);
    wrong("postgres://u@a,a:5432/d", &["host: a:5432 is named twice"]);
    wrong("postgres://u@a,,b/d", &["host: is no host name"]);
    wrong("postgres://u:p@se%40same/d", &["host: is no host name, no IP address and no directory"]);
    wrong("postgres://u@h/d?sslmode=verify-full", &["sslrootcert: is missing, and the mode asks for a certificate"]);
    wrong("postgres://u@h/d?sslmode=verify-ca&sslrootcert=/nowhere", &["sslrootcert: /nowhere cannot be read"]);
    wrong("postgres://u@h/d?sslmode=require&sslcert=/nowhere", &["sslkey: is missing beside `certificate`"]);
    wrong("postgres://u@h/d?sslmode=require&sslpassword=x&sslcrldir=y", &["sslpassword: is not", "sslcrldir: is not"]);
    wrong("postgres://u@h/d?sslmode=require&sslcertmode=require", &["sslcertmode: is require, and there is no"]);
    wrong(
        "postgres://u@h/d?sslnegotiation=direct",
        &["sslnegotiation: is \"direct\", which leaves no way to go without"],
    );
    wrong(
        "postgres://u@h/d?sslnegotiation=x&sslsni=2",
        &["sslnegotiation: has an unknown value", "sslsni: has an unknown"],
    );
    wrong("postgres://u@h/d?sslmode=require&sslrootcert=system", &["sslmode: is too weak for sslrootcert=system"]);
    wrong(
        "postgres://u@h/d?ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
        &["ssl_max_protocol_version: is below min_protocol"],
    );
    wrong("postgres://u@h/d?ssl_min_protocol_version=TLSv1", &["ssl_min_protocol_version: has an unknown value"]);
    wrong("postgres://u@h/d?sslmode=on", &["sslmode: has an unknown value"]);
    wrong("postgres://u@h/d?ssl=perhaps", &["ssl: has an unknown value; write true or false"]);
    wrong("postgres://u@h/d?require_auth=none&requirepeer=x", &["require_auth: is not", "requirepeer: is not"]);
    wrong("postgres://u@h/d?passfile=x&service=y", &["passfile: is not read", "service: is not read"]);
    wrong("postgres://u@h/d?channel_binding=require", &["channel_binding: require is not available yet"]);
    wrong("postgres://u@h/d?target_session_attrs=x", &["target_session_attrs: has an unknown value; write any"]);
    wrong("postgres://u@h/d?connect_timeout=x", &["connect_timeout: write whole seconds from 0 to 3600"]);
    wrong("postgres://u@h/d?keepalives_count=128", &["keepalives_count: write a whole number from 0 to 127"]);
    wrong("postgres://u@h/d?pa55word=sesame", &["--upstream -: has a parameter after ? that is no name=value"]);
    wrong("host=h user=u pasword=sesame", &["pasword: did you mean `password`?"]);
    wrong(
        "host=h user=u password=x sesame=y",
        &["password: is followed by something that is no parameter; put a password with spaces"],
    );
    wrong("host=h user=u password=x sesame", &["--upstream -: after the value of `password` that is no name=value"]);
    wrong("postgres://u@h/poolhouse", &["dbname: is kept for the console"]);
    wrong("postgres://u@127.0.0.1:6432/d", &["host: 127.0.0.1:6432 is where Poolhouse itself listens"]);
    check(
        "postgres://u@h/d",
        &["0.0.0.0:1"],
        &["password: is missing, so everyone who reaches 0.0.0.0:1 would be let in"],
    );
    check("postgres://h?x=1", &["y"], &["user: is missing", "--listen -: is a host name"]);
}

#[test]
fn the_reference_names_every_key() {
    let reference = include_str!("../../config/reference.toml");
    let mut section = String::new();
    let mut seen: Vec<(String, String)> = Vec::new();
    for line in reference.lines().map(|line| line.trim_start_matches(['#', ' '])) {
        if let Some((name, _)) = line.strip_prefix('[').and_then(|line| line.trim_start_matches('[').split_once(']')) {
            section = generic(name);
            let (parent, child) = section.rsplit_once('.').unwrap_or(("", &section));
            seen.push((parent.to_owned(), child.to_owned()));
            seen.extend(parent.split_once('.').is_none().then(|| (String::new(), parent.to_owned())));
        } else if let Some((key, rest)) = line.split_once(" = ") {
            seen.push((section.clone(), key.to_owned()));
            // The keys of an inline table, which is a section of its own.
            let inline = rest.split(['{', ',']).filter_map(|part| part.trim().split_once(" = "));
            seen.extend(inline.map(|(inline, _)| (format!("{section}.{key}"), inline.to_owned())));
        }
    }
    for keys in SECTIONS {
        for key in keys.names() {
            let known = (keys.at.to_owned(), key.to_owned());
            assert!(seen.contains(&known), "config/reference.toml lacks `{key}` in [{}]", keys.at);
        }
    }
}

/// `clusters.main.health` as `clusters.*.health`.
fn generic(section: &str) -> String {
    let mut parts: Vec<&str> = section.split('.').collect();
    if let (Some("clusters" | "databases" | "users"), Some(name)) = (parts.first().copied(), parts.get_mut(1)) {
        *name = "*";
    }
    parts.join(".")
}

proptest::proptest! {
    #[test]
    fn any_text_is_taken_or_refused(text: String) {
        let _ = load(&text, &Overrides::default());
        let _ = upstream(&text, &[&text]);
    }

    #[test]
    fn any_keys_and_values_are_taken_or_refused(
        lines in proptest::collection::vec(
            (0..SECTIONS.len(), 0usize..12, "(-?[0-9]{1,20}|\"[ -~é]{0,20}\"|\\[[0-9a\",]{0,8}\\]|\\{[a-z =1]{0,8}\\}|true|1e9|nan)"),
            0..12,
        ),
    ) {
        let line = |(section, key, value): &(usize, usize, String)| {
            let keys = SECTIONS[*section];
            let key = keys.keys[key % keys.keys.len()].name;
            let section = keys.at.replace('*', "x");
            if section.is_empty() { format!("{key} = {value}\n") } else { format!("[{section}]\n{key} = {value}\n") }
        };
        let text: String = lines.iter().map(line).collect();
        let _ = load(&text, &Overrides::default());
    }
}
