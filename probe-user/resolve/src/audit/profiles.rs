//! What profiles ask for: the table that is built in, and files of the same form.

use super::policy::{self, OwnerPattern, PolicyPorts};
use super::reading::{TomlError, TomlReader, TomlValue};
use whereis_port_model::{Exposure, Port, PortRange, Proto, Vantage};

/// The table that is built in.
const BUILT_IN: &str = include_str!("profiles.toml");

/// The profiles that are looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profiles {
    pub(super) all: Vec<ProfileDefinition>,
    /// Whether only those are looked at that what runs here shows to be for this node.
    pub(super) by_themselves: bool,
}

/// A profile: which ports a distribution requires, and by what it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ProfileDefinition {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) found_by: Vec<ProfileSign>,
    pub(super) not_with: Vec<ProfileSign>,
    pub(super) ports: Vec<ProfilePort>,
}

/// An owner that shows that a profile applies, with its port where only that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProfileSign {
    owner: OwnerPattern,
    port: Option<Port>,
}

impl ProfileSign {
    pub(super) fn fits(&self, exposure: &Exposure) -> bool {
        self.port.is_none_or(|port| port == exposure.port)
            && exposure.owners().iter().any(|name| self.owner.fits(name))
    }
}

/// A port, or ports, that a profile asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProfilePort {
    pub(super) ports: Which,
    pub(super) from: Option<Vantage>,
    pub(super) owner: Vec<OwnerPattern>,
    pub(super) required: bool,
    /// Where it is asked for at all; everywhere where that is not said.
    pub(super) only: Option<String>,
    /// Whether the node does not show if that is so, though something has the port.
    pub(super) may_be_shut: bool,
    /// What shows that it is not asked for here.
    pub(super) unless: Vec<ProfileSign>,
    pub(super) role: String,
    pub(super) source: String,
}

/// Which ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// These.
    These(PortRange, Proto),
    /// Those that the cluster has for Services on every node.
    NodePorts,
}

const OF_PROFILE: [&str; 5] = ["name", "title", "found-by", "not-with", "port"];
const OF_PORT: [&str; 9] =
    ["ports", "from", "owner", "required", "only", "may-be-shut", "unless", "role", "source"];
/// How wide a range may be: each port of it is looked at.
const WIDEST: u16 = 64;

impl Profiles {
    /// Those of the table that what runs on a node shows to be for it.
    pub fn by_themselves() -> Self {
        let all = parse(BUILT_IN).unwrap_or_default();
        Self { all, by_themselves: true }
    }

    /// The one of the table with this name.
    ///
    /// # Errors
    /// There is none; which there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let mut all = parse(BUILT_IN).unwrap_or_default();
        let known: Vec<String> = all.iter().map(|profile| profile.name.clone()).collect();
        all.retain(|profile| profile.name == name);
        if all.is_empty() {
            let known = known.join(", ");
            return Err(format!("no profile is called {name:?}: there is {known}, or a FILE.toml"));
        }
        Ok(Self { all, by_themselves: false })
    }

    /// All of a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of its lines.
    pub fn parse(text: &str) -> Result<Self, Vec<TomlError>> {
        Ok(Self { all: parse(text)?, by_themselves: false })
    }

    /// These and others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.all.extend(others.all);
        self.by_themselves &= others.by_themselves;
        self
    }
}

fn parse(text: &str) -> Result<Vec<ProfileDefinition>, Vec<TomlError>> {
    let mut reader = TomlReader::new(text);
    let mut all = Vec::new();
    if let Some(table) = reader.table() {
        for (key, value) in table.get_ref() {
            let name: &str = key.get_ref();
            if name != "profile" {
                reader.unknown(key.span().start, name, "a file of profiles", &["profile"]);
                continue;
            }
            for (at, table) in reader.tables(name, value) {
                let each = table.iter().map(|(k, v)| {
                    let key: &str = k.get_ref();
                    (k.span().start, key, v)
                });
                let profile = profile(&mut reader, at, each);
                all.push(profile);
            }
        }
        if all.is_empty() {
            reader.wrong(0, "there is no profile: [[profile]]");
        }
    }
    reader.finish(all)
}

fn profile<'v, 'i: 'v>(
    reader: &mut TomlReader<'_>,
    at: usize,
    keys: impl Iterator<Item = (usize, &'v str, &'v TomlValue<'i>)>,
) -> ProfileDefinition {
    let mut profile = ProfileDefinition::default();
    for (at, key, value) in keys {
        match key {
            "name" => profile.name = reader.text(key, value).unwrap_or_default(),
            "title" => profile.title = reader.text(key, value).unwrap_or_default(),
            "found-by" => profile.found_by = reader.each(key, value, shown),
            "not-with" => profile.not_with = reader.each(key, value, shown),
            "port" => {
                for (at, table) in reader.tables(key, value) {
                    let each = table.iter().map(|(k, v)| {
                        let key: &str = k.get_ref();
                        (k.span().start, key, v)
                    });
                    profile.ports.extend(asked(reader, at, each));
                }
            }
            _ => reader.unknown(at, key, "[[profile]]", &OF_PROFILE),
        }
    }
    if profile.name.is_empty() {
        reader.wrong(at, "a profile needs a name");
    }
    if profile.title.is_empty() {
        profile.title.clone_from(&profile.name);
    }
    profile
}

