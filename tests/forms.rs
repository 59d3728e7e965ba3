//! The forms of answers and lists that other programs read: each is read by one of them.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, Test};
use serde_json::Value;

/// What the tool prints about a recorded node.
fn recorded(node: &str, args: &[&str]) -> Result<(Option<i32>, String, String)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("data/{node}.json"));
    let mut command = Command::new(lab::binary()?);
    command.arg("--replay").arg(file).args(args).env("LANG", "C.UTF-8").stdin(Stdio::null());
    let run = command.output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((run.status.code(), text(run.stdout), text(run.stderr)))
}

/// What it prints where it finds something.
fn found(node: &str, args: &[&str]) -> Result<String> {
    let (code, stdout, stderr) = recorded(node, args)?;
    ensure!(code == Some(0) && stderr.is_empty(), "{args:?}: {code:?}: {stderr}");
    Ok(stdout)
}

/// What a program makes of some text.
fn read_by(program: &str, args: &[&str], text: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    let text = text.to_owned();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    ensure!(
        output.status.success(),
        "{program}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What it prints of a lab.
fn shown(lab: &Lab, args: &[&str]) -> Result<String> {
    Ok(lab.tool().arg("--no-kube").args(args).run()?.stdout)
}

const NODES: [&str; 5] = ["kind", "kind-api", "k3s", "k3s-api", "linux-6.1"];

#[test]
fn one_line_a_port_with_ten_fields() -> Test {
    let (code, text, _) = recorded("kind-api", &["-q", "20971/tcp", "30518", "6443", "1/tcp"])?;
    ensure!(code == Some(1), "{code:?}");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    ensure!(lines.len() == 4 && lines.iter().all(|line| line.len() == 10), "{text}");
    ensure!(
        lines[0][..2] == ["20971/tcp", "kube-apiserver"] && lines[0][7] == "loopback",
        "{text}"
    );
    ensure!(lines[1][0] == "30518/tcp" && lines[1][3].contains('.'), "{text}");
    let none = ["1/tcp", "-", "-", "-", "-", "-", "-", "-", "not_found", "0"];
    ensure!(lines[3] == none, "{text}");
    // Of one sender the verdict is what it gets.
    let from = found("kind-api", &["-q", "20971/tcp", "--from", "127.0.0.1"]).unwrap_or_default();
    ensure!(from.is_empty() || from.split(' ').nth(7) == Some("-"), "{from}");
    Ok(())
}

#[test]
fn hostile_names_do_not_break_lines() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _held = lab.listen_like(lab.host(), "tcp 127.0.0.1:21701", &["a b\\c\td"])?;
    let run = shown(&lab, &["-q", "21701/tcp"])?;
    let line = run.lines().next().context("nothing")?;
    let fields: Vec<&str> = line.split(' ').collect();
    ensure!(fields.len() == 10 && fields[0] == "21701/tcp", "{run}");
    ensure!(fields[7..9] == ["loopback", "found"], "{run}");
    let name = Command::new("bash").args(["-c", "printf %b \"$1\"", "bash", fields[1]]).output()?;
    let name = String::from_utf8_lossy(&name.stdout).into_owned();
    ensure!(!fields[1].contains(['\t', ' ']) && name.contains("a b\\c"), "{name:?} in {run}");
    Ok(())
}

#[test]
fn how_far_away_a_port_is_reached_from_is_what_a_question_says() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let here = "tcp 127.0.0.1:21711 tcp 0.0.0.0:21712 udp 0.0.0.0:21713";
    let _held = lab.listen(lab.host(), here)?;
    let text = shown(
        &lab,
        &[
            "list",
            "--netns",
            &lab.host().inode.to_string(),
            "-O",
            "port,reach",
            "-s",
            "reach:desc",
            "--no-headers",
        ],
    )?;
    for port in ["21711", "21712", "21713"] {
        let row = text.lines().find(|line| line.contains(port)).context("no row")?;
        let proto = if port == "21713" { "udp" } else { "tcp" };
        let asked = shown(&lab, &["-q", &format!("{port}/{proto}")])?;
        let reach = asked.split(' ').nth(7).context("no reach")?;
        ensure!(row.split_whitespace().nth(1) == Some(reach), "{row} but {asked}");
    }
    let only = shown(&lab, &["list", "-w", "reach=loopback", "-w", "port=21711", "--no-headers"])?;
    ensure!(only.lines().next().is_some_and(|line| line.contains("21711")), "{only}");
    Ok(())
}

