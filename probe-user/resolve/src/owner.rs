//! Who is at the end: from a socket to processes, containers, pod and cluster,
//! or to the reason why there is no process.

use std::collections::BTreeSet;

use super::facts::Facts;
use whereis_port_model::{
    Capability, CgroupPath, Container, ContainerRef, End, Ending, Endpoint, Evidence,
    EvidenceSource, Gap, GapKind, GapSource, Hop, HopKind, Impact, KernelPort, Link, LinkKind,
    Monitored, Owners, Path, Process, Proto, Socket,
};

/// The range that Kubernetes takes ports of NodePort services from by default.
pub(super) const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// The ends of a socket: one for each container (or none) that its holders are
/// in, so that a socket passed between containers shows both.
pub(super) fn ends(facts: &Facts<'_>, socket: &Socket) -> Vec<End> {
    let owners = facts.owners(&BTreeSet::from([socket.inode]));
    held_by(facts, socket, &owners)
}

/// The same, once the owners are read.
pub(super) fn held_by(facts: &Facts<'_>, socket: &Socket, owners: &Owners) -> Vec<End> {
    if owners.gone.contains(&socket.inode) {
        facts.gap(Gap::new(
            Impact::Port,
            GapSource::new(GapKind::Port, format!("{}/{}", socket.port, socket.proto)),
            "a socket on it closed while it was read; ask again",
        ));
        return Vec::new();
    }
    let mut processes: Vec<Process> = Vec::new();
    for owner in owners.of(socket.inode) {
        match facts.process(owner.pid) {
            Some(process) if process.start == owner.start => {
                if !processes.iter().any(|p| p.pid == process.pid) {
                    processes.push(process);
                }
            }
            _ => facts.gap(Gap::new(
                Impact::Owner,
                GapSource::new(GapKind::Process, owner.pid.to_string()),
                "it held the socket and exited while it was read",
            )),
        }
    }
    if processes.is_empty() && !owners.of(socket.inode).is_empty() {
        let why = "its holder exited while it was read; ask again".to_owned();
        return vec![End { why: Some(why), ..End::default() }];
    }
    if processes.is_empty() {
        return vec![ownerless(facts, socket, &owners.denied, owners.denied_total)];
    }
    let mut groups: Vec<(Vec<ContainerRef>, Vec<Process>)> = Vec::new();
    for process in processes {
        let chain = process.containers();
        match groups.iter_mut().find(|(c, _)| *c == chain) {
            Some((_, group)) => group.push(process),
            None => groups.push((chain, vec![process])),
        }
    }
    groups.into_iter().map(|(chain, group)| owned(facts, socket, &chain, group)).collect()
}

fn owned(facts: &Facts<'_>, socket: &Socket, chain: &[ContainerRef], group: Vec<Process>) -> End {
    let processes = likely_acceptor_first(group);
    let mut end = End { ending: Ending::Process, ..End::default() };
    if let Some(first) = processes.first() {
        end.containers = facts.containers(chain, first.pid);
        if let Some(Monitored { container, by, .. }) =
            first.monitored.as_ref().filter(|one| chain.contains(&one.container))
        {
            let id: String = container.id.chars().take(12).collect();
            let monitor = first.ancestors.iter().find(|ancestor| ancestor.pid == *by);
            let comm = monitor.map_or("", |monitor| monitor.comm.as_str());
            end.evidence.push(Evidence::new(
                EvidenceSource::Process,
                format!("its parent {comm} (pid {by}) was started for container {id}"),
            ));
        } else if !chain.is_empty() {
            let path = first.cgroup.as_ref().map_or("", |c| c.0.as_str());
            end.evidence.push(Evidence::new(
                EvidenceSource::Cgroup,
                format!("pid {} is in {path}", first.pid),
            ));
        }
        end.unit = first.cgroup.as_ref().filter(|_| chain.is_empty()).and_then(CgroupPath::unit);
        if first.netns.is_some_and(|n| n != socket.netns) {
            end.why = Some(format!(
                "the process runs in network namespace {} and holds a socket of {}",
                first.netns.map_or_else(String::new, |n| n.to_string()),
                socket.netns
            ));
        }
    }
    if is_node_port(socket, &processes) {
        end.why = Some(HOLDS_NODE_PORT.to_owned());
    }
    end.processes = processes;
    name(&mut end);
    end
}

