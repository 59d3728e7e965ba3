//! Resolving over a node that is written down in the test.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use whereis_port_model::{
    Address, Ancestor, Answer, Attached, BindAsk, BindError, Bytes, Capability, CauseCode,
    Certificate, CgroupOf, CgroupPath, CgroupProgram, ChainId, Cilium, CiliumPolicy,
    CiliumPolicyOf, ConnectAsk, Connected, Connections, Container, ContainerRef, Element, Ending,
    Flow, FlowFilter, Frontend, Gap, GapKind, GapSource, HopKind, Host, Impact, InputFound,
    InputQuery, IpSet, IpSetId, KernelPort, KubeAsk, KubeContext, KubeObjects, Link, LinkKind,
    LocalRoute, Neighbour, NetSettings, Netns, NetnsId, Network, OtherSocket, Owner, Owners, Pid,
    PolicyRule, Port, PortFacts, PortRange, PortSocket, Process, Proto, Provenance, Published,
    Query, Read, Relay, Route, RouteFound, RouteQuery, Rule, Ruleset, Runtime, Scope, Set, SetId,
    Socket, SocketFile, SocketFilter, SocketInode, SocketState, SocketUnit, SourceReport,
    StartTime, Teller, TlsAsk, ToldBy, Transparent, Vantage, Verdict, Watched,
};
use whereis_port_node::{
    Attachments, Attempts, Clusters, Conntrack, Listeners, LoadBalancers, Netfilter, Node,
    Observed, Prefetch, Processes, Reports, Runtimes, Sockets, Topology,
};

mod bind;
mod budget;
mod calls;
mod certificate;
mod cluster;
mod event;
mod health;
mod held;
mod in_the_way;
mod kube;
mod namespaces;
mod neighbours;
mod observed;
mod paths;
mod profiles;
mod way_back;

const HOST: NetnsId = NetnsId::Inode(100);
const A: NetnsId = NetnsId::Inode(200);
const B: NetnsId = NetnsId::Inode(300);
const ID: &str = "62cd9120f9578c9f7657bec5a544d3e851e487bacb6dbbbe060cae6f083a57e0";

/// A node with one namespace and nothing on it, root in the initial PID namespace.
struct TestNode {
    host: Host,
    netns: Vec<Netns>,
    sockets: Vec<Socket>,
    /// Those that are no listeners.
    port_sockets: Vec<PortSocket>,
    port_facts: Vec<PortFacts>,
    /// Of what is no listener.
    port_gaps: Vec<Gap>,
    owners: Owners,
    processes: Vec<Process>,
    links: Vec<Link>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    kernel_ports: Vec<KernelPort>,
    containers: Vec<Container>,
    relays: BTreeMap<Pid, Relay>,
    unpublished: Vec<Container>,
    gaps: Vec<Gap>,
    watched: Option<Watched>,
    frontends: Vec<Frontend>,
    cilium: Vec<Cilium>,
    apis: Vec<kube::Api>,
    certificates: certificate::Shown,
    settings: Vec<NetSettings>,
    policies: Vec<PolicyRule>,
    local_routes: Vec<LocalRoute>,
    neighbours: Vec<Neighbour>,
    inputs: std::collections::HashMap<InputQuery, InputFound>,
    attached: Read<Vec<Attached>>,
    cgroup_programs: BTreeMap<CgroupOf, Vec<CgroupProgram>>,
    rulesets: Vec<Ruleset>,
    chains: BTreeMap<ChainId, Arc<[Rule]>>,
    /// How often it was asked for rules.
    asked: Cell<usize>,
}

fn netns(id: NetnsId, name: Option<&str>) -> Netns {
    Netns {
        id,
        cookie: None,
        name: name.map(str::to_owned),
        paths: Vec::new(),
        members: Vec::new(),
        user_ns: None,
    }
}

/// A device of the host.
fn device(index: u32, name: &str, kind: LinkKind) -> Link {
    let name = name.to_owned();
    Link {
        netns: HOST,
        index,
        name,
        up: true,
        kind,
        master: None,
        peer: None,
        peer_netns: None,
        bridge_port: None,
        hardware: None,
        noarp: false,
    }
}

impl TestNode {
    fn new() -> Self {
        let host = Host {
            hostname: "node".to_owned(),
            kernel: "6.1.0".to_owned(),
            now: 0,
            euid: 0,
            capabilities: vec![
                Capability::CapSysPtrace,
                Capability::CapSysAdmin,
                Capability::CapNetAdmin,
            ],
            own_netns: HOST,
            own_netns_name: None,
            host_netns: Some(HOST),
            init_pid_ns: true,
            hidepid: 0,
            binds_privileged: None,
            wsl: false,
        };
        let node = Self {
            host,
            netns: vec![netns(HOST, None)],
            sockets: Vec::new(),
            port_sockets: Vec::new(),
            port_facts: Vec::new(),
            port_gaps: Vec::new(),
            owners: Owners::default(),
            processes: Vec::new(),
            links: vec![device(1, "lo", LinkKind::Loopback), device(2, "eth0", LinkKind::Device)],
            addresses: Vec::new(),
            routes: Vec::new(),
            kernel_ports: Vec::new(),
            containers: Vec::new(),
            relays: BTreeMap::new(),
            unpublished: Vec::new(),
            gaps: Vec::new(),
            watched: None,
            frontends: Vec::new(),
            cilium: Vec::new(),
            apis: Vec::new(),
            certificates: certificate::Shown::default(),
            settings: Vec::new(),
            policies: Vec::new(),
            local_routes: Vec::new(),
            neighbours: Vec::new(),
            inputs: std::collections::HashMap::new(),
            attached: Read::default(),
            cgroup_programs: BTreeMap::new(),
            rulesets: Vec::new(),
            chains: BTreeMap::new(),
            asked: Cell::new(0),
        };
        node.address(HOST, "127.0.0.1").address(HOST, "192.0.2.10")
    }

    fn namespace(mut self, id: NetnsId, name: &str) -> Self {
        self.netns.push(netns(id, Some(name)));
        self.address(id, "127.0.0.1")
    }

    fn address(mut self, netns: NetnsId, address: &str) -> Self {
        let address: std::net::IpAddr = address.parse().unwrap();
        let ifindex = if address.is_loopback() { 1 } else { 2 };
        self.addresses.push(Address { netns, ifindex, address, prefix: 24 });
        self
    }

