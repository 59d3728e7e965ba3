//! What may be open: a policy as somebody wrote it, and which of its rules allows a statement.
//!
//! ```toml
//! senders = ["outside", "containers"]   # who is judged; everybody without this line
//!
//! [[allow]]
//! from = ["outside:eth0"]
//! ports = ["22/tcp", "8000-8010"]
//! address = ["10.0.0.0/8"]
//! owner = ["process:sshd", "pod:shop/cart-*"]
//! reason = "administrators"
//! ```

use std::net::IpAddr;

use whereis_port_rules::route::covers;

use super::reading::{TomlError, TomlReader, TomlValue};
use whereis_port_model::{
    Exposure, Opening, OwnerKind, OwnerName, Port, PortRange, Proto, Vantage,
};

/// A policy file: which ports may be open, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditPolicy {
    /// The senders that are judged; all where none is named.
    senders: Vec<Vantage>,
    allow: Vec<Allow>,
}

/// A rule: what all of its conditions hold for is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Allow {
    from: Vec<From>,
    ports: Vec<PolicyPorts>,
    address: Vec<(IpAddr, u8)>,
    owner: Vec<OwnerPattern>,
}

/// Senders.
#[derive(Debug, Clone, PartialEq, Eq)]
struct From {
    vantage: Vantage,
    /// Their device or namespace, with `*` for anything; `None` for all of them.
    by: Option<String>,
}

/// Ports of one protocol or of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PolicyPorts {
    pub(super) range: PortRange,
    pub(super) proto: Option<Proto>,
}

/// An owner as a policy names it, with `*` for anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnerPattern {
    kind: Option<OwnerKind>,
    name: String,
}

const KEYS: [&str; 2] = ["senders", "allow"];
const OF_ALLOW: [&str; 5] = ["from", "ports", "address", "owner", "reason"];

impl AuditPolicy {
    /// Understands a policy.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of its lines.
    pub fn parse(text: &str) -> Result<Self, Vec<TomlError>> {
        let mut reader = TomlReader::new(text);
        let mut policy = Self::default();
        if let Some(table) = reader.table() {
            for (key, value) in table.get_ref() {
                let name: &str = key.get_ref();
                match name {
                    "senders" => policy.senders = reader.each(name, value, vantage),
                    "allow" => {
                        for (_, rule) in reader.tables(name, value) {
                            let rule = allow(
                                &mut reader,
                                rule.iter().map(|(k, v)| {
                                    let key: &str = k.get_ref();
                                    (k.span().start, key, v)
                                }),
                            );
                            policy.allow.push(rule);
                        }
                    }
                    _ => reader.unknown(key.span().start, name, "a policy", &KEYS),
                }
            }
        }
        reader.finish(policy)
    }

    /// Whether such senders are judged.
    pub(super) fn judges(&self, from: Vantage) -> bool {
        self.senders.is_empty() || self.senders.contains(&from)
    }

    /// The rule that allows a statement, by its place. Where it is said of several devices, each
    /// has to be allowed; the first of the rules that do it is told.
    pub(super) fn allows(&self, exposure: &Exposure, opening: &Opening) -> Option<usize> {
        let owners = exposure.owners_at(opening);
        let by = opening.by();
        let rule = |by: Option<&str>| {
            self.allow.iter().position(|rule| rule.fits(exposure, opening, by, &owners))
        };
        match by.as_slice() {
            [] => rule(None),
            [first, rest @ ..] => {
                let found = rule(Some(first))?;
                rest.iter().all(|by| rule(Some(by)).is_some()).then_some(found)
            }
        }
    }
}

impl Allow {
    fn fits(
        &self,
        exposure: &Exposure,
        opening: &Opening,
        by: Option<&str>,
        owners: &[OwnerName],
    ) -> bool {
        let reach = &opening.reach;
        let from = |one: &From| {
            one.vantage == reach.from
                && match (&one.by, by) {
                    (None, _) => true,
                    (Some(pattern), Some(by)) => matches(pattern, by),
                    // All of them are more than one device.
                    (Some(pattern), None) => pattern == "*",
                }
        };
        let ports = |one: &PolicyPorts| {
            one.range.contains(exposure.port)
                && one.proto.is_none_or(|proto| proto == exposure.proto)
        };
        let address = |(net, prefix): &(IpAddr, u8)| {
            reach.address.is_some_and(|to| covers(*net, *prefix, to.ip().to_canonical()))
        };
        let owner = |one: &OwnerPattern| owners.iter().any(|name| one.fits(name));
        let any = |none: bool, fits: bool| none || fits;
        any(self.from.is_empty(), self.from.iter().any(from))
            && any(self.ports.is_empty(), self.ports.iter().any(ports))
            && any(self.address.is_empty(), self.address.iter().any(address))
            && any(self.owner.is_empty(), self.owner.iter().any(owner))
    }
}

impl OwnerPattern {
    pub(super) fn fits(&self, name: &OwnerName) -> bool {
        self.kind.is_none_or(|kind| kind == name.kind) && matches(&self.name, &name.name)
    }
}

