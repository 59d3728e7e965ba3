//! The manifest of agents, and a question to one, through a real API server.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use lab::Test;
use lab::fleet::FakeFleet;
use serde_json::{Value, json};

use crate::fleet::{Asked, asked, says};

#[test]
fn a_real_api_server_takes_the_manifest_and_passes_the_question_on() -> Test {
    lab::kube_or_skip!();
    let cluster = lab::Cluster::start()?;
    let pod = cluster.pod("web-1", "web", "tcp 0.0.0.0:8080")?;
    cluster.service("web", 30090, &json!({}))?;
    cluster.wait_rules(&format!("--to-destination {}:8080", pod.address))?;
    // What the agent on the node would print: the tool's own words there.
    let printed = cluster.whereis(&["30090/tcp"])?;
    let text: Arc<str> = printed.is_found()?.stdout.as_str().into();
    let manifest = asked(Command::new(lab::binary()?).args(["cluster", "manifest"]))?.text;
    let file = cluster.dir().join("agents.yaml");
    std::fs::write(&file, manifest)?;
    cluster.kubectl(&["apply", "-f", file.to_str().context("path")?])?;
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
    let kustomized = cluster.kubectl(&["kustomize", deploy])?;
    ensure!(kustomized.contains("kind: DaemonSet"), "{kustomized}");
    // Nobody makes pods of a DaemonSet here, nor runs them: the stub of a kubelet does.
    let set = "/apis/apps/v1/namespaces/whereis-port/daemonsets/whereis-port-agent";
    let set: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", set])?)?;
    let template = &set["spec"]["template"];
    ensure!(template["spec"]["hostPID"] == true, "{template}");
    for node in ["node1", "node2"] {
        let name = "whereis-port-agent-node".to_owned() + node.trim_start_matches("node1");
        let mut agent = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": template["metadata"], "spec": template["spec"]});
        agent["metadata"]["name"] = name.as_str().into();
        agent["metadata"]["namespace"] = "whereis-port".into();
        agent["spec"]["nodeName"] = node.into();
        cluster.apply(&agent)?;
        cluster.set_status(
            &format!("/api/v1/namespaces/whereis-port/pods/{name}"),
            &json!({
                "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            }),
        )?;
    }
    let node = "/api/v1/nodes/node1";
    let object: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", node])?)?;
    let mut status = object["status"].clone();
    status["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": 10250}});
    cluster.set_status(node, &status)?;
    let kubelet = FakeFleet::kubelet(cluster.lab().host(), 10250, cluster.dir(), says(text))?;

    let kubeconfig = cluster.kubeconfig();
    let kubeconfig = kubeconfig.to_str().context("path")?;
    let ask = |more: &[&str]| -> Result<Asked> {
        let mut args = vec!["cluster", "--json", "--kubeconfig", kubeconfig, "30090/tcp"];
        args.extend(more);
        asked(&mut cluster.lab().tool().args(&args).command()?)
    };
    let asked = ask(&["--timeout", "4s"])?;
    let answer = &asked.exits(0)?.cluster()?["answers"][0];
    let entry = &answer["groups"][0]["entries"][0];
    ensure!(entry["nodes"] == json!(["node1"]), "{}", asked.text);
    ensure!(entry["backends"][0]["pod"] == "web-1", "{entry}");
    ensure!(answer["groups"][0]["service"]["name"] == "web", "{answer}");
    ensure!(
        kubelet.commands() == [["whereis-port", "--json", "30090/tcp"]],
        "{:?}",
        kubelet.commands()
    );
    // The other node has no kubelet.
    let failures = asked.failures()?;
    ensure!(failures.keys().copied().collect::<Vec<_>>() == ["node2"], "{failures:?}");
    Ok(())
}
