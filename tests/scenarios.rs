//! Recorded nodes and the answers to questions about them: word for word in
//! `data/golden`, and here what must be true of each whatever the words. `book` has the
//! examples of the README and the book.
//!
//! `UPDATE_GOLDEN=1 cargo test -p e2e scenarios::` writes the answers anew.
//! Read the difference as the person on call would.

mod book;
mod k3s;
mod k3s_api;
mod kernel;
mod kind;
mod kind_api;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use lab::{Test, View};
use serde_json::Value;

/// One question about a recorded node.
struct Case {
    /// The recording, `data/<node>.json`.
    node: &'static str,
    question: &'static str,
    /// The exit status.
    code: i32,
    /// What must be true of the answer.
    holds: fn(&Answer) -> Test,
}

const fn case(
    node: &'static str,
    question: &'static str,
    code: i32,
    holds: fn(&Answer) -> Test,
) -> Case {
    Case { node, question, code, holds }
}

/// An answer, or a list.
struct Answer {
    json: Value,
    text: String,
}

const CASES: &[Case] = &[
    case("kind", "20971", 0, |a| kind::api_server(a, "cluster2", "172.18.0.4", 20971)),
    case("kind", "45381", 0, |a| kind::api_server(a, "cluster1", "172.18.0.2", 45381)),
    case("kind", "8876", 0, |a| kind::api_server(a, "cluster3", "172.18.0.3", 8876)),
    case("kind", "6443", 0, kind::three_api_servers),
    case("kind", "2379", 0, kind::etcd_of_each_cluster),
    case("kind", "2380", 0, |a| kind::in_each_cluster(a, "etcd", 1)),
    case("kind", "10250", 0, kind::kubelets),
    case("kind", "10257", 0, kind::controller_managers),
    case("kind", "30518", 0, kind::node_port_of_cluster1),
    case("kind-1.24", "30518", 0, kind::node_port_of_cluster1),
    case("kind", "30001", 0, kind::published_and_nothing_behind),
    case("kind", "list", 0, |a| lists(a, &[("cluster1-control-plane", 30518, "kube-proxy")])),
    case("kind-api", "30518", 0, kind_api::node_port),
    case("kind-api", "20971", 0, |a| kind_api::api_server(a, "cluster2", "172.18.0.4", 20971)),
    case("kind-api", "6443", 0, |a| kind_api::in_both(a, "kube-apiserver", 1)),
    case("kind-api", "2379", 0, |a| kind_api::in_both(a, "etcd", 2)),
    case("kind-api", "8088", 0, kind_api::host_port),
    case("kind-api", "list", 0, |a| {
        lists(
            a,
            &[
                ("cluster1-control-plane", 30518, "kube-proxy"),
                ("cluster2-control-plane", 6443, "kube-apiserver"),
                ("host", 20971, "docker-proxy"),
            ],
        )
    }),
    case("kind-wsl2", "20971", 0, kind::desktop),
    case("kind-wsl2", "6443", 0, kind::desktop_inner),
    case("kind-wsl2", "2379", 3, kind::not_known),
    case("kind-wsl2", "list", 0, kind::desktop_list),
    case("k3s", "6443", 0, |a| k3s::k3s(a, 1)),
    case("k3s", "2379", 0, |a| k3s::k3s(a, 2)),
    case("k3s", "10250", 0, |a| k3s::k3s(a, 1)),
    case("k3s", "10257", 0, |a| k3s::on_loopback(a, 10257)),
    case("k3s", "8472/udp", 0, k3s::vxlan),
    case("k3s", "4244", 0, k3s::cilium),
    case("k3s", "4245", 0, |a| k3s::port_forward(a, "svc/hubble-relay", 80)),
    case("k3s", "12000", 0, |a| k3s::port_forward(a, "svc/hubble-ui", 80)),
    case("k3s", "20971", 1, nothing),
    case("k3s", "51820/udp", 1, nothing),
    case("k3s", "30995", 0, k3s::node_port),
    case("k3s", "80", 0, k3s::pod),
    case("k3s", "list", 0, |a| {
        lists(a, &[("host", 6443, "k3s-server"), ("host", 4245, "kubectl")])
    }),
    case("k3s-api", "30995", 0, k3s_api::node_port),
    case("k3s-api", "80", 0, k3s_api::pod),
    case("k3s-api", "8472/udp", 0, k3s_api::vxlan),
    case("k3s-api", "4244", 0, k3s_api::cilium),
    case("k3s-api", "4245", 0, k3s_api::relay),
    case("k3s-api", "12000", 0, |a| k3s::port_forward(a, "svc/hubble-ui", 80)),
    case("k3s-api", "8081", 0, k3s_api::ui),
    case("k3s-api", "6443", 0, k3s_api::api_server),
    case("k3s-api", "2379", 0, |a| k3s_api::server(a, 2)),
    case("k3s-api", "2380", 0, |a| k3s_api::server(a, 2)),
    case("k3s-api", "10250", 0, |a| k3s_api::server(a, 1)),
    case("k3s-api", "10248", 0, |a| k3s::on_loopback(a, 10248)),
    case("k3s-api", "10249", 0, |a| k3s::on_loopback(a, 10249)),
    case("k3s-api", "10256", 0, |a| k3s::on_loopback(a, 10256)),
    case("k3s-api", "10257", 0, |a| k3s::on_loopback(a, 10257)),
    case("k3s-api", "10259", 0, |a| k3s::on_loopback(a, 10259)),
    case("k3s-api", "20971", 1, nothing),
    case("k3s-api", "51820/udp", 1, nothing),
    case("k3s-api", "list", 0, |a| {
        lists(
            a,
            &[
                ("host", 6443, "k3s-server"),
                ("host", 4244, "cilium-agent"),
                ("host", 4245, "kubectl"),
            ],
        )
    }),
    case("linux-6.1", "51820/udp", 0, |a| {
        kernel::owns(a, "WireGuard interface wg0", "genetlink wireguard")
    }),
    case("linux-6.1", "6082/udp", 0, |a| kernel::owns(a, "GENEVE interface gnv0", "rtnetlink")),
    case("linux-6.1", "4790/udp", 0, |a| {
        kernel::owns(a, "VXLAN interface vx0 (VNI 5)", "rtnetlink")
    }),
    case("linux-6.1", "5555/udp", 0, |a| kernel::owns(a, "FOU receiver", "genetlink fou")),
    case("linux-6.1", "5556/udp", 0, |a| kernel::owns(a, "GUE receiver", "genetlink fou")),
    case("linux-6.1", "1701", 0, |a| kernel::owns(a, "L2TP tunnel 3000", "genetlink l2tp")),
    // Recorded before rules were: something in them may take the port.
    case("linux-6.1", "8472/udp", 3, kind::not_known),
];

