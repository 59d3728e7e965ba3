//! Why a port can be reached from somewhere or not: data that decisions look at. The
//! sentence for people is its `Display`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::{InTheWay, Port, Proto};

/// What stops a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopKind {
    /// Nothing listens: refused.
    Nothing,
    /// A rule or policy drops it.
    Dropped,
    /// A rule refuses it.
    Rejected,
    /// A service without a backend.
    NoBackend,
    /// No route leads there, or one that refuses.
    NoRoute,
    /// The kernel does not forward.
    NotForwarding,
    /// A loopback address on a wire, which the kernel refuses.
    LoopbackOnWire,
    /// The reverse path filter drops it: an answer would not leave by where it came in.
    ReversePath,
    /// Nobody on the link has the address.
    NoNeighbour,
    /// The kernel does not let it pass for another reason.
    NoWay,
    /// A socket takes it that only reserves the port: nobody accepts.
    Reserved,
    /// It is not known what becomes of it.
    Unknown,
}

/// Why a port can be reached from somewhere, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// Of which port, where an answer has several.
    pub of: Option<(Port, Proto)>,
    /// The cause.
    pub cause: Cause,
    /// What becomes of some connections all the same.
    pub but: Option<String>,
}

impl From<Cause> for Why {
    fn from(cause: Cause) -> Self {
        Self { of: None, cause, but: None }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((port, proto)) = self.of {
            write!(f, "{port}/{proto}: ")?;
        }
        self.cause.fmt(f)?;
        match &self.but {
            Some(but) => write!(f, "; {but}"),
            None => Ok(()),
        }
    }
}

/// What decides whether a port can be reached. Names in it are untrusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Bound to all addresses.
    BoundToAll {
        /// Whether it could be read that IPv4 is among them, or not.
        versions_known: bool,
    },
    /// Bound to all addresses of IPv6, and to none of IPv4.
    BoundToAllIpv6,
    /// Bound to an address.
    BoundTo(IpAddr),
    /// Bound to an address, and this is another one.
    BoundElsewhere(IpAddr),
    /// Bound to an interface, and this is another one.
    BoundToInterface(String),
    /// Bound to the interface with this index, which has no address for it.
    InterfaceWithoutAddress(u32),
    /// Bound to the interface with this index, which is gone.
    InterfaceGone(u32),
    /// Bound to an address that the namespace does not have any more.
    AddressGone(IpAddr),
    /// Bound to the address of a group or to a broadcast address.
    BoundToGroup(IpAddr),
    /// The namespace has no other address that is up; of IPv6 or IPv4 alone, or at all.
    NoOtherAddress {
        /// The version of IP, where there are addresses of the other one.
        ipv6: Option<bool>,
    },
    /// The loopback interface is down.
    LoopbackDown,
    /// All its addresses are for what is behind bridges and device pairs.
    InnerAddressesOnly,
    /// The port is open, and nothing listens behind it.
    NothingBehind,
    /// Bound to an address inside other namespaces.
    BoundInside {
        /// The address.
        address: IpAddr,
        /// The namespaces.
        names: Vec<String>,
    },
    /// It listens inside other namespaces, which don't publish it here.
    NotPublished {
        /// The namespaces.
        names: Vec<String>,
        /// The ports there.
        ports: Vec<Port>,
    },
    /// This namespace has a route to that one.
    Routed(String),
    /// This node forwards it to a namespace, for whoever has a route over it.
    ForwardedHere {
        /// The namespace.
        name: String,
        /// The device that it comes in by.
        by: String,
    },
    /// This namespace has no link to an address of that one.
    NoLink(String),
    /// On the same networks of containers, in words.
    SharedNetwork(String),
    /// On the same bridge, with this name.
    SharedBridge(String),
    /// It has an address on the network that a device leads to.
    OnNetworkOf {
        /// The namespace.
        name: String,
        /// The device: a card, or the one below a macvlan or ipvlan.
        device: String,
    },
    /// Rules of a namespace take it at an address that no interface has.
    NotOnInterface {
        /// The address.
        address: IpAddr,
        /// The namespace.
        name: String,
    },
    /// A container publishes it.
    Published {
        /// The container.
        container: String,
        /// Where on its host.
        at: SocketAddr,
        /// The port inside.
        inner: Port,
        /// The protocol.
        proto: Proto,
        /// Whether that is said of somewhere else, which is not among it.
        elsewhere: bool,
    },
    /// No rule takes it from there, and nothing listens.
    NoRule,
    /// Only the API has it: no rule or load balancer of this node takes it.
    OnlyInApi {
        /// The node.
        node: String,
    },
    /// Rules or a balancer take it.
    TakenByRules {
        /// By what, in words.
        words: String,
        /// Where they lead, as far as that is named.
        to: Vec<SocketAddr>,
    },
    /// Something stops it.
    Stopped {
        /// What.
        kind: StopKind,
        /// The same in words.
        words: String,
    },
    /// It depends on what is not known, in words.
    Depends(String),
    /// A local route makes the namespace take packets to this network.
    LocalRoute {
        /// The network.
        network: IpAddr,
        /// Its prefix length.
        prefix: u8,
        /// Whether others have to have a route that leads here.
        needs_route: bool,
    },
    /// It leaves this node, in words.
    LeavesNode(String),
    /// Something is in the way that was not evaluated.
    NotEvaluated(Box<InTheWay>),
    /// Said by somebody else, in words.
    Said(String),
    /// It gets to a listener that takes no more: its queue is full.
    QueueFull {
        /// Whose, as a hop tells it.
        who: String,
        /// How many wait.
        waiting: u32,
        /// How many were allowed.
        limit: u32,
    },
    /// It gets to a listener whose process, told as by a hop, is stopped.
    OwnerStopped(String),
    /// It gets to a listener whose process, told as by a hop, is frozen.
    OwnerFrozen(String),
}

