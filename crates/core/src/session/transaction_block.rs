//! Transaction blocks that a client has opened, beyond what its server connection knows of them.
//!
//! **Waiting.** BEGIN is answered in the server's place, and travels in front of the first statement after it: it costs no
//! round trip, holds no server connection while the client thinks, and when that statement comes it is known where the
//! transaction may run.
//!
//! What a client can notice: `now()` is the time of that first statement. A server setting that bounds how long a
//! transaction may last or idle (`idle_in_transaction_session_timeout`, `transaction_timeout`) counts from then on, too;
//! for sessions that have set one themselves, BEGIN goes to the server at once.
//!
//! BEGIN travels in the extended protocol and without a Sync, so that a server which refused it would skip what follows:
//! nothing of the transaction can run outside of it. The server says nothing of the BEGIN before the first statement has
//! ended, and a cancel request for that statement may come first and hit the BEGIN: the block has failed then
//! ([`Session::fail_begin`]). So nothing is sent behind the first statement until the BEGIN is answered.
//!
//! **On a replica.** A READ COMMITTED block that cannot write, or of which reads may run on replicas until it writes
//! ([`super::Shared::reads_until_write`]), goes to a replica with a first statement that only reads, and stays there while
//! nothing else comes. Such a block can leave: each of its statements sees the database as it is at that moment, so nothing
//! holds it to where it began. It leaves when anything comes that does not only read, or that would leave a cursor behind:
//! the replica is told to roll back, and the block waits again, for the primary. So what a standby alone refuses finds the
//! primary, in a block that cannot write, too. A replica that is lost between two statements is left in the same way.
//!
//! What a client can notice: `now()` is the time at which the transaction began on its last server.

