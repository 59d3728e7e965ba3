//! A graph for Graphviz.

use std::fmt::Write as _;

use super::{Graph, NodeKind};

/// The graph in Graphviz's language: `whereis-port 8080 -o dot | dot -Tpng > way.png`.
pub fn dot(graph: &Graph) -> String {
    let mut text = String::from("digraph \"whereis-port\" {\n  rankdir=LR;\n");
    let _ = writeln!(text, "  label=\"{}\";", escaped(&graph.title));
    text.push_str(
        "  node [shape=box, fontname=\"monospace\"];\n  edge [fontname=\"monospace\"];\n",
    );
    for (at, node) in graph.nodes.iter().enumerate() {
        let look = match node.kind {
            NodeKind::Sender => ", shape=ellipse",
            NodeKind::Port => ", style=bold",
            NodeKind::Step => "",
            NodeKind::End => ", style=rounded",
            NodeKind::Nothing => ", style=dashed",
        };
        let lines: Vec<String> = node.lines.iter().map(|line| escaped(line)).collect();
        let _ = writeln!(text, "  n{at} [label=\"{}\"{look}];", lines.join("\\n"));
    }
    for edge in &graph.edges {
        let mut look: Vec<String> = Vec::new();
        if !edge.label.is_empty() {
            look.push(format!("label=\"{}\"", escaped(&edge.label)));
        }
        match edge.open {
            Some(true) => {}
            Some(false) => look.push("style=dashed, arrowhead=tee".to_owned()),
            None => look.push("style=dotted".to_owned()),
        }
        let look = if look.is_empty() { String::new() } else { format!(" [{}]", look.join(", ")) };
        let _ = writeln!(text, "  n{} -> n{}{look};", edge.from, edge.to);
    }
    text.push_str("}\n");
    text
}

/// A text between double quotes. Graphviz takes what stands between `&` and `;` for a character.
fn escaped(text: &str) -> String {
    let text = crate::clean(text);
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('&', "&amp;")
}
