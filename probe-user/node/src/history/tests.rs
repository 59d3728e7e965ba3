//! A crash at every byte, a full disk, two writers, and old files.

use std::time::Duration;

use super::*;
use whereis_port_model::{HistoryRecord, Moment};

const LIMITS: StoreLimits = StoreLimits { keep: Duration::from_secs(3600), size: 1 << 20 };

fn at(seconds: u64) -> Moment {
    Moment { mono: seconds * 1_000_000_000, wall: (1000 + seconds) * 1_000_000_000 }
}

fn lost(events: u64) -> HistoryRecord {
    HistoryRecord::Lost { events, why: "as a test".to_owned() }
}

fn open(directory: &Path) -> Writer {
    Writer::open(directory, LIMITS, "boot").unwrap()
}

fn numbers(directory: &Path) -> Vec<u64> {
    let stored = read(directory, |_| true).unwrap();
    assert_eq!(stored.damaged, 0);
    stored.entries.iter().map(|entry| entry.seq).collect()
}

#[test]
fn what_was_acknowledged_is_there_whatever_byte_it_ended_at() {
    let whole = tempfile::tempdir().unwrap();
    let mut writer = open(whole.path());
    let mut acknowledged = vec![0];
    for number in 1..=4 {
        writer
            .append(vec![(at(number), lost(number)), (at(number), HistoryRecord::Alive)])
            .unwrap();
        acknowledged.push(writer.total());
    }
    drop(writer);
    let text = std::fs::read(whole.path().join(name(1))).unwrap();
    for length in 0..=text.len() {
        let cut = tempfile::tempdir().unwrap();
        std::fs::write(cut.path().join(name(1)), &text[..length]).unwrap();
        let safe = acknowledged.iter().rposition(|end| *end <= length as u64).unwrap() as u64;
        let before = numbers(cut.path());
        assert!(before.len() as u64 >= 2 * safe, "{length}: {before:?}");
        assert_eq!(before, (1..=before.len() as u64).collect::<Vec<_>>(), "{length}");
        // Whoever comes next goes on behind it, and the cut line stays in nobody's way.
        let mut next = open(cut.path());
        next.append(vec![(at(9), HistoryRecord::End)]).unwrap();
        let after = numbers(cut.path());
        assert_eq!(after, (1..=before.len() as u64 + 1).collect::<Vec<_>>(), "{length}");
    }
}

#[test]
fn one_writes_at_a_time_and_anybody_reads() {
    let store = tempfile::tempdir().unwrap();
    let mut writer = open(store.path());
    writer.append(vec![(at(1), HistoryRecord::Alive)]).unwrap();
    let error = Writer::open(store.path(), LIMITS, "boot").unwrap_err();
    let words = error.to_string();
    assert!(words.contains("another recorder") && words.contains(&std::process::id().to_string()));
    assert_eq!(numbers(store.path()), [1]);
    drop(writer);
    assert!(Writer::open(store.path(), LIMITS, "boot").is_ok());
}

#[test]
fn a_line_that_was_changed_is_counted_and_the_others_are_read() {
    let store = tempfile::tempdir().unwrap();
    open(store.path()).append((1..=3).map(|n| (at(n), lost(n))).collect()).unwrap();
    let path = store.path().join(name(1));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"events\":2", "\"events\":9", 1)).unwrap();
    let stored = read(store.path(), |_| true).unwrap();
    assert_eq!(stored.damaged, 1);
    assert_eq!(stored.entries.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn it_has_a_size_and_the_oldest_goes_first() {
    let store = tempfile::tempdir().unwrap();
    let limits = StoreLimits { size: 8 * 64 * 1024, ..LIMITS };
    let mut writer = Writer::open(store.path(), limits, "boot").unwrap();
    for number in 0..4000 {
        let many = (0..4).map(|_| (at(number / 10), lost(number))).collect();
        writer.append(many).unwrap();
        if writer.is_full() {
            writer.turn().unwrap();
        }
        assert!(writer.total() <= limits.size, "{}", writer.total());
    }
    let numbers = numbers(store.path());
    assert!(numbers[0] > 1 && *numbers.last().unwrap() == 16_000, "{numbers:?}");
    assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1));
}

#[test]
fn what_is_too_old_goes_by_the_clock_that_nobody_sets() {
    let store = tempfile::tempdir().unwrap();
    let mut writer = open(store.path());
    writer.append(vec![(at(1), HistoryRecord::Alive)]).unwrap();
    writer.turn().unwrap();
    // The clock is set forward by a year.
    let far = Moment { wall: at(2).wall + 365 * 86_400_000_000_000, ..at(2) };
    writer.append(vec![(far, HistoryRecord::Alive)]).unwrap();
    writer.turn().unwrap();
    assert_eq!(numbers(store.path()), [1, 2]);
    writer.append(vec![(at(2 * 3600), HistoryRecord::Alive)]).unwrap();
    writer.prune();
    assert_eq!(numbers(store.path()), [3]);
}
