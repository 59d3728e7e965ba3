//! The chains of a hook, in the kernel's order.

use std::cell::Cell;
use std::sync::Arc;

use super::branch::{Assumption, Branch};
use super::load::Tracked;
use super::{Fate, Outcome, Packet, Source, Step};
use crate::model::{BaseChain, ChainKind, Family, Hook, Rejection, Rule, Ruleset};

/// Conntrack runs here, at prerouting and output.
const CONNTRACK: i32 = -200;
/// Where all chains of type nat run, whatever priority they have among themselves.
const DNAT: i32 = -100;
const SNAT: i32 = 100;

/// Runs a packet through a hook.
pub(super) struct Traversal<'s> {
    pub(super) source: &'s dyn Source,
    pub(super) hook: Hook,
    /// How many rules were run.
    pub(super) rules: Cell<u32>,
    /// How many branches were made.
    pub(super) branches: Cell<usize>,
}

/// How a chain ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum End {
    Return,
    Accept,
    /// NAT or TPROXY decided.
    Settled,
    Drop,
    Rejected(Rejection),
    Queue,
    Unknown,
}

/// What runs at one place of a hook.
enum Item<'r> {
    Chain(&'r BaseChain),
    Nat(Vec<&'r BaseChain>),
}

impl<'s> Traversal<'s> {
    pub(super) fn new(source: &'s dyn Source, hook: Hook) -> Self {
        Self { source, hook, rules: Cell::new(0), branches: Cell::new(1) }
    }

    pub(super) fn run(&self, ruleset: &Ruleset, packet: Packet) -> Vec<Outcome> {
        let mut going = vec![Branch::new(packet)];
        let mut done = Vec::new();
        for (priority, item) in items(ruleset, self.hook, &going[0].packet) {
            let early = match self.hook {
                Hook::Ingress => true,
                Hook::Prerouting | Hook::Output => {
                    priority <= CONNTRACK && !matches!(item, Item::Nat(_))
                }
                _ => false,
            };
            let mut next = Vec::new();
            for mut branch in going {
                // A packet that comes in over loopback has its connection already.
                let again = self.hook == Hook::Prerouting && branch.packet.original.is_some();
                branch.tracked = match (early && !again, branch.packet.untracked) {
                    (_, true) => Tracked::No,
                    (true, false) => Tracked::NotYet,
                    (false, false) => Tracked::Yes,
                };
                match &item {
                    Item::Chain(chain) => {
                        for (branch, end) in self.base(chain, branch) {
                            match end {
                                End::Accept | End::Return | End::Settled => next.push(branch),
                                end => done.push((branch, end)),
                            }
                        }
                    }
                    Item::Nat(chains) => self.nat(chains, branch, &mut next, &mut done),
                }
            }
            going = next;
        }
        let passed = going.into_iter().map(|branch| (branch, Fate::Passes));
        let ended = done.into_iter().map(|(branch, end)| (branch, fate(&end)));
        merge(passed.chain(ended).map(outcome).collect())
    }

    /// The chains of type nat: the first that translates decides.
    fn nat(
        &self,
        chains: &[&BaseChain],
        branch: Branch,
        next: &mut Vec<Branch>,
        done: &mut Vec<(Branch, End)>,
    ) {
        let of_destination = matches!(self.hook, Hook::Prerouting | Hook::Output);
        let packet = &branch.packet;
        let decided =
            if of_destination { packet.original.is_some() } else { packet.seen_as.is_some() };
        if branch.packet.untracked || decided {
            next.push(branch);
            return;
        }
        let first = self.nat_in_order(chains, branch.clone());
        let mut all = first;
        if let Some(turned) = turned(chains) {
            // The later registered runs first, and the kernel does not tell which is.
            let second = self.nat_in_order(&turned, branch);
            if !same_results(&all, &second) {
                let name = |c: &BaseChain| format!("{} chain {}", c.id.table, c.id.name);
                let question = format!(
                    "the order of {} and {} is that of their tables",
                    chains.first().map_or_else(String::new, |c| name(c)),
                    chains.last().map_or_else(String::new, |c| name(c)),
                );
                let assume = |all: Vec<(Branch, End)>, holds: bool| -> Vec<(Branch, End)> {
                    let with = |(b, e): (Branch, End)| (b.assuming(question.clone(), holds), e);
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
                End::Accept | End::Return | End::Settled => next.push(branch),
                end => done.push((branch, end)),
            }
        }
    }

    fn nat_in_order(&self, chains: &[&BaseChain], branch: Branch) -> Vec<(Branch, End)> {
        let mut going = vec![branch];
        let mut done = Vec::new();
        for chain in chains {
            let mut next = Vec::new();
            for branch in going {
                for (branch, end) in self.base(chain, branch) {
                    match end {
                        End::Accept | End::Return => next.push(branch),
                        end => done.push((branch, end)),
                    }
                }
            }
            going = next;
        }
        done.extend(going.into_iter().map(|branch| (branch, End::Accept)));
        done
    }

    /// A base chain, with its policy at the end.
    fn base(&self, chain: &BaseChain, branch: Branch) -> Vec<(Branch, End)> {
        let mut ends = self.chain(&chain.id, branch);
        for (branch, end) in &mut ends {
            if *end == End::Return {
                *end = if chain.accepts { End::Accept } else { End::Drop };
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
fn items<'r>(ruleset: &'r Ruleset, hook: Hook, packet: &Packet) -> Vec<(i32, Item<'r>)> {
    let ipv6 = packet.destination.is_ipv6();
    let here = |chain: &&BaseChain| {
        let family = chain.id.table.family;
        // Ingress belongs to a device: of a table of that family, or of both versions.
        let by = packet.iif.as_ref().map(|nic| &*nic.name);
        let at_device = || chain.devices.iter().any(|device| Some(device.as_str()) == by);
        chain.hook == hook
            && match hook {
                Hook::Ingress => (family == Family::Netdev || family.takes(ipv6)) && at_device(),
                _ => family.takes(ipv6),
            }
    };
    let mut chains: Vec<&BaseChain> = ruleset.base_chains.iter().filter(here).collect();
    let table = |chain: &BaseChain| {
        ruleset.tables.iter().find(|t| t.id == chain.id.table).and_then(|t| t.handle)
    };
    // Of equal priority the one registered later runs first.
    chains.sort_by_key(|c| (c.priority, std::cmp::Reverse(table(c)), std::cmp::Reverse(c.handle)));
    let (nat, others): (Vec<&BaseChain>, Vec<&BaseChain>) =
        chains.into_iter().partition(|c| c.kind == ChainKind::Nat);
    let mut items: Vec<(i32, Item<'r>)> =
        others.into_iter().map(|c| (c.priority, Item::Chain(c))).collect();
    if !nat.is_empty() {
        let at = if matches!(hook, Hook::Prerouting | Hook::Output) { DNAT } else { SNAT };
        let before = items.partition_point(|(priority, _)| *priority < at);
        items.insert(before, (at, Item::Nat(nat)));
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

fn same_results(one: &[(Branch, End)], other: &[(Branch, End)]) -> bool {
    let same =
        |a: &(Branch, End), b: &(Branch, End)| a.0.packet == b.0.packet && fate(&a.1) == fate(&b.1);
    one.iter().all(|a| other.iter().any(|b| same(a, b)))
        && other.iter().all(|b| one.iter().any(|a| same(a, b)))
}

fn fate(end: &End) -> Fate {
    match end {
        End::Accept | End::Return | End::Settled => Fate::Passes,
        End::Drop => Fate::Dropped,
        End::Rejected(how) => Fate::Rejected(*how),
        End::Queue => Fate::Queued,
        End::Unknown => Fate::Unknown,
    }
}

/// An outcome whose assumptions are not in words yet.
struct Raw {
    outcome: Outcome,
    assumed: Vec<Assumption>,
}

fn outcome((branch, fate): (Branch, Fate)) -> Raw {
    let outcome = Outcome {
        packet: branch.packet,
        fate,
        probability: branch.probability,
        depends: Vec::new(),
        notes: branch.notes,
        trail: branch.trail,
    };
    Raw { outcome, assumed: branch.assumed }
}

/// Puts together what has the same result: whatever is assumed, or by adding up.
fn merge(mut all: Vec<Raw>) -> Vec<Outcome> {
    let mut changed = true;
    while changed {
        changed = false;
        let mut a = 0;
        while a < all.len() {
            let mut b = a + 1;
            while b < all.len() {
                let Some((assumed, probability)) = joined(&all[a], &all[b]) else {
                    b += 1;
                    continue;
                };
                let other = all.remove(b);
                let one = &mut all[a];
                one.assumed = assumed;
                one.outcome.probability = probability;
                for note in other.outcome.notes {
                    if !one.outcome.notes.contains(&note) {
                        one.outcome.notes.push(note);
                    }
                }
                changed = true;
            }
            a += 1;
        }
    }
    let in_words = |raw: Raw| Outcome {
        depends: raw.assumed.iter().map(Assumption::text).collect(),
        ..raw.outcome
    };
    all.into_iter().map(in_words).collect()
}

/// What two outcomes with the same result assume together and how likely they are then,
/// if they can be one.
fn joined(a: &Raw, b: &Raw) -> Option<(Vec<Assumption>, f64)> {
    if (a.outcome.fate, &a.outcome.packet) != (b.outcome.fate, &b.outcome.packet) {
        return None;
    }
    let (p, q) = (a.outcome.probability, b.outcome.probability);
    let only = |mine: &[Assumption], theirs: &[Assumption]| -> Vec<Assumption> {
        mine.iter().filter(|x| !theirs.contains(x)).cloned().collect()
    };
    let (mine, theirs) = (only(&a.assumed, &b.assumed), only(&b.assumed, &a.assumed));
    match (mine.as_slice(), theirs.as_slice()) {
        ([], []) => Some((a.assumed.clone(), p + q)),
        // Whether it holds or not.
        ([x], [y]) if x.key == y.key && (p - q).abs() < 1e-9 => {
            Some((a.assumed.iter().filter(|z| *z != x).cloned().collect(), p))
        }
        _ => None,
    }
}
