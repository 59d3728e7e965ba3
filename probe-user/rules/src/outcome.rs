//! What becomes of a packet at a hook.

use std::sync::Arc;

use crate::Packet;
use crate::model::{ChainId, Condition, Element, Rejection, Rule};

/// What becomes of a packet at one hook: one of several possible ways.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The packet afterwards.
    pub packet: Packet,
    /// Whether it goes on.
    pub fate: Fate,
    /// How likely this is among those with the same assumptions: 0 to 1.
    pub probability: f64,
    /// What it takes for this to happen: `the client's address is in 10.42.0.0/16`,
    /// `limit`. Empty when it surely does.
    pub depends: Vec<Condition>,
    /// What may send single clients elsewhere: `session affinity for 10800 s`.
    pub notes: Vec<String>,
    /// The rules that did something: jumps, marks, NAT, verdicts.
    pub trail: Vec<Step>,
    /// How many ways more this stands for, which are not told apart.
    pub more: usize,
}

/// Whether a packet goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It passes the hook.
    Passes,
    /// It is dropped, by the last rule of the trail, or by the policy of a chain
    /// when that has no rule.
    Dropped,
    /// It is refused.
    Rejected(Rejection),
    /// A program in user space decides.
    Queued,
    /// What the last rule of the trail does to it is not modelled, or not known.
    NotModelled,
    /// Too many branches, too deep, or a loop: it is not known what becomes of it.
    Unknown,
}

/// A rule that did something to a packet.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its chain.
    pub chain: ChainId,
    /// The chain's rules.
    pub rules: Arc<[Rule]>,
    /// Which of them; `None` is the chain's policy.
    pub at: Option<usize>,
    /// The set element that a map led to, with its comment.
    pub element: Option<Element>,
}

impl Step {
    /// The rule; `None` for the chain's policy.
    #[inline]
    pub fn rule(&self) -> Option<&Rule> {
        self.rules.get(self.at?)
    }
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        (&self.chain, self.at, &self.element) == (&other.chain, other.at, &other.element)
    }
}
