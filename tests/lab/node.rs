//! The lab itself: namespaces, links and processes.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::tool::Tool;
use crate::{cgroup, sweep};

/// A node of one's own, removed when dropped.
#[derive(Debug)]
pub struct Lab {
    name: String,
    dir: PathBuf,
    cgroup: PathBuf,
    host: Netns,
    netns: Mutex<Vec<u64>>,
    /// The watcher, and the pipe whose end tells it that this process is gone.
    reaper: Option<(Child, ChildStdin)>,
}

/// A network namespace of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netns {
    /// Its `ip netns` name.
    pub name: String,
    /// The file that pins it.
    pub path: PathBuf,
    /// Its identity.
    pub inode: u64,
}

/// A process of a lab, killed when dropped.
#[must_use = "the process is killed when this is dropped"]
#[derive(Debug)]
pub struct Proc {
    child: Child,
    /// Its id.
    pub pid: u32,
    /// The ports it listens on, in the order they were asked for.
    pub ports: Vec<u16>,
    /// Every process that holds its sockets.
    pub holders: Vec<u32>,
}

impl Lab {
    /// A new lab with one network namespace, its host, in which loopback is up.
    ///
    /// # Errors
    /// When a part of it can't be made: the lab needs root.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| {
            if let Err(error) = sweep::sweep_dead() {
                eprintln!("sweeping old labs: {error:#}");
            }
        });
        let pid = std::process::id();
        let name = format!("{}{pid}-{}", sweep::PREFIX, NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = sweep::dir(&name);
        std::fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        // Other users pass through, for the tool when it runs as one of them.
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711))?;
        let started = sweep::start_ticks(pid).context("reading our own start time")?;
        std::fs::write(dir.join("creator"), started)?;
        let mut reaper = Command::new(helper()?)
            .args(["reap", &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting lab-helper")?;
        let pipe = reaper.stdin.take().context("no pipe to lab-helper")?;

        let cgroup = cgroup::unified()?.join(&name);
        // Processes only in a leaf, or the groups beside it could have no controllers.
        std::fs::create_dir_all(cgroup.join("procs"))
            .with_context(|| format!("creating {}", cgroup.display()))?;
        let host = Netns::add(&name)?;
        let netns = Mutex::new(vec![host.inode]);
        Ok(Self { name, dir, cgroup, host, netns, reaper: Some((reaper, pipe)) })
    }

    /// The lab's name, `wp-<pid>-<n>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory for the test's files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The lab's own cgroup (version 2).
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The processes in the lab's cgroup.
    pub fn processes(&self) -> Vec<i32> {
        cgroup::processes(&self.cgroup)
    }

    /// The namespace in which the tool runs.
    pub fn host(&self) -> &Netns {
        &self.host
    }

    /// One more network namespace, `<lab>-<name>`, with loopback up.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn netns(&self, name: &str) -> Result<Netns> {
        let netns = Netns::add(&format!("{}-{name}", self.name))?;
        self.adopt(netns.inode);
        Ok(netns)
    }

    /// Counts a namespace that something else made, a container's, to this lab.
    pub fn adopt(&self, inode: u64) {
        self.netns.lock().unwrap_or_else(PoisonError::into_inner).push(inode);
    }

    /// The inodes of this lab's namespaces. Other labs may use the same ports at
    /// the same time, and the tool sees them too.
    pub fn inodes(&self) -> Vec<u64> {
        self.netns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Joins two namespaces by a pair of interfaces; for each side the
    /// interface's name and its address with prefix length.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn veth(&self, a: (&Netns, &str, &str), b: (&Netns, &str, &str)) -> Result<()> {
        let (netns_a, link_a, address_a) = a;
        let (netns_b, link_b, address_b) = b;
        netns_a.ip(&[
            "link",
            "add",
            link_a,
            "type",
            "veth",
            "peer",
            "name",
            link_b,
            "netns",
            &netns_b.name,
        ])?;
        for (netns, link, address) in [(netns_a, link_a, address_a), (netns_b, link_b, address_b)] {
            netns.address(link, address)?;
            netns.ip(&["link", "set", link, "up"])?;
        }
        Ok(())
    }

    /// A bridge in `netns` with an address.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn bridge(&self, netns: &Netns, name: &str, address: &str) -> Result<()> {
        netns.ip(&["link", "add", name, "type", "bridge"])?;
        netns.address(name, address)?;
        netns.ip(&["link", "set", name, "up"])
    }

    /// A VXLAN device, down: the kernel takes the port when it goes up.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn vxlan(&self, netns: &Netns, name: &str, vni: u32, port: u16) -> Result<()> {
        let (vni, port) = (vni.to_string(), port.to_string());
        netns.ip(&["link", "add", name, "type", "vxlan", "id", &vni, "dstport", &port, "dev", "lo"])
    }

    /// The command `argv`, to be run in `netns` and in the lab's cgroup.
    ///
    /// # Errors
    /// When `lab-helper` is not there.
    pub fn command(&self, netns: &Netns, argv: &[&str]) -> Result<Command> {
        self.command_in(Some(netns), &self.cgroup.join("procs"), None, argv)
    }

    /// The same in any of the lab's cgroups, and as another user.
    pub(crate) fn command_in(
        &self,
        netns: Option<&Netns>,
        cgroup: &Path,
        uid: Option<u32>,
        argv: &[&str],
    ) -> Result<Command> {
        ensure!(cgroup.starts_with(&self.cgroup), "not a cgroup of this lab");
        let mut command = Command::new(helper()?);
        command.arg("enter").arg("--cgroup").arg(cgroup);
        if let Some(netns) = netns {
            command.arg("--netns").arg(&netns.path);
        }
        if let Some(uid) = uid {
            command.arg("--uid").arg(uid.to_string());
        }
        command.arg("--").args(argv).stdin(Stdio::null());
        Ok(command)
    }

    /// Starts `argv` in `netns`, without its output.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn(&self, netns: &Netns, argv: &[&str]) -> Result<Proc> {
        let child =
            self.command(netns, argv)?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Proc::started(child))
    }

    /// Starts `lab-helper listen ARGS…` in `netns` and waits until it listens.
    /// `args` is split at spaces.
    ///
    /// # Errors
    /// When it does not listen, for example since the port is taken.
    pub fn listen(&self, netns: &Netns, args: &str) -> Result<Proc> {
        self.helper(netns, None, &format!("listen {args}"))
    }

    /// The same, and the process looks as if it had been started with `argv`.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn listen_like(&self, netns: &Netns, args: &str, argv: &[&str]) -> Result<Proc> {
        let helper = helper()?;
        let mut command = vec![helper.to_str().context("path of lab-helper")?, "listen"];
        command.extend(args.split_whitespace());
        command.push("--imitate");
        command.extend(argv);
        Proc::wait_ready(self.command(netns, &command)?)
            .with_context(|| format!("lab-helper listen {args} as {argv:?}"))
    }

    /// The same as user `uid`.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn listen_as(&self, netns: &Netns, uid: u32, args: &str) -> Result<Proc> {
        self.helper(netns, Some(uid), &format!("listen {args}"))
    }

    /// A port that a process opens and, by exiting, closes again all the time.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn flap(&self, netns: &Netns, args: &str) -> Result<Proc> {
        self.helper(netns, None, &format!("flap {args}"))
    }

    /// The same in `netns` and in a cgroup as Docker names it after the
    /// container `id`: a container of which only the cgroup speaks.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn listen_in_container(&self, netns: &Netns, id: &str, args: &str) -> Result<Proc> {
        let group = self.cgroup.join("docker").join(id);
        std::fs::create_dir_all(&group).with_context(|| format!("making {}", group.display()))?;
        let helper = helper()?;
        let mut argv = vec![helper.to_str().context("path of lab-helper")?, "listen"];
        argv.extend(args.split_whitespace());
        Proc::wait_ready(self.command_in(Some(netns), &group, None, &argv)?)
            .with_context(|| format!("lab-helper listen {args}"))
    }

    fn helper(&self, netns: &Netns, uid: Option<u32>, args: &str) -> Result<Proc> {
        let helper = reachable_helper(uid)?;
        let mut argv = vec![helper.to_str().context("path of lab-helper")?];
        argv.extend(args.split_whitespace());
        let command = self.command_in(Some(netns), &self.cgroup.join("procs"), uid, &argv)?;
        Proc::wait_ready(command).with_context(|| format!("lab-helper {args}"))
    }

    /// The tool, to be run in the lab's host namespace.
    pub fn tool(&self) -> Tool<'_> {
        Tool::new(self)
    }

    /// Asks the tool with `--json` and these arguments.
    ///
    /// # Errors
    /// When it does not end in time or its answer is no JSON.
    pub fn whereis(&self, args: &[&str]) -> Result<crate::Run> {
        self.tool().arg("--json").args(args).run()
    }

    fn remove(&mut self) -> Result<()> {
        sweep::sweep(&self.name)?;
        if let Some((mut reaper, pipe)) = self.reaper.take() {
            drop(pipe);
            reaper.wait().context("waiting for lab-helper")?;
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("removing {}: {error:#}", self.name);
        }
    }
}

