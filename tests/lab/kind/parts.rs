//! The components of a node, each started as its kubelet would.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{KindCluster, PATIENCE, PKI, hash};
use crate::cgroup;
use crate::control::{node_status, pod_status, program};
use crate::process::Proc;

/// A component that runs in a pod of the node's network.
#[derive(Debug, Clone)]
struct Component<'a> {
    name: &'a str,
    /// The UID that the kubelet knows the pod by.
    uid: String,
    container: String,
    argv: Vec<String>,
}

impl KindCluster {
    pub(super) fn start_api(&mut self) -> Result<()> {
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
    pub(super) fn join(&mut self) -> Result<()> {
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
}
