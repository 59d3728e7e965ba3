//! The node that is measured on: processes with sockets, in a private network
//! namespace.
//!
//! Every process is this program again (`xtask bench-node`). It opens what it is
//! told to, says so on its standard output, and waits for its standard input to
//! end. The other end of that is held by the bench alone, so that the processes
//! end with it, however it ends.

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::sh;

/// The sizes of node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// 8,000 listeners and 8,000 other descriptors in 8 processes, and 300
    /// processes that do nothing.
    Big,
    /// Three listeners.
    Small,
}

/// What one process of a node opens.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct HelperArgs {
    /// The first of its ports.
    #[arg(long)]
    first_port: u16,
    /// How many ports it listens on.
    #[arg(long)]
    listeners: u16,
    /// How many other descriptors it opens.
    #[arg(long)]
    extra: u16,
}

/// Processes that hold sockets until this is dropped.
pub(crate) struct Node {
    helpers: Vec<(HelperArgs, Child)>,
    /// `None` while dropping.
    leash: Option<PipeWriter>,
}

const FIRST_PORT: u16 = 20_000;

impl Size {
    fn helpers(self) -> Vec<HelperArgs> {
        match self {
            Self::Small => vec![HelperArgs { first_port: FIRST_PORT, listeners: 3, extra: 0 }],
            Self::Big => {
                let busy = (0..8).map(|n| HelperArgs {
                    first_port: FIRST_PORT + 1_000 * n,
                    listeners: 1_000,
                    extra: 1_000,
                });
                let idle = HelperArgs { first_port: FIRST_PORT, listeners: 0, extra: 0 };
                busy.chain(std::iter::repeat_n(idle, 300)).collect()
            }
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Big => "big",
            Self::Small => "small",
        })
    }
}

impl Node {
    /// Starts the processes and waits until they have opened everything.
    pub(crate) fn start(size: Size) -> Result<Self> {
        Self::of(size.helpers())
    }

    /// A node with so many listeners, in up to eight processes.
    pub(crate) fn listening(listeners: u16) -> Result<Self> {
        let each = listeners.div_ceil(8);
        let helper = |n: u16| HelperArgs {
            first_port: FIRST_PORT + each * n,
            listeners: each.min(listeners.saturating_sub(each * n)),
            extra: each,
        };
        Self::of((0..8).map(helper).filter(|args| args.listeners > 0).collect())
    }

    fn of(helpers: Vec<HelperArgs>) -> Result<Self> {
        let (reader, writer) = std::io::pipe().context("making a pipe")?;
        let mut node = Self { helpers: Vec::new(), leash: Some(writer) };
        for args in helpers {
            let child = args.start(&reader)?;
            node.helpers.push((args, child));
        }
        for (args, child) in &mut node.helpers {
            let stdout = child.stdout.take().context("a helper without standard output")?;
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).context("waiting for a helper")?;
            ensure!(line == READY, "a helper could not open {args:?}, see above");
        }
        Ok(node)
    }

    /// Every listener and the process that holds it.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = (u16, u32)> {
        self.helpers.iter().flat_map(|(args, child)| {
            let pid = child.id();
            (args.first_port..args.first_port + args.listeners).map(move |port| (port, pid))
        })
    }

    /// The port that is asked for: one in the middle.
    pub(crate) fn asked_port(&self) -> u16 {
        let count = self.listeners().count();
        self.listeners().nth(count / 2).map_or(FIRST_PORT, |(port, _pid)| port)
    }

    /// Who holds `port`.
    pub(crate) fn holder(&self, port: u16) -> Option<u32> {
        self.listeners().find(|(held, _pid)| *held == port).map(|(_port, pid)| pid)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.leash = None;
        for (_args, child) in &mut self.helpers {
            // It ends by itself now; one that can't be waited for is gone.
            let _gone = child.wait();
        }
    }
}

impl HelperArgs {
    fn start(&self, leash: &PipeReader) -> Result<Child> {
        Command::new(std::env::current_exe().context("finding this program")?)
            .arg("bench-node")
            .arg(format!("--first-port={}", self.first_port))
            .arg(format!("--listeners={}", self.listeners))
            .arg(format!("--extra={}", self.extra))
            .stdin(Stdio::from(leash.try_clone().context("copying a pipe")?))
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a helper")
    }
}

