//! Kubernetes APIs that misbehave, and what is said then.

mod access;
mod config;
mod lists;
mod reach;
mod tls;
mod watch;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lab::apiserver::{ApiServer, Objects, node, service, slice};
use lab::{Lab, Run};

/// A cluster with one Service, `web/shop`, whose NodePort is `port`. No node of it is here.
fn shop(port: u16) -> Objects {
    Objects {
        services: vec![service("web", "shop", port)],
        slices: vec![slice("web", "shop", &["10.244.0.5", "10.244.0.6"])],
        pods: Vec::new(),
        nodes: vec![node("node-1", "192.0.2.77")],
    }
}

/// A lab, a server with [`shop`] in it, and a port that nothing in the lab holds.
fn lab_with_shop() -> Result<(Lab, ApiServer, u16)> {
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let api = ApiServer::start(Some(lab.host()), &shop(port))?;
    Ok((lab, api, port))
}

/// Asks for a port with a kubeconfig. The home has no other.
fn ask(lab: &Lab, kubeconfig: &Path, port: u16) -> Result<Run> {
    let file = kubeconfig.to_str().context("path")?;
    let home = lab.dir().to_str().context("path")?;
    let tool = lab.tool().env("HOME", home).env("SUDO_USER", "");
    tool.args(&["--json", "--kubeconfig", file, &port.to_string()]).run()
}

/// What was noticed, as one text.
fn findings(run: &Run) -> String {
    let answers = run.json["answers"].as_array().into_iter().flatten();
    let findings = answers.filter_map(|answer| answer["findings"].as_array()).flatten();
    findings.map(|finding| format!("{finding}\n")).collect()
}

/// Whether the answer knows the Service's NodePort.
fn knows_shop(run: &Run) -> Result<()> {
    let findings = findings(run);
    ensure!(findings.contains("Service web/shop has NodePort"), "{}", run.stdout);
    Ok(())
}

/// Whether it does not, and a gap says `why`, and that names could be missing only.
fn gap_says(run: &Run, why: &[&str]) -> Result<()> {
    let findings = findings(run);
    ensure!(!findings.contains("NodePort"), "{findings}");
    says(run, why)
}

/// Whether one gap about the API says all of `why`.
fn says(run: &Run, why: &[&str]) -> Result<()> {
    let gaps = run.gaps();
    let of_api = |gap: &&&serde_json::Value| {
        let text = gap.to_string();
        gap["impact"] == "name" && why.iter().all(|part| text.contains(part))
    };
    ensure!(gaps.iter().any(|gap| of_api(&gap)), "no gap says {why:?}: {}", run.gap_text());
    Ok(())
}
