//! A chain, and the chains that it leads to.

use std::sync::Arc;

use super::branch::Branch;
use super::hook::{End, Traversal};
use super::machine::{self, Ended, Place, Ran};
use crate::model::{ChainId, Rule, RuleVerdict};

/// How deep chains may call each other. nf_tables allows 16; legacy tables refuse
/// only loops.
const DEPTH: usize = 128;
/// How many branches one hook may make.
const BRANCHES: usize = 512;
/// How many rules one hook may run.
const RULES: u32 = 1_000_000;

/// A chain that a branch is in, and where there. Kept by hand: chains of others must
/// not decide how much of the thread's stack is used.
#[derive(Clone)]
struct Frame {
    id: ChainId,
    rules: Arc<[Rule]>,
    /// The rule to run next.
    next: usize,
    /// Whether its end is the end of the chain that led here, too.
    gone: bool,
    /// How long the trail was behind the rule that led here.
    trail: usize,
}

impl Traversal<'_> {
    /// Runs a branch through a chain, to all the ends that it may come to.
    pub(super) fn chain(&self, id: &ChainId, mut branch: Branch) -> Vec<(Branch, End)> {
        let mut calls = Vec::new();
        if let Some(end) = self.enter(id, false, &mut branch, &mut calls) {
            return vec![(branch, end)];
        }
        let mut ends = Vec::new();
        let mut going = vec![(branch, calls)];
        while let Some((mut branch, mut calls)) = going.pop() {
            loop {
                let Some(frame) = calls.last_mut() else {
                    ends.push((branch, End::Return));
                    break;
                };
                if frame.next >= frame.rules.len() {
                    leave(&mut branch, &mut calls);
                    continue;
                }
                self.rules.set(self.rules.get() + 1);
                if self.rules.get() > RULES || self.branches.get() > BRANCHES {
                    ends.push((branch, End::Unknown));
                    break;
                }
                let at = frame.next;
                frame.next += 1;
                let place = Place { chain: &frame.id, rules: &frame.rules, at, hook: self.hook };
                match machine::run(self.source, &mut branch, place) {
                    Ran::One(ended) => {
                        if let Some(end) = self.after(ended, &mut branch, &mut calls) {
                            ends.push((branch, end));
                            break;
                        }
                    }
                    Ran::Many(all) => {
                        self.branches.set(self.branches.get() + all.len().saturating_sub(1));
                        // The first goes on first.
                        for (mut branch, ended) in all.into_iter().rev() {
                            let mut calls = calls.clone();
                            match self.after(ended, &mut branch, &mut calls) {
                                Some(end) => ends.push((branch, end)),
                                None => going.push((branch, calls)),
                            }
                        }
                        break;
                    }
                }
            }
        }
        ends
    }

    /// What the end of a rule leads to: another rule, or an end for good.
    fn after(&self, ended: Ended, branch: &mut Branch, calls: &mut Vec<Frame>) -> Option<End> {
        let call =
            |name, calls: &[Frame]| Some(ChainId { table: calls.last()?.id.table.clone(), name });
        match ended {
            Ended::Next => None,
            Ended::Settled => Some(End::Settled),
            Ended::Rejected(how) => Some(End::Rejected(how)),
            Ended::Unknown => Some(End::Unknown),
            Ended::Verdict(verdict) => match verdict {
                RuleVerdict::Accept => Some(End::Accept),
                RuleVerdict::Drop => Some(End::Drop),
                RuleVerdict::Queue => Some(End::Queue),
                RuleVerdict::Continue | RuleVerdict::Break => None,
                RuleVerdict::Return => {
                    leave(branch, calls);
                    None
                }
                RuleVerdict::Jump(name) => self.enter(&call(name, calls)?, false, branch, calls),
                RuleVerdict::Goto(name) => self.enter(&call(name, calls)?, true, branch, calls),
            },
        }
    }

    /// Into a chain, unless that is not possible.
    fn enter(
        &self,
        id: &ChainId,
        gone: bool,
        branch: &mut Branch,
        calls: &mut Vec<Frame>,
    ) -> Option<End> {
        if calls.len() > DEPTH {
            return Some(End::Unknown);
        }
        let Some(rules) = self.source.chain(id) else { return Some(End::Unknown) };
        calls.push(Frame { id: id.clone(), rules, next: 0, gone, trail: branch.trail.len() });
        None
    }
}

/// Back to the chain that called.
fn leave(branch: &mut Branch, calls: &mut Vec<Frame>) {
    while let Some(frame) = calls.pop() {
        // A call that came back without having done anything is not worth telling.
        if !calls.is_empty() && branch.trail.len() == frame.trail {
            branch.trail.truncate(frame.trail.saturating_sub(1).max(branch.kept));
        }
        if !frame.gone {
            return;
        }
    }
}
