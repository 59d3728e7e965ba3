//! Reading maps that somebody else has pinned.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// No map is read further than this.
const MAX_ENTRIES: usize = 1_000_000;
/// How many entries are asked for at once, at first: a bucket of a hash that has more
/// makes the kernel ask for more room.
const BATCH: u32 = 4096;
/// `BPF_MAP_TYPE_HASH` and `BPF_MAP_TYPE_LRU_HASH`. Only of these a value is as long as
/// the kernel says: maps per CPU have one for each of them.
const HASHES: [u32; 2] = [1, 9];
/// `BPF_MAP_TYPE_LPM_TRIE`.
const LPM_TRIE: u32 = 11;
/// The longest keys and values that are read.
const MAX_SIZE: u32 = 4096;

/// Commands of bpf(2).
const LOOKUP: libc::c_long = 1;
const NEXT_KEY: libc::c_long = 4;
const OBJ_GET: libc::c_long = 7;
const INFO: libc::c_long = 15;
const LOOKUP_BATCH: libc::c_long = 24;
/// `BPF_F_RDONLY`.
const READ_ONLY: u32 = 1 << 3;
/// What kernels answer to a command that this kind of map does not have. Not in libc:
/// it was not meant to be seen.
const ENOTSUPP: i32 = 524;

/// A hash, or a trie of prefixes, that was pinned.
#[derive(Debug)]
pub(in crate::live) struct Map {
    fd: OwnedFd,
    /// The bytes of each key.
    pub(in crate::live) key_size: usize,
    /// The bytes of each value.
    pub(in crate::live) value_size: usize,
}

/// The entries of a map. One that was changed while it was read may be there twice.
#[derive(Debug, Default)]
pub(in crate::live) struct MapEntries {
    key_size: usize,
    value_size: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl MapEntries {
    /// Of bytes: as many entries of keys and values with these sizes as there are.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(in crate::live) fn of_bytes(sizes: (usize, usize), bytes: &[u8]) -> Self {
        let (key_size, value_size) = sizes;
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for entry in bytes.chunks_exact(key_size + value_size) {
            let (key, value) = entry.split_at(key_size);
            keys.extend_from_slice(key);
            values.extend_from_slice(value);
        }
        Self { key_size, value_size, keys, values }
    }

    /// The keys, each with its value.
    pub(in crate::live) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let keys = self.keys.chunks_exact(self.key_size.max(1));
        keys.zip(self.values.chunks_exact(self.value_size.max(1)))
    }

    /// How many there are.
    pub(in crate::live) fn len(&self) -> usize {
        self.keys.len() / self.key_size.max(1)
    }

    fn room(&self) -> io::Result<()> {
        if self.len() > MAX_ENTRIES {
            return Err(io::Error::other(format!("it has more than {MAX_ENTRIES} entries")));
        }
        Ok(())
    }
}

#[repr(C)]
struct ObjGet {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
pub(super) struct InfoOf {
    pub(super) fd: u32,
    pub(super) length: u32,
    pub(super) info: u64,
}

/// The begin of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// The element commands of `union bpf_attr`.
#[repr(C)]
struct MapElemAttr {
    fd: u32,
    pad: u32,
    key: u64,
    /// Or the next key.
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    fd: u32,
    element_flags: u64,
    flags: u64,
}

/// Whether a descriptor is on bpffs, and root alone could have put it there.
pub(in crate::live) fn is_trusted(fd: impl AsFd) -> bool {
    let stat = rustix::fs::fstat(&fd);
    super::place::is_bpffs(&fd)
        && stat.is_ok_and(|stat| super::place::distrust(stat.st_uid, stat.st_mode).is_none())
}

/// Whether a descriptor is on bpffs.
pub(in crate::live) fn is_bpffs(fd: impl AsFd) -> bool {
    super::place::is_bpffs(fd)
}

/// Opens the map that is pinned where `pin`, opened with `O_PATH`, leads; an error where
/// something else is.
fn open(pin: BorrowedFd<'_>) -> io::Result<(OwnedFd, MapInfo)> {
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", pin.as_raw_fd()))?;
    let mut get = ObjGet { path: path.as_ptr() as u64, fd: 0, flags: READ_ONLY };
    #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
    // SAFETY: the path ends with a NUL and outlives the call; nothing is written there.
    let fd = unsafe { bpf(OBJ_GET, &mut get) }?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "the descriptor comes as a number")]
    // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = MapInfo::default();
    let length = u32::try_from(size_of::<MapInfo>()).map_err(io::Error::other)?;
    let number = number(&fd)?;
    #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
    // SAFETY: `info` is as long as `length` says, and only this function has it.
    unsafe { bpf(INFO, &mut InfoOf { fd: number, length, info: (&raw mut info) as u64 }) }?;
    Ok((fd, info))
}

