//! Ports of containers that a user runs without root: rootlessport, pasta as a daemon,
//! slirp4netns, rootlesskit.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use lab::{Landing, Netns, Test};
use serde_json::json;

use crate::paths::node::{LOOPBACK, Node, Server, case};

/// The user, whom nobody else is.
const UID: u32 = 64_231;

/// Makes a user with ids of its own for containers, in a mount namespace that goes with what
/// runs in it, and runs a script as that user.
const AS_USER: &str = r#"
    set -e
    dir=$1 uid=$2
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /var/lib
    mount -t tmpfs tmpfs /dev/net
    mknod -m 666 /dev/net/tun c 10 200
    mkdir -p "/run/user/$uid" /run/netns "$dir/home"
    for file in passwd group; do cp "/etc/$file" "$dir/$file"; done
    echo "lab:x:$uid:$uid::$dir/home:/bin/sh" >>"$dir/passwd"
    echo "lab:x:$uid:" >>"$dir/group"
    echo "lab:700000:65536" >"$dir/subids"
    touch /etc/subuid /etc/subgid
    mount --bind "$dir/passwd" /etc/passwd
    mount --bind "$dir/group" /etc/group
    mount --bind "$dir/subids" /etc/subuid
    mount --bind "$dir/subids" /etc/subgid
    chown -R "$uid:$uid" "/run/user/$uid" "$dir/home" "$dir/image"
    shift 2
    exec setpriv --reuid "$uid" --regid "$uid" --init-groups \
        env -i HOME="$dir/home" PATH="$PATH" USER=lab XDG_RUNTIME_DIR="/run/user/$uid" \
        CONTAINERS_CONF="$dir/podman.conf" DIR="$dir" "$@"
"#;

/// Three containers, one with ports by rootlessport, one in a pod, and one with a namespace that pasta is told
/// to serve as Podman 5 tells it; then waits for a word to start the API.
const PODMAN: &str = r#"
    set -e
    cd "$HOME"
    podman() { command podman --storage-driver vfs "$@"; }
    limits="--ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --security-opt seccomp=unconfined"
    podman run --detach --name rs1 $limits --publish "$1:80" --publish "$2:53/udp" \
        --rootfs "$DIR/image" \
        /bin/lab-helper listen tcp 0.0.0.0:80 udp 0.0.0.0:53 --answer rs1
    podman run --detach --name ps1 $limits --network none --rootfs "$DIR/home/image" \
        /bin/lab-helper listen tcp 0.0.0.0:80 --answer ps1
    podman pod create --name lab-pod --publish "$4:80"
    podman run --detach --name pod1 $limits --pod lab-pod --rootfs "$DIR/home/image2" \
        /bin/lab-helper listen tcp 0.0.0.0:80 --answer pod1
    for name in rs1 ps1 pod1; do
        podman inspect $name --format '{{.State.Pid}}' >"$DIR/home/$name.pid"
    done
    netns=$XDG_RUNTIME_DIR/netns/netns-11111111-2222-3333-4444-555555555555
    podman unshare sh -c "
        mkdir -p $XDG_RUNTIME_DIR/netns; touch $netns
        mount --bind /proc/$(cat "$DIR/home/ps1.pid")/ns/net $netns
        pasta --config-net -t $3-$3:80-80 -u none -T none -U none --quiet --netns $netns \
            </dev/null >/dev/null 2>&1"
    touch "$DIR/home/ready"
    while ! test -e "$DIR/api"; do sleep 0.05; done
    mkdir -p "$XDG_RUNTIME_DIR/podman"
    exec podman system service -t 0 "unix://$XDG_RUNTIME_DIR/podman/podman.sock"
"#;

