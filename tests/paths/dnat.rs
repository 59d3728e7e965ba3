//! Hand-written translations, and those of Docker and its kind.

use std::net::Ipv4Addr;

use lab::{Backend, Netns, Proc, Test};

use crate::paths::node::{Case, LOOPBACK, Node, case, with_each};

/// What Docker writes for `-p PORT:TO`, on a bridge `br0`.
fn docker_rules(port: u16, to: &str, network: &str, with_proxy: bool) -> String {
    let not_loopback = if with_proxy { "! -d 127.0.0.0/8 " } else { "" };
    let (to_ip, to_port) = to.split_once(':').unwrap_or((to, "80"));
    let hairpin = if with_proxy {
        "-A DOCKER -i br0 -j RETURN\n".to_owned()
    } else {
        "-A POSTROUTING -o br0 -m addrtype --src-type LOCAL -j MASQUERADE\n".to_owned()
    };
    let not_bridge = if with_proxy { "! -i br0 " } else { "" };
    format!(
        "*nat\n:DOCKER - [0:0]\n{hairpin}\
         -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
         -A OUTPUT {not_loopback}-m addrtype --dst-type LOCAL -j DOCKER\n\
         -A POSTROUTING -s {network} ! -o br0 -j MASQUERADE\n\
         -A POSTROUTING -s {to_ip}/32 -d {to_ip}/32 -p tcp -m tcp --dport {to_port} \
            -j MASQUERADE\n\
         -A DOCKER {not_bridge}-p tcp -m tcp --dport {port} -j DNAT --to-destination {to}\n\
         COMMIT\n\
         *filter\n:DOCKER - [0:0]\n:DOCKER-USER - [0:0]\n\
         -A FORWARD -j DOCKER-USER\n\
         -A FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A FORWARD -o br0 -j DOCKER\n\
         -A FORWARD -i br0 ! -o br0 -j ACCEPT\n\
         -A FORWARD -i br0 -o br0 -j ACCEPT\n\
         -A DOCKER -d {to_ip}/32 ! -i br0 -o br0 -p tcp -m tcp --dport {to_port} -j ACCEPT\n\
         -A DOCKER-USER -j RETURN\nCOMMIT\n"
    )
}

/// The real docker-proxy, as dockerd starts it.
pub(crate) fn docker_proxy(
    node: &Node,
    port: u16,
    to: Ipv4Addr,
    to_port: u16,
) -> anyhow::Result<Proc> {
    let command = format!(
        "exec 3>/dev/null docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port {port} \
         -container-ip {to} -container-port {to_port}"
    );
    let proxy = node.lab.spawn(node.host(), &["bash", "-c", &command])?;
    wait_for(node.host(), port)?;
    Ok(proxy)
}

/// Waits until something listens there.
fn wait_for(netns: &Netns, port: u16) -> Test {
    for _ in 0..200 {
        if netns.connect("tcp", (LOOPBACK, port).into())? != lab::Landing::Refused {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    anyhow::bail!("nothing listens on {port}")
}

/// A pod with a server, and a port of the host that Docker's rules lead there.
fn published(backend: Backend, with_proxy: bool) -> anyhow::Result<(Node, u16, Option<Proc>)> {
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let ip = node.serve_in_pod("web", inner)?;
    let network = format!("10.{}.1.0/24", node.number());
    let rules = docker_rules(port, &format!("{ip}:{inner}"), &network, with_proxy);
    node.lab.iptables(node.host(), backend, &rules)?;
    let proxy = if with_proxy {
        Some(docker_proxy(&node, port, ip, inner)?)
    } else {
        node.host().sysctl("ipv4/conf/br0/route_localnet", "1")?;
        None
    };
    Ok((node, port, proxy))
}

#[test]
fn a_published_port_with_a_proxy_beside_the_rules() -> Test {
    lab::rules_or_skip!();
    if !lab::has("docker-proxy") {
        lab::skip("docker-proxy is not installed (package docker.io)");
        return Ok(());
    }
    with_each(|backend| {
        let (node, port, _proxy) = published(backend, true)?;
        node.check(
            &port.to_string(),
            &[
                case("loopback", LOOPBACK, &["web"]),
                case("node", node.ip(), &["web"]),
                case("outside", node.ip(), &["web"]),
                case("containers", node.gateway(), &["web"]),
            ],
        )?;
        Ok(())
    })
}

#[test]
fn a_published_port_without_any_socket() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let (node, port, _) = published(backend, false)?;
        node.check(
            &port.to_string(),
            &[
                case("loopback", LOOPBACK, &["web"]),
                case("node", node.ip(), &["web"]),
                case("outside", node.ip(), &["web"]),
            ],
        )?;
        Ok(())
    })
}

#[test]
fn a_published_port_of_loopback_needs_route_localnet() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let (node, port, _) = published(backend, false)?;
        node.host().sysctl("ipv4/conf/br0/route_localnet", "0")?;
        node.check(
            &port.to_string(),
            &[
                case("loopback", LOOPBACK, &["timeout"]),
                case("node", node.ip(), &["web"]),
                case("outside", node.ip(), &["web"]),
            ],
        )?;
        Ok(())
    })
}

