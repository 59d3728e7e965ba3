//! docker-proxy and its replacements, which share its flags.

use std::net::IpAddr;

use crate::{PortRange, Proto};

use super::text::{self, BindAddress};
use super::{ForwardTarget, ForwarderLine, Mapping, Word};

/// The flags that take a value; all others are switches (`-use-listen-fd`,
/// `-local-bind`, `-i`).
const VALUED: [&str; 6] =
    ["proto", "host-ip", "host-port", "container-ip", "container-port", "control"];

/// `-proto tcp -host-ip 0.0.0.0 -host-port 80 -container-ip 172.17.0.2
/// -container-port 80 [-use-listen-fd]`, in the ways Go's flag package takes
/// them. One process forwards one port.
pub(super) fn proxy(kind: &'static str, args: &[String]) -> Option<ForwarderLine> {
    let (mut proto, mut host_ip, mut host_port) = (Proto::Tcp, None, None);
    let (mut container_ip, mut container_port) = (None, None);
    let mut args_left = args.iter().map(String::as_str);
    while let Some(arg) = args_left.next() {
        let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else { continue };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value),
            None if VALUED.contains(&flag) => (flag, args_left.next()?),
            None => continue,
        };
        match name {
            "proto" => proto = Proto::ALL.into_iter().find(|p| p.as_str() == value)?,
            "host-ip" if !value.is_empty() => host_ip = Some(value.parse::<IpAddr>().ok()?),
            "host-port" => host_port = Some(text::port(value)?),
            "container-ip" => container_ip = Some(value.parse::<IpAddr>().ok()?),
            "container-port" => container_port = Some(text::port(value)?),
            _ => {}
        }
    }
    let (host_port, container_ip, container_port) = (host_port?, container_ip?, container_port?);

    let flag = |name: &str| Word::keep(format_args!("-{name}"));
    let mut words = vec![flag("proto"), Word::keep(proto)];
    if let Some(ip) = host_ip {
        words.extend([flag("host-ip"), Word::host(ip)]);
    }
    words.extend([flag("host-port"), Word::keep(host_port)]);
    words.extend([flag("container-ip"), Word::host(container_ip)]);
    words.extend([flag("container-port"), Word::keep(container_port)]);
    let mapping = Mapping {
        proto: Some(proto),
        bind: host_ip.map_or(BindAddress::Any, BindAddress::Ip),
        ports: Some(PortRange::one(host_port)),
        except: Vec::new(),
        target: ForwardTarget::Address(container_ip, container_port, proto),
        screens: Vec::new(),
        quote: text::quote(args.iter().map(String::as_str)),
    };
    Some(ForwarderLine { kind, mappings: vec![mapping], words })
}
