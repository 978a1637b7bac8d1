//! Making a server connection fit for the next client after one has left in the middle of something.

use std::{sync::Arc, time::Duration};

use super::Server;
use poolhouse_core::session::{Carried, Drawn};

/// What a client has left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mess {
    /// A transaction is open.
    pub transaction: bool,
    /// State other than what is replayed for every client, or not known.
    pub session: bool,
}

/// How long the cleaning of one connection may take before it is closed instead.
const CLEAN_LIMIT: Duration = Duration::from_secs(5);

impl Server {
    /// Whether the connection is clean now. Only what was touched is cleaned; a clean connection costs nothing. When
    /// the answer is no, it must be closed.
    pub async fn clean(&mut self, mess: Mess) -> bool {
        if mess.transaction && self.query("ROLLBACK", CLEAN_LIMIT).await.is_err() {
            return false;
        }
        if mess.session {
            if self.query("DISCARD ALL", CLEAN_LIMIT).await.is_err() {
                return false;
            }
            self.state.settings = Arc::new(Carried::default());
            self.state.statements.reset();
            self.state.drawn = Drawn::Nobodys;
        }
        true
    }
}
