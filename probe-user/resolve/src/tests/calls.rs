//! How often a node is asked for facts.

use std::cell::RefCell;

use super::*;
use whereis_port_node::Recorded;

/// Passes on to a node what it is asked, and counts it by kind.
struct Counted<'a> {
    node: &'a dyn Node,
    calls: RefCell<BTreeMap<&'static str, usize>>,
}

/// Traits whose methods are passed on.
macro_rules! counted {
    ($($facts:ident { $($name:ident($($arg:ident: $of:ty),*) -> $gives:ty;)* })*) => {
        $(impl $facts for Counted<'_> {
            $(fn $name(&self, $($arg: $of),*) -> $gives {
                *self.calls.borrow_mut().entry(stringify!($name)).or_default() += 1;
                self.node.$name($($arg),*)
            })*
        })*
    };
}

counted! {
    Topology {
        host() -> Read<Host>;
        netns() -> Read<Vec<Netns>>;
        unseen() -> Read<()>;
        links(netns: &[NetnsId]) -> Read<Vec<Link>>;
        addresses(netns: &[NetnsId]) -> Read<Vec<Address>>;
        routes(netns: &[NetnsId]) -> Read<Vec<Route>>;
        route(query: &RouteQuery) -> Read<Option<RouteFound>>;
        input_route(query: &InputQuery) -> Read<Option<InputFound>>;
        neighbours(netns: &[NetnsId]) -> Read<Vec<Neighbour>>;
        local_routes(netns: &[NetnsId]) -> Read<Vec<LocalRoute>>;
        policy_rules(netns: &[NetnsId]) -> Read<Vec<PolicyRule>>;
        settings(netns: &[NetnsId]) -> Read<Vec<NetSettings>>;
        port_facts(netns: &[NetnsId]) -> Read<Vec<PortFacts>>;
    }
    Sockets {
        sockets(netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<Socket>>;
        port_sockets(netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<PortSocket>>;
        owners(inodes: &BTreeSet<SocketInode>) -> Read<Owners>;
        kernel_ports(netns: &[NetnsId]) -> Read<Vec<KernelPort>>;
        transparent(netns: &[NetnsId]) -> Read<Vec<Transparent>>;
        other_sockets(netns: &[NetnsId]) -> Read<Vec<OtherSocket>>;
        socket_file(path: &str) -> SocketFile;
        connections(netns: &[NetnsId]) -> Vec<Connections>;
    }
    Processes {
        processes(pids: &[Pid]) -> Read<Vec<Process>>;
        cgroup_path(id: u64) -> Read<Option<CgroupPath>>;
        provenance(pid: Pid) -> Read<Option<Provenance>>;
        socket_units() -> Read<Vec<SocketUnit>>;
    }
    Attachments {
        attached(netns: &[NetnsId]) -> Read<Vec<Attached>>;
        cgroup_programs(of: &CgroupOf) -> Read<Option<Vec<CgroupProgram>>>;
    }
    Netfilter {
        rulesets(netns: &[NetnsId]) -> Read<Vec<Ruleset>>;
        chain(chain: &ChainId) -> Read<Option<Arc<[Rule]>>>;
        set(set: &SetId) -> Read<Option<Set>>;
        set_elements(set: &SetId) -> Read<Option<Arc<[Element]>>>;
        set_element(set: &SetId, key: &Bytes) -> Read<Option<Element>>;
        ip_set(set: &IpSetId) -> Read<Option<IpSet>>;
    }
    Conntrack {
        flows(netns: &[NetnsId], filter: &FlowFilter) -> Read<Vec<Flow>>;
    }
    LoadBalancers {
        frontends(netns: &[NetnsId]) -> Read<Vec<Frontend>>;
        cilium(netns: &[NetnsId]) -> Read<Vec<Cilium>>;
        cilium_policy(of: &CiliumPolicyOf) -> Read<Option<Arc<[CiliumPolicy]>>>;
    }
    Runtimes {
        container(chain: &[ContainerRef], pid: Pid) -> Read<Option<Container>>;
        containers() -> Read<Vec<Container>>;
        unpublished() -> Read<Vec<Container>>;
        relay(pid: Pid) -> Read<Relay>;
    }
    Clusters {
        kube_contexts() -> Read<Vec<KubeContext>>;
        kube(asks: &[KubeAsk]) -> Vec<Read<KubeObjects>>;
    }
    Listeners {
        certificates(asks: &[TlsAsk]) -> Vec<Read<Option<Certificate>>>;
    }
    Attempts {
        try_connect(asks: &[ConnectAsk]) -> Read<Vec<Connected>>;
        try_bind(ask: &BindAsk) -> Read<Option<Result<(), BindError>>>;
    }
    Observed {
        observed() -> Read<Option<Watched>>;
    }
    Reports {
        sources() -> Vec<SourceReport>;
    }
    Prefetch {
        prefetch_sockets(filter: &SocketFilter) -> ();
        prefetch_rules(netns: &[NetnsId]) -> ();
    }
}

#[test]
fn a_question_reads_each_fact_once() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/kind-1.24.json");
    let recorded = Recorded::load(std::path::Path::new(file)).unwrap();
    let node = Counted { node: &recorded, calls: RefCell::default() };
    let mut answer = crate::answer(&node, &query("30518"));
    crate::add_flows(&node, &mut answer, false);
    assert_eq!(answer.verdict, Verdict::Found);
    let calls = node.calls.borrow();
    let all: usize = calls.values().sum();
    assert!(all <= 185, "{all} calls: {calls:?}");
}
