//! Which way packets take: the kernel's routing decision, and what it forwards.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

use netlink_packet_route::link::InetDevConf;

use super::{LiveNode, NetnsCache, files, gaps, ipsec, nat, rtnl};
use whereis_port_model::{
    DeviceMode, Gap, GapKind, GapSource, Impact, InputFound, InputQuery, Neighbour, NetSettings,
    NetnsId, PolicyRule, Read, RouteFound, RouteQuery,
};

const SOURCE: &str = "routing decisions";

/// The routing decisions asked for so far.
#[derive(Debug, Default)]
pub(super) struct Ways {
    known: RefCell<HashMap<RouteQuery, Option<RouteFound>>>,
    inputs: RefCell<HashMap<InputQuery, Read<Option<InputFound>>>>,
    policies: NetnsCache<PolicyRule>,
    neighbours: NetnsCache<Neighbour>,
    pub(super) settings: NetnsCache<NetSettings>,
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
        let found = self.rtnls.each(&self.pool, &doors, |_, rtnl| rtnl.route(query)).pop();
        match found {
            Some(Ok(found)) => found.map(Some).map_err(|error| error.to_string()),
            Some(Err(refused)) => Err(gaps::reason(refused)),
            None => Ok(None),
        }
    }

    pub(super) fn input_route_of(&self, query: &InputQuery) -> Read<Option<InputFound>> {
        if let Some(known) = self.ways.inputs.borrow().get(query) {
            return known.clone();
        }
        let since = Instant::now();
        let doors = self.doors([query.netns]);
        let found = self.rtnls.each(&self.pool, &doors, |_, rtnl| rtnl.input_route(query)).pop();
        let read = match found {
            Some(Ok(Ok(found))) => Ok(Some(found)),
            Some(Ok(Err(error))) => Err(error.to_string()),
            Some(Err(refused)) => Err(gaps::reason(refused)),
            None => Ok(None),
        };
        let source = || GapSource::new(GapKind::Routes, format!("netns {}", query.netns));
        let read = match read {
            Ok(found) => Read::whole(found),
            Err(why) => Read::partial(None, Gap::new(Impact::Reach, source(), why)),
        };
        self.log(SOURCE, since, &read.gaps, String::new());
        self.ways.inputs.borrow_mut().insert(*query, read.clone());
        read
    }

    pub(super) fn policies_of(&self, netns: &[NetnsId]) -> Read<Vec<PolicyRule>> {
        let policies = &self.ways.policies;
        self.by_rtnl("routing rules", GapKind::Routes, policies, netns, |id, rtnl| {
            rtnl.policies(id)
        })
    }

    pub(super) fn neighbours_of(&self, netns: &[NetnsId]) -> Read<Vec<Neighbour>> {
        let known = &self.ways.neighbours;
        self.by_rtnl("neighbours", GapKind::Neighbours, known, netns, |id, rtnl| {
            rtnl.neighbours(id)
        })
    }

    pub(super) fn settings_inside(&self, netns: &[NetnsId]) -> Read<Vec<NetSettings>> {
        self.inside("network settings", Impact::Reach, &self.ways.settings, netns, |door| {
            Read::whole(vec![settings(door.id)])
        })
    }
}

