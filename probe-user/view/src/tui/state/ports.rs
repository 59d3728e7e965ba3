//! The table of ports: which rows there are, which of them are shown, and in which order.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::layout::width;
pub use crate::list::columns::{Column, ON_SCREEN};
use crate::tui::filter::{Filter, Life};
use crate::tui::row::{Row, RowKey};

/// For how long a row counts as new, in milliseconds.
const NEW_FOR: u64 = 5_000;

/// What rows are put together by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupBy {
    /// The namespace.
    Netns,
    /// The container.
    Container,
    /// The pod.
    Pod,
    /// The cluster.
    Cluster,
    /// The Service.
    Service,
    /// What made the container or pod.
    Workload,
    /// The process.
    Process,
}

impl GroupBy {
    /// All of them, in the order in which a key goes through them.
    pub const ALL: [Self; 7] = [
        Self::Netns,
        Self::Container,
        Self::Pod,
        Self::Cluster,
        Self::Process,
        Self::Service,
        Self::Workload,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Cluster => "cluster",
            Self::Service => "service",
            Self::Workload => "workload",
            Self::Process => "process",
        }
    }

    fn of(self, row: &Row) -> String {
        let value = match self {
            Self::Netns => Some(&*row.netns),
            Self::Container => row.owner.container.as_deref(),
            Self::Pod => row.owner.pod.as_deref(),
            Self::Cluster => row.owner.cluster.as_deref(),
            Self::Service => row.service.as_deref(),
            Self::Workload => row.owner.workload.as_deref(),
            Self::Process => Some(&*row.process),
        };
        value.map_or_else(|| format!("(no {})", self.name()), ToOwned::to_owned)
    }
}

/// What a single key hides from the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct QuickFilter {
    /// Only TCP.
    pub tcp: bool,
    /// Only UDP.
    pub udp: bool,
    /// Only IPv4 (`Some(true)`) or only IPv6.
    pub ipv4: Option<bool>,
    /// Only what is bound to loopback.
    pub loopback: bool,
    /// Only what is in containers.
    pub containers: bool,
    /// Nothing that the kernel itself has.
    pub no_kernel: bool,
}

impl QuickFilter {
    fn passes(self, row: &Row) -> bool {
        use whereis_port_model::{HopKind, Proto};
        let tcp = row.key.proto == Proto::Tcp;
        (self.tcp == self.udp || self.tcp == tcp)
            && self.ipv4.is_none_or(|ipv4| ipv4 == row.key.address.is_ipv4())
            && (!self.loopback || row.is_loopback())
            && (!self.containers || row.owner.container.is_some())
            && (!self.no_kernel || row.kind != HopKind::Kernel)
    }

    /// Its switches that are on, in words.
    pub fn words(self) -> Vec<&'static str> {
        let family = self.ipv4.map(|ipv4| if ipv4 { "IPv4" } else { "IPv6" });
        let switches = [
            (self.tcp, "TCP"),
            (self.udp, "UDP"),
            (self.loopback, "loopback"),
            (self.containers, "containers"),
            (self.no_kernel, "no kernel"),
        ];
        let on = switches.into_iter().filter(|(on, _)| *on).map(|(_, word)| word);
        family.into_iter().chain(on).collect()
    }
}

/// What has changed since the rows before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Rows that are new or different.
    pub put: Vec<Row>,
    /// Rows that are gone.
    pub gone: Vec<RowKey>,
}

impl Delta {
    /// Adds what came later. A row that came and went meanwhile is in neither, if it is not
    /// `shown`: what is held back then grows with what is there, not with what happens.
    pub fn add(&mut self, later: Self, shown: impl Fn(&RowKey) -> bool) {
        let keys: HashSet<&RowKey> =
            later.put.iter().map(|row| &row.key).chain(&later.gone).collect();
        self.put.retain(|row| !keys.contains(&row.key));
        self.gone.retain(|key| !keys.contains(key));
        self.put.extend(later.put);
        self.gone.extend(later.gone.into_iter().filter(shown));
    }
}

