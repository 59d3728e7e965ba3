//! `cargo xtask dist`: packs what a release consists of.

mod arch;
mod crates;
mod image;
mod krew;
mod musl;
mod packages;
mod tar;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::sh;

pub(crate) use arch::Arch;
use tar::{Tar, compress, gzip, sha256, write};

/// What to pack.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only if this is the tag of this version, and CHANGELOG.md has a heading with a date for it.
    ///
    /// Its section is written to notes.md beside the archive.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,

    /// A static binary for this: x86_64-unknown-linux-musl or aarch64-unknown-linux-musl.
    ///
    /// Packed as .tar.gz and .tar.zst. May be given twice.
    #[arg(long, value_name = "TARGET", value_parser = target, conflicts_with = "all")]
    target: Vec<Arch>,

    /// All that a release has: static binaries for both processors, and packages of them.
    ///
    /// Archives, .deb, .rpm, an image for containers, the list of crates (SBOM), their licences,
    /// krew's manifest, and SHA256SUMS.
    #[arg(long)]
    all: bool,

    /// Builds each static binary twice, in two directories, and fails unless they are the same.
    #[arg(long)]
    verify: bool,

    /// Packs DIR/TARGET/whereis-port instead of building.
    #[arg(long, value_name = "DIR", conflicts_with = "verify")]
    from: Option<PathBuf>,
}

const COMPLETIONS: &[(&str, &str)] =
    &[("bash", "whereis-port.bash"), ("zsh", "_whereis-port"), ("fish", "whereis-port.fish")];

const DOCUMENTS: &[&str] = &["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

fn target(name: &str) -> Result<Arch, String> {
    Arch::of_target(name).ok_or_else(|| {
        let known = Arch::ALL.map(Arch::target).join(" or ");
        format!("static binaries can be had for {known}")
    })
}

/// Builds and packs into `target/dist`, with checksums.
pub(crate) fn run(args: &Args) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let notes = args.tag.as_deref().map(|tag| notes_of(tag, version)).transpose()?;
    let dist = sh::target_dir()?.join("dist");
    if args.all {
        // Better before than after half an hour of building.
        packages::tools()?;
    }
    let arches = if args.all { Arch::ALL.to_vec() } else { args.target.clone() };
    if arches.is_empty() {
        ensure!(!args.verify, "--verify is for static binaries: give --target or --all, too");
        ensure!(args.from.is_none(), "--from is for static binaries: give --target or --all, too");
        dynamic(&dist, version)?;
    } else {
        let binaries = binaries(args, &arches)?;
        // Nothing of another version gets among the checksums.
        if dist.exists() {
            fs::remove_dir_all(&dist).with_context(|| format!("emptying {}", dist.display()))?;
        }
        Release::read(version, &arches, &binaries)?.pack(&dist, &binaries, args.all)?;
    }
    if let Some(notes) = notes {
        write(&dist.join("notes.md"), notes.as_bytes())?;
    }
    Ok(())
}

/// The static binaries, built or found.
fn binaries(args: &Args, arches: &[Arch]) -> Result<Vec<(Arch, PathBuf)>> {
    if let Some(dir) = &args.from {
        let found = |arch: &Arch| {
            let file = std::path::absolute(dir)?.join(arch.target()).join("whereis-port");
            musl::is_static(&file, *arch)?;
            Ok((*arch, file))
        };
        return arches.iter().map(found).collect();
    }
    let tools = musl::Tools::find()?;
    let target = sh::target_dir()?.join("static");
    let mut binaries = Vec::new();
    for arch in arches {
        let binary = tools.build(*arch, sh::workspace(), &target)?;
        println!("{}: static, for {}", binary.display(), arch.name());
        if args.verify {
            tools.verify(*arch, &binary)?;
        }
        binaries.push((*arch, binary));
    }
    Ok(binaries)
}

/// What all packages of a version have.
struct Release {
    content: packages::Content,
    crates: crates::Crates,
    /// The time of its commit, as RFC 3339 writes it.
    date: String,
}

