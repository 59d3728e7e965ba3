//! A node at random: devices, addresses, routes, switches and listeners.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use lab::{Backend, Netns, Proc, Test};

use super::random::Random;
use super::{PORT, TRANSLATED, rules};
use crate::paths::node::Node;

/// A node, all who send, and everything that may be connected to.
pub(super) struct Topology {
    // Processes go before the lab that they are in.
    proxies: Vec<Proc>,
    pub(super) node: Node,
    /// The host is the first, another machine the second.
    pub(super) senders: Vec<Netns>,
    pub(super) addresses: Vec<IpAddr>,
    /// Where translating rules may lead.
    pub(super) targets: Vec<Ipv4Addr>,
    pub(super) has_ipv6: bool,
    /// What was made, a line each, for whoever has to understand a failure.
    pub(super) made: String,
}

impl Topology {
    pub(super) fn build(random: &mut Random) -> Result<Self> {
        let is_wired = random.one_in(5);
        let node = if is_wired { Node::new()? } else { Node::with_pair()? };
        let addresses = vec![
            Ipv4Addr::LOCALHOST.into(),
            node.ip().into(),
            node.gateway().into(),
            node.outside_ip().into(),
        ];
        let senders = vec![node.host().clone(), node.outside.clone()];
        let has_ipv6 = random.one_in(3);
        let targets = Vec::new();
        let mut it = Self {
            proxies: Vec::new(),
            node,
            senders,
            addresses,
            targets,
            has_ipv6,
            made: String::new(),
        };
        it.say(&format!("the other machine is on a wire: {is_wired}"));
        it.pods(random)?;
        it.second_bridge(random)?;
        it.pair(random)?;
        it.second_card(random)?;
        it.nested(random)?;
        it.more_addresses(random)?;
        it.switches(random)?;
        it.ports_of_the_bridge(random)?;
        it.routes(random)?;
        it.policies(random)?;
        it.listeners(random)?;
        it.filters(random)?;
        it.proxy(random)?;
        Ok(it)
    }

    pub(super) fn say(&mut self, text: &str) {
        self.made += &format!("  {text}\n");
    }

    pub(super) fn net(&self, third: u64) -> String {
        format!("10.{}.{third}", self.node.number())
    }

    fn ip(&mut self, netns: &Netns, args: &str) -> Test {
        let short = netns.name.rsplit('-').next().unwrap_or_default();
        self.say(&format!("ip -n {short} {args}"));
        netns.ip(&args.split_whitespace().collect::<Vec<_>>())
    }

    /// The same where it may be refused, as a route by a device that is not there.
    fn try_ip(&mut self, netns: &Netns, args: &str) {
        if let Err(refused) = self.ip(netns, args) {
            let last = format!("{refused:#}");
            self.say(&format!("refused: {}", last.rsplit(": ").next().unwrap_or_default()));
        }
    }

    fn sysctl(&mut self, netns: &Netns, name: &str, value: &str) -> Test {
        let short = netns.name.rsplit('-').next().unwrap_or_default();
        self.say(&format!("{short}: {name} = {value}"));
        netns.sysctl(name, value)
    }

    fn knows(&mut self, address: &str) -> Test {
        self.addresses.push(address.parse().context("an address of this test")?);
        Ok(())
    }

    /// An IPv6 address beside an IPv4 one, in the network of the same number.
    fn ipv6(&mut self, netns: &Netns, device: &str, third: u64, last: u64, gateway: bool) -> Test {
        if !self.has_ipv6 {
            return Ok(());
        }
        let network = format!("fd00:{}:{third}", self.node.number());
        self.ip(netns, &format!("address add {network}::{last}/64 dev {device} nodad"))?;
        if gateway {
            self.ip(netns, &format!("route add default via {network}::1"))?;
        }
        self.knows(&format!("{network}::{last}"))
    }

