//! The listener against the real kernel, in network namespaces of its own.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::super::enter::NetnsPath;
use super::*;
use whereis_port_model::{NatEvent, Proto};

/// A network namespace, and a thread in it that does what it is told. The
/// namespace goes with the thread.
pub(in super::super) struct Lab {
    pub(in super::super) door: NetnsHandle,
    work: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Lab {
    /// Whether one can; where not, a test says nothing.
    pub(in super::super) fn can_be_made() -> bool {
        can_make_labs()
    }

    #[expect(unsafe_code, reason = "the thread, which has nothing yet, leaves its namespace")]
    pub(in super::super) fn new() -> Self {
        let (work, orders) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let thread = std::thread::spawn(move || {
            // SAFETY: only the network namespace changes, and no descriptor.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            orders.into_iter().for_each(|order| order());
        });
        let door = NetnsHandle { id: NetnsId::Inode(0), own: false, ways: Vec::new() };
        let mut lab = Self { door, work: Some(work), thread: Some(thread) };
        let (id, file) = lab.run(|| {
            let task = std::fs::read_link("/proc/thread-self").unwrap();
            let file = PathBuf::from("/proc").join(task).join("ns/net");
            (std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&file).unwrap()), file)
        });
        lab.door =
            NetnsHandle { id: NetnsId::Inode(id), own: false, ways: vec![NetnsPath::Path(file)] };
        lab.command("ip", &["link", "set", "lo", "up"], "");
        lab
    }

    /// Does something in the namespace.
    pub(super) fn run<T: Send + 'static>(&self, order: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let order = Box::new(move || drop(done.send(order())));
        self.work.as_ref().unwrap().send(order).unwrap();
        result.recv().expect("the order panicked")
    }

    pub(in super::super) fn command(
        &self,
        program: &'static str,
        arguments: &[&'static str],
        input: &'static str,
    ) {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped());
        let status = self.run(move || {
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait().unwrap()
        });
        assert!(status.success(), "{program}: {status}");
    }

    pub(super) fn rules(&self, rules: &'static str) {
        self.command("iptables-restore", &["--wait"], rules);
    }

    fn set(&self, name: &'static str, value: &'static str) {
        self.run(move || std::fs::write(Path::new(SETTINGS).join(name), value).unwrap());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.work = None;
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Whether a namespace with rules can be made here. A skipped test says so, and
/// fails where the lab is required.
pub(super) fn can_make_labs() -> bool {
    let on_path = |tool: &str| {
        ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|d| Path::new(d).join(tool).is_file())
    };
    let reason = if !rustix::process::geteuid().is_root() {
        "conntrack's events need root (network namespaces)"
    } else if !on_path("iptables-restore") || !on_path("ip") {
        "iptables or ip is not installed (packages iptables, iproute2)"
    } else {
        return true;
    };
    assert!(
        std::env::var_os("WHEREIS_PORT_REQUIRE_LAB").is_none(),
        "WHEREIS_PORT_REQUIRE_LAB is set, but {reason}"
    );
    // Not `eprintln!`: the test harness would keep that for itself.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes());
    false
}

/// Reads until there are `count` events, or for ten seconds.
fn read(listener: &mut ConntrackListener, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let end = Instant::now() + Duration::from_secs(10);
    while events.len() < count && Instant::now() < end {
        let mut fds: Vec<PollFd<'_>> =
            listener.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&timeout)).unwrap();
        drop(fds);
        events.extend(listener.read());
    }
    events
}

/// 8080 leads to 9090, whose callers come from 127.0.0.9; 8081 to a port where
/// nobody listens; 10000 and above to UDP port 5300.
pub(super) const RULES: &str = "*nat
-A OUTPUT -p tcp --dport 8080 -j DNAT --to-destination 127.0.0.1:9090
-A OUTPUT -p tcp --dport 8081 -j REDIRECT --to-ports 9091
-A OUTPUT -p udp --dport 10000:20000 -j DNAT --to-destination 127.0.0.1:5300
-A POSTROUTING -p tcp --dport 9090 -j SNAT --to-source 127.0.0.9
COMMIT
";

fn addresses(nat: &NatEvent) -> [String; 4] {
    [nat.source, nat.destination, nat.new_source, nat.new_destination].map(|a| a.to_string())
}

