//! How something is known, and who told of a container.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How one statement of an answer is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// The source.
    pub source: EvidenceSource,
    /// What exactly was seen there, untrusted where it quotes.
    pub detail: String,
}

impl Evidence {
    /// Evidence from `source`, saying `detail`.
    pub fn new(source: EvidenceSource, detail: impl Into<String>) -> Self {
        Self { source, detail: detail.into() }
    }
}

/// Where something was seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EvidenceSource {
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
    /// Who told of a container.
    Told(Teller),
    /// Interfaces, addresses and routes.
    Rtnetlink,
    /// What says that the kernel itself holds a port: `genetlink wireguard`, a file.
    KernelPort(String),
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

impl EvidenceSource {
    /// In a user's words.
    pub fn as_str(&self) -> &str {
        match self {
            Self::SocketTable => "socket table",
            Self::Descriptors => "descriptors",
            Self::CommandLine => "command line",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::SocketCgroup => "socket's cgroup",
            Self::NamespaceMembers => "namespace members",
            Self::ContainerLabel => "container label",
            Self::Told(teller) => teller.as_str(),
            Self::Rtnetlink => "rtnetlink",
            Self::KernelPort(place) => place,
            Self::PacketRules => "packet rules",
            Self::Ipvs => "IPVS",
            Self::Cilium => "Cilium's maps",
            Self::Conntrack => "conntrack",
            Self::ObservedConnects => "observed connects",
            Self::ObservedDrops => "observed drops",
            Self::KubernetesApi => "Kubernetes API",
            Self::TlsHandshake => "TLS handshake",
        }
    }
}

/// Who told of a container, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "RecordedEvidence")]
pub struct ToldBy {
    /// Who.
    pub teller: Teller,
    /// Where: a socket's or file's path, with the container that it is in. Empty where it
    /// needs no place. Untrusted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
}

/// As recordings have it: in parts, or as a mere sentence, which nothing is decided by.
#[derive(Deserialize)]
#[serde(untagged)]
enum RecordedEvidence {
    Parts {
        teller: Teller,
        #[serde(default)]
        place: String,
    },
    Sentence(String),
}

impl From<RecordedEvidence> for ToldBy {
    fn from(recorded: RecordedEvidence) -> Self {
        match recorded {
            RecordedEvidence::Parts { teller, place } => Self { teller, place },
            RecordedEvidence::Sentence(place) => Self { teller: Teller::Other, place },
        }
    }
}

/// Who can tell of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Teller {
    /// Nobody but the path of its cgroup.
    #[default]
    CgroupPath,
    /// Docker's API.
    DockerApi,
    /// Podman's API.
    PodmanApi,
    /// The Container Runtime Interface.
    Cri,
    /// A file of its runtime.
    StateFile,
    /// The arguments of conmon, which watches over it.
    Conmon,
    /// The API of a forwarder: rootlesskit's, slirp4netns's.
    Forwarder,
    /// Somebody else.
    Other,
}

impl Teller {
    /// In a user's words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CgroupPath => "cgroup path",
            Self::DockerApi => "Docker API",
            Self::PodmanApi => "Podman API",
            Self::Cri => "CRI",
            Self::StateFile => "state file",
            Self::Conmon => "conmon's command line",
            Self::Forwarder => "forwarder's API",
            Self::Other => "container runtime",
        }
    }
}

impl fmt::Display for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ToldBy {
    /// The word of `teller` at `place`.
    pub fn new(teller: Teller, place: impl Into<String>) -> Self {
        Self { teller, place: place.into() }
    }

    /// A state file.
    pub fn file(path: &std::path::Path) -> Self {
        Self::new(Teller::StateFile, path.display().to_string())
    }

    /// Whether only the path of a cgroup that is seen here told.
    pub fn is_untold(&self) -> bool {
        *self == Self::default()
    }

    /// The same in a container, which `outer` names.
    #[must_use]
    pub fn inside(mut self, outer: &str) -> Self {
        let space = if self.place.is_empty() { "" } else { " " };
        self.place.push_str(&format!("{space}in {outer}"));
        self
    }

    /// Where exactly it was told, without who.
    pub fn at(&self) -> String {
        match self.teller {
            Teller::DockerApi | Teller::PodmanApi | Teller::Cri | Teller::StateFile
                if !self.place.is_empty() =>
            {
                self.place.clone()
            }
            _ => self.to_string(),
        }
    }
}

/// For people: `Docker API (/var/run/docker.sock)`, `state file /var/lib/…`.
impl fmt::Display for ToldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { teller, place } = self;
        match teller {
            Teller::Other if !place.is_empty() => f.write_str(place),
            _ if place.is_empty() => teller.fmt(f),
            Teller::DockerApi | Teller::PodmanApi | Teller::Cri => write!(f, "{teller} ({place})"),
            _ => write!(f, "{teller} {place}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_told_reads_as_a_sentence_and_comes_back_in_parts() {
        let docker = ToldBy::new(Teller::DockerApi, "/var/run/docker.sock");
        assert_eq!(docker.to_string(), "Docker API (/var/run/docker.sock)");
        assert_eq!(docker.at(), "/var/run/docker.sock");
        let json = serde_json::to_string(&docker).unwrap();
        assert_eq!(json, r#"{"teller":"docker_api","place":"/var/run/docker.sock"}"#);
        assert_eq!(serde_json::from_str::<ToldBy>(&json).unwrap(), docker);
        let file =
            ToldBy::file(std::path::Path::new("/run/c.json")).inside("container 5d1f8f6a0c8f");
        assert_eq!(file.to_string(), "state file /run/c.json in container 5d1f8f6a0c8f");
        assert_eq!(file.at(), "/run/c.json in container 5d1f8f6a0c8f");
        let conmon = ToldBy::new(Teller::Conmon, "");
        assert_eq!(
            (conmon.to_string(), conmon.at()),
            ("conmon's command line".into(), conmon.to_string())
        );
    }

    #[test]
    fn a_sentence_of_a_recording_is_nobodys_word() {
        let read: ToldBy = serde_json::from_str(r#""cgroup path""#).unwrap();
        assert_eq!((read.to_string().as_str(), read.is_untold()), ("cgroup path", false));
        assert!(ToldBy::default().is_untold());
    }
}
