use super::*;
use crate::fixtures;
use whereis_port_model::{
    AuditCode, AuditFinding, AuditPlace, Cause, End, HopKind, Host, ListRow, NetnsName, NetnsRef,
    OwnerName, Port, PortRange, Proto, Reach,
};

/// A name that is trouble in every format.
const HOSTILE: &str = "a|b`<i>\"&' \u{1b}[2J\n* x";

fn netns() -> NetnsRef {
    NetnsRef { id: fixtures::HOST, name: Some(NetnsName::Host) }
}

fn audit(name: &str) -> Audit {
    let row = ListRow {
        netns: netns(),
        kind: HopKind::Dnat,
        proto: Proto::Tcp,
        address: "0.0.0.0".parse().unwrap(),
        port: Port(8080),
        socket: None,
        taken_by: Some("Docker".to_owned()),
        service: None,
        port_kind: whereis_port_model::PortKind::Listener,
        reached: None,
        end: std::rc::Rc::new(End { unit: Some(name.to_owned()), ..End::default() }),
        component: None,
        target: None,
        others: Vec::new(),
        more: 0,
        target_detail: None,
    };
    let reach = |from, reachable| Reach {
        netns: Some(netns()),
        from,
        by: Vec::new(),
        address: Some("192.0.2.1:8080".parse().unwrap()),
        reachable,
        why: Cause::TakenByRules { words: format!("published port, {name}"), to: Vec::new() }
            .into(),
        conditions: Vec::new(),
        fix: None,
        source: None,
        accepted: false,
        tried: None,
    };
    let opening = |from, reachable, device: Option<&str>| Opening {
        reach: reach(from, reachable),
        device: device.map(str::to_owned),
        allowed: None,
        judged: true,
    };
    let exposure = Exposure {
        netns: netns(),
        proto: Proto::Tcp,
        port: Port(8080),
        rows: vec![row],
        openings: vec![
            opening(Vantage::Outside, Some(true), Some(name)),
            opening(Vantage::Containers, None, None),
            opening(Vantage::Loopback, Some(false), None),
        ],
        like: None,
    };
    let finding = AuditFinding {
        code: AuditCode::PublishedPastFirewall,
        places: vec![AuditPlace {
            netns: netns(),
            proto: Proto::Tcp,
            ports: PortRange::one(Port(8080)),
        }],
        from: Some(Vantage::Outside),
        by: vec![name.to_owned()],
        owner: Some(OwnerName { kind: whereis_port_model::OwnerKind::Unit, name: name.to_owned() }),
        what: format!("unit {name} is published"),
        fix: None,
    };
    Audit { exposures: vec![exposure], findings: vec![finding], unsure: 1, ..Audit::default() }
}

fn host() -> Host {
    fixtures::host()
}

#[test]
fn a_name_is_no_markup_in_any_format() {
    let audit = audit(HOSTILE);
    let text = text(&audit, &host(), &crate::Style::PLAIN, false, &[]);
    let mut json = Vec::new();
    sarif(&audit, &mut json).unwrap();
    let json = String::from_utf8(json).unwrap();
    let (xml, md) = (junit(&audit, &host()), markdown(&audit, &host()));
    for shown in [&text, &json, &xml, &md] {
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }
    assert!(!xml.contains("<i>") && xml.contains("&lt;i&gt;"), "{xml}");
    assert!(!md.contains("<i>") && md.contains("a\\|b\\`"), "{md}");
    let row = md.lines().find(|line| line.contains("published_past")).unwrap();
    let bars = row.replace("\\|", "").matches('|').count();
    assert_eq!(bars, 6, "{row}");
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read["runs"][0]["results"][0]["ruleId"], "published_past_firewall");
    assert_eq!(read["runs"][0]["results"][0]["ruleIndex"], 1);
}

#[test]
fn a_policy_is_made_of_what_is_open_and_read_again() {
    for name in ["ssh.service", HOSTILE] {
        let text = policy(&audit(name));
        let read = whereis_port_resolve::AuditPolicy::parse(&text);
        assert!(read.is_ok(), "{text}{read:?}");
        assert!(text.contains("ports = [\"8080/tcp\"]") && !text.contains("loopback"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}

#[test]
fn ports_that_follow_each_other_are_a_range() {
    let mut finding = audit("x").findings.remove(0);
    let place = finding.places.remove(0);
    let at = |first, last| AuditPlace {
        ports: PortRange { first: Port(first), last: Port(last) },
        ..place.clone()
    };
    finding.places = vec![at(30_002, 30_002), at(22, 22), at(30_000, 30_001)];
    assert_eq!(places::of(&finding), "22/tcp, 30000-30002/tcp");
}

#[test]
fn a_test_report_counts_what_failed_and_what_is_not_known() {
    let xml = junit(&audit("x"), &host());
    assert!(xml.contains("tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\""), "{xml}");
    assert!(xml.contains("<failure type=\"published_past_firewall\""), "{xml}");
}
