//! Where connections were seen to lead, for listeners of which nothing else says.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::facts::Facts;
use whereis_port_model::forward::ForwardTarget;
use whereis_port_model::{
    End, Ending, Endpoint, Evidence, EvidenceSource, Gap, GapKind, GapSource, Hop, HopKind, Impact,
    NetnsId, Port, Process, Proto, Socket, counted, spoken_ms,
};

/// How many targets of one listener are followed.
pub(super) const SHOWN: usize = 16;

/// What was seen of one listener.
#[derive(Debug)]
pub(super) struct ObservedListener {
    /// How many connections it got.
    accepted: u64,
    /// How long was watched, in milliseconds.
    ms: u64,
    /// Where they led, the most frequent first.
    pub(super) targets: Vec<ObservedDestination>,
    /// How many connects led elsewhere, to targets that were not kept.
    unkept: u64,
}

/// One destination of a listener's connections, with counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObservedDestination {
    pub(super) to: SocketAddr,
    /// The namespace that it was connected to from.
    pub(super) from: Option<NetnsId>,
    connects: u64,
    ambiguous: u64,
    accepted: u64,
    port: Port,
    ms: u64,
}

/// What was seen of this listener and those who hold it; `None` when nobody
/// watched.
pub(super) fn of(
    facts: &Facts<'_>,
    socket: &Socket,
    processes: &[Process],
) -> Option<ObservedListener> {
    let watched = facts.watched.as_ref().filter(|_| socket.proto == Proto::Tcp)?;
    let place = (socket.netns, socket.address, socket.port);
    let got = watched.accepted.iter().find(|a| (a.netns, a.address, a.port) == place);
    let accepted = got.map_or(0, |a| a.connections);
    let holds = |pid, start| processes.iter().any(|p| p.pid == pid && p.start == start);
    let mut ways: BTreeMap<(SocketAddr, Option<NetnsId>), (u64, u64)> = BTreeMap::new();
    for seen in &watched.observed {
        if (seen.netns, seen.address, seen.port) == place && holds(seen.pid, seen.start) {
            let (connects, ambiguous) = ways.entry((seen.to, seen.to_netns)).or_default();
            *connects += seen.connects;
            *ambiguous += seen.ambiguous;
        }
    }
    let way = |((to, from), (connects, ambiguous))| ObservedDestination {
        to,
        from,
        connects,
        ambiguous,
        accepted,
        port: socket.port,
        ms: watched.ms,
    };
    let mut targets: Vec<ObservedDestination> = ways.into_iter().map(way).collect();
    // Stable: those as frequent stay in the order of their addresses.
    targets.sort_by_key(|way| std::cmp::Reverse(way.connects));
    let unkept = got.map_or(0, |a| a.unkept);
    Some(ObservedListener { accepted, ms: watched.ms, targets, unkept })
}

impl ObservedDestination {
    /// How sure it is, in few words: `observed, 12 of 14`.
    fn confidence(&self) -> String {
        let mut text = format!("observed, {} of {}", self.connects, self.accepted);
        if self.ambiguous > 0 {
            text.push_str(&format!(", {} ambiguous", self.ambiguous));
        }
        text
    }

    /// The same in full.
    pub(super) fn evidence(&self) -> Evidence {
        let one = self.accepted == 1;
        let mut text = format!(
            "{} of {} {} accepted on port {} in {} {} followed by a connect to {} within {} s",
            self.connects,
            self.accepted,
            if one { "connection" } else { "connections" },
            self.port,
            spoken_ms(self.ms),
            if self.connects == 1 { "was" } else { "were" },
            self.to,
            super::learn::WINDOW.as_secs(),
        );
        if self.ambiguous > 0 {
            text.push_str(&format!(
                "; {} of these connects may belong to another listener of the process, which got a \
                 connection shortly before, too",
                self.ambiguous
            ));
        }
        Evidence::new(EvidenceSource::ObservedConnects, text)
    }

    /// The step to there. Its namespace is the one that it is addressed in.
    pub(super) fn hop(&self, facts: &Facts<'_>, from: NetnsId) -> Hop {
        Hop {
            kind: HopKind::Forward,
            netns: Some(facts.netns_ref(from)),
            endpoint: Endpoint {
                address: Some(self.to.ip()),
                name: None,
                port: Some(Port(self.to.port())),
            },
            proto: Proto::Tcp,
            detail: self.confidence(),
            socket: None,
            evidence: vec![self.evidence()],
            share: None,
        }
    }
}

