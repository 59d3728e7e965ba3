//! Every parser of what the kernel says, callable by the fuzz targets in `fuzz/`.
//!
//! Each takes any bytes and may do anything with them but panic, run without end or
//! take memory out of proportion. Not part of the tool.

use super::{balance, btf, conntrack, ebpf, genl, mounts, procs, rules, sockdiag, tls};

pub use rules::fuzzing::{ip_set, legacy_table, nf_tables, nf_tables_expressions, xtables};

/// What is fuzzed.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("btf", btf),
    ("certificates", certificates),
    ("cilium", cilium),
    ("conntrack", conntrack),
    ("ipset", ip_set),
    ("ipvs", ipvs),
    ("legacy", legacy_table),
    ("netlink", netlink),
    ("nf_tables", nf_tables),
    ("nf_tables_expressions", nf_tables_expressions),
    ("proc", proc),
    ("records", records),
    ("sock_diag", sock_diag),
    ("xtables", xtables),
];

/// Messages of generic netlink, split, with their attributes.
pub fn netlink(bytes: &[u8]) {
    genl::fuzz(bytes);
}

/// Services and destinations of IPVS.
pub fn ipvs(bytes: &[u8]) {
    balance::fuzz_ipvs(bytes);
}

/// Answers of `sock_diag`.
pub fn sock_diag(bytes: &[u8]) {
    sockdiag::fuzz(bytes);
}

/// Messages of connection tracking.
pub fn conntrack(bytes: &[u8]) {
    conntrack::fuzz(bytes);
}

/// The kernel's BTF, and that of a module behind it: the first two bytes say in KiB
/// where that begins.
pub fn btf(bytes: &[u8]) {
    btf::fuzz(bytes);
}

/// Certificates that servers show.
pub fn certificates(bytes: &[u8]) {
    tls::fuzz(bytes);
}

/// The keys and values of Cilium's maps.
pub fn cilium(bytes: &[u8]) {
    balance::fuzz_cilium(bytes);
}

/// What the iterators write.
pub fn records(bytes: &[u8]) {
    ebpf::fuzz(bytes);
}

/// Files of `/proc` that are read as bytes.
pub fn proc(bytes: &[u8]) {
    mounts::pins(bytes, false);
    mounts::pins(bytes, true);
    procs::parse_start_time(bytes);
}
