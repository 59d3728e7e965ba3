//! What one thread wants of another.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A place for one wish. One that comes while another waits is merged with it, so that
/// wishes never pile up, however long nobody takes them.
#[derive(Debug)]
pub(super) struct Slot<T>(Arc<(Mutex<Option<T>>, Condvar)>);

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Arc::new((Mutex::new(None), Condvar::new())))
    }
}

impl<T> Slot<T> {
    /// Puts what `merge` makes of the wish that waits, if one does.
    pub(super) fn put(&self, merge: impl FnOnce(Option<T>) -> T) {
        let (waiting, changed) = &*self.0;
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = waiting.take();
        *waiting = Some(merge(before));
        changed.notify_one();
    }

    /// Takes the wish; waits for one, but not longer than `timeout`.
    pub(super) fn take(&self, timeout: Duration) -> Option<T> {
        let (waiting, changed) = &*self.0;
        let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(waiting, timeout, |waiting| waiting.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_that_nobody_takes_become_one() {
        let slot = Slot::default();
        for number in 1..=1000 {
            slot.put(|waiting| waiting.unwrap_or(0) + number);
        }
        assert_eq!(slot.take(Duration::ZERO), Some(500_500));
        assert_eq!(slot.take(Duration::ZERO), None);
    }

    #[test]
    fn whoever_waits_gets_what_comes() {
        let slot = Slot::default();
        let other = slot.clone();
        let thread = std::thread::spawn(move || other.take(Duration::from_secs(60)));
        slot.put(|_| "a wish");
        assert_eq!(thread.join().unwrap(), Some("a wish"));
    }
}
