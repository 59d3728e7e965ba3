//! Reading what another process or a container chose, without waiting for it for ever.
//!
//! A path from a command line, a mount point or a descriptor's target may lie on a file system
//! that a process or a network serves, or below one that is stacked on it. Looking there can
//! take for ever, in a state in which not even SIGKILL ends a thread, nor the process that it
//! belongs to. So all of that is done by a helper process: a copy of this one, without its
//! descriptors, that does one request after another. When it is silent for too long it is
//! killed, left behind, and another one takes its place; what it was asked for is not asked
//! for again. All helpers of one question together have so much time and no more.

mod child;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeSet;
use std::ffi::{CStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use self::child::Child;
pub(super) use self::wire::Stat;
use self::wire::{PACKET, ReadRequest, RequestOp};
use super::files;
use super::safefs::Unreadable;

/// How long one request may take, of places that the machine's root made and of all others;
/// and how long all slow ones of a question together.
const MACHINES: Patience = Patience {
    one: Duration::from_secs(1),
    all: Duration::from_millis(1500),
    quick: Duration::from_millis(100),
};
const OTHERS: Patience = Patience {
    one: Duration::from_millis(500),
    all: Duration::from_millis(1000),
    quick: Duration::from_millis(20),
};

#[derive(Debug, Clone, Copy)]
struct Patience {
    one: Duration,
    all: Duration,
    /// What is quicker than this is not counted: however many requests there are, they are
    /// work and no waiting. A busy machine is slow without anybody's ill will.
    quick: Duration,
}

/// Who has to answer. What was silent once is not asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Responder {
    name: String,
    /// Whether only root of the machine has a say in it. The others can't use up its time.
    machines: bool,
}

impl Responder {
    /// A place in the own mount namespace that nobody else named.
    pub(super) fn own(path: &Path) -> Self {
        Self { name: path.display().to_string(), machines: true }
    }

    /// What the process sees whose directory in procfs is `process`: one mount namespace, as
    /// one user sees it.
    pub(super) fn process(process: BorrowedFd<'_>) -> Self {
        let link = |fd: BorrowedFd<'_>, path: &CStr| {
            rustix::fs::readlinkat(fd, path, Vec::new())
                .ok()
                .map(|t| t.to_string_lossy().into_owned())
        };
        // Not the owner of the directory: that is root for whoever does not want to be dumped.
        let status = files::read(process, c"status", files::SMALL).unwrap_or_default().text();
        let (uid, effective) = uids(&status).unwrap_or((u32::MAX, u32::MAX));
        let mounts = link(process, c"ns/mnt");
        let own = link(rustix::fs::CWD, c"/proc/self/ns/mnt");
        let machines = (uid, effective) == (0, 0) && mounts.is_some() && mounts == own;
        let mounts = mounts.unwrap_or_else(|| {
            // Not to be told: each process counts for itself.
            rustix::fs::fstat(process)
                .map_or(String::new(), |stat| format!("process {}", stat.st_ino))
        });
        Self { name: format!("{mounts} of user {uid}"), machines }
    }

    /// One part of it, which can be silent alone.
    pub(super) fn part(mut self, part: &str) -> Self {
        self.name.push(' ');
        self.name.push_str(part);
        self
    }
}

/// The real and the effective user, from the text of `/proc/PID/status`.
fn uids(status: &str) -> Option<(u32, u32)> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let mut uids = line.split_ascii_whitespace().map_while(|uid| uid.parse().ok());
    Some((uids.next()?, uids.next()?))
}

/// The helper of one question. Started by the first request; its copies share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Reader(Arc<Mutex<ReaderState>>);

/// The helper, and what it may still cost.
#[derive(Debug)]
struct ReaderState {
    child: Option<Child>,
    /// What did not answer.
    silent: BTreeSet<String>,
    /// What is left of the time for slow requests: the machine's, and that of others.
    left: [Duration; 2],
    /// How many helpers there were.
    #[cfg(test)]
    started: usize,
}

