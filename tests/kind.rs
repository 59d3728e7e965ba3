//! Two kind clusters of real parts on a Docker host, asked about from the host as the person
//! does who can't reach his NodePort: etcd, API server, controllers and kube-proxy 1.20.2 in
//! each node, docker-proxy before them, and a pod with a hostPort by CNI's own plug-in.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use lab::{KindCluster, Kinds, Landing, Run, Test, View};
use serde_json::Value;

/// Leaves the test, saying so, when a part is not there.
macro_rules! kind_or_skip {
    () => {
        lab::docker_or_skip!();
        lab::kube_or_skip!();
        if !std::path::Path::new("/usr/lib/cni/portmap").exists() {
            lab::skip("CNI's portmap is not installed (package containernetworking-plugins)");
            return Ok(());
        }
    };
}

/// One answer, in both forms.
struct Asked {
    run: Run,
    text: String,
}

impl Asked {
    fn of(kinds: &Kinds, question: &str) -> Result<Self> {
        let run = kinds.whereis(&["--json", question])?;
        run.is_found()?;
        Ok(Self { run, text: kinds.whereis(&[question])?.stdout })
    }

    fn paths(&self) -> Result<Vec<View<'_>>> {
        self.run.paths()
    }

    /// From where, with which address, whether; without those that need a route over the node.
    fn reach(&self, from: &str) -> Result<Vec<(&str, Option<bool>)>> {
        let all = self.run.answer()?["reachable"].as_array().context("no reachability")?;
        let of = all.iter().filter(|entry| {
            let mut conditions = entry["conditions"].as_array().into_iter().flatten();
            entry["from"] == from && !conditions.any(|one| one["code"] == "route")
        });
        Ok(of
            .map(|e| (e["address"].as_str().unwrap_or_default(), e["reachable"].as_bool()))
            .collect())
    }

    fn is_open(&self, from: &str, address: &str) -> Test {
        let all = self.reach(from)?;
        ensure!(all.contains(&(address, Some(true))), "{from} {address}: {all:?}");
        Ok(())
    }

    fn is_shut(&self, from: &str) -> Test {
        let all = self.reach(from)?;
        let shut = !all.is_empty() && all.iter().all(|entry| entry.1 == Some(false));
        ensure!(shut, "{from}: {all:?}");
        Ok(())
    }

    fn says(&self, words: &[&str]) -> Test {
        for word in words {
            ensure!(self.text.contains(word), "{word:?} is not said:\n{}", self.text);
        }
        Ok(())
    }

    /// What is not known has to do with nothing in here.
    fn is_whole(&self) -> Test {
        ensure!(!self.run.gap_text().contains("container"), "{}", self.run.gap_text());
        Ok(())
    }
}

/// Where a connection from the host lands.
fn from_host(kinds: &Kinds, to: &str) -> Result<Landing> {
    kinds.docker().lab().host().connect("tcp", to.parse::<SocketAddr>()?)
}

/// The end is this cluster's, in its node, which is a container of Docker.
fn is_in(end: &Value, cluster: &KindCluster) -> Test {
    let node = &cluster.node.container;
    let named = &end["cluster"];
    ensure!(named["name"] == cluster.name && named["distribution"] == "kind", "{named}");
    ensure!(named["node"] == node.name.as_str() && named["role"] == "control-plane", "{named}");
    let outer = &end["containers"][0];
    ensure!(outer["id"] == node.id.as_str() && outer["name"] == node.name.as_str(), "{outer}");
    Ok(())
}

/// The end is a component that the kubelet runs from a manifest of the node.
fn is_component(end: &Value, cluster: &KindCluster, name: &str) -> Test {
    is_in(end, cluster)?;
    ensure!(end["ending"] == "process" && end["process"]["name"] == name, "{end}");
    ensure!(end["process"]["nspid"].as_array().is_some_and(|ids| ids.len() == 3), "{end}");
    let pod = &end["pod"];
    ensure!(pod["namespace"] == "kube-system" && pod["is_static"] == true, "{pod}");
    ensure!(pod["name"] == format!("{name}-{}", cluster.node.container.name), "{pod}");
    // By the API alone: no file of a runtime names it.
    ensure!(end["container"]["name"] == name, "{}", end["container"]);
    Ok(())
}

