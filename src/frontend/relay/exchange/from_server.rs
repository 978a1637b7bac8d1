//! What comes from the server: it is shown to the session, and passes on to the client.

use std::{io, task::Poll, time::Instant};

use super::{super::resend::ReplicaRefusal, Exchange, ExchangeEvent, Turn, buffers::CONTROL_BYTES_MAX};
use crate::{backend::Server, metrics::Count};
use poolhouse_core::{
    session::{self, Need, Outboxes, ServerStep, Session},
    wire::{
        self, ErrorFields,
        error::{Report, SqlState},
        frame::Reply,
        header,
        reply::Status,
    },
};

impl Exchange {
    pub(super) fn move_from_server(
        &mut self,
        session: &mut Session,
        server: &mut Server,
        turn: &mut Turn<'_, '_>,
    ) -> Option<ExchangeEvent> {
        if !self.to_server.is_empty() {
            let bytes = self.to_server.bytes.len();
            match self.to_server.poll_drain(turn.cx, &mut server.stream) {
                Poll::Ready(Ok(())) => {
                    self.counting.add(Count::ServerSent, bytes);
                    turn.moved |= self.released || !turn.client_is_dry || !self.from_client.is_empty()
                }
                // What the server said before it closed the connection may still be there to be read.
                Poll::Ready(Err(_)) => self.to_server.clear(),
                Poll::Pending => {}
            }
        }
        if !self.to_client.is_empty() || self.released {
            return self.release_if_done();
        }
        if self.gated {
            return None;
        }
        self.from_server.make_room();
        if self.from_server.has_room() {
            if turn.server_is_dry {
                return None;
            }
            match self.from_server.poll_fill(turn.cx, &mut server.stream) {
                Poll::Ready(Ok(0)) => return Some(ExchangeEvent::ServerLost(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Err(error)) => return Some(ExchangeEvent::ServerLost(error)),
                Poll::Ready(Ok(bytes)) => {
                    self.counting.add(Count::ServerReceived, bytes);
                    turn.moved = true;
                }
                Poll::Pending => {
                    turn.server_is_dry = true;
                    return None;
                }
            }
        }
        match self.refusal() {
            ReplicaRefusal::Whole(why) => return Some(ExchangeEvent::Refused(why)),
            // Without room its end could never come.
            ReplicaRefusal::Begun(_) if self.from_server.has_room() => return None,
            ReplicaRefusal::Begun(_) | ReplicaRefusal::Not => {}
        }
        if let Some(report) = self.digest_server(session, server, turn) {
            return Some(ExchangeEvent::Failed(report));
        }
        if self.pipeline.seldom().is_some_and(|seldom| seldom.new_defaults.is_some()) {
            return Some(ExchangeEvent::NewDefaults);
        }
        self.release_if_done()
    }

    /// Whether a replica answers that it cannot run what it was asked, so that all of it can be asked of the primary.
    fn refusal(&self) -> ReplicaRefusal {
        let whole = self.resend.has_reads() && self.from_client.rest == 0;
        // Who insists on a replica gets its refusal.
        if !whole || self.pipeline.owed.ready_owed() != 1 || self.pipeline.lent_for != Need::Read {
            return ReplicaRefusal::Not;
        }
        ReplicaRefusal::of(self.from_server.unused())
    }

    /// The session has let go, and nothing of this client is on its way to the server any more.
    fn release_if_done(&mut self) -> Option<ExchangeEvent> {
        (self.released && self.to_server.is_empty() && !self.is_cut()).then_some(ExchangeEvent::Released)
    }

    /// Looks at all that has come from the server.
    fn digest_server(
        &mut self,
        session: &mut Session,
        server: &mut Server,
        turn: &mut Turn<'_, '_>,
    ) -> Option<Box<Report>> {
        self.held = false;
        let before = self.pipeline.counts;
        // Messages that pass unchanged gather into one run, which is moved at once.
        let mut run = self.from_server.used;
        loop {
            if self.from_server.pass_rest(&mut run, &mut self.to_client) {
                break;
            }
            let head = match header(self.from_server.unused()) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(error) => {
                    self.from_server.end_run(&mut run, &mut self.to_client);
                    return Some(nonsense(error));
                }
            };
            if Reply::is_data(head.tag) && self.pipeline.owed.front_is_clients() {
                self.from_server.pass(head.message());
                continue;
            }
            if !self.from_server.has_control(head) {
                self.from_server.want(head.message().min(CONTROL_BYTES_MAX), &mut run, &mut self.to_client);
                break;
            }
            if head.tag == b'A' {
                self.from_server.name_sender(head, server, self.process);
            } else if head.tag == b'E' && self.pipeline.owed.front_is_clients() {
                self.counting.note_server_error(self.from_server.shown(head).body);
            }
            let shown = self.from_server.shown(head);
            let mut out = Outboxes { to_server: &mut self.said_to_server, to_client: &mut self.said_to_client };
            self.pipeline.can_repeat = self.resend.may_here()
                && run == self.from_server.used
                && self.to_client.is_empty()
                && self.from_client.rest == 0;
            let step = session.on_server(shown, &mut self.pipeline, &mut server.state, &mut out);
            turn.spend(1);
            let forward = match step {
                ServerStep::Forward => true,
                ServerStep::ForwardThenAnswer => {
                    session.answer_after_forward(&mut self.pipeline, &mut out);
                    true
                }
                ServerStep::ForwardAndRelease => {
                    self.released = true;
                    true
                }
                ServerStep::Swallow => false,
                ServerStep::Repeat => {
                    self.from_client.put_back(&self.resend.take_here());
                    false
                }
                ServerStep::Release => {
                    self.released = true;
                    false
                }
                ServerStep::Fail(report) => {
                    // What came before passes: the report must stand between two messages.
                    self.from_server.end_run(&mut run, &mut self.to_client);
                    return Some(report);
                }
            };
            if forward {
                self.from_server.pass(head.message());
            } else {
                self.from_server.end_run(&mut run, &mut self.to_client);
                self.from_server.skip(head.message());
                run = self.from_server.used;
            }
            if !self.said_to_client.is_empty() {
                self.from_server.end_run(&mut run, &mut self.to_client);
                self.to_client.bytes.append(&mut self.said_to_client);
            }
            // Inside of a message that is passing to the server nothing else may be said; it waits for the end of that.
            if !self.said_to_server.is_empty() && !self.is_cut() {
                self.to_server.bytes.append(&mut self.said_to_server);
            }
        }
        self.from_server.finish_run(run, &mut self.to_client);
        self.note_answer();
        if let Some(writes) = &self.writes
            && session.wrote()
            && !self.to_client.is_empty()
        {
            writes.note();
        }
        if self.pipeline.counts.queries != before.queries || !self.pipeline.ended.is_empty() {
            self.count_answers(before);
        }
        None
    }

