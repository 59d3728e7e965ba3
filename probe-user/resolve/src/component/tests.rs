//! Components by the command lines that nodes of scenario A and B have.

use super::*;
use whereis_port_model::{Evidence, EvidenceSource, StartTime};

fn process(command: &str) -> Process {
    let cmdline: Vec<String> = command.split(' ').map(str::to_owned).collect();
    let name = cmdline[0].rsplit('/').next().unwrap();
    Process {
        pid: 7,
        start: StartTime(1),
        started_at: None,
        comm: name.chars().take(15).collect(),
        exe: Some(cmdline[0].clone()),
        cmdline,
        cwd: None,
        uid: 0,
        fs: None,
        own_word: false,
        user: None,
        nspid: vec![7],
        netns: None,
        cgroup: None,
        monitored: None,
        ancestors: Vec::new(),
        health: whereis_port_model::ProcessHealth::default(),
    }
}

fn held(process: Process) -> End {
    End { ending: Ending::Process, processes: vec![process], ..End::default() }
}

fn tcp(address: &str, port: u16) -> ListensAt {
    ListensAt { proto: Proto::Tcp, address: Some(address.parse().unwrap()), port }
}

/// Command line, address, port, and the role; none when it is `-`.
const ROLES: &[(&str, &str, u16, &str)] = &[
    (
        "kube-apiserver --advertise-address=172.18.0.4 --secure-port=6443 --insecure-port=0",
        "::",
        6443,
        "Kubernetes API",
    ),
    ("kube-apiserver --secure-port 8443", "::", 8443, "Kubernetes API"),
    ("kube-apiserver --secure-port=8443", "::", 6443, "-"),
    ("kube-apiserver", "127.0.0.1", 8080, "Kubernetes API without TLS and without login"),
    (
        "etcd --listen-client-urls=https://127.0.0.1:2379,https://172.18.0.4:2379 --listen-peer-urls=https://172.18.0.4:2380 --listen-metrics-urls=http://127.0.0.1:2381",
        "172.18.0.4",
        2379,
        "etcd for its clients: API servers",
    ),
    ("etcd --listen-peer-urls=https://172.18.0.4:2380", "172.18.0.4", 2380, "etcd for its peers"),
    (
        "etcd --listen-metrics-urls=http://127.0.0.1:2381",
        "127.0.0.1",
        2381,
        "metrics and health of etcd",
    ),
    ("etcd --listen-client-urls=http://127.0.0.1:4001", "127.0.0.1", 2379, "-"),
    (
        "/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml",
        "::",
        10250,
        "kubelet API: logs, exec, metrics",
    ),
    ("/usr/bin/kubelet", "127.0.0.1", 10248, "health of kubelet"),
    (
        "kube-controller-manager --bind-address=127.0.0.1 --port=0",
        "127.0.0.1",
        10257,
        "metrics and health of the controller manager",
    ),
    (
        "kube-scheduler --bind-address=127.0.0.1 --port=0",
        "127.0.0.1",
        10259,
        "metrics and health of the scheduler",
    ),
    (
        "/usr/local/bin/kube-proxy --config=/var/lib/kube-proxy/config.conf",
        "127.0.0.1",
        10249,
        "metrics of kube-proxy",
    ),
    ("/usr/local/bin/kube-proxy", "::", 10256, "health of kube-proxy, for load balancers"),
    (
        "/usr/local/bin/kube-proxy",
        "0.0.0.0",
        30518,
        "holds a NodePort, or is a Service's health check",
    ),
    ("containerd", "127.0.0.1", 34097, "CRI streams of exec, attach and port-forward"),
    ("containerd", "0.0.0.0", 34097, "-"),
    ("dockerd -H fd://", "127.0.0.11", 36687, "embedded DNS of Docker"),
    ("k3s-server server", "::", 6443, "Kubernetes API, and joins of nodes"),
    ("k3s-server server", "127.0.0.1", 6444, "Kubernetes API behind 6443"),
    ("k3s-server server", "192.168.50.56", 2379, "etcd for its clients: API servers"),
    ("k3s-server server", "127.0.0.1", 10257, "metrics and health of the controller manager"),
    ("k3s-agent agent", "127.0.0.1", 6444, "load balancer of this node's clients to the servers"),
    ("k3s-agent agent", "127.0.0.1", 2379, "-"),
    ("k3s-agent agent", "::", 5001, "peers of the embedded registry"),
    ("/usr/local/bin/rke2 server", "::", 9345, "joins of nodes"),
    (
        "/usr/local/bin/rke2 agent",
        "127.0.0.1",
        6443,
        "load balancer of this node's clients to the servers",
    ),
    (
        "cilium-agent --config-dir=/tmp/cilium/config-map",
        "::",
        4244,
        "Hubble server, for hubble-relay",
    ),
    ("hubble-relay serve", "::", 4245, "Hubble relay, for its clients"),
    ("python3 -m http.server 6443", "0.0.0.0", 6443, "-"),
    ("nginx: master", "0.0.0.0", 2379, "-"),
];