#[test]
fn a_node_port_of_one_cluster_and_why_localhost_refuses() -> Test {
    kind_or_skip!();
    let kinds = Kinds::shared()?;
    let (one, _) = kinds.both()?;
    let asked = Asked::of(kinds, "30518")?;
    let paths = asked.paths()?;
    let [by_rules] = paths.as_slice() else {
        anyhow::bail!("{} paths:\n{}", paths.len(), asked.text)
    };
    let steps = by_rules.steps();
    ensure!(
        steps == ["service 0.0.0.0:30518/tcp", "dnat 10.244.0.5:80/tcp", "listener 0.0.0.0:80/tcp"],
        "{steps:?}"
    );
    ensure!(by_rules.netns() == Some(one.node.container.netns.inode), "{}", by_rules.0);
    let end = by_rules.end();
    is_in(end, one)?;
    ensure!(end["process"]["pid"] == kinds.web().pid, "{end}");
    ensure!(end["service"]["namespace"] == "default" && end["service"]["name"] == "nginx-app");
    let pod = &end["pod"];
    ensure!(pod["namespace"] == "default" && pod["name"] == "nginx-app", "{pod}");
    ensure!(pod["uid"] == kinds.web().uid.as_str(), "{pod}");
    ensure!(end["container"]["id"] == kinds.web().container.as_str(), "{end}");
    // kube-proxy's socket is no second server: it only reserves the port.
    let held = by_rules.hops()[0]["evidence"].to_string();
    ensure!(held.contains("(kube-proxy) reserves the port"), "{held}");
    ensure!(!asked.text.contains("cluster2"), "{}", asked.text);
    asked.is_whole()?;

    // From where it is open, and whether that is so.
    asked.is_shut("loopback")?;
    ensure!(from_host(kinds, "127.0.0.1:30518")? == Landing::Refused);
    asked.is_shut("outside")?;
    asked.is_open("node", "172.18.0.2:30518")?;
    ensure!(from_host(kinds, "172.18.0.2:30518")? == Landing::At("nginx-app".to_owned()));
    asked.is_open("containers", "172.18.0.2:30518")?;
    ensure!(from_host(kinds, "172.18.0.4:30518")? == Landing::Refused, "cluster2 has it, too");
    asked.says(&[
        "doesn't publish port 30518",
        "kubectl --context kind-cluster1 -n default port-forward svc/nginx-app 30518:80",
        "extraPortMappings",
        "recreate kind cluster cluster1",
    ])
}

