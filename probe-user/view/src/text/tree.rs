//! The tree of hops: paths with the same first steps share them.

use crate::layout::{TextPage, pad, shorten, shorten_middle, width, wrap};
use crate::style::{Ink, Style};
use crate::words;
use whereis_port_model::{End, Ending, Hop, Host, NetnsId, Path, Proto, Vantage};

use super::end::{self, DetailLevel};

/// One hop, and how the paths through it go on.
#[derive(Debug, PartialEq)]
pub(super) struct HopNode<'a> {
    pub(super) hop: &'a Hop,
    pub(super) children: Vec<HopNode<'a>>,
    /// What paths that stop here end in.
    pub(super) ends: Vec<&'a End>,
    /// Of a root: from where connections begin with it.
    pub(super) from: Vec<Vantage>,
}

/// The trees of `paths`, in their order.
pub(super) fn grow(paths: &[Path]) -> Vec<HopNode<'_>> {
    let mut roots = Vec::new();
    for path in paths {
        insert(&mut roots, &path.hops, &path.end);
        let root = path.hops.first().and_then(|hop| roots.iter_mut().rfind(|r| r.hop == hop));
        if let Some(root) = root {
            root.from.extend(&path.from);
            root.from.sort_unstable();
            root.from.dedup();
        }
    }
    roots
}

fn insert<'a>(nodes: &mut Vec<HopNode<'a>>, hops: &'a [Hop], end: &'a End) {
    let [hop, rest @ ..] = hops else { return };
    // The same hop was most likely inserted last.
    let at = nodes.iter().rposition(|node| node.hop == hop).unwrap_or_else(|| {
        nodes.push(HopNode { hop, children: Vec::new(), ends: Vec::new(), from: Vec::new() });
        nodes.len() - 1
    });
    let Some(node) = nodes.get_mut(at) else { return };
    if rest.is_empty() {
        if !node.ends.contains(&end) {
            node.ends.push(end);
        }
    } else {
        insert(&mut node.children, rest, end);
    }
}

impl<'a> HopNode<'a> {
    /// Every end below, with the hops that lead there.
    pub(super) fn leaves(&self) -> Vec<(Vec<&'a Hop>, &'a End)> {
        let mut leaves = Vec::new();
        self.collect(&mut Vec::new(), &mut leaves);
        leaves
    }

    fn collect(&self, way: &mut Vec<&'a Hop>, leaves: &mut Vec<(Vec<&'a Hop>, &'a End)>) {
        way.push(self.hop);
        leaves.extend(self.ends.iter().map(|end| (way.clone(), *end)));
        for child in &self.children {
            child.collect(way, leaves);
        }
        way.pop();
    }
}

/// One line of a tree before it is fitted.
struct TreeRow<'n, 'a> {
    node: &'n HopNode<'a>,
    /// What the tree draws before the endpoint.
    lead: String,
    /// What it draws before lines that belong to this hop.
    hang: String,
    endpoint: String,
    detail: String,
    known: String,
}

/// What the rows of an answer have in common.
pub(super) struct TreeWriter<'a> {
    host: &'a Host,
    level: DetailLevel,
    /// Ends that were written out already, with where that was.
    seen: Vec<(&'a End, String)>,
    /// Roots that were written out already.
    roots: Vec<&'a HopNode<'a>>,
    endpoint: usize,
    detail: usize,
}

/// Columns for the kind of a hop: the longest is `off node`.
const KIND: usize = 8;
/// Columns that a detail needs at least beside its endpoint.
const DETAIL: usize = 22;
/// What stands before the name of a namespace.
const IN: &str = "in ";
/// Columns that the name of a namespace is not cut below.
const NETNS: usize = 16;
/// Columns up to which details are aligned.
const ALIGNED: usize = 60;
/// How many of the last ends and roots are compared with a new one. The same
/// end comes close behind; a list of all ports has thousands.
const RECENT: usize = 64;
/// What a line of the tree is indented by.
const INDENT: &str = "  ";

