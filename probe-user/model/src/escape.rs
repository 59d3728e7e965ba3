//! Which characters are not shown as they are, and JSON without them.
//!
//! What a process, a container or an interface is called may hold characters that move the
//! cursor, turn the order of reading, or can't be seen. This is a leaf: views and recordings
//! use it, and it uses neither.

use std::io;

use serde_json::ser::{Formatter, PrettyFormatter};
use unicode_width::UnicodeWidthChar as _;

/// Characters that can't be seen, or not told from a space, as first and last of each range, in
/// order. Of Unicode 16.0:
/// - `Default_Ignorable_Code_Point` (DerivedCoreProperties.txt), which nothing is drawn for;
/// - of the general category `Zs` all but the space itself, and `Zl` and `Zp`;
/// - what is left of `Cf` that has no form of its own: U+FFF9 to FFFB, U+13430 to 1343F;
/// - what is drawn as nothing: U+2800, U+13441 and 13442, U+16FE4, U+1D159;
/// - private use and noncharacters, which may be drawn as anything, or as nothing.
///
/// Code points that are not assigned are drawn as boxes, and stay.
const HIDDEN: [(u32, u32); 44] = [
    (0xa0, 0xa0),
    (0xad, 0xad),
    (0x34f, 0x34f),
    (0x61c, 0x61c),
    (0x115f, 0x1160),
    (0x1680, 0x1680),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x2000, 0x200f),
    (0x2028, 0x202f),
    (0x205f, 0x206f),
    (0x2800, 0x2800),
    (0x3000, 0x3000),
    (0x3164, 0x3164),
    (0xe000, 0xf8ff),
    (0xfdd0, 0xfdef),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfffb),
    (0xfffe, 0xffff),
    (0x13430, 0x1343f),
    (0x13441, 0x13442),
    (0x16fe4, 0x16fe4),
    (0x1bca0, 0x1bca3),
    (0x1d159, 0x1d159),
    (0x1d173, 0x1d17a),
    (0x1fffe, 0x1ffff),
    (0x2fffe, 0x2ffff),
    (0x3fffe, 0x3ffff),
    (0x4fffe, 0x4ffff),
    (0x5fffe, 0x5ffff),
    (0x6fffe, 0x6ffff),
    (0x7fffe, 0x7ffff),
    (0x8fffe, 0x8ffff),
    (0x9fffe, 0x9ffff),
    (0xafffe, 0xaffff),
    (0xbfffe, 0xbffff),
    (0xcfffe, 0xcffff),
    (0xdfffe, 0xdffff),
    (0xe0000, 0xe0fff),
    (0xefffe, 0xeffff),
    (0xf0000, 0xfffff),
    (0x100000, 0x10ffff),
];

/// How many marks may stand on one character: more than any living script has. Without a
/// limit they cover the lines around.
const MARKS: u8 = 4;

/// Whether `c` must not reach a terminal as it is.
pub fn is_unsafe(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    let c = u32::from(c);
    let hidden =
        |at: usize| HIDDEN.get(at).is_some_and(|(first, last)| (*first..=*last).contains(&c));
    c < 0xa0 || hidden(HIDDEN.partition_point(|(_, last)| *last < c))
}

/// Tells of the characters of a text, one after the other, which may be shown.
#[derive(Debug, Default)]
pub struct Shown {
    /// How many more marks may stand on the last character. None may begin a text: it would
    /// stand on what is before.
    marks: u8,
}

impl Shown {
    /// Whether the next character may be shown as it is.
    pub fn next(&mut self, c: char) -> bool {
        let is_mark = !c.is_ascii() && c.width() == Some(0);
        let shown = !is_unsafe(c) && (!is_mark || self.marks > 0);
        self.marks = if is_mark { self.marks.saturating_sub(1) } else { MARKS };
        shown
    }
}

/// One of each kind of character that must not be shown as it is, for tests.
#[doc(hidden)]
pub const HOSTILE: &str = "\u{1b}[2J\u{7}\u{7f}\u{9b}31m\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}\u{200b}\u{200d}\u{2028}\u{2029}\u{feff}\u{ad}\u{e0041}\u{34f}\u{3164}\u{fe0f}\u{a0}\u{2800}\r\n\t\0x";

/// A JSON formatter, indenting or not, that escapes every character that is not to be shown.
/// The values stay the same.
#[derive(Debug)]
pub struct SafeJson {
    pretty: PrettyFormatter<'static>,
    /// How many levels of arrays and objects are laid out over lines.
    levels: usize,
    /// The level that is being written.
    depth: usize,
}

impl SafeJson {
    /// One document on one line.
    pub fn compact() -> Self {
        Self::levels(0)
    }

    /// Indented for people.
    pub fn pretty() -> Self {
        Self::levels(usize::MAX)
    }

    /// The outer `levels` indented, and what is further in on one line.
    pub fn levels(levels: usize) -> Self {
        Self { pretty: PrettyFormatter::new(), levels, depth: 0 }
    }
}

/// The formatter's methods that only lay out: as the indenting formatter has
/// them, or as the compact one. Those that begin something are a level further in.
macro_rules! layout {
    ($($name:ident ( $($arg:ident : $ty:ty),* ) $compact:literal $($step:ident)?;)*) => {$(
        fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $arg: $ty)*) -> io::Result<()> {
            let step: &str = concat!($(stringify!($step))?);
            if step == "inwards" {
                self.depth = self.depth.saturating_add(1);
            }
            let is_laid_out = self.depth <= self.levels;
            if step == "outwards" {
                self.depth = self.depth.saturating_sub(1);
            }
            if is_laid_out {
                return self.pretty.$name(writer $(, $arg)*);
            }
            let first: Option<bool> = None $(.or(Some($arg)))*;
            if first == Some(true) { Ok(()) } else { writer.write_all($compact) }
        }
    )*};
}

impl Formatter for SafeJson {
    layout! {
        begin_array() b"[" inwards;
        end_array() b"]" outwards;
        begin_array_value(first: bool) b",";
        end_array_value() b"";
        begin_object() b"{" inwards;
        end_object() b"}" outwards;
        begin_object_key(first: bool) b",";
        begin_object_value() b":";
        end_object_value() b"";
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // Nearly all text is this, and the characters of a large list would take long.
        if fragment.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut shown = Shown::default();
        let mut rest = fragment;
        while let Some(at) = rest.find(|c| !shown.next(c)) {
            let (before, from) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut chars = from.chars();
            for unit in chars.next().iter().flat_map(|c| c.encode_utf16(&mut [0; 2]).to_vec()) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests;
