//! What is one thing, and what stands out.

use super::*;
use crate::fleet::{FailureKind, NodeAnswer, NodeFailure, Report};
use crate::target::{HostNames, parse_target};

fn service_way(address: &str, pod: Option<&str>) -> PortPath {
    PortPath {
        proto: Proto::Tcp,
        port: 30518,
        by_rules: true,
        taken_by: "NodePort of Service default/web".into(),
        service: Some(Service { namespace: "default".into(), name: "web".into(), port: None }),
        backend: PathEnd {
            address: Some(address.into()),
            ending: if pod.is_some() { Ending::Process } else { Ending::Elsewhere },
            pod: pod.map(str::to_owned),
            process: pod.map(|_| "nginx".to_owned()),
            why: pod.is_none().then(|| "no namespace here has it".to_owned()),
            ..PathEnd::default()
        },
    }
}

fn report(node: &str, verdict: Verdict, ways: Vec<PortPath>) -> Report {
    let said = NodeReply { verdict, ways, cut: 0, gaps: vec!["packet rules: refused".into()] };
    let answer = NodeAnswer { tool_version: "0".into(), said: vec![said] };
    Report { node: node.into(), pod: None, outcome: Ok(answer), ms: 1 }
}

fn failed(node: &str) -> Report {
    let outcome = Err(NodeFailure::new(FailureKind::Timeout, "late"));
    Report { node: node.into(), pod: None, outcome, ms: 1 }
}

fn merged(reports: Vec<Report>) -> Merged {
    let query = parse_target("30518", &HostNames::default()).unwrap().remove(0);
    merge(&Fleet { reports, nodes_unknown: None }, &[query]).remove(0)
}

fn found(node: &str, ways: Vec<PortPath>) -> Report {
    report(node, Verdict::Found, ways)
}

#[test]
fn one_service_is_one_entry_with_its_nodes() {
    let merged = merged(vec![
        found("b", vec![service_way("10.0.0.2:80", None), service_way("10.0.0.1:80", None)]),
        found(
            "a",
            vec![service_way("10.0.0.1:80", Some("web-1")), service_way("10.0.0.2:80", None)],
        ),
    ]);
    assert_eq!(merged.verdict, Verdict::Found);
    let [group] = merged.groups.as_slice() else { panic!("{merged:?}") };
    let [entry] = group.entries.as_slice() else { panic!("{group:?}") };
    assert_eq!(entry.nodes, ["a", "b"]);
    let pods: Vec<_> =
        entry.backends.iter().map(|b| (b.address.as_deref(), b.pod.as_deref())).collect();
    // The node that has the pod knows its name.
    assert_eq!(pods, [(Some("10.0.0.1:80"), Some("web-1")), (Some("10.0.0.2:80"), None)]);
}

#[test]
fn a_node_that_leads_elsewhere_or_nowhere_stands_out() {
    let mut stopped = service_way("10.0.0.9:80", None);
    stopped.backend = PathEnd {
        ending: Ending::Stopped,
        why: Some("no endpoint on this node".into()),
        ..PathEnd::default()
    };
    let merged = merged(vec![
        found("a", vec![service_way("10.0.0.1:80", None)]),
        found("b", vec![service_way("10.0.0.1:80", None)]),
        found("stale", vec![service_way("10.0.0.7:80", None)]),
        found("local", vec![stopped]),
        report("none", Verdict::NotFound, vec![]),
    ]);
    let [group] = merged.groups.as_slice() else { panic!("{merged:?}") };
    let nodes: Vec<_> = group.entries.iter().map(|entry| entry.nodes.join(" ")).collect();
    assert_eq!(nodes[0], "a b");
    assert_eq!(nodes.len(), 3);
    assert!(nodes[1..].contains(&"stale".to_owned()) && nodes[1..].contains(&"local".to_owned()));
    assert_eq!(
        (group.missing.clone(), merged.nothing),
        (vec!["none".to_owned()], vec!["none".to_owned()])
    );
}

#[test]
fn the_same_daemon_on_every_node_is_one_thing() {
    let kubelet = |name: &str, pod: &str| {
        let mut way = service_way("x", None);
        way.service = None;
        way.backend = PathEnd {
            process: Some(name.into()),
            pod: Some(pod.into()),
            ending: Ending::Process,
            ..PathEnd::default()
        };
        way
    };
    let merged = merged(vec![
        found("a", vec![kubelet("kubelet", "p-a")]),
        found("b", vec![kubelet("kubelet", "p-b")]),
        found("c", vec![kubelet("k3s", "p-c")]),
    ]);
    let sizes: Vec<_> = merged
        .groups
        .iter()
        .map(|g| {
            (g.entries[0].backends[0].process.as_deref(), g.entries[0].nodes.len(), g.missing.len())
        })
        .collect();
    assert_eq!(sizes, [(Some("kubelet"), 2, 1), (Some("k3s"), 1, 2)]);
}

#[test]
fn surely_nothing_needs_every_node() {
    let nothing = |node: &str| report(node, Verdict::NotFound, vec![]);
    assert_eq!(merged(vec![nothing("a"), nothing("b")]).verdict, Verdict::NotFound);
    assert_eq!(merged(vec![nothing("a"), failed("b")]).verdict, Verdict::Unknown);
    let unsure = merged(vec![nothing("a"), report("b", Verdict::Unknown, vec![])]);
    assert_eq!(unsure.verdict, Verdict::Unknown);
    assert_eq!(unsure.unsure[0].why, "packet rules: refused");
    assert_eq!(merged(vec![]).verdict, Verdict::Unknown);
    let found = found("a", vec![service_way("10.0.0.1:80", None)]);
    assert_eq!(merged(vec![found, failed("b")]).verdict, Verdict::Found);
    let query = parse_target("1", &HostNames::default()).unwrap().remove(0);
    let no_list = Some(NodeFailure::new(FailureKind::Forbidden, "no"));
    let fleet = Fleet { reports: vec![nothing("a")], nodes_unknown: no_list };
    assert_eq!(merge(&fleet, &[query])[0].verdict, Verdict::Unknown);
}

#[test]
fn the_order_of_answers_does_not_matter() {
    let reports: Vec<Report> = (0..12)
        .map(|n| {
            let address = format!("10.0.0.{}:80", n % 3);
            let pod = (n % 2 == 0).then(|| format!("web-{n}"));
            let also = service_way("10.0.0.200:80", Some(if n > 6 { "x" } else { "y" }));
            found(&format!("n{n}"), vec![service_way(&address, pod.as_deref()), also])
        })
        .collect();
    let first = merged(reports.clone());
    for turn in 1..reports.len() {
        let mut other = reports.clone();
        other.rotate_left(turn);
        if turn % 2 == 0 {
            other.reverse();
        }
        assert_eq!(merged(other), first);
    }
}
