//! What the parameters of a connection string are to a pooler: those that say where to go and who logs in, those with which
//! sessions begin, and those that are for the application alone. libpq's are all of the manual's "Parameter Key Words"
//! (34.1.2); the others are those of drivers, object mappers and their pools, as people have them in `DATABASE_URL`.

use super::mistake::Wrong;
use crate::net::TlsMode;
use poolhouse_core::session::nearest_word;

/// What becomes of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is followed, under this name.
    Followed(String),
    /// Sessions begin with this setting, unless the client says otherwise.
    Setting(String),
    /// Nothing is done about it.
    Ignored(Ignored),
    /// Nobody is known who has a parameter of this name.
    Unknown(Wrong),
    /// Somebody relies on it, and it cannot be followed.
    Refused(Wrong),
}

/// Why nothing is done about a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ignored {
    OfClient,
    OfDriver,
}

impl Ignored {
    pub const ALL: [Ignored; 2] = [Ignored::OfClient, Ignored::OfDriver];

    pub fn words(self) -> &'static str {
        match self {
            Ignored::OfClient => "for the application's own driver or pool, ignored here",
            Ignored::OfDriver => "about how the driver encrypts or uses Kerberos, ignored here",
        }
    }
}

/// Parameters that say where to go, who logs in, and how connections are kept.
const FOLLOWED: [&str; 23] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "target_session_attrs",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "sslnegotiation",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "sslcertmode",
];

/// Settings of the server. Those of libpq come first; some drivers take any other one.
const SETTINGS: [&str; 17] = [
    "application_name",
    "fallback_application_name",
    "options",
    "search_path",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "timezone",
    "datestyle",
    "intervalstyle",
    "extra_float_digits",
    "work_mem",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "synchronous_commit",
    "plan_cache_mode",
    "jit",
];

