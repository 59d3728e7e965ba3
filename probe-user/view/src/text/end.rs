//! What is at the end of a path, line by line.

use std::fmt::Write as _;

use crate::layout::{TextPage, shorten_middle, width};
use crate::style::{Ink, Style};
use crate::words;
use whereis_port_model::{
    Container, ContainerKind, End, Ending, Hop, Host, NetnsId, Pod, Process, SessionKind,
};

use super::{by_name, certificate};

/// Columns for the labels.
pub(crate) const LABEL: usize = 11;
/// How many further owners are listed without `-v`.
const OWNERS: usize = 8;

/// How much is told of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DetailLevel {
    /// What one looks for, of one of several.
    Brief,
    /// The same of the only one, with its command and parents.
    Usual,
    /// All that is known, and how.
    Full,
}

/// Writes `end` behind `indent`, without what `hop`, which leads to it, said already.
pub(super) fn write(
    page: &mut TextPage<'_>,
    indent: &str,
    end: &End,
    hop: &Hop,
    host: &Host,
    level: DetailLevel,
) {
    let verbose = level == DetailLevel::Full;
    let style = page.style;
    let netns = hop.netns.as_ref().map(|netns| netns.id);
    let mut entry = |label: &str, text: &str| page.entry(indent, (label, LABEL, Ink::Label), text);
    if let Some((label, text)) =
        ending(style, end).filter(|_| end.why.as_ref() != Some(&hop.detail))
    {
        entry(label, &text);
    }
    let is_contained = end.pod.is_some() || !end.containers.is_empty();
    places(page, indent, end, level);
    let mut entry = |label: &str, text: &str| page.entry(indent, (label, LABEL, Ink::Label), text);
    if let Some(component) = &end.component {
        let (name, role) = (style.text(&component.name), style.text(&component.role));
        let text = if component.confirmed {
            format!("{name}: {role}")
        } else if end.ending == Ending::Process {
            format!("calls itself {name}: {role} (its program is not root's: not confirmed)")
        } else {
            format!("usually {name}: {role} (by the port alone: not confirmed)")
        };
        entry("component", &text);
        for (option, path) in component.files.iter().filter(|_| verbose) {
            entry("", &format!("{} {}", style.text(option), style.text(path)));
        }
    }
    if let Some(all) = &end.by_name {
        for (at, line) in by_name::lines(style, all, verbose).iter().enumerate() {
            entry(if at == 0 { "by name" } else { "" }, line);
        }
    }
    if let Some(served) = &end.certificate {
        entry(certificate::LABEL, &certificate::text(style, served, verbose));
        for line in certificate::more(style, served).iter().filter(|_| verbose) {
            entry("", line);
        }
    }
    if let Some(first) = end.processes.first() {
        // What goes on elsewhere is passed on by the last process that is known.
        let label = if end.ending == Ending::Elsewhere { "passed by" } else { "process" };
        if level != DetailLevel::Brief || !is_contained {
            page.entry(indent, (label, LABEL, Ink::Label), &name(style, first, netns, host));
            owner(page, indent, first, level, is_contained);
        }
    }
    others(page, indent, end, netns, host, verbose);
    if let Some(unit) = &end.unit {
        page.entry(indent, ("unit", LABEL, Ink::Label), &style.text(unit));
    }
    turn_to(page, indent, end, verbose);
    if verbose {
        evidence(page, indent, end, hop);
    }
}

