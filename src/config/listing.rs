//! The settings in force, key by key, for SHOW CONFIG. Secrets are left out.

use std::time::Duration;

use super::{
    Database, Effect, LogFormat, PoolOverride, Settings,
    check::{frontend_defaults, logins_for},
    value::spelled,
};
use crate::{
    admin::{self, Setting},
    monitor,
    net::Tcp,
    pool,
};
use poolhouse_core::{auth::Method, session, topology};

/// Every setting with its value, its default, and when a new value takes effect.
pub fn listing(settings: &Settings) -> Vec<Setting> {
    let mut lines = Lines::default();
    let (limits, default) = (&settings.frontend, frontend_defaults());
    lines.add(
        "server.listen",
        settings.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        "127.0.0.1:6432",
    );
    for (at, listener) in settings.listeners.iter().enumerate() {
        lines.add(format!("listener.{}.address", at + 1), listener.address.to_string(), "");
        lines.add(format!("listener.{}.route", at + 1), listener.route.name(), "auto");
    }
    lines.add("server.workers", settings.workers.to_string(), "0");
    lines.add("server.max_clients", limits.max_clients.to_string(), default.max_clients.to_string());
    let logins = logins_for(limits.max_clients, None);
    lines.add("server.max_logins", limits.logins.all.to_string(), logins.all.to_string());
    let usual = logins_for(limits.max_clients, Some(limits.logins.all)).per_address.to_string();
    lines.add("server.max_logins_per_address", limits.logins.per_address.to_string(), usual);
    lines.add("server.login_timeout", time(limits.login_timeout), time(default.login_timeout));
    lines.add("server.shutdown_timeout", time(limits.shutdown_timeout), time(default.shutdown_timeout));
    lines.tcp("server.tcp", limits.tcp, default.tcp);
    let method = match settings.auth.method {
        Method::Trust => "trust",
        Method::Md5 => "md5",
        Method::ScramSha256 => "scram-sha-256",
    };
    lines.add("auth.method", method, "scram-sha-256");
    for name in settings.auth.users.keys() {
        lines.add(format!("users.{name}.password"), "(hidden)", "");
    }
    for (name, pool) in &settings.user_pools {
        lines.user_pool(&format!("users.{name}.pool"), pool);
    }
    for (name, database) in &settings.databases {
        lines.database(&format!("databases.{name}"), database, settings);
    }
    for cluster in &settings.clusters {
        lines.cluster(&format!("clusters.{}", cluster.name), cluster);
    }
    lines.add("admin.users", settings.admin.users.join(","), "");
    lines.add("admin.stats_users", settings.admin.stats_users.join(","), "");
    let (reserved, default) = (settings.admin.reserved, admin::Settings::default().reserved);
    lines.add("admin.reserved", reserved.to_string(), default.to_string());
    lines.add("admin.pgbouncer_version", settings.admin.pgbouncer_version.clone().unwrap_or_default(), "");
    let http = settings.admin.http.as_ref();
    lines.add("admin.http", http.map(|http| http.address.to_string()).unwrap_or_default(), "127.0.0.1:6433");
    let token = http.is_some_and(|http| http.token.is_some());
    lines.add("admin.token", if token { "(hidden)" } else { "" }, "");
    lines.add("log.level", settings.log.level.clone(), "info");
    let format = match settings.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    lines.add("log.format", format, "text");
    lines.add("log.slow", limit(settings.log.slow), "0s");
    lines.add("log.slow_values", settings.log.slow_values.to_string(), "false");
    lines.add("log.connections", settings.log.connections.to_string(), "false");
    // What PgBouncer's exporters look for, by its names.
    lines.add("max_client_conn", limits.max_clients.to_string(), "100");
    lines.add("max_user_connections", "0", "0");
    lines.0
}

#[derive(Default)]
struct Lines(Vec<Setting>);

impl Lines {
    fn add(&mut self, key: impl Into<String>, value: impl Into<String>, default: impl Into<String>) {
        let key = key.into();
        let takes_effect = match effect(&key) {
            Effect::Now => "at once",
            Effect::NewSessions => "new sessions",
            Effect::Restart => "restart",
        };
        self.0.push(Setting { key, value: value.into(), default: default.into(), takes_effect });
    }

