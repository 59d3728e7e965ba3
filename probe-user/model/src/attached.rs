//! Programs and filters that are attached where packets pass, and how an answer names what
//! is on a way and not evaluated.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Advice, Balancer, CgroupPath, Command, Condition, ConditionCode, FixKind, NetnsId, NetnsRef,
    Pid,
};

/// A BPF program.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Program {
    /// Its id, unique while it is loaded; `None` for a classic one.
    pub id: Option<u32>,
    /// Its name, at most 15 bytes; empty where the kernel does not tell (its descriptor needs
    /// `CAP_SYS_ADMIN`) or it has none. Untrusted.
    pub name: String,
    /// The balancer whose pinned maps it works with, when these were read: what it does is
    /// known by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancer: Option<Balancer>,
}

/// What the kernel runs for the packets of a device, or of a whole namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The namespace.
    pub netns: NetnsId,
    /// The device; `None` for what belongs to the namespace.
    pub ifindex: Option<u32>,
    /// Where.
    pub at: DeviceHook,
    /// What.
    pub what: Attachment,
}

impl Attached {
    /// Whether what it does is known otherwise: by the maps of a balancer that were read.
    pub fn is_known(&self) -> bool {
        matches!(&self.what, Attachment::Program(program) if program.balancer.is_some())
    }
}

/// Where something is attached to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceHook {
    /// XDP: the first thing that sees a packet which comes in (`IFLA_XDP`).
    Xdp,
    /// tc at ingress (qdisc `clsact` or `ingress`).
    TcIngress,
    /// tc at egress (qdisc `clsact`, or filters of the root qdisc).
    TcEgress,
    /// tcx at ingress, since Linux 6.6.
    TcxIngress,
    /// tcx at egress.
    TcxEgress,
    /// What a netkit device sends (`BPF_NETKIT_PRIMARY`), since Linux 6.7.
    NetkitPrimary,
    /// What the peer of a netkit device sends (`BPF_NETKIT_PEER`).
    NetkitPeer,
    /// The choice of the socket, for a whole namespace (`BPF_SK_LOOKUP`), since Linux 5.9.
    SkLookup,
}

/// What is attached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attachment {
    /// A BPF program.
    Program(Program),
    /// A filter of tc with actions: its kind, as `flower`, and those of its actions that may
    /// keep or change a packet, as `mirred`.
    Filter {
        /// The kind of filter.
        kind: String,
        /// The actions; empty where they could not be told.
        actions: Vec<String>,
    },
    /// A qdisc that loses packets on purpose: `netem`, `blackhole`.
    Qdisc(String),
}

/// Whose cgroup is asked for its programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupOf {
    /// The cgroup v2 with this id: the one that a socket was made in.
    Id(u64),
    /// The cgroup v2 that a process is in.
    Process(Pid),
    /// The cgroup v2 that the tool is in.
    Own,
}

impl CgroupOf {
    /// The root of all cgroups (`kernfs_root`, whose inode is 1).
    pub const ROOT: Self = Self::Id(1);
}

/// A program that runs for the sockets of a cgroup, attached to it or to one above it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CgroupProgram {
    /// Where it runs.
    pub at: CgroupHook,
    /// The cgroup that it is attached to; `None` when that could not be told.
    pub cgroup: Option<CgroupPath>,
    /// The program.
    pub program: Program,
}

/// Where programs of cgroups run that can keep a connection from being made, or a socket from
/// being bound. Others (`getsockopt`, `sock_ops`, `device`, …) can't.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupHook {
    /// Packets to a socket (`BPF_CGROUP_INET_INGRESS`).
    Ingress,
    /// Packets from a socket (`BPF_CGROUP_INET_EGRESS`).
    Egress,
    /// `socket()` (`BPF_CGROUP_INET_SOCK_CREATE`).
    SockCreate,
    /// `connect()` to IPv4.
    Connect4,
    /// `connect()` to IPv6.
    Connect6,
    /// `sendmsg()` of UDP to IPv4, without `connect()`.
    Sendmsg4,
    /// `sendmsg()` of UDP to IPv6, without `connect()`.
    Sendmsg6,
    /// `bind()` of an IPv4 socket, before the kernel looks at the port; it may choose another
    /// address and port.
    Bind4,
    /// `bind()` of an IPv6 socket.
    Bind6,
    /// `bind()` of an IPv4 socket, when it has the port.
    PostBind4,
    /// `bind()` of an IPv6 socket, when it has the port.
    PostBind6,
}

