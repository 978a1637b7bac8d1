//! One server connection: connect, log in, query, clean, cancel, and how a pool handles it.

mod cancel;
mod clean;
mod connect;
mod defaults;
mod fence;
mod greeting;
mod logins;
mod manager;
mod query;
mod senders;

use std::{sync::Arc, thread::ThreadId, time::SystemTime};

use arc_swap::ArcSwap;

pub use cancel::cancel;
pub use clean::Mess;
pub use connect::{ConnectError, connect, knock};
pub use defaults::Defaults;
pub use fence::{Fence, Pass};
pub use greeting::Greeting;
pub use logins::{LoginFailure, Logins};
pub use manager::ServerManager;
pub use query::QueryError;
pub use senders::{Sender, Senders};

use crate::net::{Address, Ends, LiveTls, ServerTls, Stream, Tcp};
use poolhouse_core::{auth::Credential, session::ServerState, wire::startup::CancelKey};

/// Where and as whom to log in.
#[derive(Debug, Clone)]
pub struct ServerLogin {
    pub address: Address,
    pub database: String,
    pub user: String,
    /// Clones have the same one.
    pub credential: Arc<ArcSwap<Credential>>,
    /// Further startup parameters.
    pub parameters: Vec<(String, String)>,
    pub tcp: Tcp,
    pub tls: LiveTls,
}

/// A logged-in connection to a server, idle between two statements whenever it is not lent. In the order written, as
/// [`ServerState`].
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Server {
    pub stream: Stream,
    /// The thread whose event loop the socket is on.
    pub home: ThreadId,
    /// What cancels its statements; `None` when the server has given no key.
    pub canceler: Option<Arc<Canceler>>,
    pub state: ServerState,
    /// Whether its node is still what it was when this was opened; `None` for connections that are not a pool's.
    pub pass: Option<Pass>,
    /// Tells who has sent a notification; `None` for connections that are not a pool's.
    pub sender: Option<Sender>,
    /// What it said while it let us in; `None` when that was nothing.
    pub greeting: Option<Arc<Greeting>>,
}

// Five cache lines. Every idle server connection is one of these.
const _: () = assert!(size_of::<Server>() <= 320);

/// Where to ask for a cancel of what one server connection does, and its key.
#[derive(Debug, PartialEq, Eq)]
pub struct Canceler {
    pub address: Address,
    /// How the connection is encrypted, if it is: a request is, too.
    pub tls: Option<Arc<ServerTls>>,
    pub key: CancelKey,
    /// Of the connection itself, and when it was opened: for operators.
    pub ends: Ends,
    pub since: SystemTime,
}

impl Server {
    /// Moves the socket to the event loop of the calling thread, if it is on another.
    pub fn come_home(&mut self) -> std::io::Result<()> {
        let here = std::thread::current().id();
        if self.home == here {
            return Ok(());
        }
        self.stream.rehome()?;
        self.home = here;
        Ok(())
    }

    /// Whether its node has been fenced since it was opened: nothing more may be sent, and nothing that comes counts.
    #[inline]
    pub fn is_fenced(&self) -> bool {
        self.pass.as_ref().is_some_and(|pass| !pass.is_valid())
    }

    /// The process at the other end, 0 when it has not said.
    pub fn process(&self) -> u32 {
        self.canceler.as_ref().map_or(0, |canceler| canceler.key.process)
    }
}
