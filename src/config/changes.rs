//! What a new configuration changes, as data: which of it takes effect while Poolhouse runs, and which needs a restart.

use std::collections::BTreeSet;

use super::{
    Database, Pooling, Settings,
    declare::{Field, Value},
    keys,
    seats::Seats,
};
use crate::{monitor, net::Address};
use poolhouse_core::topology;

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

impl Effect {
    /// As SHOW CONFIG has it.
    pub fn words(self) -> &'static str {
        match self {
            Effect::Now => "at once",
            Effect::NewSessions => "new sessions",
            Effect::Restart => "restart",
        }
    }
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
pub fn changes(old: &Settings, mut new: Settings) -> (Vec<Change>, Settings) {
    let mut changes = Vec::new();
    let mut note = |differs: bool, key: &str, effect: Effect| {
        if differs {
            changes.push(Change { key: key.to_owned(), effect });
        }
    };
    succeed_in("server", keys::Server::FIELDS, old, &mut new, &mut note);
    note(old.listeners != new.listeners, "listener", Effect::Restart);
    new.listeners.clone_from(&old.listeners);
    succeed_in("auth", keys::Auth::FIELDS, &old.auth, &mut new.auth, &mut note);
    for name in names(old.auth.users.keys(), new.auth.users.keys()) {
        let differs = old.auth.users.get(name) != new.auth.users.get(name);
        note(differs, &format!("users.{name}"), Effect::NewSessions);
    }
    for name in names(old.user_pools.keys(), new.user_pools.keys()) {
        let of = |settings: &Settings| settings.user_pools.get(name).cloned().unwrap_or_default();
        let differs = of(old) != of(&new);
        note(differs, &format!("users.{name}.pool"), Effect::NewSessions);
    }
    let (clusters, seats) = clusters(old, &new, &mut note);
    let mut databases = std::mem::take(&mut new.databases);
    for database in databases.values_mut() {
        let (settings, seats) = (&clusters[database.cluster], &seats[database.cluster]);
        match seats {
            Seating::Seated(seats) => seats.seat_routing(&mut database.routing),
            // It is not known where its nodes are.
            Seating::NoRoom => database.routing = settings.routing.clone(),
            Seating::New => {}
        }
    }
    for name in names(old.databases.keys(), databases.keys()) {
        let effect = match (old.databases.get(name), databases.get(name)) {
            (Some(was), Some(is)) if old.clusters[was.cluster].name == clusters[is.cluster].name => {
                database_effect(was, &Database { cluster: was.cluster, ..is.clone() })
            }
            (Some(_), Some(_)) => Some(Effect::NewSessions),
            (None, _) => Some(Effect::NewSessions),
            (_, None) => Some(Effect::Now),
        };
        if let Some(effect) = effect {
            note(true, &format!("databases.{name}"), effect);
        }
    }
    succeed_in("admin", keys::Admin::FIELDS, &old.admin, &mut new.admin, &mut note);
    succeed_in("log", keys::Log::FIELDS, &old.log, &mut new.log, &mut note);
    (changes, Settings { databases, clusters, ..new })
}

/// Notes what differs in a section, and leaves what needs a restart as it was.
fn succeed_in<T>(at: &str, fields: &[Field<T>], old: &T, new: &mut T, note: &mut impl FnMut(bool, &str, Effect)) {
    for Field { key, value } in fields {
        let Some(value) = value else { continue };
        note((value.differs)(old, new), &format!("{at}.{}", key.name), key.effect);
        if key.effect == Effect::Restart {
            (value.keep)(old, new);
        }
    }
}

/// All names, each once.
fn names<'a>(old: impl Iterator<Item = &'a String>, new: impl Iterator<Item = &'a String>) -> BTreeSet<&'a String> {
    old.chain(new).collect()
}

/// How the nodes of a new file come into a cluster.
enum Seating {
    /// It does not run yet.
    New,
    Seated(Seats),
    /// It has had too many nodes already.
    NoRoom,
}

