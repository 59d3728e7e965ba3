//! A graph as a picture, which is drawn here: no program and no font has to be there.

use std::fmt::Write as _;

use super::{Graph, GraphEdge, GraphNode, NodeKind};
use crate::layout::width;

/// What a character is wide, in a monospaced font of [`SIZE`].
const CHARACTER: f64 = 7.3;
/// The size of the font.
const SIZE: f64 = 12.0;
/// From one line to the next.
const LINE: f64 = 16.0;
/// Between a node's border and its text.
const PAD: f64 = 9.0;
/// Between two nodes above each other.
const GAP: f64 = 18.0;
/// Around the whole picture.
const MARGIN: f64 = 20.0;
/// Between two layers, beside what is written at edges.
const BETWEEN: f64 = 56.0;

/// Where a node is drawn, and how large.
#[derive(Debug, Clone, Copy, Default)]
struct NodeBox {
    layer: usize,
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

impl NodeBox {
    fn middle(&self) -> f64 {
        self.y + self.height / 2.0
    }
}

/// The graph as an SVG document, in colours for a light and for a dark background. What is shut or
/// not known is told by the form of its line and in words, too.
pub fn svg(graph: &Graph) -> String {
    let (placed, size) = place(graph);
    let (wide, high) = size;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide:.0}\" height=\"{high:.0}\" \
         viewBox=\"0 0 {wide:.0} {high:.0}\" role=\"img\" aria-labelledby=\"title\">"
    );
    let _ = writeln!(text, "<title id=\"title\">{}</title>", escaped(&graph.title));
    text.push_str(STYLE);
    let _ =
        writeln!(text, "<rect class=\"page\" width=\"{wide:.0}\" height=\"{high:.0}\" rx=\"6\"/>");
    let _ = writeln!(
        text,
        "<text class=\"name\" x=\"{MARGIN}\" y=\"{:.0}\">{}</text>",
        MARGIN + SIZE,
        escaped(&graph.title)
    );
    for edge in &graph.edges {
        if let (Some(from), Some(to)) = (placed.get(edge.from), placed.get(edge.to)) {
            draw_edge(&mut text, edge, from, to);
        }
    }
    for (node, at) in graph.nodes.iter().zip(&placed) {
        draw_node(&mut text, node, at);
    }
    text.push_str("</svg>\n");
    text
}

