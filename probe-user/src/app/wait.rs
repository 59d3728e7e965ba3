//! The command `wait`: until a port is served, free or reachable.

use std::io::Write;
use std::time::{Duration, Instant};

use super::Failure;
use crate::cli::{Global, Until, WaitArgs};
use crate::exit::Exit;
use crate::model::{
    Answer, Ending, EventKind, NetnsId, Path, Port, PortRange, Query, Scope, Verdict,
};
use crate::node::{self, KubeOptions, LiveNode, Topology as _, Watch, WatchRequest};
use crate::resolve::{self, BindQuestion};
use crate::view::{self, wait::Waited};

/// How long is waited when nothing is said.
const USUALLY: Duration = Duration::from_secs(30);
/// How often is looked where events tell of most changes. Rules, routes and what has only to
/// expire are no events.
const WITH_EVENTS: Duration = Duration::from_secs(1);
/// How often where nothing tells.
const WITHOUT: Duration = Duration::from_millis(250);

pub(super) fn run(global: &Global, args: &WaitArgs, out: &mut impl Write) -> Result<Exit, Failure> {
    if global.replay.is_some() || global.record.is_some() {
        return Err(Failure::Usage(
            "wait looks at this node as it runs: it can't use or write a recording".to_owned(),
        ));
    }
    let queries = super::queries(global, &args.targets)?;
    if let Some(range) = queries.iter().find(|query| query.ports.first != query.ports.last) {
        return Err(Failure::Usage(format!(
            "{:?} is several ports: name each that is waited for",
            range.text
        )));
    }
    let begun = Instant::now();
    let end = begun + global.timeout.unwrap_or(USUALLY);
    let mut watch: Option<Option<Box<dyn Watch>>> = None;
    let waited = loop {
        // Begun before the look that it makes superfluous: what happens in between is an event.
        let looked = look(global, args, &queries)?;
        let is_so = |waited: &Waited| waited.is_so == Some(true);
        let done = if args.any { looked.iter().any(is_so) } else { looked.iter().all(is_so) };
        if done || Instant::now() >= end {
            break looked;
        }
        match &mut watch {
            None => watch = Some(events(args.until, &queries)),
            Some(watch) => pass_time(watch.as_deref_mut(), &queries, end),
        }
    };
    let took = begun.elapsed();
    let document = view::wait::WaitReport { any: args.any, took, waited: &waited };
    if global.json {
        view::json::write(&view::json::waited(&document), out)?;
    } else {
        out.write_all(view::wait::text(&document, &super::style(global)).as_bytes())?;
    }
    let verdicts = waited.iter().map(|waited| match waited.is_so {
        Some(true) => Verdict::Found,
        Some(false) => Verdict::NotFound,
        None => Verdict::Unknown,
    });
    Ok(match args.any && waited.iter().any(|waited| waited.is_so == Some(true)) {
        true => Exit::Found,
        false => Exit::of(verdicts),
    })
}

/// Events that may change what is waited for; `None` where they can't be had for the asking.
fn events(until: Until, queries: &[Query]) -> Option<Box<dyn Watch>> {
    let ports = |end: fn(&Query) -> Port| queries.iter().map(end);
    let first = ports(|query| query.ports.first).min()?;
    let last = ports(|query| query.ports.last).max()?;
    let kinds = match until {
        Until::Listen | Until::Reachable => vec![EventKind::Listen, EventKind::Bind],
        Until::Free => vec![EventKind::Close],
    };
    let wanted = WatchRequest {
        kinds,
        ports: Some(PortRange { first, last }),
        drops: Vec::new(),
        interval: WITHOUT,
        ebpf: true,
        buffer: None,
    };
    let watch = node::watch(&wanted).ok()?;
    let compares = watch.sources().iter().any(|source| source.name == node::COMPARISON);
    (!compares).then_some(watch)
}

