//! What `record-events` and `history` take.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::trace::{interval, kind, positive};
use crate::model::EventKind;

/// The help behind the options of `record-events`.
pub(super) const RECORD_HELP: &str = "\
It keeps who listens as it begins, and every event after that, until Ctrl-C or SIGTERM. An entry
counts once it is on the disk; with -v each is printed when it is. One recorder writes to a
directory at a time; `whereis-port history` reads it meanwhile. With --metrics it also answers
Prometheus and whoever else reads OpenMetrics, at /metrics.

Examples:
  whereis-port record-events --dir /var/lib/whereis-port
  whereis-port record-events --dir /var/lib/whereis-port --keep 30d --max-size 1G
  whereis-port record-events --dir /var/lib/whereis-port -e listen,bind,close,drop
  whereis-port record-events --dir /var/lib/whereis-port --metrics 127.0.0.1:9469

Exit status:
  0  ended by a signal or --duration, everything is on the disk
  2  bad usage, or another recorder writes to the directory
  4  the directory can't be written to, or events could not be kept";

/// The help behind the options of `history`.
pub(super) const HISTORY_HELP: &str = "\
A time is 03:12 or 03:12:30 (today, or yesterday if that is still to come), 2026-11-30,
2026-11-30 03:12, the same with a Z for UTC, or an age: 90s, 15m, 2h, 3d. Without a Z it is local.

Examples:
  whereis-port history 8080 --dir /var/lib/whereis-port             everybody who had port 8080
  whereis-port history 8080 --at 03:12 --dir /var/lib/whereis-port  who had it then, and for how long
  whereis-port history 53/udp --since 2h --dir /var/lib/whereis-port

Exit status:
  0  somebody had it              2  bad usage, or nothing was recorded there
  1  surely nobody
  3  nobody is known of, but not everything was recorded
  4  the tool itself failed";

/// Where events are kept.
#[derive(Debug, Clone, Args)]
pub struct RecordEventsArgs {
    /// Where to keep them: a directory of its own, which is made where there is none
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// For how long: 12h, 7d, 4w
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = long)]
    pub keep: Duration,
    /// How much: 200M, 1G
    #[arg(long, value_name = "SIZE", default_value = "200M", value_parser = size)]
    pub max_size: u64,
    /// Which events, with commas between them
    #[arg(
        short,
        long,
        value_name = "EVENT",
        value_delimiter = ',',
        default_value = "listen,bind,close",
        value_parser = PossibleValuesParser::new(EventKind::ALL.map(EventKind::as_str)).map(kind)
    )]
    pub events: Vec<EventKind>,
    /// Answer with metrics: at ADDRESS:PORT, or at unix:PATH
    #[arg(long, value_name = "ADDR|unix:PATH", value_parser = metrics)]
    pub metrics: Option<MetricsAt>,
    /// End after this time: 10s, 2m, 1h
    #[arg(short, long, value_name = "TIME", value_parser = positive)]
    pub duration: Option<Duration>,
    /// How often readings are compared where eBPF is not available
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Compare readings even where eBPF works
    #[arg(long)]
    pub no_ebpf: bool,
}

/// Where metrics are to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsAt {
    /// Over TCP.
    Tcp(std::net::SocketAddr),
    /// Over a UNIX socket.
    Unix(PathBuf),
}

/// Which port's past.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// What is asked for.
    #[arg(
        value_name = "TARGET",
        required = true,
        allow_negative_numbers = true,
        help = "PORT, PORT/PROTO, ADDR:PORT[/PROTO], [V6]:PORT, FIRST-LAST, or a service name"
    )]
    pub targets: Vec<String>,
    /// Where `record-events` keeps them
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// At this time only
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    pub at: Option<String>,
    /// From this time on
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
}

fn metrics(text: &str) -> Result<MetricsAt, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err("unix: needs a path behind it".to_owned());
        }
        return Ok(MetricsAt::Unix(path.into()));
    }
    let address = text.parse().map_err(|_| {
        "write ADDRESS:PORT, as in 127.0.0.1:9469 or [::1]:9469, or unix:PATH".to_owned()
    })?;
    Ok(MetricsAt::Tcp(address))
}

/// A time in units up to weeks.
fn long(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "" => return Err("the unit is missing, as in 12h, 7d or 4w".to_owned()),
        other => return Err(format!("unknown unit {other:?}, use s, m, h, d or w")),
    };
    let number: u64 =
        number.parse().map_err(|_| "no number in front, as in 12h, 7d or 4w".to_owned())?;
    match number.checked_mul(seconds) {
        Some(0) => Err("that is no time at all".to_owned()),
        Some(seconds) if seconds <= 100 * 365 * 86_400 => Ok(Duration::from_secs(seconds)),
        _ => Err("longer than a machine runs".to_owned()),
    }
}

/// The smallest store: less would hold too little to be of use.
const SMALLEST: u64 = 1 << 20;

