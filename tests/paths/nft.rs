//! Rules of programs that write nf_tables themselves.

use std::net::{IpAddr, Ipv6Addr};

use lab::Test;

use crate::paths::node::{LOOPBACK, Node, case};

/// A node with a pod `web`, a port of the host, and the port of the pod.
fn web() -> anyhow::Result<(Node, u16, u16)> {
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    node.serve_in_pod("web", inner)?;
    // A second pod, which is only a client.
    node.add_pod()?;
    Ok((node, port, inner))
}

#[test]
fn the_tables_of_docker_29() -> Test {
    lab::rules_or_skip!();
    let (node, port, inner) = web()?;
    let closed = lab::unused_port()?;
    let ip = node.pod_ip(0);
    // The second port is translated, and nobody allowed it to the container.
    let rules = format!(
        r#"table ip docker-bridges {{
          map filter-forward-in-jumps {{ type ifname : verdict
            elements = {{ "br0" : jump filter-forward-in__br0 }} }}
          map filter-forward-out-jumps {{ type ifname : verdict
            elements = {{ "br0" : jump filter-forward-out__br0 }} }}
          chain filter-forward-in__br0 {{
            ct state established,related counter accept
            iifname "br0" counter accept comment "ICC"
            ip daddr {ip} tcp dport {inner} counter accept
            counter drop comment "UNPUBLISHED PORT DROP"
          }}
          chain filter-forward-out__br0 {{
            ct state established,related counter accept
            counter accept comment "OUTGOING"
          }}
          chain nat-prerouting-and-output {{
            iifname != "br0" tcp dport {port} counter dnat to {ip}:{inner} comment "DNAT"
            iifname != "br0" tcp dport {closed} counter dnat to {ip}:9 comment "DNAT"
          }}
          chain filter-FORWARD {{
            type filter hook forward priority filter; policy accept;
            oifname vmap @filter-forward-in-jumps
            iifname vmap @filter-forward-out-jumps
          }}
          chain nat-PREROUTING {{
            type nat hook prerouting priority dstnat; policy accept;
            fib daddr type local counter jump nat-prerouting-and-output
          }}
          chain nat-OUTPUT {{
            type nat hook output priority -100; policy accept;
            ip daddr != 127.0.0.0/8 fib daddr type local counter jump nat-prerouting-and-output
          }}
        }}"#
    );
    node.lab.nft(node.host(), &rules)?;
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", node.ip(), &["web"]),
            case("outside", node.ip(), &["web"]),
            case("containers", node.gateway(), &["refused"]),
        ],
    )?;
    node.check(
        &closed.to_string(),
        &[case("node", node.ip(), &["refused"]), case("outside", node.ip(), &["timeout"])],
    )
}

#[test]
fn the_table_of_netavark() -> Test {
    lab::rules_or_skip!();
    let (node, port, inner) = web()?;
    let (ip, number) = (node.pod_ip(0), node.number());
    node.host().sysctl("ipv4/conf/br0/route_localnet", "1")?;
    let range = (port.saturating_add(20_000), port.saturating_add(20_002));
    let rules = format!(
        r#"table inet netavark {{
          chain NETAVARK-HOSTPORT-SETMARK {{ meta mark set meta mark | 0x2000; }}
          chain nv_2f259bab_10_{number}_1_0_nm24_dnat {{
            ip saddr 10.{number}.1.0/24 tcp dport {port} jump NETAVARK-HOSTPORT-SETMARK
            ip saddr 127.0.0.1 tcp dport {port} jump NETAVARK-HOSTPORT-SETMARK
            tcp dport {port} dnat ip to {ip}:{inner}
            tcp dport {}-{} dnat ip to {ip}:{inner}
          }}
          chain NETAVARK-HOSTPORT-DNAT {{
            tcp dport {port} jump nv_2f259bab_10_{number}_1_0_nm24_dnat
            tcp dport {}-{} jump nv_2f259bab_10_{number}_1_0_nm24_dnat
          }}
          chain INPUT {{ type filter hook input priority filter; policy accept; }}
          chain FORWARD {{
            type filter hook forward priority filter; policy accept;
            ct state invalid drop
          }}
          chain POSTROUTING {{
            type nat hook postrouting priority srcnat; policy accept;
            meta mark & 0x2000 == 0x2000 masquerade
          }}
          chain PREROUTING {{
            type nat hook prerouting priority dstnat; policy accept;
            fib daddr type local jump NETAVARK-HOSTPORT-DNAT
          }}
          chain OUTPUT {{
            type nat hook output priority -100; policy accept;
            fib daddr type local jump NETAVARK-HOSTPORT-DNAT
          }}
        }}"#,
        range.0, range.1, range.0, range.1
    );
    node.lab.nft(node.host(), &rules)?;
    for port in [port, range.0, range.1] {
        // The source of a packet from loopback is changed for the first port only:
        // no other machine answers to 127.0.0.1.
        let (loopback, containers): (&[&str], _) = if port == range.0 || port == range.1 {
            (&["timeout"], None)
        } else {
            (&["web"], Some(case("containers", node.gateway(), &["web"])))
        };
        let mut cases = vec![
            case("node", node.ip(), &["web"]),
            case("outside", node.ip(), &["web"]),
            case("loopback", LOOPBACK, loopback),
        ];
        cases.extend(containers);
        cases.push(case("loopback", Ipv6Addr::LOCALHOST, &["refused"]));
        node.check(&port.to_string(), &cases)?;
    }
    Ok(())
}