/// For a light background, and over it for a dark one. Plain rules: many viewers know no variables.
const STYLE: &str = "\
<style>
  text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #1f2328; }
  .page { fill: #ffffff; }
  .name, .first { font-weight: 600; }
  .more { fill: #59636e; }
  .node rect { fill: #f6f8fa; stroke: #818b98; }
  .port rect { stroke-width: 2; }
  .nothing rect { stroke: #b3261e; stroke-dasharray: 5 3; }
  .edge path { fill: none; stroke: #818b98; stroke-width: 1.5; }
  .edge polygon { fill: #818b98; }
  .edge text { stroke: #ffffff; stroke-width: 4; paint-order: stroke; }
  .yes path { stroke: #116329; } .yes polygon, .yes text { fill: #116329; }
  .no path { stroke: #b3261e; stroke-dasharray: 6 4; } .no polygon, .no text { fill: #b3261e; }
  .unknown path { stroke: #7d4e00; stroke-dasharray: 2 4; } .unknown polygon, .unknown text { fill: #7d4e00; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .page { fill: #0d1117; }
    .more { fill: #9198a1; }
    .node rect { fill: #161b22; stroke: #6e7681; }
    .nothing rect { stroke: #ff8f87; }
    .edge path { stroke: #6e7681; }
    .edge polygon { fill: #6e7681; }
    .edge text { stroke: #0d1117; }
    .yes path { stroke: #56d364; } .yes polygon, .yes text { fill: #56d364; }
    .no path { stroke: #ff8f87; } .no polygon, .no text { fill: #ff8f87; }
    .unknown path { stroke: #e3b341; } .unknown polygon, .unknown text { fill: #e3b341; }
  }
</style>
";

/// Where every node is, and how large all of it is.
fn place(graph: &Graph) -> (Vec<NodeBox>, (f64, f64)) {
    let mut placed: Vec<NodeBox> = graph.nodes.iter().map(size).collect();
    layers(graph, &mut placed);
    let count = placed.iter().map(|one| one.layer + 1).max().unwrap_or(0);
    let mut x = MARGIN;
    let top = 2.0 * MARGIN + SIZE;
    let mut high = top;
    for layer in 0..count {
        let mut here: Vec<usize> = (0..placed.len())
            .filter(|at| placed.get(*at).is_some_and(|p| p.layer == layer))
            .collect();
        // Below what leads to them, so that few edges cross.
        let weight = |at: &usize| {
            let before = graph.edges.iter().filter(|edge| edge.to == *at);
            let middles: Vec<f64> = before
                .filter_map(|edge| placed.get(edge.from).filter(|p| p.layer < layer))
                .map(NodeBox::middle)
                .collect();
            match middles.len() {
                0 => f64::MAX,
                count => middles.iter().sum::<f64>() / count_of(count),
            }
        };
        let mut weights: Vec<(f64, usize)> = here.iter().map(|at| (weight(at), *at)).collect();
        weights.sort_by(|a, b| a.0.total_cmp(&b.0));
        here = weights.iter().map(|(_, at)| *at).collect();
        let widest =
            here.iter().filter_map(|at| placed.get(*at)).map(|p| p.width).fold(0.0, f64::max);
        let mut y = top;
        for ((weight, _), at) in weights.iter().zip(&here) {
            let Some(one) = placed.get_mut(*at) else { continue };
            // As far down as what leads to it, where there is room.
            let wanted = if *weight == f64::MAX { y } else { weight - one.height / 2.0 };
            one.x = x;
            one.y = wanted.max(y);
            y = one.y + one.height + GAP;
        }
        high = high.max(y);
        let labels = graph
            .edges
            .iter()
            .filter(|edge| placed.get(edge.from).is_some_and(|from| from.layer == layer));
        let label = labels.map(|edge| wide(&edge.label)).fold(0.0, f64::max);
        x += widest + BETWEEN + label;
        if layer + 1 == count {
            x -= BETWEEN + label;
        }
    }
    let title = wide(&graph.title) + 2.0 * MARGIN;
    (placed, ((x + MARGIN).max(title).ceil(), (high - GAP + MARGIN).max(top).ceil()))
}

/// A small number as one with a fraction.
fn count_of(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

fn wide(text: &str) -> f64 {
    count_of(width(text)) * CHARACTER
}

fn size(node: &GraphNode) -> NodeBox {
    let widest = node.lines.iter().map(|line| wide(line)).fold(0.0, f64::max);
    NodeBox {
        width: widest + 2.0 * PAD,
        height: count_of(node.lines.len().max(1)) * LINE + 2.0 * PAD - 4.0,
        ..NodeBox::default()
    }
}

/// Every node stands behind all that lead to it. What leads in a circle stays where it is.
fn layers(graph: &Graph, placed: &mut [NodeBox]) {
    for _ in 0..graph.nodes.len() {
        let mut changed = false;
        for edge in &graph.edges {
            let Some(from) = placed.get(edge.from).map(|from| from.layer) else { continue };
            if let Some(to) = placed.get_mut(edge.to)
                && to.layer <= from
                && from + 1 < graph.nodes.len()
            {
                to.layer = from + 1;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    // Ports begin in one column, whoever is known to connect to them.
    let senders = graph.nodes.iter().any(|node| node.kind == NodeKind::Sender);
    for (node, one) in graph.nodes.iter().zip(placed) {
        if node.kind == NodeKind::Port && senders {
            one.layer = one.layer.max(1);
        }
    }
}

fn draw_node(text: &mut String, node: &GraphNode, at: &NodeBox) {
    let (class, round) = match node.kind {
        NodeKind::Sender => ("sender", at.height / 2.0),
        NodeKind::Port => ("port", 3.0),
        NodeKind::Step => ("step", 3.0),
        NodeKind::End => ("end", 9.0),
        NodeKind::Nothing => ("nothing", 3.0),
    };
    let _ = writeln!(
        text,
        "<g class=\"node {class}\"><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"{round:.1}\"/>",
        at.x, at.y, at.width, at.height
    );
    for (line, words) in node.lines.iter().enumerate() {
        let y = at.y + PAD + SIZE - 3.0 + count_of(line) * LINE;
        let class = if line == 0 { "first" } else { "more" };
        let _ = writeln!(
            text,
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            at.x + PAD,
            escaped(words)
        );
    }
    text.push_str("</g>\n");
}

fn draw_edge(text: &mut String, edge: &GraphEdge, from: &NodeBox, to: &NodeBox) {
    let (x1, y1, x2, y2) = (from.x + from.width, from.middle(), to.x, to.middle());
    let class = match (edge.open, edge.label.as_str()) {
        (Some(true), "yes") => "edge yes",
        (Some(true), _) => "edge",
        (Some(false), _) => "edge no",
        (None, _) => "edge unknown",
    };
    let bend = ((x2 - x1) / 2.0).max(24.0);
    let _ = writeln!(
        text,
        "<g class=\"{class}\"><path d=\"M{x1:.1} {y1:.1} C{:.1} {y1:.1} {:.1} {y2:.1} {:.1} {y2:.1}\"/>\
         <polygon points=\"{x2:.1},{y2:.1} {:.1},{:.1} {:.1},{:.1}\"/>",
        x1 + bend,
        x2 - bend,
        x2 - 6.0,
        x2 - 8.0,
        y2 - 4.0,
        x2 - 8.0,
        y2 + 4.0
    );
    if !edge.label.is_empty() {
        // Beside the end where few others are: of senders where they begin, of shares where they go.
        let (x, y, anchor) = match edge.label.as_str() {
            "yes" | "no" | "unknown" => (x1 + 8.0, y1 - 5.0, "start"),
            _ => (x2 - 12.0, y2 - 7.0, "end"),
        };
        let _ = writeln!(
            text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(&edge.label)
        );
    }
    text.push_str("</g>\n");
}

/// A text as XML has it.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in crate::clean(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            c => safe.push(c),
        }
    }
    safe
}
