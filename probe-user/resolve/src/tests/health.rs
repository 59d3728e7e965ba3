//! What is wrong with listeners.

use super::*;
use whereis_port_model::{AcceptQueue, FindingCode, ProcessHealth, ProcessState};

/// What is said from here, without what is said of others.
fn from_here(answer: &Answer) -> Vec<(Option<bool>, CauseCode)> {
    let here = answer.reach.iter().filter(|r| matches!(r.from, Vantage::Loopback | Vantage::Node));
    here.map(|r| (r.reachable, r.why.cause.code())).collect()
}

fn codes(answer: &Answer) -> Vec<FindingCode> {
    answer.findings.iter().map(|finding| finding.code).collect()
}

fn serving() -> TestNode {
    TestNode::new().tcp(HOST, "0.0.0.0:80").held_by(7, HOST, "web")
}

fn health(state: ProcessState) -> ProcessHealth {
    ProcessHealth { state: Some(state), ..ProcessHealth::default() }
}

#[test]
fn a_queue_is_full_when_more_wait_than_are_allowed() {
    for (waiting, limit, full) in [(2, 1, true), (1, 1, false), (0, 0, false), (1, 0, true)] {
        let mut node = serving();
        node.sockets[0].queue = Some(AcceptQueue { waiting, limit, drops: None });
        let answer = node.ask("80");
        let said = from_here(&answer);
        assert!(said.iter().all(|(so, _)| so.is_none() == full), "{waiting} {limit}: {said:?}");
        assert_eq!(codes(&answer).contains(&FindingCode::QueueFull), full, "{waiting} {limit}");
    }
}

#[test]
fn who_is_stopped_keeps_others_waiting_and_who_lost_a_thread_does_not() {
    for (state, code, waits) in [
        (ProcessState::Stopped, Some(FindingCode::OwnerStopped), true),
        (ProcessState::Traced, Some(FindingCode::OwnerTraced), true),
        (ProcessState::LeaderEnded, Some(FindingCode::LeaderEnded), false),
        (ProcessState::Running, None, false),
    ] {
        let answer = serving().last_process(|p| p.health = health(state)).ask("80");
        assert_eq!(codes(&answer), Vec::from_iter(code), "{state:?}");
        assert!(from_here(&answer).iter().all(|(so, _)| so.is_none() == waits), "{state:?}");
    }
}

#[test]
fn another_namespace_says_nothing_of_the_own() {
    let inner = NetnsId::Inode(7);
    let mut node = serving().namespace(inner, "c").tcp(inner, "0.0.0.0:80");
    node.sockets[1].queue = Some(AcceptQueue { waiting: 9, limit: 1, drops: None });
    let answer = node.ask("80");
    assert_eq!(codes(&answer), [FindingCode::QueueFull]);
    let mut loopback = answer.reach.iter().filter(|r| r.from == Vantage::Loopback);
    assert!(loopback.all(|r| r.reachable == Some(true)), "{:?}", answer.reach);
}

#[test]
fn drops_are_told_for_each_namespace_that_has_a_listener() {
    let facts = PortFacts { listen_overflows: Some(3), ..PortFacts::unknown(HOST) };
    let node = TestNode { port_facts: vec![facts], ..serving() };
    let answer = node.ask("80");
    let told: Vec<_> = answer.drops.iter().map(|d| (d.netns.id, d.overflows, d.drops)).collect();
    assert_eq!(told, [(HOST, Some(3), None)]);
    assert!(codes(&answer).is_empty());
    assert_eq!(TestNode::new().socket(HOST, Proto::Udp, "0.0.0.0:53").ask("53").drops, []);
}
