//! Which node a statement gets.

use super::*;

const READ: Wish<'static> = Wish { class: NodeNeed::Read, after: None, lsn: None, weights: None, avoid: NodeSet::NONE };
const WRITE: Wish<'static> =
    Wish { class: NodeNeed::Write, after: None, lsn: None, weights: None, avoid: NodeSet::NONE };

fn go(bench: &Bench, routing: &Routing, wish: Wish) -> Result<usize, RouteError> {
    let mut found: Vec<usize> = Vec::new();
    for seed in 0..64 {
        match route(bench.machine.topology(), routing, wish, &|_| 0, seed, bench.now) {
            Ok(node) => found.push(usize::from(node.0)),
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    found.dedup();
    // Several nodes as a number of their digits: 12 = n1 and n2.
    Ok(found.iter().fold(0, |sum, node| sum * 10 + node))
}

fn with(change: impl FnOnce(&mut Routing)) -> Routing {
    let mut routing = Routing::default();
    change(&mut routing);
    routing
}

#[test]
fn writes_go_to_the_primary_and_reads_where_they_may() {
    let bench = Bench::three(FailoverMode::Follow);
    for (reads, expected) in [(Reads::Primary, 0), (Reads::Replica, 12), (Reads::Any, 12)] {
        let routing = with(|routing| routing.reads = reads);
        assert_eq!(go(&bench, &routing, WRITE), Ok(0));
        // 012 is printed as 12; the primary's share shows below.
        assert_eq!(go(&bench, &routing, READ), Ok(expected), "{reads:?}");
    }
    let any = with(|routing| routing.reads = Reads::Any);
    let share =
        (0..300).filter(|seed| route(bench.machine.topology(), &any, READ, &|_| 0, *seed, bench.now) == Ok(id(0)));
    assert!((60..140).contains(&share.count()));
}

#[test]
fn reads_fall_back_to_the_primary_then_to_a_suspect_replica() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let routing = with(|routing| routing.max_lag = None);
    bench.fail(1);
    assert_eq!(go(&bench, &routing, READ), Ok(2));
    bench.down(2);
    assert_eq!(go(&bench, &routing, READ), Ok(0));
    bench.fail(0);
    assert_eq!((go(&bench, &routing, READ), go(&bench, &routing, WRITE)), (Ok(0), Ok(0)), "a suspect primary is used");
    bench.down(0);
    assert_eq!((go(&bench, &routing, READ), go(&bench, &routing, WRITE)), (Ok(1), Err(RouteError::NoPrimary)));
    bench.down(1);
    assert_eq!(
        (go(&bench, &routing, READ), go(&bench, &routing, WRITE)),
        (Err(RouteError::NoNode), Err(RouteError::NoPrimary))
    );
}

#[test]
fn without_fallback_reads_wait_for_a_replica() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let routing = with(|routing| (routing.max_lag, routing.fallback) = (None, false));
    assert_eq!(go(&bench, &routing, READ), Ok(12));
    let wrote = Wish { after: Some(bench.now), ..READ };
    assert_eq!(go(&bench, &routing, wrote), Err(RouteError::NoReplica), "none has replayed it yet");
    let primary = standing(bench.machine.topology(), &routing, READ, id(0), bench.now);
    assert_eq!(primary, Err(Unfit::NotReplica));
    bench.fail(1);
    bench.down(2);
    assert_eq!(go(&bench, &routing, READ), Ok(1), "a suspect one is better than none");
    bench.down(1);
    assert_eq!(go(&bench, &routing, READ), Err(RouteError::NoReplica));
    assert_eq!(go(&bench, &routing, WRITE), Ok(0));
    let any = Routing { reads: Reads::Any, ..routing };
    assert_eq!(go(&bench, &any, READ), Ok(0), "the primary serves reads by itself");
}

