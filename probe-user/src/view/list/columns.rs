//! The columns of a list, and what a row has in each.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::model::{Ailment, Ending, ListRow, NetnsName};
use crate::view::style::Style;
use crate::view::words;

/// What stands for an owner that could not be told.
pub(in crate::view) const UNKNOWN: &str = "(unknown)";
/// Who takes a port by rules that nobody's name is in.
const BY_RULES: &str = "packet rules";
/// What stands for something that there is none of.
pub(in crate::view) const NONE: &str = "-";

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::view) enum Column {
    Port,
    Proto,
    Address,
    Process,
    Pid,
    Container,
    Netns,
    Target,
    User,
    Uid,
    Pod,
    Cluster,
    Unit,
    Image,
    Inode,
    Cmdline,
    Service,
    Component,
    Files,
    Queue,
    Health,
}

/// The columns of `table`.
pub(in crate::view) const TABLE: [Column; 9] = [
    Column::Port,
    Column::Proto,
    Column::Address,
    Column::Process,
    Column::Pid,
    Column::Service,
    Column::Container,
    Column::Netns,
    Column::Target,
];

/// The columns of `wide`.
pub(in crate::view) const WIDE: [Column; 21] = [
    Column::Port,
    Column::Proto,
    Column::Address,
    Column::Process,
    Column::Pid,
    Column::Container,
    Column::Netns,
    Column::Target,
    Column::User,
    Column::Uid,
    Column::Pod,
    Column::Cluster,
    Column::Unit,
    Column::Image,
    Column::Inode,
    Column::Cmdline,
    Column::Service,
    Column::Component,
    Column::Files,
    Column::Queue,
    Column::Health,
];

