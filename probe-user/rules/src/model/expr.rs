//! The expressions of a rule.
//!
//! Source of the numbers and meanings: `linux/netfilter/nf_tables.h`.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use smallvec::SmallVec;

use super::xt::{XtMatch, XtTarget};

/// Bytes of a register, exactly as the kernel has them: addresses and ports of a
/// packet in network byte order; marks, interface indexes, conntrack states, address
/// types and numbers of `numgen` and `hash` in the machine's.
///
/// As many as a register has take no memory of their own: a node may have some hundred
/// thousand rules.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub SmallVec<[u8; 16]>);

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl From<IpAddr> for Bytes {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::from(address.octets().as_slice()),
            IpAddr::V6(address) => Self::from(address.octets().as_slice()),
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let pair = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
        let bytes: Option<SmallVec<_>> = text.as_bytes().chunks(2).map(pair).collect();
        bytes.map(Self).ok_or_else(|| de::Error::custom("not an even number of hex digits"))
    }
}

/// A place in the 64 bytes of registers, counted in words of 4 bytes from 0 to 15.
/// The kernel's 16-byte register `n` (1 to 4) is word `(n - 1) * 4`, its 4-byte
/// register `n` (8 to 23) is word `n - 8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reg(pub u8);

/// What a rule says to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleVerdict {
    /// The base chain is done with the packet; later base chains still see it.
    Accept,
    /// The packet ends here.
    Drop,
    /// On to the next rule.
    Continue,
    /// The rule ends as if it did not match.
    Break,
    /// Back to the caller.
    Return,
    /// Call a chain of the same table.
    Jump(Arc<str>),
    /// Go there for good: its end returns to this chain's caller.
    Goto(Arc<str>),
    /// To a program in user space.
    Queue,
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expr {
    /// Loads something about the packet.
    Meta {
        /// What.
        key: MetaKey,
        /// Where to.
        dreg: Reg,
    },
    /// Writes something about the packet, such as its mark.
    SetMeta {
        /// What.
        key: MetaKey,
        /// From where.
        sreg: Reg,
    },
    /// Loads bytes of the packet.
    Payload {
        /// From where on.
        base: PayloadBase,
        /// Offset in bytes.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// Where to.
        dreg: Reg,
    },
    /// Changes bytes of the packet without NAT.
    SetPayload {
        /// From where on.
        base: PayloadBase,
        /// Offset in bytes.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// From where.
        sreg: Reg,
    },
    /// Compares a register, from its first byte on, with a value.
    Cmp {
        /// Which.
        sreg: Reg,
        /// How.
        op: CmpOp,
        /// With what. Bytes compare as in memcmp.
        value: Bytes,
    },
    /// Compares with a range, both ends included.
    Range {
        /// Which.
        sreg: Reg,
        /// Whether it must lie outside.
        invert: bool,
        /// The lowest.
        from: Box<Bytes>,
        /// The highest.
        to: Box<Bytes>,
    },
    /// Computes on a register.
    Bitwise {
        /// From.
        sreg: Reg,
        /// To.
        dreg: Reg,
        /// How many bytes.
        len: u32,
        /// What.
        op: BitOp,
    },
    /// Changes the byte order of each `size` bytes.
    Byteorder {
        /// From.
        sreg: Reg,
        /// To.
        dreg: Reg,
        /// How many bytes.
        len: u32,
        /// 2, 4 or 8.
        size: u32,
    },
    /// Loads a constant.
    Immediate {
        /// Where to.
        dreg: Reg,
        /// What.
        value: Bytes,
    },
    /// Says what to do.
    Verdict(RuleVerdict),
    /// Must be in a set, or not be.
    Lookup {
        /// The set's name, in the same table.
        set: Arc<str>,
        /// The key.
        sreg: Reg,
        /// Whether it must not be in.
        invert: bool,
    },
    /// Looks up a map: does not hold without an element for the key.
    Map {
        /// The map's name, in the same table.
        set: Arc<str>,
        /// The key.
        sreg: Reg,
        /// Where to put the data; `None` for a verdict map, whose verdict is followed.
        dreg: Option<Reg>,
    },
    /// Asks the routing tables.
    Fib {
        /// Where to.
        dreg: Reg,
        /// What for.
        result: FibResult,
        /// About the source address instead of the destination's.
        saddr: bool,
        /// Only on the interface that it came in by.
        iif: bool,
        /// Only on the interface that it goes out by.
        oif: bool,
        /// With the packet's mark.
        mark: bool,
        /// Whether only the presence is wanted: 1 or 0, one byte.
        present: bool,
    },
    /// Loads something about the connection.
    Ct {
        /// What.
        key: CtKey,
        /// Of the reply direction (`true`), of the original one, or of the packet's.
        reply: Option<bool>,
        /// Where to.
        dreg: Reg,
    },
    /// Writes something about the connection, such as its mark.
    SetCt {
        /// What.
        key: CtKey,
        /// From where.
        sreg: Reg,
    },
    /// Loads a number from `offset` to `offset + modulus - 1`, 4 bytes, host order.
    Numgen {
        /// Where to.
        dreg: Reg,
        /// How many numbers.
        modulus: u32,
        /// The lowest.
        offset: u32,
        /// Whether they are random, else in turn.
        random: bool,
    },
    /// Loads a hash of registers or of the packet, as [`Expr::Numgen`] does.
    Hash {
        /// Where to.
        dreg: Reg,
        /// How many numbers.
        modulus: u32,
        /// The lowest.
        offset: u32,
        /// What is hashed; `None` for a hash of both ends of the connection.
        of: Option<(Reg, u32)>,
    },
    /// Loads something that is not modelled: `socket`, `rt`, `exthdr`.
    Load {
        /// Where to.
        dreg: Reg,
        /// How many bytes at most.
        len: u32,
        /// What, for people.
        what: String,
    },
    /// Sets up NAT. Terminal: accepts.
    Nat {
        /// Which end.
        kind: NatKind,
        /// IPv6.
        ipv6: bool,
        /// Lowest and highest address.
        address: Option<(Reg, Reg)>,
        /// Lowest and highest port, network order.
        port: Option<(Reg, Reg)>,
        /// `NF_NAT_RANGE_*`.
        flags: u32,
    },
    /// DNAT to this machine.
    Redirect {
        /// Lowest and highest port; `None` keeps it.
        port: Option<(Reg, Reg)>,
        /// `NF_NAT_RANGE_*`.
        flags: u32,
    },
    /// SNAT to the address of the interface that it goes out by.
    Masquerade {
        /// `NF_NAT_RANGE_*`.
        flags: u32,
    },
    /// Gives the packet to a socket without changing it.
    Tproxy {
        /// The address, if one is said.
        address: Option<Reg>,
        /// The port, if one is said, network order.
        port: Option<Reg>,
    },
    /// Answers with an error. Terminal.
    Reject(Rejection),
    /// Keeps conntrack, and so NAT, away from the packet.
    Notrack,
    /// A match of iptables.
    Match(Arc<XtMatch>),
    /// A target of iptables. Verdicts are [`Expr::Verdict`].
    Target(Box<XtTarget>),
    /// Does not decide: counter, log, adding to a set. Its name.
    NoEffect(String),
    /// May hold or not: limit, quota, and all that is not understood. What it is,
    /// for people: `limit`, `match hashlimit`.
    Opaque(String),
}

