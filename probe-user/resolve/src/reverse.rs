//! The question the other way round: which ports lead to a process, container, pod,
//! service or cluster?
//!
//! The list of the node has who holds each port and where rules and forwarders lead; from
//! what belongs to the subject it is followed back to everything that leads there. Each
//! port that is found is then asked for, and the paths that end in the subject are kept:
//! the list proposes, the walk decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::Facts;
use super::list::within as list_within;
use super::{ListFilter, answer_within, cluster, kube};
use whereis_port_model::Node;
use whereis_port_model::{
    Answer, Cluster, Container, End, Endpoint, FindingCode, Impact, ListRow, NetnsId, Path, Port,
    PortRange, Proto, Query, Scope, Service, SocketInode, Subject, Verdict,
};

/// Every port that leads to `subject`, an answer for each; one answer without a path when
/// there is none.
pub fn reverse(node: &dyn Node, subject: &Subject) -> Vec<Answer> {
    let facts = Facts::new(node);
    let listing = list_within(&facts.again(), &ListFilter::default());
    let answer_of = |query: &Query, wanted: &dyn Fn(&Path) -> bool| {
        answer_within(&facts.again(), query, wanted)
    };
    let known = kube::SubjectPlaces::of(&facts, subject);
    let is_subject = |end: &End| known.has(end) || is_end(subject, end);
    let own = |row: &&ListRow| is_subject(&row.end) || is_service(subject, row.service.as_ref());
    let rows: Vec<&ListRow> = listing.rows.iter().collect();
    let mut leads: BTreeSet<usize> =
        rows.iter().enumerate().filter(|(_, row)| own(row)).map(|(at, _)| at).collect();
    if let Subject::Cluster(name) = subject {
        leads.extend(cluster::rows_of(&rows, name));
        leads.extend(kube::rows_of(&facts, &rows, name));
    }
    let inodes: BTreeSet<SocketInode> =
        leads.iter().filter_map(|at| rows[*at].socket.as_ref()).map(|s| s.inode).collect();
    follow_back(&facts, &rows, &known.places, &mut leads);
    let mut asks: BTreeMap<(Port, Proto), ()> =
        leads.iter().map(|at| ((rows[*at].port, rows[*at].proto), ())).collect();
    asks.extend(known.ports.iter().map(|ask| (*ask, ())));
    let wanted = |path: &Path| {
        let held = path.hops.iter().filter_map(|hop| hop.socket.as_ref());
        held.into_iter().any(|socket| inodes.contains(&socket.inode)) || is_subject(&path.end)
    };
    let mut answers: Vec<Answer> = asks
        .into_keys()
        .map(|(port, proto)| Query {
            text: format!("{port}/{proto}"),
            ports: PortRange::one(port),
            proto: Some(proto),
            scope: Scope::Everywhere,
            zone: None,
            name: None,
            subject: Some(subject.clone()),
        })
        .map(|query| answer_of(&query, &wanted))
        .chain(known.addresses.iter().map(|at| {
            // What is at an address of a Service is in its place, whoever it is.
            let its = |path: &Path| {
                let first = path.hops.first().and_then(|hop| hop.endpoint.address);
                let is_service = matches!(subject, Subject::Service(..));
                wanted(path) || is_service && first.is_some_and(|a| a.to_canonical() == at.0)
            };
            answer_of(&at_address(*at, subject), &its)
        }))
        .chain(known.endpoints.iter().map(|at| answer_of(&at_address(*at, subject), &|_| true)))
        .collect();
    // What was noticed of ports that do not lead there belongs to what does, or to nothing.
    let (kept, others): (Vec<Answer>, Vec<Answer>) =
        answers.into_iter().partition(|answer| !answer.paths.is_empty());
    let mut noticed = Vec::new();
    for answer in others {
        let port = answer.query.proto.map(|proto| (answer.query.ports.first, proto));
        let is_its = port.is_some_and(|port| known.ports.contains(&port));
        for finding in answer.findings {
            let is_told = match finding.code {
                FindingCode::ShadowedRule => is_its,
                code => (is_its || kept.is_empty()) && code == FindingCode::Kubernetes,
            };
            if is_told && !noticed.contains(&finding) {
                noticed.push(finding);
            }
        }
    }
    answers = kept;
    if let Some(first) = answers.first_mut() {
        noticed.retain(|one| !first.findings.contains(one));
        first.findings.splice(..0, noticed.drain(..));
    }
    if answers.is_empty() {
        let mut gaps = listing.gaps;
        gaps.extend(facts.gaps().into_iter().filter(|gap| !gaps.contains(gap)).collect::<Vec<_>>());
        let unknown = gaps.iter().any(|gap| gap.impact <= Impact::Name);
        answers.push(Answer {
            sender: None,
            query: Query {
                text: subject.to_string(),
                ports: PortRange { first: Port(1), last: Port(u16::MAX) },
                proto: None,
                scope: Scope::Everywhere,
                zone: None,
                name: None,
                subject: Some(subject.clone()),
            },
            verdict: if unknown { Verdict::Unknown } else { Verdict::NotFound },
            paths: Vec::new(),
            more: 0,
            drops: Vec::new(),
            held: Vec::new(),
            more_held: 0,
            within: None,
            reach: Vec::new(),
            findings: known.findings.iter().cloned().chain(noticed).collect(),
            flows: None,
            gaps,
        });
    }
    answers
}