    fn database(&mut self, key: &str, database: &Database, settings: &Settings) {
        let cluster = settings.clusters.get(database.cluster).map_or("", |cluster| cluster.name.as_str());
        self.add(format!("{key}.cluster"), cluster, "");
        self.add(format!("{key}.database"), database.database.clone().unwrap_or_default(), "");
        let user = database.login.as_ref().map(|login| login.user.clone());
        self.add(format!("{key}.user"), user.unwrap_or_default(), "");
        let password = database.login.as_ref().is_some_and(|login| login.password.is_some());
        self.add(format!("{key}.password"), if password { "(hidden)" } else { "" }, "");
        let (pool, default) = (&database.pool, pool::Settings::default());
        self.add(format!("{key}.pool.size"), pool.size.to_string(), default.size.to_string());
        self.add(format!("{key}.pool.min_idle"), pool.min_idle.to_string(), default.min_idle.to_string());
        for (name, value, default) in [
            ("checkout_timeout", pool.checkout_timeout, default.checkout_timeout),
            ("wait_notice", pool.wait_notice, default.wait_notice),
            ("idle_timeout", pool.idle_timeout, default.idle_timeout),
            ("check_delay", pool.check_delay, default.check_delay),
            ("max_lifetime", pool.max_lifetime, default.max_lifetime),
        ] {
            self.add(format!("{key}.pool.{name}"), limit(value), limit(default));
        }
        let (own, default) = (&database.session, session::Settings::default());
        self.add(format!("{key}.pool.mode"), lower(own.mode), lower(default.mode));
        for (name, value, default) in [
            ("query_timeout", own.query_timeout, default.query_timeout),
            ("idle_transaction_timeout", own.idle_transaction_timeout, default.idle_transaction_timeout),
            ("client_idle_timeout", own.client_idle_timeout, default.client_idle_timeout),
            ("pin_timeout", own.pin_timeout, default.pin_timeout),
        ] {
            self.add(format!("{key}.pool.{name}"), limit(value), limit(default));
        }
        let (statements, default) = (own.prepared_statements, default.prepared_statements);
        self.add(format!("{key}.pool.prepared_statements"), statements.to_string(), default.to_string());
        self.add(format!("{key}.pool.on_pin"), lower(own.on_pin), lower(session::Settings::default().on_pin));
        self.routing(&format!("{key}.routing"), &database.routing);
    }

