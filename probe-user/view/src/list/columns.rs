//! The columns of a list, and what a row has in each: one table, that the list as text, CSV and
//! Markdown, sorting, filtering, templates and the screen share. A new column is an entry.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use crate::json;
use crate::layout::{shorten, shorten_name};
use crate::sanitize::clean;
use crate::style::Style;
use crate::words;
use whereis_port_model::{Ailment, Ending, ListRow, NetnsName, PortKind, Process};

/// What stands for an owner that could not be told.
pub(crate) const UNKNOWN: &str = "(unknown)";
/// Who takes a port by rules that nobody's name is in.
const BY_RULES: &str = "packet rules";
/// What stands for something that there is none of.
pub(crate) const NONE: &str = "-";
/// What a column of text is not made narrower than.
const NARROWEST: usize = 8;

/// What a row has in a column, safe to show. `None` when there is none.
type CellText = for<'a> fn(&'a ListRow, &Style) -> Option<Cow<'a, str>>;

/// What is known of a column: its title, its values, how it is laid out.
#[derive(Debug, Clone, Copy)]
struct ColumnSpec {
    title: &'static str,
    value: CellText,
    /// Where CSV has something else: of a process its name alone.
    csv: Option<CellText>,
    /// What rows are sorted by, where that is not what is shown.
    rank: Option<fn(&ListRow) -> Rank>,
    shape: ColumnShape,
    /// What it is not made narrower than.
    narrowest: usize,
    /// Whether its texts are cut at their end: they are more than a name.
    cut_at_end: bool,
    /// Its place in the usual table, if it has one.
    table: Option<u8>,
    in_wide: bool,
    in_csv: bool,
    screen: Option<ScreenColumn>,
}

/// How a column is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ColumnShape {
    /// At the right.
    Number,
    /// At the left, and never cut.
    Whole,
    /// At the left.
    Text,
}

/// A column on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScreenColumn {
    /// Its place.
    place: u8,
    /// In which order readers need them.
    pub(crate) need: u8,
    /// How narrow it may be.
    pub(crate) narrowest: u16,
    /// How wide it is that most of what is in it can be read.
    pub(crate) enough: u16,
}

/// What a row is sorted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Number(u64),
    Address(IpAddr),
    Text(String),
}

impl ColumnSpec {
    const fn new(title: &'static str, shape: ColumnShape, value: CellText) -> Self {
        let narrowest = NARROWEST;
        Self {
            title,
            value,
            csv: None,
            rank: None,
            shape,
            narrowest,
            cut_at_end: false,
            table: None,
            in_wide: false,
            in_csv: false,
            screen: None,
        }
    }

    const fn number(title: &'static str, value: CellText) -> Self {
        Self::new(title, ColumnShape::Number, value)
    }

    const fn whole(title: &'static str, value: CellText) -> Self {
        Self::new(title, ColumnShape::Whole, value)
    }

    const fn text(title: &'static str, value: CellText) -> Self {
        Self::new(title, ColumnShape::Text, value)
    }

    const fn table(self, place: u8) -> Self {
        Self { table: Some(place), ..self }
    }

    const fn narrowest(self, narrowest: usize) -> Self {
        Self { narrowest, ..self }
    }

    const fn cut_at_end(self) -> Self {
        Self { cut_at_end: true, ..self }
    }

    const fn wide(self) -> Self {
        Self { in_wide: true, ..self }
    }

    const fn csv(self) -> Self {
        Self { in_csv: true, ..self }
    }

    const fn csv_as(self, value: CellText) -> Self {
        Self { csv: Some(value), in_csv: true, ..self }
    }

    const fn rank(self, rank: fn(&ListRow) -> Rank) -> Self {
        Self { rank: Some(rank), ..self }
    }

    const fn screen(self, place: u8, need: u8, narrowest: u16, enough: u16) -> Self {
        Self { screen: Some(ScreenColumn { place, need, narrowest, enough }), ..self }
    }
}

macro_rules! columns {
    ($(#[doc = $about:literal] $name:ident = $spec:expr;)*) => {
        /// A column.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Column { $(#[doc = $about] $name),* }

        /// Every column, in the order in which CSV has them.
        pub(in crate) const ALL: &[Column] = &[$(Column::$name),*];

        impl Column {
            const fn spec(self) -> &'static ColumnSpec {
                match self {
                    $(Self::$name => { const SPEC: ColumnSpec = $spec; &SPEC }),*
                }
            }

            /// What it has, in a few words.
            pub(super) fn about(self) -> &'static str {
                match self { $(Self::$name => $about.trim_ascii()),* }
            }
        }
    };
}

