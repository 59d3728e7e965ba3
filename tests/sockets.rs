//! What a question finds of sockets of every kind, and of who holds them.

use std::process::Command;

use anyhow::{Context, ensure};
use lab::{Lab, Test};

#[test]
fn a_tcp_listener_and_its_process() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let listener = lab.listen(lab.host(), "tcp 127.0.0.1:20971")?;
    let run = lab.whereis(&["20971"])?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.steps() == ["listener 127.0.0.1:20971/tcp"], "{:?}", path.steps());
    ensure!(path.ending() == "process" && path.pids() == [u64::from(listener.pid)], "{}", path.0);
    let hop = path.hops()[0];
    ensure!(hop["socket"]["state"] == "listen" && hop["socket"]["uid"] == 0, "{hop}");
    ensure!(hop["socket"]["inode"].as_u64().is_some_and(|inode| inode > 0), "{hop}");
    ensure!(path.sources(0).contains(&"socket table"), "{hop}");
    let process = &path.end()["process"];
    ensure!(process["name"] == "lab-helper" && process["user"] == "root", "{process}");
    ensure!(process["cmdline"][1] == "listen", "{process}");
    ensure!(process["netns_inode"] == lab.host().inode, "{process}");
    let ancestors = process["ancestors"].as_array().context("no ancestors")?;
    let us = std::process::id();
    ensure!(ancestors.iter().any(|parent| parent["pid"] == us), "{process}");
    ensure!(run.json["schema_version"] == 1, "{}", run.json);
    ensure!(run.json["host"]["own_netns"]["inode"] == lab.host().inode, "{}", run.json);
    Ok(())
}

/// What the process holds is a socket of MPTCP, and what the kernel listens with one of TCP below
/// it. Go's servers are such since 1.24.
#[test]
fn a_listener_of_mptcp_has_its_process() -> Test {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let to: std::net::SocketAddr = "127.0.0.1:20973".parse()?;
    let sockets = lab::within(lab.host(), || {
        let (family, flags) = (AddressFamily::INET, SocketFlags::CLOEXEC);
        let new =
            || rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::MPTCP));
        let Ok(listener) = new() else { return Ok(None) };
        rustix::net::bind(&listener, &to)?;
        rustix::net::listen(&listener, 8)?;
        let client = new()?;
        rustix::net::connect(&client, &to)?;
        let served = rustix::net::accept_with(&listener, flags)?;
        Ok(Some((listener, client, served)))
    })?;
    let Some((listener, ..)) = &sockets else {
        lab::skip("this kernel has no MPTCP, or net.mptcp.enabled is 0");
        return Ok(());
    };
    let us = u64::from(std::process::id());
    let run = lab.whereis(&["20973", "--try"])?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.steps() == ["listener 127.0.0.1:20973/tcp"], "{:?}", path.steps());
    ensure!(path.pids() == [us], "{}", path.0);
    let inode = rustix::fs::fstat(listener)?.st_ino;
    ensure!(path.hops()[0]["socket"]["inode"] == inode, "{}", path.0);
    let run = lab.whereis(&["bind", "20973/tcp", "--try"])?;
    let held = &run.json["binds"][0]["held"][0]["end"]["process"]["pid"];
    ensure!(run.code == Some(1) && *held == us, "{}", run.stdout);
    // What is left when the listener is gone is still the process's.
    drop(sockets.map(|(listener, client, served)| {
        drop(listener);
        (client, served)
    }));
    lab.whereis(&["20973/udp"])?.is_nothing()
}

#[test]
fn protocols_are_told_apart() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let tcp = lab.listen(lab.host(), "tcp 127.0.0.1:20972")?;
    let udp = lab.listen(lab.host(), "udp 0.0.0.0:20972")?;
    for (question, proto, pid) in [("20972/tcp", "tcp", tcp.pid), ("20972/udp", "udp", udp.pid)] {
        let run = lab.whereis(&[question])?;
        let path = run.is_found()?.path_in(lab.host())?;
        ensure!(path.hops()[0]["proto"] == proto, "{}", path.0);
        ensure!(path.pids() == [u64::from(pid)], "{}", path.0);
        ensure!(run.answer()?["query"]["proto"] == proto, "{}", run.json);
    }
    let run = lab.whereis(&["20972"])?;
    ensure!(run.is_found()?.paths_in(lab.host())?.len() == 2, "{}", run.json);
    Ok(())
}

