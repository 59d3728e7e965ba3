//! UNIX sockets, and others without a port, as text for people.

use std::fmt::Write as _;

use super::layout::{TextPage, width};
use super::style::{Ink, Style};
use super::text;
use whereis_port_model::{
    End, Gap, Host, OtherPlace, SocketFile, UnixAnswer, UnixListener, Verdict,
};

const INDENT: &str = "  ";
const LABEL: usize = 21;
/// Columns between two cells.
const GAP: usize = 2;

/// What a socket is bound to. Untrusted.
pub(crate) fn place(at: &OtherPlace) -> String {
    match at {
        OtherPlace::Path(path, _) => path.clone(),
        OtherPlace::Abstract(name) => format!("@{name}"),
        OtherPlace::Protocol(protocol, address) => {
            let protocol = match protocol {
                1 => "ICMP".to_owned(),
                6 => "TCP".to_owned(),
                17 => "UDP".to_owned(),
                58 => "ICMPv6".to_owned(),
                255 => return "sends only".to_owned(),
                other => format!("protocol {other}"),
            };
            let to = address.map_or_else(String::new, |address| format!(" to {address}"));
            format!("every packet of {protocol}{to}")
        }
        OtherPlace::Device(device, protocol) => {
            let of = match device {
                0 => "all interfaces".to_owned(),
                index => format!("interface {index}"),
            };
            match protocol {
                3 => format!("every packet of {of}"),
                protocol => format!("packets of type {protocol:#06x} of {of}"),
            }
        }
    }
}

/// Who has it, in short. Untrusted.
fn who(end: &End) -> String {
    match end.processes.as_slice() {
        [] => "owner not known".to_owned(),
        [process] => format!("{}, pid {}", process.name(), process.pid),
        [process, others @ ..] => {
            format!("{}, pid {} (+{} more)", process.name(), process.pid, others.len())
        }
    }
}

/// The text for some answers.
pub fn answers(answers: &[UnixAnswer], host: &Host, style: &Style, verbose: bool) -> String {
    let mut page = TextPage::new(style);
    for (at, answer) in answers.iter().enumerate() {
        if at > 0 {
            page.line("");
        }
        one(&mut page, answer, host, verbose);
    }
    page.finish()
}

fn one(page: &mut TextPage<'_>, answer: &UnixAnswer, host: &Host, verbose: bool) {
    let style = page.style;
    if answer.listeners.is_empty() {
        let text = style.text(&format!("{}: {}", answer.text, nothing(answer)));
        page.paragraph("", "    ", Some(Ink::Strong), &text);
    }
    for listener in &answer.listeners {
        let socket = &listener.socket;
        let arrow = style.glyphs().arrow;
        let mut line = format!(
            "{}  {}  {arrow} {}",
            style.text(&answer.text),
            socket.kind.as_str(),
            style.text(&who(&listener.end))
        );
        if listener.netns.id != host.own_netns {
            let _ = write!(line, "  in netns {}", style.netns(&listener.netns));
        }
        page.paragraph("", "    ", Some(Ink::Strong), &line);
        page.line("");
        if place(&socket.at) != answer.text {
            let text = style.text(&place(&socket.at));
            page.entry(INDENT, ("bound as", text::LABEL, Ink::Label), &text);
        }
        text::end(page, INDENT, &listener.end, host, verbose);
        if let Some(queue) = socket.queue.filter(|queue| queue.waiting > 0) {
            let text = format!("{} connections of at most {}", queue.waiting, queue.limit);
            page.entry(INDENT, ("waiting", text::LABEL, Ink::Label), &text);
        }
        for client in &listener.clients {
            let times = match client.connections {
                1 => String::new(),
                many => format!(", {many} connections"),
            };
            let text = format!("{}, pid {}{times}", style.text(&client.name), client.pid);
            page.entry(INDENT, ("client", text::LABEL, Ink::Label), &text);
        }
        if listener.more > 0 {
            let text = format!("{} connections more", listener.more);
            page.entry(INDENT, ("client", text::LABEL, Ink::Label), &text);
        }
    }
    if answer.elsewhere > 0 {
        let text = format!(
            "{} listen under this name at a file that was removed or replaced, or in another mount namespace",
            answer.elsewhere
        );
        page.entry(INDENT, ("noticed:", LABEL, Ink::Warn), &text);
    }
    text::gaps(page, &answer.gaps, host, answer.verdict, verbose);
}

/// Why nobody is told of.
fn nothing(answer: &UnixAnswer) -> &'static str {
    let sure = answer.verdict == Verdict::NotFound;
    match (&answer.file, sure) {
        (Some(SocketFile::Missing), _) => "there is no such file",
        (Some(SocketFile::NoSocket), _) => "this is not a socket",
        (Some(SocketFile::Unknown(_)), _) => "it could not be looked at",
        (Some(SocketFile::Socket(_)), true) => {
            "nobody listens on this socket any more: the file is left over"
        }
        (Some(SocketFile::Socket(_)), false) => {
            "nobody who is seen listens on this socket, and not everything could be read"
        }
        (None, true) => "nobody listens on this name",
        (None, false) => {
            "nobody who is seen listens on this name, and not everything could be read"
        }
    }
}

/// All of them as a table.
pub fn table(rows: &[UnixListener], gaps: &[Gap], host: &Host, style: &Style) -> String {
    let mut page = TextPage::new(style);
    let mut lines: Vec<[String; 5]> =
        vec![["TYPE", "QUEUE", "PROCESS", "NETNS", "AT"].map(str::to_owned)];
    for row in rows {
        let queue = row
            .socket
            .queue
            .map_or_else(|| "-".to_owned(), |queue| format!("{}/{}", queue.waiting, queue.limit));
        lines.push([
            row.socket.kind.as_str().to_owned(),
            queue,
            style.text(&who(&row.end)),
            style.netns(&row.netns),
            style.text(&place(&row.socket.at)),
        ]);
    }
    let widest = |column: usize| lines.iter().map(|line| width(&line[column])).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(widest);
    for line in &lines {
        let mut text = String::new();
        for (cell, wide) in line.iter().zip(widths) {
            let space = wide - width(cell).min(wide) + GAP;
            let _ = write!(text, "{cell}{}", " ".repeat(space));
        }
        text.push_str(&line[4]);
        page.line(&text);
    }
    text::gaps(&mut page, gaps, host, Verdict::Found, false);
    page.finish()
}
