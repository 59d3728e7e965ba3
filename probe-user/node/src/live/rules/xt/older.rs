//! Revisions that iptables 1.8.9 no longer writes. Blobs made by hand, after the
//! structures in `linux/netfilter/xt_*.h`.

use super::*;

fn only_match(name: &str, revision: u8, info: &[u8]) -> XtMatch {
    match match_of(name, revision, false, info) {
        MatchInfo::Match(test) => test,
        MatchInfo::Comment(text) => panic!("{text}"),
    }
}

#[test]
fn older_revisions_of_conntrack_have_one_port_in_network_order() {
    let mut blob = vec![0; 160];
    blob[140..142].copy_from_slice(&80u16.to_be_bytes());
    // State, and the port of the original destination.
    blob[146..148].copy_from_slice(&0x201u16.to_ne_bytes());
    blob[150] = 8;
    for revision in [1, 2] {
        if revision == 2 {
            blob[150..152].copy_from_slice(&0x108u16.to_ne_bytes());
        }
        let XtMatch::Conntrack { states, orig_dport, orig_sport, other, .. } =
            only_match("conntrack", revision, &blob)
        else {
            panic!("revision {revision}")
        };
        let wanted = if revision == 1 { 8 } else { 0x108 };
        assert_eq!((states, other), (Some((wanted, false)), false));
        assert_eq!((orig_dport, orig_sport), (Some((80, 80, false)), None));
    }
}

#[test]
fn the_state_match_is_one_of_conntrack() {
    // New and untracked, which has another bit here.
    let XtMatch::Conntrack { states, other, .. } = only_match("state", 0, &0x48u32.to_ne_bytes())
    else {
        panic!()
    };
    assert_eq!((states, other), (Some((0x108, false)), false));
}

#[test]
fn older_sets_and_ranges_are_read() {
    // Index 5, two dimensions, inverted, the second one the source's.
    let index = 5u16.to_ne_bytes();
    let blob = [index[0], index[1], 2, 1 | 4, 0, 0, 0, 0];
    let wanted = |other| XtMatch::Set { index: 5, source: vec![false, true], invert: true, other };
    for revision in [1, 2] {
        assert_eq!(only_match("set", revision, &blob), wanted(false));
    }
    let mut blob = [&blob[..], &[0; 40]].concat();
    assert_eq!(only_match("set", 3, &blob), wanted(false));
    blob[8] = 1;
    assert_eq!(only_match("set", 3, &blob), wanted(true));

    let mut blob = [1u32, 3].map(u32::to_ne_bytes).concat();
    blob.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 80, 0, 81, 0, 0, 0, 0]);
    let XtTarget::Dnat(range) = target_of("DNAT", 0, false, &blob) else { panic!() };
    let address = |last| IpAddr::from([10, 0, 0, last]);
    assert_eq!(range.addresses, Some((address(1), address(2))));
    assert_eq!((range.ports, range.base), (Some((80, 81)), None));
    // Revision 0 is IPv4's alone.
    let unknown = XtTarget::Unknown { name: "DNAT".to_owned(), revision: 0 };
    assert_eq!(target_of("DNAT", 0, true, &blob), unknown);
}
