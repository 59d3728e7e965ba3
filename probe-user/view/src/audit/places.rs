//! Ports of a finding, in few words.

use whereis_port_model::{AuditFinding, AuditPlace, NetnsRef, Proto};

/// How many ranges are named.
const RANGES: usize = 12;

/// `22/tcp, 30000-30004/tcp, 80/tcp in web`. Untrusted.
pub(super) fn of(finding: &AuditFinding) -> String {
    let mut all: Vec<(&NetnsRef, Proto, u16, u16)> = Vec::new();
    let mut places: Vec<&AuditPlace> = finding.places.iter().collect();
    places.sort_by_key(|place| (place.netns.id, place.proto, place.ports.first));
    for place in places {
        let (first, last) = (place.ports.first.0, place.ports.last.0);
        match all.last_mut() {
            Some((netns, proto, _, end))
                if netns.id == place.netns.id
                    && *proto == place.proto
                    && first.checked_sub(1) == Some(*end) =>
            {
                *end = last;
            }
            _ => all.push((&place.netns, place.proto, first, last)),
        }
    }
    let more = all.len().saturating_sub(RANGES);
    all.truncate(RANGES);
    let named = all.into_iter().map(|(netns, proto, first, last)| {
        let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let place = match whereis_port_model::is_given(netns) {
            true => format!(" in {netns}"),
            false => String::new(),
        };
        format!("{ports}/{proto}{place}")
    });
    let mut text = named.collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
