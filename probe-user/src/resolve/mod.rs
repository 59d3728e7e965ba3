//! From facts and a question to an answer. No I/O, no clock, and it can't fail:
//! what is missing becomes a gap of the answer.

mod forward;

pub use forward::{Forward, Target, parse as parse_forward};
pub(crate) use forward::{Piece, Word, telling_words};
