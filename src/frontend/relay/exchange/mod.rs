//! Moving bytes between a client and the server connection that it holds: both directions at once, each with a bounded
//! buffer. A side is read only as far as its buffer goes when what it sent before cannot be passed on, so a peer that
//! does not read stops the other one instead of filling memory; and the end of a client is seen whatever it waits for.
//! What messages mean is the session's business: `from_client` and `from_server` show them to it, and `buffers` hold
//! them. Both directions are driven from here.

mod buffers;
mod from_client;
mod from_server;

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

use self::buffers::{BUFFER_BYTES, Inbox, Outbox};
use super::{
    counting::{CountedFor, Counting},
    resend::Resend,
};
use crate::{
    backend::Server,
    databases::{LastWrite, Latency},
    metrics::Count,
    net::Stream,
};
use poolhouse_core::{
    session::{self, Judge, Need, Outboxes, Pipeline, RefusedRead, Session},
    topology::NodeId,
    wire::{error::Report, header},
};

/// How often it is asked whether a client has gone whose end cannot be read yet.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When this much waits to be written, no more messages are looked at before it is gone.
const OUTBOX_BYTES_MAX: usize = 64 << 10;

/// How much is looked at for one client before others have their turn, in messages that cost little; tens of them take
/// as long as one text that has to be parsed.
const TURN_EFFORT: u32 = 1024;

/// What a client that is busy holds; one that idles outside a transaction holds none of it. In the order written, so
/// that what every turn looks at lies together.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Exchange {
    from_client: Inbox,
    presence: Presence,
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
    /// The client's process id, as it knows it.
    process: u32,
    to_server: Outbox,
    to_client: Outbox,
    from_server: Inbox,
    /// What the session says itself, before it takes its place in the outboxes.
    said_to_client: Vec<u8>,
    said_to_server: Vec<u8>,
    resend: Resend,
    /// Who else must see what is written here: noted before the client hears that it is done.
    writes: Option<Arc<LastWrite>>,
    pub pipeline: Pipeline,
    pub counting: Counting,
    /// How long a statement may take before it is told of.
    slow: Option<Duration>,
    /// A read was sent then to a node whose time to answer is measured.
    timed: Option<(Instant, Arc<Latency>)>,
    /// When it is asked next whether a client has gone that is not read.
    look: Option<Pin<Box<Sleep>>>,
}

/// Whether the client is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Presence {
    #[default]
    Here,
    /// It has said its last, and may hear the answers to what it had said.
    Hears {
        /// Some of them were written for it since that was asked last.
        told: bool,
    },
    /// What is still owed to it is read and thrown away.
    Gone,
}

// Every busy client holds one; each worker keeps some for the next.
const _: () = assert!(size_of::<Exchange>() <= 1216);

/// What stops the moving of bytes.
#[derive(Debug)]
pub enum ExchangeEvent {
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
        self.resend.begin(matches!(need, Need::Read | Need::Replica), session.has_statements());
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
        self.resend.end();
        self.writes = None;
        self.timed = None;
        self.counting.give_up();
    }

    /// The server connection was lost before it answered anything, and what it was asked only reads: puts it back, to
    /// be asked of another. False when that is not so.
    pub fn take_back(&mut self, session: &mut Session) -> bool {
        let whole = self.from_client.rest == 0 && session.only_read();
        let Some(sent) = self.resend.take_reads().filter(|_| whole) else { return false };
        session.take_back_block(&self.pipeline);
        self.detach();
        self.from_client.put_back(&sent);
        true
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
        (self.presence, self.exhausted) = (Presence::Here, false);
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
        self.resend.stop_withholding(&mut self.to_client.bytes);
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

    /// The client has left. What it has said is done all the same, as far as that can be, and answered for as long as it
    /// hears that: a goodbye behind a request, or the end of what is sent, is not the end of what is read.
    pub fn desert(&mut self) {
        self.presence = Presence::Hears { told: false };
    }

    pub fn is_deserted(&self) -> bool {
        self.presence != Presence::Here
    }

    /// Whether a client that has left has heard something since this was asked last.
    pub fn has_told(&mut self) -> bool {
        let Presence::Hears { told } = &mut self.presence else { return false };
        std::mem::take(told)
    }

    /// Whether something waits for a client that has left to read it.
    pub fn is_telling(&self) -> bool {
        self.is_deserted() && !self.to_client.is_empty()
    }

    /// A client that has left does not read what it is answered.
    pub fn stop_telling(&mut self) {
        self.presence = Presence::Gone;
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
    ) -> Poll<ExchangeEvent> {
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
    ) -> Poll<ExchangeEvent> {
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
            if !(turn.moved || self.is_deserted() && self.say_last()) {
                break;
            }
        }
        self.counting.pause();
        let unattached = server.is_none();
        if self.is_deserted() {
            return if self.to_client.is_empty() && (unattached || self.is_over()) {
                Poll::Ready(ExchangeEvent::Done)
            } else {
                Poll::Pending
            };
        }
        // Whoever is not read now, since the server has to answer first or does not read, may leave all the same.
        if !turn.client_is_dry && self.poll_gone(turn.cx, client).is_ready() {
            return Poll::Ready(ExchangeEvent::Left);
        }
        if unattached && self.from_client.is_empty() && self.from_client.rest == 0 && self.to_client.is_empty() {
            return Poll::Ready(ExchangeEvent::Idle);
        }
        Poll::Pending
    }

    /// Reads ahead while the client has to wait, to notice when it leaves. Ready when it has left.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>, client: &mut Stream) -> Poll<()> {
        if self.is_deserted() {
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
        if !self.has_said_all() || self.is_cut() || self.awaits_answers() {
            return false;
        }
        // On a direct connection it would hear nothing of a batch that it has not ended.
        self.stop_telling();
        let mut out = Outboxes { to_server: &mut self.to_server.bytes, to_client: &mut self.said_to_client };
        self.pipeline.owed.say_last(&mut out)
    }

    /// Whether the server answers something that the client has ended itself, without a word more.
    fn awaits_answers(&self) -> bool {
        self.pipeline.owed.ready_owed() > 0 && !self.pipeline.owed.phase().is_copying()
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

    fn write_client(&mut self, client: &mut Stream, turn: &mut Turn<'_, '_>) -> Option<ExchangeEvent> {
        if self.to_client.is_empty() {
            return None;
        }
        if self.presence == Presence::Gone {
            self.to_client.clear();
            turn.moved = true;
            return None;
        }
        let before = self.to_client.written;
        let flushed = self.poll_flush_client(turn.cx, client);
        if let Presence::Hears { told } = &mut self.presence {
            *told |= matches!(flushed, Poll::Ready(Ok(()))) || self.to_client.written > before;
        }
        match flushed {
            Poll::Ready(Ok(())) => turn.moved = true,
            Poll::Ready(Err(_)) if self.is_deserted() => {
                self.stop_telling();
                self.to_client.clear();
                turn.moved = true;
            }
            Poll::Ready(Err(_)) => return Some(ExchangeEvent::Left),
            Poll::Pending => {}
        }
        None
    }

    /// What is sent next is a read, and it counts how long its answer takes.
    pub fn time(&mut self, latency: &Arc<Latency>) {
        self.timed = Some((Instant::now(), latency.clone()));
    }
}

impl Turn<'_, '_> {
    fn spend(&mut self, effort: u32) {
        self.left = self.left.saturating_sub(effort);
    }

    /// The others' turn; this task goes on behind them.
    fn end(cx: &Context<'_>) -> Poll<ExchangeEvent> {
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
