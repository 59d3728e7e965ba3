//! The text views on the screen: what they painted becomes styles of the theme.
//!
//! Only text of this crate's own views comes here, which is safe already. All that it
//! has are the five inks of [`crate::style`].

use ratatui::text::{Line, Span};

use super::theme::{Role, Theme};

/// The lines of `text`, with its colours as the theme has them.
pub(super) fn lines(text: &str, theme: &Theme) -> Vec<Line<'static>> {
    text.lines().map(|line| one(line, theme)).collect()
}

/// `text` with its lines cut into pieces of at most `columns`, where they are longer: a
/// terminal would do that for commands, which no line of a text is broken in.
pub(super) fn folded(text: &str, columns: usize) -> String {
    let mut folded = String::with_capacity(text.len());
    for line in text.lines() {
        let (mut used, mut escape) = (0, false);
        for c in line.chars() {
            let was = escape;
            escape = c == '\u{1b}' || escape && c != 'm';
            if !was && !escape {
                let wide = columns_of(c);
                if used + wide > columns.max(2) {
                    folded.push('\n');
                    used = 0;
                }
                used += wide;
            }
            folded.push(c);
        }
        folded.push('\n');
    }
    folded
}

fn columns_of(c: char) -> usize {
    crate::columns(c.encode_utf8(&mut [0; 4]))
}

/// `text` without its colours.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for (piece, _) in pieces(text) {
        plain.push_str(piece);
    }
    plain
}

pub(super) fn one(line: &str, theme: &Theme) -> Line<'static> {
    let spans = pieces(line).map(|(piece, role)| match role {
        Some(role) => Span::styled(piece.to_owned(), theme.of(role)),
        None => Span::raw(piece.to_owned()),
    });
    Line::from(spans.collect::<Vec<_>>())
}

/// The pieces of `line` that have one look.
fn pieces(line: &str) -> impl Iterator<Item = (&str, Option<Role>)> {
    let mut role = None;
    line.split('\u{1b}').enumerate().filter_map(move |(at, piece)| {
        let mut text = piece;
        if at > 0
            && let Some((code, rest)) = piece.strip_prefix('[').and_then(|p| p.split_once('m'))
        {
            role = match code {
                "1" => Some(Role::Strong),
                "2" => Some(Role::Dim),
                "36" => Some(Role::Label),
                "32" => Some(Role::Good),
                "33" => Some(Role::Warn),
                _ => None,
            };
            text = rest;
        }
        (!text.is_empty()).then_some((text, role))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style::{Ink, Style};

    #[test]
    fn what_is_too_long_goes_on_in_the_next_line() {
        assert_eq!(
            folded("\u{1b}[36mab\u{1b}[0m cdef\ngh", 4),
            "\u{1b}[36mab\u{1b}[0m c\ndef\ngh\n"
        );
    }

    #[test]
    fn every_ink_becomes_its_role_and_no_escape_is_left() {
        let style = Style { color: true, ..Style::PLAIN };
        for (ink, role) in [
            (Ink::Strong, Role::Strong),
            (Ink::Dim, Role::Dim),
            (Ink::Label, Role::Label),
            (Ink::Good, Role::Good),
            (Ink::Warn, Role::Warn),
        ] {
            let text = format!("a {} c", style.paint(ink, "b"));
            let theme = Theme::default();
            let line = one(&text, &theme);
            let spans: Vec<(&str, ratatui::style::Style)> =
                line.spans.iter().map(|s| (&*s.content, s.style)).collect();
            let none = ratatui::style::Style::default();
            assert_eq!(spans, [("a ", none), ("b", theme.of(role)), (" c", none)]);
            assert_eq!(plain(&text), "a b c");
        }
    }
}
