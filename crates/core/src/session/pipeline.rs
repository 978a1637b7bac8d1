//! What replies a server still owes, in order, and to whom.
//!
//! Every message that makes a server answer adds an entry at the back; the answer that completes it takes it from the
//! front. Entries of our own (replayed settings, injected Parse messages) are in the same queue, so a reply's owner is
//! never guessed.

use std::{cell::OnceCell, collections::BTreeSet, sync::Arc};

use smallvec::SmallVec;

use super::{
    Need, OwnCode,
    carried::{Answer, Carried, Probe},
    inquiry::Inquiry,
    listen::Move,
    owing::Owing,
    own_code::Change as CodeChange,
    phase::Phase,
    queue::Queue,
    sent::{Presence, Sends, Sent},
    statements::{ServerStatements, Statement},
    tally::Tally,
};
use crate::{
    sql::{Called, Census, DefaultsOf, Normal, PinSet, Reason, Verdict},
    wire::{ErrorFields, error::Report, reply::Status},
};

/// Most replies outstanding before no more is read from a client: a bound on memory, far above what clients pipeline.
pub const OWED_MAX: usize = 100_000;

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
    OwnParse { name: Box<[u8]>, id: u64, since: u64 },
    /// A Close of ours of a client's own name: perhaps a stranger's.
    OwnClose { name: Box<[u8]> },
    /// A query of ours that prepares a statement by SQL, under the client's own name.
    OwnPrepare { name: Box<[u8]>, id: u64, since: u64 },
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
    Replay { settings: Arc<Carried> },
    /// A query of ours that brings values of the login behind a RESET; the client waits for its ReadyForQuery.
    Restore,
    /// A query of ours that moves the session's channels.
    Move { step: Move },
    /// A query of ours that asks what the session has become.
    Probe { probe: Probe },
}

impl Owed {
    /// Whether a ReadyForQuery answers it.
    pub fn ends_with_ready(&self) -> bool {
        let queries = matches!(self, Owed::Replay { .. } | Owed::Restore | Owed::Move { .. } | Owed::Probe { .. });
        let ours =
            matches!(self, Owed::OwnPrepare { .. } | Owed::FailedBegin | Owed::Again | Owed::Leave) || self.syncs();
        queries || ours || self.ends_the_clients()
    }

    /// Whether the ReadyForQuery is for the client.
    pub fn ends_the_clients(&self) -> bool {
        matches!(self, Owed::Query { .. } | Owed::Sync)
    }

    /// Whether it stands for a Sync, with which a server that skips goes on.
    pub fn syncs(&self) -> bool {
        matches!(self, Owed::Sync | Owed::OurSync | Owed::EarlySync | Owed::Again | Owed::FailedBegin)
    }

    /// Whether the client must not see the reply.
    pub fn is_ours(&self) -> bool {
        let of_statements = matches!(self, Owed::OurParse { .. } | Owed::OurClose { .. } | Owed::OwnClose { .. });
        let own = matches!(self, Owed::OwnParse { .. } | Owed::OwnPrepare { .. });
        let syncs = matches!(self, Owed::Again | Owed::OurSync | Owed::EarlySync);
        let others = syncs || matches!(self, Owed::OurDescribe { .. } | Owed::Leave);
        let queries = matches!(self, Owed::Replay { .. } | Owed::Restore | Owed::Move { .. } | Owed::Probe { .. });
        of_statements || own || others || queries || self.begins()
    }

    /// Whether it opens the client's transaction block.
    pub fn begins(&self) -> bool {
        matches!(self, Owed::Begin | Owed::FailedBegin)
    }

    /// Whether the reply comes from us, in its turn.
    pub fn is_known(&self) -> bool {
        matches!(self, Owed::CloseKnown)
    }

