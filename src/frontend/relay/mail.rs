//! LISTEN for clients that hold no server connection: one connection per database listens for all of them, its hub.
//!
//! Here is what a client's own task does about it; what mail means, and when channels move between a server connection
//! and the hub, is the session's business.

use std::sync::Arc;

use super::{exchange::Exchange, worker::Worker};
use crate::{
    backend::Server,
    clients::Slot,
    databases::{HubCommand, HubContact, HubSubscription, Mailbox, Target},
    frontend::listening,
};
use poolhouse_core::{
    session::{self, Delivery, Errand, HubAddress, Session},
    wire::error::Report,
};

/// One client's place at a hub, left when dropped.
#[derive(Debug)]
pub struct Subscription {
    subscriber: u64,
    encoding: Box<str>,
    contact: HubContact,
    mailbox: Arc<Mailbox>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // A hub that has ended needs no goodbye.
        let _ = self.contact.commands.send(HubCommand::Leave { subscriber: self.subscriber });
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
pub struct MailRound<'a> {
    pub target: &'a Arc<Target>,
    pub slot: &'a Arc<Slot>,
    pub worker: &'a Worker,
    pub session: &'a mut Session,
    pub subscription: &'a mut Option<Box<Subscription>>,
    pub exchange: &'a mut Option<Box<Exchange>>,
    pub server: Option<&'a mut Server>,
}

impl MailRound<'_> {
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
        let listening = Box::new(HubSubscription { channels, version, deliver, mailbox: mailbox.clone(), login });
        // A hub that has ended does so with Poolhouse: nothing more will come.
        let _ = contact.commands.send(HubCommand::Subscribe { subscriber: *subscriber, listening });
    }

    fn subscribe(&self, encoding: Box<str>) -> Option<Box<Subscription>> {
        let cluster = &self.target.cluster;
        cluster.senders.want();
        let database = self.target.server_database();
        let contact = cluster.hubs.contact(database, &encoding, |marker, commands, scope| {
            listening::start(cluster, database, marker, commands, scope);
        })?;
        let subscriber = cluster.hubs.next_subscriber();
        let mailbox = Arc::new(Mailbox::new(self.slot.clone()));
        Some(Box::new(Subscription { subscriber, encoding, contact, mailbox }))
    }
}