impl CgroupHook {
    /// Whether a program there has a word in whether a socket of this version of IP is bound.
    pub fn binds(self, ipv6: bool) -> bool {
        match self {
            Self::SockCreate => true,
            Self::Bind4 | Self::PostBind4 => !ipv6,
            Self::Bind6 | Self::PostBind6 => ipv6,
            Self::Ingress
            | Self::Egress
            | Self::Connect4
            | Self::Connect6
            | Self::Sendmsg4
            | Self::Sendmsg6 => false,
        }
    }
}

/// Something that is on a packet's way and was not evaluated, so that it is not known what
/// becomes of the packet. Names in it are untrusted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InTheWay {
    /// Attached to a device, or to a namespace.
    OnDevice {
        /// The name of the device; of the namespace, where `at` belongs to one.
        device: String,
        /// Where.
        at: DeviceHook,
        /// What.
        what: Attachment,
    },
    /// A program for the sockets of a cgroup.
    OnCgroup(CgroupProgram),
    /// Rules for frames in a bridge.
    BridgeRules {
        /// The bridge.
        device: String,
        /// Its namespace.
        netns: NetnsRef,
    },
    /// Rules for what asks who has an address (ARP), in a namespace.
    ArpRules(NetnsRef),
    /// IPsec policies of a namespace.
    IpsecPolicies(NetnsRef),
    /// Packet rules that could not be read.
    UnreadRules(NetnsRef),
    /// What is attached to the devices of a namespace could not be read.
    UnreadDevices(NetnsRef),
    /// The programs of cgroups could not be read.
    UnreadCgroups,
    /// Whether Cilium translates `connect()` in a namespace could not be read.
    UnreadSocketLb(NetnsRef),
    /// A proxy of Cilium, on this port, that chooses where connections go.
    Proxy(u16),
    /// The policy of an endpoint of Cilium: who is let in is not known.
    Policy(u16),
    /// The policy of a service mesh, which its proxy keeps: `Istio`, `Linkerd`.
    Mesh(&'static str),
}

impl InTheWay {
    /// Whether it can do nothing but stop a packet: where that gets nowhere anyhow, it does
    /// not matter.
    pub fn only_stops(&self) -> bool {
        match self {
            Self::OnCgroup(program) => match program.at {
                CgroupHook::Ingress | CgroupHook::Egress | CgroupHook::SockCreate => true,
                // They may send it elsewhere.
                CgroupHook::Connect4
                | CgroupHook::Connect6
                | CgroupHook::Sendmsg4
                | CgroupHook::Sendmsg6 => false,
                CgroupHook::Bind4
                | CgroupHook::Bind6
                | CgroupHook::PostBind4
                | CgroupHook::PostBind6 => true,
            },
            Self::OnDevice { what: Attachment::Qdisc(_), .. }
            | Self::Policy(_)
            | Self::Mesh(_)
            | Self::ArpRules(_)
            | Self::IpsecPolicies(_) => true,
            Self::OnDevice { .. }
            | Self::BridgeRules { .. }
            | Self::UnreadRules(_)
            | Self::UnreadDevices(_)
            | Self::UnreadCgroups
            | Self::UnreadSocketLb(_)
            | Self::Proxy(_) => false,
        }
    }

    /// What has to be so for a packet to go the way that was followed.
    pub fn condition(&self) -> Condition {
        let code = match self {
            Self::OnDevice { .. }
            | Self::OnCgroup(_)
            | Self::Proxy(_)
            | Self::Policy(_)
            | Self::Mesh(_) => ConditionCode::Program,
            Self::BridgeRules { .. } => ConditionCode::BridgeRules,
            Self::ArpRules(_) => ConditionCode::ArpRules,
            Self::IpsecPolicies(_) => ConditionCode::Ipsec,
            Self::UnreadRules(_)
            | Self::UnreadDevices(_)
            | Self::UnreadCgroups
            | Self::UnreadSocketLb(_) => ConditionCode::NotRead,
        };
        Condition {
            code,
            text: format!("{self} let{} it pass", if self.is_one() { "s" } else { "" }),
        }
    }

