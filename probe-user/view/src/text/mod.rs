//! Answers as text, for people: what is so in one sentence, what is wrong, the way, who reaches
//! it.
//!
//! ```text
//! 20971/tcp on node1 is served by kube-apiserver, cluster "cluster2" (kind); reachable by loopback only
//!
//!   127.0.0.1:20971/tcp   listener  docker-proxy, pid 29328
//!     └─ 172.18.0.4:6443  forward   docker-proxy             in cluster2-control-plane
//!        └─ [::]:6443     listener  kube-apiserver, pid 29391
//!           pod        kube-system/kube-apiserver-cluster2-control-plane; cluster "cluster2" (kind)
//!
//!   from                        address          open  why
//!   loopback                    127.0.0.1:20971  yes   bound to 127.0.0.1 only
//!   other machines, containers  -                no    bound to 127.0.0.1 only
//!   fix:       for other machines: tunnel to it from there: ssh -L 20971:127.0.0.1:20971 node1
//! ```

mod by_name;
mod certificate;
mod elsewhere;
mod end;
mod flows;
mod notes;
mod reach;
mod sentence;
mod shared;
mod tree;
mod verdict;

use std::collections::BTreeSet;

use whereis_port_model::{
    Advice, Answer, End, Endpoint, Gap, Hop, HopKind, Host, KubeContext, Listing, NetnsId, Path,
    Proto, Reach, Scope, SourceReport, Verdict,
};

use super::doctor;
use super::layout::TextPage;
use super::style::{Ink, Style};
use super::words;

/// How much an answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The port where it was asked for, and in few lines the same port elsewhere.
    Usual,
    /// Every namespace that has the port.
    Everywhere,
    /// That, what exactly each piece of evidence was, and what was read.
    Verbose,
}

/// How many kubeconfig contexts are named.
const CONTEXTS: usize = 8;
/// How many of the last trees a new one is compared with.
const RECENT: usize = 16;

/// The text for some answers, separated by empty lines.
pub fn answers(
    answers: &[Answer],
    host: &Host,
    style: &Style,
    detail: Detail,
    sources: &[SourceReport],
) -> String {
    let verbose = detail == Detail::Verbose;
    let mut page = TextPage::new(style);
    for (at, answer) in answers.iter().enumerate() {
        if at > 0 {
            page.line("");
        }
        named(&mut page, answer, answers.get(at..).unwrap_or_default());
        one(&mut page, answer, host, detail, sources);
    }
    if verbose && !sources.is_empty() {
        page.line("");
        page.line(&style.paint(Ink::Strong, "what was read"));
        doctor::sources(&mut page, sources, host);
    }
    page.finish()
}

/// What a name stands for, before the first of its answers.
fn named(page: &mut TextPage<'_>, answer: &Answer, from_here: &[Answer]) {
    let Some(name) = answer.query.name.as_ref().filter(|name| name.at == 0) else { return };
    let address = |answer: &Answer| match answer.query.scope {
        Scope::Address(address) => Some(address.to_string()),
        Scope::Everywhere => None,
    };
    let all: Vec<String> = from_here.iter().take(name.of).filter_map(address).collect();
    let style = page.style;
    let list = match all.as_slice() {
        [first, rest @ ..] if name.ordered && !rest.is_empty() => {
            format!("{first}, which is tried first, and {}", rest.join(", "))
        }
        all => all.join(", "),
    };
    let text = format!("{} is {list} ({})", style.text(&name.name), style.text(&name.source));
    page.paragraph("", "    ", None, &text);
    page.line("");
}

/// One answer: what is so, what is wrong, its trees, and what else is known.
fn one(
    page: &mut TextPage<'_>,
    answer: &Answer,
    host: &Host,
    detail: Detail,
    sources: &[SourceReport],
) {
    let verbose = detail == Detail::Verbose;
    let who = answer.sender.as_ref().map(|sender| page.style.text(&sender.name));
    let who = who.as_deref();
    let paths = shared::merge(&answer.paths, page.style);
    let roots = tree::grow(&paths);
    let (shown, folded) = fold(&roots, answer, host, detail);
    let reach: Vec<&Reach> = answer.reach.iter().filter(|r| is_told(r, &folded, host)).collect();
    let (taken, idle) = idle(&shown, verbose);

    let of_subject = answer.query.subject.is_some();
    if let Some(who) = who {
        sentence::of_sender(page, answer, who);
    } else if answer.verdict != Verdict::Found {
        verdict::write(page, answer, host, sources);
    } else if shown.is_empty() && !folded.is_empty() {
        sentence::elsewhere(page, answer, &folded);
    } else if !shown.is_empty() && !of_subject {
        sentence::write(page, answer, &taken, &reach, host);
    }

    notes::refuted(page, answer, who);
    let findings = notes::told(&answer.findings);
    notes::findings(page, &findings);
    notes::held(page, answer, host, verbose);

    trees(page, &taken, host, verbose);
    unused(page, &idle);
    if answer.more > 0 && !roots.is_empty() {
        let way = if answer.more == 1 { "way" } else { "ways" };
        page.line(&format!("  and {} more {way} by rules, depending on who connects", answer.more));
    }
    if !shown.is_empty() {
        page.line("");
    }

    let said: Vec<&Advice> = findings.iter().filter_map(|f| f.fix.as_ref()).collect();
    reach::write(page, &reach, who, &said);
    notes::tried(page, answer, who);
    contexts(page, &answer.paths);
    if let Some(flows) = answer.flows.as_ref().filter(|flows| flows::says(flows)) {
        flows::write(page, flows);
    }
    if !folded.is_empty() {
        elsewhere::write(page, answer, &folded);
    }
    let unowned = answer.paths.iter().any(|path| notes::is_unowned(&path.end));
    let about = notes::GapContext { host, verdict: answer.verdict, unowned, verbose };
    notes::gaps(page, &answer.gaps, about);
    page.trim();
}

