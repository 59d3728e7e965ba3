//! What follows from connects that were seen, written down here.

use super::*;
use whereis_port_model::{Accepted, EvidenceSource, Hop, ObservedTarget, Path};

impl TestNode {
    /// Connections that the last socket got while it was watched for 5 s.
    fn accepted(mut self, connections: u64) -> Self {
        let socket = self.sockets.last().unwrap();
        let listener = Accepted {
            netns: socket.netns,
            address: socket.address,
            port: socket.port,
            connections,
            unkept: 0,
        };
        let watched = self.watched.get_or_insert_with(Watched::default);
        watched.ms = 5000;
        watched.accepted.push(listener);
        self
    }

    /// A target that the last socket's connections were seen to lead to, by `pid`.
    fn led(mut self, pid: Pid, to: &str, connects: u64, ambiguous: u64) -> Self {
        let socket = self.sockets.last().unwrap();
        let watched = self.watched.as_mut().unwrap();
        let accepted = watched.accepted.last().unwrap().connections;
        watched.observed.push(ObservedTarget {
            netns: socket.netns,
            address: socket.address,
            port: socket.port,
            pid,
            start: StartTime(7),
            to_netns: Some(HOST),
            to: to.parse().unwrap(),
            connects,
            ambiguous,
            accepted,
        });
        self
    }
}

/// A backend in a namespace of its own.
fn backend() -> TestNode {
    TestNode::new()
        .namespace(A, "web")
        .address(A, "10.0.0.5")
        .veth(HOST, A)
        .route(HOST, "10.0.0.0", 24)
        .tcp(A, "0.0.0.0:80")
        .held_by(30, A, "httpd")
}

/// That, and a proxy in front whose command line says nothing.
fn proxied() -> TestNode {
    backend().tcp(HOST, "0.0.0.0:8080").held_by(5, HOST, "haproxy -f /etc/haproxy.cfg")
}

fn step(path: &Path) -> &Hop {
    path.hops.iter().find(|hop| hop.kind == HopKind::Forward).unwrap()
}

fn evidence(hop: &Hop, source: &EvidenceSource) -> Vec<String> {
    let of = hop.evidence.iter().filter(|e| e.source == *source);
    of.map(|e| e.detail.clone()).collect()
}

fn why(answer: &Answer) -> &str {
    answer.paths[0].end.why.as_deref().unwrap_or_default()
}

#[test]
fn one_target_is_followed_like_one_that_was_configured() {
    let answer = proxied().accepted(14).led(5, "10.0.0.5:80", 12, 0).ask("8080");
    assert_eq!(shape(&answer), ["0.0.0.0:8080 > 10.0.0.5:80 > 0.0.0.0:80 > httpd"]);
    let hop = step(&answer.paths[0]);
    assert_eq!(hop.detail, "observed, 12 of 14");
    assert_eq!(hop.netns.as_ref().unwrap().id, A, "the step leads into the target's namespace");
    let said = "12 of 14 connections accepted on port 8080 in 5 s were followed by a connect to \
                10.0.0.5:80 within 2 s";
    assert_eq!(evidence(hop, &EvidenceSource::ObservedConnects), [said]);
}

#[test]
fn several_targets_are_all_followed_the_most_frequent_first() {
    let answer =
        proxied().accepted(10).led(5, "10.0.0.9:80", 3, 0).led(5, "10.0.0.5:80", 7, 2).ask("8080");
    let expected = [
        "0.0.0.0:8080 > 10.0.0.5:80 > 0.0.0.0:80 > httpd",
        "0.0.0.0:8080 > 10.0.0.9:80 > 10.0.0.9:80 > Elsewhere",
    ];
    assert_eq!(shape(&answer), expected);
    assert_eq!(step(&answer.paths[0]).detail, "observed, 7 of 10, 2 ambiguous");
    let said = evidence(step(&answer.paths[0]), &EvidenceSource::ObservedConnects);
    assert!(said[0].contains("2 of these connects may belong to another listener"), "{said:?}");
    assert_eq!(step(&answer.paths[1]).detail, "observed, 3 of 10");
}

#[test]
fn of_very_many_targets_some_are_shown_and_the_rest_is_counted() {
    let mut node = proxied().accepted(100);
    for host in 1..=20 {
        node = node.led(5, &format!("198.51.100.{host}:443"), 5, 0);
    }
    let answer = node.ask("8080");
    assert_eq!(answer.paths.len(), 16);
    let gap =
        answer.gaps.iter().find(|g| g.source.to_string() == "observed connects of port 8080/tcp");
    let gap = gap.unwrap();
    assert!(gap.reason.contains("20 targets") && gap.reason.contains("and 4 more"), "{gap:?}");
}

