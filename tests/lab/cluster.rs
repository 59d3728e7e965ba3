//! A real Kubernetes API with etcd, endpoint controllers and kube-proxy, in a lab. Its nodes
//! have no kubelet: pods are objects whose state the test writes, and real processes in
//! network namespaces and control groups as a kubelet makes them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::control::{Control, node_status, pod_status, program};
use crate::netns::Netns;
use crate::node::Lab;
use crate::process::Proc;
use crate::programs::checked;
use crate::waiting;

/// The node's address.
pub(crate) const NODE: &str = "10.211.0.1";
/// How long anything may take to become ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why Kubernetes can't be run here, if it can't.
pub fn no_kube() -> Option<String> {
    crate::no_lab().or_else(|| {
        if !crate::has("etcd") {
            return Some("etcd is not installed (package etcd-server)".to_owned());
        }
        match program("kube-apiserver") {
            Ok(_) => None,
            Err(error) => Some(format!("{error:#}")),
        }
    })
}

/// A cluster of one real node, `node1`, which is the lab's host.
#[derive(Debug)]
pub struct Cluster {
    // Dropped first, so that they are gone before the lab is swept.
    processes: Vec<(&'static str, Proc)>,
    lab: Arc<Lab>,
    control: Control,
    next: AtomicU8,
}

/// A pod: an object of the API, and a process.
#[derive(Debug)]
pub struct Pod {
    /// Its name, in the namespace `default`.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its UID.
    pub uid: String,
    /// The id of its only container.
    pub container: String,
    /// Its network namespace; `None` for one in the node's network, or on another node.
    pub netns: Option<Netns>,
    /// Its process, when it runs here.
    pub process: Option<Proc>,
}

impl Cluster {
    /// One for all tests of this process.
    ///
    /// # Errors
    /// When it does not start, the same for every caller.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        let cluster = SHARED.get_or_init(|| Self::start().map_err(|error| format!("{error:#}")));
        cluster.as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// A new cluster, in a lab of its own.
    ///
    /// # Errors
    /// When a part of it does not become ready.
    pub fn start() -> Result<Self> {
        let lab = Arc::new(Lab::new()?);
        lab.bridge(lab.host(), "cni0", "10.244.0.1/24")?;
        // No kubelet says that its node lives: nobody may take that for a dead one.
        let mut cluster = Self::without_nodes(lab, "endpoint,endpointslice,namespace")?;
        cluster.node("node1", NODE)?;
        cluster.node("node2", "10.211.0.2")?;
        cluster.start_proxy()?;
        Ok(cluster)
    }

    /// API server, etcd and these controllers.
    pub(crate) fn without_nodes(lab: Arc<Lab>, controllers: &str) -> Result<Self> {
        let dir = lab.dir().join("kube");
        std::fs::create_dir_all(&dir)?;
        let outside = lab.netns("outside")?;
        lab.lan(&[(lab.host(), &[&format!("{NODE}/24")]), (&outside, &["10.211.0.9/24"])])?;
        lab.host().ip(&["route", "add", "default", "via", "10.211.0.9"])?;
        for setting in ["net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet"] {
            let write = format!("echo 1 > /proc/sys/{setting}");
            checked(&mut lab.command(lab.host(), &["sh", "-c", &write])?)?;
        }
        let control = Control::new(dir)?;
        let mut cluster = Self { processes: Vec::new(), control, lab, next: AtomicU8::new(10) };
        cluster.control_plane(controllers)?;
        Ok(cluster)
    }

