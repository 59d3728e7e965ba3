//! What the binary is made of: a list for machines (SBOM), and the licences of all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Arch;
use crate::sh;

/// A crate that is linked into the binary, or runs while it is compiled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    /// As SPDX writes licences; nothing where the crate names none.
    licence: Option<String>,
    /// Where its sources are.
    dir: PathBuf,
    /// Whether crates.io has it: else it is one of the workspace.
    published: bool,
}

impl Crate {
    fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }
}

/// The crates of the binaries, and which needs which.
#[derive(Debug, Default)]
pub(crate) struct Crates {
    /// By the id that cargo gives.
    crates: BTreeMap<String, Crate>,
    needs: BTreeMap<String, BTreeSet<String>>,
    root: String,
}

impl Crates {
    /// Of the binaries for these processors.
    pub(crate) fn read(arches: &[Arch]) -> Result<Self> {
        let mut command = sh::cargo(&["metadata", "--format-version", "1", "--locked"]);
        for arch in arches {
            command.args(["--filter-platform", arch.target()]);
        }
        let text = sh::capture(&mut command)?;
        let metadata =
            serde_json::from_str(&text).context("reading what cargo metadata printed")?;
        Self::parse(&metadata).context("cargo metadata does not tell what whereis-port needs")
    }

    fn parse(metadata: &Value) -> Option<Self> {
        let all: BTreeMap<&str, &Value> = metadata["packages"]
            .as_array()?
            .iter()
            .filter_map(|package| Some((package["id"].as_str()?, package)))
            .collect();
        let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
            .as_array()?
            .iter()
            .filter_map(|node| Some((node["id"].as_str()?, node)))
            .collect();
        let root = all.iter().find(|(_, package)| package["name"] == "whereis-port")?.0;
        let mut found = Self { root: (*root).to_owned(), ..Self::default() };
        let mut left = vec![*root];
        while let Some(id) = left.pop() {
            if found.crates.contains_key(id) {
                continue;
            }
            let package = all.get(id)?;
            let text = |key: &str| package[key].as_str().map(str::to_owned);
            let dir = Path::new(package["manifest_path"].as_str()?).parent()?.to_owned();
            let one = Crate {
                name: text("name")?,
                version: text("version")?,
                licence: text("license"),
                dir,
                published: !package["source"].is_null(),
            };
            found.crates.insert(id.to_owned(), one);
            // Only what is needed in any case: not what builds or tests it.
            let linked = |dep: &&Value| {
                dep["dep_kinds"].as_array().is_some_and(|k| k.iter().any(|k| k["kind"].is_null()))
            };
            let deps = nodes.get(id)?["deps"].as_array()?.iter().filter(linked);
            let deps: BTreeSet<&str> = deps.filter_map(|dep| dep["pkg"].as_str()).collect();
            left.extend(&deps);
            found.needs.insert(id.to_owned(), deps.into_iter().map(str::to_owned).collect());
        }
        Some(found)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.crates.len()
    }

