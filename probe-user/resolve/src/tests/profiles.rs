//! What nodes of distributions have to offer, by the table of profiles.

use super::*;
use crate::{AuditOptions, Profiles, audit};
use whereis_port_model::{Audit, AuditCode};

impl TestNode {
    fn runs(self, pid: Pid, at: &[&str], command: &str) -> Self {
        at.iter().fold(self, |node, at| node.tcp(HOST, at).held_by(pid, HOST, command))
    }

    /// A device that the kernel answers for at a port of UDP.
    fn vxlan(self, name: &str, port: u16) -> Self {
        let mut node = self.socket(HOST, Proto::Udp, &format!("0.0.0.0:{port}"));
        node.links.push(device(40, name, LinkKind::Vxlan { port, vni: Some(1) }));
        node
    }

    fn profiles(&self, profiles: Profiles) -> Audit {
        let options = AuditOptions { profiles: Some(profiles), ..AuditOptions::default() };
        audit(self, &options)
    }
}

fn names(audit: &Audit) -> Vec<&str> {
    audit.profiles.iter().map(|profile| &*profile.name).collect()
}

/// How it is with a port, by the only profile that has been looked at.
fn state(audit: &Audit, port: u16) -> &'static str {
    let [profile] = &audit.profiles[..] else { panic!("{:?}", names(audit)) };
    let mut of_port = profile.checks.iter().filter(|check| check.ports.first == Port(port));
    let check = of_port.next().unwrap();
    assert!(of_port.next().is_none(), "{port} twice");
    check.state.as_str()
}

/// The ports that a profile is not content with.
fn faults(audit: &Audit) -> Vec<(AuditCode, u16)> {
    let of_profile = |code| {
        use AuditCode::{RequiredHeldByOther, RequiredMissing, RequiredUnreachable};
        matches!(code, RequiredHeldByOther | RequiredMissing | RequiredUnreachable)
    };
    let all = audit.findings.iter().filter(|finding| of_profile(finding.code));
    all.map(|finding| (finding.code, finding.places[0].ports.first.0)).collect()
}

fn rke2_server() -> TestNode {
    TestNode::new()
        .runs(10, &["[::]:9345", "127.0.0.1:6444"], "/usr/local/bin/rke2 server")
        .runs(11, &["[::]:6443"], "kube-apiserver")
        .runs(
            12,
            &["192.0.2.10:2379", "192.0.2.10:2380", "127.0.0.1:2381"],
            "etcd --config-file=/var/lib/rancher/rke2/server/db/etcd/config",
        )
        .runs(13, &["[::]:10250"], "kubelet")
}

#[test]
fn a_server_of_rke2_needs_nothing_that_its_configuration_has_off() {
    let audit = rke2_server().profiles(Profiles::by_themselves());
    assert_eq!(names(&audit), ["rke2"]);
    let met = [9345, 6443, 10250, 2379, 2380];
    assert!(met.into_iter().all(|port| state(&audit, port) == "met"), "{:?}", audit.profiles);
    // Metrics of etcd are at loopback alone, without etcd-expose-metrics.
    assert_eq!((state(&audit, 2381), state(&audit, 5001)), ("closed", "unused"));
    assert_eq!(faults(&audit), []);
}

#[test]
fn a_server_of_rke2_for_etcd_alone_has_no_api() {
    let node = TestNode::new()
        .runs(10, &["[::]:9345", "127.0.0.1:6443", "127.0.0.1:6444"], "/usr/local/bin/rke2 server")
        .runs(13, &["[::]:10250"], "kubelet");
    let audit = node.profiles(Profiles::by_themselves());
    assert_eq!((names(&audit), state(&audit, 6443)), (vec!["rke2"], "unused"));
    assert_eq!(faults(&audit), []);
    // Where it has stopped, it is missing.
    let node = TestNode::new()
        .runs(10, &["[::]:9345", "127.0.0.1:6444"], "/usr/local/bin/rke2 server")
        .runs(13, &["[::]:10250"], "kubelet");
    let audit = node.profiles(Profiles::by_themselves());
    assert_eq!(faults(&audit), [(AuditCode::RequiredMissing, 6443)]);
}

#[test]
fn an_agent_of_rke2_is_no_server_and_no_worker_of_kubeadm() {
    let balancers = ["127.0.0.1:6443", "127.0.0.1:6444"];
    let node = TestNode::new().runs(10, &balancers, "/usr/local/bin/rke2 agent").runs(
        13,
        &["[::]:10250"],
        "kubelet",
    );
    let audit = node.profiles(Profiles::by_themselves());
    assert_eq!(names(&audit), ["rke2-agent"]);
    assert_eq!((state(&audit, 10250), state(&audit, 6444)), ("met", "met"));
    assert_eq!((state(&audit, 9345), faults(&audit)), ("unused", vec![]));
}

