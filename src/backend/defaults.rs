//! Notices that sessions of one database and user begin with other settings than before, from what servers report when
//! they are connected to. That can come from a reload of a server's configuration or from ALTER ROLE … SET by anybody.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use poolhouse_core::session::Reported;

#[derive(Debug, Default)]
pub struct Defaults {
    changes: AtomicU64,
    /// What each node has reported last, by its number.
    last: Mutex<Vec<(u16, Arc<Reported>)>>,
}

impl Defaults {
    /// How often they have changed: what was found out at another number is not to be trusted.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub fn change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// A connection to this node has begun with these values.
    pub fn note(&self, node: u16, reported: &Arc<Reported>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.iter_mut().find(|(known, _)| *known == node) {
            Some((_, before)) if *before == *reported => {}
            Some((_, before)) => {
                before.clone_from(reported);
                self.change();
            }
            None => last.push((node, reported.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_value_on_the_same_node_is_a_change() {
        let reported = |zone| {
            let mut reported = Reported::default();
            reported.set("TimeZone", zone).unwrap();
            Arc::new(reported)
        };
        let defaults = Defaults::default();
        for (node, zone, changes) in [(0, "UTC", 0), (1, "CET", 0), (0, "UTC", 0), (1, "UTC", 1), (0, "UTC", 1)] {
            defaults.note(node, &reported(zone));
            assert_eq!(defaults.changes(), changes, "{node} {zone}");
        }
        defaults.change();
        assert_eq!(defaults.changes(), 2);
    }
}
