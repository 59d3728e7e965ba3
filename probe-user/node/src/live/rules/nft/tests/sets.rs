//! Sets, maps and their elements.

use super::*;

const SETS: &str = r#"
table ip t {
  chain c { tcp dport { 81, 82 } accept; }
  chain web { }
  set ports { type inet_service; comment "the ports"; elements = { 80 comment "web", 443 }; }
  set nets { type ipv4_addr; flags interval;
    elements = { 10.0.0.0/8, 192.168.1.1, 192.168.1.2-192.168.1.9, 240.0.0.0-255.255.255.255 }; }
  set tens { type inet_service; flags interval; elements = { 100-200, 201-300, 0-5 }; }
  set both { type ipv4_addr . inet_service; flags interval;
    elements = { 10.0.0.0/8 . 80-90, 1.2.3.4 . 22 }; }
  map services { type ipv4_addr . inet_proto . inet_service : verdict;
    elements = { 10.96.32.28 . tcp . 80 comment "ns/svc:web" : goto web, 10.96.0.1 . tcp . 443 : drop }; }
  map data { type inet_service : ipv4_addr . inet_service; elements = { 8080 : 10.1.1.1 . 70 }; }
  map some { type inet_service : verdict; elements = { 1 : accept, * : drop }; }
  map ranges { type inet_service : ipv4_addr; flags interval;
    elements = { 1-9 : 10.0.0.1, 10-20 : 10.0.0.2, * : 10.0.0.3 }; }
  set clients { type ipv4_addr; flags dynamic, timeout; timeout 1h; elements = { 10.0.0.7 }; }
  set slow { type ipv4_addr; flags dynamic; limit rate 1/second; }
  counter n { }
  map objects { type inet_service : counter; elements = { 5 : "n" }; }
}"#;

fn set_id(lab: &Lab, name: &str) -> SetId {
    SetId { table: chain_id(lab.id, Family::Ip, "t", "").table, name: name.into() }
}

/// Key, last key, verdict or data, comment.
fn line(element: &Element) -> String {
    let Element { key, key_end, catch_all, verdict, data, comment } = element;
    let mut line = if *catch_all { "*".to_owned() } else { format!("{key:?}") };
    line += &key_end.as_ref().map_or(String::new(), |end| format!("-{end:?}"));
    line += &verdict.as_ref().map_or(String::new(), |verdict| format!(" {verdict:?}"));
    line += &data.as_ref().map_or(String::new(), |data| format!(" = {data:?}"));
    line + &comment.as_ref().map_or(String::new(), |comment| format!(" # {comment}"))
}

#[test]
fn elements_are_those_that_were_added() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.nft(SETS);
    let (mut tables, mut talk) = lab.tables();
    let mut lines = |name: &str| {
        let all = tables.elements(&set_id(&lab, name), &mut talk).unwrap().unwrap();
        let mut lines: Vec<_> = all.iter().map(line).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines("ports"), ["0050 # web", "01bb"]);
    assert_eq!(
        lines("nets"),
        ["0a000000-0affffff", "c0a80101", "c0a80102-c0a80109", "f0000000-ffffffff"]
    );
    assert_eq!(lines("tens"), ["0000-0005", "0064-00c8", "00c9-012c"]);
    assert_eq!(
        lines("both"),
        ["0102030400160000-0102030400160000", "0a00000000500000-0affffff005a0000"]
    );
    assert_eq!(
        lines("services"),
        ["0a6000010600000001bb0000 Drop", "0a60201c0600000000500000 Goto(\"web\") # ns/svc:web"]
    );
    assert_eq!(lines("data"), ["1f90 = 0a01010100460000"]);
    assert_eq!(lines("some"), ["* Drop", "0001 Accept"]);
    assert_eq!(lines("ranges"), ["* = 0a000003", "0001-0009 = 0a000001", "000a-0014 = 0a000002"]);
    assert_eq!(lines("clients"), ["0a000007"]);
    assert_eq!(lines("slow"), [""; 0]);
    assert_eq!(lines("objects"), ["0005"]);
    assert_eq!(lines("__set0"), ["0051", "0052"]);
    assert_eq!(tables.elements(&set_id(&lab, "none"), &mut talk).unwrap(), None);
}

#[test]
fn a_set_says_what_it_is() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.nft(SETS);
    let (mut tables, mut talk) = lab.tables();
    let mut set = |name: &str| tables.set(&set_id(&lab, name), &mut talk).unwrap();
    let said = |set: Set| (set.interval, set.concat, set.dynamic, set.key_len, set.maps_to);
    let mut says = |name: &str| said(set(name).unwrap());
    assert_eq!(says("ports"), (false, false, false, 2, MapsTo::Nothing));
    assert_eq!(says("nets"), (true, false, false, 4, MapsTo::Nothing));
    assert_eq!(says("both"), (true, true, false, 8, MapsTo::Nothing));
    assert_eq!(says("services"), (false, false, false, 12, MapsTo::Verdict));
    assert_eq!(says("ranges"), (true, false, false, 2, MapsTo::Data));
    assert_eq!(says("clients"), (false, false, true, 4, MapsTo::Nothing));
    assert_eq!(says("slow"), (false, false, true, 4, MapsTo::Nothing));
    assert_eq!(says("objects"), (false, false, false, 2, MapsTo::Object));
    assert_eq!(set("both").unwrap().fields, [4, 2]);
    assert_eq!(set("ports").unwrap().comment.as_deref(), Some("the ports"));
    assert_eq!(set("none"), None);
}

