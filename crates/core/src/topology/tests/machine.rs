//! What the machine makes of observations, one rule per test.

use super::*;

#[test]
fn a_cluster_starts_when_every_node_was_asked() {
    let mut bench = Bench::new(&settings(3, FailoverMode::Follow));
    assert_eq!(bench.states(), "unknown unknown unknown");
    bench.probe(0, primary(1, 100));
    assert_eq!(bench.states(), "unknown unknown unknown", "an old primary must not win by answering first");
    bench.probe(1, replica(1, 100));
    assert_eq!(bench.states(), "unknown up unknown");
    bench.fail(2);
    assert_eq!(bench.states(), "up* up suspect");
    assert!(bench.machine.topology().settled);
    bench.probe(2, replica(1, 100));
    assert_eq!(bench.states(), "up* up up");
}

#[test]
fn the_higher_timeline_wins_at_the_start_and_later() {
    for order in [[0, 1], [1, 0]] {
        let mut bench = Bench::new(&settings(2, FailoverMode::Follow));
        for node in order {
            bench.probe(node, primary(1 + node as u32, 100));
        }
        assert_eq!(bench.states(), "stale up*");
        assert!(bench.why(0).contains("pg_rewind"), "{}", bench.why(0));
    }
    let mut bench = Bench::three(FailoverMode::Follow);
    bench.probe(1, primary(2, 101));
    assert_eq!(bench.states(), "stale up* up", "at once, also while the old one answers");
    bench.wait(1);
    bench.probe(0, primary(1, 500));
    assert_eq!(bench.states(), "stale up* up");
    bench.wait(1);
    bench.probe(0, replica(2, 101));
    assert_eq!(bench.states(), "up up* up", "rebuilt as a replica");
}

#[test]
fn other_settings_of_the_same_nodes_hold_at_once() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let before = bench.machine.topology().version;
    let mut other = settings(3, FailoverMode::Follow);
    (other.failures, other.nodes[1].weight, other.nodes[1].near) = (1, 7.0, false);
    bench.machine.configure(&other, bench.now);
    let topology = bench.machine.topology();
    assert!(topology.version > before, "whoever waits for a node looks again");
    assert_eq!((topology.nodes[1].weight, topology.nodes[1].near), (7.0, false));
    bench.fail(2);
    assert_eq!(bench.state(2), State::Down, "one failure is enough now");
    // A primary that must not be one any more is none.
    other.nodes[0].role = Some(Role::Replica);
    bench.machine.configure(&other, bench.now);
    assert_eq!(bench.machine.topology().primary, None);
}

#[test]
fn nodes_join_and_leave() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let mut other = settings(4, FailoverMode::Follow);
    bench.machine.configure(&other, bench.now);
    assert_eq!(bench.states(), "up* up up unknown", "the others are trusted as before");
    assert!(bench.machine.topology().settled);
    bench.probe(3, replica(1, 100));
    assert_eq!(bench.states(), "up* up up up");

    other.nodes[3].gone = true;
    bench.machine.configure(&other, bench.now);
    assert_eq!((bench.states().as_str(), bench.why(3)), ("up* up up down", "removed from the configuration"));
    bench.probe(3, replica(1, 100));
    assert_eq!(bench.state(3), State::Down, "what it was asked before is of no matter");
    assert_eq!(bench.machine.topology().in_use().count(), 3);

    other.nodes[3].gone = false;
    bench.machine.configure(&other, bench.now);
    assert_eq!((bench.state(3), bench.why(3)), (State::Unknown, "not asked yet"));
    let only = |bench: &Bench| bench.machine.topology().only();
    assert_eq!(only(&bench), None);
    (0..3).for_each(|node| other.nodes[node].gone = true);
    bench.machine.configure(&other, bench.now);
    assert_eq!((only(&bench), bench.machine.topology().primary), (Some(id(3)), None));
}

