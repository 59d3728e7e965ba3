use super::*;
use crate::model::{Family, RulesBackend, TableId};

const NETNS: NetnsId = NetnsId::Inode(1);

fn parsed(facts: &str) -> Snapshot {
    let text = format!(r#"{{"format":"whereis-port-recording","version":1,"facts":{{{facts}}}}}"#);
    serde_json::from_str(&text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What a recording says of a set's elements.
fn elements(facts: &str) -> Option<Option<Element>> {
    let table = TableId {
        netns: NETNS,
        backend: RulesBackend::Nft,
        family: Family::Ip,
        name: "filter".into(),
    };
    let set = SetId { table, name: "s".into() };
    parsed(facts).set_element(&set, &Bytes::from(vec![1]))
}

#[test]
fn an_element_that_was_not_read_is_not_known() {
    let table = r#"{"netns":{"inode":1},"backend":"nft","family":"ip","name":"filter"}"#;
    let set = format!(r#"{{"table":{table},"name":"s"}}"#);
    let asked = |value: &str, gaps: &str| {
        let asked = format!(r#"{{"set":{set},"key":"01"}}"#);
        let read = format!(r#"{{"value":{value},"gaps":[{gaps}]}}"#);
        elements(&format!(r#""set_element":[{{"asked":{asked},"read":{read}}}]"#))
    };
    assert_eq!(elements(""), None);
    assert_eq!(asked("null", r#"{"reason":"no rights"}"#), None);
    assert_eq!(asked("null", ""), Some(None));
    assert!(asked(r#"{"key":"01"}"#, "").flatten().is_some());
    let all = format!(
        r#""set_elements":[{{"asked":{set},"read":{{"value":[{{"key":"01"}}],"gaps":[]}}}}]"#
    );
    assert!(elements(&all).flatten().is_some());
}

#[test]
fn without_steps_left_nothing_is_known() {
    let mut snapshot = Snapshot::new();
    snapshot.add_address(Address { netns: NETNS, ifindex: 2, address: ip("10.0.0.1"), prefix: 24 });
    let query = RouteQuery::new(NETNS, ip("10.0.0.1"), 0);
    let limited = snapshot.limited(2);
    assert!(limited.route(&query).is_some() && !limited.is_used_up());
    assert!(!limited.spend(2) && limited.is_used_up());
    assert_eq!(limited.route(&query), None);
    assert!(snapshot.route(&query).is_some());
}

#[test]
fn what_is_no_recording_is_refused() {
    let refused = |text: &str| serde_json::from_str::<Snapshot>(text).unwrap_err().to_string();
    assert!(refused("{}").contains("missing field"));
    let foreign = r#"{"format":"pcap","version":1,"facts":{}}"#;
    assert!(refused(foreign).contains("not a whereis-port recording"));
    let newer = r#"{"format":"whereis-port-recording","version":2,"facts":{}}"#;
    assert!(refused(newer).contains("version 2"));
}

#[test]
fn routes_are_those_of_the_kernel_or_of_the_table() {
    let mut snapshot = parsed(
        r#""route":[{"asked":{"netns":{"inode":1},"to":"10.0.0.9","mark":0},
            "read":{"value":{"kind":"prohibit","oif":null,"gateway":null,"source":null},
            "gaps":[]}}]"#,
    );
    let route = |snapshot: &Snapshot, to: &str| {
        let found = snapshot.route(&RouteQuery::new(NETNS, ip(to), 0));
        found.map(|found| (found.kind, found.oif))
    };
    assert_eq!(route(&snapshot, "10.0.0.1"), None);
    snapshot.add_address(Address { netns: NETNS, ifindex: 2, address: ip("10.0.0.1"), prefix: 24 });
    snapshot.add_route(Route {
        netns: NETNS,
        destination: ip("10.0.0.0"),
        prefix: 24,
        gateway: None,
        ifindex: Some(2),
    });
    assert_eq!(route(&snapshot, "10.0.0.1"), Some((RouteKind::Local, Some(2))));
    assert_eq!(route(&snapshot, "10.0.0.2"), Some((RouteKind::Unicast, Some(2))));
    assert_eq!(route(&snapshot, "10.0.0.9"), Some((RouteKind::Prohibit, None)));
    assert_eq!(route(&snapshot, "10.0.1.2"), Some((RouteKind::None, None)));
    let other = RouteQuery::new(NetnsId::Inode(2), ip("10.0.0.1"), 0);
    assert_eq!(snapshot.route(&other), None);
    assert_eq!(snapshot.first_address(NETNS, 2, false), Some(ip("10.0.0.1")));
}
