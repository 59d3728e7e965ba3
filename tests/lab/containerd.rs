//! A private, real containerd in a lab, with pods as a kubelet makes them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cri::{
    ContainerConfig, CreateContainerRequest, LinuxContainerConfig, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Made, Named, NamespaceOption, Nothing,
    PodSandboxConfig, PodSandboxMetadata, RunPodSandboxRequest, StatusRequest, StatusResponse,
    call,
};
use crate::netns::{Netns, netns_inode};
use crate::node::Lab;
use crate::process::Proc;
use crate::programs::checked;

/// The image of the lab's containers: busybox and `lab-helper`.
pub const POD_IMAGE: &str = "registry.lab.test/server:1";
/// The same image as the sandbox of every pod, where it only sleeps.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.2";

/// A containerd that runs in the lab's host namespace, with a `/run` of its own:
/// its socket is at the usual place there.
#[derive(Debug)]
pub struct Containerd {
    // Dropped first, so that the daemon is waited for before the lab is swept.
    daemon: Proc,
    lab: Arc<Lab>,
    /// Where it is in the lab's cgroup: below a container, or nowhere.
    place: String,
}

/// What a pod is to be.
#[derive(Debug, Clone, Default)]
pub struct PodSpec<'a> {
    /// Its namespace and name.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID: a UUID, or the hash of a manifest.
    pub uid: &'a str,
    /// Its labels.
    pub labels: &'a [(&'a str, &'a str)],
    /// Its annotations.
    pub annotations: &'a [(&'a str, &'a str)],
    /// Whether it uses the node's network.
    pub host_network: bool,
}

/// A running pod.
#[derive(Debug)]
pub struct CriPod<'a> {
    containerd: &'a Containerd,
    config: PodSandboxConfig,
    /// The id of its sandbox.
    pub sandbox: String,
    /// The process of its sandbox.
    pub pid: u32,
    /// Its network namespace.
    pub netns: Netns,
}

/// A container of a pod.
#[derive(Debug, Clone)]
pub struct PodContainer {
    /// Its id.
    pub id: String,
    /// Its process.
    pub pid: u32,
}

impl Containerd {
    /// A new lab with containerd in it. Takes some seconds.
    ///
    /// # Errors
    /// When containerd does not start, or does not take the image.
    pub fn start() -> Result<Self> {
        Self::start_at("")
    }

    /// The same with everything in the cgroup of a container with this id, as in a
    /// node that is a container of Docker's. No Docker knows of it.
    ///
    /// # Errors
    /// As [`Containerd::start`].
    pub fn start_in(container: &str) -> Result<Self> {
        Self::start_at(&format!("docker/{container}/"))
    }

    fn start_at(place: &str) -> Result<Self> {
        Self::start_on(Arc::new(Lab::new()?), place, "10.217.0.0/24")
    }

    /// On the host of a lab, with pods in a network of their own.
    pub(crate) fn start_on(lab: Arc<Lab>, place: &str, subnet: &str) -> Result<Self> {
        let daemon = daemon(&lab, place, subnet)?;
        let mut containerd = Self { daemon, lab, place: place.to_owned() };
        containerd.wait()?;
        containerd.import(&containerd.lab.rootfs()?, &[POD_IMAGE, PAUSE_IMAGE])?;
        Ok(containerd)
    }

