//! A listener whose server is in another network namespace, out of sight of the node.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};

/// Carries what comes to the listener on `port` to the same port of 127.0.0.1 in `netns`.
pub(crate) fn serve(
    sockets: &[OwnedFd],
    binds: &[(String, SocketAddr)],
    port: u16,
    netns: &str,
) -> Result<()> {
    let mut all = sockets.iter().zip(binds);
    let (listener, _) = all
        .find(|(_, (proto, address))| proto == "tcp" && address.port() == port)
        .with_context(|| format!("nothing listens on {port}"))?;
    let listener: TcpListener = listener.try_clone()?.into();
    let netns = netns.to_owned();
    std::thread::spawn(move || {
        loop {
            match listener.accept() {
                Ok((client, _)) => {
                    let netns = netns.clone();
                    std::thread::spawn(move || carry(client, port, &netns));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    });
    Ok(())
}

/// Both ways, until either end has no more to say.
fn carry(client: TcpStream, port: u16, netns: &str) -> Result<()> {
    // Only this thread goes there, and the socket stays there.
    super::listen::enter(netns)?;
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let back = (server.try_clone()?, client.try_clone()?);
    let other = std::thread::spawn(move || copy(back.0, back.1));
    copy(client, server);
    drop(other.join());
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0_u8; 1 << 16];
    while let Ok(length) = from.read(&mut buffer) {
        let part = buffer.get(..length).unwrap_or_default();
        if part.is_empty() || to.write_all(part).is_err() {
            break;
        }
    }
    drop((from.shutdown(Shutdown::Read), to.shutdown(Shutdown::Write)));
}
