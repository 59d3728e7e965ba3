//! What rules do to a packet, rule by rule: each test writes some down, sends a packet
//! through a hook, and compares every outcome as one line of words.

mod budget;
mod build;
mod chance;
mod docker;
mod ipv6;
mod kube_proxy;
mod matches;
mod nat;
mod sets;
mod tproxy;
mod verdicts;
mod xt_matches;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::*;
use crate::model::*;
use build::*;

const NETNS: NetnsId = NetnsId::Inode(1);
/// The node's own address, which `eth0` has, and the address of a client.
const HOST: &str = "192.0.2.10";
const CLIENT: &str = "198.51.100.7";
/// The node's own IPv6 address.
const HOST6: &str = "2001:db8::10";

/// Rules and facts written down. Chains are named `table chain`; a table is one of
/// nf_tables for IPv4, or for others or of legacy iptables when its name begins with
/// `six-`, `inet-`, `netdev-` or `legacy-`.
#[derive(Default)]
struct World {
    chains: HashMap<ChainId, Arc<[Rule]>>,
    base_chains: Vec<BaseChain>,
    tables: Vec<Table>,
    sets: HashMap<SetId, (Set, Arc<[Element]>)>,
    ip_sets: Vec<IpSet>,
    /// Whether any socket is transparent.
    transparent: Option<bool>,
    /// Whether what comes in by a device came over a port of a bridge.
    over_bridge_port: Option<bool>,
    /// How many steps may be taken, and how many were.
    limit: Option<usize>,
    spent: std::cell::Cell<usize>,
}

impl RuleSource for World {
    fn chain(&self, chain: &ChainId) -> Option<Arc<Chain>> {
        let rules = self.chains.get(chain)?;
        Some(Arc::new(Chain::new(chain, Arc::clone(rules))))
    }
    fn set(&self, set: &SetId) -> Option<Set> {
        Some(self.sets.get(set)?.0.clone())
    }
    fn set_elements(&self, set: &SetId) -> Option<Arc<[Element]>> {
        Some(Arc::clone(&self.sets.get(set)?.1))
    }
    fn set_element(&self, set: &SetId, key: &Bytes) -> Option<Option<Element>> {
        let (head, elements) = self.sets.get(set)?;
        Some(element_of(&head.fields, elements, key).cloned())
    }
    fn ip_set(&self, set: &IpSetId) -> Option<Arc<IpSet>> {
        self.ip_sets.iter().find(|known| known.id == *set).cloned().map(Arc::new)
    }
    fn route(&self, query: &RouteQuery) -> Option<RouteFound> {
        let local = [ip(HOST), ip(HOST6)].contains(&query.to) || query.to.is_loopback();
        // Pods and containers are behind another interface.
        let inner = ["10.244.", "172.17."].iter().any(|net| query.to.to_string().starts_with(net));
        let (kind, oif) = match (local, inner) {
            (true, _) => (RouteKind::Local, 1),
            (_, true) => (RouteKind::Unicast, bridge().index),
            _ => (RouteKind::Unicast, eth0().index),
        };
        Some(RouteFound { kind, oif: Some(oif), gateway: None, source: None })
    }
    fn spend(&self, steps: usize) -> bool {
        self.spent.set(self.spent.get() + steps);
        self.limit.is_none_or(|limit| self.spent.get() <= limit)
    }
    fn over_bridge_port(&self, _: &Packet, _: u32) -> Option<bool> {
        self.over_bridge_port
    }
    fn has_transparent(&self, _: NetnsId) -> Option<bool> {
        self.transparent
    }
    fn first_address(&self, _: NetnsId, ifindex: u32, ipv6: bool) -> Option<IpAddr> {
        (ifindex == eth0().index).then(|| ip(if ipv6 { HOST6 } else { HOST }))
    }
}

/// Conditions in words.
fn said(depends: &[Condition]) -> String {
    depends.iter().map(|one| one.text.as_str()).collect::<Vec<_>>().join(" and ")
}