#[test]
fn nodes_of_our_own_zone_come_first() {
    let mut settings = settings(4, FailoverMode::Follow);
    settings.nodes[0].near = false;
    settings.nodes[3].near = false;
    let mut bench = Bench::new(&settings);
    bench.probe(0, primary(1, 100));
    for node in 1..4 {
        bench.probe(node, replica(1, 100));
    }
    for balance in [Balance::LeastBusy, Balance::RoundRobin, Balance::Random] {
        let routing = with(|routing| (routing.max_lag, routing.balance) = (None, balance));
        assert_eq!(go(&bench, &routing, READ), Ok(12), "{balance:?}");
        let any = Routing { reads: Reads::Any, ..routing };
        assert_eq!(go(&bench, &any, READ), Ok(12), "{balance:?}");
    }
    let routing = with(|routing| routing.max_lag = None);
    bench.down(1);
    assert_eq!(go(&bench, &routing, READ), Ok(2));
    bench.down(2);
    assert_eq!(go(&bench, &routing, READ), Ok(3), "a far replica comes before the primary");
    assert_eq!(go(&bench, &routing, WRITE), Ok(0));
}

#[test]
fn a_session_reads_what_it_wrote() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let session = Routing::default();
    let eventual = with(|routing| routing.consistency = Consistency::Eventual);
    let wrote = Wish { after: Some(bench.now), ..READ };
    assert_eq!((go(&bench, &session, wrote), go(&bench, &eventual, wrote)), (Ok(0), Ok(12)));
    bench.probe(0, primary(1, 200)).probe(1, replica(1, 200));
    assert_eq!(go(&bench, &session, wrote), Ok(0), "the probe started at that very moment, not after it");
    bench.wait(1);
    bench.probe(0, primary(1, 200));
    assert_eq!(go(&bench, &session, wrote), Ok(1));
    bench.down(0);
    assert_eq!(go(&bench, &session, wrote), Ok(1), "reads go on");
    bench.down(1);
    assert_eq!(go(&bench, &session, wrote), Err(RouteError::NoPrimary), "n2 has not replayed it");
}

#[test]
fn a_position_that_must_be_seen() {
    let mut bench = Bench::three(FailoverMode::Follow);
    bench.probe(0, primary(1, 200)).probe(1, replica(1, 150)).probe(2, replica(1, 120));
    let sees = |lsn| Wish { lsn: Some(lsn), ..READ };
    for consistency in [Consistency::Eventual, Consistency::Session, Consistency::Global] {
        let routing = with(|routing| routing.consistency = consistency);
        assert_eq!(go(&bench, &routing, sees(120)), Ok(12), "{consistency:?}");
        assert_eq!(go(&bench, &routing, sees(121)), Ok(1), "{consistency:?}");
        assert_eq!(go(&bench, &routing, sees(151)), Ok(0), "{consistency:?}");
        assert_eq!(go(&bench, &routing, sees(u64::MAX)), Ok(0), "the primary is not asked");
    }
    bench.down(1);
    bench.wait(1);
    assert_eq!(go(&bench, &Routing::default(), sees(150)), Ok(0));
    assert_eq!(go(&bench, &with(|routing| routing.fallback = false), sees(150)), Err(RouteError::NoReplica));
}

#[test]
fn replicas_that_lack_something_are_worth_a_wait() {
    let mut bench = Bench::three(FailoverMode::Follow);
    bench.probe(0, primary(1, 200)).probe(1, replica(1, 150)).probe(2, replica(1, 150));
    let lacks = |bench: &Bench, wish: Wish, consistency| {
        let routing = with(|routing| routing.consistency = consistency);
        lacks_replicas(bench.machine.topology(), &routing, wish, bench.now)
    };
    let wrote = Wish { after: Some(bench.now), ..READ };
    assert!(lacks(&bench, wrote, Consistency::Session) && lacks(&bench, wrote, Consistency::Global));
    assert!(!lacks(&bench, wrote, Consistency::Eventual));
    assert!(lacks(&bench, Wish { lsn: Some(151), ..READ }, Consistency::Eventual));
    assert!(!lacks(&bench, Wish { lsn: Some(150), ..READ }, Consistency::Session));
    assert!(!lacks(&bench, READ, Consistency::Session));
    assert!(!lacks(&bench, Wish { class: NodeNeed::Write, ..wrote }, Consistency::Session));
    bench.down(1).down(2);
    assert!(!lacks(&bench, wrote, Consistency::Session), "nobody is there who could catch up");
}

