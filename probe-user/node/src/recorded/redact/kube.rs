//! Replacing the names in what Kubernetes APIs said.

use std::collections::BTreeMap;

use super::super::names::{PseudonymKind, Pseudonyms};
use super::super::{RecordedFact, RecordedFacts};
use super::{replace, replace_some};
use whereis_port_model::{
    ContextId, KubeAsk, KubeContext, KubeEndpoints, KubeNames, KubeNode, KubeObjects, KubePod,
    KubeService, KubeWish, ObjectName,
};

/// Directories of the kubeconfig files that distributions write: they tell nothing of anybody,
/// and that the cluster is this node's own.
const USUAL: [&str; 5] =
    ["/etc/kubernetes/", "/etc/rancher/", "/var/lib/k0s/", "/var/snap/microk8s/", "/var/run/"];

impl Pseudonyms {
    pub(super) fn kube(&mut self, facts: &mut RecordedFacts) {
        for context in facts.kube_contexts.iter_mut().flat_map(|read| &mut read.value) {
            self.context(context);
        }
        for RecordedFact { asked: KubeAsk { context, wish }, read } in facts.kube.iter_mut() {
            self.context_id(context);
            self.wish(wish);
            self.objects(&mut read.value);
        }
    }

    fn context(&mut self, context: &mut KubeContext) {
        replace(&mut context.cluster, |name| self.cluster_name(name));
        replace(&mut context.name, |name| self.cluster_name(name));
        replace(&mut context.file, |file| self.kubeconfig(file));
        replace(&mut context.server, |server| self.url(server));
        replace_some(&mut context.namespace, |name| {
            self.kubernetes_name(PseudonymKind::Namespace, name)
        });
        replace_some(&mut context.ca, |ca| self.name(PseudonymKind::Value, ca));
    }

    fn context_id(&mut self, id: &mut ContextId) {
        replace(&mut id.name, |name| self.cluster_name(name));
        replace(&mut id.file, |file| self.kubeconfig(file));
    }

    /// A cluster's name; what a tool puts before it says which tool it is of.
    fn cluster_name(&mut self, name: &str) -> String {
        if matches!(name, "default" | "in-cluster" | "microk8s" | "minikube" | "kubernetes") {
            return name.to_owned();
        }
        let prefix = ["kind-", "k3d-", "admin@"].into_iter().find(|p| name.starts_with(p));
        let (prefix, rest) = name.split_at(prefix.map_or(0, str::len));
        format!("{prefix}{}", self.name(PseudonymKind::Cluster, rest))
    }

    fn kubeconfig(&mut self, file: &str) -> String {
        let usual = USUAL.iter().any(|start| file.starts_with(start));
        if usual { file.to_owned() } else { self.path(file) }
    }

