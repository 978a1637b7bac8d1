//! TLS between clients and Poolhouse. The clients are libpq's: psql of the system, and the newer one in psycopg.

use std::{fs, path::Path, process::Output, time::Duration};

use super::kit::{
    Authority, Config, LabCluster, PATIENCE, Pooler, RawClient, bounded, cluster,
    messages::{query, ssl_request, startup},
    wait_until,
};

fn started() -> LabCluster {
    cluster().scram_user("app", "secret").start().unwrap()
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

/// With a certificate for these names, and further settings.
fn config(cluster: &LabCluster, authority: &Authority, mode: &str, names: &[&str]) -> Config {
    let signed = authority.sign(names);
    Config::of_cluster(cluster)
        .user("app", "secret")
        .set("tls.mode", &format!("'{mode}'"))
        .set("tls.certificate", &quoted(&authority.file("server.crt", &signed.certificate)))
        .set("tls.private_key", &quoted(&authority.file("server.key", &signed.private_key)))
}

/// What psql says to this, with these parameters of its connection.
fn psql(pooler: &Pooler, parameters: &str, sql: &str) -> Output {
    let target = format!("host=127.0.0.1 port={} user=app dbname=postgres {parameters}", pooler.port());
    let mut command = bounded("psql");
    command.env("PGPASSWORD", "secret").args(["-X", "-A", "-t", "-c", sql, &target]).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

const ENCRYPTION: &str = "\\conninfo";

#[test]
fn clients_are_encrypted_as_both_sides_want() {
    let cluster = started();
    let authority = Authority::new("tests");
    let ca = authority.ca();
    let verifies = |mode: &str| format!("sslmode={mode} sslrootcert={}", ca.display());
    let names = ["localhost", "127.0.0.1"];
    for (ours, plain) in [("prefer", true), ("allow", true), ("require", false)] {
        let pooler = config(&cluster, &authority, ours, &names).start();
        pooler.allow_warnings("");
        for (theirs, encrypted) in [("prefer", true), ("require", true), ("disable", false), ("allow", !plain)] {
            let answer = psql(&pooler, &format!("sslmode={theirs}"), ENCRYPTION);
            let words = said(&answer);
            let refused = !plain && theirs == "disable";
            assert_eq!(answer.status.success(), !refused, "{ours}, {theirs}: {words}");
            if refused {
                assert!(words.contains("connections without TLS are not accepted"), "{words}");
            } else {
                assert_eq!(words.contains("TLSv1.3"), encrypted, "{ours}, {theirs}: {words}");
            }
        }
        for mode in ["verify-ca", "verify-full"] {
            let words = said(&psql(&pooler, &verifies(mode), ENCRYPTION));
            assert!(words.contains("TLSv1.3"), "{ours}, {mode}: {words}");
        }
        let stranger = Authority::new("stranger");
        let words =
            said(&psql(&pooler, &format!("sslmode=verify-ca sslrootcert={}", stranger.ca().display()), ENCRYPTION));
        assert!(words.contains("certificate verify failed"), "{words}");
        // Long ones, both ways.
        let long = "SELECT length(repeat(query, 1000)) FROM (SELECT repeat('x', 20000) AS query) AS q";
        assert_eq!(said(&psql(&pooler, "sslmode=require", long)).trim(), "20000000");
        let rows = psql(&pooler, "sslmode=require", "SELECT repeat('y', 1000) FROM generate_series(1, 20000)");
        assert_eq!(rows.stdout.len(), 20_000 * 1_001);
    }
    let pooler = Config::of_cluster(&cluster).user("app", "secret").start();
    let words = said(&psql(&pooler, "sslmode=require", ENCRYPTION));
    assert!(words.contains("server does not support SSL"), "{words}");
}

#[test]
fn versions_have_bounds() {
    let cluster = started();
    let authority = Authority::new("tests");
    let names = ["127.0.0.1"];
    let only = |version: &str| {
        let config = config(&cluster, &authority, "prefer", &names);
        config.set("tls.min_protocol", &format!("'{version}'")).set("tls.max_protocol", &format!("'{version}'")).start()
    };
    for (version, other) in [("TLSv1.2", "TLSv1.3"), ("TLSv1.3", "TLSv1.2")] {
        let pooler = only(version);
        let words = said(&psql(&pooler, "sslmode=require", ENCRYPTION));
        assert!(words.contains(version), "{words}");
        let bounds = format!("sslmode=require ssl_min_protocol_version={other} ssl_max_protocol_version={other}");
        assert!(!psql(&pooler, &bounds, ENCRYPTION).status.success());
    }
}

#[test]
fn clients_may_have_to_show_a_certificate() {
    let cluster = started();
    let (authority, stranger) = (Authority::new("tests"), Authority::new("stranger"));
    let crl = authority.file("revoked.crl", &authority.revoked());
    let pooler = config(&cluster, &authority, "verify-ca", &["127.0.0.1"])
        .set("tls.client_ca", &quoted(&authority.ca()))
        .set("tls.crl", &quoted(&crl))
        .start();
    pooler.allow_warnings("");
    for (name, signed, let_in) in [
        ("right", Some(authority.sign(&["app"])), true),
        ("none", None, false),
        ("strange", Some(stranger.sign(&["app"])), false),
        ("expired", Some(authority.expired(&["app"])), false),
        ("revoked", Some(authority.sign_to_be_revoked(&["app"])), false),
    ] {
        let parameters = signed.map_or_else(String::new, |signed| {
            let certificate = authority.file("client.crt", &signed.certificate);
            let key = authority.file("client.key", &signed.private_key);
            format!("sslcert={} sslkey={}", certificate.display(), key.display())
        });
        let answer = psql(&pooler, &format!("sslmode=require {parameters}"), "SELECT 'in'");
        assert_eq!(answer.status.success(), let_in, "{name}: {}", said(&answer));
    }
}

/// A stranger in between sends what would count as the client's own words (CVE-2021-23214).
#[test]
fn what_comes_before_the_handshake_is_refused() {
    let cluster = started();
    let authority = Authority::new("tests");
    let pooler = config(&cluster, &authority, "prefer", &["127.0.0.1"]).start();
    pooler.allow_warnings("");
    let mut client = RawClient::connect(pooler.port());
    client.send(&[ssl_request(), startup(0x30000, &[("user", "app")])].concat());
    let answer = client.read_to_end();
    assert_eq!(answer[0].sqlstate(), "08P01", "{answer:?}");
    assert!(answer[0].field(b'M').unwrap().contains("unencrypted data"));
    // And what is no handshake ends the connection, and nobody else's.
    let mut client = RawClient::connect(pooler.port());
    client.send(&ssl_request());
    assert_eq!(client.read_byte(), b'S');
    client.send(&query("SELECT 1"));
    while client.try_read().is_ok_and(|message| message.is_some()) {}
    let answer = psql(&pooler, "sslmode=require", "SELECT 'on'");
    assert_eq!(said(&answer).trim(), "on");
}

/// Handshakes that never end have the time of a login, and take nobody's place.
#[test]
fn a_handshake_that_stalls_is_given_up() {
    let cluster = started();
    let authority = Authority::new("tests");
    let config = config(&cluster, &authority, "require", &["127.0.0.1"]);
    let pooler = config.set("server.login_timeout", "'500ms'").start();
    pooler.allow_warnings("");
    let mut stalled: Vec<_> = (0..50)
        .map(|_| {
            let mut client = RawClient::connect(pooler.port());
            client.send(&ssl_request());
            assert_eq!(client.read_byte(), b'S');
            client.send(&[0x16, 3, 1]);
            client
        })
        .collect();
    assert_eq!(said(&psql(&pooler, "sslmode=require", "SELECT 'on'")).trim(), "on");
    for client in &mut stalled {
        client.set_patience(PATIENCE);
        while client.try_read().is_ok_and(|message| message.is_some()) {}
    }
}

/// Certificates are renewed while clients are there; a pair that does not fit leaves the old one.
#[test]
fn certificates_change_while_clients_are_there() {
    let cluster = started();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let pooler = config(&cluster, &first, "require", &["127.0.0.1"]).start();
    pooler.allow_warnings("");
    let accepts = |authority: &Authority| {
        let parameters = format!("sslmode=verify-ca sslrootcert={}", authority.ca().display());
        psql(&pooler, &parameters, "SELECT 1").status.success()
    };
    assert!(accepts(&first) && !accepts(&second));
    let renewed = second.sign(&["127.0.0.1"]);
    let (certificate, key) = (first.file("server.crt", &renewed.certificate), first.file("x", ""));
    fs::remove_file(key).unwrap();
    wait_until("that is seen", PATIENCE, || pooler.logs("the old ones stay"));
    assert!(accepts(&first) && !accepts(&second), "{}", certificate.display());
    first.file("server.key", &renewed.private_key);
    wait_until("the new pair is shown", PATIENCE, || accepts(&second));
    assert!(!accepts(&first));
}

/// One of several certificates is shown by the host for which a client asks.
#[test]
fn the_host_chooses_the_certificate() {
    let cluster = started();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let of_first = first.sign(&["127.0.0.1", "one.example"]);
    let of_second = second.sign(&["two.example", "localhost"]);
    let file = |authority: &Authority, name: &str, text: &str| authority.file(name, text).display().to_string();
    let certificates = [file(&first, "a.crt", &of_first.certificate), file(&second, "b.crt", &of_second.certificate)];
    let keys = [file(&first, "a.key", &of_first.private_key), file(&second, "b.key", &of_second.private_key)];
    let pooler = Config::of_cluster(&cluster)
        .user("app", "secret")
        .set("tls.certificate", &format!("{certificates:?}"))
        .set("tls.private_key", &format!("{keys:?}"))
        .start();
    pooler.allow_warnings("");
    for (host, authority) in [("127.0.0.1", &first), ("localhost", &second)] {
        let parameters =
            format!("host={host} hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={}", authority.ca().display());
        let answer = psql(&pooler, &parameters, "SELECT 1");
        assert!(answer.status.success(), "{host}: {}", said(&answer));
    }
}

#[test]
fn unix_sockets_go_without() {
    let cluster = started();
    let authority = Authority::new("tests");
    let directory = authority.ca().parent().unwrap().to_owned();
    let config = config(&cluster, &authority, "require", &["127.0.0.1"]);
    let listener = format!("[{{ address = 'unix:{}:7654', route = 'auto' }}]", directory.display());
    let pooler = config.set("listener", &listener).start();
    let target = format!("host={} port=7654 user=app dbname=postgres sslmode=prefer", directory.display());
    let mut command = bounded("psql");
    command.env("PGPASSWORD", "secret").args(["-X", "-A", "-t", "-c", "SELECT 'in'", &target]);
    wait_until("it listens", Duration::from_secs(60), || command.output().unwrap().status.success());
    drop(pooler);
}