    /// What is not known because of it, as a sentence.
    pub fn decides(&self) -> String {
        match self {
            Self::OnDevice { .. } | Self::OnCgroup(_) => {
                format!("{self} decides, and is not evaluated")
            }
            Self::Proxy(_) => format!("{self} decides where it goes"),
            Self::Policy(_) | Self::Mesh(_) => {
                format!("{self} decides by the client's identity")
            }
            Self::UnreadSocketLb(netns) => {
                format!(
                    "whether Cilium translates connect() in {netns} (socket LB) could not be read"
                )
            }
            Self::BridgeRules { .. } | Self::ArpRules(_) | Self::IpsecPolicies(_) => {
                format!("{self} are not evaluated")
            }
            Self::UnreadRules(netns) => format!(
                "the packet rules of {netns} could not be read, and may stop it or send it elsewhere"
            ),
            Self::UnreadDevices(netns) => {
                format!("whether programs are attached to the devices of {netns} could not be read")
            }
            Self::UnreadCgroups => {
                "whether programs are attached to cgroups could not be read".to_owned()
            }
        }
    }

    fn is_one(&self) -> bool {
        matches!(
            self,
            Self::OnDevice { .. }
                | Self::OnCgroup(_)
                | Self::Proxy(_)
                | Self::Policy(_)
                | Self::Mesh(_)
        )
    }

    /// What would tell more.
    pub fn advice(&self) -> Option<Advice> {
        let see = |command: Command| {
            Some(Advice::from("see what it does: ").command(command).of(FixKind::Inspect))
        };
        let program = |program: &Program| {
            see(Command::new("bpftool prog show id").arg(program.id?.to_string()))
        };
        match self {
            Self::OnDevice { what: Attachment::Program(one), .. } => program(one),
            Self::OnDevice { device, at, what: Attachment::Filter { .. } } => {
                let side = if *at == DeviceHook::TcIngress { "ingress" } else { "egress" };
                see(Command::new("tc -s filter show dev").arg(device).args(side))
            }
            Self::OnDevice { device, what: Attachment::Qdisc(_), .. } => {
                see(Command::new("tc -s qdisc show dev").arg(device))
            }
            Self::OnCgroup(one) => program(&one.program),
            Self::BridgeRules { .. } => see(Command::new("nft list ruleset")),
            Self::ArpRules(_) => see(Command::new("nft list ruleset arp")),
            Self::IpsecPolicies(_) => see(Command::new("ip xfrm policy")),
            Self::UnreadRules(_) => {
                Some(Advice::from("run as root, or with CAP_NET_ADMIN").of(FixKind::Inspect))
            }
            Self::Proxy(_) => see(Command::new("cilium-dbg status --all-redirects")),
            Self::Policy(endpoint) => {
                see(Command::new("cilium-dbg bpf policy get").arg(endpoint.to_string()))
            }
            Self::Mesh("Linkerd") => see(Command::new("linkerd authz -n NAMESPACE pod/POD")),
            Self::Mesh(_) => see(Command::new("istioctl x describe pod POD.NAMESPACE")),
            Self::UnreadDevices(_) | Self::UnreadCgroups | Self::UnreadSocketLb(_) => Some(
                Advice::from("run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN")
                    .of(FixKind::Inspect),
            ),
        }
    }
}

/// Its name with its id: `drop_all (id 12)`.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name.is_empty(), self.id) {
            (false, Some(id)) => write!(f, "{} (id {id})", self.name),
            (false, None) => f.write_str(&self.name),
            (true, Some(id)) => write!(f, "with id {id}"),
            (true, None) => f.write_str("without a name"),
        }
    }
}

impl fmt::Display for DeviceHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "XDP",
            Self::TcIngress => "tc ingress",
            Self::TcEgress => "tc egress",
            Self::TcxIngress => "tcx ingress",
            Self::TcxEgress => "tcx egress",
            Self::NetkitPrimary => "netkit primary",
            Self::NetkitPeer => "netkit peer",
            Self::SkLookup => "sk_lookup",
        })
    }
}

