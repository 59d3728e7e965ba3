//! What is different between two times: ports that came, went, or changed their owner, their
//! way, or who gets to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::audit::{self, AuditOptions};
use whereis_port_model::Node;
use whereis_port_model::{
    Baseline, BaselinePort, Change, ChangeKind, Difference, Endpoint, Exposure, ListRow, Port,
    PortHolder, Proto, ReachedBy, Vantage, stable_owner,
};

/// How many things that could not be read are kept.
const NOT_KNOWN: usize = 64;
/// The senders that are compared, in this order.
const SENDERS: [Vantage; 4] =
    [Vantage::Outside, Vantage::Containers, Vantage::Node, Vantage::Loopback];

/// The ports of a node as they are, to be compared with.
pub fn baseline(node: &dyn Node) -> Baseline {
    let audit = audit::audit(node, &AuditOptions::default());
    let host = node.host().value;
    let decides = |gap: &&whereis_port_model::Gap| {
        use whereis_port_model::Impact;
        matches!(gap.impact, Impact::Port | Impact::Reach | Impact::Owner)
    };
    let told = |gap: &whereis_port_model::Gap| format!("{}: {}", gap.source, gap.reason);
    Baseline {
        format: Baseline::FORMAT.to_owned(),
        version: Baseline::VERSION,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: host.hostname,
        taken_at: host.now,
        ports: audit.exposures.iter().map(port).collect(),
        not_known: audit.gaps.iter().filter(decides).map(told).take(NOT_KNOWN).collect(),
    }
}

fn port(exposure: &Exposure) -> BaselinePort {
    let netns = match &exposure.netns.name {
        Some(name) => name.as_str().to_owned(),
        None => exposure.netns.id.to_string(),
    };
    let mut processes: Vec<PortHolder> = Vec::new();
    for process in exposure.rows.iter().flat_map(|row| &row.end.processes) {
        let held =
            PortHolder { pid: process.pid, start: process.start, name: process.name().to_owned() };
        if !processes.contains(&held) {
            processes.push(held);
        }
    }
    processes.sort_unstable();
    BaselinePort {
        netns,
        proto: exposure.proto,
        port: exposure.port,
        addresses: exposure.addresses(),
        owner: exposure.owner().map(|owner| stable_owner(&owner)),
        processes,
        ways: exposure.rows.iter().filter_map(way).collect(),
        reached: SENDERS.into_iter().filter_map(|from| reached(exposure, from)).collect(),
    }
}

/// By what a row is taken, and where it leads.
fn way(row: &ListRow) -> Option<String> {
    let by = row.taken_by.as_deref();
    let endpoint = |to: &Endpoint| {
        let port = to.port.map_or_else(String::new, |port| format!(":{port}"));
        match (to.address, &to.name) {
            (Some(IpAddr::V6(address)), _) => format!("[{address}]{port}"),
            (Some(address), _) => format!("{address}{port}"),
            (None, Some(name)) => format!("{name}{port}"),
            (None, None) => port,
        }
    };
    let mut targets: Vec<String> = row.target.iter().chain(&row.others).map(endpoint).collect();
    if by.is_none() && targets.is_empty() {
        return None;
    }
    targets.sort_unstable();
    let more = if row.more > 0 { format!(" and {} more", row.more) } else { String::new() };
    let by = by.unwrap_or("passed on");
    match targets.is_empty() {
        true => Some(by.to_owned()),
        false => Some(format!("{by} to {}{more}", targets.join(", "))),
    }
}

/// Who of a class of senders gets to it; `None` where nothing is said of them.
fn reached(exposure: &Exposure, from: Vantage) -> Option<ReachedBy> {
    let mut all = exposure.openings.iter().filter(|one| one.reach.from == from).peekable();
    all.peek()?;
    let mut told =
        ReachedBy { from, open: BTreeSet::new(), unknown: BTreeSet::new(), by: BTreeSet::new() };
    for one in all {
        // A statement without an address is about all of them.
        let any = || IpAddr::from([0, 0, 0, 0]);
        let address = one.reach.address.map_or_else(any, |address| address.ip());
        match one.reach.reachable {
            Some(true) => {
                told.open.insert(address);
                told.by.extend(one.device.clone());
            }
            None => {
                told.unknown.insert(address);
            }
            Some(false) => {}
        }
    }
    Some(told)
}

/// What a port is known by at both times: its namespace, and which of those with that name.
type BaselineKey = (String, usize, Proto, Port);

