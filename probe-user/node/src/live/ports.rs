//! Every socket that has a port, whatever its state, and what of a namespace decides who may
//! have one.

use std::collections::HashSet;
use std::time::Instant;

use super::enter::EnterError;
use super::{LiveNode, files, gaps, sockdiag};
use crate::Topology as _;
use whereis_port_model::{
    Gap, GapKind, GapSource, Impact, NetnsId, Port, PortFacts, PortRange, PortSocket, Read,
    SocketFilter, SocketInode,
};

const SOURCE: &str = "sockets in any state";
/// How many sockets the kernel may have to pass in all: for each namespace that is asked about
/// it walks through those of all of them.
const PASSED: u64 = 1_000_000;
/// Since when sock_diag tells of TCP that is bound, and neither listens nor is connected.
const TELLS_BOUND: (u32, u32) = (6, 8);

/// One read of every socket on some ports of one namespace.
#[derive(Debug)]
pub(super) struct PortsRead {
    netns: NetnsId,
    filter: SocketFilter,
    read: Read<Vec<PortSocket>>,
}

impl LiveNode {
    pub(super) fn port_sockets_of(
        &self,
        netns: &[NetnsId],
        filter: &SocketFilter,
    ) -> Read<Vec<PortSocket>> {
        let covers =
            |read: &&PortsRead, id: NetnsId| read.netns == id && read.filter.covers(filter);
        let is_known = |id: &NetnsId| self.port_sockets.borrow().iter().any(|r| covers(&r, *id));
        let missing: Vec<NetnsId> = netns.iter().copied().filter(|id| !is_known(id)).collect();
        if !missing.is_empty() {
            self.read_port_sockets(missing, filter);
        }
        let known = self.port_sockets.borrow();
        let mut all: Read<Vec<PortSocket>> = Read::default();
        for id in netns {
            if let Some(known) = known.iter().find(|read| covers(read, *id)) {
                let sockets = known.read.clone().take(&mut all.gaps);
                all.value.extend(sockets.into_iter().filter(|s| filter.matches(&s.socket)));
            }
        }
        all
    }

    fn read_port_sockets(&self, mut missing: Vec<NetnsId>, filter: &SocketFilter) {
        let since = Instant::now();
        let far = self.too_far(&missing);
        if let Some(gap) = &far {
            // What is read of none of them is what is missing of each.
            let read = |netns: NetnsId| PortsRead {
                netns,
                filter: *filter,
                read: Read::partial(Vec::new(), gap.clone()),
            };
            let (near, far) = missing.into_iter().partition(|id| self.is_near(*id));
            missing = near;
            let far: Vec<NetnsId> = far;
            self.port_sockets.borrow_mut().extend(far.into_iter().map(read));
        }
        let doors = self.doors(missing);
        let asked = *filter;
        let tables =
            self.pool.in_each(&doors, move |door| sockdiag::dump_of_ports(door.id, &asked));
        let probed = self.probe_ports(filter);
        let tells_bound = tells_bound(&self.host().value.kernel);
        let mut closed = Vec::new();
        let mut reads = Vec::with_capacity(doors.len());
        for (door, table) in doors.iter().zip(tables) {
            let mut tells_bound = tells_bound || probed.is_some();
            let by_proc = |why: String| self.port_sockets_by_proc(door.id, filter, &why);
            let table = match table {
                Ok(Ok(table)) => Ok(table),
                Err(EnterError::Gone) if door.id.inode().is_some() => continue,
                Ok(Err(error)) => by_proc(error.to_string()).map(|all| (all, false)),
                Err(refused) => by_proc(gaps::reason(refused)).map(|all| {
                    tells_bound = probed.is_some();
                    (all, false)
                }),
            };
            let mut read = match table {
                Ok((value, cut)) => {
                    let gap = cut.then(|| too_many(door.id, value.len()));
                    Read { value, gaps: gap.into_iter().collect() }
                }
                Err(why) => {
                    closed.push((door.id, why));
                    Read::default()
                }
            };
            add_probed(&mut read.value, probed.iter().flatten(), door.id);
            if !tells_bound && closed.last().is_none_or(|(id, _)| *id != door.id) {
                read.gaps.push(bound_untold());
            }
            reads.push((door.id, read));
        }
        // Said once, for all of them.
        let told = gaps::each_reason(&closed, |source, why, _| {
            Gap::new(Impact::Bind, GapSource::new(GapKind::Sockets, source), why)
                .remedy("run as root, or with CAP_SYS_ADMIN")
        });
        for (id, read) in &mut reads {
            if closed.iter().any(|(closed, _)| closed == id) {
                read.gaps.extend(told.iter().cloned());
            }
        }
        let total: usize = reads.iter().map(|(_, read)| read.value.len()).sum();
        self.log(SOURCE, since, &told, format!("{total} sockets"));
        if probed.is_none() {
            let sockets = reads.iter().flat_map(|(_, read)| &read.value);
            let theirs = sockets.map(|s| s.socket.inode).filter(|inode| *inode != 0);
            self.unprobed.borrow_mut().extend(theirs);
        }
        let filter = *filter;
        let reads = reads.into_iter().map(|(netns, read)| PortsRead { netns, filter, read });
        self.port_sockets.borrow_mut().extend(reads);
    }

