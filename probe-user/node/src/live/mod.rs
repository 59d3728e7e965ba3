//! The node the tool runs on. The only code that touches the system.

mod asking;
mod attached;
mod balance;
mod bind;
mod btf;
mod cgroups;
mod clock;
mod connect;
mod conntrack;
mod containers;
mod cri;
mod ebpf;
mod enter;
mod files;
mod freezer;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gaps;
mod genl;
mod held;
mod host;
mod inside;
mod ipsec;
mod joined;
#[allow(clippy::disallowed_methods, reason = "its files are read by `kube/files.rs`, with limits")]
mod kube;
mod monitors;
mod mounts;
mod nat;
mod netlink;
mod netns;
mod other;
mod owners;
mod ports;
mod probes;
mod process;
mod procnet;
mod procs;
mod program;
mod provenance;
mod pulse;
mod reader;
mod rights;
mod rtnl;
mod rules;
mod safefs;
mod sockdiag;
mod symbols;
mod tables;
mod timeout;
mod tls;
mod watch;
mod ways;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::kube::{KubeCache, KubeOptions, check_kube, kube_client, kube_reports};
use super::{Clusters, Observed, Prefetch, Processes, Reports, Runtimes, Sockets, Topology};
pub use bind::{HeldPort, hold_port};
pub use clock::{boot_id, local_offset, moment};
use containers::Containers;
pub use ebpf::{LoadedIterators, Pinned, group_id, pin, unpin};
use enter::{EnterError, NetnsHandle};
pub use files::{named_text, system_text};
use gaps::{denied_gap, read_or_gap, rights_remedy};
pub use probes::probe_reports;
pub use pulse::{ChangeSet, Pulse};
use reader::Reader;
pub use rights::drop_rights;
pub use watch::{COMPARISON, watch};
use whereis_port_model::{
    Address, Certificate, CgroupPath, Connections, Container, ContainerRef, Flow, FlowFilter, Gap,
    GapKind, GapSource, Host, Impact, InputFound, InputQuery, KernelPort, KubeAsk, KubeContext,
    KubeObjects, Link, LinkKind, LocalRoute, Neighbour, NetSettings, Netns, NetnsId, OtherSocket,
    Owners, Pid, PolicyRule, PortFacts, PortRange, PortSocket, Process, Provenance, Read, Relay,
    Route, RouteFound, RouteQuery, Socket, SocketFile, SocketFilter, SocketInode, SocketUnit,
    SourceReport, TlsAsk, Transparent, Watched,
};

/// The live node. Made for one question or one listing: it reads everything at
/// most once.
#[derive(Debug)]
pub struct LiveNode {
    root: PathBuf,
    proc: Rc<OwnedFd>,
    /// Shared with readers that do not see the node.
    timeout: Rc<timeout::Timeout>,
    host: OnceCell<Host>,
    found: OnceCell<(netns::NetnsScan, Vec<Gap>)>,
    processes: OnceCell<process::ProcessReader>,
    /// Looks where others have a say in what is there.
    reader: Reader,
    containers: Containers,
    mountinfo: OnceCell<String>,
    sockets: RefCell<Vec<SocketsRead>>,
    owners: RefCell<OwnersRead>,
    probe: OnceCell<ebpf::ProbeMode>,
    probed: RefCell<Vec<tables::Probed>>,
    probe_failed: Cell<bool>,
    begun: RefCell<Option<ebpf::PendingRead>>,
    places: OnceCell<Option<tables::ProcessScan>>,
    read: RefCell<HashMap<Pid, Option<Process>>>,
    pool: enter::Pool,
    rtnls: rtnl::Rtnls,
    links: NetnsCache<Link>,
    addresses: NetnsCache<Address>,
    routes: NetnsCache<rtnl::Routed>,
    kernel_ports: NetnsCache<KernelPort>,
    transparent: NetnsCache<Transparent>,
    other_sockets: NetnsCache<OtherSocket>,
    port_sockets: RefCell<Vec<ports::PortsRead>>,
    port_facts: NetnsCache<PortFacts>,
    /// Sockets whose holders the probe was not asked for.
    unprobed: RefCell<BTreeSet<SocketInode>>,
    connections: RefCell<HashMap<NetnsId, Vec<Connections>>>,
    flows: RefCell<HashMap<FlowFilter, Rc<NetnsCache<Flow>>>>,
    rules: rules::RuleReader,
    ways: ways::Ways,
    attached: attached::AttachedCache,
    balance: balance::Balance,
    kube: kube::Kube,
    certificates: RefCell<HashMap<TlsAsk, Read<Option<Certificate>>>>,
    held: OnceCell<Vec<Gap>>,
    /// Namespaces to which nothing led any more when they were to be read.
    gone: RefCell<BTreeSet<NetnsId>>,
    cgroups: RefCell<HashMap<u64, Read<Option<CgroupPath>>>>,
    sources: RefCell<BTreeMap<&'static str, SourceReport>>,
    learnt: Read<Option<Watched>>,
}