impl Release {
    /// From the sources, and from the binary that this machine can run.
    fn read(version: &str, arches: &[Arch], binaries: &[(Arch, PathBuf)]) -> Result<Self> {
        let time = time()?;
        let mut date = Command::new("date");
        date.args(["--utc", "+%Y-%m-%dT%H:%M:%SZ", "--date"]).arg(format!("@{time}"));
        let date = sh::capture(&mut date)?.trim().to_owned();
        let crates = crates::Crates::read(arches)?;
        let licences = crates.licences(&libraries()?)?;
        let native = binaries.iter().find(|(arch, _)| Some(*arch) == Arch::host());
        let speaker = match native {
            Some((_, binary)) => binary.clone(),
            // Manual page and completions come out of the program.
            None => {
                let build = ["build", "--locked", "--package", "whereis-port"];
                sh::run(&mut sh::cargo(&build))?;
                sh::target_dir()?.join("debug/whereis-port")
            }
        };
        let say = |args: &[&str]| sh::capture(Command::new(&speaker).args(args));
        let completions = COMPLETIONS
            .iter()
            .map(|(shell, _)| Ok((*shell, say(&["completions", shell])?)))
            .collect::<Result<Vec<_>>>()?;
        let changelog = fs::read_to_string(sh::workspace().join("CHANGELOG.md"))
            .context("reading CHANGELOG.md")?;
        let man = say(&["man"])?;
        let version = version.to_owned();
        let content = packages::Content { version, man, completions, changelog, licences, time };
        Ok(Self { content, crates, date })
    }

    /// Writes the packages into `dist`: archives, or all that there is.
    fn pack(&self, dist: &Path, binaries: &[(Arch, PathBuf)], all: bool) -> Result<()> {
        fs::create_dir_all(dist).with_context(|| format!("making {}", dist.display()))?;
        let mut files = Vec::new();
        let mut put = |name: String, bytes: &[u8]| {
            write(&dist.join(&name), bytes)?;
            files.push(name);
            Ok::<(), anyhow::Error>(())
        };
        let mut archives = Vec::new();
        for (arch, binary) in binaries {
            let name = format!("whereis-port-{}-{}", self.content.version, arch.target());
            let archive = self.archive(&name, binary)?;
            let packed = gzip(&archive)?;
            let file = format!("{name}.tar.gz");
            archives.push(krew::Archive {
                arch: *arch,
                file: file.clone(),
                sha256: sha256(&packed),
            });
            put(file, &packed)?;
            // One thread: the number of processors would change the bytes.
            let packed = compress("zstd", &["-19", "--single-thread", "-q", "-c"], &archive)?;
            put(format!("{name}.tar.zst"), &packed)?;
        }
        if all {
            let version = &self.content.version;
            put(
                format!("whereis-port-{version}.cdx.json"),
                self.crates.sbom(&self.date)?.as_bytes(),
            )?;
            put(format!("whereis-port-{version}-LICENSES.txt"), self.content.licences.as_bytes())?;
            let manifest = krew::manifest(version, env!("CARGO_PKG_REPOSITORY"), &archives);
            put("whereis-port.krew.yaml".to_owned(), manifest.as_bytes())?;
            put(format!("whereis-port-{version}-oci.tar"), &self.image(binaries)?)?;
            for (arch, binary) in binaries {
                for file in [
                    packages::deb(dist, *arch, binary, &self.content)?,
                    packages::rpm(dist, *arch, binary, &self.content)?,
                ] {
                    let name = file.file_name().and_then(|name| name.to_str());
                    files.push(name.context("a package has no name")?.to_owned());
                }
            }
        }
        files.sort();
        let mut sums = String::new();
        for name in &files {
            let file = dist.join(name);
            let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            sums += &format!("{}  {name}\n", sha256(&bytes));
            println!("{:>9} kB  {}", bytes.len() / 1000, file.display());
        }
        write(&dist.join("SHA256SUMS"), sums.as_bytes())?;
        println!(
            "{} crates; checksums in {}",
            self.crates.len(),
            dist.join("SHA256SUMS").display()
        );
        Ok(())
    }

    /// Binary, manual page, completions and documents, below a directory of this name.
    fn archive(&self, name: &str, binary: &Path) -> Result<Vec<u8>> {
        let mut tar = Tar::new(self.content.time);
        let read =
            |file: &Path| fs::read(file).with_context(|| format!("reading {}", file.display()));
        tar.dir(name, 0o755)?;
        tar.file(&format!("{name}/whereis-port"), 0o755, &read(binary)?)?;
        tar.file(&format!("{name}/whereis-port.1"), 0o644, self.content.man.as_bytes())?;
        tar.dir(&format!("{name}/completions"), 0o755)?;
        for ((_, text), (_, file)) in self.content.completions.iter().zip(COMPLETIONS) {
            tar.file(&format!("{name}/completions/{file}"), 0o644, text.as_bytes())?;
        }
        for document in DOCUMENTS {
            let content = read(&sh::workspace().join(document))?;
            tar.file(&format!("{name}/{document}"), 0o644, &content)?;
        }
        let licences = self.content.licences.as_bytes();
        tar.file(&format!("{name}/LICENSES-of-crates"), 0o644, licences)?;
        for dir in ["deploy", "docs", "docs/src"] {
            tar.dir(&format!("{name}/{dir}"), 0o755)?;
        }
        tar.tree(&sh::workspace().join("deploy"), &format!("{name}/deploy"))?;
        tar.tree(&sh::workspace().join("docs/src"), &format!("{name}/docs/src"))?;
        Ok(tar.finish())
    }

