//! TLS between Poolhouse and the servers.

use std::path::Path;

use super::kit::{
    Authority, Config, LabCluster, LabTls, Message, PATIENCE, RawClient, cluster,
    messages::{cancel_request, query},
    wait_until,
};

const ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// A server with TLS, with a certificate for `names`.
fn started(authority: &Authority, names: &[&str], only: bool) -> LabCluster {
    let signed = authority.sign(names);
    let tls = LabTls { certificate: signed.certificate, private_key: signed.private_key, client_ca: None, only };
    cluster().scram_user("app", "secret").tls(tls).start().unwrap()
}

fn with_mode(cluster: &LabCluster, mode: &str) -> Config {
    Config::of_cluster(cluster)
        .user("app", "secret")
        .set("clusters.main.tls.mode", &format!("'{mode}'"))
        .set("clusters.main.failover.hold", "'1s'")
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

/// The words of the error that a login or its first statement gets.
fn refused(config: Config) -> String {
    let pooler = config.start();
    pooler.allow_warnings("");
    let mut client = RawClient::connect(pooler.port());
    client.send(&super::kit::messages::startup(0x30000, &[("user", "app"), ("database", "postgres")]));
    let mut answer: Vec<Message> = client.finish_login("app", "secret");
    if !answer.iter().any(|message| message.tag == b'E') {
        client.send(&query("SELECT 1"));
        answer = client.read_until_ready();
    }
    let error = answer.iter().find(|message| message.tag == b'E').expect("an error");
    let words = [b'M', b'D', b'H'].into_iter().filter_map(|field| error.field(field)).collect::<Vec<_>>().join(" | ");
    format!("{words} | {}", pooler.log().join("\n"))
}

#[test]
fn every_mode_does_what_it_does_in_libpq() {
    let authority = Authority::new("tests");
    let ca = quoted(&authority.ca());
    for (only, names) in [(false, ["127.0.0.1"]), (true, ["elsewhere.example"])] {
        let cluster = started(&authority, &names, only);
        for (mode, encrypted) in [
            ("disable", (!only).then_some("f")),
            ("allow", Some(if only { "t" } else { "f" })),
            ("prefer", Some("t")),
            ("require", Some("t")),
            ("verify-ca", Some("t")),
            ("verify-full", (!only).then_some("t")),
        ] {
            let mut config = with_mode(&cluster, mode);
            if mode.starts_with("verify") {
                config = config.set("clusters.main.tls.ca", &ca);
            }
            let Some(encrypted) = encrypted else {
                let words = refused(config);
                let reason = if mode == "disable" { "no encryption" } else { "not valid for name" };
                assert!(words.contains(reason), "{mode}: {words}");
                continue;
            };
            let pooler = config.start();
            let mut client = RawClient::login(pooler.port(), "postgres", "app", "secret");
            assert_eq!(client.value(ENCRYPTED).as_deref(), Some(encrypted), "{mode}, only: {only}");
        }
    }
}

#[test]
fn a_server_without_tls_is_refused_by_who_asks_for_it() {
    let cluster = cluster().scram_user("app", "secret").start().unwrap();
    for mode in ["prefer", "allow", "disable"] {
        let pooler = with_mode(&cluster, mode).start();
        let mut client = RawClient::login(pooler.port(), "postgres", "app", "secret");
        assert_eq!(client.value(ENCRYPTED).as_deref(), Some("f"), "{mode}");
    }
    let words = refused(with_mode(&cluster, "require"));
    assert!(words.contains("the server has no TLS"), "{words}");
}

#[test]
fn certificates_that_are_wrong_are_refused_and_the_words_say_why() {
    let (authority, stranger) = (Authority::new("tests"), Authority::new("stranger"));
    let ca = quoted(&authority.ca());
    let names = ["127.0.0.1"];
    for (signed, reason) in [
        (authority.expired(&names), "expired"),
        (stranger.sign(&names), "UnknownIssuer"),
        (Authority::self_signed(&names), "CaUsedAsEndEntity"),
        (authority.sign_to_be_revoked(&names), "revoked"),
    ] {
        let own = authority.file("own.crt", &signed.certificate);
        let tls =
            LabTls { certificate: signed.certificate, private_key: signed.private_key, client_ca: None, only: false };
        let cluster = cluster().scram_user("app", "secret").tls(tls).start().unwrap();
        let crl = quoted(&authority.file("revoked.crl", &authority.revoked()));
        let config = || with_mode(&cluster, "verify-full").set("clusters.main.tls.crl", &crl);
        let words = refused(config().set("clusters.main.tls.ca", &ca));
        assert!(words.to_lowercase().contains(&reason.to_lowercase()), "{reason}: {words}");
        // Without a look at it, it will do.
        let pooler = with_mode(&cluster, "require").start();
        let mut client = RawClient::login(pooler.port(), "postgres", "app", "secret");
        assert_eq!(client.value(ENCRYPTED).as_deref(), Some("t"), "{reason}");
        // And one that is trusted as it is.
        if reason == "CaUsedAsEndEntity" {
            let pooler = with_mode(&cluster, "verify-full").set("clusters.main.tls.ca", &quoted(&own)).start();
            let mut client = RawClient::login(pooler.port(), "postgres", "app", "secret");
            assert_eq!(client.value(ENCRYPTED).as_deref(), Some("t"), "{reason}");
        }
    }
}

#[test]
fn a_server_may_ask_for_a_certificate() {
    let authority = Authority::new("tests");
    let signed = authority.sign(&["127.0.0.1"]);
    let client_ca = Some(authority.pem().to_owned());
    let tls = LabTls { certificate: signed.certificate, private_key: signed.private_key, client_ca, only: true };
    let cluster = cluster().scram_user("app", "secret").tls(tls).start().unwrap();
    let words = refused(with_mode(&cluster, "require"));
    assert!(words.contains("certificate"), "{words}");
    let own = authority.sign(&["app"]);
    let certificate = quoted(&authority.file("app.crt", &own.certificate));
    let key = quoted(&authority.file("app.key", &own.private_key));
    let pooler = with_mode(&cluster, "require")
        .set("clusters.main.tls.certificate", &certificate)
        .set("clusters.main.tls.private_key", &key)
        .start();
    let mut client = RawClient::login(pooler.port(), "postgres", "app", "secret");
    assert_eq!(client.value(ENCRYPTED).as_deref(), Some("t"));
}

#[test]
fn what_is_long_or_cancelled_or_listened_for_passes_through_tls() {
    let authority = Authority::new("tests");
    let cluster = started(&authority, &["127.0.0.1"], true);
    let ca = quoted(&authority.ca());
    let pooler = with_mode(&cluster, "verify-full").set("clusters.main.tls.ca", &ca).set("pool.size", "2").start();
    let login = || RawClient::login(pooler.port(), "postgres", "app", "secret");
    let mut client = login();
    // 100 MB in one row, and in many.
    let long = client.value("SELECT repeat('x', 100_000_000)".replace('_', "").as_str()).unwrap();
    assert_eq!(long.len(), 100_000_000);
    let rows = client.query("SELECT repeat('y', 1000) FROM generate_series(1, 20000)");
    assert_eq!(rows.iter().filter(|message| message.tag == b'D').count(), 20_000);
    // And up.
    let text = "z".repeat(20_000_000);
    assert_eq!(client.value(&format!("SELECT length('{text}')")).as_deref(), Some("20000000"));
    // A cancel request goes the same way: the server takes no other connection of this user, but it takes the request.
    let key = client.cancel_key.clone().unwrap();
    client.send(&query("SELECT pg_sleep(60)"));
    let sleeps = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("it runs", PATIENCE, || cluster.node(0).query(sleeps).unwrap().len() == 1);
    let mut canceller = RawClient::connect(pooler.port());
    canceller.send(&cancel_request(&key));
    canceller.read_to_end();
    let answer = client.read_until_ready();
    assert!(answer.iter().any(|message| message.tag == b'E' && message.sqlstate() == "57014"));
    // The hub, too.
    client.query("LISTEN bell");
    let mut other = login();
    other.query("NOTIFY bell, 'x'");
    while client.read().tag != b'A' {}
    let plain = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE usename = 'app' AND NOT ssl";
    assert_eq!(other.value(plain).as_deref(), Some("0"));
}

#[test]
fn a_server_that_hangs_in_the_handshake_is_given_up() {
    let authority = Authority::new("tests");
    let cluster = started(&authority, &["127.0.0.1"], true);
    let pooler = with_mode(&cluster, "require").set("clusters.main.connect_timeout", "'500ms'").start();
    pooler.allow_warnings("");
    cluster.node(0).pause().unwrap();
    let mut client = RawClient::connect(pooler.port());
    client.send(&super::kit::messages::startup(0x30000, &[("user", "app"), ("database", "postgres")]));
    let answer = client.finish_login("app", "secret");
    assert!(answer.iter().any(|message| message.tag == b'E'), "{answer:?}");
    cluster.node(0).resume().unwrap();
    wait_until("it serves again", PATIENCE, || {
        let mut client = RawClient::connect(pooler.port());
        client.send(&super::kit::messages::startup(0x30000, &[("user", "app"), ("database", "postgres")]));
        client.finish_login("app", "secret").iter().any(|message| message.tag == b'Z')
    });
}

/// From version 17 on a server takes TLS from the first byte; an older one does not, and that is said.
#[test]
fn direct_negotiation_is_for_servers_that_have_it() {
    let authority = Authority::new("tests");
    let cluster = started(&authority, &["127.0.0.1"], true);
    let version: u32 =
        cluster.node(0).query("SHOW server_version_num").unwrap()[0][0].as_deref().unwrap().parse().unwrap();
    let config = || with_mode(&cluster, "require").set("clusters.main.tls.negotiation", "'direct'");
    if version >= 170_000 {
        let pooler = config().start();
        let mut client = RawClient::login(pooler.port(), "postgres", "app", "secret");
        assert_eq!(client.value(ENCRYPTED).as_deref(), Some("t"));
    } else {
        let words = refused(config());
        assert!(words.contains("no server") || words.contains("connect") || words.contains("closed"), "{words}");
    }
}
