//! From the text of a configuration to settings, with every mistake at once. Pure: environment variables and files
//! are reached through [`Outside`]. The larger sections have files of their own: `cluster`, `database`, `pooling`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use toml::de::DeValue;
use zeroize::Zeroizing;

use super::{
    Database, Listener, Loaded, Log, Mistake, Mistakes, Overrides, PoolOverride, Pooling, Settings, address, admin,
    cluster::{self, Cluster},
    database::{self, Ground},
    keys::{self, ROUTES},
    kind::Kind,
    mistake::{Findings, Place},
    pooling::Section,
    raw::{self, Item},
    value::Outside,
};
use crate::{
    frontend, monitor,
    net::{Address, ClientTls, ClientTlsFiles, Crowd, Listen, Tcp, TlsMistake},
};
use poolhouse_core::{
    auth::{self, Method, Secret, userlist},
    session::nearest_word,
};

const CLIENTS: usize = 10_000;
const LOGINS_MIN: usize = 1_000;

/// Reads `text`, which came from `source`.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn check(text: &str, source: &str, outside: &Outside<'_>, over: &Overrides) -> Result<Loaded, Mistakes> {
    let mut findings = Findings::new(source, text);
    let Some(document) = raw::parse(text, &mut findings) else { return Err(findings.refuse()) };
    let root = Item { place: Place::absent(""), value: &document };
    let file = keys::File::read(Some(&root), &mut findings);
    let server = keys::Server::read(file.server.as_ref(), &mut findings);
    refuse_sections(&file, &mut findings);

    let pool = Section::read(file.pool.as_ref(), &mut findings);
    let pooling = pool.over(&Pooling::default(), &mut findings);
    let zone = server.zone.as_ref().and_then(|item| item.text(&mut findings));
    let clusters = clusters(&file, zone, outside, &mut findings);
    let ground = Ground { clusters: &clusters, pool: &pool, pooling: &pooling, outside };
    let databases = databases(&file, &ground, &mut findings);
    let listen = listen(&server, over, outside, &mut findings);
    let listeners = listeners(&file, &listen, outside, &mut findings);
    let (auth, user_pools) = auth(&file, &databases, outside, &mut findings);
    let everywhere: Vec<_> = listen.iter().chain(listeners.iter().map(|listener| &listener.address)).cloned().collect();
    let admin = admin::read(&file, &auth, outside, over, &mut findings);
    warn_of_trust(&auth, &everywhere, &file, &mut findings);
    let clusters = finish_clusters(clusters, &everywhere, &databases, &mut findings);
    let mut settings = Settings {
        log: log(&file, outside, &mut findings),
        databases: databases.into_iter().collect(),
        listen,
        listeners,
        auth,
        clusters,
        user_pools,
        admin,
        ..Settings::default()
    };
    server_settings(&server, over, outside, &mut settings, &mut findings);
    settings.frontend.tls = tls(file.tls.as_ref(), outside, &mut findings);
    findings.finish(settings)
}

/// Refuses what is not available yet, rather than ignoring it.
fn refuse_sections(file: &keys::File<'_>, findings: &mut Findings) {
    keys::Coordination::read(file.coordination.as_ref(), findings).put(&mut (), findings);
}

/// `[server]`, but for the addresses.
fn server_settings(
    server: &keys::Server<'_>,
    over: &Overrides,
    outside: &Outside<'_>,
    settings: &mut Settings,
    findings: &mut Findings,
) {
    let said = server.put(settings, findings);
    let limits = &mut settings.frontend;
    let logins = logins_for(limits.max_clients, said.contains(&"max_logins").then_some(limits.logins.all));
    limits.logins.all = logins.all;
    if !said.contains(&"max_logins_per_address") {
        limits.logins.per_address = logins.per_address;
    }
    limits.tcp = cluster::tcp(server.tcp.as_ref(), limits.tcp, findings);
    settings.workers = cores_for(over.workers.unwrap_or(settings.workers), outside.cores);
}

