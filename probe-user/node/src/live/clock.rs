//! The time here: what the clock on this machine's wall shows.

/// How many seconds local time is ahead of UTC at `at`, in seconds since the
/// epoch, by `TZ` or `/etc/localtime`. `None` when that can't be told.
pub fn local_offset(at: u64) -> Option<i64> {
    let at = libc::time_t::try_from(at).ok()?;
    let mut local = std::mem::MaybeUninit::<libc::tm>::uninit();
    #[expect(unsafe_code, reason = "no safe call tells the local time")]
    // SAFETY: localtime_r reads the first and writes all of the second, unless it
    // returns null. It reads the environment, which this program never changes.
    let local = unsafe {
        if libc::localtime_r(&raw const at, local.as_mut_ptr()).is_null() {
            return None;
        }
        local.assume_init()
    };
    Some(local.tm_gmtoff)
}

/// Now, by both clocks.
pub fn moment() -> whereis_port_model::Moment {
    use rustix::time::{ClockId, clock_gettime};
    let nanoseconds = |clock| {
        let time = clock_gettime(clock);
        let all = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        u64::try_from(all).unwrap_or(0)
    };
    let (mono, wall) = (nanoseconds(ClockId::Boottime), nanoseconds(ClockId::Realtime));
    whereis_port_model::Moment { mono, wall }
}

/// Which boot of the kernel this is: the same text until the next one.
///
/// # Errors
/// When procfs does not tell.
pub fn boot_id() -> std::io::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let read = super::files::read(rustix::fs::CWD, path, super::files::SMALL)?;
    Ok(read.text().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_that_of_some_place_on_earth() {
        let offset = local_offset(1_700_000_000).unwrap();
        assert!((-12 * 3600..=14 * 3600).contains(&offset), "{offset}");
        assert_eq!(local_offset(u64::MAX), None);
    }
}
