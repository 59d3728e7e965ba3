//! The lines above and below the view.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};

use super::columns::{tab, tab_place};
use crate::layout::{shorten, width};
use crate::tui::keys::KeyAction;
use crate::tui::state::{Asks, State, View};
use crate::tui::theme::Role;

/// Below how many columns the tool's own name has no place.
const NAMED: u16 = 100;

/// The node, and how much of it there is.
pub(super) fn bar(state: &State, place: Rect, buffer: &mut Buffer) {
    buffer.set_style(place, state.theme.of(Role::Bar));
    let host = state.readout.host.as_ref().map_or("…", |host| host.hostname.as_str());
    let ports = &state.ports;
    let count = |number: usize, one: &str, many: &str| {
        format!("{number} {}", if number == 1 { one } else { many })
    };
    let mut parts = Vec::new();
    if place.width >= NAMED {
        parts.push("whereis-port".to_owned());
    }
    parts.extend([
        shorten(&state.style.text(host), 30, state.style.glyphs().ellipsis),
        state.mode.name().to_owned(),
        count(ports.count(), "port", "ports"),
        format!("{} netns", state.readout.netns),
        count(ports.containers, "container", "containers"),
        count(ports.clusters, "cluster", "clusters"),
        format!("{} lost", state.events.lost),
    ]);
    let gaps = state.readout.gaps.len();
    if gaps > 0 {
        parts.push(format!("! {}", count(gaps, "gap", "gaps")));
    }
    if state.paused {
        parts.push("PAUSED".to_owned());
    }
    let line = format!(" {}", parts.join("  "));
    buffer.set_stringn(place.x, place.y, line, usize::from(place.width), state.theme.of(Role::Bar));
}

/// The views, and what the table is filtered, sorted and grouped by.
pub(super) fn tabs(state: &State, place: Rect, buffer: &mut Buffer) {
    let mut end = place.x;
    for view in View::ALL {
        let (x, wide) = tab_place(view);
        let active = view == state.view && state.help.is_none();
        let look = state.theme.of(if active { Role::Selected } else { Role::Label });
        // What is selected can be told without colours, too.
        let name = if active { tab(view).replacen(' ', "[", 1) } else { tab(view) };
        let name = if active { format!("{}]", name.trim_end()) } else { name };
        if x + wide <= place.width {
            buffer.set_stringn(place.x + x, place.y, name, usize::from(wide), look);
            end = place.x + x + wide;
        }
    }
    let right = about(state);
    let room = usize::from(place.right().saturating_sub(end + 1));
    let right = shorten(&right, room, state.style.glyphs().ellipsis);
    let x = place.right().saturating_sub(u16::try_from(width(&right) + 1).unwrap_or(u16::MAX));
    buffer.set_stringn(x.max(end), place.y, right, room, state.theme.of(Role::Dim));
}

fn about(state: &State) -> String {
    let mut parts = Vec::new();
    match state.view {
        View::Ports => {
            let ports = &state.ports;
            parts.extend(ports.group.map(|group| format!("by {}", group.name())));
            let only = ports.only.words();
            if !only.is_empty() {
                parts.push(format!("only {}", only.join(", ")));
            }
            if !ports.filter.text().is_empty() {
                parts.push(format!("/{}", state.style.text(ports.filter.text())));
            }
            let order = if ports.descending { " desc" } else { "" };
            parts.push(format!("sort {}{order}", ports.sort.title().to_lowercase()));
        }
        View::Events => {
            if !state.events.filter.text().is_empty() {
                parts.push(format!("/{}", state.style.text(state.events.filter.text())));
            }
            parts.push(format!("{} events", state.events.total()));
            if state.events.back > 0 && !state.events.history {
                parts.push(format!("{} newer below", state.events.back));
            }
        }
        View::Path | View::Sources => {}
    }
    parts.join("  ")
}

/// What is typed, else what is to be said, else the keys.
pub(super) fn foot(state: &State, place: Rect, buffer: &mut Buffer) -> Option<Position> {
    let room = usize::from(place.width);
    if let Some(input) = &state.input {
        let sign = match input.asks {
            Asks::Filter => '/',
            Asks::Command => ':',
        };
        let typed = format!("{sign}{}", crate::clean(&input.text));
        let x = buffer.set_stringn(place.x, place.y, &typed, room, state.theme.of(Role::Strong)).0;
        let wrong = (input.asks == Asks::Filter && state.view == View::Ports)
            .then(|| state.ports.filter.wrong.clone())
            .flatten();
        if let Some(wrong) = wrong {
            let rest = usize::from(place.right().saturating_sub(x + 2));
            let wrong = shorten(&state.style.text(&wrong), rest, state.style.glyphs().ellipsis);
            buffer.set_stringn(x + 2, place.y, wrong, rest, state.theme.of(Role::Warn));
        }
        return Some(Position::new(x.min(place.right().saturating_sub(1)), place.y));
    }
    if let Some((message, _)) = &state.message {
        let message = shorten(&state.style.text(message), room, state.style.glyphs().ellipsis);
        buffer.set_stringn(place.x, place.y, message, room, state.theme.of(Role::Strong));
        return None;
    }
    let mut x = place.x;
    for (action, about) in hints(state) {
        let key = state.config.keys.first(*action);
        let wide = width(&key) + 1 + width(about) + 2;
        if key.is_empty() || usize::from(x) + wide > room {
            continue;
        }
        x = buffer.set_stringn(x, place.y, &key, room, state.theme.of(Role::Label)).0;
        x = buffer.set_stringn(x + 1, place.y, about, room, state.theme.of(Role::Dim)).0 + 2;
    }
    None
}

fn hints(state: &State) -> &'static [(KeyAction, &'static str)] {
    if state.help.is_some() {
        return &[
            (KeyAction::Back, "close"),
            (KeyAction::Filter, "search"),
            (KeyAction::NextMatch, "next"),
        ];
    }
    match state.view {
        View::Ports => &[
            (KeyAction::Help, "keys"),
            (KeyAction::Open, "path"),
            (KeyAction::Filter, "filter"),
            (KeyAction::Group, "group"),
            (KeyAction::Sort, "sort"),
            (KeyAction::NextMatch, "next change"),
            (KeyAction::Copy, "copy"),
            (KeyAction::Pause, "pause"),
            (KeyAction::Quit, "quit"),
            (KeyAction::Tcp, "TCP"),
            (KeyAction::Udp, "UDP"),
            (KeyAction::Family, "4/6"),
            (KeyAction::Loopback, "loopback"),
            (KeyAction::Containers, "containers"),
            (KeyAction::Kernel, "no kernel"),
        ],
        View::Path => &[
            (KeyAction::Help, "keys"),
            (KeyAction::Back, "back"),
            (KeyAction::NextHop, "next hop"),
            (KeyAction::Open, "its row"),
            (KeyAction::Evidence, "evidence"),
            (KeyAction::Filter, "search"),
            (KeyAction::Copy, "copy"),
            (KeyAction::Export, "export"),
            (KeyAction::Quit, "quit"),
        ],
        View::Events => &[
            (KeyAction::Help, "keys"),
            (KeyAction::Filter, "filter"),
            (KeyAction::Pause, "pause"),
            (KeyAction::History, "history"),
            (KeyAction::Bottom, "newest"),
            (KeyAction::Export, "export"),
            (KeyAction::Quit, "quit"),
        ],
        View::Sources => &[
            (KeyAction::Help, "keys"),
            (KeyAction::Filter, "search"),
            (KeyAction::Refresh, "read anew"),
            (KeyAction::Export, "export"),
            (KeyAction::Quit, "quit"),
        ],
    }
}
