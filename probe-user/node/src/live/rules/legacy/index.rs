//! Where the chains of a table are.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::calls::TableEntries;
use super::entry::{EntryLayout, XtEntry};
use whereis_port_model::{Hook, RuleVerdict};

/// The hooks by their number (`enum nf_inet_hooks`), and the chains in them.
const HOOKS: [(Hook, &str); 5] = [
    (Hook::Prerouting, "PREROUTING"),
    (Hook::Input, "INPUT"),
    (Hook::Forward, "FORWARD"),
    (Hook::Output, "OUTPUT"),
    (Hook::Postrouting, "POSTROUTING"),
];

/// The target of a chain's head.
const ERROR: &[u8] = b"ERROR\0";
/// Length of that target (`struct xt_error_target`).
const HEAD: usize = 64;

/// `struct ipt_getinfo`, `struct ip6t_getinfo`.
#[derive(Debug, Clone)]
pub(super) struct TableInfo {
    /// A bit for each hook that the table has a chain in.
    valid_hooks: u32,
    /// Where the chains in the hooks begin.
    hook_entry: [usize; 5],
    /// Where their policies are.
    underflow: [usize; 5],
    /// Length of all entries.
    pub(super) size: usize,
}

impl TableInfo {
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

/// A base chain of a legacy table: where it begins and ends.
pub(super) struct HookChain {
    pub(super) hook: Hook,
    pub(super) name: &'static str,
    /// Its rules. At the end is its policy.
    pub(super) span: Range<usize>,
}

/// Where the chains are. Of a table of many thousand chains a path meets a few: those
/// that are not in a hook are found by the jumps that lead to them, and all of them
/// are looked for only when another one is asked for.
pub(super) struct ChainIndex {
    pub(super) entries: TableEntries,
    layout: &'static EntryLayout,
    pub(super) bases: Vec<HookChain>,
    met: RefCell<Met>,
    all: OnceCell<Met>,
}

/// Chains that are in no hook.
#[derive(Default)]
struct Met {
    /// By where their first rule is.
    names: HashMap<usize, Arc<str>>,
    /// Where their first rule is. Of two chains of one name the first one counts.
    starts: HashMap<Arc<str>, usize>,
}

impl Met {
    fn add(&mut self, name: &Arc<str>, start: usize) {
        self.names.insert(start, Arc::clone(name));
        self.starts.entry(Arc::clone(name)).or_insert(start);
    }
}

impl ChainIndex {
    /// `None` when these are no entries of a table.
    pub(super) fn new(
        layout: &'static EntryLayout,
        info: &TableInfo,
        entries: TableEntries,
    ) -> Option<Self> {
        let mut bases = Vec::new();
        for (number, (hook, name)) in HOOKS.into_iter().enumerate() {
            let span = *info.hook_entry.get(number)?..*info.underflow.get(number)?;
            if info.valid_hooks & 1 << number != 0 {
                XtEntry::at(layout, &entries, span.end).filter(|_| span.start <= span.end)?;
                bases.push(HookChain { hook, name, span });
            }
        }
        Some(Self { entries, layout, bases, met: RefCell::default(), all: OnceCell::new() })
    }

    /// The rules of a chain, in order, each `None` where its sizes can't be right: behind
    /// such a one nothing can be read.
    pub(super) fn rules(&self, name: &str) -> Option<Vec<Option<XtEntry<'_>>>> {
        let (start, end) = match self.bases.iter().find(|base| base.name == name) {
            Some(base) => (base.span.start, Some(base.span.end)),
            None => (self.start(name)?, None),
        };
        let mut rules = Vec::new();
        let mut at = start;
        // An entry has a length of its own at least, so this ends.
        while end.is_none_or(|end| at < end) {
            let entry = XtEntry::at(self.layout, &self.entries, at);
            match &entry {
                // The next chain's head. Before it is an entry that returns.
                Some(entry) if end.is_none() && entry.has_target(ERROR) => {
                    rules.pop();
                    break;
                }
                Some(entry) => at = entry.end(),
                None => {}
            }
            let is_damaged = entry.is_none();
            rules.push(entry);
            if is_damaged {
                break;
            }
        }
        Some(rules)
    }

    /// Where the first rule of a chain is that is in no hook.
    fn start(&self, name: &str) -> Option<usize> {
        let met = self.met.borrow().starts.get(name).copied();
        met.or_else(|| self.all().starts.get(name).copied())
    }

    /// The chain whose first rule is there.
    fn chain_at(&self, start: usize) -> Option<Arc<str>> {
        if let Some(name) = self.met.borrow().names.get(&start) {
            return Some(Arc::clone(name));
        }
        // Its head lies right before it, and heads are all of one length.
        let head = start.checked_sub(self.layout.length + HEAD);
        let head = head.and_then(|at| XtEntry::at(self.layout, &self.entries, at));
        let name = head.filter(|head| head.end() == start).and_then(|head| chain_of(&head));
        let name = name.filter(|_| start < self.entries.len());
        let name = name.or_else(|| self.all().names.get(&start).cloned())?;
        self.met.borrow_mut().add(&name, start);
        Some(name)
    }

    /// All chains that are in no hook, as far as the entries can be read.
    fn all(&self) -> &Met {
        self.all.get_or_init(|| {
            let (mut all, mut at) = (Met::default(), 0);
            while let Some(entry) = XtEntry::at(self.layout, &self.entries, at) {
                at = entry.end();
                // The table's last entry looks like a chain's head.
                if at < self.entries.len()
                    && let Some(name) = chain_of(&entry)
                {
                    all.add(&name, at);
                }
            }
            all
        })
    }

    #[cfg(test)]
    pub(super) fn has_looked_for_all(&self) -> bool {
        self.all.get().is_some()
    }

    /// The names of the chains that are in no hook, in the table's order.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn user_chains(&self) -> impl Iterator<Item = Arc<str>> {
        let mut all: Vec<_> = self.all().names.iter().collect();
        all.sort_unstable();
        all.into_iter().map(|(_, name)| Arc::clone(name))
    }

    /// What a standard target does (`struct xt_standard_target`); `None` for
    /// what does not make sense. One that leads to the next entry does nothing.
    pub(super) fn verdict(&self, entry: &XtEntry<'_>) -> Option<RuleVerdict> {
        let target = entry.target()?;
        let verdict = i32::from_ne_bytes(*target.data.first_chunk()?);
        Some(match verdict {
            -1 => RuleVerdict::Drop,
            -2 => RuleVerdict::Accept,
            -4 => RuleVerdict::Queue,
            -5 => RuleVerdict::Return,
            _ => {
                let to = usize::try_from(verdict).ok()?;
                if to == entry.end() {
                    return Some(RuleVerdict::Continue);
                }
                let name = self.chain_at(to)?;
                if entry.u8(entry.layout.flags) & entry.layout.goto != 0 {
                    RuleVerdict::Goto(name)
                } else {
                    RuleVerdict::Jump(name)
                }
            }
        })
    }
}

/// The name in a chain's head (`struct xt_error_target`).
fn chain_of(entry: &XtEntry<'_>) -> Option<Arc<str>> {
    if !entry.has_target(ERROR) {
        return None;
    }
    let target = entry.target()?;
    let name = target.data.get(..30).unwrap_or(target.data);
    let name = name.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into())
}
