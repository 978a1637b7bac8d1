//! The buffers of one direction: what has come and is to be looked at, and what is to be written.

use std::{
    io,
    task::{Context, Poll},
};

use tokio::task::coop;

use crate::{backend::Server, net::Stream};
use poolhouse_core::{
    session::Shown,
    wire::{
        self,
        frame::HEADER_BYTES,
        reply::{notification_parts, set_notification_process},
    },
};

/// Room of one buffer, in bytes.
pub(super) const BUFFER_BYTES: usize = 16 << 10;

/// Longest message of a server that is gathered to be looked into; of a longer one only the front is shown.
pub(super) const CONTROL_BYTES_MAX: usize = 64 << 10;

/// Bytes that have come, and how far they have been used.
#[derive(Debug, Default)]
pub struct Inbox {
    pub(super) bytes: Vec<u8>,
    pub(super) used: usize,
    /// Bytes of the message under way that are still to come or to be passed on, and where they go.
    pub(super) rest: usize,
    pub(super) passes: bool,
    /// The front message cannot be judged before more of it is there.
    pub(super) wants_more: bool,
    /// The client's task is woken when something comes: until then there is no need to ask.
    pub(super) watched: bool,
}

/// Bytes to be written, and how far they have been.
#[derive(Debug, Default)]
pub struct Outbox {
    pub(super) bytes: Vec<u8>,
    pub(super) written: usize,
}

impl Inbox {
    pub(super) fn unused(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == self.bytes.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() < self.bytes.capacity()
    }

    /// The first time that it is needed, a buffer gets its room.
    pub(super) fn make_room(&mut self) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(BUFFER_BYTES);
        }
    }

    pub(super) fn reset(&mut self) {
        self.bytes.clear();
        (self.used, self.rest, self.passes, self.wants_more) = (0, 0, false, false);
        self.watched = false;
    }

    /// Appends what has come. Always of one stream and in one task between two calls of [`Inbox::reset`].
    #[inline]
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<usize>> {
        if self.watched && !stream.has_news() {
            return Poll::Pending;
        }
        let filled = stream.poll_fill(cx, &mut self.bytes);
        // A task that has had its share of this turn is told to wait, too, but only for its next turn.
        self.watched = filled.is_pending() && coop::has_budget_remaining();
        filled
    }

    /// The message at the front, as much of it as is there.
    pub(super) fn shown(&self, head: wire::Header) -> Shown<'_> {
        let bytes = self.unused();
        let end = bytes.len().min(head.message());
        Shown { head, body: &bytes[HEADER_BYTES..end], after: &bytes[end..] }
    }

    /// In the notification at the front, names the client that sent it, if it was one of ours; `own` is who holds the
    /// server connection.
    pub(super) fn name_sender(&mut self, head: wire::Header, server: &Server, own: u32) {
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
    pub(super) fn has_control(&self, head: wire::Header) -> bool {
        self.bytes.len() - self.used >= head.message().min(CONTROL_BYTES_MAX)
    }

    /// Makes room for a message of this length at the front.
    pub(super) fn want(&mut self, message: usize, run: &mut usize, out: &mut Outbox) {
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

    /// The message at the front, when all of it is there.
    pub(super) fn front(&self, head: wire::Header) -> Option<&[u8]> {
        self.unused().get(..head.message())
    }

    /// Puts messages in front of what has come.
    pub(super) fn put_back(&mut self, messages: &[u8]) {
        self.bytes.splice(self.used..self.used, messages.iter().copied());
        self.wants_more = false;
    }

    /// The message at the front passes; what is there of it joins the run.
    pub(super) fn pass(&mut self, message: usize) {
        let there = message.min(self.bytes.len() - self.used);
        self.used += there;
        self.rest = message - there;
        self.passes = true;
    }

    /// The message at the front goes no further.
    pub(super) fn skip(&mut self, message: usize) {
        self.pass(message);
        self.passes = false;
    }

    /// Nothing of what has come is used.
    pub(super) fn drop_all(&mut self) {
        self.used = self.bytes.len();
    }

    /// Passes on, or skips, what has come of a message under way. True when more of it is still to come.
    pub(super) fn pass_rest(&mut self, run: &mut usize, out: &mut Outbox) -> bool {
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
    pub(super) fn end_run(&mut self, run: &mut usize, out: &mut Outbox) {
        out.bytes.extend_from_slice(&self.bytes[*run..self.used]);
        *run = self.used;
    }

    /// Moves the last run, without copying it when it is all there is, and makes room for what comes next.
    pub(super) fn finish_run(&mut self, run: usize, out: &mut Outbox) {
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
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }

    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
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
