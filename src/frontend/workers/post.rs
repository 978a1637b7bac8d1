//! Where a thread is told which share of its clients is to move to another.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::balance::{ALL, Load, MoveOrder};

/// What a thread and those who steer it tell each other.
#[derive(Debug, Default)]
pub struct Post {
    /// The number of the thread, from 0 on.
    pub number: usize,
    pub clients: AtomicUsize,
    /// What the thread used of a core of late, in thousandths.
    pub busy: AtomicU32,
    /// The order that stands: its number, to whom, and the share; 0 for none.
    order: AtomicU64,
    /// Clients that it has been put to.
    asked: AtomicU32,
}

impl Post {
    /// For the thread of this number.
    pub fn of(number: usize) -> Post {
        Post { number, ..Post::default() }
    }

    pub fn load(&self) -> Load {
        Load { busy: self.busy.load(Ordering::Relaxed), clients: self.clients.load(Ordering::Relaxed) }
    }

    /// `number` tells this order from earlier ones, unless it is the same as the one that stands.
    pub fn put_order(&self, order: Option<MoveOrder>, number: u32) {
        let standing = self.order.load(Ordering::Relaxed);
        let Some(MoveOrder { to, share, .. }) = order else {
            if standing != 0 {
                self.order.store(0, Ordering::Relaxed);
            }
            return;
        };
        let what = (to as u64 & 0xffff) << 16 | u64::from(share);
        if standing & 0xffff_ffff != what {
            self.asked.store(0, Ordering::Relaxed);
            self.order.store(u64::from(number) << 32 | what, Ordering::Relaxed);
        }
    }

    /// The thread to which a client that becomes active is to go. `answered` is the number of the last order that has
    /// been put to this client: each is put once, and of those in a row a share goes that is exact.
    #[inline]
    pub fn destination(&self, answered: &mut u32) -> Option<usize> {
        match self.order.load(Ordering::Relaxed) {
            0 => None,
            order => self.answer(order, answered),
        }
    }

    fn answer(&self, order: u64, answered: &mut u32) -> Option<usize> {
        let number = (order >> 32) as u32;
        if *answered == number {
            return None;
        }
        *answered = number;
        let (to, share) = ((order >> 16 & 0xffff) as usize, order & 0xffff);
        let turn = u64::from(self.asked.fetch_add(1, Ordering::Relaxed));
        let all = u64::from(ALL);
        ((turn + 1) * share / all > turn * share / all).then_some(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many clients go, each of which becomes active several times.
    fn gone(post: &Post, answered: &mut [u32]) -> usize {
        let mut gone = 0;
        for _ in 0..3 {
            gone += answered.iter_mut().filter_map(|answered| post.destination(answered)).count();
        }
        gone
    }

    #[test]
    fn the_share_of_an_order_is_exact_and_each_client_is_asked_once() {
        let post = Post::default();
        for (number, share, clients, expected) in
            [(1, 500, 2, 1), (2, 500, 10, 5), (3, 250, 10, 2), (4, 1000, 7, 7), (5, 1, 999, 0), (6, 1, 1000, 1)]
        {
            let mut answered = vec![0; clients];
            post.put_order(Some(MoveOrder { from: 0, to: 1, share }), number);
            assert_eq!(gone(&post, &mut answered), expected, "{share} of {clients}");
        }
    }

    #[test]
    fn an_order_that_stands_is_not_put_again_and_one_that_fell_is_not_followed() {
        let post = Post::default();
        let order = Some(MoveOrder { from: 0, to: 3, share: 500 });
        let mut answered = [0; 4];
        post.put_order(order, 7);
        assert_eq!(gone(&post, &mut answered[..2]), 1);
        post.put_order(order, 8);
        assert_eq!(gone(&post, &mut answered), 1, "the other two");
        post.put_order(None, 9);
        assert_eq!(gone(&post, &mut [0; 4]), 0);
        post.put_order(order, 10);
        assert_eq!(gone(&post, &mut answered), 2, "a new one is put to all");
        assert_eq!(post.destination(&mut 0), None);
        assert_eq!(post.destination(&mut 0), Some(3), "to whom it says");
    }
}
