//! How a container comes to publish a port. What `-p` does depends on its network: on some it
//! does nothing, and then it is not proposed.

use std::net::IpAddr;

use super::facts::{Facts, container_name};
use whereis_port_model::{Advice, Command, Container, FixKind, NetnsId, Network, Port, Vantage};

/// What makes the port of a container known outside of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum How {
    /// Recreating the container with this name with `-p`.
    Recreate(String),
    /// Something else.
    Other(Advice),
    /// Nothing that is known.
    Nothing,
}

/// What makes a port known to `from` that a container in `netns` serves.
pub(super) fn how(
    facts: &Facts<'_>,
    netns: NetnsId,
    container: &Container,
    port: Port,
    from: Vantage,
) -> How {
    if container.is_swarm_task() {
        let service = container.labels.get("com.docker.swarm.service.name");
        let update = Command::new("docker service update --publish-add");
        return service.map_or(How::Nothing, |service| {
            let update = update.arg(format!("HOSTPORT:{port}")).name(service);
            How::Other(Advice::from(update).of(FixKind::Publish))
        });
    }
    if let Some(address) = own_address(facts, netns) {
        // The device below keeps its own host out, so that this one can't be told the same.
        return match from {
            Vantage::Outside => {
                let at = std::net::SocketAddr::new(address, port.0);
                let words = format!("connect to {at}, an address that it has on that network");
                How::Other(Advice::from(words).of(FixKind::ConnectElsewhere))
            }
            _ => How::Nothing,
        };
    }
    match container.network_mode.as_deref() {
        // Ports of the host's network are there without it, and Docker leaves it out.
        Some("host") => How::Nothing,
        Some("none") => otherwise(container, port, "on a network"),
        Some(mode) => match mode.strip_prefix("container:") {
            Some(other) => {
                let known = facts.take(facts.world.containers());
                let is_it = |one: &&Container| {
                    one.parents == container.parents
                        && (one.id == other || one.name.as_deref() == Some(other))
                };
                known
                    .iter()
                    .find(is_it)
                    .filter(|one| one.id != container.id)
                    .map_or(How::Nothing, |one| how(facts, netns, &unshared(one), port, from))
            }
            None if !container.networks.is_empty()
                && container.networks.iter().all(Network::publishes_nothing) =>
            {
                otherwise(container, port, "on a network that publishes ports")
            }
            None => How::Recreate(container_name(container)),
        },
        None => How::Recreate(container_name(container)),
    }
}

/// The same, without a network of yet another one: such a chain ends here.
fn unshared(container: &Container) -> Container {
    let mut one = container.clone();
    one.network_mode = one.network_mode.filter(|mode| !mode.starts_with("container:"));
    one
}

fn otherwise(container: &Container, port: Port, where_: &str) -> How {
    let advice = Advice::from("recreate container ")
        .name(container_name(container))
        .words(format!(" {where_}, with -p HOSTPORT:{port}"));
    How::Other(advice.of(FixKind::Publish))
}

/// The address of a namespace on a network of others, by macvlan or ipvlan.
fn own_address(facts: &Facts<'_>, netns: NetnsId) -> Option<IpAddr> {
    let links = facts.links_of(netns);
    let link = links.iter().find(|link| super::path::is_upper(link))?;
    let addresses = facts.addresses_of(netns);
    addresses
        .iter()
        .find(|a| a.ifindex == link.index && !is_link_local(a.address))
        .map(|a| a.address)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
