//! The columns of a list, and what a row has in each.

use crate::model::ListRow;
use crate::view::style::Style;
use crate::view::words;

/// What stands for an owner that could not be told.
pub(super) const UNKNOWN: &str = "(unknown)";
/// What stands for something that there is none of.
pub(super) const NONE: &str = "-";

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
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
}

/// The columns of `table`.
pub(super) const TABLE: [Column; 8] = [
    Column::Port,
    Column::Proto,
    Column::Address,
    Column::Process,
    Column::Pid,
    Column::Container,
    Column::Netns,
    Column::Target,
];

/// The columns of `wide`.
pub(super) const WIDE: [Column; 16] = [
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
];

impl Column {
    /// Its name, in upper case.
    pub(super) fn title(self) -> &'static str {
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
        }
    }

    /// Whether its cells may be shortened.
    pub(super) fn is_text(self) -> bool {
        !matches!(
            self,
            Self::Port | Self::Proto | Self::Address | Self::Pid | Self::Uid | Self::Inode
        )
    }

    /// Whether its cells line up at their right.
    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Port | Self::Pid | Self::Uid | Self::Inode)
    }

    /// What `row` has there, safe to show and never empty.
    pub(super) fn cell(self, row: &ListRow, style: &Style) -> String {
        self.value(row, style).unwrap_or_else(|| NONE.to_owned())
    }

    /// What `row` has there, safe to show. `None` when there is none.
    pub(super) fn value(self, row: &ListRow, style: &Style) -> Option<String> {
        let end = &row.end;
        let process = end.processes.first();
        let text = |text: &String| style.text(text);
        match self {
            Self::Port => Some(row.socket.port.to_string()),
            Self::Proto => Some(row.socket.proto.to_string()),
            Self::Address => Some(row.socket.address.to_string()),
            Self::Process => Some(match (words::marker(end.ending), process) {
                (None, Some(process)) => match end.processes.len() - 1 {
                    0 => style.text(process.name()),
                    more => format!("{} (+{more})", style.text(process.name())),
                },
                (Some(mark), _) => mark.to_owned(),
                (None, None) => UNKNOWN.to_owned(),
            }),
            Self::Pid => process.map(|p| p.pid.to_string()),
            Self::Container => {
                let names: Vec<String> =
                    end.containers.iter().map(|c| style.text(words::container(c))).collect();
                (!names.is_empty()).then(|| names.join("/"))
            }
            Self::Netns => Some(match &row.netns.name {
                Some(name) => style.text(name),
                None => row.netns.id.to_string(),
            }),
            Self::Target => row.target.as_ref().map(|target| {
                let endpoint = style.endpoint(target);
                match &row.target_detail {
                    Some(detail) => format!("{endpoint} {}", style.text(detail)),
                    None => endpoint,
                }
            }),
            // The name belongs to the process, which may run as somebody else.
            Self::User => {
                process.filter(|p| p.uid == row.socket.uid).and_then(|p| p.user.as_ref()).map(text)
            }
            Self::Uid => Some(row.socket.uid.to_string()),
            Self::Pod => end.pod.as_ref().and_then(|pod| match (&pod.namespace, &pod.name) {
                (Some(namespace), Some(name)) => {
                    Some(format!("{}/{}", text(namespace), text(name)))
                }
                (_, Some(name)) => Some(text(name)),
                (_, None) => pod.uid.as_ref().map(text),
            }),
            Self::Cluster => end.cluster.as_ref().map(|cluster| text(&cluster.name)),
            Self::Unit => end.unit.as_ref().map(text),
            Self::Image => end.containers.last().and_then(|c| c.image.as_ref()).map(text),
            Self::Inode => Some(row.socket.inode.to_string()),
            Self::Cmdline => match process {
                Some(process) if !process.cmdline.is_empty() => {
                    Some(style.text(&process.cmdline.join(" ")))
                }
                Some(_) => None,
                None => end.why.as_ref().map(text),
            },
        }
    }
}
