//! What people bring from elsewhere: keys of PgBouncer and Pgpool-II, answered with ours, and files that are no TOML.

/// A key of another pooler, in lower case, and where the same is said here.
const KEYS: [(&str, &str); 51] = [
    // PgBouncer.
    ("listen_addr", "[server] listen, with the port"),
    ("listen_port", "[server] listen, as \"127.0.0.1:6432\""),
    ("unix_socket_dir", "[server] listen, as \"unix:/run/poolhouse\""),
    ("max_client_conn", "[server] max_clients"),
    ("default_pool_size", "[pool] size"),
    ("pool_size", "[pool] size"),
    ("min_pool_size", "[pool] min_idle"),
    ("pool_mode", "[pool] mode"),
    ("max_db_connections", "[clusters.X] max_connections"),
    ("server_idle_timeout", "[pool] idle_timeout"),
    ("server_lifetime", "[pool] max_lifetime"),
    ("server_check_delay", "[pool] check_delay"),
    ("server_connect_timeout", "[clusters.X] connect_timeout"),
    ("server_login_retry", "nothing: servers that cannot be reached are tried again by themselves"),
    ("server_reset_query", "nothing: connections are cleaned as is needed"),
    ("server_check_query", "[pool] check_delay"),
    ("query_wait_timeout", "[pool] checkout_timeout"),
    ("query_timeout", "[pool] query_timeout"),
    ("client_login_timeout", "[server] login_timeout"),
    ("client_idle_timeout", "[pool] client_idle_timeout"),
    ("idle_transaction_timeout", "[pool] idle_transaction_timeout"),
    ("max_prepared_statements", "[pool] prepared_statements"),
    ("ignore_startup_parameters", "nothing: all startup parameters are passed on"),
    ("track_extra_parameters", "nothing: all settings follow their sessions"),
    ("auth_type", "[auth] method"),
    ("auth_file", "[auth] users_file"),
    ("auth_hba_file", "[auth] hba_file, which is not available yet"),
    ("auth_query", "[auth] query"),
    ("auth_user", "[auth] query_user, with query_password"),
    ("auth_dbname", "[auth] query_database"),
    ("admin_users", "[admin] users"),
    ("stats_users", "[admin] stats_users"),
    ("log_connections", "[log] connections"),
    ("log_disconnections", "[log] connections"),
    ("tcp_keepalive", "[server] tcp"),
    ("tcp_keepidle", "[server] tcp.keepalive_idle"),
    ("tcp_keepintvl", "[server] tcp.keepalive_interval"),
    ("tcp_keepcnt", "[server] tcp.keepalive_count"),
    ("tcp_user_timeout", "[server] tcp.user_timeout"),
    // Pgpool-II.
    ("num_init_children", "[server] max_clients"),
    ("max_pool", "[pool] size"),
    ("child_life_time", "nothing: there are no child processes"),
    ("client_idle_limit", "[pool] client_idle_timeout"),
    ("connection_life_time", "[pool] idle_timeout"),
    ("load_balance_mode", "[clusters.X.routing] reads"),
    ("delay_threshold", "[clusters.X.routing] max_lag"),
    ("read_only_function_list", "[clusters.X.routing] read_functions"),
    ("write_function_list", "[clusters.X.routing] write_functions"),
    ("health_check_period", "[clusters.X.health] interval"),
    ("health_check_max_retries", "[clusters.X.health] failures"),
    ("failover_command", "nothing: see [clusters.X.failover] mode"),
];

/// What a key of another pooler is here.
pub(super) fn of_other_poolers(key: &str) -> Option<&'static str> {
    let key = key.to_ascii_lowercase();
    KEYS.iter().find(|(name, _)| *name == key).map(|(_, ours)| *ours)
}

/// What kind of file a text is that is surely no TOML.
pub(super) fn kind_of_file(text: &str) -> Option<&'static str> {
    let lines = || text.trim_start_matches('\u{feff}').lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines().find(|line| !line.starts_with(['#', ';']))?;
    if first.starts_with('{') {
        return Some("JSON");
    }
    // `name: value` where TOML has `name = value`.
    let is_yaml = |line: &str| {
        line.split_once(':').is_some_and(|(name, rest)| {
            let is_name =
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
            is_name && (rest.is_empty() || rest.starts_with(' '))
        })
    };
    if first == "---" || is_yaml(first) {
        return Some("YAML");
    }
    // Comments with semicolons, and values without quotes.
    let is_bare = |line: &str| {
        line.split_once('=').is_some_and(|(_, value)| {
            let value = value.split('#').next().unwrap_or_default().trim();
            let bare = value.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '*' || letter == '/');
            bare && !["true", "false", "inf", "nan"].contains(&value)
        })
    };
    (lines().any(|line| line.starts_with(';')) || lines().any(is_bare)).then_some("INI")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_toml_are_known_by_their_looks() {
        for (text, kind) in [
            ("", None),
            ("# a comment\n[pool]\nsize = 1\nmode = \"session\"\nx = true", None),
            ("[pool\nsize = 1", None),
            ("\n{ \"pool\": {} }", Some("JSON")),
            ("---\nx", Some("YAML")),
            ("# a\npool:\n  size: 1", Some("YAML")),
            ("[databases]\napp = host=10.0.0.1 dbname=app", Some("INI")),
            (";; pgbouncer\n[pgbouncer]", Some("INI")),
            ("[pgbouncer]\nlisten_port = 6432\nauth_type = md5", Some("INI")),
        ] {
            assert_eq!(kind_of_file(text), kind, "{text}");
        }
    }

    #[test]
    fn each_key_is_named_once() {
        let names: std::collections::BTreeSet<_> = KEYS.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), KEYS.len());
        assert_eq!(of_other_poolers("Server_Idle_Timeout"), Some("[pool] idle_timeout"));
    }
}
