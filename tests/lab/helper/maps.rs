//! Making maps of the kernel and pinning them.

use std::ffi::CString;

use anyhow::{Context, Result, bail};

/// Commands of bpf(2).
const CREATE: libc::c_long = 0;
const UPDATE: libc::c_long = 2;
const PIN: libc::c_long = 6;

/// Makes a hash with entries that are given as `KEY:VALUE`, both in hexadecimal digits,
/// and pins it.
pub(crate) fn pin(args: &[String]) -> Result<()> {
    let [path, entries @ ..] = args else { bail!("pin-map takes a path and entries") };
    let entry = |text: &String| {
        let (key, value) = text.split_once(':').context("an entry is KEY:VALUE")?;
        Ok((bytes(key)?, bytes(value)?))
    };
    let entries = entries.iter().map(entry).collect::<Result<Vec<_>>>()?;
    let (key, value) = entries.first().context("a map without entries has no sizes")?;
    let count = u32::try_from(entries.len())?;
    // A hash: `struct { map_type, key_size, value_size, max_entries }`.
    let create = [1, u32::try_from(key.len())?, u32::try_from(value.len())?, count];
    let map = bpf(CREATE, &create)?;
    for (k, v) in &entries {
        if (k.len(), v.len()) != (key.len(), value.len()) {
            bail!("entries of different sizes");
        }
        bpf(UPDATE, &[u64::try_from(map)?, k.as_ptr() as u64, v.as_ptr() as u64, 0])?;
    }
    let path = CString::new(path.as_str())?;
    // The descriptor is in the lower half of the second member, wherever that is.
    let mut members = [0u8; 16];
    members[..8].copy_from_slice(&(path.as_ptr() as u64).to_ne_bytes());
    members[8..12].copy_from_slice(&u32::try_from(map)?.to_ne_bytes());
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
