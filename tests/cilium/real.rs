//! The maps of a real node with Cilium 1.14, and the connections that were really made there.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lab::{Attached, Backend, Lab, Mounts, Netns, Place, Proc, Run, Test, View};
use serde_json::Value;

use super::{Entry, GLOBALS};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/cilium-1.14");
/// The node's own addresses, and those of its pods, which have a device each.
const NODE: [&str; 2] = ["172.31.251.2", "172.31.252.2"];
const CILIUM_HOST: &str = "10.245.0.220";
const PODS: [&str; 5] =
    ["10.245.0.32", "10.245.0.101", "10.245.0.54", "10.245.0.142", "10.245.0.123"];
/// What listens in each of them.
const SERVERS: [&str; 5] =
    ["tcp 0.0.0.0:80", "tcp 0.0.0.0:80", "tcp 0.0.0.0:8080", "udp 0.0.0.0:5353", ""];
/// The pod that connects.
const CLIENT: usize = 4;

/// A node of those addresses with the maps of the real one.
pub(super) struct Node {
    _servers: Vec<Proc>,
    _programs: Vec<Attached>,
    pub(super) mounts: Mounts,
    pub(super) lab: Lab,
    pub(super) pods: Vec<Netns>,
    _others: Vec<Netns>,
}

/// What is done to the maps before they are pinned.
type Change = fn(&str, &mut Vec<Entry>);

impl Node {
    /// With or without socket LB.
    pub(super) fn new(socket_lb: bool, change: Change) -> Result<Self> {
        let lab = Lab::new()?;
        let host = lab.host();
        let (client, remote) = (lab.netns("client")?, lab.netns("remote")?);
        let [first, second] = NODE.map(|address| format!("{address}/24"));
        lab.lan(&[
            (host, &[&first]),
            (&client, &["172.31.251.10/24"]),
            (&remote, &["172.31.251.20/24"]),
        ])?;
        lab.lan_by("eth1", &[(host, &[&second])])?;
        host.ip(&["link", "add", "cilium_host", "type", "veth", "peer", "name", "cilium_net"])?;
        host.address("cilium_host", &format!("{CILIUM_HOST}/32"))?;
        for link in ["cilium_host", "cilium_net"] {
            host.ip(&["link", "set", link, "up"])?;
        }
        host.ip(&["route", "add", CILIUM_HOST, "dev", "cilium_host", "scope", "link"])?;
        let by = ["via", CILIUM_HOST, "dev", "cilium_host", "src", CILIUM_HOST];
        host.ip(&[&["route", "add", "10.245.0.0/24"], &by[..]].concat())?;
        host.ip(&["route", "add", "default", "via", "172.31.251.1"])?;
        host.sysctl("ipv4/ip_forward", "1")?;
        // As on every node with Cilium: it holds for what a proxy's sockets take.
        let mark =
            "*mangle\n-A PREROUTING -m socket --transparent -j MARK --set-xmark 0x200\nCOMMIT\n";
        lab.iptables(host, Backend::Nft, mark)?;
        let mut servers = vec![
            lab.listen(
                host,
                "tcp 0.0.0.0:19090 tcp 0.0.0.0:30777 tcp 0.0.0.0:4240 tcp 0.0.0.0:4244 \
                 tcp 0.0.0.0:9962 tcp 127.0.0.1:9879 tcp 127.0.0.1:9890",
            )?,
            lab.listen(&remote, "tcp 0.0.0.0:80")?,
        ];
        let (mut pods, mut devices) = (Vec::new(), Vec::new());
        for (at, (address, serves)) in PODS.iter().zip(SERVERS).enumerate() {
            let pod = lab.netns(&format!("pod{at}"))?;
            let device = format!("lxc{at}");
            let ends = ["link", "add", &device, "type", "veth", "peer", "name", "eth0"];
            host.ip(&[&ends[..], &["netns", &pod.name]].concat())?;
            pod.address("eth0", &format!("{address}/32"))?;
            host.ip(&["link", "set", &device, "up"])?;
            pod.ip(&["link", "set", "eth0", "up"])?;
            pod.ip(&["route", "add", "default", "dev", "eth0"])?;
            if !serves.is_empty() {
                servers.push(lab.listen(&pod, serves)?);
            }
            devices.push((address.parse::<Ipv4Addr>()?, index(host, &device)?));
            pods.push(pod);
        }
        let mounts = lab.bpffs()?;
        pin_all(&mounts, &devices, change)?;
        // An agent without socket LB leaves the directory empty.
        let links = "/sys/fs/bpf/cilium/socketlb/links/cgroup";
        mounts.sh(&format!("mkdir -p {links}"))?;
        if socket_lb {
            mounts.pin_connect(&format!("{links}/cil_sock4_connect"), lab.cgroup(), false)?;
        }
        let services = mounts.seen_from_outside(&format!("{GLOBALS}/cilium_lb4_services_v2"));
        let program = |device| host.attach_with(Place::TcxIngress(device), 0, &services);
        let programs = vec![program("eth0")?, program("eth1")?];
        let others = vec![client, remote];
        Ok(Self { _servers: servers, _programs: programs, mounts, lab, pods, _others: others })
    }

