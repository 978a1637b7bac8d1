//! Settings from a connection string alone: Poolhouse as a sidecar, in front of the servers that the string names.
//! Only the host changes for the application: clients log in with the string's user and password.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::{
    Database, Loaded, Login, Mistakes, Overrides, Pooling, Settings,
    address::{self, SERVER_PORT},
    check::{cores_for, listen_flags, refuse_own},
    cluster,
    conninfo::{self, Parameter},
    database::reserved,
    mistake::{Findings, Place, Wrong},
    value::Outside,
};
use crate::{
    admin::Settings as Console,
    monitor,
    net::{Address, Listen},
};
use poolhouse_core::{
    auth::{self, Method, Secret},
    session::nearest_word,
    topology::Routing,
};

const CONNECT_SECONDS_MAX: u64 = 3600;
const HOSTS_MAX: usize = 100;

/// What the connection string says, checked.
#[derive(Debug)]
struct Target {
    addresses: Vec<Address>,
    user: String,
    password: Option<Secret>,
    database: String,
    connect_timeout: Option<Duration>,
}

/// Settings for `text`, which came from the flag or variable `source`.
///
/// # Errors
/// Everything that is wrong with it. No message repeats the password.
pub(super) fn settings(text: &str, source: &str, outside: &Outside<'_>, over: &Overrides) -> Result<Loaded, Mistakes> {
    let mut findings = Findings::new(source, "");
    let listen = match &over.listen[..] {
        [] => Settings::default().listen,
        flags => listen_flags(flags, outside, &mut findings),
    };
    let target = match conninfo::parse(text) {
        Ok(parameters) => target(&parameters, &mut findings),
        Err(wrong) => {
            wrong.into_iter().for_each(|wrong| findings.wrong(&Place::absent(""), wrong));
            return Err(findings.refuse());
        }
    };
    for address in &target.addresses {
        refuse_own(address, &listen, &Place::absent("host"), &mut findings);
    }
    let auth = auth(&target, &listen, &mut findings);
    let pooling = Pooling::default();
    let login = Login { user: target.user.clone(), password: target.password.clone() };
    let database = Database {
        cluster: 0,
        database: None,
        login: Some(login),
        pool: pooling.lending,
        session: pooling.session,
        routing: Routing::default(),
    };
    let user = target.user.clone();
    let settings = Settings {
        listen,
        workers: cores_for(over.workers.unwrap_or(0), outside.cores),
        auth,
        databases: BTreeMap::from([(target.database.clone(), database)]),
        clusters: vec![main_cluster(target)],
        admin: Console { users: vec![user], ..Settings::default().admin },
        ..Settings::default()
    };
    findings.finish(settings)
}

/// With a password clients need it, too; without one everybody who can connect is let in, so only this machine may.
fn auth(target: &Target, listen: &[Listen], findings: &mut Findings) -> auth::Settings {
    if let Some(password) = &target.password {
        let users = BTreeMap::from([(target.user.clone(), password.clone())]);
        return auth::Settings { method: Method::ScramSha256, users };
    }
    let place = Place::absent("password");
    match listen.iter().find(|listen| !address::is_local(listen)) {
        Some(open) => {
            let what = format!("is missing, so everyone who reaches {open} would be let in without one");
            findings.mistake(&place, what, "add the password, or listen on 127.0.0.1 or a Unix socket");
        }
        None => {
            let what = "is missing, so everyone on this machine is let in without one";
            findings.warning(&place, what, "add the password to have clients asked for it");
        }
    }
    auth::Settings { method: Method::Trust, users: BTreeMap::new() }
}

fn main_cluster(target: Target) -> monitor::Settings {
    let nodes = target.addresses.iter().map(cluster::node).collect();
    let mut settings = cluster::defaults("main", target.addresses, nodes);
    settings.health.user = target.user;
    settings.health.password = target.password;
    settings.health.database = target.database;
    settings.connect_timeout = target.connect_timeout.unwrap_or(settings.connect_timeout);
    settings
}