columns! {
    /// The port.
    Port = ColumnSpec::number("PORT", |row, _| Some(row.port.to_string().into()))
        .table(0).wide().csv().screen(0, 0, 5, 0);
    /// TCP or UDP.
    Proto = ColumnSpec::whole("PROTO", |row, _| Some(row.proto.as_str().into()))
        .table(1).wide().csv().screen(1, 1, 5, 0);
    /// The address, as bound.
    Address = ColumnSpec::whole("ADDRESS", |row, _| Some(row.address.to_string().into()))
        .table(2).wide().csv().rank(|row| Rank::Address(row.address)).screen(2, 2, 15, 0);
    /// The state of the socket.
    State = ColumnSpec::text("STATE", |row, _| {
        Some(word(json::SocketState::from(row.socket.as_ref()?.state)).into())
    }).csv();
    /// Whether an IPv6 socket leaves IPv4 alone.
    V6only = ColumnSpec::text("V6ONLY", |row, _| {
        Some(if row.socket.as_ref()?.v6only? { "true" } else { "false" }.into())
    }).csv();
    /// Who has it.
    Process = ColumnSpec::text("PROCESS", process)
        .narrowest(10).table(4).wide().csv_as(process_alone).screen(3, 3, 12, 16);
    /// Its process id.
    Pid = ColumnSpec::number("PID", |row, _| {
        Some(row.end.processes.first()?.pid.to_string().into())
    }).table(5).wide().csv().screen(4, 6, 6, 0);
    /// The ids of all that have it.
    Pids = ColumnSpec::text("PIDS", |row, _| {
        row.end.processes.first()?;
        let pids = row.end.processes.iter().map(|process| process.pid.to_string());
        Some(pids.collect::<Vec<_>>().join(" ").into())
    }).csv();
    /// The container.
    Container = ColumnSpec::text("CONTAINER", |row, style| {
        row.end.containers.first()?;
        let names = row.end.containers.iter().map(|c| style.shown(words::container(c)));
        Some(names.collect::<Vec<_>>().join("/").into())
    }).table(8).wide().csv().screen(5, 4, 14, 24);
    /// The whole id of the container.
    ContainerId = ColumnSpec::text("CONTAINER_ID", |row, _| {
        Some(clean(&row.end.containers.last()?.id))
    }).csv();
    /// The network namespace.
    Netns = ColumnSpec::text("NETNS", |row, style| {
        Some(match &row.netns.name {
            Some(NetnsName::Given(name)) if !NetnsName::is_reserved(name) => style.shown(name),
            _ => style.text(&row.netns.to_string()).into(),
        })
    }).table(9).wide().csv_as(|row, style| {
        Some(style.text(&row.netns.name.as_ref()?.to_string()).into())
    }).screen(9, 12, 8, 0);
    /// The inode number of the network namespace.
    NetnsInode = ColumnSpec::number("NETNS_INODE", |row, _| {
        Some(row.netns.id.inode()?.to_string().into())
    }).csv();
    /// Where it leads.
    Target = ColumnSpec::text("TARGET", |row, style| {
        let mut endpoint = style.endpoint(row.target.as_ref()?);
        let more = row.others.len() + row.more;
        if more > 0 {
            let _ = write!(endpoint, " and {more} more");
        }
        if let Some(detail) = &row.target_detail {
            let _ = write!(endpoint, " {}", style.shown(detail));
        }
        Some(endpoint.into())
    }).narrowest(14).cut_at_end().table(10).wide().csv().screen(11, 5, 14, 24);
    /// The user whose socket it is.
    User = ColumnSpec::text("USER", |row, style| {
        // The name belongs to the process, which may run as somebody else.
        let uid = row.socket.as_ref()?.uid;
        let process = row.end.processes.first().filter(|process| process.uid == uid)?;
        Some(style.shown(process.user.as_ref()?))
    }).wide().csv();
    /// The id of that user.
    Uid = ColumnSpec::number("UID", |row, _| Some(row.socket.as_ref()?.uid.to_string().into()))
        .wide().csv();
    /// The pod.
    Pod = ColumnSpec::text("POD", |row, style| {
        let pod = row.end.pod.as_ref()?;
        Some(match (&pod.namespace, &pod.name) {
            (Some(of), Some(name)) => format!("{}/{}", style.shown(of), style.shown(name)).into(),
            (_, Some(name)) => style.shown(name),
            (_, None) => style.shown(pod.uid.as_ref()?),
        })
    }).narrowest(16).table(7).wide().csv().screen(7, 8, 16, 28);
    /// The cluster.
    Cluster = ColumnSpec::text("CLUSTER", |row, style| {
        Some(match row.end.cluster.as_ref()? {
            known if known.name.is_empty() => {
                format!("({})", style.shown(&known.distribution)).into()
            }
            known => style.shown(&known.name),
        })
    }).wide().csv().screen(8, 11, 8, 0);
    /// The systemd unit or scope.
    Unit = ColumnSpec::text("UNIT", |row, style| Some(style.shown(row.end.unit.as_ref()?)))
        .wide().csv();
    /// The image of the container.
    Image = ColumnSpec::text("IMAGE", |row, style| {
        Some(style.shown(row.end.containers.last()?.image.as_ref()?))
    }).wide().csv();
    /// The inode number of the socket.
    Inode = ColumnSpec::number("INODE", |row, _| {
        Some(row.socket.as_ref()?.inode.to_string().into())
    }).wide().csv();
    /// The command line, or why there is none.
    Cmdline = ColumnSpec::text("CMDLINE", |row, style| match row.end.processes.first() {
        Some(process) => cmdline(process, style),
        None => Some(style.shown(row.end.why.as_ref()?)),
    }).cut_at_end().wide().csv_as(|row, style| cmdline(row.end.processes.first()?, style));
    /// What kind of owner.
    Ending = ColumnSpec::text("ENDING", |row, _| {
        Some(word(json::Ending::from(row.end.ending)).into())
    }).csv();
    /// Why it is not simply a process.
    Why = ColumnSpec::text("WHY", |row, style| Some(style.shown(row.end.why.as_ref()?))).csv();
    /// What kind of port: listener, kernel, forward, published, NodePort, hostPort, …
    Kind = ColumnSpec::text("KIND", |row, _| Some(row.port_kind.as_str().into()))
        .table(3).wide().csv().screen(12, 10, 8, 0);
    /// Every place that it leads to.
    Targets = ColumnSpec::text("TARGETS", |row, style| {
        let all = row.target.iter().chain(&row.others).map(|to| style.endpoint(to));
        let all: Vec<String> = all.collect();
        (!all.is_empty()).then(|| all.join(" ").into())
    }).csv();
    /// How many places it leads to.
    TargetCount = ColumnSpec::number("TARGET_COUNT", |row, _| {
        let count = usize::from(row.target.is_some()) + row.others.len() + row.more;
        Some(count.to_string().into())
    }).csv();
    /// Whose rules take it, or which load balancer.
    TakenBy = ColumnSpec::text("TAKEN_BY", |row, style| {
        Some(style.text(row.taken_by.as_ref()?).into())
    }).csv();
    /// The Service that it is a port of.
    Service = ColumnSpec::text("SERVICE", |row, style| {
        let service = row.service.as_ref()?;
        let name = format!("{}/{}", style.shown(&service.namespace), style.shown(&service.name));
        Some(match &service.port {
            Some(port) => format!("{name}:{}", style.shown(port)).into(),
            None => name.into(),
        })
    }).narrowest(14).table(6).wide().csv().screen(6, 7, 14, 24);
    /// Which part of Kubernetes, or of what runs around it, it is.
    Component = ColumnSpec::text("COMPONENT", component).wide().csv();
    /// The files that its arguments name.
    Files = ColumnSpec::text("FILES", |row, style| {
        let files = &row.component.as_ref()?.files;
        files.first()?;
        let files = files.iter().map(|(option, path)| {
            format!("{}={}", style.shown(option), style.shown(path))
        });
        Some(files.collect::<Vec<_>>().join(" ").into())
    }).wide().csv();
    /// How many connections wait to be accepted, of how many that may.
    Queue = ColumnSpec::text("QUEUE", |row, _| {
        let queue = row.socket.as_ref()?.queue?;
        Some(format!("{}/{}", queue.waiting, queue.limit).into())
    }).wide();
    /// How many connections wait to be accepted.
    AcceptQueue = ColumnSpec::number("ACCEPT_QUEUE", |row, _| {
        Some(row.socket.as_ref()?.queue?.waiting.to_string().into())
    }).csv();
    /// How many may wait.
    AcceptQueueLimit = ColumnSpec::number("ACCEPT_QUEUE_LIMIT", |row, _| {
        Some(row.socket.as_ref()?.queue?.limit.to_string().into())
    }).csv();
    /// What is wrong with who should accept.
    Health = ColumnSpec::text("HEALTH", |row, _| {
        let ailments = Ailment::of(row.socket.as_ref()?, &row.end.processes);
        ailments.first()?;
        let words: Vec<&str> = ailments.into_iter().map(Ailment::as_str).collect();
        Some(words.join(", ").into())
    }).wide().csv();
    /// From how far away it can be reached: network, node, loopback, none or unknown.
    Reach = ColumnSpec::text("REACH", |row, _| Some(row.reached?.as_str().into()))
        .rank(|row| Rank::Number(row.reached.map_or(u64::MAX, |reached| reached as u64)));
    /// How many connections it has now.
    Conns = ColumnSpec::number("CONNS", |_, _| None).screen(14, 13, 5, 0);
    /// Since when it is there.
    Age = ColumnSpec::number("AGE", |_, _| None).screen(15, 9, 5, 0);
}

