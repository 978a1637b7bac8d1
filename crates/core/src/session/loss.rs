//! A server connection was lost while it was lent: what the client is told, and whether it can go on.
//!
//! The rule. On a direct connection a server's FATAL error is the last thing that a client sees, whatever it was doing.
//! Behind Poolhouse that holds for every FATAL error that is about the *connection*: the client gets the server's words as
//! they are, and is disconnected. When the *node* is going down, sessions go on instead (docs/architecture.md, "Promises",
//! 3): what was in flight gets an ERROR that says whether it may have been committed. Which of the two it is:
//!
//! | what the server said                                                     | the connection or the node |
//! |--------------------------------------------------------------------------|----------------------------|
//! | nothing, or a warning that it ends at once: the socket just closed       | the node                   |
//! | 57P02 crash of another process, 57P03 not accepting connections          | the node                   |
//! | 57P01 `pg_terminate_backend`, a shutdown, or the death of the postmaster | the node's answer to a login tells ([`Ending::Unclear`]) |
//! | anything else: idle_in_transaction_session_timeout (25P03), transaction_timeout (25P04), idle_session_timeout (57P05), a dropped database (57P04), a conflict with recovery, out of memory, … | the connection |
//!
//! A server that shuts down refuses logins before it tells its connections to end, so the question has a sure answer.
//! Where state of the session is gone with the connection (pins, session mode) the client is disconnected either way. A
//! client that holds no server connection is not concerned by what becomes of one: an `idle_session_timeout` of the server
//! ends connections that idle in the pool, not the clients in front of it (`client_idle_timeout` does that).

use super::{Mode, Outboxes, Phase, Pipeline, Session, owed::Owed, replies::Done};
use crate::wire::{
    ErrorFields,
    error::{Report, SqlState},
    reply::{self, Status},
};

/// How a server connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss<'a> {
    /// The node, for the message.
    pub node: &'a str,
    /// Part of a message has already gone to the client, so nothing else can follow it.
    pub mid_message: bool,
    /// The server has ended only this connection, and goes on itself.
    pub alone: bool,
}

/// What the end of a server connection says about its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The node goes on: only this connection was ended.
    Connection,
    /// The node is going down, or may be.
    Node,
    /// It is one or the other, and the node's answer to a login tells which.
    Unclear,
}

impl Pipeline {
    fn last_words(&self) -> Option<&ErrorFields> {
        self.seldom()?.last_words.as_ref()
    }

    /// What the server's last words say about its node.
    pub fn ending(&self) -> Ending {
        match self.last_words().filter(|words| words.is_fatal()).map(ErrorFields::code) {
            None | Some("57P02" | "57P03") => Ending::Node,
            Some("57P01") => Ending::Unclear,
            Some(_) => Ending::Connection,
        }
    }
}

impl Pipeline {
    /// Whether the server connection was ended because a transaction was in the way of replication: on the primary it would
    /// not have been (manual, "Handling Query Conflicts").
    pub fn was_in_the_way(&self) -> bool {
        self.last_words().is_some_and(|words| words.is_fatal() && words.code() == "40001")
    }
}

/// What becomes of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterLoss {
    /// It has its errors, and may go on with another server connection.
    GoesOn,
    /// Its state is lost with the server connection, or it could not be told: it is disconnected.
    Ends,
}

