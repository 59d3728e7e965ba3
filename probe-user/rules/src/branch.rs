//! One of the ways that a packet may go through the rules of a hook.

use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::fields::Tracked;
use super::lower::ValueSlot;
use super::question::{Assumption, Predicate};
use super::value::{Bits, UnknownInput, Words};
use super::{Packet, Step};
use crate::route::covers;

/// What a slot holds while a rule runs.
#[derive(Debug, Clone)]
pub(super) enum SlotValue {
    Bits(Bits),
    /// One of these, all as likely. What was said of it once stays true: a condition
    /// leaves those for which it holds.
    Words(Words),
}

impl SlotValue {
    pub(super) fn one_of(words: Words) -> Self {
        match &*words {
            [one] => Self::Bits(Bits::whole(one)),
            _ => Self::Words(words),
        }
    }
}

/// A packet on its way, with all that led there.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) packet: Packet,
    /// What the rule that is running keeps.
    pub(super) slots: SmallVec<[SlotValue; 1]>,
    pub(super) tracked: Tracked,
    pub(super) probability: f64,
    pub(super) assumed: Vec<Assumption>,
    /// Networks that the client is assumed to be in, or not to be in.
    pub(super) clients: Vec<(IpAddr, u8, bool)>,
    pub(super) notes: Vec<String>,
    pub(super) trail: Vec<Step>,
    /// How many steps of the trail stay, even if a call among them led to nothing.
    pub(super) kept: usize,
    /// What is the same of two branches, or of one at two times, has one number: the packet,
    /// what is assumed of it.
    pub(super) version: u64,
}

impl Branch {
    pub(super) fn new(packet: Packet) -> Self {
        Self {
            packet,
            slots: SmallVec::new(),
            tracked: Tracked::NotYet,
            probability: 1.0,
            assumed: Vec::new(),
            clients: Vec::new(),
            notes: Vec::new(),
            trail: Vec::new(),
            kept: 0,
            version: 0,
        }
    }

    /// What was assumed of this question before, on this branch.
    pub(super) fn knows(&self, question: &Predicate) -> Option<bool> {
        self.assumed.iter().find(|a| *a.question == *question).map(|a| a.holds)
    }

    /// Whether the client is in a network, by what was assumed of others.
    pub(super) fn client_is_in(&self, network: IpAddr, prefix: u8) -> Option<bool> {
        self.clients.iter().find_map(|(known, len, holds)| {
            let around = *len <= prefix && covers(*known, *len, network);
            let within = *len >= prefix && covers(network, prefix, *known);
            match (holds, around, within) {
                (true, _, true) => Some(true),
                (true, false, false) | (false, true, _) => Some(false),
                _ => None,
            }
        })
    }

    pub(super) fn assuming(mut self, question: &Arc<Predicate>, holds: bool) -> Self {
        self.assumed.push(Assumption { question: Arc::clone(question), holds });
        self
    }

    /// As it is in so many cases, of all as likely.
    pub(super) fn in_cases(&self, count: usize, all: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "some thousand")]
        let share = count as f64 / all.max(1) as f64;
        Self { probability: self.probability * share, ..self.clone() }
    }

    pub(super) fn hold(&mut self, slot: ValueSlot, held: SlotValue) {
        let at = usize::from(slot);
        while self.slots.len() <= at {
            self.slots.push(SlotValue::Bits(Bits::unknown(16, UnknownInput::Detail("a value"))));
        }
        if let Some(place) = self.slots.get_mut(at) {
            *place = held;
        }
    }

    /// As it is where one of those numbers was drawn that stand at these places.
    pub(super) fn drawn(&self, slot: ValueSlot, places: &[usize]) -> Self {
        let Some(SlotValue::Words(words)) = self.slots.get(usize::from(slot)) else {
            return self.clone();
        };
        let some: Words = places.iter().filter_map(|at| words.get(*at).copied()).collect();
        let mut branch = self.in_cases(some.len(), words.len());
        branch.hold(slot, SlotValue::one_of(some));
        branch
    }

    pub(super) fn ipv6(&self) -> bool {
        self.packet.destination.is_ipv6()
    }

    pub(super) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}