    fn control_plane(&mut self, controllers: &str) -> Result<()> {
        let dir = self.dir().to_owned();
        let path = |name: &str| dir.join(name).display().to_string();
        self.certificate(
            "server",
            "kube-apiserver",
            "",
            &["127.0.0.1", NODE, "10.96.0.1", "localhost"],
        )?;
        let kubeconfig = self.kubeconfig();
        self.control.administer("lab", "admin", "https://127.0.0.1:6443")?;
        let etcd = [
            "etcd".to_owned(),
            format!("--data-dir={}", path("etcd")),
            "--unsafe-no-fsync".to_owned(),
        ];
        self.run("etcd", &etcd)?;
        let api = [
            program("kube-apiserver")?.display().to_string(),
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            "--secure-port=6443".to_owned(),
            "--insecure-port=0".to_owned(),
            format!("--advertise-address={NODE}"),
            format!("--tls-cert-file={}", path("server.crt")),
            format!("--tls-private-key-file={}", path("server.key")),
            format!("--client-ca-file={}", path("ca.crt")),
            format!("--kubelet-client-certificate={}", path("admin.crt")),
            format!("--kubelet-client-key={}", path("admin.key")),
            // Nobody here knows names.
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--service-account-key-file={}", path("server.crt")),
            format!("--service-account-signing-key-file={}", path("server.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            // Pods are made before anybody has made service accounts.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        self.run("kube-apiserver", &api)?;
        self.wait("the API", |cluster| cluster.kubectl(&["get", "--raw", "/readyz"]).map(drop))?;
        let manager = [
            program("kube-controller-manager")?.display().to_string(),
            format!("--kubeconfig={}", kubeconfig.display()),
            "--leader-elect=false".to_owned(),
            "--port=0".to_owned(),
            format!("--controllers={controllers}"),
        ];
        self.run("kube-controller-manager", &manager)
    }

    /// Starts kube-proxy, and waits for its rules.
    ///
    /// # Errors
    /// When there are none after a while.
    pub fn start_proxy(&mut self) -> Result<()> {
        let proxy = [
            program("kube-proxy")?.display().to_string(),
            format!("--kubeconfig={}", self.kubeconfig().display()),
            "--proxy-mode=iptables".to_owned(),
            "--hostname-override=node1".to_owned(),
            "--cluster-cidr=10.244.0.0/16".to_owned(),
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0s".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
            "--iptables-min-sync-period=100ms".to_owned(),
            "--oom-score-adj=0".to_owned(),
        ];
        self.run("kube-proxy", &proxy)?;
        self.wait_rules("KUBE-SERVICES")
    }

    /// Ends kube-proxy. Its rules stay.
    ///
    /// # Errors
    /// When it can't be ended.
    pub fn stop_proxy(&mut self) -> Result<()> {
        let at = self.processes.iter().position(|(name, _)| *name == "kube-proxy");
        let (_, process) = self.processes.remove(at.context("kube-proxy does not run")?);
        process.kill()
    }

    pub(crate) fn run(&mut self, name: &'static str, argv: &[String]) -> Result<()> {
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let log = File::create(self.dir().join(format!("{name}.log")))?;
        let mut command = self.lab.command(self.lab.host(), &argv)?;
        command.current_dir(self.dir()).stdout(Stdio::null()).stderr(log);
        let process = Proc::started(command.spawn().with_context(|| format!("starting {name}"))?);
        self.processes.push((name, process));
        Ok(())
    }

    pub(crate) fn wait(&self, what: &str, ready: impl Fn(&Self) -> Result<()>) -> Result<()> {
        let names = || self.processes.iter().map(|(name, _)| *name);
        waiting::until(what, PATIENCE, || ready(self), || waiting::last_lines(self.dir(), names()))
    }

    /// Waits until the node's NAT rules contain `text`.
    ///
    /// # Errors
    /// When they don't after a while.
    pub fn wait_rules(&self, text: &str) -> Result<()> {
        self.wait(&format!("a rule with {text}"), |cluster| {
            let rules = checked(&mut cluster.lab.command(cluster.lab.host(), &["iptables-save"])?)?;
            ensure!(rules.contains(text), "it is not there");
            Ok(())
        })
    }

    /// The lab around it.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The administrator's kubeconfig, with the one context `lab`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.control.kubeconfig()
    }

    /// The directory with certificates and keys: `ca.crt`, and those made by
    /// [`Cluster::certificate`].
    pub fn dir(&self) -> &Path {
        self.control.dir()
    }

    /// A kubeconfig with one context for a user with a certificate.
    pub fn kubeconfig_of(&self, context: &str, user: &str, server: &str) -> String {
        self.control.kubeconfig_of(context, user, server).to_string()
    }

    /// A certificate of the cluster's authority, as `NAME.crt` and `NAME.key`.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn certificate(
        &self,
        name: &str,
        subject: &str,
        group: &str,
        names: &[&str],
    ) -> Result<()> {
        self.control.certificate(name, subject, group, names)
    }

    /// Runs kubectl as the administrator.
    ///
    /// # Errors
    /// When it fails, with what it complained of.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.control.kubectl(&self.lab, args)
    }