    /// Why all but the own namespace and the node's are left out, if they are.
    fn too_far(&self, netns: &[NetnsId]) -> Option<Gap> {
        let far = netns.iter().filter(|id| !self.is_near(**id)).count() as u64;
        if far <= 1 {
            return None;
        }
        let text = files::text("/proc/thread-self/net/sockstat", files::SMALL).ok()?;
        let sockets = parse_allocated(&text)?;
        if sockets.saturating_mul(far) <= PASSED {
            return None;
        }
        let source = GapSource::new(GapKind::Sockets, format!("{far} network namespaces"));
        let why = format!(
            "for each of them the kernel walks through all {sockets} TCP sockets of the node: not looked at"
        );
        let remedy = "ask of one: whereis-port bind PORT --netns NAME";
        Some(Gap::new(Impact::Bind, source, why).remedy(remedy))
    }

    fn is_near(&self, netns: NetnsId) -> bool {
        let found = &self.found().0;
        Some(netns) == found.own || Some(netns) == found.initial
    }

    /// The sockets with this inode that were read so far, in whatever state.
    pub(super) fn known_port_socket(&self, inode: SocketInode) -> Option<PortSocket> {
        let known = self.port_sockets.borrow();
        let mut sockets = known.iter().flat_map(|read| &read.read.value);
        sockets.find(|s| s.socket.inode == inode).cloned()
    }

    pub(super) fn port_facts_inside(&self, netns: &[NetnsId]) -> Read<Vec<PortFacts>> {
        self.inside("settings of ports", Impact::Bind, &self.port_facts, netns, |door| {
            Read::whole(vec![port_facts(door.id)])
        })
    }
}

/// What the probe saw, and the tables do not have: merely bound sockets on older kernels, and
/// all that belongs to a namespace which can't be entered.
fn add_probed<'a>(
    sockets: &mut Vec<PortSocket>,
    probed: impl Iterator<Item = &'a PortSocket>,
    netns: NetnsId,
) {
    let known: HashSet<SocketInode> = sockets.iter().map(|s| s.socket.inode).collect();
    let new = probed.filter(|s| s.socket.netns == netns && !known.contains(&s.socket.inode));
    sockets.extend(new.cloned());
}

fn too_many(netns: NetnsId, taken: usize) -> Gap {
    let source = GapSource::new(GapKind::Sockets, format!("netns {netns}"));
    Gap::new(
        Impact::Bind,
        source,
        format!("there are more than {taken}, and the rest was not read"),
    )
    .remedy("ask for one port and one protocol")
}

fn bound_untold() -> Gap {
    Gap::new(
        Impact::Bind,
        GapSource::new(GapKind::Sockets, "TCP that is bound and does not listen"),
        "sock_diag of this kernel does not tell of them: Linux 6.8 does",
    )
    .remedy("have root run `whereis-port pin`: the iterator sees them")
}

/// Whether the kernel of this release does. A distribution may have taken it over into an older
/// one: that is not known.
fn tells_bound(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= TELLS_BOUND,
        _ => false,
    }
}

/// The settings of the namespace of the calling thread: `/proc/sys/net` is that of whoever
/// looks.
fn port_facts(netns: NetnsId) -> PortFacts {
    let text = |path: &str| files::text(path, files::TABLE).ok();
    let flag = |path: &str| text(path).map(|text| text.trim() != "0");
    let netstat = text("/proc/thread-self/net/netstat").unwrap_or_default();
    PortFacts {
        netns,
        ephemeral: text("/proc/sys/net/ipv4/ip_local_port_range").and_then(|t| parse_range(&t)),
        reserved: text("/proc/sys/net/ipv4/ip_local_reserved_ports").and_then(|t| parse_list(&t)),
        unprivileged_from: text("/proc/sys/net/ipv4/ip_unprivileged_port_start")
            .and_then(|text| text.trim().parse().ok()),
        nonlocal4: flag("/proc/sys/net/ipv4/ip_nonlocal_bind"),
        nonlocal6: flag("/proc/sys/net/ipv6/ip_nonlocal_bind"),
        listen_overflows: counter(&netstat, "TcpExt:", "ListenOverflows"),
        listen_drops: counter(&netstat, "TcpExt:", "ListenDrops"),
    }
}

