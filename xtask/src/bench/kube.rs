//! A node of a cluster with 5,000 services whose API is asked, beside `kubectl`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use lab::apiserver::{ApiServer, Objects, service};

use super::measure::{self, Case, Samples, Tool};
use super::rules::{ASKED, ENDPOINTS, FIRST, Kind, SERVICES};
use super::{node, report};
use crate::sh;

/// A NodePort that the API has and no rule takes: all services are listed for it.
const LOST: u16 = 36_000;
/// So many rounds are enough.
const ROUNDS: u32 = 11;
/// The node's address, which its rules are made for.
const NODE: &str = "172.16.0.1";

/// All samples of one command.
#[derive(Debug)]
pub(crate) struct OfKube {
    about: &'static str,
    label: &'static str,
    samples: Samples,
}

/// Measures on a node with kube-proxy's rules, and with an API in the same namespace.
pub(crate) fn measure(binary: &Path, rounds: u32) -> Result<Vec<OfKube>> {
    eprintln!("bench: the API of {SERVICES} services");
    let dir = tempdir()?;
    let all = node::in_private_namespaces(|| {
        Kind::Nft.make().context("making rules")?;
        let mut objects = Objects::many(SERVICES, ENDPOINTS, FIRST, NODE);
        objects.services.push(service("default", "lost", LOST));
        let api = ApiServer::start(None, &objects)?;
        let kubeconfig = api.write_kubeconfig(&dir, "bench")?;
        let cases = cases(binary, &kubeconfig)?;
        check(&cases)?;
        let (about, cases): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        let samples = measure::alternate(&cases, rounds.min(ROUNDS))?;
        let all = about.into_iter().zip(cases).zip(samples);
        Ok(all
            .map(|((about, case), samples)| OfKube { about, label: case.label, samples })
            .collect())
    });
    // What is left of it is in a directory for temporary files.
    let _ = std::fs::remove_dir_all(&dir);
    all
}

fn tempdir() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("whereis-port-bench-{}", std::process::id()));
    std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

fn cases(binary: &Path, kubeconfig: &Path) -> Result<Vec<(&'static str, Case)>> {
    let kubeconfig = kubeconfig.to_str().context("the kubeconfig's path")?;
    let ours = |port: u16, option: &[&str], label| {
        let mut args: Vec<String> = option.iter().map(ToString::to_string).collect();
        args.push(port.to_string());
        Case { tool: Tool::Ours, program: binary.into(), args, label }
    };
    let with = ["--kubeconfig", kubeconfig];
    let mut all = vec![
        ("one NodePort, without the API", ours(ASKED, &["--no-kube"], "whereis-port P --no-kube")),
        ("one NodePort, its Service named", ours(ASKED, &with, "whereis-port P")),
        ("a NodePort that rules lack, all Services listed", ours(LOST, &with, "whereis-port P")),
    ];
    if sh::find("kubectl").is_some() {
        let args = ["--kubeconfig", kubeconfig, "get", "svc", "-A"];
        let args = args.iter().map(ToString::to_string).collect();
        let label = "kubectl get svc -A";
        all.push((
            "all Services",
            Case { tool: Tool::Rules, program: "kubectl".into(), args, label },
        ));
    } else {
        sh::shout("kubectl is not installed and is left out (apt-get install kubernetes-client)");
    }
    Ok(all)
}

/// A fast wrong answer is worth nothing.
fn check(cases: &[(&'static str, Case)]) -> Result<()> {
    let asked = format!("svc{}", ASKED - FIRST);
    for ((about, case), wanted) in cases.iter().zip([asked.as_str(), "http", "lost", "lost"]) {
        let output = sh::capture(&mut case.command())?;
        ensure!(output.contains(wanted), "{about}: {wanted} is not in the answer: {output}");
        ensure!(!output.contains("no answer in time"), "{about}: {output}");
    }
    Ok(())
}

/// The table of what was measured.
pub(crate) fn table(all: &[OfKube]) -> String {
    let mut text = String::from(
        "The same node with an API of these services and 20,000 endpoints:\n\n\
         | question | command | time | peak memory |\n|---|---|--:|--:|\n",
    );
    for OfKube { about, label, samples } in all {
        let ms = report::median(report::millis(&samples.wall));
        let peak = samples.peak as f64 / 1e6;
        // Writing to a string can't fail.
        let _infallible = writeln!(text, "| {about} | `{label}` | {ms:.1} ms | {peak:.1} MB |");
    }
    let ours = all.iter().filter(|row| row.label.starts_with("whereis-port"));
    let met = |row: &OfKube| {
        report::median(report::millis(&row.samples.wall)) < 1000.0 && row.samples.peak <= 60_000_000
    };
    let verdict = if ours.into_iter().all(met) { "met" } else { "**missed**" };
    let _infallible = writeln!(text, "\nWanted: under 1 s and at most 60 MB: {verdict}.");
    text
}
