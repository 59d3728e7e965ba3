//! What the agent of Cilium says at its socket: the Services of its frontends, which the maps of
//! its programs do not name.
//!
//! Whoever may change these maps is believed: root, as the machine counts it, with the rights
//! that takes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;

use super::super::asking::{DaemonFailure, RequestLimits, SocketPeer};
use super::Containers;
use super::exchange::{body, exchange};
use whereis_port_model::{NetnsId, Pid};

/// Where the agent listens, as it sees it.
const SOCKET: &str = "/var/run/cilium/cilium.sock";
/// Of HTTP 1.0 the answer comes in one piece, and the connection ends with it.
const SERVICES: &[u8] =
    b"GET /v1/service HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n";
/// The longest answer that is read: some 600 bytes for each frontend and its backends.
const ANSWER: usize = 32 << 20;
/// How many frontends are named.
const FRONTENDS: usize = 100_000;
/// `CAP_SYS_ADMIN` and `CAP_BPF`, as bits.
const MAY_CHANGE_MAPS: u64 = 1 << 21 | 1 << 39;

/// The names of frontends, `namespace/name`.
#[derive(Debug, Default)]
pub(in super::super) struct FrontendNames(HashMap<FrontendKey, Option<String>>);

/// An address, a port, and the protocol where the agent tells it (1.17 on).
type FrontendKey = (IpAddr, u16, Option<u8>);

impl FrontendNames {
    /// Whose a frontend is, unless several have it.
    pub(in super::super) fn at(
        &self,
        address: IpAddr,
        port: u16,
        proto: Option<u8>,
    ) -> Option<&str> {
        let of = |proto| self.0.get(&(address, port, proto));
        of(proto).or_else(|| of(None))?.as_deref()
    }

    fn add(&mut self, key: FrontendKey, name: String) {
        let known = self.0.entry(key).or_insert_with(|| Some(name.clone()));
        if known.as_ref().is_some_and(|known| *known != name) {
            *known = None;
        }
    }
}

impl Containers {
    /// How the agent of the Cilium in a namespace calls its frontends, and which process it is.
    /// `None` where none runs that is believed.
    pub(in super::super) fn cilium_names(
        &self,
        netns: NetnsId,
    ) -> Option<(Pid, Result<FrontendNames, DaemonFailure>)> {
        let is_agent = |pid: &Pid| {
            self.procs.comm(*pid).as_deref() == Some("cilium-agent")
                && self.procs.netns(*pid).map(NetnsId::Inode) == Some(netns)
                && self.is_believed(*pid)
        };
        let pid = self.procs.all().into_iter().find(is_agent)?;
        Some((pid, self.ask_agent(pid)))
    }

    fn is_believed(&self, pid: Pid) -> bool {
        let own = self.procs.own_userns();
        let trusted = self
            .procs
            .who(pid)
            .is_some_and(|who| who.uid == 0 && who.is_trusted_with_the_machine(own));
        let rights = self.procs.capabilities(pid).unwrap_or(0);
        trusted && rights & MAY_CHANGE_MAPS != 0
    }

    fn ask_agent(&self, pid: Pid) -> Result<FrontendNames, DaemonFailure> {
        let root = self.procs.root(pid).map_err(std::io::Error::from)?;
        let socket = root.socket(Path::new(SOCKET)).map_err(std::io::Error::from)?;
        let mut state = self.state();
        let mut budget = state.budget(self.limits);
        let time = budget.grant(self.limits.time, false, false).ok_or(DaemonFailure::NotAsked)?;
        let limits = RequestLimits { time, bytes: ANSWER };
        let began = std::time::Instant::now();
        let answer = self.procs.tokio().ask(limits, async |connections| {
            let is_meant = |peer: SocketPeer| match peer.uid == 0 && peer.pid == Some(pid) {
                true => Ok(()),
                false => {
                    Err(DaemonFailure::Unreachable("another process listens there".to_owned()))
                }
            };
            exchange(&socket, &connections, ANSWER, is_meant, SERVICES).await
        });
        budget.spend(began);
        state.budget = Some(budget);
        parse(&answer?).ok_or_else(|| {
            DaemonFailure::Garbage("it is not in the form that is expected".to_owned())
        })
    }
}

