//! Writing to a store: one process at a time, and nothing is acknowledged before it is on the
//! disk.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use thiserror::Error;

use super::{LOCK, files, line, name, reader};
use whereis_port_model::{HistoryEntry, HistoryRecord, Moment};

/// In how many files a store is: so much of it goes at once when there is too much.
const FILES: u64 = 8;
/// The smallest file: more than what listens on a usual node.
const SMALLEST: u64 = 64 << 10;
/// For so long the clock must not have been set before anything is too old by it.
const STEADY: Duration = Duration::from_secs(3600);

/// How long events are kept, and how much room they may take.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    /// For how long.
    pub keep: Duration,
    /// How many bytes altogether.
    pub size: u64,
}

/// Why a store can't be written to.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another recorder writes to it.
    #[error("{directory}: another recorder writes there{}", .pid.map_or_else(String::new, |pid| format!(" (pid {pid})")))]
    InUse {
        /// The store.
        directory: String,
        /// The other one.
        pid: Option<u32>,
    },
    /// The system says so.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What came of it.
        error: io::Error,
    },
}

/// A file that was begun in this run or an earlier one.
#[derive(Debug)]
struct Old {
    number: u64,
    size: u64,
    /// Of its last entry.
    last: Option<(String, Moment)>,
}

/// The one who writes.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    limits: StoreLimits,
    // The lock is let go with it.
    _lock: File,
    old: VecDeque<Old>,
    file: File,
    number: u64,
    /// How much of the file is whole lines that are on the disk.
    size: u64,
    /// Whether there is more in it than that, which could not be taken away.
    broken: bool,
    boot: String,
    next: u64,
    first: Option<Moment>,
    last: Option<Moment>,
    /// Since when the clock was not set.
    steady: Option<Moment>,
}

impl Writer {
    /// Opens a store, and makes it where there is none. Gives what ended last as well.
    ///
    /// # Errors
    /// When another process writes to it, or it can't be written to.
    pub fn open(directory: &Path, limits: StoreLimits, boot: &str) -> Result<Self, StoreError> {
        let failed = |what: &str| {
            let what = format!("{what} {}", directory.display());
            move |error| StoreError::Io { what, error }
        };
        if !directory.is_dir() {
            let mut builder = std::fs::DirBuilder::new();
            let builder = builder.recursive(true).mode(0o700);
            builder.create(directory).map_err(failed("making"))?;
        }
        let lock = lock(directory)?;
        let all = files(directory).map_err(failed("reading"))?;
        let mut old = VecDeque::new();
        let mut next = 1;
        for (number, size) in all {
            old.push_back(Old { number, size, last: None });
        }
        // Ages are those of the last entries.
        let mut ends: Vec<(u64, HistoryEntry)> = Vec::new();
        for file in &mut old {
            let last =
                reader::last(&directory.join(name(file.number))).map_err(failed("reading"))?;
            file.last = last.as_ref().map(|entry| (entry.boot.clone(), entry.at));
            ends.extend(last.map(|entry| (file.number, entry)));
        }
        if let Some((_, entry)) = ends.last() {
            next = entry.seq + 1;
        }
        let number = old.back().map_or(1, |last| last.number + 1);
        let file = create(directory, number)?;
        Ok(Self {
            directory: directory.to_owned(),
            limits,
            _lock: lock,
            old,
            file,
            number,
            size: 0,
            broken: false,
            boot: boot.to_owned(),
            next,
            first: None,
            last: None,
            steady: None,
        })
    }

