//! Who can be turned to about a process.

use schemars::JsonSchema;
use serde::Serialize;

use whereis_port_model as model;

use super::{PackageManager, SessionKind};

/// A socket unit of systemd.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SocketUnit<'a> {
    /// Its name: `ssh.socket`.
    pub name: &'a str,
    /// The service that it starts.
    pub service: &'a str,
    /// Its file.
    pub file: &'a str,
}

impl<'a> From<&'a model::SocketUnit> for SocketUnit<'a> {
    fn from(unit: &'a model::SocketUnit) -> Self {
        Self { name: &unit.name, service: &unit.service, file: &unit.file }
    }
}

/// A package of the system, or of the container that the process runs in.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Package<'a> {
    /// Whose package.
    pub manager: PackageManager,
    /// Its name; null where it could not be told.
    pub name: Option<&'a str>,
    /// Why it could not.
    pub why: Option<&'a str>,
}

impl<'a> From<&'a model::Package> for Package<'a> {
    fn from(package: &'a model::Package) -> Self {
        Self {
            manager: package.manager.into(),
            name: package.name.as_deref(),
            why: package.why.as_deref(),
        }
    }
}

/// A git repository.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Repository<'a> {
    /// Its directory, as the process sees it.
    pub directory: &'a str,
    /// The branch that is checked out.
    pub branch: Option<&'a str>,
    /// The beginning of the commit's id, where it is no branch.
    pub commit: Option<&'a str>,
}

impl<'a> From<&'a model::Repository> for Repository<'a> {
    fn from(repository: &'a model::Repository) -> Self {
        Self {
            directory: &repository.directory,
            branch: repository.branch.as_deref(),
            commit: repository.commit.as_deref(),
        }
    }
}

/// A login or a job.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Session<'a> {
    /// What it is.
    pub kind: SessionKind,
    /// The process that began it.
    pub pid: u32,
    /// Its name.
    pub program: &'a str,
}

impl<'a> From<&'a model::Session> for Session<'a> {
    fn from(session: &'a model::Session) -> Self {
        Self { kind: session.kind.into(), pid: session.pid, program: &session.program }
    }
}
