//! Ports that Cilium's programs take: no socket listens on them and no rule knows them.
//!
//! The maps are made as Cilium's agent makes them. Its programs are not there, so nothing
//! is connected here: what is compared is what the tool says.

mod real;
mod scale;

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use lab::{Attached, Lab, Mounts, Netns, Place, Proc, Run, Test};
use serde_json::Value;

const GLOBALS: &str = "/sys/fs/bpf/tc/globals";
const NODE: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
const POD: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
/// The server in the pod listens there.
const INNER: u16 = 8080;
const NODE_PORT: u16 = 30_077;
const HOST_PORT: u16 = 20_977;
const EMPTY: u16 = 30_078;
const INNER_PORT: u16 = 30_079;
/// Flags: a NodePort's entry for an address of the node.
const EXACT: u8 = 0x02 | 0x40;
/// Where the agent pins the links of socket LB.
const SOCKET_LB: &str = "/sys/fs/bpf/cilium/socketlb/links/cgroup";

type Entry = (Vec<u8>, Vec<u8>);

/// A node, a machine beside it, and a pod on it.
struct Node {
    _server: Proc,
    lab: Lab,
    _outside: Netns,
    pod: Netns,
}

impl Node {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let (outside, pod) = (lab.netns("outside")?, lab.netns("pod")?);
        lab.lan(&[(lab.host(), &["10.77.1.1/24"]), (&outside, &["10.77.1.2/24"])])?;
        lab.veth((lab.host(), "lxc1", "10.77.2.1/24"), (&pod, "eth0", "10.77.2.2/24"))?;
        lab.host().ip(&["route", "add", "default", "via", "10.77.1.2"])?;
        pod.ip(&["route", "add", "default", "via", "10.77.2.1"])?;
        let server = lab.listen(&pod, &format!("tcp 0.0.0.0:{INNER}"))?;
        Ok(Self { _server: server, lab, _outside: outside, pod })
    }

    fn ask(&self, mounts: &Mounts, args: &[&str]) -> Result<Run> {
        self.lab.tool().inside(mounts).arg("--json").args(args).run()
    }
}

/// A service of TCP, with a slot for each of these backends.
fn service(address: Ipv4Addr, port: u16, flags: u8, id: u16, backends: &[u32]) -> Vec<Entry> {
    let entry = |slot: u16, union: u32, count: usize, flags: u8| {
        let mut key = address.octets().to_vec();
        key.extend(port.to_be_bytes());
        key.extend(slot.to_ne_bytes());
        key.extend([6, 0, 0, 0]);
        let mut value = union.to_ne_bytes().to_vec();
        value.extend(u16::try_from(count).unwrap_or(u16::MAX).to_ne_bytes());
        value.extend(id.to_be_bytes());
        value.extend([flags, 0, 0, 0]);
        (key, value)
    };
    let slots = (1..).zip(backends).map(|(slot, backend)| entry(slot, *backend, 0, 0));
    std::iter::once(entry(0, 0, backends.len(), flags)).chain(slots).collect()
}

fn backend(id: u32, address: Ipv4Addr, port: u16) -> Entry {
    let mut value = address.octets().to_vec();
    value.extend(port.to_be_bytes());
    value.extend([6, 0, 0, 0, 0, 0]);
    (id.to_ne_bytes().to_vec(), value)
}

/// Pins what the agent of a node with these addresses would, and attaches a program with the
/// map of services to the device.
fn pin(node: &Node, mounts: &Mounts) -> Result<Attached> {
    pin_with(node, mounts, &[])
}

/// The same, with some services more.
fn pin_with(node: &Node, mounts: &Mounts, more: &[Entry]) -> Result<Attached> {
    mounts.sh(&format!("mkdir -p {GLOBALS} {SOCKET_LB}"))?;
    mounts.pin_connect(&format!("{SOCKET_LB}/cil_sock4_connect"), node.lab.cgroup(), false)?;
    let any = Ipv4Addr::UNSPECIFIED;
    let services = [
        service(any, NODE_PORT, 0x02, 11, &[5]),
        service(NODE, NODE_PORT, EXACT, 12, &[5]),
        service(any, HOST_PORT, 0x08, 13, &[5]),
        service(any, EMPTY, 0x02, 14, &[]),
        service(NODE, EMPTY, 0x42, 15, &[]),
    ];
    let mut services = services.concat();
    services.extend_from_slice(more);
    mounts.pin_map(&format!("{GLOBALS}/cilium_lb4_services_v2"), &services)?;
    let backends = [backend(5, POD, INNER)];
    mounts.pin_map(&format!("{GLOBALS}/cilium_lb4_backends_v3"), &backends)?;
    let services = mounts.seen_from_outside(&format!("{GLOBALS}/cilium_lb4_services_v2"));
    node.lab.host().attach_with(Place::TcxIngress("eth0"), 0, &services)
}

