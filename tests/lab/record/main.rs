//! `record-scenarios DIR [NAME…]`: builds the nodes of the recorded scenarios in the lab,
//! records each with the tool, and writes what belongs to the lab into DIR. The names are
//! `kind`, `kind-api`, `k3s` and `k3s-api`; without one, all are recorded.
//!
//! `tests/data/README.md` says what is real in these recordings and what is not.

mod api;
mod cut;
mod k3s;
mod k3s_api;
mod kind;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, Tool};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, names @ ..] = args.as_slice() else { bail!("usage: record-scenarios DIR [NAME…]") };
    if let Some(reason) = lab::no_docker() {
        bail!("{reason}");
    }
    let dir = Path::new(dir);
    let all = ["kind", "kind-api", "k3s", "k3s-api"].map(str::to_owned);
    for name in if names.is_empty() { &all } else { names } {
        match name.as_str() {
            "kind" => kind::record(dir)?,
            "kind-api" => api::record(dir)?,
            "k3s" => k3s::record(dir)?,
            "k3s-api" => k3s_api::record(dir)?,
            unknown => bail!("there is no scenario {unknown}"),
        }
    }
    Ok(())
}

/// Records the lab's node with `tool`, cuts the recording to the lab, and keeps
/// it as `name` in `dir`.
fn record(lab: &Lab, tool: Tool<'_>, cut: &cut::Cut<'_>, dir: &Path, name: &str) -> Result<()> {
    let raw = lab.dir().join(name);
    let path = raw.to_str().context("path of the recording")?;
    let run = tool.args(&["--json", "list", "--record", path]).run()?;
    ensure!(run.code == Some(0), "exit {:?}: {}", run.code, run.stderr);
    let text = cut.apply(&std::fs::read_to_string(&raw)?)?;
    let to = dir.join(name);
    std::fs::write(&to, &text).with_context(|| format!("writing {}", to.display()))?;
    println!("{}: {} kB", to.display(), text.len() / 1000);
    Ok(())
}
