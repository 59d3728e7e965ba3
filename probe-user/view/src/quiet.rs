//! One line for each target, for scripts (`-q`): always the same fields, one blank between them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use whereis_port_model::escape::is_unsafe;
use whereis_port_model::{
    Answer, End, NetnsRef, Path, Port, Proto, Query, Reached, Scope, UnixAnswer, Verdict,
};

use super::words;

/// The names of the fields, in their order. New ones are added at the end.
pub const FIELDS: [&str; 10] = [
    "TARGET",
    "PROCESS",
    "PID",
    "SERVICE.NS",
    "POD.NS",
    "CONTAINER",
    "NETNS",
    "REACH",
    "VERDICT",
    "MORE",
];

/// What stands for something that there is none of, or that is not known.
const NONE: &str = "-";

/// The lines for some answers: one for each port and protocol that was found, and one for a
/// target of which nothing was.
pub fn answers(answers: &[Answer]) -> String {
    let mut text = String::new();
    for answer in answers {
        let mut ports: BTreeMap<(Option<Port>, Proto), Vec<&Path>> = BTreeMap::new();
        for path in &answer.paths {
            if let Some(hop) = path.hops.first() {
                ports.entry((hop.endpoint.port, hop.proto)).or_default().push(path);
            }
        }
        if ports.is_empty() {
            line(&mut text, &asked(&answer.query), None, None, NONE, answer.verdict, 0);
        }
        let only = ports.len() == 1;
        for ((port, proto), paths) in ports {
            // Connections rather take those that some of them were seen to take.
            let taken = paths.iter().find(|path| !path.from.is_empty());
            let Some(path) = taken.or(paths.first()) else { continue };
            let netns = path.hops.first().and_then(|hop| hop.netns.as_ref());
            let target = target(&answer.query.scope, port, proto);
            let reach = match (&answer.sender, port) {
                // What one sender gets is the verdict.
                (Some(_), _) => NONE,
                (None, None) => Reached::Unknown.as_str(),
                (None, Some(port)) => {
                    let id = netns.map(|netns| netns.id);
                    let about = answer.reach.iter().filter(|r| r.is_about(id, (port, proto)));
                    Reached::of(about).as_str()
                }
            };
            let more = others(path, &paths) + if only { answer.more } else { 0 };
            line(&mut text, &target, netns, Some(&path.end), reach, answer.verdict, more);
        }
    }
    text
}

/// The lines for UNIX sockets.
pub fn unix(answers: &[UnixAnswer]) -> String {
    let mut text = String::new();
    for answer in answers {
        let first = answer.listeners.first();
        let more = answer.listeners.len().saturating_sub(1);
        let (netns, end) = (first.map(|one| &one.netns), first.map(|one| &one.end));
        line(&mut text, &answer.text, netns, end, NONE, answer.verdict, more);
    }
    text
}

/// How many other ends there are than that of `path`.
fn others(path: &Path, all: &[&Path]) -> usize {
    let mut ends: Vec<&Path> = vec![path];
    for path in all {
        if !ends.iter().any(|known| is_same(known, path)) {
            ends.push(path);
        }
    }
    ends.len() - 1
}

/// Whether two paths lead to the same: to one process, or, where that is not known, to one place.
fn is_same(one: &Path, other: &Path) -> bool {
    let of = |path: &Path| {
        let pid = path.end.processes.first().map(|process| process.pid);
        let place = path.hops.last().map(|hop| hop.endpoint.clone());
        (path.end.ending, pid, place.filter(|_| pid.is_none()))
    };
    of(one) == of(other)
        && (&one.end.pod, &one.end.containers) == (&other.end.pod, &other.end.containers)
}

/// `127.0.0.1:8080/tcp`.
fn target(scope: &Scope, port: Option<Port>, proto: Proto) -> String {
    let port = port.map_or_else(|| NONE.to_owned(), |port| port.to_string());
    format!("{}{port}/{proto}", place(scope))
}

/// A question of which nothing was found.
fn asked(query: &Query) -> String {
    if let Some(subject) = &query.subject {
        return subject.to_string();
    }
    let mut text = format!("{}{}", place(&query.scope), query.ports.first);
    if query.ports.first != query.ports.last {
        let _ = write!(text, "-{}", query.ports.last);
    }
    if let Some(proto) = query.proto {
        let _ = write!(text, "/{proto}");
    }
    text
}

