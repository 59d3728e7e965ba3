//! Containers: from their runtimes' APIs, else from the runtimes' state files.
use crate::model::*;
use std::path::Path;
#[derive(Debug)]
pub(super) struct Containers;
impl Containers {
    pub(super) fn new(_: &Path) -> Self { Self }
    pub(super) fn one(&self, _: &[ContainerRef], _: &Process) -> Read<Option<Container>> { Read::default() }
    pub(super) fn all(&self) -> Read<Vec<Container>> { Read::default() }
}
