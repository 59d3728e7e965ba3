//! Proxies of service meshes: rules send them what comes to a pod, and they pass it on to the
//! address and port that it was for (`SO_ORIGINAL_DST`, or TPROXY).
//!
//! Which program it is decides, and that rules led there. Whether it lets a client in is the
//! mesh's policy, which is not known here. Of Istio: `istio-iptables` and the in-pod rules of
//! `istio-cni`; of Linkerd: `linkerd2-proxy-init`.

use std::net::IpAddr;

use super::{Packet, PacketDestination, from_bound, to_path};
use crate::facts::Facts;
use crate::walk::Visited;
use whereis_port_model::forward::is_its_program;
use whereis_port_model::{
    Endpoint, Evidence, EvidenceSource, Hop, HopKind, InTheWay, NetnsId, Path, Port, Process,
    Socket,
};

/// A mesh whose proxy a process is.
struct Mesh {
    name: &'static str,
    /// The address that it is bound to when it passes on what came in (Istio's
    /// `InboundPassthroughBindIpv4`): rules leave that alone.
    from: Option<IpAddr>,
}

fn of(process: &Process) -> Option<Mesh> {
    let is_istios = || process.cmdline.iter().any(|argument| argument.contains("istio/proxy/"));
    let mesh = match process.name() {
        "envoy" if is_istios() => Mesh { name: "Istio", from: Some(IpAddr::from([127, 0, 0, 6])) },
        // It takes the client's address.
        "ztunnel" => Mesh { name: "Istio", from: None },
        "linkerd2-proxy" => Mesh { name: "Linkerd", from: None },
        _ => return None,
    };
    is_its_program(process).then_some(mesh)
}

/// The paths from a mesh's proxy on, for a packet that rules led to it from elsewhere. `paths`
/// are those that end at it; they stay where it is no such proxy.
pub(super) fn through(
    facts: &Facts<'_>,
    packet: &Packet,
    socket: &Socket,
    paths: Vec<Path>,
    visited: &mut Visited,
) -> Vec<Path> {
    let given = packet.tproxy.map(|_| (packet.destination, packet.dport));
    let asked = given.or(packet.original).filter(|to| to.1 != socket.port.0);
    let place = (socket.netns, socket.proto, socket.effective_address(), socket.port);
    let Some((address, port)) = asked.filter(|_| !visited.contains(&place)) else { return paths };
    let mut onward = Vec::new();
    for path in paths {
        let is_its_end = path.hops.len() == 1;
        let found = path
            .end
            .processes
            .first()
            .filter(|_| is_its_end)
            .and_then(|process| Some((of(process)?, process.clone())));
        let Some((mesh, process)) = found else {
            onward.push(path);
            continue;
        };
        let is_here = facts.addresses_of(packet.netns).iter().any(|a| a.address == address);
        if !is_here {
            onward.push(leaves(&mesh, &process, (address, port), path));
            continue;
        }
        visited.push(place);
        let to = PacketDestination { proto: packet.proto, address, port };
        let sender = (Some(process.pid), mesh.from);
        let arrivals = from_bound(facts, packet.netns, sender, to, visited);
        visited.pop();
        for mut tail in arrivals.into_iter().map(to_path) {
            tail.unsure.push(InTheWay::Mesh(mesh.name));
            tail.hops.insert(0, hop(facts, packet.netns, &mesh, &process, to));
            let first = path.hops.iter().cloned();
            tail.hops.splice(0..0, first);
            onward.push(tail);
        }
    }
    onward
}

/// What goes out through the proxy: where to is the mesh's choice.
fn leaves(mesh: &Mesh, process: &Process, (address, port): (IpAddr, u16), mut path: Path) -> Path {
    let to = std::net::SocketAddr::new(address, port);
    path.end.why = Some(format!(
        "the way out through {}: {} connects on to {to}, or where the mesh's configuration says",
        mesh.name,
        process.name()
    ));
    path
}

fn hop(
    facts: &Facts<'_>,
    netns: NetnsId,
    mesh: &Mesh,
    process: &Process,
    to: PacketDestination,
) -> Hop {
    let detail = format!(
        "{} of {} passes it on to the port that it was for, if the mesh's policy lets it",
        process.name(),
        mesh.name
    );
    Hop {
        kind: HopKind::Forward,
        netns: Some(facts.netns_ref(netns)),
        endpoint: Endpoint { address: Some(to.address), name: None, port: Some(Port(to.port)) },
        proto: to.proto,
        detail,
        share: None,
        socket: None,
        evidence: vec![Evidence::new(
            EvidenceSource::PacketRules,
            format!("rules led it to pid {}, which knows where it was for", process.pid),
        )],
    }
}
