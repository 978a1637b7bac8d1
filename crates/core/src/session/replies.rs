//! The replies that a server still owes, in their order, and to whom: the one place that knows what is under way.
//!
//! Every message that makes a server answer adds an entry at the back; the answer that completes it takes it from the
//! front. Entries of our own (replayed settings, injected Parse messages) are in the same queue, so a reply's owner is
//! never guessed. What an entry is, its table says ([`Owed`]).
//!
//! All that follows from what was sent and answered is kept here and written nowhere else: the transaction's status, where
//! the server process is in the protocol, whether the client is held, and what messages under way will make of names and
//! of what the server holds. A client can make the entries many, so that no question may take a walk over them.

use std::{collections::VecDeque, sync::Arc};

use super::{
    keyed_queue::KeyedQueue,
    owed::Owed,
    phase::Phase,
    server_statements::ServerStatements,
    statements::Statement,
    statements_under_way::{Presence, StatementSent, StatementsUnderWay},
    steps::{counted, step},
};
use crate::wire::reply::Status;

/// Most replies outstanding before no more is read from a client: a bound on memory, far above what clients pipeline.
pub const OWED_MAX: usize = 100_000;

/// In the order written, so that what every statement looks at lies together.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Replies {
    entries: VecDeque<Owed>,
    ours: Option<Box<Ours>>,
    /// How many entries of the client end with ReadyForQuery.
    ready: usize,
    /// How many entries run something.
    runs: usize,
    /// How many messages that ReadyForQuery answers have been sent.
    batch: u32,
    /// Messages of the client that were answered up to ReadyForQuery, to tell one statement from the next.
    turns: u32,
    /// As the last ReadyForQuery said, or as our BEGIN will make it.
    status: Status,
    /// Where the server is once it has read what was sent.
    phase: Phase,
    copied: Copied,
    /// Nothing of the client may be sent until a reply to us has come.
    holding: bool,
    /// A Sync stands between the client's BEGIN, which has not been answered, and what it is for: what follows would run
    /// even if the BEGIN were cancelled.
    parted: bool,
    /// Messages of the extended protocol were sent since the last Sync: their implicit transaction is open.
    open_batch: bool,
    /// So many entries behind the front have been looked at when a COPY began, and stay.
    behind_copy: usize,
    /// What they will do to the client's names, in their order.
    changes: KeyedQueue<Box<[u8]>, Meaning>,
    /// What they will do to the statements that the server holds, in their order.
    sent: StatementsUnderWay,
}

/// Entries of our own that are asked for; few pipelines have any.
#[derive(Debug, Default)]
struct Ours {
    /// The clients' own names of statements that are brought or closed.
    names: KeyedQueue<Box<[u8]>, ()>,
    /// The statements of which it is asked what they give.
    asked: KeyedQueue<u64, ()>,
}

/// What the client has sent of a COPY FROM STDIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Copied {
    #[default]
    Nothing,
    Data,
    /// And a Sync among the data: should the COPY fail, nobody can tell whether that Sync is to be answered.
    DataAndSync,
}

/// What a name of the client will mean once the message under way has succeeded; nothing when it is closed.
#[derive(Debug)]
pub struct NameChange {
    pub name: Box<[u8]>,
    pub statement: Option<Arc<Statement>>,
}

/// The same, under the name.
#[derive(Debug)]
struct Meaning {
    statement: Option<Arc<Statement>>,
    batch: u32,
}

/// An entry that has left the queue, with what it was to change.
#[derive(Debug)]
pub struct Done {
    pub owed: Owed,
    pub change: Option<NameChange>,
    pub sent: Option<StatementSent>,
}

/// What is sent, and what it makes the server owe.
impl Replies {
    pub fn push(&mut self, owed: Owed) {
        if owed.ends_the_clients() {
            self.ready += 1;
            self.batch = self.batch.wrapping_add(1);
        }
        match &owed {
            Owed::Query { .. } => (self.runs, self.open_batch) = (self.runs + 1, false),
            Owed::Execute { .. } => (self.runs, self.open_batch) = (self.runs + 1, true),
            Owed::EarlySync => self.open_batch = false,
            Owed::OurSync => self.parted = self.is_begun_unanswered(),
            // It belongs to a batch that is open, or to a query.
            Owed::CopyEnd => {}
            Owed::Begin => self.status = Status::Transaction,
            Owed::FailedBegin => (self.status, self.parted) = (Status::Failed, true),
            Owed::ParseForSql { name, .. } | Owed::CloseForSql { name } | Owed::PrepareForSql { name, .. } => {
                self.ours.get_or_insert_default().names.push(name.clone(), ());
            }
            Owed::OurDescribe { id } => self.ours.get_or_insert_default().asked.push(*id, ()),
            owed if !owed.is_ours() => self.open_batch = !owed.ends_the_clients(),
            _ => {}
        }
        self.holding |= owed.halts_client();
        self.phase = self.phase.sent(&owed);
        self.entries.push_back(owed);
    }

