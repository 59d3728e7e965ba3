//! What the packet rules of a Linux network namespace do to a packet, as the kernel would run
//! them, and which ports they take.
//!
//! Rules of nf_tables, of `iptables-nft` and of legacy iptables are one [model](Expr), with
//! names as the kernel and its tools have them. [`traverse`] sends a packet through the chains
//! of a hook; [`ports::taken`] tells which ports rules translate, redirect or refuse; [`text`]
//! and [`dialect`] say in words what rules are, and whose.
//!
//! Pure: rules, sets and routes come from a [`RuleSource`], such as a [`Snapshot`] in memory. What
//! is not known of a packet (the address of a client somewhere else) or of a condition (a rate
//! limit) makes two branches, each with what it assumes; what is random makes one branch for
//! each choice, with its probability. Nothing is assumed true or false silently.
//!
//! What is modelled are first packets of TCP and UDP connections, and the answers to them, at the
//! hooks that IP packets pass. Rules for ARP and frames on a bridge are no part of that.
//!
//! ```
//! use std::net::IpAddr;
//!
//! use whereis_port_rules::*;
//!
//! // table ip nat { chain prerouting {
//! //     type nat hook prerouting priority dstnat; policy accept;
//! //     tcp dport 8080 redirect to :80
//! // } }
//! let netns = NetnsId::Inode(1);
//! let (backend, family) = (RulesBackend::Nft, Family::Ip);
//! let table = TableId { netns, backend, family, name: "nat".into() };
//! let chain = ChainId { table: table.clone(), name: "prerouting".into() };
//! let is = |value: &[u8]| Expr::Cmp { sreg: Reg(0), op: CmpOp::Eq, value: value.into() };
//! let rule = vec![
//!     Expr::Meta { key: MetaKey::L4proto, dreg: Reg(0) },
//!     is(&[6]),
//!     Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, dreg: Reg(0) },
//!     is(&8080_u16.to_be_bytes()),
//!     Expr::Immediate { dreg: Reg(0), value: 80_u16.to_be_bytes().as_slice().into() },
//!     Expr::Redirect { port: Some((Reg(0), Reg(0))), flags: 0 },
//! ];
//! let mut rules = Snapshot::new();
//! rules.add_chain(
//!     chain.clone(),
//!     [Rule { handle: 1, comment: None, exprs: rule, packets: None }],
//! );
//! rules.add_ruleset(Ruleset {
//!     netns,
//!     generation: None,
//!     changed_by: None,
//!     tables: vec![Table { id: table, handle: None, dormant: false, comment: None }],
//!     base_chains: vec![BaseChain {
//!         id: chain,
//!         handle: None,
//!         hook: Hook::Prerouting,
//!         priority: -100,
//!         kind: ChainKind::Nat,
//!         accepts: true,
//!         devices: Vec::new(),
//!     }],
//! });
//! let address = IpAddr::from([192, 0, 2, 10]);
//! rules.add_address(Address { netns, ifindex: 2, address, prefix: 24 });
//! rules.add_link(Link {
//!     netns,
//!     index: 2,
//!     name: "eth0".into(),
//!     up: true,
//!     kind: LinkKind::Device,
//!     master: None,
//!     peer: None,
//!     peer_netns: None,
//!     bridge_port: None,
//!     hardware: None,
//!     noarp: false,
//! });
//! let ruleset = &rules.rulesets()[0];
//!
//! // Which ports do these rules take?
//! let found = ports::taken(&rules, ruleset, &rules.here(netns));
//! assert_eq!(found.ports.len(), 1);
//! assert_eq!((found.ports[0].proto, found.ports[0].port), (Proto::Tcp, 8080));
//!
//! // What happens to this packet?
//! let mut packet = Packet::new(netns, Proto::Tcp, PacketSender::Elsewhere, (address, 8080).into());
//! packet.iif = rules.nic(netns, 2);
//! let outcomes = traverse(&rules, ruleset, Hook::Prerouting, packet);
//! assert_eq!(outcomes.len(), 1);
//! assert_eq!(outcomes[0].fate, Fate::Passes);
//! assert_eq!((outcomes[0].packet.destination, outcomes[0].packet.dport), (address, 80));
//! assert_eq!(text::summary(&outcomes[0].trail), "nat prerouting (tcp dport 8080) redirect to :80");
//! ```

mod branch;
mod chains;
pub mod dialect;
mod fields;
mod hook;
mod lookup;
mod lower;
mod machine;
mod merge;
mod model;
mod nat;
mod outcome;
mod packet;
pub mod ports;
mod question;
pub mod route;
mod snapshot;
mod source;
mod split;
pub mod text;
mod value;
mod wide;
mod xt;

pub use fields::{ANYWHERE4, ANYWHERE6};
pub use lower::Chain;
pub use model::{
    Address, BaseChain, BitOp, BridgePort, Bytes, ChainId, ChainKind, CmpOp, Condition,
    ConditionCode, CtKey, Element, Expr, Family, FibResult, HardwareAddress, Hook, IpSet, IpSetId,
    IpSetMember, Link, LinkKind, MapsTo, MarkOp, MetaKey, NatKind, NatRange, NetnsId, PayloadBase,
    Proto, Reg, Rejection, Route, RouteFound, RouteKind, RouteOf, RouteQuery, Rule, RuleVerdict,
    RulesBackend, Ruleset, Set, SetId, Side, Table, TableId, XtMatch, XtTarget, element_of,
};
pub use outcome::{Fate, Outcome, Step};
pub use packet::{Discovery, Nic, Packet, PacketSender, ReplyState, SeenAs};
pub use snapshot::{Limited, Snapshot};
pub use source::RuleSource;

/// Runs a packet through all chains of a hook in the kernel's order.
///
/// The ways that it may go are told apart by what they assume; the probabilities of those that
/// assume the same add up to 1. The ruleset says which chains hang in the hook, and the source
/// has their rules.
///
/// Chains of type nat are passed only by the first packet of a connection and by
/// those that are tracked; the first of them that translates decides. Where chains
/// of equal priority would give different results and their order is not known,
/// every order is an outcome that says what it depends on.
pub fn traverse(
    source: &dyn RuleSource,
    ruleset: &Ruleset,
    hook: Hook,
    packet: Packet,
) -> Vec<Outcome> {
    hook::Traversal::new(source, hook).run(ruleset, packet)
}

#[cfg(test)]
mod tests;