impl Default for ReaderState {
    fn default() -> Self {
        Self {
            child: None,
            silent: BTreeSet::new(),
            left: [MACHINES.all, OTHERS.all],
            #[cfg(test)]
            started: 0,
        }
    }
}

/// A directory that is the root of what is read below it.
#[derive(Debug, Clone)]
pub(super) struct RootDirectory {
    reader: Reader,
    whose: Responder,
    root: Arc<OwnedFd>,
}

/// A socket that was opened, to be connected with.
#[derive(Debug, Clone)]
pub(super) struct OpenedSocket {
    reader: Reader,
    whose: Responder,
    fd: Arc<OwnedFd>,
    /// Whose it is, and which one.
    pub(super) stat: Stat,
}

impl Reader {
    /// Takes `path` as a root. It is one of our own paths: `/`, `/proc/PID/root`.
    pub(super) fn open(&self, path: &Path, whose: Responder) -> Result<RootDirectory, Unreadable> {
        let answer = self.ask(&whose, RequestOp::Open, 0, path, None)?;
        Ok(RootDirectory { reader: self.clone(), whose, root: Arc::new(answer.fd()?) })
    }

    /// The root of the process whose directory in procfs is `process`.
    pub(super) fn root_of(&self, process: &Path) -> Result<RootDirectory, Unreadable> {
        let directory = super::procs::open_dir(rustix::fs::CWD, process)?;
        self.open(&process.join("root"), Responder::process(directory.as_fd()))
    }

    /// The first `limit` bytes of a file of procfs whose reading waits for the memory of a
    /// process, which may be busy for ever: its command line.
    pub(super) fn of_process(
        &self,
        process: BorrowedFd<'_>,
        name: &str,
        limit: usize,
    ) -> Result<Vec<u8>, Unreadable> {
        let inode = rustix::fs::fstat(process)?.st_ino;
        let whose = Responder::process(process).part(&inode.to_string());
        Ok(self.ask(&whose, RequestOp::Proc, limit, Path::new(name), Some(process))?.content)
    }

    /// What a link of procfs in `directory` leads to, opened with O_PATH. Of a file system
    /// that need not answer nothing may be done with it.
    pub(super) fn follow(
        &self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        whose: &Responder,
    ) -> Result<(OwnedFd, Stat), Unreadable> {
        let name = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
        self.ask(whose, RequestOp::Follow, 0, name, Some(directory))?.found()
    }

    fn ask(
        &self,
        whose: &Responder,
        op: RequestOp,
        limit: usize,
        path: &Path,
        beside: Option<BorrowedFd<'_>>,
    ) -> Result<ReaderReply, Unreadable> {
        if path.as_os_str().len() >= 4096 {
            return Err(Unreadable::Failed("its path is too long".to_owned()));
        }
        let request = ReadRequest { op, limit: limit as u64, path: OsString::from(path) }.encode();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.silent.contains(&whose.name) || child::is_waited_for(&whose.name) {
            return Err(Unreadable::LeftOut("it did not answer before".to_owned()));
        }
        // Once more: a helper can be ended by whoever ends processes, or lie with the thread
        // that made it.
        state.try_to_ask(whose, &request, beside).unwrap_or_else(|| {
            let again = state.try_to_ask(whose, &request, beside);
            again.unwrap_or_else(|| Err(Unreadable::Failed("the helper process ended".to_owned())))
        })
    }
}

