//! Packets and rules, to be written shortly.

use super::*;

// ---- packets ----------------------------------------------------------------------

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn eth0() -> Nic {
    Nic { index: 2, name: "eth0".into() }
}

/// To pods and containers.
pub(super) fn bridge() -> Nic {
    Nic { index: 3, name: "docker0".into() }
}

/// A TCP packet from a known client to port 80 of this node.
pub(super) fn packet() -> Packet {
    let sender = PacketSender::Address(ip(CLIENT));
    Packet { iif: Some(eth0()), ..Packet::new(NETNS, Proto::Tcp, sender, (ip(HOST), 80).into()) }
}

/// The same from somebody somewhere.
pub(super) fn from_anybody() -> Packet {
    Packet { source: PacketSender::Elsewhere, ..packet() }
}

/// A packet that a process of this node sends.
pub(super) fn local(to: &str) -> Packet {
    let to: SocketAddr = to.parse().unwrap();
    let source = PacketSender::Address(if to.ip().is_loopback() { to.ip() } else { ip(HOST) });
    let oif = if to.ip().is_loopback() { Nic { index: 1, name: "lo".into() } } else { eth0() };
    Packet { source, destination: to.ip(), dport: to.port(), iif: None, oif: Some(oif), ..packet() }
}

// ---- rules ------------------------------------------------------------------------

/// A rule of parts in order.
pub(super) fn rule<const N: usize>(parts: [Vec<Expr>; N]) -> Vec<Expr> {
    parts.concat()
}

pub(super) fn verdict(verdict: RuleVerdict) -> Vec<Expr> {
    vec![Expr::Verdict(verdict)]
}

pub(super) fn accept() -> Vec<Expr> {
    verdict(RuleVerdict::Accept)
}

pub(super) fn drop_it() -> Vec<Expr> {
    verdict(RuleVerdict::Drop)
}

pub(super) fn back() -> Vec<Expr> {
    verdict(RuleVerdict::Return)
}

pub(super) fn jump(chain: &str) -> Vec<Expr> {
    verdict(RuleVerdict::Jump(chain.into()))
}

pub(super) fn goto(chain: &str) -> Vec<Expr> {
    verdict(RuleVerdict::Goto(chain.into()))
}

pub(super) fn reject() -> Vec<Expr> {
    vec![Expr::Reject(Rejection::Port)]
}

/// Something that is not modelled.
pub(super) fn limit() -> Vec<Expr> {
    vec![Expr::Opaque("limit".into())]
}

pub(super) fn cmp(op: CmpOp, value: &[u8]) -> Expr {
    Expr::Cmp { sreg: Reg(0), op, value: Bytes::from(value.to_vec()) }
}

pub(super) fn immediate(reg: u8, value: &[u8]) -> Expr {
    Expr::Immediate { dreg: Reg(reg), value: Bytes::from(value.to_vec()) }
}

pub(super) fn meta(key: MetaKey) -> Expr {
    Expr::Meta { key, dreg: Reg(0) }
}

pub(super) fn payload(base: PayloadBase, offset: u32, len: u32) -> Expr {
    Expr::Payload { base, offset, len, dreg: Reg(0) }
}

pub(super) fn tcp_dport(port: u16) -> Vec<Expr> {
    vec![
        meta(MetaKey::L4proto),
        cmp(CmpOp::Eq, &[6]),
        payload(PayloadBase::Transport, 2, 2),
        cmp(CmpOp::Eq, &port.to_be_bytes()),
    ]
}

/// `ip saddr` in a network whose length is of whole bytes, as nft writes it.
pub(super) fn saddr_in(network: &[u8], op: CmpOp) -> Vec<Expr> {
    vec![payload(PayloadBase::Network, 12, u32::try_from(network.len()).unwrap()), cmp(op, network)]
}

