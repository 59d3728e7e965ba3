//! The terminal: taken, and given back as it was, whatever ends the screen.

use std::io::{self, BufWriter, Stdout, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use crossterm::cursor::Show;
use crossterm::event::{
    DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture,
};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::backend::CrosstermBackend;

/// The longest text that goes into a clipboard: terminals drop longer ones.
const LONGEST: usize = 74_000;

/// Whether the terminal is taken: it is given back once.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What a screen is drawn with: each frame is one write.
pub(super) type Backend = CrosstermBackend<BufWriter<Stdout>>;

/// Takes the terminal: raw, the other screen, the mouse if it is wanted.
pub(super) fn take(mouse: bool) -> io::Result<()> {
    TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
    if mouse {
        execute!(io::stdout(), EnableMouseCapture)?;
    }
    Ok(())
}

/// Gives it back. What fails does not keep the rest from being tried.
pub(super) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), DisableMouseCapture, DisableBracketedPaste);
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Gives the terminal back when it is dropped.
#[derive(Debug)]
pub(super) struct Taken;

impl Drop for Taken {
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

/// Puts text into the clipboard by OSC 52, as far as the terminal allows it.
pub(super) fn copy(text: &str) -> io::Result<()> {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(text.get(..end).unwrap_or(text));
    let mut out = io::stdout();
    write!(out, "\u{1b}]52;c;{encoded}\u{7}")?;
    out.flush()
}