/// The id of the map of any type that is pinned where `pin`, opened with `O_PATH`, leads; an
/// error where something else is.
pub(in crate::live) fn id_of(pin: BorrowedFd<'_>) -> io::Result<u32> {
    open(pin).map(|(_, info)| info.id)
}

/// `BPF_LINK_TYPE_CGROUP`.
const CGROUP_LINK: u32 = 3;

/// The begin of `struct bpf_link_info`, with what a link to a cgroup has.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    cgroup: u64,
    attach_type: u32,
    end: u32,
}

/// The cgroup v2, the program's id and the `enum bpf_attach_type` of the link that is pinned where `pin`, opened
/// with `O_PATH`, leads; `None` where it is a link of another kind.
pub(in crate::live) fn cgroup_link(pin: BorrowedFd<'_>) -> io::Result<Option<(u64, u32, u32)>> {
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", pin.as_raw_fd()))?;
    // The kernel gives links for reading and writing alone; nothing is written.
    let mut get = ObjGet { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
    // SAFETY: the path ends with a NUL and outlives the call; nothing is written there.
    let fd = unsafe { bpf(OBJ_GET, &mut get) }?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "the descriptor comes as a number")]
    // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = LinkInfo::default();
    let length = u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?;
    let number = number(&fd)?;
    #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
    // SAFETY: `info` is as long as `length` says, and only this function has it.
    unsafe { bpf(INFO, &mut InfoOf { fd: number, length, info: (&raw mut info) as u64 }) }?;
    Ok((info.kind == CGROUP_LINK).then_some((info.cgroup, info.program, info.attach_type)))
}

impl Map {
    /// Opens the map that is pinned where `pin`, opened with `O_PATH`, leads.
    pub(in crate::live) fn open(pin: BorrowedFd<'_>) -> io::Result<Self> {
        let (fd, info) = self::open(pin)?;
        let known = HASHES.contains(&info.kind) || info.kind == LPM_TRIE;
        if !known || info.key_size == 0 || info.value_size == 0 {
            return Err(io::Error::other(format!("it is no hash, but of type {}", info.kind)));
        }
        if info.key_size > MAX_SIZE || info.value_size > MAX_SIZE {
            return Err(io::Error::other("its entries are too long"));
        }
        Ok(Self { fd, key_size: info.key_size as usize, value_size: info.value_size as usize })
    }

