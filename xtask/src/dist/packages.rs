//! Packages of distributions: `.deb` by dpkg-deb, `.rpm` by rpmbuild.
//!
//! The binary is static, so that a package depends on nothing and fits every release.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Arch;
use super::tar::{gzip, write};
use crate::sh;

/// What the packages have, but for the binary.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) version: String,
    pub(crate) man: String,
    /// Completions: the shell and the text.
    pub(crate) completions: Vec<(&'static str, String)>,
    pub(crate) changelog: String,
    pub(crate) licences: String,
    /// Seconds since 1970 that all files are said to be from.
    pub(crate) time: u64,
}

const MAINTAINER: &str = "whereis-port authors <whereis-port@users.noreply.github.com>";

const SUMMARY: &str = "tells who is behind a network port";

const DESCRIPTION: &str = "\
whereis-port looks through every network namespace of a node, names the
processes, containers and clusters that hold a port, and follows packet rules,
routes and forwarders from namespace to namespace to where they lead. It says
how each step is known, from where the port can be reached, and if it can't,
why.";

/// A kind of packages, and where it has completions of zsh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Deb,
    Rpm,
}

/// Fills `root` with the files of a package.
fn stage(root: &Path, binary: &Path, content: &Content, kind: Kind) -> Result<()> {
    let put = |path: &str, bytes: &[u8], mode: u32| {
        let file = root.join(path);
        let dir = file.parent().unwrap_or(root);
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        write(&file, bytes)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))
            .with_context(|| format!("the mode of {}", file.display()))
    };
    let bytes = fs::read(binary).with_context(|| format!("reading {}", binary.display()))?;
    put("usr/bin/whereis-port", &bytes, 0o755)?;
    put("usr/share/man/man1/whereis-port.1.gz", &gzip(content.man.as_bytes())?, 0o644)?;
    for (shell, text) in &content.completions {
        let path = match (*shell, kind) {
            ("bash", _) => "usr/share/bash-completion/completions/whereis-port",
            ("fish", _) => "usr/share/fish/vendor_completions.d/whereis-port.fish",
            ("zsh", Kind::Deb) => "usr/share/zsh/vendor-completions/_whereis-port",
            ("zsh", Kind::Rpm) => "usr/share/zsh/site-functions/_whereis-port",
            _ => continue,
        };
        put(path, text.as_bytes(), 0o644)?;
    }
    let doc = "usr/share/doc/whereis-port";
    let licences = gzip(content.licences.as_bytes())?;
    put(&format!("{doc}/LICENSES-of-crates.gz"), &licences, 0o644)?;
    match kind {
        Kind::Deb => {
            put(&format!("{doc}/changelog.gz"), &gzip(content.changelog.as_bytes())?, 0o644)?;
            let debian = gzip(debian_changelog(content)?.as_bytes())?;
            put(&format!("{doc}/changelog.Debian.gz"), &debian, 0o644)?;
            put(&format!("{doc}/copyright"), copyright(content.time)?.as_bytes(), 0o644)?;
            // Linked statically as it is meant to be, and packaged by its authors.
            let overrides = "whereis-port: statically-linked-binary [usr/bin/whereis-port]\n\
                whereis-port: initial-upload-closes-no-bugs [usr/share/doc/whereis-port/changelog.Debian.gz:1]\n";
            put("usr/share/lintian/overrides/whereis-port", overrides.as_bytes(), 0o644)?;
        }
        Kind::Rpm => {
            put(&format!("{doc}/CHANGELOG.md"), content.changelog.as_bytes(), 0o644)?;
            for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
                let text = fs::read(sh::workspace().join(name))
                    .with_context(|| format!("reading {name}"))?;
                put(&format!("usr/share/licenses/whereis-port/{name}"), &text, 0o644)?;
            }
        }
    }
    Ok(())
}

