//! How sessions reach the hub of their database: the one connection that listens for all of its clients.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::mailbox::Mailbox;
use crate::{backend::ServerLogin, tasks::Scope};
use poolhouse_core::session::Channel;

/// What a session asks for.
#[derive(Debug)]
pub enum HubCommand {
    Subscribe { subscriber: u64, listening: Box<HubSubscription> },
    Leave { subscriber: u64 },
}

/// What one session listens to from now on.
#[derive(Debug)]
pub struct HubSubscription {
    pub channels: Arc<[Channel]>,
    pub version: u32,
    /// Whether notifications are delivered from the moment that they are listened to, without a marker.
    pub deliver: bool,
    pub mailbox: Arc<Mailbox>,
    /// As whom to connect, if need be.
    pub login: ServerLogin,
}

/// The hubs of one cluster, each made when somebody first listens.
#[derive(Debug)]
pub struct Hubs {
    scope: Scope,
    /// By the server's name of the database, and the encoding of the clients.
    hubs: Mutex<HashMap<(String, String), HubContact>>,
    next: AtomicU64,
}

/// How sessions reach a hub.
#[derive(Debug, Clone)]
pub struct HubContact {
    pub marker: Arc<str>,
    pub commands: UnboundedSender<HubCommand>,
}

impl Hubs {
    /// Hubs end when `scope` is asked to stop.
    pub fn new(scope: Scope) -> Hubs {
        Hubs { scope, hubs: Mutex::default(), next: AtomicU64::new(1) }
    }

    /// Ends them; resolves when they have said goodbye to their servers.
    pub async fn close(&self) {
        self.scope.stop();
        self.scope.ended().await;
    }

    /// The hub of a database (its name on the server); `start` starts one that has this marker and takes these
    /// commands, below this scope. `None` when the system has no random numbers: the client goes on with its server
    /// connection.
    pub fn contact(
        &self,
        database: &str,
        encoding: &str,
        start: impl FnOnce(Arc<str>, UnboundedReceiver<HubCommand>, &Scope),
    ) -> Option<HubContact> {
        let mut hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (database.to_owned(), encoding.to_owned());
        if let Some(contact) = hubs.get(&key).filter(|contact| !contact.commands.is_closed()) {
            return Some(contact.clone());
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random).ok()?;
        // Other Poolhouse nodes may be in front of the same database.
        let marker: Arc<str> = format!("poolhouse_{:016x}", u64::from_be_bytes(random)).into();
        let (sender, commands) = unbounded_channel();
        start(marker.clone(), commands, &self.scope);
        let contact = HubContact { marker, commands: sender };
        hubs.insert(key, contact.clone());
        Some(contact)
    }

    /// The number of one more session that listens.
    pub fn next_subscriber(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}
