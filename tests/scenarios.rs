//! Recorded nodes and the answers to questions about them: word for word in
//! `data/golden`, and here what must be true of each whatever the words.
//!
//! `UPDATE_GOLDEN=1 cargo test -p e2e --test scenarios` writes the answers anew.
//! Read the difference as the person on call would.

use std::collections::{BTreeMap, BTreeSet};
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
    case("kind", "20971", 0, |a| api_server(a, "cluster2", "172.18.0.4", 20971)),
    case("kind", "45381", 0, |a| api_server(a, "cluster1", "172.18.0.2", 45381)),
    case("kind", "8876", 0, |a| api_server(a, "cluster3", "172.18.0.3", 8876)),
    case("kind", "6443", 0, three_api_servers),
    case("kind", "2379", 0, etcd_of_each_cluster),
    case("kind", "2380", 0, |a| in_each_cluster(a, "etcd", 1)),
    case("kind", "10250", 0, kubelets),
    case("kind", "10257", 0, controller_managers),
    case("kind", "30518", 0, node_port_of_cluster1),
    case("kind", "30001", 0, published_and_nothing_behind),
    case("kind", "list", 0, |a| lists(a, &[("cluster1-control-plane", 30518, "kube-proxy")])),
    case("kind-wsl2", "20971", 0, desktop),
    case("kind-wsl2", "6443", 0, desktop_inner),
    case("kind-wsl2", "2379", 3, not_known),
    case("kind-wsl2", "list", 0, desktop_list),
    case("k3s", "6443", 0, |a| k3s(a, 1)),
    case("k3s", "2379", 0, |a| k3s(a, 2)),
    case("k3s", "10250", 0, |a| k3s(a, 1)),
    case("k3s", "10257", 0, k3s_on_loopback),
    case("k3s", "8472/udp", 0, vxlan),
    case("k3s", "4244", 0, cilium),
    case("k3s", "4245", 0, |a| port_forward(a, "svc/hubble-relay", 80)),
    case("k3s", "12000", 0, |a| port_forward(a, "svc/hubble-ui", 80)),
    case("k3s", "20971", 1, nothing),
    case("k3s", "51820/udp", 1, nothing),
    case("k3s", "80", 1, nothing),
    case("k3s", "list", 0, |a| {
        lists(a, &[("host", 6443, "k3s-server"), ("host", 4245, "kubectl")])
    }),
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