fn by_key(side: &Baseline) -> BTreeMap<BaselineKey, &BaselinePort> {
    let mut all = BTreeMap::new();
    for one in &side.ports {
        let mut at = 0;
        // Several namespaces may have the same name.
        while all.contains_key(&(one.netns.clone(), at, one.proto, one.port)) {
            at += 1;
        }
        all.insert((one.netns.clone(), at, one.proto, one.port), one);
    }
    all
}

/// What is different.
pub fn diff(before: &Baseline, after: &Baseline) -> Difference {
    let (then, now) = (by_key(before), by_key(after));
    let keys: BTreeSet<&BaselineKey> = then.keys().chain(now.keys()).collect();
    let mut changes = Vec::new();
    for key in keys {
        match (then.get(key), now.get(key)) {
            (Some(one), None) => {
                let sure = !after.is_partial();
                changes.push(change(ChangeKind::Went, one, (None, None), sure));
            }
            (None, Some(one)) => {
                let sure = !before.is_partial();
                changes.push(change(ChangeKind::Came, one, (None, None), sure));
            }
            (Some(then), Some(now)) => changed(then, now, &mut changes),
            (None, None) => {}
        }
    }
    let mut not_known = BTreeMap::new();
    for (side, name) in [(before, "before"), (after, "after")] {
        if side.is_partial() {
            not_known.insert(name, side.not_known.clone());
        }
    }
    Difference { changes, not_known }
}

fn change(
    kind: ChangeKind,
    of: &BaselinePort,
    (before, after): (Option<String>, Option<String>),
    sure: bool,
) -> Change {
    Change {
        kind,
        netns: of.netns.clone(),
        proto: of.proto,
        port: of.port,
        owner: of.owner.clone(),
        from: None,
        before,
        after,
        sure,
    }
}

fn changed(then: &BaselinePort, now: &BaselinePort, changes: &mut Vec<Change>) {
    let begin = changes.len();
    if then.owner != now.owner {
        let told = |one: &BaselinePort| one.owner.clone().or_else(|| Some("not known".to_owned()));
        let sure = then.owner.is_some() && now.owner.is_some();
        changes.push(change(ChangeKind::Owner, now, (told(then), told(now)), sure));
    }
    if then.addresses != now.addresses {
        let told = |one: &BaselinePort| Some(join(&one.addresses));
        changes.push(change(ChangeKind::Address, now, (told(then), told(now)), true));
    }
    if then.ways != now.ways {
        let told = |one: &BaselinePort| Some(join(&one.ways)).filter(|text| !text.is_empty());
        changes.push(change(ChangeKind::Way, now, (told(then), told(now)), true));
    }
    for from in SENDERS {
        let of = |one: &'_ BaselinePort| one.reached.iter().find(|r| r.from == from).cloned();
        let (was, is) = (of(then), of(now));
        // What is not known on one side is no change of what is known on the other.
        let same = |was: &ReachedBy, is: &ReachedBy| {
            let known = |one: &ReachedBy, other: &ReachedBy| {
                one.open.iter().all(|a| other.open.contains(a) || other.unknown.contains(a))
            };
            known(was, is) && known(is, was)
        };
        let none = || ReachedBy {
            from,
            open: BTreeSet::new(),
            unknown: BTreeSet::new(),
            by: BTreeSet::new(),
        };
        let sure = was.is_some() == is.is_some();
        let (was, is) = (was.unwrap_or_else(none), is.unwrap_or_else(none));
        let is_whole = was.unknown.is_empty() && is.unknown.is_empty();
        if was.open == is.open && was.unknown == is.unknown {
            continue;
        }
        let told = |one: &ReachedBy| {
            let open = match one.open.is_empty() {
                true => "shut".to_owned(),
                false => format!("open at {}", join(&one.open)),
            };
            let unknown = match one.unknown.is_empty() {
                true => String::new(),
                false => format!(", not known at {}", join(&one.unknown)),
            };
            Some(format!("{open}{unknown}"))
        };
        let sure = (sure || is_whole) && !same(&was, &is);
        let mut one = change(ChangeKind::Reach, now, (told(&was), told(&is)), sure);
        one.from = Some(from);
        changes.push(one);
    }
    let ids = |one: &BaselinePort| -> Vec<(u32, u64)> {
        one.processes.iter().map(|held| (held.pid, held.start.0)).collect()
    };
    if changes.len() == begin && ids(then) != ids(now) {
        let told = |one: &BaselinePort| {
            let all = one.processes.iter().map(|held| format!("{}, pid {}", held.name, held.pid));
            Some(all.collect::<Vec<_>>().join("; "))
        };
        changes.push(change(ChangeKind::Restarted, now, (told(then), told(now)), true));
    }
}

fn join<T: ToString>(all: &BTreeSet<T>) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
