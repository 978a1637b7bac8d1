//! The prepared statements that one server connection holds.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{
    client_statements::Unnamed,
    shape::Shape,
    steps::{counted, step},
};

/// Most bytes of texts that one server connection is let hold; a single text may be longer.
pub const SERVER_STATEMENT_BYTES_MAX: usize = 16 << 20;

/// What one server connection holds, as its replies have told.
/// In the order written, so that what every statement looks at lies together.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ServerStatements {
    /// Whose its unnamed statement surely is, once what was sent has run.
    unnamed: Option<Unnamed>,
    /// By the statement's id.
    used: HashMap<u64, HeldStatement, RandomState>,
    tick: u64,
    /// Of all texts.
    bytes: usize,
    leaving: Leaving,
    /// Statements under clients' own names, for SQL's EXECUTE.
    own: Option<Box<OwnNames>>,
    /// The session for which strangers' were closed last.
    own_swept: u64,
    /// Whether our question about functions is prepared there.
    asks_functions: bool,
}

/// So many of clients' own names may be on one server connection before strangers' are closed.
const OWN_NAMES_MAX: usize = 200;

/// And so many are looked at for one statement.
const OWN_NAMES_SWEPT: usize = 400;

/// Those that were used least recently when all were last looked through: who goes next is found among them, so that all
/// are looked through only once in a while.
#[derive(Debug, Default)]
struct Leaving {
    /// Ticks and ids, the oldest last. One that was used since has another tick.
    oldest: Vec<(u64, u64)>,
    /// Not before so many more were asked for are all looked through again.
    patience: usize,
}

/// One of so many is among those that are found at once.
const LEAVING_SHARE: usize = 8;

/// One statement on a server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldStatement {
    /// When it was used last.
    tick: u64,
    /// What its parameters and its result look like, when the server has said.
    pub shape: Option<Shape>,
    /// The server has refused to run it: it has to be prepared anew.
    pub stale: bool,
    /// When it was prepared there, by [`super::Statements::next_moment`].
    pub since: u64,
    /// Length of its text, as far as it was sent by us.
    bytes: usize,
}

/// For each name what stands under it, and since when; `None` when it may be there or not.
type OwnNames = HashMap<Box<[u8]>, Option<(u64, u64)>, RandomState>;

impl ServerStatements {
    /// Whether this is its unnamed statement, once what was sent has run.
    pub fn has_unnamed(&self, unnamed: Unnamed) -> bool {
        self.unnamed == Some(unnamed)
    }

    /// This one is sent to be parsed.
    pub fn set_unnamed(&mut self, unnamed: Unnamed) {
        self.unnamed = Some(unnamed);
    }

    /// What is sent takes the unnamed statement away, or puts one there that cannot be told: any simple query does, and an
    /// error in a batch may.
    pub fn forget_unnamed(&mut self) {
        self.unnamed = None;
    }

    /// Everything is gone, the unnamed statement, too.
    pub fn reset(&mut self) {
        self.clear();
        self.unnamed = None;
    }

    /// What is known of it, if the connection holds it; marks it as used.
    pub fn touch(&mut self, id: u64) -> Option<HeldStatement> {
        self.tick += 1;
        let held = self.used.get_mut(&id)?;
        held.tick = self.tick;
        Some(*held)
    }

    /// The one that was used least recently, of those that may go. Sometimes none, when hardly any may.
    pub fn oldest(&mut self, may_go: impl Fn(u64) -> bool) -> Option<u64> {
        loop {
            while let Some((tick, id)) = self.leaving.oldest.pop() {
                step();
                if self.used.get(&id).is_some_and(|held| held.tick == tick) && may_go(id) {
                    self.leaving.patience = self.leaving.patience.saturating_sub(1);
                    return Some(id);
                }
            }
            if self.leaving.patience > 0 {
                self.leaving.patience -= 1;
                return None;
            }
            let share = self.used.len().div_ceil(LEAVING_SHARE);
            let able = counted(self.used.iter()).filter(|(id, _)| may_go(**id)).map(|(id, held)| (held.tick, *id));
            let mut oldest: Vec<_> = able.collect();
            if oldest.len() > share {
                oldest.select_nth_unstable(share);
                oldest.truncate(share);
            }
            oldest.sort_unstable_by(|one, other| other.cmp(one));
            // However few they are, the look was as long.
            self.leaving = Leaving { oldest, patience: share };
            if self.leaving.oldest.is_empty() {
                return None;
            }
        }
    }

    /// It was prepared at the moment `since`, or dropped.
    pub fn set(&mut self, id: u64, held: Option<u64>) {
        match held {
            Some(since) => self.insert(id, since),
            None => self.remove(id),
        }
    }

