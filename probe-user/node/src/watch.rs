//! Watching a node: what happens, when it happens.

use std::time::Duration;

use whereis_port_model::{Event, EventKind, Gap, PortRange, SourceReport};

/// Which events are watched, of which ports, and by what means.
#[derive(Debug, Clone)]
pub struct WatchRequest {
    /// The kinds of event.
    pub kinds: Vec<EventKind>,
    /// The local ports; `None` for all. Connects are told whatever their port.
    pub ports: Option<PortRange>,
    /// The ports of [`EventKind::Drop`], where they are others than `ports`.
    pub drops: Vec<PortRange>,
    /// How often readings are compared where events can't be had.
    pub interval: Duration,
    /// Whether programs in the kernel may be used where they can.
    pub ebpf: bool,
    /// How many bytes of events the kernel may have waiting: a power of two, from a page
    /// on. `None` for room for a burst of a hundred thousand, 16 MiB.
    pub buffer: Option<u32>,
}

/// A running watch. It ends, without a trace, when it is dropped.
pub trait Watch {
    /// Waits until something happens, but not longer than `timeout`. Events come
    /// in the order in which they happened. A signal ends the wait early. With a
    /// timeout of zero: what has happened up to now.
    fn next(&mut self, timeout: Duration) -> Vec<Event>;

    /// How many events were lost so far, by which source: the kernel writes faster
    /// than this is read.
    fn lost(&self) -> u64;

    /// What can't be watched, and why.
    fn gaps(&self) -> Vec<Gap>;

    /// What is watched, by which source.
    fn sources(&self) -> Vec<SourceReport>;
}
