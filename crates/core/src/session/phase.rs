//! Where the server process is in the protocol: what it will do with the next message, once it has read all that was sent.
//!
//! PostgreSQL keeps little from one message to the next (its `PostgresMain` and `SocketBackend`), and all of it is here. It
//! is fed by what is really sent and by replies, and it alone decides what a message will come to, and whether the server
//! process is ready for anybody:
//!
//! | it is          | because                                        | and then                                                     |
//! |----------------|------------------------------------------------|--------------------------------------------------------------|
//! | ready          | nothing of a batch is open                     | every message is answered; in a function call or a query it reads nothing before that is done |
//! | in a batch     | extended messages came, and no Sync            | an implicit transaction is open; a Query or Sync ends it, and commits it |
//! | skipping       | a message of a batch failed, and no Sync came  | everything but Sync is dropped, a Query as well, unanswered  |
//! | in COPY        | it has asked for data                          | data and its end are taken, Sync and Flush are ignored, anything else ends the process |
//! | astray         | it has said what nobody asked for              | nobody knows                                                 |
//!
//! A Query or FunctionCall that fails is answered with ReadyForQuery, also inside of an open batch; only what fails in a
//! message of the extended protocol, malformed ones and COPY by Execute among them, makes the server skip.

use super::{Outboxes, Replies, owed::Owed};
use crate::wire::{
    error::{Report, SqlState},
    frame::ClientMessage,
    request::{self, Parse},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    #[default]
    Ready,
    Batch,
    Skipping,
    Copying {
        /// It was begun by Execute, so that a batch is open.
        batch: bool,
    },
    Astray,
}

/// What becomes of a message that is sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is looked at.
    Taken,
    /// It is dropped without an answer.
    Dropped,
    /// It ends the server process, which has lost its place among the messages.
    Fatal,
}

impl Phase {
    /// What becomes of a message that is sent now.
    #[inline]
    pub fn fate(self, request: ClientMessage) -> Fate {
        let of_copy = matches!(request, ClientMessage::CopyData | ClientMessage::CopyDone | ClientMessage::CopyFail);
        match self {
            Phase::Skipping if request != ClientMessage::Sync => Fate::Dropped,
            Phase::Copying { .. } if of_copy => Fate::Taken,
            Phase::Copying { .. } if matches!(request, ClientMessage::Sync | ClientMessage::Flush) => Fate::Dropped,
            Phase::Copying { .. } => Fate::Fatal,
            _ => Fate::Taken,
        }
    }

    /// After a message that is sent: the one for which this is owed.
    #[inline]
    pub(super) fn sent(self, owed: &Owed) -> Phase {
        match self {
            Phase::Astray => Phase::Astray,
            Phase::Skipping if owed.syncs() => Phase::Ready,
            Phase::Skipping => Phase::Skipping,
            Phase::Copying { batch } if matches!(owed, Owed::CopyEnd) => Phase::after_copy(batch),
            _ if owed.ends_with_ready() => Phase::Ready,
            // These are no messages, or none that is looked at now.
            _ if matches!(owed, Owed::CopyEnd) || owed.is_known() => self,
            _ => Phase::Batch,
        }
    }

    /// COPY ends, or has never begun.
    pub(super) fn after_copy(batch: bool) -> Phase {
        if batch { Phase::Batch } else { Phase::Ready }
    }

    pub fn is_copying(self) -> bool {
        matches!(self, Phase::Copying { .. })
    }
}

impl Replies {
    /// What a server connection is waited for, in words for operators: nothing of what clients have said.
    pub fn waits_for(&self) -> String {
        let first = self.front().map_or_else(String::new, |owed| format!("{owed:?}"));
        let first = first.split([' ', '(']).next().unwrap_or_default();
        let (count, phase, status, holding) = (self.len(), self.phase(), self.status(), self.is_holding());
        format!("{count} answers, the first {first:?}; {phase:?}, {status:?}, holding: {holding}")
    }

    /// The client has left, and all that it had said has been looked at: says in its place what lets the server come to
    /// rest, if anything has to be said now. As on a direct connection, nothing is committed that it has not ended itself.
    ///
    /// To be called again whenever the server has answered: each call leaves less open than there was.
    pub fn say_last(&mut self, out: &mut Outboxes<'_>) -> bool {
        match self.phase() {
            Phase::Ready | Phase::Astray => return false,
            Phase::Copying { .. } => {
                request::copy_fail("the client has left", out.to_server);
                self.end_copy();
                return true;
            }
            Phase::Skipping => {}
            Phase::Batch => {
                if self.iter().any(|owed| matches!(owed, Owed::Execute { .. })) {
                    // It may be a COPY that has not begun yet; outside of one this is ignored.
                    request::copy_fail("the client has left", out.to_server);
                    self.push(Owed::CopyEnd);
                }
                // A Sync alone would commit.
                Parse { name: b"", sql: b"refused by Poolhouse", types: b"\0\0" }.write(b"", out.to_server);
                let report = Report::error(SqlState::QUERY_CANCELED, "the client has left");
                self.push(Owed::Refused { report: Box::new(report) });
            }
        }
        request::sync(out.to_server);
        self.push(Owed::Sync);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Called;

    const ALL: [Phase; 6] = [
        Phase::Ready,
        Phase::Batch,
        Phase::Skipping,
        Phase::Copying { batch: false },
        Phase::Copying { batch: true },
        Phase::Astray,
    ];

    #[test]
    fn a_server_that_skips_drops_a_query_and_only_a_sync_ends_that() {
        let query = Owed::Query { drops_unnamed: false, called: Called::default() };
        assert_eq!(Phase::Skipping.fate(ClientMessage::Query), Fate::Dropped);
        assert_eq!(Phase::Skipping.sent(&query), Phase::Skipping);
        assert_eq!(Phase::Skipping.fate(ClientMessage::Sync), Fate::Taken);
        assert_eq!(Phase::Skipping.sent(&Owed::Sync), Phase::Ready);
        assert_eq!(Phase::Batch.sent(&query), Phase::Ready);
    }

    #[test]
    fn copy_takes_its_data_and_its_end_and_ignores_sync() {
        for batch in [false, true] {
            let copying = Phase::Copying { batch };
            assert_eq!(copying.fate(ClientMessage::CopyData), Fate::Taken);
            assert_eq!(copying.fate(ClientMessage::Sync), Fate::Dropped);
            assert_eq!(copying.fate(ClientMessage::Flush), Fate::Dropped);
            for request in [
                ClientMessage::Query,
                ClientMessage::Parse,
                ClientMessage::Bind,
                ClientMessage::Close,
                ClientMessage::FunctionCall,
            ] {
                assert_eq!(copying.fate(request), Fate::Fatal, "{request:?}");
            }
            assert_eq!(copying.sent(&Owed::CopyEnd), Phase::after_copy(batch));
        }
    }

    #[test]
    fn what_is_no_message_changes_nothing() {
        for phase in ALL {
            assert_eq!(phase.sent(&Owed::CloseKnown), phase);
        }
        assert_eq!(Phase::Ready.sent(&Owed::CopyEnd), Phase::Ready);
        assert_eq!(Phase::Astray.sent(&Owed::Sync), Phase::Astray);
    }
}
