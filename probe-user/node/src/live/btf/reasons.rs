//! What the running kernel calls the reasons why it drops packets: their numbers are not
//! the same in any two versions.

use std::collections::BTreeMap;
use std::path::Path;

use super::offsets::contents;
use super::reader::{Btf, TypeKind, WantedType};

/// The enums: of drops, of resets, of the parts of the kernel that have reasons of their own,
/// and those of such parts.
const ENUMS: [WantedType<'_>; 5] = [
    ("skb_drop_reason", TypeKind::Enum),
    ("sk_rst_reason", TypeKind::Enum),
    ("skb_drop_reason_subsys", TypeKind::Enum),
    ("ovs_drop_reason", TypeKind::Enum),
    ("mac80211_drop_reason", TypeKind::Enum),
];
const DROPS: usize = 0;
const RESETS: usize = 1;
const SUBSYSTEMS: usize = 2;
/// Those of the parts, with the module that each is in, and what its names begin with.
const OF_MODULES: [(usize, &str, &str); 2] =
    [(3, "openvswitch", "OVS_DROP_"), (4, "mac80211", "RX_DROP_")];

/// `SKB_DROP_REASON_SUBSYS_SHIFT`, include/net/dropreason.h (Linux 6.4).
const SUBSYSTEM: u32 = 16;

/// Reasons that mean no drop on the way to a port: the packet was taken, or passed over for
/// good, or what is left of a socket was thrown away. `NOT_SPECIFIED` stands for all that is
/// let go without a word, most of it as usual.
const NO_DROPS: [&str; 12] = [
    "SKB_NOT_DROPPED_YET",
    "SKB_CONSUMED",
    "SKB_DROP_REASON_NOT_SPECIFIED",
    "SKB_DROP_REASON_OTHERHOST",
    "SKB_DROP_REASON_PACKET_SOCK_ERROR",
    "SKB_DROP_REASON_QUEUE_PURGE",
    "SKB_DROP_REASON_SOCKET_CLOSE",
    "SKB_DROP_REASON_TCP_RESET",
    "SKB_DROP_REASON_TCP_OFOMERGE",
    "SKB_DROP_REASON_TCP_OFO_QUEUE_PRUNE",
    "SKB_DROP_REASON_TCP_OLD_ACK",
    "SKB_DROP_REASON_DUP_FRAG",
];

/// The names of reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::live) struct Reasons {
    drops: BTreeMap<u32, String>,
    resets: BTreeMap<u32, String>,
    subsystems: BTreeMap<u32, String>,
}

impl Reasons {
    /// Reads them from a directory such as [`super::DIRECTORY`]; none where there are none.
    pub(in crate::live) fn read(directory: &Path) -> Self {
        let Ok(kernel) = contents(&directory.join("vmlinux")) else { return Self::default() };
        Self::find(&kernel, |module| contents(&directory.join(module)).ok())
    }

    /// Looks into the bytes of the kernel, and of modules where a part of the kernel is one.
    fn find(kernel: &[u8], module: impl Fn(&str) -> Option<Vec<u8>>) -> Self {
        let Ok(btf) = Btf::parse(kernel, None, &ENUMS) else { return Self::default() };
        let of = |btf: &Btf<'_>, number| {
            let ty = btf.id(number).and_then(|id| btf.get(id));
            ty.map(|ty| btf.enumerators(ty)).unwrap_or_default()
        };
        let mut reasons = Self {
            drops: of(&btf, DROPS).into_iter().map(|(name, value)| (value, name)).collect(),
            resets: stripped(of(&btf, RESETS), "SK_RST_REASON_"),
            subsystems: stripped(of(&btf, SUBSYSTEMS), "SKB_DROP_REASON_SUBSYS_"),
        };
        for (number, name, prefix) in OF_MODULES {
            let mut found = of(&btf, number);
            if found.is_empty()
                && !reasons.subsystems.is_empty()
                && let Some(bytes) = module(name)
                && let Ok(split) = Btf::parse(&bytes, Some(&btf), &ENUMS)
            {
                found = of(&split, number);
            }
            let theirs = found.into_iter().filter(|(_, value)| value >> SUBSYSTEM != 0);
            let theirs = stripped(theirs.collect(), prefix).into_iter();
            reasons.drops.extend(theirs.map(|(value, what)| (value, format!("{name}: {what}"))));
        }
        reasons
    }

    /// Whether the kernel gives reasons for drops (Linux 5.17).
    pub(in crate::live) fn are_given(&self) -> bool {
        !self.drops.is_empty()
    }

    /// Whether it gives reasons for resets (Linux 6.10).
    pub(in crate::live) fn are_given_for_resets(&self) -> bool {
        !self.resets.is_empty()
    }

    /// What a drop is called.
    pub(in crate::live) fn of_drop(&self, number: u32) -> String {
        let number_of = number & 0xffff;
        match (self.drops.get(&number), self.subsystems.get(&(number >> SUBSYSTEM))) {
            (Some(name), _) => {
                name.strip_prefix("SKB_DROP_REASON_").unwrap_or(name.as_str()).to_owned()
            }
            (None, Some(subsystem)) => format!("{}: {number_of}", subsystem.to_lowercase()),
            (None, None) => format!("reason {number}"),
        }
    }

    /// What a reset is called; `None` where the kernel gives no reason.
    pub(in crate::live) fn of_reset(&self, number: u32) -> Option<String> {
        let name = self.resets.get(&number);
        name.filter(|name| *name != "NOT_SPECIFIED").cloned()
    }

    /// The numbers of what is no drop, as bits.
    pub(in crate::live) fn no_drops(&self) -> [u64; 4] {
        let mut bits = [0; 4];
        let numbers = self.drops.iter().filter(|(_, name)| NO_DROPS.contains(&name.as_str()));
        for number in numbers.map(|(number, _)| *number).filter(|number| *number < 256) {
            bits[number as usize / 64] |= 1 << (number % 64);
        }
        bits
    }
}