/// Where an end is: its containers, its pod, its service and its cluster.
fn places(page: &mut TextPage<'_>, indent: &str, end: &End, level: DetailLevel) {
    let style = page.style;
    let verbose = level == DetailLevel::Full;
    let mut told: Vec<(&str, String)> = Vec::new();
    if let Some(pod) = &end.pod {
        told.push(("pod", pod_text(style, pod, verbose)));
    }
    if let Some(service) = &end.service {
        let mut text = format!("{}/{}", style.text(&service.namespace), style.text(&service.name));
        if let Some(port) = &service.port {
            let _ = write!(text, ", port {}", style.text(port));
        }
        told.push(("service", text));
    }
    if let Some(cluster) = &end.cluster {
        let mut text = words::cluster(style, cluster);
        // Of what runs in one, its containers and pod say where that is.
        let known = end.pod.is_some() || !end.containers.is_empty();
        if let Some(node) = cluster.node.as_ref().filter(|_| verbose || !known) {
            let _ = write!(text, ", node {}", style.text(node));
        }
        if verbose {
            if let Some(role) = &cluster.role {
                let _ = write!(text, ", role {}", style.text(role));
            }
            let _ = write!(text, ", by {}", style.text(&cluster.source));
        }
        told.push(("cluster", text));
    }
    let shown = match (level, told.is_empty()) {
        (DetailLevel::Brief, false) => &[],
        _ => end.containers.as_slice(),
    };
    if verbose {
        for one in shown {
            page.entry(indent, ("container", LABEL, Ink::Label), &container(style, one, true));
        }
        for (label, text) in &told {
            page.entry(indent, (label, LABEL, Ink::Label), text);
        }
        return;
    }
    // In one line: what each of them is stands before it.
    if let Some(((label, first), rest)) = told.split_first() {
        let rest: String = rest.iter().map(|(label, text)| format!("; {label} {text}")).collect();
        page.entry(indent, (label, LABEL, Ink::Label), &format!("{first}{rest}"));
    }
    for one in shown {
        page.entry(indent, ("container", LABEL, Ink::Label), &container(style, one, false));
    }
}

fn pod_text(style: &Style, pod: &Pod, verbose: bool) -> String {
    let mut text = match (&pod.namespace, &pod.name) {
        (Some(namespace), Some(name)) => {
            format!("{}/{}", style.text(namespace), style.text(name))
        }
        (None, Some(name)) => style.text(name),
        (_, None) => "name not known".to_owned(),
    };
    if let Some(uid) = pod.uid.as_ref().filter(|_| verbose || pod.name.is_none()) {
        let _ = write!(text, ", uid {}", style.text(uid));
    }
    for (label, value) in [("of", &pod.owner), ("node", &pod.node)] {
        if let Some(value) = value {
            let _ = write!(text, ", {label} {}", style.text(value));
        }
    }
    if let Some(zone) = pod.zone.as_ref().filter(|_| verbose) {
        let _ = write!(text, ", zone {}", style.text(zone));
    }
    if pod.is_static == Some(true) {
        text.push_str(", static");
    }
    if pod.host_network == Some(true) {
        text.push_str(", in the node's network");
    }
    text
}

/// Who holds the listener beside the first: those with the same command in one line.
fn others(
    page: &mut TextPage<'_>,
    indent: &str,
    end: &End,
    netns: Option<NetnsId>,
    host: &Host,
    verbose: bool,
) {
    let style = page.style;
    let Some((first, others)) = end.processes.split_first() else { return };
    if verbose {
        for process in others {
            page.entry(indent, ("also", LABEL, Ink::Label), &name(style, process, netns, host));
            // Those that were forked off have that of the first.
            if first.cmdline != process.cmdline {
                arguments(page, indent, process, true);
            }
        }
        return;
    }
    let mut groups: Vec<(&Process, Vec<String>)> = Vec::new();
    for process in others {
        let like = |known: &Process| {
            known.name() == process.name()
                && known.cmdline == process.cmdline
                && known.uid == process.uid
        };
        match groups.iter_mut().find(|(known, _)| like(known)) {
            Some((_, pids)) => pids.push(process.pid.to_string()),
            None => groups.push((process, vec![process.pid.to_string()])),
        }
    }
    for (process, pids) in groups.iter().take(OWNERS) {
        if let [_] = pids.as_slice() {
            page.entry(indent, ("also", LABEL, Ink::Label), &name(style, process, netns, host));
        } else {
            let shown = pids.len().min(OWNERS);
            let more = match pids.len() - shown {
                0 => String::new(),
                more => format!(" and {more} more (-v shows them)"),
            };
            let (count, pids) = (pids.len(), pids[..shown].join(", "));
            let text = format!("{count} × {}, pid {pids}{more}", style.text(process.name()));
            page.entry(indent, ("also", LABEL, Ink::Label), &style.text(&text));
        }
        if first.cmdline != process.cmdline {
            arguments(page, indent, process, false);
        }
    }
    if groups.len() > OWNERS {
        let text = format!("{} other kinds (-v shows them)", groups.len() - OWNERS);
        page.entry(indent, ("also", LABEL, Ink::Label), &text);
    }
}