#[test]
fn a_primary_that_leaves_can_be_followed_by_any_of_its_timeline_or_later_and_is_not_replaced_by_us() {
    for failover in [FailoverMode::Off, FailoverMode::Follow, FailoverMode::Promote] {
        let mut bench = Bench::new(&settings(3, failover));
        bench.probes([primary(2, 100), replica(2, 100), replica(2, 100)]);
        let mut other = settings(4, failover);
        other.nodes[0].gone = true;
        bench.actions = bench.machine.configure(&other, bench.now);
        bench.wait(9);
        bench.probe(1, orphan(2, 100)).probe(2, orphan(2, 100));
        assert!(!bench.actions.iter().any(|action| matches!(action, Action::Promote(_))), "{failover:?}");
        bench.probe(3, primary(1, 500));
        assert_eq!(bench.machine.topology().primary, None, "{failover:?}: an old one");
        bench.wait(1);
        bench.probe(3, primary(2, 101));
        assert_eq!(bench.machine.topology().primary, Some(id(3)), "{failover:?}: the same by another name");
    }
}

#[test]
fn a_replica_that_left_is_no_witness() {
    let mut bench = Bench::new(&settings(4, FailoverMode::Promote));
    bench.probes([primary(1, 100), replica(1, 100), replica(1, 100), replica(1, 100)]);
    let mut other = settings(4, FailoverMode::Promote);
    (other.nodes[2].gone, other.nodes[3].gone) = (true, true);
    bench.machine.configure(&other, bench.now);
    bench.wait(1);
    bench.down(0).wait(1);
    bench.probe(1, orphan(1, 100));
    assert_eq!(bench.actions, [Action::Promote(id(1))], "one of one has lost it");
}

#[test]
fn failures_in_a_row_take_a_node_down_and_one_answer_brings_it_back() {
    let mut bench = Bench::three(FailoverMode::Follow);
    bench.fail(2);
    assert_eq!(bench.state(2), State::Suspect { failures: 1 });
    bench.fail(2);
    bench.wait(1);
    bench.probe(2, replica(1, 100));
    assert_eq!(bench.state(2), State::Up);
    bench.down(2);
    assert_eq!(bench.state(2), State::Down);
    assert_eq!(bench.why(2), "3 failures in a row, the last: timed out");
    bench.wait(1);
    bench.probe(2, replica(1, 100));
    assert_eq!(bench.state(2), State::Up);
    bench.down(0);
    assert_eq!(bench.states(), "down up up");
    bench.wait(1);
    bench.probe(0, primary(1, 100));
    assert_eq!(bench.states(), "up* up up");
}

#[test]
fn reports_of_clients_ask_for_a_probe_and_prove_little() {
    let mut bench = Bench::three(FailoverMode::Promote);
    for _ in 0..100 {
        bench.see(0, Observation::ServerLost { reason: "closed".into() });
        assert_eq!(bench.actions, [Action::ProbeNow(id(0))]);
    }
    assert_eq!((bench.state(0), bench.states().as_str()), (State::Suspect { failures: 0 }, "suspect* up up"));
    for _ in 0..100 {
        bench.refuse(0);
        assert_eq!(bench.actions, [Action::ProbeNow(id(0))]);
    }
    assert_eq!(bench.state(0), State::Suspect { failures: 1 });
    bench.fail(0);
    assert_eq!(
        bench.state(0),
        State::Suspect { failures: 1 },
        "the probe that was asked for confirms the same failure"
    );
    bench.fail(0).fail(0);
    assert_eq!(bench.state(0), State::Down);
}

#[test]
fn a_probe_that_was_under_way_does_not_answer_a_later_report() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let started = bench.now;
    bench.wait(1);
    bench.refuse(2);
    bench.see(2, Observation::Probe(NodeProbe { started, ..replica(1, 100) }));
    assert_eq!(bench.state(2), State::Suspect { failures: 1 });
    bench.probe(2, replica(1, 100));
    assert_eq!(bench.state(2), State::Up);
}

#[test]
fn a_server_that_refuses_the_login_is_neither_up_nor_down() {
    let refused = || Observation::LoginRefused { reason: "too many clients".into() };
    let mut bench = Bench::three(FailoverMode::Promote);
    for _ in 0..10 {
        bench.see(0, refused());
    }
    assert_eq!((bench.states().as_str(), bench.why(0)), ("suspect* up up", "too many clients"));
    let mut bench = Bench::new(&settings(1, FailoverMode::Follow));
    bench.see(0, refused());
    assert_eq!((bench.states().as_str(), bench.machine.topology().settled), ("suspect", true));
}