impl<'a> TreeWriter<'a> {
    /// A writer for the trees `roots`: columns are aligned over all of them.
    pub(super) fn new(
        style: &Style,
        host: &'a Host,
        level: DetailLevel,
        roots: &[&HopNode<'a>],
    ) -> Self {
        let mut writer =
            Self { host, level, seen: Vec::new(), roots: Vec::new(), endpoint: 0, detail: 0 };
        let mut widths = Vec::new();
        let rows: Vec<TreeRow<'_, '_>> =
            roots.iter().flat_map(|root| writer.rows(style, root)).collect();
        for row in rows {
            writer.endpoint = writer.endpoint.max(width(&row.lead) + width(&row.endpoint));
            widths.push((width(&row.detail), width(&row.known)));
        }
        let used = writer.endpoint + 2 + KIND + 2;
        let room = style.width.unwrap_or(usize::MAX);
        // Only details that have room for their evidence need a column for it.
        let fits = |(detail, known): &(usize, usize)| {
            *detail <= ALIGNED && used + detail + 2 + known <= room
        };
        writer.detail =
            widths.into_iter().filter(fits).map(|(detail, _)| detail).max().unwrap_or(0);
        writer
    }

    /// Writes the tree of `root`.
    pub(super) fn write(&mut self, page: &mut TextPage<'_>, root: &'a HopNode<'a>) {
        let origin = named(page.style, root.hop);
        let mut rows = self.rows(page.style, root);
        // A server on IPv4 and IPv6, say: two sockets with the same behind them.
        let is_alike =
            |known: &&HopNode<'_>| known.children == root.children && known.ends == root.ends;
        let alike = self.roots.iter().rev().take(RECENT).copied().find(is_alike);
        if let Some(alike) = alike
            .filter(|root| !root.children.is_empty() || root.ends.iter().any(|e| is_telling(e)))
        {
            rows.truncate(1);
            for row in &mut rows {
                row.hang = format!("{INDENT}     ");
                let place = named(page.style, alike.hop);
                let owned = root.ends.iter().any(|end| !end.processes.is_empty());
                let text = match (root.children.is_empty(), owned) {
                    (true, true) => format!("the same process as {place} above"),
                    (true, false) => format!("the same as {place} above"),
                    (false, _) => format!("goes on as {place} above"),
                };
                if self.level == DetailLevel::Full {
                    self.row(page, row);
                    page.paragraph(&row.hang, &row.hang, Some(Ink::Dim), &text);
                } else {
                    row.known = text;
                    self.row(page, row);
                }
            }
            return;
        }
        self.roots.push(root);
        for row in rows {
            self.row(page, &row);
            if self.level == DetailLevel::Full {
                for evidence in &row.node.hop.evidence {
                    let text = format!(
                        "{}: {}",
                        page.style.text(evidence.source.as_str()),
                        page.style.text(&evidence.detail)
                    );
                    page.entry(&row.hang, ("known by", end::LABEL, Ink::Dim), &text);
                }
            }
            for end in &row.node.ends {
                match self.seen.iter().rev().take(RECENT).find(|(known, _)| known == end) {
                    Some((_, place)) if is_telling(end) => {
                        page.paragraph(
                            &row.hang,
                            &row.hang,
                            Some(Ink::Dim),
                            &format!("the same end as {place} above"),
                        );
                    }
                    _ => {
                        let hop = row.node.hop;
                        end::write(page, &row.hang, end, hop, self.host, self.level);
                        self.seen.push((end, origin.clone()));
                    }
                }
            }
        }
    }

    fn row(&self, page: &mut TextPage<'_>, row: &TreeRow<'_, '_>) {
        let style = page.style;
        if style.plain {
            let (lead, endpoint) = (&row.lead, &row.endpoint);
            let kind = words::hop(row.node.hop.kind);
            let known = match row.known.as_str() {
                "" => String::new(),
                known => format!(", {known}"),
            };
            page.line(&format!("{lead}{kind} at {endpoint}: {}{known}", row.detail));
            return;
        }
        let kind = style.paint(Ink::Label, &pad(words::hop(row.node.hop.kind), KIND));
        let used = self.endpoint + 2 + KIND + 2;
        let paint_known = |known: &str| style.paint(Ink::Dim, known);

        // All on one line, evidence last: in its column, or else behind the detail.
        let aligned = self.detail.max(width(&row.detail));
        let last = match width(&row.known) {
            0 => 0,
            known => 2 + known,
        };
        let fits = |detail: &usize| page.room(used) >= detail + last;
        if let Some(columns) = [aligned, width(&row.detail)].into_iter().find(fits) {
            let endpoint = pad(&format!("{}{}", row.lead, row.endpoint), self.endpoint);
            let detail = pad(&row.detail, columns);
            page.line(&format!("{endpoint}  {kind}  {detail}  {}", paint_known(&row.known)));
            return;
        }
        // The same with the middle of the namespace's name cut.
        let room = page.room(used + width(&row.detail) + 2);
        if self.level != DetailLevel::Full && room >= NETNS && row.known.starts_with(IN) {
            let endpoint = pad(&format!("{}{}", row.lead, row.endpoint), self.endpoint);
            let known = shorten_middle(&row.known, room, style.glyphs().ellipsis);
            page.line(&format!("{endpoint}  {kind}  {}  {}", row.detail, paint_known(&known)));
            return;
        }
        // The detail wrapped in its column, the evidence under it. A hop whose
        // endpoint leaves no room gets them under the endpoint instead.
        let beside = page.room(used) >= DETAIL;
        let (detail_at, hang) = if beside {
            (used, format!("{}{}", row.hang, " ".repeat(used.saturating_sub(width(&row.hang)))))
        } else {
            (width(&row.hang), row.hang.clone())
        };
        let room = page.room(detail_at);
        let details = wrap(&row.detail, room);
        let mut details = details.iter();
        let endpoint = if beside {
            pad(&format!("{}{}", row.lead, row.endpoint), self.endpoint)
        } else {
            let room = page.room(width(&row.lead) + 2 + KIND);
            format!("{}{}", row.lead, shorten(&row.endpoint, room, style.glyphs().ellipsis))
        };
        let first = if beside { details.next().map_or("", String::as_str) } else { "" };
        page.line(&format!("{endpoint}  {kind}  {first}"));
        for detail in details {
            page.line(&format!("{hang}{detail}"));
        }
        if !row.known.is_empty() {
            page.paragraph(&hang, &hang, Some(Ink::Dim), &row.known);
        }
    }

    /// The rows of a tree, top down.
    fn rows<'n>(&self, style: &Style, root: &'n HopNode<'a>) -> Vec<TreeRow<'n, 'a>> {
        let mut rows = Vec::new();
        let full = self.level == DetailLevel::Full;
        // That a port is of this very namespace goes without saying.
        let netns = (!full).then_some(self.host.own_netns);
        let (lead, hang) = (INDENT.to_owned(), format!("{INDENT}  "));
        flatten(style, root, &TreePosition { lead, hang, netns, proto: None, full }, &mut rows);
        rows
    }
}

