//! The packages of a release, as `cargo xtask dist --all` has left them: installed and used.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::{Docker, Test};

/// The package whose name ends so, or why there is nothing to test.
fn packed(end: &str) -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("dist");
    let files = std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let found = files
        .filter(|file| file.file_name().is_some_and(|n| n.to_string_lossy().ends_with(end)))
        .max();
    if found.is_none() {
        lab::show_skipped(&format!(
            "{} has no {end}: cargo xtask dist --all makes it",
            dir.display()
        ));
    }
    found
}

/// What a program printed that succeeded.
fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {} {error}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Installs with `install` into a directory that has nothing else, and asks what was installed.
fn installed(install: impl FnOnce(&Path) -> Result<()>) -> Test {
    let dir = tempfile::tempdir()?;
    install(dir.path())?;
    let version =
        said(Command::new("chroot").arg(dir.path()).args(["/usr/bin/whereis-port", "--version"]))?;
    ensure!(version.starts_with("whereis-port "), "{version}");
    // No /proc in there: it says so, and nothing of libraries.
    let asked =
        Command::new("chroot").arg(dir.path()).args(["/usr/bin/whereis-port", "9"]).output()?;
    let error = String::from_utf8_lossy(&asked.stderr);
    ensure!(error.contains("/proc") && !error.contains("panicked"), "{asked:?}");
    for file in [
        "usr/share/man/man1/whereis-port.1.gz",
        "usr/share/bash-completion/completions/whereis-port",
        "usr/share/fish/vendor_completions.d/whereis-port.fish",
        "usr/share/doc/whereis-port/LICENSES-of-crates.gz",
    ] {
        ensure!(dir.path().join(file).is_file(), "{file} was not installed");
    }
    Ok(())
}

#[test]
fn the_deb_is_installed_and_runs_where_nothing_else_is() -> Test {
    lab::root_or_skip!();
    let Some(file) = packed("_amd64.deb") else { return Ok(()) };
    installed(|root| {
        for dir in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
            std::fs::create_dir_all(root.join(dir))?;
        }
        for list in ["status", "available"] {
            std::fs::write(root.join("var/lib/dpkg").join(list), "")?;
        }
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("--root").arg(root).args(["--force-not-root", "--install"]).arg(&file);
        said(&mut dpkg)?;
        let mut query = Command::new("dpkg-query");
        query.arg("--admindir").arg(root.join("var/lib/dpkg"));
        let status =
            said(query.args(["--show", "--showformat=${Status} ${Conffiles}", "whereis-port"]))?;
        ensure!(status.trim() == "install ok installed", "{status}");
        Ok(())
    })
}

#[test]
fn the_rpm_is_installed_and_runs_where_nothing_else_is() -> Test {
    lab::root_or_skip!();
    let Some(file) = packed(".x86_64.rpm") else { return Ok(()) };
    if said(Command::new("rpm").arg("--version")).is_err() {
        lab::show_skipped("rpm is missing: apt-get install rpm");
        return Ok(());
    }
    installed(|root| {
        let mut rpm = Command::new("rpm");
        said(rpm.arg("--root").arg(root).args(["--install", "--nosignature"]).arg(&file))?;
        Ok(())
    })
}

#[test]
fn docker_loads_the_image_and_runs_it() -> Test {
    lab::docker_or_skip!();
    let Some(file) = packed("-oci.tar") else { return Ok(()) };
    let docker = Docker::shared()?;
    let loaded = docker.cli(&["load", "--input", &file.display().to_string()])?;
    let tag = loaded
        .lines()
        .find_map(|line| line.strip_prefix("Loaded image: ").filter(|tag| tag.ends_with("-amd64")))
        .with_context(|| format!("no image for this processor: {loaded}"))?;
    ensure!(loaded.contains("-arm64"), "{loaded}");
    let version = docker.cli(&["run", "--rm", "--network", "none", tag, "--version"])?;
    ensure!(version.starts_with("whereis-port "), "{version}");
    // The agents' command, as in deploy/agents.yaml, is found on the image's search path.
    let mut run = vec!["run", "--rm", "--network", "none", "--entrypoint", "whereis-port"];
    run.extend([tag, "doctor", "--help"]);
    ensure!(docker.cli(&run)?.contains("Usage"), "doctor has no help");
    Ok(())
}
