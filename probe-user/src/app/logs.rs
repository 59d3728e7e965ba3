//! What is said by libraries: logs, and errors of arguments. They know nothing of names that
//! must not reach a terminal as they are.

use std::io::{self, Write};

use crate::model::escape::is_unsafe;

/// Shows on standard error what the tool, its libraries and its eBPF programs log.
pub(super) fn show() {
    // Neither can fail: nothing else of this program installs one.
    // One library tells of every instruction that it relocates.
    let _ = tracing_log::LogTracer::builder().ignore_crate("aya_obj").init();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(|| Clean(io::stderr()))
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Prints help, or what is wrong with arguments: in colours, unless there is something in them
/// that is not to be shown.
pub(super) fn print(error: &clap::Error) {
    let text = error.render().to_string();
    // Help and version are results; a closed pipe does not matter to either.
    let _ = match error.use_stderr() && clean(&text) != text {
        true => io::stderr().write_all(clean(&text).as_bytes()),
        false => error.print(),
    };
}

/// `text` of several lines, safe for a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c != '\n' && is_unsafe(c) { '\u{fffd}' } else { c }).collect()
}

/// Passes on text that is safe for a terminal. Each write is a message of its own.
struct Clean<W>(W);

impl<W: Write> Write for Clean<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(clean(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::escape::HOSTILE;

    #[test]
    fn logs_can_not_move_the_cursor() {
        let mut written = Vec::new();
        let text = format!("DEBUG a process called {HOSTILE}\n");
        Clean(&mut written).write_all(text.as_bytes()).unwrap();
        let written = String::from_utf8(written).unwrap();
        assert!(written.starts_with("DEBUG a process called \u{fffd}[2J"), "{written:?}");
        assert!(!written.chars().any(|c| c != '\n' && is_unsafe(c)), "{written:?}");
    }
}