    /// Whether a [`Change`] belongs to it.
    fn changes_a_name(&self) -> bool {
        matches!(
            self,
            Owed::Parse { names: true, .. }
                | Owed::CloseKnown
                | Owed::Close { unnamed: true }
                | Owed::Query { drops_unnamed: true, .. }
        )
    }

    /// Whether a [`Sent`] belongs to it.
    fn changes_the_held(&self) -> bool {
        matches!(
            self,
            Owed::Parse { id: Some(_), .. } | Owed::OurParse { id: Some(_) } | Owed::OurClose { id: Some(_) }
        )
    }
}

/// What a name of the client will mean once the message under way has succeeded; nothing when it is closed.
#[derive(Debug)]
pub struct Change {
    pub name: Box<[u8]>,
    pub statement: Option<Arc<Statement>>,
}

/// The same, under the name.
#[derive(Debug)]
struct Meaning {
    statement: Option<Arc<Statement>>,
    batch: u32,
}

/// Sessions begin with other settings from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewDefaults {
    /// The servers read their configuration anew, and tell the connections that are there.
    Reloaded,
    /// Only those of connections that are yet to be opened.
    Of(Box<DefaultsOf>),
}

/// Statements that have ended; hardly ever more than one at a time.
pub type EndedOnes = SmallVec<[Ended; 1]>;

/// A statement that has ended.
#[derive(Debug)]
pub struct Ended {
    pub normal: Arc<Normal>,
    /// By an error.
    pub failed: bool,
}

/// An entry that has left the queue, with what it was to change.
#[derive(Debug)]
pub struct Done {
    pub owed: Owed,
    pub change: Option<Change>,
    pub sent: Option<Sent>,
}

/// What is known of a message that has to be shown again.
#[derive(Debug)]
pub enum Judged {
    Query(Arc<Verdict>),
    Parse(Arc<Statement>),
}

/// What the statements since the last release may have done. In the order written: see [`Pipeline`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct Effects {
    /// State that the server cannot tell of, by the verdicts of what was sent.
    pub pins: PinSet,
    /// Something of what was sent may well have changed the session. Otherwise the server is asked only since nothing is
    /// known of the database's own code yet.
    pub earnest: bool,
    pub reset_all: bool,
    /// An error or a ROLLBACK may have undone what was set, so that settings may not be the session's any more.
    pub undone: bool,
    /// The end of a transaction, or a write outside a block, was sent and is not answered yet.
    pub may_commit: bool,
    /// The transaction has changed code of the database.
    pub defined: bool,
    pub probe: Probe,
    /// What the functions are that it has called.
    pub inquiry: Option<Box<Inquiry>>,
    /// Names of prepared statements that SQL has made or taken away: until the server is asked, only it knows what they
    /// mean.
    pub names: BTreeSet<Box<[u8]>>,
    /// Settings that were RESET and not set again.
    pub reset: BTreeSet<Box<str>>,
    /// Settings with a dot in their names that were SET.
    pub set_customs: BTreeSet<Box<str>>,
    /// The first statement for which the server has to be asked, or its beginning.
    pub cause: String,
    /// It may have been committed.
    pub change: Option<CodeChange>,
}

impl Effects {
    pub fn reset(&mut self) {
        self.may_commit = false;
        self.end_transaction();
        if self.is_dirty() || self.inquiry.is_some() || self.undone || self.reset_all || !self.reset.is_empty() {
            *self = Effects::default();
        }
    }

    /// Whether what was sent can be broken off, when nobody waits for it any more, and nothing is lost by it: it only
    /// reads, or its transaction could not be committed any more.
    pub fn is_idle_talk(&self) -> bool {
        // What it did to the session goes with the client.
        !self.may_commit
    }

    /// The transaction is over: what it has changed can be looked at.
    pub fn end_transaction(&mut self) {
        if self.defined {
            (self.defined, self.change) = (false, None);
        }
    }

    /// Whether the server connection may carry state that is not known.
    pub fn is_dirty(&self) -> bool {
        self.may_have_changed() || !self.pins.is_empty()
    }

