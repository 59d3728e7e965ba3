//! What was asked.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Pid, PortRange, Proto, SocketFilter};

/// One question: who is behind these ports?
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Query {
    /// The question as typed.
    pub text: String,
    /// The ports, one or a range.
    pub ports: PortRange,
    /// The protocol; `None` asks for TCP and UDP.
    pub proto: Option<Proto>,
    /// Where.
    pub scope: Scope,
    /// The interface here that the address is of, where one was named behind `%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The name that was asked for in place of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ResolvedName>,
    /// What the port has to lead to: of a question the other way round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
}

/// A name of a host, and which of its addresses a question is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResolvedName {
    /// The name, as it was typed.
    pub name: String,
    /// Which of them it is, from 0.
    pub at: usize,
    /// How many there are: a question for each follows the one before.
    pub of: usize,
    /// Whether they are tried in this order.
    pub ordered: bool,
    /// Where it says so.
    pub source: String,
}

/// What somebody wants to know all ports of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A process, in the tool's PID namespace.
    Process(Pid),
    /// A container by its name, or the beginning of its id.
    Container(String),
    /// A Kubernetes pod; without a namespace that of any.
    Pod(Option<String>, String),
    /// A Kubernetes service; without a namespace that of any.
    Service(Option<String>, String),
    /// Everything of a cluster.
    Cluster(String),
    /// Processes and containers with this name.
    Name(String),
}

impl Subject {
    /// The option that asks for it, without its dashes.
    pub fn option(&self) -> &'static str {
        match self {
            Self::Process(_) => "pid",
            Self::Container(_) => "container",
            Self::Pod(..) => "pod",
            Self::Service(..) => "service",
            Self::Cluster(_) => "cluster",
            Self::Name(_) => "name",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = |namespace: &Option<String>| {
            namespace.as_ref().map_or_else(String::new, |namespace| format!("{namespace}/"))
        };
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Container(name) => write!(f, "container {name}"),
            Self::Pod(namespace, name) => write!(f, "pod {}{name}", slash(namespace)),
            Self::Service(namespace, name) => write!(f, "service {}{name}", slash(namespace)),
            Self::Cluster(name) => write!(f, "cluster {name}"),
            Self::Name(name) => write!(f, "a process or container named {name}"),
        }
    }
}

/// Who connects, as somebody asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderName {
    /// A process, in the tool's PID namespace.
    Process(Pid),
    /// A container by its name, or the beginning of its id.
    Container(String),
    /// A Kubernetes pod; without a namespace that of any.
    Pod(Option<String>, String),
    /// A network namespace, by the name that answers show or its inode number.
    Netns(String),
    /// Whoever has an address, here or elsewhere.
    Address(IpAddr),
    /// Whoever sends by a device of the tool's namespace.
    Device(String),
}

/// Where a port is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// On every address of every namespace.
    Everywhere,
    /// Where a packet to this address would arrive.
    Address(IpAddr),
}

impl Query {
    /// The sockets that could answer it.
    pub fn filter(&self) -> SocketFilter {
        SocketFilter { proto: self.proto, ports: Some(self.ports) }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
