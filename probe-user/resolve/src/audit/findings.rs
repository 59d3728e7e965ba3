//! What of all that can be reached somebody should look at.

mod sensitive;

use std::collections::HashMap;
use std::net::IpAddr;

use whereis_port_rules::Nic;

use crate::facts::Facts;
use crate::few::few;
use crate::path::{self, Admission, PacketDestination};
use whereis_port_model::{
    Advice, Audit, AuditCode, AuditFinding, AuditPlace, CauseCode, CheckState, Command, Exposure,
    FixKind, ListRow, NetnsId, Opening, OwnerName, Port, PortRange, Proto, Runtime, Vantage,
};

/// Adds all findings, the worst first.
pub(super) fn add(facts: &Facts<'_>, audit: &mut Audit) {
    let needed = needed(audit);
    let behind = Behind::of(facts, &audit.exposures);
    let mut found = MergedFindings::default();
    for (at, exposure) in audit.exposures.iter().enumerate() {
        let open: Vec<&Opening> = exposure.openings.iter().filter(|one| counts(one)).collect();
        if audit.by_policy {
            not_allowed(exposure, &open, &mut found);
        }
        let outside: Vec<&Opening> =
            open.iter().copied().filter(|one| one.reach.from == Vantage::Outside).collect();
        let own = exposure.netns.id == facts.host.own_netns;
        let is_needed = needed.contains(&(exposure.proto, exposure.port)) && own;
        if own {
            past_firewall(facts, exposure, &outside, &mut found);
            ipv6_open(exposure, &outside, &mut found);
            if !is_needed {
                no_firewall(facts, exposure, &outside, &mut found);
            }
            node_port(exposure, &mut found);
        } else {
            by_route(exposure, &outside, &mut found);
        }
        if let Some(first) = outside.first().filter(|_| !is_needed) {
            let inner = behind.of_exposure(&audit.exposures, at);
            sensitive::check(exposure, inner, first, &mut found);
        }
    }
    profiles(facts, audit, &mut found);
    let mut all = found.all;
    all.sort_by_key(|one| (one.code.level(), one.code));
    audit.findings = all;
}

/// Whether a statement is one that somebody has to answer for: surely open, of a sender that is
/// judged, and not allowed.
fn counts(one: &Opening) -> bool {
    one.is_open() && one.judged && one.allowed.is_none()
}

/// The ports that a profile needs other machines to get to.
fn needed(audit: &Audit) -> Vec<(Proto, Port)> {
    let checks = audit.profiles.iter().flat_map(|profile| &profile.checks);
    let met = checks.filter(|check| {
        check.state == CheckState::Met
            && check.from == Some(Vantage::Outside)
            && check.ports.first == check.ports.last
    });
    met.map(|check| (check.proto, check.ports.first)).collect()
}

/// Findings, with those of the same words put together.
#[derive(Default)]
struct MergedFindings {
    all: Vec<AuditFinding>,
    /// Where those are that more ports may join, by code and words.
    at: HashMap<(AuditCode, String), usize>,
}

impl MergedFindings {
    fn add(&mut self, finding: AuditFinding) {
        let key = (finding.code, finding.what.clone());
        if let Some(known) = self.at.get(&key).and_then(|at| self.all.get_mut(*at)) {
            for place in finding.places {
                if !known.places.contains(&place) {
                    known.places.push(place);
                }
            }
            return;
        }
        self.at.insert(key, self.all.len());
        self.all.push(finding);
    }
}

/// A finding of one exposure.
fn of(exposure: &Exposure, code: AuditCode, one: Option<&Opening>, what: String) -> AuditFinding {
    let owner = one.map_or_else(|| exposure.owner(), |one| exposure.owner_at(one));
    AuditFinding {
        code,
        places: vec![AuditPlace {
            netns: exposure.netns.clone(),
            proto: exposure.proto,
            ports: PortRange::one(exposure.port),
        }],
        from: one.map(|one| one.reach.from),
        by: one.map(|one| one.by().into_iter().map(str::to_owned).collect()).unwrap_or_default(),
        owner,
        what,
        fix: None,
    }
}

