//! Moving bytes between a client and the server connection that it holds: both directions at once, each with a bounded
//! buffer. A side is read only as far as its buffer goes when what it sent before cannot be passed on, so a peer that does
//! not read stops the other one instead of filling memory; and the end of a client is seen whatever it waits for. What
//! messages mean is the session's business.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    task::coop,
    time::{Sleep, sleep},
};

use super::counting::{CountedFor, Counting};
use crate::{
    backend::Server,
    databases::{LastWrite, Latency},
    metrics::Count,
    net::Stream,
};
use poolhouse_core::{
    session::{self, ClientStep, Judge, Need, Outboxes, Pipeline, RefusedRead, ServerStep, Session, Shown},
    topology::NodeId,
    wire::{
        self, ErrorFields,
        error::{Report, SqlState},
        frame::{HEADER_BYTES, Reply},
        header,
        reply::{Status, notification_parts, set_notification_process},
    },
};

/// Room of one buffer, in bytes.
const BUFFER_BYTES: usize = 16 << 10;

/// How often it is asked whether a client has gone whose end cannot be read yet.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Longest message of a server that is gathered to be looked into; of a longer one only the front is shown.
const CONTROL_BYTES_MAX: usize = 64 << 10;

/// When this much waits to be written, no more messages are looked at before it is gone.
const OUTBOX_BYTES_MAX: usize = 64 << 10;

/// How much is looked at for one client before others have their turn, in messages that cost little; tens of them take as
/// long as one text that has to be parsed.
const TURN_EFFORT: u32 = 1024;

/// So many bytes of a message are looked at as fast as a message is.
const BYTES_PER_EFFORT: usize = 1024;

/// What a client that is busy holds; one that idles outside a transaction holds none of it. In the order written, so that
/// what every turn looks at lies together.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Exchange {
    from_client: Inbox,
    /// The client has left: what is still owed to it is read and thrown away.
    deserted: bool,
    /// Nothing more can come from the client.
    exhausted: bool,
    /// The client waits until the server has answered what it owes.
    held: bool,
    /// The session has let go of the server connection.
    released: bool,
    /// Nothing of the server is passed on until it is proven to be the primary still.
    pub gated: bool,
    /// Cancel requests are held back while the server is asked something of ours.
    pub shielded: bool,
    mends: bool,
    /// The client's process id, as it knows it.
    process: u32,
    to_server: Outbox,
    to_client: Outbox,
    from_server: Inbox,
    /// What the session says itself, before it takes its place in the outboxes.
    said_to_client: Vec<u8>,
    said_to_server: Vec<u8>,
    /// What has been sent to a replica, as the client sent it, while nothing of an answer has come: it only reads, so it
    /// can be run again elsewhere.
    repeat: Option<Vec<u8>>,
    /// Who else must see what is written here: noted before the client hears that it is done.
    writes: Option<Arc<LastWrite>>,
    pub pipeline: Pipeline,
    pub counting: Counting,
    /// How long a statement may take before it is told of.
    slow: Option<Duration>,
    /// A read was sent then to a node whose time to answer is measured.
    timed: Option<(Instant, Arc<Latency>)>,
    /// The beginning of an answer that came together with the server's last words: the client has seen nothing of it yet.
    withheld: Vec<u8>,
    /// What the client has sent since the server connection was lent, while nothing of an answer has come and `mends`: a
    /// prepared statement that the server has lost, or that has become stale there, is mended and all is sent once more.
    again: Vec<u8>,
    /// When it is asked next whether a client has gone that is not read.
    look: Option<Pin<Box<Sleep>>>,
}

// Every busy client holds one; each worker keeps some for the next.
const _: () = assert!(size_of::<Exchange>() <= 1216);

/// What stops the moving of bytes.
#[derive(Debug)]
pub enum Event {
    /// The next message needs a server connection.
    NeedServer(Need),
    /// The message at the front has a text that takes long to judge: [`Exchange::front_text`].
    ToJudge,
    /// The server connection is free and clean.
    Released,
    /// The pipeline tells that sessions begin with other settings; the client is to hear of its end only after that.
    NewDefaults,
    /// Nothing is left to do: no buffer is needed.
    Idle,
    /// The client said goodbye, or closed its socket.
    Left,
    /// Everything that a client which has left had asked for is done.
    Done,
    /// The client is told this and disconnected; the server connection is not to be used again.
    Failed(Box<Report>),
    /// A replica refuses to run what was taken for a read, and the client has seen nothing of an answer.
    Refused(RefusedRead),
    /// The server connection has ended.
    ServerLost(io::Error),
    /// The node of the server connection is not to be used any more as it was. Nothing of it is read or sent.
    Fenced,
}

