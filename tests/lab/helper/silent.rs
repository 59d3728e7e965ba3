//! Daemons that never say anything.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Listens at the sockets `0`, `1`, … in a directory, keeps every connection, and adds a
/// line to its file `asked` for each.
pub(crate) fn silent(args: &[String]) -> Result<()> {
    let [dir, count] = args else { bail!("silent takes a directory and a number") };
    let dir = Path::new(dir);
    let asked = std::fs::File::create(dir.join("asked"))?;
    for number in 0..count.parse::<usize>()? {
        let listener = UnixListener::bind(dir.join(number.to_string()))
            .with_context(|| format!("socket {number}"))?;
        let mut asked = asked.try_clone()?;
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for connection in listener.incoming() {
                let _full = writeln!(asked, "{number}");
                kept.push(connection);
            }
        });
    }
    println!("{{\"ports\":[],\"holders\":[]}}");
    loop {
        std::thread::park();
    }
}