    /// As [`Replies::push`], for a message that gives one of the client's names a meaning, or takes it away.
    pub fn push_change(&mut self, owed: Owed, name: &[u8], statement: Option<Arc<Statement>>) {
        debug_assert!(owed.changes_a_name());
        self.changes.push(name.into(), Meaning { statement, batch: self.batch });
        self.push(owed);
    }

    /// Notes that the message which is pushed next makes the server hold a statement.
    pub fn note_prepared(&mut self, id: u64, moment: u64, bytes: usize) {
        self.sent.prepare(id, moment, bytes, self.batch);
    }

    /// As [`Replies::note_prepared`], for one that makes it drop a statement; it holds these by its replies.
    pub fn note_dropped(&mut self, id: u64, held: &ServerStatements) {
        self.sent.drop(id, held, self.batch);
    }

    /// The client sends data for a COPY.
    pub fn note_copy_data(&mut self) {
        if self.copied == Copied::Nothing {
            self.copied = Copied::Data;
        }
    }

    /// The client sends a Sync that the server ignores, if it is in COPY.
    pub fn note_ignored_sync(&mut self) {
        if self.copied == Copied::Data {
            self.copied = Copied::DataAndSync;
        }
    }

    /// COPY FROM STDIN is over, or its end was sent.
    pub fn end_copy(&mut self) {
        if let Phase::Copying { batch } = self.phase {
            self.phase = Phase::after_copy(batch);
        }
    }
}

/// What the server says.
impl Replies {
    /// The entry in front is answered.
    pub fn pop(&mut self) -> Option<Done> {
        let owed = self.entries.pop_front()?;
        self.behind_copy = 0;
        if owed.ends_the_clients() {
            self.ready -= 1;
            self.turns = self.turns.wrapping_add(1);
        }
        match &owed {
            Owed::Query { .. } | Owed::Execute { .. } => self.runs -= 1,
            Owed::ParseForSql { .. } | Owed::CloseForSql { .. } | Owed::PrepareForSql { .. } => {
                self.ours.as_mut().and_then(|ours| ours.names.pop());
            }
            Owed::OurDescribe { .. } => {
                self.ours.as_mut().and_then(|ours| ours.asked.pop());
            }
            Owed::Begin => self.parted &= self.is_begun_unanswered(),
            // It has more steps than one: see [`Replies::end_move`].
            Owed::Move { .. } => {}
            owed if owed.halts_client() => self.holding = false,
            _ => {}
        }
        // The end of a COPY that never began is ignored by the server.
        while matches!(self.entries.front(), Some(Owed::CopyEnd)) {
            self.entries.pop_front();
        }
        let change = if owed.changes_a_name() { self.changes.pop() } else { None };
        let change = change.map(|(name, Meaning { statement, .. })| NameChange { name, statement });
        let sent = if owed.changes_the_held() { self.sent.pop() } else { None };
        Some(Done { owed, change, sent })
    }

    /// ReadyForQuery has come, with this status. `None` when it answers nothing that is owed.
    pub fn pop_ready(&mut self, status: Status) -> Option<Done> {
        if !self.entries.front().is_some_and(Owed::ends_with_ready) {
            return None;
        }
        self.end_copy();
        let done = self.pop()?;
        self.status = match done.owed {
            Owed::Query { .. } | Owed::Sync | Owed::EarlySync | Owed::Restore => status,
            Owed::Leave => Status::Idle,
            // What brings and asks in between is not about the client's transaction.
            _ => self.status,
        };
        Some(done)
    }

    /// The session's channels are where they were to be moved to, or stay where they are.
    pub fn end_move(&mut self) {
        self.holding = false;
    }

