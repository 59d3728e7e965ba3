//! Making maps of the kernel and pinning them.

use std::ffi::CString;

use anyhow::{Context, Result, bail};

/// Commands of bpf(2).
const CREATE: libc::c_long = 0;
const UPDATE: libc::c_long = 2;
const PIN: libc::c_long = 6;

const LOAD: libc::c_long = 5;
const LINK: libc::c_long = 28;
/// Types of maps, with the flags that they are made with.
pub(crate) const HASH: (u32, u32) = (1, 0);
pub(crate) const TRIE: (u32, u32) = (11, 1);

/// Makes a map with entries that are given as `KEY:VALUE`, both in hexadecimal digits,
/// and pins it.
pub(crate) fn pin((kind, flags): (u32, u32), args: &[String]) -> Result<()> {
    let [path, entries @ ..] = args else { bail!("a map takes a path and entries") };
    let entry = |text: &String| {
        let (key, value) = text.split_once(':').context("an entry is KEY:VALUE")?;
        Ok((bytes(key)?, bytes(value)?))
    };
    // Many of them are in a file: a command line has an end.
    let listed = match entries {
        [only] => only.strip_prefix('@').map(std::fs::read_to_string).transpose()?,
        _ => None,
    };
    let lines: Option<Vec<String>> = listed.map(|text| text.lines().map(str::to_owned).collect());
    let entries = lines.as_deref().unwrap_or(entries);
    let entries = entries.iter().map(entry).collect::<Result<Vec<_>>>()?;
    let (key, value) = entries.first().context("a map without entries has no sizes")?;
    let count = u32::try_from(entries.len())?;
    // `struct { map_type, key_size, value_size, max_entries, map_flags }`.
    let create = [kind, u32::try_from(key.len())?, u32::try_from(value.len())?, count, flags];
    let map = bpf(CREATE, &create)?;
    for (k, v) in &entries {
        if (k.len(), v.len()) != (key.len(), value.len()) {
            bail!("entries of different sizes");
        }
        bpf(UPDATE, &[u64::try_from(map)?, k.as_ptr() as u64, v.as_ptr() as u64, 0])?;
    }
    pin_at(path, map)
}

/// Links a program that lets everything pass to a cgroup, and pins the link.
pub(crate) fn pin_link(args: &[String]) -> Result<()> {
    let [path, cgroup, at] = args else { bail!("pin-link takes a path, a cgroup and a type") };
    let at: u32 = at.parse()?;
    // r0 = 1; exit
    let code: [u8; 16] = [0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    // `struct { prog_type, insn_cnt, insns, license, … expected_attach_type }`.
    let mut load = [0u32; 18];
    load[..2].copy_from_slice(&[18, 2]);
    let mut address = |at: usize, to: u64| {
        let bytes = to.to_ne_bytes();
        let half = |from| u32::from_ne_bytes([0, 1, 2, 3].map(|n: usize| bytes[from + n]));
        load[at..at + 2].copy_from_slice(&[half(0), half(4)]);
    };
    address(2, code.as_ptr() as u64);
    address(4, c"GPL".as_ptr() as u64);
    load[17] = at;
    let program = u32::try_from(bpf(LOAD, &load)?)?;
    let group = std::fs::File::open(cgroup).with_context(|| cgroup.clone())?;
    let target = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&group))?;
    let link = bpf(LINK, &[program, target, at, 0])?;
    pin_at(path, link)
}

fn pin_at(path: &str, fd: libc::c_long) -> Result<()> {
    let path = CString::new(path)?;
    // The descriptor is in the lower half of the second member, wherever that is.
    let mut members = [0u8; 16];
    members[..8].copy_from_slice(&(path.as_ptr() as u64).to_ne_bytes());
    members[8..12].copy_from_slice(&u32::try_from(fd)?.to_ne_bytes());
    bpf(PIN, &members)?;
    // The descriptor is closed at the end of this process, which is now.
    Ok(())
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let pair = |at| hex.get(at..at + 2).context("an odd number of digits");
    (0..hex.len()).step_by(2).map(|at| Ok(u8::from_str_radix(pair(at)?, 16)?)).collect()
}

fn bpf<T>(command: libc::c_long, ask: &T) -> Result<libc::c_long> {
    #[expect(unsafe_code, reason = "no crate here has a safe form of this system call")]
    // SAFETY: the kernel reads as many bytes as the last argument says, and where they
    // lead to keys and values as many as the map was made with, which was checked.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(ask), std::mem::size_of::<T>())
    };
    if result < 0 {
        return Err(std::io::Error::last_os_error()).with_context(|| format!("bpf({command})"));
    }
    Ok(result)
}
