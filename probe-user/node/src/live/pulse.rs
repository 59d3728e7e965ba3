//! A quick look at the node: what has changed since the last one?
//!
//! For who shows the node for a long time. One reading of the iterator tells which
//! listeners there are and who holds them, and the kernel counts the changes of packet
//! rules; nothing is resolved. What else can change is seen by a whole reading only:
//! listeners that no descriptor leads to, load balancers, names.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash as _, Hasher as _};

use probe_common::{SocketRecord, TCP, UDP, state};

use super::ebpf::ProbeReading;
use super::{LiveNode, joined, rules, sockdiag};
use whereis_port_model::{Connections, NetnsId, Port, SocketFilter};

/// What one look saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Of each port: a number for its listeners and their holders.
    ports: HashMap<Port, u64>,
    /// Of each namespace: a number for its packet rules, where they could be asked for.
    rules: HashMap<NetnsId, Option<u64>>,
    /// The connections there are, by their local end.
    pub connections: Vec<Connections>,
}

/// Which ports differ from the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeSet {
    /// Nothing but connections.
    Nothing,
    /// Listeners of these ports, or who holds them.
    Ports(BTreeSet<Port>),
    /// Namespaces or packet rules, which any port may depend on.
    Everything,
}

impl Pulse {
    /// What has changed since the look `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> ChangeSet {
        if self.rules != before.rules {
            return ChangeSet::Everything;
        }
        let differs = |port: &&Port| self.ports.get(port) != before.ports.get(port);
        let both = self.ports.keys().chain(before.ports.keys());
        let ports: BTreeSet<Port> = both.filter(differs).copied().collect();
        if ports.is_empty() { ChangeSet::Nothing } else { ChangeSet::Ports(ports) }
    }
}

impl LiveNode {
    /// Looks at the node. `None` where that would cost as much as reading it: without
    /// an iterator that is pinned or kept.
    #[must_use]
    pub fn pulse(&self) -> Option<Pulse> {
        let filter = joined::filter(&SocketFilter { proto: None, ports: None }, false);
        let reading =
            self.probe.get_or_init(super::ebpf::ProbeMode::find).sockets(&filter)?.ok()?;
        let nf_tables = self.rules.has_nf_tables();
        let doors = self.all_doors();
        let looks = self.pool.in_each(&doors, move |door| {
            (rules::pulse(nf_tables), sockdiag::established(door.id).unwrap_or_default())
        });
        let mut pulse = Pulse { ports: ports(&reading), ..Pulse::default() };
        for (door, look) in doors.iter().zip(looks) {
            let (rules, connections) = look.unwrap_or_default();
            pulse.rules.insert(door.id, rules);
            self.connections.borrow_mut().insert(door.id, connections.clone());
            pulse.connections.extend(connections);
        }
        Some(pulse)
    }
}

/// A number for each port. It does not depend on the order in which sockets are seen.
fn ports(reading: &ProbeReading) -> HashMap<Port, u64> {
    let mut ports: HashMap<Port, u64> = HashMap::new();
    for record in &reading.sockets {
        let SocketRecord { protocol, state, .. } = record;
        if matches!((*protocol, *state), (TCP, state::LISTEN) | (UDP, state::CLOSE)) {
            let sum = ports.entry(Port(record.local_port)).or_default();
            *sum = sum.wrapping_add(number(record));
        }
    }
    ports
}

/// A number for one descriptor of a socket.
fn number(record: &SocketRecord) -> u64 {
    let SocketRecord { netns, inode, local, tgid, start, comm, .. } = record;
    let mut hasher = DefaultHasher::new();
    (netns, inode, local, tgid, start, comm).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros as _;

    fn socket(port: u16, inode: u64, tgid: u32) -> SocketRecord {
        let mut record = SocketRecord::new_zeroed();
        (record.protocol, record.state) = (TCP, state::LISTEN);
        (record.local_port, record.inode, record.tgid) = (port, inode, tgid);
        record
    }

    fn pulse(sockets: Vec<SocketRecord>, rules: u64) -> Pulse {
        let reading = ProbeReading { sockets, ..ProbeReading::default() };
        let rules = HashMap::from([(NetnsId::Inode(1), Some(rules))]);
        Pulse { ports: ports(&reading), rules, connections: Vec::new() }
    }

    #[test]
    fn the_order_of_sockets_does_not_matter() {
        let one = pulse(vec![socket(80, 1, 10), socket(80, 2, 11), socket(81, 3, 12)], 0);
        let other = pulse(vec![socket(81, 3, 12), socket(80, 2, 11), socket(80, 1, 10)], 0);
        assert_eq!(one.since(&other), ChangeSet::Nothing);
    }

    #[test]
    fn what_came_went_or_has_another_holder_is_told_by_its_port() {
        let before = pulse(vec![socket(80, 1, 10), socket(81, 2, 10), socket(82, 3, 10)], 0);
        let after = pulse(vec![socket(80, 1, 10), socket(81, 2, 11), socket(83, 4, 10)], 0);
        let ports = [Port(81), Port(82), Port(83)].into();
        assert_eq!(after.since(&before), ChangeSet::Ports(ports));
    }

    #[test]
    fn a_process_that_becomes_another_program_is_another_holder() {
        let before = pulse(vec![socket(80, 1, 10)], 0);
        let mut record = socket(80, 1, 10);
        record.comm[0] = b'x';
        assert_eq!(pulse(vec![record], 0).since(&before), ChangeSet::Ports([Port(80)].into()));
    }

    #[test]
    fn connected_sockets_are_no_listeners() {
        let mut connected = socket(80, 1, 10);
        connected.state = state::ESTABLISHED;
        assert_eq!(pulse(vec![connected], 0).since(&pulse(Vec::new(), 0)), ChangeSet::Nothing);
    }

    #[test]
    fn other_rules_may_change_any_port() {
        let sockets = || vec![socket(80, 1, 10)];
        assert_eq!(pulse(sockets(), 2).since(&pulse(sockets(), 1)), ChangeSet::Everything);
    }
}
