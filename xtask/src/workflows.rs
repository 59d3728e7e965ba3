//! The workflows of the forge, in `.github`: read by a linter, for nothing here can run them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::sh;

/// The version of the linter, which comes from PyPI as a program that downloads nothing.
pub(crate) const ZIZMOR: &str = "1.32.0";

/// The linter that is installed, or that `setup` has put beside the builds.
pub(crate) fn linter() -> Result<Option<PathBuf>> {
    let ours = sh::target_dir()?.join("zizmor/bin/zizmor");
    Ok(sh::find("zizmor").or_else(|| ours.is_file().then_some(ours)))
}

/// Puts the linter beside the builds. Where PyPI can't be reached, all but `check` does without.
pub(crate) fn install() -> Result<()> {
    eprintln!("setup: installing zizmor {ZIZMOR}: checks the workflows in .github");
    let to = sh::target_dir()?.join("zizmor");
    let mut install = Command::new("pip3");
    install.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
    if let Err(error) = sh::run(install.arg(to).arg(format!("zizmor=={ZIZMOR}"))) {
        sh::shout(&format!("zizmor is NOT installed: {error:#}\nThe workflows won't be checked."));
    }
    Ok(())
}

/// Whether the linter finds nothing, with its strictest rules.
pub(crate) fn check() -> Result<()> {
    let Some(linter) = linter()? else {
        sh::shout("workflows NOT checked: zizmor is not installed; run cargo xtask setup");
        return Ok(());
    };
    let directory = sh::workspace().join(".github");
    let mut lint = Command::new(linter);
    sh::run(lint.args(["--quiet", "--offline", "--persona=auditor"]).arg(directory))
}