    /// The server has answered queries since the tally was `before`.
    fn count_answers(&mut self, before: session::SessionCounts) {
        let now = Instant::now();
        let (tally, pipeline) = (self.pipeline.counts, &mut self.pipeline);
        let more = !pipeline.owed.is_empty();
        self.counting.end_statements(&mut pipeline.ended, more, self.slow, now);
        if tally.queries == before.queries {
            return;
        }
        let busy = pipeline.owed.ready_owed() > 0 || pipeline.owed.has_open_batch();
        let open = pipeline.owed.status() != Status::Idle;
        self.counting.end(tally.queries - before.queries, tally.transactions - before.transactions, busy, open, now);
    }

    /// Tells what may be sent again, and whoever measures how long reads take, that something of an answer is there.
    fn note_answer(&mut self) {
        if self.to_client.is_empty() {
            return;
        }
        let (pipeline, released) = (&self.pipeline, self.released);
        let last_words = || {
            let ends = pipeline.seldom().is_some_and(|seldom| {
                seldom.last_words.as_ref().is_some_and(ErrorFields::is_fatal) || seldom.farewell.is_some()
            });
            ends && !released && !pipeline.owed.is_empty()
        };
        if self.resend.note_answer(&mut self.to_client.bytes, last_words)
            && let Some((since, latency)) = self.timed.take()
        {
            latency.note(since.elapsed());
        }
    }
}

fn nonsense(error: wire::Error) -> Box<Report> {
    let report = Report::fatal(SqlState::CONNECTION_LOST, "the server sent what the protocol does not allow");
    Box::new(report.detail(error.to_string()))
}
