//! What several possible ways of one connection say together.

use super::{Arrival, Stop, StopKind};
use whereis_port_model::{Advice, Condition, ConditionCode, Ending, InTheWay};

/// Whether a connection arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// `None` when it can't be told.
    pub(crate) arrives: Option<bool>,
    /// Why not, or what it depends on; `None` when it simply arrives.
    pub(crate) why: Option<String>,
    pub(crate) fix: Option<Advice>,
}

/// Judges all ways that one connection may take.
pub(crate) fn judge(arrivals: &[Arrival]) -> Judgement {
    match doubt(arrivals) {
        Some(what) => Judgement { arrives: None, why: Some(what.decides()), fix: what.advice() },
        None => of_ways(arrivals),
    }
}

/// What makes unsure what the ways of one connection say, though they were all followed to
/// their end: something on one that was not evaluated. What can only stop a packet does not
/// matter on a way that gets nowhere.
pub(super) fn doubt(arrivals: &[Arrival]) -> Option<&InTheWay> {
    let of_one = |a: &'_ Arrival| {
        let stops = a.stop.is_some();
        a.unsure.iter().position(|what| !stops || !what.only_stops())
    };
    let found = arrivals.iter().find_map(|a| a.unsure.get(of_one(a)?))?;
    // What is not known anyhow has a reason of its own.
    of_ways(arrivals).arrives.is_some().then_some(found)
}

/// The same, if all was evaluated.
fn of_ways(arrivals: &[Arrival]) -> Judgement {
    let stops: Vec<(&Arrival, &Stop)> =
        arrivals.iter().filter_map(|a| Some((a, a.stop.as_ref()?))).collect();
    let lands = arrivals.len() - stops.len();
    let beyond = |a: &&Arrival| a.stop.is_none() && a.end.ending == Ending::Elsewhere;
    let leaves: Vec<&Arrival> = arrivals.iter().filter(beyond).collect();
    if let Some(first) = leaves.first().filter(|_| leaves.len() == lands) {
        return Judgement { arrives: None, why: Some(leaving(first)), fix: None };
    }
    let Some((_, stop)) = stops.first() else {
        // Of several backends the others count; what leaves on a condition of its own is all then.
        let stays = |a: &&Arrival| {
            let same = |other: &&Arrival| !beyond(other) && other.depends == a.depends;
            a.depends.iter().all(is_of_some) || arrivals.iter().any(|other| same(&other))
        };
        if let Some(first) = leaves.iter().find(|a| !stays(a)) {
            let why = format!("{}, if {}", leaving(first), list(&first.depends));
            return Judgement { arrives: None, why: Some(why), fix: None };
        }
        let depends = arrivals.iter().find(|a| !a.depends.is_empty());
        // Every branch lands somewhere, whatever it depends on.
        let arrives = (!arrivals.is_empty()).then_some(true);
        let why = depends.map(|a| format!("where it lands depends on this: {}", list(&a.depends)));
        return Judgement { arrives, why, fix: None };
    };
    if lands == 0 {
        // One way that is not known to its end may be the one that arrives.
        let unknown = stops.iter().find(|(_, s)| s.kind == StopKind::Unknown);
        let arrives = unknown.is_none().then_some(false);
        let stop = unknown.map_or(stop, |(_, stop)| stop);
        return Judgement { arrives, why: Some(stop.why.clone()), fix: stop.fix.clone() };
    }
    if let Some((first, stop)) = stops.iter().find(|(a, _)| !a.depends.is_empty()) {
        let why = format!("{} if {}", stop.why, list(&first.depends));
        // Shut to some clients only, and open to whoever is not named.
        let named = |a: &Arrival| a.depends.iter().any(is_of_some);
        let shut_to_some = stops.iter().all(|(a, _)| named(a))
            && arrivals.iter().any(|a| a.stop.is_none() && !named(a));
        if shut_to_some {
            return Judgement { arrives: Some(true), why: Some(format!("but {why}")), fix: None };
        }
        return Judgement { arrives: None, why: Some(why), fix: stop.fix.clone() };
    }
    if let Some((_, stop)) = stops.iter().find(|(_, s)| s.kind == StopKind::Unknown) {
        return Judgement { arrives: None, why: Some(stop.why.clone()), fix: stop.fix.clone() };
    }
    let lost: f64 = stops.iter().map(|(a, _)| a.probability).sum();
    let why = format!("{} of connections fail: {}", super::hops::percent(lost), stop.why);
    Judgement { arrives: Some(true), why: Some(why), fix: stop.fix.clone() }
}

/// Whether a condition is about who connects: it holds for some clients that are named.
fn is_of_some(condition: &Condition) -> bool {
    matches!(condition.code, ConditionCode::Client | ConditionCode::Hairpin)
}

/// That it gets off this node; whether anything answers there is not known here.
fn leaving(arrival: &Arrival) -> String {
    let why = arrival.end.why.clone().unwrap_or_default();
    let last = arrival.hops.last();
    let to = last.and_then(|hop| Some((hop.endpoint.address?, hop.endpoint.port?)));
    to.map_or(why.clone(), |(address, port)| {
        format!(
            "it goes on to {}, beyond this node: {why}",
            std::net::SocketAddr::new(address, port.0)
        )
    })
}

