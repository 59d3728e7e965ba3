//! What is understood of an agent's output, from real answers and broken ones.

use serde_json::json;

use super::*;

fn output(stdout: impl Into<Vec<u8>>, code: i32) -> RunOutput {
    RunOutput { stdout: stdout.into(), stderr: Vec::new(), code }
}

fn golden(name: &str) -> RunOutput {
    let file = format!("{}/../tests/data/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    output(std::fs::read(file).unwrap(), 0)
}

#[test]
fn a_real_answer_is_reduced_to_where_the_port_leads() {
    let answer = read_output(&golden("k3s-30995"), 1).unwrap();
    let said = &answer.said[0];
    assert_eq!((said.verdict, said.ways.len(), said.cut), (Verdict::Found, 2, 0));
    let mut addresses: Vec<_> =
        said.ways.iter().filter_map(|w| w.backend.address.as_deref()).collect();
    addresses.sort_unstable();
    // One pod is on this node, the other is not: both by the address that all nodes send to.
    assert_eq!(addresses, ["10.42.0.202:80", "10.42.1.188:80"]);
    for way in &said.ways {
        let service = way.service.as_ref().unwrap();
        assert_eq!((service.namespace.as_str(), service.name.as_str()), ("default", "my-nginx"));
        assert!(way.by_rules && way.port == 30995 && way.taken_by.contains("NodePort"), "{way:?}");
    }
}

#[test]
fn nothing_found_is_an_answer_too() {
    let document = json!({"schema_version": 1, "tool_version": "0.1.0", "host": {}, "answers": [
        {"verdict": "unknown", "paths": [], "gaps": [{"source": "packet rules", "reason": "refused"}]},
    ]});
    let answer = read_output(&output(document.to_string(), 3), 1).unwrap();
    assert_eq!(answer.said[0].verdict, Verdict::Unknown);
    assert_eq!(answer.said[0].gaps, ["packet rules: refused"]);
}

#[test]
fn what_is_no_answer_is_told_apart() {
    let whole = golden("k3s-30995").stdout;
    let cases = [
        (output(&whole[..whole.len() / 2], 0), FailureKind::Cut),
        (output("", 0), FailureKind::NotAnAnswer),
        (output("\u{1b}[2J hello", 0), FailureKind::NotAnAnswer),
        (output("[1,2,3]", 0), FailureKind::NotAnAnswer),
        (
            output(json!({"schema_version": 2, "tool_version": "9"}).to_string(), 0),
            FailureKind::OtherVersion,
        ),
        (output("{}", 0), FailureKind::OtherVersion),
        (
            output(json!({"schema_version": 1, "answers": []}).to_string(), 1),
            FailureKind::NotAnAnswer,
        ),
        (
            output(
                json!({"schema_version": 1, "answers": [{"verdict": 1, "paths": 7}]}).to_string(),
                1,
            ),
            FailureKind::NotAnAnswer,
        ),
        (output(whole.clone(), 4), FailureKind::Failed),
        (output("[".repeat(100_000), 0), FailureKind::NotAnAnswer),
    ];
    for (output, kind) in cases {
        let failure = read_output(&output, 1).unwrap_err();
        assert_eq!(failure.kind, kind, "{failure:?}");
    }
}

#[test]
fn the_tools_own_words_are_passed_on() {
    let mut output = output("", 2);
    output.stderr = b"\nwhereis-port: unknown option\nmore\n".to_vec();
    let failure = read_output(&output, 1).unwrap_err();
    assert!(failure.reason.contains("status 2: whereis-port: unknown option"), "{failure:?}");
}

#[test]
fn a_hostile_node_does_not_make_the_client_keep_much() {
    let hop = json!({"kind": "listener", "address": "0.0.0.0", "port": 80, "proto": "tcp", "detail": "x".repeat(5000)});
    let path =
        json!({"hops": [hop], "end": {"ending": "made_up", "process": {"name": "é".repeat(5000)}}});
    let document = json!({"schema_version": 1, "tool_version": "0", "answers": [
        {"verdict": "surely", "paths": vec![path; WAYS + 7], "gaps": []},
    ]});
    let answer = read_output(&output(document.to_string(), 0), 1).unwrap();
    let said = &answer.said[0];
    assert_eq!((said.verdict, said.ways.len(), said.cut), (Verdict::Unknown, WAYS, 7));
    let way = &said.ways[0];
    assert!(
        way.backend.process.as_ref().unwrap().len() < NAME + 8 && way.taken_by.len() < NAME + 8
    );
    assert_eq!(way.backend.ending, Ending::Unknown);
}
