//! One of the ways that a packet may go through the rules of a hook.

use std::net::IpAddr;

use super::load::Tracked;
use super::regs::{Missing, Registers};
use super::{Packet, Step};
use crate::resolve::route::covers;

/// What is assumed on a branch, so that the same question gets the same answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Assumption {
    /// Tells questions apart.
    pub(super) key: String,
    pub(super) holds: bool,
}

/// A packet on its way, with all that led there.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) packet: Packet,
    pub(super) regs: Registers,
    pub(super) tracked: Tracked,
    pub(super) probability: f64,
    pub(super) assumed: Vec<Assumption>,
    /// Networks that the client is assumed to be in, or not to be in.
    pub(super) clients: Vec<(IpAddr, u8, bool)>,
    pub(super) notes: Vec<String>,
    pub(super) trail: Vec<Step>,
    /// How many steps of the trail stay, even if a call among them led to nothing.
    pub(super) kept: usize,
}

impl Branch {
    pub(super) fn new(packet: Packet) -> Self {
        Self {
            packet,
            regs: Registers::new(),
            tracked: Tracked::NotYet,
            probability: 1.0,
            assumed: Vec::new(),
            clients: Vec::new(),
            notes: Vec::new(),
            trail: Vec::new(),
            kept: 0,
        }
    }

    /// What was assumed of this question before, on this branch.
    pub(super) fn knows(&self, key: &str) -> Option<bool> {
        self.assumed.iter().find(|a| a.key == key).map(|a| a.holds)
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

    pub(super) fn assuming(mut self, key: String, holds: bool) -> Self {
        self.assumed.push(Assumption { key, holds });
        self
    }

    /// As it is in so many cases, of all as likely.
    pub(super) fn in_cases(&self, count: usize, all: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "some thousand")]
        let share = count as f64 / all.max(1) as f64;
        Self { probability: self.probability * share, ..self.clone() }
    }

    pub(super) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

impl Assumption {
    /// In words.
    pub(super) fn text(&self) -> String {
        match (self.key.split_once(" is "), self.holds) {
            (_, true) => self.key.clone(),
            (Some((what, rest)), false) => format!("{what} is not {rest}"),
            (None, false) => format!("not: {}", self.key),
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
        Missing::Choice | Missing::Random => "a random number",
    }
}
