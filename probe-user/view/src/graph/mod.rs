//! Who gets where by which way, as a graph: for Graphviz, Mermaid, or drawn.

mod dot;
mod mermaid;
mod svg;

use whereis_port_model::{
    Answer, End, Ending, Endpoint, Hop, HopKind, Host, ListRow, Listing, NetnsRef, Path, PathGroup,
    Proto, Reach, Vantage,
};

use super::layout::shorten_middle;
use super::style::Style;
use super::words;

pub use dot::dot;
pub use mermaid::mermaid;
pub use svg::svg;

/// How many ways are drawn.
const WAYS: usize = 48;
/// How many of a list.
const ROWS: usize = 400;
/// How many characters a line of a node has at most.
const LINE: usize = 60;

/// A graph. All text in it is shown as it is, and is untrusted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// What it is of.
    pub title: String,
    /// Its nodes.
    pub nodes: Vec<GraphNode>,
    /// What leads from one to another, by their places.
    pub edges: Vec<GraphEdge>,
}

/// A box of a drawing.
#[derive(Debug, PartialEq, Eq)]
pub struct GraphNode {
    /// What it is.
    pub kind: NodeKind,
    /// What is written in it.
    pub lines: Vec<String>,
}

/// The kinds of node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// Who connects.
    Sender,
    /// A port.
    Port,
    /// A step behind it.
    Step,
    /// Who serves it.
    End,
    /// Nobody does.
    Nothing,
}

/// An arrow of a drawing.
#[derive(Debug, PartialEq, Eq)]
pub struct GraphEdge {
    /// Where it begins.
    pub from: usize,
    /// Where it leads.
    pub to: usize,
    /// What is written at it.
    pub label: String,
    /// Whether connections get there; `None` when it is not known.
    pub open: Option<bool>,
}

impl Graph {
    /// The graph of some answers.
    pub fn of_answers(answers: &[Answer], host: &Host, style: &Style) -> Self {
        let titles: Vec<String> = answers.iter().map(|a| style.text(&a.query.text)).collect();
        let mut graph = Self {
            title: format!("{} on {}", titles.join(", "), style.text(&host.hostname)),
            ..Self::default()
        };
        for answer in answers {
            graph.answer(answer, host, style);
        }
        graph
    }

    /// The graph of the ways of a list: each port that leads elsewhere, and where.
    pub fn of_list(listing: &Listing, host: &Host, style: &Style) -> Self {
        let title = format!("ports of {} that lead elsewhere", style.text(&host.hostname));
        let mut graph = Self { title, ..Self::default() };
        let ways: Vec<&ListRow> = listing.rows.iter().filter(|row| row.target.is_some()).collect();
        for row in ways.iter().take(ROWS) {
            graph.row(row, style);
        }
        graph.more(ways.len().saturating_sub(ROWS), "ports");
        graph
    }

    /// The node with these lines, a new one if there is none.
    fn node(&mut self, kind: NodeKind, lines: Vec<String>) -> usize {
        let lines: Vec<String> = lines
            .iter()
            .filter(|line| !line.is_empty())
            .map(|line| shorten_middle(line, LINE, "…"))
            .collect();
        let same = |node: &GraphNode| node.kind == kind && node.lines == lines;
        self.nodes.iter().position(same).unwrap_or_else(|| {
            self.nodes.push(GraphNode { kind, lines });
            self.nodes.len() - 1
        })
    }

    fn edge(&mut self, from: usize, to: usize, label: String, open: Option<bool>) {
        let new = GraphEdge { from, to, label, open };
        // What one gets to by one of several ways is open.
        match self.edges.iter_mut().find(|edge| (edge.from, edge.to) == (from, to)) {
            Some(known) if known.open != Some(true) && open == Some(true) => *known = new,
            Some(_) => {}
            None if from != to => self.edges.push(new),
            None => {}
        }
    }

    fn more(&mut self, more: usize, what: &str) {
        if more > 0 {
            self.nodes.push(GraphNode {
                kind: NodeKind::Nothing,
                lines: vec![format!("and {more} more {what}, which JSON has")],
            });
        }
    }