    /// What is other than the database's own.
    fn user_pool(&mut self, key: &str, pool: &PoolOverride) {
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                self.add(format!("{key}.{name}"), value, "");
            }
        };
        add("mode", pool.mode.map(lower));
        add("size", pool.size.map(|size| size.to_string()));
        add("min_idle", pool.min_idle.map(|size| size.to_string()));
        add("checkout_timeout", pool.checkout_timeout.map(limit));
        add("wait_notice", pool.wait_notice.map(limit));
        add("idle_timeout", pool.idle_timeout.map(limit));
        add("check_delay", pool.check_delay.map(limit));
        add("max_lifetime", pool.max_lifetime.map(limit));
        add("query_timeout", pool.query_timeout.map(limit));
        add("idle_transaction_timeout", pool.idle_transaction_timeout.map(limit));
        add("client_idle_timeout", pool.client_idle_timeout.map(limit));
        add("on_pin", pool.on_pin.map(lower));
        add("pin_timeout", pool.pin_timeout.map(limit));
        add("prepared_statements", pool.prepared_statements.map(|most| most.to_string()));
    }

    fn routing(&mut self, key: &str, routing: &topology::Routing) {
        let default = topology::Routing::default();
        let mut add = |name: &str, of: &dyn Fn(&topology::Routing) -> String| {
            self.add(format!("{key}.{name}"), of(routing), of(&default));
        };
        add("reads", &|it| kebab(it.reads));
        add("balance", &|it| kebab(it.balance));
        add("max_lag", &|it| {
            let bytes = it.max_lag_bytes.map(|bytes| format!("{bytes}B"));
            let limits = it.max_lag.map(time).into_iter().chain(bytes).collect::<Vec<_>>();
            if limits.is_empty() { "0s".to_owned() } else { limits.join(",") }
        });
        add("consistency", &|it| kebab(it.consistency));
        add("causal_wait", &|it| time(it.causal_wait));
        add("fallback", &|it| it.fallback.to_string());
        add("transactions", &|it| kebab(it.transactions));
        add("read_functions", &|it| joined(&it.lists.read_functions));
        add("write_functions", &|it| joined(&it.lists.write_functions));
        add("primary_tables", &|it| joined(&it.lists.primary_tables));
        for (at, rule) in routing.rules.iter().enumerate() {
            let key = format!("{key}.rules.{}", at + 1);
            let whose =
                [("user", &rule.user), ("database", &rule.database), ("application_name", &rule.application_name)];
            for (name, pattern) in whose {
                if let Some(pattern) = pattern {
                    self.add(format!("{key}.{name}"), pattern.to_string(), "");
                }
            }
            if let Some(route) = rule.route {
                self.add(format!("{key}.route"), kebab(route), "");
            }
            if let Some(weights) = &rule.weights {
                self.add(format!("{key}.weights"), joined(weights), "");
            }
        }
    }

    fn tcp(&mut self, key: &str, tcp: Tcp, default: Tcp) {
        self.add(format!("{key}.keepalive_idle"), limit(tcp.keepalive_idle), limit(default.keepalive_idle));
        self.add(format!("{key}.keepalive_interval"), time(tcp.keepalive_interval), time(default.keepalive_interval));
        let count = |tcp: Tcp| tcp.keepalive_count.to_string();
        self.add(format!("{key}.keepalive_count"), count(tcp), count(default));
        self.add(format!("{key}.user_timeout"), limit(tcp.user_timeout), limit(default.user_timeout));
    }

    fn cluster(&mut self, key: &str, cluster: &monitor::Settings) {
        let nodes = cluster.topology.nodes.iter().zip(&cluster.addresses);
        let nodes: Vec<_> = nodes.filter(|(node, _)| !node.gone).collect();
        let names: Vec<String> = nodes.iter().map(|(_, address)| address.to_string()).collect();
        self.add(format!("{key}.nodes"), names.join(","), "");
        for (node, address) in nodes {
            self.add(format!("{key}.nodes.{address}.weight"), node.weight.to_string(), "1");
            let role = node.role.map(kebab).unwrap_or_default();
            self.add(format!("{key}.nodes.{address}.role"), role, "");
        }
        self.add(format!("{key}.connect_timeout"), time(cluster.connect_timeout), "5s");
        self.add(format!("{key}.health.database"), cluster.health.database.clone(), "");
        self.add(format!("{key}.health.password"), cluster.health.password.as_ref().map_or("", |_| "(hidden)"), "");
        self.add(format!("{key}.health.failures"), cluster.topology.failures.to_string(), "3");
        self.add(format!("{key}.max_connections"), cluster.max_connections.to_string(), "90");
        self.add(format!("{key}.health.user"), cluster.health.user.clone(), "");
        self.add(format!("{key}.health.interval"), time(cluster.health.interval), "1s");
        self.add(format!("{key}.health.timeout"), time(cluster.health.timeout), "1s");
        self.add(format!("{key}.failover.mode"), lower(cluster.topology.failover), "follow");
        self.add(format!("{key}.failover.hold"), time(cluster.hold), "30s");
        self.add(format!("{key}.failover.witness_silence"), limit(cluster.topology.silence), "3s");
        let fence = if cluster.fence_limit.is_some() { "strict" } else { "detect" };
        self.add(format!("{key}.failover.fence"), fence, "detect");
        if let Some(limit) = cluster.fence_limit {
            self.add(format!("{key}.failover.fence_limit"), time(limit), "3s");
        }
        self.tcp(&format!("{key}.tcp"), cluster.tcp, Tcp::TO_SERVERS);
    }
}

fn lower(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

/// As the file spells a choice: `LeastBusy` is "least-busy".
fn kebab(value: impl std::fmt::Debug) -> String {
    let name = format!("{value:?}");
    let mut spelled = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_uppercase() && at > 0 {
            spelled.push('-');
        }
        spelled.extend(letter.to_lowercase());
    }
    spelled
}

