//! What a server's message means.

use super::{
    Mode, Outboxes, ParameterError, Phase, Pipeline, ServerState, ServerStep, Session, Shown, ask::Lent,
    carried::Probe, effects::Effects, identity::Identity, owed::Owed, probe::on_answer_row, shape::Shape,
    statements::NAME_PREFIX,
};
use crate::sql::Edits;
use crate::wire::{
    self, ErrorFields,
    error::{Report, SqlState},
    frame::Reply,
    reply::{self, Status},
    request,
};

/// What statement mode says to a transaction block.
pub(super) const NO_BLOCKS: &str = "transaction blocks are not possible in statement mode";

impl Session {
    /// A message from the server connection that is lent to this session. DataRow and CopyData that belong to the client
    /// need not be shown. An ErrorResponse, a NoticeResponse and a row for a question of ours may be shown in part; all
    /// others whole.
    pub fn on_server(
        &mut self,
        message: Shown<'_>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        let reply = match Reply::of(message.head.tag) {
            Ok(reply) => reply,
            Err(error) => return nonsense(error),
        };
        let explains = self.own.is_some() && pipeline.owed.front_is_clients();
        if let Some(warning) = pipeline.take(|seldom| &mut seldom.farewell) {
            warning.write(b'N', out.to_client);
        }
        let step = match reply {
            Reply::ParameterStatus => self.on_parameter(message.body, pipeline, server),
            Reply::NoticeResponse if pipeline.owed.front().is_some_and(Owed::is_ours) => ServerStep::Swallow,
            Reply::NoticeResponse => on_notice(message, pipeline),
            // A connection that listens is lent to nobody else, so it can only be this client's.
            Reply::NotificationResponse => self.on_notification(message.body),
            Reply::ErrorResponse => self.on_error(message, pipeline, server, out),
            Reply::ReadyForQuery => match Status::read(message.body) {
                Ok(status) => self.on_ready(status, pipeline, server, out),
                Err(error) => nonsense(error),
            },
            _ => self.on_reply(reply, message, pipeline, server),
        };
        if explains && matches!(reply, Reply::CommandComplete | Reply::EmptyQueryResponse | Reply::ErrorResponse) {
            self.explain(out);
        }
        step
    }

    fn on_parameter(&mut self, body: &[u8], pipeline: &mut Pipeline, server: &mut ServerState) -> ServerStep {
        let of_the_session = match server.take_parameter(body) {
            Ok(of_the_session) => of_the_session,
            Err(ParameterError::Malformed(error)) => return nonsense(error),
            Err(error @ ParameterError::TooMuch) => {
                let report = Report::fatal(SqlState::CONNECTION_LOST, "the connection to the server was closed");
                return ServerStep::fail(report.detail(format!("{error}.")));
            }
        };
        // With a server of its own the client hears what that says of itself, too.
        let concerns = of_the_session || self.shared.mode == Mode::Session;
        if matches!(pipeline.owed.front(), Some(Owed::Replay { .. })) || !concerns {
            return ServerStep::Swallow;
        }
        if pipeline.login_values.are_withheld() && of_the_session {
            if let Ok((name, _)) = reply::parameter_status_parts(body) {
                pipeline.seldom_mut().withheld.push(String::from_utf8_lossy(name).into());
            }
            return ServerStep::Swallow;
        }
        self.reported = server.reported.clone();
        ServerStep::Forward
    }

    /// Replies that complete the entry in front, or belong to it.
    fn on_reply(
        &mut self,
        reply: Reply,
        message: Shown<'_>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
    ) -> ServerStep {
        let Some(front) = pipeline.owed.front() else {
            return nonsense(wire::Error::UnknownMessage(message.head.tag));
        };
        let completes = match (front, reply) {
            (Owed::Query { .. } | Owed::Execute { .. }, Reply::CommandComplete) => {
                pipeline.owed.end_copy();
                self.on_command_complete(message.body, pipeline, server);
                matches!(pipeline.owed.front(), Some(Owed::Execute { .. }))
            }
            (Owed::Query { .. } | Owed::Execute { .. }, Reply::CopyInResponse) => {
                pipeline.owed.begin_copy_in();
                false
            }
            (Owed::Query { .. }, _) => false,
            (Owed::Replay { .. } | Owed::Restore | Owed::Move { .. } | Owed::PrepareForSql { .. } | Owed::Leave, _) => {
                return ServerStep::Swallow;
            }
            (Owed::Begin, Reply::CloseComplete) => true,
            (Owed::Begin | Owed::FailedBegin, _) => return ServerStep::Swallow,
            (Owed::Probe { .. }, Reply::DataRow) => return on_answer_row(message, pipeline),
            (Owed::Probe { .. }, _) => return ServerStep::Swallow,
            (Owed::Parse { .. } | Owed::ParseTaken { .. } | Owed::OurParse { .. }, Reply::ParseComplete) => true,
            (Owed::Bind { .. }, Reply::BindComplete) => true,
            (Owed::Describe { unnamed: true, .. }, Reply::ParameterDescription) => {
                let described = self.prepared.unnamed_mut();
                if let Some(statement) = described.filter(|statement| *statement.types != *message.body) {
                    // On another server connection it gets these, too.
                    *statement = self.shared.statements.retyped(statement, message.body);
                }
                false
            }
            (Owed::Describe { id, .. }, Reply::ParameterDescription) => {
                if id.is_some() {
                    pipeline.seldom_mut().parameters = message.body.into();
                }
                false
            }
            (Owed::OurDescribe { .. }, Reply::ParameterDescription) => {
                pipeline.seldom_mut().parameters = message.body.into();
                return ServerStep::Swallow;
            }
            (Owed::Describe { .. } | Owed::OurDescribe { .. }, Reply::RowDescription | Reply::NoData) => {
                self.on_description(reply, message.body, pipeline, server);
                true
            }
            (Owed::Close { .. } | Owed::OurClose { .. }, Reply::CloseComplete) => true,
            (Owed::ParseForSql { .. }, Reply::ParseComplete) | (Owed::CloseForSql { .. }, Reply::CloseComplete) => true,
            (Owed::Execute { .. }, Reply::EmptyQueryResponse | Reply::PortalSuspended) => true,
            (Owed::Execute { .. }, Reply::DataRow | Reply::CopyOutResponse | Reply::CopyData | Reply::CopyDone) => {
                false
            }
            _ => return nonsense(wire::Error::UnknownMessage(message.head.tag)),
        };
        if !completes {
            return ServerStep::Forward;
        }
        self.complete_front(pipeline, server)
    }

    fn complete_front(&mut self, pipeline: &mut Pipeline, server: &mut ServerState) -> ServerStep {
        let Some(mut done) = pipeline.owed.pop() else { return ServerStep::Forward };
        if let Some(sent) = done.sent {
            server.statements.set(sent.id, sent.held);
            server.statements.set_bytes(sent.id, sent.bytes);
        }
        match &mut done.owed {
            Owed::Execute { called } => pipeline.end_statement(std::mem::take(called), false),
            Owed::ParseForSql { name, id, since } => server.statements.set_own(name, Some((*id, *since))),
            Owed::CloseForSql { name } => server.statements.remove_own(name),
            _ => {}
        }
        if done.owed.is_ours() {
            return ServerStep::Swallow;
        }
        if let Some(change) = done.change {
            self.prepared.accept(change, done.sent.and_then(|sent| sent.held).unwrap_or_default());
        }
        forward_to(pipeline)
    }

    /// After a message that was passed on: the replies that we owe and that are due now.
    pub fn answer_after_forward(&mut self, pipeline: &mut Pipeline, out: &mut Outboxes<'_>) {
        self.answer_known(pipeline, out.to_client);
    }

    /// Some commands take statements with them, whoever prepared them.
    fn on_command_complete(&mut self, tag: &[u8], pipeline: &mut Pipeline, server: &mut ServerState) {
        if let Some(own) = &mut self.own {
            own.on_command_complete(tag);
        }
        pipeline.identity.on_command_complete(tag);
        match tag {
            b"DISCARD ALL\0" => {
                self.pins.discard();
                self.forget_draws(server);
                pipeline.effects.probe.add_everything();
                pipeline.effects.reset_all = true;
            }
            b"DISCARD SEQUENCES\0" => return self.forget_draws(server),
            b"DEALLOCATE ALL\0" => {}
            _ => return,
        }
        server.statements.clear();
        self.prepared.clear_named();
    }

    fn on_error(
        &mut self,
        message: Shown<'_>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        let mut fields = ErrorFields::read(message.body);
        if fields.is_fatal() {
            // The connection closes now; what this means for the client is decided then, with these words.
            pipeline.seldom_mut().last_words = Some(fields);
            return ServerStep::Swallow;
        }
        match pipeline.owed.front() {
            Some(Owed::Begin) => {
                if fields.code() == "57014" && self.fail_begin(pipeline, out) {
                    return self.on_error(message, pipeline, server, out);
                }
                let why = format!("the transaction could not begin: {}", fields.message());
                return ServerStep::fail(Report::fatal(SqlState::CONNECTION_LOST, why));
            }
            Some(Owed::FailedBegin | Owed::Leave) => return ServerStep::Swallow,
            _ => {}
        }
        pipeline.failed = true;
        pipeline.identity.on_error();
        pipeline.effects.undone |= pipeline.owed.front().is_some_and(|front| !front.is_ours());
        if pipeline.owed.has_sync_in_copy() {
            let why = Report::fatal(SqlState::PROTOCOL_VIOLATION, "a COPY failed that had a Sync among its data");
            return ServerStep::fail(why.detail(fields.message()));
        }
        pipeline.owed.fail_copy();
        let may_be_edited = matches!(pipeline.owed.front(), Some(Owed::Query { .. } | Owed::Parse { .. }));
        let edits = pipeline.edits().filter(|_| may_be_edited).cloned();
        let mut taken = None;
        match pipeline.owed.front() {
            // Something that needs no answer has failed in the middle of a batch.
            None if pipeline.owed.phase() == Phase::Batch => drop(self.skip(pipeline, server)),
            None => {
                pipeline.owed.go_astray();
                return ServerStep::Swallow;
            }
            Some(Owed::Replay { .. } | Owed::Restore | Owed::Move { .. } | Owed::Probe { .. }) => {
                pipeline.seldom_mut().last_words = Some(fields);
                return ServerStep::Swallow;
            }
            Some(Owed::PrepareForSql { .. } | Owed::OurSync | Owed::EarlySync) => return ServerStep::Swallow,
            Some(Owed::Refused { report }) => {
                report.write(out.to_client);
                self.skip(pipeline, server);
                self.sync_early(pipeline, out);
                return ServerStep::Swallow;
            }
            Some(Owed::Query { .. }) => {
                // What the statement needed was refused before: that is why it fails.
                if let Some(why) = pipeline.take(|seldom| &mut seldom.own_error)
                    && matches!(fields.code(), "26000" | "25P02")
                {
                    why.write(b'E', out.to_client);
                    return ServerStep::Swallow;
                }
            }
            Some(front) => {
                let stale = matches!(front, Owed::StaleBind) && fields.code() == "26000";
                if matches!(front, Owed::Bind { .. } | Owed::Describe { .. } | Owed::OurParse { .. }) {
                    learn(&fields, server);
                }
                if let Owed::Bind { id: Some(id) } | Owed::Describe { id: Some(id), .. } | Owed::OurDescribe { id } =
                    front
                    && fields.code() == "0A000"
                {
                    server.statements.set_stale(*id);
                }
                if stale {
                    return self.refuse_stale(fields, pipeline, server, out);
                }
                if repeats(&fields, pipeline) {
                    pipeline.failed = false;
                    return send_again(pipeline, server);
                }
                taken = self.skip(pipeline, server);
                if matches!(pipeline.owed.front(), Some(Owed::OurSync)) {
                    // Only messages of ours were before it.
                    pipeline.failed = false;
                    pipeline.seldom_mut().own_error = Some(fields);
                    return ServerStep::Swallow;
                }
            }
        }
        self.sync_early(pipeline, out);
        if edits.is_some_and(|edits| message.is_whole() && move_position(&mut fields, &edits)) {
            return self.write_error(fields, taken.as_deref(), out);
        }
        self.forward_error(message, fields, taken.as_deref(), out)
    }

    /// What a statement gives has been described, to the client or to us.
    fn on_description(&mut self, reply: Reply, body: &[u8], pipeline: &mut Pipeline, server: &mut ServerState) {
        let &(Some(Owed::Describe { id: Some(id), .. }) | Some(Owed::OurDescribe { id })) = &pipeline.owed.front()
        else {
            return;
        };
        let id = *id;
        // A portal has none, and a statement at least their number.
        let parameters = pipeline.take(|seldom| &mut seldom.parameters);
        let of_statement = Some(&*parameters).filter(|parameters| !parameters.is_empty());
        let shape = Shape::of(of_statement, (reply == Reply::RowDescription).then_some(body));
        server.statements.set_shape(id, shape);
        if shape.is_of_portal() {
            self.prepared.named_mut().tell_columns(id, shape);
        } else if !pipeline.owed.front().is_some_and(Owed::is_ours) {
            self.prepared.named_mut().tell(id, shape, &parameters);
        }
    }

    /// The words of PostgreSQL for a statement whose result has changed since it was described.
    fn refuse_stale(
        &mut self,
        mut fields: ErrorFields,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        for (field, text) in &mut fields.fields {
            let words: &[u8] = match field {
                b'C' => b"0A000",
                b'M' => b"cached plan must not change result type",
                b'F' => b"plancache.c",
                b'R' => b"RevalidateCachedQuery",
                _ => continue,
            };
            *text = words.to_vec();
        }
        self.skip(pipeline, server);
        fields.write(b'E', out.to_client);
        ServerStep::Swallow
    }

    /// An error in the extended protocol: the server skips everything up to Sync, so nothing of that changes anything.
    /// The answer is the client's name that is taken already, when that was the error.
    fn skip(&mut self, pipeline: &mut Pipeline, server: &mut ServerState) -> Option<Box<[u8]>> {
        let mut taken = None;
        let mut not_brought = Vec::new();
        let (mut front, mut failed) = (true, false);
        server.statements.forget_unnamed();
        pipeline.drop_long_unnamed();
        pipeline.take(|seldom| &mut seldom.asked_shape);
        while !pipeline.owed.front().is_some_and(Owed::syncs) {
            let Some(done) = pipeline.owed.pop() else {
                pipeline.owed.skip_all();
                break;
            };
            match done.owed {
                // Also a Parse that fails takes the unnamed statement away.
                Owed::Parse { names: true, .. } if front && done.change.is_some_and(|it| it.name.is_empty()) => {
                    self.prepared.drop_unnamed();
                }
                Owed::ParseTaken { name } if front => taken = Some(name),
                // Also when the error came before it was executed.
                Owed::Execute { called } if !std::mem::replace(&mut failed, true) => {
                    pipeline.end_statement(called, true);
                }
                Owed::ParseForSql { name, .. } => not_brought.push(name),
                _ => {}
            }
            front = false;
        }
        // What was to use these names is skipped as well, unless it has a batch of its own.
        if !matches!(pipeline.owed.front(), Some(Owed::OurSync)) {
            not_brought.iter().for_each(|name| pipeline.effects.forget_name(name));
        }
        taken
    }

    /// A batch has failed outside of a block, and its Sync has not come: nothing of it can be committed any more, and
    /// whatever comes before the Sync is dropped. So the server is told to go on, and is free for others meanwhile.
    fn sync_early(&mut self, pipeline: &mut Pipeline, out: &mut Outboxes<'_>) {
        let is_whole = pipeline.identity == Identity::Whole;
        let plain = is_whole && !pipeline.login_values.are_withheld() && self.block.is_none();
        let waits = pipeline.owed.phase() == Phase::Skipping && pipeline.owed.status() == Status::Idle;
        if waits && plain && !self.is_pinned() {
            request::sync(out.to_server);
            pipeline.owed.push(Owed::EarlySync);
            self.skip_to_sync = true;
        }
    }

    /// The server has ended a batch whose Sync the client has not sent yet.
    fn on_synced_early(
        &mut self,
        before: Status,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        let status = pipeline.owed.status();
        if let Some(own) = &mut self.own {
            own.on_ready(true, before, status);
        }
        self.settle_block(status);
        unless_forwarded(self.on_clients_ready(pipeline, server, out))
    }

    /// Passes an error on, with the client's own names in place of ours.
    fn forward_error(
        &self,
        message: Shown<'_>,
        fields: ErrorFields,
        taken: Option<&[u8]>,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        let has_our_name = |text: &[u8]| text.windows(NAME_PREFIX.len()).any(|window| window == NAME_PREFIX);
        if !message.is_whole() || !has_our_name(message.body) {
            return ServerStep::Forward;
        }
        self.write_error(fields, taken, out)
    }

    fn write_error(&self, mut fields: ErrorFields, taken: Option<&[u8]>, out: &mut Outboxes<'_>) -> ServerStep {
        for (_, text) in &mut fields.fields {
            *text = self.with_own_names(text, taken);
        }
        fields.write(b'E', out.to_client);
        ServerStep::Swallow
    }

    fn with_own_names(&self, mut text: &[u8], taken: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        while let Some((at, end)) = our_name(text) {
            let ours = &text[at..end];
            out.extend_from_slice(&text[..at]);
            out.extend_from_slice(taken.or_else(|| self.prepared.named().name_of(ours)).unwrap_or(ours));
            text = &text[end..];
        }
        out.extend_from_slice(text);
        out
    }

    fn on_ready(
        &mut self,
        status: Status,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        let before = pipeline.owed.status();
        let Some(done) = pipeline.owed.pop_ready(status) else {
            return nonsense(wire::Error::UnknownMessage(b'Z'));
        };
        let failed = std::mem::take(&mut pipeline.failed);
        match done.owed {
            Owed::Replay { may_fail, .. } if failed => self.on_refused(may_fail, pipeline),
            Owed::Replay { settings, .. } => self.on_replayed(settings, pipeline, server, out),
            Owed::Move { step } => self.on_moved(step, failed, &mut Lent { pipeline, server, out }),
            Owed::Probe { probe } if failed && self.may_ask_again(pipeline, server) => {
                self.ask(probe, pipeline, server, out)
            }
            Owed::Probe { mut probe } => {
                if !failed && self.inquires_further(&mut probe, pipeline) {
                    return self.ask(probe, pipeline, server, out);
                }
                self.on_probed(failed, &probe, &mut Lent { pipeline, server, out })
            }
            Owed::Restore => self.on_restored(failed, pipeline, server, out),
            Owed::OurSync | Owed::FailedBegin => ServerStep::Swallow,
            Owed::EarlySync => self.on_synced_early(before, pipeline, server, out),
            Owed::Leave => self.on_left(before, pipeline),
            Owed::Again => ServerStep::Repeat,
            Owed::PrepareForSql { name, id, since } => {
                server.statements.set_own(&name, (!failed).then_some((id, since)));
                ServerStep::Swallow
            }
            owed => {
                pipeline.take(|seldom| &mut seldom.own_error);
                if let Owed::Query { called, .. } = owed {
                    pipeline.end_statement(called, failed);
                }
                if let Some(own) = &mut self.own {
                    own.on_ready(failed, before, status);
                }
                pipeline.counts.queries += 1;
                pipeline.counts.transactions += u32::from(status == Status::Idle);
                if self.in_waiting_block() {
                    return self.on_begin_failed(pipeline, server, out);
                }
                self.settle_block(status);
                if let Some(change) = done.change {
                    self.prepared.accept(change, 0);
                }
                if !pipeline.login_values.are_withheld() {
                    self.on_clients_ready(pipeline, server, out)
                } else if self.restore(pipeline, server, out) {
                    ServerStep::Swallow
                } else {
                    self.finish_withheld(pipeline, server, out)
                }
            }
        }
    }

    /// The client's message is answered whose BEGIN the server has not done: the client is in a block that has failed, and
    /// the server in none.
    fn on_begin_failed(
        &mut self,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        reply::ready_for_query(self.status_outside(), out.to_client);
        unless_forwarded(self.on_clients_ready(pipeline, server, out))
    }

    pub(super) fn on_clients_ready(
        &mut self,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        pipeline.effects.may_commit &= !pipeline.owed.is_empty();
        if self.shared.mode == Mode::Statement && pipeline.owed.status() != Status::Idle {
            // A text that was too long to be judged has opened a block.
            return ServerStep::fail(Report::fatal(SqlState::FEATURE_NOT_SUPPORTED, NO_BLOCKS));
        }
        if !pipeline.owed.is_free() {
            return forward_to(pipeline);
        }
        pipeline.deallocating = false;
        pipeline.end_transaction();
        if self.shared.mode == Mode::Session {
            pipeline.effects = Effects::default();
            return ServerStep::Forward;
        }
        self.pins.note(pipeline.effects.pins);
        self.note_draws(server);
        if pipeline.is_long_unbound() {
            // Only this connection has it, and a question of ours would take it away.
            return ServerStep::Forward;
        }
        if pipeline.effects.is_asked() {
            let probe = std::mem::take(&mut pipeline.effects.probe);
            if let (true, Probe::Settings(names) | Probe::Everything(names)) = (pipeline.effects.undone, &probe) {
                pipeline.effects.reset.extend(names.iter().cloned());
            }
            self.ask(probe, pipeline, server, out);
            return ServerStep::Forward;
        }
        if self.pins.are_any() || self.pins.pinned().is_some() {
            let cause = std::mem::take(&mut pipeline.effects.cause);
            if let Some(step) = self.settle_pin(None, cause, out) {
                return step;
            }
        }
        if self.listens() && self.hand_over(pipeline, server, out) {
            return ServerStep::Forward;
        }
        if self.is_pinned() { ServerStep::Forward } else { ServerStep::ForwardAndRelease }
    }
}