#[test]
fn a_connected_udp_socket_is_no_listener() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let args = format!("udp 127.0.0.1:{port} --connect 127.0.0.1:9");
    let _client = lab.listen(lab.host(), &args)?;
    lab.whereis(&[&format!("{port}/udp")])?.is_nothing()
}

#[test]
fn nothing_is_said_only_when_nothing_is_there() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let run = lab.whereis(&[&lab::unused_port()?.to_string()])?;
    run.is_nothing()?;
    ensure!(run.answer()?["paths"].as_array().is_some_and(Vec::is_empty), "{}", run.json);
    Ok(())
}

#[test]
fn address_families_and_what_they_take() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let only = lab.listen(lab.host(), "tcp [::]:20981 --v6only 1")?;
    let dual = lab.listen(lab.host(), "tcp [::]:20982 --v6only 0")?;
    let mapped = lab.listen(lab.host(), "tcp [::ffff:127.0.0.1]:20983 --v6only 0")?;
    for (question, pid, address, v6only) in [
        ("20981", only.pid, "::", Some(true)),
        ("[::1]:20981", only.pid, "::", Some(true)),
        ("127.0.0.1:20982", dual.pid, "::", Some(false)),
        ("[::1]:20982", dual.pid, "::", Some(false)),
        ("20983", mapped.pid, "::ffff:127.0.0.1", None),
        ("127.0.0.1:20983/tcp", mapped.pid, "::ffff:127.0.0.1", None),
    ] {
        let run = lab.whereis(&[question])?;
        let path = run.is_found()?.path_in(lab.host())?;
        let hop = path.hops()[0];
        ensure!(path.pids() == [u64::from(pid)], "{question}: {}", path.0);
        ensure!(hop["address"] == address, "{question}: {hop}");
        let says = hop["socket"]["v6only"].as_bool();
        ensure!(v6only.is_none() || says == v6only, "{question}: {hop}");
    }
    // An IPv6-only wildcard leaves IPv4 alone.
    let port = lab::unused_port()?;
    let _only = lab.listen(lab.host(), &format!("tcp [::]:{port} --v6only 1"))?;
    lab.whereis(&[&format!("127.0.0.1:{port}")])?.is_nothing()
}

#[test]
fn a_question_with_an_address_gets_the_socket_that_takes_it() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let wildcard = lab.listen(lab.host(), "tcp 0.0.0.0:20984 --reuseport")?;
    let specific = lab.listen(lab.host(), "tcp 127.0.0.1:20984 --reuseport")?;
    let run = lab.whereis(&["127.0.0.1:20984"])?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.pids() == [u64::from(specific.pid)], "{}", path.0);
    let run = lab.whereis(&["127.0.0.2:20984"])?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.pids() == [u64::from(wildcard.pid)], "{}", path.0);
    let run = lab.whereis(&["20984"])?;
    ensure!(run.is_found()?.paths_in(lab.host())?.len() == 2, "{}", run.json);
    Ok(())
}

#[test]
fn every_member_of_a_reuseport_group_is_listed() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let one = lab.listen(lab.host(), "tcp 127.0.0.1:20985 --reuseport")?;
    let two = lab.listen(lab.host(), "tcp 127.0.0.1:20985 --reuseport")?;
    let run = lab.whereis(&["20985"])?;
    let paths = run.is_found()?.paths_in(lab.host())?;
    let mut pids: Vec<u64> = paths.iter().flat_map(lab::View::pids).collect();
    pids.sort_unstable();
    ensure!(pids == sorted(&[one.pid, two.pid]), "{}", run.json);
    Ok(())
}

