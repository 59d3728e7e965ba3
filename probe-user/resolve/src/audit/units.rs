//! The ports of each namespace, with all that has them.

use std::collections::HashMap;

use whereis_port_model::{Endpoint, Exposure, Hop, ListRow, NetnsId, Path, Port, Proto};

/// Puts the rows of one port of one namespace together, in the order of the rows.
pub(super) fn of(rows: Vec<ListRow>) -> Vec<Exposure> {
    let mut at: HashMap<(NetnsId, Proto, Port), usize> = HashMap::new();
    let mut units: Vec<Exposure> = Vec::new();
    for row in rows {
        let key = (row.netns.id, row.proto, row.port);
        let known = at.get(&key).and_then(|at| units.get_mut(*at));
        match known {
            Some(unit) => unit.rows.push(row),
            None => {
                at.insert(key, units.len());
                units.push(Exposure {
                    netns: row.netns.clone(),
                    proto: row.proto,
                    port: row.port,
                    rows: vec![row],
                    openings: Vec::new(),
                    like: None,
                });
            }
        }
    }
    units
}

/// What begins at a row, for those who judge connections: its first step, and who is at its end.
pub(super) fn path(row: &ListRow) -> Path {
    let who = match row.end.processes.first() {
        Some(process) => format!("{}, pid {}", process.name(), process.pid),
        None => row.end.why.clone().unwrap_or_default(),
    };
    let first = Hop {
        kind: row.kind,
        netns: Some(row.netns.clone()),
        endpoint: Endpoint { address: Some(row.address), name: None, port: Some(row.port) },
        proto: row.proto,
        detail: who,
        share: None,
        socket: row.socket.clone(),
        evidence: Vec::new(),
    };
    Path { hops: vec![first], end: (*row.end).clone(), ..Path::default() }
}
