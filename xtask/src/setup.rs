//! `cargo xtask setup`: installs what tests and checks need.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{Refused, ebpf, sh, workflows};

/// The version that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

/// What something is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// `cargo xtask test`.
    Test,
    /// What `test --extended` adds.
    Extended,
    /// `check`, `fuzz` and `vm`.
    Rest,
}

impl For {
    /// All that there is.
    pub(crate) const ALL: &[Self] = &[Self::Test, Self::Extended, Self::Rest];
}

/// A program that is run, and the package that has it.
struct Need {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const TESTS: &[Need] = &[
    Need { program: "ip", package: "iproute2", why: "makes namespaces, links and tunnels" },
    Need { program: "ss", package: "iproute2", why: "lists are compared with it" },
    Need { program: "lsof", package: "lsof", why: "lists are compared with it" },
    Need { program: "iptables", package: "iptables", why: "dockerd publishes ports with it" },
    Need {
        program: "dockerd",
        package: "docker.io",
        why: "runs containers in a private namespace",
    },
    Need { program: "docker", package: "docker.io", why: "talks to dockerd" },
    Need { program: "busybox", package: "busybox-static", why: "is the containers' image" },
    Need { program: "nft", package: "nftables", why: "makes NAT rules" },
    Need { program: "conntrack", package: "conntrack", why: "tells what the kernel translated" },
    Need { program: "ipset", package: "ipset", why: "makes the sets that rules ask" },
    Need { program: "ipvsadm", package: "ipvsadm", why: "makes virtual servers of IPVS" },
    Need { program: "podman", package: "podman", why: "publishes ports in its own way" },
    Need { program: "/usr/lib/podman/netavark", package: "netavark", why: "is podman's network" },
    Need { program: "/usr/lib/podman/aardvark-dns", package: "aardvark-dns", why: "names for it" },
    Need {
        program: "catatonit",
        package: "catatonit",
        why: "holds the namespaces of podman's pods",
    },
    Need { program: "pasta", package: "passt", why: "forwards ports of rootless containers" },
    Need { program: "slirp4netns", package: "slirp4netns", why: "does it as well" },
    Need { program: "rootlesskit", package: "rootlesskit", why: "does it for rootless Docker" },
    Need { program: "newuidmap", package: "uidmap", why: "gives users ids for containers" },
    Need { program: "jq", package: "jq", why: "reads JSON in examples of the documentation" },
    Need { program: "promtool", package: "prometheus", why: "reads the metrics of a list" },
    Need { program: "zsh", package: "zsh", why: "completes command lines" },
    Need { program: "fish", package: "fish", why: "does it as well" },
    Need { program: "dot", package: "graphviz", why: "draws graphs" },
    Need {
        program: "/usr/lib/python3/dist-packages/yaml/__init__.py",
        package: "python3-yaml",
        why: "reads YAML",
    },
    Need { program: "screen", package: "screen", why: "is another terminal of these tests" },
    Need { program: "tmux", package: "tmux", why: "is the terminal of the screen's tests" },
    Need { program: "containerd", package: "containerd", why: "runs pods in a lab" },
    Need { program: "runc", package: "runc", why: "runs podman's and containerd's containers" },
    Need {
        program: "/usr/lib/cni/portmap",
        package: "containernetworking-plugins",
        why: "opens ports for containers of podman, containerd and k3s",
    },
];

const EXTENDED: &[Need] = &[
    Need { program: "etcd", package: "etcd-server", why: "keeps what a Kubernetes API has" },
    Need { program: "strip", package: "binutils", why: "makes programs small for containers" },
];

const REST: &[Need] = &[
    Need { program: "pip3", package: "python3-pip", why: "installs the linter of the workflows" },
    Need { program: "qemu-system-x86_64", package: "qemu-system-x86", why: "boots other kernels" },
    Need { program: "cpio", package: "cpio", why: "packs what they boot from" },
    Need { program: "depmod", package: "kmod", why: "finds and loads their modules" },
    Need { program: "g++", package: "g++", why: "builds libFuzzer" },
    Need { program: "strip", package: "binutils", why: "makes programs small for them" },
];

/// The programs that are needed for this.
fn needs(what: &[For]) -> impl Iterator<Item = &'static Need> {
    what.iter().flat_map(|what| match what {
        For::Test => TESTS,
        For::Extended => EXTENDED,
        For::Rest => REST,
    })
}

