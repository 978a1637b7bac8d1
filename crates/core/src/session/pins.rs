//! Pins: why a session keeps its server connection between transactions, where that begins and ends, and what its pool
//! thinks of it.

use std::sync::Arc;

use super::{
    ClientStep, Mode, Outboxes, Pipeline, ServerStep, Session, carried::push_literal, owed::Owed, server::NO_BLOCKS,
};
use crate::{
    sql::{Called, Pin, PinSet, TransactionControl, Verdict},
    wire::{
        error::{Report, SqlState},
        frame::ClientMessage,
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

/// A pin: why a session keeps its server connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The kind of state, such as `temporary object`.
    pub reason: String,
    /// The statement that has brought it about, if it is known; the beginning of a long one.
    pub statement: String,
}

/// All that keeps a session's server connection with it between transactions, but for its pool's mode and the channels that
/// it listens to there. What a transaction did is noted at its end, and a pin begins ([`Pins::begin`]) or ends ([`Pins::settle`]) then.
#[derive(Debug, Default)]
pub(super) struct Pins {
    /// State of which the server cannot tell, by what was sent.
    noted: PinSet,
    /// State of which the server has told, or may have more than is known.
    told: bool,
    /// The pin, from the end of the transaction that has begun it.
    pinned: Option<Arc<Pinned>>,
}

impl Pins {
    pub fn are_any(&self) -> bool {
        self.told || !self.noted.is_empty()
    }

    /// Whether there is state that nothing takes away from a server connection.
    pub fn are_lasting(&self) -> bool {
        !self.noted.that_last().is_empty()
    }

    /// Whether there is state of which the server tells when it is gone.
    pub fn are_told(&self) -> bool {
        self.told
    }

    pub fn pinned(&self) -> Option<&Arc<Pinned>> {
        self.pinned.as_ref()
    }

    /// State is there of which the server cannot tell.
    pub fn note(&mut self, pins: PinSet) {
        self.noted = self.noted.union(pins);
    }

    /// The same, of one kind.
    pub fn add(&mut self, pin: Pin) {
        self.noted.insert(pin);
    }

    /// State of this kind is gone.
    pub fn remove(&mut self, pin: Pin) {
        self.noted.remove(pin);
    }

    /// DISCARD ALL has run.
    pub fn discard(&mut self) {
        self.noted = self.noted.that_last();
    }

    /// The server has told whether there is state that cannot move, of all that it can tell of.
    pub fn tell(&mut self, any: bool) {
        self.told = any;
    }

    /// There is more, or nobody knows whether there is.
    pub fn keep(&mut self) {
        self.told = true;
    }

    /// A transaction is over and all is known of it: the pin ends when nothing is left. Why one has to begin, if so; `found`
    /// is what the server has told of.
    fn settle(&mut self, found: Option<String>) -> Option<String> {
        if !self.are_any() {
            self.pinned = None;
            return None;
        }
        let begins = self.pinned.is_none();
        begins.then(|| found.unwrap_or_else(|| words(self.noted).to_owned()))
    }

    /// A pin begins.
    fn begin(&mut self, reason: String, statement: String) {
        self.pinned = Some(Arc::new(Pinned { reason, statement }));
    }
}

impl Session {
    /// The pin of the session; `None` while it keeps no server connection, or as every session of its pool does.
    pub fn pinned(&self) -> Option<&Arc<Pinned>> {
        self.pins.pinned()
    }

    /// Whether the session keeps its server connection between transactions.
    pub fn is_pinned(&self) -> bool {
        self.is_pinned_otherwise() || self.listens_on_server()
    }

    /// Whether it would keep it if it listened to nothing.
    pub(super) fn is_pinned_otherwise(&self) -> bool {
        self.shared.mode == Mode::Session || self.pins.are_any()
    }

    /// Whether the server connection holds state of this session that no command takes away.
    pub fn is_indelible(&self) -> bool {
        self.pins.are_lasting()
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
        request: ClientMessage,
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
            (_, ClientMessage::Query) => {
                // Only the server can make its transaction fail. The client's unnamed statement goes, as with the query for
                // which this one stands.
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
        let reason = self.pins.settle(found)?;
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
        self.pins.begin(reason, cause);
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
            Pin::TemporaryTable | Pin::HoldCursor | Pin::AdvisoryLock | Pin::Load => asked.insert(pin),
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
