//! Packet rules, read from the kernel itself.
//!
//! Of each namespace first its ruleset is read: tables and base chains. Chains, sets
//! and elements are read as they are asked for, over the same socket, which stays
//! bound to its namespace: no thread has to enter it again.

#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod ipset;
mod legacy;
mod nft;
mod xt;

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use legacy::LegacyTable;
use nft::{Conversation, Failed, Tables};

use super::enter::{self, Door, Refused};
use super::{LiveNode, gaps, nat};
use crate::model::{
    Backend, Bytes, ChainId, Element, Gap, Impact, IpSet, IpSetId, NetnsId, Read, Rule, Ruleset,
    Set, SetId, Table,
};

/// How many sockets are kept open. Descriptors are few; a namespace beyond these is
/// entered again for each read.
const SOCKETS: usize = 256;
/// Chains of legacy tables with more rules than this are kept.
const LEGACY_RULES: usize = 32;
const SOURCE: &str = "packet rules";

/// What was read of rules so far, and the sockets it is read by.
#[derive(Debug, Default)]
pub(super) struct Rules {
    spaces: RefCell<HashMap<NetnsId, Result<Space, Trouble>>>,
    ip_sets: RefCell<HashMap<IpSetId, Read<Option<IpSet>>>>,
    has_nf_tables: OnceCell<bool>,
    sockets: AtomicUsize,
}

/// The rules of one namespace.
#[derive(Debug)]
struct Space {
    nft: Option<Nft>,
    legacy: Vec<LegacyTable>,
    legacy_chains: HashMap<ChainId, nft::Rules>,
    /// Why not all of it could be read.
    trouble: Option<Trouble>,
}

/// What a namespace has of nf_tables.
#[derive(Debug)]
struct Nft {
    tables: Tables,
    talk: Option<Conversation>,
}

/// Why rules could not be read. Also says which namespaces share a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    Gone,
    Entry(String),
    Denied(String),
    Changing,
    Failed(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied {
            Self::Denied(error.to_string())
        } else {
            Self::Failed(error.to_string())
        }
    }
}

impl From<Failed> for Trouble {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Changed => Self::Changing,
            Failed::Io(error) => error.into(),
        }
    }
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Gone => Self::Gone,
            refused => Self::Entry(gaps::reason(refused)),
        }
    }
}

impl Trouble {
    fn reason(&self) -> Option<&str> {
        match self {
            Self::Gone => None,
            Self::Changing => Some("the rules keep changing"),
            Self::Entry(why) | Self::Denied(why) | Self::Failed(why) => Some(why),
        }
    }

    fn gap(&self, source: String) -> Option<Gap> {
        let impact = if *self == Self::Changing { Impact::Reach } else { Impact::Port };
        let gap = Gap::new(impact, source, self.reason()?);
        Some(match self {
            Self::Entry(_) => gap.remedy("run as root, or with CAP_SYS_ADMIN"),
            Self::Denied(_) => gap.remedy("run as root, or with CAP_NET_ADMIN"),
            Self::Changing => gap.remedy("ask again"),
            Self::Gone | Self::Failed(_) => gap,
        })
    }
}

impl LiveNode {
    pub(super) fn rulesets_inside(&self, netns: &[NetnsId]) -> Read<Vec<Ruleset>> {
        self.read_spaces(netns);
        let spaces = self.rules.spaces.borrow();
        let read = netns.iter().filter_map(|id| Some((*id, spaces.get(id)?.as_ref().ok()?)));
        let value = read.filter_map(|(id, space)| space.ruleset(id)).collect();
        Read { value, gaps: troubles(netns, &spaces) }
    }

    pub(super) fn expect_all_rules(&self, netns: &[NetnsId]) {
        self.read_spaces(netns);
        for id in netns {
            // A failure is met again, and told, when a chain is asked for.
            let _ = self.with_nft(*id, |tables, talk| tables.expect_all(talk));
        }
    }

    pub(super) fn chain_rules(&self, chain: &ChainId) -> Read<Option<Arc<[Rule]>>> {
        let id = chain.table.netns;
        if chain.table.backend == Backend::Legacy {
            self.read_spaces(&[id]);
            let mut spaces = self.rules.spaces.borrow_mut();
            let Some(Ok(space)) = spaces.get_mut(&id) else { return Read::default() };
            return Read::whole(space.legacy_chain(chain));
        }
        self.with_nft(id, |tables, talk| tables.chain(chain, talk))
    }

    pub(super) fn set_of(&self, set: &SetId) -> Read<Option<Set>> {
        self.with_nft(set.table.netns, |tables, talk| tables.set(set, talk))
    }

