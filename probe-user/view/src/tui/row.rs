//! One line of the table of ports: what of a list's row the screen needs, ready to show.
//!
//! Rows are made where the node is read and then only moved, so that the screen's task
//! has nothing to compute for thousands of them. Text is shared: all rows of one holder
//! have the same.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;

use crate::list::columns::{Column, ON_SCREEN};
use crate::style::Style;
use crate::words;
use whereis_port_model::{End, HopKind, ListRow, Listing, NetnsId, Pid, Port, Proto, Workload};

/// What makes a row the same one as before.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    /// The namespace whose port it is.
    pub netns: NetnsId,
    /// The port.
    pub port: Port,
    /// The protocol.
    pub proto: Proto,
    /// The address, as bound.
    pub address: IpAddr,
    /// The socket's inode; `None` for a port that only rules take.
    pub inode: Option<u64>,
    /// The holder, of whom one socket may have several.
    pub pid: Option<Pid>,
}

/// Who holds a socket, in the words that are shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RowOwner {
    /// Its containers, outermost first.
    pub container: Option<String>,
    /// Its pod.
    pub pod: Option<String>,
    /// Its cluster.
    pub cluster: Option<String>,
    /// Its command line.
    pub cmdline: Option<String>,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// The image of its container.
    pub image: Option<String>,
    /// What made its container or pod.
    pub workload: Option<String>,
    /// When it was started, in seconds since the epoch.
    pub started_at: Option<u64>,
}

/// A row of the table of ports. All text in it is safe to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its identity.
    pub key: RowKey,
    /// What takes the port.
    pub kind: HopKind,
    /// Its namespace's name or number.
    pub netns: Arc<str>,
    /// The process, or what stands for it.
    pub process: Arc<str>,
    /// The user whose socket it is.
    pub user: Option<Arc<str>>,
    /// Where it leads.
    pub target: Option<Arc<str>>,
    /// The service that it is a port of.
    pub service: Option<Arc<str>>,
    /// Which part of Kubernetes, or of what runs around it, it is.
    pub component: Option<Arc<str>>,
    /// Who holds it.
    pub owner: Arc<RowOwner>,
    /// What it has in the other columns of the screen.
    pub cells: Arc<[(Column, Arc<str>)]>,
    /// How many connections it has now; `None` where that is not known.
    pub conns: Option<u32>,
}

/// A row's cells with their names, for the clipboard.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    port: u16,
    proto: &'a str,
    address: IpAddr,
    kind: HopKind,
    process: &'a str,
    pid: Option<Pid>,
    user: Option<&'a str>,
    container: Option<&'a str>,
    pod: Option<&'a str>,
    cluster: Option<&'a str>,
    netns: &'a str,
    netns_inode: Option<u64>,
    target: Option<&'a str>,
    service: Option<&'a str>,
    component: Option<&'a str>,
    unit: Option<&'a str>,
    image: Option<&'a str>,
    cmdline: Option<&'a str>,
    inode: Option<u64>,
    connections: Option<u32>,
}

/// The columns of the screen that have no place of their own in a row.
fn others() -> impl Iterator<Item = Column> {
    use Column::{Address, Age, Cluster, Conns, Container, Netns, Pid, Pod, Port, Process, Proto};
    let own = |column: &Column| {
        matches!(column, Port | Proto | Address | Process | Pid | Container | Pod | Cluster | Netns)
            || matches!(column, Column::Target | Column::Service | Conns | Age)
    };
    ON_SCREEN.into_iter().filter(move |column| !own(column))
}

impl Row {
    /// What it has in one of the other columns.
    pub fn cell(&self, column: Column) -> Option<&str> {
        self.cells.iter().find(|(known, _)| *known == column).map(|(_, cell)| &**cell)
    }

    /// Whether only this machine's loopback reaches it.
    pub fn is_loopback(&self) -> bool {
        self.key.address.to_canonical().is_loopback()
    }

    /// `30518/tcp`.
    pub fn port(&self) -> String {
        format!("{}/{}", self.key.port, self.key.proto)
    }