#[test]
fn what_the_user_drops_in_docker_user_does_not_arrive() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let (node, port, _) = published(backend, false)?;
        node.lab.iptables(
            node.host(),
            backend,
            "*filter\n-I DOCKER-USER -i eth0 -j DROP\nCOMMIT\n",
        )?;
        node.check(
            &port.to_string(),
            &[
                case("loopback", LOOPBACK, &["web"]),
                case("node", node.ip(), &["web"]),
                case("outside", node.ip(), &["timeout"]),
            ],
        )?;
        Ok(())
    })
}

#[test]
fn a_policy_of_forward_that_drops_stops_what_was_translated() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let mut node = Node::new()?;
        let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
        let ip = node.serve_in_pod("web", inner)?;
        let rules = format!(
            "*nat\n-A PREROUTING -p tcp --dport {port} -j DNAT --to-destination {ip}:{inner}\n\
             -A OUTPUT -p tcp --dport {port} -j DNAT --to-destination {ip}:{inner}\nCOMMIT\n\
             *filter\n:FORWARD DROP [0:0]\nCOMMIT\n"
        );
        node.lab.iptables(node.host(), backend, &rules)?;
        node.check(
            &port.to_string(),
            &[case("node", node.ip(), &["web"]), case("outside", node.ip(), &["timeout"])],
        )?;
        Ok(())
    })
}

#[test]
fn a_rule_that_rejects_is_told_from_one_that_drops() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let (node, port, _) = published(backend, false)?;
        let reject = "*filter\n-I DOCKER-USER -i eth0 -p tcp -j REJECT --reject-with tcp-reset\n\
            COMMIT\n";
        node.lab.iptables(node.host(), backend, reject)?;
        node.check(
            &port.to_string(),
            &[case("node", node.ip(), &["web"]), case("outside", node.ip(), &["refused"])],
        )?;
        Ok(())
    })
}

#[test]
fn a_redirect_leads_to_another_port_of_the_host() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let mut node = Node::new()?;
        let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
        node.serve_here("web", &format!("tcp 0.0.0.0:{inner}"))?;
        let rules = format!(
            "*nat\n-A PREROUTING -i eth0 -p tcp --dport {port} -j REDIRECT --to-ports {inner}\n\
             COMMIT\n"
        );
        node.lab.iptables(node.host(), backend, &rules)?;
        node.add_pod()?;
        let cases: &[Case<'_>] = &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", node.ip(), &["refused"]),
            case("outside", node.ip(), &["web"]),
            case("containers", node.gateway(), &["refused"]),
        ];
        node.check(&port.to_string(), cases)?;
        Ok(())
    })
}

#[test]
fn a_redirect_takes_the_port_from_the_server_that_listens_on_it() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let mut node = Node::new()?;
        let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
        node.serve_here("behind", &format!("tcp 0.0.0.0:{inner}"))?;
        node.serve_here("passed-over", &format!("tcp 0.0.0.0:{port}"))?;
        let rules = format!(
            "*nat\n-A PREROUTING -p tcp --dport {port} -j REDIRECT --to-ports {inner}\nCOMMIT\n"
        );
        node.lab.iptables(node.host(), backend, &rules)?;
        node.check(
            &port.to_string(),
            &[
                case("loopback", LOOPBACK, &["passed-over"]),
                case("node", node.ip(), &["passed-over"]),
                case("outside", node.ip(), &["behind"]),
            ],
        )?;
        Ok(())
    })
}

#[test]
fn both_backends_at_once_and_the_one_that_came_last_wins() -> Test {
    lab::rules_or_skip!();
    for last in Backend::ALL {
        let mut node = Node::new()?;
        let port = lab::unused_port()?;
        let (one, two) = (lab::unused_port()?, lab::unused_port()?);
        let first = if last == Backend::Nft { Backend::Legacy } else { Backend::Nft };
        let ips = [node.serve_in_pod("first", one)?, node.serve_in_pod("last", two)?];
        for (backend, ip, inner) in [(first, ips[0], one), (last, ips[1], two)] {
            let rules = format!(
                "*nat\n-A PREROUTING -p tcp --dport {port} -j DNAT --to-destination {ip}:{inner}\n\
                 COMMIT\n"
            );
            node.lab.iptables(node.host(), backend, &rules)?;
        }
        // Of two tables of the same priority nothing tells which came last: both
        // may be named, and the one that is reached must be.
        let run = node.lab.whereis(&[&port.to_string()])?;
        let reached = node.outside.connect("tcp", (node.ip(), port).into())?;
        anyhow::ensure!(reached.server() == Some("last"), "THE LAB: {reached}");
        let pid = node.servers.last().map(|server| u64::from(server.pid));
        let ends: Vec<_> = run.paths_in(node.host())?.iter().map(|path| path.pid()).collect();
        anyhow::ensure!(ends.contains(&pid), "{ends:?} without {pid:?}: {}", run.stdout);
    }
    Ok(())
}