/// Two clusters whose pods have the same networks, addresses and names.
#[test]
fn nothing_of_one_cluster_is_ever_put_on_another() -> Test {
    kind_or_skip!();
    let kinds = Kinds::shared()?;
    let (one, two) = kinds.both()?;
    let (web, twin) = (kinds.web(), kinds.twin());
    ensure!((&web.name, &web.address) == (&twin.name, &twin.address) && web.uid != twin.uid);
    let is_of = |end: &Value, pod: &lab::KindPod, cluster: &KindCluster| -> Test {
        is_in(end, cluster)?;
        ensure!(end["process"]["pid"] == pod.pid, "{end}");
        ensure!(
            end["pod"]["uid"] == pod.uid.as_str() && end["pod"]["name"] == "nginx-app",
            "{end}"
        );
        ensure!(end["container"]["id"] == pod.container.as_str(), "{end}");
        ensure!(end["service"]["name"] == "nginx-app", "{end}");
        let by_api = end["evidence"].to_string();
        let other = if cluster.name == one.name { two.name } else { one.name };
        ensure!(!by_api.contains(&format!("context kind-{other}")), "{by_api}");
        Ok(())
    };
    for (port, pod, cluster, other) in [("30518", web, one, two), ("30519", twin, two, one)] {
        let asked = Asked::of(kinds, &format!("{port}/tcp"))?;
        let paths = asked.paths()?;
        let [path] = paths.as_slice() else { anyhow::bail!("{port}: {}", asked.text) };
        ensure!(path.netns() == Some(cluster.node.container.netns.inode), "{}", path.0);
        is_of(path.end(), pod, cluster)?;
        ensure!(!asked.text.contains(other.name), "{}", asked.text);
        let findings = &asked.run.answer()?["findings"];
        ensure!(findings.as_array().is_some_and(Vec::is_empty), "{findings}");
        asked.is_open("node", &format!("{}:{port}", cluster.address))?;
        // What helps uses the context that answered.
        asked.says(&[&format!(
            "kubectl --context kind-{} -n default port-forward svc/nginx-app {port}:80",
            cluster.name
        )])?;
    }
    // By the port of the pods both are found, each with what is its own.
    let asked = Asked::of(kinds, "80/tcp")?;
    for (pod, cluster) in [(web, one), (twin, two)] {
        let paths = asked.run.paths_in(&pod.netns)?;
        let ends: Vec<&Value> = paths.iter().map(|path| path.end()).collect();
        ensure!(!ends.is_empty(), "{}: {}", cluster.name, asked.text);
        ends.iter().try_for_each(|end| is_of(end, pod, cluster))?;
    }
    // The name is that of two pods, and of two Services: each has its own cluster.
    for question in [["--pod", "default/nginx-app"], ["--service", "default/nginx-app"]] {
        let run = kinds.whereis(&["--json", question[0], question[1]])?;
        let mut seen = Vec::new();
        for path in run.json["answers"].as_array().into_iter().flatten() {
            for path in path["paths"].as_array().into_iter().flatten() {
                let end = &path["end"];
                let uid = end["pod"]["uid"].as_str().unwrap_or_default();
                let (pod, cluster) = if uid == web.uid { (web, one) } else { (twin, two) };
                is_of(end, pod, cluster)?;
                seen.push(uid.to_owned());
            }
        }
        ensure!(seen.contains(&web.uid) && seen.contains(&twin.uid), "{question:?}: {seen:?}");
    }
    // A cluster is found by its name, with its ports and none of the other's.
    for (cluster, own, others) in [(one, "30518", "30519"), (two, "30519", "30518")] {
        let run = kinds.whereis(&["--json", "--cluster", cluster.name])?;
        let answers = run.json["answers"].as_array().context("answers")?;
        let asked: Vec<_> = answers.iter().filter_map(|a| a["query"]["text"].as_str()).collect();
        let has = |port: &str| asked.contains(&format!("{port}/tcp").as_str());
        ensure!(has(own) && !has(others), "{}: {asked:?}", cluster.name);
    }
    Ok(())
}

#[test]
fn a_published_port_is_the_api_server_of_the_other_cluster() -> Test {
    kind_or_skip!();
    let kinds = Kinds::shared()?;
    let (one, two) = kinds.both()?;
    for (cluster, other) in [(two, one), (one, two)] {
        // Docker's name server takes any UDP port inside of a node, perhaps this one.
        let asked = Asked::of(kinds, &format!("{}/tcp", cluster.port))?;
        let paths = asked.paths()?;
        let [path] = paths.as_slice() else { anyhow::bail!("{}", asked.text) };
        let first = format!("listener 127.0.0.1:{}/tcp", cluster.port);
        let forward = format!("forward {}:6443/tcp", cluster.address);
        let steps = path.steps();
        ensure!(steps == [first, forward, "listener [::]:6443/tcp".to_owned()], "{steps:?}");
        ensure!(path.hops()[0]["detail"].as_str().is_some_and(|d| d.contains("docker-proxy")));
        is_component(path.end(), cluster, "kube-apiserver")?;
        let contexts = path.0["contexts"].as_array().context("contexts")?;
        let names: Vec<_> = contexts.iter().map(|context| context["name"].as_str()).collect();
        ensure!(names == [Some(format!("kind-{}", cluster.name).as_str())], "{names:?}");
        asked.is_open("loopback", &format!("127.0.0.1:{}", cluster.port))?;
        asked.is_shut("outside")?;
        asked.is_whole()?;
        ensure!(!asked.text.contains(other.name), "{}", asked.text);
    }
    Ok(())
}

