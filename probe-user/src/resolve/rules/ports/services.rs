//! Addresses of services that are no addresses of the node: which of them have a port.

use std::net::IpAddr;

use super::super::Source;
use crate::model::{
    Base, ChainId, CmpOp, Expr, Family, Hook, Proto, Rule, RuleVerdict, Ruleset, SetId, TableId,
    XtMatch,
};

/// The addresses at which kube-proxy's rules take a port: of the chain and the map that
/// hold them all, so that nothing else has to be read.
pub(in crate::resolve) fn addresses(
    source: &dyn Source,
    ruleset: &Ruleset,
    proto: Proto,
    port: u16,
) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for table in ruleset.tables.iter().filter(|table| !table.dormant) {
        match &*table.id.name {
            "nat" if has_services(source, ruleset, &table.id) => {
                let chain = ChainId { table: table.id.clone(), name: "KUBE-SERVICES".into() };
                let rules = source.chain(&chain);
                let of = |rule: &Rule| address_of(rule, table.id.family, proto, port);
                all.extend(rules.iter().flat_map(|rules| rules.iter()).filter_map(of));
            }
            "kube-proxy" => {
                let set = SetId { table: table.id.clone(), name: "service-ips".into() };
                let elements = source.set_elements(&set);
                let of = |key: &[u8]| address_in(key, proto, port);
                let keys = elements.iter().flat_map(|all| all.iter()).map(|e| e.key.0.as_slice());
                all.extend(keys.filter_map(of));
            }
            _ => {}
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Whether a table's prerouting leads to kube-proxy's chain of services.
fn has_services(source: &dyn Source, ruleset: &Ruleset, table: &TableId) -> bool {
    let base =
        ruleset.base_chains.iter().find(|c| c.id.table == *table && c.hook == Hook::Prerouting);
    let rules = base.and_then(|chain| source.chain(&chain.id));
    let jumps = |expr: &Expr| matches!(expr, Expr::Verdict(RuleVerdict::Jump(name)) if &**name == "KUBE-SERVICES");
    rules.iter().flat_map(|rules| rules.iter()).any(|rule| rule.exprs.iter().any(jumps))
}

/// The one destination address of a rule for this port, if it has one.
fn address_of(rule: &Rule, family: Family, proto: Proto, port: u16) -> Option<IpAddr> {
    let (offset, len) = if family == Family::Ip6 { (24, 16) } else { (16, 4) };
    let mut address = None;
    let mut is_port = false;
    let mut loaded = None;
    for expr in &rule.exprs {
        match expr {
            Expr::Payload { base, offset, len, .. } => loaded = Some((*base, *offset, *len)),
            Expr::Cmp { op: CmpOp::Eq, value, .. } => match loaded.take() {
                Some((Base::Network, o, l)) if (o, l) == (offset, len) => {
                    address = ip(&value.0);
                }
                Some((Base::Transport, 2, 2)) => is_port = *value.0 == port.to_be_bytes(),
                _ => {}
            },
            Expr::Match(one) => match **one {
                XtMatch::Tcp { dports, invert_dports: false, .. } => {
                    is_port = proto == Proto::Tcp && dports == (port, port);
                }
                XtMatch::Udp { dports, invert_dports: false, .. } => {
                    is_port = proto == Proto::Udp && dports == (port, port);
                }
                _ => {}
            },
            _ => {}
        }
    }
    address.filter(|_| is_port)
}

/// The address of a key `addr . proto . port`, each in whole words.
fn address_in(key: &[u8], proto: Proto, port: u16) -> Option<IpAddr> {
    let rest = key.len().checked_sub(8)?;
    let (address, rest) = key.split_at_checked(rest)?;
    let number = super::number(proto);
    let fits = rest.first() == Some(&number) && rest.get(4..6)? == port.to_be_bytes();
    fits.then(|| ip(address)).flatten()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_the_map_tells_its_address() {
        let key = [10, 96, 0, 1, 6, 0, 0, 0, 1, 0xbb, 0, 0];
        assert_eq!(address_in(&key, Proto::Tcp, 443), Some("10.96.0.1".parse().unwrap()));
        assert_eq!(address_in(&key, Proto::Udp, 443), None);
        assert_eq!(address_in(&key, Proto::Tcp, 444), None);
        assert_eq!(address_in(&key[..7], Proto::Tcp, 443), None);
        let mut v6 = vec![0xfd; 16];
        v6.extend([17, 0, 0, 0, 0, 53, 0, 0]);
        assert!(address_in(&v6, Proto::Udp, 53).is_some_and(|a| a.is_ipv6()));
    }
}
