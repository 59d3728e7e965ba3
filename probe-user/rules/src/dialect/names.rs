//! Everything but kube-proxy: container engines, their networks, and firewalls.

use super::{HOST_PORT, Meaning, PUBLISHED, TrailPoint};
use crate::model::RulesBackend;

/// Whose chains begin so, and what they are for. The first that fits counts.
const CHAINS: [(&str, &str, Option<&str>); 28] = [
    ("DOCKER-INGRESS", "Docker Swarm", Some("port of the ingress network")),
    ("DOCKER_OUTPUT", "Docker", Some("embedded DNS server")),
    ("DOCKER_POSTROUTING", "Docker", None),
    ("DOCKER", "Docker", None),
    ("CNI-HOSTPORT-DNAT", "CNI portmap", Some(HOST_PORT)),
    ("CNI-DN-", "CNI portmap", Some(HOST_PORT)),
    ("CNI-", "CNI", None),
    ("KUBE-HOSTPORTS", "CRI-O", Some(HOST_PORT)),
    ("KUBE-HP-", "CRI-O", Some(HOST_PORT)),
    ("CRIO-", "CRI-O", None),
    ("NETAVARK-HOSTPORT-DNAT", "Podman (netavark)", Some(PUBLISHED)),
    ("NETAVARK-DN-", "Podman (netavark)", Some(PUBLISHED)),
    ("NETAVARK", "Podman (netavark)", None),
    ("ISTIO_", "Istio", Some("redirect to the sidecar")),
    ("PROXY_INIT_", "Linkerd", Some("redirect to the sidecar")),
    ("ufw-", "ufw", None),
    ("ufw6-", "ufw", None),
    ("LIBVIRT_", "libvirt", None),
    ("CILIUM_", "Cilium", None),
    ("OLD_CILIUM_", "Cilium", None),
    ("cali-", "Calico", None),
    ("OVN-KUBE-", "OVN-Kubernetes", None),
    ("ANTREA-", "Antrea", None),
    ("KUBE-ROUTER-", "kube-router", None),
    ("KUBE-POD-FW-", "kube-router", None),
    ("f2b-", "fail2ban", None),
    ("ts-", "Tailscale", None),
    ("FLANNEL-", "flannel", None),
];

/// Whose nftables tables are called so.
const TABLES: [(&str, &str, Option<&str>); 10] = [
    ("docker-bridges", "Docker (nftables)", None),
    ("cni_hostport", "CNI portmap", Some(HOST_PORT)),
    ("crio-hostports", "CRI-O", Some(HOST_PORT)),
    ("netavark", "Podman (netavark)", None),
    ("io.systemd.nat", "systemd-nspawn", Some(PUBLISHED)),
    ("firewalld", "firewalld", None),
    ("lxd", "LXD", None),
    ("incus", "Incus", None),
    ("ovn-kubernetes", "OVN-Kubernetes", None),
    ("calico", "Calico", None),
];

/// Reads a step, if its table or chain has a known name.
pub(super) fn read(mark: &TrailPoint<'_>, meaning: &mut Meaning) {
    if mark.table.backend == RulesBackend::Nft
        && let Some((_, by, what)) = TABLES.iter().find(|(table, ..)| *table == &*mark.table.name)
    {
        meaning.by = Some(by);
        meaning.what = what.or(meaning.what);
        table(mark, meaning);
    } else if let Some((_, by, what)) = CHAINS.iter().find(|(p, ..)| mark.chain.starts_with(p)) {
        // A chain of a name that says more does not become a plain one's.
        meaning.by = Some(by);
        meaning.what = what.or(meaning.what);
        chain(mark, meaning);
    } else if let Some(zone) = zone(mark.chain) {
        meaning.by = Some("firewalld");
        meaning.place = Some(format!("zone {zone}"));
    }
}

