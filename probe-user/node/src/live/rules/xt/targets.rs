//! The blobs of targets.

use super::Blob;
use whereis_port_model::{MarkOp, NatRange, Rejection, XtTarget};

/// `NF_NAT_RANGE_*` (`linux/netfilter/nf_nat.h`).
const MAP_IPS: u32 = 1;
const PROTO_SPECIFIED: u32 = 2;
const PROTO_OFFSET: u32 = 0x20;

/// `XT_CT_ZONE_*` (`linux/netfilter/xt_CT.h`).
const ZONE_DIRECTION: u16 = 4 | 8;
const ZONE_MARK: u16 = 16;

/// So many routers hardly anything is away.
const FAR: u8 = 32;

/// `None` for what is not modelled, and for a blob that is too short or odd.
pub(super) fn parse(name: &str, revision: u8, blob: Blob<'_>) -> Option<XtTarget> {
    match (name, revision) {
        ("DNAT", 0..=2) => nat(revision, blob).map(XtTarget::Dnat),
        ("SNAT", 0..=2) => nat(revision, blob).map(XtTarget::Snat),
        ("REDIRECT", 0) => own_range(blob).map(XtTarget::Redirect),
        ("MASQUERADE", 0) => own_range(blob).map(XtTarget::Masquerade),
        ("NETMAP", 0) => own_range(blob).map(XtTarget::Netmap),
        ("MARK", 2) => Some(XtTarget::Mark(MarkOp { mark: blob.u32(0)?, mask: blob.u32(4)? })),
        ("CONNMARK", 1 | 2) => connmark(revision, blob),
        ("REJECT", 0) => Some(XtTarget::Reject(match (blob.u32(0)?, blob.ipv6) {
            (7, false) | (6, true) => Rejection::Reset,
            (3, false) | (4, true) => Rejection::Port,
            _ => Rejection::Other,
        })),
        ("TPROXY", 0) => Some(XtTarget::Tproxy {
            mark: MarkOp { mask: blob.u32(0)?, mark: blob.u32(4)? },
            address: Some(blob.v4(8)?).filter(|a| !a.is_unspecified()),
            port: Some(blob.be16(12)?).filter(|port| *port != 0),
        }),
        ("TPROXY", 1) => Some(XtTarget::Tproxy {
            mark: MarkOp { mask: blob.u32(0)?, mark: blob.u32(4)? },
            address: Some(blob.inet(8)?).filter(|a| !a.is_unspecified()),
            port: Some(blob.be16(24)?).filter(|port| *port != 0),
        }),
        ("NOTRACK", _) => Some(XtTarget::Notrack),
        // `--notrack`, and `-j NOTRACK` as it is kept. Else a helper or timeouts: the packet is
        // tracked all the same.
        ("CT", 0..=2) if blob.u16(0)? & 3 != 0 => Some(XtTarget::Notrack),
        // The zone is the mark.
        ("CT", 2) if blob.u16(0)? & ZONE_MARK != 0 => None,
        // That of one direction alone is meant to be another than that of the answers.
        ("CT", 0..=2) if blob.u16(2)? != 0 && blob.u16(0)? & ZONE_DIRECTION == 0 => {
            Some(XtTarget::Zone(blob.u16(2)?))
        }
        ("NFQUEUE", _) => Some(XtTarget::Queue),
        ("CT", 0..=2) => Some(XtTarget::NoEffect(name.to_owned())),
        // `--map-set` with `--map-mark` sets the mark from the member.
        ("SET", 3) if blob.u32(12)? & 0x100 != 0 => None,
        // One that is set low, or lowered, may not get far.
        ("TTL" | "HL", _) => match (blob.u8(0)?, blob.u8(1)?) {
            (0, to) if to < FAR => None,
            (0 | 1, _) => Some(XtTarget::NoEffect(name.to_owned())),
            _ => None,
        },
        (
            "LOG" | "NFLOG" | "ULOG" | "TRACE" | "AUDIT" | "TCPMSS" | "TCPOPTSTRIP" | "CHECKSUM"
            | "CLASSIFY" | "SET" | "DSCP" | "TOS" | "ECN" | "LED" | "IDLETIMER" | "RATEEST"
            | "SECMARK" | "CONNSECMARK" | "TEE",
            _,
        ) => Some(XtTarget::NoEffect(name.to_owned())),
        _ => None,
    }
}

/// DNAT and SNAT: revision 0, which is IPv4's alone, then `struct nf_nat_range` and
/// `nf_nat_range2` for both.
fn nat(revision: u8, blob: Blob<'_>) -> Option<NatRange> {
    match revision {
        0 if blob.ipv6 => None,
        0 => multi_range(blob),
        1 => range(blob, false),
        _ => range(blob, true),
    }
}

/// The targets that have one revision, of another form for each family.
fn own_range(blob: Blob<'_>) -> Option<NatRange> {
    if blob.ipv6 { range(blob, false) } else { multi_range(blob) }
}

fn range(blob: Blob<'_>, with_base: bool) -> Option<NatRange> {
    let flags = blob.u32(0)?;
    let addresses = (blob.inet(4)?, blob.inet(20)?);
    let ports = (blob.be16(36)?, blob.be16(38)?);
    let base = if with_base { Some(blob.be16(40)?) } else { None };
    Some(NatRange {
        addresses: Some(addresses).filter(|_| flags & MAP_IPS != 0),
        ports: Some(ports).filter(|_| flags & PROTO_SPECIFIED != 0),
        base: base.filter(|_| flags & PROTO_OFFSET != 0),
        flags,
    })
}

/// `struct nf_nat_ipv4_multi_range_compat`, of which the kernel takes one range.
fn multi_range(blob: Blob<'_>) -> Option<NatRange> {
    if blob.u32(0)? != 1 {
        return None;
    }
    let flags = blob.u32(4)?;
    let addresses = (blob.v4(8)?, blob.v4(12)?);
    let ports = (blob.be16(16)?, blob.be16(18)?);
    Some(NatRange {
        addresses: Some(addresses).filter(|_| flags & MAP_IPS != 0),
        ports: Some(ports).filter(|_| flags & PROTO_SPECIFIED != 0),
        base: None,
        flags,
    })
}

fn connmark(revision: u8, blob: Blob<'_>) -> Option<XtTarget> {
    let (mark, mark_mask, packet_mask) = (blob.u32(0)?, blob.u32(4)?, blob.u32(8)?);
    let (shift, mode) =
        if revision == 1 { (0, blob.u8(12)?) } else { (blob.u8(13)?, blob.u8(14)?) };
    let whole = mark_mask == u32::MAX && packet_mask == u32::MAX;
    match (mode, shift) {
        (0, 0) => Some(XtTarget::Connmark(MarkOp { mark, mask: mark_mask })),
        // Parts of a mark that are copied are not modelled.
        (1, 0) if whole => Some(XtTarget::ConnmarkCopy { restore: false }),
        (2, 0) if whole => Some(XtTarget::ConnmarkCopy { restore: true }),
        _ => None,
    }
}
