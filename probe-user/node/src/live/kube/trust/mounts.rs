//! Which file systems are mounted, and which of them nobody but root controls.

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;

use super::Unread;
use crate::live::files::{self, SMALL, TABLE};
use crate::live::mounts::unescape;

/// File systems that the kernel serves by itself, from memory or a disk of this machine.
const LOCAL: [&[u8]; 16] = [
    b"ext2",
    b"ext3",
    b"ext4",
    b"xfs",
    b"btrfs",
    b"zfs",
    b"f2fs",
    b"bcachefs",
    b"jfs",
    b"tmpfs",
    b"devtmpfs",
    b"ramfs",
    b"rootfs",
    b"squashfs",
    b"erofs",
    b"overlay",
];
/// Where file systems are mounted that users bring along.
const OF_USERS: [&str; 2] = ["/media", "/run/media"];
/// The major number of loop devices: a file is their disk.
const LOOP: &[u8] = b"7:";

/// A mount, and why files in it are not trusted.
struct MountPoint {
    id: u64,
    point: PathBuf,
    /// Why it is not trusted, as what is said of a path.
    why: Option<String>,
    /// The directories that an overlay is made of.
    below: Vec<PathBuf>,
}

/// The mounts that this process sees.
pub(super) struct MountView {
    all: Vec<MountPoint>,
}

impl MountView {
    pub(super) fn read() -> Result<Self, Unread> {
        let unknown = |why: String| {
            Err(Unread::Untrusted(format!("which file system it is on can't be told: {why}")))
        };
        // Who mounted what is noted by libmount, where anybody but root may.
        let notes = files::read(CWD, "/run/mount/utab", TABLE).unwrap_or_default();
        match files::read(CWD, "/proc/self/mountinfo", TABLE) {
            Ok(table) if !table.cut && !notes.cut => Ok(Self::parse(&table.bytes, &notes.bytes)),
            Ok(_) => unknown("there are too many mounts".to_owned()),
            Err(error) => unknown(std::io::Error::from(error).to_string()),
        }
    }

    pub(super) fn parse(table: &[u8], notes: &[u8]) -> Self {
        let by_users: Vec<PathBuf> = notes.split(|b| *b == b'\n').filter_map(of_user).collect();
        let mut all: Vec<MountPoint> =
            table.split(|b| *b == b'\n').filter_map(|line| parse(line, &by_users)).collect();
        // An overlay is as good as what is below it, where that can be seen from here.
        let stacked: Vec<(usize, String)> = (0..all.len())
            .filter_map(|at| {
                let of = |dir: &PathBuf| {
                    let holds = all.iter().filter(|mount| dir.starts_with(&mount.point));
                    holds.max_by_key(|mount| mount.point.components().count())
                };
                let why = all[at].below.iter().filter_map(of).find_map(|m| m.why.clone());
                why.map(|why| (at, why))
            })
            .collect();
        for (at, why) in stacked {
            all[at].why.get_or_insert(why);
        }
        Self { all }
    }

    /// Whether what is mounted at a path, if anything is, may be looked at.
    pub(super) fn at(&self, path: &Path) -> Result<(), String> {
        // What was mounted last hides what was there.
        let top = self.all.iter().rev().find(|mount| mount.point == path);
        top.and_then(|mount| mount.why.clone()).map_or(Ok(()), Err)
    }

    /// Whether an open file is on a mount that is trusted.
    pub(super) fn holds(&self, fd: BorrowedFd<'_>) -> Result<(), String> {
        let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        let info = files::text(path, SMALL).unwrap_or_default();
        let id =
            info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok());
        match self.all.iter().find(|mount| Some(mount.id) == id) {
            Some(mount) => mount.why.clone().map_or(Ok(()), Err),
            None => Err("is on a file system that is not known".to_owned()),
        }
    }
}

/// A line like `104 27 7:3 / /run/media/ann/usb rw,nosuid,nodev shared:1 - ext4 /dev/loop3 rw`.
fn parse(line: &[u8], by_users: &[PathBuf]) -> Option<MountPoint> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let id = std::str::from_utf8(fields.first()?).ok()?.parse().ok()?;
    let (device, point, options) = (fields.get(2)?, fields.get(4)?, fields.get(5)?);
    let end = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let kind = *fields.get(end + 1)?;
    let point = unescape(point);
    let has = |wanted: &[u8]| options.split(|b| *b == b',').any(|option| option == wanted);
    let of_user = has(b"nosuid")
        && has(b"nodev")
        && (device.starts_with(LOOP)
            || OF_USERS.iter().any(|dir| point.starts_with(dir))
            || by_users.contains(&point));
    let why = if !LOCAL.contains(&kind) {
        let kind = String::from_utf8_lossy(kind);
        Some(format!("is on {kind}, which is no local file system of root's"))
    } else if of_user {
        Some("is on a file system that a user mounted".to_owned())
    } else {
        None
    };
    let below = match fields.get(end + 3) {
        Some(options) if kind == b"overlay" => layers(options),
        _ => Vec::new(),
    };
    Some(MountPoint { id, point, why, below })
}

/// The directories of an overlay, by its options.
fn layers(options: &[u8]) -> Vec<PathBuf> {
    let dirs = options.split(|b| *b == b',').filter_map(|option| {
        let at = option.iter().position(|b| *b == b'=')?;
        let (name, value) = option.split_at(at);
        let value = value.get(1..)?;
        matches!(name, b"lowerdir" | b"lowerdir+" | b"datadir+" | b"upperdir").then_some(value)
    });
    dirs.flat_map(|dirs| dirs.split(|b| *b == b':'))
        .filter(|dir| dir.starts_with(b"/"))
        .map(unescape)
        .collect()
}

/// The mount point of a line of `/run/mount/utab`, where it is a user's:
/// `SRC=/dev/sdb1 TARGET=/run/media/ann/usb ROOT=/ OPTS=uhelper=udisks2`.
fn of_user(line: &[u8]) -> Option<PathBuf> {
    let fields = || line.split(|b| *b == b' ');
    let options = fields().find_map(|field| field.strip_prefix(b"OPTS="))?;
    let user = |option: &[u8]| option.starts_with(b"uhelper=") || option.starts_with(b"user");
    options.split(|b| *b == b',').any(user).then_some(())?;
    fields().find_map(|field| field.strip_prefix(b"TARGET=")).map(unescape)
}
