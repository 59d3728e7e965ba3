//! A node with a real kubelet and containerd, in a cluster with a real scheduler: pods are
//! made by asking the API for them, and nothing about them is written by a test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::cgroup;
use crate::cluster::{Cluster, NODE};
use crate::containerd::{Containerd, PAUSE_IMAGE};
use crate::control::program;
use crate::node::Lab;
use crate::process::Proc;
use crate::programs::{binary, checked};

/// What a kubelet sets in the kernel for the whole machine, and to what. It finds them so.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// The node `node1`, which is the lab's host.
#[derive(Debug)]
pub struct KubeletNode {
    // Dropped first, so that they are gone before the lab is swept.
    kubelet: Proc,
    containerd: Containerd,
    cluster: Cluster,
}

impl KubeletNode {
    /// One for all tests of this process.
    ///
    /// # Errors
    /// When it does not start, the same for every caller.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<KubeletNode, String>> = OnceLock::new();
        let node = SHARED.get_or_init(|| Self::start().map_err(|error| format!("{error:#}")));
        node.as_ref().map_err(|error| anyhow!("{error}"))
    }

    fn start() -> Result<Self> {
        let lab = Arc::new(Lab::new()?);
        let controllers =
            "endpoint,endpointslice,namespace,deployment,replicaset,daemonset,nodelifecycle";
        let mut cluster = Cluster::without_nodes(Arc::clone(&lab), controllers)?;
        let scheduler = [
            program("kube-scheduler")?.display().to_string(),
            format!("--kubeconfig={}", cluster.kubeconfig().display()),
            "--leader-elect=false".to_owned(),
            "--port=0".to_owned(),
        ];
        cluster.run("kube-scheduler", &scheduler)?;
        let containerd = Containerd::start_on(Arc::clone(&lab), "", "10.244.0.0/24")?;
        let kubelet = kubelet(&lab, &cluster, containerd.pid())?;
        cluster.start_proxy()?;
        let node = Self { kubelet, containerd, cluster };
        node.wait("the node", |node| {
            let object = node.get("/api/v1/nodes/node1")?;
            let conditions = object["status"]["conditions"].as_array().context("no conditions")?;
            let is_ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
            ensure!(conditions.iter().any(is_ready), "{conditions:?}");
            ensure!(object["spec"]["taints"].is_null(), "{}", object["spec"]["taints"]);
            Ok(())
        })?;
        Ok(node)
    }

    /// The cluster of the node.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The lab around it.
    pub fn lab(&self) -> &Lab {
        self.cluster.lab()
    }

    /// The process of the kubelet.
    pub fn pid(&self) -> u32 {
        self.kubelet.pid
    }

    /// The containerd of the node.
    pub fn containerd(&self) -> &Containerd {
        &self.containerd
    }

    /// An object as the API has it.
    ///
    /// # Errors
    /// When it has none.
    pub fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.cluster.kubectl(&["get", "--raw", path])?)?)
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// When it is not after a while, with what the components complained of.
    pub fn wait(&self, what: &str, ready: impl Fn(&Self) -> Result<()>) -> Result<()> {
        self.cluster.wait(what, |_| ready(self)).with_context(|| {
            let log = std::fs::read_to_string(log(self.lab())).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("kubelet:\n{}", lines[lines.len().saturating_sub(12)..].join("\n"))
        })
    }

    /// Waits until a pod runs and is ready, and gives it as the API has it.
    ///
    /// # Errors
    /// When it is not after a while.
    pub fn wait_pod(&self, path: &str) -> Result<Value> {
        self.wait(path, |node| {
            let status = node.get(path)?["status"].clone();
            let conditions = status["conditions"].as_array().context("no conditions")?;
            let is_ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
            ensure!(conditions.iter().any(is_ready), "{status}");
            Ok(())
        })?;
        self.get(path)
    }

    /// Gives the node an image of the tool, under the name that the agents' manifest has.
    ///
    /// # Errors
    /// When it can't be made, or containerd refuses it.
    pub fn import_tool(&self, tag: &str) -> Result<()> {
        let root = self.lab().rootfs()?;
        let to = root.join("bin/whereis-port");
        // What is for debuggers is most of it.
        checked(Command::new("strip").arg("-o").arg(&to).arg(binary()?))?;
        self.containerd.import(&root, &[tag])?;
        Ok(std::fs::remove_file(to)?)
    }

    /// Where a file has to be for the kubelet to make a pod of it.
    pub fn manifests(&self) -> PathBuf {
        manifests(self.lab())
    }
}

