//! Which way packets take: the kernel's routing decision, and what it forwards.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::time::Instant;

use super::{LiveNode, Memo, files, gaps, procs};
use crate::model::{
    Gap, GapKind, GapSource, Impact, NetSettings, NetnsId, Read, RouteFound, RouteQuery,
};

const SOURCE: &str = "routing decisions";

/// The routing decisions asked for so far.
#[derive(Debug, Default)]
pub(super) struct Ways {
    known: RefCell<HashMap<RouteQuery, Option<RouteFound>>>,
    pub(super) settings: Memo<NetSettings>,
}

impl LiveNode {
    pub(super) fn route_of(&self, query: &RouteQuery) -> Read<Option<RouteFound>> {
        if let Some(known) = self.ways.known.borrow().get(query) {
            return Read::whole(known.clone());
        }
        let since = Instant::now();
        let (found, gap) = match self.ask_route(query) {
            Ok(found) => (found, None),
            Err(why) => {
                let source = GapSource::new(GapKind::Routes, format!("netns {}", query.netns));
                (None, Some(Gap::new(Impact::Reach, source, why)))
            }
        };
        self.ways.known.borrow_mut().insert(*query, found.clone());
        let asked = self.ways.known.borrow().len();
        self.log(SOURCE, since, gap.as_slice(), format!("{asked} asked for"));
        Read { value: found, gaps: gap.into_iter().collect() }
    }

    fn ask_route(&self, query: &RouteQuery) -> Result<Option<RouteFound>, String> {
        let doors = self.doors([query.netns]);
        let found =
            self.rtnls.each(&self.pool, &doors, |_, rtnl| rtnl.route(query.to, query.mark)).pop();
        match found {
            Some(Ok(found)) => found.map(Some).map_err(|error| error.to_string()),
            Some(Err(refused)) => Err(gaps::reason(refused)),
            None => Ok(None),
        }
    }

    pub(super) fn settings_inside(&self, netns: &[NetnsId]) -> Read<Vec<NetSettings>> {
        self.inside("network settings", Impact::Reach, &self.ways.settings, netns, |door| {
            Read::whole(vec![settings(door.id)])
        })
    }
}

/// The settings of the namespace of the calling thread: `/proc/sys/net` is that of
/// whoever looks.
fn settings(netns: NetnsId) -> NetSettings {
    let flag = |path: &str| files::text(path, files::SMALL).ok().map(|text| text.trim() != "0");
    let mut interfaces = Vec::new();
    if let Ok(directory) = procs::open_dir(rustix::fs::CWD, IPV4_CONF) {
        let add = |name: &CStr| interfaces.push(name.to_string_lossy().into_owned());
        let _so_far = procs::each_name(directory, add);
    }
    let mut route_localnet: Vec<String> = interfaces
        .into_iter()
        .filter(|name| !["all", "default", ".", ".."].contains(&name.as_str()))
        .filter(|name| flag(&format!("{IPV4_CONF}/{name}/route_localnet")) == Some(true))
        .collect();
    route_localnet.sort_unstable();
    NetSettings {
        netns,
        forward4: flag("/proc/sys/net/ipv4/ip_forward"),
        forward6: flag("/proc/sys/net/ipv6/conf/all/forwarding"),
        route_localnet_all: flag(&format!("{IPV4_CONF}/all/route_localnet")),
        route_localnet,
        bridge_calls_iptables: flag("/proc/sys/net/bridge/bridge-nf-call-iptables"),
    }
}

const IPV4_CONF: &str = "/proc/sys/net/ipv4/conf";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RouteKind;

    #[test]
    fn the_own_namespace_has_a_way_to_its_loopback() {
        let node = LiveNode::new().unwrap();
        let netns = node.found().0.own.unwrap();
        let ask = |to: &str| {
            let to = to.parse().unwrap();
            node.route_of(&RouteQuery { netns, to, mark: 0 }).value.unwrap()
        };
        let local = ask("127.0.0.1");
        assert_eq!(local.kind, RouteKind::Local);
        assert!(local.oif.is_some() && local.gateway.is_none(), "{local:?}");
        // A network that is set aside for documents: there is none, or it leads out.
        let far = ask("192.0.2.77");
        assert!(matches!(far.kind, RouteKind::Unicast | RouteKind::None), "{far:?}");
    }

    #[test]
    fn settings_are_read() {
        let node = LiveNode::new().unwrap();
        let netns = node.found().0.own.unwrap();
        let read = node.settings_inside(&[netns]);
        assert!(read.value.iter().any(|s| s.netns == netns && s.forward4.is_some()), "{read:?}");
    }
}
