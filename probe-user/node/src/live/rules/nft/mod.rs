//! nf_tables of one namespace, read over netlink.
//!
//! Every read is of one generation of the rules, that of the ruleset: the kernel is
//! asked for the generation before the ruleset was read and after each read, and
//! where it has moved on, all that was told before is read anew and compared. What the
//! kernel does to rules under one generation is waited for, or noticed by the order that
//! rules say they have ([`Conversation::is_still`], [`InOrder`]).

mod ahead;
mod data;
mod elements;
mod expr;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod names;
mod objects;
mod sets;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ahead::ReadAhead;
pub(super) use elements::Elements;
use names::NameInterner;
use objects::{RawRule, number_of};
use wire::NftRequest;
pub(super) use wire::{Conversation, Failed};

use whereis_port_model::{
    BaseChain, Bytes, ChainId, Element, NetnsId, Rule, Set, SetId, Table, TableId,
};

/// How often something is read before it is said that it changes all the time.
const TRIES: usize = 5;

/// How often everything that was told is read anew.
const RENEWALS: usize = 10;
/// The generation of a namespace that never had a rule (`nf_tables_init_net`).
const NO_RULES: u32 = 1;
/// Up to how many chains all rules are read at once. The kernel fills 32 KiB of them at
/// a time, and walks from the first rule to where it left off each time: with very
/// many it is faster to ask for one chain after the other.
const CHAINS_AT_ONCE: usize = 2000;

/// A chain's rules; `None` when there is no such chain.
pub(super) type ChainRules = Option<Arc<[Rule]>>;

/// What was read of nf_tables in one namespace.
#[derive(Debug)]
pub(super) struct NftTables {
    netns: NetnsId,
    pub(super) generation: u32,
    pub(super) tables: Vec<Table>,
    /// None of dormant tables.
    pub(super) base_chains: Vec<BaseChain>,
    names: NameInterner,
    told: NftCache,
    ahead: ReadAhead,
    /// Whether something that was told before is otherwise by now.
    pub(super) mixed: bool,
    renewals: usize,
}

/// What was read of nf_tables so far, all of one generation.
#[derive(Debug, Default)]
struct NftCache {
    chains: HashMap<ChainId, ChainRules>,
    /// Whether all rules were read.
    all: bool,
    /// Whether all sets were, without their elements.
    all_sets: bool,
    sets: HashMap<SetId, Option<Set>>,
    /// How many elements sets of numbers hold at most.
    numbered: HashMap<SetId, u32>,
    elements: HashMap<SetId, Elements>,
    /// Those that have more elements than are read.
    too_many: HashSet<SetId>,
    /// By set and key; no key for the catch-all element.
    single: HashMap<(SetId, Option<Bytes>), Option<Element>>,
}

impl NftTables {
    /// In the namespace of the calling thread.
    pub(super) fn read(netns: NetnsId, talk: &mut Conversation) -> Result<Self, Failed> {
        let mut tables = Self {
            netns,
            generation: 0,
            tables: Vec::new(),
            base_chains: Vec::new(),
            names: NameInterner::default(),
            told: NftCache::default(),
            ahead: ReadAhead::default(),
            mixed: false,
            renewals: 0,
        };
        tables.read_frame(talk, true)?;
        Ok(tables)
    }

    /// Reads tables and base chains, of one generation, and others `ahead`: only a thread
    /// in the namespace may do that.
    fn read_frame(&mut self, talk: &mut Conversation, ahead: bool) -> Result<(), Failed> {
        for _ in 0..TRIES {
            self.generation = talk.generation()?;
            if self.generation != NO_RULES {
                self.generation = talk.settled()?;
            }
            // It begins with 1, and the first table makes it 2: there are none.
            if self.generation == NO_RULES {
                self.tables.clear();
                self.base_chains.clear();
                return Ok(());
            }
            match self.read_frame_once(talk, ahead) {
                Ok(()) if talk.is_still(self.generation)? => return Ok(()),
                Ok(()) | Err(Failed::Changed) => {}
                Err(failed) => return Err(failed),
            }
        }
        Err(Failed::Changed)
    }

