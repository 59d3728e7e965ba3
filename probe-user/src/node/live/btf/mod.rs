//! Where the running kernel keeps the fields that the programs read: from the
//! BTF that the kernel gives of itself. Rust's eBPF has no relocation of fields,
//! so that the tool finds the offsets and hands them to the programs.

mod offsets;
mod parts;
mod reader;
mod table;
#[cfg(test)]
mod tests;

pub(super) use offsets::{Layout, read};
pub(super) use parts::Part;

/// Where the kernel shows its BTF, and that of each module.
pub(super) const DIRECTORY: &str = "/sys/kernel/btf";