    /// CycloneDX 1.5, as JSON. The same crates give the same bytes: no number by chance, no time of
    /// now in it.
    pub(crate) fn sbom(&self, time: &str) -> Result<String> {
        let component = |one: &Crate, kind: &str| {
            let mut value = json!({
                "type": kind,
                "bom-ref": one.purl(),
                "name": one.name,
                "version": one.version,
                "purl": one.purl(),
            });
            if let Some(licence) = &one.licence {
                // Older crates part alternatives by a slash, which SPDX does not know.
                let expression = licence.replace('/', " OR ");
                value["licenses"] = json!([{ "expression": expression.replace("  ", " ") }]);
            }
            value
        };
        let root = self.crates.get(&self.root).context("the list has no root")?;
        let mut others: Vec<&Crate> =
            self.crates.iter().filter(|(id, _)| **id != self.root).map(|(_, one)| one).collect();
        others.sort();
        let purl = |id: &String| self.crates.get(id).map(Crate::purl);
        let mut needs: Vec<(String, Vec<String>)> = self
            .needs
            .iter()
            .filter_map(|(id, needs)| Some((purl(id)?, needs.iter().filter_map(purl).collect())))
            .collect();
        needs.sort();
        let needs: Vec<Value> =
            needs.iter().map(|(of, on)| json!({ "ref": of, "dependsOn": on })).collect();
        let others: Vec<Value> = others.iter().map(|one| component(one, "library")).collect();
        let bom = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": { "timestamp": time, "component": component(root, "application") },
            "components": others,
            "dependencies": needs,
        });
        Ok(serde_json::to_string_pretty(&bom)? + "\n")
    }

    /// The texts of all licences, each once, with the crates that it is of; then `others`, which
    /// no crate is: name and text.
    pub(crate) fn licences(&self, others: &[(&str, String)]) -> Result<String> {
        let mut list = String::new();
        let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut crates: Vec<&Crate> = self.crates.values().filter(|one| one.published).collect();
        crates.sort();
        for one in crates {
            let label = format!("{} {}", one.name, one.version);
            let licence = one.licence.as_deref().unwrap_or("see its text");
            writeln!(list, "{label}: {licence}")?;
            let found = licence_texts(&one.dir)?;
            // One without a text says which licence it is under; the text is another crate's.
            ensure!(
                !found.is_empty() || one.licence.is_some(),
                "{label} has neither a licence nor a text of one"
            );
            for text in found {
                texts.entry(text).or_default().insert(label.clone());
            }
        }
        let mut parts: Vec<(String, String)> = texts
            .into_iter()
            .map(|(text, of)| (of.into_iter().collect::<Vec<_>>().join(", "), text))
            .collect();
        parts.sort();
        parts.extend(others.iter().map(|(name, text)| ((*name).to_owned(), text.clone())));
        let mut whole = format!(
            "whereis-port is under MIT or Apache-2.0, as you like. Its binaries have code of these \
             crates and libraries in them.\n\n{list}"
        );
        let line = "-".repeat(78);
        for (of, text) in parts {
            write!(whole, "\n{line}\n{of}\n{line}\n\n{}\n", text.trim_end())?;
        }
        Ok(whole)
    }
}

/// The texts that a crate brings.
fn licence_texts(dir: &Path) -> Result<Vec<String>> {
    let reading = || format!("reading {}", dir.display());
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let is_one = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
            .iter()
            .any(|start| name.starts_with(start));
        if is_one && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    let text = |file: &PathBuf| {
        let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n").trim().to_owned())
    };
    files.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(dir: &Path) -> Value {
        let package = |name: &str, licence: Value, source: Value| {
            let manifest = dir.join(name).join("Cargo.toml");
            json!({
                "id": name, "name": name, "version": "1.0.0", "license": licence,
                "source": source, "manifest_path": manifest,
            })
        };
        let needs =
            |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        json!({
            "packages": [
                package("whereis-port", json!("MIT OR Apache-2.0"), Value::Null),
                package("a", json!("MIT/Apache-2.0"), json!("registry")),
                package("b", json!("MIT"), json!("registry")),
                package("tests-it", json!("MIT"), json!("registry")),
            ],
            "resolve": { "nodes": [
                { "id": "whereis-port", "deps": [needs("a", Value::Null), needs("tests-it", json!("dev"))] },
                { "id": "a", "deps": [needs("b", Value::Null)] },
                { "id": "b", "deps": [needs("a", json!("build"))] },
                { "id": "tests-it", "deps": [] },
            ]}
        })
    }

    #[test]
    fn what_is_linked_is_listed_and_no_more() {
        let crates = Crates::parse(&example(Path::new("/src"))).unwrap();
        assert_eq!(crates.len(), 3);
        let bom: Value =
            serde_json::from_str(&crates.sbom("2026-01-01T00:00:00Z").unwrap()).unwrap();
        assert_eq!(bom["metadata"]["component"]["purl"], "pkg:cargo/whereis-port@1.0.0");
        let names: Vec<_> =
            bom["components"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(bom["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bom["dependencies"][0]["dependsOn"], json!(["pkg:cargo/b@1.0.0"]));
    }

    #[test]
    fn a_text_that_two_crates_have_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("LICENSE-MIT"), "Permission\r\nis\n\n").unwrap();
        }
        let crates = Crates::parse(&example(dir.path())).unwrap();
        let text = crates.licences(&[("musl", "musl's text".to_owned())]).unwrap();
        assert!(text.contains("\na 1.0.0: MIT/Apache-2.0\nb 1.0.0: MIT\n"), "{text}");
        assert_eq!(text.matches("Permission\nis").count(), 1, "{text}");
        assert!(text.contains("\na 1.0.0, b 1.0.0\n---"), "{text}");
        assert!(text.contains("\nmusl\n---") && text.ends_with("\nmusl's text\n"), "{text}");
    }
}
