//! The API of a k3s server: etcd, API server and endpoint controllers of Kubernetes 1.20 in a
//! network namespace of their own, where the node does not see them. What stands in for the
//! process of k3s carries connections to its port 6443 there.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::control::{Control, node_status, pod_status, program};
use crate::netns::Netns;
use crate::node::Lab;
use crate::process::Proc;
use crate::waiting;

/// How long anything may take to become ready.
const PATIENCE: Duration = Duration::from_secs(90);

/// The API, in a lab.
#[derive(Debug)]
pub struct K3sApi<'a> {
    processes: Vec<(&'static str, Proc)>,
    lab: &'a Lab,
    netns: Netns,
    control: Control,
}

/// A pod that the API is told of.
#[derive(Debug, Clone, Copy)]
pub struct K3sPod<'a> {
    /// Its Kubernetes namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its only label: key and value.
    pub label: (&'a str, &'a str),
    /// What made it: `ReplicaSet` or `DaemonSet`, and its name.
    pub owner: (&'a str, &'a str),
    /// The node it is on.
    pub node: &'a str,
    /// Its address.
    pub address: &'a str,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Its containers.
    pub containers: &'a [K3sContainer<'a>],
}

/// A container of such a pod.
#[derive(Debug, Clone, Copy)]
pub struct K3sContainer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its image.
    pub image: &'a str,
    /// The name and number of its port, if it declares one.
    pub port: Option<(&'a str, u16)>,
    /// Its id in the runtime.
    pub id: &'a str,
}

impl<'a> K3sApi<'a> {
    /// Makes the namespace, the certificates and the administrator's kubeconfig. Nothing runs
    /// before [`K3sApi::serve`].
    ///
    /// # Errors
    /// When one of them can't be made.
    pub fn new(lab: &'a Lab, address: &str) -> Result<Self> {
        let dir = lab.dir().join("k3s");
        std::fs::create_dir_all(&dir)?;
        let control = Control::new(dir)?;
        let names = ["127.0.0.1", address, "10.43.0.1", "localhost"];
        control.certificate("server", "kube-apiserver", "", &names)?;
        // k3s calls cluster, user and context the same.
        control.administer("default", "default", "https://127.0.0.1:6443")?;
        std::fs::copy(control.kubeconfig(), lab.dir().join("kubeconfig"))?;
        let netns = lab.netns("k3s-api")?;
        Ok(Self { processes: Vec::new(), lab, netns, control })
    }

