//! The machine and the router against model servers on virtual time: kills, restarts, cuts, promotions by us and by
//! others, slow answers. Each run follows from its seed, which is printed when a run fails.

use proptest::prelude::*;

use super::*;

const STEP: Duration = Duration::from_millis(100);
const RECEIVER_TIMEOUT: u64 = 120;

/// A small generator of our own: runs must repeat from their seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// One PostgreSQL server. `branches` are the histories it has: each with its number, its timeline, and where it ended.
#[derive(Clone)]
struct Server {
    alive: bool,
    /// Poolhouse can't reach it.
    hidden: bool,
    role: Role,
    timeline: u32,
    branch: u64,
    branches: Vec<(u64, u64)>,
    lsn: u64,
    received: u64,
    follows: usize,
    streaming: bool,
    /// Steps since its receiver last heard something.
    silence: u64,
    /// Since which step it could hear whom it follows at any time.
    connected: Option<u64>,
    /// Step at which a promotion ordered before takes effect.
    promotes_at: Option<u64>,
    returns_at: Option<u64>,
}

impl Server {
    fn contains(&self, branch: u64, lsn: u64) -> bool {
        let on = self.branch == branch || self.branches.iter().any(|(past, end)| *past == branch && *end >= lsn);
        on && self.lsn >= lsn
    }

    /// Whether this one's WAL is a beginning of `other`'s.
    fn can_follow(&self, other: &Server) -> bool {
        if self.branch == other.branch {
            return self.received <= other.lsn || other.role == Role::Primary;
        }
        other.branches.iter().any(|(past, end)| *past == self.branch && *end >= self.received)
    }

    fn probe(&self, started: Instant, senders: u32) -> NodeProbe {
        let heard = started.checked_sub(STEP * self.silence as u32);
        let receiver = self.streaming.then_some(Receiver { streaming: true, heard });
        NodeProbe {
            started,
            role: self.role,
            timeline: self.timeline,
            system_identifier: Some(SYSTEM),
            lsn: self.lsn,
            received: if self.role == Role::Primary { self.lsn } else { self.received },
            receiver,
            senders,
        }
    }
}

/// An answer on its way.
struct Answer {
    node: usize,
    arrives_at: u64,
    started: Instant,
    /// `None` = read when it arrives.
    early: Option<Observation>,
}

struct Session {
    wrote: Option<(u64, u64, Instant)>,
}

struct World {
    seed: u64,
    dice: Dice,
    step: u64,
    start: Instant,
    mode: FailoverMode,
    machine: Machine,
    servers: Vec<Server>,
    cuts: Vec<(usize, usize)>,
    asked: Vec<bool>,
    next_probe: Vec<u64>,
    answers: Vec<Answer>,
    orders: Vec<(u64, Action)>,
    promoting: Option<usize>,
    last_answer: Vec<Option<NodeProbe>>,
    last_primary: Option<NodeId>,
    highest: u32,
    branches: u64,
    sessions: Vec<Session>,
    promotions: u32,
    /// The replicas can be made to ask whether their primary lives.
    able: bool,
}

impl World {
    fn new(seed: u64, mode: FailoverMode, nodes: usize) -> World {
        let start = Instant::now() + Duration::from_secs(1_000);
        let server = |index| Server {
            alive: true,
            hidden: false,
            role: if index == 0 { Role::Primary } else { Role::Replica },
            timeline: 1,
            branch: 1,
            branches: Vec::new(),
            lsn: 100,
            received: 100,
            follows: 0,
            streaming: index != 0,
            silence: 0,
            connected: None,
            promotes_at: None,
            returns_at: None,
        };
        World {
            seed,
            dice: Dice(seed),
            step: 0,
            start,
            mode,
            machine: Machine::new(&settings(nodes, mode), start),
            servers: (0..nodes).map(server).collect(),
            cuts: Vec::new(),
            asked: vec![false; nodes],
            next_probe: vec![0; nodes],
            answers: Vec::new(),
            orders: Vec::new(),
            promoting: None,
            last_answer: vec![None; nodes],
            last_primary: None,
            highest: 0,
            branches: 1,
            sessions: (0..4).map(|_| Session { wrote: None }).collect(),
            promotions: 0,
            able: !seed.is_multiple_of(5),
        }
    }