/// Writes the trees, those of one published port together.
fn trees(page: &mut TextPage<'_>, shown: &[&tree::HopNode<'_>], host: &Host, verbose: bool) {
    let mut ends: Vec<&End> = Vec::new();
    for (_, end) in shown.iter().flat_map(|root| root.leaves()) {
        if !ends.contains(&end) {
            ends.push(end);
        }
    }
    let level = match (verbose, ends.len()) {
        (true, _) => DetailLevel::Full,
        (false, 0 | 1) => DetailLevel::Usual,
        (false, _) => DetailLevel::Brief,
    };
    // Who takes a connection may depend on where it comes from: that says something where
    // they lead to different ends.
    let differ = shown.iter().any(|root| root.from != shown[0].from);
    let differ = differ && (verbose || ends.len() > 1);
    let mut writer = tree::TreeWriter::new(page.style, host, level, shown);
    for (at, one) in publishes(shown).iter().enumerate() {
        // Short ones stand close together.
        if at == 0 || level != DetailLevel::Brief {
            page.gap();
        }
        for root in one {
            writer.write(page, root);
            if differ {
                taken_from(page, root);
            }
        }
    }
}

/// Trees that connections take, and those that none of them took when others do.
fn idle<'n, 'a>(
    shown: &[&'n tree::HopNode<'a>],
    verbose: bool,
) -> (Vec<&'n tree::HopNode<'a>>, Vec<&'n tree::HopNode<'a>>) {
    let is_taken = |root: &&tree::HopNode<'_>| !root.from.is_empty();
    if verbose || !shown.iter().any(&is_taken) {
        return (shown.to_vec(), Vec::new());
    }
    shown.iter().copied().partition(is_taken)
}

/// Names the trees that no connection takes.
fn unused(page: &mut TextPage<'_>, idle: &[&tree::HopNode<'_>]) {
    let style = page.style;
    // The same in several namespaces is one line.
    let mut groups: Vec<(String, String, Vec<String>)> = Vec::new();
    for root in idle {
        let hop = root.hop;
        let place = format!("{}/{}", style.endpoint(&hop.endpoint), hop.proto);
        let program = root
            .leaves()
            .first()
            .and_then(|(_, end)| end.processes.first().map(|process| style.text(process.name())));
        let who = program.unwrap_or_else(|| style.text(&hop.detail));
        let netns = hop.netns.as_ref().map(|netns| style.text(&netns.to_string()));
        match groups.iter_mut().find(|(p, w, _)| (p, w) == (&place, &who)) {
            Some((.., names)) => names.extend(netns),
            None => groups.push((place, who, netns.into_iter().collect())),
        }
    }
    for (place, who, names) in groups {
        let names =
            if names.is_empty() { String::new() } else { format!(" in {}", notes::few(&names)) };
        let text =
            format!("{place} of {who}{names}: none of these connections get there (-v shows it)");
        page.entry(notes::INDENT, ("unused:", notes::LABEL, Ink::Label), &text);
    }
}

/// The trees that are shown whole, and those of other namespaces, which are told in a few
/// lines: the port there is another one.
fn fold<'n, 'a>(
    roots: &'n [tree::HopNode<'a>],
    answer: &Answer,
    host: &Host,
    detail: Detail,
) -> (Vec<&'n tree::HopNode<'a>>, Vec<&'n tree::HopNode<'a>>) {
    let is_here = |root: &&tree::HopNode<'_>| {
        root.hop.netns.as_ref().is_none_or(|netns| netns.id == host.own_netns)
    };
    // What somebody asks by its name or its address may be anywhere.
    let asked = answer.query.subject.is_some() || answer.sender.is_some();
    if detail != Detail::Usual || asked {
        return (roots.iter().collect(), Vec::new());
    }
    let (here, others): (Vec<_>, Vec<_>) = roots.iter().partition(is_here);
    let places: BTreeSet<NetnsId> =
        others.iter().filter_map(|root| Some(root.hop.netns.as_ref()?.id)).collect();
    if here.is_empty() && places.len() <= elsewhere::WHOLE {
        return (others, Vec::new());
    }
    (here, others)
}

