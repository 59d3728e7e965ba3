//! A graph as a flowchart of Mermaid, which GitHub and GitLab draw in Markdown.

use std::fmt::Write as _;

use super::{Graph, NodeKind};

/// The graph in Mermaid's language.
pub fn mermaid(graph: &Graph) -> String {
    let mut text = String::from("flowchart LR\n");
    for (at, node) in graph.nodes.iter().enumerate() {
        let (open, close) = match node.kind {
            NodeKind::Sender => ("([", "])"),
            NodeKind::Port | NodeKind::Step => ("[", "]"),
            NodeKind::End => ("(", ")"),
            NodeKind::Nothing => ("{{", "}}"),
        };
        let lines: Vec<String> = node.lines.iter().map(|line| escaped(line)).collect();
        let _ = writeln!(text, "  n{at}{open}\"{}\"{close}", lines.join("<br/>"));
    }
    for edge in &graph.edges {
        let arrow = match edge.open {
            Some(true) => "-->",
            Some(false) => "--x",
            None => "-.->",
        };
        let label = match edge.label.as_str() {
            "" => String::new(),
            label => format!("|\"{}\"|", escaped(label)),
        };
        let _ = writeln!(text, "  n{} {arrow}{label} n{}", edge.from, edge.to);
    }
    text
}

/// A text between double quotes: what could be more than text to Mermaid, Markdown or HTML stands
/// as the number of its character.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in crate::clean(text).chars() {
        match c {
            c if c.is_alphanumeric() || " .,:/-_()[]%+=…×→".contains(c) => safe.push(c),
            c => {
                let _ = write!(safe, "#{};", u32::from(c));
            }
        }
    }
    safe
}
