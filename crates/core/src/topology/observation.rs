//! What the driver tells the machine, and what the machine asks of the driver.

use std::time::Instant;

use super::{NodeId, Role};

/// What one node said when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeProbe {
    /// Just before the question was sent: what was committed before that is at or below a primary's `lsn`.
    pub started: Instant,
    /// Whether it is in recovery.
    pub role: Role,
    /// On a primary the timeline that it writes, on a replica the one that it receives or last reached; 0 = not told.
    pub timeline: u32,
    /// `None` = the user that asks may not see it; the node then counts as one of the cluster.
    pub system_identifier: Option<u64>,
    /// WAL position: inserted on a primary, replayed on a replica.
    pub lsn: u64,
    /// WAL position that a replica has received and flushed; the same as `lsn` on a primary.
    pub received: u64,
    /// A replica's receiver of WAL; `None` = no such process.
    pub receiver: Option<Receiver>,
    /// How many receivers it sends WAL to; on a replica that is a cascade.
    pub senders: u32,
}

/// `pg_stat_wal_receiver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receiver {
    /// It holds its connection to the sender. Also true when the user that asks may not see the status: the process is there.
    pub streaming: bool,
    /// When something came over that connection last, by the replica's own account; `None` = not told.
    pub heard: Option<Instant>,
}

impl NodeProbe {
    /// Whether this is a replica that holds its connection to the server that it follows. A server that hangs, and a network
    /// that swallows what it sends, leave such a connection in place for `wal_receiver_timeout`, 60 s by default.
    pub fn hears_primary(&self) -> bool {
        self.role == Role::Replica && self.receiver.is_some_and(|receiver| receiver.streaming)
    }
}

/// What became of [`Action::Inquire`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Testimony {
    /// The server that the replica follows has answered it.
    Answered,
    /// The replica has asked, and nothing came; or its connection has ended and did not come back.
    Silent,
    /// The replica could not be made to ask. `lasting`: and will not be before somebody changes something.
    Unable {
        /// For people.
        reason: String,
        /// Asking again is of no use for now.
        lasting: bool,
    },
}

/// What an operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// It takes part.
    #[default]
    Serve,
    /// No new transactions; those that run may end.
    Drain,
    /// No new transactions until told to serve again.
    Pause,
}

/// What happened to one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// It answered.
    Probe(NodeProbe),
    /// It did not answer in time, or with an error.
    ProbeFailed {
        /// For people.
        reason: String,
    },
    /// The server is there, and does not let the health check in: a wrong password, too many connections. Neither a
    /// failure nor an answer: what it was, it is as far as we know.
    LoginRefused {
        /// The server's words.
        reason: String,
    },
    /// A connection for clients was refused. Counts as a failed probe, though only once until the next probe: a
    /// hundred waiting clients are no better evidence than one.
    ConnectionRefused {
        /// For people.
        reason: String,
    },
    /// A connection of a client broke. Asks for a probe, and never takes a node down alone: `pg_terminate_backend`
    /// looks the same.
    ServerLost {
        /// For people.
        reason: String,
    },
    /// A node told a client's connection that its role is another now: `in_hot_standby` has changed.
    Turned,
    /// The node was used as primary and said SQLSTATE 25006 or `in_hot_standby = on`.
    ReadOnly,
    /// `Action::Promote` was carried out.
    Promoted,
    /// `Action::Promote` failed.
    PromotionFailed {
        /// For people.
        reason: String,
        /// The order may have reached the server, which can still become a primary.
        may_still_happen: bool,
    },
    /// `Action::Inquire` was carried out.
    Testified(Testimony),
    /// An operator wants this of it.
    Ordered(Order),
}

/// What the driver should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask this node now rather than when its interval is over. A replica's answer to this is also its testimony on
    /// whether it still hears the primary.
    ProbeNow(NodeId),
    /// Have this replica ask the server that it follows for a sign of life, over the connection that it holds to it.
    Inquire(NodeId),
    /// Promote this replica (`pg_promote`).
    Promote(NodeId),
    /// Point the replica at the primary; harmless when it is so already.
    Follow {
        /// Whom to point.
        replica: NodeId,
        /// Whom it shall follow.
        primary: NodeId,
    },
}