impl Netns {
    fn add(name: &str) -> Result<Self> {
        checked(Command::new("ip").args(["netns", "add", name]))?;
        let path = Path::new(sweep::NETNS_DIR).join(name);
        let inode = std::fs::metadata(&path)?.ino();
        let netns = Self { name: name.to_owned(), path, inode };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// Runs `ip` on this namespace.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn ip(&self, args: &[&str]) -> Result<()> {
        checked(Command::new("ip").args(["-n", &self.name]).args(args)).map(drop)
    }

    /// Adds an address, usable at once.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn address(&self, link: &str, address: &str) -> Result<()> {
        let mut args = vec!["address", "add", address, "dev", link];
        if address.contains(':') {
            // Duplicate address detection would keep it unusable for a second.
            args.push("nodad");
        }
        self.ip(&args)
    }

    /// Removes the name. The namespace lives on while anything uses it.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn unname(&self) -> Result<()> {
        checked(Command::new("ip").args(["netns", "delete", &self.name])).map(drop)
    }
}

impl Proc {
    /// Starts a helper and waits for the line in which it says that it listens.
    pub(crate) fn wait_ready(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut out = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        let mut proc = Self::started(child);
        if line.is_empty() {
            let error = proc.child.stderr.take().map(std::io::read_to_string).transpose()?;
            bail!("{}", error.unwrap_or_default().trim());
        }
        let ready: serde_json::Value = serde_json::from_str(&line)?;
        proc.ports = serde_json::from_value(ready["ports"].clone())?;
        proc.holders = serde_json::from_value(ready["holders"].clone())?;
        Ok(proc)
    }

