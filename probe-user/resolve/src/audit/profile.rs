//! Whether a node offers what profiles ask for.

use super::profiles::{ProfilePort, ProfileSign, Profiles, Which};
use crate::facts::Facts;
use crate::few::few;
use whereis_port_model::{
    CauseCode, CheckState, Ending, Exposure, Impact, NetnsId, Opening, Port, PortRange,
    ProfileCheck, ProfileReport, Proto, Vantage,
};

/// The range that Kubernetes has for NodePorts where nothing says another one.
const NODE_PORTS: PortRange = PortRange { first: Port(30_000), last: Port(32_767) };

/// Looks at each profile.
pub(super) fn check(
    facts: &Facts<'_>,
    profiles: &Profiles,
    exposures: &[Exposure],
) -> Vec<ProfileReport> {
    let own = facts.host.own_netns;
    let here: Vec<&Exposure> = exposures.iter().filter(|one| one.netns.id == own).collect();
    let mut reports = Vec::new();
    for profile in &profiles.all {
        let found_by = shown(&profile.found_by, &here);
        let is_not = shown(&profile.not_with, &here).is_some();
        if profiles.by_themselves && (found_by.is_none() || is_not) {
            continue;
        }
        let site = ProfiledNode { facts, own, here: &here };
        reports.push(ProfileReport {
            name: profile.name.clone(),
            title: profile.title.clone(),
            found_by: found_by.filter(|_| profiles.by_themselves),
            checks: profile.ports.iter().flat_map(|asked| site.asked(asked)).collect(),
        });
    }
    reports
}

/// The first that one of these owners has here, in words.
fn shown(by: &[ProfileSign], here: &[&Exposure]) -> Option<String> {
    let one = here.iter().find(|one| by.iter().any(|shown| shown.fits(one)))?;
    let names = one.owners();
    let name = names.iter().find(|name| {
        matches!(
            name.kind,
            whereis_port_model::OwnerKind::Component | whereis_port_model::OwnerKind::Kernel
        )
    });
    let name = name.or(names.first()).map_or_else(String::new, ToString::to_string);
    Some(format!("{name} at port {}/{}", one.port, one.proto))
}

/// The node that profiles are asked of.
struct ProfiledNode<'a, 'f> {
    facts: &'a Facts<'f>,
    own: NetnsId,
    here: &'a [&'a Exposure],
}

impl ProfiledNode<'_, '_> {
    /// What is asked for, port by port.
    fn asked(&self, asked: &ProfilePort) -> Vec<ProfileCheck> {
        match asked.ports {
            Which::NodePorts => {
                [Proto::Tcp, Proto::Udp].map(|proto| self.node_ports(asked, proto)).to_vec()
            }
            Which::These(range, proto) => {
                (range.first.0..=range.last.0).map(|n| self.one(asked, Port(n), proto)).collect()
            }
        }
    }

    fn one(&self, asked: &ProfilePort, port: Port, proto: Proto) -> ProfileCheck {
        let (state, why) = self.state(asked, port, proto);
        ProfileCheck {
            ports: PortRange::one(port),
            proto,
            role: asked.role.clone(),
            from: asked.from,
            required: asked.required,
            only: asked.only.clone(),
            state,
            why,
            source: asked.source.clone(),
        }
    }

    /// How it is, and whether that is as it should be on this node.
    fn state(&self, asked: &ProfilePort, port: Port, proto: Proto) -> (CheckState, String) {
        let (state, why) = self.found(asked, port, proto);
        match state {
            CheckState::Missing | CheckState::HeldByOther => {
                match shown(&asked.unless, self.here) {
                    Some(by) => (CheckState::Unused, format!("not asked for beside {by}: {why}")),
                    None => (state, why),
                }
            }
            CheckState::Unreachable if asked.may_be_shut => (CheckState::Closed, why),
            _ => (state, why),
        }
    }

