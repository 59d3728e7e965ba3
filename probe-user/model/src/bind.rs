//! Binding a socket to a port: what was asked, and what becomes of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Advice, Gap, HeldSockets, InTheWay, NetnsId, NetnsRef, Port, PortRange, Proto};

/// A socket that somebody would like to bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BindAsk {
    /// The namespace.
    pub netns: NetnsId,
    /// The protocol.
    pub proto: Proto,
    /// The address. An IPv4 address, also an IPv4-mapped one, is one of IPv4; `::` takes IPv4
    /// as well, unless `v6only` is set.
    pub address: IpAddr,
    /// `IPV6_V6ONLY`. Of no meaning for other addresses than `::`.
    pub v6only: bool,
    /// The port.
    pub port: Port,
    /// The index of the interface to bind to (`SO_BINDTODEVICE`).
    pub ifindex: Option<u32>,
    /// The user, as the tool's user namespace counts.
    pub uid: u32,
    /// Whether that user may have a privileged port (CAP_NET_BIND_SERVICE).
    pub privileged: bool,
    /// `SO_REUSEADDR`.
    pub reuse_addr: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
}

impl BindAsk {
    /// A server of root's that takes everything that is sent to a port, without options.
    pub fn server(netns: NetnsId, proto: Proto, address: IpAddr, port: Port) -> Self {
        Self {
            netns,
            proto,
            address,
            v6only: false,
            port,
            ifindex: None,
            uid: 0,
            privileged: true,
            reuse_addr: false,
            reuse_port: false,
        }
    }
}

/// What becomes of a bind, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Bind {
    /// The question, as it was typed.
    pub text: String,
    /// The socket that somebody would like to bind.
    pub ask: BindAsk,
    /// The interface that the address is of, where one was named behind `%`, and counts.
    pub zone: Option<String>,
    /// Whether no address was named: then it is for all, of both versions of IP where there
    /// are both.
    pub everywhere: bool,
    /// The namespace.
    pub netns: NetnsRef,
    /// Whether it works, by the kernel's rules; `None` when not all that they ask for is known.
    pub predicted: Option<bool>,
    /// What the kernel says if it does not work.
    pub error: Option<BindError>,
    /// What of the socket's address and namespace is in its way, or worth knowing.
    pub notes: Vec<BindNote>,
    /// What else has the port and keeps it from being bound, or may.
    pub held: Vec<HeldSockets>,
    /// How many kinds of holders more there are than those.
    pub more_held: usize,
    /// What would help.
    pub fix: Option<Advice>,
    /// What the kernel said when it was tried; `None` when it was not.
    pub tried: Option<Result<(), BindError>>,
    /// What is missing to know it.
    pub gaps: Vec<Gap>,
}

impl Bind {
    /// Whether it works: as it was tried, or else as predicted.
    pub fn works(&self) -> Option<bool> {
        match &self.tried {
            Some(tried) => Some(tried.is_ok()),
            None => self.predicted,
        }
    }

    /// Whether the kernel said something else than was predicted.
    pub fn is_wrong(&self) -> bool {
        let said = self.tried.as_ref().map(Result::is_ok);
        matches!((said, self.predicted), (Some(said), Some(predicted)) if said != predicted)
    }
}

/// What the kernel says when a socket can't be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BindError {
    /// `EADDRINUSE`: another socket has the port.
    InUse,
    /// `EACCES`: the port is privileged.
    Privileged,
    /// `EADDRNOTAVAIL`: the namespace does not have the address.
    NotAvailable,
    /// `EINVAL`: the address is of one interface alone, which is not named; or of a kind that
    /// the protocol has no use for.
    Invalid,
    /// `EAFNOSUPPORT`: the kernel has no IPv6.
    NoFamily,
    /// `EPERM`: a program of a cgroup, or a security module, refuses.
    NotPermitted,
    /// Something else, by its number.
    Other(i32),
}

impl BindError {
    /// The kernel's name for it.
    pub fn name(self) -> String {
        match self {
            Self::InUse => "EADDRINUSE".to_owned(),
            Self::Privileged => "EACCES".to_owned(),
            Self::NotAvailable => "EADDRNOTAVAIL".to_owned(),
            Self::Invalid => "EINVAL".to_owned(),
            Self::NoFamily => "EAFNOSUPPORT".to_owned(),
            Self::NotPermitted => "EPERM".to_owned(),
            Self::Other(number) => format!("error {number}"),
        }
    }
}

/// What is said of a bind besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindNote {
    /// The kernel gives this port to whoever asks for none: it may be taken when it is wanted.
    Ephemeral(PortRange),
    /// It would be one of those, but is kept out of them.
    Reserved,
    /// A user needs a capability for ports below this one, and has it not.
    Privileged(u16),
    /// It is not known from which port on users need none.
    PrivilegedNotKnown,
    /// No interface has the address; these are some that are there, and how many more there are.
    NotOwn(Vec<String>, usize),
    /// It is not known whether the address is one of the namespace.
    OwnNotKnown,
    /// The address is of one interface alone.
    NeedsInterface,
    /// The kernel has no IPv6.
    NoIpv6,
    /// It would work for this version of IP alone: IPv6 or else IPv4.
    OnlyFor {
        /// Which one.
        ipv6: bool,
    },
    /// Packet rules or a balancer take what is sent to the port, in words.
    TakenByRules(String),
    /// It depends on options of the other socket, which no source tells.
    OptionsNotKnown,
    /// A program of the tool's own cgroup, or of one above it, has a word in it, and is not
    /// evaluated.
    Program(InTheWay),
    /// Whether there are such programs could not be read.
    ProgramsNotRead,
}

/// Ports that a server could have, and that nothing else is known to want.
#[derive(Debug, Clone, PartialEq)]
pub struct FreePorts {
    /// Where they were looked for.
    pub range: PortRange,
    /// For which protocol; `None` for both.
    pub proto: Option<Proto>,
    /// In which namespace.
    pub netns: NetnsRef,
    /// The lowest ones, as many as were asked for, or fewer.
    pub ports: Vec<Port>,
    /// How many were passed over, and why: each for the first reason that there is.
    pub passed: Vec<(SkipReason, usize)>,
    /// Whether something that could not be read may take those that were found.
    pub doubtful: bool,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

/// Why a port is not proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// The kernel gives it to whoever asks for none.
    Ephemeral,
    /// It is reserved for somebody.
    Reserved,
    /// It is of those that Kubernetes takes for Services.
    NodePort,
    /// It needs a capability that is not there.
    Privileged,
    /// A socket has it, in whatever state.
    InUse,
    /// A container publishes it.
    Published,
    /// Packet rules or a balancer take it.
    TakenByRules,
    /// Whether it is free is not known.
    NotKnown,
    /// It was found to be taken when it was to be held.
    Lost,
}
