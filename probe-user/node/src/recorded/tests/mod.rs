mod file;
mod names;
mod redact;
mod replay;

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::*;
use whereis_port_model::{
    Accepted, Ancestor, Attachment, CgroupHook, DeviceHook, DeviceMode, Gap, GapKind, GapSource,
    Impact, LinkKind, NeighbourState, Network, ObservedTarget, Owner, Pod, PodRef, Port, Program,
    Proto, Published, Runtime, SocketState, StartTime, Teller, ToldBy, Watched,
};

pub(super) const HOST: NetnsId = NetnsId::Inode(4_026_531_833);
pub(super) const NODE: NetnsId = NetnsId::Inode(4_026_532_611);
pub(super) const CONTAINER_ID: &str =
    "62cd9120f957aa00bb11cc22dd33ee4462cd9120f957aa00bb11cc22dd33ee44";
pub(super) const POD_UID: &str = "8e2ab1c0-1234-4cde-9f01-23456789abcd";

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A gap whose every text has a secret.
fn gap(impact: Impact) -> Gap {
    Gap::new(
        impact,
        GapSource::new(GapKind::Runtime, "zq7api (/run/zq7dir/docker.sock)"),
        "refused by \"zq7 words\" at zq7host:80",
    )
    .remedy("ask zq7admin@zq7.example or 203.0.113.77")
}

fn partial<T>(value: T, impact: Impact) -> Read<T> {
    Read::partial(value, gap(impact))
}

fn socket(netns: NetnsId, address: &str, port: u16, inode: u64) -> Socket {
    Socket {
        netns,
        proto: Proto::Tcp,
        state: SocketState::Listen,
        address: ip(address),
        port: Port(port),
        v6only: None,
        inode,
        uid: 0,
        ifindex: None,
        cgroup_id: Some(900 + inode),
        queue: None,
    }
}

fn process(pid: Pid, cmdline: &str, cgroup: &str) -> Process {
    Process {
        pid,
        start: StartTime(u64::from(pid)),
        started_at: Some(1_700_000_000),
        comm: cmdline.split([' ', '/']).next().unwrap_or_default().to_owned(),
        cmdline: cmdline.split(' ').map(str::to_owned).collect(),
        exe: Some("/home/zq7alice/bin/program (deleted)".to_owned()),
        cwd: Some("/srv/zq7project".to_owned()),
        uid: 1000,
        fs: None,
        own_word: false,
        user: Some("zq7alice".to_owned()),
        nspid: vec![pid],
        netns: Some(HOST),
        cgroup: Some(CgroupPath(cgroup.to_owned())),
        monitored: None,
        ancestors: vec![Ancestor { pid: 1, comm: "systemd".to_owned() }],
        health: whereis_port_model::ProcessHealth::default(),
    }
}

fn bpf_program(name: &str) -> Program {
    Program { id: Some(12), name: name.to_owned(), balancer: None }
}

fn reference() -> ContainerRef {
    ContainerRef {
        runtime: Runtime::Docker,
        id: CONTAINER_ID.to_owned(),
        pod: Some(PodRef { uid: POD_UID.to_owned() }),
    }
}

fn container() -> Container {
    let labels = [
        ("io.x-k8s.kind.cluster", "zq7cluster"),
        ("io.x-k8s.kind.role", "control-plane"),
        ("com.docker.compose.project", "zq7cluster-control-plane"),
        ("com.zq7.team", "zq7team"),
    ];
    Container {
        runtime: Runtime::Docker,
        id: CONTAINER_ID.to_owned(),
        name: Some("zq7cluster-control-plane".to_owned()),
        image: Some("registry.zq7.example/node:v1.20.2".to_owned()),
        labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        networks: vec![Network::new("zq7net", vec![ip("172.18.0.4")])],
        ports: vec![Published {
            proto: Proto::Tcp,
            container_port: Port(6443),
            host_port: Some(Port(20971)),
            host_ip: Some(ip("203.0.113.77")),
        }],
        network_mode: Some(format!("container:{CONTAINER_ID}")),
        pid: Some(30),
        parents: vec![reference()],
        pod: Some(Pod {
            namespace: Some("zq7namespace".to_owned()),
            name: Some("zq7pod".to_owned()),
            uid: Some(POD_UID.to_owned()),
            ..Pod::default()
        }),
        via: ToldBy::new(
            Teller::StateFile,
            format!("/var/lib/zq7dir/containers/{CONTAINER_ID}/config.v2.json"),
        ),
        sandbox: false,
        sort: None,
        state: None,
    }
}