    fn pods(&mut self, random: &mut Random) -> Test {
        let host = self.node.host().clone();
        if self.has_ipv6 {
            self.ipv6(&host, "br0", 1, 1, false)?;
            self.addresses.push(Ipv6Addr::LOCALHOST.into());
            self.addresses.push(self.node.ipv6());
            let outside = self.node.outside.clone();
            let gateway = format!("route add default via fd00:{}::1", self.node.number());
            self.ip(&outside, &gateway)?;
            self.sysctl(&host, "ipv6/conf/all/forwarding", random.pick(&["1", "1", "0"]))?;
        }
        for n in 0..=random.below(2) {
            let pod = self.node.add_pod()?;
            let address = self.node.pod_ip(u8::try_from(n)?);
            self.say(&format!("pod{n} at br0 has {address}"));
            self.ipv6(&pod, "eth0", 1, n + 2, true)?;
            if random.one_in(5) {
                self.ip(&pod, "route del default")?;
            }
            self.addresses.push(address.into());
            self.targets.push(address);
            self.senders.push(pod);
        }
        Ok(())
    }

    /// A namespace with one device, `eth0`, whose other end is in the host's.
    fn behind(&mut self, name: &str, port: &str) -> Result<Netns> {
        let (host, pod) = (self.node.host().clone(), self.node.lab.netns(name)?);
        let peer = format!("peer name eth0 netns {}", pod.name);
        self.ip(&host, &format!("link add {port} type veth {peer}"))?;
        self.ip(&pod, "link set eth0 up")?;
        self.senders.push(pod.clone());
        Ok(pod)
    }

    /// A second bridge, which may have no address of the host's.
    fn second_bridge(&mut self, random: &mut Random) -> Test {
        if !random.one_in(3) {
            return Ok(());
        }
        let (host, net) = (self.node.host().clone(), self.net(2));
        let with_address = !random.one_in(4);
        self.ip(&host, "link add br1 type bridge")?;
        self.ip(&host, "link set br1 up")?;
        if with_address {
            self.ip(&host, &format!("address add {net}.1/24 dev br1"))?;
            self.ipv6(&host, "br1", 2, 1, false)?;
            self.knows(&format!("{net}.1"))?;
        }
        for n in 0..=random.below(2) {
            let pod = self.behind(&format!("other{n}"), &format!("other{n}"))?;
            self.ip(&host, &format!("link set other{n} master br1 up"))?;
            self.ip(&pod, &format!("address add {net}.{}/24 dev eth0", n + 2))?;
            self.ipv6(&pod, "eth0", 2, n + 2, with_address)?;
            if with_address {
                self.ip(&pod, &format!("route add default via {net}.1"))?;
            }
            self.knows(&format!("{net}.{}", n + 2))?;
            self.targets.push(format!("{net}.{}", n + 2).parse()?);
        }
        Ok(())
    }

    /// A pair without a bridge: with a network of its own, or as Calico does it.
    fn pair(&mut self, random: &mut Random) -> Test {
        if !random.one_in(3) {
            return Ok(());
        }
        let (host, net) = (self.node.host().clone(), self.net(3));
        let pod = self.behind("paired", "pair0")?;
        self.ip(&host, "link set pair0 up")?;
        if random.one_in(2) {
            self.ip(&pod, &format!("address add {net}.2/32 dev eth0"))?;
            self.ip(&pod, "route add 169.254.1.1 dev eth0 scope link")?;
            self.ip(&pod, "route add default via 169.254.1.1")?;
            self.ip(&host, &format!("route add {net}.2 dev pair0 scope link"))?;
            self.sysctl(&host, "ipv4/conf/pair0/proxy_arp", "1")?;
            self.sysctl(&host, "ipv4/neigh/pair0/proxy_delay", "0")?;
        } else {
            self.ip(&host, &format!("address add {net}.1/30 dev pair0"))?;
            self.ip(&pod, &format!("address add {net}.2/30 dev eth0"))?;
            self.ip(&pod, &format!("route add default via {net}.1"))?;
            self.knows(&format!("{net}.1"))?;
        }
        self.targets.push(format!("{net}.2").parse()?);
        self.knows(&format!("{net}.2"))
    }

