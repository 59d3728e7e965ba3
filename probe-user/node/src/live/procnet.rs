//! Sockets from `/proc/PID/net`: the fallback where a namespace can't be entered
//! or sock_diag is missing. World-readable, but it does not tell `IPV6_V6ONLY`,
//! the bound device or the cgroup, and is no snapshot.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;

use procfs::FromBufReadSI;
use procfs::net::{TcpNetEntries, TcpState, UdpNetEntries, UdpState};

use super::files;
use whereis_port_model::{NetnsId, Port, PortSocket, Proto, Socket, SocketFilter, SocketState};

/// Reads the tables below `net`, which is `/proc/PID/net` of a process in `netns`: every socket
/// that passes `filter`, whatever its state. TCP that is merely bound is in no table.
pub(super) fn read(
    net: &Path,
    netns: NetnsId,
    filter: &SocketFilter,
) -> io::Result<Vec<PortSocket>> {
    let mut sockets = Vec::new();
    for proto in Proto::ALL.into_iter().filter(|p| filter.proto.is_none_or(|f| f == *p)) {
        let names = match proto {
            Proto::Tcp => ["tcp", "tcp6"],
            Proto::Udp => ["udp", "udp6"],
        };
        for name in names {
            let path = net.join(name);
            match files::stream(&path).map_err(io::Error::from) {
                Ok(file) => sockets.extend(parse(BufReader::new(file), netns, proto)?),
                // IPv6 is switched off.
                Err(error) if error.kind() == io::ErrorKind::NotFound && name.ends_with('6') => {}
                Err(error) => return Err(error),
            }
        }
    }
    sockets.retain(|s: &PortSocket| filter.matches(&s.socket));
    Ok(sockets)
}

/// The sockets of one table that have a port.
pub(super) fn parse(
    text: impl BufRead,
    netns: NetnsId,
    proto: Proto,
) -> io::Result<Vec<PortSocket>> {
    let bad =
        |error: procfs::ProcError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let socket = |local: SocketAddr, remote: SocketAddr, uid, inode, state| PortSocket {
        socket: Socket {
            netns,
            proto,
            state,
            address: local.ip(),
            port: Port(local.port()),
            v6only: None,
            inode,
            uid,
            ifindex: None,
            cgroup_id: None,
            queue: None,
        },
        peer: (remote.port() != 0).then_some(remote),
        expires_ms: None,
    };
    let mut sockets: Vec<PortSocket> = match proto {
        Proto::Tcp => TcpNetEntries::from_buf_read(text, procfs::current_system_info())
            .map_err(bad)?
            .0
            .into_iter()
            .map(|e| socket(e.local_address, e.remote_address, e.uid, e.inode, tcp(&e.state)))
            .collect(),
        Proto::Udp => UdpNetEntries::from_buf_read(text, procfs::current_system_info())
            .map_err(bad)?
            .0
            .into_iter()
            .map(|e| {
                let state = match e.state {
                    UdpState::Established => SocketState::Established,
                    UdpState::Close => SocketState::Unconnected,
                };
                socket(e.local_address, e.remote_address, e.uid, e.inode, state)
            })
            .collect(),
    };
    sockets.retain(|s| s.socket.port.0 != 0);
    Ok(sockets)
}