#[test]
fn roles_follow_from_program_and_arguments() {
    for (command, address, port, expected) in ROLES {
        let role = of_end(&held(process(command)), tcp(address, *port));
        let role = role.map(|component| {
            assert!(component.confirmed);
            component.role
        });
        assert_eq!(role.as_deref().unwrap_or("-"), *expected, "{command} {port}");
    }
}

#[test]
fn another_program_under_the_name_of_a_component_is_none() {
    let mut imposter = process("kube-apiserver --secure-port=6443");
    imposter.exe = Some("/usr/bin/python3.11".to_owned());
    assert_eq!(of_end(&held(imposter), tcp("::", 6443)), None);
}

#[test]
fn the_files_of_arguments_are_kept_and_nothing_else_of_them() {
    let command = "kube-apiserver --tls-cert-file=/etc/kubernetes/pki/apiserver.crt --token-auth-file=/etc/tokens --oidc-client-id=x";
    let component = of_end(&held(process(command)), tcp("::", 6443)).unwrap();
    let cert = ("--tls-cert-file".to_owned(), "/etc/kubernetes/pki/apiserver.crt".to_owned());
    assert_eq!(component.files, [cert]);
}

#[test]
fn a_port_is_a_hint_only_where_nobody_is_seen() {
    let hidden = End { ending: Ending::OutsidePidNamespace, ..End::default() };
    let hint = of_end(&hidden, tcp("::", 6443)).unwrap();
    assert!(!hint.confirmed);
    assert_eq!(hint.name, "kube-apiserver");
    assert_eq!(of_end(&hidden, tcp("::", 8080)), None);
    assert_eq!(of_end(&End { ending: Ending::Nothing, ..End::default() }, tcp("::", 6443)), None);
}

#[test]
fn a_tunnel_is_known_by_its_device() {
    let at = ListensAt { proto: Proto::Udp, address: None, port: 8472 };
    let of = |device: &str, said: &str| {
        let evidence = vec![Evidence::new(EvidenceSource::Rtnetlink, said)];
        let devices = vec![device.to_owned()];
        of_end(&End { ending: Ending::Kernel, devices, evidence, ..End::default() }, at)
    };
    assert_eq!(of("cilium_vxlan", "whatever is said of it").unwrap().name, "cilium");
    assert_eq!(of("eth0", "interface cilium_vxlan (index 9) of netns 1"), None);
    // That of WireGuard is told by generic netlink.
    assert_eq!(of("flannel-wg", "WireGuard interface flannel-wg").unwrap().name, "flannel");
}

#[test]
fn what_is_not_roots_program_is_not_confirmed() {
    let mut kubelet = process("/usr/bin/kubelet --port=10250");
    let at = tcp("::", 10250);
    assert!(of_end(&held(kubelet.clone()), at).unwrap().confirmed);
    kubelet.own_word = true;
    assert!(!of_end(&held(kubelet), at).unwrap().confirmed);
}

#[test]
fn which_port_is_an_apis_is_no_matter_of_what_it_is_called() {
    let found = |command: &str, port| of_end(&held(process(command)), tcp("::", port)).unwrap();
    let api = found("/usr/local/bin/kube-apiserver --secure-port=7443", 7443);
    assert!(api.is_api);
    assert!(found("/snap/microk8s/1/kubelite", 16_443).is_api);
    assert!(!found("/usr/bin/kubelet --port=10250", 10_250).is_api);
}
