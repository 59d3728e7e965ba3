//! The node that most of these tests begin with, and the comparison.
//!
//! ```text
//!   outside 10.N.0.2 ── eth0 10.N.0.1 [host] br0 10.N.1.1 ── eth0 10.N.1.2 [pod]
//!                                                          ── eth0 10.N.1.3 [pod] …
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, bail, ensure};
use lab::{Backend, Lab, Landing, Netns, Proc, Run, Test};
use serde_json::Value;

/// How often a client tries a service with several endpoints.
const TRIES: usize = 40;

/// A host, another machine, and what runs on the host.
pub(crate) struct Node {
    // Processes go before the lab that they are in.
    pub(crate) servers: Vec<Server>,
    pub(crate) lab: Lab,
    pub(crate) outside: Netns,
    pub(crate) pods: Vec<Netns>,
    /// The second number of all its addresses: tests run side by side, and the
    /// tool sees the namespaces of all.
    number: u8,
}

/// A server that says its name.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// Kept while the node lives; a container's belongs to its runtime.
    _process: Option<Proc>,
}

/// What one vantage gets at one address.
pub(crate) struct Case<'a> {
    /// `loopback`, `node`, `outside` or `containers`.
    pub(crate) from: &'a str,
    pub(crate) address: IpAddr,
    /// Names of servers, or `refused`, `timeout`, `unreachable`, `closed`.
    pub(crate) lands: &'a [&'a str],
    /// Any of these, and not all of them, since the service keeps to one.
    sticky: bool,
}

impl Case<'_> {
    /// Always at one of them, whichever that is.
    pub(crate) fn sticky(mut self) -> Self {
        self.sticky = true;
        self
    }
}

pub(crate) fn case<'a>(
    from: &'a str,
    address: impl Into<IpAddr>,
    lands: &'a [&'a str],
) -> Case<'a> {
    Case { from, address: address.into(), lands, sticky: false }
}

