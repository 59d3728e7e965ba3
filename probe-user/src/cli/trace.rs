//! What `trace` takes.

use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::model::EventKind;

/// The help behind the options of `trace`.
pub(super) const HELP: &str = "\
Examples:
  whereis-port trace                              listeners as they come and go, anywhere
  whereis-port trace 8080 -e listen -n 1          until a listener comes up on port 8080; `wait` also
                                                  ends when one is there already
  whereis-port trace 5432 --events connect        who connects to port 5432
  whereis-port trace 8080 --events drop           packets that died on the way to port 8080, and why
  whereis-port trace --json --duration 10s | jq 'select(.type == \"event\")'

Events:
  listen   TCP: a socket listens now            bind     UDP: a socket was bound to a port
  close    it listens no more, was released     connect  TCP: a process connects to somewhere
  accept   TCP: a listener got a connection     nat      a connection that NAT changes
  drop     packets on their way to a port were dropped, or answered with a reset or an ICMP error:
           counted by cause, at once when there is a new one, then at most once a second; with the
           kernel's reason (Linux 5.17), and the rule where packet rules did it

Marks:
  ~  found by comparing two readings, so it happened up to --interval before. What came and
     went between two readings is not seen. The process is one that held the socket when it
     was first seen.

Exit status:
  0  at least one event            2  bad usage
  1  none, and everything that was asked for could be watched
  3  none, but not everything could be watched, or events were lost
  4  the tool itself failed";

/// The shortest time between two readings.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// What to watch, and for how long.
#[derive(Debug, Clone, Args)]
pub struct TraceArgs {
    /// What is watched.
    #[arg(
        value_name = "TARGET",
        allow_negative_numbers = true,
        help = "PORT, PORT/PROTO, ADDR:PORT[/PROTO], [V6]:PORT, FIRST-LAST, or a service name; \
                everything when nothing is named"
    )]
    pub targets: Vec<String>,
    /// Which events, with commas between them
    #[arg(
        short,
        long,
        value_name = "EVENT",
        value_delimiter = ',',
        default_value = "listen,bind,close,nat",
        value_parser = PossibleValuesParser::new(EventKind::ALL.map(EventKind::as_str)).map(kind)
    )]
    pub events: Vec<EventKind>,
    /// End after this time: 500ms, 10s, 2m, 1h
    #[arg(short, long, value_name = "TIME", value_parser = positive)]
    pub duration: Option<Duration>,
    /// End after this many events
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// How often readings are compared where eBPF is not available
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Compare readings even where eBPF works
    #[arg(long)]
    pub no_ebpf: bool,
}

/// The kind that clap found among the possible values.
pub(super) fn kind(name: String) -> EventKind {
    EventKind::ALL.into_iter().find(|kind| kind.as_str() == name).unwrap_or(EventKind::Listen)
}

pub(super) fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("that is no time at all".to_owned()),
        time => Ok(time),
    }
}

pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < SHORTEST_INTERVAL {
        return Err("reading takes longer than that, use 10ms or more".to_owned());
    }
    Ok(time)
}

/// Understands a time: a whole number and its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() {
        return Err("no number in front, as in 500ms, 10s, 2m, 1h".to_owned());
    }
    let too_long = || "longer than a machine runs".to_owned();
    let number: u64 = number.parse().map_err(|_| too_long())?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => return Err(format!("the unit is missing, {text}s or {text}ms?")),
        other => return Err(format!("unknown unit {other:?}, use ms, s, m or h")),
    };
    // So much can be added to any time of a clock.
    let limit = Duration::from_secs(100 * 365 * 24 * 3600);
    let time = number.checked_mul(unit).map(Duration::from_millis);
    time.filter(|time| *time <= limit).ok_or_else(too_long)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(args: &[&str]) -> Result<TraceArgs, String> {
        let args = [&["whereis-port", "trace"], args].concat();
        match Cli::try_parse_from(args).map_err(|error| error.to_string())?.command {
            Some(Command::Trace(args)) => Ok(args),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn times_have_a_unit() {
        for (text, ms) in
            [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, says) in [
            ("10", "10s or 10ms"),
            ("", "no number"),
            ("s", "no number"),
            ("-1s", "no number"),
            ("1.5s", "unknown unit"),
            ("1d", "use ms, s, m or h"),
            ("10 s", "unknown unit"),
            ("99999999999999999999s", "longer"),
            ("18446744073709551615h", "longer"),
            ("1000000h", "longer"),
        ] {
            assert!(duration(text).unwrap_err().contains(says), "{text}: {:?}", duration(text));
        }
    }

    #[test]
    fn what_is_not_said_is_usual() {
        use EventKind::{Bind, Close, Listen, Nat};
        let args = parse(&[]).unwrap();
        assert_eq!(args.events, [Listen, Bind, Close, Nat]);
        assert_eq!(args.interval, Duration::from_secs(1));
        assert!(args.duration.is_none() && args.count.is_none() && !args.no_ebpf);
    }

    #[test]
    fn events_are_a_list_of_known_words() {
        use EventKind::{Accept, Connect};
        assert_eq!(parse(&["--events", "connect,accept"]).unwrap().events, [Connect, Accept]);
        assert_eq!(parse(&["-e", "connect", "-e", "accept"]).unwrap().events, [Connect, Accept]);
        for wrong in ["foo", "listen,foo", "", "listen,", "LISTEN"] {
            assert!(
                parse(&["--events", wrong]).unwrap_err().contains("possible values"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn nothing_is_watched_for_no_time() {
        for wrong in [["-d", "0s"], ["-n", "0"], ["--interval", "0ms"], ["--interval", "9ms"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(parse(&["-n", "3", "80", "53/udp"]).unwrap().targets, ["80", "53/udp"]);
    }
}