/// A register and a mask.
pub(super) fn masked(len: u32, mask: &[u8]) -> Expr {
    let op = BitOp::MaskXor {
        mask: Bytes::from(mask.to_vec()).into(),
        xor: Bytes::from(vec![0; mask.len()]).into(),
    };
    Expr::Bitwise { sreg: Reg(0), dreg: Reg(0), len, op }
}

/// `ct state`, one or more of bits.
pub(super) fn ct_state(bits: u32) -> Vec<Expr> {
    vec![
        Expr::Ct { key: CtKey::State, reply: None, dreg: Reg(0) },
        masked(4, &bits.to_ne_bytes()),
        cmp(CmpOp::Neq, &[0; 4]),
    ]
}

/// `meta mark set`.
pub(super) fn mark(mark: u32) -> Vec<Expr> {
    vec![immediate(0, &mark.to_ne_bytes()), Expr::SetMeta { key: MetaKey::Mark, sreg: Reg(0) }]
}

/// `meta mark`.
pub(super) fn marked(mark: u32) -> Vec<Expr> {
    vec![meta(MetaKey::Mark), cmp(CmpOp::Eq, &mark.to_ne_bytes())]
}

pub(super) fn element(key: &[u8]) -> Element {
    Element {
        key: Bytes::from(key.to_vec()),
        key_end: None,
        catch_all: false,
        verdict: None,
        data: None,
        comment: None,
    }
}

pub(super) fn maps(key: &[u8], data: &[u8]) -> Element {
    Element { data: Some(Bytes::from(data.to_vec())), ..element(key) }
}

pub(super) fn leads(key: &[u8], verdict: RuleVerdict) -> Element {
    Element { verdict: Some(verdict), ..element(key) }
}

/// What `PREROUTING` and the like do in a legacy or iptables-nft table.
pub(super) fn target(target: XtTarget) -> Vec<Expr> {
    vec![Expr::Target(target.into())]
}

/// A range of one address and port, as `--to-destination` sets it.
pub(super) fn to(to: &str) -> NatRange {
    let to: SocketAddr = to.parse().unwrap();
    let addresses = Some((to.ip(), to.ip()));
    NatRange { addresses, ports: Some((to.port(), to.port())), base: None, flags: 3 }
}

pub(super) fn dnat(address: &str) -> Vec<Expr> {
    target(XtTarget::Dnat(to(address)))
}

pub(super) fn random(of_2_31: u32) -> Vec<Expr> {
    vec![Expr::Match(XtMatch::Random { probability: of_2_31, invert: false }.into())]
}

pub(super) fn numgen(modulus: u32, offset: u32) -> Expr {
    Expr::Numgen { dreg: Reg(0), modulus, offset, random: true }
}

/// `-i`, `-o`.
pub(super) fn interface(key: MetaKey, op: CmpOp, name: &str) -> Vec<Expr> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    vec![meta(key), cmp(op, &bytes)]
}

/// `-d`, a network whose length is of whole bytes.
pub(super) fn daddr_in(network: &[u8], op: CmpOp) -> Vec<Expr> {
    vec![payload(PayloadBase::Network, 16, u32::try_from(network.len()).unwrap()), cmp(op, network)]
}

/// `-m addrtype`, with one type or none of each side.
pub(super) fn addrtype(source: Option<RouteKind>, destination: Option<RouteKind>) -> Vec<Expr> {
    let bit = |kind: Option<RouteKind>| kind.map_or(0, |kind| 1 << kind.rtn());
    vec![Expr::Match(
        XtMatch::Addrtype {
            source: bit(source),
            destination: bit(destination),
            invert_source: false,
            invert_destination: false,
            limit_in: false,
            limit_out: false,
        }
        .into(),
    )]
}

/// `-m conntrack --ctstate`.
pub(super) fn xt_state(bits: u16, invert: bool) -> Vec<Expr> {
    vec![Expr::Match(XtMatch::conntrack(Some((bits, invert)), false).into())]
}
