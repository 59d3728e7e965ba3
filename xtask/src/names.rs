//! Names of types. One word names one type, so that whoever searches for it finds what it means.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::sh;

/// What the interfaces of Kubernetes, of container runtimes and of `clap` call their own things.
const SHARED: &str = "Command Container ContainerStatus Endpoint Filter Node Pod PodIp Service";

/// Where tests are, and the JSON documents, whose types are those of the model once more.
const LEFT_OUT: &[&str] = &["differential", "fixtures", "json", "tests"];

/// Whether all types of the tool and of the rules have names of their own.
pub(crate) fn check() -> Result<()> {
    let mut types = BTreeMap::new();
    for package in ["", "model/", "node/", "resolve/", "rules/", "view/"] {
        read(&Path::new("probe-user").join(package).join("src"), &mut types)?;
    }
    types.retain(|name, at| at.len() > 1 && !SHARED.split(' ').any(|shared| shared == name));
    if !types.is_empty() {
        bail!("several types have one name, which does not tell which is meant:\n{types:#?}");
    }
    Ok(())
}

fn read(below: &Path, types: &mut BTreeMap<String, Vec<PathBuf>>) -> Result<()> {
    let reading = || format!("reading {}", below.display());
    for entry in fs::read_dir(sh::workspace().join(below)).with_context(reading)? {
        let path = below.join(entry.with_context(reading)?.file_name());
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if LEFT_OUT.contains(&stem.as_str()) || stem.ends_with("_tests") {
            continue;
        }
        if path.extension().is_none() {
            read(&path, types)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(sh::workspace().join(&path)).with_context(reading)?;
            let mut lines = text.lines();
            while let Some(line) = lines.next() {
                let opens = |line: &str| line.contains("mod ") && line.ends_with('{');
                if line == "#[cfg(test)]" && lines.clone().next().is_some_and(opens) {
                    lines.by_ref().find(|line| *line == "}");
                } else if let Some(name) = defined(line) {
                    types.entry(name.to_owned()).or_default().push(path.clone());
                }
            }
        }
    }
    Ok(())
}

/// The type that a line defines; an indented alias is one that a trait asks for.
fn defined(line: &str) -> Option<&str> {
    let item = line.trim_start();
    let item = match item.strip_prefix("pub") {
        Some(scoped) if scoped.starts_with('(') => scoped.split_once(") ")?.1,
        Some(public) => public.trim_start(),
        None => item,
    };
    let (kind, name) = item.split_once(' ')?;
    let defines = matches!(kind, "struct" | "enum" | "trait" | "union")
        || (kind == "type" && !line.starts_with(' '));
    let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (defines && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_told_from_other_lines() {
        for line in [
            "struct Packet;",
            "pub enum Packet<'a> {",
            "pub(in crate::node) struct Packet(u64);",
            "    struct Packet {",
            "type Packet<T> = Vec<T>;",
        ] {
            assert_eq!(defined(line), Some("Packet"), "{line}");
        }
        for line in ["    type Item = u8;", "/// A struct Packet.", "impl Packet {", "pub fn of()"]
        {
            assert_eq!(defined(line), None, "{line}");
        }
    }

    #[test]
    fn every_type_has_a_name_of_its_own() {
        check().unwrap();
    }
}
