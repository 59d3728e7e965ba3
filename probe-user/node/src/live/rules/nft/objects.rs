//! Tables, chains and rules, out of netlink messages.

use super::data::comment;
use super::expr::body;
use super::names::NameInterner;
use super::wire::{Attributes, Fields, NftMessage};
use whereis_port_model::{
    BaseChain, ChainId, ChainKind, Family, Hook, NetnsId, Rule, RulesBackend, SetId, Table, TableId,
};

/// `NFPROTO_*`.
pub(super) fn number_of(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Arp => 3,
        Family::Netdev => 5,
        Family::Bridge => 7,
        Family::Ip6 => 10,
    }
}

/// The family of an object; `None` for one that Linux does not have yet.
pub(super) fn family(number: u8) -> Option<Family> {
    Some(match number {
        1 => Family::Inet,
        2 => Family::Ip,
        3 => Family::Arp,
        5 => Family::Netdev,
        7 => Family::Bridge,
        10 => Family::Ip6,
        _ => return None,
    })
}

/// A table; `None` for what is none.
pub(super) fn table(
    netns: NetnsId,
    message: NftMessage<'_>,
    names: &mut NameInterner,
) -> Option<Table> {
    let family = family(message.family)?;
    let fields = Fields::of(message.body);
    let name = names.get(fields.name(1)?);
    Some(Table {
        id: TableId { netns, backend: RulesBackend::Nft, family, name },
        handle: fields.u64(4),
        // NFT_TABLE_F_DORMANT.
        dormant: fields.u32(2).unwrap_or_default() & 1 != 0,
        comment: comment(fields.get(6), 0),
    })
}

/// Which set a message is about.
pub(super) fn set_id(
    netns: NetnsId,
    message: NftMessage<'_>,
    names: &mut NameInterner,
) -> Option<SetId> {
    let family = family(message.family)?;
    let fields = Fields::of(message.body);
    let table = names.get(fields.name(1)?);
    let name = names.get(fields.name(2)?);
    Some(SetId { table: TableId { netns, backend: RulesBackend::Nft, family, name: table }, name })
}

/// A base chain; `None` for any other, of which there may be very many.
pub(super) fn base_chain(
    netns: NetnsId,
    message: NftMessage<'_>,
    names: &mut NameInterner,
) -> Option<BaseChain> {
    let fields = Fields::of(message.body);
    let place = Fields::of(fields.get(4)?);
    let id = chain_id(netns, message, names)?;
    let device = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let one = place.name(3).map(device);
    let several = Attributes(place.get(4).unwrap_or_default());
    let several = several.map(|(_, name)| device(super::wire::until_nul(name)));
    // A single device is told in both ways.
    let mut devices: Vec<String> = one.into_iter().chain(several).collect();
    devices.dedup();
    Some(BaseChain {
        handle: fields.u64(2),
        hook: hook(id.table.family, place.u32(1)?)?,
        id,
        priority: place.u32(2)?.cast_signed(),
        kind: match fields.name(7) {
            Some(b"nat") => ChainKind::Nat,
            Some(b"route") => ChainKind::Route,
            _ => ChainKind::Filter,
        },
        // NF_ACCEPT, which is also the policy of chains that can have none.
        accepts: fields.u32(5) != Some(0),
        devices,
    })
}

fn hook(family: Family, number: u32) -> Option<Hook> {
    Some(match (family, number) {
        (Family::Netdev, 0) | (Family::Inet, 5) => Hook::Ingress,
        (Family::Netdev, 1) => Hook::Egress,
        (Family::Arp, 0) => Hook::Input,
        (Family::Arp, 1) => Hook::Output,
        (Family::Arp | Family::Netdev, _) => return None,
        (_, 0) => Hook::Prerouting,
        (_, 1) => Hook::Input,
        (_, 2) => Hook::Forward,
        (_, 3) => Hook::Output,
        (_, 4) => Hook::Postrouting,
        _ => return None,
    })
}

/// Which chain a message is about.
pub(super) fn chain_id(
    netns: NetnsId,
    message: NftMessage<'_>,
    names: &mut NameInterner,
) -> Option<ChainId> {
    let fields = Fields::of(message.body);
    let family = family(message.family)?;
    let name = names.get(fields.name(1)?);
    let table = TableId { netns, backend: RulesBackend::Nft, family, name };
    Some(ChainId { table, name: names.get(fields.name(3)?) })
}

/// A rule that is not taken apart yet.
#[derive(Debug)]
pub(super) struct RawRule<'a> {
    family: Family,
    table: &'a [u8],
    chain: &'a [u8],
    fields: Fields<'a>,
}

impl<'a> RawRule<'a> {
    pub(super) fn of(message: NftMessage<'a>) -> Option<Self> {
        let fields = Fields::of(message.body);
        let family = family(message.family)?;
        Some(Self { family, table: fields.name(1)?, chain: fields.name(2)?, fields })
    }

    pub(super) fn is_in(&self, id: &ChainId) -> bool {
        self.chain == id.name.as_bytes()
            && self.table == id.table.name.as_bytes()
            && self.family == id.table.family
    }

    pub(super) fn chain_id(&self, netns: NetnsId, names: &mut NameInterner) -> ChainId {
        let Self { family, table, chain, .. } = *self;
        let table = TableId { netns, backend: RulesBackend::Nft, family, name: names.get(table) };
        ChainId { table, name: names.get(chain) }
    }

    /// Its number, which no other rule of the table has.
    pub(super) fn handle(&self) -> u64 {
        self.fields.u64(3).unwrap_or_default()
    }

    /// The number of the rule before it (`NFTA_RULE_POSITION`); the first has none.
    pub(super) fn behind(&self) -> Option<u64> {
        self.fields.u64(6)
    }

    pub(super) fn parse(&self, names: &mut NameInterner) -> Rule {
        let list = self.fields.get(4).unwrap_or_default();
        let body = body(self.family, list, names);
        Rule {
            handle: self.handle(),
            comment: body.comment.or_else(|| comment(self.fields.get(7), 0)),
            exprs: body.exprs,
            packets: body.packets,
        }
    }
}
