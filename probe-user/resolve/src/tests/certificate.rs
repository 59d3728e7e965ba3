//! Which listeners are asked for a certificate, and what follows from it.

use std::cell::RefCell;

use super::*;
use whereis_port_model::{EvidenceSource, GapKind, GapSource, Validity};

/// What listeners show, and who was asked.
#[derive(Default)]
pub(super) struct Shown {
    by: Vec<(&'static str, Certificate)>,
    asked: RefCell<Vec<Vec<String>>>,
}

impl Shown {
    pub(super) fn ask(&self, asks: &[TlsAsk]) -> Vec<Read<Option<Certificate>>> {
        let named = |ask: &TlsAsk| format!("{} {}:{}", ask.netns, ask.address, ask.port);
        self.asked.borrow_mut().push(asks.iter().map(named).collect());
        let answer = |ask: &TlsAsk| match self.by.iter().find(|(who, _)| *who == named(ask)) {
            Some((_, certificate)) => Read::whole(Some(certificate.clone())),
            None => {
                let gap = Gap::new(
                    Impact::Name,
                    GapSource::new(GapKind::Certificate, named(ask)),
                    "what it sends is not TLS",
                );
                Read::partial(None, gap)
            }
        };
        asks.iter().map(answer).collect()
    }
}

/// The kind node, whose API server shows a certificate of days 10 to 20; it is day `day`.
fn showing(day: u64) -> TestNode {
    let mut node = kind_node();
    let certificate =
        Certificate { from: 10 * 86_400, until: 20 * 86_400, ..Certificate::default() };
    node.certificates.by.push(("200 127.0.0.1:6443", certificate));
    node.host.now = day * 86_400;
    node
}

fn asked(node: &TestNode, targets: &[&str]) -> Vec<Answer> {
    let mut answers: Vec<Answer> = targets.iter().map(|target| node.ask(target)).collect();
    crate::add_certificates(node, &mut answers);
    answers
}

#[test]
fn the_listener_at_the_end_is_asked_in_its_own_namespace_and_once() {
    let node = showing(15);
    let answers = asked(&node, &["20971", "6443"]);
    // Not docker-proxy, which only passes it on.
    assert_eq!(*node.certificates.asked.borrow(), [["200 127.0.0.1:6443"]]);
    for answer in &answers {
        let served = answer.paths[0].end.certificate.as_ref().unwrap();
        assert_eq!(served.validity, Validity::Valid);
        assert_eq!(served.certificate.until, 20 * 86_400);
    }
}

#[test]
fn whether_it_is_valid_follows_from_the_nodes_clock() {
    for (day, validity, says) in [
        (15, Validity::Valid, "valid by this node's clock, for 5 days"),
        (9, Validity::NotYet, "not valid before 1 day from now by this node's clock"),
        (23, Validity::Expired, "expired 3 days ago by this node's clock"),
    ] {
        let answers = asked(&showing(day), &["20971"]);
        let end = &answers[0].paths[0].end;
        assert_eq!(end.certificate.as_ref().map(|served| served.validity), Some(validity));
        let evidence =
            end.evidence.iter().find(|e| e.source == EvidenceSource::TlsHandshake).unwrap();
        assert!(evidence.detail.contains(says), "{}", evidence.detail);
    }
}

#[test]
fn a_listener_without_tls_is_a_gap_and_changes_nothing_else() {
    let node = TestNode::new().tcp(HOST, "0.0.0.0:22").held_by(5, HOST, "sshd");
    let plain = node.ask("22");
    let answers = asked(&node, &["22"]);
    assert_eq!(answers[0].verdict, Verdict::Found);
    assert_eq!(answers[0].paths, plain.paths);
    let gap = answers[0].gaps.last().unwrap();
    assert_eq!((gap.impact, gap.reason.as_str()), (Impact::Name, "what it sends is not TLS"));
}

#[test]
fn every_bound_address_has_one_to_connect_to() {
    for (bound, expected) in [
        ("0.0.0.0:443", "127.0.0.1"),
        ("[::]:443", "127.0.0.1"),
        ("[::1]:443", "::1"),
        ("192.0.2.10:443", "192.0.2.10"),
        ("[::ffff:192.0.2.10]:443", "192.0.2.10"),
        ("127.0.0.53:443", "127.0.0.53"),
    ] {
        let node = TestNode::new().tcp(HOST, bound).held_by(5, HOST, "nginx");
        asked(&node, &["443"]);
        assert_eq!(*node.certificates.asked.borrow(), [[format!("{HOST} {expected}:443")]]);
    }
    let mut only6 = TestNode::new().tcp(HOST, "[::]:443").held_by(5, HOST, "nginx");
    only6.sockets[0].v6only = Some(true);
    asked(&only6, &["443"]);
    assert_eq!(*only6.certificates.asked.borrow(), [[format!("{HOST} ::1:443")]]);
}

#[test]
fn nothing_is_sent_that_could_leave_the_node() {
    // Bound by IP_FREEBIND, or by a failover that waits for its address.
    for (bound, why) in [("198.51.100.9:443", "no interface"), ("[fe80::1]:443", "link-local")] {
        let node = TestNode::new().tcp(HOST, bound).held_by(5, HOST, "haproxy");
        let answers = asked(&node, &["443"]);
        assert_eq!(*node.certificates.asked.borrow(), [Vec::<String>::new()]);
        let gaps = &answers[0].gaps;
        assert!(gaps.iter().any(|g| g.reason.contains(why)), "{gaps:?}");
    }
    let udp = TestNode::new().socket(HOST, Proto::Udp, "0.0.0.0:443").held_by(5, HOST, "quic");
    let answers = asked(&udp, &["443"]);
    assert!(answers[0].gaps.is_empty(), "{:?}", answers[0].gaps);
}
