//! socat, whose two addresses may come in either order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Port, PortRange, Proto};

use super::text::{self, BindAddress};
use super::{ClientFilter, ForwardTarget, ForwarderLine, Mapping, Word};

/// The options whose value is the next word when it is not glued to them.
const VALUED: [&str; 10] = ["-b", "-S", "-t", "-T", "-r", "-R", "-L", "-W", "-lf", "-lp"];

/// `socat [OPTIONS] TCP-LISTEN:8080,fork TCP:10.0.0.1:80`.
pub(super) fn socat(args: &[String]) -> Option<ForwarderLine> {
    let mut addresses = Vec::new();
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        if arg.len() > 1 && arg.starts_with('-') && addresses.is_empty() {
            if VALUED.contains(&arg) {
                args.next()?;
            }
        } else {
            addresses.push(arg);
        }
    }
    let [first, second] = addresses.as_slice() else { return None };
    let (one, other) = (SocatAddress::from(first), SocatAddress::from(second));

    let mut line = ForwarderLine {
        kind: "socat",
        mappings: Vec::new(),
        words: vec![one.word(), other.word()],
    };
    for (from, to) in [(&one, &other), (&other, &one)] {
        let Some((proto, bind, port)) = from.listens() else { continue };
        line.mappings.push(Mapping {
            proto: Some(proto),
            bind,
            ports: Some(PortRange::one(port)),
            except: Vec::new(),
            target: to.leads_to(),
            screens: from.screens.clone(),
            quote: text::quote([*first, *second]),
        });
    }
    (!line.mappings.is_empty()).then_some(line)
}

/// One address: `KEYWORD:PARAMETER:…,OPTION,OPTION=VALUE`.
struct SocatAddress<'a> {
    keyword: String,
    /// All that stands between the keyword and the options.
    rest: &'a str,
    bind: Option<&'a str>,
    /// Of a namespace that it is opened in (socat 1.8).
    netns: Option<&'a str>,
    /// Of whom it takes connections.
    screens: Vec<ClientFilter>,
}

impl<'a> SocatAddress<'a> {
    fn from(text: &'a str) -> Self {
        let mut parts = text.split(',');
        let address = parts.next().unwrap_or_default();
        let parts: Vec<(&str, &str)> =
            parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
        let screens = parts.iter().filter_map(|(name, value)| screen(name, value)).collect();
        let options: Vec<_> = parts.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let option = |wanted: &str| {
            let mut all = options.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            all.next_back().map(|(_, value)| *value)
        };
        let (bind, netns) = (option("bind"), option("netns"));
        let (keyword, rest) = address.split_once(':').unwrap_or((address, ""));
        Self { keyword: keyword.to_ascii_uppercase(), rest, bind, netns, screens }
    }

    /// The protocol, the address and the port it listens on.
    fn listens(&self) -> Option<(Proto, BindAddress, Port)> {
        let proto = match self.keyword.as_str() {
            "TCP-LISTEN" | "TCP-L" | "TCP4-LISTEN" | "TCP4-L" | "TCP6-LISTEN" | "TCP6-L"
            | "OPENSSL-LISTEN" | "OPENSSL-L" | "SSL-LISTEN" | "SSL-L" => Proto::Tcp,
            "UDP-LISTEN" | "UDP-L" | "UDP4-LISTEN" | "UDP4-L" | "UDP6-LISTEN" | "UDP6-L"
            | "UDP-RECVFROM" | "UDP4-RECVFROM" | "UDP6-RECVFROM" | "UDP-RECV" | "UDP4-RECV"
            | "UDP6-RECV" => Proto::Udp,
            _ => return None,
        };
        // Some forms allow `bind=ADDRESS:PORT`; only the address is of use here.
        let bind = self.bind.map_or(BindAddress::Any, |bind| match BindAddress::from(bind) {
            BindAddress::Any => {
                text::host_port(bind).map_or(BindAddress::Any, |(host, _)| BindAddress::from(host))
            }
            bind => bind,
        });
        Some((proto, bind, text::port_or_service(self.rest)?))
    }

