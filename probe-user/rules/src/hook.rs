//! The chains of a hook, in the kernel's order.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::branch::Branch;
use super::fields::Tracked;
use super::merge::merge;
use super::question::Predicate;
use super::{Fate, Outcome, Packet, RuleSource, Step};
use crate::model::{
    BaseChain, ChainId, ChainKind, Family, Hook, Rejection, Rule, Ruleset, TableId,
};

/// Conntrack runs here, at prerouting and output.
const CONNTRACK: i32 = -200;
/// Where all chains of type nat run, whatever priority they have among themselves.
const DNAT: i32 = -100;
const SNAT: i32 = 100;

/// Runs a packet through a hook.
pub(super) struct Traversal<'s> {
    pub(super) source: &'s dyn RuleSource,
    pub(super) hook: Hook,
    /// How many rules were run.
    pub(super) rules: Cell<u32>,
    /// How many branches were made.
    pub(super) branches: Cell<usize>,
    /// How many parts packets that stand for several were split into.
    pub(super) parts: Cell<usize>,
    /// How many numbers of versions were given.
    pub(super) versions: Cell<u64>,
    /// Chains that did nothing to a branch of a version: it comes out of them as it went in,
    /// however often it is sent there.
    pub(super) idle: RefCell<HashSet<(u64, ChainId)>>,
}

/// How a chain ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ChainExit {
    Return,
    Accept,
    /// NAT or TPROXY decided.
    Settled,
    Drop,
    Rejected(Rejection),
    Queue,
    NotModelled,
    Unknown,
}

