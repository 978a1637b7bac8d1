//! One client's conversation, as a machine without sockets or clock. It is shown each message and answers with a
//! [`ClientStep`] or [`ServerStep`]; what it has to say itself it writes into the outboxes that it is handed.
//!
//! In transaction mode every kind of session state is virtual (names of statements), replayed (settings) or pins the
//! server connection to its client. Each kind has a place of its own:
//!
//! | kind of state                                   | where                                                        |
//! |-------------------------------------------------|--------------------------------------------------------------|
//! | what the server owes, status, holding            | `replies`; each entry's row: `owed`; the server process: `phase` |
//! | prepared statements of the client, of the server | `client_statements`, `server_statements`; texts that all share: `statements` |
//! | prepared again, under way                        | `prepare_again`, `statements_under_way`                      |
//! | names that SQL uses                              | `sql_names`                                                  |
//! | settings: replayed, put back behind RESET        | `replay`, `restore`; their values and texts: `carried`       |
//! | settings: asked for                              | `probe`; functions behind them: `inquiry`                    |
//! | who the session is, when that was refused        | `identity`                                                   |
//! | pins                                             | `pins`                                                       |
//! | transaction block, and where it runs             | `transaction_block`; where anything runs: `decide`           |
//! | listening                                        | `listen`                                                     |
//! | values of sequences                              | `sequences`                                                  |
//! | Poolhouse's own settings                         | `poolhouse_settings`                                               |
//! | what statements may have done since the release  | `effects`                                                    |
//! | a server connection that is lost                 | `loss`                                                       |
//!
//! # The order of the gates
//!
//! A message of the client (`client`) passes these, in this order; the first one that has an answer gives it:
//!
//! | gate                                                               | answer                        |
//! |--------------------------------------------------------------------|-------------------------------|
//! | the client must wait for a reply to us                             | `Hold`                        |
//! | the server process would drop it, or end (`phase`)                 | `Swallow`, or an error and the end |
//! | an error was answered here, and its Sync has not come              | `Swallow`, or ReadyForQuery   |
//! | a transaction was lost while it idled (`loss`)                     | the error                     |
//! | all statements or values of the login are being reset              | `Hold`                        |
//! | in the same batch all names are taken away, and it may use one     | `Hold`, with a Flush          |
//! | the session's settings were refused (`identity`)                   | the server's error            |
//! | a block waits, and a server is there (`transaction_block`)         | none: its BEGIN is sent first |
//! | channels have to come back from the hub (`listen`)                 | `NeedServer`, then `Hold`     |
//! | what the message itself is: `client` for queries, `prepared` for statements and portals | its own      |
//!
//! Within the last one, for a query or a Parse: too much is owed; it is not whole; the pool refuses it (`pins`); it begins or
//! ends a block that waits; it is about Poolhouse's own settings; it asks for values of sequences; it is a
//! DEALLOCATE of what no server knows by that name; it needs a server; it needs another server; names that it uses have to
//! be brought; then what it may do is noted, and it is sent.
//!
//! A message of the server (`server`) is about the entry in front of what is owed, and at a ReadyForQuery that ends all of it
//! this follows:
//!
//! | at ReadyForQuery                                                   | answer                        |
//! |--------------------------------------------------------------------|-------------------------------|
//! | the entry is ours: `replay`, `listen`, `probe`, `restore`, …       | its own                       |
//! | settings of our own and the block follow the transaction           | none                          |
//! | values of the login have to be put back (`restore`)                | it is withheld until then     |
//! | something is owed still, a transaction is open, or it is session mode | `Forward`                  |
//! | pins and draws of the transaction are noted (`pins`, `sequences`)  | none                          |
//! | only this connection has the unnamed statement, unbound            | `Forward`                     |
//! | the session may have changed (`probe`)                             | `Forward`, and the client is held |
//! | a pin begins or ends (`pins`)                                      | an error, when the pool refuses pins |
//! | channels can go to the hub (`listen`)                              | `Forward`                     |
//! | nothing keeps the server connection                                | `ForwardAndRelease`           |

mod ask;
mod carried;
mod client;
mod client_statements;
mod cluster_nodes;
mod counts;
mod database_code;
mod date_style;
mod decide;
mod effects;
mod explain;
mod identity;
mod inquiry;
mod keyed_queue;
mod listen;
mod loss;
mod owed;
mod phase;
mod pins;
mod pipeline;
mod poolhouse_settings;
mod prepare_again;
mod prepared;
mod probe;
mod replay;
mod replies;
mod reported;
mod restore;
mod sequences;
mod server;
mod server_statements;
mod shape;
mod similar_words;
mod sql_names;
mod statements;
mod statements_under_way;
mod steps;
#[cfg(test)]
mod tests;
mod transaction_block;
mod verbatim;

