//! Ports that a real Docker publishes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use lab::{Container, Docker, Netns, Test};

use crate::node::{Case, Check, LOOPBACK, Server, case, number};

/// A host with Docker, another machine beside it, and what runs in containers.
struct Host {
    servers: Vec<Server>,
    client: Option<Container>,
    outside: Netns,
    docker: Docker,
    number: u8,
}

impl Host {
    fn new(options: &[&str]) -> Result<Self> {
        let number = number();
        let bridge = format!("10.{number}.1.1/24");
        let docker = Docker::start_with(&bridge, &format!("10.{number}.128.0/17"), options)?;
        let lab = docker.lab();
        let outside = lab.netns("outside")?;
        let at = |last: &str| format!("10.{number}.{last}/24");
        let v6 = |last: u8| format!("fd00:{number}::{last}/64");
        lab.lan(&[(lab.host(), &[&at("0.1"), &v6(1)]), (&outside, &[&at("0.2"), &v6(2)])])?;
        lab.host().ip(&["route", "add", "default", "via", &format!("10.{number}.0.2")])?;
        Ok(Self { servers: Vec::new(), client: None, outside, docker, number })
    }

    fn ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, 0, 1)
    }

    /// The address of Docker's bridge, by which containers know the host.
    fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, 1, 1)
    }

    fn ipv6(&self) -> IpAddr {
        let text = format!("fd00:{}::1", self.number);
        text.parse().unwrap_or(IpAddr::V4(self.ip()))
    }

    /// A container whose server says its name on port 80.
    fn run(&mut self, name: &str, options: &str) -> Test {
        let listen = format!("listen tcp [::]:80 --answer {name}");
        let container = self.docker.run(name, options, &listen)?;
        self.servers.push(Server::kept(name, container.pid));
        Ok(())
    }

    fn check(&self, port: u16, cases: &[Case<'_>]) -> Test {
        let check = Check {
            lab: self.docker.lab(),
            here: self.docker.lab().host(),
            outside: Some(&self.outside),
            containers: self.client.as_ref().map(|client| &client.netns),
            servers: &self.servers,
        };
        check.check(&port.to_string(), cases)
    }
}

#[test]
fn ports_that_docker_publishes_with_its_proxy() -> Test {
    lab::docker_or_skip!();
    let mut host = Host::new(&[])?;
    let [all, inner, one, user] = [(); 4].map(|()| lab::unused_port());
    let (all, inner, one, user) = (all?, inner?, one?, user?);
    host.run("all", &format!("-p {all}:80"))?;
    host.run("loopback", &format!("-p 127.0.0.1:{inner}:80"))?;
    host.run("one", &format!("-p {}:{one}:80", host.ip()))?;
    host.docker.cli(&["network", "create", "front"])?;
    host.run("user", &format!("--network front -p {user}:80"))?;
    host.client = Some(host.docker.idle("client", "")?);
    let ip = host.ip();
    for (port, name) in [(all, &["all"]), (user, &["user"])] {
        host.check(
            port,
            &[
                case("loopback", LOOPBACK, name),
                case("loopback", Ipv6Addr::LOCALHOST, name),
                case("node", ip, name),
                case("node", host.ipv6(), name),
                case("outside", ip, name),
                case("outside", host.ipv6(), name),
                case("containers", host.gateway(), name),
            ],
        )?;
    }
    host.check(
        inner,
        &[
            case("loopback", LOOPBACK, &["loopback"]),
            case("loopback", Ipv6Addr::LOCALHOST, &["refused"]),
            case("node", ip, &["refused"]),
            case("outside", ip, &["refused"]),
            case("containers", host.gateway(), &["refused"]),
        ],
    )?;
    host.check(
        one,
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", ip, &["one"]),
            case("outside", ip, &["one"]),
            case("containers", ip, &["one"]),
        ],
    )
}

