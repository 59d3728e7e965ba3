//! Reading sets and their elements.

use std::collections::HashMap;
use std::sync::Arc;

use super::objects::{self, number_of};
use super::wire::{self, NftRequest};
use super::{Conversation, Failed, NftTables, sets, with_nul};
use whereis_port_model::{Bytes, Element, Set, SetId, element_of};

/// How many elements are read of a set. One with ranges has two for each.
const ELEMENTS: usize = 131_072;

/// A set's elements; `None` when there is no such set.
pub(in crate::live::rules) type Elements = Option<Arc<[Element]>>;

/// All sets, and how many elements those of numbers have at most.
type AllSets = (Vec<(SetId, Option<Set>)>, HashMap<SetId, u32>);

impl NftTables {
    /// A set without its elements.
    pub(in crate::live::rules) fn set(
        &mut self,
        id: &SetId,
        talk: &mut Conversation,
    ) -> Result<Option<Set>, Failed> {
        if let Some(known) = self.told.sets.get(id) {
            return Ok(known.clone());
        }
        // The kernel looks for one by going through all: who reads all rules gets them
        // at once.
        if self.told.all && !self.told.all_sets {
            let (sets, numbered) = self.steadily(talk, |this, talk| this.read_sets(talk))?;
            self.told.sets.extend(sets);
            self.told.numbered = numbered;
            self.told.all_sets = true;
            if let Some(known) = self.told.sets.get(id) {
                return Ok(known.clone());
            }
        }
        let set = self.steadily(talk, |this, talk| this.read_set(id, talk))?;
        self.told.sets.insert(id.clone(), set.clone());
        Ok(set)
    }

    /// All elements of a set.
    pub(in crate::live::rules) fn elements(
        &mut self,
        id: &SetId,
        talk: &mut Conversation,
    ) -> Result<Elements, Failed> {
        if let Some(known) = self.told.elements.get(id) {
            return Ok(known.clone());
        }
        if self.told.too_many.contains(id) {
            return Err(Failed::TooMany(id.clone()));
        }
        self.set(id, talk)?;
        let read = self.steadily(talk, |this, talk| this.read_elements(id, talk));
        if matches!(read, Err(Failed::TooMany(_))) {
            self.told.too_many.insert(id.clone());
        }
        let elements = read?;
        self.told.elements.insert(id.clone(), elements.clone());
        Ok(elements)
    }

    /// The element that a key belongs to. One is asked for alone, unless the set has
    /// ranges: what the kernel answers then differs between its versions.
    pub(in crate::live::rules) fn element(
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

    pub(super) fn is_dynamic(&self, id: &SetId) -> bool {
        self.told.sets.get(id).is_some_and(|set| set.as_ref().is_some_and(|set| set.dynamic))
    }

    fn read_sets(&mut self, talk: &mut Conversation) -> Result<AllSets, Failed> {
        let (netns, names) = (self.netns, &mut self.names);
        let (mut all, mut numbered) = (Vec::new(), HashMap::new());
        let question = NftRequest { command: wire::GET_SET, family: 0, attributes: &[] };
        talk.dump(question, |message| {
            let set = objects::set_id(netns, message, names).and_then(|id| sets::set(&id, message));
            let Some(set) = set else { return };
            numbered.extend(sets::numbers(message).map(|size| (set.id.clone(), size)));
            all.push((set.id.clone(), Some(set)));
        })?;
        Ok((all, numbered))
    }

    pub(super) fn read_set(
        &self,
        id: &SetId,
        talk: &mut Conversation,
    ) -> Result<Option<Set>, Failed> {
        let (table, name) = (with_nul(&id.table.name), with_nul(&id.name));
        let attributes = &[(1, table.as_slice()), (2, name.as_slice())];
        let family = number_of(id.table.family);
        let mut set = None;
        let question = NftRequest { command: wire::GET_SET, family, attributes };
        talk.get(question, |message| set = sets::set(id, message)).or_else(Failed::or_missing)?;
        Ok(set)
    }

    pub(super) fn read_elements(
        &mut self,
        id: &SetId,
        talk: &mut Conversation,
    ) -> Result<Elements, Failed> {
        if let Some(size) = self.told.numbered.get(id).copied()
            && let Some(elements) = self.read_numbers(id, size, talk)?
        {
            return Ok(Some(elements.into()));
        }
        let Some(Some(set)) = self.told.sets.get(id) else { return Ok(None) };
        let (table, name) = (with_nul(&id.table.name), with_nul(&id.name));
        let attributes = &[(1, table.as_slice()), (2, name.as_slice())];
        let family = number_of(id.table.family);
        let (names, mut parts) = (&mut self.names, Vec::new());
        let question = NftRequest { command: wire::GET_SETELEM, family, attributes };
        let read = talk.dump_while(question, |message| {
            sets::parts(message, names, &mut parts);
            parts.len() <= ELEMENTS
        });
        match read {
            Ok(()) if parts.len() > ELEMENTS => Err(Failed::TooMany(id.clone())),
            Ok(()) => {
                talk.take(parts.len() * std::mem::size_of::<Element>())?;
                Ok(Some(sets::elements(set, parts).into()))
            }
            Err(failed) if failed.is_missing() => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// The elements of a set that has the numbers below its size, and room for no others;
    /// `None` when it has not. For a list of elements the kernel goes through all sets of
    /// the table several times, for elements by their keys once: where each of many
    /// thousand services has a map, nearly all of the time goes there.
    fn read_numbers(
        &mut self,
        id: &SetId,
        size: u32,
        talk: &mut Conversation,
    ) -> Result<Option<Vec<Element>>, Failed> {
        match self.ask_elements(id, &sets::wanted_below(size)?, talk) {
            Ok(parts) => {
                let elements: Vec<Element> =
                    parts.into_iter().map(sets::KernelElement::whole).collect();
                let is_all = usize::try_from(size).is_ok_and(|size| size == elements.len());
                Ok(is_all.then_some(elements))
            }
            Err(failed) if failed.is_missing() || failed.is_not_there() => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    pub(super) fn read_single(
        &mut self,
        id: &SetId,
        key: Option<&Bytes>,
        talk: &mut Conversation,
    ) -> Result<Option<Element>, Failed> {
        match self.ask_elements(id, &sets::wanted(key)?, talk) {
            Ok(mut parts) => Ok(parts.pop().map(sets::KernelElement::whole)),
            Err(failed) if failed.is_missing() => Ok(None),
            // Before Linux 5.13 there are no catch-all elements.
            Err(failed) if key.is_none() && failed.is_not_there() => Ok(None),
            Err(failed) => Err(failed),
        }
    }
    /// The elements of a set that have the keys in `list`.
    fn ask_elements(
        &mut self,
        id: &SetId,
        list: &[u8],
        talk: &mut Conversation,
    ) -> Result<Vec<sets::KernelElement>, Failed> {
        let (table, name) = (with_nul(&id.table.name), with_nul(&id.name));
        let attributes = &[(1, table.as_slice()), (2, name.as_slice()), (wire::NESTED | 3, list)];
        let family = number_of(id.table.family);
        let (names, mut parts) = (&mut self.names, Vec::new());
        let question = NftRequest { command: wire::GET_SETELEM, family, attributes };
        talk.get(question, |message| sets::parts(message, names, &mut parts))?;
        Ok(parts)
    }
}