fn missing(programs: &[&'static str]) -> bool {
    let missing = programs.iter().find(|program| !lab::has(program));
    if let Some(program) = missing {
        lab::skip(&format!("{program} is not installed: see `cargo xtask setup`"));
    }
    missing.is_some()
}

/// Starts such a script as the user, in the node's own namespace.
fn start(node: &Node, script: &str, args: &[&str]) -> Result<lab::Proc> {
    let (lab, uid) = (&node.lab, UID.to_string());
    let dir = lab.dir().display().to_string();
    if !lab.dir().join("image").exists() {
        lab.rootfs()?;
        let conf = "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\n\
                    events_backend = \"none\"\n";
        std::fs::write(lab.dir().join("podman.conf"), conf)?;
        std::fs::create_dir_all(lab.dir().join("home"))?;
        let image = lab.dir().join("image");
        for copy in ["home/image", "home/image2"] {
            let mut cp = std::process::Command::new("cp");
            let copied = cp.arg("-a").args([&image, &lab.dir().join(copy)]).status()?;
            ensure!(copied.success(), "copying {}", image.display());
        }
    }
    let script = format!("exec 2>\"$DIR/home/log\"\n{script}");
    let mut argv = vec!["unshare", "-m", "--propagation", "private", "sh", "-c", AS_USER, "sh"];
    argv.extend([dir.as_str(), &uid, "sh", "-c", &script, "sh"]);
    argv.extend(args);
    lab.spawn(node.host(), &argv)
}

/// Waits until a file is there that the script writes.
fn wait_for(node: &Node, proc: &mut lab::Proc, file: &str) -> Test {
    let log = || std::fs::read_to_string(node.lab.dir().join("home/log")).unwrap_or_default();
    for _ in 0..600 {
        if node.lab.dir().join(file).exists() {
            return Ok(());
        }
        ensure!(!proc.has_exited()?, "the script has ended: {}", log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    anyhow::bail!("{file} does not come: {}", log())
}

/// A container's first process, which serves.
fn served(node: &mut Node, name: &str) -> Result<u32> {
    let path = node.lab.dir().join(format!("home/{name}.pid"));
    let pid: u32 = std::fs::read_to_string(path)?.trim().parse()?;
    node.lab.adopt(lab::netns_inode(pid).context("the container has ended")?);
    node.servers.push(Server::kept(name, pid));
    Ok(pid)
}

fn wait_to_answer(netns: &Netns, proto: &str, to: std::net::SocketAddr) -> Test {
    for _ in 0..200 {
        if matches!(netns.connect(proto, to)?, Landing::At(_)) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    anyhow::bail!("nothing answers at {to}")
}

#[test]
fn ports_of_a_users_podman_end_in_the_container() -> Test {
    lab::rules_or_skip!();
    let catatonit = "catatonit";
    if missing(&["podman", "slirp4netns", "pasta", "newuidmap", "runc", "busybox", catatonit]) {
        return Ok(());
    }
    let mut node = Node::new()?;
    let (tcp, udp, pasta) = (lab::unused_port()?, lab::unused_port()?, lab::unused_port()?);
    let ports = [tcp, udp, pasta, lab::unused_port()?].map(|port| port.to_string());
    let mut user = start(&node, PODMAN, &[&ports[0], &ports[1], &ports[2], &ports[3]])?;
    wait_for(&node, &mut user, "home/ready")?;
    let (rs1, ps1) = (served(&mut node, "rs1")?, served(&mut node, "ps1")?);
    let host = node.host().clone();
    wait_to_answer(&host, "tcp", (LOOPBACK, tcp).into())?;
    wait_to_answer(&host, "tcp", (LOOPBACK, pasta).into())?;

    // pasta has shut itself in, with a PID namespace of its own, and holds the container's.
    node.check(&ports[2], &[case("loopback", LOOPBACK, &["ps1"])])?;
    let run = node.lab.whereis(&[&ports[2]])?;
    let path = run.path_in(&host)?;
    ensure!(path.pid() == Some(ps1.into()) && path.container() == Some("ps1"), "{}", path.0);

    // Without the API it is known into which container rootlessport leads, and no more.
    let run = node.lab.whereis(&[&format!("{}/tcp", ports[0])])?;
    let path = run.path_in(&host)?;
    ensure!(path.ending() == "elsewhere" && path.container() == Some("rs1"), "{}", path.0);
    let text = node.lab.tool().args(&["--color", "never", &ports[0]]).run()?.stdout;
    ensure!(text.contains("podman.socket"), "{text}");

    std::fs::write(node.lab.dir().join("api"), "")?;
    for _ in 0..200 {
        let run = node.lab.whereis(&[&ports[0]])?;
        if run.path_in(&host)?.ending() == "process" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let ip = node.ip();
    node.check(
        &ports[0],
        &[
            case("loopback", LOOPBACK, &["rs1"]),
            case("node", ip, &["rs1"]),
            case("outside", ip, &["rs1"]),
        ],
    )?;
    node.check(
        &format!("{}/udp", ports[1]),
        &[case("loopback", LOOPBACK, &["rs1"]), case("node", ip, &["rs1"])],
    )?;
    let named = |run: &lab::Run, proto: &str| -> Test {
        let path = run.path_in(&host)?;
        ensure!(path.pid() == Some(rs1.into()) && path.container() == Some("rs1"), "{}", path.0);
        ensure!(path.hops().iter().all(|hop| hop["proto"] == proto), "{}", path.0);
        ensure!(path.sources(1).contains(&"Podman API"), "{}", path.0);
        Ok(())
    };
    named(&node.lab.whereis(&[&ports[0]])?, "tcp")?;
    named(&node.lab.whereis(&[&ports[1]])?, "udp")?;
    // The same as that user, who has no other right.
    let tool = node.lab.tool().uid(UID).args(&["--json", &ports[0]]);
    named(&tool.run()?, "tcp")?;
    // A pod has a name, and is found by it.
    let pod1 = served(&mut node, "pod1")?;
    node.check(&ports[3], &[case("loopback", LOOPBACK, &["pod1"])])?;
    let run = node.lab.whereis(&[&ports[3]])?;
    let path = run.path_in(&host)?;
    ensure!(path.pid() == Some(pod1.into()), "{}", path.0);
    ensure!(path.end()["pod"]["name"] == "lab-pod", "{}", path.0);
    let run = node.lab.whereis(&["--pod", "lab-pod"])?;
    let asked: Vec<_> = run.json["answers"].as_array().into_iter().flatten().collect();
    let published: u64 = ports[3].parse()?;
    let is_it = |one: &&serde_json::Value| one["query"]["first_port"] == published;
    ensure!(asked.iter().any(is_it), "{}", run.stdout);
    let list = node.lab.whereis(&["list", "--container", "rs1"])?;
    let rows = list.listeners()?;
    let listed = rows.iter().filter(|row| row.netns() == Some(host.inode));
    ensure!(listed.count() == 2, "{}", list.stdout);
    Ok(())
}

/// A network namespace by slirp4netns, with one port by its API and a server inside.
const SLIRP: &str = r#"
    set -e
    unshare --user --map-root-user --net sh -c '
        ip link set lo up
        echo $$ >"$DIR/home/inside.pid"
        exec "$DIR"/image/bin/lab-helper listen tcp 0.0.0.0:80 --answer slirp' &
    while ! test -s "$DIR/home/inside.pid"; do sleep 0.05; done
    pid=$(cat "$DIR/home/inside.pid")
    cp "$DIR/home/inside.pid" "$DIR/home/slirp.pid"
    exec slirp4netns --configure --api-socket "$DIR/home/slirp.sock" --enable-sandbox \
        "$pid" tap0 >/dev/null
"#;

#[test]
fn a_port_of_slirp4netns_ends_in_its_namespace() -> Test {
    lab::rules_or_skip!();
    if missing(&["slirp4netns", "newuidmap", "busybox"]) {
        return Ok(());
    }
    let mut node = Node::new()?;
    let port = lab::unused_port()?;
    let mut user = start(&node, SLIRP, &[])?;
    wait_for(&node, &mut user, "home/slirp.sock")?;
    served(&mut node, "slirp")?;
    // slirp4netns has shut itself in: it does not see its own socket any more.
    let mut api = UnixStream::connect(node.lab.dir().join("home/slirp.sock"))?;
    let arguments = json!({
        "proto": "tcp", "host_addr": "0.0.0.0", "host_port": port, "guest_port": 80,
    });
    let add = json!({ "execute": "add_hostfwd", "arguments": arguments }).to_string();
    // In one piece: it reads once.
    api.write_all(add.as_bytes())?;
    let mut answer = String::new();
    api.read_to_string(&mut answer)?;
    ensure!(answer.contains("return"), "{answer}");
    let host = node.host().clone();
    wait_to_answer(&host, "tcp", (LOOPBACK, port).into())?;
    let ip = node.ip();
    let question = port.to_string();
    node.check(
        &question,
        &[
            case("loopback", LOOPBACK, &["slirp"]),
            case("node", ip, &["slirp"]),
            case("outside", ip, &["slirp"]),
        ],
    )?;
    let run = node.lab.whereis(&[&question])?;
    ensure!(run.path_in(&host)?.sources(1).contains(&"forwarder's API"), "{}", run.stdout);
    Ok(())
}

/// A namespace by rootlesskit, with a server inside.
const ROOTLESSKIT: &str = r#"
    set -e
    rootlesskit --net=slirp4netns --port-driver=builtin --state-dir="$XDG_RUNTIME_DIR/rk" \
        --disable-host-loopback sh -c 'echo $$ >"$DIR/home/kit.pid"
        exec "$DIR"/image/bin/lab-helper listen tcp 0.0.0.0:80 udp 0.0.0.0:53 --answer kit' &
    while ! test -s "$DIR/home/kit.pid"; do sleep 0.05; done
    rootlessctl --socket "$XDG_RUNTIME_DIR/rk/api.sock" add-ports "0.0.0.0:$1:80/tcp" \
        "0.0.0.0:$2:53/udp" >/dev/null
    touch "$DIR/home/ready"
    wait
"#;

#[test]
fn a_port_of_rootlesskit_ends_in_its_namespace() -> Test {
    lab::rules_or_skip!();
    if missing(&["slirp4netns", "rootlesskit", "rootlessctl", "newuidmap"]) {
        return Ok(());
    }
    let mut node = Node::new()?;
    let (tcp, udp) = (lab::unused_port()?, lab::unused_port()?);
    let ports = [tcp, udp].map(|port| port.to_string());
    let mut user = start(&node, ROOTLESSKIT, &[&ports[0], &ports[1]])?;
    wait_for(&node, &mut user, "home/ready")?;
    let pid = served(&mut node, "kit")?;
    let host = node.host().clone();
    wait_to_answer(&host, "tcp", (LOOPBACK, tcp).into())?;
    let ip = node.ip();
    node.check(
        &ports[0],
        &[
            case("loopback", LOOPBACK, &["kit"]),
            case("node", ip, &["kit"]),
            case("outside", ip, &["kit"]),
        ],
    )?;
    node.check(
        &format!("{}/udp", ports[1]),
        &[case("loopback", LOOPBACK, &["kit"]), case("node", ip, &["kit"])],
    )?;
    let tool = node.lab.tool().uid(UID).args(&["--json", &ports[0]]);
    let run = tool.run()?;
    ensure!(run.path_in(&host)?.pid() == Some(pid.into()), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_forwarder_that_names_a_socket_of_another_is_not_believed() -> Test {
    lab::root_or_skip!();
    let lab = lab::Lab::new()?;
    let (port, state) = (lab::unused_port()?, lab.dir().join("state"));
    std::fs::create_dir_all(&state)?;
    let _silent = lab.silent_in("silent", &state, 1)?;
    std::os::unix::fs::symlink(state.join("0"), state.join("api.sock"))?;
    let option = format!("--state-dir={}", state.display());
    let argv = ["rootlesskit", option.as_str(), "sh"];
    let liar = lab.listen_like_a_user(lab.host(), UID, &format!("tcp 0.0.0.0:{port}"), &argv)?;
    let run = lab.whereis(&[&port.to_string()])?;
    ensure!(run.took < std::time::Duration::from_secs(10), "it took {:?}", run.took);
    let path = run.path_in(lab.host())?;
    ensure!(path.ending() == "elsewhere", "{}", path.0);
    ensure!(path.pid() == Some(liar.pid.into()), "{}", path.0);
    ensure!(run.gap_text().contains("another process listens there"), "{}", run.gap_text());
    Ok(())
}
