//! Where the running kernel keeps the fields that the programs read: from the
//! BTF that the kernel gives of itself. Rust's eBPF has no relocation of fields,
//! so that the tool finds the offsets and hands them to the programs.

mod offsets;
mod parts;
mod reader;
mod reasons;
mod table;
#[cfg(test)]
mod tests;

pub(super) use offsets::{KernelLayout, read};
pub(super) use parts::ProbePart;
pub(super) use reasons::Reasons;

/// Where the kernel shows its BTF, and that of each module.
pub(super) const DIRECTORY: &str = "/sys/kernel/btf";

/// For the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    let Some((head, bytes)) = bytes.split_first_chunk() else { return };
    let length = usize::from(u16::from_le_bytes(*head)).saturating_mul(1024);
    let (kernel, module) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
    // What is wrong with it is an answer, too.
    let _ = offsets::find(kernel, || Some(module.to_vec()), &["inet_listen", "tcp_close"]);
}
