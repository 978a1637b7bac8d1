//! What a client's messages about prepared statements and portals mean: Parse, Bind, Describe and Close.

use std::sync::Arc;

use super::{
    ClientStep, Judge, Need, Outboxes, Pipeline, ServerState, Session, Shown,
    ask::Lent,
    client::{BatchAhead, JUDGED_BYTES_MAX, Said, violation},
    owed::Owed,
    pipeline::Judged,
    poolhouse_settings::{Here, POSITION_QUERY, asks_position},
    prepare_again::{Fit, drop_held, drop_strange_unnamed},
    sql_names::SentBy,
    statements::{NAME_PREFIX, Statement},
    statements_under_way::Presence,
    verbatim::with_values,
};
use crate::{
    sql::{Edited, Fact, Pin},
    wire::{
        self,
        error::{Report, SqlState},
        frame::{self, ClientMessage},
        reply,
        request::{self, BindNames, Object, Parse},
    },
};

/// Longest names at the front of a Bind message that are gathered.
const NAMES_BYTES_MAX: usize = 8 << 10;

/// A statement of ours that is on no server: a Bind to it is refused.
const STALE_NAME: &[u8] = b"__poolhouse_stale";

/// Passes a Parse message on, as it is unless its text was `replaced`.
fn pass(parse: &Parse<'_>, replaced: bool, out: &mut Outboxes<'_>) -> ClientStep {
    if !replaced {
        return ClientStep::Forward;
    }
    parse.write(parse.name, out.to_server);
    ClientStep::Answered
}

impl Session {
    pub(super) fn on_parse(
        &mut self,
        said: Said<'_, impl Judge>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        let Said { shown: message, judged, judge, .. } = said;
        if pipeline.owed.is_full() {
            return ClientStep::Hold;
        }
        if !message.is_whole() && message.head.body <= JUDGED_BYTES_MAX {
            return ClientStep::More;
        }
        if !message.is_whole() {
            return self.on_long_parse(message, pipeline, server, out);
        }
        let mut parse = match Parse::read(message.body) {
            Ok(parse) => parse,
            Err(error) => return violation(error),
        };
        let mut statement = match judged {
            Some(Judged::Parse(statement)) => statement,
            _ => self.intern_own(&parse, pipeline, judge),
        };
        if asks_position(&statement.verdict) {
            statement = self.intern_own(&Parse { sql: POSITION_QUERY.as_bytes(), ..parse }, pipeline, judge);
        }
        let edited = self.edited(&statement.verdict, parse.sql);
        if let Some(edited) = &edited {
            statement = self.shared.statements.retexted(&statement, edited.text.as_bytes());
            parse.sql = edited.text.as_bytes();
        }
        let is_position = *statement.sql == *POSITION_QUERY.as_bytes() && statement.sql.len() != parse.sql.len();
        if is_position {
            parse.sql = POSITION_QUERY.as_bytes();
        }
        let replaced = is_position || edited.is_some();
        if self.may_refuse()
            && let Some(step) = self.refuse_text(&statement.verdict, ClientMessage::Parse, pipeline, out)
        {
            return step;
        }
        let in_waiting_block = server.is_none() && self.in_waiting_block();
        if statement.verdict.own.is_some() && !in_waiting_block {
            return self.on_own_parse(
                &parse,
                statement,
                &mut Here { pipeline, node: server.map(|server| server.node), out },
            );
        }
        if statement.verdict.does(Fact::AsksSequence) {
            self.draws.ask(&self.shared.code);
        }
        let need = self.need_of_batch(
            &statement,
            BatchAhead { parsed: Some(parse.name), after: message.after },
            pipeline,
            judge,
        );
        let Some(server) = server else {
            pipeline.judged = Some(Judged::Parse(statement));
            return ClientStep::NeedServer(need);
        };
        // EXECUTE is described by what it executes, and that is looked up when it is parsed.
        if self.moves(pipeline, server, need, out) || self.awaits_processes(&statement.verdict, pipeline) {
            return ClientStep::Hold;
        }
        self.tell_processes(&statement.verdict, judge, &mut Lent { pipeline, server, out });
        if !self.bring_names(&statement.verdict, SentBy::Batch, &mut Lent { pipeline, server, out }) {
            return ClientStep::Hold;
        }
        if let Some(Edited { edits, .. }) = &edited {
            pipeline.note_edits(edits.clone());
        }
        if parse.name.is_empty() {
            self.prepared.parse_unnamed();
            server.statements.set_unnamed(self.prepared.last_unnamed(self.number));
            pipeline.note_unnamed();
            pipeline.owed.push_change(Owed::Parse { id: None, names: true }, b"", Some(statement));
            return pass(&parse, replaced, out);
        }
        if pipeline.effects.uses_name(parse.name) {
            // Its own name is the server's, until it has been asked.
            self.prepared.note_passed(parse.name, self.called(&statement, pipeline));
            pipeline.counts.add_passed_parse();
            pipeline.owed.push(Owed::Parse { id: None, names: false });
            return pass(&parse, replaced, out);
        }
        if !self.renames() {
            self.prepared.note_passed(parse.name, self.called(&statement, pipeline));
            pipeline.effects.pins.insert(Pin::Prepare);
            pipeline.counts.add_passed_parse();
            pipeline.owed.push(Owed::Parse { id: None, names: false });
            return pass(&parse, replaced, out);
        }
        self.parse_named(&parse, statement, &mut Lent { pipeline, server, out })
    }

