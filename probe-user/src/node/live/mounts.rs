//! The network namespaces pinned by mounts, from `/proc/PID/mountinfo`.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// A network namespace bind-mounted somewhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pin {
    /// The inode of the namespace.
    pub(super) inode: u64,
    /// Where it is mounted, below the root of whoever sees that mount.
    pub(super) point: PathBuf,
    /// Whether looking it up may block for ever: see [`may_block`].
    pub(super) blocked: bool,
}

/// Reads a mount table. A mount point need not be UTF-8.
pub(super) fn read(dir: impl AsFd, path: impl rustix::path::Arg) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let fd = rustix::fs::openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::with_capacity(8192);
    // A mount table has no bound of its own; 16 MiB is some 100,000 mounts.
    std::fs::File::from(fd).take(16 << 20).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The namespaces pinned in a mount table. `own` says that it is that of this
/// process, whose root has to answer anyway.
pub(super) fn pins(mountinfo: &[u8], own: bool) -> Vec<Pin> {
    let mounts: Vec<Mount<'_>> =
        mountinfo.split(|b| *b == b'\n').filter_map(Mount::parse).collect();
    let blocking: Vec<PathBuf> = mounts
        .iter()
        .filter(|m| may_block(m.kind))
        .map(|m| unescape(m.point))
        .filter(|point| !(own && point == Path::new("/")))
        .collect();
    let namespaces = mounts.iter().filter(|m| m.kind == b"nsfs").filter_map(|mount| {
        let inode = mount.root.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
        let inode = std::str::from_utf8(inode).ok()?.parse().ok()?;
        let point = unescape(mount.point);
        // Whether below or on top of it: the look-up passes either.
        let blocked = blocking.iter().any(|above| point.starts_with(above));
        Some(Pin { inode, point, blocked })
    });
    namespaces.collect()
}

/// A line like
/// `104 27 0:4 net:[4026532184] /run/docker/netns/c05c rw - nsfs nsfs rw`.
struct Mount<'a> {
    root: &'a [u8],
    point: &'a [u8],
    kind: &'a [u8],
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        // Optional fields in between end with a lone hyphen.
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(Self { root, point, kind })
    }
}

/// Whether a look-up in a file system of this kind asks a server or a process
/// that need not ever answer. Anybody can mount FUSE in a container of his own.
fn may_block(kind: &[u8]) -> bool {
    let kind = kind.split(|b| *b == b'.').next().unwrap_or_default();
    matches!(
        kind,
        b"fuse" | b"fuseblk" | b"nfs" | b"nfs4" | b"cifs" | b"smb3" | b"9p" | b"ceph" | b"autofs"
    )
}

/// Mount points have space, tab, newline and backslash as `\040` and so on.
pub(super) fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match value {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(inode: u64, point: &str, blocked: bool) -> Pin {
        Pin { inode, point: point.into(), blocked }
    }

    #[test]
    fn namespace_mounts_are_found_in_mountinfo() {
        // Recorded from a Docker host; the last three lines are traps: another
        // kind of namespace, a file system that only looks like one, a cut line.
        let text = b"\
24 1 254:0 / / rw,relatime - ext4 /dev/root rw
104 27 0:4 net:[4026532184] /run/docker/netns/c05cb5da8d13 rw - nsfs nsfs rw
105 27 0:4 net:[4026532185] /run/netns/a\\040b rw shared:5 - nsfs nsfs rw
106 27 0:4 mnt:[4026532186] /run/snapd/ns/x.mnt rw - nsfs nsfs rw
107 27 0:4 net:[4026532187] /run/fake rw - tmpfs tmpfs rw
108 27 0:4 net:[4026532188]";
        assert_eq!(
            pins(text, true),
            [
                pin(4_026_532_184, "/run/docker/netns/c05cb5da8d13", false),
                pin(4_026_532_185, "/run/netns/a b", false),
            ]
        );
    }

    #[test]
    fn what_only_a_server_that_may_be_silent_leads_to_is_marked() {
        let text = b"\
24 1 0:50 / / rw - fuse.fuse-overlayfs fuse-overlayfs rw
104 24 0:4 net:[1] /run/netns/a rw - nsfs nsfs rw
105 24 0:4 net:[2] /srv/ns/b rw - nsfs nsfs rw
106 24 0:4 net:[3] /srv-2/c rw - nsfs nsfs rw
107 24 0:51 / /srv rw shared:1 - fuse.sshfs me@there rw
108 24 0:52 / /run/netns/other rw - nfs4 there:/ rw
109 24 0:53 / /run rw - tmpfs tmpfs rw";
        let blocked = |own| pins(text, own).iter().map(|p| p.blocked).collect::<Vec<_>>();
        assert_eq!(blocked(true), [false, true, false]);
        // The root of a container can itself be somebody's FUSE process.
        assert_eq!(blocked(false), [true, true, true]);
    }

    #[test]
    fn a_mount_point_keeps_its_bytes() {
        let pins = pins(b"1 2 0:4 net:[7] /run/\xff\\134 rw - nsfs nsfs rw\n", true);
        assert_eq!(pins[0].point.as_os_str().as_encoded_bytes(), b"/run/\xff\\");
    }

    #[test]
    fn damaged_escapes_stay_as_they_are() {
        for (field, expected) in
            [("a\\040b", "a b"), ("a\\", "a\\"), ("a\\04", "a\\04"), ("\\999", "\\999")]
        {
            assert_eq!(unescape(field.as_bytes()), Path::new(expected));
        }
    }
}
