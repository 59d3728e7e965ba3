//! Commands as they can be typed into a POSIX shell: every word is one word, whatever is in it.

use super::layout::GLUE;
use whereis_port_model::escape::is_unsafe;
use whereis_port_model::{Advice, AdvicePart, Command};

/// What is said instead of a command that can't be shown as it is.
pub(super) const LEFT_OUT: &str = "(a command with a name in it that can't be shown as it is)";

/// The most characters of one command that are shown.
const LONGEST: usize = 2048;

/// A word as the shell takes it for one, or `None` where it can't be shown: what is seen
/// would not be what it is.
pub(super) fn word(word: &str) -> Option<String> {
    if word.chars().any(|c| is_unsafe(c) || c == GLUE) {
        return None;
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Some(word.to_owned());
    }
    // Between single quotes everything is itself, but for their end.
    Some(format!("'{}'", word.replace('\'', r"'\''")))
}

/// A command on one line, or `None` where it can't be shown as it is.
pub fn line(command: &Command) -> Option<String> {
    let words: Option<Vec<String>> = command.words().iter().map(|text| word(text)).collect();
    let line = words?.join(" ");
    // The first word is the program, never an assignment in front of one.
    let assigns = command.words().first().is_none_or(|program| program.contains('='));
    (!assigns && line.chars().count() <= LONGEST).then_some(line)
}

/// An advice as text. Its commands are safe to show and to copy, the rest is untrusted.
pub fn text(advice: &Advice) -> String {
    let part = |piece: &AdvicePart| match piece {
        AdvicePart::Words(words) => words.clone(),
        AdvicePart::Name(name) => word(name).unwrap_or_else(|| name.clone()),
        AdvicePart::Command(command) => shown(command),
        AdvicePart::Or => AdvicePart::OR.to_owned(),
    };
    advice.pieces().iter().map(part).collect()
}

/// A command on one line, or that there is one.
pub fn shown(command: &Command) -> String {
    line(command).unwrap_or_else(|| LEFT_OUT.to_owned())
}

/// What a command is shown behind, and the command: a remedy.
pub fn remedy(words: &str, command: &Command) -> String {
    format!("{words} {}", shown(command))
}

#[cfg(test)]
#[path = "shell/tests.rs"]
mod tests;
