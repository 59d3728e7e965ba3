//! The words of the JSON documents that have a fixed set of values.

use schemars::JsonSchema;
use serde::Serialize;

use whereis_port_model as model;

/// An enum of the document that has the variants of one of the model.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident = $model:ident { $($(#[$variant_doc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl From<model::$model> for $name {
            fn from(word: model::$model) -> Self {
                match word { $(model::$model::$variant => Self::$variant),* }
            }
        }
    };
}

words! {
    /// A transport protocol.
    Proto = Proto {
        /// TCP.
        Tcp,
        /// UDP.
        Udp,
    }
}

words! {
    /// Whether something is behind the port.
    Verdict = Verdict {
        /// Yes.
        Found,
        /// Surely not: everything that could hold the port was readable.
        NotFound,
        /// Nothing was found, but not everything could be read.
        Unknown,
    }
}

words! {
    /// What became of a connection that was really made.
    Connected = Connected {
        /// It was made, and stayed.
        Open,
        /// It was made, and the other end closed or reset it at once.
        ClosedAtOnce,
        /// Refused.
        Refused,
        /// Nobody answered in a second.
        TimedOut,
        /// No way leads there.
        Unreachable,
        /// It was not tried: over UDP, from another machine, or for want of rights.
        NotTried,
    }
}

words! {
    /// The kinds of step.
    HopKind = HopKind {
        /// A socket.
        Listener,
        /// A process that passes connections on.
        Forward,
        /// A NAT rule.
        Dnat,
        /// A load-balanced service.
        Service,
        /// The kernel itself.
        Kernel,
        /// The path leaves this node.
        OffNode,
    }
}

words! {
    /// What kind of end.
    Ending = Ending {
        /// One or more processes hold the listener.
        Process,
        /// The kernel holds it.
        Kernel,
        /// The owner exists, but outside the PID namespaces that can be seen.
        OutsidePidNamespace,
        /// Somebody holds it whose descriptors could not be read.
        NotReadable,
        /// Nothing listens there.
        Nothing,
        /// A rule, or the lack of a way, stops what is sent there.
        Stopped,
        /// It goes on where this node's facts end.
        Elsewhere,
        /// The owner could not be told.
        Unknown,
    }
}

words! {
    /// The kinds of what makes processes and containers.
    WorkloadKind = WorkloadKind {
        /// A Deployment.
        Deployment,
        /// A ReplicaSet that no Deployment is known of.
        ReplicaSet,
        /// A DaemonSet.
        DaemonSet,
        /// A StatefulSet.
        StatefulSet,
        /// A Job.
        Job,
        /// Another controller of pods.
        Controller,
        /// A pod that nothing is known to have made.
        Pod,
        /// A service of a Compose project.
        ComposeService,
        /// A service of a swarm.
        SwarmService,
        /// Containers of one image.
        Image,
    }
}

words! {
    /// The kinds of ports that a list has.
    PortKind = PortKind {
        /// A socket that somebody serves.
        Listener,
        /// The kernel has it.
        Kernel,
        /// A process that passes connections on.
        Forward,
        /// A port that a container publishes, by a proxy, by rules, or both.
        Published,
        /// The NodePort of a Service.
        NodePort,
        /// The hostPort of a pod.
        HostPort,
        /// A port of a Service at an external address of it.
        ExternalIp,
        /// A port of a Service at the address of its load balancer.
        LoadBalancer,
        /// A port of a Service, of which is not known by what kind of address.
        Service,
        /// Other packet rules take it.
        Rules,
    }
}

words! {
    /// From how far away a port can be reached.
    Reached = Reached {
        /// From nowhere that was tried.
        None,
        /// By processes of its namespace that connect to loopback.
        Loopback,
        /// From this node: its processes at other addresses, and its containers.
        Node,
        /// By other machines that have a route over this node, which few may have.
        Route,
        /// By other machines.
        Network,
        /// It can't be told.
        Unknown,
    }
}

words! {
    /// Where a client is.
    Vantage = Vantage {
        /// A process in the tool's namespace that connects to 127.0.0.1 or ::1.
        Loopback,
        /// A process in the tool's namespace that connects to another address.
        Node,
        /// Another machine.
        Outside,
        /// A container on this node.
        Containers,
    }
}

