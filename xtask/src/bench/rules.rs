//! A node with the rules of 5,000 services, beside the commands that list rules.

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use lab::kube::{NftShape, Proxy, Shape};

use super::measure::{self, Case, Samples, Tool};
use super::node;
use crate::sh;

/// Services, and endpoints of each.
pub(super) const SERVICES: u16 = 5_000;
pub(super) const ENDPOINTS: u16 = 4;
/// The first of their NodePorts.
pub(super) const FIRST: u16 = 30_000;
/// The one that is asked for: neither the first nor the last.
pub(super) const ASKED: u16 = 32_500;
/// One of the commands takes seconds: so many rounds are enough.
const ROUNDS: u32 = 7;

/// Who wrote the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// kube-proxy by `iptables-nft-restore`.
    IptablesNft,
    /// kube-proxy's nftables mode.
    Nft,
    /// kube-proxy by `iptables-legacy-restore`.
    IptablesLegacy,
}

/// What of it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// Where one NodePort leads.
    OnePort,
    /// All that can be reached.
    List,
    /// All rules, as other commands print them.
    Rules,
}

/// All samples of one command.
#[derive(Debug)]
pub(crate) struct OfRules {
    pub(crate) kind: Kind,
    pub(crate) about: About,
    pub(crate) label: &'static str,
    pub(crate) samples: Samples,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::IptablesNft, Self::Nft, Self::IptablesLegacy];

    /// The command that prints such rules.
    fn peer(self) -> &'static str {
        match self {
            Self::IptablesNft => "iptables-nft-save",
            Self::Nft => "nft list ruleset",
            Self::IptablesLegacy => "iptables-legacy-save",
        }
    }

    /// The command that takes them, and they.
    fn rules(self, proxy: &Proxy) -> (&'static [&'static str], String) {
        match self {
            Self::IptablesNft => (&["iptables-nft-restore"], proxy.iptables(Shape::Current)),
            Self::Nft => (&["nft", "-f", "-"], proxy.nft(NftShape::V1_33)),
            Self::IptablesLegacy => (&["iptables-legacy-restore"], proxy.iptables(Shape::Current)),
        }
    }

    /// Makes the node, in the namespace of this thread.
    pub(super) fn make(self) -> Result<()> {
        for args in [
            &["link", "add", "eth0", "type", "veth", "peer", "name", "wire"][..],
            &["address", "add", "172.16.0.1/16", "dev", "eth0"],
            &["link", "set", "eth0", "up"],
            &["link", "set", "wire", "up"],
            &["route", "add", "default", "via", "172.16.0.2"],
        ] {
            sh::capture(Command::new("ip").args(args))?;
        }
        let (command, rules) = self.rules(&Proxy::many(SERVICES, ENDPOINTS, FIRST));
        let (program, args) = command.split_first().context("no command")?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        // Dropping the pipe ends the input.
        let written = child.stdin.take().context("no pipe")?.write_all(rules.as_bytes());
        let status = child.wait().with_context(|| format!("waiting for {program}"))?;
        ensure!(status.success(), "{program}: {status}");
        written.with_context(|| format!("writing to {program}"))
    }

    fn cases(self, binary: &Path) -> Vec<(About, Case)> {
        let ours = |args: &str, label| Case {
            tool: Tool::Ours,
            program: binary.into(),
            args: vec![args.to_owned()],
            label,
        };
        let mut words = self.peer().split(' ').map(str::to_owned);
        let program = words.next().unwrap_or_default().into();
        let peer = Case { tool: Tool::Rules, program, args: words.collect(), label: self.peer() };
        vec![
            (About::OnePort, ours(&ASKED.to_string(), "whereis-port P")),
            (About::List, ours("list", "whereis-port list")),
            (About::Rules, peer),
        ]
    }
}

/// Measures all three.
pub(crate) fn measure(binary: &Path, rounds: u32) -> Result<Vec<OfRules>> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        eprintln!("bench: {SERVICES} services by {kind}");
        all.extend(node::in_private_namespaces(|| {
            kind.make().with_context(|| format!("making rules by {kind}"))?;
            check(binary)?;
            let (about, cases): (Vec<_>, Vec<_>) = kind.cases(binary).into_iter().unzip();
            let samples = measure::alternate(&cases, rounds.min(ROUNDS))?;
            let all = about.into_iter().zip(cases).zip(samples);
            let of = |((about, case), samples): ((About, Case), Samples)| OfRules {
                kind,
                about,
                label: case.label,
                samples,
            };
            Ok(all.map(of).collect::<Vec<_>>())
        })?);
    }
    Ok(all)
}

/// A fast wrong answer is worth nothing: all endpoints of the service must be named.
fn check(binary: &Path) -> Result<()> {
    let json = sh::capture(Command::new(binary).args(["--json", &ASKED.to_string()]))?;
    let proxy = Proxy::many(SERVICES, ENDPOINTS, FIRST);
    let asked = proxy.services.iter().find(|service| service.node_port == Some(ASKED));
    for endpoint in &asked.context("no such service")?.endpoints {
        ensure!(json.contains(&endpoint.ip.to_string()), "{endpoint} is not in the answer: {json}");
    }
    let list = sh::capture(Command::new(binary).args(["--json", "list"]))?;
    let listed = |port: u16| {
        list.contains(&format!("\"port\": {port}")) || list.contains(&format!("\"port\":{port}"))
    };
    ensure!(listed(ASKED), "port {ASKED} is not in the list");
    Ok(())
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IptablesNft => "iptables-nft",
            Self::Nft => "nft",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnePort => "one NodePort",
            Self::List => "full list",
            Self::Rules => "all rules",
        })
    }
}
