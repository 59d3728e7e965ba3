//! Real connections from inside a namespace: where does one land?

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::netns::Netns;

/// How long a client waits before it gives up. Everything is on one machine, but
/// that machine may be busy.
const PATIENCE: Duration = Duration::from_millis(600);

/// Where a connection landed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Landing {
    /// At the server that calls itself so.
    At(String),
    /// Nobody listens, or a rule rejects.
    Refused,
    /// No answer: dropped on the way.
    TimedOut,
    /// There is no way there.
    Unreachable,
    /// Accepted, and closed without a word: by a proxy with nothing behind it.
    Closed,
}

impl Landing {
    /// The server that was reached.
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::At(name) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for Landing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::At(name) => name,
            Self::Refused => "refused",
            Self::TimedOut => "timeout",
            Self::Unreachable => "unreachable",
            Self::Closed => "closed",
        })
    }
}

/// Runs `work` in a thread that has moved into `netns`.
///
/// # Errors
/// When the namespace is gone, or `work` fails.
pub fn within<T: Send>(netns: &Netns, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = std::fs::File::open(&netns.path)
                .with_context(|| format!("opening {}", netns.path.display()))?;
            let fd = std::os::fd::AsFd::as_fd(&file);
            move_into_link_name_space(fd, Some(LinkNameSpaceType::Network))
                .with_context(|| format!("entering {}", netns.name))?;
            work()
        });
        thread.join().map_err(|_| anyhow!("a thread in {} panicked", netns.name))?
    })
}

impl Netns {
    /// Connects from in here and listens to who answers.
    ///
    /// # Errors
    /// When the connection can't even be tried.
    pub fn connect(&self, proto: &str, to: SocketAddr) -> Result<Landing> {
        within(self, || connect(proto, to))
    }

    /// The same `tries` times: every place that was reached, once.
    ///
    /// # Errors
    /// As [`Netns::connect`].
    pub fn connect_often(&self, proto: &str, to: SocketAddr, tries: usize) -> Result<Vec<Landing>> {
        within(self, || {
            let mut landed = Vec::new();
            for _ in 0..tries {
                let landing = connect(proto, to)?;
                // Waiting for a timeout again and again tells nothing new.
                let hopeless = landing == Landing::TimedOut && landed.contains(&landing);
                landed.push(landing);
                if hopeless {
                    break;
                }
            }
            landed.sort();
            landed.dedup();
            Ok(landed)
        })
    }

    /// Sets a switch below `/proc/sys/net` in here.
    ///
    /// # Errors
    /// When it is not there.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{name}");
        within(self, || std::fs::write(&path, value).with_context(|| path.clone()))
    }
}

fn connect(proto: &str, to: SocketAddr) -> Result<Landing> {
    let landing = if proto == "udp" { udp(to) } else { tcp(to) };
    landing.or_else(|error| match error.kind() {
        ErrorKind::ConnectionRefused => Ok(Landing::Refused),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok(Landing::TimedOut),
        // What a dropped datagram of one's own is told as.
        ErrorKind::PermissionDenied => Ok(Landing::TimedOut),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Ok(Landing::Unreachable),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(Landing::Closed),
        _ => Err(error).with_context(|| format!("connecting to {to}/{proto}")),
    })
}

fn tcp(to: SocketAddr) -> std::io::Result<Landing> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    stream.flush()?;
    Ok(if answer.is_empty() { Landing::Closed } else { Landing::At(answer) })
}

fn udp(to: SocketAddr) -> std::io::Result<Landing> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"who are you?")?;
    let mut answer = [0_u8; 512];
    let length = socket.recv(&mut answer)?;
    let answer = answer.get(..length).unwrap_or_default();
    Ok(Landing::At(String::from_utf8_lossy(answer).into_owned()))
}
