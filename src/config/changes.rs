//! What a new configuration changes, as data: which of it takes effect while Poolhouse runs, and which needs a restart.

use std::collections::BTreeSet;

use super::{Database, Log, Settings};
use crate::{monitor, topology};

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    pub effect: Effect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// At once.
    Now,
    /// For those who log in from now on.
    NewSessions,
    Restart,
}

impl std::fmt::Display for Change {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let effect = match self.effect {
            Effect::Now => "changed",
            Effect::NewSessions => "changed for new sessions",
            Effect::Restart => "needs a restart",
        };
        write!(formatter, "{}: {effect}", self.key)
    }
}

/// What differs, and the settings that are in force then: the old ones, but for what takes effect.
pub fn changes(old: &Settings, new: Settings) -> (Vec<Change>, Settings) {
    let mut changes = Vec::new();
    let mut note = |differs: bool, key: &str, effect: Effect| {
        if differs {
            changes.push(Change { key: key.to_owned(), effect });
        }
    };
    let (was, is) = (&old.frontend, &new.frontend);
    note(old.listen != new.listen, "server.listen", Effect::Restart);
    note(old.listeners != new.listeners, "listener", Effect::Restart);
    note(old.workers != new.workers, "server.workers", Effect::Restart);
    note(was.max_clients != is.max_clients, "server.max_clients", Effect::Now);
    note(was.login_timeout != is.login_timeout, "server.login_timeout", Effect::Now);
    note(was.shutdown_timeout != is.shutdown_timeout, "server.shutdown_timeout", Effect::Now);
    note(old.auth.method != new.auth.method, "auth.method", Effect::NewSessions);
    for name in names(old.auth.users.keys(), new.auth.users.keys()) {
        let differs = old.auth.users.get(name) != new.auth.users.get(name);
        note(differs, &format!("users.{name}"), Effect::NewSessions);
    }
    for name in names(old.user_pools.keys(), new.user_pools.keys()) {
        let of = |settings: &Settings| settings.user_pools.get(name).cloned().unwrap_or_default();
        let differs = of(old) != of(&new);
        note(differs, &format!("users.{name}.pool"), Effect::NewSessions);
    }
    let by_name =
        |settings: &Settings, name: &str| settings.clusters.iter().find(|cluster| cluster.name == name).cloned();
    let mut clusters = old.clusters.clone();
    for name in names(old.clusters.iter().map(|it| &it.name), new.clusters.iter().map(|it| &it.name)) {
        let (was, is) = (by_name(old, name).map(without_routing), by_name(&new, name).map(without_routing));
        if was == is {
            continue;
        }
        match was.zip(is).map(|(was, is)| (with_live_parts_of(was, &is), is)) {
            Some((live, is)) => {
                note(live.1, &format!("clusters.{name}"), Effect::Now);
                for (key, differs) in [
                    ("nodes", live.0.addresses != is.addresses || live.0.topology.nodes != is.topology.nodes),
                    ("connect_timeout", live.0.connect_timeout != is.connect_timeout),
                ] {
                    note(differs, &format!("clusters.{name}.{key}"), Effect::Restart);
                }
                clusters.iter_mut().filter(|cluster| cluster.name == *name).for_each(|cluster| {
                    *cluster = monitor::Settings { routing: cluster.routing.clone(), ..live.0.clone() };
                });
            }
            None => note(true, &format!("clusters.{name}"), Effect::Restart),
        }
    }
    let mut databases = old.databases.clone();
    for name in names(old.databases.keys(), new.databases.keys()) {
        let effect = match (old.databases.get(name), new.databases.get(name)) {
            (Some(was), Some(is)) => database_effect((old, was), (&new, is)),
            (None, Some(is)) if running(old, &new, is).is_some() => Some(Effect::NewSessions),
            (None, Some(_)) => Some(Effect::Restart),
            (_, None) => Some(Effect::Now),
        };
        let Some(effect) = effect else { continue };
        note(true, &format!("databases.{name}"), effect);
        match new.databases.get(name).and_then(|is| Some(Database { cluster: running(old, &new, is)?, ..is.clone() })) {
            Some(database) => drop(databases.insert(name.clone(), database)),
            None if effect == Effect::Now => drop(databases.remove(name)),
            None => {}
        }
    }
    note(old.admin.users != new.admin.users, "admin.users", Effect::NewSessions);
    note(old.admin.stats_users != new.admin.stats_users, "admin.stats_users", Effect::NewSessions);
    let versions = (&old.admin.pgbouncer_version, &new.admin.pgbouncer_version);
    note(versions.0 != versions.1, "admin.pgbouncer_version", Effect::Now);
    note(old.admin.http != new.admin.http, "admin.http", Effect::Restart);
    note(old.log.level != new.log.level, "log.level", Effect::Now);
    note(old.log.format != new.log.format, "log.format", Effect::Restart);
    note(old.log.slow != new.log.slow, "log.slow", Effect::Now);
    note(old.log.connections != new.log.connections, "log.connections", Effect::Now);
    let mut settings = Settings { databases, clusters, frontend: new.frontend, ..old.clone() };
    (settings.auth, settings.user_pools, settings.admin) = (new.auth, new.user_pools, new.admin);
    settings.admin.http.clone_from(&old.admin.http);
    settings.log = Log { format: old.log.format, ..new.log };
    (changes, settings)
}

