//! What becomes of connections: the walk through namespaces, and what it is sure of.

use super::*;

/// `route`, with a next hop.
fn by(mut node: TestNode, netns: NetnsId, destination: &str, prefix: u8, hop: &str) -> TestNode {
    node = node.route(netns, destination, prefix);
    node.routes.last_mut().unwrap().gateway = Some(hop.parse().unwrap());
    node
}

#[test]
fn routes_that_lead_in_a_circle_end() {
    let proxy = "/usr/bin/docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 203.0.113.5 -container-port 80";
    let node = TestNode::new()
        .namespace(A, "router")
        .address(HOST, "198.51.100.1")
        .address(A, "198.51.100.2")
        .veth(HOST, A)
        .veth(A, HOST)
        .route(HOST, "198.51.100.0", 24)
        .route(A, "198.51.100.0", 24)
        .tcp(HOST, "0.0.0.0:8080")
        .held_by(10, HOST, proxy);
    let node = by(node, HOST, "203.0.113.0", 24, "198.51.100.2");
    let node = by(node, A, "0.0.0.0", 0, "198.51.100.1");
    let answer = node.ask("8080");
    assert_eq!(answer.paths.len(), 1, "{:?}", shape(&answer));
    let why = answer.paths[0].end.why.as_deref().unwrap_or_default();
    assert!(why.contains("circle"), "{why}");
}
