//! A transaction block that a client has opened and that no server knows of yet. BEGIN is answered in the server's place,
//! and travels in front of the first statement after it: it costs no round trip and holds no server connection while
//! the client thinks.
//!
//! What a client can notice: `now()` is the time of that first statement. A server setting that bounds how long a
//! transaction may last or idle (`idle_in_transaction_session_timeout`, `transaction_timeout`) counts from then on, too;
//! for sessions that have set one themselves, BEGIN goes to the server at once.
//!
//! BEGIN travels in the extended protocol and without a Sync, so that a server which refused it would skip what follows:
//! nothing of the transaction can run outside of it.

use super::{ClientStep, Mode, Outboxes, Pipeline, ServerState, Session, pipeline::Owed};
use crate::{
    sql::{Modes, TransactionControl, Verdict},
    wire::{
        reply::{self, Status},
        request::{self, Parse},
    },
};

/// Most SET TRANSACTION that are held back with their BEGIN.
const MORE_MAX: usize = 8;

/// Longest text that is held back, in bytes: a client could grow it with comments.
const TEXT_MAX: usize = 1 << 10;

/// Settings with which a server ends a transaction that idles or lasts.
const LIMITS: [&str; 2] = ["idle_in_transaction_session_timeout", "transaction_timeout"];

/// A block that the client has opened.
#[derive(Debug)]
pub(super) struct Block {
    /// BEGIN and what SET TRANSACTION followed, as the client wrote them, with their final NUL.
    texts: Vec<Box<[u8]>>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No server knows of it.
    Waiting,
    /// And an error has been answered in it, so that it has to fail on the server, too.
    Failed,
    /// It has gone to the server connection that is lent.
    Sent,
}

impl Session {
    /// Whether the client is in a transaction block of which no server knows.
    pub fn in_waiting_block(&self) -> bool {
        self.block.as_ref().is_some_and(|block| block.state != State::Sent)
    }

    /// The transaction's status as the client knows it while no server connection is lent.
    pub(super) fn status_outside(&self) -> Status {
        match self.block.as_ref().map(|block| block.state) {
            None | Some(State::Sent) => Status::Idle,
            Some(State::Waiting) => Status::Transaction,
            Some(State::Failed) => Status::Failed,
        }
    }

    /// An error is answered while no server connection is lent.
    pub(super) fn fail_outside(&mut self) {
        if let Some(block) = &mut self.block {
            block.state = State::Failed;
        }
    }

    /// A simple query without a server connection: `Some` when it is answered here.
    pub(super) fn defer(&mut self, verdict: &Verdict, text: &[u8], out: &mut Outboxes<'_>) -> Option<ClientStep> {
        if verdict.statements != 1 || verdict.hint.is_some() || text.len() > TEXT_MAX || !text.is_ascii() {
            return None;
        }
        let may_defer = self.block.is_none() && self.may_defer();
        let tag = match (verdict.transaction, &mut self.block) {
            (TransactionControl::Begin { modes, start }, None) if may_defer && cannot_fail(modes) => {
                self.block = Some(Box::new(Block { texts: vec![text.into()], state: State::Waiting }));
                if start { "START TRANSACTION" } else { "BEGIN" }
            }
            (TransactionControl::SetTransaction(Some(modes)), Some(block))
                if block.state == State::Waiting && block.texts.len() <= MORE_MAX && cannot_fail(modes) =>
            {
                block.texts.push(text.into());
                "SET"
            }
            (TransactionControl::Commit { chain: false }, Some(block)) => {
                let tag = if block.state == State::Waiting { "COMMIT" } else { "ROLLBACK" };
                self.block = None;
                tag
            }
            (TransactionControl::Rollback { chain: false }, Some(_)) => {
                self.block = None;
                "ROLLBACK"
            }
            _ => return None,
        };
        // As any simple query does.
        self.unnamed = None;
        reply::command_complete(tag, out.to_client);
        reply::ready_for_query(self.status_outside(), out.to_client);
        Some(ClientStep::Answered)
    }

    /// Whether nothing depends on when BEGIN reaches a server.
    fn may_defer(&self) -> bool {
        self.shared.mode == Mode::Transaction
            && self.own.is_none()
            && self.refused.is_none()
            && !self.is_pinned()
            && !self.listens()
            && LIMITS.iter().all(|name| self.settings.get(name).is_none())
    }

    /// Opens the block on the server connection that has been lent, in front of what the client sends now.
    pub(super) fn open_block(&mut self, pipeline: &mut Pipeline, server: &mut ServerState, out: &mut Outboxes<'_>) {
        let Some(block) = self.block.as_mut().filter(|block| block.state != State::Sent) else { return };
        for text in &block.texts {
            let sql = text.strip_suffix(b"\0").unwrap_or(text);
            Parse { name: b"", sql, types: b"\0\0" }.write(b"", out.to_server);
            request::run_unnamed(out.to_server);
            pipeline.push(Owed::Begin);
        }
        pipeline.status = Status::Transaction;
        if block.state == State::Failed {
            Parse { name: b"", sql: b"refused by Poolhouse", types: b"\0\0" }.write(b"", out.to_server);
            request::sync(out.to_server);
            pipeline.push(Owed::FailedBegin);
            pipeline.status = Status::Failed;
        }
        server.unnamed = None;
        block.state = State::Sent;
    }

    /// The server connection is lost, and the transaction with it, if it was there.
    pub(super) fn lose_block(&mut self) {
        if !self.in_waiting_block() {
            self.block = None;
        }
    }
}

/// A standby refuses READ WRITE at once (manual, "Hot Standby"), and nothing else that BEGIN or SET TRANSACTION can say.
fn cannot_fail(modes: Modes) -> bool {
    modes.read_only != Some(false)
}