    fn read_frame_once(&mut self, talk: &mut Conversation, ahead: bool) -> Result<(), Failed> {
        self.tables.clear();
        self.base_chains.clear();
        let mut others = ReadAhead::default();
        let allowance = talk.allowance();
        let Self { netns, tables, base_chains, names, .. } = self;
        let all = |command| NftRequest { command, family: 0, attributes: &[] };
        talk.dump(all(wire::GET_TABLE), |message| {
            tables.extend(objects::table(*netns, message, names));
        })?;
        if tables.is_empty() {
            return Ok(());
        }
        talk.dump(all(wire::GET_CHAIN), |message| {
            if ahead {
                others.listed(*netns, message, names, &allowance);
            }
            base_chains.extend(objects::base_chain(*netns, message, names));
        })?;
        let awake: HashSet<&TableId> =
            tables.iter().filter(|table| !table.dormant).map(|table| &table.id).collect();
        base_chains.retain(|chain| awake.contains(&chain.id.table));
        self.ahead = others;
        Ok(())
    }

    /// Reads something of the generation of the ruleset.
    fn steadily<T>(
        &mut self,
        talk: &mut Conversation,
        read: impl Fn(&mut Self, &mut Conversation) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        for _ in 0..TRIES {
            // That of the ruleset, which had settled before it was read.
            let begun = match self.renewals {
                RENEWALS.. => talk.settled()?,
                _ => self.generation,
            };
            match read(self, talk) {
                Ok(value) if talk.is_still(begun)? => {
                    if begun == self.generation {
                        return Ok(value);
                    }
                    // They change all the time: this is whole, and that it may not
                    // fit to the rest is said.
                    if self.renewals >= RENEWALS {
                        self.mixed = true;
                        return Ok(value);
                    }
                }
                Ok(_) | Err(Failed::Changed) => {}
                Err(failed) => return Err(failed),
            }
            if self.renewals < RENEWALS {
                self.renewals += 1;
                match self.renew(talk) {
                    Ok(()) | Err(Failed::Changed) => {}
                    Err(failed) => return Err(failed),
                }
            }
        }
        self.mixed = true;
        Err(Failed::Changed)
    }

    /// Reads anew what was told before, and notes whether it is the same.
    fn renew(&mut self, talk: &mut Conversation) -> Result<(), Failed> {
        let chains = self.base_chains.clone();
        self.read_frame(talk, false)?;
        self.mixed |= self.base_chains != chains;
        let before = std::mem::take(&mut self.told);
        let renewed = self.compare(&before, talk);
        if renewed.is_err() {
            // It is still to be compared.
            self.told = before;
        }
        renewed
    }

    fn compare(&mut self, before: &NftCache, talk: &mut Conversation) -> Result<(), Failed> {
        if before.all {
            self.read_all(talk)?;
        }
        for (id, rules) in &before.chains {
            let now = match self.told.chains.get(id) {
                Some(now) => now.clone(),
                None => self.read_chain(id, talk)?,
            };
            let same = is_same(rules.as_deref(), now.as_deref());
            self.mixed |= !same;
            self.told.chains.insert(id.clone(), if same { rules.clone() } else { now });
        }
        for (id, set) in &before.sets {
            let now = self.read_set(id, talk)?;
            self.mixed |= *set != now;
            self.told.sets.insert(id.clone(), now);
        }
        for (id, elements) in &before.elements {
            let now = self.read_elements(id, talk)?;
            self.mixed |= *elements != now && !self.is_dynamic(id);
            self.told.elements.insert(id.clone(), now);
        }
        for ((id, key), element) in &before.single {
            let now = self.read_single(id, key.as_ref(), talk)?;
            self.mixed |= *element != now && !self.is_dynamic(id);
            self.told.single.insert((id.clone(), key.clone()), now);
        }
        Ok(())
    }

    /// The rules of a chain.
    pub(super) fn chain(
        &mut self,
        id: &ChainId,
        talk: &mut Conversation,
    ) -> Result<ChainRules, Failed> {
        if let Some(known) = self.told.chains.get(id) {
            return Ok(known.clone());
        }
        let rules = self.steadily(talk, |this, talk| this.read_chain(id, talk))?;
        self.told.chains.insert(id.clone(), rules.clone());
        Ok(rules)
    }

    /// Reads all rules of all tables, unless that was done.
    pub(super) fn expect_all(&mut self, talk: &mut Conversation) -> Result<(), Failed> {
        if self.told.all {
            return Ok(());
        }
        self.steadily(talk, Self::read_all)
    }

