//! Where forwarders lead that do not say it in their arguments: what they hold, what they
//! answer at sockets of their own, and what a daemon of their user publishes.
//!
//! A process can call itself anything and name any path. A socket that it names counts when
//! the kernel says that this very process listens there, and then as its own word.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::asking::{DaemonFailure, RequestLimits, SocketPeer};
use super::super::held;
use super::super::procs as procfs;
use super::super::reader::{OpenedSocket, Responder};
use super::super::safefs::Unreadable;
use super::asked::is_api;
use super::docker;
use super::exchange::{body, exchange};
use super::procs::option_values;
use super::{Containers, RuntimesState};
use whereis_port_model::{
    Container, Forwarded, Gap, GapKind, GapSource, Impact, NetnsId, Pid, Port, Process, Proto,
    Read, Relay, Teller, ToldBy,
};

/// The longest answer of a forwarder that is read, in bytes, and how many ports of it count.
const ANSWER: usize = 1 << 20;
const FORWARDS: usize = 8192;
/// How many threads are asked for their children, and how many of those are looked at.
const TASKS: usize = 256;

/// In what way a forwarder is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    Rootlesskit,
    Slirp,
}

impl Containers {
    /// What a process that forwards ports shows beyond its arguments.
    pub(in super::super) fn relay(&self, process: &Process) -> Read<Relay> {
        let mut state = self.state();
        if let Some(known) = state.relays.get(&process.pid) {
            return known.clone();
        }
        let mut read = Read::<Relay>::default();
        read.value.netns = self.held_by(process.pid, &mut read.gaps);
        if let Some((api, path)) = api(process) {
            match self.ask_forwarder(&mut state, process.pid, api, &path) {
                Ok(forwards) => {
                    read.value.forwards = forwards;
                    read.value.socket = Some(path.display().to_string());
                }
                Err(failure) => {
                    let told = ToldBy::new(Teller::Forwarder, path.display().to_string());
                    let source = GapSource::new(GapKind::Runtime, told.to_string());
                    read.gaps.push(Gap::new(Impact::Way, source, failure.to_string()));
                }
            }
        }
        if process.comm == "rootlessport" {
            read.value.containers = self.published_by(&mut state, process.pid, &mut read.gaps);
        }
        state.relays.insert(process.pid, read.clone());
        read
    }

    /// The namespaces that a process, or a child of its, is in or has a descriptor of.
    fn held_by(&self, pid: Pid, gaps: &mut Vec<Gap>) -> Vec<NetnsId> {
        let mut found = std::collections::BTreeSet::new();
        let Ok(dir) = procfs::open_dir(rustix::fs::CWD, self.procs.dir(pid)) else {
            return Vec::new();
        };
        let (held, untold) = held::of_process(self.procs.reader(), dir.as_fd());
        found.extend(held);
        if let Some(error) = untold {
            let source = GapSource::new(GapKind::Descriptors, format!("descriptors of {pid}"));
            gaps.push(Gap::new(Impact::Way, source, error.to_string()));
        }
        let tasks = procfs::open_dir(&dir, c"task").and_then(|tasks| {
            let mut all = Vec::new();
            procfs::each_number(tasks, |tid, _| {
                all.push(tid);
                all.len() < TASKS
            })?;
            Ok(all)
        });
        for tid in tasks.unwrap_or_default() {
            let path = format!("task/{tid}/children");
            let children = super::super::files::read(&dir, path, super::super::files::SMALL);
            let children = children.unwrap_or_default().text();
            let pids = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
            found.extend(pids.take(TASKS).filter_map(|child: Pid| self.procs.netns(child)));
            // A thread can be elsewhere than its process.
            found.extend(
                procfs::inode_link(&dir, format!("task/{tid}/ns/net"), b"net:").ok().flatten(),
            );
        }
        found.into_iter().map(NetnsId::Inode).collect()
    }

