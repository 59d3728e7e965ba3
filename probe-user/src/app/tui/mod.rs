//! The command `tui`: the screen on a terminal, the threads that read for it, and the
//! time. What is on the screen is decided in `view/tui`, which does no I/O.
//!
//! The node is read by threads of their own, so that the keys are never waited for:
//!
//! ```text
//!  rows      every port, all of them now and then, and those that events name  ──┐
//!  watching  what happens, as it happens                                        ─┼─▶ screen ─▶ output
//!  asking    the path of the port that is looked at                             ─┤
//!  keys      what the terminal tells                                            ─┘
//! ```
//!
//! Nothing between them grows without bound: whoever has more than may wait, waits.

mod asking;
mod canvas;
mod config;
mod output;
mod print;
mod rows;
mod screen;
mod slot;
mod source;
mod terminal;
mod watching;

use std::io::IsTerminal;
use std::io::Write;
use std::time::Instant;

use super::Failure;
use crate::cli::{ConfigCommand, Global, TuiArgs};
use crate::exit::Exit;
use crate::view::Style;
use crate::view::tui::Depth;
use crate::view::tui::state::ports::Clock;
use source::NodeSource;

/// Shows the screen until somebody ends it.
pub(super) fn run(global: &Global, args: &TuiArgs, out: &mut impl Write) -> Result<Exit, Failure> {
    if global.record.is_some() {
        return Err(Failure::Usage(
            "the screen can't be recorded: whereis-port list --record FILE records the node, and \
             whereis-port tui --replay FILE shows it"
                .to_owned(),
        ));
    }
    if global.json {
        return Err(Failure::Usage(
            "the screen has no JSON: whereis-port list --json prints what is on it".to_owned(),
        ));
    }
    let config = config::read(args.config.as_deref())?;
    let source = NodeSource::new(global, args.demo)?;
    let looks = looks(global);
    if let Some(size) = args.print {
        return print::print(&source, config, size, &args.keys, out);
    }
    if !args.keys.is_empty() {
        return Err(Failure::Usage("--keys belongs to --print: --print 80x24 --keys enter".into()));
    }
    if !is_terminal() {
        return Err(Failure::Usage(
            "the screen needs a terminal for input and output: whereis-port list prints the ports, \
             whereis-port tui --print 120x40 prints one screen"
                .to_owned(),
        ));
    }
    screen::run(&source, config, looks, args)
}

/// `config check` and `config example`.
pub(super) fn configure(command: &ConfigCommand, out: &mut impl Write) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Example => out.write_all(crate::view::tui::config::example().as_bytes())?,
        ConfigCommand::Check { file } => config::check(file.as_deref(), out)?,
    }
    Ok(Exit::Found)
}

/// Whether keys can be read and a screen be drawn.
pub(super) fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// How many colours the terminal has, and whether it shows more than ASCII.
fn looks(global: &Global) -> (Depth, bool) {
    let env = |name: &str| std::env::var(name).ok();
    let style = Style::detect(global.color, true, env, None);
    (Depth::detect(style.color, env), style.unicode)
}

/// The time since something began, and on the wall. A recorded node's clock stands still.
#[derive(Debug, Clone, Copy)]
struct Stopwatch {
    begun: Instant,
    stopped: Option<u64>,
}

impl Stopwatch {
    fn new(source: &NodeSource) -> Self {
        Self { begun: Instant::now(), stopped: source.recorded_at() }
    }

    fn now(self) -> Clock {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let wall = self.stopped.unwrap_or_else(|| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.map_or(0, |since| since.as_secs())
        });
        Clock { now, wall }
    }
}

/// Does something that may fail, and takes a bug in it for a failure: the screen goes on
/// with what it has.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let work = std::panic::AssertUnwindSafe(work);
    std::panic::catch_unwind(work).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
        Err(format!("a bug in whereis-port, please report it: {text}"))
    })
}