/// Why kube-proxy listens at the port of a Service.
pub(super) const HOLDS_NODE_PORT: &str = "kube-proxy before Kubernetes 1.24 holds the port of a NodePort service so \
    that nobody else takes it; packets go by its NAT rules to the service's pods before they get to this socket";

/// Pod and cluster from the containers.
fn name(end: &mut End) {
    end.pod = end.containers.iter().rev().find_map(|c| c.pod.clone());
    end.cluster = end.containers.iter().rev().find_map(Container::cluster);
    for container in &end.containers {
        let via = &container.via;
        if !via.is_untold() {
            let name = container.name.as_deref().unwrap_or(&container.id);
            let detail = format!("container {name} ({})", via.at());
            end.evidence.push(Evidence::new(EvidenceSource::Told(via.teller), detail));
        }
    }
    if let Some(cluster) = &end.cluster {
        end.evidence.push(Evidence::new(EvidenceSource::ContainerLabel, cluster.source.clone()));
    }
}

/// Whether this is kube-proxy holding the port of a NodePort service, by its
/// name and Kubernetes' default range; its own ports are below.
pub(super) fn is_node_port(socket: &Socket, processes: &[Process]) -> bool {
    may_be_node_port(socket)
        && processes
            .first()
            .is_some_and(|process| process.name() == "kube-proxy" && !process.own_word)
}

/// Whether a NodePort service could have this port.
pub(super) fn may_be_node_port(socket: &Socket) -> bool {
    NODE_PORTS.contains(&socket.port.0) && socket.is_wildcard()
}

/// Parents before their children: a server that forks keeps the socket, and its
/// name is what people know. init only holds sockets for others
/// (socket units), so it comes last.
fn likely_acceptor_first(mut group: Vec<Process>) -> Vec<Process> {
    let depth = |p: &Process| {
        let parents = p.ancestors.iter().filter(|a| a.pid != 1);
        parents.filter(|a| group.iter().any(|g| g.pid == a.pid)).count()
    };
    let mut keyed: Vec<_> =
        group.iter().map(|p| ((p.pid == 1, depth(p), p.start, p.pid), p.pid)).collect();
    keyed.sort_unstable();
    let order: Vec<_> = keyed.into_iter().map(|(_, pid)| pid).collect();
    group.sort_by_key(|p| order.iter().position(|pid| *pid == p.pid));
    group
}

/// No process holds it, as far as can be seen: says which of the several
/// reasons it is, by what was readable.
fn ownerless(facts: &Facts<'_>, socket: &Socket, denied: &[u32], denied_total: u32) -> End {
    if let Some(end) = kernel(facts, socket) {
        return end;
    }
    let host = &facts.host;
    let mut end = End::default();
    // A process outside is the better explanation for root in here, who can
    // read everything that is inside; without rights both are possible.
    if denied_total > 0 || host.hidepid > 0 && !host.has(Capability::CapSysPtrace) {
        end.ending = Ending::NotReadable;
        let named: Vec<String> = denied.iter().take(3).map(ToString::to_string).collect();
        let more = if denied.len() > 3 { ", …" } else { "" };
        let who = if denied_total > 0 {
            format!(
                "the descriptors of {denied_total} {} could not be read (pid {}{more})",
                if denied_total == 1 { "process" } else { "processes" },
                named.join(", "),
            )
        } else {
            "processes of other users are hidden (hidepid)".to_owned()
        };
        let mut why = who.clone();
        let mut gap = Gap::new(Impact::Owner, GapKind::Descriptors, who);
        if host.has(Capability::CapSysPtrace) {
            why.push_str(
                "; CAP_SYS_PTRACE is there, so a security module or a user namespace refused",
            );
        } else {
            why.push_str(": needs CAP_SYS_PTRACE");
            gap = gap.remedy("run as root, or with CAP_SYS_PTRACE");
        }
        facts.gap(gap);
        if !host.init_pid_ns {
            why.push_str("; it may also be outside this PID namespace");
        }
        end.why = Some(why);
    } else if !host.init_pid_ns {
        end.ending = Ending::OutsidePidNamespace;
        let place = if host.wsl {
            "another WSL distribution or Docker Desktop's engine"
        } else {
            "the host or another container"
        };
        end.why = Some(format!(
            "an owner exists outside this PID namespace, in {place}: every process in here was readable, none holds the \
             socket, the kernel does not own it, and this is not the machine's initial PID namespace"
        ));
        facts.gap(
            Gap::new(
                Impact::Owner,
                GapKind::PidNamespace,
                "processes outside this PID namespace are not visible",
            )
            .remedy("run in the machine's initial PID namespace"),
        );
    } else {
        end.ending = Ending::Unknown;
        end.why = Some(
            "no process holds a descriptor for it and no known kernel user of the port was found: a kernel \
             service of another kind, a socket on its way between two processes, or one registered in io_uring"
                .to_owned(),
        );
    }
    hint(facts, socket, &mut end);
    end
}

