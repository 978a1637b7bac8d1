//! What currval() and lastval() tell lives on one server connection, and nothing tells which statements draw from a
//! sequence: a default of a column or a trigger may. So a session that has never asked for it keeps nothing, and a session
//! that has asked keeps its server connection from its next draw on. One that may ask for the first time, since it has
//! drawn a few times only or others of its database have asked, draws where strangers' values are forgotten, and keeps
//! its connection for a moment, in case its next statement asks ([`Session::lingers`]).
//! Nobody is ever told a stranger's value, or one of its own that it has drawn elsewhere since: who asks gets a connection
//! on which such values are forgotten.

use super::{Need, Outboxes, Pipeline, ServerState, Session, ask::ask_ours, owed::Owed, pipeline::Judged};
use crate::{
    sql::{Fact, Pin, Verdict},
    wire::reply::Status,
};

/// Makes a server forget all values of sequences.
pub(super) const FORGET: &str = "DISCARD SEQUENCES;";

/// A session for which something was done so often in vain is not expected to ask, unless others of its database have.
const UNASKED_MAX: u8 = 64;

/// Whose values of sequences a server connection may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drawn {
    #[default]
    Nobodys,
    /// Those of one session.
    Of {
        /// Its number.
        session: u64,
        /// Which of its draws was the last one here; from 1 on, 0 for statements that may have drawn unseen only.
        draw: u32,
    },
    /// Those of more than one session.
    Several,
}

impl Drawn {
    /// The session may have drawn here; with the number of the draw when a statement may that is known for it.
    fn add(&mut self, session: u64, draw: Option<u32>) {
        *self = match *self {
            Drawn::Nobodys => Drawn::Of { session, draw: draw.unwrap_or(0) },
            Drawn::Of { session: before, draw: last } if before == session => {
                Drawn::Of { session, draw: draw.unwrap_or(last) }
            }
            Drawn::Of { .. } | Drawn::Several => Drawn::Several,
        };
    }

    fn is_strange_to(self, session: u64) -> bool {
        match self {
            Drawn::Nobodys => false,
            Drawn::Of { session: whose, .. } => whose != session,
            Drawn::Several => true,
        }
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
        self.note_asks_sequences();
        let Some(server) = server else { return };
        let is_free =
            pipeline.owed.status() == Status::Idle && pipeline.owed.is_empty() && !pipeline.owed.has_open_batch();
        if is_free && !self.drew && self.meets_draws(pipeline.lent_for, pipeline, server) {
            let owed = Owed::Replay { settings: server.settings.clone(), may_fail: false };
            ask_ours(FORGET.as_bytes(), owed, pipeline, server, out);
        }
    }

    pub(super) fn note_asks_sequences(&mut self) {
        self.asks_sequences = true;
        self.shared.code.note_asks_sequences();
    }

    /// Whether the session asks for values of sequences.
    pub fn asks_sequences(&self) -> bool {
        self.asks_sequences
    }

    /// Whether the session, which lets go of its server connection, may ask there for what it has drawn.
    pub fn lingers(&self) -> bool {
        self.lingers
    }

    /// A server connection has been lent. Whether it has to forget what was drawn there before anything else is sent, since
    /// the session may ask for values: those of others, or its own that are not its last. If so, [`FORGET`] must be sent.
    pub(super) fn meets_draws(&mut self, need: Need, pipeline: &Pipeline, server: &mut ServerState) -> bool {
        let draws_here = server.drawn == Drawn::Of { session: self.number, draw: self.draws };
        if self.asks_sequences && draws_here && self.draws > 0 {
            // They are here still, and are kept from now on.
            self.drew = true;
            return false;
        }
        let forgets = if self.asks_sequences {
            server.drawn != Drawn::Nobodys && !draws_here
        } else {
            // It may draw now, and ask then.
            let draws = match &pipeline.judged {
                Some(Judged::Query(verdict)) => may_draw(verdict),
                Some(Judged::Parse(statement)) => may_draw(&statement.verdict),
                None => true,
            };
            let draws = draws || self.in_waiting_block();
            let forgets = draws && need == Need::Write && server.drawn.is_strange_to(self.number) && self.may_ask();
            self.unasked = self.unasked.saturating_add(u8::from(forgets));
            forgets
        };
        if forgets {
            server.drawn = Drawn::Nobodys;
        }
        forgets
    }

    /// A transaction has ended.
    pub(super) fn note_draws(&mut self, server: &mut ServerState) {
        if self.drew {
            self.draws = self.draws.wrapping_add(1).max(1);
        }
        if self.wrote {
            server.drawn.add(self.number, self.drew.then_some(self.draws));
        }
        if self.asks_sequences && self.drew {
            self.pins.add(Pin::Sequence);
        }
        self.lingers = self.drew && !self.asks_sequences && self.may_ask();
        self.unasked = self.unasked.saturating_add(u8::from(self.lingers));
    }

    fn may_ask(&self) -> bool {
        self.unasked < UNASKED_MAX || self.shared.code.asks_sequences()
    }

    /// DISCARD has taken all values.
    pub(super) fn forget_draws(&mut self, server: &mut ServerState) {
        server.drawn = Drawn::Nobodys;
        self.drew = false;
        self.draws = 0;
        self.pins.remove(Pin::Sequence);
    }
}

/// Whether a statement may draw from a sequence: it adds rows, or runs code that is not seen here.
pub(super) fn may_draw(verdict: &Verdict) -> bool {
    verdict.is_opaque() || verdict.does(Fact::DrawsSequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::judge;

    #[test]
    fn values_of_one_session_stay_its_own_until_another_draws() {
        let mut drawn = Drawn::default();
        assert!(!drawn.is_strange_to(1));
        drawn.add(1, None);
        assert_eq!(drawn, Drawn::Of { session: 1, draw: 0 });
        drawn.add(1, Some(3));
        drawn.add(1, None);
        assert_eq!(drawn, Drawn::Of { session: 1, draw: 3 });
        assert!(!drawn.is_strange_to(1) && drawn.is_strange_to(2));
        drawn.add(2, Some(1));
        assert!(drawn.is_strange_to(1) && drawn.is_strange_to(2));
    }

    #[test]
    fn what_may_draw() {
        for sql in [
            "INSERT INTO t VALUES (1)",
            "SELECT nextval('s')",
            "SELECT random(), nextval('s')",
            "SELECT current_setting('a'), setval('s', 1)",
            "UPDATE t SET a = DEFAULT",
            "BEGIN; INSERT INTO t VALUES (1); COMMIT",
            "COPY t FROM STDIN",
            "SELECT f()",
            "CALL p()",
        ] {
            assert!(may_draw(&judge(sql)), "{sql}");
        }
        for sql in ["UPDATE t SET a = 1", "SELECT lastval()", "SET work_mem = '1MB'", "BEGIN"] {
            assert!(!may_draw(&judge(sql)), "{sql}");
        }
        let asks = |sql: &str| judge(sql).does(Fact::AsksSequence);
        assert!(asks("SELECT lastval() + 1") && asks("SELECT currval('s')"));
        assert!(!asks("SELECT nextval('s')"));
    }
}
