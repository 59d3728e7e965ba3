//! The screen's loop: whatever comes first of keys, signals, facts and time.

use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream};
use futures_util::StreamExt as _;
use ratatui::Terminal;
use ratatui::layout::Rect;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::super::Failure;
use super::source::Source;
use super::terminal::{self, Backend};
use super::{Watch, asking, rows, watching};
use crate::cli::TuiArgs;
use crate::exit::Exit;
use crate::view::tui::config::Config;
use crate::view::tui::state::{Effect, Message, Mode, Question, State};
use crate::view::tui::{Depth, render};

/// The shortest time between two frames that no key asked for.
const FRAME: Duration = Duration::from_millis(50);
/// How often time is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often the ages on an otherwise idle screen are drawn.
const AGES: Duration = Duration::from_secs(1);

/// Shows the screen until it is ended.
pub(super) fn run(
    source: &Source,
    config: Config,
    looks: (Depth, bool),
    args: &TuiArgs,
) -> Result<Exit, Failure> {
    let source = &source.watching();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Tool(format!("starting: {error}")))?;
    terminal::on_panic();
    let mouse = config.mouse;
    let taken = terminal::Taken;
    let size = crossterm::terminal::size().unwrap_or((80, 24));
    let mut state = State::new(config, looks.0, looks.1, size);
    if source.recorded_at().is_some() {
        state.mode = Mode::Replay;
    }
    let ended = runtime.block_on(async {
        terminal::take(mouse)?;
        let backend = Backend::new(BufWriter::with_capacity(64 * 1024, io::stdout()));
        let (sender, messages) = tokio::sync::mpsc::unbounded_channel();
        let mut screen = Screen {
            terminal: Terminal::new(backend)?,
            watch: Watch::new(source),
            readers: Readers::start(source, &state, &sender, args),
            messages,
            state,
            drawn: Instant::now(),
            mouse,
        };
        screen.show().await
    });
    drop(taken);
    // A terminal that went away takes its screen with it.
    match ended {
        Ok(()) => Ok(Exit::Found),
        Err(error) if is_lost(&error) => Ok(Exit::Found),
        Err(error) => Err(Failure::Tool(format!("the terminal: {error}"))),
    }
}

fn is_lost(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(libc::EIO)
}

/// The threads that read.
struct Readers {
    rows: Sender<rows::Wanted>,
    asking: Sender<Question>,
}

impl Readers {
    fn start(
        source: &Source,
        state: &State,
        out: &UnboundedSender<Message>,
        args: &TuiArgs,
    ) -> Self {
        let style = state.style;
        let (rows, wanted) = std::sync::mpsc::channel();
        let (asking, asked) = std::sync::mpsc::channel();
        let ebpf = !args.no_ebpf;
        let (loading, loaded) = std::sync::mpsc::channel();
        let (of, to) = (source.clone(), out.clone());
        std::thread::spawn(move || rows::run(&of, ebpf, style, &loaded, &wanted, &to));
        let (of, to) = (source.clone(), out.clone());
        std::thread::spawn(move || asking::run(&of, &asked, &to));
        if let Source::Live(_) = source {
            let (to, changed) = (out.clone(), rows.clone());
            let interval = args.interval;
            std::thread::spawn(move || {
                let run = || watching::run(interval, ebpf, style, loading, &changed, &to);
                if let Err(why) = super::caught(run) {
                    let _ = to.send(Message::Failed(format!("nothing is watched: {why}")));
                }
            });
        }
        Self { rows, asking }
    }
}

struct Screen {
    terminal: Terminal<Backend>,
    state: State,
    watch: Watch,
    readers: Readers,
    messages: UnboundedReceiver<Message>,
    drawn: Instant,
    mouse: bool,
}

/// The signals that end or stop the screen.
struct Signals {
    ends: [Signal; 3],
    stop: Signal,
    goes_on: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            ends: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            ],
            stop: signal(SignalKind::from_raw(libc::SIGTSTP))?,
            goes_on: signal(SignalKind::from_raw(libc::SIGCONT))?,
        })
    }
}

