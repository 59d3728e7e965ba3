//! From how far away the ports of a list can be reached: each is asked for as a question would.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::answer_within;
use crate::facts::Facts;
use whereis_port_model::Node;
use whereis_port_model::{
    Gap, GapKind, Impact, ListRow, Listing, NetnsId, Port, PortRange, Proto, Query, Reach, Reached,
    Scope,
};

/// How many ports are asked for: each is a question of its own.
const PORTS: usize = 1024;

/// Says of each row how far away it can be reached from. All questions share one budget.
pub fn add(node: &dyn Node, listing: &mut Listing) {
    let facts = Facts::new(node);
    let ports: BTreeSet<(Port, Proto)> =
        listing.rows.iter().map(|row| (row.port, row.proto)).collect();
    let mut said: HashMap<(Port, Proto), Vec<Reach>> = HashMap::new();
    for (port, proto) in ports.iter().take(PORTS) {
        let query = Query {
            text: format!("{port}/{proto}"),
            ports: PortRange::one(*port),
            proto: Some(*proto),
            scope: Scope::Everywhere,
            zone: None,
            name: None,
            subject: None,
        };
        let answer = answer_within(&facts.again(), &query, &|_| true);
        let new = answer.gaps.into_iter().filter(|gap| gap.impact == Impact::Reach);
        let new: Vec<Gap> = new.filter(|gap| !listing.gaps.contains(gap)).collect();
        listing.gaps.extend(new);
        said.insert((*port, *proto), answer.reach);
    }
    if ports.len() > PORTS {
        let why = format!("only the first {PORTS} ports of {} were asked for", ports.len());
        let gap = Gap::new(Impact::Reach, GapKind::Other, format!("reach: {why}"));
        listing.gaps.push(gap.remedy("list fewer of them, as with --netns or --where"));
    }
    let mut bound: HashMap<(NetnsId, Port, Proto), Vec<IpAddr>> = HashMap::new();
    for row in &listing.rows {
        bound.entry(key(row)).or_default().push(row.address.to_canonical());
    }
    for row in &mut listing.rows {
        let port = (row.port, row.proto);
        let others = bound.get(&key(row)).map(Vec::as_slice).unwrap_or_default();
        let about = said.get(&port).into_iter().flatten().filter(|reach| {
            let at = reach.address.map(|at| at.ip().to_canonical());
            reach.is_about(Some(row.netns.id), port)
                && at.is_none_or(|at| takes(row.address.to_canonical(), at, others))
        });
        row.reached = Some(Reached::of(about));
    }
}

fn key(row: &ListRow) -> (NetnsId, Port, Proto) {
    (row.netns.id, row.port, row.proto)
}

/// Whether a connection to `at` is one to what is bound to `bound`, and not to one of the others
/// that have the port: who is bound to just that address comes first, and who is bound to all of
/// IPv4 before who is bound to all of both.
fn takes(bound: IpAddr, at: IpAddr, others: &[IpAddr]) -> bool {
    if !bound.is_unspecified() {
        return bound == at;
    }
    let of_both = bound.is_ipv6() && at.is_ipv4();
    let nearer =
        |other: &IpAddr| *other == at || of_both && other.is_unspecified() && other.is_ipv4();
    (bound.is_ipv6() || at.is_ipv4()) && !others.iter().any(nearer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_to_whoever_is_bound_the_nearest() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let takes = |bound: &str, at: &str, others: &[&str]| {
            let others: Vec<IpAddr> = others.iter().map(|other| ip(other)).collect();
            super::takes(ip(bound), ip(at), &others)
        };
        assert!(takes("10.0.0.1", "10.0.0.1", &[]) && !takes("10.0.0.1", "10.0.0.2", &[]));
        assert!(takes("0.0.0.0", "10.0.0.1", &["0.0.0.0"]) && !takes("0.0.0.0", "fd00::1", &[]));
        assert!(!takes("0.0.0.0", "10.0.0.1", &["0.0.0.0", "10.0.0.1"]));
        assert!(takes("::", "10.0.0.1", &["::"]) && takes("::", "fd00::1", &["::", "0.0.0.0"]));
        assert!(!takes("::", "10.0.0.1", &["::", "0.0.0.0"]));
    }
}
