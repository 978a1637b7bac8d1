//! Replication connections (manual, "Streaming Replication Protocol"): each has a server connection of its own, opened
//! for it with its startup parameters, and bytes pass both ways as they are. Messages are told apart only by their
//! headers, so that a client which is ordered to leave is told so between two of them.
//!
//! The limits of `[pool]` on statements and idle clients do not apply here: a stream idles and runs for as long as it
//! is wanted.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{
    errors::{self, AcquireError},
    relay::{Acquired, Worker, acquire_from},
};
use crate::{
    backend,
    clients::{ClientPlace, Entry, LeaveOrder},
    databases::{Beginning, Target, request_any},
    monitor::ClientReport,
    net::Stream,
};
use poolhouse_core::{
    session::Route,
    wire::{
        error::Report,
        frame::{HEADER_BYTES, header},
    },
};

/// Room of one direction's buffer, in bytes.
const BUFFER_BYTES: usize = 32 << 10;

/// How long the last message to a client may take to be written.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// Opens a server connection for one client that replicates: to the primary, or while there is none to a replica, which
/// can be streamed from as well.
pub async fn connect(
    target: &Arc<Target>,
    worker: &Worker,
    parameters: Vec<(String, String)>,
) -> Result<(Beginning, Acquired), AcquireError> {
    let pool = |node| target.own_pool(node, parameters.clone());
    let acquired = acquire_from(target, worker, request_any(target, Route::Auto), &pool).await?;
    let server = &acquired.0;
    let beginning = Beginning {
        settings: Arc::default(),
        reported: server.state.reported.clone(),
        about_server: server.state.about_itself.clone(),
        greeting: server.greeting.clone(),
        isolation: None,
    };
    Ok((beginning, acquired))
}

/// A client that replicates, and its server connection.
#[derive(Debug)]
pub struct Replication {
    client: Stream,
    lent: Acquired,
    target: Arc<Target>,
    entry: Entry,
    place: ClientPlace,
    to_server: Flow,
    to_client: Flow,
    /// The client has sent something that the server has not answered up to ReadyForQuery.
    busy: bool,
    /// The server streams WAL, which ends only when somebody ends it.
    streaming: bool,
}

/// Why nothing more passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamEnd {
    ClientGone,
    ServerGone,
    /// The node is not to be used any more as it was.
    Fenced,
    Ordered,
}

/// One direction: what has been read and not been written yet.
#[derive(Debug, Default)]
struct Flow {
    bytes: Vec<u8>,
    written: usize,
    /// Where in a message the last byte that was read is.
    frames: Frames,
    /// The reader's side has ended.
    ended: bool,
}

impl Replication {
    pub fn new(
        client: Stream,
        lent: Acquired,
        target: Arc<Target>,
        entry: Entry,
        place: ClientPlace,
    ) -> Box<Replication> {
        // Nothing of a client that has just logged in waits.
        let _ = entry.slot.attach(lent.0.canceler.clone(), false, Instant::now());
        Box::new(Replication {
            client,
            lent,
            target,
            entry,
            place,
            to_server: Flow::default(),
            to_client: Flow::default(),
            busy: false,
            streaming: false,
        })
    }

    /// Passes bytes until one side has ended, or the client is ordered to leave. The server connection is closed then:
    /// nobody else could use it.
    pub async fn run(mut self: Box<Self>) {
        poll_fn(|cx| {
            self.entry.slot.set_waker(cx.waker().clone());
            Poll::Ready(())
        })
        .await;
        let end = poll_fn(|cx| self.poll(cx)).await;
        let _ = self.entry.slot.detach();
        let last_words = match end {
            StreamEnd::ClientGone => return,
            StreamEnd::Ordered => Some(errors::ordered(self.entry.slot.order().unwrap_or(LeaveOrder::Abort))),
            StreamEnd::ServerGone => self.server_gone().await,
            StreamEnd::Fenced => {
                self.lent.0.stream.reset_at_close();
                Some(errors::server_lost(&self.target.cluster.node(self.lent.1).name))
            }
        };
        if let Some(report) = last_words.filter(|_| self.to_client.frames.is_between()) {
            tracing::info!(
                client = self.client.peer(),
                process = self.entry.slot.process,
                reason = report.message,
                "disconnecting a client that replicates"
            );
            report.write(&mut self.to_client.bytes);
        }
        // A client that does not read its last message goes without it.
        let farewell = self.client.write_all(&self.to_client.bytes[self.to_client.written..]);
        if let Ok(Ok(())) = timeout(FAREWELL_LIMIT, farewell).await {
            let Replication { mut client, mut place, entry, lent, .. } = *self;
            drop((entry, lent));
            place.leave();
            client.part().await;
        }
    }

