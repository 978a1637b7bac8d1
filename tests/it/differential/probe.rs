//! What a client finds of the session that it is lent, to be compared with what it finds on a connection of its own.

use super::super::kit::RawClient;

/// How often a fresh client looks, each time in a transaction of its own on whichever connection is free.
const LOOKS: usize = 3;

/// Every kind of state that a session may have, but for what is Poolhouse's own.
const SESSION: &str = "
SELECT 'setting ' || name || ' = ' || setting FROM pg_settings
WHERE source = 'session' AND name NOT LIKE 'transaction_%'
UNION ALL SELECT 'statement ' || name FROM pg_prepared_statements WHERE name NOT LIKE '\\_\\_poolhouse\\_%'
UNION ALL SELECT 'advisory lock ' || objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'channel ' || c FROM pg_listening_channels() c
UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE name NOT IN ('', 'look')
UNION ALL SELECT 'temporary ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
UNION ALL SELECT 'role ' || current_setting('role')
UNION ALL SELECT 'user ' || current_user || ' of ' || session_user
UNION ALL SELECT 'custom ' || coalesce(nullif(current_setting('app.tenant', true), ''), 'none')
UNION ALL SELECT 'path ' || current_setting('search_path')
UNION ALL SELECT 'place ' || coalesce(to_regclass('place')::text, 'none') || coalesce(to_regclass('t')::text, 'none')
ORDER BY 1";

/// Locks and temporary objects of sessions that do not end.
pub const LEFT_BEHIND: &str = "
SELECT 'lock', objid::text FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND datname = '(database)'
UNION ALL SELECT 'temporary', relname FROM pg_class WHERE relpersistence = 't'";

/// What there is of a session's state; looked at several times, each difference once.
pub fn look(client: &mut RawClient) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for _ in 0..LOOKS {
        for message in client.query(SESSION).iter().filter(|message| matches!(message.tag, b'D' | b'E' | b'N')) {
            let text = match message.tag {
                b'D' => message.values()[0].clone().unwrap_or_default(),
                _ => message.field(b'M').unwrap_or_default(),
            };
            if !found.contains(&text) {
                found.push(text);
            }
        }
    }
    found.sort();
    found
}
