//! kind's clusters with what they are really made of: nodes that are containers of a real
//! Docker, and in each node etcd, API server, controllers and kube-proxy of Kubernetes 1.20.
//!
//! There is no kubelet and no containerd in the nodes: what stands in for them starts each
//! component as they would, in a PID namespace and a control group of its pod, and tells the
//! API about nodes and pods.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cgroup;
use crate::control::{Control, kube_programs, node_status, pod_status, program};
use crate::docker::{Docker, KindNode};
use crate::netns::Netns;
use crate::process::Proc;
use crate::programs::checked;

/// How long anything may take to become ready.
const PATIENCE: Duration = Duration::from_secs(45);
/// Where kind has certificates in its nodes.
const PKI: &str = "/etc/kubernetes/pki";

/// A Docker host with two kind clusters of one node each.
#[derive(Debug)]
pub struct Kinds {
    web: KindPod,
    hosted: KindPod,
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

/// A component that runs in a pod of the node's network.
#[derive(Debug, Clone)]
struct Component<'a> {
    name: &'a str,
    /// The UID that the kubelet knows the pod by.
    uid: String,
    container: String,
    argv: Vec<String>,
}

/// A pod of the cluster's own network.
#[derive(Debug)]
pub struct KindPod {
    /// Its name, in the namespace `default`.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The id of its only container.
    pub container: String,
    /// Its address.
    pub address: String,
    /// Its network namespace.
    pub netns: Netns,
    /// The process that listens.
    pub pid: u32,
    _process: Proc,
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
        let [first, ..] = clusters.as_slice() else { bail!("there is no cluster") };
        let web = first.pod("nginx-app", 5, None)?;
        first.service("nginx-app", "10.96.5.127", 30518)?;
        let hosted = first.pod("hosted", 6, Some(8088))?;
        first.wait_rules(&format!("--to-destination {}:80", web.address))?;
        let kinds = Self { web, hosted, clusters, docker, _alone: alone };
        kinds.write_kubeconfig()?;
        Ok(kinds)
    }

    /// The pod of the first cluster's Service `nginx-app`, on NodePort 30518.
    pub fn web(&self) -> &KindPod {
        &self.web
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

    fn start_api(&mut self) -> Result<()> {
        let (ip, host) = (self.address, self.node.container.name.clone());
        let etcd = format!(
            "etcd --advertise-client-urls=https://{ip}:2379 --cert-file={PKI}/etcd.crt \
             --client-cert-auth=true --data-dir=/var/lib/etcd \
             --initial-advertise-peer-urls=https://{ip}:2380 \
             --initial-cluster={host}=https://{ip}:2380 --key-file={PKI}/etcd.key \
             --listen-client-urls=https://127.0.0.1:2379,https://{ip}:2379 \
             --listen-metrics-urls=http://127.0.0.1:2381 \
             --listen-peer-urls=https://{ip}:2380 --name={host} \
             --peer-cert-file={PKI}/etcd.crt --peer-client-cert-auth=true \
             --peer-key-file={PKI}/etcd.key --peer-trusted-ca-file={PKI}/ca.crt \
             --trusted-ca-file={PKI}/ca.crt --unsafe-no-fsync"
        );
        let api = format!(
            "kube-apiserver --advertise-address={ip} --authorization-mode=Node,RBAC \
             --client-ca-file={PKI}/ca.crt --disable-admission-plugins=ServiceAccount \
             --etcd-cafile={PKI}/ca.crt --etcd-certfile={PKI}/etcd.crt \
             --etcd-keyfile={PKI}/etcd.key --etcd-servers=https://127.0.0.1:2379 \
             --insecure-port=0 --secure-port=6443 \
             --service-account-issuer=https://kubernetes.default.svc.cluster.local \
             --service-account-key-file={PKI}/apiserver.crt \
             --service-account-signing-key-file={PKI}/apiserver.key \
             --service-cluster-ip-range=10.96.0.0/16 \
             --tls-cert-file={PKI}/apiserver.crt --tls-private-key-file={PKI}/apiserver.key"
        );
        for argv in [etcd, api] {
            let component = self.of_manifest(&argv);
            self.launch(&component)?;
        }
        Ok(())
    }

    /// Waits for the API, makes the node known in it, and starts what needs both.
    fn join(&mut self) -> Result<()> {
        self.wait("the API", |cluster| cluster.kubectl(&["get", "--raw", "/readyz"]).map(drop))?;
        let host = self.node.container.name.clone();
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": host, "labels": {
                "kubernetes.io/hostname": host,
                "node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/master": "",
            }},
            "spec": {"providerID": format!("kind://docker/{}/{host}", self.name)},
        }))?;
        let lab = self.docker().lab();
        self.control.set_status(
            lab,
            &format!("/api/v1/nodes/{host}"),
            &node_status(self.address),
        )?;
        let manager = format!(
            "kube-controller-manager --bind-address=127.0.0.1 --cluster-cidr=10.244.0.0/16 \
             --cluster-name={} --controllers=endpoint,endpointslice,namespace \
             --kubeconfig={PKI}/controller-manager.conf --leader-elect=false --port=0 \
             --service-cluster-ip-range=10.96.0.0/16",
            self.name
        );
        let manager = self.of_manifest(&manager);
        self.launch(&manager)?;
        for name in ["etcd", "kube-apiserver", "kube-controller-manager"] {
            self.register(&self.of_manifest(name), &format!("{name}-{host}"), true)?;
        }
        let proxy = format!(
            "kube-proxy --cluster-cidr=10.244.0.0/16 --conntrack-max-per-core=0 \
             --conntrack-tcp-timeout-close-wait=0s --conntrack-tcp-timeout-established=0s \
             --hostname-override={host} --iptables-min-sync-period=100ms \
             --kubeconfig={PKI}/kube-proxy.conf --oom-score-adj=0 --proxy-mode=iptables"
        );
        let mut proxy = self.of_manifest(&proxy);
        // The pod of a DaemonSet is the API's, and its UID is from there.
        let name = format!("kube-proxy-{}", &hash(&host)[..5]);
        proxy.uid = self.register(&proxy, &name, false)?;
        self.launch(&proxy)?;
        self.wait_rules("KUBE-SERVICES")
    }

    /// A component whose pod the kubelet made from a manifest of the node.
    fn of_manifest<'a>(&self, argv: &'a str) -> Component<'a> {
        let name = argv.split(' ').next().unwrap_or(argv);
        let host = &self.node.container.name;
        Component {
            name,
            uid: hash(&format!("pod {name} {host}"))[..32].to_owned(),
            container: hash(&format!("container {name} {host}")),
            argv: argv.split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// Tells the API of a component's pod in the node's network, and gives its UID there.
    fn register(&self, component: &Component<'_>, name: &str, is_static: bool) -> Result<String> {
        let annotations = if is_static {
            json!({
                "kubernetes.io/config.hash": component.uid,
                "kubernetes.io/config.mirror": component.uid,
                "kubernetes.io/config.source": "file",
            })
        } else {
            json!({})
        };
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": "kube-system", "annotations": annotations,
                "labels": {"component": component.name},
            },
            "spec": {
                "nodeName": self.node.container.name, "hostNetwork": true,
                "containers": [{
                    "name": component.name,
                    "image": format!("k8s.gcr.io/{}:v1.20.2", component.name),
                }],
            },
        }))?;
        let path = format!("/api/v1/namespaces/kube-system/pods/{name}");
        let status = pod_status(self.address, component.name, &component.container, true);
        let lab = self.docker().lab();
        self.control.set_status(lab, &path, &status)?;
        let object = self.control.get(lab, &path)?;
        Ok(object["metadata"]["uid"].as_str().context("no uid")?.to_owned())
    }

    /// Starts a component as its pod's only process, in the node's network.
    fn launch(&mut self, component: &Component<'_>) -> Result<()> {
        let program = match component.name {
            "etcd" => PathBuf::from("/usr/bin/etcd"),
            name => {
                program(name)?;
                Path::new("/usr/local/bin").join(name)
            }
        };
        let program = program.display().to_string();
        let mut argv: Vec<&str> =
            vec!["/bin/containerd-shim-runc-v2", "--pid", "--fork", "--mount-proc", &program];
        argv.extend(component.argv.iter().skip(1).map(String::as_str));
        let (mut command, shims) = self.node.command("system.slice/containerd.service", &argv)?;
        let log = File::create(self.log(component.name))?;
        command.stdout(Stdio::null()).stderr(log);
        let started = command.spawn().with_context(|| format!("starting {}", component.name))?;
        self.processes.push(Proc::started(started));
        let group =
            format!("kubelet/kubepods/burstable/pod{}/{}", component.uid, component.container);
        let begin = Instant::now();
        loop {
            let inner = cgroup::processes(&shims).into_iter().find(|pid| {
                let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                // The kernel keeps fifteen letters.
                !comm.trim().is_empty() && component.name.starts_with(comm.trim())
            });
            if let Some(inner) = inner {
                return self.node.move_to(&group, inner);
            }
            ensure!(begin.elapsed() < PATIENCE, "{} has not started", component.name);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self, component: &str) -> PathBuf {
        self.control.dir().join(format!("{component}.log"))
    }

    fn wait(&self, what: &str, ready: impl Fn(&Self) -> Result<()>) -> Result<()> {
        let begin = Instant::now();
        loop {
            let error = match ready(self) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if begin.elapsed() > PATIENCE {
                bail!("{what} of {} is not ready: {error:#}\n{}", self.name, self.logs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The last lines of what each component complained of.
    fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy"] {
            let log = std::fs::read_to_string(self.log(name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let _ =
                writeln!(text, "{name}:\n{}", lines[lines.len().saturating_sub(8)..].join("\n"));
        }
        text
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

    /// A Service of type NodePort without a name for its port, as `kubectl expose` makes it.
    ///
    /// # Errors
    /// When the API refuses it.
    pub fn service(&self, name: &str, cluster_ip: &str, node_port: u16) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "type": "NodePort", "clusterIP": cluster_ip, "selector": {"run": name},
                "ports": [{"port": 80, "targetPort": 80, "nodePort": node_port}],
            },
        }))
    }

    /// A pod with a network of its own, joined to the node as kind's plug-in does, in which
    /// `nginx` listens on port 80. With `host_port` the plug-in for that is run, too.
    ///
    /// # Errors
    /// When a part of it can't be made.
    pub fn pod(&self, name: &str, last: u8, host_port: Option<u16>) -> Result<KindPod> {
        let address = format!("10.244.0.{last}");
        let mut port = json!({"containerPort": 80, "protocol": "TCP"});
        if let Some(host_port) = host_port {
            port["hostPort"] = json!(host_port);
        }
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"run": name}},
            "spec": {
                "nodeName": self.node.container.name,
                "containers": [{"name": name, "image": "nginx", "ports": [port]}],
            },
        }))?;
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        let lab = self.docker().lab();
        let object = self.control.get(lab, &path)?;
        let uid = object["metadata"]["uid"].as_str().context("no uid")?.to_owned();
        let container = hash(&format!("container {name} {}", self.name));
        self.control.set_status(lab, &path, &pod_status(&address, name, &container, true))?;
        let netns = self.pod_netns(name, &address)?;
        if let Some(host_port) = host_port {
            self.portmap(&netns, &container, &address, host_port)?;
        }
        let listen = format!("tcp 0.0.0.0:80 --answer {name}");
        let (process, pid) = self.node.pod(&netns, &uid, &container, &listen, &["nginx"])?;
        Ok(KindPod {
            name: name.to_owned(),
            uid,
            container,
            address,
            netns,
            pid,
            _process: process,
        })
    }

    /// A namespace that only the node has a name for, as containerd makes it.
    fn pod_netns(&self, name: &str, address: &str) -> Result<Netns> {
        let random = hash(&format!("netns {name} {}", self.name));
        let (netns, link) = (format!("cni-{}", &random[..8]), format!("veth{}", &random[..8]));
        let script = format!(
            "ip netns add {netns}
             ip link add {link} type veth peer name eth0 netns {netns}
             ip address add 10.244.0.1/32 dev {link}
             ip link set {link} up
             ip route add {address}/32 dev {link}
             ip -n {netns} link set lo up
             ip -n {netns} address add {address}/24 dev eth0
             ip -n {netns} link set eth0 up
             ip -n {netns} route add 10.244.0.1/32 dev eth0 scope link 2>/dev/null || true
             ip -n {netns} route add default via 10.244.0.1"
        );
        self.inside(&["/usr/bin/sh", "-ec", &script])?;
        let path = self.root().join("run/netns").join(&netns);
        let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path)?);
        self.docker().lab().adopt(inode);
        Ok(Netns { name: netns, path, inode })
    }

    /// Runs CNI's portmap, as containerd does for a pod with a hostPort.
    fn portmap(&self, netns: &Netns, id: &str, address: &str, host_port: u16) -> Result<()> {
        let inner = format!("/run/netns/{}", netns.name);
        let config = json!({
            "cniVersion": "0.4.0", "name": "kindnet", "type": "portmap",
            "runtimeConfig": {"portMappings": [
                {"hostPort": host_port, "containerPort": 80, "protocol": "tcp"},
            ]},
            "prevResult": {
                "cniVersion": "0.4.0",
                "interfaces": [{"name": "eth0", "sandbox": inner}],
                "ips": [{"version": "4", "interface": 0, "address": format!("{address}/24")}],
            },
        });
        let argv = ["/usr/lib/cni/portmap"];
        let (mut command, _) = self.node.command("system.slice/containerd.service", &argv)?;
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", &inner)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/usr/lib/cni");
        self.docker().lab().talk(command, &config.to_string()).context("portmap").map(drop)
    }
}

/// Hexadecimal digits that look random and are the same each time.
fn hash(of: &str) -> String {
    Sha256::digest(of.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
