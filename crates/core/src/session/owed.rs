//! One reply, or one group of replies, that a server owes: for what it is owed, and the table that says to whom it goes,
//! what ends it, and what it holds up meanwhile.

use std::sync::Arc;

use super::{
    carried::{Carried, Probe},
    listen::Move,
};
use crate::{sql::Called, wire::error::Report};

/// One reply, or one group of replies, that the server owes.
#[derive(Debug)]
pub enum Owed {
    /// A simple query or function call of the client: answered up to and with ReadyForQuery.
    Query {
        /// The client had an unnamed statement, which a simple query takes away.
        drops_unnamed: bool,
        called: Called,
    },
    /// The client's Sync: ReadyForQuery.
    Sync,
    /// The client's Parse, sent on: ParseComplete makes the name valid.
    Parse {
        /// The statement, when it goes under our name.
        id: Option<u64>,
        /// Whether the client's name is known to us.
        names: bool,
    },
    /// The client's Parse of a name that it has already: the server has to refuse it.
    ParseTaken { name: Box<[u8]> },
    Bind {
        /// The statement, when it goes under our name.
        id: Option<u64>,
    },
    /// A Bind to a statement whose result is not what the client was told: the server refuses it.
    StaleBind,
    /// Describe of a statement or portal: RowDescription or NoData ends it.
    Describe {
        /// The statement, when it goes under our name.
        id: Option<u64>,
        /// It is the unnamed statement.
        unnamed: bool,
    },
    /// CommandComplete, EmptyQueryResponse or PortalSuspended ends it; so does CopyDone's CommandComplete.
    Execute { called: Called },
    /// The client's Close, sent on.
    Close { unnamed: bool },
    /// The client's Close of a name that the server does not know: CloseComplete from us.
    CloseKnown,
    /// The client's CopyDone or CopyFail: no reply of its own, but Syncs before it do not count during COPY.
    CopyEnd,
    /// What the server must refuse, in the place of a client's message that is refused with this report.
    Refused { report: Box<Report> },
    /// A Parse of ours: the server lacked a statement that the client has; the unnamed one without an id.
    OurParse { id: Option<u64> },
    /// A Describe of ours: whether the result of a statement is what the client was told.
    OurDescribe { id: u64 },
    /// The client's Sync after a batch that is to be sent once more.
    Again,
    /// A Close of ours: room for another statement, or for the same one anew; the unnamed one without an id.
    OurClose { id: Option<u64> },
    /// A Parse of ours under the client's own name, for SQL.
    ParseForSql { name: Box<[u8]>, id: u64, since: u64 },
    /// A Close of ours of a client's own name: perhaps a stranger's.
    CloseForSql { name: Box<[u8]> },
    /// A query of ours that prepares a statement by SQL, under the client's own name.
    PrepareForSql { name: Box<[u8]>, id: u64, since: u64 },
    /// A Sync of ours, for messages of ours in front of a simple query.
    OurSync,
    /// A Sync of ours in the place of the client's, after an error in a batch that it has not ended yet.
    EarlySync,
    /// The client's BEGIN, answered before it was sent; or its SET TRANSACTION. CloseComplete ends it.
    Begin,
    /// What the server must refuse, so that the transaction fails, and a Sync of ours.
    FailedBegin,
    /// A ROLLBACK of ours: the client's block leaves a replica.
    Leave,
    /// A query of ours that brings the session's settings.
    Replay {
        settings: Arc<Carried>,
        /// The server may refuse it, so that nothing of the client may follow before it is known.
        may_fail: bool,
    },
    /// A query of ours that brings values of the login behind a RESET; the client waits for its ReadyForQuery.
    Restore,
    /// A query of ours that moves the session's channels.
    Move { step: Move },
    /// A query of ours that asks what the session has become.
    Probe { probe: Probe },
}

/// Who gets the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Clients,
    /// The client must not see it.
    Ours,
    /// The client gets it from us, in its turn: the server says nothing.
    Known,
}

/// What ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A message of its own, such as ParseComplete.
    Reply,
    /// ReadyForQuery, after a query.
    Query,
    /// ReadyForQuery, after a Sync: a server that skips goes on with it.
    Sync,
    /// It is answered by nothing.
    Nothing,
}

/// What it holds up from the moment at which it is sent until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Halt {
    Nothing,
    /// Cancel requests of the client, which are for its own statements.
    Cancel,
    /// Whatever the client says next.
    Client,
    /// Both.
    Both,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
struct Row(Whose, End, Halt);

