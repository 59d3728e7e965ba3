use super::*;
use whereis_port_model::{Port, PortRange};

const HOST: NetnsId = NetnsId::Inode(1);
const INNER: NetnsId = NetnsId::Inode(2);

/// A connection of TCP: source, destination, server.
fn flow(netns: NetnsId, [source, destination, served_by]: [&str; 3]) -> Flow {
    let address = |text: &str| text.parse().unwrap();
    Flow {
        netns,
        proto: Proto::Tcp,
        source: address(source),
        destination: address(destination),
        served_by: address(served_by),
        seen_as: address(source),
        state: Some("established".to_owned()),
        answered: true,
        zone: 0,
        timeout: Some(100),
        counts: None,
    }
}

fn published(source: &str, server: &str) -> Flow {
    flow(HOST, [source, "192.0.2.1:8080", server])
}

const A: &str = "172.18.0.2:80";
const B: &str = "172.18.0.3:80";

fn front() -> Front {
    let address = Some("192.0.2.1".parse().unwrap());
    Front { netns: HOST, proto: Proto::Tcp, address, port: 8080 }
}

fn targets(targets: &[&str]) -> Vec<SocketAddr> {
    targets.iter().map(|t| t.parse().unwrap()).collect()
}

#[test]
fn connections_peers_and_servers_are_counted() {
    let mut waiting = published("192.0.2.10:4", B);
    waiting.state = Some("syn_sent".to_owned());
    waiting.answered = false;
    let mut ended = published("192.0.2.99:5", B);
    ended.state = Some("time_wait".to_owned());
    let flows = [
        published("192.0.2.10:1", A),
        published("192.0.2.10:2", A),
        published("192.0.2.11:3", B),
        published("192.0.2.12:3", A),
        waiting,
        ended,
    ];
    let summary = summary(&flows);
    assert_eq!((summary.open, summary.peers, summary.unanswered), (5, 3, 1));
    let to: Vec<_> = summary.to.iter().map(|to| (to.server.to_string(), to.connections)).collect();
    assert_eq!(to, [(A.to_owned(), 3), (B.to_owned(), 2)]);
}

#[test]
fn a_connection_that_two_namespaces_track_counts_once() {
    let outer = published("192.0.2.10:1", A);
    let inner = flow(INNER, ["192.0.2.10:1", A, A]);
    assert_eq!(summary(&[outer.clone(), inner.clone()]).open, 1);
    assert_eq!(summary(&[inner.clone(), outer.clone()]).to[0].connections, 1);
    // Also where the first one masquerades, and where neither translates.
    let mut masked = outer;
    masked.seen_as = "172.18.0.1:777".parse().unwrap();
    let seen = flow(INNER, ["172.18.0.1:777", A, A]);
    assert_eq!(summary(&[masked, seen]).peers, 1);
    let routed = Flow { netns: HOST, ..inner.clone() };
    assert_eq!(summary(&[routed, inner]).open, 1);
    // Two loopbacks have nothing to do with each other.
    let here = flow(HOST, ["127.0.0.1:1", "127.0.0.1:80", "127.0.0.1:80"]);
    let there = Flow { netns: INNER, ..here.clone() };
    assert_eq!(summary(&[here, there]).open, 2);
}

#[test]
fn clients_of_the_same_port_elsewhere_are_not_on_it() {
    let local = HashSet::from(["192.0.2.1".parse().unwrap()]);
    let to = |destination, server| flow(HOST, ["192.0.2.1:5", destination, server]);
    assert!(!is_served(&to("198.51.100.1:443", "198.51.100.1:443"), &local));
    assert!(is_served(&to("10.96.0.1:443", "198.51.100.1:6443"), &local));
    assert!(is_served(&to("192.0.2.1:443", "192.0.2.1:443"), &local));
    assert!(is_served(&to("127.0.0.1:443", "127.0.0.1:443"), &local));
}

#[test]
fn a_filter_takes_what_is_sent_to_its_ports_or_served_by_them() {
    let filter = |port| FlowFilter { proto: None, ports: PortRange::one(Port(port)) };
    let flow = published("192.0.2.10:1000", A);
    assert!(filter(8080).matches(&flow) && filter(80).matches(&flow));
    assert!(!filter(1000).matches(&flow) && !filter(8081).matches(&flow));
    assert!(!FlowFilter { proto: Some(Proto::Udp), ..filter(80) }.matches(&flow));
}