    pub fn insert(&mut self, id: u64, since: u64) {
        self.tick += 1;
        let held = HeldStatement { tick: self.tick, shape: None, stale: false, since, bytes: 0 };
        let before = self.used.insert(id, held);
        self.bytes -= before.map_or(0, |before| before.bytes);
    }

    /// The length of its text, once it is there.
    pub fn set_bytes(&mut self, id: u64, bytes: usize) {
        if let Some(held) = self.used.get_mut(&id) {
            self.bytes = self.bytes - held.bytes + bytes;
            held.bytes = bytes;
        }
    }

    /// Bytes of all texts.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of one text; 0 when it is not held.
    pub fn bytes_of(&self, id: u64) -> usize {
        self.used.get(&id).map_or(0, |held| held.bytes)
    }

    pub fn set_shape(&mut self, id: u64, shape: Shape) {
        if let Some(held) = self.used.get_mut(&id)
            && (!shape.is_of_portal() || held.shape.is_none_or(|known| !known.has_columns_of(shape)))
        {
            held.shape = Some(shape);
        }
    }

    pub fn set_stale(&mut self, id: u64) {
        if let Some(held) = self.used.get_mut(&id) {
            held.stale = true;
        }
    }

    pub fn remove(&mut self, id: u64) {
        let removed = self.used.remove(&id);
        self.bytes -= removed.map_or(0, |removed| removed.bytes);
    }

    /// All named ones are gone.
    pub fn clear(&mut self) {
        self.used.clear();
        (self.bytes, self.leaving) = (0, Leaving::default());
        (self.own, self.asks_functions) = (None, false);
    }

    /// Our question about functions is prepared from now on, or not any more: whether it was before.
    pub fn set_asks_functions(&mut self, asks: bool) -> bool {
        std::mem::replace(&mut self.asks_functions, asks)
    }

    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// The ids of all.
    pub fn ids(&self) -> Vec<u64> {
        counted(self.used.keys()).copied().collect()
    }

    /// What stands under a client's own name: nothing, surely this statement, or perhaps something.
    pub fn own(&self, name: &[u8]) -> Option<Option<u64>> {
        Some(self.own.as_ref()?.get(name)?.map(|(id, _)| id))
    }

    /// Whether this statement stands under a client's own name, prepared at this moment or later.
    pub fn has_own_since(&self, name: &[u8], id: u64, moment: u64) -> bool {
        let own = self.own.as_ref().and_then(|own| own.get(name).copied().flatten());
        own.is_some_and(|(own, since)| own == id && since >= moment)
    }

    /// Under a client's own name stands now a statement, prepared at a moment; or perhaps something.
    pub fn set_own(&mut self, name: &[u8], own: Option<(u64, u64)>) {
        self.own.get_or_insert_default().insert(name.into(), own);
    }

    pub fn remove_own(&mut self, name: &[u8]) {
        let Some(own) = &mut self.own else { return };
        own.remove(name);
        if own.is_empty() {
            self.own = None;
        }
    }

    pub fn has_own(&self) -> bool {
        self.own.is_some()
    }

    /// When there are so many own names that the strangers' among them are to be closed for this session: some of them,
    /// with what stands under them.
    pub fn own_to_sweep(&self, session: u64) -> Vec<(Box<[u8]>, Option<u64>)> {
        let len = self.own.as_ref().map_or(0, |own| own.len());
        if len <= OWN_NAMES_MAX || self.own_swept == session {
            return Vec::new();
        }
        self.iter_own().take(OWN_NAMES_SWEPT).collect()
    }

    /// No stranger's was among them. What this session adds from now on is its own.
    pub fn note_own_swept(&mut self, session: u64) {
        self.own_swept = session;
    }

    fn iter_own(&self) -> impl Iterator<Item = (Box<[u8]>, Option<u64>)> {
        let own = self.own.iter().flat_map(|own| own.iter());
        counted(own).map(|(name, own)| (name.clone(), own.map(|(id, _)| id)))
    }

    /// All own names, with what stands under them.
    pub fn all_own(&self) -> Vec<(Box<[u8]>, Option<u64>)> {
        self.iter_own().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a list in order of use.
        #[test]
        fn the_least_recently_used_goes_first(uses in prop::collection::vec(0u64..12, 1..200), max in 1usize..6) {
            let mut held = ServerStatements::default();
            let mut model: Vec<u64> = Vec::new();
            for id in uses {
                let has = held.touch(id).is_some();
                prop_assert_eq!(has, model.contains(&id));
                model.retain(|other| *other != id);
                if !has {
                    if held.len() >= max {
                        let oldest = held.oldest(|_| true);
                        prop_assert_eq!(oldest, Some(model.remove(0)));
                        held.remove(oldest.unwrap());
                    }
                    held.insert(id, 0);
                }
                model.push(id);
                prop_assert!(held.len() <= max);
            }
        }
    }
}
