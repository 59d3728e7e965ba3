//! The eBPF programs that are loaded.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

/// `BPF_PROG_GET_FD_BY_ID`, include/uapi/linux/bpf.h.
const GET_FD_BY_ID: libc::c_int = 13;

/// The ids of the programs that descriptors of a process lead to.
///
/// # Errors
/// When it has ended.
pub fn programs_of(pid: u32) -> Result<BTreeSet<u32>> {
    let dir = format!("/proc/{pid}/fdinfo");
    let mut ids = BTreeSet::new();
    for entry in std::fs::read_dir(&dir).with_context(|| dir.clone())?.flatten() {
        // A descriptor may be closed meanwhile.
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.strip_prefix("prog_id:"));
        ids.extend(lines.filter_map(|id| id.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}

/// Whether the program with this id is still loaded. Needs root.
///
/// # Errors
/// When the kernel does not tell.
pub fn is_loaded(id: u32) -> Result<bool> {
    // `struct { __u32 prog_id; __u32 next_id; __u32 open_flags; }` of `union bpf_attr`.
    let attributes: [u32; 3] = [id, 0, 0];
    #[expect(unsafe_code, reason = "no crate here has a safe form of this system call")]
    // SAFETY: the kernel reads as many bytes as the third argument says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            GET_FD_BY_ID,
            attributes.as_ptr(),
            std::mem::size_of_val(&attributes),
        )
    };
    if fd >= 0 {
        #[expect(unsafe_code, reason = "the descriptor comes from a raw system call")]
        // SAFETY: the descriptor is new and nobody else's.
        drop(unsafe {
            <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(i32::try_from(fd)?)
        });
        return Ok(true);
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOENT) => Ok(false),
        _ => Err(error).with_context(|| format!("asking for program {id}")),
    }
}
