//! What a client counts while it is busy: in plain numbers of its own, until they are added to those of its pool.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use crate::{
    frontend::watch::Watch,
    metrics::{self, Account, Count, SqlStateClass, Tally},
};
use poolhouse_core::{
    session::{self, Ended, EndedOnes},
    sql::Normal,
    topology::NodeId,
    wire::{
        ErrorFields,
        frame::{HEADER_BYTES, header},
    },
};

/// Durations that may wait to be added up, in a transaction that does not end.
const DURATIONS_MAX: usize = 64;

/// Where it is added up what a client has done: at its account, by the thread that served it.
#[derive(Debug, Clone, Copy)]
pub struct CountedFor<'a> {
    pub account: &'a Arc<Account>,
    pub watch: &'a Watch,
    pub worker: usize,
}

#[derive(Debug, Default)]
pub struct Counting {
    tally: Tally,
    /// Where what is counted was done; `None` before a server connection is lent.
    node: Option<NodeId>,
    /// What Poolhouse has answered itself: ReadyForQuery, and those of them outside of a transaction.
    own_queries: u32,
    own_transactions: u32,
    /// When the server connection was lent, until something goes to it.
    attached: Option<Instant>,
    /// Since when a server works on what the client has sent, or was last done with a part of it.
    query_since: Option<Instant>,
    transaction_since: Option<Instant>,
    statement_since: Option<Instant>,
    /// How long the client waited for the server connection; for the first statement that runs there.
    waited: Duration,
    ran: SmallVec<[EndedStatement; 1]>,
    /// What is to be told to operators.
    news: Option<Box<News>>,
}

/// Most errors of one client that are kept until they are told; of more than that within a moment the rest are left
/// out.
const TOLD_MAX: usize = 8;

/// Most bytes of an error's message that are kept.
const MESSAGE_BYTES_MAX: usize = 500;

/// What is to be told to operators.
#[derive(Debug, Default)]
pub struct News {
    /// The slowest statement among those that took longer than they should.
    pub slow: Option<Slow>,
    /// What servers have reported.
    pub errors: Vec<ServerError>,
}

/// An error that a server has reported.
#[derive(Debug)]
pub struct ServerError {
    pub node: Option<NodeId>,
    pub code: String,
    pub message: String,
}

/// A statement that has ended.
#[derive(Debug)]
struct EndedStatement {
    normal: Arc<Normal>,
    took: Duration,
    failed: bool,
}

/// A statement that took long.
#[derive(Debug)]
pub struct Slow {
    pub normal: Arc<Normal>,
    pub node: Option<NodeId>,
    /// For a server connection.
    pub waited: Duration,
    pub took: Duration,
    pub failed: bool,
}

impl Counting {
    #[inline]
    pub fn add(&mut self, count: Count, more: usize) {
        self.tally.add(count, more as u64);
    }

    /// The client's goodbye is no traffic.
    pub fn forget_goodbye(&mut self, bytes: usize) {
        self.tally.take_back(Count::ClientReceived, bytes as u64);
    }

    /// A server connection is lent `now`, after a wait if there was one.
    pub fn attach(&mut self, node: NodeId, now: Instant, waited: Option<Duration>) {
        self.node = Some(node);
        self.attached = Some(now);
        self.waited = waited.unwrap_or_default();
        self.tally.add(Count::Assignments, 1);
        if let Some(waited) = waited {
            self.tally.add_wait(waited);
        }
    }

    /// Nothing more follows at once.
    #[inline]
    pub fn pause(&mut self) {
        self.attached = None;
    }

    /// Something of the client goes to a server; the first thing, what the connection was lent for.
    #[inline]
    pub fn begin(&mut self) {
        let attached = self.attached.take();
        if self.query_since.is_none() {
            let now = attached.unwrap_or_else(Instant::now);
            self.query_since = Some(now);
            self.transaction_since.get_or_insert(now);
            self.statement_since.get_or_insert(now);
        } else if self.statement_since.is_none() {
            self.statement_since = Some(attached.unwrap_or_else(Instant::now));
        }
    }

    /// Statements have ended; what ended together shares its time. `more` when others are under way. `slow` is how long
    /// one may take.
    pub fn end_statements(&mut self, ended: &mut EndedOnes, more: bool, slow: Option<Duration>, now: Instant) {
        let since = self.statement_since.take().unwrap_or(now);
        let took = match ended.len() as u32 {
            0 | 1 => now.duration_since(since),
            many => now.duration_since(since) / many,
        };
        for Ended { normal, failed } in ended.drain(..) {
            let waited = std::mem::take(&mut self.waited);
            if slow.is_some_and(|slow| took + waited >= slow) {
                let news = self.news.get_or_insert_default();
                if news.slow.as_ref().is_none_or(|slowest| slowest.took < took) {
                    news.slow = Some(Slow { normal: normal.clone(), node: self.node, waited, took, failed });
                }
            }
            self.ran.push(EndedStatement { normal, took, failed });
        }
        self.statement_since = more.then_some(now);
    }