    /// COPY FROM STDIN has begun for the entry in front: Syncs that were sent before the end of the data are ignored by
    /// the server (manual, "COPY Operations").
    pub fn begin_copy_in(&mut self) {
        let batch = matches!(self.entries.front(), Some(Owed::Execute { .. }));
        let (ignored, ended) = self.take_ignored();
        if !ended {
            self.phase = Phase::Copying { batch };
        }
        self.copied = Copied::Nothing;
        if ignored > 0 {
            self.ready -= ignored;
            self.open_batch = self.entries.back().is_some_and(|owed| !owed.ends_the_clients());
            if ended {
                self.phase = self.iter().skip(1).fold(Phase::after_copy(batch), Phase::sent);
            }
        }
    }

    /// A COPY has begun for the entry in front: takes away the Syncs behind it, up to the end of its data and with that.
    /// How many they were, and whether the end was there.
    fn take_ignored(&mut self) -> (usize, bool) {
        // What was looked at before, for another COPY of the same query, stays; only what has come since then is behind it.
        let seen = 1 + self.behind_copy;
        let ignores = |owed: &Owed| owed.is_known() || matches!(owed, Owed::Sync | Owed::CopyEnd);
        if !self.entries.get(seen).is_some_and(ignores) {
            return (0, false);
        }
        let (mut before, mut rest) = match self.behind_copy {
            0 => (self.entries.pop_front().into_iter().collect(), std::mem::take(&mut self.entries)),
            _ => {
                let rest = self.entries.split_off(seen);
                (std::mem::take(&mut self.entries), rest)
            }
        };
        let (mut syncs, mut ended) = (0, false);
        while !ended && rest.front().is_some_and(ignores) {
            step();
            let Some(owed) = rest.pop_front() else { break };
            match owed {
                Owed::Sync => syncs += 1,
                Owed::CopyEnd => ended = true,
                known => before.push_back(known),
            }
        }
        self.behind_copy = before.len() - 1;
        if rest.len() < before.len() {
            before.append(&mut rest);
            rest = before;
        } else {
            before.into_iter().rev().for_each(|owed| rest.push_front(owed));
        }
        self.entries = rest;
        (syncs, ended)
    }

    /// COPY FROM STDIN has failed. Begun by a simple query, the server goes on with what was sent behind its data; begun by
    /// Execute it skips, which is for whoever takes in the error.
    pub fn fail_copy(&mut self) {
        if let Phase::Copying { batch } = self.phase {
            let behind = || self.iter().skip(1).fold(Phase::Ready, Phase::sent);
            self.phase = if batch { Phase::Batch } else { behind() };
        }
    }

    /// An error of the extended protocol has come, and all that was sent is skipped: no Sync is among it.
    pub fn skip_all(&mut self) {
        self.phase = Phase::Skipping;
    }

    /// The server has said what nobody asked for.
    pub fn go_astray(&mut self) {
        self.phase = Phase::Astray;
    }

    /// A batch was to be sent once more, or values of the login were to be brought, and cannot be: the end of the answer is
    /// owed to the client.
    pub fn owe_what_is_waited_for(&mut self) {
        for owed in counted(self.entries.iter_mut()).filter(|owed| matches!(owed, Owed::Again | Owed::Restore)) {
            *owed = Owed::Sync;
            self.ready += 1;
        }
    }

    /// Forgets everything but the room it takes, for the next client. Most of it is as new already.
    pub fn reset(&mut self) {
        // Also when it is empty: the next entry is to lie where the last one did.
        self.entries.clear();
        (self.ready, self.runs, self.behind_copy) = (0, 0, 0);
        (self.status, self.phase, self.copied) = (Status::Idle, Phase::Ready, Copied::Nothing);
        (self.holding, self.parted, self.open_batch) = (false, false, false);
        if self.ours.is_some() {
            self.ours = None;
        }
        if !(self.changes.is_empty() && self.sent.is_empty()) {
            self.changes.clear();
            self.sent.clear();
        }
    }
}

/// What is under way.
impl Replies {
    #[inline]
    pub fn front(&self) -> Option<&Owed> {
        self.entries.front()
    }

    #[inline]
    pub fn back(&self) -> Option<&Owed> {
        self.entries.back()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.len() >= OWED_MAX
    }

    /// All of them: only when the server connection is lost, or the client has left.
    pub fn iter(&self) -> impl Iterator<Item = &Owed> {
        counted(self.entries.iter())
    }

    /// The transaction's status, as the last ReadyForQuery said.
    #[inline]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Where the server is once it has read what was sent.
    #[inline]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether nothing of the client may be sent until a reply to us has come.
    #[inline]
    pub fn is_holding(&self) -> bool {
        self.holding
    }

