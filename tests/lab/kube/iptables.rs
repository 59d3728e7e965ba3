//! kube-proxy's iptables mode.

use std::fmt::Write as _;

use super::{Endpoint, Proxy, Service};

/// The chains and rules of which releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// 1.20: `KUBE-XLB`, masquerading marked in `KUBE-SERVICES` and
    /// `KUBE-NODEPORTS`.
    V1_20,
    /// From about 1.26 on: `KUBE-EXT` and `KUBE-SVL`.
    Current,
}

/// One table, being written.
#[derive(Default)]
struct Table {
    chains: String,
    rules: String,
}

impl Table {
    fn chain(&mut self, name: &str) {
        self.chains += &format!(":{name} - [0:0]\n");
    }

    fn rule(&mut self, rule: &str) {
        self.rules += "-A ";
        self.rules += rule;
        self.rules += "\n";
    }

    fn text(&self, name: &str) -> String {
        format!("*{name}\n{}{}COMMIT\n", self.chains, self.rules)
    }
}

impl Proxy {
    /// Everything that kube-proxy adds to the tables `filter` and `nat`, for
    /// `iptables-restore --noflush`.
    pub fn iptables(&self, shape: Shape) -> String {
        let mut nat = Table::default();
        let mut filter = Table::default();
        base(shape, &mut nat, &mut filter);
        for service in &self.services {
            self.service(service, shape, &mut nat, &mut filter);
        }
        self.node_ports(&mut nat);
        format!("{}{}", filter.text("filter"), nat.text("nat"))
    }

    fn service(&self, service: &Service, shape: Shape, nat: &mut Table, filter: &mut Table) {
        let (title, proto, hash) = (service.title(), service.proto, service.hash());
        let (ip, port) = (service.cluster_ip, service.port);
        let to_cluster_ip = format!("-d {ip}/32 -p {proto} -m {proto} --dport {port}");
        if service.endpoints.is_empty() {
            let why = format!("-m comment --comment \"{title} has no endpoints\" -j REJECT");
            filter.rule(&format!("KUBE-SERVICES {to_cluster_ip} {why}"));
            for to in self.outer(service) {
                filter.rule(&format!("KUBE-EXTERNAL-SERVICES {to} {why}"));
            }
            return;
        }
        let svc = format!("KUBE-SVC-{hash}");
        nat.chain(&svc);
        if service.internal_local && service.endpoints_here().is_empty() {
            let why = format!("-m comment --comment \"{title} has no local endpoints\" -j DROP");
            filter.rule(&format!("KUBE-SERVICES {to_cluster_ip} {why}"));
            return;
        }
        let comment = format!("-m comment --comment \"{title} cluster IP\"");
        let from_elsewhere = format!("! -s {} {to_cluster_ip} {comment}", self.pods);
        if shape == Shape::V1_20 {
            nat.rule(&format!("KUBE-SERVICES {from_elsewhere} -j KUBE-MARK-MASQ"));
        } else {
            nat.rule(&format!("{svc} {from_elsewhere} -j KUBE-MARK-MASQ"));
        }
        nat.rule(&format!("KUBE-SERVICES {to_cluster_ip} {comment} -j {svc}"));
        let external = match shape {
            Shape::V1_20 if service.local => self.xlb(service, nat),
            Shape::V1_20 => svc.clone(),
            Shape::Current => self.ext(service, nat),
        };
        for ip in &service.external_ips {
            let to = format!("-d {ip}/32 -p {proto} -m {proto} --dport {port}");
            let comment = format!("-m comment --comment \"{title} external IP\"");
            nat.rule(&format!("KUBE-SERVICES {to} {comment} -j {external}"));
        }
        if let Some(node_port) = service.node_port {
            let to = format!(
                "-p {proto} -m comment --comment \"{title}\" -m {proto} --dport {node_port}"
            );
            if shape == Shape::V1_20 {
                let only = if service.local { "-s 127.0.0.0/8 " } else { "" };
                nat.rule(&format!("KUBE-NODEPORTS {only}{to} -j KUBE-MARK-MASQ"));
            }
            nat.rule(&format!("KUBE-NODEPORTS {to} -j {external}"));
        }
        if service.local && service.endpoints_here().is_empty() && shape == Shape::Current {
            let why = format!("-m comment --comment \"{title} has no local endpoints\" -j DROP");
            for to in self.outer(service) {
                filter.rule(&format!("KUBE-EXTERNAL-SERVICES {to} {why}"));
            }
        }
        balance(service, &svc, &service.endpoints, shape, nat);
        for endpoint in &service.endpoints {
            sep(service, *endpoint, nat);
        }
    }

