//! `cargo xtask publish`: the crates of a release, each whole by itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::sh;

/// What to do with the crates.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Packages and builds them, and publishes nothing.
    #[arg(long)]
    dry_run: bool,
}

/// A crate that is published.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Crate {
    name: String,
    version: String,
    /// Those of the workspace that it needs: they are published before it.
    needs: BTreeSet<String>,
}

/// What every package has in it, beside its sources.
const CONTENT: &[&str] = &["Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// What a package has to have beside that: without it, nobody else can build it.
const EMBEDDED: &[(&str, &str)] = &[
    ("whereis-port", "demo.json"),
    ("whereis-port-node", "prebuilt/probe.o"),
    ("whereis-port-node", "prebuilt/probe.sources"),
];

/// Packages every crate, builds each from its package alone, and publishes them unless it is
/// only tried.
pub(crate) fn run(args: &Args) -> Result<()> {
    let metadata =
        sh::capture(&mut sh::cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let metadata = serde_json::from_str(&metadata).context("cargo metadata prints no JSON")?;
    let crates = in_order(crates(&metadata)?)?;
    let names = crates.iter().flat_map(|each| ["--package", &each.name]);
    let names: Vec<&str> = names.collect();
    // Cargo lays the packages into a registry of its own, from which those are taken that
    // others need: none is built with anything of this directory.
    let mut package = sh::cargo(&["package", "--locked"]);
    package.args(&names);
    if args.dry_run {
        // What is tried may be unfinished.
        package.arg("--allow-dirty");
    }
    sh::run(&mut package)?;
    let packages = sh::target_dir()?.join("package");
    for each in &crates {
        let file = packages.join(format!("{}-{}.crate", each.name, each.version));
        let listed = sh::capture(Command::new("tar").arg("-tzf").arg(&file))?;
        let lacks = lacking(each, &listed);
        ensure!(lacks.is_empty(), "{} has no {}", file.display(), lacks.join(", "));
        let bytes = std::fs::metadata(&file).context("reading a package")?.len();
        println!("{:>6} kB  {}", bytes / 1000, file.display());
    }
    if args.dry_run {
        println!("{} crates, each built from its package alone; none is published", crates.len());
        return Ok(());
    }
    sh::run(sh::cargo(&["publish", "--locked", "--no-verify"]).args(&names))
}

/// The crates of the workspace that are published, from what `cargo metadata` says.
fn crates(metadata: &Value) -> Result<Vec<Crate>> {
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let published = packages.iter().filter(|package| package["publish"].is_null());
    let crates = published.map(|package| {
        let name = package["name"].as_str().context("a package has no name")?.to_owned();
        for field in ["description", "license", "readme", "repository"] {
            ensure!(package[field].is_string(), "{name} has no {field}: crates.io wants one");
        }
        // What only tests need is not needed by who takes the package.
        let needs = package["dependencies"].as_array().into_iter().flatten();
        let needs = needs.filter(|needed| needed["path"].is_string() && needed["kind"].is_null());
        let needs = needs.filter_map(|needed| Some(needed["name"].as_str()?.to_owned())).collect();
        let version = package["version"].as_str().context("a package has no version")?.to_owned();
        Ok(Crate { name, version, needs })
    });
    crates.collect()
}

/// So that each comes behind all that it needs.
fn in_order(mut left: Vec<Crate>) -> Result<Vec<Crate>> {
    let mut order: Vec<Crate> = Vec::new();
    while !left.is_empty() {
        let is_ready = |each: &Crate| {
            each.needs.iter().all(|needed| order.iter().any(|before| before.name == *needed))
        };
        let Some(at) = left.iter().position(is_ready) else {
            let names: Vec<&str> = left.iter().map(|each| each.name.as_str()).collect();
            bail!("{} need each other, or one that is not published", names.join(", "));
        };
        order.push(left.remove(at));
    }
    Ok(order)
}

/// What a package should have and has not, by the list of its files.
fn lacking<'a>(of: &Crate, listed: &str) -> Vec<&'a str> {
    let dir = format!("{}-{}", of.name, of.version);
    let files: BTreeSet<&Path> =
        listed.lines().filter_map(|file| Path::new(file).strip_prefix(&dir).ok()).collect();
    let embedded = EMBEDDED.iter().filter(|(name, _)| *name == of.name).map(|(_, file)| file);
    let wanted = CONTENT.iter().chain(embedded).copied();
    wanted.filter(|file| !files.contains(Path::new(file))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(name: &str, needs: &[&str]) -> Crate {
        let needs = needs.iter().map(|name| (*name).to_owned()).collect();
        Crate { name: name.to_owned(), version: "1.0.0".to_owned(), needs }
    }

    #[test]
    fn each_crate_comes_behind_those_that_it_needs() {
        let crates = vec![named("top", &["a", "b"]), named("b", &["a"]), named("a", &[])];
        let order: Vec<_> = in_order(crates).unwrap().into_iter().map(|each| each.name).collect();
        assert_eq!(order, ["a", "b", "top"]);
        let circle = in_order(vec![named("a", &["b"]), named("b", &["a"])]).unwrap_err();
        assert!(circle.to_string().contains("a, b need each other"), "{circle}");
    }

    #[test]
    fn a_package_without_its_licence_or_what_it_embeds_is_not_whole() {
        let listed = "whereis-port-node-1.0.0/Cargo.toml\nwhereis-port-node-1.0.0/LICENSE-MIT\n\
            whereis-port-node-1.0.0/README.md\nwhereis-port-node-1.0.0/prebuilt/probe.sources\n";
        let node = named("whereis-port-node", &[]);
        assert_eq!(lacking(&node, listed), ["LICENSE-APACHE", "prebuilt/probe.o"]);
    }

    #[test]
    fn what_is_not_published_or_has_no_description() {
        let package = |publish: Value, description: Value| {
            json!({ "packages": [{
                "name": "a", "version": "1.0.0", "publish": publish, "description": description,
                "license": "MIT", "readme": "README.md", "repository": "https://example.org",
                "dependencies": [
                    { "name": "b", "path": "/b", "kind": null },
                    { "name": "tests", "path": "/t", "kind": "dev" },
                    { "name": "serde", "kind": null },
                ],
            }] })
        };
        assert_eq!(crates(&package(json!([]), json!("a"))).unwrap(), []);
        let of = crates(&package(Value::Null, json!("a"))).unwrap();
        assert_eq!(of[0].needs, ["b".to_owned()].into());
        let lacks = crates(&package(Value::Null, Value::Null)).unwrap_err().to_string();
        assert!(lacks.contains("a has no description"), "{lacks}");
    }
}
