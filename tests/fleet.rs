//! A whole cluster, asked through agents.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::fleet::{Does, FakeFleet, Has, answer, crowd, nothing, service_path};
use lab::{Lab, Test};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A cluster, and how to ask it.
struct Cluster {
    fleet: FakeFleet,
    dir: TempDir,
    kubeconfig: PathBuf,
}

/// What asking gave.
pub(crate) struct Asked {
    code: Option<i32>,
    lines: Vec<Value>,
    pub(crate) text: String,
    stderr: String,
}

impl Cluster {
    fn of(nodes: impl IntoIterator<Item = (String, Has)>) -> Result<Self> {
        let dir = TempDir::new()?;
        let fleet = FakeFleet::start(dir.path(), nodes)?;
        let kubeconfig = fleet.kubeconfig(dir.path())?;
        Ok(Self { fleet, dir, kubeconfig })
    }

    fn tool(&self) -> Result<Command> {
        let mut tool = Command::new(lab::binary()?);
        tool.env("HOME", self.dir.path()).env("KUBECONFIG", &self.kubeconfig);
        tool.env("LC_ALL", "C.UTF-8").arg("cluster");
        Ok(tool)
    }

    fn ask(&self, args: &[&str]) -> Result<Asked> {
        asked(self.tool()?.args(args))
    }

    fn json(&self, args: &[&str]) -> Result<Asked> {
        asked(self.tool()?.arg("--json").args(args))
    }
}

pub(crate) fn asked(command: &mut Command) -> Result<Asked> {
    let Output { status, stdout, stderr } = command.output()?;
    let text = String::from_utf8(stdout)?;
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let stderr = String::from_utf8(stderr)?;
    Ok(Asked { code: status.code(), lines, text, stderr })
}

impl Asked {
    pub(crate) fn exits(&self, code: i32) -> Result<&Self> {
        ensure!(
            self.code == Some(code),
            "{:?}, not {code}: {} {}",
            self.code,
            self.text,
            self.stderr
        );
        Ok(self)
    }

    /// The last line, with what all nodes say.
    pub(crate) fn cluster(&self) -> Result<&Value> {
        let last = self.lines.last().context("there is no line")?;
        ensure!(last["type"] == "cluster", "{last}");
        Ok(last)
    }

    /// Why nodes did not answer, by node.
    pub(crate) fn failures(&self) -> Result<BTreeMap<&str, &str>> {
        let nodes = self.cluster()?["nodes"].as_array().context("no nodes")?;
        let failed = nodes.iter().filter(|node| node["answered"] == false);
        Ok(failed
            .filter_map(|node| Some((node["node"].as_str()?, node["failure"]["kind"].as_str()?)))
            .collect())
    }
}

fn one(does: Does) -> Vec<(String, Has)> {
    vec![("n1".to_owned(), Has::Agent(does))]
}

pub(crate) fn says(text: Arc<str>) -> Does {
    Does::Says(text, 0)
}