/// A number for addresses that no other test of this process has.
pub(crate) fn number() -> u8 {
    static NEXT: AtomicU8 = AtomicU8::new(100);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// 127.0.0.1.
pub(crate) const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

impl Node {
    pub(crate) fn new() -> Result<Self> {
        Self::joined(Lab::lan)
    }

    /// The same, and the other machine is at the other end of the host's own card, as a container
    /// is: what is there can be followed.
    pub(crate) fn with_pair() -> Result<Self> {
        Self::joined(|lab, machines| {
            let [(host, here), (outside, there)] = machines else { bail!("not two machines") };
            lab.veth((host, "eth0", here[0]), (outside, "eth0", there[0]))?;
            host.address("eth0", here[1])?;
            outside.address("eth0", there[1])
        })
    }

    fn joined(join: impl Fn(&Lab, &[(&Netns, &[&str])]) -> Test) -> Result<Self> {
        let lab = Lab::new()?;
        let number = number();
        let host = lab.host();
        let outside = lab.netns("outside")?;
        let at = |last: &str| format!("10.{number}.{last}/24");
        let v6 = |last: u8| format!("fd00:{number}::{last}/64");
        join(&lab, &[(host, &[&at("0.1"), &v6(1)]), (&outside, &[&at("0.2"), &v6(2)])])?;
        outside.ip(&["route", "add", "default", "via", &format!("10.{number}.0.1")])?;
        lab.bridge(host, "br0", &at("1.1"))?;
        // As on most machines, the others are where the default route leads.
        host.ip(&["route", "add", "default", "via", &format!("10.{number}.0.2")])?;
        host.sysctl("ipv4/ip_forward", "1")?;
        Ok(Self { servers: Vec::new(), lab, outside, pods: Vec::new(), number })
    }

    pub(crate) fn host(&self) -> &Netns {
        self.lab.host()
    }

    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// The host's address, which others know.
    pub(crate) fn ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, 0, 1)
    }

    /// The other machine's address.
    pub(crate) fn outside_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, 0, 2)
    }

    /// The bridge's address, by which pods know the host.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, 1, 1)
    }

    pub(crate) fn ipv6(&self) -> IpAddr {
        let text = format!("fd00:{}::1", self.number);
        text.parse().unwrap_or(IpAddr::V4(self.ip()))
    }

    /// The address of pod number `n`, from 0 on.
    pub(crate) fn pod_ip(&self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, 1, n + 2)
    }

    /// One more namespace on the bridge, which stands for a container.
    pub(crate) fn add_pod(&mut self) -> Result<Netns> {
        let n = self.pods.len();
        let pod = self.lab.netns(&format!("pod{n}"))?;
        let port = format!("veth{n}");
        let ip = self.pod_ip(u8::try_from(n)?);
        let host = self.lab.host();
        host.ip(&[
            "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &pod.name,
        ])?;
        host.ip(&["link", "set", &port, "master", "br0", "up"])?;
        // A pod may reach itself through its service.
        host.ip(&["link", "set", &port, "type", "bridge_slave", "hairpin", "on"])?;
        pod.address("eth0", &format!("{ip}/24"))?;
        pod.ip(&["link", "set", "eth0", "up"])?;
        pod.ip(&["route", "add", "default", "via", &format!("10.{}.1.1", self.number)])?;
        self.pods.push(pod.clone());
        Ok(pod)
    }

    /// A pod in which a server with this name listens on a TCP port.
    pub(crate) fn serve_in_pod(&mut self, name: &str, port: u16) -> Result<Ipv4Addr> {
        let pod = self.add_pod()?;
        self.serve(&pod, name, &format!("tcp 0.0.0.0:{port}"))?;
        Ok(self.pod_ip(u8::try_from(self.pods.len() - 1)?))
    }

    /// A server in a namespace: `tcp 0.0.0.0:80`.
    pub(crate) fn serve(&mut self, netns: &Netns, name: &str, listen: &str) -> Test {
        let process = self.lab.listen(netns, &format!("{listen} --answer {name}"))?;
        let pid = process.pid;
        self.servers.push(Server { name: name.to_owned(), pid, _process: Some(process) });
        Ok(())
    }

    /// A server on the host.
    pub(crate) fn serve_here(&mut self, name: &str, listen: &str) -> Test {
        let host = self.host().clone();
        self.serve(&host, name, listen)
    }

    /// Connects really, and compares with what the tool says of the port: `80`,
    /// `53/udp`.
    pub(crate) fn check(&self, question: &str, cases: &[Case<'_>]) -> Test {
        let pod = self.pods.last();
        let view = Check {
            lab: &self.lab,
            here: self.host(),
            outside: Some(&self.outside),
            containers: pod,
            servers: &self.servers,
        };
        view.check(question, cases)
    }
}

/// One case, and what came of it.
struct Happened<'a> {
    case: &'a Case<'a>,
    to: SocketAddr,
    landed: Vec<Landing>,
}

/// The same test with rules of either backend. A failure names the backend.
pub(crate) fn with_each(test: impl Fn(Backend) -> Test) -> Test {
    let mut problems = String::new();
    for backend in Backend::ALL {
        if let Err(problem) = test(backend) {
            writeln!(problems, "iptables-{}: {problem:#}", backend.name())?;
        }
    }
    ensure!(problems.is_empty(), "{problems}");
    Ok(())
}

/// Who asks, and from where connections are made.
pub(crate) struct Check<'a> {
    pub(crate) lab: &'a Lab,
    /// Where the tool runs.
    pub(crate) here: &'a Netns,
    pub(crate) outside: Option<&'a Netns>,
    pub(crate) containers: Option<&'a Netns>,
    pub(crate) servers: &'a [Server],
}

impl Server {
    /// A server that something else keeps.
    pub(crate) fn kept(name: &str, pid: u32) -> Self {
        Self { name: name.to_owned(), pid, _process: None }
    }
}

