//! What the example `packet` answers.

#[path = "../examples/packet.rs"]
#[expect(dead_code, reason = "the example's own main is not called")]
mod example;

use example::answer;

/// A recording of the repository.
fn recording(name: &str) -> String {
    format!("{}/../../tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn asked(all: &[&str]) -> Result<String, String> {
    answer(&all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>())
}

#[test]
fn a_packet_to_a_published_port() {
    let expected = "\
tcp from 192.0.2.7 to 10.0.0.1:8080 in network namespace 1
  prerouting: passes to 172.17.0.2:80: nat PREROUTING → DOCKER (tcp dport 8080) dnat to 172.17.0.2:80
    forward: passes to 172.17.0.2:80
      postrouting: passes to 172.17.0.2:80
        leaves to 172.17.0.2:80 by docker0
";
    assert_eq!(asked(&[]), Ok(expected.to_owned()));
}

#[test]
fn packets_that_rules_accept_and_drop() {
    let expected = "\
tcp from anybody to 10.0.0.1:22 in network namespace 1
  prerouting: passes
    input: passes: filter INPUT (tcp dport 22) accept
      is for the socket at 10.0.0.1:22
";
    assert_eq!(asked(&["tcp", "anybody", "10.0.0.1:22"]), Ok(expected.to_owned()));
    let expected = "\
udp from anybody to 10.0.0.1:22 in network namespace 1
  prerouting: passes
    input: is dropped: filter INPUT policy
";
    assert_eq!(asked(&["udp", "anybody", "10.0.0.1:22"]), Ok(expected.to_owned()));
}

#[test]
fn a_packet_over_loopback_comes_in_again() {
    let expected = "\
tcp from 127.0.0.1 to 127.0.0.1:8080 in network namespace 1
  output: passes
    postrouting: passes
      prerouting: passes
        input: is dropped: filter INPUT policy
";
    assert_eq!(asked(&["tcp", "127.0.0.1", "127.0.0.1:8080"]), Ok(expected.to_owned()));
}

#[test]
fn a_packet_to_a_node_port_of_a_recording() {
    let recording = recording("k3s.json");
    let said = asked(&[&recording, "tcp", "anybody", "192.168.50.56:30995"]).unwrap();
    let to = |address: &str| {
        format!(
            "  prerouting: passes to {address}:80, 50.0 %: nat PREROUTING → KUBE-SERVICES → \
             KUBE-NODEPORTS (tcp dport 30995) → "
        )
    };
    assert!(said.contains(&to("10.42.0.202")), "{said}");
    assert!(said.contains(&to("10.42.1.188")), "{said}");
    assert!(said.contains("masqueraded: nat POSTROUTING → KUBE-POSTROUTING masquerade"), "{said}");
    assert!(said.ends_with("        leaves to 10.42.1.188:80 by cilium_host\n"), "{said}");
}

#[test]
fn what_is_typed_wrongly_is_said() {
    let wrong = |all: &[&str]| asked(all).unwrap_err();
    assert!(wrong(&["tcp"]).starts_with("usage: "));
    assert!(wrong(&["sctp", "anybody", "10.0.0.1:1"]).starts_with("sctp is neither tcp nor udp"));
    assert!(wrong(&["tcp", "somebody", "10.0.0.1:1"]).starts_with("somebody is no IP address"));
    assert!(wrong(&["tcp", "anybody", "10.0.0.1"]).starts_with("10.0.0.1 is no address with"));
    assert!(wrong(&["tcp", "::1", "10.0.0.1:1"]).contains("different versions of IP"));
}
