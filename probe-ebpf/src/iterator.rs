//! What iterator programs have in common. The library has no macro for them.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_seq_write;
use probe_common::{ABI, HeaderRecord, record};

/// `struct bpf_iter_meta`, include/linux/bpf.h.
#[repr(C)]
pub(crate) struct Meta {
    seq: *mut c_void,
    session_id: u64,
    seq_num: u64,
}

/// Writes the header before the first record of a reading.
///
/// # Safety
/// `meta` is the one of the program's context.
#[inline(always)]
pub(crate) unsafe fn begin(meta: *const Meta) {
    // SAFETY: the kernel's context; the verifier checks the access.
    if unsafe { (*meta).seq_num } == 0 {
        let header =
            HeaderRecord { kind: record::HEADER, size: size_of::<HeaderRecord>() as u16, abi: ABI };
        // SAFETY: as above.
        unsafe { write(meta, &raw const header) };
    }
}

/// Writes one record. When the buffer is full, the kernel hands it out and calls
/// the program for the same object again.
///
/// # Safety
/// `meta` is the one of the program's context, `record` is whole and has no padding.
#[inline(always)]
pub(crate) unsafe fn write<T>(meta: *const Meta, record: *const T) {
    // SAFETY: the verifier knows `seq` as a seq_file, and that the record is on
    // the stack with this size.
    unsafe {
        bpf_seq_write((*meta).seq.cast(), record.cast(), size_of::<T>() as u32);
    }
}
