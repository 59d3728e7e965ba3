//! The screen's loop: whatever comes first of keys, signals, facts and time.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::thread;
use std::time::{Duration, Instant};

use crossterm::event::Event;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::super::Failure;
use super::canvas::Canvas;
use super::output::Output;
use super::slot::Slot;
use super::source::NodeSource;
use super::terminal;
use super::{Stopwatch, asking, rows, watching};
use crate::cli::TuiArgs;
use crate::exit::Exit;
use crate::node;
use crate::view::tui::Depth;
use crate::view::tui::config::Config;
use crate::view::tui::state::{Effect, Message, Mode, Question, State};

/// The shortest time between two frames that no key asked for.
const FRAME: Duration = Duration::from_millis(50);
/// How often time is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often the ages on an otherwise idle screen are drawn.
const AGES: Duration = Duration::from_secs(1);

/// How many messages, and how many keys, may wait: who has more waits with them.
const WAITING: usize = 64;

/// Shows the screen until it is ended.
pub(super) fn run(
    source: &NodeSource,
    config: Config,
    looks: (Depth, bool),
    args: &TuiArgs,
) -> Result<Exit, Failure> {
    let source = &source.watching();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Tool(format!("starting: {error}")))?;
    terminal::on_panic();
    let mut state = State::new(config, looks.0, looks.1, terminal::size());
    if source.recorded_at().is_some() {
        state.mode = Mode::Replay;
    }
    // Before the terminal is taken: it may be that no thread can be had.
    let (sender, messages) = mpsc::channel(WAITING);
    let threads = Threads::start(source, &state, &sender, args);
    let threads = threads.map_err(|error| Failure::Tool(no_thread("the screen", &error)))?;
    let taken = terminal::TerminalGuard;
    let ended = runtime.block_on(async {
        // Before the terminal is taken: from then on a signal must give it back.
        let signals = Signals::new()?;
        terminal::take(&threads.output, state.config.mouse)?;
        let mut screen = Screen {
            canvas: Canvas::new(state.size)?,
            watch: Stopwatch::new(source),
            threads,
            sender,
            messages,
            state,
            drawn: Instant::now(),
            copied: Vec::new(),
        };
        screen.show(signals).await
    });
    drop(taken);
    // A terminal that went away takes its screen with it.
    match ended {
        Ok(()) => Ok(Exit::Found),
        Err(error) if is_lost(&error) => Ok(Exit::Found),
        Err(error) => Err(Failure::Tool(format!("the terminal: {error}"))),
    }
}

/// Says that something needs a thread that can't be had, and why that may be.
fn no_thread(what: &str, error: &io::Error) -> String {
    format!(
        "{what} needs a thread that can't be started: {error}; see ulimit -u, and pids.max of the cgroup"
    )
}

fn is_lost(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(libc::EIO)
}

/// The threads of the screen, from its side.
struct Threads {
    rows: Slot<rows::RowsRequest>,
    asking: Slot<Question>,
    keys: Receiver<io::Result<Event>>,
    output: Output,
}

impl Threads {
    /// Starts them. All of them, and the one that calls this, keep only rights for reading;
    /// those that load programs give up the rest when they have.
    ///
    /// # Errors
    /// When one can't be started without which there is no screen.
    fn start(
        source: &NodeSource,
        state: &State,
        out: &Sender<Message>,
        args: &TuiArgs,
    ) -> io::Result<Self> {
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let style = state.style;
        let (rows, asking) = (Slot::default(), Slot::default());
        let ebpf = !args.no_ebpf;
        let (loading, loaded) = std::sync::mpsc::channel();
        let (of, wanted, to) = (source.clone(), rows.clone(), out.clone());
        named("rows").spawn(move || rows::run(&of, ebpf, style, &loaded, &wanted, &to))?;
        if let NodeSource::Live(_) = source {
            let (to, changed) = (out.clone(), rows.clone());
            let interval = args.interval;
            let started = named("watching").spawn(move || {
                let run = || watching::run(interval, ebpf, style, loading, &changed, &to);
                if let Err(why) = super::caught(run) {
                    let _ = to.blocking_send(Message::Failed(format!("nothing is watched: {why}")));
                }
            });
            // What is there is read now and then all the same.
            if let Err(error) = started {
                let _ = out.try_send(Message::Failed(no_thread("watching", &error)));
            }
        }
        node::drop_rights();
        let (of, asked, to) = (source.clone(), asking.clone(), out.clone());
        named("asking").spawn(move || asking::run(&of, &asked, &to))?;
        let (to, keys) = mpsc::channel(WAITING);
        named("keys").spawn(move || read_keys(&to))?;
        Ok(Self { rows, asking, keys, output: Output::start()? })
    }
}

/// Reads keys and what else the terminal tells, until it fails. Not `EventStream`, which
/// panics without a thread, and never comes back from a terminal that was hung up.
fn read_keys(to: &Sender<io::Result<Event>>) {
    loop {
        let event = crossterm::event::read();
        let failed = event.is_err();
        if to.blocking_send(event).is_err() || failed {
            return;
        }
    }
}

