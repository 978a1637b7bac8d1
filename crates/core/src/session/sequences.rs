//! What currval() and lastval() tell lives on one server connection, and nothing tells which statements draw from a
//! sequence: a default of a column or a trigger may. So a session that has never asked for it keeps nothing, and a session
//! that has asked keeps its server connection from its next draw on. One that may ask for the first time, since it has
//! drawn a few times only or others of its database have asked, draws where strangers' values are forgotten, and keeps
//! its connection for a moment, in case its next statement asks ([`Session::lingers`]).
//! Nobody is ever told a stranger's value, or one of its own that it has drawn elsewhere since: who asks gets a connection
//! on which such values are forgotten.

use super::{
    DatabaseCode, Need, Outboxes, Pipeline, ServerState, Session, ask::ask_ours, owed::Owed, pipeline::Judged,
};
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

/// Whether a session asks for values of sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Asking {
    #[default]
    No,
    /// It has just drawn, and may ask for the first time what it got.
    Perhaps,
    /// It has asked, so what it draws from now on keeps its server connection.
    Yes,
}

/// What one session has drawn.
#[derive(Debug, Default)]
pub(super) struct Draws {
    /// How often it has drawn, in transactions: which of its server connections has its last values.
    count: u32,
    /// Something was sent since the last release that may draw.
    now: bool,
    asking: Asking,
    /// How often others' values were forgotten, or its connection was kept, for a question that has not come yet.
    unasked: u8,
}

impl Draws {
    /// A server connection has been lent.
    pub fn attach(&mut self) {
        self.now = false;
    }

    /// A statement is sent that may draw, or may not.
    pub fn note(&mut self, may_draw: bool) {
        self.now |= may_draw;
    }

    /// The session asks for values.
    pub fn ask(&mut self, code: &DatabaseCode) {
        self.asking = Asking::Yes;
        code.note_asks_sequences();
    }

    pub fn are_asked_for(&self) -> bool {
        self.asking == Asking::Yes
    }

    /// The session meets what was `drawn` on a server connection, and may draw there itself. Whether all of that has to be
    /// forgotten before anything else is sent.
    fn meet(&mut self, session: u64, may_draw: impl FnOnce() -> bool, drawn: &mut Drawn, code: &DatabaseCode) -> bool {
        let draws_here = *drawn == Drawn::Of { session, draw: self.count };
        if self.are_asked_for() && draws_here && self.count > 0 {
            // They are here still, and are kept from now on.
            self.now = true;
            return false;
        }
        let forgets = if self.are_asked_for() {
            *drawn != Drawn::Nobodys && !draws_here
        } else {
            // It may draw now, and ask then.
            let forgets = may_draw() && drawn.is_strange_to(session) && self.may_ask(code);
            self.unasked = self.unasked.saturating_add(u8::from(forgets));
            forgets
        };
        if forgets {
            *drawn = Drawn::Nobodys;
        }
        forgets
    }

    /// A transaction has ended. Whether what it has drawn keeps the server connection.
    fn settle(&mut self, session: u64, wrote: bool, drawn: &mut Drawn, code: &DatabaseCode) -> bool {
        if self.now {
            self.count = self.count.wrapping_add(1).max(1);
        }
        if wrote {
            drawn.add(session, self.now.then_some(self.count));
        }
        if self.are_asked_for() {
            return self.now;
        }
        let may_ask = self.now && self.may_ask(code);
        self.asking = if may_ask { Asking::Perhaps } else { Asking::No };
        self.unasked = self.unasked.saturating_add(u8::from(may_ask));
        false
    }

    fn may_ask(&self, code: &DatabaseCode) -> bool {
        self.unasked < UNASKED_MAX || code.asks_sequences()
    }

    /// DISCARD has taken all values.
    fn discard(&mut self, drawn: &mut Drawn) {
        *drawn = Drawn::Nobodys;
        (self.now, self.count) = (false, 0);
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
        self.draws.ask(&self.shared.code);
        let Some(server) = server else { return };
        let is_free =
            pipeline.owed.status() == Status::Idle && pipeline.owed.is_empty() && !pipeline.owed.has_open_batch();
        if is_free && !self.draws.now && self.meets_draws(pipeline.lent_for, pipeline, server) {
            let owed = Owed::Replay { settings: server.settings.clone(), may_fail: false };
            ask_ours(FORGET.as_bytes(), owed, pipeline, server, out);
        }
    }

    /// Whether the session asks for values of sequences.
    pub fn asks_sequences(&self) -> bool {
        self.draws.are_asked_for()
    }

    /// Whether the session, which lets go of its server connection, may ask there for what it has drawn.
    pub fn lingers(&self) -> bool {
        self.draws.asking == Asking::Perhaps
    }

    /// A server connection has been lent. Whether it has to forget what was drawn there before anything else is sent, since
    /// the session may ask for values: those of others, or its own that are not its last. If so, [`FORGET`] must be sent.
    pub(super) fn meets_draws(&mut self, need: Need, pipeline: &Pipeline, server: &mut ServerState) -> bool {
        let waits = self.in_waiting_block();
        let draws = || match &pipeline.judged {
            _ if need != Need::Write => false,
            Some(Judged::Query(verdict)) => waits || may_draw(verdict),
            Some(Judged::Parse(statement)) => waits || may_draw(&statement.verdict),
            None => true,
        };
        self.draws.meet(self.number, draws, &mut server.drawn, &self.shared.code)
    }

    /// A transaction has ended.
    pub(super) fn note_draws(&mut self, server: &mut ServerState) {
        if self.draws.settle(self.number, self.wrote, &mut server.drawn, &self.shared.code) {
            self.pins.add(Pin::Sequence);
        }
    }

    /// DISCARD has taken all values.
    pub(super) fn forget_draws(&mut self, server: &mut ServerState) {
        self.draws.discard(&mut server.drawn);
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
