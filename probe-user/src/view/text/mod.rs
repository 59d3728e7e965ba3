//! Answers as text, for people.
//!
//! ```text
//! 20971/tcp  127.0.0.1  → cluster2-control-plane (docker) → kube-apiserver, cluster "cluster2" (kind)
//!
//!   127.0.0.1:20971/tcp   listener  docker-proxy, pid 29328           socket table, netns host (4026531840)
//!     └─ 172.18.0.4:6443  forward   docker-proxy -container-ip …      command line, Docker API
//!        └─ [::]:6443     listener  kube-apiserver, pid 29391 …       socket table, netns cluster2-control-plane (4026532611)
//!           container  cluster2-control-plane 62cd9120f957 · docker · image kindest/node:v1.20.2 · network kind
//!
//!   reachable from: this host's loopback (127.0.0.1:20971), because …
//! ```

mod by_name;
mod certificate;
mod elsewhere;
mod end;
mod flows;
mod headline;
mod notes;
mod shared;
mod tree;
mod verdict;

use std::collections::BTreeSet;

use crate::model::{
    Answer, End, Endpoint, Gap, Hop, HopKind, Host, KubeContext, Listing, NetnsId, Path, Proto,
    Reach, Scope, SourceReport, Verdict,
};

use super::doctor;
use super::layout::Page;
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
    let mut page = Page::new(style);
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
fn named(page: &mut Page<'_>, answer: &Answer, from_here: &[Answer]) {
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

/// One answer: its verdict when nothing was found, its trees, its notes.
fn one(
    page: &mut Page<'_>,
    answer: &Answer,
    host: &Host,
    detail: Detail,
    sources: &[SourceReport],
) {
    let verbose = detail == Detail::Verbose;
    let who = answer.sender.as_ref().map(|sender| page.style.text(&sender.name));
    if let Some(who) = &who {
        headline::of_sender(page, answer, who);
        page.line("");
    } else if answer.verdict != Verdict::Found {
        verdict::write(page, answer, host, sources);
        if !answer.paths.is_empty() {
            page.line("");
        }
    }
    let paths = shared::merge(&answer.paths, page.style, verbose);
    let roots = tree::grow(&paths);
    let (shown, folded) = fold(&roots, answer, host, detail);
    // Who takes a connection may depend on where it comes from.
    let differ = shown.iter().any(|root| root.from != shown[0].from);
    let mut writer = tree::Writer::new(page.style, host, verbose, &shown);
    for (at, one) in publishes(&shown).iter().enumerate() {
        if at > 0 {
            page.line("");
        }
        headline::write(page, one, host);
        page.line("");
        for root in one {
            writer.write(page, root);
            if differ {
                taken_from(page, root);
            }
        }
    }
    if shown.is_empty() && !folded.is_empty() {
        headline::elsewhere(page, answer, &folded);
    }
    if answer.more > 0 && !roots.is_empty() {
        let way = if answer.more == 1 { "way" } else { "ways" };
        page.line("");
        page.line(&format!("and {} more {way} by rules, depending on who connects", answer.more));
    }
    let flows = answer.flows.as_ref().filter(|flows| flows::says(flows));
    contexts(page, &answer.paths);
    let reach: Vec<&Reach> = answer.reach.iter().filter(|r| is_told(r, &folded, host)).collect();
    let notes = !reach.is_empty()
        || !folded.is_empty()
        || !answer.findings.is_empty()
        || !answer.held.is_empty()
        || flows.is_some()
        || !answer.gaps.is_empty();
    if !roots.is_empty() && notes {
        page.line("");
    }
    notes::reach(page, &reach, who.as_deref());
    notes::tried(page, answer, who.as_deref());
    notes::held(page, answer, host, verbose);
    notes::findings(page, &answer.findings);
    if let Some(flows) = flows {
        flows::write(page, flows);
    }
    if !folded.is_empty() {
        elsewhere::write(page, answer, &folded);
    }
    let unowned = answer.paths.iter().any(|path| notes::is_unowned(&path.end));
    let about = notes::About { host, verdict: answer.verdict, unowned, verbose };
    notes::gaps(page, &answer.gaps, about);
}

/// The trees that are shown whole, and those of other namespaces, which are told in a few
/// lines: the port there is another one.
fn fold<'n, 'a>(
    roots: &'n [tree::Node<'a>],
    answer: &Answer,
    host: &Host,
    detail: Detail,
) -> (Vec<&'n tree::Node<'a>>, Vec<&'n tree::Node<'a>>) {
    let is_here = |root: &&tree::Node<'_>| {
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
fn publishes<'n, 'a>(roots: &[&'n tree::Node<'a>]) -> Vec<Vec<&'n tree::Node<'a>>> {
    let end = |root: &tree::Node<'a>| match root.leaves().as_slice() {
        [(hops, end)] if hops.len() > 1 && !end.containers.is_empty() => Some(*end),
        _ => None,
    };
    let place = |root: &tree::Node<'_>| {
        let hop = root.hop;
        (hop.netns.as_ref().map(|netns| netns.id), hop.endpoint.port, hop.proto)
    };
    let mut all: Vec<Vec<&tree::Node<'_>>> = Vec::with_capacity(roots.len());
    for root in roots.iter().copied() {
        let this = end(root);
        let same = |known: &&mut Vec<&tree::Node<'a>>| {
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
fn is_told(reach: &Reach, folded: &[&tree::Node<'_>], host: &Host) -> bool {
    if folded.is_empty() {
        return true;
    }
    reach.netns.as_ref().is_some_and(|netns| netns.id == host.own_netns)
}

/// Which kubeconfig contexts lead here.
fn contexts(page: &mut Page<'_>, paths: &[Path]) {
    let mut said: Vec<&KubeContext> = Vec::new();
    for context in paths.iter().flat_map(|path| &path.contexts) {
        if said.contains(&context) {
            continue;
        }
        if said.is_empty() {
            page.line("");
        }
        said.push(context);
        let style = page.style;
        let text = format!(
            "{} in {}: this is its server {}",
            style.text(&context.name),
            style.text(&context.file),
            style.text(&context.server)
        );
        page.entry(notes::INDENT, ("kubectl context:", notes::LABEL, Ink::Label), &text);
    }
}

/// From where connections begin with a root.
fn taken_from(page: &mut Page<'_>, root: &tree::Node<'_>) {
    let places: Vec<&str> = root.from.iter().map(|from| words::vantage_of(*from)).collect();
    let text = match places.as_slice() {
        [] => "none of the connections that were tried: something else takes them".to_owned(),
        places => format!("connections from {}", places.join(", ")),
    };
    page.entry("    ", ("takes", end::LABEL, Ink::Dim), &text);
}

pub(super) use end::LABEL;

/// Writes what is known of who has something that is no step of a way.
pub(super) fn end(page: &mut Page<'_>, indent: &str, end: &End, host: &Host, verbose: bool) {
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
    end::write(page, indent, end, &hop, host, verbose);
}

/// Writes what could not be read.
pub(super) fn gaps(
    page: &mut Page<'_>,
    gaps: &[Gap],
    host: &Host,
    verdict: Verdict,
    verbose: bool,
) {
    notes::gaps(page, gaps, notes::About { host, verdict, unowned: true, verbose });
}

/// Writes the gaps of a list.
pub(super) fn list_gaps(page: &mut Page<'_>, listing: &Listing, host: &Host) {
    let unowned = listing.rows.iter().any(|row| notes::is_unowned(&row.end));
    let about = notes::About { host, verdict: Verdict::Found, unowned, verbose: false };
    notes::gaps(page, &listing.gaps, about);
}

#[cfg(test)]
mod tests;
