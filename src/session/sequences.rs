//! What currval() and lastval() tell lives on one server connection, and nothing tells which statements draw from a
//! sequence: a default of a column or a trigger may. So a session that has never asked for it keeps nothing, and a session
//! that has asked keeps its server connection from its next draw on. Nobody is ever told a stranger's value: who asks gets
//! a connection on which others' values are forgotten.

use super::{Outboxes, Pipeline, ServerState, Session, pipeline::Owed};
use crate::{
    sql::{Pin, Reason, Verdict},
    wire::{reply::Status, request},
};

/// Makes a server forget all values of sequences.
pub(super) const FORGET: &str = "DISCARD SEQUENCES;";

/// Whose values of sequences a server connection may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drawn {
    #[default]
    Nobodys,
    /// Those of the session with this number.
    Of(u64),
    /// Those of more than one session.
    Several,
}

impl Drawn {
    fn add(&mut self, session: u64) {
        *self = match *self {
            Drawn::Nobodys => Drawn::Of(session),
            Drawn::Of(before) if before == session => Drawn::Of(session),
            Drawn::Of(_) | Drawn::Several => Drawn::Several,
        };
    }

    fn is_strange_to(self, session: u64) -> bool {
        !matches!(self, Drawn::Nobodys) && self != Drawn::Of(session)
    }
}

impl Session {
    /// The first statement has come that asks for values. On a connection where the session itself has drawn, what others
    /// have left stays, since its own values would go with it.
    pub(super) fn ask_sequences(
        &mut self,
        pipeline: &mut Pipeline,
        server: Option<&mut ServerState>,
        out: &mut Outboxes<'_>,
    ) {
        self.asks_sequences = true;
        let Some(server) = server else { return };
        let is_free = pipeline.status == Status::Idle && pipeline.owed.is_empty() && !pipeline.has_open_batch();
        if is_free && !self.drew && self.forgets_strange_draws(server) {
            request::query(FORGET, out.to_server);
            server.unnamed = None;
            pipeline.push(Owed::Replay { settings: server.settings.clone() });
        }
    }

    /// Whether the server has to forget what others have drawn before anything else is sent, since the session may ask for
    /// it; if so, [`FORGET`] must be sent.
    pub(super) fn forgets_strange_draws(&self, server: &mut ServerState) -> bool {
        let forgets = self.asks_sequences && server.drawn.is_strange_to(self.number);
        if forgets {
            server.drawn = Drawn::Nobodys;
        }
        forgets
    }

    /// A transaction has ended.
    pub(super) fn note_draws(&mut self, server: &mut ServerState) {
        if self.wrote {
            server.drawn.add(self.number);
        }
        if self.asks_sequences && self.drew {
            self.pins.insert(Pin::Sequence);
        }
    }

    /// DISCARD has taken all values.
    pub(super) fn forget_draws(&mut self, server: &mut ServerState) {
        server.drawn = Drawn::Nobodys;
        self.drew = false;
        self.pins.remove(Pin::Sequence);
    }
}

/// Whether a statement may draw from a sequence: it adds rows, or runs code that is not seen here.
pub(super) fn may_draw(verdict: &Verdict) -> bool {
    verdict.is_opaque()
        || verdict.statements > 1
        || match &verdict.reason {
            Reason::Statement(kind) => matches!(&**kind, "Insert" | "Copy" | "Merge" | "Execute"),
            Reason::WritingPart(_) => true,
            Reason::VolatileFunction(name) => matches!(&**name, "nextval" | "setval"),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::judge;

    #[test]
    fn values_of_one_session_stay_its_own_until_another_draws() {
        let mut drawn = Drawn::default();
        assert!(!drawn.is_strange_to(1));
        drawn.add(1);
        drawn.add(1);
        assert!(!drawn.is_strange_to(1) && drawn.is_strange_to(2));
        drawn.add(2);
        assert!(drawn.is_strange_to(1) && drawn.is_strange_to(2));
    }

    #[test]
    fn what_may_draw() {
        for sql in ["INSERT INTO t VALUES (1)", "SELECT nextval('s')", "COPY t FROM STDIN", "SELECT f()", "CALL p()"] {
            assert!(may_draw(&judge(sql)), "{sql}");
        }
        for sql in ["UPDATE t SET a = 1", "SELECT lastval()", "SET work_mem = '1MB'", "BEGIN"] {
            assert!(!may_draw(&judge(sql)), "{sql}");
        }
        assert!(judge("SELECT lastval() + 1").asks_sequences && judge("SELECT currval('s')").asks_sequences);
        assert!(!judge("SELECT nextval('s')").asks_sequences);
    }
}