const READY: &str = "ready\n";

/// The helper: opens, says so, and holds until its standard input ends.
pub(crate) fn help(args: &HelperArgs) -> Result<()> {
    raise_limit(u64::from(args.listeners) + u64::from(args.extra) + 16)?;
    let ports = args.first_port..args.first_port + args.listeners;
    let listeners = ports
        .map(|port| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                .with_context(|| format!("listening on port {port}"))
        })
        .collect::<Result<Vec<_>>>()?;
    let others = others(args.extra.into()).context("opening other descriptors")?;

    let mut stdout = std::io::stdout();
    stdout.write_all(READY.as_bytes()).and_then(|()| stdout.flush()).context("saying ready")?;
    std::io::stdin().read_to_end(&mut Vec::new()).context("waiting for the end")?;
    drop((listeners, others));
    Ok(())
}

/// `count` descriptors of the kinds that a server has besides sockets.
fn others(count: usize) -> Result<Vec<OwnedFd>> {
    let mut open = Vec::with_capacity(count + 4);
    while open.len() < count {
        open.push(File::open("/dev/null")?.into());
        open.push(rustix::event::eventfd(0, rustix::event::EventfdFlags::empty())?);
        let (reader, writer) = std::io::pipe()?;
        open.extend([OwnedFd::from(reader), OwnedFd::from(writer)]);
    }
    open.truncate(count);
    Ok(open)
}

/// Lets this process open `needed` descriptors.
fn raise_limit(needed: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    ensure!(
        needed <= maximum,
        "{needed} descriptors are needed and {maximum} allowed: raise the hard limit (ulimit -Hn)"
    );
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).context("raising the limit of open files")
}

/// Does `work` on a thread whose network and mount namespaces are new, and whose
/// children's therefore are too. They go when the last of them has ended, and with
/// them whatever was mounted and pinned.
pub(crate) fn in_private_namespaces<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter_new_namespaces()?;
            work()
        });
        thread.join().map_err(|_panic| anyhow!("the measuring thread panicked"))?
    })
}

/// Where `whereis-port pin` looks for a bpffs first.
const BPFFS: &str = "/sys/fs/bpf";
/// Where it mounts one where there is none.
const OWN_BPFFS: &str = "/run/whereis-port/bpf";

/// Whatever is pinned can't be found while this lives.
pub(crate) struct NoPins(());

impl NoPins {
    /// Covers the bpffs with an empty one, in the mount namespace of this thread.
    pub(crate) fn new() -> Result<Self> {
        mount_bpffs().context("covering what is pinned")?;
        Ok(Self(()))
    }
}

impl Drop for NoPins {
    fn drop(&mut self) {
        // What could keep it busy has ended; and detaching doesn't ask.
        let _detached = unmount(BPFFS, UnmountFlags::DETACH);
    }
}

fn mount_bpffs() -> Result<()> {
    let none: Option<&std::ffi::CStr> = None;
    mount("bpf", BPFFS, "bpf", MountFlags::empty(), none)
        .with_context(|| format!("mounting bpffs at {BPFFS}"))
}

fn enter_new_namespaces() -> Result<()> {
    let new = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    #[expect(unsafe_code, reason = "unshare of namespaces; only file sharing can be unsound")]
    // SAFETY: NEWNET and NEWNS change no descriptor or memory that another thread uses.
    unsafe { unshare_unsafe(new) }.context("making a network and a mount namespace")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("keeping mounts private")?;
    mount_bpffs()?;
    // Pins of this machine would be found there: they are not seen in here.
    while unmount(OWN_BPFFS, UnmountFlags::DETACH).is_ok() {}
    sh::capture(Command::new("ip").args(["link", "set", "lo", "up"])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_big_node_has_what_its_description_says() {
        let helpers = Size::Big.helpers();
        let sum = |count: fn(&HelperArgs) -> u16| {
            helpers.iter().map(|args| u32::from(count(args))).sum::<u32>()
        };
        assert_eq!(sum(|args| args.listeners), 8_000);
        assert_eq!(sum(|args| args.extra), 8_000);
        assert_eq!(helpers.len(), 308);
        assert_eq!(Size::Small.helpers().len(), 1);
    }

    #[test]
    fn other_descriptors_are_as_many_as_asked() {
        assert_eq!(others(10).unwrap().len(), 10);
    }
}
