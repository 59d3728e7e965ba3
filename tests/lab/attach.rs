//! BPF programs that a test attaches: each does nothing but give a number.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};

use crate::connect::within;
use crate::netns::Netns;

/// Where a program is attached: what `include/uapi/linux/bpf.h` calls its type and its place.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// XDP of a device. 1 drops, 2 passes.
    Xdp(&'a str),
    /// tcx at ingress of a device. 2 drops, 0 passes.
    TcxIngress(&'a str),
    /// tcx at egress of a device.
    TcxEgress(&'a str),
    /// What sockets of a cgroup get. 0 drops, 1 passes.
    CgroupIngress(&'a Path),
    /// What sockets of a cgroup send.
    CgroupEgress(&'a Path),
    /// `connect()` in a cgroup to IPv4. 0 refuses.
    CgroupConnect4(&'a Path),
    /// `bind()` in a cgroup to IPv4, before. 0 refuses.
    CgroupBind4(&'a Path),
    /// `bind()` in a cgroup to IPv6, afterwards. 0 refuses.
    CgroupPostBind6(&'a Path),
    /// The choice of the socket in the namespace. 0 drops, 1 passes.
    SkLookup,
}

/// A program, attached as long as this lives.
#[derive(Debug)]
pub struct Attached {
    /// Its id.
    pub id: u32,
    _program: OwnedFd,
    _link: OwnedFd,
}

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

impl Netns {
    /// Attaches a program that is called `wp_test` and gives this number.
    ///
    /// # Errors
    /// When the kernel does not have such a place.
    pub fn attach(&self, place: Place<'_>, gives: i32) -> Result<Attached> {
        within(self, || attach(place, gives, None).with_context(|| format!("{place:?}")))
    }

    /// The same of a program that works with the map that is pinned at `map`.
    ///
    /// # Errors
    /// When the kernel does not have such a place, or there is no such map.
    pub fn attach_with(&self, place: Place<'_>, gives: i32, map: &Path) -> Result<Attached> {
        within(self, || attach(place, gives, Some(map)).with_context(|| format!("{place:?}")))
    }
}

/// `struct { pathname, bpf_fd, file_flags }`.
#[repr(C)]
struct Get {
    path: u64,
    fd: u32,
    flags: u32,
}

fn attach(place: Place<'_>, gives: i32, map: Option<&Path>) -> Result<Attached> {
    let device = |name| -> Result<u32> {
        let any = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )?;
        Ok(rustix::net::netdevice::name_to_index(any, name)?)
    };
    // Kept until the program is attached.
    let mut files = Vec::new();
    let mut opened = |path: &Path| -> Result<u32> {
        let opened = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        let number = u32::try_from(opened.as_raw_fd())?;
        files.push(opened);
        Ok(number)
    };
    let (kind, attach_type, target) = match place {
        Place::Xdp(name) => (6, 37, device(name)?),
        Place::TcxIngress(name) => (3, 46, device(name)?),
        Place::TcxEgress(name) => (3, 47, device(name)?),
        Place::CgroupIngress(path) => (8, 0, opened(path)?),
        Place::CgroupEgress(path) => (8, 1, opened(path)?),
        Place::CgroupConnect4(path) => (18, 10, opened(path)?),
        Place::CgroupBind4(path) => (18, 8, opened(path)?),
        Place::CgroupPostBind6(path) => (9, 13, opened(path)?),
        Place::SkLookup => (30, 36, opened(Path::new("/proc/thread-self/ns/net"))?),
    };
    let map = match map {
        Some(path) => {
            let path = std::ffi::CString::new(path.display().to_string())?;
            Some(bpf(7, &mut Get { path: path.as_ptr() as u64, fd: 0, flags: 0 })?)
        }
        None => None,
    };
    // r1 = the map, of two instructions; r0 = gives; exit
    let mut code = Vec::new();
    if let Some(map) = &map {
        code.extend([0x18_u8, 0x11, 0, 0]);
        code.extend(map.as_raw_fd().to_ne_bytes());
        code.extend([0; 8]);
    }
    code.extend([0xb7, 0, 0, 0]);
    code.extend(gives.to_ne_bytes());
    code.extend([0x95, 0, 0, 0, 0, 0, 0, 0]);
    let mut name = [0; 16];
    name[..7].copy_from_slice(b"wp_test");
    let mut load = Load {
        kind,
        count: u32::try_from(code.len() / 8)?,
        program: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        name,
        attach_type,
        ..Load::default()
    };
    let program = bpf(5, &mut load)?;
    let number = u32::try_from(program.as_raw_fd())?;
    let link = bpf(28, &mut Link { program: number, target, attach_type, flags: 0 })?;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let id = info.lines().find_map(|line| line.strip_prefix("prog_id:"));
    let id = id.and_then(|id| id.trim().parse().ok()).context("a program without an id")?;
    Ok(Attached { id, _program: program, _link: link })
}

/// One of the commands that give a descriptor.
fn bpf<T>(command: libc::c_int, attributes: &mut T) -> std::io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "no crate here has a safe form of this system call")]
    // SAFETY: the kernel reads as many bytes as the third argument says, and what they lead to
    // lives in the caller.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(std::io::Error::other)?;
    #[expect(unsafe_code, reason = "the descriptor comes from a raw system call")]
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
