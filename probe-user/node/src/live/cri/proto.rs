//! The messages of the Container Runtime Interface that are asked and answered,
//! with the fields that are used. `runtime.v1` and `runtime.v1alpha2` number
//! them alike.
//!
//! Lists come as bytes, to be parsed one by one: a hostile runtime could else
//! make a few megabytes of empty entries take gigabytes of memory.

use std::collections::HashMap;

use prost::Message;
use prost::bytes::Bytes;

/// Question of `ListContainers`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListContainersRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) filter: Option<Filter>,
}

/// Question of `ListPodSandbox`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) filter: Option<Filter>,
}

/// `ContainerFilter` and `PodSandboxFilter`, as far as they are alike.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Filter {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

/// Answer of `ListContainers` and of `ListPodSandbox`: each item a
/// [`Container`] or a [`PodSandbox`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListResponse {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) items: Vec<Bytes>,
}

/// A container in a list.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Container {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    pub(super) metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    pub(super) image: Option<ImageSpec>,
    #[prost(map = "string, string", tag = "8")]
    pub(super) labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "9")]
    pub(super) annotations: HashMap<String, String>,
}

/// How a pod names one of its containers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

/// An image.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ImageSpec {
    #[prost(string, tag = "1")]
    pub(super) image: String,
    /// As the pod's specification names it; since Kubernetes 1.29.
    #[prost(string, tag = "18")]
    pub(super) user_specified_image: String,
}

/// Question of `ContainerStatus`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerStatusRequest {
    #[prost(string, tag = "1")]
    pub(super) container_id: String,
}

/// Answer of `ContainerStatus`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<ContainerStatus>,
}

/// One container in detail.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerStatus {
    #[prost(message, optional, tag = "8")]
    pub(super) image: Option<ImageSpec>,
}

/// A pod in a list.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandbox {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<PodSandboxMetadata>,
    #[prost(map = "string, string", tag = "5")]
    pub(super) labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "6")]
    pub(super) annotations: HashMap<String, String>,
}

/// How the kubelet names a pod.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
}

/// Question of `PodSandboxStatus`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxStatusRequest {
    #[prost(string, tag = "1")]
    pub(super) pod_sandbox_id: String,
    #[prost(bool, tag = "2")]
    pub(super) verbose: bool,
}

/// Answer of `PodSandboxStatus`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<PodSandboxStatus>,
    /// With `verbose`: what the runtime likes to tell, JSON under `info`.
    #[prost(map = "string, string", tag = "2")]
    pub(super) info: HashMap<String, String>,
}

/// One pod in detail: the part that the list does not have.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxStatus {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "5")]
    pub(super) network: Option<PodSandboxNetworkStatus>,
    #[prost(message, optional, tag = "6")]
    pub(super) linux: Option<LinuxPodSandboxStatus>,
}

/// A pod's addresses.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxNetworkStatus {
    #[prost(string, tag = "1")]
    pub(super) ip: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) additional_ips: Vec<PodIp>,
}

/// One more address.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodIp {
    #[prost(string, tag = "1")]
    pub(super) ip: String,
}

/// What is Linux's of a pod.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LinuxPodSandboxStatus {
    #[prost(message, optional, tag = "1")]
    pub(super) namespaces: Option<Namespace>,
}

/// A pod's namespaces.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Namespace {
    #[prost(message, optional, tag = "2")]
    pub(super) options: Option<NamespaceOption>,
}

/// Whose namespaces a pod uses.
#[derive(Clone, PartialEq, Message)]
pub(super) struct NamespaceOption {
    /// [`POD`] or [`NODE`].
    #[prost(int32, tag = "1")]
    pub(super) network: i32,
}

/// `NamespaceMode`: a namespace of the pod's own.
pub(super) const POD: i32 = 0;
/// `NamespaceMode`: the node's namespace.
pub(super) const NODE: i32 = 2;
