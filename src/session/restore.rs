//! What a client asked for at its login is what RESET returns to, as on a direct connection. In session mode, where the
//! server keeps the settings, they are brought to it again when they were reset.

use std::fmt::Write;

use super::{
    Outboxes, Pipeline, ServerState, ServerStep, Session,
    carried::push_literal,
    pipeline::{Effects, Owed},
};
use crate::wire::request;

impl Session {
    /// A transaction of session mode has ended that did this.
    pub(super) fn restore_startup(
        &self,
        effects: &Effects,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        let is_reset = |name: &str| effects.reset_all || effects.reset.iter().any(|reset| **reset == *name);
        let mut sql = String::new();
        for (name, value) in self.startup.iter().filter(|(name, _)| is_reset(name)) {
            push_restore(name, value, &mut sql);
        }
        if !sql.is_empty() {
            request::query(&sql, out.to_server);
            server.unnamed = None;
            pipeline.push(Owed::Replay { settings: self.settings.clone() });
        }
        ServerStep::Forward
    }
}

/// Sets it, unless the session has a value of its own: the RESET may have been rolled back. Custom settings are listed
/// nowhere; without a value they are an empty text.
fn push_restore(name: &str, value: &str, sql: &mut String) {
    sql.push_str("SELECT pg_catalog.set_config(");
    push_literal(name, sql);
    sql.push(',');
    push_literal(value, sql);
    sql.push_str(",false)");
    if name.contains('.') {
        sql.push_str(" WHERE pg_catalog.current_setting(");
        push_literal(name, sql);
        sql.push_str(",true)=''");
    } else {
        let _ = write!(sql, " FROM pg_catalog.pg_settings WHERE source<>'session' AND pg_catalog.lower(name)=");
        push_literal(name, sql);
    }
    sql.push(';');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_the_sessions_own_is_set() {
        let restore = |name, value| {
            let mut sql = String::new();
            push_restore(name, value, &mut sql);
            sql
        };
        assert_eq!(
            restore("timezone", "CET"),
            "SELECT pg_catalog.set_config(E'timezone',E'CET',false) FROM pg_catalog.pg_settings \
             WHERE source<>'session' AND pg_catalog.lower(name)=E'timezone';"
        );
        assert_eq!(
            restore("app.tenant", "1"),
            "SELECT pg_catalog.set_config(E'app.tenant',E'1',false) \
             WHERE pg_catalog.current_setting(E'app.tenant',true)='';"
        );
    }
}
