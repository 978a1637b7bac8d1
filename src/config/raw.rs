//! The file as it is written: which sections there are and which keys each may hold, with the line of every value.
//! Unknown keys and broken TOML are found here; what the values mean is for `check` and its parts.

use toml::de::{DeTable, DeValue};

use super::mistake::{Findings, Place};
use poolhouse_core::session::nearest;

/// One value of the file and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Item<'d> {
    pub place: Place,
    pub value: &'d DeValue<'d>,
}

/// Declares a section: its keys become fields, and every other key of its table is a mistake.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident at $at:literal { $($key:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default)]
        pub(super) struct $name<'d> {
            $(pub $key: Option<Item<'d>>,)*
        }

        impl<'d> $name<'d> {
            const KEYS: Keys = Keys { section: $at, keys: &[$(stringify!($key)),*] };

            /// An absent section is an empty one.
            pub fn read(item: Option<&Item<'d>>, findings: &mut Findings) -> Self {
                let mut section = Self::default();
                let Some(item) = item else { return section };
                for entry in item.entries(findings) {
                    match entry.name {
                        $(stringify!($key) => section.$key = Some(entry.item),)*
                        _ => unknown_key(&entry, &item.place, &Self::KEYS, findings),
                    }
                }
                section
            }
        }
    };
}

section!(File at "" { server, listener, tls, auth, pool, clusters, databases, users, admin, coordination, log });
section!(
    Server at "server" {
        listen, workers, max_clients, max_logins, max_logins_per_address, login_timeout, shutdown_timeout, tcp, zone,
    }
);
section!(
    /// `[server.tcp]` and `[clusters.X.tcp]`.
    Tcp at "server.tcp" { keepalive_idle, keepalive_interval, keepalive_count, user_timeout }
);
section!(
    /// An entry of `[[listener]]`.
    Listener at "listener" { address, route }
);
section!(
    /// Nothing but `mode = "disable"` is available yet.
    Tls at "tls" { mode, certificate, private_key, client_ca }
);
section!(Auth at "auth" { method, users_file, hba_file, query, query_user });
section!(
    /// `[pool]`, `[databases.X.pool]` and `[users.X.pool]`.
    Pool at "pool" {
        mode, size, min_idle, checkout_timeout, wait_notice, idle_timeout, check_delay, max_lifetime, query_timeout,
        idle_transaction_timeout, client_idle_timeout, on_pin, pin_timeout, prepared_statements,
    }
);
section!(Cluster at "clusters.*" { nodes, max_connections, connect_timeout, tcp, tls, health, failover, routing });
section!(
    /// An entry of `nodes` that is a table.
    Node at "clusters.*.nodes" { address, weight, role, zone }
);
section!(ClusterTls at "clusters.*.tls" { mode, ca });
section!(Health at "clusters.*.health" { user, password, database, interval, timeout, failures });
section!(Failover at "clusters.*.failover" { mode, hold, witness_silence, fence, fence_limit, patroni });
section!(
    /// `[clusters.X.routing]` and `[databases.X.routing]`.
    Routing at "clusters.*.routing" {
        reads, balance, max_lag, consistency, causal_wait, fallback, transactions, read_functions, write_functions,
        primary_tables, rules,
    }
);
section!(
    /// An entry of `[[clusters.X.routing.rules]]`.
    Rule at "clusters.*.routing.rules" { user, database, application_name, route, weights }
);
section!(Database at "databases.*" { cluster, database, user, password, pool, routing });
section!(User at "users.*" { password, pool });
section!(Admin at "admin" { http, token, users, stats_users, reserved, pgbouncer_version });
section!(
    /// Not available yet.
    Coordination at "coordination" { etcd, namespace, node }
);
section!(Log at "log" { level, format, slow, slow_values, connections });

/// Every section and its keys; `*` stands for a name that the user chooses.
pub(super) const SECTIONS: &[Keys] = &[
    File::KEYS,
    Server::KEYS,
    Tcp::KEYS,
    Listener::KEYS,
    Tls::KEYS,
    Auth::KEYS,
    Pool::KEYS,
    Cluster::KEYS,
    Node::KEYS,
    ClusterTls::KEYS,
    Health::KEYS,
    Failover::KEYS,
    Routing::KEYS,
    Rule::KEYS,
    Database::KEYS,
    User::KEYS,
    Admin::KEYS,
    Coordination::KEYS,
    Log::KEYS,
];

