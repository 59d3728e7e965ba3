//! Sockets that have no port: UNIX sockets by sock_diag, raw and packet sockets by procfs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::gaps::read_or_gap;
use super::netlink::{Attributes, Netlink, NetlinkRequest, SOCK_DIAG};
use super::reader::Responder;
use super::safefs::Unreadable;
use super::{LiveNode, files};
use whereis_port_model::{
    AcceptQueue, FileId, GapKind, GapSource, Impact, NetnsId, OtherKind, OtherPlace, OtherSocket,
    Read, SocketFile,
};

/// How many sockets of one namespace are taken in.
const MOST: usize = 200_000;
/// The most that one answer may have, in bytes.
const BYTES: usize = 64 << 20;
/// How much of a table of procfs is read.
const TABLE: usize = 8 << 20;
/// The message of both a question and its answers.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `UDIAG_SHOW_NAME`, `_VFS`, `_PEER`, `_RQLEN` and, since Linux 5.3, `_UID`.
const SHOW: u32 = 0x1 | 0x2 | 0x4 | 0x10 | 0x40;
/// Established, bound without a connection, and listening.
const STATES: u32 = 1 << 1 | 1 << 7 | 1 << LISTEN;
const LISTEN: u8 = 10;
const ESTABLISHED: u8 = 1;

/// Attributes of an answer (include/uapi/linux/unix_diag.h).
const NAME: u16 = 0;
const VFS: u16 = 1;
const PEER: u16 = 2;
const QUEUE: u16 = 4;
const UID: u16 = 7;

impl LiveNode {
    /// Those of these namespaces.
    pub(super) fn other_sockets_inside(&self, netns: &[NetnsId]) -> Read<Vec<OtherSocket>> {
        let name = "sockets without ports";
        let read = self.inside(name, Impact::Owner, &self.other_sockets, netns, |door| {
            let source = || GapSource::new(GapKind::Sockets, format!("netns {}", door.id));
            let mut read = read_or_gap(unix(door.id), Impact::Owner, source());
            for table in ["raw", "raw6", "packet"] {
                // What a kernel does not have is no table.
                let path = format!("/proc/thread-self/net/{table}");
                let text = match files::text(path.as_str(), TABLE) {
                    Ok(text) => text,
                    Err(rustix::io::Errno::NOENT) => continue,
                    Err(error) => {
                        let error: io::Result<Vec<OtherSocket>> = Err(error.into());
                        read.gaps.extend(read_or_gap(error, Impact::Owner, source()).gaps);
                        continue;
                    }
                };
                read.value.extend(text.lines().skip(1).filter_map(|line| match table {
                    "packet" => packet(door.id, line),
                    _ => raw(door.id, line),
                }));
            }
            read
        });
        // The probe tells of sockets with ports alone.
        let inodes = read.value.iter().flat_map(|s| [Some(s.inode), s.peer]).flatten();
        self.unprobed.borrow_mut().extend(inodes);
        read
    }

    /// What is at a path, here.
    pub(super) fn file_of_socket(&self, path: &str) -> SocketFile {
        let root = Path::new("/");
        let found = self
            .reader
            .open(root, Responder::own(root).part("a socket"))
            .and_then(|tree| tree.part_of_others("a socket").socket(Path::new(path)));
        match found {
            Ok(socket) => {
                let (dev, ino) = (socket.stat.dev, socket.stat.ino);
                let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
                #[expect(clippy::cast_possible_truncation, reason = "the kernel cuts it so, too")]
                let ino = ino as u32;
                SocketFile::Socket(FileId { dev: major << 20 | minor & 0xf_ffff, ino })
            }
            Err(Unreadable::Missing) => SocketFile::Missing,
            Err(Unreadable::WrongKind(_)) => SocketFile::NoSocket,
            Err(error) => SocketFile::Unknown(error.to_string()),
        }
    }
}

/// `struct unix_diag_req`, include/uapi/linux/unix_diag.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
struct UnixRequest {
    family: u8,
    protocol: u8,
    pad: u16,
    states: u32,
    inode: u32,
    show: u32,
    cookie: [u32; 2],
}

/// `struct unix_diag_msg`.
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct UnixDiag {
    family: u8,
    kind: u8,
    state: u8,
    pad: u8,
    inode: u32,
    cookie: [u32; 2],
}

