//! What a hostile process does: a file system that stops answering, a command line without
//! end, a mount table without end.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Says that it is ready, as all helpers do.
fn ready(ports: &[u16]) -> Result<()> {
    let holders = [std::process::id()];
    println!("{}", serde_json::json!({ "ports": ports, "holders": holders }));
    std::io::stdout().flush().context("saying that it is ready")
}

fn wait() -> ! {
    loop {
        std::thread::park();
    }
}

/// What the file system has besides its root: name, node, mode. The number of the directory is
/// one that a namespace could have.
const FILES: [(&[u8], u64, u32); 2] =
    [(b"d", 0xF000_0001, libc::S_IFDIR | 0o755), (b"s", 4, libc::S_IFSOCK | 0o777)];

/// `fuse POINT FILE`: mounts a file system with a directory `d` and a socket `s`, and serves
/// it; from when FILE exists it takes questions and answers none. It ends with this process.
pub(crate) fn fuse(args: &[String]) -> Result<()> {
    let [point, freeze] = args else { bail!("fuse takes a mount point and a file") };
    let mut device =
        File::options().read(true).write(true).open("/dev/fuse").context("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = std::ffi::CString::new(options)?;
    let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
    rustix::mount::mount("hostile", point.as_str(), "fuse", flags, Some(options.as_c_str()))
        .with_context(|| format!("mounting at {point}"))?;
    ready(&[])?;
    let mut request = vec![0; 1 << 17];
    loop {
        let length = match device.read(&mut request) {
            Ok(length) => length,
            Err(error) if [ErrorKind::Interrupted, ErrorKind::NotFound].contains(&error.kind()) => {
                continue;
            }
            // It was unmounted.
            Err(_) => return Ok(()),
        };
        if Path::new(freeze).exists() {
            continue;
        }
        if let Some(reply) = reply(&request[..length]) {
            let _gone = device.write(&reply);
        }
    }
}

/// The answer to one request, as `linux/fuse.h` describes them (7.31).
fn reply(request: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| request.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let long = |at: usize| request.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let (operation, unique, node) = (word(4)?, long(8)?, long(16)?);
    let mut body: Vec<u8> = Vec::new();
    let mut error = 0;
    match operation {
        // LOOKUP: nothing may be remembered.
        1 => {
            let name = request.get(40..)?.split(|b| *b == 0).next()?;
            match FILES.iter().find(|(known, ..)| *known == name) {
                None => error = -libc::ENOENT,
                Some((_, node, mode)) => {
                    body.extend(node.to_ne_bytes());
                    body.extend([0; 32]);
                    body.extend(attributes(*node, *mode));
                }
            }
        }
        // FORGET and BATCH_FORGET are not answered.
        2 | 42 => return None,
        // GETATTR
        3 => {
            let known = FILES.iter().find(|(_, known, _)| *known == node);
            body.extend([0; 16]);
            body.extend(attributes(node, known.map_or(libc::S_IFDIR | 0o755, |(.., mode)| *mode)));
        }
        // OPEN, OPENDIR
        14 | 27 => body.extend([0; 16]),
        // READ, FLUSH, READDIR, RELEASE, RELEASEDIR
        15 | 18 | 25 | 28 | 29 => {}
        // STATFS
        17 => body.extend([0; 80]),
        // INIT
        26 => {
            for number in [7u32, 31, 65536, 0, 12 << 16 | 16, 65536, 1] {
                body.extend(number.to_ne_bytes());
            }
            body.resize(64, 0);
        }
        _ => error = -libc::ENOSYS,
    }
    let mut reply = Vec::new();
    reply.extend(u32::try_from(16 + body.len()).ok()?.to_ne_bytes());
    reply.extend(error.to_ne_bytes());
    reply.extend(unique.to_ne_bytes());
    reply.extend(body);
    Some(reply)
}

fn attributes(node: u64, mode: u32) -> Vec<u8> {
    let mut bytes = node.to_ne_bytes().to_vec();
    bytes.extend([0; 52]);
    for number in [mode, 2, 0, 0, 0, 4096, 0] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes
}

/// `stretch NAME BYTES`: a process called NAME with a command line of so many bytes, none of
/// which takes any memory, that listens on a port of 127.0.0.1.
#[expect(unsafe_code, reason = "no crate here has a safe form of these system calls")]
pub(crate) fn stretch(args: &[String]) -> Result<()> {
    let [name, bytes] = args else { bail!("stretch takes a name and a number") };
    let bytes: usize = bytes.parse().context("bytes")?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let comm = std::ffi::CString::new(name.as_str())?;
    // SAFETY: the memory is new, of this size, and written to only within it; the structure
    // is what `linux/prctl.h` says (`struct prctl_mm_map`), and the kernel checks it.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let start = libc::mmap(std::ptr::null_mut(), bytes, both, flags, -1, 0);
        ensure!(start != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        start.cast::<u8>().copy_from(name.as_ptr(), name.len());
        // An end without a NUL: what lies between is the command line as it stands.
        start.cast::<u8>().add(4095).write(b'x');
        libc::prctl(libc::PR_SET_NAME, comm.as_ptr());
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        let rest = stat.rsplit_once(") ").context("no name in stat")?.1;
        let fields: Vec<u64> = rest.split(' ').map(|f| f.trim().parse().unwrap_or(0)).collect();
        let field = |number: usize| fields.get(number - 3).copied().context("a short stat");
        let (start, end) = (start as u64, start as u64 + bytes as u64);
        let brk = libc::sbrk(0) as u64;
        let map: [u64; 13] = [
            field(26)?, // start_code
            field(27)?, // end_code
            field(45)?, // start_data
            field(46)?, // end_data
            field(47)?, // start_brk
            brk,
            field(28)?, // start_stack
            start,      // arg_start
            end,        // arg_end
            field(50)?, // env_start
            field(51)?, // env_end
            0,          // auxv
            // auxv_size, exe_fd: none
            0xffff_ffff_0000_0000,
        ];
        let size = std::mem::size_of_val(&map);
        let set = libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, map.as_ptr(), size, 0);
        ensure!(set == 0, "PR_SET_MM_MAP: {}", std::io::Error::last_os_error());
    }
    ready(&[listener.local_addr()?.port()])?;
    wait()
}

/// `binds COUNT DIR`: a mount namespace in which the network namespace of this process is
/// mounted so often, at long paths.
pub(crate) fn binds(args: &[String]) -> Result<()> {
    let [count, dir] = args else { bail!("binds takes a number and a directory") };
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
    use rustix::thread::UnshareFlags;
    #[expect(unsafe_code, reason = "only descriptor tables make it unsafe")]
    // SAFETY: the descriptor table is not unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.context("unshare")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("binds", dir.as_str(), "tmpfs", MountFlags::empty(), None)?;
    let long = "x".repeat(220);
    for number in 0..count.parse::<u32>().context("count")? {
        let point = format!("{dir}/{long}{number}");
        File::create(&point)?;
        mount_bind("/proc/self/ns/net", point.as_str()).with_context(|| point.clone())?;
    }
    ready(&[])?;
    wait()
}
