//! What a client asked for at its login is what RESET returns to, as on a direct connection, but the server connection
//! knows only its own defaults. So behind a RESET the values of the login are brought, before the client gets its
//! ReadyForQuery: in the same transaction, so that a ROLLBACK takes both back. Meanwhile ParameterStatus is withheld, so
//! that the client hears only of what comes of both.

use std::fmt::Write;

use super::{
    Outboxes, Pipeline, ServerState, ServerStep, Session, ask::ask_ours, carried::push_literal, effects::Effects,
    owed::Owed,
};
use crate::{
    sql::{SettingChange, TransactionControl, Verdict},
    wire::reply::{self, Status},
};

/// What a transaction has to do with the values of the login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum LoginValues {
    #[default]
    Untouched,
    /// They may have changed: ParameterStatus waits for the client's ReadyForQuery.
    Withheld,
    /// What was sent resets some of them, which have to be brought again before that.
    Restored,
}

impl LoginValues {
    /// ParameterStatus waits from now on.
    pub fn withhold(&mut self) {
        if *self == LoginValues::Untouched {
            *self = LoginValues::Withheld;
        }
    }

    pub fn are_withheld(self) -> bool {
        self != LoginValues::Untouched
    }

    pub fn are_to_be_brought(self) -> bool {
        self == LoginValues::Restored
    }
}

impl Session {
    /// Whether a text with this verdict resets values of the login.
    pub(super) fn resets_login(&self, verdict: &Verdict) -> bool {
        let resets = |change: &SettingChange| match change {
            SettingChange::Reset(name) => self.startup.get(name).is_some(),
            SettingChange::ResetAll => true,
            SettingChange::Set(_) | SettingChange::Unknown => false,
        };
        !self.startup.is_empty() && verdict.settings.iter().any(resets)
    }

    /// A text with this verdict is sent, and its changes are noted: values of the login may have to be brought behind it.
    pub(super) fn note_restores(&self, verdict: &Verdict, pipeline: &mut Pipeline) {
        // It may take back what was brought, and not the RESET.
        let effects = &pipeline.effects;
        let undoes = matches!(verdict.transaction, TransactionControl::RollbackTo | TransactionControl::Mixed)
            && (effects.reset_all || !effects.reset.is_empty());
        if self.resets_login(verdict) || undoes && !self.startup.is_empty() {
            pipeline.login_values = LoginValues::Restored;
        }
    }

    /// The client's statements are answered but for ReadyForQuery: brings the values of the login that were reset. False
    /// when there are none.
    pub(super) fn restore(&self, pipeline: &mut Pipeline, server: &mut ServerState, out: &mut Outboxes<'_>) -> bool {
        if !pipeline.login_values.are_to_be_brought()
            || !pipeline.owed.is_empty()
            || pipeline.owed.status() == Status::Failed
        {
            return false;
        }
        pipeline.login_values = LoginValues::Withheld;
        let sql = self.restoring(&pipeline.effects);
        if sql.is_empty() {
            return false;
        }
        ask_ours(sql.as_bytes(), Owed::Restore, pipeline, server, out);
        true
    }

    fn restoring(&self, effects: &Effects) -> String {
        let is_reset = |name: &str| effects.reset_all || effects.reset.contains(name);
        let mut sql = String::new();
        for (name, value) in self.startup.iter().filter(|(name, _)| is_reset(name)) {
            push_restore(name, value, &mut sql);
        }
        sql
    }

    /// The values of the login are there again. Refused outside a transaction they are brought with the next server
    /// connection; inside of one the client has to know that it failed.
    pub(super) fn on_restored(
        &mut self,
        failed: bool,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        let words = pipeline.take(|seldom| &mut seldom.last_words);
        if let (true, Status::Failed, Some(words)) = (failed, pipeline.owed.status(), words) {
            words.write(b'E', out.to_client);
        }
        self.finish_withheld(pipeline, server, out)
    }

    /// The client's ReadyForQuery, and before it what was withheld.
    pub(super) fn finish_withheld(
        &mut self,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        let withheld = pipeline.take(|seldom| &mut seldom.withheld);
        if !self.stays_refused(pipeline) {
            let mut news: Vec<_> = self.reported.news(&server.reported).collect();
            news.sort_by_key(|(name, _)| withheld.iter().position(|known| **known == **name));
            news.iter().for_each(|(name, value)| reply::parameter_status(name, value, out.to_client));
            self.reported = server.reported.clone();
        }
        if !pipeline.login_values.are_to_be_brought() && pipeline.owed.is_empty() {
            pipeline.login_values = LoginValues::Untouched;
        }
        reply::ready_for_query(pipeline.owed.status(), out.to_client);
        match self.on_clients_ready(pipeline, server, out) {
            ServerStep::Forward | ServerStep::ForwardThenAnswer => {
                self.answer_known(pipeline, out.to_client);
                ServerStep::Swallow
            }
            ServerStep::ForwardAndRelease => ServerStep::Release,
            other => other,
        }
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
