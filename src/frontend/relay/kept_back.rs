//! A server connection on which a session has just drawn from sequences, kept back from its pool for a moment: the next
//! statement may ask for the values, and another session would draw over them.
//!
//! It is kept for [`KEPT_MAX`] at most, not when others wait for one, and until the session's next statement: one that
//! does not ask gives it back first, so that a session which writes without pause gets its connections in turn, as all
//! others do. A session that never asks has kept connections idle for [`IN_VAIN_MAX`] in all.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep};

use super::lending::Acquired;

/// Clients that ask at all do so at once, and who comes meanwhile may have to wait for it.
const KEPT_MAX: Duration = Duration::from_millis(10);
const IN_VAIN_MAX: Duration = Duration::from_secs(1);

/// What a session has kept back, if anything, and for how long it has done so.
#[derive(Debug, Default)]
pub struct KeptBack {
    held: Option<KeptConnection>,
    in_vain: Duration,
}

#[derive(Debug)]
struct KeptConnection {
    acquired: Acquired,
    since: Instant,
    limit: Pin<Box<Sleep>>,
}

impl KeptBack {
    /// Keeps a connection that could go back to its pool, or gives it back. Needs a runtime.
    pub fn keep(&mut self, acquired: Acquired) {
        self.end();
        if self.in_vain >= IN_VAIN_MAX || acquired.0.is_wanted() {
            acquired.0.give_back();
        } else {
            self.held = Some(KeptConnection { acquired, since: Instant::now(), limit: Box::pin(sleep(KEPT_MAX)) });
        }
    }

    /// Takes it, for a statement of the session.
    pub fn take(&mut self) -> Option<Acquired> {
        let held = self.held.take()?;
        self.in_vain += held.since.elapsed();
        Some(held.acquired)
    }

    /// Gives it back to its pool.
    pub fn end(&mut self) {
        if let Some(acquired) = self.take() {
            acquired.0.give_back();
        }
    }

    /// Gives it back once its time is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(held) = &mut self.held
            && let Poll::Ready(()) = held.limit.as_mut().poll(cx)
        {
            self.end();
        }
    }
}

impl Drop for KeptBack {
    fn drop(&mut self) {
        self.end();
    }
}
