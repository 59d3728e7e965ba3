//! Cuts a recording down to the lab: the machine that the lab is on has other
//! namespaces and processes, which are nobody's business.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

/// What stays, and how it is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut<'a> {
    /// The lab's name.
    pub(crate) lab: &'a str,
    /// Its namespaces.
    pub(crate) netns: &'a [u64],
    /// The unit that the lab's own processes are said to be in.
    pub(crate) unit: &'a str,
    /// Whether the node is to look like one with WSL2's kernel of that time: the
    /// kernel's name is how WSL2 is recognised.
    pub(crate) wsl: bool,
}

/// How the machine is called.
const HOSTNAME: &str = "node1";

/// The kinds of fact that are asked for by namespaces alone.
const BY_NETNS: [&str; 7] =
    ["links", "addresses", "routes", "kernel_ports", "rulesets", "frontends", "settings"];

/// The kinds of fact that are asked for one by one, each of one namespace.
const ONE_BY_ONE: [&str; 7] =
    ["chains", "sets", "set_elements", "set_element", "ip_sets", "route", "flows"];

impl Cut<'_> {
    /// The recording without what is not the lab's.
    pub(crate) fn apply(&self, text: &str) -> Result<String> {
        let mut recording: Value = serde_json::from_str(text)?;
        let facts = &mut recording["facts"];
        let processes = self.processes(facts);
        let pids: BTreeSet<u64> = processes.iter().filter_map(|p| p["pid"].as_u64()).collect();
        let hostname = facts["host"]["value"]["hostname"].clone();
        self.host(&mut facts["host"]["value"]);
        // APIs are asked for a node called like the machine.
        for ask in items_mut(&mut facts["kube"]) {
            if ask["asked"]["wish"]["node"] == hostname {
                ask["asked"]["wish"]["node"] = json!(HOSTNAME);
            }
        }
        self.netns(&mut facts["netns"]["value"], &pids);
        let wanted: Vec<Value> = items(&facts["netns"]["value"]).map(|n| n["id"].clone()).collect();
        for kind in BY_NETNS {
            let (values, gaps) = gather(&facts[kind], |fact| self.is_ours(&fact["netns"]));
            facts[kind] = asked(json!(wanted), json!(values), &gaps);
        }
        for kind in ONE_BY_ONE {
            // Not by index, which would add what was never asked for.
            if let Some(asks) = facts.get_mut(kind) {
                retain(asks, |ask| self.is_ours(netns_of(&ask["asked"])));
            }
        }
        if facts["unseen"].is_object() {
            facts["unseen"]["gaps"] = json!(ours_of(&facts["unseen"]["gaps"]));
        }
        for link in items_mut(&mut facts["links"][0]["read"]["value"]) {
            if !self.is_ours(&link["peer_netns"]) {
                link["peer_netns"] = Value::Null;
            }
        }
        let (mut sockets, gaps) =
            gather(&facts["sockets"], |socket| self.is_ours(&socket["netns"]));
        if self.wsl {
            // Linux 5.8 is the first to tell.
            sockets.iter_mut().for_each(|socket| socket["cgroup_id"] = Value::Null);
        }
        let inodes: BTreeSet<u64> = sockets.iter().filter_map(|s| s["inode"].as_u64()).collect();
        let everything = json!({ "netns": wanted, "filter": { "proto": null, "ports": null } });
        facts["sockets"] = asked(everything, json!(sockets), &gaps);

        let mut holders = Vec::new();
        for ask in items(&facts["owners"]) {
            for holder in items(&ask["read"]["value"]["holders"]) {
                let known = holder["inode"].as_u64().is_some_and(|i| inodes.contains(&i));
                if known && !holders.contains(holder) {
                    holders.push(holder.clone());
                }
            }
        }
        let owners = json!({ "holders": holders, "denied": [], "denied_total": 0 });
        facts["owners"] = asked(json!(inodes), owners, &[]);
        facts["processes"] = asked(json!(pids), json!(processes), &[]);

        let ours = |ask: &Value| ask["asked"]["pid"].as_u64().is_some_and(|p| pids.contains(&p));
        retain(&mut facts["container"], ours);
        let known = facts["container"].to_string();
        retain(&mut facts["containers"]["gaps"], |gap| {
            let container = gap["source"]["name"].as_str();
            container.is_some_and(|id| known.contains(&format!("\"id\":\"{id}")))
        });
        // The daemon that the lab started is the only one asked in here.
        let socket = format!("/tmp/{}/", self.lab);
        retain(&mut facts["containers"]["value"], |container| {
            container["via"]["place"].as_str().is_some_and(|place| place.contains(&socket))
        });
        let cgroups: BTreeSet<u64> =
            sockets.iter().filter_map(|socket| socket["cgroup_id"].as_u64()).collect();
        retain(&mut facts["cgroup_paths"], |ask| {
            ask["asked"].as_u64().is_some_and(|id| cgroups.contains(&id))
        });
        for part in ["netns", "host"] {
            facts[part]["gaps"] = json!(ours_of(&facts[part]["gaps"]));
        }
        let count = |kind: &str| match &facts[kind] {
            Value::Array(asks) => items(&asks[0]["read"]["value"]).count(),
            read => items(&read["value"]).count(),
        };
        let counts = [
            ("network namespaces", format!("{} namespaces", wanted.len())),
            ("socket tables", format!("{} sockets", sockets.len())),
            ("descriptors", format!("{} holders", holders.len())),
            ("processes", format!("{} read", pids.len())),
        ];
        let of_netns = [
            ("kernel ports", "kernel_ports"),
            ("rtnetlink addresses", "addresses"),
            ("rtnetlink links", "links"),
            ("rtnetlink routes", "routes"),
        ];
        let counts = counts.into_iter().chain(of_netns.map(|(name, kind)| {
            (name, format!("{} from {} namespaces", count(kind), wanted.len()))
        }));
        let tables: usize = items(&facts["rulesets"][0]["read"]["value"])
            .map(|rules| items(&rules["tables"]).count())
            .sum();
        let rules = format!("{tables} tables in {} namespaces", wanted.len());
        let counts: Vec<_> = counts.chain([("packet rules", rules)]).collect();
        sources(&mut recording["sources"], &counts);
        for source in items_mut(&mut recording["sources"]) {
            if source["namespaces"].is_u64() {
                source["namespaces"] = json!(wanted.len());
            }
        }
        self.rename(&recording)
    }

    fn is_ours(&self, netns: &Value) -> bool {
        netns["inode"].as_u64().is_some_and(|inode| self.netns.contains(&inode))
    }

    /// Every process of the lab, once.
    fn processes(&self, facts: &Value) -> Vec<Value> {
        let group = format!("/{}/", self.lab);
        let in_lab = |process: &Value| {
            let has = |word: &str| items(&process["cmdline"]).any(|argument| argument == word);
            // The tool itself, and the helpers that became something else.
            let of_the_lab_alone = process["comm"] == "whereis-port"
                || process["comm"] == "nsenter"
                || has("--imitate");
            process["cgroup"].as_str().is_some_and(|path| path.starts_with(&group))
                && self.is_ours(&process["netns"])
                && !of_the_lab_alone
        };
        let (mut processes, _) = gather(&facts["processes"], in_lab);
        processes.sort_by_key(|process| process["pid"].as_u64());
        for process in &mut processes {
            let own = process["comm"].clone();
            if let Some(ancestors) = process["ancestors"].as_array_mut() {
                // The helper makes a PID namespace before it becomes the listener.
                ancestors.retain(|ancestor| ancestor["comm"] != own);
                // What started the lab, and the lab's own starters, are not of the node.
                let starter = |ancestor: &Value| {
                    let comm = ancestor["comm"].as_str().unwrap_or_default();
                    matches!(comm, "nsenter" | "lab-helper" | "record-scenario")
                };
                let keep = ancestors.iter().position(starter).unwrap_or(ancestors.len());
                ancestors.truncate(keep);
            }
            for path in ["exe", "cwd"] {
                let outside = process[path].as_str().is_some_and(is_of_the_sources);
                if outside {
                    process[path] = Value::Null;
                }
            }
        }
        processes
    }

    fn host(&self, host: &mut Value) {
        host["hostname"] = json!(HOSTNAME);
        host["host_netns"] = host["own_netns"].clone();
        host["own_netns_name"] = Value::Null;
        // Its number is enough, and the rest says where it was built.
        let kernel = host["kernel"].as_str().unwrap_or_default();
        host["kernel"] = json!(kernel.split('-').next());
        if self.wsl {
            host["wsl"] = json!(true);
            host["kernel"] = json!("5.4.72-microsoft-standard-WSL2");
        }
    }

    fn netns(&self, netns: &mut Value, pids: &BTreeSet<u64>) {
        retain(netns, |one| self.is_ours(&one["id"]));
        for one in items_mut(netns) {
            let lab = |text: &Value| text.as_str().is_some_and(|t| t.contains(self.lab));
            if lab(&one["name"]) {
                one["name"] = Value::Null;
            }
            retain(&mut one["paths"], |path| {
                !lab(path) || path.as_str().is_some_and(|p| p.contains("/exec/"))
            });
            retain(&mut one["members"], |pid| pid.as_u64().is_some_and(|pid| pids.contains(&pid)));
        }
    }

    /// The text of the recording, with the lab's paths called as on a real node.
    fn rename(&self, recording: &Value) -> Result<String> {
        let name = self.lab;
        let mut text = serde_json::to_string(recording)?;
        for (from, to) in [
            (format!("/tmp/{name}/d.sock"), "/var/run/docker.sock"),
            (format!("/tmp/{name}/d.pid"), "/var/run/docker.pid"),
            (format!("/tmp/{name}/daemon.json"), "/etc/docker/daemon.json"),
            (format!("/tmp/{name}/exec"), "/var/run/docker"),
            (format!("/tmp/{name}/kubeconfig"), "/root/.kube/config"),
            (format!("/tmp/{name}/data-overlay2"), "/var/lib/docker"),
            (format!("/tmp/{name}/data-vfs"), "/var/lib/docker"),
            (format!("\"/{name}/procs\""), &format!("\"/system.slice/{}\"", self.unit)),
            (format!("/{name}/"), "/"),
        ] {
            text = text.replace(&from, to);
        }
        ensure!(!text.contains(name), "the lab's name is still there: {}", around(&text, name));
        text.push('\n');
        Ok(text)
    }
}

