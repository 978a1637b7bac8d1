//! The settings in force, key by key, for SHOW CONFIG. Secrets are left out.

use std::time::Duration;

use super::{Database, LogFormat, Settings, check::frontend_defaults, value::spelled};
use crate::{admin::Setting, auth::Method, monitor, pool, session};

/// Every setting with its value and its default. Only the log's level can be changed while Poolhouse runs.
pub fn listing(settings: &Settings) -> Vec<Setting> {
    let mut lines = Lines::default();
    let (limits, default) = (&settings.frontend, frontend_defaults());
    lines.add(
        "server.listen",
        settings.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        "127.0.0.1:6432",
    );
    lines.add("server.workers", settings.workers.to_string(), "0");
    lines.add("server.max_clients", limits.max_clients.to_string(), default.max_clients.to_string());
    lines.add("server.login_timeout", time(limits.login_timeout), time(default.login_timeout));
    lines.add("server.shutdown_timeout", time(limits.shutdown_timeout), time(default.shutdown_timeout));
    let method = match settings.auth.method {
        Method::Trust => "trust",
        Method::Md5 => "md5",
        Method::ScramSha256 => "scram-sha-256",
    };
    lines.add("auth.method", method, "scram-sha-256");
    for (name, database) in &settings.databases {
        lines.database(&format!("databases.{name}"), database, settings);
    }
    for cluster in &settings.clusters {
        lines.cluster(&format!("clusters.{}", cluster.name), cluster);
    }
    lines.add("admin.users", settings.admin.users.join(","), "");
    lines.add("admin.stats_users", settings.admin.stats_users.join(","), "");
    lines.add("admin.pgbouncer_version", settings.admin.pgbouncer_version.clone().unwrap_or_default(), "");
    lines.add("log.level", settings.log.level.clone(), "info");
    lines.0.iter_mut().filter(|line| line.key == "log.level").for_each(|line| line.changeable = true);
    let format = match settings.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    lines.add("log.format", format, "text");
    lines.add("log.slow", limit(settings.log.slow), "0s");
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
        self.0.push(Setting { key: key.into(), value: value.into(), default: default.into(), changeable: false });
    }

    fn database(&mut self, key: &str, database: &Database, settings: &Settings) {
        let cluster = settings.clusters.get(database.cluster).map_or("", |cluster| cluster.name.as_str());
        self.add(format!("{key}.cluster"), cluster, "");
        self.add(format!("{key}.database"), database.database.clone().unwrap_or_default(), "");
        let user = database.login.as_ref().map(|login| login.user.clone());
        self.add(format!("{key}.user"), user.unwrap_or_default(), "");
        let (pool, default) = (&database.pool, pool::Settings::default());
        self.add(format!("{key}.pool.size"), pool.size.to_string(), default.size.to_string());
        self.add(format!("{key}.pool.min_idle"), pool.min_idle.to_string(), default.min_idle.to_string());
        for (name, value, default) in [
            ("checkout_timeout", pool.checkout_timeout, default.checkout_timeout),
            ("idle_timeout", pool.idle_timeout, default.idle_timeout),
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
    }

    fn cluster(&mut self, key: &str, cluster: &monitor::Settings) {
        let nodes: Vec<String> = cluster.addresses.iter().map(ToString::to_string).collect();
        self.add(format!("{key}.nodes"), nodes.join(","), "");
        self.add(format!("{key}.max_connections"), cluster.max_connections.to_string(), "90");
        self.add(format!("{key}.health.user"), cluster.health.user.clone(), "");
        self.add(format!("{key}.health.interval"), time(cluster.health.interval), "1s");
        self.add(format!("{key}.health.timeout"), time(cluster.health.timeout), "1s");
        self.add(format!("{key}.failover.mode"), lower(cluster.topology.failover), "follow");
        self.add(format!("{key}.failover.hold"), time(cluster.hold), "30s");
    }
}

fn lower(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

/// As in the file.
fn time(duration: Duration) -> String {
    spelled(duration)
}

fn limit(limit: Option<Duration>) -> String {
    time(limit.unwrap_or_default())
}