/// The trees, those together that are one published port: at several addresses, by a proxy for
/// each and by rules, all of which lead to the same end in a container.
fn publishes<'n, 'a>(roots: &[&'n tree::HopNode<'a>]) -> Vec<Vec<&'n tree::HopNode<'a>>> {
    let end = |root: &tree::HopNode<'a>| match root.leaves().as_slice() {
        [(hops, end)] if hops.len() > 1 && !end.containers.is_empty() => Some(*end),
        _ => None,
    };
    let place = |root: &tree::HopNode<'_>| {
        let hop = root.hop;
        (hop.netns.as_ref().map(|netns| netns.id), hop.endpoint.port, hop.proto)
    };
    let mut all: Vec<Vec<&tree::HopNode<'_>>> = Vec::with_capacity(roots.len());
    for root in roots.iter().copied() {
        let this = end(root);
        let same = |known: &&mut Vec<&tree::HopNode<'a>>| {
            known.first().is_some_and(|first| {
                this.is_some() && place(first) == place(root) && end(first) == this
            })
        };
        // Those of one port come close behind each other.
        match all.iter_mut().rev().take(RECENT).find(same) {
            Some(known) => known.push(root),
            None => all.push(vec![root]),
        }
    }
    all
}

/// Whether a statement is about what is shown whole.
fn is_told(reach: &Reach, folded: &[&tree::HopNode<'_>], host: &Host) -> bool {
    if folded.is_empty() {
        return true;
    }
    reach.netns.as_ref().is_some_and(|netns| netns.id == host.own_netns)
}

/// Which kubeconfig contexts lead here.
fn contexts(page: &mut TextPage<'_>, paths: &[Path]) {
    let mut said: Vec<&KubeContext> = Vec::new();
    for context in paths.iter().flat_map(|path| &path.contexts) {
        if said.contains(&context) {
            continue;
        }
        said.push(context);
        if said.len() > CONTEXTS {
            continue;
        }
        let style = page.style;
        let text = format!(
            "{} in {}: this is its server {}",
            style.text(&context.name),
            style.text(&context.file),
            style.text(&context.server)
        );
        page.entry(notes::INDENT, ("context:", notes::LABEL, Ink::Label), &text);
    }
    if let Some(more) = said.len().checked_sub(CONTEXTS).filter(|more| *more > 0) {
        let text = format!("and {more} more, which --json has");
        page.entry(notes::INDENT, ("context:", notes::LABEL, Ink::Label), &text);
    }
}

/// From where connections begin with a root.
fn taken_from(page: &mut TextPage<'_>, root: &tree::HopNode<'_>) {
    let places: Vec<&str> = root.from.iter().map(|from| words::vantage_of(*from)).collect();
    let text = match places.as_slice() {
        [] => "none of the connections that were tried: something else takes them".to_owned(),
        places => format!("connections from {}", places.join(", ")),
    };
    page.entry("    ", ("takes", end::LABEL, Ink::Dim), &text);
}

use end::DetailLevel;
pub(super) use end::LABEL;

/// Writes what is known of who has something that is no step of a way.
pub(super) fn end(page: &mut TextPage<'_>, indent: &str, end: &End, host: &Host, verbose: bool) {
    let hop = Hop {
        kind: HopKind::Listener,
        netns: None,
        endpoint: Endpoint { address: None, name: None, port: None },
        proto: Proto::Tcp,
        detail: String::new(),
        share: None,
        socket: None,
        evidence: Vec::new(),
    };
    let level = if verbose { DetailLevel::Full } else { DetailLevel::Usual };
    end::write(page, indent, end, &hop, host, level);
}

/// Writes what could not be read.
pub(super) fn gaps(
    page: &mut TextPage<'_>,
    gaps: &[Gap],
    host: &Host,
    verdict: Verdict,
    verbose: bool,
) {
    notes::gaps(page, gaps, notes::GapContext { host, verdict, unowned: true, verbose });
}

/// Writes the gaps of a list.
pub(super) fn list_gaps(page: &mut TextPage<'_>, listing: &Listing, host: &Host) {
    let unowned = listing.rows.iter().any(|row| notes::is_unowned(&row.end));
    let about = notes::GapContext { host, verdict: Verdict::Found, unowned, verbose: false };
    notes::gaps(page, &listing.gaps, about);
}

#[cfg(test)]
mod tests;