/// All names, each once.
fn names<'a>(old: impl Iterator<Item = &'a String>, new: impl Iterator<Item = &'a String>) -> BTreeSet<&'a String> {
    old.chain(new).collect()
}

/// Routing counts with the databases, which have it from their clusters.
fn without_routing(cluster: monitor::Settings) -> monitor::Settings {
    monitor::Settings { routing: Default::default(), ..cluster }
}

/// The settings of a cluster that are in force when a new file says `is`, and whether they are others: its nodes stay the
/// same ones.
fn with_live_parts_of(was: monitor::Settings, is: &monitor::Settings) -> (monitor::Settings, bool) {
    let same_nodes = was.addresses == is.addresses;
    let nodes = if same_nodes { is.topology.nodes.clone() } else { was.topology.nodes.clone() };
    let live = monitor::Settings {
        topology: topology::Settings { nodes, ..is.topology.clone() },
        max_connections: is.max_connections,
        health: is.health.clone(),
        hold: is.hold,
        ..was.clone()
    };
    let differs = live != was;
    (live, differs)
}

/// Which of the clusters that run a new database is on, if that runs.
fn running(old: &Settings, new: &Settings, database: &Database) -> Option<usize> {
    let name = &new.clusters.get(database.cluster)?.name;
    old.clusters.iter().position(|cluster| cluster.name == *name)
}

