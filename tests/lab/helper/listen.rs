//! Listeners of every kind, and the ways in which several processes come to
//! hold one.

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Set for a helper that was re-executed with the arguments of another program.
pub(crate) const INSTRUCTIONS: &str = "LAB_HELPER";

/// What is asked of the helper.
#[derive(Default)]
struct Wanted {
    binds: Vec<(String, SocketAddr)>,
    v6only: Option<bool>,
    reuseport: bool,
    device: Option<String>,
    connect: Option<SocketAddr>,
    dup: u32,
    fork: u32,
    pass: bool,
    in_flight: bool,
    clients: u32,
    count: u32,
    files: u32,
    raw: bool,
    answer: Option<String>,
    relay: Option<(u16, String)>,
    thread: bool,
    leader_exits: bool,
    keep_netns: bool,
    netns: Option<String>,
    pidns: bool,
    hold_for: Option<Duration>,
    comm: Option<String>,
    under: Option<String>,
    imitate: Vec<String>,
}

impl Wanted {
    fn parse(args: &[String]) -> Result<Self> {
        let mut wanted = Self::default();
        let mut args = args.iter();
        while let Some(word) = args.next() {
            let mut value = || args.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "tcp" | "udp" => {
                    let address = value()?;
                    let address =
                        address.parse().with_context(|| format!("address {address:?}"))?;
                    wanted.binds.push((word.clone(), address));
                }
                // Whether an IPv6 socket leaves IPv4 alone.
                "--v6only" => wanted.v6only = Some(value()? == "1"),
                "--reuseport" => wanted.reuseport = true,
                "--device" => wanted.device = Some(value()?.clone()),
                // A UDP socket that talks to one peer only.
                "--connect" => wanted.connect = Some(value()?.parse().context("--connect")?),
                "--dup" => wanted.dup = value()?.parse().context("--dup")?,
                "--fork" => wanted.fork = value()?.parse().context("--fork")?,
                // Hands the sockets to another process and closes them here.
                "--pass" => wanted.pass = true,
                // Puts the sockets into a message that nobody takes, and closes them.
                "--in-flight" => wanted.in_flight = true,
                // Connects to the first TCP socket so often, and accepts every other one.
                "--clients" => wanted.clients = value()?.parse().context("--clients")?,
                // Holds so many open files besides.
                "--files" => wanted.files = value()?.parse().context("--files")?,
                // Holds a raw socket for UDP besides.
                "--raw" => wanted.raw = true,
                // Tells this word to everybody who connects or sends something.
                "--answer" => wanted.answer = Some(value()?.clone()),
                // What comes to this port is carried to that of 127.0.0.1 in a namespace.
                "--relay" => {
                    let (port, netns) = value()?.split_once(':').context("--relay PORT:NETNS")?;
                    wanted.relay = Some((port.parse().context("--relay")?, netns.to_owned()));
                }
                "--count" => wanted.count = value()?.parse().context("--count")?,
                // Holds the sockets in the descriptor table of a thread only.
                "--thread" => wanted.thread = true,
                // With --thread: the first thread ends, the process goes on.
                "--leader-exits" => wanted.leader_exits = true,
                // Keeps a descriptor of --socket-netns open.
                "--keep-netns" => wanted.keep_netns = true,
                // Makes the sockets in another network namespace. With --thread
                // the thread stays there, too.
                "--socket-netns" => wanted.netns = Some(value()?.clone()),
                // Listens as process 1 of a new PID namespace.
                "--pidns" => wanted.pidns = true,
                "--for-ms" => {
                    let ms = value()?.parse().context("--for-ms")?;
                    wanted.hold_for = Some(Duration::from_millis(ms));
                }
                // A name other than that of the program.
                "--comm" => wanted.comm = Some(value()?.clone()),
                // Becomes the child of a process with this name.
                "--under" => wanted.under = Some(value()?.clone()),
                // Takes these arguments and this name, up to the end.
                "--imitate" => wanted.imitate = args.by_ref().cloned().collect(),
                other => bail!("unknown word {other:?}"),
            }
        }
        if wanted.binds.is_empty() {
            bail!("nothing to listen on");
        }
        Ok(wanted)
    }

    fn sockets(&self) -> Result<Vec<OwnedFd>> {
        self.binds.iter().map(|(proto, address)| self.socket(proto, *address)).collect()
    }

    fn socket(&self, proto: &str, address: SocketAddr) -> Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let (kind, is_tcp) = match proto {
            "tcp" => (SocketType::STREAM, true),
            _ => (SocketType::DGRAM, false),
        };
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        if is_tcp {
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        if self.reuseport {
            sockopt::set_socket_reuseport(&socket, true)?;
        }
        if let Some(device) = &self.device {
            socket2::SockRef::from(&socket).bind_device(Some(device.as_bytes()))?;
        }
        if let (true, Some(v6only)) = (address.is_ipv6(), self.v6only) {
            sockopt::set_ipv6_v6only(&socket, v6only)?;
        }
        rustix::net::bind(&socket, &address).with_context(|| format!("binding {address}"))?;
        if let Some(peer) = self.connect {
            rustix::net::connect(&socket, &peer).with_context(|| format!("connecting {peer}"))?;
        }
        if is_tcp {
            rustix::net::listen(&socket, 128)?;
        }
        Ok(socket)
    }

    /// Connections to the first TCP socket, from here; the last ones stay in its backlog.
    fn connections(&self, sockets: &[OwnedFd]) -> Result<Vec<OwnedFd>> {
        let mut made = Vec::new();
        let tcp = sockets.iter().zip(&self.binds).find(|(_, (proto, _))| proto == "tcp");
        let (Some((listener, _)), 1..) = (tcp, self.clients) else { return Ok(made) };
        // An unspecified address leads to loopback.
        let address = SocketAddr::try_from(rustix::net::getsockname(listener)?)?;
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        for _ in 0..self.clients {
            let flags = SocketFlags::CLOEXEC;
            let client = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
            rustix::net::connect(&client, &address).with_context(|| format!("to {address}"))?;
            made.push(client);
        }
        for _ in 0..self.clients / 2 {
            made.push(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?);
        }
        Ok(made)
    }

    /// The sockets, and connections to them.
    fn make(&self) -> Result<(Vec<OwnedFd>, Vec<OwnedFd>)> {
        let sockets = self.sockets()?;
        let connections = self.connections(&sockets)?;
        Ok((sockets, connections))
    }

    fn make_in(&self, netns: &str) -> Result<(Vec<OwnedFd>, Vec<OwnedFd>)> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| enter(netns).and_then(|()| self.make()))
                .join()
                .map_err(|_| anyhow::anyhow!("the thread in {netns} panicked"))?
        })
    }
}

