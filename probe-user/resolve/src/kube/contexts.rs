//! Which kubeconfig contexts lead to a port: their server is where a path begins.

use std::net::IpAddr;

use super::super::facts::Facts;
use super::super::few::{NAMED, few};
use super::site::host_of;
use whereis_port_model::{
    Advice, Finding, FindingCode, FixKind, Gap, GapKind, GapSource, Impact, KubeContext, NetnsId,
    Path, Proto,
};

/// Adds to each path the contexts whose server it is, and says of those whose server is
/// something else now.
pub(super) fn add(
    facts: &Facts<'_>,
    contexts: &[KubeContext],
    paths: &mut [Path],
    findings: &mut Vec<Finding>,
) {
    let (mut told, mut untold) = (0, Vec::new());
    for context in contexts {
        let Some((host, port)) = server(&context.server) else { continue };
        for path in paths.iter_mut() {
            let Some(first) = path.hops.first().filter(|hop| hop.proto == Proto::Tcp) else {
                continue;
            };
            let Some(netns) = first.netns.as_ref().map(|netns| netns.id) else { continue };
            let bound = first.endpoint.address;
            if first.endpoint.port.map(|p| p.0) != Some(port) || !takes(facts, netns, bound, host) {
                continue;
            }
            let other = path.end.component.as_ref().filter(|c| c.confirmed && !c.is_api);
            if path.contexts.len() == NAMED || other.is_some() && told == NAMED {
                untold.push(&context.name);
                continue;
            }
            if let Some(other) = other {
                told += 1;
                findings.push(Finding {
                    code: FindingCode::Kubernetes,
                    what: format!(
                        "context {} names this port as its server, but {} has it: {}",
                        context.name, other.name, other.role
                    ),
                    cause: Some("the context is of a cluster that is gone".to_owned()),
                    fix: Some(Advice::from("see ").name(&context.file).of(FixKind::Inspect)),
                    evidence: Vec::new(),
                });
                continue;
            }
            path.contexts.push(context.clone());
        }
    }
    if !untold.is_empty() {
        let why = format!("more contexts have this port as their server: {}", few(untold));
        facts.gap(Gap::new(Impact::Name, GapSource::new(GapKind::Kubeconfig, "contexts"), why));
    }
}

/// Whether what is bound to `bound` in a namespace takes connections from here to `host`.
fn takes(facts: &Facts<'_>, netns: NetnsId, bound: Option<IpAddr>, host: IpAddr) -> bool {
    let here = netns == facts.host.own_netns;
    let fits = bound.is_none_or(|bound| bound.is_unspecified() || bound.to_canonical() == host);
    if host.is_loopback() {
        return here && fits;
    }
    let theirs = facts.addresses_of(netns);
    fits && theirs.iter().any(|address| address.address == host)
}

/// Address and port of a server, where it is no name that would have to be looked up.
pub(super) fn server(url: &str) -> Option<(IpAddr, u16)> {
    let host = host_of(url)?;
    let address = match host {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        literal => literal.parse().ok()?,
    };
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next()?;
    let after = authority.rsplit(']').next()?;
    let port = match after.rsplit_once(':') {
        Some((_, port)) => port.parse().ok()?,
        None => 443,
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_address_and_port_are_found() {
        for (url, expected) in [
            ("https://127.0.0.1:20971", Some("127.0.0.1:20971")),
            ("https://localhost:8443/x", Some("127.0.0.1:8443")),
            ("https://10.0.0.1", Some("10.0.0.1:443")),
            ("https://[fd00::1]:6443", Some("[fd00::1]:6443")),
            ("https://api.example.com:6443", None),
        ] {
            let found = server(url)
                .map(|(address, port)| std::net::SocketAddr::new(address, port).to_string());
            assert_eq!(found.as_deref(), expected, "{url}");
        }
    }
}
