//! The probe: programs in the kernel. The only module that knows aya.
//!
//! One question is answered by the cheapest of three ways: a pinned iterator
//! (one read), loading it (some fifty milliseconds before the first record), or
//! none of this (`owners`, `sockdiag`).

mod drops;
mod events;
mod load;
pub(in crate::live) mod maps;
mod object;
mod pin;
mod place;
pub(in crate::live) mod programs;
mod read;
mod records;
mod translate;

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::rc::Rc;

pub(in crate::live) use events::{EventPrograms, start};
pub(in crate::live) use load::LoadError;
pub use pin::{Pinned, group_id, pin, unpin};
pub(in crate::live) use records::ProbeReading;

use place::{Iterator, PinLookup};
use probe_common::Filter;

/// How the probe is used here.
#[derive(Debug)]
pub(in crate::live) enum ProbeMode {
    /// Its iterators are pinned.
    Pinned,
    /// They are loaded, and stay so for many readings.
    Kept(Rc<LoadedIterators>),
    /// It is not, and why not, where that can be told without trying.
    Absent(Option<LoadError>),
}

/// A reading of the socket iterator that was begun before it is needed.
#[derive(Debug)]
pub(in crate::live) struct PendingRead {
    filter: Filter,
    thread: read::Thread,
}

impl PendingRead {
    /// Its end, if it asked for this.
    pub(in crate::live) fn end(self, filter: &Filter) -> Option<io::Result<ProbeReading>> {
        (self.filter == *filter).then(|| read::end(self.thread).and_then(sockets_only))
    }
}

/// Refuses a reading of another iterator under the name of the sockets'.
fn sockets_only(reading: ProbeReading) -> io::Result<ProbeReading> {
    if reading.tasks.is_empty() {
        Ok(reading)
    } else {
        Err(io::Error::other("it is another iterator under this name"))
    }
}

impl ProbeMode {
    /// Looks for pins.
    pub(in crate::live) fn find() -> Self {
        if let Err(refused) = same_pid_namespace() {
            return Self::Absent(Some(refused));
        }
        match place::find(Iterator::Sockets) {
            PinLookup::Ready(_) => Self::Pinned,
            PinLookup::Nothing => Self::Absent(None),
            PinLookup::Denied => Self::Absent(Some(
                LoadError::new("an iterator is pinned, but not for this user")
                    .remedy("be in its group, or have root run whereis-port pin --group GROUP"),
            )),
            PinLookup::Refused(why) => Self::Absent(Some(
                LoadError::new(why).remedy("have root run whereis-port pin again"),
            )),
        }
    }

    /// Whether it can be read without loading anything.
    pub(in crate::live) fn is_ready(&self) -> bool {
        matches!(self, Self::Pinned | Self::Kept(_))
    }

    /// What readings of its sockets are called.
    pub(in crate::live) fn sockets_name(&self) -> &'static str {
        match self {
            Self::Pinned => "eBPF iterator (pinned)",
            Self::Kept(_) | Self::Absent(_) => "eBPF iterator (loaded)",
        }
    }

    /// Reads sockets with their owners, if the iterator is ready.
    pub(in crate::live) fn sockets(&self, filter: &Filter) -> Option<io::Result<ProbeReading>> {
        Some(self.read(Iterator::Sockets, filter)?.and_then(sockets_only))
    }

    /// Begins to read sockets, if the iterator is ready.
    pub(in crate::live) fn begin(&self, filter: &Filter) -> Option<PendingRead> {
        let file = self.open(Iterator::Sockets)?.ok()?;
        let thread = read::begin(file, filter).ok()?;
        Some(PendingRead { filter: *filter, thread })
    }

    /// Reads all processes with their namespaces, if the iterator is ready.
    pub(in crate::live) fn tasks(&self) -> Option<io::Result<ProbeReading>> {
        self.read(Iterator::Tasks, &Filter::ALL)
    }

    fn read(&self, which: Iterator, filter: &Filter) -> Option<io::Result<ProbeReading>> {
        Some(self.open(which)?.and_then(|file| read::read(file, filter)))
    }

    fn open(&self, which: Iterator) -> Option<io::Result<File>> {
        match self {
            Self::Pinned => match place::find(which) {
                PinLookup::Ready(file) => Some(Ok(file)),
                _ => None,
            },
            Self::Kept(kept) => Some(kept.open(which)),
            Self::Absent(_) => None,
        }
    }
}

/// The iterators, loaded for as long as this lives: for who reads the node again and
/// again. Nothing is left behind in the kernel.
#[derive(Debug)]
pub struct LoadedIterators(RefCell<aya::Ebpf>);

impl LoadedIterators {
    /// Loads them, unless they are pinned, or can't be loaded here.
    #[must_use]
    pub fn load() -> Option<Self> {
        match ProbeMode::find() {
            ProbeMode::Absent(None) => Some(Self(RefCell::new(load::both().ok()?))),
            _ => None,
        }
    }

    fn open(&self, which: Iterator) -> io::Result<File> {
        load::again(&mut self.0.borrow_mut(), which)
            .map_err(|refused| io::Error::other(refused.reason))
    }
}

/// Loads the socket iterator for one reading.
pub(in crate::live) fn load_and_read(filter: &Filter) -> Result<ProbeReading, LoadError> {
    same_pid_namespace()?;
    let (_programs, file) = load::once(Iterator::Sockets)?;
    read::read(file, filter)
        .map_err(|error| LoadError::new(format!("reading the iterator: {error}")))
}

/// Where the iterators are pinned.
pub(in crate::live) fn where_pinned() -> Option<String> {
    let is_there = |dir: &&str| matches!(place::look(dir, Iterator::Sockets), PinLookup::Ready(_));
    let dir = [place::USUAL, place::OWN].into_iter().find(is_there)?;
    Some(format!("{dir}, version {}", object::VERSION))
}

/// Loads the iterators and lets them go: whether they could be pinned.
pub(in crate::live) fn try_loading() -> Result<(), LoadError> {
    load::once(Iterator::Sockets).map(drop)
}

/// What the kernel's types do not tell, and what is off therefore, where not a
/// whole part of the probe is.
pub(in crate::live) fn missing_details() -> Vec<String> {
    let missing = load::layout().missing;
    missing.iter().filter(|missing| missing.is_detail()).map(ToString::to_string).collect()
}

/// The ids in records are those of the reader's PID namespace; `/proc` may show
/// another one's.
fn same_pid_namespace() -> Result<(), LoadError> {
    let shown = super::procs::link(rustix::fs::CWD, "/proc/self").ok();
    let own = std::process::id().to_string();
    if shown.as_deref().is_some_and(|shown| shown.as_os_str() == own.as_str()) {
        return Ok(());
    }
    Err(LoadError::new("/proc shows another PID namespace than the tool's own")
        .remedy("mount -t proc proc /proc"))
}

/// For the fuzz targets: the kernel gives what it has in parts.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    let mut reading = records::ProbeReading::default();
    if let Ok(taken) = reading.take(bytes) {
        // What is wrong with it is an answer, too.
        let _ = reading.take(bytes.get(taken..).unwrap_or_default());
    }
}
