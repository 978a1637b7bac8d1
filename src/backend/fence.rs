//! Which connections to a node may still be used. When a node is judged unfit for what it was (down, stale, no longer
//! the primary), its fence is raised, and every connection that was opened before is outside: nothing more is sent over
//! it, and nothing that comes from it counts. Whoever holds such a connection looks at its [`Pass`] before each use.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The fence of one node. Only its cluster's monitor raises it.
#[derive(Debug, Default)]
pub struct Fence {
    height: AtomicU64,
}

impl Fence {
    /// Connections that were opened when it was lower are outside from now on. It never sinks.
    pub fn raise(&self, height: u64) {
        self.height.fetch_max(height, Ordering::AcqRel);
    }

    /// What a connection gets that is about to be opened.
    pub fn pass(self: &Arc<Self>) -> Pass {
        Pass { height: self.height.load(Ordering::Acquire), fence: self.clone() }
    }
}

/// Held by a connection: whether it is still inside.
#[derive(Debug)]
pub struct Pass {
    fence: Arc<Fence>,
    height: u64,
}

impl Pass {
    /// One read of a word that hardly ever changes.
    #[inline]
    pub fn is_valid(&self) -> bool {
        self.fence.height.load(Ordering::Acquire) == self.height
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_opened_before_the_fence_was_raised_is_outside() {
        let fence = Arc::new(Fence::default());
        let before = fence.pass();
        fence.raise(0);
        assert!(before.is_valid());
        fence.raise(2);
        let after = fence.pass();
        fence.raise(1);
        assert_eq!((before.is_valid(), after.is_valid()), (false, true), "it never sinks");
    }
}