/// What [`Expr::Meta`] loads (`enum nft_meta_keys`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaKey {
    /// The mark, 4 bytes, host order.
    Mark,
    /// Index of the interface that it came in by, 4 bytes, host order.
    Iif,
    /// Index of the interface that it goes out by, 4 bytes, host order.
    Oif,
    /// Name of the interface that it came in by, 16 bytes.
    Iifname,
    /// Name of the interface that it goes out by, 16 bytes.
    Oifname,
    /// Address family, 1 byte: 2 or 10.
    Nfproto,
    /// IP protocol, 1 byte.
    L4proto,
    /// User id of the sending socket, 4 bytes, host order.
    Skuid,
    /// Group id of the sending socket, 4 bytes, host order.
    Skgid,
    /// A random number, 4 bytes, host order.
    Prandom,
    /// The ethertype, 2 bytes, network order.
    Protocol,
    /// To whom the frame is addressed (`PACKET_HOST` 0), 1 byte.
    Pkttype,
    /// Any other, by its number.
    Other(u32),
}

/// The header that an offset of [`Expr::Payload`] counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadBase {
    /// The Ethernet header.
    Link,
    /// The IP header.
    Network,
    /// The TCP, UDP or other header.
    Transport,
    /// Behind that.
    Inner,
}

/// How [`Expr::Cmp`] compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum CmpOp {
    Eq,
    Neq,
    Lt,
    Lte,
    Gt,
    Gte,
}

/// What [`Expr::Bitwise`] computes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BitOp {
    /// `value & mask ^ xor`.
    MaskXor {
        /// The bits kept.
        mask: Box<Bytes>,
        /// The bits changed then.
        xor: Box<Bytes>,
    },
    /// Shift left by that many bits, as a number of 4-byte words.
    Shl(u32),
    /// Shift right.
    Shr(u32),
    /// One that is not modelled: the result is not known.
    Other,
}

/// What [`Expr::Fib`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FibResult {
    /// The interface index, 4 bytes, host order.
    Oif,
    /// The interface name, 16 bytes.
    Oifname,
    /// The type of address (`RTN_*`), 4 bytes, host order.
    AddrType,
}

/// What [`Expr::Ct`] loads (`enum nft_ct_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CtKey {
    /// The state as a bit: invalid 1, established 2, related 4, new 8, untracked
    /// 64; 4 bytes, host order.
    State,
    /// 0 original, 1 reply; 1 byte.
    Direction,
    /// `IPS_*`; 4 bytes, host order.
    Status,
    /// The mark, 4 bytes, host order.
    Mark,
    /// The source address.
    Src,
    /// The destination address.
    Dst,
    /// The protocol, 1 byte.
    Protocol,
    /// The source port, 2 bytes, network order.
    ProtoSrc,
    /// The destination port, 2 bytes, network order.
    ProtoDst,
    /// Any other, by its number.
    Other(u32),
}

impl CtKey {
    /// The zone; 2 bytes, host order (`NFT_CT_ZONE`).
    pub const ZONE: Self = Self::Other(17);
}

/// Which end NAT changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NatKind {
    /// The source.
    Snat,
    /// The destination.
    Dnat,
}

/// How a packet is refused, which decides what the client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// A TCP reset: "connection refused".
    Reset,
    /// ICMP port unreachable: "connection refused".
    Port,
    /// Another ICMP code: "no route to host" or "permission denied".
    Other,
}
