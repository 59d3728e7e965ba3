//! What keys, rows and events make of the screen.

use crossterm::event::{KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::events::EventRow;
use super::ports::{Clock, Column, Delta, Differ, GroupBy, ON_SCREEN, TableLine};
use super::*;
use crate::tui::fixtures::row;
use crate::tui::keys::KeyPress;
use crate::tui::row::Row;
use whereis_port_model::{EventKind, Port};

fn clock(now: u64) -> Clock {
    Clock { now, wall: 1_000_000 + now / 1000 }
}

fn some_rows() -> Vec<Row> {
    vec![
        row(443, "nginx", Some("web")),
        row(2379, "etcd", Some("cluster1-control-plane")),
        row(6443, "kube-apiserver", Some("cluster1-control-plane")),
        row(22, "sshd", None),
    ]
}

fn with(rows: Vec<Row>) -> State {
    let mut state = State::new(Config::default(), Depth::None, true, (80, 24));
    let delta = Delta { put: rows, gone: Vec::new() };
    state.update(Message::Rows(delta, Box::default()), clock(0));
    state
}

fn state() -> State {
    with(some_rows())
}

/// Presses keys, with a moment between them, and gives what is to be done.
fn press(state: &mut State, keys: &str) -> Vec<Effect> {
    let mut effects = Vec::new();
    for key in keys.split(' ') {
        let key = KeyPress::parse(key).unwrap().event();
        let now = Clock { now: state.clock.now + 10, ..state.clock };
        effects = state.update(Message::Key(key), now);
    }
    effects
}

fn type_in(state: &mut State, text: &str) {
    for c in text.chars() {
        let key = KeyEvent::new(crossterm::event::KeyCode::Char(c), KeyModifiers::NONE);
        state.update(Message::Key(key), state.clock);
    }
}

/// The ports that are shown, heads of groups in brackets.
fn shown(state: &State) -> Vec<String> {
    let name = |item: &TableLine| match item {
        TableLine::Group { name, count, folded } => {
            format!("[{name} {count}{}]", if *folded { " folded" } else { "" })
        }
        TableLine::Row(at) => state.ports.rows[*at].row.key.port.to_string(),
    };
    state.ports.shown.iter().map(name).collect()
}

fn selected(state: &State) -> u16 {
    state.ports.selected().map_or(0, |live| live.row.key.port.0)
}

#[test]
fn rows_are_sorted_and_the_selection_follows_its_row() {
    let mut state = state();
    assert_eq!(shown(&state), ["22", "443", "2379", "6443"]);
    press(&mut state, "j j");
    assert_eq!(selected(&state), 2379);
    press(&mut state, "S");
    assert_eq!((shown(&state)[0].as_str(), selected(&state)), ("6443", 2379));
    state.command("sort process");
    assert_eq!(shown(&state), ["2379", "6443", "443", "22"]);
    assert_eq!(selected(&state), 2379);
    press(&mut state, "G");
    assert_eq!(selected(&state), 22);
    press(&mut state, "home");
    assert_eq!(selected(&state), 2379);
}

#[test]
fn what_has_nothing_in_a_column_comes_last_whichever_way_it_is_sorted() {
    let mut state = state();
    for order in ["", ":desc"] {
        state.command(&format!("sort container{order}"));
        assert_eq!(shown(&state).last().unwrap(), "22", "{order}");
    }
    let keys: Vec<String> = ON_SCREEN.iter().map(|c| c.title().to_lowercase()).collect();
    for key in keys {
        state.command(&format!("sort {key}:desc"));
        assert_eq!(state.message, None, "{key}");
        assert_eq!(shown(&state).len(), 4, "{key}");
    }
}

#[test]
fn a_new_row_is_new_and_a_gone_one_stays_for_a_while() {
    let mut state = state();
    let delta =
        Delta { put: vec![row(8080, "python3", None)], gone: vec![some_rows()[0].key.clone()] };
    state.update(Message::Rows(delta, Box::default()), clock(1_000));
    let life = |state: &State, port: u16, now: u64| {
        let live = state.ports.rows.iter().find(|live| live.row.key.port == Port(port));
        live.map(|live| format!("{:?}", live.life(now)))
    };
    assert_eq!(life(&state, 8080, 1_000).as_deref(), Some("New"));
    assert_eq!(life(&state, 8080, 7_000).as_deref(), Some("Live"));
    assert_eq!(life(&state, 22, 1_000).as_deref(), Some("Live"), "it was there from the start");
    assert_eq!(life(&state, 443, 1_000).as_deref(), Some("Gone"));
    assert_eq!(state.ports.count(), 4);
    // n goes from one to the next that has changed.
    press(&mut state, "n");
    assert_eq!(selected(&state), 443);
    press(&mut state, "n");
    assert_eq!(selected(&state), 8080);
    state.update(Message::Tick, clock(30_000));
    assert!(shown(&state).contains(&"443".to_owned()), "it stays for 30 s");
    state.update(Message::Tick, clock(31_000));
    assert!(!shown(&state).contains(&"443".to_owned()));
    assert_eq!(selected(&state), 8080);
}

#[test]
fn a_row_that_comes_back_is_not_gone() {
    let mut state = state();
    let key = some_rows()[0].key.clone();
    let gone = Delta { put: Vec::new(), gone: vec![key] };
    state.update(Message::Rows(gone, Box::default()), clock(1_000));
    let back = Delta { put: vec![some_rows().remove(0)], gone: Vec::new() };
    state.update(Message::Rows(back, Box::default()), clock(2_000));
    assert_eq!((state.ports.rows.len(), state.ports.count()), (4, 4));
}

#[test]
fn readings_are_compared() {
    let mut differ = Differ::default();
    let first = differ.diff(some_rows(), |_| true);
    assert_eq!((first.put.len(), first.gone.len()), (4, 0));
    assert_eq!(differ.diff(some_rows(), |_| true), Delta::default());
    // A reading of one port says nothing of the others.
    let of = |port: u16| move |key: &RowKey| key.port == Port(port);
    let other = differ.diff(vec![row(443, "caddy", None)], of(443));
    assert_eq!((other.put.len(), other.gone.len()), (1, 0));
    let counted = Row { conns: Some(7), ..row(443, "caddy", None) };
    assert_eq!(differ.diff(vec![counted], of(443)).put.len(), 1);
    let uncounted = differ.diff(vec![row(443, "caddy", None)], of(443));
    assert_eq!(uncounted, Delta::default(), "what was counted stays");
    let gone = differ.diff(Vec::new(), of(443));
    assert_eq!((gone.put.len(), gone.gone.len()), (0, 1));
    assert_eq!(differ.diff(some_rows(), |_| true).put.len(), 1);
}

#[test]
fn groups_fold_and_cycle() {
    let mut state = state();
    press(&mut state, "g g");
    assert_eq!(state.ports.group, Some(GroupBy::Container));
    assert_eq!(
        shown(&state),
        [
            "[(no container) 1]",
            "22",
            "[cluster1-control-plane 2]",
            "2379",
            "6443",
            "[web 1]",
            "443"
        ]
    );
    state.ports.select(4);
    press(&mut state, "space");
    assert_eq!(shown(&state)[2], "[cluster1-control-plane 2 folded]");
    assert_eq!(shown(&state).len(), 5);
    // Enter on the head of a group unfolds it.
    press(&mut state, "enter");
    assert_eq!(shown(&state).len(), 7);
    press(&mut state, "z");
    assert_eq!(shown(&state).len(), 3);
    press(&mut state, "z");
    assert_eq!(shown(&state).len(), 7);
    press(&mut state, "g g g g g g");
    assert_eq!(state.ports.group, None);
}

#[test]
fn a_filter_works_while_it_is_typed_and_esc_undoes_it() {
    let mut state = state();
    press(&mut state, "/");
    type_in(&mut state, "kube");
    assert_eq!(shown(&state), ["6443"]);
    press(&mut state, "enter");
    assert_eq!((shown(&state).len(), state.input.is_some()), (1, false));
    // Keys are keys again.
    press(&mut state, "/ esc");
    assert_eq!(shown(&state), ["6443"], "esc gives up typing, not the filter before");
    press(&mut state, "esc");
    assert_eq!(shown(&state).len(), 4);
    press(&mut state, "/");
    type_in(&mut state, "colour:red");
    assert!(state.ports.filter.wrong.is_some());
}

#[test]
fn switches_leave_out_what_they_say() {
    let mut state = state();
    press(&mut state, "c");
    assert_eq!(shown(&state), ["443", "2379", "6443"]);
    press(&mut state, "u");
    assert_eq!(shown(&state).len(), 0);
    press(&mut state, "t");
    assert_eq!(state.ports.only.words(), ["TCP", "containers"]);
    press(&mut state, "t c l");
    assert_eq!(shown(&state).len(), 0, "nothing is bound to loopback");
    press(&mut state, "l i i");
    assert_eq!((shown(&state).len(), state.ports.only.words()), (0, vec!["IPv6"]));
    press(&mut state, "i");
    assert_eq!(shown(&state).len(), 4);
}

#[test]
fn enter_asks_for_the_path_at_once_and_the_pane_beside_waits() {
    let mut state = state();
    // Narrow: nothing shows a path, nothing is asked.
    assert_eq!(press(&mut state, "j"), []);
    let effects = press(&mut state, "enter");
    let key = state.ports.selected().unwrap().row.key.clone();
    let question = Question { port: Port(443), proto: Some(Proto::Tcp), row: Some(key) };
    assert_eq!(effects, [Effect::Ask(question)]);
    assert_eq!(state.view, View::Path);
    // Asked once.
    assert_eq!(state.update(Message::Tick, clock(5_000)), []);

    let mut wide = state_of((200, 50));
    let first = wide.update(Message::Tick, clock(10));
    assert!(first.is_empty(), "the first was asked with the rows: {first:?}");
    assert_eq!(press(&mut wide, "j j"), [], "a key that is held down asks once");
    let later = Clock { now: wide.clock.now + 200, ..wide.clock };
    let effects = wide.update(Message::Tick, later);
    assert!(matches!(&effects[..], [Effect::Ask(q)] if q.port == Port(2379)), "{effects:?}");
}

fn state_of(size: (u16, u16)) -> State {
    let mut state = State::new(Config::default(), Depth::None, true, size);
    let delta = Delta { put: some_rows(), gone: Vec::new() };
    let effects = state.update(Message::Rows(delta, Box::default()), clock(0));
    assert!(matches!(&effects[..], [Effect::Ask(_)]), "{effects:?}");
    state
}

#[test]
fn commands_do_what_they_say_or_say_what_is_wrong() {
    let mut state = state();
    let run = |state: &mut State, text: &str| {
        state.message = None;
        press(state, ":");
        type_in(state, text);
        press(state, "enter")
    };
    assert_eq!(run(&mut state, "q"), [Effect::Quit]);
    run(&mut state, "port 6443");
    assert_eq!((selected(&state), state.view), (6443, View::Ports));
    run(&mut state, "22");
    assert_eq!(selected(&state), 22);
    // A port that has no row is asked for all the same.
    let effects = run(&mut state, "port 30518/tcp");
    let question = Question { port: Port(30518), proto: Some(Proto::Tcp), row: None };
    assert_eq!((effects, state.view), (vec![Effect::Ask(question)], View::Path));
    run(&mut state, "netns host");
    assert_eq!((shown(&state).len(), state.view), (4, View::Ports));
    run(&mut state, "netns nowhere");
    assert_eq!(shown(&state).len(), 0);
    run(&mut state, "port 443");
    assert_eq!(selected(&state), 443, "what is filtered out is there all the same");
    for (command, message) in [
        ("port http", "\"http\" is no port"),
        ("port 0", "is no port"),
        ("port 80/sctp", "neither tcp nor udp"),
        ("netns", "needs a name"),
        ("sort colour", "no column \"colour\": port, proto"),
        ("group sex", "no group \"sex\": netns, container"),
        ("frobnicate", "no command \"frobnicate\": port, netns"),
    ] {
        assert_eq!(run(&mut state, command), [], "{command}");
        let said = state.message.clone().unwrap_or_default().0;
        assert!(said.contains(message), "{command}: {said}");
    }
    let effects = run(&mut state, "export rows.txt");
    let [Effect::Export { name, text }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(name, "rows.txt");
    assert!(text.contains("6443/tcp 0.0.0.0 kube-apiserver pid 6444"), "{text}");
}

#[test]
fn while_it_is_paused_nothing_moves() {
    let mut state = state();
    press(&mut state, "p");
    let delta = Delta { put: vec![row(8080, "python3", None)], gone: Vec::new() };
    state.update(Message::Rows(delta, Box::default()), clock(1_000));
    state.update(Message::Events(vec![event(EventKind::Listen, 8080, 1)]), clock(1_000));
    assert_eq!(shown(&state).len(), 4);
    assert_eq!(state.events.page(10).len(), 0);
    press(&mut state, "p");
    assert_eq!(shown(&state).len(), 5);
    assert_eq!(state.events.page(10).len(), 1);
}

#[test]
fn what_comes_and_goes_while_it_is_paused_does_not_pile_up() {
    let mut state = state();
    press(&mut state, "p");
    let of = |put: &[u16], gone: &[u16]| Delta {
        put: put.iter().map(|port| row(*port, "flap", None)).collect(),
        gone: gone.iter().map(|port| row(*port, "flap", None).key).collect(),
    };
    // One that is shown goes, and comes again; the others were never seen.
    for port in 10_000..11_000 {
        for delta in [of(&[port], &[]), of(&[], &[22, port]), of(&[22], &[])] {
            state.update(Message::Rows(delta, Box::default()), clock(1_000));
        }
    }
    let held = state.held.as_ref().unwrap();
    assert_eq!((held.put.len(), held.gone.len()), (1, 0));
    state.update(Message::Rows(of(&[9_000], &[22]), Box::default()), clock(1_000));
    press(&mut state, "p");
    assert_eq!(shown(&state), ["22", "443", "2379", "6443", "9000"]);
    assert!(state.ports.rows.iter().any(|live| live.row.key.port.0 == 22 && live.gone.is_some()));
}

fn event(kind: EventKind, port: u16, ms: u64) -> EventRow {
    EventRow {
        at: ms * 1_000_000,
        kind,
        proto: Proto::Tcp,
        netns: None,
        port: Some(Port(port)),
        process: "flap".to_owned(),
        container: "-".to_owned(),
        inode: Some(u64::from(port)),
        line: format!("00:00:00 {} tcp 0.0.0.0:{port} flap\n", kind.as_str()),
    }
}

#[test]
fn events_are_followed_filtered_and_scrolled() {
    let mut state = state();
    press(&mut state, "3");
    let events = (1..=100).map(|port| event(EventKind::Listen, port, u64::from(port))).collect();
    state.update(Message::Events(events), clock(10));
    let last = |state: &State| state.events.page(20).last().unwrap().port.unwrap().0;
    assert_eq!(last(&state), 100);
    press(&mut state, "k k");
    assert_eq!(last(&state), 98);
    // What is looked at stays while more comes.
    state.update(Message::Events(vec![event(EventKind::Close, 100, 200)]), clock(20));
    assert_eq!(last(&state), 98);
    press(&mut state, "G");
    assert_eq!(state.events.page(20).last().unwrap().kind, EventKind::Close);
    press(&mut state, "/");
    type_in(&mut state, "port:50-52");
    assert_eq!(state.events.page(20).len(), 3);
}

#[test]
fn the_history_counts_what_came_and_went() {
    let mut state = state();
    let mut events = Vec::new();
    for round in 0..3 {
        events.push(event(EventKind::Listen, 9000, 100 * round));
        events.push(event(EventKind::Close, 9000, 100 * round + 5 + round));
    }
    events.push(event(EventKind::Listen, 9001, 1_000));
    events.push(event(EventKind::Close, 7, 1_000));
    state.update(Message::Events(events), clock(10));
    let lived = state.events.lived();
    let counts: Vec<_> = lived.iter().map(|l| (l.port.1.0, l.came, l.went)).collect();
    assert_eq!(counts, [(9001, 1, 0), (9000, 3, 3)]);
    let (last, shortest) = (lived[1].last.unwrap(), lived[1].shortest.unwrap());
    assert_eq!((last, shortest), (7_000_000, 5_000_000));
}

#[test]
fn events_do_not_pile_up() {
    let mut state = state();
    for round in 0..20 {
        let events = (0..1000).map(|port| event(EventKind::Connect, port, round)).collect();
        state.update(Message::Events(events), clock(round));
    }
    assert_eq!(state.events.total(), 20_000);
    assert_eq!(state.events.page(usize::MAX).len(), 5_000);
}

#[test]
fn the_mouse_selects_opens_sorts_and_changes_the_view() {
    let mut state = state();
    let at = |state: &mut State, kind, column, row| {
        let mouse = MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
        state.update(Message::Mouse(mouse), state.clock)
    };
    let click = MouseEventKind::Down(MouseButton::Left);
    at(&mut state, click, 10, 5);
    assert_eq!(selected(&state), 2379, "the third row is on the sixth line");
    at(&mut state, click, 25, 2);
    assert_eq!(state.ports.sort, Column::Process);
    at(&mut state, click, 25, 2);
    assert!(state.ports.descending);
    at(&mut state, MouseEventKind::ScrollDown, 10, 10);
    assert_eq!(state.ports.selected, 3);
    at(&mut state, click, 10, 20);
    assert_eq!(state.ports.selected, 3, "below the rows there is nothing");
    at(&mut state, click, 20, 1);
    assert_eq!(state.view, View::Events);
    at(&mut state, click, 2, 1);
    at(&mut state, click, 10, 3);
    let effects = at(&mut state, click, 10, 3);
    assert_eq!(state.view, View::Path);
    assert!(matches!(&effects[..], [Effect::Ask(_)]), "{effects:?}");
}

#[test]
fn ctrl_c_always_ends_it() {
    let config = Config::parse("[keys]\nquit = []\n").unwrap();
    let mut state = State::new(config, Depth::None, true, (80, 24));
    assert_eq!(press(&mut state, "q"), []);
    assert_eq!(press(&mut state, "ctrl-c"), [Effect::Quit]);
}

#[test]
fn what_is_copied_is_the_row() {
    let mut state = state();
    press(&mut state, "j");
    let effects = press(&mut state, "y");
    let [Effect::Copy(text)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(text, "443/tcp 0.0.0.0 nginx pid 444 container web netns host");
    let effects = press(&mut state, "Y");
    let [Effect::Copy(json)] = &effects[..] else { panic!("{effects:?}") };
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!((&json["port"], &json["container"]), (&443.into(), &"web".into()));
}

#[test]
fn what_would_mend_it_is_copied_as_a_command() {
    let mut state = state();
    let mut answer = crate::fixtures::published();
    let command = whereis_port_model::Command::new("kubectl describe pod").name("a b");
    for reach in &mut answer.reach {
        reach.fix = Some(command.clone().into());
    }
    let question = super::Question { port: Port(20_971), proto: None, row: None };
    let host = crate::fixtures::host();
    state.answered =
        Some(Box::new(super::Answered { question, answer, host, sources: Vec::new() }));
    press(&mut state, "2");
    assert_eq!(press(&mut state, "f"), [Effect::Copy("kubectl describe pod 'a b'".to_owned())]);
}

#[test]
fn a_storm_of_sizes_is_no_panic() {
    let mut state = state();
    for view in ["1", "2", "3", "4", "?"] {
        press(&mut state, view);
        for size in 0..300 {
            let (width, height) = (size * 7 % 260, size * 3 % 70);
            state.update(Message::Resize(width, height), state.clock);
            press(&mut state, "j k pgdn pgup G home");
            let area = ratatui::layout::Rect::new(0, 0, width, height);
            let mut buffer = ratatui::buffer::Buffer::empty(area);
            crate::tui::render::draw(&state, &mut buffer);
        }
    }
}

#[test]
fn the_screen_keeps_the_selection_in_sight_among_thousands() {
    let rows = (1..=8_000).map(|port| row(port, "server", None)).collect();
    let mut state = with(rows);
    for keys in ["G", "pgup", "home", "pgdn pgdn k"] {
        press(&mut state, keys);
        let (top, at) = (state.ports.top, state.ports.selected);
        assert!((top..top + 20).contains(&at), "{keys}: {top} {at}");
    }
}