struct Screen {
    canvas: Canvas,
    state: State,
    watch: Stopwatch,
    threads: Threads,
    sender: Sender<Message>,
    messages: Receiver<Message>,
    drawn: Instant,
    /// What goes to the clipboard with the next frame.
    copied: Vec<u8>,
}

/// The signals that end or stop the screen.
struct Signals {
    ends: [Signal; 4],
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
                signal(SignalKind::quit())?,
            ],
            stop: signal(SignalKind::from_raw(libc::SIGTSTP))?,
            goes_on: signal(SignalKind::from_raw(libc::SIGCONT))?,
        })
    }
}

impl Screen {
    async fn show(&mut self, mut signals: Signals) -> io::Result<()> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        // A frame that is due, because something has changed, and one that is not to wait.
        let mut due = true;
        let mut at_once = true;
        loop {
            let since = self.drawn.elapsed();
            let now = at_once || (due && since >= FRAME) || since >= AGES;
            // While the terminal takes nothing, nothing is drawn.
            if now && terminal::is_taken() && self.threads.output.is_idle() {
                (due, at_once) = (false, false);
                self.draw()?;
            }
            if let Some(error) = self.threads.output.failure() {
                return Err(error);
            }
            let [term, int, hup, quit] = &mut signals.ends;
            let effects = tokio::select! {
                // Whoever ends it and keys first, whatever else there is.
                biased;
                _ = term.recv() => return Ok(()),
                _ = int.recv() => return Ok(()),
                _ = hup.recv() => return Ok(()),
                _ = quit.recv() => return Ok(()),
                key = self.threads.keys.recv() => {
                    at_once = true;
                    match key {
                        Some(Ok(event)) => self.key(event)?,
                        Some(Err(error)) => return Err(error),
                        None => return Ok(()),
                    }
                }
                _ = signals.stop.recv() => vec![Effect::Suspend],
                _ = signals.goes_on.recv() => vec![Effect::Redraw],
                () = self.threads.output.written() => Vec::new(),
                Some(message) = self.messages.recv() => {
                    due = true;
                    let mut effects = self.update(message);
                    // Not for ever: more may come all the time.
                    for _ in 0..WAITING {
                        let Ok(message) = self.messages.try_recv() else { break };
                        effects.extend(self.update(message));
                    }
                    effects
                }
                _ = ticks.tick() => self.update(Message::Tick),
            };
            for effect in effects {
                at_once |= matches!(effect, Effect::Redraw);
                if self.perform(effect)? {
                    return Ok(());
                }
            }
        }
    }

    fn update(&mut self, message: Message) -> Vec<Effect> {
        self.state.update(message, self.watch.now())
    }

    fn key(&mut self, event: Event) -> io::Result<Vec<Effect>> {
        let message = match event {
            Event::Key(key) => Message::Key(key),
            Event::Mouse(mouse) => Message::Mouse(mouse),
            Event::Paste(text) => Message::Paste(text),
            Event::Resize(width, height) => return self.resize((width, height)),
            Event::FocusGained | Event::FocusLost => return Ok(Vec::new()),
        };
        Ok(self.update(message))
    }

    /// Draws all of the screen anew, in a size.
    fn resize(&mut self, size: (u16, u16)) -> io::Result<Vec<Effect>> {
        let (width, height) = terminal::limited(size);
        self.canvas = Canvas::new((width, height))?;
        Ok(self.update(Message::Resize(width, height)))
    }

    fn draw(&mut self) -> io::Result<()> {
        self.drawn = Instant::now();
        let mut bytes = std::mem::take(&mut self.copied);
        bytes.extend(self.canvas.draw(&self.state)?);
        self.threads.output.write(&bytes);
        Ok(())
    }

    /// Does what the screen wants, without waiting for anything. Whether it is to end.
    fn perform(&mut self, effect: Effect) -> io::Result<bool> {
        match effect {
            Effect::Quit => return Ok(true),
            Effect::Ask(question) => self.threads.asking.put(|_| question),
            Effect::Refresh => self.threads.rows.put(|_| rows::RowsRequest::Whole),
            Effect::Copy(text) => self.copied = terminal::copy(&text),
            Effect::Export { name, text } => {
                let to = self.sender.clone();
                // A disk can be slow.
                let thread = thread::Builder::new().name("export".to_owned());
                let started = thread.spawn(move || {
                    let _ = to.blocking_send(Message::Say(export(&name, &text)));
                });
                if let Err(error) = started {
                    self.update(Message::Say(no_thread("a file", &error)));
                }
            }
            Effect::Redraw => {
                terminal::take(&self.threads.output, self.state.config.mouse)?;
                for effect in self.resize(terminal::size())? {
                    self.perform(effect)?;
                }
            }
            Effect::Suspend => {
                terminal::give_back();
                // The terminal is taken again when it hears that it goes on, unless it is to end.
                let _ = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::STOP,
                );
            }
        }
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
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => format!(
            "can't write {name}: {error}; the screen keeps only rights for reading: \
             :export /DIRECTORY-OF-YOUR-OWN/NAME"
        ),
        Err(error) => format!("can't write {name}: {error}"),
    }
}