    /// One lab with containerd for all tests of this process.
    ///
    /// # Errors
    /// As [`Containerd::start`], the same for every caller.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Containerd, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::start().map_err(|error| format!("{error:#}")));
        shared.as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// The lab around it.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.daemon.pid
    }

    /// The daemon's socket, as seen from outside of its mount namespace.
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/run/containerd/containerd.sock", self.daemon.pid))
    }

    /// Makes a pod with nothing but its sandbox.
    ///
    /// # Errors
    /// When containerd refuses it.
    pub fn pod(&self, spec: &PodSpec<'_>) -> Result<CriPod<'_>> {
        let PodSpec { namespace, name, uid, .. } = *spec;
        let names = [
            ("io.kubernetes.pod.namespace", namespace),
            ("io.kubernetes.pod.name", name),
            ("io.kubernetes.pod.uid", uid),
        ];
        let options = NamespaceOption { network: if spec.host_network { 2 } else { 0 }, pid: 1 };
        let security_context =
            LinuxSandboxSecurityContext { namespace_options: Some(options.clone()) };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: uid.to_owned(),
                namespace: namespace.to_owned(),
            }),
            hostname: if spec.host_network { String::new() } else { name.to_owned() },
            labels: map(spec.labels.iter().chain(&names)),
            annotations: map(spec.annotations.iter()),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!(
                    "/{}/{}kubepods/besteffort/pod{uid}",
                    self.lab.name(),
                    self.place
                ),
                security_context: Some(security_context),
            }),
        };
        let question = RunPodSandboxRequest { config: Some(config.clone()) };
        let made: Made = call(&self.socket(), "RunPodSandbox", question)?;
        let pid = self.first_process("PodSandboxStatus", &made.id)?;
        let inode = netns_inode(pid).context("the sandbox has exited")?;
        self.lab.adopt(inode);
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let netns = Netns { name: name.to_owned(), path, inode };
        Ok(CriPod { containerd: self, config, sandbox: made.id, pid, netns })
    }

    fn first_process(&self, method: &str, id: &str) -> Result<u32> {
        let question = StatusRequest { id: id.to_owned(), verbose: true };
        let status: StatusResponse = call(&self.socket(), method, question)?;
        let info = status.info.get("info").context("no info")?;
        let info: serde_json::Value = serde_json::from_str(info)?;
        Ok(u32::try_from(info["pid"].as_u64().context("no pid")?)?)
    }

    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(40);
        let socket = self.socket();
        while let Err(error) = call::<Nothing>(&socket, "Status", Nothing {}) {
            if self.daemon.has_exited()? || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.lab.dir().join("containerd.log"));
                let log = log.unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(5).collect();
                bail!("no answer on {}: {error:#}: {}", socket.display(), end.join(" | "));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Takes what is in `root` as an image with these names.
    ///
    /// # Errors
    /// When containerd refuses it.
    pub fn import(&self, root: &Path, tags: &[&str]) -> Result<()> {
        let archive = archive(&self.lab, root, tags)?;
        // In its mount namespace, where the socket has a short path.
        let pid = self.daemon.pid.to_string();
        let ctr = ["ctr", "--address", "/run/containerd/containerd.sock", "--namespace", "k8s.io"];
        let import = ["images", "import", "--snapshotter", "native"];
        checked(
            Command::new("nsenter")
                .args(["-t", &pid, "-m", "--"])
                .args(ctr)
                .args(import)
                .arg(&archive),
        )?;
        Ok(std::fs::remove_file(archive)?)
    }
}

impl CriPod<'_> {
    /// Starts the container `name` with `lab-helper ARGS…` and waits until it
    /// listens on `port`. `args` is split at spaces.
    ///
    /// # Errors
    /// When containerd refuses it, or it does not listen.
    pub fn run(&self, name: &str, args: &str, port: u16) -> Result<PodContainer> {
        self.run_with(name, args, port, &[])
    }

    /// The same with annotations.
    ///
    /// # Errors
    /// As [`CriPod::run`].
    pub fn run_with(
        &self,
        name: &str,
        args: &str,
        port: u16,
        annotations: &[(&str, &str)],
    ) -> Result<PodContainer> {
        let socket = self.containerd.socket();
        let metadata = self.config.metadata.clone().unwrap_or_default();
        let linux = self.config.linux.as_ref().and_then(|l| l.security_context.as_ref());
        let namespace_options = linux.and_then(|s| s.namespace_options.clone());
        let labels = [
            ("io.kubernetes.container.name", name),
            ("io.kubernetes.pod.name", &metadata.name),
            ("io.kubernetes.pod.namespace", &metadata.namespace),
            ("io.kubernetes.pod.uid", &metadata.uid),
        ];
        let mut command = vec!["/bin/lab-helper".to_owned()];
        command.extend(args.split_whitespace().map(str::to_owned));
        let config = ContainerConfig {
            metadata: Some(Named { name: name.to_owned() }),
            image: Some(Named { name: POD_IMAGE.to_owned() }),
            command,
            labels: map(labels.iter()),
            annotations: map(annotations.iter()),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext { namespace_options }),
            }),
        };
        let question = CreateContainerRequest {
            pod_sandbox_id: self.sandbox.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let Made { id } = call(&socket, "CreateContainer", question)?;
        let _: Nothing = call(&socket, "StartContainer", Made { id: id.clone() })?;
        let pid = self.containerd.first_process("ContainerStatus", &id)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while !listens(pid, port) {
            ensure!(Instant::now() < deadline, "{name} does not listen on {port}: {args}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(PodContainer { id, pid })
    }
}

/// Whether a TCP socket in the process's network namespace listens on `port`.
fn listens(pid: u32, port: u16) -> bool {
    ["tcp", "tcp6"].iter().any(|table| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}"));
        let is_it = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1).is_some_and(|local| local.ends_with(&format!(":{port:04X}")))
                && fields.get(3) == Some(&"0A")
        };
        text.is_ok_and(|text| text.lines().any(is_it))
    })
}