    /// Whether the server has to be asked what the session has become, or what the functions are that it has called.
    pub fn is_asked(&self) -> bool {
        self.may_have_changed() || self.inquiry.is_some()
    }

    fn may_have_changed(&self) -> bool {
        self.probe != Probe::Nothing || !self.names.is_empty()
    }

    /// Whether only the server knows what a name of a prepared statement means now.
    pub fn uses_name(&self, name: &[u8]) -> bool {
        self.names.contains(name)
    }

    pub fn use_name(&mut self, name: &[u8]) {
        if !self.uses_name(name) {
            self.names.insert(name.into());
        }
    }
}

/// The state of one conversation between a client and the server connection that it holds now. In the order written, so
/// that what every statement looks at lies together.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Pipeline {
    pub owed: Owing,
    /// The verdict of the message at hand, found before there was a server.
    pub judged: Option<Judged>,
    /// What was known of the database's own code when it was first asked where a message may go: a batch that has gone
    /// to a replica goes on there.
    census: OnceCell<Option<Arc<Census>>>,
    /// Statements of the client that have ended; whoever counts them takes them.
    pub ended: EndedOnes,
    /// How the statement is called that was bound last, until that is executed.
    pub bound: Called,
    seldom: Option<Box<Seldom>>,
    /// How many entries of the client in `owed` end with ReadyForQuery.
    pub ready_owed: usize,
    /// What the server connection was lent for.
    pub lent_for: Need,
    /// How many messages that ReadyForQuery answers have been sent.
    batch: u32,
    /// The batch in which the unnamed statement was sent last.
    unnamed_batch: u32,
    /// Messages of the client that were answered up to ReadyForQuery, to tell one statement from the next.
    pub turns: u32,
    /// Not reset: whoever adds it up takes it.
    pub tally: Tally,
    /// As the last ReadyForQuery said.
    pub status: Status,
    /// Where the server is once it has read what was sent.
    pub phase: Phase,
    /// Data for this COPY has come.
    pub copy_data: bool,
    /// A Sync has come among its data: should the COPY fail, nobody can tell whether that Sync is to be answered.
    pub copy_sync: bool,
    /// All prepared statements may be gone once what was sent has run.
    pub deallocating: bool,
    /// The server's unnamed statement is a text that was too long to be held.
    pub long_unnamed: bool,
    /// Nothing has been bound to it yet.
    pub long_unbound: bool,
    /// An error has been seen since the last ReadyForQuery.
    pub failed: bool,
    /// Nothing of the client may be sent until a reply to us has come.
    pub holding: bool,
    /// A question of ours was cancelled and asked once more.
    pub asked_again: bool,
    /// What was sent resets values of the login, which have to be brought again.
    pub restores: bool,
    /// ParameterStatus waits for the client's ReadyForQuery.
    pub withholds: bool,
    /// The server connection lacks who the session is, which could not be brought.
    pub reduced: bool,
    /// What changes or ends that has run there.
    pub mended: bool,
    /// The server connection is not to be lent again.
    pub unfit: bool,
    /// Everything of the client since the server connection was lent is there to be sent once more, and the client has
    /// seen nothing of an answer.
    pub can_repeat: bool,
    /// The server connection may only read: the node is a replica.
    pub read_only: bool,
    /// Messages of the extended protocol were sent since the last Sync: their implicit transaction is open.
    open_batch: bool,
    /// How statements are called is to tell what the client has said, too. Not reset: whoever lends a server connection
    /// says so.
    pub verbatim: bool,
    pub effects: Effects,
    /// What messages in `owed` will do to the client's names, in their order.
    changes: Queue<Box<[u8]>, Meaning>,
    /// What messages in `owed` will do to the statements that the server holds, in their order.
    pub sent: Sends,
}

