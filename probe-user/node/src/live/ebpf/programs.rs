//! Programs that others have attached: which, and what the kernel says of them.
//!
//! Kernel: `kernel/bpf/syscall.c` (`bpf_prog_query`, `bpf_prog_get_fd_by_id`), with
//! `CAP_NET_ADMIN` for the first (Linux 4.15 for cgroups) and `CAP_SYS_ADMIN` for the second
//! (4.13).

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd};

use super::maps::{InfoOf, bpf, number};

/// Commands of bpf(2).
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const INFO: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
/// `BPF_F_QUERY_EFFECTIVE`: with what is inherited.
const EFFECTIVE: u32 = 1;
/// How many programs are asked for at first: no place has more of its own
/// (`BPF_CGROUP_MAX_PROGS`, `BPF_MPROG_MAX`).
const FEW: u32 = 64;
/// How many may take effect in a cgroup: so many levels deep with all that each may have.
const MOST: u32 = 64 * 64;
/// How many maps of a program are looked at: the verifier's limit (`MAX_USED_MAPS`).
const MAPS: u32 = 64;

/// Where programs are attached: `enum bpf_attach_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::live) struct AttachType(pub(in crate::live) u32);

/// What programs are attached to.
#[derive(Debug, Clone, Copy)]
pub(in crate::live) enum AttachTarget<'a> {
    /// A device of the calling thread's network namespace, by its index.
    Device(u32),
    /// A cgroup, or a network namespace.
    Of(BorrowedFd<'a>),
    /// A cgroup, with what is attached to those above it and takes effect in it.
    Effective(BorrowedFd<'a>),
}

/// `query` of `union bpf_attr`. All of it: the kernel writes to its end, whatever length is
/// given.
#[repr(C)]
#[derive(Default)]
struct ProgQueryAttr {
    target: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    pad: u32,
    each_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The begin of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_length: u32,
    translated_length: u32,
    jited: u64,
    translated: u64,
    loaded_at: u64,
    made_by: u32,
    map_count: u32,
    maps: u64,
    name: [u8; 16],
}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// What the kernel says of a program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::live) struct ProgramInfo {
    /// At most 15 bytes.
    pub(in crate::live) name: String,
    /// The ids of the maps that it works with.
    pub(in crate::live) maps: Vec<u32>,
    /// The user who loaded it.
    pub(in crate::live) made_by: u32,
}

impl ProgramInfo {
    /// Whether this is the tool's own program that tells of binds, which allows them all. Only
    /// root attaches programs where it is, and what root calls so is believed.
    pub(in crate::live) fn only_watches_binds(&self) -> bool {
        self.made_by == 0 && ["bound4", "bound6"].contains(&self.name.as_str())
    }
}

/// The ids of the programs that are attached somewhere. Where the kernel knows no such place,
/// there are none.
pub(in crate::live) fn attached(
    target: AttachTarget<'_>,
    attach_type: AttachType,
) -> io::Result<Vec<u32>> {
    match ask(target, attach_type, FEW) {
        Err((error, more)) if error.raw_os_error() == Some(libc::ENOSPC) => {
            if more > MOST {
                return Err(io::Error::other(format!("there are more than {MOST}")));
            }
            // Some may have come meanwhile.
            ask(target, attach_type, more.saturating_add(FEW)).map_err(|(error, _)| error)
        }
        Err((error, _)) => match error.raw_os_error() {
            Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) => Ok(Vec::new()),
            _ => Err(error),
        },
        Ok(ids) => Ok(ids),
    }
}

/// Fails with the number that there are.
fn ask(
    target: AttachTarget<'_>,
    AttachType(attach_type): AttachType,
    room: u32,
) -> Result<Vec<u32>, (io::Error, u32)> {
    let (target, flags) = match target {
        AttachTarget::Device(index) => (Ok(index), 0),
        AttachTarget::Of(fd) => (number(&fd), 0),
        AttachTarget::Effective(fd) => (number(&fd), EFFECTIVE),
    };
    let target = target.map_err(|error| (error, 0))?;
    let mut ids = vec![0_u32; room as usize];
    let ids_at = ids.as_mut_ptr() as u64;
    let mut query = ProgQueryAttr {
        target,
        attach_type,
        flags,
        ids: ids_at,
        count: room,
        ..ProgQueryAttr::default()
    };
    #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
    // SAFETY: `ids` has room for as many as `count` says, and nobody else has it.
    unsafe { bpf(PROG_QUERY, &mut query) }.map_err(|error| (error, query.count))?;
    ids.truncate(query.count as usize);
    Ok(ids)
}