fn allow<'v, 'i: 'v>(
    reader: &mut TomlReader<'_>,
    rule: impl Iterator<Item = (usize, &'v str, &'v TomlValue<'i>)>,
) -> Allow {
    let mut allow = Allow::default();
    for (at, key, value) in rule {
        match key {
            "from" => allow.from = reader.each(key, value, from),
            "ports" => allow.ports = reader.each(key, value, ports),
            "address" => allow.address = reader.each(key, value, network),
            "owner" => allow.owner = reader.each(key, value, owner),
            "reason" => {
                reader.text(key, value);
            }
            _ => reader.unknown(at, key, "[[allow]]", &OF_ALLOW),
        }
    }
    allow
}

/// Whether a name is one that a pattern means; `*` stands for anything, also for nothing.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// `outside`, `containers`, `node` or `loopback`.
pub(super) fn vantage(text: &str) -> Result<Vantage, String> {
    Ok(match text {
        "outside" => Vantage::Outside,
        "containers" => Vantage::Containers,
        "node" => Vantage::Node,
        "loopback" => Vantage::Loopback,
        _ => {
            let known = "outside, containers, node and loopback";
            return Err(format!("no senders are called {text:?}: there is {known}"));
        }
    })
}

fn from(text: &str) -> Result<From, String> {
    let (name, by) = match text.split_once(':') {
        Some((name, by)) => (name, Some(by.to_owned())),
        None => (text, None),
    };
    let vantage = vantage(name)?;
    if by.as_deref() == Some("") {
        return Err(format!("{text:?} names no device behind its colon: outside:eth0"));
    }
    if by.is_some() && matches!(vantage, Vantage::Node | Vantage::Loopback) {
        return Err(format!("{text:?}: processes of the node send by no device: {name}"));
    }
    Ok(From { vantage, by })
}

/// `22`, `22/tcp`, `8000-8010/udp`.
pub(super) fn ports(text: &str) -> Result<PolicyPorts, String> {
    let wrong = || format!("{text:?} is no port: write 22, 22/tcp or 8000-8010/udp");
    let (numbers, proto) = match text.split_once('/') {
        Some((numbers, "tcp")) => (numbers, Some(Proto::Tcp)),
        Some((numbers, "udp")) => (numbers, Some(Proto::Udp)),
        Some(_) => return Err(wrong()),
        None => (text, None),
    };
    let number = |text: &str| match text.parse::<u16>() {
        Ok(number) if number > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(Port(number)),
        _ => Err(wrong()),
    };
    let (first, last) = match numbers.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(numbers)?, number(numbers)?),
    };
    if first > last {
        return Err(format!("{text:?} is no range: its end comes before its beginning"));
    }
    Ok(PolicyPorts { range: PortRange { first, last }, proto })
}

/// `10.0.0.1`, `10.0.0.0/8`, `fd00::/8`.
fn network(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("{text:?} is no address: write 10.0.0.1, 10.0.0.0/8 or fd00::/8");
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv6() { 128 } else { 32 };
    let prefix = match prefix {
        Some(prefix) => prefix.parse::<u8>().ok().filter(|p| *p <= most).ok_or_else(wrong)?,
        None => most,
    };
    Ok((address, prefix))
}

pub(super) fn owner(text: &str) -> Result<OwnerPattern, String> {
    let kinds = || OwnerKind::ALL.map(OwnerKind::as_str).join(", ");
    match text.split_once(':') {
        Some((kind, name)) => {
            let found = OwnerKind::ALL.into_iter().find(|known| known.as_str() == kind);
            let kind = found
                .ok_or_else(|| format!("{text:?}: an owner is one of {}, and a name", kinds()))?;
            if name.is_empty() {
                return Err(format!("{text:?} names nobody behind its colon"));
            }
            Ok(OwnerPattern { kind: Some(kind), name: name.to_owned() })
        }
        None if text.is_empty() => Err("an owner has a name".to_owned()),
        None => Ok(OwnerPattern { kind: None, name: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Vec<String> {
        AuditPolicy::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place() {
        let text = "sender = [\"outside\"]\n\n[[allow]]\nfrom = [\"outside\", \"inside\"]\n  port = 22\nports = [\"22/sctp\", \"9-1\"]\naddress = \"10.0.0.0/33\"\nowner = \"proc:x\"\n";
        assert_eq!(
            wrong(text),
            [
                "1:1: no key \"sender\" in a policy: there is senders, allow",
                "4:20: no senders are called \"inside\": there is outside, containers, node and loopback",
                "5:3: no key \"port\" in [[allow]]: there is from, ports, address, owner, reason",
                "6:10: \"22/sctp\" is no port: write 22, 22/tcp or 8000-8010/udp",
                "6:21: \"9-1\" is no range: its end comes before its beginning",
                "7:11: \"10.0.0.0/33\" is no address: write 10.0.0.1, 10.0.0.0/8 or fd00::/8",
                "8:9: \"proc:x\": an owner is one of service, pod, container, component, process, kernel, unit, image, user, and a name",
            ]
        );
        let none = wrong("[[allow]]\nports = []\nfrom = 3\n");
        assert_eq!(none.len(), 2, "{none:?}");
        assert_eq!(wrong("allow = 3\n")[0], "1:9: allow is a list of tables: [[allow]]");
        assert!(wrong("[[allow]\n")[0].starts_with("1:"), "{:?}", wrong("[[allow]\n"));
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, fits) in [
            ("web", "web", true),
            ("web", "web2", false),
            ("web*", "web", true),
            ("*", "", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("*x*", "x", true),
            ("shop/cart-*", "shop/cart-7d9c-x", true),
            ("", "x", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