fn manifests(lab: &Lab) -> PathBuf {
    lab.dir().join("manifests")
}

fn log(lab: &Lab) -> PathBuf {
    lab.dir().join("kubelet.log")
}

fn kubelet(lab: &Lab, cluster: &Cluster, containerd: u32) -> Result<Proc> {
    std::fs::create_dir_all(manifests(lab))?;
    cgroups(lab)?;
    cluster.certificate("node1", "system:node:node1", "system:nodes", &["node1"])?;
    let kubeconfig = cluster.dir().join("node1.conf");
    let server = "https://127.0.0.1:6443";
    std::fs::write(&kubeconfig, cluster.kubeconfig_of("lab", "node1", server))?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "staticPodPath": manifests(lab), "fileCheckFrequency": "1s", "syncFrequency": "1s",
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", lab.name()),
        "enforceNodeAllocatable": [],
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": false},
            "x509": {"clientCAFile": cluster.dir().join("ca.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "oomScoreAdj": 0, "failSwapOn": false, "resolvConf": "",
        "volumePluginDir": lab.dir().join("plugins"),
    });
    let file = lab.dir().join("kubelet.json");
    std::fs::write(&file, config.to_string())?;
    let sysctls = lab.dir().join("sysctls");
    let mut script = String::from("set -e\n");
    for (name, value) in SYSCTLS {
        let held = sysctls.join(name.replace('/', "."));
        std::fs::create_dir_all(&sysctls)?;
        std::fs::write(&held, format!("{value}\n"))?;
        let there = Path::new("/proc/sys").join(name);
        if there.exists() {
            script += &format!("mount --bind {} {}\n", held.display(), there.display());
        }
    }
    let program = program("kubelet")?;
    script += &format!(
        "exec {} --config={} --kubeconfig={} --container-runtime=remote \
         --container-runtime-endpoint=unix:///run/containerd/containerd.sock \
         --hostname-override=node1 --node-ip={NODE} --root-dir=/var/lib/kubelet \
         --cert-dir=/var/lib/kubelet/pki --pod-infra-container-image={PAUSE_IMAGE}",
        program.display(),
        file.display(),
        kubeconfig.display()
    );
    // It shares files with containerd, and what it thinks to set with nobody.
    let containerd = containerd.to_string();
    let argv =
        ["nsenter", "-t", &containerd, "-m", "--", "unshare", "-m", "--", "sh", "-c", &script];
    let mut command = lab.command(lab.host(), &argv)?;
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("/usr/sbin:/sbin:{path}"));
    command.current_dir("/").stdout(Stdio::null()).stderr(File::create(log(lab))?);
    Ok(Proc::started(command.spawn().context("starting kubelet")?))
}

/// The lab's groups in all hierarchies: a kubelet makes none above its own.
fn cgroups(lab: &Lab) -> Result<()> {
    for mount in cgroup::mounts()? {
        let dir = mount.join(lab.name());
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // Nothing can run in a new group of version 1 before it has these.
            let has_none =
                std::fs::read_to_string(dir.join(file)).is_ok_and(|t| t.trim().is_empty());
            if has_none && mount.ends_with("cpuset") {
                std::fs::copy(mount.join(file), dir.join(file))?;
            }
        }
    }
    Ok(())
}