fn at_address((address, port, proto): (IpAddr, Port, Proto), subject: &Subject) -> Query {
    Query {
        text: format!("{}/{proto}", std::net::SocketAddr::new(address, port.0)),
        ports: PortRange::one(port),
        proto: Some(proto),
        scope: Scope::Address(address),
        zone: None,
        name: None,
        subject: Some(subject.clone()),
    }
}

/// Adds the rows that lead to those which are already there, until none is new.
fn follow_back(
    facts: &Facts<'_>,
    rows: &[&ListRow],
    places: &BTreeSet<(IpAddr, Port)>,
    leads: &mut BTreeSet<usize>,
) {
    let mut of_netns: BTreeMap<NetnsId, Vec<IpAddr>> = BTreeMap::new();
    for address in facts.all_addresses().iter().filter(|a| !a.address.is_loopback()) {
        of_netns.entry(address.netns).or_default().push(address.address);
    }
    let at = |row: &ListRow| -> Vec<(IpAddr, Port)> {
        let all = of_netns.get(&row.netns.id).map(Vec::as_slice).unwrap_or_default();
        let takes = |a: &&IpAddr| row.address.is_unspecified() || row.address == **a;
        all.iter().filter(takes).map(|address| (*address, row.port)).collect()
    };
    let mut reached: BTreeSet<(IpAddr, Port)> = places.clone();
    reached.extend(leads.iter().flat_map(|index| at(rows[*index])));
    loop {
        let leads_there = |row: &ListRow| {
            let to = |e: &Endpoint| e.address.zip(e.port).is_some_and(|to| reached.contains(&to));
            // Not all of its targets are named: the walk will tell.
            let perhaps = row.more > 0 && row.service.is_some();
            row.target.iter().chain(&row.others).any(to)
                || perhaps
                    && row.target.iter().any(|e| reached.iter().any(|(_, p)| e.port == Some(*p)))
        };
        let new: Vec<usize> = (0..rows.len())
            .filter(|index| !leads.contains(index) && leads_there(rows[*index]))
            .collect();
        if new.is_empty() {
            return;
        }
        reached.extend(new.iter().flat_map(|index| at(rows[*index])));
        leads.extend(new);
    }
}

/// Whether an end is the subject, or in it.
fn is_end(subject: &Subject, end: &End) -> bool {
    match subject {
        Subject::Process(pid) => end.processes.iter().any(|process| process.pid == *pid),
        Subject::Container(name) => end.containers.iter().any(|c| is_container(c, name)),
        Subject::Pod(namespace, name) => end.pod.as_ref().is_some_and(|pod| {
            pod.name.as_ref() == Some(name)
                && namespace.as_ref().is_none_or(|wanted| pod.namespace.as_ref() == Some(wanted))
        }),
        Subject::Service(..) => is_service(subject, end.service.as_ref()),
        Subject::Name(name) => {
            end.processes.iter().any(|process| process.name() == name)
                || end.containers.iter().any(|c| c.name.as_ref() == Some(name))
        }
        Subject::Cluster(name) => {
            let named = |cluster: &Cluster| cluster.name == *name;
            end.cluster.as_ref().is_some_and(named)
                || end.containers.iter().filter_map(Container::cluster).any(|c| named(&c))
        }
    }
}

pub(super) fn is_container(container: &Container, wanted: &str) -> bool {
    /// The shortest beginning of an id that is taken for one.
    const ID: usize = 4;
    container.name.as_deref() == Some(wanted)
        || wanted.len() >= ID && container.id.starts_with(wanted)
}

fn is_service(subject: &Subject, service: Option<&Service>) -> bool {
    let Subject::Service(namespace, name) = subject else { return false };
    service.is_some_and(|service| {
        service.name == *name
            && namespace.as_ref().is_none_or(|wanted| service.namespace == *wanted)
    })
}
