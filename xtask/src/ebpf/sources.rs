//! Which sources an object was built from: hashes in a small file beside it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// What is known of an object, as kept in the file `.sources` beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// SHA-256 of everything that goes into the object.
    pub(crate) sources: String,
    /// SHA-256 of the object.
    pub(crate) object: String,
    /// The compiler that built it: another one makes other code of the same sources.
    pub(crate) compiler: String,
}

impl Stamp {
    /// The stamp for `object` as built by `compiler` from the tree at `root`.
    pub(crate) fn of(root: &Path, object: &Path, compiler: &str) -> Result<Self> {
        let bytes = read(object)?;
        Ok(Self {
            sources: hash(&inputs(root)?),
            object: hex(&Sha256::digest(bytes)),
            compiler: compiler.to_owned(),
        })
    }

    /// What the file beside `object` says.
    pub(crate) fn read(object: &Path) -> Result<Self> {
        let file = beside(object);
        let text = String::from_utf8_lossy(&read(&file)?).into_owned();
        Self::parse(&text).with_context(|| format!("{} is not complete", file.display()))
    }

    /// Writes the file beside `object`.
    pub(crate) fn write(&self, object: &Path) -> Result<()> {
        let file = beside(object);
        let text = format!(
            "sources {}\nobject {}\nversion {}\ncompiler {}\n",
            self.sources,
            self.object,
            self.version(),
            self.compiler
        );
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    }

    /// A short name of the object: what is pinned of another one is not trusted.
    pub(crate) fn version(&self) -> &str {
        self.object.get(..16).unwrap_or(&self.object)
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
        };
        Some(Self {
            sources: value("sources")?,
            object: value("object")?,
            compiler: value("compiler")?,
        })
    }
}

fn beside(object: &Path) -> PathBuf {
    object.with_extension("sources")
}

/// Everything that goes into the object, by name: the kernel side's own files,
/// the versions of its libraries, and how it is built.
fn inputs(root: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut inputs = Vec::new();
    collect(root, Path::new("probe-ebpf"), &mut inputs)?;
    let lock = String::from_utf8_lossy(&read(&root.join("Cargo.lock"))?).into_owned();
    inputs.extend(libraries(&lock));
    let manifest = String::from_utf8_lossy(&read(&root.join("Cargo.toml"))?).into_owned();
    for section in ["[profile.release]", "[profile.ebpf]"] {
        inputs.push((section.to_owned(), profile(&manifest, section).into_bytes()));
    }
    inputs.push(("flags".to_owned(), super::FLAGS.join("\n").into_bytes()));
    inputs.sort();
    Ok(inputs)
}

/// All Rust files and manifests below `dir`.
fn collect(root: &Path, dir: &Path, inputs: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let entries = root.join(dir);
    let context = || format!("reading {}", entries.display());
    for entry in fs::read_dir(&entries).with_context(context)? {
        let entry = entry.with_context(context)?;
        let path = dir.join(entry.file_name());
        if entry.file_type().with_context(context)?.is_dir() {
            collect(root, &path, inputs)?;
        } else if path.extension().is_some_and(|e| e == "rs") || path.ends_with("Cargo.toml") {
            inputs.push((path.display().to_string(), read(&root.join(&path))?));
        }
    }
    Ok(())
}

/// The libraries for the kernel side, as `Cargo.lock` has them resolved.
fn libraries(lock: &str) -> Vec<(String, Vec<u8>)> {
    lock.split("[[package]]")
        .filter_map(|package| {
            let value = |key: &str| {
                let line = package.lines().find_map(|line| line.strip_prefix(key))?;
                Some(line.strip_prefix(" = \"")?.trim_end_matches('"'))
            };
            let name = value("name")?;
            let ours = name.starts_with("aya-ebpf")
                || name.starts_with("aya-log-ebpf")
                || name == "aya-log-common";
            ours.then(|| {
                let resolved = [value("version"), value("checksum")].map(Option::unwrap_or_default);
                (format!("lock {name}"), resolved.join(" ").into_bytes())
            })
        })
        .collect()
}