    /// A text too long to be held: it passes under the client's own name, and the session is pinned.
    fn on_long_parse(
        &mut self,
        message: Shown<'_>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        let need = self.need(None, pipeline);
        let Some(server) = server else { return ClientStep::NeedServer(need) };
        if self.moves(pipeline, server, need, out) {
            return ClientStep::Hold;
        }
        let Some((name, _)) = frame::split_text(message.body) else {
            return violation(wire::Error::Malformed("Parse"));
        };
        self.note(None, pipeline);
        if name.is_empty() {
            server.statements.forget_unnamed();
            pipeline.note_long_unnamed();
            pipeline.owed.push_change(Owed::Parse { id: None, names: true }, b"", None);
            return ClientStep::Forward;
        } else if name.starts_with(NAME_PREFIX) {
            return reserved_name();
        } else {
            pipeline.effects.pins.insert(Pin::Prepare);
            pipeline.counts.add_passed_parse();
        }
        pipeline.owed.push(Owed::Parse { id: None, names: false });
        ClientStep::Forward
    }

    fn parse_named(&mut self, parse: &Parse<'_>, statement: Arc<Statement>, lent: &mut Lent<'_, '_>) -> ClientStep {
        let Lent { pipeline, server, out } = lent;
        if let Some(report) = self.prepared.too_much(parse, &pipeline.owed) {
            return ClientStep::fail(report);
        }
        if pipeline.owed.is_unsettled(parse.name) {
            return ClientStep::Hold;
        }
        if let Some(taken) = self.prepared.get(parse.name, &pipeline.owed) {
            // The server has to refuse it, so that its transaction fails as it would on a direct connection.
            self.ensure(&taken, 0, &mut Lent { pipeline, server, out });
            parse.write(&taken.name, out.to_server);
            pipeline.counts.add_passed_parse();
            pipeline.owed.push(Owed::ParseTaken { name: parse.name.into() });
            return ClientStep::Answered;
        }
        match pipeline.presence(statement.id, server.statements.touch(statement.id).is_some()) {
            // What the text means may have changed since: tables, types, functions. The client asks now.
            Presence::Held | Presence::Unsure => drop_held(statement.id, &server.statements, pipeline, out),
            Presence::Lacking => self.make_room(statement.sql.len(), pipeline, server, out),
        }
        parse.write(&statement.name, out.to_server);
        pipeline.counts.add_passed_parse();
        pipeline.owed.note_prepared(statement.id, self.shared.statements.next_moment(), statement.sql.len());
        pipeline.owed.push_change(Owed::Parse { id: Some(statement.id), names: true }, parse.name, Some(statement));
        ClientStep::Answered
    }