    fn now(&self) -> Instant {
        self.start + STEP * self.step as u32
    }

    fn is_cut(&self, one: usize, other: usize) -> bool {
        self.cuts.iter().any(|cut| *cut == (one, other) || *cut == (other, one))
    }

    fn run(&mut self, steps: u64, faults: bool) {
        for _ in 0..steps {
            self.step += 1;
            if faults {
                self.trouble();
            }
            self.servers_move();
            self.replicate();
            self.sessions_work();
            self.start_probes();
            self.deliver();
            self.carry_out();
            if self.step.is_multiple_of(10) {
                let actions = self.machine.tick(self.now());
                self.accept(actions);
            }
        }
    }

    // ---- the servers -----------------------------------------------------------------------------------------------

    fn trouble(&mut self) {
        let nodes = self.servers.len() as u64;
        let (node, other) = (self.dice.roll(nodes) as usize, self.dice.roll(nodes) as usize);
        let later = self.step + 5 + self.dice.roll(150);
        match self.dice.roll(200) {
            0 | 1 if self.servers[node].alive => {
                self.kill(node);
                self.servers[node].returns_at = Some(later);
            }
            2 => self.servers[node].hidden = true,
            3 | 4 => self.servers[node].hidden = false,
            5 if node != other => self.cuts.push((node, other)),
            6 | 7 => self.cuts.clear(),
            8 => self.report(node),
            9 => self.operator_promotes(node),
            10 => self.operator_rebuilds(),
            _ => {}
        }
    }

    fn kill(&mut self, node: usize) {
        let server = &mut self.servers[node];
        server.alive = false;
        server.streaming = false;
        server.promotes_at = None;
    }

    fn report(&mut self, node: usize) {
        let reason = || "from a client".to_owned();
        let report = match self.dice.roll(3) {
            0 => Observation::ServerLost { reason: reason() },
            1 => Observation::ReadOnly,
            _ if !self.servers[node].alive => Observation::ConnectionRefused { reason: reason() },
            _ => return,
        };
        self.tell(node, report);
    }

    /// In mode `follow` somebody else decides, not always wisely: the old primary may live on.
    fn operator_promotes(&mut self, node: usize) {
        let newest = self.servers.iter().map(|server| server.timeline).max();
        let server = &self.servers[node];
        let fit = server.alive && server.role == Role::Replica && Some(server.timeline) == newest;
        if self.mode == FailoverMode::Follow && fit {
            self.promote(node);
        }
    }

    /// Whoever can't follow the newest primary is stopped and copied anew from it.
    fn operator_rebuilds(&mut self) {
        let primaries = (0..self.servers.len()).filter(|id| self.servers[*id].role == Role::Primary);
        let Some(source) = primaries.max_by_key(|id| self.servers[*id].timeline) else { return };
        for node in 0..self.servers.len() {
            let server = &self.servers[node];
            let lost = server.role == Role::Primary || !server.can_follow(&self.servers[source]);
            if node != source && lost && self.servers[source].alive && server.promotes_at.is_none() {
                let copy = self.servers[source].clone();
                self.kill(node);
                let returns_at = Some(self.step + 35);
                let role = Role::Replica;
                self.servers[node] =
                    Server { alive: false, role, received: copy.lsn, follows: source, returns_at, ..copy };
            } else if node != source && self.mode == FailoverMode::Follow {
                self.servers[node].follows = source;
            }
        }
    }

    fn servers_move(&mut self) {
        for node in 0..self.servers.len() {
            if self.servers[node].returns_at.is_some_and(|at| at <= self.step) {
                self.servers[node].alive = true;
                self.servers[node].returns_at = None;
            }
            if self.servers[node].promotes_at.is_some_and(|at| at <= self.step) {
                self.servers[node].promotes_at = None;
                self.promote(node);
            }
        }
    }