/// By value, without what all names begin with.
fn stripped(all: Vec<(String, u32)>, prefix: &str) -> BTreeMap<u32, String> {
    let one = |(name, value): (String, u32)| {
        (value, name.strip_prefix(prefix).unwrap_or(&name).to_owned())
    };
    all.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::DIRECTORY;
    use super::super::tests::builder::Builder;
    use super::*;

    /// Made up: numbers as no kernel has them.
    fn kernel(reasons: &[(&str, u32)]) -> Builder {
        let mut kernel = Builder::new();
        kernel.enumeration("skb_drop_reason", reasons);
        kernel.enumeration("sk_rst_reason", &[("SK_RST_REASON_NO_SOCKET", 1)]);
        let subsystems = [
            ("SKB_DROP_REASON_SUBSYS_CORE", 0),
            ("SKB_DROP_REASON_SUBSYS_OPENVSWITCH", 3),
            ("SKB_DROP_REASON_SUBSYS_LATER", 9),
        ];
        kernel.enumeration("skb_drop_reason_subsys", &subsystems);
        kernel
    }

    #[test]
    fn names_and_numbers_are_those_of_the_kernel_that_runs() {
        let base = kernel(&[
            ("SKB_CONSUMED", 1),
            ("SKB_DROP_REASON_NETFILTER_DROP", 77),
            ("SKB_DROP_REASON_NOT_SPECIFIED", 130),
        ]);
        let mut module = Builder::after(&base);
        module.enumeration("ovs_drop_reason", &[("OVS_DROP_LAST_ACTION", 3 << 16 | 1)]);
        let module = module.bytes();
        let read = |name: &str| (name == "openvswitch").then(|| module.clone());
        let reasons = Reasons::find(&base.bytes(), read);
        assert!(reasons.are_given() && reasons.are_given_for_resets());
        assert_eq!(reasons.of_drop(77), "NETFILTER_DROP");
        assert_eq!(reasons.of_drop(3 << 16 | 1), "openvswitch: LAST_ACTION");
        assert_eq!(reasons.of_drop(9 << 16 | 4), "later: 4");
        assert_eq!(reasons.of_drop(78), "core: 78");
        assert_eq!(reasons.of_reset(1).as_deref(), Some("NO_SOCKET"));
        assert_eq!(reasons.of_reset(0), None);
        assert_eq!(reasons.no_drops(), [1 << 1, 0, 1 << 2, 0]);
    }

    #[test]
    fn a_kernel_without_reasons_has_none() {
        let reasons = Reasons::find(&Builder::new().bytes(), |_| None);
        assert_eq!(reasons, Reasons::default());
        assert!(!reasons.are_given());
        assert_eq!(Reasons::find(&[1, 2, 3], |_| None), Reasons::default());
        assert_eq!(Reasons::read("/nowhere".as_ref()), Reasons::default());
    }

    #[test]
    fn the_running_kernel_tells_its_own() {
        let reasons = Reasons::read(DIRECTORY.as_ref());
        // Reasons came with Linux 5.17, and this one with them.
        if reasons.are_given() {
            let known = reasons.drops.iter().find(|(_, name)| name.ends_with("_NETFILTER_DROP"));
            let (number, _) = known.unwrap();
            assert_eq!(reasons.of_drop(*number), "NETFILTER_DROP");
            assert_ne!(reasons.no_drops(), [0; 4]);
        }
    }
}