    fn read_chain(&mut self, id: &ChainId, talk: &mut Conversation) -> Result<ChainRules, Failed> {
        // All that exist were told.
        if self.told.all {
            return Ok(None);
        }
        let rules = self.read_rules(id, talk)?;
        if !rules.is_empty() {
            return Ok(Some(rules.into()));
        }
        // It has no rules, or there is none.
        let (table, chain) = (with_nul(&id.table.name), with_nul(&id.name));
        let attributes = &[(1, table.as_slice()), (3, chain.as_slice())];
        let family = number_of(id.table.family);
        let question = NftRequest { command: wire::GET_CHAIN, family, attributes };
        match talk.get(question, |_| {}) {
            Ok(()) => Ok(Some(rules.into())),
            Err(failed) if failed.is_missing() => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    fn read_rules(&mut self, id: &ChainId, talk: &mut Conversation) -> Result<Vec<Rule>, Failed> {
        match self.ahead.take(id, self.generation) {
            Some(rules) => Ok(rules),
            None => read_rules(id, talk, &mut self.names),
        }
    }

    fn read_all(&mut self, talk: &mut Conversation) -> Result<(), Failed> {
        self.told.all = false;
        self.told.chains.clear();
        let Self { netns, names, .. } = self;
        let mut ids = Vec::new();
        let question = NftRequest { command: wire::GET_CHAIN, family: 0, attributes: &[] };
        talk.dump(question, |message| ids.extend(objects::chain_id(*netns, message, names)))?;
        if ids.len() > CHAINS_AT_ONCE {
            for id in ids {
                let rules = self.read_rules(&id, talk)?;
                self.told.chains.insert(id, Some(rules.into()));
            }
        } else {
            let mut rules = self.read_rules_at_once(talk)?;
            let all = ids.into_iter().map(|id| {
                let rules = rules.remove(&id).unwrap_or_default();
                (id, Some(rules.into()))
            });
            self.told.chains.extend(all);
        }
        self.told.all = true;
        Ok(())
    }

    fn read_rules_at_once(
        &mut self,
        talk: &mut Conversation,
    ) -> Result<HashMap<ChainId, Vec<Rule>>, Failed> {
        let Self { netns, names, .. } = self;
        let mut chains = HashMap::new();
        // Rules come chain by chain.
        let mut current: Option<(ChainId, Vec<Rule>)> = None;
        let question = NftRequest { command: wire::GET_RULE, family: 0, attributes: &[] };
        let mut order = InOrder::default();
        talk.dump(question, |message| {
            let Some(rule) = RawRule::of(message) else { return };
            let is_next = current.as_ref().is_some_and(|(id, _)| rule.is_in(id));
            order.see(&rule, is_next);
            match &mut current {
                Some((id, rules)) if rule.is_in(id) => rules.push(rule.parse(names)),
                _ => {
                    let id = rule.chain_id(*netns, names);
                    chains.extend(current.replace((id, vec![rule.parse(names)])));
                }
            }
        })?;
        chains.extend(current);
        order.is_whole()?;
        Ok(chains)
    }
}

fn read_rules(
    id: &ChainId,
    talk: &mut Conversation,
    names: &mut NameInterner,
) -> Result<Vec<Rule>, Failed> {
    let (mut rules, mut order) = (Vec::new(), InOrder::default());
    let (table, chain) = (with_nul(&id.table.name), with_nul(&id.name));
    let attributes = &[(1, table.as_slice()), (2, chain.as_slice())];
    let family = number_of(id.table.family);
    let question = NftRequest { command: wire::GET_RULE, family, attributes };
    talk.dump(question, |message| {
        // Old kernels take no notice of the names that they are asked for.
        let Some(rule) = RawRule::of(message).filter(|rule| rule.is_in(id)) else { return };
        order.see(&rule, !rules.is_empty());
        rules.push(rule.parse(names));
    })
    .or_else(Failed::or_missing)?;
    order.is_whole()?;
    Ok(rules)
}

/// Whether each rule comes behind the one that it says it is behind. An answer comes in
/// pieces, and the kernel finds where it left off by counting rules, those that are not in
/// use yet among them: while a change is being made, one may come twice or not at all.
#[derive(Debug, Default)]
struct InOrder {
    last: u64,
    broken: bool,
}

impl InOrder {
    /// The next rule that came, be it behind another of its chain or its first.
    fn see(&mut self, rule: &RawRule<'_>, is_next: bool) {
        let before = is_next.then_some(self.last);
        self.broken |= rule.behind().is_some_and(|behind| Some(behind) != before);
        self.last = rule.handle();
    }

    fn is_whole(&self) -> Result<(), Failed> {
        if self.broken { Err(Failed::Changed) } else { Ok(()) }
    }
}

/// Whether rules do the same: counters count on, and a rule that was written again
/// has another handle.
fn is_same(one: Option<&[Rule]>, other: Option<&[Rule]>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(a, b)| (&a.exprs, &a.comment) == (&b.exprs, &b.comment))
        }
        (one, other) => one.is_none() && other.is_none(),
    }
}

fn with_nul(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}