    pub(super) fn elements_of(&self, set: &SetId) -> Read<Option<Arc<[Element]>>> {
        self.with_nft(set.table.netns, |tables, talk| tables.elements(set, talk))
    }

    pub(super) fn element_of(&self, set: &SetId, key: &Bytes) -> Read<Option<Element>> {
        self.with_nft(set.table.netns, |tables, talk| tables.element(set, key, talk))
    }

    pub(super) fn ip_set_of(&self, set: &IpSetId) -> Read<Option<IpSet>> {
        let mut memo = self.rules.ip_sets.borrow_mut();
        let read = memo.entry(set.clone()).or_insert_with(|| {
            let since = Instant::now();
            let doors = self.doors([set.netns]);
            let read = enter::in_each(&doors, |door| ipset::read(door.id, set.index)).pop();
            let result = match read {
                Some(Ok(read)) => read.map_err(Trouble::from),
                Some(Err(refused)) => Err(refused.into()),
                None => Err(Trouble::Gone),
            };
            let source = format!("ipset {} of netns {}", set.index, set.netns);
            let read = match result {
                Ok(value) => Read::whole(value),
                Err(trouble) => {
                    Read { value: None, gaps: trouble.gap(source).into_iter().collect() }
                }
            };
            self.log("ipset", since, &read.gaps, String::new());
            read
        });
        read.clone()
    }

    /// Reads the rulesets of these namespaces that were not read yet.
    fn read_spaces(&self, netns: &[NetnsId]) {
        let known = |id: &NetnsId| self.rules.spaces.borrow().contains_key(id);
        let missing: Vec<NetnsId> = netns.iter().copied().filter(|id| !known(id)).collect();
        if missing.is_empty() {
            return;
        }
        let since = Instant::now();
        let rules = &self.rules;
        let has_nf_tables = rules.has_nf_tables();
        let doors = self.doors(missing);
        let sockets = &rules.sockets;
        let work = |door: &Door| Space::read(door.id, has_nf_tables, sockets);
        let results = enter::in_each(&doors, work);
        let results = results.into_iter().map(|result| result.map_err(Trouble::from));
        let mut spaces = rules.spaces.borrow_mut();
        spaces.extend(doors.iter().map(|door| door.id).zip(results));
        let tables: usize = spaces.values().flatten().map(Space::tables).sum();
        let detail = format!("{tables} tables in {} namespaces", spaces.len());
        self.log(SOURCE, since, &troubles(netns, &spaces), detail);
    }

    /// Reads something of nf_tables in a namespace; nothing where that has no tables.
    fn with_nft<T: Default>(
        &self,
        id: NetnsId,
        read: impl FnOnce(&mut Tables, &mut Conversation) -> Result<T, Failed>,
    ) -> Read<T> {
        self.read_spaces(&[id]);
        let mut spaces = self.rules.spaces.borrow_mut();
        // That it could not be read was told with the ruleset.
        let Some(Ok(Space { nft: Some(nft), .. })) = spaces.get_mut(&id) else {
            return Read::default();
        };
        let since = Instant::now();
        let result = match &mut nft.talk {
            Some(talk) => read(&mut nft.tables, talk).map_err(Trouble::from),
            None => self
                .open_again(id)
                .and_then(|mut talk| read(&mut nft.tables, &mut talk).map_err(Trouble::from)),
        };
        let source = || format!("packet rules of netns {id}");
        let (value, trouble) = match result {
            Ok(value) => (value, None),
            Err(trouble) => (T::default(), Some(trouble)),
        };
        let mut gaps: Vec<Gap> =
            trouble.and_then(|trouble| trouble.gap(source())).into_iter().collect();
        if nft.tables.mixed && gaps.is_empty() {
            let why = "they changed while they were read: what is said of them may be mixed";
            gaps.push(Gap::new(Impact::Reach, source(), why).remedy("ask again"));
        }
        let mut detail = self.sources.borrow().get(SOURCE).map(|s| s.detail.clone());
        self.log(SOURCE, since, &gaps, detail.take().unwrap_or_default());
        Read { value, gaps }
    }

    fn open_again(&self, id: NetnsId) -> Result<Conversation, Trouble> {
        let opened = enter::in_each(&self.doors([id]), |_| Conversation::open()).pop();
        Ok(opened.unwrap_or(Err(Refused::Gone))??)
    }
}

impl Rules {
    /// Whether the kernel has nf_tables already: asking for rules would else load it.
    pub(super) fn has_nf_tables(&self) -> bool {
        *self.has_nf_tables.get_or_init(|| nat::has_module("nf_tables"))
    }
}