/// A socket as another line names it.
fn named(style: &Style, hop: &Hop) -> String {
    format!("{}/{}", style.endpoint(&hop.endpoint), hop.proto)
}

/// Whether an end says enough for an equal one to be the same thing: two
/// sockets with unknown owners have nothing in common.
fn is_telling(end: &End) -> bool {
    !end.processes.is_empty() || matches!(end.ending, Ending::Kernel | Ending::Nothing)
}

/// Where in the tree a node stands.
struct TreePosition {
    lead: String,
    hang: String,
    netns: Option<NetnsId>,
    proto: Option<Proto>,
    /// Whether it is said how each step is known.
    full: bool,
}

fn flatten<'n, 'a>(
    style: &Style,
    node: &'n HopNode<'a>,
    place: &TreePosition,
    rows: &mut Vec<TreeRow<'n, 'a>>,
) {
    let hop = node.hop;
    let glyphs = style.glyphs();
    let mut endpoint = style.endpoint(&hop.endpoint);
    if place.proto != Some(hop.proto) {
        endpoint = format!("{endpoint}/{}", hop.proto);
    }
    let mut sources: Vec<String> = Vec::new();
    for evidence in hop.evidence.iter().filter(|_| place.full) {
        let source = style.text(evidence.source.as_str());
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    if sources.is_empty() && place.full {
        sources.push("no evidence".to_owned());
    }
    if let Some(netns) = hop.netns.as_ref().filter(|n| place.netns != Some(n.id)) {
        sources.push(match place.full {
            true => format!("netns {}", style.netns(netns)),
            false => format!("{IN}{}", super::sentence::place(style, netns)),
        });
    }
    let below = if node.children.is_empty() { "   " } else { glyphs.bar };
    rows.push(TreeRow {
        node,
        lead: place.lead.clone(),
        hang: format!("{}{below}", place.hang),
        endpoint,
        detail: style.text(&hop.detail),
        known: sources.join(", "),
    });
    for (at, child) in node.children.iter().enumerate() {
        let is_last = at + 1 == node.children.len();
        let place = TreePosition {
            lead: format!("{}{}", place.hang, if is_last { glyphs.last } else { glyphs.branch }),
            hang: format!("{}{}", place.hang, if is_last { "   " } else { glyphs.bar }),
            netns: hop.netns.as_ref().map(|n| n.id).or(place.netns),
            proto: Some(hop.proto),
            full: place.full,
        };
        flatten(style, child, &place, rows);
    }
}
