use super::*;
use crate::fixtures::{self, host, listing};
use whereis_port_model::escape::is_unsafe;

const STYLE: Style = Style::PLAIN;

fn graph(answer: Answer) -> Graph {
    Graph::of_answers(&[answer], &host(), &STYLE)
}

#[test]
fn each_form_of_an_answer_and_of_a_list() {
    let published = graph(fixtures::published());
    insta::assert_snapshot!("published_dot", dot(&published));
    insta::assert_snapshot!("published_mermaid", mermaid(&published));
    insta::assert_snapshot!("published_svg", svg(&published));
    let list = Graph::of_list(&listing(), &host(), &STYLE);
    insta::assert_snapshot!("list_dot", dot(&list));
}

#[test]
fn every_edge_has_its_ends_and_every_answer_a_picture() {
    for (name, answer) in fixtures::all() {
        let graph = graph(answer);
        assert!(!graph.nodes.is_empty(), "{name}");
        for edge in &graph.edges {
            assert!(edge.from.max(edge.to) < graph.nodes.len() && edge.from != edge.to, "{name}");
        }
        assert!(svg(&graph).ends_with("</svg>\n"), "{name}");
    }
}

#[test]
fn names_are_text_in_every_form() {
    let (mut hostile, host, _) = fixtures::hostile();
    let evil = "\"]; evil --> n0 <script>&#60;\\n`\u{202e}";
    for hop in hostile.paths.iter_mut().flat_map(|path| &mut path.hops) {
        hop.detail = evil.to_owned();
    }
    let graph = Graph::of_answers(&[hostile], &host, &STYLE);
    for text in [dot(&graph), mermaid(&graph), svg(&graph)] {
        assert_eq!(text.chars().find(|c| *c != '\n' && is_unsafe(*c)), None, "{text:?}");
    }
    assert!(!svg(&graph).contains("<script") && !mermaid(&graph).contains("<script"));
    // Whatever is between quotes has no quote, and no end of its line.
    let mermaid = mermaid(&graph);
    assert!(mermaid.lines().skip(1).all(|line| matches!(line.matches('"').count(), 0 | 2)));
    for line in dot(&graph).lines() {
        let bare = line.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(bare.matches('"').count() % 2, 0, "{line}");
    }
}

#[test]
fn three_hundred_ways_are_one_of_their_kind() {
    let mut answer = fixtures::published();
    let path = answer.paths.remove(0);
    answer.paths = vec![path; 300];
    let text = dot(&graph(answer));
    assert!(text.contains("300 × kube-apiserver") && text.lines().count() < 20, "{text}");
}
