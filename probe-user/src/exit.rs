//! Exit codes. They are part of the interface: documented in `--help`, the man
//! page, the README and the book, and tested.

use std::process::ExitCode;

use crate::model::Verdict;

/// What the exit status says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Every question was answered with something; a trace saw at least one event.
    Found = 0,
    /// For at least one question there is surely nothing, and none is unknown. A
    /// trace saw nothing, and would have seen everything that was asked for.
    NotFound = 1,
    /// Bad usage or bad input.
    Usage = 2,
    /// For at least one question nothing was found, but something could not be
    /// read. A trace saw nothing, but not everything could be watched.
    Unknown = 3,
    /// The tool itself failed.
    Failed = 4,
    /// A connection that was really made shows that an answer is wrong.
    Refuted = 5,
}

impl Exit {
    /// The status for several verdicts: what is unknown weighs most, for a
    /// script must not take it for "nothing there".
    pub fn of(verdicts: impl IntoIterator<Item = Verdict>) -> Self {
        verdicts.into_iter().fold(Self::Found, |exit, verdict| match (exit, verdict) {
            (Self::Unknown, _) | (_, Verdict::Unknown) => Self::Unknown,
            (Self::NotFound, _) | (_, Verdict::NotFound) => Self::NotFound,
            _ => Self::Found,
        })
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