/// The same step, for a message that is not passed on.
fn unless_forwarded(step: ServerStep) -> ServerStep {
    match step {
        ServerStep::ForwardAndRelease => ServerStep::Release,
        ServerStep::Forward | ServerStep::ForwardThenAnswer => ServerStep::Swallow,
        step => step,
    }
}

/// Says where in the client's text the place of an error is that the server names in the edited one. Whether it named one.
fn move_position(fields: &mut ErrorFields, edits: &Edits) -> bool {
    let Some(position) = fields.text(b'P').and_then(|text| text.parse().ok()) else { return false };
    let places = fields.fields.iter_mut().filter(|(field, _)| *field == b'P');
    places.for_each(|(_, text)| *text = edits.original(position).to_string().into_bytes());
    true
}

/// Whether a batch failed only for the state of a statement on the server, and can be sent once more: its plan gives
/// another result than before, or somebody has taken it away (SQLSTATE 0A000, 26000).
fn repeats(fields: &ErrorFields, pipeline: &Pipeline) -> bool {
    let of_ours = our_name(fields.message().as_bytes()).is_some();
    let mends = fields.code() == "0A000" || fields.code() == "26000" && of_ours;
    mends && pipeline.repeatable().is_some()
}

/// The batch under way is answered by nothing; after its Sync it comes once more.
fn send_again(pipeline: &mut Pipeline, server: &mut ServerState) -> ServerStep {
    server.statements.forget_unnamed();
    pipeline.can_repeat = false;
    while pipeline.owed.pop().is_some() {}
    pipeline.owed.push(Owed::Again);
    ServerStep::Swallow
}

