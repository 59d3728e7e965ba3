//! A listener at an address that no interface has, but a local route takes ("AnyIP").

use super::{at, entry};
use crate::model::{Cause, Reach, Socket, Vantage};
use crate::resolve::facts::Facts;
use crate::resolve::path;

/// From where such a listener can be reached, before it is tried; nothing of any other.
pub(super) fn of(facts: &Facts<'_>, socket: &Socket) -> Vec<Reach> {
    let bound = socket.effective_address();
    if bound.is_unspecified() || socket.ifindex.is_some() {
        return Vec::new();
    }
    let Some(route) = path::local_route(facts, socket.netns, bound) else { return Vec::new() };
    let on_link = facts
        .addresses_of(socket.netns)
        .iter()
        .any(|a| whereis_port_rules::route::covers(a.address, a.prefix, bound));
    let cause = |needs_route| Cause::LocalRoute {
        network: route.destination,
        prefix: route.prefix,
        needs_route,
    };
    let here = Some(at(bound, socket.port.0));
    vec![
        entry(Vantage::Node, here, Some(true), cause(false)),
        entry(Vantage::Outside, here, Some(true), cause(!on_link)),
    ]
}
