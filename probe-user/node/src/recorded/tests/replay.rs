use std::collections::BTreeSet;

use super::*;
use crate::{
    Attachments as _, LoadBalancers as _, Netfilter as _, Node, Observed as _, Processes as _,
    Runtimes as _, Sockets as _, Topology as _,
};
use whereis_port_model::{GapKind, PortRange};

fn ports(first: u16, last: u16) -> SocketFilter {
    let ports = PortRange { first: Port(first), last: Port(last) };
    SocketFilter { proto: Some(Proto::Tcp), ports: Some(ports) }
}

fn found(read: &Read<Vec<Socket>>) -> Vec<u16> {
    read.value.iter().map(|s| s.port.0).collect()
}

/// The impacts of the gaps that the replay itself adds.
fn unrecorded<T>(read: &Read<T>) -> Vec<Impact> {
    for gap in read.gaps.iter().filter(|g| g.source.kind == GapKind::Recording) {
        assert!(gap.reason.ends_with("not read when this was recorded"), "{}", gap.reason);
        let remedy = gap.remedy.as_deref().unwrap();
        assert_eq!(remedy, "record again with `whereis-port list --record FILE`");
    }
    read.gaps.iter().filter(|g| g.source.kind == GapKind::Recording).map(|g| g.impact).collect()
}

#[test]
fn what_was_asked_is_answered_the_same() {
    let live = node();
    let recorder = Recorder::new(&live);
    let one = ports(20971, 20971);
    let inodes = BTreeSet::from([1]);
    let ask = |node: &dyn Node| {
        let facts = format!(
            "{:?}{:?}{:?}{:?}{:?}{:?}",
            node.host(),
            node.netns(),
            node.sockets(&[HOST], &one),
            node.owners(&inodes),
            node.processes(&[10]),
            node.containers(),
        );
        let network = format!(
            "{:?}{:?}{:?}{:?}{:?}",
            node.links(&[NODE]),
            node.addresses(&[NODE]),
            node.routes(&[NODE]),
            node.kernel_ports(&[HOST]),
            (node.unseen(), node.rulesets(&[HOST]), node.settings(&[HOST])),
        );
        let single = format!(
            "{:?}{:?}{:?}{:?}",
            node.container(&[reference()], 30),
            node.cgroup_path(904),
            node.observed(),
            node.sources(),
        );
        facts + &network + &single
    };
    let direct = ask(&live);
    assert_eq!(ask(&recorder), direct);
    assert_eq!(ask(&recorder), direct, "asked again");
    let recording = recorder.recording();
    assert_eq!(recording.facts.sockets.len(), 1, "each question is kept once");
    assert_eq!(ask(&Recorded::new(recording)), direct);
}

#[test]
fn other_questions_are_answered_from_what_was_read() {
    let node = node();
    assert_eq!(found(&node.sockets(&[HOST], &ports(8000, 9000))), [8080]);
    assert_eq!(found(&node.sockets(&[NODE], &SocketFilter::ALL)), [6443]);
    let udp = SocketFilter { proto: Some(Proto::Udp), ports: None };
    let read = node.sockets(&[HOST, NODE], &udp);
    assert_eq!((found(&read), unrecorded(&read)), (vec![], vec![]));
    assert_eq!(read.gaps, [gap(Impact::Port)], "what the first read lacked is still lacking");

    let owners = node.owners(&BTreeSet::from([2, 5]));
    assert_eq!(owners.value.holders.iter().map(|o| o.pid).collect::<Vec<_>>(), [20, 30]);
    assert_eq!((owners.value.denied, owners.value.denied_total), (vec![77], 1));
    // 77 was asked for and had exited: no gap.
    let processes = node.processes(&[77, 30]);
    assert_eq!(processes.value.iter().map(|p| p.pid).collect::<Vec<_>>(), [30]);
    assert_eq!(unrecorded(&processes), []);
    assert_eq!(node.links(&[NODE]).value.len(), 1);
    // Of a container that only the list has, by its id.
    let container = node.container(&[reference(), reference()], 4711);
    assert_eq!(container.value.map(|c| c.id).as_deref(), Some(CONTAINER_ID));
}

#[test]
fn what_was_not_read_is_a_gap() {
    let unknown = NetnsId::Inode(7);
    let node = node();
    let other = ContainerRef { runtime: Runtime::Lxc, id: "web".to_owned(), pod: None };
    assert_eq!(unrecorded(&node.sockets(&[HOST, unknown], &SocketFilter::ALL)), [Impact::Port]);
    assert_eq!(found(&node.sockets(&[HOST, unknown], &ports(8080, 8080))), [8080]);
    assert_eq!(unrecorded(&node.owners(&BTreeSet::from([1, 99]))), [Impact::Owner]);
    assert_eq!(unrecorded(&node.processes(&[10, 99])), [Impact::Owner]);
    assert_eq!(unrecorded(&node.links(&[unknown])), [Impact::Owner]);
    assert_eq!(unrecorded(&node.addresses(&[unknown])), [Impact::Reach]);
    assert_eq!(unrecorded(&node.routes(&[unknown])), [Impact::Reach]);
    assert_eq!(unrecorded(&node.kernel_ports(&[unknown])), [Impact::Owner]);
    assert_eq!(unrecorded(&node.rulesets(&[unknown])), [Impact::Port]);
    assert_eq!(unrecorded(&node.frontends(&[unknown])), [Impact::Port]);
    assert_eq!(unrecorded(&node.settings(&[unknown])), [Impact::Reach]);
    assert_eq!(unrecorded(&node.container(&[other], 1)), [Impact::Name]);
    assert_eq!(unrecorded(&node.cgroup_path(1)), [Impact::Name]);

    let bare = Recorded::new(Recording::new(RecordedFacts::new(node.host()), Vec::new()));
    assert_eq!(unrecorded(&bare.netns()), [Impact::Port]);
    assert_eq!(unrecorded(&bare.containers()), [Impact::Name]);
    assert_eq!(unrecorded(&bare.sockets(&[HOST], &SocketFilter::ALL)), [Impact::Port]);
    assert_eq!(unrecorded(&bare.sockets(&[], &SocketFilter::ALL)), []);
}

