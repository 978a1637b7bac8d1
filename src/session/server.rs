//! What a server's message means.

use std::sync::Arc;

use super::{
    Mode, Outboxes, Pipeline, ServerState, ServerStep, Session, Shown,
    carried::{Carried, Probe},
    pipeline::{Effects, Owed},
    statements::NAME_PREFIX,
};
use crate::wire::{
    self, ErrorFields,
    error::{Report, SqlState},
    frame::Reply,
    reply::{self, Status},
    request,
};

/// Most rows that a probe may answer with; there are fewer settings.
const ANSWER_ROWS_MAX: usize = 2_000;

impl Session {
    /// A message from the server connection that is lent to this session. DataRow and CopyData that belong to the client
    /// need not be shown. An ErrorResponse or NoticeResponse may be shown in part; all others whole.
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
        match reply {
            Reply::ParameterStatus => self.on_parameter(message.body, pipeline, server),
            Reply::NoticeResponse if pipeline.owed.front().is_some_and(Owed::is_ours) => ServerStep::Swallow,
            Reply::NoticeResponse => ServerStep::Forward,
            // A connection that listens is lent to nobody else, so it can only be this client's; also while we still ask
            // whether LISTEN has succeeded.
            Reply::NotificationResponse => ServerStep::Forward,
            Reply::ErrorResponse => self.on_error(message, pipeline, server, out),
            Reply::ReadyForQuery => match Status::read(message.body) {
                Ok(status) => self.on_ready(status, pipeline, server, out),
                Err(error) => nonsense(error),
            },
            _ => self.on_reply(reply, message, pipeline, server),
        }
    }

    fn on_parameter(&mut self, body: &[u8], pipeline: &Pipeline, server: &mut ServerState) -> ServerStep {
        let of_the_session = match server.take_parameter(body) {
            Ok(of_the_session) => of_the_session,
            Err(error) => return nonsense(error),
        };
        if matches!(pipeline.owed.front(), Some(Owed::Replay { .. })) || !of_the_session {
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
            (Owed::Query, Reply::CommandComplete) | (Owed::Execute, Reply::CommandComplete) => {
                self.on_command_complete(message.body, pipeline, server);
                matches!(pipeline.owed.front(), Some(Owed::Execute))
            }
            (Owed::Query, _) => false,
            (Owed::Replay { .. }, _) => return ServerStep::Swallow,
            (Owed::Probe { .. }, Reply::DataRow) => return self.on_answer_row(message.body, pipeline),
            (Owed::Probe { .. }, _) => return ServerStep::Swallow,
            (Owed::Parse { .. } | Owed::OurParse { .. }, Reply::ParseComplete) => true,
            (Owed::Bind, Reply::BindComplete) => true,
            (Owed::Describe, Reply::ParameterDescription) => false,
            (Owed::Describe, Reply::RowDescription | Reply::NoData) => true,
            (Owed::Close | Owed::OurClose { .. }, Reply::CloseComplete) => true,
            (Owed::Execute, Reply::EmptyQueryResponse | Reply::PortalSuspended) => true,
            (Owed::Execute, Reply::CopyInResponse) => {
                pipeline.begin_copy_in();
                false
            }
            (Owed::Execute, Reply::DataRow | Reply::CopyOutResponse | Reply::CopyData | Reply::CopyDone) => false,
            _ => return nonsense(wire::Error::UnknownMessage(message.head.tag)),
        };
        if !completes {
            return ServerStep::Forward;
        }
        self.complete_front(pipeline)
    }

    fn complete_front(&mut self, pipeline: &mut Pipeline) -> ServerStep {
        let done = pipeline.pop();
        if matches!(done, Some(Owed::OurParse { .. } | Owed::OurClose { .. })) {
            return ServerStep::Swallow;
        }
        if matches!(done, Some(Owed::Execute)) {
            pipeline.copy_in = false;
            while matches!(pipeline.owed.front(), Some(Owed::CopyEnd)) {
                pipeline.pop();
            }
        }
        if let Some(Owed::Parse { name, statement: Some(statement) }) = done {
            self.accept_name(name, statement, pipeline);
        }
        if !matches!(pipeline.owed.front(), Some(Owed::ParseKnown { .. } | Owed::CloseKnown { .. })) {
            return ServerStep::Forward;
        }
        ServerStep::ForwardThenAnswer
    }

    /// After a message that was passed on: the replies that we owe and that are due now.
    pub fn answer_after_forward(&mut self, pipeline: &mut Pipeline, out: &mut Outboxes<'_>) {
        self.answer_known(pipeline, out.to_client);
    }

    /// Some commands take statements with them, whoever prepared them.
    fn on_command_complete(&mut self, tag: &[u8], pipeline: &mut Pipeline, server: &mut ServerState) {
        match tag {
            b"DISCARD ALL\0" => {
                self.pins = Default::default();
                pipeline.effects.probe.add_everything();
                pipeline.effects.reset_all = true;
            }
            b"DEALLOCATE ALL\0" => {}
            _ => return,
        }
        server.statements.clear();
        server.unnamed = None;
        self.names.clear();
        self.unnamed = None;
    }

    fn on_answer_row(&mut self, body: &[u8], pipeline: &mut Pipeline) -> ServerStep {
        match reply::data_row(body) {
            Ok(columns) if pipeline.answer.settings.len() < ANSWER_ROWS_MAX => {
                pipeline.answer.row(&columns);
                ServerStep::Swallow
            }
            _ => nonsense(wire::Error::Malformed("DataRow")),
        }
    }

    fn on_error(
        &mut self,
        message: Shown<'_>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        let fields = ErrorFields::read(message.body);
        if fields.is_fatal() {
            // The connection closes now; what this means for the client is decided then, with these words.
            pipeline.last_words = Some(fields);
            return ServerStep::Swallow;
        }
        pipeline.failed = true;
        match pipeline.owed.front() {
            None => return ServerStep::Swallow,
            Some(Owed::Replay { .. }) => {
                pipeline.last_words = Some(fields);
                return ServerStep::Swallow;
            }
            Some(Owed::Probe { .. }) => return ServerStep::Swallow,
            Some(Owed::Query) => {}
            Some(_) => self.skip(pipeline, server),
        }
        self.forward_error(message, fields, out)
    }

    /// An error in the extended protocol: the server skips everything up to Sync. What was expected of the skipped
    /// messages is taken back.
    fn skip(&mut self, pipeline: &mut Pipeline, server: &mut ServerState) {
        let mut kept = Vec::new();
        let mut front = true;
        pipeline.copy_in = false;
        while let Some(owed) = pipeline.owed.front() {
            if matches!(owed, Owed::Sync) {
                return;
            }
            match pipeline.pop() {
                Some(Owed::Parse { name, statement }) => {
                    self.forget_parse(
                        &name,
                        statement.as_deref().map(|statement| statement.id),
                        pipeline,
                        server,
                        &kept,
                    );
                    if front && name.is_empty() {
                        self.unnamed = None;
                    }
                }
                Some(Owed::ParseKnown { name, statement }) => forget_pending(&name, statement.id, pipeline),
                Some(Owed::OurParse { unnamed: true, .. }) => server.unnamed = None,
                Some(Owed::OurParse { id, unnamed: false }) => server.statements.remove(id),
                Some(Owed::OurClose { id }) => {
                    server.statements.restore(id);
                    kept.push(id);
                }
                Some(Owed::CloseKnown { name, statement: Some(statement) }) => self.names.insert(name, statement),
                _ => {}
            }
            front = false;
        }
        pipeline.skipping = true;
    }

    fn forget_parse(
        &mut self,
        name: &[u8],
        id: Option<u64>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        kept: &[u64],
    ) {
        if name.is_empty() {
            server.unnamed = None;
        }
        let Some(id) = id else { return };
        forget_pending(name, id, pipeline);
        if !name.is_empty() && !kept.contains(&id) {
            server.statements.remove(id);
        }
    }

    /// Passes an error on, with the client's own names in place of ours.
    fn forward_error(&self, message: Shown<'_>, mut fields: ErrorFields, out: &mut Outboxes<'_>) -> ServerStep {
        let has_our_name = |text: &[u8]| text.windows(NAME_PREFIX.len()).any(|window| window == NAME_PREFIX);
        if !message.is_whole() || !has_our_name(message.body) {
            return ServerStep::Forward;
        }
        for (_, text) in &mut fields.fields {
            *text = self.with_own_names(text);
        }
        fields.write(b'E', out.to_client);
        ServerStep::Swallow
    }

    fn with_own_names(&self, mut text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        while let Some(at) = text.windows(NAME_PREFIX.len()).position(|window| window == NAME_PREFIX) {
            let digits = text[at + NAME_PREFIX.len()..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let end = at + NAME_PREFIX.len() + digits;
            out.extend_from_slice(&text[..at]);
            out.extend_from_slice(self.names.name_of(&text[at..end]).unwrap_or(&text[at..end]));
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
        if !pipeline.owed.front().is_some_and(Owed::ends_with_ready) {
            return nonsense(wire::Error::UnknownMessage(b'Z'));
        }
        let failed = std::mem::take(&mut pipeline.failed);
        match pipeline.pop() {
            Some(Owed::Replay { settings }) => self.on_replayed(failed, settings, pipeline, server, out),
            Some(Owed::Probe { probe }) => self.on_probed(failed, &probe, pipeline, server),
            _ => {
                pipeline.status = status;
                self.on_clients_ready(pipeline, out)
            }
        }
    }

    fn on_clients_ready(&mut self, pipeline: &mut Pipeline, out: &mut Outboxes<'_>) -> ServerStep {
        if !pipeline.owed.is_empty() || pipeline.status != Status::Idle {
            return ServerStep::Forward;
        }
        pipeline.effects.may_commit = false;
        if self.shared.mode == Mode::Session {
            pipeline.effects = Effects::default();
            return ServerStep::Forward;
        }
        for pin in pipeline.effects.pins.iter() {
            self.pins.insert(pin);
        }
        if pipeline.effects.probe != Probe::Nothing {
            let probe = std::mem::take(&mut pipeline.effects.probe);
            request::query(&probe.sql(&self.settings), out.to_server);
            pipeline.holding = true;
            pipeline.push(Owed::Probe { probe });
            return ServerStep::Forward;
        }
        if self.is_pinned() { ServerStep::Forward } else { ServerStep::ForwardAndRelease }
    }

    fn on_replayed(
        &mut self,
        failed: bool,
        settings: Arc<Carried>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        let held = std::mem::take(&mut pipeline.holding);
        if !failed {
            server.settings = settings;
            self.tell_news(&server.reported, out.to_client);
            server.reported = self.reported.clone();
            return ServerStep::Swallow;
        }
        let words = pipeline.last_words.take().unwrap_or_default();
        let code = SqlState::CONNECTION_LOST;
        let why = format!("the session's settings could not be brought to a server connection: {}", words.message());
        if !held || !pipeline.owed.is_empty() {
            return ServerStep::fail(Report::fatal(code, why));
        }
        self.lost = Some(Box::new(Report::error(code, why).detail(format!("The server said {}.", words.code()))));
        ServerStep::Release
    }

    fn on_probed(
        &mut self,
        failed: bool,
        probe: &Probe,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
    ) -> ServerStep {
        pipeline.holding = false;
        let effects = std::mem::take(&mut pipeline.effects);
        let answer = std::mem::take(&mut pipeline.answer);
        if failed {
            // What the session has become is unknown, so nobody else may have this connection.
            self.pinned_by_probe = true;
            return ServerStep::Swallow;
        }
        let mut carried = answer.apply(probe, &self.settings);
        for name in &effects.reset {
            let rolled_back = self.settings.get(name).is_some() && carried.get(name) == self.settings.get(name);
            if !rolled_back {
                carried.remove(name);
            }
        }
        let mut wanted = carried.clone();
        for (name, value) in self.startup.iter() {
            let reset = effects.reset_all || effects.reset.iter().any(|reset| **reset == *name);
            if reset && carried.get(name).is_none() {
                wanted.set(name, value);
            }
        }
        self.settings = self.shared_copy(wanted);
        server.settings = if carried == *self.settings { self.settings.clone() } else { Arc::new(carried) };
        if matches!(probe, Probe::Everything(_)) {
            self.pinned_by_probe = answer.pin.is_some();
        }
        if self.is_pinned() { ServerStep::Swallow } else { ServerStep::Release }
    }

    /// The same settings in one place, so that clients which have set nothing share theirs.
    fn shared_copy(&self, settings: Carried) -> Arc<Carried> {
        if settings == *self.startup {
            self.startup.clone()
        } else if settings == *self.settings {
            self.settings.clone()
        } else {
            Arc::new(settings)
        }
    }
}

fn forget_pending(name: &[u8], id: u64, pipeline: &mut Pipeline) {
    let pending = pipeline.pending.iter().position(|(known, statement)| **known == *name && statement.id == id);
    if let Some(pending) = pending {
        pipeline.pending.remove(pending);
    }
}

fn nonsense(error: wire::Error) -> ServerStep {
    ServerStep::fail(
        Report::fatal(SqlState::CONNECTION_LOST, "the server sent what the protocol does not allow")
            .detail(error.to_string()),
    )
}
