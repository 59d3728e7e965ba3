//! The functions of the kernel by their addresses: `/proc/kallsyms`. Read only where the kernel
//! gives no reason for drops (before Linux 5.17).

use std::path::Path;

use super::files;

/// More is not read. A kernel with many modules has some 12 MB.
const LARGEST: usize = 64 << 20;

/// Functions that let packets go which were not on their way to a port any more: what a
/// socket has left when it is closed, and packets that were taken or are to be sent.
const NO_DROPS: [&str; 12] = [
    "skb_rbtree_purge",
    "skb_queue_purge",
    "__skb_queue_purge",
    "sk_stream_kill_queues",
    "inet_sock_destruct",
    "tcp_prune_ofo_queue",
    "tcp_ofo_queue",
    "tcp_v4_do_rcv",
    "tcp_v6_do_rcv",
    "tcp_data_queue",
    "tcp_rcv_established",
    "packet_rcv",
];

/// The functions of the running kernel.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    text: Vec<u8>,
    /// The address of each, and where its name begins; by address.
    functions: Vec<(u64, usize)>,
}

impl Symbols {
    /// Reads them: none where the kernel shows no addresses (`kernel.kptr_restrict`, or without
    /// `CAP_SYSLOG`).
    pub(super) fn read() -> Self {
        let read = files::read(rustix::fs::CWD, Path::new("/proc/kallsyms"), LARGEST);
        read.map_or_else(|_| Self::default(), |read| Self::parse(read.bytes))
    }

    /// `ffffffff81000000 T _stext`, not in the order of addresses where there are modules.
    fn parse(text: Vec<u8>) -> Self {
        let mut functions = Vec::new();
        let mut begin = 0;
        for line in text.split(|byte| *byte == b'\n') {
            let here = begin;
            begin += line.len() + 1;
            let mut words = line.splitn(3, |byte| *byte == b' ');
            let (Some(start), Some(kind), Some(_)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            if !matches!(kind, b"t" | b"T" | b"w" | b"W") {
                continue;
            }
            let number = std::str::from_utf8(start).ok();
            let number = number.and_then(|start| u64::from_str_radix(start, 16).ok());
            if let Some(number) = number.filter(|number| *number != 0) {
                functions.push((number, here + start.len() + 3));
            }
        }
        functions.sort_unstable();
        Self { text, functions }
    }

    /// The function that an address is in: the last that begins there or before.
    pub(super) fn at(&self, address: u64) -> Option<String> {
        let next = self.functions.partition_point(|(start, _)| *start <= address);
        let (_, name) = *self.functions.get(next.checked_sub(1)?)?;
        let rest = self.text.get(name..)?;
        // Behind a dot are the compiler's names for parts of a function.
        let end = rest.iter().position(|byte| b".\t\n ".contains(byte)).unwrap_or(rest.len());
        Some(String::from_utf8_lossy(&rest[..end]).into_owned()).filter(|name| !name.is_empty())
    }
}

/// Whether what this function lets go is no drop.
pub(super) fn is_no_drop(name: &str) -> bool {
    NO_DROPS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_function_that_begins_before_it() {
        let text = b"ffffffff81000000 T first\nffffffff81000100 t second.isra.0\n\
            ffffffff81000180 d data\nffffffffc0000000 t third\t[mod]\n";
        let symbols = Symbols::parse(text.to_vec());
        let at = |address| symbols.at(address);
        assert_eq!(at(0xffff_ffff_8100_0000).as_deref(), Some("first"));
        assert_eq!(at(0xffff_ffff_8100_00ff).as_deref(), Some("first"));
        assert_eq!(at(0xffff_ffff_8100_0190).as_deref(), Some("second"));
        assert_eq!(at(0xffff_ffff_c000_0001).as_deref(), Some("third"));
        assert_eq!(at(5), None);
    }

    #[test]
    fn hidden_addresses_name_nothing() {
        assert_eq!(Symbols::parse(b"0000000000000000 T first\n".to_vec()).at(99), None);
        assert_eq!(Symbols::parse(b"what is this".to_vec()).at(99), None);
    }
}