impl Session {
    /// The lent server connection is gone. Every statement under way gets an error that says whether it may have been
    /// committed; the session itself goes on, unless it had state that only this connection held.
    pub fn on_loss(&mut self, loss: Loss<'_>, pipeline: &mut Pipeline, out: &mut Outboxes<'_>) -> AfterLoss {
        if loss.mid_message {
            return AfterLoss::Ends;
        }
        if let Some(warning) = pipeline.take(|seldom| &mut seldom.farewell) {
            warning.write(b'N', out.to_client);
        }
        let words = pipeline.take(|seldom| &mut seldom.last_words);
        if loss.alone
            && let Some(words) = words
        {
            words.write(b'E', out.to_client);
            return AfterLoss::Ends;
        }
        // What a replica ran only reads, and what is not earnest is asked out of caution: the session goes on.
        let asks = pipeline.owed.iter().any(|owed| matches!(owed, Owed::Probe { .. }));
        let probing = asks && pipeline.effects.earnest && !pipeline.is_read_only();
        if self.is_pinned_otherwise() || self.listens_here_only() || probing {
            write_error(&words, &self.report(loss.node, pipeline), true, out.to_client);
            return AfterLoss::Ends;
        }
        self.lose_listening_server();
        self.lose_block();
        self.end_own(false);
        pipeline.owed.owe_what_is_waited_for();
        if pipeline.owed.iter().all(Owed::is_ours) {
            if pipeline.owed.phase() == Phase::Skipping {
                self.skip_to_sync = true;
            } else if pipeline.owed.status() != Status::Idle || pipeline.owed.has_open_batch() {
                self.lost = Some(Box::new(self.report(loss.node, pipeline)));
            }
            return AfterLoss::GoesOn;
        }
        let report = self.report(loss.node, pipeline);
        // An error of the current message has been passed on already.
        let mut told = pipeline.failed;
        let mut skipping = false;
        while let Some(Done { owed, .. }) = pipeline.owed.pop() {
            // As the server does: after an error in an extended query only Sync is answered.
            if owed.is_ours() || skipping && !matches!(owed, Owed::Sync) {
                continue;
            }
            if !told && !skipping {
                write_error(&words, &report, false, out.to_client);
            }
            told = false;
            skipping = !owed.ends_the_clients();
            if !skipping {
                reply::ready_for_query(Status::Idle, out.to_client);
            }
        }
        self.skip_to_sync = skipping;
        AfterLoss::GoesOn
    }

    fn report(&self, node: &str, pipeline: &Pipeline) -> Report {
        let idle = pipeline.owed.iter().all(Owed::is_ours) && pipeline.owed.status() == Status::Idle;
        if idle && !pipeline.owed.has_open_batch() {
            // A session that keeps its connection between transactions: all that it has done is done.
            let report =
                Report::error(SqlState::CONNECTION_LOST, format!("the connection to the server {node} was lost"));
            return report
                .detail("No statement or transaction was under way.")
                .hint("The session's state was lost with it; connect again.");
        }
        let fate = if !self.wrote() {
            "Nothing was written by the statement."
        } else if pipeline.effects.may_commit {
            "The transaction may or may not have been committed."
        } else {
            "The transaction was not committed."
        };
        let report = Report::error(
            SqlState::CONNECTION_LOST,
            format!("the connection to the server {node} was lost while a statement or transaction was under way"),
        )
        .detail(fate);
        if self.shared.mode == Mode::Session || self.is_pinned() {
            return report.hint("The session's state was lost with it; connect again.");
        }
        report.hint("The session itself goes on; run the transaction again if its effect is missing.")
    }
}

