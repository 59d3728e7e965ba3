//! nf_tables of one namespace, read over netlink.
//!
//! Every read is of one generation of the rules, that of the ruleset: the kernel is
//! asked for the generation before the ruleset was read and after each read, and
//! where it has moved on, all that was told before is read anew and compared.

mod expr;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod names;
mod objects;
mod sets;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use names::Names;
use objects::{RawRule, number_of};
use wire::Question;
pub(super) use wire::{Conversation, Failed};

use crate::model::{
    Backend, BaseChain, Bytes, ChainId, Element, NetnsId, Rule, Set, SetId, Table, TableId,
    element_of,
};

/// How often something is read before it is said that it changes all the time.
const TRIES: usize = 5;

/// A chain's rules; `None` when there is no such chain.
pub(super) type Rules = Option<Arc<[Rule]>>;

/// A set's elements; `None` when there is no such set.
pub(super) type Elements = Option<Arc<[Element]>>;

/// What is known of nf_tables in one namespace.
#[derive(Debug)]
pub(super) struct Tables {
    netns: NetnsId,
    pub(super) generation: u32,
    pub(super) tables: Vec<Table>,
    /// None of dormant tables.
    pub(super) base_chains: Vec<BaseChain>,
    names: Names,
    told: Told,
    /// Whether something that was told before is otherwise by now.
    pub(super) mixed: bool,
}

/// What was told so far, all of one generation.
#[derive(Debug, Default)]
struct Told {
    chains: HashMap<ChainId, Rules>,
    /// Whether all rules were read.
    all: bool,
    sets: HashMap<SetId, Option<Set>>,
    elements: HashMap<SetId, Elements>,
    /// By set and key; no key for the catch-all element.
    single: HashMap<(SetId, Option<Bytes>), Option<Element>>,
}

impl Tables {
    pub(super) fn read(netns: NetnsId, talk: &mut Conversation) -> Result<Self, Failed> {
        let mut tables = Self {
            netns,
            generation: 0,
            tables: Vec::new(),
            base_chains: Vec::new(),
            names: Names::default(),
            told: Told::default(),
            mixed: false,
        };
        tables.read_frame(talk)?;
        Ok(tables)
    }

    /// Reads tables and base chains, of one generation.
    fn read_frame(&mut self, talk: &mut Conversation) -> Result<(), Failed> {
        for _ in 0..TRIES {
            self.generation = talk.generation()?;
            match self.read_frame_once(talk) {
                Ok(()) if talk.generation()? == self.generation => return Ok(()),
                Ok(()) | Err(Failed::Changed) => {}
                Err(failed) => return Err(failed),
            }
        }
        Err(Failed::Changed)
    }

    fn read_frame_once(&mut self, talk: &mut Conversation) -> Result<(), Failed> {
        self.tables.clear();
        self.base_chains.clear();
        let Self { netns, tables, base_chains, names, .. } = self;
        let all = |command| Question { command, family: 0, attributes: &[] };
        talk.dump(all(wire::GET_TABLE), |message| {
            tables.extend(objects::table(*netns, message, names));
        })?;
        if tables.is_empty() {
            return Ok(());
        }
        talk.dump(all(wire::GET_CHAIN), |message| {
            base_chains.extend(objects::base_chain(*netns, message, names));
        })?;
        let is_awake = |chain: &BaseChain| {
            tables.iter().any(|table| !table.dormant && table.id == chain.id.table)
        };
        base_chains.retain(is_awake);
        Ok(())
    }

    /// Reads something of the generation of the ruleset.
    fn steadily<T>(
        &mut self,
        talk: &mut Conversation,
        read: impl Fn(&mut Self, &mut Conversation) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        for _ in 0..TRIES {
            match read(self, talk) {
                Ok(value) if talk.generation()? == self.generation => return Ok(value),
                Ok(_) | Err(Failed::Changed) => match self.renew(talk) {
                    Ok(()) | Err(Failed::Changed) => {}
                    Err(failed) => return Err(failed),
                },
                Err(failed) => return Err(failed),
            }
        }
        self.mixed = true;
        Err(Failed::Changed)
    }