    fn promote(&mut self, node: usize) {
        self.branches += 1;
        let server = &mut self.servers[node];
        server.lsn = server.received;
        server.branches.push((server.branch, server.lsn));
        server.branch = self.branches;
        server.timeline += 1;
        server.role = Role::Primary;
        server.streaming = false;
        server.lsn += 10;
        server.received = server.lsn;
    }

    fn replicate(&mut self) {
        for node in 0..self.servers.len() {
            let server = &self.servers[node];
            if !server.alive || server.role == Role::Primary {
                continue;
            }
            let sender = self.servers[server.follows].clone();
            let reaches = !self.is_cut(node, server.follows);
            let connected = reaches && sender.alive && node != server.follows && server.can_follow(&sender);
            let lag = self.dice.roll(4);
            let step = self.step;
            let server = &mut self.servers[node];
            if connected && server.promotes_at.is_none() {
                // Nothing is sent when there is nothing to be sent, unless the receiver asks.
                let begins = !server.streaming;
                let hears = begins || server.received < sender.lsn.saturating_sub(lag);
                let asks = server.silence >= RECEIVER_TIMEOUT / 2;
                server.silence = if hears || asks { 0 } else { server.silence + 1 };
                server.connected = server.connected.filter(|_| !begins).or(Some(step));
                server.streaming = true;
                if server.branch != sender.branch {
                    server.branches.clone_from(&sender.branches);
                    server.branch = sender.branch;
                    server.timeline = sender.timeline;
                }
                server.received = server.received.max(sender.lsn.saturating_sub(lag));
            } else {
                // A dead sender closes the connection; a cut is noticed after a while.
                server.silence += 1;
                server.connected = None;
                server.streaming &= !reaches && server.silence < RECEIVER_TIMEOUT && server.promotes_at.is_none();
            }
            let gap = server.received - server.lsn.min(server.received);
            server.lsn += if lag == 3 { gap / 2 } else { gap };
        }
    }

    // ---- the clients -----------------------------------------------------------------------------------------------

    fn sessions_work(&mut self) {
        let routing = Routing::default();
        for index in 0..self.sessions.len() {
            let seed = self.dice.roll(u64::MAX);
            let class = match seed % 6 {
                0 | 1 => NodeNeed::Write,
                2 => NodeNeed::Replica,
                3 => NodeNeed::Node(NodeId(0)),
                _ => NodeNeed::Read,
            };
            let after = self.sessions[index].wrote.map(|(_, _, at)| at);
            let now = self.now();
            let wish = Wish { class, after, lsn: None, weights: None, avoid: NodeSet::NONE };
            let Ok(node) = route(self.machine.topology(), &routing, wish, &|_| 0, seed, now) else { continue };
            match class {
                NodeNeed::Write => self.write(index, node),
                NodeNeed::Read | NodeNeed::Replica | NodeNeed::Node(_) => self.read(index, node),
            }
        }
    }

    fn write(&mut self, session: usize, node: NodeId) {
        assert_eq!(self.machine.topology().primary, Some(node), "seed {}", self.seed);
        let now = self.now();
        let server = &mut self.servers[usize::from(node.0)];
        if server.alive && !server.hidden && server.role == Role::Primary {
            server.lsn += 1;
            server.received = server.lsn;
            self.sessions[session].wrote = Some((server.branch, server.lsn, now));
        }
    }

    fn read(&self, session: usize, node: NodeId) {
        let Some((branch, lsn, _)) = self.sessions[session].wrote else { return };
        let server = &self.servers[usize::from(node.0)];
        let is_replica = self.machine.topology().primary != Some(node);
        // What a failover lost is lost everywhere.
        let lost = self.last_primary.is_some_and(|id| !self.servers[usize::from(id.0)].contains(branch, lsn));
        assert!(
            !is_replica || !server.alive || lost || server.contains(branch, lsn),
            "seed {} step {}: {node:?} has not replayed {branch}/{lsn}, it is at {}/{}",
            self.seed,
            self.step,
            server.branch,
            server.lsn
        );
    }

    // ---- the driver ------------------------------------------------------------------------------------------------