    fn image(&self, binaries: &[(Arch, PathBuf)]) -> Result<Vec<u8>> {
        let content = image::Content {
            version: &self.content.version,
            licences: &self.content.licences,
            certificates: &image::certificates(Path::new(image::CERTIFICATES))?,
            time: self.content.time,
            date: &self.date,
        };
        let read = |(arch, file): &(Arch, PathBuf)| {
            Ok((*arch, fs::read(file).with_context(|| format!("reading {}", file.display()))?))
        };
        image::pack(&content, &binaries.iter().map(read).collect::<Result<Vec<_>>>()?)
    }
}

/// The time that everything is said to be from: `SOURCE_DATE_EPOCH`, or the last commit's.
fn time() -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            let log = ["log", "-1", "--format=%ct"];
            sh::capture(Command::new("git").current_dir(sh::workspace()).args(log))
                .context("SOURCE_DATE_EPOCH is not set, and git knows no commit")?
        }
    };
    text.trim().parse().with_context(|| format!("the time {text:?} is no number of seconds"))
}

/// What is linked beside crates: the name, and the text of the licence.
fn libraries() -> Result<Vec<(&'static str, String)>> {
    let mut texts = Vec::new();
    let Ok(tools) = musl::Tools::find() else {
        eprintln!("the licences of musl and libunwind are left out: zig is not installed here");
        return Ok(texts);
    };
    let lib = tools.zig_lib().context("zig has no directory lib")?;
    for (name, file) in
        [("musl", "libc/musl/COPYRIGHT"), ("LLVM's libunwind", "libunwind/LICENSE.TXT")]
    {
        let file = lib.join(file);
        let text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        texts.push((name, text));
    }
    texts.push((
        "Rust's standard library",
        "MIT or Apache-2.0, as you like: the same texts as above. Copyright (c) The Rust Project \
         contributors. https://github.com/rust-lang/rust/blob/master/COPYRIGHT"
            .to_owned(),
    ));
    Ok(texts)
}

/// What is linked with the C library of this machine: `whereis-port-VERSION-ARCH.tar.gz`.
fn dynamic(dist: &Path, version: &str) -> Result<()> {
    let target = sh::target_dir()?;
    sh::run(&mut sh::cargo(&["build", "--release", "--locked", "--package", "whereis-port"]))?;
    let binary = target.join("release/whereis-port");

    let name = format!("whereis-port-{version}-{}", std::env::consts::ARCH);
    let content = dist.join(&name);
    if content.exists() {
        fs::remove_dir_all(&content).with_context(|| format!("emptying {}", content.display()))?;
    }
    fs::create_dir_all(content.join("completions"))
        .with_context(|| format!("making {}", content.display()))?;

    copy(&binary, &content.join("whereis-port"))?;
    for document in DOCUMENTS {
        copy(&sh::workspace().join(document), &content.join(document))?;
    }
    copy_all(&sh::workspace().join("docs/src"), &content.join("docs/src"))?;
    save(&binary, &["man"], &content.join("whereis-port.1"))?;
    for (shell, file) in COMPLETIONS {
        save(&binary, &["completions", shell], &content.join("completions").join(file))?;
    }

    let archive = format!("{name}.tar.gz");
    // The same content gives the same order and owners, whoever packs it.
    let tidy = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner"];
    sh::run(Command::new("tar").current_dir(dist).args(tidy).arg("-czf").args([&archive, &name]))?;
    let checksum = sh::capture(Command::new("sha256sum").current_dir(dist).arg(&archive))?;
    write(&dist.join(format!("{archive}.sha256")), checksum.as_bytes())?;
    println!("{}", dist.join(&archive).display());
    print!("{checksum}");
    Ok(())
}

/// What the changelog says of the version that this tag is for.
fn notes_of(tag: &str, version: &str) -> Result<String> {
    ensure!(
        tag.strip_prefix('v') == Some(version),
        "the tag {tag} is not that of version {version}: it would be v{version}"
    );
    let file = sh::workspace().join("CHANGELOG.md");
    let changelog = fs::read_to_string(file).context("reading CHANGELOG.md")?;
    section(&changelog, version).with_context(|| {
        format!("CHANGELOG.md has no heading \"## {version}: DATE\", as 2027-01-31 is a date")
    })
}