    /// Reads anew what was told before, and notes whether it is the same.
    fn renew(&mut self, talk: &mut Conversation) -> Result<(), Failed> {
        let chains = self.base_chains.clone();
        self.read_frame(talk)?;
        self.mixed |= self.base_chains != chains;
        let before = std::mem::take(&mut self.told);
        if before.all {
            self.read_all(talk)?;
        }
        for (id, rules) in before.chains {
            let now = match self.told.chains.get(&id) {
                Some(now) => now.clone(),
                None => self.read_chain(&id, talk)?,
            };
            let same = is_same(rules.as_deref(), now.as_deref());
            self.mixed |= !same;
            self.told.chains.insert(id, if same { rules } else { now });
        }
        for (id, set) in before.sets {
            let now = self.read_set(&id, talk)?;
            self.mixed |= set != now;
            self.told.sets.insert(id, now);
        }
        for (id, elements) in before.elements {
            let now = self.read_elements(&id, talk)?;
            self.mixed |= elements != now && !self.is_dynamic(&id);
            self.told.elements.insert(id, now);
        }
        for ((id, key), element) in before.single {
            let now = self.read_single(&id, key.as_ref(), talk)?;
            self.mixed |= element != now && !self.is_dynamic(&id);
            self.told.single.insert((id, key), now);
        }
        Ok(())
    }

