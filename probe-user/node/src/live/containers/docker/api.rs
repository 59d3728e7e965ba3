//! What Docker's API says, as far as it is asked for: its own names, as in its reference
//! (<https://docs.docker.com/reference/api/engine/>), and those of Docker's state files, which
//! have the same form. What is missing there, and what Podman leaves out, is `None`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// A version of the API: `1.44`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct ApiVersion(pub(super) u32, pub(super) u32);

impl ApiVersion {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// `/version`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct SystemVersion {
    pub(super) api_version: Option<String>,
    pub(super) components: Option<Vec<SystemComponent>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct SystemComponent {
    pub(super) name: String,
}

/// `/containers/ID/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in super::super) struct ContainerInspect {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) state: Option<InspectedState>,
    pub(super) config: Option<ContainerConfig>,
    pub(super) network_settings: Option<NetworkSettings>,
    pub(super) host_config: Option<InspectedHost>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct InspectedState {
    /// `created`, `running`, `exited`.
    pub(super) status: Option<String>,
    pub(super) pid: Option<i64>,
}

/// What a container is made from.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in super::super) struct ContainerConfig {
    pub(super) image: Option<String>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    /// By `80/tcp`.
    pub(super) exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct InspectedHost {
    pub(super) network_mode: Option<String>,
    pub(super) port_bindings: Option<PortMap>,
}

/// What is published of each port: by `80/tcp`.
pub(super) type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

/// An address and a port of the host, in text.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct PortBinding {
    pub(super) host_ip: Option<String>,
    pub(super) host_port: Option<String>,
}

/// How a container is connected.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in super::super) struct NetworkSettings {
    pub(super) ports: Option<PortMap>,
    pub(super) networks: Option<BTreeMap<String, EndpointSettings>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EndpointSettings {
    #[serde(rename = "IPAddress")]
    pub(super) ip_address: Option<String>,
    #[serde(rename = "GlobalIPv6Address")]
    pub(super) global_ipv6_address: Option<String>,
}

/// One of `/containers/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in super::super) struct ContainerSummary {
    pub(in super::super) id: Option<String>,
    pub(super) names: Option<Vec<String>>,
    pub(super) image: Option<String>,
    pub(in super::super) ports: Option<Vec<PortSummary>>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) host_config: Option<InspectedHost>,
    pub(super) network_settings: Option<NetworkSettings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in super::super) struct PortSummary {
    #[serde(rename = "IP")]
    pub(super) ip: Option<String>,
    pub(super) private_port: u16,
    pub(in super::super) public_port: Option<u16>,
    #[serde(rename = "Type")]
    pub(super) proto: Option<String>,
}

/// One of `/networks`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in super::super) struct DockerNetwork {
    pub(in super::super) name: Option<String>,
    pub(in super::super) driver: Option<String>,
    pub(in super::super) internal: Option<bool>,
}

/// What comes instead of an answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    pub(super) message: String,
}
