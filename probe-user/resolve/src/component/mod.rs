//! Which part of Kubernetes, or of what runs around it, holds a port.
//!
//! A number proves nothing: a component is confirmed by the program that holds the port
//! and by the port that its arguments (or its defaults) give to a role, or by the device
//! whose port it is. Where nobody who holds the port can be seen, the number is a hint;
//! where the program is one that its own user can have written, so is its name.

mod arguments;
mod table;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use arguments::Arguments;
use whereis_port_model::forward::is_its_program;
use whereis_port_model::{Component, End, Ending, Hop, HopKind, ListRow, Path, Process, Proto};

/// Where a component listens.
#[derive(Debug, Clone, Copy)]
struct ListensAt {
    proto: Proto,
    address: Option<IpAddr>,
    port: u16,
}

/// The component at the end of a path.
pub(super) fn of_path(path: &Path) -> Option<Component> {
    let last = path.hops.iter().rev().find(|hop| hop.socket.is_some())?;
    let socket = last.socket.as_ref()?;
    let at = ListensAt { proto: socket.proto, address: Some(socket.address), port: socket.port.0 };
    // A port that somebody passes on is of what is at its other end.
    let passed = path.hops.last().is_some_and(|end: &Hop| !std::ptr::eq(end, last));
    if passed {
        return None;
    }
    of_end(&path.end, at)
}

/// The component of a row of a list.
pub(super) fn of_row(row: &ListRow) -> Option<Component> {
    if !matches!(row.kind, HopKind::Listener | HopKind::Kernel) {
        return None;
    }
    of_end(&row.end, ListensAt { proto: row.proto, address: Some(row.address), port: row.port.0 })
}

fn of_end(end: &End, at: ListensAt) -> Option<Component> {
    match end.ending {
        Ending::Process => end.processes.iter().find_map(|process| of_process(process, end, at)),
        Ending::Kernel => end.devices.iter().find_map(|device| {
            table::device(device).map(|(name, role)| confirmed(name, role, Vec::new()))
        }),
        // Somebody holds it who can't be seen: what it usually is may help.
        Ending::OutsidePidNamespace | Ending::NotReadable => {
            // Docker's own resolver has any port at this address.
            if at.address == Some(IpAddr::from([127, 0, 0, 11])) {
                return Some(Component {
                    confirmed: false,
                    ..confirmed("dockerd", "embedded DNS of Docker", Vec::new())
                });
            }
            table::usual(at.proto, at.port).map(|(name, role)| Component {
                confirmed: false,
                ..confirmed(name, role, Vec::new())
            })
        }
        _ => None,
    }
}

fn of_process(process: &Process, end: &End, at: ListensAt) -> Option<Component> {
    if !is_its_program(process) {
        return None;
    }
    let arguments = Arguments::of(process);
    let name = process.name();
    let (name, role) = table::role(name, &arguments, end, (at.proto, at.address, at.port))?;
    // Anybody can write a program, call it kubelet and give it arguments.
    let is_confirmed = !process.own_word;
    Some(Component { confirmed: is_confirmed, ..confirmed(name, role, arguments.files()) })
}

fn confirmed(name: &str, role: &str, files: Vec<(String, String)>) -> Component {
    let is_api = table::is_api(role);
    Component { name: name.to_owned(), role: role.to_owned(), confirmed: true, is_api, files }
}
