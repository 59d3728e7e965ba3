//! Making untrusted text safe to show.
//!
//! A process, a container or an interface chooses its own name, and so may try
//! to move the cursor, recolour the screen or reverse the reading order of what
//! follows. Terminals get [`clean`] text; JSON gets the same characters escaped,
//! so that nothing is lost and nothing is raw.

use std::borrow::Cow;
use std::io;

use serde_json::ser::{Formatter, PrettyFormatter};

/// The most characters of one text that are shown.
pub const MAX_CHARS: usize = 512;

/// What stands for a character that is not shown. Leaving it out instead would
/// let a name pass for another one.
const REPLACEMENT: char = '\u{fffd}';

/// `text`, safe for a terminal: one line, at most [`MAX_CHARS`] characters, with
/// newlines and tabs as spaces and every other control, bidirectional and
/// invisible formatting character replaced. An escape sequence loses its escape
/// character, so that the rest of it is plain text.
pub fn clean(text: &str) -> Cow<'_, str> {
    // Bytes are at least as many as characters, so short ASCII needs no second look.
    if text.len() <= MAX_CHARS && text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Cow::Borrowed(text);
    }
    let mut chars = text.chars().map(|c| match c {
        '\n' | '\t' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        c if is_unsafe(c) => REPLACEMENT,
        c => c,
    });
    let mut shown: String = chars.by_ref().take(MAX_CHARS).collect();
    if chars.next().is_some() {
        shown.pop();
        shown.push('…');
    }
    Cow::Owned(shown)
}

/// Whether `c` must not reach a terminal as it is.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' // zero width, directional marks
            | '\u{2028}'..='\u{202e}' // separators, embeddings, overrides
            | '\u{2060}'..='\u{206f}' // invisible operators, isolates
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}') // tags
}

/// A JSON formatter, indenting or not, that escapes every character that
/// [`clean`] would replace.
#[derive(Debug, Default)]
pub struct SafeJson {
    pretty: Option<PrettyFormatter<'static>>,
}

impl SafeJson {
    /// One document on one line.
    pub fn compact() -> Self {
        Self { pretty: None }
    }

    /// Indented for people.
    pub fn pretty() -> Self {
        Self { pretty: Some(PrettyFormatter::new()) }
    }
}

/// The formatter's methods that only lay out: as the indenting formatter has
/// them, or as the compact one.
macro_rules! layout {
    ($($name:ident ( $($arg:ident : $ty:ty),* ) $compact:literal;)*) => {$(
        fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $arg: $ty)*) -> io::Result<()> {
            match &mut self.pretty {
                Some(pretty) => pretty.$name(writer $(, $arg)*),
                None => {
                    let first: Option<bool> = None $(.or(Some($arg)))*;
                    if first == Some(true) { Ok(()) } else { writer.write_all($compact) }
                }
            }
        }
    )*};
}

impl Formatter for SafeJson {
    layout! {
        begin_array() b"[";
        end_array() b"]";
        begin_array_value(first: bool) b",";
        end_array_value() b"";
        begin_object() b"{";
        end_object() b"}";
        begin_object_key(first: bool) b",";
        begin_object_value() b":";
        end_object_value() b"";
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_unsafe) {
            let (before, from) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut chars = from.chars();
            for unit in chars.next().into_iter().flat_map(utf16) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// The one or two UTF-16 units of `c`, which is how JSON escapes it.
fn utf16(c: char) -> Vec<u16> {
    c.encode_utf16(&mut [0; 2]).to_vec()
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    /// One of each kind that must not pass.
    const HOSTILE: &str = "\u{1b}[2J\u{7}\u{7f}\u{9b}31m\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}\u{200b}\u{200d}\u{2028}\u{2029}\u{feff}\u{ad}\u{e0041}\r\n\t\0x";

    fn json(value: &impl Serialize, formatter: SafeJson) -> String {
        let mut out = Vec::new();
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_text_is_borrowed_unchanged() {
        assert!(matches!(clean("kube-apiserver --secure-port=6443"), Cow::Borrowed(_)));
        assert_eq!(clean("grüße-日本"), "grüße-日本");
        assert_eq!(clean(""), "");
    }

    #[test]
    fn an_escape_sequence_becomes_visible_text() {
        assert_eq!(clean("\u{1b}[2Jnginx"), "\u{fffd}[2Jnginx");
        assert_eq!(clean("a\nb\tc"), "a b c");
        assert_eq!(clean("a\u{2028}b"), "a b");
    }

    #[test]
    fn nothing_unsafe_is_left() {
        let shown = clean(HOSTILE);
        assert!(!shown.chars().any(is_unsafe), "{shown:?}");
        assert!(shown.ends_with('x'));
    }

    #[test]
    fn a_name_with_hidden_characters_does_not_pass_for_another() {
        assert_ne!(clean("ngi\u{200b}nx"), "nginx");
        assert_ne!(clean("\u{202e}xnign"), "xnign");
    }

    #[test]
    fn long_text_is_capped() {
        let shown = clean(&"x".repeat(10_000)).into_owned();
        assert_eq!(shown.chars().count(), MAX_CHARS);
        assert!(shown.ends_with("x…"));
        let exact = "é".repeat(MAX_CHARS);
        assert_eq!(clean(&exact), exact);
    }

    #[test]
    fn json_escapes_and_loses_nothing() {
        let text = json(&[HOSTILE], SafeJson::compact());
        assert!(!text.chars().any(is_unsafe), "{text:?}");
        assert!(
            text.contains("\\u202e") && text.contains("\\u009b") && text.contains("\\udb40\\udc41")
        );
        let back: Vec<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, [HOSTILE]);
    }

    #[test]
    fn json_escapes_keys_too_and_keeps_other_text() {
        let map = std::collections::BTreeMap::from([("a\u{202e}b", "grün \"x\" \\")]);
        let text = json(&map, SafeJson::compact());
        assert_eq!(text, r#"{"a\u202eb":"grün \"x\" \\"}"#);
    }

    #[test]
    fn json_is_laid_out_as_serde_json_does() {
        let value = serde_json::json!({"a": [1, {"b": null}, []], "c": {}, "d": "x"});
        assert_eq!(json(&value, SafeJson::compact()), value.to_string());
        assert_eq!(json(&value, SafeJson::pretty()), serde_json::to_string_pretty(&value).unwrap());
    }
}
