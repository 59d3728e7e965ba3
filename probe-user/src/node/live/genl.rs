//! Ports the kernel holds that only generic netlink tells of, in the namespace
//! of the calling thread, and those of NFS and lockd.

use std::io;

use netlink_packet_core::{DefaultNla, Emitable, NlaBuffer, NlasIterator};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use crate::model::{KernelPort, NetnsId, Port, Proto};

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
/// The controller, which knows the others' numbers (`linux/genetlink.h`).
const CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const HEADERS: usize = 16 + 4;

/// A generic netlink conversation. Small enough not to want a library: two
/// headers of fixed size and flat attributes.
pub(super) struct Genl {
    socket: Socket,
    /// Names, as sent, and numbers of all families.
    families: Vec<(Vec<u8>, u16)>,
}

impl Genl {
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_GENERIC)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, families: Vec::new() })
    }

    /// The number of a family; `None` when the kernel has none of that name.
    /// Looked up among all: asking for one by name makes the kernel load a
    /// module for it, and reading must not change the node.
    pub(super) fn family(&mut self, name: &str) -> io::Result<Option<u16>> {
        if self.families.is_empty() {
            let mut families = Vec::new();
            self.ask(CTRL, DUMP, CTRL_CMD_GETFAMILY, None, |attributes| {
                let id = u16_of(attributes, CTRL_ATTR_FAMILY_ID);
                let name = attribute(attributes, CTRL_ATTR_FAMILY_NAME);
                families.extend(name.zip(id));
            })?;
            self.families = families;
        }
        let named = |family: &[u8]| family.strip_suffix(b"\0").unwrap_or(family) == name.as_bytes();
        Ok(self.families.iter().find(|(family, _)| named(family)).map(|(_, id)| *id))
    }

    /// Asks for all there is of something, and gives the attributes of each to `each`.
    pub(super) fn dump(
        &mut self,
        family: u16,
        command: u8,
        attribute: Option<&DefaultNla>,
        each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.ask(family, DUMP, command, attribute, each)
    }

    /// Sends a command and gives the attributes of each answer to `each`.
    fn ask(
        &mut self,
        family: u16,
        flags: u16,
        command: u8,
        attribute: Option<&DefaultNla>,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut message = vec![0; HEADERS + attribute.map_or(0, Emitable::buffer_len)];
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        message[0..4].copy_from_slice(&length.to_ne_bytes());
        message[4..6].copy_from_slice(&family.to_ne_bytes());
        message[6..8].copy_from_slice(&(REQUEST | flags).to_ne_bytes());
        message[16] = command;
        message[17] = 1;
        if let Some(attribute) = attribute {
            attribute.emit(&mut message[HEADERS..]);
        }
        self.socket.send(&message, 0)?;
        let mut buffer = Vec::with_capacity(32 * 1024);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            for message in Messages(&buffer) {
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code =
                            message.body.first_chunk::<4>().map_or(0, |c| i32::from_ne_bytes(*c));
                        return if code == 0 {
                            Ok(())
                        } else {
                            Err(io::Error::from_raw_os_error(-code))
                        };
                    }
                    _ => each(message.body.get(4..).unwrap_or_default()),
                }
                if flags & DUMP == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// One netlink message without its header.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) body: &'a [u8],
}

/// The first message of `buffer`, and what comes behind it. `None` for damage.
pub(super) fn split(buffer: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = u32::from_ne_bytes(*buffer.first_chunk::<4>()?) as usize;
    let kind = u16::from_ne_bytes(*buffer.get(4..6)?.first_chunk::<2>()?);
    let flags = u16::from_ne_bytes(*buffer.get(6..8)?.first_chunk::<2>()?);
    let body = buffer.get(16..length)?;
    // Messages are aligned to 4 bytes; the last one may lack its padding.
    let rest = buffer.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((Message { kind, flags, body }, rest))
}

/// Splits what one read of a netlink socket gave into messages; stops at damage.
pub(super) fn messages(buffer: &[u8]) -> impl Iterator<Item = Message<'_>> {
    Messages(buffer)
}

struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let (message, rest) = split(self.0)?;
        self.0 = rest;
        Some(message)
    }
}

/// The value of the first attribute of a kind.
pub(super) fn attribute(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    NlasIterator::new(attributes)
        .flatten()
        .find(|nla: &NlaBuffer<&[u8]>| nla.kind() == kind)
        .map(|nla| nla.value().to_vec())
}

pub(super) fn u16_of(attributes: &[u8], kind: u16) -> Option<u16> {
    attribute(attributes, kind)?.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b))
}

pub(super) fn u32_of(attributes: &[u8], kind: u16) -> Option<u32> {
    attribute(attributes, kind)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))
}

