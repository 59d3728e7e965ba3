//! Where the configuration of the screen is, and what is wrong with it.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::super::Failure;
use crate::view;
use crate::view::tui::config::Config;

/// The largest configuration that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// The file that is read when none is named.
fn usual() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = set("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")))?;
    Some(base.join("whereis-port/config.toml"))
}

/// The configuration: of a file that is named, else of the usual one, which need not be.
pub(super) fn read(named: Option<&Path>) -> Result<Config, Failure> {
    match text(named)? {
        Some((path, text)) => parse(&path, &text),
        None => Ok(Config::default()),
    }
}

/// Says whether the configuration is right.
pub(super) fn check(named: Option<&Path>, out: &mut impl Write) -> Result<(), Failure> {
    match text(named)? {
        Some((path, text)) => {
            parse(&path, &text)?;
            writeln!(out, "{} is right", shown(&path))?;
        }
        None => {
            let path = usual().map(|path| format!("; it would be {}", shown(&path)));
            writeln!(
                out,
                "there is no configuration, so everything is as usual{}",
                path.unwrap_or_default()
            )?;
        }
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    view::clean(&path.to_string_lossy()).into_owned()
}

fn text(named: Option<&Path>) -> Result<Option<(PathBuf, String)>, Failure> {
    let Some(path) = named.map(Path::to_owned).or_else(usual) else { return Ok(None) };
    let refused =
        |error: io::Error| Failure::Usage(format!("can't read {}: {error}", path.display()));
    // A pipe would be waited for, and a terminal could become that of this process.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
        Ok(file) => file,
        // HOME may be another user's, as after `su` or `sudo -u`.
        Err(error) if named.is_none() && is_not_ours(&error) => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    if !file.metadata().map_err(refused)?.is_file() {
        return Err(Failure::Usage(format!("{} is not a file", path.display())));
    }
    let mut text = String::new();
    let length = file.take(LARGEST + 1).read_to_string(&mut text).map_err(refused)?;
    if u64::try_from(length).is_ok_and(|length| length > LARGEST) {
        return Err(Failure::Usage(format!(
            "{} is too large for a configuration (more than {} MiB)",
            path.display(),
            LARGEST >> 20
        )));
    }
    Ok(Some((path, text)))
}

fn is_not_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

fn parse(path: &Path, text: &str) -> Result<Config, Failure> {
    Config::parse(text).map_err(|wrong| {
        let wrong = wrong.iter();
        let lines =
            wrong.map(|wrong| format!("{}:{}: {}", path.display(), wrong.line, wrong.message));
        let lines: Vec<String> = lines.collect();
        Failure::Usage(lines.join("\nwhereis-port: "))
    })
}
