//! What goes to the terminal. A thread of its own writes it, for a terminal may stop taking
//! anything: the task that draws, and that hears signals and keys, never waits for it.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::Notify;

/// The most bytes of one write: what is not wanted any more ends behind it.
const PIECE: usize = 4096;

/// Writes to the terminal.
#[derive(Debug, Clone)]
pub(super) struct Output(Arc<SharedOutput>);

/// What the thread that writes and the one that draws share.
#[derive(Debug, Default)]
struct SharedOutput {
    state: Mutex<OutputState>,
    /// For the thread, and for who waits for it.
    changed: Condvar,
    /// For the task.
    written: Notify,
}

/// What is to be written, and how writing goes.
#[derive(Debug, Default)]
struct OutputState {
    next: Vec<u8>,
    writing: bool,
    /// Whether what is being written is not wanted any more.
    cut: bool,
    failed: Option<io::Error>,
}

impl Output {
    /// Starts the thread, which writes to standard output.
    ///
    /// # Errors
    /// When there can't be one.
    pub(super) fn start() -> io::Result<Self> {
        Self::to(File::from(io::stdout().as_fd().try_clone_to_owned()?))
    }

    fn to(terminal: File) -> io::Result<Self> {
        let output = Self(Arc::default());
        let shared = Arc::clone(&output.0);
        let thread = std::thread::Builder::new().name("terminal".to_owned());
        thread.spawn(move || shared.run(&terminal))?;
        Ok(output)
    }

    /// Whether all that was given has been taken. A frame is made only then, so that not
    /// more than one ever waits.
    pub(super) fn is_idle(&self) -> bool {
        self.0.state().is_idle()
    }

    /// Waits until something was taken, or failed.
    pub(super) async fn written(&self) {
        self.0.written.notified().await;
    }

    /// Why the terminal takes nothing any more, told once.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.0.state().failed.take()
    }

    /// Writes bytes, behind those that wait.
    pub(super) fn write(&self, bytes: &[u8]) {
        self.0.state().next.extend_from_slice(bytes);
        self.0.changed.notify_all();
    }

    /// Writes bytes in place of those that wait, and of the rest of what is being written.
    pub(super) fn write_last(&self, bytes: &[u8]) {
        let mut state = self.0.state();
        state.next.clear();
        if state.writing {
            state.cut = true;
            // The end of a sequence that may have been cut, and of its colours.
            state.next.extend_from_slice(b"\x1b\\\x1b[0m");
        }
        state.next.extend_from_slice(bytes);
        self.0.changed.notify_all();
    }

    /// Waits until all has been taken, but not longer than `timeout`. Whether it has.
    pub(super) fn settle(&self, timeout: Duration) -> bool {
        let state = self.0.state();
        let waited = self.0.changed.wait_timeout_while(state, timeout, |state| !state.is_idle());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_idle()
    }
}

impl OutputState {
    fn is_idle(&self) -> bool {
        self.next.is_empty() && !self.writing
    }
}

impl SharedOutput {
    fn state(&self) -> MutexGuard<'_, OutputState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, terminal: &File) {
        loop {
            let waited = self.changed.wait_while(self.state(), |state| state.next.is_empty());
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            let bytes = std::mem::take(&mut state.next);
            (state.writing, state.cut) = (true, false);
            drop(state);
            let mut pieces = bytes.chunks(PIECE);
            let failed = pieces.try_for_each(|piece| {
                // Not locked while it is written.
                let cut = self.state().cut;
                if cut { Ok(()) } else { write(terminal, piece) }
            });
            let mut state = self.state();
            state.writing = false;
            state.failed = failed.err().or(state.failed.take());
            drop(state);
            self.changed.notify_all();
            self.written.notify_one();
        }
    }
}

/// Writes all of it, however long that takes.
fn write(mut terminal: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match terminal.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another program that has the same terminal open may have asked for that.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(terminal, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A terminal that is a pipe, and its other end.
    fn pipe() -> (Output, File) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        (Output::to(File::from(writer)).unwrap(), File::from(reader))
    }

    fn read_to(end: &mut File, last: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while !all.ends_with(last) {
            let length = end.read(&mut buffer).unwrap();
            assert_ne!(length, 0);
            all.extend_from_slice(&buffer[..length]);
        }
        all
    }

    #[test]
    fn what_is_taken_comes_in_order() {
        let (output, mut end) = pipe();
        output.write(b"one ");
        output.write(b"two");
        assert!(output.settle(LONG) && output.is_idle());
        assert_eq!(read_to(&mut end, b"two"), b"one two");
        assert!(output.failure().is_none());
    }

    #[test]
    fn the_last_words_take_the_place_of_what_is_not_taken() {
        let (output, mut end) = pipe();
        // Far more than a pipe holds.
        output.write(&vec![b'x'; 4 << 20]);
        assert!(!output.settle(Duration::from_millis(50)), "nobody has read it");
        output.write(b"a second frame");
        output.write_last(b"the end");
        let all = read_to(&mut end, b"the end");
        assert!(all.len() < 1 << 20, "{} bytes were written", all.len());
        assert!(all.ends_with(b"x\x1b\\\x1b[0mthe end"));
        assert!(output.settle(LONG));
    }

    #[test]
    fn a_terminal_that_went_away_is_told() {
        let (output, end) = pipe();
        drop(end);
        output.write(b"x");
        assert!(output.settle(LONG));
        assert_eq!(output.failure().unwrap().kind(), io::ErrorKind::BrokenPipe);
    }
}
