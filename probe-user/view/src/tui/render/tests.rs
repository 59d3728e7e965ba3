//! Screens of rows that are written down. Screens of recorded nodes are with the
//! end-to-end tests.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use super::draw;
use crate::tui::config::Config;
use crate::tui::fixtures::row;
use crate::tui::keys::KeyPress;
use crate::tui::row::Row;
use crate::tui::state::events::EventRow;
use crate::tui::state::ports::{Clock, Delta};
use crate::tui::state::{Message, State};
use crate::tui::theme::Depth;
use whereis_port_model::{EventKind, HopKind, Port, Proto};

const CLOCK: Clock = Clock { now: 10_000, wall: 1_000_400 };

fn rows() -> Vec<Row> {
    let mut target = row(20971, "docker-proxy", None);
    target.target = Some("172.18.0.4:6443 docker-proxy".into());
    let mut ruled = row(30518, "(kube-proxy, iptables)", None);
    ruled.kind = HopKind::Service;
    ruled.key.pid = None;
    ruled.key.inode = None;
    ruled.target = Some("10.244.0.5:80 nginx-app".into());
    let mut many = row(443, "nginx", Some("web"));
    many.conns = Some(1234);
    vec![target, ruled, many, row(6443, "kube-apiserver", Some("cluster1-control-plane/kube-api"))]
}

fn screen(size: (u16, u16), depth: Depth, unicode: bool) -> State {
    let mut state = State::new(Config::default(), depth, unicode, size);
    let first = Delta { put: rows(), gone: Vec::new() };
    state.update(Message::Rows(first, Box::default()), Clock { now: 0, ..CLOCK });
    let gone = rows().remove(0).key;
    let then = Delta { put: vec![row(8080, "python3", None)], gone: vec![gone] };
    state.update(Message::Rows(then, Box::default()), CLOCK);
    state
}

fn drawn(state: &State) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(state.size.0, state.size.1)).unwrap();
    terminal
        .draw(|frame| {
            draw(state, frame.buffer_mut());
        })
        .unwrap();
    terminal
}

fn press(state: &mut State, keys: &str) {
    for key in keys.split(' ') {
        state.update(Message::Key(KeyPress::parse(key).unwrap().event()), CLOCK);
    }
}

#[test]
fn the_table_at_each_size() {
    for size in [(80, 24), (120, 40), (240, 60)] {
        let state = screen(size, Depth::None, true);
        let name = format!("ports_{}x{}", size.0, size.1);
        insta::assert_snapshot!(name, drawn(&state).backend());
    }
}

#[test]
fn the_table_in_groups_and_in_ascii() {
    let mut state = screen((80, 14), Depth::None, true);
    press(&mut state, "g g space");
    insta::assert_snapshot!("grouped", drawn(&state).backend());
    let state = screen((80, 14), Depth::None, false);
    let text = drawn(&state).backend().to_string();
    assert!(text.is_ascii(), "{text}");
}

#[test]
fn the_events_and_their_history() {
    for size in [(80, 24), (120, 40), (240, 60)] {
        let mut state = screen(size, Depth::None, true);
        let line = |kind: EventKind, port: u16, at: u64| EventRow {
            at: at * 1_000_000,
            kind,
            proto: Proto::Tcp,
            netns: None,
            port: Some(Port(port)),
            process: "python3".to_owned(),
            container: "-".to_owned(),
            inode: Some(u64::from(port)),
            line: format!(
                "\u{1b}[2m08:32:19.866\u{1b}[0m  \u{1b}[32m{:<8}\u{1b}[0m  tcp  127.0.0.1:{port}  host  python3[18006]\n",
                kind.as_str()
            ),
        };
        let events = vec![
            line(EventKind::Listen, 8080, 1),
            line(EventKind::Close, 8080, 6),
            line(EventKind::Listen, 8081, 10),
        ];
        state.update(Message::Events(events), CLOCK);
        press(&mut state, "3");
        let name = format!("events_{}x{}", size.0, size.1);
        insta::assert_snapshot!(name, drawn(&state).backend());
        press(&mut state, "h");
        let name = format!("history_{}x{}", size.0, size.1);
        insta::assert_snapshot!(name, drawn(&state).backend());
    }
}

#[test]
fn the_help_has_every_key() {
    for size in [(80, 24), (120, 40), (240, 60)] {
        let mut state = screen(size, Depth::None, true);
        press(&mut state, "?");
        let name = format!("help_{}x{}", size.0, size.1);
        insta::assert_snapshot!(name, drawn(&state).backend());
    }
}

#[test]
fn what_is_typed_is_in_the_last_line_with_what_is_wrong() {
    let mut state = screen((80, 10), Depth::None, true);
    press(&mut state, "/ x : 1");
    let text = drawn(&state).backend().to_string();
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("\"/x:1  no key \"x\": port proto"), "{last}");
}

#[test]
fn a_screen_that_is_too_small_says_so() {
    let state = screen((30, 5), Depth::None, true);
    let text = drawn(&state).backend().to_string();
    assert!(text.contains("too small") && text.contains("40 x 8 at least"), "{text}");
}

#[test]
fn what_is_new_gone_and_selected_can_be_told_with_and_without_colours() {
    let look = |depth: Depth| {
        let state = screen((80, 24), depth, true);
        let terminal = drawn(&state);
        let buffer = terminal.backend().buffer().clone();
        // Rows: 443 selected, 6443, 8080 new, 20971 gone, 30518.
        let mark = |y: u16| buffer[(1, y)].symbol().to_owned();
        assert_eq!((mark(5), mark(6), mark(4)), ("+".into(), "x".into(), " ".into()));
        assert_eq!(buffer[(0, 3)].symbol(), ">");
        assert!(buffer[(5, 3)].modifier.contains(Modifier::REVERSED));
        assert!(buffer[(5, 6)].modifier.contains(Modifier::DIM));
        let is_plain =
            |cell: &ratatui::buffer::Cell| cell.fg == Color::Reset && cell.bg == Color::Reset;
        (buffer[(5, 5)].fg, buffer.content().iter().all(is_plain))
    };
    assert_eq!(look(Depth::Sixteen), (Color::Green, false));
    assert_eq!(look(Depth::None), (Color::Reset, true));
}

#[test]
fn nothing_untrusted_reaches_the_terminal_raw() {
    // Rows are made safe where they are made; here the rest that others choose.
    let mut state = screen((80, 24), Depth::None, true);
    state.update(Message::Paste("\u{1b}]0;owned\u{7}".to_owned()), CLOCK);
    press(&mut state, "/");
    state.update(Message::Paste("\u{1b}]0;owned\u{7}\nmore".to_owned()), CLOCK);
    state.update(Message::Say("\u{1b}[2J".to_owned()), CLOCK);
    let text = drawn(&state).backend().to_string();
    assert!(text.contains("/]0;owned"), "{text}");
    press(&mut state, "esc");
    let text = text + &drawn(&state).backend().to_string();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}
