//! What is wrong with the listeners on a path, so that they do not answer though everything
//! leads to them.

use std::collections::BTreeSet;

use super::facts::Facts;
use super::held::port_facts;
use super::turn;
use whereis_port_model::{
    AcceptQueue, Advice, Ailment, Cause, Command, Evidence, EvidenceSource, Finding, FindingCode,
    FixKind, Hop, HopKind, ListenDrops, NetnsId, Path, Port, Process, Proto, Reach, Socket,
};

/// What is noticed of the listeners on these paths. Where one keeps those waiting who connect,
/// "reachable" is no longer known.
pub(super) fn check(facts: &Facts<'_>, paths: &[Path], reach: &mut [Reach]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let mut add = |finding: Finding| {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    };
    for path in paths {
        for (hop, socket, processes) in listeners(facts, path) {
            for ailment in Ailment::of(socket, &processes) {
                let mut finding = finding(facts, ailment, hop, socket, &processes);
                // The end knows its containers by name.
                if ailment == Ailment::Frozen
                    && let Some(first) = processes.first()
                    && path.end.processes.contains(first)
                {
                    finding.fix = turn::go_on(&path.end.containers, first);
                }
                add(finding);
            }
            if let Some(finding) = inherited(socket, &processes) {
                add(finding);
            }
        }
    }
    shared(paths).into_iter().for_each(&mut add);
    for (of, finding) in ipv6_only(facts, paths) {
        add(finding);
        if of.0 == facts.host.own_netns {
            only_ipv6(reach, of);
        }
    }
    for one in reach.iter_mut().filter(|one| one.reachable == Some(true)) {
        if let Some(cause) = waiting(facts, paths, one) {
            one.reachable = None;
            one.why.cause = cause;
        }
    }
    findings
}

/// The drops of each namespace with a TCP listener on these paths.
pub(super) fn drops(facts: &Facts<'_>, paths: &[Path]) -> Vec<ListenDrops> {
    let mut places: Vec<NetnsId> = Vec::new();
    let sockets = paths.iter().flat_map(|path| &path.hops).filter_map(|hop| hop.socket.as_ref());
    for socket in sockets.filter(|socket| socket.proto == Proto::Tcp) {
        if !places.contains(&socket.netns) {
            places.push(socket.netns);
        }
    }
    if !places.is_empty() {
        // All at once; each is asked for again below.
        facts.take(facts.world.port_facts(&places));
    }
    let of = |netns: NetnsId| {
        let settings = port_facts(facts, netns);
        ListenDrops {
            netns: facts.netns_ref(netns),
            overflows: settings.listen_overflows,
            drops: settings.listen_drops,
        }
    };
    let is_known = |drops: &ListenDrops| drops.overflows.is_some() || drops.drops.is_some();
    places.into_iter().map(of).filter(is_known).collect()
}

/// The listeners of a path, with who has each.
fn listeners<'a>(facts: &Facts<'_>, path: &'a Path) -> Vec<(&'a Hop, &'a Socket, Vec<Process>)> {
    let last = path.hops.iter().rposition(|hop| hop.socket.is_some());
    let each = path.hops.iter().enumerate().filter(|(_, hop)| hop.kind == HopKind::Listener);
    let of = |(at, hop): (usize, &'a Hop)| {
        let socket = hop.socket.as_ref()?;
        // Of who passes connections on, the end does not tell.
        let processes = if Some(at) == last {
            path.end.processes.clone()
        } else {
            let owners = facts.owners(&BTreeSet::from([socket.inode]));
            owners.of(socket.inode).iter().filter_map(|owner| facts.process(owner.pid)).collect()
        };
        Some((hop, socket, processes))
    };
    each.filter_map(of).collect()
}

