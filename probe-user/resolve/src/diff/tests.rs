use super::*;
use whereis_port_model::StartTime;

fn one(port: u16, owner: &str, open: &[&str]) -> BaselinePort {
    BaselinePort {
        netns: "host".to_owned(),
        proto: Proto::Tcp,
        port: Port(port),
        addresses: BTreeSet::from([IpAddr::from([0, 0, 0, 0])]),
        owner: Some(owner.to_owned()),
        processes: vec![PortHolder { pid: 7, start: StartTime(1), name: "web".to_owned() }],
        ways: BTreeSet::new(),
        reached: vec![ReachedBy {
            from: Vantage::Outside,
            open: open.iter().map(|a| a.parse().unwrap()).collect(),
            unknown: BTreeSet::new(),
            by: BTreeSet::new(),
        }],
    }
}

fn side(ports: Vec<BaselinePort>) -> Baseline {
    Baseline {
        format: Baseline::FORMAT.to_owned(),
        version: Baseline::VERSION,
        tool_version: "0".to_owned(),
        hostname: "node1".to_owned(),
        taken_at: 0,
        ports,
        not_known: Vec::new(),
    }
}

fn kinds(difference: &Difference) -> Vec<(u16, &'static str, bool)> {
    difference.changes.iter().map(|c| (c.port.0, c.kind.as_str(), c.sure)).collect()
}

#[test]
fn each_kind_of_change_is_told() {
    let before = side(vec![
        one(1, "process:a", &[]),
        one(2, "process:b", &["10.0.0.1"]),
        one(3, "process:c", &["10.0.0.1"]),
    ]);
    let mut moved = one(3, "process:d", &[]);
    moved.addresses = BTreeSet::from([IpAddr::from([127, 0, 0, 1])]);
    moved.ways = BTreeSet::from(["Docker to 172.17.0.2:80".to_owned()]);
    let after = side(vec![one(2, "process:b", &["10.0.0.1"]), moved, one(4, "process:e", &[])]);
    let found = diff(&before, &after);
    let expected = [
        (1, "went", true),
        (3, "owner", true),
        (3, "address", true),
        (3, "way", true),
        (3, "reach", true),
        (4, "came", true),
    ];
    assert_eq!(kinds(&found), expected);
    assert!(found.is_sure() && !found.is_unsure());
    assert_eq!(diff(&before, &before), Difference::default());
}

#[test]
fn a_restart_is_no_difference_but_is_told() {
    let before = side(vec![one(1, "process:a", &[])]);
    let mut again = one(1, "process:a", &[]);
    again.processes[0].start = StartTime(2);
    let found = diff(&before, &side(vec![again]));
    assert_eq!(kinds(&found), [(1, "restarted", true)]);
    assert!(!found.is_sure() && !found.is_unsure());
}

#[test]
fn what_was_not_read_on_one_side_is_no_sure_difference() {
    let before = side(vec![one(1, "process:a", &["10.0.0.1"]), one(2, "process:b", &[])]);
    let mut blind = one(1, "process:a", &[]);
    blind.owner = None;
    blind.reached[0].unknown = BTreeSet::from([IpAddr::from([10, 0, 0, 1])]);
    let mut after = side(vec![blind]);
    after.not_known = vec!["packet rules: needs CAP_NET_ADMIN".to_owned()];
    let found = diff(&before, &after);
    assert_eq!(kinds(&found), [(1, "owner", false), (1, "reach", false), (2, "went", false)]);
    assert!(!found.is_sure() && found.is_unsure());
    // What came is new whatever is hidden now.
    let after = Baseline { ports: vec![one(3, "process:c", &[])], ..after };
    assert!(diff(&side(Vec::new()), &after).is_sure());
}
