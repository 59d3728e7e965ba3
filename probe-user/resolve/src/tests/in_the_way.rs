//! What is on a way and not evaluated.

use super::*;
use whereis_port_model::{
    Attachment, Balancer, CgroupHook, ConditionCode, DeviceHook, InTheWay, Program,
};

const UP0: u32 = 2;
const BR0: u32 = 3;
const PORT: u32 = 4;

fn link(index: u32, name: &str, kind: LinkKind, master: Option<u32>) -> Link {
    let name = name.to_owned();
    Link {
        netns: HOST,
        index,
        name,
        up: true,
        kind,
        master,
        peer: None,
        peer_netns: None,
        bridge_port: None,
        hardware: None,
        noarp: false,
    }
}

/// A host with a device to the outside, and a bridge that has a port to a container.
fn host() -> TestNode {
    let mut node = TestNode::new().namespace(A, "web").tcp(HOST, "0.0.0.0:80");
    node = node.held_by(10, HOST, "nginx");
    node.links.push(link(1, "lo", LinkKind::Loopback, None));
    node.links.push(link(UP0, "up0", LinkKind::Device, None));
    node.links.push(link(BR0, "br0", LinkKind::Bridge, None));
    let port =
        Link { peer: Some(9), peer_netns: Some(A), ..link(PORT, "v0", LinkKind::Veth, Some(BR0)) };
    node.links.push(port);
    node.address(HOST, "172.18.0.1")
        .last_address(BR0)
        .address(A, "172.18.0.2")
        .route(A, "0.0.0.0", 0)
}

impl TestNode {
    fn last_address(mut self, ifindex: u32) -> Self {
        self.addresses.last_mut().unwrap().ifindex = ifindex;
        self
    }

    fn attach(mut self, ifindex: Option<u32>, at: DeviceHook, balancer: Option<Balancer>) -> Self {
        let program = Program { id: Some(12), name: "guard".to_owned(), balancer };
        let what = Attachment::Program(program);
        self.attached.value.push(Attached { netns: HOST, ifindex, at, what });
        self
    }
}

/// From where it is reachable, and what else is in the way.
fn reach(answer: &Answer) -> Vec<(Vantage, Option<bool>, Vec<ConditionCode>)> {
    let of = |r: &whereis_port_model::Reach| {
        (r.from, r.reachable, r.conditions.iter().map(|c| c.code).collect())
    };
    let mut all: Vec<_> = answer.reach.iter().map(of).collect();
    all.dedup();
    all
}

#[test]
fn a_program_matters_to_those_whose_packets_pass_its_device() {
    use Vantage::{Containers, Loopback, Node, Outside};
    let program = || vec![ConditionCode::Program];
    let yes = |from| (from, Some(true), Vec::new());
    let unknown = |from| (from, None, program());
    let none = [Loopback, Node, Outside, Containers].map(yes);
    assert_eq!(reach(&host().ask("80")), none);
    let outside = [yes(Loopback), yes(Node), unknown(Outside), yes(Containers)];
    assert_eq!(reach(&host().attach(Some(UP0), DeviceHook::Xdp, None).ask("80")), outside);
    // The answer goes out by it.
    assert_eq!(reach(&host().attach(Some(UP0), DeviceHook::TcxEgress, None).ask("80")), outside);
    let containers = [yes(Loopback), yes(Node), yes(Outside), unknown(Containers)];
    for device in [BR0, PORT] {
        let node = host().attach(Some(device), DeviceHook::TcIngress, None);
        assert_eq!(reach(&node.ask("80")), containers, "{device}");
    }
    let local = [unknown(Loopback), unknown(Node), yes(Outside), yes(Containers)];
    assert_eq!(reach(&host().attach(Some(1), DeviceHook::TcEgress, None).ask("80")), local);
    let all = [Loopback, Node, Outside, Containers].map(unknown);
    assert_eq!(reach(&host().attach(None, DeviceHook::SkLookup, None).ask("80")), all);
}

#[test]
fn programs_of_a_balancer_that_was_read_are_known() {
    let node = host().attach(Some(UP0), DeviceHook::Xdp, Some(Balancer::Cilium));
    assert!(reach(&node.ask("80")).iter().all(|(_, reachable, _)| *reachable == Some(true)));
}

#[test]
fn what_could_not_be_read_is_not_taken_for_nothing_but_an_old_recording_may_lack_it() {
    let gap = |kind| Gap::new(Impact::Reach, kind, "not there");
    let mut node = host();
    node.attached.gaps.push(gap(GapKind::Attached));
    let answer = node.ask("80");
    let loopback = answer.reach.iter().find(|r| r.from == Vantage::Loopback).unwrap();
    assert_eq!(loopback.reachable, None);
    assert_eq!(loopback.conditions[0].code, ConditionCode::NotRead);
    assert_eq!(loopback.why.cause.code(), CauseCode::NotEvaluated);
    node.attached.gaps = vec![gap(GapKind::Recording)];
    let answer = node.ask("80");
    assert!(answer.reach.iter().all(|r| r.reachable == Some(true)));
    assert!(answer.gaps.contains(&gap(GapKind::Recording)), "{:?}", answer.gaps);
}

#[test]
fn programs_of_both_cgroups_count() {
    let program = |at| CgroupProgram {
        at,
        cgroup: Some(CgroupPath("/system.slice/web.service".to_owned())),
        program: Program { id: Some(7), name: "sd_fw".to_owned(), balancer: None },
    };
    let unsure = |of, at| {
        let mut node = host();
        node.sockets[0].cgroup_id = Some(70);
        node.cgroup_programs.insert(of, vec![program(at)]);
        let answer = node.ask("80");
        let unknown = answer.reach.iter().filter(|r| r.reachable.is_none());
        unknown.map(|r| r.from).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    use Vantage::{Containers, Loopback, Node, Outside};
    let all = [Loopback, Node, Outside, Containers];
    assert_eq!(unsure(CgroupOf::Id(70), CgroupHook::Ingress), all);
    assert_eq!(unsure(CgroupOf::Id(70), CgroupHook::Connect4), []);
    assert_eq!(unsure(CgroupOf::ROOT, CgroupHook::Connect4), [Loopback, Node]);
    assert_eq!(unsure(CgroupOf::ROOT, CgroupHook::Connect6), []);
    assert_eq!(unsure(CgroupOf::ROOT, CgroupHook::Sendmsg4), [], "it is TCP");
    assert_eq!(unsure(CgroupOf::Process(10), CgroupHook::Ingress), [], "the socket's counts");
}

#[test]
fn what_a_forwarders_own_connection_meets_counts_for_those_to_it() {
    let mut node = kind_node();
    let of = CgroupOf::Process(10);
    let program = Program { id: Some(7), name: String::new(), balancer: None };
    let what = CgroupProgram { at: CgroupHook::Connect4, cgroup: None, program };
    node.cgroup_programs.insert(of, vec![what.clone()]);
    let answer = node.ask("20971");
    let loopback = answer.reach.iter().find(|r| r.from == Vantage::Loopback).unwrap();
    assert_eq!(loopback.reachable, None);
    let what = InTheWay::OnCgroup(what);
    assert_eq!(loopback.conditions, [what.condition()]);
    assert!(answer.paths.iter().any(|path| path.unsure == [what.clone()]));
}
