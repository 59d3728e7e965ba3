//! NodePorts and cluster addresses of kube-proxy.

use std::net::Ipv4Addr;

use anyhow::{Context as _, ensure};
use lab::kube::{Endpoint, NftShape, Proxy, Service, Shape};
use lab::{Backend, Test};

use crate::paths::node::{LOOPBACK, Node, case, with_each};

/// The ports of the services of [`cluster`].
struct Ports {
    web: u16,
    api: u16,
    empty: u16,
    sticky: u16,
    local: u16,
    none_here: u16,
    target: u16,
}

/// A node of a cluster with two services of three endpoints each, and special ones.
fn cluster() -> anyhow::Result<(Node, Proxy, Ports)> {
    let mut node = Node::new()?;
    let [web, api, empty, sticky, local, none_here, target] = [(); 7].map(|()| lab::unused_port());
    let ports = Ports {
        web: web?,
        api: api?,
        empty: empty?,
        sticky: sticky?,
        local: local?,
        none_here: none_here?,
        target: target?,
    };
    let mut pods = Vec::new();
    for name in ["web1", "web2", "web3", "api1", "api2", "api3"] {
        pods.push(Endpoint::here(node.serve_in_pod(name, ports.target)?, ports.target));
    }
    // One more pod, which is only a client.
    node.add_pod()?;
    node.host().sysctl("ipv4/conf/all/route_localnet", "1")?;
    let ip = |last: u8| Ipv4Addr::new(10, node.number(), 96, last);
    let service = |name: &str, last: u8, port: u16| Service::new(name, ip(last)).on(port);
    let (web, api) = (pods.get(..3).unwrap_or_default(), pods.get(3..).unwrap_or_default());
    let mut sticky = service("sticky", 4, ports.sticky).to(web);
    sticky.affinity = true;
    // The third pod is on another node, as far as kube-proxy knows.
    let mut spread = web.to_vec();
    if let Some(last) = spread.last_mut() {
        last.here = false;
    }
    let mut local = service("local", 5, ports.local).to(&spread);
    local.local = true;
    let far: Vec<Endpoint> = api.iter().map(|pod| Endpoint { here: false, ..*pod }).collect();
    let mut none_here = service("none-here", 6, ports.none_here).to(&far);
    none_here.local = true;
    let mut named = service("api", 2, ports.api).to(api);
    named.port_name = "http".to_owned();
    let services = vec![
        service("web", 1, ports.web).to(web),
        named,
        service("empty", 3, ports.empty),
        sticky,
        local,
        none_here,
    ];
    let proxy = Proxy::new(&format!("10.{}.1.0/24", node.number()), services);
    Ok((node, proxy, ports))
}

const WEB: &[&str] = &["web1", "web2", "web3"];
const API: &[&str] = &["api1", "api2", "api3"];

fn iptables(backend: Backend, shape: Shape) -> Test {
    let (node, proxy, ports) = cluster()?;
    node.lab.iptables(node.host(), backend, &proxy.iptables(shape))?;
    for (port, lands) in [(ports.web, WEB), (ports.api, API)] {
        node.check(
            &port.to_string(),
            &[
                case("loopback", LOOPBACK, lands),
                case("node", node.ip(), lands),
                case("outside", node.ip(), lands),
                case("containers", node.gateway(), lands),
            ],
        )?;
    }
    node.check(
        &ports.empty.to_string(),
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", node.ip(), &["refused"]),
            case("outside", node.ip(), &["refused"]),
        ],
    )?;
    node.check(
        &ports.sticky.to_string(),
        &[
            case("loopback", LOOPBACK, WEB).sticky(),
            case("node", node.ip(), WEB).sticky(),
            case("outside", node.ip(), WEB).sticky(),
        ],
    )?;
    // From outside only the pods of this node; from here all.
    node.check(
        &ports.local.to_string(),
        &[
            case("loopback", LOOPBACK, WEB),
            case("node", node.ip(), WEB),
            case("outside", node.ip(), &["web1", "web2"]),
        ],
    )?;
    node.check(
        &ports.none_here.to_string(),
        &[case("node", node.ip(), API), case("outside", node.ip(), &["timeout"])],
    )
}