#[test]
fn workers_are_one_proxy() {
    let node = proxied().held_by(6, HOST, "haproxy -f /etc/haproxy.cfg").accepted(9);
    let answer = node.led(5, "10.0.0.5:80", 4, 0).led(6, "10.0.0.5:80", 5, 0).ask("8080");
    assert_eq!(answer.paths.len(), 1);
    assert_eq!(step(&answer.paths[0]).detail, "observed, 9 of 9");
}

#[test]
fn what_others_did_under_the_same_id_or_elsewhere_does_not_count() {
    type Change = fn(&mut ObservedTarget);
    let cases: [(&str, Change); 4] = [
        ("another process", |seen| seen.pid = 99),
        ("a reused id", |seen| seen.start = StartTime(8)),
        ("another bind", |seen| seen.address = "127.0.0.1".parse().unwrap()),
        ("another namespace", |seen| seen.netns = B),
    ];
    for (case, change) in cases {
        let mut node = proxied().accepted(1).led(5, "10.0.0.5:80", 1, 0);
        change(&mut node.watched.as_mut().unwrap().observed[0]);
        assert_eq!(shape(&node.ask("8080")), ["0.0.0.0:8080 > haproxy"], "{case}");
    }
}

#[test]
fn a_proxy_that_nothing_tells_of_stays_unknown_and_says_so() {
    let answer = proxied().ask("8080");
    assert_eq!(shape(&answer), ["0.0.0.0:8080 > haproxy"]);
    assert!(why(&answer).contains("--watch 5s can learn it"), "{}", why(&answer));

    let idle = proxied().tcp(HOST, "0.0.0.0:1").accepted(0).ask("8080");
    assert!(why(&idle).contains("no connection came in while watching (5 s)"), "{}", why(&idle));
    assert!(why(&idle).contains("use --watch 5s while there is traffic"), "{}", why(&idle));

    let pooled = proxied().accepted(4).ask("8080");
    assert!(why(&pooled).contains("4 connections came in"), "{}", why(&pooled));
    // Others may be servers as well as proxies: nothing is suspected of them.
    assert_eq!(why(&backend().ask("80")), "");
    assert_eq!(why(&backend().accepted(3).ask("80")), "");
}

#[test]
fn an_ssh_sessions_listener_leads_to_its_client() {
    let sshd = |title: &str| {
        let node = TestNode::new().tcp(HOST, "127.0.0.1:2222").held_by(5, HOST, "sshd");
        node.last_process(|p| p.cmdline = vec![title.to_owned()]).ask("2222")
    };
    assert!(why(&sshd("sshd: root@pts/0")).contains("ssh -R"));
    assert_eq!(why(&sshd("sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups")), "");
}

#[test]
fn what_the_command_line_says_is_confirmed_or_doubted() {
    let forwarder = || {
        let command = "socat TCP-LISTEN:8080,fork TCP:10.0.0.5:80";
        backend().tcp(HOST, "0.0.0.0:8080").held_by(5, HOST, command)
    };
    let same = forwarder().accepted(2).led(5, "10.0.0.5:80", 2, 0).ask("8080");
    let way = ["0.0.0.0:8080 > 10.0.0.5:80 > 0.0.0.0:80 > httpd"];
    assert_eq!(shape(&same), way);
    let hop = step(&same.paths[0]);
    assert_eq!(hop.detail, forwarder().ask("8080").paths[0].hops[1].detail);
    assert_eq!(evidence(hop, &EvidenceSource::CommandLine).len(), 1);
    assert_eq!(evidence(hop, &EvidenceSource::ObservedConnects).len(), 1);

    let other = forwarder().accepted(2).led(5, "10.0.0.9:90", 2, 0).ask("8080");
    assert_eq!(shape(&other), way, "both are said, none is picked silently");
    let hop = step(&other.paths[0]);
    assert!(hop.detail.contains("was seen to connect to 10.0.0.9:90 instead"), "{}", hop.detail);
    assert_eq!(evidence(hop, &EvidenceSource::ObservedConnects).len(), 1);
}