fn target(parameters: &[Parameter], findings: &mut Findings) -> Target {
    // Later ones count, as for libpq: what follows `?` in a URL goes over what stands before.
    let values: BTreeMap<&str, &str> = parameters.iter().map(|p| (p.name.as_str(), p.value.as_str())).collect();
    let value = |name: &str| values.get(name).copied().filter(|value| !value.is_empty());
    let mut before = "";
    for Parameter { name, value } in parameters {
        match judge(name, value) {
            // The second half of a password with a space must not be shown as the name of a parameter.
            Err(Judged::Unknown(_)) if before == "password" => {
                let what = "is followed by something that is no parameter";
                findings.mistake(&Place::absent(before), what, "put a password with spaces in single quotes");
            }
            Err(Judged::Unknown(wrong) | Judged::Refused(wrong)) => findings.wrong(&Place::absent(name), wrong),
            Ok(()) => {}
        }
        before = name;
    }
    for (name, value) in values.iter().filter(|(_, value)| value.contains('\0')) {
        findings.mistake(
            &Place::absent(name),
            format!("holds a NUL byte among its {} bytes", value.len()),
            "remove it",
        );
    }
    let user = value("user").unwrap_or_default();
    if user.is_empty() {
        let mend = "name the user that logs in to the servers; the user of the system is not guessed";
        findings.mistake(&Place::absent("user"), "is missing", mend);
    }
    let database = value("dbname").unwrap_or(user);
    if let Some(what) = reserved(database) {
        findings.mistake(&Place::absent("dbname"), what, "use a config file, where it can have another name");
    }
    Target {
        addresses: addresses(&value, findings),
        user: user.to_owned(),
        password: value("password").map(|password| Secret::Plain(password.to_owned())),
        database: database.to_owned(),
        connect_timeout: value("connect_timeout").and_then(connect_timeout),
    }
}

/// Hosts and ports: as many ports as hosts, or one for all, or none. A host that begins with `/` is a directory with
/// a socket.
fn addresses<'a>(value: &impl Fn(&str) -> Option<&'a str>, findings: &mut Findings) -> Vec<Address> {
    let hosts = Place::absent(if value("hostaddr").is_some() { "hostaddr" } else { "host" });
    let Some(names) = value(&hosts.key) else {
        findings.mistake(&hosts, "is missing", "name the server, as in postgres://user@10.0.0.1/database");
        return Vec::new();
    };
    let names: Vec<&str> = names.split(',').collect();
    let ports: Vec<&str> = value("port").unwrap_or_default().split(',').collect();
    if names.len() > HOSTS_MAX {
        findings.mistake(&hosts, format!("names {} hosts", names.len()), format!("name at most {HOSTS_MAX}"));
        return Vec::new();
    }
    if ports.len() != 1 && ports.len() != names.len() {
        let what = format!("there are {} ports for {} hosts", ports.len(), names.len());
        findings.mistake(&Place::absent("port"), what, "give one port for all, or one for each");
        return Vec::new();
    }
    let ports: Vec<Option<u16>> = ports.into_iter().map(port).collect();
    if ports.contains(&None) {
        findings.mistake(&Place::absent("port"), "is no port", "write a number from 1 to 65535");
    }
    let mut addresses = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let port = ports.get(index).or(ports.first()).copied().flatten().unwrap_or(SERVER_PORT);
        match address(name, port) {
            Err(wrong) => findings.wrong(&hosts, wrong),
            Ok(address) if addresses.contains(&address) => {
                findings.mistake(&hosts, format!("{address} is named twice"), "remove one of them");
            }
            Ok(address) => addresses.push(address),
        }
    }
    addresses
}

fn port(text: &str) -> Option<u16> {
    if text.is_empty() { Some(SERVER_PORT) } else { address::parse_port(text).filter(|port| *port > 0) }
}

