//! Archives that are the same whoever packs them: owners, order and times are given.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

/// An archive in the format ustar (POSIX.1-1988) that grows in memory.
#[derive(Debug)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
    /// Seconds since 1970 that every entry is said to be from.
    time: u64,
}

const BLOCK: usize = 512;

impl Tar {
    pub(crate) fn new(time: u64) -> Self {
        Self { bytes: Vec::new(), time }
    }

    /// A directory, without those above it.
    pub(crate) fn dir(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(&format!("{path}/"), b'5', mode, &[])
    }

    /// A file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(path, b'0', mode, content)
    }

    /// All below `root`, as `prefix/…`, in the order of names. What its owner may run, all may.
    pub(crate) fn tree(&mut self, root: &Path, prefix: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let reading = || format!("reading {}", root.display());
        let mut entries = fs::read_dir(root)
            .with_context(reading)?
            .collect::<Result<Vec<_>, _>>()
            .with_context(reading)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_str().with_context(|| format!("the name of {}", path.display()))?;
            let inside =
                if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            if entry.file_type()?.is_dir() {
                self.dir(&inside, 0o755)?;
                self.tree(&path, &inside)?;
            } else {
                let runs = entry.metadata()?.permissions().mode() & 0o100 != 0;
                let content =
                    fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
                self.file(&inside, if runs { 0o755 } else { 0o644 }, &content)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, kind: u8, mode: u32, content: &[u8]) -> Result<()> {
        let (prefix, name) = split(path).with_context(|| format!("{path} is too long a name"))?;
        ensure!(content.len() < 1 << 33, "{path} is too big for this kind of archive");
        let mut head = [0; BLOCK];
        let mut put = |at: usize, text: &[u8]| head[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000"); // uid
        put(116, b"0000000"); // gid
        put(124, format!("{:011o}", content.len()).as_bytes());
        put(136, format!("{:011o}", self.time).as_bytes());
        put(148, b"        "); // the sum counts as blanks while it is made
        put(156, &[kind]);
        put(257, b"ustar\x0000");
        put(265, b"root");
        put(297, b"root");
        put(345, prefix.as_bytes());
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(head);
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

/// A path as the two fields that it goes into.
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= 100 {
        return Some(("", path));
    }
    // A directory's own slash, at the end, parts nothing.
    let inner = path.trim_end_matches('/');
    let mut slashes = inner.match_indices('/').map(|(at, _)| (&path[..at], &path[at + 1..]));
    slashes.find(|(prefix, name)| prefix.len() <= 155 && name.len() <= 100)
}

/// What `program` makes of `content`: gzip, xz, zstd.
pub(crate) fn compress(program: &str, args: &[&str], content: &[u8]) -> Result<Vec<u8>> {
    let mut file = tempfile::tempfile().context("making a temporary file")?;
    file.write_all(content).context("writing a temporary file")?;
    std::io::Seek::rewind(&mut file)?;
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::from(file))
        .output()
        .with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!("{program}: {} {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// Like `gzip -9`, without name and time.
pub(crate) fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    compress("gzip", &["-9n"], content)
}

/// The SHA-256 in hexadecimal.
pub(crate) fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes `content` to a file.
pub(crate) fn write(file: &Path, content: &[u8]) -> Result<()> {
    let writing = || format!("writing {}", file.display());
    File::create(file).and_then(|mut to| to.write_all(content)).with_context(writing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gnu_tar_reads_what_is_written() {
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
        let mut tar = Tar::new(1_700_000_000);
        tar.dir("bin", 0o755).unwrap();
        tar.file("bin/true", 0o755, b"#!/bin/sh\n").unwrap();
        tar.file(&long, 0o644, &[b'x'; 600]).unwrap();
        assert!(tar.file(&"n".repeat(101), 0o644, b"").is_err());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.tar");
        write(&file, &tar.finish()).unwrap();
        let list = ["--list", "--verbose", "--utc", "--full-time", "--file"];
        let text = crate::sh::capture(Command::new("tar").args(list).arg(&file)).unwrap();
        let lines: Vec<String> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "drwxr-xr-x root/root 0 2023-11-14 22:13:20 bin/".to_owned(),
                "-rwxr-xr-x root/root 10 2023-11-14 22:13:20 bin/true".to_owned(),
                format!("-rw-r--r-- root/root 600 2023-11-14 22:13:20 {long}"),
            ]
        );
    }

    #[test]
    fn sums_and_packing_are_those_of_the_programs() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let packed = gzip(b"abc").unwrap();
        assert_eq!(compress("gzip", &["-dc"], &packed).unwrap(), b"abc");
        assert_eq!(packed, gzip(b"abc").unwrap());
        assert!(compress("gzip", &["-dc"], b"no gzip").is_err());
    }
}