/// All of them. `wireguard` names the WireGuard interfaces of the namespace.
pub(super) fn kernel_ports(netns: NetnsId, wireguard: &[String]) -> io::Result<Vec<KernelPort>> {
    let mut genl = Genl::open()?;
    let mut ports = Vec::new();
    let udp = |port: u16, what: String, interface: Option<String>, source: &str| KernelPort {
        netns,
        proto: Proto::Udp,
        port: Port(port),
        what,
        interface,
        source: source.to_owned(),
        connected: false,
    };
    if !wireguard.is_empty()
        && let Some(family) = genl.family("wireguard")?
    {
        // WG_CMD_GET_DEVICE, WGDEVICE_A_IFNAME, WGDEVICE_A_LISTEN_PORT
        // (linux/wireguard.h, Linux 5.6).
        for name in wireguard {
            let mut bytes = name.clone().into_bytes();
            bytes.push(0);
            genl.ask(family, DUMP, 0, Some(&DefaultNla::new(2, bytes)), |attributes| {
                if let Some(port) = u16_of(attributes, 6).filter(|p| *p != 0) {
                    ports.push(udp(
                        port,
                        "WireGuard".to_owned(),
                        Some(name.clone()),
                        "genetlink wireguard",
                    ));
                }
            })?;
        }
    }
    if let Some(family) = genl.family("l2tp")? {
        // L2TP_CMD_TUNNEL_GET; L2TP_ATTR_ENCAP_TYPE 0 is UDP; L2TP_ATTR_CONN_ID;
        // L2TP_ATTR_UDP_SPORT (linux/l2tp.h, Linux 2.6.35).
        genl.ask(family, DUMP, 4, None, |attributes| {
            if let (Some(0), Some(port)) = (u16_of(attributes, 2), u16_of(attributes, 26)) {
                let tunnel = u32_of(attributes, 9).map_or_else(String::new, |id| format!(" {id}"));
                let mut port = udp(port, format!("L2TP tunnel{tunnel}"), None, "genetlink l2tp");
                port.connected = true;
                ports.push(port);
            }
        })?;
    }
    if let Some(family) = genl.family("fou")? {
        // FOU_CMD_GET; FOU_ATTR_PORT, big endian; FOU_ATTR_TYPE 2 is GUE
        // (linux/fou.h, Linux 3.18).
        genl.ask(family, DUMP, 3, None, |attributes| {
            if let Some(port) = u16_of(attributes, 1).map(u16::from_be) {
                let gue = attribute(attributes, 4).is_some_and(|t| t.first() == Some(&2));
                let what = if gue { "GUE receiver" } else { "FOU receiver" };
                ports.push(udp(port, what.to_owned(), None, "genetlink fou"));
            }
        })?;
    }
    Ok(ports)
}

/// The ports of the kernel's NFS server and of lockd, which live in the
/// namespace they were started in: the caller asks for its own.
pub(super) fn nfs_ports(netns: NetnsId) -> Vec<KernelPort> {
    let mut ports = parse_portlist(
        netns,
        &std::fs::read_to_string("/proc/fs/nfsd/portlist").unwrap_or_default(),
    );
    for (proto, file) in [(Proto::Tcp, "nlm_tcpport"), (Proto::Udp, "nlm_udpport")] {
        let path = format!("/proc/sys/fs/nfs/{file}");
        let port = std::fs::read_to_string(&path).ok().and_then(|t| t.trim().parse().ok());
        if let Some(port) = port.filter(|p| *p != 0) {
            ports.push(KernelPort {
                netns,
                proto,
                port: Port(port),
                what: "lockd (NFS locking)".to_owned(),
                interface: None,
                source: format!("sysctl fs.nfs.{file}"),
                connected: false,
            });
        }
    }
    ports
}

/// Lines like `tcp 2049`.
fn parse_portlist(netns: NetnsId, text: &str) -> Vec<KernelPort> {
    let mut ports: Vec<KernelPort> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let proto = match words.next() {
            Some("tcp" | "tcp6") => Proto::Tcp,
            Some("udp" | "udp6") => Proto::Udp,
            _ => continue,
        };
        if let Some(port) = words.next().and_then(|p| p.parse().ok()) {
            ports.push(KernelPort {
                netns,
                proto,
                port: Port(port),
                what: "NFS server (nfsd)".to_owned(),
                interface: None,
                source: "/proc/fs/nfsd/portlist".to_owned(),
                connected: false,
            });
        }
    }
    ports.dedup();
    ports
}

/// For the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    for message in messages(bytes) {
        let attributes = message.body.get(4..).unwrap_or_default();
        for kind in [1, 2, 26] {
            u16_of(attributes, kind);
            u32_of(attributes, kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_knows_itself_and_no_nonsense() {
        let mut genl = Genl::open().unwrap();
        assert_eq!(genl.family("nlctrl").unwrap(), Some(CTRL));
        assert_eq!(genl.family("no-such-family").unwrap(), None);
    }

    #[test]
    fn damaged_messages_end_the_walk() {
        let whole = [20u8, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!(Messages(&whole).map(|m| (m.kind, m.body.len())).collect::<Vec<_>>(), [(9, 4)]);
        for end in 0..whole.len() {
            assert_eq!(Messages(&whole[..end]).count(), 0, "cut at {end}");
        }
        let mut endless = whole;
        endless[0] = 0;
        assert_eq!(Messages(&endless).count(), 0);
    }

    #[test]
    fn nfsd_ports_are_read() {
        // The format of fs/nfsd/nfsctl.c; rdma lines name no socket's port.
        let ports = parse_portlist(NetnsId::Inode(1), "rdma 20049\ntcp 2049\ntcp 2049\nudp x\n");
        assert_eq!(ports.len(), 1);
        assert_eq!((ports[0].proto, ports[0].port), (Proto::Tcp, Port(2049)));
    }
}