/// Other names of the same: pgjdbc's.
const ALIASES: [(&str, &str); 8] = [
    ("ApplicationName", "application_name"),
    ("currentSchema", "search_path"),
    ("targetServerType", TARGET),
    ("ssl-mode", "sslmode"),
    ("sslNegotiation", "sslnegotiation"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl_cert", "sslcert"),
    ("ssl_key", "sslkey"),
];

const TARGET: &str = "target_session_attrs";

/// How drivers encrypt by means of their own. libpq's first, then pgjdbc's, Prisma's and node-postgres'.
const ENCRYPTION: &str = "sslkeylogfile sslcompression krbsrvname gsslib gssdelegation \
    sslfactory sslfactoryarg sslhostnameverifier sslpasswordcallback sslResponseTimeout pemKeyAlgorithm \
    gssResponseTimeout jaasLogin jaasApplicationName kerberosServerName useSpnego sspiServiceClass krbspn sslinline \
    sslaccept sslidentity uselibpqcompat direct_tls";

/// What is the client's own affair: its encoding, how it logs in by OAuth, its pool, its statements.
const CLIENTS: &[&str] = &[
    // libpq.
    "client_encoding replication max_protocol_version load_balance_hosts oauth_issuer oauth_client_id oauth_client_secret \
     oauth_scope",
    // Prisma.
    "schema connection_limit pool_timeout socket_timeout pgbouncer statement_cache_size max_idle_connection_lifetime \
     max_connection_lifetime single_use_connections",
    // Active Record.
    "adapter encoding pool prepared_statements reaping_frequency checkout_timeout idle_timeout min_messages variables \
     schema_search_path advisory_locks statement_limit insert_returning max_connections min_connections max_age pool_jitter \
     keepalive timeout retries reconnect connection_retries retry_deadline strict",
    // SQLAlchemy, psycopg and asyncpg.
    "prepared_statement_cache_size prepared_statement_name_func async_fallback command_timeout server_settings \
     max_cached_statement_lifetime max_cacheable_statement_size prepare_threshold autocommit executemany_mode charset \
     pool_size max_overflow pool_recycle pool_pre_ping pool_use_lifo echo echo_pool plugin loop min_size max_size",
    // Django.
    "conn_max_age conn_health_checks disable_server_side_cursors atomic_requests autocommit engine isolation_level \
     server_side_binding assume_role",
    // node-postgres, postgres.js, Sequelize, TypeORM, Knex.
    "max min idleTimeoutMillis connectionTimeoutMillis maxUses maxLifetimeSeconds allowExitOnIdle query_timeout keepAlive \
     keepAliveInitialDelayMillis binary max_lifetime prepare fetch_types publications debug poolSize synchronize logging \
     dialect searchPath client type supa",
    // pgjdbc and its pools.
    "prepareThreshold preparedStatementCacheQueries preparedStatementCacheSizeMiB defaultRowFetchSize loginTimeout \
     connectTimeout socketTimeout cancelSignalTimeout tcpKeepAlive tcpNoDelay unknownLength stringtype binaryTransfer \
     binaryTransferEnable binaryTransferDisable hostRecheckSeconds loadBalanceHosts reWriteBatchedInserts autosave \
     cleanupSavepoints preferQueryMode readOnlyMode logUnclosedConnections loggerLevel loggerFile assumeMinServerVersion \
     allowEncodingChanges disableColumnSanitiser databaseMetadataCacheFields databaseMetadataCacheFieldsMiB \
     escapeSyntaxCallMode maxResultBuffer adaptiveFetch adaptiveFetchMinimum adaptiveFetchMaximum sendBufferSize \
     receiveBufferSize maxSendBufferSize logServerErrorDetail quoteReturningIdentifiers socketFactory socketFactoryArg \
     protocolVersion authenticationPluginClassName xmlFactoryFactory groupStartupParameters hideUnprivilegedObjects \
     localSocketAddress maximumPoolSize minimumIdle connectionTimeout idleTimeout maxLifetime maxIdleTime acquireRetry \
     initialSize lockWaitTimeout statementTimeout fetchSize preparedStatementCacheQueries tcpKeepalive",
    // pgx, lib/pq, sqlx, golang-migrate.
    "pool_max_conns pool_min_conns pool_min_idle_conns pool_max_conn_lifetime pool_max_conn_lifetime_jitter \
     pool_max_conn_idle_time pool_health_check_period default_query_exec_mode statement_cache_capacity \
     statement_cache_mode description_cache_capacity binary_parameters disable_prepared_binary_result \
     prefer_simple_protocol statement-cache-capacity",
    // Ecto.
    "queue_target queue_interval idle_interval socket_options parameters pool_count ownership_timeout",
    // Doctrine and Laravel.
    "serverVersion server_version driver persistent prefix default_dbname driverOptions",
];

fn is_of(name: &str, list: &str) -> bool {
    list.split_whitespace().any(|known| known == name)
}

/// What is done about a parameter. What somebody may rely on and cannot have is refused, not ignored.
pub(super) fn meaning(name: &str, value: &str) -> Meaning {
    let refuse = |what: &str, mend: &str| Meaning::Refused(Wrong::new(what, mend));
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| *name);
    let (plain, encryption) = (Meaning::Ignored(Ignored::OfClient), Meaning::Ignored(Ignored::OfDriver));
    match name {
        TARGET => match target(value) {
            Some(_) => Meaning::Followed(name.to_owned()),
            None => refuse(
                "has an unknown value",
                "write any | read-write | primary | prefer-standby | standby | read-only, or remove it: reads go to \
                 replicas anyway",
            ),
        },
        "sslmode" => match tls_mode(value).filter(|_| !SWITCHES.contains(&value)) {
            Some(_) => Meaning::Followed(name.to_owned()),
            None => {
                refuse("has an unknown value", "write disable | allow | prefer | require | verify-ca | verify-full")
            }
        },
        "sslnegotiation" | "sslsni" | "ssl_min_protocol_version" | "ssl_max_protocol_version" | "sslcertmode"
            if !value.is_empty() && !words_of(name).iter().any(|known| known.eq_ignore_ascii_case(value)) =>
        {
            refuse("has an unknown value", &format!("write {}", words_of(name).join(" | ")))
        }
        _ if FOLLOWED.contains(&name) => Meaning::Followed(name.to_owned()),
        _ if SETTINGS.contains(&name) => Meaning::Setting(name.to_owned()),
        "ssl" | "ssl_require" | "requiressl" => match tls_mode(&value.to_ascii_lowercase()) {
            Some(_) => Meaning::Followed("sslmode".to_owned()),
            None => refuse("has an unknown value", "write true or false, or name sslmode instead"),
        },
        "channel_binding" | "channelBinding" | "gssencmode" | "gssEncMode" => {
            choice(value, &["disable", "allow", "prefer"], &["require"])
        }
        "sslpassword" => {
            refuse("is not available", "name a key in sslkey that is not encrypted, and that nobody else can read")
        }
        "sslcrldir" => refuse("is not available", "name one file in sslcrl"),
        "min_protocol_version" if value == "3.0" => plain,
        "min_protocol_version" => refuse("asks for more than servers are spoken to with, which is 3.0", "remove it"),
        "require_auth" | "requirepeer" => {
            refuse("is not available: Poolhouse logs in as the server asks for it", "remove it")
        }
        "scram_client_key" | "scram_server_key" => refuse("is not available", "give the password itself"),
        "passfile" => {
            refuse("is not read", "give the password in the URL, or with a file: see `file:` in config files")
        }
        "service" | "servicefile" => refuse("is not read", "write what the service stands for: host, user, dbname …"),
        _ if is_of(name, ENCRYPTION) => encryption,
        _ if CLIENTS.iter().any(|list| is_of(name, list)) || name.starts_with("x-") => plain,
        // sqlx: `options[search_path]`.
        _ => match name.strip_prefix("options[").and_then(|rest| rest.strip_suffix(']')) {
            Some(setting) if is_plain(setting) => Meaning::Setting(setting.to_owned()),
            _ => unknown(name),
        },
    }
}