/// Whose it is, for a sentence.
fn whose(exposure: &Exposure, one: &Opening) -> String {
    match exposure.owner_at(one) {
        Some(OwnerName { kind, name }) => format!("{} {name}", kind.as_str()),
        None => "an owner that is not known".to_owned(),
    }
}

/// Who gets to it, for a sentence: `other machines by eth0`.
fn who(one: &Opening) -> String {
    let by = one.by();
    let place = match one.reach.from {
        Vantage::Outside => "other machines",
        Vantage::Containers => "containers",
        Vantage::Node => "processes of this node",
        Vantage::Loopback => "loopback",
    };
    match (by.is_empty(), one.reach.from) {
        (true, _) => place.to_owned(),
        (false, Vantage::Containers) => format!("containers: {}", few(by)),
        (false, _) => format!("{place} by {}", few(by)),
    }
}

fn not_allowed(exposure: &Exposure, open: &[&Opening], found: &mut MergedFindings) {
    for from in [Vantage::Outside, Vantage::Containers, Vantage::Node, Vantage::Loopback] {
        let of_place: Vec<&&Opening> = open.iter().filter(|one| one.reach.from == from).collect();
        let Some(first) = of_place.first() else { continue };
        let at: Vec<String> = of_place
            .iter()
            .filter_map(|one| one.reach.address)
            .map(|address| address.ip().to_string())
            .collect();
        let at = if at.is_empty() { String::new() } else { format!(" at {}", few(&at)) };
        let mut all: Vec<String> = Vec::new();
        for one in &of_place {
            let name = who(one);
            if !all.contains(&name) {
                all.push(name);
            }
        }
        let what = format!(
            "{} is open to {}{at}, and no rule of the policy allows it: {}",
            whose(exposure, first),
            few(&all),
            first.reach.why
        );
        found.add(of(exposure, AuditCode::NotAllowed, Some(first), what));
    }
}

/// The device that a statement of other machines is about.
fn nic(facts: &Facts<'_>, netns: NetnsId, one: &Opening) -> Option<Nic> {
    let name = one.device.as_deref()?;
    let links = facts.links_of(netns);
    let link = links.iter().find(|link| link.name == name)?;
    Some(Nic { index: link.index, name: name.into() })
}

/// What rules translate before INPUT would have stopped it.
fn past_firewall(
    facts: &Facts<'_>,
    exposure: &Exposure,
    outside: &[&Opening],
    found: &mut MergedFindings,
) {
    let netns = exposure.netns.id;
    for one in outside.iter().filter(|one| one.reach.why.cause.code() == CauseCode::TakenByRules) {
        let Some((to, nic)) = one.reach.address.zip(nic(facts, netns, one)) else { continue };
        let to = PacketDestination { proto: exposure.proto, address: to.ip(), port: to.port() };
        let Admission::Stopped(why) = path::admission(facts, netns, &nic, to) else { continue };
        let what = format!(
            "{} is published past the firewall: INPUT would have what comes in by {} {why}, but \
             rules translate it before, and INPUT never sees it ({})",
            whose(exposure, one),
            nic.name,
            one.reach.why
        );
        let mut finding = of(exposure, AuditCode::PublishedPastFirewall, Some(one), what);
        finding.fix = closing(exposure, &nic);
        found.add(finding);
        return;
    }
}

/// What closes a port that rules translate.
fn closing(exposure: &Exposure, nic: &Nic) -> Option<Advice> {
    let by = exposure.rows.iter().find_map(|row| row.taken_by.as_deref())?;
    if by != "Docker" {
        return None;
    }
    let drop = Command::new("iptables -I DOCKER-USER -i").arg(&*nic.name);
    let drop = drop.args("-p").args(exposure.proto.as_str());
    let drop = drop.args("-m conntrack --ctdir ORIGINAL --ctorigdstport");
    let drop = drop.arg(exposure.port.to_string()).args("-j DROP");
    let local = format!("publish it on an address alone (-p 127.0.0.1:{}:…)", exposure.port);
    Some(Advice::from(local).or(Advice::from(drop)).of(FixKind::Publish))
}

