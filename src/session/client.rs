//! What a client's message means.

use std::sync::Arc;

use super::{
    ClientStep, Judge, Mode, Need, Outboxes, Pipeline, ServerState, Session, Shown,
    pipeline::Owed,
    statements::{CLIENT_STATEMENTS_MAX, NAME_PREFIX, Statement, name_of_id},
};
use crate::{
    sql::{Access, Deallocate, Pin, SettingChange, TransactionControl, Verdict},
    wire::{
        self,
        error::{Report, SqlState},
        frame::{self, Request},
        reply::{self, Status},
        request::{self, BindNames, Object, Parse},
    },
};

/// Longest text that is gathered to be judged, in bytes. A longer one streams through to the primary, and the server is
/// asked afterwards what it has done to the session.
pub const JUDGED_BYTES_MAX: usize = 1 << 20;

/// Longest names at the front of a Bind message that are gathered.
const NAMES_BYTES_MAX: usize = 8 << 10;

impl Session {
    /// A message from the client: at least its header, and as much of its body as has come.
    ///
    /// `server` is there while a server connection is lent.
    pub fn on_client(
        &mut self,
        message: Shown<'_>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        judge: &impl Judge,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        let request = match Request::of(message.head) {
            Ok(request) => request,
            Err(error) => return violation(error),
        };
        if request == Request::Terminate {
            return ClientStep::Bye;
        }
        let judged = pipeline.judged.take();
        if pipeline.holding {
            return ClientStep::Hold;
        }
        if let Some(step) = self.skipped(request, pipeline, out) {
            return step;
        }
        if let Some(step) = self.answer_loss(request, out) {
            return step;
        }
        match request {
            Request::Query => self.on_query(message, judged, pipeline, server, judge, out),
            Request::Parse => self.on_parse(message, pipeline, server, judge, out),
            Request::Bind => self.on_bind(message, pipeline, server, judge, out),
            Request::Describe => self.on_describe(message, pipeline, server, judge, out),
            Request::Close => self.on_close(message, pipeline, server, out),
            Request::Execute => self.on_execute(pipeline, server),
            Request::Sync => self.on_sync(pipeline, server, out),
            Request::Flush if server.is_some() => ClientStep::Forward,
            Request::Flush => ClientStep::Swallow,
            Request::FunctionCall => self.on_function_call(pipeline, server),
            Request::CopyData => copy(pipeline, server, None),
            Request::CopyDone | Request::CopyFail => copy(pipeline, server, Some(Owed::CopyEnd)),
            Request::Password => violation(wire::Error::UnknownMessage(message.head.tag)),
            Request::Terminate => ClientStep::Bye,
        }
    }

    /// After an error in an extended query everything up to Sync is skipped, as PostgreSQL does.
    fn skipped(&mut self, request: Request, pipeline: &mut Pipeline, out: &mut Outboxes<'_>) -> Option<ClientStep> {
        if !(self.skip_to_sync || pipeline.skipping) {
            return None;
        }
        if request != Request::Sync {
            return Some(ClientStep::Swallow);
        }
        if pipeline.skipping {
            pipeline.skipping = false;
            return None;
        }
        self.skip_to_sync = false;
        reply::ready_for_query(Status::Idle, out.to_client);
        Some(ClientStep::Answered)
    }

    /// The client's transaction was lost with its server while it idled: its next message gets the error.
    fn answer_loss(&mut self, request: Request, out: &mut Outboxes<'_>) -> Option<ClientStep> {
        self.lost.as_ref()?;
        match request {
            Request::Sync | Request::Flush | Request::CopyData | Request::CopyDone | Request::CopyFail => None,
            _ => {
                let report = self.lost.take()?;
                Some(self.refuse(&report, request, out))
            }
        }
    }

    /// Answers a message with an error in the server's place, outside a transaction.
    fn refuse(&mut self, report: &Report, request: Request, out: &mut Outboxes<'_>) -> ClientStep {
        report.write(out.to_client);
        match request {
            Request::Query | Request::FunctionCall => reply::ready_for_query(Status::Idle, out.to_client),
            _ => self.skip_to_sync = true,
        }
        ClientStep::Answered
    }

    /// No server connection could be had for a message of this type, and its error has been written: what follows the
    /// error in the protocol.
    pub fn after_refusal(&mut self, tag: u8, out: &mut Outboxes<'_>) {
        if matches!(tag, b'Q' | b'F') {
            reply::ready_for_query(Status::Idle, out.to_client);
        } else {
            self.skip_to_sync = true;
        }
    }

    fn on_query(
        &mut self,
        message: Shown<'_>,
        judged: Option<Arc<Verdict>>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        judge: &impl Judge,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        if pipeline.is_full() {
            return ClientStep::Hold;
        }
        let verdict = if let Some(judged) = judged {
            Some(judged)
        } else if message.is_whole() {
            match request::query_text(message.body) {
                Ok(sql) => Some(judge.verdict(sql)),
                Err(error) => return violation(error),
            }
        } else if message.head.body <= JUDGED_BYTES_MAX {
            return ClientStep::More;
        } else {
            None
        };
        if let Some(verdict) = &verdict {
            if let Some(step) = self.refuse_block(verdict, Request::Query, pipeline, out) {
                return step;
            }
            if let Some(step) = self.deallocate(verdict, pipeline, server.is_some(), out) {
                return step;
            }
        }
        let need = self.need(verdict.as_deref());
        let Some(server) = server else {
            pipeline.judged = verdict;
            return ClientStep::NeedServer(need);
        };
        if moves(pipeline, need) {
            pipeline.judged = verdict;
            return ClientStep::Hold;
        }
        self.note(verdict.as_deref(), pipeline);
        self.unnamed = None;
        server.unnamed = None;
        pipeline.push(Owed::Query);
        ClientStep::Forward
    }

    /// Statement mode has no transaction blocks.
    fn refuse_block(
        &mut self,
        verdict: &Verdict,
        request: Request,
        pipeline: &Pipeline,
        out: &mut Outboxes<'_>,
    ) -> Option<ClientStep> {
        let opens = matches!(verdict.transaction, TransactionControl::Begin { .. } | TransactionControl::Mixed);
        if self.shared.mode != Mode::Statement || !opens {
            return None;
        }
        if !pipeline.owed.is_empty() {
            return Some(ClientStep::Hold);
        }
        let report =
            Report::error(SqlState::FEATURE_NOT_SUPPORTED, "transaction blocks are not possible in statement mode")
                .hint("Set pool.mode to \"transaction\" for this database.");
        Some(self.refuse(&report, request, out))
    }

    /// SQL DEALLOCATE of a statement that was prepared by the protocol: the server does not know the client's name.
    fn deallocate(
        &mut self,
        verdict: &Verdict,
        pipeline: &Pipeline,
        attached: bool,
        out: &mut Outboxes<'_>,
    ) -> Option<ClientStep> {
        let Deallocate::Named(name) = &verdict.deallocates else { return None };
        if verdict.statements != 1 || pipeline.status == Status::Failed || self.names.get(name.as_bytes()).is_none() {
            return None;
        }
        if attached && !pipeline.owed.is_empty() {
            return Some(ClientStep::Hold);
        }
        self.names.remove(name.as_bytes());
        reply::command_complete("DEALLOCATE", out.to_client);
        reply::ready_for_query(if attached { pipeline.status } else { Status::Idle }, out.to_client);
        Some(ClientStep::Answered)
    }

    fn on_parse(
        &mut self,
        message: Shown<'_>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        judge: &impl Judge,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        if pipeline.is_full() {
            return ClientStep::Hold;
        }
        if !message.is_whole() && message.head.body <= JUDGED_BYTES_MAX {
            return ClientStep::More;
        }
        if !message.is_whole() {
            return self.on_long_parse(message, pipeline, server);
        }
        let parse = match Parse::read(message.body) {
            Ok(parse) => parse,
            Err(error) => return violation(error),
        };
        let statement = self.intern(&parse, judge);
        if let Some(step) = self.refuse_block(&statement.verdict, Request::Parse, pipeline, out) {
            return step;
        }
        let need = self.need_of_batch(&statement.verdict, message.after, pipeline, judge);
        let Some(server) = server else { return ClientStep::NeedServer(need) };
        if moves(pipeline, need) {
            return ClientStep::Hold;
        }
        if parse.name.is_empty() {
            server.unnamed = Some(statement.id);
            pipeline.pending.push((Box::default(), statement.clone()));
            pipeline.push(Owed::Parse { name: Box::default(), statement: Some(statement) });
            return ClientStep::Forward;
        }
        if !self.renames() {
            pipeline.effects.pins.insert(Pin::Prepare);
            pipeline.push(Owed::Parse { name: parse.name.into(), statement: None });
            return ClientStep::Forward;
        }
        self.parse_named(&parse, statement, pipeline, server, out)
    }

    /// A text too long to be held: it passes under the client's own name, and the session is pinned.
    fn on_long_parse(
        &mut self,
        message: Shown<'_>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
    ) -> ClientStep {
        let Some(server) = server else { return ClientStep::NeedServer(Need::Write) };
        if moves(pipeline, Need::Write) {
            return ClientStep::Hold;
        }
        let Some((name, _)) = frame::split_text(message.body) else {
            return violation(wire::Error::Malformed("Parse"));
        };
        self.note(None, pipeline);
        if name.is_empty() {
            server.unnamed = None;
            self.unnamed = None;
            pipeline.pending.retain(|(name, _)| !name.is_empty());
        } else if name.starts_with(NAME_PREFIX) {
            return reserved_name();
        } else {
            pipeline.effects.pins.insert(Pin::Prepare);
        }
        pipeline.push(Owed::Parse { name: name.into(), statement: None });
        ClientStep::Forward
    }

    fn parse_named(
        &mut self,
        parse: &Parse<'_>,
        statement: Arc<Statement>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        if self.names.len() + pipeline.pending.len() >= CLIENT_STATEMENTS_MAX {
            return ClientStep::fail(Report::fatal(
                SqlState::LIMIT_EXCEEDED,
                format!("one client cannot hold more than {CLIENT_STATEMENTS_MAX} prepared statements"),
            ));
        }
        let taken = pipeline.pending(parse.name).or_else(|| self.names.get(parse.name)).cloned();
        if let Some(taken) = taken {
            // The server has to refuse it, so that its transaction fails as it would on a direct connection.
            self.ensure(&taken, pipeline, server, out);
            parse.write(&taken.name, out.to_server);
            pipeline.push(Owed::Parse { name: parse.name.into(), statement: None });
            return ClientStep::Answered;
        }
        let name: Box<[u8]> = parse.name.into();
        pipeline.pending.push((name.clone(), statement.clone()));
        let certain = pipeline.ready_owed == 0 && pipeline.status != Status::Failed;
        let held = server.statements.touch(statement.id);
        if held && certain {
            pipeline.push(Owed::ParseKnown { name, statement });
            self.answer_known(pipeline, out.to_client);
            return ClientStep::Answered;
        }
        if held {
            // Whether the transaction has failed cannot be known yet: the server decides, so it has to parse again.
            request::about_statement(b'C', &statement.name, out.to_server);
            pipeline.push(Owed::OurClose { id: statement.id });
        } else {
            self.make_room(&statement, pipeline, server, out);
        }
        parse.write(&statement.name, out.to_server);
        pipeline.push(Owed::Parse { name, statement: Some(statement) });
        ClientStep::Answered
    }

    /// Prepares a statement of the client's on a server that lacks it, in front of the message that needs it.
    fn ensure(
        &self,
        statement: &Arc<Statement>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) {
        if server.statements.touch(statement.id) {
            return;
        }
        self.make_room(statement, pipeline, server, out);
        let parse = Parse { name: &statement.name, sql: &statement.sql, types: &statement.types };
        parse.write(&statement.name, out.to_server);
        pipeline.push(Owed::OurParse { id: statement.id, unnamed: false });
    }

    fn make_room(
        &self,
        statement: &Statement,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) {
        if let Some(evicted) = server.statements.insert(statement.id, self.shared.statements_max) {
            request::about_statement(b'C', &name_of_id(evicted), out.to_server);
            pipeline.push(Owed::OurClose { id: evicted });
        }
    }

    fn on_bind(
        &mut self,
        message: Shown<'_>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        judge: &impl Judge,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        if pipeline.is_full() {
            return ClientStep::Hold;
        }
        let front = &message.body[..message.body.len().min(NAMES_BYTES_MAX)];
        let Some(names) = BindNames::read(front) else {
            let more = !message.is_whole() && front.len() < NAMES_BYTES_MAX;
            return if more { ClientStep::More } else { violation(wire::Error::Malformed("Bind")) };
        };
        let statement = self.statement(names.statement, pipeline);
        let need = match &statement {
            Some(statement) => self.need_of_batch(&statement.verdict, message.after, pipeline, judge),
            None => Need::Write,
        };
        let Some(server) = server else { return ClientStep::NeedServer(need) };
        if moves(pipeline, need) {
            return ClientStep::Hold;
        }
        match &statement {
            Some(statement) => self.note(Some(&statement.verdict), pipeline),
            None => self.wrote = true,
        }
        match statement {
            Some(statement) if names.statement.is_empty() => {
                self.ensure_unnamed(&statement, pipeline, server, out);
                pipeline.push(Owed::Bind);
                ClientStep::Forward
            }
            Some(statement) => {
                self.ensure(&statement, pipeline, server, out);
                names.write_front(message.head.body, &statement.name, out.to_server);
                pipeline.push(Owed::Bind);
                ClientStep::Replaced { rest: frame::HEADER_BYTES + names.bytes }
            }
            None if names.statement.starts_with(NAME_PREFIX) => reserved_name(),
            None => {
                pipeline.push(Owed::Bind);
                ClientStep::Forward
            }
        }
    }

    /// The unnamed statement of a client that parsed it on another server connection.
    fn ensure_unnamed(
        &self,
        statement: &Arc<Statement>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) {
        if server.unnamed == Some(statement.id) {
            return;
        }
        server.unnamed = Some(statement.id);
        let parse = Parse { name: b"", sql: &statement.sql, types: &statement.types };
        parse.write(b"", out.to_server);
        pipeline.push(Owed::OurParse { id: statement.id, unnamed: true });
    }

    fn on_describe(
        &mut self,
        message: Shown<'_>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        judge: &impl Judge,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        if !message.is_whole() {
            return ClientStep::More;
        }
        let object = match Object::read(message.body) {
            Ok(object) => object,
            Err(error) => return violation(error),
        };
        let statement = match object {
            Object::Statement(name) => self.statement(name, pipeline),
            Object::Portal(_) => None,
        };
        let need = match &statement {
            Some(statement) => self.need_of_batch(&statement.verdict, message.after, pipeline, judge),
            // A portal lives in the transaction that the server connection is lent for.
            None if pipeline.read_only => Need::Read,
            None => Need::Write,
        };
        let Some(server) = server else { return ClientStep::NeedServer(need) };
        if pipeline.is_full() || moves(pipeline, need) {
            return ClientStep::Hold;
        }
        match (object, statement) {
            (Object::Statement(b""), Some(statement)) => {
                self.ensure_unnamed(&statement, pipeline, server, out);
                pipeline.push(Owed::Describe);
                ClientStep::Forward
            }
            (Object::Statement(_), Some(statement)) => {
                self.ensure(&statement, pipeline, server, out);
                request::about_statement(b'D', &statement.name, out.to_server);
                pipeline.push(Owed::Describe);
                ClientStep::Answered
            }
            (Object::Statement(name), None) if name.starts_with(NAME_PREFIX) => reserved_name(),
            _ => {
                pipeline.push(Owed::Describe);
                ClientStep::Forward
            }
        }
    }

    fn on_close(
        &mut self,
        message: Shown<'_>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        if !message.is_whole() {
            return ClientStep::More;
        }
        let object = match Object::read(message.body) {
            Ok(object) => object,
            Err(error) => return violation(error),
        };
        if pipeline.is_full() {
            return ClientStep::Hold;
        }
        let ours = match object {
            Object::Statement(b"") => {
                self.unnamed = None;
                pipeline.pending.retain(|(name, _)| !name.is_empty());
                None
            }
            Object::Statement(name) => {
                let pending = pipeline.pending.iter().rposition(|(known, _)| **known == *name);
                let pending = pending.map(|at| pipeline.pending.remove(at).1);
                let statement = self.names.remove(name).or(pending);
                (statement.is_some() || name.starts_with(NAME_PREFIX)).then(|| (Box::from(name), statement))
            }
            Object::Portal(_) => None,
        };
        match (server, ours) {
            (None, _) => {
                // No portal and no other statement of this client exists without a server connection.
                out.to_client.extend_from_slice(&reply::CLOSE_COMPLETE);
                ClientStep::Answered
            }
            (Some(_), Some((name, statement))) => {
                pipeline.push(Owed::CloseKnown { name, statement });
                self.answer_known(pipeline, out.to_client);
                ClientStep::Answered
            }
            (Some(server), None) => {
                if object == Object::Statement(b"") {
                    server.unnamed = None;
                }
                pipeline.push(Owed::Close);
                ClientStep::Forward
            }
        }
    }

    fn on_execute(&mut self, pipeline: &mut Pipeline, server: Option<&mut ServerState>) -> ClientStep {
        if pipeline.is_full() {
            return ClientStep::Hold;
        }
        if server.is_none() {
            return ClientStep::NeedServer(Need::Write);
        }
        pipeline.push(Owed::Execute);
        ClientStep::Forward
    }

    fn on_sync(
        &mut self,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        if server.is_none() {
            reply::ready_for_query(Status::Idle, out.to_client);
            return ClientStep::Answered;
        }
        if pipeline.is_full() {
            return ClientStep::Hold;
        }
        if !pipeline.copy_in {
            pipeline.push(Owed::Sync);
        }
        ClientStep::Forward
    }

    fn on_function_call(&mut self, pipeline: &mut Pipeline, server: Option<&mut ServerState>) -> ClientStep {
        if server.is_none() {
            return ClientStep::NeedServer(Need::Write);
        }
        if pipeline.is_full() || moves(pipeline, Need::Write) {
            return ClientStep::Hold;
        }
        // A function may touch anything, and only its oid is known.
        self.note(None, pipeline);
        pipeline.push(Owed::Query);
        ClientStep::Forward
    }

    /// What a client's name of a statement means.
    fn statement(&self, name: &[u8], pipeline: &Pipeline) -> Option<Arc<Statement>> {
        if let Some(pending) = pipeline.pending(name) {
            return Some(pending.clone());
        }
        if name.is_empty() { self.unnamed.clone() } else { self.names.get(name).cloned() }
    }

    fn intern(&self, parse: &Parse<'_>, judge: &impl Judge) -> Arc<Statement> {
        let planned_under = if self.settings.is_empty() { 0 } else { self.settings.planner_hash() };
        self.shared.statements.intern(parse.sql, parse.types, planned_under, || judge.verdict(parse.sql))
    }

    /// Whether protocol-level names are ours on the server.
    fn renames(&self) -> bool {
        self.shared.mode != Mode::Session && self.shared.statements_max > 0
    }

    fn need(&self, verdict: Option<&Verdict>) -> Need {
        let reads = verdict.is_some_and(|verdict| verdict.access == Access::Read);
        if self.shared.routed && reads && self.shared.mode != Mode::Session { Need::Read } else { Need::Write }
    }

    /// A batch of the extended protocol may read elsewhere only when it is all there, up to its Sync, and all of it reads.
    fn need_of_batch(&self, verdict: &Verdict, after: &[u8], pipeline: &Pipeline, judge: &impl Judge) -> Need {
        match self.need(Some(verdict)) {
            Need::Read if pipeline.read_only || self.batch_reads(after, judge) => Need::Read,
            _ => Need::Write,
        }
    }

    fn batch_reads(&self, mut after: &[u8], judge: &impl Judge) -> bool {
        while let Ok(Some(head)) = frame::header(after) {
            let Some((message, rest)) = after.split_at_checked(head.message()) else { return false };
            let body = &message[frame::HEADER_BYTES..];
            let reads = match Request::of(head) {
                Ok(Request::Sync) => return true,
                Ok(Request::Describe | Request::Execute | Request::Close | Request::Flush) => true,
                Ok(Request::Parse) => {
                    Parse::read(body).is_ok_and(|parse| self.intern(&parse, judge).verdict.access == Access::Read)
                }
                // A name that was parsed in this batch has been judged above.
                Ok(Request::Bind) => BindNames::read(body).is_some_and(|names| {
                    names.statement.is_empty()
                        || self.names.get(names.statement).is_none_or(|known| known.verdict.access == Access::Read)
                }),
                _ => false,
            };
            if !reads {
                return false;
            }
            after = rest;
        }
        false
    }

    /// Remembers what a statement may do to the session; `None` is one that was not judged.
    fn note(&mut self, verdict: Option<&Verdict>, pipeline: &mut Pipeline) {
        let effects = &mut pipeline.effects;
        let Some(verdict) = verdict else {
            effects.probe.add_everything();
            effects.may_commit = true;
            self.wrote = true;
            return;
        };
        if verdict.access == Access::Read {
            return;
        }
        self.wrote = true;
        effects.may_commit |= pipeline.status == Status::Idle
            || !matches!(verdict.transaction, TransactionControl::None | TransactionControl::Savepoint);
        if !verdict.touches_session() {
            return;
        }
        for change in &verdict.settings {
            match change {
                SettingChange::Set(name) => {
                    effects.probe.add_setting(name);
                    effects.reset.retain(|reset| reset != name);
                }
                SettingChange::Reset(name) => {
                    effects.probe.add_setting(name);
                    effects.reset.push(name.clone());
                }
                SettingChange::ResetAll => {
                    effects.probe.add_everything();
                    effects.reset_all = true;
                }
                SettingChange::Unknown => effects.probe.add_everything(),
            }
        }
        for pin in verdict.pins.iter() {
            match pin {
                // Nothing in the catalog tells what a library has changed.
                Pin::Load => effects.pins.insert(pin),
                _ => effects.probe.add_everything(),
            }
        }
    }

    /// Replies that we owe ourselves and that are due.
    pub(super) fn answer_known(&mut self, pipeline: &mut Pipeline, to_client: &mut Vec<u8>) {
        while let Some(Owed::ParseKnown { .. } | Owed::CloseKnown { .. }) = pipeline.owed.front() {
            match pipeline.pop() {
                Some(Owed::ParseKnown { name, statement }) => {
                    self.accept_name(name, statement, pipeline);
                    to_client.extend_from_slice(&reply::PARSE_COMPLETE);
                }
                _ => to_client.extend_from_slice(&reply::CLOSE_COMPLETE),
            }
        }
    }

    /// A Parse has succeeded: its name is valid, unless it was closed again in the meantime.
    pub(super) fn accept_name(&mut self, name: Box<[u8]>, statement: Arc<Statement>, pipeline: &mut Pipeline) {
        let pending = pipeline.pending.iter().position(|(known, parsed)| *known == name && parsed.id == statement.id);
        let Some(pending) = pending else { return };
        pipeline.pending.remove(pending);
        if name.is_empty() {
            self.unnamed = Some(statement);
        } else {
            self.names.insert(name, statement);
        }
    }
}

