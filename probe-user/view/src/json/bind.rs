//! Whether a socket could be bound to a port.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::bind::{note, statement};
use whereis_port_model as model;

use super::{Advice, Gap, Held, Host, Netns, Proto, SCHEMA_VERSION, Source, TOOL_VERSION};

/// What `whereis-port bind --json` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BindsDocument<'a> {
    /// The version of this document's structure.
    pub schema_version: u32,
    /// The version of the tool that wrote it.
    pub tool_version: &'a str,
    /// The node.
    pub host: Host<'a>,
    /// One for each question and protocol, in their order.
    pub binds: Vec<Bind<'a>>,
    /// What was read, and what could not be.
    pub sources: Vec<Source<'a>>,
}

/// What becomes of a bind.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Bind<'a> {
    /// The question, as it was typed.
    pub query: &'a str,
    /// The namespace.
    pub netns: Netns<'a>,
    /// The protocol.
    pub proto: Proto,
    /// The address; null for all of both versions of IP.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The user.
    pub uid: u32,
    /// Whether it works: as it was tried, or else as predicted; null when not known.
    pub works: Option<bool>,
    /// What the kernel's rules say of it; null when not all that they ask for is known.
    pub predicted: Option<bool>,
    /// What the kernel said when it was tried; null when it was not.
    pub tried: Option<bool>,
    /// What the kernel says if it does not work: `EADDRINUSE`, `EACCES`, `EADDRNOTAVAIL`, …
    pub error: Option<String>,
    /// All of it in words.
    pub text: String,
    /// What of address and namespace is in its way, or worth knowing.
    pub notes: Vec<BindNote>,
    /// What else has the port and keeps the socket from being bound, or may.
    pub held: Vec<Held<'a>>,
    /// How many kinds of holders more there are than those in `held`.
    pub more_held: usize,
    /// What would help.
    pub fix: Option<Advice<'a>>,
    /// What is missing to know it.
    pub gaps: Vec<Gap<'a>>,
}

/// What is said of a bind besides.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BindNote {
    /// What it is about.
    pub code: BindNoteCode,
    /// In words.
    pub text: String,
}

/// What a note of a bind is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BindNoteCode {
    /// The kernel gives the port to whoever asks for none.
    Ephemeral,
    /// The port is kept out of those that the kernel gives.
    Reserved,
    /// The port needs a capability that the user has not.
    Privileged,
    /// It is not known whether it does.
    PrivilegedNotKnown,
    /// The namespace does not have the address.
    AddressNotOwn,
    /// It is not known whether it has.
    AddressNotKnown,
    /// The address is of one interface alone, which is not named.
    NeedsInterface,
    /// The kernel has no IPv6.
    NoIpv6,
    /// It works for IPv4 alone.
    Ipv4Works,
    /// It works for IPv6 alone.
    Ipv6Works,
    /// Packet rules or a balancer take what is sent to the port.
    TakenByRules,
    /// It depends on options of the other socket, which nothing tells.
    OptionsNotKnown,
    /// A BPF program of the own cgroup may refuse it, and is not evaluated.
    BindProgram,
    /// Whether there is such a program could not be read.
    BindProgramsNotRead,
}

impl From<&model::BindNote> for BindNoteCode {
    fn from(note: &model::BindNote) -> Self {
        match note {
            model::BindNote::Ephemeral(_) => Self::Ephemeral,
            model::BindNote::Reserved => Self::Reserved,
            model::BindNote::Privileged(_) => Self::Privileged,
            model::BindNote::PrivilegedNotKnown => Self::PrivilegedNotKnown,
            model::BindNote::NotOwn(..) => Self::AddressNotOwn,
            model::BindNote::OwnNotKnown => Self::AddressNotKnown,
            model::BindNote::NeedsInterface => Self::NeedsInterface,
            model::BindNote::NoIpv6 => Self::NoIpv6,
            model::BindNote::OnlyFor { ipv6: false } => Self::Ipv4Works,
            model::BindNote::OnlyFor { ipv6: true } => Self::Ipv6Works,
            model::BindNote::TakenByRules(_) => Self::TakenByRules,
            model::BindNote::OptionsNotKnown => Self::OptionsNotKnown,
            model::BindNote::Program(_) => Self::BindProgram,
            model::BindNote::ProgramsNotRead => Self::BindProgramsNotRead,
        }
    }
}

impl<'a> From<&'a model::Bind> for Bind<'a> {
    fn from(bind: &'a model::Bind) -> Self {
        let ask = &bind.ask;
        let tried = bind.tried.as_ref();
        let error = match tried {
            Some(tried) => tried.err(),
            None => bind.error,
        };
        Self {
            query: &bind.text,
            netns: (&bind.netns).into(),
            proto: ask.proto.into(),
            address: (!bind.everywhere).then_some(ask.address),
            port: ask.port.0,
            uid: ask.uid,
            works: bind.works(),
            predicted: bind.predicted,
            tried: tried.map(Result::is_ok),
            error: error.map(model::BindError::name),
            text: statement(bind),
            notes: bind
                .notes
                .iter()
                .map(|one| BindNote { code: one.into(), text: note(bind, one) })
                .collect(),
            held: bind.held.iter().map(Into::into).collect(),
            more_held: bind.more_held,
            fix: bind.fix.as_ref().map(Into::into),
            gaps: bind.gaps.iter().map(Into::into).collect(),
        }
    }
}

/// The document for some binds.
pub fn binds<'a>(
    binds: &'a [model::Bind],
    host: &'a model::Host,
    sources: &'a [model::SourceReport],
) -> BindsDocument<'a> {
    BindsDocument {
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        host: host.into(),
        binds: binds.iter().map(Into::into).collect(),
        sources: sources.iter().map(Into::into).collect(),
    }
}
