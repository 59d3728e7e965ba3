//! What rules ask and the node does not tell.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::value::Missing;
use crate::model::{Backend, Bytes, ChainId, Condition, ConditionCode, SetId};

/// A question with the answer yes or no.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// Whether the client's address is in a network.
    ClientIn { network: IpAddr, prefix: u8 },
    /// Whether what is missing, a client's address most often, is one of these, both
    /// ends included.
    Between { what: Missing, first: IpAddr, last: IpAddr },
    /// Whether it is in a set, to which rules may add (`dynamic`).
    InSet { what: Missing, set: SetId, dynamic: bool },
    /// Whether the client is in a list of `recent`, for less than so many seconds; 0 for ever.
    /// The name is untrusted.
    Recent { list: Box<str>, seconds: u32 },
    /// Whether it is an element of a map.
    Element { what: Missing, key: Bytes, map: SetId },
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
    pub(super) question: Arc<Question>,
    pub(super) holds: bool,
}

impl Assumption {
    pub(super) fn condition(&self) -> Condition {
        Condition { code: self.code(), text: self.to_string() }
    }

    fn code(&self) -> ConditionCode {
        match &*self.question {
            Question::ClientIn { .. }
            | Question::Between { what: Missing::ClientAddress, .. }
            | Question::InSet { what: Missing::ClientAddress, .. }
            | Question::Recent { .. }
            | Question::Element { what: Missing::ClientAddress, .. } => match self.holds {
                true => ConditionCode::Client,
                false => ConditionCode::OtherClient,
            },
            Question::Between { .. }
            | Question::InSet { .. }
            | Question::Element { .. }
            | Question::Rule { .. } => ConditionCode::Rule,
            Question::Order { .. } => ConditionCode::Order,
            Question::OneOf { .. } => ConditionCode::Several,
        }
    }
}

impl Question {
    /// For how many seconds rules remember a client, where that is what is asked: 0 where
    /// it is not told.
    pub(super) fn remembered_for(&self) -> Option<u32> {
        match self {
            Self::Recent { seconds, .. } => Some(*seconds),
            Self::InSet { what: Missing::ClientAddress, dynamic: true, .. } => Some(0),
            _ => None,
        }
    }
}

/// As it goes on after "if".
impl fmt::Display for Assumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is = if self.holds { "is" } else { "is not" };
        match &*self.question {
            Question::ClientIn { network, prefix } => {
                let what = words(Missing::ClientAddress);
                match (network, prefix) {
                    (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => {
                        write!(f, "{what} {is} {network}")
                    }
                    _ => write!(f, "{what} {is} in {network}/{prefix}"),
                }
            }
            Question::Between { what, first, last } if first == last => {
                write!(f, "{} {is} {first}", words(*what))
            }
            Question::Between { what, first, last } => {
                write!(f, "{} {is} one of {first} to {last}", words(*what))
            }
            Question::InSet { what, set: SetId { table, name }, .. } => {
                write!(f, "{} {is} in set {name} of {table}", words(*what))
            }
            Question::Recent { list, seconds } => {
                write!(f, "{} {is} in the recent list {list:?}", words(Missing::ClientAddress))?;
                if *seconds > 0 { write!(f, " of the last {seconds} s") } else { Ok(()) }
            }
            Question::Element { what, key, map: SetId { table, name } } => {
                write!(f, "{} {is} {key:?} in map {name} of {table}", words(*what))
            }
            Question::Rule { what, handle, at, chain: ChainId { table, name } } => {
                let not = if self.holds { "" } else { "not: " };
                write!(f, "{not}{what} (rule {} of {table} chain {name}", at + 1)?;
                // Legacy tables have no handles.
                let same = u64::try_from(*at).is_ok_and(|at| at + 1 == *handle);
                match table.backend {
                    Backend::Nft if !same => write!(f, ", handle {handle})"),
                    _ => f.write_str(")"),
                }
            }
            Question::Order { first, last } => {
                let chain = |c: &ChainId| format!("{} chain {}", c.table, c.name);
                let (first, last) = (chain(first), chain(last));
                write!(f, "the order of {first} and {last} {is} that of their tables")
            }
            Question::OneOf { count, such_as: Some(one) } => {
                write!(f, "one of {count} conditions holds, such as: {one}")
            }
            Question::OneOf { count, such_as: None } => {
                write!(f, "one of {count} sets of conditions holds")
            }
        }
    }
}

/// What is not known, in words.
pub(super) fn words(missing: Missing) -> &'static str {
    match missing {
        Missing::ClientAddress => "the client's address",
        Missing::ClientPort => "the client's port",
        Missing::User => "the user who connects",
        Missing::Detail(what) => what,
        Missing::Random => "a random number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Backend, Family, NetnsId, TableId};

    #[test]
    fn names_that_rules_quote_do_not_change_what_is_meant() {
        let netns = NetnsId::Inode(1);
        let name = "x is y".into();
        let table = TableId { netns, backend: Backend::Nft, family: Family::Ip, name };
        let chain = ChainId { table, name: "the client's address is ".into() };
        let question = Question::Rule { what: "match a is b".into(), handle: 7, at: 0, chain };
        let no = Assumption { question: Arc::new(question), holds: false };
        assert_eq!(no.condition().code, ConditionCode::Rule);
        assert!(no.to_string().starts_with("not: match a is b (rule 1 of"), "{no}");
    }
}