impl Column {
    /// The column with this name, in any case.
    pub(in crate::view) fn named(name: &str) -> Result<Self, String> {
        WIDE.into_iter().find(|c| c.title().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let known: Vec<String> = WIDE.iter().map(|c| c.title().to_lowercase()).collect();
            format!("unknown column {name:?}: one of {}", known.join(", "))
        })
    }

    /// Its name, in upper case.
    pub(in crate::view) fn title(self) -> &'static str {
        match self {
            Self::Port => "PORT",
            Self::Proto => "PROTO",
            Self::Address => "ADDRESS",
            Self::Process => "PROCESS",
            Self::Pid => "PID",
            Self::Container => "CONTAINER",
            Self::Netns => "NETNS",
            Self::Target => "TARGET",
            Self::User => "USER",
            Self::Uid => "UID",
            Self::Pod => "POD",
            Self::Cluster => "CLUSTER",
            Self::Unit => "UNIT",
            Self::Image => "IMAGE",
            Self::Inode => "INODE",
            Self::Cmdline => "CMDLINE",
            Self::Service => "SERVICE",
            Self::Component => "COMPONENT",
            Self::Files => "FILES",
            Self::Queue => "QUEUE",
            Self::Health => "HEALTH",
        }
    }

    /// Whether its cells may be shortened.
    pub(in crate::view) fn is_text(self) -> bool {
        !matches!(
            self,
            Self::Port | Self::Proto | Self::Address | Self::Pid | Self::Uid | Self::Inode
        )
    }

    /// Whether its cells line up at their right.
    pub(in crate::view) fn is_number(self) -> bool {
        matches!(self, Self::Port | Self::Pid | Self::Uid | Self::Inode)
    }

    /// What `row` has there, safe to show and never empty.
    pub(in crate::view) fn cell(self, row: &ListRow, style: &Style) -> String {
        let mut cell = String::new();
        self.write(row, style, &mut cell);
        cell
    }

    /// Writes what `row` has there, safe to show and never empty.
    pub(in crate::view) fn write(self, row: &ListRow, style: &Style, out: &mut String) {
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
    pub(in crate::view) fn value<'a>(
        self,
        row: &'a ListRow,
        style: &Style,
    ) -> Option<Cow<'a, str>> {
        let end = &row.end;
        let process = end.processes.first();
        let text = |text: &'a String| style.shown(text);
        Some(match self {
            Self::Port => row.port.to_string().into(),
            Self::Proto => row.proto.as_str().into(),
            Self::Address => row.address.to_string().into(),
            Self::Process if row.socket.is_none() => {
                let by = row.taken_by.as_deref().unwrap_or(BY_RULES);
                // No parentheses within parentheses: `(kube-proxy, iptables)`.
                let by = by.replace(" (", ", ").replace(')', "");
                format!("({})", style.shown(&by)).into()
            }
            Self::Process => match (words::marker(end.ending), process) {
                (None, Some(process)) => match end.processes.len() - 1 {
                    0 => style.shown(process.name()),
                    more => format!("{} (+{more})", style.shown(process.name())).into(),
                },
                (Some(mark), _) => mark.into(),
                (None, None) => UNKNOWN.into(),
            },
            Self::Pid => process?.pid.to_string().into(),
            Self::Container => {
                end.containers.first()?;
                let names: Vec<_> =
                    end.containers.iter().map(|c| style.shown(words::container(c))).collect();
                names.join("/").into()
            }
            Self::Netns => match &row.netns.name {
                Some(NetnsName::Given(name)) if !NetnsName::is_reserved(name) => text(name),
                _ => style.text(&row.netns.to_string()).into(),
            },
            Self::Target => {
                let mut endpoint = style.endpoint(row.target.as_ref()?);
                match row.others.len() + row.more {
                    0 => {}
                    more => endpoint.push_str(&format!(" and {more} more")),
                }
                match &row.target_detail {
                    Some(detail) => format!("{endpoint} {}", text(detail)).into(),
                    None => endpoint.into(),
                }
            }
            // The name belongs to the process, which may run as somebody else.
            Self::User => {
                let uid = row.socket.as_ref()?.uid;
                text(process.filter(|p| p.uid == uid)?.user.as_ref()?)
            }
            Self::Uid => row.socket.as_ref()?.uid.to_string().into(),
            Self::Pod => {
                let pod = end.pod.as_ref()?;
                match (&pod.namespace, &pod.name) {
                    (Some(namespace), Some(name)) => {
                        format!("{}/{}", text(namespace), text(name)).into()
                    }
                    (_, Some(name)) => text(name),
                    (_, None) => text(pod.uid.as_ref()?),
                }
            }
            Self::Cluster => match end.cluster.as_ref()? {
                known if known.name.is_empty() => format!("({})", text(&known.distribution)).into(),
                known => text(&known.name),
            },
            Self::Unit => text(end.unit.as_ref()?),
            Self::Image => text(end.containers.last()?.image.as_ref()?),
            Self::Inode => row.socket.as_ref()?.inode.to_string().into(),
            Self::Cmdline => match process {
                Some(process) if process.cmdline.is_empty() => return None,
                Some(process) => style.text(&process.cmdline.join(" ")).into(),
                None => text(end.why.as_ref()?),
            },
            Self::Component => {
                let component = row.component.as_ref()?;
                let name = format!("{}: {}", text(&component.name), text(&component.role));
                match (component.confirmed, row.end.ending) {
                    (true, _) => name.into(),
                    (false, Ending::Process) => format!("calls itself {name}").into(),
                    (false, _) => format!("usually {name}").into(),
                }
            }
            Self::Files => {
                let files = &row.component.as_ref()?.files;
                files.first()?;
                let files: Vec<String> = files
                    .iter()
                    .map(|(option, path)| format!("{}={}", text(option), text(path)))
                    .collect();
                files.join(" ").into()
            }
            Self::Queue => {
                let queue = row.socket.as_ref()?.queue?;
                format!("{}/{}", queue.waiting, queue.limit).into()
            }
            Self::Health => {
                let ailments = Ailment::of(row.socket.as_ref()?, &end.processes);
                ailments.first()?;
                let words: Vec<&str> = ailments.into_iter().map(Ailment::as_str).collect();
                words.join(", ").into()
            }
            Self::Service => {
                let service = row.service.as_ref()?;
                let name = format!("{}/{}", text(&service.namespace), text(&service.name));
                match &service.port {
                    Some(port) => format!("{name}:{}", text(port)).into(),
                    None => name.into(),
                }
            }
        })
    }
}
