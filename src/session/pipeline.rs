//! What replies a server still owes, in order, and to whom.
//!
//! Every message that makes a server answer adds an entry at the back; the answer that completes it takes it from the
//! front. Entries of our own (replayed settings, injected Parse messages) are in the same queue, so a reply's owner is
//! never guessed.

use std::{collections::VecDeque, sync::Arc};

use super::{
    carried::{Answer, Carried, Probe},
    statements::Statement,
};
use crate::{
    sql::{PinSet, Verdict},
    wire::{ErrorFields, reply::Status},
};

/// Most replies outstanding before no more is read from a client: a bound on memory, far above what clients pipeline.
pub const OWED_MAX: usize = 100_000;

/// One reply, or one group of replies, that the server owes.
#[derive(Debug)]
pub enum Owed {
    /// A simple query or function call of the client: answered up to and with ReadyForQuery.
    Query,
    /// The client's Sync: ReadyForQuery.
    Sync,
    /// The client's Parse, sent on: ParseComplete makes the name valid.
    Parse {
        name: Box<[u8]>,
        statement: Option<Arc<Statement>>,
    },
    /// The client's Parse, not sent since the server holds the statement: ParseComplete from us.
    ParseKnown {
        name: Box<[u8]>,
        statement: Arc<Statement>,
    },
    Bind,
    /// Describe of a statement or portal: RowDescription or NoData ends it.
    Describe,
    /// CommandComplete, EmptyQueryResponse or PortalSuspended ends it; so does CopyDone's CommandComplete.
    Execute,
    /// The client's Close, sent on.
    Close,
    /// The client's Close of a name that the server does not know: CloseComplete from us. What it removed comes back
    /// when an error makes the server skip it.
    CloseKnown {
        name: Box<[u8]>,
        statement: Option<Arc<Statement>>,
    },
    /// The client's CopyDone or CopyFail: no reply of its own, but Syncs before it do not count during COPY.
    CopyEnd,
    /// A Parse of ours: the server lacked a statement that the client has; under our name, or as the unnamed one.
    OurParse {
        id: u64,
        unnamed: bool,
    },
    /// A Close of ours: room for another statement.
    OurClose {
        id: u64,
    },
    /// A query of ours that brings the session's settings.
    Replay {
        settings: Arc<Carried>,
    },
    /// A query of ours that asks what the session has become.
    Probe {
        probe: Probe,
    },
}

impl Owed {
    /// Whether a ReadyForQuery answers it.
    pub fn ends_with_ready(&self) -> bool {
        matches!(self, Owed::Query | Owed::Sync | Owed::Replay { .. } | Owed::Probe { .. })
    }

    /// Whether the ReadyForQuery is for the client.
    pub fn ends_the_clients(&self) -> bool {
        matches!(self, Owed::Query | Owed::Sync)
    }

    /// Whether the client must not see the reply.
    pub fn is_ours(&self) -> bool {
        matches!(self, Owed::OurParse { .. } | Owed::OurClose { .. } | Owed::Replay { .. } | Owed::Probe { .. })
    }
}

/// What the statements since the last release may have done.
#[derive(Debug, Default)]
pub struct Effects {
    pub probe: Probe,
    /// Settings that were RESET and not set again.
    pub reset: Vec<Box<str>>,
    pub reset_all: bool,
    /// State that the server cannot tell of, by the verdicts of what was sent.
    pub pins: PinSet,
    /// The end of a transaction, or a write outside a block, was sent and is not answered yet.
    pub may_commit: bool,
}

impl Effects {
    pub fn reset(&mut self) {
        self.may_commit = false;
        if self.is_dirty() || self.reset_all || !self.reset.is_empty() {
            *self = Effects::default();
        }
    }

    /// Whether the server connection may carry state that is not known.
    pub fn is_dirty(&self) -> bool {
        self.probe != Probe::Nothing || !self.pins.is_empty()
    }
}

