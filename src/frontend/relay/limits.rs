//! How long a client may take: its statements, its open transactions, its idling, and what it keeps a server connection
//! for. One of these limits runs at a time.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep};

use poolhouse_core::session;

/// How long a cancel of our own may take.
pub const CANCEL_LIMIT: Duration = Duration::from_secs(5);

/// Which limit runs. The number tells one statement from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientLimit {
    Nothing,
    /// A statement runs.
    Query(u32),
    IdleTransaction(u32),
    ClientIdle(u32),
    /// The client keeps its server connection.
    Pin(u32),
}

impl ClientLimit {
    /// For a client that idles, and keeps its server connection meanwhile, if it is pinned since then: the limit that
    /// ends first, and how much of it is left.
    pub fn of_idle(turn: u32, limits: &session::Settings, pinned: Option<Instant>) -> (ClientLimit, Option<Duration>) {
        let pinned = limits.pin_timeout.zip(pinned);
        let left = pinned.map(|(limit, since)| limit.saturating_sub(since.elapsed()));
        match (left, limits.client_idle_timeout) {
            (Some(left), idle) if idle.is_none_or(|idle| left < idle) => (ClientLimit::Pin(turn), Some(left)),
            (_, idle) => (ClientLimit::ClientIdle(turn), idle),
        }
    }
}

/// The limit that is running, if the pool has any.
#[derive(Debug)]
pub struct LimitTimer {
    sleep: Pin<Box<Sleep>>,
    runs: ClientLimit,
    /// The statement that has been cancelled already; it has a little time to end.
    canceled: Option<u32>,
}

impl LimitTimer {
    /// Belongs to the calling thread; `None` when there are no limits.
    pub fn new(limits: &session::Settings) -> Option<Box<LimitTimer>> {
        let limit = limits.query_timeout.or(limits.idle_transaction_timeout);
        let limit = limit.or(limits.client_idle_timeout).or(limits.pin_timeout)?;
        Some(Box::new(LimitTimer { sleep: Box::pin(sleep(limit)), runs: ClientLimit::Nothing, canceled: None }))
    }

    /// Ready when the `limit`, which `lasts` so long from its beginning on, is over.
    pub fn poll(&mut self, cx: &mut Context<'_>, limit: ClientLimit, lasts: Option<Duration>) -> Poll<ClientLimit> {
        let Some(lasts) = lasts else {
            self.runs = ClientLimit::Nothing;
            return Poll::Pending;
        };
        if self.runs != limit {
            self.runs = limit;
            self.sleep.as_mut().reset(tokio::time::Instant::now() + lasts);
        }
        self.sleep.as_mut().poll(cx).map(|()| limit)
    }

    /// A statement is over its time. Notes that it is being cancelled; false when it was before, in vain.
    pub fn has_time_to_cancel(&mut self, turn: u32) -> bool {
        let first = self.canceled != Some(turn);
        self.canceled = Some(turn);
        self.sleep.as_mut().reset(tokio::time::Instant::now() + CANCEL_LIMIT);
        first
    }
}
