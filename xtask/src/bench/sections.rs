//! What is measured, one section after the other. Each is printed and saved as it ends, so that
//! one that fails, perhaps after an hour, loses nothing but itself.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use super::node::{self, Size};
use super::report::{self, Machine, Part};
use super::{Args, events, fleet, kube, on_node, rules, screen};
use crate::{Refused, sh};

/// One thing that is measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Node(Size),
    Events,
    Rules,
    Kube,
    Screen,
    Fleet,
}

/// All of them that are measured when none is named.
const USUAL: [Section; 6] = [
    Section::Node(Size::Big),
    Section::Node(Size::Small),
    Section::Events,
    Section::Rules,
    Section::Kube,
    Section::Screen,
];

/// The page of the book that has the tables.
const PAGE: &str = "docs/src/benchmarks.md";

/// Programs that the sections need beside whereis-port.
const PEERS: [&str; 9] = [
    "ip",
    "ss",
    "lsof",
    "nft",
    "nsenter",
    "conntrack",
    "iptables-nft-restore",
    "iptables-nft-save",
    "iptables-legacy-save",
];

/// Measures and reports.
pub(crate) fn run(args: &Args) -> Result<()> {
    let sections = Section::chosen(args);
    // Simulated nodes need neither root nor other tools.
    if sections.iter().any(|section| *section != Section::Fleet) {
        if !sh::is_root() {
            let reason = "bench needs root: it measures in a network namespace of its own";
            return Err(Refused(reason.to_owned()).into());
        }
        if let Some(peer) = PEERS.iter().find(|peer| sh::find(peer).is_none()) {
            return Err(Refused(format!("{peer} is missing: run cargo xtask setup")).into());
        }
    }
    let binary = match &args.binary {
        Some(file) => file.canonicalize().with_context(|| format!("reading {}", file.display()))?,
        None => build()?,
    };
    let somo = sh::find("somo");
    if somo.is_none() && sections.iter().any(|section| matches!(section, Section::Node(_))) {
        sh::shout("somo is not installed and is left out (cargo install --locked somo)");
    }
    let machine = Machine::read(args.rounds)?;
    let mut saved = Saved::new(&machine, args.json.clone())?;
    println!("{}\n", report::heading(&machine));
    let measure = |section: Section| section.measure(&binary, somo.as_deref(), args.rounds);
    let failed = one_by_one(&sections, measure, |section, part| saved.keep(section, part));
    if !failed.is_empty() {
        bail!("not measured, all others were: {}", failed.join("; "));
    }
    if args.docs {
        let file = sh::workspace().join(PAGE);
        let old = fs::read_to_string(&file).context(PAGE)?;
        let new = report::insert(&old, saved.markdown.trim_end()).context(PAGE)?;
        fs::write(&file, new).context(PAGE)?;
    }
    Ok(())
}

/// Measures all, keeps what each gives as soon as it does, and gives what went wrong.
fn one_by_one(
    sections: &[Section],
    mut measure: impl FnMut(Section) -> Result<Part>,
    mut keep: impl FnMut(Section, &Part) -> Result<()>,
) -> Vec<String> {
    let mut failed = Vec::new();
    for section in sections {
        eprintln!("bench: {section}");
        let done = measure(*section).and_then(|part| keep(*section, &part));
        if let Err(error) = done {
            // What a program says may end with its line.
            let error = format!("{error:#}").trim_end().to_owned();
            sh::shout(&format!("{section} failed: {error}"));
            failed.push(format!("{section}: {error}"));
        }
    }
    failed
}

fn build() -> Result<PathBuf> {
    sh::run(&mut sh::cargo(&["build", "--release", "--locked", "--package", "whereis-port"]))?;
    Ok(sh::target_dir()?.join("release/whereis-port"))
}

impl Section {
    /// Those that the options name, or the usual ones.
    fn chosen(args: &Args) -> Vec<Self> {
        let named = |section: &Self| match section {
            Self::Node(_) => args.nodes,
            Self::Events => args.events,
            Self::Rules => args.rules_only,
            Self::Kube => args.kube,
            Self::Screen => args.screen,
            Self::Fleet => args.fleet,
        };
        let all = USUAL.into_iter().chain([Self::Fleet]);
        let chosen: Vec<Self> = all.filter(named).collect();
        if chosen.is_empty() { USUAL.to_vec() } else { chosen }
    }