/// What differs between two readings: kept where the node is read, so that a reading
/// without a change costs the screen nothing.
#[derive(Debug, Default)]
pub struct Differ {
    known: HashMap<RowKey, Row>,
}

impl Differ {
    /// What `rows` change. Rows that are known and outside of `within` stay untouched.
    pub fn diff(&mut self, rows: Vec<Row>, within: impl Fn(&RowKey) -> bool) -> Delta {
        let mut seen = BTreeSet::new();
        let mut delta = Delta::default();
        for mut row in rows {
            seen.insert(row.key.clone());
            let known = self.known.get(&row.key);
            // A reading of some ports counts no connections: what was counted stays.
            row.conns = row.conns.or_else(|| known.and_then(|known| known.conns));
            if known != Some(&row) {
                self.known.insert(row.key.clone(), row.clone());
                delta.put.push(row);
            }
        }
        let gone = self.known.keys().filter(|key| within(key) && !seen.contains(*key));
        delta.gone = gone.cloned().collect();
        delta.gone.sort_unstable();
        for key in &delta.gone {
            self.known.remove(key);
        }
        delta
    }

    /// The rows of the last reading.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.known.values()
    }

    /// What it changes that connections are counted anew.
    pub fn count(&mut self, conns: impl Fn(&Row) -> Option<u32>) -> Delta {
        let mut delta = Delta::default();
        for row in self.known.values_mut() {
            let now = conns(row);
            if now != row.conns {
                row.conns = now;
                delta.put.push(row.clone());
            }
        }
        delta.put.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        delta
    }
}

/// A row, and since when and until when it was seen.
#[derive(Debug, Clone)]
pub struct LiveRow {
    /// The row.
    pub row: Row,
    /// When it came, in milliseconds; `None` for what was there from the start.
    pub born: Option<u64>,
    /// When it went.
    pub gone: Option<u64>,
}

impl LiveRow {
    /// What it is at a time.
    pub fn life(&self, now: u64) -> Life {
        match (self.gone, self.born) {
            (Some(_), _) => Life::Gone,
            (None, Some(born)) if now.saturating_sub(born) < NEW_FOR => Life::New,
            _ => Life::Live,
        }
    }
}

/// One line of the table: the head of a group, or a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableLine {
    /// The head of a group.
    Group {
        /// Its name.
        name: String,
        /// How many rows it has.
        count: usize,
        /// Whether they are hidden.
        folded: bool,
    },
    /// A row, by its place in [`PortsView::rows`].
    Row(usize),
}

/// The table of ports.
#[derive(Debug)]
pub struct PortsView {
    /// Every row, also those that are not shown.
    pub rows: Vec<LiveRow>,
    /// What is shown, in order.
    pub shown: Vec<TableLine>,
    /// Which of `shown` is selected.
    pub selected: usize,
    /// Which of `shown` is the first on the screen.
    pub top: usize,
    /// What rows are sorted by.
    pub sort: Column,
    /// Whether the greatest come first.
    pub descending: bool,
    /// What is wanted.
    pub filter: Filter,
    /// What rows are put together by.
    pub group: Option<GroupBy>,
    /// What is left out.
    pub only: QuickFilter,
    /// How many containers rows are in.
    pub containers: usize,
    /// How many clusters.
    pub clusters: usize,
    /// How wide the widest cell of each column is.
    pub widths: [u16; ON_SCREEN.len()],
    folded: BTreeSet<String>,
    index: HashMap<RowKey, usize>,
    filled: bool,
}

impl Default for PortsView {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            shown: Vec::new(),
            selected: 0,
            top: 0,
            sort: Column::Port,
            descending: false,
            filter: Filter::default(),
            group: None,
            only: QuickFilter::default(),
            containers: 0,
            clusters: 0,
            widths: [0; ON_SCREEN.len()],
            folded: BTreeSet::new(),
            index: HashMap::new(),
            filled: false,
        }
    }
}