impl Screen {
    async fn show(&mut self) -> io::Result<()> {
        let mut signals = Signals::new()?;
        let mut keys = EventStream::new();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        // A frame that is due, because something has changed.
        let mut due = true;
        self.draw()?;
        loop {
            let [term, int, hup] = &mut signals.ends;
            let mut at_once = false;
            let effects = tokio::select! {
                // Keys first, whatever else there is.
                biased;
                key = keys.next() => {
                    at_once = true;
                    match key {
                        Some(Ok(event)) => self.key(event),
                        Some(Err(error)) => return Err(error),
                        None => return Ok(()),
                    }
                }
                _ = term.recv() => return Ok(()),
                _ = int.recv() => return Ok(()),
                _ = hup.recv() => return Ok(()),
                _ = signals.stop.recv() => vec![Effect::Suspend],
                _ = signals.goes_on.recv() => vec![Effect::Redraw],
                Some(message) = self.messages.recv() => {
                    due = true;
                    let mut effects = self.update(message);
                    while let Ok(message) = self.messages.try_recv() {
                        effects.extend(self.update(message));
                    }
                    effects
                }
                _ = ticks.tick() => self.update(Message::Tick),
            };
            for effect in effects {
                at_once |= matches!(effect, Effect::Redraw | Effect::Suspend);
                if self.perform(effect).await? {
                    return Ok(());
                }
            }
            let since = self.drawn.elapsed();
            if at_once || (due && since >= FRAME) || since >= AGES {
                due = false;
                self.draw()?;
            }
        }
    }

    fn update(&mut self, message: Message) -> Vec<Effect> {
        self.state.update(message, self.watch.now())
    }

    fn key(&mut self, event: Event) -> Vec<Effect> {
        let message = match event {
            Event::Key(key) => Message::Key(key),
            Event::Mouse(mouse) => Message::Mouse(mouse),
            Event::Paste(text) => Message::Paste(text),
            Event::Resize(width, height) => Message::Resize(width, height),
            Event::FocusGained | Event::FocusLost => return Vec::new(),
        };
        self.update(message)
    }

    fn draw(&mut self) -> io::Result<()> {
        self.drawn = Instant::now();
        let state = &self.state;
        self.terminal.draw(|frame| {
            if let Some(cursor) = render::draw(state, frame.buffer_mut()) {
                frame.set_cursor_position(cursor);
            }
        })?;
        Ok(())
    }

    /// Does what the screen wants. Whether it is to end.
    async fn perform(&mut self, effect: Effect) -> io::Result<bool> {
        match effect {
            Effect::Quit => return Ok(true),
            Effect::Ask(question) => {
                let _ = self.readers.asking.send(question);
            }
            Effect::Refresh => {
                let _ = self.readers.rows.send(rows::Wanted::Whole);
            }
            Effect::Copy(text) => terminal::copy(&text)?,
            Effect::Export { name, text } => {
                // A disk can be slow.
                let said = tokio::task::spawn_blocking(move || export(&name, &text)).await;
                let said = said.unwrap_or_else(|error| error.to_string());
                return self.say(said);
            }
            Effect::Redraw => self.begin_anew()?,
            Effect::Suspend => {
                terminal::give_back();
                // It goes on here when it is continued.
                let _ = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::STOP,
                );
                self.begin_anew()?;
            }
        }
        Ok(false)
    }

    /// Takes the terminal and draws all of it, whatever is on it.
    fn begin_anew(&mut self) -> io::Result<()> {
        terminal::take(self.mouse)?;
        let (width, height) = crossterm::terminal::size()?;
        self.update(Message::Resize(width, height));
        // Its `clear` would ask the terminal where the cursor is, and wait for an answer.
        self.terminal.resize(Rect::new(0, 0, width, height))
    }

    fn say(&mut self, text: String) -> io::Result<bool> {
        self.update(Message::Say(text));
        Ok(false)
    }
}

/// Writes a new file, never over another one, and says what came of it.
fn export(name: &str, text: &str) -> String {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(name);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => format!("written to {name}"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            format!("{name} is there already: :export OTHER-NAME")
        }
        Err(error) => format!("can't write {name}: {error}"),
    }
}