#[test]
fn recordings_hold_nothing_of_the_machine_they_were_made_on() -> Test {
    let nodes: BTreeSet<&str> = CASES.iter().map(|case| case.node).collect();
    for node in nodes {
        let text = std::fs::read_to_string(recording(node))?;
        ensure!(text.len() < 200_000, "{node} is {} bytes long", text.len());
        for word in ["/work/", "wp-", "/target/", "record-scenario"] {
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
    let mut command = Command::new(lab::binary()?);
    command.args(options).arg("--replay").arg(recording(case.node)).arg(case.question);
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

    /// From where, with which address, whether.
    fn reach(&self, from: &str) -> Vec<(Option<&str>, Option<bool>)> {
        items(&self.answer()["reachable"])
            .filter(|entry| entry["from"] == from)
            .map(|entry| (entry["address"].as_str(), entry["reachable"].as_bool()))
            .collect()
    }

    fn fixes(&self) -> String {
        items(&self.answer()["reachable"]).filter_map(|entry| entry["fix"].as_str()).collect()
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

/// The process at the end, and the cluster it belongs to.
fn serves(path: View<'_>, process: &str, cluster: &str) -> Test {
    let end = path.end();
    ensure!(path.ending() == "process" && end["process"]["name"] == process, "{end}");
    let named = &end["cluster"];
    ensure!(named["name"] == cluster && named["distribution"] == "kind", "{named}");
    ensure!(named["role"] == "control-plane", "{named}");
    let node = format!("{cluster}-control-plane");
    ensure!(end["containers"][0]["name"] == node.as_str(), "{end}");
    ensure!(end["containers"][0]["image"] == "kindest/node:v1.20.2", "{end}");
    Ok(())
}

fn api_server(answer: &Answer, cluster: &str, address: &str, port: u16) -> Test {
    let path = answer.path()?;
    let steps = path.steps();
    let expected = [
        format!("listener 127.0.0.1:{port}/tcp"),
        format!("forward {address}:6443/tcp"),
        "listener [::]:6443/tcp".to_owned(),
    ];
    ensure!(steps == expected, "{steps:?}");
    serves(path, "kube-apiserver", cluster)?;
    let pod = &path.end()["pod"];
    ensure!(pod["namespace"] == "kube-system", "{pod}");
    ensure!(pod["name"] == format!("kube-apiserver-{cluster}-control-plane"), "{pod}");
    ensure!(path.sources(1) == ["command line", "Docker API"], "{:?}", path.sources(1));
    answer.is_open("loopback", &format!("127.0.0.1:{port}"))?;
    answer.is_shut("outside")?;
    for other in ["cluster1", "cluster2", "cluster3"] {
        ensure!(other == cluster || !answer.text.contains(other), "{other} has no part in it");
    }
    Ok(())
}

/// As many listeners of `process` as `each` in every cluster, never merged.
fn in_each_cluster(answer: &Answer, process: &str, each: usize) -> Test {
    let mut count: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for path in answer.paths() {
        let cluster = path.end()["cluster"]["name"].as_str().context("no cluster")?;
        serves(path, process, cluster)?;
        ensure!(path.hops().len() == 1, "{:?}", path.steps());
        let name = format!("{cluster}-control-plane");
        ensure!(path.0["netns"]["name"] == name.as_str(), "{}", path.0["netns"]);
        let inode = path.hops()[0]["socket"]["inode"].as_u64().context("no inode")?;
        ensure!(count.entry(cluster).or_default().insert(inode), "one socket twice");
    }
    let counts: Vec<(&str, usize)> = count.iter().map(|(name, all)| (*name, all.len())).collect();
    ensure!(counts == [("cluster1", each), ("cluster2", each), ("cluster3", each)], "{counts:?}");
    Ok(())
}

fn three_api_servers(answer: &Answer) -> Test {
    in_each_cluster(answer, "kube-apiserver", 1)?;
    // Each by its own published port, and by its own address.
    for (port, address) in [(45381, "172.18.0.2"), (20971, "172.18.0.4"), (8876, "172.18.0.3")] {
        answer.is_open("loopback", &format!("127.0.0.1:{port}"))?;
        answer.is_open("node", &format!("{address}:6443"))?;
        answer.is_open("containers", &format!("{address}:6443"))?;
    }
    ensure!(answer.reach("loopback").len() == 3, "the host itself has no 6443");
    answer.is_shut("outside")
}

fn etcd_of_each_cluster(answer: &Answer) -> Test {
    in_each_cluster(answer, "etcd", 2)?;
    answer.is_shut("loopback")?;
    answer.is_shut("outside")?;
    answer.is_open("node", "172.18.0.4:2379")
}

fn kubelets(answer: &Answer) -> Test {
    in_each_cluster(answer, "kubelet", 1)?;
    answer.is_shut("loopback")?;
    answer.is_shut("outside")?;
    for path in answer.paths() {
        ensure!(items(&path.end()["containers"]).count() == 1, "kubelet is in no pod");
        ensure!(path.end()["pod"].is_null());
    }
    Ok(())
}

fn controller_managers(answer: &Answer) -> Test {
    in_each_cluster(answer, "kube-controller-manager", 1)?;
    ["loopback", "node", "outside", "containers"].iter().try_for_each(|from| answer.is_shut(from))
}

fn node_port_of_cluster1(answer: &Answer) -> Test {
    let path = answer.path()?;
    serves(path, "kube-proxy", "cluster1")?;
    ensure!(path.0["netns"]["name"] == "cluster1-control-plane");
    answer.is_shut("loopback")?;
    answer.is_shut("outside")?;
    answer.is_open("node", "172.18.0.2:30518")?;
    answer.is_open("containers", "172.18.0.2:30518")?;
    let fixes = answer.fixes();
    for word in ["extraPortMappings", "30518", "recreate", "kind-cluster1", "port-forward"] {
        ensure!(fixes.contains(word), "{word}: {fixes}");
    }
    ensure!(answer.text.contains("NodePort") && answer.text.contains("NAT rules"));
    Ok(())
}

fn published_and_nothing_behind(answer: &Answer) -> Test {
    let path = answer.path()?;
    let steps = path.steps();
    ensure!(steps == ["listener 0.0.0.0:30001/tcp", "forward 172.18.0.3:30000/tcp"], "{steps:?}");
    ensure!(path.ending() == "nothing" && path.pids().is_empty());
    ensure!(path.container() == Some("cluster3-control-plane"));
    ensure!(path.end()["cluster"]["name"] == "cluster3");
    ensure!(path.end()["why"].as_str().is_some_and(|why| why.contains("30000")));
    answer.is_shut("loopback")?;
    answer.is_shut("outside")?;
    ensure!(answer.fixes().contains("nodePort 30000"), "{}", answer.fixes());
    Ok(())
}

/// Docker Desktop: an owner exists and can't be seen; the name is Docker's word.
fn desktop(answer: &Answer) -> Test {
    let path = answer.path()?;
    ensure!(path.ending() == "outside_pid_namespace" && path.pids().is_empty());
    ensure!(path.container() == Some("cluster2-control-plane"));
    ensure!(path.end()["cluster"]["name"] == "cluster2");
    ensure!(path.steps() == ["listener 127.0.0.1:20971/tcp", "forward 172.18.0.4:6443/tcp"]);
    ensure!(path.sources(1) == ["Docker API"], "{:?}", path.sources(1));
    for words in ["an owner exists", "PID namespace", "Docker Desktop", "Docker API"] {
        ensure!(answer.text.contains(words), "{words} is not said");
    }
    answer.is_open("loopback", "127.0.0.1:20971")
}

fn desktop_inner(answer: &Answer) -> Test {
    let names: Vec<_> = answer.paths().iter().map(|path| path.container()).collect();
    let all = ["cluster1-control-plane", "cluster2-control-plane", "cluster3-control-plane"];
    ensure!(names == all.map(Some), "{names:?}");
    for path in answer.paths() {
        ensure!(path.ending() == "outside_pid_namespace" && path.pids().is_empty());
        ensure!(path.hops().iter().all(|hop| hop["kind"] != "listener"), "none is visible");
    }
    for port in [20971, 45381, 8876] {
        answer.is_open("loopback", &format!("127.0.0.1:{port}"))?;
    }
    ensure!(answer.text.contains("docker exec"));
    Ok(())
}

/// Not "nothing": what is inside the containers can't be seen.
fn not_known(answer: &Answer) -> Test {
    ensure!(answer.answer()["verdict"] == "unknown" && answer.paths().is_empty());
    ensure!(items(&answer.answer()["gaps"]).any(|gap| gap["impact"] == "port"));
    Ok(())
}

fn desktop_list(answer: &Answer) -> Test {
    let rows: Vec<&Value> = items(&answer.json["listeners"]).collect();
    ensure!(rows.len() == 4, "{} rows", rows.len());
    ensure!(rows.iter().all(|row| row["ending"] == "outside_pid_namespace"));
    Ok(())
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
    for row in rows {
        let kernel = row["port"] == 8472;
        ensure!(row["ending"] == if kernel { "kernel" } else { "process" }, "{row}");
        // Docker's resolver in each container is a socket of the daemon.
        ensure!(row["address"] != "127.0.0.11" || row["process"]["name"] == "dockerd", "{row}");
    }
    Ok(())
}

/// All in one process: the port alone must not name a component.
fn k3s(answer: &Answer, sockets: usize) -> Test {
    ensure!(answer.paths().len() == sockets);
    for path in answer.paths() {
        let end = path.end();
        ensure!(end["process"]["name"] == "k3s-server" && end["unit"] == "k3s.service", "{end}");
        ensure!(end["container"].is_null() && end["pod"].is_null(), "{end}");
        ensure!(path.0["netns"]["name"] == "host");
    }
    for component in ["etcd", "kubelet", "kube-apiserver", "kube-controller"] {
        ensure!(!answer.text.contains(component), "{component} is guessed");
    }
    if answer.answer()["query"]["first_port"] != 10257 {
        let port = &answer.answer()["query"]["first_port"];
        answer.is_open("outside", &format!("192.168.50.56:{port}"))?;
    }
    Ok(())
}

fn k3s_on_loopback(answer: &Answer) -> Test {
    k3s(answer, 1)?;
    answer.is_open("loopback", "127.0.0.1:10257")?;
    answer.is_shut("node")?;
    answer.is_shut("outside")
}

fn vxlan(answer: &Answer) -> Test {
    ensure!(!answer.paths().is_empty());
    for path in answer.paths() {
        ensure!(path.ending() == "kernel" && path.pids().is_empty());
        ensure!(path.hops()[0]["kind"] == "kernel");
        ensure!(path.sources(0).contains(&"rtnetlink"), "{:?}", path.sources(0));
        ensure!(path.end()["why"].as_str().is_some_and(|why| why.contains("cilium_vxlan")));
    }
    ensure!(!answer.text.to_lowercase().contains("flannel"), "8472 alone names nobody");
    answer.is_open("outside", "192.168.50.56:8472")
}

fn cilium(answer: &Answer) -> Test {
    let path = answer.path()?;
    let end = path.end();
    ensure!(end["process"]["name"] == "cilium-agent", "{end}");
    ensure!(path.0["netns"]["name"] == "host", "its pod has the host's network");
    ensure!(end["pod"]["uid"] == "b8f0f3d4-2b0c-4f6a-9a40-6a1c6d6f0a52", "{}", end["pod"]);
    ensure!(end["container"]["runtime"] == "containerd", "{}", end["container"]);
    // No containerd was there to name them: said, and not guessed.
    ensure!(end["pod"]["name"].is_null() && end["container"]["name"].is_null());
    ensure!(items(&answer.answer()["gaps"]).any(|gap| gap["impact"] == "name"));
    answer.is_open("outside", "192.168.50.56:4244")
}

fn port_forward(answer: &Answer, service: &str, port: u16) -> Test {
    let path = answer.path()?;
    let hops = path.hops();
    ensure!(hops.len() == 2 && hops[0]["address"] == "127.0.0.1", "{:?}", path.steps());
    ensure!(hops[1]["kind"] == "forward" && hops[1]["port"] == port, "{}", hops[1]);
    ensure!(hops[1]["name"].as_str().is_some_and(|name| name.ends_with(service)), "{}", hops[1]);
    ensure!(path.ending() == "elsewhere");
    let process = &path.end()["process"];
    ensure!(process["name"] == "kubectl" && process["ancestors"][0]["comm"] == "cilium");
    answer.is_shut("outside")
}

fn nothing(answer: &Answer) -> Test {
    ensure!(answer.answer()["verdict"] == "not_found" && answer.paths().is_empty());
    ensure!(items(&answer.answer()["gaps"]).next().is_none(), "{}", answer.answer()["gaps"]);
    Ok(())
}