words! {
    /// What a missing fact could hide.
    Impact = Impact {
        /// A listener, or a rule that takes a port.
        Port,
        /// Somebody who holds a listener that is seen.
        Owner,
        /// The name, image or cluster of something that is seen.
        Name,
        /// From where something can be reached.
        Reach,
        /// Where a process passes connections on to.
        Way,
        /// Which connections are open now.
        Flow,
        /// What has a port without listening on it, so that nobody else can be bound there.
        Bind,
    }
}

words! {
    /// The kinds of source that can have a gap.
    GapKind = GapKind {
        /// Which network namespaces there are, or what is in one.
        NetworkNamespaces,
        /// The PID namespaces around the tool's own.
        PidNamespace,
        /// Something below `/proc`.
        Proc,
        /// Descriptors of processes: `/proc/PID/fd`.
        Descriptors,
        /// One process.
        Process,
        /// The arguments of processes.
        CommandLine,
        /// The path of a cgroup.
        Cgroup,
        /// The sockets of namespaces.
        Sockets,
        /// A socket on a port.
        Port,
        /// Interfaces.
        Links,
        /// Addresses.
        Addresses,
        /// Routes.
        Routes,
        /// Who has addresses on the links of a namespace.
        Neighbours,
        /// Ports that the kernel itself holds.
        KernelPorts,
        /// What the kernel forwards.
        Settings,
        /// Packet rules of namespaces.
        PacketRules,
        /// A set of addresses that packet rules ask.
        IpSet,
        /// Rules for frames in a bridge.
        BridgeRules,
        /// Programs and filters that are attached to devices and cgroups.
        Attached,
        /// A load balancer that is no rule.
        Balancer,
        /// Services with the same port.
        Services,
        /// Connections that conntrack knows.
        Connections,
        /// The name, image and labels of one container, by the beginning of its id.
        Container,
        /// The pod of one container, by the beginning of its id.
        ContainerPod,
        /// A port that a container publishes, by the container's name.
        PublishedPort,
        /// A container runtime or several, or a socket where one may be.
        Runtime,
        /// Files of container runtimes.
        StateFile,
        /// A kubeconfig file, or the contexts in one.
        Kubeconfig,
        /// A Kubernetes API.
        KubernetesApi,
        /// The certificate of a listener.
        Certificate,
        /// eBPF as a whole, or programs of it.
        Ebpf,
        /// A kind of events.
        Events,
        /// Where connections of one listener were seen to lead.
        Observed,
        /// What was watched for before the answer.
        Watch,
        /// A recording that does not have it.
        Recording,
        /// Anything else.
        Other,
    }
}

words! {
    /// What a proposal is.
    FixKind = FixKind {
        /// Connect to another address, or from another place.
        ConnectElsewhere,
        /// A tunnel by SSH.
        SshTunnel,
        /// Kubernetes' own way to a pod or Service.
        PortForward,
        /// Make a container or cluster publish the port.
        Publish,
        /// Bind to another address.
        Bind,
        /// Start what should be there, or remove what leads to it.
        Start,
        /// Create a Service.
        CreateService,
        /// Change the policy of a Service.
        ChangePolicy,
        /// Change a setting of the kernel.
        SetSysctl,
        /// Set an interface up.
        SetLinkUp,
        /// Set a port of a bridge otherwise.
        SetBridgePort,
        /// Remove a rule of the kernel.
        RemoveRule,
        /// Make what has a port give it up, or wait until it does.
        FreePort,
        /// Ask somewhere else.
        AskElsewhere,
        /// Look at something that says more.
        Inspect,
        /// Anything else.
        Other,
    }
}