/// What still tells something about a hidden owner: the cgroup that the socket
/// was created in, and the company it keeps.
fn hint(facts: &Facts<'_>, socket: &Socket, end: &mut End) {
    let mut pod = None;
    // 1 is the root of cgroup2: everything on a host without cgroup2.
    let cgroup = socket
        .cgroup_id
        .filter(|id| *id > 1)
        .and_then(|id| facts.take(facts.world.cgroup_path(id)));
    if let Some(cgroup) = cgroup {
        let chain = cgroup.containers();
        end.containers = refs_only(&chain);
        end.unit = if chain.is_empty() { cgroup.unit() } else { None };
        end.evidence
            .push(Evidence::new(EvidenceSource::SocketCgroup, format!("created in {}", cgroup.0)));
    } else if socket.netns != facts.host.own_netns
        && Some(socket.netns) != facts.host.host_netns
        && let Some(netns) = facts.netns.iter().find(|n| n.id == socket.netns)
    {
        // Only when all visible members agree: one that differs proves that
        // membership says nothing here.
        let members = facts.take(facts.world.processes(&netns.members));
        let chains: Vec<_> = members.iter().map(Process::containers).collect();
        if let Some(first) = chains.first().filter(|first| !first.is_empty())
            && chains.iter().all(|c| c == first)
        {
            end.containers = refs_only(first);
            end.evidence.push(Evidence::new(
                EvidenceSource::NamespaceMembers,
                format!(
                    "all {} visible processes of the namespace are in this container",
                    members.len()
                ),
            ));
        } else if let Some(first) = members.first()
            && let Some(chain) =
                chains.first().filter(|first| chains.iter().all(|c| in_one_pod(c, first)))
        {
            // The containers of a pod share its network; which of them it is stays open.
            let containers = facts.containers(chain, first.pid);
            pod = containers.last().and_then(|container| container.pod.clone());
            end.containers = refs_only(&chain[..chain.len().saturating_sub(1)]);
            let detail =
                format!("all {} visible processes of the namespace are in this pod", members.len());
            end.evidence.push(Evidence::new(EvidenceSource::NamespaceMembers, detail));
        }
    }
    if !end.containers.is_empty() {
        let known = facts.take(facts.world.containers());
        for container in &mut end.containers {
            if let Some(named) = known.iter().find(|k| k.id == container.id) {
                container.clone_from(named);
            }
        }
    }
    name(end);
    end.pod = pod.or_else(|| end.pod.take());
}

/// Whether two containers are side by side in one pod.
fn in_one_pod(a: &[ContainerRef], b: &[ContainerRef]) -> bool {
    match (a.split_last(), b.split_last()) {
        (Some((a, outer_a)), Some((b, outer_b))) => {
            a.pod.is_some() && a.pod == b.pod && outer_a == outer_b
        }
        _ => false,
    }
}