/// Whether a name can be shown: no part of a password, unless that is a plain word in the place of a name.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
}

/// Whether somebody has a parameter of this name.
pub(super) fn is_known(name: &str) -> bool {
    match meaning(name, "") {
        Meaning::Unknown(_) => false,
        Meaning::Refused(wrong) => wrong.what == "has an unknown value" || !wrong.mend.starts_with("did you mean"),
        _ => true,
    }
}

/// Whether the session attributes that the application asks for are those of a standby only.
pub(super) fn target(value: &str) -> Option<bool> {
    match value {
        // pgjdbc has names of its own.
        "any" | "read-write" | "primary" | "prefer-standby" | "master" | "preferSecondary" | "preferSlave"
        | "preferPrimary" => Some(false),
        "standby" | "read-only" | "secondary" | "slave" => Some(true),
        _ => None,
    }
}

/// Words for a driver's switch, which are none of `sslmode`.
const SWITCHES: [&str; 8] = ["false", "0", "off", "no", "true", "1", "on", "yes"];

/// The mode that a driver's word stands for. Some drivers have a switch instead; with it on they encrypt, and differ in what
/// they look at.
pub(super) fn tls_mode(value: &str) -> Option<TlsMode> {
    Some(match value {
        "disable" | "false" | "0" | "off" | "no" => TlsMode::Disable,
        "allow" => TlsMode::Allow,
        "prefer" | "" => TlsMode::Prefer,
        "require" | "no-verify" | "true" | "1" | "on" | "yes" => TlsMode::Require,
        "verify-ca" => TlsMode::VerifyCa,
        "verify-full" => TlsMode::VerifyFull,
        _ => return None,
    })
}

/// What the others of libpq's words about encryption may be.
fn words_of(name: &str) -> &'static [&'static str] {
    match name {
        "sslnegotiation" => &["postgres", "direct"],
        "sslsni" => &["0", "1"],
        "sslcertmode" => &["disable", "allow", "require"],
        _ => &["TLSv1.2", "TLSv1.3"],
    }
}

fn choice(value: &str, accepted: &[&str], later: &[&str]) -> Meaning {
    let known = accepted.join(" | ");
    if accepted.contains(&value) {
        return Meaning::Followed(String::new());
    }
    if let Some(later) = later.iter().find(|later| **later == value) {
        let what = format!("{later} is not available yet");
        let mend = format!("write {known}");
        return Meaning::Refused(Wrong::new(what, mend));
    }
    Meaning::Refused(Wrong::new("has an unknown value", format!("write {known}")))
}

/// A slip of the pen in what says where to go is a mistake; any other word may be of a driver that nobody here has heard of.
fn unknown(name: &str) -> Meaning {
    if !is_plain(name) {
        let mend = "write & as %26, ? as %3F and = as %3D in user and password";
        return Meaning::Refused(Wrong::new("has a parameter after ? that is no name=value", mend));
    }
    match nearest_word(name, FOLLOWED[..6].iter().copied()) {
        Some(meant) => {
            let what = "is no connection parameter of PostgreSQL";
            Meaning::Refused(Wrong::new(what, format!("did you mean `{meant}`?")))
        }
        None => {
            let what = "is no connection parameter of PostgreSQL or of a driver that is known, and is ignored";
            let mend = match nearest_word(name, FOLLOWED.into_iter().chain(SETTINGS).chain(["sslmode"])) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "leave it to the application's own URL".to_owned(),
            };
            Meaning::Unknown(Wrong::new(what, mend))
        }
    }
}