words! {
    /// What decides whether a port can be reached, or stops what is sent there.
    CauseCode = CauseCode {
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
        /// The reverse path filter drops it: an answer would not leave by where it came in.
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
}

words! {
    /// What is noticed.
    FindingCode = FindingCode {
        /// This node and a Kubernetes API differ, or an API says more.
        Kubernetes,
        /// The queue of a listener is full.
        QueueFull,
        /// Who should accept was stopped by a signal.
        OwnerStopped,
        /// Who should accept was stopped by a debugger.
        OwnerTraced,
        /// Who should accept is frozen.
        OwnerFrozen,
        /// The first thread of who accepts has ended.
        LeaderEnded,
        /// The program of who accepts was removed or replaced.
        ProgramDeleted,
        /// Several sockets share the port.
        PortShared,
        /// A listener on all addresses leaves IPv4 alone.
        Ipv6Only,
        /// A child that runs another program has the listener as well.
        Inherited,
        /// Nothing listens where connections lead, but something has the port at another
        /// address.
        OtherAddress,
        /// Nothing has the port in the namespace where connections lead, but others there.
        OtherPort,
        /// A container is told to publish the port, and does not.
        WouldPublish,
        /// A BPF program of a cgroup has a word in who may be bound to the port.
        BindProgram,
        /// A rule leads to an address that nobody has.
        RuleToNobody,
        /// A rule never gets what it is for, because another one comes first.
        ShadowedRule,
        /// Connections go where rules send no new ones.
        OldConnections,
        /// Packets were dropped on their way to the port while it was watched.
        PacketsDropped,
    }
}

words! {
    /// The kinds of sockets that have no port.
    OtherKind = OtherKind {
        /// UNIX, of connections that are streams.
        UnixStream,
        /// UNIX, of connections that keep messages apart.
        UnixSeqpacket,
        /// UNIX, of messages.
        UnixDatagram,
        /// Sees every packet of an IP protocol.
        Raw,
        /// Sees every packet of a device.
        Packet,
    }
}

words! {
    /// The package managers.
    PackageManager = PackageManager {
        /// Debian's and Ubuntu's.
        Dpkg,
        /// Alpine's.
        Apk,
        /// That of Fedora, Red Hat and SUSE.
        Rpm,
    }
}

words! {
    /// The kinds of sessions.
    SessionKind = SessionKind {
        /// Somebody who is logged in by SSH.
        Ssh,
        /// A job that runs at a time.
        Cron,
    }
}

words! {
    /// Whether a process runs.
    ProcessState = ProcessState {
        /// It does, or could.
        Running,
        /// It was stopped by a signal.
        Stopped,
        /// A debugger stopped it.
        Traced,
        /// Its first thread has ended, and others go on.
        LeaderEnded,
    }
}

words! {
    /// What a condition is about.
    ConditionCode = ConditionCode {
        /// The client is one of those that are named.
        Client,
        /// The client is none of those that are named.
        OtherClient,
        /// The client is the server itself, which connects to itself by way of others.
        Hairpin,
        /// Something else that rules ask and the node does not tell.
        Rule,
        /// Tables of equal priority are in this order.
        Order,
        /// The client has a route over this node.
        Route,
        /// Of several who have the address of the next hop this one answers.
        Neighbour,
        /// There are more than are told.
        Several,
        /// A program or filter that is attached to a device or cgroup lets it pass.
        Program,
        /// Rules for the frames in a bridge let it pass.
        BridgeRules,
        /// Rules for ARP let it be found.
        ArpRules,
        /// IPsec policies let it pass.
        Ipsec,
        /// What could not be read lets it pass.
        NotRead,
    }
}

words! {
    /// What a socket on a port does there.
    SocketState = SocketState {
        /// TCP in state LISTEN.
        Listen,
        /// UDP, bound and not connected.
        Unconnected,
        /// TCP, bound and neither listening nor connected.
        Bound,
        /// TCP that is being connected from here.
        SynSent,
        /// TCP that is being connected to here.
        SynReceived,
        /// TCP with a connection; UDP with a peer.
        Established,
        /// TCP closed here, the other side has not said that it knows.
        FinWait1,
        /// TCP closed here, and not yet by the other side.
        FinWait2,
        /// TCP closed by both, this side first: the kernel remembers it for a minute.
        TimeWait,
        /// TCP closed by the other side, and not yet by the process here.
        CloseWait,
        /// TCP closed by both, the other side first and not yet acknowledged.
        LastAck,
        /// TCP closed by both at the same time.
        Closing,
    }
}

words! {
    /// What a socket has its port for.
    HeldAs = HeldAs {
        /// It listens (TCP), or takes packets from anybody (UDP), at another address than was
        /// asked for.
        Listener,
        /// TCP that was bound, and neither listens nor is connected.
        Bound,
        /// This end of a connection that was made from here.
        Outgoing,
        /// The same, as far as the ports tell.
        LikelyOutgoing,
        /// A connection to here that was accepted, as far as the ports tell.
        LikelyAccepted,
        /// A connection of which it is not known who made it.
        Connection,
        /// UDP with a peer.
        ConnectedUdp,
        /// A connection that has ended, and that the kernel remembers for a while.
        TimeWait,
        /// A connection that its process has closed, and whose end the kernel waits for.
        Closing,
        /// A connection that is being made, or that nobody has accepted.
        Unaccepted,
    }
}

words! {
    /// Whether a certificate is valid.
    Validity = Validity {
        /// It is.
        Valid,
        /// No more.
        Expired,
        /// Not yet.
        NotYet,
    }
}

words! {
    /// A kind of event.
    EventKind = EventKind {
        /// TCP: a socket listens now.
        Listen,
        /// UDP: a socket was bound to a port.
        Bind,
        /// It listens no more, or was released.
        Close,
        /// TCP: a process connects to somewhere.
        Connect,
        /// TCP: a listener got a connection.
        Accept,
        /// A connection begins or ends that NAT changes.
        Nat,
        /// Packets were dropped or refused on their way to a port.
        Drop,
    }
}

words! {
    /// What became of packets.
    DropFate = DropFate {
        /// The kernel threw them away, without a word to the sender.
        Dropped,
        /// A TCP reset was sent.
        Reset,
        /// An ICMP error was sent.
        Icmp,
        /// The accept queue of the listener was full, and the kernel did not take them.
        QueueFull,
    }
}

words! {
    /// How an event is known.
    SeenBy = SeenBy {
        /// A program in the kernel saw it when it happened.
        Ebpf,
        /// Conntrack told of it when it happened.
        Conntrack,
        /// Two readings of the node differ: it happened between them.
        Comparison,
    }
}

/// Where something was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceCode {
    /// A table of sockets.
    SocketTable,
    /// Descriptors of a process.
    Descriptors,
    /// Arguments of a process.
    CommandLine,
    /// A process: whose program it runs.
    Process,
    /// The cgroup of a process.
    Cgroup,
    /// The cgroup that a socket was made in.
    SocketCgroup,
    /// Which processes are in a namespace.
    NamespaceMembers,
    /// Labels of a container.
    ContainerLabel,
    /// The path of a container's cgroup.
    CgroupPath,
    /// Docker's API, of a container.
    DockerApi,
    /// Podman's API, of a container.
    PodmanApi,
    /// The Container Runtime Interface, of a container.
    Cri,
    /// A file of a container's runtime.
    StateFile,
    /// The arguments of conmon, which watches over a container.
    Conmon,
    /// The API of a forwarder: rootlesskit's, slirp4netns's.
    Forwarder,
    /// Another runtime of a container.
    Runtime,
    /// Interfaces, addresses and routes.
    Rtnetlink,
    /// What says that the kernel itself holds a port: `genetlink wireguard`, a file.
    KernelPort,
    /// Packet rules.
    PacketRules,
    /// IPVS.
    Ipvs,
    /// Maps of Cilium.
    Cilium,
    /// Connections that conntrack knows.
    Conntrack,
    /// Connections that were seen to be made.
    ObservedConnects,
    /// Packets that were seen to be dropped.
    ObservedDrops,
    /// A Kubernetes API.
    KubernetesApi,
    /// A TLS handshake with a listener.
    TlsHandshake,
}