#[test]
fn a_primary_that_says_read_only_is_not_used_until_proven() {
    let mut bench = Bench::three(FailoverMode::Follow);
    bench.see(0, Observation::ReadOnly);
    assert_eq!(
        (bench.actions.as_slice(), bench.states().as_str()),
        ([Action::ProbeNow(id(0))].as_slice(), "suspect up up")
    );
    bench.wait(1);
    bench.probe(0, primary(1, 100));
    assert_eq!(bench.states(), "up* up up");
    bench.see(0, Observation::ReadOnly);
    assert_eq!(bench.states(), "up* up up", "clients' own read-only transactions do not stop the others");
    bench.wait(20);
    bench.see(0, Observation::ReadOnly);
    bench.probe(0, replica(1, 100));
    assert_eq!(bench.states(), "up up up", "demoted");
    bench.probe(1, primary(2, 100));
    assert_eq!(bench.states(), "up up* up");
}

#[test]
fn a_second_primary_on_the_same_timeline_is_never_used() {
    let mut bench = Bench::three(FailoverMode::Follow);
    bench.probe(1, primary(1, 100));
    assert_eq!(bench.states(), "up* stale up");
    assert!(bench.why(1).contains("two servers take writes"), "{}", bench.why(1));
    bench.down(0);
    assert_eq!(bench.states(), "down stale up");
    bench.wait(1);
    bench.probe(0, orphan(1, 100));
    assert_eq!(bench.states(), "up stale up");
    bench.wait(1);
    bench.probe(0, replica(1, 100));
    assert_eq!(bench.states(), "up up* up", "somebody has made the first one a replica of the second");
    let mut bench = Bench::new(&settings(2, FailoverMode::Follow));
    bench.probes([primary(1, 100), primary(1, 100)]);
    assert_eq!(bench.states(), "stale stale", "none is proven");
    bench.down(1);
    assert_eq!(bench.states(), "up* down");
}

#[test]
fn a_server_of_another_cluster_is_stale() {
    let foreign = |probe| NodeProbe { system_identifier: Some(1), ..probe };
    let mut bench = Bench::new(&settings(3, FailoverMode::Follow));
    bench.probes([foreign(primary(9, 900)), primary(1, 100), replica(1, 100)]);
    assert_eq!(bench.states(), "stale up* up");
    assert!(bench.why(0).contains("system identifier 1 instead of 7711"), "{}", bench.why(0));
    // The whole cluster replaced, as developers do with a container.
    bench.wait(1);
    bench.probes([foreign(primary(1, 10)), foreign(replica(1, 10)), foreign(replica(1, 10))]);
    assert_eq!(bench.states(), "up* up up");
    let hidden = |probe| NodeProbe { system_identifier: None, ..probe };
    let mut bench = Bench::new(&settings(2, FailoverMode::Follow));
    bench.probes([hidden(primary(1, 100)), hidden(replica(1, 100))]);
    assert_eq!(bench.states(), "up* up", "not allowed to see it");
}

#[test]
fn mode_off_keeps_the_first_primary() {
    let mut bench = Bench::three(FailoverMode::Off);
    bench.down(0).probe(1, primary(2, 100));
    assert_eq!(bench.states(), "down stale up");
    assert!(bench.why(1).contains("off"), "{}", bench.why(1));
    bench.probe(2, replica(2, 100));
    bench.wait(1);
    bench.probe(0, primary(1, 100));
    assert_eq!(bench.states(), "up* stale up");
}

#[test]
fn a_declared_role_binds() {
    let mut settings = settings(2, FailoverMode::Follow);
    settings.nodes[1].role = Some(Role::Replica);
    let mut bench = Bench::new(&settings);
    bench.probes([primary(1, 100), replica(1, 100)]);
    assert_eq!(bench.states(), "up* up");
    bench.probe(1, primary(2, 100));
    assert_eq!(bench.states(), "up* stale");
}

#[test]
fn a_primary_does_not_return_over_a_newer_timeline() {
    let mut bench = Bench::three(FailoverMode::Follow);
    bench.down(0).down(1);
    bench.wait(1);
    bench.probe(2, replica(2, 100)).probe(0, primary(1, 100));
    assert_eq!(bench.states(), "stale down up", "somebody promoted n1, which we can't reach");
    let mut bench = Bench::three(FailoverMode::Follow);
    bench.probe(2, orphan(2, 100));
    assert_eq!(bench.states(), "up* up up", "one odd replica does not take the primary away");
    let mut bench = Bench::three(FailoverMode::Follow);
    bench.probe(2, replica(2, 100));
    assert_eq!(bench.states(), "stale up up", "one that streams on a newer timeline hears a newer primary");
    assert_eq!(bench.actions, [Action::ProbeNow(id(0)), Action::ProbeNow(id(1))], "which is looked for at once");
    bench.wait(1);
    bench.probe(1, primary(2, 101));
    assert_eq!(bench.states(), "stale up* up");
}

