//! One screen as text: for documents, scripts and tests.

use std::io::Write;

use crossterm::event::{KeyEvent, KeyEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::super::Failure;
use super::source::NodeSource;
use super::{Stopwatch, asking, rows};
use crate::exit::Exit;
use crate::view::tui::config::Config;
use crate::view::tui::keys::KeyPress;
use crate::view::tui::state::ports::Differ;
use crate::view::tui::state::{Effect, Message, Mode, State};
use crate::view::tui::{Depth, render};

/// Prints the screen after some keys.
pub(super) fn print(
    source: &NodeSource,
    config: Config,
    size: (u16, u16),
    keys: &[String],
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let parse = |key: &String| KeyPress::parse(key).map_err(Failure::Usage);
    let keys: Vec<KeyPress> = keys.iter().map(parse).collect::<Result<_, _>>()?;
    let env = |name: &str| std::env::var(name).ok();
    let unicode = crate::view::Style::detect(Default::default(), false, env, None).unicode;
    let mut state = State::new(config, Depth::None, unicode, size);
    if source.recorded_at().is_some() {
        state.mode = Mode::Replay;
    }
    let watch = Stopwatch::new(source);
    let node = source.open().map_err(Failure::Tool)?;
    let (delta, readout) = rows::whole(&*node, &state.style, &mut Differ::default());
    let mut now = watch.now();
    let effects = state.update(Message::Rows(delta, Box::new(readout)), now);
    perform(source, &mut state, effects, now)?;
    for key in keys {
        let key = KeyEvent { kind: KeyEventKind::Press, ..key.event() };
        let effects = state.update(Message::Key(key), now);
        perform(source, &mut state, effects, now)?;
        // As if it had been pressed a moment later: what waits for that is done.
        now.now += 1_000;
        let effects = state.update(Message::Tick, now);
        perform(source, &mut state, effects, now)?;
    }
    let mut buffer = Buffer::empty(Rect::new(0, 0, size.0, size.1));
    render::draw(&state, &mut buffer);
    out.write_all(text(&buffer).as_bytes())?;
    Ok(Exit::Found)
}

fn perform(
    source: &NodeSource,
    state: &mut State,
    effects: Vec<Effect>,
    now: crate::view::tui::state::ports::Clock,
) -> Result<(), Failure> {
    for effect in effects {
        if let Effect::Ask(question) = effect {
            let answered = asking::answer(source, &question).map_err(Failure::Tool)?;
            state.update(Message::Answer(Box::new(answered)), now);
        }
    }
    Ok(())
}

/// What is on a screen, without spaces at the ends of lines.
fn text(buffer: &Buffer) -> String {
    let area = buffer.area();
    let mut text = String::new();
    for y in area.y..area.bottom() {
        let mut line = String::new();
        let mut covered = 0;
        for x in area.x..area.right() {
            let Some(cell) = buffer.cell((x, y)) else { continue };
            // A wide character covers the cell behind it.
            if covered > 0 {
                covered -= 1;
                continue;
            }
            line.push_str(cell.symbol());
            covered = crate::view::columns(cell.symbol()).saturating_sub(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