fn parse(answer: &[u8]) -> Option<FrontendNames> {
    let all: Vec<CiliumService> = serde_json::from_slice(body(answer)?).ok()?;
    let mut names = FrontendNames::default();
    for (key, name) in all.into_iter().take(FRONTENDS).filter_map(|one| one.spec()?.name()) {
        names.add(key, name);
    }
    Some(names)
}

/// An element of the agent's `GET /v1/service` (`api/v1/openapi.yaml`, `Service`).
#[derive(Deserialize)]
struct CiliumService {
    spec: Option<CiliumServiceSpec>,
    status: Option<CiliumServiceStatus>,
}

#[derive(Deserialize)]
struct CiliumServiceStatus {
    realized: Option<CiliumServiceSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CiliumServiceSpec {
    frontend_address: Option<CiliumFrontend>,
    flags: Option<Flags>,
}

#[derive(Deserialize)]
struct CiliumFrontend {
    ip: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

#[derive(Deserialize)]
struct Flags {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

impl CiliumService {
    fn spec(self) -> Option<CiliumServiceSpec> {
        self.status.and_then(|status| status.realized).or(self.spec)
    }
}

impl CiliumServiceSpec {
    fn name(self) -> Option<(FrontendKey, String)> {
        let (at, flags) = (self.frontend_address?, self.flags?);
        let Flags { name, namespace } = flags;
        // A port of a pod on the node is called `POD/host-port/PORT`.
        if name.is_empty() || namespace.is_empty() || name.contains('/') || namespace.contains('/')
        {
            return None;
        }
        let proto = match at.protocol.as_deref().map(str::to_ascii_uppercase).as_deref() {
            Some("TCP") => Some(6),
            Some("UDP") => Some(17),
            Some("SCTP") => Some(132),
            _ => None,
        };
        Some(((at.ip?.parse().ok()?, at.port?, proto), format!("{namespace}/{name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontends_have_the_names_of_their_services() {
        let body = serde_json::json!([
            {"spec": {
                "id": 46, "frontend-address": {"ip": "172.31.251.2", "port": 30995, "scope": "external"},
                "flags": {"name": "my-nginx", "namespace": "default", "type": "NodePort"},
            }},
            {"spec": {}, "status": {"realized": {
                "frontend-address": {"ip": "fd00::1", "port": 80, "protocol": "TCP"},
                "flags": {"name": "web", "namespace": "shop", "type": "ClusterIP"},
            }}},
            {"spec": {
                "frontend-address": {"ip": "0.0.0.0", "port": 18080},
                "flags": {"name": "web/host-port/18080", "namespace": "default", "type": "HostPort"},
            }},
        ]);
        let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}");
        let names = parse(answer.as_bytes()).unwrap();
        let name = |ip: &str, port, proto| names.at(ip.parse().unwrap(), port, proto);
        for proto in [None, Some(6), Some(17)] {
            assert_eq!(name("172.31.251.2", 30995, proto), Some("default/my-nginx"));
        }
        assert_eq!(name("fd00::1", 80, Some(6)), Some("shop/web"));
        assert_eq!(name("fd00::1", 80, Some(17)), None);
        assert_eq!(name("0.0.0.0", 18080, None), None);
        let mut two = FrontendNames::default();
        let key = ("10.0.0.1".parse().unwrap(), 53, None);
        two.add(key, "a/tcp".to_owned());
        two.add(key, "a/udp".to_owned());
        assert_eq!(two.at(key.0, key.1, None), None, "several have it");
        for damaged in ["", "HTTP/1.0 500 no\r\n\r\n[]", "HTTP/1.0 200 OK\r\n\r\n{"] {
            assert!(parse(damaged.as_bytes()).is_none(), "{damaged}");
        }
    }
}