#[test]
fn a_question_for_an_address_is_about_that_address() {
    let query = |address: &str| Query {
        text: String::new(),
        ports: PortRange::one(Port(8080)),
        proto: None,
        scope: Scope::Address(address.parse().unwrap()),
        zone: None,
        name: None,
        subject: None,
    };
    let flow = published("192.0.2.10:1", A);
    assert!(is_asked(&flow, &query("192.0.2.1")) && is_asked(&flow, &query("172.18.0.2")));
    assert!(is_asked(&flow, &query("::ffff:192.0.2.1")) && !is_asked(&flow, &query("127.0.0.1")));
}

#[test]
fn connections_confirm_where_rules_lead() {
    let mut flows = vec![
        published("192.0.2.10:1", A),
        published("192.0.2.10:2", A),
        published("192.0.2.10:3", B),
    ];
    let confirmed = confirm(&flows, front(), &targets(&[A, B, "172.18.0.4:80"]));
    let told: Vec<_> = confirmed
        .targets
        .iter()
        .map(|(t, e)| (t.to_string(), e.source.as_str(), &*e.detail))
        .collect();
    let two = "2 connections now translated to 172.18.0.2:80";
    let one = "1 connection now translated to 172.18.0.3:80";
    assert_eq!(told, [(A.to_owned(), "conntrack", two), (B.to_owned(), "conntrack", one)]);
    assert_eq!(confirmed.changed, None);

    // What is not of the front says nothing of it.
    flows.iter_mut().for_each(|flow| flow.netns = INNER);
    flows.push(published("192.0.2.10:4", "172.18.0.9:80"));
    flows[3].destination = "192.0.2.1:8081".parse().unwrap();
    flows.push(published("192.0.2.10:5", "172.18.0.9:80"));
    flows[4].state = Some("close".to_owned());
    flows.push(published("192.0.2.10:6", "172.18.0.9:80"));
    flows[5].proto = Proto::Udp;
    flows.push(flow(HOST, ["192.0.2.10:7", "192.0.2.2:8080", "172.18.0.9:80"]));
    assert_eq!(confirm(&flows, front(), &targets(&[A])), Confirmed::default());
}

#[test]
fn connections_that_no_rule_gives_tell_that_rules_changed() {
    let flows = [published("192.0.2.10:1", A), published("192.0.2.10:2", B)];
    let confirmed = confirm(&flows, front(), &targets(&[A]));
    assert_eq!(confirmed.targets.len(), 1);
    let changed = "1 connection is still translated to 172.18.0.3:80";
    assert_eq!(confirmed.changed.map(|changed| changed.what).as_deref(), Some(changed));

    let plain = [published("192.0.2.10:1", "192.0.2.1:8080")];
    let changed = confirm(&plain, front(), &targets(&[A])).changed;
    let text = "1 connection is not translated";
    assert_eq!(changed.map(|changed| changed.what).as_deref(), Some(text));
    let anywhere = Front { address: None, ..front() };
    assert_eq!(confirm(&plain, anywhere, &targets(&[A])).changed, None);
}

#[test]
fn only_the_protocol_that_all_paths_have_is_looked_for() {
    let hop = |proto| whereis_port_model::Hop {
        kind: HopKind::Listener,
        netns: None,
        endpoint: whereis_port_model::Endpoint { address: None, name: None, port: Some(Port(53)) },
        proto,
        detail: String::new(),
        share: None,
        socket: None,
        evidence: Vec::new(),
    };
    let answer = |protos: &[Proto]| Answer {
        sender: None,
        query: Query {
            text: "53".to_owned(),
            ports: PortRange::one(Port(53)),
            proto: None,
            scope: Scope::Everywhere,
            zone: None,
            name: None,
            subject: None,
        },
        verdict: whereis_port_model::Verdict::Found,
        paths: protos
            .iter()
            .map(|proto| Path {
                unsure: Vec::new(),
                hops: vec![hop(*proto)],
                end: whereis_port_model::End::default(),
                from: Vec::new(),
                contexts: Vec::new(),
                conditions: Vec::new(),
            })
            .collect(),
        more: 0,
        drops: Vec::new(),
        held: Vec::new(),
        more_held: 0,
        within: None,
        reach: Vec::new(),
        flows: None,
        gaps: Vec::new(),
        findings: Vec::new(),
    };
    assert_eq!(only_proto(&answer(&[Proto::Tcp, Proto::Tcp])), Some(Proto::Tcp));
    assert_eq!(only_proto(&answer(&[Proto::Udp])), Some(Proto::Udp));
    assert_eq!(only_proto(&answer(&[Proto::Udp, Proto::Tcp])), None);
    assert_eq!(only_proto(&answer(&[])), None);
}
