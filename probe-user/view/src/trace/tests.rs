use crate::Style;
use crate::fixtures::{HOSTILE, dropped, events, hostile_event};
use whereis_port_model::escape::is_unsafe;
use whereis_port_model::{Gap, GapKind, Impact};

use super::*;

fn lines(style: &Style) -> String {
    events().iter().map(|traced| line(traced, style, Some(3600))).collect()
}

#[test]
fn events_line_up() {
    insta::assert_snapshot!("lines", lines(&Style::PLAIN));
    insta::assert_snapshot!("lines_ascii", lines(&Style { unicode: false, ..Style::PLAIN }));
}

#[test]
fn colours_do_not_move_the_columns() {
    let color = lines(&Style { color: true, ..Style::PLAIN });
    let mut plain = String::new();
    let mut rest = color.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    // Painted spaces at the end of a line are not cut.
    let trimmed: String = plain.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    assert_eq!(trimmed, lines(&Style::PLAIN));
}

#[test]
fn an_event_is_one_safe_line_whatever_its_names() {
    for style in [Style::PLAIN, Style { width: Some(100), ..Style::PLAIN }] {
        let text = line(&hostile_event(), &style, None);
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert_eq!(text.trim_end().chars().find(|c| is_unsafe(*c)), None, "{text:?}");
        assert!(text.starts_with("22:13:20.042Z  "), "{text:?}");
    }
}

#[test]
fn names_of_drops_are_safe_too() {
    let mut traced = dropped();
    let rule = format!("dropped by {HOSTILE}");
    traced.dropped_by = Some(whereis_port_model::DroppedBy::Rule(rule));
    if let Some(drop) = &mut traced.event.dropped {
        drop.device = Some(HOSTILE.to_owned());
        drop.reason = Some(HOSTILE.to_owned());
        drop.estimated = true;
    }
    let text = line(&traced, &Style::PLAIN, None);
    assert_eq!(text.matches('\n').count(), 1, "{text:?}");
    assert_eq!(text.trim_end().chars().find(|c| is_unsafe(*c)), None, "{text:?}");
    assert!(text.contains("about 3 SYNs (12 so far)"), "{text}");
}

#[test]
fn a_terminal_gets_long_names_shortened_and_a_file_whole() {
    let mut traced = events().remove(0);
    let name = "n".repeat(200);
    traced.netns.as_mut().unwrap().name = Some(whereis_port_model::NetnsName::Given(name.clone()));
    assert!(line(&traced, &Style::PLAIN, None).contains(&name));
    let shown = line(&traced, &Style { width: Some(100), ..Style::PLAIN }, None);
    assert!(shown.contains("nnn…") && !shown.contains(&"n".repeat(40)), "{shown}");
}

#[test]
fn the_header_says_what_is_watched_and_how() {
    let kinds = [EventKind::Listen, EventKind::Close];
    let plain = header(&kinds, &[], None, &Style::PLAIN);
    assert_eq!(plain, "watching listen, close on every port; Ctrl-C ends\n");
    let targets = ["80/tcp".to_owned(), "53".to_owned()];
    let compared = header(&kinds, &targets, Some(Duration::from_millis(500)), &Style::PLAIN);
    assert!(compared.starts_with("watching listen, close on 80/tcp, 53; "), "{compared}");
    assert!(compared.contains("\n~: found by comparing readings 500ms apart"), "{compared}");
}

#[test]
fn what_is_missing_is_said() {
    let missing = Gap::new(Impact::Port, GapKind::Ebpf, "refused").remedy("run as root");
    assert_eq!(gap(&missing, &Style::PLAIN), "not watched: eBPF: refused; run as root\n");
    assert_eq!(lost(1, &Style::PLAIN), "1 event lost\n");
    assert_eq!(lost(17, &Style::PLAIN), "17 events lost\n");
}

#[test]
fn the_summary_counts_by_kind() {
    let mut seen = Summary { watched: Duration::from_millis(3210), ..Summary::default() };
    assert_eq!(summary(&seen), "0 events; 0 lost; 3.2 s\n");
    for _ in 0..6 {
        seen.count(EventKind::Close);
        seen.count(EventKind::Listen);
    }
    seen.lost = 3;
    assert_eq!(summary(&seen), "12 events: 6 listen, 6 close; 3 lost; 3.2 s\n");
    assert_eq!(seen.events(), 12);
}