#[test]
fn every_holder_is_listed_once() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    for (port, options) in [
        (20991, "--fork 3"),
        (20992, "--dup 4"),
        (20993, "--fork 2 --dup 2"),
        // Sent over a unix socket: the receiver holds it, the sender does not.
        (20994, "--pass"),
        // In the descriptor table of a thread, where /proc/PID/fd does not show it.
        (20995, "--thread"),
    ] {
        let proc = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port} {options}"))?;
        let run = lab.whereis(&[&port.to_string()])?;
        let path = run.is_found()?.path_in(lab.host())?;
        ensure!(path.pids() == sorted(&proc.holders), "{options}: {}", path.0);
        ensure!(path.ending() == "process", "{options}: {}", path.0);
    }
    Ok(())
}

#[test]
fn a_socket_of_a_namespace_in_which_no_process_lives() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let empty = lab.netns("empty")?;
    let options = format!("tcp 127.0.0.1:20996 --socket-netns {}", empty.path.display());
    let holder = lab.listen(lab.host(), &options)?;
    let run = lab.whereis(&["20996"])?;
    let path = run.is_found()?.path_in(&empty)?;
    ensure!(path.pids() == [u64::from(holder.pid)], "{}", path.0);
    ensure!(path.0["netns"]["name"] == empty.name.as_str(), "{}", path.0);
    ensure!(path.end()["process"]["netns_inode"] == lab.host().inode, "{}", path.0);
    ensure!(run.paths_in(lab.host())?.is_empty(), "{}", run.json);
    Ok(())
}

#[test]
fn a_namespace_without_a_name_in_which_only_a_thread_lives() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let hidden = lab.netns("hidden")?;
    let options = format!("tcp 127.0.0.1:20998 --thread --socket-netns {}", hidden.path.display());
    let holder = lab.listen(lab.host(), &options)?;
    hidden.unname()?;
    let run = lab.whereis(&["20998"])?;
    let path = run.is_found()?.path_in(&hidden)?;
    ensure!(path.pids() == [u64::from(holder.pid)], "{}", path.0);
    Ok(())
}

#[test]
fn a_namespace_in_which_only_a_thread_of_a_dead_leader_lives() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let hidden = lab.netns("hidden")?;
    let path = hidden.path.display();
    let options = format!("tcp 127.0.0.1:21021 --thread --leader-exits --socket-netns {path}");
    let holder = lab.listen(lab.host(), &options)?;
    hidden.unname()?;
    until_dead(holder.pid)?;
    let run = lab.whereis(&["21021"])?;
    let path = run.is_found()?.path_in(&hidden)?;
    ensure!(path.pids() == [u64::from(holder.pid)], "{}", path.0);
    Ok(())
}

/// Waits until the first thread of a process has ended.
fn until_dead(pid: u32) -> Test {
    for _ in 0..500 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        if stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    anyhow::bail!("the leader of {pid} lives on")
}

#[test]
fn nothing_is_not_sure_while_a_descriptor_holds_a_namespace() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let held = lab.netns("held")?;
    let port = lab::unused_port()?.to_string();
    let path = held.path.display();
    let options = format!("tcp 127.0.0.1:{port} --keep-netns --socket-netns {path}");
    let holder = lab.listen(lab.host(), &options)?;
    held.unname()?;
    let way = format!("nsenter --net=/proc/{}/fd/", holder.pid);
    // What holds one for longest is named first; older processes of other tests may be all
    // that a gap has room for, as long as they run.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut gaps = String::new();
    while std::time::Instant::now() < until {
        let run = lab.whereis(&[&port])?;
        run.is_nothing()?;
        ensure!(run.code == Some(3), "\"surely nothing\" is wrong: {}", run.stdout);
        gaps = run.gap_text();
        if gaps.contains(&way) {
            return Ok(());
        }
    }
    anyhow::bail!("no {way:?} in: {gaps}")
}

