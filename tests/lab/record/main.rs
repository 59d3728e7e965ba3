//! `record-scenarios DIR`: builds the nodes of the recorded scenarios in the lab,
//! records each with the tool, and writes what belongs to the lab into DIR.
//!
//! `tests/data/README.md` says what is real in these recordings and what is not.

mod cut;
mod k3s;
mod kind;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, Tool};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir] = args.as_slice() else { bail!("usage: record-scenarios DIR") };
    if let Some(reason) = lab::no_docker() {
        bail!("{reason}");
    }
    let dir = Path::new(dir);
    kind::record(dir)?;
    k3s::record(dir)
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
