//! A large node: 500 pods, 5,000 Services with 4 backends each, 500 policy maps. What questions
//! cost there is printed, and depends on the machine: nothing is asserted of it.
//!
//! `cargo test -p e2e cilium::scale -- --ignored --nocapture`

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::ensure;
use lab::Test;

use super::{EXACT, Entry, GLOBALS, Node, SOCKET_LB, backend, service};

const PODS: u16 = 500;
const SERVICES: u16 = 5000;
const BACKENDS: u32 = 4;
const FIRST_PORT: u16 = 20_000;

#[test]
#[ignore = "it takes a minute, and prints what questions cost"]
fn scale_of_a_large_node() -> Test {
    lab::root_or_skip!();
    let node = Node::new()?;
    let mounts = node.lab.bpffs()?;
    mounts.sh(&format!("mkdir -p {GLOBALS} {SOCKET_LB}"))?;
    mounts.pin_connect(&format!("{SOCKET_LB}/cil_sock4_connect"), node.lab.cgroup(), false)?;
    let begun = Instant::now();
    let host = node.lab.host();
    let mut servers = Vec::new();
    let mut endpoints: Vec<Entry> = Vec::new();
    let address = |n: u16| Ipv4Addr::from(0x0af5_0002_u32 + u32::from(n));
    for n in 0..PODS {
        let pod = node.lab.netns(&format!("p{n}"))?;
        let (to, ip) = (format!("lxc{n}x"), address(n));
        node.lab.veth((host, &to, "169.254.1.1/32"), (&pod, "eth0", &format!("{ip}/32")))?;
        host.ip(&["route", "add", &format!("{ip}/32"), "dev", &to])?;
        pod.ip(&["route", "add", "default", "dev", "eth0"])?;
        servers.push(node.lab.listen(&pod, "tcp 0.0.0.0:8080")?);
        let mut key = ip.octets().to_vec();
        key.resize(16, 0);
        key.extend([1, 0, 0, 0]);
        let mut value = vec![0; 48];
        value[6..8].copy_from_slice(&(n + 100).to_ne_bytes());
        endpoints.push((key, value));
        let map = format!("{GLOBALS}/cilium_policy_v2_{:05}", n + 100);
        let mut all = vec![0_u8; 12];
        all[0] = 0x28;
        mounts.pin_trie(&map, &[(all, vec![0; 12])])?;
    }
    let mut services: Vec<Entry> = Vec::new();
    let mut backends: Vec<Entry> = Vec::new();
    for n in 0..SERVICES {
        let first = u32::from(n) * BACKENDS;
        let ids: Vec<u32> = (first + 1..=first + BACKENDS).collect();
        for id in &ids {
            let pod = u16::try_from(id % u32::from(PODS))?;
            backends.push(backend(*id, address(pod), 8080));
        }
        let cluster = Ipv4Addr::from(0x0a60_0000_u32 + 10 + u32::from(n));
        services.extend(service(cluster, 80, 0, n * 3, &ids));
        let port = FIRST_PORT + n;
        services.extend(service(Ipv4Addr::UNSPECIFIED, port, 0x02, n * 3 + 1, &ids));
        services.extend(service(super::NODE, port, EXACT, n * 3 + 2, &ids));
    }
    mounts.pin_map(&format!("{GLOBALS}/cilium_lb4_services_v2"), &services)?;
    mounts.pin_map(&format!("{GLOBALS}/cilium_lb4_backends_v3"), &backends)?;
    mounts.pin_map(&format!("{GLOBALS}/cilium_lxc"), &endpoints)?;
    println!("made in {:?}", begun.elapsed());
    let port = (FIRST_PORT + 77).to_string();
    let once = format!("{port}/tcp");
    // Another program that measures may be named, such as `perf record -o FILE`.
    let other = std::env::var("WHEREIS_PORT_MEASURE").ok();
    let measured: Vec<&str> = match &other {
        Some(other) => other.split(' ').collect(),
        None => vec!["/usr/bin/time", "-f", "%e s, %U s user, %S s system, %M KiB"],
    };
    for question in [vec![once.as_str()], vec![port.as_str()], vec!["list"]] {
        for _ in 0..2 {
            let tool = node.lab.tool().inside(&mounts).through(&measured);
            let run = tool.arg("--json").args(&question).run()?;
            ensure!(run.code == Some(0), "{}", run.stderr);
            let cost = run.stderr.lines().last().unwrap_or_default();
            println!("{question:?}: {cost}, {} bytes", run.stdout.len());
        }
    }
    Ok(())
}