impl ReaderState {
    /// `None` when the helper has ended.
    fn try_to_ask(
        &mut self,
        whose: &Responder,
        request: &[u8],
        beside: Option<BorrowedFd<'_>>,
    ) -> Option<Result<ReaderReply, Unreadable>> {
        let (patience, left) = if whose.machines { (MACHINES, 0) } else { (OTHERS, 1) };
        let limit = patience.one.min(self.left[left]);
        if limit.is_zero() {
            return Some(Err(Unreadable::LeftOut("too much else did not answer".to_owned())));
        }
        let child = match self.child.take() {
            Some(child) => child,
            None => match Child::start() {
                Ok(child) => {
                    #[cfg(test)]
                    {
                        self.started += 1;
                    }
                    child
                }
                Err(error) => {
                    return Some(Err(Unreadable::LeftOut(format!(
                        "no process to read it: {error}"
                    ))));
                }
            },
        };
        let since = Instant::now();
        let answer = exchange(child.channel(), request, beside, since + limit);
        let took = since.elapsed();
        if took > patience.quick {
            self.left[left] = self.left[left].saturating_sub(took);
        }
        match answer {
            Ok(answer) => {
                self.child = Some(child);
                Some(answer)
            }
            Err(Errno::TIMEDOUT) => {
                child.leave_behind(whose.name.clone());
                self.silent.insert(whose.name.clone());
                Some(Err(Unreadable::Silent(limit)))
            }
            Err(Errno::PIPE | Errno::CONNRESET) => None,
            Err(error) => Some(Err(error.into())),
        }
    }
}

/// What the helper sent back.
#[derive(Debug)]
struct ReaderReply {
    content: Vec<u8>,
    fd: Option<OwnedFd>,
}

impl ReaderReply {
    fn fd(self) -> Result<OwnedFd, Unreadable> {
        self.fd.ok_or_else(|| Unreadable::Failed("no descriptor came back".to_owned()))
    }

    fn found(self) -> Result<(OwnedFd, Stat), Unreadable> {
        let stat = Stat::decode(&self.content);
        let stat = stat.ok_or_else(|| Unreadable::Failed("no description came back".to_owned()))?;
        Ok((self.fd()?, stat))
    }
}

fn owner(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|uid| u32::from_le_bytes(*uid))
}

fn nobody() -> Unreadable {
    Unreadable::Failed("no owner came back".to_owned())
}

/// Sends a request and waits for the whole answer. The outer error says that the helper gave
/// none.
fn exchange(
    channel: BorrowedFd<'_>,
    request: &[u8],
    beside: Option<BorrowedFd<'_>>,
    until: Instant,
) -> Result<Result<ReaderReply, Unreadable>, Errno> {
    wire::send(channel, request, beside, SendFlags::DONTWAIT)?;
    let mut header = wire::ReplyHeader::default();
    let (length, fd) = receive(channel, &mut header, until)?;
    if length != header.len() {
        return Err(Errno::CONNRESET);
    }
    let [code, length @ ..] = header;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    let mut content = Vec::new();
    while content.len() < length {
        let at = content.len();
        content.resize(at + PACKET.min(length - at), 0);
        let (read, _) = receive(channel, &mut content[at..], until)?;
        content.truncate(at + read);
    }
    Ok(match code {
        0 => Ok(ReaderReply { content, fd }),
        code => Err(wire::decode_error(code, &content)),
    })
}