/// What few transactions need, apart: the others look at one pointer instead of all this.
#[derive(Debug, Default)]
pub struct Seldom {
    /// The names in the ParameterStatus messages that are withheld, in their order.
    pub withheld: Vec<Box<str>>,
    pub answer: Answer,
    /// What the server said before it closed the connection.
    pub last_words: Option<ErrorFields>,
    /// The warning of a server process that ends, most likely: it waits for what follows, for the client need not see it
    /// when all can be sent to another server.
    pub farewell: Option<ErrorFields>,
    /// Why a statement could not be prepared under the client's own name: the answer to what needed it.
    pub own_error: Option<ErrorFields>,
    /// The statement of the portal that the next message describes, when the client has been told nothing of it yet.
    pub tells_of: Option<u64>,
    /// The statement of which the server was asked what its result is, for the Bind at hand.
    pub asked_shape: Option<u64>,
    /// How often it was, for the Bind at hand.
    pub asks: u8,
    /// The server has said what a statement's parameters are, and not yet what its result is.
    pub parameters: Box<[u8]>,
    /// Idle connections to this database are in the way of what was sent; whoever closes them takes it.
    pub vacates: Option<Box<str>>,
    /// What was sent changes the settings with which sessions begin, once its transaction has been committed.
    stores: Option<NewDefaults>,
    /// It has been; whoever closes the connections with the old ones takes it.
    pub new_defaults: Option<NewDefaults>,
}

impl Pipeline {
    /// What is seldom needed, as far as there is anything.
    pub fn seldom(&self) -> Option<&Seldom> {
        self.seldom.as_deref()
    }

    /// The same, to put something there.
    pub fn seldom_mut(&mut self) -> &mut Seldom {
        self.seldom.get_or_insert_default()
    }

    /// Takes something of it.
    #[inline]
    pub fn take<T: Default>(&mut self, of: impl FnOnce(&mut Seldom) -> &mut T) -> T {
        self.seldom.as_deref_mut().map_or_else(T::default, |seldom| std::mem::take(of(seldom)))
    }

    pub fn push(&mut self, owed: Owed) {
        if owed.ends_the_clients() {
            self.ready_owed += 1;
            self.batch = self.batch.wrapping_add(1);
        }
        if !owed.is_ours() {
            self.open_batch = !owed.ends_the_clients();
        }
        self.phase = self.phase.sent(&owed);
        self.owed.push(owed);
    }

    /// As [`Pipeline::push`], for a message that gives one of the client's names a meaning, or takes it away.
    pub fn push_change(&mut self, owed: Owed, name: &[u8], statement: Option<Arc<Statement>>) {
        debug_assert!(owed.changes_a_name());
        self.changes.push(name.into(), Meaning { statement, batch: self.batch });
        self.push(owed);
    }

    /// Notes that the message which is pushed next makes the server hold a statement.
    pub fn note_prepared(&mut self, id: u64, moment: u64, bytes: usize) {
        self.sent.prepare(id, moment, bytes, self.batch);
    }

    /// As [`Pipeline::note_prepared`], for one that makes it drop a statement; it holds these by its replies.
    pub fn note_dropped(&mut self, id: u64, held: &ServerStatements) {
        self.sent.drop(id, held, self.batch);
    }

    pub fn pop(&mut self) -> Option<Done> {
        let owed = self.owed.pop()?;
        if owed.ends_the_clients() {
            self.ready_owed -= 1;
            self.turns = self.turns.wrapping_add(1);
        }
        // The end of a COPY that never began is ignored by the server.
        while matches!(self.owed.front(), Some(Owed::CopyEnd)) {
            self.owed.pop();
        }
        let change = if owed.changes_a_name() { self.changes.pop() } else { None };
        let change = change.map(|(name, Meaning { statement, .. })| Change { name, statement });
        let sent = if owed.changes_the_held() { self.sent.pop() } else { None };
        Some(Done { owed, change, sent })
    }