/// `[tls]`, with its files read; paths start at the folder of the config file.
fn tls(item: Option<&Item<'_>>, outside: &Outside<'_>, findings: &mut Findings) -> Arc<ClientTls> {
    let raw = keys::Tls::read(item, findings);
    let mut files = ClientTlsFiles::default();
    raw.put(&mut files, findings);
    let mut paths = |item: &Option<Item<'_>>| {
        let Some(item) = item else { return Vec::new() };
        let one = std::slice::from_ref(item);
        let several = match item.value {
            DeValue::Array(_) => item.list("write it like [\"a.crt\", \"b.crt\"]", findings),
            _ => Vec::new(),
        };
        let items = if several.is_empty() { one } else { &several };
        items.iter().filter_map(|item| Some(outside.directory.join(item.text(findings)?))).collect()
    };
    files.certificates = paths(&raw.certificate);
    files.private_keys = paths(&raw.private_key);
    files.client_ca = paths(&raw.client_ca).pop();
    files.crl = paths(&raw.crl).pop();
    match ClientTls::new(files) {
        Ok(tls) => Arc::new(tls),
        Err(TlsMistake { key, what, mend }) => {
            let named = [
                ("certificate", &raw.certificate),
                ("private_key", &raw.private_key),
                ("client_ca", &raw.client_ca),
                ("crl", &raw.crl),
                ("max_protocol", &raw.max_protocol),
            ];
            match named.into_iter().find_map(|(name, item)| item.as_ref().filter(|_| name == key)) {
                Some(item) => findings.mistake(&item.place, what, mend),
                None => {
                    let place = item.map_or_else(|| Place::absent("tls"), |item| item.place.clone());
                    findings.mistake(&place, format!("`{key}` {what}"), mend);
                }
            }
            Arc::default()
        }
    }
}

/// As many connections may log in at once as clients may be there, who may all come at once; no fewer than a crowd that is
/// renewed within milliseconds could fill. Half of them may come from one address.
pub(super) fn logins_for(max_clients: usize, all: Option<usize>) -> Crowd {
    let all = all.unwrap_or(max_clients.max(LOGINS_MIN));
    Crowd { all, per_address: all.div_ceil(2) }
}

pub(super) fn frontend_defaults() -> frontend::Settings {
    frontend::Settings {
        max_clients: CLIENTS,
        logins: logins_for(CLIENTS, None),
        login_timeout: Duration::from_secs(15),
        shutdown_timeout: Duration::from_secs(60),
        tcp: Tcp::TO_CLIENTS,
        tls: Arc::default(),
    }
}

/// 0 workers stand for one per core.
pub(super) fn cores_for(workers: usize, cores: usize) -> usize {
    if workers == 0 { cores.max(1) } else { workers }
}

fn listen(server: &keys::Server<'_>, over: &Overrides, outside: &Outside<'_>, findings: &mut Findings) -> Vec<Listen> {
    let mend = format!("write it like listen = [\"{}\"]", SocketAddr::from(address::LISTEN_DEFAULT));
    let items = server.listen.as_ref().map(|list| list.list(&mend, findings));
    let mut entries: Vec<(Place, &str)> = Vec::new();
    for item in items.iter().flatten() {
        entries.extend(item.text(findings).map(|text| (item.place.clone(), text)));
    }
    let written = address::listens(&entries, &outside.directory, findings);
    if let (Some(list), Some([])) = (&server.listen, items.as_deref())
        && matches!(list.value, DeValue::Array(_))
    {
        findings.mistake(&list.place, "names no address", mend);
    }
    match (over.listen.is_empty(), server.listen.is_some()) {
        (false, _) => listen_flags(&over.listen, outside, findings),
        (true, true) => written,
        (true, false) => Settings::default().listen,
    }
}

/// The addresses that have a route.
fn listeners(
    file: &keys::File<'_>,
    listen: &[Listen],
    outside: &Outside<'_>,
    findings: &mut Findings,
) -> Vec<Listener> {
    const MEND: &str = "write it as [[listener]] with address = \"127.0.0.1:6434\" and route = \"replica\"";
    let mut listeners: Vec<Listener> = Vec::new();
    for item in file.listener.as_ref().map(|list| list.list(MEND, findings)).unwrap_or_default() {
        let raw = keys::Listener::read(Some(&item), findings);
        for (key, value) in [("address", &raw.address), ("route", &raw.route)] {
            if value.is_none() && matches!(item.value, DeValue::Table(_)) {
                findings.mistake(&item.place, format!("has no {key}"), MEND);
            }
        }
        let route = raw.route.as_ref().and_then(|item| ROUTES.read(item, findings));
        let Some(place) = raw.address.as_ref().map(|item| item.place.clone()) else { continue };
        let Some(text) = raw.address.as_ref().and_then(|item| item.text(findings)) else { continue };
        let address = address::listens(&[(place.clone(), text)], &outside.directory, findings).pop();
        let (Some(address), Some(route)) = (address, route) else { continue };
        if listen.contains(&address) || listeners.iter().any(|other| other.address == address) {
            findings.mistake(&place, format!("Poolhouse listens at {address} already"), "choose another address");
        } else {
            listeners.push(Listener { address, route });
        }
    }
    listeners
}