fn fences(bench: &Bench) -> Vec<u64> {
    bench.machine.topology().nodes.iter().map(|node| node.fence).collect()
}

#[test]
fn a_node_that_is_not_to_be_used_any_more_is_fenced() {
    let mut bench = Bench::three(FailoverMode::Follow);
    assert_eq!(fences(&bench), [0, 0, 0]);
    bench.fail(0).fail(1).see(0, Observation::ReadOnly);
    assert_eq!(fences(&bench), [0, 0, 0], "a doubt is no judgement");
    bench.see(2, Observation::Ordered(Order::Drain)).see(2, Observation::Ordered(Order::Pause));
    assert_eq!(fences(&bench), [0, 0, 0], "what runs there may end");
    bench.down(1);
    assert_eq!(fences(&bench), [0, 1, 0]);
    bench.fail(1);
    assert_eq!(fences(&bench), [0, 1, 0], "once");
    bench.wait(1);
    bench.probe(1, primary(2, 101));
    assert_eq!((bench.states().as_str(), fences(&bench)), ("stale up* paused", vec![1, 1, 0]), "another was promoted");
    bench.wait(1);
    bench.probe(1, replica(2, 101));
    assert_eq!(fences(&bench), [1, 2, 0], "it was demoted");
    let mut gone = settings(3, FailoverMode::Follow);
    gone.nodes[2].gone = true;
    bench.machine.configure(&gone, bench.now);
    assert!(fences(&bench)[2] > 0, "it was taken out");
}

#[test]
fn a_drained_primary_is_fenced_when_another_takes_its_place() {
    let mut bench = Bench::three(FailoverMode::Follow);
    bench.see(0, Observation::Ordered(Order::Drain));
    assert_eq!((bench.states().as_str(), fences(&bench)), ("draining up up", vec![0, 0, 0]));
    bench.probe(1, primary(2, 101));
    assert_eq!((bench.states().as_str(), fences(&bench)), ("draining up* up", vec![1, 0, 0]));
}

#[test]
fn signs_of_a_promotion_have_everybody_asked_at_once() {
    let others = [Action::ProbeNow(id(0)), Action::ProbeNow(id(2))];
    let mut bench = Bench::three(FailoverMode::Follow);
    bench.see(1, Observation::Turned);
    assert_eq!(bench.actions, [Action::ProbeNow(id(1)), others[0], others[1]], "a client was told");
    bench.probe(1, orphan(1, 100));
    assert_eq!(bench.actions, others, "a replica hears the primary no longer");
    bench.probe(1, orphan(1, 100));
    assert_eq!(bench.actions, []);
    bench.probe(0, NodeProbe { senders: 2, ..primary(1, 100) }).probe(0, NodeProbe { senders: 1, ..primary(1, 100) });
    assert_eq!(bench.actions, [Action::ProbeNow(id(1)), Action::ProbeNow(id(2))], "the primary has lost a receiver");
    bench.probe(0, NodeProbe { senders: 2, ..primary(1, 100) });
    assert_eq!(bench.actions, []);
}

#[test]
fn a_replica_is_as_fresh_as_the_primary_probe_that_it_has_reached() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let fresh = |bench: &Bench, node: usize| bench.machine.topology().nodes[node].fresh_as_of;
    assert_eq!(fresh(&bench, 1), Some(bench.at(0)));
    bench.probe(0, primary(1, 100));
    assert_eq!((fresh(&bench, 1), fresh(&bench, 0)), (Some(bench.at(1)), None), "nothing was written since");
    assert_eq!(bench.actions, []);
    bench.wait(1);
    bench.probe(0, primary(1, 200));
    assert_eq!(bench.actions, [Action::ProbeNow(id(1)), Action::ProbeNow(id(2))]);
    bench.probe(1, replica(1, 150)).probe(2, replica(1, 200));
    assert_eq!((fresh(&bench, 1), fresh(&bench, 2)), (Some(bench.at(1)), Some(bench.at(2))));
    bench.probe(2, orphan(1, 199));
    assert_eq!(fresh(&bench, 2), Some(bench.at(1)), "restarted, and still replaying");
    bench.fail(1);
    assert_eq!(fresh(&bench, 1), None, "it may have restarted");
    bench.wait(1);
    bench.probe(2, replica(1, 900)).probe(1, primary(2, 300));
    assert_eq!(fresh(&bench, 2), None, "positions of the old timeline prove nothing on the new one");
    bench.probe(2, replica(2, 250));
    assert_eq!(fresh(&bench, 2), None, "nor do the old primary's moments");
    bench.probe(2, replica(2, 300));
    assert_eq!(fresh(&bench, 2), Some(bench.at(3)));
}

