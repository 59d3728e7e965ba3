//! From what a recorder kept to who had a port, and for how long. Pure.

use whereis_port_model::{
    EventKind, History, HistoryEntry, HistoryQuery, HistoryRecord, Holding, HoldingEdge,
    ListenerRecord, Moment, Unrecorded,
};

/// A clock that differs by more than this from what it was has been set, in nanoseconds.
const SET: i128 = 50_000_000;

/// A time in which a recorder ran and nobody set the clock.
#[derive(Debug)]
struct ClockSpan<'a> {
    boot: &'a str,
    from: u64,
    to: u64,
    /// What the clock said, less the time since boot.
    offset: i128,
}

/// What is being put together.
#[derive(Debug, Default)]
struct Making<'a> {
    history: History,
    /// The holdings that have not ended yet.
    open: Vec<usize>,
    /// Those of them that were told again since a recorder began.
    told: Vec<usize>,
    /// When this recorder began, and when the one before was heard of last.
    begun: Moment,
    before: Option<(&'a str, Moment)>,
    /// Whether a new recorder began, and has not told all yet.
    begins: bool,
    last: Option<(&'a str, Moment)>,
    ended: bool,
    pieces: Vec<ClockSpan<'a>>,
}

/// Who had what, of the entries of a store in their order: of the ports whose listeners are
/// among them; with `at`, at that time only (nanoseconds since the epoch).
pub fn history(entries: &[HistoryEntry], damaged: u64, at: Option<u64>) -> History {
    let mut making = Making::default();
    for entry in entries {
        making.take(entry);
    }
    let Making { mut history, open, last, pieces, .. } = making;
    for index in open {
        if let (Some(holding), Some((_, last))) = (history.holdings.get_mut(index), last) {
            holding.to = HoldingEdge::Last(last);
        }
    }
    history.damaged = damaged;
    history.holdings.sort_by_key(|holding| holding.from.inner().wall);
    if let Some(at) = at {
        let times: Vec<(&str, u64)> = pieces.iter().filter_map(|p| p.is_then(at)).collect();
        let held = |holding: &Holding| times.iter().any(|(boot, mono)| is_in(holding, boot, *mono));
        history.holdings.retain(held);
        history.asked = Some(HistoryQuery { at, times: times.len() });
    }
    history
}

impl<'a> ClockSpan<'a> {
    /// The time since boot when the clock said this.
    fn is_then(&self, at: u64) -> Option<(&'a str, u64)> {
        let mono = u64::try_from(i128::from(at) - self.offset).ok()?;
        (self.from <= mono && mono <= self.to).then_some((self.boot, mono))
    }
}

fn is_in(holding: &Holding, boot: &str, mono: u64) -> bool {
    let ends = match holding.to {
        HoldingEdge::Seen(at) => mono < at.mono,
        HoldingEdge::Before(at) | HoldingEdge::Between(at, _) | HoldingEdge::Last(at) => {
            mono <= at.mono
        }
    };
    holding.boot == boot && holding.from.inner().mono <= mono && ends
}

impl<'a> Making<'a> {
    fn take(&mut self, entry: &'a HistoryEntry) {
        let at = entry.at;
        if let HistoryRecord::Begin { goes_on: false, .. } = &entry.what {
            self.begin(entry);
        }
        match &entry.what {
            HistoryRecord::Begin { gaps, goes_on, .. } => {
                for gap in gaps {
                    if !self.history.gaps.contains(gap) {
                        self.history.gaps.push(gap.clone());
                    }
                }
                if *goes_on && self.last.is_none() {
                    // What was before was too old.
                    self.begun = at;
                }
            }
            HistoryRecord::Listener { listener, since } => self.listener(entry, listener, *since),
            HistoryRecord::Ready => self.ready(at),
            HistoryRecord::Event { kind, listener, .. } => match kind {
                EventKind::Listen | EventKind::Bind => self.opened(entry, listener),
                EventKind::Close => self.closed(entry, listener),
                EventKind::Connect | EventKind::Accept | EventKind::Nat | EventKind::Drop => {}
            },
            HistoryRecord::Lost { events, why } => {
                self.history.lost.push((at, *events, why.clone()))
            }
            HistoryRecord::Alive | HistoryRecord::End => {}
        }
        self.ended = entry.what == HistoryRecord::End;
        self.tick(entry);
    }

    /// Goes on with the clocks.
    fn tick(&mut self, entry: &'a HistoryEntry) {
        let (boot, at) = (entry.boot.as_str(), entry.at);
        let offset = i128::from(at.wall) - i128::from(at.mono);
        let goes_on = match self.pieces.last_mut() {
            Some(piece) if !matches!(entry.what, HistoryRecord::Begin { goes_on: false, .. }) => {
                // Until it was noticed the clock is taken to have been what it was.
                piece.to = piece.to.max(at.mono);
                piece.boot == boot && (piece.offset - offset).abs() <= SET
            }
            _ => false,
        };
        if !goes_on {
            self.pieces.push(ClockSpan { boot, from: at.mono, to: at.mono, offset });
        }
        self.last = Some((boot, at));
        let first = self.history.recorded.map_or(at, |(first, _)| first);
        self.history.recorded = Some((first, at));
    }

    fn begin(&mut self, entry: &'a HistoryEntry) {
        self.before = self.last;
        if let Some((boot, from)) = self.last {
            let booted = boot != entry.boot;
            let ended = self.ended;
            self.history.unrecorded.push(Unrecorded { from, to: entry.at, booted, ended });
        }
        (self.begun, self.begins) = (entry.at, true);
        self.told.clear();
    }

    /// The open holding of a listener.
    fn find(&self, boot: &str, listener: &ListenerRecord) -> Option<usize> {
        let is_it = |index: &&usize| {
            let holding = self.history.holdings.get(**index);
            holding.is_some_and(|h| h.boot == boot && h.listener.is_same(listener))
        };
        self.open.iter().find(is_it).copied()
    }

    fn add(&mut self, boot: &str, listener: &ListenerRecord, from: HoldingEdge) -> usize {
        let (listener, boot) = (listener.clone(), boot.to_owned());
        let to = HoldingEdge::Last(from.inner());
        self.history.holdings.push(Holding { listener, boot, from, to, unrecorded: 0 });
        self.history.holdings.len() - 1
    }

    fn listener(&mut self, entry: &HistoryEntry, listener: &ListenerRecord, since: Option<Moment>) {
        let known = self.find(&entry.boot, listener);
        let index = match known {
            Some(index) => {
                if let (true, Some((_, before)), Some(holding)) =
                    (self.begins, self.before, self.history.holdings.get_mut(index))
                {
                    holding.unrecorded += self.begun.mono.saturating_sub(before.mono);
                }
                index
            }
            None => {
                let from = since.map_or(HoldingEdge::Before(self.begun), HoldingEdge::Seen);
                let index = self.add(&entry.boot, listener, from);
                self.open.push(index);
                index
            }
        };
        self.told.push(index);
    }

    /// What was open and was not told again has ended meanwhile.
    fn ready(&mut self, at: Moment) {
        if !std::mem::take(&mut self.begins) {
            return;
        }
        let before = self.before.map_or(at, |(_, before)| before);
        let (told, begun) = (&self.told, self.begun);
        let holdings = &mut self.history.holdings;
        self.open.retain(|index| {
            let stays = told.contains(index);
            if let Some(holding) = holdings.get_mut(*index).filter(|_| !stays) {
                holding.to = HoldingEdge::Between(before, begun);
            }
            stays
        });
    }

    fn opened(&mut self, entry: &HistoryEntry, listener: &ListenerRecord) {
        match self.find(&entry.boot, listener) {
            // It came while the recorder read what there is.
            Some(index) => {
                if let Some(holding) = self.history.holdings.get_mut(index)
                    && matches!(holding.from, HoldingEdge::Before(begun) if begun == self.begun)
                    && entry.at.mono >= self.begun.mono
                {
                    holding.from = HoldingEdge::Seen(entry.at);
                }
            }
            None => {
                let index = self.add(&entry.boot, listener, HoldingEdge::Seen(entry.at));
                self.open.push(index);
            }
        }
    }

    fn closed(&mut self, entry: &HistoryEntry, listener: &ListenerRecord) {
        let index = match self.find(&entry.boot, listener) {
            Some(index) => index,
            // It was gone before it could be read.
            None => self.add(&entry.boot, listener, HoldingEdge::Before(self.begun)),
        };
        self.open.retain(|open| *open != index);
        if let Some(holding) = self.history.holdings.get_mut(index) {
            holding.to = HoldingEdge::Seen(entry.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whereis_port_model::{HistoryHolder, NetnsId, Port, Proto};

    const S: u64 = 1_000_000_000;

    fn listener(inode: u64, name: &str) -> ListenerRecord {
        ListenerRecord {
            netns: Some(NetnsId::Inode(7)),
            netns_name: None,
            proto: Proto::Tcp,
            address: "0.0.0.0".parse().unwrap(),
            port: Some(Port(8080)),
            inode: Some(inode),
            holder: Some(HistoryHolder { name: name.to_owned(), ..HistoryHolder::default() }),
        }
    }

    /// The clock of boot `a` began at 1000 s.
    fn entry(mono: u64, what: HistoryRecord) -> HistoryEntry {
        HistoryEntry {
            seq: 0,
            boot: "a".into(),
            at: Moment { mono: mono * S, wall: (1000 + mono) * S },
            what,
        }
    }

    fn begin() -> HistoryRecord {
        HistoryRecord::Begin {
            goes_on: false,
            kinds: Vec::new(),
            gaps: Vec::new(),
            version: String::new(),
        }
    }

    fn snapshot(inode: u64, name: &str) -> HistoryRecord {
        HistoryRecord::Listener { listener: listener(inode, name), since: None }
    }

    fn event(kind: EventKind, inode: u64, name: &str) -> HistoryRecord {
        let listener = listener(inode, name);
        HistoryRecord::Event { kind, listener, peer: None, dropped: None, rule: None }
    }

    fn names(history: &History) -> Vec<&str> {
        history
            .holdings
            .iter()
            .filter_map(|h| Some(h.listener.holder.as_ref()?.name.as_str()))
            .collect()
    }

    fn two() -> Vec<HistoryEntry> {
        vec![
            entry(10, begin()),
            entry(10, snapshot(1, "old")),
            entry(10, HistoryRecord::Ready),
            entry(20, event(EventKind::Close, 1, "old")),
            entry(30, event(EventKind::Listen, 2, "new")),
            entry(50, HistoryRecord::Alive),
        ]
    }

    #[test]
    fn who_held_it_when_and_for_how_long() {
        let entries = two();
        let all = history(&entries, 0, None);
        assert_eq!(names(&all), ["old", "new"]);
        assert!(matches!(all.holdings[0].from, HoldingEdge::Before(_)));
        assert_eq!(all.holdings[0].lasted(), 10 * S);
        assert!(matches!(all.holdings[1].to, HoldingEdge::Last(at) if at.mono == 50 * S));
        let at = |wall: u64| history(&entries, 0, Some(wall * S));
        assert_eq!(names(&at(1015)), ["old"]);
        assert_eq!(names(&at(1025)), [""; 0]);
        assert_eq!(at(1025).asked, Some(HistoryQuery { at: 1025 * S, times: 1 }));
        assert_eq!(names(&at(1040)), ["new"]);
        assert_eq!(at(1060).asked.unwrap().times, 0, "not recorded any more");
        assert_eq!(at(5).asked.unwrap().times, 0, "not recorded yet");
    }

    #[test]
    fn a_gap_between_recorders_is_told_and_not_papered_over() {
        let mut entries = two();
        entries.extend([
            entry(90, begin()),
            entry(90, snapshot(2, "new")),
            entry(90, snapshot(3, "third")),
            entry(90, HistoryRecord::Ready),
            entry(95, HistoryRecord::End),
            entry(120, begin()),
            entry(120, HistoryRecord::Ready),
        ]);
        let all = history(&entries, 0, None);
        assert_eq!(names(&all), ["old", "new", "third"]);
        assert_eq!(all.holdings[1].unrecorded, 40 * S);
        let between = (95 * S, 120 * S);
        assert!(matches!(
            all.holdings[1].to,
            HoldingEdge::Between(from, to) if (from.mono, to.mono) == between
        ));
        let gaps: Vec<_> =
            all.unrecorded.iter().map(|g| (g.from.mono / S, g.to.mono / S, g.ended)).collect();
        assert_eq!(gaps, [(50, 90, false), (95, 120, true)]);
        assert_eq!(history(&entries, 0, Some(1070 * S)).asked.unwrap().times, 0);
    }

    #[test]
    fn another_boot_ends_everything() {
        let mut entries = two();
        for what in [begin(), snapshot(2, "new"), HistoryRecord::Ready] {
            entries.push(HistoryEntry { boot: "b".into(), ..entry(5, what) });
        }
        let all = history(&entries, 0, None);
        assert_eq!(all.holdings.len(), 3, "the same inode of another boot is another socket");
        assert!(all.unrecorded[0].booted);
        assert!(matches!(
            all.holdings.iter().find(|h| h.boot == "a" && h.listener.inode == Some(2)).unwrap().to,
            HoldingEdge::Between(..)
        ));
    }

    #[test]
    fn a_clock_that_is_set_back_has_a_time_twice_and_nothing_is_lost() {
        let mut entries = two();
        // At 60 s the clock is set back by half a minute.
        for (mono, what) in [
            (60, HistoryRecord::Alive),
            (65, event(EventKind::Close, 2, "new")),
            (70, event(EventKind::Listen, 4, "later")),
            (80, HistoryRecord::Alive),
        ] {
            let at = Moment { mono: mono * S, wall: (970 + mono) * S };
            entries.push(HistoryEntry { at, ..entry(0, what) });
        }
        let all = history(&entries, 0, None);
        assert_eq!(
            all.holdings.iter().find(|h| h.listener.inode == Some(2)).unwrap().lasted(),
            35 * S
        );
        // 1042 was at 42 s and again at 72 s.
        let asked = history(&entries, 0, Some(1042 * S));
        assert_eq!(asked.asked.unwrap().times, 2);
        assert_eq!(names(&asked).len(), 2, "{asked:?}");
    }

    #[test]
    fn a_file_that_goes_on_is_no_gap() {
        let goes_on = HistoryRecord::Begin {
            goes_on: true,
            kinds: Vec::new(),
            gaps: vec!["x".into()],
            version: String::new(),
        };
        let since = Moment { mono: 3 * S, wall: 1003 * S };
        let told = HistoryRecord::Listener { listener: listener(2, "new"), since: Some(since) };
        // The files before were removed.
        let entries = [
            entry(60, goes_on),
            entry(60, told),
            entry(60, HistoryRecord::Ready),
            entry(70, HistoryRecord::Alive),
        ];
        let all = history(&entries, 0, None);
        assert_eq!(all.holdings[0].from, HoldingEdge::Seen(since));
        assert_eq!((all.unrecorded.len(), all.gaps.as_slice()), (0, &["x".to_owned()][..]));
    }
}