/// All of them, in words.
pub(crate) fn list(depends: &[Condition]) -> String {
    let words: Vec<&str> = depends.iter().map(|one| one.text.as_str()).collect();
    words.join(", and ")
}

#[cfg(test)]
mod tests {
    use super::super::{ForwardPath, StopKind};
    use super::*;
    use whereis_port_model::{End, Path};

    fn stopped(kind: StopKind, depends: &[&str]) -> Arrival {
        let mut way = ForwardPath::begin();
        way.depends = depends.iter().map(|d| Condition::of_rule(*d)).collect();
        way.stop(kind, format!("{kind:?}"))
    }

    fn lands(ending: Ending) -> Arrival {
        ForwardPath::begin()
            .arrive(Path { end: End { ending, ..End::default() }, ..Path::default() }, None)
    }

    #[test]
    fn a_way_that_is_not_known_to_its_end_may_arrive() {
        let judgement = judge(&[stopped(StopKind::Dropped, &[]), stopped(StopKind::Unknown, &[])]);
        assert_eq!((judgement.arrives, judgement.why.as_deref()), (None, Some("Unknown")));
        let judgement = judge(&[lands(Ending::Process), stopped(StopKind::Unknown, &[])]);
        assert_eq!((judgement.arrives, judgement.why.as_deref()), (None, Some("Unknown")));
    }

    #[test]
    fn a_way_that_is_shut_to_some_clients_is_open_whatever_the_words() {
        let mut some = stopped(StopKind::Dropped, &["no word of whom"]);
        some.depends[0].code = ConditionCode::Client;
        let mut others = lands(Ending::Process);
        others.depends = vec![Condition::of_rule("the client's address is 10.0.0.1")];
        assert_eq!(judge(&[some.clone(), others]).arrives, Some(true));
        some.depends[0].code = ConditionCode::Rule;
        assert_eq!(judge(&[some, lands(Ending::Process)]).arrives, None);
    }

    #[test]
    fn what_was_not_evaluated_makes_yes_and_no_unsure_and_only_stopping_yes_alone() {
        use whereis_port_model::{Attachment, CgroupHook, CgroupProgram, DeviceHook, Program};
        let program = || Program { id: Some(12), name: "drop".to_owned(), balancer: None };
        let what = Attachment::Program(program());
        let xdp = InTheWay::OnDevice { device: "up0".to_owned(), at: DeviceHook::Xdp, what };
        let at = CgroupHook::Ingress;
        let filter = InTheWay::OnCgroup(CgroupProgram { at, cgroup: None, program: program() });
        let with = |mut arrival: Arrival, what: &InTheWay| {
            arrival.unsure.push(what.clone());
            [arrival]
        };
        let served = || lands(Ending::Process);
        let shut = || stopped(StopKind::Dropped, &[]);
        for (arrivals, arrives) in [
            (with(served(), &xdp), None),
            (with(shut(), &xdp), None),
            (with(served(), &filter), None),
            (with(shut(), &filter), Some(false)),
        ] {
            let judgement = judge(&arrivals);
            assert_eq!(judgement.arrives, arrives, "{arrivals:?}");
            let why = judgement.why.unwrap_or_default();
            assert_eq!(why.contains("(id 12)"), arrives.is_none(), "{why}");
            assert_eq!(judgement.fix.is_some(), arrives.is_none());
        }
        // A better reason stays.
        let unknown = with(stopped(StopKind::Unknown, &[]), &xdp);
        assert_eq!(judge(&unknown).why.as_deref(), Some("Unknown"));
    }

    #[test]
    fn what_leaves_the_node_is_not_known_to_arrive() {
        assert_eq!(judge(&[lands(Ending::Elsewhere)]).arrives, None);
        let some = [lands(Ending::Elsewhere), stopped(StopKind::Nothing, &[])];
        assert_eq!(judge(&some).arrives, None);
        // One of several backends is elsewhere.
        let mut all = [lands(Ending::Elsewhere), lands(Ending::Process)];
        assert_eq!(judge(&all).arrives, Some(true));
        for (code, arrives) in [(ConditionCode::Rule, None), (ConditionCode::Hairpin, Some(true))] {
            all[0].depends = vec![Condition { code, ..Condition::of_rule("the TTL is 64") }];
            assert_eq!(judge(&all).arrives, arrives, "{code:?}");
        }
        // And on the same condition another one is here.
        all[0].depends = vec![Condition::of_rule("the mark is 1")];
        all[1].depends = all[0].depends.clone();
        assert_eq!(judge(&all).arrives, Some(true));
    }

    #[test]
    fn the_assumption_that_is_said_is_that_of_the_way_that_stops() {
        let all = [
            lands(Ending::Process),
            stopped(StopKind::Nothing, &[]),
            stopped(StopKind::Dropped, &["the mark is 1"]),
        ];
        let judgement = judge(&all);
        assert_eq!(judgement.arrives, None);
        assert_eq!(judgement.why.as_deref(), Some("Dropped if the mark is 1"));
    }
}