#[test]
fn lag_is_bounded_and_measured_against_the_last_of_the_primary() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let routing = Routing::default();
    bench.wait(8);
    bench.probe(0, primary(1, 200)).probe(1, replica(1, 200)).probe(2, replica(1, 150));
    assert_eq!(go(&bench, &routing, READ), Ok(12), "n2 is 9 s behind");
    bench.wait(2);
    bench.probe(0, primary(1, 200));
    assert_eq!(go(&bench, &routing, READ), Ok(1), "n2 is 11 s behind");
    assert_eq!(go(&bench, &with(|routing| routing.max_lag = None), READ), Ok(12));
    bench.down(0);
    bench.wait(3_600);
    assert_eq!(go(&bench, &routing, READ), Ok(1), "no primary since an hour: n1 lacks nothing");
    bench.probe(1, primary(2, 210));
    for max_lag in [routing.max_lag, None] {
        let routing = Routing { max_lag, ..routing.clone() };
        assert_eq!(go(&bench, &routing, READ), Ok(1), "as primary: n2 has not followed");
    }
    bench.probe(2, replica(2, 210));
    assert_eq!(go(&bench, &routing, READ), Ok(2));
}

#[test]
fn lag_is_bounded_in_bytes() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let routing = with(|routing| (routing.max_lag, routing.max_lag_bytes) = (None, Some(50)));
    bench.probe(0, primary(1, 200)).probe(1, replica(1, 150)).probe(2, replica(1, 149));
    assert_eq!(go(&bench, &routing, READ), Ok(1));
    bench.probe(0, primary(1, 201));
    assert_eq!(go(&bench, &routing, READ), Ok(0));
}

#[test]
fn a_replica_that_lagged_has_to_keep_up_for_a_while() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let bytes = with(|routing| (routing.max_lag, routing.max_lag_bytes) = (None, Some(50)));
    let time = with(|routing| routing.max_lag = Some(Duration::from_secs(2)));
    let mut position = 200;
    bench.wait(3);
    bench.probe(0, primary(1, position)).probe(1, replica(1, 100)).probe(2, replica(1, position));
    assert_eq!((go(&bench, &bytes, READ), go(&bench, &time, READ)), (Ok(2), Ok(2)));
    let mut caught_up = |bench: &mut Bench| {
        position += 10;
        bench.wait(1);
        bench.probe(0, primary(1, position));
        bench.probe(1, replica(1, position)).probe(2, replica(1, position));
    };
    for _ in 0..2 {
        caught_up(&mut bench);
        assert_eq!((go(&bench, &bytes, READ), go(&bench, &time, READ)), (Ok(2), Ok(2)));
        let why = standing(bench.machine.topology(), &bytes, READ, id(1), bench.now);
        assert_eq!(why, Err(Unfit::Lagged));
    }
    for _ in 0..3 {
        caught_up(&mut bench);
    }
    assert_eq!((go(&bench, &bytes, READ), go(&bench, &time, READ)), (Ok(12), Ok(12)));
}

#[test]
fn a_node_that_comes_back_is_eased_in() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let routing = with(|routing| (routing.max_lag, routing.balance) = (None, Balance::Random));
    bench.down(2);
    bench.probe(2, replica(1, 100)).probe(0, primary(1, 100)).probe(2, replica(1, 100));
    let share = |bench: &Bench, wish: Wish<'_>| {
        let of = |seed| route(bench.machine.topology(), &routing, wish, &|_| 0, seed, bench.now).unwrap();
        (0..10_000).filter(|seed| of(*seed) == id(2)).count()
    };
    let expect = |share: usize, expected: usize| assert!(share.abs_diff(expected) < 200, "{share}, not {expected}");
    expect(share(&bench, READ), 909);
    bench.wait(5);
    expect(share(&bench, READ), 3_333);
    bench.wait(5);
    expect(share(&bench, READ), 5_000);
}

#[test]
fn what_could_not_be_connected_to_comes_last() {
    let bench = Bench::three(FailoverMode::Follow);
    let mut avoid = NodeSet::NONE;
    let avoiding = |avoid| Wish { avoid, ..READ };
    for balance in [Balance::LeastBusy, Balance::RoundRobin, Balance::Random, Balance::Latency] {
        let routing = with(|routing| routing.balance = balance);
        avoid = NodeSet::NONE;
        avoid.insert(id(1));
        assert_eq!(go(&bench, &routing, avoiding(avoid)), Ok(2), "{balance:?}");
        avoid.insert(id(2));
        assert_eq!(go(&bench, &routing, avoiding(avoid)), Ok(0), "{balance:?}");
        avoid.insert(id(0));
        assert_eq!(go(&bench, &routing, avoiding(avoid)), Ok(12), "{balance:?}");
    }
    assert!(avoid.contains(id(0)) && !avoid.contains(id(3)) && !NodeSet::NONE.contains(id(0)));
}