/// The clusters that are in force when there is a new file, in its order, with how their nodes come to their places.
fn clusters(
    old: &Settings,
    new: &Settings,
    note: &mut impl FnMut(bool, &str, Effect),
) -> (Vec<monitor::Settings>, Vec<Seating>) {
    let by_name = |of: &Settings, name: &str| of.clusters.iter().find(|cluster| cluster.name == name).cloned();
    for name in names(old.clusters.iter().map(|it| &it.name), new.clusters.iter().map(|it| &it.name)) {
        let (was, is) = (by_name(old, name), by_name(new, name));
        let (Some(was), Some(is)) = (was, is) else {
            note(true, &format!("clusters.{name}"), Effect::Now);
            continue;
        };
        let (live, seating) = succeed(&was, &is);
        note(rest(&was, &live) != rest(&live, &was), &format!("clusters.{name}"), Effect::Now);
        let others = |one: &monitor::Settings, other: &monitor::Settings| !in_use(one).eq(in_use(other));
        note(others(&was, &live), &format!("clusters.{name}.nodes"), Effect::Now);
        note(matches!(seating, Seating::NoRoom), &format!("clusters.{name}.nodes"), Effect::Restart);
        for (at, value) in needs_restart() {
            note((value.differs)(&live, &is), &format!("clusters.{name}.{at}"), Effect::Restart);
        }
    }
    let succeeded = new.clusters.iter().map(|is| match by_name(old, &is.name) {
        Some(was) => succeed(&was, is),
        None => (is.clone(), Seating::New),
    });
    succeeded.unzip()
}

/// The settings of a cluster that are in force when a new file says `is`.
fn succeed(was: &monitor::Settings, is: &monitor::Settings) -> (monitor::Settings, Seating) {
    let mut live = is.clone();
    needs_restart().for_each(|(_, value)| (value.keep)(was, &mut live));
    match Seats::new(was, is) {
        Some(seats) => {
            seats.seat(was, &mut live);
            (live, Seating::Seated(seats))
        }
        None => {
            (live.addresses, live.topology.nodes) = (was.addresses.clone(), was.topology.nodes.clone());
            live.routing = was.routing.clone();
            (live, Seating::NoRoom)
        }
    }
}

/// The settings of a cluster that stay as they are while it runs, with their keys.
fn needs_restart() -> impl Iterator<Item = (String, &'static Value<monitor::Settings>)> {
    let sections =
        [("", keys::Cluster::FIELDS), ("health.", keys::Health::FIELDS), ("failover.", keys::Failover::FIELDS)];
    let fields = sections.into_iter().flat_map(|(at, fields)| fields.iter().map(move |field| (at, field)));
    let fields = fields.filter(|(_, field)| field.key.effect == Effect::Restart);
    fields.filter_map(|(at, field)| Some((format!("{at}{}", field.key.name), field.value.as_ref()?)))
}

fn in_use(cluster: &monitor::Settings) -> impl Iterator<Item = &Address> {
    let nodes = cluster.addresses.iter().zip(&cluster.topology.nodes);
    nodes.filter(|(_, node)| !node.gone).map(|(address, _)| address)
}

/// What is said of a cluster, but for nodes that only one of the two has. Routing counts with the databases, which have it
/// from their clusters.
fn rest(cluster: &monitor::Settings, other: &monitor::Settings) -> monitor::Settings {
    let nodes = cluster.addresses.iter().zip(&cluster.topology.nodes);
    let both = nodes.filter(|(address, node)| !node.gone && in_use(other).any(|known| known == *address));
    let (addresses, nodes) = both.map(|(address, node)| (address.clone(), node.clone())).unzip();
    let topology = topology::Settings { nodes, ..cluster.topology.clone() };
    monitor::Settings { addresses, topology, routing: Default::default(), ..cluster.clone() }
}

fn database_effect(was: &Database, is: &Database) -> Option<Effect> {
    if was == is {
        return None;
    }
    // What of its pool changes at once.
    let (before, mut after) = (pooling(was), pooling(is));
    let now = keys::Pool::FIELDS.iter().filter(|field| field.key.effect == Effect::Now);
    now.filter_map(|field| field.value.as_ref()).for_each(|value| (value.keep)(&before, &mut after));
    let Pooling { lending, session } = after;
    let only_now = Database { pool: lending, session, ..is.clone() } == *was;
    Some(if only_now { Effect::Now } else { Effect::NewSessions })
}

