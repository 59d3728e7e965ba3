//! Packets that are dropped or refused: the programs count them by cause, and this reads what
//! they counted, at most some times in a second.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{Array, HashMap as KernelMap, MapData, PerCpuArray};
use aya::programs::{ProgramError, RawTracePoint};
use probe_common::{DropCount, DropKey, DropState, fate, flag};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::events::{map, permitted_with, program};
use super::load::LoadError;
use super::translate::{ClockOffsets, proto, text};
use crate::live::btf::{self, Reasons};
use crate::live::joined::address;
use crate::live::symbols::{self, Symbols};
use whereis_port_model::{
    DropEvent, DropFate, Event, EventKind, NetnsId, Port, PortRange, SeenBy, TcpFlags,
};

/// How many causes the kernel side tells apart, and how many more without their senders.
pub(super) const CAUSES: u32 = 8192;
pub(super) const CAUSES_OF_MANY: u32 = 1024;
/// The words of the bit map of ports.
pub(super) const PORTS: u32 = 1024;

/// How often the counts are read at most, and where nothing new is told.
const SOONEST: Duration = Duration::from_millis(200);
const LATEST: Duration = Duration::from_secs(1);
/// From so many causes on, those are forgotten of which there was nothing for this long.
const MANY: usize = 6000;
const IDLE: u64 = 10_000_000_000;

/// Causes with their counts, as bytes.
type CauseMap = KernelMap<MapData, [u8; size_of::<DropKey>()], [u8; size_of::<DropCount>()]>;

/// The programs' maps, and what was told of them.
pub(super) struct Drops {
    causes: CauseMap,
    of_many: CauseMap,
    state: PerCpuArray<MapData, [u8; size_of::<DropState>()]>,
    // The programs are loaded with it later.
    _ports: Array<MapData, u64>,
    told: HashMap<DropKey, u64>,
    names: KernelNames,
    read: Instant,
    /// Whether there is a new cause since.
    pending: bool,
}

/// What the running kernel calls reasons of drops, and its functions.
#[derive(Debug)]
pub(super) struct KernelNames {
    pub(super) reasons: Reasons,
    /// Where there are no reasons; to be read while there are rights.
    symbols: Symbols,
}

impl KernelNames {
    pub(super) fn read() -> Self {
        let reasons = Reasons::read(Path::new(btf::DIRECTORY));
        let symbols = if reasons.are_given() { Symbols::default() } else { Symbols::read() };
        Self { reasons, symbols }
    }
}

/// Loads and attaches what tells of drops.
pub(super) fn attach(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    one(ebpf, "freed", "kfree_skb")
}

/// The same of resets and ICMP errors: each with what it tells of, and why it can't be had.
pub(super) fn attach_refusals(ebpf: &mut Ebpf) -> Vec<(&'static str, LoadError)> {
    let programs = [
        ("resets that are sent", "reset", "tcp_send_reset"),
        ("ICMP errors that are sent", "icmp", "icmp_send"),
    ];
    let each = programs.into_iter().filter_map(|(what, name, tracepoint)| {
        let refused = one(ebpf, name, tracepoint).err()?;
        Some((what, refused))
    });
    each.collect()
}

fn one(ebpf: &mut Ebpf, name: &str, tracepoint: &str) -> Result<(), LoadError> {
    let refused = |error: ProgramError| {
        let what = format!("the tracepoint {tracepoint}");
        permitted_with("CAP_BPF and CAP_PERFMON", LoadError::from_error(&what, &error))
    };
    let program: &mut RawTracePoint = program(ebpf, name)?;
    program.load().map_err(refused)?;
    program.attach(tracepoint).map_err(refused)?;
    Ok(())
}

impl Drops {
    /// Tells the programs which ports are watched. They must not be attached yet.
    pub(super) fn new(
        ebpf: &mut Ebpf,
        ports: &[PortRange],
        names: KernelNames,
    ) -> Result<Self, LoadError> {
        let mut bits: Array<MapData, u64> = map(ebpf, "DROP_PORTS")?;
        for (index, word) in (0_u32..).zip(words(ports)) {
            bits.set(index, word, 0)
                .map_err(|error| LoadError::from_error("setting the ports", &error))?;
        }
        Ok(Self {
            causes: map(ebpf, "DROPS")?,
            of_many: map(ebpf, "DROPS_OF_MANY")?,
            state: map(ebpf, "DROP_STATE")?,
            _ports: bits,
            told: HashMap::new(),
            names,
            read: Instant::now(),
            pending: false,
        })
    }