#[test]
fn the_version_rises_with_states_only() {
    let mut bench = Bench::three(FailoverMode::Follow);
    let version = |bench: &Bench| bench.machine.topology().version;
    let before = version(&bench);
    bench.probes([primary(1, 300), replica(1, 300), replica(1, 300)]);
    assert_eq!(version(&bench), before);
    bench.fail(1);
    assert_eq!(version(&bench), before + 1);
    bench.fail(1);
    assert_eq!(version(&bench), before + 1, "suspect twice is suspect");
    bench.fail(1);
    assert_eq!(version(&bench), before + 2);
    assert_eq!(bench.machine.topology().nodes[1].since, bench.now);
}

#[test]
fn operators_take_nodes_out_and_back() {
    let mut bench = Bench::three(FailoverMode::Follow);
    bench.see(1, Observation::Ordered(Order::Drain)).see(0, Observation::Ordered(Order::Pause));
    assert_eq!(bench.states(), "paused draining up");
    bench.see(1, Observation::Ordered(Order::Serve)).see(0, Observation::Ordered(Order::Serve));
    assert_eq!(bench.states(), "up* up up");
}

// ---- promotion -----------------------------------------------------------------------------------------------------

fn failover(bench: &Bench) -> Failover {
    bench.machine.topology().failover
}

#[test]
fn a_primary_that_hangs_is_replaced_although_its_connections_stay_open() {
    let heard = |at: Instant| Some(Receiver { streaming: true, heard: Some(at) });
    let mut bench = Bench::three(FailoverMode::Promote);
    let hung = bench.now;
    bench.wait(1);
    bench.down(0).wait(1);
    let holds = |bench: &Bench| NodeProbe { started: bench.now, receiver: heard(hung), ..replica(1, 100) };
    let (one, two) = (holds(&bench), holds(&bench));
    bench.probe(1, one).probe(2, two);
    assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Listening(id(2))), "it may only have nothing to say");
    bench.wait(1);
    let speaks = NodeProbe { started: bench.now, receiver: heard(bench.now), ..replica(1, 100) };
    bench.probe(1, speaks);
    assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Heard(id(1))), "it is only we who cannot hear it");
    // The other way to tell: more WAL has come.
    let mut bench = Bench::three(FailoverMode::Promote);
    bench.down(0).wait(4);
    let more = NodeProbe { started: bench.now, ..replica(1, 101) };
    bench.probe(1, more);
    let same = NodeProbe { started: bench.now, ..replica(1, 100) };
    bench.probe(2, same);
    assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Heard(id(1))));
    // Nothing at all for long enough, although each has asked.
    let mut bench = Bench::three(FailoverMode::Promote);
    bench.wait(1);
    bench.down(0).wait(3);
    let (one, two) = (holds(&bench), holds(&bench));
    bench.probe(1, one);
    assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Unproven(id(2))), "each is asked after that");
    bench.testify(1, Testimony::Silent);
    bench.probe(2, two);
    assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Listening(id(2))));
    bench.testify(2, Testimony::Silent);
    assert_eq!(failover(&bench), Failover::Promoting(id(1)));
    // Unless only the end of the connection is to count.
    let mut never = settings(3, FailoverMode::Promote);
    never.silence = None;
    let mut bench = Bench::new(&never);
    bench.probes([primary(1, 100), replica(1, 100), replica(1, 100)]);
    bench.wait(1);
    bench.down(0).wait(3_000);
    let (one, two) = (holds(&bench), holds(&bench));
    bench.probe(1, one).probe(2, two);
    assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Heard(id(1))));
}

/// Three nodes whose replicas hold connections that have been silent since the primary was lost, four seconds ago.
fn silent() -> Bench {
    let mut bench = Bench::three(FailoverMode::Promote);
    bench.wait(2);
    bench.down(0).wait(4);
    bench.hold(1).hold(2);
    bench
}

