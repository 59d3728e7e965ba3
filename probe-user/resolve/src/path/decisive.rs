//! Which of several possible ways of one connection decides whether it arrives, and what
//! it depends on: the data behind what [`super::judge()`] says.

use super::{Arrival, Stop, StopKind, judge};
use whereis_port_model::{Cause, Condition, Ending, InTheWay};

/// What decides whether a connection arrives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Decisive<'a> {
    /// It lands wherever it goes; the conditions say where.
    Lands(&'a [Condition]),
    /// It leaves this node.
    Leaves,
    /// Something on its way was not evaluated, besides what the ways depend on.
    NotEvaluated(&'a InTheWay, &'a [Arrival]),
    /// It is stopped, under these conditions.
    Stops(&'a Stop, &'a [Condition]),
}

/// What decides among all ways that one connection may take.
pub(crate) fn decisive(arrivals: &[Arrival]) -> Decisive<'_> {
    if let Some(what) = judge::doubt(arrivals) {
        return Decisive::NotEvaluated(what, arrivals);
    }
    let stops: Vec<(&Arrival, &Stop)> =
        arrivals.iter().filter_map(|a| Some((a, a.stop.as_ref()?))).collect();
    let lands = arrivals.len() - stops.len();
    let beyond = |a: &&Arrival| a.stop.is_none() && a.end.ending == Ending::Elsewhere;
    if lands > 0 && arrivals.iter().filter(beyond).count() == lands {
        return Decisive::Leaves;
    }
    let Some((_, first)) = stops.first() else {
        let depends = arrivals.iter().map(|a| a.depends.as_slice()).find(|d| !d.is_empty());
        return Decisive::Lands(depends.unwrap_or_default());
    };
    let unknown = stops.iter().map(|(_, stop)| *stop).find(|s| s.kind == StopKind::Unknown);
    if lands > 0
        && let Some((arrival, stop)) = stops.iter().find(|(a, _)| !a.depends.is_empty())
    {
        return Decisive::Stops(stop, &arrival.depends);
    }
    Decisive::Stops(unknown.unwrap_or(first), &[])
}

impl Decisive<'_> {
    /// The cause, of which `words` tell.
    pub(crate) fn cause(&self, words: String) -> Cause {
        match self {
            Self::NotEvaluated(what, _) => Cause::NotEvaluated(Box::new((*what).clone())),
            Self::Leaves => Cause::LeavesNode(words),
            Self::Lands([]) => Cause::Said(words),
            Self::Stops(stop, []) => Cause::Stopped { kind: stop.kind, words },
            Self::Lands(_) | Self::Stops(..) => Cause::Depends(words),
        }
    }

    /// What it depends on.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        match self {
            Self::Leaves => Vec::new(),
            Self::NotEvaluated(_, arrivals) => {
                let mut all = Vec::new();
                for one in arrivals.iter().flat_map(|a| a.unsure.iter().map(InTheWay::condition)) {
                    if !all.contains(&one) {
                        all.push(one);
                    }
                }
                all
            }
            Self::Lands(depends) | Self::Stops(_, depends) => depends.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ForwardPath, Judgement, judge};
    use super::*;
    use whereis_port_model::{CauseCode, End, Path};

    fn stopped(kind: StopKind, depends: &[&str]) -> Arrival {
        let mut way = ForwardPath::begin();
        way.depends = depends.iter().map(|d| Condition::of_rule(*d)).collect();
        way.stop(kind, format!("because of {kind:?}"))
    }

    fn lands(ending: Ending) -> Arrival {
        ForwardPath::begin()
            .arrive(Path { end: End { ending, ..End::default() }, ..Path::default() }, None)
    }

    #[test]
    fn it_is_what_the_judgement_speaks_of() {
        use StopKind::{Dropped, Nothing, Unknown};
        let (served, beyond) = (lands(Ending::Process), lands(Ending::Elsewhere));
        let cases = [
            vec![stopped(Dropped, &[]), stopped(Unknown, &[])],
            vec![stopped(Dropped, &["the mark is 1"])],
            vec![served.clone(), stopped(Unknown, &[]), stopped(Nothing, &[])],
            vec![served.clone(), stopped(Nothing, &[]), stopped(Dropped, &["the mark is 1"])],
            vec![served.clone(), stopped(Nothing, &[])],
            vec![beyond.clone(), stopped(Nothing, &[])],
            vec![served.clone(), beyond],
            vec![served],
            vec![],
        ];
        for arrivals in cases {
            let Judgement { why, .. } = judge(&arrivals);
            let why = why.unwrap_or_default();
            match decisive(&arrivals) {
                Decisive::Stops(stop, depends) => {
                    assert!(why.contains(&stop.why), "{why:?} {stop:?}");
                    assert!(depends.iter().all(|d| why.contains(&d.text)), "{why:?} {depends:?}");
                    assert_eq!(depends.is_empty(), !why.contains(" if "), "{why:?}");
                }
                Decisive::NotEvaluated(what, _) => panic!("{what} is on none of them"),
                Decisive::Leaves => assert_eq!(judge(&arrivals).arrives, None),
                Decisive::Lands(depends) => assert_eq!((why.as_str(), depends.len()), ("", 0)),
            }
        }
    }

    #[test]
    fn the_cause_is_no_matter_of_the_words() {
        let all = [lands(Ending::Process), stopped(StopKind::Dropped, &["the mark is 1"])];
        let found = decisive(&all);
        assert_eq!(found.cause("anything".to_owned()).code(), CauseCode::Depends);
        assert_eq!(found.conditions(), [Condition::of_rule("the mark is 1")]);
        let all = [stopped(StopKind::NotForwarding, &[])];
        assert_eq!(decisive(&all).cause("anything".to_owned()).code(), CauseCode::NotForwarding);
    }
}