/// Open by IPv6 where rules stop all of IPv4.
fn ipv6_open(exposure: &Exposure, outside: &[&Opening], found: &mut MergedFindings) {
    let of_version = |ipv6: bool| {
        move |one: &&Opening| {
            let to = one.reach.address.map(|to| to.ip());
            one.reach.from == Vantage::Outside && to.is_some_and(|to| to.is_ipv6() == ipv6)
        }
    };
    let Some(open) = outside.iter().copied().find(of_version(true)) else { return };
    let four: Vec<&Opening> = exposure.openings.iter().filter(of_version(false)).collect();
    let is_shut = |one: &&Opening| {
        let code = one.reach.why.cause.code();
        let by_rule = matches!(code, CauseCode::Dropped | CauseCode::Rejected);
        one.reach.reachable == Some(false) && by_rule
    };
    if let (Some(first), true) = (four.first(), four.iter().all(is_shut)) {
        let what = format!(
            "{} is open to {} by IPv6, where IPv4 is {}",
            whose(exposure, open),
            who(open),
            first.reach.why
        );
        found.add(of(exposure, AuditCode::Ipv6Open, Some(open), what));
    }
}

/// How many other ports are looked at to know whether there is a firewall, and how far they are
/// apart.
const OTHERS: u16 = 8;
const STRIDE: u16 = 7919;

/// Bound to all addresses, where rules stop other machines at no port.
fn no_firewall(
    facts: &Facts<'_>,
    exposure: &Exposure,
    outside: &[&Opening],
    found: &mut MergedFindings,
) {
    let netns = exposure.netns.id;
    let is_bound = |one: &&&Opening| one.reach.why.cause.code() == CauseCode::BoundToAll;
    for one in outside.iter().filter(is_bound) {
        let Some((to, nic)) = one.reach.address.zip(nic(facts, netns, one)) else { continue };
        let passes = |n: u16| {
            let port = to.port().wrapping_add(n.wrapping_mul(STRIDE)).max(1);
            let to = PacketDestination { proto: exposure.proto, address: to.ip(), port };
            path::admission(facts, netns, &nic, to) == Admission::Passes
        };
        if !(0..=OTHERS).all(passes) {
            continue;
        }
        let what = format!(
            "{} is bound to all addresses, and no rule keeps other machines by {} from this port \
             or others",
            whose(exposure, one),
            nic.name
        );
        let mut finding = of(exposure, AuditCode::NoFirewall, Some(one), what);
        let bind = Advice::from(
            "bind it to the address that is meant, or let a firewall in only what is meant",
        );
        finding.fix = Some(bind.of(FixKind::Bind));
        found.add(finding);
        return;
    }
}

/// A NodePort that rules take at every address of the node.
fn node_port(exposure: &Exposure, found: &mut MergedFindings) {
    let everywhere = exposure.rows.iter().any(|row| {
        row.port_kind == whereis_port_model::PortKind::NodePort && row.address.is_unspecified()
    });
    let goes = |one: &&Opening| {
        let leaves = one.reach.reachable.is_none() && super::leaves(one);
        one.reach.from == Vantage::Outside
            && one.judged
            && one.allowed.is_none()
            && (one.is_open() || leaves)
    };
    let Some(one) = exposure.openings.iter().find(goes).filter(|_| everywhere) else { return };
    let what = match one.is_open() {
        true => {
            "NodePorts of Services are taken at every address of the node, whichever interface it is of"
        }
        false => {
            "NodePorts of Services are taken at every address of the node, whichever interface it is of, and lead beyond this node"
        }
    };
    let mut finding = of(exposure, AuditCode::NodePortEverywhere, Some(one), what.to_owned());
    // They are told together.
    finding.owner = None;
    let limit = "let kube-proxy take them at some addresses only: --nodeport-addresses";
    finding.fix = Some(Advice::from(limit).of(FixKind::ChangePolicy));
    found.add(finding);
}

