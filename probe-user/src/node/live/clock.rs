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
