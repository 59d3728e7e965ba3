//! What a reading of the socket iterator says, in the model's words. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use probe_common::{AF_INET6, Filter, OtherRecord, SocketRecord, TCP, UDP, state};

use super::ebpf::ProbeReading;
use super::netns::TaskNamespaces;
use super::sockdiag;
use whereis_port_model::{
    NetnsId, Owner, Pid, Port, PortRange, PortSocket, Proto, Socket, SocketFilter, SocketState,
    StartTime,
};

/// The iterator's filter for what is asked. `others`: whether other sockets are
/// to be counted.
pub(super) fn filter(asked: &SocketFilter, others: bool) -> Filter {
    let flag = |proto, flag| if asked.proto.is_none_or(|p| p == proto) { flag } else { 0 };
    let ports = asked.ports.unwrap_or(PortRange { first: Port(1), last: Port(u16::MAX) });
    Filter {
        first: ports.first.0.max(1),
        last: ports.last.0,
        flags: flag(Proto::Tcp, Filter::WANT_TCP)
            | flag(Proto::Udp, Filter::WANT_UDP)
            | if others { Filter::WANT_OTHERS } else { 0 },
        ..Filter::ALL
    }
}

/// The same for sockets in every state.
pub(super) fn filter_of_ports(asked: &SocketFilter) -> Filter {
    Filter { states: u16::MAX, ..filter(asked, false) }
}

/// Brings the records of one socket together, which the functions below rely on.
/// A process's sockets mostly come in that order already.
pub(super) fn sort(reading: &mut ProbeReading) {
    reading.sockets.sort_by_key(|record| record.inode);
    reading.others.sort_by_key(|record| record.inode);
}

/// The sockets of a sorted reading, each once, by namespace. A TCP socket in
/// state CLOSE is bound at most.
pub(super) fn sockets(reading: &ProbeReading) -> HashMap<u32, Vec<Socket>> {
    let mut by_netns: HashMap<u32, Vec<Socket>> = HashMap::new();
    for of_one in reading.sockets.chunk_by(|a, b| a.inode == b.inode) {
        if let Some(socket) = of_one.iter().find_map(socket) {
            by_netns.entry(of_one[0].netns).or_default().push(socket);
        }
    }
    by_netns
}

fn socket(record: &SocketRecord) -> Option<Socket> {
    port_socket(record).map(|found| found.socket).filter(|socket| socket.state.is_listener())
}

/// Every socket of a sorted reading, each once, whatever its state.
pub(super) fn port_sockets(reading: &ProbeReading) -> Vec<PortSocket> {
    let each = reading.sockets.chunk_by(|a, b| a.inode == b.inode);
    each.filter_map(|of_one| of_one.iter().find_map(port_socket)).collect()
}

fn port_socket(record: &SocketRecord) -> Option<PortSocket> {
    let proto = match record.protocol {
        TCP => Proto::Tcp,
        UDP => Proto::Udp,
        _ => return None,
    };
    let state = sockdiag::state(proto, record.state)?;
    let peer = SocketAddr::new(address(record.family, record.remote), record.remote_port);
    let socket = bound(record, proto, state);
    Some(PortSocket { socket, peer: (peer.port() != 0).then_some(peer), expires_ms: None })
}

fn bound(record: &SocketRecord, proto: Proto, state: SocketState) -> Socket {
    let v6 = record.family == AF_INET6;
    Socket {
        netns: NetnsId::Inode(record.netns.into()),
        proto,
        state,
        address: address(record.family, record.local),
        port: Port(record.local_port),
        v6only: (v6 && record.v6only < 2).then_some(record.v6only == 1),
        inode: record.inode,
        uid: record.uid,
        ifindex: (record.ifindex != 0).then_some(record.ifindex),
        cgroup_id: (record.cgroup != 0).then_some(record.cgroup),
        queue: None,
    }
}

/// An address of a record.
pub(super) fn address(family: u8, bytes: [u8; 16]) -> IpAddr {
    if family == AF_INET6 {
        Ipv6Addr::from(bytes).into()
    } else {
        Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
    }
}

/// Who holds the sockets of a reading: sorted by inode, then PID, one entry for
/// each process with its lowest descriptor, and one for a thread only if its
/// leader does not hold the socket. `boottime` is what the tool's time namespace
/// adds to the time since boot, in nanoseconds.
pub(super) fn owners(reading: &ProbeReading, boottime: i64) -> Vec<Owner> {
    let mut owners: Vec<Owner> = reading
        .sockets
        .iter()
        // Not in the tool's PID namespace: not its process to name.
        .filter(|record| record.tgid != 0)
        .map(|record| Owner {
            inode: record.inode,
            pid: record.tgid,
            start: start_time(record.start, boottime),
            tid: (record.tid != record.tgid).then_some(record.tid),
            fd: record.fd,
        })
        .collect();
    owners.sort_unstable_by_key(|o| (o.inode, o.pid, o.tid, o.fd));
    // Threads whose leader has ended have one table in common.
    owners.dedup_by(|next, kept| {
        (next.inode, next.pid) == (kept.inode, kept.pid)
            && (kept.tid.is_none() || kept.tid == next.tid || kept.fd == next.fd)
    });
    owners
}