    fn answer(&mut self, answer: &Answer, host: &Host, style: &Style) {
        // One of what is alike stands for all, where there is too much.
        let groups = PathGroup::of(&answer.paths);
        let mut shown: Vec<(&Path, usize)> = match answer.paths.len() > WAYS {
            true => groups
                .iter()
                .filter_map(|g| Some((answer.paths.get(*g.paths.first()?)?, g.paths.len())))
                .collect(),
            false => answer.paths.iter().map(|path| (path, 1)).collect(),
        };
        let left = shown.split_off(shown.len().min(WAYS));
        if answer.paths.is_empty() {
            let nothing = match answer.verdict {
                whereis_port_model::Verdict::Unknown => "not known: not everything could be read",
                _ => "nothing has this port",
            };
            let port = self.node(NodeKind::Port, vec![style.text(&answer.query.text)]);
            let end = self.node(NodeKind::Nothing, vec![nothing.to_owned()]);
            self.edge(port, end, String::new(), None);
        }
        for (path, count) in shown {
            self.path(answer, path, count, host, style);
        }
        let left = left.iter().map(|(_, count)| count).sum::<usize>() + answer.more;
        self.more(left, "ways");
    }

    fn path(&mut self, answer: &Answer, path: &Path, count: usize, host: &Host, style: &Style) {
        let Some((first, rest)) = path.hops.split_first() else { return };
        let root = self.node(NodeKind::Port, port(style, first, host));
        for reach in answer.reach.iter().filter(|reach| is_of(reach, path)) {
            let sender = self.node(NodeKind::Sender, sender(style, answer, reach));
            let label = match reach.reachable {
                Some(true) => "yes",
                Some(false) => "no",
                None => "unknown",
            };
            self.edge(sender, root, label.to_owned(), reach.reachable);
        }
        let open = match path.end.ending {
            Ending::Stopped | Ending::Nothing => Some(false),
            _ => Some(true),
        };
        let mut last = root;
        let mut share = first.share;
        for hop in rest {
            let label = share.map_or_else(String::new, |share| format!("{:.0} %", share * 100.0));
            let step = self.node(NodeKind::Step, step(style, hop));
            self.edge(last, step, label, Some(true));
            (last, share) = (step, hop.share);
        }
        let label = share.map_or_else(String::new, |share| format!("{:.0} %", share * 100.0));
        let kind = match path.end.ending {
            Ending::Nothing | Ending::Stopped => NodeKind::Nothing,
            _ => NodeKind::End,
        };
        let end = self.node(kind, end(style, &path.end, count));
        self.edge(last, end, label, open);
    }

    fn row(&mut self, row: &ListRow, style: &Style) {
        let Some(target) = &row.target else { return };
        let service = row
            .service
            .as_ref()
            .map(|one| format!("Service {}/{}", style.text(&one.namespace), style.text(&one.name)));
        let by = row.taken_by.as_deref().or(row.end.processes.first().map(|p| p.name()));
        let port = self.node(
            NodeKind::Port,
            vec![
                format!(
                    "{} {}",
                    place(style, row.address, row.port.0, row.proto),
                    row.port_kind.as_str()
                ),
                by.map_or_else(String::new, |by| style.text(by)),
                service.unwrap_or_default(),
                netns(style, Some(&row.netns)),
            ],
        );
        let mut behind: Vec<String> = Vec::new();
        if let Some(pod) = row.end.pod.as_ref().and_then(|pod| pod_name(style, pod)) {
            behind.push(format!("pod {pod}"));
        } else if let Some(container) = row.end.containers.last() {
            behind.push(format!("container {}", style.text(words::container(container))));
        }
        for to in std::iter::once(target).chain(&row.others) {
            let mut lines = vec![style.endpoint(to)];
            lines.extend(behind.clone());
            let end = self.node(NodeKind::End, lines);
            self.edge(port, end, String::new(), Some(true));
        }
        if row.more > 0 {
            let end = self.node(NodeKind::End, vec![format!("{} more", row.more)]);
            self.edge(port, end, String::new(), Some(true));
        }
    }
}

