//! Rules that change while they are read.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::wire::{NftMessage, attribute};
use super::*;

/// A table in which everything bears the same number.
fn numbered(number: u32) -> String {
    let mut text = format!(
        "table ip t {{ }}; delete table ip t; table ip t {{
           set s {{ type mark; elements = {{ {number} }}; }}
           map m {{ type inet_service : mark; elements = {{ 1 : {number} }}; }}
           chain base {{ type filter hook input priority {number}; meta mark set {number}; }}\n"
    );
    // More than fits into one read, so that changes fall into the middle of a dump.
    for chain in ["one", "two"] {
        let _ = write!(text, "chain {chain} {{");
        for _ in 0..300 {
            let _ = write!(text, "meta mark set {number};");
        }
        text += "}\n";
    }
    text + "}"
}

/// The numbers that rules and elements bear.
fn numbers(tables: &mut NftTables, talk: &mut Conversation, all: bool) -> Result<Vec<u32>, Failed> {
    let number = |bytes: &Bytes| u32::from_ne_bytes(*bytes.0.first_chunk().unwrap());
    if all {
        tables.expect_all(talk)?;
    }
    let netns = tables.netns;
    let mut numbers: Vec<u32> =
        tables.base_chains.iter().map(|chain| chain.priority.cast_unsigned()).collect();
    for name in ["base", "one", "two"] {
        let rules = tables.chain(&chain_id(netns, Family::Ip, "t", name), talk)?.unwrap();
        assert_eq!(rules.len(), if name == "base" { 1 } else { 300 });
        for rule in &*rules {
            let Expr::Immediate { value, .. } = &rule.exprs[0] else { panic!("{rule:?}") };
            numbers.push(number(value));
        }
    }
    let table = chain_id(netns, Family::Ip, "t", "").table;
    let id = |name: &str| SetId { table: table.clone(), name: name.into() };
    let elements = tables.elements(&id("s"), talk)?.unwrap();
    numbers.extend(elements.iter().map(|element| number(&element.key)));
    let element = tables.element(&id("m"), &hex("0001"), talk)?.unwrap();
    numbers.push(number(&element.data.unwrap()));
    Ok(numbers)
}

/// Stops the writer.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn rules_that_are_replaced_all_the_time_are_never_told_mixed() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.nft(&numbered(1));
    let mut talk = lab.talk();
    let stop = AtomicBool::new(false);
    let (mut whole, mut told) = (0, 0);
    std::thread::scope(|scope| {
        // Also when this thread panics: the other one would write for ever.
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| {
            let mut number = 1;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                lab.nft(&numbered(number));
            }
        });
        let end = Instant::now() + Duration::from_secs(20);
        let mut round = 0;
        while (whole < 20 || told < 3) && Instant::now() < end {
            round += 1;
            let read = NftTables::read(lab.id, &mut talk).and_then(|mut tables| {
                let numbers = numbers(&mut tables, &mut talk, round % 2 == 0)?;
                Ok((numbers, tables.mixed))
            });
            match read {
                Ok((numbers, false)) => {
                    whole += 1;
                    let first = numbers[0];
                    assert!(numbers.iter().all(|number| *number == first), "mixed: {numbers:?}");
                    assert_eq!(numbers.len(), 604);
                }
                Ok((_, true)) | Err(Failed::Changed) => told += 1,
                Err(failed) => panic!("{failed:?}"),
            }
        }
    });
    // That there was anything to notice, and that not everything is given up.
    assert!(whole > 0 && told > 0, "{whole} whole, {told} told to be mixed");
}

/// What is told when a dump gives rules with these handles, each behind another.
fn in_order(rules: &[(u64, Option<u64>)]) -> bool {
    let mut order = InOrder::default();
    for (n, (handle, behind)) in rules.iter().enumerate() {
        let mut body = attribute(1, b"nat\0").unwrap();
        body.extend(attribute(2, b"c\0").unwrap());
        body.extend(attribute(3, &handle.to_be_bytes()).unwrap());
        body.extend(behind.map(|b| attribute(6, &b.to_be_bytes()).unwrap()).unwrap_or_default());
        order.see(&RawRule::of(NftMessage { family: 2, body: &body }).unwrap(), n > 0);
    }
    order.is_whole().is_ok()
}

#[test]
fn rules_that_come_twice_or_are_left_out_are_noticed() {
    assert!(in_order(&[]));
    assert!(in_order(&[(4, None), (9, Some(4)), (5, Some(9))]));
    // The second came again, one behind it did not come, the first did not come.
    assert!(!in_order(&[(4, None), (9, Some(4)), (9, Some(4)), (5, Some(9))]));
    assert!(!in_order(&[(4, None), (5, Some(9))]));
    assert!(!in_order(&[(9, Some(4)), (5, Some(9))]));
}

