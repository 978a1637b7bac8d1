//! What a client's message means.

use std::{collections::BTreeSet, sync::Arc};

use smallvec::SmallVec;

use super::{
    ClientStep, Judge, Mode, Need, Outboxes, Pipeline, RefusedRead, ServerState, Session, Shown,
    ask::{Lent, ask_ours},
    carried::names_temporary,
    effects::Effects,
    owed::Owed,
    phase::{Fate, Phase},
    pipeline::Judged,
    poolhouse_settings::{Here, POSITION_QUERY, asks_position},
    sequences::may_draw,
    sql_names::SentBy,
    statements::Statement,
    steps::{counted, step},
};
use crate::{
    sql::{
        Access, Called, Deallocate, Edited, Fact, Finding, Hidden, Hint, KnownText, Pin, SettingChange,
        TransactionControl, Verdict, processes_setting, with_process_id,
    },
    wire::{
        self,
        error::{Report, SqlState},
        frame::{self, ClientMessage},
        reply::{self, Status},
        request::{self, BindNames, Object, Parse},
    },
};

/// Longest text that is gathered to be judged, in bytes. A longer one streams through to the primary, and the server is
/// asked afterwards what it has done to the session.
pub const JUDGED_BYTES_MAX: usize = 1 << 20;

/// From this length on, in bytes, a text takes so long to parse, milliseconds, that others must not wait for it.
const LONG_TEXT_BYTES: usize = 16 << 10;

/// The text of a message that should be judged apart before the message is shown.
pub fn long_text(message: Shown<'_>) -> Option<&[u8]> {
    if message.head.body < LONG_TEXT_BYTES || message.head.body > JUDGED_BYTES_MAX || !message.is_whole() {
        return None;
    }
    let text = match message.head.tag {
        b'Q' => request::query_text(message.body).ok(),
        b'P' => Parse::read(message.body).ok().map(|parse| parse.sql),
        _ => None,
    };
    text.filter(|text| text.len() >= LONG_TEXT_BYTES)
}

