//! Reading an iterator to its end.

use std::fs::File;
use std::io::{self, Read as _};
use std::thread::JoinHandle;

use probe_common::Filter;

use super::records::ProbeReading;

/// The kernel hands out at most this much at once (8 pages).
const CHUNK: usize = 32 * 1024;

/// A reading that goes on.
pub(super) type Thread = JoinHandle<io::Result<ProbeReading>>;

/// Begins to read `file`, which asks for nothing yet, with `filter`.
///
/// The filter travels in the name of the reading thread, see
/// [`probe_common::Filter`]: a thread made for it, so that nobody sees another
/// thread change its name.
pub(super) fn begin(file: File, filter: &Filter) -> io::Result<Thread> {
    let name = filter.to_name();
    std::thread::Builder::new().stack_size(128 * 1024).spawn(move || {
        let name = std::ffi::CStr::from_bytes_until_nul(&name)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        rustix::thread::set_name(name)?;
        read_all(file)
    })
}

/// Waits for the end of a reading.
pub(super) fn end(thread: Thread) -> io::Result<ProbeReading> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the reading thread panicked")))
}

/// Reads `file` with `filter`.
pub(super) fn read(file: File, filter: &Filter) -> io::Result<ProbeReading> {
    end(begin(file, filter)?)
}

/// Reads `file` to its end.
pub(super) fn read_all(mut file: File) -> io::Result<ProbeReading> {
    let mut reading = ProbeReading::default();
    let mut buffer = vec![0; CHUNK];
    let mut filled = 0;
    loop {
        let length = match file.read(&mut buffer[filled..]) {
            Ok(0) if reading.is_whole() && filled == 0 => return Ok(reading),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The kernel has walked over a million objects without one that is
            // wanted, and asks to go on.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => continue,
            Err(error) => return Err(error),
        };
        filled += length;
        let taken = reading.take(&buffer[..filled])?;
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
    }
}