    /// The name of its file.
    fn file(self) -> &'static str {
        match self {
            Self::Node(Size::Big) => "node-big",
            Self::Node(Size::Small) => "node-small",
            Self::Events => "events",
            Self::Rules => "rules",
            Self::Kube => "kube",
            Self::Screen => "screen",
            Self::Fleet => "fleet",
        }
    }

    fn measure(self, binary: &Path, somo: Option<&Path>, rounds: u32) -> Result<Part> {
        Ok(match self {
            Self::Node(size) => {
                let all = node::in_private_namespaces(|| on_node(size, binary, somo, rounds))?;
                report::of_node(size, &size.about(), &all)
            }
            Self::Events => {
                report::of_events(&node::in_private_namespaces(|| events::measure(binary))?)
            }
            Self::Rules => report::of_rules(&rules::measure(binary, rounds)?),
            Self::Kube => Part::table(kube::table(&kube::measure(binary, rounds)?)),
            Self::Screen => Part::table(screen::table(&screen::measure(binary)?)),
            Self::Fleet => Part::table(fleet::measure(binary, rounds.min(fleet::ROUNDS))?),
        })
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(size) => write!(f, "the {size} node"),
            Self::Events => f.write_str("events"),
            Self::Rules => f.write_str("nodes with many rules"),
            Self::Kube => f.write_str("the Kubernetes API"),
            Self::Screen => f.write_str("the screen"),
            Self::Fleet => f.write_str("a cluster"),
        }
    }
}

/// What was measured so far, and where it is kept.
struct Saved {
    /// A file for each section.
    directory: PathBuf,
    /// One for all samples.
    json: Option<PathBuf>,
    heading: String,
    markdown: String,
    samples: Map<String, Value>,
}

impl Saved {
    fn new(machine: &Machine, json: Option<PathBuf>) -> Result<Self> {
        let directory = sh::target_dir()?.join("bench");
        fs::create_dir_all(&directory)
            .with_context(|| format!("making {}", directory.display()))?;
        let heading = report::heading(machine);
        let samples = Map::from_iter([("machine".to_owned(), report::machine(machine))]);
        Ok(Self { directory, json, markdown: format!("{heading}\n\n"), heading, samples })
    }

    /// Prints and saves a section.
    fn keep(&mut self, section: Section, part: &Part) -> Result<()> {
        let text = part.markdown.trim_end();
        println!("{text}\n");
        self.markdown.push_str(text);
        self.markdown.push_str("\n\n");
        let file = self.directory.join(section.file()).with_extension("md");
        fs::write(&file, format!("{}\n\n{text}\n", self.heading))
            .with_context(|| format!("writing {}", file.display()))?;
        self.samples.insert(section.file().to_owned(), part.json.clone());
        if let Some(file) = &self.json {
            let json = serde_json::to_string_pretty(&self.samples)?;
            fs::write(file, json + "\n").with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_has_a_place_for_the_tables() {
        let page = fs::read_to_string(sh::workspace().join(PAGE)).unwrap();
        let new = report::insert(&page, "TABLES").unwrap();
        assert!(new.contains("\nTABLES\n") && new.len() < page.len(), "{new}");
        assert!(new.starts_with("# Benchmarks\n"), "{new}");
    }

    #[test]
    fn a_section_that_fails_loses_nothing_but_itself() {
        let mut kept = Vec::new();
        let measure = |section| match section {
            Section::Events => bail!("no eBPF"),
            _ => Ok(Part::table(String::new())),
        };
        let failed = one_by_one(&USUAL, measure, |section, _| {
            kept.push(section);
            Ok(())
        });
        assert_eq!(failed, ["events: no eBPF"]);
        assert_eq!(kept.len(), USUAL.len() - 1);
        assert!(kept.contains(&Section::Screen) && !kept.contains(&Section::Events));
    }

    #[test]
    fn each_section_has_a_file_of_its_own() {
        let files: std::collections::BTreeSet<_> = USUAL.iter().map(|s| s.file()).collect();
        assert_eq!(files.len(), USUAL.len());
    }
}