#[test]
fn a_container_does_not_choose_the_name_of_its_namespace() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let container = Elsewhere::start(
        "-mn",
        "mount -t tmpfs none /run/netns && touch /run/netns/spoofed &&
         mount --bind /proc/self/ns/net /run/netns/spoofed && ip link set lo up",
    )?;
    let netns = format!("/proc/{}/ns/net", container.0.id());
    let options = format!("tcp 127.0.0.1:21022 --socket-netns {netns}");
    let _listening = lab.listen(lab.host(), &options)?;
    let run = lab.whereis(&["21022"])?;
    ensure!(!run.is_found()?.stdout.contains("\"spoofed\""), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_namespace_behind_a_mount_that_hides_it_or_never_answers() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mut covers = vec![("tmpfs", "mount -t tmpfs none $dir")];
    if std::path::Path::new("/dev/fuse").exists() {
        // Nobody reads the requests: a look-up waits until the device is closed. Without a
        // helper program, for where there is one it would be run, and want a name.
        let fuse = "exec 3<>/dev/fuse &&
            mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none $dir";
        covers.push(("fuse", fuse));
    }
    for (name, cover) in covers {
        let netns = lab.netns(name)?;
        let dir = lab.dir().join(name);
        std::fs::create_dir(&dir)?;
        let script = format!(
            "dir={} && touch $dir/pin && mount --bind {} $dir/pin && {cover}",
            dir.display(),
            netns.path.display()
        );
        let _container = Elsewhere::start("-m", &script)?;
        netns.unname()?;
        let run = lab.whereis(&[&lab::unused_port()?.to_string()])?;
        run.is_nothing()?;
        ensure!(run.code == Some(3), "{name}: \"surely nothing\" is wrong: {}", run.stdout);
        let gaps = run.gap_text();
        ensure!(gaps.contains(&netns.inode.to_string()), "{name}: {gaps}");
        ensure!(gaps.contains("covered"), "{name}: {gaps}");
    }
    Ok(())
}

/// A shell in namespaces of its own, which ends with its standard input.
struct Elsewhere(std::process::Child);

impl Elsewhere {
    fn start(namespaces: &str, script: &str) -> anyhow::Result<Self> {
        use std::io::BufRead;
        let mut child = Command::new("unshare")
            .args([namespaces, "sh", "-c", &format!("{script} && echo ready && exec cat")])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("no output")?;
        let started = Self(child);
        let mut line = String::new();
        std::io::BufReader::new(out).read_line(&mut line)?;
        ensure!(line == "ready\n", "{script}: {line:?}");
        Ok(started)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_namespace_pinned_by_a_mount_that_nobody_expects() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let pinned = lab.netns("pinned")?;
    let options = format!("tcp 127.0.0.1:20999 --socket-netns {}", pinned.path.display());
    let holder = lab.listen(lab.host(), &options)?;
    let pin = lab.dir().join("a pin");
    std::fs::write(&pin, "")?;
    let mounted = Command::new("mount").arg("--bind").args([&pinned.path, &pin]).status()?;
    ensure!(mounted.success());
    pinned.unname()?;
    let run = lab.whereis(&["20999"])?;
    let path = run.is_found()?.path_in(&pinned)?;
    ensure!(path.pids() == [u64::from(holder.pid)], "{}", path.0);
    Ok(())
}

#[test]
fn a_name_made_to_confuse_parsers() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    // As it stands in /proc/PID/stat: `123 (x) R 0 (y) S 1 …`.
    let argv = ["x) R 0 (y", "-L", "1:2:3"];
    let proc = lab.listen_like(lab.host(), "tcp 127.0.0.1:21020", &argv)?;
    let run = lab.whereis(&["21020"])?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.pids() == [u64::from(proc.pid)], "{}", path.0);
    let process = &path.end()["process"];
    ensure!(process["comm"] == argv[0], "{process}");
    ensure!(process["ancestors"][0]["pid"] == std::process::id(), "{process}");
    Ok(())
}

#[test]
fn a_port_of_several_namespaces_is_listed_in_each_ours_first() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let (a, b) = (lab.netns("a")?, lab.netns("b")?);
    let in_a = lab.listen(&a, "tcp 127.0.0.1:20997")?;
    let in_host = lab.listen(lab.host(), "tcp 127.0.0.1:20997")?;
    let in_b = lab.listen(&b, "tcp [::]:20997")?;
    for own in [lab.host(), &b] {
        let run = lab.tool().netns(own).args(&["--json", "20997"]).run()?;
        for (netns, proc) in [(lab.host(), &in_host), (&a, &in_a), (&b, &in_b)] {
            let path = run.is_found()?.path_in(netns)?;
            ensure!(path.pids() == [u64::from(proc.pid)], "{}", path.0);
        }
        let first = run.paths()?[0];
        ensure!(first.netns() == Some(own.inode), "{}", run.json);
        ensure!(run.path_in(&a)?.0["netns"]["name"] == a.name.as_str(), "{}", run.json);
    }
    Ok(())
}