#[test]
fn a_narrow_read_does_not_answer_a_wide_question() {
    let live = node();
    let recorder = Recorder::new(&live);
    recorder.sockets(&[HOST], &ports(8080, 8080));
    recorder.sockets(&[NODE], &SocketFilter::ALL);
    let node = Recorded::new(recorder.recording());
    assert_eq!(unrecorded(&node.sockets(&[HOST], &ports(8080, 8081))), [Impact::Port]);
    let both = node.sockets(&[HOST, NODE], &ports(8080, 8080));
    assert_eq!((found(&both), unrecorded(&both)), (vec![8080], vec![]));
    let both = node.sockets(&[HOST, NODE], &ports(6443, 6443));
    assert_eq!((found(&both), unrecorded(&both)), (vec![6443], vec![Impact::Port]));
}

#[test]
fn reading_everything_leaves_no_gap_for_later() {
    let live = node();
    let recorder = Recorder::new(&live);
    read_everything(&recorder);
    let node = Recorded::new(recorder.recording());
    let netns: Vec<_> = node.netns().value.iter().map(|n| n.id).collect();
    let sockets = node.sockets(&netns, &ports(1, u16::MAX)).value;
    assert_eq!(sockets.len(), 5);
    let inodes: BTreeSet<_> = sockets.iter().map(|s| s.inode).collect();
    assert_eq!(unrecorded(&node.owners(&inodes)), []);
    let pids: Vec<_> = node.owners(&inodes).value.holders.iter().map(|o| o.pid).collect();
    assert_eq!(unrecorded(&node.processes(&pids)), []);
    for one in netns {
        assert_eq!(unrecorded(&node.links(&[one])), []);
        assert_eq!(unrecorded(&node.addresses(&[one])), []);
        assert_eq!(unrecorded(&node.routes(&[one])), []);
        assert_eq!(unrecorded(&node.kernel_ports(&[one])), []);
        assert_eq!(unrecorded(&node.rulesets(&[one])), []);
        assert_eq!(unrecorded(&node.frontends(&[one])), []);
        assert_eq!(unrecorded(&node.settings(&[one])), []);
    }
    // The cgroup of the one socket that nobody owns.
    assert!(node.cgroup_path(904).value.is_some());
    assert_eq!(unrecorded(&node.container(&[reference()], 30)), []);
}

#[test]
fn lxc_containers_of_one_name_are_told_apart_by_what_is_around_them() {
    let outer = ContainerRef { runtime: Runtime::Lxc, id: "outer".to_owned(), pod: None };
    let web = ContainerRef { runtime: Runtime::Lxc, id: "web".to_owned(), pod: None };
    let of = |parents: &[ContainerRef], image: &str| Container {
        image: Some(image.to_owned()),
        labels: no_labels(),
        ..Container::from_ref(&web, parents)
    };
    let mut recording = recording();
    let containers = vec![of(&[], "top"), of(std::slice::from_ref(&outer), "nested")];
    recording.facts.containers = Some(Read::whole(containers));
    let node = Recorded::new(recording);
    let image = |chain: &[ContainerRef]| node.container(chain, 1).value.and_then(|c| c.image);
    assert_eq!(image(std::slice::from_ref(&web)).as_deref(), Some("top"));
    assert_eq!(image(&[outer, web]).as_deref(), Some("nested"));
}

#[test]
fn what_was_not_watched_leaves_no_trace_in_a_recording() {
    let mut recording = recording();
    recording.facts.observed = None;
    let text = serde_json::to_string(&recording).unwrap();
    assert!(!text.contains("observed"), "a file as it was before there was watching");
    let replayed = Recorded::new(serde_json::from_str(&text).unwrap());
    assert_eq!(replayed.observed(), Read::default());
    assert_eq!(Recorder::new(&replayed).recording().facts.observed, None);
}

#[test]
fn what_was_attached_is_told_and_a_recording_without_any_is_older() {
    let node = Recorded::new(recording());
    let read = node.attached(&[NODE]);
    assert_eq!((read.value.len(), read.gaps.len()), (1, 0));
    let programs = node.cgroup_programs(&CgroupOf::Id(901)).value.unwrap();
    assert_eq!(programs[0].program.name, "sd_fw_ingress");
    let other = node.cgroup_programs(&CgroupOf::ROOT);
    assert_eq!((other.value.as_ref(), unrecorded(&other)), (None, vec![Impact::Reach]));
    let mut older = recording();
    older.facts.attached.clear();
    older.facts.cgroup_programs.clear();
    let older = Recorded::new(older);
    assert_eq!(older.attached(&[NODE]), Read::default());
    assert_eq!(older.cgroup_programs(&CgroupOf::ROOT), Read::default());
}
