//! What has a port without listening on it, in a sentence.

use std::fmt::Write as _;

use super::words;
use whereis_port_model::{Ending, HeldAs, HeldSockets, Proto, SocketState};

/// Who has it, for what, and what that means for who would like to be bound there. Untrusted.
pub(crate) fn sentence(held: &HeldSockets) -> String {
    let mut text = match held.role {
        HeldAs::TimeWait | HeldAs::Closing | HeldAs::Unaccepted => what(held),
        _ => format!("{} {}", who(held), what(held)),
    };
    match held.blocks {
        Some(true) => text.push_str(": a bind there fails"),
        Some(false) => text.push_str(": that keeps nobody from a bind there"),
        None => text.push_str(": whether a bind there works is not known"),
    }
    if held.blocks == Some(true) && matches!(held.role, HeldAs::TimeWait | HeldAs::Closing) {
        text.push_str(" without SO_REUSEADDR");
    }
    if held.ephemeral == Some(true) {
        text.push_str(" (ephemeral port)");
    }
    text
}

/// Who has it. Untrusted.
pub(crate) fn who(held: &HeldSockets) -> String {
    let end = &held.end;
    let mut text = match (end.processes.as_slice(), end.ending) {
        ([process], _) => {
            let unit = match (end.socket_units.as_slice(), &end.unit) {
                ([unit], _) => Some(&unit.name),
                (_, unit) => unit.as_ref().filter(|unit| unit.ends_with(".service")),
            };
            let of = unit.map_or_else(String::new, |unit| format!(", of {unit}"));
            format!("{}, pid {}{}{of},", process.name(), process.pid, process.inside())
        }
        ([process, others @ ..], _) => format!(
            "{}, pid {}{} and {} more,",
            process.name(),
            process.pid,
            process.inside(),
            others.len()
        ),
        ([], Ending::Kernel) => "the kernel".to_owned(),
        ([], Ending::OutsidePidNamespace) => "a process outside this PID namespace".to_owned(),
        ([], Ending::NotReadable) => {
            format!("a process that is not readable (of uid {})", held.socket.socket.uid)
        }
        ([], _) => format!("somebody who is not known (of uid {})", held.socket.socket.uid),
    };
    if let Some(container) = end.containers.last() {
        let text_end =
            format!(" in container {} ({})", words::container(container), container.runtime);
        if text.ends_with(',') {
            text.pop();
            let _ = write!(text, "{text_end},");
        } else {
            text.push_str(&text_end);
        }
    }
    text
}

/// What they have it for.
fn what(held: &HeldSockets) -> String {
    let socket = &held.socket.socket;
    let at = std::net::SocketAddr::new(socket.address, socket.port.0);
    let peer = match held.socket.peer {
        Some(peer) => peer.to_string(),
        None => "nobody".to_owned(),
    };
    let many = held.count > 1;
    let count = held.count;
    let named = match held.role {
        HeldAs::Listener | HeldAs::Bound if many => {
            return format!(
                "{} it with {count} sockets, one of them at {at}",
                if held.role == HeldAs::Bound { "has bound" } else { "has" }
            );
        }
        HeldAs::Listener if socket.proto == Proto::Tcp => return format!("listens on {at}"),
        HeldAs::Listener => return format!("takes packets at {at}"),
        HeldAs::Bound => return format!("has bound {at}, and neither listens nor is connected"),
        HeldAs::Outgoing => ("its connection", "to", ""),
        HeldAs::LikelyOutgoing => ("a connection", "with", ", which it likely made"),
        HeldAs::LikelyAccepted => {
            ("a connection", "with", ", which it likely accepted before its listener was closed")
        }
        HeldAs::Connection => ("a connection", "with", ""),
        HeldAs::ConnectedUdp => ("what it sends", "to", ""),
        HeldAs::TimeWait | HeldAs::Closing | HeldAs::Unaccepted => return left(held, &peer),
    };
    let (one, to, more) = named;
    if many {
        let plural = if held.role == HeldAs::ConnectedUdp { "sockets" } else { "connections" };
        format!("has it for {count} {plural}, one of them {to} {peer}{more}")
    } else {
        format!("has it for {one} {to} {peer}{more}")
    }
}

/// What is left of connections, or not a connection yet.
fn left(held: &HeldSockets, peer: &str) -> String {
    let (count, state) = (held.count, words::socket_state(held.socket.socket.state));
    let connections = match count {
        1 => format!("a connection with {peer}"),
        _ => format!("{count} connections, one of them with {peer},"),
    };
    let (has, is) = if count == 1 { ("has", "is") } else { ("have", "are") };
    match held.role {
        HeldAs::TimeWait => {
            let rest = match held.socket.expires_ms {
                Some(ms) if count == 1 => format!("for {} s more", ms.div_ceil(1000)),
                Some(ms) => format!("for up to {} s more", ms.div_ceil(1000)),
                None => "for a while".to_owned(),
            };
            format!("{connections} {has} ended, and the kernel remembers it {rest} ({state})")
        }
        HeldAs::Closing => format!(
            "{connections} {is} closed by its process, and not yet by the other side ({state})"
        ),
        _ if held.socket.socket.state == SocketState::SynReceived => {
            format!("{connections} {is} being made ({state})")
        }
        _ => format!("{connections} {is} accepted by no process ({state})"),
    }
}
