//! Daemons that never say anything.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Takes a name, listens at a socket, and gives everybody what is in a file, as an answer of
/// HTTP 1.0.
pub(crate) fn tell(args: &[String]) -> Result<()> {
    let [name, socket, file] = args else { bail!("tell takes a name, a socket and a file") };
    std::fs::write("/proc/self/comm", name).context("taking a name")?;
    let answer = std::fs::read(file).with_context(|| file.clone())?;
    let listener = UnixListener::bind(socket).with_context(|| socket.clone())?;
    println!("{{\"ports\":[],\"holders\":[]}}");
    for mut connection in listener.incoming().flatten() {
        let _asked = connection.read(&mut [0; 4096])?;
        let _closed = connection
            .write_all(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n")
            .and_then(|()| connection.write_all(&answer));
    }
    Ok(())
}

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
