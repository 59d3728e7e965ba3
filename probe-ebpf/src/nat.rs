//! Connections that NAT changes, when they are confirmed.
//!
//! A kprobe on `__nf_conntrack_confirm(skb)`, which each connection passes once,
//! at the end of its first packet's way: by then all NAT of it is set up, in one
//! piece, where `nf_nat_setup_info` sees one half at a time.

use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_boot_ns,
};
use aya_ebpf::macros::kprobe;
use aya_ebpf::programs::ProbeContext;
use probe_common::{AF_INET, NatRecord, config, event};

use crate::kernel::{Address, at, bytes, global, narrow, number, offset, pointer};
use crate::lifecycle::{CONFIG, EVENTS, count_lost, id_of_tool};

/// `IPS_SRC_NAT | IPS_DST_NAT`, include/uapi/linux/netfilter/nf_conntrack_common.h.
const NAT: u64 = 0x30;

/// `__nf_conntrack_confirm(struct sk_buff *skb)`.
#[kprobe]
pub(crate) fn confirmed(context: ProbeContext) -> u32 {
    if global(&raw const CONFIG) & config::NAT != 0
        && let Some(skb) = context.arg::<*const core::ffi::c_void>(0)
    {
        tell(skb);
    }
    0
}

#[inline(always)]
fn tell(skb: Address) {
    // The low three bits say in which direction the packet goes.
    let word: u64 = number(skb, offset!(skb_nfct));
    let ct = (word & !7) as Address;
    if number::<u64>(ct, offset!(ct_status)) & NAT == 0 {
        return;
    }
    let (original, reply) = (at(ct, offset!(ct_original)), at(ct, offset!(ct_reply)));
    let family = number::<u16>(original, offset!(tuple_family)) as u8;
    // A packet from here still has its socket; one that came in, or from another
    // namespace, has none, and then whoever runs has nothing to do with it.
    // The user must be the socket's too: a retransmission runs in anybody's time.
    let sk = pointer(skb, offset!(skb_sk));
    // SAFETY: takes nothing.
    let user = unsafe { bpf_get_current_uid_gid() } as u32;
    let in_process = !sk.is_null() && number::<u32>(sk, offset!(sock_uid)) == user;
    let Some(mut entry) = EVENTS.reserve::<NatRecord>(0) else { return count_lost() };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is ours until it is submitted, and every field is written.
    unsafe {
        (&raw mut (*record).kind).write(event::NAT);
        (&raw mut (*record).size).write(size_of::<NatRecord>() as u16);
        (&raw mut (*record).family).write(family);
        (&raw mut (*record).protocol).write(number(original, offset!(tuple_proto)));
        (&raw mut (*record).in_process).write(u8::from(in_process));
        (&raw mut (*record).reserved).write(0);
        (&raw mut (*record).time).write(bpf_ktime_get_boot_ns());
        let net = pointer(ct, offset!(ct_net));
        (&raw mut (*record).netns).write(number(net, offset!(net_inum)));
        let outer = (bpf_get_current_pid_tgid() >> 32) as u32;
        (&raw mut (*record).tgid).write(if in_process { id_of_tool(outer) } else { 0 });
        address(&raw mut (*record).source, at(original, offset!(tuple_src)), family);
        address(&raw mut (*record).destination, at(original, offset!(tuple_dst)), family);
        address(&raw mut (*record).reply_source, at(reply, offset!(tuple_src)), family);
        address(&raw mut (*record).reply_destination, at(reply, offset!(tuple_dst)), family);
        (&raw mut (*record).ports).write([
            u16::from_be(number(original, offset!(tuple_src_port))),
            u16::from_be(number(original, offset!(tuple_dst_port))),
            u16::from_be(number(reply, offset!(tuple_src_port))),
            u16::from_be(number(reply, offset!(tuple_dst_port))),
        ]);
        (&raw mut (*record).uid).write(if in_process { user } else { 0 });
        (&raw mut (*record).reserved2).write(0);
        (&raw mut (*record).comm).write([0; 16]);
        if in_process {
            bpf_get_current_comm((&raw mut (*record).comm).cast(), 16);
        }
    }
    entry.submit(0);
}

/// # Safety
/// `into` can be written.
#[inline(always)]
unsafe fn address(into: *mut [u8; 16], from: Address, family: u8) {
    // SAFETY: as said by the caller.
    unsafe { if family == AF_INET { narrow(into, from) } else { bytes(into, from) } }
}