    /// A second network card with a machine behind it, and containers that are on it themselves.
    fn second_card(&mut self, random: &mut Random) -> Test {
        if !random.one_in(3) {
            return Ok(());
        }
        let (host, net) = (self.node.host().clone(), self.net(4));
        let machine = self.behind("second", "up1")?;
        self.ip(&host, "link set up1 up")?;
        self.ip(&host, &format!("address add {net}.1/24 dev up1"))?;
        self.ip(&machine, &format!("address add {net}.2/24 dev eth0"))?;
        if random.one_in(2) {
            self.ip(&machine, &format!("route add default via {net}.1"))?;
        }
        self.knows(&format!("{net}.1"))?;
        self.knows(&format!("{net}.2"))?;
        let kind = random.pick(&["macvlan mode bridge", "macvlan mode private", "none", "none"]);
        if kind == "none" {
            return Ok(());
        }
        for n in 0..=random.below(2) {
            let pod = self.node.lab.netns(&format!("lan{n}"))?;
            let args = format!("link add link up1 name eth0 netns {} type {kind}", pod.name);
            self.ip(&host, &args)?;
            self.ip(&pod, &format!("address add {net}.{}/24 dev eth0", n + 10))?;
            self.ip(&pod, "link set eth0 up")?;
            let gateway = random.pick(&["1", "2"]);
            self.ip(&pod, &format!("route add default via {net}.{gateway}"))?;
            self.knows(&format!("{net}.{}", n + 10))?;
            self.targets.push(format!("{net}.{}", n + 10).parse()?);
            self.senders.push(pod);
        }
        Ok(())
    }

    /// Containers of a container, as those of a kind node: published by its rules, or known to the
    /// host by a route.
    fn nested(&mut self, random: &mut Random) -> Test {
        if !random.one_in(4) {
            return Ok(());
        }
        let (host, pod, net) = (self.node.host().clone(), self.senders[2].clone(), self.net(90));
        let inner = self.node.lab.netns("inner")?;
        self.ip(&pod, "link add in0 type bridge")?;
        self.ip(&pod, &format!("address add {net}.1/24 dev in0"))?;
        self.ip(&pod, "link set in0 up")?;
        self.ip(&pod, &format!("link add p0 type veth peer name eth0 netns {}", inner.name))?;
        self.ip(&pod, "link set p0 master in0 up")?;
        self.ip(&inner, &format!("address add {net}.2/24 dev eth0"))?;
        self.ip(&inner, "link set eth0 up")?;
        self.ip(&inner, &format!("route add default via {net}.1"))?;
        self.sysctl(&pod, "ipv4/ip_forward", random.pick(&["1", "1", "1", "0"]))?;
        self.senders.push(inner);
        self.knows(&format!("{net}.1"))?;
        self.knows(&format!("{net}.2"))?;
        if random.one_in(2) {
            let gateway = self.targets[0];
            self.ip(&host, &format!("route add {net}.0/24 via {gateway}"))?;
            self.targets.push(format!("{net}.2").parse()?);
        }
        let masquerade = match random.below(3) {
            0 => String::new(),
            1 => "oifname eth0 masquerade".to_owned(),
            _ => format!("ip saddr {net}.0/24 ip daddr != {net}.0/24 masquerade"),
        };
        let published = match random.one_in(3) {
            true => String::new(),
            false => format!("tcp dport {TRANSLATED} dnat to {net}.2:{PORT}"),
        };
        let text = format!(
            "table ip inner {{\n\
             chain pre {{\ntype nat hook prerouting priority -100;\n{published}\n}}\n\
             chain post {{\ntype nat hook postrouting priority 100;\n{masquerade}\n}}\n}}\n"
        );
        self.say(&format!("{}:\n{text}", pod.name));
        self.node.lab.nft(&pod, &text)
    }

