//! Which ports the rules of a namespace take: for `list`, and to know what to ask.
//!
//! The rules are read as a structure, not run: every chain that a hook leads to is
//! looked at once for what it tests of protocol, destination address and port. What it
//! tests besides (interfaces, sources, marks) decides for whom a port is taken, not
//! whether it is.

mod cond;
mod parse;
pub(in crate::resolve) mod services;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::dialect::{self, Meaning};
use super::{Source, Step};
use crate::model::{ChainId, ChainKind, Family, Hook, Proto, RouteKind, RouteQuery, Ruleset};
use cond::{Cond, Dst};
use parse::{Act, Branch, Parsed, Target};

/// A port that rules take, with or without a socket.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::resolve) struct Taken {
    pub(in crate::resolve) proto: Proto,
    /// The address; `None` for every address of the namespace.
    pub(in crate::resolve) address: Option<IpAddr>,
    pub(in crate::resolve) port: u16,
    /// Whether it is IPv6 that is taken.
    pub(in crate::resolve) ipv6: bool,
    /// Where it leads: at most [`Taken::TARGETS`], then how many there are.
    pub(in crate::resolve) targets: Vec<(IpAddr, u16)>,
    pub(in crate::resolve) total: usize,
    pub(in crate::resolve) meaning: Meaning,
    /// Whether all packets to it are refused or dropped.
    pub(in crate::resolve) refused: bool,
}

impl Taken {
    /// How many targets are kept.
    pub(in crate::resolve) const TARGETS: usize = 4;
}

/// How deep chains call each other: the kernel allows 16.
const MAX_DEPTH: usize = 32;
/// How many ports of one rule are listed: a range of more is no published port.
const MAX_PORTS: usize = 1024;

/// Every port of this namespace's addresses that rules translate, redirect or refuse
/// for want of a backend. Addresses of services that are not the namespace's are left
/// out. In the order of port, protocol and address.
pub(in crate::resolve) fn taken(source: &dyn Source, ruleset: &Ruleset) -> Vec<Taken> {
    let mut search = Search::new(source, ruleset);
    for base in &ruleset.base_chains {
        if base.kind == ChainKind::Nat && matches!(base.hook, Hook::Prerouting | Hook::Output)
            // Transparent proxies take packets in other tables.
            || base.kind == ChainKind::Filter && base.hook == Hook::Prerouting
        {
            search.walk(&base.id, &Cond::default());
        }
    }
    // kube-proxy refuses what has no backend in filter tables.
    for table in &ruleset.tables {
        let name = match &*table.id.name {
            "filter" => "KUBE-EXTERNAL-SERVICES",
            "kube-proxy" => "nodeport-endpoints-check",
            _ => continue,
        };
        if !table.dormant {
            search.refusals = true;
            search.walk(&ChainId { table: table.id.clone(), name: name.into() }, &Cond::default());
        }
    }
    search.finish()
}

/// What a chain leads to, whatever the packet is.
#[derive(Debug, Default)]
struct Leads {
    targets: BTreeSet<Target>,
    refuses: bool,
    /// Whether an address or port decides in it.
    tests: bool,
}

impl Leads {
    fn is_nowhere(&self) -> bool {
        self.targets.is_empty() && !self.refuses
    }
}

type Key = (u16, Proto, Option<IpAddr>, bool);

struct Search<'a> {
    source: &'a dyn Source,
    ruleset: &'a Ruleset,
    /// Whether drops and rejects count.
    refusals: bool,
    parsed: HashMap<ChainId, Option<Rc<Parsed>>>,
    leads: HashMap<ChainId, Rc<Leads>>,
    /// Chains that were walked, and with what.
    walked: HashSet<(ChainId, Cond)>,
    local: HashMap<IpAddr, bool>,
    trail: Vec<Step>,
    found: HashMap<Key, Taken>,
    /// How many rules were looked at.
    visits: usize,
}

impl<'a> Search<'a> {
    fn new(source: &'a dyn Source, ruleset: &'a Ruleset) -> Self {
        Self {
            source,
            ruleset,
            refusals: false,
            parsed: HashMap::new(),
            leads: HashMap::new(),
            walked: HashSet::new(),
            local: HashMap::new(),
            trail: Vec::new(),
            found: HashMap::new(),
            visits: 0,
        }
    }

    fn parsed(&mut self, chain: &ChainId) -> Option<Rc<Parsed>> {
        if let Some(known) = self.parsed.get(chain) {
            return known.clone();
        }
        let rules = self.source.chain(chain);
        let parsed = rules.map(|rules| Rc::new(parse::chain(self.source, chain, rules)));
        self.parsed.insert(chain.clone(), parsed.clone());
        parsed
    }

    /// Everything that a chain leads to, each once, without regard to ports.
    fn leads(&mut self, chain: &ChainId, depth: usize) -> Rc<Leads> {
        if let Some(known) = self.leads.get(chain) {
            return Rc::clone(known);
        }
        // Found again on the way down, a chain adds nothing.
        self.leads.insert(chain.clone(), Rc::default());
        let mut all = Leads::default();
        if let Some(parsed) = self.parsed(chain).filter(|_| depth < MAX_DEPTH) {
            for branch in &parsed.branches {
                self.visits += 1;
                let mut tests = branch.cond.has_place();
                match &branch.act {
                    Act::To(target) => {
                        all.targets.insert(*target);
                    }
                    Act::Refuse => all.refuses = true,
                    Act::Chain { to } => {
                        let below = self.leads(to, depth + 1);
                        if below.is_nowhere() {
                            continue;
                        }
                        all.targets.extend(below.targets.iter().copied());
                        all.refuses |= below.refuses;
                        tests |= below.tests;
                    }
                    Act::Stop | Act::Nothing => continue,
                }
                all.tests |= tests;
            }
        }
        // Where it leads is all that is asked of such a chain, and most are such ones.
        if !all.tests {
            self.parsed.remove(chain);
        }
        let all = Rc::new(all);
        self.leads.insert(chain.clone(), Rc::clone(&all));
        all
    }

