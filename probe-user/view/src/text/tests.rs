use crate::fixtures::{self, host, sources, user_host};
use crate::layout::width;
use crate::style::Style;
use whereis_port_model::escape::is_unsafe;
use whereis_port_model::{Answer, End, Ending, Host, Path, Proto};

use super::{Detail, answers};

fn detail(verbose: bool) -> Detail {
    if verbose { Detail::Verbose } else { Detail::Usual }
}

fn at(width: usize) -> Style {
    Style { width: Some(width), ..Style::PLAIN }
}

fn show(answer: Answer, host: &Host, style: &Style, verbose: bool) -> String {
    answers(&[answer], host, style, detail(verbose), &sources())
}

/// The text without colours.
fn without_colour(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

#[test]
fn answers_at_80_and_120_columns() {
    for columns in [80, 120] {
        for (name, answer) in fixtures::all() {
            let text = show(answer, &host(), &at(columns), false);
            insta::assert_snapshot!(format!("{name}_{columns}"), text);
        }
    }
}

#[test]
fn without_a_width_nothing_is_cut_or_wrapped() {
    let text = show(fixtures::published(), &host(), &Style::PLAIN, false);
    insta::assert_snapshot!("published_pipe", text);
    assert!(!text.contains('…'), "{text}");
}

#[test]
fn verbose_shows_what_each_source_said() {
    insta::assert_snapshot!(
        "published_verbose",
        show(fixtures::published(), &host(), &at(100), true)
    );
}

#[test]
fn sorts_of_containers_are_named_where_known_and_zones_where_asked_for() {
    use whereis_port_model::ContainerKind;

    let text = |sort, verbose| {
        let mut answer = fixtures::published();
        for end in answer.paths.iter_mut().map(|path| &mut path.end) {
            if let Some(container) = end.containers.last_mut() {
                container.sort = sort;
            }
            if let Some(pod) = &mut end.pod {
                pod.zone = Some("eu-1a".to_owned());
            }
        }
        show(answer, &host(), &Style::PLAIN, verbose)
    };
    let plain = text(None, false);
    assert_eq!(text(Some(ContainerKind::Main), false), plain);
    for word in ["init container", "sidecar", "ephemeral container", "zone eu-1a"] {
        assert!(!plain.contains(word), "{plain}");
    }
    for (sort, word) in [
        (ContainerKind::Init, "3f2a9c4b5d6e · init container · containerd"),
        (ContainerKind::Sidecar, "3f2a9c4b5d6e · sidecar · containerd"),
        (ContainerKind::Ephemeral, "3f2a9c4b5d6e · ephemeral container · containerd"),
    ] {
        let text = text(Some(sort), false);
        assert!(text.contains(word), "{text}");
    }
    let wide = text(None, true);
    assert!(wide.contains(", zone eu-1a"), "{wide}");
}

#[test]
fn an_ascii_terminal_gets_an_ascii_tree() {
    let ascii = Style { unicode: false, ..at(80) };
    insta::assert_snapshot!("branching_ascii", show(fixtures::branching(), &host(), &ascii, false));
    let (hostile, host, _) = fixtures::hostile();
    assert!(show(hostile, &host, &ascii, true).is_ascii());
}

#[test]
fn a_user_is_told_to_ask_as_root() {
    let text = show(fixtures::unknown(), &user_host(), &at(80), false);
    assert!(text.contains("sudo whereis-port 30518"), "{text}");
    let inside = Host { init_pid_ns: false, ..host() };
    let text = show(fixtures::unknown(), &inside, &at(80), false);
    assert!(text.contains("on the host itself"), "{text}");
}

#[test]
fn not_found_is_said_with_how_much_was_looked_at() {
    let text = show(fixtures::not_found(), &host(), &Style::PLAIN, false);
    assert!(text.contains("any of the 3 network namespaces"), "{text}");
    let text = answers(&[fixtures::not_found()], &host(), &Style::PLAIN, Detail::Usual, &[]);
    assert!(text.contains("any network namespace"), "{text}");
}

#[test]
fn unknown_never_says_that_nothing_is_there() {
    let text = show(fixtures::unknown(), &host(), &Style::PLAIN, false);
    assert!(text.contains("something may be there") && !text.contains("nothing listens"), "{text}");
}

#[test]
fn equal_ends_are_written_once() {
    let text = show(fixtures::several_owners(), &host(), &at(80), false);
    assert_eq!(text.matches("pid 815").count(), 1, "{text}");
    assert!(text.contains("the same process as 0.0.0.0:80/tcp above"), "{text}");
}

/// The first line of the text for one path.
fn headline(path: Path) -> String {
    let answer = Answer { paths: vec![path], ..fixtures::vxlan() };
    show(answer, &host(), &Style::PLAIN, false).lines().next().unwrap().to_owned()
}

#[test]
fn the_first_line_says_what_is_so() {
    let at = || fixtures::netns(fixtures::HOST, "host");
    let listener = |address: &str, port, inode| {
        let mut hop = fixtures::listener(at(), Proto::Tcp, address, port, "socat, pid 12");
        hop.socket.as_mut().unwrap().inode = inode;
        hop
    };
    let python = || fixtures::process(77, None, &["python3"]);
    let end = |ending, processes| End { ending, processes, ..End::default() };
    let to = || fixtures::forward("10.99.7.2", 28081, "socat");
    let path = |hops, end| Path { hops, end, ..Path::default() };
    let hops = vec![listener("127.0.0.1", 80, 1), to(), listener("0.0.0.0", 28081, 2)];
    let line = headline(path(hops, end(Ending::Process, vec![python()])));
    assert_eq!(line, "80/tcp on laptop is served by python3, pid 77");
    let hops = vec![listener("127.0.0.1", 80, 1), to()];
    let line = headline(path(hops.clone(), end(Ending::Unknown, Vec::new())));
    assert_eq!(line, "80/tcp on laptop is held by an unknown owner");
    let line = headline(path(hops.clone(), end(Ending::NotReadable, Vec::new())));
    assert_eq!(line, "80/tcp on laptop is held by a process that can't be read from here");
    let why = Some("nothing listens on 28081/tcp at 10.99.7.2".to_owned());
    let line = headline(path(hops, End { why, ..end(Ending::Nothing, Vec::new()) }));
    assert_eq!(
        line,
        "80/tcp on laptop is open, but leads to nothing: nothing listens on 28081/tcp at 10.99.7.2"
    );
    let back = fixtures::forward("127.0.0.1", 80, "socat");
    let hops = vec![listener("127.0.0.1", 80, 1), back, listener("127.0.0.1", 80, 1)];
    let socat = fixtures::process(12, None, &["socat"]);
    let line = headline(path(hops, end(Ending::Unknown, vec![socat])));
    assert_eq!(line, "80/tcp on laptop leads in a circle");
    // Only the node's own namespace goes without saying.
    let mut other = listener("127.0.0.1", 80, 1);
    let name = Some(whereis_port_model::NetnsName::Given("host".to_owned()));
    other.netns =
        Some(whereis_port_model::NetnsRef { id: whereis_port_model::NetnsId::Inode(7), name });
    let line = headline(path(vec![other], end(Ending::Unknown, Vec::new())));
    assert!(line.starts_with("80/tcp in \"host\" on laptop is held by"), "{line}");
}

#[test]
fn the_first_line_says_who_reaches_it() {
    use whereis_port_model::Vantage::{self, Containers, Loopback, Node, Outside};

    let line = |said: &[(Vantage, Option<bool>)]| {
        let mut answer = fixtures::vxlan();
        let one =
            |(from, is): &(Vantage, Option<bool>)| fixtures::reach(*from, None, *is, "", None);
        answer.reach = said.iter().map(one).collect();
        let text = show(answer, &host(), &Style::PLAIN, false);
        let line = text.lines().next().unwrap().to_owned();
        line.split_once("; ").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
    };
    let (yes, no) = (Some(true), Some(false));
    for (said, expected) in [
        (&[(Loopback, yes), (Node, yes)][..], "reachable from this host"),
        (&[(Loopback, yes), (Node, no), (Outside, no)], "reachable by loopback only"),
        (
            &[(Loopback, no), (Node, yes), (Outside, no), (Containers, yes)],
            "reachable from this host and containers here, not from loopback or other machines",
        ),
        (
            &[(Loopback, no), (Node, no), (Outside, no)],
            "not reachable from this host or other machines",
        ),
        (
            &[(Loopback, yes), (Node, yes), (Outside, None)],
            "reachable from this host; not known whether from other machines",
        ),
        (&[(Outside, None)], "not known whether from other machines"),
        // One address is enough.
        (&[(Outside, no), (Outside, yes)], "reachable from other machines"),
        (&[], ""),
    ] {
        assert_eq!(line(said), expected, "{said:?}");
    }
}

#[test]
fn some_are_not_all() {
    use whereis_port_model::{Reach, Vantage};

    let line = |said: &[(&[&str], bool)]| {
        let mut answer = fixtures::vxlan();
        let one = |(by, is): &(&[&str], bool)| Reach {
            by: by.iter().map(|name| (*name).to_owned()).collect(),
            ..fixtures::reach(Vantage::Containers, None, Some(*is), "", None)
        };
        answer.reach = said.iter().map(one).collect();
        let text = show(answer, &host(), &Style::PLAIN, false);
        text.lines().next().unwrap().split_once("; ").map(|(_, rest)| rest.to_owned()).unwrap()
    };
    let some = "reachable from some containers here";
    assert_eq!(line(&[(&["br1"], true), (&["br2"], false)]), some);
    // Each of them by one address.
    let all = "reachable from containers here";
    assert_eq!(line(&[(&["br1"], true), (&["br1", "br2"], false), (&["br2"], true)]), all);
    assert_eq!(line(&[(&[], true), (&["br2"], false)]), all);
    assert_eq!(line(&[(&["br2"], false)]), "not reachable from containers here");
}

#[test]
fn what_is_wrong_stands_before_the_way_and_a_fix_once() {
    use whereis_port_model::{Finding, FindingCode, Vantage};

    let mut answer = fixtures::nothing_behind();
    let fix = "start it";
    answer.findings = vec![Finding {
        code: FindingCode::OtherAddress,
        what: "it listens elsewhere".into(),
        cause: Some("it was told so".into()),
        fix: Some(fix.into()),
        evidence: Vec::new(),
    }];
    answer.reach = [Vantage::Loopback, Vantage::Outside]
        .map(|from| fixtures::reach(from, None, Some(false), "nothing listens", Some(fix)))
        .into();
    let text = show(answer.clone(), &host(), &Style::PLAIN, false);
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
    assert!(at("noticed:") < at("cause:     likely it was told so"));
    assert!(at("cause:") < at("fix:") && at("fix:") < at("0.0.0.0:30001/tcp"), "{text}");
    assert_eq!(text.matches(fix).count(), 1, "{text}");
    assert_eq!(text.matches("loopback, other machines").count(), 1, "{text}");
    // Without the finding it stands behind the table, once for both.
    answer.findings.clear();
    let text = show(answer, &host(), &Style::PLAIN, false);
    assert_eq!(text.matches(fix).count(), 1, "{text}");
}

#[test]
fn plain_text_draws_nothing() {
    for (name, answer) in fixtures::all() {
        let text = show(answer, &host(), &at(60).plain(), false);
        let drawn = text.chars().find(|c| "├└│→←·…⇒─".contains(*c));
        assert_eq!(drawn, None, "{name}: {text}");
    }
    insta::assert_snapshot!(
        "published_plain",
        show(fixtures::published(), &host(), &at(60).plain(), false)
    );
}

#[test]
fn sockets_that_share_a_port_are_one_block() {
    let path = |inode, pid, port| {
        let at = fixtures::netns(fixtures::HOST, "host");
        let detail = format!("nginx, pid {pid}");
        let mut hop = fixtures::listener(at, Proto::Tcp, "0.0.0.0", port, &detail);
        hop.socket.as_mut().unwrap().inode = inode;
        let processes = vec![fixtures::process(pid, None, &["nginx"])];
        let end = End { ending: Ending::Process, processes, ..End::default() };
        Path { hops: vec![hop], end, ..Path::default() }
    };
    let paths = vec![path(5, 70, 80), path(6, 71, 80), path(7, 72, 80), path(8, 70, 81)];
    let text = show(Answer { paths, ..fixtures::vxlan() }, &host(), &Style::PLAIN, false);
    assert_eq!(text.lines().filter(|line| line.contains("0.0.0.0:80/tcp")).count(), 1, "{text}");
    assert!(text.contains("3 sockets share this port (SO_REUSEPORT), each takes about 1 of 3 connections unless a program chooses: inodes 5, 6, 7\n"), "{text}");
    for pid in ["pid 70", "2 × nginx, pid 71, 72"] {
        assert!(text.contains(pid), "{text}");
    }
    // The other port is another block, though one of the processes has it too.
    assert!(text.starts_with("80/tcp and 81/tcp on laptop are served by"), "{text}");
    assert!(!text.contains("above"), "{text}");
}

#[test]
fn several_answers_are_apart() {
    let both = [fixtures::vxlan(), fixtures::not_found()];
    let text = answers(&both, &host(), &Style::PLAIN, Detail::Usual, &sources());
    assert!(text.contains("\n\n30518/tcp: nothing"), "{text}");
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
}

#[test]
fn colour_changes_nothing_but_colour() {
    for (_, answer) in fixtures::all() {
        for style in [at(80), Style::PLAIN] {
            let color = Style { color: true, ..style };
            let coloured = show(answer.clone(), &host(), &color, true);
            assert!(coloured.contains("\u{1b}["));
            // Spaces at the end of a line may be inside a colour.
            let trim = |t: &str| t.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
            assert_eq!(
                trim(&without_colour(&coloured)),
                trim(&show(answer.clone(), &host(), &style, true))
            );
        }
    }
}

#[test]
fn lines_fit_the_terminal() {
    let mut cases: Vec<_> =
        fixtures::all().into_iter().map(|(_, a)| (a, host(), sources())).collect();
    cases.push(fixtures::hostile());
    for (answer, host, sources) in cases {
        for columns in (40..140).step_by(3) {
            for verbose in [false, true] {
                let text = answers(
                    std::slice::from_ref(&answer),
                    &host,
                    &at(columns),
                    detail(verbose),
                    &sources,
                );
                for line in text.lines() {
                    assert!(width(line) <= columns, "{columns}: {} {line:?}\n{text}", width(line));
                }
            }
        }
    }
}

#[test]
fn hostile_text_never_reaches_the_terminal() {
    let (answer, host, sources) = fixtures::hostile();
    for width in [None, Some(40), Some(80), Some(200)] {
        for verbose in [false, true] {
            for color in [false, true] {
                for unicode in [false, true] {
                    let style = Style { color, width, unicode, plain: false };
                    let text = answers(
                        std::slice::from_ref(&answer),
                        &host,
                        &style,
                        detail(verbose),
                        &sources,
                    );
                    let plain = if color { without_colour(&text) } else { text };
                    let bad = plain.chars().find(|c| *c != '\n' && is_unsafe(*c));
                    assert_eq!(bad, None, "{plain:?}");
                }
            }
        }
    }
}

#[test]
fn hostile_names() {
    let (answer, host, sources) = fixtures::hostile();
    insta::assert_snapshot!(
        "hostile_120",
        answers(&[answer], &host, &at(120), Detail::Usual, &sources)
    );
}