#[test]
fn waiting_for_changes_makes_none() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.nft(&numbered(7));
    let mut talk = lab.talk();
    let before = talk.generation().unwrap();
    assert_eq!(talk.settled().unwrap(), before);
    assert!(talk.is_still(before).unwrap());
    lab.nft("add chain ip t another");
    assert!(!talk.is_still(before).unwrap());
    assert_eq!(talk.settled().unwrap(), before + 1);
}

#[test]
fn a_change_elsewhere_is_no_mixture() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.nft(&numbered(7));
    let (mut tables, mut talk) = lab.tables();
    let before = numbers(&mut tables, &mut talk, false).unwrap();
    let generation = tables.generation;
    lab.nft("table ip other { chain c { accept; }; }");
    let id = chain_id(lab.id, Family::Ip, "other", "c");
    assert_eq!(tables.chain(&id, &mut talk).unwrap().map(|rules| rules.len()), Some(1));
    assert!(tables.generation > generation && !tables.mixed);
    // Written again with the same content: handles differ, nothing else.
    lab.nft(&numbered(7));
    let id = chain_id(lab.id, Family::Ip, "other", "d");
    assert_eq!(tables.chain(&id, &mut talk).unwrap(), None);
    assert!(!tables.mixed);
    assert_eq!(numbers(&mut tables, &mut talk, false).unwrap(), before);
}

#[test]
fn a_change_of_what_was_told_is_a_mixture() {
    if !can_make_labs() {
        return;
    }
    for change in [
        "add rule ip t one accept",
        "flush chain ip t one",
        "add element ip t s { 8 }",
        "delete element ip t m { 1 }",
        "add chain ip t late { type filter hook output priority 0; }",
        "delete table ip t",
    ] {
        let lab = Lab::new();
        lab.nft(&numbered(7));
        let (mut tables, mut talk) = lab.tables();
        numbers(&mut tables, &mut talk, false).unwrap();
        assert!(!tables.mixed);
        lab.nft(change);
        tables.chain(&chain_id(lab.id, Family::Ip, "t", "new"), &mut talk).unwrap();
        assert!(tables.mixed, "{change}");
    }
}

#[test]
fn all_rules_are_the_same_read_at_once_or_chain_by_chain() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    let mut text = String::from("table ip t { set s { type mark; }\n");
    for chain in 0..=CHAINS_AT_ONCE {
        let _ = writeln!(text, "chain c{chain} {{ meta mark {chain} counter drop; }}");
    }
    lab.nft(&(text + "}\ntable inet t { chain c7 { accept; }; chain empty { }; }"));
    let (mut tables, mut talk) = lab.tables();
    tables.expect_all(&mut talk).unwrap();
    let at_once = tables.read_rules_at_once(&mut talk).unwrap();
    assert_eq!((tables.told.chains.len(), at_once.len()), (CHAINS_AT_ONCE + 3, CHAINS_AT_ONCE + 2));
    for (id, rules) in &tables.told.chains {
        let other = at_once.get(id).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(rules.as_deref(), Some(other), "{id:?}");
    }
}

#[test]
fn what_is_read_ahead_is_what_the_chain_has() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    let mut text = String::from("table ip nat {\n");
    for n in 0..1100 {
        let _ = writeln!(text, "chain c{n} {{ }}");
    }
    text +=
        "chain KUBE-SERVICES { meta mark set 5; }\nchain KUBE-NODEPORTS { meta mark set 6; }\n}";
    lab.nft(&text);
    let mark = |tables: &mut NftTables, talk: &mut Conversation, name: &str| {
        let id = chain_id(lab.id, Family::Ip, "nat", name);
        let rules = tables.chain(&id, talk).unwrap().unwrap();
        let values = rules.iter().filter_map(|rule| match rule.exprs.first() {
            Some(Expr::Immediate { value, .. }) => Some(value.0[0]),
            _ => None,
        });
        values.collect::<Vec<u8>>()
    };
    let (mut tables, mut talk) = lab.tables();
    assert_eq!(mark(&mut tables, &mut talk, "KUBE-SERVICES"), [5]);
    // A change comes when the other one was read ahead, and before it is asked for.
    lab.nft("add rule ip nat KUBE-NODEPORTS meta mark set 7");
    assert_eq!(mark(&mut tables, &mut talk, "KUBE-NODEPORTS"), [6, 7]);
    assert!(!tables.mixed);
}
