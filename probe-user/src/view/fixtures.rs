//! Answers made by hand, for the tests of the views.

use std::net::IpAddr;

use crate::model::{
    Ancestor, Answer, Capability, CgroupPath, Cluster, Container, End, Ending, Endpoint, Evidence,
    Gap, Hop, HopKind, Host, Impact, ListRow, Listing, NetnsId, NetnsRef, Network, Path, Pod, Port,
    PortRange, Process, Proto, Published, Query, Reach, Runtime, Scope, Service, Socket,
    SocketState, SourceReport, StartTime, Vantage, Verdict,
};

pub(super) const HOST: NetnsId = NetnsId::Inode(4_026_531_840);
const NODE2: NetnsId = NetnsId::Inode(4_026_532_611);
const NODE1: NetnsId = NetnsId::Inode(4_026_532_500);
const NOW: u64 = 1_700_000_000;

/// Text that tries everything that must not reach a terminal.
pub(super) const HOSTILE: &str =
    "\u{1b}[2J\u{1b}]0;t\u{7}\u{202e}evil\n\r\tx\u{9b}31m\u{200b}\u{2066}\u{feff}\u{2028}\0日本";

pub(super) fn host() -> Host {
    Host {
        hostname: "laptop".into(),
        kernel: "6.1.0-18-amd64".into(),
        now: NOW,
        euid: 0,
        capabilities: vec![
            Capability::CapSysPtrace,
            Capability::CapSysAdmin,
            Capability::CapNetAdmin,
            Capability::CapDacReadSearch,
        ],
        own_netns: HOST,
        host_netns: Some(HOST),
        init_pid_ns: true,
        hidepid: 0,
        wsl: false,
    }
}

pub(super) fn user_host() -> Host {
    Host { euid: 1000, capabilities: Vec::new(), ..host() }
}

