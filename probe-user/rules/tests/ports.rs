//! What the example `ports` answers.

#[path = "../examples/ports.rs"]
#[expect(dead_code, reason = "the example's own main is not called")]
mod example;

use example::answer;

/// A recording of the repository.
fn recording(name: &str) -> String {
    format!("{}/../../tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn ports_of_the_few_rules() {
    let expected = "\
network namespace 1:
  tcp 8080 → 172.17.0.2:80 (Docker, published port)
";
    assert_eq!(answer(&[]).unwrap(), expected);
}

#[test]
fn ports_of_a_recording() {
    let expected = "\
network namespace 4026532177:
  tcp 30001 → 172.18.0.3:30000 (Docker, published port)
network namespace 4026532270:
  tcp 127.0.0.11:53 → 127.0.0.11:36855 (Docker, embedded DNS server)
  udp 127.0.0.11:53 → 127.0.0.11:41821 (Docker, embedded DNS server)
network namespace 4026532964:
  tcp 127.0.0.11:53 → 127.0.0.11:37193 (Docker, embedded DNS server)
  udp 127.0.0.11:53 → 127.0.0.11:37006 (Docker, embedded DNS server)
  tcp 30518 → 10.244.0.5:80 (kube-proxy (iptables), NodePort, default/nginx-app)
network namespace 4026533039:
  tcp 127.0.0.11:53 → 127.0.0.11:33109 (Docker, embedded DNS server)
  udp 127.0.0.11:53 → 127.0.0.11:35020 (Docker, embedded DNS server)
";
    assert_eq!(answer(&[recording("kind-1.24.json")]).unwrap(), expected);
    // A machine without rules.
    let none = answer(&[recording("linux-6.1.json")]).unwrap_err();
    assert_eq!(none, "no packet rules are in it");
}

#[test]
fn what_is_typed_wrongly_is_said() {
    let wrong = |arg: &str| answer(&[arg.to_owned()]).unwrap_err();
    assert!(wrong("--help").starts_with("usage: "));
    assert!(wrong("/nowhere/at/all.json").starts_with("can't read /nowhere/at/all.json: "));
    assert!(
        wrong(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).contains("can't understand ")
    );
}
