//! The command `diff`, and the baselines that it compares.

use std::io::{BufWriter, Write};
use std::path::Path;

use serde::Serialize as _;

use super::{Failure, on_node, style};
use crate::cli::{DiffArgs, Global};
use crate::exit::Exit;
use crate::model::Baseline;
use crate::model::escape::SafeJson;
use crate::node::{self, Node, Recorded};
use crate::resolve;
use crate::view;

/// The most bytes that a baseline has.
const LARGEST: u64 = 256 << 20;
/// How many bytes tell what a file is.
const BEGINNING: usize = 200;

/// Compares.
pub(super) fn run(global: &Global, args: &DiffArgs, out: &mut impl Write) -> Result<Exit, Failure> {
    let before = load(&args.before)?;
    match &args.after {
        Some(path) => show(global, &before, &load(path)?, out),
        None => on_node(global, None, |node| {
            let after = resolve::baseline(node);
            if global.record.is_some() {
                node::read_everything(node);
            }
            show(global, &before, &after, out)
        }),
    }
}

fn show(
    global: &Global,
    before: &Baseline,
    after: &Baseline,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let found = resolve::diff(before, after);
    if global.json {
        view::json::write(&view::json::diff(&found, before, after), out)?;
    } else {
        let text = view::diff::text(&found, &style(global), global.verbose > 0);
        out.write_all(text.as_bytes())?;
    }
    Ok(match (found.is_sure(), found.is_unsure()) {
        (true, _) => Exit::NotFound,
        (false, true) => Exit::Unknown,
        (false, false) => Exit::Found,
    })
}

/// A baseline, or that of a recording.
fn load(path: &Path) -> Result<Baseline, Failure> {
    let text = super::reading::text(path, LARGEST)?;
    let begin: String = text.chars().take(BEGINNING).filter(|c| !c.is_whitespace()).collect();
    let format: String = Baseline::FORMAT.chars().filter(|c| !c.is_whitespace()).collect();
    if !begin.starts_with(&format!("{{\"format\":\"{format}\"")) {
        drop(text);
        let recorded = Recorded::load(path).map_err(|error| Failure::Usage(error.to_string()))?;
        return Ok(resolve::baseline(&recorded));
    }
    let wrong = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let version = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        value.get("version")?.as_u64()
    };
    match serde_json::from_str::<Baseline>(&text) {
        Ok(read) if read.version <= Baseline::VERSION => Ok(read),
        Ok(read) => Err(wrong(newer(read.version))),
        Err(_) if version(&text).is_some_and(|version| version > Baseline::VERSION) => {
            Err(wrong(newer(version(&text).unwrap_or_default())))
        }
        Err(error) => Err(wrong(format!(
            "this baseline is damaged at line {}, column {}",
            error.line(),
            error.column()
        ))),
    }
}

fn newer(version: u64) -> String {
    format!("this baseline has version {version}, and this tool knows {}", Baseline::VERSION)
}

/// Writes the ports of a node as a baseline, for its owner alone to read.
pub(super) fn save(node: &dyn Node, path: &Path) -> Result<(), Failure> {
    let baseline = resolve::baseline(node);
    let write = |file| {
        let mut out = BufWriter::new(file);
        let mut serializer =
            serde_json::Serializer::with_formatter(&mut out, SafeJson::levels(LEVELS));
        baseline.serialize(&mut serializer)?;
        out.write_all(b"\n")?;
        out.flush()
    };
    node::save_private(path, "baseline", write).map_err(|error| Failure::Tool(error.to_string()))
}

/// How many levels are laid out for people: a port stays on its line.
const LEVELS: usize = 2;
