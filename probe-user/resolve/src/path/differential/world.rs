//! Three namespaces with listeners, made by threads that live in them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::{Landing, Try};
use whereis_port_model::{NetnsId, Proto};

pub(super) const HOST: &str = "10.77.0.1";
pub(super) const OTHER: &str = "10.77.0.3";
pub(super) const CLIENT: &str = "10.77.0.2";
pub(super) const POD: &str = "10.78.0.2";

/// The address of IPv6 that stands for one of IPv4.
pub(super) fn of_ipv6(v4: &str) -> &'static str {
    match v4 {
        HOST => "fd00:77::1",
        OTHER => "fd00:77::3",
        CLIENT => "fd00:77::2",
        POD => "fd00:78::2",
        "10.78.0.1" => "fd00:78::1",
        _ => "::1",
    }
}

/// Where host and pod listen.
pub(super) const PORTS: [u16; 3] = [1001, 1002, 1003];
/// After this long a packet is taken for dropped. Everything is on this machine.
const PATIENCE: Duration = Duration::from_millis(120);
/// After a second the kernel sends again.
const SECOND_TRY: Duration = Duration::from_millis(1500);

/// A namespace, and a thread in it that does what it is told. It goes with the thread.
pub(super) struct Space {
    pub(super) id: NetnsId,
    task: u32,
    work: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Space {
    #[expect(unsafe_code, reason = "the thread, which has nothing yet, leaves its namespace")]
    fn new() -> Self {
        let (work, orders) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let thread = std::thread::spawn(move || {
            // SAFETY: only the network namespace changes, and no descriptor.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            orders.into_iter().for_each(|order| order());
        });
        let mut space =
            Self { id: NetnsId::Inode(0), task: 0, work: Some(work), thread: Some(thread) };
        let (id, task) = space.run(|| {
            let inode = std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
            (inode, rustix::thread::gettid().as_raw_nonzero().get())
        });
        space.id = NetnsId::Inode(id);
        space.task = u32::try_from(task).unwrap();
        space
    }

    /// Does something in the namespace.
    fn run<T: Send + 'static>(&self, order: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let order = Box::new(move || drop(done.send(order())));
        self.work.as_ref().unwrap().send(order).unwrap();
        result.recv().expect("the order panicked")
    }

    /// Runs a script, which gets this on its input.
    fn script(&self, script: &str, input: &str) -> bool {
        let (script, input) = (script.to_owned(), input.to_owned());
        self.run(move || {
            let mut child = Command::new("sh")
                .args(["-ec", &script])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            child.wait().unwrap().success()
        })
    }

