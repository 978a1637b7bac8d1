//! What is known of a database's own code, shared by all its sessions, and the signs by which sessions tell whoever
//! keeps the knowledge that it is wanted, or wrong. Statements look at one byte; all else is off their common path.
//!
//! As long as nobody keeps it, code that a text names may do anything, and nothing else is expected. Once somebody does,
//! nothing known means that every statement may reach code that touches the session: until a census is there, and from
//! the moment at which a change of code may be committed until there is a new one.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::sql::{
    Census, Fact, Hidden, Verdict,
    census::{CUSTOMS_MAX, PrimaryOnly},
};

/// No statement has come since the keeper looked.
const UNUSED: u8 = 1;
const HIDDEN_READS: u8 = 2;
const HIDDEN_WRITES: u8 = 4;
/// The census knows of relations that are to be read on the primary.
const PRIMARY_ONLY: u8 = 8;
/// A session has asked for values of sequences, so others may. This is about clients, and stays.
const ASKS_SEQUENCES: u8 = 16;
/// What was known has been forgotten for want of statements, and a look is all that it takes to know again.
const AT_REST: u8 = 32;

/// What sessions know of their database's own code.
#[derive(Debug, Default)]
pub struct DatabaseCode {
    signs: AtomicU8,
    census: ArcSwapOption<Census>,
    /// Settings that the server is to be asked for by their names. They are kept when the census is forgotten.
    customs: ArcSwap<Vec<Box<str>>>,
    state: Mutex<CodeState>,
}

#[derive(Debug, Default)]
struct CodeState {
    /// How often code has begun to change, or has changed.
    changes: u64,
    /// How many changes are on their way to the server.
    under_way: usize,
    changed: bool,
    doubted: bool,
    vacated: bool,
    keeper: Option<Waker>,
}

/// Why the keeper should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing is known, and somebody wants to know.
    Changed,
    /// A statement calls a function that is not known.
    Doubted,
    /// Nobody is to be connected to the database.
    Vacated,
}

/// A change of code that may have been committed by now, or will be. Nothing is known until it is dropped, and looked
/// at anew then.
#[derive(Debug)]
pub struct CodeChange(Arc<DatabaseCode>);

impl DatabaseCode {
    /// What statements may run without naming it. Costs one load.
    #[inline]
    pub fn hidden(&self) -> Hidden {
        let signs = self.signs.load(Ordering::Relaxed);
        if signs & UNUSED != 0 {
            self.wake_up();
        }
        Hidden { reads: signs & HIDDEN_READS != 0, writes: signs & HIDDEN_WRITES != 0 }
    }