fn tcp(state: &TcpState) -> SocketState {
    match state {
        TcpState::Established => SocketState::Established,
        TcpState::SynSent => SocketState::SynSent,
        TcpState::SynRecv | TcpState::NewSynRecv => SocketState::SynReceived,
        TcpState::FinWait1 => SocketState::FinWait1,
        TcpState::FinWait2 => SocketState::FinWait2,
        TcpState::TimeWait => SocketState::TimeWait,
        TcpState::Close => SocketState::Bound,
        TcpState::CloseWait => SocketState::CloseWait,
        TcpState::LastAck => SocketState::LastAck,
        TcpState::Listen => SocketState::Listen,
        TcpState::Closing => SocketState::Closing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Recorded with `cat /proc/net/tcp`, `tcp6` and `udp` on Linux 6.18 while
    // `nc -l 127.0.0.1 6443`, a dual-stack server on 10250, a server bound to
    // ::ffff:127.0.0.1 and a VXLAN device on 8472 were up.
    const HEADER: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn check(proto: Proto, line: &str, expected: Option<(&str, u64)>) {
        let text = format!("{HEADER}{line}\n");
        let found = parse(text.as_bytes(), NetnsId::Inode(1), proto).unwrap();
        let found = found.iter().map(|s| &s.socket).find(|s| s.state.is_listener());
        let found = found.map(|s| (SocketAddr::new(s.address, s.port.0).to_string(), s.inode));
        assert_eq!(found, expected.map(|(a, i)| (a.to_owned(), i)), "{line}");
    }

    #[test]
    fn listeners_are_read_and_connections_are_not() {
        check(
            Proto::Tcp,
            "   0: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 114819 1 ffff888103e1a800 100 0 0 10 0",
            Some(("127.0.0.1:6443", 114_819)),
        );
        check(
            Proto::Tcp,
            "   1: 0100007F:192B 0100007F:B36C 01 00000000:00000000 00:00000000 00000000     0        0 114820 1 ffff888103e1a800 20 4 30 10 -1",
            None,
        );
    }

    #[test]
    fn a_connection_is_told_with_its_other_end() {
        let line = "   1: 0100007F:192B 0100007F:B36C 08 00000000:00000000 00:00000000 00000000     0        0 114820 1 ffff888103e1a800 20 4 30 10 -1";
        let text = format!("{HEADER}{line}\n");
        let found = parse(text.as_bytes(), NetnsId::Inode(1), Proto::Tcp).unwrap();
        assert_eq!(found[0].socket.state, SocketState::CloseWait);
        assert_eq!(found[0].peer.unwrap().to_string(), "127.0.0.1:45932");
    }

    #[test]
    fn addresses_are_in_native_words() {
        check(
            Proto::Tcp,
            "   0: 00000000000000000000000000000000:280A 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 5 1 ffff888103e1a800 100 0 0 10 0",
            Some(("[::]:10250", 5)),
        );
        check(
            Proto::Tcp,
            "   0: 0000000000000000FFFF00000100007F:192B 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 6 1 ffff888103e1a800 100 0 0 10 0",
            Some(("[::ffff:127.0.0.1]:6443", 6)),
        );
    }

    #[test]
    fn udp_needs_a_port_and_no_peer() {
        check(
            Proto::Udp,
            "  700: 00000000:2118 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 115786 2 ffff888100d62000 0",
            Some(("0.0.0.0:8472", 115_786)),
        );
        check(
            Proto::Udp,
            "  701: 0100007F:2119 0100007F:0035 01 00000000:00000000 00:00000000 00000000     0        0 115787 2 ffff888100d62000 0",
            None,
        );
    }

    #[test]
    fn a_damaged_table_is_an_error_and_not_an_empty_one() {
        let text = format!("{HEADER}   0: 0100007F:XYZ\n");
        assert!(parse(text.as_bytes(), NetnsId::Inode(1), Proto::Tcp).is_err());
    }

    #[test]
    fn the_own_tables_agree_with_sock_diag() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = whereis_port_model::PortRange::one(Port(listener.local_addr().unwrap().port()));
        let filter = SocketFilter { proto: None, ports: Some(ports) };
        let here = NetnsId::Inode(1);
        let text = read(Path::new("/proc/self/net"), here, &filter).unwrap();
        let diag = super::super::sockdiag::dump(here, &filter).unwrap();
        let key = |s: &Socket| (s.address, s.port, s.inode, s.uid);
        assert_eq!(
            text.iter().map(|s| key(&s.socket)).collect::<Vec<_>>(),
            diag.iter().map(key).collect::<Vec<_>>()
        );
        assert_eq!(text.len(), 1);
    }
}
