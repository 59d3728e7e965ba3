//! The programs that are run: the tool, `lab-helper` and others.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, ensure};

/// The tool to test: `WHEREIS_PORT_BIN`, or the one that cargo built beside the
/// tests, built now when it is not there or old.
///
/// # Errors
/// When it can't be built.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find_binary().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow!("{error}"))
}

fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WHEREIS_PORT_BIN") {
        return std::fs::canonicalize(&path).with_context(|| format!("WHEREIS_PORT_BIN {path:?}"));
    }
    let dir = programs()?;
    let path = dir.join("whereis-port");
    // `cargo test` builds the programs of the package it tests only. An old one
    // would give answers that the sources don't.
    let built = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
    if built.is_none_or(|built| newest(&sources()).is_some_and(|edited| edited > built)) {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--package", "whereis-port", "--bin", "whereis-port"]);
        // What cargo says of the package of the tests: build scripts of dependencies look at
        // these, and half of them would be built again. The last is for `xtask test --durations`.
        for (name, _) in std::env::vars_os() {
            let of_tests = |prefix| name.to_str().is_some_and(|name| name.starts_with(prefix));
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "RUSTC_BOOTSTRAP"].into_iter().any(of_tests) {
                build.env_remove(&name);
            }
        }
        if dir.file_name() == Some(OsStr::new("release")) {
            build.arg("--release");
        }
        checked(&mut build)?;
    }
    ensure!(path.exists(), "{} is not there after building it", path.display());
    Ok(path)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("probe-user")
}

/// When the newest file below `dir` was changed.
fn newest(dir: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let times = entries.filter_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => newest(&entry.path()),
        _ => entry.metadata().and_then(|m| m.modified()).ok(),
    });
    times.max()
}

/// `program`, or a copy of it in a place that every user may enter.
pub(crate) fn for_everyone(program: &Path) -> Result<PathBuf> {
    let open = program
        .ancestors()
        .skip(1)
        .all(|dir| std::fs::metadata(dir).is_ok_and(|m| m.permissions().mode() & 0o001 != 0));
    if open {
        return Ok(program.to_owned());
    }
    // Named like a lab, so that the next test process removes it.
    let dir = crate::sweep::dir(&format!("{}{}-999999", crate::sweep::PREFIX, std::process::id()));
    std::fs::create_dir_all(&dir)?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711))?;
    let copy = dir.join(program.file_name().context("no file name")?);
    static COPYING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = COPYING.lock().unwrap_or_else(PoisonError::into_inner);
    if !copy.exists() {
        std::fs::copy(program, &copy).context("copying a program for other users")?;
    }
    Ok(copy)
}

/// Runs a command and returns what it printed, or an error with what it complained of.
pub(crate) fn checked(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The directory that cargo put the programs in: beside the test's own, one up
/// from `deps`.
pub(crate) fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the test's own program")?;
    let dir = own.parent().context("the test's program is nowhere")?;
    Ok(if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir }.to_owned())
}

pub(crate) fn helper() -> Result<PathBuf> {
    let path = programs()?.join("lab-helper");
    ensure!(path.exists(), "{} is not built: cargo build -p e2e", path.display());
    Ok(path)
}