pub(super) fn sources() -> Vec<SourceReport> {
    vec![
        SourceReport {
            name: "network namespaces".into(),
            ok: true,
            reason: None,
            remedy: None,
            ms: 1.25,
            detail: "3 namespaces".into(),
        },
        SourceReport {
            name: "socket tables".into(),
            ok: true,
            reason: None,
            remedy: None,
            ms: 0.8,
            detail: "41 sockets".into(),
        },
        SourceReport {
            name: "Docker API".into(),
            ok: false,
            reason: Some("no answer from /var/run/docker.sock within 300 ms".into()),
            remedy: Some("look whether dockerd hangs: systemctl status docker".into()),
            ms: 300.04,
            detail: "1 of 2 sockets answered".into(),
        },
    ]
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn netns(id: NetnsId, name: &str) -> NetnsRef {
    NetnsRef { id, name: Some(name.into()) }
}

pub(super) fn endpoint(address: &str, port: u16) -> Endpoint {
    Endpoint { address: Some(ip(address)), name: None, port: Some(Port(port)) }
}

pub(super) fn socket(id: NetnsId, proto: Proto, address: &str, port: u16, inode: u64) -> Socket {
    Socket {
        netns: id,
        proto,
        state: if proto == Proto::Tcp { SocketState::Listen } else { SocketState::Unconnected },
        address: ip(address),
        port: Port(port),
        v6only: address.contains(':').then_some(false),
        inode,
        uid: 0,
        ifindex: None,
        cgroup_id: None,
    }
}

pub(super) fn listener(at: NetnsRef, proto: Proto, address: &str, port: u16, detail: &str) -> Hop {
    Hop {
        kind: HopKind::Listener,
        endpoint: endpoint(address, port),
        proto,
        detail: detail.into(),
        socket: Some(socket(at.id, proto, address, port, 91_234)),
        netns: Some(at),
        evidence: vec![Evidence::new("socket table", "inode 91234 in LISTEN")],
    }
}

pub(super) fn forward(address: &str, port: u16, detail: &str) -> Hop {
    Hop {
        kind: HopKind::Forward,
        netns: Some(netns(HOST, "host")),
        endpoint: endpoint(address, port),
        proto: Proto::Tcp,
        detail: detail.into(),
        socket: None,
        evidence: vec![
            Evidence::new("command line", "-container-ip 172.18.0.4 -container-port 6443"),
            Evidence::new("Docker API", "62cd9120f957 publishes 6443/tcp on 127.0.0.1:20971"),
        ],
    }
}

pub(super) fn process(pid: u32, inner: Option<u32>, args: &[&str]) -> Process {
    let name = args[0].rsplit('/').next().unwrap();
    Process {
        pid,
        start: StartTime(u64::from(pid) * 10),
        started_at: Some(NOW - 36 * 3600),
        comm: name.chars().take(15).collect(),
        cmdline: args.iter().map(|a| (*a).to_owned()).collect(),
        exe: Some(format!("/usr/bin/{name}")),
        cwd: Some("/".into()),
        uid: 0,
        user: Some("root".into()),
        nspid: std::iter::once(pid).chain(inner).collect(),
        netns: None,
        cgroup: Some(CgroupPath("/system.slice".into())),
        ancestors: vec![
            Ancestor { pid: 28_900, comm: "containerd-shim".into() },
            Ancestor { pid: 1, comm: "systemd".into() },
        ],
    }
}

pub(super) fn node_container(cluster: &str, id: &str, address: &str, port: u16) -> Container {
    let label = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    Container {
        runtime: Runtime::Docker,
        id: id.into(),
        name: Some(format!("{cluster}-control-plane")),
        image: Some("kindest/node:v1.20.2".into()),
        labels: [
            label("io.x-k8s.kind.cluster", cluster),
            label("io.x-k8s.kind.role", "control-plane"),
            label("k3d.cluster.token", "very-secret"),
        ]
        .into(),
        networks: vec![Network { name: "kind".into(), addresses: vec![ip(address)] }],
        ports: vec![Published {
            proto: Proto::Tcp,
            container_port: Port(6443),
            host_port: Some(Port(port)),
            host_ip: Some(ip("127.0.0.1")),
        }],
        network_mode: Some("kind".into()),
        pid: Some(28_950),
        parents: Vec::new(),
        pod: None,
        via: "Docker API".into(),
    }
}

fn apiserver(cluster: &str, id: &str, address: &str, port: u16, pid: u32) -> End {
    let container = node_container(cluster, id, address, port);
    let advertise = format!("--advertise-address={address}");
    End {
        ending: Ending::Process,
        processes: vec![process(
            pid,
            Some(717),
            &[
                "kube-apiserver",
                &advertise,
                "--secure-port=6443",
                "--insecure-port=0",
                "--etcd-servers=https://127.0.0.1:2379",
            ],
        )],
        cluster: container.cluster(),
        pod: Some(Pod {
            namespace: Some("kube-system".into()),
            name: Some(format!("kube-apiserver-{cluster}-control-plane")),
            uid: Some("d41d8cd98f00b204e9800998ecf8427e".into()),
        }),
        containers: vec![
            container,
            Container {
                runtime: Runtime::Containerd,
                id: "3f2a9c4b5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708".into(),
                name: None,
                image: None,
                labels: Default::default(),
                networks: Vec::new(),
                ports: Vec::new(),
                network_mode: None,
                pid: None,
                parents: Vec::new(),
                pod: None,
                via: "cgroup path".into(),
            },
        ],
        evidence: vec![
            Evidence::new("cgroup", "/docker/62cd…/kubelet/kubepods/…"),
            Evidence::new("Docker API", "GET /containers/62cd9120f957/json"),
        ],
        ..End::default()
    }
}

pub(super) fn query(text: &str, port: u16, proto: Option<Proto>) -> Query {
    Query { text: text.into(), ports: PortRange::one(Port(port)), proto, scope: Scope::Everywhere }
}

fn reach(
    from: Vantage,
    address: Option<&str>,
    reachable: Option<bool>,
    why: &str,
    fix: Option<&str>,
) -> Reach {
    Reach {
        from,
        address: address.map(str::to_owned),
        reachable,
        why: why.into(),
        fix: fix.map(str::to_owned),
    }
}

fn answer(query: Query, verdict: Verdict, paths: Vec<Path>) -> Answer {
    Answer { query, verdict, paths, reach: Vec::new(), gaps: Vec::new() }
}

const ID2: &str = "62cd9120f9578c9f7657bec5a544d3e851e487bacb6dbbbe060cae6f083a57e0";
const ID1: &str = "cbe98f7a07488228482dcf6290a97912c1f67408b2eb457b7e1f32dfbf99695a";

/// Scenario A: a kind cluster's published API server.
pub(super) fn published() -> Answer {
    let mut answer = answer(
        query("20971", 20_971, None),
        Verdict::Found,
        vec![Path {
            hops: vec![
                listener(
                    netns(HOST, "host"),
                    Proto::Tcp,
                    "127.0.0.1",
                    20_971,
                    "docker-proxy, pid 29328",
                ),
                forward(
                    "172.18.0.4",
                    6443,
                    "docker-proxy -container-ip 172.18.0.4 -container-port 6443",
                ),
                listener(
                    netns(NODE2, "cluster2-control-plane"),
                    Proto::Tcp,
                    "::",
                    6443,
                    "kube-apiserver, pid 29391 (717 inside)",
                ),
            ],
            end: apiserver("cluster2", ID2, "172.18.0.4", 20_971, 29_391),
        }],
    );
    answer.reach = vec![
        reach(Vantage::Loopback, Some("127.0.0.1:20971"), Some(true), "bound to 127.0.0.1", None),
        reach(
            Vantage::Outside,
            None,
            Some(false),
            "the port is published on 127.0.0.1 only",
            Some(
                "publish it on 0.0.0.0 when the container is created, or tunnel: ssh -L 20971:127.0.0.1:20971 laptop",
            ),
        ),
        reach(Vantage::Containers, None, None, "firewall rules are not read yet", None),
    ];
    answer
}

/// Two clusters whose API servers listen on the same port.
pub(super) fn two_clusters() -> Answer {
    let one = |id, cluster: &str, full, address, port, pid| Path {
        hops: vec![listener(
            netns(id, &format!("{cluster}-control-plane")),
            Proto::Tcp,
            "::",
            6443,
            &format!("kube-apiserver, pid {pid} (717 inside)"),
        )],
        end: apiserver(cluster, full, address, port, pid),
    };
    answer(
        query("6443", 6443, None),
        Verdict::Found,
        vec![
            one(NODE1, "cluster1", ID1, "172.18.0.2", 45_381, 20_111),
            one(NODE2, "cluster2", ID2, "172.18.0.4", 20_971, 29_391),
        ],
    )
}

pub(super) fn not_found() -> Answer {
    answer(query("30518/tcp", 30_518, Some(Proto::Tcp)), Verdict::NotFound, Vec::new())
}

pub(super) fn unknown() -> Answer {
    let mut answer = answer(query("30518", 30_518, None), Verdict::Unknown, Vec::new());
    let denied = |n: u32| {
        Gap::new(Impact::Port, format!("/proc/{n}/ns/net"), "permission denied")
            .remedy("CAP_SYS_PTRACE: run as root")
    };
    answer.gaps = (1..=6).map(denied).collect();
    answer.gaps.push(Gap::new(
        Impact::Port,
        "nf_tables of netns host",
        "2 nat chains are there, and NAT rules are not evaluated yet",
    ));
    answer.gaps.push(
        Gap::new(Impact::Name, "Docker API (/var/run/docker.sock)", "permission denied")
            .remedy("join the group docker, or run as root"),
    );
    answer
}

pub(super) fn vxlan() -> Answer {
    let mut hop = listener(
        netns(HOST, "host"),
        Proto::Udp,
        "0.0.0.0",
        8472,
        "the kernel itself: VXLAN device cilium_vxlan",
    );
    hop.kind = HopKind::Kernel;
    hop.evidence.push(Evidence::new("rtnetlink", "cilium_vxlan: vxlan, dstport 8472, external"));
    answer(
        query("8472/udp", 8472, Some(Proto::Udp)),
        Verdict::Found,
        vec![Path {
            hops: vec![hop],
            end: End {
                ending: Ending::Kernel,
                why: Some("the kernel itself: VXLAN device cilium_vxlan".into()),
                ..End::default()
            },
        }],
    )
}

pub(super) fn outside() -> Answer {
    let mut answer = answer(query("20971", 20_971, None), Verdict::Found, vec![Path {
        hops: vec![listener(netns(HOST, "host"), Proto::Tcp, "127.0.0.1", 20_971, "owner not visible")],
        end: End {
            ending: Ending::OutsidePidNamespace,
            why: Some("an owner exists, but not in this PID namespace: every process in here was readable, none holds the socket, the kernel does not own it, and this is not the machine's initial PID namespace; look at Docker Desktop's engine".into()),
            containers: vec![node_container("cluster2", ID2, "172.18.0.4", 20_971)],
            evidence: vec![Evidence::new("Docker API", "publishes 127.0.0.1:20971")],
            ..End::default()
        },
    }]);
    answer.gaps.push(
        Gap::new(Impact::Owner, "PID namespace", "not the initial one")
            .remedy("ask on the host itself"),
    );
    answer
}

/// Published, and nothing serves it; the same over IPv6.
pub(super) fn nothing_behind() -> Answer {
    let path = |address: &str| {
        Path {
        hops: vec![
            listener(netns(HOST, "host"), Proto::Tcp, address, 30_001, "docker-proxy, pid 31002"),
            forward(
                "172.18.0.5",
                30_000,
                "docker-proxy -container-ip 172.18.0.5 -container-port 30000",
            ),
        ],
        end: End {
            ending: Ending::Nothing,
            why: Some(
                "nothing listens on 30000/tcp at 172.18.0.5 in network namespace cluster3-control-plane".into(),
            ),
            containers: vec![node_container("cluster3", "c097c752c6cf", "172.18.0.5", 30_001)],
            ..End::default()
        },
    }
    };
    answer(query("30001", 30_001, None), Verdict::Found, vec![path("0.0.0.0"), path("::")])
}

/// A preforking server: three processes hold one listener, over two families.
pub(super) fn several_owners() -> Answer {
    let end = End {
        ending: Ending::Process,
        processes: [812, 815, 816]
            .map(|pid| Process {
                comm: "nginx".into(),
                ..process(pid, None, &["nginx: worker process"])
            })
            .into(),
        unit: Some("nginx.service".into()),
        ..End::default()
    };
    let path = |address: &str| Path {
        hops: vec![listener(
            netns(HOST, "host"),
            Proto::Tcp,
            address,
            80,
            "nginx, pid 812, and 2 more",
        )],
        end: end.clone(),
    };
    answer(query("80", 80, Some(Proto::Tcp)), Verdict::Found, vec![path("0.0.0.0"), path("::")])
}

/// One service with two backends, one of them on another node.
pub(super) fn branching() -> Answer {
    let front = || Hop {
        kind: HopKind::Service,
        netns: Some(netns(HOST, "host")),
        endpoint: endpoint("192.168.50.56", 30_995),
        proto: Proto::Tcp,
        detail: "default/my-nginx, NodePort".into(),
        socket: None,
        evidence: vec![Evidence::new("nf_tables", "KUBE-SVC-L65ENXXZWWSAPRCR")],
    };
    let dnat = |address: &str, kind| Hop {
        kind,
        netns: None,
        endpoint: endpoint(address, 80),
        proto: Proto::Tcp,
        detail: "1 of 2 backends".into(),
        socket: None,
        evidence: vec![Evidence::new("nf_tables", "KUBE-SEP")],
    };
    let service =
        Some(Service { namespace: "default".into(), name: "my-nginx".into(), port: None });
    answer(
        query("30995", 30_995, None),
        Verdict::Found,
        vec![
            Path {
                hops: vec![
                    front(),
                    dnat("10.42.0.202", HopKind::Dnat),
                    listener(
                        netns(NODE1, "my-nginx"),
                        Proto::Tcp,
                        "0.0.0.0",
                        80,
                        "nginx, pid 4411",
                    ),
                ],
                end: End {
                    ending: Ending::Process,
                    processes: vec![process(4411, Some(1), &["nginx"])],
                    service: service.clone(),
                    ..End::default()
                },
            },
            Path {
                hops: vec![front(), dnat("10.42.1.188", HopKind::OffNode)],
                end: End { ending: Ending::Elsewhere, service, ..End::default() },
            },
        ],
    )
}

/// A tunnel to another machine.
pub(super) fn tunnel() -> Answer {
    let mut hop = forward("10.0.0.1", 5432, "ssh -L");
    hop.endpoint =
        Endpoint { address: None, name: Some("db.internal".into()), port: Some(Port(5432)) };
    hop.netns = None;
    hop.evidence = vec![Evidence::new("command line", "-L 5432:db.internal:5432")];
    let ssh = process(7001, None, &["ssh", "-NL", "5432:db.internal:5432", "bastion"]);
    answer(
        query("5432", 5432, None),
        Verdict::Found,
        vec![Path {
            hops: vec![
                listener(netns(HOST, "host"), Proto::Tcp, "::1", 5432, "ssh, pid 7001"),
                hop,
            ],
            end: End {
                ending: Ending::Elsewhere,
                why: Some("bastion connects on to db.internal:5432".into()),
                processes: vec![ssh],
                unit: Some("session-3.scope".into()),
                ..End::default()
            },
        }],
    )
}

/// Every text field is hostile.
pub(super) fn hostile() -> (Answer, Host, Vec<SourceReport>) {
    let h = || HOSTILE.to_owned();
    let ns = NetnsRef { id: NODE1, name: Some(h()) };
    let container = Container {
        runtime: Runtime::Docker,
        id: h(),
        name: Some(h()),
        image: Some(h()),
        labels: [(h(), h())].into(),
        networks: vec![Network { name: h(), addresses: Vec::new() }],
        ports: Vec::new(),
        network_mode: Some(h()),
        pid: None,
        parents: Vec::new(),
        pod: None,
        via: h(),
    };
    let process = Process {
        comm: h(),
        cmdline: vec![h(), h()],
        exe: Some(h()),
        cwd: Some(h()),
        user: Some(h()),
        cgroup: Some(CgroupPath(h())),
        ancestors: vec![Ancestor { pid: 1, comm: h() }],
        ..process(7, Some(3), &["x"])
    };
    let mut first = listener(ns.clone(), Proto::Tcp, "0.0.0.0", 80, HOSTILE);
    first.evidence = vec![Evidence::new(h(), h())];
    let mut second = forward("10.0.0.1", 80, HOSTILE);
    second.endpoint = Endpoint { address: None, name: Some(h()), port: Some(Port(80)) };
    second.netns = Some(ns);
    let paths = [Ending::Process, Ending::Kernel, Ending::NotReadable, Ending::Unknown]
        .map(|ending| Path {
            hops: vec![first.clone(), second.clone()],
            end: End {
                ending,
                why: Some(h()),
                processes: vec![process.clone(), process.clone()],
                containers: vec![container.clone(), container.clone()],
                pod: Some(Pod { namespace: Some(h()), name: Some(h()), uid: Some(h()) }),
                service: Some(Service { namespace: h(), name: h(), port: Some(h()) }),
                cluster: Some(Cluster {
                    name: h(),
                    distribution: h(),
                    role: Some(h()),
                    node: Some(h()),
                    source: h(),
                }),
                unit: Some(h()),
                evidence: vec![Evidence::new(h(), h())],
            },
        })
        .into();
    let answer = Answer {
        query: query(HOSTILE, 80, None),
        verdict: Verdict::Unknown,
        paths,
        reach: vec![reach(Vantage::Outside, Some(HOSTILE), Some(false), HOSTILE, Some(HOSTILE))],
        gaps: vec![Gap::new(Impact::Port, h(), h()).remedy(h())],
    };
    let source = SourceReport {
        name: h(),
        ok: false,
        reason: Some(h()),
        remedy: Some(h()),
        ms: 1.0,
        detail: h(),
    };
    (answer, Host { hostname: h(), kernel: h(), ..host() }, vec![source])
}

/// The answers above that a view must be able to show, with names.
pub(super) fn all() -> Vec<(&'static str, Answer)> {
    vec![
        ("published", published()),
        ("two_clusters", two_clusters()),
        ("not_found", not_found()),
        ("unknown", unknown()),
        ("vxlan", vxlan()),
        ("outside", outside()),
        ("nothing_behind", nothing_behind()),
        ("several_owners", several_owners()),
        ("branching", branching()),
        ("tunnel", tunnel()),
    ]
}

/// The last hops of these answers as a list.
pub(super) fn listing() -> Listing {
    let mut rows = Vec::new();
    for (_, answer) in all() {
        for path in answer.paths {
            let target = path.hops.get(1).map(|hop| hop.endpoint.clone());
            let target_detail = path.end.containers.last().and_then(|c| c.name.clone());
            let [hop, ..] = path.hops.as_slice() else { continue };
            let (Some(netns), Some(socket)) = (hop.netns.clone(), hop.socket.clone()) else {
                continue;
            };
            rows.push(ListRow {
                netns,
                socket,
                target_detail: target.as_ref().and(target_detail),
                target,
                end: path.end,
            });
        }
    }
    rows.push(ListRow {
        netns: netns(HOST, "host"),
        socket: socket(HOST, Proto::Tcp, "fe80::a00:27ff:fe4e:66a1", 2024, 7),
        end: End {
            ending: Ending::NotReadable,
            why: Some("needs CAP_SYS_PTRACE".into()),
            ..End::default()
        },
        target: None,
        target_detail: None,
    });
    Listing { rows, gaps: unknown().gaps }
}