/// How an end is explained that is not simply a process.
fn ending(style: &Style, end: &End) -> Option<(&'static str, String)> {
    let (label, default) = match end.ending {
        Ending::Process => ("note", ""),
        Ending::Kernel => ("kernel", "the kernel itself holds this port: no process does"),
        Ending::OutsidePidNamespace => {
            ("owner", "exists, but outside the PID namespaces that can be seen from here")
        }
        Ending::NotReadable => ("owner", "exists, but its descriptors can't be read: try as root"),
        Ending::Nothing => {
            ("end", "nothing listens there: connections are refused or closed at once")
        }
        Ending::Stopped => ("end", "what is sent there is stopped on its way"),
        Ending::Elsewhere => ("end", "goes on beyond what this node can tell"),
        // The owner is known, where it passes connections on is not.
        Ending::Unknown if !end.processes.is_empty() => ("end", "not known"),
        Ending::Unknown => ("owner", "not known"),
    };
    // The reason says all that the default would.
    match &end.why {
        Some(why) => Some((label, style.text(why))),
        None => (!default.is_empty()).then(|| (label, default.to_owned())),
    }
}

fn container(style: &Style, container: &Container, verbose: bool) -> String {
    let id = style.text(words::short_id(&container.id));
    let mut text = match &container.name {
        Some(name) if *name != container.id => format!("{} {id}", style.text(name)),
        _ => id,
    };
    let dot = style.glyphs().dot;
    if let Some(sort) = container.sort.and_then(ContainerKind::as_str) {
        let _ = write!(text, " {dot} {sort}");
    }
    let _ = write!(text, " {dot} {}", container.runtime);
    if let Some(image) = &container.image {
        let _ = write!(text, " {dot} image {}", style.text(image));
    }
    if let Some((project, service)) = container.compose() {
        let (project, service) = (style.text(project), style.text(service));
        let _ = write!(text, " {dot} compose {project}, service {service}");
    }
    if let Some(service) = container.swarm_service() {
        let _ = write!(text, " {dot} swarm service {}", style.text(service));
    }
    if let Some(unit) = container.systemd_unit() {
        let _ = write!(text, " {dot} unit {}", style.text(unit));
    }
    if !verbose {
        return text;
    }
    for network in &container.networks {
        let _ = write!(text, " {dot} network {}", style.text(&network.name));
        for address in &network.addresses {
            let _ = write!(text, " {address}");
        }
    }
    match &container.network_mode {
        Some(mode) if container.networks.is_empty() => {
            let mode = words::short_ids(mode, "");
            let _ = write!(text, " {dot} network mode {}", style.text(&mode));
        }
        _ => {}
    }
    text
}

/// A process in one line.
fn name(style: &Style, process: &Process, netns: Option<NetnsId>, host: &Host) -> String {
    let mut text = format!("{}, pid {}", style.text(process.name()), process.pid);
    text.push_str(&process.inside());
    match &process.user {
        Some(user) => {
            let _ = write!(text, ", user {}", style.text(user));
        }
        None => {
            let _ = write!(text, ", uid {}", process.uid);
        }
    }
    if let Some(started) = process.started_at {
        let _ = write!(text, ", started {} ago", ago(host.now.saturating_sub(started)));
    }
    match (process.netns, netns) {
        (Some(own), Some(socket)) if own != socket => {
            let _ = write!(text, ", itself in netns {own}");
        }
        _ => {}
    }
    text
}

/// What else is known of the process that likely accepts.
fn owner(
    page: &mut TextPage<'_>,
    indent: &str,
    process: &Process,
    level: DetailLevel,
    is_contained: bool,
) {
    let style = page.style;
    let verbose = level == DetailLevel::Full;
    let label = |text: &'static str| (text, LABEL, Ink::Label);
    arguments(page, indent, process, verbose);
    if verbose {
        for (name, value) in [("exe", &process.exe), ("directory", &process.cwd)] {
            if let Some(value) = value {
                page.entry(indent, label(name), &style.text(value));
            }
        }
        if let Some(cgroup) = &process.cgroup {
            page.entry(indent, label("cgroup"), &style.text(&cgroup.0));
        }
    }
    // Of a container they are those of its runtime.
    let told = verbose || (level == DetailLevel::Usual && !is_contained);
    if told && !process.ancestors.is_empty() {
        let parents: Vec<String> = process
            .ancestors
            .iter()
            .map(|parent| format!("{} ({})", style.text(&parent.comm), parent.pid))
            .collect();
        let arrow = style.glyphs().back;
        page.entry(indent, label("parents"), &parents.join(&format!(" {arrow} ")));
    }
}