    fn found(&self, asked: &ProfilePort, port: Port, proto: Proto) -> (CheckState, String) {
        let found = self.here.iter().find(|one| (one.port, one.proto) == (port, proto));
        let Some(one) = found else { return self.absent(asked) };
        let owners = one.owners();
        let is_right = asked.owner.is_empty()
            || owners.iter().any(|name| asked.owner.iter().any(|owner| owner.fits(name)));
        let who = one.owner().map_or_else(|| "somebody".to_owned(), |name| name.to_string());
        if !is_right {
            let hidden = |row: &whereis_port_model::ListRow| {
                matches!(
                    row.end.ending,
                    Ending::NotReadable | Ending::OutsidePidNamespace | Ending::Unknown
                )
            };
            if one.rows.iter().any(hidden) {
                return (CheckState::Unknown, "who holds it could not be read".to_owned());
            }
            return (CheckState::HeldByOther, format!("{who} holds it"));
        }
        let Some(from) = asked.from else {
            return (CheckState::Met, format!("{who} holds it"));
        };
        let (state, why) = reached(one, from);
        (state, format!("{who} holds it; {why}"))
    }

    /// Nothing holds it, as far as that is known.
    fn absent(&self, asked: &ProfilePort) -> (CheckState, String) {
        if self.facts.has_gap(|gap| gap.impact == Impact::Port) {
            let why = "nothing was seen to hold it, but not everything could be read";
            return (CheckState::Unknown, why.to_owned());
        }
        let why = "nothing holds it".to_owned();
        (if asked.required { CheckState::Missing } else { CheckState::Unused }, why)
    }

    /// The NodePorts of Services that are there.
    fn node_ports(&self, asked: &ProfilePort, proto: Proto) -> ProfileCheck {
        let (range, whose) = self.range();
        let is_one = |one: &&&Exposure| {
            let node_port =
                one.rows.iter().any(|row| row.port_kind == whereis_port_model::PortKind::NodePort);
            one.proto == proto && range.contains(one.port) && node_port
        };
        let all: Vec<&&Exposure> = self.here.iter().filter(is_one).collect();
        let mut by_state: [Vec<(Port, String)>; 2] = Default::default();
        let (mut met, mut idle) = (0, Vec::new());
        for one in &all {
            let from = asked.from.unwrap_or(Vantage::Outside);
            let away = |opening: &Opening| opening.reach.from == from && super::leaves(opening);
            match reached(one, from) {
                (CheckState::Met, _) => met += 1,
                (CheckState::Unreachable, _) if is_idle(one, from) => idle.push(one.port),
                (CheckState::Unreachable, why) => by_state[0].push((one.port, why)),
                _ if one.openings.iter().any(away) => met += 1,
                (_, why) => by_state[1].push((one.port, why)),
            }
        }
        let told = |of: &[(Port, String)]| {
            let ports = few(of.iter().map(|(port, _)| port.to_string()));
            let why = of.first().map_or("", |(_, why)| why.as_str());
            format!("{ports}: {why}")
        };
        let (state, why) = match (&by_state[0], &by_state[1]) {
            (shut, _) if !shut.is_empty() => (CheckState::Unreachable, told(shut)),
            (_, unknown) if !unknown.is_empty() => (CheckState::Unknown, told(unknown)),
            _ if met == 0 && idle.is_empty() => {
                (CheckState::Unused, "no Service has one here".to_owned())
            }
            _ if met == 0 => (CheckState::Unused, "no Service that has one is served".to_owned()),
            _ => (CheckState::Met, format!("{met} of Services, as far as this node decides")),
        };
        let why = match idle.as_slice() {
            [] => why,
            idle => format!("{why}; those of Services that nobody serves: {}", few(idle)),
        };
        ProfileCheck {
            ports: range,
            proto,
            role: asked.role.clone(),
            from: asked.from,
            required: asked.required,
            only: asked.only.clone(),
            state,
            why: format!("{why} ({whose})"),
            source: asked.source.clone(),
        }
    }