/// Addresses given on the command line.
pub(super) fn listen_flags(texts: &[String], outside: &Outside<'_>, findings: &mut Findings) -> Vec<Listen> {
    let mut flags = Findings::new("--listen", "");
    let entries: Vec<_> = texts.iter().map(|text| (Place::absent(""), text.as_str())).collect();
    let listen = address::listens(&entries, &outside.directory, &mut flags);
    flags.refuse().mistakes.into_iter().for_each(|mistake| findings.add(mistake));
    listen
}

fn clusters(file: &keys::File<'_>, zone: Option<&str>, outside: &Outside<'_>, findings: &mut Findings) -> Vec<Cluster> {
    let entries = file.clusters.as_ref().map(|item| item.entries(findings)).unwrap_or_default();
    if entries.is_empty() && file.clusters.as_ref().is_none_or(|item| matches!(item.value, DeValue::Table(_))) {
        let mend = "add [clusters.main] with nodes = [\"10.0.0.1:5432\"]";
        findings.mistake(&Place::absent("clusters"), "there is no cluster, so no server to connect to", mend);
    }
    entries.iter().map(|entry| Cluster::read(entry.name, &entry.item, zone, outside, findings)).collect()
}

/// In the order of the file.
fn databases(file: &keys::File<'_>, ground: &Ground<'_>, findings: &mut Findings) -> Vec<(String, Database)> {
    let entries = file.databases.as_ref().map(|item| item.entries(findings)).unwrap_or_default();
    if entries.is_empty() && file.databases.as_ref().is_none_or(|item| matches!(item.value, DeValue::Table(_))) {
        let mend = "add [databases.\"*\"] for all that the servers have";
        findings.mistake(&Place::absent("databases"), "there is no database that clients could ask for", mend);
    }
    let read = |entry: &raw::Entry<'_>, findings: &mut Findings| {
        (entry.name.to_owned(), database::read(entry.name, &entry.item, ground, findings))
    };
    entries.iter().map(|entry| read(entry, findings)).collect()
}

fn finish_clusters(
    clusters: Vec<Cluster>,
    listen: &[Listen],
    databases: &[(String, Database)],
    findings: &mut Findings,
) -> Vec<monitor::Settings> {
    let mut finished = Vec::new();
    for (index, cluster) in clusters.into_iter().enumerate() {
        for address in &cluster.settings.addresses {
            refuse_own(address, listen, cluster.nodes.as_ref().unwrap_or(&cluster.place), findings);
        }
        let own: Vec<_> = databases.iter().filter(|(_, database)| database.cluster == index).cloned().collect();
        finished.push(cluster.finish(&own, findings));
    }
    finished
}

/// A node that is Poolhouse itself would make each connection open another one.
pub(super) fn refuse_own(address: &Address, listen: &[Listen], place: &Place, findings: &mut Findings) {
    if address::is_own(address, listen) {
        let what = format!("{address} is where Poolhouse itself listens");
        findings.mistake(place, what, "name the PostgreSQL server's address, or listen at another one");
    }
}

type Users = (auth::Settings, BTreeMap<String, PoolOverride>);

