//! Moves into a cgroup, a network namespace and a user, then becomes another program.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `enter [--cgroup DIR]… [--netns PATH] [--uid N] -- ARGV…`
pub(crate) fn enter(args: &[String]) -> Result<()> {
    let mut args = args.iter();
    let mut cgroups = Vec::new();
    let mut netns = None;
    let mut uid = None;
    while let Some(option) = args.next() {
        if option == "--" {
            break;
        }
        let value = args.next().with_context(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--cgroup" => cgroups.push(PathBuf::from(value)),
            "--netns" => netns = Some(value),
            "--uid" => uid = Some(value.parse::<u32>().context("--uid")?),
            other => bail!("unknown option {other:?}"),
        }
    }
    for cgroup in cgroups {
        let file = cgroup.join("cgroup.procs");
        std::fs::write(&file, "0").with_context(|| format!("entering {}", file.display()))?;
    }
    if let Some(path) = netns {
        let file = std::fs::File::open(path).with_context(|| format!("opening {path}"))?;
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&file),
            Some(LinkNameSpaceType::Network),
        )
        .with_context(|| format!("entering {path}"))?;
    }
    let program = args.next().context("nothing to start")?;
    let mut command = Command::new(program);
    command.args(args);
    if let Some(uid) = uid {
        // `uid` also drops the supplementary groups.
        command.gid(uid).uid(uid);
    }
    Err(become_it(&mut command)).with_context(|| format!("starting {program}"))
}

/// How often a program is tried that was just written: another thread of the test may
/// have forked meanwhile, and its child has the file open for writing until it execs.
const TRIES: usize = 100;

/// Becomes the program; returns only why it can't.
fn become_it(command: &mut Command) -> std::io::Error {
    let mut error = command.exec();
    for _ in 0..TRIES {
        if error.kind() != std::io::ErrorKind::ExecutableFileBusy {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        error = command.exec();
    }
    error
}