    /// The namespace that it runs in.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The administrator's kubeconfig, with the one context `default`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.lab.dir().join("kubeconfig")
    }

    /// Starts everything, and waits until the API answers on the node's port 6443: whoever
    /// carries connections from there has to run.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn serve(&mut self, address: &str) -> Result<()> {
        let path = |name: &str| self.control.dir().join(name).display().to_string();
        let etcd = format!("etcd --data-dir={} --unsafe-no-fsync", path("etcd"));
        let api = format!(
            "{} --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --insecure-port=0 \
             --advertise-address={address} --tls-cert-file={crt} --tls-private-key-file={key} \
             --client-ca-file={ca} --service-account-key-file={crt} \
             --service-account-signing-key-file={key} \
             --service-account-issuer=https://kubernetes.default.svc.cluster.local \
             --service-cluster-ip-range=10.43.0.0/16 --service-node-port-range=20000-39999 \
             --authorization-mode=Node,RBAC --disable-admission-plugins=ServiceAccount",
            program("kube-apiserver")?.display(),
            crt = path("server.crt"),
            key = path("server.key"),
            ca = path("ca.crt"),
        );
        let manager = format!(
            "{} --kubeconfig={} --leader-elect=false --port=0 \
             --controllers=endpoint,endpointslice,namespace",
            program("kube-controller-manager")?.display(),
            path("admin.conf"),
        );
        self.run("etcd", &etcd)?;
        self.run("kube-apiserver", &api)?;
        self.wait("the API", |api| {
            api.control.kubectl(api.lab, &["get", "--raw", "/readyz"]).map(drop)
        })?;
        self.run("kube-controller-manager", &manager)
    }

    fn run(&mut self, name: &'static str, argv: &str) -> Result<()> {
        let argv: Vec<&str> = argv.split_whitespace().collect();
        let log = File::create(self.control.dir().join(format!("{name}.log")))?;
        let mut command = self.lab.command(&self.netns, &argv)?;
        command.current_dir(self.control.dir()).stdout(Stdio::null()).stderr(log);
        let process = Proc::started(command.spawn().with_context(|| format!("starting {name}"))?);
        self.processes.push((name, process));
        Ok(())
    }

    fn wait(&self, what: &str, ready: impl Fn(&Self) -> Result<()>) -> Result<()> {
        let names = || self.processes.iter().map(|(name, _)| *name);
        let logs = || waiting::last_lines(self.control.dir(), names());
        waiting::until(what, PATIENCE, || ready(self), logs)
    }

    /// Tells of a node, of which `roles` are those that k3s labels it with.
    ///
    /// # Errors
    /// When the API refuses it.
    pub fn node(&self, name: &str, address: &str, roles: &[&str]) -> Result<()> {
        let mut labels = json!({
            "kubernetes.io/hostname": name, "node.kubernetes.io/instance-type": "k3s",
        });
        for role in roles {
            labels[format!("node-role.kubernetes.io/{role}")] = json!("true");
        }
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
            "spec": {"providerID": format!("k3s://{name}")},
        }))?;
        let mut status = node_status(address);
        status["nodeInfo"]["kubeletVersion"] = json!("v1.28.1+k3s1");
        status["nodeInfo"]["kubeProxyVersion"] = json!("v1.28.1+k3s1");
        self.control.set_status(self.lab, &format!("/api/v1/nodes/{name}"), &status)
    }

    /// Tells of a pod that runs, and gives its UID.
    ///
    /// # Errors
    /// When the API refuses it.
    pub fn pod(&self, pod: &K3sPod<'_>) -> Result<String> {
        let containers = pod.containers.iter().map(|container| {
            let ports = container
                .port
                .map(|(name, port)| json!({"name": name, "containerPort": port}))
                .map_or_else(Vec::new, |port| vec![port]);
            json!({"name": container.name, "image": container.image, "ports": ports})
        });
        let (kind, owner) = pod.owner;
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": pod.name, "namespace": pod.namespace,
                "labels": {pod.label.0: pod.label.1},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": kind, "name": owner, "controller": true,
                    "uid": "00000000-0000-4000-8000-000000000001",
                }],
            },
            "spec": {
                "nodeName": pod.node, "hostNetwork": pod.host_network,
                "containers": containers.collect::<Vec<_>>(),
            },
        }))?;
        let mut status = json!(null);
        for container in pod.containers {
            let mut one = pod_status(pod.address, container.name, container.id, true);
            one["containerStatuses"][0]["image"] = json!(container.image);
            if status.is_null() {
                status = one;
            } else if let Some(all) = status["containerStatuses"].as_array_mut() {
                all.push(one["containerStatuses"][0].clone());
            }
        }
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name);
        self.control.set_status(self.lab, &path, &status)?;
        let object = self.control.get(self.lab, &path)?;
        Ok(object["metadata"]["uid"].as_str().context("no uid")?.to_owned())
    }

    /// Makes a Service, and waits until its EndpointSlices have `endpoints` endpoints.
    ///
    /// # Errors
    /// When the API refuses it, or has no endpoints after a while.
    pub fn service(
        &self,
        namespace: &str,
        name: &str,
        spec: &Value,
        endpoints: usize,
    ) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        }))?;
        let path = format!(
            "/apis/discovery.k8s.io/v1beta1/namespaces/{namespace}/endpointslices\
             ?labelSelector=kubernetes.io/service-name={name}"
        );
        self.wait(&format!("the endpoints of {name}"), |api| {
            let slices = api.control.get(api.lab, &path)?;
            let found = slices["items"][0]["endpoints"].as_array().map_or(0, Vec::len);
            ensure!(found == endpoints, "{found} instead of {endpoints}");
            Ok(())
        })
    }

    fn apply(&self, object: &Value) -> Result<()> {
        self.control.apply(self.lab, object)
    }
}