/// Bytes that have come, and how far they have been used.
#[derive(Debug, Default)]
struct Inbox {
    bytes: Vec<u8>,
    used: usize,
    /// Bytes of the message under way that are still to come or to be passed on, and where they go.
    rest: usize,
    passes: bool,
    /// The front message cannot be judged before more of it is there.
    wants_more: bool,
    /// The client's task is woken when something comes: until then there is no need to ask.
    watched: bool,
}

/// What is known during one poll.
struct Turn<'a, 'b> {
    cx: &'a mut Context<'b>,
    /// Sides that have nothing more to read: asking again would only cost time.
    client_is_dry: bool,
    server_is_dry: bool,
    /// Something has been moved, so that more may be possible.
    moved: bool,
    /// What is left of [`TURN_EFFORT`].
    left: u32,
}

/// Bytes to be written, and how far they have been.
#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

impl Exchange {
    /// A server connection has been lent.
    pub fn attach(
        &mut self,
        session: &mut Session,
        server: &mut Server,
        need: Need,
        process: u32,
        writes: Option<Arc<LastWrite>>,
    ) {
        self.process = process;
        self.writes = writes;
        self.timed = None;
        let mut out = Outboxes { to_server: &mut self.to_server.bytes, to_client: &mut self.to_client.bytes };
        session.attach(&mut self.pipeline, &mut server.state, need, &mut out);
        self.repeat = matches!(need, Need::Read | Need::Replica).then(Vec::new);
        self.mends = session.has_statements();
        self.again.clear();
    }

    /// The server connection is gone from this client, one way or the other.
    pub fn detach(&mut self) {
        self.pipeline.reset();
        self.from_server.reset();
        self.to_server.clear();
        self.said_to_server.clear();
        self.held = false;
        self.released = false;
        self.gated = false;
        self.shielded = false;
        self.repeat = None;
        self.withheld = Vec::new();
        self.mends = false;
        self.writes = None;
        self.timed = None;
        self.counting.give_up();
    }

    /// The server connection was lost before it answered anything, and what it was asked only reads: puts it back, to be
    /// asked of another. False when that is not so.
    pub fn take_back(&mut self, session: &mut Session) -> bool {
        match self.repeat.take().filter(|_| session.only_read()) {
            Some(sent) if !sent.is_empty() && self.from_client.rest == 0 => {
                session.take_back_block(&self.pipeline);
                self.detach();
                self.from_client.put_back(&sent);
                true
            }
            _ => false,
        }
    }

    /// The server connection was lost, and the session has said what there is to say. What the client has sent of a
    /// message that was passing goes nowhere.
    pub fn lose_server(&mut self) {
        self.detach();
        self.from_client.passes = false;
    }

    /// Made ready for another client, without what it has grown by.
    pub fn end(&mut self) {
        // What was found out about a message that needed no server is not for whoever comes next.
        self.pipeline.forget_message();
        self.counting.forget_node();
        self.from_client.reset();
        (self.deserted, self.exhausted) = (false, false);
        self.look = None;
        self.to_client.clear();
        for buffer in [
            &mut self.from_client.bytes,
            &mut self.to_client.bytes,
            &mut self.from_server.bytes,
            &mut self.to_server.bytes,
        ] {
            if buffer.capacity() > BUFFER_BYTES {
                *buffer = Vec::new();
            }
        }
    }

    /// A server connection was lent `now`. What was done on another one before is added up.
    pub fn count_assignment(&mut self, node: NodeId, now: Instant, waited: Option<Duration>, counted: CountedFor<'_>) {
        if self.counting.has_node() {
            self.count(counted);
        }
        self.slow = counted.watch.slow();
        self.pipeline.verbatim = self.slow.is_some() && counted.watch.tells_values();
        self.counting.attach(node, now, waited);
    }