use std::{sync::Arc, time::Duration};

pub use carried::{Carried, Probe, ProbeAnswer, Replay};
pub use client::long_text;
pub use cluster_nodes::ClusterNodes;
pub use counts::SessionCounts;
pub use database_code::{CodeChange, DatabaseCode, Due};
pub use decide::Rule;
pub use explain::{NodeView, ROUTE_COLUMNS, RouteRow};
pub use listen::{Channel, Delivery, Errand, HubAddress, Mail, listen_to, overflow, read_marker, unlisten};
pub use loss::{AfterLoss, Ending, Loss};
pub use phase::Phase;
pub use pins::{OnPin, Pinned};
pub use pipeline::{Ended, EndedOnes, NewDefaults, Pipeline};
pub use poolhouse_settings::{PoolhouseSettings, Route, RouteBy, truth};
pub use replies::Replies;
pub use reported::{ParameterError, Reported};
pub use sequences::Drawn;
pub use server_statements::ServerStatements;
pub use shape::Shape;
pub use similar_words::nearest_word;
pub use statements::{Statement, Statements};

use self::{client_statements::ClientStatements, pins::Pins, sequences::Draws};
use crate::{
    sql::{Isolation, KnownText, Lists},
    wire::{self, error::Report},
};

/// When a client gives its server connection back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// When it disconnects.
    Session,
    /// When its transaction has ended.
    #[default]
    Transaction,
    /// After every statement; transaction blocks are refused.
    Statement,
}

/// How sessions of one database behave. The part of `[pool]` that is about conversations, not about lending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub mode: Mode,
    /// Prepared statements kept per server connection; 0 passes protocol-level names through unchanged and pins a
    /// client that prepares a named statement.
    pub prepared_statements: usize,
    /// A statement that runs longer is cancelled with SQLSTATE 57014.
    pub query_timeout: Option<Duration>,
    /// A transaction that idles longer ends its client with SQLSTATE 25P03.
    pub idle_transaction_timeout: Option<Duration>,
    /// A client that idles longer outside a transaction is disconnected with SQLSTATE 57P05.
    pub client_idle_timeout: Option<Duration>,
    pub on_pin: OnPin,
    /// A session that keeps its server connection for longer is disconnected with SQLSTATE 57P05, between two
    /// transactions.
    pub pin_timeout: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mode: Mode::Transaction,
            prepared_statements: 500,
            query_timeout: None,
            idle_transaction_timeout: None,
            client_idle_timeout: None,
            on_pin: OnPin::Allow,
            pin_timeout: None,
        }
    }
}

/// What a server is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Need {
    /// Surely only reading: a replica will do.
    Read,
    #[default]
    Write,
    /// Whatever it does, a replica: the client insists.
    Replica,
    /// This node of the cluster: the client insists.
    Node(u16),
}

impl Need {
    /// Whether a server connection that was lent for `self` will not do for `other`, if there is a choice.
    fn excludes(self, other: Need) -> bool {
        match (self, other) {
            (_, Need::Read) | (Need::Read | Need::Replica, Need::Replica) | (Need::Write, Need::Write) => false,
            (Need::Node(lent), Need::Node(other)) => lent != other,
            _ => true,
        }
    }
}

/// What is to be done with a client's message that was shown.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientStep {
    /// Pass it on as it is.
    Forward,
    /// The session has written what goes on in place of the first `rest` bytes of the message; what follows them passes
    /// unchanged.
    Replaced { rest: usize },
    /// The session has answered it itself, or has written what goes on in its place.
    Answered,
    /// It goes no further.
    Swallow,
    /// Show it again once a server connection is there.
    NeedServer(Need),
    /// Show it again once the server has answered what it owes.
    Hold,
    /// More of it must be there before it can be judged.
    More,
    /// The client gets this error and is disconnected.
    Fail(Box<Report>),
    /// The client said goodbye.
    Bye,
}

impl ClientStep {
    fn fail(report: Report) -> ClientStep {
        ClientStep::Fail(Box::new(report))
    }
}

