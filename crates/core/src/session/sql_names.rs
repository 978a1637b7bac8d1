//! Names of prepared statements in SQL: PREPARE, EXECUTE, DEALLOCATE, and the view that lists them.
//!
//! On a direct connection SQL and the protocol share one namespace. Here the protocol's statements stand on a server
//! connection under names of ours, so before a text that uses a name in SQL the client's statement is prepared there
//! under the client's *own* name as well, and a stranger's under that name is closed. What a transaction did to names
//! is then asked from the server at its end, since only it knows the types of parameters and what has succeeded.
//!
//! A name that is not plain ASCII has other bytes in another client's encoding, so a stranger's could not be told by its
//! name: a session with such a name on the server keeps its connection.

use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{
    Judge, Outboxes, Pipeline, ServerState, Session,
    ask::{Lent, ask_ours},
    carried::Prepared,
    client_statements::Named,
    owed::Owed,
    statements::{FUNCTIONS_NAME, Statement},
    steps::counted,
};
use crate::{
    sql::{Fact, NameUse, Pin, Verdict, judge_bytes, prepared_text},
    wire::{
        reply::Status,
        request::{self, Parse},
    },
};

/// What a text is sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SentBy {
    /// A Query message: what stands before it needs a Sync of its own.
    Query,
    /// A batch of the extended protocol, whose Sync comes.
    Batch,
}

impl Session {
    /// As [`Session::intern`]; a text that executes other statements is shared only with clients for which the names
    /// mean the same.
    pub(super) fn intern_own(&self, parse: &Parse<'_>, pipeline: &Pipeline, judge: &impl Judge) -> Arc<Statement> {
        let statement = self.intern(parse, judge);
        if statement.verdict.names.is_empty() || !self.renames() {
            return statement;
        }
        let mut hasher = std::hash::DefaultHasher::new();
        self.settings.planner_hash().hash(&mut hasher);
        for name in &statement.verdict.names {
            let meaning = self.prepared.get(name.name().as_bytes(), &pipeline.owed);
            meaning.map(|statement| statement.id).hash(&mut hasher);
        }
        let verdict = || statement.verdict.clone();
        self.shared.statements.intern(parse.sql, parse.types, hasher.finish(), verdict)
    }

    /// Whether what the names mean that a text uses in SQL depends on replies that have not come.
    pub(super) fn awaits_names(&self, verdict: &Verdict, pipeline: &Pipeline, server: &ServerState) -> bool {
        if !self.touches_names(verdict, pipeline, server) {
            return false;
        }
        let unsettled = |name: &NameUse| pipeline.owed.is_unsettled(name.name().as_bytes());
        self.touches_all(verdict, server) && pipeline.owed.ready_owed() > 0 || verdict.names.iter().any(unsettled)
    }

    /// Whether a text uses names of prepared statements in SQL, or can meet those of strangers.
    fn touches_names(&self, verdict: &Verdict, pipeline: &Pipeline, server: &ServerState) -> bool {
        let touches = !verdict.names.is_empty() || self.touches_all(verdict, server);
        touches && self.brings(pipeline)
    }

    /// Whether names are brought to servers for what uses them.
    pub(super) fn brings(&self, pipeline: &Pipeline) -> bool {
        self.renames() && pipeline.owed.status() != Status::Failed
    }

    /// Whether any name may be met.
    fn touches_all(&self, verdict: &Verdict, server: &ServerState) -> bool {
        verdict.does(Fact::ListsStatements) || verdict.is_opaque() && server.statements.has_own()
    }

    /// Prepares the server connection for a text that uses names of prepared statements in SQL. False when what the
    /// names mean depends on replies that have not come.
    pub(super) fn bring_names(&mut self, verdict: &Verdict, sent: SentBy, lent: &mut Lent<'_, '_>) -> bool {
        let Lent { pipeline, server, out } = lent;
        if !self.touches_names(verdict, pipeline, server) {
            return true;
        }
        if self.awaits_names(verdict, pipeline, server) {
            return false;
        }
        let all = self.touches_all(verdict, server);
        let before = pipeline.owed.len();
        let alone = sent == SentBy::Query && !pipeline.owed.has_open_batch();
        let own = if all { server.statements.all_own() } else { server.statements.own_to_sweep(self.number) };
        if !own.is_empty() && !self.close_strangers(own, pipeline, server, out) {
            server.statements.note_own_swept(self.number);
        }
        for name in &verdict.names {
            self.bring(name.name().as_bytes(), pipeline, server, out);
        }
        if verdict.does(Fact::ListsStatements) {
            if server.statements.set_asks_functions(false) {
                request::about_statement(b'C', FUNCTIONS_NAME, out.to_server);
                pipeline.owed.push(Owed::CloseForSql { name: FUNCTIONS_NAME.into() });
            }
            self.bring_all(pipeline, server, out);
        }
        if pipeline.owed.len() > before && alone {
            request::sync(out.to_server);
            pipeline.owed.push(Owed::OurSync);
        }
        if verdict.does(Fact::ListsStatements) && alone {
            self.prepare_again(pipeline, server, out);
        }
        true
    }

    /// Makes one name mean on the server what it means to the client.
    fn bring(&self, name: &[u8], pipeline: &mut Pipeline, server: &mut ServerState, out: &mut Outboxes<'_>) {
        let doubtful = server.statements.own(name) == Some(None) && !pipeline.owed.has_own(name);
        if pipeline.effects.uses_name(name) && !doubtful {
            return;
        }
        // What a server is never told of, it does not have.
        match self.prepared.get(name, &pipeline.owed).filter(|statement| statement.verdict.own.is_none()) {
            Some(statement)
                if server.statements.has_own_since(name, statement.id, self.prepared.named().since(name)) => {}
            Some(statement) => {
                if !name.is_ascii() {
                    pipeline.effects.pins.insert(Pin::Prepare);
                }
                close_own(name, pipeline, server, out);
                let parse = Parse { name, sql: &statement.sql, types: &statement.types };
                parse.write(name, out.to_server);
                let since = self.shared.statements.next_moment();
                pipeline.counts.server_parses += 1;
                pipeline.owed.push(Owed::ParseForSql { name: name.into(), id: statement.id, since });
            }
            None => self.close_stranger(name, pipeline, server, out),
        }
    }