/// The namespace of what was asked for: a chain, a set, an element, a route.
fn netns_of(asked: &Value) -> &Value {
    let places = ["/netns", "/table/netns", "/set/table/netns"];
    places.iter().find_map(|place| asked.pointer(place)).unwrap_or(&Value::Null)
}

/// Whether a path is where this was built: the lab's programs are in there.
fn is_of_the_sources(path: &str) -> bool {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    sources.is_some_and(|sources| Path::new(path).starts_with(sources))
}

fn around(text: &str, word: &str) -> String {
    let at = text.find(word).unwrap_or_default();
    text.chars().skip(at.saturating_sub(80)).take(200).collect()
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn items_mut(list: &mut Value) -> impl Iterator<Item = &mut Value> {
    list.as_array_mut().into_iter().flatten()
}

fn retain(list: &mut Value, keep: impl Fn(&Value) -> bool) {
    if let Some(list) = list.as_array_mut() {
        list.retain(keep);
    }
}

/// One question and its answer, in a list of its own.
fn asked(what: Value, value: Value, gaps: &[Value]) -> Value {
    json!([{ "asked": what, "read": { "value": value, "gaps": gaps } }])
}

/// The facts of all answers of one kind that are wanted, each once, and the gaps.
fn gather(asks: &Value, keep: impl Fn(&Value) -> bool) -> (Vec<Value>, Vec<Value>) {
    let (mut values, mut gaps) = (Vec::new(), Vec::new());
    for ask in items(asks) {
        for fact in items(&ask["read"]["value"]) {
            if keep(fact) && !values.contains(fact) {
                values.push(fact.clone());
            }
        }
        for gap in ours_of(&ask["read"]["gaps"]) {
            if !gaps.contains(&gap) {
                gaps.push(gap);
            }
        }
    }
    (values, gaps)
}

/// The gaps that are not about processes and namespaces of the machine.
fn ours_of(gaps: &Value) -> Vec<Value> {
    let of_the_machine = |gap: &Value| {
        let (kind, name) = (&gap["source"]["kind"], &gap["source"]["name"]);
        match kind.as_str().unwrap_or_default() {
            "proc" | "descriptors" | "command_line" => name.is_string(),
            "network_namespaces" => {
                name.as_str().is_some_and(|name| name.starts_with("network namespace proc-net:"))
            }
            _ => false,
        }
    };
    items(gaps).filter(|gap| !of_the_machine(gap)).cloned().collect()
}

/// What was read of the lab, counted again. What was refused was not the lab's,
/// but for containers, of which the runtimes' own files were not all there.
fn sources(sources: &mut Value, counts: &[(&str, String)]) {
    retain(sources, |source| source["name"] != "/proc/PID/net");
    for source in items_mut(sources) {
        let Some((_, count)) = counts.iter().find(|(name, _)| source["name"] == *name) else {
            continue;
        };
        source["detail"] = json!(count);
        source["ok"] = json!(true);
        source["reason"] = Value::Null;
        source["remedy"] = Value::Null;
    }
}
