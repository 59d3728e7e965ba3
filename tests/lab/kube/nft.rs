//! kube-proxy's nftables mode.

use super::{Proxy, Service};

/// The objects of which releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NftShape {
    /// About 1.33: a chain for every endpoint, and one that marks.
    V1_33,
    /// 2026: endpoints are the data of a map in the service's chain, the mark is
    /// set in place.
    Current,
}

/// The base chains, and the checks that are the same in both shapes.
const BASE: &str = r#"
  set cluster-ips { type ipv4_addr; comment "Active ClusterIPs"; }
  map no-endpoint-services {
    type ipv4_addr . inet_proto . inet_service : verdict
    comment "vmap to drop or reject packets to services with no endpoints"
  }
  map no-endpoint-nodeports {
    type inet_proto . inet_service : verdict
    comment "vmap to drop or reject packets to service nodeports with no endpoints"
  }
  map firewall-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    comment "destinations that are subject to LoadBalancerSourceRanges"
  }
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"
  }
  map service-nodeports {
    type inet_proto . inet_service : verdict
    comment "NodePort traffic"
  }
  chain filter-prerouting {
    type filter hook prerouting priority dstnat - 10; policy accept;
    ct state new jump firewall-check
  }
  chain filter-input {
    type filter hook input priority filter - 110; policy accept;
    ct state new jump nodeport-endpoints-check
    ct state new jump service-endpoints-check
  }
  chain filter-forward {
    type filter hook forward priority filter - 110; policy accept;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain filter-output {
    type filter hook output priority -110; policy accept;
    ct state new jump service-endpoints-check
    ct state new jump firewall-check
  }
  chain filter-output-post-dnat {
    type filter hook output priority -90; policy accept;
    ct state new jump cluster-ips-check
  }
  chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
  chain nat-output { type nat hook output priority -100; policy accept; jump services; }
  chain nat-postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    jump masquerading
  }
  chain reject-chain { comment "helper for @no-endpoint-services / @no-endpoint-nodeports"; reject; }
  chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  chain cluster-ips-check {
    ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
  }
"#;

/// The table, being written.
#[derive(Default)]
struct Table {
    /// Chains and sets; a chain comes after those that it leads to.
    body: String,
    /// Elements of its maps.
    elements: String,
}

impl Table {
    fn chain(&mut self, name: &str, rules: &[String]) {
        self.body += &format!("  chain {name} {{\n");
        for rule in rules {
            self.body += &format!("    {rule}\n");
        }
        self.body += "  }\n";
    }

    fn element(&mut self, map: &str, element: &str) {
        self.elements += &format!("add element ip kube-proxy {map} {{ {element} }}\n");
    }
}

impl Proxy {
    /// The table `ip kube-proxy`, for `nft -f`.
    pub fn nft(&self, shape: NftShape) -> String {
        let mut table = Table::default();
        if let Some(addresses) = &self.node_port_addresses {
            let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            table.body += &format!(
                "  set nodeport-ips {{ type ipv4_addr; elements = {{ {} }}; }}\n",
                all.join(", ")
            );
        }
        let node_ports = self.node_ports_condition();
        if shape == NftShape::V1_33 {
            table.chain("mark-for-masquerade", &["meta mark set meta mark or 0x4000".to_owned()]);
        } else {
            table.body += "  set hairpin-connections { type ipv4_addr . ipv4_addr . inet_proto \
                . inet_service; }\n";
        }
        let mut masquerading = vec![
            "meta mark and 0x4000 == 0 return".to_owned(),
            "meta mark set meta mark xor 0x4000".to_owned(),
            "masquerade fully-random".to_owned(),
        ];
        if shape == NftShape::Current {
            masquerading.insert(
                0,
                "ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade \
                 fully-random"
                    .to_owned(),
            );
        }
        table.chain("masquerading", &masquerading);
        table.chain(
            "services",
            &[
                "ip daddr . meta l4proto . th dport vmap @service-ips".to_owned(),
                format!("{node_ports} meta l4proto . th dport vmap @service-nodeports"),
            ],
        );
        table.chain(
            "nodeport-endpoints-check",
            &[format!("{node_ports} meta l4proto . th dport vmap @no-endpoint-nodeports")],
        );
        for service in &self.services {
            self.nft_service(service, shape, &mut table);
        }
        format!(
            "table ip kube-proxy {{\n  comment \"rules for kube-proxy\"\n{BASE}{}}}\n{}",
            table.body, table.elements
        )
    }

