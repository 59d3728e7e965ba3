//! The first line of an answer: what is behind the port and who reaches it, as a sentence
//! that can be passed on as it is.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::layout::TextPage;
use crate::style::{Ink, Style};
use crate::words;
use whereis_port_model::{
    Answer, End, Ending, Hop, HopKind, Host, NetnsName, NetnsRef, Process, Reach, Scope, Socket,
    Vantage, Verdict,
};

use super::tree::HopNode;

/// How many ends, places or ports are named.
const NAMED: usize = 3;

/// A path through a tree: its root, its hops, its end.
struct TreePath<'n, 'a> {
    root: &'n HopNode<'a>,
    hops: Vec<&'a Hop>,
    end: &'a End,
}

/// Writes the sentence for the trees that connections take.
pub(super) fn write(
    page: &mut TextPage<'_>,
    answer: &Answer,
    roots: &[&HopNode<'_>],
    reach: &[&Reach],
    host: &Host,
) {
    let style = page.style;
    let (mut text, several) = subject(style, answer, roots, host);
    text.push(' ');
    let predicate = predicate(style, roots);
    text.push_str(&match several {
        true => plural(&predicate),
        false => predicate,
    });
    let reached = reached(reach);
    if !reached.is_empty() {
        let _ = write!(text, "; {reached}");
    }
    page.paragraph("", "    ", Some(Ink::Strong), &text);
}

/// Whether one sender gets through.
pub(super) fn of_sender(page: &mut TextPage<'_>, answer: &Answer, who: &str) {
    let is = match answer.verdict {
        Verdict::Found => "reachable",
        Verdict::NotFound => "not reachable",
        Verdict::Unknown => "whether it is reachable is not known",
    };
    let text = page.style.text(&answer.query.text);
    page.paragraph("", "    ", Some(Ink::Strong), &format!("{text} from {who}: {is}"));
}

/// Where a port is that is not in the tool's own namespace.
pub(super) fn elsewhere(page: &mut TextPage<'_>, answer: &Answer, roots: &[&HopNode<'_>]) {
    let places: BTreeSet<_> =
        roots.iter().filter_map(|root| Some(root.hop.netns.as_ref()?.id)).collect();
    let text = page.style.text(&answer.query.text);
    let count = places.len();
    let text = format!("{text}: nothing here, but inside {count} other network namespaces");
    page.paragraph("", "    ", Some(Ink::Strong), &text);
}

/// A predicate of one as that of several.
fn plural(predicate: &str) -> String {
    match (predicate.strip_prefix("is "), predicate.strip_prefix("leads ")) {
        (Some(rest), _) => format!("are {rest}"),
        (_, Some(rest)) => format!("lead {rest}"),
        _ => predicate.to_owned(),
    }
}