/// A process as a reading of sockets knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SocketHolder {
    pub(super) pid: Pid,
    pub(super) start: StartTime,
    pub(super) comm: String,
    /// In the initial user namespace.
    pub(super) uid: Option<u32>,
    pub(super) netns: Option<NetnsId>,
}

/// The processes that hold sockets of a reading, by PID.
pub(super) fn holders(reading: &ProbeReading, boottime: i64) -> Vec<SocketHolder> {
    let mut records: Vec<&SocketRecord> =
        reading.sockets.iter().filter(|record| record.tgid != 0).collect();
    records.sort_by_key(|record| record.tgid);
    records.dedup_by_key(|record| record.tgid);
    let holder = |record: &SocketRecord| {
        let end = record.comm.iter().position(|byte| *byte == 0).unwrap_or(record.comm.len());
        SocketHolder {
            pid: record.tgid,
            start: start_time(record.start, boottime),
            comm: String::from_utf8_lossy(&record.comm[..end]).into_owned(),
            uid: (record.task_uid != u32::MAX).then_some(record.task_uid),
            netns: (record.task_netns != 0).then(|| NetnsId::Inode(record.task_netns.into())),
        }
    };
    records.into_iter().map(holder).collect()
}

/// Where the processes of a reading are. Those that have ended are nowhere, and
/// those outside the tool's PID namespace have no number here.
pub(super) fn places(reading: &ProbeReading) -> Vec<TaskNamespaces> {
    let alive = reading.tasks.iter().filter(|task| task.tgid != 0 && task.netns != 0);
    alive
        .map(|task| TaskNamespaces {
            pid: task.tgid,
            tid: task.tid,
            netns: task.netns.into(),
            mntns: task.mntns.into(),
        })
        .collect()
}

/// A start time as `/proc/PID/stat` has it: in ticks, of which there are 100 in a
/// second on every architecture (`USER_HZ`).
pub(super) fn start_time(nanoseconds: u64, boottime: i64) -> StartTime {
    StartTime(nanoseconds.saturating_add_signed(boottime) / 10_000_000)
}

/// How many sockets the kernel counts, or a reading has seen, in one namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SocketCounts {
    tcp: [u32; 2],
    udp: [u32; 2],
}

impl SocketCounts {
    /// Whether there are any of a protocol, of IPv6 or of IPv4.
    pub(super) fn any(&self, proto: Proto, v6: bool) -> bool {
        let of = match proto {
            Proto::Tcp => self.tcp,
            Proto::Udp => self.udp,
        };
        of[usize::from(v6)] > 0
    }

    /// How many these are in all.
    pub(super) fn total(&self) -> u32 {
        self.tcp.iter().chain(&self.udp).sum()
    }
}

/// The sockets of a sorted reading as the kernel counts them (`inuse` of
/// `/proc/net/sockstat`): TCP that is not closed, and UDP that has a port.
pub(super) fn counts(reading: &ProbeReading) -> HashMap<u32, SocketCounts> {
    let mut counts: HashMap<u32, SocketCounts> = HashMap::new();
    let mut count = |netns, family, protocol, state, port| {
        let counts = counts.entry(netns).or_default();
        let v6 = usize::from(family == AF_INET6);
        match protocol {
            TCP if state != state::CLOSE => counts.tcp[v6] += 1,
            UDP if port != 0 => counts.udp[v6] += 1,
            _ => {}
        }
    };
    for of_one in reading.sockets.chunk_by(|a, b| a.inode == b.inode) {
        let SocketRecord { netns, family, protocol, state, local_port, .. } = of_one[0];
        count(netns, family, protocol, state, local_port);
    }
    for of_one in reading.others.chunk_by(|a, b| a.inode == b.inode) {
        let OtherRecord { netns, family, protocol, state, local_port, .. } = of_one[0];
        count(netns, family, protocol, state, local_port);
    }
    counts
}