/// A message of the client's, what was found out about it when it was shown before, and who judges its text.
pub(super) struct Said<'a, J> {
    pub request: ClientMessage,
    pub shown: Shown<'a>,
    pub judged: Option<Judged>,
    pub judge: &'a J,
}

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
        let waited = server.is_some() && self.in_waiting_block();
        let request = match ClientMessage::of(message.head) {
            Ok(request) => request,
            Err(error) => return violation(error),
        };
        let said = Said { request, shown: message, judged: None, judge };
        let step = self.on_message(said, pipeline, server, out);
        if waited && !self.in_waiting_block() && !matches!(step, ClientStep::Forward | ClientStep::Replaced { .. }) {
            // Nothing follows the BEGIN yet that makes the server answer, and the message may wait for that.
            request::flush(out.to_server);
        }
        step
    }

    fn on_message(
        &mut self,
        mut said: Said<'_, impl Judge>,
        pipeline: &mut Pipeline,
        mut server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        let Said { request, shown: message, .. } = said;
        if request == ClientMessage::Terminate {
            return ClientStep::Bye;
        }
        said.judged = pipeline.judged.take();
        if pipeline.owed.is_holding() || pipeline.owed.awaits_begin() && !is_of_copy(request) {
            return ClientStep::Hold;
        }
        match pipeline.owed.phase().fate(request) {
            Fate::Taken => {}
            Fate::Dropped => {
                if request == ClientMessage::Sync {
                    pipeline.owed.note_ignored_sync();
                }
                return ClientStep::Swallow;
            }
            Fate::Fatal => return lose_place(message.head.tag, out),
        }
        if matches!(request, ClientMessage::Sync | ClientMessage::Flush) && message.head.body > 0 {
            return violation(wire::Error::Malformed("Sync or Flush"));
        }
        if self.skip_to_sync
            && let Some(step) = self.skipped(request, server.is_some().then_some(pipeline.owed.status()), out)
        {
            return step;
        }
        if self.lost.is_some()
            && let Some(step) = self.answer_loss(request, out)
        {
            return step;
        }
        if must_settle(request, pipeline) {
            return ClientStep::Hold;
        }
        if awaits_deallocation(request, pipeline) {
            request::flush(out.to_server);
            return ClientStep::Hold;
        }
        if self.refused.is_some()
            && server.is_none()
            && let Some(step) = self.answer_refused(&said, pipeline, out)
        {
            return step;
        }
        if self.in_waiting_block()
            && let Some(server) = server.as_deref_mut()
            && pipeline.owed.phase() != Phase::Skipping
        {
            // Its BEGIN was cancelled, and it is opened anew once the client has been told.
            if pipeline.owed.ready_owed() > 0 {
                return ClientStep::Hold;
            }
            self.open_block(pipeline, server, out);
        }
        if self.listens()
            && let Some(step) = self.bring_back(&said, pipeline, server.as_deref_mut(), out)
        {
            return step;
        }
        match request {
            ClientMessage::Query => self.on_query(said, pipeline, server, out),
            ClientMessage::Parse => self.on_parse(said, pipeline, server, out),
            ClientMessage::Bind => self.on_bind(&said, pipeline, server, out),
            ClientMessage::Describe => self.on_describe(&said, pipeline, server, out),
            ClientMessage::Close => self.on_close(&said, pipeline, server, out),
            ClientMessage::Execute => self.on_execute(&said, pipeline, server, out),
            ClientMessage::Sync => self.on_sync(pipeline, server, out),
            ClientMessage::Flush if server.is_some() => ClientStep::Forward,
            ClientMessage::Flush => ClientStep::Swallow,
            ClientMessage::FunctionCall => self.on_function_call(pipeline, server, out),
            ClientMessage::CopyData => copy(pipeline, server, None),
            ClientMessage::CopyDone | ClientMessage::CopyFail => copy(pipeline, server, Some(Owed::CopyEnd)),
            ClientMessage::Password => violation(wire::Error::UnknownMessage(message.head.tag)),
            ClientMessage::Terminate => ClientStep::Bye,
        }
    }

    /// After an error in an extended query that was answered here everything up to Sync is skipped, as PostgreSQL does.
    /// Only for then.
    /// `status` is that of the server connection, if there is one.
    fn skipped(
        &mut self,
        request: ClientMessage,
        status: Option<Status>,
        out: &mut Outboxes<'_>,
    ) -> Option<ClientStep> {
        if request != ClientMessage::Sync {
            return Some(ClientStep::Swallow);
        }
        self.skip_to_sync = false;
        let status = status.unwrap_or_else(|| self.status_outside());
        if status == Status::Idle {
            self.end_own(false);
        }
        reply::ready_for_query(status, out.to_client);
        Some(ClientStep::Answered)
    }

    /// The client's transaction was lost with its server while it idled: its next message gets the error.
    fn answer_loss(&mut self, request: ClientMessage, out: &mut Outboxes<'_>) -> Option<ClientStep> {
        match request {
            ClientMessage::Flush | ClientMessage::CopyData | ClientMessage::CopyDone | ClientMessage::CopyFail => None,
            _ => {
                let report = self.lost.take()?;
                Some(self.refuse(&report, request, out))
            }
        }
    }

    /// Answers a message with an error in the server's place, while no transaction is open on a server.
    pub(super) fn refuse(&mut self, report: &Report, request: ClientMessage, out: &mut Outboxes<'_>) -> ClientStep {
        report.write(out.to_client);
        self.end_refusal(
            matches!(request, ClientMessage::Query | ClientMessage::FunctionCall | ClientMessage::Sync),
            out,
        );
        ClientStep::Answered
    }

    /// An error has been written in the server's place: what follows it in the protocol. `whole` = the message had a
    /// ReadyForQuery of its own to come.
    pub(super) fn end_refusal(&mut self, whole: bool, out: &mut Outboxes<'_>) {
        self.fail_outside();
        if whole {
            reply::ready_for_query(self.status_outside(), out.to_client);
        } else {
            self.skip_to_sync = true;
        }
    }

    /// No server connection could be had for a message of this type, and its error has been written: what follows the
    /// error in the protocol.
    pub fn after_refusal(&mut self, tag: u8, out: &mut Outboxes<'_>) {
        self.end_refusal(matches!(tag, b'Q' | b'F'), out);
    }

    fn on_query(
        &mut self,
        said: Said<'_, impl Judge>,
        pipeline: &mut Pipeline,
        mut server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        let Said { shown: message, judged, judge, .. } = said;
        if pipeline.owed.is_full() {
            return ClientStep::Hold;
        }
        let verdict = if let Some(Judged::Query(verdict)) = judged {
            Some(verdict)
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
            if self.may_refuse()
                && let Some(step) = self.refuse_text(verdict, ClientMessage::Query, pipeline, out)
            {
                return step;
            }
            if server.is_none()
                && verdict.transaction != TransactionControl::None
                && let Ok(text) = request::query_text(message.body)
                && let Some(step) = self.defer(verdict, text, out)
            {
                return step;
            }
            if let Some(own) = verdict.own.as_deref()
                && !asks_position(verdict)
                && !(server.is_none() && self.in_waiting_block())
            {
                let node = server.map(|server| server.node);
                return self.on_own_query(own, judge, &mut Here { pipeline, node, out });
            }
            if verdict.does(Fact::AsksSequence) && !self.draws.are_asked_for() {
                self.ask_sequences(pipeline, server.as_deref_mut(), out);
            }
            if let Deallocate::Named(name) = &verdict.deallocates
                && verdict.composition.is_one()
                && let Some(step) = self.deallocate(name.as_bytes(), pipeline, server.is_some(), out)
            {
                return step;
            }
        }
        let need = self.need(verdict.as_deref(), pipeline);
        let Some(server) = server else {
            pipeline.judged = verdict.map(Judged::Query);
            return ClientStep::NeedServer(need);
        };
        if self.moves(pipeline, server, need, out) {
            pipeline.judged = verdict.map(Judged::Query);
            return ClientStep::Hold;
        }
        if self.own.is_some()
            && let Some(step) =
                self.note_own(verdict.as_deref(), ClientMessage::Query, &mut Lent { pipeline, server, out })
        {
            return step;
        }
        if verdict.as_deref().is_some_and(|verdict| self.awaits_processes(verdict, pipeline))
            || !self.before_query(verdict.as_deref(), pipeline, server, out)
        {
            pipeline.judged = verdict.map(Judged::Query);
            return ClientStep::Hold;
        }
        if let Some(verdict) = &verdict {
            self.tell_processes(verdict, judge, &mut Lent { pipeline, server, out });
        }
        self.note_cause(message.body, pipeline);
        server.statements.forget_unnamed();
        pipeline.drop_long_unnamed();
        let position = verdict.as_deref().is_some_and(|verdict| asks_position(verdict));
        let text = || request::query_text(message.body).unwrap_or_default();
        // Boxed: next to no statement has one, and all pay for the room.
        let edited = verdict.as_deref().filter(|verdict| self.asks_process(verdict));
        let edited = edited.and_then(|_| with_process_id(text(), self.process)).map(Box::new);
        if let Some(edited) = &edited {
            pipeline.note_edits(edited.edits.clone());
        }
        let called = match &verdict {
            Some(verdict) if pipeline.verbatim => self.called_verbatim(verdict, text(), pipeline),
            Some(verdict) => verdict.called().clone(),
            None => Called::default(),
        };
        if self.prepared.has_unnamed(&pipeline.owed) {
            pipeline.owed.push_change(Owed::Query { drops_unnamed: true, called }, b"", None);
        } else {
            pipeline.owed.push(Owed::Query { drops_unnamed: false, called });
        }
        if position {
            request::query(POSITION_QUERY, out.to_server);
            return ClientStep::Answered;
        }
        if let Some(edited) = edited {
            request::query(&edited.text, out.to_server);
            return ClientStep::Answered;
        }
        ClientStep::Forward
    }

    /// What a simple query needs, and what it may do. False when it has to wait for replies.
    fn before_query(
        &mut self,
        verdict: Option<&KnownText>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> bool {
        // Its ParameterStatus is withheld, unlike those of what is under way.
        if pipeline.owed.ready_owed() > 0 && verdict.is_some_and(|verdict| self.resets_login(verdict)) {
            return false;
        }
        if verdict.is_some_and(|verdict| !self.bring_names(verdict, SentBy::Query, &mut Lent { pipeline, server, out }))
        {
            return false;
        }
        let reads = self.note(verdict, pipeline);
        pipeline.counts.add_statement(reads);
        true
    }

    /// SQL DEALLOCATE of a statement that was prepared by the protocol: the server does not know the client's name.
    fn deallocate(
        &mut self,
        name: &[u8],
        pipeline: &Pipeline,
        attached: bool,
        out: &mut Outboxes<'_>,
    ) -> Option<ClientStep> {
        // In an open batch only the server can tell whether it comes to this.
        if pipeline.owed.has_open_batch() || pipeline.effects.uses_name(name) {
            return None;
        }
        let known = pipeline.owed.is_unsettled(name) || self.prepared.get(name, &pipeline.owed).is_some();
        if known && attached && !pipeline.owed.is_empty() {
            return Some(ClientStep::Hold);
        }
        let status = if attached { pipeline.owed.status() } else { self.status_outside() };
        if !known || status == Status::Failed {
            return None;
        }
        self.prepared.close(name);
        self.prepared.drop_unnamed();
        reply::command_complete("DEALLOCATE", out.to_client);
        reply::ready_for_query(status, out.to_client);
        Some(ClientStep::Answered)
    }

    fn on_execute(
        &mut self,
        said: &Said<'_, impl Judge>,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        let Said { shown: message, judge, .. } = *said;
        let node = server.as_deref().map(|server| server.node);
        if let Some(step) = self.on_own_execute(said, pipeline, node, out) {
            return step;
        }
        let need = self.need_of_rest(message.after, pipeline, judge);
        let Some(server) = server else { return ClientStep::NeedServer(self.need(None, pipeline)) };
        if pipeline.owed.is_full() || self.moves(pipeline, server, need, out) {
            return ClientStep::Hold;
        }
        let called = std::mem::take(&mut pipeline.bound);
        pipeline.owed.push(Owed::Execute { called });
        ClientStep::Forward
    }

    fn on_sync(
        &mut self,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        if server.is_none() {
            self.end_own(true);
            reply::ready_for_query(self.status_outside(), out.to_client);
            return ClientStep::Answered;
        }
        if pipeline.owed.is_full() {
            return ClientStep::Hold;
        }
        pipeline.owed.push(Owed::Sync);
        ClientStep::Forward
    }

    fn on_function_call(
        &mut self,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) -> ClientStep {
        let need = self.need(None, pipeline);
        let Some(server) = server else { return ClientStep::NeedServer(need) };
        if pipeline.owed.is_full() || self.moves(pipeline, server, need, out) {
            return ClientStep::Hold;
        }
        // A function may touch anything, and only its oid is known.
        let reads = self.note(None, pipeline);
        pipeline.counts.add_statement(reads);
        pipeline.owed.push(Owed::Query { drops_unnamed: false, called: Called::default() });
        ClientStep::Forward
    }

    /// The text that is sent in the place of the client's, when that asks for the process id.
    pub(super) fn edited(&self, verdict: &Verdict, sql: &[u8]) -> Option<Edited> {
        self.asks_process(verdict).then(|| with_process_id(sql, self.process))?
    }

    /// Whether a text has to do with the client's process id.
    #[inline]
    fn asks_process(&self, verdict: &Verdict) -> bool {
        self.process != 0 && (verdict.does(Fact::AsksProcess) || verdict.does(Fact::AsksProcesses))
    }

    /// Whether the server has to be told first which of its processes clients have.
    fn tells_processes(&self, verdict: &Verdict, pipeline: &Pipeline) -> bool {
        self.process != 0
            && verdict.does(Fact::AsksProcesses)
            && pipeline.owed.status() != Status::Failed
            && !pipeline.owed.has_open_batch()
    }

    /// Whether that has to wait for replies.
    pub(super) fn awaits_processes(&self, verdict: &Verdict, pipeline: &Pipeline) -> bool {
        self.tells_processes(verdict, pipeline) && !pipeline.owed.is_empty()
    }

    /// A function in the text asks about processes by their ids: the server is told which of them clients have now.
    pub(super) fn tell_processes(&self, verdict: &Verdict, judge: &impl Judge, lent: &mut Lent<'_, '_>) {
        let Lent { pipeline, server, out } = lent;
        if self.tells_processes(verdict, pipeline) {
            let sql = processes_setting(&judge.processes(server.node));
            let owed = Owed::Replay { settings: server.settings.clone(), may_fail: false };
            ask_ours(sql.as_bytes(), owed, pipeline, server, out);
        }
    }

    pub(super) fn intern(&self, parse: &Parse<'_>, judge: &impl Judge) -> Arc<Statement> {
        let planned_under = if self.settings.is_empty() { 0 } else { self.settings.planner_hash() };
        self.shared.statements.intern(parse.sql, parse.types, planned_under, || judge.verdict(parse.sql))
    }

    /// Whether protocol-level names are ours on the server.
    pub(super) fn renames(&self) -> bool {
        self.shared.mode != Mode::Session && self.shared.statements_max > 0
    }

    /// Whether a statement that is parsed under this name keeps its server connection: names pass as they are.
    fn pins_by_name(&self, name: &[u8]) -> bool {
        !name.is_empty() && !self.renames()
    }

    /// Whether a message cannot run on the server connection that is lent, and another one can be had for it: what only
    /// reads leaves a replica for a write, and who insists on a node gets it once nothing is under way. It has to wait then.
    pub(super) fn moves(
        &self,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        need: Need,
        out: &mut Outboxes<'_>,
    ) -> bool {
        if pipeline.is_read_only() {
            let leaves = self.can_leave(pipeline);
            let moves = need != Need::Read
                && pipeline.lent_for.excludes(need)
                && (leaves
                    || pipeline.owed.status() == Status::Idle && !pipeline.owed.has_open_batch() && !self.is_pinned());
            if moves && leaves && pipeline.owed.is_empty() {
                self.leave(pipeline, server, out);
            }
            return moves;
        }
        pipeline.lent_for.excludes(need)
            && pipeline.owed.status() == Status::Idle
            && !pipeline.owed.is_empty()
            && !pipeline.owed.has_open_batch()
            && !self.is_pinned()
    }

    /// A batch of the extended protocol may read elsewhere only when it is all there, up to its Sync, and all of it reads.
    /// Its first message is about `statement`, and gives it the name `parsed`.
    pub(super) fn need_of_batch(
        &self,
        statement: &Statement,
        batch: BatchAhead<'_>,
        pipeline: &Pipeline,
        judge: &impl Judge,
    ) -> Need {
        let BatchAhead { parsed, after } = batch;
        if pipeline.owed.has_open_batch() {
            // It cannot move any more, so what follows need not be looked at.
            return if pipeline.is_read_only() { Need::Read } else { Need::Write };
        }
        if parsed.is_some_and(|name| self.pins_by_name(name)) && self.need(None, pipeline) == Need::Write {
            // A session is pinned to where its writes go.
            return Need::Write;
        }
        let begins = self.begins_to_roam(&statement.verdict, &statement.sql, after, pipeline);
        match self.need(Some(&statement.verdict), pipeline) {
            Need::Write if begins && self.batch_reads(batch, true, pipeline, judge) => Need::Read,
            Need::Read if self.batch_reads(batch, self.is_in_block(pipeline), pipeline, judge) => Need::Read,
            Need::Read | Need::Write => Need::Write,
            insists => insists,
        }
    }

    /// What a message needs that has no verdict of its own: it goes with its batch, which cannot move once it has begun.
    pub(super) fn need_of_rest(&self, after: &[u8], pipeline: &Pipeline, judge: &impl Judge) -> Need {
        match self.need(None, pipeline) {
            Need::Write if pipeline.is_read_only() => {}
            need => return need,
        }
        let in_block = self.is_in_block(pipeline);
        if pipeline.owed.has_open_batch()
            || self.batch_reads(BatchAhead { parsed: None, after }, in_block, pipeline, judge)
        {
            Need::Read
        } else {
            Need::Write
        }
    }

    pub(super) fn is_in_block(&self, pipeline: &Pipeline) -> bool {
        pipeline.owed.status() != Status::Idle || self.in_waiting_block()
    }

    /// Whether the rest of a batch only reads. In a block it may end that, and must leave no portal behind that is not done:
    /// that would hold the block to its server connection.
    fn batch_reads<'a>(
        &self,
        BatchAhead { parsed, mut after }: BatchAhead<'a>,
        in_block: bool,
        pipeline: &Pipeline,
        judge: &impl Judge,
    ) -> bool {
        let mut parsed: NamesParsed<'_> = parsed.into_iter().collect();
        let to_primary = |verdict: &KnownText| verdict.hint.as_deref() == Some(&Hint::Primary);
        let ends = |verdict: &KnownText| in_block && verdict.composition.is_one() && verdict.transaction.is_plain_end();
        let reads = |verdict: &KnownText| (self.reads(verdict, pipeline) || ends(verdict)) && !to_primary(verdict);
        let known_reads = |name: &[u8], parsed: &NamesParsed<'_>| {
            let known = || self.prepared.get(name, &pipeline.owed).is_none_or(|known| reads(&known.verdict));
            parsed.contains(name) || known()
        };
        while let Ok(Some(head)) = frame::header(after) {
            step();
            let Some((message, rest)) = after.split_at_checked(head.message()) else { return false };
            let body = &message[frame::HEADER_BYTES..];
            let all_read = match ClientMessage::of(head) {
                Ok(ClientMessage::Sync) => return true,
                Ok(ClientMessage::Execute) => !in_block || request::runs_to_its_end(body),
                Ok(ClientMessage::Close | ClientMessage::Flush) => true,
                Ok(ClientMessage::Describe) => match Object::read(body) {
                    Ok(Object::Statement(name)) => known_reads(name, &parsed),
                    object => object.is_ok(),
                },
                Ok(ClientMessage::Parse) => Parse::read(body).is_ok_and(|parse| {
                    parsed.push(parse.name);
                    !self.pins_by_name(parse.name) && reads(&self.intern(&parse, judge).verdict)
                }),
                Ok(ClientMessage::Bind) => BindNames::read(body).is_some_and(|names| {
                    (names.portal.is_empty() || !in_block) && known_reads(names.statement, &parsed)
                }),
                _ => false,
            };
            if !all_read {
                return false;
            }
            after = rest;
        }
        false
    }

    /// Remembers what a statement may do to the session; `None` is one that was not judged. Whether it surely only reads.
    pub(super) fn note(&mut self, verdict: Option<&KnownText>, pipeline: &mut Pipeline) -> bool {
        let hidden = self.shared.code.hidden();
        let Some(verdict) = verdict else {
            let effects = &mut pipeline.effects;
            self.ask_for_everything(effects);
            (effects.may_commit, effects.earnest) = (true, true);
            self.note_definition(&[], effects);
            pipeline.deallocating = true;
            self.wrote = true;
            self.draws.note(true);
            return false;
        };
        if let Some(hint) = &verdict.hint {
            self.note_hint(hint);
        }
        self.note_unseen(verdict, hidden, &mut pipeline.effects);
        if self.reads(verdict, pipeline) {
            return true;
        }
        self.wrote |= !verdict.only_controls();
        pipeline.note_defaults(verdict);
        self.notified |= verdict.does(Fact::Notifies);
        if verdict.vacates.is_some() {
            pipeline.seldom_mut().vacates.clone_from(&verdict.vacates);
        }
        self.draws.note(may_draw(verdict));
        if verdict.touches_session() {
            self.note_names(verdict, pipeline);
        }
        let effects = &mut pipeline.effects;
        effects.may_commit |= match verdict.transaction {
            TransactionControl::None => pipeline.owed.status() == Status::Idle,
            TransactionControl::Commit { .. } | TransactionControl::Mixed | TransactionControl::PrepareTransaction => {
                true
            }
            TransactionControl::Begin { .. }
            | TransactionControl::Rollback { .. }
            | TransactionControl::Savepoint
            | TransactionControl::RollbackTo
            | TransactionControl::Release
            | TransactionControl::SetTransaction(_) => false,
        };
        effects.undone |= matches!(
            verdict.transaction,
            TransactionControl::Rollback { .. } | TransactionControl::RollbackTo | TransactionControl::Mixed
        );
        if verdict.does(Fact::Defines) || effects.defined && effects.may_commit {
            self.note_definition(&verdict.customs, effects);
        }
        self.note_creation(verdict, effects);
        // What pins the session may be gone now: the server knows.
        if (self.pins.are_told() || self.listens_on_server()) && verdict.does(Fact::ReleasesState) {
            effects.probe.add_everything();
            effects.earnest = true;
        }
        self.note_restores(verdict, pipeline);
        let effects = &mut pipeline.effects;
        if !verdict.touches_session() {
            return false;
        }
        effects.earnest = true;
        pipeline.deallocating |= verdict.does(Fact::DiscardsAll) || verdict.deallocates == Deallocate::All;
        for change in &verdict.settings {
            match change {
                SettingChange::Set(name) => {
                    effects.probe.add_setting(name);
                    if **name == *"session_authorization" {
                        // Takes the role away.
                        effects.probe.add_setting("role");
                    }
                    effects.reset.remove(name);
                    if name.contains('.') {
                        effects.set_customs.insert(name.clone());
                    }
                }
                SettingChange::Reset(name) => {
                    effects.probe.add_setting(name);
                    effects.reset.insert(name.clone());
                }
                SettingChange::ResetAll => {
                    effects.probe.add_everything();
                    effects.reset_all = true;
                }
                SettingChange::Unknown => {
                    effects.probe.add_everything();
                    // It may have been a custom one, and these are listed nowhere.
                    effects.pins.insert(Pin::Unreadable);
                }
            }
        }
        for pin in verdict.pins.iter() {
            match pin {
                // Its name is asked for.
                Pin::Prepare if self.renames() => {}
                // Nothing in the catalog tells what a library has changed, or what the next random numbers are.
                Pin::Load | Pin::Seed => effects.pins.insert(pin),
                _ => effects.probe.add_everything(),
            }
        }
        false
    }

    /// A replica has refused what was taken for a read, and nothing of an answer was seen: what is shown next is the same
    /// once more, for the primary.
    pub fn on_refused_read(&mut self, why: RefusedRead) {
        self.refused_read = Some(why);
    }

    /// Whether a text only reads, as far as it tells by itself or by what is known of the functions in it.
    pub(super) fn reads(&self, verdict: &KnownText, pipeline: &Pipeline) -> bool {
        let lists = self.shared.lists.as_deref();
        let by_census = || {
            verdict.reads_but_for_functions() && {
                let census = pipeline.census(&self.shared.code);
                let is_steady = |name: &str| census.is_some_and(|census| census.is_steady(name));
                verdict.reads_if(|name| is_steady(name) || lists.is_some_and(|lists| lists.reads(name)))
            }
        };
        if verdict.is_refused() || self.is_kept_on_primary(verdict) {
            return false;
        }
        let reads = verdict.access() == Access::Read || self.shared.is_routed() && by_census();
        if reads && self.refused_read == Some(RefusedRead::Lasting) {
            verdict.note_refusal();
        }
        reads && self.refused_read.is_none()
    }

    /// Whether the configuration or the catalog says something against running a text on a replica that does not show in it.
    fn is_kept_on_primary(&self, verdict: &Verdict) -> bool {
        self.shared.lists.as_deref().is_some_and(|lists| lists.keeps(verdict).is_some())
            || self.shared.is_routed()
                && (self.shared.code.primary_only(verdict).is_some() || self.shared.code.may_read_sequence(verdict))
    }

    /// The same, in words.
    pub(super) fn kept_on_primary(&self, verdict: &Verdict) -> Option<String> {
        if let Some((name, listed)) = self.shared.lists.as_deref().and_then(|lists| lists.keeps(verdict)) {
            return Some(format!("{name} is one of {listed}"));
        }
        if !self.shared.is_routed() {
            return None;
        }
        if self.shared.code.may_read_sequence(verdict) {
            return Some("may read a sequence, which is not known yet".into());
        }
        let (table, why) = self.shared.code.primary_only(verdict)?;
        Some(format!("{table} {why}"))
    }

    /// Notes what code that is not seen in a text may do to the session: the server is asked then.
    fn note_unseen(&self, verdict: &Verdict, hidden: Hidden, effects: &mut Effects) {
        // What the transaction has changed itself is not known before its end.
        let hidden = if effects.defined { Hidden::ANYTHING } else { hidden };
        let reached = match verdict.access() {
            Access::Read => hidden.reads,
            Access::Write => hidden.writes && !verdict.only_controls(),
        };
        if verdict.unseen.is_none() && !reached {
            return;
        }
        let census = if effects.defined { None } else { self.shared.code.census() };
        let earnest = verdict.unseen.is_some() || census.is_some();
        let found = census.map_or(Finding::MayTouch, |census| census.find(verdict));
        if let Some(unseen) = verdict.unseen.as_deref().filter(|unseen| unseen.called().next().is_some()) {
            effects.inquiry.get_or_insert_default().call(unseen.called(), found == Finding::Unknown);
        }
        match found {
            Finding::Harmless => return,
            Finding::MayTouch => {}
            // The server cannot tell of it, so the session keeps the server connection.
            Finding::MaySetAny => effects.pins.insert(Pin::Unreadable),
            Finding::Unknown => self.shared.code.doubt(),
        }
        effects.earnest |= earnest;
        self.ask_for_everything(effects);
        verdict.customs.iter().for_each(|name| effects.probe.add_setting(name));
    }

    /// Once the search path names the schema of temporary objects, it may be what comes first there: with the schemas in
    /// front of it gone, or closed to the user. Then things are created in it that are not called temporary.
    fn note_creation(&self, verdict: &Verdict, effects: &mut Effects) {
        effects.temporary_path |= verdict.does(Fact::NamesTemporaryPath);
        if !effects.temporary_path && !names_temporary(&self.settings) || self.pins.are_told() {
            return;
        }
        let unseen = || self.shared.code.census().is_none_or(|census| census.may_create(verdict));
        effects.may_be_temporary |= verdict.does(Fact::Creates) || !verdict.names.is_empty() || unseen();
        effects.earnest |= effects.may_be_temporary;
    }

    /// The server is asked for all that it can tell of the session.
    fn ask_for_everything(&self, effects: &mut Effects) {
        effects.probe.add_everything();
        self.shared.code.customs().iter().for_each(|name| effects.probe.add_setting(name));
    }

    /// The transaction changes code of the database: nothing is known of it from the moment at which that may be
    /// committed. `customs` are settings that the new code names.
    fn note_definition(&self, customs: &[Box<str>], effects: &mut Effects) {
        effects.defined = true;
        self.shared.code.learn_customs(customs);
        if effects.may_commit && effects.change.is_none() {
            effects.change = Some(self.shared.code.change());
        }
    }

    /// Replies that we owe ourselves and that are due.
    pub(super) fn answer_known(&mut self, pipeline: &mut Pipeline, to_client: &mut Vec<u8>) {
        while pipeline.owed.front().is_some_and(Owed::is_known) {
            let Some(done) = pipeline.owed.pop() else { return };
            if let Some(change) = done.change {
                self.prepared.accept(change, 0);
            }
            to_client.extend_from_slice(&reply::CLOSE_COMPLETE);
        }
    }
}

