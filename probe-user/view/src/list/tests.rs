use std::rc::Rc;

use crate::fixtures::{self, HOSTILE, host, listing, user_host};
use crate::layout::width;
use crate::style::Style;
use whereis_port_model::escape::is_unsafe;
use whereis_port_model::{Ending, Host, Listing};

use super::{TableOptions, csv, table};

const TABLE: TableOptions = TableOptions { wide: false, headers: true, columns: None };
const WIDE: TableOptions = TableOptions { wide: true, headers: true, columns: None };

/// Sorts by what somebody typed.
fn sort(rows: &mut [whereis_port_model::ListRow], by: &str) -> Result<(), String> {
    super::sort_rows(rows, &by.parse()?);
    Ok(())
}

fn at(width: usize) -> Style {
    Style { width: Some(width), ..Style::PLAIN }
}

fn as_csv(listing: &Listing) -> String {
    let mut out = Vec::new();
    csv(listing, None, true, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// A list of which every text is hostile.
fn hostile() -> Listing {
    let (answer, ..) = fixtures::hostile();
    let mut listing = listing();
    for (row, path) in listing.rows.iter_mut().zip(answer.paths) {
        row.netns.name = Some(whereis_port_model::NetnsName::Given(HOSTILE.to_owned()));
        row.target = path.hops.last().map(|hop| hop.endpoint.clone());
        row.target_detail = Some(HOSTILE.to_owned());
        row.end = path.end.into();
    }
    listing.gaps = answer.gaps;
    listing
}

#[test]
fn tables() {
    insta::assert_snapshot!("table_80", table(&listing(), &host(), &at(80), &TABLE));
    insta::assert_snapshot!("table_120", table(&listing(), &host(), &at(120), &TABLE));
    insta::assert_snapshot!("table_pipe", table(&listing(), &user_host(), &Style::PLAIN, &TABLE));
    insta::assert_snapshot!("wide", table(&listing(), &host(), &at(80), &WIDE));
    insta::assert_snapshot!("csv", as_csv(&listing()));
}

#[test]
fn rows_fit_the_terminal_and_keep_port_and_address() {
    for columns in 76..150 {
        let text = table(&listing(), &host(), &at(columns), &TABLE);
        for line in text.lines() {
            assert!(width(line) <= columns, "{columns}: {line:?}\n{text}");
        }
        assert!(text.contains("2024") && text.contains("fe80::a00:27ff:fe4e:66a1"), "{text}");
    }
}

#[test]
fn target_goes_first_and_then_the_namespace() {
    let mut listing = listing();
    listing.rows.iter_mut().for_each(|row| Rc::make_mut(&mut row.end).pod = None);
    let heading = |columns| {
        let text = table(&listing, &host(), &at(columns), &TABLE);
        text.lines().next().unwrap().to_owned()
    };
    assert!(heading(130).contains("TARGET"));
    let narrow = heading(80);
    assert!(!narrow.contains("TARGET") && narrow.contains("NETNS"), "{narrow}");
    let narrower = heading(66);
    assert!(!narrower.contains("NETNS") && narrower.contains("CONTAINER"), "{narrower}");
}

#[test]
fn an_unknown_owner_is_never_an_empty_cell() {
    for (ending, mark) in [
        (Ending::Kernel, "(kernel)"),
        (Ending::OutsidePidNamespace, "(outside PID ns)"),
        (Ending::NotReadable, "(not readable)"),
        (Ending::Unknown, "(unknown)"),
        (Ending::Process, "(unknown)"),
    ] {
        let mut one = listing();
        one.rows.truncate(1);
        let end = Rc::make_mut(&mut one.rows[0].end);
        end.ending = ending;
        end.processes.clear();
        let text = table(&one, &user_host(), &Style::PLAIN, &TABLE);
        let row = text.lines().nth(1).unwrap();
        assert!(row.contains(mark), "{text}");
        assert!(
            text.lines().any(|line| line.starts_with(mark)),
            "no explanation of {mark}: {text}"
        );
        assert!(as_csv(&one).contains(mark));
    }
}

#[test]
fn the_remedy_fits_the_rights() {
    let root = table(&listing(), &host(), &Style::PLAIN, &TABLE);
    let user = table(&listing(), &user_host(), &Style::PLAIN, &TABLE);
    assert!(
        !root.contains("run as root, or with") && user.contains("run as root, or with"),
        "{user}"
    );
    assert!(root.contains("although CAP_SYS_PTRACE is there"), "{root}");
    let less = Host { capabilities: Vec::new(), ..host() };
    let less = table(&listing(), &less, &Style::PLAIN, &TABLE);
    assert!(less.contains("CAP_SYS_PTRACE would give it"), "{less}");
    let inside = Host { init_pid_ns: false, ..host() };
    assert!(table(&listing(), &inside, &Style::PLAIN, &TABLE).contains("ask on the host itself"));
}

#[test]
fn columns_without_anything_go_before_a_text_is_cut() {
    let mut plain = listing();
    for row in &mut plain.rows {
        Rc::make_mut(&mut row.end).containers.clear();
        row.target = None;
    }
    let heading = |columns| {
        let text = table(&plain, &host(), &at(columns), &TABLE);
        text.lines().next().unwrap().to_owned()
    };
    assert!(heading(200).contains("CONTAINER") && heading(200).contains("TARGET"));
    let narrow = heading(76);
    assert!(!narrow.contains("CONTAINER") && narrow.contains("POD"), "{narrow}");
}

#[test]
fn how_many_more_hold_it_is_never_cut() {
    let mut many = listing();
    let process = many.rows[0].end.processes[0].clone();
    let long = whereis_port_model::Process { cmdline: vec!["x".repeat(60)], ..process };
    Rc::make_mut(&mut many.rows[0].end).processes = vec![long; 15];
    for columns in 76..120 {
        let text = table(&many, &host(), &at(columns), &TABLE);
        assert!(text.contains("r (+14) "), "{columns}: {text}");
    }
}

#[test]
fn no_headers_and_nothing_to_explain() {
    let mut one = listing();
    one.rows.truncate(1);
    one.gaps.clear();
    let text = table(&one, &host(), &Style::PLAIN, &TableOptions { headers: false, ..TABLE });
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("20971  tcp  127.0.0.1"), "{text}");
    let mut out = Vec::new();
    csv(&one, None, false, &mut out).unwrap();
    assert!(out.starts_with(b"20971,tcp,"));
    let empty = Listing::default();
    assert_eq!(table(&empty, &host(), &Style::PLAIN, &TABLE).lines().count(), 1);
}

#[test]
fn sorting_by_number_name_and_address() {
    let ports =
        |rows: &[whereis_port_model::ListRow]| rows.iter().map(|r| r.port.0).collect::<Vec<_>>();
    let mut rows = listing().rows;
    sort(&mut rows, "port").unwrap();
    assert!(ports(&rows).is_sorted());
    sort(&mut rows, "PORT:desc").unwrap();
    assert!(ports(&rows).is_sorted_by(|a, b| a >= b));
    sort(&mut rows, "address").unwrap();
    assert!(rows.iter().map(|r| r.address).is_sorted());
}

#[test]
fn rows_without_a_value_come_last_in_either_order() {
    for by in ["pid", "pid:desc"] {
        let mut rows = listing().rows;
        sort(&mut rows, by).unwrap();
        let known: Vec<bool> = rows.iter().map(|r| !r.end.processes.is_empty()).collect();
        assert!(known.is_sorted_by(|a, b| a >= b), "{by}: {known:?}");
    }
}

#[test]
fn sorting_by_several_columns() {
    let of = |rows: &[whereis_port_model::ListRow]| {
        rows.iter().map(|r| (r.netns.id, std::cmp::Reverse(r.port))).collect::<Vec<_>>()
    };
    let mut rows = listing().rows;
    sort(&mut rows, "netns,port:desc").unwrap();
    let mut together = of(&rows);
    together.dedup_by_key(|(netns, _)| *netns);
    let namespaces = of(&rows).iter().map(|(n, _)| *n).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(together.len(), namespaces.len(), "those of one namespace stand together");
    let first = rows[0].netns.id;
    let inside = of(&rows).into_iter().filter(|(netns, _)| *netns == first);
    assert!(inside.collect::<Vec<_>>().is_sorted());
    assert!(sort(&mut rows, "port,size").unwrap_err().contains("\"size\""));
}

#[test]
fn columns_that_are_chosen_are_the_table() {
    let columns = |names: &str| Some(names.parse().unwrap());
    let options = TableOptions { columns: columns("service, PORT,pod"), ..TABLE };
    let text = table(&listing(), &host(), &at(40), &options);
    let first = text.lines().next().unwrap();
    let titles: Vec<&str> = first.split_whitespace().collect();
    assert_eq!(titles, ["SERVICE", "PORT", "POD"]);
    let wrong = |names: &str| names.parse::<super::SelectedColumns>().unwrap_err();
    assert!(wrong("port,size").contains("unknown column \"size\": one of port, "));
    assert!(wrong("port,PORT").contains("twice") && wrong(",").contains("no column"));
}

#[test]
fn rows_are_left_out_by_what_they_have_in_a_column() {
    let rows = listing().rows;
    let count = |text: &str| {
        let only: super::ColumnFilter = text.parse().unwrap();
        rows.iter().filter(|row| only.passes(row)).count()
    };
    assert_eq!(count("port=6443"), 2);
    assert_eq!(count("process~NGINX") + count("process!~nginx"), rows.len());
    assert_eq!(count("pod=") + count("pod!="), rows.len());
    assert!(count("kind=published") > 0 && count("kind=NodePort") == 0);
    let wrong = |text: &str| text.parse::<super::ColumnFilter>().unwrap_err();
    assert!(wrong("port").contains("COL=TEXT") && wrong("size=1").contains("\"size\""));
}

#[test]
fn columns_are_added_to_the_usual_ones() {
    let titles = |columns: &str| {
        let options = TableOptions { columns: Some(columns.parse().unwrap()), ..TABLE };
        let text = table(&listing(), &host(), &Style::PLAIN, &options);
        text.lines().next().unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let (usual, more) = (titles("+port"), titles("+reach,user"));
    assert_eq!(more[..usual.len()], usual[..]);
    assert_eq!(more[usual.len()..], ["REACH", "USER"]);
    assert!(usual.len() > 5);
}

#[test]
fn sorting_does_not_depend_on_the_order_before() {
    let mut one = listing().rows;
    let mut other: Vec<_> = one.iter().rev().cloned().collect();
    sort(&mut one, "container").unwrap();
    sort(&mut other, "container").unwrap();
    assert_eq!(one, other);
}

#[test]
fn an_unknown_column_is_answered_with_the_known_ones() {
    let error = sort(&mut Vec::new(), "size").unwrap_err();
    assert!(error.contains("\"size\"") && error.contains("port, proto, address"), "{error}");
    let error = sort(&mut Vec::new(), "port:up").unwrap_err();
    assert!(error.contains("asc or desc"), "{error}");
}

#[test]
fn a_spreadsheet_calculates_nothing() {
    let signs = ['=', '+', '-', '@', '＝', '＋', '－', '＠', '﹦', '﹢', '﹣', '﹫'];
    let mut one = listing();
    one.rows.truncate(1);
    for evil in [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        " =1",
        "＝1+1",
        "＋1",
        "－1",
        "＠A1",
        "﹦1",
        "x;=1",
        "x; +1",
        "x\t@A1",
        ";;-1",
        "x,=1;＝1",
        "\";=1;\"",
    ] {
        let end = Rc::make_mut(&mut one.rows[0].end);
        end.containers[0].name = Some(evil.to_owned());
        end.containers.truncate(1);
        end.processes[0].cmdline = vec![evil.to_owned()];
        let text = as_csv(&one);
        let mut reader = ::csv::Reader::from_reader(text.as_bytes());
        for record in reader.records() {
            for cell in &record.unwrap() {
                assert!(!cell.trim_start().starts_with(signs), "{cell:?}");
            }
        }
        // To a spreadsheet that separates by semicolons or tabs, a quote inside of its cell is
        // only a character.
        for cell in text.split([';', '\t', '\n']) {
            let cell = cell.trim_start_matches(['"', ' ']);
            assert!(!cell.starts_with(signs), "{cell:?} in {text}");
        }
    }
}

#[test]
fn cells_with_any_separator_are_quoted() {
    let mut one = listing();
    one.rows.truncate(1);
    let end = Rc::make_mut(&mut one.rows[0].end);
    end.processes[0].cmdline = vec!["a;b".to_owned(), "say \"x\", y".to_owned()];
    let text = as_csv(&one);
    assert!(text.contains("\"a;b "), "{text}");
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let record = reader.records().next().unwrap().unwrap();
    assert!(record.iter().any(|cell| cell.starts_with("a;b ") && cell.contains('"')), "{text}");
}

#[test]
fn csv_has_the_same_columns_in_every_row() {
    for listing in [listing(), hostile()] {
        let text = as_csv(&listing);
        let mut reader = ::csv::Reader::from_reader(text.as_bytes());
        assert_eq!(reader.records().map(Result::unwrap).count(), listing.rows.len());
    }
}

#[test]
fn hostile_text_never_reaches_the_terminal() {
    for wide in [false, true] {
        for width in [None, Some(60), Some(120)] {
            for unicode in [false, true] {
                let style = Style { width, unicode, ..Style::PLAIN };
                let text = table(
                    &hostile(),
                    &host(),
                    &style,
                    &TableOptions { wide, headers: true, columns: None },
                );
                assert_eq!(text.chars().find(|c| *c != '\n' && is_unsafe(*c)), None, "{text:?}");
            }
        }
    }
    let text = as_csv(&hostile());
    assert_eq!(text.chars().find(|c| *c != '\n' && is_unsafe(*c)), None, "{text:?}");
}
