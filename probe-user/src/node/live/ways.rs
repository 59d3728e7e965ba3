//! Which way packets take: the kernel's routing decision, and what it forwards.

use super::LiveNode;
use crate::model::{NetSettings, NetnsId, Read, RouteFound, RouteQuery};

impl LiveNode {
    pub(super) fn route_of(&self, _query: &RouteQuery) -> Read<Option<RouteFound>> {
        Read::default()
    }

    pub(super) fn settings_inside(&self, _netns: &[NetnsId]) -> Read<Vec<NetSettings>> {
        Read::default()
    }
}