/// What was read inside namespaces, by namespace.
type NetnsCache<T> = RefCell<HashMap<NetnsId, Result<Read<Vec<T>>, EnterError>>>;

/// How many unowned sockets are looked at a second time. Without rights most of
/// a node's sockets are unowned, and no second look changes that.
const SECOND_LOOKS: usize = 16;

/// One read of the sockets of one namespace.
#[derive(Debug)]
struct SocketsRead {
    netns: NetnsId,
    filter: SocketFilter,
    /// `Err` says why they can't be read in any way.
    read: Result<Read<Vec<Socket>>, String>,
}

#[derive(Debug, Default)]
struct OwnersRead {
    asked: BTreeSet<SocketInode>,
    owners: Owners,
    gaps: Vec<Gap>,
}

impl LiveNode {
    /// A node read through the procfs at `/proc`.
    ///
    /// # Errors
    /// When procfs is not mounted there: without it nothing can be told.
    pub fn new() -> io::Result<Self> {
        Self::at(Path::new("/proc"))
    }

    fn at(root: &Path) -> io::Result<Self> {
        let proc = procs::open_root(root)?;
        rustix::fs::statat(&proc, c"self/ns/net", rustix::fs::AtFlags::empty())?;
        let reader = Reader::default();
        Ok(Self {
            root: root.to_owned(),
            proc: Rc::new(proc),
            timeout: Rc::default(),
            host: OnceCell::new(),
            found: OnceCell::new(),
            processes: OnceCell::new(),
            containers: Containers::new(root, reader.clone()),
            reader,
            mountinfo: OnceCell::new(),
            sockets: RefCell::default(),
            owners: RefCell::default(),
            probe: OnceCell::new(),
            probed: RefCell::default(),
            probe_failed: Cell::new(false),
            begun: RefCell::default(),
            places: OnceCell::new(),
            read: RefCell::default(),
            pool: enter::Pool::default(),
            rtnls: rtnl::Rtnls::default(),
            links: RefCell::default(),
            addresses: RefCell::default(),
            routes: RefCell::default(),
            kernel_ports: RefCell::default(),
            transparent: RefCell::default(),
            other_sockets: RefCell::default(),
            port_sockets: RefCell::default(),
            port_facts: RefCell::default(),
            unprobed: RefCell::default(),
            connections: RefCell::default(),
            flows: RefCell::default(),
            rules: rules::RuleReader::default(),
            ways: ways::Ways::default(),
            attached: attached::AttachedCache::default(),
            balance: balance::Balance::default(),
            kube: kube::Kube::default(),
            certificates: RefCell::default(),
            held: OnceCell::new(),
            gone: RefCell::default(),
            cgroups: RefCell::default(),
            sources: RefCell::default(),
            learnt: Read::default(),
        })
    }

    /// The same node, with what watching it told.
    #[must_use]
    pub fn learnt(mut self, watched: Read<Option<Watched>>) -> Self {
        let said = watched.value.as_ref();
        if said.is_some() || !watched.gaps.is_empty() {
            let gap = watched.gaps.first();
            let report = SourceReport {
                name: "watching".to_owned(),
                ok: gap.is_none(),
                reason: gap.map(|gap| gap.reason.clone()),
                remedy: gap.and_then(|gap| gap.remedy.clone()),
                command: gap.and_then(|gap| gap.command.clone()),
                #[expect(clippy::cast_precision_loss, reason = "a time for people to read")]
                ms: said.map_or(0.0, |watched| watched.ms as f64),
                detail: said.map(Watched::summary).unwrap_or_default(),
                namespaces: None,
            };
            self.sources.borrow_mut().insert("watching", report);
        }
        self.learnt = watched;
        self
    }

