//! From the API's answers, and from files in the same form, to containers.

use std::collections::BTreeMap;

use super::api::{
    ContainerConfig, ContainerInspect, ContainerSummary, EndpointSettings, NetworkSettings,
};

use whereis_port_model::{Container, Network, Port, Proto, Published, Runtime, ToldBy};

/// A container as inspecting it tells. Without parents, pod and `via`, which the
/// daemon can't know, and with the PID in the daemon's own PID namespace.
pub(in super::super) fn from_inspect(runtime: Runtime, answer: ContainerInspect) -> Container {
    let state = answer.state.unwrap_or_default();
    described(
        runtime,
        answer.id.unwrap_or_default(),
        answer.name,
        state.pid,
        answer.config.unwrap_or_default(),
        answer.network_settings.unwrap_or_default(),
        answer.host_config.and_then(|h| h.network_mode),
    )
}

/// A container from its parts, which the API and Docker's state files share.
pub(in super::super) fn described(
    runtime: Runtime,
    id: String,
    name: Option<String>,
    pid: Option<i64>,
    config: ContainerConfig,
    network: NetworkSettings,
    network_mode: Option<String>,
) -> Container {
    let mut ports = Vec::new();
    for (key, bindings) in network.ports.unwrap_or_default() {
        let Some((proto, container_port)) = port_key(&key) else { continue };
        let mut bound = bindings.unwrap_or_default().into_iter().peekable();
        if bound.peek().is_none() {
            ports.push(Published { proto, container_port, host_port: None, host_ip: None });
        }
        ports.extend(bound.map(|binding| Published {
            proto,
            container_port,
            host_port: binding.host_port.and_then(|p| p.parse().ok()).and_then(port),
            host_ip: binding.host_ip.and_then(|ip| ip.parse().ok()),
        }));
    }
    // On the host's network nothing is published, but the image still says what
    // it listens on.
    for (proto, container_port) in
        config.exposed_ports.iter().flatten().filter_map(|(key, _)| port_key(key))
    {
        if !ports.iter().any(|p| p.proto == proto && p.container_port == container_port) {
            ports.push(Published { proto, container_port, host_port: None, host_ip: None });
        }
    }
    ports.sort();
    ports.dedup();
    Container {
        runtime,
        id,
        name: name.map(unslashed).filter(|n| !n.is_empty()),
        image: config.image.filter(|i| !i.is_empty()),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        networks: networks(network.networks),
        ports,
        network_mode: network_mode.filter(|m| !m.is_empty()),
        pid: pid.and_then(|p| u32::try_from(p).ok()).filter(|&p| p != 0),
        parents: Vec::new(),
        pod: None,
        via: ToldBy::default(),
        sandbox: false,
        sort: None,
        state: None,
    }
}

/// A container as inspecting it tells, with those ports alone that it is told to publish and
/// does not. `None` without any.
pub(in super::super) fn unpublished(
    runtime: Runtime,
    answer: ContainerInspect,
) -> Option<Container> {
    let bindings = answer.host_config.as_ref()?.port_bindings.clone().unwrap_or_default();
    let state = answer.state.as_ref().and_then(|state| state.status.clone());
    let mut container = from_inspect(runtime, answer);
    let mut wanted = Vec::new();
    for (key, bindings) in bindings {
        let Some((proto, container_port)) = port_key(&key) else { continue };
        for binding in bindings.unwrap_or_default() {
            // Without a number, or with 0, the runtime chooses one as it starts it.
            let host_port = binding.host_port.and_then(|p| p.parse().ok()).and_then(port);
            let host_ip = binding.host_ip.and_then(|ip| ip.parse().ok());
            if host_port.is_some() {
                wanted.push(Published { proto, container_port, host_port, host_ip });
            }
        }
    }
    let has = |one: &Published| {
        let same = |p: &&Published| {
            (p.proto, p.container_port, p.host_port)
                == (one.proto, one.container_port, one.host_port)
        };
        container.ports.iter().any(|p| same(&p))
    };
    wanted.retain(|one| !has(one));
    wanted.sort();
    container.ports = wanted;
    container.state = state.filter(|state| !state.is_empty());
    (!container.ports.is_empty()).then_some(container)
}

/// A container as the list of all tells: like [`from_inspect`], without the PID.
pub(in super::super) fn from_summary(runtime: Runtime, answer: ContainerSummary) -> Container {
    // A legacy link to a container is listed as a name of it: `/other/alias`.
    let names = answer.names.unwrap_or_default();
    let own = names.iter().find(|n| !n.trim_start_matches('/').contains('/')).or(names.first());
    let mut ports: Vec<Published> = answer
        .ports
        .unwrap_or_default()
        .into_iter()
        .filter_map(|listed| {
            Some(Published {
                proto: proto(&listed.proto?)?,
                container_port: port(listed.private_port)?,
                host_port: listed.public_port.and_then(port),
                host_ip: listed.ip.and_then(|ip| ip.parse().ok()),
            })
        })
        .collect();
    ports.sort();
    ports.dedup();
    Container {
        runtime,
        id: answer.id.unwrap_or_default(),
        name: own.cloned().map(unslashed),
        image: answer.image.filter(|i| !i.is_empty()),
        labels: answer.labels.unwrap_or_default().into_iter().collect(),
        networks: networks(answer.network_settings.and_then(|n| n.networks)),
        ports,
        network_mode: answer.host_config.and_then(|h| h.network_mode).filter(|m| !m.is_empty()),
        pid: None,
        parents: Vec::new(),
        pod: None,
        via: ToldBy::default(),
        sandbox: false,
        sort: None,
        state: None,
    }
}

fn networks(attached: Option<BTreeMap<String, EndpointSettings>>) -> Vec<Network> {
    let mut networks: Vec<Network> = attached
        .unwrap_or_default()
        .into_iter()
        .map(|(name, endpoint)| Network {
            name,
            addresses: [endpoint.ip_address, endpoint.global_ipv6_address]
                .into_iter()
                .flatten()
                .filter_map(|address| address.parse().ok())
                .collect(),
            driver: None,
            internal: false,
        })
        .collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    networks
}

/// `6443/tcp`, the key of Docker's maps of ports. `None` for SCTP.
pub(super) fn port_key(key: &str) -> Option<(Proto, Port)> {
    let (number, name) = key.split_once('/').unwrap_or((key, "tcp"));
    Some((proto(name)?, port(number.parse().ok()?)?))
}

fn proto(name: &str) -> Option<Proto> {
    Proto::ALL.into_iter().find(|p| p.as_str() == name)
}

fn port(number: u16) -> Option<Port> {
    (number != 0).then_some(Port(number))
}

fn unslashed(name: String) -> String {
    name.strip_prefix('/').map(str::to_owned).unwrap_or(name)
}