#[test]
fn a_node_port_is_one_row_and_says_what_it_is() -> Test {
    for (node, port) in [("kind-1.24", "30518"), ("k3s-api", "30995")] {
        let args =
            ["list", "-w", "kind=NodePort", "-O", "port,kind,service,target", "--no-headers"];
        let text = found(node, &args)?;
        let rows: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
        let of_port: Vec<&&str> = rows.iter().filter(|row| row.contains(port)).collect();
        ensure!(of_port.len() == 1, "{node}: {text}");
        ensure!(of_port[0].contains("NodePort") && of_port[0].contains('/'), "{node}: {text}");
    }
    let json: Value = serde_json::from_str(&found("kind-1.24", &["list", "--json"])?)?;
    let rows = json["listeners"].as_array().context("no rows")?;
    ensure!(rows.iter().any(|row| row["port_kind"] == "node_port" && row["port"] == 30518));
    ensure!(rows.iter().all(|row| row["reach"].is_null()), "it was not asked for");
    Ok(())
}

#[test]
fn yaml_is_what_json_says() -> Test {
    let has = Command::new("python3").args(["-c", "import yaml"]).output();
    if !has.is_ok_and(|run| run.status.success()) {
        lab::skip("python3's yaml is not there (package python3-yaml)");
        return Ok(());
    }
    let program =
        "import json, sys, yaml\nprint(json.dumps(yaml.safe_load(sys.stdin), sort_keys=True))";
    for node in NODES {
        for args in [&["list"][..], &["6443"], &["10250/tcp"]] {
            let [json, text] = [&["--json"][..], &["-o", "yaml"]]
                .map(|form| recorded(node, &[args, form].concat()).map(|(_, stdout, _)| stdout));
            let as_json = read_by("python3", &["-c", program], &text?)?;
            let (one, other): (Value, Value) =
                (serde_json::from_str(&json?)?, serde_json::from_str(&as_json)?);
            ensure!(one == other, "{node} {args:?}");
        }
    }
    Ok(())
}

#[test]
fn prometheus_takes_the_metrics() -> Test {
    if !lab::has("promtool") {
        lab::skip("promtool is not installed (package prometheus)");
        return Ok(());
    }
    for node in NODES {
        let text = found(node, &["list", "-o", "openmetrics", "-O", "reach"])?;
        ensure!(text.contains("whereis_port_listeners{") && text.contains("whereis_port_reach{"));
        ensure!(text.ends_with("# EOF\n"), "{text}");
        let said = read_by("promtool", &["check", "metrics"], &text)?;
        ensure!(said.is_empty(), "{node}: {said}");
    }
    Ok(())
}

#[test]
fn templates_are_strict_and_say_where_they_are_wrong() -> Test {
    let text = found("k3s", &["list", "-t", "--template", "{{ port }} {{ process }}"])?;
    ensure!(text.lines().any(|line| line == "6443 k3s-server"), "{text}");
    for (template, line) in [("{{ port }}\n{{ nosuch }}", "line 2"), ("{% if %}", "line 1")] {
        let (code, stdout, stderr) = recorded("k3s", &["list", "--template", template])?;
        ensure!(code == Some(2) && stdout.is_empty() && stderr.contains(line), "{code:?} {stderr}");
    }
    let (code, _, stderr) = recorded("k3s", &["list", "--template", "@/nonexistent"])?;
    ensure!(code == Some(2) && stderr.contains("/nonexistent"), "{stderr}");
    Ok(())
}

#[test]
fn pictures_are_read_by_who_reads_such() -> Test {
    let well_formed =
        "import sys, xml.etree.ElementTree as e\nprint(len(list(e.parse(sys.stdin).iter())))";
    for node in NODES {
        for args in [&["list"][..], &["6443"], &["10250"], &["30518"]] {
            let picture =
                |form| Ok::<_, anyhow::Error>(recorded(node, &[args, &["-o", form]].concat())?.1);
            let count = read_by("python3", &["-c", well_formed], &picture("svg")?)?;
            ensure!(count.trim().parse::<usize>()? >= 3, "{node} {args:?}: {count}");
            ensure!(picture("mermaid")?.starts_with("flowchart LR\n"), "{node} {args:?}");
            if lab::has("dot") {
                let svg = read_by("dot", &["-Tsvg"], &picture("dot")?)?;
                ensure!(svg.contains("<svg"), "{node} {args:?}");
            }
        }
    }
    if !lab::has("dot") {
        lab::skip("dot is not installed (package graphviz)");
    }
    Ok(())
}

#[test]
fn the_picture_of_the_book_is_what_the_tool_draws() -> Test {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no sources")?;
    let file = root.join("docs/src/reference/way.svg");
    let drawn = found("kind-1.24", &["30518", "-o", "svg"])?;
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &drawn)?;
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    ensure!(kept == drawn, "{} is another one: UPDATE_GOLDEN=1 writes it", file.display());
    Ok(())
}

