//! One conversation between a client and the server connection that it holds now: what the server owes ([`Replies`]), what
//! was found out about the message at hand, and what the statements since the last release may have done.

use std::{cell::OnceCell, collections::VecDeque, sync::Arc};

use smallvec::SmallVec;

use super::{
    DatabaseCode, Need, carried::ProbeAnswer, counts::SessionCounts, effects::Effects, identity::Identity, owed::Owed,
    replies::Replies, restore::LoginValues, statements::Statement, statements_under_way::Presence,
};
use crate::{
    sql::{Called, Census, DefaultsOf, Edits, Fact, KnownText, Normal, Verdict},
    wire::{ErrorFields, reply::Status},
};

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

/// What is known of a message that has to be shown again.
#[derive(Debug)]
pub enum Judged {
    Query(Arc<KnownText>),
    Parse(Arc<Statement>),
}

/// The state of one conversation between a client and the server connection that it holds now. In the order written, so
/// that what every statement looks at lies together.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Pipeline {
    pub owed: Replies,
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
    /// What the server connection was lent for.
    pub lent_for: Need,
    unnamed: UnnamedSent,
    /// Not reset: whoever adds it up takes it.
    pub counts: SessionCounts,
    /// All prepared statements may be gone once what was sent has run.
    pub deallocating: bool,
    /// An error has been seen since the last ReadyForQuery.
    pub failed: bool,
    /// A question of ours was cancelled and asked once more.
    pub asked_again: bool,
    /// Whether values of the login are to be brought behind what was sent, and ParameterStatus waits for that.
    pub(super) login_values: LoginValues,
    /// Whether the server connection has taken on who the session is.
    pub(super) identity: Identity,
    /// The server connection is not to be lent again.
    pub unfit: bool,
    /// Everything of the client since the server connection was lent is there to be sent once more, and the client has
    /// seen nothing of an answer.
    pub can_repeat: bool,
    /// How statements are called is to tell what the client has said, too. Not reset: whoever lends a server connection
    /// says so.
    pub verbatim: bool,
    pub effects: Effects,
}

/// The unnamed statement that was sent over the server connection that is lent.
#[derive(Debug, Default)]
struct UnnamedSent {
    /// The batch in which it was sent last.
    batch: u32,
    long: Long,
}

/// Whether it is a text that was too long to be held, so that only this server connection has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Long {
    #[default]
    No,
    /// Nothing has been bound to it yet.
    Unbound,
    Bound,
}

/// What few transactions need, apart: the others look at one pointer instead of all this.
#[derive(Debug, Default)]
pub struct Seldom {
    /// The names in the ParameterStatus messages that are withheld, in their order.
    pub withheld: Vec<Box<str>>,
    pub answer: ProbeAnswer,
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
    /// Where texts were edited that are under way, the oldest first, each with the turn in which it was sent.
    edits: VecDeque<(u32, Edits)>,
}

/// Most texts under way whose edits are kept; an error in another one has the position that the server says.
const EDITS_MAX: usize = 64;

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

    /// The id of the statement that the entry in front is about, for a batch that is all there, and of which nothing has
    /// been answered.
    pub fn repeatable(&self) -> Option<u64> {
        let (Some(Owed::Bind { id } | Owed::Describe { id, .. }), Some(Owed::Sync)) =
            (self.owed.front(), self.owed.back())
        else {
            return None;
        };
        id.filter(|_| self.can_repeat && self.owed.ready_owed() == 1 && self.owed.status() == Status::Idle)
    }

    /// Whether the server connection may only read: the node is a replica.
    #[inline]
    pub fn is_read_only(&self) -> bool {
        self.lent_for == Need::Read
    }

    /// What was known when it was first asked for since a server connection was lent or wanted.
    pub fn census(&self, code: &DatabaseCode) -> Option<&Census> {
        self.census.get_or_init(|| code.census()).as_deref()
    }

    /// The message at hand goes nowhere.
    pub fn forget_message(&mut self) {
        self.judged = None;
        self.census.take();
    }

    /// The text that is sent next differs from the client's.
    pub fn note_edits(&mut self, edits: Edits) {
        let (turn, turns) = (self.owed.batch(), self.owed.turns());
        let under_way = &mut self.seldom_mut().edits;
        // What was answered is as far behind as a number that wraps around can be.
        under_way.retain(|(sent, _)| sent.wrapping_sub(turns) <= turn.wrapping_sub(turns));
        if under_way.len() < EDITS_MAX {
            under_way.push_back((turn, edits));
        }
    }

    /// Where the text was edited that the server answers now, if it was.
    pub fn edits(&self) -> Option<&Edits> {
        let turns = self.owed.turns();
        self.seldom()?.edits.iter().find(|(turn, _)| *turn == turns).map(|(_, edits)| edits)
    }

    /// The unnamed statement is sent with the message that is pushed next.
    pub fn note_unnamed(&mut self) {
        self.unnamed = UnnamedSent { batch: self.owed.batch(), long: Long::No };
    }

    /// It is a text that is too long to be held.
    pub fn note_long_unnamed(&mut self) {
        self.unnamed.long = Long::Unbound;
    }

    /// It is bound.
    pub fn bind_long_unnamed(&mut self) {
        if self.unnamed.long == Long::Unbound {
            self.unnamed.long = Long::Bound;
        }
    }

    /// It is gone.
    pub fn drop_long_unnamed(&mut self) {
        self.unnamed.long = Long::No;
    }

    /// Whether the server's unnamed statement is such a text of the client's.
    pub fn has_long_unnamed(&self) -> bool {
        self.unnamed.long != Long::No
    }

    /// And nothing has been bound to it yet.
    pub fn is_long_unbound(&self) -> bool {
        self.unnamed.long == Long::Unbound
    }

    /// Whether the unnamed statement that was sent is there for the message at hand, unless both are skipped.
    pub fn is_unnamed_sure(&self) -> bool {
        self.owed.ready_owed() == 0 || self.unnamed.batch == self.owed.batch()
    }

    /// Whether the server will hold a statement, of which `held` tells what is known by its replies.
    pub fn presence(&self, id: u64, held: bool) -> Presence {
        self.owed.presence(id, held, self.deallocating)
    }

    /// A text with this verdict is sent.
    pub fn note_defaults(&mut self, verdict: &Verdict) {
        let new = match &verdict.defaults {
            Some(of) => NewDefaults::Of(of.clone()),
            None if verdict.does(Fact::ReloadsConfiguration) => NewDefaults::Reloaded,
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
        self.owed.reset();
        self.lent_for = Need::default();
        (self.failed, self.asked_again, self.unfit) = (false, false, false);
        (self.deallocating, self.unnamed.long) = (false, Long::No);
        (self.login_values, self.identity) = (LoginValues::default(), Identity::default());
        self.seldom = None;
        self.effects.reset();
        self.ended.clear();
        self.bound = Called::default();
        self.forget_message();
        self.can_repeat = false;
    }
}