#[test]
fn silence_counts_once_the_replica_has_asked_the_primary() {
    let mut bench = silent();
    assert_eq!(bench.actions, [Action::Inquire(id(2))], "one each");
    assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Listening(id(2))));
    for _ in 0..20 {
        bench.wait(1);
        bench.hold(1).hold(2);
        assert!(!bench.actions.contains(&Action::Inquire(id(2))), "not while it is under way");
    }
    bench.testify(1, Testimony::Silent).testify(2, Testimony::Answered);
    assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Heard(id(2))), "it lives");
    for _ in 0..100 {
        bench.wait(1);
        bench.hold(1).hold(2);
        assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Heard(id(2))));
    }
    bench.probe(2, orphan(1, 100));
    assert_eq!(failover(&bench), Failover::Promoting(id(1)), "and now it does not");
}

#[test]
fn a_connection_that_ends_during_an_inquiry_may_come_back() {
    let mut bench = silent();
    bench.testify(1, Testimony::Silent).wait(1);
    bench.hold(1).probe(2, orphan(1, 100));
    assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Listening(id(2))), "we may have ended it");
    bench.testify(2, Testimony::Silent);
    assert_eq!(failover(&bench), Failover::Promoting(id(1)));
}

#[test]
fn silence_alone_counts_where_nobody_can_be_made_to_ask() {
    let unable = |lasting| Testimony::Unable { reason: "no".into(), lasting };
    let mut bench = silent();
    bench.testify(1, unable(true)).testify(2, unable(true));
    assert_eq!(failover(&bench), Failover::Promoting(id(1)), "it may not");
    // What may only be a mishap is tried again, a few times.
    let mut bench = silent();
    bench.testify(1, Testimony::Silent).testify(2, unable(false));
    for _ in 0..2 {
        assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Listening(id(2))));
        bench.wait(1);
        bench.hold(1);
        assert!(bench.actions.contains(&Action::Inquire(id(2))), "{:?}", bench.actions);
        bench.hold(2).testify(2, unable(false));
    }
    assert_eq!(failover(&bench), Failover::Promoting(id(1)));
    // An order that never says what became of it.
    let mut bench = silent();
    bench.testify(1, Testimony::Silent).wait(40);
    bench.hold(1).hold(2);
    assert_eq!(failover(&bench), Failover::Promoting(id(1)));
}

#[test]
fn nobody_is_made_to_ask_without_need() {
    let inquires = |bench: &Bench| bench.actions.iter().any(|action| matches!(action, Action::Inquire(_)));
    // While the primary is only doubted, or speaks.
    let mut bench = Bench::three(FailoverMode::Promote);
    bench.wait(9);
    bench.fail(0).fail(0).hold(1).hold(2);
    assert!(!inquires(&bench));
    let hears = Receiver { streaming: true, heard: Some(bench.now) };
    bench.fail(0).probe(1, NodeProbe { receiver: Some(hears), ..replica(1, 100) });
    assert!(!inquires(&bench));
    // Where somebody else promotes, or silence never counts.
    for (mode, silence) in [(FailoverMode::Follow, Some(SILENCE)), (FailoverMode::Promote, None)] {
        let mut bench = Bench::new(&Settings { silence, ..settings(2, mode) });
        bench.probes([primary(1, 100), replica(1, 100)]);
        bench.wait(9);
        bench.down(0).hold(1);
        assert!(!inquires(&bench), "{mode:?}");
    }
    // Outages one after the other: not each time.
    let mut bench = silent();
    bench.testify(1, Testimony::Answered).testify(2, Testimony::Answered).wait(1);
    bench.probe(0, primary(1, 100)).wait(2);
    bench.down(0).hold(2);
    assert!(!inquires(&bench));
    bench.wait(9);
    bench.hold(2);
    assert!(inquires(&bench));
    // In a cascade it may be another replica that answers.
    let mut bench = Bench::three(FailoverMode::Promote);
    bench.probe(1, NodeProbe { senders: 1, ..replica(1, 100) }).wait(2);
    bench.down(0).wait(4);
    bench.hold(2);
    assert!(!inquires(&bench));
    bench.probe(1, NodeProbe { senders: 1, ..replica(1, 100) });
    assert_eq!(bench.actions, [Action::Inquire(id(1))], "the one at its head asks the primary");
}