/// How many columns the screen has.
const SCREEN_COLUMNS: usize = {
    let (mut count, mut at) = (0, 0);
    while at < ALL.len() {
        if ALL[at].spec().screen.is_some() {
            count += 1;
        }
        at += 1;
    }
    count
};

/// The columns of the screen, in their order there.
pub const ON_SCREEN: [Column; SCREEN_COLUMNS] = {
    let mut sorted = [Column::Port; SCREEN_COLUMNS];
    let (mut filled, mut place) = (0, 0);
    while filled < SCREEN_COLUMNS {
        let mut at = 0;
        while at < ALL.len() {
            if let Some(screen) = ALL[at].spec().screen
                && screen.place == place
            {
                sorted[filled] = ALL[at];
                filled += 1;
            }
            at += 1;
        }
        place += 1;
    }
    sorted
};

impl Column {
    /// The column with this name, in any case.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let mut all = ALL.iter().copied().filter(|column| column.is_of_rows());
        all.find(|c| c.title().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let known = ALL.iter().filter(|column| column.is_of_rows());
            let known: Vec<String> = known.map(|column| column.name()).collect();
            format!("unknown column {name:?}: one of {}", known.join(", "))
        })
    }

    /// Whether a list has it: some only the screen knows.
    pub(crate) fn is_of_rows(self) -> bool {
        !matches!(self, Self::Conns | Self::Age)
    }

    /// Its name, in upper case.
    pub fn title(self) -> &'static str {
        self.spec().title
    }

    /// Its name, in lower case.
    pub(crate) fn name(self) -> String {
        self.title().to_lowercase()
    }

    /// Whether its cells may be shortened.
    pub(crate) fn is_text(self) -> bool {
        self.spec().shape == ColumnShape::Text
    }

    /// Whether its cells line up at their right.
    pub fn is_number(self) -> bool {
        self.spec().shape == ColumnShape::Number
    }

    /// What it is not made narrower than: its title stays whole.
    pub(super) fn narrowest(self) -> usize {
        self.title().len().max(self.spec().narrowest)
    }

    /// `text`, which it has, in so many columns. Names differ at their end as often as at their
    /// beginning, and are cut in their middle.
    pub(crate) fn fitted(self, text: &str, columns: usize, ellipsis: &str) -> String {
        match self.spec().cut_at_end {
            true => shorten(text, columns, ellipsis),
            false => shorten_name(text, columns, ellipsis),
        }
    }

    /// Where it is on the screen, if it is.
    pub(crate) fn on_screen(self) -> Option<ScreenColumn> {
        self.spec().screen
    }

    /// Those of the usual table, in their order.
    pub(super) fn of_table() -> Vec<Self> {
        let mut all: Vec<(u8, Self)> =
            ALL.iter().filter_map(|column| Some((column.spec().table?, *column))).collect();
        all.sort_unstable_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, column)| column).collect()
    }

    /// Those of `-o wide`.
    pub(super) fn of_wide() -> Vec<Self> {
        ALL.iter().copied().filter(|column| column.spec().in_wide).collect()
    }

    /// Those of CSV.
    pub(super) fn of_csv() -> Vec<Self> {
        ALL.iter().copied().filter(|column| column.spec().in_csv).collect()
    }

    /// What `row` has there, safe to show and never empty.
    pub(crate) fn cell(self, row: &ListRow, style: &Style) -> String {
        let mut cell = String::new();
        self.write(row, style, &mut cell);
        cell
    }

    /// Writes what `row` has there, safe to show and never empty.
    pub(crate) fn write(self, row: &ListRow, style: &Style, out: &mut String) {
        // Nothing can fail that is written to a string. Numbers need no text of
        // their own, of which there would be one for each of thousands of rows.
        let _ = match (self, row.end.processes.first()) {
            (Self::Port, _) => write!(out, "{}", row.port),
            (Self::Address, _) => write!(out, "{}", row.address),
            (Self::Pid, Some(process)) => write!(out, "{}", process.pid),
            (column, _) => out.write_str(&column.value(row, style).unwrap_or(NONE.into())),
        };
    }

    /// What `row` has there, safe to show. `None` when there is none.
    pub(crate) fn value<'a>(self, row: &'a ListRow, style: &Style) -> Option<Cow<'a, str>> {
        (self.spec().value)(row, style)
    }

    /// The same for programs.
    pub(super) fn exact<'a>(self, row: &'a ListRow) -> Option<Cow<'a, str>> {
        let spec = self.spec();
        spec.csv.unwrap_or(spec.value)(row, &Style::PLAIN)
    }

    /// What `row` is sorted by in this column.
    pub(super) fn rank(self, row: &ListRow) -> Option<Rank> {
        let spec = self.spec();
        if let Some(rank) = spec.rank {
            return Some(rank(row));
        }
        let value = self.value(row, &Style::PLAIN)?;
        match spec.shape {
            ColumnShape::Number => value.parse().ok().map(Rank::Number),
            _ => Some(Rank::Text(value.to_lowercase())),
        }
    }
}

