//! Parsers of what the kernel, processes, runtimes and APIs say, for the fuzz targets.

use whereis_port_model::{NetnsId, Proto};

use super::{
    attached, balance, btf, conntrack, containers, cri, ebpf, files, freezer, kube, mounts,
    netlink as framing, other, ports, process, procnet, procs, rtnl, rules, sockdiag, tls,
};

pub use rules::fuzzing::{ip_set, legacy_table, nf_tables, nf_tables_expressions, xtables};

/// Messages of netlink, split, with their attributes: the framing of all families.
pub fn netlink(bytes: &[u8]) {
    framing::fuzz(bytes);
}

/// Services and destinations of IPVS.
pub fn ipvs(bytes: &[u8]) {
    balance::fuzz_ipvs(bytes);
}

/// Answers of `sock_diag`, and the tables of sockets without ports.
pub fn sock_diag(bytes: &[u8]) {
    sockdiag::fuzz(bytes);
    other::fuzz(bytes);
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

/// Links, addresses and routes; queueing disciplines and filters.
pub fn rtnetlink(bytes: &[u8]) {
    rtnl::fuzz(bytes);
    attached::fuzz(bytes);
}

/// Files of `/proc`, of a process and of a namespace, and user names.
pub fn proc(bytes: &[u8]) {
    mounts::interesting(bytes, 16);
    procs::parse_start_time(bytes);
    files::arguments(bytes);
    let text = String::from_utf8_lossy(bytes);
    process::fuzz(&text);
    ports::fuzz(&text);
    freezer::fuzz(&text);
    for proto in Proto::ALL {
        let _ = procnet::parse(bytes, NetnsId::Inode(1), proto);
    }
}

/// Command lines of container runtimes, one argument a line, and containerd's
/// configuration.
pub fn arguments(bytes: &[u8]) {
    containers::fuzz_arguments(bytes);
}

/// What container runtimes keep in files.
pub fn state_files(bytes: &[u8]) {
    containers::fuzz_state_files(bytes);
}

/// Answers of Docker's API.
pub fn docker(bytes: &[u8]) {
    containers::fuzz_docker(bytes);
}

/// Answers of the Container Runtime Interface.
pub fn cri(bytes: &[u8]) {
    cri::fuzz(bytes);
}

/// Answers of a Kubernetes API: the first byte says of what kind.
pub fn kube(bytes: &[u8]) {
    kube::fuzz_objects(bytes);
}

/// kubeconfig files.
pub fn kubeconfig(bytes: &[u8]) {
    kube::fuzz_config(bytes);
}

/// Words, one a line, as arguments of a program.
pub fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}