    /// There is a new cause.
    pub(super) fn wake(&mut self) {
        self.pending = true;
    }

    /// When the counts are to be read next.
    pub(super) fn due(&self) -> Instant {
        self.read + if self.pending { SOONEST } else { LATEST }
    }

    /// How many packets were not counted by their cause, for there were too many of these.
    pub(super) fn uncounted(&self) -> u64 {
        let uncounted = |bytes: &[u8; _]| {
            let state = DropState::read_from_bytes(bytes);
            state.map_or(0, |state| state.uncounted)
        };
        self.state.get(&0, 0).map_or(0, |cpus| cpus.iter().map(uncounted).sum())
    }

    /// What was counted since the last time.
    pub(super) fn take(&mut self, clock: ClockOffsets) -> Vec<Event> {
        (self.read, self.pending) = (Instant::now(), false);
        let mut counts: Vec<(DropKey, DropCount)> = Vec::new();
        for map in [&self.causes, &self.of_many] {
            // What is changed while it is read comes next time.
            counts.extend(map.iter().filter_map(|read| {
                let (key, count) = read.ok()?;
                let key = DropKey::read_from_bytes(&key).ok()?;
                Some((key, DropCount::read_from_bytes(&count).ok()?))
            }));
        }
        let now = counts.iter().map(|(_, count)| count.last).max().unwrap_or(0);
        let mut events = Vec::new();
        for (key, count) in &counts {
            let told = self.told.entry(*key).or_insert(0);
            // Where the walk began anew, it is seen twice.
            let new = count.packets.saturating_sub(*told);
            if new > 0 {
                *told = count.packets;
                events.extend(event(key, count, new, clock, &self.names));
            }
        }
        if counts.len() > MANY {
            for (key, _) in counts.iter().filter(|(_, count)| count.last + IDLE < now) {
                let Ok(bytes) = key.as_bytes().try_into() else { continue };
                // Of one that is gone already there is nothing to forget.
                let _ = self.causes.remove(&bytes);
                let _ = self.of_many.remove(&bytes);
                self.told.remove(key);
            }
        }
        events
    }
}

/// The words of the bit map: every port where none is named.
fn words(ports: &[PortRange]) -> Vec<u64> {
    let all = [PortRange { first: Port(1), last: Port(u16::MAX) }];
    let ports = if ports.is_empty() { &all[..] } else { ports };
    let mut words = vec![0; PORTS as usize];
    for port in ports.iter().flat_map(|range| range.first.0..=range.last.0) {
        words[usize::from(port / 64)] |= 1 << (port % 64);
    }
    words
}