fn map<'a>(pairs: impl Iterator<Item = &'a (&'a str, &'a str)>) -> HashMap<String, String> {
    pairs.map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn daemon(lab: &Lab, place: &str, subnet: &str) -> Result<Proc> {
    let at = |name: &str| lab.dir().join(name).display().to_string();
    let (networks, data) = (at("net.d"), at("containerd"));
    std::fs::create_dir_all(&networks)?;
    let network = json!({
        "cniVersion": "0.4.0", "name": "lab", "plugins": [{
            "type": "bridge", "bridge": "cni0", "isGateway": true,
            "ipam": {
                "type": "host-local", "dataDir": at("leases"), "ranges": [[{"subnet": subnet}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }, {
            "type": "portmap", "capabilities": {"portMappings": true},
        }],
    });
    std::fs::write(Path::new(&networks).join("10-lab.conflist"), network.to_string())?;
    let config = format!(
        r#"version = 2
root = "{data}"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  stream_server_address = "127.0.0.1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{networks}"
"#
    );
    std::fs::write(at("containerd.toml"), config)?;
    let log = std::fs::File::create(at("containerd.log"))?;
    // What runc, shims and CNI keep at fixed places is gone with the namespace.
    let script = "for dir in /run /var/lib; do mount -t tmpfs lab $dir || exit; done; exec \"$@\"";
    let (config, path) = (at("containerd.toml"), format!("/usr/sbin:/sbin:{}", path()));
    let argv = ["unshare", "-m", "--", "sh", "-c", script, "sh", "containerd", "--config", &config];
    let group = lab.cgroup().join(place).join("procs");
    std::fs::create_dir_all(&group).with_context(|| format!("making {}", group.display()))?;
    let mut command = lab.command_in(Some(lab.host()), &group, None, &argv)?;
    command.env("PATH", path).stdout(Stdio::null()).stderr(log);
    Ok(Proc::started(command.spawn().context("starting containerd")?))
}

fn path() -> String {
    std::env::var("PATH").unwrap_or_default()
}

/// A Docker archive with a root file system as the only layer.
fn archive(lab: &Lab, root: &Path, tags: &[&str]) -> Result<PathBuf> {
    let dir = lab.dir().join("archive");
    std::fs::create_dir_all(&dir)?;
    let layer = dir.join("layer.tar");
    checked(Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&layer).arg("."))?;
    let hex = |bytes: &[u8]| -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": ["/bin/busybox", "sleep", "100000"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&std::fs::read(&layer)?))]},
    });
    let config = config.to_string();
    let name = format!("{}.json", hex(config.as_bytes()));
    std::fs::write(dir.join(&name), config)?;
    let manifest = json!([
        {"Config": name, "RepoTags": tags, "Layers": ["layer.tar"]},
    ]);
    std::fs::write(dir.join("manifest.json"), manifest.to_string())?;
    let archive = lab.dir().join("image.tar");
    checked(Command::new("tar").arg("-C").arg(&dir).arg("-cf").arg(&archive).arg("."))?;
    std::fs::remove_dir_all(dir)?;
    Ok(archive)
}