/// `listen PROTO ADDRESS… [OPTIONS]`: says `{"ports":[…],"holders":[…]}` in one
/// line once it listens, then stays.
pub(crate) fn listen(args: &[String]) -> Result<()> {
    let mut wanted = Wanted::parse(args)?;
    if !wanted.imitate.is_empty() && std::env::var_os(INSTRUCTIONS).is_none() {
        if let Some(parent) = &wanted.under {
            std::fs::write("/proc/self/comm", parent).context("taking the parent's name")?;
            if let Some(child) = fork()? {
                return wait(child);
            }
        }
        return imitate("listen", args, &wanted.imitate);
    }
    if let Some(name) = wanted.comm.as_ref().or(wanted.imitate.first()) {
        let name = name.rsplit('/').next().unwrap_or(name);
        std::fs::write("/proc/self/comm", name).context("taking a name")?;
    }
    if wanted.pidns {
        unshare(UnshareFlags::NEWPID).context("making a PID namespace")?;
        if let Some(child) = fork()? {
            return wait(child);
        }
    }
    if wanted.thread {
        return listen_in_thread(wanted);
    }
    let _netns = match &wanted.netns {
        Some(netns) if wanted.keep_netns => Some(std::fs::File::open(netns)?),
        _ => None,
    };
    let (sockets, mut kept) = match wanted.netns.take() {
        Some(netns) => wanted.make_in(&netns)?,
        None => wanted.make()?,
    };
    for _ in 0..wanted.dup {
        for socket in &sockets {
            kept.push(rustix::io::fcntl_dupfd_cloexec(socket, 100)?);
        }
    }
    for _ in 0..wanted.files {
        kept.push(std::fs::File::open("/dev/null").context("opening many files")?.into());
    }
    if wanted.raw {
        use rustix::net::{AddressFamily, SocketType, ipproto, socket};
        let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::UDP));
        kept.push(raw.context("opening a raw socket")?);
    }
    let mut holders = vec![std::process::id()];
    for _ in 0..wanted.fork {
        match fork()? {
            None => rest(wanted.hold_for),
            Some(child) => holders.push(child),
        }
    }
    if wanted.in_flight {
        let ports = ports(&sockets)?;
        kept.extend(send_off(sockets)?);
        say_ready(&ports, &[])?;
    } else if wanted.pass {
        let ports = ports(&sockets)?;
        holders = vec![pass_on(sockets)?];
        say_ready(&ports, &holders)?;
    } else {
        say_ready(&ports(&sockets)?, &holders)?;
        match wanted.answer {
            Some(word) => crate::answer::serve(sockets, &wanted.binds, &word),
            None => {
                if let Some((port, netns)) = &wanted.relay {
                    crate::relay::serve(&sockets, &wanted.binds, *port, netns)?;
                }
                kept.extend(sockets);
            }
        }
    }
    rest(wanted.hold_for)
}