    /// What comes to a service by the addresses that are not its own.
    fn outer(&self, service: &Service) -> Vec<String> {
        let (proto, port) = (service.proto, service.port);
        let external = service
            .external_ips
            .iter()
            .map(|ip| format!("-d {ip}/32 -p {proto} -m {proto} --dport {port}"));
        let node_port = service.node_port.map(|port| {
            format!("-p {proto} -m addrtype --dst-type LOCAL -m {proto} --dport {port}")
        });
        external.chain(node_port).collect()
    }

    fn ext(&self, service: &Service, nat: &mut Table) -> String {
        let (title, hash) = (service.title(), service.hash());
        let (ext, svc) = (format!("KUBE-EXT-{hash}"), format!("KUBE-SVC-{hash}"));
        nat.chain(&ext);
        let about = |what: &str| format!("{ext} -m comment --comment \"{what}\"");
        if !service.local {
            let marked = format!("masquerade traffic for {title} external destinations");
            nat.rule(&format!("{} -j KUBE-MARK-MASQ", about(&marked)));
            nat.rule(&format!("{ext} -j {svc}"));
            return ext;
        }
        let pods = format!("pod traffic for {title} external destinations");
        nat.rule(&format!("{} -s {} -j {svc}", about(&pods), self.pods));
        let masquerade = format!("masquerade LOCAL traffic for {title} external destinations");
        nat.rule(&format!("{} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ", about(&masquerade)));
        let route = format!("route LOCAL traffic for {title} external destinations");
        nat.rule(&format!("{} -m addrtype --src-type LOCAL -j {svc}", about(&route)));
        let here = service.endpoints_here();
        if !here.is_empty() {
            let svl = format!("KUBE-SVL-{hash}");
            nat.chain(&svl);
            nat.rule(&format!("{ext} -j {svl}"));
            balance(service, &svl, &here, Shape::Current, nat);
        }
        ext
    }

    fn xlb(&self, service: &Service, nat: &mut Table) -> String {
        let (title, hash) = (service.title(), service.hash());
        let (xlb, svc) = (format!("KUBE-XLB-{hash}"), format!("KUBE-SVC-{hash}"));
        nat.chain(&xlb);
        let about = |what: &str| format!("{xlb} -m comment --comment \"{what}\"");
        let pods = "Redirect pods trying to reach external loadbalancer VIP to clusterIP";
        nat.rule(&format!("{} -s {} -j {svc}", about(pods), self.pods));
        let masquerade = format!("masquerade LOCAL traffic for {title} LB IP");
        nat.rule(&format!("{} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ", about(&masquerade)));
        let route = format!("route LOCAL traffic for {title} LB IP to service chain");
        nat.rule(&format!("{} -m addrtype --src-type LOCAL -j {svc}", about(&route)));
        let here = service.endpoints_here();
        if here.is_empty() {
            let none = format!("{title} has no local endpoints");
            nat.rule(&format!("{} -j KUBE-MARK-DROP", about(&none)));
        }
        for (n, endpoint) in here.iter().enumerate() {
            let what = about(&format!("Balancing rule {n} for {title}"));
            let chance = chance(n, here.len());
            let sep = service.endpoint_hash(*endpoint);
            nat.rule(&format!("{what}{chance} -j KUBE-SEP-{sep}"));
        }
        xlb
    }

    /// The last rules of `KUBE-SERVICES`.
    fn node_ports(&self, nat: &mut Table) {
        let last = "-m comment --comment \"kubernetes service nodeports; NOTE: this must be the \
            last rule in this chain\"";
        match &self.node_port_addresses {
            None => {
                let not = if self.on_localhost { "" } else { "! -d 127.0.0.0/8 " };
                nat.rule(&format!(
                    "KUBE-SERVICES {not}{last} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
                ));
            }
            Some(addresses) => {
                for ip in addresses {
                    nat.rule(&format!("KUBE-SERVICES -d {ip}/32 {last} -j KUBE-NODEPORTS"));
                }
            }
        }
    }
}