    /// What the client has to be told: nothing when the server has said why, or the client wanted it. The end of one
    /// such connection says little of its node: it counts against it when the node takes no more logins.
    async fn server_gone(&self) -> Option<Report> {
        let wanted = self.to_server.ended || self.to_server.frames.last == Some(b'X');
        if wanted || self.to_client.frames.last == Some(b'E') {
            return None;
        }
        let (_, node) = self.lent;
        let name = &self.target.cluster.node(node).name;
        if !backend::knock(&self.target.login(node), self.target.cluster.connect_timeout).await {
            let reason = "a replication connection was closed, and the node takes no logins".to_owned();
            self.target.cluster.monitor.report(node, ClientReport::ServerLost { reason });
        }
        Some(errors::server_lost(name))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<StreamEnd> {
        loop {
            if self.lent.0.is_fenced() {
                return Poll::Ready(StreamEnd::Fenced);
            }
            let order = self.entry.slot.order();
            if order.is_some_and(LeaveOrder::is_at_once) {
                return Poll::Ready(StreamEnd::Ordered);
            }
            // A base backup or a query may end; a stream would not.
            let leaves = order.is_some() && (self.streaming || !self.busy);
            let sent = self.poll_to_server(cx);
            if let Poll::Ready(end) = self.poll_to_client(cx, leaves) {
                match end {
                    Some(end) => return Poll::Ready(end),
                    None => continue,
                }
            }
            if sent.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// From the client to the server. Ready when something has moved.
    fn poll_to_server(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (flow, server) = (&mut self.to_server, &mut self.lent.0.stream);
        if !flow.is_empty() {
            // What the server said before it closed the connection may still be there to be read.
            return flow.poll_drain(cx, server).map(drop);
        }
        if flow.ended {
            return Poll::Pending;
        }
        match flow.poll_fill(cx, &mut self.client) {
            Poll::Ready(Ok(0) | Err(_)) => {
                flow.ended = true;
                // Shutting down a socket does not wait.
                let _ = Pin::new(server).poll_shutdown(cx);
            }
            Poll::Ready(Ok(_)) => {
                self.busy = true;
                flow.frames.pass(&flow.bytes, |_| {});
            }
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(())
    }

    /// From the server to the client. Ready when something has moved, or with the end.
    fn poll_to_client(&mut self, cx: &mut Context<'_>, leaves: bool) -> Poll<Option<StreamEnd>> {
        let flow = &mut self.to_client;
        if !flow.is_empty() {
            let drained = flow.poll_drain(cx, &mut self.client);
            return drained.map(|drained| drained.err().map(|_| StreamEnd::ClientGone));
        }
        if leaves && flow.frames.is_between() {
            return Poll::Ready(Some(StreamEnd::Ordered));
        }
        match flow.poll_fill(cx, &mut self.lent.0.stream) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Some(StreamEnd::ServerGone)),
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => return Poll::Pending,
        }
        if leaves {
            let rest = flow.frames.rest_of_message(&flow.bytes);
            flow.bytes.truncate(rest);
        }
        let (busy, streaming) = (&mut self.busy, &mut self.streaming);
        flow.frames.pass(&flow.bytes, |tag| match tag {
            b'W' => *streaming = true,
            b'Z' => (*busy, *streaming) = (false, false),
            _ => {}
        });
        Poll::Ready(None)
    }
}

impl Flow {
    fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, from: &mut Stream) -> Poll<io::Result<usize>> {
        self.bytes.clear();
        self.written = 0;
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(BUFFER_BYTES);
        }
        from.poll_fill(cx, &mut self.bytes)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, into: &mut Stream) -> Poll<io::Result<()>> {
        let drained = into.poll_drain(cx, &self.bytes, &mut self.written);
        if matches!(drained, Poll::Ready(Err(_))) {
            self.written = self.bytes.len();
        }
        drained
    }
}

/// Where messages begin and end in a stream of bytes that passes in pieces.
#[derive(Debug, Default)]
struct Frames {
    /// A header of which only part has come.
    head: Vec<u8>,
    /// Bytes of the message at hand that are still to come.
    rest: usize,
    /// The type of the message that came last, or is under way.
    last: Option<u8>,
}

impl Frames {
    /// Whether the bytes so far end with a message.
    fn is_between(&self) -> bool {
        self.rest == 0 && self.head.is_empty()
    }

    /// Takes in what comes next, and names each message that begins in it.
    fn pass(&mut self, mut bytes: &[u8], mut begins: impl FnMut(u8)) {
        loop {
            let passed = self.rest.min(bytes.len());
            self.rest -= passed;
            bytes = &bytes[passed..];
            let lacking = HEADER_BYTES - self.head.len();
            let Some((part, after)) = bytes.split_at_checked(lacking) else { break };
            self.head.extend_from_slice(part);
            bytes = after;
            // A length that cannot be is left to the peer to complain about.
            if let Ok(Some(head)) = header(&self.head) {
                self.rest = head.body;
                self.last = Some(head.tag);
                begins(head.tag);
            }
            self.head.clear();
        }
        self.head.extend_from_slice(bytes);
    }

    /// How many of the bytes that come next belong to the message under way.
    fn rest_of_message(&self, bytes: &[u8]) -> usize {
        if self.rest > 0 || self.head.is_empty() {
            return self.rest.min(bytes.len());
        }
        let lacking = HEADER_BYTES - self.head.len();
        let Some(part) = bytes.get(..lacking) else { return bytes.len() };
        let body = header(&[&self.head, part].concat()).ok().flatten().map_or(0, |head| head.body);
        bytes.len().min(lacking + body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let stream = b"d\0\0\0\x08abcdZ\0\0\0\x05IX\0\0\0\x04";
        for size in 1..=stream.len() {
            let (mut frames, mut tags, mut ends) = (Frames::default(), Vec::new(), 0);
            for piece in stream.chunks(size) {
                frames.pass(piece, |tag| tags.push(tag));
                ends += usize::from(frames.is_between());
            }
            assert_eq!(tags, b"dZX", "{size}");
            assert!(frames.is_between() && ends >= 1);
        }
    }

    #[test]
    fn the_rest_of_a_message_is_found() {
        let stream = b"d\0\0\0\x08abcdZ\0\0\0\x05I";
        for cut in 1..9 {
            let mut frames = Frames::default();
            frames.pass(&stream[..cut], |_| {});
            assert_eq!(frames.rest_of_message(&stream[cut..]), 9 - cut, "{cut}");
            assert_eq!(frames.rest_of_message(&stream[cut..cut + 1]), 1);
        }
    }
}
