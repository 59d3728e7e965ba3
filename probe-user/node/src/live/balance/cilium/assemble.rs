//! Services with their slots and backends, as frontends.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::datapath;
use super::parse::{self, CiliumBackend, ServiceKey, ServiceValue};
use crate::live::ebpf::maps::MapEntries;
use whereis_port_model::{Balancer, Frontend, FrontendScope, NetnsId, Server, SourceRanges};

/// The backends of one family by their ids.
pub(super) type Backends = HashMap<u32, CiliumBackend>;

/// The backends of a map.
pub(super) fn backends(entries: &MapEntries) -> Backends {
    let entry = |(key, value)| Some((parse::backend_id(key)?, parse::backend(value)?));
    entries.iter().filter_map(entry).collect()
}

/// Whether any service of a map leads to a backend.
pub(super) fn has_slots(services: &MapEntries) -> bool {
    services.iter().any(|(key, _)| parse::service_key(key).is_some_and(|key| key.slot != 0))
}

/// The frontends of a map of services, in the order of their addresses.
pub(super) fn frontends(
    netns: NetnsId,
    source: &str,
    services: &MapEntries,
    backends: &Backends,
) -> Vec<Frontend> {
    let entry = |(key, value)| Some((parse::service_key(key)?, parse::service_value(value)?));
    // Slots follow their service: the number is the last of what is compared.
    let all: BTreeMap<ServiceKey, ServiceValue> = services.iter().filter_map(entry).collect();
    let services = all.iter().filter(|(key, _)| key.is_service());
    let frontend = |(key, service): (&ServiceKey, &ServiceValue)| {
        let first = ServiceKey { slot: 1, ..*key };
        let last = ServiceKey { slot: u16::MAX, ..*key };
        let slots = all.range(first..=last);
        let server = |(at, slot): (&ServiceKey, &ServiceValue)| {
            let backend = backends.get(&slot.backend())?;
            Some(server(*backend, slot, service, at.slot))
        };
        let backends = slots.filter_map(server).collect();
        one(netns, source, *key, service, backends)
    };
    services.map(frontend).collect()
}

fn server(backend: CiliumBackend, slot: &ServiceValue, service: &ServiceValue, at: u16) -> Server {
    let is_counted = at <= service.count;
    let behind = !is_counted && at <= service.count.saturating_add(service.quarantined);
    let is_quarantined = slot.is_quarantined_in(service) || behind;
    let quarantined = || is_quarantined.then(|| "quarantined".to_owned());
    Server {
        to: backend.to,
        weight: None,
        active: is_counted && backend.is_usable() && !is_quarantined,
        state: backend.state().or_else(quarantined),
        method: None,
        connections: None,
    }
}

/// Whether any of these frontends looks at clients' addresses.
pub(super) fn asks_sources(frontends: &[Frontend]) -> bool {
    frontends.iter().any(|one| one.sources.is_some())
}

/// Adds the ranges of clients to the frontends that look at them.
pub(super) fn add_sources(frontends: &mut [Frontend], entries: &MapEntries) {
    let mut ranges: HashMap<u32, Vec<(IpAddr, u8)>> = HashMap::new();
    for (key, _) in entries.iter() {
        if let Some((id, range)) = datapath::source_range(key) {
            ranges.entry(id.into()).or_default().push(range);
        }
    }
    ranges.values_mut().for_each(|ranges| ranges.sort_unstable());
    for one in frontends {
        if let (Some(sources), Some(id)) = (&mut one.sources, one.id) {
            sources.ranges = ranges.get(&id).cloned().unwrap_or_default();
        }
    }
}

fn one(
    netns: NetnsId,
    source: &str,
    key: ServiceKey,
    service: &ServiceValue,
    backends: Vec<Server>,
) -> Frontend {
    let scope = match key.scope {
        0 => service.has_two_scopes().then_some(FrontendScope::External),
        _ => Some(FrontendScope::Internal),
    };
    let mut flags = service.words();
    // What stands for every address of the node is never an address of a packet.
    let stands_for_all = |address: IpAddr| address.is_unspecified();
    flags.retain(|flag| flag != "not-routable" || !stands_for_all(key.address));
    Frontend {
        netns,
        balancer: Balancer::Cilium,
        proto: (key.proto != 0).then_some(key.proto),
        address: Some(key.address),
        port: key.port,
        mark: None,
        kind: Some(service.kind()),
        scope,
        scheduler: service.algorithm().map(str::to_owned),
        affinity: service.affinity(),
        id: (service.id != 0).then_some(service.id.into()),
        proxy_port: service.proxy_port(),
        sources: service.refused_sources().map(|deny| SourceRanges { deny, ranges: Vec::new() }),
        flags,
        backends,
        name: None,
        source: source.to_owned(),
    }
}
