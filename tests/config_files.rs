//! Every TOML file of `config/` is a configuration that works, and warns of nothing.

use std::{fs, path::Path};

use poolhouse::testing::{Overrides, from_upstream, load};

#[test]
fn every_example_loads() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut loaded = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let config = load(&path, &Overrides::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let is_reference = path.ends_with("reference.toml");
        // The reference leaves the health user open to show its default.
        assert_eq!(config.warnings.len(), usize::from(is_reference), "{:#?}", config.warnings);
        loaded += 1;
    }
    assert!(loaded >= 4);
}

#[test]
fn the_reference_shows_the_defaults() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let reference = load(&directory.join("reference.toml"), &Overrides::default()).unwrap().settings;
    // A connection string says nothing but nodes and users: all else is the default.
    let upstream = "postgres://app:x@10.0.0.100,10.0.0.101/app";
    let default = from_upstream(upstream, "test", &Overrides::default()).unwrap().settings;
    assert_eq!((&reference.listen, reference.workers), (&default.listen, default.workers));
    assert_eq!((&reference.frontend, &reference.log), (&default.frontend, &default.log));
    assert_eq!(reference.auth.method, default.auth.method);
    let (database, plain) = (&reference.databases["app"], &default.databases["app"]);
    assert_eq!((&database.pool, &database.session), (&plain.pool, &plain.session));
    assert_eq!(database.routing, plain.routing);
    let (cluster, bare) = (&reference.clusters[0], &default.clusters[0]);
    assert_eq!((&cluster.addresses, &cluster.routing), (&bare.addresses, &bare.routing));
    assert_eq!((cluster.hold, cluster.connect_timeout), (bare.hold, bare.connect_timeout));
    assert_eq!((cluster.health.interval, cluster.health.timeout), (bare.health.interval, bare.health.timeout));
    assert_eq!(
        (cluster.topology.failover, cluster.topology.failures),
        (bare.topology.failover, bare.topology.failures)
    );
    assert_eq!(cluster.max_connections, bare.max_connections);
}
