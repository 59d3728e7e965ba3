//! Rows for tests.

use std::sync::Arc;

use super::row::{Row, RowKey, RowOwner};
use whereis_port_model::{HopKind, NetnsId, Port, Proto};

/// A listener on all IPv4 addresses of the host.
pub(super) fn row(port: u16, process: &str, container: Option<&str>) -> Row {
    Row {
        key: RowKey {
            netns: NetnsId::Inode(1),
            port: Port(port),
            proto: Proto::Tcp,
            address: std::net::Ipv4Addr::UNSPECIFIED.into(),
            inode: Some(u64::from(port) + 10_000),
            pid: Some(u32::from(port) + 1),
        },
        kind: HopKind::Listener,
        netns: Arc::from("host"),
        process: Arc::from(process),
        user: None,
        target: None,
        service: None,
        component: None,
        owner: Arc::new(RowOwner {
            container: container.map(ToOwned::to_owned),
            started_at: Some(1_000_000),
            ..RowOwner::default()
        }),
        cells: std::sync::Arc::default(),
        conns: None,
    }
}
