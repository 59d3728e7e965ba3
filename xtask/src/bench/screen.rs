//! What the screen costs: at rest, and for each reading of the whole node.
//!
//! It runs in a terminal of this program, whose other end reads what it draws. Time is
//! that of its processor, user and system, as the kernel counts it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::node::{self, Node};

/// How many listeners there are.
const LISTENERS: [u16; 3] = [100, 1_000, 8_000];
/// For how long it is left alone.
const IDLE: Duration = Duration::from_secs(60);
/// How often the whole node is read, and how much time each reading has.
const READINGS: u32 = 100;
const EACH: Duration = Duration::from_millis(300);
/// When the node is read, all programs are loaded, and no age is told in seconds any more.
const SETTLE: Duration = Duration::from_secs(70);
/// Readings of everything, in the view of sources, without spaces.
const WHOLE: &str = "readingsofthewholenode";

/// What was measured with some listeners.
#[derive(Debug)]
pub(crate) struct OfScreen {
    listeners: u16,
    /// Milliseconds of processor for one reading of everything.
    reading: f64,
    /// Milliseconds of processor for one look for changes, with all that a screen at rest
    /// does beside that: drawing, watching.
    look: f64,
    /// Percent of one core at rest.
    idle: f64,
    /// Bytes that go to the terminal at rest, in a second.
    bytes: f64,
    /// The most memory, in bytes.
    peak: u64,
}

/// Measures in namespaces of their own.
pub(crate) fn measure(binary: &Path) -> Result<Vec<OfScreen>> {
    let one = |listeners| {
        eprintln!("bench: the screen, {listeners} listeners");
        node::in_private_namespaces(|| {
            let _node = Node::listening(listeners)?;
            on_screen(binary, listeners)
        })
    };
    LISTENERS.into_iter().map(one).collect()
}

fn on_screen(binary: &Path, listeners: u16) -> Result<OfScreen> {
    let mut screen = Screen::start(binary)?;
    screen.read_for(SETTLE)?;
    // A screen that shows nothing costs nothing.
    let shown = screen.press("\u{c}")?;
    let ports = number_before(&shown, "ports");
    // The machine itself may have some more.
    ensure!(ports.is_some_and(|n| n >= u32::from(listeners)), "not {listeners} ports: {shown}");
    let looks = screen.count("looksforchanges")?;
    let before = screen.busy()?;
    let bytes = screen.read_for(IDLE)?.len();
    let idle = screen.busy()? - before;
    let looks = screen.count("looksforchanges")? - looks;
    ensure!(looks > 0, "the screen did not look for changes: is there no eBPF?");
    let first = screen.count(WHOLE)?;
    let before = screen.busy()?;
    for _ in 0..READINGS {
        screen.terminal.write_all(b"r")?;
        screen.read_for(EACH)?;
    }
    let busy = screen.busy()? - before;
    let done = screen.count(WHOLE)? - first;
    ensure!(done >= READINGS, "only {done} of {READINGS} readings were made in time");
    Ok(OfScreen {
        listeners,
        reading: busy * 1000.0 / f64::from(done),
        look: idle * 1000.0 / f64::from(looks),
        idle: idle * 100.0 / IDLE.as_secs_f64(),
        bytes: bytes as f64 / IDLE.as_secs_f64(),
        peak: screen.peak()?,
    })
}

/// The tool's screen, and the other end of its terminal.
struct Screen {
    child: Child,
    terminal: File,
}

impl Screen {
    fn start(binary: &Path) -> Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("a terminal")?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let name = ptsname(&ours, Vec::new())?;
        let name = name.to_str().context("a terminal's name")?;
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size)?;
        let theirs = || -> Result<Stdio> {
            let file =
                File::options().read(true).write(true).open(name).context(name.to_owned())?;
            Ok(Stdio::from(OwnedFd::from(file)))
        };
        let child = Command::new(binary)
            .args(["tui", "--no-kube"])
            .envs([("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8")])
            .stdin(theirs()?)
            .stdout(theirs()?)
            .spawn()
            .context("starting the screen")?;
        Ok(Self { child, terminal: File::from(ours) })
    }

    /// What is drawn within some time.
    fn read_for(&mut self, time: Duration) -> Result<Vec<u8>> {
        let until = Instant::now() + time;
        let mut all = Vec::new();
        let mut buffer = [0; 65_536];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(all);
            }
            let timeout = Timespec::try_from(left).context("a time")?;
            let mut polled = [PollFd::from_borrowed_fd(self.terminal.as_fd(), PollFlags::IN)];
            if poll(&mut polled, Some(&timeout))? > 0 {
                let count = self.terminal.read(&mut buffer).context("the screen has ended")?;
                all.extend_from_slice(buffer.get(..count).unwrap_or_default());
            }
        }
    }

    /// Presses keys, and gives what is drawn then without escapes and spaces.
    fn press(&mut self, keys: &str) -> Result<String> {
        self.terminal.write_all(keys.as_bytes())?;
        let drawn = self.read_for(Duration::from_millis(500))?;
        let mut text = String::new();
        let drawn = String::from_utf8_lossy(&drawn).into_owned();
        for (at, piece) in drawn.split('\u{1b}').enumerate() {
            // An escape sequence ends with a letter.
            let end = piece.find(|c: char| c.is_ascii_alphabetic()).map_or(0, |at| at + 1);
            text.push_str(if at == 0 { piece } else { piece.get(end..).unwrap_or_default() });
        }
        text.retain(|c| !c.is_whitespace());
        Ok(text)
    }

    /// How much of something its view of sources counts.
    fn count(&mut self, what: &str) -> Result<u32> {
        self.press("4")?;
        let drawn = self.press("\u{c}")?;
        self.press("1")?;
        number_before(&drawn, what).with_context(|| format!("no count of {what}: {drawn}"))
    }

    /// The processor's time that it took so far, in seconds.
    fn busy(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        let ticks: Vec<u32> = ticks.collect::<Result<_, _>>().context("/proc/PID/stat")?;
        // Linux counts in hundredths, whatever its own clock does.
        Ok(f64::from(ticks.iter().sum::<u32>()) / 100.0)
    }

    fn peak(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("no VmHWM")?.parse::<u64>()? * 1024)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number that stands before some words.
fn number_before(text: &str, what: &str) -> Option<u32> {
    let before = text.split(what).next().unwrap_or_default();
    before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse().ok()
}

/// The table of what was measured.
pub(crate) fn table(all: &[OfScreen]) -> String {
    let mut text = String::from(
        "The screen at 120 x 40, with eBPF:\n\n\
         | listeners | CPU for a look for changes, with drawing | CPU for a reading of the whole node | CPU at rest | to the terminal at rest | peak memory |\n\
         |--:|--:|--:|--:|--:|--:|\n",
    );
    for OfScreen { listeners, reading, look, idle, bytes, peak } in all {
        let peak = *peak as f64 / 1e6;
        // Writing to a string can't fail.
        let _infallible = writeln!(
            text,
            "| {listeners} | {look:.1} ms | {reading:.1} ms | {idle:.2} % of a core | {bytes:.0} B/s | {peak:.1} MB |"
        );
    }
    let met = |row: &OfScreen| {
        row.look <= 10.0 && row.idle <= 1.0 && row.bytes <= 200.0 && row.peak <= 60_000_000
    };
    let verdict = if all.iter().all(met) { "met" } else { "**missed**" };
    let _infallible = writeln!(
        text,
        "\nWanted at 8,000: 10 ms for a look, 1 % and 200 B/s at rest, 60 MB: {verdict}."
    );
    text
}
