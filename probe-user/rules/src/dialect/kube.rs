//! kube-proxy: services in comments of iptables rules, and in names of nftables chains.

use super::{
    CLUSTER_IP, EITHER_POLICY, EXTERNAL_IP, EXTERNAL_POLICY, INTERNAL_POLICY, LOAD_BALANCER_IP,
    Meaning, NO_ENDPOINTS, NO_LOCAL_ENDPOINTS, NODE_PORT, ServiceName, TrailPoint,
};
use crate::model::{RuleVerdict, RulesBackend};

/// Chains of its iptables mode that are not one for each service.
const CHAINS: [&str; 11] = [
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-PROXY-FIREWALL",
    "KUBE-FORWARD",
    "KUBE-FIREWALL",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
    "KUBE-MARK-DROP",
    "KUBE-PROXY-CANARY",
    "KUBE-KUBELET-CANARY",
];
/// The beginnings of those that are.
const OF_SERVICE: [&str; 6] =
    ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-", "KUBE-SEP-"];
/// Chains that only its IPVS mode has, which decide by ipsets.
const IPVS: [&str; 6] = [
    "KUBE-NODE-PORT",
    "KUBE-LOAD-BALANCER",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
    "KUBE-PROXY-FILTER",
];
/// The beginnings of names that its nftables mode makes for each service.
const NFT: [&str; 6] = ["service-", "local-", "external-", "firewall-", "endpoint-", "affinity-"];

/// Reads a step of kube-proxy's rules; `false` when it is none of them.
pub(super) fn read(mark: &TrailPoint<'_>, meaning: &mut Meaning) -> bool {
    if &*mark.table.name == "kube-proxy" && mark.table.backend == RulesBackend::Nft {
        nft(mark, meaning);
        return true;
    }
    if IPVS.contains(&mark.chain) {
        meaning.by = Some("kube-proxy (IPVS)");
        return true;
    }
    if !CHAINS.contains(&mark.chain) && !OF_SERVICE.iter().any(|p| mark.chain.starts_with(p)) {
        return false;
    }
    meaning.by = Some("kube-proxy (iptables)");
    if let Some(comment) = mark.comment {
        commented(mark, comment, meaning);
    }
    if mark.chain == "KUBE-NODEPORTS" {
        meaning.what = Some(NODE_PORT);
    }
    true
}

/// A comment of the iptables mode.
fn commented(mark: &TrailPoint<'_>, comment: &str, meaning: &mut Meaning) {
    let Some(service) = comment.split_whitespace().find_map(service) else { return };
    let is_first = meaning.service.is_none();
    meaning.service.get_or_insert(service);
    let comment = comment.trim_matches('"');
    let ends = [
        ("cluster IP", CLUSTER_IP),
        ("external IP", EXTERNAL_IP),
        ("loadbalancer IP", LOAD_BALANCER_IP),
    ];
    let of_end = ends.iter().find(|(end, _)| comment.ends_with(end)).map(|(_, what)| *what);
    for refused in [NO_ENDPOINTS, NO_LOCAL_ENDPOINTS] {
        if comment.ends_with(refused) {
            meaning.refused = Some(refused);
        }
    }
    if meaning.refused == Some(NO_LOCAL_ENDPOINTS) {
        // What is for other addresses is in chains of its own.
        let internal = mark.chain == "KUBE-SERVICES";
        meaning.policy = Some(if internal { INTERNAL_POLICY } else { EXTERNAL_POLICY });
    }
    let of_chain = || match mark.chain {
        "KUBE-EXTERNAL-SERVICES" if mark.local => Some(NODE_PORT),
        "KUBE-EXTERNAL-SERVICES" => Some(EXTERNAL_IP),
        "KUBE-SERVICES" if meaning.refused.is_some() => Some(CLUSTER_IP),
        _ => None,
    };
    if is_first || meaning.what.is_none() {
        meaning.what = of_end.or_else(of_chain).or(meaning.what);
    }
}

/// A service as comments name it: `namespace/name`, with `:port` if it has a name.
/// Old releases write the colon in any case.
fn service(word: &str) -> Option<ServiceName> {
    let (namespace, rest) = word.trim_matches('"').split_once('/')?;
    let (name, port) = match rest.split_once(':') {
        Some((name, port)) => (name, Some(port).filter(|port| !port.is_empty())),
        None => (rest, None),
    };
    let is_name = |name: &str, dots: bool| {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !name.is_empty() && name.len() <= 253 && name.chars().all(|c| fits(c) || dots && c == '.')
    };
    let fits = is_name(namespace, false)
        && is_name(name, true)
        && port.is_none_or(|port| is_name(port, true));
    fits.then(|| ServiceName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        port: port.map(str::to_owned),
    })
}

/// A step of the nftables mode.
fn nft(mark: &TrailPoint<'_>, meaning: &mut Meaning) {
    meaning.by = Some("kube-proxy (nftables)");
    let names = [Some(mark.chain), mark.next];
    for name in names.into_iter().flatten() {
        if let Some(service) = generated(name) {
            meaning.service.get_or_insert(service);
        }
    }
    if let Some(service) =
        mark.element.and_then(|element| element.comment.as_deref()).and_then(service)
    {
        meaning.service.get_or_insert(service);
    }
    let external = mark.next.is_some_and(|n| n.starts_with("external-"));
    match mark.map {
        Some("service-nodeports") => meaning.what = Some(NODE_PORT),
        Some("no-endpoint-nodeports") => meaning.what = Some(NODE_PORT),
        // External and load balancer addresses are not told apart.
        Some("service-ips") if external => meaning.what = Some(EXTERNAL_IP),
        Some("service-ips" | "no-endpoint-services") => meaning.what = Some(CLUSTER_IP),
        _ => {}
    }
    if let Some(map @ ("no-endpoint-services" | "no-endpoint-nodeports")) = mark.map {
        let verdict = mark.element.and_then(|element| element.verdict.as_ref());
        let dropped = verdict == Some(&RuleVerdict::Drop);
        meaning.refused = Some(if dropped { NO_LOCAL_ENDPOINTS } else { NO_ENDPOINTS });
        // External addresses are in the same map as a service's own.
        let policy = if map == "no-endpoint-services" { EITHER_POLICY } else { EXTERNAL_POLICY };
        meaning.policy = dropped.then_some(policy);
    }
}

/// The service in a name that is made for one: `external-HASH8-ns/svc/proto/port`,
/// with `__address/port` behind that of an endpoint.
fn generated(name: &str) -> Option<ServiceName> {
    let rest = NFT.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let (hash, rest) = rest.split_once('-')?;
    let is_base32 = |b: u8| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b);
    if hash.len() != 8 || !hash.bytes().all(is_base32) {
        return None;
    }
    let rest = rest.rsplit_once("__").map_or(rest, |(service, _)| service);
    let mut parts = rest.splitn(4, '/');
    let (namespace, name, _proto) = (parts.next()?, parts.next()?, parts.next()?);
    // Names that are too long are cut.
    let port = parts.next().filter(|port| !port.is_empty() && !port.ends_with("..."));
    (!namespace.is_empty() && !name.is_empty()).then(|| ServiceName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        port: port.map(str::to_owned),
    })
}