fn asked<'v, 'i: 'v>(
    reader: &mut TomlReader<'_>,
    at: usize,
    keys: impl Iterator<Item = (usize, &'v str, &'v TomlValue<'i>)>,
) -> Option<ProfilePort> {
    let mut ports: Option<Which> = None;
    let (mut from, mut owner, mut required) = (None, Vec::new(), true);
    let (mut only, mut may_be_shut, mut unless) = (None, false, Vec::new());
    let (mut role, mut source) = (None, None);
    for (at, key, value) in keys {
        match key {
            "ports" => ports = reader.each(key, value, which).first().copied(),
            "from" => from = reader.each(key, value, policy::vantage).first().copied(),
            "owner" => owner = reader.each(key, value, policy::owner),
            "required" => required = reader.truth(key, value),
            "only" => only = reader.text(key, value),
            "may-be-shut" => may_be_shut = reader.truth(key, value),
            "unless" => unless = reader.each(key, value, shown),
            "role" => role = reader.text(key, value),
            "source" => source = reader.text(key, value),
            _ => reader.unknown(at, key, "[[profile.port]]", &OF_PORT),
        }
    }
    let Some(ports) = ports else {
        reader.wrong(at, "a port of a profile needs ports: ports = \"6443/tcp\"");
        return None;
    };
    let role = role.unwrap_or_else(|| "a port of the profile".to_owned());
    let source = source.unwrap_or_else(|| "the file of the profile".to_owned());
    if may_be_shut && only.is_none() {
        reader.wrong(at, "may-be-shut needs only: where is it asked for?");
    }
    Some(ProfilePort { ports, from, owner, required, only, may_be_shut, unless, role, source })
}

fn which(text: &str) -> Result<Which, String> {
    if text == "node-ports" {
        return Ok(Which::NodePorts);
    }
    let PolicyPorts { range, proto } = policy::ports(text)?;
    let Some(proto) = proto else {
        return Err(format!("{text:?} needs its protocol: {text}/tcp or {text}/udp"));
    };
    if range.last.0 - range.first.0 >= WIDEST {
        return Err(format!("{text:?} is more than {WIDEST} ports"));
    }
    Ok(Which::These(range, proto))
}

/// `component:dockerd`, `component:dockerd 7946`.
fn shown(text: &str) -> Result<ProfileSign, String> {
    if let Some((owner, port)) = text.rsplit_once(' ')
        && let Ok(port) = port.parse::<u16>()
    {
        return Ok(ProfileSign { owner: policy::owner(owner)?, port: Some(Port(port)) });
    }
    Ok(ProfileSign { owner: policy::owner(text)?, port: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_right_and_each_line_says_where_it_is_from() {
        let all = parse(BUILT_IN).unwrap();
        let names: Vec<&str> = all.iter().map(|profile| &*profile.name).collect();
        assert_eq!(
            names,
            [
                "k3s-server",
                "k3s-agent",
                "rke2",
                "rke2-agent",
                "kubeadm-control-plane",
                "kubeadm-worker",
                "cilium",
                "flannel-vxlan",
                "flannel-wireguard",
                "calico",
                "docker-swarm"
            ]
        );
        for profile in &all {
            assert!(!profile.found_by.is_empty() && !profile.ports.is_empty(), "{profile:?}");
            for port in &profile.ports {
                assert!(port.source.starts_with("https://"), "{port:?}");
                // What has to be there has somebody who has to have it.
                assert!(!port.required || !port.owner.is_empty(), "{port:?}");
                // What others need in some clusters only says in which.
                assert!(!port.may_be_shut || port.only.is_some(), "{port:?}");
                assert!(!port.may_be_shut || port.from.is_some(), "{port:?}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told() {
        let wrong = |text: &str| {
            let all = parse(text).unwrap_err();
            all.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            wrong("x = 1\n"),
            [
                "1:1: no key \"x\" in a file of profiles: there is profile",
                "1:1: there is no profile: [[profile]]",
            ]
        );
        let text =
            "[[profile]]\nname = \"a\"\n[[profile.port]]\nports = \"80\"\nform = \"outside\"\n";
        assert_eq!(
            wrong(text),
            [
                "3:1: a port of a profile needs ports: ports = \"6443/tcp\"",
                "4:9: \"80\" needs its protocol: 80/tcp or 80/udp",
                "5:1: no key \"form\" in [[profile.port]]: there is ports, from, owner, required, only, may-be-shut, unless, role, source",
            ]
        );
        let text =
            "[[profile]]\nname = \"a\"\n[[profile.port]]\nports = \"80/tcp\"\nmay-be-shut = true\n";
        assert_eq!(wrong(text), ["3:1: may-be-shut needs only: where is it asked for?"]);
        assert!(Profiles::named("k8s").unwrap_err().contains("kubeadm-worker"));
    }
}