#[test]
fn node_ports_of_kube_proxy_1_20() -> Test {
    lab::rules_or_skip!();
    iptables(Backend::Nft, Shape::V1_20)
}

#[test]
fn node_ports_of_kube_proxy_1_20_in_legacy_tables() -> Test {
    lab::rules_or_skip!();
    iptables(Backend::Legacy, Shape::V1_20)
}

#[test]
fn node_ports_of_kube_proxy_today() -> Test {
    lab::rules_or_skip!();
    iptables(Backend::Nft, Shape::Current)
}

#[test]
fn node_ports_of_kube_proxy_today_in_legacy_tables() -> Test {
    lab::rules_or_skip!();
    iptables(Backend::Legacy, Shape::Current)
}

#[test]
fn a_node_port_that_kube_proxy_holds_a_socket_for_leads_to_the_pods() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let (mut node, proxy, ports) = cluster()?;
        node.lab.iptables(node.host(), backend, &proxy.iptables(Shape::V1_20))?;
        // It listens and never accepts.
        let listen = format!("tcp 0.0.0.0:{} tcp 0.0.0.0:{}", ports.web, ports.empty);
        node.serve_here("kube-proxy", &format!("{listen} --comm kube-proxy"))?;
        node.check(
            &ports.web.to_string(),
            &[
                case("loopback", LOOPBACK, WEB),
                case("node", node.ip(), WEB),
                case("outside", node.ip(), WEB),
            ],
        )?;
        node.check(
            &ports.empty.to_string(),
            &[
                case("loopback", LOOPBACK, &["refused"]),
                case("node", node.ip(), &["refused"]),
                case("outside", node.ip(), &["refused"]),
            ],
        )?;
        Ok(())
    })
}

#[test]
fn node_ports_on_given_addresses_are_open_on_those_only() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        let (node, mut proxy, ports) = cluster()?;
        proxy.node_port_addresses = Some(vec![node.ip()]);
        node.lab.iptables(node.host(), backend, &proxy.iptables(Shape::Current))?;
        let gateway = node.gateway();
        node.check(
            &ports.web.to_string(),
            &[
                case("loopback", LOOPBACK, &["refused"]),
                case("node", gateway, &["refused"]),
                case("node", node.ip(), WEB),
                case("outside", node.ip(), WEB),
            ],
        )?;
        Ok(())
    })
}

#[test]
fn a_server_on_a_node_port_gets_what_the_rules_leave() -> Test {
    lab::rules_or_skip!();
    let (mut node, mut proxy, ports) = cluster()?;
    proxy.on_localhost = false;
    node.lab.iptables(node.host(), Backend::Nft, &proxy.iptables(Shape::Current))?;
    node.serve_here("squatter", &format!("tcp [::]:{}", ports.web))?;
    node.check(
        &ports.web.to_string(),
        &[
            case("loopback", LOOPBACK, &["squatter"]),
            case("loopback", std::net::Ipv6Addr::LOCALHOST, &["squatter"]),
            case("node", node.ip(), WEB),
            case("node", node.ipv6(), &["squatter"]),
            case("outside", node.ip(), WEB),
            case("outside", node.ipv6(), &["squatter"]),
        ],
    )
}

/// A Service that only leads to pods of the client's own node, and this one has none.
fn only_local(load: impl Fn(&Node, &Proxy) -> Test) -> Test {
    let (node, mut proxy, ports) = cluster()?;
    let ip = Ipv4Addr::new(10, node.number(), 96, 7);
    let mut inner = Service::new("inner", ip);
    inner = inner.to(&[Endpoint::elsewhere(node.pod_ip(0), ports.target)]);
    inner.internal_local = true;
    let question = format!("{ip}:{}", inner.port);
    proxy.services.push(inner);
    load(&node, &proxy)?;
    let lost = &["timeout"];
    node.check(&question, &[case("node", ip, lost), case("containers", ip, lost)])?;
    let run = node.lab.whereis(&[&question])?;
    let all = run.answer()?["reachable"].as_array().context("no reach")?;
    for from in ["node", "containers"] {
        let one = all.iter().find(|one| one["from"] == from).context("nothing of it")?;
        ensure!(one["reachable"] == false, "{one}");
        let why = one["why"].as_str().unwrap_or_default();
        ensure!(why.contains("default/inner has no local endpoints"), "{one}");
        let fix = one["fix"]["text"].as_str().unwrap_or_default();
        ensure!(fix.contains("internalTrafficPolicy"), "{one}");
    }
    Ok(())
}

