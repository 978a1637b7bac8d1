//! Where a session's settings are replayed: brought to a server connection that has been lent, in the same round trip as
//! what follows. The text that does it is made by [`Carried::replay`]; what comes of a refusal is in [`super::identity`].

use std::sync::Arc;

use super::{
    Carried, Need, Outboxes, Pipeline, ServerState, ServerStep, Session, ask::ask_ours, owed::Owed, sequences,
};

impl Session {
    /// A server connection has been lent: brings it the session's settings, in the same round trip as what follows, and
    /// tells the client of parameters that differ.
    pub fn attach(&mut self, pipeline: &mut Pipeline, server: &mut ServerState, need: Need, out: &mut Outboxes<'_>) {
        pipeline.lent_for = need;
        self.refused_read = None;
        (self.wrote, self.notified) = (false, false);
        self.draws.attach();
        self.on_replica = need == Need::Replica;
        // A standby that is to be serializable answers nothing more, not even to us.
        pipeline.unfit = matches!(need, Need::Replica | Need::Node(_)) && self.is_serializable();
        let forgets = self.meets_draws(need, pipeline, server);
        let settled = self.refused.is_none() && !forgets;
        if settled && Arc::ptr_eq(&server.settings, &self.settings) && Arc::ptr_eq(&server.reported, &self.reported) {
            return;
        }
        let wanted = self.wanted();
        let replay = server.settings.replay(&wanted);
        if replay.is_none() {
            // Equal by now: one copy serves this session and the connection, and is known to be the same by its address
            // when they meet again.
            server.settings = wanted.clone();
            self.note_brought(pipeline, server, out);
        }
        if forgets || replay.is_some() {
            let mut may_fail = false;
            let mut sql = String::from(if forgets { sequences::FORGET } else { "" });
            if let Some(replay) = replay {
                sql.push_str(&replay.sql);
                may_fail = replay.may_fail;
            }
            ask_ours(sql.as_bytes(), Owed::Replay { settings: wanted, may_fail }, pipeline, server, out);
        }
    }

    /// They are there.
    pub(super) fn on_replayed(
        &mut self,
        settings: Arc<Carried>,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        server.settings = settings;
        self.note_brought(pipeline, server, out);
        self.answer_known(pipeline, out.to_client);
        ServerStep::Swallow
    }
}
