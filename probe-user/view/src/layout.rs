//! Fitting text into columns, by the width that terminals give characters.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::style::{Ink, Style};

/// A space that no line is broken at: in a command, whose parts would be commands of their
/// own when they are copied. No text has this character, which is none.
pub(super) const GLUE: char = '\u{fdd0}';

/// How many columns `text` takes.
pub fn width(text: &str) -> usize {
    // Nearly all text is plain.
    if text.bytes().all(|b| (0x20..0x7f).contains(&b)) { text.len() } else { text.width() }
}

/// `text`, padded with spaces to `columns`.
pub(super) fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// `text`, padded on the left to `columns`.
pub(super) fn pad_left(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(width(text))))
}

/// `text` in at most `columns`, its end replaced by `ellipsis` when it is longer.
pub(super) fn shorten(text: &str, columns: usize, ellipsis: &str) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(width(ellipsis));
    let (kept, _) = split(text, room);
    format!("{kept}{ellipsis}")
}

/// `text` in at most `columns`, its middle replaced by `ellipsis` when it is longer: names
/// differ at their end as often as at their beginning.
pub(super) fn shorten_middle(text: &str, columns: usize, ellipsis: &str) -> String {
    let room = columns.saturating_sub(width(ellipsis));
    shorten_behind(text, columns, ellipsis, room.div_ceil(2))
}

/// The same with two thirds of what is kept at its beginning, for names in narrow columns.
pub(super) fn shorten_name(text: &str, columns: usize, ellipsis: &str) -> String {
    let room = columns.saturating_sub(width(ellipsis));
    shorten_behind(text, columns, ellipsis, (2 * room).div_ceil(3))
}

/// `text` in at most `columns`, cut behind the first `head` of them.
fn shorten_behind(text: &str, columns: usize, ellipsis: &str, head: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(width(ellipsis));
    let (head, rest) = split(text, head);
    let room = room - width(head);
    let mut used = 0;
    let mut from = text.len();
    for (at, c) in rest.char_indices().rev() {
        used += c.width().unwrap_or(0);
        if used > room {
            break;
        }
        from = text.len() - rest.len() + at;
    }
    format!("{head}{ellipsis}{}", &text[from..])
}

/// `text` in lines of at most `columns` (at least one), broken at spaces where
/// there are any. What is glued together is not broken, however long it is: the terminal
/// does that, and knows it for one line.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let gap = usize::from(!line.is_empty());
        if width(&line) + gap + width(word) <= columns {
            if gap == 1 {
                line.push(' ');
            }
            line.push_str(word);
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        let mut rest = word;
        while width(rest) > columns && !rest.contains(GLUE) {
            let (head, tail) = split(rest, columns);
            lines.push(head.to_owned());
            rest = tail;
        }
        line.push_str(rest);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

/// The longest head of `text` that fits into `columns`, and the rest.
fn split(text: &str, columns: usize) -> (&str, &str) {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > columns {
            return text.split_at(at);
        }
    }
    (text, "")
}

/// Lines of text as they are written, within the width of a style.
#[derive(Debug)]
pub(super) struct TextPage<'a> {
    pub(super) style: &'a Style,
    out: String,
}

/// Columns below which nothing is fitted any more: lines then run over.
const NARROWEST: usize = 40;

impl<'a> TextPage<'a> {
    pub(super) fn new(style: &'a Style) -> Self {
        Self { style, out: String::new() }
    }

    /// How many columns there are beyond `used`.
    pub(super) fn room(&self, used: usize) -> usize {
        self.style.width.map_or(usize::MAX, |width| width.max(NARROWEST).saturating_sub(used))
    }

    /// Writes one line, without spaces at its end.
    pub(super) fn line(&mut self, line: &str) {
        let line = line.trim_end_matches(' ');
        if line.contains(GLUE) {
            self.out.push_str(&line.replace(GLUE, " "));
        } else {
            self.out.push_str(line);
        }
        self.out.push('\n');
    }

    /// Writes `text` behind `lead`, wrapped, the further lines behind `hang`.
    pub(super) fn paragraph(&mut self, lead: &str, hang: &str, ink: Option<Ink>, text: &str) {
        let room = self.room(width(lead).max(width(hang)));
        for (at, line) in wrap(text, room).iter().enumerate() {
            let prefix = if at == 0 { lead } else { hang };
            let line = ink.map_or_else(|| line.clone(), |ink| self.style.paint(ink, line));
            self.line(&format!("{prefix}{line}"));
        }
    }

    /// Writes a labelled text: the label in a column of `columns`, the text
    /// wrapped in a column of its own. Where that would leave little room, the
    /// further lines hang under the label instead.
    pub(super) fn entry(&mut self, indent: &str, label: (&str, usize, Ink), text: &str) {
        let (label, columns, ink) = label;
        let beside = width(indent) + columns.max(width(label) + 1);
        let hang = if self.room(beside) >= 36 { beside - width(indent) } else { 2 };
        if self.room(beside) < 12 {
            self.line(&format!("{indent}{}", self.style.paint(ink, label)));
            let hang = format!("{indent}  ");
            return self.paragraph(&hang, &hang, None, text);
        }
        let spaces = " ".repeat(columns.max(width(label) + 1) - width(label));
        let first = wrap(text, self.room(beside));
        // The first line may be shorter than the rest have room for.
        let head = first.first().cloned().unwrap_or_default();
        self.line(&format!("{indent}{}{spaces}{head}", self.style.paint(ink, label)));
        let rest = first.get(1..).unwrap_or_default().join(" ");
        if !rest.is_empty() {
            let hang = format!("{indent}{}", " ".repeat(hang));
            self.paragraph(&hang, &hang, None, &rest);
        }
    }

    /// Writes an empty line, unless there is one already, or nothing before.
    pub(super) fn gap(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    /// Takes empty lines at the end away.
    pub(super) fn trim(&mut self) {
        while self.out.ends_with("\n\n") {
            self.out.pop();
        }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(width("日本"), 4);
        assert_eq!(pad("日本", 6), "日本  ");
        assert_eq!(shorten("日本語テキスト", 7, "…"), "日本語…");
        assert_eq!(shorten("日本語テキスト", 6, "…"), "日本…");
    }

    #[test]
    fn the_middle_of_a_long_name_is_cut() {
        assert_eq!(shorten_middle("kube-apiserver-node-1", 11, "…"), "kube-…ode-1");
        assert_eq!(shorten_middle("abc", 3, "…"), "abc");
        assert_eq!(shorten_name("cluster1-control-plane", 14, "…"), "cluster1-…lane");
        assert_eq!(shorten_name("cluster1", 8, "…"), "cluster1");
        assert_eq!(shorten_middle("日本語テキスト", 8, "…"), "日本…ト");
        assert_eq!(shorten_middle("abcdef", 1, "…"), "…");
    }

    #[test]
    fn short_text_is_not_shortened() {
        assert_eq!(shorten("abc", 3, "…"), "abc");
        assert_eq!(shorten("abcd", 3, "..."), "...");
    }

    #[test]
    fn lines_break_at_spaces_and_inside_long_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("", 10), [""]);
    }
}
