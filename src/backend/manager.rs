//! How a pool opens, judges and ends server connections.

use std::{
    io,
    sync::Arc,
    thread::ThreadId,
    time::{Duration, Instant},
};

use super::{ConnectError, Defaults, Fence, Logins, Senders, Server, ServerLogin, connect};
use crate::pool::Manager;
use poolhouse_core::wire::{frame::HEADER_BYTES, header, request};

/// Opens the connections of one database and user on one node.
#[derive(Debug)]
pub struct ServerManager {
    login: ServerLogin,
    node: u16,
    fence: Arc<Fence>,
    senders: Arc<Senders>,
    /// Told of what servers report to new connections.
    defaults: Arc<Defaults>,
    /// Told of what comes of logins.
    logins: Arc<Logins>,
    connect_timeout: Duration,
}

impl ServerManager {
    /// `node` is the number of the node in its cluster.
    pub fn new(
        login: ServerLogin,
        node: u16,
        fence: Arc<Fence>,
        senders: Arc<Senders>,
        defaults: Arc<Defaults>,
        logins: Arc<Logins>,
        connect_timeout: Duration,
    ) -> ServerManager {
        ServerManager { login, node, fence, senders, defaults, logins, connect_timeout }
    }

    /// The database that its connections are in, by its name on the server.
    pub fn database(&self) -> &str {
        &self.login.database
    }

    /// As whom its connections log in.
    pub fn user(&self) -> &str {
        &self.login.user
    }
}

impl Manager for ServerManager {
    /// Boxed, since it moves often: to the pool, to a client and back.
    type Connection = Box<Server>;
    type Error = ConnectError;

    async fn open(&self) -> Result<Box<Server>, ConnectError> {
        // Before anything is known of the node as it is now.
        let pass = self.fence.pass();
        let opened = connect(&self.login, self.connect_timeout).await;
        match &opened {
            Ok(server) => tracing::debug!(address = %self.login.address, database = self.login.database,
                user = self.login.user, process = server.process(), "opened a server connection"),
            Err(error) => {
                self.logins.fail(self.node, error, Instant::now());
                if error.is_definite() {
                    // Nobody is let in any more because somebody was before.
                    self.defaults.change();
                }
                tracing::debug!(address = %self.login.address, database = self.login.database,
                    user = self.login.user, %error, "could not open a server connection");
            }
        }
        opened.map(|mut server| {
            server.state.node = self.node;
            server.pass = Some(pass);
            self.defaults.note(self.node, &server.state.reported);
            server.sender = Some(self.senders.enter(self.node, server.process()));
            Box::new(server)
        })
    }

    /// What an idle server may have said is taken in: changed parameters and notices. The end of the stream or anything
    /// else means that the connection is gone.
    fn is_fit(server: &mut Box<Server>) -> bool {
        !server.is_fenced() && (!server.stream.has_news() || is_fit_by_its_news(server))
    }

    fn retire(mut server: Box<Server>) {
        // A server that does not take the goodbye finds out by the end of the stream.
        let _ = server.stream.try_write(&request::TERMINATE);
    }

    fn home(server: &Box<Server>) -> ThreadId {
        server.home
    }

    fn is_lasting(error: &ConnectError) -> bool {
        error.is_definite()
    }

    fn note_trouble(&self, troubled: bool) {
        self.logins.set_troubled(self.node, troubled);
    }
}

fn is_fit_by_its_news(server: &mut Server) -> bool {
    let mut buffer = [0; 4096];
    match server.stream.try_read(&mut buffer) {
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        Ok(0) => false,
        Ok(count) => take_in(server, &buffer[..count]),
    }
}

fn take_in(server: &mut Server, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Ok(Some(head)) = header(bytes) else { return false };
        let Some((message, rest)) = bytes.split_at_checked(head.message()) else { return false };
        match head.tag {
            b'S' if server.state.take_parameter(&message[HEADER_BYTES..]).is_ok() => {}
            b'N' | b'A' => {}
            _ => return false,
        }
        bytes = rest;
    }
    true
}