#[test]
fn a_cluster_address_without_an_endpoint_on_the_clients_node_says_so() -> Test {
    lab::rules_or_skip!();
    with_each(|backend| {
        only_local(|node, proxy| {
            node.lab.iptables(node.host(), backend, &proxy.iptables(Shape::Current))
        })
    })
}

#[test]
fn the_same_of_kube_proxys_nftables_mode() -> Test {
    lab::rules_or_skip!();
    only_local(|node, proxy| node.lab.nft(node.host(), &proxy.nft(NftShape::Current)))
}

fn nftables(shape: NftShape) -> Test {
    let (node, mut proxy, ports) = cluster()?;
    // What kube-proxy does by itself in this mode.
    proxy.node_port_addresses = Some(vec![node.ip()]);
    node.lab.nft(node.host(), &proxy.nft(shape))?;
    let gateway = node.gateway();
    for (port, lands) in [(ports.web, WEB), (ports.api, API)] {
        node.check(
            &port.to_string(),
            &[
                case("loopback", LOOPBACK, &["refused"]),
                case("node", gateway, &["refused"]),
                case("node", node.ip(), lands),
                case("outside", node.ip(), lands),
                case("containers", node.ip(), lands),
            ],
        )?;
    }
    node.check(
        &ports.empty.to_string(),
        &[case("node", node.ip(), &["refused"]), case("outside", node.ip(), &["refused"])],
    )?;
    node.check(
        &ports.sticky.to_string(),
        &[case("node", node.ip(), WEB).sticky(), case("outside", node.ip(), WEB).sticky()],
    )?;
    node.check(
        &ports.local.to_string(),
        &[case("node", node.ip(), WEB), case("outside", node.ip(), &["web1", "web2"])],
    )?;
    node.check(
        &ports.none_here.to_string(),
        &[case("node", node.ip(), API), case("outside", node.ip(), &["timeout"])],
    )
}

#[test]
fn node_ports_of_kube_proxy_in_nftables_mode() -> Test {
    lab::rules_or_skip!();
    nftables(NftShape::V1_33)
}

#[test]
fn node_ports_of_kube_proxy_in_nftables_mode_of_2026() -> Test {
    lab::rules_or_skip!();
    nftables(NftShape::Current)
}

#[test]
fn node_ports_of_nftables_mode_on_all_addresses() -> Test {
    lab::rules_or_skip!();
    let (node, proxy, ports) = cluster()?;
    node.lab.nft(node.host(), &proxy.nft(NftShape::V1_33))?;
    let gateway = node.gateway();
    node.check(
        &ports.web.to_string(),
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", gateway, WEB),
            case("node", node.ip(), WEB),
            case("outside", node.ip(), WEB),
        ],
    )
}

/// A pod behind a port, and the chains that a plug-in writes for a policy which lets in one
/// address: in FORWARD, and what stops the rest.
fn limited(backend: Backend, chains: &str, said: &str) -> Test {
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    let ip = node.serve_in_pod("web", inner)?;
    let nat = format!(
        "*nat\n-A PREROUTING -p tcp --dport {port} -j DNAT --to-destination {ip}:{inner}\nCOMMIT\n"
    );
    let chains = chains.replace("POD", &ip.to_string()).replace("PORT", &inner.to_string());
    node.lab.iptables(node.host(), backend, &(nat + &chains))?;
    let run = node.lab.whereis(&[&port.to_string()])?;
    let all = run.answer()?["reachable"].as_array().cloned().unwrap_or_default();
    let outside = all.iter().find(|one| one["from"] == "outside").context("nothing is said")?;
    let why = outside["why"].as_str().unwrap_or_default();
    // Who the client is decides.
    ensure!(outside["reachable"].is_null() && why.contains(said), "{why}");
    Ok(())
}