/// A number for the rules of the calling thread's namespace, which another ruleset does
/// not have: the generation of nf_tables, and the sizes of the tables of iptables-legacy.
/// `None` where the kernel does not tell.
pub(super) fn pulse(has_nf_tables: bool) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    if has_nf_tables {
        let mut talk = Conversation::open().ok()?;
        talk.generation().ok()?.hash(&mut hasher);
    }
    legacy::sizes().ok()?.hash(&mut hasher);
    Some(hasher.finish())
}

/// What of these namespaces could not be read, one gap for each reason.
fn troubles(netns: &[NetnsId], spaces: &HashMap<NetnsId, Result<Space, Trouble>>) -> Vec<Gap> {
    let trouble = |id: &NetnsId| match spaces.get(id)? {
        Ok(space) => space.trouble.as_ref(),
        Err(trouble) => Some(trouble),
    };
    let reason = |id: &NetnsId| Some((*id, trouble(id)?.reason()?.to_owned()));
    let reasons: Vec<_> = netns.iter().filter_map(reason).collect();
    let gap = |source: String, why: String, ids: &[NetnsId]| {
        let source = format!("packet rules of {source}");
        let gap = ids.first().and_then(trouble).and_then(|trouble| trouble.gap(source.clone()));
        gap.unwrap_or_else(|| Gap::new(Impact::Port, source, why))
    };
    gaps::each_reason(&reasons, gap)
}

impl Space {
    /// In the namespace of the calling thread.
    fn read(id: NetnsId, has_nf_tables: bool, sockets: &AtomicUsize) -> Self {
        let nft = if has_nf_tables { Nft::read(id, sockets) } else { Ok(None) };
        let (nft, trouble) = nft.map_or_else(|trouble| (None, Some(trouble)), |nft| (nft, None));
        let legacy = legacy::tables(id).map_err(Trouble::from);
        let (legacy, other) =
            legacy.map_or_else(|trouble| (Vec::new(), Some(trouble)), |legacy| (legacy, None));
        Self { nft, legacy, legacy_chains: HashMap::new(), trouble: trouble.or(other) }
    }

    fn tables(&self) -> usize {
        self.legacy.len() + self.nft.as_ref().map_or(0, |nft| nft.tables.tables.len())
    }

    fn ruleset(&self, netns: NetnsId) -> Option<Ruleset> {
        if self.tables() == 0 {
            return None;
        }
        let nft = self.nft.as_ref().map(|nft| &nft.tables);
        let table = |table: &LegacyTable| Table {
            id: table.id().clone(),
            handle: None,
            dormant: false,
            comment: None,
        };
        let mut tables = nft.map_or_else(Vec::new, |nft| nft.tables.clone());
        tables.extend(self.legacy.iter().map(table));
        let mut base_chains = nft.map_or_else(Vec::new, |nft| nft.base_chains.clone());
        base_chains.extend(self.legacy.iter().flat_map(LegacyTable::base_chains));
        Some(Ruleset {
            netns,
            generation: nft.map(|nft| nft.generation),
            // The kernel tells it only to those who listen when it happens.
            changed_by: None,
            tables,
            base_chains,
        })
    }

    fn legacy_chain(&mut self, chain: &ChainId) -> nft::Rules {
        if let Some(known) = self.legacy_chains.get(chain) {
            return known.clone();
        }
        let table = self.legacy.iter().find(|table| *table.id() == chain.table);
        let rules: nft::Rules = table.and_then(|table| table.chain(&chain.name)).map(Arc::from);
        // Short ones, of which there may be very many, are made anew as fast.
        if rules.as_ref().is_some_and(|rules| rules.len() > LEGACY_RULES) {
            self.legacy_chains.insert(chain.clone(), rules.clone());
        }
        rules
    }
}

impl Nft {
    /// `None` where there are no tables, or no nf_tables.
    fn read(id: NetnsId, sockets: &AtomicUsize) -> Result<Option<Self>, Trouble> {
        let read = Conversation::open().map_err(Failed::Io).and_then(|mut talk| {
            Tables::read(id, &mut talk).map(|tables| Self { tables, talk: Some(talk) })
        });
        match read {
            Ok(nft) if nft.tables.tables.is_empty() => Ok(None),
            Ok(mut nft) => {
                if sockets.fetch_add(1, Ordering::Relaxed) >= SOCKETS {
                    nft.talk = None;
                }
                Ok(Some(nft))
            }
            Err(failed) if failed.is_not_there() => Ok(None),
            Err(failed) => Err(failed.into()),
        }
    }
}
