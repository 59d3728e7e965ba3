//! A private, real Docker in a lab.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::netns::{Netns, netns_inode};
use crate::node::Lab;
use crate::process::Proc;
use crate::programs::checked;

/// The name of the image in the lab's Docker: busybox and `lab-helper`.
const IMAGE: &str = "lab/server:1";
/// What the same image is called for a node of a kind cluster.
const NODE_IMAGE: &str = "kindest/node:v1.20.2";
/// What runs in a container in which nothing listens.
const IDLE: &str = "/bin/busybox sleep 100000";

/// A Docker daemon that runs in the lab's host namespace and keeps everything
/// in the lab's directory and cgroup.
#[derive(Debug)]
pub struct Docker {
    // Dropped first, so that the daemon is waited for before the lab is swept.
    daemon: Proc,
    lab: Lab,
    socket: PathBuf,
}

/// A running container.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its full id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its first process.
    pub pid: u32,
    /// Its network namespace.
    pub netns: Netns,
}

/// A container that is a Kubernetes node, as `kind` makes them.
#[derive(Debug)]
pub struct KindNode<'a> {
    docker: &'a Docker,
    /// The container.
    pub container: Container,
}

impl Docker {
    /// The group that may talk to the daemon, as the group `docker` elsewhere.
    pub const GROUP: u32 = 65533;

    /// A new lab with a Docker daemon in it. Takes some seconds.
    ///
    /// # Errors
    /// When the daemon does not start with any storage driver.
    pub fn start() -> Result<Self> {
        Self::start_with("10.213.0.1/24", "10.214.0.0/16", &[])
    }

    /// The same with addresses of its own, and with more options for `dockerd`:
    /// several daemons at the same time should not give out the same addresses.
    ///
    /// # Errors
    /// As [`Docker::start`].
    pub fn start_with(bridge: &str, pool: &str, options: &[&str]) -> Result<Self> {
        let lab = Lab::new()?;
        let pool = format!("base={pool},size=24");
        let mut more = vec!["--bip", bridge, "--default-address-pool", &pool];
        more.extend(options);
        // Copying all files is slow, but works on any file system.
        let mut errors = String::new();
        for driver in ["overlay2", "vfs"] {
            match daemon(&lab, driver, &more) {
                Ok((daemon, socket)) => {
                    let docker = Self { daemon, lab, socket };
                    docker.import()?;
                    return Ok(docker);
                }
                Err(error) => write!(errors, "\nwith {driver}: {error:#}")?,
            }
        }
        bail!("dockerd does not start: {errors}")
    }

