//! Loading and attaching.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use aya::programs::Iter;
use aya::programs::iter::IterLink;
use aya::programs::links::FdLink;
use aya::{Btf, Ebpf};

use super::object::{self, Setup};
use super::place::Iterator;
use crate::live::btf::{self, KernelLayout, ProbePart};

/// Why a program can't be loaded here, and what would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::live) struct LoadError {
    /// In lower case, without a final stop.
    pub(in crate::live) reason: String,
    /// What would give it.
    pub(in crate::live) remedy: Option<String>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl LoadError {
    pub(in crate::live) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: None }
    }

    #[must_use]
    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// From an error of the library: what the kernel said is at its end.
    pub(super) fn from_error(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        // The verifier's whole log, for who asks for it with -vv.
        tracing::debug!("{what}: {error:?}");
        let mut deepest = error;
        let mut errno = None;
        loop {
            if let Some(error) = deepest.downcast_ref::<io::Error>() {
                errno = error.raw_os_error().or(errno);
            }
            match deepest.source() {
                Some(source) => deepest = source,
                None => break,
            }
        }
        match errno {
            Some(libc::EPERM | libc::EACCES) => Self::new(format!(
                "{what}: the kernel does not permit it (missing capabilities, or lockdown)"
            ))
            .remedy(
                "run as root, or with CAP_BPF and CAP_PERFMON; or have root run whereis-port pin",
            ),
            // The verifier's log would be pages long.
            _ => {
                let text = deepest.to_string();
                Self::new(format!("{what}: {}", text.lines().next().unwrap_or_default()))
            }
        }
    }
}

/// The kernel's types: ours for the offsets, the library's for the ids of iterators.
pub(super) struct Kernel {
    layout: KernelLayout,
    btf: Btf,
}

impl Kernel {
    pub(super) fn read() -> Result<Self, LoadError> {
        let layout = layout();
        check(&layout, ProbePart::Sockets)?;
        let btf = Btf::from_sys_fs()
            .map_err(|error| LoadError::from_error("reading the kernel's BTF", &error))?;
        Ok(Self { layout, btf })
    }

    /// Loads the object for iterators alone.
    pub(super) fn open(&self) -> Result<Ebpf, LoadError> {
        open(&self.layout)
    }

    /// Loads and attaches one iterator.
    pub(super) fn attach(&self, ebpf: &mut Ebpf, which: Iterator) -> Result<IterLink, LoadError> {
        let (target, part) = match which {
            Iterator::Sockets => ("task_file", ProbePart::Sockets),
            Iterator::Tasks => ("task", ProbePart::Tasks),
        };
        check(&self.layout, part)?;
        let what = format!("loading iter/{target}");
        program(ebpf, which)?
            .load(target, &self.btf)
            .map_err(|error| LoadError::from_error(&what, &error))?;
        attach(ebpf, which)
    }
}

fn open(layout: &KernelLayout) -> Result<Ebpf, LoadError> {
    let offsets = layout.offsets;
    let setup = Setup {
        offsets,
        config: 0,
        ports: u32::MAX << 16,
        pidns: 0,
        log: 0,
        buffer: None,
        drops: None,
    };
    object::open(&setup).map_err(|error| LoadError::from_error("making BPF maps", &error))
}

fn program(ebpf: &mut Ebpf, which: Iterator) -> Result<&mut Iter, LoadError> {
    let name = which.program();
    ebpf.program_mut(name)
        .ok_or_else(|| LoadError::new(format!("the object has no program {name}")))?
        .try_into()
        .map_err(|error: aya::programs::ProgramError| LoadError::from_error(name, &error))
}

/// Attaches an iterator that is loaded: there may be many links to it.
fn attach(ebpf: &mut Ebpf, which: Iterator) -> Result<IterLink, LoadError> {
    let what = format!("attaching the iterator of {}", which.program());
    let program = program(ebpf, which)?;
    let id = program.attach().map_err(|error| LoadError::from_error(&what, &error))?;
    program.take_link(id).map_err(|error| LoadError::from_error(&what, &error))
}

/// A new reading of an iterator that is loaded.
pub(super) fn again(ebpf: &mut Ebpf, which: Iterator) -> Result<File, LoadError> {
    let link = attach(ebpf, which)?;
    link.into_file().map_err(|error| LoadError::from_error("opening the iterator", &error))
}

/// Where this kernel keeps things.
pub(super) fn layout() -> KernelLayout {
    btf::read(Path::new(btf::DIRECTORY), &[])
}

/// Refuses what this kernel's layout does not allow.
pub(super) fn check(layout: &KernelLayout, part: ProbePart) -> Result<(), LoadError> {
    layout.refusal(part).map_or(Ok(()), |why| Err(LoadError::new(why)))
}

/// A new reading of an iterator that was just attached.
pub(super) fn once(which: Iterator) -> Result<(Ebpf, File), LoadError> {
    let kernel = Kernel::read()?;
    let mut ebpf = kernel.open()?;
    let link = kernel.attach(&mut ebpf, which)?;
    let file =
        link.into_file().map_err(|error| LoadError::from_error("opening the iterator", &error))?;
    Ok((ebpf, file))
}

/// Both iterators, loaded.
pub(super) fn both() -> Result<Ebpf, LoadError> {
    // First what needs the kernel's types for a moment only: they are large in memory.
    let mut ebpf = open(&layout())?;
    let kernel = Kernel::read()?;
    for which in [Iterator::Sockets, Iterator::Tasks] {
        // A link that is let go leaves its program loaded.
        drop(kernel.attach(&mut ebpf, which)?);
    }
    Ok(ebpf)
}

/// Makes an attached iterator last beyond this process.
pub(super) fn pin(link: IterLink, path: &Path) -> Result<(), LoadError> {
    let what = format!("pinning {}", path.display());
    let link = FdLink::try_from(link).map_err(|error| LoadError::from_error(&what, &error))?;
    link.pin(path).map(drop).map_err(|error| LoadError::from_error(&what, &error))
}