    /// Starts kubectl as the administrator: for what goes on, as `port-forward` does.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_kubectl(&self, args: &[&str]) -> Result<Proc> {
        let kubectl = program("kubectl")?;
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig().display());
        let mut argv = vec![kubectl.to_str().context("path of kubectl")?];
        argv.extend(args);
        argv.push(&kubeconfig);
        self.lab.spawn(self.lab.host(), &argv)
    }

    /// Makes or changes objects.
    ///
    /// # Errors
    /// When the API refuses one.
    pub fn apply(&self, object: &Value) -> Result<()> {
        self.control.apply(&self.lab, object)
    }

    /// Writes the state of an object, as only its kubelet does elsewhere.
    ///
    /// # Errors
    /// When the API refuses it.
    pub fn set_status(&self, path: &str, status: &Value) -> Result<()> {
        self.control.set_status(&self.lab, path, status)
    }

    /// A node that only the API knows, but for `node1`.
    fn node(&self, name: &str, address: &str) -> Result<()> {
        let labels = json!({"kubernetes.io/hostname": name});
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        }))?;
        self.set_status(&format!("/api/v1/nodes/{name}"), &node_status(address))
    }

    /// A pod on `node1` with labels `app=APP`, in a namespace of its own on the bridge, whose
    /// process listens as `listen` says (`tcp 0.0.0.0:8080`).
    ///
    /// # Errors
    /// When it does not listen or the API refuses it.
    pub fn pod(&self, name: &str, app: &str, listen: &str) -> Result<Pod> {
        self.pod_like(name, app, listen, &[])
    }

    /// The same, whose process looks as if it had been started with `argv`.
    ///
    /// # Errors
    /// As [`Cluster::pod`].
    pub fn pod_like(&self, name: &str, app: &str, listen: &str, argv: &[&str]) -> Result<Pod> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let netns = self.lab.netns(&format!("cni-{name}"))?;
        let address = format!("10.244.0.{number}");
        let host = self.lab.host();
        self.lab.veth(
            (host, &format!("veth{number}"), "169.254.1.1/32"),
            (&netns, "eth0", &format!("{address}/24")),
        )?;
        host.ip(&["link", "set", &format!("veth{number}"), "master", "cni0"])?;
        netns.ip(&["route", "add", "default", "via", "10.244.0.1"])?;
        self.made(name, app, &address, "node1", Some(&netns), (listen, argv))
    }

    /// A pod in the network of `node1`.
    ///
    /// # Errors
    /// As [`Cluster::pod`].
    pub fn host_pod(&self, name: &str, app: &str, listen: &str) -> Result<Pod> {
        self.made(name, app, NODE, "node1", None, (listen, &[]))
    }

    /// A pod on `node2`, of which there is nothing here.
    ///
    /// # Errors
    /// When the API refuses it.
    pub fn pod_elsewhere(&self, name: &str, app: &str, address: &str) -> Result<Pod> {
        self.made(name, app, address, "node2", None, ("", &[]))
    }

    fn made(
        &self,
        name: &str,
        app: &str,
        address: &str,
        node: &str,
        netns: Option<&Netns>,
        (listen, argv): (&str, &[&str]),
    ) -> Result<Pod> {
        let host_network = netns.is_none() && node == "node1";
        let port =
            listen.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(8080);
        let protocol = if listen.starts_with("udp") { "UDP" } else { "TCP" };
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
            "spec": {
                "nodeName": node, "hostNetwork": host_network,
                "containers": [{"name": "main", "image": "lab/server:1", "ports": [
                    {"name": "main", "containerPort": port, "protocol": protocol},
                ]}],
            },
        }))?;
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        let object: Value = serde_json::from_str(&self.kubectl(&["get", "--raw", &path])?)?;
        let uid = object["metadata"]["uid"].as_str().context("no uid")?.to_owned();
        // Any 64 hexadecimal digits that are nobody else's.
        let container = uid.replace('-', "").repeat(2);
        self.set_ready(name, address, &container, true)?;
        let process = if node == "node1" {
            let group = format!("kubepods/besteffort/pod{uid}/{container}");
            let netns = netns.unwrap_or(self.lab.host());
            Some(match argv {
                [] => self.lab.listen_in(netns, &group, listen, &["server"])?,
                argv => self.lab.listen_in_like(netns, &group, listen, argv)?,
            })
        } else {
            None
        };
        Ok(Pod {
            name: name.to_owned(),
            address: address.to_owned(),
            uid,
            container,
            netns: netns.cloned(),
            process,
        })
    }

    /// Says of a pod that it runs, and whether it is ready.
    ///
    /// # Errors
    /// When the API refuses it.
    pub fn set_ready(&self, name: &str, address: &str, container: &str, ready: bool) -> Result<()> {
        let status = pod_status(address, "main", container, ready);
        self.set_status(&format!("/api/v1/namespaces/default/pods/{name}"), &status)
    }

    /// A Service of type NodePort, of the pods with the label `app=NAME`, whose port `http`
    /// leads to the pods' port `main`. `more` is merged into its spec.
    ///
    /// # Errors
    /// When the API refuses it.
    pub fn service(&self, name: &str, node_port: u16, more: &Value) -> Result<()> {
        let mut spec = json!({
            "type": "NodePort", "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "main", "nodePort": node_port}],
        });
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec,
        }))
    }

    /// Asks the tool on the node, with the administrator's kubeconfig.
    ///
    /// # Errors
    /// When it does not end in time or its answer is no JSON.
    pub fn whereis(&self, args: &[&str]) -> Result<crate::Run> {
        let kubeconfig = self.kubeconfig();
        let kubeconfig = kubeconfig.to_str().context("path of the kubeconfig")?;
        self.lab.tool().env("KUBECONFIG", kubeconfig).arg("--json").args(args).run()
    }
}
