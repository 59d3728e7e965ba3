//! Events on a node that is written down.

use super::*;
use crate::{concerns, trace, unnamed};
use whereis_port_model::EvidenceSource;
use whereis_port_model::{Actor, Event, EventKind, NatEvent, SeenBy, Traced};

fn event(kind: EventKind, netns: NetnsId, at: &str) -> Event {
    let at: std::net::SocketAddr = at.parse().unwrap();
    Event {
        at: 0,
        kind,
        proto: Proto::Tcp,
        netns: Some(netns),
        address: at.ip(),
        port: Some(Port(at.port())),
        peer: None,
        inode: None,
        actor: None,
        nat: None,
        dropped: None,
        seen_by: SeenBy::Ebpf,
    }
}

fn listen(netns: NetnsId, actor: Option<Actor>) -> Event {
    Event { actor, ..event(EventKind::Listen, netns, "[::]:6443") }
}

/// What started at tick 7 is what the test node has.
fn actor(pid: Pid, start: u64, cgroup: Option<&str>) -> Option<Actor> {
    Some(Actor {
        pid: Some(pid),
        start: Some(StartTime(start)),
        uid: 0,
        comm: "x".to_owned(),
        netns: Some(A),
        cgroup: cgroup.map(str::to_owned),
    })
}

fn one(node: &TestNode, event: Event) -> Traced {
    trace(node, &[event]).remove(0)
}

fn names(traced: &Traced) -> Vec<&str> {
    traced.containers.iter().map(|c| c.name.as_deref().unwrap_or(&c.id)).collect()
}

#[test]
fn a_process_that_still_runs_is_told_in_full() {
    let traced = one(&kind_node(), listen(A, actor(20, 7, None)));
    assert_eq!(traced.process.as_ref().map(Process::name), Some("kube-apiserver"));
    assert_eq!(names(&traced), ["cluster2-control-plane"]);
    assert_eq!(traced.cluster.as_ref().map(|c| c.name.as_str()), Some("cluster2"));
    assert_eq!(traced.netns.as_ref().map(ToString::to_string).as_deref(), Some("cluster2"));
    assert_eq!(traced.evidence[0].source, EvidenceSource::Cgroup);
}

#[test]
fn a_process_with_a_used_again_id_is_not_taken_for_another() {
    let traced = one(&kind_node(), listen(A, actor(20, 8, Some("nginx.service"))));
    assert_eq!(traced.process, None);
    assert_eq!(names(&traced), [""; 0]);
    assert_eq!(traced.unit.as_deref(), Some("nginx.service"));
    // Without a start there is no way to tell.
    let unsure = actor(20, 7, Some("")).map(|actor| Actor { start: None, ..actor });
    assert_eq!(one(&kind_node(), listen(A, unsure)).process, None);
}

#[test]
fn one_that_has_ended_is_named_by_the_cgroup_it_was_in() {
    for cgroup in [format!("docker-{ID}.scope"), ID.to_owned(), format!("/docker/{ID}")] {
        let traced = one(&kind_node(), listen(HOST, actor(99, 7, Some(&cgroup))));
        assert_eq!(names(&traced), ["cluster2-control-plane"], "{cgroup}");
        assert_eq!(traced.cluster.as_ref().map(|c| c.name.as_str()), Some("cluster2"), "{cgroup}");
        assert!(traced.evidence[0].detail.contains(&cgroup), "{:?}", traced.evidence);
    }
}

#[test]
fn a_nested_container_is_named_with_what_it_is_inside_of() {
    let inner = "4639af7a1e65".repeat(6)[..64].to_owned();
    let node = kind_node().container(&inner, "apiserver", |c| {
        let runtime = Runtime::Docker;
        c.parents = vec![ContainerRef { runtime, id: ID.to_owned(), pod: None }];
    });
    let cgroup = format!("cri-containerd-{inner}.scope");
    let traced = one(&node, listen(A, actor(99, 7, Some(&cgroup))));
    assert_eq!(names(&traced), ["cluster2-control-plane", "apiserver"]);
}

