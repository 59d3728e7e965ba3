//! All that is open now, as a policy that allows it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::sanitize::clean;
use whereis_port_model::escape::is_unsafe;
use whereis_port_model::{Audit, Exposure, Opening, Port, Proto, Vantage, is_given, stable_owner};

use super::SENDERS;

/// What one rule has besides its ports: senders, addresses and owner.
type RuleKey = (Vec<String>, Vec<String>, Option<String>);

/// A policy that allows all that is open, and what is not known to be.
pub fn policy(audit: &Audit) -> String {
    let mut rules: BTreeMap<RuleKey, RulePorts> = BTreeMap::new();
    for exposure in &audit.exposures {
        for (owner, openings) in by_owner(exposure) {
            let mut senders: Vec<String> = Vec::new();
            for from in SENDERS {
                let of_class: Vec<&Opening> =
                    openings.iter().copied().filter(|one| one.reach.from == from).collect();
                for name in names(from, &of_class) {
                    if !senders.contains(&name) {
                        senders.push(name);
                    }
                }
            }
            let ports = rules.entry((senders, addresses(exposure), owner)).or_default();
            ports.all.push((exposure.port, exposure.proto));
            ports.unknown |= openings.iter().any(|one| !one.is_open());
            if is_given(&exposure.netns) {
                ports.places.push(exposure.netns.to_string());
            }
        }
    }
    let mut out = String::from(
        "# What is open on this node, as whereis-port audit --generate-policy found it. Take out\n\
         # what should not be, and check with: whereis-port audit --policy FILE\n",
    );
    if audit.is_partial() {
        out.push_str("# Not everything could be read or decided: there may be more.\n");
    }
    for ((senders, addresses, owner), ports) in &rules {
        out.push_str("\n[[allow]]\n");
        if ports.unknown {
            out.push_str("# of some senders it is not known whether they get to it\n");
        }
        if let Some(place) = ports.places.first() {
            let _ = writeln!(out, "# in {}", clean(place));
        }
        let _ = writeln!(out, "from = {}", list(senders));
        let _ = writeln!(out, "ports = {}", list(&ports.ranges()));
        if !addresses.is_empty() {
            let _ = writeln!(out, "address = {}", list(addresses));
        }
        if let Some(owner) = owner {
            let _ = writeln!(out, "owner = {}", list(std::slice::from_ref(owner)));
        }
    }
    out
}

/// What is open of a port, or not known to be shut, by whose it is there.
fn by_owner(exposure: &Exposure) -> BTreeMap<Option<String>, Vec<&Opening>> {
    let mut all: BTreeMap<Option<String>, Vec<&Opening>> = BTreeMap::new();
    for one in exposure.openings.iter().filter(|one| one.reach.reachable != Some(false)) {
        let owner = exposure.owner_at(one).map(|owner| stable_owner(&owner));
        all.entry(owner).or_default().push(one);
    }
    all
}

/// The ports that one rule of a written policy allows.
#[derive(Default)]
struct RulePorts {
    all: Vec<(Port, Proto)>,
    unknown: bool,
    places: Vec<String>,
}

impl RulePorts {
    /// `22/tcp`, `30000-30004/tcp`.
    fn ranges(&self) -> Vec<String> {
        let mut all: Vec<(Proto, u16)> =
            self.all.iter().map(|(port, proto)| (*proto, port.0)).collect();
        all.sort_unstable();
        all.dedup();
        let mut ranges: Vec<(Proto, u16, u16)> = Vec::new();
        for (proto, port) in all {
            match ranges.last_mut() {
                Some((known, _, last)) if *known == proto && port.checked_sub(1) == Some(*last) => {
                    *last = port;
                }
                _ => ranges.push((proto, port, port)),
            }
        }
        let text = |(proto, first, last): (Proto, u16, u16)| match first == last {
            true => format!("{first}/{proto}"),
            false => format!("{first}-{last}/{proto}"),
        };
        ranges.into_iter().map(text).collect()
    }
}

/// How a policy names these senders: other machines by their devices. Containers come and go
/// with their names.
fn names(from: Vantage, all: &[&Opening]) -> Vec<String> {
    let word = match from {
        Vantage::Outside => "outside",
        Vantage::Containers => "containers",
        Vantage::Node => "node",
        Vantage::Loopback => "loopback",
    };
    if all.is_empty() {
        return Vec::new();
    }
    let devices: Option<Vec<&String>> = all.iter().map(|one| one.device.as_ref()).collect();
    match devices.filter(|_| from == Vantage::Outside) {
        Some(devices) => devices.into_iter().map(|device| format!("{word}:{device}")).collect(),
        None => vec![word.to_owned()],
    }
}

/// The addresses that it is bound to or taken at, where it is not all of them. Those of other
/// namespaces come and go.
fn addresses(exposure: &Exposure) -> Vec<String> {
    let all = exposure.addresses();
    let everywhere = all.iter().any(|address| address.to_canonical().is_unspecified());
    if everywhere || is_given(&exposure.netns) {
        return Vec::new();
    }
    all.into_iter().map(|address| address.to_canonical().to_string()).collect()
}

fn list(all: &[String]) -> String {
    let all: Vec<String> = all.iter().map(|text| quoted(text)).collect();
    format!("[{}]", all.join(", "))
}

/// A string of TOML, with what is not shown as it is escaped.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() || is_unsafe(c) => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
