//! How a failed read becomes a gap: what failed, why, and what would help.

use std::io;

use super::enter::Refused;
use crate::model::{Gap, Impact, NetnsId, Owners, Read};

/// What a plain user needs for everything.
pub(super) fn rights_remedy() -> String {
    "run as root, or with CAP_SYS_PTRACE and CAP_SYS_ADMIN".to_owned()
}

pub(super) fn refusal(impact: Impact, id: NetnsId, refused: Refused) -> Gap {
    let source = format!("network namespace {id}");
    match refused {
        Refused::Gone => Gap::new(impact, source, "it vanished while it was read"),
        Refused::Denied(error) => Gap::new(impact, source, format!("can't be entered: {error}"))
            .remedy("run as root, or with CAP_SYS_ADMIN"),
        Refused::Failed(error) => Gap::new(impact, source, format!("can't be entered: {error}")),
    }
}

/// Turns a read's error into a gap.
pub(super) fn read_or_gap<T>(
    result: io::Result<Vec<T>>,
    impact: Impact,
    source: String,
) -> Read<Vec<T>> {
    match result {
        Ok(value) => Read::whole(value),
        Err(error) => Read::partial(Vec::new(), error_gap(&error, impact, source)),
    }
}

/// A netlink error as a gap; more rights help only against a refusal.
pub(super) fn error_gap(error: &io::Error, impact: Impact, source: String) -> Gap {
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
            format!("/proc/{{{}{more}}}/fd", pids.join(",")),
            format!("the descriptors of {} processes are not readable", owners.denied_total),
        )
        .remedy("run as root, or with CAP_SYS_PTRACE; a security module may still refuse")
    })
}
