//! Packet rules, read from the kernel itself.
//!
//! Of each namespace first its ruleset is read: tables and base chains. Chains, sets
//! and elements are read as they are asked for, over the same socket, which stays
//! bound to its namespace: no thread has to enter it again.

mod allowance;
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

use allowance::{Allowance, Allowances, NetnsClass};
use legacy::LegacyTable;
use nft::{Conversation, Failed, NftTables};

use super::enter::{EnterError, NetnsHandle};
use super::timeout::TimedRead;
use super::{LiveNode, gaps, nat};
use crate::Netfilter;
use whereis_port_model::{
    Bytes, ChainId, Element, Gap, GapKind, GapSource, Impact, IpSet, IpSetId, IpSetMember, Netns,
    NetnsId, Read, Rule, RulesBackend, Ruleset, Set, SetId, Table,
};

/// How many sockets are kept open. Descriptors are few; a namespace beyond these is
/// entered again for each read.
const SOCKETS: usize = 256;
/// Chains of legacy tables with more rules than this are kept.
const LEGACY_RULES: usize = 32;
const SOURCE: &str = "packet rules";

/// What was read of rules so far, and the sockets of netfilter it is read by.
#[derive(Debug, Default)]
pub(super) struct RuleReader {
    spaces: RefCell<HashMap<NetnsId, Result<NetnsRules, RulesError>>>,
    ip_sets: RefCell<HashMap<IpSetId, Read<Option<IpSet>>>>,
    has_nf_tables: OnceCell<bool>,
    sockets: Arc<AtomicUsize>,
    allowances: Allowances,
}

/// The rules of one namespace, as far as they were read.
#[derive(Debug)]
struct NetnsRules {
    nft: Option<Nft>,
    legacy: Vec<LegacyTable>,
    legacy_chains: HashMap<ChainId, nft::ChainRules>,
    /// Why not all of it could be read.
    trouble: Option<RulesError>,
}

/// What a namespace has of nf_tables.
#[derive(Debug)]
struct Nft {
    tables: NftTables,
    talk: Option<Conversation>,
}

/// Why rules could not be read. Also says which namespaces share a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RulesError {
    Gone,
    Entry(String),
    Denied(String),
    Changing,
    Busy,
    /// More than is read: what.
    TooMuch(String),
    /// There was no time left for it.
    Late(Gap),
    Failed(String),
}

impl From<io::Error> for RulesError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied {
            Self::Denied(error.to_string())
        } else {
            Self::Failed(error.to_string())
        }
    }
}

impl From<Failed> for RulesError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Changed => Self::Changing,
            Failed::Busy => Self::Busy,
            Failed::TooMuch => Self::TooMuch("it has more rules than are read".to_owned()),
            Failed::TooMany(set) => Self::TooMuch(format!(
                "set {} of {} has more elements than are read",
                set.name, set.table
            )),
            Failed::Io(error) => error.into(),
        }
    }
}

impl From<EnterError> for RulesError {
    fn from(refused: EnterError) -> Self {
        match refused {
            EnterError::Gone => Self::Gone,
            refused => Self::Entry(gaps::reason(refused)),
        }
    }
}

impl RulesError {
    fn reason(&self) -> Option<&str> {
        match self {
            Self::Gone => None,
            Self::Changing => Some("the rules keep changing"),
            Self::Busy => Some("a change of the rules is being made, and takes long"),
            Self::Late(gap) => Some(&gap.reason),
            Self::TooMuch(why) => Some(why),
            Self::Entry(why) | Self::Denied(why) | Self::Failed(why) => Some(why),
        }
    }

    fn gap(&self, source: GapSource) -> Option<Gap> {
        let impact = if *self == Self::Changing { Impact::Reach } else { Impact::Port };
        let gap = Gap::new(impact, source, self.reason()?);
        Some(match self {
            Self::Entry(_) => gap.remedy("run as root, or with CAP_SYS_ADMIN"),
            Self::Denied(_) => gap.remedy("run as root, or with CAP_NET_ADMIN"),
            Self::Changing | Self::Busy => gap.remedy("ask again"),
            Self::Late(late) => Gap { remedy: late.remedy.clone(), ..gap },
            Self::TooMuch(_) => gap.remedy("ask inside of it, where more is read: nsenter --net"),
            Self::Gone | Self::Failed(_) => gap,
        })
    }
}

impl Netfilter for LiveNode {
    fn rulesets(&self, netns: &[NetnsId]) -> Read<Vec<Ruleset>> {
        self.read_spaces(netns);
        let spaces = self.rules.spaces.borrow();
        let read = netns.iter().filter_map(|id| Some((*id, spaces.get(id)?.as_ref().ok()?)));
        let value = read.filter_map(|(id, space)| space.ruleset(id)).collect();
        Read { value, gaps: troubles(netns, &spaces) }
    }