use super::{ClientStep, Mode, Need, Outboxes, Pipeline, ServerState, ServerStep, Session, ask::ask_ours, owed::Owed};
use crate::{
    sql::{Isolation, Modes, TransactionControl, Verdict},
    wire::{
        frame::{self, ClientMessage},
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
    modes: Modes,
    state: BlockState,
    /// Statements of it have run already, on a server that it has left.
    begun: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockState {
    /// No server knows of it.
    Waiting,
    /// And an error has been answered in it, so that it has to fail on the server, too.
    Failed,
    /// The client's own BEGIN is on its way to a replica, in a batch.
    Coming,
    /// It is on the server connection that is lent.
    Sent,
}

impl Block {
    fn waits(&self) -> bool {
        matches!(self.state, BlockState::Waiting | BlockState::Failed)
    }
}

impl Session {
    /// Whether the client is in a transaction block of which no server knows.
    pub fn in_waiting_block(&self) -> bool {
        self.block.as_ref().is_some_and(|block| block.waits())
    }

    /// The transaction's status as the client knows it while no server connection is lent.
    pub(super) fn status_outside(&self) -> Status {
        match self.block.as_ref().map(|block| block.state) {
            None | Some(BlockState::Coming | BlockState::Sent) => Status::Idle,
            Some(BlockState::Waiting) => Status::Transaction,
            Some(BlockState::Failed) => Status::Failed,
        }
    }

    /// An error is answered while no server connection is lent.
    pub(super) fn fail_outside(&mut self) {
        if let Some(block) = &mut self.block {
            block.state = BlockState::Failed;
        }
    }

    /// A simple query without a server connection: `Some` when it is answered here.
    pub(super) fn defer(&mut self, verdict: &Verdict, text: &[u8], out: &mut Outboxes<'_>) -> Option<ClientStep> {
        if !verdict.composition.is_one() || verdict.hint.is_some() || text.len() > TEXT_MAX || !text.is_ascii() {
            return None;
        }
        let may_defer = self.block.is_none() && self.may_defer();
        let tag = match (verdict.transaction, &mut self.block) {
            (TransactionControl::Begin { modes, start }, None) if may_defer && cannot_fail(modes) => {
                self.block =
                    Some(Box::new(Block { texts: vec![text.into()], modes, state: BlockState::Waiting, begun: false }));
                if start { "START TRANSACTION" } else { "BEGIN" }
            }
            (TransactionControl::SetTransaction(Some(modes)), Some(block))
                if block.state == BlockState::Waiting
                    && !block.begun
                    && block.texts.len() <= MORE_MAX
                    && cannot_fail(modes) =>
            {
                block.texts.push(text.into());
                block.modes.read_only = modes.read_only.or(block.modes.read_only);
                block.modes.isolation = modes.isolation.or(block.modes.isolation);
                "SET"
            }
            (TransactionControl::Commit { chain: false }, Some(block)) => {
                let tag = if block.state == BlockState::Waiting { "COMMIT" } else { "ROLLBACK" };
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
        self.prepared.drop_unnamed();
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
        let Some(block) = self.block.as_mut().filter(|block| block.waits()) else { return };
        for text in &block.texts {
            let sql = text.strip_suffix(b"\0").unwrap_or(text);
            Parse { name: b"", sql, types: b"\0\0" }.write(b"", out.to_server);
            request::run_unnamed(out.to_server);
            pipeline.owed.push(Owed::Begin);
        }
        if block.state == BlockState::Failed {
            Parse { name: b"", sql: b"refused by Poolhouse", types: b"\0\0" }.write(b"", out.to_server);
            request::sync(out.to_server);
            pipeline.owed.push(Owed::FailedBegin);
        }
        server.statements.forget_unnamed();
        block.state = BlockState::Sent;
    }

    /// The server has refused the BEGIN in front, as it was cancelled, and skips what follows up to a Sync: the error answers
    /// the client's message behind it, and the block has failed. False when more than that may have come of it.
    pub(super) fn fail_begin(&mut self, pipeline: &mut Pipeline, out: &mut Outboxes<'_>) -> bool {
        let Some(block) = self.block.as_mut().filter(|block| block.state == BlockState::Sent) else { return false };
        if !pipeline.owed.may_begin_fail() {
            return false;
        }
        block.state = BlockState::Failed;
        while matches!(pipeline.owed.front(), Some(Owed::Begin)) {
            pipeline.owed.pop();
        }
        if matches!(pipeline.owed.front(), Some(Owed::Query { .. })) {
            request::sync(out.to_server);
        }
        true
    }

    /// The isolation of transactions that do not say theirs, if it is known.
    fn isolation(&self) -> Option<Isolation> {
        let of_session =
            if self.settings.is_empty() { None } else { self.settings.get("default_transaction_isolation") };
        of_session.and_then(Isolation::of).or(self.default_isolation)
    }

    /// Whether the session's statements are SERIALIZABLE, which a hot standby refuses (manual, "Hot Standby").
    pub(super) fn is_serializable(&self) -> bool {
        self.isolation() == Some(Isolation::Serializable)
    }

    /// Whether a block with these modes may run on a replica as long as it only reads.
    fn may_roam(&self, modes: Modes) -> bool {
        let isolation = modes.isolation.or_else(|| self.isolation());
        let by_default = || self.reported.get("default_transaction_read_only") == Some("on");
        let reads = self.shared.reads_until_write || modes.read_only.unwrap_or_else(by_default);
        self.shared.is_routed() && reads && isolation == Some(Isolation::ReadCommitted) && cannot_fail(modes)
    }

    /// What the first statement after BEGIN needs; `None` when no block waits.
    pub(super) fn need_of_block(&self, reads: bool) -> Option<Need> {
        let block = self.block.as_ref().filter(|block| block.waits())?;
        let roams = block.state == BlockState::Waiting && reads && self.may_roam(block.modes);
        Some(if roams { Need::Read } else { Need::Write })
    }

    /// Whether a text in a block that is on a replica stays there, though it does not read.
    pub(super) fn stays_in_block(&self, verdict: &Verdict, pipeline: &Pipeline) -> bool {
        if !self.can_leave(pipeline) || !verdict.composition.is_one() {
            return false;
        }
        match verdict.transaction {
            TransactionControl::Commit { chain } | TransactionControl::Rollback { chain } => !chain,
            // Comes too late, on any server (SQLSTATE 25001), and must not come in time on another one.
            TransactionControl::SetTransaction(Some(modes)) => {
                modes.isolation.is_some_and(|isolation| isolation != Isolation::ReadCommitted)
            }
            _ => false,
        }
    }

    /// Whether a block is on a replica, and held there by nothing.
    pub(super) fn can_leave(&self, pipeline: &Pipeline) -> bool {
        let sent = || self.block.as_ref().is_some_and(|block| block.state == BlockState::Sent);
        pipeline.is_read_only() && pipeline.owed.status() != Status::Idle && sent()
    }

    /// What comes next is run again elsewhere when the replica cannot run it or is lost: everything before it is answered.
    pub fn begins_anew(&self, pipeline: &Pipeline) -> bool {
        self.can_leave(pipeline) && pipeline.owed.is_empty()
    }

    /// Whether the loss of the replica costs the block nothing, since nothing of the client is under way.
    pub fn outlives(&self, pipeline: &Pipeline) -> bool {
        let leaves = |owed: &Owed| matches!(owed, Owed::Leave);
        self.can_leave(pipeline) && !pipeline.owed.has_open_batch() && pipeline.owed.iter().all(leaves)
    }

    /// Tells the replica that the block leaves it; what comes next waits for that.
    pub(super) fn leave(&self, pipeline: &mut Pipeline, server: &mut ServerState, out: &mut Outboxes<'_>) {
        ask_ours(b"ROLLBACK", Owed::Leave, pipeline, server, out);
    }

    /// The replica has rolled back what only read.
    pub(super) fn on_left(&mut self, before: Status, pipeline: &mut Pipeline) -> ServerStep {
        self.reopen_block(before);
        // What code did there to the session is undone, but not everything can be.
        pipeline.unfit |= pipeline.effects.is_dirty();
        ServerStep::Release
    }

    /// The block is to be opened anew on another server connection, and what comes next runs there.
    pub fn take_back_block(&mut self, pipeline: &Pipeline) {
        self.reopen_block(pipeline.owed.status());
    }

    /// The same; `status` is that with which it is left.
    fn reopen_block(&mut self, status: Status) {
        let Some(block) = &mut self.block else { return };
        match block.state {
            // Its BEGIN comes again.
            BlockState::Coming => self.block = None,
            BlockState::Sent => {
                block.state = if status == Status::Failed { BlockState::Failed } else { BlockState::Waiting };
                block.begun = true;
            }
            BlockState::Waiting | BlockState::Failed => {}
        }
    }

    /// Whether a text of a batch begins a block that may run on a replica, and more follows of which it can be said whether
    /// it reads. A batch that only begins the block leaves that open.
    pub(super) fn begins_to_roam(&self, verdict: &Verdict, text: &[u8], mut after: &[u8], pipeline: &Pipeline) -> bool {
        let TransactionControl::Begin { modes, .. } = verdict.transaction else { return false };
        let alone = verdict.composition.is_one() && verdict.hint.is_none() && text.len() < TEXT_MAX && text.is_ascii();
        let idle = pipeline.owed.status() == Status::Idle && !pipeline.owed.has_open_batch() && self.block.is_none();
        if !alone || !idle || !self.may_defer() || !self.may_roam(modes) {
            return false;
        }
        let mut statements = 0;
        while let Ok(Some(head)) = frame::header(after)
            && let Some(rest) = after.get(head.message()..)
        {
            match ClientMessage::of(head) {
                Ok(ClientMessage::Execute) => statements += 1,
                Ok(ClientMessage::Sync) => break,
                _ => {}
            }
            after = rest;
        }
        statements > 1
    }

    /// A batch is sent to a replica that has a text with this verdict in it: the block that it begins.
    pub(super) fn note_begin(&mut self, verdict: &Verdict, text: &[u8], pipeline: &Pipeline) {
        if let TransactionControl::Begin { modes, .. } = verdict.transaction
            && pipeline.is_read_only()
            && pipeline.owed.status() == Status::Idle
            && self.block.is_none()
        {
            self.block =
                Some(Box::new(Block { texts: vec![text.into()], modes, state: BlockState::Coming, begun: true }));
        }
    }

    /// The client is told of the end of a batch or query, and of this status.
    pub(super) fn settle_block(&mut self, status: Status) {
        let Some(block) = &mut self.block else { return };
        match status {
            Status::Idle => self.block = None,
            Status::Transaction | Status::Failed if block.state == BlockState::Coming => block.state = BlockState::Sent,
            Status::Transaction | Status::Failed => {}
        }
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