#[test]
fn promotes_the_most_advanced_when_all_replicas_lost_the_primary() {
    let mut bench = Bench::three(FailoverMode::Promote);
    bench.down(0);
    assert_eq!(bench.actions, [Action::ProbeNow(id(1)), Action::ProbeNow(id(2))], "witnesses");
    bench.wait(1);
    bench.probe(1, orphan(1, 101));
    assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Unproven(id(2))));
    bench.probe(2, NodeProbe { received: 107, ..orphan(1, 100) });
    assert_eq!(bench.actions, [Action::Promote(id(2))]);
    bench.probe(0, primary(1, 100));
    assert_eq!(bench.states(), "stale up up", "too late to come back");
    bench.see(2, Observation::Promoted);
    assert_eq!(bench.actions, [Action::ProbeNow(id(2))]);
    bench.probe(2, primary(2, 110));
    assert_eq!(bench.states(), "stale up up*");
    assert_eq!(bench.actions, [Action::Follow { replica: id(1), primary: id(2) }]);
    bench.probe(1, orphan(1, 101));
    assert_eq!(bench.actions, [], "not again so soon");
    bench.wait(11);
    bench.probe(1, orphan(1, 101));
    assert_eq!(bench.actions, [Action::Follow { replica: id(1), primary: id(2) }]);
    bench.wait(1);
    bench.probe(1, replica(2, 110));
    assert_eq!(bench.actions, [Action::ProbeNow(id(0)), Action::ProbeNow(id(2))], "a newer timeline is news");
    assert_eq!(failover(&bench), Failover::Idle);
    for _ in 0..3 {
        bench.probe(1, orphan(2, 110));
    }
    assert_eq!(bench.actions, [], "paused");
    bench.wait(11);
    bench.probe(1, orphan(2, 110));
    assert_eq!(bench.actions, [Action::Follow { replica: id(1), primary: id(2) }], "hears nobody for a while");
}

#[test]
fn the_last_replica_is_promoted_soon_after_the_first() {
    let mut bench = Bench::three(FailoverMode::Promote);
    bench.down(0);
    bench.wait(1);
    bench.probe(1, orphan(1, 100)).probe(2, orphan(1, 101)).see(2, Observation::Promoted);
    bench.probe(2, primary(2, 110)).probe(1, replica(2, 110));
    bench.wait(1);
    bench.probe(2, primary(2, 120)).probe(1, replica(2, 120)).down(2);
    bench.wait(1);
    // It has lost its receiver, and its last checkpoint was made on the first timeline.
    bench.probe(1, orphan(1, 120));
    assert_eq!(bench.actions, [Action::Promote(id(1))], "{:?}", failover(&bench));
    // Restored from an old copy, it is what it says.
    let mut bench = Bench::three(FailoverMode::Promote);
    bench.probes([primary(2, 200), replica(2, 200), replica(2, 200)]);
    bench.probe(1, orphan(1, 150));
    assert_eq!(bench.machine.topology().nodes[1].timeline, 1);
}

#[test]
fn a_replica_that_hears_the_primary_vetoes() {
    let mut bench = Bench::three(FailoverMode::Promote);
    bench.down(0);
    bench.wait(1);
    let heard = Some(Receiver { streaming: true, heard: Some(bench.now) });
    bench.probe(1, orphan(1, 100)).probe(2, NodeProbe { receiver: heard, ..replica(1, 100) });
    assert_eq!((failover(&bench), bench.actions.len()), (Failover::Waiting(Obstacle::Heard(id(2))), 0));
    bench.wait(1);
    bench.probe(0, primary(1, 100));
    assert_eq!((failover(&bench), bench.states().as_str()), (Failover::Idle, "up* up up"));
}

#[test]
fn other_modes_and_other_losses_promote_nobody() {
    for mode in [FailoverMode::Off, FailoverMode::Follow] {
        let mut bench = Bench::three(mode);
        bench.down(0);
        bench.wait(1);
        bench.probe(1, orphan(1, 100)).probe(2, orphan(1, 100));
        assert_eq!((failover(&bench), bench.actions.len()), (Failover::Idle, 0));
    }
    let mut bench = Bench::three(FailoverMode::Promote);
    bench.probe(0, replica(1, 100)).down(0);
    bench.wait(1);
    bench.probe(1, orphan(1, 100)).probe(2, orphan(1, 100));
    assert_eq!(failover(&bench), Failover::Idle, "somebody demoted it on purpose");
    let mut bench = Bench::new(&settings(3, FailoverMode::Promote));
    bench.down(0).probe(1, orphan(1, 100)).probe(2, orphan(1, 100));
    assert_eq!(failover(&bench), Failover::Idle, "no primary was ever seen");
}

