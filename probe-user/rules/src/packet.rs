//! A packet, as far as it is known.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::{NetnsId, Proto};
use crate::wide::Wide;

/// A network interface as rules see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nic {
    /// Its index, unique in its namespace.
    pub index: u32,
    /// Its name. Untrusted: a container names its own.
    pub name: Arc<str>,
}

/// Who sent a packet, as far as rules can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketSender {
    /// This address.
    Address(IpAddr),
    /// Some machine elsewhere: no address of this node, no loopback address. Which one it is
    /// becomes a condition where rules ask for it.
    Elsewhere,
}

/// What conntrack and NAT know of the connection of a packet that answers its first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplyState {
    /// Whether the first packet was tracked in this namespace: else an answer belongs to no
    /// connection that is known there.
    pub known: bool,
    /// Who sent the first packet, as it came in.
    pub client: PacketSender,
    /// Where that was sent to.
    pub asked: (IpAddr, u16),
    /// Whether its destination was translated.
    pub dnat: bool,
    /// Whether its source was.
    pub snat: bool,
}

/// The first packet of a connection, as far as it is known, or the [answer](ReplyState) to it.
///
/// Made by [`Packet::new`]; what is known besides is set then. [`traverse`](crate::traverse)
/// gives it back as it leaves a hook, for the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Packet {
    /// The namespace whose rules it passes.
    pub netns: NetnsId,
    /// The protocol.
    pub proto: Proto,
    /// Who sent it.
    pub source: PacketSender,
    /// The source port, host byte order; `None` for any ephemeral port.
    pub sport: Option<u16>,
    /// Where it goes, as NAT has it so far.
    pub destination: IpAddr,
    /// The port there, host byte order.
    pub dport: u16,
    /// The interface that it came in by. `None` at output.
    pub iif: Option<Nic>,
    /// The interface that it goes out by. `None` before routing.
    pub oif: Option<Nic>,
    /// Its mark.
    pub mark: u32,
    /// The mark of its connection.
    pub ct_mark: u32,
    /// The user id of the sending process; `None` when not known or not local.
    pub uid: Option<u32>,
    /// Its group id, likewise.
    pub gid: Option<u32>,
    /// Whether conntrack, and so NAT, is kept away from it.
    pub untracked: bool,
    /// The zone of conntrack that its connection is in; 0 unless rules say another.
    pub zone: u16,
    /// Where it was sent to before DNAT, once that is decided: DNAT changes a
    /// connection at most once. `Some` with the same values when it is left alone: behind
    /// prerouting and output whoever sends it on sets that, if no chain did. So a packet that
    /// comes in again over loopback is not translated twice.
    pub original: Option<(IpAddr, u16)>,
    /// Whom the receiver will see, once that is decided.
    pub seen_as: Option<SeenAs>,
    /// The socket that TPROXY gave it to: address and port.
    pub tproxy: Option<(IpAddr, u16)>,
    /// Set for what answers a first packet: of a connection that is established, to its client.
    /// Chains of type nat are not for it, and a client that is not known has no address.
    pub answer: Option<ReplyState>,
    /// Set for what follows the answer in the direction of the first packet: TCP's third packet
    /// and all after it. Chains of type nat are not for it.
    pub established: bool,
    /// Set for a message of neighbour discovery: ICMPv6, whatever `proto` says, without ports
    /// and without conntrack.
    pub discovery: Option<Discovery>,
    /// What else it stands for; `None` for this one packet.
    pub(crate) wide: Option<Arc<Wide>>,
}

impl Packet {
    /// A packet before its first hook: not marked, not translated, at no interface.
    pub fn new(netns: NetnsId, proto: Proto, source: PacketSender, to: SocketAddr) -> Self {
        Self {
            netns,
            proto,
            source,
            sport: None,
            destination: to.ip(),
            dport: to.port(),
            iif: None,
            oif: None,
            mark: 0,
            ct_mark: 0,
            uid: None,
            gid: None,
            untracked: false,
            zone: 0,
            original: None,
            seen_as: None,
            tproxy: None,
            answer: None,
            established: false,
            discovery: None,
            wide: None,
        }
    }
}

/// A message of neighbour discovery (RFC 4861): without an answer, nothing can be sent to an
/// IPv6 address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Discovery {
    /// Who has the address?
    Solicitation,
    /// The answer.
    Advertisement,
}

impl Discovery {
    /// The type of the ICMPv6 message.
    pub fn number(self) -> u8 {
        match self {
            Self::Solicitation => 135,
            Self::Advertisement => 136,
        }
    }
}

/// What SNAT makes of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SeenAs {
    /// It stays.
    Itself,
    /// This address.
    Address(IpAddr),
    /// The address of the interface that it goes out by.
    Masqueraded,
}

impl Packet {
    /// A message of neighbour discovery, at no interface yet.
    pub fn discovery(netns: NetnsId, message: Discovery, source: PacketSender, to: IpAddr) -> Self {
        let mut packet = Self::new(netns, Proto::Tcp, source, SocketAddr::new(to, 0));
        packet.discovery = Some(message);
        packet.untracked = true;
        packet
    }

    /// Where it goes, where that is known: not of an answer to somebody elsewhere.
    pub fn to(&self) -> Option<IpAddr> {
        let anybody = |answer: &ReplyState| answer.client == PacketSender::Elsewhere;
        (!self.answer.as_ref().is_some_and(anybody)).then_some(self.destination)
    }
}