    fn walk(&mut self, chain: &ChainId, cond: &Cond) {
        if self.trail.len() >= MAX_DEPTH || !self.walked.insert((chain.clone(), cond.clone())) {
            return;
        }
        let Some(parsed) = self.parsed(chain) else { return };
        for branch in &parsed.branches {
            self.visits += 1;
            let Some(cond) = cond.and(&branch.cond) else { continue };
            if matches!(branch.act, Act::Nothing) {
                continue;
            }
            if matches!(branch.act, Act::Stop) {
                break;
            }
            self.trail.push(step(chain, &parsed.rules, branch));
            self.take(&cond, branch);
            self.trail.pop();
        }
    }

    /// What a branch does with the packets that come to it.
    fn take(&mut self, cond: &Cond, branch: &Branch) {
        match &branch.act {
            Act::To(target) => self.emit(cond, &[*target], 1, false),
            Act::Refuse if self.refusals => self.emit(cond, &[], 0, true),
            Act::Chain { to } => {
                let leads = self.leads(to, 0);
                if leads.is_nowhere() {
                    return;
                }
                // With the port known, all that is left is where it leads.
                if cond.ports.is_none() || leads.tests {
                    return self.walk(to, cond);
                }
                let refused = leads.targets.is_empty() && leads.refuses;
                if refused && !self.refusals {
                    return;
                }
                let targets: Vec<Target> =
                    leads.targets.iter().take(Taken::TARGETS).copied().collect();
                // Its name may tell the service.
                self.trail.push(Step {
                    chain: to.clone(),
                    rules: Arc::new([]),
                    at: None,
                    element: None,
                });
                self.emit(cond, &targets, leads.targets.len(), refused);
                self.trail.pop();
            }
            Act::Refuse | Act::Stop | Act::Nothing => {}
        }
    }

    fn emit(&mut self, cond: &Cond, targets: &[Target], total: usize, refused: bool) {
        let Some(ports) = cond.ports.as_ref() else { return };
        let address = match cond.dst {
            Dst::Any | Dst::Local => None,
            Dst::At(address) => Some(address),
            // Of a whole network only the own addresses would be, which are not asked.
            Dst::In(network, _) if network.is_loopback() => Some(crate::model::LOOPBACK4),
            Dst::In(..) => None,
        };
        let meaning = dialect::meaning(&self.trail);
        if address.is_some() && meaning.what == Some(dialect::CLUSTER_IP)
            || refused && meaning.refused.is_none()
            || !address.is_none_or(|address| self.is_local(address))
        {
            return;
        }
        let of_table = self.trail.last().is_some_and(|s| s.chain.table.family == Family::Ip6);
        let ipv6 = targets.first().map_or(of_table, |target| target.of(0).0.is_ipv6());
        let protos = Proto::ALL.into_iter().filter(|p| cond.proto.is_none_or(|n| n == number(*p)));
        let all = ports.iter().flat_map(|(first, last)| *first..=*last).take(MAX_PORTS);
        let all: Vec<u16> = all.collect();
        for proto in protos {
            for port in &all {
                let targets = targets.iter().map(|target| target.of(*port));
                let taken =
                    self.found.entry((*port, proto, address, ipv6)).or_insert_with(|| Taken {
                        proto,
                        address,
                        port: *port,
                        ipv6,
                        targets: Vec::new(),
                        total: 0,
                        meaning: meaning.clone(),
                        refused,
                    });
                // What the first rule does counts; a second way to it adds nothing.
                if taken.targets.is_empty() && taken.total == 0 {
                    taken.targets = targets.collect();
                    taken.total = total;
                    taken.refused = refused;
                    taken.meaning = meaning.clone();
                }
            }
        }
    }

    fn is_local(&mut self, address: IpAddr) -> bool {
        if let Some(known) = self.local.get(&address) {
            return *known;
        }
        let query = RouteQuery { netns: self.ruleset.netns, to: address, mark: 0 };
        let local = self.source.route(&query).is_some_and(|found| found.kind == RouteKind::Local);
        self.local.insert(address, local);
        local
    }

    fn finish(self) -> Vec<Taken> {
        let mut all: Vec<Taken> = self.found.into_values().collect();
        all.sort_by_key(|t| (t.port, t.proto, t.address, t.ipv6));
        // What is taken at every address needs no row for one of them.
        let mut kept: Vec<Taken> = Vec::with_capacity(all.len());
        for taken in all {
            let same = |known: &Taken| {
                (known.port, known.proto, known.address) == (taken.port, taken.proto, None)
                    && known.targets == taken.targets
            };
            let before = kept.iter().rev().take_while(|known| known.port == taken.port);
            if !before.into_iter().any(same) {
                kept.push(taken);
            }
        }
        kept
    }
}

fn step(chain: &ChainId, rules: &Arc<[crate::model::Rule]>, branch: &Branch) -> Step {
    Step {
        chain: chain.clone(),
        rules: Arc::clone(rules),
        at: Some(branch.at),
        element: branch.element.clone(),
    }
}

fn number(proto: Proto) -> u8 {
    match proto {
        Proto::Tcp => 6,
        Proto::Udp => 17,
    }
}

#[cfg(test)]
mod tests;
