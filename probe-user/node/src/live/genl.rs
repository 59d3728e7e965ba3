//! Ports the kernel holds that only generic netlink tells of, in the namespace
//! of the calling thread, and those of NFS and lockd.

use std::io;

use super::files;
use super::netlink::{GENERIC, Netlink, NetlinkRequest, find};
use whereis_port_model::{KernelPort, NetnsId, Port, Proto};

/// The most that one answer may have, in bytes: a namespace of others can have any number
/// of services and tunnels.
const MOST: usize = 64 << 20;

/// The controller, which knows the others' numbers (`linux/genetlink.h`).
const CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// A generic netlink conversation. Its numbers are in host byte order.
pub(super) struct Genl {
    netlink: Netlink,
    /// Names, as sent, and numbers of all families.
    families: Vec<(Vec<u8>, u16)>,
}

impl Genl {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(GENERIC, MOST)?, families: Vec::new() })
    }

    /// The number of a family; `None` when the kernel has none of that name.
    /// Looked up among all: asking for one by name makes the kernel load a
    /// module for it, and reading must not change the node.
    pub(super) fn family(&mut self, name: &str) -> io::Result<Option<u16>> {
        if self.families.is_empty() {
            self.families = self.dump(CTRL, CTRL_CMD_GETFAMILY, None, |attributes| {
                let name = find(attributes, CTRL_ATTR_FAMILY_NAME)?;
                Some((name.to_vec(), u16_of(attributes, CTRL_ATTR_FAMILY_ID)?))
            })?;
        }
        let named = |family: &[u8]| family.strip_suffix(b"\0").unwrap_or(family) == name.as_bytes();
        Ok(self.families.iter().find(|(family, _)| named(family)).map(|(_, id)| *id))
    }

    /// Asks for all there is of something: what `parse` makes of the attributes of each.
    pub(super) fn dump<T>(
        &mut self,
        family: u16,
        command: u8,
        attribute: Option<(u16, &[u8])>,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut request = NetlinkRequest::dump(family, &[command, 1, 0, 0]);
        if let Some((kind, value)) = attribute {
            request = request.with(kind, value)?;
        }
        self.netlink.collect(&request, usize::MAX, |message| parse(message.attributes()))
    }
}

pub(super) fn u16_of(attributes: &[u8], kind: u16) -> Option<u16> {
    find(attributes, kind)?.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

pub(super) fn u32_of(attributes: &[u8], kind: u16) -> Option<u32> {
    find(attributes, kind)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
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
            let asked = [name.as_bytes(), b"\0"].concat();
            ports.extend(genl.dump(family, 0, Some((2, &asked)), |attributes| {
                let port = u16_of(attributes, 6).filter(|port| *port != 0)?;
                Some(udp(port, "WireGuard".to_owned(), Some(name.clone()), "genetlink wireguard"))
            })?);
        }
    }
    if let Some(family) = genl.family("l2tp")? {
        // L2TP_CMD_TUNNEL_GET; L2TP_ATTR_ENCAP_TYPE 0 is UDP; L2TP_ATTR_CONN_ID;
        // L2TP_ATTR_UDP_SPORT (linux/l2tp.h, Linux 2.6.35).
        ports.extend(genl.dump(family, 4, None, |attributes| {
            let (Some(0), port) = (u16_of(attributes, 2), u16_of(attributes, 26)?) else {
                return None;
            };
            let tunnel = u32_of(attributes, 9).map_or_else(String::new, |id| format!(" {id}"));
            let port = udp(port, format!("L2TP tunnel{tunnel}"), None, "genetlink l2tp");
            Some(KernelPort { connected: true, ..port })
        })?);
    }
    if let Some(family) = genl.family("fou")? {
        // FOU_CMD_GET; FOU_ATTR_PORT, big endian; FOU_ATTR_TYPE 2 is GUE
        // (linux/fou.h, Linux 3.18).
        ports.extend(genl.dump(family, 3, None, |attributes| {
            let port = u16_of(attributes, 1).map(u16::from_be)?;
            let gue = find(attributes, 4).is_some_and(|kind| kind.first() == Some(&2));
            let what = if gue { "GUE receiver" } else { "FOU receiver" };
            Some(udp(port, what.to_owned(), None, "genetlink fou"))
        })?);
    }
    Ok(ports)
}

/// The ports of the kernel's NFS server and of lockd, which live in the
/// namespace they were started in: the caller asks for its own.
pub(super) fn nfs_ports(netns: NetnsId) -> Vec<KernelPort> {
    let mut ports = parse_portlist(
        netns,
        &files::text("/proc/fs/nfsd/portlist", files::SMALL).unwrap_or_default(),
    );
    for (proto, file) in [(Proto::Tcp, "nlm_tcpport"), (Proto::Udp, "nlm_udpport")] {
        let path = format!("/proc/sys/fs/nfs/{file}");
        let port = files::text(&path, files::SMALL).ok().and_then(|t| t.trim().parse().ok());
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
    fn nfsd_ports_are_read() {
        // The format of fs/nfsd/nfsctl.c; rdma lines name no socket's port.
        let ports = parse_portlist(NetnsId::Inode(1), "rdma 20049\ntcp 2049\ntcp 2049\nudp x\n");
        assert_eq!(ports.len(), 1);
        assert_eq!((ports[0].proto, ports[0].port), (Proto::Tcp, Port(2049)));
    }
}