    /// One lab with Docker for all tests of this process; the lab's watcher
    /// removes it when the process ends.
    ///
    /// # Errors
    /// As [`Docker::start`], the same for every caller.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Docker, String>> = OnceLock::new();
        let docker = SHARED.get_or_init(|| Self::start().map_err(|error| format!("{error:#}")));
        docker.as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// The lab around it.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.daemon.pid
    }

    /// The daemon's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs the `docker` command and returns what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("docker");
        command.arg("--host").arg(format!("unix://{}", self.socket.display())).args(args);
        command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT");
        command.env("DOCKER_CONFIG", self.lab.dir());
        checked(&mut command).map(|out| out.trim().to_owned())
    }

    /// A network of its own for containers.
    ///
    /// # Errors
    /// When Docker refuses it, for example since the subnet is taken.
    pub fn network(&self, name: &str, subnet: &str) -> Result<()> {
        self.cli(&["network", "create", "--subnet", subnet, name]).map(drop)
    }

    /// Starts a container that runs `lab-helper ARGS…` and waits until it
    /// listens on everything it was told. `options` and `args` are split at
    /// spaces.
    ///
    /// # Errors
    /// When Docker can't start it, or it does not listen.
    pub fn run(&self, name: &str, options: &str, args: &str) -> Result<Container> {
        let command = format!("/bin/lab-helper {args}");
        let container = self.start_container(name, IMAGE, options, &command)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.cli(&["logs", &container.id])?.contains("holders") {
            if Instant::now() > deadline {
                bail!("{name} does not listen: {args}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(container)
    }

    /// Starts a container in which nothing listens.
    ///
    /// # Errors
    /// When Docker can't start it.
    pub fn idle(&self, name: &str, options: &str) -> Result<Container> {
        self.start_container(name, IMAGE, options, IDLE)
    }

    /// Starts a container that looks like a control-plane node of the kind
    /// cluster `cluster`, with no component running yet.
    ///
    /// # Errors
    /// When Docker can't start it.
    pub fn kind_node(&self, name: &str, cluster: &str, options: &str) -> Result<KindNode<'_>> {
        let options = format!(
            "--hostname {name} --label io.x-k8s.kind.cluster={cluster} \
             --label io.x-k8s.kind.role=control-plane {options}"
        );
        let container = self.start_container(name, NODE_IMAGE, &options, IDLE)?;
        Ok(KindNode { docker: self, container })
    }

    fn start_container(
        &self,
        name: &str,
        image: &str,
        options: &str,
        command: &str,
    ) -> Result<Container> {
        let mut args = vec!["run", "--detach", "--name", name];
        args.extend(options.split_whitespace());
        args.push(image);
        args.extend(command.split_whitespace());
        let id = self.cli(&args)?;
        let pid = self.cli(&["inspect", "--format", "{{.State.Pid}}", &id])?.parse()?;
        let inode = netns_inode(pid).with_context(|| format!("{name} has exited"))?;
        self.lab.adopt(inode);
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        Ok(Container {
            id,
            name: name.to_owned(),
            pid,
            netns: Netns { name: name.to_owned(), path, inode },
        })
    }

    /// Makes the image from what is on this machine.
    fn import(&self) -> Result<()> {
        let root = self.lab.rootfs()?;
        let tar = self.lab.dir().join("image.tar");
        checked(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."))?;
        self.cli(&["import", tar.to_str().context("path of the image")?, IMAGE])?;
        self.cli(&["tag", IMAGE, NODE_IMAGE])?;
        Ok(())
    }
}

impl Container {
    /// Its addresses on Docker's networks.
    ///
    /// # Errors
    /// When Docker does not know it any more.
    pub fn addresses(&self, docker: &Docker) -> Result<Vec<String>> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        let text = docker.cli(&["inspect", "--format", format, &self.id])?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// Its only address.
    ///
    /// # Errors
    /// When it has none or several.
    pub fn address(&self, docker: &Docker) -> Result<String> {
        match self.addresses(docker)?.as_slice() {
            [address] => Ok(address.clone()),
            other => Err(anyhow!("{} has the addresses {other:?}", self.name)),
        }
    }
}

impl<'a> KindNode<'a> {
    /// Starts `lab-helper listen ARGS` as the container `container_id` of the
    /// pod `pod_uid` on this node: in an inner cgroup and an inner PID
    /// namespace, in the node's network namespace, under the name and with the
    /// arguments `argv`. The process that listens is the last one returned.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn component(
        &self,
        pod_uid: &str,
        container_id: &str,
        args: &str,
        argv: &[&str],
    ) -> Result<(Proc, u32)> {
        self.contained(None, pod_uid, container_id, args, argv)
    }

    /// The Docker that it is a container of.
    pub(crate) fn docker(&self) -> &'a Docker {
        self.docker
    }

    /// A command in this node, in its cgroup `group`, which is returned, too.
    pub(crate) fn command(&self, group: &str, argv: &[&str]) -> Result<(Command, PathBuf)> {
        let group = self.group(group)?;
        let pid = self.container.pid.to_string();
        let mut command = vec!["nsenter", "-t", &pid, "-m", "-u", "-i", "-n", "-p", "--"];
        command.extend(argv);
        Ok((self.docker.lab.command_in(None, &group, None, &command)?, group))
    }

    /// The cgroup `group` below the node's own, made when it is not there.
    fn group(&self, group: &str) -> Result<PathBuf> {
        let own = self.docker.lab.cgroup().join("docker").join(&self.container.id);
        let group = own.join(group);
        std::fs::create_dir_all(&group).with_context(|| format!("making {}", group.display()))?;
        Ok(group)
    }

    /// Moves a process to the node's cgroup `group`.
    pub(crate) fn move_to(&self, group: &str, pid: i32) -> Result<()> {
        let group = self.group(group)?;
        std::fs::write(group.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("moving {pid} to {}", group.display()))
    }

    fn contained(
        &self,
        netns: Option<&Netns>,
        pod_uid: &str,
        container_id: &str,
        args: &str,
        argv: &[&str],
    ) -> Result<(Proc, u32)> {
        let pods = format!("kubelet/kubepods/burstable/pod{pod_uid}/{container_id}");
        // Its parents belong to the node, as containerd's shim does.
        let more = ["--pidns", "--under", "containerd-shim"];
        let (proc, shims) =
            self.start(netns, "system.slice/containerd.service", args, &more, argv)?;
        // Only the listener itself is in three PID namespaces: ours, the node's, its own.
        let inner = crate::cgroup::processes(&shims).into_iter().find(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            status.is_ok_and(|text| {
                let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
                line.is_some_and(|pids| pids.split_whitespace().count() == 3)
            })
        });
        let inner = inner.context("the component is not in its cgroup")?;
        self.move_to(&pods, inner)?;
        Ok((proc, u32::try_from(inner)?))
    }

    /// The same in a pod with a network namespace of its own.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn pod(
        &self,
        netns: &Netns,
        pod_uid: &str,
        container_id: &str,
        args: &str,
        argv: &[&str],
    ) -> Result<(Proc, u32)> {
        self.contained(Some(netns), pod_uid, container_id, args, argv)
    }

    /// The same for a process of the node itself, in the cgroup of its `unit`.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn daemon(&self, unit: &str, args: &str, argv: &[&str]) -> Result<Proc> {
        Ok(self.start(None, &format!("system.slice/{unit}"), args, &[], argv)?.0)
    }

    /// A listener in this node and in the cgroup `group` below the node's own.
    fn start(
        &self,
        netns: Option<&Netns>,
        group: &str,
        args: &str,
        more: &[&str],
        argv: &[&str],
    ) -> Result<(Proc, PathBuf)> {
        let node = &self.container;
        let lab = &self.docker.lab;
        let group = self.group(group)?;
        let pid = node.pid.to_string();
        let net = match netns {
            Some(netns) => format!("--net={}", netns.path.display()),
            None => "--net".to_owned(),
        };
        let mut command = vec!["nsenter", "-t", &pid, "-m", "-u", "-i", &net, "-p", "--"];
        command.extend(["/bin/lab-helper", "listen"]);
        command.extend(args.split_whitespace());
        command.extend(more);
        command.push("--imitate");
        command.extend(argv);
        let proc = Proc::wait_ready(lab.command_in(None, &group, None, &command)?)
            .with_context(|| format!("a component of {}", node.name))?;
        Ok((proc, group))
    }
}