    /// The same node, on which optional reading may take so long in all.
    #[must_use]
    pub fn with_timeout(mut self, limit: Option<Duration>) -> Self {
        if let Some(limit) = limit {
            self.timeout = Rc::new(timeout::Timeout::new(limit));
            self.containers.within(limit);
            self.kube.within(limit);
        }
        self
    }

    /// The same node, whose Kubernetes APIs are asked as `options` say.
    #[must_use]
    pub fn with_kube(mut self, options: KubeOptions) -> Self {
        self.kube = kube::Kube::new(options);
        self.kube.within(self.timeout.limit());
        self
    }

    /// The same node, whose Kubernetes APIs are watched: they are asked only for what `cache`
    /// does not know.
    #[must_use]
    pub fn with_kube_cache(mut self, cache: Arc<KubeCache>) -> Self {
        self.kube = kube::Kube::cached(cache);
        self.kube.within(self.timeout.limit());
        self
    }

    /// The same node, whose sockets are read by iterators that are loaded already.
    #[must_use]
    pub fn with_iterators(self, kept: Rc<LoadedIterators>) -> Self {
        // Nothing has asked for the probe yet.
        let _same = self.probe.set(ebpf::ProbeMode::Kept(kept));
        self
    }

    /// Every namespace that can be entered, opened: first the two that most
    /// others are connected with.
    fn likely_peers(&self) -> Vec<rtnl::Opened> {
        let found = &self.found().0;
        let mut ids: Vec<NetnsId> =
            found.doors.keys().copied().filter(|id| id.inode().is_some()).collect();
        ids.sort_unstable_by_key(|id| (Some(*id) != found.own, Some(*id) != found.initial, *id));
        rtnl::open_all(self.doors(ids))
    }

    /// The names of the WireGuard interfaces in those of these namespaces whose kernel ports
    /// are not known yet.
    fn wireguard(&self, netns: &[NetnsId]) -> HashMap<NetnsId, Read<Vec<String>>> {
        let known = self.kernel_ports.borrow();
        let doors = self.doors(netns.iter().copied().filter(|id| !known.contains_key(id)));
        // Whose peers they are does not matter, and is costly to tell.
        let links = self.rtnls.each(&self.pool, &doors, |door, rtnl| rtnl.links(door.id, &[]));
        let names = |links: Vec<Link>| {
            let of_kind = links.into_iter().filter(|link| link.kind == LinkKind::Wireguard);
            of_kind.map(|link| link.name).collect::<Vec<String>>()
        };
        // One that can't be entered is told with its ports.
        let read = doors.iter().zip(links).filter_map(|(door, links)| {
            let source = GapSource::new(GapKind::Links, format!("netns {}", door.id));
            Some((door.id, read_or_gap(links.ok()?.map(names), Impact::Owner, source)))
        });
        read.collect()
    }

    /// Both kinds of route are in one dump.
    fn all_routes(&self, netns: &[NetnsId]) -> Read<Vec<rtnl::Routed>> {
        self.by_rtnl("rtnetlink routes", GapKind::Routes, &self.routes, netns, |id, rtnl| {
            rtnl.routes(id)
        })
    }

    /// Adds what a read took and gave to the source's report.
    fn log(&self, name: &'static str, since: Instant, gaps: &[Gap], detail: String) {
        let mut sources = self.sources.borrow_mut();
        let report = sources.entry(name).or_insert_with(|| SourceReport {
            name: name.to_owned(),
            ok: true,
            reason: None,
            remedy: None,
            command: None,
            ms: 0.0,
            detail: String::new(),
            namespaces: None,
        });
        report.ms += since.elapsed().as_secs_f64() * 1000.0;
        report.detail = detail;
        if let Some(gap) = gaps.first()
            && report.ok
        {
            report.ok = false;
            report.reason = Some(format!("{}: {}", gap.source, gap.reason));
            report.remedy.clone_from(&gap.remedy);
            report.command.clone_from(&gap.command);
        }
    }