/// Whether a port can be reached from a vantage at an address of the node, and why.
fn reach(run: &Run, vantage: &str, address: Ipv4Addr, port: u16) -> Result<Option<(bool, String)>> {
    let all = run.answer()?["reachable"].as_array().context("nothing is said of reach")?;
    let to = format!("{address}:{port}");
    let said = all.iter().find(|r| r["from"] == vantage && r["address"] == to.as_str());
    let told = |r: &Value| Some((r["reachable"].as_bool()?, r["why"].as_str()?.to_owned()));
    Ok(said.and_then(told))
}

#[test]
fn a_node_port_leads_to_the_pod() -> Test {
    lab::root_or_skip!();
    let node = Node::new()?;
    let mounts = node.lab.bpffs()?;
    // Where nothing is pinned there is nothing.
    let before = node.ask(&mounts, &[&NODE_PORT.to_string()])?;
    ensure!(before.paths_in(node.lab.host())?.is_empty(), "{}", before.stdout);
    let _program = pin(&node, &mounts)?;

    let run = node.ask(&mounts, &[&NODE_PORT.to_string()])?;
    let paths = run.paths_in(node.lab.host())?;
    ensure!(!paths.is_empty(), "{}", run.stdout);
    for path in &paths {
        let steps = path.steps();
        let [first, rest @ ..] = steps.as_slice() else { anyhow::bail!("no steps") };
        ensure!(first.starts_with("service "), "{steps:?}");
        let inner = format!("{POD}:{INNER}/tcp");
        ensure!(rest.iter().any(|s| *s == format!("dnat {inner}")), "{steps:?}");
        ensure!(path.ending() == "process", "{}", path.0);
    }
    ensure!(run.gap_text().is_empty(), "{}", run.gap_text());
    // By the entry for all addresses, and from outside by that of the exact one.
    let said = |vantage, address| reach(&run, vantage, address, NODE_PORT);
    for (vantage, address) in [("loopback", Ipv4Addr::LOCALHOST), ("outside", NODE)] {
        let (reached, why) = said(vantage, address)?.context(vantage)?;
        ensure!(reached && why.contains("NodePort, Cilium"), "{vantage}: {why}");
    }

    let text = node.lab.tool().inside(&mounts).args(&["-v", &NODE_PORT.to_string()]).run()?.stdout;
    for word in ["NodePort", "Cilium (eBPF)", "service 11", "service 12"] {
        ensure!(text.contains(word), "no {word:?} in {text}");
    }
    Ok(())
}

#[test]
fn the_agent_names_the_services_of_its_frontends() -> Test {
    lab::root_or_skip!();
    let node = Node::new()?;
    let mounts = node.lab.bpffs()?;
    let _program = pin(&node, &mounts)?;
    let frontend = |ip: Ipv4Addr, port: u16, name: &str, kind: &str| {
        serde_json::json!({"spec": {
            "id": 12, "frontend-address": {"ip": ip, "port": port, "protocol": "TCP"},
            "flags": {"name": name, "namespace": "shop", "type": kind},
        }})
    };
    let said = serde_json::json!([
        frontend(NODE, NODE_PORT, "web", "NodePort"),
        frontend(Ipv4Addr::UNSPECIFIED, HOST_PORT, "web-1/host-port/20977", "HostPort"),
    ]);
    let file = node.lab.dir().join("services.json");
    std::fs::write(&file, said.to_string())?;
    mounts.sh("mkdir -p /run/cilium")?;
    let at = "/run/cilium/cilium.sock";
    // Another process, whatever it listens at, names nothing.
    let other = mounts.teller(&node.lab, node.lab.host(), ("agent", at), &file)?;
    let named = |args: &[&str]| node.ask(&mounts, args).map(|run| run.stdout.contains("\"web\""));
    ensure!(!named(&[&NODE_PORT.to_string()])?, "by another process");
    drop(other);
    mounts.sh(&format!("rm {at}"))?;
    let _agent = mounts.teller(&node.lab, node.lab.host(), ("cilium-agent", at), &file)?;
    let run = node.ask(&mounts, &[&NODE_PORT.to_string()])?;
    let paths = run.paths_in(node.lab.host())?;
    let of_service = |path: &lab::View<'_>| {
        let service = &path.end()["service"];
        service["namespace"] == "shop" && service["name"] == "web"
    };
    ensure!(!paths.is_empty() && paths.iter().all(of_service), "{}", run.stdout);
    let run = node.ask(&mounts, &["--service", "shop/web"])?;
    ensure!(run.stdout.contains(&format!("{NODE_PORT}/tcp")), "{}", run.stdout);
    let run = node.ask(&mounts, &[&HOST_PORT.to_string()])?;
    let of_pod = |path: &lab::View<'_>| path.end()["service"].is_null();
    ensure!(run.paths_in(node.lab.host())?.iter().all(of_pod), "{}", run.stdout);
    Ok(())
}