    /// The row as one line, for the clipboard.
    pub fn line(&self) -> String {
        let owner = &self.owner;
        let mut line = format!("{} {} {}", self.port(), self.key.address, self.process);
        if let Some(pid) = self.key.pid {
            line.push_str(&format!(" pid {pid}"));
        }
        let more = [
            ("container", owner.container.as_deref()),
            ("pod", owner.pod.as_deref()),
            ("cluster", owner.cluster.as_deref()),
            ("netns", Some(&*self.netns)),
            ("->", self.target.as_deref()),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                line.push_str(&format!(" {name} {value}"));
            }
        }
        line
    }

    /// The row as a JSON object, with the names that `list -o csv` has.
    pub fn json(&self) -> String {
        let owner = &self.owner;
        let exported = Exported {
            port: self.key.port.0,
            proto: self.key.proto.as_str(),
            address: self.key.address,
            kind: self.kind,
            process: &self.process,
            pid: self.key.pid,
            user: self.user.as_deref(),
            container: owner.container.as_deref(),
            pod: owner.pod.as_deref(),
            cluster: owner.cluster.as_deref(),
            netns: &self.netns,
            netns_inode: self.key.netns.inode(),
            target: self.target.as_deref(),
            service: self.service.as_deref(),
            component: self.component.as_deref(),
            unit: owner.unit.as_deref(),
            image: owner.image.as_deref(),
            cmdline: owner.cmdline.as_deref(),
            inode: self.key.inode,
            connections: self.conns,
        };
        // Nothing in it can fail to be JSON.
        serde_json::to_string(&exported).unwrap_or_default()
    }
}

/// The rows of a listing.
pub fn rows(listing: &Listing, style: &Style) -> Vec<Row> {
    let mut made = Made::default();
    listing.rows.iter().map(|row| made.row(row, style)).collect()
}

/// Text and owners that rows share.
#[derive(Default)]
struct Made {
    owners: HashMap<*const End, Arc<RowOwner>>,
    texts: HashMap<String, Arc<str>>,
}

impl Made {
    fn row(&mut self, row: &ListRow, style: &Style) -> Row {
        let cell = |column: Column| column.value(row, style);
        let first = row.end.processes.first();
        let ruled = row.socket.is_none();
        let process = match cell(Column::Process) {
            Some(process) => self.text(&process),
            None => self.text("-"),
        };
        Row {
            key: RowKey {
                netns: row.netns.id,
                port: row.port,
                proto: row.proto,
                address: row.address,
                inode: row.socket.as_ref().map(|s| s.inode),
                pid: first.filter(|_| !ruled).map(|p| p.pid),
            },
            kind: row.kind,
            netns: self.text(&cell(Column::Netns).unwrap_or_default()),
            process,
            user: cell(Column::User).map(|text| self.text(&text)),
            target: cell(Column::Target).map(|text| self.text(&text)),
            service: cell(Column::Service).map(|text| self.text(&text)),
            component: cell(Column::Component).map(|text| self.text(&text)),
            owner: self.owner(row, style),
            cells: others()
                .filter_map(|column| Some((column, self.text(&column.value(row, style)?))))
                .collect(),
            conns: None,
        }
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = Arc::from(text);
        self.texts.insert(text.to_owned(), Arc::clone(&shared));
        shared
    }

    fn owner(&mut self, row: &ListRow, style: &Style) -> Arc<RowOwner> {
        let make = || {
            let cell = |column: Column| column.value(row, style).map(std::borrow::Cow::into_owned);
            let process = row.end.processes.first();
            Arc::new(RowOwner {
                container: cell(Column::Container),
                pod: cell(Column::Pod),
                cluster: cell(Column::Cluster),
                cmdline: process.and_then(|_| cell(Column::Cmdline)),
                unit: cell(Column::Unit),
                image: cell(Column::Image),
                workload: Workload::of(&row.end).map(|workload| style.text(&workload.to_string())),
                started_at: process.and_then(|p| p.started_at),
            })
        };
        Arc::clone(self.owners.entry(Rc::as_ptr(&row.end)).or_insert_with(make))
    }
}

/// How a kind of row is called where rows are filtered.
pub(super) fn kind(row: &Row) -> &'static str {
    match row.kind {
        HopKind::Dnat => "dnat",
        other => words::hop(other),
    }
}
