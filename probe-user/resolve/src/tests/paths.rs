//! What becomes of connections: the walk through namespaces, and what it is sure of.

use super::*;
use whereis_port_model::{Balancer, Server};

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

/// A service of a balancer on one port of the host, with servers and their weights.
fn service(balancer: Balancer, at: &str, servers: &[(&str, u32)]) -> Frontend {
    let at: std::net::SocketAddr = at.parse().unwrap();
    let server = |(to, weight): &(&str, u32)| Server {
        to: to.parse().unwrap(),
        weight: Some(*weight),
        active: true,
        state: None,
        method: None,
        connections: None,
    };
    Frontend {
        netns: HOST,
        balancer,
        proto: Some(6),
        address: Some(at.ip()),
        port: at.port(),
        mark: None,
        kind: None,
        scope: None,
        scheduler: None,
        affinity: None,
        id: None,
        proxy_port: None,
        sources: None,
        flags: Vec::new(),
        backends: servers.iter().map(server).collect(),
        name: None,
        source: "test".to_owned(),
    }
}

fn balanced(frontend: Frontend) -> TestNode {
    let mut node = TestNode::new().tcp(HOST, "0.0.0.0:9000").held_by(10, HOST, "web");
    node.frontends.push(frontend);
    node
}

#[test]
fn a_range_of_ports_has_those_of_balancers() {
    let frontend = service(Balancer::Cilium, "192.0.2.10:8085", &[("192.0.2.10:9000", 1)]);
    let answer = balanced(frontend).ask("8000-8100");
    assert_eq!(shape(&answer), ["192.0.2.10:8085 > 192.0.2.10:9000 > 0.0.0.0:9000 > web"]);
}

#[test]
fn weights_as_big_as_the_kernel_takes_them() {
    let half = ("192.0.2.10:9000", i32::MAX.unsigned_abs());
    let frontend = service(Balancer::Ipvs, "192.0.2.10:80", &[half, half, half]);
    let answer = balanced(frontend).ask("80");
    assert!(answer.paths[0].hops[1].detail.starts_with("33 %"), "{:?}", answer.paths);
}

#[test]
fn a_service_without_a_port_takes_every_port() {
    let frontend = service(Balancer::Ipvs, "192.0.2.10:0", &[("192.0.2.10:0", 1)]);
    let answer = balanced(frontend).ask("192.0.2.10:9000");
    let through = "192.0.2.10:9000 > 192.0.2.10:9000 > 0.0.0.0:9000 > web";
    assert!(shape(&answer).iter().any(|path| path == through), "{:?}", shape(&answer));
}
