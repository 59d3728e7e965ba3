//! What happens to this packet?
//!
//!     cargo run --example packet -- tcp 192.0.2.7 10.0.0.1:8080
//!     cargo run --example packet -- RECORDING udp anybody '[2001:db8::1]:53'
//!
//! Without a recording, of a few rules that are in the example. The sender is an address, or
//! `anybody` for somebody on another machine. The packet passes the hooks of one namespace: the
//! one that has its destination, else the first.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use common::{STEPS, few_rules, line, load};
use whereis_port_rules::{
    Fate, Hook, Limited, NetnsId, Outcome, Packet, PacketSender, Proto, RouteFound, RouteKind,
    RouteQuery, RuleSource as _, Ruleset, SeenAs, Snapshot, text, traverse,
};

const USAGE: &str = "usage: packet [RECORDING] tcp|udp SENDER|anybody ADDRESS:PORT";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    common::report(answer(&args))
}

/// The answer to what was typed, or what is wrong with that.
pub(crate) fn answer(args: &[String]) -> Result<String, String> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (rules, proto, from, to) = match args.as_slice() {
        [] => (few_rules(), "tcp", "192.0.2.7", "10.0.0.1:8080"),
        [proto, from, to] => (few_rules(), *proto, *from, *to),
        [path, proto, from, to] => (load(path)?, *proto, *from, *to),
        _ => return Err(USAGE.to_owned()),
    };
    let known = Proto::ALL.into_iter().find(|known| known.as_str() == proto);
    let proto = known.ok_or_else(|| format!("{proto} is neither tcp nor udp\n{USAGE}"))?;
    let from = match from {
        "anybody" => PacketSender::Elsewhere,
        from => PacketSender::Address(
            from.parse().map_err(|_| format!("{from} is no IP address\n{USAGE}"))?,
        ),
    };
    let to: SocketAddr =
        to.parse().map_err(|_| format!("{to} is no address with a port\n{USAGE}"))?;
    if matches!(from, PacketSender::Address(from) if from.is_ipv6() != to.is_ipv6()) {
        return Err("the sender and the destination are of different versions of IP".to_owned());
    }
    let has_it = |ruleset: &&Ruleset| {
        rules.addresses().iter().any(|a| (a.netns, a.address) == (ruleset.netns, to.ip()))
    };
    let all = rules.rulesets();
    let ruleset = all.iter().find(has_it).or(all.first()).ok_or("no packet rules are in it")?;
    let source = rules.limited(STEPS);
    let mut way = Way { rules: &rules, source: &source, ruleset, text: String::new() };
    way.send(Packet::new(ruleset.netns, proto, from, to));
    Ok(way.text)
}

/// A packet's way through one namespace.
struct Way<'a> {
    rules: &'a Snapshot,
    source: &'a Limited<'a>,
    ruleset: &'a Ruleset,
    text: String,
}