/// Reached by a route over this node, though nothing publishes it.
fn by_route(exposure: &Exposure, outside: &[&Opening], found: &mut MergedFindings) {
    let Some(one) = outside.iter().find(|one| one.reach.needs_route()) else { return };
    let Some(to) = one.reach.address else { return };
    // Of pods that is what their network is for: other nodes' get to them untranslated.
    let is_pods = |row: &ListRow| {
        let inner = row.end.containers.last();
        let has = row.end.pod.is_some() || inner.is_some_and(|one| one.pod.is_some());
        has && inner.is_none_or(|one| one.runtime != Runtime::Podman)
    };
    if exposure.rows.iter().any(is_pods) {
        return;
    }
    let what = format!(
        "{} is not published there, but whoever has a route to {} over this node gets to it: {}",
        whose(exposure, one),
        to.ip(),
        one.reach.why
    );
    let mut finding = of(exposure, AuditCode::OpenByRoute, Some(one), what);
    let is_dockers =
        |row: &ListRow| row.end.containers.last().is_some_and(|one| one.runtime == Runtime::Docker);
    let words = match exposure.rows.iter().any(is_dockers) {
        true => "drop what is forwarded to it and was not translated, in DOCKER-USER",
        false => "drop what is forwarded to it and was not translated, in FORWARD",
    };
    finding.fix = Some(Advice::from(words).of(FixKind::Other));
    found.add(finding);
}

/// What profiles miss.
fn profiles(facts: &Facts<'_>, audit: &Audit, found: &mut MergedFindings) {
    for profile in &audit.profiles {
        for check in &profile.checks {
            let code = match check.state {
                CheckState::Missing => AuditCode::RequiredMissing,
                // What is not required may be somebody else's.
                CheckState::HeldByOther if !check.required => continue,
                CheckState::HeldByOther => AuditCode::RequiredHeldByOther,
                CheckState::Unreachable => AuditCode::RequiredUnreachable,
                CheckState::Met | CheckState::Unused | CheckState::Closed | CheckState::Unknown => {
                    continue;
                }
            };
            let what = format!("{} for {}: {}", check.asked(), profile.name, check.why);
            found.add(AuditFinding {
                code,
                places: vec![AuditPlace {
                    netns: facts.netns_ref(facts.host.own_netns),
                    proto: check.proto,
                    ports: check.ports,
                }],
                from: check.from,
                by: Vec::new(),
                owner: None,
                what,
                fix: None,
            });
        }
    }
}

/// What listens behind ports that rules or a forwarder lead to: a published port's container.
struct Behind {
    at: HashMap<(IpAddr, Proto, Port), usize>,
}

impl Behind {
    fn of(facts: &Facts<'_>, exposures: &[Exposure]) -> Self {
        let mut addresses: HashMap<NetnsId, Vec<IpAddr>> = HashMap::new();
        for one in facts.all_addresses().iter().filter(|a| !a.address.is_loopback()) {
            addresses.entry(one.netns).or_default().push(one.address);
        }
        let mut at = HashMap::new();
        for (index, exposure) in exposures.iter().enumerate() {
            let own = exposure.netns.id == facts.host.own_netns;
            for address in addresses.get(&exposure.netns.id).into_iter().flatten().filter(|_| !own)
            {
                at.insert((*address, exposure.proto, exposure.port), index);
            }
        }
        Self { at }
    }

    /// The exposure of the place that another one leads to.
    fn of_exposure<'e>(&self, exposures: &'e [Exposure], at: usize) -> Option<&'e Exposure> {
        let one = exposures.get(at)?;
        let target = one.rows.iter().find_map(|row| row.target.as_ref())?;
        let key = (target.address?.to_canonical(), one.proto, target.port?);
        exposures.get(*self.at.get(&key)?)
    }
}