/// What an agent would print that is asked the same on a recorded node.
fn golden(name: &str) -> Result<Arc<str>> {
    let file = format!("{}/data/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    Ok(std::fs::read_to_string(file)?.into())
}

#[test]
fn two_hundred_nodes_give_one_answer() -> Test {
    let cluster = Cluster::of(crowd::crowd())?;
    let asked = cluster.json(&["30518", "--timeout", "6s"])?;
    asked.exits(0)?;
    let all = asked.cluster()?;
    let groups = all["answers"][0]["groups"].as_array().context("no groups")?;
    let group = groups.iter().find(|g| g["service"]["name"] == "web").context("no group")?;
    let entries = group["entries"].as_array().context("no entries")?;
    let sizes: Vec<usize> =
        entries.iter().filter_map(|e| Some(e["nodes"].as_array()?.len())).collect();
    // n000 to n179 and n199 agree; two have old rules.
    ensure!(sizes == [181, 2], "{sizes:?}");
    ensure!(entries[1]["nodes"] == json!(["n180", "n181"]), "{}", entries[1]);
    let pods: Vec<&Value> = entries[0]["backends"]
        .as_array()
        .context("no backends")?
        .iter()
        .map(|b| &b["pod"])
        .collect();
    ensure!(pods == ["web-0", "web-1", "web-2"], "each by the node that has it: {pods:?}");
    ensure!(group["missing_on"] == json!(["n182", "n183", "n196"]), "{}", group["missing_on"]);
    ensure!(all["answers"][0]["nothing_on"] == json!(["n182", "n183"]), "{all}");
    ensure!(all["answers"][0]["unsure_on"][0]["node"] == "n184", "{all}");
    let expected = BTreeMap::from([
        ("n185", "no_agent"),
        ("n186", "not_ready"),
        ("n187", "cut"),
        ("n188", "timeout"),
        ("n189", "too_long"),
        ("n190", "failed"),
        ("n191", "other_version"),
        ("n192", "not_an_answer"),
        ("n193", "failed"),
        ("n194", "forbidden"),
        ("n195", "unreachable"),
        ("n197", "cut"),
        ("n198", "not_an_answer"),
    ]);
    ensure!(asked.failures()? == expected, "{:?}", asked.failures()?);
    let lines = asked.lines.iter().filter(|line| line["type"] == "node").count();
    ensure!(lines == crowd::NODES, "a line for each node, as they come: {lines}");
    let peak = cluster.fleet.peak();
    ensure!((10..=50).contains(&peak), "{peak} at once");
    let commands = cluster.fleet.commands();
    ensure!(commands.iter().all(|c| *c == ["whereis-port", "--json", "30518"]), "{commands:?}");
    Ok(())
}

#[test]
fn who_differs_and_who_is_silent_is_seen_at_a_glance() -> Test {
    let cluster = Cluster::of(crowd::crowd())?;
    let asked = cluster.ask(&["30518", "--timeout", "3s", "--color", "never"])?;
    asked.exits(0)?;
    for part in [
        "30518/tcp  Service default/web port http: NodePort of Service default/web",
        "on 181 of 187 nodes: n000",
        "→ 10.244.0.5:80 pod default/web-0, nginx",
        "differs on 2 nodes: n180, n181",
        "→ 10.244.9.9:80",
        "missing on 3 nodes: n182, n183, n196",
        "can't tell: n184: packet rules: refused",
        "not answered, 13 of 200 nodes:",
        "n185: no agent's pod is on it; fix: whereis-port cluster manifest",
        "n186: its agent POD is not ready: ImagePullBackOff",
        "n188: no complete answer within 3 s; fix: allow more with --timeout",
        "n194: the API refuses it (403)",
        "cannot create resource \"pods/exec\"",
    ] {
        ensure!(asked.text.contains(part), "{part:?} is missing in:\n{}", asked.text);
    }
    let hostile = |c: char| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
    ensure!(!asked.text.chars().any(hostile), "{:?}", asked.text);
    ensure!(asked.stderr.is_empty(), "no terminal, no progress: {}", asked.stderr);
    Ok(())
}

#[test]
fn the_order_in_which_nodes_answer_does_not_matter() -> Test {
    let in_order = |delay: fn(u64) -> u64| -> Result<Value> {
        let nodes = (0..12).map(|n| {
            let pod = (n % 4 == 0).then(|| format!("web-{n}"));
            let address = format!("10.244.0.{}", n % 3);
            let text = answer("n", &[service_path(30518, "web", &address, pod.as_deref())]);
            let does = Does::After(Duration::from_millis(delay(n) * 60), Box::new(says(text)));
            (crowd::name(n as usize), Has::Agent(does))
        });
        let asked = Cluster::of(nodes)?.json(&["30518"])?;
        let first = asked.lines.first().context("no line")?["node"].clone();
        Ok(json!([first, asked.cluster()?["answers"]]))
    };
    let (forth, back) = (in_order(|n| n)?, in_order(|n| 12 - n)?);
    ensure!(forth[0] != back[0], "both began with {}", forth[0]);
    ensure!(forth[1] == back[1], "{forth}\n{back}");
    Ok(())
}

#[test]
fn what_the_tool_really_prints_is_merged() -> Test {
    let nodes = [
        ("a".to_owned(), Has::Agent(says(golden("k3s-30995")?))),
        ("b".to_owned(), Has::Agent(says(golden("k3s-30995")?))),
        ("c".to_owned(), Has::Agent(Does::Says(nothing("c", true), 1))),
    ];
    let asked = Cluster::of(nodes)?.json(&["30995"])?;
    let group = &asked.exits(0)?.cluster()?["answers"][0]["groups"][0];
    ensure!(
        group["service"]["name"] == "my-nginx" && group["missing_on"] == json!(["c"]),
        "{group}"
    );
    ensure!(group["entries"][0]["nodes"] == json!(["a", "b"]), "{group}");
    let addresses: Vec<&Value> = group["entries"][0]["backends"]
        .as_array()
        .context("no backends")?
        .iter()
        .map(|backend| &backend["address"])
        .collect();
    ensure!(addresses == ["10.42.0.202:80", "10.42.1.188:80"], "{addresses:?}");
    Ok(())
}

#[test]
fn surely_nothing_is_said_only_when_every_node_said_so() -> Test {
    let no = |name: &str| (name.to_owned(), Has::Agent(Does::Says(nothing(name, true), 1)));
    let all = Cluster::of([no("a"), no("b")])?.ask(&["30518"])?;
    ensure!(all.exits(1)?.text.contains("surely nothing, on 2 nodes"), "{}", all.text);
    let hangs = ("c".to_owned(), Has::Agent(Does::Hangs));
    let silent = Cluster::of([no("a"), hangs])?.ask(&["30518", "--timeout", "500ms"])?;
    ensure!(
        silent.exits(3)?.text.contains("c: no complete answer within 500 ms"),
        "{}",
        silent.text
    );
    let unsure = ("d".to_owned(), Has::Agent(Does::Says(nothing("d", false), 3)));
    Cluster::of([no("a"), unsure])?.json(&["30518"])?.exits(3)?;
    Cluster::of([no("a"), ("e".to_owned(), Has::Nothing)])?.json(&["30518"])?.exits(3)?;
    Ok(())
}

#[test]
fn no_agent_at_all_says_how_to_get_them() -> Test {
    let asked = Cluster::of([("a".to_owned(), Has::Nothing)])?.ask(&["30518"])?;
    ensure!(
        asked.exits(3)?.text.contains("cluster manifest | kubectl apply -f -"),
        "{}",
        asked.text
    );
    let nobody = Cluster::of([])?.ask(&["30518"])?;
    ensure!(nobody.exits(3)?.text.contains("no agent was found"), "{}", nobody.text);
    Ok(())
}

#[test]
fn rights_that_are_missing_are_named_with_their_verb() -> Test {
    let cluster = Cluster::of(one(Does::Says(nothing("n1", true), 1)))?;
    cluster.fleet.refuse_nodes();
    let asked = cluster.ask(&["30518"])?;
    // A node without an agent may exist, so nothing is sure.
    ensure!(asked.exits(3)?.text.contains("verb list on nodes"), "{}", asked.text);
    cluster.fleet.refuse_pods();
    let asked = cluster.ask(&["30518"])?;
    let said = &asked.exits(4)?.stderr;
    ensure!(said.contains("verb list on pods in namespace whereis-port"), "{said}");
    let cluster = Cluster::of(one(Does::Refused(403, crowd::forbidden())))?;
    let asked = cluster.ask(&["30518"])?;
    ensure!(asked.exits(3)?.text.contains("verb create (and get) on pods/exec"), "{}", asked.text);
    Ok(())
}

#[test]
fn usage_and_failure_are_told_apart() -> Test {
    let cluster = Cluster::of(one(says(nothing("n1", true))))?;
    for wrong in [
        &["70000"][..],
        &[],
        &["30518", "--namespace", "No Name"],
        &["30518", "--context", "other"],
        &["30518", "--no-kube"],
        &["30518", "--record", "x"],
        &["30518", "--timeout", "0s"],
        &["manifest", "--image", "a b"],
    ] {
        cluster.ask(wrong)?.exits(2).with_context(|| format!("{wrong:?}"))?;
    }
    ensure!(cluster.fleet.commands().is_empty(), "asked before the usage was understood");
    let mut gone = cluster.tool()?;
    drop(cluster.fleet);
    let asked = asked(gone.arg("30518"))?;
    ensure!(asked.exits(4)?.stderr.contains("the API can't be asked"), "{}", asked.stderr);
    Ok(())
}

#[test]
fn kubectl_runs_it_as_a_plugin() -> Test {
    let cluster = Cluster::of(one(says(answer(
        "n1",
        &[service_path(30518, "web", "10.244.0.5", Some("web-0"))],
    ))))?;
    let plugin = |name: &str| -> Result<Command> {
        let link = cluster.dir.path().join(name);
        if !link.exists() {
            symlink(lab::binary()?, &link)?;
        }
        let mut command = Command::new(link);
        command.env("HOME", cluster.dir.path()).env("KUBECONFIG", &cluster.kubeconfig);
        Ok(command)
    };
    let found = asked(plugin("kubectl-whereis_port")?.args(["--json", "30518"]))?;
    ensure!(found.exits(0)?.cluster()?["answers"][0]["verdict"] == "found", "{}", found.text);
    let help = asked(plugin("kubectl-whereis_port")?.arg("--help"))?;
    ensure!(help.text.contains("Usage: kubectl whereis_port"), "{}", help.text);
    let next = asked(plugin("kubectl_complete-whereis_port")?.args(["--kubec"]))?;
    ensure!(
        next.text.starts_with("--kubeconfig\t") && next.text.ends_with(":4\n"),
        "{}",
        next.text
    );
    if lab::has("kubectl") {
        let path = format!("{}:{}", cluster.dir.path().display(), std::env::var("PATH")?);
        let mut kubectl = Command::new("kubectl");
        kubectl.env("PATH", path).env("HOME", cluster.dir.path());
        kubectl.env("KUBECONFIG", &cluster.kubeconfig).args(["whereis_port", "30518"]);
        let asked = asked(&mut kubectl)?;
        ensure!(asked.exits(0)?.text.contains("Service default/web"), "{}", asked.text);
    }
    Ok(())
}

#[test]
fn an_agent_waits_listens_on_nothing_and_ends_when_told() -> Test {
    let mut agent = Command::new(lab::binary()?).arg("agent").spawn()?;
    std::thread::sleep(Duration::from_millis(300));
    let running = agent.try_wait()?.is_none();
    let pid = rustix::process::Pid::from_child(&agent);
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", agent.id()))?
        .flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .filter_map(|to| {
            Some(to.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
        })
        .collect();
    let mut tables = String::new();
    for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet"] {
        tables += &std::fs::read_to_string(format!("/proc/{}/net/{table}", agent.id()))
            .unwrap_or_default();
    }
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let status = agent.wait()?;
    ensure!(running, "it did not wait");
    ensure!(status.code() == Some(0), "{status}");
    let words: Vec<&str> = tables.split_whitespace().collect();
    ensure!(sockets.iter().all(|inode| !words.contains(&inode.as_str())), "{sockets:?}\n{tables}");
    Ok(())
}

/// The capabilities that the manifest gives, as `setpriv` writes them.
fn capabilities() -> Result<Vec<String>> {
    let manifest = asked(Command::new(lab::binary()?).args(["cluster", "manifest"]))?.text;
    let added = manifest.lines().map(str::trim).skip_while(|line| *line != "add:");
    Ok(added.filter_map(|line| Some(line.strip_prefix("- ")?.to_lowercase())).collect())
}

#[test]
fn the_manifests_capabilities_are_enough_and_none_is_too_many() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    // Somebody else's, in a namespace that only its process keeps.
    let _theirs = lab.listen_as(&other, 1234, "tcp 0.0.0.0:21301")?;
    lab.nft(
        &other,
        "table ip agents {\n chain in {\n type filter hook input priority 0;\n }\n}\n",
    )?;
    let ask = |capabilities: &[String]| -> Result<(String, bool)> {
        let set: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
        let door = ["setpriv", "--bounding-set", &format!("-all{set}"), "--inh-caps", "-all"];
        let run = lab.tool().through(&door).args(&["--json", "21301"]).run()?;
        let end = run.answer()?["paths"][0]["end"]["ending"] == "process";
        Ok((run.gap_text(), end))
    };
    let all = capabilities()?;
    ensure!(all.len() == 4, "{all:?}");
    let (gaps, named) = ask(&all)?;
    ensure!(named && gaps.trim().is_empty(), "not enough: {gaps}");
    for left_out in &all {
        let rest: Vec<String> = all.iter().filter(|name| *name != left_out).cloned().collect();
        let (gaps, named) = ask(&rest)?;
        ensure!(!named || !gaps.trim().is_empty(), "{left_out} is not needed");
    }
    Ok(())
}