fn daemon(lab: &Lab, driver: &str, more: &[&str]) -> Result<(Proc, PathBuf)> {
    let at = |name: &str| lab.dir().join(name).display().to_string();
    let socket = lab.dir().join("d.sock");
    // A file of its own, or the machine's settings would mix in.
    std::fs::write(at("daemon.json"), "{}")?;
    let log = std::fs::File::create(at("dockerd.log"))?;
    let host = format!("unix://{}", socket.display());
    let group = format!("/{}/docker", lab.name());
    let (data, exec) = (at(&format!("data-{driver}")), at("exec"));
    let (pidfile, config) = (at("d.pid"), at("daemon.json"));
    let mut argv = vec![
        "dockerd",
        "--host",
        &host,
        "--config-file",
        &config,
        "--data-root",
        &data,
        "--exec-root",
        &exec,
        "--pidfile",
        &pidfile,
        "--iptables=true",
        "--cgroup-parent",
        &group,
        "--exec-opt",
        "native.cgroupdriver=cgroupfs",
        "--storage-driver",
        driver,
    ];
    argv.extend(more);
    let mut command = lab.command(lab.host(), &argv)?;
    command.env_remove("DOCKER_HOST").stdout(Stdio::null()).stderr(log);
    let mut proc = Proc::started(command.spawn().context("starting dockerd")?);
    let deadline = Instant::now() + Duration::from_secs(40);
    while ping(&socket).is_err() {
        if proc.has_exited()? || Instant::now() > deadline {
            let log = std::fs::read_to_string(at("dockerd.log")).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(5).collect();
            bail!("no answer on {}: {}", socket.display(), end.join(" | "));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    std::os::unix::fs::chown(&socket, None, Some(Docker::GROUP))?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660))?;
    Ok((proc, socket))
}

fn ping(socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
    let mut answer = [0_u8; 12];
    stream.read_exact(&mut answer)?;
    if answer.ends_with(b"200") { Ok(()) } else { bail!("the daemon is not ready") }
}