/// The UNIX sockets of the calling thread's namespace that have a name, or are connected.
fn unix(netns: NetnsId) -> io::Result<Vec<OtherSocket>> {
    let family = u8::try_from(libc::AF_UNIX).unwrap_or(1);
    let request = UnixRequest {
        family,
        protocol: 0,
        pad: 0,
        states: STATES,
        inode: 0,
        show: SHOW,
        cookie: [u32::MAX; 2],
    };
    let request = NetlinkRequest::dump(SOCK_DIAG_BY_FAMILY, request.as_bytes());
    let mut netlink = Netlink::open(SOCK_DIAG, BYTES)?;
    netlink.collect(&request, MOST, |message| convert(netns, message.body))
}

/// An answer as a fact; `None` for what has no name.
fn convert(netns: NetnsId, response: &[u8]) -> Option<OtherSocket> {
    let (head, attributes) = UnixDiag::read_from_prefix(response).ok()?;
    let kind = match i32::from(head.kind) {
        libc::SOCK_STREAM => OtherKind::UnixStream,
        libc::SOCK_SEQPACKET => OtherKind::UnixSeqpacket,
        libc::SOCK_DGRAM => OtherKind::UnixDatagram,
        _ => return None,
    };
    let number = |bytes: &[u8], at: usize| -> Option<u32> {
        bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
    };
    let (mut name, mut file, mut peer, mut queue, mut uid) = (None, None, None, None, None);
    for (attribute, value) in Attributes(attributes) {
        match attribute {
            NAME => name = Some(value),
            VFS => {
                file = number(value, 0).zip(number(value, 4)).map(|(ino, dev)| FileId { dev, ino });
            }
            PEER => peer = number(value, 0).filter(|inode| *inode != 0).map(u64::from),
            QUEUE => {
                queue = number(value, 0)
                    .zip(number(value, 4))
                    .map(|(waiting, limit)| AcceptQueue { waiting, limit, drops: None });
            }
            UID => uid = number(value, 0),
            _ => {}
        }
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let at = match name? {
        [0, name @ ..] => OtherPlace::Abstract(text(name)),
        path => {
            let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
            OtherPlace::Path(text(path.get(..end)?), file)
        }
    };
    let listens = match kind {
        // What is connected to one takes messages of that one alone.
        OtherKind::UnixDatagram => head.state != ESTABLISHED,
        _ => head.state == LISTEN,
    };
    if !listens && head.state != ESTABLISHED {
        return None;
    }
    Some(OtherSocket {
        netns,
        kind,
        at,
        listens,
        inode: u64::from(head.inode),
        uid,
        peer,
        queue: queue.filter(|_| head.state == LISTEN),
    })
}

/// A line of `/proc/net/raw` or `raw6`: the port of the local address is the protocol, and all
/// numbers but those of the last columns are hexadecimal (net/ipv4/raw.c).
fn raw(netns: NetnsId, line: &str) -> Option<OtherSocket> {
    let mut words = line.split_ascii_whitespace();
    let (address, protocol) = words.nth(1)?.split_once(':')?;
    let mut rest = words.skip(5);
    let uid = rest.next()?.parse().ok()?;
    let inode = rest.nth(1)?.parse().ok()?;
    let address: IpAddr = match address.len() {
        8 => {
            // In the byte order of the machine.
            let bytes = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
            Ipv4Addr::from(bytes).into()
        }
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                let word = u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?;
                part.copy_from_slice(&word.to_ne_bytes());
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    let protocol = u8::try_from(u16::from_str_radix(protocol, 16).ok()?).ok()?;
    let at = OtherPlace::Protocol(protocol, Some(address).filter(|a| !a.is_unspecified()));
    Some(plain(netns, OtherKind::Raw, at, inode, uid))
}

/// A line of `/proc/net/packet`: type, protocol of Ethernet (hexadecimal), device, user, inode
/// (net/packet/af_packet.c). One without a protocol sees nothing.
fn packet(netns: NetnsId, line: &str) -> Option<OtherSocket> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, _, _, protocol, device, _, _, uid, inode] = words.as_slice() else { return None };
    let protocol = u16::from_str_radix(protocol, 16).ok().filter(|protocol| *protocol != 0)?;
    let at = OtherPlace::Device(device.parse().ok()?, protocol);
    Some(plain(netns, OtherKind::Packet, at, inode.parse().ok()?, uid.parse().ok()?))
}