fn place(scope: &Scope) -> String {
    match scope {
        Scope::Everywhere => String::new(),
        Scope::Address(address) if address.is_ipv6() => format!("[{address}]:"),
        Scope::Address(address) => format!("{address}:"),
    }
}

fn line(
    text: &mut String,
    target: &str,
    netns: Option<&NetnsRef>,
    end: Option<&End>,
    reach: &str,
    verdict: Verdict,
    more: usize,
) {
    let process = end.and_then(|end| end.processes.first());
    let service = end.and_then(|end| end.service.as_ref());
    let pod = end.and_then(|end| end.pod.as_ref());
    let dotted = |name: &str, namespace: Option<&str>| {
        format!("{}.{}", field(name), field(namespace.unwrap_or_default()))
    };
    let pod = pod.and_then(|pod| Some(dotted(pod.name.as_ref()?, pod.namespace.as_deref())));
    let verdict = match verdict {
        Verdict::Found => "found",
        Verdict::NotFound => "not_found",
        Verdict::Unknown => "unknown",
    };
    let fields: [String; FIELDS.len()] = [
        field(target),
        field(process.map_or("", |process| process.name())),
        process.map_or_else(|| NONE.to_owned(), |process| process.pid.to_string()),
        service.map_or_else(|| NONE.to_owned(), |one| dotted(&one.name, Some(&one.namespace))),
        pod.unwrap_or_else(|| NONE.to_owned()),
        field(end.and_then(|end| end.containers.last()).map_or("", |c| words::container(c))),
        field(&netns.map(ToString::to_string).unwrap_or_default()),
        reach.to_owned(),
        verdict.to_owned(),
        more.to_string(),
    ];
    text.push_str(&fields.join(" "));
    text.push('\n');
}

/// A name as one field, as `printf %b` of bash makes the name of it again: blanks, a backslash, and
/// what can't be seen or moves the cursor are escaped, and what would be [`NONE`] or nothing is not
/// taken for it.
fn field(name: &str) -> String {
    if name.is_empty() {
        return NONE.to_owned();
    }
    if name == NONE {
        return r"\x2d".to_owned();
    }
    let mut text = String::with_capacity(name.len());
    let mut shown = whereis_port_model::escape::Shown::default();
    for c in name.chars() {
        let is_shown = shown.next(c) && !is_unsafe(c);
        let _ = match c {
            '\\' => text.write_str(r"\\"),
            c if is_shown && !c.is_whitespace() => text.write_char(c),
            c if c.is_ascii() => write!(text, "\\x{:02x}", u32::from(c)),
            c if u32::from(c) <= 0xffff => write!(text, "\\u{:04x}", u32::from(c)),
            c => write!(text, "\\U{:08x}", u32::from(c)),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, HOSTILE};

    #[test]
    fn every_line_has_every_field() {
        let mut all: Vec<Answer> = fixtures::all().into_iter().map(|(_, answer)| answer).collect();
        all.push(fixtures::hostile().0);
        let text = answers(&all);
        for line in text.lines() {
            assert_eq!(line.split(' ').count(), FIELDS.len(), "{line:?}");
            assert!(!line.chars().any(|c| is_unsafe(c) || c.is_control()), "{line:?}");
        }
        insta::assert_snapshot!("quiet", text);
    }

    #[test]
    fn a_name_is_one_field_and_can_be_read_back() {
        assert_eq!(field("nginx"), "nginx");
        assert_eq!(field("nginx: worker process"), r"nginx:\x20worker\x20process");
        assert_eq!(field(r"a\x20b"), r"a\\x20b");
        assert_eq!((field("-").as_str(), field("").as_str()), (r"\x2d", "-"));
        assert_eq!(field("a\nb\tc"), r"a\x0ab\x09c");
        assert_eq!(field("\u{202e}x\u{3000}"), r"\u202ex\u3000");
        assert_eq!(field("日本\u{e0041}"), r"日本\U000e0041");
        assert!(!field(HOSTILE).contains(' '));
    }
}