/// The rest of a batch, behind the message at hand.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchAhead<'a> {
    /// The name that the message at hand gives to a statement.
    pub parsed: Option<&'a [u8]>,
    pub after: &'a [u8],
}

/// Names that a batch gives to statements, as it is looked through: hardly ever more than a few.
#[derive(Debug, Default)]
pub(super) struct NamesParsed<'a> {
    few: SmallVec<[&'a [u8]; 8]>,
    more: BTreeSet<&'a [u8]>,
}

impl<'a> NamesParsed<'a> {
    pub fn push(&mut self, name: &'a [u8]) {
        if self.few.len() < self.few.inline_size() {
            self.few.push(name);
        } else {
            self.more.insert(name);
        }
    }

    pub fn contains(&self, name: &[u8]) -> bool {
        counted(self.few.iter()).any(|known| *known == name) || self.more.contains(name)
    }
}

impl<'a> FromIterator<&'a [u8]> for NamesParsed<'a> {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(names: I) -> Self {
        let mut parsed = NamesParsed::default();
        names.into_iter().for_each(|name| parsed.push(name));
        parsed
    }
}

/// Whether a message is for a COPY, which may be under way, or says nothing of its own.
fn is_of_copy(request: ClientMessage) -> bool {
    use ClientMessage::{CopyData, CopyDone, CopyFail, Flush};
    matches!(request, CopyData | CopyDone | CopyFail | Flush)
}

