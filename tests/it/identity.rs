//! Clients that become somebody else, by SET ROLE and SET SESSION AUTHORIZATION, on server connections that others use
//! too.

use super::kit::{Config, LabCluster, RawClient, cluster};

/// A cluster, and logins of a superuser who has one server connection.
fn started() -> (LabCluster, impl Fn() -> RawClient) {
    let cluster = cluster().trust_user("app").start().unwrap();
    for sql in ["ALTER ROLE app SUPERUSER", "CREATE ROLE plain", "CREATE ROLE other", "GRANT other TO plain"] {
        cluster.node(0).query(sql).unwrap();
    }
    let pooler = Config::of_cluster(&cluster).set("auth.method", "'trust'").set("pool.size", "1").start();
    (cluster, move || RawClient::login(pooler.port(), "postgres", "app", ""))
}

#[test]
fn what_only_a_superuser_may_set_is_taken_back_from_a_connection_that_is_somebody_else() {
    let (_cluster, login) = started();
    let (mut first, mut second) = (login(), login());
    first.query("SET lo_compat_privileges = on");
    first.query("SET SESSION AUTHORIZATION plain");
    first.query("SET ROLE other");
    for _ in 0..2 {
        assert_eq!(first.value("SELECT session_user || ' ' || current_user").as_deref(), Some("plain other"));
        assert_eq!(first.value("SHOW lo_compat_privileges").as_deref(), Some("on"));
        assert_eq!(second.value("SELECT session_user || ' ' || current_user").as_deref(), Some("app app"));
        assert_eq!(second.value("SHOW lo_compat_privileges").as_deref(), Some("off"));
    }
}

#[test]
fn another_session_user_ends_the_role() {
    let (cluster, login) = started();
    let (mut first, mut second) = (login(), login());
    first.query("SET ROLE other");
    assert_eq!(second.value("SELECT current_user").as_deref(), Some("app"));
    first.query("SET SESSION AUTHORIZATION plain");
    cluster.node(0).query("DROP ROLE other").unwrap();
    assert_eq!(second.value("SELECT current_user").as_deref(), Some("app"));
    assert_eq!(first.value("SELECT session_user || ' ' || current_user").as_deref(), Some("plain plain"));
    assert_eq!(first.value("SHOW role").as_deref(), Some("none"));
    first.query("RESET SESSION AUTHORIZATION");
    assert_eq!(second.value("SELECT current_user").as_deref(), Some("app"));
    assert_eq!(first.value("SELECT session_user || ' ' || current_user").as_deref(), Some("app app"));
}

#[test]
fn a_role_that_is_gone_is_the_answer_to_what_needs_it() {
    let (cluster, login) = started();
    let (mut first, mut second) = (login(), login());
    first.query("SET ROLE other");
    assert_eq!(second.value("SELECT current_user").as_deref(), Some("app"));
    cluster.node(0).query("DROP ROLE other").unwrap();
    let process = second.server_process();
    let error = |client: &mut RawClient, sql: &str| {
        let messages = client.query(sql);
        let error = messages.iter().find(|message| message.tag == b'E').unwrap_or_else(|| panic!("{sql} is answered"));
        (error.sqlstate(), error.field(b'M').unwrap())
    };
    for sql in ["SELECT 1", "BEGIN; SELECT 1", "RESET ROLE; SELECT 1"] {
        assert_eq!(error(&mut first, sql), ("22023".into(), "role \"other\" does not exist".into()), "{sql}");
    }
    // A BEGIN alone needs no server yet.
    first.query("BEGIN");
    for _ in 0..2 {
        assert_eq!(error(&mut first, "SELECT 1").1, "role \"other\" does not exist");
    }
    assert_eq!(first.query("COMMIT")[0].text(), "ROLLBACK");
    // A connection on which something was refused is not used again.
    assert_ne!(second.server_process(), process);
    assert_eq!(error(&mut first, "SET ROLE nobody").1, "role \"nobody\" does not exist");
    assert_eq!(error(&mut first, "SELECT 1").1, "role \"other\" does not exist");
    first.query("RESET ROLE");
    assert_eq!(first.value("SELECT current_user").as_deref(), Some("app"));
}