/// What the kernel says of a program. `None` when it is no longer loaded.
pub(in crate::live) fn about(id: u32) -> io::Result<Option<ProgramInfo>> {
    #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
    // SAFETY: there is no address in it.
    let fd = match unsafe { bpf(PROG_GET_FD_BY_ID, &mut ById { id, next: 0, flags: 0 }) } {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        fd => i32::try_from(fd?).map_err(io::Error::other)?,
    };
    #[expect(unsafe_code, reason = "the descriptor comes as a number")]
    // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut maps = vec![0_u32; MAPS as usize];
    let maps_at = maps.as_mut_ptr() as u64;
    let mut info = ProgInfo { map_count: MAPS, maps: maps_at, ..ProgInfo::default() };
    let length = u32::try_from(size_of::<ProgInfo>()).map_err(io::Error::other)?;
    let mut ask = InfoOf { fd: number(&fd)?, length, info: (&raw mut info) as u64 };
    #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
    // SAFETY: `info` is as long as `length` says, `maps` has room for as many as it says there,
    // and only this function has them.
    unsafe { bpf(INFO, &mut ask) }?;
    maps.truncate(info.map_count as usize);
    let name = info.name.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    Ok(Some(ProgramInfo { name, maps, made_by: info.made_by }))
}

#[cfg(test)]
pub(in crate::live) mod making {
    //! Programs for tests.

    use super::*;

    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        count: u32,
        program: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        ifindex: u32,
        attach_type: u32,
    }

    #[repr(C)]
    struct Link {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }

    /// A program that does nothing but give a number, attached as long as this lives.
    #[derive(Debug)]
    pub(in crate::live) struct Attachment {
        _program: OwnedFd,
        _link: OwnedFd,
    }

    /// Loads and attaches a program: its type (`enum bpf_prog_type`), where, and what it gives.
    pub(in crate::live) fn attach(
        kind: u32,
        target: u32,
        AttachType(attach_type): AttachType,
        gives: i32,
    ) -> io::Result<Attachment> {
        // r0 = gives; exit
        let mut code = vec![0xb7, 0, 0, 0];
        code.extend(gives.to_ne_bytes());
        code.extend([0x95, 0, 0, 0, 0, 0, 0, 0]);
        let mut name = [0; 16];
        name[..7].copy_from_slice(b"wp_test");
        let mut load = Load {
            kind,
            count: 2,
            program: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            name,
            attach_type,
            ..Load::default()
        };
        #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
        // SAFETY: the code is as long as `count` says, the licence ends with a NUL, and nothing
        // is written to either.
        let program = owned(unsafe { bpf(5, &mut load) }?);
        let mut link = Link { program: number(&program)?, target, attach_type, flags: 0 };
        #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
        // SAFETY: there is no address in it.
        let link = owned(unsafe { bpf(28, &mut link) }?);
        Ok(Attachment { _program: program, _link: link })
    }

    fn owned(fd: libc::c_long) -> OwnedFd {
        #[expect(unsafe_code, reason = "the descriptor comes as a number")]
        // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
        unsafe {
            OwnedFd::from_raw_fd(fd as i32)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    const CGROUP_SKB: u32 = 8;
    const INGRESS: AttachType = AttachType(0);

    /// A cgroup of its own, which goes with it.
    struct Group(std::path::PathBuf);

    impl Drop for Group {
        fn drop(&mut self) {
            let _left = std::fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn what_is_attached_to_a_cgroup_is_found_with_its_name_and_in_those_below() {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let Some(root) = super::super::super::cgroups::mount_point(&mounts) else { return };
        let dir = std::path::Path::new(&root).join(format!("wp-programs-{}", std::process::id()));
        let inner = dir.join("inner");
        if std::fs::create_dir(&dir).is_err() {
            eprintln!("SKIPPED: no cgroup can be made here");
            return;
        }
        let outer = Group(dir);
        std::fs::create_dir(&inner).unwrap();
        let inner = Group(inner);
        let open = |group: &Group| std::fs::File::open(&group.0).unwrap();
        let (above, below) = (open(&outer), open(&inner));
        let count = |target| attached(target, INGRESS).unwrap().len();
        let before = count(AttachTarget::Effective(below.as_fd()));
        let attachment = match making::attach(CGROUP_SKB, number(&above).unwrap(), INGRESS, 1) {
            Ok(attachment) => attachment,
            Err(error) => {
                eprintln!("SKIPPED: no program can be attached here: {error}");
                return;
            }
        };
        let ids = attached(AttachTarget::Of(above.as_fd()), INGRESS).unwrap();
        assert_eq!(ids.len(), 1);
        let about = about(ids[0]).unwrap().unwrap();
        assert_eq!((about.name.as_str(), about.maps), ("wp_test", Vec::new()));
        assert_eq!(count(AttachTarget::Of(below.as_fd())), 0);
        assert_eq!(count(AttachTarget::Effective(below.as_fd())), before + 1);
        drop(attachment);
        assert_eq!(count(AttachTarget::Of(above.as_fd())), 0);
    }

    #[test]
    fn a_place_that_the_kernel_does_not_know_has_no_programs_and_a_wrong_id_is_none() {
        let here = std::fs::File::open("/proc/self/ns/net").unwrap();
        let unknown = attached(AttachTarget::Of(here.as_fd()), AttachType(9999));
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        assert!(unknown.as_ref().is_ok_and(Vec::is_empty) || unknown.is_err_and(|e| refused(&e)));
        let none = about(u32::MAX);
        assert!(matches!(none, Ok(None)) || none.is_err_and(|e| refused(&e)));
    }
}