impl From<&model::EvidenceSource> for EvidenceCode {
    fn from(source: &model::EvidenceSource) -> Self {
        match source {
            model::EvidenceSource::SocketTable => Self::SocketTable,
            model::EvidenceSource::Descriptors => Self::Descriptors,
            model::EvidenceSource::CommandLine => Self::CommandLine,
            model::EvidenceSource::Process => Self::Process,
            model::EvidenceSource::Cgroup => Self::Cgroup,
            model::EvidenceSource::SocketCgroup => Self::SocketCgroup,
            model::EvidenceSource::NamespaceMembers => Self::NamespaceMembers,
            model::EvidenceSource::ContainerLabel => Self::ContainerLabel,
            model::EvidenceSource::Told(model::Teller::CgroupPath) => Self::CgroupPath,
            model::EvidenceSource::Told(model::Teller::DockerApi) => Self::DockerApi,
            model::EvidenceSource::Told(model::Teller::PodmanApi) => Self::PodmanApi,
            model::EvidenceSource::Told(model::Teller::Cri) => Self::Cri,
            model::EvidenceSource::Told(model::Teller::StateFile) => Self::StateFile,
            model::EvidenceSource::Told(model::Teller::Conmon) => Self::Conmon,
            model::EvidenceSource::Told(model::Teller::Forwarder) => Self::Forwarder,
            model::EvidenceSource::Told(model::Teller::Other) => Self::Runtime,
            model::EvidenceSource::Rtnetlink => Self::Rtnetlink,
            model::EvidenceSource::KernelPort(_) => Self::KernelPort,
            model::EvidenceSource::PacketRules => Self::PacketRules,
            model::EvidenceSource::Ipvs => Self::Ipvs,
            model::EvidenceSource::Cilium => Self::Cilium,
            model::EvidenceSource::Conntrack => Self::Conntrack,
            model::EvidenceSource::ObservedConnects => Self::ObservedConnects,
            model::EvidenceSource::ObservedDrops => Self::ObservedDrops,
            model::EvidenceSource::KubernetesApi => Self::KubernetesApi,
            model::EvidenceSource::TlsHandshake => Self::TlsHandshake,
        }
    }
}

