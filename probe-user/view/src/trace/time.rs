//! Times as text.

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
/// Seconds in a day.
const DAY: i64 = 86_400;

/// The time of day with milliseconds, `offset` seconds ahead of UTC; in UTC, and
/// marked so, where there is no offset.
pub(super) fn clock(at: u64, offset: Option<i64>) -> String {
    let (seconds, millis) = (at / SECOND, at % SECOND / 1_000_000);
    let local = i64::try_from(seconds).unwrap_or(0) + offset.unwrap_or(0);
    let (hour, minute, second) = of_day(local);
    let mark = if offset.is_none() { "Z" } else { "" };
    format!("{hour:02}:{minute:02}:{second:02}.{millis:03}{mark}")
}

/// Date and time to the second, `offset` seconds ahead of UTC; in UTC, and marked so, where
/// there is no offset.
pub(crate) fn local(at: u64, offset: Option<i64>) -> String {
    let seconds = i64::try_from(at / SECOND).unwrap_or(0) + offset.unwrap_or(0);
    let (hour, minute, second) = of_day(seconds);
    let mark = if offset.is_none() { "Z" } else { "" };
    format!("{} {hour:02}:{minute:02}:{second:02}{mark}", day(seconds))
}

/// Date and time as RFC 3339 has them, in UTC with nanoseconds.
pub(crate) fn rfc3339(at: u64) -> String {
    let seconds = i64::try_from(at / SECOND).unwrap_or(0);
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let (hour, minute, second) = of_day(seconds);
    let nanos = at % SECOND;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// The day of a time in seconds, in UTC.
pub(crate) fn day(at: i64) -> String {
    let (year, month, day) = date(at.div_euclid(DAY));
    format!("{year:04}-{month:02}-{day:02}")
}

fn of_day(seconds: i64) -> (i64, i64, i64) {
    let of_day = seconds.rem_euclid(DAY);
    (of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// Year, month and day of a count of days since 1970-01-01. Years are counted
/// from March, in eras of 400, so that the leap day is the last of its year.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // As `date -u -d @N +%FT%T` has them.
        for (at, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_700_000_000, "2023-11-14T22:13:20"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(rfc3339(at * SECOND), format!("{expected}.000000000Z"));
        }
        assert!(rfc3339(1_700_000_000 * SECOND + 5).ends_with("20.000000005Z"));
        assert!(!rfc3339(u64::MAX).is_empty());
    }

    #[test]
    fn the_clock_is_local_or_says_that_it_is_not() {
        let at = 1_700_000_000 * SECOND + 42_000_000;
        assert_eq!(clock(at, Some(3600)), "23:13:20.042");
        assert_eq!(clock(at, Some(-23 * 3600)), "23:13:20.042");
        assert_eq!(clock(at, None), "22:13:20.042Z");
        assert_eq!(clock(0, Some(-3600)), "23:00:00.000");
    }
}