#[test]
fn half_of_the_replicas_must_testify() {
    for (nodes, down, obstacle) in
        [(2, 0, false), (3, 1, false), (3, 2, true), (4, 2, true), (5, 2, false), (5, 3, true)]
    {
        let mut bench = Bench::new(&settings(nodes, FailoverMode::Promote));
        bench.probe(0, primary(1, 100));
        for node in 1..nodes {
            bench.probe(node, replica(1, 100));
        }
        for node in 1..=down {
            bench.down(node);
        }
        bench.wait(1);
        bench.down(0);
        bench.wait(1);
        for node in down + 1..nodes {
            bench.probe(node, orphan(1, 100));
        }
        let expected = match obstacle {
            true => Failover::Waiting(Obstacle::FewWitnesses),
            false => Failover::Promoting(id(down + 1)),
        };
        assert_eq!(failover(&bench), expected, "{nodes} nodes, {down} replicas down");
    }
}

#[test]
fn a_replica_that_lacks_much_or_may_not_lead_is_not_promoted() {
    let lost = |bench: &mut Bench, probe: NodeProbe| {
        bench.wait(60);
        bench.probe(0, primary(1, 9_000)).down(0);
        bench.wait(1);
        bench.probe(1, probe);
        failover(bench)
    };
    let mut bench = Bench::three(FailoverMode::Promote);
    bench.down(2);
    assert_eq!(lost(&mut bench, orphan(1, 100)), Failover::Waiting(Obstacle::NoCandidate), "a minute behind");
    bench.probe(1, orphan(1, 9_000));
    assert_eq!(failover(&bench), Failover::Promoting(id(1)));
    let mut declared = settings(2, FailoverMode::Promote);
    declared.nodes[1].role = Some(Role::Replica);
    let mut bench = Bench::new(&declared);
    bench.probes([primary(1, 100), replica(1, 100)]);
    assert_eq!(lost(&mut bench, orphan(1, 9_000)), Failover::Waiting(Obstacle::NoCandidate));
    let mut bench = Bench::new(&settings(2, FailoverMode::Promote));
    bench.probes([primary(2, 100), replica(1, 100)]);
    assert_eq!(
        lost(&mut bench, orphan(1, 9_000)),
        Failover::Waiting(Obstacle::NoCandidate),
        "never followed the primary"
    );
}

#[test]
fn a_failed_promotion_is_followed_by_the_next_best() {
    let failed = |may_still_happen| Observation::PromotionFailed { reason: "no".into(), may_still_happen };
    let mut bench = Bench::three(FailoverMode::Promote);
    bench.down(0);
    bench.wait(1);
    bench.probe(1, orphan(1, 105)).probe(2, orphan(1, 103));
    assert_eq!(failover(&bench), Failover::Promoting(id(1)));
    bench.see(1, failed(false));
    assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Pausing));
    bench.wait(6);
    bench.actions = bench.machine.tick(bench.now);
    assert_eq!(bench.actions, [Action::Promote(id(2))]);
    // This one may have got the order: nobody else, and not the old primary, until that is clear.
    bench.see(2, failed(true));
    bench.wait(6);
    bench.probe(0, primary(1, 100));
    assert_eq!(bench.states(), "stale up up");
    bench.probe(2, replica(1, 103));
    assert_eq!(bench.states(), "up* up up", "it streams, so it was not promoted");
}

#[test]
fn a_promotion_without_an_answer_ends() {
    let mut bench = Bench::three(FailoverMode::Promote);
    bench.down(0);
    bench.wait(1);
    bench.probe(1, orphan(1, 105)).probe(2, orphan(1, 103));
    bench.wait(80);
    bench.machine.tick(bench.now);
    assert_eq!(failover(&bench), Failover::Waiting(Obstacle::Pausing));
    bench.wait(6);
    bench.actions = bench.machine.tick(bench.now);
    assert_eq!(bench.actions, [Action::Promote(id(1))], "the same: its promotion may still happen");
    bench.probe(1, primary(2, 110));
    assert_eq!(bench.states(), "down up* up", "found by a probe before the driver said so");
}
