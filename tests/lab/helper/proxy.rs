//! A proxy whose command line does not say where it leads, and a client for it.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::listen::{INSTRUCTIONS, imitate, say_ready};

/// How long the client waits between two connections.
const PAUSE: Duration = Duration::from_millis(50);

/// `proxy ADDRESS FILE --imitate ARGV…`: passes each connection to `ADDRESS` on to
/// the target that `FILE` names when it comes, several targets in turn.
pub(crate) fn proxy(args: &[String]) -> Result<()> {
    let [address, file, flag, argv @ ..] = args else { anyhow::bail!("not enough words") };
    anyhow::ensure!(flag == "--imitate", "the arguments to show are missing");
    if std::env::var_os(INSTRUCTIONS).is_none() {
        return imitate("proxy", args, argv);
    }
    let name = argv.first().and_then(|program| program.rsplit('/').next());
    std::fs::write("/proc/self/comm", name.unwrap_or_default()).context("taking a name")?;
    let listener = TcpListener::bind(address).with_context(|| format!("binding {address}"))?;
    say_ready(&[listener.local_addr()?.port()], &[std::process::id()])?;
    for (number, client) in listener.incoming().enumerate() {
        let client = client.context("accepting")?;
        let targets = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
        let targets: Vec<&str> = targets.split_whitespace().collect();
        let Some(target) = targets.get(number % targets.len().max(1)) else { continue };
        // A client whose target is not there is turned away.
        if let Ok(server) = TcpStream::connect(target) {
            std::thread::spawn(move || pass_on(client, server));
        }
    }
    Ok(())
}

fn pass_on(mut client: TcpStream, mut server: TcpStream) -> std::io::Result<u64> {
    std::io::copy(&mut client, &mut server)
}

/// `knock ADDRESS`: connects, says a word and goes, again and again until killed.
pub(crate) fn knock(args: &[String]) -> Result<()> {
    let [address] = args else { anyhow::bail!("knock takes one address") };
    say_ready(&[], &[std::process::id()])?;
    loop {
        let mut stream =
            TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        // Nobody has to listen to the end.
        let _whatever = stream.write_all(b"hello\n");
        drop(stream);
        std::thread::sleep(PAUSE);
    }
}