fn receive(
    channel: BorrowedFd<'_>,
    packet: &mut [u8],
    until: Instant,
) -> Result<(usize, Option<OwnedFd>), Errno> {
    loop {
        match wire::receive(channel, packet, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Errno::CONNRESET),
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::TIMEDOUT);
        }
        let left = rustix::event::Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::from_borrowed_fd(channel, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

impl RootDirectory {
    /// The content of the regular file `rel`, as [`super::safefs::Root::read`] gives it.
    pub(super) fn read(&self, rel: &Path, max_bytes: usize) -> Result<Vec<u8>, Unreadable> {
        Ok(self.ask(RequestOp::Read, max_bytes, rel)?.content)
    }

    /// The content of the regular file `rel`, which is no link, and who owns it and its
    /// directory.
    pub(super) fn read_owned(
        &self,
        rel: &Path,
        max_bytes: usize,
    ) -> Result<([u32; 2], Vec<u8>), Unreadable> {
        let mut content = self.ask(RequestOp::ReadOwned, max_bytes, rel)?.content;
        let owners = owner(&content).zip(content.get(4..).and_then(owner));
        let (file, directory) = owners.ok_or_else(nobody)?;
        content.drain(..8);
        Ok(([file, directory], content))
    }

    /// Who owns `rel`.
    pub(super) fn owner(&self, rel: &Path) -> Result<u32, Unreadable> {
        owner(&self.ask(RequestOp::Owner, 0, rel)?.content).ok_or_else(nobody)
    }

    /// The names in directory `rel`. One with more than `max_entries` is refused.
    pub(super) fn list(&self, rel: &Path, max_entries: usize) -> Result<Vec<OsString>, Unreadable> {
        Ok(wire::decode_names(&self.ask(RequestOp::List, max_entries, rel)?.content))
    }

    /// The name of the first file in directory `rel` whose name ends with `suffix` and that has
    /// one of these lines. Those with `hint` in their names are looked at first, and no more
    /// than so many bytes in all.
    pub(super) fn find_line(
        &self,
        rel: &Path,
        suffix: &str,
        hint: &str,
        lines: [&str; 2],
        max_bytes: usize,
    ) -> Result<Option<String>, Unreadable> {
        let words = [rel.as_os_str().as_bytes(), suffix.as_bytes(), hint.as_bytes()];
        let words = words.into_iter().chain(lines.map(str::as_bytes));
        if words.clone().any(|word| word.contains(&0)) {
            return Ok(None);
        }
        let names: Vec<OsString> =
            words.map(|word| std::ffi::OsStr::from_bytes(word).to_owned()).collect();
        let request = OsString::from_vec(wire::encode_names(&names));
        let found = self.ask(RequestOp::FindLine, max_bytes, Path::new(&request))?.content;
        Ok(Some(String::from_utf8_lossy(&found).into_owned()).filter(|name| !name.is_empty()))
    }

    /// What is at a mount point, which no link leads to, opened with O_PATH. Of a file system
    /// that need not answer nothing may be done with it.
    pub(super) fn look(&self, point: &Path) -> Result<(OwnedFd, Stat), Unreadable> {
        self.ask(RequestOp::Look, 0, point)?.found()
    }

    /// The socket `rel`.
    pub(super) fn socket(&self, rel: &Path) -> Result<OpenedSocket, Unreadable> {
        let (fd, stat) = self.ask(RequestOp::Socket, 0, rel)?.found()?;
        let (reader, whose) = (self.reader.clone(), self.whose.clone());
        Ok(OpenedSocket { reader, whose, fd: Arc::new(fd), stat })
    }

    /// The same tree, of which a part can be silent alone.
    pub(super) fn part(&self, part: &str) -> Self {
        Self { whose: self.whose.clone().part(part), ..self.clone() }
    }

    /// The same of a part that another user has a say in.
    pub(super) fn part_of_others(&self, part: &str) -> Self {
        let mut part = self.part(part);
        part.whose.machines = false;
        part
    }

    /// The directory as a root, for tests.
    #[cfg(test)]
    pub(super) fn at(path: &Path) -> Self {
        Reader::default().open(path, Responder::own(path)).unwrap()
    }

    fn ask(&self, op: RequestOp, limit: usize, path: &Path) -> Result<ReaderReply, Unreadable> {
        self.reader.ask(&self.whose, op, limit, path, Some(self.root.as_fd()))
    }
}

impl OpenedSocket {
    /// A connection with exactly this socket, whatever happened to its path meanwhile. It is
    /// non-blocking.
    pub(super) fn connect(&self) -> Result<std::os::unix::net::UnixStream, Unreadable> {
        let nothing = Path::new("");
        let answer =
            self.reader.ask(&self.whose, RequestOp::Connect, 0, nothing, Some(self.fd.as_fd()))?;
        Ok(answer.fd()?.into())
    }
}