fn plain(netns: NetnsId, kind: OtherKind, at: OtherPlace, inode: u64, uid: u32) -> OtherSocket {
    OtherSocket { netns, kind, at, listens: true, inode, uid: Some(uid), peer: None, queue: None }
}

/// For the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    for message in super::netlink::messages(bytes) {
        convert(NetnsId::Inode(1), message.body);
    }
    for line in String::from_utf8_lossy(bytes).lines() {
        raw(NetnsId::Inode(1), line);
        packet(NetnsId::Inode(1), line);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    const HERE: NetnsId = NetnsId::Inode(1);

    #[test]
    fn a_listener_is_told_with_its_file_and_who_is_connected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let (served, _) = listener.accept().unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        let text = path.to_str().unwrap();
        let all = unix(HERE).unwrap();
        let is_it = |s: &&OtherSocket| matches!(&s.at, OtherPlace::Path(p, _) if p == text);
        let found: Vec<&OtherSocket> = all.iter().filter(is_it).collect();
        let listening = found.iter().find(|s| s.listens).unwrap();
        assert_eq!(listening.kind, OtherKind::UnixStream);
        assert_eq!(listening.queue.map(|queue| queue.waiting), Some(1));
        let node = LiveNode::new().unwrap();
        let OtherPlace::Path(_, file) = &listening.at else { panic!("{listening:?}") };
        assert_eq!(node.file_of_socket(text), SocketFile::Socket(file.unwrap()));
        let inode = |fd: &UnixStream| rustix::fs::fstat(fd).unwrap().st_ino;
        let connected = found.iter().find(|s| s.inode == inode(&served)).unwrap();
        assert_eq!((connected.listens, connected.peer), (false, Some(inode(&client))));
        assert_eq!(node.file_of_socket("/nosuch/x"), SocketFile::Missing);
        assert_eq!(node.file_of_socket("/etc/passwd"), SocketFile::NoSocket);
    }

    #[test]
    fn an_answer_is_read_and_a_damaged_one_is_no_panic() {
        let head = UnixDiag { family: 1, kind: 5, state: 10, pad: 0, inode: 7, cookie: [1, 2] };
        let mut bytes = head.as_bytes().to_vec();
        for (kind, value) in
            [(NAME, &b"\0abc"[..]), (QUEUE, &[1, 0, 0, 0, 5, 0, 0, 0]), (UID, &[33, 0, 0, 0])]
        {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
        }
        let socket = convert(HERE, &bytes).unwrap();
        assert_eq!(socket.at, OtherPlace::Abstract("abc".to_owned()));
        assert_eq!((socket.kind, socket.uid), (OtherKind::UnixSeqpacket, Some(33)));
        assert_eq!(socket.queue, Some(AcceptQueue { waiting: 1, limit: 5, drops: None }));
        for length in 0..bytes.len() {
            convert(HERE, &bytes[..length]);
        }
    }

    #[test]
    fn raw_and_packet_sockets_are_read() {
        // Of Linux 6.18, on a machine that counts from the lowest byte on.
        let line = "    1: 0100007F:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 12345 2 00000000 0";
        let socket = raw(HERE, line).unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(socket.at, OtherPlace::Protocol(1, Some(Ipv4Addr::LOCALHOST.into())));
        }
        assert_eq!((socket.inode, socket.uid), (12345, Some(1000)));
        let line = "   58: 00000000000000000000000000000000:003A 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 77 2 00000000 0";
        assert_eq!(raw(HERE, line).unwrap().at, OtherPlace::Protocol(58, None));
        let line = "0000000000000000 3      3    0003   2     1       0      0      9876";
        let socket = packet(HERE, line).unwrap();
        assert_eq!((socket.at, socket.inode), (OtherPlace::Device(2, 3), 9876));
        let silent = "0000000000000000 3      3    0000   2     1       0      0      9876";
        assert_eq!(packet(HERE, silent), None);
        for line in ["", "x", "1: : :"] {
            assert_eq!((raw(HERE, line), packet(HERE, line)), (None, None));
        }
    }
}
