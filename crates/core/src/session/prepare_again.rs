//! Where a client's statement is prepared again, on a server connection that lacks it or holds what it was not told of: in
//! front of the message that needs it, in the same round trip. And where room is made for it.

use std::sync::Arc;

use super::{
    Outboxes, Pipeline, ServerState, Session,
    ask::Lent,
    owed::Owed,
    server_statements::{SERVER_STATEMENT_BYTES_MAX, ServerStatements},
    statements::{Statement, name_of_id},
    statements_under_way::Presence,
};
use crate::wire::{
    reply::Status,
    request::{self, Parse},
};

/// For one message so many statements are dropped from a server that holds too many, and one more for so many bytes of
/// its text.
const DROPS_MIN: usize = 8;
const BYTES_PER_DROP: usize = 256;

/// How often a server is asked of a statement for one Bind. Once is enough, unless a replica is lost or the client's own
/// messages on the way take the statement away.
const ASKS_MAX: u8 = 5;

/// Whether a statement gives what the client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Same,
    /// The result has other columns.
    Changed,
    /// Prepared now, it has parameters of other types.
    Retyped,
    /// The server has been asked.
    Unknown,
}

impl Session {
    /// Prepares a statement of the client's on a server that lacks it, in front of the message that needs it. One that
    /// was prepared there before the moment `since` may mean what the client's does not.
    pub(super) fn ensure(&self, statement: &Arc<Statement>, since: u64, lent: &mut Lent<'_, '_>) {
        let Lent { pipeline, server, out } = lent;
        let id = statement.id;
        let held = server.statements.touch(id);
        let fresh = pipeline.owed.sent().has(id) || held.is_some_and(|held| held.since >= since);
        let as_it_was = fresh && !held.is_some_and(|held| held.stale);
        if !(as_it_was && pipeline.presence(id, held.is_some()) == Presence::Held) {
            self.prepare_anew(statement, pipeline, server, out);
        }
    }

    pub(super) fn prepare_anew(
        &self,
        statement: &Arc<Statement>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) {
        let held = server.statements.touch(statement.id);
        match pipeline.presence(statement.id, held.is_some()) {
            Presence::Held | Presence::Unsure => drop_held(statement.id, &server.statements, pipeline, out),
            Presence::Lacking => self.make_room(statement.sql.len(), pipeline, server, out),
        }
        let parse = Parse { name: &statement.name, sql: &statement.sql, types: &statement.types };
        parse.write(&statement.name, out.to_server);
        pipeline.counts.server_parses += 1;
        pipeline.owed.note_prepared(statement.id, self.shared.statements.next_moment(), statement.sql.len());
        pipeline.owed.push(Owed::OurParse { id: Some(statement.id) });
    }

    /// Whether a statement's parameters and result on this server are what the client was told of them. A client that
    /// knows them from before would take values of other types for what they are not, or have its own taken so. One that
    /// knows the result from a portal, and has the next one described, too (`described`), takes it as it is. Asks the
    /// server when it is not known.
    pub(super) fn fits(
        &self,
        name: &[u8],
        described: bool,
        statement: &Arc<Statement>,
        lent: &mut Lent<'_, '_>,
    ) -> Fit {
        let Lent { pipeline, server, out } = lent;
        let Some(told) = self.prepared.named().told(name).filter(|_| pipeline.owed.status() != Status::Failed) else {
            return Fit::Same;
        };
        if told.is_of_portal() && described {
            return Fit::Same;
        }
        let asked = pipeline.take(|seldom| &mut seldom.asked_shape);
        if pipeline.owed.asks_of(statement.id) {
            if asked.is_some() {
                pipeline.seldom_mut().asked_shape = asked;
            }
            return Fit::Unknown;
        }
        // Once everything is answered, what the server has said of it last counts.
        let held = server.statements.touch(statement.id);
        let counts = pipeline.owed.is_empty() || pipeline.presence(statement.id, held.is_some()) == Presence::Held;
        match held.filter(|held| counts && !held.stale).and_then(|held| held.shape) {
            Some(shape) if shape.fits(told) => Fit::Same,
            Some(shape) if asked == Some(statement.id) && shape.has_columns_of(told) => Fit::Retyped,
            Some(_) if asked == Some(statement.id) => Fit::Changed,
            // Whatever takes the answer away again, and again, this ends.
            _ if pipeline.seldom_mut().asks >= ASKS_MAX => Fit::Changed,
            // What is there may have been prepared before the client's: how it is now has to be seen.
            _ => {
                pipeline.seldom_mut().asks += 1;
                self.prepare_anew(statement, pipeline, server, out);
                pipeline.seldom_mut().asked_shape = Some(statement.id);
                request::about_statement(b'D', &statement.name, out.to_server);
                request::flush(out.to_server);
                pipeline.owed.push(Owed::OurDescribe { id: statement.id });
                Fit::Unknown
            }
        }
    }

    /// Makes room on the server for one more statement with a text of so many bytes. When far too many are there, it takes
    /// several statements until they are not: each message costs no more than its bytes are worth.
    pub(super) fn make_room(
        &self,
        bytes: usize,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) {
        for _ in 0..DROPS_MIN + bytes / BYTES_PER_DROP {
            let held = &mut server.statements;
            let is_full = pipeline.owed.sent().len_then(held) >= self.shared.statements_max.max(1)
                || pipeline.owed.sent().bytes_then(held) + bytes > SERVER_STATEMENT_BYTES_MAX;
            if !is_full {
                return;
            }
            let Some(oldest) = held.oldest(|id| !pipeline.owed.sent().has(id)) else { return };
            drop_held(oldest, held, pipeline, out);
        }
    }

    /// The unnamed statement of a client that parsed it on another server connection.
    pub(super) fn ensure_unnamed(
        &self,
        statement: &Arc<Statement>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) {
        if server.statements.has_unnamed(self.prepared.last_unnamed(self.number)) && pipeline.is_unnamed_sure() {
            return;
        }
        server.statements.set_unnamed(self.prepared.last_unnamed(self.number));
        pipeline.note_unnamed();
        let parse = Parse { name: b"", sql: &statement.sql, types: &statement.types };
        parse.write(b"", out.to_server);
        pipeline.owed.push(Owed::OurParse { id: None });
    }
}

/// Makes the server drop a statement that it holds, or may hold.
pub(super) fn drop_held(id: u64, held: &ServerStatements, pipeline: &mut Pipeline, out: &mut Outboxes<'_>) {
    request::about_statement(b'C', &name_of_id(id), out.to_server);
    pipeline.owed.note_dropped(id, held);
    pipeline.owed.push(Owed::OurClose { id: Some(id) });
}

/// The client has no unnamed statement: that of another client must not be taken for it.
pub(super) fn drop_strange_unnamed(pipeline: &mut Pipeline, server: &mut ServerState, out: &mut Outboxes<'_>) {
    if pipeline.has_long_unnamed() {
        return;
    }
    server.statements.forget_unnamed();
    request::about_statement(b'C', b"", out.to_server);
    pipeline.owed.push(Owed::OurClose { id: None });
}