    pub(super) fn ask(&self, args: &[&str]) -> Result<Run> {
        self.lab.tool().inside(&self.mounts).arg("--json").args(args).run()
    }
}

fn index(netns: &Netns, device: &str) -> Result<u32> {
    lab::within(netns, || {
        let any = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )?;
        Ok(rustix::net::netdevice::name_to_index(any, device)?)
    })
}

/// The entries of one map of the real node.
fn recorded(path: &Path) -> Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let all: Vec<Value> = serde_json::from_str(&text)?;
    let bytes = |text: &Value| -> Result<Vec<u8>> {
        let text = text.as_str().context("no digits")?;
        let byte = |at| Ok(u8::from_str_radix(text.get(at..at + 2).context("odd")?, 16)?);
        (0..text.len()).step_by(2).map(byte).collect()
    };
    all.iter().map(|one| Ok((bytes(&one["key"])?, bytes(&one["value"])?))).collect()
}

/// Pins every map, with the devices that the lab's pods have.
fn pin_all(mounts: &Mounts, devices: &[(Ipv4Addr, u32)], change: Change) -> Test {
    mounts.sh(&format!("mkdir -p {GLOBALS}"))?;
    for file in std::fs::read_dir(DATA)? {
        let path = file?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).context("no name")?;
        if path.extension().is_none_or(|kind| kind != "json") {
            continue;
        }
        let mut entries = recorded(&path)?;
        if name == "cilium_lxc" {
            entries.retain_mut(|(key, value)| {
                let address = Ipv4Addr::new(key[0], key[1], key[2], key[3]);
                let device = devices.iter().find(|(of, _)| *of == address);
                let of_node = value[..4] == [0; 4];
                if let Some((_, index)) = device {
                    value[..4].copy_from_slice(&index.to_ne_bytes());
                }
                of_node || device.is_some()
            });
        }
        change(name, &mut entries);
        let pin = format!("{GLOBALS}/{name}");
        let is_trie = ["ipcache", "source_range", "policy"].iter().any(|kind| name.contains(kind));
        if is_trie { mounts.pin_trie(&pin, &entries)? } else { mounts.pin_map(&pin, &entries)? }
    }
    Ok(())
}

/// `real14.txt` was taken before the agent was started again, which lost the flag of the
/// hostPort with a loopback hostIP.
fn as_recorded(name: &str, entries: &mut [Entry]) {
    for (key, value) in entries.iter_mut().filter(|_| name == "cilium_lb4_services_v2") {
        if key[..6] == [0, 0, 0, 0, 0x46, 0xa1] && key[6..8] == [0, 0] {
            value[9] = 0x08;
        }
    }
}

/// A connection that was made on the real node.
struct Real<'a> {
    line: &'a str,
    to: SocketAddrV4,
    /// From where that is, as answers call it; `None` where it never got to the node.
    vantage: Option<&'static str>,
}

fn connections(text: &str) -> Result<Vec<Real<'_>>> {
    let connection = |line| {
        let (from, rest): (&str, &str) = str::split_once(line, " -> ").context("no sender")?;
        let to = rest.split(' ').next().context("no destination")?;
        let to: SocketAddrV4 = to.parse().with_context(|| line.to_owned())?;
        let vantage = match (from, to.ip().is_loopback()) {
            ("host", true) => Some("loopback"),
            ("host", false) => Some("node"),
            (_, true) => None,
            ("client" | "remote", false) => Some("outside"),
            ("pod", false) => Some("containers"),
            _ => bail!("{line}"),
        };
        Ok(Real { line, to, vantage })
    };
    text.lines().map(connection).collect()
}