/// The state of one conversation between a client and the server connection that it holds now.
#[derive(Debug, Default)]
pub struct Pipeline {
    pub owed: VecDeque<Owed>,
    /// As the last ReadyForQuery said.
    pub status: Status,
    /// How many entries of the client in `owed` end with ReadyForQuery.
    pub ready_owed: usize,
    /// The server has reported an error in an extended query and skips everything up to a Sync that the client has not
    /// sent yet.
    pub skipping: bool,
    /// COPY FROM STDIN runs in the extended protocol: the server ignores Sync and Flush.
    pub copy_in: bool,
    /// Names that Parse messages in `owed` will make valid.
    pub pending: Vec<(Box<[u8]>, Arc<Statement>)>,
    /// An error has been seen since the last ReadyForQuery.
    pub failed: bool,
    /// Nothing of the client may be sent until a reply to us has come.
    pub holding: bool,
    pub effects: Effects,
    pub answer: Answer,
    /// What the server said before it closed the connection.
    pub last_words: Option<ErrorFields>,
    /// The server connection may only read: the node is a replica.
    pub read_only: bool,
    /// Messages of the client that were answered up to ReadyForQuery, to tell one statement from the next.
    pub turns: u32,
    /// Messages of the extended protocol were sent since the last Sync: their implicit transaction is open.
    open_batch: bool,
    /// The verdict of the message at hand, found before there was a server.
    pub judged: Option<Arc<Verdict>>,
}

impl Pipeline {
    pub fn push(&mut self, owed: Owed) {
        self.ready_owed += usize::from(owed.ends_the_clients());
        if !owed.is_ours() {
            self.open_batch = !owed.ends_the_clients();
        }
        self.owed.push_back(owed);
    }

    pub fn pop(&mut self) -> Option<Owed> {
        let owed = self.owed.pop_front()?;
        if owed.ends_the_clients() {
            self.ready_owed -= 1;
            self.turns = self.turns.wrapping_add(1);
        }
        Some(owed)
    }

    /// Whether the next reply belongs to the client; without an entry it belongs to nobody.
    #[inline]
    pub fn front_is_clients(&self) -> bool {
        self.owed.front().is_some_and(|owed| !owed.is_ours())
    }

    /// Whether anything of the client is under way; what we inject stands in front of what it is for.
    pub fn owes_client(&self) -> bool {
        self.owed.back().is_some_and(|owed| !owed.is_ours())
    }

    /// COPY FROM STDIN has begun for the Execute in front: Syncs that were sent before the end of the data are ignored
    /// by the server (manual, "COPY Operations").
    pub fn begin_copy_in(&mut self) {
        let end = self.owed.iter().position(|owed| matches!(owed, Owed::CopyEnd));
        self.copy_in = end.is_none();
        let before = end.unwrap_or(self.owed.len());
        let mut at = 0;
        self.owed.retain(|owed| {
            at += 1;
            !(at <= before && matches!(owed, Owed::Sync) || Some(at - 1) == end)
        });
        self.ready_owed = self.owed.iter().filter(|owed| owed.ends_the_clients()).count();
    }

    /// Whether an implicit transaction is open that the client has not ended by Sync yet.
    pub fn has_open_batch(&self) -> bool {
        self.open_batch
    }

    pub fn is_full(&self) -> bool {
        self.owed.len() >= OWED_MAX
    }

    /// The statement that a Parse under way will give this name.
    pub fn pending(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.pending.iter().rev().find(|(known, _)| **known == *name).map(|(_, statement)| statement)
    }

    /// Forgets everything but the room it takes, for the next client. Most of it is as new already.
    pub fn reset(&mut self) {
        self.owed.clear();
        self.pending.clear();
        self.ready_owed = 0;
        self.status = Status::Idle;
        (self.skipping, self.copy_in, self.failed, self.holding) = (false, false, false, false);
        (self.read_only, self.open_batch) = (false, false);
        self.effects.reset();
        self.judged = None;
        self.last_words = None;
        if !self.answer.settings.is_empty() || self.answer.pin.is_some() {
            self.answer = Answer::default();
        }
    }
}