    fn node_ports_condition(&self) -> &'static str {
        match self.node_port_addresses {
            Some(_) => "ip daddr @nodeport-ips",
            None => "fib daddr type local ip daddr != 127.0.0.0/8",
        }
    }

    fn nft_service(&self, service: &Service, shape: NftShape, table: &mut Table) {
        let (title, proto) = (service.title(), service.proto);
        let (ip, port) = (service.cluster_ip, service.port);
        let mut addresses = vec![ip];
        addresses.extend(&service.external_ips);
        if service.endpoints.is_empty() {
            for ip in addresses {
                let element = format!("{ip} . {proto} . {port} comment \"{title}\"");
                table.element("no-endpoint-services", &format!("{element} : goto reject-chain"));
            }
            if let Some(port) = service.node_port {
                let element = format!("{proto} . {port} comment \"{title}\"");
                table.element("no-endpoint-nodeports", &format!("{element} : goto reject-chain"));
            }
            return;
        }
        if service.internal_local && service.endpoints_here().is_empty() {
            table.element("cluster-ips", &ip.to_string());
            let element = format!("{ip} . {proto} . {port} comment \"{title}\" : drop");
            table.element("no-endpoint-services", &element);
            return;
        }
        let name = service.nft_name();
        let mark = match shape {
            NftShape::V1_33 => "jump mark-for-masquerade",
            NftShape::Current => "meta mark set meta mark or 0x4000",
        };
        for endpoint in &service.endpoints {
            endpoint_chain(service, *endpoint, shape, table);
        }
        let cluster_ip =
            format!("ip daddr {ip} {proto} dport {port} ip saddr != {} {mark}", self.pods);
        let mut rules = vec![cluster_ip];
        rules.extend(balance(service, &service.endpoints, shape));
        table.chain(&format!("service-{name}"), &rules);
        table.element("cluster-ips", &ip.to_string());
        let element = format!("{ip} . {proto} . {port}");
        table.element("service-ips", &format!("{element} : goto service-{name}"));

        let here = service.endpoints_here();
        let mut external = Vec::new();
        if service.local {
            let service_chain = format!("service-{name}");
            external = vec![
                format!(
                    "ip saddr {} goto {service_chain} comment \"short-circuit pod traffic\"",
                    self.pods
                ),
                format!("fib saddr type local {mark} comment \"masquerade local traffic\""),
                format!(
                    "fib saddr type local goto {service_chain} comment \"short-circuit local \
                     traffic\""
                ),
            ];
            if !here.is_empty() {
                table.chain(&format!("local-{name}"), &balance(service, &here, shape));
                external.push(format!("goto local-{name}"));
            }
        } else {
            external.push(mark.to_owned());
            external.push(format!("goto service-{name}"));
        }
        table.chain(&format!("external-{name}"), &external);
        for ip in &service.external_ips {
            let element = format!("{ip} . {proto} . {port}");
            table.element("service-ips", &format!("{element} : goto external-{name}"));
        }
        if let Some(node_port) = service.node_port {
            let element = format!("{proto} . {node_port}");
            table.element("service-nodeports", &format!("{element} : goto external-{name}"));
            if service.local && here.is_empty() {
                let element = format!("{element} comment \"{title}\" : drop");
                table.element("no-endpoint-nodeports", &element);
            }
        }
    }
}

fn endpoint_chain(
    service: &Service,
    endpoint: super::Endpoint,
    shape: NftShape,
    table: &mut Table,
) {
    let (ip, port, proto) = (endpoint.ip, endpoint.port, service.proto);
    if shape == NftShape::Current {
        if endpoint.here {
            let element = format!("{ip} . {ip} . {proto} . {port}");
            table.element("hairpin-connections", &element);
        }
        if !service.affinity {
            return;
        }
    }
    let name = service.nft_endpoint_name(endpoint);
    let mut rules = Vec::new();
    if shape == NftShape::V1_33 {
        rules.push(format!("ip saddr {ip} jump mark-for-masquerade"));
    }
    if service.affinity {
        table.body += &format!(
            "  set affinity-{name} {{ type ipv4_addr; flags dynamic,timeout; timeout 3h; }}\n"
        );
        rules.push(format!("update @affinity-{name} {{ ip saddr }}"));
    }
    rules.push(format!("meta l4proto {proto} dnat to {endpoint}"));
    table.chain(&format!("endpoint-{name}"), &rules);
}

/// The rules that choose one of the endpoints.
fn balance(service: &Service, endpoints: &[super::Endpoint], shape: NftShape) -> Vec<String> {
    let name = |endpoint: &super::Endpoint| service.nft_endpoint_name(*endpoint);
    let mut rules = Vec::new();
    let proto = service.proto;
    if shape == NftShape::Current && !service.affinity {
        if let [only] = endpoints {
            return vec![format!("meta l4proto {proto} dnat to {only}")];
        }
        let all: Vec<String> = endpoints
            .iter()
            .enumerate()
            .map(|(n, endpoint)| format!("{n} : {} . {}", endpoint.ip, endpoint.port))
            .collect();
        return vec![format!(
            "meta l4proto {proto} dnat ip to numgen random mod {} map {{ {} }}",
            all.len(),
            all.join(", ")
        )];
    }
    if service.affinity {
        rules.extend(endpoints.iter().map(|endpoint| {
            let name = name(endpoint);
            format!("ip saddr @affinity-{name} goto endpoint-{name}")
        }));
    }
    let all: Vec<String> = endpoints
        .iter()
        .enumerate()
        .map(|(n, endpoint)| format!("{n} : goto endpoint-{}", name(endpoint)))
        .collect();
    rules.push(format!("numgen random mod {} vmap {{ {} }}", all.len(), all.join(", ")));
    rules
}