#[test]
fn ports_that_docker_publishes_without_its_proxy() -> Test {
    lab::docker_or_skip!();
    let mut host = Host::new(&["--userland-proxy=false"])?;
    let [all, inner, user] = [(); 3].map(|()| lab::unused_port());
    let (all, inner, user) = (all?, inner?, user?);
    host.run("all", &format!("-p {all}:80"))?;
    host.run("loopback", &format!("-p 127.0.0.1:{inner}:80"))?;
    host.docker.cli(&["network", "create", "front"])?;
    host.run("user", &format!("--network front -p {user}:80"))?;
    host.client = Some(host.docker.idle("client", "")?);
    let ip = host.ip();
    for (port, name) in [(all, &["all"]), (user, &["user"])] {
        host.check(
            port,
            &[case("loopback", LOOPBACK, name), case("node", ip, name), case("outside", ip, name)],
        )?;
    }
    host.check(
        inner,
        &[
            case("loopback", LOOPBACK, &["loopback"]),
            case("node", ip, &["refused"]),
            case("outside", ip, &["refused"]),
        ],
    )
}

#[test]
fn a_published_port_behind_which_nobody_listens() -> Test {
    lab::docker_or_skip!();
    let mut host = Host::new(&[])?;
    let port = lab::unused_port()?;
    host.client = Some(host.docker.idle("idle", &format!("-p {port}:9"))?);
    host.check(
        port,
        &[
            // Its proxy accepts, finds nobody, and closes.
            case("loopback", LOOPBACK, &["closed"]),
            case("node", host.ip(), &["refused"]),
            case("outside", host.ip(), &["refused"]),
        ],
    )
}

#[test]
fn ports_that_docker_publishes_for_ipv6() -> Test {
    lab::docker_or_skip!();
    let network = format!("fd00:{}:d::/64", 250);
    let options =
        ["--ipv6", "--fixed-cidr-v6", &network, "--experimental=true", "--ip6tables=true"];
    let mut host = Host::new(&options)?;
    let port = lab::unused_port()?;
    host.run("six", &format!("-p [::]:{port}:80"))?;
    host.client = Some(host.docker.idle("client", "")?);
    // A new IPv6 address in a container is not usable for a second.
    let from = host.docker.lab().host();
    for _ in 0..20 {
        if from.connect("tcp", (host.ipv6(), port).into())?.server().is_some() {
            break;
        }
    }
    host.check(
        port,
        &[
            case("loopback", Ipv6Addr::LOCALHOST, &["six"]),
            case("loopback", LOOPBACK, &["refused"]),
            case("node", host.ipv6(), &["six"]),
            case("outside", host.ipv6(), &["six"]),
            case("outside", host.ip(), &["refused"]),
        ],
    )
}

#[test]
fn what_a_user_drops_in_docker_user_does_not_arrive_in_a_container() -> Test {
    lab::docker_or_skip!();
    let mut host = Host::new(&[])?;
    let port = lab::unused_port()?;
    host.run("web", &format!("-p {port}:80"))?;
    let rules = "*filter\n-I DOCKER-USER -i eth0 -p tcp --dport 80 -j DROP\nCOMMIT\n";
    let lab = host.docker.lab();
    lab.iptables(lab.host(), lab::Backend::Nft, rules)?;
    host.check(
        port,
        &[
            case("loopback", LOOPBACK, &["web"]),
            case("node", host.ip(), &["web"]),
            case("outside", host.ip(), &["timeout"]),
            // Nothing but its proxy is there for IPv6.
            case("outside", host.ipv6(), &["web"]),
        ],
    )
}

#[test]
fn a_container_on_an_internal_network_is_reached_from_this_host_only() -> Test {
    lab::docker_or_skip!();
    let mut host = Host::new(&[])?;
    let (port, inner) = (lab::unused_port()?, lab::unused_port()?);
    host.docker.cli(&["network", "create", "--internal", "back"])?;
    let listen = format!("listen tcp 0.0.0.0:{inner} --answer hidden");
    let options = format!("--network back -p {port}:{inner}");
    let container = host.docker.run("hidden", &options, &listen)?;
    host.servers.push(Server::kept("hidden", container.pid));
    host.client = Some(host.docker.idle("client", "")?);
    let ip: Ipv4Addr = container.address(&host.docker)?.parse()?;
    host.check(
        inner,
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", ip, &["hidden"]),
            case("outside", host.ip(), &["refused"]),
        ],
    )?;
    // Docker takes the option and publishes nothing.
    host.check(
        port,
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", host.ip(), &["refused"]),
            case("outside", host.ip(), &["refused"]),
        ],
    )
}
