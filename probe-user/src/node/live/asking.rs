//! What asking a daemon may cost, and how it can fail.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// What one question may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From connecting to the last byte.
    pub(super) time: Duration,
    /// Bytes of one response, headers included.
    pub(super) bytes: usize,
}

impl Limits {
    /// The usual ones: far above what a healthy daemon needs.
    pub(super) const USUAL: Self =
        Self { time: Duration::from_millis(300), bytes: 32 * 1024 * 1024 };
}

/// Why a daemon gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The daemon does not know this container. An answer, in a way.
    NotFound,
    /// Not allowed to connect.
    Denied,
    /// No connection, for another reason.
    Unreachable(String),
    /// It did not answer in time.
    Timeout(Duration),
    /// The response went over the limit, in bytes.
    TooBig(usize),
    /// It answered something else than the API does. Untrusted text.
    Garbage(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("does not know this container"),
            Self::Denied => f.write_str("permission denied"),
            Self::Unreachable(why) => write!(f, "cannot connect: {why}"),
            Self::Timeout(limit) => write!(f, "no answer within {} ms", limit.as_millis()),
            Self::TooBig(limit) => write!(f, "answer is larger than {} MiB", limit >> 20),
            Self::Garbage(what) => write!(f, "answer is not understood: {what}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

/// Enough of a foreign text to recognise it.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// A stream of which only so many bytes can be read.
pub(super) struct Limited {
    stream: UnixStream,
    left: usize,
    exceeded: Arc<AtomicBool>,
}

impl Limited {
    /// `exceeded` is set when somebody reads beyond `bytes`.
    pub(super) fn new(stream: UnixStream, bytes: usize, exceeded: Arc<AtomicBool>) -> Self {
        Self { stream, left: bytes, exceeded }
    }
}

impl AsyncRead for Limited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        match self.left.checked_sub(buf.filled().len() - before) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Ok(()))
            }
            None => {
                self.exceeded.store(true, Ordering::Relaxed);
                Poll::Ready(Err(io::Error::other("response is too large")))
            }
        }
    }
}

impl AsyncWrite for Limited {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
