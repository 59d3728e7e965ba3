//! Ways into a node that are not the usual ones.

use std::net::Ipv4Addr;

use lab::{Backend, Test};

use crate::paths::node::{LOOPBACK, Node, case, with_each};

#[test]
fn what_is_for_an_address_of_the_loopback_device_comes_in_by_another() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let mut node = Node::new()?;
        let port = lab::unused_port()?;
        let address = Ipv4Addr::new(10, node.number(), 9, 9);
        node.host().address("lo", &format!("{address}/32"))?;
        node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
        let rules = "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n";
        node.lab.iptables(node.host(), backend, rules)?;
        node.check(
            &port.to_string(),
            &[
                case("loopback", LOOPBACK, &["web"]),
                case("node", address, &["web"]),
                case("outside", address, &["timeout"]),
            ],
        )
    })
}

#[test]
fn a_rule_for_the_last_of_many_addresses() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let to = node.serve_in_pod("web", inner)?;
    let nth = |n: u8| Ipv4Addr::new(10, node.number(), 1, n);
    for n in 100..130 {
        node.host().address("br0", &format!("{}/24", nth(n)))?;
    }
    let rules = format!(
        "*nat\n-A OUTPUT -d {}/32 -p tcp --dport {port} -j DNAT --to-destination {to}:{inner}\n\
         COMMIT\n",
        nth(129)
    );
    node.lab.iptables(node.host(), Backend::Nft, &rules)?;
    node.check(
        &port.to_string(),
        &[case("node", nth(129), &["web"]), case("node", nth(100), &["refused"])],
    )
}

#[test]
fn a_chain_of_a_device_drops() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    node.add_pod()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let rules = format!(
        "table netdev filter {{ chain in {{ type filter hook ingress device \"br0\" priority 0; \
         policy accept; tcp dport {port} drop; }}\n }}"
    );
    node.lab.nft(node.host(), &rules)?;
    node.check(
        &port.to_string(),
        &[
            case("node", node.ip(), &["web"]),
            case("outside", node.ip(), &["web"]),
            case("containers", node.gateway(), &["timeout"]),
        ],
    )
}

#[test]
fn what_a_transparent_proxy_takes_is_filtered() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    node.add_pod()?;
    let (port, proxy) = (lab::unused_port()?, lab::unused_port()?);
    node.serve_here("proxy", &format!("tcp 0.0.0.0:{proxy}"))?;
    node.host().ip(&["rule", "add", "fwmark", "1", "lookup", "100"])?;
    node.host().ip(&["route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "100"])?;
    let rules = format!(
        "*mangle\n-A PREROUTING -p tcp --dport {port} -j TPROXY --on-port {proxy} \
           --on-ip 127.0.0.1 --tproxy-mark 1\nCOMMIT\n\
         *filter\n-A INPUT -p tcp --dport {port} -j DROP\nCOMMIT\n"
    );
    node.lab.iptables(node.host(), Backend::Nft, &rules)?;
    node.check(&port.to_string(), &[case("containers", node.gateway(), &["timeout"])])
}

#[test]
fn a_listener_at_an_address_that_only_a_local_route_takes() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let (port, other) = (lab::unused_port()?, lab::unused_port()?);
    let n = node.number();
    let (address, v6) = (Ipv4Addr::new(10, n, 200, 8), format!("fd00:{n}:200::8"));
    node.host().ip(&["route", "add", "local", &format!("10.{n}.200.0/24"), "dev", "lo"])?;
    node.host().ip(&["-6", "route", "add", "local", &format!("fd00:{n}:200::/64"), "dev", "lo"])?;
    node.outside.ip(&["-6", "route", "add", "default", "via", &format!("fd00:{n}::1")])?;
    node.serve_here("web", &format!("tcp {address}:{port}"))?;
    // IPv6 binds to addresses of interfaces only, unless it is told.
    node.host().sysctl("ipv6/ip_nonlocal_bind", "1")?;
    node.serve_here("web6", &format!("tcp [{v6}]:{other}"))?;
    let (port, other) = (port.to_string(), other.to_string());
    node.check(&port, &[case("node", address, &["web"]), case("outside", address, &["web"])])?;
    node.check(&format!("{address}:{port}"), &[case("outside", address, &["web"])])?;
    let v6: std::net::IpAddr = v6.parse()?;
    node.check(&other, &[case("node", v6, &["web6"]), case("outside", v6, &["web6"])])?;
    let run = node.lab.whereis(&[&port])?;
    let said = crate::paths::in_the_way::said(&run, "outside", (address, port.parse()?).into())?;
    anyhow::ensure!(said["code"] == "local_route", "{said}");
    // Without the route it is an address that nobody takes.
    node.host().ip(&["route", "del", "local", &format!("10.{n}.200.0/24"), "dev", "lo"])?;
    let run = node.lab.whereis(&[&port])?;
    let all = run.answer()?["reachable"].to_string();
    anyhow::ensure!(!all.contains("true"), "{all}");
    Ok(())
}

#[test]
fn a_table_for_marked_packets_takes_no_others() -> Test {
    lab::root_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let address = Ipv4Addr::new(10, node.number(), 200, 8);
    // As for a transparent proxy.
    node.host().ip(&["route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "100"])?;
    node.host().ip(&["rule", "add", "fwmark", "1", "lookup", "100"])?;
    node.host().sysctl("ipv4/ip_nonlocal_bind", "1")?;
    node.serve_here("web", &format!("tcp {address}:{port}"))?;
    let run = node.lab.whereis(&[&port.to_string()])?;
    let all = run.answer()?["reachable"].to_string();
    anyhow::ensure!(!all.contains("true"), "{all}");
    Ok(())
}