#[test]
fn an_entry_for_all_addresses_is_for_local_processes_alone() -> Test {
    lab::root_or_skip!();
    let node = Node::new()?;
    let mounts = node.lab.bpffs()?;
    let _program = pin(&node, &mounts)?;
    let run = node.ask(&mounts, &[&HOST_PORT.to_string()])?;
    let said = |vantage, address| reach(&run, vantage, address, HOST_PORT);
    let (reached, why) = said("loopback", Ipv4Addr::LOCALHOST)?.context("loopback")?;
    ensure!(reached && why.contains("hostPort, Cilium"), "{why}");
    // Not at the device: nothing is said of it, or that it does not work.
    ensure!(said("outside", NODE)?.is_none_or(|(reached, _)| !reached), "{}", run.stdout);
    let run = node.ask(&mounts, &[&format!("127.0.0.1:{HOST_PORT}")])?;
    let path = run.path_in(node.lab.host())?;
    ensure!(path.ending() == "process" && path.steps().len() > 1, "{}", path.0);
    Ok(())
}

#[test]
fn a_service_without_backends_is_said_to_have_none() -> Test {
    lab::root_or_skip!();
    let node = Node::new()?;
    let mounts = node.lab.bpffs()?;
    let _program = pin(&node, &mounts)?;
    let run = node.ask(&mounts, &[&EMPTY.to_string()])?;
    ensure!(run.stdout.contains("has no backends"), "{}", run.stdout);
    for (vantage, address) in [("loopback", Ipv4Addr::LOCALHOST), ("outside", NODE)] {
        let said = reach(&run, vantage, address, EMPTY)?;
        ensure!(said.is_some_and(|(reached, _)| !reached), "{vantage}: {}", run.stdout);
    }
    // The list shows it with the other ports of the node.
    let list = node.ask(&mounts, &["list"])?;
    let rows = list.listeners()?;
    let taken = |port: u16| {
        rows.iter().filter(|row| row.0["port"] == port && row.0["taken_by"] == "Cilium").count()
    };
    ensure!(taken(EMPTY) > 0 && taken(NODE_PORT) > 0 && taken(HOST_PORT) > 0, "{}", list.stdout);
    Ok(())
}

#[test]
fn a_cluster_address_for_clients_beside_its_pods_says_that_none_is_here() -> Test {
    lab::root_or_skip!();
    let node = Node::new()?;
    let mounts = node.lab.bpffs()?;
    let address = Ipv4Addr::new(10, 96, 0, 9);
    let mut inner = service(address, 8099, 0, 16, &[]);
    // internalTrafficPolicy: Local, in the second byte of flags.
    inner.iter_mut().filter_map(|(_, value)| value.get_mut(9)).for_each(|flags| *flags = 0x10);
    let _program = pin_with(&node, &mounts, &inner)?;
    let run = node.ask(&mounts, &[&format!("{address}:8099")])?;
    let (reached, why) = reach(&run, "node", address, 8099)?.context("nothing of it")?;
    ensure!(!reached && why.contains("has no backends on this node"), "{why}");
    ensure!(run.stdout.contains("(internalTrafficPolicy: Local)"), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_node_that_is_a_container_has_its_own() -> Test {
    lab::root_or_skip!();
    let node = Node::new()?;
    let inner = node.lab.mounts_of(&node.pod, "mount -t bpf -o mode=755 bpf /sys/fs/bpf")?;
    inner.sh(&format!("mkdir -p {GLOBALS} {SOCKET_LB}"))?;
    inner.pin_connect(&format!("{SOCKET_LB}/cil_sock4_connect"), node.lab.cgroup(), false)?;
    let services = service(POD, INNER_PORT, EXACT, 12, &[5]);
    inner.pin_map(&format!("{GLOBALS}/cilium_lb4_services_v2"), &services)?;
    let backends = [backend(5, POD, INNER)];
    inner.pin_map(&format!("{GLOBALS}/cilium_lb4_backends_v3"), &backends)?;
    // Asked outside of it, where its mounts are not.
    let run = node.lab.whereis(&[&INNER_PORT.to_string()])?;
    ensure!(run.paths_in(node.lab.host())?.is_empty(), "{}", run.stdout);
    let paths = run.paths_in(&node.pod)?;
    ensure!(!paths.is_empty(), "{}", run.stdout);
    ensure!(paths.iter().all(|p| p.steps()[0].starts_with("service ")), "{}", run.stdout);
    Ok(())
}

#[test]
fn who_may_not_read_the_maps_is_told_what_would_help() -> Test {
    lab::root_or_skip!();
    let node = Node::new()?;
    let mounts = node.lab.bpffs()?;
    let _program = pin(&node, &mounts)?;
    let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let port = NODE_PORT.to_string();
    let run = node.lab.tool().inside(&mounts).through(&user).args(&["--json", &port]).run()?;
    let gaps = run.gap_text();
    ensure!(gaps.contains("Cilium's maps") && gaps.contains("CAP_BPF"), "{gaps}");
    Ok(())
}
