//! What asking a daemon may cost, and how it can fail.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use whereis_port_model::Pid;

/// What one request to a daemon may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestLimits {
    /// From connecting to the last byte.
    pub(super) time: Duration,
    /// Bytes of one response, headers included.
    pub(super) bytes: usize,
}

impl RequestLimits {
    /// The usual ones: far above what a healthy daemon needs.
    pub(super) const USUAL: Self =
        Self { time: Duration::from_millis(300), bytes: 32 * 1024 * 1024 };
}

/// What all questions to daemons of one run may cost together.
///
/// The machine's own daemons are charged for what they leave unanswered, all others for
/// the time that they take: they can be as many as somebody likes.
#[derive(Debug, Clone, Copy)]
pub(super) struct DaemonBudget {
    left: Duration,
    /// How many more sockets of others than the machine's are asked.
    sockets: usize,
}

impl DaemonBudget {
    /// How many sockets of others than the machine's are asked in one run.
    const SOCKETS: usize = 32;

    /// All together may take so long.
    pub(super) fn new(left: Duration) -> Self {
        Self { left, sockets: Self::SOCKETS }
    }

    /// Three of the longest questions, and a bit: about a second.
    pub(super) fn of(limits: RequestLimits) -> Self {
        Self::new(limits.time * 10 / 3)
    }

    /// How long the next question at a socket may take, which was `asked` before; `None`
    /// when too much was waited, or too many were asked already. One that is not to the
    /// machine's own daemon leaves as much to those that come later.
    pub(super) fn grant(
        &mut self,
        limit: Duration,
        machines: bool,
        asked: bool,
    ) -> Option<Duration> {
        let share = if machines { self.left } else { self.left / 2 };
        if share.is_zero() || share * 30 < limit {
            return None;
        }
        if !machines && !asked {
            self.sockets = self.sockets.checked_sub(1)?;
        }
        Some(limit.min(share))
    }

    /// Counts what a question took that began then.
    pub(super) fn spend(&mut self, began: Instant) {
        self.left = self.left.saturating_sub(began.elapsed());
    }
}

/// Who answers at a socket, as the kernel knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketPeer {
    /// The process that began to listen; `None` when it is outside this PID
    /// namespace.
    pub(super) pid: Option<Pid>,
    /// Its user.
    pub(super) uid: u32,
}

impl SocketPeer {
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        let pid = peer.pid().and_then(|pid| Pid::try_from(pid).ok()).filter(|pid| *pid != 0);
        Ok(Self { pid, uid: peer.uid() })
    }
}

/// Why a daemon gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DaemonFailure {
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
    /// It was not asked: too much time went into others, or too many were asked.
    NotAsked,
    /// It answered something else than the API does. Untrusted text.
    Garbage(String),
}

impl fmt::Display for DaemonFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("does not know this container"),
            Self::Denied => f.write_str("permission denied"),
            Self::Unreachable(why) => write!(f, "cannot connect: {why}"),
            Self::Timeout(limit) => write!(f, "no answer within {} ms", limit.as_millis()),
            Self::TooBig(limit) => write!(f, "answer is larger than {} MiB", limit >> 20),
            Self::NotAsked => f.write_str("not asked"),
            Self::Garbage(what) => write!(f, "answer is not understood: {what}"),
        }
    }
}

impl From<io::Error> for DaemonFailure {
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

/// The runtime that all questions of one run are asked in, made at the first.
#[derive(Debug, Clone, Default)]
pub(super) struct Tokio(Arc<OnceLock<Runtime>>);

impl Tokio {
    /// Asks within the limits. What a daemon still has going on its connection ends with the
    /// question.
    pub(super) fn ask<T>(
        &self,
        limits: RequestLimits,
        question: impl AsyncFnOnce(ConnectionTasks) -> Result<T, DaemonFailure>,
    ) -> Result<T, DaemonFailure> {
        let runtime = match self.0.get() {
            Some(runtime) => runtime,
            None => {
                let made = Builder::new_current_thread().enable_all().build()?;
                self.0.get_or_init(|| made)
            }
        };
        let connections = ConnectionTasks::default();
        runtime.block_on(async {
            let answer = tokio::time::timeout(limits.time, question(connections.clone())).await;
            connections.end().await;
            match answer {
                Err(_) => Err(DaemonFailure::Timeout(limits.time)),
                Ok(Err(_)) if connections.exceeded.load(Ordering::Relaxed) => {
                    Err(DaemonFailure::TooBig(limits.bytes))
                }
                Ok(answer) => answer,
            }
        })
    }
}

/// The tasks that drive the connections of one question.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionTasks {
    tasks: Arc<Mutex<JoinSet<()>>>,
    exceeded: Arc<AtomicBool>,
}

impl ConnectionTasks {
    /// A stream of which only so many bytes can be read.
    pub(super) fn limited(&self, stream: UnixStream, bytes: usize) -> LimitedStream {
        LimitedStream { stream, left: bytes, exceeded: Arc::clone(&self.exceeded) }
    }

    async fn end(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for ConnectionTasks {
    fn execute(&self, task: F) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }
}

/// A stream of which only so many bytes can be read.
pub(super) struct LimitedStream {
    stream: UnixStream,
    left: usize,
    /// Set when somebody reads beyond that.
    exceeded: Arc<AtomicBool>,
}

impl AsyncRead for LimitedStream {
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

impl AsyncWrite for LimitedStream {
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