    #[inline]
    pub fn has_news(&self) -> bool {
        self.news.is_some()
    }

    /// What is to be told to operators now.
    pub fn take_news(&mut self) -> Option<Box<News>> {
        self.news.take()
    }

    /// The server has answered so many queries, and ended so many transactions. `busy` when it still works for the
    /// client, `open` when the last transaction goes on.
    pub fn end(&mut self, queries: u32, transactions: u32, busy: bool, open: bool, now: Instant) {
        let each = |lasted: Duration, times: u32| if times == 1 { lasted } else { lasted / times };
        // A transaction of one query begins with it, and the clock's numbers take long to subtract.
        let mut query = None;
        if let Some(since) = self.query_since.take().filter(|_| queries > 0) {
            let lasted = now.duration_since(since);
            query = Some((since, lasted));
            self.tally.add_queries(each(lasted, queries), queries);
        }
        self.query_since = busy.then_some(now);
        if transactions > 0 {
            if let Some(since) = self.transaction_since.take() {
                let same = query.filter(|(begun, _)| *begun == since).map(|(_, lasted)| lasted);
                let lasted = same.unwrap_or_else(|| now.duration_since(since));
                self.tally.add_transactions(each(lasted, transactions), transactions);
            }
            self.transaction_since = (busy || open).then_some(now);
        }
    }

    /// What was asked of the server is not answered by it any more.
    pub fn give_up(&mut self) {
        (self.attached, self.query_since, self.transaction_since) = (None, None, None);
        self.statement_since = None;
    }

    /// Messages of Poolhouse's own go to the client.
    pub fn note_own(&mut self, mut messages: &[u8]) {
        while let Ok(Some(head)) = header(messages) {
            let Some((message, rest)) = messages.split_at_checked(head.message()) else { return };
            match head.tag {
                b'E' => self.tally.add_own_error(class(&message[HEADER_BYTES..])),
                b'Z' => {
                    self.own_queries += 1;
                    self.own_transactions += u32::from(message.ends_with(b"I"));
                }
                _ => {}
            }
            messages = rest;
        }
    }

    /// The server has reported an error to the client.
    pub fn note_server_error(&mut self, body: &[u8]) {
        let fields = ErrorFields::read(body);
        self.tally.add_server_error(SqlStateClass::of(fields.code()));
        let news = self.news.get_or_insert_default();
        if news.errors.len() < TOLD_MAX {
            let message = fields.message();
            let end = (0..=message.len().min(MESSAGE_BYTES_MAX)).rev().find(|at| message.is_char_boundary(*at));
            let message = message[..end.unwrap_or(0)].to_owned();
            news.errors.push(ServerError { node: self.node, code: fields.code().to_owned(), message });
        }
    }

    pub fn has_node(&self) -> bool {
        self.node.is_some()
    }

    /// Whether what is counted is to be added up now, although the server connection stays.
    #[inline]
    pub fn is_due(&self, session: &session::SessionCounts) -> bool {
        session.transactions > 0
            || self.own_transactions > 0
            || self.tally.durations() + self.ran.len() >= DURATIONS_MAX
    }

    /// Adds all to the account, for the worker of this number.
    pub fn flush(&mut self, session: &mut session::SessionCounts, counted: CountedFor<'_>) {
        let CountedFor { account, watch, worker } = counted;
        let session = std::mem::take(session);
        for (count, more) in [
            (Count::Queries, session.queries),
            (Count::Transactions, session.transactions),
            (Count::Reads, session.reads),
            (Count::Writes, session.writes),
            (Count::ClientParses, session.client_parses),
            (Count::ServerParses, session.server_parses),
            (Count::Binds, session.binds),
        ] {
            self.tally.add(count, more.into());
        }
        self.tally.flush(account.traffic(self.node.map(|node| node.0.into()), Some(worker)));
        if !self.ran.is_empty() {
            let ran = self.ran.iter().map(|ran| metrics::Ran {
                id: ran.normal.id,
                text: &ran.normal.text,
                took: ran.took,
                failed: ran.failed,
            });
            watch.queries.add(worker, account, self.node.map(|node| node.0.into()), ran);
            self.ran.clear();
        }
        let own = [(Count::Queries, &mut self.own_queries), (Count::Transactions, &mut self.own_transactions)];
        for (count, held) in own.into_iter().filter(|(_, held)| **held > 0) {
            account.traffic(None, Some(worker)).add(count, std::mem::take(held).into());
        }
    }

    /// No server connection is lent any more, and all has been added up.
    pub fn forget_node(&mut self) {
        self.node = None;
    }
}

fn class(body: &[u8]) -> SqlStateClass {
    SqlStateClass::of(ErrorFields::read(body).code())
}