/// What else a known table tells.
fn table(mark: &TrailPoint<'_>, meaning: &mut Meaning) {
    match &*mark.table.name {
        "docker-bridges" if mark.chain.starts_with("nat-") && translates(mark) => {
            meaning.what = Some(PUBLISHED);
        }
        // The comment is the whole id.
        "cni_hostport" => {
            meaning.container_id = mark.comment.and_then(id).or(meaning.container_id.take());
        }
        "netavark"
            if mark.chain.starts_with("NETAVARK-HOSTPORT") || mark.chain.ends_with("_dnat") =>
        {
            meaning.what = Some(PUBLISHED);
        }
        "firewalld" => {
            if let Some(zone) = zone(mark.chain) {
                meaning.place = Some(format!("zone {zone}"));
                if mark.chain.starts_with("nat_PRE_") {
                    meaning.what = Some("forward port");
                }
            }
        }
        _ => {}
    }
}

/// Whether the step is in a chain that DNAT rules are in, not in a hook's.
fn translates(mark: &TrailPoint<'_>) -> bool {
    mark.chain == "nat-prerouting-and-output"
}

/// What else a known chain tells, by its comment.
fn chain(mark: &TrailPoint<'_>, meaning: &mut Meaning) {
    let is_nat = &*mark.table.name == "nat";
    if mark.chain == "DOCKER" && is_nat {
        meaning.what = Some(PUBLISHED);
    }
    let Some(comment) = mark.comment else { return };
    if mark.chain == "CNI-HOSTPORT-DNAT" || mark.chain == "NETAVARK-HOSTPORT-DNAT" {
        let (network, container) = dnat_name(comment);
        meaning.place = network.map(|name| format!("network {name}"));
        meaning.container_id = container;
    } else if mark.chain == "KUBE-HOSTPORTS" {
        host_port(comment, meaning);
    }
}

/// `dnat name: "NET" id: "ID"`, of netavark without quotes.
fn dnat_name(comment: &str) -> (Option<String>, Option<String>) {
    let Some(rest) = comment.strip_prefix("dnat name:") else { return (None, None) };
    let (network, container) = match rest.rsplit_once(" id:") {
        Some((network, container)) => (network, Some(container)),
        None => (rest, None),
    };
    let network = network.trim().trim_matches('"');
    let container = container.map(|id| id.trim().trim_matches('"')).and_then(id);
    ((!network.is_empty()).then(|| network.to_owned()), container)
}

/// A container's id; comments that are too long are cut.
fn id(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_whole = !text.is_empty() && !text.ends_with("...") && text.chars().all(fits);
    is_whole.then(|| text.to_owned())
}

/// `k8s_POD_NAMESPACE_UID_ATTEMPT hostport N` of CRI-O, `POD_NAMESPACE hostport N` of
/// dockershim.
fn host_port(comment: &str, meaning: &mut Meaning) {
    let Some((sandbox, _)) = comment.trim_matches('"').split_once(" hostport ") else { return };
    let parts: Vec<&str> = sandbox.split('_').collect();
    let (by, pod, namespace) = match parts.as_slice() {
        ["k8s", pod, namespace, _uid, _attempt] => ("CRI-O", pod, namespace),
        [pod, namespace] => ("dockershim", pod, namespace),
        _ => return,
    };
    meaning.by = Some(by);
    meaning.pod = Some(((*namespace).to_owned(), (*pod).to_owned()));
}

/// The zone in the name of one of firewalld's chains: `nat_PRE_public_allow`, of its
/// iptables backend `PRE_public_allow`.
fn zone(chain: &str) -> Option<&str> {
    let prefixes = ["nat_PRE_", "nat_POST_", "filter_IN_", "filter_FWD_", "mangle_PRE_"];
    let old = ["PRE_", "POST_", "IN_", "FWD_", "FWDI_", "FWDO_"];
    let kinds = ["_allow", "_deny", "_log", "_pre", "_post"];
    let new = prefixes.iter().find_map(|prefix| chain.strip_prefix(prefix));
    let rest = match new {
        Some(rest) => rest,
        // Others could call a chain so: only with one of the endings.
        None => {
            let rest = old.iter().find_map(|prefix| chain.strip_prefix(prefix))?;
            kinds.iter().find(|kind| rest.ends_with(**kind))?;
            rest
        }
    };
    let zone = kinds.iter().find_map(|kind| rest.strip_suffix(kind)).unwrap_or(rest);
    let of_policy = ["policies_pre", "policies_post", "POLICIES_pre", "POLICIES_post", "ZONES"];
    (!zone.is_empty() && !of_policy.contains(&rest)).then_some(zone)
}
