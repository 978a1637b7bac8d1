//! What comes from the client: it is shown to the session, and passes on to the server.

use std::task::Poll;

use super::{Exchange, ExchangeEvent, OUTBOX_BYTES_MAX, Turn};
use crate::{backend::Server, metrics::Count, net::Stream};
use poolhouse_core::{
    session::{self, ClientStep, Judge, Outboxes, Session},
    wire::{
        self,
        error::{Report, SqlState},
        header,
    },
};

/// So many bytes of a message are looked at as fast as a message is.
const BYTES_PER_EFFORT: usize = 1024;

impl Exchange {
    pub(super) fn move_from_client(
        &mut self,
        client: &mut Stream,
        session: &mut Session,
        mut server: Option<&mut Server>,
        judge: &impl Judge,
        turn: &mut Turn<'_, '_>,
    ) -> Option<ExchangeEvent> {
        // The rest of a message that is passing must follow, whatever the server has said meanwhile.
        if !self.to_server.is_empty() || (self.held || self.released) && !self.is_cut() {
            return None;
        }
        // First what is there: it may have waited for a server connection.
        if !self.from_client.is_empty() && !self.from_client.wants_more {
            let event = self.digest_client(session, server.as_deref_mut(), judge, turn);
            if event.is_some() {
                return event;
            }
            if !self.to_server.is_empty() || self.held || turn.left == 0 {
                return None;
            }
        }
        self.from_client.make_room();
        if turn.client_is_dry || self.exhausted || !self.from_client.has_room() {
            return None;
        }
        match self.from_client.poll_fill(turn.cx, client) {
            Poll::Ready(Ok(0) | Err(_)) => {
                self.exhausted = true;
                turn.moved |= self.is_deserted();
                return (!self.is_deserted()).then_some(ExchangeEvent::Left);
            }
            Poll::Ready(Ok(bytes)) => {
                self.counting.add(Count::ClientReceived, bytes);
                turn.moved = true;
            }
            Poll::Pending => {
                turn.client_is_dry = true;
                return None;
            }
        }
        self.from_client.wants_more = false;
        self.digest_client(session, server, judge, turn)
    }

    /// Looks at all that has come from the client.
    fn digest_client(
        &mut self,
        session: &mut Session,
        mut server: Option<&mut Server>,
        judge: &impl Judge,
        turn: &mut Turn<'_, '_>,
    ) -> Option<ExchangeEvent> {
        let before = self.from_client.used;
        let mut run = before;
        let mut event = None;
        if self.pipeline.is_read_only() && !self.resend.may_elsewhere() && session.begins_anew(&self.pipeline) {
            self.resend.begin(true, false);
        }
        loop {
            if self.from_client.pass_rest(&mut run, &mut self.to_server) {
                break;
            }
            if !self.said_to_server.is_empty() {
                self.from_client.end_run(&mut run, &mut self.to_server);
                self.to_server.bytes.append(&mut self.said_to_server);
            }
            if self.held || self.released || turn.left == 0 {
                break;
            }
            if self.to_server.bytes.len() + self.to_client.bytes.len() > OUTBOX_BYTES_MAX {
                break;
            }
            let head = match header(self.from_client.unused()) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(error) => {
                    event = Some(ExchangeEvent::Failed(violation(error)));
                    break;
                }
            };
            let shown = self.from_client.shown(head);
            if session::long_text(shown).is_some_and(|text| !judge.knows(text)) {
                event = Some(ExchangeEvent::ToJudge);
                break;
            }
            let mut out = Outboxes { to_server: &mut self.said_to_server, to_client: &mut self.said_to_client };
            let state = server.as_deref_mut().map(|server| &mut server.state);
            let step = session.on_client(shown, &mut self.pipeline, state, judge, &mut out);
            turn.spend(1 + (shown.body.len() / BYTES_PER_EFFORT) as u32 + judge.take_effort());
            let mut own = false;
            if session.notified()
                && let Some(sender) = server.as_deref().and_then(|server| server.sender.as_ref())
            {
                sender.note_notify();
            }
            if !self.said_to_server.is_empty() {
                self.from_client.end_run(&mut run, &mut self.to_server);
                self.to_server.bytes.append(&mut self.said_to_server);
            }
            if !self.said_to_client.is_empty() {
                self.resend.forbid();
                own = true;
                self.counting.note_own(&self.said_to_client);
                self.to_client.bytes.append(&mut self.said_to_client);
            }
            let goes = matches!(step, ClientStep::Forward | ClientStep::Replaced { .. } | ClientStep::Answered);
            if goes && !own && server.is_some() {
                self.counting.begin();
            }
            if goes && self.resend.may() {
                self.resend.note_sent(self.from_client.front(head));
            }
            match step {
                ClientStep::Forward => self.from_client.pass(head.message()),
                ClientStep::Replaced { rest } => {
                    self.from_client.end_run(&mut run, &mut self.to_server);
                    self.from_client.used += rest;
                    run = self.from_client.used;
                    self.from_client.pass(head.message() - rest);
                }
                ClientStep::Answered | ClientStep::Swallow => {
                    self.from_client.end_run(&mut run, &mut self.to_server);
                    self.from_client.skip(head.message());
                    run = self.from_client.used;
                }
                ClientStep::NeedServer(need) => event = Some(ExchangeEvent::NeedServer(need)),
                ClientStep::Hold => {
                    self.held = true;
                    break;
                }
                ClientStep::More => {
                    self.from_client.wants_more = true;
                    self.from_client.want(head.message(), &mut run, &mut self.to_server);
                    break;
                }
                ClientStep::Fail(report) => event = Some(ExchangeEvent::Failed(report)),
                ClientStep::Bye => {
                    self.counting.forget_goodbye(head.message());
                    self.from_client.end_run(&mut run, &mut self.to_server);
                    // Nobody listens to what comes behind it, and it is not to be read twice.
                    self.from_client.drop_all();
                    self.exhausted = true;
                    run = self.from_client.used;
                    // Of one that has left already, all that it has said is done first.
                    event = (!self.is_deserted()).then_some(ExchangeEvent::Left);
                }
            }
            if event.is_some() {
                break;
            }
        }
        turn.moved |= self.from_client.used != before;
        self.from_client.finish_run(run, &mut self.to_server);
        event
    }
}

fn violation(error: wire::Error) -> Box<Report> {
    Box::new(Report::fatal(SqlState::PROTOCOL_VIOLATION, format!("protocol violation: {error}")))
}
