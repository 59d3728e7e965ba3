//! The framing, and conversations with the kernel of which the loopback interface is enough.

use super::*;

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    NetlinkRequest::new(kind, flags, body).numbered(7)
}

fn kinds(bytes: &[u8]) -> Vec<(u16, usize)> {
    messages(bytes).map(|message| (message.kind, message.body.len())).collect()
}

#[test]
fn damaged_messages_end_the_walk() {
    let whole = [message(20, 0, &[1, 2, 3, 4]), message(21, 0, &[])].concat();
    assert_eq!(kinds(&whole), [(20, 4), (21, 0)]);
    for end in 0..whole.len() {
        let wanted: &[(u16, usize)] = if end < 20 { &[] } else { &[(20, 4)] };
        assert_eq!(kinds(&whole[..end]), wanted, "cut at {end}");
    }
    for length in [0, 15, 21, u32::MAX] {
        let mut damaged = message(20, 0, &[1, 2, 3, 4]);
        damaged[..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(kinds(&damaged), [], "{length}");
    }
}

#[test]
fn attributes_come_back_as_they_were_written() {
    let inner = attribute(1, b"abc").unwrap();
    let request = NetlinkRequest::get(16, &[9, 0, 0, 0]).with(5 | NESTED, &inner).unwrap();
    let bytes = request.with(6, &[]).unwrap().numbered(1);
    let message = messages(&bytes).next().unwrap();
    assert_eq!(message.sequence, 1);
    let all: Vec<_> = Attributes(message.attributes()).collect();
    assert_eq!(all, [(5, inner.as_slice()), (6, &[][..])]);
    assert_eq!(find(message.attributes(), 5).and_then(|nest| find(nest, 1)), Some(&b"abc"[..]));
    assert!(attribute(1, &vec![0; usize::from(u16::MAX) - 3]).is_err());
}

#[test]
fn a_damaged_attribute_is_seen_and_is_the_last() {
    let bytes = [attribute(1, &[1]).unwrap(), attribute(2, &[2]).unwrap()].concat();
    for end in 9..16 {
        let kinds: Vec<u16> = Attributes(&bytes[..end]).map(|(kind, _)| kind).collect();
        let last = if end < 13 { DAMAGED } else { 2 };
        assert_eq!(kinds, [1, last], "cut at {end}");
    }
    for length in [0, 3] {
        assert_eq!(Attributes(&[length, 0, 1, 0]).next().map(|(kind, _)| kind), Some(DAMAGED));
    }
}

#[test]
fn an_error_may_be_any_number() {
    let end = |kind, code: i32| {
        let bytes = message(kind, 0, &code.to_ne_bytes());
        let end = messages(&bytes).next().unwrap().end().unwrap();
        end.map_err(|error| error.raw_os_error())
    };
    for kind in [NLMSG_ERROR, NLMSG_DONE] {
        assert_eq!(end(kind, 0), Ok(()));
        assert_eq!(end(kind, -libc::ENOENT), Err(Some(libc::ENOENT)));
        assert_eq!(end(kind, i32::MIN), Err(Some(i32::MAX)));
    }
    assert_eq!(end(NLMSG_OVERRUN, 0), Err(Some(libc::ENOBUFS)));
}

/// `RTM_GETLINK`, with `struct ifinfomsg`.
const GETLINK: u16 = 18;

fn loopback(most: usize) -> (Netlink, NetlinkRequest) {
    let header: Vec<u8> = [[0; 4], 1_u32.to_ne_bytes(), [0; 4], [0; 4]].concat();
    (Netlink::open(ROUTE, most).unwrap(), NetlinkRequest::get(GETLINK, &header))
}

#[test]
fn one_conversation_asks_again_and_again() {
    let (mut netlink, one) = loopback(usize::MAX);
    let all = NetlinkRequest::dump(GETLINK, &[0; 16]);
    for _ in 0..3 {
        let mut names = Vec::new();
        let answer = netlink.ask(&one, |message| {
            names.extend(find(message.body.get(16..).unwrap_or_default(), 3).map(<[u8]>::to_vec));
            true
        });
        assert_eq!((answer.unwrap(), names), (NetlinkReply { pieces: 1 }, vec![b"lo\0".to_vec()]));
        assert!(!netlink.collect(&all, 1000, |message| Some(message.kind)).unwrap().is_empty());
        // An index that no interface has.
        let none = NetlinkRequest::get(
            GETLINK,
            &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        let error = netlink.ask(&none, |_| true).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(!netlink.is_spoilt());
    }
}

#[test]
fn an_answer_has_a_limit_of_bytes_and_one_of_entries() {
    let (mut netlink, one) = loopback(100);
    let error = netlink.ask(&one, |_| true).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
    assert!(netlink.is_spoilt() && netlink.ask(&one, |_| true).is_err());
    let (mut netlink, one) = loopback(usize::MAX);
    assert!(netlink.collect(&one, 0, |_| Some(())).is_err());
    assert!(netlink.is_spoilt());
}

#[test]
fn who_wants_no_more_leaves_the_conversation_unusable() {
    let (mut netlink, one) = loopback(usize::MAX);
    let mut seen = 0;
    netlink
        .ask(&one, |_| {
            seen += 1;
            false
        })
        .unwrap();
    assert_eq!(seen, 1);
    assert!(netlink.ask(&one, |_| true).is_err());
}

/// An answer that was read in the kernel's stead.
fn played(answer: &[u8]) -> io::Result<(NetlinkReply, usize)> {
    use std::os::unix::net::UnixDatagram;
    let (ours, kernels) = UnixDatagram::pair().unwrap();
    kernels.send(answer).unwrap();
    set_socket_timeout(&ours, Timeout::Recv, Some(Duration::from_millis(1))).unwrap();
    let socket = ours.into();
    let mut netlink = Netlink { socket, sequence: 6, most: usize::MAX, spoilt: false };
    let mut seen = 0;
    let answer = netlink.ask(&NetlinkRequest::dump(GETLINK, &[]), |_| {
        seen += 1;
        true
    });
    answer.map(|answer| (answer, seen))
}

#[test]
fn an_interrupted_dump_and_one_without_end_are_errors() {
    let (one, done) = (message(16, 0, &[0; 4]), message(NLMSG_DONE, 0, &[0; 4]));
    let whole = [one.clone(), one.clone(), done.clone()].concat();
    assert_eq!(played(&whole).unwrap(), (NetlinkReply { pieces: 1 }, 2));
    let kind = |bytes: &[Vec<u8>]| played(&bytes.concat()).unwrap_err().kind();
    let mixed = message(16, NLM_F_DUMP_INTR, &[0; 4]);
    assert_eq!(kind(&[one.clone(), mixed, done.clone()]), io::ErrorKind::Interrupted);
    assert_eq!(kind(&[one.clone(), vec![1; 3], done]), io::ErrorKind::InvalidData);
    assert_eq!(kind(&[one]), io::ErrorKind::TimedOut);
    // Another question's.
    let other = NetlinkRequest::new(NLMSG_DONE, 0, &[0; 4]).numbered(1);
    assert_eq!(kind(&[other]), io::ErrorKind::TimedOut);
}
