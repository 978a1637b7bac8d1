//! The settings in force, key by key, for SHOW CONFIG, as they are declared. Secrets are left out.

use super::{
    Database, Effect, PoolOverride, Pooling, Settings,
    check::logins_for,
    cluster,
    declare::{Field, Section, Usual},
    keys,
    kind::{Kind, joined},
    value::spelled,
};
use crate::{
    admin::Setting,
    monitor,
    net::{ClientTlsFiles, Tcp, TlsFiles},
};
use poolhouse_core::topology::{Role, Routing, RoutingRule};

/// Every setting with its value, its default, and when a new value takes effect.
pub fn listing(settings: &Settings) -> Vec<Setting> {
    let mut lines = Lines::default();
    let (limits, mut usual) = (&settings.frontend, Settings::default());
    usual.frontend.logins.all = logins_for(limits.max_clients, None).all;
    usual.frontend.logins.per_address = logins_for(limits.max_clients, Some(limits.logins.all)).per_address;
    lines.section("server", keys::Server::FIELDS, settings, &usual, None);
    let effect = keys::Server::SECTION.effect("tcp");
    lines.section("server.tcp", keys::Tcp::FIELDS, &limits.tcp, &usual.frontend.tcp, Some(effect));
    lines.section("tls", keys::Tls::FIELDS, limits.tls.files(), &ClientTlsFiles::default(), None);
    for (at, listener) in settings.listeners.iter().enumerate() {
        let mut line = lines.by_hand(format!("listener.{}", at + 1), keys::Listener::SECTION);
        line("address", listener.address.to_string());
        line("route", listener.route.name().to_owned());
    }
    lines.section("auth", keys::Auth::FIELDS, &settings.auth, &usual.auth, None);
    for name in settings.auth.users.keys() {
        lines.by_hand(format!("users.{name}"), keys::User::SECTION)("password", "(hidden)".to_owned());
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
    lines.section("admin", keys::Admin::FIELDS, &settings.admin, &usual.admin, None);
    let token = settings.admin.http.as_ref().is_some_and(|http| http.token.is_some());
    lines.by_hand("admin", keys::Admin::SECTION)("token", if token { "(hidden)" } else { "" }.to_owned());
    lines.section("log", keys::Log::FIELDS, &settings.log, &usual.log, None);
    // What PgBouncer's exporters look for, by its names.
    lines.add("max_client_conn", limits.max_clients.to_string(), "100", Effect::Restart);
    lines.add("max_user_connections", "0", "0", Effect::Restart);
    lines.0
}

#[derive(Default)]
struct Lines(Vec<Setting>);

impl Lines {
    fn add(&mut self, key: impl Into<String>, value: impl Into<String>, default: impl Into<String>, effect: Effect) {
        let (key, value, default) = (key.into(), value.into(), default.into());
        self.0.push(Setting { key, value, default, takes_effect: effect.words() });
    }

    /// All keys of a section but for sections in it. `effect` is when a change of the section takes effect, if that is not
    /// for each key to say.
    fn section<T>(&mut self, at: &str, fields: &[Field<T>], value: &T, usual: &T, effect: Option<Effect>) {
        for Field { key, value: held } in fields {
            let Some(held) = held.as_ref().filter(|_| !(key.shape)().is_section()) else { continue };
            let default = match key.usual {
                Usual::Default => (held.show)(usual),
                other => other.shown(),
            };
            self.add(format!("{at}.{}", key.name), (held.show)(value), default, effect.unwrap_or(key.effect));
        }
    }

    /// Keys of which no settings are kept under their names.
    fn by_hand(&mut self, at: impl Into<String>, section: Section) -> impl FnMut(&str, String) {
        let at = at.into();
        move |name, value| {
            let default = section.key(name).map_or(String::new(), |key| key.usual.shown());
            self.add(format!("{at}.{name}"), value, default, section.effect(name));
        }
    }

    fn database(&mut self, at: &str, database: &Database, settings: &Settings) {
        let cluster = settings.clusters.get(database.cluster).map_or("", |cluster| cluster.name.as_str());
        self.by_hand(at, keys::Database::SECTION)("cluster", cluster.to_owned());
        // Of all its keys in it none has a default.
        self.section(at, keys::Database::FIELDS, database, database, None);
        let pooling = Pooling { lending: database.pool.clone(), session: database.session.clone() };
        self.section(&format!("{at}.pool"), keys::Pool::FIELDS, &pooling, &Pooling::default(), None);
        let at = format!("{at}.routing");
        self.section(&at, keys::Routing::FIELDS, &database.routing, &Routing::default(), None);
        for (number, rule) in database.routing.rules.iter().enumerate() {
            self.rule(format!("{at}.rules.{}", number + 1), rule);
        }
    }

    fn rule(&mut self, at: String, rule: &RoutingRule) {
        let mut line = self.by_hand(at, keys::Rule::SECTION);
        let whose = [("user", &rule.user), ("database", &rule.database), ("application_name", &rule.application_name)];
        for (name, pattern) in whose {
            if let Some(pattern) = pattern {
                line(name, pattern.to_string());
            }
        }
        if let Some(route) = &rule.route {
            line("route", keys::PREFERENCES.show(route));
        }
        if let Some(weights) = &rule.weights {
            line("weights", joined(weights));
        }
    }

    /// What is other than the database's own.
    fn user_pool(&mut self, at: &str, pool: &PoolOverride) {
        for (name, value) in pool.shown() {
            self.add(format!("{at}.{name}"), value, "", keys::User::SECTION.effect("pool"));
        }
    }

    fn cluster(&mut self, at: &str, cluster: &monitor::Settings) {
        let nodes = cluster.topology.nodes.iter().zip(&cluster.addresses);
        let nodes: Vec<_> = nodes.filter(|(node, _)| !node.gone).collect();
        let names: Vec<String> = nodes.iter().map(|(_, address)| address.to_string()).collect();
        self.by_hand(at, keys::Cluster::SECTION)("nodes", names.join(","));
        for (node, address) in nodes {
            let mut line = self.by_hand(format!("{at}.nodes.{address}"), keys::Node::SECTION);
            line("weight", node.weight.to_string());
            line("role", node.role.as_ref().map(|role: &Role| keys::ROLES.show(role)).unwrap_or_default());
        }
        let usual = cluster::defaults("", Vec::new(), Vec::new());
        self.section(at, keys::Cluster::FIELDS, cluster, &usual, None);
        let effect = keys::Cluster::SECTION.effect("tcp");
        self.section(&format!("{at}.tcp"), keys::Tcp::FIELDS, &cluster.tcp, &Tcp::TO_SERVERS, Some(effect));
        let files = cluster.tls.files();
        self.section(&format!("{at}.tls"), keys::ClusterTls::FIELDS, files, &TlsFiles::default(), None);
        self.section(&format!("{at}.health"), keys::Health::FIELDS, cluster, &usual, None);
        let at = format!("{at}.failover");
        self.section(&at, keys::Failover::FIELDS, cluster, &usual, None);
        if let Some(limit) = &cluster.fence_limit {
            self.by_hand(at, keys::Failover::SECTION)("fence_limit", spelled(*limit));
        }
    }
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