    fn found(&self) -> &(netns::NetnsScan, Vec<Gap>) {
        self.found.get_or_init(|| {
            let since = Instant::now();
            let (mut found, mut gaps) =
                match netns::find(&self.proc, &self.root, self.places(), &self.reader) {
                    Ok(found) => {
                        let gaps = found.gaps();
                        (found, gaps)
                    }
                    Err(error) => {
                        let gap =
                            Gap::new(Impact::Port, GapKind::NetworkNamespaces, error.to_string());
                        (netns::NetnsScan::default(), vec![gap])
                    }
                };
            let mut doors: Vec<NetnsHandle> = found.doors.values().cloned().collect();
            doors.retain(|d| d.id.inode().is_some());
            let seen = self
                .pool
                .in_each(&doors, |_| (netns::cookie(), netns::user_ns(), netns::proc_net_here()));
            for (door, result) in doors.iter().zip(seen) {
                let Ok((cookie, user_ns, proc_net)) = result else { continue };
                if let Some(netns) = found.netns.get_mut(&door.id) {
                    (netns.cookie, netns.user_ns) = (cookie, user_ns);
                }
                // One that is entered by its mount may have processes that show
                // nothing but this number.
                if let Some(inode) = proc_net {
                    found.is_proc_net(inode, door.id);
                }
            }
            if !found.untold.is_empty() {
                gaps.push(
                    Gap::new(
                        Impact::Port,
                        GapKind::NetworkNamespaces,
                        format!(
                            "the namespaces of {} processes are not readable",
                            found.untold.len()
                        ),
                    )
                    .remedy(rights_remedy()),
                );
            }
            self.log(
                "network namespaces",
                since,
                &gaps,
                format!("{} namespaces", found.netns.len()),
            );
            if let Some(report) = self.sources.borrow_mut().get_mut("network namespaces") {
                report.namespaces = Some(found.netns.len());
            }
            (found, gaps)
        })
    }

    fn processes_reader(&self) -> &process::ProcessReader {
        self.processes.get_or_init(|| {
            let monitors = self.containers.monitors().clone();
            process::ProcessReader::new(Rc::clone(&self.proc), self.reader.clone(), monitors)
        })
    }

    fn process(&self, pid: Pid) -> Option<Process> {
        self.read
            .borrow_mut()
            .entry(pid)
            .or_insert_with(|| self.processes_reader().read(pid).or_else(|| self.hidden(pid)))
            .clone()
    }

    /// How every namespace can be entered.
    fn all_doors(&self) -> Vec<NetnsHandle> {
        self.found().0.doors.values().cloned().collect()
    }

    fn doors(&self, netns: impl IntoIterator<Item = NetnsId>) -> Vec<NetnsHandle> {
        let doors = &self.found().0.doors;
        netns
            .into_iter()
            .map(|id| {
                doors.get(&id).cloned().unwrap_or(NetnsHandle { id, own: false, ways: Vec::new() })
            })
            .collect()
    }

    /// Which of these unowned sockets have closed since their table was read: a
    /// second look at their ports, for a few of them. Without it a listener that
    /// just ended would be one whose owner hides.
    fn gone(&self, unowned: impl Iterator<Item = SocketInode>) -> Vec<SocketInode> {
        let known = self.sockets.borrow();
        let socket = |inode| {
            let read = known.iter().filter_map(|r| r.read.as_ref().ok());
            let mut sockets = read.flat_map(|read| &read.value);
            let listener = sockets.find(|s: &&Socket| s.inode == inode).cloned();
            listener.or_else(|| self.known_port_socket(inode).map(|found| found.socket))
        };
        let has_closed = |socket: &Socket| {
            let ports = Some(PortRange::one(socket.port));
            let filter = SocketFilter { proto: Some(socket.proto), ports };
            let doors = self.doors([socket.netns]);
            let (inode, is_listener) = (socket.inode, socket.state.is_listener());
            let again = self.pool.in_each(&doors, move |door| -> io::Result<bool> {
                if is_listener {
                    return Ok(sockdiag::dump(door.id, &filter)?.iter().any(|s| s.inode == inode));
                }
                let (now, cut) = sockdiag::dump_of_ports(door.id, &filter)?;
                Ok(cut || now.iter().any(|s| s.socket.inode == inode))
            });
            // Only a read that worked proves anything.
            matches!(again.first(), Some(Ok(Ok(false))))
        };
        let looked_at = unowned.filter_map(socket).take(SECOND_LOOKS);
        looked_at.filter(has_closed).map(|socket| socket.inode).collect()
    }
}

