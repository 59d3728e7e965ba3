//! The same port in other network namespaces: it is another one, so it is told in a few
//! lines, with what is alike put together.

use std::collections::BTreeSet;

use crate::layout::TextPage;
use crate::style::{Ink, Style};
use whereis_port_model::{Answer, Command, End, Ending, Hop, NetnsId, Reach, Vantage, Workload};

use super::notes;
use super::tree::HopNode;

/// How many kinds are told of.
const KINDS: usize = 8;
/// How many namespaces are shown whole where the tool's own does not have the port.
pub(super) const WHOLE: usize = 3;

/// Hops in different namespaces that lead to the same.
struct HopGroup<'a> {
    /// What it is, without which one.
    kind: String,
    /// The same of the only one.
    one: String,
    /// Whether it is no process that serves it.
    differs: bool,
    places: Vec<&'a Hop>,
}

/// Writes the roots in a few lines, and who reaches them.
pub(super) fn write(page: &mut TextPage<'_>, answer: &Answer, roots: &[&HopNode<'_>]) {
    let style = page.style;
    let ports = !same(roots.iter().map(|root| (root.hop.endpoint.port, root.hop.proto)));
    let mut groups: Vec<HopGroup<'_>> = Vec::new();
    for root in roots {
        let Some((_, end)) = root.leaves().into_iter().next() else { continue };
        let port = match root.hop.endpoint.port {
            Some(port) if ports => format!("{port}/{}: ", root.hop.proto),
            _ => String::new(),
        };
        let kind = format!("{port}{}", kind(style, end));
        let one = format!("{port}{}", only(style, root.hop, end));
        let differs = end.ending != Ending::Process;
        let like = |g: &&mut HopGroup<'_>| (&g.kind, g.differs) == (&kind, differs);
        match groups.iter_mut().find(like) {
            Some(group) => group.places.push(root.hop),
            None => groups.push(HopGroup { kind, one, differs, places: vec![root.hop] }),
        }
    }
    // What is not like the most comes first.
    groups.sort_by_key(|group| (!group.differs, std::cmp::Reverse(group.places.len())));
    let more = groups.len().saturating_sub(KINDS);
    for (at, group) in groups.iter().take(KINDS).enumerate() {
        let mut names: Vec<String> = Vec::new();
        for netns in group.places.iter().filter_map(|hop| hop.netns.as_ref()) {
            let name = style.text(&netns.to_string());
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let text = match names.as_slice() {
            [] => group.one.clone(),
            [name] => format!("{}, in netns {name}", group.one),
            _ => format!("{} × {}, in netns {}", names.len(), group.kind, notes::few(&names)),
        };
        let label = if at == 0 { "elsewhere:" } else { "" };
        page.entry(notes::INDENT, (label, notes::LABEL, Ink::Label), &text);
    }
    let mut last = String::new();
    if more > 0 {
        last = format!("and {more} other kinds. ");
    }
    for (from, who) in
        [(Vantage::Node, "This host reaches"), (Vantage::Outside, "Other machines reach")]
    {
        let open = open_to(&answer.reach, roots, from);
        if !open.is_empty() {
            let which = if groups.len() == 1 && groups[0].places.len() == 1 {
                "it".to_owned()
            } else {
                names_of(style, roots, &open)
            };
            last.push_str(&format!("{who} {which}; "));
        }
    }
    let name = roots.iter().find_map(|root| root.hop.netns.as_ref()).map(ToString::to_string);
    let netns = Command::new("--netns").arg(name.unwrap_or_default());
    last.push_str(&format!("{} shows one of them whole, --all shows all", style.command(&netns)));
    page.entry(notes::INDENT, ("", notes::LABEL, Ink::Label), &last);
}

fn same<T: PartialEq>(mut all: impl Iterator<Item = T>) -> bool {
    let Some(first) = all.next() else { return true };
    all.all(|one| one == first)
}

/// Those of the roots' namespaces that somebody surely reaches.
fn open_to(reach: &[Reach], roots: &[&HopNode<'_>], from: Vantage) -> BTreeSet<NetnsId> {
    let places: BTreeSet<NetnsId> =
        roots.iter().filter_map(|root| Some(root.hop.netns.as_ref()?.id)).collect();
    let open = |r: &&Reach| r.from == from && r.reachable == Some(true) && !r.needs_route();
    let ids = reach.iter().filter(open).filter_map(|r| Some(r.netns.as_ref()?.id));
    ids.filter(|id| places.contains(id)).collect()
}

fn names_of(style: &Style, roots: &[&HopNode<'_>], of: &BTreeSet<NetnsId>) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut all = BTreeSet::new();
    for netns in roots.iter().filter_map(|root| root.hop.netns.as_ref()) {
        if all.insert(netns.id) && of.contains(&netns.id) {
            names.push(style.text(&netns.to_string()));
        }
    }
    if of.len() == all.len() { "each of them".to_owned() } else { notes::few(&names) }
}

/// What is behind it, by what made it and by its program, whichever of these it is.
pub(super) fn kind(style: &Style, end: &End) -> String {
    let program = match (end.ending, end.processes.first()) {
        (Ending::Process, Some(process)) => style.text(process.name()),
        (Ending::Process, None) => "a process".to_owned(),
        (Ending::Kernel, _) => "the kernel".to_owned(),
        (Ending::Nothing, _) => "nothing behind it".to_owned(),
        (Ending::Stopped, _) => "not let through".to_owned(),
        (Ending::Elsewhere, _) => "a way beyond this node".to_owned(),
        (Ending::OutsidePidNamespace | Ending::NotReadable | Ending::Unknown, _) => {
            "owner not known".to_owned()
        }
    };
    match Workload::of(end) {
        Some(workload) => format!("{program} ({})", style.text(&workload.to_string())),
        None => program,
    }
}

/// The same of one alone.
fn only(style: &Style, hop: &Hop, end: &End) -> String {
    let place = style.endpoint(&hop.endpoint);
    let Some(process) = end.processes.first() else {
        return format!("{} at {place}", kind(style, end));
    };
    let of = match Workload::of(end) {
        Some(workload) => format!(" ({})", style.text(&workload.to_string())),
        None => String::new(),
    };
    format!("{}, pid {}{of} at {place}", style.text(process.name()), process.pid)
}
