//! A recording as a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize as _};
use serde_json::error::Category;

use super::{Recorded, Recording};
use whereis_port_model::escape::SafeJson;

/// The largest recording that is read, in bytes: far above what a big node
/// gives, and far below what would use up the memory of one.
const LARGEST: u64 = 512 << 20;

/// Why a recording can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file can't be read.
    #[error("can't read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is larger than any recording.
    #[error("{} is too large for a recording (more than {} MiB)", path.display(), LARGEST >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not a whereis-port recording", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file ends too early, or does not hold what a recording holds.
    #[error("{} is truncated or damaged at line {line} column {column}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, from 1 on.
        line: usize,
        /// Where in the line, in bytes.
        column: usize,
        /// What was found there.
        reason: String,
    },
    /// A later version of the tool made it.
    #[error(
        "{} was made by a newer whereis-port (version {version} of the format); \
         this one reads up to {}",
        path.display(),
        Recording::VERSION
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// What is there already is no file that may be replaced.
    #[error("won't write the {of} to {}: it is {what}", path.display())]
    NotAFile {
        /// What would be written.
        of: &'static str,
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The file can't be written.
    #[error("can't write the {of} to {}: {error}", path.display())]
    Unwritable {
        /// What was to be written.
        of: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl Recording {
    /// Writes it to `path`, readable by its owner only. A regular file is
    /// replaced; a symbolic link or anything else is refused.
    pub fn save(&self, path: &Path) -> Result<(), RecordingError> {
        save_private(path, "recording", |file| self.write(file))
    }

    fn write(&self, file: File) -> io::Result<()> {
        let mut out = BufWriter::new(file);
        // Who looks at the file in a terminal must not see what names make of that.
        let formatter = SafeJson::pretty();
        self.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// Reads one from `path`.
    #[expect(clippy::disallowed_methods, reason = "the user names it; it is read with a limit")]
    pub fn load(path: &Path) -> Result<Self, RecordingError> {
        let unreadable = |error| RecordingError::Unreadable { path: path.to_owned(), error };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        // A pipe has no size, and a file may grow: what is read is limited too.
        let size = file.metadata().map_err(unreadable)?.len();
        if size <= LARGEST {
            file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        }
        if size.max(u64::try_from(bytes.len()).unwrap_or(u64::MAX)) > LARGEST {
            return Err(RecordingError::TooLarge { path: path.to_owned() });
        }
        Self::parse(&bytes, path)
    }

    /// Reads one from what `path` holds.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, RecordingError> {
        let foreign = || RecordingError::Foreign { path: path.to_owned() };
        let damaged = |error: &serde_json::Error| RecordingError::Damaged {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
            reason: reason(error),
        };
        // The format first, for the rest means something only if it is this one.
        let header: FileHeader = serde_json::from_slice(bytes).map_err(|error| {
            let ours = starts_like_one(bytes);
            match error.classify() {
                Category::Data => foreign(),
                _ if ours => damaged(&error),
                _ => foreign(),
            }
        })?;
        if header.format.as_ref().and_then(|f| f.as_str()) != Some(Self::FORMAT) {
            return Err(foreign());
        }
        let version = header.version.as_ref().and_then(serde_json::Value::as_u64);
        if let Some(version) = version.filter(|v| *v > u64::from(Self::VERSION)) {
            return Err(RecordingError::Newer { path: path.to_owned(), version });
        }
        serde_json::from_slice(bytes).map_err(|error| damaged(&error))
    }
}

impl Recorded {
    /// A node that answers from the recording in the file `path`.
    pub fn load(path: &Path) -> Result<Self, RecordingError> {
        Recording::load(path).map(Self::new)
    }
}

/// What a file of every version of the format has.
#[derive(Deserialize)]
struct FileHeader {
    format: Option<serde_json::Value>,
    version: Option<serde_json::Value>,
}

/// Whether the bytes begin as a recording does, as far as they go: what is cut
/// off early is damaged, not foreign.
fn starts_like_one(bytes: &[u8]) -> bool {
    let start: Vec<u8> =
        bytes.iter().take(200).copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let ours = format!("{{\"format\":\"{}\"", Recording::FORMAT);
    let common = start.len().min(ours.len());
    start[..common] == ours.as_bytes()[..common]
}

/// What serde_json says, without the place, which is told apart.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// Writes a file to `path`, readable by its owner only. A regular file is replaced; a symbolic
/// link or anything else is refused. `of` says what it is.
///
/// # Errors
/// Why it can't be written.
pub fn save_private(
    path: &Path,
    of: &'static str,
    write: impl FnOnce(File) -> io::Result<()>,
) -> Result<(), RecordingError> {
    let unwritable = |error| RecordingError::Unwritable { of, path: path.to_owned(), error };
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(found) => {
            let what = if found.is_symlink() {
                "a symbolic link"
            } else if found.is_dir() {
                "a directory"
            } else {
                "not a regular file"
            };
            return Err(RecordingError::NotAFile { of, path: path.to_owned(), what });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unwritable(error)),
    }
    let (temporary, file) = create_beside(path).map_err(unwritable)?;
    let written = write(file).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        // It may be gone already; there is nothing better to do about it.
        let _ = fs::remove_file(&temporary);
        unwritable(error)
    })
}

/// A new file for its owner only, in the directory of `path`, to be renamed.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    for attempt in 0_u8..=99 {
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}-{attempt}.tmp", std::process::id()));
        let temporary = path.with_file_name(beside);
        // With `create_new` neither a file nor a link that is there is opened.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|file| (temporary, file)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
