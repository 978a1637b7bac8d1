//! The nodes of a cluster, as far as a session has to know them: their names, and whether there is a choice between them.
//! They come and go while sessions go on.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;

/// Shared by all sessions of a cluster.
#[derive(Debug, Default)]
pub struct ClusterNodes {
    /// By their index; `None` for one that is gone. None is ever another's.
    nodes: ArcSwap<Vec<Option<Arc<str>>>>,
    routed: AtomicBool,
}

impl ClusterNodes {
    /// `None` stands for a node that is gone.
    pub fn new<'a>(nodes: impl Iterator<Item = Option<&'a str>>) -> ClusterNodes {
        let names = ClusterNodes::default();
        names.set(nodes);
        names
    }

    /// These are the nodes from now on.
    pub fn set<'a>(&self, nodes: impl Iterator<Item = Option<&'a str>>) {
        let nodes: Vec<_> = nodes.map(|name| name.map(Arc::from)).collect();
        self.routed.store(nodes.iter().flatten().count() > 1, Ordering::Relaxed);
        self.nodes.store(Arc::new(nodes));
    }

    /// Whether there is more than one node to choose from.
    pub fn is_routed(&self) -> bool {
        self.routed.load(Ordering::Relaxed)
    }

    /// The index of a node.
    pub fn find(&self, name: &str) -> Option<u16> {
        let at = self.nodes.load().iter().position(|node| node.as_deref() == Some(name));
        at.map(|at| at as u16)
    }

    /// The name of the node of this index; nothing for one that is gone.
    pub fn name(&self, node: u16) -> Arc<str> {
        self.nodes.load().get(usize::from(node)).cloned().flatten().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_keep_their_places_when_others_go() {
        let names = ClusterNodes::new([Some("a")].into_iter());
        assert_eq!((names.is_routed(), names.find("a"), names.find("b")), (false, Some(0), None));
        names.set([Some("a"), Some("b")].into_iter());
        assert_eq!((names.is_routed(), names.find("b"), &*names.name(1)), (true, Some(1), "b"));
        names.set([None, Some("b")].into_iter());
        assert_eq!((names.is_routed(), names.find("a"), names.find("b")), (false, None, Some(1)));
        assert_eq!((&*names.name(0), &*names.name(7)), ("", ""));
    }
}