    /// The cluster's range of NodePorts, and how it is known.
    fn range(&self) -> (PortRange, &'static str) {
        const OPTION: &str = "service-node-port-range";
        let processes = self.here.iter().flat_map(|one| &one.rows).filter(|row| {
            row.component.as_ref().is_some_and(|component| component.confirmed && component.is_api)
        });
        let mut is_here = false;
        for process in processes.flat_map(|row| &row.end.processes) {
            is_here = true;
            if let Some(range) = process.cmdline.iter().enumerate().find_map(|(at, argument)| {
                let (_, value) = argument.split_once(OPTION)?;
                let next = || process.cmdline.get(at + 1).map(String::as_str);
                let value = value.strip_prefix('=').or_else(|| next().filter(|_| value.is_empty()));
                range_of(value?)
            }) {
                return (range, "the range of this cluster's API server");
            }
        }
        debug_assert!(self.own == self.facts.host.own_netns, "asked of the own namespace");
        match is_here {
            true => (NODE_PORTS, "the default range: the API server here shows no other one"),
            false => (NODE_PORTS, "the default range: no API server runs here that would say it"),
        }
    }
}

/// `20000-39999`, `30000+10`.
fn range_of(text: &str) -> Option<PortRange> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
        None => {
            let (first, more) = text.split_once('+')?;
            let first: u16 = first.parse().ok()?;
            (first, first.checked_add(more.parse().ok()?)?)
        }
    };
    (0 < first && first <= last).then_some(PortRange { first: Port(first), last: Port(last) })
}

/// Whether connections get as far as rules lead them, and nobody serves there: that is a
/// Service's own trouble, and not that of the way to its port.
fn is_idle(one: &Exposure, from: Vantage) -> bool {
    let mut all = one.openings.iter().filter(|opening| opening.reach.from == from);
    all.all(|opening| {
        matches!(
            opening.reach.why.cause.code(),
            CauseCode::NoBackend | CauseCode::NothingListens | CauseCode::OnlyReserved
        )
    })
}

/// Whether those get to a port, and by what it fails.
fn reached(one: &Exposure, from: Vantage) -> (CheckState, String) {
    let of_place: Vec<&Opening> =
        one.openings.iter().filter(|opening| opening.reach.from == from).collect();
    let place = match from {
        Vantage::Outside => "other machines",
        Vantage::Containers => "containers",
        Vantage::Node | Vantage::Loopback => "processes of the node",
    };
    let at = |opening: &Opening| {
        opening.reach.address.map_or_else(String::new, |address| format!(" at {}", address.ip()))
    };
    let first = |reachable| of_place.iter().find(|one| one.reach.reachable == reachable);
    match (first(Some(true)), first(None), first(Some(false))) {
        (Some(open), _, shut) => {
            let but = shut
                .map_or_else(String::new, |shut| format!(", not{}: {}", at(shut), shut.reach.why));
            (CheckState::Met, format!("{place} get to it{}{but}", at(open)))
        }
        (None, Some(unknown), _) => {
            let why = format!(
                "whether {place} get to it{} is not known: {}",
                at(unknown),
                unknown.reach.why
            );
            (CheckState::Unknown, why)
        }
        (None, None, Some(shut)) => {
            let why = format!("{place} do not get to it{}: {}", at(shut), shut.reach.why);
            (CheckState::Unreachable, why)
        }
        (None, None, None) => {
            (CheckState::Unknown, format!("nothing is known of whether {place} get to it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_kubernetes_reads_it() {
        let range = |first, last| Some(PortRange { first: Port(first), last: Port(last) });
        assert_eq!(range_of("20000-39999"), range(20_000, 39_999));
        assert_eq!(range_of("30000+10"), range(30_000, 30_010));
        for wrong in ["", "x", "5-3", "0-10", "65535+1"] {
            assert_eq!(range_of(wrong), None, "{wrong}");
        }
    }
}
