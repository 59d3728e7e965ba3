//! The network namespaces pinned by mounts, and where eBPF maps may be pinned, from
//! `/proc/PID/mountinfo`.

use std::collections::HashMap;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// How many mounts of one namespace are kept: more ways to it are of no use.
const SAME: usize = 4;
/// How many file systems for eBPF maps are kept of one mount table.
const BPFFS: usize = 16;

/// A network namespace bind-mounted somewhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pin {
    /// The inode of the namespace.
    pub(super) inode: u64,
    /// Where it is mounted, below the root of whoever sees that mount.
    pub(super) point: PathBuf,
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

/// What is of interest in a mount table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MountTable {
    /// The namespaces that are pinned.
    pub(super) pins: Vec<Pin>,
    /// Each bpffs.
    pub(super) bpffs: Vec<Bpffs>,
    /// How many namespaces and file systems were too many.
    pub(super) left_out: usize,
}

/// Looks through a mount table once. Of namespaces at most `most` are kept.
pub(super) fn interesting(mountinfo: &[u8], most: usize) -> MountTable {
    let mut table = MountTable::default();
    let mut seen: HashMap<u64, usize> = HashMap::new();
    for mount in mountinfo.split(|b| *b == b'\n').filter_map(MountinfoLine::parse) {
        match mount.kind {
            b"nsfs" => {
                let Some(inode) = mount.netns() else { continue };
                let is_new = !seen.contains_key(&inode);
                if is_new && seen.len() >= most {
                    table.left_out += 1;
                    continue;
                }
                let times = seen.entry(inode).or_default();
                *times += 1;
                if *times <= SAME {
                    table.pins.push(Pin { inode, point: unescape(mount.point) });
                }
            }
            b"bpf" => match mount.bpffs() {
                Some(_) if table.bpffs.len() >= BPFFS => table.left_out += 1,
                Some(bpffs) => table.bpffs.push(bpffs),
                None => {}
            },
            _ => {}
        }
    }
    table
}

/// A line like
/// `104 27 0:4 net:[4026532184] /run/docker/netns/c05c rw - nsfs nsfs rw`.
struct MountinfoLine<'a> {
    device: &'a [u8],
    root: &'a [u8],
    point: &'a [u8],
    kind: &'a [u8],
}

impl<'a> MountinfoLine<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ').skip(2);
        let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
        // Optional fields in between end with a lone hyphen.
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(Self { device, root, point, kind })
    }

    fn netns(&self) -> Option<u64> {
        let inode = self.root.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
        std::str::from_utf8(inode).ok()?.parse().ok()
    }

    fn bpffs(&self) -> Option<Bpffs> {
        let (major, minor) = std::str::from_utf8(self.device).ok()?.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        Some(Bpffs { device, root: unescape(self.root), point: unescape(self.point) })
    }
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
    use std::path::Path;

    use super::*;

    fn pin(inode: u64, point: &str) -> Pin {
        Pin { inode, point: point.into() }
    }

    fn pins(text: &[u8]) -> Vec<Pin> {
        interesting(text, 100).pins
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
            pins(text),
            [
                pin(4_026_532_184, "/run/docker/netns/c05cb5da8d13"),
                pin(4_026_532_185, "/run/netns/a b"),
            ]
        );
    }

    #[test]
    fn what_one_table_can_add_is_limited() {
        let mount = |inode: usize, at: usize, kind| {
            format!("1 2 0:4 net:[{inode}] /m/{at} rw - {kind} x rw\n")
        };
        // One namespace, mounted again and again, is one; a few ways to it are enough.
        let same: String = (0..20_000).map(|at| mount(7, at, "nsfs")).collect();
        let table = interesting(same.as_bytes(), 10);
        assert_eq!((table.pins.len(), table.left_out), (SAME, 0));
        // Others beyond the limit are counted, and the first are kept.
        let others: String = (0..20).map(|at| mount(at, at, "nsfs")).collect();
        let table = interesting((same + &others).as_bytes(), 10);
        assert_eq!((table.pins.len(), table.left_out), (SAME + 9, 10));
        let bpf: String = (0..20).map(|at| mount(0, at, "bpf")).collect();
        let table = interesting(bpf.as_bytes(), 10);
        assert_eq!((table.bpffs.len(), table.left_out), (BPFFS, 20 - BPFFS));
    }

    #[test]
    fn each_bpffs_is_found_in_mountinfo() {
        let text = b"\
32 23 0:30 / /sys/fs/bpf rw,nosuid shared:11 - bpf bpf rw,mode=700
33 23 0:31 /tc/globals /run/a\\040b rw - bpf none rw
36 23 0:x / /run/bad rw - bpf bpf rw
37 23 0:30 / /run/not rw - tmpfs bpf rw";
        let bpffs = |device, root: &str, point: &str| Bpffs {
            device,
            root: root.into(),
            point: point.into(),
        };
        let expected =
            [bpffs((0, 30), "/", "/sys/fs/bpf"), bpffs((0, 31), "/tc/globals", "/run/a b")];
        assert_eq!(interesting(text, 1).bpffs, expected);
    }

    #[test]
    fn a_mount_point_keeps_its_bytes() {
        let pins = pins(b"1 2 0:4 net:[7] /run/\xff\\134 rw - nsfs nsfs rw\n");
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