    /// The relation that a text names and that is to be read on the primary, as far as that is known.
    #[inline]
    pub fn primary_only<'v>(&self, verdict: &'v Verdict) -> Option<(&'v str, PrimaryOnly)> {
        if verdict.tables.is_empty() || self.signs.load(Ordering::Relaxed) & PRIMARY_ONLY == 0 {
            return None;
        }
        self.census.load().as_ref()?.primary_only(verdict)
    }

    /// Whether a session of the database has asked for values of sequences that it has drawn.
    #[inline]
    pub fn asks_sequences(&self) -> bool {
        self.signs.load(Ordering::Relaxed) & ASKS_SEQUENCES != 0
    }

    /// A session asks for them.
    pub fn note_asks_sequences(&self) {
        if !self.asks_sequences() {
            self.signs.fetch_or(ASKS_SEQUENCES, Ordering::Relaxed);
        }
    }

    /// Whether a text may read a sequence, for all that is known.
    pub fn may_read_sequence(&self, verdict: &Verdict) -> bool {
        verdict.does(Fact::MayReadSequence) && self.census.load().is_none()
    }

    /// What is known; nothing, most of the time for a moment only.
    pub fn census(&self) -> Option<Arc<Census>> {
        self.census.load_full()
    }

    /// Settings that code of the database may change and that the server lists nowhere.
    pub fn customs(&self) -> Arc<Vec<Box<str>>> {
        self.customs.load_full()
    }

    /// As [`DatabaseCode::customs`], by code that is new.
    pub fn learn_customs(&self, names: &[Box<str>]) {
        let known = self.customs.load();
        let news: Vec<_> = names.iter().filter(|name| !known.contains(name)).cloned().collect();
        if !news.is_empty() && known.len() + news.len() <= CUSTOMS_MAX {
            self.customs.store(Arc::new([known.as_slice(), &news].concat()));
        }
    }

    /// A statement calls a function that the census does not know.
    pub fn doubt(&self) {
        let mut state = self.state();
        state.doubted = true;
        state.wake();
    }

    /// The keeper's connection is in the way of a statement.
    pub fn vacate(&self) {
        let mut state = self.state();
        state.vacated = true;
        state.wake();
    }

    /// A statement that changes code is sent, which may be committed at once.
    pub fn change(self: &Arc<Self>) -> CodeChange {
        let mut state = self.state();
        state.under_way += 1;
        state.changes += 1;
        self.forget(&state);
        CodeChange(self.clone())
    }

    /// Somebody keeps it from now on. Nothing is known yet.
    pub fn keep(&self) {
        self.forget(&self.state());
        self.signs.fetch_or(UNUSED, Ordering::Relaxed);
    }

    /// Ready when the keeper should look, which is not while a change is under way. One task at a time may wait.
    pub fn poll_due(&self, cx: &mut Context<'_>) -> Poll<Due> {
        let mut state = self.state();
        if std::mem::take(&mut state.vacated) {
            return Poll::Ready(Due::Vacated);
        }
        if state.under_way == 0 && std::mem::take(&mut state.changed) {
            state.doubted = false;
            return Poll::Ready(Due::Changed);
        }
        if std::mem::take(&mut state.doubted) {
            return Poll::Ready(Due::Doubted);
        }
        state.keeper = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Call before the server is asked; the number goes to [`DatabaseCode::publish`].
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Makes known what the server has answered; false when code has changed meanwhile, or may have. With nothing, a
    /// census is not to be had: sessions do as if nobody kept it.
    pub fn publish(&self, changes: u64, census: Option<Arc<Census>>) -> bool {
        let state = self.state();
        if state.changes != changes {
            return false;
        }
        let hidden = census.as_ref().map_or(Hidden::default(), |census| census.hidden());
        let primary_only = census.as_ref().is_some_and(|census| census.knows_primary_only());
        if let Some(census) = &census {
            self.customs.store(Arc::new(census.customs().to_vec()));
        }
        self.census.store(census);
        self.show(hidden, primary_only);
        self.end_rest();
        true
    }

    /// Whether nothing is known only because no statement has come for a while: worth a moment's wait. Costs one load.
    #[inline]
    pub fn is_at_rest(&self) -> bool {
        self.signs.load(Ordering::Relaxed) & AT_REST != 0
    }

    /// Nobody is to wait for the look that ends the rest: it has failed, or takes long.
    pub fn end_rest(&self) {
        self.signs.fetch_and(!AT_REST, Ordering::Relaxed);
    }

    /// Whether statements have come since the last call.
    pub fn was_used(&self) -> bool {
        self.signs.fetch_or(UNUSED, Ordering::Relaxed) & UNUSED == 0
    }

    /// Forgets what is known, until the next statement comes.
    pub fn rest(&self) {
        self.forget(&self.state());
        self.signs.fetch_or(UNUSED | AT_REST, Ordering::Relaxed);
    }

    /// The first statement after a rest, or since the keeper looked.
    #[cold]
    fn wake_up(&self) {
        let before = self.signs.fetch_and(!UNUSED, Ordering::Relaxed);
        if before & UNUSED != 0 && self.census.load().is_none() {
            let mut state = self.state();
            state.changed = true;
            state.wake();
        }
    }

    /// Shows that nothing is known. The lock is held.
    fn forget(&self, _: &CodeState) {
        self.show(Hidden::ANYTHING, false);
        self.census.store(None);
    }

    fn show(&self, hidden: Hidden, primary_only: bool) {
        let signs = (u8::from(hidden.reads) * HIDDEN_READS)
            | (u8::from(hidden.writes) * HIDDEN_WRITES)
            | (u8::from(primary_only) * PRIMARY_ONLY);
        let _ = self.signs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            Some(before & (UNUSED | ASKS_SEQUENCES | AT_REST) | signs)
        });
    }

    fn state(&self) -> MutexGuard<'_, CodeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CodeState {
    fn wake(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.wake();
        }
    }
}