/// `flap PROTO ADDRESS`: a process listens there for a moment and exits, then
/// the next one, until killed.
pub(crate) fn flap(args: &[String]) -> Result<()> {
    let wanted = Wanted::parse(args)?;
    say_ready(&[], &[])?;
    loop {
        match fork()? {
            None => {
                let _sockets = wanted.sockets()?;
                std::thread::sleep(Duration::from_millis(2));
                std::process::exit(0);
            }
            Some(child) => wait(child)?,
        }
    }
}

/// Starts over with the arguments of another program.
pub(crate) fn imitate(mode: &str, args: &[String], argv: &[String]) -> Result<()> {
    let instructions: Vec<&str> =
        std::iter::once(mode).chain(args.iter().map(String::as_str)).collect();
    let (name, rest) = argv.split_first().context("--imitate needs a name")?;
    let error = Command::new("/proc/self/exe")
        .arg0(name)
        .args(rest)
        .env(INSTRUCTIONS, instructions.join("\x1f"))
        .exec();
    Err(error).context("starting over under another name")
}

/// `burst PROTO ADDRESS --count N`: opens the socket and closes it so often.
pub(crate) fn burst(args: &[String]) -> Result<()> {
    let wanted = Wanted::parse(args)?;
    for _ in 0..wanted.count {
        drop(wanted.sockets()?);
    }
    Ok(())
}

/// Makes the sockets in a thread whose descriptor table nobody else has.
fn listen_in_thread(wanted: Wanted) -> Result<()> {
    let leader_exits = wanted.leader_exits;
    let (sender, receiver) = mpsc::channel::<Result<Vec<u16>>>();
    std::thread::spawn(move || {
        let made = unshare(UnshareFlags::FILES)
            .context("unsharing the descriptor table")
            .and_then(|()| wanted.netns.as_deref().map_or(Ok(()), enter))
            .and_then(|()| wanted.sockets())
            .and_then(|sockets| Ok((ports(&sockets)?, sockets)));
        match made {
            Ok((ports, _sockets)) => {
                if sender.send(Ok(ports)).is_ok() {
                    rest(wanted.hold_for)
                }
            }
            Err(error) => drop(sender.send(Err(error))),
        }
    });
    let ports = receiver.recv().context("the thread is gone")??;
    say_ready(&ports, &[std::process::id()])?;
    if leader_exits {
        exit_this_thread();
    }
    rest(None)
}

