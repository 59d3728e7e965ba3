//! A chain, and the chains that it leads to.

use std::cell::Cell;
use std::sync::Arc;

use super::branch::Branch;
use super::hook::{ChainExit, Traversal};
use super::lower::Chain;
use super::machine::{self, Ended, Ran, RulePosition};
use crate::model::{ChainId, RuleVerdict};

/// How deep chains may call each other. nf_tables allows 16; legacy tables refuse
/// only loops.
const DEPTH: usize = 128;
/// How many branches one hook may make.
const BRANCHES: usize = 512;
/// How many more for each part of a packet that stands for several: a port of a service
/// that many pods have.
const OF_A_PART: usize = 16;
/// How many chains that did nothing are remembered.
const IDLE: usize = 16_384;
/// How many rules one hook may run.
const RULES: u32 = 1_000_000;
/// What running a rule costs besides its parts, of which more than so many are hardly ever
/// run before one does not hold.
const RULE: usize = 2;
const PARTS: usize = 4;
/// What entering a chain costs, and a branch besides what it carries.
const CALL: usize = 16;
const BRANCH: usize = 64;

/// A chain that a branch is in, and where there. Kept by hand: chains of others must
/// not decide how much of the thread's stack is used.
#[derive(Clone)]
struct Frame {
    id: ChainId,
    chain: Arc<Chain>,
    /// The rule to run next.
    next: usize,
    /// Whether its end is the end of the chain that led here, too.
    gone: bool,
    /// How long the trail was behind the rule that led here.
    trail: usize,
    /// The version of the branch that came in.
    version: u64,
}

impl Traversal<'_> {
    /// Runs a branch through a chain, to all the ends that it may come to.
    pub(super) fn chain(&self, id: &ChainId, mut branch: Branch) -> Vec<(Branch, ChainExit)> {
        let mut calls = Vec::new();
        if let Some(end) = self.enter(id, false, &mut branch, &mut calls) {
            return vec![(branch, end)];
        }
        let mut ends = Vec::new();
        let mut going = vec![(branch, calls)];
        while let Some((mut branch, mut calls)) = going.pop() {
            loop {
                let Some(frame) = calls.last_mut() else {
                    ends.push((branch, ChainExit::Return));
                    break;
                };
                let Some(program) = frame.chain.programs.get(frame.next) else {
                    self.leave(&mut branch, &mut calls);
                    continue;
                };
                self.rules.set(self.rules.get() + 1);
                let affordable = self.source.spend(RULE + program.len().min(PARTS));
                let branches = BRANCHES + OF_A_PART * self.parts.get();
                if !affordable || self.rules.get() > RULES || self.branches.get() > branches {
                    ends.push((branch, ChainExit::Unknown));
                    break;
                }
                let at = frame.next;
                frame.next += 1;
                let parts = Cell::new(0);
                let (id, chain) = (&frame.id, &frame.chain);
                let place = RulePosition { id, chain, at, hook: self.hook, parts: &parts };
                let kept = branch.kept;
                let mut ran = machine::run(self.source, &mut branch, place);
                // A map that has one element for the packet makes no second branch.
                if let Ran::Many(all) = &mut ran
                    && all.len() == 1
                    && let Some((only, ended)) = all.pop()
                {
                    branch = only;
                    ran = Ran::One(ended);
                }
                match ran {
                    Ran::One(ended) => {
                        if branch.kept != kept {
                            branch.version = self.version();
                        }
                        if let Some(end) = self.after(ended, &mut branch, &mut calls) {
                            ends.push((branch, end));
                            break;
                        }
                    }
                    Ran::Many(all) => {
                        let more = all.len().saturating_sub(1).saturating_sub(parts.get());
                        self.branches.set(self.branches.get() + more);
                        self.parts.set(self.parts.get() + parts.get());
                        // The first goes on first.
                        for (mut branch, ended) in all.into_iter().rev() {
                            branch.version = self.version();
                            let carried = branch.assumed.len() + branch.trail.len() + calls.len();
                            self.source.spend(BRANCH + carried);
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
    fn after(
        &self,
        ended: Ended,
        branch: &mut Branch,
        calls: &mut Vec<Frame>,
    ) -> Option<ChainExit> {
        let call =
            |name, calls: &[Frame]| Some(ChainId { table: calls.last()?.id.table.clone(), name });
        match ended {
            Ended::Next => None,
            Ended::Settled => Some(ChainExit::Settled),
            Ended::Rejected(how) => Some(ChainExit::Rejected(how)),
            Ended::Unknown => Some(ChainExit::NotModelled),
            Ended::TooMany => Some(ChainExit::Unknown),
            Ended::Verdict(verdict) => match verdict {
                RuleVerdict::Accept => Some(ChainExit::Accept),
                RuleVerdict::Drop => Some(ChainExit::Drop),
                RuleVerdict::Queue => Some(ChainExit::Queue),
                RuleVerdict::Continue | RuleVerdict::Break => None,
                RuleVerdict::Return => {
                    self.leave(branch, calls);
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
    ) -> Option<ChainExit> {
        if calls.len() > DEPTH {
            return Some(ChainExit::Unknown);
        }
        self.source.spend(CALL);
        let Some(chain) = self.source.chain(id) else { return Some(ChainExit::Unknown) };
        // Where nothing was done before, nothing is done again.
        let is_idle = self.idle.borrow().contains(&(branch.version, id.clone()));
        let next = if is_idle { chain.programs.len() } else { 0 };
        let (trail, version) = (branch.trail.len(), branch.version);
        calls.push(Frame { id: id.clone(), chain, next, gone, trail, version });
        None
    }

    /// A number that no branch had before.
    fn version(&self) -> u64 {
        self.versions.set(self.versions.get() + 1);
        self.versions.get()
    }

    /// Back to the chain that called.
    fn leave(&self, branch: &mut Branch, calls: &mut Vec<Frame>) {
        while let Some(frame) = calls.pop() {
            // A call that came back without having done anything is not worth telling.
            if !calls.is_empty() && branch.trail.len() == frame.trail {
                branch.trail.truncate(frame.trail.saturating_sub(1).max(branch.kept));
                let room = self.idle.borrow().len() < IDLE;
                if room && branch.version == frame.version {
                    self.idle.borrow_mut().insert((frame.version, frame.id));
                }
            }
            if !frame.gone {
                return;
            }
        }
    }
}