fn joined(items: &[impl std::fmt::Display]) -> String {
    items.iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

/// When a new value of a setting takes effect; as [`super::changes`] does it.
fn effect(key: &str) -> Effect {
    const LENDING: [&str; 7] =
        ["size", "min_idle", "checkout_timeout", "wait_notice", "idle_timeout", "check_delay", "max_lifetime"];
    let key = key.to_ascii_lowercase();
    let lends = |key: &str| key.rsplit_once(".pool.").is_some_and(|(_, last)| LENDING.contains(&last));
    match key.split_once('.').unwrap_or((&key, "")) {
        ("databases", rest) if lends(rest) => Effect::Now,
        ("databases" | "users" | "auth", _) => Effect::NewSessions,
        ("admin", "users" | "stats_users") => Effect::NewSessions,
        ("server", rest) if rest.starts_with("tcp.") => Effect::Now,
        ("clusters", rest) if rest.contains(".tcp.") => Effect::Restart,
        ("server", "max_clients" | "max_logins" | "max_logins_per_address" | "login_timeout" | "shutdown_timeout") => {
            Effect::Now
        }
        ("clusters", rest) if rest.ends_with(".connect_timeout") => Effect::Restart,
        ("clusters", _) => Effect::Now,
        ("admin", "reserved" | "pgbouncer_version") | ("log", "level" | "slow" | "slow_values" | "connections") => {
            Effect::Now
        }
        _ => Effect::Restart,
    }
}

/// As in the file.
fn time(duration: Duration) -> String {
    spelled(duration)
}

fn limit(limit: Option<Duration>) -> String {
    time(limit.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{changes, tests::right};

    const BASE: &str = "[auth]\nmethod = \"trust\"\n[clusters.main]\nnodes = [\"a\", \"b\"]\n";

    fn settings(more: &str) -> Settings {
        right(&format!("{BASE}{more}"))
    }

    #[test]
    fn what_is_said_to_take_effect_does_so_when() {
        for (before, after) in [
            (
                "[databases.app]\n[log]\nlevel = \"debug\"\nslow = \"1s\"\nslow_values = true\n",
                "[databases.app]\n[log]\nconnections = true\n",
            ),
            ("[databases.app.pool]\nsize = 3\nmin_idle = 1\n", "[databases.app.pool]\nidle_timeout = \"1m\"\n"),
            ("[databases.app.pool]\nmode = \"session\"\n", "[databases.app.pool]\non_pin = \"refuse\"\n"),
            (
                "[databases.app.routing]\nreads = \"primary\"\n",
                "[databases.app.routing]\nread_functions = [\"/^get_/\"]\n",
            ),
            (
                "[databases.app]\n[admin]\nusers = [\"a\"]\nhttp = \"127.0.0.1:1\"\n",
                "[databases.app]\n[admin]\nstats_users = [\"b\"]\n",
            ),
            (
                "[databases.app]\n[users.a]\npassword = \"x\"\n",
                "[databases.app]\n[users.a]\npassword = \"x\"\npool.size = 3\n",
            ),
            (
                "[databases.app]\n[server]\nmax_clients = 7\nworkers = 3\n",
                "[databases.app]\n[log]\nformat = \"json\"\n",
            ),
            (
                "[databases.app]\n[clusters.main.health]\nfailures = 7\n",
                "[databases.app]\n[clusters.main.failover]\nhold = \"1s\"\n",
            ),
        ] {
            let (old, new) = (settings(before), settings(after));
            let (was, is) = (listing(&old), listing(&new));
            let (told, _) = changes(&old, new);
            let value = |of: &[Setting], key: &str| of.iter().find(|it| it.key == key).map(|it| it.value.clone());
            let differ: Vec<_> =
                was.iter().chain(&is).filter(|it| value(&was, &it.key) != value(&is, &it.key)).collect();
            assert!(!differ.is_empty(), "{before}");
            for setting in differ {
                let change = told.iter().filter(|change| setting.key.starts_with(&change.key));
                // What a database and its pool share is told of the database.
                let change = change.max_by_key(|change| change.key.len());
                let Some(change) = change else { continue };
                let expected = match change.effect {
                    Effect::Now => "at once",
                    Effect::NewSessions => "new sessions",
                    Effect::Restart => "restart",
                };
                assert_eq!(setting.takes_effect, expected, "{} in {before}", setting.key);
            }
        }
    }

    #[test]
    fn every_key_of_the_reference_is_listed_and_no_secret() {
        let text = "[server]\nlisten = [\"127.0.0.1:1\"]\n[[listener]]\naddress = \"127.0.0.1:2\"\nroute = \"replica\"\n\
                    [[clusters.main.routing.rules]]\nuser = \"/^report/\"\nroute = \"replica\"\n\
                    [clusters.main.health]\nuser = \"h\"\npassword = \"hush\"\n\
                    [databases.app]\nuser = \"u\"\npassword = \"hush\"\n[users.a]\npassword = \"hush\"\npool.size = 3\n\
                    [admin]\nhttp = \"127.0.0.1:3\"\ntoken = \"hush\"\n";
        let listed = listing(&settings(text));
        assert!(listed.iter().all(|setting| !setting.value.contains("hush")), "{listed:?}");
        for (key, value) in [
            ("listener.1.route", "replica"),
            ("databases.app.routing.rules.1.user", "/^report/"),
            ("databases.app.routing.rules.1.route", "replica"),
            ("databases.app.routing.balance", "least-busy"),
            ("databases.app.routing.max_lag", "10s"),
            ("databases.app.password", "(hidden)"),
            ("users.a.password", "(hidden)"),
            ("users.a.pool.size", "3"),
            ("clusters.main.health.password", "(hidden)"),
            ("clusters.main.nodes.a:5432.weight", "1"),
            ("clusters.main.health.failures", "3"),
            ("admin.token", "(hidden)"),
            ("log.slow", "0s"),
            ("log.slow_values", "false"),
        ] {
            let found = listed.iter().find(|setting| setting.key == key).map(|setting| setting.value.as_str());
            assert_eq!(found, Some(value), "{key}");
        }
    }
}
