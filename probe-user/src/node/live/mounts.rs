//! The network namespaces pinned by mounts, and where eBPF maps may be pinned, from
//! `/proc/PID/mountinfo`.

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

/// A file system in which eBPF maps may be pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bpffs {
    /// Which one it is: major and minor number.
    pub(super) device: (u32, u32),
    /// Which directory of it is mounted.
    pub(super) root: PathBuf,
    /// Where, below the root of whoever sees that mount.
    pub(super) point: PathBuf,
}

/// The namespaces pinned in a mount table. `own` says that it is that of this
/// process, whose root has to answer anyway.
pub(super) fn pins(mountinfo: &[u8], own: bool) -> Vec<Pin> {
    interesting(mountinfo, own).0
}

/// The namespaces pinned in a mount table, and each bpffs in it that can be looked at
/// without waiting for anybody.
pub(super) fn interesting(mountinfo: &[u8], own: bool) -> (Vec<Pin>, Vec<Bpffs>) {
    let mounts: Vec<Mount<'_>> =
        mountinfo.split(|b| *b == b'\n').filter_map(Mount::parse).collect();
    let blocking: Vec<PathBuf> = mounts
        .iter()
        .filter(|m| may_block(m.kind))
        .map(|m| unescape(m.point))
        .filter(|point| !(own && point == Path::new("/")))
        .collect();
    // Whether below or on top of it: the look-up passes either.
    let is_blocked = |point: &Path| blocking.iter().any(|above| point.starts_with(above));
    let namespaces = mounts.iter().filter(|m| m.kind == b"nsfs").filter_map(|mount| {
        let inode = mount.root.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
        let inode = std::str::from_utf8(inode).ok()?.parse().ok()?;
        let point = unescape(mount.point);
        let blocked = is_blocked(&point);
        Some(Pin { inode, point, blocked })
    });
    let bpffs = mounts.iter().filter(|m| m.kind == b"bpf").filter_map(|mount| {
        let (major, minor) = std::str::from_utf8(mount.device).ok()?.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let (root, point) = (unescape(mount.root), unescape(mount.point));
        (!is_blocked(&point)).then_some(Bpffs { device, root, point })
    });
    (namespaces.collect(), bpffs.collect())
}

/// A line like
/// `104 27 0:4 net:[4026532184] /run/docker/netns/c05c rw - nsfs nsfs rw`.
struct Mount<'a> {
    device: &'a [u8],
    root: &'a [u8],
    point: &'a [u8],
    kind: &'a [u8],
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ').skip(2);
        let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
        // Optional fields in between end with a lone hyphen.
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(Self { device, root, point, kind })
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
    fn each_bpffs_is_found_in_mountinfo() {
        let text = b"\
32 23 0:30 / /sys/fs/bpf rw,nosuid shared:11 - bpf bpf rw,mode=700
33 23 0:31 /tc/globals /run/a\\040b rw - bpf none rw
34 23 0:32 / /srv/bpf rw - bpf bpf rw
35 23 0:52 / /srv rw - nfs4 there:/ rw
36 23 0:x / /run/bad rw - bpf bpf rw
37 23 0:30 / /run/not rw - tmpfs bpf rw";
        let bpffs = |device, root: &str, point: &str| Bpffs {
            device,
            root: root.into(),
            point: point.into(),
        };
        let expected =
            [bpffs((0, 30), "/", "/sys/fs/bpf"), bpffs((0, 31), "/tc/globals", "/run/a b")];
        assert_eq!(interesting(text, true).1, expected);
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
