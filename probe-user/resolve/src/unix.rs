//! Who is behind a UNIX socket, and what else has no port.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Facts;
use super::{hidden, owner, turn};
use whereis_port_model::Node;
use whereis_port_model::{
    FileId, Gap, GapKind, GapSource, Impact, LOOPBACK4, Listens, OtherPlace, OtherSocket, Pid,
    Port, Proto, Socket, SocketFile, SocketInode, SocketState, UnixAnswer, UnixClient,
    UnixListener, Verdict,
};

/// How many clients of a listener are named.
const CLIENTS: usize = 16;

/// Answers a question about a path, or with `@` about an abstract name.
pub fn unix(node: &dyn Node, target: &str) -> UnixAnswer {
    let facts = Facts::new(node);
    let all = facts.take(facts.world.other_sockets(&facts.all_netns()));
    let named = |socket: &&OtherSocket| match (&socket.at, target.strip_prefix('@')) {
        (OtherPlace::Path(path, _), None) => path == target,
        (OtherPlace::Abstract(name), Some(wanted)) => name == wanted,
        _ => false,
    };
    let file = (!target.starts_with('@')).then(|| node.socket_file(target));
    let has_file = |wanted: FileId| {
        move |socket: &&OtherSocket| match &socket.at {
            // Some file systems have a number of their own for each mount.
            OtherPlace::Path(path, Some(file)) => {
                *file == wanted || file.ino == wanted.ino && path == target
            }
            _ => false,
        }
    };
    let sockets: Vec<&OtherSocket> = match &file {
        None => all.iter().filter(named).collect(),
        Some(SocketFile::Socket(file)) => all.iter().filter(has_file(*file)).collect(),
        Some(_) => Vec::new(),
    };
    let listening: Vec<&OtherSocket> =
        sockets.iter().copied().filter(|socket| socket.listens).collect();
    let elsewhere = all
        .iter()
        .filter(|socket| socket.listens && named(socket) && !listening.contains(socket))
        .count();
    if let Some(SocketFile::Unknown(why)) = &file {
        let source = GapSource::new(GapKind::Sockets, target.to_owned());
        facts.gap(Gap::new(Impact::Port, source, why.clone()));
    }
    let listeners: Vec<UnixListener> =
        listening.iter().map(|socket| listener(&facts, socket, &sockets)).collect();
    let verdict = if listeners.is_empty() {
        // Who listens may be where nothing is seen: a socket that was mounted from there.
        hidden(&facts);
        facts.take(facts.world.unseen());
        match facts.gaps().iter().any(|gap| gap.impact <= Impact::Owner) {
            true => Verdict::Unknown,
            false => Verdict::NotFound,
        }
    } else {
        Verdict::Found
    };
    let text = target.to_owned();
    UnixAnswer { text, file, verdict, listeners, elsewhere, gaps: facts.gaps() }
}

/// Every socket without a port that takes something; `only_unix` leaves out those that see
/// packets as they are.
pub fn list_others(node: &dyn Node, only_unix: bool) -> (Vec<UnixListener>, Vec<Gap>) {
    let facts = Facts::new(node);
    let all = facts.take(facts.world.other_sockets(&facts.all_netns()));
    let wanted = |socket: &&OtherSocket| socket.listens && (!only_unix || socket.kind.is_unix());
    let sockets: Vec<&OtherSocket> = all.iter().filter(wanted).collect();
    let inodes: BTreeSet<SocketInode> = sockets.iter().map(|socket| socket.inode).collect();
    facts.owners(&inodes);
    let rows = sockets.iter().map(|socket| listener(&facts, socket, &[])).collect();
    (rows, facts.gaps())
}

/// One listener, with who has it and who of `others` is connected to it.
fn listener(facts: &Facts<'_>, socket: &OtherSocket, others: &[&OtherSocket]) -> UnixListener {
    let stand_in = stand_in(socket);
    let mut ends = owner::ends(facts, &stand_in).into_iter();
    let mut end = ends.next().unwrap_or_default();
    end.processes.extend(ends.flat_map(|other| other.processes));
    if let OtherPlace::Path(path, _) = &socket.at
        && end.processes.iter().any(turn::is_systemd)
    {
        let has = |listens: &Listens| *listens == Listens::Path(path.clone());
        let units = facts.take(facts.world.socket_units());
        end.socket_units =
            units.iter().filter(|unit| unit.listens.iter().any(has)).cloned().collect();
    }
    // What it accepted has its name, and the other end of each is a client.
    let peers: Vec<SocketInode> = others
        .iter()
        .filter(|other| !other.listens && other.at == socket.at)
        .filter_map(|other| other.peer)
        .collect();
    let inodes: BTreeSet<SocketInode> = peers.iter().copied().collect();
    let mut counts: BTreeMap<Pid, usize> = BTreeMap::new();
    if !inodes.is_empty() {
        let owners = facts.owners(&inodes);
        for inode in &peers {
            if let Some(owner) = owners.of(*inode).first() {
                *counts.entry(owner.pid).or_default() += 1;
            }
        }
    }
    let clients: Vec<UnixClient> = counts
        .iter()
        .take(CLIENTS)
        .map(|(pid, connections)| UnixClient {
            pid: *pid,
            name: facts.process(*pid).map_or_else(String::new, |p| p.name().to_owned()),
            connections: *connections,
        })
        .collect();
    let told: usize = clients.iter().map(|client| client.connections).sum();
    UnixListener {
        netns: facts.netns_ref(socket.netns),
        socket: socket.clone(),
        end,
        more: peers.len().saturating_sub(told),
        clients,
    }
}

/// A socket with a port that has the same holders: nothing of it is looked at but whose it is.
fn stand_in(socket: &OtherSocket) -> Socket {
    Socket {
        netns: socket.netns,
        proto: Proto::Tcp,
        state: SocketState::Listen,
        address: LOOPBACK4,
        port: Port(0),
        v6only: None,
        inode: socket.inode,
        uid: socket.uid.unwrap_or(u32::MAX),
        ifindex: None,
        cgroup_id: None,
        queue: None,
    }
}
