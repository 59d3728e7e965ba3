//! Nodes inside containers, and services that lead to services.

use std::net::Ipv4Addr;

use lab::kube::{Endpoint, Proxy, Service, Shape};
use lab::{Backend, Lab, Netns, Test};

use crate::paths::node::{LOOPBACK, Node, case, with_each};

/// A pod of the node that is in the namespace `node`, joined to it by a pair.
fn pod(lab: &Lab, node: &Netns, name: &str, near: Ipv4Addr, ip: Ipv4Addr) -> anyhow::Result<Netns> {
    let pod = lab.netns(name)?;
    let link = format!("veth-{name}");
    lab.veth((node, &link, &format!("{near}/24")), (&pod, "eth0", &format!("{ip}/24")))?;
    pod.ip(&["route", "add", "default", "via", &near.to_string()])?;
    for name in ["ip_forward", "conf/all/route_localnet"] {
        node.sysctl(&format!("ipv4/{name}"), "1")?;
    }
    Ok(pod)
}

/// Leads a port of the host to an address: at all of its addresses, from all places.
fn publish(node: &Node, port: u16, to: &str) -> Test {
    let rules = format!(
        "*nat\n\
         -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport {port} -j DNAT --to {to}\n\
         -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -p tcp --dport {port} \
            -j DNAT --to {to}\n\
         COMMIT\n"
    );
    node.lab.iptables(node.host(), Backend::Nft, &rules)
}

#[test]
fn a_published_port_leads_through_the_node_port_of_a_node_in_a_container() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let mut node = Node::new()?;
        let [port, node_port, inner] = [(); 3].map(|()| lab::unused_port());
        let (port, node_port, inner) = (port?, node_port?, inner?);
        let kind = node.add_pod()?;
        let number = node.number();
        let near = Ipv4Addr::new(10, number, 44, 1);
        let ip = Ipv4Addr::new(10, number, 44, 5);
        let nginx = pod(&node.lab, &kind, "nginx", near, ip)?;
        node.serve(&nginx, "nginx", &format!("tcp 0.0.0.0:{inner}"))?;
        let service = Service::new("nginx", Ipv4Addr::new(10, number, 96, 7))
            .on(node_port)
            .to(&[Endpoint::here(ip, inner)]);
        let proxy = Proxy::new(&format!("10.{number}.44.0/24"), vec![service]);
        node.lab.iptables(&kind, backend, &proxy.iptables(Shape::Current))?;
        let kind_ip = node.pod_ip(0);
        publish(&node, port, &format!("{kind_ip}:{node_port}"))?;
        node.check(
            &port.to_string(),
            &[
                case("loopback", LOOPBACK, &["refused"]),
                case("node", node.ip(), &["nginx"]),
                case("outside", node.ip(), &["nginx"]),
            ],
        )?;
        // The NodePort itself is on the node, and the node is the container.
        node.check(
            &node_port.to_string(),
            &[
                case("loopback", LOOPBACK, &["refused"]),
                case("node", kind_ip, &["nginx"]),
                case("outside", node.ip(), &["refused"]),
            ],
        )?;
        Ok(())
    })
}

#[test]
fn two_nodes_with_pods_of_the_same_address_are_told_apart() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let inner = lab::unused_port()?;
    let number = node.number();
    let near = Ipv4Addr::new(10, number, 44, 1);
    let ip = Ipv4Addr::new(10, number, 44, 5);
    let mut ports = Vec::new();
    for (n, name) in ["one", "two"].into_iter().enumerate() {
        let kind = node.add_pod()?;
        let inside = pod(&node.lab, &kind, name, near, ip)?;
        node.serve(&inside, name, &format!("tcp 0.0.0.0:{inner}"))?;
        let (port, node_port) = (lab::unused_port()?, lab::unused_port()?);
        let service = Service::new("web", Ipv4Addr::new(10, number, 96, 7))
            .on(node_port)
            .to(&[Endpoint::here(ip, inner)]);
        let proxy = Proxy::new(&format!("10.{number}.44.0/24"), vec![service]);
        node.lab.iptables(&kind, Backend::Nft, &proxy.iptables(Shape::Current))?;
        let kind_ip = node.pod_ip(u8::try_from(n)?);
        publish(&node, port, &format!("{kind_ip}:{node_port}"))?;
        ports.push((port, [name]));
    }
    for (port, name) in &ports {
        node.check(
            &port.to_string(),
            &[case("node", node.ip(), name), case("outside", node.ip(), name)],
        )?;
    }
    Ok(())
}