fn pooling(database: &Database) -> Pooling {
    Pooling { lending: database.pool.clone(), session: database.session.clone() }
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
                &[
                    "server.max_clients: changed",
                    "server.max_logins: changed",
                    "server.max_logins_per_address: changed",
                    "server.login_timeout: changed",
                ],
            ),
            (
                "[server]\nmax_logins = 9_999\n[admin]\nreserved = 7".to_owned(),
                &["server.max_logins: changed", "admin.reserved: changed"],
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

    fn with_nodes(nodes: &str) -> String {
        BASE.replace("[\"a\"]", nodes)
    }

    /// The nodes of the first cluster in their places, with what has become of them.
    fn places(settings: &Settings) -> Vec<(&str, bool)> {
        settings.clusters[0].topology.nodes.iter().map(|node| (&*node.name, node.gone)).collect()
    }

    #[test]
    fn what_is_said_of_a_cluster_changes() {
        let (notes, settings) = told(
            &with_nodes("[\"a\", \"b\"]"),
            &with_nodes("[\"a\", {address = \"b\", weight = 3}]\nmax_connections = 5"),
        );
        assert_eq!(notes, ["clusters.main: changed"]);
        assert_eq!((settings.clusters[0].topology.nodes[1].weight, settings.clusters[0].max_connections), (3.0, 5));
        let (notes, settings) = told(BASE, &with_nodes("[\"a\"]\nmax_connections = 5\nconnect_timeout = \"1s\""));
        assert_eq!(notes, ["clusters.main: changed", "clusters.main.connect_timeout: needs a restart"]);
        assert_eq!(settings.clusters[0].max_connections, 5);
    }

    #[test]
    fn nodes_come_and_go_and_keep_their_places() {
        let first = right(&with_nodes("[\"a\", \"b\"]"));
        let (notes, second) = changes(&first, right(&with_nodes("[\"c\", \"b\"]")));
        let words: Vec<_> = notes.iter().map(Change::to_string).collect();
        assert_eq!(words, ["clusters.main.nodes: changed"]);
        assert_eq!(places(&second), [("a:5432", true), ("b:5432", false), ("c:5432", false)]);
        assert_eq!(changes(&second, right(&with_nodes("[\"b\", \"c\"]"))).0, [], "the order says nothing");
        let (notes, third) = changes(&second, right(&with_nodes("[{address = \"a\", weight = 2}, \"b\"]")));
        assert_eq!(notes.len(), 1);
        assert_eq!(places(&third), [("a:5432", false), ("b:5432", false), ("c:5432", true)]);
        assert_eq!(third.clusters[0].topology.nodes[0].weight, 2.0);
    }

    #[test]
    fn weights_of_rules_follow_their_nodes() {
        let file = |nodes: &str| {
            let rule = "[[clusters.main.routing.rules]]\nuser = \"u\"\nweights = { \"b:5432\" = 7 }\n";
            with_nodes(nodes) + rule
        };
        let first = right(&file("[\"a\", \"b\"]"));
        let (_, second) = changes(&first, right(&file("[\"b\", \"c\"]")));
        let weights = second.databases["app"].routing.rules[0].weights.clone();
        assert_eq!(weights.as_deref(), Some(&[0.0, 7.0, 1.0][..]));
        assert_eq!(second.clusters[0].routing, second.databases["app"].routing);
        assert_eq!(changes(&second, right(&file("[\"b\", \"c\"]"))).0, []);
    }

    #[test]
    fn a_cluster_has_so_many_nodes_in_its_life() {
        let mut running = right(BASE);
        for round in 1..topology::NODES_MAX {
            running = changes(&running, right(&with_nodes(&format!("[\"n{round}\"]")))).1;
        }
        let (notes, settings) = changes(&running, right(&with_nodes("[\"new\", \"a\"]\nmax_connections = 7")));
        let words: Vec<_> = notes.iter().map(Change::to_string).collect();
        assert_eq!(words, ["clusters.main: changed", "clusters.main.nodes: needs a restart"]);
        assert_eq!(places(&settings), places(&running));
        let (notes, _) = changes(&running, right(BASE));
        assert_eq!(notes.iter().map(Change::to_string).collect::<Vec<_>>(), ["clusters.main.nodes: changed"]);
    }

    #[test]
    fn databases_and_clusters_come_and_go() {
        let after = "[auth]\nmethod = \"trust\"\n[clusters.fresh]\nnodes = [\"b\"]\n[clusters.main]\nnodes = [\"a\"]\n\
             [databases.app]\ncluster = \"main\"\n[databases.late]\ncluster = \"fresh\"";
        let (notes, settings) = told(BASE, after);
        let expected =
            ["clusters.fresh: changed", "databases.late: changed for new sessions", "databases.web: changed"];
        assert_eq!(notes, expected);
        let cluster = |name: &str| &*settings.clusters[settings.databases[name].cluster].name;
        assert_eq!((settings.databases.len(), cluster("app"), cluster("late")), (2, "main", "fresh"));
        let moved = after.replace("cluster = \"main\"", "cluster = \"fresh\"");
        assert_eq!(told(after, &moved).0, ["databases.app: changed for new sessions"]);
        assert_eq!(
            told(after, BASE).0,
            ["clusters.fresh: changed", "databases.late: changed", "databases.web: changed for new sessions"]
        );
    }
}
