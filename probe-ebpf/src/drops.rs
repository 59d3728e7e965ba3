//! Packets that are thrown away or refused on the way to ports that are watched.
//!
//! Raw tracepoints: `kfree_skb(skb, location, reason)` (the reason since Linux 5.17),
//! `tcp_send_reset(sk, skb, reason)` and `icmp_send(skb, type, code)` (6.11). Nothing is
//! written for each packet: they are counted by cause, and a cause that is new is told.
//! Which ports are meant is a bit map, so that all other packets cost a look at their header.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::RawTracePointContext;
use probe_common::{
    AF_INET, AF_INET6, DropCount, DropKey, DropState, EACH, MISSING, NewDropRecord, SAMPLED, TCP,
    UDP, event, fate, flag,
};

use crate::kernel::{
    Address, addresses, at, bytes, family, global, local_port, narrow, net, number, offset,
    pointer, remote_port,
};
use crate::lifecycle::{EVENTS, count_lost};

/// Whether `kfree_skb` has a reason.
#[unsafe(no_mangle)]
static HAS_REASON: u32 = 0;
/// Whether `tcp_send_reset` has one.
#[unsafe(no_mangle)]
static HAS_RESET_REASON: u32 = 0;
/// Reasons that are no drops, as bits: none of 256 or more is.
#[unsafe(no_mangle)]
static NO_DROPS: [u64; 4] = [0; 4];

/// A bit for each port that is watched.
#[map]
static DROP_PORTS: Array<u64> = Array::with_max_entries(1, 0);
/// The causes. The user side gives these maps their size where drops are wanted.
#[map]
static DROPS: HashMap<DropKey, DropCount> = HashMap::with_max_entries(1, 0);
/// Where `DROPS` is full: the same without the sender.
#[map]
static DROPS_OF_MANY: HashMap<DropKey, DropCount> = HashMap::with_max_entries(1, 0);
/// What each CPU remembers.
#[map]
static DROP_STATE: PerCpuArray<DropState> = PerCpuArray::with_max_entries(1, 0);

/// How long one CPU counts before it begins anew: a tenth of a second.
const WINDOW: u64 = 100_000_000;
/// `ETH_P_IP` and `ETH_P_IPV6`.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// What is known of a packet.
#[derive(Clone, Copy)]
struct Packet {
    skb: Address,
    /// Where its TCP or UDP header is.
    transport: Address,
    family: u8,
    protocol: u8,
    source_port: u16,
    port: u16,
}

/// A packet is let go.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub(crate) fn freed(context: RawTracePointContext) -> i32 {
    let reason: u32 = if global(&raw const HAS_REASON) != 0 { context.arg(2) } else { 0 };
    if is_no_drop(reason) {
        return 0;
    }
    let skb: Address = context.arg::<*const core::ffi::c_void>(0);
    let location: u64 = context.arg(1);
    packet(skb, fate::DROPPED, reason, location);
    0
}

/// A reset is sent: for a packet, or without one by a socket that gives up.
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub(crate) fn reset(context: RawTracePointContext) -> i32 {
    let sk: Address = context.arg::<*const core::ffi::c_void>(0);
    let skb: Address = context.arg::<*const core::ffi::c_void>(1);
    let reason: u32 = if global(&raw const HAS_RESET_REASON) != 0 { context.arg(2) } else { 0 };
    if skb.is_null() {
        given_up(sk, reason);
    } else {
        packet(skb, fate::RESET, reason, 0);
    }
    0
}

/// An ICMP error is sent for a packet.
#[raw_tracepoint(tracepoint = "icmp_send")]
pub(crate) fn icmp(context: RawTracePointContext) -> i32 {
    let skb: Address = context.arg::<*const core::ffi::c_void>(0);
    let (kind, code): (u32, u32) = (context.arg(1), context.arg(2));
    packet(skb, fate::ICMP, (kind & 0xff) << 8 | code & 0xff, 0);
    0
}

#[inline(always)]
fn is_no_drop(reason: u32) -> bool {
    if reason >= 256 {
        return false;
    }
    // No index: the verifier does not know what the compiler knows of it.
    let word = match reason >> 6 {
        0 => global(&raw const NO_DROPS[0]),
        1 => global(&raw const NO_DROPS[1]),
        2 => global(&raw const NO_DROPS[2]),
        _ => global(&raw const NO_DROPS[3]),
    };
    word >> (reason & 63) & 1 != 0
}

/// How many packets this one counts for: 0 for one that is passed over.
#[inline(always)]
fn weight(now: u64) -> u64 {
    let Some(state) = DROP_STATE.get_ptr_mut(0) else { return 0 };
    // SAFETY: a slot of this CPU, which nobody else writes now.
    unsafe {
        if now.wrapping_sub((*state).since) > WINDOW {
            (*state).since = now;
            (*state).seen = 0;
        }
        let seen = (*state).seen.wrapping_add(1);
        (*state).seen = seen;
        match seen {
            ..=EACH => 1,
            _ if seen & (SAMPLED - 1) == 0 => u64::from(SAMPLED),
            _ => 0,
        }
    }
}