/// Writes `whereis-port_VERSION-1_ARCH.deb` into `to`.
pub(crate) fn deb(to: &Path, arch: Arch, binary: &Path, content: &Content) -> Result<PathBuf> {
    need("dpkg-deb", "dpkg")?;
    let dir = tempfile::tempdir().context("making a temporary directory")?;
    let root = dir.path().join("root");
    stage(&root, binary, content, Kind::Deb)?;
    let files = files(&root)?;
    let mut size = 0;
    let mut sums = String::new();
    for file in &files {
        let path = root.join(file);
        size += fs::metadata(&path)?.len().div_ceil(1024);
        // md5 is what dpkg compares with; nothing is trusted because of it.
        let sum = sh::capture(Command::new("md5sum").current_dir(&root).arg(file))?;
        sums += &sum;
    }
    let control = format!(
        "Package: whereis-port\nVersion: {}-1\nArchitecture: {}\nMaintainer: {MAINTAINER}\n\
         Installed-Size: {size}\nSection: net\nPriority: optional\nHomepage: {}\n\
         Description: {SUMMARY}\n {}\n",
        content.version,
        arch.debian(),
        env!("CARGO_PKG_REPOSITORY"),
        DESCRIPTION.replace('\n', "\n "),
    );
    let debian = root.join("DEBIAN");
    fs::create_dir(&debian).with_context(|| format!("making {}", debian.display()))?;
    write(&debian.join("control"), control.as_bytes())?;
    write(&debian.join("md5sums"), sums.as_bytes())?;
    modes(&root)?;
    let file = to.join(format!("whereis-port_{}-1_{}.deb", content.version, arch.debian()));
    let mut build = Command::new("dpkg-deb");
    build.env("SOURCE_DATE_EPOCH", content.time.to_string());
    build.args(["--root-owner-group", "-Zxz", "--build"]).args([&root, &file]);
    sh::capture(&mut build)?;
    Ok(file)
}