/// A message that completes something passes, and what we owe may be due after it.
fn forward_to(pipeline: &Pipeline) -> ServerStep {
    if pipeline.owed.front().is_some_and(Owed::is_known) { ServerStep::ForwardThenAnswer } else { ServerStep::Forward }
}

/// The first name of ours in a text: where it begins and ends.
fn our_name(text: &[u8]) -> Option<(usize, usize)> {
    let at = text.windows(NAME_PREFIX.len()).position(|window| window == NAME_PREFIX)?;
    let digits = text[at + NAME_PREFIX.len()..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    Some((at, at + NAME_PREFIX.len() + digits))
}

/// SQL that we do not see (in a function) can drop or make statements under our names: the server's word counts.
fn learn(fields: &ErrorFields, server: &mut ServerState) {
    let held = match fields.code() {
        "26000" => None,
        // Since when, nobody knows.
        "42P05" => Some(0),
        _ => return,
    };
    let Some((at, end)) = our_name(fields.message().as_bytes()) else { return };
    if let Ok(id) = fields.message()[at + NAME_PREFIX.len()..end].parse() {
        server.statements.set(id, held);
    }
}

/// With its last warning in hand a server process says nothing more. What is behind a notice tells that it goes on.
fn on_notice(message: Shown<'_>, pipeline: &mut Pipeline) -> ServerStep {
    if message.is_whole() && message.after.is_empty() {
        let fields = ErrorFields::read(message.body);
        if fields.is_farewell() {
            pipeline.seldom_mut().farewell = Some(fields);
            return ServerStep::Swallow;
        }
    }
    ServerStep::Forward
}

pub(super) fn nonsense(error: wire::Error) -> ServerStep {
    ServerStep::fail(
        Report::fatal(SqlState::CONNECTION_LOST, "the server sent what the protocol does not allow")
            .detail(error.to_string()),
    )
}