    fn start_probes(&mut self) {
        for node in 0..self.servers.len() {
            let due = self.asked[node] || self.next_probe[node] <= self.step;
            if !due || self.answers.iter().any(|answer| answer.node == node) {
                continue;
            }
            self.asked[node] = false;
            self.next_probe[node] = self.step + 10;
            let arrives_at = self.step + self.dice.roll(4);
            let early = self.dice.one_in(2).then(|| self.answer(node, self.now()));
            self.answers.push(Answer { node, arrives_at, started: self.now(), early });
        }
    }

    fn answer(&self, node: usize, started: Instant) -> Observation {
        let server = &self.servers[node];
        if server.alive && !server.hidden {
            let follows = |other: &&Server| other.alive && other.streaming && other.follows == node;
            Observation::Probe(server.probe(started, self.servers.iter().filter(follows).count() as u32))
        } else {
            Observation::ProbeFailed { reason: "gone".into() }
        }
    }

    fn deliver(&mut self) {
        let step = self.step;
        let (arrived, waiting) =
            std::mem::take(&mut self.answers).into_iter().partition(|answer| answer.arrives_at <= step);
        self.answers = waiting;
        let arrived: Vec<Answer> = arrived;
        for answer in arrived {
            let observation = answer.early.unwrap_or_else(|| self.answer(answer.node, answer.started));
            match &observation {
                Observation::Probe(probe) => self.last_answer[answer.node] = Some(probe.clone()),
                _ => self.last_answer[answer.node] = None,
            }
            self.tell(answer.node, observation);
        }
    }

    fn tell(&mut self, node: usize, observation: Observation) {
        if matches!(observation, Observation::Promoted | Observation::PromotionFailed { .. }) {
            self.promoting = None;
        }
        let actions = self.machine.observe(id(node), observation, self.now());
        self.accept(actions);
    }

    fn accept(&mut self, actions: Vec<Action>) {
        self.check();
        for action in actions {
            match action {
                Action::ProbeNow(node) => self.asked[usize::from(node.0)] = true,
                Action::Promote(node) => {
                    self.check_promotion(node);
                    self.promoting = Some(usize::from(node.0));
                    self.promotions += 1;
                    self.orders.push((self.step + self.dice.roll(15), action));
                }
                Action::Follow { .. } => self.orders.push((self.step + self.dice.roll(5), action)),
                Action::Inquire(_) => self.orders.push((self.step + 1 + self.dice.roll(25), action)),
            }
        }
    }

    fn carry_out(&mut self) {
        let step = self.step;
        let (due, later) = std::mem::take(&mut self.orders).into_iter().partition(|(at, _)| *at <= step);
        self.orders = later;
        let due: Vec<(u64, Action)> = due;
        for (_, action) in due {
            match action {
                Action::Promote(node) => self.order_promotion(usize::from(node.0)),
                Action::Follow { replica, primary } => {
                    let server = &mut self.servers[usize::from(replica.0)];
                    if server.alive && !server.hidden && server.role == Role::Replica {
                        server.follows = usize::from(primary.0);
                    }
                }
                Action::Inquire(node) => self.inquire(usize::from(node.0)),
                Action::ProbeNow(_) => {}
            }
        }
    }

    fn inquire(&mut self, node: usize) {
        let server = &mut self.servers[node];
        let testimony = if !server.alive || server.hidden || !self.able {
            Testimony::Unable { reason: "model".into(), lasting: !self.able }
        } else if server.connected.is_some() {
            server.silence = 0;
            Testimony::Answered
        } else {
            server.streaming = false;
            Testimony::Silent
        };
        self.tell(node, Observation::Testified(testimony));
    }

    fn order_promotion(&mut self, node: usize) {
        let failed = |may_still_happen| Observation::PromotionFailed { reason: "model".into(), may_still_happen };
        let server = &mut self.servers[node];
        let result = match self.dice.roll(6) {
            _ if !server.alive || server.hidden || server.role == Role::Primary => failed(false),
            0 => failed(false),
            1 => {
                server.streaming = false;
                server.promotes_at = Some(self.step + self.dice.roll(100));
                failed(true)
            }
            _ => {
                self.promote(node);
                Observation::Promoted
            }
        };
        self.tell(node, result);
    }

    // ---- what must hold --------------------------------------------------------------------------------------------