    /// Adds entries, and comes back when they are on the disk: all of them, or on an error none.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn append(
        &mut self,
        entries: Vec<(Moment, HistoryRecord)>,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        if self.broken {
            self.turn()?;
        }
        let mut next = self.next;
        let mut text = String::new();
        let mut all = Vec::with_capacity(entries.len());
        for (at, what) in entries {
            let entry = HistoryEntry { seq: next, boot: self.boot.clone(), at, what };
            // Nothing in it can't be written as JSON.
            let Some(line) = line(&entry) else { continue };
            text.push_str(&line);
            all.push(entry);
            next += 1;
        }
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What is there of it must not be taken for a line, nor be in the way of the next.
            let seek = io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.size));
            self.broken = self.file.set_len(self.size).and(seek).is_err();
            // What a disk failed to take it may have forgotten: another file is safe.
            self.broken |= error.kind() != io::ErrorKind::StorageFull;
            let what = format!("writing {}", self.directory.join(name(self.number)).display());
            return Err(StoreError::Io { what, error });
        }
        self.next = next;
        self.size += text.len() as u64;
        for entry in &all {
            self.clock(entry.at);
        }
        Ok(all)
    }

    /// Notices when the clock is set.
    fn clock(&mut self, at: Moment) {
        let offset = |at: Moment| i128::from(at.wall) - i128::from(at.mono);
        let is_set = self.last.is_none_or(|last| (offset(last) - offset(at)).abs() > SECOND);
        if is_set {
            self.steady = Some(at);
        }
        self.first.get_or_insert(at);
        self.last = Some(at);
    }

    /// Whether the file is so large or so old that another one is due: what listens has to be
    /// written first there.
    pub fn is_full(&self) -> bool {
        let lasts = match (self.first, self.last) {
            (Some(first), Some(last)) => last.mono.saturating_sub(first.mono),
            _ => 0,
        };
        let long = self.limits.keep / u32::try_from(FILES).unwrap_or(1);
        self.size > (self.limits.size / FILES).max(SMALLEST) || u128::from(lasts) > long.as_nanos()
    }

    /// Begins a new file, and removes those that are too old or too much.
    ///
    /// # Errors
    /// When the file can't be made; then the old one is used on.
    pub fn turn(&mut self) -> Result<(), StoreError> {
        let file = create(&self.directory, self.number + 1)?;
        let last = self.last.map(|last| (self.boot.clone(), last));
        self.old.push_back(Old { number: self.number, size: self.size, last });
        (self.file, self.size, self.broken) = (file, 0, false);
        self.number += 1;
        self.first = None;
        self.prune();
        Ok(())
    }

    /// Removes files that are too old or too much, oldest first. What is in use stays.
    pub fn prune(&mut self) {
        loop {
            let total: u64 = self.size + self.old.iter().map(|old| old.size).sum::<u64>();
            // The one in use grows.
            let room = self.limits.size - (self.limits.size / FILES).min(self.limits.size);
            let Some(oldest) = self.old.front() else { return };
            if total <= room && !self.is_old(oldest) {
                return;
            }
            let path = self.directory.join(name(oldest.number));
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::debug!("removing {}: {error}", path.display());
                    return;
                }
            }
            self.old.pop_front();
        }
    }

    /// Whether all of a file is too old: by the clock that nobody sets where it is of this
    /// boot, else by the other one, if that was not set lately.
    fn is_old(&self, file: &Old) -> bool {
        let (Some(now), Some((boot, last))) = (self.last, &file.last) else { return false };
        let age = if *boot == self.boot {
            now.mono.saturating_sub(last.mono)
        } else {
            let since = self.steady.map_or(0, |since| now.mono.saturating_sub(since.mono));
            if u128::from(since) < STEADY.as_nanos() {
                return false;
            }
            now.wall.saturating_sub(last.wall)
        };
        u128::from(age) > self.limits.keep.as_nanos()
    }

    /// How many bytes the store has.
    pub fn total(&self) -> u64 {
        self.size + self.old.iter().map(|old| old.size).sum::<u64>()
    }
}

/// A clock that was moved by more than this was set.
const SECOND: i128 = 1_000_000_000;

/// Takes the lock, or says who has it.
fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join(LOCK);
    let failed = |error| StoreError::Io { what: format!("opening {}", path.display()), error };
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = (&file).take(32).read_to_string(&mut text);
            return Err(StoreError::InUse {
                directory: directory.display().to_string(),
                pid: text.trim().parse().ok(),
            });
        }
        Err(error) => return Err(failed(error.into())),
    }
    // For the message of the next one alone: a full disk does not matter.
    let _ = file.set_len(0);
    let _ = file.write_all(format!("{}\n", std::process::id()).as_bytes());
    Ok(file)
}

/// A new file, whose name is on the disk as well.
fn create(directory: &Path, number: u64) -> Result<File, StoreError> {
    let path = directory.join(name(number));
    let failed = |error| StoreError::Io { what: format!("making {}", path.display()), error };
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    #[expect(clippy::disallowed_methods, reason = "the user names the directory")]
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(file)
}