    /// A docker-proxy of the host.
    fn proxy(&mut self, random: &mut Random) -> Test {
        if !random.one_in(6) || !lab::has("docker-proxy") {
            return Ok(());
        }
        let host = self.node.host().clone();
        let count = self.targets.len() as u64;
        let target = self.targets[usize::try_from(random.below(count))?];
        let at = random.pick(&["0.0.0.0", "0.0.0.0", "127.0.0.1"]);
        let argv = format!(
            "docker-proxy -proto tcp -host-ip {at} -host-port {TRANSLATED} \
             -container-ip {target} -container-port {PORT}"
        );
        self.say(&argv);
        // Where it can't listen another one does.
        if let Ok(proxy) =
            self.node.lab.spawn(&host, &["sh", "-c", &format!("exec 3>/dev/null {argv}")])
        {
            self.proxies.push(proxy);
        }
        std::thread::sleep(std::time::Duration::from_millis(150));
        Ok(())
    }

    fn more_addresses(&mut self, random: &mut Random) -> Test {
        let host = self.node.host().clone();
        if random.one_in(5) {
            let network = self.net(60);
            self.ip(&host, &format!("route add local {network}.0/24 dev lo"))?;
            self.knows(&format!("{network}.7"))?;
        }
        if random.one_in(5) {
            let address = format!("{}.1", self.net(70));
            self.ip(&host, "link add dummy0 type bridge")?;
            self.ip(&host, &format!("address add {address}/32 dev dummy0"))?;
            if random.one_in(2) {
                self.ip(&host, "link set dummy0 up")?;
            }
            self.knows(&address)?;
        }
        if random.one_in(5) {
            let address = format!("{}.9", self.net(0));
            self.ip(&host, &format!("address add {address}/24 dev eth0"))?;
            self.knows(&address)?;
        }
        if random.one_in(8) {
            let pod = self.senders[2].clone();
            let address = format!("{}.1", self.net(80));
            self.ip(&pod, &format!("address add {address}/32 dev lo"))?;
            let gateway = self.targets[0];
            self.ip(&host, &format!("route add {address} via {gateway}"))?;
            self.knows(&address)?;
        }
        Ok(())
    }

    fn switches(&mut self, random: &mut Random) -> Test {
        let host = self.node.host().clone();
        if random.one_in(5) {
            self.sysctl(&host, "ipv4/ip_forward", "0")?;
        }
        let device = random.pick(&["all", "br0", "eth0"]);
        for (name, values, often) in [
            ("rp_filter", &["1", "2"][..], 3),
            ("forwarding", &["0"], 8),
            ("route_localnet", &["1"], 5),
            ("accept_local", &["1"], 10),
            ("arp_ignore", &["1", "2"], 8),
            ("src_valid_mark", &["1"], 10),
            ("proxy_arp", &["1"], 12),
        ] {
            if random.one_in(often) {
                let name = format!("ipv4/conf/{device}/{name}");
                self.sysctl(&host, &name, random.pick(values))?;
            }
        }
        Ok(())
    }

    fn ports_of_the_bridge(&mut self, random: &mut Random) -> Test {
        let host = self.node.host().clone();
        for n in 0..self.node.pods.len() {
            if random.one_in(8) {
                let what = random.pick(&["hairpin off", "isolated on", "learning off"]);
                self.ip(&host, &format!("link set veth{n} type bridge_slave {what}"))?;
            }
        }
        if random.one_in(16) {
            self.ip(&host, random.pick(&["link set veth0 down", "link set br0 down"]))?;
        }
        Ok(())
    }

    /// Routes that refuse, or lead elsewhere.
    fn routes(&mut self, random: &mut Random) -> Test {
        for (n, netns) in self.senders.clone().iter().enumerate() {
            if !random.one_in(if n == 0 { 3 } else { 8 }) {
                continue;
            }
            let network = self.net(random.below(4));
            let to = match random.below(3) {
                0 => format!("{network}.0/25"),
                1 => format!("{network}.{}", random.below(4)),
                _ => format!("{network}.2"),
            };
            let how = random.pick(&["blackhole", "unreachable", "prohibit", "dev", "via"]);
            let device = if n == 0 { random.pick(&["br0", "eth0"]) } else { "eth0" };
            let gateway = self.targets[0];
            let route = match how {
                "dev" => format!("{to} dev {device}"),
                "via" => format!("{to} via {gateway}"),
                refusing => format!("{refusing} {to}"),
            };
            self.try_ip(netns, &format!("route add {route}"));
        }
        Ok(())
    }