impl Owed {
    /// The table: to whom the reply goes, what ends it, and what it holds up.
    #[inline(always)]
    #[rustfmt::skip]
    const fn row(&self) -> Row {
        match self {
            Owed::Query { .. }                   => Row(Whose::Clients, End::Query,   Halt::Nothing),
            Owed::Sync                           => Row(Whose::Clients, End::Sync,    Halt::Nothing),
            Owed::Parse { .. }                   => Row(Whose::Clients, End::Reply,   Halt::Nothing),
            Owed::ParseTaken { .. }              => Row(Whose::Clients, End::Reply,   Halt::Nothing),
            Owed::Bind { .. }                    => Row(Whose::Clients, End::Reply,   Halt::Nothing),
            Owed::StaleBind                      => Row(Whose::Clients, End::Reply,   Halt::Nothing),
            Owed::Describe { .. }                => Row(Whose::Clients, End::Reply,   Halt::Nothing),
            Owed::Execute { .. }                 => Row(Whose::Clients, End::Reply,   Halt::Nothing),
            Owed::Close { .. }                   => Row(Whose::Clients, End::Reply,   Halt::Nothing),
            Owed::Refused { .. }                 => Row(Whose::Clients, End::Reply,   Halt::Nothing),
            Owed::CopyEnd                        => Row(Whose::Clients, End::Nothing, Halt::Nothing),
            Owed::CloseKnown                     => Row(Whose::Known,   End::Reply,   Halt::Nothing),
            Owed::OurParse { .. }                => Row(Whose::Ours,    End::Reply,   Halt::Nothing),
            Owed::OurDescribe { .. }             => Row(Whose::Ours,    End::Reply,   Halt::Nothing),
            Owed::OurClose { .. }                => Row(Whose::Ours,    End::Reply,   Halt::Nothing),
            Owed::ParseForSql { .. }                => Row(Whose::Ours,    End::Reply,   Halt::Nothing),
            Owed::CloseForSql { .. }                => Row(Whose::Ours,    End::Reply,   Halt::Nothing),
            Owed::PrepareForSql { .. }              => Row(Whose::Ours,    End::Query,   Halt::Nothing),
            Owed::OurSync                        => Row(Whose::Ours,    End::Sync,    Halt::Nothing),
            Owed::EarlySync                      => Row(Whose::Ours,    End::Sync,    Halt::Client),
            Owed::Again                          => Row(Whose::Ours,    End::Sync,    Halt::Client),
            // The server says nothing of it before the statement behind it has ended, which a cancel request is for.
            Owed::Begin                          => Row(Whose::Ours,    End::Reply,   Halt::Nothing),
            Owed::FailedBegin                    => Row(Whose::Ours,    End::Sync,    Halt::Cancel),
            Owed::Leave                          => Row(Whose::Ours,    End::Query,   Halt::Both),
            Owed::Replay { may_fail: false, .. } => Row(Whose::Ours,    End::Query,   Halt::Cancel),
            Owed::Replay { may_fail: true, .. }  => Row(Whose::Ours,    End::Query,   Halt::Both),
            Owed::Restore                        => Row(Whose::Ours,    End::Query,   Halt::Both),
            Owed::Move { .. }                    => Row(Whose::Ours,    End::Query,   Halt::Both),
            Owed::Probe { .. }                   => Row(Whose::Ours,    End::Query,   Halt::Both),
        }
    }

    /// Whether a ReadyForQuery answers it.
    #[inline]
    pub fn ends_with_ready(&self) -> bool {
        matches!(self.row(), Row(_, End::Query | End::Sync, _))
    }

    /// Whether the ReadyForQuery is for the client.
    #[inline]
    pub fn ends_the_clients(&self) -> bool {
        matches!(self.row(), Row(Whose::Clients, End::Query | End::Sync, _))
    }

    /// Whether it stands for a Sync, with which a server that skips goes on.
    #[inline]
    pub fn syncs(&self) -> bool {
        matches!(self.row(), Row(_, End::Sync, _))
    }

    /// Whether the client must not see the reply.
    #[inline]
    pub fn is_ours(&self) -> bool {
        matches!(self.row(), Row(Whose::Ours, ..))
    }

    /// Whether the reply comes from us, in its turn.
    #[inline]
    pub fn is_known(&self) -> bool {
        matches!(self.row(), Row(Whose::Known, ..))
    }

    /// Whether the server is busy with something of ours, so that a cancel request of the client has to wait.
    #[inline]
    pub(super) fn halts_cancel(&self) -> bool {
        matches!(self.row(), Row(.., Halt::Cancel | Halt::Both))
    }

    /// Whether nothing of the client may be sent until it is answered.
    #[inline]
    pub(super) fn halts_client(&self) -> bool {
        matches!(self.row(), Row(.., Halt::Client | Halt::Both))
    }

    /// Whether a change of what one of the client's names means belongs to it.
    pub(super) fn changes_a_name(&self) -> bool {
        matches!(
            self,
            Owed::Parse { names: true, .. }
                | Owed::CloseKnown
                | Owed::Close { unnamed: true }
                | Owed::Query { drops_unnamed: true, .. }
        )
    }

    /// Whether a change of what the server holds belongs to it.
    pub(super) fn changes_the_held(&self) -> bool {
        matches!(
            self,
            Owed::Parse { id: Some(_), .. } | Owed::OurParse { id: Some(_) } | Owed::OurClose { id: Some(_) }
        )
    }
}
