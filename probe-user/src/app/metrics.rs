//! Answers who scrapes: one thread, which gives what the recorder published last.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Failure;
use crate::cli::MetricsAt;
use crate::view::metrics::{Numbers, OPENMETRICS, PLAIN, text};

/// How long one who asks may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest question.
const LONGEST: usize = 8 << 10;

/// A running server. Its thread ends with the process.
#[derive(Debug)]
pub(super) struct MetricsServer {
    numbers: Arc<Mutex<Numbers>>,
    /// The socket's file, which goes with the server.
    path: Option<PathBuf>,
}

impl MetricsServer {
    /// Listens, and answers from then on.
    pub(super) fn start(at: &MetricsAt) -> Result<Self, Failure> {
        let numbers = Arc::new(Mutex::new(Numbers::default()));
        let shared = Arc::clone(&numbers);
        let failed = |error: io::Error| match at {
            MetricsAt::Tcp(address) => Failure::Tool(format!("--metrics {address}: {error}")),
            MetricsAt::Unix(path) => {
                Failure::Tool(format!("--metrics unix:{}: {error}", path.display()))
            }
        };
        let thread = std::thread::Builder::new().name("metrics".to_owned());
        let (path, thread) = match at {
            MetricsAt::Tcp(address) => {
                let listener = TcpListener::bind(address).map_err(failed)?;
                let serve = move || {
                    for stream in listener.incoming() {
                        accepted(stream, |stream: &TcpStream| limited(stream), &shared);
                    }
                };
                (None, thread.spawn(serve))
            }
            MetricsAt::Unix(path) => {
                let listener = bind(path).map_err(failed)?;
                let serve = move || {
                    for stream in listener.incoming() {
                        let limit = |stream: &UnixStream| {
                            stream.set_read_timeout(Some(PATIENCE))?;
                            stream.set_write_timeout(Some(PATIENCE))
                        };
                        accepted(stream, limit, &shared);
                    }
                };
                (Some(path.clone()), thread.spawn(serve))
            }
        };
        thread.map_err(failed)?;
        Ok(Self { numbers, path })
    }

    /// What is answered from now on.
    pub(super) fn publish(&mut self, numbers: &Numbers) {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).clone_from(numbers);
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Of one that is gone already there is nothing to remove.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn limited(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// A socket that only its owner and group may use. One that nobody serves any more is replaced.
#[expect(clippy::disallowed_methods, reason = "the user names the path")]
fn bind(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
            if !is_socket || UnixStream::connect(path).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

fn accepted<S: Read + Write>(
    stream: io::Result<S>,
    limit: impl Fn(&S) -> io::Result<()>,
    numbers: &Mutex<Numbers>,
) {
    match stream.and_then(|stream| limit(&stream).map(|()| stream)) {
        // Who asks and goes away before the answer is no matter.
        Ok(mut stream) => drop(answer(&mut stream, numbers)),
        // No descriptors are left, for a moment.
        Err(_) => std::thread::sleep(Duration::from_millis(50)),
    }
}

fn answer(stream: &mut (impl Read + Write), numbers: &Mutex<Numbers>) -> io::Result<()> {
    let begun = Instant::now();
    let mut question = Vec::new();
    let mut buffer = [0; 1024];
    while !question.windows(4).any(|four| four == b"\r\n\r\n") {
        let length = stream.read(&mut buffer)?;
        question.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if length == 0 || question.len() > LONGEST || begun.elapsed() > PATIENCE {
            return Ok(());
        }
    }
    let question = String::from_utf8_lossy(&question);
    let mut words = question.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    let openmetrics =
        question.lines().filter_map(|line| line.split_once(':')).any(|(name, value)| {
            name.eq_ignore_ascii_case("accept") && value.contains("application/openmetrics-text")
        });
    let (status, kind, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => {
            let numbers = numbers.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let kind = if openmetrics { OPENMETRICS } else { PLAIN };
            ("200 OK", kind, text(&numbers, openmetrics))
        }
        ("GET" | "HEAD", _) => ("404 Not Found", "text/plain", "metrics are at /metrics\n".into()),
        _ => ("405 Method Not Allowed", "text/plain", "ask with GET\n".into()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(question: &str) -> String {
        struct Both<'a>(&'a [u8], Vec<u8>);
        impl Read for Both<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                self.0.read(into)
            }
        }
        impl Write for Both<'_> {
            fn write(&mut self, what: &[u8]) -> io::Result<usize> {
                self.1.write(what)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut both = Both(question.as_bytes(), Vec::new());
        answer(&mut both, &Mutex::new(Numbers::default())).unwrap();
        String::from_utf8(both.1).unwrap()
    }

    #[test]
    fn only_metrics_are_given_and_in_the_form_that_is_asked_for() {
        let plain = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(plain.starts_with("HTTP/1.1 200 ") && plain.contains("version=0.0.4"), "{plain}");
        let open = ask("GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text\r\n\r\n");
        assert!(open.contains("openmetrics-text") && open.ends_with("# EOF\n"), "{open}");
        assert!(ask("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(ask("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert_eq!(ask("GET /metrics"), "", "not a whole question");
    }
}