#[test]
fn several_questions_and_ranges() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _some = lab.listen(lab.host(), "tcp 127.0.0.1:21001 tcp 127.0.0.1:21003 udp [::]:21004")?;
    let run = lab.whereis(&["21000-21003"])?;
    let query = &run.answer()?["query"];
    ensure!(query["first_port"] == 21000 && query["last_port"] == 21003, "{query}");
    let paths = run.is_found()?.paths_in(lab.host())?;
    let mut steps: Vec<String> = paths.iter().flat_map(lab::View::steps).collect();
    steps.sort();
    ensure!(steps == ["listener 127.0.0.1:21001/tcp", "listener 127.0.0.1:21003/tcp"], "{steps:?}");

    let unused = lab::unused_port()?.to_string();
    let run = lab.whereis(&["21001", &unused])?;
    let answers = run.json["answers"].as_array().context("no answers")?;
    ensure!(answers.len() == 2 && answers[0]["verdict"] == "found", "{}", run.json);
    ensure!(answers[1]["query"]["text"] == unused.as_str(), "{}", run.json);
    // One unanswered question is enough for a script to look.
    ensure!(matches!(run.code, Some(1 | 3)), "{:?}", run.code);
    Ok(())
}

#[test]
fn a_service_name_stands_for_its_port() -> Test {
    lab::root_or_skip!();
    let services = std::fs::read_to_string("/etc/services").unwrap_or_default();
    if !services.lines().any(|line| line.starts_with("https")) {
        lab::skip("/etc/services does not name https (package netbase)");
        return Ok(());
    }
    let lab = Lab::new()?;
    let listener = lab.listen(lab.host(), "tcp 127.0.0.1:443")?;
    let run = lab.whereis(&["https"])?;
    ensure!(run.answer()?["query"]["first_port"] == 443, "{}", run.json);
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.pids() == [u64::from(listener.pid)], "{}", path.0);
    Ok(())
}

#[test]
fn processes_are_named_as_people_know_them() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    for (port, argv) in [
        (21011, ["kube-apiserver", "--secure-port=6443"]),
        // The kernel keeps fifteen bytes of this one.
        (21012, ["/usr/bin/kube-controller-manager", "--v=2"]),
    ] {
        let _proc = lab.listen_like(lab.host(), &format!("tcp 127.0.0.1:{port}"), &argv)?;
        let run = lab.whereis(&[&port.to_string()])?;
        let path = run.is_found()?.path_in(lab.host())?;
        let process = &path.end()["process"];
        let name = argv[0].rsplit('/').next();
        ensure!(process["name"].as_str() == name, "{process}");
        ensure!(process["cmdline"] == serde_json::json!(argv), "{process}");
    }
    Ok(())
}

#[test]
fn the_owner_of_the_socket_is_named() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _proc = lab.listen_as(lab.host(), 65534, "tcp 127.0.0.1:21013")?;
    let run = lab.whereis(&["21013"])?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.hops()[0]["socket"]["uid"] == 65534, "{}", path.0);
    let process = &path.end()["process"];
    ensure!(process["uid"] == 65534 && process["user"] == "nobody", "{process}");
    Ok(())
}