/// Reads the headers of a packet, and counts it if its port is watched.
#[inline(always)]
fn packet(skb: Address, kind: u8, reason: u32, location: u64) {
    let protocol = u16::from_be(number(skb, offset!(skb_protocol)));
    if protocol != IPV4 && protocol != IPV6 {
        return;
    }
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let weight = weight(now);
    if weight == 0 {
        return;
    }
    let head = pointer(skb, offset!(skb_head));
    let network: u16 = number(skb, offset!(skb_network_header));
    let ip = at(head, u32::from(network));
    let Some(packet) = headers(skb, ip, protocol) else { return };
    // SAFETY: of numbers, zeros are values.
    let mut key: DropKey = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut count: DropCount = unsafe { MaybeUninit::zeroed().assume_init() };
    original(&packet, &mut count);
    if !is_watched(packet.port) && !is_watched(count.original_port) {
        return;
    }
    (key.kind, key.reason) = (kind, reason);
    (key.family, key.protocol) = (packet.family, packet.protocol);
    key.port = packet.port;
    if packet.protocol == TCP {
        key.flags = number::<u8>(packet.transport, 13) & flag::KEPT;
    }
    // SAFETY: both are ours.
    unsafe {
        if packet.family == AF_INET {
            narrow(&raw mut key.source, at(ip, 12));
            narrow(&raw mut key.destination, at(ip, 16));
        } else {
            bytes(&raw mut key.source, at(ip, 8));
            bytes(&raw mut key.destination, at(ip, 24));
        }
    }
    place(&packet, &mut key, &mut count);
    count.source_port = packet.source_port;
    count.location = location;
    if kind == fate::DROPPED && global(&raw const HAS_REASON) == 0 {
        key.location = location;
    }
    add(&mut key, &mut count, now, weight);
}

/// What the IP header says, and the ports behind it. Of IPv6 up to two headers between
/// are passed over; the pieces of a packet behind the first have no ports.
#[inline(always)]
fn headers(skb: Address, ip: Address, protocol: u16) -> Option<Packet> {
    let first: u8 = number(ip, 0);
    let (family, protocol, length) = if protocol == IPV4 {
        // The offset of a piece is in thirteen bits.
        let piece = u16::from_be(number(ip, 6)) & 0x1fff;
        if first >> 4 != 4 || piece != 0 {
            return None;
        }
        (AF_INET, number::<u8>(ip, 9), u32::from(first & 15) << 2)
    } else {
        if first >> 4 != 6 {
            return None;
        }
        let mut next: u8 = number(ip, 6);
        let mut length = 40;
        for _ in 0..2 {
            // Hop-by-hop options, routing, destination options.
            if next == 0 || next == 43 || next == 60 {
                let header = at(ip, length);
                next = number(header, 0);
                length += (u32::from(number::<u8>(header, 1)) + 1) << 3;
            }
        }
        (AF_INET6, next, length)
    };
    if protocol != TCP && protocol != UDP {
        return None;
    }
    let transport = at(ip, length);
    let ports: u32 = number(transport, 0);
    let (source_port, port) = (u16::from_be(ports as u16), u16::from_be((ports >> 16) as u16));
    Some(Packet { skb, transport, family, protocol, source_port, port })
}

/// Whom the packet was sent to before NAT.
#[inline(always)]
fn original(packet: &Packet, count: &mut DropCount) {
    if offset!(ct_original) == MISSING {
        return;
    }
    // The low three bits say in which direction the packet goes: of answers this is another's.
    let word: u64 = number(packet.skb, offset!(skb_nfct));
    let ct = (word & !7) as Address;
    if ct.is_null() || word & 7 >= 3 {
        return;
    }
    let tuple = at(ct, offset!(ct_original));
    let port = u16::from_be(number(tuple, offset!(tuple_dst_port)));
    let to = at(tuple, offset!(tuple_dst));
    // SAFETY: it is ours.
    unsafe {
        if packet.family == AF_INET {
            narrow(&raw mut count.original, to);
        } else {
            bytes(&raw mut count.original, to);
        }
    }
    count.original_port = port;
}

#[inline(always)]
fn is_watched(port: u16) -> bool {
    match DROP_PORTS.get(u32::from(port >> 6)) {
        Some(bits) => *bits >> (port & 63) & 1 != 0,
        None => false,
    }
}