#[test]
fn every_answer_holds_and_is_the_golden_one() -> Test {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut problems = Vec::new();
    let mut expected = BTreeSet::new();
    for case in CASES {
        let name = format!("{}-{}", case.node, case.question.replace('/', "-"));
        let text = ask(case, &["--color", "never"])?;
        let json = ask(case, &["--json"])?;
        let answer = Answer { json: serde_json::from_str(&json)?, text: text.clone() };
        if let Err(problem) = (case.holds)(&answer) {
            problems.push(format!("{name}: {problem:#}\n{text}"));
        }
        for (ending, now) in [("txt", text), ("json", json)] {
            let path = golden().join(format!("{name}.{ending}"));
            if update {
                std::fs::write(&path, &now)?;
            }
            let before = std::fs::read_to_string(&path).unwrap_or_default();
            if before != now {
                problems.push(format!("{} differs:\n{}", path.display(), changed(&before, &now)));
            }
            expected.insert(path);
        }
    }
    for entry in std::fs::read_dir(golden())? {
        let path = entry?.path();
        if !expected.contains(&path) {
            problems.push(format!("{} belongs to no question", path.display()));
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n\n"));
    Ok(())
}

/// Facts that the kernel, a runtime or an API gives in no order of its own.
const UNORDERED: &[&str] = &[
    "containers",
    "frontends",
    "kernel_ports",
    "netns",
    "owners",
    "processes",
    "rulesets",
    "settings",
    "sockets",
];

/// Turns lists of facts around that have no order of their own.
fn turn_around(recording: &mut Value) {
    fn read(one: &mut Value) -> Option<&mut Value> {
        match one.get("read").is_some() {
            true => one.get_mut("read")?.get_mut("value"),
            false => one.get_mut("value"),
        }
    }
    let Some(facts) = recording["facts"].as_object_mut() else { return };
    for (name, fact) in facts {
        let reads: Vec<&mut Value> = match fact {
            Value::Array(reads) => reads.iter_mut().collect(),
            one => vec![one],
        };
        for value in reads.into_iter().filter_map(read) {
            match value {
                Value::Array(list) if UNORDERED.contains(&name.as_str()) => list.reverse(),
                Value::Object(parts) if name == "owners" || name == "kube" => {
                    parts.values_mut().filter_map(Value::as_array_mut).for_each(|l| l.reverse());
                }
                _ => {}
            }
        }
    }
}

#[test]
fn no_answer_depends_on_the_order_of_facts() -> Test {
    let turned = tempfile::tempdir()?;
    let mut problems = Vec::new();
    for case in CASES {
        let file = turned.path().join(format!("{}.json", case.node));
        if !file.exists() {
            let mut recording =
                serde_json::from_str(&std::fs::read_to_string(recording(case.node))?)?;
            turn_around(&mut recording);
            std::fs::write(&file, serde_json::to_string(&recording)?)?;
        }
        for options in [&["--color", "never"][..], &["--json"]] {
            let (before, now) = (ask(case, options)?, ask_of(&file, case, options)?);
            if before != now {
                let difference = changed(&before, &now);
                problems.push(format!("{} {}: {difference}", case.node, case.question));
            }
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

#[test]
fn recordings_hold_nothing_of_the_machine_they_were_made_on() -> Test {
    let nodes: BTreeSet<&str> = CASES.iter().map(|case| case.node).collect();
    for node in nodes {
        let text = std::fs::read_to_string(recording(node))?;
        ensure!(text.len() < 200_000, "{node} is {} bytes long", text.len());
        for word in
            ["/work/", "wp-", "/target/", "record-scenario", "PRIVATE KEY", "BEGIN CERT", "oken"]
        {
            ensure!(!text.contains(word), "{word} is in {node}");
        }
        let recording: Value = serde_json::from_str(&text)?;
        let facts = &recording["facts"];
        ensure!(facts["host"]["value"]["hostname"] == "node1");
        // Nothing but the node's own processes and namespaces.
        let netns: Vec<&Value> = items(&facts["netns"]["value"]).map(|one| &one["id"]).collect();
        let processes = &facts["processes"][0]["read"]["value"];
        ensure!(items(processes).all(|process| netns.contains(&&process["netns"])), "{node}");
        ensure!(!netns.is_empty(), "{node} has no namespace");
    }
    Ok(())
}

/// What the tool prints about the recorded node.
fn ask(case: &Case, options: &[&str]) -> Result<String> {
    ask_of(&recording(case.node), case, options)
}

fn ask_of(recording: &Path, case: &Case, options: &[&str]) -> Result<String> {
    let mut command = Command::new(lab::binary()?);
    command.args(options).arg("--replay").arg(recording).arg(case.question);
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LC_ALL", "LC_CTYPE"] {
        command.env_remove(name);
    }
    let run = command.env("LANG", "C.UTF-8").stdin(Stdio::null()).output()?;
    let stderr = String::from_utf8_lossy(&run.stderr);
    ensure!(
        run.status.code() == Some(case.code) && stderr.is_empty(),
        "{} of {}: exit {:?} instead of {}: {stderr}{}",
        case.question,
        case.node,
        run.status.code(),
        case.code,
        String::from_utf8_lossy(&run.stdout)
    );
    String::from_utf8(run.stdout).context("the output is no UTF-8")
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

fn golden() -> PathBuf {
    data().join("golden")
}

fn recording(node: &str) -> PathBuf {
    data().join(format!("{node}.json"))
}

/// The first line that differs, with what it was.
fn changed(before: &str, now: &str) -> String {
    if before.is_empty() {
        return "it is not there: UPDATE_GOLDEN=1 writes it".to_owned();
    }
    let mut lines = before.lines().zip(now.lines()).enumerate();
    match lines.find(|(_, (before, now))| before != now) {
        Some((at, (before, now))) => format!("line {}\n- {before}\n+ {now}", at + 1),
        None => "one has more lines than the other".to_owned(),
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

impl Answer {
    fn answer(&self) -> &Value {
        &self.json["answers"][0]
    }

    fn paths(&self) -> Vec<View<'_>> {
        items(&self.answer()["paths"]).map(View).collect()
    }

    fn path(&self) -> Result<View<'_>> {
        let paths = self.paths();
        ensure!(paths.len() == 1, "{} paths", paths.len());
        Ok(paths[0])
    }

    /// The one that begins at a listener.
    fn listener(&self) -> Result<View<'_>> {
        let is_it = |path: &View<'_>| path.0["hops"][0]["kind"] == "listener";
        let found: Vec<View<'_>> = self.paths().into_iter().filter(is_it).collect();
        ensure!(found.len() == 1, "{} listeners", found.len());
        Ok(found[0])
    }

    /// From where, with which address, whether; without those that need a route over the node.
    fn reach(&self, from: &str) -> Vec<(Option<&str>, Option<bool>)> {
        let routed = |entry: &&Value| items(&entry["conditions"]).any(|c| c["code"] == "route");
        items(&self.answer()["reachable"])
            .filter(|entry| entry["from"] == from && !routed(entry))
            .map(|entry| (entry["address"].as_str(), entry["reachable"].as_bool()))
            .collect()
    }

    fn fixes(&self) -> String {
        items(&self.answer()["reachable"])
            .filter_map(|entry| entry["fix"]["text"].as_str())
            .collect()
    }

    /// Nobody gets there from `from`.
    fn is_shut(&self, from: &str) -> Test {
        let entries = self.reach(from);
        let shut = !entries.is_empty() && entries.iter().all(|entry| entry.1 == Some(false));
        ensure!(shut, "{from}: {entries:?}");
        Ok(())
    }

    fn is_open(&self, from: &str, address: &str) -> Test {
        let entries = self.reach(from);
        ensure!(entries.contains(&(Some(address), Some(true))), "{from} {address}: {entries:?}");
        Ok(())
    }
}

/// Listeners by namespace, port and process, no row with an owner unknown.
fn lists(answer: &Answer, expected: &[(&str, u16, &str)]) -> Test {
    let rows: Vec<&Value> = items(&answer.json["listeners"]).collect();
    for (netns, port, process) in expected {
        let found = rows.iter().any(|row| {
            row["netns"]["name"] == *netns
                && row["port"] == *port
                && row["process"]["name"] == *process
        });
        ensure!(found, "no {process} on {port} in {netns}");
    }
    // A port that rules alone hold has nobody who owns it.
    for row in rows.into_iter().filter(|row| row["kind"] == "listener") {
        let kernel = row["port"] == 8472;
        ensure!(row["ending"] == if kernel { "kernel" } else { "process" }, "{row}");
        // Docker's resolver in each container is a socket of the daemon.
        ensure!(row["address"] != "127.0.0.11" || row["process"]["name"] == "dockerd", "{row}");
    }
    Ok(())
}

fn nothing(answer: &Answer) -> Test {
    ensure!(answer.answer()["verdict"] == "not_found" && answer.paths().is_empty());
    // These nodes were recorded when only listeners were: nothing more is said to be sure.
    let gaps = &answer.answer()["gaps"];
    ensure!(items(gaps).all(|gap| gap["impact"] == "bind"), "{gaps}");
    ensure!(!answer.text.contains("all that could hold it"), "{}", answer.text);
    Ok(())
}