/// How many TCP sockets the node has, of `/proc/net/sockstat`: those that have ended are counted
/// of the own namespace only.
fn parse_allocated(text: &str) -> Option<u64> {
    let mut fields = text.lines().find_map(|line| line.strip_prefix("TCP:"))?.split_whitespace();
    let mut count = |name| {
        fields.find(|field| *field == name)?;
        fields.next()?.parse::<u64>().ok()
    };
    let ended = count("tw")?;
    Some(ended + count("alloc")?)
}

/// Two numbers with space between them.
fn parse_range(text: &str) -> Option<PortRange> {
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().ok().map(Port));
    let (first, last) = (numbers.next()??, numbers.next()??);
    (first <= last).then_some(PortRange { first, last })
}

/// Numbers and ranges with commas between them; empty for none.
fn parse_list(text: &str) -> Option<Vec<PortRange>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    let one = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (Port(first.parse().ok()?), Port(last.parse().ok()?));
        (first <= last).then_some(PortRange { first, last })
    };
    text.split(',').map(one).collect()
}

/// A counter of `/proc/net/netstat`: lines of names, each followed by one of values.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_ascii_whitespace().position(|known| known == name)?;
    values.split_ascii_whitespace().nth(at)?.parse().ok()
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(text: &str) {
    parse_range(text);
    parse_list(text);
    counter(text, "TcpExt:", "ListenDrops");
    parse_allocated(text);
    tells_bound(text);
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use whereis_port_model::{Proto, SocketState};

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { first: Port(first), last: Port(last) }
    }

    #[test]
    fn settings_are_parsed_and_damage_is_not_known() {
        assert_eq!(parse_range("32768\t60999\n"), Some(range(32768, 60999)));
        assert_eq!((parse_range("5"), parse_range("9 5"), parse_range("a b")), (None, None, None));
        assert_eq!(parse_list("\n"), Some(vec![]));
        assert_eq!(parse_list("80,8000-8010\n"), Some(vec![range(80, 80), range(8000, 8010)]));
        assert_eq!((parse_list("80,"), parse_list("9-8"), parse_list("70000")), (None, None, None));
    }

    #[test]
    fn a_counter_is_the_value_below_its_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 333\nIpExt: A\nIpExt: 9\n";
        assert_eq!(counter(text, "TcpExt:", "ListenOverflows"), Some(22));
        assert_eq!(counter(text, "IpExt:", "A"), Some(9));
        assert_eq!(counter(text, "TcpExt:", "Nothing"), None);
        assert_eq!(counter("TcpExt: ListenDrops\n", "TcpExt:", "ListenDrops"), None);
    }

    #[test]
    fn the_sockets_of_the_node_are_counted() {
        let text = "sockets: used 9\nTCP: inuse 1 orphan 0 tw 3 alloc 40 mem 0\nUDP: inuse 1\n";
        assert_eq!(parse_allocated(text), Some(43));
        assert_eq!(parse_allocated("TCP: inuse 1\n"), None);
    }

    #[test]
    fn a_release_tells_whether_bound_sockets_are_told() {
        for (release, tells) in [
            ("6.8.0-31-generic", true),
            ("6.18.44", true),
            ("7.0-rc1", true),
            ("6.7.12-amd64", false),
            ("5.10.0", false),
            ("", false),
            ("next", false),
        ] {
            assert_eq!(tells_bound(release), tells, "{release}");
        }
    }

    #[test]
    fn the_own_settings_are_read() {
        let node = LiveNode::new().unwrap();
        let netns = node.found().0.own.unwrap();
        let facts = node.port_facts_inside(&[netns]).value.remove(0);
        assert!(facts.ephemeral.is_some() && facts.reserved.is_some(), "{facts:?}");
        assert!(facts.listen_drops.is_some() && facts.nonlocal4.is_some(), "{facts:?}");
    }

    #[test]
    fn a_socket_is_told_whatever_its_state() {
        let node = LiveNode::new().unwrap();
        let netns = node.found().0.own.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let client = TcpStream::connect(place).unwrap();
        let (_served, _) = listener.accept().unwrap();
        drop(listener);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.connect("127.0.0.1:9").unwrap();
        let states = |proto, port| -> Vec<_> {
            let filter = SocketFilter { proto: Some(proto), ports: Some(range(port, port)) };
            let found = node.port_sockets_of(&[netns], &filter).value;
            found.iter().map(|s| (s.socket.state, s.peer.map(|peer| peer.port()))).collect()
        };
        let own = client.local_addr().unwrap().port();
        let established = SocketState::Established;
        // What a closed listener accepted has its port, and the client its own.
        assert_eq!(states(Proto::Tcp, place.port()), [(established, Some(own))]);
        assert_eq!(states(Proto::Tcp, own), [(established, Some(place.port()))]);
        let port = udp.local_addr().unwrap().port();
        assert_eq!(states(Proto::Udp, port), [(established, Some(9))]);
    }
}