#[test]
fn a_hostile_name_does_not_reach_the_terminal() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let argv = ["\u{1b}[2Jevil\u{202e}", "\u{1b}]0;owned\u{7}", "a\nb"];
    let _proc = lab.listen_like(lab.host(), "tcp 127.0.0.1:21014", &argv)?;
    for args in [
        ["--color", "never", "21014"].as_slice(),
        &["--color", "never", "list", "-o", "wide"],
        &["--color", "never", "list", "-o", "csv"],
    ] {
        let run = lab.tool().args(args).run()?;
        ensure!(run.stdout.contains("evil"), "{args:?}: {}", run.stdout);
        let bad = |c: char| c == '\u{1b}' || c == '\u{7}' || c == '\u{202e}';
        ensure!(!run.stdout.contains(bad), "{args:?}: {:?}", run.stdout);
    }
    let run = lab.whereis(&["21014"])?;
    ensure!(!run.stdout.contains('\u{1b}') && !run.stdout.contains('\u{202e}'), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_forwarder_leads_on_into_another_namespace() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let web = lab.netns("web")?;
    lab.veth((lab.host(), "veth0", "10.9.0.1/24"), (&web, "eth0", "10.9.0.2/24"))?;
    let server = lab.listen(&web, "tcp 0.0.0.0:80")?;
    let argv = ["socat", "TCP-LISTEN:21015,fork,reuseaddr", "TCP:10.9.0.2:80"];
    let _socat = lab.listen_like(lab.host(), "tcp 0.0.0.0:21015", &argv)?;
    let run = lab.whereis(&["21015"])?;
    let path = run.is_found()?.path_in(lab.host())?;
    let steps = path.steps();
    ensure!(
        steps
            == ["listener 0.0.0.0:21015/tcp", "forward 10.9.0.2:80/tcp", "listener 0.0.0.0:80/tcp"],
        "{steps:?}"
    );
    ensure!(path.hops()[2]["netns"]["inode"] == web.inode, "{}", path.0);
    ensure!(path.pids() == [u64::from(server.pid)], "{}", path.0);
    ensure!(path.sources(1).contains(&"command line"), "{}", path.0);
    Ok(())
}

#[test]
fn forwarders_in_a_circle_end() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let there = ["socat", "TCP-LISTEN:21016,fork", "TCP:127.0.0.1:21017"];
    let back = ["socat", "TCP-LISTEN:21017,fork", "TCP:127.0.0.1:21016"];
    let _there = lab.listen_like(lab.host(), "tcp 0.0.0.0:21016", &there)?;
    let _back = lab.listen_like(lab.host(), "tcp 0.0.0.0:21017", &back)?;
    let run = lab.whereis(&["21016"])?;
    let path = run.is_found()?.path_in(lab.host())?;
    let why = path.end()["why"].as_str().unwrap_or_default();
    ensure!(why.contains("circle"), "a circle needs saying: {}", path.0);
    Ok(())
}

#[test]
fn arguments_alone_do_not_make_a_forwarder() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let options = "tcp 0.0.0.0:21030 --imitate socat TCP-LISTEN:21030,fork TCP:127.0.0.1:22";
    let server = lab.listen(lab.host(), options)?;
    let run = lab.whereis(&["21030"])?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.hops().len() == 1 && path.pids() == [u64::from(server.pid)], "{}", path.0);
    let why = path.end()["why"].as_str().unwrap_or_default();
    ensure!(why.contains("lab-helper"), "{why}");
    Ok(())
}

#[test]
fn where_it_can_be_reached_from() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let out = lab.netns("out")?;
    lab.veth((lab.host(), "veth0", "10.9.1.1/24"), (&out, "eth0", "10.9.1.2/24"))?;
    let _some = lab.listen(lab.host(), "tcp 127.0.0.1:21018 tcp 0.0.0.0:21019")?;
    for (question, loopback, outside) in [("21018", true, false), ("21019", true, true)] {
        let run = lab.whereis(&[question])?;
        let reach = run.is_found()?.answer()?["reachable"].as_array().context("no reach")?;
        for (from, expected) in [("loopback", loopback), ("outside", outside)] {
            let entry = reach.iter().find(|entry| entry["from"] == from);
            let entry = entry.with_context(|| format!("nothing of {from}: {}", run.json))?;
            // A firewall or a NAT rule may keep the tool from being sure of a
            // "yes"; "no" is known from the bind address alone.
            let said = entry["reachable"].as_bool();
            ensure!(said == Some(expected) || (expected && said.is_none()), "{question}: {entry}");
            ensure!(entry["why"].as_str().is_some_and(|why| !why.is_empty()), "{entry}");
        }
    }
    Ok(())
}

fn sorted(pids: &[u32]) -> Vec<u64> {
    let mut pids: Vec<u64> = pids.iter().copied().map(u64::from).collect();
    pids.sort_unstable();
    pids
}
