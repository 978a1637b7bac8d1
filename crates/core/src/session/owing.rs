//! The entries of the pipeline in their order, and what is asked of all of them at once. A client can make them many, so
//! that no question may take a walk over them.

use std::collections::VecDeque;

use super::{
    pipeline::Owed,
    queue::Queue,
    steps::{counted, step},
};

#[derive(Debug, Default)]
pub struct Owing {
    entries: VecDeque<Owed>,
    /// How many of them run something.
    runs: usize,
    /// So many entries behind the front have been looked at when a COPY began, and stay.
    behind_copy: usize,
    ours: Option<Box<Ours>>,
}

/// Entries of our own that are asked for; few pipelines have any.
#[derive(Debug, Default)]
struct Ours {
    /// The clients' own names of statements that are brought or closed.
    names: Queue<Box<[u8]>, ()>,
    /// The statements of which it is asked what they give.
    asked: Queue<u64, ()>,
}

impl Owing {
    pub fn push(&mut self, owed: Owed) {
        match &owed {
            Owed::Query { .. } | Owed::Execute { .. } => self.runs += 1,
            Owed::OwnParse { name, .. } | Owed::OwnClose { name } | Owed::OwnPrepare { name, .. } => {
                self.ours.get_or_insert_default().names.push(name.clone(), ());
            }
            Owed::OurDescribe { id } => self.ours.get_or_insert_default().asked.push(*id, ()),
            _ => {}
        }
        self.entries.push_back(owed);
    }

    pub fn pop(&mut self) -> Option<Owed> {
        let owed = self.entries.pop_front()?;
        self.behind_copy = 0;
        match &owed {
            Owed::Query { .. } | Owed::Execute { .. } => self.runs -= 1,
            Owed::OwnParse { .. } | Owed::OwnClose { .. } | Owed::OwnPrepare { .. } => {
                self.ours.as_mut().and_then(|ours| ours.names.pop());
            }
            Owed::OurDescribe { .. } => {
                self.ours.as_mut().and_then(|ours| ours.asked.pop());
            }
            _ => {}
        }
        Some(owed)
    }

    #[inline]
    pub fn front(&self) -> Option<&Owed> {
        self.entries.front()
    }

    #[inline]
    pub fn back(&self) -> Option<&Owed> {
        self.entries.back()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All of them: only when the server connection is lost, or the client has left.
    pub fn iter(&self) -> impl Iterator<Item = &Owed> {
        counted(self.entries.iter())
    }

    /// As [`Owing::iter`].
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Owed> {
        counted(self.entries.iter_mut())
    }

    /// Whether there is anything of a client that a server runs.
    pub fn runs(&self) -> bool {
        self.runs > 0
    }

    /// Whether a message of ours about a client's own name of a statement is under way.
    pub fn has_own(&self, name: &[u8]) -> bool {
        self.ours.as_ref().is_some_and(|ours| ours.names.newest(name).is_some())
    }

    /// Whether the server is being asked what this statement gives.
    pub fn asks_of(&self, id: u64) -> bool {
        self.ours.as_ref().is_some_and(|ours| ours.asked.newest(&id).is_some())
    }

    /// A COPY has begun for the entry in front: takes away the Syncs behind it, up to the end of its data and with that.
    /// How many they were, and whether the end was there.
    pub fn take_ignored(&mut self) -> (usize, bool) {
        // What was looked at before, for another COPY of the same query, stays; only what has come since then is behind it.
        let seen = 1 + self.behind_copy;
        let ignores = |owed: &Owed| owed.is_known() || matches!(owed, Owed::Sync | Owed::CopyEnd);
        if !self.entries.get(seen).is_some_and(ignores) {
            return (0, false);
        }
        let (mut before, mut rest) = match self.behind_copy {
            0 => (self.entries.pop_front().into_iter().collect(), std::mem::take(&mut self.entries)),
            _ => {
                let rest = self.entries.split_off(seen);
                (std::mem::take(&mut self.entries), rest)
            }
        };
        let (mut syncs, mut ended) = (0, false);
        while !ended && rest.front().is_some_and(ignores) {
            step();
            let Some(owed) = rest.pop_front() else { break };
            match owed {
                Owed::Sync => syncs += 1,
                Owed::CopyEnd => ended = true,
                known => before.push_back(known),
            }
        }
        self.behind_copy = before.len() - 1;
        if rest.len() < before.len() {
            before.append(&mut rest);
            rest = before;
        } else {
            before.into_iter().rev().for_each(|owed| rest.push_front(owed));
        }
        self.entries = rest;
        (syncs, ended)
    }

    pub fn clear(&mut self) {
        // Also when it is empty: the next entry is to lie where the last one did.
        self.entries.clear();
        (self.runs, self.behind_copy) = (0, 0);
        if self.ours.is_some() {
            self.ours = None;
        }
    }
}
