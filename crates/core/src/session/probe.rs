//! What a server is asked once a transaction is over that may have changed the session, and what becomes of its answer: the
//! settings to be carried, the pins, the channels and the names of statements.

use std::sync::Arc;

use super::{
    Outboxes, Pipeline, ServerState, ServerStep, Session, Shown,
    ask::{Lent, ask_ours},
    carried::{Carried, Probe, ProbeAnswer, TEMPORARY_QUERY},
    effects::Effects,
    inquiry::Outcome,
    owed::Owed,
    server::nonsense,
    statements::FUNCTIONS_NAME,
};
use crate::{
    sql::{
        Pin,
        census::{NAMES, VERSION},
    },
    wire::{error::SqlState, reply, request},
};

/// Most settings of one session that are carried from one server connection to the next; a session that has more keeps
/// its connection.
const ANSWER_ROWS_MAX: usize = 2_000;

impl Session {
    /// Asks the server what the session has become.
    pub(super) fn ask(
        &self,
        probe: Probe,
        pipeline: &mut Pipeline,
        server: &mut ServerState,
        out: &mut Outboxes<'_>,
    ) -> ServerStep {
        let used = &pipeline.effects.names;
        // Only they are left out, and only when all are asked for.
        let everything = matches!(probe, Probe::Everything(_));
        let strange = if everything { server.statements.all_own() } else { Vec::new() };
        let strange: Vec<_> = strange.into_iter().map(|(name, _)| name).collect();
        let mut sql = probe.question(&self.settings, &pipeline.effects.reset, used, &strange);
        if pipeline.effects.may_be_temporary && !everything {
            sql.push_str(if sql.is_empty() { "" } else { " UNION ALL " });
            sql.push_str(TEMPORARY_QUERY);
        }
        let inquiry = pipeline.effects.inquiry.as_deref_mut();
        let mut names = None;
        if let Some(inquiry) = inquiry {
            inquiry.begin(&self.shared.code);
            names = inquiry.parameter().filter(|_| sql.is_empty() && self.renames());
            if names.is_none() {
                let more = inquiry.text(server.version().is_none_or(|version| version >= 14));
                sql.push_str(if sql.is_empty() || more.is_empty() { "" } else { ";" });
                sql.push_str(&more);
            }
        }
        if let Some(names) = names {
            ask_prepared(&names, server, out);
            pipeline.owed.push(Owed::Probe { probe });
        } else {
            ask_ours(sql.as_bytes(), Owed::Probe { probe }, pipeline, server, out);
        }
        ServerStep::Swallow
    }

    /// What the answer says of the functions that the transaction has called: whether more has to be asked.
    pub(super) fn inquires_further(&mut self, probe: &mut Probe, pipeline: &mut Pipeline) -> bool {
        let effects = &mut pipeline.effects;
        let Some(inquiry) = &mut effects.inquiry else { return false };
        let code = self.shared.code.clone();
        match inquiry.settle(&code.customs()) {
            Outcome::Known => return false,
            Outcome::Read { sets_any } => {
                if sets_any {
                    self.pins.add(Pin::Unreadable);
                }
                return false;
            }
            Outcome::Changed => {
                code.doubt();
                effects.earnest = true;
            }
            Outcome::More => {}
            Outcome::Settings(names) => code.learn_customs(&names),
        }
        probe.add_everything();
        code.customs().iter().for_each(|name| probe.add_setting(name));
        pipeline.take(|seldom| &mut seldom.answer);
        true
    }

    /// A cancel that was under way when the client's statement ended may hit our question instead. There can be only one
    /// such, since no other begins meanwhile. And code of the database may have taken the prepared one away.
    pub(super) fn may_ask_again(&self, pipeline: &mut Pipeline, server: &mut ServerState) -> bool {
        server.statements.set_asks_functions(false);
        let passes = pipeline
            .take(|seldom| &mut seldom.last_words)
            .is_some_and(|words| matches!(words.code(), code if code == SqlState::QUERY_CANCELED.0 || code == "26000"));
        let first = passes && !pipeline.asked_again;
        pipeline.asked_again |= first;
        pipeline.take(|seldom| &mut seldom.answer);
        if let Some(inquiry) = &mut pipeline.effects.inquiry {
            inquiry.forget_answer();
        }
        first
    }