words! {
    /// A kind of object that routes by name.
    NameKind = NameKind {
        /// Ingress.
        Ingress,
        /// HTTPRoute, of the Gateway API.
        HttpRoute,
        /// IngressRoute, of Traefik.
        IngressRoute,
        /// VirtualService, of Istio.
        VirtualService,
    }
}

words! {
    /// How a path is compared.
    PathCompare = PathCompare {
        /// What begins with it.
        Prefix,
        /// It alone.
        Exact,
        /// A regular expression.
        Regex,
        /// As the controller likes.
        Controller,
    }
}

words! {
    /// How it is known that a controller serves an object.
    Serves = Serves {
        /// The object's status has an address of a Service that leads here.
        Address,
        /// Its class is for the controller that the program here is.
        Class,
        /// Pod or Service were made for its Gateway.
        Gateway,
        /// Its Gateway selects the pod.
        Selector,
    }
}

words! {
    /// The kinds of things that an audit finds.
    AuditCode = AuditCode {
        /// The policy does not allow it.
        NotAllowed,
        /// The firewall of the node would stop it, but rules translate it before.
        PublishedPastFirewall,
        /// Open by IPv6, where a rule stops IPv4.
        Ipv6Open,
        /// The API of Docker is open to other machines.
        DockerApiOpen,
        /// etcd is open to other machines.
        EtcdOpen,
        /// A database or cache is open to other machines.
        DatabaseOpen,
        /// The API of a kubelet is open to other machines.
        KubeletOpen,
        /// A dashboard or console is open to other machines.
        DashboardOpen,
        /// Nothing publishes it, and other machines get to it by a route over this node.
        OpenByRoute,
        /// Bound to all addresses, and no rule stops other machines at this port or at others.
        NoFirewall,
        /// A NodePort that is taken at every address.
        NodePortEverywhere,
        /// Nothing holds a port that a profile requires.
        RequiredMissing,
        /// Something else holds it.
        RequiredHeldByOther,
        /// The right component holds it, and other machines do not get to it.
        RequiredUnreachable,
    }
}

words! {
    /// How bad a finding is.
    Level = Level {
        /// It is not as it was meant to be.
        Error,
        /// It may not be.
        Warning,
        /// Worth knowing.
        Note,
    }
}

words! {
    /// How it is with a port that a profile asks for.
    CheckState = CheckState {
        /// As it should be.
        Met,
        /// Nothing holds it, and it is not required.
        Unused,
        /// Nothing holds it.
        Missing,
        /// Something else holds it.
        HeldByOther,
        /// It can't be reached.
        Unreachable,
        /// It can't be reached, and only clusters that the node does not show to be one need that.
        Closed,
        /// It is not known.
        Unknown,
    }
}

words! {
    /// What kind of name an owner is known by.
    OwnerKind = OwnerKind {
        /// A Service of Kubernetes, `namespace/name`.
        Service,
        /// A pod, `namespace/name`.
        Pod,
        /// A container.
        Container,
        /// A part of Kubernetes, proven by its program and arguments.
        Component,
        /// A process, by its name. Only of programs that nobody but root can have written.
        Process,
        /// The kernel itself, by its device.
        Kernel,
        /// A unit of systemd.
        Unit,
        /// The image of a container.
        Image,
        /// The user that a process runs as, by name or number.
        User,
    }
}

words! {
    /// What kind of change.
    ChangeKind = ChangeKind {
        /// The port was not there before.
        Came,
        /// It is not there any more.
        Went,
        /// Somebody else has it.
        Owner,
        /// It is bound or taken at other addresses.
        Address,
        /// It is taken by other rules, or they lead elsewhere.
        Way,
        /// Others get to it.
        Reach,
        /// The same owner was started anew. No difference, but worth a word.
        Restarted,
    }
}