    /// A device pair from one namespace into another.
    fn veth(mut self, netns: NetnsId, into: NetnsId) -> Self {
        self.links.push(Link {
            netns,
            index: 7,
            name: "veth1".to_owned(),
            up: true,
            kind: LinkKind::Veth,
            master: None,
            peer: Some(2),
            peer_netns: Some(into),
            bridge_port: None,
            hardware: None,
            noarp: false,
        });
        self
    }

    /// A route without a next hop.
    fn route(mut self, netns: NetnsId, destination: &str, prefix: u8) -> Self {
        self.routes.push(Route {
            netns,
            destination: destination.parse().unwrap(),
            prefix,
            gateway: None,
            ifindex: Some(5),
        });
        self
    }

    /// A socket; its inode is its place in the list plus one.
    fn socket(mut self, netns: NetnsId, proto: Proto, at: &str) -> Self {
        let at: std::net::SocketAddr = at.parse().unwrap();
        self.sockets.push(Socket {
            netns,
            proto,
            state: if proto == Proto::Tcp { SocketState::Listen } else { SocketState::Unconnected },
            address: at.ip(),
            port: Port(at.port()),
            v6only: at.is_ipv6().then_some(false),
            inode: self.sockets.len() as u64 + 1,
            uid: 0,
            ifindex: None,
            cgroup_id: None,
            queue: None,
        });
        self
    }

    fn tcp(self, netns: NetnsId, at: &str) -> Self {
        self.socket(netns, Proto::Tcp, at)
    }

    /// A process that holds the last socket.
    fn held_by(mut self, pid: Pid, netns: NetnsId, command: &str) -> Self {
        let inode = self.sockets.len() as u64;
        self.owners.holders.push(Owner { inode, pid, start: StartTime(7), tid: None, fd: 3 });
        if !self.processes.iter().any(|p| p.pid == pid) {
            let cmdline: Vec<String> = command.split(' ').map(str::to_owned).collect();
            let name = cmdline[0].rsplit('/').next().unwrap().to_owned();
            self.processes.push(Process {
                pid,
                start: StartTime(7),
                started_at: None,
                comm: name.chars().take(15).collect(),
                cmdline,
                exe: None,
                cwd: None,
                uid: 0,
                fs: None,
                own_word: false,
                user: None,
                nspid: vec![pid],
                netns: Some(netns),
                cgroup: None,
                monitored: None,
                ancestors: Vec::new(),
                health: whereis_port_model::ProcessHealth::default(),
            });
        }
        self
    }

    fn last_process(mut self, change: impl FnOnce(&mut Process)) -> Self {
        change(self.processes.last_mut().unwrap());
        self
    }

    fn container(mut self, id: &str, name: &str, change: impl FnOnce(&mut Container)) -> Self {
        let reference = ContainerRef { runtime: Runtime::Docker, id: id.to_owned(), pod: None };
        let mut container = Container::from_ref(&reference, &[]);
        container.name = Some(name.to_owned());
        container.via = ToldBy::new(Teller::DockerApi, "/var/run/docker.sock");
        change(&mut container);
        self.containers.push(container);
        self
    }

    fn ask(&self, target: &str) -> Answer {
        super::answer(self, &query(target))
    }
}

fn query(target: &str) -> Query {
    whereis_port_model::target::parse_target(
        target,
        &whereis_port_model::target::HostNames::default(),
    )
    .unwrap()
    .remove(0)
}

fn of<T: Clone>(all: &[T], netns: &[NetnsId], place: impl Fn(&T) -> NetnsId) -> Read<Vec<T>> {
    Read::whole(all.iter().filter(|x| netns.contains(&place(x))).cloned().collect())
}

impl Topology for TestNode {
    fn host(&self) -> Read<Host> {
        Read::whole(self.host.clone())
    }
    fn netns(&self) -> Read<Vec<Netns>> {
        Read { value: self.netns.clone(), gaps: self.gaps.clone() }
    }
    fn unseen(&self) -> Read<()> {
        Read::default()
    }
    fn links(&self, netns: &[NetnsId]) -> Read<Vec<Link>> {
        of(&self.links, netns, |l| l.netns)
    }
    fn addresses(&self, netns: &[NetnsId]) -> Read<Vec<Address>> {
        of(&self.addresses, netns, |a| a.netns)
    }
    fn routes(&self, netns: &[NetnsId]) -> Read<Vec<Route>> {
        of(&self.routes, netns, |r| r.netns)
    }
    fn route(&self, _: &RouteQuery) -> Read<Option<RouteFound>> {
        Read::default()
    }
    fn input_route(&self, query: &InputQuery) -> Read<Option<InputFound>> {
        Read::whole(self.inputs.get(query).cloned())
    }
    fn neighbours(&self, netns: &[NetnsId]) -> Read<Vec<Neighbour>> {
        of(&self.neighbours, netns, |one| one.netns)
    }
    fn local_routes(&self, netns: &[NetnsId]) -> Read<Vec<LocalRoute>> {
        of(&self.local_routes, netns, |route| route.netns)
    }
    fn policy_rules(&self, netns: &[NetnsId]) -> Read<Vec<PolicyRule>> {
        of(&self.policies, netns, |rule| rule.netns)
    }
    fn settings(&self, netns: &[NetnsId]) -> Read<Vec<NetSettings>> {
        of(&self.settings, netns, |settings| settings.netns)
    }
    fn port_facts(&self, netns: &[NetnsId]) -> Read<Vec<PortFacts>> {
        of(&self.port_facts, netns, |f| f.netns)
    }
}