/// The causes, without what is special to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CauseCode {
    /// It is bound to all addresses.
    BoundToAll,
    /// It is bound to this address.
    BoundToAddress,
    /// It is bound to another address.
    BoundElsewhere,
    /// It is bound to another interface.
    BoundToInterface,
    /// The namespace, or the interface that it is bound to, has no address for it.
    NoAddress,
    /// Bound to the address of a group or to a broadcast address.
    BoundToGroup,
    /// The loopback interface is down.
    LoopbackDown,
    /// All its addresses are for what is behind bridges and device pairs.
    InnerAddressesOnly,
    /// Nothing listens there.
    NothingListens,
    /// It is bound to the loopback of another namespace.
    BoundInNamespace,
    /// It listens in another namespace, which does not publish it.
    NotPublished,
    /// A route leads to its namespace.
    Routed,
    /// This node forwards to it: exposed to whoever has a route over this node.
    ExposedByRoute,
    /// No link leads to its namespace.
    NoLink,
    /// It is on the same network of containers.
    SharedNetwork,
    /// Rules take it at an address that no interface has.
    NotOnInterface,
    /// A container publishes it.
    Published,
    /// A container publishes it at another address only.
    PublishedElsewhere,
    /// No rule takes it from there.
    NoRule,
    /// Only a Kubernetes API has it.
    OnlyInApi,
    /// Rules or a load balancer take it.
    TakenByRules,
    /// A rule or policy drops it.
    Dropped,
    /// A rule refuses it.
    Rejected,
    /// The service has no backend.
    NoBackend,
    /// No route leads there, or one that refuses.
    NoRoute,
    /// The kernel does not forward.
    NotForwarding,
    /// The kernel refuses a loopback address on a wire.
    LoopbackOnWire,
    /// The reverse path filter drops it.
    ReversePath,
    /// Nobody on the link has the address.
    NoNeighbour,
    /// The kernel does not let it pass for another reason.
    NoWay,
    /// A socket takes it that only reserves the port: nobody answers.
    OnlyReserved,
    /// It could not be followed to its end.
    NotFollowed,
    /// It depends on what is not known: `conditions` says on what, where rules ask it.
    Depends,
    /// A local route makes the namespace take packets to an address that no interface has.
    LocalRoute,
    /// It leaves this node.
    LeavesNode,
    /// Something is in the way that was not evaluated, or could not be read.
    NotEvaluated,
    /// The listener's queue is full.
    QueueFull,
    /// The listener's process is stopped.
    OwnerStopped,
    /// The listener's process is frozen.
    OwnerFrozen,
    /// Something else.
    Other,
}

