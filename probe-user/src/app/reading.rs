//! Files that somebody names on the command line.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::Failure;

/// The text of a file, which has no more than so many bytes.
pub(super) fn text(path: &Path, most: u64) -> Result<String, Failure> {
    let refused =
        |error: io::Error| Failure::Usage(format!("can't read {}: {error}", path.display()));
    // A pipe would be waited for, and a terminal could become that of this process.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(refused)?;
    if !file.metadata().map_err(refused)?.is_file() {
        return Err(Failure::Usage(format!("{} is not a file", path.display())));
    }
    let mut text = String::new();
    let length = file.take(most + 1).read_to_string(&mut text).map_err(refused)?;
    if u64::try_from(length).is_ok_and(|length| length > most) {
        let limit = most >> 20;
        return Err(Failure::Usage(format!("{} has more than {limit} MiB", path.display())));
    }
    Ok(text)
}