fn database_effect(old: (&Settings, &Database), new: (&Settings, &Database)) -> Option<Effect> {
    let Some(cluster) = running(old.0, new.0, new.1) else { return Some(Effect::Restart) };
    let is = Database { cluster, ..new.1.clone() };
    if *old.1 == is {
        return None;
    }
    let only_lending = Database { pool: old.1.pool.clone(), ..is } == *old.1;
    Some(if only_lending { Effect::Now } else { Effect::NewSessions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::right;

    const BASE: &str =
        "[auth]\nmethod = \"trust\"\n[clusters.main]\nnodes = [\"a\"]\n[databases.app]\n[databases.web]\n";

    fn told(before: &str, after: &str) -> (Vec<String>, Settings) {
        let (changes, settings) = changes(&right(before), right(after));
        (changes.iter().map(Change::to_string).collect(), settings)
    }

    #[test]
    fn each_change_has_its_effect() {
        for (after, expected) in [
            (String::new(), &[][..]),
            (
                "[server]\nmax_clients = 7\nlogin_timeout = \"3s\"".to_owned(),
                &["server.max_clients: changed", "server.login_timeout: changed"],
            ),
            (
                "[users.a]\npassword = \"x\"".to_owned(),
                &["users.a: changed for new sessions", "users.base: changed for new sessions"],
            ),
            ("[databases.app.pool]\nsize = 3".to_owned(), &["databases.app: changed"]),
            ("[databases.app.pool]\nmode = \"session\"".to_owned(), &["databases.app: changed for new sessions"]),
            ("[databases.more]".to_owned(), &["databases.more: changed for new sessions"]),
            ("[clusters.main.failover]\nhold = \"1s\"".to_owned(), &["clusters.main: changed"]),
            ("[clusters.main.health]\ninterval = \"2s\"\nfailures = 7".to_owned(), &["clusters.main: changed"]),
            ("[server]\nworkers = 7".to_owned(), &["server.workers: needs a restart"]),
            (
                "[clusters.main.routing]\nreads = \"any\"".to_owned(),
                &["databases.app: changed for new sessions", "databases.web: changed for new sessions"],
            ),
            (
                "[admin]\nusers = [\"a\"]\nstats_users = [\"b\"]\npgbouncer_version = \"1.25.0\"".to_owned(),
                &[
                    "admin.users: changed for new sessions",
                    "admin.stats_users: changed for new sessions",
                    "admin.pgbouncer_version: changed",
                ],
            ),
            (
                "[log]\nlevel = \"debug\"\nformat = \"json\"".to_owned(),
                &["log.level: changed", "log.format: needs a restart"],
            ),
        ] {
            assert_eq!(told(BASE, &format!("{BASE}{after}")).0, expected, "{after}");
        }
    }

    #[test]
    fn what_needs_a_restart_stays_as_it_was_and_is_told_again() {
        let after = format!("{BASE}[server]\nworkers = 7\n[databases.more]\n[log]\nformat = \"json\"");
        let (old, new) = (right(BASE), right(&after));
        let (first, settings) = changes(&old, new.clone());
        assert_eq!((first.len(), settings.workers, settings.log.format), (3, old.workers, old.log.format));
        assert!(settings.databases.contains_key("more"));
        let again: Vec<_> = changes(&settings, new).0.into_iter().map(|change| change.effect).collect();
        assert_eq!(again, [Effect::Restart, Effect::Restart]);
    }

    #[test]
    fn nodes_stay_and_what_is_said_of_them_changes() {
        let nodes = |nodes: &str| BASE.replace("[\"a\"]", nodes);
        let (notes, settings) =
            told(&nodes("[\"a\", \"b\"]"), &nodes("[\"a\", {address = \"b\", weight = 3}]\nmax_connections = 5"));
        assert_eq!(notes, ["clusters.main: changed"]);
        assert_eq!((settings.clusters[0].topology.nodes[1].weight, settings.clusters[0].max_connections), (3.0, 5));
        let (notes, settings) = told(BASE, &nodes("[\"a\", \"b\"]\nmax_connections = 5\nconnect_timeout = \"1s\""));
        let restarts = ["clusters.main.nodes: needs a restart", "clusters.main.connect_timeout: needs a restart"];
        assert_eq!(notes, ["clusters.main: changed", restarts[0], restarts[1]]);
        assert_eq!((settings.clusters[0].addresses.len(), settings.clusters[0].max_connections), (1, 5));
    }

    #[test]
    fn databases_come_and_go_and_those_of_a_new_cluster_wait() {
        let after = "[auth]\nmethod = \"trust\"\n[clusters.fresh]\nnodes = [\"b\"]\n[clusters.main]\nnodes = [\"a\"]\n\
             [databases.app]\ncluster = \"main\"\n[databases.late]\ncluster = \"fresh\"";
        let (told, settings) = told(BASE, after);
        let expected = ["clusters.fresh: needs a restart", "databases.late: needs a restart", "databases.web: changed"];
        assert_eq!(told, expected);
        assert_eq!(settings.databases.keys().collect::<Vec<_>>(), ["app"]);
        assert_eq!((settings.databases["app"].cluster, settings.clusters.len()), (0, 1));
    }
}