/// Ends this thread, as `pthread_exit` does at the end of some `main`.
#[expect(unsafe_code, reason = "no safe function ends the first thread alone")]
fn exit_this_thread() -> ! {
    // SAFETY: nothing on this thread's stack is used by another thread, and the
    // thread does not run again.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the thread has ended")
}

/// Moves this thread into a network namespace.
pub(crate) fn enter(netns: &str) -> Result<()> {
    let file = std::fs::File::open(netns).with_context(|| format!("opening {netns}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("entering {netns}"))
}

/// Sends the sockets to a new process, which has never had them otherwise, and
/// closes them here. Returns who has them now.
fn pass_on(sockets: Vec<OwnedFd>) -> Result<u32> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, socketpair};
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let child = fork()?;
    if child.is_none() {
        drop(sockets);
        drop(ours);
        let mut space = vec![std::mem::MaybeUninit::uninit(); 4096];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0_u8];
        let mut into = [std::io::IoSliceMut::new(&mut byte)];
        recvmsg(&theirs, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut got = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                got.extend(descriptors);
            }
        }
        rustix::io::write(&theirs, b"k")?;
        rest(None)
    }
    drop(theirs);
    send(&ours, &sockets)?;
    let mut answer = [0_u8];
    if rustix::io::read(&ours, &mut answer)? != 1 {
        bail!("the receiver of the sockets is gone");
    }
    drop(sockets);
    child.context("no receiver")
}

/// Puts the sockets into the queue of a pair of sockets, which is returned, and
/// closes them here: then nobody holds them.
fn send_off(sockets: Vec<OwnedFd>) -> Result<[OwnedFd; 2]> {
    let flags = SocketFlags::CLOEXEC;
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    send(&pair.0, &sockets)?;
    Ok(pair.into())
}

fn send(over: &OwnedFd, sockets: &[OwnedFd]) -> Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = vec![std::mem::MaybeUninit::uninit(); 4096];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        bail!("too many sockets to pass in one message");
    }
    sendmsg(over, &[std::io::IoSlice::new(b"s")], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

fn ports(sockets: &[OwnedFd]) -> Result<Vec<u16>> {
    sockets
        .iter()
        .map(|socket| {
            let address = SocketAddr::try_from(rustix::net::getsockname(socket)?)?;
            Ok(address.port())
        })
        .collect()
}

pub(crate) fn say_ready(ports: &[u16], holders: &[u32]) -> Result<()> {
    let ready = serde_json::json!({ "ports": ports, "holders": holders });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{ready}").and_then(|()| out.flush()).context("saying that it listens")
}

fn rest(hold_for: Option<Duration>) -> ! {
    if let Some(time) = hold_for {
        std::thread::sleep(time);
        std::process::exit(0);
    }
    loop {
        std::thread::park();
    }
}

/// The child's id in the parent, `None` in the child.
fn fork() -> Result<Option<u32>> {
    #[expect(unsafe_code, reason = "fork has no safe form; this process has one thread here")]
    // SAFETY: only the main thread exists, so the child finds no lock held.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => Ok(None),
        pid => {
            let pid = u32::try_from(pid).map_err(|_| std::io::Error::last_os_error());
            Ok(Some(pid.context("fork")?))
        }
    }
}

fn unshare(flags: UnshareFlags) -> Result<()> {
    #[expect(unsafe_code, reason = "an unshared descriptor table can confuse I/O safety")]
    // SAFETY: every descriptor is made after this and used in this thread only.
    unsafe {
        rustix::thread::unshare_unsafe(flags)?;
    }
    Ok(())
}

fn wait(child: u32) -> Result<()> {
    let pid = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.context("a process id")?;
    loop {
        match rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map(drop).context("waiting for a child"),
        }
    }
}