impl fmt::Display for CgroupHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::SockCreate => "sock_create",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::Bind4 => "bind4",
            Self::Bind6 => "bind6",
            Self::PostBind4 => "post_bind4",
            Self::PostBind6 => "post_bind6",
        })
    }
}

/// What it is, as the subject of a sentence: `the XDP program drop_all (id 12) on up0`.
impl fmt::Display for InTheWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnDevice { device, at, what: Attachment::Program(program) } => {
                let on = if *at == DeviceHook::SkLookup { "of network namespace" } else { "on" };
                write!(f, "the {at} program {program} {on} {device}")
            }
            Self::OnDevice { device, at, what: Attachment::Filter { kind, actions } } => {
                let actions = match actions.as_slice() {
                    [] => String::new(),
                    all => format!(" with {}", all.join(", ")),
                };
                write!(f, "the {at} filter {kind}{actions} on {device}")
            }
            Self::OnDevice { device, what: Attachment::Qdisc(kind), .. } => {
                write!(f, "the qdisc {kind} of {device}")
            }
            Self::OnCgroup(CgroupProgram { at, cgroup, program }) => {
                write!(f, "the cgroup {at} program {program}")?;
                match cgroup.as_ref().map(|cgroup| (cgroup.unit(), &cgroup.0)) {
                    Some((Some(unit), _)) => write!(f, " of unit {unit}"),
                    Some((None, path)) => write!(f, " on {path}"),
                    None => Ok(()),
                }
            }
            Self::BridgeRules { device, netns } => {
                write!(f, "the rules for frames of {netns}, which those on {device} pass,")
            }
            Self::ArpRules(netns) => write!(f, "the rules for ARP of {netns}"),
            Self::IpsecPolicies(netns) => write!(f, "the IPsec policies of {netns}"),
            Self::UnreadRules(netns) => {
                write!(f, "the packet rules of {netns}, which could not be read,")
            }
            Self::UnreadDevices(netns) => write!(
                f,
                "programs on the devices of {netns}, of which it could not be read whether there are any,"
            ),
            Self::UnreadSocketLb(netns) => write!(
                f,
                "programs of Cilium for connect() in {netns}, of which it could not be read whether there are any,"
            ),
            Self::Proxy(port) => write!(f, "Cilium's proxy on port {port}"),
            Self::Policy(endpoint) => write!(f, "Cilium's policy of endpoint {endpoint}"),
            Self::Mesh(name) => write!(f, "the policy of {name}'s proxy"),
            Self::UnreadCgroups => f.write_str(
                "programs of cgroups, of which it could not be read whether there are any,",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str) -> Program {
        Program { id: Some(12), name: name.to_owned(), balancer: None }
    }

    #[test]
    fn it_is_named_with_what_tells_more() {
        let device = "up0".to_owned();
        let what = Attachment::Program(program("drop_all"));
        let one = InTheWay::OnDevice { device, at: DeviceHook::Xdp, what };
        assert_eq!(one.to_string(), "the XDP program drop_all (id 12) on up0");
        assert_eq!(one.condition().text, "the XDP program drop_all (id 12) on up0 lets it pass");
        let advice = one.advice().unwrap();
        let command = Command::new("bpftool prog show id 12");
        assert_eq!(advice.commands().next(), Some(&command));
        assert!(!one.only_stops(), "XDP may send a packet elsewhere");
    }

    #[test]
    fn a_filter_of_a_cgroup_only_stops_and_is_named_by_the_unit() {
        let of = |at| {
            let cgroup = Some(CgroupPath("/system.slice/web.service".to_owned()));
            InTheWay::OnCgroup(CgroupProgram { at, cgroup, program: program("sd_fw_ingress") })
        };
        let one = of(CgroupHook::Ingress);
        let text = "the cgroup ingress program sd_fw_ingress (id 12) of unit web.service";
        assert_eq!(one.to_string(), text);
        assert!(one.only_stops() && !of(CgroupHook::Connect4).only_stops());
    }
}
