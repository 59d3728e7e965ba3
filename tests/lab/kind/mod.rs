//! kind's clusters with what they are really made of: nodes that are containers of a real
//! Docker, and in each node etcd, API server, controllers and kube-proxy of Kubernetes 1.20.
//!
//! There is no kubelet and no containerd in the nodes: what stands in for them starts each
//! component as they would, in a PID namespace and a control group of its pod, and tells the
//! API about nodes and pods.

mod parts;
mod pods;

use std::fmt::Write as _;
use std::fs::File;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use pods::KindPod;

use crate::control::{Control, kube_programs};
use crate::docker::{Docker, KindNode};
use crate::process::Proc;
use crate::programs::checked;
use crate::waiting;

/// How long anything may take to become ready.
const PATIENCE: Duration = Duration::from_secs(45);
/// Where kind has certificates in its nodes.
const PKI: &str = "/etc/kubernetes/pki";

/// A Docker host with two kind clusters of one node each.
#[derive(Debug)]
pub struct Kinds {
    web: KindPod,
    hosted: KindPod,
    twin: KindPod,
    clusters: Vec<KindCluster>,
    docker: &'static Docker,
    _alone: File,
}

/// One cluster.
#[derive(Debug)]
pub struct KindCluster {
    /// Its name, as kind was told.
    pub name: &'static str,
    /// Its node's address on Docker's network.
    pub address: &'static str,
    /// The port of the host that leads to its API.
    pub port: u16,
    /// Its node.
    pub node: KindNode<'static>,
    control: Control,
    processes: Vec<Proc>,
}

impl Kinds {
    /// One host for all tests of this process; the lab's watcher removes it at the end.
    ///
    /// # Errors
    /// When it does not start, the same for every caller.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Kinds, String>> = OnceLock::new();
        let kinds = SHARED.get_or_init(|| Self::start().map_err(|error| format!("{error:#}")));
        kinds.as_ref().map_err(|error| anyhow!("{error}"))
    }

    fn start() -> Result<Self> {
        // Answers are about every namespace of the machine, and who asks for 30518 is to find
        // it once: one such host at a time. Any file that all of them have will do.
        let alone = File::open("/usr/lib/cni/portmap").context("opening CNI's portmap")?;
        alone.lock().context("waiting for other tests")?;
        let docker = Docker::shared()?;
        let host = docker.lab().host();
        host.ip(&["tuntap", "add", "dev", "eth0", "mode", "tap"])?;
        host.address("eth0", "192.168.1.20/24")?;
        host.ip(&["link", "set", "eth0", "up"])?;
        docker.network("kind", "172.18.0.0/16")?;
        let mut clusters = vec![
            KindCluster::new(docker, "cluster1", "172.18.0.2", 45381)?,
            KindCluster::new(docker, "cluster2", "172.18.0.4", 20971)?,
        ];
        // Both start at the same time, each waiting for itself.
        for cluster in &mut clusters {
            cluster.start_api()?;
        }
        for cluster in &mut clusters {
            cluster.join()?;
        }
        let [first, second] = clusters.as_slice() else { bail!("there are not two clusters") };
        let web = first.pod("nginx-app", 5, None)?;
        first.service("nginx-app", "10.96.5.127", 30518)?;
        let hosted = first.pod("hosted", 6, Some(8088))?;
        // Of the second all is the same but the NodePort: nets, addresses, names.
        let twin = second.pod("nginx-app", 5, None)?;
        second.service("nginx-app", "10.96.5.127", 30519)?;
        for cluster in [first, second] {
            cluster.wait_rules(&format!("--to-destination {}:80", web.address))?;
        }
        let kinds = Self { web, hosted, twin, clusters, docker, _alone: alone };
        kinds.write_kubeconfig()?;
        Ok(kinds)
    }

    /// The pod of the first cluster's Service `nginx-app`, on NodePort 30518.
    pub fn web(&self) -> &KindPod {
        &self.web
    }

    /// The pod of the second cluster's Service `nginx-app`, on NodePort 30519: it has the name and
    /// the address of the first one's.
    pub fn twin(&self) -> &KindPod {
        &self.twin
    }

    /// A pod of the first cluster with the hostPort 8088.
    pub fn hosted(&self) -> &KindPod {
        &self.hosted
    }

    /// The Docker that the nodes are containers of.
    pub fn docker(&self) -> &'static Docker {
        self.docker
    }

    /// The first cluster, which has the pods and services, and the second.
    ///
    /// # Errors
    /// Never, once they have started.
    pub fn both(&self) -> Result<(&KindCluster, &KindCluster)> {
        match self.clusters.as_slice() {
            [first, second] => Ok((first, second)),
            _ => bail!("there are not two clusters"),
        }
    }

    /// The user's kubeconfig, with a context for each cluster as kind writes them.
    pub fn kubeconfig(&self) -> PathBuf {
        self.docker.lab().dir().join("kubeconfig")
    }

    fn write_kubeconfig(&self) -> Result<()> {
        let mut all = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "kind-cluster2",
            "clusters": [], "contexts": [], "users": [],
        });
        for cluster in &self.clusters {
            let one = std::fs::read_to_string(cluster.control.kubeconfig())?;
            let one: Value = serde_json::from_str(&one)?;
            for list in ["clusters", "contexts", "users"] {
                let entry = one[list][0].clone();
                all[list].as_array_mut().context("a list")?.push(entry);
            }
        }
        Ok(std::fs::write(self.kubeconfig(), all.to_string())?)
    }

    /// Asks the tool on the host, with the user's kubeconfig.
    ///
    /// # Errors
    /// When it does not end in time, or its answer is no JSON.
    pub fn whereis(&self, args: &[&str]) -> Result<crate::Run> {
        let kubeconfig = self.kubeconfig();
        let kubeconfig = kubeconfig.to_str().context("path of the kubeconfig")?;
        let tool = self.docker.lab().tool().args(&["--kubeconfig", kubeconfig]);
        tool.args(&["--color", "never"]).args(args).run()
    }
}