/// Whether a statement is about the port that a path begins with, from where connections take it.
fn is_of(reach: &Reach, path: &Path) -> bool {
    let Some(hop) = path.hops.first() else { return false };
    let netns = hop.netns.as_ref().map(|netns| netns.id);
    let about = hop.endpoint.port.is_some_and(|port| reach.is_about(netns, (port, hop.proto)));
    let bound = hop.endpoint.address.map(|address| address.to_canonical());
    let at = reach.address.map(|at| at.ip().to_canonical());
    let same = bound.zip(at).is_none_or(|(bound, at)| {
        bound.is_unspecified() && (bound.is_ipv6() || at.is_ipv4()) || bound == at
    });
    let taken = path.from.is_empty() || path.from.contains(&reach.from);
    about && same && (taken || reach.reachable != Some(true))
}

fn sender(style: &Style, answer: &Answer, reach: &Reach) -> Vec<String> {
    let name = match (&answer.sender, reach.from) {
        (Some(sender), _) => style.text(&sender.name),
        (None, Vantage::Loopback) => "loopback".to_owned(),
        (None, Vantage::Node) => "this host".to_owned(),
        (None, Vantage::Outside) => "other machines".to_owned(),
        (None, Vantage::Containers) => "containers".to_owned(),
    };
    let by = reach.by.iter().take(3).map(|by| style.text(by)).collect::<Vec<_>>();
    vec![name, by.join(", ")]
}

fn place(style: &Style, address: std::net::IpAddr, port: u16, proto: Proto) -> String {
    let at =
        Endpoint { address: Some(address), name: None, port: Some(whereis_port_model::Port(port)) };
    format!("{}/{proto}", style.endpoint(&at))
}

fn netns(style: &Style, netns: Option<&NetnsRef>) -> String {
    netns.map_or_else(String::new, |netns| format!("in {}", style.text(&netns.to_string())))
}

fn port(style: &Style, hop: &Hop, host: &Host) -> Vec<String> {
    let place = format!("{}/{}", style.endpoint(&hop.endpoint), hop.proto);
    let inside = hop.netns.as_ref().filter(|netns| netns.id != host.own_netns);
    vec![place, style.text(&hop.detail), netns(style, inside)]
}

fn step(style: &Style, hop: &Hop) -> Vec<String> {
    let kind = match hop.kind {
        HopKind::Listener => String::new(),
        kind => format!("{} ", words::hop(kind)),
    };
    vec![
        format!("{kind}{}", style.endpoint(&hop.endpoint)),
        style.text(&hop.detail),
        netns(style, hop.netns.as_ref()),
    ]
}

fn pod_name(style: &Style, pod: &whereis_port_model::Pod) -> Option<String> {
    let name = style.text(pod.name.as_ref()?);
    Some(match &pod.namespace {
        Some(namespace) => format!("{}/{name}", style.text(namespace)),
        None => name,
    })
}

fn end(style: &Style, end: &End, count: usize) -> Vec<String> {
    let process = end.processes.first();
    let mut first = match (end.ending, process) {
        (Ending::Nothing, _) => "nothing behind it".to_owned(),
        (Ending::Stopped, _) => "not let through".to_owned(),
        (Ending::Kernel, _) => "the kernel".to_owned(),
        (_, Some(process)) => format!("{}, pid {}", style.text(process.name()), process.pid),
        (Ending::Elsewhere, None) => "off this node".to_owned(),
        (_, None) => "owner not known".to_owned(),
    };
    if count > 1 {
        let program = process.map_or(first, |process| style.text(process.name()));
        first = format!("{count} × {program}");
    }
    let mut lines = vec![first];
    if let Some(workload) = whereis_port_model::Workload::of(end).filter(|_| count > 1) {
        lines.push(style.text(&workload.to_string()));
    } else if let Some(pod) = end.pod.as_ref().and_then(|pod| pod_name(style, pod)) {
        lines.push(format!("pod {pod}"));
    } else if let Some(container) = end.containers.last() {
        lines.push(format!("container {}", style.text(words::container(container))));
    } else if let Some(unit) = &end.unit {
        lines.push(style.text(unit));
    }
    if let Some(service) = &end.service {
        let (namespace, name) = (style.text(&service.namespace), style.text(&service.name));
        lines.push(format!("Service {namespace}/{name}"));
    }
    if let Some(cluster) = &end.cluster {
        lines.push(format!("cluster {}", words::cluster(style, cluster)));
    }
    lines
}

#[cfg(test)]
mod tests;