    /// Listens on the ports, and answers with where that is.
    fn serve(&self, place: &'static str, addresses: &[&'static str]) {
        for port in PORTS {
            let name = format!("{place}:{port}");
            // They end with the test's process: nothing tells them to before.
            let tcp = self.run(move || TcpListener::bind(("::", port)).unwrap());
            let answer = name.clone();
            std::thread::spawn(move || {
                for mut stream in tcp.incoming().flatten() {
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
            // Each address has its own: an answer from a socket for all of them may come
            // from another address than it was asked at.
            for address in addresses.iter().flat_map(|v4| [*v4, of_ipv6(v4)]) {
                let at = (address, port);
                let udp = self.run(move || UdpSocket::bind(at).unwrap());
                let answer = name.clone();
                std::thread::spawn(move || {
                    let mut buffer = [0; 16];
                    while let Ok((_, from)) = udp.recv_from(&mut buffer) {
                        let _ = udp.send_to(answer.as_bytes(), from);
                    }
                });
            }
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.work = None;
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// The three of them.
pub(super) struct World {
    pub(super) host: Space,
    client: Space,
    pub(super) pod: Space,
    /// The index of the host's interface to the client.
    pub(super) uplink: u32,
}

impl World {
    pub(super) fn new() -> Self {
        let (host, client, pod) = (Space::new(), Space::new(), Space::new());
        let (c, p) = (client.task, pod.task);
        let made = host.script(
            &format!(
                "ip link set lo up
                 ip link add v0 address 02:00:00:00:77:01 type veth \
                   peer name v1 address 02:00:00:00:77:02 netns {c}
                 ip link add p0 address 02:00:00:00:78:01 type veth \
                   peer name p1 address 02:00:00:00:78:02 netns {p}
                 ip addr add 10.77.0.1/24 dev v0; ip addr add 10.77.0.3/24 dev v0
                 ip addr add 10.78.0.1/24 dev p0
                 ip addr add fd00:77::1/64 dev v0 nodad; ip addr add fd00:77::3/64 dev v0 nodad
                 ip addr add fd00:78::1/64 dev p0 nodad
                 ip link set v0 up; ip link set p0 up
                 # Rules that drop all drop what asks for neighbours of IPv6, too.
                 ip neigh add fd00:77::2 lladdr 02:00:00:00:77:02 dev v0 nud permanent
                 ip neigh add fd00:78::2 lladdr 02:00:00:00:78:02 dev p0 nud permanent
                 echo 1 > /proc/sys/net/ipv4/ip_forward
                 echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
                 # Every refusal counts, however many there are.
                 echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
                 echo 0 > /proc/sys/net/ipv6/icmp/ratelimit"
            ),
            "",
        );
        let joined = client.script(
            "ip link set lo up; ip addr add 10.77.0.2/24 dev v1
             ip addr add fd00:77::2/64 dev v1 nodad; ip link set v1 up
             for a in fd00:77::1 fd00:77::3; do
               ip neigh add $a lladdr 02:00:00:00:77:01 dev v1 nud permanent
             done
             ip route add default via 10.77.0.1; ip route add default via fd00:77::1",
            "",
        ) && pod.script(
            "ip link set lo up; ip addr add 10.78.0.2/24 dev p1
             ip addr add fd00:78::2/64 dev p1 nodad; ip link set p1 up
             ip neigh add fd00:78::1 lladdr 02:00:00:00:78:01 dev p1 nud permanent
             ip route add default via 10.78.0.1; ip route add default via fd00:78::1
             echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
             echo 0 > /proc/sys/net/ipv6/icmp/ratelimit",
            "",
        );
        assert!(made && joined, "the namespaces could not be joined");
        let uplink = host.run(|| {
            rustix::net::netdevice::name_to_index(
                rustix::net::socket(
                    rustix::net::AddressFamily::INET,
                    rustix::net::SocketType::DGRAM,
                    None,
                )
                .unwrap(),
                "v0",
            )
            .unwrap()
        });
        host.serve("host", &[HOST, OTHER, "10.78.0.1", "127.0.0.1"]);
        pod.serve("pod", &[POD]);
        Self { host, client, pod, uplink }
    }

    /// Replaces all rules. `false` when they were not taken.
    pub(super) fn load(&self, rules: &super::rules::Rules) -> bool {
        let clean = "nft flush ruleset
            for t in raw mangle nat filter; do
              for v in ip ip6; do
                if grep -q $t /proc/thread-self/net/${v}_tables_names 2>/dev/null ||
                   grep -q $t /proc/self/net/${v}_tables_names 2>/dev/null; then
                  ${v}tables-legacy -t $t -F; ${v}tables-legacy -t $t -X
                  for c in PREROUTING INPUT FORWARD OUTPUT POSTROUTING; do
                    ${v}tables-legacy -t $t -P $c ACCEPT 2>/dev/null || true
                  done
                fi
              done
            done
            # A set is there until its last rule is, which is freed a while later.
            for i in 1 2 3 4 5 6 7 8 9; do ipset destroy 2>/dev/null && break; sleep 0.02; done
            conntrack -F -f ipv4 2>/dev/null || true
            conntrack -F -f ipv6 2>/dev/null || true";
        assert!(self.host.script(clean, ""), "old rules could not be removed");
        let sets = rules.sets.is_empty() || self.host.script("ipset restore", &rules.sets);
        assert!(sets, "sets could not be made");
        self.host.script(&rules.program, &rules.text)
    }

    /// Connects for real. `refused`: it may be refused, which takes a second by TCP over IPv6:
    /// the first answer comes while the socket is still busy with sending.
    pub(super) fn connect(&self, one: Try, refused: bool) -> Landing {
        let to = SocketAddr::new(one.to.parse().unwrap(), one.port);
        let from = if one.from_client { &self.client } else { &self.host };
        from.run(move || match one.proto {
            Proto::Tcp if to.is_ipv6() && refused => tcp(to, SECOND_TRY),
            Proto::Tcp => tcp(to, PATIENCE),
            Proto::Udp => udp(to),
        })
    }
}

fn of_error(error: &std::io::Error) -> Landing {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset => {
            Landing::Refused
        }
        _ => Landing::Silent,
    }
}

fn tcp(to: SocketAddr, patience: Duration) -> Landing {
    let mut stream = match TcpStream::connect_timeout(&to, patience) {
        Ok(stream) => stream,
        Err(error) => return of_error(&error),
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut name = String::new();
    match stream.read_to_string(&mut name) {
        Ok(_) => Landing::At(name),
        Err(error) => of_error(&error),
    }
}

fn udp(to: SocketAddr) -> Landing {
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 32];
    let sent = socket.connect(to).and_then(|()| socket.send(b"x"));
    match sent.and_then(|_| socket.recv(&mut buffer)) {
        Ok(size) => Landing::At(String::from_utf8_lossy(&buffer[..size]).into_owned()),
        Err(error) => of_error(&error),
    }
}

/// Whether such a world can be made here. A skipped test says so, and fails where the
/// lab is required.
pub(super) fn is_possible() -> bool {
    let on_path = |tool: &str| {
        let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
            .iter()
            .any(|directory| std::path::Path::new(directory).join(tool).is_file());
        if !found {
            println!("no {tool} here");
        }
        found
    };
    let rights = rustix::thread::capabilities(None)
        .is_ok_and(|sets: CapabilitySets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    let all =
        ["ip", "nft", "iptables-nft-restore", "iptables-legacy-restore", "conntrack", "ipset"];
    let possible = rights && all.iter().all(|tool| on_path(tool));
    if !possible {
        let required = std::env::var_os("WHEREIS_PORT_REQUIRE_LAB").is_some();
        assert!(
            !required,
            "random rules need root, iproute2, nftables, iptables, ipset and conntrack"
        );
        println!(
            "SKIPPED: random rules need root, iproute2, nftables, iptables, ipset and conntrack"
        );
    }
    possible
}