/// The chains and rules that are there without any service.
fn base(shape: Shape, nat: &mut Table, filter: &mut Table) {
    let current = shape == Shape::Current;
    for chain in [
        "KUBE-SERVICES",
        "KUBE-NODEPORTS",
        "KUBE-POSTROUTING",
        "KUBE-MARK-MASQ",
        "KUBE-PROXY-CANARY",
    ] {
        nat.chain(chain);
    }
    for chain in [
        "KUBE-SERVICES",
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-FORWARD",
        "KUBE-FIREWALL",
        "KUBE-PROXY-CANARY",
    ] {
        filter.chain(chain);
    }
    if current {
        filter.chain("KUBE-NODEPORTS");
        filter.chain("KUBE-PROXY-FIREWALL");
    } else {
        nat.chain("KUBE-MARK-DROP");
        nat.rule("KUBE-MARK-DROP -j MARK --or-mark 0x8000");
    }
    let jump = |table: &mut Table, chain: &str, new: bool, comment: &str, to: &str| {
        // kube-proxy puts each before what is there.
        let new = if new { "-m conntrack --ctstate NEW " } else { "" };
        let rule = format!("-I {chain} {new}-m comment --comment \"{comment}\" -j {to}\n");
        let _never_fails = table.rules.write_str(&rule);
    };
    let portals = "kubernetes service portals";
    for chain in ["PREROUTING", "OUTPUT"] {
        jump(nat, chain, false, portals, "KUBE-SERVICES");
    }
    jump(nat, "POSTROUTING", false, "kubernetes postrouting rules", "KUBE-POSTROUTING");
    nat.rule("KUBE-MARK-MASQ -j MARK --or-mark 0x4000");
    nat.rule("KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN");
    nat.rule("KUBE-POSTROUTING -j MARK --xor-mark 0x4000");
    nat.rule(
        "KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" \
         -j MASQUERADE --random-fully",
    );
    for chain in ["INPUT", "FORWARD"] {
        let visible = "kubernetes externally-visible service portals";
        jump(filter, chain, true, visible, "KUBE-EXTERNAL-SERVICES");
    }
    for chain in ["FORWARD", "OUTPUT"] {
        jump(filter, chain, true, portals, "KUBE-SERVICES");
    }
    jump(filter, "FORWARD", false, "kubernetes forwarding rules", "KUBE-FORWARD");
    if current {
        let health = "kubernetes health check service ports";
        jump(filter, "INPUT", false, health, "KUBE-NODEPORTS");
        for chain in ["INPUT", "OUTPUT", "FORWARD"] {
            let firewall = "kubernetes load balancer firewall";
            jump(filter, chain, true, firewall, "KUBE-PROXY-FIREWALL");
        }
    } else {
        filter.rule(
            "KUBE-FIREWALL -m comment --comment \"kubernetes firewall for dropping marked \
             packets\" -m mark --mark 0x8000/0x8000 -j DROP",
        );
    }
    for chain in ["INPUT", "OUTPUT"] {
        let _never_fails = writeln!(filter.rules, "-I {chain} -j KUBE-FIREWALL");
    }
    filter.rule(
        "KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming \
         localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
    );
    filter.rule("KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP");
    filter.rule(
        "KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" \
         -m mark --mark 0x4000/0x4000 -j ACCEPT",
    );
    filter.rule(
        "KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" \
         -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    );
}

/// The rules that choose one of the endpoints.
fn balance(service: &Service, chain: &str, endpoints: &[Endpoint], shape: Shape, nat: &mut Table) {
    let title = service.title();
    let comment = |endpoint: &Endpoint| match shape {
        Shape::V1_20 => format!("-m comment --comment \"{title}\""),
        Shape::Current => format!("-m comment --comment \"{title} -> {endpoint}\""),
    };
    if service.affinity {
        for endpoint in endpoints {
            let sep = format!("KUBE-SEP-{}", service.endpoint_hash(*endpoint));
            nat.rule(&format!(
                "{chain} {} -m recent --name {sep} --rcheck --seconds 10800 --reap -j {sep}",
                comment(endpoint)
            ));
        }
    }
    for (n, endpoint) in endpoints.iter().enumerate() {
        let chance = chance(n, endpoints.len());
        let sep = service.endpoint_hash(*endpoint);
        nat.rule(&format!("{chain} {}{chance} -j KUBE-SEP-{sep}", comment(endpoint)));
    }
}

/// The match that takes endpoint `n` of `all` as often as the others.
fn chance(n: usize, all: usize) -> String {
    let left = all.saturating_sub(n);
    if left <= 1 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "a handful of endpoints")]
    let probability = 1.0 / left as f64;
    format!(" -m statistic --mode random --probability {probability:.10}")
}

fn sep(service: &Service, endpoint: Endpoint, nat: &mut Table) {
    let (title, proto) = (service.title(), service.proto);
    let sep = format!("KUBE-SEP-{}", service.endpoint_hash(endpoint));
    nat.chain(&sep);
    let comment = format!("-m comment --comment \"{title}\"");
    nat.rule(&format!("{sep} -s {}/32 {comment} -j KUBE-MARK-MASQ", endpoint.ip));
    let remember =
        if service.affinity { format!(" -m recent --name {sep} --set") } else { String::new() };
    nat.rule(&format!(
        "{sep} -p {proto} {comment}{remember} -m {proto} -j DNAT --to-destination {endpoint}"
    ));
}