#[test]
fn a_policy_is_named_beside_the_rule_that_stops_the_rest() -> Test {
    lab::root_or_skip!();
    for backend in Backend::ALL {
        let calico = "*filter\n:cali-FORWARD - [0:0]\n:cali-tw-web - [0:0]\n:cali-pi-web - [0:0]\n\
            -A FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD\n\
            -A cali-FORWARD -d POD -g cali-tw-web\n\
            -A cali-tw-web -j MARK --set-xmark 0x0/0x10000\n\
            -A cali-tw-web -m comment --comment \"cali:9d0Hk\" -j cali-pi-web\n\
            -A cali-tw-web -m mark --mark 0x10000/0x10000 -j RETURN\n\
            -A cali-tw-web -m comment --comment \"Drop if no policies passed packet\" -j DROP\n\
            -A cali-pi-web -s 203.0.113.7/32 -p tcp -m comment --comment \"cali:xYz\" -m comment \
            --comment \"Policy default/knp.default.allow-web ingress\" -m tcp --dport PORT -j MARK \
            --set-xmark 0x10000/0x10000\nCOMMIT\n";
        let said =
            "NetworkPolicy (Calico) default/knp.default.allow-web lets in ip saddr 203.0.113.7";
        limited(backend, calico, said)?;
        let router = "*filter\n:KUBE-POD-FW-WEB - [0:0]\n:KUBE-NWPLCY-WEB - [0:0]\n\
            -A FORWARD -d POD -j KUBE-POD-FW-WEB\n\
            -A KUBE-POD-FW-WEB -m comment --comment \"run through nw policy allow-web\" -j KUBE-NWPLCY-WEB\n\
            -A KUBE-POD-FW-WEB -m mark ! --mark 0x10000/0x10000 -j DROP\n\
            -A KUBE-NWPLCY-WEB -s 203.0.113.7/32 -m comment --comment \"rule to ACCEPT traffic from \
            source pods to dest pods selected by policy name allow-web namespace default\" -j MARK \
            --set-xmark 0x10000/0x10000\nCOMMIT\n";
        let said = "NetworkPolicy (kube-router) default/allow-web lets in ip saddr 203.0.113.7";
        limited(backend, router, said)?;
    }
    Ok(())
}

#[test]
fn a_proxys_own_connection_goes_past_the_rule_that_leaves_its_user_alone() -> Test {
    lab::root_or_skip!();
    const PROXY: u32 = 61_337;
    let mut node = Node::new()?;
    let (port, app) = (lab::unused_port()?, lab::unused_port()?);
    let ip = node.ip();
    node.serve_here("app", &format!("tcp {ip}:{app}"))?;
    let argv = ["socat", &format!("TCP-LISTEN:{port},fork"), &format!("TCP:{ip}:{app}")];
    let listens = format!("tcp 0.0.0.0:{port}");
    let _proxy = node.lab.listen_like_a_user(node.host(), PROXY, &listens, &argv)?;
    // As a mesh's sidecar: all but its own goes through it.
    let rules = format!(
        "*nat\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -p tcp -d {ip} --dport {app} -j ISTIO_OUTPUT\n\
         -A ISTIO_OUTPUT -m owner --uid-owner {PROXY} -j RETURN\n\
         -A ISTIO_OUTPUT -p tcp -j REDIRECT --to-ports {port}\nCOMMIT\n"
    );
    node.lab.iptables(node.host(), Backend::Nft, &rules)?;
    let run = node.lab.whereis(&[&format!("{port}/tcp")])?;
    let paths = run.paths_in(node.host())?;
    let [path] = paths.as_slice() else { anyhow::bail!("{}", run.stdout) };
    let last = path.steps().last().cloned().unwrap_or_default();
    ensure!(last.contains(&format!("{ip}:{app}")), "{:?}", path.steps());
    ensure!(!run.stdout.contains("the user who connects"), "{}", run.stdout);
    Ok(())
}
