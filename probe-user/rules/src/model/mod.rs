//! The words of the domain: rules, sets and what they ask of a namespace. Pure data.

mod condition;
mod expr;
mod net;
mod ruleset;
mod xt;

pub use condition::{Condition, ConditionCode};
pub use expr::{
    BitOp, Bytes, CmpOp, CtKey, Expr, FibResult, MetaKey, NatKind, PayloadBase, Reg, Rejection,
    RuleVerdict,
};
pub use net::{
    Address, BridgePort, HardwareAddress, Link, LinkKind, NetnsId, Proto, Route, RouteFound,
    RouteKind, RouteOf, RouteQuery,
};
pub use ruleset::{
    BaseChain, ChainId, ChainKind, Element, Family, Hook, IpSet, IpSetId, IpSetMember, MapsTo,
    Rule, RulesBackend, Ruleset, Set, SetId, Table, TableId, element_of,
};
pub use xt::{MarkOp, NatRange, Side, XtMatch, XtTarget};