    /// Whether the next reply belongs to the client; without an entry it belongs to nobody.
    #[inline]
    pub fn front_is_clients(&self) -> bool {
        self.owed.front().is_some_and(|owed| !owed.is_ours())
    }

    /// Whether the server is busy with a query of ours: settings or channels that are brought, a question, the client's
    /// BEGIN, which has been answered already, or the end of what leaves a replica.
    #[inline]
    pub fn asks(&self) -> bool {
        let queries = |owed: &Owed| {
            matches!(owed, Owed::Replay { .. } | Owed::Restore | Owed::Move { .. } | Owed::Probe { .. } | Owed::Leave)
        };
        self.owed.front().is_some_and(|owed| queries(owed) || owed.begins())
    }

    /// The id of the statement that the entry in front is about, for a batch that is all there, and of which nothing has
    /// been answered.
    pub fn repeatable(&self) -> Option<u64> {
        let (Some(Owed::Bind { id } | Owed::Describe { id, .. }), Some(Owed::Sync)) =
            (self.owed.front(), self.owed.back())
        else {
            return None;
        };
        id.filter(|_| self.can_repeat && self.ready_owed == 1 && self.status == Status::Idle)
    }

    /// A batch was to be sent once more, or values of the login were to be brought, and cannot be: the end of the answer is
    /// owed to the client.
    pub fn owe_what_is_waited_for(&mut self) {
        for owed in self.owed.iter_mut().filter(|owed| matches!(owed, Owed::Again | Owed::Restore)) {
            *owed = Owed::Sync;
            self.ready_owed += 1;
        }
    }

    /// Whether anything of the client is under way; what we inject stands in front of what it is for.
    pub fn owes_client(&self) -> bool {
        self.owed.back().is_some_and(|owed| !owed.is_ours())
    }

    /// COPY FROM STDIN has begun for the entry in front: Syncs that were sent before the end of the data are ignored by
    /// the server (manual, "COPY Operations").
    pub fn begin_copy_in(&mut self) {
        let batch = matches!(self.owed.front(), Some(Owed::Execute { .. }));
        let (ignored, ended) = self.owed.take_ignored();
        if !ended {
            self.phase = Phase::Copying { batch };
        }
        (self.copy_data, self.copy_sync) = (false, false);
        if ignored > 0 {
            self.ready_owed -= ignored;
            self.open_batch = self.owed.back().is_some_and(|owed| !owed.ends_the_clients());
            if ended {
                self.phase = self.owed.iter().skip(1).fold(Phase::after_copy(batch), Phase::sent);
            }
        }
    }

    /// What was known when it was first asked for since a server connection was lent or wanted.
    pub fn census(&self, code: &OwnCode) -> Option<&Census> {
        self.census.get_or_init(|| code.census()).as_deref()
    }

    /// The message at hand goes nowhere.
    pub fn forget_message(&mut self) {
        self.judged = None;
        self.census.take();
    }

    /// Whether an implicit transaction is open that the client has not ended by Sync yet.
    pub fn has_open_batch(&self) -> bool {
        self.open_batch
    }

    /// Whether the server process owes nothing, and looks at whatever is sent next.
    pub fn is_at_rest(&self) -> bool {
        self.owed.is_empty() && self.phase == Phase::Ready
    }

    /// Whether the server process is ready for anybody: nor is a transaction open.
    pub fn is_free(&self) -> bool {
        self.is_at_rest() && self.status == Status::Idle
    }

    /// COPY FROM STDIN is over, or its end was sent.
    pub fn end_copy(&mut self) {
        if let Phase::Copying { batch } = self.phase {
            self.phase = Phase::after_copy(batch);
        }
    }

    /// COPY FROM STDIN has failed. Begun by a simple query, the server goes on with what was sent behind its data; begun by
    /// Execute it skips, which is for whoever takes in the error.
    pub fn fail_copy(&mut self) {
        if let Phase::Copying { batch } = self.phase {
            let behind = self.owed.iter().skip(1);
            self.phase = if batch { Phase::Batch } else { behind.fold(Phase::Ready, Phase::sent) };
        }
    }

