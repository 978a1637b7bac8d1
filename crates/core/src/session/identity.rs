//! A session whose role or session user cannot be taken any more: it was dropped, or the right to it is gone. A direct
//! connection goes on then, and can become somebody else. Here what ends or changes the identity runs on a server
//! connection that lacks it, and everything else gets the error with which the server refused it.

use std::sync::Arc;

use super::{
    ClientStep, Judge, Outboxes, Pipeline, ServerState, ServerStep, Session,
    carried::Carried,
    client::{JUDGED_BYTES_MAX, Said, violation},
};
use crate::{
    sql::{Fact, SettingChange, TransactionControl, Verdict},
    wire::{
        ErrorFields,
        error::{Report, SqlState},
        frame::ClientMessage,
        request::{self, BindNames, Parse},
    },
};

/// The session's settings were refused by a server.
#[derive(Debug)]
pub(super) struct Refused {
    words: ErrorFields,
    without: Without,
}

/// What of the session is left out, so that it can be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Role,
    /// The session user, and the role that it has taken.
    Identity,
    /// It is something else that was refused.
    Nothing,
}

impl Without {
    /// What to try when `self` was refused as well.
    fn next(before: Option<Without>, settings: &Carried) -> Without {
        let has = |name| settings.get(name).is_some();
        match before {
            None if has("role") => Without::Role,
            None | Some(Without::Role) if has("session_authorization") => Without::Identity,
            _ => Without::Nothing,
        }
    }

    /// Whether a statement changes or ends what is left out. ROLLBACK and COMMIT of a transaction that is not there
    /// change nothing; only as a query of their own, since a batch could go on after them.
    fn is_mended_by(self, verdict: &Verdict, request: ClientMessage) -> bool {
        let mends = |change: &SettingChange| match change {
            SettingChange::Set(name) | SettingChange::Reset(name) => match self {
                Without::Role => matches!(&**name, "role" | "session_authorization"),
                Without::Identity => **name == *"session_authorization",
                Without::Nothing => false,
            },
            SettingChange::ResetAll | SettingChange::Unknown => false,
        };
        let ends = matches!(
            verdict.transaction,
            TransactionControl::Rollback { chain: false } | TransactionControl::Commit { chain: false }
        );
        let mended = verdict.does(Fact::DiscardsAll)
            || verdict.settings.iter().any(mends)
            || request == ClientMessage::Query && ends;
        self != Without::Nothing && verdict.composition.is_one() && mended
    }
}

/// Whether the server connection that is lent has taken on who the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Identity {
    #[default]
    Whole,
    /// It lacks what could not be brought.
    Reduced,
    /// And what changes or ends that has run there.
    Mended,
}

impl Identity {
    /// A command of the client has succeeded.
    pub fn on_command_complete(&mut self, tag: &[u8]) {
        if *self == Identity::Reduced && matches!(tag, b"SET\0" | b"RESET\0" | b"DISCARD ALL\0") {
            *self = Identity::Mended;
        }
    }

    /// An error has come, which undoes it.
    pub fn on_error(&mut self) {
        if *self == Identity::Mended {
            *self = Identity::Reduced;
        }
    }
}

impl Session {
    /// What a server connection is to carry for the message at hand: all of the session's settings, unless some of them
    /// were refused.
    pub(super) fn wanted(&self) -> Arc<Carried> {
        let without = self.refused.as_ref().map_or(Without::Nothing, |refused| refused.without);
        if without == Without::Nothing {
            return self.settings.clone();
        }
        let mut wanted = Carried::clone(&self.settings);
        wanted.remove("role");
        if without == Without::Identity {
            wanted.remove("session_authorization");
        }
        Arc::new(wanted)
    }

    /// The server has refused the settings. The connection is closed: what it carries of others could not be taken back,
    /// perhaps. The message that waits is looked at once more, without a server connection.
    pub(super) fn on_refused(&mut self, held: bool, pipeline: &mut Pipeline) -> ServerStep {
        let words = pipeline.take(|seldom| &mut seldom.last_words).unwrap_or_default();
        if !held || !pipeline.owed.is_empty() {
            let why =
                format!("the session's settings could not be brought to a server connection: {}", words.message());
            return ServerStep::fail(Report::fatal(SqlState::CONNECTION_LOST, why));
        }
        pipeline.unfit = true;
        let before = self.refused.take();
        let without = Without::next(before.as_ref().map(|refused| refused.without), &self.settings);
        // The first words are about the session as it is.
        let words = before.map_or(words, |refused| refused.words);
        self.refused = Some(Box::new(Refused { words, without }));
        ServerStep::Release
    }

    /// The message for which the settings could not be brought: `None` when it may run without the identity.
    pub(super) fn answer_refused(
        &mut self,
        said: &Said<'_, impl Judge>,
        pipeline: &mut Pipeline,
        out: &mut Outboxes<'_>,
    ) -> Option<ClientStep> {
        let Said { request, shown: message, judge, .. } = *said;
        let without = self.refused.as_ref()?.without;
        let judged = matches!(request, ClientMessage::Query | ClientMessage::Parse);
        if judged && !message.is_whole() && message.head.body <= JUDGED_BYTES_MAX {
            return Some(ClientStep::More);
        }
        let verdict = match request {
            ClientMessage::Query if message.is_whole() => match request::query_text(message.body) {
                Ok(sql) => Some(judge.verdict(sql)),
                Err(error) => return Some(violation(error)),
            },
            ClientMessage::Parse if message.is_whole() => match Parse::read(message.body) {
                Ok(parse) => Some(judge.verdict(parse.sql)),
                Err(error) => return Some(violation(error)),
            },
            ClientMessage::Bind => BindNames::read(message.body)
                .and_then(|names| self.prepared.get(names.statement, &pipeline.owed))
                .map(|statement| statement.verdict.clone()),
            ClientMessage::Query
            | ClientMessage::Parse
            | ClientMessage::Describe
            | ClientMessage::Execute
            | ClientMessage::FunctionCall => None,
            _ => return None,
        };
        if verdict.is_some_and(|verdict| without.is_mended_by(&verdict, request)) {
            return None;
        }
        let refused = self.refused.take()?;
        refused.words.write(b'E', out.to_client);
        self.end_refusal(matches!(request, ClientMessage::Query | ClientMessage::FunctionCall), out);
        Some(ClientStep::Answered)
    }

    /// The server connection carries what it is to carry: the client is told what it reports, unless it is not yet who
    /// the client is.
    pub(super) fn note_brought(&mut self, pipeline: &mut Pipeline, server: &mut ServerState, out: &mut Outboxes<'_>) {
        if self.stays_refused(pipeline) {
            // It is noted already: with the settings something else came.
            return;
        }
        if self.refused.take().is_none() {
            self.tell_news(&server.reported, out.to_client);
            server.reported = self.reported.clone();
            return;
        }
        pipeline.identity = Identity::Reduced;
        pipeline.login_values.withhold();
        // What follows waits until it is known who the session is.
        pipeline.deallocating = true;
    }

    /// Nothing has run that mends the identity: the session is who it was.
    pub(super) fn stays_refused(&self, pipeline: &Pipeline) -> bool {
        pipeline.identity == Identity::Reduced
    }
}
