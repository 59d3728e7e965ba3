//! Makes frames: what has changed on the screen since the last one, as bytes for the terminal.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use crossterm::queue;
use crossterm::terminal::{Clear, ClearType};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};

use crate::view::tui::render;
use crate::view::tui::state::State;

/// The bytes of a frame that is being made.
#[derive(Debug, Clone, Default)]
struct FrameBytes(Rc<RefCell<Vec<u8>>>);

impl Write for FrameBytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A screen of one size, and what was drawn on it last.
pub(super) struct Canvas {
    terminal: Terminal<CrosstermBackend<FrameBytes>>,
    bytes: FrameBytes,
}

impl Canvas {
    /// An empty one: its first frame is all of the screen, whatever was there.
    pub(super) fn new((columns, lines): (u16, u16)) -> io::Result<Self> {
        let mut bytes = FrameBytes::default();
        queue!(bytes, Clear(ClearType::All))?;
        // Of a fixed size it never asks the terminal, and waits for an answer.
        let options =
            TerminalOptions { viewport: Viewport::Fixed(Rect::new(0, 0, columns, lines)) };
        let terminal = Terminal::with_options(CrosstermBackend::new(bytes.clone()), options)?;
        Ok(Self { terminal, bytes })
    }

    /// The next frame.
    pub(super) fn draw(&mut self, state: &State) -> io::Result<Vec<u8>> {
        self.terminal.draw(|frame| {
            if let Some(cursor) = render::draw(state, frame.buffer_mut()) {
                frame.set_cursor_position(cursor);
            }
        })?;
        Ok(self.bytes.0.take())
    }
}