    /// Whether [`Exchange::count`] is to be called although the server connection stays.
    #[inline]
    pub fn is_count_due(&self) -> bool {
        self.counting.is_due(&self.pipeline.counts)
    }

    /// Adds up what was counted.
    pub fn count(&mut self, counted: CountedFor<'_>) {
        self.counting.flush(&mut self.pipeline.counts, counted);
    }

    /// What is in the client's outbox behind so many bytes is Poolhouse's own.
    pub fn note_own(&mut self, before: usize) {
        self.counting.note_own(&self.to_client.bytes[before..]);
    }

    /// Where errors and answers of Poolhouse's own go, behind what is on its way already.
    pub fn client_outbox(&mut self) -> &mut Vec<u8> {
        &mut self.to_client.bytes
    }

    /// Nothing is repeated: the client sees what came with the server's last words.
    pub fn stop_withholding(&mut self) {
        self.to_client.bytes.append(&mut self.withheld);
    }

    /// Both outboxes and the pipeline, for the session.
    pub fn session_parts(&mut self) -> (&mut Pipeline, Outboxes<'_>) {
        let out = Outboxes { to_server: &mut self.to_server.bytes, to_client: &mut self.to_client.bytes };
        (&mut self.pipeline, out)
    }

    /// The pipeline and both outboxes, and how many bytes may wait for the client, when something may be said now that
    /// answers no message: not in the middle of another one.
    pub fn between_messages(&mut self) -> Option<(&mut Pipeline, Outboxes<'_>, usize)> {
        if self.is_mid_message() || self.is_cut() || self.released {
            return None;
        }
        let (pipeline, out) = self.session_parts();
        Some((pipeline, out, OUTBOX_BYTES_MAX))
    }

    /// The session may let the client go on that it has held.
    pub fn resume(&mut self) {
        self.held = false;
    }

    /// The text of the message at the front of the client's inbox, when it takes long to judge.
    pub fn front_text(&self) -> Option<Arc<[u8]>> {
        let head = header(self.from_client.unused()).ok().flatten()?;
        session::long_text(self.from_client.shown(head)).map(Arc::from)
    }

    /// Whether a message of the client waits for the server.
    pub fn is_held(&self) -> bool {
        self.held && !self.pipeline.owed.is_empty()
    }

    /// The type of the message at the front, if one has begun to come.
    pub fn front_tag(&self) -> Option<u8> {
        self.from_client.unused().first().copied()
    }

    /// Part of a message has gone to the client, and the rest cannot follow once the server is lost.
    pub fn is_mid_message(&self) -> bool {
        self.from_server.rest > 0 && self.from_server.passes
    }

    /// Whether the server connection is as a stranger may have it: nothing unsent, nothing unread.
    pub fn is_clean(&self) -> bool {
        self.from_server.is_empty()
            && self.from_server.rest == 0
            && self.to_server.is_empty()
            && self.said_to_server.is_empty()
    }

    /// The client has left. What it has said is done all the same, as far as that can be.
    pub fn desert(&mut self) {
        self.deserted = true;
    }

    pub fn is_deserted(&self) -> bool {
        self.deserted
    }

    /// Part of a client's message has been passed on, and the rest can never come.
    pub fn is_cut(&self) -> bool {
        self.from_client.rest > 0 && self.from_client.passes
    }

    /// Whether something of the client runs that can be broken off once it has left: nothing would come of it.
    pub fn is_idle_talk(&self) -> bool {
        const GOODBYE: u8 = b'X';
        let all_said = self.front_tag().is_none_or(|tag| tag == GOODBYE);
        let runs = self.pipeline.owed.iter().any(|owed| !owed.is_ours());
        all_said && runs && self.pipeline.effects.is_idle_talk()
    }

    /// Throws away the message at the front of the client's inbox, also what of it is still to come: it was answered.
    pub fn drop_front(&mut self) {
        if let Ok(Some(head)) = header(self.from_client.unused()) {
            self.from_client.skip(head.message());
        }
    }