    /// Whether nothing of the client is under way, not even a transaction.
    pub fn is_quiet(&self) -> bool {
        self.is_free() && !self.open_batch
    }

    /// The message pushed last neither opens nor ends a batch.
    pub fn keep_batch(&mut self, open: bool) {
        self.open_batch = open;
    }

    pub fn is_full(&self) -> bool {
        self.owed.len() >= OWED_MAX
    }

    /// What messages under way make of this name, which is nothing when they close it; `None` when they leave it alone.
    pub fn change(&self, name: &[u8]) -> Option<Option<&Arc<Statement>>> {
        self.changes.newest(name).map(|meaning| meaning.statement.as_ref())
    }

    /// Whether it depends on replies that have not come what a name means: in the batch at hand an error would make the
    /// server skip what uses the name as well, but not in a later one.
    pub fn is_unsettled(&self, name: &[u8]) -> bool {
        !self.phase.is_copying() && self.changes.newest(name).is_some_and(|meaning| meaning.batch != self.batch)
    }

    /// The unnamed statement is sent with the message that is pushed next.
    pub fn note_unnamed(&mut self) {
        self.unnamed_batch = self.batch;
        self.long_unnamed = false;
    }

    /// Whether the unnamed statement that was sent is there for the message at hand, unless both are skipped.
    pub fn is_unnamed_sure(&self) -> bool {
        self.ready_owed == 0 || self.unnamed_batch == self.batch
    }

    pub fn changes_len(&self) -> usize {
        self.changes.len()
    }

    /// Whether the server will hold a statement, of which `held` tells what is known by its replies.
    pub fn presence(&self, id: u64, held: bool) -> Presence {
        self.sent.presence(id, held, self.batch, self.deallocating)
    }

    /// A text with this verdict is sent.
    pub fn note_defaults(&mut self, verdict: &Verdict) {
        let reloads = matches!(&verdict.reason, Reason::VolatileFunction(name) if **name == *"pg_reload_conf");
        let new = match &verdict.defaults {
            Some(of) => NewDefaults::Of(of.clone()),
            None if reloads => NewDefaults::Reloaded,
            None => return,
        };
        let seldom = self.seldom_mut();
        seldom.stores = Some(match seldom.stores.take() {
            Some(NewDefaults::Of(before)) if NewDefaults::Of(before.clone()) != new => NewDefaults::Of(Box::default()),
            _ => new,
        });
    }

    /// A statement of the client has ended.
    pub fn end_statement(&mut self, called: Called, failed: bool) {
        if let Called(Some(normal)) = called {
            self.ended.push(Ended { normal, failed });
        }
    }

    /// No transaction is open any more.
    pub fn end_transaction(&mut self) {
        self.effects.end_transaction();
        if let Some(seldom) = &mut self.seldom {
            seldom.new_defaults = seldom.stores.take();
        }
    }

    /// Forgets everything but the room it takes, for the next client. Most of it is as new already.
    pub fn reset(&mut self) {
        self.owed.clear();
        if !(self.changes.is_empty() && self.sent.is_empty()) {
            self.changes.clear();
            self.sent.clear();
        }
        self.ready_owed = 0;
        self.status = Status::Idle;
        self.phase = Phase::Ready;
        (self.failed, self.holding) = (false, false);
        (self.copy_data, self.copy_sync) = (false, false);
        (self.read_only, self.open_batch, self.asked_again) = (false, false, false);
        (self.deallocating, self.long_unnamed, self.long_unbound) = (false, false, false);
        (self.reduced, self.mended, self.unfit) = (false, false, false);
        (self.restores, self.withholds) = (false, false);
        self.seldom = None;
        self.effects.reset();
        self.ended.clear();
        self.bound = Called::default();
        self.forget_message();
        self.can_repeat = false;
    }
}
