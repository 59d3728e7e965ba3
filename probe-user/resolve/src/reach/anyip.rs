//! A listener at an address that no interface has, but a local route takes ("AnyIP").

use std::net::IpAddr;

use super::at;
use super::outcome::ConnectionOutcome;
use crate::facts::Facts;
use crate::path;
use whereis_port_model::{Cause, Condition, ConditionCode, Port, Socket, Vantage};

/// The addresses that these sockets are bound to in this way.
pub(super) fn addresses(facts: &Facts<'_>, sockets: &[&Socket]) -> Vec<IpAddr> {
    let bound = sockets.iter().map(|s| (s.netns, s.effective_address()));
    let taken = bound.filter(|(netns, at)| path::local_route(facts, *netns, *at).is_some());
    taken.map(|(_, address)| address).collect()
}

/// Says of connections to such an address that a route takes them, and whether others need a
/// route that leads here.
pub(super) fn name(
    facts: &Facts<'_>,
    address: IpAddr,
    port: Port,
    outcomes: &mut [ConnectionOutcome],
) {
    let own = facts.host.own_netns;
    let Some(route) = path::local_route(facts, own, address) else { return };
    let near = |a: &whereis_port_model::Address| {
        whereis_port_rules::route::covers(a.address, a.prefix, address)
    };
    let on_link = facts.addresses_of(own).iter().any(near);
    let there = |o: &&mut ConnectionOutcome| o.reach.address == Some(at(address, port.0));
    for outcome in outcomes.iter_mut().filter(there) {
        let reach = &mut outcome.reach;
        let needs_route = reach.from != Vantage::Node && !on_link;
        if reach.reachable == Some(true) && matches!(reach.why.cause, Cause::BoundTo(_)) {
            let (network, prefix) = (route.destination, route.prefix);
            reach.why.cause = Cause::LocalRoute { network, prefix, needs_route };
        }
        if needs_route && reach.from == Vantage::Outside {
            let text = format!("it has a route to {address} over this node");
            reach.conditions.insert(0, Condition { code: ConditionCode::Route, text });
        }
    }
}
