//! How a failed read becomes a gap: what failed, why, and what would help.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::enter::EnterError;
use super::safefs::Unreadable;
use whereis_port_model::{Gap, GapKind, GapSource, Impact, NetnsId, Owner, Owners, Pid, Read};

/// What a plain user needs for everything.
pub(super) fn rights_remedy() -> String {
    "run as root, or with CAP_SYS_PTRACE and CAP_SYS_ADMIN".to_owned()
}

/// Why a namespace was not entered.
pub(super) fn reason(refused: EnterError) -> String {
    match refused {
        EnterError::Gone => "it vanished while it was read".to_owned(),
        EnterError::Unreachable => "it can't be entered: the mount that pins it is covered by another, or lies on a file system that may never answer".to_owned(),
        EnterError::Denied(error) | EnterError::Failed(error) => {
            format!("it can't be entered: {error}")
        }
    }
}

/// Makes one gap of all namespaces with the same reason, since a node can have
/// hundreds. `gap` gets their common name, the reason, and which they are.
pub(super) fn each_reason(
    refused: &[(NetnsId, String)],
    gap: impl Fn(String, String, &[NetnsId]) -> Gap,
) -> Vec<Gap> {
    let mut groups: Vec<(&String, Vec<NetnsId>)> = Vec::new();
    for (id, why) in refused {
        match groups.iter_mut().find(|(known, _)| *known == why) {
            Some((_, ids)) => ids.push(*id),
            None => groups.push((why, vec![*id])),
        }
    }
    groups.into_iter().map(|(why, ids)| gap(namespaces(&ids), why.clone(), &ids)).collect()
}

/// How many holders, and ways into their namespaces, one gap names.
const WAYS: usize = 3;

/// Namespaces that nothing but descriptors lead to.
pub(super) fn held(holders: &[Owner]) -> Option<Gap> {
    // One way into each namespace, by whoever holds one for the longest: a process that
    // looks into it for a moment is gone before a reader can follow.
    let mut by_age: Vec<&Owner> = holders.iter().collect();
    by_age.sort_by_key(|holder| (holder.start, holder.pid, holder.inode));
    let mut seen = BTreeSet::new();
    let ways: Vec<&Owner> = by_age.iter().filter(|h| seen.insert(h.inode)).copied().collect();
    let mut seen = BTreeSet::new();
    let mut pids: Vec<String> =
        by_age.iter().filter(|h| seen.insert(h.pid)).map(|h| h.pid.to_string()).collect();
    let more = if pids.len() > WAYS { ", …" } else { "" };
    pids.truncate(WAYS);
    let (s, are) = match ways.len() {
        0 => return None,
        1 => ("", "is"),
        _ => ("s", "are"),
    };
    let why = format!(
        "{} network namespace{s} {are} held only by open descriptors (pid {}{more}) and not looked at",
        ways.len(),
        pids.join(", ")
    );
    let ways = ways.iter().take(WAYS).map(|way| {
        let table = way.tid.map_or_else(String::new, |tid| format!("/task/{tid}"));
        format!("nsenter --net=/proc/{}{table}/fd/{} whereis-port …", way.pid, way.fd)
    });
    let remedy = format!("look inside: {}", ways.collect::<Vec<_>>().join(", "));
    Some(Gap::new(Impact::Port, GapKind::NetworkNamespaces, why).remedy(remedy))
}

/// Descriptors of which nobody could say whether they are namespaces.
pub(super) fn untold(processes: &BTreeMap<Pid, Unreadable>) -> Option<Gap> {
    let (first, why) = processes.first_key_value()?;
    let more = match processes.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more processes"),
    };
    let why = format!("what lies on a file system that was unmounted: {why}");
    let source = GapSource::new(GapKind::Descriptors, format!("/proc/{first}/fd{more}"));
    Some(Gap::new(Impact::Port, source, why))
}

/// Names up to three namespaces.
fn namespaces(ids: &[NetnsId]) -> String {
    let first: Vec<String> = ids.iter().take(3).map(ToString::to_string).collect();
    let first = first.join(", ");
    match ids.len() {
        1 => format!("network namespace {first}"),
        2 | 3 => format!("network namespaces {first}"),
        n => format!("{n} network namespaces ({first}, …)"),
    }
}

/// Turns a read's error into a gap.
pub(super) fn read_or_gap<T>(
    result: io::Result<Vec<T>>,
    impact: Impact,
    source: GapSource,
) -> Read<Vec<T>> {
    match result {
        Ok(value) => Read::whole(value),
        Err(error) => Read::partial(Vec::new(), error_gap(&error, impact, source)),
    }
}

/// A netlink error as a gap; more rights help only against a refusal.
pub(super) fn error_gap(error: &io::Error, impact: Impact, source: GapSource) -> Gap {
    let gap = Gap::new(impact, source, error.to_string());
    if error.kind() == io::ErrorKind::PermissionDenied {
        gap.remedy("run as root, or with CAP_NET_ADMIN")
    } else {
        gap
    }
}

/// What unreadable descriptor tables leave open, for the source's report. In an
/// answer it matters only where an owner is missing.
pub(super) fn denied_gap(owners: &Owners) -> Option<Gap> {
    (owners.denied_total > 0).then(|| {
        let pids: Vec<String> = owners.denied.iter().take(3).map(ToString::to_string).collect();
        let more = if owners.denied_total > 3 { ", …" } else { "" };
        Gap::new(
            Impact::Owner,
            GapSource::new(GapKind::Descriptors, format!("/proc/{{{}{more}}}/fd", pids.join(","))),
            format!("the descriptors of {} processes are not readable", owners.denied_total),
        )
        .remedy("run as root, or with CAP_SYS_PTRACE; a security module may still refuse")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use whereis_port_model::StartTime;

    #[test]
    fn a_namespace_is_entered_by_who_holds_it_for_longest() {
        let holder =
            |inode, pid, start| Owner { inode, pid, start: StartTime(start), tid: None, fd: 7 };
        let gap = held(&[holder(1, 90, 500), holder(1, 91, 100), holder(2, 20, 900)]).unwrap();
        let remedy = gap.remedy.unwrap();
        assert_eq!(
            remedy,
            "look inside: nsenter --net=/proc/91/fd/7 whereis-port …, nsenter --net=/proc/20/fd/7 whereis-port …"
        );
        assert!(
            gap.reason.contains(
                "2 network namespaces are held only by open descriptors (pid 91, 90, 20)"
            ),
            "{}",
            gap.reason
        );
    }

    #[test]
    fn hundreds_of_closed_namespaces_are_one_gap() {
        let closed: Vec<_> =
            (1..=200).map(|n| (NetnsId::Inode(n), "it can't be entered".to_owned())).collect();
        let make = |source: String, why: String, _: &[NetnsId]| {
            Gap::new(Impact::Port, GapSource::new(GapKind::NetworkNamespaces, source), why)
        };
        let gaps = each_reason(&closed, make);
        assert_eq!(gaps.len(), 1);
        assert_eq!(gaps[0].source.to_string(), "200 network namespaces (1, 2, 3, …)");
        let other = [closed[0].clone(), (NetnsId::Inode(2), "another reason".to_owned())];
        let sources: Vec<_> =
            each_reason(&other, make).into_iter().map(|g| g.source.to_string()).collect();
        assert_eq!(sources, ["network namespace 1", "network namespace 2"]);
    }
}