    /// How many messages of the client are to be answered with ReadyForQuery.
    #[inline]
    pub fn ready_owed(&self) -> usize {
        self.ready
    }

    /// Messages of the client that were answered up to ReadyForQuery, to tell one statement from the next.
    pub fn turns(&self) -> u32 {
        self.turns
    }

    /// Whether the next reply belongs to the client; without an entry it belongs to nobody.
    #[inline]
    pub fn front_is_clients(&self) -> bool {
        self.entries.front().is_some_and(|owed| !owed.is_ours())
    }

    /// Whether the server is busy with a query of ours: settings or channels that are brought, a question, the end of what
    /// leaves a replica, or a BEGIN that must not fail.
    #[inline]
    pub fn asks(&self) -> bool {
        self.parted || self.entries.front().is_some_and(Owed::halts_cancel)
    }

    /// Whether the client's BEGIN is under way, in front of its first statement.
    pub(super) fn is_begun_unanswered(&self) -> bool {
        matches!(self.entries.front(), Some(Owed::Begin))
    }

    /// Whether a BEGIN that is under way may be cancelled.
    pub(super) fn may_begin_fail(&self) -> bool {
        self.is_begun_unanswered() && !self.parted
    }

    /// Whether more would be sent than can be told apart should a cancel hit the client's BEGIN: all that the server has
    /// when it does is skipped up to the first Sync.
    #[inline]
    pub(super) fn awaits_begin(&self) -> bool {
        self.ready > 0 && self.is_begun_unanswered()
    }

    /// Whether anything of the client is under way; what we inject stands in front of what it is for.
    pub fn owes_client(&self) -> bool {
        self.entries.back().is_some_and(|owed| !owed.is_ours())
    }

    /// Whether there is anything of a client that a server runs.
    pub fn runs(&self) -> bool {
        self.runs > 0
    }

    /// Whether an implicit transaction is open that the client has not ended by Sync yet.
    #[inline]
    pub fn has_open_batch(&self) -> bool {
        self.open_batch
    }

    /// Whether the server process owes nothing, and looks at whatever is sent next.
    pub fn is_at_rest(&self) -> bool {
        self.entries.is_empty() && self.phase == Phase::Ready
    }

    /// Whether the server process is ready for anybody: nor is a transaction open.
    pub fn is_free(&self) -> bool {
        self.is_at_rest() && self.status == Status::Idle
    }

    /// Whether nothing of the client is under way, not even a transaction.
    pub fn is_quiet(&self) -> bool {
        self.is_free() && !self.open_batch
    }

    /// Whether a COPY is under way among whose data a Sync has come.
    pub fn has_sync_in_copy(&self) -> bool {
        self.phase.is_copying() && self.copied == Copied::DataAndSync
    }
}

/// What is under way to names and statements.
impl Replies {
    /// Tells messages that an error makes the server skip together from those of another batch.
    pub fn batch(&self) -> u32 {
        self.batch
    }

    /// What messages under way make of this name, which is nothing when they close it; `None` when they leave it alone.
    pub fn change(&self, name: &[u8]) -> Option<Option<&Arc<Statement>>> {
        self.changes.newest(name).map(|meaning| meaning.statement.as_ref())
    }

    pub fn changes_len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it depends on replies that have not come what a name means: in the batch at hand an error would make the
    /// server skip what uses the name as well, but not in a later one.
    pub fn is_unsettled(&self, name: &[u8]) -> bool {
        !self.phase.is_copying() && self.changes.newest(name).is_some_and(|meaning| meaning.batch != self.batch)
    }

    /// Whether the server will hold a statement, of which `held` tells what is known by its replies. `doubtful` = all may
    /// be gone.
    pub fn presence(&self, id: u64, held: bool, doubtful: bool) -> Presence {
        self.sent.presence(id, held, self.batch, doubtful)
    }

    /// What messages under way do to the statements that the server holds.
    pub fn sent(&self) -> &StatementsUnderWay {
        &self.sent
    }

    /// Whether a message of ours about a client's own name of a statement is under way.
    pub fn has_own(&self, name: &[u8]) -> bool {
        self.ours.as_ref().is_some_and(|ours| ours.names.newest(name).is_some())
    }

    /// Whether the server is being asked what this statement gives.
    pub fn asks_of(&self, id: u64) -> bool {
        self.ours.as_ref().is_some_and(|ours| ours.asked.newest(&id).is_some())
    }
}