/// One cause as an event: `new` packets since it was told last.
fn event(
    key: &DropKey,
    count: &DropCount,
    new: u64,
    clock: ClockOffsets,
    names: &KernelNames,
) -> Option<Event> {
    let fate = match key.kind {
        fate::DROPPED => DropFate::Dropped,
        fate::RESET => DropFate::Reset,
        fate::ICMP => DropFate::Icmp,
        _ => return None,
    };
    let to_address = |bytes| address(key.family, bytes).to_canonical();
    let destination = to_address(key.destination);
    let original = SocketAddr::new(to_address(count.original), count.original_port);
    let is_translated =
        count.original_port != 0 && original != SocketAddr::new(destination, key.port);
    let source = Some(to_address(key.source)).filter(|source| !source.is_unspecified());
    let place = names.symbols.at(if key.location != 0 { key.location } else { count.location });
    let reason = match fate {
        DropFate::Dropped if names.reasons.are_given() => Some(names.reasons.of_drop(key.reason)),
        DropFate::Dropped => None,
        DropFate::Reset => names.reasons.of_reset(key.reason),
        DropFate::Icmp | DropFate::QueueFull => Some(icmp(key.reason)),
    };
    if reason.is_none() && place.as_deref().is_some_and(symbols::is_no_drop) {
        return None;
    }
    let event = DropEvent {
        fate,
        reason,
        place,
        device: Some(text(&count.device)).filter(|name| !name.is_empty()),
        ifindex: Some(key.ifindex).filter(|index| *index != 0),
        came_by: Some(count.came_by).filter(|index| *index != 0),
        flags: flags(key),
        source,
        original: is_translated.then_some(original),
        packets: new,
        total: count.packets,
        estimated: count.estimated > 0,
        first: clock.at(count.first),
    };
    let unspecified = || match destination {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    // Of several ports it is that of the first.
    let peer = SocketAddr::new(source.unwrap_or_else(unspecified), count.source_port);
    Some(Event {
        at: clock.at(count.last),
        kind: EventKind::Drop,
        proto: proto(key.protocol)?,
        netns: (key.netns != 0).then(|| NetnsId::Inode(key.netns.into())),
        address: destination,
        port: Some(Port(key.port)),
        peer: source.is_some().then_some(peer),
        inode: None,
        actor: None,
        nat: None,
        dropped: Some(Box::new(event)),
        seen_by: SeenBy::Ebpf,
    })
}

fn flags(key: &DropKey) -> TcpFlags {
    let has = |bit| key.flags & bit != 0;
    TcpFlags { syn: has(flag::SYN), ack: has(flag::ACK), fin: has(flag::FIN), rst: has(flag::RST) }
}

/// What an error of ICMP says: RFC 792 and 1812.
fn icmp(reason: u32) -> String {
    let what = match (reason >> 8, reason & 0xff) {
        (3, 0) => "net unreachable",
        (3, 1) => "host unreachable",
        (3, 2) => "protocol unreachable",
        (3, 3) => "port unreachable",
        (3, 4) => "fragmentation needed",
        (3, 9 | 10 | 13) => "administratively prohibited",
        (11, 0) => "time exceeded in transit",
        (11, 1) => "fragment reassembly time exceeded",
        (12, _) => "parameter problem",
        (kind, code) => return format!("ICMP type {kind} code {code}"),
    };
    format!("ICMP {what}")
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    const CLOCK: ClockOffsets = ClockOffsets { epoch: 1_000, boottime: 0 };

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { first: Port(first), last: Port(last) }
    }

    fn names() -> KernelNames {
        KernelNames { reasons: Reasons::default(), symbols: Symbols::default() }
    }

    #[test]
    fn ports_are_bits() {
        let words = words(&[range(64, 65), range(80, 80), range(65535, 65535)]);
        assert_eq!(words.len(), 1024);
        assert_eq!((words[0], words[1]), (0, 0b1_0000_0000_0000_0011));
        assert_eq!(words[1023], 1 << 63);
        assert_eq!(super::words(&[])[0], u64::MAX - 1, "port 0 is none");
    }

    #[test]
    fn a_cause_is_told_with_what_is_new() {
        let mut key = DropKey::new_zeroed();
        (key.kind, key.family, key.protocol) = (fate::ICMP, 2, 17);
        (key.reason, key.netns, key.ifindex, key.port) = (3 << 8 | 3, 7, 2, 53);
        key.destination[..4].copy_from_slice(&[10, 0, 0, 1]);
        key.source[..4].copy_from_slice(&[10, 0, 0, 2]);
        let mut count = DropCount::new_zeroed();
        (count.packets, count.first, count.last, count.source_port) = (12, 5, 9, 4000);
        count.device[..4].copy_from_slice(b"eth0");
        let event = event(&key, &count, 2, CLOCK, &names()).unwrap();
        assert_eq!((event.at, event.port), (1_009, Some(Port(53))));
        assert_eq!(event.peer, Some("10.0.0.2:4000".parse().unwrap()));
        let drop = event.dropped.unwrap();
        assert_eq!((drop.packets, drop.total, drop.first), (2, 12, 1_005));
        assert_eq!(drop.reason.as_deref(), Some("ICMP port unreachable"));
        assert_eq!(drop.device.as_deref(), Some("eth0"));
        assert_eq!((drop.original, drop.estimated), (None, false));
    }

    #[test]
    fn nat_is_told_where_there_was_any() {
        let mut key = DropKey::new_zeroed();
        (key.kind, key.family, key.protocol, key.port) = (fate::DROPPED, 2, 6, 80);
        key.flags = flag::SYN;
        key.destination[..4].copy_from_slice(&[172, 17, 0, 2]);
        let mut count = DropCount::new_zeroed();
        (count.packets, count.original_port) = (1, 8080);
        count.original[..4].copy_from_slice(&[192, 0, 2, 1]);
        let told = event(&key, &count, 1, CLOCK, &names()).unwrap();
        assert_eq!(told.peer, None, "of many senders");
        let drop = told.dropped.unwrap();
        assert_eq!(drop.original, Some("192.0.2.1:8080".parse().unwrap()));
        assert!(drop.flags.is_syn() && drop.reason.is_none());
        count.original.copy_from_slice(&key.destination);
        count.original_port = 80;
        let told = event(&key, &count, 1, CLOCK, &names()).unwrap();
        assert_eq!(told.dropped.unwrap().original, None);
        key.kind = 9;
        assert_eq!(event(&key, &count, 1, CLOCK, &names()), None);
    }
}
