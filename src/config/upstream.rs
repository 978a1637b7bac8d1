//! Settings from a connection string alone: Poolhouse as a sidecar, in front of the servers that the string names.
//! Only the host changes for the application: clients log in with the string's user and password.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Database, Loaded, Login, Mistakes, Overrides, Pooling, Settings,
    address::{self, SERVER_PORT},
    admin,
    check::{cores_for, listen_flags, refuse_own},
    cluster,
    conninfo::{self, Parameter},
    database::reserved,
    keys::KEEPALIVES_MAX,
    mistake::{Findings, Place, Wrong},
    parameters::{self, Ignored, Meaning},
    value::Outside,
};
use crate::{
    admin::Settings as Console,
    monitor,
    net::{Address, Listen, SYSTEM, ServerTls, Tcp, TlsFiles, TlsMistake, TlsMode, TlsVersion},
};
use poolhouse_core::{
    auth::{self, Method, Secret},
    sql::Pattern,
    topology::{Preference, Routing, RoutingRule},
};

const CONNECT_SECONDS_MAX: i64 = 3600;
const HOSTS_MAX: usize = 100;

/// What the connection string says, checked.
#[derive(Debug)]
struct ConnectionString {
    addresses: Vec<Address>,
    user: String,
    password: Option<Secret>,
    database: String,
    connect_timeout: Option<Duration>,
    tcp: Tcp,
    tls: Arc<ServerTls>,
    /// Settings with which sessions begin that do not say so themselves.
    defaults: Vec<(String, String)>,
    /// The application wants a server that only reads.
    reads_only: bool,
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
        routing: routing(&target),
        defaults: target.defaults.clone(),
    };
    let user = target.user.clone();
    let http = admin::flagged_http(outside, over, &mut findings);
    let settings = Settings {
        listen,
        workers: cores_for(over.workers.unwrap_or(0), outside.cores),
        auth,
        databases: BTreeMap::from([(target.database.clone(), database)]),
        clusters: vec![main_cluster(target)],
        admin: Console { users: vec![user], http, ..Settings::default().admin },
        ..Settings::default()
    };
    findings.finish(settings)
}

/// With a password clients need it, too; without one everybody who can connect is let in, so only this machine may.
fn auth(target: &ConnectionString, listen: &[Listen], findings: &mut Findings) -> auth::Settings {
    if let Some(password) = &target.password {
        let users = BTreeMap::from([(target.user.clone(), password.clone())]);
        return auth::Settings { method: Method::ScramSha256, users, ..auth::Settings::default() };
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
    auth::Settings { method: Method::Trust, ..auth::Settings::default() }
}

/// Everything goes to replicas if the application asks for a server that only reads.
fn routing(target: &ConnectionString) -> Routing {
    let all = RoutingRule {
        user: Some(Pattern::Name(target.user.as_str().into())),
        database: None,
        application_name: None,
        route: Some(Preference::Replica),
        weights: None,
    };
    let rules = if target.reads_only { vec![all] } else { Vec::new() };
    Routing { rules: rules.into(), ..Routing::default() }
}

fn main_cluster(target: ConnectionString) -> monitor::Settings {
    let nodes = target.addresses.iter().map(cluster::node).collect();
    let mut settings = cluster::defaults("main", target.addresses, nodes);
    settings.health.user = target.user;
    settings.health.password = target.password;
    settings.health.database = target.database;
    settings.connect_timeout = target.connect_timeout.unwrap_or(settings.connect_timeout);
    settings.tcp = target.tcp;
    settings.tls = target.tls;
    settings
}

fn target(parameters: &[Parameter], findings: &mut Findings) -> ConnectionString {
    let (values, defaults) = sort(parameters, findings);
    let value = |name: &str| values.get(name).map(String::as_str).filter(|value| !value.is_empty());
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
    ConnectionString {
        addresses: addresses(&value, findings),
        user: user.to_owned(),
        password: value("password").map(|password| Secret::Plain(password.to_owned())),
        database: database.to_owned(),
        connect_timeout: connect_timeout(&value, findings),
        tcp: tcp(&value, findings),
        tls: tls(&value, findings),
        defaults,
        reads_only: value("target_session_attrs").and_then(parameters::target).unwrap_or(false),
    }
}

/// What says where to go, and settings for sessions, each by its name. Later ones count, as for libpq: what follows `?` in
/// a URL goes over what stands before.
fn sort(parameters: &[Parameter], findings: &mut Findings) -> (BTreeMap<String, String>, Vec<(String, String)>) {
    let (mut values, mut settings) = (BTreeMap::new(), BTreeMap::new());
    let mut ignored: BTreeMap<Ignored, Vec<&str>> = BTreeMap::new();
    let mut before = "";
    for Parameter { name, value } in parameters {
        match parameters::meaning(name, value) {
            // The second half of a password with a space must not be shown as the name of a parameter.
            Meaning::Unknown(_) | Meaning::Refused(_) if before == "password" && !parameters::is_known(name) => {
                let what = "is followed by something that is no parameter";
                findings.mistake(&Place::absent(before), what, "put a password with spaces in single quotes");
            }
            Meaning::Followed(name) => _ = values.insert(name, value.clone()),
            Meaning::Setting(name) => _ = settings.insert(name, value.clone()),
            Meaning::Ignored(why) => ignored.entry(why).or_default().push(name),
            Meaning::Unknown(wrong) => findings.warning(&Place::absent(name), wrong.what, wrong.mend),
            Meaning::Refused(wrong) => {
                let shown = if parameters::is_plain(name) { name } else { "" };
                findings.wrong(&Place::absent(shown), wrong);
            }
        }
        before = name;
    }
    for why in Ignored::ALL {
        if let Some(names) = ignored.get(&why) {
            findings.note(&Place::absent(&names.join(", ")), why.words());
        }
    }
    if let Some(fallback) = settings.remove("fallback_application_name") {
        settings.entry("application_name".to_owned()).or_insert(fallback);
    }
    settings.retain(|_, value| !value.is_empty());
    (values, settings.into_iter().collect())
}

/// libpq's parameters for the connections' keepalive; 0 leaves what Poolhouse does without a word on it.
fn tcp<'a>(value: &impl Fn(&str) -> Option<&'a str>, findings: &mut Findings) -> Tcp {
    let mut tcp = Tcp::TO_SERVERS;
    let mut number = |name: &str, most: u64| {
        let text = value(name)?;
        let number = text.parse().ok().filter(|number| *number <= most);
        if number.is_none() {
            findings.mistake(&Place::absent(name), "is out of range", format!("write a whole number from 0 to {most}"));
        }
        number.filter(|number| *number > 0)
    };
    const SECONDS_MAX: u64 = 3600;
    let idle = number("keepalives_idle", SECONDS_MAX);
    tcp.keepalive_idle = idle.map(Duration::from_secs).or(tcp.keepalive_idle);
    if let Some(seconds) = number("keepalives_interval", SECONDS_MAX) {
        tcp.keepalive_interval = Duration::from_secs(seconds);
    }
    let count = number("keepalives_count", KEEPALIVES_MAX as u64);
    tcp.keepalive_count = count.and_then(|count| u32::try_from(count).ok()).unwrap_or(tcp.keepalive_count);
    if let Some(milliseconds) = number("tcp_user_timeout", SECONDS_MAX * 1000) {
        tcp.user_timeout = Some(Duration::from_millis(milliseconds.max(1000)));
    }
    if value("keepalives") == Some("0") {
        tcp.keepalive_idle = None;
    }
    tcp
}

