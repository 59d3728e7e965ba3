//! The terminal: taken, and given back as it was, whatever ends the screen.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use crossterm::cursor::Show;
use crossterm::event::{
    DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture,
};
use crossterm::queue;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use rustix::termios::{QueueSelector, tcflush};

use super::output::Output;

/// The longest text that goes into a clipboard: terminals drop longer ones.
const LONGEST: usize = 74_000;

/// The largest screen that is drawn: a terminal may claim any size, and each cell takes memory.
const LARGEST: (u16, u16) = (1000, 500);
/// How long a terminal may take for what it gets last, before what it has not taken is
/// thrown away.
const PATIENCE: Duration = Duration::from_millis(250);

/// What writes to the terminal while it is taken: it is given back once.
static TAKEN: Mutex<Option<Output>> = Mutex::new(None);

/// Takes the terminal: raw, the other screen, the mouse if it is wanted.
pub(super) fn take(output: &Output, mouse: bool) -> io::Result<()> {
    *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(output.clone());
    enable_raw_mode()?;
    let mut first = Vec::new();
    queue!(first, EnterAlternateScreen, EnableBracketedPaste)?;
    if mouse {
        queue!(first, EnableMouseCapture)?;
    }
    output.write(&first);
    Ok(())
}

/// Whether it is taken.
pub(super) fn is_taken() -> bool {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Gives it back, whether or not it takes what it is told. What fails does not keep the
/// rest from being tried.
pub(super) fn give_back() {
    let Some(output) = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let mut last = Vec::new();
    let _ = queue!(last, DisableMouseCapture, DisableBracketedPaste, LeaveAlternateScreen, Show);
    output.write_last(&last);
    let taken = output.settle(PATIENCE);
    if !taken {
        let _ = tcflush(io::stdout(), QueueSelector::OFlush);
    }
    // This waits for nothing, and who waits for room to write looks again.
    let _ = disable_raw_mode();
    if !taken {
        output.settle(PATIENCE);
    }
}

/// Its columns and lines, as far as a screen is drawn.
pub(super) fn size() -> (u16, u16) {
    // Not its `size`, which may run a program.
    crossterm::terminal::window_size().map_or((80, 24), |size| limited((size.columns, size.rows)))
}

/// As much of a size as is drawn.
pub(super) fn limited((columns, lines): (u16, u16)) -> (u16, u16) {
    (columns.min(LARGEST.0), lines.min(LARGEST.1))
}

/// Gives the terminal back when it is dropped.
#[derive(Debug)]
pub(super) struct TerminalGuard;

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        give_back();
    }
}

/// A panic gives the terminal back before it says anything. One of a thread that reads is
/// caught there, and said on the screen.
pub(super) fn on_panic() {
    let screen = std::thread::current().id();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == screen {
            give_back();
            usual(info);
        }
    }));
}

/// What puts text into the clipboard by OSC 52, as far as the terminal allows it.
pub(super) fn copy(text: &str) -> Vec<u8> {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(text.get(..end).unwrap_or(text));
    format!("\u{1b}]52;c;{encoded}\u{7}").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::tcgetattr;

    /// What [`a_panic_gives_the_terminal_back`] runs on a terminal of its own.
    #[test]
    #[ignore = "it panics: the test below runs it"]
    fn panicking() {
        super::on_panic();
        let taken = super::TerminalGuard;
        let output = super::Output::start().unwrap();
        super::take(&output, true).unwrap();
        assert!(output.settle(super::PATIENCE * 100), "what takes the terminal is not written");
        assert!(std::env::var_os("PANIC_ON_A_TERMINAL").is_none(), "a bug while drawing");
        drop(taken);
    }

    #[test]
    fn a_panic_gives_the_terminal_back() {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let open = || File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        // Kept open, so that what was written last can be read.
        let theirs = open();
        let before = tcgetattr(&theirs).unwrap();
        let stdio = || Stdio::from(OwnedFd::from(open()));
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "app::tui::terminal::tests::panicking", "--ignored", "--nocapture"])
            .args(["--test-threads", "1"])
            .env("PANIC_ON_A_TERMINAL", "1")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .status()
            .unwrap();
        assert!(!status.success());
        rustix::fs::fcntl_setfl(&ours, rustix::fs::OFlags::NONBLOCK).unwrap();
        let mut shown = Vec::new();
        let mut end = File::from(ours);
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = end.read(&mut buffer) {
            shown.extend_from_slice(&buffer[..length]);
        }
        let shown = String::from_utf8_lossy(&shown).into_owned();
        let at = |what: &str| shown.find(what).unwrap_or_else(|| panic!("no {what:?}: {shown:?}"));
        // Taken, left with everything that was asked of it undone, and only then the message.
        assert!(at("\u{1b}[?1049h") < at("\u{1b}[?1049l"), "{shown:?}");
        assert!(at("\u{1b}[?1000l") < at("a bug while drawing"), "{shown:?}");
        assert!(at("\u{1b}[?2004l") < at("a bug while drawing"), "{shown:?}");
        assert!(at("\u{1b}[?1049l") < at("a bug while drawing"), "{shown:?}");
        let after = tcgetattr(&theirs).unwrap();
        assert_eq!(
            (before.input_modes, before.output_modes, before.local_modes),
            (after.input_modes, after.output_modes, after.local_modes)
        );
    }
}