impl Sockets for TestNode {
    fn sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<Socket>> {
        let mut read = of(&self.sockets, netns, |s| s.netns);
        read.value.retain(|s| filter.matches(s));
        read
    }
    fn port_sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<PortSocket>> {
        let listener = |s: &Socket| PortSocket { socket: s.clone(), peer: None, expires_ms: None };
        let mut all: Vec<PortSocket> = self.sockets.iter().map(listener).collect();
        all.extend(self.port_sockets.iter().cloned());
        all.retain(|s| netns.contains(&s.socket.netns) && filter.matches(&s.socket));
        Read { value: all, gaps: self.port_gaps.clone() }
    }
    fn owners(&self, inodes: &BTreeSet<SocketInode>) -> Read<Owners> {
        let mut owners = self.owners.clone();
        owners.holders.retain(|o| inodes.contains(&o.inode));
        Read::whole(owners)
    }
    fn kernel_ports(&self, netns: &[NetnsId]) -> Read<Vec<KernelPort>> {
        of(&self.kernel_ports, netns, |p| p.netns)
    }
    fn transparent(&self, netns: &[NetnsId]) -> Read<Vec<Transparent>> {
        Read::whole(netns.iter().map(|id| Transparent { netns: *id, any: None }).collect())
    }
    fn other_sockets(&self, _: &[NetnsId]) -> Read<Vec<OtherSocket>> {
        Read::default()
    }
    fn socket_file(&self, _: &str) -> SocketFile {
        SocketFile::Missing
    }
    fn connections(&self, _: &[NetnsId]) -> Vec<Connections> {
        Vec::new()
    }
}

impl Processes for TestNode {
    fn processes(&self, pids: &[Pid]) -> Read<Vec<Process>> {
        Read::whole(self.processes.iter().filter(|p| pids.contains(&p.pid)).cloned().collect())
    }
    fn cgroup_path(&self, _: u64) -> Read<Option<CgroupPath>> {
        Read::whole(None)
    }
    fn provenance(&self, _: Pid) -> Read<Option<Provenance>> {
        Read::whole(None)
    }
    fn socket_units(&self) -> Read<Vec<SocketUnit>> {
        Read::default()
    }
}

impl Attachments for TestNode {
    fn attached(&self, netns: &[NetnsId]) -> Read<Vec<Attached>> {
        let gaps = self.attached.gaps.clone();
        Read { gaps, ..of(&self.attached.value, netns, |one| one.netns) }
    }
    fn cgroup_programs(&self, of: &CgroupOf) -> Read<Option<Vec<CgroupProgram>>> {
        Read::whole(self.cgroup_programs.get(of).cloned())
    }
}

impl Netfilter for TestNode {
    fn rulesets(&self, netns: &[NetnsId]) -> Read<Vec<Ruleset>> {
        of(&self.rulesets, netns, |r| r.netns)
    }
    fn chain(&self, chain: &ChainId) -> Read<Option<Arc<[Rule]>>> {
        self.asked.set(self.asked.get() + 1);
        Read::whole(self.chains.get(chain).cloned())
    }
    fn set(&self, _: &SetId) -> Read<Option<Set>> {
        Read::default()
    }
    fn set_elements(&self, _: &SetId) -> Read<Option<Arc<[Element]>>> {
        Read::default()
    }
    fn set_element(&self, _: &SetId, _: &Bytes) -> Read<Option<Element>> {
        Read::default()
    }
    fn ip_set(&self, _: &IpSetId) -> Read<Option<IpSet>> {
        Read::default()
    }
}

impl Conntrack for TestNode {
    fn flows(&self, _: &[NetnsId], _: &FlowFilter) -> Read<Vec<Flow>> {
        Read::default()
    }
}

impl LoadBalancers for TestNode {
    fn frontends(&self, netns: &[NetnsId]) -> Read<Vec<Frontend>> {
        of(&self.frontends, netns, |f| f.netns)
    }
    fn cilium(&self, netns: &[NetnsId]) -> Read<Vec<Cilium>> {
        of(&self.cilium, netns, |f| f.netns)
    }
    fn cilium_policy(&self, _: &CiliumPolicyOf) -> Read<Option<Arc<[CiliumPolicy]>>> {
        Read::default()
    }
}

impl Runtimes for TestNode {
    fn container(&self, chain: &[ContainerRef], _: Pid) -> Read<Option<Container>> {
        let id = &chain.last().unwrap().id;
        Read::whole(self.containers.iter().find(|c| c.id == *id).cloned())
    }
    fn containers(&self) -> Read<Vec<Container>> {
        Read::whole(self.containers.clone())
    }
    fn unpublished(&self) -> Read<Vec<Container>> {
        Read::whole(self.unpublished.clone())
    }
    fn relay(&self, pid: Pid) -> Read<Relay> {
        Read::whole(self.relays.get(&pid).cloned().unwrap_or_default())
    }
}

impl Clusters for TestNode {
    fn kube_contexts(&self) -> Read<Vec<KubeContext>> {
        Read::whole(self.apis.iter().map(|api| api.context.clone()).collect())
    }
    fn kube(&self, asks: &[KubeAsk]) -> Vec<Read<KubeObjects>> {
        asks.iter().map(|ask| kube::answer(&self.apis, ask)).collect()
    }
}

impl Listeners for TestNode {
    fn certificates(&self, asks: &[TlsAsk]) -> Vec<Read<Option<Certificate>>> {
        self.certificates.ask(asks)
    }
}

impl Attempts for TestNode {
    fn try_connect(&self, asks: &[ConnectAsk]) -> Read<Vec<Connected>> {
        Read::whole(vec![Connected::NotTried; asks.len()])
    }

    fn try_bind(&self, _: &BindAsk) -> Read<Option<Result<(), BindError>>> {
        Read::default()
    }
}

impl Observed for TestNode {
    fn observed(&self) -> Read<Option<Watched>> {
        Read::whole(self.watched.clone())
    }
}

impl Reports for TestNode {
    fn sources(&self) -> Vec<SourceReport> {
        Vec::new()
    }
}

impl Prefetch for TestNode {
    fn prefetch_sockets(&self, _: &SocketFilter) {}
    fn prefetch_rules(&self, _: &[NetnsId]) {}
}

/// The hops of each path, as `address:port`, and the name at its end.
fn shape(answer: &Answer) -> Vec<String> {
    let hop = |h: &whereis_port_model::Hop| match (h.endpoint.address, h.endpoint.port) {
        (Some(address), Some(port)) => std::net::SocketAddr::new(address, port.0).to_string(),
        _ => h.endpoint.name.clone().unwrap_or_default(),
    };
    let end = |end: &whereis_port_model::End| match end.processes.first() {
        Some(process) if end.ending == Ending::Process => process.name().to_owned(),
        _ => format!("{:?}", end.ending),
    };
    let path = |p: &whereis_port_model::Path| {
        p.hops.iter().map(hop).chain([end(&p.end)]).collect::<Vec<_>>().join(" > ")
    };
    answer.paths.iter().map(path).collect()
}

