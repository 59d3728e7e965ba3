//! A cluster of 200 simulated nodes, asked through an API server of this program.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::fleet::{Does, FakeFleet, Has, answer, crowd, service_path};
use serde_json::json;

use super::measure::{self, Case, Tool};

/// One run takes seconds: so many rounds are enough.
pub(crate) const ROUNDS: u32 = 5;

/// What it may take: seconds, and bytes.
const MOST: (f64, u64) = (10.0, 100_000_000);

/// A run that takes longer is a failure.
const LIMIT: Duration = Duration::from_secs(60);

/// Measures, and gives a table.
pub(crate) fn measure(binary: &Path, rounds: u32) -> Result<String> {
    let mut text = String::from(
        "| a cluster of 200 nodes | command | time | peak memory | \u{2264} 10 s, \u{2264} 100 MB |\n|---|---|--:|--:|---|\n",
    );
    let troubled = "some slow, twenty in trouble, one silent";
    for (what, nodes, all_say) in [
        (troubled, crowd::crowd(), "on 181 of 187 nodes"),
        ("answers of 1 MB", large(), "on all 200 nodes"),
    ] {
        let dir = tempfile::tempdir().context("making a directory")?;
        let fleet = FakeFleet::start(dir.path(), nodes)?;
        let config = fleet.kubeconfig(dir.path())?;
        let config = config.to_str().context("a path that is no text")?;
        let args = ["cluster", "--kubeconfig", config, "--timeout", "9s", "30518"];
        let case = Case {
            tool: Tool::Rules,
            program: binary.to_owned(),
            args: args.map(str::to_owned).into(),
            label: "whereis-port cluster 30518 --timeout 9s",
        };
        // A fast wrong answer is worth nothing.
        let shown = case.output_within(LIMIT)?.context("no answer in time")?;
        ensure!(shown.contains(all_say), "it does not say {all_say:?}:\n{shown}");
        let samples = measure::alternate(std::slice::from_ref(&case), rounds)?;
        let samples = samples.first().context("no samples")?;
        ensure!(fleet.peak() <= 50, "{} nodes were asked at once", fleet.peak());
        let mut times: Vec<f64> = samples.wall.iter().map(Duration::as_secs_f64).collect();
        times.sort_by(f64::total_cmp);
        let time = times.get(times.len() / 2).copied().context("no times")?;
        let met = if time <= MOST.0 && samples.peak <= MOST.1 { "met" } else { "**missed**" };
        let peak = samples.peak as f64 / 1e6;
        // Writing to a string can't fail.
        let _infallible =
            writeln!(text, "| {what} | `{}` | {time:.2} s | {peak:.1} MB | {met} |", case.label);
    }
    Ok(text)
}

/// Nodes whose answers are long: each way has much evidence.
fn large() -> Vec<(String, Has)> {
    let mut path = service_path(crowd::PORT, "web", "10.244.0.5", None);
    path["padding"] = json!(vec!["x".repeat(1000); 1000]);
    let text: Arc<str> = answer("n", &[path]);
    (0..crowd::NODES)
        .map(|n| (crowd::name(n), Has::Agent(Does::Says(Arc::clone(&text), 0))))
        .collect()
}
