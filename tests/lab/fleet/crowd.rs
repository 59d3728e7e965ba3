//! The two hundred nodes that tests and the bench ask.

use std::time::Duration;

use super::{Does, Has, answer, nothing, service_path};

/// The port that is asked for.
pub const PORT: u16 = 30518;

/// How many nodes there are.
pub const NODES: usize = 200;

/// The name of node `n`.
pub fn name(n: usize) -> String {
    format!("n{n:03}")
}

/// Two hundred nodes with a Service of three pods. Most agree; some are slow, and the last
/// twenty are each another kind of trouble, of which `n188` never answers.
pub fn crowd() -> Vec<(String, Has)> {
    (0..NODES).map(|n| (name(n), node(n))).collect()
}

fn node(n: usize) -> Has {
    let name = name(n);
    // Three nodes have a pod each.
    let ways: Vec<_> = (0..3)
        .map(|pod| {
            let address = format!("10.244.{pod}.5");
            let there = (n == pod).then(|| format!("web-{pod}"));
            service_path(PORT, "web", &address, there.as_deref())
        })
        .collect();
    let says = |text| Does::Says(text, 0);
    let usual = answer(&name, &ways);
    Has::Agent(match n {
        // The rules of these are old: they send to a pod that is gone.
        180 | 181 => says(answer(&name, &[service_path(PORT, "web", "10.244.9.9", None)])),
        182 | 183 => Does::Says(nothing(&name, true), 1),
        184 => Does::Says(nothing(&name, false), 3),
        185 => return Has::Nothing,
        186 => return Has::Waiting("ImagePullBackOff".to_owned()),
        187 => Does::BreaksOff(usual),
        188 => Does::Hangs,
        189 => Does::Babbles,
        190 => Does::HasNoTool,
        191 => Does::Says(r#"{"schema_version": 99, "tool_version": "9.0.0"}"#.into(), 0),
        192 => Does::Says("\u{1b}[2J\u{1b}]0;owned\u{7} hello".into(), 0),
        193 => Does::Complains("whereis-port: \u{1b}[31munrecognised\u{202e}\n".to_owned(), 2),
        194 => Does::Refused(403, forbidden()),
        195 => Does::Refused(
            500,
            "error dialing backend: dial tcp 10.0.0.195:10250: i/o timeout".to_owned(),
        ),
        196 => says(answer(
            &name,
            &[service_path(PORT, "web\u{1b}[2J\u{202e}", "10.244.0.5", Some("\u{1b}]0;x\u{7}pod"))],
        )),
        197 => Does::Says(usual.get(..usual.len() / 2).unwrap_or_default().into(), 0),
        198 => says("[".repeat(1 << 20).into()),
        n if n % 7 == 0 => Does::After(Duration::from_millis(400), Box::new(says(usual))),
        n if n % 31 == 0 => Does::After(Duration::from_millis(1500), Box::new(says(usual))),
        _ => says(usual),
    })
}

/// What an API server says that does not allow exec.
pub fn forbidden() -> String {
    "pods \"a\" is forbidden: User \"dev\" cannot create resource \"pods/exec\" in API group \"\" in the namespace \"whereis-port\"".to_owned()
}
