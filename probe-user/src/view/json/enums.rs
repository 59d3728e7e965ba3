//! The words of the JSON documents that have a fixed set of values.

use schemars::JsonSchema;
use serde::Serialize;

use crate::model;

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
    }
}

words! {
    /// What a socket on a port does there.
    SocketState = SocketState {
        /// TCP in state LISTEN.
        Listen,
        /// UDP, bound and not connected.
        Unconnected,
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