impl Way<'_> {
    fn send(&mut self, mut packet: Packet) {
        let netns = packet.netns;
        let from = match packet.source {
            PacketSender::Address(address) => address.to_string(),
            PacketSender::Elsewhere => "anybody".to_owned(),
        };
        let to = SocketAddr::new(packet.destination, packet.dport);
        let words = format!("{} from {from} to {to} in network namespace {netns}", packet.proto);
        line(&mut self.text, 0, &words);
        let back = match packet.source {
            PacketSender::Address(address) => self.route(netns, address, 0),
            PacketSender::Elsewhere => None,
        };
        if back.as_ref().is_some_and(|route| route.kind == RouteKind::Local) {
            // Its own process sends it: it is routed, and passes output.
            let Some(route) = self.route(netns, packet.destination, packet.mark) else {
                return line(&mut self.text, 2, "the route to it is not known");
            };
            packet.oif = route.oif.and_then(|index| self.rules.nic(netns, index));
            self.pass(Hook::Output, packet, 2);
        } else {
            // It comes in by where its sender is, or by any interface that leads to others.
            let here = self.rules.here(netns);
            let by = back.and_then(|route| route.oif);
            let nic = by.and_then(|index| self.rules.nic(netns, index));
            packet.iif = nic.or_else(|| here.devices.first().cloned());
            self.pass(Hook::Prerouting, packet, 2);
        }
    }

    /// Through one hook, and from there on.
    fn pass(&mut self, hook: Hook, packet: Packet, indent: usize) {
        for outcome in traverse(self.source, self.ruleset, hook, packet) {
            line(&mut self.text, indent, &format!("{}: {}", hook.as_str(), words(&outcome)));
            if outcome.fate == Fate::Passes {
                self.onwards(hook, outcome.packet, indent + 2);
            }
        }
    }

    fn onwards(&mut self, behind: Hook, mut packet: Packet, indent: usize) {
        let netns = packet.netns;
        match behind {
            Hook::Prerouting | Hook::Output => {
                packet.original.get_or_insert((packet.destination, packet.dport));
                let Some(route) = self.route(netns, packet.destination, packet.mark) else {
                    return line(&mut self.text, indent, "the route to it is not known");
                };
                let local = route.kind == RouteKind::Local;
                if local && behind == Hook::Prerouting {
                    return self.pass(Hook::Input, packet, indent);
                }
                if !local && route.oif.is_none() {
                    return line(&mut self.text, indent, "no route leads there");
                }
                packet.oif = route.oif.and_then(|index| self.rules.nic(netns, index));
                let next = if behind == Hook::Output { Hook::Postrouting } else { Hook::Forward };
                self.pass(next, packet, indent);
            }
            Hook::Forward => self.pass(Hook::Postrouting, packet, indent),
            Hook::Input => {
                let (address, port) = packet.tproxy.unwrap_or((packet.destination, packet.dport));
                let to = SocketAddr::new(address, port);
                line(&mut self.text, indent, &format!("is for the socket at {to}"));
            }
            _ => {
                let route = self.route(netns, packet.destination, packet.mark);
                if route.is_some_and(|route| route.kind == RouteKind::Local) {
                    // Over loopback, and in again.
                    packet.iif = packet.oif.take();
                    return self.pass(Hook::Prerouting, packet, indent);
                }
                let to = SocketAddr::new(packet.destination, packet.dport);
                let by = packet.oif.map(|nic| format!(" by {}", nic.name)).unwrap_or_default();
                line(&mut self.text, indent, &format!("leaves to {to}{by}"));
            }
        }
    }

    fn route(&self, netns: NetnsId, to: IpAddr, mark: u32) -> Option<RouteFound> {
        self.source.route(&RouteQuery::new(netns, to, mark))
    }
}

/// `passes to 172.17.0.2:80, nat PREROUTING → DOCKER (tcp dport 8080) dnat to …`.
fn words(outcome: &Outcome) -> String {
    let packet = &outcome.packet;
    let mut words = match outcome.fate {
        Fate::Passes => "passes".to_owned(),
        Fate::Dropped => "is dropped".to_owned(),
        Fate::Rejected(_) => "is refused".to_owned(),
        Fate::Queued => "is queued for a program".to_owned(),
        Fate::NotModelled | Fate::Unknown => "it is not known what becomes of it".to_owned(),
    };
    let to = (packet.destination, packet.dport);
    if packet.original.is_some_and(|original| original != to) {
        words.push_str(&format!(" to {}", SocketAddr::from(to)));
    }
    match packet.seen_as {
        None | Some(SeenAs::Itself) => {}
        Some(SeenAs::Address(address)) => words.push_str(&format!(" from {address}")),
        Some(SeenAs::Masqueraded) => words.push_str(" masqueraded"),
    }
    if outcome.probability < 1.0 {
        words.push_str(&format!(", {:.1} %", outcome.probability * 100.0));
    }
    for (at, condition) in outcome.depends.iter().enumerate() {
        let word = if at == 0 { "if" } else { "and" };
        words.push_str(&format!(", {word} {}", condition.text));
    }
    let trail = text::summary(&outcome.trail);
    if !trail.is_empty() {
        words.push_str(&format!(": {trail}"));
    }
    words
}