    pub(super) fn on_probed(&mut self, failed: bool, probe: &Probe, lent: &mut Lent<'_, '_>) -> ServerStep {
        let Lent { pipeline, server, out } = lent;
        pipeline.asked_again = false;
        let effects = std::mem::take(&mut pipeline.effects);
        let answer = pipeline.take(|seldom| &mut seldom.answer);
        if failed || answer.cut_short {
            // What the session has become is unknown, or too much to be carried, so nobody else may have this connection.
            self.pins.keep();
            return ServerStep::Swallow;
        }
        if self.stays_refused(pipeline) {
            return ServerStep::Release;
        }
        if effects.may_have_changed() || *probe != Probe::Nothing {
            self.take_answer(probe, &effects, &answer, server);
        }
        if let Some(step) = self.settle_pin(answer.pin, effects.cause, out) {
            return step;
        }
        if self.listens() {
            self.check_encoding();
            self.hand_over(pipeline, server, out);
        }
        if self.is_pinned() { ServerStep::Swallow } else { ServerStep::Release }
    }

    /// What the session has become, by the server's answer.
    fn take_answer(&mut self, probe: &Probe, effects: &Effects, answer: &ProbeAnswer, server: &mut ServerState) {
        let mut carried = answer.apply(probe, &self.settings);
        // Custom settings are listed nowhere; without a default of the database, RESET leaves an empty text, which one
        // that was asked for without being the session's has from another client.
        let is_reset = |name: &str| effects.reset_all || effects.reset.contains(name);
        let is_strange = |name: &str| self.settings.get(name).is_none() && !effects.set_customs.contains(name);
        carried.retain(|name, value| !(name.contains('.') && value.is_empty() && (is_reset(name) || is_strange(name))));
        let mut wanted = carried.clone();
        for (name, value) in self.startup.iter() {
            if is_reset(name) && carried.get(name).is_none() {
                wanted.set(name, value);
            }
        }
        self.settings = self.shared_copy(wanted);
        server.settings = if carried == *self.settings { self.settings.clone() } else { Arc::new(carried) };
        if matches!(probe, Probe::Everything(_)) {
            self.pins.tell(answer.pin.is_some());
            self.set_channels(answer.channels.clone());
        } else if answer.pin.is_some() {
            self.pins.tell(true);
        }
        if !self.learn_names(&effects.names, &answer.prepared, server) {
            self.pins.keep();
        }
    }

    /// The same settings in one place, so that clients which have set nothing share theirs.
    fn shared_copy(&self, settings: Carried) -> Arc<Carried> {
        if settings == *self.startup {
            self.startup.clone()
        } else if settings == *self.settings {
            self.settings.clone()
        } else {
            Arc::new(settings)
        }
    }
}

/// Asks what the functions of these names are, by a statement that is prepared once on each server connection: to plan it
/// anew each time would cost several times as much as to run it.
fn ask_prepared(names: &str, server: &mut ServerState, out: &mut Outboxes<'_>) {
    if !server.statements.set_asks_functions(true) {
        // It may be there all the same: a cancel does not tell how far things have come.
        request::about_statement(b'C', FUNCTIONS_NAME, out.to_server);
        let types = [&[0, 1], &NAMES.to_be_bytes()[..]].concat();
        let parse = request::Parse { name: FUNCTIONS_NAME, sql: VERSION.as_bytes(), types: &types };
        parse.write(FUNCTIONS_NAME, out.to_server);
    }
    request::run_with(FUNCTIONS_NAME, names.as_bytes(), out.to_server);
    request::sync(out.to_server);
}

/// A row of the answer to a question of ours.
pub(super) fn on_answer_row(message: Shown<'_>, pipeline: &mut Pipeline) -> ServerStep {
    if !message.is_whole() {
        // The body of a function, a value or a text is as long as somebody has made it.
        if !pipeline.effects.inquiry.as_mut().is_some_and(|inquiry| inquiry.long_row(message.body)) {
            pipeline.seldom_mut().answer.cut_short = true;
        }
        return ServerStep::Swallow;
    }
    match reply::data_row(message.body) {
        Ok(columns) => {
            if pipeline.effects.inquiry.as_mut().is_some_and(|inquiry| inquiry.row(&columns)) {
                return ServerStep::Swallow;
            }
            let answer = &mut pipeline.seldom_mut().answer;
            if answer.settings.len() < ANSWER_ROWS_MAX {
                answer.row(&columns);
            } else {
                answer.cut_short = true;
            }
            ServerStep::Swallow
        }
        Err(error) => nonsense(error),
    }
}
