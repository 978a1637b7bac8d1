//! Settings of the login on a server connection that another client has used: what a session finds is what it would find
//! on a server process of its own.

use super::kit::{Config, LabCluster, Pooler, RawClient, cluster, messages};

const USER: &str = "app";

/// A cluster, and a pool of one server connection for a superuser.
fn started(mode: &str) -> (LabCluster, Pooler) {
    let cluster = cluster().trust_user(USER).start().unwrap();
    cluster.node(0).query(&format!("ALTER ROLE {USER} SUPERUSER")).unwrap();
    let pooler = Config::of_cluster(&cluster).set("auth.method", "'trust'").set("pool.size", "1");
    let pooler = pooler.set("pool.mode", &format!("'{mode}'")).start();
    (cluster, pooler)
}

/// A client with these startup parameters, and what it is told: DateStyle and TimeZone. `Err` is a refusal.
fn login(port: u16, parameters: &[(&str, &str)]) -> Result<(RawClient, Vec<String>), String> {
    let mut client = RawClient::connect(port);
    let all = [("user", USER), ("database", "postgres")].into_iter().chain(parameters.iter().copied());
    client.send(&messages::startup(0x30000, &all.collect::<Vec<_>>()));
    let answer = client.finish_login(USER, "");
    if let Some(error) = answer.iter().find(|message| message.tag == b'E') {
        return Err(error.sqlstate());
    }
    let texts = answer
        .iter()
        .filter(|message| message.tag == b'S')
        .map(|message| String::from_utf8_lossy(&message.body).trim_end_matches('\0').replace('\0', "="));
    let mut told: Vec<_> =
        texts.filter(|text| text.starts_with("DateStyle=") || text.starts_with("TimeZone=")).collect();
    told.sort();
    Ok((client, told))
}

#[test]
fn a_date_style_of_the_login_builds_on_nothing_that_others_have_set() {
    for mode in ["transaction", "session", "statement"] {
        let (cluster, pooler) = started(mode);
        let found = |port: u16, parameters: &[(&str, &str)]| {
            let (mut client, told) = login(port, parameters).unwrap();
            (told, client.value("SELECT current_setting('datestyle') || ' ' || '01/02/2026'::date"))
        };
        for before in ["German", "ISO, DMY", "SQL, YMD"] {
            for parameters in [
                [("DateStyle", "ISO")].as_slice(),
                &[("DateStyle", "SQL")],
                &[("datestyle", "Postgres")],
                &[("options", "-c datestyle=SQL")],
                &[("options", "-c DateStyle=SQL,DMY -c datestyle=iso")],
                &[("options", "-c datestyle=German"), ("DateStyle", "ISO")],
                &[("options", "-e")],
                &[("DateStyle", "MDY")],
                &[("DateStyle", "German")],
                &[("DateStyle", "default")],
            ] {
                let (mut other, _) = login(pooler.port(), &[]).unwrap();
                other.query(&format!("SET datestyle = '{before}'"));
                if mode == "session" {
                    drop(other);
                }
                let direct = found(cluster.node(0).port(), parameters);
                assert_eq!(found(pooler.port(), parameters), direct, "{mode}: {before}, then {parameters:?}");
            }
        }
    }
}

#[test]
fn a_date_style_of_the_login_builds_on_the_configuration_and_not_on_the_role() {
    let (cluster, pooler) = started("transaction");
    let styles = |port: u16, value: &str| {
        let (mut client, told) = login(port, &[("DateStyle", value)]).unwrap();
        let mut show = |sql: &str| {
            client.query(sql);
            client.value("SHOW datestyle")
        };
        (told, show("SELECT 1"), show("SET datestyle = 'SQL'"), show("RESET datestyle"))
    };
    for default in ["'SQL, DMY'", "DMY", "German"] {
        let mut other = login(pooler.port(), &[]).unwrap().0;
        other.query(&format!("ALTER ROLE {USER} SET datestyle = {default}"));
        for value in ["ISO", "Postgres", "YMD", "German"] {
            other.query("SET datestyle = 'German, YMD'");
            let direct = styles(cluster.node(0).port(), value);
            assert_eq!(styles(pooler.port(), value), direct, "{default}, then {value}");
        }
    }
}