/// Whether a statement cannot run on the server connection that is lent: it writes, and the node is a replica.
fn moves(pipeline: &Pipeline, need: Need) -> bool {
    pipeline.read_only && need == Need::Write
}

/// COPY's messages pass while something is owed that may be a COPY; the rest comes late, after an error.
fn copy(pipeline: &mut Pipeline, server: Option<&mut ServerState>, end: Option<Owed>) -> ClientStep {
    if server.is_none() || !pipeline.owes_client() {
        return ClientStep::Swallow;
    }
    if let Some(end) = end {
        if pipeline.is_full() {
            return ClientStep::Hold;
        }
        if pipeline.copy_in {
            pipeline.copy_in = false;
        } else if pipeline.owed.iter().any(|owed| matches!(owed, Owed::Execute)) {
            pipeline.push(end);
        }
    }
    ClientStep::Forward
}

fn violation(error: wire::Error) -> ClientStep {
    ClientStep::fail(Report::fatal(SqlState::PROTOCOL_VIOLATION, format!("protocol violation: {error}")))
}

fn reserved_name() -> ClientStep {
    ClientStep::fail(
        Report::fatal(SqlState::FEATURE_NOT_SUPPORTED, "names of prepared statements cannot begin with __poolhouse_")
            .hint("Choose another name: Poolhouse keeps the statements of all clients under names that begin so."),
    )
}
