//! What `audit` takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// The help behind the options of `audit`.
pub(super) const HELP: &str = "\
Each port of this node is tried from everybody who may send to it: other machines by each device,
containers and pods, processes of this node, loopback. It is the same simulation that answers a
question about one port, over rules, routes and balancers; nothing is sent. Without --policy the
findings are what is usually not meant to be open. With one, whatever is open and not allowed is a
finding. What could not be evaluated is never called open: it is said, and makes the status 3.

A policy is TOML. A rule allows what all its lines hold for; a line that is missing holds for all:

  senders = [\"outside\", \"containers\"]  # who is judged; without this line everybody
  [[allow]]
  from = [\"outside:eth0\"]       # outside, containers (with :DEVICE or :NETNS), node, loopback
  ports = [\"22/tcp\", \"8000-8010\"]
  address = [\"10.0.0.0/8\"]      # what is connected to
  owner = [\"process:sshd\", \"pod:shop/cart-*\"]  # service, pod, container, component, process,
                                # kernel, unit, image, user; * stands for anything
  reason = \"administrators\"

Examples:
  whereis-port audit                             what others can reach, and what of it is odd
  whereis-port audit --senders outside           other machines only
  whereis-port audit --generate-policy > open.toml   all that is open now, as a policy
  whereis-port audit --policy open.toml          what is open beyond that; for a timer or CI
  whereis-port audit --policy open.toml -o sarif > audit.sarif
  whereis-port audit --profile                   has this node open what its cluster needs?
  whereis-port audit --profile kubeadm-worker    the same for a node that is going to be one
  whereis-port --replay node.json audit          of a recorded node

Exit status:
  0  nothing found, and all that decides could be read
  1  there are findings            2  bad usage, or a policy or profile that is wrong
  3  no findings, but something that decides could not be read or evaluated (it is said what)
  4  the tool itself failed";

/// What to audit, and how to show it.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// What may be open; everything else that is open is a finding
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Check the ports that this node has to offer: k3s-server, k3s-agent, rke2, rke2-agent,
    /// kubeadm-control-plane, kubeadm-worker, cilium, flannel-vxlan, flannel-wireguard, calico,
    /// docker-swarm, or a file of profiles; without a name those of the components that run here
    #[arg(
        long,
        value_name = "NAME|FILE",
        num_args = 0..=1,
        default_missing_value = "",
    )]
    pub profile: Option<Vec<String>>,
    /// Write all that is open now as a policy, in place of findings
    #[arg(long, conflicts_with_all = ["policy", "profile", "output"])]
    pub generate_policy: bool,
    /// Only these senders, with commas between them: outside, containers, node, loopback
    #[arg(long, value_name = "SENDER,...", value_delimiter = ',')]
    pub senders: Vec<AuditSender>,
    /// Only ports of this network namespace, by name or inode number
    #[arg(long, value_name = "NETNS")]
    pub netns: Option<String>,
    /// The form of the output; a table when nothing is said
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<AuditOutput>,
    /// Try every port by itself, also those that nothing on the way tells apart from others
    #[arg(long)]
    pub every: bool,
}

/// A class of senders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditSender {
    /// Other machines
    Outside,
    /// Containers and pods of this node
    Containers,
    /// Processes of this node, to its addresses
    Node,
    /// Processes of this node, to 127.0.0.1 and ::1
    Loopback,
}

/// The form of an audit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum AuditOutput {
    /// For people
    #[default]
    Table,
    /// JSON
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// JUnit XML, for test reports
    Junit,
    /// Markdown, for issues and reports
    Markdown,
}