/// The time, as rows need it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds since the screen began.
    pub now: u64,
    /// Seconds since the epoch.
    pub wall: u64,
}

impl PortsView {
    /// Takes in what has changed.
    pub fn apply(&mut self, delta: Delta, clock: Clock) {
        for row in delta.put {
            match self.index.get(&row.key).and_then(|at| self.rows.get_mut(*at)) {
                Some(live) => {
                    live.row = row;
                    if live.gone.take().is_some() {
                        live.born = Some(clock.now);
                    }
                }
                None => {
                    self.index.insert(row.key.clone(), self.rows.len());
                    let born = self.filled.then_some(clock.now);
                    self.rows.push(LiveRow { row, born, gone: None });
                }
            }
        }
        for key in delta.gone {
            if let Some(live) = self.index.get(&key).and_then(|at| self.rows.get_mut(*at)) {
                live.gone.get_or_insert(clock.now);
            }
        }
        self.filled = true;
        self.tally();
        self.order(clock);
    }

    /// Whether there is a row with this key, gone or not.
    pub fn has(&self, key: &RowKey) -> bool {
        self.index.contains_key(key)
    }

    /// Drops rows that have been gone for `keep` milliseconds. Whether any was.
    pub fn expire(&mut self, clock: Clock, keep: u64) -> bool {
        let before = self.rows.len();
        let selected = self.selected_key();
        self.rows.retain(|live| live.gone.is_none_or(|gone| clock.now.saturating_sub(gone) < keep));
        if self.rows.len() == before {
            return false;
        }
        self.index =
            self.rows.iter().enumerate().map(|(at, live)| (live.row.key.clone(), at)).collect();
        self.reorder(clock, selected);
        true
    }

    fn tally(&mut self) {
        let live = || self.rows.iter().filter(|live| live.gone.is_none());
        let containers: BTreeSet<&str> =
            live().filter_map(|live| live.row.owner.container.as_deref()).collect();
        let clusters: BTreeSet<&str> =
            live().filter_map(|live| live.row.owner.cluster.as_deref()).collect();
        (self.containers, self.clusters) = (containers.len(), clusters.len());
    }

    /// Whether anything was read yet.
    pub fn is_filled(&self) -> bool {
        self.filled
    }

    /// How many ports there are now.
    pub fn count(&self) -> usize {
        self.rows.iter().filter(|live| live.gone.is_none()).count()
    }

    /// The selected row.
    pub fn selected(&self) -> Option<&LiveRow> {
        match self.shown.get(self.selected)? {
            TableLine::Row(at) => self.rows.get(*at),
            TableLine::Group { .. } => None,
        }
    }

    fn selected_key(&self) -> Option<RowKey> {
        self.selected().map(|live| live.row.key.clone())
    }

    /// Decides anew what is shown. What was selected stays so.
    pub fn order(&mut self, clock: Clock) {
        let selected = self.selected_key();
        self.reorder(clock, selected);
    }

    fn reorder(&mut self, clock: Clock, selected: Option<RowKey>) {
        let wanted = |live: &LiveRow| {
            self.only.passes(&live.row) && self.filter.passes(&live.row, live.life(clock.now))
        };
        let rows = self.rows.iter().enumerate();
        let mut order: Vec<usize> =
            rows.filter(|(_, live)| wanted(live)).map(|(at, _)| at).collect();
        order.sort_unstable_by(|a, b| self.compare(*a, *b, clock));
        self.widths = self.widest(&order, clock);
        self.shown = self.grouped(&order);
        let place = selected.and_then(|key| {
            self.shown.iter().position(|item| match item {
                TableLine::Row(at) => self.rows.get(*at).is_some_and(|live| live.row.key == key),
                TableLine::Group { .. } => false,
            })
        });
        self.selected =
            place.unwrap_or_else(|| self.selected.min(self.shown.len().saturating_sub(1)));
    }