#[test]
fn the_maps_of_crio() -> Test {
    lab::rules_or_skip!();
    let (node, port, inner) = web()?;
    let only_here = lab::unused_port()?;
    let (ip, host) = (node.pod_ip(0), node.ip());
    let rules = format!(
        r#"table ip crio-hostports {{
          comment "HostPort rules created by CRI-O"
          map hostports {{
            type inet_proto . inet_service : ipv4_addr . inet_service
            elements = {{ tcp . {port} comment "ABCDEFGHIJKLMNOP" : {ip} . {inner} }}
          }}
          map hostipports {{
            type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
            elements = {{ {host} . tcp . {only_here} : {ip} . {inner} }}
          }}
          chain hostports {{
            dnat ip to ip daddr . meta l4proto . th dport map @hostipports
            dnat ip to meta l4proto . th dport map @hostports
          }}
          chain prerouting {{
            type nat hook prerouting priority dstnat; policy accept;
            fib daddr type local goto hostports
          }}
          chain output {{
            type nat hook output priority -100; policy accept;
            fib daddr type local goto hostports
          }}
        }}"#
    );
    node.lab.nft(node.host(), &rules)?;
    let gateway = node.gateway();
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["timeout"]),
            case("node", gateway, &["web"]),
            case("node", host, &["web"]),
            case("outside", host, &["web"]),
        ],
    )?;
    node.check(
        &only_here.to_string(),
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", gateway, &["refused"]),
            case("node", host, &["web"]),
            case("outside", host, &["web"]),
        ],
    )
}

#[test]
fn a_firewall_in_an_inet_table_with_intervals() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let open = port.saturating_add(10_000);
    node.serve_here("web", &format!("tcp [::]:{port} tcp [::]:{open}"))?;
    let rules = format!(
        "table inet fw {{
           set open {{ type inet_service; flags interval; elements = {{ 22, {open}-{} }}; }}
           chain input {{
             type filter hook input priority filter; policy drop;
             ct state vmap {{ established : accept, related : accept, invalid : drop }}
             iif lo accept
             meta l4proto {{ icmp, ipv6-icmp }} accept
             tcp dport @open accept
             meta nfproto ipv6 tcp dport {port} reject with tcp reset
           }}
         }}",
        open.saturating_add(10)
    );
    node.lab.nft(node.host(), &rules)?;
    node.check(
        &open.to_string(),
        &[
            case("loopback", LOOPBACK, &["web"]),
            case("node", node.ip(), &["web"]),
            case("outside", node.ip(), &["web"]),
            case("outside", node.ipv6(), &["web"]),
        ],
    )?;
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["web"]),
            case("node", node.ip(), &["web"]),
            case("outside", node.ip(), &["timeout"]),
            case("outside", node.ipv6(), &["refused"]),
        ],
    )
}

#[test]
fn a_drop_before_the_translation_wins() -> Test {
    lab::rules_or_skip!();
    let (node, port, inner) = web()?;
    let ip = node.pod_ip(0);
    let rules = format!(
        "table ip early {{
           chain raw {{
             type filter hook prerouting priority raw; policy accept;
             iifname \"eth0\" tcp dport {port} drop
           }}
           chain pre {{
             type nat hook prerouting priority dstnat;
             tcp dport {port} dnat to {ip}:{inner}
           }}
           chain out {{
             type nat hook output priority -100;
             tcp dport {port} dnat to {ip}:{inner}
           }}
         }}"
    );
    node.lab.nft(node.host(), &rules)?;
    node.check(
        &port.to_string(),
        &[case("node", node.ip(), &["web"]), case("outside", node.ip(), &["timeout"])],
    )
}

#[test]
fn what_a_device_drops_at_its_ingress_does_not_arrive() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    node.serve_here("web", &format!("tcp 0.0.0.0:{port}"))?;
    let rules = format!(
        "table netdev guard {{
           chain in {{
             type filter hook ingress device \"eth0\" priority 0; policy accept;
             tcp dport {port} drop
           }}
         }}"
    );
    node.lab.nft(node.host(), &rules)?;
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["web"]),
            case("node", node.ip(), &["web"]),
            case("outside", node.ip(), &["timeout"]),
        ],
    )
}

#[test]
fn a_translation_of_ipv6_alone() -> Test {
    lab::rules_or_skip!();
    let mut node = Node::new()?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    node.serve_here("six", &format!("tcp [::]:{inner} --v6only 1"))?;
    node.serve_here("four", &format!("tcp 0.0.0.0:{port}"))?;
    let rules = format!(
        "table ip6 six {{
           chain pre {{
             type nat hook prerouting priority dstnat;
             tcp dport {port} redirect to :{inner}
           }}
           chain out {{
             type nat hook output priority -100;
             oif lo tcp dport {port} redirect to :{inner}
           }}
         }}"
    );
    node.lab.nft(node.host(), &rules)?;
    node.check(
        &port.to_string(),
        &[
            case("loopback", LOOPBACK, &["four"]),
            case("loopback", IpAddr::from(Ipv6Addr::LOCALHOST), &["six"]),
            case("outside", node.ip(), &["four"]),
            case("outside", node.ipv6(), &["six"]),
        ],
    )
}