/// What runs at one place of a hook.
enum HookStep<'r> {
    Chain(&'r BaseChain),
    Nat(Vec<&'r BaseChain>),
}

impl<'s> Traversal<'s> {
    pub(super) fn new(source: &'s dyn RuleSource, hook: Hook) -> Self {
        Self {
            source,
            hook,
            rules: Cell::new(0),
            branches: Cell::new(1),
            parts: Cell::new(0),
            versions: Cell::new(0),
            idle: RefCell::default(),
        }
    }

    pub(super) fn run(&self, ruleset: &Ruleset, packet: Packet) -> Vec<Outcome> {
        let mut going = vec![Branch::new(packet)];
        let mut done = Vec::new();
        self.source.spend(ruleset.tables.len() + ruleset.base_chains.len());
        for (priority, item) in items(ruleset, self.hook, &going[0].packet) {
            let early = match self.hook {
                Hook::Ingress => true,
                Hook::Prerouting | Hook::Output => {
                    priority <= CONNTRACK && !matches!(item, HookStep::Nat(_))
                }
                _ => false,
            };
            let mut next = Vec::new();
            // What rules see of connections may differ from what those before saw.
            self.idle.borrow_mut().clear();
            for mut branch in going {
                // A packet that comes in over loopback has its connection already.
                let again = self.hook == Hook::Prerouting && branch.packet.original.is_some();
                let known = branch.packet.answer.is_none_or(|answer| answer.known);
                branch.tracked = match (early && !again, branch.packet.untracked) {
                    (_, true) => Tracked::No,
                    (true, false) => Tracked::NotYet,
                    (false, false) if !known => Tracked::Invalid,
                    (false, false) => Tracked::Yes,
                };
                match &item {
                    HookStep::Chain(chain) => {
                        for (branch, end) in self.base(chain, branch) {
                            match end {
                                ChainExit::Accept | ChainExit::Return | ChainExit::Settled => {
                                    next.push(branch)
                                }
                                end => done.push((branch, end)),
                            }
                        }
                    }
                    HookStep::Nat(chains) => self.nat(chains, branch, &mut next, &mut done),
                }
            }
            going = next;
        }
        let passed = going.into_iter().map(|branch| (branch, Fate::Passes));
        let ended = done.into_iter().map(|(branch, end)| (branch, fate(&end)));
        merge(self.source, passed.chain(ended).collect())
    }

    /// The chains of type nat: the first that translates decides.
    fn nat(
        &self,
        chains: &[&BaseChain],
        branch: Branch,
        next: &mut Vec<Branch>,
        done: &mut Vec<(Branch, ChainExit)>,
    ) {
        let of_destination = matches!(self.hook, Hook::Prerouting | Hook::Output);
        let packet = &branch.packet;
        let decided =
            if of_destination { packet.original.is_some() } else { packet.seen_as.is_some() };
        if branch.packet.untracked || decided || super::fields::is_established(packet) {
            next.push(branch);
            return;
        }
        let first = self.nat_in_order(chains, branch.clone());
        let mut all = first;
        if let Some(turned) = turned(chains) {
            // The later registered runs first, and the kernel does not tell which is.
            let second = self.nat_in_order(&turned, branch);
            let comparable = self.source.spend(all.len() + second.len());
            if !comparable || !same_results(&all, &second) {
                let ids = chains.first().zip(chains.last());
                let Some((first, last)) = ids.map(|(a, b)| (a.id.clone(), b.id.clone())) else {
                    return;
                };
                let question = Arc::new(Predicate::Order { first, last });
                let assume =
                    |all: Vec<(Branch, ChainExit)>, holds: bool| -> Vec<(Branch, ChainExit)> {
                        let with = |(b, e): (Branch, ChainExit)| (b.assuming(&question, holds), e);
                        all.into_iter().map(with).collect()
                    };
                all = assume(all, true);
                all.extend(assume(second, false));
            }
        }
        for (mut branch, end) in all {
            if of_destination {
                let stays = (branch.packet.destination, branch.packet.dport);
                branch.packet.original.get_or_insert(stays);
            } else {
                branch.packet.seen_as.get_or_insert(super::SeenAs::Itself);
            }
            match end {
                ChainExit::Accept | ChainExit::Return | ChainExit::Settled => next.push(branch),
                end => done.push((branch, end)),
            }
        }
    }

    fn nat_in_order(&self, chains: &[&BaseChain], branch: Branch) -> Vec<(Branch, ChainExit)> {
        let mut going = vec![branch];
        let mut done = Vec::new();
        for chain in chains {
            let mut next = Vec::new();
            for branch in going {
                for (branch, end) in self.base(chain, branch) {
                    match end {
                        ChainExit::Accept | ChainExit::Return => next.push(branch),
                        end => done.push((branch, end)),
                    }
                }
            }
            going = next;
        }
        done.extend(going.into_iter().map(|branch| (branch, ChainExit::Accept)));
        done
    }

    /// A base chain, with its policy at the end.
    fn base(&self, chain: &BaseChain, branch: Branch) -> Vec<(Branch, ChainExit)> {
        let mut ends = self.chain(&chain.id, branch);
        for (branch, end) in &mut ends {
            if *end == ChainExit::Return {
                *end = if chain.accepts { ChainExit::Accept } else { ChainExit::Drop };
                if !chain.accepts {
                    let rules: Arc<[Rule]> = Arc::from([]);
                    let id = chain.id.clone();
                    branch.trail.push(Step { chain: id, rules, at: None, element: None });
                }
            }
        }
        ends
    }
}

/// What runs at a hook, with its priority, in order.
fn items<'r>(ruleset: &'r Ruleset, hook: Hook, packet: &Packet) -> Vec<(i32, HookStep<'r>)> {
    let ipv6 = packet.destination.is_ipv6();
    let here = |chain: &&BaseChain| {
        let family = chain.id.table.family;
        // Ingress and egress belong to a device: of a table of that family, or, at ingress, of
        // both versions of IP.
        let by = if hook == Hook::Egress { &packet.oif } else { &packet.iif };
        let by = by.as_ref().map(|nic| &*nic.name);
        let at_device = || chain.devices.iter().any(|device| Some(device.as_str()) == by);
        chain.hook == hook
            && match hook {
                Hook::Ingress => (family == Family::Netdev || family.takes(ipv6)) && at_device(),
                Hook::Egress => family == Family::Netdev && at_device(),
                _ => family.takes(ipv6),
            }
    };
    let mut chains: Vec<&BaseChain> = ruleset.base_chains.iter().filter(here).collect();
    if chains.len() > 1 {
        let handles: HashMap<&TableId, Option<u64>> =
            ruleset.tables.iter().map(|table| (&table.id, table.handle)).collect();
        let table = |chain: &BaseChain| handles.get(&chain.id.table).copied().flatten();
        // Of equal priority the one registered later runs first.
        chains.sort_by_cached_key(|c| {
            (c.priority, std::cmp::Reverse(table(c)), std::cmp::Reverse(c.handle))
        });
    }
    let (nat, others): (Vec<&BaseChain>, Vec<&BaseChain>) =
        chains.into_iter().partition(|c| c.kind == ChainKind::Nat);
    let mut items: Vec<(i32, HookStep<'r>)> =
        others.into_iter().map(|c| (c.priority, HookStep::Chain(c))).collect();
    if !nat.is_empty() {
        let at = if matches!(hook, Hook::Prerouting | Hook::Output) { DNAT } else { SNAT };
        let before = items.partition_point(|(priority, _)| *priority < at);
        items.insert(before, (at, HookStep::Nat(nat)));
    }
    items
}

/// The other order of chains of equal priority in different tables, if there is one.
fn turned<'r>(chains: &[&'r BaseChain]) -> Option<Vec<&'r BaseChain>> {
    let mut turned: Vec<&BaseChain> = Vec::new();
    let mut differs = false;
    for group in chains.chunk_by(|a, b| a.priority == b.priority) {
        differs |= group.windows(2).any(|w| w[0].id.table != w[1].id.table);
        turned.extend(group.iter().rev());
    }
    differs.then_some(turned)
}

fn same_results(one: &[(Branch, ChainExit)], other: &[(Branch, ChainExit)]) -> bool {
    let results = |all: &[(Branch, ChainExit)]| -> HashSet<(Fate, Packet)> {
        all.iter().map(|(branch, end)| (fate(end), branch.packet.clone())).collect()
    };
    results(one) == results(other)
}

fn fate(end: &ChainExit) -> Fate {
    match end {
        ChainExit::Accept | ChainExit::Return | ChainExit::Settled => Fate::Passes,
        ChainExit::Drop => Fate::Dropped,
        ChainExit::Rejected(how) => Fate::Rejected(*how),
        ChainExit::Queue => Fate::Queued,
        ChainExit::NotModelled => Fate::NotModelled,
        ChainExit::Unknown => Fate::Unknown,
    }
}