fn finding(
    facts: &Facts<'_>,
    ailment: Ailment,
    hop: &Hop,
    socket: &Socket,
    processes: &[Process],
) -> Finding {
    let at = std::net::SocketAddr::new(socket.address, socket.port.0);
    let place = if socket.netns == facts.host.own_netns {
        String::new()
    } else {
        format!(" in netns {}", facts.netns_ref(socket.netns))
    };
    let who = &hop.detail;
    let first = processes.first();
    let pid = first.map_or_else(|| "PID".to_owned(), |process| process.pid.to_string());
    let (code, what, cause, fix) = match ailment {
        Ailment::QueueFull => {
            let AcceptQueue { waiting, limit, drops } =
                socket.queue.unwrap_or(AcceptQueue { waiting: 0, limit: 0, drops: None });
            let dropped = match (drops, port_facts(facts, socket.netns).listen_overflows) {
                (Some(dropped), _) => format!("; {dropped} were dropped so far"),
                (None, Some(dropped)) if dropped > 0 => format!(
                    "; {dropped} were dropped so in this namespace since it was made, of all its listeners"
                ),
                _ => String::new(),
            };
            let what = format!(
                "{waiting} connections wait to be accepted at {at}{place}, its queue (limit {limit}) is full: new ones are dropped{dropped}"
            );
            let look = Command::new("cat").arg(format!("/proc/{pid}/stack"));
            let fix = Advice::from("look what the program waits for instead of accepting: ")
                .command(look)
                .of(FixKind::Inspect);
            let cause = format!("{who} does not accept them, or not fast enough");
            (FindingCode::QueueFull, what, Some(cause), first.map(|_| fix))
        }
        Ailment::Stopped => {
            let go_on = Command::new("kill -CONT").arg(pid.as_str());
            let what = format!("{who} is stopped by a signal: who connects gets no answer");
            (FindingCode::OwnerStopped, what, None, Some(Advice::from(go_on)))
        }
        Ailment::Traced => {
            let what = format!("{who} is stopped by a debugger: who connects gets no answer");
            (FindingCode::OwnerTraced, what, None, None)
        }
        Ailment::Frozen => {
            let what = format!("{who} is frozen by its cgroup: who connects gets no answer");
            let cause = "somebody paused the container or unit".to_owned();
            (FindingCode::OwnerFrozen, what, Some(cause), None)
        }
        Ailment::LeaderEnded => {
            let what = format!(
                "the first thread of {who} has ended, and others go on: ss and lsof show nobody, and ps \"defunct\""
            );
            (FindingCode::LeaderEnded, what, None, None)
        }
        Ailment::ProgramDeleted => {
            let exe = first.and_then(|process| process.exe.clone()).unwrap_or_default();
            let what =
                format!("the program of {who} was removed or replaced since it began: {exe}");
            let fix = Advice::from("restart it, if a new version should serve").of(FixKind::Start);
            (FindingCode::ProgramDeleted, what, None, Some(fix))
        }
    };
    let evidence = match ailment {
        Ailment::QueueFull => Evidence::new(
            EvidenceSource::SocketTable,
            format!("netns {}, inode {}", socket.netns, socket.inode),
        ),
        _ => Evidence::new(EvidenceSource::Process, format!("/proc/{pid}")),
    };
    Finding { code, what, cause, fix, evidence: vec![evidence] }
}

/// A child of a holder that runs another program and has the listener, too: most often it was
/// meant for the parent alone. Service managers start others with their sockets on purpose.
fn inherited(socket: &Socket, processes: &[Process]) -> Option<Finding> {
    let manages = |process: &Process| process.pid == 1 || process.name() == "systemd";
    let of = |child: &Process| {
        let parent = processes.iter().find(|parent| {
            child.ancestors.iter().any(|ancestor| ancestor.pid == parent.pid)
                && parent.exe.is_some()
                && child.exe.is_some()
                && parent.exe != child.exe
        })?;
        (!manages(parent)).then_some(parent)
    };
    let (child, parent) = processes.iter().find_map(|child| Some((child, of(child)?)))?;
    let at = std::net::SocketAddr::new(socket.address, socket.port.0);
    let name = |process: &Process| format!("{}, pid {}", process.name(), process.pid);
    let what = format!(
        "{}, which was started by {}, has {at} as well and runs another program: whether it ever accepts is not known, and the port stays taken as long as it lives",
        name(child),
        name(parent)
    );
    let fix = Advice::from("let the parent open its socket with SOCK_CLOEXEC").of(FixKind::Start);
    Some(Finding {
        code: FindingCode::Inherited,
        what,
        cause: Some("the descriptor was inherited".to_owned()),
        fix: Some(fix),
        evidence: vec![Evidence::new(
            EvidenceSource::Descriptors,
            format!(
                "/proc/{}/fd and /proc/{}/fd hold socket:[{}]",
                parent.pid, child.pid, socket.inode
            ),
        )],
    })
}

/// Sockets that the kernel chooses between for each connection.
fn shared(paths: &[Path]) -> Vec<Finding> {
    let mut groups: Vec<Vec<(&Socket, &Hop)>> = Vec::new();
    for hop in paths.iter().filter_map(|path| path.hops.first()) {
        let Some(socket) = hop.socket.as_ref().filter(|s| s.proto == Proto::Tcp) else { continue };
        let alike = |(known, _): &(&Socket, &Hop)| {
            (known.netns, known.address, known.port, known.ifindex)
                == (socket.netns, socket.address, socket.port, socket.ifindex)
        };
        match groups.iter_mut().find(|group| group.iter().all(alike)) {
            Some(group) if group.iter().all(|(known, _)| known.inode != socket.inode) => {
                group.push((socket, hop));
            }
            Some(_) => {}
            None => groups.push(vec![(socket, hop)]),
        }
    }
    let said = |group: Vec<(&Socket, &Hop)>| {
        let (first, _) = group.first()?;
        let count = group.len();
        (count > 1).then(|| {
            let at = std::net::SocketAddr::new(first.address, first.port.0);
            let holders = super::few::few(group.iter().map(|(_, hop)| &hop.detail));
            let what = format!(
                "{count} sockets share {at} (SO_REUSEPORT): each takes about 1 of {count} connections, unless a program of theirs chooses; held by {holders}"
            );
            let inodes = super::few::few(group.iter().map(|(socket, _)| socket.inode));
            let evidence = Evidence::new(EvidenceSource::SocketTable, format!("inodes {inodes}"));
            Finding {
                code: FindingCode::PortShared,
                what,
                cause: None,
                fix: None,
                evidence: vec![evidence],
            }
        })
    };
    groups.into_iter().filter_map(said).collect()
}