/// Reads `sockstat` and `sockstat6` of a namespace.
pub(super) fn parse_sockstat(sockstat: &str, sockstat6: &str) -> Option<SocketCounts> {
    let inuse = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start().strip_prefix("inuse ")?.split(' ').next()?.parse::<u32>().ok()
    };
    // Without IPv6 there is no second file.
    let six = |name| if sockstat6.is_empty() { Some(0) } else { inuse(sockstat6, name) };
    Some(SocketCounts {
        tcp: [inuse(sockstat, "TCP:")?, six("TCP6:")?],
        udp: [inuse(sockstat, "UDP:")?, six("UDP6:")?],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(inode: u64, netns: u32, tgid: u32, tid: u32, fd: u32) -> SocketRecord {
        SocketRecord {
            kind: probe_common::record::SOCKET,
            size: 128,
            family: 2,
            protocol: TCP,
            state: state::LISTEN,
            v6only: 0,
            inode,
            netns,
            ifindex: 0,
            netns_cookie: 1,
            cgroup: 0,
            local: [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            remote: [0; 16],
            local_port: 80,
            remote_port: 0,
            uid: 0,
            start: 1_239_999_999,
            tgid,
            tid,
            fd,
            sock_type: 1,
            reserved: 0,
            task_netns: netns,
            task_uid: 1000,
            comm: *b"web\0\0\0\0\0\0\0\0\0\0\0\0\0",
        }
    }

    fn reading(sockets: Vec<SocketRecord>) -> ProbeReading {
        let mut reading = ProbeReading { sockets, ..ProbeReading::default() };
        sort(&mut reading);
        reading
    }

    #[test]
    fn a_socket_with_many_descriptors_is_one_socket_with_its_owners() {
        let reading = reading(vec![
            record(7, 1, 20, 20, 9),
            record(7, 1, 20, 20, 4),
            record(7, 1, 10, 11, 3),
            record(7, 1, 20, 22, 5),
            record(8, 2, 0, 0, 3),
        ]);
        let sockets = sockets(&reading);
        assert_eq!((sockets[&1].len(), sockets[&2].len()), (1, 1));
        assert_eq!(sockets[&1][0].address, whereis_port_model::LOOPBACK4);
        let owner = |pid, tid, fd| Owner { inode: 7, pid, start: StartTime(123), tid, fd };
        assert_eq!(owners(&reading, 0), [owner(10, Some(11), 3), owner(20, None, 4)]);
    }

    #[test]
    fn a_reading_knows_the_processes_of_its_sockets() {
        let reading = reading(vec![record(7, 1, 20, 20, 9), record(8, 1, 20, 20, 4)]);
        let holders = holders(&reading, 0);
        assert_eq!(holders.len(), 1, "{holders:?}");
        assert_eq!((holders[0].pid, holders[0].uid), (20, Some(1000)));
        assert_eq!((holders[0].comm.as_str(), holders[0].start), ("web", StartTime(123)));
    }

    #[test]
    fn closed_tcp_and_connected_udp_are_no_listeners() {
        let closed = SocketRecord { state: state::CLOSE, ..record(1, 1, 2, 2, 3) };
        let udp =
            SocketRecord { protocol: UDP, state: state::ESTABLISHED, ..record(2, 1, 2, 2, 4) };
        let reading = reading(vec![closed, udp]);
        assert!(sockets(&reading).is_empty());
        let states: Vec<_> = port_sockets(&reading).iter().map(|s| s.socket.state).collect();
        assert_eq!(states, [SocketState::Bound, SocketState::Established]);
    }

    #[test]
    fn what_the_kernel_counts_is_counted_alike() {
        let bound = SocketRecord { state: state::CLOSE, ..record(1, 1, 2, 2, 3) };
        let v6 = SocketRecord { family: AF_INET6, ..record(2, 1, 2, 2, 4) };
        let again = SocketRecord { tgid: 5, ..v6 };
        let udp = SocketRecord { protocol: UDP, state: state::CLOSE, ..record(3, 1, 2, 2, 5) };
        let kernel = parse_sockstat(
            "sockets: used 9\nTCP: inuse 0 orphan 0 tw 0 alloc 2 mem 0\nUDP: inuse 1 mem 0\nUDPLITE: inuse 0\n",
            "TCP6: inuse 1\nUDP6: inuse 0\n",
        );
        assert_eq!(counts(&reading(vec![bound, v6, again, udp])).get(&1), kernel.as_ref());
        let counts = kernel.unwrap();
        assert!(counts.any(Proto::Tcp, true) && counts.any(Proto::Udp, false));
        assert!(!counts.any(Proto::Tcp, false) && !counts.any(Proto::Udp, true));
        assert_eq!(parse_sockstat("", ""), None);
        let without = "TCP: inuse 3 orphan\nUDP: inuse 1 mem\n";
        assert_eq!(parse_sockstat(without, "").unwrap().tcp, [3, 0]);
    }
}