/// The server's own last words when there are any; a session that goes on must not be told that it ends.
fn write_error(words: &Option<ErrorFields>, report: &Report, fatal: bool, to_client: &mut Vec<u8>) {
    match words {
        Some(words) => {
            let mut words = words.clone();
            if words.is_fatal() != fatal {
                words.set_severity(if fatal { "FATAL" } else { "ERROR" });
            }
            if words.text(b'D').is_none() {
                words.fields.push((b'D', report.detail.clone().unwrap_or_default().into_bytes()));
            }
            words.write(b'E', to_client);
        }
        None => Report { fatal, ..report.clone() }.write(to_client),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{session::Shared, sql::Called, wire::header};

    fn words(severity: &str, code: &str) -> ErrorFields {
        let text = |text: &str| text.as_bytes().to_vec();
        // The severity that people read is in the server's language.
        let fields = vec![(b'S', text("FATALE")), (b'V', text(severity)), (b'C', text(code)), (b'M', text("così"))];
        ErrorFields { fields }
    }

    #[test]
    fn the_last_words_tell_what_has_ended() {
        let ending = |words: Option<ErrorFields>| {
            let mut pipeline = Pipeline::default();
            pipeline.seldom_mut().last_words = words;
            pipeline.ending()
        };
        assert_eq!(ending(None), Ending::Node);
        assert_eq!(ending(Some(words("FATAL", "57P02"))), Ending::Node);
        assert_eq!(ending(Some(words("PANIC", "57P03"))), Ending::Node);
        assert_eq!(ending(Some(words("FATAL", "57P01"))), Ending::Unclear);
        for code in ["25P03", "25P04", "57P04", "57P05", "53200", "40001", "08P01"] {
            assert_eq!(ending(Some(words("FATAL", code))), Ending::Connection, "{code}");
        }
        // The error of a query of ours is nobody's last word.
        assert_eq!(ending(Some(words("ERROR", "57014"))), Ending::Node);
    }

    /// What a client is told whose query was under way.
    fn told(alone: bool) -> (AfterLoss, Vec<u8>) {
        told_under(Owed::Query { drops_unnamed: false, called: Called::default() }, alone)
    }

    fn told_under(way: Owed, alone: bool) -> (AfterLoss, Vec<u8>) {
        let mut pipeline = Pipeline::default();
        pipeline.seldom_mut().last_words = Some(words("FATAL", "57P01"));
        told_with(pipeline, way, alone)
    }

    fn told_with(mut pipeline: Pipeline, way: Owed, alone: bool) -> (AfterLoss, Vec<u8>) {
        let shared = Shared {
            mode: Mode::Transaction,
            statements_max: 1,
            on_pin: crate::session::OnPin::Allow,
            reads_until_write: false,
            lists: None,
            nodes: Arc::default(),
            statements: Arc::default(),
            code: Arc::default(),
        };
        let mut session = Session::new(Arc::new(shared), Arc::default(), Arc::default());
        pipeline.owed.push(way);
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
        let after = session.on_loss(Loss { node: "n", mid_message: false, alone }, &mut pipeline, &mut out);
        (after, to_client)
    }

    #[test]
    fn a_connection_ends_in_the_servers_words_and_a_node_does_not_end_sessions() {
        let (after, bytes) = told(true);
        let mut verbatim = Vec::new();
        words("FATAL", "57P01").write(b'E', &mut verbatim);
        assert_eq!((after, bytes), (AfterLoss::Ends, verbatim));

        let (after, bytes) = told(false);
        let error = header(&bytes).unwrap().unwrap();
        let fields = ErrorFields::read(&bytes[5..error.message()]);
        assert_eq!(after, AfterLoss::GoesOn);
        assert_eq!((fields.text(b'V'), fields.code(), fields.message()), (Some("ERROR"), "57P01", "così"));
        assert_eq!(&bytes[error.message()..], b"Z\0\0\0\x05I");
    }

    #[test]
    fn the_warning_of_a_server_that_ends_at_once_comes_before_the_error_and_not_without_it() {
        let mut pipeline = Pipeline::default();
        pipeline.seldom_mut().farewell = Some(words("WARNING", "57P02"));
        let (after, bytes) =
            told_with(pipeline, Owed::Query { drops_unnamed: false, called: Called::default() }, false);
        let warning = header(&bytes).unwrap().unwrap();
        assert_eq!((after, warning.tag), (AfterLoss::GoesOn, b'N'));
        assert_eq!(ErrorFields::read(&bytes[5..warning.message()]), words("WARNING", "57P02"));
        let error = &bytes[warning.message()..];
        let head = header(error).unwrap().unwrap();
        assert_eq!((head.tag, ErrorFields::read(&error[5..head.message()]).code()), (b'E', "08006"));
    }

    #[test]
    fn a_batch_that_was_to_be_sent_once_more_is_answered() {
        let (after, bytes) = told_under(Owed::Again, false);
        assert_eq!((after, bytes), told(false));
    }
}