fn auth(
    file: &keys::File<'_>,
    databases: &[(String, Database)],
    outside: &Outside<'_>,
    findings: &mut Findings,
) -> Users {
    let raw = keys::Auth::read(file.auth.as_ref(), findings);
    let mut settings = auth::Settings::default();
    raw.put(&mut settings, findings);
    read_lookup(&raw, &mut settings, outside, findings);
    let auth::Settings { method, mut users, lookup } = settings;
    if let Some(item) = &raw.users_file {
        users.extend(users_file(item, outside, findings));
    }
    let mut pools = BTreeMap::new();
    for entry in file.users.as_ref().map(|item| item.entries(findings)).unwrap_or_default() {
        let user = keys::User::read(Some(&entry.item), findings);
        let section = Section::read(user.pool.as_ref(), findings);
        check_pools(&section, databases, findings);
        pools.insert(entry.name.to_owned(), section.overrides);
        let secret = user.password.as_ref().and_then(|item| item.secret(outside, findings));
        let found = Found { in_file: users.contains_key(entry.name), looked_up: lookup.user.is_some() };
        check_user(&entry, &user, found, method, findings);
        users.extend(secret.filter(|_| entry.name != "*").map(|secret| (entry.name.to_owned(), secret)));
    }
    let names_users = raw.users_file.is_some() || pools.keys().any(|name| name != "*") || lookup.user.is_some();
    warn_of_users(&users, names_users, method, findings);
    (auth::Settings { method, users, lookup }, pools)
}

/// `[auth] query` and what belongs to it.
fn read_lookup(raw: &keys::Auth<'_>, settings: &mut auth::Settings, outside: &Outside<'_>, findings: &mut Findings) {
    let lookup = &mut settings.lookup;
    let named = |item: &Option<Item<'_>>, findings: &mut Findings| {
        let (item, text) = (item.as_ref()?, item.as_ref()?.text(findings)?);
        if text.is_empty() {
            findings.mistake(&item.place, "is empty", "remove it, or write a name");
        }
        Some(text.to_owned())
    };
    lookup.user = named(&raw.query_user, findings);
    lookup.database = named(&raw.query_database, findings);
    lookup.password = raw.query_password.as_ref().and_then(|item| item.server_secret(outside, findings));
    if let Some(item) = &raw.query
        && let Some(text) = item.text(findings)
    {
        if !text.contains("$1") {
            let mend = format!("write it like \"{}\"", auth::LOOKUP_QUERY);
            findings.mistake(&item.place, "has no $1, in whose place the user's name is put", mend);
        }
        lookup.query = text.to_owned();
    }
    match &raw.query_user {
        Some(item) if settings.method == Method::Trust => {
            let what = "nobody is looked up as long as everybody is let in without a password";
            findings.mistake(&item.place, what, "remove it, or write method = \"scram-sha-256\"");
        }
        Some(_) => {}
        None => {
            // What says the same as nothing, as the reference does, misleads nobody.
            let usual = auth::Settings::default().lookup;
            let others = [
                raw.query.as_ref().filter(|_| lookup.query != usual.query),
                raw.query_password.as_ref(),
                raw.query_database.as_ref(),
                raw.query_lifetime.as_ref().filter(|_| lookup.lifetime != usual.lifetime),
            ];
            for item in others.into_iter().flatten() {
                findings.mistake(&item.place, "is of no use without auth.query_user", "add query_user beside it");
            }
        }
    }
}

/// Where else a user's secret may be.
#[derive(Clone, Copy)]
struct Found {
    in_file: bool,
    /// A server is asked.
    looked_up: bool,
}

/// The users of a list in PgBouncer's form, whose mistakes have lines of their own.
fn users_file(item: &Item<'_>, outside: &Outside<'_>, findings: &mut Findings) -> Vec<(String, Secret)> {
    let Some(name) = item.text(findings) else { return Vec::new() };
    let path = outside.directory.join(name);
    let text = match (outside.read)(&path) {
        Ok(text) => Zeroizing::new(text),
        Err(why) => {
            let mend = "relative paths start at the folder of the config file";
            findings.mistake(&item.place, format!("the file {} {why}", path.display()), mend);
            return Vec::new();
        }
    };
    userlist(&text).unwrap_or_else(|errors| {
        for error in errors {
            findings.add(Mistake {
                source: path.display().to_string(),
                line: Some(error.line),
                key: String::new(),
                what: error.what.to_string(),
                mend: "write \"user\" \"secret\"".to_owned(),
            });
        }
        Vec::new()
    })
}

/// `[users.X.pool]` goes over the pool of whichever database the user asks for.
fn check_pools(section: &Section, databases: &[(String, Database)], findings: &mut Findings) {
    for (name, database) in databases {
        let mut pooling = Pooling { lending: database.pool.clone(), session: database.session.clone() };
        section.overrides.apply(&mut pooling);
        section.check_idle(&pooling, &format!(" in database \"{name}\""), findings);
    }
}