fn reachable(answer: &Answer, from: Vantage) -> Vec<(Option<bool>, Option<String>)> {
    let of = answer.reach.iter().filter(|r| r.from == from);
    of.map(|r| (r.reachable, r.address.map(|a| a.to_string()))).collect()
}

const PROXY: &str = "/usr/sbin/docker-proxy -proto tcp -host-ip 127.0.0.1 -host-port 20971 -container-ip 172.18.0.4 -container-port 6443";

fn kind_node() -> TestNode {
    TestNode::new()
        .namespace(A, "cluster2")
        .address(A, "172.18.0.4")
        .veth(HOST, A)
        .route(HOST, "172.18.0.0", 16)
        .tcp(HOST, "127.0.0.1:20971")
        .held_by(10, HOST, PROXY)
        .tcp(A, "[::]:6443")
        .held_by(20, A, "kube-apiserver --secure-port=6443")
        .last_process(|p| {
            p.nspid = vec![20, 717];
            p.cgroup = Some(CgroupPath(format!("/docker/{ID}/kubelet")));
        })
        .container(ID, "cluster2-control-plane", |c| {
            c.labels.insert("io.x-k8s.kind.cluster".to_owned(), "cluster2".to_owned());
            c.networks.push(Network::new("kind", vec!["172.18.0.4".parse().unwrap()]));
            c.ports.push(Published {
                proto: Proto::Tcp,
                container_port: Port(6443),
                host_port: Some(Port(20971)),
                host_ip: Some("127.0.0.1".parse().unwrap()),
            });
        })
}

#[test]
fn a_published_port_leads_through_the_proxy_to_the_process_and_its_cluster() {
    let answer = kind_node().ask("20971");
    assert_eq!(shape(&answer), ["127.0.0.1:20971 > 172.18.0.4:6443 > [::]:6443 > kube-apiserver"]);
    assert_eq!(answer.verdict, Verdict::Found);
    let path = &answer.paths[0];
    assert_eq!(
        path.hops.iter().map(|h| h.kind).collect::<Vec<_>>(),
        [HopKind::Listener, HopKind::Forward, HopKind::Listener]
    );
    assert_eq!(path.end.containers[0].name.as_deref(), Some("cluster2-control-plane"));
    assert_eq!(path.end.cluster.as_ref().map(|c| c.name.as_str()), Some("cluster2"));
    let forward: Vec<&str> = path.hops[1].evidence.iter().map(|e| e.source.as_str()).collect();
    assert_eq!(forward, ["command line", "Docker API"]);
    assert_eq!(
        reachable(&answer, Vantage::Loopback),
        [(Some(true), Some("127.0.0.1:20971".to_owned()))]
    );
    assert_eq!(reachable(&answer, Vantage::Outside), [(Some(false), None)]);
}

#[test]
fn a_containers_port_names_the_published_way_in() {
    let answer = kind_node().ask("6443");
    assert_eq!(shape(&answer), ["[::]:6443 > kube-apiserver"]);
    assert_eq!(
        reachable(&answer, Vantage::Loopback),
        [(Some(true), Some("127.0.0.1:20971".to_owned()))]
    );
    let outside = answer.reach.iter().find(|r| r.from == Vantage::Outside).unwrap();
    assert_eq!(outside.reachable, Some(false));
    assert_eq!(outside.why.cause.code(), CauseCode::PublishedElsewhere);
    assert!(outside.why.to_string().contains("127.0.0.1 only"), "{}", outside.why);
}

#[test]
fn an_unpublished_port_of_a_kind_node_says_how_to_get_there() {
    let mut node = kind_node().tcp(A, "0.0.0.0:30518").held_by(20, A, "");
    node.routes.push(Route {
        netns: HOST,
        destination: "172.18.0.0".parse().unwrap(),
        prefix: 16,
        gateway: None,
        ifindex: Some(5),
    });
    let answer = node.ask("30518");
    assert_eq!(
        reachable(&answer, Vantage::Node),
        [(Some(true), Some("172.18.0.4:30518".to_owned()))]
    );
    let loopback = answer.reach.iter().find(|r| r.from == Vantage::Loopback).unwrap();
    assert_eq!(loopback.reachable, Some(false));
    let fix = whereis_port_view::shell::text(loopback.fix.as_ref().unwrap());
    assert!(fix.contains("172.18.0.4:30518") && fix.contains("extraPortMappings"), "{fix}");
}

#[test]
fn a_published_port_that_nothing_serves_ends_in_nothing() {
    let mut node = kind_node();
    node.sockets.pop();
    let answer = node.ask("20971");
    assert_eq!(shape(&answer), ["127.0.0.1:20971 > 172.18.0.4:6443 > Nothing"]);
    assert_eq!(answer.paths[0].end.containers[0].name.as_deref(), Some("cluster2-control-plane"));
    assert_eq!(
        reachable(&answer, Vantage::Loopback),
        [(Some(false), Some("127.0.0.1:20971".to_owned()))]
    );
}

#[test]
fn a_hidden_owner_is_never_nobody_and_the_runtime_names_the_container() {
    // Docker Desktop: listeners visible, owners and container namespaces not.
    let mut node = kind_node();
    node.host.init_pid_ns = false;
    node.netns.retain(|n| n.id == HOST);
    node.owners = Owners::default();
    node.processes.clear();
    let answer = node.ask("20971");
    assert_eq!(shape(&answer), ["127.0.0.1:20971 > 172.18.0.4:6443 > OutsidePidNamespace"]);
    let end = &answer.paths[0].end;
    assert_eq!(end.containers[0].name.as_deref(), Some("cluster2-control-plane"));
    assert!(end.why.as_deref().unwrap().contains("PID namespace"), "{:?}", end.why);
    // The port inside is known from the runtime alone.
    assert_eq!(shape(&node.ask("6443")), ["172.18.0.4:6443 > OutsidePidNamespace"]);
}