impl Check<'_> {
    pub(crate) fn check(&self, question: &str, cases: &[Case<'_>]) -> Test {
        let (port, proto) = question.split_once('/').unwrap_or((question, "tcp"));
        let port = port.rsplit(':').next().unwrap_or(port);
        let port: u16 = port.parse().context("the port asked for")?;
        let mut problems = String::new();
        // What really happens comes first: it shows that the lab is what it should be.
        let mut happened = Vec::new();
        for case in cases {
            let netns = match case.from {
                "loopback" | "node" => self.here,
                "outside" => self.outside.context("no outside")?,
                "containers" => self.containers.context("no container")?,
                other => bail!("no vantage {other:?}"),
            };
            let to = SocketAddr::new(case.address, port);
            let first = netns.connect(proto, to)?;
            let tries = if case.lands.len() > 1 { TRIES } else { 2 };
            let landed = match first {
                Landing::At(_) => netns.connect_often(proto, to, tries)?,
                other => vec![other],
            };
            let names: BTreeSet<String> = landed.iter().map(ToString::to_string).collect();
            let expected: BTreeSet<String> = case.lands.iter().map(|&w| w.to_owned()).collect();
            let is_one = case.sticky && names.len() == 1 && names.is_subset(&expected);
            if names != expected && !is_one {
                writeln!(
                    problems,
                    "THE LAB: from {} to {to}: {names:?}, not {expected:?}",
                    case.from
                )?;
            }
            happened.push(Happened { case, to, landed });
        }
        ensure!(problems.is_empty(), "{problems}{}", self.rules());
        // A machine without hardware help takes longer than the second that is tried.
        let tries = !lab::is_other_kernel();
        let args: &[&str] =
            if tries { &["--json", "--try", question] } else { &["--json", question] };
        let run = self.lab.tool().netns(self.here).args(args).run()?;
        if run.code == Some(5) {
            writeln!(problems, "what was tried is not what was said: {}", brief(&run))?;
        }
        for Happened { case, to, landed } in &happened {
            if let Err(problem) = self.agree(&run, case.from, *to, landed) {
                writeln!(problems, "from {} to {to}: {problem:#}", case.from)?;
            }
        }
        for one in happened.iter().filter(|one| tries && one.case.from == "containers") {
            if let Err(problem) = self.agree_from(one, proto) {
                writeln!(problems, "--from a container to {}: {problem:#}", one.to)?;
            }
        }
        if let Err(problem) = self.promised(&run, &happened) {
            writeln!(problems, "{problem:#}")?;
        }
        let shown = || {
            let shown = self.lab.tool().netns(self.here).args(&["--color", "never", question]);
            shown.run().map(|run| run.stdout).unwrap_or_default()
        };
        ensure!(problems.is_empty(), "{problems}\n{}\n{}", shown(), brief(&run));
        Ok(())
    }

    /// Whether the tool says of one container what really happens to its connections.
    fn agree_from(&self, happened: &Happened<'_>, proto: &str) -> Test {
        let netns = self.containers.context("no container")?;
        let (from, to) = (format!("netns:{}", netns.inode), format!("{}/{proto}", happened.to));
        let asked = ["--json", "--from", &from, &to];
        let run = self.lab.tool().netns(self.here).args(&asked).run()?;
        let verdict = run.answer()?["verdict"].as_str().unwrap_or_default();
        let wrong = match happened.landed.iter().any(|landing| landing.server().is_some()) {
            true => "not_found",
            false => "found",
        };
        ensure!(verdict != wrong, "{verdict}: {}", run.stdout);
        Ok(())
    }

    /// Whether the tool says of one vantage and address what really happens.
    fn agree(&self, run: &Run, from: &str, to: SocketAddr, landed: &[Landing]) -> Test {
        let nothing = run.answer()?["verdict"] == "not_found";
        if nothing && landed == [Landing::Refused] {
            return Ok(());
        }
        let reached: Vec<&str> = landed.iter().filter_map(Landing::server).collect();
        let Some(entry) = entry(run, from, to)? else {
            // Where else it can be reached from there is said, and not this address:
            // one of a family is enough, where all are the same.
            let same = |entry: &&Value| {
                let address = entry["address"].as_str().unwrap_or_default();
                entry["from"] == from && address.starts_with('[') == to.is_ipv6()
            };
            let all = run.answer()?["reachable"].as_array().into_iter().flatten();
            let another = all.filter(same).any(|entry| entry["reachable"] == true);
            ensure!(reached.is_empty() || another, "nothing is said of it");
            return self.ends_hold(run, from, &reached);
        };
        let arrives = entry["reachable"].as_bool();
        if reached.is_empty() {
            ensure!(arrives != Some(true), "said to arrive, but {}: {entry}", landed[0]);
            let why = entry["why"].as_str().unwrap_or_default();
            ensure!(!why.is_empty(), "no reason given: {entry}");
            return Ok(());
        }
        if reached.len() == landed.len() {
            ensure!(arrives == Some(true), "said not to arrive, but it does: {entry}");
        } else {
            ensure!(arrives != Some(false), "said not to arrive, but sometimes it does: {entry}");
        }
        // What few have a route to is no way of a path.
        let mut conditions = entry["conditions"].as_array().into_iter().flatten();
        if conditions.any(|one| one["code"] == "route") {
            return Ok(());
        }
        self.ends_hold(run, from, &reached)
    }

    /// Whether every server that was reached is at the end of a path from there.
    fn ends_hold(&self, run: &Run, from: &str, reached: &[&str]) -> Test {
        let ends = self.ends(run, from)?;
        for name in reached {
            let pid = self.pid(name)?;
            ensure!(
                ends.contains(&u64::from(pid)),
                "landed at {name} ({pid}), paths end at {ends:?}"
            );
        }
        Ok(())
    }

    /// Whether every end that the tool promises to a vantage was reached from there.
    fn promised(&self, run: &Run, happened: &[Happened<'_>]) -> Test {
        let mut reached: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for Happened { case, landed, .. } in happened {
            let pids = reached.entry(case.from).or_default();
            let landed = landed.iter().filter_map(Landing::server);
            // Another client of a sticky service lands elsewhere.
            let others = case.lands.iter().copied().filter(|_| case.sticky);
            for name in landed.chain(others) {
                pids.insert(self.pid(name)?.into());
            }
        }
        for (from, reached) in reached {
            let ends = self.ends(run, from)?;
            let never: Vec<_> = ends.difference(&reached).collect();
            ensure!(never.is_empty(), "from {from}: promised, but never reached: {never:?}");
        }
        Ok(())
    }

    /// The processes at the ends of the paths from a vantage.
    fn ends(&self, run: &Run, from: &str) -> Result<BTreeSet<u64>> {
        let mut ends = BTreeSet::new();
        for path in run.paths()? {
            let vantages = path.0["from"].as_array().context("a path without `from`")?;
            // What only reserves the port takes connections, and answers none.
            let answers = path.end()["code"] != "only_reserved";
            if answers && vantages.iter().any(|v| v == from) {
                ends.extend(path.pid());
            }
        }
        Ok(ends)
    }

    fn pid(&self, name: &str) -> Result<u32> {
        let server = self.servers.iter().find(|server| server.name == name);
        Ok(server.with_context(|| format!("{name} is no server of this test"))?.pid)
    }

    /// The rules as they were loaded, for the report of a lab that is not as it should be.
    fn rules(&self) -> String {
        let dump = "iptables-legacy-save 2>/dev/null; nft list ruleset; ip -br address; ip route";
        let command = self.lab.command(self.here, &["sh", "-c", dump]);
        let output = command.and_then(|mut command| Ok(command.output()?));
        output.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default()
    }
}

/// What the tool says of reaching an address from a vantage: of that address, or
/// of all together; `None` when it speaks of other addresses only.
fn entry<'a>(run: &'a Run, from: &str, to: SocketAddr) -> Result<Option<&'a Value>> {
    let all = run.answer()?["reachable"].as_array().context("no reach")?;
    let to = to.to_string();
    let of_vantage: Vec<&Value> = all.iter().filter(|entry| entry["from"] == from).collect();
    ensure!(!of_vantage.is_empty(), "nothing is said of this vantage");
    let exact = of_vantage.iter().find(|entry| entry["address"] == to.as_str());
    Ok(exact.or_else(|| of_vantage.iter().find(|entry| entry["address"].is_null())).copied())
}

/// The parts of an answer that a failure is understood by.
fn brief(run: &Run) -> String {
    let answer = &run.json["answers"][0];
    let mut text = format!("exit {:?}, verdict {}\n", run.code, answer["verdict"]);
    for path in answer["paths"].as_array().into_iter().flatten() {
        let view = lab::View(path);
        text += &format!(
            "path from {} in {}: {:?} -> {} {:?} {}\n",
            path["from"],
            path["netns"]["inode"],
            view.steps(),
            view.ending(),
            view.pid(),
            path["end"]["why"]
        );
    }
    for entry in answer["reachable"].as_array().into_iter().flatten() {
        text += &format!("reach {entry}\n");
    }
    for gap in run.gaps() {
        text += &format!("gap {gap}\n");
    }
    text
}