/// Waits until something happened, or it is time to look anyway.
fn pass_time(watch: Option<&mut (dyn Watch + 'static)>, queries: &[Query], end: Instant) {
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    let Some(watch) = watch else {
        std::thread::sleep(WITHOUT.min(left(end)));
        return;
    };
    let next = (Instant::now() + WITH_EVENTS).min(end);
    while !left(next).is_zero() {
        let events = watch.next(left(next));
        if events.iter().any(|event| queries.iter().any(|query| resolve::concerns(event, query))) {
            return;
        }
    }
}

/// How it is with each target now.
fn look(global: &Global, args: &WaitArgs, queries: &[Query]) -> Result<Vec<Waited>, Failure> {
    let node = LiveNode::new().map_err(|error| super::no_procfs(&error))?;
    // Names are not what is waited for.
    let node = node.with_kube(KubeOptions { off: true, ..super::kube_options(global) });
    let own = node.host().value.own_netns;
    let one = |query: &Query| match args.until {
        Until::Free => is_free(&node, query),
        Until::Listen => listens(&resolve::answer(&node, query), own),
        Until::Reachable => is_reachable(&resolve::answer(&node, query)),
    };
    let mut waited: Vec<Waited> = Vec::new();
    for query in queries {
        let this = one(query);
        let goes_on = query.name.as_ref().is_some_and(|name| name.at > 0);
        match waited.last_mut().filter(|_| goes_on) {
            // One of a name's addresses is enough, but for a server that is to have them all.
            Some(known) => {
                let wanted = args.until != Until::Free;
                if this.is_so == Some(wanted) || known.is_so != Some(wanted) && this.is_so.is_none()
                {
                    *known = this;
                }
            }
            None => waited.push(this),
        }
    }
    Ok(waited)
}

fn is_free(node: &LiveNode, query: &Query) -> Waited {
    let question = BindQuestion {
        query: query.clone(),
        netns: None,
        uid: None,
        reuse_addr: false,
        reuse_port: false,
        v6only: false,
        device: None,
        attempt: false,
    };
    let binds = resolve::bind(node, &question).unwrap_or_default();
    let all = |works: Option<bool>| binds.iter().find(|bind| bind.works() == works);
    let (is_so, telling) = match (all(Some(false)), all(None)) {
        (Some(failing), _) => (Some(false), Some(failing)),
        (None, Some(unknown)) => (None, Some(unknown)),
        (None, None) => (Some(true), binds.first()),
    };
    let text = telling.map(view::bind::in_short).unwrap_or_default();
    Waited { query: query.text.clone(), is_so, text }
}

/// Whether something serves it: here, where no address was named.
fn listens(answer: &Answer, own: NetnsId) -> Waited {
    let serves = |path: &&Path| {
        let here = path.hops.first().and_then(|hop| hop.netns.as_ref()).map(|netns| netns.id);
        let there = answer.query.scope != Scope::Everywhere || here == Some(own);
        there && !matches!(path.end.ending, Ending::Nothing | Ending::Stopped)
    };
    let found = answer.paths.iter().find(serves);
    let is_so = match (found, answer.verdict) {
        (Some(_), _) => Some(true),
        (None, Verdict::Unknown) => None,
        (None, _) => Some(false),
    };
    let text = match found.and_then(|path| path.hops.first()) {
        Some(hop) => hop.detail.clone(),
        None => "nothing listens".to_owned(),
    };
    Waited { query: answer.query.text.clone(), is_so, text }
}

/// Whether a process of this host gets there.
fn is_reachable(answer: &Answer) -> Waited {
    use crate::model::Vantage;
    let asked = match answer.query.scope {
        Scope::Everywhere => None,
        Scope::Address(address) => Some(address.to_canonical()),
    };
    let mut from_here = answer.reach.iter().filter(|reach| {
        let here = matches!(reach.from, Vantage::Loopback | Vantage::Node);
        here && asked
            .is_none_or(|asked| reach.address.is_none_or(|at| at.ip().to_canonical() == asked))
    });
    let so = |is: Option<bool>| from_here.clone().find(move |reach| reach.reachable == is);
    let (is_so, telling) = match (so(Some(true)), so(None)) {
        (Some(yes), _) => (Some(true), Some(yes)),
        (None, Some(unknown)) => (None, Some(unknown)),
        (None, None) if answer.verdict == Verdict::Unknown => (None, None),
        (None, None) => (Some(false), from_here.next()),
    };
    let text = match telling {
        Some(reach) => {
            let at = reach.address.map_or_else(String::new, |at| format!("{at}: "));
            format!("{at}{}", reach.why)
        }
        None => "nothing listens".to_owned(),
    };
    Waited { query: answer.query.text.clone(), is_so, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Subject;

    fn answer(verdict: Verdict, scope: Scope, ports: u16) -> Answer {
        Answer {
            sender: None,
            query: Query {
                text: "80".to_owned(),
                ports: PortRange::one(Port(ports)),
                proto: None,
                scope,
                zone: None,
                name: None,
                subject: None::<Subject>,
            },
            verdict,
            paths: Vec::new(),
            more: 0,
            reach: Vec::new(),
            findings: Vec::new(),
            drops: Vec::new(),
            held: Vec::new(),
            more_held: 0,
            within: None,
            flows: None,
            gaps: Vec::new(),
        }
    }

    #[test]
    fn what_could_not_be_read_is_neither() {
        let own = NetnsId::Inode(1);
        let of = |verdict| listens(&answer(verdict, Scope::Everywhere, 80), own).is_so;
        assert_eq!((of(Verdict::NotFound), of(Verdict::Unknown)), (Some(false), None));
        // Found elsewhere only: nothing listens here.
        assert_eq!(of(Verdict::Found), Some(false));
        let of = |verdict| is_reachable(&answer(verdict, Scope::Everywhere, 80)).is_so;
        assert_eq!((of(Verdict::NotFound), of(Verdict::Unknown)), (Some(false), None));
    }
}
