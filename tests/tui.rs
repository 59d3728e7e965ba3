//! The screen in a real terminal, on a node where things happen.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{FakeDocker, Lab, Terminal, Test, unused_port};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Starts the screen in a terminal and waits until it has read the node.
fn screen<'a>(lab: &'a Lab, size: (u16, u16), env: &str) -> Result<Terminal<'a>> {
    let terminal = Terminal::open(lab, size, env)?;
    terminal.run("$TOOL tui --no-kube; echo ended with $?")?;
    terminal.wait("the screen", |screen| screen.contains("[1 Ports]"))?;
    terminal.wait("the ports", |screen| !screen.contains("reading the node"))?;
    Ok(terminal)
}

/// Shows only the rows of one port.
fn only(terminal: &Terminal<'_>, port: u16) -> Test {
    terminal.keys(&["/"])?;
    terminal.text(&format!("port:{port}"))?;
    terminal.keys(&["Enter"])
}

/// Ends the screen and checks that the terminal is as it was.
fn ended(terminal: &Terminal<'_>, code: &str) -> Test {
    terminal.wait_line(&[&format!("ended with {code}")])?;
    for (what, expected) in [("alternate_on", "0"), ("mouse_any_flag", "0"), ("cursor_flag", "1")] {
        let is = terminal.about(what)?;
        ensure!(is == expected, "{what} is {is} after the screen has ended");
    }
    // What is typed shows again, and Enter ends a line.
    terminal.run("stty -a | grep -o ' echo ' && stty -a | grep -o ' icanon'; echo typed")?;
    terminal.wait_line(&["icanon"])?;
    Ok(())
}

#[test]
fn a_listener_comes_is_followed_and_fades() -> Test {
    lab::terminal_or_skip!();
    let lab = Lab::new()?;
    let terminal = screen(&lab, (100, 30), "")?;
    let port = unused_port()?;
    only(&terminal, port)?;
    terminal.wait("nothing on the port", |screen| screen.contains("nothing passes the filter"))?;

    let argv = ["web-server", "--root", "/srv"];
    let server = lab.listen_like(lab.host(), &format!("tcp 127.0.0.1:{port}"), &argv)?;
    let row = terminal.wait_line(&[&port.to_string(), "127.0.0.1", "web-server"])?;
    ensure!(row.starts_with(">+"), "a new row is marked: {row}");

    terminal.keys(&["Enter"])?;
    terminal.wait_line(&["[2 Path]"])?;
    let hop = terminal.wait_line(&[&format!("127.0.0.1:{port}/tcp"), "listener", "web-server"])?;
    terminal.wait_line(&["reachable by loopback only"])?;
    // From the hop back to its row.
    terminal.keys(&["]", "Enter"])?;
    terminal.wait_line(&["[1 Ports]"])?;
    terminal.wait_line(&[&port.to_string(), "web-server"])?;

    server.kill()?;
    let row = terminal.wait_line(&[&format!("x {port}")])?;
    ensure!(row.contains("web-server"), "{hop}: {row}");

    // What it did is in the stream, and counted.
    terminal.keys(&["3"])?;
    terminal.wait_line(&["listen", &format!("127.0.0.1:{port}")])?;
    terminal.wait_line(&["close", &format!("127.0.0.1:{port}")])?;
    terminal.keys(&["h"])?;
    terminal.wait_line(&[&format!("{port}/tcp"), "1"])?;

    terminal.keys(&["q"])?;
    ended(&terminal, "0")
}

#[test]
fn without_ebpf_readings_are_compared() -> Test {
    lab::terminal_or_skip!();
    let lab = Lab::new()?;
    let terminal = Terminal::open(&lab, (100, 30), "")?;
    terminal.run("$TOOL tui --no-kube --no-ebpf --interval 200ms")?;
    terminal.wait_line(&["snapshots"])?;
    let port = unused_port()?;
    only(&terminal, port)?;
    let _server = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
    terminal.wait_line(&["+", &port.to_string(), "127.0.0.1"])?;
    terminal.keys(&["3"])?;
    terminal.wait_line(&["~listen", &format!("127.0.0.1:{port}")])?;
    Ok(())
}

