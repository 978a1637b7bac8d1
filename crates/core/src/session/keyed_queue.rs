//! A queue that is also asked for the newest entry of a key.

use std::{
    borrow::Borrow,
    collections::{HashMap, VecDeque},
    hash::Hash,
};

use foldhash::fast::RandomState;

use super::steps::counted;

/// Up to this many entries are looked through; a longer queue has an index.
const SHORT: usize = 8;

/// Entries leave in the order in which they came. Whatever a client makes of it, each call costs a few steps.
#[derive(Debug)]
pub struct KeyedQueue<K, V> {
    entries: VecDeque<(K, V)>,
    /// How many have left, so that an entry has the same number for as long as it is there.
    gone: u64,
    index: Option<Box<Index<K>>>,
}

/// The number of the newest entry of each key.
#[derive(Debug)]
struct Index<K> {
    newest: HashMap<K, u64, RandomState>,
}

impl<K, V> Default for KeyedQueue<K, V> {
    fn default() -> Self {
        KeyedQueue { entries: VecDeque::new(), gone: 0, index: None }
    }
}

impl<K: Hash + Eq + Clone, V> KeyedQueue<K, V> {
    pub fn push(&mut self, key: K, value: V) {
        let number = self.gone + self.entries.len() as u64;
        if let Some(index) = &mut self.index {
            index.newest.insert(key.clone(), number);
        }
        self.entries.push_back((key, value));
        if self.index.is_none() && self.entries.len() > SHORT {
            let numbered = (self.gone..).zip(&self.entries);
            let newest = numbered.map(|(number, (key, _))| (key.clone(), number)).collect();
            self.index = Some(Box::new(Index { newest }));
        }
    }

    pub fn pop(&mut self) -> Option<(K, V)> {
        let (key, value) = self.entries.pop_front()?;
        if let Some(index) = &mut self.index {
            if self.entries.is_empty() {
                self.index = None;
            } else if index.newest.get(&key) == Some(&self.gone) {
                index.newest.remove(&key);
            }
        }
        self.gone += 1;
        Some((key, value))
    }

    /// The newest entry of this key.
    pub fn newest<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match &self.index {
            None => counted(self.entries.iter().rev()).find(|(other, _)| other.borrow() == key).map(|(_, value)| value),
            Some(index) => {
                let at = index.newest.get(key)? - self.gone;
                self.entries.get(usize::try_from(at).ok()?).map(|(_, value)| value)
            }
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.index = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list that is looked through.
        #[test]
        fn the_newest_of_a_key_is_found(acts in prop::collection::vec((0u8..3, 0u8..24), 0..400)) {
            let mut queue = KeyedQueue::default();
            let mut model: VecDeque<(u8, usize)> = VecDeque::new();
            for (at, (act, key)) in acts.into_iter().enumerate() {
                if act == 0 {
                    prop_assert_eq!(queue.pop(), model.pop_front());
                } else {
                    queue.push(key, at);
                    model.push_back((key, at));
                }
                for key in 0..24 {
                    let expected = model.iter().rev().find(|(other, _)| *other == key).map(|(_, value)| value);
                    prop_assert_eq!(queue.newest(&key), expected);
                }
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