    fn check(&mut self) {
        let topology = self.machine.topology();
        check_snapshot(topology, self.seed);
        if let Some(primary) = topology.primary {
            let timeline = topology.nodes[usize::from(primary.0)].timeline;
            assert!(timeline >= self.highest, "seed {}: timeline went back", self.seed);
            self.highest = timeline;
            self.last_primary = Some(primary);
        }
    }

    fn check_promotion(&self, node: NodeId) {
        let seed = self.seed;
        let topology = self.machine.topology();
        assert_eq!(self.mode, FailoverMode::Promote, "seed {seed}");
        assert_eq!((topology.primary, self.promoting), (None, None), "seed {seed}");
        let old = self.last_primary.expect("a primary was known");
        assert_eq!(topology.nodes[usize::from(old.0)].state, State::Down, "seed {seed}");
        let hears = |probe: &Option<NodeProbe>| {
            let heard = |probe: &NodeProbe| probe.receiver.and_then(|receiver| receiver.heard);
            let lately = |probe: &NodeProbe| heard(probe).is_some_and(|at| probe.started.duration_since(at) < SILENCE);
            probe.as_ref().is_some_and(|probe| probe.hears_primary() && lately(probe))
        };
        assert!(!self.last_answer.iter().any(hears), "seed {seed}: a replica still hears the primary");
        let lost = topology.nodes[usize::from(old.0)].since;
        let hears_all_the_time = |replica: &(usize, &Server)| {
            let (index, server) = *replica;
            let since = server.connected.map(|step| self.start + STEP * step as u32);
            let is_seen = server.alive && topology.nodes[index].state == State::Up;
            is_seen && server.follows == usize::from(old.0) && since.is_some_and(|since| since < lost)
        };
        let hears = self.servers.iter().enumerate().find(hears_all_the_time).map(|(index, _)| index);
        assert!(hears.is_none() || !self.able, "seed {seed} step {}: {hears:?} could ask the primary", self.step);
        assert_eq!(topology.nodes[usize::from(node.0)].state, State::Up, "seed {seed}");
    }

    /// Ends all trouble; whoever minds the cluster mends what only a person can.
    fn heal(&mut self) {
        self.cuts.clear();
        for node in 0..self.servers.len() {
            self.servers[node].hidden = false;
            if !self.servers[node].alive {
                self.servers[node].returns_at = Some(self.step + 1);
            }
        }
        for _ in 0..40 {
            self.run(100, false);
            self.operator_rebuilds();
            if self.mode == FailoverMode::Follow && !self.servers.iter().any(|server| server.role == Role::Primary) {
                self.operator_promotes(0);
            }
        }
    }

    fn check_healed(&self) {
        let topology = self.machine.topology();
        let primary = topology.primary.map(|id| usize::from(id.0));
        let newest = self.servers.iter().map(|server| server.timeline).max();
        for (index, node) in topology.nodes.iter().enumerate() {
            let seed = self.seed;
            assert_eq!(node.state, State::Up, "seed {seed}: {} {}", node.name, node.why);
            assert_eq!(Some(node.timeline), newest, "seed {seed}: {}", node.name);
            assert!(Some(index) == primary || node.fresh_as_of.is_some(), "seed {seed}: {} is never fresh", node.name);
        }
        assert!(primary.is_some(), "seed {}: no primary", self.seed);
    }
}

fn check_snapshot(topology: &Topology, seed: u64) {
    let used =
        |node: &&Node| node.role == Some(Role::Primary) && matches!(node.state, State::Up | State::Suspect { .. });
    assert!(topology.nodes.iter().filter(used).count() <= 1, "seed {seed}: two primaries {topology:#?}");
    if let Some(primary) = topology.primary {
        let node = &topology.nodes[usize::from(primary.0)];
        assert!(used(&node), "seed {seed}: {node:?} is no primary");
    }
}

fn simulate(mode: FailoverMode, nodes: usize, seeds: std::ops::Range<u64>) -> u32 {
    let mut promotions = 0;
    for seed in seeds {
        let mut world = World::new(seed, mode, nodes);
        world.run(1_500, true);
        world.heal();
        world.check_healed();
        promotions += world.promotions;
    }
    promotions
}

