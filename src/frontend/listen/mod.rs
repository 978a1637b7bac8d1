//! LISTEN for clients that hold no server connection: one connection per database listens for all of them.
//!
//! `hub` is that connection, `mailbox` what it has for one client. Here is what a client's own task does about both; what
//! mail means, and when channels move between a server connection and the hub, is the session's business.

mod hub;
mod mailbox;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use self::{
    hub::{Audience, Command, Hub, Wish},
    mailbox::Mailbox,
};
use super::{cluster::Cluster, exchange::Exchange, registry::Slot, target::Target, worker::Worker};
use crate::{backend::Server, tasks::Scope};
use poolhouse_core::{
    session::{self, Delivery, Errand, HubAddress, Session},
    wire::error::Report,
};

/// The hubs of one cluster, each made when somebody first listens.
#[derive(Debug)]
pub struct Hubs {
    scope: Scope,
    /// By the server's name of the database, and the encoding of the clients.
    hubs: Mutex<HashMap<(String, String), Contact>>,
    next: AtomicU64,
}

/// How sessions reach a hub.
#[derive(Debug, Clone)]
struct Contact {
    marker: Arc<str>,
    commands: UnboundedSender<Command>,
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

    /// `None` when the system has no random numbers: the client goes on with its server connection.
    fn contact(&self, cluster: &Arc<Cluster>, database: &str, encoding: &str) -> Option<Contact> {
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
        let hub = Hub {
            cluster: cluster.clone(),
            database: database.to_owned(),
            marker: marker.clone(),
            commands,
            scope: self.scope.clone(),
            audience: Audience::default(),
            writes: cluster.writes.of(database),
        };
        self.scope.spawn("listen for clients", hub.run());
        let contact = Contact { marker, commands: sender };
        hubs.insert(key, contact.clone());
        Some(contact)
    }
}

/// One client's place at a hub, left when dropped.
#[derive(Debug)]
pub struct Subscription {
    subscriber: u64,
    encoding: Box<str>,
    contact: Contact,
    mailbox: Arc<Mailbox>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // A hub that has ended needs no goodbye.
        let _ = self.contact.commands.send(Command::Leave { subscriber: self.subscriber });
    }
}

/// What came of a look at the mail.
#[derive(Debug)]
pub enum Attended {
    Nothing,
    /// There is something to be written.
    Moved,
    /// The client is told this and disconnected.
    Failed(Box<Report>),
}

/// What a client's task has at hand for its session that listens.
pub struct Listener<'a> {
    pub target: &'a Arc<Target>,
    pub slot: &'a Arc<Slot>,
    pub worker: &'a Worker,
    pub session: &'a mut Session,
    pub subscription: &'a mut Option<Box<Subscription>>,
    pub exchange: &'a mut Option<Box<Exchange>>,
    pub server: Option<&'a mut Server>,
}

impl Listener<'_> {
    /// Runs the session's errands, takes its mail in, and begins to move its channels when that is possible.
    pub fn attend(&mut self) -> Attended {
        while let Some(errand) = self.session.errand() {
            self.run_errand(errand);
        }
        let Some(subscription) = &self.subscription else { return Attended::Nothing };
        let mailbox = &subscription.mailbox;
        if !mailbox.has_mail() {
            return Attended::Nothing;
        }
        if mailbox.is_overflowed() {
            return Attended::Failed(Box::new(session::overflow()));
        }
        let exchange = self.exchange.get_or_insert_with(|| self.worker.exchange());
        let pressed = mailbox.is_pressed();
        let Some((pipeline, mut out, room)) = exchange.between_messages() else { return Attended::Nothing };
        let quiet = pressed || pipeline.owed.is_quiet();
        let mut moved = mailbox.open(|mail| {
            let delivery = match out.to_client.len() < room {
                false => Delivery::Full,
                true if quiet => Delivery::Quiet,
                true => Delivery::Busy,
            };
            self.session.on_mail(mail, delivery, pipeline, out.to_client)
        });
        if let Some(server) = self.server.as_deref_mut() {
            moved |= self.session.hand_over(pipeline, &mut server.state, &mut out);
        }
        exchange.resume();
        if moved { Attended::Moved } else { Attended::Nothing }
    }

    fn run_errand(&mut self, errand: Errand) {
        let Errand::Subscribe { channels, encoding, version, deliver } = errand else {
            *self.subscription = None;
            return;
        };
        if self.subscription.as_ref().is_none_or(|known| known.encoding != encoding) {
            *self.subscription = self.subscribe(encoding);
        }
        let Some(subscription) = &self.subscription else { return };
        let Subscription { subscriber, contact, mailbox, .. } = &**subscription;
        self.session.set_hub(HubAddress { marker: contact.marker.clone(), subscriber: *subscriber });
        let login = self.target.login_for_listening(&subscription.encoding);
        let wish = Box::new(Wish { channels, version, deliver, mailbox: mailbox.clone(), login });
        // A hub that has ended does so with Poolhouse: nothing more will come.
        let _ = contact.commands.send(Command::Subscribe { subscriber: *subscriber, wish });
    }

    fn subscribe(&self, encoding: Box<str>) -> Option<Box<Subscription>> {
        let cluster = &self.target.cluster;
        cluster.senders.want();
        let contact = cluster.hubs.contact(cluster, self.target.server_database(), &encoding)?;
        let subscriber = cluster.hubs.next.fetch_add(1, Ordering::Relaxed);
        let mailbox = Arc::new(Mailbox::new(self.slot.clone()));
        Some(Box::new(Subscription { subscriber, encoding, contact, mailbox }))
    }
}
