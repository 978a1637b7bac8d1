//! `[databases.X]`: what clients may ask for, and where it is.

use super::{
    Database, Login, Pooling,
    cluster::{self, Cluster},
    keys,
    mistake::{Findings, Place},
    pooling::Section,
    raw::Item,
    value::Outside,
};
use crate::frontend::CONSOLES;
use poolhouse_core::session::nearest_word;

/// What databases build upon.
pub(super) struct Ground<'a> {
    pub clusters: &'a [Cluster],
    pub pool: &'a Section,
    pub pooling: &'a Pooling,
    pub outside: &'a Outside<'a>,
}

pub(super) fn read(name: &str, item: &Item<'_>, ground: &Ground<'_>, findings: &mut Findings) -> Database {
    let raw = keys::Database::read(Some(item), findings);
    if let Some(wrong) = reserved(name) {
        findings.mistake(&item.place, wrong, "choose another name, and name the server's with the key `database`");
    }
    let cluster = which_cluster(&raw, item, ground.clusters, findings);
    let section = Section::read(raw.pool.as_ref(), findings);
    let pooling = section.over(ground.pooling, findings);
    let cluster_settings = cluster.and_then(|index| ground.clusters.get(index));
    if let Some(cluster) = cluster_settings {
        check_size(&pooling, cluster, [&section.size, &ground.pool.size], findings);
    }
    let base = cluster_settings.map(|cluster| cluster.settings.routing.clone()).unwrap_or_default();
    let nodes = cluster_settings.map_or(&[][..], |cluster| &cluster.settings.topology.nodes);
    Database {
        cluster: cluster.unwrap_or_default(),
        database: raw.database.as_ref().and_then(|item| item.text(findings)).map(str::to_owned),
        login: login(&raw, ground.outside, findings),
        pool: pooling.lending,
        session: pooling.session,
        routing: cluster::routing(raw.routing.as_ref(), &base, nodes, findings),
        defaults: Vec::new(),
    }
}

/// Clients could never reach a database by a name of the console.
pub(super) fn reserved(name: &str) -> Option<String> {
    CONSOLES.contains(&name).then(|| format!("the name \"{name}\" is kept for the console"))
}

/// The named cluster, or the only one.
fn which_cluster(
    raw: &keys::Database<'_>,
    item: &Item<'_>,
    clusters: &[Cluster],
    findings: &mut Findings,
) -> Option<usize> {
    let names = || clusters.iter().map(|cluster| cluster.settings.name.as_str());
    let known = || names().collect::<Vec<_>>().join(", ");
    let Some(named) = &raw.cluster else {
        if clusters.len() > 1 {
            findings.mistake(
                &item.place,
                "does not say which cluster it is in",
                format!("add `cluster`, one of {}", known()),
            );
        }
        return (clusters.len() == 1).then_some(0);
    };
    let text = named.text(findings)?;
    let found = names().position(|name| name == text);
    if found.is_none() {
        let mend = match nearest_word(text, names()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None if clusters.is_empty() => format!("add [clusters.{text}]"),
            None => format!("known are {}", known()),
        };
        findings.mistake(&named.place, format!("there is no cluster \"{text}\""), mend);
    }
    found
}

fn login(raw: &keys::Database<'_>, outside: &Outside<'_>, findings: &mut Findings) -> Option<Login> {
    let password = raw.password.as_ref().and_then(|item| item.server_secret(outside, findings));
    let Some(user) = &raw.user else {
        if let Some(item) = &raw.password {
            findings.mistake(&item.place, "is a password without a user", "add `user` beside it");
        }
        return None;
    };
    Some(Login { user: user.text(findings)?.to_owned(), password })
}

/// A pool that is larger than what its nodes may have is not wrong, as several share the nodes, but never gets there.
fn check_size(pooling: &Pooling, cluster: &Cluster, sizes: [&Option<Place>; 2], findings: &mut Findings) {
    let (size, most) = (pooling.lending.size, cluster.settings.max_connections);
    let place = sizes.into_iter().chain([&cluster.max_connections]).find_map(Option::as_ref);
    if let (true, Some(place)) = (size > most, place) {
        let what = format!("pool size {size} is more than max_connections {most} of cluster {}", cluster.settings.name);
        findings.warning(place, what, "lower the size, or raise max_connections if the servers allow it");
    }
}