/// The keys that one section may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    pub section: &'static str,
    pub keys: &'static [&'static str],
}

/// A key of a table.
#[derive(Debug, Clone)]
pub(super) struct Entry<'d> {
    pub name: &'d str,
    pub item: Item<'d>,
}

impl<'d> Item<'d> {
    /// The keys of a table in the order in which they were written; a value that is no table is a mistake.
    pub fn entries(&self, findings: &mut Findings) -> Vec<Entry<'d>> {
        let DeValue::Table(table) = self.value else {
            self.wrong_kind("a table", &format!("write it as a section [{}]", self.place.key), findings);
            return Vec::new();
        };
        entries(table, &self.place.key, findings)
    }

    /// Says that the value is of another kind than the key wants.
    pub fn wrong_kind(&self, wanted: &str, mend: &str, findings: &mut Findings) {
        let kind = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        findings.mistake(&self.place, format!("is {kind} where {wanted} is expected"), mend);
    }
}

/// Parses the file. Broken lines are reported and left out; `None` when what is left would only mislead.
pub(super) fn parse<'d>(text: &'d str, findings: &mut Findings) -> Option<DeValue<'d>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut broken = false;
    let mut lines = Vec::new();
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        let line = findings.line(offset);
        if lines.contains(&line) {
            continue;
        }
        lines.push(line);
        let is_duplicate = error.message().starts_with("duplicate key");
        broken |= !is_duplicate;
        report_broken(&error, text, line, findings);
    }
    (!broken).then(|| DeValue::Table(document.into_inner()))
}

fn report_broken(error: &toml::de::Error, text: &str, line: usize, findings: &mut Findings) {
    let mut place = Place { key: String::new(), line: Some(line) };
    if !error.message().starts_with("duplicate key") {
        findings.mistake(&place, format!("not TOML: {}", error.message()), "see https://toml.io for how it is written");
        return;
    }
    place.key = error.span().and_then(|span| text.get(span)).unwrap_or_default().trim().to_owned();
    findings.mistake(&place, "is already there", "keep one of them");
}

fn entries<'d>(table: &'d DeTable<'d>, path: &str, findings: &Findings) -> Vec<Entry<'d>> {
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    let entry = |(key, value): (&'d toml::Spanned<toml::de::DeString<'d>>, &'d toml::Spanned<DeValue<'d>>)| {
        let name: &str = key.get_ref();
        let place = Place { key: join(path, name), line: Some(findings.line(key.span().start)) };
        Entry { name, item: Item { place, value: value.get_ref() } }
    };
    keys.into_iter().map(entry).collect()
}

/// The path of a key as TOML would have it.
pub(super) fn join(path: &str, name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let name = if is_bare { name.to_owned() } else { format!("{name:?}") };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

fn unknown_key(entry: &Entry<'_>, section: &Place, known: &Keys, findings: &mut Findings) {
    let at_top = known.section.is_empty();
    let what = match (entry.item.value, at_top) {
        (DeValue::Table(_), true) => format!("unknown section [{}]", entry.name),
        (_, true) => format!("unknown key `{}` outside of any section", entry.name),
        (_, false) => format!("unknown key `{}` in [{}]", entry.name, section.key),
    };
    let elsewhere = || SECTIONS.iter().find(|keys| !keys.section.is_empty() && keys.keys.contains(&entry.name));
    // Outside of any section are sections only: what is a key by its very name is no slip of the pen.
    let near = || nearest(entry.name, known.keys.iter().copied());
    let mend = if let Some(meant) = near().filter(|_| !at_top || elsewhere().is_none()) {
        format!("did you mean `{meant}`?")
    } else if let Some(keys) = elsewhere() {
        format!("it belongs to [{}]", keys.section.replace('*', "X"))
    } else {
        format!("known are {}", known.keys.join(", "))
    };
    findings.mistake(&entry.item.place, what, mend);
}
