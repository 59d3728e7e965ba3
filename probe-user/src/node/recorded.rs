//! Recording what a run read, and answering from such a recording.

/// Answers from a recording.
#[derive(Debug)]
pub struct Recorded;
/// Passes every read on to another node and keeps what it gave.
#[derive(Debug)]
pub struct Recorder;
/// Why a recording can't be used.
#[derive(Debug)]
pub struct RecordingError;
/// Replaces names and addresses.
pub fn redact() {}