/// A word as the JSON documents have it.
pub(super) fn word(of: impl Serialize) -> String {
    match serde_json::to_value(of) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn process<'a>(row: &'a ListRow, style: &Style) -> Option<Cow<'a, str>> {
    let end = &row.end;
    if row.socket.is_none() {
        let by = row.taken_by.as_deref().unwrap_or(BY_RULES);
        // No parentheses within parentheses: `(kube-proxy, iptables)`.
        let by = by.replace(" (", ", ").replace(')', "");
        return Some(format!("({})", style.shown(&by)).into());
    }
    Some(match (words::marker(end.ending), end.processes.first()) {
        (None, Some(process)) => match end.processes.len() - 1 {
            0 => style.shown(process.name()),
            more => format!("{} (+{more})", style.shown(process.name())).into(),
        },
        (Some(mark), _) => mark.into(),
        (None, None) => UNKNOWN.into(),
    })
}

/// The process's name alone: how many there are is told elsewhere.
fn process_alone<'a>(row: &'a ListRow, style: &Style) -> Option<Cow<'a, str>> {
    match (words::marker(row.end.ending), row.end.processes.first()) {
        (None, Some(process)) => Some(style.shown(process.name())),
        _ => process(row, style),
    }
}

fn cmdline<'a>(process: &'a Process, style: &Style) -> Option<Cow<'a, str>> {
    (!process.cmdline.is_empty()).then(|| style.text(&process.cmdline.join(" ")).into())
}

fn component<'a>(row: &'a ListRow, style: &Style) -> Option<Cow<'a, str>> {
    let component = row.component.as_ref()?;
    let name = format!("{}: {}", style.shown(&component.name), style.shown(&component.role));
    Some(match (component.confirmed, row.end.ending) {
        (true, _) => name.into(),
        (false, Ending::Process) => format!("calls itself {name}").into(),
        (false, _) => format!("usually {name}").into(),
    })
}

/// Whether a kind says more than that somebody listens.
pub(super) fn is_telling(kind: PortKind) -> bool {
    !matches!(kind, PortKind::Listener | PortKind::Kernel)
}