/// Settings that a server takes only while a connection is opened: through a pool they are refused, and not left out.
const AT_OPENING: &str = "55P02";

/// Values that differ from what is there, for one setting.
fn values(row: &[Option<String>]) -> Vec<String> {
    let text = |column: usize| row[column].clone().unwrap_or_default();
    let (name, kind, now) = (text(0), text(1), text(2));
    let all: Vec<String> = match kind.as_str() {
        "bool" => vec!["on".into(), "off".into()],
        "enum" => text(5).trim_matches(['{', '}']).split(',').map(|value| value.trim_matches('"').into()).collect(),
        "string" => match name.as_str() {
            "DateStyle" => vec!["SQL".into(), "YMD".into(), "German".into()],
            "TimeZone" => vec!["Asia/Tokyo".into(), "UTC".into(), "<+05:30>-05:30".into()],
            "search_path" => vec!["\"$user\"".into(), "a, \"B c\"".into(), String::new()],
            "client_encoding" => vec!["latin1".into(), "UTF-8".into()],
            "role" => vec!["postgres".into(), "none".into()],
            "application_name" => vec!["é".into(), "two words".into()],
            "default_tablespace" => vec!["pg_default".into()],
            "temp_tablespaces" => vec!["pg_default".into(), String::new()],
            "default_text_search_config" => vec!["german".into(), "pg_catalog.simple".into()],
            "lc_messages" | "lc_monetary" | "lc_numeric" | "lc_time" => vec!["C".into(), "C.UTF-8".into()],
            "timezone_abbreviations" => vec!["India".into()],
            _ => vec![],
        },
        _ => {
            let number = |text: String| text.parse::<f64>().unwrap_or_default();
            let (low, high) = (number(text(3)), number(text(4)));
            let now = number(now.clone());
            [now + 1.0, low, high.min(1000.0)]
                .into_iter()
                .filter(|value| (low..=high).contains(value))
                .map(|value| if kind == "integer" { format!("{value:.0}") } else { value.to_string() })
                .collect()
        }
    };
    all.into_iter().filter(|value| *value != now).take(3).collect()
}

/// What a session finds of one setting from its beginning on, while it sets, resets and rolls back.
fn life(client: &mut RawClient, name: &str, other: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for sql in [
        "SELECT 1".into(),
        format!("SET {name} = '{other}'"),
        format!("RESET {name}"),
        format!("BEGIN; SET LOCAL {name} = '{other}'; COMMIT"),
        format!("BEGIN; SET {name} = '{other}'; ROLLBACK"),
        format!("SET {name} TO DEFAULT"),
        format!("SET {name} = '{other}'; RESET ALL"),
        format!("SET {name} = '{other}'"),
        "DISCARD ALL".into(),
    ] {
        let answer = client.query(&sql);
        let failed = answer.iter().find(|message| message.tag == b'E').map(|error| error.sqlstate());
        // The value may itself stand in the way of an answer.
        let shown = client.query(&format!("SHOW {name}"));
        let value = shown.iter().find(|message| message.tag == b'D').map(|row| format!("{:?}", row.values()));
        seen.push(format!("{sql}: {failed:?} {value:?}"));
    }
    seen
}