#[test]
fn inner_ports_are_told_apart_by_cluster() -> Test {
    kind_or_skip!();
    let kinds = Kinds::shared()?;
    let (one, two) = kinds.both()?;
    for (port, name, each) in [("6443", "kube-apiserver", 1), ("2379", "etcd", 2)] {
        let asked = Asked::of(kinds, port)?;
        let paths = asked.paths()?;
        ensure!(paths.len() == 2 * each, "{}", asked.text);
        for cluster in [one, two] {
            let inode = cluster.node.container.netns.inode;
            let ours: Vec<_> = paths.iter().filter(|path| path.netns() == Some(inode)).collect();
            ensure!(ours.len() == each, "{} of {}", ours.len(), cluster.name);
            ours.iter().try_for_each(|path| is_component(path.end(), cluster, name))?;
            asked.is_open("node", &format!("{}:{port}", cluster.address))?;
            asked.is_open("containers", &format!("{}:{port}", cluster.address))?;
        }
        asked.is_shut("outside")?;
        asked.is_whole()?;
        if name == "etcd" {
            // Published nowhere, the API server by a port of each cluster's own.
            asked.is_shut("loopback")?;
        } else {
            asked.is_open("loopback", "127.0.0.1:45381")?;
            asked.is_open("loopback", "127.0.0.1:20971")?;
        }
    }
    Ok(())
}

#[test]
fn a_host_port_by_the_plug_in_leads_to_its_pod() -> Test {
    kind_or_skip!();
    let kinds = Kinds::shared()?;
    let (one, _) = kinds.both()?;
    let asked = Asked::of(kinds, "8088")?;
    let paths = asked.paths()?;
    let [path] = paths.as_slice() else { anyhow::bail!("{}", asked.text) };
    let steps = path.steps();
    ensure!(
        steps == ["dnat 0.0.0.0:8088/tcp", "dnat 10.244.0.6:80/tcp", "listener 0.0.0.0:80/tcp"],
        "{steps:?}"
    );
    let end = path.end();
    is_in(end, one)?;
    ensure!(end["process"]["pid"] == kinds.hosted().pid, "{end}");
    ensure!(end["pod"]["namespace"] == "default" && end["pod"]["name"] == "hosted", "{end}");
    ensure!(end["container"]["name"] == "hosted" && end["service"].is_null(), "{end}");
    asked.says(&["hostPort", "CNI portmap", "-n default port-forward pod/hosted 8088:80"])?;
    asked.is_whole()?;
    asked.is_open("node", "172.18.0.2:8088")?;
    ensure!(from_host(kinds, "172.18.0.2:8088")? == Landing::At("hosted".to_owned()));
    asked.is_shut("loopback")?;
    ensure!(from_host(kinds, "127.0.0.1:8088")? == Landing::Refused);
    // From the pod's side, by the port that only its specification names.
    let run = kinds.whereis(&["--json", "--pod", "default/hosted"])?;
    let answers = run.json["answers"].as_array().context("answers")?;
    let texts: Vec<_> = answers.iter().filter_map(|a| a["query"]["text"].as_str()).collect();
    ensure!(texts == ["80/tcp", "8088/tcp"], "{texts:?}");
    ensure!(!run.stdout.contains("\"nginx-app\""), "paths to another pod: {}", run.stdout);
    Ok(())
}