/// What is to be done with a server's message that was shown.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerStep {
    /// Pass it on as it is.
    Forward,
    /// Pass it on, then call [`Session::answer_after_forward`].
    ForwardThenAnswer,
    /// Pass it on; the server connection is free then.
    ForwardAndRelease,
    /// It goes no further; the session may have written something in its place.
    Swallow,
    /// It goes no further; what the client has sent since the server connection was lent is to be shown once more.
    Repeat,
    /// It goes no further; the server connection is free.
    Release,
    /// The client gets this error and is disconnected; the server connection is not to be used again.
    Fail(Box<Report>),
}

impl ServerStep {
    fn fail(report: Report) -> ServerStep {
        ServerStep::Fail(Box::new(report))
    }
}

/// What all sessions of one database and user share.
#[derive(Debug)]
pub struct Shared {
    pub mode: Mode,
    /// As in [`Settings::prepared_statements`].
    pub statements_max: usize,
    pub on_pin: OnPin,
    /// Whether READ COMMITTED transactions read on replicas until they write; otherwise only those that cannot write do.
    pub reads_until_write: bool,
    /// What the configuration says of functions and tables, if anything.
    pub lists: Option<Arc<Lists>>,
    /// Of the cluster.
    pub nodes: Arc<ClusterNodes>,
    pub statements: Arc<Statements>,
    /// Shared with all users of the same database.
    pub code: Arc<DatabaseCode>,
}

impl Shared {
    /// Whether statements may go to more than one node.
    pub fn is_routed(&self) -> bool {
        self.mode != Mode::Session && self.nodes.is_routed()
    }
}

/// What is known of one server connection, from one client to the next. In the order written, so that what every statement
/// looks at lies together.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ServerState {
    /// The settings that were brought to it.
    pub settings: Arc<Carried>,
    pub reported: Arc<Reported>,
    /// Whose values of sequences it may hold.
    pub drawn: Drawn,
    /// The node of its cluster that it is on.
    pub node: u16,
    pub statements: ServerStatements,
    /// What it reports of itself rather than of the session.
    pub about_itself: Arc<Reported>,
    /// It has said that its role is another now; whoever takes that in resets it.
    pub turned: bool,
}

impl ServerState {
    /// The major version that it reports.
    fn version(&self) -> Option<u32> {
        let text = self.about_itself.get("server_version")?;
        text.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
    }

    /// Takes in the body of a ParameterStatus message. The answer says whether it is about the session.
    ///
    /// # Errors
    /// When the message is malformed, or the server reports too much.
    pub fn take_parameter(&mut self, body: &[u8]) -> Result<bool, ParameterError> {
        let (name, value) = wire::reply::parameter_status_parts(body)?;
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        let of_the_session = Reported::is_of_the_session(&name);
        if name == "in_hot_standby" {
            self.turned |= self.about_itself.get(&name).is_some_and(|before| before != value);
        }
        let reported = if of_the_session { &mut self.reported } else { &mut self.about_itself };
        Arc::make_mut(reported).set(&name, &value)?;
        Ok(of_the_session)
    }
}

/// Where verdicts come from, and what is known of the nodes.
pub trait Judge {
    fn verdict(&self, sql: &[u8]) -> Arc<KnownText>;

    /// Whether the verdict of a long text is known; others are judged at once.
    fn knows(&self, sql: &[u8]) -> bool;

    /// What the verdicts since the last call have cost: a text that had to be parsed is worth many messages. A judge whose
    /// caller has nobody else to serve need not say.
    fn take_effort(&self) -> u32 {
        0
    }

    /// The clients that have a server connection of this node now: their process ids, and those of the server processes.
    fn processes(&self, _node: u16) -> Vec<(u32, u32)> {
        Vec::new()
    }

    /// The nodes as they are now for something that needs this, and must see this WAL position.
    fn nodes(&self, need: Need, lsn: Option<u64>) -> Vec<NodeView>;
}

/// The outboxes of both directions.
#[derive(Debug)]
pub struct Outboxes<'a> {
    pub to_server: &'a mut Vec<u8>,
    pub to_client: &'a mut Vec<u8>,
}

/// A message of which at least the header has come.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    pub head: wire::Header,
    /// As much of the body as is there.
    pub body: &'a [u8],
    /// What follows the message in the buffer.
    pub after: &'a [u8],
}

impl Shown<'_> {
    pub fn is_whole(&self) -> bool {
        self.body.len() == self.head.body
    }
}

