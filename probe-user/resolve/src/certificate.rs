//! Which certificates the listeners at the ends of answers show, when that is asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::facts::Facts;
use whereis_port_model::Node;
use whereis_port_model::{
    Answer, Evidence, EvidenceSource, Gap, GapKind, GapSource, HopKind, Impact, Path, Proto,
    Served, Socket, TlsAsk, Validity,
};

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Adds to each end that is a TCP listener the certificate that it shows. All of them are
/// asked at the same time.
pub fn add(node: &dyn Node, answers: &mut [Answer]) {
    let facts = Facts::new(node);
    let mut asks: Vec<TlsAsk> = Vec::new();
    for ask in answers.iter().flat_map(|answer| &answer.paths).filter_map(|p| ask(&facts, p).ok()) {
        if !asks.contains(&ask) {
            asks.push(ask);
        }
    }
    let said = facts.world.certificates(&asks);
    for answer in answers {
        let mut paths = std::mem::take(&mut answer.paths);
        for path in &mut paths {
            let gaps = match ask(&facts, path) {
                Err(Some(gap)) => vec![gap],
                Err(None) => continue,
                Ok(ask) => {
                    let at = asks.iter().position(|known| *known == ask);
                    let Some(read) = at.and_then(|at| said.get(at)) else { continue };
                    if let Some(certificate) = &read.value {
                        let validity = certificate.validity(facts.host.now);
                        let served = Served { certificate: certificate.clone(), validity };
                        path.end.evidence.push(evidence(&ask, &served, facts.host.now));
                        path.end.certificate = Some(served);
                    }
                    read.gaps.clone()
                }
            };
            let new = gaps.into_iter().filter(|gap| !answer.gaps.contains(gap));
            answer.gaps.extend(new.collect::<Vec<_>>());
        }
        answer.paths = paths;
    }
}

/// What to ask for the certificate at the end of a path. Without a gap where there is no
/// listener, or one that does not speak TCP.
fn ask(facts: &Facts<'_>, path: &Path) -> Result<TlsAsk, Option<Gap>> {
    let last = path.hops.last().filter(|hop| hop.kind == HopKind::Listener).ok_or(None)?;
    let socket = last.socket.as_ref().filter(|s| s.proto == Proto::Tcp).ok_or(None)?;
    let address = address(socket);
    let missing = |why: &str| {
        let at = SocketAddr::new(socket.address, socket.port.0);
        let source = format!("{at} in netns {}", socket.netns);
        let source = GapSource::new(GapKind::Certificate, source);
        Err(Some(Gap::new(Impact::Name, source, why)))
    };
    if socket.netns.inode().is_none() {
        return missing("its network namespace can't be entered");
    }
    if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return missing("its address needs an interface (link-local): not asked");
    }
    // A socket may be bound to an address that nobody has here: what is sent there would
    // leave this node.
    let of_netns = facts.addresses_of(socket.netns);
    if !address.is_loopback() && of_netns.iter().all(|a| a.address.to_canonical() != address) {
        return missing("no interface of its network namespace has its address: not asked");
    }
    Ok(TlsAsk { netns: socket.netns, address, port: socket.port })
}

/// An address that the socket takes connections on, from its own namespace.
fn address(socket: &Socket) -> IpAddr {
    match socket.address {
        address if !address.to_canonical().is_unspecified() => address.to_canonical(),
        IpAddr::V6(_) if socket.v6only == Some(true) => Ipv6Addr::LOCALHOST.into(),
        // Dual-stack ones take IPv4, too, also where IPv6 is turned off on the loopback.
        _ => Ipv4Addr::LOCALHOST.into(),
    }
}

fn evidence(ask: &TlsAsk, served: &Served, now: u64) -> Evidence {
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let (from, until) = (served.certificate.from, served.certificate.until);
    let days = |seconds: i64| match seconds / DAY {
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    let valid = match served.validity {
        Validity::Valid => {
            format!("valid by this node's clock, for {}", days(until.saturating_sub(now)))
        }
        Validity::Expired => {
            format!("expired {} ago by this node's clock", days(now.saturating_sub(until)))
        }
        Validity::NotYet => {
            format!(
                "not valid before {} from now by this node's clock",
                days(from.saturating_sub(now))
            )
        }
    };
    let at = SocketAddr::new(ask.address, ask.port.0);
    Evidence::new(
        EvidenceSource::TlsHandshake,
        format!("with {at} in netns {}; {valid}; who signed it was not verified", ask.netns),
    )
}
