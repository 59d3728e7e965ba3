use super::*;
use crate::bench::rules::{About, Kind};

fn measured(size: Size, question: Question, tool: Tool, ms: u64, mb: u64) -> Measured {
    let samples = Samples { wall: vec![Duration::from_millis(ms); 3], peak: mb * 1_000_000 };
    Measured { size, question, tool, label: "a command", samples }
}

fn events() -> Events {
    Events {
        made: 40_000,
        seen: 39_990,
        lost: 10,
        burst: Duration::from_secs(1),
        cpu: Duration::from_millis(400),
        delays: (1..=98).map(Duration::from_millis).collect(),
        without: vec![1_000.0; 3],
        with: vec![1_500.0; 3],
    }
}

#[test]
fn what_is_lost_must_be_counted() {
    let met = |events: &Events| {
        let all = targets::of_events(events);
        (all[0].met, all[1].met)
    };
    assert_eq!(met(&events()), (true, true));
    assert_eq!(met(&Events { lost: 9, ..events() }), (false, true));
    assert_eq!(met(&Events { lost: 3, seen: 40_000, ..events() }), (true, true));
    let slow = vec![Duration::from_millis(50)];
    assert_eq!(met(&Events { delays: slow, ..events() }), (true, false));
    assert_eq!(met(&Events::default()), (false, false));
}

/// A run in which ours take `ours` and `pinned`, `ss` 120 and `lsof` 200 ms.
fn run(size: Size, ours: u64, pinned: u64, peak: u64) -> Vec<Measured> {
    let mut all = Vec::new();
    for question in [Question::OnePort, Question::List] {
        for (tool, ms, mb) in [
            (Tool::Ours, ours, peak),
            (Tool::Json, ours, 1),
            (Tool::Pinned, pinned, 1),
            (Tool::PinnedJson, pinned, 1),
            (Tool::SsPort, 120, 1),
            (Tool::Ss, 120, 1),
            (Tool::Lsof, 200, 1),
        ] {
            all.push(measured(size, question, tool, ms, mb));
        }
    }
    all
}

fn met(size: Size, all: &[Measured]) -> Vec<bool> {
    targets::of_node(all, size).into_iter().map(|target| target.met).collect()
}

#[test]
fn targets_are_met_at_their_bounds_and_missed_beyond() {
    let big = |ours, pinned, peak| met(Size::Big, &run(Size::Big, ours, pinned, peak));
    assert_eq!(big(100, 15, 29), [true; 8]);
    assert_eq!(big(101, 16, 29), [false, false, false, true, true, true, true, true]);
    assert_eq!(big(121, 25, 30), [false, false, false, false, false, false, true, false]);
    assert_eq!(big(121, 41, 30), [false; 8]);
    let small = |ours, pinned| met(Size::Small, &run(Size::Small, ours, pinned, 1));
    assert_eq!(small(120, 96), [true; 3]);
    assert_eq!(small(180, 97), [true, false, false]);
    assert_eq!(small(181, 97), [false; 3]);
}

#[test]
fn what_was_not_measured_is_not_met() {
    assert_eq!(met(Size::Big, &[]), [false; 8]);
    assert_eq!(met(Size::Small, &[]), [false; 3]);
    let mut all = run(Size::Big, 100, 15, 29);
    all.retain(|m| m.tool != Tool::Lsof);
    assert_eq!(met(Size::Big, &all)[..3], [true, false, true]);
}

fn ruled(ms: u64) -> Vec<OfRules> {
    let samples = Samples { wall: vec![Duration::from_millis(ms)], peak: 149_000_000 };
    let abouts = [About::OnePort, About::List, About::Rules];
    let row = |kind, about| OfRules { kind, about, label: "a command", samples: samples.clone() };
    Kind::ALL.iter().flat_map(|kind| abouts.map(|about| row(*kind, about))).collect()
}

#[test]
fn targets_with_many_rules() {
    let met = |rules: &[OfRules]| {
        targets::of_rules(rules).into_iter().map(|target| target.met).collect::<Vec<_>>()
    };
    assert_eq!(met(&ruled(50)), [true; 5]);
    assert_eq!(met(&ruled(51)), [false, false, true, true, true]);
    assert_eq!(met(&ruled(1_001)), [false, false, false, false, true]);
    assert_eq!(met(&[]), [false; 5]);
}

#[test]
fn medians() {
    assert_eq!(median(vec![3.0, 1.0, 100.0]), 3.0);
    assert_eq!(median(vec![4.0, 1.0, 2.0, 100.0]), 3.0);
    assert!(median(Vec::new()).is_nan());
}

#[test]
fn the_tables_have_every_command_and_every_target() {
    let machine = Machine {
        date: "2020-01-02".into(),
        kernel: "6.1.0".into(),
        cpu: "Some CPU".into(),
        cpus: 2,
        rounds: 3,
    };
    let text = heading(&machine);
    assert!(text.contains("2020-01-02, Linux 6.1.0, 2 × Some CPU; medians of 3"), "{text}");
    let text = of_node(Size::Big, "A node.", &run(Size::Big, 60, 15, 29)).markdown;
    assert!(text.starts_with("A node.\n"), "{text}");
    assert_eq!(text.matches("`a command`").count(), 14);
    assert!(text.contains("| big | one port | `a command` | 120.0 ms | 2.00 | 1.0 MB |"), "{text}");
    assert_eq!(text.matches("| met |").count(), 8, "{text}");
    let text = of_rules(&ruled(50)).markdown;
    assert!(text.contains("| nft | one NodePort | `a command` | 50.0 ms | 149.0 MB |"), "{text}");
    assert_eq!(text.matches("| met |").count(), 5, "{text}");
    let text = of_events(&events()).markdown;
    assert!(text.contains("1000 ns and 1500 ns (+500 ns, +50.0 %)"), "{text}");
    assert!(text.contains("each event | 10.0 µs |"), "{text}");
}

#[test]
fn a_command_that_was_too_slow_is_shown_as_such() {
    let mut all = run(Size::Big, 100, 15, 29);
    all[4].samples.wall.clear();
    let Part { markdown, json } = of_node(Size::Big, "", &all);
    assert!(markdown.contains("| big | one port | `a command` | over 10 s | | |"), "{markdown}");
    assert_eq!(json["cases"][4]["median_ms"], Value::Null);
}

#[test]
fn the_block_is_replaced_and_nothing_else() {
    let old = format!("a\n{BEGIN}\nold\n{END}\nb\n");
    let new = insert(&old, "new").unwrap();
    assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
    assert_eq!(insert(&new, "new").unwrap(), new);
    assert!(insert("no marks", "new").is_err());
    assert!(insert(&format!("{END} {BEGIN}"), "new").is_err());
}

#[test]
fn a_processor_without_a_name_is_none() {
    let x86 = "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\n";
    assert_eq!(cpu_model(x86), Some("Some CPU @ 2GHz"));
    assert_eq!(cpu_model("processor\t: 0\nBogoMIPS\t: 50.00\n"), None);
}