impl Drop for CodeChange {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.under_way -= 1;
        state.changes += 1;
        state.changed = true;
        state.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(code: &DatabaseCode) -> Option<Due> {
        match code.poll_due(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(due) => Some(due),
            Poll::Pending => None,
        }
    }

    #[test]
    fn nothing_is_expected_when_nobody_keeps_it() {
        let code = DatabaseCode::default();
        assert_eq!((code.hidden(), code.census()), (Hidden::default(), None));
    }

    #[test]
    fn it_is_wanted_with_the_first_statement_and_anything_may_be_hidden_until_then() {
        let code = DatabaseCode::default();
        code.keep();
        assert_eq!(due(&code), None);
        assert_eq!(code.hidden(), Hidden::ANYTHING);
        assert_eq!((due(&code), due(&code)), (Some(Due::Changed), None));
        assert!(code.publish(code.changes(), Some(Arc::default())));
        assert_eq!((code.hidden(), code.census()), (Hidden::default(), Some(Arc::default())));
        code.doubt();
        assert_eq!((due(&code), due(&code)), (Some(Due::Doubted), None));
        assert!(code.was_used() && !code.was_used());
        code.vacate();
        assert_eq!((due(&code), due(&code)), (Some(Due::Vacated), None));
        assert!(!code.is_at_rest());
        code.rest();
        assert_eq!((due(&code), code.census()), (None, None));
        assert_eq!((code.hidden(), due(&code)), (Hidden::ANYTHING, Some(Due::Changed)));
    }

    #[test]
    fn a_rest_is_over_with_the_next_census_or_when_nobody_is_to_wait_for_it() {
        let code = Arc::new(DatabaseCode::default());
        code.keep();
        assert!(!code.is_at_rest(), "the first look is waited for by sessions as they begin");
        code.rest();
        let change = code.change();
        assert!(code.is_at_rest());
        assert!(!code.publish(0, Some(Arc::default())) && code.is_at_rest());
        drop(change);
        assert!(code.publish(code.changes(), Some(Arc::default())) && !code.is_at_rest());
        code.rest();
        code.end_rest();
        assert!(!code.is_at_rest() && code.hidden() == Hidden::ANYTHING);
    }

    #[test]
    fn a_change_makes_everything_unknown_until_it_has_been_looked_at() {
        let code = Arc::new(DatabaseCode::default());
        code.keep();
        let before = code.changes();
        assert!(code.publish(before, Some(Arc::default())));
        let change = code.change();
        let other = code.change();
        assert_eq!((code.hidden(), code.census(), due(&code)), (Hidden::ANYTHING, None, None));
        assert!(!code.publish(before, Some(Arc::default())), "what was asked before the change");
        drop(change);
        assert_eq!(due(&code), None);
        let during = code.changes();
        drop(other);
        assert!(!code.publish(during, Some(Arc::default())), "what was asked during the change");
        assert_eq!(due(&code), Some(Due::Changed));
        assert!(code.publish(code.changes(), Some(Arc::default())));
        assert_eq!(code.hidden(), Hidden::default());
    }

    #[test]
    fn that_values_of_sequences_are_asked_for_is_not_forgotten_with_the_census() {
        let code = DatabaseCode::default();
        code.keep();
        assert!(!code.asks_sequences());
        code.note_asks_sequences();
        assert!(code.publish(code.changes(), Some(Arc::default())));
        code.rest();
        assert!(code.asks_sequences());
    }

    #[test]
    fn a_census_that_is_not_to_be_had_is_not_waited_for() {
        let code = DatabaseCode::default();
        code.keep();
        assert!(code.publish(code.changes(), None));
        assert_eq!((code.hidden(), code.census()), (Hidden::default(), None));
    }
}
