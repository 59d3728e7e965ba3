//! Parsers of nf_tables, for the fuzz targets.

use super::names::NameInterner;
use super::objects::{RawRule, base_chain, table};
use super::wire;
use super::{expr, sets};
use whereis_port_model::{Family, NetnsId, RulesBackend, SetId, TableId};

/// What one read of the socket gave. Every message is taken for every kind of object.
pub(in crate::live::rules) fn messages(bytes: &[u8]) {
    let netns = NetnsId::Inode(1);
    let table_id =
        TableId { netns, backend: RulesBackend::Nft, family: Family::Ip, name: "t".into() };
    let id = SetId { table: table_id, name: "s".into() };
    let mut names = NameInterner::default();
    let (mut set, mut parts) = (None, Vec::new());
    for message in wire::messages(bytes) {
        table(netns, message, &mut names);
        base_chain(netns, message, &mut names);
        RawRule::of(message).map(|rule| rule.parse(&mut names));
        set = sets::set(&id, message).or(set.take());
        sets::parts(message, &mut names, &mut parts);
    }
    if let Some(set) = set {
        sets::elements(&set, parts);
    }
}

/// `NFTA_RULE_EXPRESSIONS`, behind a byte for the family.
pub(in crate::live::rules) fn expressions(bytes: &[u8]) {
    const FAMILIES: [Family; 4] = [Family::Ip, Family::Ip6, Family::Inet, Family::Bridge];
    let Some((family, list)) = bytes.split_first() else { return };
    if let Some(family) = FAMILIES.get(usize::from(*family)) {
        expr::body(*family, list, &mut NameInterner::default());
    }
}
