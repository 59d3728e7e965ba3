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

mod certificate;
mod end;
mod flows;
mod headline;
mod notes;
mod shared;
mod tree;
mod verdict;

use crate::model::{
    Answer, End, Endpoint, Gap, Hop, HopKind, Host, KubeContext, Listing, Path, Proto, Scope,
    SourceReport, Verdict,
};

use super::doctor;
use super::layout::Page;
use super::style::{Ink, Style};
use super::words;

/// The text for some answers, separated by empty lines. With `verbose`, also
/// what exactly each piece of evidence was, and what was read.
pub fn answers(
    answers: &[Answer],
    host: &Host,
    style: &Style,
    verbose: bool,
    sources: &[SourceReport],
) -> String {
    let mut page = Page::new(style);
    for (at, answer) in answers.iter().enumerate() {
        if at > 0 {
            page.line("");
        }
        named(&mut page, answer, answers.get(at..).unwrap_or_default());
        one(&mut page, answer, host, verbose, sources);
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
fn one(page: &mut Page<'_>, answer: &Answer, host: &Host, verbose: bool, sources: &[SourceReport]) {
    if answer.verdict != Verdict::Found {
        verdict::write(page, answer, host, sources);
        if !answer.paths.is_empty() {
            page.line("");
        }
    }
    let paths = shared::merge(&answer.paths, page.style, verbose);
    let roots = tree::grow(&paths);
    // Who takes a connection may depend on where it comes from.
    let differ = roots.iter().any(|root| root.from != roots[0].from);
    let mut writer = tree::Writer::new(page.style, host, verbose, &roots);
    for (at, root) in roots.iter().enumerate() {
        if at > 0 {
            page.line("");
        }
        headline::write(page, root, host);
        page.line("");
        writer.write(page, root);
        if differ {
            taken_from(page, root);
        }
    }
    if answer.more > 0 && !roots.is_empty() {
        let way = if answer.more == 1 { "way" } else { "ways" };
        page.line("");
        page.line(&format!("and {} more {way} by rules, depending on who connects", answer.more));
    }
    let flows = answer.flows.as_ref().filter(|flows| flows::says(flows));
    contexts(page, &answer.paths);
    let notes = !answer.reach.is_empty()
        || !answer.findings.is_empty()
        || !answer.held.is_empty()
        || flows.is_some()
        || !answer.gaps.is_empty();
    if !roots.is_empty() && notes {
        page.line("");
    }
    notes::reach(page, &answer.reach);
    notes::held(page, answer, host, verbose);
    notes::findings(page, &answer.findings);
    if let Some(flows) = flows {
        flows::write(page, flows);
    }
    let unowned = answer.paths.iter().any(|path| notes::is_unowned(&path.end));
    let about = notes::About { host, verdict: answer.verdict, unowned, verbose };
    notes::gaps(page, &answer.gaps, about);
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