#[test]
fn rules_that_no_event_tells_of_are_noticed() -> Test {
    lab::terminal_or_skip!();
    lab::rules_or_skip!();
    let lab = Lab::new()?;
    // Somebody has to be able to come in.
    let out = lab.netns("out")?;
    lab.veth((lab.host(), "eth0", "172.30.0.1/24"), (&out, "eth0", "172.30.0.2/24"))?;
    let port = unused_port()?;
    let terminal = screen(&lab, (120, 30), "")?;
    only(&terminal, port)?;
    terminal.wait_line(&["eBPF"])?;
    lab.nft(
        lab.host(),
        &format!(
            "table ip shop {{ chain in {{ type nat hook prerouting priority dstnat; \
             tcp dport {port} dnat to 10.11.12.13:80; }}; }}"
        ),
    )?;
    terminal.wait_line(&["+", &port.to_string(), "10.11.12.13:80"])?;
    lab.nft(lab.host(), "delete table ip shop")?;
    terminal.wait_line(&["x", &port.to_string(), "10.11.12.13:80"])?;
    Ok(())
}

#[test]
fn it_works_inside_of_another_terminal_program() -> Test {
    lab::terminal_or_skip!();
    let lab = Lab::new()?;
    let sockets = lab.dir().join("screen");
    std::fs::create_dir(&sockets)?;
    std::fs::set_permissions(&sockets, std::fs::Permissions::from_mode(0o700))?;
    let terminal = Terminal::open(&lab, (100, 30), &format!("SCREENDIR={}", sockets.display()))?;
    terminal.run("screen -c /dev/null $TOOL tui --demo; echo ended with $?")?;
    terminal.wait_line(&["6443", "cluster1"])?;
    terminal.keys(&["Enter"])?;
    terminal.wait_line(&["embedded DNS server"])?;
    terminal.keys(&["q"])?;
    terminal.wait_line(&["screen is terminating"])?;
    ended(&terminal, "0")
}

#[test]
fn sizes_change_what_is_shown_and_never_break_it() -> Test {
    lab::terminal_or_skip!();
    let lab = Lab::new()?;
    let port = unused_port()?;
    let _server = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
    let terminal = screen(&lab, (80, 24), "")?;
    only(&terminal, port)?;
    terminal.wait_line(&[&port.to_string(), "lab-helper"])?;
    // Wide: the path stands beside the table.
    terminal.resize(200, 50)?;
    terminal.wait_line(&[&port.to_string(), "│"])?;
    terminal.wait_line(&[&format!("127.0.0.1:{port}/tcp"), "listener"])?;
    for step in 0..20 {
        terminal.resize(30 + step * 9, 6 + step * 2)?;
    }
    terminal.resize(30, 5)?;
    terminal.wait_line(&["too small"])?;
    terminal.resize(80, 24)?;
    terminal.wait_line(&[&port.to_string(), "lab-helper"])?;
    terminal.keys(&["C-c"])?;
    ended(&terminal, "0")
}

#[test]
fn it_stops_and_goes_on_like_any_job() -> Test {
    lab::terminal_or_skip!();
    let lab = Lab::new()?;
    let terminal = screen(&lab, (80, 24), "")?;
    terminal.keys(&["C-z"])?;
    terminal.wait_line(&["Stopped"])?;
    ensure!(terminal.about("alternate_on")? == "0", "a stopped screen holds the terminal");
    terminal.run("clear; jobs; echo typed")?;
    terminal.wait_line(&["typed"])?;
    terminal.run("fg")?;
    terminal.wait_line(&["[1 Ports]"])?;
    terminal.keys(&["4"])?;
    terminal.wait_line(&["[4 Sources]"])?;
    terminal.keys(&["q"])?;
    terminal.wait_line(&["$"])?;
    ensure!(terminal.about("alternate_on")? == "0", "an ended screen holds the terminal");
    Ok(())
}

