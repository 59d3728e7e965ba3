use super::*;
use whereis_port_model::{NetnsId, Port, Socket};

const HERE: NetnsId = NetnsId::Inode(1);

fn asked(address: &str) -> BindAsk {
    BindAsk::server(HERE, Proto::Tcp, address.parse().unwrap(), Port(80))
}

/// A listener at this address; `v6only` as the kernel tells it.
fn at(address: &str, v6only: Option<bool>) -> PortSocket {
    let socket = Socket {
        netns: HERE,
        proto: Proto::Tcp,
        state: SocketState::Listen,
        address: address.parse().unwrap(),
        port: Port(80),
        v6only,
        inode: 5,
        uid: 0,
        ifindex: None,
        cgroup_id: None,
        queue: None,
    };
    PortSocket { socket, peer: None, expires_ms: None }
}

#[test]
fn addresses_that_overlap_conflict() {
    for (one, other, v6only, expected) in [
        ("127.0.0.1", "127.0.0.1", None, Some(true)),
        ("127.0.0.1", "127.0.0.2", None, Some(false)),
        ("0.0.0.0", "127.0.0.1", None, Some(true)),
        ("127.0.0.1", "0.0.0.0", None, Some(true)),
        ("::ffff:127.0.0.1", "127.0.0.1", None, Some(true)),
        ("127.0.0.1", "::ffff:127.0.0.1", Some(false), Some(true)),
        ("127.0.0.1", "::", Some(false), Some(true)),
        ("127.0.0.1", "::", Some(true), Some(false)),
        ("127.0.0.1", "::", None, None),
        ("127.0.0.1", "::1", None, Some(false)),
        // A connection of a dual-stack socket; it is not told which one it is.
        ("0.0.0.0", "::1", None, None),
        ("0.0.0.0", "::1", Some(true), Some(false)),
        ("::", "127.0.0.1", None, Some(true)),
        ("::", "::", Some(true), Some(true)),
        ("::", "::1", Some(true), Some(true)),
        ("::1", "::", Some(true), Some(true)),
        ("::1", "0.0.0.0", None, Some(false)),
        ("::1", "::1", Some(true), Some(true)),
        ("::1", "fe80::1", Some(true), Some(false)),
    ] {
        assert_eq!(conflict(&asked(one), &at(other, v6only)), expected, "{one} {other} {v6only:?}");
    }
    let only = BindAsk { v6only: true, ..asked("::") };
    assert_eq!(conflict(&only, &at("0.0.0.0", None)), Some(false));
    assert_eq!(conflict(&only, &at("::", Some(true))), Some(true));
}

#[test]
fn two_devices_do_not_conflict() {
    let on = |ifindex| BindAsk { ifindex, ..asked("0.0.0.0") };
    let mut other = at("0.0.0.0", None);
    other.socket.ifindex = Some(2);
    assert_eq!(conflict(&on(Some(3)), &other), Some(false));
    assert_eq!(conflict(&on(Some(2)), &other), Some(true));
    assert_eq!(conflict(&on(None), &other), Some(true));
}

#[test]
fn options_that_are_not_told_leave_it_open() {
    let addr = BindAsk { reuse_addr: true, ..asked("0.0.0.0") };
    let port = BindAsk { reuse_port: true, ..asked("0.0.0.0") };
    let listener = at("0.0.0.0", None);
    let with = |state| {
        let mut other = at("0.0.0.0", None);
        other.socket.state = state;
        other
    };
    // SO_REUSEADDR is of no use against a listener, and may be against all else.
    assert_eq!(conflict(&addr, &listener), Some(true));
    assert_eq!(conflict(&addr, &with(SocketState::Established)), None);
    assert_eq!(conflict(&asked("0.0.0.0"), &with(SocketState::Established)), Some(true));
    // SO_REUSEPORT is for sockets of one user.
    let theirs = |mut other: PortSocket| {
        other.socket.uid = 7;
        other
    };
    assert_eq!(conflict(&port, &theirs(listener.clone())), Some(true));
    assert_eq!(conflict(&port, &listener), None);
    let mut left = theirs(with(SocketState::TimeWait));
    left.expires_ms = Some(1);
    assert_eq!(conflict(&port, &left), None);
    let both = BindAsk { reuse_addr: true, ..port };
    assert_eq!(conflict(&both, &theirs(listener)), Some(true));
    assert_eq!(conflict(&both, &theirs(with(SocketState::Bound))), None);
}