    /// Moves what can be moved. `server` is there while a connection is lent. Cancel-safe: all state is in `self`.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Stream,
        session: &mut Session,
        server: Option<&mut Server>,
        judge: &impl Judge,
    ) -> Poll<Event> {
        if !coop::has_budget_remaining() {
            return Turn::end(cx);
        }
        let mut turn = Turn { cx, client_is_dry: false, server_is_dry: false, moved: false, left: TURN_EFFORT };
        let event = self.poll_turn(&mut turn, client, session, server, judge);
        if event.is_ready()
            && let Poll::Ready(share) = coop::poll_proceed(turn.cx)
        {
            // A task whose events each lead to the next one at once comes to an end of its share, too.
            share.made_progress();
        }
        event
    }

    fn poll_turn(
        &mut self,
        turn: &mut Turn<'_, '_>,
        client: &mut Stream,
        session: &mut Session,
        mut server: Option<&mut Server>,
        judge: &impl Judge,
    ) -> Poll<Event> {
        loop {
            turn.moved = false;
            if let Some(event) = self.write_client(client, turn) {
                return Poll::Ready(event);
            }
            // The client's side first: what the server has to answer is on its way sooner.
            if let Some(event) = self.move_from_client(client, session, server.as_deref_mut(), judge, turn) {
                return Poll::Ready(event);
            }
            if let Some(server) = server.as_deref_mut()
                && let Some(event) = self.move_from_server(session, server, turn)
            {
                return Poll::Ready(event);
            }
            if turn.left == 0 {
                return Turn::end(turn.cx);
            }
            if !(turn.moved || self.deserted && self.say_last()) {
                break;
            }
        }
        self.counting.pause();
        let unattached = server.is_none();
        if self.deserted {
            return if unattached || self.is_over() { Poll::Ready(Event::Done) } else { Poll::Pending };
        }
        // Whoever is not read now, since the server has to answer first or does not read, may leave all the same.
        if !turn.client_is_dry && self.poll_gone(turn.cx, client).is_ready() {
            return Poll::Ready(Event::Left);
        }
        if unattached && self.from_client.is_empty() && self.from_client.rest == 0 && self.to_client.is_empty() {
            return Poll::Ready(Event::Idle);
        }
        Poll::Pending
    }

    /// Reads ahead while the client has to wait, to notice when it leaves. Ready when it has left.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>, client: &mut Stream) -> Poll<()> {
        if self.deserted {
            return Poll::Pending;
        }
        self.from_client.make_room();
        while self.from_client.has_room() {
            match self.from_client.poll_fill(cx, client) {
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.exhausted = true;
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(bytes)) => {
                    self.counting.add(Count::ClientReceived, bytes);
                    self.from_client.wants_more = false;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        self.poll_hung_up(cx, client)
    }

    /// What the client has sent fills the buffer, and its end comes behind it: asks for that now and then.
    #[inline(never)]
    fn poll_hung_up(&mut self, cx: &mut Context<'_>, client: &Stream) -> Poll<()> {
        let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK_EVERY)));
        while look.as_mut().poll(cx).is_ready() {
            if client.has_hung_up() {
                return Poll::Ready(());
            }
            look.as_mut().reset(tokio::time::Instant::now() + LOOK_EVERY);
        }
        Poll::Pending
    }

    /// Of a client that has left, all that it had said has been looked at.
    fn has_said_all(&self) -> bool {
        let whole = || matches!(header(self.from_client.unused()), Ok(Some(_))) && !self.from_client.wants_more;
        self.exhausted && !self.held && !self.released && self.to_server.is_empty() && !whole()
    }

    /// Says in the place of a client that has left what lets the server come to rest. True when there was something.
    fn say_last(&mut self) -> bool {
        if !self.has_said_all() || self.is_cut() {
            return false;
        }
        let mut out = Outboxes { to_server: &mut self.to_server.bytes, to_client: &mut self.said_to_client };
        self.pipeline.owed.say_last(&mut out)
    }

    /// Nothing more will come of what a client that has left had said.
    fn is_over(&self) -> bool {
        self.has_said_all() && (self.is_cut() || self.pipeline.owed.is_empty())
    }

    /// Writes what is left for the client. Ready when nothing is left, or the client cannot be written to.
    pub fn poll_flush_client(&mut self, cx: &mut Context<'_>, client: &mut Stream) -> Poll<io::Result<()>> {
        let bytes = self.to_client.bytes.len();
        let drained = self.to_client.poll_drain(cx, client);
        if matches!(drained, Poll::Ready(Ok(()))) {
            self.counting.add(Count::ClientSent, bytes);
        }
        drained
    }

    fn write_client(&mut self, client: &mut Stream, turn: &mut Turn<'_, '_>) -> Option<Event> {
        if self.to_client.is_empty() {
            return None;
        }
        if self.deserted {
            self.to_client.clear();
            turn.moved = true;
            return None;
        }
        match self.poll_flush_client(turn.cx, client) {
            Poll::Ready(Ok(())) => turn.moved = true,
            Poll::Ready(Err(_)) => return Some(Event::Left),
            Poll::Pending => {}
        }
        None
    }

    fn move_from_server(
        &mut self,
        session: &mut Session,
        server: &mut Server,
        turn: &mut Turn<'_, '_>,
    ) -> Option<Event> {
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
                Poll::Ready(Ok(0)) => return Some(Event::ServerLost(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Err(error)) => return Some(Event::ServerLost(error)),
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
            Refusal::Whole(why) => return Some(Event::Refused(why)),
            // Without room its end could never come.
            Refusal::Begun(_) if self.from_server.has_room() => return None,
            Refusal::Begun(_) | Refusal::Not => {}
        }
        if let Some(report) = self.digest_server(session, server, turn) {
            return Some(Event::Failed(report));
        }
        if self.pipeline.seldom().is_some_and(|seldom| seldom.new_defaults.is_some()) {
            return Some(Event::NewDefaults);
        }
        self.release_if_done()
    }

    /// Whether a replica answers that it cannot run what it was asked, so that all of it can be asked of the primary.
    fn refusal(&self) -> Refusal {
        let whole = self.repeat.as_ref().is_some_and(|sent| !sent.is_empty()) && self.from_client.rest == 0;
        // Who insists on a replica gets its refusal.
        if !whole || self.pipeline.owed.ready_owed() != 1 || self.pipeline.lent_for != Need::Read {
            return Refusal::Not;
        }
        Refusal::of(self.from_server.unused())
    }

    /// The session has let go, and nothing of this client is on its way to the server any more.
    fn release_if_done(&mut self) -> Option<Event> {
        (self.released && self.to_server.is_empty() && !self.is_cut()).then_some(Event::Released)
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
            self.pipeline.can_repeat =
                self.mends && run == self.from_server.used && self.to_client.is_empty() && self.from_client.rest == 0;
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
                    self.mends = false;
                    self.from_client.put_back(&self.again);
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

    /// Once the client sees something of an answer, nothing can be repeated. What answers ourselves, or is a server's last
    /// word, leaves all to be repeated.
    fn note_answer(&mut self) {
        self.mends &= self.to_client.is_empty();
        if self.repeat.is_none() || self.to_client.is_empty() {
            return;
        }
        let unfinished = !self.released && !self.pipeline.owed.is_empty();
        let ends = self.pipeline.seldom().is_some_and(|seldom| {
            seldom.last_words.as_ref().is_some_and(ErrorFields::is_fatal) || seldom.farewell.is_some()
        });
        if unfinished && ends {
            self.withheld = std::mem::take(&mut self.to_client.bytes);
        } else {
            self.repeat = None;
            if let Some((since, latency)) = self.timed.take() {
                latency.note(since.elapsed());
            }
        }
    }

    /// What is sent next is a read, and it counts how long its answer takes.
    pub fn time(&mut self, latency: &Arc<Latency>) {
        self.timed = Some((Instant::now(), latency.clone()));
    }

    fn move_from_client(
        &mut self,
        client: &mut Stream,
        session: &mut Session,
        mut server: Option<&mut Server>,
        judge: &impl Judge,
        turn: &mut Turn<'_, '_>,
    ) -> Option<Event> {
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
                turn.moved |= self.deserted;
                return (!self.deserted).then_some(Event::Left);
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
    ) -> Option<Event> {
        let before = self.from_client.used;
        let mut run = before;
        let mut event = None;
        if self.pipeline.is_read_only() && self.repeat.is_none() && session.begins_anew(&self.pipeline) {
            self.repeat = Some(Vec::new());
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
                    event = Some(Event::Failed(violation(error)));
                    break;
                }
            };
            let shown = self.from_client.shown(head);
            if session::long_text(shown).is_some_and(|text| !judge.knows(text)) {
                event = Some(Event::ToJudge);
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
                self.repeat = None;
                self.mends = false;
                own = true;
                self.counting.note_own(&self.said_to_client);
                self.to_client.bytes.append(&mut self.said_to_client);
            }
            let goes = matches!(step, ClientStep::Forward | ClientStep::Replaced { .. } | ClientStep::Answered);
            if goes && !own && server.is_some() {
                self.counting.begin();
            }
            if self.mends && goes {
                self.mends = self.from_client.copy_front(head, &mut self.again);
            }
            if let Some(repeat) = &mut self.repeat
                && goes
                && !self.from_client.copy_front(head, repeat)
            {
                self.repeat = None;
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
                ClientStep::NeedServer(need) => event = Some(Event::NeedServer(need)),
                ClientStep::Hold => {
                    self.held = true;
                    break;
                }
                ClientStep::More => {
                    self.from_client.wants_more = true;
                    self.from_client.want(head.message(), &mut run, &mut self.to_server);
                    break;
                }
                ClientStep::Fail(report) => event = Some(Event::Failed(report)),
                ClientStep::Bye => {
                    self.counting.forget_goodbye(head.message());
                    self.from_client.end_run(&mut run, &mut self.to_server);
                    // Nobody listens to what comes behind it, and it is not to be read twice.
                    self.from_client.drop_all();
                    self.exhausted = true;
                    run = self.from_client.used;
                    // Of one that has left already, all that it has said is done first.
                    event = (!self.deserted).then_some(Event::Left);
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

impl Turn<'_, '_> {
    fn spend(&mut self, effort: u32) {
        self.left = self.left.saturating_sub(effort);
    }

    /// The others' turn; this task goes on behind them.
    fn end(cx: &Context<'_>) -> Poll<Event> {
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Inbox {
    fn unused(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    fn is_empty(&self) -> bool {
        self.used == self.bytes.len()
    }

    fn has_room(&self) -> bool {
        self.bytes.len() < self.bytes.capacity()
    }

    /// The first time that it is needed, a buffer gets its room.
    fn make_room(&mut self) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(BUFFER_BYTES);
        }
    }

    fn reset(&mut self) {
        self.bytes.clear();
        (self.used, self.rest, self.passes, self.wants_more) = (0, 0, false, false);
        self.watched = false;
    }

    /// Appends what has come. Always of one stream and in one task between two calls of [`Inbox::reset`].
    #[inline]
    fn poll_fill(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<usize>> {
        if self.watched && !stream.has_news() {
            return Poll::Pending;
        }
        let filled = stream.poll_fill(cx, &mut self.bytes);
        // A task that has had its share of this turn is told to wait, too, but only for its next turn.
        self.watched = filled.is_pending() && coop::has_budget_remaining();
        filled
    }

    /// The message at the front, as much of it as is there.
    fn shown(&self, head: wire::Header) -> Shown<'_> {
        let bytes = self.unused();
        let end = bytes.len().min(head.message());
        Shown { head, body: &bytes[HEADER_BYTES..end], after: &bytes[end..] }
    }

    /// In the notification at the front, names the client that sent it, if it was one of ours; `own` is who holds the
    /// server connection.
    fn name_sender(&mut self, head: wire::Header, server: &Server, own: u32) {
        let message = self.used..self.used + head.message();
        let Some(message) = self.bytes.get_mut(message) else { return };
        let Ok(parts) = notification_parts(&message[HEADER_BYTES..]) else { return };
        let client = match &server.sender {
            _ if parts.process == server.process() => Some(own),
            Some(sender) => sender.client(parts.process),
            None => None,
        };
        if let Some(client) = client {
            set_notification_process(message, client);
        }
    }

    /// Whether a server's message is there, whole or, when it is long, enough of its front.
    fn has_control(&self, head: wire::Header) -> bool {
        self.bytes.len() - self.used >= head.message().min(CONTROL_BYTES_MAX)
    }

    /// Makes room for a message of this length at the front.
    fn want(&mut self, message: usize, run: &mut usize, out: &mut Outbox) {
        if self.used + message <= self.bytes.capacity() {
            return;
        }
        self.end_run(run, out);
        self.bytes.drain(..self.used);
        (self.used, *run) = (0, 0);
        // In steps, so that what a header promises costs nothing before it comes.
        let room = message.min(self.bytes.len() * 2).max(BUFFER_BYTES);
        self.bytes.reserve(room.saturating_sub(self.bytes.len()));
    }

    /// Copies the message at the front; false when it is not all there, or there is too much already.
    fn copy_front(&self, head: wire::Header, out: &mut Vec<u8>) -> bool {
        let message = self.unused().get(..head.message());
        let message = message.filter(|message| out.len() + message.len() <= BUFFER_BYTES / 2);
        message.inspect(|message| out.extend_from_slice(message)).is_some()
    }

    /// Puts messages in front of what has come.
    fn put_back(&mut self, messages: &[u8]) {
        self.bytes.splice(self.used..self.used, messages.iter().copied());
        self.wants_more = false;
    }

    /// The message at the front passes; what is there of it joins the run.
    fn pass(&mut self, message: usize) {
        let there = message.min(self.bytes.len() - self.used);
        self.used += there;
        self.rest = message - there;
        self.passes = true;
    }

    /// The message at the front goes no further.
    fn skip(&mut self, message: usize) {
        self.pass(message);
        self.passes = false;
    }

    /// Nothing of what has come is used.
    fn drop_all(&mut self) {
        self.used = self.bytes.len();
    }

    /// Passes on, or skips, what has come of a message under way. True when more of it is still to come.
    fn pass_rest(&mut self, run: &mut usize, out: &mut Outbox) -> bool {
        if self.rest > 0 {
            let there = self.rest.min(self.bytes.len() - self.used);
            if !self.passes {
                self.end_run(run, out);
                *run = self.used + there;
            }
            self.used += there;
            self.rest -= there;
        }
        self.rest > 0
    }

    /// Moves the run so far to the outbox.
    fn end_run(&mut self, run: &mut usize, out: &mut Outbox) {
        out.bytes.extend_from_slice(&self.bytes[*run..self.used]);
        *run = self.used;
    }

    /// Moves the last run, without copying it when it is all there is, and makes room for what comes next.
    fn finish_run(&mut self, run: usize, out: &mut Outbox) {
        let whole = run == 0 && self.used == self.bytes.len();
        if whole && out.bytes.is_empty() {
            std::mem::swap(&mut self.bytes, &mut out.bytes);
        } else {
            out.bytes.extend_from_slice(&self.bytes[run..self.used]);
            if self.used == self.bytes.len() {
                self.bytes.clear();
            } else {
                self.bytes.drain(..self.used);
            }
        }
        self.used = 0;
        if self.bytes.is_empty() && self.bytes.capacity() > BUFFER_BYTES {
            self.bytes = Vec::with_capacity(BUFFER_BYTES);
        }
    }
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
        let drained = stream.poll_drain(cx, &self.bytes, &mut self.written);
        if drained.is_ready() {
            self.clear();
            if self.bytes.capacity() > 4 * BUFFER_BYTES {
                self.bytes = Vec::with_capacity(BUFFER_BYTES);
            }
        }
        drained
    }
}

fn violation(error: wire::Error) -> Box<Report> {
    Box::new(Report::fatal(SqlState::PROTOCOL_VIOLATION, format!("protocol violation: {error}")))
}

fn nonsense(error: wire::Error) -> Box<Report> {
    let report = Report::fatal(SqlState::CONNECTION_LOST, "the server sent what the protocol does not allow");
    Box::new(report.detail(error.to_string()))
}

/// Whether an answer is an error of a replica that the primary would not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Not,
    /// The error is there, and ReadyForQuery is still to come.
    Begun(RefusedRead),
    Whole(RefusedRead),
}

/// Why a replica refuses, by its error; codes and the names of the server's routines are the same in all languages.
///
/// - 25006: it writes.
/// - 0A000 of `get_relation_info`, when the planner meets a table: it is unlogged, and a replica has nothing of it.
/// - 40001, and 40P01 when it was found as a deadlock: replication takes away what it reads. A read that is alone in its
///   transaction gets neither for any other cause.
///
/// A client's own cancel is 57014 and is never run again.
fn refused_read(fields: &ErrorFields) -> Option<RefusedRead> {
    if fields.is_fatal() {
        return None;
    }
    match fields.code() {
        "25006" => Some(RefusedRead::Lasting),
        "0A000" if fields.text(b'R') == Some("get_relation_info") => Some(RefusedRead::Lasting),
        "40001" | "40P01" => Some(RefusedRead::Once),
        _ => None,
    }
}

impl Refusal {
    fn of(mut answer: &[u8]) -> Refusal {
        let mut refusal = Refusal::Not;
        while let Ok(Some(head)) = header(answer) {
            let Some((message, rest)) = answer.split_at_checked(head.message()) else { return refusal };
            match head.tag {
                b'E' => {
                    let fields = ErrorFields::read(&message[HEADER_BYTES..]);
                    let Some(why) = refused_read(&fields) else { return Refusal::Not };
                    refusal = Refusal::Begun(why);
                }
                b'Z' => match refusal {
                    Refusal::Begun(why) if rest.is_empty() => return Refusal::Whole(why),
                    _ => return Refusal::Not,
                },
                _ => {}
            }
            answer = rest;
        }
        refusal
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::Write, net::TcpListener};

    use super::*;
    use crate::net::{Address, Tcp};

    fn use_up_the_share(cx: &mut Context<'_>) {
        while let Poll::Ready(turn) = coop::poll_proceed(cx) {
            turn.made_progress();
        }
    }

    /// An answer to a query: an error with these fields, and ReadyForQuery.
    fn failed(fields: &[(u8, &str)]) -> Vec<u8> {
        let fields = fields.iter().map(|(tag, text)| (*tag, text.as_bytes().to_vec())).collect();
        let mut answer = Vec::new();
        ErrorFields { fields }.write(b'E', &mut answer);
        answer.extend_from_slice(b"Z\0\0\0\x05I");
        answer
    }

    #[test]
    fn errors_that_only_a_replica_gives_are_told_from_all_others() {
        let cases: [(&[(u8, &str)], _); 8] = [
            (&[(b'V', "ERROR"), (b'C', "25006")], Refusal::Whole(RefusedRead::Lasting)),
            (&[(b'C', "0A000"), (b'R', "get_relation_info")], Refusal::Whole(RefusedRead::Lasting)),
            (&[(b'C', "0A000"), (b'R', "transformFromClause")], Refusal::Not),
            (&[(b'C', "40001"), (b'R', "ProcessInterrupts")], Refusal::Whole(RefusedRead::Once)),
            (&[(b'C', "40P01")], Refusal::Whole(RefusedRead::Once)),
            (&[(b'V', "FATAL"), (b'C', "40001")], Refusal::Not),
            // What a client's own cancel looks like.
            (&[(b'C', "57014"), (b'R', "ProcessInterrupts")], Refusal::Not),
            (&[(b'C', "42P01")], Refusal::Not),
        ];
        for (fields, refusal) in cases {
            let mut answer = failed(fields);
            assert_eq!(Refusal::of(&answer), refusal, "{fields:?}");
            // As long as its end is still to come, nothing is passed on.
            if let Refusal::Whole(why) = refusal {
                assert_eq!(Refusal::of(&answer[..answer.len() - 1]), Refusal::Begun(why));
                answer.extend_from_slice(&failed(&[(b'C', "42P01")]));
                assert_eq!(Refusal::of(&answer), Refusal::Not, "more was asked than is run again");
            }
        }
    }

    #[tokio::test]
    async fn what_comes_is_noticed_by_a_task_that_has_had_its_share() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let (mut stream, mut peer) =
            (Stream::connect(&address, Tcp::TO_SERVERS).await.unwrap(), listener.accept().unwrap().0);
        let mut inbox = Inbox::default();
        inbox.make_room();
        let mut turns = 0;
        let filled = poll_fn(|cx| {
            turns += 1;
            if turns == 1 {
                use_up_the_share(cx);
            }
            let filled = inbox.poll_fill(cx, &mut stream);
            assert_eq!(inbox.watched, filled.is_pending() && turns > 1);
            if turns == 2 {
                peer.write_all(b"x").unwrap();
            }
            filled
        });
        assert_eq!(filled.await.unwrap(), 1);
        assert_eq!(turns, 3);
    }
}