fn address(name: &str, port: u16) -> Result<Address, Wrong> {
    if name.starts_with('/') {
        return address::unix_server(Path::new(name), port);
    }
    // Does not repeat the name: a password with an @ too many would be part of it.
    let unreadable = |_| Wrong::new("is no host name, no IP address and no directory", "write it like db.example.com");
    Ok(Address::Tcp { host: address::host_name(name).map_err(unreadable)?, port })
}

fn connect_timeout(text: &str) -> Option<Duration> {
    let seconds = text.parse().ok().filter(|seconds| (1..=CONNECT_SECONDS_MAX).contains(seconds))?;
    Some(Duration::from_secs(seconds))
}

/// Parameters that say where to go and who logs in; used elsewhere.
const USED: [&str; 6] = ["host", "hostaddr", "port", "user", "password", "dbname"];

/// Parameters that belong into the client's own connection string.
const CLIENTS: [&str; 5] =
    ["application_name", "fallback_application_name", "client_encoding", "options", "replication"];

/// Parameters of libpq that are about TLS.
const TLS: [&str; 11] = [
    "ssl",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslcrldir",
    "sslsni",
    "sslcompression",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
];

/// Parameters of libpq that are understood but not followed.
const OTHERS: [&str; 16] = [
    "passfile",
    "service",
    "servicefile",
    "require_auth",
    "requirepeer",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslnegotiation",
    "min_protocol_version",
    "max_protocol_version",
];

/// Why a parameter is an error.
enum Judged {
    Unknown(Wrong),
    Refused(Wrong),
}

/// Whether a parameter can be honoured. What is not is an error, lest somebody relies on it.
fn judge(name: &str, value: &str) -> Result<(), Judged> {
    const REMOVE: &str = "remove it";
    let refuse = |what: &str, mend: &str| Err(Judged::Refused(Wrong::new(what, mend)));
    match name {
        _ if USED.contains(&name) => Ok(()),
        "connect_timeout" if connect_timeout(value).is_some() => Ok(()),
        "connect_timeout" => refuse("is out of range", &format!("write whole seconds from 1 to {CONNECT_SECONDS_MAX}")),
        "sslmode" => judge_choice(value, &["disable", "allow", "prefer"], &["require", "verify-ca", "verify-full"]),
        "channel_binding" | "gssencmode" => judge_choice(value, &["disable", "prefer"], &["require"]),
        "target_session_attrs" if ["any", "read-write"].contains(&value) => Ok(()),
        "target_session_attrs" => refuse(
            "can only be any or read-write: Poolhouse finds out the roles and sends reads to replicas itself",
            REMOVE,
        ),
        "load_balance_hosts" if value == "disable" => Ok(()),
        "load_balance_hosts" => refuse("is not needed: Poolhouse balances reads itself", REMOVE),
        _ if CLIENTS.contains(&name) => {
            refuse("is the client's to say: what clients ask for is passed on", "move it to the client's own URL")
        }
        _ if TLS.contains(&name) => refuse("is not available yet: there is no TLS to servers", REMOVE),
        _ if OTHERS.contains(&name) => refuse("is not available here", REMOVE),
        _ => Err(Judged::Unknown(unknown(name))),
    }
}

fn judge_choice(value: &str, accepted: &[&str], later: &[&str]) -> Result<(), Judged> {
    let known = accepted.join(" | ");
    if accepted.contains(&value) {
        return Ok(());
    }
    if let Some(later) = later.iter().find(|later| **later == value) {
        let what = format!("{later} is not available yet: there is no TLS to servers");
        let mend = format!("write {known} if the servers accept connections without TLS");
        return Err(Judged::Refused(Wrong::new(what, mend)));
    }
    Err(Judged::Refused(Wrong::new("has an unknown value", format!("write {known}"))))
}

fn unknown(name: &str) -> Wrong {
    let known = USED.into_iter().chain(["connect_timeout", "sslmode", "target_session_attrs"]);
    let mend = match nearest_word(name, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "remove it".to_owned(),
    };
    Wrong::new("is no connection parameter of PostgreSQL", mend)
}
