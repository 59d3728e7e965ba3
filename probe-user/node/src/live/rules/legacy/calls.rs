//! The calls that give a table.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::index::TableInfo;
use crate::live::files;

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: i32 = 64;
/// `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`.
const GET_ENTRIES: i32 = 65;
/// What precedes the entries: the table's name, their size, and padding.
const HEADER: usize = 40;
const NAME: usize = 32;
/// How often a table that changes between two calls is asked for again.
const ATTEMPTS: usize = 32;

/// From how many bytes on memory is asked for in huge pages.
const HUGE: usize = 8 << 20;

/// A table as the kernel gives it.
pub(super) struct RawTable {
    pub(super) name: String,
    pub(super) info: TableInfo,
    pub(super) entries: TableEntries,
}

/// The entries of a table, behind the header they came with: of a large table, moving
/// them costs milliseconds.
pub(super) struct TableEntries {
    bytes: Vec<u8>,
    start: usize,
}

impl std::ops::Deref for TableEntries {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl From<Vec<u8>> for TableEntries {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, start: 0 }
    }
}

/// The tables of the calling thread's namespace.
/// Asking for a table that is not there would make it, with its hooks, and load
/// modules: only those that the kernel lists are asked for.
/// `take` is asked for room first.
pub(super) fn read(ipv6: bool, take: impl Fn(usize) -> bool) -> io::Result<Vec<RawTable>> {
    of_each(ipv6, |socket, level, name| table(socket, level, name, &take))
}

/// What the kernel tells of each table without its entries.
pub(super) fn sizes(ipv6: bool) -> io::Result<Vec<Vec<u8>>> {
    of_each(ipv6, |socket, level, name| {
        let mut info = named(name, TableInfo::SIZE)?;
        get(socket, level, GET_INFO, &mut info)?;
        Ok(info)
    })
}

fn of_each<T>(
    ipv6: bool,
    ask: impl Fn(&OwnedFd, i32, &str) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    let file = if ipv6 { "ip6_tables_names" } else { "ip_tables_names" };
    let names = match files::text(format!("/proc/thread-self/net/{file}"), files::SMALL) {
        // Without the module there is no such file.
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        names => names?,
    };
    if names.is_empty() {
        return Ok(Vec::new());
    }
    // Any socket of the family does; a raw one would need one right more.
    let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let level = if ipv6 { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP };
    names.lines().map(|name| ask(&socket, level, name)).collect()
}

fn table(
    socket: &OwnedFd,
    level: i32,
    name: &str,
    take: impl Fn(usize) -> bool,
) -> io::Result<RawTable> {
    for _ in 0..ATTEMPTS {
        let mut info = named(name, TableInfo::SIZE)?;
        get(socket, level, GET_INFO, &mut info)?;
        let info = TableInfo::parse(&info).ok_or(io::ErrorKind::InvalidData)?;
        if !take(info.size) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut entries = named(name, HEADER + info.size)?;
        use_huge_pages(&mut entries);
        if let Some(size) = entries.get_mut(NAME..NAME + 4) {
            size.copy_from_slice(&u32::try_from(info.size).unwrap_or(u32::MAX).to_ne_bytes());
        }
        match get(socket, level, GET_ENTRIES, &mut entries) {
            // Its size is another one by now.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok(()) => {
                let entries = TableEntries { bytes: entries, start: HEADER };
                return Ok(RawTable { name: name.to_owned(), info, entries });
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, format!("the table {name} keeps changing")))
}

/// Room for an answer, which begins with the name of what is asked for.
fn named(name: &str, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    // The kernel wants a NUL behind it.
    let place = buffer.get_mut(..name.len()).filter(|_| name.len() < NAME);
    place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    Ok(buffer)
}

/// The kernel writes a large table into memory that was never touched: in pages of
/// 4 KiB that is ten thousand page faults. Where there are no larger ones, nothing is lost.
#[expect(unsafe_code, reason = "advice on memory has no safe interface")]
fn use_huge_pages(buffer: &mut [u8]) {
    // A multiple of every page size of 64 bit Linux.
    let size = 64 << 10;
    let start = buffer.as_mut_ptr();
    let skip = start.align_offset(size);
    let length = buffer.len().saturating_sub(skip) / size * size;
    if length < HUGE {
        return;
    }
    // SAFETY: these whole pages lie within the buffer, and the advice changes nothing
    // of what is in them.
    unsafe {
        libc::madvise(start.wrapping_add(skip).cast(), length, libc::MADV_HUGEPAGE);
    }
}

#[expect(unsafe_code, reason = "no safe interface knows these options")]
fn get(socket: &OwnedFd, level: i32, option: i32, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: the buffer is that long and lives through the call; the kernel writes
    // bytes, of which every value is one, into it and no further.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
