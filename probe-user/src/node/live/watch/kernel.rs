//! The watch by programs in the kernel, and by conntrack's own events.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::model::{Event, Gap, Proto, SocketFilter, SourceReport};
use crate::node::live::{LiveNode, ebpf};
use crate::node::{Node as _, Wanted, Watch};

/// A running watch.
#[derive(Debug)]
pub(super) struct Kernel {
    events: ebpf::Events,
    kinds: Vec<crate::model::EventKind>,
    seen: u64,
}

impl Kernel {
    /// Starts it.
    pub(super) fn start(wanted: &Wanted) -> Result<Self, ebpf::Refused> {
        let bound = bound(wanted);
        let events = ebpf::start(&wanted.kinds, wanted.ports, bound)?;
        Ok(Self { events, kinds: wanted.kinds.clone(), seen: 0 })
    }

    fn drain(&mut self) -> Vec<Event> {
        let mut events = self.events.drain();
        // A kind may come along with another that was wanted.
        events.retain(|event| self.kinds.contains(&event.kind));
        events.sort_by_key(|event| event.at);
        self.seen += events.len() as u64;
        events
    }
}

/// The UDP sockets that are bound already.
fn bound(wanted: &Wanted) -> HashSet<u64> {
    let Ok(node) = LiveNode::new() else { return HashSet::new() };
    let netns: Vec<_> = node.netns().value.iter().map(|netns| netns.id).collect();
    let filter = SocketFilter { proto: Some(Proto::Udp), ports: wanted.ports };
    node.sockets(&netns, &filter).value.iter().map(|socket| socket.inode).collect()
}

impl Watch for Kernel {
    fn next(&mut self, timeout: Duration) -> Vec<Event> {
        let until = Instant::now() + timeout;
        loop {
            let events = self.drain();
            let left = until.saturating_duration_since(Instant::now());
            if !events.is_empty() || left.is_zero() {
                return events;
            }
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::from_borrowed_fd(self.events.fd(), PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) => {}
                // A signal: the caller knows what it means.
                Err(_) => return self.drain(),
            }
        }
    }

    fn lost(&self) -> u64 {
        self.events.lost()
    }

    fn gaps(&self) -> Vec<Gap> {
        self.events.gaps().to_vec()
    }

    fn sources(&self) -> Vec<SourceReport> {
        let report = |name: &str| SourceReport {
            name: name.to_owned(),
            ok: true,
            reason: None,
            remedy: None,
            ms: 0.0,
            detail: "attached".to_owned(),
        };
        self.events.attached().iter().map(|name| report(name)).collect()
    }
}
