//! What rules ask and the node does not tell.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::value::UnknownInput;
use crate::model::{Bytes, ChainId, Condition, ConditionCode, RulesBackend, SetId};

/// What may hold or not, and is assumed where it can't be told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Predicate {
    /// Whether the client's address is in a network.
    ClientIn { network: IpAddr, prefix: u8 },
    /// Whether what is missing, a client's address most often, is one of these, both
    /// ends included.
    Between { what: UnknownInput, first: IpAddr, last: IpAddr },
    /// Whether it is in a set, to which rules may add (`dynamic`).
    InSet { what: UnknownInput, set: SetId, dynamic: bool },
    /// Whether the client is in a list of `recent`, for less than so many seconds; 0 for ever.
    /// The name is untrusted.
    Recent { list: Box<str>, seconds: u32 },
    /// Whether it is an element of a map.
    Element { what: UnknownInput, key: Bytes, map: SetId },
    /// Whether a part of a rule holds, in words, of the one at a place of its chain. Untrusted
    /// where it quotes.
    Rule { what: Box<str>, handle: u64, at: usize, chain: ChainId },
    /// Whether tables of equal priority are in this order.
    Order { first: ChainId, last: ChainId },
    /// Whether one of so many conditions holds, such as this one.
    OneOf { count: usize, such_as: Option<Assumption> },
}

/// What is assumed, so that the same question gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Assumption {
    pub(super) question: Arc<Predicate>,
    pub(super) holds: bool,
}

impl Assumption {
    pub(super) fn condition(&self) -> Condition {
        Condition { code: self.code(), text: self.to_string() }
    }

    fn code(&self) -> ConditionCode {
        match &*self.question {
            Predicate::ClientIn { .. }
            | Predicate::Between { what: UnknownInput::ClientAddress, .. }
            | Predicate::InSet { what: UnknownInput::ClientAddress, .. }
            | Predicate::Recent { .. }
            | Predicate::Element { what: UnknownInput::ClientAddress, .. } => match self.holds {
                true => ConditionCode::Client,
                false => ConditionCode::OtherClient,
            },
            Predicate::Between { .. }
            | Predicate::InSet { .. }
            | Predicate::Element { .. }
            | Predicate::Rule { .. } => ConditionCode::Rule,
            Predicate::Order { .. } => ConditionCode::Order,
            Predicate::OneOf { .. } => ConditionCode::Several,
        }
    }
}

impl Predicate {
    /// For how many seconds rules remember a client, where that is what is asked: 0 where
    /// it is not told.
    pub(super) fn remembered_for(&self) -> Option<u32> {
        match self {
            Self::Recent { seconds, .. } => Some(*seconds),
            Self::InSet { what: UnknownInput::ClientAddress, dynamic: true, .. } => Some(0),
            _ => None,
        }
    }
}

/// As it goes on after "if".
impl fmt::Display for Assumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is = if self.holds { "is" } else { "is not" };
        match &*self.question {
            Predicate::ClientIn { network, prefix } => {
                let what = words(UnknownInput::ClientAddress);
                match (network, prefix) {
                    (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => {
                        write!(f, "{what} {is} {network}")
                    }
                    _ => write!(f, "{what} {is} in {network}/{prefix}"),
                }
            }
            Predicate::Between { what, first, last } if first == last => {
                write!(f, "{} {is} {first}", words(*what))
            }
            Predicate::Between { what, first, last } => {
                write!(f, "{} {is} one of {first} to {last}", words(*what))
            }
            Predicate::InSet { what, set: SetId { table, name }, .. } => {
                write!(f, "{} {is} in set {name} of {table}", words(*what))
            }
            Predicate::Recent { list, seconds } => {
                write!(
                    f,
                    "{} {is} in the recent list {list:?}",
                    words(UnknownInput::ClientAddress)
                )?;
                if *seconds > 0 { write!(f, " of the last {seconds} s") } else { Ok(()) }
            }
            Predicate::Element { what, key, map: SetId { table, name } } => {
                write!(f, "{} {is} {key:?} in map {name} of {table}", words(*what))
            }
            Predicate::Rule { what, handle, at, chain: ChainId { table, name } } => {
                let not = if self.holds { "" } else { "not: " };
                write!(f, "{not}{what} (rule {} of {table} chain {name}", at + 1)?;
                // Legacy tables have no handles.
                let same = u64::try_from(*at).is_ok_and(|at| at + 1 == *handle);
                match table.backend {
                    RulesBackend::Nft if !same => write!(f, ", handle {handle})"),
                    _ => f.write_str(")"),
                }
            }
            Predicate::Order { first, last } => {
                let chain = |c: &ChainId| format!("{} chain {}", c.table, c.name);
                let (first, last) = (chain(first), chain(last));
                write!(f, "the order of {first} and {last} {is} that of their tables")
            }
            Predicate::OneOf { count, such_as: Some(one) } => {
                write!(f, "one of {count} conditions holds, such as: {one}")
            }
            Predicate::OneOf { count, such_as: None } => {
                write!(f, "one of {count} sets of conditions holds")
            }
        }
    }
}

/// What is not known, in words.
pub(super) fn words(missing: UnknownInput) -> &'static str {
    match missing {
        UnknownInput::ClientAddress => "the client's address",
        UnknownInput::ClientPort => "the client's port",
        UnknownInput::User => "the user who connects",
        UnknownInput::Detail(what) => what,
        UnknownInput::Random => "a random number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family, NetnsId, RulesBackend, TableId};

    #[test]
    fn names_that_rules_quote_do_not_change_what_is_meant() {
        let netns = NetnsId::Inode(1);
        let name = "x is y".into();
        let table = TableId { netns, backend: RulesBackend::Nft, family: Family::Ip, name };
        let chain = ChainId { table, name: "the client's address is ".into() };
        let question = Predicate::Rule { what: "match a is b".into(), handle: 7, at: 0, chain };
        let no = Assumption { question: Arc::new(question), holds: false };
        assert_eq!(no.condition().code, ConditionCode::Rule);
        assert!(no.to_string().starts_with("not: match a is b (rule 1 of"), "{no}");
    }
}