/// What was recorded answers as the machine did, APIs included.
#[test]
fn a_recording_answers_like_the_host() -> Test {
    kind_or_skip!();
    let kinds = Kinds::shared()?;
    let file = kinds.docker().lab().dir().join("recording.json");
    let file = file.to_str().context("path")?;
    let run = kinds.whereis(&["list", "--record", file])?;
    ensure!(run.code == Some(0), "{}", run.stderr);
    for question in ["30518", "20971", "6443", "8088"] {
        let live = kinds.whereis(&["--json", question])?;
        let replayed = lab::ask(&["--replay", file, "--json", question])?;
        // What a listener dropped is asked for one port, and not for a list's recording.
        let paths = |run: &Run| {
            let mut paths = run.json["answers"][0]["paths"].clone();
            for hop in paths.as_array_mut().into_iter().flatten() {
                for hop in hop["hops"].as_array_mut().into_iter().flatten() {
                    if let Some(socket) = hop["socket"].as_object_mut() {
                        socket.remove("accept_drops");
                    }
                }
            }
            paths
        };
        ensure!(
            paths(&live) == paths(&replayed),
            "{question}:\n{}\n{}",
            live.stdout,
            replayed.stdout
        );
        let gaps = replayed.gap_text();
        ensure!(!gaps.contains("Kubernetes API"), "{question}: {gaps}");
    }
    // With names and addresses made up, the same wherever they stand, and without rules:
    // the API's word for the Service stays, and that its rules are missing is not said.
    let redacted = kinds.docker().lab().dir().join("redacted.json");
    let redacted = redacted.to_str().context("path")?;
    let run = kinds.whereis(&["list", "--record", redacted, "--redact"])?;
    ensure!(run.code == Some(0), "{}", run.stderr);
    let run = lab::ask(&["--replay", redacted, "--json", "30518"])?;
    let finding = run.answer()?["findings"][0]["what"].as_str().context("no finding")?;
    ensure!(finding.contains("NodePort 30518/tcp"), "{finding}");
    ensure!(finding.contains("could not be read"), "{finding}");
    ensure!(!run.stdout.contains("nginx"), "a name is left: {}", run.stdout);
    ensure!(!run.gap_text().contains("Kubernetes API"), "{}", run.gap_text());
    let secrets = std::fs::read_to_string(file)?;
    for word in ["PRIVATE KEY", "BEGIN CERTIFICATE", "client-key", "token"] {
        ensure!(!secrets.contains(word), "{word} is in the recording");
    }
    Ok(())
}

/// Hides the namespaces that are pinned by mounts: a WSL2 distribution has its own.
const DISTRIBUTION: &str = r#"
    awk '{ for (i = 7; i < NF; i++) if ($i == "-" && $(i + 1) == "nsfs") print $5 }' \
        /proc/self/mountinfo | sort -r | while read -r point; do umount -l "$point"; done
    exec "$@""#;

/// With Docker Desktop the nodes are out of sight: what their APIs say is still the answer.
#[test]
fn from_another_pid_namespace_the_api_tells_of_the_node_port() -> Test {
    kind_or_skip!();
    let kinds = Kinds::shared()?;
    let lab = kinds.docker().lab();
    let socket = format!("unix://{}", kinds.docker().socket().display());
    let kubeconfig = kinds.kubeconfig();
    let wrapper = ["unshare", "-pf", "--mount-proc", "sh", "-c", DISTRIBUTION, "sh"];
    let ask = |args: &[&str]| {
        let tool = lab.tool().through(&wrapper).env("DOCKER_HOST", &socket);
        let tool = tool.env("KUBECONFIG", kubeconfig.to_str().context("path")?);
        tool.args(&["--color", "never"]).args(args).run()
    };
    let run = ask(&["--json", "30518"])?;
    let answer = run.answer()?;
    // Nothing was seen, and that is no proof.
    ensure!(answer["verdict"] == "unknown" && run.code == Some(3), "{}", run.stdout);
    let findings = answer["findings"].as_array().context("findings")?;
    let [finding] = findings.as_slice() else { anyhow::bail!("{findings:?}") };
    let what = finding["what"].as_str().context("what")?;
    for word in ["default/nginx-app", "30518/tcp", "kind-cluster1", "node cluster1-control-plane"] {
        ensure!(what.contains(word), "{word}: {what}");
    }
    let text = ask(&["30518"])?.stdout;
    for word in [what, "port-forward svc/nginx-app 30518:80", "extraPortMappings"] {
        ensure!(text.contains(word), "{word}: {text}");
    }
    // What is published has its context and its container.
    let run = ask(&["--json", "20971"])?;
    let path = &run.is_found()?.answer()?["paths"][0];
    ensure!(path["end"]["ending"] == "outside_pid_namespace", "{path}");
    ensure!(path["end"]["cluster"]["name"] == "cluster2", "{path}");
    ensure!(path["contexts"][0]["name"] == "kind-cluster2", "{path}");
    Ok(())
}
