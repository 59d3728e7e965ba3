//! Whether a namespace has NAT or load balancing that could take a port without
//! any socket, seen from a thread inside it. Presence only.

use std::io;

use netlink_packet_core::{NlaBuffer, NlasIterator};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN` (linux/netfilter/nf_tables.h).
const GET_CHAIN: u16 = 10 << 8 | 4;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_CHAIN_TYPE: u16 = 7;

/// What was found, one line each, and what could not be read.
pub(super) fn presence() -> (Vec<String>, Vec<(&'static str, io::Error)>) {
    let mut found = Vec::new();
    let mut failed = Vec::new();
    match nat_chains() {
        Ok(0) => {}
        Ok(chains) => found.push(format!("nf_tables: {chains} nat chains with rules")),
        Err(error) => failed.push(("nf_tables", error)),
    }
    let mut read = |file: &'static str| match table(&format!("/proc/thread-self/net/{file}")) {
        Ok(text) => text,
        Err(error) => {
            failed.push((file, error));
            String::new()
        }
    };
    // Only a table that was used at least once is listed. Readable by root only.
    for (file, family) in [("ip_tables_names", "IPv4"), ("ip6_tables_names", "IPv6")] {
        if read(file).lines().any(|name| name == "nat") {
            found.push(format!("legacy iptables: an {family} nat table"));
        }
    }
    let services =
        read("ip_vs").lines().filter(|l| l.starts_with("TCP ") || l.starts_with("UDP ")).count();
    if services > 0 {
        found.push(format!("IPVS: {services} services"));
    }
    (found, failed)
}

/// Reads a table of procfs, which does not exist when the kernel lacks what it
/// is about.
fn table(path: &str) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

/// How many chains of type nat have rules. 0 when the kernel has no nf_tables.
fn nat_chains() -> io::Result<usize> {
    if !has_module("nf_tables") {
        return Ok(0);
    }
    let socket = match Socket::new(NETLINK_NETFILTER) {
        // A kernel without nfnetlink has no nf_tables either.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(0),
        socket => socket?,
    };
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = Vec::with_capacity(20);
    request.extend(20u32.to_ne_bytes());
    request.extend(GET_CHAIN.to_ne_bytes());
    request.extend(0x301u16.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([0; 4]);
    socket.send(&request, 0)?;
    let mut chains = 0;
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        for message in super::genl::messages(&buffer) {
            match message.kind {
                NLMSG_DONE | NLMSG_ERROR => {
                    let code =
                        message.body.first_chunk::<4>().map_or(0, |c| i32::from_ne_bytes(*c));
                    return match -code {
                        0 => Ok(chains),
                        // No nf_tables in this kernel, so no rules of it.
                        libc::EINVAL | libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT => {
                            Ok(0)
                        }
                        errno => Err(io::Error::from_raw_os_error(errno)),
                    };
                }
                _ => {
                    chains +=
                        usize::from(is_nat_with_rules(message.body.get(4..).unwrap_or_default()))
                }
            }
        }
    }
}

/// Whether the kernel has this module loaded or built in. Asking one that has
/// not would make it load the module, and reading must not change the node.
/// Where that can't be told (no list of what is built in) it is asked.
pub(super) fn has_module(name: &str) -> bool {
    // Without this file the kernel has no modules to load.
    let Ok(modules) = std::fs::read_to_string("/proc/modules") else { return true };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let builtin = std::fs::read_to_string(format!("/lib/modules/{release}/modules.builtin"));
    is_listed(name, &modules, builtin.ok().as_deref())
}

fn is_listed(name: &str, modules: &str, builtin: Option<&str>) -> bool {
    let file = format!("/{name}.ko");
    modules.lines().any(|line| line.split(' ').next() == Some(name))
        || builtin.is_none_or(|list| list.lines().any(|path| path.ends_with(&file)))
}

/// A chain of type nat whose use count says that rules are in it.
fn is_nat_with_rules(attributes: &[u8]) -> bool {
    let mut nat = false;
    let mut used = true;
    for nla in NlasIterator::new(attributes).flatten() {
        let nla: NlaBuffer<&[u8]> = nla;
        match nla.kind() {
            NFTA_CHAIN_TYPE => {
                nat = nla.value().strip_suffix(b"\0").unwrap_or(nla.value()) == b"nat"
            }
            NFTA_CHAIN_USE => used = nla.value() != [0; 4],
            _ => {}
        }
    }
    nat && used
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_module_is_not_loaded_just_to_ask_it() {
        let loaded = "nf_tables 300000 0 - Live 0x0\n";
        let other = "nf_conntrack 200000 1 - Live 0x0\n";
        let built_in = "kernel/net/netfilter/nf_tables.ko\n";
        assert!(is_listed("nf_tables", loaded, Some("")));
        assert!(is_listed("nf_tables", other, Some(built_in)));
        assert!(is_listed("nf_tables", other, None));
        assert!(!is_listed("nf_tables", other, Some("kernel/net/netfilter/nf_conntrack.ko\n")));
    }

    #[test]
    fn a_table_that_may_not_be_read_is_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(table(dir.path().join("none").to_str().unwrap()).unwrap(), "");
        assert!(table(dir.path().to_str().unwrap()).is_err());
    }

    #[test]
    fn only_nat_chains_with_rules_count() {
        let chain = |kind: &[u8], used: u32| {
            [nla(NFTA_CHAIN_TYPE, kind), nla(NFTA_CHAIN_USE, &used.to_be_bytes())].concat()
        };
        assert!(is_nat_with_rules(&chain(b"nat\0", 3)));
        assert!(!is_nat_with_rules(&chain(b"nat\0", 0)));
        assert!(!is_nat_with_rules(&chain(b"filter\0", 3)));
        assert!(!is_nat_with_rules(&nla(NFTA_CHAIN_USE, &[0, 0, 0, 9])));
    }
}
