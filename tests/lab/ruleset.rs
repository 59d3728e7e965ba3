//! Rulesets, loaded into a lab's namespace from text.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::node::Lab;

/// Which of the kernel's two packet filters `iptables` writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `iptables-nft`: tables of nf_tables.
    Nft,
    /// `iptables-legacy`: the old tables.
    Legacy,
}

impl Backend {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    /// Its part of the commands' names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }
}

impl Lab {
    /// Loads `text`, in the format of `iptables-save`, beside what is there.
    ///
    /// # Errors
    /// When a rule is refused.
    pub fn iptables(&self, netns: &Netns, backend: Backend, text: &str) -> Result<()> {
        let program = format!("iptables-{}-restore", backend.name());
        self.feed(netns, &[&program, "--noflush", "--wait"], text)
    }

    /// The same for IPv6.
    ///
    /// # Errors
    /// When a rule is refused.
    pub fn ip6tables(&self, netns: &Netns, backend: Backend, text: &str) -> Result<()> {
        let program = format!("ip6tables-{}-restore", backend.name());
        self.feed(netns, &[&program, "--noflush", "--wait"], text)
    }

    /// Loads `text`, a script of `nft`.
    ///
    /// # Errors
    /// When a rule is refused.
    pub fn nft(&self, netns: &Netns, text: &str) -> Result<()> {
        self.feed(netns, &["nft", "-f", "-"], text)
    }

    fn feed(&self, netns: &Netns, argv: &[&str], text: &str) -> Result<()> {
        let command = self.command(netns, argv)?;
        self.talk(command, text)
            .map(drop)
            .with_context(|| format!("{argv:?} in {}\n{text}", netns.name))
    }

    /// Runs a command with `text` as its input, and returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn talk(&self, mut command: Command, text: &str) -> Result<String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut pipe = child.stdin.take().context("no pipe")?;
        // One that complains early closes the pipe; its complaint is the error.
        let _complained = pipe.write_all(text.as_bytes());
        drop(pipe);
        let output = child.wait_with_output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{}: {error}{said}", output.status);
        Ok(said)
    }
}

/// Why rules can't be loaded here, if they can't.
pub fn no_rules() -> Option<String> {
    crate::no_lab().or_else(|| {
        let wanted = ["iptables-nft-restore", "iptables-legacy-restore", "nft"];
        let missing = wanted.into_iter().find(|program| !crate::has(program));
        missing.map(|program| format!("{program} is not installed (packages iptables, nftables)"))
    })
}

/// Leaves the test, saying so, when no rules can be loaded here.
#[macro_export]
macro_rules! rules_or_skip {
    () => {
        if let Some(reason) = $crate::no_rules() {
            $crate::skip(&reason);
            return Ok(());
        }
    };
}