    fn compare(&self, a: usize, b: usize, clock: Clock) -> Ordering {
        let (Some(a), Some(b)) = (self.rows.get(a), self.rows.get(b)) else {
            return Ordering::Equal;
        };
        let down = self.descending;
        let numbers = |of: &dyn Fn(&LiveRow) -> Option<u64>| nothing_last(of(a), of(b), down);
        let texts = || nothing_last(text(&a.row, self.sort), text(&b.row, self.sort), down);
        let order = match self.sort {
            Column::Port => nothing_last(Some(a.row.key.port), Some(b.row.key.port), down),
            Column::Address => nothing_last(Some(a.row.key.address), Some(b.row.key.address), down),
            Column::Pid => numbers(&|live| live.row.key.pid.map(u64::from)),
            Column::Conns => numbers(&|live| live.row.conns.map(u64::from)),
            Column::Age => numbers(&|live| age(live, clock).map(|(seconds, _)| seconds)),
            _ => texts(),
        };
        order
            .then_with(|| a.row.key.port.cmp(&b.row.key.port))
            .then_with(|| a.row.key.cmp(&b.row.key))
    }

    fn widest(&self, order: &[usize], clock: Clock) -> [u16; ON_SCREEN.len()] {
        let mut widths = [0; ON_SCREEN.len()];
        for live in order.iter().filter_map(|at| self.rows.get(*at)) {
            for (column, widest) in ON_SCREEN.into_iter().zip(&mut widths) {
                let width = match column {
                    // Numbers have widths that need no text.
                    Column::Port | Column::Proto | Column::Age => 5,
                    _ => cell(live, column, clock).map_or(0, |cell| width(&cell)),
                };
                *widest = u16::try_from(width).unwrap_or(u16::MAX).max(*widest);
            }
        }
        widths
    }

    fn grouped(&self, order: &[usize]) -> Vec<TableLine> {
        let Some(group) = self.group else {
            return order.iter().map(|at| TableLine::Row(*at)).collect();
        };
        let mut groups: std::collections::BTreeMap<String, Vec<usize>> =
            std::collections::BTreeMap::new();
        for at in order {
            if let Some(live) = self.rows.get(*at) {
                groups.entry(group.of(&live.row)).or_default().push(*at);
            }
        }
        let mut shown = Vec::with_capacity(order.len() + groups.len());
        for (name, rows) in groups {
            let folded = self.folded.contains(&name);
            shown.push(TableLine::Group { name, count: rows.len(), folded });
            if !folded {
                shown.extend(rows.into_iter().map(TableLine::Row));
            }
        }
        shown
    }

    /// Groups by the next thing, or not at all.
    pub fn next_group(&mut self, clock: Clock) {
        let at = self.group.and_then(|group| GroupBy::ALL.iter().position(|g| *g == group));
        self.group = GroupBy::ALL.get(at.map_or(0, |at| at + 1)).copied();
        self.folded.clear();
        self.order(clock);
    }

    /// Folds or unfolds the group that is selected, or that the selected row is in.
    pub fn fold(&mut self, clock: Clock) {
        let heads = self.shown.iter().take(self.selected + 1).enumerate().rev();
        let head = heads.into_iter().find_map(|(at, item)| match item {
            TableLine::Group { name, .. } => Some((at, name.clone())),
            TableLine::Row(_) => None,
        });
        let Some((at, name)) = head else { return };
        if !self.folded.remove(&name) {
            self.folded.insert(name);
        }
        self.selected = at;
        self.order(clock);
    }

