//! The rulesets that kube-proxy writes, for any number of services.
//!
//! They are text, in the format of `iptables-restore` and `nft`, with the chain
//! names, comments and order of rules of the releases named in [`Shape`] and
//! [`NftShape`]. IPv4 only.

mod iptables;
mod nft;

use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

pub use iptables::Shape;
pub use nft::NftShape;

/// What kube-proxy on one node knows.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// The addresses of pods, `10.244.0.0/16`.
    pub pods: String,
    /// `--nodeport-addresses`: where NodePorts are open. `None` is every address.
    pub node_port_addresses: Option<Vec<Ipv4Addr>>,
    /// Whether a NodePort is open on 127.0.0.1, which iptables mode can.
    pub on_localhost: bool,
    /// The services.
    pub services: Vec<Service>,
}

/// One port of one service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The name of its port; empty when it has none.
    pub port_name: String,
    /// `tcp` or `udp`.
    pub proto: &'static str,
    /// Its virtual address.
    pub cluster_ip: Ipv4Addr,
    /// Its port there.
    pub port: u16,
    /// Its port on every node.
    pub node_port: Option<u16>,
    /// Its external addresses.
    pub external_ips: Vec<Ipv4Addr>,
    /// Where it leads.
    pub endpoints: Vec<Endpoint>,
    /// `sessionAffinity: ClientIP`.
    pub affinity: bool,
    /// `externalTrafficPolicy: Local`.
    pub local: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
}

/// One pod behind a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// Whether it is on this node.
    pub here: bool,
}

impl Proxy {
    /// For these services, with the settings that kube-proxy has by itself.
    pub fn new(pods: &str, services: Vec<Service>) -> Self {
        Self { pods: pods.to_owned(), node_port_addresses: None, on_localhost: true, services }
    }

    /// So many services of so many endpoints each, with NodePorts from `first` on:
    /// a node of a large cluster.
    pub fn many(services: u16, endpoints: u16, first: u16) -> Self {
        let service = |n: u16| {
            let [high, low] = n.to_be_bytes();
            let mut service = Service::new(&format!("svc{n}"), Ipv4Addr::new(10, 96, high, low));
            service.node_port = first.checked_add(n);
            let number = |e: u16| u32::from(n) * u32::from(endpoints) + u32::from(e);
            let address = |e: u16| Ipv4Addr::from(0x0af4_0000_u32.wrapping_add(number(e) + 2));
            service.endpoints = (0..endpoints).map(|e| Endpoint::here(address(e), 8080)).collect();
            service
        };
        Self::new("10.244.0.0/15", (0..services).map(service).collect())
    }
}

impl Service {
    /// A service of one unnamed TCP port 80, in the namespace `default`.
    pub fn new(name: &str, cluster_ip: Ipv4Addr) -> Self {
        Self {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            port_name: String::new(),
            proto: "tcp",
            cluster_ip,
            port: 80,
            node_port: None,
            external_ips: Vec::new(),
            endpoints: Vec::new(),
            affinity: false,
            local: false,
            internal_local: false,
        }
    }

    /// Its port on every node.
    #[must_use]
    pub fn on(mut self, node_port: u16) -> Self {
        self.node_port = Some(node_port);
        self
    }

    /// Where it leads.
    #[must_use]
    pub fn to(mut self, endpoints: &[Endpoint]) -> Self {
        self.endpoints = endpoints.to_vec();
        self
    }

    /// How kube-proxy calls this port: `default/web:http`.
    pub fn title(&self) -> String {
        match self.port_name.as_str() {
            "" => format!("{}/{}", self.namespace, self.name),
            port => format!("{}/{}:{port}", self.namespace, self.name),
        }
    }

    /// The hash in the names of its chains, as iptables mode makes it.
    pub fn hash(&self) -> String {
        hash(&format!("{}{}", self.title(), self.proto), 16)
    }

    /// The hash in the name of an endpoint's chain.
    pub fn endpoint_hash(&self, endpoint: Endpoint) -> String {
        hash(&format!("{}{}{endpoint}", self.title(), self.proto), 16)
    }

    /// Its name in nftables mode: `ULMVA6XW-ns1/svc1/tcp/p80`.
    pub fn nft_name(&self) -> String {
        let name = self.nft_words();
        format!("{}-{name}", hash(&name, 8))
    }

    /// The name of an endpoint in nftables mode.
    pub fn nft_endpoint_name(&self, endpoint: Endpoint) -> String {
        let name = format!("{}__{}/{}", self.nft_words(), endpoint.ip, endpoint.port);
        format!("{}-{name}", hash(&name, 8))
    }

    fn nft_words(&self) -> String {
        format!("{}/{}/{}/{}", self.namespace, self.name, self.proto, self.port_name)
    }

    fn endpoints_here(&self) -> Vec<Endpoint> {
        self.endpoints.iter().copied().filter(|endpoint| endpoint.here).collect()
    }
}

impl Endpoint {
    /// A pod on this node.
    pub fn here(ip: Ipv4Addr, port: u16) -> Self {
        Self { ip, port, here: true }
    }

    /// A pod on another node.
    pub fn elsewhere(ip: Ipv4Addr, port: u16) -> Self {
        Self { ip, port, here: false }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.ip, self.port)
    }
}

/// The first letters of the SHA-256 of a text, in base 32.
fn hash(text: &str, letters: usize) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut bits, mut held, mut out) = (0_u32, 0_u32, String::new());
    for byte in Sha256::digest(text.as_bytes()) {
        held = (held << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            let index = (held >> bits) & 31;
            out.push(char::from(ALPHABET[index as usize]));
        }
        held &= (1 << bits) - 1;
    }
    out.truncate(letters);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that real clusters have.
    #[test]
    fn chains_are_called_as_kube_proxy_calls_them() {
        assert_eq!(hash("default/kubernetes:httpstcp", 16), "NPX46M4PTMTKRN6Y");
        let nginx = Service::new("my-nginx", Ipv4Addr::new(10, 43, 209, 89));
        assert_eq!(nginx.hash(), "L65ENXXZWWSAPRCR");
        let pod = Endpoint::here(Ipv4Addr::new(10, 42, 0, 202), 80);
        assert_eq!(nginx.endpoint_hash(pod), "GCZDE6QY6EEOFBEN");
        let mut named = Service::new("svc1", Ipv4Addr::LOCALHOST);
        named.namespace = "ns1".to_owned();
        named.port_name = "p80".to_owned();
        assert_eq!(named.hash(), "XPGD46QRK7WJZT7O");
        assert_eq!(named.nft_name(), "ULMVA6XW-ns1/svc1/tcp/p80");
        let pod = Endpoint::here(Ipv4Addr::new(10, 180, 0, 1), 80);
        assert_eq!(named.endpoint_hash(pod), "SXIVWICOYRO3J4NJ");
        assert_eq!(named.nft_endpoint_name(pod), "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80");
    }
}