/// One client's conversation. Small while it idles: thousands of clients idle at once. In the order written, so that what
/// every statement looks at lies together.
#[derive(Debug)]
#[repr(C)]
pub struct Session {
    shared: Arc<Shared>,
    /// What the client has set, or will have once it is on a server.
    settings: Arc<Carried>,
    /// What ParameterStatus has told the client.
    reported: Arc<Reported>,
    /// Poolhouse's own settings, when they are not what they are for most.
    own: Option<Box<poolhouse_settings::SettingsState>>,
    /// The transaction block that the client has opened, when it was not opened on a server at once.
    block: Option<Box<transaction_block::Block>>,
    /// What the client listens to, if anything.
    listen: Option<Box<listen::Listening>>,
    /// The server connection was lost while the client idled in a transaction: told at its next message.
    lost: Option<Box<Report>>,
    /// A server has refused the session's settings: what to do with the message for which they were brought.
    refused: Option<Box<identity::Refused>>,
    /// Its prepared statements.
    prepared: ClientStatements,
    /// What it has drawn from sequences.
    draws: Draws,
    /// Why the server connection stays with the client between transactions.
    pins: Pins,
    /// An error has been answered without a server; everything up to Sync is skipped.
    skip_to_sync: bool,
    /// Something was sent since the last release that does not surely only read.
    wrote: bool,
    /// To a replica, on which the session insists.
    on_replica: bool,
    /// A text was sent since the last release that may itself notify.
    notified: bool,
    /// The process id that the client was given; 0 when it has its server process's own.
    process: u32,
    /// What comes next has been refused by a replica.
    refused_read: Option<RefusedRead>,
    /// The isolation of its transactions when nothing says otherwise, if that is known.
    default_isolation: Option<Isolation>,
    /// What it asked for when it connected: RESET returns to it.
    startup: Arc<Carried>,
    /// A number of its own, for [`Drawn`].
    number: u64,
}

/// Why a replica did not run what was taken for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedRead {
    /// Replication was in its way: the next time it may run there.
    Once,
    /// It cannot run on any replica.
    Lasting,
}

impl Session {
    /// A session that has logged in with `settings` and was told `reported`.
    pub fn new(shared: Arc<Shared>, settings: Arc<Carried>, reported: Arc<Reported>) -> Session {
        Session {
            number: shared.statements.next_session(),
            shared,
            startup: settings.clone(),
            settings,
            reported,
            prepared: ClientStatements::default(),
            pins: Pins::default(),
            own: None,
            block: None,
            default_isolation: None,
            listen: None,
            skip_to_sync: false,
            lost: None,
            refused: None,
            wrote: false,
            on_replica: false,
            notified: false,
            refused_read: None,
            process: 0,
            draws: Draws::default(),
        }
    }

    /// The same session, whose client was given this process id and reads it wherever a server would say its own. Where
    /// the client has one server process for as long as it stays, it reads that one's.
    pub fn with_process(mut self, process: u32) -> Session {
        self.process = if self.shared.mode == Mode::Session { 0 } else { process };
        self
    }

    /// The same session, whose transactions have this isolation when neither they nor its settings say otherwise.
    pub fn with_default_isolation(mut self, isolation: Option<Isolation>) -> Session {
        self.default_isolation = isolation;
        self
    }

    /// Whether what was sent since the server connection was lent may have written.
    pub fn wrote(&self) -> bool {
        self.wrote && !self.on_replica
    }

    /// Whether it surely only reads, wherever it runs.
    pub fn only_read(&self) -> bool {
        !self.wrote
    }

    /// Whether a text was sent since the server connection was lent that itself notifies, and not only by a trigger.
    pub fn notified(&self) -> bool {
        self.notified
    }

    /// Whether the client has named statements.
    pub fn has_statements(&self) -> bool {
        self.prepared.named().len() > 0
    }

    /// How many named statements the client has, and the bytes of their names and texts.
    pub fn statements_held(&self) -> (usize, usize) {
        (self.prepared.named().len(), self.prepared.named().bytes())
    }

    pub fn settings(&self) -> &Arc<Carried> {
        &self.settings
    }

    /// ParameterStatus for what the client believes otherwise.
    fn tell_news(&mut self, now: &Arc<Reported>, to_client: &mut Vec<u8>) {
        if self.reported == *now {
            return;
        }
        for (name, value) in self.reported.news(now) {
            wire::reply::parameter_status(name, value, to_client);
        }
        self.reported = now.clone();
    }
}

// Thousands of clients idle at once, and each statement looks at both.
const _: () = assert!(size_of::<Session>() <= 152);
const _: () = assert!(size_of::<Pipeline>() <= 480);
const _: () = assert!(size_of::<ServerState>() <= 192);