    /// Folds all groups, or unfolds them when all are folded.
    pub fn fold_all(&mut self, clock: Clock) {
        let names: BTreeSet<String> = self
            .shown
            .iter()
            .filter_map(|item| match item {
                TableLine::Group { name, .. } => Some(name.clone()),
                TableLine::Row(_) => None,
            })
            .collect();
        if names == self.folded {
            self.folded.clear()
        } else {
            self.folded = names
        }
        self.selected = 0;
        self.order(clock);
    }

    /// Selects a line, as far as there is one.
    pub fn select(&mut self, at: usize) {
        self.selected = at.min(self.shown.len().saturating_sub(1));
    }

    /// Selects the first shown row that fits. Whether there is one.
    pub fn select_row(&mut self, fits: impl Fn(&Row) -> bool) -> bool {
        let place = self.shown.iter().position(|item| match item {
            TableLine::Row(at) => self.rows.get(*at).is_some_and(|live| fits(&live.row)),
            TableLine::Group { .. } => false,
        });
        self.selected = place.unwrap_or(self.selected);
        place.is_some()
    }

    /// Selects the next row (or the one before) that is new or gone.
    pub fn next_change(&mut self, forward: bool, now: u64) {
        let count = self.shown.len();
        let changed = |at: &usize| match self.shown.get(*at) {
            Some(TableLine::Row(row)) => {
                self.rows.get(*row).is_some_and(|live| live.life(now) != Life::Live)
            }
            _ => false,
        };
        let steps = (1..count).map(|step| {
            if forward {
                (self.selected + step) % count
            } else {
                (self.selected + count - step) % count
            }
        });
        if let Some(at) = steps.into_iter().find(changed) {
            self.selected = at;
        }
    }

    /// Moves what is on the screen so that the selection is on it.
    pub fn scroll(&mut self, height: usize) {
        let most = self.shown.len().saturating_sub(height);
        let least = (self.selected + 1).saturating_sub(height);
        self.top = self.top.min(self.selected).max(least).min(most);
    }
}

/// The order of two cells. One that has nothing comes last in either order.
fn nothing_last<T: Ord>(a: Option<T>, b: Option<T>, descending: bool) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if descending => b.cmp(&a),
        (Some(a), Some(b)) => a.cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

fn text(row: &Row, column: Column) -> Option<&str> {
    match column {
        Column::Proto => Some(row.key.proto.as_str()),
        Column::Process => Some(&row.process),
        Column::Container => row.owner.container.as_deref(),
        Column::Pod => row.owner.pod.as_deref(),
        Column::Cluster => row.owner.cluster.as_deref(),
        Column::Netns => Some(&row.netns),
        Column::Target => row.target.as_deref(),
        Column::Service => row.service.as_deref(),
        column => row.cell(column),
    }
}

/// Since when a row is there, in seconds, and whether it may be less: of what was there
/// before only its process's age is known.
pub fn age(live: &LiveRow, clock: Clock) -> Option<(u64, bool)> {
    match live.born {
        Some(born) => Some((clock.now.saturating_sub(born) / 1000, false)),
        None => {
            let started = live.row.owner.started_at?;
            Some((clock.wall.saturating_sub(started), true))
        }
    }
}

/// A time in seconds in at most four characters: `7s`, `12m`, `3h`, `40d`.
pub fn short_age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        172_800..86_400_000 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / 31_536_000),
    }
}

/// What a row has in a column. `None` for nothing.
pub fn cell(live: &LiveRow, column: Column, clock: Clock) -> Option<Cow<'_, str>> {
    let row = &live.row;
    Some(match column {
        Column::Port => row.key.port.to_string().into(),
        Column::Address => row.key.address.to_string().into(),
        Column::Pid => row.key.pid?.to_string().into(),
        Column::Conns => row.conns?.to_string().into(),
        Column::Age => {
            let (seconds, at_most) = age(live, clock)?;
            let age = short_age(seconds);
            if at_most { format!("<{age}").into() } else { age.into() }
        }
        column => text(row, column)?.into(),
    })
}
