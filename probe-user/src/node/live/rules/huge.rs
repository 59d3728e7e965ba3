//! Memory for large answers of the kernel.

/// From how many bytes on memory is asked for in huge pages.
const LARGE: usize = 4 << 20;

/// Asks for huge pages. The kernel writes a large answer into memory that was never touched:
/// in pages of 4 KiB that is ten thousand page faults. Where there are no larger ones,
/// nothing is lost.
#[expect(unsafe_code, reason = "advice on memory has no safe interface")]
pub(super) fn advise(buffer: &mut Vec<u8>) {
    // A multiple of every page size of 64 bit Linux.
    let size = 64 << 10;
    let start = buffer.as_mut_ptr();
    let skip = start.align_offset(size);
    let length = buffer.capacity().saturating_sub(skip) / size * size;
    if length < LARGE {
        return;
    }
    // SAFETY: these whole pages lie within the buffer, and the advice changes nothing
    // of what is in them.
    unsafe {
        libc::madvise(start.wrapping_add(skip).cast(), length, libc::MADV_HUGEPAGE);
    }
}