    /// A process that is already started.
    pub(crate) fn started(child: Child) -> Self {
        Self { pid: child.id(), child, ports: Vec::new(), holders: Vec::new() }
    }

    /// Whether it has exited.
    ///
    /// # Errors
    /// When that can't be told.
    pub fn has_exited(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// When it can't be killed.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it exits by itself.
    ///
    /// # Errors
    /// When it does not within ten seconds.
    pub fn wait(&mut self) -> Result<std::process::ExitStatus> {
        for _ in 0..1000 {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("process {} does not end", self.pid)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // It may have exited already; either way it must not stay a zombie.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// The network namespace of a process.
///
/// # Errors
/// When it has exited.
pub fn netns_inode(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/ns/net");
    Ok(std::fs::metadata(&path).with_context(|| path.clone())?.ino())
}

/// A port that nobody on this machine uses, in any namespace: for a test that
/// asks for nothing, since the tool sees every namespace there is. It differs
/// from call to call.
///
/// # Errors
/// When `/proc` can't be read.
pub fn unused_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut used = BTreeSet::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        for table in ["tcp", "tcp6", "udp", "udp6"] {
            let path = process.path().join("net").join(table);
            // Not a process, or one that has exited.
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            let local = text.lines().filter_map(|line| line.split_whitespace().nth(1));
            used.extend(local.filter_map(|local| {
                let (_, port) = local.rsplit_once(':')?;
                u16::from_str_radix(port, 16).ok()
            }));
        }
    }
    // Two test processes at the same time begin at different places. Below the
    // range from which the kernel gives ports to clients.
    let begin = std::process::id().wrapping_mul(211);
    let mut candidates = (0..20_000_u32).map(|_| {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        10_000 + begin.wrapping_add(next) % 20_000
    });
    let found = candidates.find_map(|port| u16::try_from(port).ok().filter(|p| !used.contains(p)));
    found.context("every port is in use")
}

/// Runs a command and returns what it printed, or an error with what it complained of.
pub(crate) fn checked(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The directory that cargo put the programs in: beside the test's own, one up
/// from `deps`.
pub(crate) fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the test's own program")?;
    let dir = own.parent().context("the test's program is nowhere")?;
    Ok(if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir }.to_owned())
}

pub(crate) fn helper() -> Result<PathBuf> {
    let path = programs()?.join("lab-helper");
    ensure!(path.exists(), "{} is not built: cargo build -p e2e", path.display());
    Ok(path)
}

fn reachable_helper(uid: Option<u32>) -> Result<PathBuf> {
    let helper = helper()?;
    if uid.is_some() { crate::tool::for_everyone(&helper) } else { Ok(helper) }
}
