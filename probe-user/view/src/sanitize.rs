//! Making untrusted text safe to show.
//!
//! A process, a container or an interface chooses its own name, and so may try
//! to move the cursor, recolour the screen or reverse the reading order of what
//! follows. Terminals get [`clean`] text; JSON gets the same characters escaped,
//! so that nothing is lost and nothing is raw. Which they are is said in [`whereis_port_model::escape`].

use std::borrow::Cow;

pub use whereis_port_model::escape::SafeJson;

use whereis_port_model::escape::Shown;

/// The most characters of one text that are shown.
pub const MAX_CHARS: usize = 512;

/// What stands for a character that is not shown. Leaving it out instead would
/// let a name pass for another one.
const REPLACEMENT: char = '\u{fffd}';

/// `text`, safe for a terminal: one line, at most [`MAX_CHARS`] characters, with
/// newlines and tabs as spaces and every other character that moves the cursor, turns the
/// order of reading, or can't be seen, replaced. An escape sequence loses its escape
/// character, so that the rest of it is plain text.
pub fn clean(text: &str) -> Cow<'_, str> {
    // Bytes are at least as many as characters, so short ASCII needs no second look.
    if text.len() <= MAX_CHARS && text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Cow::Borrowed(text);
    }
    let mut is_shown = Shown::default();
    let mut chars = text.chars().map(|c| match (c, is_shown.next(c)) {
        ('\n' | '\t' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}', _) => ' ',
        (c, true) => c,
        (_, false) => REPLACEMENT,
    });
    let mut shown: String = chars.by_ref().take(MAX_CHARS).collect();
    if chars.next().is_some() {
        shown.pop();
        shown.push('…');
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use whereis_port_model::escape::{HOSTILE, is_unsafe};

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
        // Blanks that are no space, and letters that nothing is drawn for.
        for hidden in [
            '\u{34f}',
            '\u{115f}',
            '\u{1160}',
            '\u{17b4}',
            '\u{17b5}',
            '\u{180b}',
            '\u{180f}',
            '\u{2800}',
            '\u{3164}',
            '\u{fe00}',
            '\u{fe0f}',
            '\u{ffa0}',
            '\u{e0100}',
            '\u{e01ef}',
            '\u{a0}',
            '\u{1680}',
            '\u{2003}',
            '\u{202f}',
            '\u{205f}',
            '\u{3000}',
            '\u{2065}',
            '\u{e0fff}',
            '\u{1d173}',
            '\u{1bca0}',
            '\u{fff0}',
            '\u{e000}',
            '\u{10fffd}',
            '\u{ffff}',
        ] {
            assert_eq!(clean(&format!("ngi{hidden}nx")), "ngi\u{fffd}nx", "{hidden:?}");
        }
    }

    #[test]
    fn marks_are_not_stacked_without_end() {
        // As names are really written, composed and not.
        for name in
            ["grüße", "gru\u{308}ße", "เน็ต", "עִבְרִית", "हिन्दी", "각", "\u{1100}\u{1161}\u{11a8}"]
        {
            assert_eq!(clean(name), name);
        }
        let tower = clean(&format!("e{}x", "\u{301}".repeat(9))).into_owned();
        assert_eq!(tower, format!("e{}{}x", "\u{301}".repeat(4), "\u{fffd}".repeat(5)));
        // One that begins a text would stand on what is before it.
        assert_eq!(clean("\u{338}x"), "\u{fffd}x");
    }

    #[test]
    fn long_text_is_capped() {
        let shown = clean(&"x".repeat(10_000)).into_owned();
        assert_eq!(shown.chars().count(), MAX_CHARS);
        assert!(shown.ends_with("x…"));
        let exact = "é".repeat(MAX_CHARS);
        assert_eq!(clean(&exact), exact);
    }
}