    pub(super) fn on_bind(
        &mut self,
        said: &Said<'_, impl Judge>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        let Said { shown: message, judge, .. } = *said;
        if pipeline.owed.is_full() {
            return ClientStep::Hold;
        }
        let front = &message.body[..message.body.len().min(NAMES_BYTES_MAX)];
        let Some(names) = BindNames::read(front) else {
            let more = !message.is_whole() && front.len() < NAMES_BYTES_MAX;
            return if more { ClientStep::More } else { violation(wire::Error::Malformed("Bind")) };
        };
        if pipeline.verbatim && server.is_some() && !message.is_whole() && front.len() < NAMES_BYTES_MAX {
            // Its values are to be shown.
            return ClientStep::More;
        }
        if pipeline.owed.is_unsettled(names.statement) {
            return ClientStep::Hold;
        }
        let raw = pipeline.effects.uses_name(names.statement);
        let mut statement = if raw { None } else { self.prepared.get(names.statement, &pipeline.owed) };
        if let Some(statement) = statement.as_ref().filter(|statement| statement.verdict.own.is_some())
            && !(server.is_none() && self.in_waiting_block())
        {
            let node = server.map(|server| server.node);
            return self.on_own_bind(message, &names, statement.clone(), &mut Here { pipeline, node, out });
        }
        if statement.as_ref().is_some_and(|statement| statement.verdict.does(Fact::AsksSequence)) {
            self.draws.ask(&self.shared.code);
        }
        let mut need = match &statement {
            Some(statement) => {
                self.need_of_batch(statement, BatchAhead { parsed: None, after: message.after }, pipeline, judge)
            }
            None => self.need_of_rest(message.after, pipeline, judge),
        };
        if need == Need::Read && self.is_in_block(pipeline) && !names.portal.is_empty() {
            need = Need::Write;
        }
        let Some(server) = server else {
            pipeline.judged = statement.map(Judged::Parse);
            return ClientStep::NeedServer(need);
        };
        if self.moves(pipeline, server, need, out) {
            return ClientStep::Hold;
        }
        if let Some(statement) = &statement {
            if self.awaits_processes(&statement.verdict, pipeline) {
                return ClientStep::Hold;
            }
            self.tell_processes(&statement.verdict, judge, &mut Lent { pipeline, server, out });
        }
        let described = describes(message.after, names.portal);
        let mut fit = Fit::Same;
        if let Some(statement) = &mut statement {
            if self.own.is_some()
                && let Some(step) =
                    self.note_own(Some(&statement.verdict), ClientMessage::Bind, &mut Lent { pipeline, server, out })
            {
                return step;
            }
            // What is prepared anew for the question looks its names up. Only what is to be listed comes after it: that would
            // take away what was asked about, and the answer with it.
            let lists = statement.verdict.does(Fact::ListsStatements);
            if self.awaits_names(&statement.verdict, pipeline, server) {
                return ClientStep::Hold;
            }
            if !lists {
                self.bring_names(&statement.verdict, SentBy::Batch, &mut Lent { pipeline, server, out });
            }
            fit = self.fits(names.statement, described, statement, &mut Lent { pipeline, server, out });
            if fit == Fit::Retyped {
                // As on a direct connection, where the types stay those that were found out when it was parsed.
                if let Some(types) = self.prepared.named().told_types(names.statement) {
                    *statement = self.shared.statements.retyped(statement, types);
                    self.prepared.named_mut().retype(names.statement, statement);
                    fit = self.fits(names.statement, described, statement, &mut Lent { pipeline, server, out });
                } else {
                    fit = Fit::Changed;
                }
            }
            if fit == Fit::Unknown {
                return ClientStep::Hold;
            }
            if lists {
                self.bring_names(&statement.verdict, SentBy::Batch, &mut Lent { pipeline, server, out });
            }
        }
        self.forget_own_portal(names.portal);
        pipeline.take(|seldom| &mut seldom.asks);
        pipeline.bound = match &statement {
            Some(statement) => self.called(statement, pipeline),
            None => self.prepared.called_passed(names.statement),
        };
        if pipeline.verbatim {
            pipeline.bound = with_values(&pipeline.bound, &message.body[names.bytes..]);
        }
        let reads = match &statement {
            Some(statement) => {
                self.note_begin(&statement.verdict, &statement.sql, pipeline);
                let reads = self.note(Some(&statement.verdict), pipeline);
                self.note_cause(&statement.sql, pipeline);
                // What is bound need not be executed.
                pipeline.effects.undone |= !statement.verdict.settings.is_empty();
                reads
            }
            None if raw => self.note(None, pipeline),
            None => {
                self.wrote = true;
                false
            }
        };
        pipeline.counts.add_statement(reads);
        pipeline.counts.binds += u32::from(!names.statement.is_empty());
        match statement {
            Some(statement) if names.statement.is_empty() => {
                self.ensure_unnamed(&statement, pipeline, server, out);
                pipeline.owed.push(Owed::Bind { id: None });
                ClientStep::Forward
            }
            // All of the client's statements are there under its own names, and nothing else is to be listed.
            Some(statement)
                if statement.verdict.does(Fact::ListsStatements) && fit != Fit::Changed && self.brings(pipeline) =>
            {
                pipeline.owed.push(Owed::Bind { id: None });
                ClientStep::Forward
            }
            Some(statement) => {
                if fit == Fit::Changed {
                    names.write_front(message.head.body, STALE_NAME, out.to_server);
                    pipeline.owed.push(Owed::StaleBind);
                    return ClientStep::Replaced { rest: frame::HEADER_BYTES + names.bytes };
                }
                // What gives the columns that the client was told is as good as its own.
                let told = self.prepared.named().told(names.statement);
                let seen = told.is_some_and(|told| !(told.is_of_portal() && described));
                let since = if seen { 0 } else { self.prepared.since(names.statement, &pipeline.owed) };
                pipeline.take(|seldom| &mut seldom.tells_of);
                if described && told.is_none() {
                    pipeline.seldom_mut().tells_of = Some(statement.id);
                }
                self.ensure(&statement, since, &mut Lent { pipeline, server, out });
                names.write_front(message.head.body, &statement.name, out.to_server);
                pipeline.owed.push(Owed::Bind { id: Some(statement.id) });
                ClientStep::Replaced { rest: frame::HEADER_BYTES + names.bytes }
            }
            None if names.statement.starts_with(NAME_PREFIX) => reserved_name(),
            None => {
                if names.statement.is_empty() {
                    pipeline.bind_long_unnamed();
                    drop_strange_unnamed(pipeline, server, out);
                }
                self.close_stranger(names.statement, pipeline, server, out);
                pipeline.owed.push(Owed::Bind { id: None });
                ClientStep::Forward
            }
        }
    }

