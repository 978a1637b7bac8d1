//! The queue of those who wait for a connection of one pool. Tens of thousands may wait, leave and be answered at once,
//! all behind one lock: what is done for one of them must not depend on how many the others are.

use std::{collections::VecDeque, task::Waker, thread::ThreadId};

use tokio::time::Instant;

/// So many at the front are looked at for one on the thread of a connection.
const LOOKED_AT: usize = 64;

#[derive(Debug)]
pub(super) struct Waiter {
    pub ticket: u64,
    pub worker: ThreadId,
    pub since: Instant,
    /// Once it has looked in vain.
    pub waker: Option<Waker>,
    /// It waits no more, and is still in the queue: taking it out would move the others.
    left: bool,
}

impl Waiter {
    pub fn new(ticket: u64, worker: ThreadId, since: Instant) -> Waiter {
        Waiter { ticket, worker, since, waker: None, left: false }
    }
}

/// In the order of their tickets. The first one has not left.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    queue: VecDeque<Waiter>,
    left: usize,
}

impl Waiters {
    pub fn len(&self) -> usize {
        self.queue.len() - self.left
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn front(&self) -> Option<&Waiter> {
        self.queue.front()
    }

    pub fn push(&mut self, waiter: Waiter) {
        self.queue.push_back(waiter);
    }

    pub fn pop(&mut self) -> Option<Waiter> {
        let first = self.queue.pop_front();
        self.trim();
        first
    }

    pub fn get_mut(&mut self, ticket: u64) -> Option<&mut Waiter> {
        let at = self.queue.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()?;
        self.queue.get_mut(at).filter(|waiter| !waiter.left)
    }

    /// One of the first, on this thread; else the first.
    pub fn pop_near(&mut self, worker: ThreadId) -> Option<Waiter> {
        let mut near = self.queue.iter().take(LOOKED_AT);
        let at = near.position(|waiter| waiter.worker == worker && !waiter.left).unwrap_or(0);
        // Moves those in front of it, which are few.
        let found = self.queue.remove(at);
        self.trim();
        found
    }

    /// It waits no more.
    pub fn leave(&mut self, ticket: u64) {
        let Some(waiter) = self.get_mut(ticket) else { return };
        (waiter.left, waiter.waker) = (true, None);
        self.left += 1;
        self.trim();
        if self.left > self.queue.len() / 2 {
            self.queue.retain(|waiter| !waiter.left);
            self.left = 0;
        }
    }

    /// Those with this ticket or a later one.
    pub fn from(&self, ticket: u64) -> impl Iterator<Item = &Waiter> {
        let at = self.queue.partition_point(|waiter| waiter.ticket < ticket);
        self.queue.range(at..).filter(|waiter| !waiter.left)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Waiter> {
        self.queue.iter_mut()
    }

    fn trim(&mut self) {
        while self.queue.front().is_some_and(|first| first.left) {
            self.queue.pop_front();
            self.left -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list out of which those are taken who leave.
        #[test]
        fn who_leaves_is_not_in_the_queue(acts in prop::collection::vec((0u8..5, 0u64..40), 0..300)) {
            let (mut waiters, mut model) = (Waiters::default(), Vec::new());
            let here = std::thread::current().id();
            for (number, (act, choice)) in (0..).zip(acts) {
                let ticket = number * 3;
                match act {
                    0 | 1 => {
                        waiters.push(Waiter::new(ticket, here, Instant::now()));
                        model.push(ticket);
                    }
                    2 => {
                        let popped = if choice % 2 == 0 { waiters.pop() } else { waiters.pop_near(here) };
                        let expected = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(popped.map(|waiter| waiter.ticket), expected);
                    }
                    _ => {
                        let leaves = model.get(choice as usize).copied().unwrap_or(choice);
                        waiters.leave(leaves);
                        model.retain(|ticket| *ticket != leaves);
                        prop_assert!(waiters.get_mut(leaves).is_none());
                    }
                }
                prop_assert_eq!(waiters.len(), model.len());
                prop_assert_eq!(waiters.is_empty(), model.is_empty());
                prop_assert_eq!(waiters.front().map(|first| first.ticket), model.first().copied());
                for ticket in &model {
                    prop_assert!(waiters.get_mut(*ticket).is_some());
                }
            }
        }
    }
}