    /// The rules of a chain.
    pub(super) fn chain(&mut self, id: &ChainId, talk: &mut Conversation) -> Result<Rules, Failed> {
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

    fn read_chain(&mut self, id: &ChainId, talk: &mut Conversation) -> Result<Rules, Failed> {
        let names = &mut self.names;
        let (table, chain) = (with_nul(&id.table.name), with_nul(&id.name));
        let family = number_of(id.table.family);
        let mut rules = Vec::new();
        if !self.told.all {
            let attributes = &[(1, table.as_slice()), (2, chain.as_slice())];
            let question = Question { command: wire::GET_RULE, family, attributes };
            talk.dump(question, |message| {
                // Old kernels take no notice of the names.
                let rule = RawRule::of(message).filter(|rule| {
                    rule.place.family == id.table.family
                        && rule.place.table == id.table.name.as_bytes()
                        && rule.place.chain == id.name.as_bytes()
                });
                rules.extend(rule.map(|rule| rule.parse(names)));
            })
            .or_else(Failed::or_missing)?;
        }
        if !rules.is_empty() {
            return Ok(Some(rules.into()));
        }
        // It has no rules, or there is none.
        let attributes = &[(1, table.as_slice()), (3, chain.as_slice())];
        let question = Question { command: wire::GET_CHAIN, family, attributes };
        match talk.get(question, |_| {}) {
            Ok(()) => Ok(Some(rules.into())),
            Err(failed) if failed.is_missing() => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    fn read_all(&mut self, talk: &mut Conversation) -> Result<(), Failed> {
        let Self { netns, names, told, .. } = self;
        // Rules come chain by chain.
        let mut rules: Vec<Rule> = Vec::new();
        let mut current: Option<ChainId> = None;
        let mut chains = HashMap::new();
        let question = Question { command: wire::GET_RULE, family: 0, attributes: &[] };
        talk.dump(question, |message| {
            let Some(rule) = RawRule::of(message) else { return };
            let place = rule.place;
            let is_here = current.as_ref().is_some_and(|id| {
                id.name.as_bytes() == place.chain
                    && id.table.name.as_bytes() == place.table
                    && id.table.family == place.family
            });
            if !is_here {
                if let Some(id) = current.take() {
                    chains.insert(id, Some(rules.drain(..).collect()));
                }
                let (family, name) = (place.family, names.get(place.table));
                let table = TableId { netns: *netns, backend: Backend::Nft, family, name };
                current = Some(ChainId { table, name: names.get(place.chain) });
            }
            rules.push(rule.parse(names));
        })?;
        if let Some(id) = current {
            chains.insert(id, Some(rules.into()));
        }
        told.chains = chains;
        told.all = true;
        Ok(())
    }
}

/// Sets and their elements.
impl Tables {
    /// A set without its elements.
    pub(super) fn set(
        &mut self,
        id: &SetId,
        talk: &mut Conversation,
    ) -> Result<Option<Set>, Failed> {
        if let Some(known) = self.told.sets.get(id) {
            return Ok(known.clone());
        }
        let set = self.steadily(talk, |this, talk| this.read_set(id, talk))?;
        self.told.sets.insert(id.clone(), set.clone());
        Ok(set)
    }

    /// All elements of a set.
    pub(super) fn elements(
        &mut self,
        id: &SetId,
        talk: &mut Conversation,
    ) -> Result<Elements, Failed> {
        if let Some(known) = self.told.elements.get(id) {
            return Ok(known.clone());
        }
        self.set(id, talk)?;
        let elements = self.steadily(talk, |this, talk| this.read_elements(id, talk))?;
        self.told.elements.insert(id.clone(), elements.clone());
        Ok(elements)
    }

    /// The element that a key belongs to. One is asked for alone, unless the set has
    /// ranges: what the kernel answers then differs between its versions.
    pub(super) fn element(
        &mut self,
        id: &SetId,
        key: &Bytes,
        talk: &mut Conversation,
    ) -> Result<Option<Element>, Failed> {
        let Some(set) = self.set(id, talk)? else { return Ok(None) };
        if !set.interval && !self.told.elements.contains_key(id) {
            let found = match self.single(id, Some(key), talk) {
                Ok(None) => self.single(id, None, talk),
                found => found,
            };
            match found {
                // An old kernel (before Linux 4.16) has no such question.
                Err(failed) if failed.is_not_there() => {}
                found => return found,
            }
        }
        let elements = self.elements(id, talk)?.unwrap_or_default();
        Ok(element_of(&set.fields, &elements, key).cloned())
    }

    fn single(
        &mut self,
        id: &SetId,
        key: Option<&Bytes>,
        talk: &mut Conversation,
    ) -> Result<Option<Element>, Failed> {
        let asked = (id.clone(), key.cloned());
        if let Some(known) = self.told.single.get(&asked) {
            return Ok(known.clone());
        }
        let element = self.steadily(talk, |this, talk| this.read_single(id, key, talk))?;
        self.told.single.insert(asked, element.clone());
        Ok(element)
    }

    fn is_dynamic(&self, id: &SetId) -> bool {
        self.told.sets.get(id).is_some_and(|set| set.as_ref().is_some_and(|set| set.dynamic))
    }

    fn read_set(&self, id: &SetId, talk: &mut Conversation) -> Result<Option<Set>, Failed> {
        let (table, name) = (with_nul(&id.table.name), with_nul(&id.name));
        let attributes = &[(1, table.as_slice()), (2, name.as_slice())];
        let family = number_of(id.table.family);
        let mut set = None;
        let question = Question { command: wire::GET_SET, family, attributes };
        talk.get(question, |message| set = sets::set(id, message)).or_else(Failed::or_missing)?;
        Ok(set)
    }

    fn read_elements(&mut self, id: &SetId, talk: &mut Conversation) -> Result<Elements, Failed> {
        let Some(Some(set)) = self.told.sets.get(id) else { return Ok(None) };
        let (table, name) = (with_nul(&id.table.name), with_nul(&id.name));
        let attributes = &[(1, table.as_slice()), (2, name.as_slice())];
        let family = number_of(id.table.family);
        let (names, mut parts) = (&mut self.names, Vec::new());
        let question = Question { command: wire::GET_SETELEM, family, attributes };
        let read = talk.dump(question, |message| sets::parts(message, names, &mut parts));
        match read {
            Ok(()) => Ok(Some(sets::elements(set, parts).into())),
            Err(failed) if failed.is_missing() => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    fn read_single(
        &mut self,
        id: &SetId,
        key: Option<&Bytes>,
        talk: &mut Conversation,
    ) -> Result<Option<Element>, Failed> {
        let (table, name) = (with_nul(&id.table.name), with_nul(&id.name));
        let list = sets::wanted(key)?;
        let attributes = &[(1, table.as_slice()), (2, name.as_slice()), (wire::NESTED | 3, &list)];
        let family = number_of(id.table.family);
        let (names, mut parts) = (&mut self.names, Vec::new());
        let question = Question { command: wire::GET_SETELEM, family, attributes };
        let read = talk.get(question, |message| sets::parts(message, names, &mut parts));
        match read {
            Ok(()) => Ok(parts.pop().map(sets::Part::whole)),
            Err(failed) if failed.is_missing() => Ok(None),
            // Before Linux 5.13 there are no catch-all elements.
            Err(failed) if key.is_none() && failed.is_not_there() => Ok(None),
            Err(failed) => Err(failed),
        }
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
