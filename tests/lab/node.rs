//! The lab itself: namespaces, links and processes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::process::Proc;
use crate::programs::{checked, for_everyone, helper};
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

    /// A network card `eth0` in each of these namespaces, all on one wire: machines
    /// beside each other, where a device pair would lead to a container.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn lan(&self, machines: &[(&Netns, &[&str])]) -> Result<()> {
        self.lan_by("eth0", machines)
    }

    /// The same of network cards with another name: a second wire.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn lan_by(&self, card: &str, machines: &[(&Netns, &[&str])]) -> Result<()> {
        let wire = self.netns(&format!("wire-{card}"))?;
        wire.ip(&["link", "add", "wire", "type", "veth", "peer", "name", "end"])?;
        for side in ["wire", "end"] {
            wire.ip(&["link", "set", side, "up"])?;
        }
        for (netns, addresses) in machines {
            let to = ["link", "add", "link", "wire", "name", card, "netns", &netns.name];
            wire.ip(&[&to[..], &["type", "macvlan", "mode", "bridge"]].concat())?;
            for address in *addresses {
                netns.address(card, address)?;
            }
            netns.ip(&["link", "set", card, "up"])?;
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
        let copy = self.helper_like(argv)?;
        let mut command = vec![copy.to_str().context("path of lab-helper")?, "listen"];
        command.extend(args.split_whitespace());
        command.push("--imitate");
        command.extend(argv);
        Proc::wait_ready(self.command(netns, &command)?)
            .with_context(|| format!("lab-helper listen {args} as {argv:?}"))
    }

    /// The helper, under the name of what it is to imitate: the tool looks at the
    /// program behind the arguments, too.
    fn helper_like(&self, argv: &[&str]) -> Result<PathBuf> {
        let name = argv.first().and_then(|program| program.rsplit('/').next());
        let copy = self.dir().join("like").join(name.context("no program to imitate")?);
        std::fs::create_dir_all(self.dir().join("like"))?;
        if !copy.exists() {
            std::fs::copy(helper()?, &copy)?;
        }
        Ok(copy)
    }

    /// A proxy that looks as if it had been started with `argv`, and passes what
    /// comes to `address` on to the targets in `file`.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn proxy(&self, netns: &Netns, address: &str, file: &str, argv: &[&str]) -> Result<Proc> {
        let copy = self.helper_like(argv)?;
        let copy = copy.to_str().context("path of lab-helper")?;
        let command = [&[copy, "proxy", address, file, "--imitate"], argv].concat();
        Proc::wait_ready(self.command(netns, &command)?)
            .with_context(|| format!("a proxy on {address} as {argv:?}"))
    }

    /// A client that connects to `address` again and again.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn knock(&self, netns: &Netns, address: &str) -> Result<Proc> {
        self.helper(netns, None, &format!("knock {address}"))
    }

    /// The same as [`Lab::listen`], as user `uid`.
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

    /// A port that one process opens and closes so many times, and then ends.
    ///
    /// # Errors
    /// When it can't.
    pub fn burst(&self, netns: &Netns, args: &str, count: u32) -> Result<()> {
        let helper = helper()?;
        let mut argv = vec![helper.to_str().context("path of lab-helper")?, "burst"];
        argv.extend(args.split_whitespace());
        let count = count.to_string();
        argv.extend(["--count", &count]);
        checked(&mut self.command(netns, &argv)?).map(drop)
    }

    /// A listener in `netns` and in a cgroup as Docker names it after the
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

    /// The same in the lab's cgroup `group`, and with the name and arguments `argv`.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn listen_in(&self, netns: &Netns, group: &str, args: &str, argv: &[&str]) -> Result<Proc> {
        let group = self.cgroup.join(group);
        std::fs::create_dir_all(&group).with_context(|| format!("making {}", group.display()))?;
        let helper = helper()?;
        let mut command = vec![helper.to_str().context("path of lab-helper")?, "listen"];
        command.extend(args.split_whitespace());
        command.push("--imitate");
        command.extend(argv);
        Proc::wait_ready(self.command_in(Some(netns), &group, None, &command)?)
            .with_context(|| format!("lab-helper listen {args} as {argv:?}"))
    }

    /// The same, and its program is called like what it imitates.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn listen_in_like(
        &self,
        netns: &Netns,
        group: &str,
        args: &str,
        argv: &[&str],
    ) -> Result<Proc> {
        let group = self.cgroup.join(group);
        std::fs::create_dir_all(&group).with_context(|| format!("making {}", group.display()))?;
        let copy = self.helper_like(argv)?;
        let mut command = vec![copy.to_str().context("path of lab-helper")?, "listen"];
        command.extend(args.split_whitespace());
        command.push("--imitate");
        command.extend(argv);
        Proc::wait_ready(self.command_in(Some(netns), &group, None, &command)?)
            .with_context(|| format!("lab-helper listen {args} as {argv:?}"))
    }

    /// The same as [`Lab::listen_like`], as user `uid`, who also owns the program.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn listen_like_a_user(
        &self,
        netns: &Netns,
        uid: u32,
        args: &str,
        argv: &[&str],
    ) -> Result<Proc> {
        let name = argv.first().and_then(|program| program.rsplit('/').next());
        let dir = self.dir().join(format!("of-{uid}"));
        let copy = dir.join(name.context("no program to imitate")?);
        if !copy.exists() {
            std::fs::create_dir_all(&dir)?;
            std::fs::copy(helper()?, &copy)?;
            std::os::unix::fs::chown(&copy, Some(uid), Some(uid))?;
        }
        let mut command = vec![copy.to_str().context("path of lab-helper")?, "listen"];
        command.extend(args.split_whitespace());
        command.push("--imitate");
        command.extend(argv);
        let command = self.command_in(Some(netns), &self.cgroup.join("procs"), Some(uid), &command);
        Proc::wait_ready(command?).with_context(|| format!("{argv:?} of user {uid}"))
    }

    /// Sockets `0`, `1`, … in `dir` that never say anything, of a process in the lab's
    /// cgroup `group`. Each connection is a line of the file `asked` beside them.
    ///
    /// # Errors
    /// When they can't be made.
    pub fn silent_in(&self, group: &str, dir: &Path, count: usize) -> Result<Proc> {
        let group = self.cgroup.join(group);
        std::fs::create_dir_all(&group).with_context(|| format!("making {}", group.display()))?;
        let (helper, count) = (helper()?, count.to_string());
        let helper = helper.to_str().context("path of lab-helper")?;
        let command = [helper, "silent", dir.to_str().context("directory")?, &count];
        Proc::wait_ready(self.command_in(None, &group, None, &command)?).context("silent sockets")
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

fn reachable_helper(uid: Option<u32>) -> Result<PathBuf> {
    let helper = helper()?;
    if uid.is_some() { for_everyone(&helper) } else { Ok(helper) }
}
