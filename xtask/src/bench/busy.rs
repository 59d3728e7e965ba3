//! What a real node has besides listeners: a container engine's networks and rules, and
//! connections that the kernel tracks.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::sh;

/// Network namespaces besides the one that is measured in, as containers have them.
pub(super) const NAMESPACES: u16 = 100;
/// Containers whose port is published: each has rules, as Docker makes them.
pub(super) const PUBLISHED: u16 = 50;
/// Connections that the kernel tracks.
pub(super) const CONNECTIONS: u32 = 20_000;
/// The port that every container listens on, and the next one.
pub(super) const INNER_PORT: u16 = 8_080;
/// The first of the published ports.
const FIRST_PUBLISHED: u16 = 40_000;

/// The containers' bridge and its address.
const BRIDGE: &str = "docker0";
const GATEWAY: &str = "172.17.0.1/16";

/// The address of a container.
fn address(container: u16) -> Ipv4Addr {
    let [high, low] = (container + 2).to_be_bytes();
    Ipv4Addr::new(172, 17, high, low)
}

/// Connects the namespaces of these processes to a bridge, as a container engine does, in the
/// namespace of this thread.
pub(super) fn connect(processes: &[u32]) -> Result<()> {
    let mut links = format!(
        "link add {BRIDGE} type bridge\naddress add {GATEWAY} dev {BRIDGE}\nlink set {BRIDGE} up\n"
    );
    for (pid, number) in processes.iter().zip(0_u16..) {
        // Writing to a string can't fail.
        let _infallible = write!(
            links,
            "link add veth{number} type veth peer name eth0 netns {pid}\n\
             link set veth{number} master {BRIDGE} up\n"
        );
    }
    feed(&["ip", "-batch", "-"], &links)?;
    for (pid, number) in processes.iter().zip(0_u16..) {
        let address = address(number);
        let inside = format!(
            "link set lo up\naddress add {address}/16 dev eth0\nlink set eth0 up\n\
             route add default via 172.17.0.1\n"
        );
        feed(&["nsenter", "-n", "-t", &pid.to_string(), "ip", "-batch", "-"], &inside)?;
    }
    Ok(())
}

/// Loads the rules, in the namespace of this thread.
pub(super) fn publish() -> Result<()> {
    feed(&["iptables-nft-restore"], &rules())
}

/// The rules of a Docker Engine 28 with `PUBLISHED` containers on its default bridge, as
/// `iptables-save` has them. Made up after those of a real one.
fn rules() -> String {
    let mut nat = String::from(
        "*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n:DOCKER -\n\
         -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
         -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n\
         -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n",
    );
    let mut filter = String::from(
        "*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\n:DOCKER -\n:DOCKER-BRIDGE -\n\
         :DOCKER-CT -\n:DOCKER-FORWARD -\n:DOCKER-ISOLATION-STAGE-1 -\n\
         :DOCKER-ISOLATION-STAGE-2 -\n:DOCKER-USER -\n\
         -A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-FORWARD\n\
         -A DOCKER-BRIDGE -o docker0 -j DOCKER\n\
         -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A DOCKER-FORWARD -j DOCKER-CT\n-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1\n\
         -A DOCKER-FORWARD -j DOCKER-BRIDGE\n-A DOCKER-FORWARD -i docker0 -j ACCEPT\n\
         -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2\n\
         -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP\n",
    );
    for number in 0..PUBLISHED {
        let (address, port) = (address(number), FIRST_PUBLISHED + number);
        let _infallible = writeln!(
            nat,
            "-A DOCKER ! -i docker0 -p tcp -m tcp --dport {port} -j DNAT --to-destination {address}:{INNER_PORT}"
        );
        let _infallible = writeln!(
            filter,
            "-A DOCKER -d {address}/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport {INNER_PORT} -j ACCEPT"
        );
    }
    filter.push_str("-A DOCKER ! -i docker0 -o docker0 -j DROP\n");
    format!("{nat}COMMIT\n{filter}COMMIT\n")
}

/// Has the kernel track connections to `ports` ports from `first` on, in the namespace of this
/// thread. They are entries alone: nothing is sent.
pub(super) fn track(first: u16, ports: u16) -> Result<()> {
    let mut entries = String::new();
    for number in 0..CONNECTIONS {
        let [_, high, middle, low] = number.to_be_bytes();
        let client = Ipv4Addr::new(10, high, middle, low);
        let (from, to) = (30_000 + number % 30_000, u32::from(first) + number % u32::from(ports));
        let _infallible = writeln!(
            entries,
            "-I -p tcp -s {client} -d 172.17.0.1 --sport {from} --dport {to} \
             --state ESTABLISHED -u ASSURED,SEEN_REPLY -t 86400"
        );
    }
    feed(&["conntrack", "--load-file", "/dev/stdin"], &entries)?;
    // What the machine allows all namespaces together may be less.
    let count = sh::capture(Command::new("conntrack").arg("-C"))?;
    let count: u32 = count.trim().parse().context("counting the connections")?;
    ensure!(
        count >= CONNECTIONS,
        "only {count} of {CONNECTIONS} connections could be made: \
         net.netfilter.nf_conntrack_max may be too low"
    );
    Ok(())
}

/// Runs a command with some input.
fn feed(command: &[&str], input: &str) -> Result<()> {
    let (program, args) = command.split_first().context("no command")?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    // Dropping the pipe ends the input.
    let written = child.stdin.take().context("no pipe")?.write_all(input.as_bytes());
    let status = child.wait().with_context(|| format!("waiting for {program}"))?;
    ensure!(status.success(), "{}: {status}", command.join(" "));
    written.with_context(|| format!("writing to {program}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_port_has_its_rules() {
        let rules = rules();
        assert_eq!(rules.matches("-j DNAT").count(), usize::from(PUBLISHED));
        assert!(rules.contains("--dport 40049 -j DNAT --to-destination 172.17.0.51:8080\n"));
        assert!(rules.contains("-A DOCKER -d 172.17.0.51/32 ! -i docker0"));
        assert_eq!(rules.matches("COMMIT\n").count(), 2);
    }

    #[test]
    fn containers_have_addresses_of_their_own() {
        let all: std::collections::BTreeSet<_> = (0..NAMESPACES).map(address).collect();
        assert_eq!(all.len(), usize::from(NAMESPACES));
        assert_eq!(address(300), Ipv4Addr::new(172, 17, 1, 46));
    }
}