#[test]
fn what_a_runtime_publishes_is_the_way_in_where_its_containers_are_hidden() {
    let mut node = kind_node();
    node.host.init_pid_ns = false;
    node.netns.retain(|n| n.id == HOST);
    node.owners = Owners::default();
    node.processes.clear();
    let answer = node.ask("6443");
    assert_eq!(
        reachable(&answer, Vantage::Loopback),
        [(Some(true), Some("127.0.0.1:20971".to_owned()))]
    );
    assert_eq!(reachable(&answer, Vantage::Outside), [(Some(false), None)]);
    // What it does not publish may be there all the same: how to look is said.
    let answer = node.ask("2379");
    assert_eq!(answer.verdict, Verdict::Unknown);
    let commands: Vec<_> = answer.gaps.iter().filter_map(|g| g.command.as_ref()).collect();
    let [look] = commands[..] else { panic!("{commands:?}") };
    assert_eq!(look.words(), ["docker", "exec", "cluster2-control-plane", "netstat", "-ltnp"]);
}

/// The same port in two namespaces, from which no container publishes it.
fn two_unpublished(first: &str, second: &str) -> TestNode {
    TestNode::new()
        .namespace(A, "a")
        .namespace(B, "b")
        .address(A, "172.18.0.2")
        .tcp(A, first)
        .held_by(20, A, "etcd")
        .tcp(B, second)
        .held_by(30, B, "etcd")
}

#[test]
fn one_reason_for_several_namespaces_is_said_once() {
    let answer = two_unpublished("0.0.0.0:2379", "0.0.0.0:2379").ask("2379");
    for from in [Vantage::Loopback, Vantage::Outside] {
        let [only] = answer.reach.iter().filter(|r| r.from == from).collect::<Vec<_>>()[..] else {
            panic!("{:?}", answer.reach)
        };
        assert_eq!(only.reachable, Some(false));
        assert!(only.why.to_string().contains("a and b"), "{}", only.why);
    }
    let answer = two_unpublished("127.0.0.1:2379", "127.0.0.1:2379").ask("2379");
    assert_eq!(answer.reach.len(), 4, "one for each vantage: {:?}", answer.reach);
    assert!(
        answer.reach.iter().all(|r| r.why.to_string() == "bound to 127.0.0.1 inside a and b only")
    );
}

#[test]
fn a_bind_to_loopback_shuts_nothing_that_another_bind_opens() {
    let mut node = two_unpublished("127.0.0.1:2379", "127.0.0.1:2379");
    node = node.tcp(A, "172.18.0.2:2379").held_by(20, A, "etcd");
    let answer = node.ask("2379");
    let reasons: Vec<String> = answer.reach.iter().map(|r| r.why.to_string()).collect();
    assert!(reasons.iter().any(|why| why == "bound to 127.0.0.1 inside b only"), "{reasons:?}");
    assert!(!reasons.iter().any(|why| why.contains("inside a and b only")), "{reasons:?}");
}

#[test]
fn kube_proxy_that_holds_a_node_port_does_not_serve_it() {
    let why = |at: &str, command: &str| {
        let node = TestNode::new().tcp(HOST, at).held_by(20, HOST, command);
        let port = at.rsplit(':').next().unwrap().to_owned();
        node.ask(&port).paths[0].end.why.clone()
    };
    let note = why("0.0.0.0:30518", "/usr/local/bin/kube-proxy --config=x").unwrap();
    assert!(note.contains("NodePort"), "{note}");
    // Its own ports, and the same port of somebody else.
    assert_eq!(why("[::]:10256", "/usr/local/bin/kube-proxy --config=x"), None);
    assert_eq!(why("0.0.0.0:30518", "httpd"), None);
}

#[test]
fn where_nothing_is_no_name_can_be_missing() {
    let mut node = TestNode::new();
    node.gaps = vec![Gap::new(
        Impact::Name,
        GapSource::new(GapKind::Container, "5d1f8f6a0c8f"),
        "nobody knows it",
    )];
    let answer = node.ask("80");
    assert_eq!((answer.verdict, answer.gaps.len()), (Verdict::NotFound, 0));
    let answer = node.tcp(HOST, "0.0.0.0:80").held_by(5, HOST, "nginx").ask("80");
    assert_eq!(answer.gaps.len(), 1);
}

#[test]
fn the_bind_that_the_kernel_prefers_answers_for_an_address() {
    let node = TestNode::new()
        .tcp(HOST, "0.0.0.0:80")
        .held_by(1000, HOST, "wild")
        .tcp(HOST, "127.0.0.1:80")
        .held_by(1001, HOST, "local")
        .tcp(HOST, "[::]:80")
        .held_by(1002, HOST, "six");
    assert_eq!(shape(&node.ask("127.0.0.1:80")), ["127.0.0.1:80 > local"]);
    assert_eq!(shape(&node.ask("192.0.2.10:80")), ["0.0.0.0:80 > wild"]);
    assert_eq!(shape(&node.ask("[::1]:80")), ["[::]:80 > six"]);
    assert_eq!(shape(&node.ask("0.0.0.0:80")), ["0.0.0.0:80 > wild"]);
    assert_eq!(node.ask("80").paths.len(), 3);
}

#[test]
fn a_v6_only_socket_takes_no_ipv4() {
    let node = TestNode::new().address(HOST, "::1").tcp(HOST, "[::]:80");
    let mut node = node.held_by(1002, HOST, "six");
    assert_eq!(shape(&node.ask("127.0.0.1:80")), ["[::]:80 > six"]);
    node.sockets[0].v6only = Some(true);
    assert_eq!(node.ask("127.0.0.1:80").verdict, Verdict::NotFound);
    assert_eq!(
        reachable(&node.ask("80"), Vantage::Loopback),
        [(Some(true), Some("[::1]:80".to_owned()))]
    );
}

#[test]
fn a_v4_mapped_bind_is_an_ipv4_bind() {
    let node = TestNode::new().tcp(HOST, "[::ffff:127.0.0.1]:80").held_by(1, HOST, "mapped");
    assert_eq!(shape(&node.ask("127.0.0.1:80")), ["[::ffff:127.0.0.1]:80 > mapped"]);
    assert_eq!(reachable(&node.ask("80"), Vantage::Outside), [(Some(false), None)]);
}

