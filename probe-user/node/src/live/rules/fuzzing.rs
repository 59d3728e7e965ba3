//! Parsers of packet rules, for the fuzz targets.

use super::{ipset, legacy, nft, xt};

/// Answers of nf_tables: tables, chains, rules, sets and elements.
pub fn nf_tables(bytes: &[u8]) {
    nft::fuzzing::messages(bytes);
}

/// The list of a rule's expressions.
pub fn nf_tables_expressions(bytes: &[u8]) {
    nft::fuzzing::expressions(bytes);
}

/// A match or a target of xtables: revision, whether it is for IPv6, name, NUL, blob.
pub fn xtables(bytes: &[u8]) {
    let [revision, ipv6, rest @ ..] = bytes else { return };
    let Some(end) = rest.iter().position(|byte| *byte == 0) else { return };
    let (name, info) = rest.split_at(end);
    let (name, info) = (String::from_utf8_lossy(name), info.get(1..).unwrap_or_default());
    xt::match_of(&name, *revision, *ipv6 & 1 != 0, info);
    xt::target_of(&name, *revision, *ipv6 & 1 != 0, info);
}

/// A table of ip_tables or ip6_tables, as the first byte says.
pub fn legacy_table(bytes: &[u8]) {
    if let Some((ipv6, bytes)) = bytes.split_first() {
        legacy::fuzz(ipv6 & 1 != 0, bytes);
    }
}

/// Answers of ipset.
pub fn ip_set(bytes: &[u8]) {
    ipset::fuzz(bytes);
}