/// The targets to follow: all, up to a number; that there are more is said.
pub(super) fn shown(
    facts: &Facts<'_>,
    socket: &Socket,
    ways: &[ObservedDestination],
    seen: &ObservedListener,
) -> Vec<ObservedDestination> {
    let more = ways.len().saturating_sub(SHOWN);
    if more > 0 || seen.unkept > 0 {
        let mut reason = format!(
            "connections were seen to lead to {} targets, of which the {} most frequent are shown, and {more} more",
            ways.len(),
            ways.len().min(SHOWN),
        );
        if seen.unkept > 0 {
            reason.push_str(&format!("; {} more connects led to yet others", seen.unkept));
        }
        facts.gap(Gap::new(
            Impact::Way,
            GapSource::new(GapKind::Observed, format!("port {}/{}", socket.port, socket.proto)),
            reason,
        ));
    }
    ways.iter().take(SHOWN).cloned().collect()
}

/// The targets that tell where a forward leads whose arguments don't: all, when
/// they say nothing, and those with the right port for a name, which is not
/// looked up.
pub(super) fn instead_of(
    target: &ForwardTarget,
    seen: &ObservedListener,
) -> Vec<ObservedDestination> {
    match target {
        ForwardTarget::Unsaid(_) => seen.targets.clone(),
        ForwardTarget::Host(_, port, Proto::Tcp) => {
            seen.targets.iter().filter(|way| way.to.port() == port.0).cloned().collect()
        }
        _ => Vec::new(),
    }
}

/// Adds what was seen to a step that the command line tells of: that it is so,
/// or that connections led elsewhere.
pub(super) fn confirm(hop: &mut Hop, seen: Option<&ObservedListener>) {
    let Some(seen) = seen.filter(|seen| !seen.targets.is_empty()) else { return };
    let Some(port) = hop.endpoint.port else { return };
    let same = |way: &&ObservedDestination| match hop.endpoint.address {
        Some(address) => way.to == SocketAddr::new(address.to_canonical(), port.0),
        None => way.to.port() == port.0,
    };
    if let Some(way) = seen.targets.iter().find(same) {
        hop.evidence.push(way.evidence());
        return;
    }
    hop.evidence.extend(seen.targets.iter().take(SHOWN).map(ObservedDestination::evidence));
    let mut others: Vec<String> =
        seen.targets.iter().take(3).map(|way| way.to.to_string()).collect();
    if seen.targets.len() > others.len() {
        others.push(format!("{} more", seen.targets.len() - others.len()));
    }
    hop.detail.push_str(&format!(", but was seen to connect to {} instead", others.join(" and ")));
}

/// Programs that pass connections on, as a configuration file says.
const PROXIES: [&str; 7] =
    ["haproxy", "nginx", "openresty", "envoy", "traefik", "caddy", "pgbouncer"];

/// Says of a proxy's listener that it may lead on, and why it is not known where.
pub(super) fn note(socket: &Socket, end: &mut End, seen: Option<&ObservedListener>) {
    let Some(process) = end.processes.first() else { return };
    if end.ending != Ending::Process || end.why.is_some() || socket.proto != Proto::Tcp {
        return;
    }
    if is_remote_forward(process) {
        end.why = Some(
            "an ssh session holds it: connections go to where the ssh client at its other end \
             sends them (ssh -R), which is not known here"
                .to_owned(),
        );
        return;
    }
    let name = process.name();
    if !PROXIES.contains(&name) {
        return;
    }
    end.why = Some(match seen {
        None => format!(
            "where {name} leads is not known from its command line; --watch 5s can learn it"
        ),
        Some(seen) if seen.accepted == 0 => format!(
            "where {name} leads was not seen: no connection came in while watching ({}); \
             use --watch 5s while there is traffic",
            spoken_ms(seen.ms)
        ),
        Some(seen) => format!(
            "where {name} leads was not seen: {} came in while watching ({}) and no connect \
             followed: it answers itself, or uses connections again that it had; \
             use a longer --watch",
            counted(seen.accepted, "connection"),
            spoken_ms(seen.ms)
        ),
    });
}

/// Whether this is sshd serving one session: `sshd: user@pts/0`. The one that
/// waits for sessions is `sshd: /usr/sbin/sshd -D [listener] …`.
fn is_remote_forward(process: &Process) -> bool {
    let title = process.cmdline.first().map(String::as_str).unwrap_or_default();
    let session = ["sshd: ", "sshd-session: "].iter().find_map(|p| title.strip_prefix(p));
    matches!(process.name(), "sshd" | "sshd-session")
        && session.is_some_and(|who| !who.is_empty() && !who.contains("[listener]"))
}