/// After a statement that takes all prepared statements away, or resets values of the login, what is sent next has to
/// wait for its end. What the server
/// has not answered since there was no Sync can not be waited for.
fn must_settle(request: ClientMessage, pipeline: &Pipeline) -> bool {
    let of_copy = is_of_copy(request);
    let all_sent = pipeline.owed.ready_owed() > 0 && !pipeline.owed.has_open_batch();
    (pipeline.deallocating || pipeline.login_values.are_to_be_brought()) && all_sent && !of_copy
}

/// Whether a message that may use a name of a statement follows, in the same batch, what takes all of them away. What the
/// name means then only the server can tell, so it is asked to answer what it has been sent so far.
fn awaits_deallocation(request: ClientMessage, pipeline: &Pipeline) -> bool {
    let uses_names = matches!(
        request,
        ClientMessage::Query
            | ClientMessage::Parse
            | ClientMessage::Bind
            | ClientMessage::Describe
            | ClientMessage::Close
            | ClientMessage::FunctionCall
    );
    pipeline.deallocating && uses_names && pipeline.owed.has_open_batch() && !pipeline.owed.is_empty()
}

/// COPY's messages pass while something is owed that may be a COPY; the rest comes late, after an error.
fn copy(pipeline: &mut Pipeline, server: Option<&mut ServerState>, end: Option<Owed>) -> ClientStep {
    if server.is_none() || !pipeline.owed.owes_client() {
        return ClientStep::Swallow;
    }
    if let Some(end) = end {
        if pipeline.owed.is_full() {
            return ClientStep::Hold;
        }
        if pipeline.owed.phase().is_copying() {
            pipeline.owed.end_copy();
        } else if pipeline.owed.runs() {
            pipeline.owed.push(end);
        }
    } else {
        pipeline.owed.note_copy_data();
    }
    ClientStep::Forward
}

/// A message that no COPY can take: PostgreSQL's words for it. Its process ends with them.
fn lose_place(tag: u8, out: &mut Outboxes<'_>) -> ClientStep {
    let why = format!("unexpected message type 0x{tag:02X} during COPY from stdin");
    Report::error(SqlState::PROTOCOL_VIOLATION, why).write(out.to_client);
    ClientStep::fail(Report::fatal(
        SqlState::PROTOCOL_VIOLATION,
        "terminating connection because protocol synchronization was lost",
    ))
}

pub(super) fn violation(error: wire::Error) -> ClientStep {
    ClientStep::fail(Report::fatal(SqlState::PROTOCOL_VIOLATION, format!("protocol violation: {error}")))
}
