//! Tables for the machine and for routing. `simulation` drives both against model servers.

mod machine;
mod routing;
mod simulation;

use std::time::{Duration, Instant};

use super::*;

const SYSTEM: u64 = 7_711;
const SILENCE: Duration = Duration::from_secs(3);

fn settings(nodes: usize, failover: FailoverMode) -> Settings {
    let node =
        |index: usize| NodeSettings { name: format!("n{index}"), weight: 1.0, role: None, near: true, gone: false };
    Settings { nodes: (0..nodes).map(node).collect(), failover, failures: 3, silence: Some(SILENCE) }
}

/// A machine, its virtual time, and what it asked for last.
struct Bench {
    machine: Machine,
    start: Instant,
    now: Instant,
    actions: Vec<Action>,
}

fn id(node: usize) -> NodeId {
    NodeId(node as u16)
}

fn primary(timeline: u32, lsn: u64) -> NodeProbe {
    NodeProbe {
        started: Instant::now(),
        role: Role::Primary,
        timeline,
        system_identifier: Some(SYSTEM),
        lsn,
        received: lsn,
        receiver: None,
        senders: 0,
    }
}

fn replica(timeline: u32, lsn: u64) -> NodeProbe {
    NodeProbe {
        role: Role::Replica,
        receiver: Some(Receiver { streaming: true, heard: None }),
        ..primary(timeline, lsn)
    }
}

fn orphan(timeline: u32, lsn: u64) -> NodeProbe {
    NodeProbe { receiver: None, ..replica(timeline, lsn) }
}

impl Bench {
    fn new(settings: &Settings) -> Bench {
        let now = Instant::now() + Duration::from_secs(1_000);
        Bench { machine: Machine::new(settings, now), start: now, now, actions: Vec::new() }
    }

    /// Three nodes: n0 a primary on timeline 1 at 100, n1 and n2 its replicas.
    fn three(failover: FailoverMode) -> Bench {
        let mut bench = Bench::new(&settings(3, failover));
        bench.probes([primary(1, 100), replica(1, 100), replica(1, 100)]);
        bench.wait(1);
        bench
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn see(&mut self, node: usize, observation: Observation) -> &mut Bench {
        self.actions = self.machine.observe(id(node), observation, self.now);
        self
    }

    fn probe(&mut self, node: usize, probe: NodeProbe) -> &mut Bench {
        let started = self.now;
        self.see(node, Observation::Probe(NodeProbe { started, ..probe }))
    }

    fn probes<const N: usize>(&mut self, probes: [NodeProbe; N]) {
        for (node, probe) in probes.into_iter().enumerate() {
            self.probe(node, probe);
        }
    }

    /// A replica that holds its connection to the primary, and has heard nothing over it since the start.
    fn hold(&mut self, node: usize) -> &mut Bench {
        let receiver = Receiver { streaming: true, heard: Some(self.start) };
        self.probe(node, NodeProbe { receiver: Some(receiver), ..replica(1, 100) })
    }

    fn testify(&mut self, node: usize, testimony: Testimony) -> &mut Bench {
        self.see(node, Observation::Testified(testimony))
    }

    fn fail(&mut self, node: usize) -> &mut Bench {
        self.see(node, Observation::ProbeFailed { reason: "timed out".into() })
    }

    fn down(&mut self, node: usize) -> &mut Bench {
        self.fail(node).fail(node).fail(node)
    }

    fn refuse(&mut self, node: usize) -> &mut Bench {
        self.see(node, Observation::ConnectionRefused { reason: "connection refused".into() })
    }

    fn state(&self, node: usize) -> State {
        self.machine.topology().nodes[node].state
    }

    fn why(&self, node: usize) -> &str {
        &self.machine.topology().nodes[node].why
    }

    fn states(&self) -> String {
        let topology = self.machine.topology();
        let name = |node: usize| match topology.primary == Some(id(node)) {
            true => format!("{}*", topology.nodes[node].state.name()),
            false => topology.nodes[node].state.name().to_owned(),
        };
        (0..topology.nodes.len()).map(name).collect::<Vec<_>>().join(" ")
    }
}