#[test]
fn a_connection_through_nat_is_told_with_what_became_of_it() {
    if !can_make_labs() {
        return;
    }
    let (lab, other) = (Lab::new(), Lab::new());
    lab.rules(RULES);
    other.rules(RULES);
    let doors = [lab.door.clone(), other.door.clone()];
    let (mut listener, gaps) = ConntrackListener::open(&doors);
    assert_eq!(gaps, []);
    assert_eq!((listener.namespaces(), listener.fds().count()), (2, 2));

    let before = now();
    let (client, seen_as) = lab.run(|| {
        let server = TcpListener::bind("127.0.0.1:9090").unwrap();
        let client = TcpStream::connect("127.0.0.1:8080").unwrap();
        (client.local_addr().unwrap(), server.accept().unwrap().1)
    });
    let events = read(&mut listener, 1);
    let [event] = events.as_slice() else { panic!("{events:?}") };
    let nat = event.nat.unwrap();
    assert!(nat.begins);
    let wanted = [client.to_string(), "127.0.0.1:8080".into(), seen_as.to_string()];
    assert_eq!(addresses(&nat)[..3], wanted);
    assert_eq!(addresses(&nat)[3], "127.0.0.1:9090");
    assert_eq!((event.kind, event.proto), (EventKind::Nat, Proto::Tcp));
    assert_eq!((event.netns, event.seen_by), (Some(lab.door.id), SeenBy::Conntrack));
    assert_eq!((event.address, event.port), (nat.destination.ip(), Some(Port(8080))));
    assert!((before..=now()).contains(&event.at), "{} {}", event.at, before);
    assert_eq!((listener.lost(), listener.read()), (0, Vec::new()));

    // A refused connection ends at once, and the namespace is told right.
    other.run(|| TcpStream::connect("127.0.0.1:8081").unwrap_err());
    let events = read(&mut listener, 2);
    let told: Vec<_> =
        events.iter().map(|e| (e.netns, e.port, e.nat.map(|nat| nat.begins))).collect();
    let refused = |begins| (Some(other.door.id), Some(Port(8081)), Some(begins));
    assert_eq!(told, [refused(true), refused(false)]);
}

#[test]
fn the_kernels_times_are_taken_where_it_has_them() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.rules(RULES);
    lab.set("nf_conntrack_timestamp", "1");
    let (mut listener, _) = ConntrackListener::open(std::slice::from_ref(&lab.door));
    lab.run(|| TcpStream::connect("127.0.0.1:8081").unwrap_err());
    let done = now();
    // So that a time of reading can't pass for one of the kernel.
    while now() == done {}
    let events = read(&mut listener, 2);
    assert_eq!(events.len(), 2);
    // Older kernels give the times of an ended connection only.
    assert!(events.iter().any(|e| e.nat.is_some_and(|nat| !nat.begins) && e.at <= done));
}

#[test]
fn listening_makes_no_namespace_track_connections() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    let (mut listener, gaps) = ConntrackListener::open(std::slice::from_ref(&lab.door));
    assert_eq!(gaps, []);
    let tracked = lab.run(|| {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        server.accept().unwrap();
        setting("nf_conntrack_count")
    });
    assert_eq!(tracked.as_deref(), Some("0"));
    assert_eq!(listener.read(), []);
    // Rules that come later are heard of all the same.
    lab.rules(RULES);
    lab.run(|| TcpStream::connect("127.0.0.1:8081").unwrap_err());
    assert_eq!(read(&mut listener, 2).len(), 2);
}

#[test]
fn connections_without_nat_are_not_told() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.rules(RULES);
    let (mut listener, _) = ConntrackListener::open(std::slice::from_ref(&lab.door));
    let tracked = lab.run(|| {
        TcpStream::connect("127.0.0.1:7777").unwrap_err();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let tracked = setting("nf_conntrack_count");
        TcpStream::connect("127.0.0.1:8081").unwrap_err();
        tracked
    });
    assert_eq!(tracked.as_deref(), Some("1"));
    // Those that are told come in order: nothing came before them.
    let ports: Vec<_> = read(&mut listener, 2).iter().filter_map(|e| e.port).collect();
    assert_eq!(ports, [Port(8081), Port(8081)]);
}

#[test]
fn what_is_lost_is_counted_to_the_last_one() {
    if !can_make_labs() {
        return;
    }
    const SENT: u16 = 3000;
    let lab = Lab::new();
    lab.rules(RULES);
    let doors = std::slice::from_ref(&lab.door);
    let (mut listener, _) = ConntrackListener::with_receive_buffer(doors, 64 * 1024);
    lab.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _receiver = UdpSocket::bind("127.0.0.1:5300").unwrap();
        for port in 10_000..10_000 + SENT {
            socket.send_to(b"x", ("127.0.0.1", port)).unwrap();
        }
    });
    let mut seen = listener.read().len();
    seen += listener.read().len();
    assert!(seen > 0 && listener.lost() > 1, "{seen} {}", listener.lost());
    assert_eq!(u64::try_from(seen).unwrap() + listener.lost(), u64::from(SENT));
    // The count outlives the subscription.
    let lost = listener.lost();
    listener.refresh(&[]);
    assert_eq!(listener.lost(), lost);
}

