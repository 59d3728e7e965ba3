//! The side of the helper process: it does one request after another, and may hang in any of
//! them.

use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::super::files;
use super::super::safefs::{Root, Unreadable};
use super::wire::{self, PACKET, REQUEST, ReadRequest, RequestOp, Stat};

/// Serves until the other side is gone.
pub(super) fn serve(channel: BorrowedFd<'_>) {
    let mut packet = vec![0; REQUEST];
    loop {
        let (length, beside) = match wire::receive(channel, &mut packet, RecvFlags::empty()) {
            Ok((0, _)) => return,
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            Err(_) => return,
        };
        let Some(request) = ReadRequest::decode(&packet[..length]) else { return };
        if answer(channel, work(&request, beside)).is_err() {
            return;
        }
    }
}

type Done = Result<(Vec<u8>, Option<OwnedFd>), Unreadable>;

fn answer(channel: BorrowedFd<'_>, done: Done) -> Result<(), Errno> {
    let (code, content, fd) = match done {
        Ok((content, fd)) => (0, content, fd),
        Err(error) => {
            let (code, text) = wire::encode_error(&error);
            (code, text, None)
        }
    };
    let length = u32::try_from(content.len()).map_err(|_| Errno::OVERFLOW)?;
    let mut header = wire::ReplyHeader::default();
    header[0] = code;
    header[1..].copy_from_slice(&length.to_le_bytes());
    let fd = fd.as_ref().map(std::os::fd::AsFd::as_fd);
    wire::send(channel, &header, fd, SendFlags::empty())?;
    for packet in content.chunks(PACKET) {
        wire::send(channel, packet, None, SendFlags::empty())?;
    }
    Ok(())
}

fn work(request: &ReadRequest, beside: Option<OwnedFd>) -> Done {
    let path = Path::new(&request.path);
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    if request.op == RequestOp::Open {
        return Ok((Vec::new(), Some(Root::open(path)?.into())));
    }
    let at = beside.ok_or_else(|| Unreadable::Failed("nothing to read it in".to_owned()))?;
    match request.op {
        RequestOp::Open => Err(Unreadable::Missing),
        RequestOp::Read => Ok((Root::from(at).read(path, limit)?, None)),
        RequestOp::ReadOwned => {
            let (owners, mut content) = Root::from(at).read_owned(path, limit)?;
            content.splice(..0, owners.into_iter().flat_map(u32::to_le_bytes));
            Ok((content, None))
        }
        RequestOp::Owner => Ok((Root::from(at).owner(path)?.to_le_bytes().to_vec(), None)),
        RequestOp::List => Ok((wire::encode_names(&Root::from(at).list(path, limit)?), None)),
        RequestOp::Look => found(Root::from(at).point(path)?),
        RequestOp::Socket => found(Root::from(at).socket(path)?),
        RequestOp::Connect => Ok((Vec::new(), Some(connect(&at)?))),
        RequestOp::Follow => {
            found(rustix::fs::openat(at, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
        }
        RequestOp::Proc => Ok((files::read(at, path, limit)?.bytes, None)),
        RequestOp::FindLine => {
            let words = wire::decode_names(request.path.as_encoded_bytes());
            let [dir, suffix, hint, lines @ ..] = words.as_slice() else {
                return Err(Unreadable::Failed("nothing to look for".to_owned()));
            };
            let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_encoded_bytes()).collect();
            let (suffix, hint) = (suffix.as_encoded_bytes(), hint.as_encoded_bytes());
            let root = Root::from(at);
            let found = root.find_line(Path::new(dir), (suffix, hint), &lines, limit)?;
            Ok((found.map(OsString::into_encoded_bytes).unwrap_or_default(), None))
        }
    }
}

fn found(fd: OwnedFd) -> Done {
    Ok((stat(&fd)?.encode(), Some(fd)))
}

/// What a descriptor is, from what the kernel knows of it: whoever serves it is not asked
/// again where the file system can do without (FUSE and NFS can).
fn stat(fd: &OwnedFd) -> Result<Stat, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match rustix::fs::statx(fd, c"", flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => Ok(Stat {
            dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mode: u32::from(stat.stx_mode),
            nlink: stat.stx_nlink,
        }),
        // Before Linux 4.11, or refused by a seccomp filter that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let stat = rustix::fs::fstat(fd)?;
            Ok(Stat {
                dev: stat.st_dev,
                ino: stat.st_ino,
                uid: stat.st_uid,
                gid: stat.st_gid,
                mode: stat.st_mode,
                nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            })
        }
        Err(error) => Err(error),
    }
}

/// Connects by the descriptor: paths of unix sockets end at 108 bytes, and this is exactly
/// the socket that was looked at. One whose queue is full is not waited for.
fn connect(socket: &OwnedFd) -> Result<OwnedFd, Unreadable> {
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&stream, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(stream),
        Err(Errno::AGAIN) => Err(Unreadable::Failed("too many wait there already".to_owned())),
        Err(error @ (Errno::ACCESS | Errno::PERM)) => Err(error.into()),
        Err(error) => Err(Unreadable::Failed(std::io::Error::from(error).to_string())),
    }
}
