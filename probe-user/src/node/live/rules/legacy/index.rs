//! Where the chains of a table are.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::entry::{Entry, Layout};
use crate::model::{Hook, RuleVerdict as Verdict};

/// The hooks by their number (`enum nf_inet_hooks`), and the chains in them.
const HOOKS: [(Hook, &str); 5] = [
    (Hook::Prerouting, "PREROUTING"),
    (Hook::Input, "INPUT"),
    (Hook::Forward, "FORWARD"),
    (Hook::Output, "OUTPUT"),
    (Hook::Postrouting, "POSTROUTING"),
];

/// `struct ipt_getinfo`, `struct ip6t_getinfo`.
#[derive(Debug, Clone)]
pub(super) struct Info {
    /// A bit for each hook that the table has a chain in.
    valid_hooks: u32,
    /// Where the chains in the hooks begin.
    hook_entry: [usize; 5],
    /// Where their policies are.
    underflow: [usize; 5],
    /// Length of all entries.
    pub(super) size: usize,
}

impl Info {
    pub(super) const SIZE: usize = 84;

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| -> Option<u32> {
            Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
        };
        let five = |at: usize| -> Option<[usize; 5]> {
            let mut offsets = [0; 5];
            for (hook, offset) in offsets.iter_mut().enumerate() {
                *offset = u32_at(at + 4 * hook)?.try_into().ok()?;
            }
            Some(offsets)
        };
        Some(Self {
            valid_hooks: u32_at(32)?,
            hook_entry: five(36)?,
            underflow: five(56)?,
            size: u32_at(80)?.try_into().ok()?,
        })
    }
}

/// A chain in a hook.
pub(super) struct Base {
    pub(super) hook: Hook,
    pub(super) name: &'static str,
    /// Its rules. At the end is its policy.
    pub(super) span: Range<usize>,
}

/// Where the chains are.
pub(super) struct Index {
    pub(super) bases: Vec<Base>,
    /// Names of the other chains, and where their rules are, in the table's order.
    users: Vec<(Arc<str>, Range<usize>)>,
    by_name: HashMap<Arc<str>, Range<usize>>,
}

impl Index {
    /// `None` when the entries do not make up a table.
    pub(super) fn new(layout: &'static Layout, info: &Info, entries: &[u8]) -> Option<Self> {
        let mut users: Vec<(Arc<str>, Range<usize>)> = Vec::new();
        let (mut at, mut last) = (0, 0);
        while at < entries.len() {
            let entry = Entry::at(layout, entries, at)?;
            if let Some(name) = chain_of(&entry) {
                // The chain before ends with an entry that returns.
                if let Some((_, span)) = users.last_mut() {
                    span.end = last;
                }
                // The table's last entry looks like a chain's head.
                if entry.end() < entries.len() {
                    users.push((name, entry.end()..entry.end()));
                }
            }
            (last, at) = (at, entry.end());
        }
        let mut bases = Vec::new();
        for (number, (hook, name)) in HOOKS.into_iter().enumerate() {
            let span = *info.hook_entry.get(number)?..*info.underflow.get(number)?;
            if info.valid_hooks & 1 << number != 0 {
                Entry::at(layout, entries, span.end).filter(|_| span.start <= span.end)?;
                bases.push(Base { hook, name, span });
            }
        }
        // Of two chains of one name the first one counts.
        let by_name = users.iter().rev().cloned().collect();
        Some(Self { bases, users, by_name })
    }

    /// Where the rules of a chain are.
    pub(super) fn span(&self, name: &str) -> Option<Range<usize>> {
        let base = self.bases.iter().find(|base| base.name == name);
        base.map(|base| &base.span).or_else(|| self.by_name.get(name)).cloned()
    }

    /// The names of the chains that are in no hook.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn user_chains(&self) -> impl Iterator<Item = Arc<str>> {
        self.users.iter().map(|(name, _)| name.clone())
    }

    /// What a standard target does (`struct xt_standard_target`); `None` for
    /// what does not make sense. One that leads to the next entry does nothing.
    pub(super) fn verdict(&self, entry: &Entry<'_>) -> Option<Verdict> {
        let target = entry.target()?;
        let verdict = i32::from_ne_bytes(*target.data.first_chunk()?);
        Some(match verdict {
            -1 => Verdict::Drop,
            -2 => Verdict::Accept,
            -4 => Verdict::Queue,
            -5 => Verdict::Return,
            _ => {
                let to = usize::try_from(verdict).ok()?;
                if to == entry.end() {
                    return Some(Verdict::Continue);
                }
                let chain = self.users.binary_search_by_key(&to, |(_, span)| span.start).ok()?;
                let name = self.users.get(chain)?.0.clone();
                if entry.u8(entry.layout.flags) & entry.layout.goto != 0 {
                    Verdict::Goto(name)
                } else {
                    Verdict::Jump(name)
                }
            }
        })
    }
}

/// The name in a chain's head (`struct xt_error_target`).
fn chain_of(entry: &Entry<'_>) -> Option<Arc<str>> {
    if !entry.has_target(b"ERROR\0") {
        return None;
    }
    let target = entry.target()?;
    let name = target.data.get(..30).unwrap_or(target.data);
    let name = name.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into())
}