    /// Everything in it.
    pub(in crate::live) fn entries(&self) -> io::Result<MapEntries> {
        match self.in_batches() {
            // Before Linux 5.6.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP)) => {
                self.one_by_one()
            }
            other => other,
        }
    }

    fn nothing(&self) -> MapEntries {
        MapEntries { key_size: self.key_size, value_size: self.value_size, ..MapEntries::default() }
    }

    fn in_batches(&self) -> io::Result<MapEntries> {
        let mut entries = self.nothing();
        let mut room = BATCH;
        // The place to go on from: four bytes of hashes, a key of all others.
        let (mut from, mut to) = (None, vec![0u8; self.key_size.max(8)]);
        loop {
            let mut keys = vec![0u8; room as usize * self.key_size];
            let mut values = vec![0u8; room as usize * self.value_size];
            let mut ask = Batch {
                from: from.as_ref().map_or(0, |from: &Vec<u8>| from.as_ptr() as u64),
                to: to.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: room,
                fd: number(&self.fd)?,
                element_flags: 0,
                flags: 0,
            };
            #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
            // SAFETY: `keys` and `values` have room for as many entries of this map as `count`
            // says, and so have `from` and `to` for the place to go on from.
            let looked_up = unsafe { bpf(LOOKUP_BATCH, &mut ask) };
            let at_end = match looked_up {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // A bucket with more entries than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && ask.count == 0 => {
                    room = room.saturating_mul(2);
                    if room as usize > 2 * MAX_ENTRIES {
                        return Err(error);
                    }
                    continue;
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => false,
                Err(error) => return Err(error),
            };
            let count = ask.count.min(room) as usize;
            entries.keys.extend_from_slice(keys.get(..count * self.key_size).unwrap_or_default());
            let values = values.get(..count * self.value_size).unwrap_or_default();
            entries.values.extend_from_slice(values);
            entries.room()?;
            if at_end {
                return Ok(entries);
            }
            from = Some(to.clone());
        }
    }

    fn one_by_one(&self) -> io::Result<MapEntries> {
        let mut entries = self.nothing();
        let mut key: Option<Vec<u8>> = None;
        let mut value = vec![0u8; self.value_size];
        for _ in 0..2 * MAX_ENTRIES {
            let mut next = vec![0u8; self.key_size];
            let after = key.as_ref().map_or(0, |key| key.as_ptr() as u64);
            // One that has vanished meanwhile makes the kernel begin again.
            #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
            // SAFETY: both are as long as this map's keys, or the first is 0.
            let found = unsafe { self.element(NEXT_KEY, after, next.as_mut_ptr() as u64) };
            match found {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(entries),
                Err(error) => return Err(error),
            }
            #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
            // SAFETY: they are as long as this map's keys and values.
            let found =
                unsafe { self.element(LOOKUP, next.as_ptr() as u64, value.as_mut_ptr() as u64) };
            match found {
                Ok(()) => {
                    entries.keys.extend_from_slice(&next);
                    entries.values.extend_from_slice(&value);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
            entries.room()?;
            key = Some(next);
        }
        Err(io::Error::other("it keeps changing"))
    }

    /// One command about one entry.
    ///
    /// # Safety
    /// `key` is 0 or leads to a key of this map, and `value` to room for what the command
    /// writes: a value of this map, or its next key.
    #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
    unsafe fn element(&self, command: libc::c_long, key: u64, value: u64) -> io::Result<()> {
        let fd = number(&self.fd)?;
        // SAFETY: as the caller says.
        unsafe { bpf(command, &mut MapElemAttr { fd, pad: 0, key, value, flags: 0 }) }.map(drop)
    }
}

/// A descriptor as the kernel takes it.
pub(super) fn number(fd: &impl AsRawFd) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

/// Asks the kernel by bpf(2).
///
/// # Safety
/// `T` is what the command takes, in the kernel's layout. Each address in `ask` is 0, or leads to
/// memory that lives until this returns: as long as the command reads there, and, where it
/// writes, as long as what it writes and borrowed by nobody else. For keys and values that is
/// as long as the map of `ask` has them, times the count for batches.
#[expect(unsafe_code, reason = "the library keeps this call to itself")]
pub(super) unsafe fn bpf<T>(command: libc::c_long, ask: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `ask` is as long as is said; for what its members lead to, the caller answers.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(ask), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
pub(in crate::live) mod making {
    //! Maps for tests.

    use super::*;

    #[repr(C)]
    struct Create {
        kind: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
    }

    /// Makes a hash with these entries, and pins it.
    pub(in crate::live) fn pin(
        path: &std::path::Path,
        sizes: (usize, usize),
        entries: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        pin_kind(path, 1, sizes, entries)
    }

    /// The same with a trie of prefixes.
    pub(in crate::live) fn pin_trie(
        path: &std::path::Path,
        sizes: (usize, usize),
        entries: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        pin_kind(path, LPM_TRIE, sizes, entries)
    }

    fn pin_kind(
        path: &std::path::Path,
        kind: u32,
        sizes: (usize, usize),
        entries: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        let (key_size, value_size) = (sizes.0 as u32, sizes.1 as u32);
        let max_entries = entries.len().max(1) as u32;
        #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
        // SAFETY: there is no address in it.
        let fd = unsafe {
            let flags = u32::from(kind == LPM_TRIE);
            bpf(0, &mut Create { kind, key_size, value_size, max_entries, flags })
        }?;
        let number = fd as u32;
        #[expect(unsafe_code, reason = "the descriptor comes as a number")]
        // SAFETY: the kernel has just made this descriptor.
        let _fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        for (key, value) in entries {
            assert_eq!((key.len(), value.len()), sizes);
            let (key, value) = (key.as_ptr() as u64, value.as_ptr() as u64);
            #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
            // SAFETY: both are as long as the map was made for.
            unsafe { bpf(2, &mut MapElemAttr { fd: number, pad: 0, key, value, flags: 0 }) }?;
        }
        let path = std::ffi::CString::new(path.to_str().unwrap())?;
        #[expect(unsafe_code, reason = "bpf(2) takes addresses")]
        // SAFETY: the path ends with a NUL and outlives the call.
        unsafe { bpf(6, &mut ObjGet { path: path.as_ptr() as u64, fd: number, flags: 0 }) }
            .map(drop)
    }

    /// Runs `test` in a mount namespace of its own, with a bpffs. `false` where there
    /// can't be one.
    pub(in crate::live) fn with_bpffs(test: impl FnOnce(&std::path::Path) + Send) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let run = || {
            use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
            use rustix::thread::{UnshareFlags, unshare_unsafe};
            #[expect(unsafe_code, reason = "the thread is made for this and ends after it")]
            // SAFETY: no descriptor table is unshared, which is what could harm.
            let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) };
            if unshared.is_err() {
                return false;
            }
            mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
                .unwrap();
            if mount("bpf", dir.path(), "bpf", MountFlags::empty(), None).is_err() {
                return false;
            }
            test(dir.path());
            true
        };
        std::thread::scope(|scope| scope.spawn(run).join().unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> io::Result<Map> {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        Map::open(rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap().as_fd())
    }

    #[test]
    fn a_map_is_read_whole_in_both_ways() {
        let there = making::with_bpffs(|dir| {
            // More than fit into one batch.
            let entry = |n: u32| (n.to_ne_bytes().to_vec(), vec![n as u8; 3]);
            let made: Vec<_> = (0..10_000).map(entry).collect();
            making::pin(&dir.join("map"), (4, 3), &made).unwrap();
            let map = open(&dir.join("map")).unwrap();
            assert_eq!((map.key_size, map.value_size), (4, 3));
            for read in [map.in_batches(), map.one_by_one(), map.entries()] {
                let read = read.unwrap();
                let mut read: Vec<_> = read.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
                read.sort_by_key(|(k, _)| u32::from_ne_bytes(k.as_slice().try_into().unwrap()));
                assert!(read == made, "{} entries", read.len());
            }
            // A trie, by prefixes of 32 bits.
            let entry = |n: u32| ([32u32.to_ne_bytes(), n.to_be_bytes()].concat(), vec![n as u8]);
            let made: Vec<_> = (0..9_000).map(entry).collect();
            making::pin_trie(&dir.join("trie"), (8, 1), &made).unwrap();
            let map = open(&dir.join("trie")).unwrap();
            for read in [map.one_by_one(), map.entries()] {
                let read = read.unwrap();
                let mut read: Vec<_> = read.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
                read.sort();
                assert!(read == made, "{} entries", read.len());
            }
            making::pin(&dir.join("empty"), (4, 3), &[]).unwrap();
            assert_eq!(open(&dir.join("empty")).unwrap().entries().unwrap().len(), 0);
        });
        assert!(there || !rustix::process::geteuid().is_root());
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(open(file.path()).is_err());
        assert!(!is_bpffs(file.as_file()) && !is_trusted(file.as_file()));
    }
}