#[test]
fn a_port_of_k3s_service_lb_leads_through_its_pod_to_the_service() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let web = node.serve_in_pod("web", inner)?;
    let svclb = node.add_pod()?;
    let svclb_ip = node.pod_ip(1);
    let number = node.number();
    let cluster_ip = Ipv4Addr::new(10, number, 96, 9);
    let service = Service::new("web", cluster_ip).to(&[Endpoint::here(web, inner)]);
    let proxy = Proxy::new(&format!("10.{number}.1.0/24"), vec![service]);
    node.host().sysctl("ipv4/conf/all/route_localnet", "1")?;
    node.lab.iptables(node.host(), Backend::Nft, &proxy.iptables(Shape::Current))?;
    publish(&node, port, &format!("{svclb_ip}:{port}"))?;
    // What klipper-lb writes in its pod.
    svclb.sysctl("ipv4/ip_forward", "1")?;
    let rules = format!(
        "*nat\n-A PREROUTING ! -s {cluster_ip}/32 -p tcp -m tcp --dport {port} -j DNAT \
         --to-destination {cluster_ip}:80\n\
         -A POSTROUTING -d {cluster_ip}/32 -p tcp -j MASQUERADE\nCOMMIT\n"
    );
    node.lab.iptables(&svclb, Backend::Nft, &rules)?;
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", node.ip(), &["web"]),
            case("outside", node.ip(), &["web"]),
        ],
    )
}

#[test]
fn an_external_address_of_a_service_takes_the_port_of_the_host() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let mut node = Node::new()?;
        let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
        let web = node.serve_in_pod("web", inner)?;
        node.serve_here("passed-over", &format!("tcp 0.0.0.0:{port}"))?;
        let mut service = Service::new("web", Ipv4Addr::new(10, node.number(), 96, 9));
        service.port = port;
        service.external_ips = vec![node.ip()];
        service.endpoints = vec![Endpoint::here(web, inner)];
        let proxy = Proxy::new(&format!("10.{}.1.0/24", node.number()), vec![service]);
        node.lab.iptables(node.host(), backend, &proxy.iptables(Shape::Current))?;
        let gateway = node.gateway();
        node.check(
            &port.to_string(),
            &[
                case("loopback", LOOPBACK, &["passed-over"]),
                case("node", gateway, &["passed-over"]),
                case("node", node.ip(), &["web"]),
                case("outside", node.ip(), &["web"]),
            ],
        )?;
        Ok(())
    })
}

#[test]
fn a_node_port_beats_a_published_port_of_the_same_number() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let mut node = Node::new()?;
        let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
        let service = node.serve_in_pod("service", inner)?;
        let published = node.serve_in_pod("published", inner)?;
        let rules = format!(
            "*nat\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
             -A DOCKER -p tcp --dport {port} -j DNAT --to-destination {published}:{inner}\n\
             COMMIT\n"
        );
        node.lab.iptables(node.host(), backend, &rules)?;
        let service = Service::new("web", Ipv4Addr::new(10, node.number(), 96, 9))
            .on(port)
            .to(&[Endpoint::here(service, inner)]);
        let proxy = Proxy::new(&format!("10.{}.1.0/24", node.number()), vec![service]);
        node.lab.iptables(node.host(), backend, &proxy.iptables(Shape::Current))?;
        node.check(
            &port.to_string(),
            &[case("node", node.ip(), &["service"]), case("outside", node.ip(), &["service"])],
        )?;
        Ok(())
    })
}

#[test]
fn a_cluster_address_leads_to_the_pods() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let mut node = Node::new()?;
        let inner = lab::unused_port()?;
        let mut endpoints = Vec::new();
        for name in ["one", "two"] {
            endpoints.push(Endpoint::here(node.serve_in_pod(name, inner)?, inner));
        }
        node.add_pod()?;
        let ip = Ipv4Addr::new(10, node.number(), 96, 9);
        let mut service = Service::new("web", ip).to(&endpoints);
        service.port = lab::unused_port()?;
        let port = service.port;
        let proxy = Proxy::new(&format!("10.{}.1.0/24", node.number()), vec![service]);
        node.lab.iptables(node.host(), backend, &proxy.iptables(Shape::Current))?;
        node.check(
            &format!("{ip}:{port}"),
            &[case("node", ip, &["one", "two"]), case("containers", ip, &["one", "two"])],
        )?;
        Ok(())
    })
}

#[test]
fn translations_in_a_circle_lead_nowhere_and_end() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let (port, back) = (lab::unused_port()?, lab::unused_port()?);
    let pod = node.add_pod()?;
    let pod_ip = node.pod_ip(0);
    pod.sysctl("ipv4/ip_forward", "1")?;
    publish(&node, port, &format!("{pod_ip}:{back}"))?;
    let gateway = node.gateway();
    let rules = format!(
        "*nat\n-A PREROUTING -p tcp --dport {back} -j DNAT --to-destination {gateway}:{port}\n\
         -A POSTROUTING -j MASQUERADE\nCOMMIT\n"
    );
    node.lab.iptables(&pod, Backend::Nft, &rules)?;
    let rules = "*nat\n-A POSTROUTING -o br0 -j MASQUERADE\nCOMMIT\n";
    node.lab.iptables(node.host(), Backend::Nft, rules)?;
    node.check(&port.to_string(), &[case("outside", node.ip(), &["timeout"])])
}