/// Installs what is missing for this, as root, or says what to do.
pub(crate) fn run(what: &[For]) -> Result<()> {
    let packages = missing_packages(what);
    let checks = what.contains(&For::Rest);
    let components = if checks { missing_components() } else { Vec::new() };
    let deny = checks && !sh::succeeds(&mut sh::cargo(&["deny", "--version"]));
    let linter = checks && workflows::linter()?.is_none();
    let kernel_side = what.contains(&For::Extended).then(ebpf::Toolchain::find);
    if let Some(Ok(toolchain)) = &kernel_side {
        eprintln!("setup: the kernel side is built by {toolchain}");
    }
    let toolchain = kernel_side.and_then(Result::err);
    if packages.is_empty() && components.is_empty() && !deny && !linter && toolchain.is_none() {
        eprintln!("setup: all is there");
        return Ok(());
    }
    if !sh::is_root() {
        let mut text = advice(&packages, &components, deny, linter);
        text.extend(toolchain.map(ebpf::advice));
        return Err(Refused(text).into());
    }
    if !packages.is_empty() || toolchain.is_some() {
        sh::run(apt()?.arg("update"))?;
    }
    install_packages(&packages, what)?;
    if !components.is_empty() {
        sh::run(Command::new("rustup").args(["component", "add"]).args(&components))?;
    }
    if deny {
        eprintln!("setup: installing cargo-deny {CARGO_DENY}: checks licences and advisories");
        // Unoptimised: it reads one lock file, and optimising it takes minutes.
        let install = ["install", "--debug", "--locked", "cargo-deny", "--version", CARGO_DENY];
        sh::run(&mut sh::cargo(&install))?;
    }
    if linter {
        workflows::install()?;
    }
    if let Some(missing) = toolchain {
        ebpf::install(missing, apt()?)?;
    }
    Ok(())
}

/// The packages of all programs that are not there, each once.
fn missing_packages(what: &[For]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for need in needs(what).filter(|need| sh::find(need.program).is_none()) {
        eprintln!("setup: {} is missing ({}: {})", need.program, need.package, need.why);
        if !packages.contains(&need.package) {
            packages.push(need.package);
        }
    }
    packages
}

/// Parts of the toolchain that rustup's minimal profile leaves out.
fn missing_components() -> Vec<&'static str> {
    let mut components = vec!["rustfmt", "clippy"];
    components.retain(|component| {
        let command = if *component == "rustfmt" { "fmt" } else { "clippy" };
        !sh::succeeds(&mut sh::cargo(&[command, "--version"]))
    });
    components
}

fn install_packages(packages: &[&str], what: &[For]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let install = ["install", "--yes", "--no-install-recommends"];
    sh::run(apt()?.args(install).args(packages))?;
    // Newer releases have the client in a package of its own.
    if sh::find("docker").is_none() {
        sh::run(apt()?.args(install).arg("docker-cli"))?;
    }
    let still: Vec<_> =
        needs(what).map(|need| need.program).filter(|p| sh::find(p).is_none()).collect();
    if !still.is_empty() {
        bail!("installed {}, and still missing: {}", packages.join(" "), still.join(", "));
    }
    Ok(())
}

/// `apt-get` that asks nothing.
fn apt() -> Result<Command> {
    if sh::find("apt-get").is_none() {
        bail!("this is not Debian or Ubuntu: install by hand what is named as missing above");
    }
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet");
    Ok(command)
}

/// What a user who is not root has to run.
fn advice(packages: &[&str], components: &[&str], deny: bool, linter: bool) -> String {
    let mut text = "something is missing, and only root can install it; run:".to_owned();
    if !packages.is_empty() {
        text += &format!(
            "\n    sudo apt-get update && sudo apt-get install --yes --no-install-recommends {}",
            packages.join(" ")
        );
    }
    if !components.is_empty() {
        text += &format!("\n    rustup component add {}", components.join(" "));
    }
    if deny {
        text += &format!("\n    cargo install --locked cargo-deny --version {CARGO_DENY}");
    }
    if linter {
        text += &format!("\n    pipx install zizmor=={}", workflows::ZIZMOR);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_only_what_is_missing() {
        let both = advice(&["lsof", "docker.io"], &[], true, false);
        assert!(both.contains("--no-install-recommends lsof docker.io\n"), "{both}");
        assert!(both.contains("cargo-deny --version"), "{both}");
        assert!(!both.contains("rustup"), "{both}");

        let components = advice(&[], &["clippy"], false, false);
        assert!(components.ends_with("rustup component add clippy"), "{components}");
        assert!(!components.contains("apt-get"), "{components}");
    }
}