/// Its command line.
fn arguments(page: &mut TextPage<'_>, indent: &str, process: &Process, verbose: bool) {
    let says = match process.cmdline.as_slice() {
        [] => false,
        // No more than its name.
        [only] => verbose || only.rsplit('/').next() != Some(process.name()),
        _ => true,
    };
    if !says {
        return;
    }
    let style = page.style;
    let command = style.text(&command(&process.cmdline));
    let room = page.room(width(indent) + LABEL);
    let command =
        if verbose { command } else { shorten_middle(&command, room, style.glyphs().ellipsis) };
    page.entry(indent, ("command", LABEL, Ink::Label), &command);
}

/// The arguments as a shell would take them.
fn command(cmdline: &[String]) -> String {
    let quoted: Vec<String> = cmdline
        .iter()
        .map(|arg| {
            let plain = !arg.is_empty() && !arg.contains(|c: char| c.is_whitespace() || c == '\'');
            if plain { arg.clone() } else { format!("'{}'", arg.replace('\'', r"'\''")) }
        })
        .collect();
    quoted.join(" ")
}

/// How long ago, in the largest unit that fits.
fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Who can be turned to, where that says more than the process's name.
fn turn_to(page: &mut TextPage<'_>, indent: &str, end: &End, verbose: bool) {
    let style = page.style;
    let mut entry = |label: &str, text: &str| page.entry(indent, (label, LABEL, Ink::Label), text);
    for unit in &end.socket_units {
        let (name, service) = (style.text(&unit.name), style.text(&unit.service));
        let file = if verbose { format!(", by {}", style.text(&unit.file)) } else { String::new() };
        entry("socket", &format!("{name}, which starts {service}{file}"));
    }
    let process = end.processes.first().map_or("", |process| process.name());
    if let Some(found) = &end.provenance {
        if let Some(package) = &found.package {
            let manager = package.manager.as_str();
            match (&package.name, &package.why) {
                (Some(name), _) if verbose || name != process => {
                    entry("package", &format!("{} ({manager})", style.text(name)));
                }
                (None, Some(why)) if verbose => {
                    entry("package", &format!("not known: {}", style.text(why)));
                }
                _ => {}
            }
        }
        if let Some(repository) = &found.repository {
            let at = match (&repository.branch, &repository.commit) {
                (Some(branch), _) => format!(", branch {}", style.text(branch)),
                (None, Some(commit)) => format!(", commit {}", style.text(commit)),
                (None, None) => String::new(),
            };
            entry("project", &format!("{} (git{at})", style.text(&repository.directory)));
        }
    }
    if let Some(session) = &end.session {
        let kind = match session.kind {
            SessionKind::Ssh => "a login by SSH",
            SessionKind::Cron => "a job of cron",
        };
        let program = style.text(&session.program);
        entry("started by", &format!("{kind}: {program}, pid {}", session.pid));
    }
}

/// How the container, pod and cluster are known.
fn evidence(page: &mut TextPage<'_>, indent: &str, end: &End, hop: &Hop) {
    let style = page.style;
    let mut lines: Vec<String> = Vec::new();
    for evidence in end.evidence.iter().filter(|evidence| !hop.evidence.contains(evidence)) {
        let source = style.text(evidence.source.as_str());
        let line = format!("{source}: {}", style.text(&evidence.detail));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    for line in &lines {
        page.entry(indent, ("known by", LABEL, Ink::Dim), line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_the_largest_fitting_unit() {
        for (seconds, expected) in
            [(5, "5 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 days")]
        {
            assert_eq!(ago(seconds), expected);
        }
    }

    #[test]
    fn arguments_with_spaces_are_quoted() {
        let args = ["sh", "-c", "echo 'x y'", ""].map(str::to_owned);
        assert_eq!(command(&args), r"sh -c 'echo '\''x y'\''' ''");
    }
}