    /// The client does not know this name, so nobody else's statement may answer to it.
    pub(super) fn close_stranger(
        &self,
        name: &[u8],
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) {
        if !pipeline.effects.uses_name(name) && server.statements.own(name).is_some() {
            close_own(name, pipeline, server, out);
        }
    }

    /// Closes every one of these own names on the server that is not this client's, and says whether there was one.
    fn close_strangers(
        &self,
        own: Vec<(Box<[u8]>, Option<u64>)>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> bool {
        let mut closed = false;
        for (name, id) in own {
            let mine = id.is_some() && self.prepared.get(&name, &pipeline.owed).map(|statement| statement.id) == id;
            if !mine && !pipeline.effects.uses_name(&name) && !pipeline.owed.has_own(&name) {
                close_own(&name, pipeline, server, out);
                closed = true;
            }
        }
        closed
    }

    /// The server is to hold exactly the client's statements, under the client's names.
    fn bring_all(&self, pipeline: &mut Pipeline, server: &mut ServerState, out: &mut Outboxes<'_>) {
        for id in server.statements.ids() {
            super::prepare_again::drop_held(id, &server.statements, pipeline, out);
        }
        for name in self.prepared.named().all() {
            self.bring(&name, pipeline, server, out);
        }
    }

    /// What was prepared by SQL is to be listed as that: prepares it anew with its own text.
    fn prepare_again(&self, pipeline: &mut Pipeline, server: &mut ServerState, out: &mut Outboxes<'_>) {
        for (name, named) in self.prepared.named().iter() {
            let Some(text) = &named.prepare else { continue };
            close_own(name, pipeline, server, out);
            request::sync(out.to_server);
            pipeline.owed.push(Owed::OurSync);
            let since = self.shared.statements.next_moment();
            let owed = Owed::PrepareForSql { name: name.into(), id: named.statement.id, since };
            ask_ours(text, owed, pipeline, server, out);
        }
    }

    /// Notes what a text may do to names, and what the statements that it executes may do to the session.
    pub(super) fn note_names(&mut self, verdict: &Verdict, pipeline: &mut Pipeline) {
        if pipeline.owed.status() == Status::Failed {
            return;
        }
        for name in &verdict.names {
            let bytes = name.name().as_bytes();
            match name {
                NameUse::Executes(_) => {
                    let statement =
                        if pipeline.effects.uses_name(bytes) { None } else { self.prepared.get(bytes, &pipeline.owed) };
                    self.note(statement.as_ref().map(|statement| &*statement.verdict), pipeline);
                }
                NameUse::Deallocates(_) if self.prepared.get(bytes, &pipeline.owed).is_none() => {}
                NameUse::Prepares(_) | NameUse::Deallocates(_) => pipeline.effects.use_name(bytes),
            }
        }
    }

    /// The server has told which of the names in use, and which others made by SQL, it knows now. False when there is
    /// one that cannot be carried to another server connection.
    pub(super) fn learn_names(
        &mut self,
        used: &BTreeSet<Box<[u8]>>,
        told: &[Prepared],
        server: &mut ServerState,
    ) -> bool {
        let mut all = true;
        for prepared in told {
            // A stranger's could not be closed, so the client's own is not there.
            if server.statements.own(&prepared.name) != Some(None) {
                all &= self.learn_name(prepared, server);
            }
        }
        let told: BTreeSet<&[u8]> = counted(told.iter()).map(|prepared| &*prepared.name).collect();
        for name in counted(used.iter()).filter(|name| !told.contains(&***name)) {
            // One that was never brought there has not been taken away there.
            if matches!(server.statements.own(name), Some(Some(_))) {
                self.prepared.named_mut().remove(name);
            }
            server.statements.remove_own(name);
        }
        all
    }

    fn learn_name(&mut self, prepared: &Prepared, server: &mut ServerState) -> bool {
        let Prepared { name, by_sql, types, text } = prepared;
        if !name.is_ascii() {
            return false;
        }
        let found = by_sql.then(|| prepared_text(text, name));
        let sql = found.map_or(Some(&**text), |found| found.map(|found| found.inner));
        let Some(sql) = sql.filter(|_| self.renames()) else { return false };
        let planned_under = if self.settings.is_empty() { 0 } else { self.settings.planner_hash() };
        let judge = || Arc::new(judge_bytes(sql).into());
        let statement = self.shared.statements.intern(sql, types, planned_under, judge);
        let since = self.shared.statements.next_moment();
        server.statements.set_own(name, Some((statement.id, since)));
        // What came in one text with it must not be done again.
        let prepare = found.flatten().map(|found| found.command.into());
        self.prepared.named_mut().insert_named(name.clone(), Named::new(statement, prepare, since));
        true
    }
}

/// Closes a name of a client's own on the server.
fn close_own(name: &[u8], pipeline: &mut Pipeline, server: &mut ServerState, out: &mut Outboxes<'_>) {
    // Until the reply has come, it may be there or not.
    server.statements.set_own(name, None);
    request::about_statement(b'C', name, out.to_server);
    pipeline.owed.push(Owed::CloseForSql { name: name.into() });
}