#[test]
fn a_kubelet_of_k3s_that_others_do_not_get_to_is_no_fault_and_one_of_kubeadm_is() {
    // Servers of k3s ask it through tunnels that it opens.
    let node = TestNode::new().runs(10, &["127.0.0.1:10250", "127.0.0.1:6444"], "k3s-agent agent");
    let audit = node.profiles(Profiles::by_themselves());
    assert_eq!((names(&audit), state(&audit, 10250)), (vec!["k3s-agent"], "closed"));
    assert_eq!(faults(&audit), []);
    let check = &audit.profiles[0].checks[0];
    assert!(check.only.as_deref().unwrap().contains("metrics server"), "{check:?}");
    let node = TestNode::new().runs(10, &["127.0.0.1:10250"], "kubelet");
    let audit = node.profiles(Profiles::by_themselves());
    assert_eq!((names(&audit), state(&audit, 10250)), (vec!["kubeadm-worker"], "unreachable"));
    assert_eq!(faults(&audit), [(AuditCode::RequiredUnreachable, 10250)]);
    // The kubelet that is not there is one.
    let audit = TestNode::new().profiles(Profiles::named("k3s-agent").unwrap());
    assert_eq!(faults(&audit), [(AuditCode::RequiredMissing, 10250)]);
}

#[test]
fn etcd_that_others_do_not_get_to_is_no_fault_of_a_single_server() {
    let own = ["[::]:6443", "[::]:10250", "127.0.0.1:2379", "127.0.0.1:2380"];
    let node = TestNode::new().runs(10, &own, "k3s-server server");
    let audit = node.profiles(Profiles::by_themselves());
    assert_eq!((state(&audit, 2379), state(&audit, 2380)), ("closed", "closed"));
    assert_eq!((state(&audit, 6443), faults(&audit)), ("met", vec![]));
    // With another datastore there is none.
    let node = TestNode::new().runs(10, &own[..2], "k3s-server server");
    assert_eq!(state(&node.profiles(Profiles::by_themselves()), 2379), "unused");
}

#[test]
fn the_embedded_registry_is_asked_of_where_it_is() {
    let own = ["127.0.0.1:6444", "[::]:10250", "[::]:6443", "127.0.0.1:5001"];
    let audit = TestNode::new()
        .runs(10, &own, "k3s-agent agent")
        .profiles(Profiles::named("k3s-agent").unwrap());
    assert_eq!((state(&audit, 6443), state(&audit, 5001)), ("met", "unreachable"));
    assert_eq!(faults(&audit), [(AuditCode::RequiredUnreachable, 5001)]);
    let told = audit.findings.iter().any(|one| one.what.contains("only with embedded-registry"));
    assert!(told, "{:?}", audit.findings);
}

#[test]
fn cilium_works_without_health_checks() {
    let flannel = TestNode::new().vxlan("cilium_vxlan", 8472);
    let audit = flannel.profiles(Profiles::by_themselves());
    assert_eq!((names(&audit), state(&audit, 4240)), (vec!["cilium"], "unused"));
    assert_eq!((state(&audit, 8472), faults(&audit)), ("met", vec![]));
    let node = TestNode::new().runs(10, &["127.0.0.1:4240", "127.0.0.1:4244"], "cilium-agent");
    let audit = node.profiles(Profiles::by_themselves());
    assert_eq!((state(&audit, 4240), state(&audit, 4244)), ("closed", "unreachable"));
    assert_eq!(faults(&audit), [(AuditCode::RequiredUnreachable, 4244)]);
}

#[test]
fn a_tunnel_of_flannel_may_have_the_port_that_windows_knows() {
    let usual = TestNode::new().vxlan("flannel.1", 8472).profiles(Profiles::by_themselves());
    assert_eq!((names(&usual), state(&usual, 8472)), (vec!["flannel-vxlan"], "met"));
    let other = TestNode::new().vxlan("flannel.4096", 4789).profiles(Profiles::by_themselves());
    assert_eq!((state(&other, 8472), state(&other, 4789)), ("unused", "met"));
    assert_eq!((faults(&usual), faults(&other)), (vec![], vec![]));
    // Before flannel runs, the usual port is missing.
    let none = TestNode::new().profiles(Profiles::named("flannel-vxlan").unwrap());
    assert_eq!(faults(&none), [(AuditCode::RequiredMissing, 8472)]);
}
