//! What is taken for granted of code that cannot be looked at: functions written in C. PostgreSQL's own are known by
//! their names. Functions of extensions count as harmless to the session but for those listed here, which were checked
//! in the extensions' own sources and manuals. A library that was loaded without an extension, any other function in C
//! and every language but SQL and PL/pgSQL count as if they may do anything.

use crate::sql::functions::{self, FunctionKind};

/// Whether a function of PostgreSQL's own, by its name, may change the state of the session, or runs a text.
pub(in crate::sql) fn touches_session(name: &str) -> bool {
    let lock = name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_");
    lock && !name.contains("_xact_")
        || name.starts_with("binary_upgrade_")
        || TOUCHING.contains(&name)
        || functions::kind(name) == FunctionKind::RunsText
}

/// A condition in SQL on `proname` for the functions that `touches_session`.
pub(super) fn touches_session_sql() -> String {
    let names: Vec<_> = TOUCHING.iter().chain(functions::RUNS_TEXT).map(|name| format!("'{name}'")).collect();
    format!("(proname IN ({}) OR proname ~ '^pg_(try_)?advisory_' AND proname !~ '_xact_')", names.join(","))
}

/// Besides advisory locks of the session. Replication slots may be temporary, which is until the session ends.
const TOUCHING: &[&str] = &[
    "pg_backup_start",
    "pg_backup_stop",
    "pg_copy_logical_replication_slot",
    "pg_copy_physical_replication_slot",
    "pg_create_logical_replication_slot",
    "pg_create_physical_replication_slot",
    "pg_replication_origin_session_reset",
    "pg_replication_origin_session_setup",
    "pg_start_backup",
    "pg_stop_backup",
    "set_config",
    "setseed",
];

/// Extensions all of whose functions may touch the session: connections, variables, roles, debuggers.
const TOUCHING_EXTENSIONS: &[&str] =
    &["dblink", "orafce", "pg_variables", "pgtt", "pldbgapi", "plprofiler", "session_variable", "set_user"];

/// Extensions whose functions tell of one server rather than of the database.
const LOCAL_EXTENSIONS: &[&str] = &[
    "adminpack",
    "amcheck",
    "file_fdw",
    "old_snapshot",
    "pageinspect",
    "pg_buffercache",
    "pg_freespacemap",
    "pg_prewarm",
    "pg_stat_statements",
    "pg_surgery",
    "pg_visibility",
    "pg_walinspect",
    "pgrowlocks",
    "pgstattuple",
    "sslinfo",
];

/// Whether a function in C of an extension may touch the session: `set_limit` sets `pg_trgm.similarity_threshold`, the
/// others run the text of a query that they are given.
pub(super) fn extension_touches(extension: &str, name: &str) -> bool {
    TOUCHING_EXTENSIONS.contains(&extension)
        || match extension {
            "pg_trgm" => name == "set_limit",
            "tablefunc" => name.starts_with("crosstab") || name.starts_with("connectby"),
            "xml2" => name == "xpath_table",
            _ => false,
        }
}

/// Whether a function of an extension may answer otherwise on another server.
pub(super) fn extension_is_local(extension: &str) -> bool {
    LOCAL_EXTENSIONS.contains(&extension)
}

/// Whether a function of the language `internal` is one of those that come with a type made by CREATE TYPE … AS RANGE.
pub(super) fn comes_with_a_range(symbol: &str) -> bool {
    symbol.starts_with("range_constructor") || symbol.starts_with("multirange_constructor")
}