impl World {
    fn table(&mut self, name: &str) -> TableId {
        let backend =
            if name.starts_with("legacy-") { RulesBackend::Legacy } else { RulesBackend::Nft };
        let family = match name.split_once('-') {
            Some(("six", _)) => Family::Ip6,
            Some(("inet", _)) => Family::Inet,
            Some(("netdev", _)) => Family::Netdev,
            _ => Family::Ip,
        };
        let id = TableId { netns: NETNS, backend, family, name: name.into() };
        if !self.tables.iter().any(|table| table.id == id) {
            let count = u64::try_from(self.tables.len()).unwrap() + 1;
            let handle = (backend == RulesBackend::Nft).then_some(count);
            self.tables.push(Table { id: id.clone(), handle, dormant: false, comment: None });
        }
        id
    }

    fn id(&mut self, chain: &str) -> ChainId {
        let (table, name) = chain.split_once(' ').unwrap();
        ChainId { table: self.table(table), name: name.into() }
    }

    /// A chain with these rules, which get the handles 1, 2, 3.
    fn chain(mut self, chain: &str, rules: Vec<Vec<Expr>>) -> Self {
        let id = self.id(chain);
        let number = |(handle, exprs)| Rule { handle, comment: None, exprs, packets: None };
        let rules: Vec<Rule> = (1..).zip(rules).map(number).collect();
        self.chains.insert(id, rules.into());
        self
    }

    /// The same in a hook. Of kind nat when its table is called so; priority and policy
    /// as usual for that: 0 or that of NAT, accept.
    fn base(self, chain: &str, hook: Hook, rules: Vec<Vec<Expr>>) -> Self {
        let nat = chain.split_once(' ').unwrap().0.ends_with("nat");
        let priority = match (nat, hook) {
            (false, _) => 0,
            (true, Hook::Prerouting | Hook::Output) => -100,
            (true, _) => 100,
        };
        self.base_at(chain, hook, priority, true, rules)
    }

    fn base_at(
        mut self,
        chain: &str,
        hook: Hook,
        priority: i32,
        accepts: bool,
        rules: Vec<Vec<Expr>>,
    ) -> Self {
        let id = self.id(chain);
        let nat = id.table.name.ends_with("nat");
        let kind = if nat { ChainKind::Nat } else { ChainKind::Filter };
        let handle = Some(u64::try_from(self.base_chains.len()).unwrap() + 1);
        let handle = handle.filter(|_| id.table.backend == RulesBackend::Nft);
        let devices = Vec::new();
        self.base_chains.push(BaseChain { id, handle, hook, priority, kind, accepts, devices });
        self.chain(chain, rules)
    }

    /// A set or map with keys of some length.
    /// A set that rules may add to.
    fn memory(mut self, table: &str, name: &str, key: &[u8]) -> Self {
        self = self.set(table, name, 4, vec![element(key)]);
        let id = SetId { table: self.table(table), name: name.into() };
        if let Some((head, _)) = self.sets.get_mut(&id) {
            head.dynamic = true;
        }
        self
    }

    fn set(mut self, table: &str, name: &str, key_len: u32, elements: Vec<Element>) -> Self {
        let id = SetId { table: self.table(table), name: name.into() };
        let maps_to = match elements.first() {
            Some(Element { verdict: Some(_), .. }) => MapsTo::Verdict,
            Some(Element { data: Some(_), .. }) => MapsTo::Data,
            _ => MapsTo::Nothing,
        };
        let interval = elements.iter().any(|element| element.key_end.is_some());
        let head = Set {
            id: id.clone(),
            interval,
            concat: false,
            dynamic: false,
            key_len,
            fields: Vec::new(),
            maps_to,
            comment: None,
        };
        self.sets.insert(id, (head, elements.into()));
        self
    }

    /// A set or map whose keys are of parts with these lengths, ranges each.
    fn concat(self, table: &str, name: &str, fields: &[u32], elements: Vec<Element>) -> Self {
        let key_len = fields.iter().map(|len| len.next_multiple_of(4)).sum();
        let mut world = self.set(table, name, key_len, elements);
        let id = SetId { table: world.table(table), name: name.into() };
        let (set, _) = world.sets.get_mut(&id).unwrap();
        (set.concat, set.fields) = (true, fields.to_vec());
        world
    }

    fn run(&self, hook: Hook, packet: Packet) -> Vec<Outcome> {
        let ruleset = Ruleset {
            netns: NETNS,
            generation: None,
            changed_by: None,
            tables: self.tables.clone(),
            base_chains: self.base_chains.clone(),
        };
        traverse(self, &ruleset, hook, packet)
    }

