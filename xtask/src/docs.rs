//! `cargo xtask docs`: the README, the book in `docs`, and whatever else is written beside code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{sh, test};

/// What to do with the documents.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the answers of all examples and the page of codes anew. Look at the difference.
    #[arg(long)]
    write: bool,
}

/// A README is read before it is known whether it is worth it.
const README_BYTES: usize = 10_000;

const BOOK: &str = "docs/src";
const CONTENTS: &str = "docs/src/SUMMARY.md";

/// Checks or writes what is generated, checks all links, and builds the book.
pub(crate) fn run(args: &Args) -> Result<()> {
    test::build_programs(None)?;
    let tests = ["--workspace", "--test", "e2e", "--test", "interface", "--", "the_book"];
    let mut generated = sh::cargo(&["test", "--locked"]);
    if args.write {
        generated.env("UPDATE_GOLDEN", "1").env("UPDATE_SCHEMA", "1");
    }
    sh::run(generated.args(tests))?;
    check()?;
    if sh::find("mdbook").is_none() {
        sh::shout(
            "mdbook is not installed: everything was checked, the HTML was NOT built.\n\
             It takes: cargo install --locked --no-default-features mdbook",
        );
        return Ok(());
    }
    sh::run(Command::new("mdbook").arg("build").arg(sh::workspace().join("docs")))?;
    println!("{}", sh::workspace().join("target/book/index.html").display());
    Ok(())
}

/// Whether all links lead somewhere, the book is whole, and the README is short.
pub(crate) fn check() -> Result<()> {
    let mut documents = BTreeMap::new();
    read_all(sh::workspace(), Path::new(""), &mut documents)?;
    let is_file = |path: &Path| sh::workspace().join(path).exists();
    let problems = problems(&documents, is_file);
    if !problems.is_empty() {
        bail!("in the documents:\n{}", problems.join("\n"));
    }
    eprintln!("docs: {} documents, all links lead somewhere", documents.len());
    Ok(())
}

/// Every Markdown file of the sources, by its path in there.
fn read_all(root: &Path, below: &Path, documents: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    let directory = root.join(below);
    let entries = fs::read_dir(&directory);
    for entry in entries.with_context(|| format!("reading {}", directory.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let path = below.join(&name);
        let hidden = name.to_string_lossy().starts_with('.') && name != ".github";
        let made = name == "target" || name == "node_modules";
        if entry.file_type()?.is_dir() {
            if !hidden && !made {
                read_all(root, &path, documents)?;
            }
        } else if path.extension().is_some_and(|ending| ending == "md") {
            let text = fs::read_to_string(entry.path());
            documents.insert(path.clone(), text.with_context(|| format!("reading {path:?}"))?);
        }
    }
    Ok(())
}

/// What is wrong with the documents.
fn problems(documents: &BTreeMap<PathBuf, String>, is_file: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in documents {
        for link in links(text) {
            if let Err(problem) = follow(path, &link, documents, &is_file) {
                problems.push(format!("{}: {link}: {problem}", path.display()));
            }
        }
    }
    if let Some(readme) = documents.get(Path::new("README.md"))
        && readme.len() > README_BYTES
    {
        let length = readme.len();
        problems.push(format!("README.md: {length} bytes, at most {README_BYTES} are wanted"));
    }
    let contents = documents.get(Path::new(CONTENTS)).map_or("", String::as_str);
    let mut listed = BTreeSet::new();
    for link in links(contents) {
        let page = Path::new(BOOK).join(&link);
        if !listed.insert(page) {
            problems.push(format!("{CONTENTS}: {link} is there twice"));
        }
    }
    for page in documents.keys().filter(|path| path.starts_with(BOOK)) {
        if !listed.contains(page) && page != Path::new(CONTENTS) {
            problems.push(format!("{}: it is not in SUMMARY.md", page.display()));
        }
    }
    problems
}

/// Whether a link of this document leads somewhere.
fn follow(
    from: &Path,
    link: &str,
    documents: &BTreeMap<PathBuf, String>,
    is_file: impl Fn(&Path) -> bool,
) -> Result<(), &'static str> {
    if ["https://", "http://", "mailto:"].iter().any(|begin| link.starts_with(begin)) {
        return Ok(());
    }
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let to = match file {
        "" => from.to_owned(),
        file => {
            let directory = from.parent().unwrap_or(Path::new(""));
            normal(&directory.join(file)).ok_or("it leads out of the sources")?
        }
    };
    if !is_file(&to) {
        return Err("there is no such file");
    }
    let is_picture = to.extension().is_some_and(|kind| kind == "svg");
    let is_page = is_picture || documents.contains_key(&to);
    if from.starts_with(BOOK) && !(is_page && to.starts_with(BOOK)) {
        return Err("a page of the book links to other pages and pictures only");
    }
    match documents.get(&to) {
        _ if heading.is_empty() => Ok(()),
        Some(text) if anchors(text).contains(heading) => Ok(()),
        Some(_) => Err("there is no such heading"),
        None => Err("only documents have headings"),
    }
}