    /// What a forwarder says at its own socket.
    fn ask_forwarder(
        &self,
        state: &mut RuntimesState,
        pid: Pid,
        api: Api,
        path: &Path,
    ) -> Result<Vec<Forwarded>, DaemonFailure> {
        let uid = self.procs.who(pid).ok_or(DaemonFailure::NotFound)?.uid;
        let socket = self.socket_of(pid, path)?;
        let mut budget = state.budget(self.limits);
        let time = budget.grant(self.limits.time, false, false).ok_or(DaemonFailure::NotAsked)?;
        let limits = RequestLimits { time, bytes: ANSWER };
        let began = std::time::Instant::now();
        let answer = self.procs.tokio().ask(limits, async |connections| {
            // In another PID namespace it has no number here; its user is what is left.
            let is_meant = |peer: SocketPeer| match peer.pid.is_none_or(|peer| peer == pid) {
                true if peer.uid == uid => Ok(()),
                _ => Err(DaemonFailure::Unreachable("another process listens there".to_owned())),
            };
            exchange(&socket, &connections, ANSWER, is_meant, api.question()).await
        });
        budget.spend(began);
        state.budget = Some(budget);
        api.parse(&answer?).ok_or_else(|| {
            DaemonFailure::Garbage("it is not in the form that is expected".to_owned())
        })
    }

    /// A socket as the process that names it sees it, or, of one that has shut itself in, as
    /// it saw it before.
    fn socket_of(&self, pid: Pid, path: &Path) -> Result<OpenedSocket, DaemonFailure> {
        let opened = self.procs.root(pid).and_then(|root| root.socket(path));
        let found = opened.or_else(|error| match error {
            Unreadable::Silent(_) | Unreadable::LeftOut(_) => Err(error),
            _ => {
                let root = self.procs.reader().open(&self.root, Responder::own(&self.root))?;
                root.part_of_others(&path.display().to_string()).socket(path)
            }
        });
        found.map_err(|error| match error {
            Unreadable::Denied => DaemonFailure::Denied,
            error => DaemonFailure::Unreachable(error.to_string()),
        })
    }

    /// The containers that daemons of a process's user say to publish ports of.
    fn published_by(
        &self,
        state: &mut RuntimesState,
        pid: Pid,
        gaps: &mut Vec<Gap>,
    ) -> Vec<Container> {
        let (Some(who), Some(chain)) = (self.procs.who(pid), self.procs.chain(pid)) else {
            return Vec::new();
        };
        self.find_daemons(state);
        self.look_up_sockets(state, &chain, &who, is_api);
        let mut budget = state.budget(self.limits);
        let mut found: Vec<Container> = Vec::new();
        let speaks = |uid: u32, place: &[_]| uid == who.uid && super::same(place, &chain);
        for daemon in state.daemons().filter(|d| speaks(d.who.uid, &d.chain)) {
            match daemon.ask(&mut budget, docker::DockerClient::list) {
                Ok(listed) => found.extend(listed.into_iter().map(|summary| {
                    let mut container = docker::from_summary(daemon.runtime, summary);
                    container.via = daemon.name();
                    container
                })),
                Err(failure) => gaps.push(daemon.gap(&failure)),
            }
        }
        state.budget = Some(budget);
        found.retain(|container| container.ports.iter().any(|port| port.host_port.is_some()));
        found
    }
}

/// Where a forwarder's arguments say that it can be asked.
fn api(process: &Process) -> Option<(Api, PathBuf)> {
    let option = |names: &[&str]| {
        let values = option_values(&process.cmdline, names);
        values.first().filter(|path| path.starts_with('/')).map(PathBuf::from)
    };
    match process.comm.as_str() {
        "rootlesskit" => Some((Api::Rootlesskit, option(&["--state-dir"])?.join("api.sock"))),
        "slirp4netns" => Some((Api::Slirp, option(&["-a", "--api-socket"])?)),
        _ => None,
    }
}

