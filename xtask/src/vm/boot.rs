//! Running a virtual machine, with its console in view, until it is off.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::kernel::Kernel;
use crate::dist::Arch;

/// What emulates this processor.
pub(crate) fn program(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "qemu-system-x86_64",
        Arch::Aarch64 => "qemu-system-aarch64",
    }
}

/// Gives what the machine wrote to its console, which also goes to `log`. One
/// that runs longer than `limit` is ended.
pub(crate) fn boot(
    kernel: &Kernel,
    initramfs: &Path,
    log: &Path,
    limit: Duration,
) -> Result<String> {
    let mut log = File::create(log).with_context(|| format!("writing {}", log.display()))?;
    let program = program(kernel.arch);
    // The board, and the name of its serial line.
    let (board, line) = match kernel.arch {
        Arch::X86_64 => ("pc", "ttyS0"),
        Arch::Aarch64 => ("virt", "ttyAMA0"),
    };
    let mut machine = Command::new(program);
    machine
        .args(["-machine", board])
        // Emulation runs everywhere, also inside of another virtual machine.
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-serial", "stdio", "-append"])
        .arg(format!("console={line} loglevel=4 panic=-1 random.trust_cpu=on"))
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs);
    machine.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut machine = Machine(machine.spawn().with_context(|| format!("running {program}"))?);
    let console = machine.0.stdout.take().context("the machine has no console")?;

    let (lines, received) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if lines.send(line).is_err() {
                break;
            }
        }
    });
    let end = Instant::now() + limit;
    let mut text = String::new();
    loop {
        match received.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{} | {line}", kernel.version);
                writeln!(log, "{line}").context("writing the log")?;
                text += &line;
                text.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(text),
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("Linux {} ran for {} s: ended", kernel.version, limit.as_secs());
                return Ok(text);
            }
        }
    }
}

/// Ends with whatever watches it.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // One that is off already can't be ended, and that is fine.
        let _off = self.0.kill();
        let _status = self.0.wait();
    }
}