#[test]
fn a_burst_fits_into_the_buffer() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.rules(RULES);
    let (mut listener, _) = ConntrackListener::open(std::slice::from_ref(&lab.door));
    lab.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _receiver = UdpSocket::bind("127.0.0.1:5300").unwrap();
        for port in 10_000..20_000u16 {
            socket.send_to(b"x", ("127.0.0.1", port)).unwrap();
        }
    });
    assert_eq!(read(&mut listener, 10_000).len(), 10_000);
    assert_eq!(listener.lost(), 0);
}

#[test]
fn events_that_are_switched_off_are_a_gap_with_a_remedy() {
    if !can_make_labs() {
        return;
    }
    let labs = [Lab::new(), Lab::new()];
    labs.iter().for_each(|lab| lab.set("nf_conntrack_events", "0"));
    let doors = labs.each_ref().map(|lab| lab.door.clone());
    let (_, gaps) = ConntrackListener::open(&doors);
    let [gap] = gaps.as_slice() else { panic!("{gaps:?}") };
    assert!(gap.source.name.starts_with("NAT events of network namespaces "), "{gap:?}");
    assert!(gap.reason.contains("nf_conntrack_events is 0"), "{gap:?}");
    assert!(gap.remedy.as_ref().unwrap().contains("nf_conntrack_events=1"), "{gap:?}");
}

#[test]
fn connections_from_before_may_end_untold_and_that_is_said() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.rules(RULES);
    let _streams = lab.run(|| {
        let server = TcpListener::bind("127.0.0.1:9090").unwrap();
        (TcpStream::connect("127.0.0.1:8080").unwrap(), server)
    });
    let gaps_with = |events: &'static str| {
        lab.set("nf_conntrack_events", events);
        ConntrackListener::open(std::slice::from_ref(&lab.door)).1
    };
    let reasons: Vec<_> = gaps_with("2").into_iter().map(|gap| gap.reason).collect();
    assert!(reasons.len() == 1 && reasons[0].contains("may end untold"), "{reasons:?}");
    assert_eq!(gaps_with("1"), []);
}

#[test]
fn without_the_right_the_gap_names_it() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    let own = NetnsHandle { own: true, ..lab.door.clone() };
    // Rights are those of a thread: this one is spent, its children inherit.
    let (namespaces, gaps) = lab.run(move || {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).unwrap();
        let (listener, gaps) = ConntrackListener::open(&[own]);
        (listener.namespaces(), gaps)
    });
    assert_eq!(namespaces, 0);
    let [gap] = gaps.as_slice() else { panic!("{gaps:?}") };
    assert!(gap.reason.contains("CAP_NET_ADMIN"), "{gap:?}");
    assert_eq!(gap.remedy.as_deref(), Some("run as root, or with CAP_NET_ADMIN"));
}

#[test]
fn a_namespace_that_is_gone_is_let_go_and_a_new_one_is_heard() {
    if !can_make_labs() {
        return;
    }
    let (first, second) = (Lab::new(), Lab::new());
    second.rules(RULES);
    let (mut listener, _) = ConntrackListener::open(std::slice::from_ref(&first.door));
    // Known ones stay as they are: what has come to them is not thrown away.
    let doors = [first.door.clone(), second.door.clone()];
    assert_eq!(listener.refresh(&doors), []);
    second.run(|| TcpStream::connect("127.0.0.1:8081").unwrap_err());
    assert_eq!(listener.refresh(&doors), []);
    assert_eq!(read(&mut listener, 2).len(), 2);

    drop(first);
    assert_eq!(listener.refresh(&doors[1..]), []);
    let listened: Vec<_> = listener.subscriptions.iter().map(|s| s.netns).collect();
    assert_eq!(listened, [second.door.id]);
    // One that can't be found any more is no gap: nothing happens there.
    let gone = ConntrackListener::open(&doors[..1]);
    assert_eq!((gone.0.namespaces(), gone.1), (0, Vec::new()));
}

#[test]
fn thousands_of_namespaces_are_not_all_entered_and_that_is_said() {
    let door = |number: u64| NetnsHandle {
        id: NetnsId::Inode(number),
        own: number == 4000,
        ways: Vec::new(),
    };
    let doors: Vec<NetnsHandle> = (1..=5000).rev().map(door).collect();
    let (chosen, gap) = choose(&doors);
    assert_eq!(chosen.len(), MOST);
    assert_eq!(chosen[0].id, NetnsId::Inode(4000), "the own one is always listened to");
    assert_eq!(chosen[1].id, NetnsId::Inode(1));
    let gap = gap.unwrap();
    assert!(gap.reason.starts_with("4000 of 5000 namespaces"), "{gap:?}");
    assert_eq!(gap.impact, Impact::Port);
    // Whoever listens is told, too.
    let (mut listener, gaps) = ConntrackListener::open(&doors);
    assert!(gaps.contains(&gap), "{gaps:?}");
    let few = listener.refresh(&doors[..MOST]);
    assert!(!few.contains(&gap), "{few:?}");
}