impl KindCluster {
    /// A node in which nothing runs yet.
    fn new(
        docker: &'static Docker,
        name: &'static str,
        address: &'static str,
        port: u16,
    ) -> Result<Self> {
        let host = format!("{name}-control-plane");
        // Programs and their libraries are the machine's. kind's nodes are privileged, which
        // Docker refuses where a capability is missing: what runs in here enters from outside.
        let options = format!(
            "--network kind --ip {address} --publish 127.0.0.1:{port}:6443 \
             --security-opt systempaths=unconfined --volume /usr:/usr:ro \
             --volume /etc/alternatives:/etc/alternatives:ro --volume {}:/usr/local/bin:ro",
            kube_programs()?.display()
        );
        let node = docker.kind_node(&host, name, &options)?;
        node.container.netns.sysctl("ipv4/ip_forward", "1")?;
        let dir = docker.lab().dir().join(name);
        std::fs::create_dir_all(&dir)?;
        let control = Control::new(dir)?;
        let names = ["127.0.0.1", address, "10.96.0.1", "localhost", &host];
        for (certificate, subject, group) in [
            ("apiserver", "kube-apiserver", ""),
            ("etcd", "etcd", ""),
            // Its controllers would have accounts of their own.
            ("controller-manager", "system:kube-controller-manager", "system:masters"),
            ("kube-proxy", "system:kube-proxy", ""),
        ] {
            control.certificate(certificate, subject, group, &names)?;
        }
        let context = format!("kind-{name}");
        control.administer(&context, &context, &format!("https://127.0.0.1:{port}"))?;
        let cluster = Self { name, address, port, node, control, processes: Vec::new() };
        for user in ["controller-manager", "kube-proxy"] {
            let server = format!("https://{host}:6443");
            let config = cluster.control.kubeconfig_of("default", user, &server).to_string();
            let config = config.replace(&cluster.control.dir().display().to_string(), PKI);
            std::fs::write(cluster.control.dir().join(format!("{user}.conf")), config)?;
        }
        let pki = cluster.root().join("etc/kubernetes/pki");
        for dir in [&pki, &cluster.root().join("run"), &cluster.root().join("var/lib/etcd")] {
            std::fs::create_dir_all(dir)?;
        }
        for entry in std::fs::read_dir(cluster.control.dir())? {
            let entry = entry?;
            std::fs::copy(entry.path(), pki.join(entry.file_name()))?;
        }
        let shim = cluster.root().join("bin/containerd-shim-runc-v2");
        std::os::unix::fs::symlink("/usr/bin/unshare", shim)?;
        Ok(cluster)
    }

    /// The node's root directory.
    fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.node.container.pid))
    }

    fn docker(&self) -> &'static Docker {
        self.node.docker()
    }

    fn log(&self, component: &str) -> PathBuf {
        self.control.dir().join(format!("{component}.log"))
    }

    fn wait(&self, what: &str, ready: impl Fn(&Self) -> Result<()>) -> Result<()> {
        let names = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy"];
        let what = format!("{what} of {}", self.name);
        let logs = || waiting::last_lines(self.control.dir(), names);
        waiting::until(&what, PATIENCE, || ready(self), logs)
    }

    /// Waits until the node's NAT rules contain `text`.
    ///
    /// # Errors
    /// When they don't after a while.
    pub fn wait_rules(&self, text: &str) -> Result<()> {
        self.wait(&format!("a rule with {text}"), |cluster| {
            ensure!(cluster.inside(&["iptables-save"])?.contains(text), "it is not there");
            Ok(())
        })
    }

    /// Runs a command in the node.
    ///
    /// # Errors
    /// When it fails.
    pub fn inside(&self, argv: &[&str]) -> Result<String> {
        checked(&mut self.node.command("system.slice/kubelet.service", argv)?.0)
    }

    /// Runs kubectl on the host, as the administrator.
    ///
    /// # Errors
    /// When it fails, with what it complained of.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.control.kubectl(self.docker().lab(), args)
    }

    /// Makes or changes objects.
    ///
    /// # Errors
    /// When the API refuses one.
    pub fn apply(&self, object: &Value) -> Result<()> {
        self.control.apply(self.docker().lab(), object)
    }
}

/// Hexadecimal digits that look random and are the same each time.
fn hash(of: &str) -> String {
    Sha256::digest(of.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