#[test]
fn what_holds_for_one_protocol_is_not_said_of_another() {
    let node = TestNode::new()
        .tcp(HOST, "127.0.0.1:53")
        .held_by(5, HOST, "local")
        .socket(HOST, Proto::Udp, "0.0.0.0:53")
        .held_by(6, HOST, "wide");
    let answer = node.ask("53");
    let outside: Vec<_> = answer.reach.iter().filter(|r| r.from == Vantage::Outside).collect();
    let said = |proto: &str| {
        outside.iter().find(|r| r.why.to_string().starts_with(proto)).unwrap().reachable
    };
    assert_eq!((said("53/udp"), said("53/tcp")), (Some(true), Some(false)), "{outside:?}");
}

#[test]
fn two_sockets_at_one_address_make_one_way_in() {
    let mut node = TestNode::new()
        .tcp(HOST, "0.0.0.0:80")
        .held_by(5, HOST, "four")
        .tcp(HOST, "[::]:80")
        .held_by(6, HOST, "six");
    node.sockets[1].v6only = None;
    let answer = node.ask("80");
    assert_eq!(
        reachable(&answer, Vantage::Loopback),
        [(Some(true), Some("127.0.0.1:80".to_owned()))]
    );
}

#[test]
fn every_member_of_a_reuseport_group_is_listed() {
    let node = TestNode::new()
        .tcp(HOST, "0.0.0.0:80")
        .held_by(5, HOST, "one")
        .tcp(HOST, "0.0.0.0:80")
        .held_by(6, HOST, "two");
    assert_eq!(shape(&node.ask("127.0.0.1:80")), ["0.0.0.0:80 > one", "0.0.0.0:80 > two"]);
}

#[test]
fn the_parent_stands_for_its_workers_and_all_are_listed() {
    let node = TestNode::new()
        .tcp(HOST, "0.0.0.0:80")
        .held_by(51, HOST, "nginx: worker")
        .last_process(|p| p.ancestors = vec![Ancestor { pid: 50, comm: "nginx".to_owned() }])
        .held_by(50, HOST, "nginx: master")
        .held_by(1, HOST, "/sbin/init");
    let end = &node.ask("80").paths[0].end;
    assert_eq!(end.processes.iter().map(|p| p.pid).collect::<Vec<_>>(), [50, 51, 1]);
}

#[test]
fn holders_in_different_containers_are_different_ends() {
    let other = "a".repeat(64);
    let node = TestNode::new()
        .tcp(HOST, "0.0.0.0:80")
        .held_by(50, HOST, "one")
        .last_process(|p| p.cgroup = Some(CgroupPath(format!("/docker/{ID}"))))
        .held_by(60, HOST, "two")
        .last_process(|p| p.cgroup = Some(CgroupPath(format!("/docker/{other}"))));
    let answer = node.ask("80");
    let ids: Vec<_> = answer.paths.iter().map(|p| p.end.containers[0].id.clone()).collect();
    assert_eq!(ids, [ID.to_owned(), other]);
}

#[test]
fn a_reused_pid_owns_nothing() {
    let node = TestNode::new()
        .tcp(HOST, "0.0.0.0:80")
        .held_by(50, HOST, "old")
        .last_process(|p| p.start = StartTime(99));
    let answer = node.ask("80");
    assert_eq!(shape(&answer), ["0.0.0.0:80 > Unknown"]);
    assert!(answer.gaps.iter().any(|g| g.source.to_string() == "process 50"), "{:?}", answer.gaps);
}

#[test]
fn a_socket_that_closed_while_it_was_read_is_no_find_and_no_mystery() {
    let mut node = TestNode::new().tcp(HOST, "0.0.0.0:80");
    node.owners = Owners { gone: vec![1], denied: vec![1], denied_total: 1, ..Owners::default() };
    let answer = node.ask("80");
    assert_eq!((answer.verdict, answer.paths.len()), (Verdict::Unknown, 0));
    assert!(answer.gaps.iter().any(|g| g.reason.contains("closed while it was read")));
}

#[test]
fn unreadable_descriptors_are_said_and_not_guessed_around() {
    let mut node = TestNode::new().tcp(HOST, "0.0.0.0:80");
    node.host.capabilities.clear();
    node.owners = Owners { denied: vec![12], denied_total: 1, ..Owners::default() };
    let answer = node.ask("80");
    assert_eq!(shape(&answer), ["0.0.0.0:80 > NotReadable"]);
    assert!(answer.paths[0].end.why.as_deref().unwrap().contains("CAP_SYS_PTRACE"));
    assert!(answer.gaps.iter().any(|g| g.impact == Impact::Owner && g.remedy.is_some()));
}

#[test]
fn a_tunnel_owns_its_port_only_while_it_is_up_and_only_in_its_namespace() {
    let vxlan = |netns, up| Link {
        netns,
        index: 9,
        name: "cilium_vxlan".to_owned(),
        up,
        kind: LinkKind::Vxlan { port: 8472, vni: None },
        master: None,
        peer: None,
        peer_netns: None,
        bridge_port: None,
        hardware: None,
        noarp: false,
    };
    let mut node = TestNode::new().namespace(A, "a").socket(HOST, Proto::Udp, "0.0.0.0:8472");
    for (link, expected) in [
        (vxlan(HOST, true), Ending::Kernel),
        (vxlan(HOST, false), Ending::Unknown),
        (vxlan(A, true), Ending::Unknown),
    ] {
        node.links = vec![link];
        let answer = node.ask("8472/udp");
        assert_eq!(answer.paths[0].end.ending, expected, "{:?}", node.links);
    }
    node.links = vec![vxlan(HOST, true)];
    let path = &node.ask("8472/udp").paths[0];
    assert_eq!(path.hops[0].kind, HopKind::Kernel);
    assert!(path.end.why.as_deref().unwrap().contains("cilium_vxlan"));
}

#[test]
fn a_kernel_port_without_a_listening_socket_is_found() {
    let mut node = TestNode::new();
    node.kernel_ports.push(KernelPort {
        netns: HOST,
        proto: Proto::Udp,
        port: Port(1701),
        what: "L2TP tunnel 3000".to_owned(),
        interface: None,
        source: "genetlink l2tp".to_owned(),
        connected: true,
    });
    let answer = node.ask("1701");
    assert_eq!((answer.verdict, answer.paths[0].end.ending), (Verdict::Found, Ending::Kernel));
    assert_eq!(node.ask("1701/tcp").verdict, Verdict::NotFound);
    // A WireGuard device that is down has a port set and holds none.
    node.kernel_ports[0].connected = false;
    assert_eq!(node.ask("1701").verdict, Verdict::NotFound);
}

