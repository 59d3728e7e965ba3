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
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::busy;
use crate::sh;

/// The sizes of node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// 8,000 listeners and 8,000 other descriptors in 8 processes, 300 processes that do
    /// nothing, and what else a real node has: see [`busy`].
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
    /// Whether it is in a network namespace of its own, as a container is.
    #[arg(long)]
    contained: bool,
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
            Self::Small => vec![helper(FIRST_PORT, 3, 0)],
            Self::Big => {
                let serving = (0..8).map(|n| helper(FIRST_PORT + 1_000 * n, 1_000, 1_000));
                let idle = helper(FIRST_PORT, 0, 0);
                let contained = HelperArgs { contained: true, ..helper(busy::INNER_PORT, 2, 8) };
                serving
                    .chain(std::iter::repeat_n(idle, 300))
                    .chain(std::iter::repeat_n(contained, busy::NAMESPACES.into()))
                    .collect()
            }
        }
    }
}

/// One process in the namespace of the node.
fn helper(first_port: u16, listeners: u16, extra: u16) -> HelperArgs {
    HelperArgs { first_port, listeners, extra, contained: false }
}

impl Size {
    /// What is on it, for people.
    pub(crate) fn about(self) -> String {
        match self {
            Self::Big => format!(
                "Big node: 8,000 listeners and 8,000 other descriptors in 8 processes, 300 more \
                 processes, {} containers on a bridge, with a network namespace and 2 listeners each, \
                 Docker's rules for {} published ports, {},000 connections in conntrack.",
                busy::NAMESPACES,
                busy::PUBLISHED,
                busy::CONNECTIONS / 1_000,
            ),
            Self::Small => "Small node: 3 listeners.".to_owned(),
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
        let node = Self::of(size.helpers())?;
        if size == Size::Big {
            let contained = node.helpers.iter().filter(|(args, _)| args.contained);
            let processes: Vec<u32> = contained.map(|(_, child)| child.id()).collect();
            busy::connect(&processes).context("connecting containers")?;
            busy::publish().context("loading rules as Docker makes them")?;
            busy::track(FIRST_PORT, 8_000).context("making connections")?;
        }
        Ok(node)
    }

    /// A node with so many listeners, in up to eight processes.
    pub(crate) fn listening(listeners: u16) -> Result<Self> {
        let each = listeners.div_ceil(8);
        let of = |n: u16| {
            let listeners = each.min(listeners.saturating_sub(each * n));
            helper(FIRST_PORT + each * n, listeners, each)
        };
        Self::of((0..8).map(of).filter(|args| args.listeners > 0).collect())
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

    /// Every listener and the process that holds it, in all namespaces.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = (u16, u32)> {
        self.helpers.iter().flat_map(|(args, child)| args.ports().map(|port| (port, child.id())))
    }

    /// The ports in the namespace that is measured in.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> {
        let own = self.helpers.iter().filter(|(args, _)| !args.contained);
        own.flat_map(|(args, _)| args.ports())
    }

    /// The port that is asked for: one in the middle.
    pub(crate) fn asked_port(&self) -> u16 {
        let count = self.ports().count();
        self.ports().nth(count / 2).unwrap_or(FIRST_PORT)
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
    /// The ports it listens on.
    fn ports(&self) -> Range<u16> {
        self.first_port..self.first_port + self.listeners
    }

    fn start(&self, leash: &PipeReader) -> Result<Child> {
        Command::new(std::env::current_exe().context("finding this program")?)
            .arg("bench-node")
            .arg(format!("--first-port={}", self.first_port))
            .arg(format!("--listeners={}", self.listeners))
            .arg(format!("--extra={}", self.extra))
            .args(self.contained.then_some("--contained"))
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
    let address = if args.contained {
        unshare_network().context("making a container's namespace")?;
        Ipv4Addr::UNSPECIFIED
    } else {
        Ipv4Addr::LOCALHOST
    };
    let listeners = args
        .ports()
        .map(|port| {
            TcpListener::bind((address, port)).with_context(|| format!("listening on port {port}"))
        })
        .collect::<Result<Vec<_>>>()?;
    let others = others(args.extra.into()).context("opening other descriptors")?;

    let mut stdout = std::io::stdout();
    stdout.write_all(READY.as_bytes()).and_then(|()| stdout.flush()).context("saying ready")?;
    std::io::stdin().read_to_end(&mut Vec::new()).context("waiting for the end")?;
    drop((listeners, others));
    Ok(())
}

/// Gives this process, which has one thread, a network namespace of its own.
fn unshare_network() -> Result<()> {
    #[expect(unsafe_code, reason = "unshare of namespaces; only file sharing can be unsound")]
    // SAFETY: NEWNET changes no descriptor or memory that another thread uses.
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNET)?;
    }
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
        let own = |args: &&HelperArgs| !args.contained;
        assert_eq!(sum(|args| args.listeners), 8_200);
        assert_eq!(
            helpers.iter().filter(own).map(|args| u32::from(args.extra)).sum::<u32>(),
            8_000
        );
        assert_eq!(helpers.iter().filter(own).count(), 308);
        assert_eq!(helpers.len(), 408);
        assert_eq!(Size::Small.helpers().len(), 1);
    }

    #[test]
    fn other_descriptors_are_as_many_as_asked() {
        assert_eq!(others(10).unwrap().len(), 10);
    }
}
