//! Ports that a real Docker publishes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use lab::{Container, Docker, Landing, Netns, Test};

use crate::paths::node::{Case, Check, LOOPBACK, Server, case, number};

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

    /// Whether a published port is one answer, and one row for each address that a socket of
    /// the host has, and both tell the container.
    fn is_one(&self, port: u16, name: &str) -> Test {
        let lab = self.docker.lab();
        let run = lab.whereis(&[&format!("{port}/tcp")])?;
        let paths = run.paths_in(lab.host())?;
        ensure!(paths.first().and_then(|path| path.container()) == Some(name), "{}", run.stdout);
        ensure!(paths.iter().all(|path| path.hops()[0]["kind"] == "dnat"), "{}", run.stdout);
        let target = self.is_one_row(port, name)?;
        ensure!(target["port"] == 80, "{target}");
        Ok(())
    }

    /// Where the only row of a published port of the host leads, which tells the container.
    fn is_one_row(&self, port: u16, name: &str) -> Result<serde_json::Value> {
        let list = self.docker.lab().whereis(&["list", "--container", name])?;
        let rows = list.listeners()?;
        let rows: Vec<_> = rows.iter().filter(|row| row.0["port"] == port).collect();
        let [row] = rows[..] else { anyhow::bail!("not one row: {}", list.stdout) };
        ensure!(row.container() == Some(name), "{}", row.0);
        Ok(row.0["target"].clone())
    }

    /// Where a connection from outside lands, as soon as one does.
    fn wait_for(&self, port: u16) -> Result<Landing> {
        let mut landed = Landing::Refused;
        for _ in 0..100 {
            landed = self.outside.connect("tcp", (self.ip(), port).into())?;
            if landed.server().is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(landed)
    }

    /// What the tool says to people of a port, from the host.
    fn text(&self, question: &str) -> Result<String> {
        let tool = self.docker.lab().tool().args(&["--color", "never", question]);
        Ok(tool.run()?.stdout)
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
        let list = host.docker.lab().whereis(&["list", "--container", name[0]])?;
        let rows = list.listeners()?;
        let listed = rows.iter().filter(|row| row.0["port"] == port);
        ensure!(listed.count() == 2, "one for each docker-proxy: {}", list.stdout);
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
        host.is_one(port, name[0])?;
    }
    host.check(
        inner,
        &[
            case("loopback", LOOPBACK, &["loopback"]),
            case("node", ip, &["refused"]),
            case("outside", ip, &["refused"]),
        ],
    )?;
    // Without its rule the port's connections land on a socket of dockerd, which only reserves
    // it: the kernel accepts them, and nobody else.
    let lab = host.docker.lab();
    lab.nft(lab.host(), "flush chain ip nat DOCKER")?;
    host.check(
        all,
        &[
            case("loopback", LOOPBACK, &["timeout"]),
            case("node", ip, &["timeout"]),
            case("outside", ip, &["timeout"]),
        ],
    )?;
    let text = host.text(&all.to_string())?;
    ensure!(text.contains("never answered: the port is only reserved for container all"), "{text}");
    host.is_one_row(all, "all")?;
    Ok(())
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

/// Fixes are tried: what is proposed is done, and the port is reached.
#[test]
fn where_a_p_does_nothing_it_is_not_proposed() -> Test {
    lab::docker_or_skip!();
    let host = Host::new(&[])?;
    let [own, inner, shared, port] = [(); 4].map(|()| lab::unused_port());
    let (own, inner, shared, port) = (own?, inner?, shared?, port?);
    let number = host.number;

    // An address of its own on the network of the others.
    let subnet = format!("10.{number}.0.0/24");
    let range = format!("10.{number}.0.64/27");
    let create = ["network", "create", "--driver", "macvlan", "--opt", "parent=eth0"];
    host.docker
        .cli(&[&create[..], &["--subnet", &subnet, "--ip-range", &range, "wire"]].concat())?;
    let mac = host.docker.run(
        "mac",
        "--network wire",
        &format!("listen tcp 0.0.0.0:{own} --answer mac"),
    )?;
    let address: Ipv4Addr = mac.address(&host.docker)?.parse()?;
    let text = host.text(&own.to_string())?;
    let proposed = format!("connect to {address}:{own}");
    ensure!(!text.contains(" -p "), "{text}");
    // Where that is told as reachable, nothing has to be proposed.
    let reached = text.lines().any(|l| l.contains("other machines") && l.contains("  yes "));
    ensure!(reached || text.contains(&proposed), "{text}");
    let landed = host.outside.connect("tcp", (address, own).into())?;
    ensure!(landed.server() == Some("mac"), "{landed}");

    // An internal network.
    host.docker.cli(&["network", "create", "--internal", "back"])?;
    let listen = format!("listen tcp 0.0.0.0:{inner} --answer hidden");
    host.docker.run("hidden", &format!("--network back -p {port}:{inner}"), &listen)?;
    let text = host.text(&inner.to_string())?;
    let proposed = "recreate container hidden on a network that publishes ports";
    ensure!(text.contains(proposed), "{text}");
    // It was made with -p, which does nothing there. With another network it has an effect.
    let text = host.text(&port.to_string())?;
    ensure!(text.contains("hidden is told to publish") && text.contains("is internal"), "{text}");
    ensure!(text.contains("docker network connect bridge hidden"), "{text}");
    host.docker.cli(&["network", "connect", "bridge", "hidden"])?;
    let landed = host.outside.connect("tcp", (host.ip(), port).into())?;
    ensure!(landed.server() == Some("hidden"), "{landed}");
    host.docker.cli(&["rm", "--force", "hidden"])?;
    host.docker.run("hidden", &format!("-p {port}:{inner}"), &listen)?;
    let landed = host.wait_for(port)?;
    ensure!(landed.server() == Some("hidden"), "{landed}");

    // One that does not run would have the port again.
    host.docker.cli(&["stop", "--time", "0", "hidden"])?;
    let text = host.text(&port.to_string())?;
    ensure!(text.contains("docker start hidden") && text.contains("exited"), "{text}");
    host.docker.cli(&["start", "hidden"])?;
    let landed = host.wait_for(port)?;
    ensure!(landed.server() == Some("hidden"), "{landed}");

    // The network of another container: that one has to be made anew.
    host.docker.idle("first", "")?;
    let listen = format!("listen tcp 0.0.0.0:{shared} --answer second");
    host.docker.run("second", "--network container:first", &listen)?;
    let text = host.text(&shared.to_string())?;
    ensure!(text.contains("recreate container first with -p"), "{text}");
    ensure!(!text.contains("recreate container second"), "{text}");
    Ok(())
}
