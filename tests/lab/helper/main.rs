//! `lab-helper`: the process that stands in for every server of the lab, starts
//! others in the right place, and cleans up after a lab whose test has died.
//!
//! ```text
//! lab-helper enter  [--cgroup DIR]… [--netns PATH] [--uid N] -- ARGV…
//! lab-helper listen PROTO ADDRESS [PROTO ADDRESS]… [OPTIONS]
//! lab-helper flap   PROTO ADDRESS
//! lab-helper burst  PROTO ADDRESS --count N
//! lab-helper proxy  ADDRESS FILE --imitate ARGV…
//! lab-helper knock  ADDRESS
//! lab-helper pin-map PATH KEY:VALUE…
//! lab-helper pin-trie PATH KEY:VALUE…
//! lab-helper pin-link PATH CGROUP ATTACH_TYPE
//! lab-helper fuse POINT FILE
//! lab-helper stretch NAME BYTES
//! lab-helper binds COUNT DIR
//! lab-helper silent DIR COUNT
//! lab-helper tell   NAME SOCKET FILE
//! lab-helper reap   NAME
//! ```

mod answer;
mod enter;
mod hostile;
mod listen;
mod maps;
mod proxy;
mod relay;
mod silent;

use std::io::Read;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    // A re-executed helper has somebody else's arguments and takes its own from
    // the environment.
    let args: Vec<String> = match std::env::var(listen::INSTRUCTIONS) {
        Ok(instructions) => instructions.split('\x1f').map(str::to_owned).collect(),
        Err(_) => std::env::args().skip(1).collect(),
    };
    let (command, rest) = args.split_first().context("no command given")?;
    match command.as_str() {
        "enter" => enter::enter(rest),
        "listen" => listen::listen(rest),
        "flap" => listen::flap(rest),
        "burst" => listen::burst(rest),
        "proxy" => proxy::proxy(rest),
        "knock" => proxy::knock(rest),
        "pin-map" => maps::pin(maps::HASH, rest),
        "pin-trie" => maps::pin(maps::TRIE, rest),
        "pin-link" => maps::pin_link(rest),
        "fuse" => hostile::fuse(rest),
        "stretch" => hostile::stretch(rest),
        "binds" => hostile::binds(rest),
        "silent" => silent::silent(rest),
        "tell" => silent::tell(rest),
        "reap" => reap(rest),
        other => bail!("unknown command {other:?}"),
    }
}

/// Waits until the test process is gone, however it went, then removes its lab.
fn reap(args: &[String]) -> Result<()> {
    let [name] = args else { bail!("reap takes one name") };
    // A Ctrl-C on the terminal goes to the whole group and must not reach us.
    let _already_leader = rustix::process::setsid();
    let mut rest = Vec::new();
    std::io::stdin().lock().read_to_end(&mut rest).context("waiting for the test to end")?;
    lab::sweep(name)
}
