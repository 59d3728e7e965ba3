//! A real terminal for the tool's screen: tmux, with a server of its own in the lab.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::node::Lab;
use crate::programs::binary;

/// How long the screen may take to show what is waited for.
fn limit() -> Duration {
    Duration::from_secs(if crate::is_other_kernel() { 200 } else { 40 })
}

/// A terminal in which a shell runs. It ends with its lab at the latest.
#[derive(Debug)]
pub struct Terminal<'a> {
    lab: &'a Lab,
    socket: PathBuf,
}

impl<'a> Terminal<'a> {
    /// A terminal of this many columns and lines, in the lab's host. Its shell has the
    /// tool as `$TOOL`, and `env` (`NAME=value …`) in its environment.
    ///
    /// # Errors
    /// When tmux can't be started.
    pub fn open(lab: &'a Lab, size: (u16, u16), env: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // One of its own: a server that was told to end may still take what is for the next.
        let socket = format!("tmux-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let terminal = Self { lab, socket: lab.dir().join(socket) };
        let tool = binary()?.display();
        let home = lab.dir().display();
        let shell = format!(
            "env -u NO_COLOR -u DOCKER_HOST -u KUBECONFIG HOME={home} LC_ALL=C.UTF-8 PS1='$ ' \
             TOOL={tool} {env} bash --norc --noprofile"
        );
        let (columns, lines) = (size.0.to_string(), size.1.to_string());
        terminal.tmux(&["new-session", "-d", "-x", &columns, "-y", &lines, &shell])?;
        terminal.wait("a prompt", |screen| screen.contains('$'))?;
        Ok(terminal)
    }

    /// Runs a line of shell in it.
    ///
    /// # Errors
    /// When tmux does not take it.
    pub fn run(&self, line: &str) -> Result<()> {
        self.text(line)?;
        self.keys(&["Enter"])
    }

    /// Types text.
    ///
    /// # Errors
    /// When tmux does not take it.
    pub fn text(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", "--", text]).map(drop)
    }

    /// Presses keys, by tmux's names: `Enter`, `C-z`, `j`.
    ///
    /// # Errors
    /// When tmux does not take them.
    pub fn keys(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Gives it another size.
    ///
    /// # Errors
    /// When tmux does not.
    pub fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        let (columns, lines) = (columns.to_string(), lines.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &lines]).map(drop)
    }

    /// What is on it.
    ///
    /// # Errors
    /// When the terminal has ended.
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// What tmux says of it: `alternate_on`, `pane_title`, `mouse_any_flag`.
    ///
    /// # Errors
    /// When the terminal has ended.
    pub fn about(&self, what: &str) -> Result<String> {
        Ok(self.tmux(&["display-message", "-p", &format!("#{{{what}}}")])?.trim().to_owned())
    }

    /// Waits until the screen `has` something, and gives the screen.
    ///
    /// # Errors
    /// When it never comes: the screen as it is then.
    pub fn wait(&self, what: &str, has: impl Fn(&str) -> bool) -> Result<String> {
        let begun = Instant::now();
        loop {
            let screen = self.screen()?;
            if has(&screen) {
                return Ok(screen);
            }
            if begun.elapsed() > limit() {
                bail!("{what} never came:\n{screen}");
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits until a line of the screen has all these words.
    ///
    /// # Errors
    /// When none ever has: the screen as it is then.
    pub fn wait_line(&self, words: &[&str]) -> Result<String> {
        let what = format!("a line with {words:?}");
        let fits = |line: &str| words.iter().all(|word| line.contains(word));
        let screen = self.wait(&what, |screen| screen.lines().any(fits))?;
        screen.lines().find(|line| fits(line)).map(ToOwned::to_owned).context("it went again")
    }

    fn tmux(&self, args: &[&str]) -> Result<String> {
        let socket = self.socket.to_str().context("path of the socket")?;
        let argv = [&["tmux", "-f", "/dev/null", "-S", socket], args].concat();
        let output = self.lab.command(self.lab.host(), &argv)?.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {args:?}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // It is in the lab's cgroup, which ends it if this does not.
        let _ = self.tmux(&["kill-server"]);
    }
}