#[test]
fn the_element_of_a_key_is_the_one_the_kernel_would_find() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.nft(SETS);
    let (mut tables, mut talk) = lab.tables();
    let mut find = |name: &str, key: &str| {
        let found = tables.element(&set_id(&lab, name), &hex(key), &mut talk).unwrap();
        found.as_ref().map_or("none".to_owned(), line)
    };
    // Twice: the second time from memory, and after all elements were read.
    for _ in 0..2 {
        assert_eq!(find("ports", "0050"), "0050 # web");
        assert_eq!(find("ports", "0051"), "none");
        assert_eq!(find("ports", "00"), "none");
        assert_eq!(find("none", "0050"), "none");
        let key = "0a60201c 06000000 00500000";
        assert_eq!(find("services", key), "0a60201c0600000000500000 Goto(\"web\") # ns/svc:web");
        assert_eq!(find("services", "0a60201c 11000000 00500000"), "none");
        assert_eq!(find("some", "0001"), "0001 Accept");
        assert_eq!(find("some", "0002"), "* Drop");
        assert_eq!(find("data", "1f90"), "1f90 = 0a01010100460000");
        assert_eq!(find("tens", "0096"), "0064-00c8");
        assert_eq!(find("tens", "00c9"), "00c9-012c");
        assert_eq!(find("tens", "0006"), "none");
        assert_eq!(find("nets", "ffffffff"), "f0000000-ffffffff");
        assert_eq!(find("ranges", "0014"), "000a-0014 = 0a000002");
        assert_eq!(find("ranges", "0015"), "* = 0a000003");
        assert_eq!(find("both", "0a01020300550000"), "0a00000000500000-0affffff005a0000");
        assert_eq!(find("both", "0a010203005b0000"), "none");
    }
}

#[test]
fn what_has_expired_is_not_in_a_set() {
    // As the kernel lists it: key 10.0.0.7, a timeout of an hour, expiration 0. Made
    // up: the kernel lists such an element only for the moment until it is removed.
    let key = wire::attribute(1, &wire::attribute(1, &[10, 0, 0, 7]).unwrap()).unwrap();
    let number = |kind, number: u64| wire::attribute(kind, &number.to_be_bytes()).unwrap();
    let count = |left| {
        let element = [key.clone(), number(4, 3_600_000), number(5, left)].concat();
        let list = wire::attribute(3, &wire::attribute(1, &element).unwrap()).unwrap();
        let mut parts = Vec::new();
        let message = wire::NftMessage { family: 2, body: &list };
        super::super::sets::parts(message, &mut NameInterner::default(), &mut parts);
        parts.len()
    };
    assert_eq!((count(0), count(1)), (0, 1));
}

#[test]
fn maps_of_numbers_are_whole() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.nft(
        "table ip t { chain a { }; chain b { };
           chain below { numgen random mod 3 vmap { 0 : goto a, 1 : goto b, 2 : goto a }; }
           chain above { numgen inc mod 2 offset 7 vmap { 7 : goto a, 8 : goto b }; }
           chain part { jhash ip saddr mod 4 vmap { 0 : goto a, 3 : goto b }; }
           chain marks { meta mark vmap { 0 : goto a, 1 : goto b }; }
         }",
    );
    let of = |chain: &str| {
        let (mut tables, mut talk) = lab.tables();
        tables.expect_all(&mut talk).unwrap();
        let chain = chain_id(lab.id, Family::Ip, "t", chain);
        let rules = tables.chain(&chain, &mut talk).unwrap().unwrap();
        let map = rules[0].exprs.iter().find_map(|expr| match expr {
            Expr::Map { set, .. } => Some(Arc::clone(set)),
            _ => None,
        });
        let id = set_id(&lab, &map.unwrap());
        let all = tables.elements(&id, &mut talk).unwrap().unwrap();
        let mut lines: Vec<_> = all.iter().map(line).collect();
        lines.sort();
        (lines, tables.told.numbered.get(&id).copied())
    };
    let (a, b) = ("Goto(\"a\")", "Goto(\"b\")");
    let line =
        |number: u32, to: &str| format!("{:?} {to}", Bytes::from(number.to_ne_bytes().to_vec()));
    assert_eq!(of("below"), (vec![line(0, a), line(1, b), line(2, a)], Some(3)));
    assert_eq!(of("above"), (vec![line(7, a), line(8, b)], Some(2)));
    assert_eq!(of("part"), (vec![line(0, a), line(3, b)], Some(2)));
    assert_eq!(of("marks"), (vec![line(0, a), line(1, b)], None));
}