#[test]
fn forwards_in_a_circle_end() {
    let node = TestNode::new()
        .tcp(HOST, "127.0.0.1:1000")
        .held_by(5, HOST, "socat TCP-LISTEN:1000,fork TCP:127.0.0.1:1001")
        .tcp(HOST, "127.0.0.1:1001")
        .held_by(6, HOST, "socat TCP-LISTEN:1001,fork TCP:127.0.0.1:1000");
    let answer = node.ask("1000");
    assert_eq!(answer.paths.len(), 1);
    assert!(
        answer.paths[0].end.why.as_deref().unwrap().contains("circle"),
        "{:?}",
        answer.paths[0].end
    );
}

#[test]
fn a_target_on_no_namespace_leaves_the_node_by_its_route() {
    let mut node = TestNode::new().tcp(HOST, "127.0.0.1:1000").held_by(
        5,
        HOST,
        "socat TCP-LISTEN:1000,fork TCP:198.51.100.7:80",
    );
    node.routes.push(Route {
        netns: HOST,
        destination: "0.0.0.0".parse().unwrap(),
        prefix: 0,
        gateway: Some("192.0.2.1".parse().unwrap()),
        ifindex: Some(2),
    });
    let answer = node.ask("1000");
    assert_eq!(shape(&answer), ["127.0.0.1:1000 > 198.51.100.7:80 > 198.51.100.7:80 > Elsewhere"]);
    let last = answer.paths[0].hops.last().unwrap();
    assert_eq!(last.kind, HopKind::OffNode);
    assert!(last.detail.contains("192.0.2.1"), "{}", last.detail);
}

#[test]
fn an_address_counts_only_where_links_and_routes_lead_to_it() {
    let twice = || {
        kind_node()
            .namespace(B, "other")
            .address(B, "172.18.0.4")
            .tcp(B, "0.0.0.0:6443")
            .held_by(30, B, "wrong")
    };
    let right = "127.0.0.1:20971 > 172.18.0.4:6443 > [::]:6443 > kube-apiserver";
    assert_eq!(shape(&twice().ask("20971")), [right]);
    // Both linked: neither is picked by luck.
    assert_eq!(twice().veth(HOST, B).ask("20971").paths.len(), 2);
    // Not linked, or no route: somebody else's address by accident.
    let end = |cut: fn(&mut TestNode)| {
        let mut node = kind_node();
        cut(&mut node);
        node.ask("20971").paths.remove(0).end
    };
    let unlinked = end(|node| node.links.clear());
    assert_eq!(unlinked.ending, Ending::Elsewhere);
    assert!(unlinked.why.as_deref().unwrap().contains("cluster2"), "{unlinked:?}");
    let unrouted = end(|node| node.routes.clear());
    assert_eq!(unrouted.ending, Ending::Stopped);
    assert_eq!(unrouted.why.as_deref(), Some("no route leads to 172.18.0.4"));
}

#[test]
fn a_namespace_behind_another_is_reached_through_it() {
    let node = kind_node()
        .namespace(B, "pod")
        .address(B, "10.244.0.5")
        .veth(A, B)
        .route(HOST, "10.244.0.0", 16)
        .tcp(B, "0.0.0.0:80")
        .held_by(30, B, "nginx")
        .tcp(HOST, "127.0.0.1:9000")
        .held_by(31, HOST, "socat TCP-LISTEN:9000,fork TCP:10.244.0.5:80");
    let expected = "127.0.0.1:9000 > 10.244.0.5:80 > 0.0.0.0:80 > nginx";
    assert_eq!(shape(&node.ask("9000")), [expected]);
}

#[test]
fn arguments_do_not_make_a_forwarder() {
    let spoof = |exe: Option<&str>| {
        let node = kind_node().last_process(|p| p.pid = 20);
        let mut node = node;
        node.processes[0].exe = exe.map(str::to_owned);
        node.ask("20971")
    };
    for own in [None, Some("/usr/bin/docker-proxy"), Some("/usr/bin/docker-proxy (deleted)")] {
        assert_eq!(spoof(own).paths[0].hops.len(), 3, "{own:?}");
    }
    let answer = spoof(Some("/home/u/spoof"));
    assert_eq!(shape(&answer), ["127.0.0.1:20971 > docker-proxy"]);
    assert!(answer.paths[0].end.why.as_deref().unwrap().contains("/home/u/spoof"));
}

#[test]
fn a_pods_port_is_not_the_nodes() {
    let mut node = kind_node();
    node.sockets.pop();
    node.owners.holders.pop();
    let node = node
        .namespace(B, "pod")
        .address(B, "10.244.0.5")
        .tcp(B, "0.0.0.0:6443")
        .held_by(40, B, "impostor")
        .last_process(|p| p.cgroup = Some(CgroupPath(format!("/docker/{ID}/kubelet"))));
    let answer = node.ask("6443");
    assert_eq!(shape(&answer), ["0.0.0.0:6443 > impostor"]);
    assert!(reachable(&answer, Vantage::Loopback).iter().all(|r| r.0 != Some(true)));
}

#[test]
fn a_tunnel_moved_elsewhere_keeps_its_port_where_it_was_made() {
    let mut node = TestNode::new()
        .namespace(A, "a")
        .socket(HOST, Proto::Udp, "0.0.0.0:4789")
        .socket(A, Proto::Udp, "0.0.0.0:4789");
    node.links.push(Link {
        netns: A,
        index: 9,
        name: "vx0".to_owned(),
        up: true,
        kind: LinkKind::Vxlan { port: 4789, vni: Some(1) },
        master: None,
        peer: None,
        peer_netns: Some(HOST),
        bridge_port: None,
        hardware: None,
        noarp: false,
    });
    let endings: Vec<Ending> = node.ask("4789").paths.iter().map(|p| p.end.ending).collect();
    assert_eq!(endings, [Ending::Kernel, Ending::Unknown]);
    // A socket at an address of its own is a process's.
    let mut other = TestNode::new().socket(HOST, Proto::Udp, "192.0.2.10:4789");
    other.links.clone_from(&node.links);
    assert_eq!(other.ask("4789").paths[0].end.ending, Ending::Unknown);
}

