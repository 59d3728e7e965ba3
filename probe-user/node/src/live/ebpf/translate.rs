//! Records of the ring buffer in the model's words. Pure.

use std::net::SocketAddr;

use probe_common::{EventRecord, NatRecord, TCP, UDP, event};
use zerocopy::FromBytes;

use crate::live::joined::{address, start_time};
use whereis_port_model::{
    Actor, CgroupPath, Event, EventKind, NatEvent, NetnsId, Port, Proto, SeenBy,
};

/// What the clocks of records are to those of people and of `/proc`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockOffsets {
    /// What is added to the time since boot to get the time since the epoch.
    pub(super) epoch: i128,
    /// What the tool's time namespace adds to the time since boot.
    pub(super) boottime: i64,
}

impl ClockOffsets {
    pub(super) fn at(&self, time: u64) -> u64 {
        u64::try_from(i128::from(time) + self.epoch).unwrap_or(0)
    }
}

/// One record. `None` for one that is none of this version, and for a protocol
/// that is not asked about.
pub(super) fn record(
    bytes: &[u8],
    clock: ClockOffsets,
    cgroup: &mut dyn FnMut(u64) -> Option<CgroupPath>,
) -> Option<Event> {
    let kind = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    if kind == event::NAT {
        return nat(&NatRecord::read_from_prefix(bytes).ok()?.0, clock);
    }
    let record = EventRecord::read_from_prefix(bytes).ok()?.0;
    let kind = match kind {
        event::LISTEN => EventKind::Listen,
        event::BIND => EventKind::Bind,
        event::UNLISTEN | event::RELEASE => EventKind::Close,
        event::CONNECT => EventKind::Connect,
        event::ACCEPT => EventKind::Accept,
        _ => return None,
    };
    let has_peer = matches!(kind, EventKind::Connect | EventKind::Accept);
    let peer = address(record.family, record.remote).to_canonical();
    Some(Event {
        at: clock.at(record.time),
        kind,
        proto: proto(record.protocol)?,
        netns: (record.netns != 0).then(|| NetnsId::Inode(record.netns.into())),
        address: address(record.family, record.local),
        port: (record.local_port != 0).then_some(Port(record.local_port)),
        peer: has_peer.then(|| SocketAddr::new(peer, record.remote_port)),
        inode: (record.inode != 0).then_some(record.inode),
        actor: (record.in_process != 0).then(|| actor(&record, clock, cgroup)),
        nat: None,
        dropped: None,
        seen_by: SeenBy::Ebpf,
    })
}

fn actor(
    record: &EventRecord,
    clock: ClockOffsets,
    cgroup: &mut dyn FnMut(u64) -> Option<CgroupPath>,
) -> Actor {
    // Where cgroup v1 is used, all are in the root of v2, which tells nothing.
    let path = cgroup(record.cgroup).map(|path| path.0).filter(|path| path != "/");
    Actor {
        pid: (record.tgid != 0).then_some(record.tgid),
        start: (record.start != 0).then(|| start_time(record.start, clock.boottime)),
        uid: record.uid,
        comm: text(&record.comm),
        netns: (record.task_netns != 0).then(|| NetnsId::Inode(record.task_netns.into())),
        cgroup: path.or_else(|| parts(&text(&record.cgroup_parent), &text(&record.cgroup_name))),
    }
}

/// The last parts of a path as one. The name of a hierarchy's root is empty or `/`.
fn parts(parent: &str, name: &str) -> Option<String> {
    let parts = [parent, name].into_iter().filter(|part| !part.is_empty() && *part != "/");
    let path: String = parts.map(|part| format!("/{part}")).collect();
    (!path.is_empty()).then_some(path)
}

fn nat(record: &NatRecord, clock: ClockOffsets) -> Option<Event> {
    let socket = |bytes, port| SocketAddr::new(address(record.family, bytes).to_canonical(), port);
    let [source, destination, reply_source, reply_destination] = record.ports;
    let translation = NatEvent {
        begins: true,
        source: socket(record.source, source),
        destination: socket(record.destination, destination),
        // A reply goes the other way round.
        new_source: socket(record.reply_destination, reply_destination),
        new_destination: socket(record.reply_source, reply_source),
    };
    Some(Event {
        at: clock.at(record.time),
        kind: EventKind::Nat,
        proto: proto(record.protocol)?,
        netns: (record.netns != 0).then(|| NetnsId::Inode(record.netns.into())),
        address: translation.destination.ip(),
        port: Some(Port(destination)),
        peer: Some(translation.source),
        inode: None,
        // The idle task is nobody.
        actor: (record.in_process != 0 && record.tgid != 0).then(|| Actor {
            pid: Some(record.tgid),
            start: None,
            uid: record.uid,
            comm: text(&record.comm),
            netns: None,
            cgroup: None,
        }),
        nat: Some(translation),
        dropped: None,
        seen_by: SeenBy::Ebpf,
    })
}