/// The section of a changelog for a version that was released.
fn section(changelog: &str, version: &str) -> Option<String> {
    let mut lines = changelog.lines().skip_while(|line| {
        let heading = line.strip_prefix("## ").and_then(|rest| rest.strip_prefix(version));
        !heading.and_then(|rest| rest.strip_prefix(": ")).is_some_and(is_date)
    });
    lines.next()?;
    let section: Vec<&str> = lines.take_while(|line| !line.starts_with("## ")).collect();
    Some(section.join("\n").trim().to_owned() + "\n")
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let digits = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    parts.iter().map(|part| part.len()).eq([4, 2, 2]) && parts.iter().all(digits)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

/// A directory with all below it: the pages that the README refers to.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &to)?;
        } else {
            copy(&entry.path(), &to)?;
        }
    }
    Ok(())
}

/// Writes what the binary prints to a file.
fn save(binary: &Path, args: &[&str], to: &Path) -> Result<()> {
    let text = sh::capture(Command::new(binary).args(args))?;
    fs::write(to, text).with_context(|| format!("writing {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_with_a_date_has_notes() {
        let changelog = "# Changelog\n\n## 0.2.0: 2027-03-01\n\nNew.\n\n- a\n\n## 0.1.0: 2027-01-31\n\nFirst.\n";
        assert_eq!(section(changelog, "0.2.0").as_deref(), Some("New.\n\n- a\n"));
        assert_eq!(section(changelog, "0.1.0").as_deref(), Some("First.\n"));
        assert_eq!(section(changelog, "0.1"), None);
        assert_eq!(section("## Unreleased: 0.1.0\n\nFirst.\n", "0.1.0"), None);
        assert_eq!(section("## 0.1.0: soon\n\nFirst.\n", "0.1.0"), None);
    }

    #[test]
    fn a_release_of_stand_ins_is_whole() {
        if ["dpkg-deb", "rpmbuild", "zstd"].iter().any(|program| sh::find(program).is_none())
            || !Path::new(image::CERTIFICATES).is_dir()
        {
            eprintln!("SKIPPED: dpkg-deb, rpmbuild, zstd or ca-certificates is missing");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("stand-in");
        fs::write(&binary, "no program").unwrap();
        let release = Release {
            content: packages::Content {
                version: "1.2.3".into(),
                man: "man".into(),
                completions: COMPLETIONS.iter().map(|(shell, _)| (*shell, "c".into())).collect(),
                changelog: "c".into(),
                licences: "l".into(),
                time: 1_700_000_000,
            },
            crates: crates::Crates::read(&Arch::ALL).unwrap(),
            date: "2023-11-14T22:13:20Z".into(),
        };
        let binaries = Arch::ALL.map(|arch| (arch, binary.clone()));
        let mut sums = Vec::new();
        for name in ["one", "two"] {
            let dist = dir.path().join(name);
            release.pack(&dist, &binaries, true).unwrap();
            let check = ["--check", "--quiet", "SHA256SUMS"];
            sh::capture(Command::new("sha256sum").current_dir(&dist).args(check)).unwrap();
            sums.push(fs::read_to_string(dist.join("SHA256SUMS")).unwrap());
        }
        // The same content is packed to the same bytes.
        assert_eq!(sums[0], sums[1]);
        let names: Vec<_> = sums[0].lines().filter_map(|l| Some(l.split_once("  ")?.1)).collect();
        assert_eq!(
            names,
            [
                "whereis-port-1.2.3-1.aarch64.rpm",
                "whereis-port-1.2.3-1.x86_64.rpm",
                "whereis-port-1.2.3-LICENSES.txt",
                "whereis-port-1.2.3-aarch64-unknown-linux-musl.tar.gz",
                "whereis-port-1.2.3-aarch64-unknown-linux-musl.tar.zst",
                "whereis-port-1.2.3-oci.tar",
                "whereis-port-1.2.3-x86_64-unknown-linux-musl.tar.gz",
                "whereis-port-1.2.3-x86_64-unknown-linux-musl.tar.zst",
                "whereis-port-1.2.3.cdx.json",
                "whereis-port.krew.yaml",
                "whereis-port_1.2.3-1_amd64.deb",
                "whereis-port_1.2.3-1_arm64.deb",
            ]
        );
    }

    #[test]
    fn a_target_that_can_not_be_had_is_refused_with_those_that_can() {
        assert_eq!(target("aarch64-unknown-linux-musl"), Ok(Arch::Aarch64));
        let refused = target("riscv64gc-unknown-linux-musl").unwrap_err();
        assert!(refused.ends_with("x86_64-unknown-linux-musl or aarch64-unknown-linux-musl"));
    }

    #[test]
    fn a_tag_of_another_version_is_refused() {
        let refused = notes_of("v9.9.9", "0.1.0").unwrap_err().to_string();
        assert!(refused.contains("it would be v0.1.0"), "{refused}");
    }
}