/// The program as a shell asks it.
fn completer(lab: &Lab, uid: Option<u32>, words: &[&str]) -> Result<Command> {
    // Nothing may stand before the word by which it is asked: the time that tests give it goes.
    let script = r#"tool=$1; shift 3; exec "$tool" "$@""#;
    let tool = lab.tool().through(&["sh", "-c", script, "sh"]);
    // A machine that runs all tests at once is slow.
    let tool = tool.env("WHEREIS_PORT_COMPLETE_MS", "20000");
    let tool = match uid {
        Some(uid) => tool.uid(uid),
        None => tool,
    };
    tool.arg("__complete").args(words).command()
}

/// What the program offers behind these words.
fn offered(lab: &Lab, words: &[&str]) -> Result<String> {
    let mut command = completer(lab, None, words)?;
    let begun = Instant::now();
    let run = command.stdin(Stdio::null()).output()?;
    ensure!(run.stderr.is_empty() && run.status.code() == Some(0), "{run:?}");
    // Far more than it takes: one that waits for anything takes for ever.
    ensure!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}

#[test]
fn what_is_on_the_node_is_offered() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let held = lab.listen(&other, "tcp 127.0.0.1:21721")?;
    let has = |words: &[&str], name: &str| -> Result<bool> {
        let text = offered(&lab, words)?;
        Ok(text.lines().any(|line| line.split('\t').next() == Some(name)))
    };
    ensure!(has(&["2172"], "21721")?, "a port");
    ensure!(has(&["list", "--netns", ""], &other.name)?, "a namespace");
    ensure!(has(&["8080", "--from", "netns:"], &format!("netns:{}", other.name))?, "a sender");
    ensure!(has(&["list", "--pid", ""], &held.pid.to_string())?, "a process");
    ensure!(has(&["list", "-O", "port,serv"], "port,service")?, "a column");
    ensure!(offered(&lab, &["list", "-o", ""])?.is_empty(), "nothing of a node");
    // Who may read nothing is offered what there is without a word.
    let mut command = completer(&lab, Some(65534), &["--netns", ""])?;
    let run = command.stdin(Stdio::null()).output()?;
    ensure!(run.stderr.is_empty() && run.status.code() == Some(0), "{run:?}");
    Ok(())
}

/// What a shell prints that runs this behind the script of its completions.
fn in_shell(shell: &str, args: &[&str], script: &str) -> Result<String> {
    let binary = lab::binary()?;
    let own = Command::new(binary).args(["completions", shell]).output()?;
    let own = String::from_utf8(own.stdout)?;
    let script =
        script.replace("SCRIPT", &own).replace("TOOL", binary.to_str().context("no path")?);
    let run = Command::new(shell).args(args).arg("-c").arg(script).stdin(Stdio::null()).output()?;
    if !run.stderr.is_empty() {
        bail!("{shell}: {}", String::from_utf8_lossy(&run.stderr));
    }
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}

#[test]
fn shells_offer_what_the_program_knows() -> Test {
    let bash = in_shell(
        "bash",
        &["--norc"],
        "SCRIPT
         ask() { COMP_LINE=\"$*\"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=($*); COMP_CWORD=$((${#COMP_WORDS[@]}-1))
                 _whereis_port_node TOOL \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"
                 printf '%s\\n' \"${COMPREPLY[@]}\"; }
         ask TOOL list -O port,serv; ask TOOL 8080 --from contai; ask TOOL docto",
    )?;
    for name in ["port,service", "container:", "doctor"] {
        ensure!(bash.lines().any(|line| line == name), "{name}: {bash}");
    }
    if lab::has("zsh") {
        let zsh = in_shell(
            "zsh",
            &["-f"],
            "compdef() { :; }; compadd() { print -l -- $names; }
             SCRIPT
             _whereis-port_static() { print static; }
             words=(TOOL list -O port,serv); CURRENT=4; _whereis-port
             words=(TOOL docto); CURRENT=2; _whereis-port",
        )?;
        ensure!(zsh == "port,service\nstatic\n", "{zsh}");
    } else {
        lab::skip("zsh is not installed");
    }
    if lab::has("fish") {
        let directory = lab::binary()?.parent().context("no path")?.to_owned();
        let fish = in_shell(
            "fish",
            &["--no-config"],
            &format!(
                "set -x PATH {} $PATH
                 SCRIPT
                 complete -C 'whereis-port list -O port,serv'; complete -C 'whereis-port docto'",
                directory.display()
            ),
        )?;
        ensure!(fish.contains("port,service\t") && fish.contains("doctor"), "{fish}");
    } else {
        lab::skip("fish is not installed");
    }
    Ok(())
}
