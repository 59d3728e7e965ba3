//! By which rule packets were dropped: the same connection is sent through the rules that are
//! there now, and what stops it has dropped them.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Facts;
use super::path::{self, PacketDestination, Sender, StopKind};
use whereis_port_model::Node;
use whereis_port_model::{
    Answer, DropFate, Dropped, DroppedBy, Evidence, EvidenceSource, Finding, FindingCode, Link,
    LinkKind, Proto, Vantage, Watched, counted, spoken_ms,
};
use whereis_port_rules::PacketSender;

/// How many rules are named where it may have been any of several.
const NAMED: usize = 3;

/// How many causes are looked at for one answer.
const CAUSES: usize = 16;

/// By which rule packets were dropped; `None` where no rule did it.
pub fn dropped_by(node: &dyn Node, dropped: &Dropped) -> Option<DroppedBy> {
    let drop = Some(&dropped.what).filter(|drop| drop.is_by_rules())?;
    let unknown = |why: &str| Some(DroppedBy::Unknown(why.to_owned()));
    let Some(netns) = dropped.netns else {
        return unknown("the namespace is not known");
    };
    let facts = Facts::new(node);
    let links = facts.links_of(netns);
    let source = drop.source.map_or(PacketSender::Elsewhere, PacketSender::Address);
    let sender = match drop.came_by.map(|index| links.iter().find(|link| link.index == index)) {
        Some(Some(link)) if link.kind != LinkKind::Loopback => {
            Sender::behind(vantage(link, &links), link, (source, None))
        }
        Some(None) => return unknown("the device that they came by is not there any more"),
        // Over loopback a process here has sent them.
        _ => Sender { address: drop.source, ..Sender::process(Vantage::Node) },
    };
    // Rules see it from the beginning: with the address that it had then.
    let (address, port) = match drop.original {
        Some(original) => (original.ip(), original.port()),
        None => (dropped.address, dropped.port.0),
    };
    let entry = path::attempt(
        &facts,
        netns,
        sender,
        PacketDestination { proto: dropped.proto, address, port },
    );
    let stops = entry.arrivals.iter().filter_map(|arrival| arrival.stop.as_ref());
    let by_rules = [StopKind::Dropped, StopKind::Rejected, StopKind::ReversePath];
    let all: BTreeSet<&str> =
        stops.filter(|stop| by_rules.contains(&stop.kind)).map(|stop| stop.why.as_str()).collect();
    match all.len() {
        0 if entry.arrivals.iter().any(|arrival| !arrival.unsure.is_empty()) => {
            unknown("something on the way is not evaluated by this version")
        }
        0 => unknown("by the rules as they are now, the first packet of a connection gets through"),
        1..=NAMED => {
            let all: Vec<&str> = all.into_iter().collect();
            Some(DroppedBy::Rule(all.join(", or ")))
        }
        many => Some(DroppedBy::Unknown(format!("any of {many} could have done it"))),
    }
}

/// Where who sends by a device is.
fn vantage(link: &Link, links: &[Link]) -> Vantage {
    if path::leads_outside(link, links) { Vantage::Outside } else { Vantage::Containers }
}

/// Adds to an answer what watching told of packets that died on their way to its ports.
pub fn add_dropped(node: &dyn Node, answer: &mut Answer) {
    let Some(watched) = node.observed().value else { return };
    let query = &answer.query;
    let is_asked = |dropped: &&Dropped| {
        let original = dropped.what.original.map(|original| original.port());
        let ports = [Some(dropped.port.0), original];
        query.proto.is_none_or(|proto| proto == dropped.proto)
            && ports
                .into_iter()
                .flatten()
                .any(|port| query.ports.contains(whereis_port_model::Port(port)))
    };
    let mut found: BTreeMap<(Proto, bool), Vec<Dropped>> = BTreeMap::new();
    for (index, dropped) in watched.dropped.iter().filter(is_asked).enumerate() {
        let by = dropped_by(node, dropped).filter(|_| index < CAUSES);
        let kind = (dropped.proto, dropped.what.flags.is_syn());
        found.entry(kind).or_default().push(Dropped { by, ..dropped.clone() });
    }
    for ((proto, is_syn), dropped) in found {
        answer.findings.push(finding(&watched, proto, is_syn, &dropped));
    }
}

fn finding(watched: &Watched, proto: Proto, is_syn: bool, dropped: &[Dropped]) -> Finding {
    let what = if is_syn { "SYN" } else { "packet" };
    // Who is refused is told so, and the packet thrown away: it is counted once.
    let is_lost = |one: &&Dropped| matches!(one.what.fate, DropFate::Dropped | DropFate::QueueFull);
    let lost: u64 = dropped.iter().filter(is_lost).map(|one| one.what.total).sum();
    let total = match lost {
        0 => dropped.iter().map(|one| one.what.total).sum(),
        lost => lost,
    };
    let ports: BTreeSet<u16> = dropped.iter().map(|one| one.port.0).collect();
    let accepted: u64 = match is_syn {
        true => watched
            .accepted
            .iter()
            .filter(|listener| ports.contains(&listener.port.0))
            .map(|listener| listener.connections)
            .sum(),
        false => 0,
    };
    // The same in other words is one: senders do not matter here.
    let mut by_words: BTreeMap<String, u64> = BTreeMap::new();
    for one in dropped {
        let mut words = match &one.by {
            Some(DroppedBy::Rule(rule)) => rule.clone(),
            Some(DroppedBy::Unknown(why)) => {
                format!("{}, by which rule is not known: {why}", one.what.words())
            }
            None => one.what.words(),
        };
        if let Some(device) = &one.what.device {
            words.push_str(&format!(" at {device}"));
        }
        *by_words.entry(words).or_default() += one.what.total;
    }
    let told: Vec<String> = by_words
        .into_iter()
        .map(|(words, count)| match words.starts_with("dropped") {
            true => format!("{count} {} {words}", if count == 1 { "was" } else { "were" }),
            false => format!("{count}: {words}"),
        })
        .collect();
    let estimated = dropped.iter().any(|one| one.what.estimated);
    let about = if estimated { "about " } else { "" };
    let arrived = counted(total + accepted, what);
    let connected = match (is_syn, accepted) {
        (true, 0) => ", and no connection was accepted".to_owned(),
        (true, count) => format!(", {} accepted", counted(count, "connection")),
        (false, _) => String::new(),
    };
    let time = spoken_ms(watched.ms);
    Finding {
        code: FindingCode::PacketsDropped,
        what: format!(
            "{about}{arrived} ({}) arrived in {time}: {}{connected}",
            proto.as_str(),
            told.join("; ")
        ),
        cause: None,
        fix: None,
        evidence: vec![Evidence::new(
            EvidenceSource::ObservedDrops,
            format!("the kernel told of each for {time}"),
        )],
    }
}
