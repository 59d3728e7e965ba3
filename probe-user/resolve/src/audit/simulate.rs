//! Connections of everybody to every port, judged as those of a question are.

use std::collections::BTreeSet;
use std::net::IpAddr;

use whereis_port_rules::Nic;

use super::{alike, units};
use crate::facts::Facts;
use crate::path::{self, Sender};
use crate::{health, reach};
use whereis_port_model::{Exposure, HopKind, ListRow, NetnsId, Opening, Path, Reach, Vantage};

/// How many addresses of one port are tried that no interface has.
const ADDRESSES: usize = 16;

/// Tries all units; and how many of them were told by others that are alike.
pub(super) fn all(
    facts: &Facts<'_>,
    mut units: Vec<Exposure>,
    wanted: &[Vantage],
    every: bool,
) -> (Vec<Exposure>, usize) {
    let senders = Senders::new(facts, wanted);
    let groups = alike::groups(facts, &units, every);
    let mut grouped = 0;
    for group in groups {
        let Some((first, others)) = group.split_first() else { continue };
        let Some(unit) = units.get(first.at) else { continue };
        let openings = one(facts, &senders, unit, wanted);
        let port = unit.port;
        for other in others {
            if let Some(member) = units.get_mut(other.at) {
                member.openings = alike::retold(&openings, first, other, (member, member.port));
                member.like = Some(port);
                grouped += 1;
            }
        }
        if let Some(unit) = units.get_mut(first.at) {
            unit.openings = openings;
        }
    }
    // What nobody gets to and nothing is said of is no exposure.
    units.retain(|unit| !unit.openings.is_empty());
    (units, grouped)
}

/// Everybody who may connect to the own namespace.
struct Senders {
    own: NetnsId,
    all: Vec<(Sender, IpAddr)>,
    /// Those who may use addresses of a link alone.
    near: Vec<(Sender, IpAddr)>,
}

impl Senders {
    fn new(facts: &Facts<'_>, wanted: &[Vantage]) -> Self {
        let own = facts.host.own_netns;
        let mut all = path::to_every_address(facts, own);
        all.retain(|(sender, _)| wanted.contains(&sender.from));
        Self { own, all, near: path::to_link_local(facts, own) }
    }

    /// Those who may connect to addresses that no interface has, and that rules or balancers
    /// take: external ones of Services.
    fn to_others(
        &self,
        facts: &Facts<'_>,
        unit: &Exposure,
        wanted: &[Vantage],
    ) -> Vec<(Sender, IpAddr)> {
        let is_taken = |row: &&ListRow| matches!(row.kind, HopKind::Dnat | HopKind::Service);
        let addresses = unit.rows.iter().filter(is_taken).map(|row| row.address.to_canonical());
        let is_own = |address: &IpAddr| self.all.iter().any(|(_, own)| own == address);
        let others: BTreeSet<IpAddr> = addresses
            .filter(|a| !a.is_unspecified() && !a.is_loopback() && !is_own(a))
            .take(ADDRESSES)
            .collect();
        let of = |address: IpAddr| {
            let all = path::to_one_address(facts, self.own, address).into_iter();
            all.filter(|one| wanted.contains(&one.from)).map(move |one| (one, address))
        };
        others.into_iter().flat_map(of).collect()
    }

    /// The device by which other machines get to an address.
    fn device(&self, address: IpAddr) -> Option<String> {
        let is_it = |(sender, to): &&(Sender, IpAddr)| {
            sender.from == Vantage::Outside && *to == address.to_canonical()
        };
        let (sender, _) = self.all.iter().chain(&self.near).find(is_it)?;
        let (nic, _): &(Nic, _) = sender.by.as_ref()?;
        Some(nic.name.to_string())
    }
}

/// Who gets to one port.
fn one(facts: &Facts<'_>, senders: &Senders, unit: &Exposure, wanted: &[Vantage]) -> Vec<Opening> {
    let paths: Vec<Path> = unit.rows.iter().map(units::path).collect();
    let mut reach: Vec<Reach> = if unit.netns.id == senders.own {
        let port = (unit.proto, unit.port.0);
        let mut all = senders.all.clone();
        all.extend(senders.to_others(facts, unit, wanted));
        let entries = path::by_senders(facts, senders.own, port, all);
        reach::of_own(facts, &paths, entries, (unit.port, unit.proto))
    } else {
        let of = |path: &Path| reach::of_other(facts, path, wanted);
        let mut all: Vec<Reach> = Vec::new();
        for one in paths.iter().flat_map(of) {
            if !all.iter().any(|known| known.tells_the_same(&one)) {
                all.push(one);
            }
        }
        all
    };
    reach.retain(|one| wanted.contains(&one.from));
    health::check(facts, &paths, &mut reach);
    let is_own = unit.netns.id == senders.own;
    let opening = |reach: Reach| {
        let to = reach.address.filter(|_| reach.from == Vantage::Outside && is_own);
        let device = to.and_then(|to| senders.device(to.ip()));
        Opening { reach, device, allowed: None, judged: true }
    };
    reach.into_iter().map(opening).collect()
}