fn refs_only(chain: &[ContainerRef]) -> Vec<Container> {
    (0..chain.len()).map(|i| Container::from_ref(&chain[i], &chain[..i])).collect()
}

/// Whether the kernel itself owns the socket, proven by a device or a service
/// of the same namespace on the same port.
fn kernel(facts: &Facts<'_>, socket: &Socket) -> Option<End> {
    // A kernel socket is root's and takes any address; a port alone proves
    // nothing, for a process may have the same one at an address of its own.
    if socket.uid != 0 || !socket.is_wildcard() {
        return None;
    }
    let netns = [socket.netns];
    let mut found: Vec<(String, Evidence)> = Vec::new();
    let mut devices = Vec::new();
    if socket.proto == Proto::Udp {
        // The socket of a tunnel stays in the namespace where the device was
        // made, which a moved device names as its link's: look at home first.
        let home = |link: &Link| link.peer_netns.unwrap_or(link.netns) == socket.netns;
        let is_one = |link: &&Link| home(link) && tunnel(link, socket.port.0).is_some();
        let mut links = facts.links_of(socket.netns);
        if !links.iter().any(|link| is_one(&link)) {
            links = facts.take(facts.world.links(&facts.all_netns()));
        }
        for link in links.iter().filter(|link| home(link)) {
            if let Some(what) = tunnel(link, socket.port.0) {
                let detail = format!(
                    "interface {} (index {}) of netns {}",
                    link.name, link.index, link.netns
                );
                found.push((what, Evidence::new(EvidenceSource::Rtnetlink, detail)));
                devices.push(link.name.clone());
            }
        }
    }
    for port in facts.take(facts.world.kernel_ports(&netns)).iter() {
        if port.proto == socket.proto && port.port == socket.port {
            devices.extend(port.interface.clone());
            found.push(holder(port.clone()));
        }
    }
    if found.is_empty() {
        return None;
    }
    let (what, evidence): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    Some(End {
        ending: Ending::Kernel,
        why: Some(format!("the kernel itself: {}", what.join("; "))),
        devices,
        evidence,
        ..End::default()
    })
}

/// What holds a port of the kernel, in words, and how that is known.
fn holder(port: KernelPort) -> (String, Evidence) {
    let of = port.interface.as_ref().map_or_else(String::new, |i| format!(" interface {i}"));
    let what = format!("{}{of}", port.what);
    let detail = format!("{what} of netns {}", port.netns);
    (what, Evidence::new(EvidenceSource::KernelPort(port.source), detail))
}

/// A path of one step to a port of the kernel that has no listening socket.
pub(super) fn kernel_path(facts: &Facts<'_>, port: KernelPort) -> Path {
    let netns = facts.netns_ref(port.netns);
    let (endpoint, proto) =
        (Endpoint { address: None, name: None, port: Some(port.port) }, port.proto);
    let devices = port.interface.iter().cloned().collect();
    let (what, evidence) = holder(port);
    let why = format!("the kernel itself: {what}");
    let hop = Hop {
        kind: HopKind::Kernel,
        netns: Some(netns),
        endpoint,
        proto,
        detail: why.clone(),
        socket: None,
        evidence: vec![evidence.clone()],
        share: None,
    };
    let end = End {
        ending: Ending::Kernel,
        why: Some(why),
        devices,
        evidence: vec![evidence],
        ..End::default()
    };
    Path { hops: vec![hop], end, ..Path::default() }
}

/// A tunnel device that holds a UDP port while it is up.
fn tunnel(link: &Link, port: u16) -> Option<String> {
    let name = &link.name;
    link.up.then_some(())?;
    match &link.kind {
        LinkKind::Vxlan { port: p, vni } if *p == port => Some(match vni {
            Some(vni) => format!("VXLAN interface {name} (VNI {vni})"),
            None => format!("VXLAN interface {name} (collect metadata)"),
        }),
        LinkKind::Geneve { port: p } if *p == port => Some(format!("GENEVE interface {name}")),
        LinkKind::Bareudp { port: p } if *p == port => Some(format!("bareudp interface {name}")),
        _ => None,
    }
}