#[test]
fn the_fastest_for_what_it_has_to_do() {
    struct Measured([(usize, f64); 3]);
    impl NodeLoads for Measured {
        fn busy(&self, id: NodeId) -> usize {
            self.0[usize::from(id.0)].0
        }
        fn latency(&self, id: NodeId) -> f64 {
            self.0[usize::from(id.0)].1
        }
    }
    let bench = Bench::three(FailoverMode::Follow);
    let routing = with(|routing| (routing.balance, routing.reads) = (Balance::Latency, Reads::Any));
    let go = |load: [(usize, f64); 3], weights| {
        let wish = Wish { weights, ..READ };
        route(bench.machine.topology(), &routing, wish, &Measured(load), 7, bench.now).unwrap().0
    };
    assert_eq!(go([(0, 0.003), (0, 0.002), (0, 0.001)], None), 2);
    assert_eq!(go([(0, 0.003), (0, 0.002), (3, 0.001)], None), 1);
    assert_eq!(go([(0, 0.003), (0, 0.002), (3, 0.001)], Some(&[2.0, 1.0, 1.0][..])), 0);
    assert_eq!(go([(0, 0.003), (0, 0.0), (0, 0.001)], None), 1, "what is not known is found out");
}

#[test]
fn a_lonely_replica_serves_reads() {
    let mut bench = Bench::new(&settings(1, FailoverMode::Follow));
    assert_eq!(go(&bench, &Routing::default(), READ), Err(RouteError::NoNode));
    bench.probe(0, replica(1, 100));
    for reads in [Reads::Primary, Reads::Replica, Reads::Any] {
        let routing = with(|routing| routing.reads = reads);
        assert_eq!((go(&bench, &routing, READ), go(&bench, &routing, WRITE)), (Ok(0), Err(RouteError::NoPrimary)));
    }
    bench.probe(0, primary(1, 100));
    assert_eq!((go(&bench, &Routing::default(), READ), go(&bench, &Routing::default(), WRITE)), (Ok(0), Ok(0)));
}

#[test]
fn no_read_leaves_before_every_node_was_asked() {
    let mut bench = Bench::new(&settings(2, FailoverMode::Follow));
    bench.probe(1, replica(1, 100));
    assert_eq!(go(&bench, &Routing::default(), READ), Err(RouteError::NoPrimary));
    bench.fail(0);
    assert_eq!(go(&bench, &Routing::default(), READ), Ok(1), "without a primary there is nothing to measure");
}

fn weighted(weights: [f64; 3]) -> Bench {
    let mut settings = settings(3, FailoverMode::Follow);
    for (node, weight) in settings.nodes.iter_mut().zip(weights) {
        node.weight = weight;
    }
    let mut bench = Bench::new(&settings);
    bench.probes([primary(1, 100), replica(1, 100), replica(1, 100)]);
    bench
}

fn shares(bench: &Bench, balance: Balance, calls: u64) -> [u64; 3] {
    let routing = with(|routing| (routing.reads, routing.balance) = (Reads::Any, balance));
    let mut shares = [0_u64; 3];
    for seed in 0..calls {
        let busy = |id: NodeId| shares[usize::from(id.0)] as usize;
        let node = route(bench.machine.topology(), &routing, READ, &busy, seed, bench.now).expect("all are up");
        shares[usize::from(node.0)] += 1;
    }
    shares
}

#[test]
fn shares_follow_the_weights() {
    for balance in [Balance::LeastBusy, Balance::RoundRobin, Balance::Random] {
        for (weights, total) in
            [([1.0, 1.0, 1.0], 3.0), ([1.0, 2.0, 3.0], 6.0), ([0.5, 0.5, 4.0], 5.0), ([1000.0, 1.0, 1.5], 1002.5)]
        {
            let calls = 60_000;
            for (share, weight) in shares(&weighted(weights), balance, calls).into_iter().zip(weights) {
                let expected = calls as f64 * weight / total;
                let off = (share as f64 - expected).abs() / expected.max(600.0);
                assert!(off < 0.1, "{balance:?} {weights:?}: {share} instead of {expected}");
            }
        }
    }
}