    /// The scheme and port of a URL stay.
    fn url(&mut self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, Some(port)),
            _ => (authority, None),
        };
        let bare = host.trim_matches(['[', ']']);
        let replaced = self.host(bare);
        let replaced = if host == bare { replaced } else { format!("[{replaced}]") };
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        format!("{scheme}://{replaced}{port}")
    }

    fn wish(&mut self, wish: &mut KubeWish) {
        match wish {
            KubeWish::Services | KubeWish::Nodes | KubeWish::ByName(_) => {}
            KubeWish::Service(name) | KubeWish::Endpoints(name) => self.object(name),
            KubeWish::Pod(name) => self.pod_name(name),
            KubeWish::PodsAt(address) => *address = self.ip(*address),
            KubeWish::PodsOn(node) | KubeWish::Node(node) => {
                replace(node, |node| self.name(PseudonymKind::Host, node));
            }
            KubeWish::PodsWith { namespace, labels } => {
                replace(namespace, |name| self.kubernetes_name(PseudonymKind::Namespace, name));
                self.labels(labels);
            }
        }
    }

    fn object(&mut self, name: &mut ObjectName) {
        replace(&mut name.namespace, |name| self.kubernetes_name(PseudonymKind::Namespace, name));
        replace(&mut name.name, |name| self.kubernetes_name(PseudonymKind::Name, name));
    }

    fn pod_name(&mut self, name: &mut ObjectName) {
        replace(&mut name.namespace, |name| self.kubernetes_name(PseudonymKind::Namespace, name));
        replace(&mut name.name, |name| self.name(PseudonymKind::Pod, name));
    }

    fn objects(&mut self, objects: &mut KubeObjects) {
        objects.nodes.iter_mut().for_each(|node| self.node(node));
        objects.services.iter_mut().for_each(|service| self.service(service));
        objects.endpoints.iter_mut().for_each(|slice| self.endpoints(slice));
        objects.pods.iter_mut().for_each(|pod| self.kube_pod(pod));
        for class in &mut objects.classes {
            replace(&mut class.name, |name| self.kubernetes_name(PseudonymKind::Name, name));
        }
        for gateway in &mut objects.gateways {
            self.object(&mut gateway.name);
            replace_some(&mut gateway.class, |name| {
                self.kubernetes_name(PseudonymKind::Name, name)
            });
            self.labels(&mut gateway.selector);
            gateway.hosts.iter_mut().for_each(|host| replace(host, |host| self.host(host)));
        }
        objects.names.iter_mut().for_each(|names| self.routed_names(names));
    }

    fn routed_names(&mut self, names: &mut KubeNames) {
        self.object(&mut names.name);
        replace_some(&mut names.class, |name| self.kubernetes_name(PseudonymKind::Name, name));
        for gateway in names.gateways.iter_mut().chain(&mut names.refused) {
            self.object(gateway);
        }
        names.addresses.iter_mut().for_each(|address| *address = self.ip(*address));
        for rule in &mut names.rules {
            replace_some(&mut rule.host, |host| self.host(host));
            replace_some(&mut rule.path, |path| self.path(path));
            replace_some(&mut rule.matches, |words| self.name(PseudonymKind::Value, words));
            for target in &mut rule.to {
                self.object(&mut target.service);
                self.port_name(&mut target.port);
            }
        }
    }

    fn node(&mut self, node: &mut KubeNode) {
        replace(&mut node.name, |name| self.name(PseudonymKind::Host, name));
        node.addresses.iter_mut().for_each(|address| *address = self.ip(*address));
        for role in &mut node.roles {
            if !matches!(role.as_str(), "etcd" | "master") {
                replace(role, |role| self.label_value("", role));
            }
        }
        replace_some(&mut node.provider_id, |id| {
            let (scheme, rest) = id.split_once("://").unwrap_or(("", id));
            let parts: Vec<_> =
                rest.split('/').map(|p| self.component(PseudonymKind::Name, p)).collect();
            format!("{scheme}://{}", parts.join("/"))
        });
    }

    fn service(&mut self, service: &mut KubeService) {
        self.object(&mut service.name);
        let addresses = service.cluster_ips.iter_mut().chain(&mut service.external_ips);
        for address in addresses.chain(&mut service.load_balancer_ips) {
            *address = self.ip(*address);
        }
        for port in &mut service.ports {
            self.port_name(&mut port.name);
            replace(&mut port.target, |target| self.kubernetes_name(PseudonymKind::Name, target));
        }
        self.labels(&mut service.selector);
        replace_some(&mut service.external_name, |name| self.host(name));
        replace_some(&mut service.gateway, |name| self.kubernetes_name(PseudonymKind::Name, name));
    }

    fn endpoints(&mut self, slice: &mut KubeEndpoints) {
        self.object(&mut slice.service);
        slice.ports.iter_mut().for_each(|port| self.port_name(&mut port.name));
        for endpoint in &mut slice.endpoints {
            endpoint.addresses.iter_mut().for_each(|address| *address = self.ip(*address));
            replace_some(&mut endpoint.node, |node| self.name(PseudonymKind::Host, node));
            replace_some(&mut endpoint.zone, |zone| self.name(PseudonymKind::Value, zone));
            if let Some(pod) = &mut endpoint.pod {
                self.pod_name(pod);
            }
        }
    }

    fn kube_pod(&mut self, pod: &mut KubePod) {
        self.pod_name(&mut pod.name);
        replace(&mut pod.uid, |uid| self.name(PseudonymKind::Pod, uid));
        replace_some(&mut pod.config_hash, |hash| self.name(PseudonymKind::Pod, hash));
        replace_some(&mut pod.node, |node| self.name(PseudonymKind::Host, node));
        pod.ips.iter_mut().for_each(|address| *address = self.ip(*address));
        self.labels(&mut pod.labels);
        // Words in which names of nodes and labels may be.
        replace_some(&mut pod.unscheduled, |why| self.name(PseudonymKind::Value, why));
        replace_some(&mut pod.owner, |owner| match owner.split_once('/') {
            Some((kind, name)) => {
                let plain = kind.bytes().all(|b| b.is_ascii_alphabetic());
                let kind = if plain { kind } else { "Owner" };
                format!("{kind}/{}", self.name(PseudonymKind::Name, name))
            }
            None => self.name(PseudonymKind::Name, owner),
        });
        for container in &mut pod.containers {
            replace(&mut container.name, |name| {
                self.kubernetes_name(PseudonymKind::Container, name)
            });
            replace_some(&mut container.id, |id| self.name(PseudonymKind::Container, id));
            replace_some(&mut container.image, |image| self.name(PseudonymKind::Image, image));
            replace_some(&mut container.probe, |probe| self.name(PseudonymKind::Value, probe));
            for port in &mut container.ports {
                self.port_name(&mut port.name);
                port.host_ip = port.host_ip.map(|address| self.ip(address));
            }
        }
    }

    fn port_name(&mut self, name: &mut Option<String>) {
        replace_some(name, |name| self.kubernetes_name(PseudonymKind::Name, name));
    }

    fn labels(&mut self, labels: &mut BTreeMap<String, String>) {
        let old = std::mem::take(labels);
        *labels = old
            .iter()
            .map(|(label, value)| (self.label(label), self.label_value(label, value)))
            .collect();
    }
}