#[test]
fn a_signal_gives_the_terminal_back() -> Test {
    lab::terminal_or_skip!();
    let lab = Lab::new()?;
    for signal in ["TERM", "INT", "HUP", "QUIT"] {
        let terminal = Terminal::open(&lab, (80, 24), "")?;
        // The shell's own child, by the number that the shell knows.
        terminal.run("(sh -c 'echo $PPID > $HOME/pid; exec sleep 0'; exec $TOOL tui --no-kube); echo ended with $?")?;
        terminal.wait("the screen", |screen| screen.contains("[1 Ports]"))?;
        let pid = std::fs::read_to_string(lab.dir().join("pid"))?;
        let sent =
            Command::new("kill").args([format!("-{signal}").as_str(), pid.trim()]).status()?;
        ensure!(sent.success(), "kill -{signal} {pid}");
        ended(&terminal, "0")?;
    }
    Ok(())
}

#[test]
fn a_silent_runtime_is_named_while_the_rest_lives() -> Test {
    lab::terminal_or_skip!();
    let lab = Lab::new()?;
    let docker = FakeDocker::silent(lab.dir())?;
    let port = unused_port()?;
    let id = "ab".repeat(32);
    let _server = lab.listen_in_container(lab.host(), &id, &format!("tcp 127.0.0.1:{port}"))?;
    let terminal = screen(&lab, (120, 40), &format!("DOCKER_HOST={}", docker.url()))?;
    only(&terminal, port)?;
    terminal.wait_line(&[&port.to_string(), "lab-helper"])?;
    terminal.wait_line(&["gap"])?;
    terminal.keys(&["4"])?;
    terminal.wait_line(&["[4 Sources]"])?;
    // The source is below, whatever else is read here.
    terminal.keys(&["/"])?;
    terminal.text("docker")?;
    terminal.keys(&["Enter"])?;
    terminal.wait("the runtime", |screen| screen.to_lowercase().contains("docker"))?;
    terminal.keys(&["q"])?;
    ended(&terminal, "0")
}

#[test]
fn a_hostile_name_is_only_a_name() -> Test {
    lab::terminal_or_skip!();
    let lab = Lab::new()?;
    let port = unused_port()?;
    let name = "ev\u{1b}]2;owned\u{7}\u{1b}[2Jil";
    let _server = lab.listen_like(lab.host(), &format!("tcp 127.0.0.1:{port}"), &[name])?;
    let terminal = screen(&lab, (120, 30), "")?;
    only(&terminal, port)?;
    terminal.wait_line(&[&port.to_string(), "]2;owned"])?;
    terminal.keys(&["Enter"])?;
    terminal.wait_line(&["[2 Path]"])?;
    terminal.wait_line(&[&port.to_string(), "]2;owned"])?;
    let title = terminal.about("pane_title")?;
    ensure!(!title.contains("owned"), "a process has set the title: {title}");
    Ok(())
}

#[test]
fn a_configuration_changes_keys_and_a_wrong_one_is_told() -> Test {
    lab::terminal_or_skip!();
    let lab = Lab::new()?;
    let directory = lab.dir().join(".config/whereis-port");
    std::fs::create_dir_all(&directory)?;
    let file = directory.join("config.toml");
    std::fs::write(&file, "[keys]\nquit = \"X\"\n")?;
    let terminal = screen(&lab, (120, 24), "")?;
    terminal.wait_line(&["X quit"])?;
    terminal.keys(&["q", "X"])?;
    ended(&terminal, "0")?;

    std::fs::write(&file, "[screen]\nmouse = true\n\n[keys]\nquit = \"hyper-q\"\n")?;
    terminal.run("clear; $TOOL config check; echo ended with $?")?;
    terminal.wait_line(&["config.toml:5:", "hyper-q"])?;
    terminal.wait_line(&["ended with 2"])?;
    Ok(())
}