/// The settings of one section of the manifest, without comments.
fn profile(manifest: &str, section: &str) -> String {
    manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != section)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n")
}

/// One hash over names and contents. Lengths keep the end of one apart from the
/// start of the next.
fn hash(inputs: &[(String, Vec<u8>)]) -> String {
    let mut hasher = Sha256::new();
    for (name, content) in inputs {
        for part in [name.as_bytes(), content] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("reading {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"aya\"\nversion = \"0.14.0\"\n\n\
        [[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\nchecksum = \"eace\"\n\n\
        [[package]]\nname = \"aya-log-common\"\nversion = \"0.2.0\"\n";

    const MANIFEST: &str = "[workspace]\n[profile.release]\nlto = \"thin\"\n\n# Why.\n\
        [profile.ebpf]\ninherits = \"release\"\nopt-level = 3\n\n\
        [profile.dev]\nopt-level = 1\n";

    /// A tree with all that is hashed, in a directory that goes with it.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            let tree = Self(dir);
            tree.put("Cargo.lock", LOCK);
            tree.put("Cargo.toml", MANIFEST);
            tree.put("probe-ebpf/Cargo.toml", "[package]");
            tree.put("probe-ebpf/src/main.rs", "fn main() {}");
            tree.put("probe-ebpf/common/src/lib.rs", "struct Record;");
            tree
        }

        fn put(&self, file: &str, text: &str) {
            let file = self.0.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }

        fn hash(&self) -> String {
            hash(&inputs(&self.0).unwrap())
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn whatever_goes_in_changes_the_hash() {
        let tree = Tree::new("changes");
        let mut hashes = vec![tree.hash()];
        let changes = [
            ("probe-ebpf/src/main.rs", "fn main() { loop {} }"),
            ("probe-ebpf/src/more.rs", ""),
            ("probe-ebpf/common/src/lib.rs", "struct Other;"),
            ("probe-ebpf/Cargo.toml", "[package]\nname = \"probe\""),
            ("Cargo.lock", &LOCK.replace("0.2.1", "0.2.2")),
            ("Cargo.toml", &MANIFEST.replace("level = 3", "level = 2")),
        ];
        for (file, text) in changes {
            tree.put(file, text);
            let hash = tree.hash();
            assert!(!hashes.contains(&hash), "{file} is not in the hash");
            hashes.push(hash);
        }
    }

    #[test]
    fn whatever_does_not_go_in_leaves_the_hash_alone() {
        let tree = Tree::new("same");
        let before = tree.hash();
        tree.put("probe-user/node/prebuilt/probe.o", "object");
        tree.put("probe-user/node/prebuilt/probe.sources", "sources 00");
        tree.put("probe-user/src/main.rs", "fn main() {}");
        tree.put("Cargo.lock", &LOCK.replace("0.14.0", "0.14.1"));
        tree.put("Cargo.toml", &MANIFEST.replace("# Why.", "# Because."));
        assert_eq!(tree.hash(), before);
    }

    #[test]
    fn moving_text_between_files_changes_the_hash() {
        let pair = |a: &str, b: &str| hash(&[("a".into(), a.into()), ("b".into(), b.into())]);
        assert_ne!(pair("one", "two"), pair("onet", "wo"));
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let tree = Tree::new("stamp");
        tree.put("probe.o", "object");
        let object = tree.0.join("probe.o");
        let stamp = Stamp::of(&tree.0, &object, "rustc 1.96.0 (Debian)").unwrap();
        stamp.write(&object).unwrap();
        assert_eq!(Stamp::read(&object).unwrap(), stamp);
        let text = fs::read_to_string(tree.0.join("probe.sources")).unwrap();
        // The hash of the six letters, as sha256sum prints it.
        assert!(text.contains("\nversion 2958d416d08aa5a4\n"), "{text}");
        assert!(Stamp::parse("sources 00\n").is_none());
    }
}