#[test]
fn a_process_outside_of_containers_is_in_none_whatever_its_namespace() {
    let traced = one(&kind_node(), listen(A, actor(99, 7, Some("sshd.service"))));
    assert_eq!(names(&traced), [""; 0]);
}

#[test]
fn without_any_process_the_namespace_says_whose_it_is() {
    let mut node = kind_node();
    node.netns.iter_mut().find(|n| n.id == A).unwrap().members = vec![20];
    let traced = one(&node, event(EventKind::Accept, A, "172.18.0.4:6443"));
    assert_eq!(names(&traced), ["cluster2-control-plane"]);
    assert_eq!(traced.evidence[0].source, EvidenceSource::NamespaceMembers);
    let traced = one(&node, event(EventKind::Accept, HOST, "192.0.2.10:22"));
    assert_eq!(names(&traced), [""; 0]);
    assert_eq!(traced.netns.unwrap().name, Some(whereis_port_model::NetnsName::Host));
}

#[test]
fn what_is_newer_than_the_reading_is_told_apart_from_what_is_named() {
    let node = kind_node();
    let fresh = "ab".repeat(32);
    let cgroup = format!("docker-{fresh}.scope");
    let events = [
        listen(A, actor(20, 7, None)),
        listen(B, actor(20, 7, None)),
        listen(HOST, actor(99, 7, Some(&cgroup))),
    ];
    let unnamed = unnamed(&node, &trace(&node, &events));
    assert_eq!(Vec::from_iter(unnamed), ["300".to_owned(), fresh]);
}

#[test]
fn a_target_picks_events_by_port_protocol_and_address() {
    let udp = Event { proto: Proto::Udp, ..event(EventKind::Bind, HOST, "0.0.0.0:53") };
    let close = event(EventKind::Close, HOST, "127.0.0.1:53");
    let dual = event(EventKind::Listen, HOST, "[::]:53");
    let mapped = event(EventKind::Listen, HOST, "[::ffff:127.0.0.1]:53");
    for (target, expected) in [
        ("53", [true, true, true, true]),
        ("54", [false; 4]),
        ("50-60", [true; 4]),
        ("53/udp", [true, false, false, false]),
        ("53/tcp", [false, true, true, true]),
        ("127.0.0.1:53", [true, true, true, true]),
        ("127.0.0.2:53", [true, false, true, false]),
        ("[::1]:53", [false, false, true, false]),
    ] {
        let query = query(target);
        let fits = [&udp, &close, &dual, &mapped].map(|event| concerns(event, &query));
        assert_eq!(fits, expected, "{target}");
    }
}

#[test]
fn a_connect_is_picked_by_where_it_leads_and_nat_by_either_side() {
    let mut connect = event(EventKind::Connect, HOST, "0.0.0.0:1");
    connect.port = None;
    connect.peer = Some("10.0.0.7:5432".parse().unwrap());
    let mut nat = event(EventKind::Nat, HOST, "192.0.2.1:8080");
    nat.nat = Some(NatEvent {
        begins: true,
        source: "198.51.100.9:41000".parse().unwrap(),
        destination: "192.0.2.1:8080".parse().unwrap(),
        new_source: "198.51.100.9:41000".parse().unwrap(),
        new_destination: "172.17.0.2:80".parse().unwrap(),
    });
    for (target, expected) in [
        ("5432", [true, false]),
        ("10.0.0.7:5432", [true, false]),
        ("10.0.0.8:5432", [false, false]),
        ("8080", [false, true]),
        ("172.17.0.2:80/tcp", [false, true]),
        ("41000", [false, false]),
    ] {
        let query = query(target);
        assert_eq!([&connect, &nat].map(|event| concerns(event, &query)), expected, "{target}");
    }
}