#[test]
fn without_a_command_a_terminal_gets_the_screen_and_a_pipe_the_list() -> Test {
    lab::terminal_or_skip!();
    let lab = Lab::new()?;
    let terminal = Terminal::open(&lab, (80, 24), "")?;
    terminal.run("$TOOL --no-kube | head -1; echo and then")?;
    terminal.wait_line(&["PORT", "PROTO", "ADDRESS"])?;
    terminal.wait_line(&["and then"])?;
    terminal.run("$TOOL --no-kube; echo ended with $?")?;
    terminal.wait_line(&["[1 Ports]"])?;
    terminal.keys(&["q"])?;
    ended(&terminal, "0")
}

#[test]
fn a_terminal_that_goes_away_ends_it() -> Test {
    lab::terminal_or_skip!();
    let lab = Lab::new()?;
    let terminal = screen(&lab, (80, 24), "")?;
    let named = |pid: &i32| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        comm.trim() == "whereis-port"
    };
    let running = || lab.processes().iter().any(named);
    ensure!(running(), "the screen is no process of the lab");
    drop(terminal);
    let begun = std::time::Instant::now();
    while running() {
        ensure!(begun.elapsed().as_secs() < 40, "it still runs without a terminal");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn a_terminal_that_answers_nothing_is_drawn_anew() -> Test {
    lab::terminal_or_skip!();
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    tcsetwinsize(&ours, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 })?;
    let name = ptsname(&ours, Vec::new())?;
    let theirs = || -> Result<Stdio> {
        let file = File::options().read(true).write(true).open(name.to_str()?)?;
        Ok(Stdio::from(OwnedFd::from(file)))
    };
    let mut command = Command::new(lab::binary()?);
    command.args(["tui", "--demo"]).env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color");
    let mut child = command.stdin(theirs()?).stdout(theirs()?).spawn()?;
    let mut terminal = File::from(ours);
    // Another thread reads, so that waiting for what does not come has an end.
    let (sender, drawn) = std::sync::mpsc::channel();
    let mut reader = terminal.try_clone()?;
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            if sender.send(text.into_owned()).is_err() {
                break;
            }
        }
    });
    let shows = |what: &str| -> Test {
        let until = Instant::now() + Duration::from_secs(20);
        let mut all = String::new();
        while !all.contains(what) {
            let left = until.saturating_duration_since(Instant::now());
            all.push_str(&drawn.recv_timeout(left).with_context(|| all.clone())?);
        }
        Ok(())
    };
    let mut tried = || -> Test {
        shows("kube-apiserver")?;
        for _ in 0..2 {
            terminal.write_all(b"\x0c")?;
            shows("kube-apiserver")?;
        }
        terminal.write_all(b"q")?;
        Ok(())
    };
    let result = tried();
    if result.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    result?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[test]
fn without_a_terminal_it_says_what_to_do() -> Test {
    let run = |args: &[&str]| -> Result<(Option<i32>, String)> {
        let mut command = Command::new(lab::binary()?);
        let output = command.args(args).stdin(Stdio::null()).output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    for (args, said) in [
        (["tui"].as_slice(), "needs a terminal"),
        (&["tui", "--demo", "--keys", "j"], "--keys belongs to --print"),
        (&["tui", "--print", "80"], "COLUMNSxLINES"),
        (&["tui", "--print", "0x9"], "COLUMNSxLINES"),
        (
            &["tui", "--demo", "--print", "80x24", "--keys", "hyper-x"],
            "there is no key \"hyper-x\"",
        ),
        (&["tui", "--record", "/tmp/x"], "can't be recorded"),
        (&["tui", "--json"], "has no JSON"),
        (&["tui", "--replay", "/nowhere/node.json"], "can't read /nowhere/node.json"),
        (&["tui", "--config", "/nowhere/config.toml"], "can't read /nowhere/config.toml"),
        (&["tui", "--config", "/dev/zero"], "is not a file"),
        (&["config", "check", "/nowhere"], "can't read /nowhere"),
    ] {
        let (code, stderr) = run(args)?;
        ensure!(code == Some(2) && stderr.contains(said), "{args:?}: {code:?} {stderr}");
    }
    Ok(())
}