/// Listeners on all addresses that leave IPv4 alone, where nothing else takes it.
fn ipv6_only(facts: &Facts<'_>, paths: &[Path]) -> Vec<(Bound, Finding)> {
    let first = |path: &Path| {
        let hop = path.hops.first()?;
        Some((hop.netns.as_ref()?.id, hop.proto, hop.endpoint.port?))
    };
    let only = |hop: &Hop| {
        let socket = hop.socket.as_ref();
        socket.is_some_and(|s| s.is_wildcard() && s.address.is_ipv6() && s.v6only == Some(true))
    };
    let takes_ipv4 = |of: Bound| {
        let same = paths.iter().filter(|path| first(path) == Some(of));
        same.filter_map(|path| path.hops.first())
            .any(|hop| hop.endpoint.address.is_none_or(|a| a.to_canonical().is_ipv4()))
    };
    let mut findings = Vec::new();
    for path in paths {
        let (Some(of), Some(hop)) = (first(path), path.hops.first()) else { continue };
        if only(hop) && !takes_ipv4(of) {
            let place = if of.0 == facts.host.own_netns {
                String::new()
            } else {
                format!(" in netns {}", facts.netns_ref(of.0))
            };
            let what = format!(
                "[::]:{}{place} is of IPv6 only (IPV6_V6ONLY): nothing listens on its port at IPv4 addresses, 127.0.0.1 among them",
                of.2
            );
            let fix = Advice::from("let it listen on 0.0.0.0 as well, or without IPV6_V6ONLY");
            let finding = Finding {
                code: FindingCode::Ipv6Only,
                what,
                cause: None,
                fix: Some(fix.of(FixKind::Bind)),
                evidence: hop.evidence.clone(),
            };
            findings.push((of, finding));
        }
    }
    findings
}

/// What a listener is bound to: all addresses of a namespace.
type Bound = (NetnsId, Proto, Port);

/// "All addresses" are those of IPv6.
fn only_ipv6(reach: &mut [Reach], (_, proto, port): Bound) {
    for one in reach.iter_mut().filter(|one| one.why.of.is_none_or(|of| of == (port, proto))) {
        if matches!(one.why.cause, Cause::BoundToAll { .. }) {
            one.why.cause = Cause::BoundToAllIpv6;
        }
    }
}

/// Why somebody who gets to one of these paths waits in vain, if it may be so.
fn waiting(facts: &Facts<'_>, paths: &[Path], one: &Reach) -> Option<Cause> {
    let leads_there = |path: &&Path| {
        let Some(hop) = path.hops.first() else { return false };
        let of = hop.endpoint.port.map(|port| (port, hop.proto));
        if one.why.of.is_some_and(|asked| of != Some(asked)) {
            return false;
        }
        let Some(at) = one.address else { return true };
        // A published port is another one than that inside.
        let address = hop.endpoint.address.map(|address| address.to_canonical());
        let there = address.is_none_or(|a| a.is_unspecified() || a == at.ip().to_canonical());
        // Every namespace has a loopback of its own: from here it is that of this one.
        let has = |netns: NetnsId| {
            if at.ip().to_canonical().is_loopback() {
                return netns == facts.host.own_netns;
            }
            let own = facts.addresses_of(netns);
            own.iter().any(|a| a.address == at.ip().to_canonical())
        };
        there && hop.netns.as_ref().is_none_or(|netns| has(netns.id))
    };
    let mut there: Vec<&Path> = paths.iter().filter(leads_there).collect();
    if there.is_empty() {
        there = paths.iter().collect();
    }
    let impaired = there.iter().find_map(|path| {
        listeners(facts, path).into_iter().find_map(|(hop, socket, processes)| {
            let ailments = Ailment::of(socket, &processes);
            Some((ailments.into_iter().find(|ailment| ailment.keeps_waiting())?, hop, socket))
        })
    });
    let (ailment, hop, socket) = impaired?;
    let who = hop.detail.clone();
    Some(match ailment {
        Ailment::QueueFull => {
            let queue = socket.queue?;
            Cause::QueueFull { who, waiting: queue.waiting, limit: queue.limit }
        }
        Ailment::Frozen => Cause::OwnerFrozen(who),
        _ => Cause::OwnerStopped(who),
    })
}