fn size(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "" => return Err("the unit is missing, as in 200M or 1G".to_owned()),
        other => return Err(format!("unknown unit {other:?}, use K, M, G or T")),
    };
    let number: u64 =
        number.parse().map_err(|_| "no number in front, as in 200M or 1G".to_owned())?;
    match number.checked_mul(1 << shift) {
        Some(bytes) if bytes >= SMALLEST => Ok(bytes),
        Some(_) => Err("that is too little, use 1M or more".to_owned()),
        None => Err("more than any disk has".to_owned()),
    }
}

/// A time as users write it, in nanoseconds since the epoch. `now` is such a time, `offset`
/// what local time is ahead of UTC, in seconds.
///
/// # Errors
/// When it is none.
pub fn time(text: &str, now: u64, offset: i64) -> Result<u64, String> {
    const SECOND: i64 = 1_000_000_000;
    let wrong = || format!("{text:?} is no time: write 03:12, 2026-11-30 03:12, or an age like 2h");
    if let Ok(age) = long(text) {
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        return now.checked_sub(age).ok_or_else(wrong);
    }
    let now = i64::try_from(now).map_err(|_| wrong())? / SECOND;
    let (text_of, offset) = match text.strip_suffix('Z') {
        Some(rest) => (rest, 0),
        None => (text, offset),
    };
    let (date, clock) = match text_of.split_once(['T', ' ']) {
        Some((date, clock)) => (Some(date), Some(clock)),
        None if text_of.contains(':') => (None, Some(text_of)),
        None => (Some(text_of), None),
    };
    let of_day = match clock {
        Some(clock) => seconds(clock).ok_or_else(wrong)?,
        None => 0,
    };
    let at = match date {
        Some(date) => days(date).ok_or_else(wrong)? * 86_400 + of_day - offset,
        None => {
            let today = (now + offset).div_euclid(86_400) * 86_400 + of_day - offset;
            // One that is still to come was yesterday.
            if today > now { today - 86_400 } else { today }
        }
    };
    u64::try_from(at).ok().and_then(|at| at.checked_mul(1_000_000_000)).ok_or_else(wrong)
}

/// `03:12` or `03:12:30`.
fn seconds(text: &str) -> Option<i64> {
    let mut parts = text.split(':').map(number);
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    let is_time = parts.next().is_none() && hour < 24 && minute < 60 && second < 60;
    is_time.then_some(hour * 3600 + minute * 60 + second)
}

/// The days since 1970-01-01 of `2026-11-30`.
fn days(text: &str) -> Option<i64> {
    let mut parts = text.split('-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month = usize::try_from(month - 1).ok()?;
    let length = *lengths.get(month)?;
    if parts.next().is_some() || !(1970..=9999).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    let before = year - 1;
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leaps(before) - leaps(1969);
    Some(years + lengths[..month].iter().sum::<i64>() + day - 1)
}

fn number(text: &str) -> Option<i64> {
    let is_number = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_that_people_write() {
        // 2026-11-30 12:00:00 UTC, an hour behind local time.
        let (now, offset) = (1_796_040_000_u64, 3600);
        let at = |text: &str| time(text, now * 1_000_000_000, offset).map(|at| at / 1_000_000_000);
        for (text, expected) in [
            ("2h", now - 7200),
            ("3d", now - 3 * 86_400),
            ("03:12", 1_796_004_720),
            ("03:12Z", 1_796_008_320),
            ("23:00", 1_795_989_600),
            ("13:00:00", now),
            ("13:00:01", now + 1 - 86_400),
            ("2026-11-30", 1_795_993_200),
            ("2026-11-30 03:12", 1_796_004_720),
            ("2026-11-30T03:12:30Z", 1_796_008_350),
            ("2024-02-29T00:00Z", 1_709_164_800),
            ("1970-01-01T00:00Z", 0),
        ] {
            assert_eq!(at(text), Ok(expected), "{text}");
        }
        for wrong in
            ["", "3", "24:00", "3:60", "2026-02-29", "2026-13-01", "2026-11-30 x", "-2h", "1:2:3:4"]
        {
            assert!(at(wrong).is_err(), "{wrong}: {:?}", at(wrong));
        }
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(size("200M"), Ok(200 << 20));
        assert_eq!(long("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["200", "1K", "M", "1X", "99999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        for wrong in ["7", "d", "0d", "1y", "99999w"] {
            assert!(long(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn metrics_are_at_an_address_or_a_path() {
        assert_eq!(
            metrics("127.0.0.1:9469"),
            Ok(MetricsAt::Tcp("127.0.0.1:9469".parse().unwrap()))
        );
        assert_eq!(metrics("unix:/run/m"), Ok(MetricsAt::Unix("/run/m".into())));
        assert!(
            metrics("localhost:1").is_err()
                && metrics("unix:").is_err()
                && metrics("9469").is_err()
        );
    }
}