/// What an answer says of a connection: the statements that are about its sender.
fn said<'a>(answer: &'a Value, real: &Real<'_>, pod: &str) -> Vec<&'a Value> {
    let is_its = |one: &&Value| {
        let by = one["by"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of_client = by.is_empty() || by.iter().any(|name| *name == pod);
        let address = one["address"].as_str();
        let to = address.is_none_or(|address| address == real.to.to_string());
        Some(&one["from"]) == real.vantage.map(Value::from).as_ref()
            && to
            && (one["from"] != "containers" || of_client)
    };
    answer["reachable"].as_array().into_iter().flatten().filter(is_its).collect()
}

/// What is wrong with what was said of a connection.
fn fault(answer: &Value, real: &Real<'_>, pod: &str) -> Option<String> {
    let said = said(answer, real, pod);
    let result = |one: &&Value| one["reachable"].as_bool();
    let open = real.line.contains(" OPEN") || real.line.contains(" rc=");
    let leaves = |one: &&Value| one["code"] == "leaves_node";
    let fits = match said.as_slice() {
        // Whoever nothing is said of gets nothing: no rule takes it, and nothing listens.
        [] => !open,
        // Which machine the client is decides.
        said if real.to.to_string() == "203.0.113.20:8083" && real.vantage == Some("outside") => {
            let named = |one: &&Value| one["why"].to_string().contains("172.31.251.20/32");
            said.iter().all(|one| result(one).is_none() && named(one))
        }
        // The other machine's answer can't be known here.
        said if real.line.ends_with("OPEN: remote") => said.iter().all(leaves),
        said if open => said.iter().all(|one| result(one) == Some(true)),
        // What is not translated leaves the node, where nobody took it.
        said if real.to.to_string() == "203.0.113.10:8082" => said.iter().all(leaves),
        said => said.iter().all(|one| result(one) == Some(false)),
    };
    (!fits).then(|| format!("{}\n    said: {said:#?}", real.line))
}

#[test]
fn every_connection_of_a_real_node() -> Test {
    lab::root_or_skip!();
    let node = Node::new(true, |name, entries| as_recorded(name, entries))?;
    let text = std::fs::read_to_string(format!("{DATA}/real14.txt"))?;
    let all = connections(&text)?;
    let mut targets: Vec<String> = Vec::new();
    for one in &all {
        let target = format!("{}/tcp", one.to);
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    let args: Vec<&str> = targets.iter().map(String::as_str).collect();
    let run = node.ask(&args)?;
    let answers = run.json["answers"].as_array().context("no answers")?;
    ensure!(answers.len() == targets.len(), "{} of {}", answers.len(), targets.len());
    let pod = &node.pods[CLIENT].name;
    let mut wrong = Vec::new();
    let mut compared = 0;
    for real in all.iter().filter(|real| real.vantage.is_some()) {
        let target = format!("{}/tcp", real.to);
        let at = targets.iter().position(|one| *one == target).context("not asked")?;
        wrong.extend(fault(&answers[at], real, pod));
        compared += 1;
    }
    ensure!(compared == 90, "{compared} connections");
    ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// What is said of one sender at an address: whether it arrives, and why.
fn reached(run: &Run, from: &str, address: &str, pod: &str) -> Result<(Option<bool>, String)> {
    let all = run.answer()?["reachable"].as_array().context("nothing is said")?;
    let of = |one: &&Value| {
        let by = one["by"].as_array().map(Vec::as_slice).unwrap_or_default();
        one["from"] == from
            && one["address"] == address
            && (by.is_empty() || by.iter().any(|name| *name == pod))
    };
    let one =
        all.iter().find(of).with_context(|| format!("{from} at {address}: {}", run.stdout))?;
    Ok((one["reachable"].as_bool(), one["why"].as_str().unwrap_or_default().to_owned()))
}

/// The connections that were made with `--bpf-lb-sock=false`.
#[test]
fn without_socket_lb_no_process_of_the_node_is_translated() -> Test {
    lab::root_or_skip!();
    let node = Node::new(false, |name, entries| as_recorded(name, entries))?;
    let pod = node.pods[CLIENT].name.as_str();
    for (from, address, open) in [
        ("node", "172.31.251.2:30520", false),
        ("containers", "172.31.251.2:30520", true),
        ("outside", "172.31.251.2:30520", true),
        ("containers", "10.97.0.50:8081", true),
        ("containers", "203.0.113.10:8082", true),
    ] {
        let run = node.ask(&[&format!("{address}/tcp")])?;
        let (reached, why) = reached(&run, from, address, pod)?;
        ensure!(reached == Some(open), "{from} at {address}: {why}");
    }
    let run = node.ask(&["127.0.0.1:30520/tcp"])?;
    ensure!(run.code == Some(1), "{}", run.stdout);
    // Nor is the entry for all addresses there for the pods.
    let run = node.ask(&[&format!("{CILIUM_HOST}:30520/tcp")])?;
    ensure!(run.code == Some(1), "{}", run.stdout);
    Ok(())
}

#[test]
fn ports_of_services_are_found_by_port_and_listed_once() -> Test {
    lab::root_or_skip!();
    let node = Node::new(true, |name, entries| as_recorded(name, entries))?;
    let pod = node.pods[CLIENT].name.as_str();
    // At the external IP and the cluster IP, which no interface has.
    let run = node.ask(&["8082"])?;
    ensure!(run.code == Some(0), "{}", run.stdout);
    let (open, why) = reached(&run, "outside", "203.0.113.10:8082", pod)?;
    ensure!(open == Some(true) && why.contains("external IP"), "{why}");
    ensure!(reached(&run, "node", "10.97.0.51:8082", pod)?.0 == Some(true), "{}", run.stdout);
    let firsts: Vec<String> =
        run.paths_in(node.lab.host())?.iter().filter_map(|p| p.steps().first().cloned()).collect();
    ensure!(firsts.iter().all(|step| step.ends_with("/tcp")), "{firsts:?}");
    // To an address that only the entry for all of them takes.
    let run = node.ask(&[&format!("{CILIUM_HOST}:30520/tcp")])?;
    let open = reached(&run, "containers", &format!("{CILIUM_HOST}:30520"), pod)?;
    ensure!(open.0 == Some(true), "{open:?}");
    // One answer, though no entry has a protocol.
    let run = node.ask(&["30995"])?;
    let steps: Vec<_> = run.paths_in(node.lab.host())?.iter().flat_map(View::steps).collect();
    ensure!(!steps.is_empty() && steps.iter().all(|s| s.ends_with("/tcp")), "{steps:?}");

    let list = node.ask(&["list"])?;
    let rows = list.listeners()?;
    let of = |port: u16| -> Vec<(&str, &str)> {
        let taken =
            rows.iter().filter(|row| row.0["port"] == port && row.0["taken_by"] == "Cilium");
        taken
            .map(|row| {
                (row.0["proto"].as_str().unwrap_or("-"), row.0["address"].as_str().unwrap_or("-"))
            })
            .collect()
    };
    for (port, rows) in [
        (30995, &[("tcp", "0.0.0.0")][..]),
        (30525, &[("tcp", "0.0.0.0")]),
        (30053, &[("udp", "0.0.0.0")]),
        (18081, &[("tcp", "127.0.0.1")]),
        (8082, &[("tcp", "203.0.113.10")]),
        (8083, &[("tcp", "203.0.113.20")]),
    ] {
        ensure!(of(port) == rows, "{port}: {:?}", of(port));
    }
    // Connections that Cilium tracks are not said to be none.
    let run = node.ask(&["--flows", "30520/tcp"])?;
    ensure!(run.answer()?["flows"].is_null(), "{}", run.stdout);
    ensure!(run.gap_text().contains("maps of its own"), "{}", run.gap_text());
    Ok(())
}

/// 30520 of the first pod is served by a proxy, and the second pod takes 80 from one prefix.
fn proxied_and_limited(name: &str, entries: &mut Vec<Entry>) {
    as_recorded(name, entries);
    if name == "cilium_lb4_services_v2" {
        for (_, value) in
            entries.iter_mut().filter(|(key, _)| key[4..6] == [0x77, 0x38] && key[6..8] == [0, 0])
        {
            value[..4].copy_from_slice(&[0x27, 0x11, 0, 0]);
            value[9] |= 0x04;
        }
    }
    if name == "cilium_policy_00084" {
        entries.push((vec![0x40, 0, 0, 0, 1, 0, 0, 1, 0, 6, 0, 80], vec![0; 24]));
    }
    if name == "cilium_ipcache" {
        let mut key = vec![0x40, 0, 0, 0, 0, 0, 0, 1, 172, 31, 251, 20];
        key.resize(24, 0);
        entries.push((key, vec![1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]));
    }
}

#[test]
fn a_proxy_decides_and_a_policy_names_whom_it_lets_in() -> Test {
    lab::root_or_skip!();
    let node = Node::new(true, proxied_and_limited)?;
    let pod = node.pods[CLIENT].name.as_str();
    let _proxy = node.lab.listen(node.lab.host(), "tcp 127.0.0.1:10001")?;
    let run = node.ask(&["172.31.251.2:30520/tcp"])?;
    for from in ["outside", "node", "containers"] {
        let (reached, why) = reached(&run, from, "172.31.251.2:30520", pod)?;
        ensure!(reached.is_none() && why.contains("Cilium's proxy on port 10001"), "{from}: {why}");
    }
    for path in run.paths_in(node.lab.host())? {
        ensure!(path.steps().iter().all(|step| !step.contains("10.245.0.32")), "{}", path.0);
    }
    let run = node.ask(&["172.31.251.2:30530/tcp"])?;
    let (open, why) = reached(&run, "outside", "172.31.251.2:30530", pod)?;
    ensure!(open.is_none() && why.contains("172.31.251.20/32"), "{why}");
    let (open, why) = reached(&run, "containers", "172.31.251.2:30530", pod)?;
    ensure!(open == Some(false) && why.contains("policy of endpoint 84"), "{why}");
    ensure!(reached(&run, "node", "172.31.251.2:30530", pod)?.0 == Some(true), "{}", run.stdout);
    Ok(())
}
