//! The tables of ip_tables and ip6_tables, which iptables-legacy writes.
//!
//! Kernel: `net/ipv4/netfilter/ip_tables.c`, `net/ipv6/netfilter/ip6_tables.c`;
//! structures in `linux/netfilter_ipv4/ip_tables.h` and its likes. A table comes as
//! one blob, a consistent snapshot of it. It is kept as it is: of a table with many
//! thousand rules a path needs few, so a chain's rules are made when they are asked
//! for, and reading a table only notes where its chains are.

mod calls;
mod entry;
mod fields;
mod index;
#[cfg(test)]
mod tests;

use std::io;

use self::calls::RawTable;
use self::entry::{EntryLayout, XtEntry};
use self::index::ChainIndex;
use whereis_port_model::{
    BaseChain, ChainId, ChainKind, Family, Hook, NetnsId, Rule, RuleVerdict, RulesBackend, TableId,
};

/// One table as the kernel gave it.
pub(in crate::live::rules) struct LegacyTable {
    id: TableId,
    ipv6: bool,
    index: ChainIndex,
}

impl std::fmt::Debug for LegacyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} bytes", self.id, self.index.entries.len())
    }
}

/// What the kernel tells of those tables without their rules: most changes of these
/// change the tables' sizes.
pub(in crate::live::rules) fn sizes() -> io::Result<Vec<Vec<u8>>> {
    let mut sizes = calls::sizes(false)?;
    sizes.extend(calls::sizes(true)?);
    Ok(sizes)
}

/// The tables of the calling thread's namespace that exist, IPv4's first. None is
/// made by asking for it. Needs `CAP_NET_ADMIN` in the namespace.
/// `take` is asked for room before one is read.
pub(in crate::live::rules) fn tables(
    netns: NetnsId,
    take: impl Fn(usize) -> bool,
) -> io::Result<Vec<LegacyTable>> {
    let mut tables = Vec::new();
    for ipv6 in [false, true] {
        for raw in calls::read(ipv6, &take)? {
            tables.push(LegacyTable::new(netns, ipv6, raw)?);
        }
    }
    Ok(tables)
}

impl LegacyTable {
    fn new(netns: NetnsId, ipv6: bool, raw: RawTable) -> io::Result<Self> {
        let RawTable { name, info, entries } = raw;
        let family = if ipv6 { Family::Ip6 } else { Family::Ip };
        let id = TableId { netns, backend: RulesBackend::Legacy, family, name: name.into() };
        let index = ChainIndex::new(EntryLayout::of(ipv6), &info, entries).ok_or_else(|| {
            let reason = format!("the kernel's table {id} has an entry of an odd size");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })?;
        Ok(Self { id, ipv6, index })
    }

    /// Which.
    pub(in crate::live::rules) fn id(&self) -> &TableId {
        &self.id
    }

    /// The chains that hang in a hook.
    pub(in crate::live::rules) fn base_chains(&self) -> Vec<BaseChain> {
        let layout = EntryLayout::of(self.ipv6);
        let base = |hook: &index::HookChain| {
            let policy = XtEntry::at(layout, &self.index.entries, hook.span.end)?;
            Some(BaseChain {
                id: ChainId { table: self.id.clone(), name: hook.name.into() },
                handle: None,
                hook: hook.hook,
                priority: priority(&self.id.name, hook.hook),
                kind: kind(&self.id.name, hook.hook),
                accepts: self.index.verdict(&policy) != Some(RuleVerdict::Drop),
                devices: Vec::new(),
            })
        };
        self.index.bases.iter().filter_map(base).collect()
    }

    /// The rules of a chain; `None` when there is none of that name.
    pub(in crate::live::rules) fn chain(&self, name: &str) -> Option<Vec<Rule>> {
        let mut rules = Vec::new();
        for (number, entry) in (1..).zip(self.index.rules(name)?) {
            rules.push(match entry {
                Some(entry) => fields::rule(number, &entry, &self.index, self.ipv6),
                None => fields::damaged(number),
            });
        }
        Some(rules)
    }

    /// The names of all chains, those in hooks first.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(in crate::live::rules) fn chain_names(&self) -> impl Iterator<Item = std::sync::Arc<str>> {
        let bases = self.index.bases.iter().map(|base| base.name.into());
        bases.chain(self.index.user_chains())
    }
}

/// `enum nf_ip_hook_priorities`. Tables have the same for both families.
fn priority(table: &str, hook: Hook) -> i32 {
    match (table, hook) {
        ("raw", _) => -300,
        ("mangle", _) => -150,
        ("nat", Hook::Prerouting | Hook::Output) => -100,
        ("nat", _) => 100,
        ("security", _) => 50,
        _ => 0,
    }
}

fn kind(table: &str, hook: Hook) -> ChainKind {
    match (table, hook) {
        ("nat", _) => ChainKind::Nat,
        ("mangle", Hook::Output) => ChainKind::Route,
        _ => ChainKind::Filter,
    }
}

/// For the fuzz targets: `struct ipt_getinfo` and the entries.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(ipv6: bool, bytes: &[u8]) {
    let Some((head, entries)) = bytes.split_at_checked(index::TableInfo::SIZE) else { return };
    let Some(info) = index::TableInfo::parse(head) else { return };
    let raw = RawTable { name: "nat".to_owned(), info, entries: entries.to_vec().into() };
    if let Ok(table) = LegacyTable::new(NetnsId::Inode(1), ipv6, raw) {
        table.base_chains();
        for name in table.chain_names() {
            table.chain(&name);
        }
    }
}