/// libpq's parameters for encryption. Files are where they are said to be, from the folder in which Poolhouse was started.
fn tls<'a>(value: &impl Fn(&str) -> Option<&'a str>, findings: &mut Findings) -> Arc<ServerTls> {
    let path = |name: &str| value(name).map(PathBuf::from);
    let version = |name: &str, usual: TlsVersion| match value(name) {
        Some(word) if word.eq_ignore_ascii_case("TLSv1.3") => TlsVersion::V1_3,
        Some(_) => TlsVersion::V1_2,
        None => usual,
    };
    let usual = TlsFiles::default();
    // As libpq: who trusts the system's authorities wants to know that the host is meant.
    let least = if value("sslrootcert") == Some(SYSTEM) { TlsMode::VerifyFull } else { usual.mode };
    let mode = value("sslmode").and_then(parameters::tls_mode).unwrap_or(least);
    if value("sslrootcert") == Some(SYSTEM) && mode < least {
        let what = "is too weak for sslrootcert=system, which trusts any authority of the system";
        findings.mistake(&Place::absent("sslmode"), what, "write verify-full");
    }
    let shows = value("sslcertmode") != Some("disable");
    if value("sslcertmode") == Some("require") && value("sslcert").is_none() {
        findings.mistake(
            &Place::absent("sslcertmode"),
            "is require, and there is no certificate",
            "name sslcert and sslkey",
        );
    }
    let files = TlsFiles {
        mode,
        ca: path("sslrootcert"),
        crl: path("sslcrl"),
        certificate: path("sslcert").filter(|_| shows),
        private_key: path("sslkey").filter(|_| shows),
        direct: value("sslnegotiation") == Some("direct"),
        sni: value("sslsni") != Some("0"),
        min_protocol: version("ssl_min_protocol_version", usual.min_protocol),
        max_protocol: version("ssl_max_protocol_version", usual.max_protocol),
    };
    match ServerTls::new(files) {
        Ok(tls) => Arc::new(tls),
        Err(TlsMistake { key, what, mend }) => {
            let name = match key {
                "ca" => "sslrootcert",
                "crl" => "sslcrl",
                "certificate" => "sslcert",
                "private_key" => "sslkey",
                "negotiation" => "sslnegotiation",
                "max_protocol" => "ssl_max_protocol_version",
                _ => "sslmode",
            };
            findings.mistake(&Place::absent(name), what, mend);
            Arc::default()
        }
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

/// For libpq 0 and less stand for no limit; here they leave it at what it is without a word on it.
fn connect_timeout<'a>(value: &impl Fn(&str) -> Option<&'a str>, findings: &mut Findings) -> Option<Duration> {
    let text = value("connect_timeout")?;
    match text.trim().parse::<i64>() {
        Ok(seconds) if seconds <= 0 => None,
        Ok(seconds) if seconds <= CONNECT_SECONDS_MAX => Some(Duration::from_secs(seconds.unsigned_abs())),
        _ => {
            let mend = format!("write whole seconds from 0 to {CONNECT_SECONDS_MAX}");
            findings.mistake(&Place::absent("connect_timeout"), "is out of range", mend);
            None
        }
    }
}
