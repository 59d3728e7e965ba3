//! Screens of recorded nodes, after keys, word for word in `data/screens`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p e2e screens::` (or `cargo xtask screens`) writes
//! them anew. Look at the difference as at a screen.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use lab::Test;

/// A recorded node, keys, and what must be on the screen then.
struct Case {
    name: &'static str,
    node: &'static str,
    keys: &'static str,
    has: &'static [&'static str],
}

const fn case(
    name: &'static str,
    node: &'static str,
    keys: &'static str,
    has: &'static [&'static str],
) -> Case {
    Case { name, node, keys, has }
}

/// A small terminal, a usual one, a large one.
const SIZES: [&str; 3] = ["80x24", "120x40", "240x60"];

const CASES: &[Case] = &[
    case("ports", "kind", "", &["kube-a", "etcd", "cluster1"]),
    case("by-cluster", "kind", "g g g g z", &["cluster1", "cluster2", "(no cluster)"]),
    case("filter", "kind", "/ c l u s t e r : c l u s t e r 2 enter", &["cluster2"]),
    case("api-server", "kind", ": 2 0 9 7 1 enter enter", &["172.18.0.4:6443", "cluster2"]),
    case(
        "node-port",
        "kind",
        ": 3 0 5 1 8 enter enter",
        &["nginx-app", "reachable from this host"],
    ),
    case("evidence", "kind", ": 3 0 5 1 8 enter enter v", &["KUBE-NODEPORTS"]),
    case("hop", "kind", ": 2 0 9 7 1 enter enter ] ] ] enter", &["kube-a"]),
    case("unknown", "kind", ": p o r t space 4 enter", &["nothing listens on"]),
    case("events", "kind", "3", &["a recorded node"]),
    case("sources", "kind", "4", &["host", "sources"]),
    case("help", "kind", "?", &["show the keys"]),
    case("ports", "k3s", "", &["k3s"]),
    case("service", "k3s", ": 3 0 9 9 5 enter enter", &["30995"]),
    case("sources", "k3s", "4", &["node1", "sources"]),
    case("ports", "kind-wsl2", "s s s", &["outside PID ns"]),
    case("path", "kind-wsl2", "enter", &["outside this PID namespace"]),
];

#[test]
fn every_screen_is_the_golden_one() -> Test {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut problems = Vec::new();
    let mut expected = BTreeSet::new();
    for case in CASES {
        for size in SIZES {
            let name = format!("{}-{}-{size}", case.node, case.name);
            let screen = printed(&["--replay", &recording(case.node)], size, case.keys)?;
            for word in case.has {
                if !screen.contains(word) {
                    problems.push(format!("{name} has no {word:?}:\n{screen}"));
                }
            }
            let (columns, lines) = size.split_once('x').context("a size")?;
            let widest = screen.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            ensure!(widest <= columns.parse()?, "{name} is {widest} columns wide");
            ensure!(screen.lines().count() == lines.parse::<usize>()?, "{name}: {screen}");
            let path = golden().join(format!("{name}.txt"));
            if update {
                std::fs::create_dir_all(golden())?;
                std::fs::write(&path, &screen)?;
            }
            let before = std::fs::read_to_string(&path).unwrap_or_default();
            if before != screen {
                problems.push(format!("{} differs:\n{before}\nnow:\n{screen}", path.display()));
            }
            expected.insert(path);
        }
    }
    for entry in std::fs::read_dir(golden())? {
        let path = entry?.path();
        if !expected.contains(&path) {
            problems.push(format!("{} belongs to no case", path.display()));
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n\n"));
    Ok(())
}

#[test]
fn a_terminal_without_utf8_gets_ascii() -> Test {
    for keys in ["", ": 3 0 5 1 8 enter enter v", "g g", "?"] {
        let mut command = tui(&["--demo"], "120x40", keys)?;
        let screen = command.env("LANG", "C").output()?.stdout;
        ensure!(screen.is_ascii(), "{keys}: {}", String::from_utf8_lossy(&screen));
        ensure!(screen.len() > 500, "{keys}");
    }
    Ok(())
}

#[test]
fn the_demo_needs_no_rights() -> Test {
    lab::root_or_skip!();
    let lab = lab::Lab::new()?;
    let run = lab.tool().uid(65534).args(&["tui", "--demo", "--print", "80x24"]).run()?;
    ensure!(run.code == Some(0) && run.stdout.contains("kube-a"), "{}", run.stdout);
    Ok(())
}

fn printed(node: &[&str], size: &str, keys: &str) -> Result<String> {
    let output = tui(node, size, keys)?.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && stderr.is_empty(), "{node:?} {size} {keys}: {stderr}");
    Ok(String::from_utf8(output.stdout)?)
}

fn tui(node: &[&str], size: &str, keys: &str) -> Result<Command> {
    let mut command = Command::new(lab::binary()?);
    command.arg("tui").args(node).args(["--print", size]);
    if !keys.is_empty() {
        command.arg("--keys").args(keys.split(' '));
    }
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LC_ALL", "LC_CTYPE", "HOME"] {
        command.env_remove(name);
    }
    command.env("LANG", "C.UTF-8").stdin(Stdio::null());
    Ok(command)
}

fn recording(node: &str) -> String {
    format!("{}/data/{node}.json", env!("CARGO_MANIFEST_DIR"))
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/screens")
}