    /// Rules of policy routing: by source, device, destination, mark and port, to a table that has
    /// a way on, refuses, or has nothing.
    fn policies(&mut self, random: &mut Random) -> Test {
        for (n, netns) in self.senders.clone().iter().enumerate() {
            for priority in ["90", "91"] {
                if !random.one_in(if n == 0 { 4 } else { 10 }) {
                    continue;
                }
                let one = format!("{}.{}", self.net(random.below(4)), random.below(3) + 1);
                let network = format!("{}.0/24", self.net(random.below(5)));
                let what = match random.below(7) {
                    0 | 1 => format!("from {one}"),
                    2 => format!("from {network}"),
                    3 => format!("to {network}"),
                    4 => format!("iif {}", random.pick(&["br0", "eth0", "lo"])),
                    5 => format!("fwmark {}", random.pick(&["0x7", "0x10/0x10"])),
                    _ => format!("{} {PORT} ipproto tcp", random.pick(&["sport", "dport"])),
                };
                let action = random.pick(&["lookup 100", "lookup 100", "prohibit", "blackhole"]);
                self.try_ip(netns, &format!("rule add priority {priority} {what} {action}"));
            }
            let route = match random.below(5) {
                0 => "unreachable default",
                1 => "throw default",
                2 => continue,
                3 if n == 0 => "local default dev lo",
                _ if n == 0 => "default dev br0",
                _ => "default dev eth0",
            };
            self.try_ip(netns, &format!("route add {route} table 100"));
        }
        Ok(())
    }

    /// What listens: on the host, and in some of the other namespaces.
    fn listeners(&mut self, random: &mut Random) -> Test {
        for (n, netns) in self.senders.clone().iter().enumerate() {
            if !random.one_in(2) {
                continue;
            }
            let own: String = match n {
                0 => random.pick(&["0.0.0.0", "::", "eth0", "127.0.0.1"]).to_owned(),
                _ => random.pick(&["0.0.0.0", "0.0.0.0", "0.0.0.0", "::", "127.0.0.1"]).to_owned(),
            };
            let at = match own.as_str() {
                "::" => "[::]".to_owned(),
                "eth0" => self.node.ip().to_string(),
                other => other.to_owned(),
            };
            let port = if random.one_in(8) { TRANSLATED } else { PORT };
            let device = match random.one_in(10) {
                true if n == 0 => " --device br0",
                true => " --device eth0",
                false => "",
            };
            let name = format!("s{n}");
            self.say(&format!("{} listens at {at}:{port}{device} as {name}", netns.name));
            self.node.serve(netns, &name, &format!("tcp {at}:{port}{device}"))?;
        }
        Ok(())
    }

    fn filters(&mut self, random: &mut Random) -> Test {
        let host = self.node.host().clone();
        let kind = random.below(4);
        if kind == 0 {
            return Ok(());
        }
        let text = match kind {
            1 => rules::iptables(random, self),
            _ => rules::nft(random, self),
        };
        self.say(&text);
        match kind {
            1 => {
                let backend = Backend::ALL[usize::try_from(random.below(2))?];
                self.say(&format!("by iptables-{}", backend.name()));
                self.node.lab.iptables(&host, backend, &text)
            }
            _ => self.node.lab.nft(&host, &text),
        }?;
        if random.one_in(8) {
            let pod = self.senders[2].clone();
            let text = rules::of_a_pod(random);
            self.say(&format!("{}:\n{text}", pod.name));
            self.node.lab.nft(&pod, &text)?;
        }
        Ok(())
    }
}
