//! Reading a store, also while a recorder writes to it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use super::{LONGEST, files, name, parse};
use whereis_port_model::HistoryEntry;

/// What was read of a store.
#[derive(Debug, Default)]
pub struct StoredHistory {
    /// The entries, oldest first.
    pub entries: Vec<HistoryEntry>,
    /// How many lines are damaged: not those that a recorder was about to write when it ended.
    pub damaged: u64,
}

/// Reads a store; of the entries those that `wanted` wants.
///
/// # Errors
/// When the directory or a file in it can't be read, or it is no store.
pub fn read(directory: &Path, wanted: impl Fn(&HistoryEntry) -> bool) -> io::Result<StoredHistory> {
    let all = files(directory)?;
    if all.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "nothing was recorded there"));
    }
    let mut stored = StoredHistory::default();
    for (number, _) in all {
        #[expect(clippy::disallowed_methods, reason = "the user names the directory")]
        let file = match File::open(directory.join(name(number))) {
            Ok(file) => file,
            // It was too old, meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        one(BufReader::new(file), &mut stored, &wanted)?;
    }
    Ok(stored)
}

fn one(
    mut file: BufReader<File>,
    stored: &mut StoredHistory,
    wanted: &impl Fn(&HistoryEntry) -> bool,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = u64::try_from(LONGEST).unwrap_or(u64::MAX);
        if (&mut file).take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let Some(whole) = line.strip_suffix(b"\n") else {
            // The last line of a file may be in the middle of being written, or never was.
            if line.len() >= LONGEST {
                stored.damaged += 1;
                file.skip_until(b'\n')?;
                continue;
            }
            return Ok(());
        };
        match parse(whole) {
            Some(entry) if wanted(&entry) => stored.entries.push(entry),
            Some(_) => {}
            None => stored.damaged += 1,
        }
    }
}

/// How much of a file's end is looked at for its last entry.
const TAIL: u64 = 4 * LONGEST as u64;

/// The last whole entry of a file.
pub(super) fn last(path: &Path) -> io::Result<Option<HistoryEntry>> {
    use std::io::{Seek as _, SeekFrom};
    #[expect(clippy::disallowed_methods, reason = "the user names the directory")]
    let mut file = File::open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(bytes.rsplit(|byte| *byte == b'\n').skip(1).find_map(parse))
}