    /// Every outcome in words, in alphabetical order, as [`told`] tells it.
    fn says(&self, hook: Hook, packet: Packet) -> Vec<String> {
        let outcomes = self.run(hook, packet);
        assert_complete(&outcomes);
        let mut all: Vec<String> = outcomes.iter().map(told).collect();
        all.sort();
        all
    }

    /// The only outcome.
    fn says_one(&self, hook: Hook, packet: Packet) -> String {
        let all = self.says(hook, packet);
        assert_eq!(all.len(), 1, "{all:#?}");
        all.into_iter().next().unwrap()
    }
}

/// `passes to 10.0.0.1:80, 33.3 %, if limit … [nat PREROUTING 1, nat DOCKER 2] (note)`:
/// fate, new destination, how the receiver sees the source, marks, probability unless
/// it is sure, assumptions, trail, notes. A rule is told by its handle.
fn told(outcome: &Outcome) -> String {
    let packet = &outcome.packet;
    let mut text = match outcome.fate {
        Fate::Passes => "passes".to_owned(),
        Fate::Dropped => "dropped".to_owned(),
        Fate::Rejected(how) => format!("refused by {how:?}"),
        Fate::Queued => "queued".to_owned(),
        Fate::NotModelled => "not modelled".to_owned(),
        Fate::Unknown => "unknown".to_owned(),
    };
    let to = (packet.destination, packet.dport);
    if packet.original.is_some_and(|original| original != to) {
        let _ = write!(text, " to {}", SocketAddr::from(to));
    }
    match packet.seen_as {
        None | Some(SeenAs::Itself) => {}
        Some(SeenAs::Masqueraded) => text.push_str(" masqueraded"),
        Some(SeenAs::Address(address)) => write!(text, " as {address}").unwrap(),
    }
    for (name, mark) in [("mark", packet.mark), ("ct mark", packet.ct_mark)] {
        if mark != 0 {
            let _ = write!(text, " with {name} {mark:#x}");
        }
    }
    if packet.untracked {
        text.push_str(" untracked");
    }
    if (outcome.probability - 1.0).abs() > 1e-9 {
        let _ = write!(text, ", {:.1} %", outcome.probability * 100.0);
    }
    if !outcome.depends.is_empty() {
        let _ = write!(text, ", if {}", said(&outcome.depends));
    }
    let step = |step: &Step| {
        let place = match step.rule() {
            Some(rule) => rule.handle.to_string(),
            None => "policy".to_owned(),
        };
        format!("{} {} {place}", step.chain.table.name, step.chain.name)
    };
    let steps: Vec<String> = outcome.trail.iter().map(step).collect();
    let _ = write!(text, " [{}]", steps.join(", "));
    for note in &outcome.notes {
        let _ = write!(text, " ({note})");
    }
    text
}

/// Whatever turns out true of what is assumed: something becomes of the packet, and the
/// probabilities of all that may become of it add up to 1.
fn assert_complete(outcomes: &[Outcome]) {
    let parts = |text: &str| match (text.strip_prefix("not: "), text.split_once(" is not ")) {
        (Some(key), _) => (key.to_owned(), false),
        (None, Some((what, rest))) => (format!("{what} is {rest}"), false),
        (None, None) => (text.to_owned(), true),
    };
    let all = outcomes.iter().flat_map(|outcome| &outcome.depends);
    let questions: BTreeSet<String> = all.map(|one| parts(&one.text).0).collect();
    let questions: Vec<String> = questions.into_iter().collect();
    assert!(questions.len() < 8, "too many questions: {questions:?}");
    for answers in 0..1_u32 << questions.len() {
        let holds = |one: &Condition| {
            let (key, wanted) = parts(&one.text);
            let at = questions.iter().position(|question| *question == key).unwrap();
            (answers >> at & 1 == 1) == wanted
        };
        let of_this = outcomes.iter().filter(|outcome| outcome.depends.iter().all(holds));
        let sum: f64 = of_this.map(|outcome| outcome.probability).sum();
        let told: Vec<String> = outcomes.iter().map(told).collect();
        assert!((sum - 1.0).abs() < 1e-6, "{sum} with answers {answers:b}: {told:#?}");
    }
}
