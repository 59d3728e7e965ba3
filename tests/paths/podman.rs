//! Ports that podman publishes, by CNI as Debian ships it.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use lab::{Landing, Test};
use serde_json::json;

use crate::paths::node::{LOOPBACK, Node, Server, case};

/// Starts a container and writes its first process into a file. What podman would
/// leave in the machine's directories goes into a mount namespace of its own.
const SCRIPT: &str = r#"
    set -e
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /var/lib
    mkdir -p /run/netns /var/lib/cni /var/lib/containers
    dir=$1 group=$2 name=$3 publish=$4
    shift 4
    export HOME="$dir/home" CONTAINERS_CONF="$dir/podman.conf"
    mkdir -p "$HOME"
    # Debian's crun refuses a machine with both versions of control groups.
    podman() {
        command podman --runtime runc --root "$dir/podman" --runroot "$dir/podman-run" \
            --tmpdir "$dir/podman-tmp" --network-config-dir "$dir/podman-net" \
            --cgroup-manager cgroupfs --events-backend none --storage-driver vfs "$@"
    }
    podman run --detach --name "$name" ${IP:+--ip "$IP"} --cgroups no-conmon --cgroup-parent "$group" \
        --security-opt seccomp=unconfined --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 \
        --publish "$publish" --rootfs "$dir/image" "$@"
    podman inspect "$name" --format '{{.State.Pid}}' >"$dir/$name.pid"
"#;

/// A container whose server says its name on port 80, on a network by CNI or by netavark.
fn run(node: &mut Node, by: &str, name: &str, publish: &str) -> Test {
    let lab = &node.lab;
    let dir = lab.dir();
    let config = json!({
        "cniVersion": "0.4.0",
        "name": "podman",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni-podman0", "isGateway": true, "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": dir.join("podman-ipam"),
                    "routes": [{ "dst": "0.0.0.0/0" }],
                    "ranges": [[{ "subnet": format!("10.{}.4.0/24", node.number()) }]],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
            { "type": "firewall" },
            { "type": "tuning" },
        ],
    });
    std::fs::create_dir_all(dir.join("podman-net"))?;
    if by == "cni" {
        std::fs::write(dir.join("podman-net/87-podman.conflist"), config.to_string())?;
    }
    // Where netavark is installed too, podman would take that.
    let subnet = format!("10.{}.4.0/24", node.number());
    let conf = format!("[network]\nnetwork_backend = \"{by}\"\ndefault_subnet = \"{subnet}\"\n");
    std::fs::write(dir.join("podman.conf"), conf)?;
    if !dir.join("image").exists() {
        lab.rootfs()?;
    }
    let (path, group) = (dir.display().to_string(), format!("/{}/podman", lab.name()));
    let listen = format!("/bin/lab-helper listen tcp 0.0.0.0:80 --answer {name}");
    let mut argv = vec!["unshare", "-m", "--propagation", "private", "sh", "-c", SCRIPT, "sh"];
    argv.extend([path.as_str(), &group, name, publish]);
    argv.extend(listen.split(' '));
    let log = dir.join("podman.log");
    let out = std::fs::File::create(&log)?;
    let mut command = lab.command(node.host(), &argv)?;
    // What was given out before is forgotten with the mount namespace.
    if by == "netavark" {
        command.env("IP", format!("10.{}.4.{}", node.number(), node.servers.len() + 10));
    }
    let status = command.stdout(Stdio::null()).stderr(out).status()?;
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    ensure!(status.success(), "podman: {status}: {}", said());
    let pid: u32 = std::fs::read_to_string(dir.join(format!("{name}.pid")))?.trim().parse()?;
    lab.adopt(lab::netns_inode(pid).context("the container has ended")?);
    node.servers.push(Server::kept(name, pid));
    Ok(())
}

/// Waits until the container's server listens.
fn wait_for(node: &Node, port: u16) -> Result<()> {
    for _ in 0..100 {
        let landed = node.outside.connect("tcp", (node.ip(), port).into())?;
        if matches!(landed, Landing::At(_)) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    anyhow::bail!("nothing answers on {port}")
}

#[test]
fn ports_that_podman_publishes() -> Test {
    lab::rules_or_skip!();
    let wanted = ["podman", "runc", "busybox"];
    if let Some(missing) = wanted.into_iter().find(|program| !lab::has(program)) {
        lab::skip(&format!("{missing} is not installed (packages podman, runc, busybox-static)"));
        return Ok(());
    }
    let mut node = Node::new()?;
    node.add_pod()?;
    let (all, one) = (lab::unused_port()?, lab::unused_port()?);
    run(&mut node, "cni", "web", &format!("{all}:80"))?;
    wait_for(&node, all)?;
    let ip = node.ip();
    run(&mut node, "cni", "one", &format!("{ip}:{one}:80"))?;
    wait_for(&node, one)?;
    // conmon holds a socket that never accepts.
    node.check(
        &all.to_string(),
        &[
            case("loopback", LOOPBACK, &["web"]),
            case("node", ip, &["web"]),
            case("outside", ip, &["web"]),
            case("containers", node.gateway(), &["web"]),
        ],
    )?;
    node.check(
        &one.to_string(),
        &[
            case("loopback", LOOPBACK, &["refused"]),
            case("node", ip, &["one"]),
            case("outside", ip, &["one"]),
        ],
    )
}

#[test]
fn ports_that_podman_publishes_by_netavark() -> Test {
    lab::rules_or_skip!();
    let wanted = ["podman", "runc", "busybox", "/usr/lib/podman/netavark"];
    if let Some(missing) = wanted.into_iter().find(|program| !lab::has(program)) {
        lab::skip(&format!("{missing} is not installed: see `cargo xtask setup`"));
        return Ok(());
    }
    let mut node = Node::new()?;
    node.add_pod()?;
    let (all, six) = (lab::unused_port()?, lab::unused_port()?);
    run(&mut node, "netavark", "nv", &format!("{all}:80"))?;
    wait_for(&node, all)?;
    run(&mut node, "netavark", "six", &format!("[::]:{six}:80"))?;
    let ip = node.ip();
    node.check(
        &all.to_string(),
        &[
            case("loopback", LOOPBACK, &["nv"]),
            case("node", ip, &["nv"]),
            case("outside", ip, &["nv"]),
            case("containers", node.gateway(), &["nv"]),
        ],
    )?;
    // netavark 1.4 writes a rule for the address ::/128, which nothing is sent to: what is
    // sent to the port lands on the socket of conmon, which only reserves it.
    node.check(
        &six.to_string(),
        &[
            case("loopback", std::net::Ipv6Addr::LOCALHOST, &["timeout"]),
            case("node", node.ipv6(), &["timeout"]),
            case("outside", node.ipv6(), &["timeout"]),
        ],
    )?;
    let run = node.lab.whereis(&[&six.to_string()])?;
    let path = run.path_in(node.host())?;
    ensure!(path.container() == Some("six"), "{}", path.0);
    ensure!(path.end()["code"] == "only_reserved", "{}", path.0);
    for (port, name) in [(all, "nv"), (six, "six")] {
        let list = node.lab.whereis(&["list", "--container", name])?;
        let rows = list.listeners()?;
        let rows: Vec<_> = rows.iter().filter(|row| row.0["port"] == port).collect();
        let [row] = rows[..] else { anyhow::bail!("not one row for {port}: {}", list.stdout) };
        ensure!(row.0["process"]["name"] == "conmon", "{}", row.0);
        ensure!(row.container() == Some(name), "{}", row.0);
    }
    Ok(())
}
