//! What a pool thinks of sessions that keep their server connection between transactions, and why one does.

use super::{
    ClientStep, Mode, Outboxes, Pipeline, ServerStep, Session, carried::push_literal, owed::Owed, server::NO_BLOCKS,
};
use crate::{
    sql::{Called, Pin, PinSet, TransactionControl, Verdict},
    wire::{
        error::{Report, SqlState},
        frame::Request,
        reply::Status,
        request,
    },
};

/// Longest part of a statement that is kept to tell why a session is pinned, in bytes.
const STATEMENT_BYTES_MAX: usize = 200;

/// What is done about a session that has to keep its server connection (temporary tables, advisory locks of the
/// session, cursors WITH HOLD, LOAD).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnPin {
    #[default]
    Allow,
    /// The client gets a WARNING when it begins.
    Warn,
    /// A statement that asks for it is refused with SQLSTATE 0A000; a session for which it is found out only afterwards
    /// ends, and so does its server connection.
    Refuse,
}

/// Why a session keeps its server connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The kind of state, such as `temporary object`.
    pub reason: String,
    /// The statement that has brought it about, if it is known; the beginning of a long one.
    pub statement: String,
}

impl Session {
    /// Why the session keeps its server connection; `None` while it does not, or as every session of its pool does.
    pub fn holding(&self) -> Option<&Holding> {
        self.holding.as_deref()
    }

    /// Whether there are statements that the pool does not let pass.
    #[inline]
    pub(super) fn may_refuse(&self) -> bool {
        self.shared.mode == Mode::Statement || self.shared.on_pin == OnPin::Refuse
    }

    /// Statements that the pool does not let pass.
    pub(super) fn refuse_text(
        &mut self,
        verdict: &Verdict,
        request: Request,
        pipeline: &mut Pipeline,
        out: &mut Outboxes<'_>,
    ) -> Option<ClientStep> {
        let (message, hint) = if self.shared.mode == Mode::Statement && opens_block(verdict) {
            (NO_BLOCKS.to_owned(), "Set pool.mode to \"transaction\" for this database.")
        } else if self.shared.on_pin == OnPin::Refuse && self.shared.mode != Mode::Session {
            let reason = asks_for(verdict)?;
            let message = format!("this pool does not let a session keep its server connection ({reason})");
            (message, "pool.on_pin is \"refuse\"; \"allow\" and \"warn\" let it, and so does pool.mode \"session\".")
        } else {
            return None;
        };
        if pipeline.owed.has_open_batch() {
            // What was sent of the batch cannot be taken back.
            return Some(ClientStep::fail(Report::fatal(SqlState::FEATURE_NOT_SUPPORTED, message)));
        }
        if !pipeline.owed.is_empty() {
            return Some(ClientStep::Hold);
        }
        match (pipeline.owed.status(), request) {
            (Status::Idle, _) => {}
            (_, Request::Query) => {
                // Only the server can make its transaction fail.
                // In the client's name, and by a query of its own: what that does to its unnamed statement is the client's doing.
                request::query(&raise(&message, hint), out.to_server);
                pipeline.owed.push(Owed::Query { drops_unnamed: false, called: Called::default() });
                return Some(ClientStep::Answered);
            }
            _ => return Some(ClientStep::fail(Report::fatal(SqlState::FEATURE_NOT_SUPPORTED, message).hint(hint))),
        }
        let report = Report::error(SqlState::FEATURE_NOT_SUPPORTED, message).hint(hint);
        Some(self.refuse(&report, request, out))
    }

    /// Remembers the text that may pin the session, for those who ask why it does.
    pub(super) fn note_cause(&self, text: &[u8], pipeline: &mut Pipeline) {
        if pipeline.effects.is_dirty() && pipeline.effects.cause.is_empty() {
            let text = &text[..text.len().min(STATEMENT_BYTES_MAX)];
            pipeline.effects.cause = String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(text)).into_owned();
        }
    }

    /// The transaction is over and all is known: whether the session is pinned now, and what the pool says to that.
    /// `found` is what the server has told of, `cause` the statement.
    pub(super) fn settle_pin(
        &mut self,
        found: Option<String>,
        cause: String,
        out: &mut Outboxes<'_>,
    ) -> Option<ServerStep> {
        if self.shared.mode == Mode::Session {
            return None;
        }
        let pinned = self.is_pinned_otherwise();
        if !pinned {
            self.holding = None;
        }
        if !pinned || self.holding.is_some() {
            return None;
        }
        let reason = found.unwrap_or_else(|| words(self.pins).to_owned());
        let report = |message: String| Report::error(SqlState::FEATURE_NOT_SUPPORTED, message);
        match self.shared.on_pin {
            OnPin::Allow => {}
            OnPin::Warn => {
                let message = format!("the session keeps its server connection from now on ({reason})");
                Report { code: SqlState::WARNING, ..report(message) }.write_notice("WARNING", out.to_client);
            }
            OnPin::Refuse => {
                let message = format!("this pool does not let a session keep its server connection ({reason})");
                let report = report(message).hint("pool.on_pin is \"refuse\".");
                return Some(ServerStep::fail(Report { fatal: true, ..report }));
            }
        }
        self.holding = Some(Box::new(Holding { reason, statement: cause }));
        None
    }
}

/// A statement that fails with SQLSTATE 0A000 and these words.
fn raise(message: &str, hint: &str) -> String {
    let mut sql = String::from("DO $poolhouse$BEGIN RAISE feature_not_supported USING MESSAGE = ");
    push_literal(message, &mut sql);
    sql.push_str(", HINT = ");
    push_literal(hint, &mut sql);
    sql.push_str("; END$poolhouse$");
    sql
}

fn opens_block(verdict: &Verdict) -> bool {
    matches!(verdict.transaction, TransactionControl::Begin { .. } | TransactionControl::Mixed)
}

/// The state that cannot move which a text asks for by itself. What it only may bring about is looked for afterwards.
fn asks_for(verdict: &Verdict) -> Option<&'static str> {
    let mut asked = PinSet::default();
    for pin in verdict.pins.iter() {
        match pin {
            Pin::HoldCursor | Pin::AdvisoryLock | Pin::Load => asked.insert(pin),
            Pin::TemporaryTable if verdict.settings.is_empty() => asked.insert(pin),
            _ => {}
        }
    }
    (!asked.is_empty()).then(|| words(asked))
}

/// The first of some pins, in words.
fn words(pins: PinSet) -> &'static str {
    match pins.iter().next() {
        Some(Pin::TemporaryTable) => "temporary object",
        Some(Pin::HoldCursor) => "cursor WITH HOLD",
        Some(Pin::AdvisoryLock) => "advisory lock",
        Some(Pin::Listen) => "LISTEN",
        Some(Pin::Load) => "LOAD",
        Some(Pin::Prepare) => "prepared statement",
        Some(Pin::Seed) => "setseed",
        Some(Pin::Sequence) => "values of sequences",
        Some(Pin::Unreadable) => "a statement that cannot be read",
        None => "state that cannot be moved",
    }
}
