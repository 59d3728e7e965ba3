//! Chains that most questions of a big node need, read while its chains are listed.
//!
//! The kernel has no way to ask for base chains only: where kube-proxy has made tens of
//! thousands of chains, finding the base chains takes it as long as giving the rules that
//! a packet passes first. Both go on at the same time, in threads of their own.

use std::ops::Range;
use std::thread::{self, JoinHandle};

use super::super::huge;
use super::names::Names;
use super::objects;
use super::wire::Message;
use super::{Conversation, Failed, InOrder, ask_rules, rules_in};
use crate::model::{ChainId, NetnsId, Rule};

/// From so many chains on, reading ahead is worth a thread.
const MANY: usize = 1000;
/// The chains that every packet to a service passes, where kube-proxy writes rules by
/// iptables. Elsewhere there are none of that name, and the kernel says so at once.
const CHAINS: [&str; 2] = ["KUBE-SERVICES", "KUBE-NODEPORTS"];

/// What is being read ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// How many chains were listed.
    listed: usize,
    reading: Vec<(ChainId, JoinHandle<Option<Found>>)>,
}

/// Messages as they came, and the generation that they are of. They are understood by who
/// asks: many small pieces of memory are dear in a thread of its own.
#[derive(Debug)]
struct Found {
    generation: u32,
    bytes: Vec<u8>,
    /// Family and place of each.
    messages: Vec<(u8, Range<usize>)>,
}

/// Room for what is found: so much is asked from the kernel at once, and only what is
/// used of it counts.
const BYTES: usize = 8 << 20;
const MESSAGES: usize = 16 << 10;

impl Ahead {
    /// Takes notice of a chain that is listed, and begins to read when there are many, in
    /// the namespace of the calling thread.
    pub(super) fn listed(&mut self, netns: NetnsId, message: Message<'_>, names: &mut Names) {
        self.listed += 1;
        if self.listed != MANY {
            return;
        }
        let Some(ChainId { table, .. }) = objects::chain_id(netns, message, names) else { return };
        for name in CHAINS {
            let id = ChainId { table: table.clone(), name: name.into() };
            let wanted = id.clone();
            let thread = thread::Builder::new().name("rules".to_owned());
            // Without a thread it is read when it is asked for.
            if let Ok(thread) = thread.spawn(move || read(&wanted)) {
                self.reading.push((id, thread));
            }
        }
    }

    /// The rules of a chain, if they were read ahead and are of that generation.
    pub(super) fn take(
        &mut self,
        id: &ChainId,
        generation: u32,
        names: &mut Names,
    ) -> Option<Vec<Rule>> {
        let at = self.reading.iter().position(|(of, _)| of == id)?;
        let (_, thread) = self.reading.swap_remove(at);
        let found = thread.join().ok()??;
        if found.generation != generation {
            return None;
        }
        let mut rules = Vec::with_capacity(found.messages.len());
        let mut order = InOrder::default();
        for (family, place) in found.messages {
            let body = found.bytes.get(place)?;
            rules_in(id, Message { family, body }, names, &mut order, &mut rules);
        }
        order.is_whole().ok()?;
        // Without rules it is not known whether there is such a chain.
        Some(rules).filter(|rules| !rules.is_empty())
    }
}

/// Reads the rules of a chain of one generation; `None` when that fails, and then they are
/// read again when they are asked for.
fn read(id: &ChainId) -> Option<Found> {
    let mut talk = Conversation::open().ok()?;
    let generation = talk.settled().ok()?;
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    ask_rules(id, &mut talk, |message| {
        if messages.is_empty() {
            bytes.reserve(BYTES);
            huge::advise(&mut bytes);
            messages.reserve(MESSAGES);
        }
        let start = bytes.len();
        bytes.extend(message.body);
        messages.push((message.family, start..bytes.len()));
    })
    .or_else(Failed::or_missing)
    .ok()?;
    let found = Found { generation, bytes, messages };
    talk.is_still(generation).ok()?.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::super::wire::attribute;
    use super::*;
    use crate::model::{Backend, Family, TableId};

    fn id(name: &str) -> ChainId {
        let netns = NetnsId::Inode(1);
        let table =
            TableId { netns, backend: Backend::Nft, family: Family::Ip, name: "nat".into() };
        ChainId { table, name: name.into() }
    }

    /// Found: one rule of the chain, with the handle 7.
    fn found(generation: u32, chain: &str) -> Found {
        let mut bytes = attribute(1, b"nat\0").unwrap();
        bytes.extend(attribute(2, format!("{chain}\0").as_bytes()).unwrap());
        bytes.extend(attribute(3, &7_u64.to_be_bytes()).unwrap());
        let messages = vec![(2, 0..bytes.len())];
        Found { generation, bytes, messages }
    }

    fn taken(found: Option<Found>, name: &str, generation: u32) -> Option<Vec<u64>> {
        let reading = vec![(id("KUBE-SERVICES"), thread::spawn(|| found))];
        let mut ahead = Ahead { listed: MANY, reading };
        let mut names = Names::default();
        let rules = ahead.take(&id(name), generation, &mut names)?;
        assert_eq!(ahead.take(&id(name), generation, &mut names), None);
        Some(rules.into_iter().map(|rule| rule.handle).collect())
    }

    #[test]
    fn what_was_read_ahead_is_used_once() {
        let found = |chain| Some(found(3, chain));
        assert_eq!(taken(found("KUBE-SERVICES"), "KUBE-SERVICES", 3), Some(vec![7]));
        assert_eq!(taken(found("KUBE-SERVICES"), "KUBE-NODEPORTS", 3), None);
    }

    #[test]
    fn what_may_be_otherwise_by_now_is_not_used() {
        assert_eq!(taken(Some(found(2, "KUBE-SERVICES")), "KUBE-SERVICES", 3), None);
        assert_eq!(taken(None, "KUBE-SERVICES", 3), None);
        // Of another chain: it is not known whether there is this one.
        assert_eq!(taken(Some(found(3, "other")), "KUBE-SERVICES", 3), None);
    }
}