impl Topology for LiveNode {
    fn host(&self) -> Read<Host> {
        let host = self.host.get_or_init(|| {
            let found = &self.found().0;
            let own = found.own.unwrap_or(NetnsId::Inode(0));
            let name = found.netns.get(&own).and_then(|netns| netns.name.clone());
            host::read(&self.proc, own, name, found.initial)
        });
        Read::whole(host.clone())
    }

    fn netns(&self) -> Read<Vec<Netns>> {
        let (found, gaps) = self.found();
        let mut netns: Vec<Netns> = found.netns.values().cloned().collect();
        let rank = |n: &Netns| (Some(n.id) != found.own, Some(n.id) != found.initial);
        netns.sort_by_key(rank);
        Read { value: netns, gaps: gaps.clone() }
    }

    fn unseen(&self) -> Read<()> {
        Read { value: (), gaps: self.held().to_vec() }
    }

    fn links(&self, netns: &[NetnsId]) -> Read<Vec<Link>> {
        let missing = netns.iter().any(|id| !self.links.borrow().contains_key(id));
        let known = if missing { self.likely_peers() } else { Vec::new() };
        self.by_rtnl("rtnetlink links", GapKind::Links, &self.links, netns, |id, rtnl| {
            rtnl.links(id, &known)
        })
    }

    fn addresses(&self, netns: &[NetnsId]) -> Read<Vec<Address>> {
        self.by_rtnl(
            "rtnetlink addresses",
            GapKind::Addresses,
            &self.addresses,
            netns,
            |id, rtnl| rtnl.addresses(id),
        )
    }

    fn routes(&self, netns: &[NetnsId]) -> Read<Vec<Route>> {
        let unicast = |route| match route {
            rtnl::Routed::Unicast(route) => Some(route),
            rtnl::Routed::Local(_) => None,
        };
        self.all_routes(netns).map(|all| all.into_iter().filter_map(unicast).collect())
    }

    fn neighbours(&self, netns: &[NetnsId]) -> Read<Vec<Neighbour>> {
        self.neighbours_of(netns)
    }

    fn local_routes(&self, netns: &[NetnsId]) -> Read<Vec<LocalRoute>> {
        let local = |route| match route {
            rtnl::Routed::Local(route) => Some(route),
            rtnl::Routed::Unicast(_) => None,
        };
        self.all_routes(netns).map(|all| all.into_iter().filter_map(local).collect())
    }

    fn route(&self, query: &RouteQuery) -> Read<Option<RouteFound>> {
        self.route_of(query)
    }

    fn input_route(&self, query: &InputQuery) -> Read<Option<InputFound>> {
        self.input_route_of(query)
    }

    fn policy_rules(&self, netns: &[NetnsId]) -> Read<Vec<PolicyRule>> {
        self.policies_of(netns)
    }

    fn settings(&self, netns: &[NetnsId]) -> Read<Vec<NetSettings>> {
        self.settings_inside(netns)
    }

    fn port_facts(&self, netns: &[NetnsId]) -> Read<Vec<PortFacts>> {
        self.port_facts_inside(netns)
    }
}

impl Sockets for LiveNode {
    fn sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<Socket>> {
        let covered = |id: &NetnsId| {
            self.sockets.borrow().iter().any(|r| r.netns == *id && r.filter.covers(filter))
        };
        let missing: Vec<NetnsId> = netns.iter().copied().filter(|id| !covered(id)).collect();
        if !missing.is_empty() {
            self.read_sockets(missing, filter);
        }
        let memo = self.sockets.borrow();
        let mut all: Read<Vec<Socket>> = Read::default();
        let mut closed = Vec::new();
        for id in netns {
            match memo.iter().find(|r| r.netns == *id && r.filter.covers(filter)).map(|r| &r.read) {
                Some(Ok(read)) => {
                    let sockets = read.clone().take(&mut all.gaps);
                    all.value.extend(sockets.into_iter().filter(|s| filter.matches(s)));
                }
                Some(Err(why)) => closed.push((*id, why.clone())),
                None => {}
            }
        }
        all.gaps.extend(self.closed_gaps(&closed));
        // Asked of all of them: then those count that are not known otherwise.
        if self.found().0.netns.keys().all(|known| netns.contains(known)) {
            all.value.extend(self.strangers(filter));
        }
        all
    }