#[test]
fn a_name_that_is_not_looked_up_is_known_by_its_connects() {
    let node = || {
        let command = "socat TCP-LISTEN:8080,fork TCP:web.example:80";
        backend().tcp(HOST, "0.0.0.0:8080").held_by(5, HOST, command).accepted(1)
    };
    let answer = node().led(5, "10.0.0.5:80", 1, 0).ask("8080");
    assert_eq!(shape(&answer), ["0.0.0.0:8080 > 10.0.0.5:80 > 0.0.0.0:80 > httpd"]);
    assert_eq!(evidence(step(&answer.paths[0]), &EvidenceSource::CommandLine).len(), 1);
    // Another port is not what the name stands for.
    let answer = node().led(5, "10.0.0.5:90", 1, 0).ask("8080");
    assert_eq!(shape(&answer), ["0.0.0.0:8080 > web.example > Elsewhere"]);
    assert!(step(&answer.paths[0]).detail.contains("10.0.0.5:90 instead"));
}

#[test]
fn arguments_that_are_not_believed_do_not_hide_what_was_seen() {
    let command = "socat TCP-LISTEN:8080,fork TCP:10.0.0.9:80";
    let answer = backend()
        .tcp(HOST, "0.0.0.0:8080")
        .held_by(5, HOST, command)
        .last_process(|p| p.exe = Some("/tmp/other".to_owned()))
        .accepted(1)
        .led(5, "10.0.0.5:80", 1, 0)
        .ask("8080");
    assert_eq!(shape(&answer), ["0.0.0.0:8080 > 10.0.0.5:80 > 0.0.0.0:80 > httpd"]);
    let said = evidence(step(&answer.paths[0]), &EvidenceSource::CommandLine);
    assert!(said[0].contains("/tmp/other: not followed"), "{said:?}");
}

#[test]
fn proxies_that_lead_to_each_other_end() {
    let answer = TestNode::new()
        .tcp(HOST, "127.0.0.1:1001")
        .held_by(6, HOST, "envoy")
        .accepted(3)
        .led(6, "127.0.0.1:1000", 3, 0)
        .tcp(HOST, "127.0.0.1:1000")
        .held_by(5, HOST, "haproxy")
        .accepted(3)
        .led(5, "127.0.0.1:1001", 3, 0)
        .ask("1000");
    assert_eq!(answer.paths.len(), 1);
    assert!(why(&answer).contains("circle"), "{}", why(&answer));
    assert_eq!(answer.paths[0].end.ending, Ending::Unknown);
}

#[test]
fn a_proxy_behind_a_proxy_leads_on() {
    let answer = backend()
        .tcp(HOST, "127.0.0.1:9000")
        .held_by(6, HOST, "envoy")
        .accepted(5)
        .led(6, "10.0.0.5:80", 5, 0)
        .tcp(HOST, "0.0.0.0:8080")
        .held_by(5, HOST, "haproxy")
        .accepted(5)
        .led(5, "127.0.0.1:9000", 5, 0)
        .ask("8080");
    let way = "0.0.0.0:8080 > 127.0.0.1:9000 > 127.0.0.1:9000 > 10.0.0.5:80 > 0.0.0.0:80 > httpd";
    assert_eq!(shape(&answer), [way]);
}

#[test]
fn text_and_json_show_what_was_seen_and_how_often() {
    let node = proxied().accepted(14).led(5, "10.0.0.5:80", 12, 0);
    let answers = [node.ask("8080")];
    let style = whereis_port_view::Style::detect(
        whereis_port_view::ColorChoice::Never,
        false,
        |_| None,
        Some(200),
    );
    let text = whereis_port_view::text::answers(
        &answers,
        &node.host,
        &style,
        whereis_port_view::text::Detail::Verbose,
        &[],
    );
    let line = text.lines().find(|line| line.contains("  forward  ")).unwrap();
    assert!(line.contains("10.0.0.5:80"), "{text}");
    assert!(line.contains("observed, 12 of 14"), "{text}");
    assert!(line.contains("observed connects"), "{text}");
    let mut json = Vec::new();
    whereis_port_view::json::write(
        &whereis_port_view::json::answers(&answers, &node.host, &[]),
        &mut json,
    )
    .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let hop = &json["answers"][0]["paths"][0]["hops"][1];
    assert_eq!((&hop["kind"], &hop["port"]), (&"forward".into(), &80.into()));
    assert_eq!(hop["detail"], "observed, 12 of 14");
    assert_eq!(hop["evidence"][0]["source"], "observed connects");
}