/// The path without `.` and `..`, if it stays inside.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => normal.push(name),
            Component::CurDir => {}
            Component::ParentDir if normal.pop() => {}
            _ => return None,
        }
    }
    Some(normal)
}

/// The lines that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// Where the links of a document lead.
fn links(text: &str) -> Vec<String> {
    // A link's text may go on in the next line.
    let prose = prose(text).collect::<Vec<_>>().join("\n");
    // What stands in backquotes is code.
    let words: String = prose.split('`').step_by(2).collect::<Vec<_>>().join("");
    let targets = words.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// The anchors of a document's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter_map(|line| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len()).then(|| heading.strip_prefix(' ')).flatten()
    });
    headings.map(anchor).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|character| match character {
        ' ' => Some('-'),
        '-' | '_' => Some(character),
        _ => character.is_alphanumeric().then(|| character.to_ascii_lowercase()),
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(documents: &[(&str, &str)]) -> Vec<String> {
        let documents: BTreeMap<PathBuf, String> =
            documents.iter().map(|(path, text)| (path.into(), (*text).to_owned())).collect();
        let is_file = |path: &Path| documents.contains_key(path) || path == Path::new("LICENSE");
        problems(&documents, is_file)
    }

    #[test]
    fn links_that_lead_somewhere_are_no_problem() {
        let summary = ("docs/src/SUMMARY.md", "- [A](a.md)\n- [B](b/b.md)\n");
        let a = "# A\n[b](b/b.md#how-fast-is-it) [here](#a) [x](https://example.org)\n";
        let b =
            "# B\n\n## How fast is `it`?\n[a](../a.md)\n`[no](link.md)`\n```sh\n[no](x.md)\n```\n";
        let readme = ("README.md", "[the\nbook](docs/src/a.md) [licence](LICENSE)\n");
        let all = [summary, ("docs/src/a.md", a), ("docs/src/b/b.md", b), readme];
        assert_eq!(told(&all), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_is_wrong_is_told() {
        let summary = ("docs/src/SUMMARY.md", "- [A](a.md)\n- [A](a.md)\n");
        let a = "# A\n[b](#b) [c](c.md) [out](../../LICENSE) [far](../../../x)\n";
        let readme = format!("{}\n", "x".repeat(README_BYTES));
        let lost = ("docs/src/lost.md", "# Lost\n");
        let all = [summary, ("docs/src/a.md", a), lost, ("README.md", &readme)];
        let told = told(&all);
        for (at, part) in [
            "a.md: #b: there is no such heading",
            "c.md: there is no such file",
            "LICENSE: a page of the book links to other pages and pictures only",
            "x: it leads out of the sources",
            "README.md: 10001 bytes",
            "a.md is there twice",
            "lost.md: it is not in SUMMARY.md",
        ]
        .iter()
        .enumerate()
        {
            assert!(told[at].contains(part), "{told:#?}");
        }
        assert_eq!(told.len(), 7, "{told:#?}");
    }
}