    pub(super) fn on_describe(
        &mut self,
        said: &Said<'_, impl Judge>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        let Said { shown: message, judge, .. } = *said;
        if !message.is_whole() {
            return ClientStep::More;
        }
        let object = match Object::read(message.body) {
            Ok(object) => object,
            Err(error) => return violation(error),
        };
        let statement = match object {
            Object::Statement(name) if pipeline.owed.is_unsettled(name) => return ClientStep::Hold,
            Object::Statement(name) if !pipeline.effects.uses_name(name) => self.prepared.get(name, &pipeline.owed),
            Object::Statement(_) | Object::Portal(_) => None,
        };
        let node = server.as_deref().map(|server| server.node);
        if let Some(step) = self.on_own_describe(object, statement.as_ref(), &mut Here { pipeline, node, out }) {
            return step;
        }
        let need = match &statement {
            Some(statement) => {
                self.need_of_batch(statement, BatchAhead { parsed: None, after: message.after }, pipeline, judge)
            }
            None => self.need_of_rest(message.after, pipeline, judge),
        };
        let Some(server) = server else { return ClientStep::NeedServer(need) };
        if pipeline.owed.is_full() || self.moves(pipeline, server, need, out) {
            return ClientStep::Hold;
        }
        if let Some(statement) = &statement
            && !self.bring_names(&statement.verdict, SentBy::Batch, &mut Lent { pipeline, server, out })
        {
            return ClientStep::Hold;
        }
        match (object, statement) {
            (Object::Statement(b""), Some(statement)) => {
                self.ensure_unnamed(&statement, pipeline, server, out);
                pipeline.owed.push(Owed::Describe { id: None, unnamed: true });
                ClientStep::Forward
            }
            (Object::Statement(name), Some(statement)) => {
                let since = self.prepared.since(name, &pipeline.owed);
                self.ensure(&statement, since, &mut Lent { pipeline, server, out });
                request::about_statement(b'D', &statement.name, out.to_server);
                pipeline.owed.push(Owed::Describe { id: Some(statement.id), unnamed: false });
                ClientStep::Answered
            }
            (Object::Statement(name), None) if name.starts_with(NAME_PREFIX) => reserved_name(),
            (object, _) => {
                match object {
                    Object::Statement(b"") => drop_strange_unnamed(pipeline, server, out),
                    Object::Statement(name) => self.close_stranger(name, pipeline, server, out),
                    Object::Portal(_) => {}
                }
                let tells_of =
                    pipeline.take(|seldom| &mut seldom.tells_of).filter(|_| matches!(object, Object::Portal(_)));
                pipeline.owed.push(Owed::Describe { id: tells_of, unnamed: false });
                ClientStep::Forward
            }
        }
    }