impl Api {
    fn question(self) -> &'static [u8] {
        match self {
            // Of HTTP 1.0 the answer comes in one piece, and the connection ends with it.
            Self::Rootlesskit => b"GET /v1/ports HTTP/1.0\r\nHost: rootlesskit\r\n\r\n",
            Self::Slirp => br#"{"execute": "list_hostfwd"}"#,
        }
    }

    fn parse(self, answer: &[u8]) -> Option<Vec<Forwarded>> {
        let all: Vec<Forwarded> = match self {
            Self::Rootlesskit => {
                let ports: Vec<RootlesskitStatus> = serde_json::from_slice(body(answer)?).ok()?;
                ports.into_iter().take(FORWARDS).filter_map(|port| port.spec.forwarded()).collect()
            }
            Self::Slirp => {
                let answer: Slirp = serde_json::from_slice(answer).ok()?;
                let (Slirp::Wrapped { r#return: all } | Slirp::Bare(all)) = answer;
                let entries = all.entries.into_iter().take(FORWARDS);
                entries.filter_map(SlirpEntry::forwarded).collect()
            }
        };
        Some(all)
    }
}

/// An element of rootlesskit's `GET /v1/ports` (`pkg/port`, `Status`).
#[derive(Deserialize)]
struct RootlesskitStatus {
    spec: RootlesskitSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RootlesskitSpec {
    proto: String,
    #[serde(default, rename = "parentIP")]
    parent_ip: String,
    parent_port: u16,
    child_port: u16,
    #[serde(default, rename = "childIP")]
    child_ip: String,
}

impl RootlesskitSpec {
    fn forwarded(self) -> Option<Forwarded> {
        Some(Forwarded {
            // `tcp4` and `udp6` are of one family.
            proto: proto(self.proto.trim_end_matches(['4', '6']))?,
            host_ip: self.parent_ip.parse().ok(),
            host_port: Port(self.parent_port),
            to: self.child_ip.parse().ok(),
            to_port: Port(self.child_port),
        })
    }
}

/// What slirp4netns answers to `list_hostfwd` (`api.c`): 1.2.0 leaves out the `return` that
/// its documents have.
#[derive(Deserialize)]
#[serde(untagged)]
enum Slirp {
    Wrapped { r#return: SlirpEntries },
    Bare(SlirpEntries),
}

#[derive(Deserialize)]
struct SlirpEntries {
    entries: Vec<SlirpEntry>,
}

#[derive(Deserialize)]
struct SlirpEntry {
    proto: String,
    #[serde(default)]
    host_addr: String,
    host_port: u16,
    #[serde(default)]
    guest_addr: String,
    guest_port: u16,
}

impl SlirpEntry {
    fn forwarded(self) -> Option<Forwarded> {
        Some(Forwarded {
            proto: proto(&self.proto)?,
            host_ip: self.host_addr.parse().ok(),
            host_port: Port(self.host_port),
            to: self.guest_addr.parse().ok(),
            to_port: Port(self.guest_port),
        })
    }
}

fn proto(name: &str) -> Option<Proto> {
    Proto::ALL.into_iter().find(|proto| proto.as_str() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_forwarders_are_understood_and_damage_is_none() {
        // As rootlesskit 1.1.0 and slirp4netns 1.2.0 gave them.
        let body = r#"[{"id":3,"spec":{"proto":"tcp4","parentIP":"0.0.0.0","parentPort":21080,"childPort":80,"childIP":"127.0.0.1"}},{"id":4,"spec":{"proto":"udp","parentPort":53,"childPort":5353}},{"id":5,"spec":{"proto":"sctp","parentPort":1,"childPort":1}}]"#;
        let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}");
        let found = Api::Rootlesskit.parse(answer.as_bytes()).unwrap();
        let [tcp, udp] = &found[..] else { panic!("{found:?}") };
        assert_eq!((tcp.proto, tcp.host_port, tcp.to_port), (Proto::Tcp, Port(21080), Port(80)));
        assert_eq!(tcp.to.map(|to| to.to_string()).as_deref(), Some("127.0.0.1"));
        assert_eq!((udp.proto, udp.host_ip, udp.to), (Proto::Udp, None, None));
        let bare = r#"{"entries":[{"id":1,"proto":"tcp","host_addr":"0.0.0.0","host_port":8080,"guest_addr":"10.0.2.100","guest_port":80}]}"#;
        for answer in [bare.to_owned(), format!(r#"{{"return": {bare}}}"#)] {
            let found = Api::Slirp.parse(answer.as_bytes()).unwrap();
            assert_eq!((found[0].host_port, found[0].to_port), (Port(8080), Port(80)));
        }
        for damaged in ["", "{", "HTTP/1.0 500 no\r\n\r\n[]", "HTTP/1.0 200 OK\r\n\r\n{}"] {
            assert!(Api::Rootlesskit.parse(damaged.as_bytes()).is_none(), "{damaged}");
            assert!(Api::Slirp.parse(damaged.as_bytes()).is_none(), "{damaged}");
        }
    }
}