    /// Where traffic goes that comes out of it.
    fn leads_to(&self) -> ForwardTarget {
        let proto = match self.keyword.as_str() {
            "TCP" | "TCP-CONNECT" | "TCP4" | "TCP4-CONNECT" | "TCP6" | "TCP6-CONNECT"
            | "OPENSSL" | "OPENSSL-CONNECT" | "SSL" | "INET" | "INET4" | "INET6" => Proto::Tcp,
            "UDP" | "UDP-CONNECT" | "UDP4" | "UDP4-CONNECT" | "UDP6" | "UDP6-CONNECT"
            | "UDP-SENDTO" | "UDP4-SENDTO" | "UDP6-SENDTO" | "UDP-DATAGRAM" | "UDP4-DATAGRAM"
            | "UDP6-DATAGRAM" => Proto::Udp,
            "UNIX-CONNECT" | "UNIX" | "UNIX-CLIENT" | "UNIX-SENDTO" => {
                return ForwardTarget::Unix(self.rest.to_owned());
            }
            "ABSTRACT-CONNECT" | "ABSTRACT" | "ABSTRACT-CLIENT" | "ABSTRACT-SENDTO" => {
                return ForwardTarget::Unix(format!("@{}", self.rest));
            }
            "EXEC" | "SYSTEM" | "SHELL" => {
                return ForwardTarget::Unsaid("a command for each connection");
            }
            "PROXY" | "PROXY-CONNECT" | "SOCKS" | "SOCKS4" | "SOCKS4A" | "SOCKS5"
            | "SOCKS5-CONNECT" => {
                return ForwardTarget::Unsaid("a host behind another proxy");
            }
            "VSOCK" | "VSOCK-CONNECT" => {
                return ForwardTarget::Unsaid("a virtual machine's vsock port");
            }
            _ => return ForwardTarget::Unsaid("something that is no network address"),
        };
        let unsaid = ForwardTarget::Unsaid("an address that was not understood");
        let Some((host, port)) = text::host_port(self.rest) else { return unsaid };
        let Some(port) = text::port_or_service(port) else { return unsaid };
        if let Some(netns) = self.netns {
            let path = match netns.contains('/') {
                true => netns.to_owned(),
                false => format!("/run/netns/{netns}"),
            };
            return match text::target(host, port, proto) {
                Some(ForwardTarget::Address(ip, port, proto)) => {
                    ForwardTarget::InNetns(path, Some(ip), port, proto)
                }
                _ => unsaid,
            };
        }
        if host == "localhost" && self.keyword.contains('6') {
            return ForwardTarget::Address(IpAddr::V6(Ipv6Addr::LOCALHOST), port, proto);
        }
        text::target(host, port, proto).unwrap_or(unsaid)
    }

    /// The same, written anew with nothing that is of no use here.
    fn word(&self) -> Word {
        if let Some((_, _, port)) = self.listens() {
            let word = Word::keep(format_args!("{}:{port}", self.keyword));
            let word = self.screens.iter().fold(word, |word, screen| match screen {
                ClientFilter::Network(network, prefix) => {
                    let word = word.then(",range=").then_bracketed(&network.to_string());
                    word.then(format_args!("/{prefix}"))
                }
                ClientFilter::Other(option) => word.then(format_args!(",{option}=?")),
            });
            return match self.bind {
                Some(bind)
                    if matches!(
                        BindAddress::from(bind),
                        BindAddress::Loopback | BindAddress::Ip(_)
                    ) =>
                {
                    word.then(",bind=").then_bracketed(text::unbracket(bind))
                }
                _ => word,
            };
        }
        match self.leads_to() {
            ForwardTarget::Address(..) | ForwardTarget::Host(..) => {
                let (host, port) = text::host_port(self.rest).unwrap_or_default();
                let word = Word::keep(format_args!("{}:", self.keyword));
                word.then_bracketed(host).then(format_args!(":{port}"))
            }
            ForwardTarget::InNetns(path, ..) => {
                let (host, port) = text::host_port(self.rest).unwrap_or_default();
                let word = Word::keep(format_args!("{}:", self.keyword));
                let word = word.then_bracketed(host).then(format_args!(":{port}"));
                word.then(",netns=").then_path(path)
            }
            ForwardTarget::Unix(path) => match path.strip_prefix('@') {
                Some(name) => Word::keep("ABSTRACT-CONNECT:").then_path(name),
                None => Word::keep("UNIX-CONNECT:").then_path(path),
            },
            ForwardTarget::Unsaid("a command for each connection") => Word::keep("EXEC:"),
            ForwardTarget::Unsaid("a host behind another proxy") => Word::keep("PROXY:"),
            ForwardTarget::Unsaid("a virtual machine's vsock port") => Word::keep("VSOCK:"),
            ForwardTarget::Unsaid("an address that was not understood") => Word::keep("TCP:"),
            _ => Word::keep("-"),
        }
    }
}

/// What an option of a listening address says of its clients: those for whom this is not so are
/// disconnected at once (`xiocheckpeer()`).
fn screen(name: &str, value: &str) -> Option<ClientFilter> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "range" => Some(network(value).unwrap_or(ClientFilter::Other("range"))),
        "lowport" if value != "0" => Some(ClientFilter::Other("lowport")),
        "sourceport" | "sp" => Some(ClientFilter::Other("sourceport")),
        "tcpwrap" | "tcpwrappers" | "libwrap" => Some(ClientFilter::Other("tcpwrap")),
        _ => None,
    }
}

/// `192.0.2.0/24`, `192.0.2.0:255.255.255.0` or `[2001:db8::]/64`.
fn network(value: &str) -> Option<ClientFilter> {
    if let Some((address, prefix)) = value.rsplit_once('/') {
        let address: IpAddr = text::unbracket(address).parse().ok()?;
        let prefix: u8 = prefix.parse().ok()?;
        let most = if address.is_ipv6() { 128 } else { 32 };
        return (prefix <= most).then_some(ClientFilter::Network(address, prefix));
    }
    let (address, mask) = value.split_once(':')?;
    let (address, mask): (Ipv4Addr, Ipv4Addr) = (address.parse().ok()?, mask.parse().ok()?);
    let bits = mask.to_bits();
    let prefix = bits.leading_ones();
    let whole = bits.checked_shl(prefix).unwrap_or(0) == 0;
    Some(ClientFilter::Network(address.into(), u8::try_from(prefix).ok().filter(|_| whole)?))
}
