//! Which route a packet takes.

use whereis_port_rules::route;

use std::net::IpAddr;
use std::rc::Rc;

use super::facts::Facts;
use whereis_port_model::{
    Gap, GapKind, GapSource, Impact, NetnsId, PolicyRule, RouteFound, RouteKind, RouteOf,
    RouteQuery,
};

/// `RT_TABLE_LOCAL`.
pub(super) const LOCAL_TABLE: u32 = 255;

/// The way a packet takes: as the kernel decided it, or, where that was not asked for,
/// by the addresses and the main table.
pub(super) fn decide(facts: &Facts<'_>, query: &RouteQuery) -> Option<RouteFound> {
    let query = &as_asked(facts, query);
    if let Some(found) = facts.take(facts.world.route(query)) {
        return Some(found);
    }
    // The main table alone does not tell where rules of policy routing ask whose packet it is.
    if query.of != RouteOf::default() {
        return None;
    }
    let to = query.to.to_canonical();
    let addresses = facts.addresses_of(query.netns);
    let of_interface = |index: u32, to: std::net::IpAddr| {
        let fits = |a: &&whereis_port_model::Address| {
            a.ifindex == index && a.address.is_ipv6() == to.is_ipv6() && !a.address.is_loopback()
        };
        addresses.iter().find(fits)
    };
    let is_own = |a: &whereis_port_model::Address| {
        a.address == to || to.is_loopback() && a.address.is_loopback()
    };
    if addresses.iter().any(is_own) {
        let links = facts.links_of(query.netns);
        let lo = links.iter().find(|l| l.kind == whereis_port_model::LinkKind::Loopback);
        return Some(RouteFound {
            kind: RouteKind::Local,
            oif: lo.map(|l| l.index),
            gateway: None,
            source: Some(to),
        });
    }
    // In the table that comes first; another one may be for packets with a mark alone.
    let locals = facts.take(facts.world.local_routes(&[query.netns]));
    let takes = |l: &whereis_port_model::LocalRoute| {
        l.table == LOCAL_TABLE && route::covers(l.destination, l.prefix, to)
    };
    if locals.iter().any(takes) {
        return Some(RouteFound {
            kind: RouteKind::Local,
            oif: None,
            gateway: None,
            source: Some(to),
        });
    }
    let routes = facts.take(facts.world.routes(&[query.netns]));
    let Some(route) = route::lookup(routes.iter(), to) else {
        return Some(RouteFound { kind: RouteKind::None, oif: None, gateway: None, source: None });
    };
    let source = route.ifindex.and_then(|index| of_interface(index, to)).map(|a| a.address);
    Some(RouteFound {
        kind: RouteKind::Unicast,
        oif: route.ifindex,
        gateway: route.gateway,
        source,
    })
}

/// The rules of policy routing of a namespace that others do not have.
pub(super) fn policies(facts: &Facts<'_>, netns: NetnsId, ipv6: bool) -> Rc<[PolicyRule]> {
    let memo = &facts.memo.policies;
    if let Some(known) = memo.borrow().get(&(netns, ipv6)) {
        return Rc::clone(known);
    }
    let all = facts.take(facts.world.policy_rules(&[netns]));
    let own = all.iter().filter(|rule| rule.ipv6 == ipv6 && !rule.is_usual());
    let own: Rc<[PolicyRule]> = own.cloned().collect();
    memo.borrow_mut().insert((netns, ipv6), Rc::clone(&own));
    own
}

/// Of how many rules of policy routing the networks are tried as somebody's.
pub(super) const TRIED: usize = 16;

/// Says that more rules than are tried ask for networks.
pub(super) fn say_untried(facts: &Facts<'_>, netns: NetnsId, count: usize) {
    if count > TRIED {
        let source = GapSource::new(GapKind::Routes, format!("network namespace {netns}"));
        let why = format!(
            "clients of {} more networks that `ip rule` names were not tried: ask for one, with --from",
            count - TRIED
        );
        facts.gap(Gap::new(Impact::Reach, source, why));
    }
}

/// A question without what no rule of policy routing asks.
fn as_asked(facts: &Facts<'_>, query: &RouteQuery) -> RouteQuery {
    let mut query = *query;
    if query.of == RouteOf::default() {
        return query;
    }
    let rules = policies(facts, query.netns, query.to.is_ipv6());
    let of = &mut query.of;
    // The kernel sends nothing from an address that is not its own.
    let is_own = |from: &IpAddr| {
        from.is_loopback()
            || facts.addresses_of(query.netns).iter().any(|a| a.address == *from)
            || super::path::local_route(facts, query.netns, *from).is_some()
    };
    of.from = of.from.filter(|_| rules.iter().any(|rule| rule.from.is_some())).filter(is_own);
    of.uid = of.uid.filter(|_| rules.iter().any(|rule| rule.uids.is_some()));
    if !rules.iter().any(|rule| rule.more) {
        (of.proto, of.sport, of.dport) = (None, None, None);
    }
    query
}

/// How many rules are named.
const NAMED: usize = 3;

/// The rules of policy routing that may be for such a packet, in words; `None` without any.
pub(super) fn by_policy(
    rules: &[PolicyRule],
    (from, to): (Option<IpAddr>, Option<IpAddr>),
    iif: Option<&str>,
) -> Option<String> {
    let may = |rule: &&PolicyRule| rule.may_take(from, to, iif);
    let named: Vec<String> = rules.iter().filter(may).map(words).take(NAMED).collect();
    (!named.is_empty()).then(|| format!("policy routing: {}", named.join(", ")))
}

/// `ip rule 100 (from 10.0.0.0/8 iif br0)`.
pub(super) fn words(rule: &PolicyRule) -> String {
    let mut asks: Vec<String> = Vec::new();
    asks.extend(rule.inverted.then(|| "not".to_owned()));
    asks.extend(rule.from.map(|(net, prefix)| format!("from {net}/{prefix}")));
    asks.extend(rule.to.map(|(net, prefix)| format!("to {net}/{prefix}")));
    asks.extend(rule.iif.as_ref().map(|name| format!("iif {name}")));
    asks.extend(rule.uids.map(|(first, last)| format!("uidrange {first}-{last}")));
    asks.extend(rule.more.then(|| "…".to_owned()));
    let asks = if asks.is_empty() { "for all".to_owned() } else { asks.join(" ") };
    format!("ip rule {} ({asks})", rule.priority)
}