    pub(super) fn on_close(
        &mut self,
        said: &Said<'_, impl Judge>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        let Said { shown: message, judge, .. } = *said;
        if !message.is_whole() {
            return ClientStep::More;
        }
        let object = match Object::read(message.body) {
            Ok(object) => object,
            Err(error) => return violation(error),
        };
        let need = self.need_of_rest(message.after, pipeline, judge);
        let mut server = server;
        if let Some(server) = server.as_deref_mut()
            && (pipeline.owed.is_full() || self.moves(pipeline, server, need, out))
        {
            return ClientStep::Hold;
        }
        if let Object::Portal(name) = object {
            self.forget_own_portal(name);
        }
        if let Object::Statement(name) = object {
            self.prepared.forget_passed(name);
        }
        let Some(server) = server else {
            // No portal and no other statement of this client exists without a server connection.
            match object {
                Object::Statement(name) => self.prepared.close(name),
                Object::Portal(_) => {}
            }
            out.to_client.extend_from_slice(&reply::CLOSE_COMPLETE);
            return ClientStep::Answered;
        };
        match object {
            Object::Statement(name) if pipeline.owed.is_unsettled(name) => ClientStep::Hold,
            Object::Statement(b"") => {
                server.statements.forget_unnamed();
                pipeline.drop_long_unnamed();
                pipeline.owed.push_change(Owed::Close { unnamed: true }, b"", None);
                ClientStep::Forward
            }
            Object::Statement(name) if pipeline.effects.uses_name(name) => {
                pipeline.owed.push(Owed::Close { unnamed: false });
                ClientStep::Forward
            }
            Object::Statement(name)
                if name.starts_with(NAME_PREFIX) || self.prepared.get(name, &pipeline.owed).is_some() =>
            {
                pipeline.owed.push_change(Owed::CloseKnown, name, None);
                self.answer_known(pipeline, out.to_client);
                ClientStep::Answered
            }
            object => {
                if let Object::Statement(name) = object {
                    self.close_stranger(name, pipeline, server, out);
                }
                pipeline.owed.push(Owed::Close { unnamed: false });
                ClientStep::Forward
            }
        }
    }
}

fn reserved_name() -> ClientStep {
    ClientStep::fail(
        Report::fatal(SqlState::FEATURE_NOT_SUPPORTED, "names of prepared statements cannot begin with __poolhouse_")
            .hint("Choose another name: Poolhouse keeps the statements of all clients under names that begin so."),
    )
}

/// Whether what follows a Bind begins with a Describe of its portal.
fn describes(after: &[u8], portal: &[u8]) -> bool {
    let Some(([b'D', _, _, _, _], body)) = after.split_first_chunk::<{ frame::HEADER_BYTES }>() else { return false };
    let rest = body.strip_prefix(b"P").and_then(|name| name.strip_prefix(portal));
    rest.is_some_and(|rest| rest.first() == Some(&0))
}