    fn chain(&self, chain: &ChainId) -> Read<Option<Arc<[Rule]>>> {
        let id = chain.table.netns;
        if chain.table.backend == RulesBackend::Legacy {
            self.read_spaces(&[id]);
            let mut spaces = self.rules.spaces.borrow_mut();
            let Some(Ok(space)) = spaces.get_mut(&id) else { return Read::default() };
            return Read::whole(space.legacy_chain(chain));
        }
        self.with_nft(id, |tables, talk| tables.chain(chain, talk))
    }

    fn set(&self, set: &SetId) -> Read<Option<Set>> {
        self.with_nft(set.table.netns, |tables, talk| tables.set(set, talk))
    }

    fn set_elements(&self, set: &SetId) -> Read<Option<Arc<[Element]>>> {
        self.with_nft(set.table.netns, |tables, talk| tables.elements(set, talk))
    }

    fn set_element(&self, set: &SetId, key: &Bytes) -> Read<Option<Element>> {
        self.with_nft(set.table.netns, |tables, talk| tables.element(set, key, talk))
    }

    fn ip_set(&self, set: &IpSetId) -> Read<Option<IpSet>> {
        let mut memo = self.rules.ip_sets.borrow_mut();
        let read = memo.entry(set.clone()).or_insert_with(|| {
            let since = Instant::now();
            let doors = self.doors([set.netns]);
            let (reading, is_late) = self.reading_of(set.netns);
            let allowance = self.allowance(set.netns);
            let is_left = allowance.take(1);
            let read = match is_late || !is_left {
                true => None,
                false => {
                    let index = set.index;
                    self.pool.in_each(&doors, move |door| ipset::read(door.id, index)).pop()
                }
            };
            drop(reading);
            let size = |set: &IpSet| {
                set.members.as_ref().map_or(0, Vec::len) * std::mem::size_of::<IpSetMember>()
            };
            let result = match read {
                None if is_late => Err(self.late()),
                None if !is_left => Err(Failed::TooMuch.into()),
                Some(Ok(Ok(Some(read)))) if !allowance.take(size(&read)) => {
                    Err(Failed::TooMuch.into())
                }
                Some(Ok(read)) => read.map_err(RulesError::from),
                Some(Err(refused)) => Err(refused.into()),
                None => Err(RulesError::Gone),
            };
            let source = format!("ipset {} of netns {}", set.index, set.netns);
            let source = GapSource::new(GapKind::IpSet, source);
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
}

impl LiveNode {
    /// Reads all rules of these namespaces, by one dump of each.
    pub(super) fn read_all_rules(&self, netns: &[NetnsId]) {
        self.read_spaces(netns);
        for id in netns {
            // A failure is met again, and told, when a chain is asked for.
            let _ = self.with_nft(*id, |tables, talk| tables.expect_all(talk));
        }
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
        // What users made comes last: it may take all the time that is left.
        let mut missing: Vec<(NetnsClass, NetnsId)> =
            missing.into_iter().map(|id| (self.whose(id), id)).collect();
        missing.sort_by_key(|(whose, _)| *whose);
        let (home, others): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|(whose, _)| *whose == NetnsClass::Home);
        let mut spaces = rules.spaces.borrow_mut();
        let late = self.late();
        let mut read = |some: Vec<(NetnsClass, NetnsId)>, end: Option<Instant>| {
            let allowances: HashMap<NetnsId, Arc<Allowance>> =
                some.iter().map(|(_, id)| (*id, self.allowance(*id))).collect();
            let doors = self.doors(some.into_iter().map(|(_, id)| id));
            let (late, sockets) = (late.clone(), Arc::clone(&rules.sockets));
            let work = move |door: &NetnsHandle| {
                if end.is_some_and(|end| Instant::now() >= end) {
                    return Err(late.clone());
                }
                let allowance = allowances.get(&door.id).map(Arc::clone);
                let allowance = allowance.unwrap_or_else(Allowance::unlimited);
                Ok(NetnsRules::read(door.id, has_nf_tables, &sockets, &allowance))
            };
            let results = self.pool.in_each(&doors, work).into_iter();
            let results =
                results.map(|result| result.map_err(RulesError::from).and_then(|read| read));
            spaces.extend(doors.iter().map(|door| door.id).zip(results));
        };
        read(home, None);
        let reading = self.timeout.begin();
        let end = Instant::now() + self.timeout.left();
        read(others, Some(end));
        drop(reading);
        let tables: usize = spaces.values().flatten().map(NetnsRules::tables).sum();
        let detail = format!("{tables} tables in {} namespaces", spaces.len());
        self.log(SOURCE, since, &troubles(netns, &spaces), detail);
    }

    /// Reads something of nf_tables in a namespace; nothing where that has no tables.
    fn with_nft<T: Default>(
        &self,
        id: NetnsId,
        read: impl FnOnce(&mut NftTables, &mut Conversation) -> Result<T, Failed>,
    ) -> Read<T> {
        self.read_spaces(&[id]);
        let (_reading, is_late) = self.reading_of(id);
        let mut spaces = self.rules.spaces.borrow_mut();
        // That it could not be read was told with the ruleset.
        let Some(Ok(NetnsRules { nft: Some(nft), .. })) = spaces.get_mut(&id) else {
            return Read::default();
        };
        let since = Instant::now();
        let result = match &mut nft.talk {
            _ if is_late => Err(self.late()),
            Some(talk) => read(&mut nft.tables, talk).map_err(RulesError::from),
            None => self
                .open_again(id)
                .and_then(|mut talk| read(&mut nft.tables, &mut talk).map_err(RulesError::from)),
        };
        // It is opened again when something else is asked.
        if nft.talk.as_ref().is_some_and(Conversation::is_spoilt) {
            nft.talk = None;
        }
        let source = || GapSource::new(GapKind::PacketRules, format!("netns {id}"));
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

    fn open_again(&self, id: NetnsId) -> Result<Conversation, RulesError> {
        let allowance = self.allowance(id);
        let open = move |_: &NetnsHandle| Conversation::open(Arc::clone(&allowance));
        let opened = self.pool.in_each(&self.doors([id]), open).pop();
        Ok(opened.unwrap_or(Err(EnterError::Gone))??)
    }

    fn whose(&self, id: NetnsId) -> NetnsClass {
        let found = &self.found().0;
        let of_users = || found.netns.get(&id).is_some_and(Netns::is_of_other_users);
        match [found.own, found.initial].contains(&Some(id)) {
            true => NetnsClass::Home,
            false if of_users() => NetnsClass::Users,
            false => NetnsClass::System,
        }
    }

    fn late(&self) -> RulesError {
        RulesError::Late(self.timeout.gap(Impact::Port, GapKind::PacketRules))
    }

    fn allowance(&self, id: NetnsId) -> Arc<Allowance> {
        self.rules.allowances.of(id, self.whose(id))
    }

    /// Counts the time of reading a namespace's rules, where that is optional; and whether
    /// there is none left for it.
    fn reading_of(&self, id: NetnsId) -> (Option<TimedRead<'_>>, bool) {
        if self.whose(id) == NetnsClass::Home {
            return (None, false);
        }
        let reading = self.timeout.begin();
        let is_late = reading.is_none();
        (reading, is_late)
    }
}

impl RuleReader {
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
        let mut talk = Conversation::open(Allowance::unlimited()).ok()?;
        talk.generation().ok()?.hash(&mut hasher);
    }
    legacy::sizes().ok()?.hash(&mut hasher);
    Some(hasher.finish())
}

/// What of these namespaces could not be read, one gap for each reason.
fn troubles(
    netns: &[NetnsId],
    spaces: &HashMap<NetnsId, Result<NetnsRules, RulesError>>,
) -> Vec<Gap> {
    let trouble = |id: &NetnsId| match spaces.get(id)? {
        Ok(space) => space.trouble.as_ref(),
        Err(trouble) => Some(trouble),
    };
    let reason = |id: &NetnsId| Some((*id, trouble(id)?.reason()?.to_owned()));
    let reasons: Vec<_> = netns.iter().filter_map(reason).collect();
    let gap = |source: String, why: String, ids: &[NetnsId]| {
        let source = GapSource::new(GapKind::PacketRules, source);
        let gap = ids.first().and_then(trouble).and_then(|trouble| trouble.gap(source.clone()));
        gap.unwrap_or_else(|| Gap::new(Impact::Port, source, why))
    };
    gaps::each_reason(&reasons, gap)
}

impl NetnsRules {
    /// In the namespace of the calling thread.
    fn read(
        id: NetnsId,
        has_nf_tables: bool,
        sockets: &AtomicUsize,
        allowance: &Arc<Allowance>,
    ) -> Self {
        let nft = if has_nf_tables { Nft::read(id, sockets, allowance) } else { Ok(None) };
        let (nft, trouble) = nft.map_or_else(|trouble| (None, Some(trouble)), |nft| (nft, None));
        let legacy = legacy::tables(id, |bytes| allowance.take(bytes));
        let legacy = legacy.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => Failed::TooMuch.into(),
            _ => RulesError::from(error),
        });
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

    fn legacy_chain(&mut self, chain: &ChainId) -> nft::ChainRules {
        if let Some(known) = self.legacy_chains.get(chain) {
            return known.clone();
        }
        let table = self.legacy.iter().find(|table| *table.id() == chain.table);
        let rules: nft::ChainRules =
            table.and_then(|table| table.chain(&chain.name)).map(Arc::from);
        // Short ones, of which there may be very many, are made anew as fast.
        if rules.as_ref().is_some_and(|rules| rules.len() > LEGACY_RULES) {
            self.legacy_chains.insert(chain.clone(), rules.clone());
        }
        rules
    }
}

impl Nft {
    /// `None` where there are no tables, or no nf_tables.
    fn read(
        id: NetnsId,
        sockets: &AtomicUsize,
        allowance: &Arc<Allowance>,
    ) -> Result<Option<Self>, RulesError> {
        let read =
            Conversation::open(Arc::clone(allowance)).map_err(Failed::Io).and_then(|mut talk| {
                NftTables::read(id, &mut talk).map(|tables| Self { tables, talk: Some(talk) })
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