#[test]
fn round_robin_takes_turns() {
    let bench = weighted([1.0, 1.0, 1.0]);
    let routing = with(|routing| (routing.reads, routing.balance) = (Reads::Any, Balance::RoundRobin));
    for seed in (0..1_000).chain(u64::MAX - 4_000_000_000..u64::MAX - 3_999_999_000) {
        let node = route(bench.machine.topology(), &routing, READ, &|_| 0, seed, bench.now);
        assert_eq!(node, Ok(id((seed as u32 % 3) as usize)));
    }
}

/// Connections that are lent, and what was given lately.
struct Counted {
    busy: [usize; 3],
    given: [f64; 3],
}

impl NodeLoads for Counted {
    fn busy(&self, id: NodeId) -> usize {
        self.busy[usize::from(id.0)]
    }
    fn given(&self, id: NodeId) -> f64 {
        self.given[usize::from(id.0)]
    }
}

#[test]
fn the_least_busy_for_its_weight() {
    let bench = weighted([1.0, 1.0, 3.0]);
    let routing = Routing::default();
    for (busy, given, expected) in [
        ([0, 0, 0], [0.0, 0.0, 0.0], &[1, 2][..]),
        ([0, 0, 0], [0.0, 10.0, 29.0], &[2]),
        ([0, 0, 0], [0.0, 10.0, 31.0], &[1]),
        ([9, 1, 3], [0.0, 10.0, 29.0], &[2]),
        ([0, 9, 16], [0.0, 9.0, 30.0], &[2]),
        ([0, 5, 40], [0.0, 11.0, 30.0], &[1]),
    ] {
        let load = Counted { busy, given };
        let of = |seed| route(bench.machine.topology(), &routing, READ, &load, seed, bench.now).expect("all are up");
        let mut found: Vec<u16> = (0..64).map(|seed| of(seed).0).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, expected, "{busy:?} {given:?}");
    }
}

/// However few connections there are, and when one node is slower, which then gets fewer.
#[test]
fn shares_are_as_the_weights() {
    let routing = with(|routing| routing.reads = Reads::Any);
    let shares = |weights: [f64; 3], clients: usize, slow: usize| -> Vec<usize> {
        let bench = weighted(weights);
        let mut load = Counted { busy: [0; 3], given: [0.0; 3] };
        let (mut running, mut counts) = (Vec::new(), [0; 3]);
        let mut draws = 1_u64;
        let mut draw = |below: usize| {
            draws = draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (draws >> 33) as usize % below
        };
        for round in 0..20_000 {
            // The slow node takes four times as long as the others.
            while running.len() >= clients {
                let at = draw(running.len());
                if running[at] != 0 || draw(slow) == 0 {
                    load.busy[running.swap_remove(at)] -= 1;
                }
            }
            let node: usize =
                route(bench.machine.topology(), &routing, READ, &load, round, bench.now).unwrap().0.into();
            running.push(node);
            load.busy[node] += 1;
            load.given[node] += 1.0;
            counts[node] += 1;
            if round % 1_000 == 0 {
                load.given = load.given.map(|given| (given / 2.0).floor());
            }
        }
        counts.iter().map(|count| count / 200).collect()
    };
    for (weights, expected) in
        [([1.0, 1.0, 1.0], [33, 33, 33]), ([1.0, 1.0, 3.0], [20, 20, 60]), ([4.0, 1.0, 5.0], [40, 10, 50])]
    {
        for clients in [1, 2, 3, 5, 10, 50] {
            let found = shares(weights, clients, 1);
            let near = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) <= 2);
            assert!(near, "{weights:?} {clients}: {found:?}");
        }
    }
    for (clients, most) in [(5, 30), (10, 25), (50, 20)] {
        let found = shares([1.0; 3], clients, 4);
        assert!(found[0] <= most, "{clients}: {found:?}");
    }
}

