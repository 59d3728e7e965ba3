//! The store of a recorder of events: a directory of files that are only ever added to.
//!
//! ```text
//! lock                    held by the recorder: one at a time
//! events-00000007.log     CHECKSUM {"seq":…}   one line for each entry, oldest file first
//! events-00000008.log
//! ```
//!
//! An embedded database would keep readers out while a recorder runs. Here an entry counts once
//! its line is whole, and was acknowledged once it is on the disk (`fdatasync`). A line that was
//! cut by a crash is at the end of a file, for a recorder never adds to the file of another.
//! What is too old or too much is whole files; each begins with all that listens then.

mod reader;
mod writer;

use std::path::Path;

use sha2::{Digest as _, Sha256};

use whereis_port_model::HistoryEntry;

pub use reader::{StoredHistory, read};
pub use writer::{StoreError, StoreLimits, Writer};

/// How many digits a line's checksum has.
const DIGITS: usize = 16;
/// The longest line that is read.
const LONGEST: usize = 64 << 10;
const LOCK: &str = "lock";

/// The line of an entry.
fn line(entry: &HistoryEntry) -> Option<String> {
    let json = serde_json::to_string(entry).ok()?;
    Some(format!("{} {json}\n", checksum(json.as_bytes())))
}

/// The entry of a line without its end; `None` for one that is damaged.
fn parse(line: &[u8]) -> Option<HistoryEntry> {
    let (sum, json) = line.split_at_checked(DIGITS)?;
    let json = json.strip_prefix(b" ")?;
    if checksum(json).as_bytes() != sum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn checksum(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
}

/// The number of a file of entries, by its name.
fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("events-")?.strip_suffix(".log")?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

fn name(number: u64) -> String {
    format!("events-{number:08}.log")
}

/// The files of entries in a directory with their sizes, oldest first.
#[expect(clippy::disallowed_methods, reason = "the user names the directory")]
fn files(directory: &Path) -> std::io::Result<Vec<(u64, u64)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(number) {
            all.push((number, entry.metadata().map_or(0, |meta| meta.len())));
        }
    }
    all.sort_unstable();
    Ok(all)
}

#[cfg(test)]
mod tests;