/// `30518/tcp in cluster1-control-plane on node1`, and whether that is several ports.
fn subject(style: &Style, answer: &Answer, roots: &[&HopNode<'_>], host: &Host) -> (String, bool) {
    let mut ports: Vec<String> = Vec::new();
    for hop in roots.iter().map(|root| root.hop) {
        let port = hop.endpoint.port.map_or_else(|| "?".to_owned(), |port| port.to_string());
        let place = match &answer.query.scope {
            Scope::Address(address) if address.is_ipv6() => format!("[{address}]:{port}"),
            Scope::Address(address) => format!("{address}:{port}"),
            Scope::Everywhere => port,
        };
        let port = format!("{place}/{}", hop.proto);
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    let mut text = few(&ports);
    if let [place] = places(style, roots, host).as_slice() {
        let _ = write!(text, " in {place}");
    }
    let _ = write!(text, " on {}", style.text(&host.hostname));
    (text, ports.len() > 1)
}

/// The namespaces of roots that are neither the tool's own nor the node's.
fn places(style: &Style, roots: &[&HopNode<'_>], host: &Host) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for netns in roots.iter().filter_map(|root| root.hop.netns.as_ref()) {
        if netns.name == Some(NetnsName::Host) || netns.id == host.own_netns {
            continue;
        }
        let name = place(style, netns);
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// A namespace by its name, or else by its number.
pub(super) fn place(style: &Style, netns: &NetnsRef) -> String {
    match &netns.name {
        Some(name) => style.text(&name.to_string()),
        None => format!("netns {}", netns.id),
    }
}

/// `a`, `a and b`, `a, b, c and 5 more`.
pub(super) fn few(all: &[String]) -> String {
    let shown = all.get(..NAMED.min(all.len())).unwrap_or_default();
    match (shown, all.len() - shown.len()) {
        ([], _) => String::new(),
        ([one], 0) => one.clone(),
        ([before @ .., last], 0) => format!("{} and {last}", before.join(", ")),
        (shown, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// `is served by nginx in pod default/nginx-app`.
fn predicate(style: &Style, roots: &[&HopNode<'_>]) -> String {
    let ways: Vec<TreePath<'_, '_>> = roots
        .iter()
        .flat_map(|root| {
            let leaves = root.leaves().into_iter();
            leaves.map(move |(hops, end)| TreePath { root, hops, end })
        })
        .collect();
    let Some(first) = ways.first() else { return "leads nowhere that is known".to_owned() };
    if ways.iter().all(|way| same_end(way.end, first.end)) {
        return only(style, first);
    }
    let ends = ends(&ways);
    let programs: BTreeSet<Option<&str>> = ends.iter().map(|(way, _)| program(way)).collect();
    let mut netns: Vec<&NetnsRef> = Vec::new();
    for at in ways.iter().filter_map(|way| way.root.hop.netns.as_ref()) {
        if !netns.contains(&at) {
            netns.push(at);
        }
    }
    // The same program everywhere: where it is says more.
    if let (1, Some(Some(name))) = (programs.len(), programs.first())
        && netns.len() > 1
    {
        let names: Vec<String> = netns.iter().map(|n| style.text(&n.to_string())).collect();
        let count = names.len();
        let name = style.text(name);
        return format!("is served by {name} in {count} network namespaces: {}", few(&names));
    }
    let balanced = ways.iter().all(|way| way.root.hop == first.root.hop);
    let served =
        |way: &TreePath<'_, '_>| matches!(way.end.ending, Ending::Process | Ending::Kernel);
    if !balanced && !ends.iter().all(|(way, _)| served(way)) {
        let each = ends.iter().map(|(way, _)| {
            format!("{} at {}", only(style, way), style.endpoint(&way.root.hop.endpoint))
        });
        let more = match ends.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        return format!("{}{more}", each.take(NAMED).collect::<Vec<_>>().join(", and "));
    }
    // What they have in common is said once.
    let of = belongs(style, first.end);
    let common = ends.iter().all(|(way, _)| belongs(style, way.end) == of);
    let mut told: Vec<String> = Vec::new();
    for (kind, alike) in kinds(style, &ends) {
        let Some((way, _)) = alike.first() else { continue };
        let share = alike.iter().map(|(_, share)| *share).sum::<Option<f64>>();
        let mut text = match alike.len() {
            1 => target(style, way, true),
            many => format!("{many} × {kind}"),
        };
        match share {
            Some(share) if balanced => {
                let _ = write!(text, " ({:.0} %)", share * 100.0);
            }
            _ if balanced => {}
            _ => {
                let _ = write!(text, " at {}", style.endpoint(&way.root.hop.endpoint));
            }
        }
        told.push(text);
    }
    let verb = if balanced { "is shared by" } else { "is served by" };
    let of = if common { of } else { String::new() };
    format!("{verb} {}{of}", few(&told))
}

/// An end, and the share of connections that get there.
type WeightedPath<'w, 'n, 'a> = (&'w TreePath<'n, 'a>, Option<f64>);

/// The ends, those of one workload together where there are more than can be named.
fn kinds<'w, 'n, 'a>(
    style: &Style,
    ends: &[WeightedPath<'w, 'n, 'a>],
) -> Vec<(String, Vec<WeightedPath<'w, 'n, 'a>>)> {
    let mut kinds: Vec<(String, Vec<WeightedPath<'_, '_, '_>>)> = Vec::new();
    for (at, one) in ends.iter().enumerate() {
        let kind = match ends.len() > NAMED {
            true => super::elsewhere::kind(style, one.0.end),
            false => at.to_string(),
        };
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, alike)) => alike.push(*one),
            None => kinds.push((kind, vec![*one])),
        }
    }
    kinds
}

/// The program of who serves it.
fn program<'a>(way: &TreePath<'_, 'a>) -> Option<&'a str> {
    let process = way.end.processes.first().filter(|_| way.end.ending == Ending::Process)?;
    Some(process.name())
}

/// Each end once, with the share of connections that get there.
fn ends<'w, 'n, 'a>(ways: &'w [TreePath<'n, 'a>]) -> Vec<WeightedPath<'w, 'n, 'a>> {
    let mut ends: Vec<WeightedPath<'_, '_, '_>> = Vec::new();
    for way in ways {
        let shares: Vec<f64> = way.hops.iter().filter_map(|hop| hop.share).collect();
        let share = (!shares.is_empty()).then(|| shares.iter().product::<f64>());
        match ends.iter_mut().find(|(known, _)| same_end(known.end, way.end)) {
            Some((known, sum)) if known.root.hop == way.root.hop => {
                *sum = sum.zip(share).map(|(a, b)| a + b);
            }
            Some(_) => {}
            None => ends.push((way, share)),
        }
    }
    ends
}

/// Whether two ends are told in the same words.
fn same_end(one: &End, other: &End) -> bool {
    let of = |end: &End| (end.ending, end.processes.first().map(|process| process.pid));
    of(one) == of(other)
        && (&one.pod, &one.service, &one.containers)
            == (&other.pod, &other.service, &other.containers)
        && (one.ending == Ending::Process || one.why == other.why)
}

/// What is behind a port that leads to one end.
fn only(style: &Style, way: &TreePath<'_, '_>) -> String {
    let TreePath { root, hops, end } = way;
    let why = || {
        let detail = hops.last().map_or("", |hop| hop.detail.as_str());
        style.text(end.why.as_deref().unwrap_or(detail))
    };
    match end.ending {
        Ending::Nothing if hops.len() > 1 && root.hop.kind == HopKind::Listener => {
            format!("is open, but leads to nothing: {}", why())
        }
        Ending::Nothing => format!("leads to nothing: {}", why()),
        Ending::Stopped => format!("is not let through: {}", why()),
        Ending::Elsewhere => format!("leads to {}", noun(style, way)),
        Ending::Unknown if is_circle(hops) => "leads in a circle".to_owned(),
        Ending::Unknown if !end.processes.is_empty() => {
            format!("is served by {}; where it leads from there is not known", noun(style, way))
        }
        Ending::Process | Ending::Kernel => format!("is served by {}", noun(style, way)),
        Ending::OutsidePidNamespace | Ending::NotReadable | Ending::Unknown => {
            format!("is held by {}", noun(style, way))
        }
    }
}

/// An end with what it belongs to.
fn noun(style: &Style, way: &TreePath<'_, '_>) -> String {
    format!("{}{}", target(style, way, false), belongs(style, way.end))
}

/// The service and cluster of an end.
fn belongs(style: &Style, end: &End) -> String {
    let mut text = String::new();
    if let Some(service) = &end.service {
        let (namespace, name) = (style.text(&service.namespace), style.text(&service.name));
        let _ = write!(text, ", Service {namespace}/{name}");
    }
    if let Some(cluster) = &end.cluster {
        let _ = write!(text, ", cluster {}", words::cluster(style, cluster));
    }
    text
}

/// An end as the subject of a sentence; `brief` as one of several.
fn target(style: &Style, way: &TreePath<'_, '_>, brief: bool) -> String {
    let TreePath { hops, end, .. } = way;
    let detail = || hops.last().map_or_else(String::new, |hop| style.text(&hop.detail));
    let process = end.processes.first();
    let hidden = matches!(end.ending, Ending::OutsidePidNamespace | Ending::NotReadable);
    if let Some(container) = end.containers.last().filter(|_| brief && hidden) {
        let name = style.text(words::container(container));
        return format!("container {name} ({})", container.runtime);
    }
    let mut text = match end.ending {
        Ending::Process => process.map_or_else(|| "a process".to_owned(), |p| name(style, p, end)),
        Ending::Kernel => detail(),
        Ending::OutsidePidNamespace => "a process that can't be seen from here".to_owned(),
        Ending::NotReadable => "a process that can't be read from here".to_owned(),
        Ending::Nothing => "nothing".to_owned(),
        Ending::Stopped => "nobody, as it is not let through".to_owned(),
        Ending::Elsewhere => {
            let to = hops.last().map_or_else(String::new, |hop| style.endpoint(&hop.endpoint));
            match process {
                Some(process) => format!("{to}, by {}", name(style, process, end)),
                None => format!("{to} off this node"),
            }
        }
        Ending::Unknown => {
            process.map_or_else(|| "an unknown owner".to_owned(), |p| name(style, p, end))
        }
    };
    let process = process.map_or("", |process| process.name());
    let inner = end.containers.last();
    match &end.pod {
        Some(pod) if pod.name.is_some() => {
            let pod_name = pod.name.as_deref().unwrap_or_default();
            // A static pod is called like its process and its node: its cluster says more.
            let node = end.cluster.as_ref().and_then(|cluster| cluster.node.as_deref());
            let is_static = node.is_some_and(|node| {
                pod_name.strip_suffix(node).and_then(|name| name.strip_suffix('-')) == Some(process)
            });
            if !is_static {
                let of = pod.namespace.as_ref().map_or_else(String::new, |of| style.text(of) + "/");
                let _ = write!(text, " in pod {of}{}", style.text(pod_name));
            }
        }
        // The rest of its name is that of a container.
        _ => {
            if let Some(container) = inner {
                let name = style.text(words::container(container));
                let _ = write!(text, " in container {name} ({})", container.runtime);
            }
        }
    }
    match &end.unit {
        // What goes on elsewhere is not of the unit that passes it on.
        Some(unit) if end.containers.is_empty() && end.ending != Ending::Elsewhere => {
            let _ = write!(text, " ({})", style.text(unit));
        }
        _ => {}
    }
    text
}

/// A process, with its number where nothing else tells which one it is.
fn name(style: &Style, process: &Process, end: &End) -> String {
    let name = style.text(process.name());
    let more = match end.processes.len().saturating_sub(1) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if end.containers.is_empty() && end.pod.is_none() {
        format!("{name}, pid {}{more}", process.pid)
    } else {
        format!("{name}{more}")
    }
}

/// Whether the way leads through its last socket twice.
fn is_circle(hops: &[&Hop]) -> bool {
    let Some((last, before)) = hops.split_last() else { return false };
    let Some(socket) = &last.socket else { return false };
    // Read at different times, how many wait in its queue may differ.
    let same = |other: &Socket| Socket { queue: socket.queue, ..other.clone() } == *socket;
    before.iter().any(|hop| hop.socket.as_ref().is_some_and(same))
}

/// From where it is reached, and from where not.
fn reached(reach: &[&Reach]) -> String {
    let (mut yes, mut no, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    let mut by_route = false;
    let of = |from: Vantage| reach.iter().filter(move |one| one.from == from);
    // One address is enough; `name` is one of those there.
    let one_says = |from: Vantage, name: Option<&String>| {
        let is = |value: Option<bool>| {
            of(from).any(|one| {
                let about = name.is_none_or(|name| one.by.is_empty() || one.by.contains(name));
                about && one.reachable == value && !one.needs_route()
            })
        };
        match (is(Some(true)), is(None), is(Some(false))) {
            (true, ..) => Some(Some(true)),
            (_, true, _) => Some(None),
            (.., true) => Some(Some(false)),
            _ => None,
        }
    };
    let says = |from: Vantage| one_says(from, None);
    // Whether some of those there get something else than others.
    let differ = |from: Vantage| {
        let names: BTreeSet<&String> = of(from).flat_map(|one| &one.by).collect();
        let each: Vec<_> = names.into_iter().map(|name| one_says(from, Some(name))).collect();
        each.iter().any(|one| *one != Some(Some(true)))
    };
    let (loopback, node) = (says(Vantage::Loopback), says(Vantage::Node));
    let whole = loopback.is_some() && loopback == node;
    for from in [Vantage::Loopback, Vantage::Node, Vantage::Outside, Vantage::Containers] {
        let word = match from {
            Vantage::Loopback if whole => continue,
            Vantage::Loopback => "loopback",
            Vantage::Node if whole || loopback != Some(Some(true)) => "this host",
            Vantage::Node => "this host's other addresses",
            Vantage::Outside if says(from) == Some(Some(true)) && differ(from) => {
                "some other machines"
            }
            Vantage::Outside => "other machines",
            Vantage::Containers if says(from) == Some(Some(true)) && differ(from) => {
                "some containers here"
            }
            Vantage::Containers => "containers here",
        };
        let open = |one: &&Reach| one.reachable == Some(true);
        if from == Vantage::Outside && says(from) != Some(Some(true)) && of(from).any(open) {
            by_route = true;
            continue;
        }
        match says(from) {
            Some(Some(true)) => yes.push(word),
            Some(Some(false)) => no.push(word),
            Some(None) => unknown.push(word),
            None => {}
        }
    }
    let mut parts: Vec<String> = Vec::new();
    let joined = |all: &[&str], word: &str| match all {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [before @ .., last] => format!("{} {word} {last}", before.join(", ")),
    };
    let or = |all: &[&str]| joined(all, "or");
    let and = |all: &[&str]| joined(all, "and");
    match (yes.as_slice(), no.as_slice(), unknown.as_slice()) {
        ([], [], _) => {}
        ([], no, _) => parts.push(format!("not reachable from {}", or(no))),
        (["loopback"], _, []) => parts.push("reachable by loopback only".to_owned()),
        (yes, [], _) => parts.push(format!("reachable from {}", and(yes))),
        (yes, no, _) => parts.push(format!("reachable from {}, not from {}", and(yes), or(no))),
    }
    if !unknown.is_empty() {
        parts.push(format!("not known whether from {}", or(&unknown)));
    }
    if by_route {
        parts.push("from other machines by a route over this node only".to_owned());
    }
    parts.join("; ")
}
