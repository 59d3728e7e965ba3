//! What whereis-port should keep to, and whether it did.

use super::super::Question;
use super::super::events::Events;
use super::super::measure::Tool;
use super::super::node::Size;
use super::super::rules::{About, Kind, OfRules};
use super::{Measured, median, millis, quantile};

/// A bound that whereis-port should keep.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    pub(crate) what: &'static str,
    pub(crate) wanted: &'static str,
    pub(crate) got: String,
    pub(crate) met: bool,
}

/// What is wanted on the node of one size, of the commands that a user would type there.
pub(crate) fn of_node(all: &[Measured], size: Size) -> Vec<Target> {
    use Question::{List, OnePort};

    let ms = |question, tool| {
        let mut cases = all.iter();
        cases
            .find(|m| (m.size, m.question, m.tool) == (size, question, tool))
            .map_or(f64::NAN, Measured::ms)
    };
    // How many times the time of `ours` another tool takes.
    let at_least = |what, wanted, question, ours, other, bound| {
        let times = ms(question, other) / ms(question, ours);
        Target { what, wanted, got: format!("{times:.2} times as fast"), met: times >= bound }
    };
    let at_most = |what, wanted, question, ours, other, bound| {
        let times = ms(question, ours) / ms(question, other);
        Target { what, wanted, got: format!("{times:.2} times its time"), met: times <= bound }
    };
    match size {
        Size::Big => {
            let ours = all.iter().filter(|m| m.size == size && m.tool.is_ours());
            let peak = ours.map(Measured::peak_mb).fold(0.0, f64::max);
            vec![
                at_least(
                    "one port, against `ss -tlnp sport = :P`",
                    "at least 1.2 times as fast",
                    OnePort,
                    Tool::Ours,
                    Tool::SsPort,
                    1.2,
                ),
                at_least(
                    "one port, against `lsof`",
                    "at least twice as fast",
                    OnePort,
                    Tool::Ours,
                    Tool::Lsof,
                    2.0,
                ),
                at_least(
                    "one port, pinned, against `ss -tlnp sport = :P`",
                    "at least 8 times as fast",
                    OnePort,
                    Tool::Pinned,
                    Tool::SsPort,
                    8.0,
                ),
                at_least(
                    "full list, against `ss -tlnp`",
                    "not slower",
                    List,
                    Tool::Ours,
                    Tool::Ss,
                    1.0,
                ),
                at_least(
                    "full list, pinned, against `ss -tlnp`",
                    "at least 5 times as fast",
                    List,
                    Tool::Pinned,
                    Tool::Ss,
                    5.0,
                ),
                at_least(
                    "full list as JSON, against `ss -tlnp`",
                    "not slower",
                    List,
                    Tool::Json,
                    Tool::Ss,
                    1.0,
                ),
                at_least(
                    "full list as JSON, pinned, against `ss -tlnp`",
                    "at least 3 times as fast",
                    List,
                    Tool::PinnedJson,
                    Tool::Ss,
                    3.0,
                ),
                Target {
                    what: "memory, highest of all runs",
                    wanted: "under 30 MB",
                    got: format!("{peak:.1} MB"),
                    met: peak > 0.0 && peak < 30.0,
                },
            ]
        }
        Size::Small => vec![
            at_most(
                "one port, against `ss -tlnp sport = :P`",
                "at most 1.5 times its time",
                OnePort,
                Tool::Ours,
                Tool::SsPort,
                1.5,
            ),
            at_most(
                "one port, pinned, against `ss -tlnp sport = :P`",
                "at most 0.8 times its time",
                OnePort,
                Tool::Pinned,
                Tool::SsPort,
                0.8,
            ),
            at_least(
                "full list, against `ss -tlnp`",
                "not slower",
                List,
                Tool::Ours,
                Tool::Ss,
                1.0,
            ),
        ],
    }
}

/// What is wanted of `trace`.
pub(crate) fn of_events(events: &Events) -> Vec<Target> {
    let delay = quantile(&millis(&events.delays), 0.5);
    vec![
        Target {
            what: "events of a burst",
            wanted: "all seen, or counted as lost",
            got: format!("{} made, {} seen, {} lost", events.made, events.seen, events.lost),
            met: events.made > 0
                && (events.seen == events.made || events.seen + events.lost == events.made),
        },
        Target {
            what: "from `listen()` to the printed line, median",
            wanted: "under 50 ms",
            got: format!("{delay:.1} ms"),
            met: delay < 50.0,
        },
    ]
}

/// What is wanted on a node with many rules.
pub(crate) fn of_rules(rules: &[OfRules]) -> Vec<Target> {
    let ms = |kind, about| {
        let found = rules.iter().find(|row| (row.kind, row.about) == (kind, about));
        found.map_or(f64::NAN, |row| median(millis(&row.samples.wall)))
    };
    let at_most = |what, wanted, ms: f64, bound| Target {
        what,
        wanted,
        got: format!("{ms:.1} ms"),
        met: ms <= bound,
    };
    let list = Kind::ALL.map(|kind| ms(kind, About::List));
    // A median that is missing must not be met.
    let list = list.into_iter().reduce(|a, b| if a > b || a.is_nan() { a } else { b });
    let ours = rules.iter().filter(|row| row.about != About::Rules);
    let peak = ours.map(|row| row.samples.peak as f64 / 1e6).fold(0.0, f64::max);
    vec![
        at_most(
            "one NodePort of 5,000, iptables-nft",
            "at most 50 ms",
            ms(Kind::IptablesNft, About::OnePort),
            50.0,
        ),
        at_most("one NodePort of 5,000, nft", "at most 50 ms", ms(Kind::Nft, About::OnePort), 50.0),
        at_most(
            "one NodePort of 5,000, iptables-legacy",
            "at most 120 ms",
            ms(Kind::IptablesLegacy, About::OnePort),
            120.0,
        ),
        at_most(
            "full list with 5,000 services, slowest of the three",
            "under 1,000 ms",
            list.unwrap_or(f64::NAN),
            1_000.0,
        ),
        Target {
            what: "memory with 5,000 services, highest of all runs",
            wanted: "under 150 MB",
            got: format!("{peak:.1} MB"),
            met: peak > 0.0 && peak < 150.0,
        },
    ]
}
