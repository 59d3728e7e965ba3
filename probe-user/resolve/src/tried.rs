//! Connections that are really made, beside what was concluded.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use whereis_port_model::Node;
use whereis_port_model::{Answer, ConnectAsk, Connected, Gap, NetnsId, Proto, Reach};

/// How many connections are tried for one answer.
const CONNECTIONS: usize = 256;

/// Makes the TCP connections that an answer tells of, from senders of this node.
pub fn add_tried(node: &dyn Node, answer: &mut Answer) {
    let proto = answer.query.proto.or(only_proto(answer));
    let ask = |reach: &Reach| -> Option<(NetnsId, SocketAddr)> {
        let of = reach.why.of.map_or(proto, |(_, proto)| Some(proto));
        let is_tcp = of == Some(Proto::Tcp);
        let (netns, to) = reach.source.zip(reach.address).filter(|_| is_tcp)?;
        Some((netns, with_interface(node, reach, netns, to)?))
    };
    let asks: Vec<Option<ConnectAsk>> = answer
        .reach
        .iter()
        .map(|reach| ask(reach).map(|(netns, to)| ConnectAsk { netns, to }))
        .collect();
    let mut wanted: Vec<ConnectAsk> = Vec::new();
    for ask in asks.iter().flatten() {
        if !wanted.contains(ask) && wanted.len() < CONNECTIONS {
            wanted.push(*ask);
        }
    }
    let said = node.try_connect(&wanted);
    for (reach, ask) in answer.reach.iter_mut().zip(asks) {
        let at = ask.and_then(|ask| wanted.iter().position(|one| *one == ask));
        let one = at.and_then(|at| said.value.get(at)).copied();
        reach.tried = Some(one.unwrap_or(Connected::NotTried));
    }
    let new = |gap: &Gap| !answer.gaps.contains(gap);
    let gaps: Vec<Gap> = said.gaps.into_iter().filter(new).collect();
    answer.gaps.extend(gaps);
}

/// An address as a process of a namespace has to connect to it: a link-local one with the
/// interface there, and nothing where that is not known.
fn with_interface(
    node: &dyn Node,
    reach: &Reach,
    from: NetnsId,
    to: SocketAddr,
) -> Option<SocketAddr> {
    let narrow = match to.ip() {
        IpAddr::V6(address) if address.is_unicast_link_local() => address,
        _ => return Some(to),
    };
    let of = reach.netns.as_ref()?.id;
    let addresses = node.addresses(&[of]).value;
    let has = addresses.iter().find(|a| a.address == to.ip())?.ifindex;
    let index = if of == from {
        has
    } else {
        let links = node.links(&[from]).value;
        links.iter().find(|l| l.peer_netns == Some(of) && l.peer == Some(has))?.index
    };
    Some(SocketAddrV6::new(narrow, to.port(), 0, index).into())
}

/// The protocol that all paths of an answer begin with.
fn only_proto(answer: &Answer) -> Option<Proto> {
    let mut protos = answer.paths.iter().filter_map(|path| Some(path.hops.first()?.proto));
    let first = protos.next()?;
    protos.all(|proto| proto == first).then_some(first)
}