/// The settings of the namespace of the calling thread: `/proc/sys/net` is that of whoever looks.
/// Those of devices come from rtnetlink, all at once.
fn settings(netns: NetnsId) -> NetSettings {
    let flag = |path: &str| files::text(path, files::SMALL).ok().map(|text| text.trim() != "0");
    let devices = rtnl::device_settings().ok().map(Devices::new);
    let forward6 = flag("/proc/sys/net/ipv6/conf/all/forwarding");
    // Asked only where it makes a difference.
    let forces = |name: &String| {
        flag(&format!("/proc/sys/net/ipv6/conf/{name}/force_forwarding")) == Some(true)
    };
    let names = || devices.iter().flat_map(|devices| &devices.0).map(|(name, _)| name);
    let force_forward6 = (forward6 == Some(false))
        .then(|| names().filter(|name| forces(name)).cloned().collect::<Vec<_>>());
    let set = |is: fn(&InetDevConf) -> bool| Some(devices.as_ref()?.with(is));
    let modes = |setting: &str, of: fn(&InetDevConf) -> i32| devices.as_ref()?.modes(setting, of);
    let route_localnet = set(|conf| conf.route_localnet != 0);
    NetSettings {
        netns,
        forward4: flag("/proc/sys/net/ipv4/ip_forward"),
        unforwarding4: set(|conf| conf.forwarding == 0),
        forward6,
        force_forward6,
        ipsec_policies: ipsec_policies(),
        route_localnet_all: flag(&format!("{ALL}/route_localnet")).filter(|_| devices.is_some()),
        route_localnet: route_localnet.unwrap_or_default(),
        bridge_calls_iptables: flag("/proc/sys/net/bridge/bridge-nf-call-iptables"),
        bridge_calls_ip6tables: flag("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
        proxy_arp: devices.as_ref().and_then(Devices::proxies),
        arp_ignore: modes("arp_ignore", |conf| conf.arp_ignore),
        reverse_path: modes("rp_filter", |conf| conf.rp_filter),
    }
}

/// The IPv4 settings of every device, by name.
struct Devices(Vec<(String, InetDevConf)>);

impl Devices {
    fn new(mut all: Vec<(String, InetDevConf)>) -> Self {
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Self(all)
    }

    /// The devices of which something is so.
    fn with(&self, is: impl Fn(&InetDevConf) -> bool) -> Vec<String> {
        self.0.iter().filter(|(_, conf)| is(conf)).map(|(name, _)| name.clone()).collect()
    }

    /// The devices on which it answers for others. What is set for all counts for each.
    fn proxies(&self) -> Option<Vec<String>> {
        let all = value_of_all("proxy_arp")? != 0 || value_of_all("proxy_arp_pvlan")? != 0;
        Some(self.with(|conf| all || conf.proxy_arp != 0 || conf.proxy_arp_pvlan != 0))
    }

    /// The devices for which a setting is not 0. What is set for all counts where it is more.
    fn modes(&self, setting: &str, of: impl Fn(&InetDevConf) -> i32) -> Option<Vec<DeviceMode>> {
        let all = value_of_all(setting)?;
        let mode = |(device, conf): &(String, InetDevConf)| {
            let mode = u8::try_from(of(conf)).ok()?.max(all);
            (mode > 0).then(|| DeviceMode { device: device.clone(), mode })
        };
        Some(self.0.iter().filter_map(mode).collect())
    }
}

/// What is set for all devices together.
fn value_of_all(setting: &str) -> Option<u8> {
    files::text(format!("{ALL}/{setting}"), files::SMALL).ok()?.trim().parse().ok()
}

/// How many IPsec policies there are. A kernel without the module is not asked: it would load it.
fn ipsec_policies() -> Option<u32> {
    match nat::has_module("xfrm_user") {
        true => ipsec::policies().ok(),
        // Only the older way to make them could be there.
        false => (!nat::has_module("af_key")).then_some(0),
    }
}

const ALL: &str = "/proc/sys/net/ipv4/conf/all";

#[cfg(test)]
mod tests {
    use super::*;
    use whereis_port_model::RouteKind;

    #[test]
    fn the_own_namespace_has_a_way_to_its_loopback() {
        let node = LiveNode::new().unwrap();
        let netns = node.found().0.own.unwrap();
        let ask = |to: &str| {
            let to = to.parse().unwrap();
            node.route_of(&RouteQuery::new(netns, to, 0)).value.unwrap()
        };
        let local = ask("127.0.0.1");
        assert_eq!(local.kind, RouteKind::Local);
        assert!(local.oif.is_some() && local.gateway.is_none(), "{local:?}");
        // A network that is set aside for documents: there is none, or it leads out.
        let far = ask("192.0.2.77");
        assert!(matches!(far.kind, RouteKind::Unicast | RouteKind::None), "{far:?}");
    }

    #[test]
    fn rules_of_policy_routing_and_what_they_do_to_what_comes_in() {
        use super::super::conntrack::Lab;
        if !Lab::can_be_made() {
            return;
        }
        let lab = Lab::new();
        let id = lab.door.id;
        let ip = |args: &'static str| {
            let args: Vec<&'static str> = args.split(' ').collect();
            lab.command("ip", &args, "");
        };
        let usual = LiveNode::new().unwrap().policies_of(&[id]);
        assert!(usual.value.iter().all(PolicyRule::is_usual), "{usual:?}");
        assert!(usual.value.iter().any(|rule| rule.ipv6) && usual.gaps.is_empty());
        ip("link add br0 type bridge");
        ip("link set br0 up");
        ip("addr add 10.9.0.1/24 dev br0");
        ip("rule add priority 7 from 10.8.0.0/16 iif br0 uidrange 1000-2000 lookup 100");
        ip("-6 rule add priority 8 not fwmark 1 prohibit");
        let node = LiveNode::new().unwrap();
        let all = node.policies_of(&[id]).value;
        let new: Vec<&PolicyRule> = all.iter().filter(|rule| !rule.is_usual()).collect();
        let network = (std::net::IpAddr::from([10, 8, 0, 0]), 16);
        let named = PolicyRule {
            netns: id,
            ipv6: false,
            priority: 7,
            inverted: false,
            from: Some(network),
            to: None,
            iif: Some("br0".to_owned()),
            uids: Some((1000, 2000)),
            more: false,
            table: Some(100),
        };
        let marked = PolicyRule {
            ipv6: true,
            priority: 8,
            inverted: true,
            from: None,
            iif: None,
            uids: None,
            more: true,
            table: None,
            ..named.clone()
        };
        assert_eq!(new, [&named, &marked]);
        let links = node.by_rtnl("", GapKind::Links, &RefCell::default(), &[id], |id, rtnl| {
            rtnl.links(id, &[])
        });
        let iif = links.value.iter().find(|l| l.name == "br0").unwrap().index;
        let ask = |from: &str| {
            let (to, from) = ("10.9.0.1".parse().unwrap(), from.parse().unwrap());
            let query = InputQuery { netns: id, to, from, iif, mark: 0, flow: None };
            node.input_route_of(&query).value.unwrap()
        };
        assert!(matches!(ask("10.9.0.2"), InputFound::Routed(r) if r.kind == RouteKind::Local));
        assert_eq!(ask("224.0.0.1"), InputFound::SourceRefused, "that is nobody's");
    }

    #[test]
    fn settings_are_read() {
        let node = LiveNode::new().unwrap();
        let netns = node.found().0.own.unwrap();
        let read = node.settings_inside(&[netns]);
        assert!(read.value.iter().any(|s| s.netns == netns && s.forward4.is_some()), "{read:?}");
    }
}