fn check_user(entry: &raw::Entry<'_>, user: &keys::User<'_>, found: Found, method: Method, findings: &mut Findings) {
    let is_asked_for = method != Method::Trust && !found.in_file && !found.looked_up;
    if entry.name.is_empty() {
        findings.mistake(&entry.item.place, "is a user without a name", "write it like [users.alice]");
    }
    if entry.name == "*" {
        if let Some(item) = &user.password {
            let what = "would be the password of every user";
            findings.mistake(
                &item.place,
                what,
                "remove it: [users.\"*\".pool] is for users who have no pool of their own",
            );
        }
        return;
    }
    match &user.password {
        None if is_asked_for && matches!(entry.item.value, DeValue::Table(_)) => {
            let what = format!("user \"{}\" has no password, so nobody can log in as it", entry.name);
            findings.mistake(&entry.item.place, what, "add `password` here, or the user to users_file");
        }
        Some(item) if found.in_file => {
            let what = format!("user \"{}\" is in users_file as well; this password counts", entry.name);
            findings.warning(&item.place, what, "keep one of them");
        }
        _ => {}
    }
}

fn warn_of_users(users: &BTreeMap<String, Secret>, names_users: bool, method: Method, findings: &mut Findings) {
    if method == Method::Trust {
        return;
    }
    let absent = Place::absent("users");
    if !names_users {
        findings.warning(&absent, "there is no user, so nobody can log in", "add [users.NAME] or auth.users_file");
    }
    for (name, secret) in users {
        if method == Method::ScramSha256 && matches!(secret, Secret::Md5(_)) {
            let what = format!("user \"{name}\" has an md5 hash, with which nobody can log in by scram-sha-256");
            findings.warning(
                &absent,
                what,
                "store the password or its SCRAM-SHA-256 verifier, or write method = \"md5\"",
            );
        }
    }
}

fn warn_of_trust(auth: &auth::Settings, listen: &[Listen], file: &keys::File<'_>, findings: &mut Findings) {
    let Some(open) = listen.iter().find(|listen| !address::is_local(listen)) else { return };
    if auth.method == Method::Trust {
        let place = file.auth.as_ref().map_or(Place::absent("auth"), |item| item.place.clone());
        let what = format!("everyone who reaches {open} is let in without a password");
        findings.warning(&place, what, "write method = \"scram-sha-256\", or listen on loopback only");
    }
}

fn log(file: &keys::File<'_>, outside: &Outside<'_>, findings: &mut Findings) -> Log {
    let raw = keys::Log::read(file.log.as_ref(), findings);
    let mut log = Log::default();
    raw.put(&mut log, findings);
    if let Some(level) = raw.level.as_ref().and_then(|item| log_level(item, outside, findings)) {
        log.level = level;
    }
    log
}

/// The levels of the log.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A bare word that is no level would be taken for a target by the library, so that a slip of the pen silences everything:
/// here it is a mistake, with its mend.
pub(super) fn stray_level(text: &str) -> Result<(), (String, String)> {
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let stray = text.split(',').map(str::trim).find(|word| !word.contains(['=', '[', ']']) && !is_level(word));
    let Some(word) = stray else { return Ok(()) };
    let known = LEVELS.join(" | ");
    let mend = match nearest_word(word, LEVELS) {
        Some(meant) => format!("did you mean \"{meant}\"? ({known})"),
        None => format!("write {known}, or for one target \"{word}=debug\""),
    };
    Err((format!("unknown level \"{word}\""), mend))
}

/// A level, or directives like `poolhouse::monitor=debug,info`.
fn log_level(item: &Item<'_>, outside: &Outside<'_>, findings: &mut Findings) -> Option<String> {
    let text = item.text(findings)?;
    if let Err((what, mend)) = stray_level(text) {
        findings.mistake(&item.place, what, mend);
        return None;
    }
    if let Err(why) = (outside.filter)(text) {
        findings.mistake(
            &item.place,
            format!("\"{text}\" is no log filter: {why}"),
            "write it like \"info\" or \"poolhouse::monitor=debug,info\"",
        );
        return None;
    }
    Some(text.to_owned())
}