#[test]
fn a_bound_device_and_a_loopback_that_is_down_limit_who_gets_in() {
    let mut node = TestNode::new().tcp(HOST, "0.0.0.0:80").held_by(5, HOST, "web");
    node.sockets[0].ifindex = Some(2);
    let answer = node.ask("80");
    assert_eq!(reachable(&answer, Vantage::Loopback), [(Some(false), None)]);
    assert_eq!(reachable(&answer, Vantage::Node), [(Some(true), Some("192.0.2.10:80".to_owned()))]);
    let outside = reachable(&answer, Vantage::Outside);
    assert_eq!(outside, [(Some(true), Some("192.0.2.10:80".to_owned()))]);

    let mut down = TestNode::new().tcp(HOST, "127.0.0.1:80").held_by(5, HOST, "web");
    down.addresses.retain(|a| !a.address.is_loopback());
    let answer = down.ask("80");
    assert_eq!(
        reachable(&answer, Vantage::Loopback),
        [(Some(false), Some("127.0.0.1:80".to_owned()))]
    );
}

#[test]
fn an_address_on_no_interface_is_not_surely_nothing() {
    let node = TestNode::new().tcp(HOST, "0.0.0.0:80").held_by(5, HOST, "web");
    assert_eq!(node.ask("198.51.100.5:80").verdict, Verdict::Unknown);
    let group = TestNode::new().socket(HOST, Proto::Udp, "0.0.0.0:5353").held_by(5, HOST, "mdns");
    assert_eq!(shape(&group.ask("224.0.0.251:5353/udp")), ["0.0.0.0:5353 > mdns"]);
}

#[test]
fn a_loopback_address_means_the_own_one_first() {
    let node = TestNode::new()
        .namespace(A, "a")
        .tcp(A, "127.0.0.1:80")
        .held_by(5, A, "far")
        .tcp(A, "127.0.0.1:81")
        .held_by(5, A, "far")
        .tcp(HOST, "0.0.0.0:80")
        .held_by(6, HOST, "near");
    assert_eq!(shape(&node.ask("127.0.0.1:80")), ["0.0.0.0:80 > near"]);
    assert_eq!(shape(&node.ask("127.0.0.1:81")), Vec::<String>::new());
}

#[test]
fn a_published_port_that_nobody_serves_is_no_find() {
    let mut node = kind_node();
    node.sockets.clear();
    node.owners = Owners::default();
    let answer = node.ask("6443");
    assert_eq!((answer.verdict, answer.paths.len()), (Verdict::NotFound, 0));
    assert!(answer.gaps.iter().any(|g| g.reason.contains("nothing listens")), "{:?}", answer.gaps);
}

#[test]
fn nothing_there_is_said_only_when_nothing_was_hidden() {
    let node = TestNode::new();
    assert_eq!(node.ask("9").verdict, Verdict::NotFound);
    assert!(node.ask("9").gaps.is_empty());

    let mut hidden = TestNode::new();
    hidden.host.init_pid_ns = false;
    assert_eq!(hidden.ask("9").verdict, Verdict::Unknown);

    let mut unread = TestNode::new();
    unread.gaps.push(Gap::new(
        Impact::Port,
        GapSource::new(GapKind::NetworkNamespaces, "network namespace 7"),
        "can't be entered",
    ));
    assert_eq!(unread.ask("9").verdict, Verdict::Unknown);

    let mut unnamed = TestNode::new();
    unnamed.gaps.push(Gap::new(Impact::Name, GapKind::Runtime, "does not answer"));
    assert_eq!(unnamed.ask("9").verdict, Verdict::NotFound);
}

#[test]
fn the_own_namespace_comes_first() {
    let node = TestNode::new()
        .namespace(A, "a")
        .tcp(A, "0.0.0.0:80")
        .held_by(5, A, "far")
        .tcp(HOST, "0.0.0.0:80")
        .held_by(6, HOST, "near");
    assert_eq!(shape(&node.ask("80")), ["0.0.0.0:80 > near", "0.0.0.0:80 > far"]);
}

#[test]
fn a_range_and_a_protocol_limit_the_answer() {
    let node = TestNode::new()
        .tcp(HOST, "0.0.0.0:80")
        .held_by(5, HOST, "a")
        .tcp(HOST, "0.0.0.0:82")
        .held_by(6, HOST, "b")
        .socket(HOST, Proto::Udp, "0.0.0.0:81")
        .held_by(7, HOST, "c");
    assert_eq!(shape(&node.ask("80-81")), ["0.0.0.0:80 > a", "0.0.0.0:81 > c"]);
    assert_eq!(shape(&node.ask("80-90/udp")), ["0.0.0.0:81 > c"]);
    let unused = Query {
        text: String::new(),
        ports: PortRange::one(Port(1)),
        proto: None,
        scope: Scope::Everywhere,
        zone: None,
        name: None,
        subject: None,
    };
    assert_eq!(super::answer(&node, &unused).verdict, Verdict::NotFound);
}

#[test]
fn the_same_facts_give_the_same_answer() {
    let node = kind_node();
    assert_eq!(node.ask("20971"), node.ask("20971"));
}

#[test]
fn labels_name_clusters() {
    let labels = |pairs: &[(&str, &str)]| {
        let reference = ContainerRef { runtime: Runtime::Docker, id: ID.to_owned(), pod: None };
        let mut container = Container::from_ref(&reference, &[]);
        container.labels = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<BTreeMap<_, _>>();
        container.cluster().map(|c| (c.name, c.distribution, c.role))
    };
    let kind =
        labels(&[("io.x-k8s.kind.cluster", "cluster2"), ("io.x-k8s.kind.role", "control-plane")]);
    assert_eq!(
        kind,
        Some(("cluster2".to_owned(), "kind".to_owned(), Some("control-plane".to_owned())))
    );
    assert_eq!(labels(&[("k3d.cluster", "dev")]).map(|c| c.1), Some("k3d".to_owned()));
    assert_eq!(labels(&[("io.x-k8s.kind.cluster", ""), ("app", "web")]), None);
}