#[test]
fn rules_of_native_nftables_with_a_map_a_set_and_numgen() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let inner = lab::unused_port()?;
    let [mapped, in_set, shared, nobody] = [(); 4].map(|()| lab::unused_port());
    let (mapped, in_set, shared, nobody) = (mapped?, in_set?, shared?, nobody?);
    let a = node.serve_in_pod("a", inner)?;
    let b = node.serve_in_pod("b", inner)?;
    let rules = format!(
        "table ip hand {{
           map ports {{ type inet_service : ipv4_addr . inet_service;
             elements = {{ {mapped} : {a} . {inner}, {nobody} : {a} . 9 }} }}
           set published {{ type ipv4_addr . inet_service;
             elements = {{ {ip} . {in_set} }} }}
           chain pick {{
             meta l4proto tcp dnat ip to numgen inc mod 2 map {{ 0 : {a}, 1 : {b} }} : {inner}
           }}
           chain both {{
             fib daddr type local dnat ip to tcp dport map @ports
             ip daddr . tcp dport @published dnat to {b}:{inner}
             tcp dport {shared} goto pick
           }}
           chain pre {{ type nat hook prerouting priority dstnat; jump both; }}
           chain out {{ type nat hook output priority -100; ip daddr != 127.0.0.0/8 jump both; }}
         }}",
        ip = node.ip()
    );
    node.lab.nft(node.host(), &rules)?;
    let everywhere = |lands: &'static [&'static str]| {
        [
            case("loopback", LOOPBACK, &["refused"]),
            case("node", node.ip(), lands),
            case("outside", node.ip(), lands),
        ]
    };
    node.check(&mapped.to_string(), &everywhere(&["a"]))?;
    node.check(&in_set.to_string(), &everywhere(&["b"]))?;
    node.check(&shared.to_string(), &everywhere(&["a", "b"]))?;
    node.check(&nobody.to_string(), &everywhere(&["refused"]))
}

#[test]
fn a_chain_of_three_namespaces_is_followed_to_the_last() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let mut node = Node::new()?;
        let [port, middle, inner] = [(); 3].map(|()| lab::unused_port());
        let (port, middle, inner) = (port?, middle?, inner?);
        // A pod of the host is itself a node with a pod.
        let nested = node.add_pod()?;
        let nested_ip = node.pod_ip(0);
        let pod = node.lab.netns("inner")?;
        let number = node.number();
        let (near, far) = (format!("10.{number}.2.1"), format!("10.{number}.2.2"));
        node.lab.veth(
            (&nested, "veth0", &format!("{near}/24")),
            (&pod, "eth0", &format!("{far}/24")),
        )?;
        pod.ip(&["route", "add", "default", "via", &near])?;
        nested.sysctl("ipv4/ip_forward", "1")?;
        node.serve(&pod, "deep", &format!("tcp 0.0.0.0:{inner}"))?;
        let dnat = |port: u16, to: &str| {
            format!(
                "*nat\n-A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport {port} \
                 -j DNAT --to-destination {to}\n\
                 -A OUTPUT -m addrtype --dst-type LOCAL -p tcp --dport {port} \
                 -j DNAT --to-destination {to}\nCOMMIT\n"
            )
        };
        let on_host = dnat(port, &format!("{nested_ip}:{middle}"));
        node.lab.iptables(node.host(), backend, &on_host)?;
        node.lab.iptables(&nested, backend, &dnat(middle, &format!("{far}:{inner}")))?;
        node.check(
            &port.to_string(),
            &[case("node", node.ip(), &["deep"]), case("outside", node.ip(), &["deep"])],
        )?;
        Ok(())
    })
}

#[test]
fn a_udp_port_is_translated_by_its_own_rule_only() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let pod = node.add_pod()?;
    node.serve(&pod, "dns", &format!("udp 0.0.0.0:{inner}"))?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let rules = format!(
        "*nat\n-A PREROUTING -p udp --dport {port} -j DNAT --to-destination {}:{inner}\nCOMMIT\n",
        node.pod_ip(0)
    );
    node.lab.iptables(node.host(), Backend::Nft, &rules)?;
    node.check(&format!("{port}/udp"), &[case("outside", node.ip(), &["dns"])])?;
    node.check(
        &format!("{port}/tcp"),
        &[case("outside", node.ip(), &["web"]), case("loopback", LOOPBACK, &["web"])],
    )
}

#[test]
fn a_translation_to_an_address_that_nobody_has_leads_nowhere() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let mut node = Node::new()?;
        let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
        node.add_pod()?;
        node.serve_here("passed-over", &format!("tcp 0.0.0.0:{port}"))?;
        let gone = node.pod_ip(77);
        let rules = format!(
            "*nat\n-A PREROUTING -p tcp --dport {port} -j DNAT --to-destination {gone}:{inner}\n\
             COMMIT\n"
        );
        node.lab.iptables(node.host(), backend, &rules)?;
        node.check(
            &port.to_string(),
            &[
                case("loopback", LOOPBACK, &["passed-over"]),
                case("outside", node.ip(), &["timeout"]),
            ],
        )?;
        Ok(())
    })
}
