//! stub
use crate::model::*; use super::Node; use std::path::Path; use std::collections::BTreeSet;
#[derive(Debug)] pub struct Recorded;
#[derive(Debug)] pub struct RecordingError;
impl std::fmt::Display for RecordingError { fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
pub struct Recorder<'a>(&'a dyn Node);
pub struct Recording;
impl Recording { pub fn save(&self, _: &Path) -> Result<(), RecordingError> { Ok(()) } }
impl<'a> Recorder<'a> { pub fn new(n: &'a dyn Node) -> Self { Self(n) } pub fn recording(&self) -> Recording { Recording } }
impl Recorded { pub fn load(_: &Path) -> Result<Self, RecordingError> { Err(RecordingError) } }
pub fn redact(_: &mut Recording) {}
pub fn read_everything(n: &dyn Node) { let _ = n.netns(); }
macro_rules! pass { ($t:ty, $s:ident, $e:expr) => { impl Node for $t {
 fn host(&$s) -> Read<Host> { $e.host() } fn netns(&$s) -> Read<Vec<Netns>> { $e.netns() }
 fn sockets(&$s, a: &[NetnsId], f: &SocketFilter) -> Read<Vec<Socket>> { $e.sockets(a,f) }
 fn owners(&$s, i: &BTreeSet<SocketInode>) -> Read<Owners> { $e.owners(i) }
 fn processes(&$s, p: &[Pid]) -> Read<Vec<Process>> { $e.processes(p) }
 fn links(&$s, a: &[NetnsId]) -> Read<Vec<Link>> { $e.links(a) } fn addresses(&$s, a: &[NetnsId]) -> Read<Vec<Address>> { $e.addresses(a) }
 fn routes(&$s, a: &[NetnsId]) -> Read<Vec<Route>> { $e.routes(a) } fn kernel_ports(&$s, a: &[NetnsId]) -> Read<Vec<KernelPort>> { $e.kernel_ports(a) }
 fn nat(&$s, a: &[NetnsId]) -> Read<Vec<NatPresence>> { $e.nat(a) }
 fn container(&$s, c: &[ContainerRef], p: Pid) -> Read<Option<Container>> { $e.container(c,p) } fn containers(&$s) -> Read<Vec<Container>> { $e.containers() }
 fn cgroup_path(&$s, i: u64) -> Read<Option<CgroupPath>> { $e.cgroup_path(i) } fn sources(&$s) -> Vec<SourceReport> { $e.sources() } } } }
pass!(Recorder<'_>, self, self.0);
pass!(Recorded, self, { let x: &dyn Node = unreachable!(); x });