impl From<StopKind> for CauseCode {
    fn from(kind: StopKind) -> Self {
        match kind {
            StopKind::Nothing => Self::NothingListens,
            StopKind::Dropped => Self::Dropped,
            StopKind::Rejected => Self::Rejected,
            StopKind::NoBackend => Self::NoBackend,
            StopKind::NoRoute => Self::NoRoute,
            StopKind::NotForwarding => Self::NotForwarding,
            StopKind::LoopbackOnWire => Self::LoopbackOnWire,
            StopKind::ReversePath => Self::ReversePath,
            StopKind::NoNeighbour => Self::NoNeighbour,
            StopKind::NoWay => Self::NoWay,
            StopKind::Reserved => Self::OnlyReserved,
            StopKind::Unknown => Self::NotFollowed,
        }
    }
}

impl Cause {
    /// Which one, without what is special to this one.
    pub fn code(&self) -> CauseCode {
        match self {
            Self::BoundToAll { .. } | Self::BoundToAllIpv6 => CauseCode::BoundToAll,
            Self::BoundTo(_) => CauseCode::BoundToAddress,
            Self::BoundElsewhere(_) => CauseCode::BoundElsewhere,
            Self::BoundToInterface(_) => CauseCode::BoundToInterface,
            Self::InterfaceWithoutAddress(_)
            | Self::InterfaceGone(_)
            | Self::AddressGone(_)
            | Self::NoOtherAddress { .. } => CauseCode::NoAddress,
            Self::BoundToGroup(_) => CauseCode::BoundToGroup,
            Self::LoopbackDown => CauseCode::LoopbackDown,
            Self::InnerAddressesOnly => CauseCode::InnerAddressesOnly,
            Self::NothingBehind => CauseCode::NothingListens,
            Self::BoundInside { .. } => CauseCode::BoundInNamespace,
            Self::NotPublished { .. } => CauseCode::NotPublished,
            Self::Routed(_) => CauseCode::Routed,
            Self::ForwardedHere { .. } => CauseCode::ExposedByRoute,
            Self::NoLink(_) => CauseCode::NoLink,
            Self::SharedNetwork(_) | Self::SharedBridge(_) | Self::OnNetworkOf { .. } => {
                CauseCode::SharedNetwork
            }
            Self::NotOnInterface { .. } => CauseCode::NotOnInterface,
            Self::Published { elsewhere: false, .. } => CauseCode::Published,
            Self::Published { elsewhere: true, .. } => CauseCode::PublishedElsewhere,
            Self::NoRule => CauseCode::NoRule,
            Self::OnlyInApi { .. } => CauseCode::OnlyInApi,
            Self::TakenByRules { .. } => CauseCode::TakenByRules,
            Self::Stopped { kind, .. } => (*kind).into(),
            Self::Depends(_) => CauseCode::Depends,
            Self::LocalRoute { .. } => CauseCode::LocalRoute,
            Self::LeavesNode(_) => CauseCode::LeavesNode,
            Self::NotEvaluated(_) => CauseCode::NotEvaluated,
            Self::Said(_) => CauseCode::Other,
            Self::QueueFull { .. } => CauseCode::QueueFull,
            Self::OwnerStopped(_) => CauseCode::OwnerStopped,
            Self::OwnerFrozen(_) => CauseCode::OwnerFrozen,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BoundToAll { versions_known: true } => f.write_str("bound to all addresses"),
            Self::BoundToAll { versions_known: false } => f.write_str(
                "bound to all addresses; whether IPv4 is among them could not be read",
            ),
            Self::BoundToAllIpv6 => f.write_str("bound to all IPv6 addresses, and to none of IPv4"),
            Self::BoundTo(address) => write!(f, "bound to {address}"),
            Self::BoundElsewhere(address) => write!(f, "bound to {address} only"),
            Self::BoundToInterface(name) => write!(f, "bound to the interface {name} only"),
            Self::InterfaceWithoutAddress(index) => write!(
                f,
                "bound to the interface with index {index} only, which has no address for it"
            ),
            Self::InterfaceGone(index) => {
                write!(f, "bound to an interface that is gone (it had index {index})")
            }
            Self::AddressGone(address) => {
                write!(f, "bound to {address}, which no interface here has any more")
            }
            Self::BoundToGroup(address) => write!(
                f,
                "bound to {address}: it gets what is sent to many there, where this host takes part"
            ),
            Self::NoOtherAddress { ipv6: None } => {
                f.write_str("this namespace has no other address")
            }
            Self::NoOtherAddress { ipv6: Some(ipv6) } => {
                let family = if *ipv6 { "IPv6" } else { "IPv4" };
                write!(f, "this namespace has no other {family} address that is up")
            }
            Self::LoopbackDown => f.write_str(
                "the loopback interface of this namespace has no address: it is down",
            ),
            Self::InnerAddressesOnly => f.write_str(
                "every address it is bound to belongs to a bridge or a device pair: it depends on what is behind them",
            ),
            Self::NothingBehind => f.write_str(
                "the port is open, but nothing listens behind it: connections end at once",
            ),
            Self::BoundInside { address, names } => {
                write!(f, "bound to {address} inside {} only", join(names, "and"))
            }
            Self::NotPublished { names, ports } => {
                let verb = if names.len() > 1 { "don't" } else { "doesn't" };
                let word = if ports.len() > 1 { "ports" } else { "port" };
                let (whose, ports) = (join(names, "and"), join(ports, "and"));
                write!(f, "it listens inside {whose}, which {verb} publish {word} {ports} here")
            }
            Self::Routed(name) => write!(f, "this namespace has a route to {name}"),
            Self::ForwardedHere { name, by } => write!(
                f,
                "this node forwards it to {name}, in by {by}"
            ),
            Self::NoLink(name) => {
                write!(f, "no address of {name} that this namespace has a link to")
            }
            Self::SharedNetwork(networks) => write!(f, "containers on network {networks}"),
            Self::SharedBridge(name) => write!(f, "on the same bridge, {name}"),
            Self::OnNetworkOf { name, device } => {
                write!(f, "{name} has this address on the network of {device} itself")
            }
            Self::NotOnInterface { address, name } => write!(
                f,
                "{address} is no address of an interface: rules of {name} take it, for its own processes and what passes through it"
            ),
            Self::Published { container, at, inner, proto, elsewhere } => {
                write!(f, "container {container} publishes {at}->{inner}/{proto}")?;
                if *elsewhere { write!(f, ", on {} only", at.ip()) } else { Ok(()) }
            }
            Self::LocalRoute { network, prefix, needs_route } => {
                write!(f, "a local route for {network}/{prefix} takes it")?;
                if *needs_route { f.write_str(", of those who route that here") } else { Ok(()) }
            }
            Self::NotEvaluated(what) => f.write_str(&what.decides()),
            Self::NoRule => f.write_str("no rule takes it from there, and nothing listens"),
            Self::OnlyInApi { node } => write!(f, "no rule or load balancer of {node} takes it"),
            Self::QueueFull { who, waiting, limit } => write!(
                f,
                "it gets to {who}, where {waiting} connections wait to be accepted and the queue (limit {limit}) is full: new ones are dropped until some are accepted"
            ),
            Self::OwnerStopped(who) => {
                write!(f, "it gets to {who}, which is stopped: nobody answers until it goes on")
            }
            Self::OwnerFrozen(who) => {
                write!(f, "it gets to {who}, which is frozen: nobody answers until it goes on")
            }
            Self::TakenByRules { words, .. }
            | Self::Stopped { words, .. }
            | Self::Depends(words)
            | Self::LeavesNode(words)
            | Self::Said(words) => f.write_str(words),
        }
    }
}

/// `a`, `a and b`, `a, b and c`.
fn join<T: ToString>(all: &[T], word: &str) -> String {
    let each: Vec<String> = all.iter().map(ToString::to_string).collect();
    match each.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} {word} {last}", before.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_is_made_of_the_cause() {
        let cause = Cause::NotPublished {
            names: vec!["a".into(), "b".into(), "c".into()],
            ports: vec![Port(80)],
        };
        let why = Why {
            of: Some((Port(80), Proto::Tcp)),
            cause,
            but: Some("but dropped if the mark is 1".into()),
        };
        assert_eq!(
            why.to_string(),
            "80/tcp: it listens inside a, b and c, which don't publish port 80 here; but dropped if the mark is 1"
        );
        assert_eq!(why.cause.code(), CauseCode::NotPublished);
    }

    #[test]
    fn what_stops_is_no_matter_of_its_words() {
        let of = |kind, words: &str| Cause::Stopped { kind, words: words.into() }.code();
        assert_eq!(of(StopKind::Dropped, "refused by nobody"), CauseCode::Dropped);
        assert_eq!(of(StopKind::Unknown, "dropped by a rule"), CauseCode::NotFollowed);
    }
}
