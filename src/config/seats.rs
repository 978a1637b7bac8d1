//! The nodes of a cluster keep their places while others come and go: an index once given to a node is never another's.
//! So the settings of a cluster that runs are not in the order of the file, and name nodes that are gone.

use crate::monitor;
use poolhouse_core::topology::{NODES_MAX, NodeSettings, Routing, RoutingRule};

/// Where the nodes of a file have their places in a cluster that runs.
pub(super) struct Seats {
    /// For each node of the file.
    places: Vec<usize>,
    /// How many places there are then.
    count: usize,
}

impl Seats {
    /// Nodes are the same when their addresses are. `None` when there are not enough places.
    pub fn new(was: &monitor::Settings, is: &monitor::Settings) -> Option<Seats> {
        let mut count = was.addresses.len();
        let place = |address| match was.addresses.iter().position(|known| known == address) {
            Some(place) => place,
            None => {
                count += 1;
                count - 1
            }
        };
        let places = is.addresses.iter().map(place).collect();
        (count <= NODES_MAX).then_some(Seats { places, count })
    }

    /// The addresses and nodes of the file, in their places.
    pub fn seat(&self, was: &monitor::Settings, is: &mut monitor::Settings) {
        let gone = was.topology.nodes.iter().map(|node| NodeSettings { gone: true, ..node.clone() });
        let (mut addresses, mut nodes) = (was.addresses.clone(), gone.collect::<Vec<_>>());
        for ((place, address), node) in self.places.iter().zip(&is.addresses).zip(&is.topology.nodes) {
            if *place == nodes.len() {
                addresses.push(address.clone());
                nodes.push(node.clone());
            } else {
                nodes[*place] = node.clone();
            }
        }
        (is.addresses, is.topology.nodes) = (addresses, nodes);
        self.seat_routing(&mut is.routing);
    }

    /// Rules have weights for all nodes, in their order.
    pub fn seat_routing(&self, routing: &mut Routing) {
        if self.places.iter().enumerate().all(|(at, place)| at == *place) && self.count == self.places.len() {
            return;
        }
        let seated = |rule: &RoutingRule| {
            let weights = rule.weights.as_ref().map(|weights| {
                let mut seated = vec![0.0; self.count];
                for (place, weight) in self.places.iter().zip(weights) {
                    seated[*place] = *weight;
                }
                seated.into()
            });
            RoutingRule { weights, ..rule.clone() }
        };
        routing.rules = routing.rules.iter().map(seated).collect();
    }
}
