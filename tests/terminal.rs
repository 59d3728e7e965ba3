//! The screen in terminals that misbehave: nobody reads them, they are stopped, they claim
//! any size, or nothing can be started for them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Lab, Test};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Action, LocalModes, Winsize, tcflow, tcgetattr, tcsetwinsize};

/// Against a hang only.
const LIMIT: Duration = Duration::from_secs(10);

/// A terminal of the test, and the screen in it.
struct Screen {
    ours: File,
    theirs: File,
    child: Child,
}

impl Screen {
    fn start(mut command: Command, size: (u16, u16)) -> Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        tcsetwinsize(&ours, winsize(size))?;
        let name = ptsname(&ours, Vec::new())?;
        let open = || File::options().read(true).write(true).open(name.to_str().unwrap_or("?"));
        let stdio = || -> Result<Stdio> { Ok(Stdio::from(OwnedFd::from(open()?))) };
        command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color");
        command.stdin(stdio()?).stdout(stdio()?).stderr(Stdio::piped());
        let theirs = open()?;
        Ok(Self { ours: File::from(ours), theirs, child: command.spawn()? })
    }

    /// The screen of a recorded node.
    fn demo(size: (u16, u16)) -> Result<Self> {
        Self::start(tool(&["tui", "--demo"])?, size)
    }

    fn resize(&self, size: (u16, u16)) -> Result<()> {
        Ok(tcsetwinsize(&self.ours, winsize(size))?)
    }

    fn is_raw(&self) -> Result<bool> {
        Ok(!tcgetattr(&self.theirs)?.local_modes.contains(LocalModes::ICANON))
    }

    fn wait_until_raw(&mut self) -> Test {
        let begun = Instant::now();
        while !self.is_raw()? {
            ensure!(self.child.try_wait()?.is_none(), "it has ended: {}", self.complaints());
            ensure!(begun.elapsed() < LIMIT * 4, "the screen never came");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Draws again and again until the terminal, which nobody reads, takes nothing any more.
    fn fill(&mut self) -> Test {
        self.wait_until_raw()?;
        for step in 0..40 {
            self.resize((250 + step, 60 + step % 20))?;
            self.signal(Signal::WINCH)?;
            std::thread::sleep(Duration::from_millis(50));
        }
        ensure!(self.child.try_wait()?.is_none(), "it has ended: {}", self.complaints());
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end.
    fn ended(&mut self, what: &str) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(begun.elapsed() < LIMIT, "{what} has not ended it");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What was written and not read yet.
    fn unread(&mut self) -> Result<String> {
        rustix::fs::fcntl_setfl(&self.ours, rustix::fs::OFlags::NONBLOCK)?;
        let mut all = Vec::new();
        let mut buffer = [0; 65_536];
        while let Ok(length @ 1..) = self.ours.read(&mut buffer) {
            all.extend_from_slice(buffer.get(..length).unwrap_or_default());
        }
        Ok(String::from_utf8_lossy(&all).into_owned())
    }

    fn complaints(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }

    /// Bytes of memory that it had at most.
    fn peak(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn winsize((columns, lines): (u16, u16)) -> Winsize {
    Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The tool, whose standard input becomes its controlling terminal.
fn tool(args: &[&str]) -> Result<Command> {
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(lab::binary()?).args(args);
    Ok(command)
}

#[test]
fn signals_end_it_while_nobody_reads_its_terminal() -> Test {
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT] {
        let mut screen = Screen::demo((120, 40))?;
        screen.fill()?;
        screen.signal(signal)?;
        let status = screen.ended(&format!("{signal:?}"))?;
        ensure!(status.code() == Some(0), "{signal:?}: {status}");
        ensure!(!screen.is_raw()?, "{signal:?} left the terminal raw");
        let rest = screen.unread()?;
        ensure!(rest.contains("\u{1b}[?1049l"), "{signal:?} left the other screen");
        ensure!(rest.ends_with("\u{1b}[?25h"), "{signal:?} left it without a cursor");
    }
    Ok(())
}

#[test]
fn keys_end_it_while_nobody_reads_its_terminal() -> Test {
    for key in [b"q", b"\x03"] {
        let mut screen = Screen::demo((120, 40))?;
        screen.fill()?;
        screen.ours.write_all(key)?;
        let status = screen.ended(&format!("{key:?}"))?;
        ensure!(status.code() == Some(0) && !screen.is_raw()?, "{key:?}: {status}");
    }
    Ok(())
}

#[test]
fn a_terminal_that_is_stopped_holds_no_end_up() -> Test {
    let mut screen = Screen::demo((120, 40))?;
    screen.wait_until_raw()?;
    tcflow(&screen.theirs, Action::OOff)?;
    screen.fill()?;
    screen.signal(Signal::TERM)?;
    let status = screen.ended("SIGTERM")?;
    ensure!(status.code() == Some(0) && !screen.is_raw()?, "{status}");
    Ok(())
}

#[test]
fn a_stopped_screen_ends_when_it_is_told_to_before_it_goes_on() -> Test {
    let mut screen = Screen::demo((80, 24))?;
    screen.wait_until_raw()?;
    screen.signal(Signal::TSTP)?;
    let begun = Instant::now();
    let stopped = |screen: &Screen| -> Result<bool> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", screen.child.id()))?;
        Ok(status.contains("T (stopped)"))
    };
    while !stopped(&screen)? {
        ensure!(begun.elapsed() < LIMIT, "it does not stop");
        std::thread::sleep(Duration::from_millis(10));
    }
    ensure!(!screen.is_raw()?, "a stopped screen holds the terminal");
    screen.unread()?;
    screen.signal(Signal::TERM)?;
    screen.signal(Signal::CONT)?;
    let status = screen.ended("SIGTERM")?;
    ensure!(status.code() == Some(0), "{status}");
    let rest = screen.unread()?;
    ensure!(!rest.contains("\u{1b}[?1049h"), "it took the terminal once more: {rest:?}");
    Ok(())
}

#[test]
fn a_terminal_may_claim_any_size() -> Test {
    for size in [(65_535, 65_535), (65_535, 1), (1, 65_535), (0, 0)] {
        let mut screen = Screen::demo((80, 24))?;
        screen.wait_until_raw()?;
        screen.resize(size)?;
        screen.signal(Signal::WINCH)?;
        // It is drawn, and read.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) {
            screen.unread()?;
            std::thread::sleep(Duration::from_millis(10));
        }
        let peak = screen.peak()?;
        screen.ours.write_all(b"q")?;
        let status = screen.ended("q")?;
        ensure!(status.code() == Some(0) && !screen.is_raw()?, "{size:?}: {status}");
        ensure!(peak < 400 << 20, "{size:?} took {peak} bytes");
    }
    let mut screen = Screen::demo((65_535, 65_535))?;
    screen.wait_until_raw()?;
    screen.signal(Signal::TERM)?;
    let status = screen.ended("SIGTERM")?;
    ensure!(status.code() == Some(0), "it began in that size: {status}");
    Ok(())
}

#[test]
fn what_happens_while_nobody_reads_takes_no_memory() -> Test {
    lab::root_or_skip!();
    let mut screen = Screen::start(tool(&["tui", "--no-kube"])?, (120, 40))?;
    screen.fill()?;
    let listen = |count: usize| -> Test {
        for _ in 0..count {
            drop(TcpListener::bind("127.0.0.1:0")?);
        }
        Ok(())
    };
    // What the first events take is there from then on.
    listen(20_000)?;
    std::thread::sleep(Duration::from_secs(2));
    let before = screen.peak()?;
    for _ in 0..15 {
        listen(10_000)?;
        std::thread::sleep(Duration::from_millis(200));
    }
    let more = screen.peak()?.saturating_sub(before);
    ensure!(more < 64 << 20, "300000 events took {more} bytes");
    screen.signal(Signal::TERM)?;
    screen.ended("SIGTERM")?;
    Ok(())
}

#[test]
fn it_keeps_only_the_rights_for_reading() -> Test {
    /// CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_SYS_PTRACE and CAP_SYS_ADMIN.
    const READING: u64 = 1 << 2 | 1 << 12 | 1 << 19 | 1 << 21;
    lab::root_or_skip!();
    let mut screen = Screen::start(tool(&["tui", "--no-kube"])?, (120, 40))?;
    screen.wait_until_raw()?;
    let begun = Instant::now();
    loop {
        screen.unread()?;
        let mut more = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", screen.child.id()))? {
            let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else { continue };
            for sort in ["CapEff:", "CapPrm:", "CapInh:"] {
                let set = status.lines().find_map(|line| line.strip_prefix(sort)).context(sort)?;
                if u64::from_str_radix(set.trim(), 16)? & !READING != 0 {
                    more.push(format!("{}{set}", status.lines().next().unwrap_or_default()));
                }
            }
        }
        if more.is_empty() {
            break;
        }
        // Those that load programs need more until they have.
        ensure!(begun.elapsed() < LIMIT * 4, "{more:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    screen.ours.write_all(b"q")?;
    ensure!(screen.ended("q")?.success());
    Ok(())
}

#[test]
fn without_threads_it_says_so_and_leaves_the_terminal_alone() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let wrapper =
        ["setpriv", "--reuid", "65533", "--clear-groups", "--", "prlimit", "--nproc=1", "--"];
    let command = lab.tool().through(&wrapper).args(&["tui", "--demo"]).command()?;
    let mut screen = Screen::start(command, (80, 24))?;
    let status = screen.ended("the missing thread")?;
    let said = screen.complaints();
    ensure!(status.code() == Some(4), "{status}: {said}");
    ensure!(said.contains("thread") && said.contains("ulimit -u"), "{said}");
    ensure!(!said.contains("bug") && !said.contains("panicked"), "{said}");
    ensure!(!screen.is_raw()?, "the terminal is left raw");
    Ok(())
}

#[test]
fn a_configuration_that_is_no_file_is_not_waited_for() -> Test {
    let directory = tempfile::tempdir()?;
    let pipe = directory.path().join("config.toml");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )?;
    let large = directory.path().join("large.toml");
    std::fs::write(&large, "# ".repeat(600_000))?;
    for (file, why) in [(&pipe, "is not a file"), (&large, "too large")] {
        let file = file.to_str().context("path")?;
        for args in [["tui", "--config", file], ["config", "check", file]] {
            let mut child =
                Command::new(lab::binary()?).args(args).stderr(Stdio::piped()).spawn()?;
            let begun = Instant::now();
            while child.try_wait()?.is_none() {
                if begun.elapsed() > LIMIT {
                    child.kill()?;
                    child.wait()?;
                    bail!("{args:?} waits for it");
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let output = child.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(2) && said.contains(why), "{args:?}: {said}");
        }
    }
    Ok(())
}