#[test]
fn who_insists_gets_a_replica_or_the_node_and_nothing_else() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let wish = |class| Wish { class, after: None, lsn: None, weights: None, avoid: NodeSet::NONE };
    for reads in [Reads::Primary, Reads::Replica, Reads::Any] {
        let routing = with(|routing| routing.reads = reads);
        assert_eq!(go(&bench, &routing, wish(NodeNeed::Replica)), Ok(12), "{reads:?}");
        for node in 0..3 {
            assert_eq!(go(&bench, &routing, wish(NodeNeed::Node(id(node)))), Ok(node), "{reads:?}");
        }
    }
    let routing = with(|routing| routing.max_lag = None);
    bench.down(1);
    assert_eq!(go(&bench, &routing, wish(NodeNeed::Node(id(1)))), Err(RouteError::NodeUnfit));
    assert_eq!(go(&bench, &routing, wish(NodeNeed::Node(NodeId(9)))), Err(RouteError::NodeUnfit));
    bench.fail(2);
    assert_eq!(go(&bench, &routing, wish(NodeNeed::Replica)), Ok(2), "a suspect one is better than none");
    assert_eq!(go(&bench, &routing, wish(NodeNeed::Node(id(2)))), Ok(2));
    bench.down(2);
    assert_eq!(go(&bench, &routing, wish(NodeNeed::Replica)), Err(RouteError::NoReplica));
    assert_eq!(go(&bench, &routing, READ), Ok(0));
}

#[test]
fn a_session_may_have_weights_of_its_own() {
    let bench = Bench::three(FailoverMode::Follow);
    let any = with(|routing| routing.reads = Reads::Any);
    for balance in [Balance::LeastBusy, Balance::RoundRobin, Balance::Random] {
        let weighted = |weights: &'static [f64]| Wish { weights: Some(weights), ..READ };
        let (replicas, any) = (with(|routing| routing.balance = balance), Routing { balance, ..any.clone() });
        assert_eq!(go(&bench, &replicas, weighted(&[1.0, 0.0, 1.0])), Ok(2), "{balance:?}");
        assert_eq!(go(&bench, &replicas, weighted(&[1.0, 0.0, 0.0])), Ok(0), "{balance:?}");
        assert_eq!(go(&bench, &any, weighted(&[0.0, 1.0, 0.0])), Ok(1), "{balance:?}");
        assert_eq!(go(&bench, &any, weighted(&[0.0, 0.0, 0.0])), Ok(0), "{balance:?}");
    }
    let wish = Wish { weights: Some(&[1.0, 0.0, 1.0]), ..READ };
    let routing = Routing::default();
    let standing = |node| standing(bench.machine.topology(), &routing, wish, id(node), bench.now);
    assert_eq!([standing(0), standing(1), standing(2)], [Err(Unfit::Primary), Err(Unfit::Weightless), Ok(())]);
    let named = Wish { class: NodeNeed::Node(id(1)), ..wish };
    assert_eq!(go(&bench, &routing, named), Ok(1), "who names it gets it");
    let shares = |wish| {
        let routing = with(|routing| routing.balance = Balance::RoundRobin);
        let of = |seed| route(bench.machine.topology(), &routing, wish, &|_| 0, seed, bench.now).unwrap();
        (0..400).filter(|seed| of(*seed) == id(1)).count()
    };
    assert_eq!(shares(Wish { weights: Some(&[1.0, 3.0, 1.0]), ..READ }), 300);
}

#[test]
fn each_node_has_its_reason() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let why = |bench: &Bench, routing: &Routing, wish: Wish| -> Vec<Result<(), Unfit>> {
        (0..3).map(|node| standing(bench.machine.topology(), routing, wish, id(node), bench.now)).collect()
    };
    let routing = with(|routing| routing.max_lag = None);
    assert_eq!(why(&bench, &routing, READ), [Err(Unfit::Primary), Ok(()), Ok(())]);
    assert_eq!(why(&bench, &routing, WRITE), [Ok(()), Err(Unfit::NotPrimary), Err(Unfit::NotPrimary)]);
    let named = Wish { class: NodeNeed::Node(id(2)), after: None, lsn: None, weights: None, avoid: NodeSet::NONE };
    assert_eq!(why(&bench, &routing, named), [Err(Unfit::NotNamed), Err(Unfit::NotNamed), Ok(())]);
    let wrote = Wish { after: Some(bench.now), ..READ };
    assert_eq!(why(&bench, &routing, wrote), [Err(Unfit::Primary), Err(Unfit::LacksWrite), Err(Unfit::LacksWrite)]);
    bench.down(1);
    assert_eq!(why(&bench, &routing, READ), [Err(Unfit::Primary), Err(Unfit::State(State::Down)), Ok(())]);
}