    fn owners(&self, inodes: &BTreeSet<SocketInode>) -> Read<Owners> {
        let missing: BTreeSet<SocketInode> =
            inodes.difference(&self.owners.borrow().asked).copied().filter(|i| *i != 0).collect();
        if !missing.is_empty() {
            let since = Instant::now();
            let mut memo = self.owners.borrow_mut();
            let scanned = if self.is_probed() {
                let unprobed = self.unprobed.borrow();
                let (left, probed): (BTreeSet<_>, BTreeSet<_>) =
                    missing.iter().partition(|inode| unprobed.contains(inode));
                self.owners_probed(&probed).and_then(|mut owners| {
                    if !left.is_empty() {
                        let scanned = owners::scan(&self.proc, &left)?;
                        owners.holders.extend(scanned.holders);
                        owners.denied = scanned.denied;
                        owners.denied_total = scanned.denied_total;
                    }
                    Ok(owners)
                })
            } else {
                owners::scan(&self.proc, &missing).map_err(io::Error::from)
            };
            match scanned {
                Ok(owners) => {
                    memo.owners.holders.extend(owners.holders);
                    memo.owners.holders.sort_unstable();
                    memo.owners.denied = owners.denied;
                    memo.owners.denied_total = owners.denied_total;
                }
                Err(error) => {
                    memo.gaps.push(Gap::new(
                        Impact::Owner,
                        GapKind::Descriptors,
                        error.to_string(),
                    ));
                }
            }
            let holders = &memo.owners.holders;
            let is_unowned =
                |inode: &SocketInode| holders.binary_search_by_key(inode, |o| o.inode).is_err();
            let gone = self.gone(missing.iter().copied().filter(is_unowned));
            memo.owners.gone.extend(gone);
            memo.asked.extend(missing);
            let denied = denied_gap(&memo.owners);
            let gaps = denied.into_iter().chain(memo.gaps.clone()).collect::<Vec<_>>();
            self.log("descriptors", since, &gaps, format!("{} holders", memo.owners.holders.len()));
        }
        let memo = self.owners.borrow();
        let mut holders = Vec::with_capacity(inodes.len());
        for inode in inodes {
            holders.extend_from_slice(memo.owners.of(*inode));
        }
        let value = Owners {
            holders,
            denied: memo.owners.denied.clone(),
            denied_total: memo.owners.denied_total,
            gone: memo.owners.gone.iter().copied().filter(|inode| inodes.contains(inode)).collect(),
        };
        Read { value, gaps: memo.gaps.clone() }
    }

    fn transparent(&self, netns: &[NetnsId]) -> Read<Vec<Transparent>> {
        self.inside("transparent sockets", Impact::Reach, &self.transparent, netns, |door| {
            let source = GapSource::new(GapKind::Sockets, format!("netns {}", door.id));
            let any = sockdiag::has_transparent();
            let read = any.map(|any| vec![Transparent { netns: door.id, any }]);
            read_or_gap(read, Impact::Reach, source)
        })
    }

    fn kernel_ports(&self, netns: &[NetnsId]) -> Read<Vec<KernelPort>> {
        let own = self.found().0.own;
        let wireguard = self.wireguard(netns);
        self.inside("kernel ports", Impact::Owner, &self.kernel_ports, netns, move |door| {
            let names = wireguard.get(&door.id).cloned().unwrap_or_default();
            let source = GapSource::new(GapKind::KernelPorts, format!("netns {}", door.id));
            let ports = genl::kernel_ports(door.id, &names.value);
            let ports = read_or_gap(ports, Impact::Owner, source);
            let mut read = Read { value: ports.value, gaps: [names.gaps, ports.gaps].concat() };
            if Some(door.id) == own {
                read.value.extend(genl::nfs_ports(door.id));
            }
            read
        })
    }

    fn other_sockets(&self, netns: &[NetnsId]) -> Read<Vec<OtherSocket>> {
        self.other_sockets_inside(netns)
    }

    fn socket_file(&self, path: &str) -> SocketFile {
        self.file_of_socket(path)
    }

    fn port_sockets(&self, netns: &[NetnsId], filter: &SocketFilter) -> Read<Vec<PortSocket>> {
        self.port_sockets_of(netns, filter)
    }