/// A node with a published port, a container, a forward into a namespace, a
/// socket that nobody owns, and a secret in every text that can hold one.
pub(super) fn recording() -> Recording {
    let host = Host {
        hostname: "zq7host".to_owned(),
        kernel: "6.18.0".to_owned(),
        now: 1_700_000_100,
        euid: 0,
        capabilities: vec![whereis_port_model::Capability::CapSysAdmin],
        own_netns: HOST,
        own_netns_name: None,
        host_netns: Some(HOST),
        init_pid_ns: true,
        hidepid: 0,
        binds_privileged: None,
        wsl: false,
    };
    let netns = vec![
        Netns {
            id: HOST,
            cookie: Some(1),
            name: None,
            paths: Vec::new(),
            members: vec![10, 20],
            user_ns: None,
        },
        Netns {
            id: NODE,
            cookie: None,
            name: Some("zq7netns".to_owned()),
            paths: vec![
                "/run/netns/zq7netns".to_owned(),
                format!("/run/docker/netns/{}", &CONTAINER_ID[..12]),
            ],
            members: vec![30],
            user_ns: None,
        },
    ];
    let sockets = vec![
        socket(HOST, "203.0.113.77", 20971, 1),
        socket(HOST, "127.0.0.1", 12000, 2),
        socket(HOST, "0.0.0.0", 8080, 3),
        socket(HOST, "::", 2024, 4),
        socket(NODE, "fd00:dead:beef::5", 6443, 5),
    ];
    let owner =
        |inode, pid| Owner { inode, pid, start: StartTime(u64::from(pid)), tid: None, fd: 3 };
    let owners = Owners {
        holders: vec![owner(1, 10), owner(2, 20), owner(3, 21), owner(5, 30)],
        denied: vec![77],
        denied_total: 1,
        gone: Vec::new(),
    };
    let docker =
        format!("/system.slice/docker-{CONTAINER_ID}.scope/kubelet/pod{POD_UID}/zq7.service");
    let mut serving =
        process(30, "kube-apiserver --advertise=172.18.0.4 --token=zq7token", &docker);
    serving.netns = Some(NODE);
    let processes = vec![
        process(
            10,
            "docker-proxy -proto tcp -host-ip 203.0.113.77 -host-port 20971 -container-ip 172.18.0.4 -container-port 6443 -zq7",
            "/system.slice/docker.service",
        ),
        process(
            20,
            "kubectl port-forward --token zq7token --context zq7cluster -n zq7namespace svc/zq7svc 12000:zq7port",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/zq7-app.service",
        ),
        process(
            21,
            "pasta -t 203.0.113.77/8080:80 --pcap /tmp/zq7.pcap --netns /run/netns/zq7netns",
            "/lxc.payload.zq7lxc/machine.slice/machine-zq7lxc.scope",
        ),
        serving,
    ];
    let both = || vec![HOST, NODE];
    let link = |netns, name: &str, kind| Link {
        netns,
        index: 2,
        name: name.to_owned(),
        up: true,
        kind,
        master: None,
        peer: None,
        peer_netns: None,
        bridge_port: None,
        hardware: None,
        noarp: false,
    };
    let inodes = sockets.iter().map(|s| s.inode).collect();
    let facts = RecordedFacts {
        host: partial(host.clone(), Impact::Name),
        netns: Some(partial(netns, Impact::Port)),
        sockets: vec![RecordedFact {
            asked: SocketsOf { netns: both(), filter: SocketFilter::ALL },
            read: partial(sockets, Impact::Port),
        }]
        .into(),
        owners: vec![RecordedFact { asked: inodes, read: partial(owners, Impact::Owner) }].into(),
        processes: vec![RecordedFact {
            asked: vec![10, 20, 21, 30, 77],
            read: partial(processes, Impact::Owner),
        }]
        .into(),
        links: vec![RecordedFact {
            asked: both(),
            read: partial(
                vec![
                    link(HOST, "zq7wan", LinkKind::Other("zq7kind".to_owned())),
                    link(NODE, "eth0", LinkKind::Veth),
                ],
                Impact::Owner,
            ),
        }]
        .into(),
        addresses: vec![RecordedFact {
            asked: both(),
            read: partial(
                vec![
                    Address { netns: HOST, ifindex: 2, address: ip("203.0.113.77"), prefix: 24 },
                    Address { netns: NODE, ifindex: 2, address: ip("172.18.0.4"), prefix: 16 },
                ],
                Impact::Reach,
            ),
        }]
        .into(),
        routes: vec![RecordedFact {
            asked: both(),
            read: partial(
                vec![Route {
                    netns: NODE,
                    destination: ip("0.0.0.0"),
                    prefix: 0,
                    gateway: Some(ip("172.18.0.1")),
                    ifindex: Some(2),
                }],
                Impact::Reach,
            ),
        }]
        .into(),
        kernel_ports: vec![RecordedFact {
            asked: both(),
            read: partial(
                vec![KernelPort {
                    netns: HOST,
                    proto: Proto::Udp,
                    port: Port(51820),
                    what: "WireGuard zq7peer".to_owned(),
                    interface: Some("zq7wg".to_owned()),
                    source: "genetlink zq7family".to_owned(),
                    connected: false,
                }],
                Impact::Owner,
            ),
        }]
        .into(),
        nat: Ignored,
        unseen: Some(partial((), Impact::Port)),
        rulesets: vec![RecordedFact { asked: both(), read: Read::whole(Vec::new()) }].into(),
        frontends: vec![RecordedFact { asked: both(), read: Read::whole(Vec::new()) }].into(),
        settings: vec![RecordedFact {
            asked: both(),
            read: Read::whole(vec![NetSettings {
                netns: NODE,
                forward4: Some(true),
                unforwarding4: None,
                forward6: Some(false),
                route_localnet_all: Some(false),
                route_localnet: vec!["zq7wan".to_owned()],
                force_forward6: None,
                ipsec_policies: None,
                bridge_calls_ip6tables: None,
                bridge_calls_iptables: None,
                proxy_arp: Some(vec!["zq7wan".to_owned()]),
                arp_ignore: Some(vec![DeviceMode { device: "zq7wan".to_owned(), mode: 8 }]),
                reverse_path: Some(vec![DeviceMode { device: "zq7wan".to_owned(), mode: 1 }]),
            }]),
        }]
        .into(),
        neighbours: vec![RecordedFact {
            asked: both(),
            read: Read::whole(vec![Neighbour {
                netns: HOST,
                ifindex: 2,
                address: ip("203.0.113.78"),
                state: NeighbourState::Unanswered,
                hardware: None,
            }]),
        }]
        .into(),
        local_routes: vec![RecordedFact {
            asked: both(),
            read: Read::whole(vec![LocalRoute {
                netns: HOST,
                destination: ip("203.0.113.0"),
                prefix: 24,
                table: 255,
            }]),
        }]
        .into(),
        policy_rules: vec![RecordedFact {
            asked: both(),
            read: Read::whole(vec![PolicyRule {
                netns: HOST,
                ipv6: false,
                priority: 7,
                inverted: false,
                from: Some((ip("203.0.113.0"), 24)),
                to: None,
                iif: Some("zq7wan".to_owned()),
                uids: None,
                more: false,
                table: Some(100),
            }]),
        }]
        .into(),
        attached: vec![RecordedFact {
            asked: both(),
            read: Read::whole(vec![Attached {
                netns: NODE,
                ifindex: Some(2),
                at: DeviceHook::Xdp,
                what: Attachment::Program(bpf_program("zq7xdp")),
            }]),
        }]
        .into(),
        cgroup_programs: vec![RecordedFact {
            asked: CgroupOf::Id(901),
            read: Read::whole(Some(vec![CgroupProgram {
                at: CgroupHook::Ingress,
                cgroup: Some(CgroupPath("/zq7lxc/zq7.service".to_owned())),
                program: bpf_program("sd_fw_ingress"),
            }])),
        }]
        .into(),
        container: vec![RecordedFact {
            asked: InContainer { chain: vec![reference()], pid: 30 },
            read: partial(Some(container()), Impact::Name),
        }]
        .into(),
        containers: Some(partial(vec![container()], Impact::Name)),
        cgroup_paths: vec![RecordedFact {
            asked: 904,
            read: partial(Some(CgroupPath("/zq7lxc/zq7.service".to_owned())), Impact::Name),
        }]
        .into(),
        observed: Some(partial(Some(watched()), Impact::Reach)),
        ..RecordedFacts::new(Read::whole(host.clone()))
    };
    let sources = vec![SourceReport {
        name: "zq7source".to_owned(),
        ok: false,
        reason: Some("connect to 172.18.0.4:2375: zq7reason".to_owned()),
        remedy: Some("start zq7daemon".to_owned()),
        command: None,
        ms: 1.5,
        detail: "container zq7cluster-control-plane at /home/zq7alice/run".to_owned(),
        namespaces: None,
    }];
    Recording::new(facts, sources)
}

/// Connections to the first socket led into the namespace of the node.
fn watched() -> Watched {
    let (address, port) = (ip("203.0.113.77"), Port(20971));
    let seen = ObservedTarget {
        netns: HOST,
        address,
        port,
        pid: 10,
        start: StartTime(10),
        to_netns: Some(HOST),
        to: "172.18.0.4:6443".parse().unwrap(),
        connects: 3,
        ambiguous: 1,
        accepted: 4,
    };
    Watched {
        ms: 5000,
        accepted: vec![Accepted { netns: HOST, address, port, connections: 4, unkept: 0 }],
        observed: vec![seen],
        connects: 3,
        lost: 0,
        dropped: Vec::new(),
    }
}

/// A node that knows all that is in [`recording`].
pub(super) fn node() -> Recorded {
    Recorded::new(recording())
}

/// No labels, for containers of which they do not matter.
pub(super) fn no_labels() -> BTreeMap<String, String> {
    BTreeMap::new()
}