/// Writes `whereis-port-VERSION-1.ARCH.rpm` into `to`.
pub(crate) fn rpm(to: &Path, arch: Arch, binary: &Path, content: &Content) -> Result<PathBuf> {
    need("rpmbuild", "rpm")?;
    let dir = tempfile::tempdir().context("making a temporary directory")?;
    let root = dir.path().join("root");
    stage(&root, binary, content, Kind::Rpm)?;
    modes(&root)?;
    let list: Vec<String> = files(&root)?
        .iter()
        .map(|file| {
            let mark = match file {
                _ if file.starts_with("usr/share/licenses") => "%license ",
                _ if file.starts_with("usr/share/doc") => "%doc ",
                _ => "",
            };
            format!("{mark}/{file}")
        })
        .collect();
    // The summary is not a sentence in Debian, and begins with a capital here.
    let spec = format!(
        "Name: whereis-port\nVersion: {}\nRelease: 1\nSummary: T{}\nLicense: MIT OR Apache-2.0\n\
         URL: {}\nAutoReqProv: no\n%description\n{DESCRIPTION}\n%install\nmkdir -p %{{buildroot}}\n\
         cp -a {}/. %{{buildroot}}/\n%files\n%defattr(-,root,root,-)\n{}\n",
        content.version,
        &SUMMARY[1..],
        env!("CARGO_PKG_REPOSITORY"),
        root.display(),
        list.join("\n"),
    );
    let file = dir.path().join("whereis-port.spec");
    write(&file, spec.as_bytes())?;
    let mut build = Command::new("rpmbuild");
    build
        .env("SOURCE_DATE_EPOCH", content.time.to_string())
        .args(["-bb", "--quiet", "--target", &format!("{}-linux", arch.name())])
        .arg("--define")
        .arg(format!("_topdir {}", dir.path().join("build").display()))
        .arg("--define")
        .arg(format!("_rpmdir {}", dir.path().join("out").display()));
    let constants = [
        "_rpmfilename whereis-port.rpm",
        // What is packed is finished: nothing is stripped, packed anew or looked through.
        "__os_install_post %{nil}",
        "debug_package %{nil}",
        "_build_id_links none",
        "_buildhost localhost",
        "_binary_payload w9.gzdio",
        "use_source_date_epoch_as_buildtime 1",
        "clamp_mtime_to_source_date_epoch 1",
    ];
    for constant in constants {
        build.args(["--define", constant]);
    }
    sh::capture(build.arg(&file))?;
    let name = format!("whereis-port-{}-1.{}.rpm", content.version, arch.name());
    let file = to.join(name);
    fs::copy(dir.path().join("out/whereis-port.rpm"), &file)
        .with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

/// Whether what makes packages is there.
pub(crate) fn tools() -> Result<()> {
    need("dpkg-deb", "dpkg")?;
    need("rpmbuild", "rpm")?;
    need("zstd", "zstd")
}

fn need(program: &str, package: &str) -> Result<()> {
    ensure!(sh::find(program).is_some(), "{program} is missing: apt-get install {package}");
    Ok(())
}

/// Every file below `root`, relative to it, in order.
fn files(root: &Path) -> Result<Vec<String>> {
    let mut find = Command::new("find");
    let text = sh::capture(find.current_dir(root).args([".", "-type", "f", "-printf", "%P\\n"]))?;
    let mut files: Vec<String> = text.lines().map(str::to_owned).collect();
    files.sort();
    Ok(files)
}

/// Directories get the mode that they have on every system, whatever the mask here is.
fn modes(root: &Path) -> Result<()> {
    let mut chmod = Command::new("find");
    chmod.arg(root).args(["-type", "d", "-exec", "chmod", "0755", "{}", "+"]);
    sh::capture(&mut chmod)?;
    let metadata = root.join("DEBIAN");
    for entry in fs::read_dir(&metadata).into_iter().flatten().flatten() {
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// The changelog of the package, which says no more than the other one's place.
fn debian_changelog(content: &Content) -> Result<String> {
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").args(["--utc", "--rfc-email", "--date"]);
    let date = sh::capture(date.arg(format!("@{}", content.time)))?;
    Ok(format!(
        "whereis-port ({}-1) unstable; urgency=medium\n\n  * Made by its authors from version {}: \
         see changelog.gz.\n\n -- {MAINTAINER}  {}\n",
        content.version,
        content.version,
        date.trim()
    ))
}

/// As <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/> says.
fn copyright(time: u64) -> Result<String> {
    // The notice has no year in the sources, and Debian wants one: that of the last change.
    let year = 1970 + time / 31_556_952;
    let mit = fs::read_to_string(sh::workspace().join("LICENSE-MIT"))?;
    // After the title and the line of the authors.
    let (_, text) = mit.split_once("\n\nPermission").context("LICENSE-MIT has another form")?;
    let text = format!("Permission{text}");
    let body: Vec<String> = text
        .trim_end()
        .lines()
        .map(|line| if line.trim().is_empty() { " .".to_owned() } else { format!(" {line}") })
        .collect();
    Ok(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: whereis-port\nSource: {}\nComment: The binary has code of other crates in \
         it.\n Their licences are in LICENSES-of-crates.gz beside this file.\n\nFiles: *\n\
         Copyright: {year} the whereis-port authors\nLicense: Expat or Apache-2.0\n\nLicense: Expat\n{}\n\n\
         License: Apache-2.0\n On Debian systems, the text of the Apache License 2.0 is in\n \
         /usr/share/common-licenses/Apache-2.0.\n",
        env!("CARGO_PKG_REPOSITORY"),
        body.join("\n"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packages of a program that is none.
    fn example(dir: &Path) -> (PathBuf, Content) {
        let binary = dir.join("stand-in");
        fs::write(&binary, "#!/bin/sh\necho \"$0 $*\"\n").unwrap();
        let content = Content {
            version: "1.2.3".to_owned(),
            man: ".TH whereis-port 1\n".to_owned(),
            completions: vec![("bash", "b".into()), ("zsh", "z".into()), ("fish", "f".into())],
            changelog: "# Changelog\n".to_owned(),
            licences: "all of them\n".to_owned(),
            time: 1_700_000_000,
        };
        (binary, content)
    }

    #[test]
    fn a_deb_has_what_it_says_and_nothing_of_the_machine() {
        if sh::find("dpkg-deb").is_none() {
            eprintln!("SKIPPED: dpkg-deb is missing");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (binary, content) = example(dir.path());
        let file = deb(dir.path(), Arch::Aarch64, &binary, &content).unwrap();
        assert!(file.ends_with("whereis-port_1.2.3-1_arm64.deb"), "{}", file.display());
        let first = fs::read(&file).unwrap();
        deb(dir.path(), Arch::Aarch64, &binary, &content).unwrap();
        assert_eq!(first, fs::read(&file).unwrap());
        let ask = |args: &[&str]| {
            sh::capture(Command::new("dpkg-deb").arg(args[0]).arg(&file).args(&args[1..])).unwrap()
        };
        assert_eq!(ask(&["--field", "Architecture"]).trim(), "arm64");
        assert_eq!(ask(&["--field", "Depends"]).trim(), "");
        let list = ask(&["--contents"]);
        for (mode, path) in [
            ("-rwxr-xr-x root/root", "./usr/bin/whereis-port"),
            ("-rw-r--r-- root/root", "./usr/share/man/man1/whereis-port.1.gz"),
            ("-rw-r--r-- root/root", "./usr/share/bash-completion/completions/whereis-port"),
            ("-rw-r--r-- root/root", "./usr/share/zsh/vendor-completions/_whereis-port"),
            ("-rw-r--r-- root/root", "./usr/share/doc/whereis-port/copyright"),
            ("drwxr-xr-x root/root", "./usr/"),
        ] {
            let found =
                list.lines().any(|l| l.starts_with(mode) && l.ends_with(&format!(" {path}")));
            assert!(found, "{mode} {path} is not in\n{list}");
        }
        assert!(!list.contains("./etc/"), "{list}");
    }

    #[test]
    fn an_rpm_has_what_it_says_and_nothing_of_the_machine() {
        if sh::find("rpmbuild").is_none() || sh::find("rpm").is_none() {
            eprintln!("SKIPPED: rpm is missing: apt-get install rpm");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (binary, content) = example(dir.path());
        let file = rpm(dir.path(), Arch::Aarch64, &binary, &content).unwrap();
        assert!(file.ends_with("whereis-port-1.2.3-1.aarch64.rpm"), "{}", file.display());
        let first = fs::read(&file).unwrap();
        rpm(dir.path(), Arch::Aarch64, &binary, &content).unwrap();
        assert_eq!(first, fs::read(&file).unwrap());
        let ask = |args: &[&str]| {
            sh::capture(Command::new("rpm").arg("--query").args(args).arg("--package").arg(&file))
                .unwrap()
        };
        assert_eq!(ask(&["--queryformat", "%{arch} %{buildhost}"]), "aarch64 localhost");
        assert_eq!(ask(&["--configfiles"]), "");
        let list = ask(&["--queryformat", "[%{filemodes:perms} %{fileusername} %{filenames}\\n]"]);
        assert!(list.contains("-rwxr-xr-x root /usr/bin/whereis-port\n"), "{list}");
        assert!(list.contains("/usr/share/zsh/site-functions/_whereis-port\n"), "{list}");
        assert!(list.contains("/usr/share/licenses/whereis-port/LICENSE-MIT\n"), "{list}");
        let needs = ask(&["--requires"]);
        assert!(needs.lines().all(|line| line.starts_with("rpmlib(")), "{needs}");
    }
}