/// Finds the namespace and the device. A packet that a socket has taken, or that has no way
/// yet, has no device any more, or not yet: then its socket or its route tells.
#[inline(always)]
fn place(packet: &Packet, key: &mut DropKey, count: &mut DropCount) {
    let skb = packet.skb;
    let came_by: u32 = number(skb, offset!(skb_iif));
    key.came_in = u8::from(came_by != 0);
    key.ifindex = came_by;
    count.came_by = came_by;
    let device = pointer(skb, offset!(skb_dev));
    let of_device = pointer(device, offset!(dev_net));
    if !of_device.is_null() {
        let index: u32 = number(device, offset!(dev_ifindex));
        key.ifindex = index;
        // SAFETY: it is ours.
        unsafe { bytes(&raw mut count.device, at(device, offset!(dev_name))) };
        key.netns = number(of_device, offset!(net_inum));
        return;
    }
    let sk = pointer(skb, offset!(skb_sk));
    key.netns = number(net(sk), offset!(net_inum));
    if key.netns == 0 {
        // The lowest bit says whether it is counted.
        let route: u64 = number(skb, offset!(skb_refdst));
        let device = pointer((route & !1) as Address, offset!(dst_dev));
        key.netns = number(pointer(device, offset!(dev_net)), offset!(net_inum));
    }
}

/// A socket resets its connection of its own accord.
#[inline(always)]
fn given_up(sk: Address, reason: u32) {
    let Some(family) = family(sk) else { return };
    let port = local_port(sk);
    if !is_watched(port) {
        return;
    }
    // SAFETY: of numbers, zeros are values.
    let mut key: DropKey = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut count: DropCount = unsafe { MaybeUninit::zeroed().assume_init() };
    (key.kind, key.reason, key.family, key.protocol) = (fate::RESET, reason, family, TCP);
    key.port = port;
    key.netns = number(net(sk), offset!(net_inum));
    // SAFETY: both are ours.
    unsafe { addresses(sk, family, &raw mut key.destination, &raw mut key.source) };
    key.came_in = 1;
    count.source_port = remote_port(sk);
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    add(&mut key, &mut count, now, 1);
}

/// Counts a packet by its cause.
#[inline(always)]
fn add(key: &mut DropKey, count: &mut DropCount, now: u64, weight: u64) {
    if more(&DROPS, key, now, weight) {
        return;
    }
    (count.packets, count.first, count.last) = (weight, now, now);
    count.estimated = weight - 1;
    // Only when it is not there: another CPU may have been as quick.
    if insert(&DROPS, key, count) {
        return tell_new();
    }
    if more(&DROPS, key, now, weight) {
        return;
    }
    // There is no room for it: senders are not told apart any more.
    key.source = [0; 16];
    if more(&DROPS_OF_MANY, key, now, weight) {
        return;
    }
    if insert(&DROPS_OF_MANY, key, count) {
        return tell_new();
    }
    if more(&DROPS_OF_MANY, key, now, weight) {
        return;
    }
    if let Some(state) = DROP_STATE.get_ptr_mut(0) {
        // SAFETY: a slot of this CPU, which nobody else writes now.
        unsafe { (*state).uncounted += weight };
    }
}

/// Adds a cause that is not there yet; `false` where it is, or there is no room.
#[inline(always)]
fn insert(map: &HashMap<DropKey, DropCount>, key: &DropKey, count: &DropCount) -> bool {
    map.insert(key, count, NO_EXIST).is_ok()
}

/// `BPF_NOEXIST`.
const NO_EXIST: u64 = 1;

/// Counts it where its cause is known.
#[inline(always)]
fn more(map: &HashMap<DropKey, DropCount>, key: &DropKey, now: u64, weight: u64) -> bool {
    let Some(count) = map.get_ptr_mut(key) else { return false };
    // SAFETY: an entry of the map, which lives until the program has ended; the other
    // CPUs add to it in the same way.
    unsafe {
        plus(&raw mut (*count).packets, weight);
        if weight > 1 {
            plus(&raw mut (*count).estimated, weight - 1);
        }
        (&raw mut (*count).last).write_volatile(now);
    }
    true
}

/// Adds to a number that other CPUs add to.
///
/// # Safety
/// It can be written.
#[inline(always)]
unsafe fn plus(to: *mut u64, what: u64) {
    // `core` has no operations for a target that can't compare and swap. Every kernel knows
    // this instruction.
    #[cfg(target_arch = "bpf")]
    // SAFETY: as said by the caller.
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) to, in(reg) what);
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as said by the caller.
    unsafe {
        *to += what;
    }
}

/// Says that there is a new cause.
#[inline(always)]
fn tell_new() {
    let Some(mut entry) = EVENTS.reserve::<NewDropRecord>(0) else { return count_lost() };
    entry.write(NewDropRecord {
        kind: event::DROP,
        size: size_of::<NewDropRecord>() as u16,
        reserved: 0,
    });
    entry.submit(0);
}
