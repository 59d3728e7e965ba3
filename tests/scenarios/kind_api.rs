//! What must be true of the answers on a Docker host with two kind clusters of real parts,
//! whose APIs were asked when it was recorded.

use anyhow::{Context, ensure};
use lab::{Test, View};

use super::kind::serves;
use super::{Answer, items};

/// The API named the pod, and nothing that a runtime would have told is missed.
fn is_named(answer: &Answer, path: View<'_>, namespace: &str, name: &str) -> Test {
    let pod = &path.end()["pod"];
    ensure!(pod["namespace"] == namespace && pod["name"] == name, "{pod}");
    let mut evidence = items(&path.end()["evidence"]);
    ensure!(evidence.any(|e| e["source"] == "Kubernetes API"), "{}", path.end());
    ensure!(items(&answer.answer()["gaps"]).next().is_none(), "{}", answer.answer()["gaps"]);
    Ok(())
}

pub(super) fn node_port(answer: &Answer) -> Test {
    let paths = answer.paths();
    // kube-proxy's socket, which only reserves the port, is no answer of its own.
    let [by_rules] = paths.as_slice() else { anyhow::bail!("{} paths", paths.len()) };
    serves(*by_rules, "nginx", "cluster1")?;
    is_named(answer, *by_rules, "default", "nginx-app")?;
    let service = &by_rules.end()["service"];
    ensure!(service["namespace"] == "default" && service["name"] == "nginx-app", "{service}");
    answer.is_shut("loopback")?;
    answer.is_shut("outside")?;
    answer.is_open("node", "172.18.0.2:30518")?;
    answer.is_open("containers", "172.18.0.2:30518")?;
    let fixes = answer.fixes();
    for word in ["extraPortMappings", "recreate", "port-forward svc/nginx-app 30518:80"] {
        ensure!(fixes.contains(word), "{word}: {fixes}");
    }
    ensure!(!answer.text.contains("cluster2"), "cluster2 has no part in it");
    Ok(())
}

pub(super) fn api_server(answer: &Answer, cluster: &str, address: &str, port: u16) -> Test {
    super::kind::api_server(answer, cluster, address, port)?;
    let path = answer.path()?;
    is_named(answer, path, "kube-system", &format!("kube-apiserver-{cluster}-control-plane"))?;
    let contexts = path.0["contexts"].as_array().context("no contexts")?;
    let [context] = contexts.as_slice() else { anyhow::bail!("{contexts:?}") };
    ensure!(context["name"] == format!("kind-{cluster}"), "{context}");
    Ok(())
}

/// As many listeners of `process` as `each` in both clusters, each named by its own API.
pub(super) fn in_both(answer: &Answer, process: &str, each: usize) -> Test {
    let paths = answer.paths();
    ensure!(paths.len() == 2 * each, "{} paths", paths.len());
    for cluster in ["cluster1", "cluster2"] {
        let node = format!("{cluster}-control-plane");
        let ours: Vec<_> =
            paths.iter().filter(|path| path.0["netns"]["name"] == node.as_str()).collect();
        ensure!(ours.len() == each, "{} in {cluster}", ours.len());
        for path in ours {
            serves(*path, process, cluster)?;
            is_named(answer, *path, "kube-system", &format!("{process}-{node}"))?;
        }
    }
    Ok(())
}

pub(super) fn host_port(answer: &Answer) -> Test {
    let path = answer.path()?;
    serves(path, "nginx", "cluster1")?;
    is_named(answer, path, "default", "hosted")?;
    ensure!(path.end()["service"].is_null(), "no Service leads there");
    answer.is_shut("loopback")?;
    answer.is_open("node", "172.18.0.2:8088")?;
    let fixes = answer.fixes();
    ensure!(fixes.contains("port-forward pod/hosted 8088:80"), "{fixes}");
    Ok(())
}