    fn connections(&self, netns: &[NetnsId]) -> Vec<Connections> {
        let mut known = self.connections.borrow_mut();
        let doors = self.doors(netns.iter().copied().filter(|id| !known.contains_key(id)));
        let counted = self.pool.in_each(&doors, |door| sockdiag::established(door.id));
        // A namespace that can't be entered is a gap of its listeners already.
        let counted = counted.into_iter().map(|read| read.ok().and_then(Result::ok));
        known.extend(doors.iter().map(|door| door.id).zip(counted.map(Option::unwrap_or_default)));
        netns.iter().filter_map(|id| known.get(id)).flatten().cloned().collect()
    }
}

impl Processes for LiveNode {
    fn processes(&self, pids: &[Pid]) -> Read<Vec<Process>> {
        let since = Instant::now();
        let processes: Vec<Process> = pids.iter().filter_map(|pid| self.process(*pid)).collect();
        let gaps = self.processes_reader().gaps(pids);
        self.log("processes", since, &gaps, format!("{} read", self.read.borrow().len()));
        Read { value: processes, gaps }
    }

    fn cgroup_path(&self, id: u64) -> Read<Option<CgroupPath>> {
        let mountinfo = self.mountinfo.get_or_init(host::mountinfo);
        let mut memo = self.cgroups.borrow_mut();
        memo.entry(id)
            .or_insert_with(|| match cgroups::path(mountinfo, id) {
                Ok(path) => Read::whole(path),
                Err(why) => Read::partial(None, Gap::new(Impact::Owner, GapKind::Cgroup, why)),
            })
            .clone()
    }

    fn provenance(&self, pid: Pid) -> Read<Option<Provenance>> {
        let since = Instant::now();
        let read = self.provenance_of(pid);
        self.log("packages and repositories", since, &read.gaps, "by process".to_owned());
        read
    }

    fn socket_units(&self) -> Read<Vec<SocketUnit>> {
        let since = Instant::now();
        let read = self.units_of_sockets();
        let detail = format!("{} socket units", read.value.len());
        self.log("unit files", since, &read.gaps, detail);
        read
    }
}

impl Runtimes for LiveNode {
    fn container(&self, chain: &[ContainerRef], pid: Pid) -> Read<Option<Container>> {
        let Some(process) = self.process(pid) else { return Read::default() };
        let since = Instant::now();
        let read = self.containers.one(chain, &process);
        self.log("container runtimes", since, &read.gaps, "by id".to_owned());
        read
    }

    fn containers(&self) -> Read<Vec<Container>> {
        let since = Instant::now();
        let read = self.containers.all();
        self.log(
            "container runtimes",
            since,
            &read.gaps,
            format!("{} containers", read.value.len()),
        );
        read
    }

    fn unpublished(&self) -> Read<Vec<Container>> {
        let since = Instant::now();
        let read = self.containers.unpublished();
        let detail = format!("{} that publish nothing", read.value.len());
        self.log("container runtimes", since, &read.gaps, detail);
        read
    }

    fn relay(&self, pid: Pid) -> Read<Relay> {
        let Some(process) = self.process(pid) else { return Read::default() };
        let since = Instant::now();
        let read = self.containers.relay(&process);
        self.log("container runtimes", since, &read.gaps, "a forwarder".to_owned());
        read
    }
}

impl Clusters for LiveNode {
    fn kube_contexts(&self) -> Read<Vec<KubeContext>> {
        self.kube.contexts()
    }

    fn kube(&self, asks: &[KubeAsk]) -> Vec<Read<KubeObjects>> {
        let since = Instant::now();
        let reads = match self.timeout.begin() {
            Some(_reading) => self.kube.ask(asks),
            None => {
                let gap = || self.timeout.gap(Impact::Name, GapKind::KubernetesApi);
                asks.iter().map(|_| Read::partial(KubeObjects::default(), gap())).collect()
            }
        };
        let gaps: Vec<Gap> = reads.iter().flat_map(|read| read.gaps.clone()).collect();
        let detail = self.kube.summary();
        self.log("Kubernetes API", since, &gaps, detail);
        reads
    }
}

impl Observed for LiveNode {
    fn observed(&self) -> Read<Option<Watched>> {
        self.learnt.clone()
    }
}

impl Reports for LiveNode {
    fn sources(&self) -> Vec<SourceReport> {
        self.sources.borrow().values().cloned().collect()
    }
}

impl Prefetch for LiveNode {
    fn prefetch_sockets(&self, filter: &SocketFilter) {
        self.begin_probe(filter);
    }

    fn prefetch_rules(&self, netns: &[NetnsId]) {
        self.read_all_rules(netns);
    }
}