#[test]
fn every_setting_comes_out_as_on_a_server_process_of_ones_own() {
    /// Those that take the session away from its database, or make it useless for what is asked.
    const LEFT_OUT: [&str; 8] = [
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "statement_timeout",
        "lock_timeout",
        "transaction_timeout",
        "session_authorization",
        "max_stack_depth",
        "post_auth_delay",
    ];
    let (cluster, pooler) = started("transaction");
    let mut asked = RawClient::login(cluster.node(0).port(), "postgres", USER, "");
    let rows = asked.query(
        "SELECT name, vartype, setting, min_val, max_val, enumvals FROM pg_settings
         WHERE context IN ('user', 'superuser', 'backend', 'superuser-backend') AND name !~ '^(transaction|tcp)_' ORDER BY name",
    );
    let rows: Vec<_> = rows.iter().filter(|row| row.tag == b'D').map(|row| row.values()).collect();
    let mut wrong = Vec::new();
    let mut tried = 0;
    for row in &rows {
        let name = row[0].clone().unwrap();
        if LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        let values = values(row);
        for (at, (value, other)) in values.iter().zip(values.iter().cycle().skip(1)).enumerate() {
            for by_options in [false, true].into_iter().take(if at == 0 { 2 } else { 1 }) {
                let escaped = format!("-c {name}={}", value.replace('\\', "\\\\").replace(' ', "\\ "));
                let parameters =
                    [if by_options { ("options", escaped.as_str()) } else { (name.as_str(), value.as_str()) }];
                let mut stranger = login(pooler.port(), &[]).unwrap().0;
                stranger.query(&format!("SET {name} = '{other}'"));
                let direct = login(cluster.node(0).port(), &parameters);
                let pooled = login(pooler.port(), &parameters);
                tried += 1;
                let (direct, pooled) = match (direct, pooled) {
                    (Ok((mut direct, told)), Ok((mut pooled, told_too))) => {
                        (Ok((told, life(&mut direct, &name, other))), Ok((told_too, life(&mut pooled, &name, other))))
                    }
                    (_, Err(code)) if code == AT_OPENING => continue,
                    (direct, pooled) => (direct.map(|_| Default::default()), pooled.map(|_| Default::default())),
                };
                if direct != pooled {
                    wrong.push(format!("{name} = {value}, {other} before: {pooled:?}\n directly {direct:?}"));
                }
            }
        }
    }
    assert!(tried > 300, "{tried}");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Nobody has come with these parameters yet, and the pool's connection is in a transaction all the while.
#[test]
fn a_login_does_not_wait_for_a_busy_pool() {
    let cluster = cluster().trust_user(USER).start().unwrap();
    let config = Config::of_cluster(&cluster).set("auth.method", "'trust'").set("pool.size", "1");
    // So long a wait would be noticed.
    let pooler = config.set("pool.checkout_timeout", "'0s'").set("pool.wait_notice", "'0s'").start();
    let (mut holder, _) = login(pooler.port(), &[]).unwrap();
    holder.begin();
    holder.query("SELECT 1");
    let mut clients = Vec::new();
    for parameters in [
        [("application_name", "new")].as_slice(),
        &[("client_encoding", "LATIN1")],
        &[("DateStyle", "German"), ("TimeZone", "Asia/Tokyo")],
        &[("options", "-c statement_timeout=6s -c app.user_id=42")],
    ] {
        clients.push((login(pooler.port(), parameters).expect("let in"), parameters));
    }
    // The server's own words.
    for (parameters, code) in [
        ([("options", "-c statement_timeout=soon")].as_slice(), "22023"),
        (&[("options", "-c nosuch=1")], "42704"),
        (&[("options", "-c zero_damaged_pages=on")], "42501"),
    ] {
        assert_eq!(login(pooler.port(), parameters).err().as_deref(), Some(code), "{parameters:?}");
    }
    std::thread::scope(|scope| {
        for number in 0..20 {
            let name = format!("new-{number}");
            let port = pooler.port();
            scope.spawn(move || login(port, &[("application_name", &name)]).expect("let in"));
        }
    });
    let counted = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    assert!(holder.value(counted).is_some_and(|count| count == "1" || count == "2"));
    holder.query("COMMIT");
    for ((mut client, told), parameters) in clients {
        let (mut direct, expected) = login(cluster.node(0).port(), parameters).unwrap();
        assert_eq!(told, expected, "{parameters:?}");
        for name in ["application_name", "client_encoding", "datestyle", "timezone", "statement_timeout", "app.user_id"]
        {
            let sql = format!("SELECT current_setting('{name}', true)");
            assert_eq!(client.value(&sql), direct.value(&sql), "{name} of {parameters:?}");
        }
    }
}