pub(super) fn proto(protocol: u8) -> Option<Proto> {
    match protocol {
        TCP => Some(Proto::Tcp),
        UDP => Some(Proto::Udp),
        _ => None,
    }
}

/// A text of the kernel: to its first zero.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;
    use whereis_port_model::StartTime;

    const CLOCK: ClockOffsets = ClockOffsets { epoch: 1_000, boottime: 0 };

    fn listen() -> EventRecord {
        let mut record = EventRecord::new_zeroed();
        record.kind = event::LISTEN;
        record.size = size_of::<EventRecord>() as u16;
        (record.family, record.protocol, record.in_process) = (2, TCP, 1);
        (record.time, record.netns, record.inode) = (500, 7, 99);
        record.local[..4].copy_from_slice(&[127, 0, 0, 1]);
        (record.local_port, record.tgid, record.start) = (8080, 12, 1_230_000_000);
        record.comm[..4].copy_from_slice(b"serv");
        record.cgroup_name[..3].copy_from_slice(b"abc");
        record.cgroup_parent[..6].copy_from_slice(b"docker");
        record
    }

    fn read(record: &EventRecord) -> Option<Event> {
        super::record(record.as_bytes(), CLOCK, &mut |_| None)
    }

    #[test]
    fn a_listen_is_told_with_who_did_it() {
        let event = read(&listen()).unwrap();
        assert_eq!((event.at, event.kind, event.proto), (1_500, EventKind::Listen, Proto::Tcp));
        assert_eq!((event.port, event.peer), (Some(Port(8080)), None));
        let actor = event.actor.unwrap();
        assert_eq!((actor.pid, actor.start), (Some(12), Some(StartTime(123))));
        assert_eq!((actor.comm.as_str(), actor.cgroup.as_deref()), ("serv", Some("/docker/abc")));
    }

    #[test]
    fn the_cgroup_of_version_two_is_taken_where_it_tells_something() {
        let bytes = listen();
        let mut cgroup = |_| Some(CgroupPath("/system.slice/a.service".to_owned()));
        let event = super::record(bytes.as_bytes(), CLOCK, &mut cgroup).unwrap();
        assert_eq!(event.actor.unwrap().cgroup.as_deref(), Some("/system.slice/a.service"));
        let mut root = |_| Some(CgroupPath("/".to_owned()));
        let event = super::record(bytes.as_bytes(), CLOCK, &mut root).unwrap();
        assert_eq!(event.actor.unwrap().cgroup.as_deref(), Some("/docker/abc"));
    }

    #[test]
    fn an_accept_has_a_peer_and_nobody_who_did_it() {
        let mut record = listen();
        (record.kind, record.in_process, record.remote_port) = (event::ACCEPT, 0, 4000);
        record.remote[..4].copy_from_slice(&[10, 0, 0, 9]);
        let event = read(&record).unwrap();
        assert_eq!(event.peer, Some("10.0.0.9:4000".parse().unwrap()));
        assert_eq!(event.actor, None);
    }

    #[test]
    fn nat_is_told_in_the_direction_of_the_packet() {
        let mut record = NatRecord::new_zeroed();
        (record.kind, record.family, record.protocol) = (event::NAT, 2, TCP);
        record.source[..4].copy_from_slice(&[192, 0, 2, 9]);
        record.destination[..4].copy_from_slice(&[192, 0, 2, 1]);
        record.reply_source[..4].copy_from_slice(&[172, 17, 0, 2]);
        record.reply_destination[..4].copy_from_slice(&[192, 0, 2, 9]);
        record.ports = [4000, 8080, 80, 4000];
        let event = super::record(record.as_bytes(), CLOCK, &mut |_| None).unwrap();
        let nat = event.nat.unwrap();
        assert_eq!(nat.destination, "192.0.2.1:8080".parse().unwrap());
        assert_eq!(nat.new_destination, "172.17.0.2:80".parse().unwrap());
        assert_eq!(nat.new_source, "192.0.2.9:4000".parse().unwrap());
        assert_eq!((event.port, event.actor), (Some(Port(8080)), None));
    }

    #[test]
    fn what_is_no_record_is_left_out() {
        assert_eq!(super::record(&[], CLOCK, &mut |_| None), None);
        assert_eq!(super::record(&[1, 0, 9], CLOCK, &mut |_| None), None);
        let mut sctp = listen();
        sctp.protocol = 132;
        assert_eq!(read(&sctp), None);
        let mut unknown = listen();
        unknown.kind = 99;
        assert_eq!(read(&unknown), None);
    }
}
