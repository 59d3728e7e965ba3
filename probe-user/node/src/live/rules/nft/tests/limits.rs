//! More rules than anybody needs.

use std::fmt::Write as _;

use super::super::super::allowance::Allowance;
use super::*;

#[test]
fn of_a_namespace_with_too_many_rules_no_more_is_read_than_allowed() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    let mut rules = "table ip t {\n chain c {\n".to_owned();
    for port in 1..2000 {
        let _infallible = writeln!(rules, "  tcp dport {port} accept");
    }
    lab.nft(&(rules + " }\n}\n"));
    let mut talk = lab.talk_within(Allowance::limited(100_000));
    let mut tables = NftTables::read(lab.id, &mut talk).unwrap();
    let table = tables.tables[0].id.clone();
    let id = ChainId { table, name: "c".into() };
    for _ in 0..2 {
        let failed = tables.chain(&id, &mut talk).unwrap_err();
        assert!(matches!(failed, Failed::TooMuch), "{failed:?}");
    }
    let mut talk = lab.talk_within(Allowance::limited(100));
    let failed = NftTables::read(lab.id, &mut talk).unwrap_err();
    assert!(matches!(failed, Failed::TooMuch), "also of tables: {failed:?}");
}

#[test]
fn of_a_set_with_very_many_elements_none_is_kept_and_others_are_still_read() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    let elements: Vec<String> =
        (0..140_000).map(|n| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)).collect();
    lab.nft(&format!(
        "table ip t {{\n set big {{ type ipv4_addr; elements = {{ {} }}\n }}\n \
         set few {{ type ipv4_addr; elements = {{ 10.0.0.1 }}\n }}\n}}\n",
        elements.join(",")
    ));
    let (mut tables, mut talk) = lab.tables();
    let set = |name: &str| SetId { table: tables.tables[0].id.clone(), name: name.into() };
    let (big, few) = (set("big"), set("few"));
    let failed = tables.elements(&big, &mut talk).unwrap_err();
    assert!(matches!(&failed, Failed::TooMany(set) if *set == big), "{failed:?}");
    let mut talk = lab.talk();
    assert_eq!(tables.elements(&few, &mut talk).unwrap().unwrap().len(), 1);
    // One alone is found all the same.
    let key = Bytes::from(vec![10, 0, 0, 7]);
    assert!(tables.element(&big, &key, &mut talk).unwrap().is_some());
}