#[test]
fn promote_keeps_its_promises() {
    assert!(simulate(FailoverMode::Promote, 3, 0..60) > 40, "the runs must reach promotions");
    simulate(FailoverMode::Promote, 2, 0..20);
    simulate(FailoverMode::Promote, 4, 0..20);
}

#[test]
fn follow_keeps_its_promises() {
    assert_eq!(simulate(FailoverMode::Follow, 3, 0..60), 0);
}

#[test]
fn off_keeps_its_promises() {
    assert_eq!(simulate(FailoverMode::Off, 3, 0..20), 0);
}

// ---- observations without any sense --------------------------------------------------------------------------------

fn any_observation() -> impl Strategy<Value = Observation> {
    let probe = (any::<bool>(), 0_u32..4, 0_u64..6, any::<Option<bool>>(), 1_u64..3).prop_map(
        |(is_primary, timeline, lsn, streaming, system)| NodeProbe {
            role: if is_primary { Role::Primary } else { Role::Replica },
            receiver: streaming.map(|streaming| Receiver { streaming, heard: None }),
            system_identifier: Some(system),
            ..primary(timeline, lsn)
        },
    );
    let order = prop_oneof![Just(Order::Serve), Just(Order::Serve), Just(Order::Drain), Just(Order::Pause)];
    let reason = || "any".to_owned();
    prop_oneof![
        8 => probe.prop_map(Observation::Probe),
        4 => Just(Observation::ProbeFailed { reason: reason() }),
        1 => Just(Observation::LoginRefused { reason: reason() }),
        1 => Just(Observation::ConnectionRefused { reason: reason() }),
        1 => Just(Observation::ServerLost { reason: reason() }),
        1 => Just(Observation::ReadOnly),
        1 => Just(Observation::Promoted),
        1 => Just(Observation::Testified(Testimony::Answered)),
        1 => Just(Observation::Testified(Testimony::Silent)),
        1 => any::<bool>().prop_map(move |lasting| {
            Observation::Testified(Testimony::Unable { reason: reason(), lasting })
        }),
        1 => any::<bool>().prop_map(move |may_still_happen| {
            Observation::PromotionFailed { reason: reason(), may_still_happen }
        }),
        1 => order.prop_map(Observation::Ordered),
    ]
}

proptest! {
    #[test]
    fn nothing_upsets_the_machine(
        mode in prop_oneof![Just(FailoverMode::Off), Just(FailoverMode::Follow), Just(FailoverMode::Promote)],
        nodes in 1_usize..5,
        events in prop::collection::vec((0_usize..6, any_observation(), 0_u64..8_000), 0..120),
    ) {
        let mut bench = Bench::new(&settings(nodes, mode));
        for (node, mut observation, milliseconds) in events {
            bench.now += Duration::from_millis(milliseconds);
            if let Observation::Probe(probe) = &mut observation {
                probe.started = bench.now;
            }
            let before = bench.machine.topology().clone();
            bench.see(node, observation);
            let ticked = bench.machine.tick(bench.now);
            let topology = bench.machine.topology();
            check_snapshot(topology, 0);
            prop_assert!(topology.version >= before.version);
            if topology.version == before.version {
                prop_assert_eq!(topology.primary, before.primary);
            }
            for action in bench.actions.iter().chain(&ticked) {
                if let Action::Promote(chosen) = action {
                    prop_assert_eq!((mode, topology.primary), (FailoverMode::Promote, None));
                    prop_assert_eq!(topology.failover, Failover::Promoting(*chosen));
                    let was_promoting = matches!(before.failover, Failover::Promoting(_));
                    prop_assert!(!was_promoting || before.failover != topology.failover);
                }
            }
            for seed in 0..4 {
                let wish = Wish { class: NodeNeed::Write, after: None, lsn: None, weights: None, avoid: NodeSet::NONE };
                let node = route(topology, &Routing::default(), wish, &|_| 0, seed, bench.now);
                prop_assert_eq!(node.ok(), topology.primary);
            }
        }
    }
}
