//! How text may look: colours, width, characters. Decided once, from values
//! that the caller looked up.

use std::borrow::Cow;

use whereis_port_model::{Advice, AdvicePart, Command, Endpoint, NetnsRef};

use super::layout::GLUE;
use super::sanitize::clean;
use super::shell;

/// When colours are used (`--color`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal that can, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How text may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether colours may be used. They never carry meaning alone.
    pub color: bool,
    /// Columns of the terminal. `None` for no limit: nothing is shortened or wrapped.
    pub width: Option<usize>,
    /// Whether characters beyond ASCII can be shown.
    pub unicode: bool,
    /// Whether nothing is drawn: no tables, no trees, one statement a line, for logs and
    /// screen readers.
    pub plain: bool,
}

/// What a piece of text is, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// What is looked at first.
    Strong,
    /// How something is known.
    Dim,
    /// A kind of hop, a label.
    Label,
    /// Something is as it should be.
    Good,
    /// Something is missing.
    Warn,
}

/// The drawing characters.
#[derive(Debug)]
pub(crate) struct Glyphs {
    pub(crate) branch: &'static str,
    pub(crate) last: &'static str,
    pub(crate) bar: &'static str,
    pub(crate) arrow: &'static str,
    pub(crate) becomes: &'static str,
    pub(crate) back: &'static str,
    pub(crate) dot: &'static str,
    pub(crate) ellipsis: &'static str,
}

const UNICODE: Glyphs = Glyphs {
    branch: "├─ ",
    last: "└─ ",
    bar: "│  ",
    arrow: "→",
    becomes: "⇒",
    back: "←",
    dot: "·",
    ellipsis: "…",
};

const ASCII: Glyphs = Glyphs {
    branch: "|- ",
    last: "`- ",
    bar: "|  ",
    arrow: "->",
    becomes: "=>",
    back: "<-",
    dot: "-",
    ellipsis: "...",
};

/// In words, for who hears the text.
const WORDS: Glyphs = Glyphs {
    branch: "then ",
    last: "then ",
    bar: "  ",
    arrow: "to",
    becomes: "as",
    back: "started by",
    dot: ",",
    ellipsis: "...",
};

impl Style {
    /// No colour, no limit, all characters: for files and tests.
    pub const PLAIN: Self = Self { color: false, width: None, unicode: true, plain: false };

    /// Decides from the options, the environment (`env` looks a variable up) and
    /// the terminal. What goes into a pipe is never cut to a width.
    pub fn detect(
        choice: ColorChoice,
        stdout_is_terminal: bool,
        env: impl Fn(&str) -> Option<String>,
        width: Option<usize>,
    ) -> Self {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let color = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if set("NO_COLOR").is_some() => false,
            ColorChoice::Auto if set("CLICOLOR_FORCE").is_some_and(|v| v != "0") => true,
            ColorChoice::Auto if set("CLICOLOR").is_some_and(|v| v == "0") => false,
            ColorChoice::Auto => stdout_is_terminal && set("TERM").is_some_and(|t| t != "dumb"),
        };
        // The first of them that is set decides, as in setlocale(3).
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
        let unicode = locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Self { color, width: width.filter(|_| stdout_is_terminal), unicode, plain: false }
    }

    /// The same with nothing drawn, no colour and no limit: `--plain`.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { color: false, width: None, plain: true, ..self }
    }

    pub(crate) fn glyphs(&self) -> &'static Glyphs {
        match (self.plain, self.unicode) {
            (true, _) => &WORDS,
            (false, true) => &UNICODE,
            (false, false) => &ASCII,
        }
    }

    /// Untrusted text, safe and showable; text that shows nothing gets a name.
    pub(crate) fn text(&self, text: &str) -> String {
        self.shown(text).into_owned()
    }

    /// The same, without a copy of what is plain.
    pub(crate) fn shown<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let shown = clean(text);
        if shown.trim().is_empty() {
            return Cow::Borrowed("(no name)");
        }
        if self.unicode || shown.is_ascii() {
            return shown;
        }
        let mut ascii = String::with_capacity(shown.len());
        for c in shown.chars() {
            match c {
                '…' => ascii.push_str("..."),
                '→' => ascii.push_str("->"),
                '·' => ascii.push('-'),
                c if c.is_ascii() => ascii.push(c),
                _ => ascii.push('?'),
            }
        }
        Cow::Owned(ascii)
    }

    /// What would help, safe and showable, with its commands in one piece each.
    pub(crate) fn advice(&self, advice: &Advice) -> String {
        let part = |piece: &AdvicePart| match piece {
            AdvicePart::Words(words) if words.trim().is_empty() => words.clone(),
            AdvicePart::Words(words) => self.text(words),
            AdvicePart::Name(name) => match shell::word(name).filter(|word| self.can_show(word)) {
                Some(word) => glued(&word),
                None => self.text(name),
            },
            AdvicePart::Command(command) => self.command(command),
            AdvicePart::Or => AdvicePart::OR.to_owned(),
        };
        advice.pieces().iter().map(part).collect()
    }

    /// A command in one piece; where it can't be shown as it is, that there is one.
    pub(crate) fn command(&self, command: &Command) -> String {
        match shell::line(command).filter(|line| self.can_show(line)) {
            Some(line) => glued(&line),
            None => shell::LEFT_OUT.to_owned(),
        }
    }

    fn can_show(&self, text: &str) -> bool {
        self.unicode || text.is_ascii()
    }

    /// `text` in the colour of `ink`, when there are colours.
    pub(crate) fn paint(&self, ink: Ink, text: &str) -> String {
        use anstyle::AnsiColor::{Cyan, Green, Yellow};
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let style = match ink {
            Ink::Strong => anstyle::Style::new().bold(),
            Ink::Dim => anstyle::Style::new().dimmed(),
            Ink::Label => Cyan.on_default(),
            Ink::Good => Green.on_default(),
            Ink::Warn => Yellow.on_default(),
        };
        format!("{style}{text}{style:#}")
    }

    /// A namespace: its name, and its number where that is known.
    pub(crate) fn netns(&self, netns: &NetnsRef) -> String {
        match &netns.name {
            Some(name) => format!("{} ({})", self.text(&name.to_string()), netns.id),
            None => netns.id.to_string(),
        }
    }

    /// An endpoint as users write it, `[::]:6443`, `db.example:5432`.
    pub(crate) fn endpoint(&self, endpoint: &Endpoint) -> String {
        let place = match (&endpoint.address, &endpoint.name) {
            (Some(std::net::IpAddr::V6(address)), None) if endpoint.port.is_some() => {
                format!("[{address}]")
            }
            (Some(address), None) => address.to_string(),
            (Some(address), Some(name)) => format!("{} ({address})", self.text(name)),
            (None, Some(name)) => self.text(name),
            (None, None) => "(address not known)".to_owned(),
        };
        match endpoint.port {
            Some(port) => format!("{place}:{port}"),
            None => place,
        }
    }
}

/// A text that no line is broken in.
fn glued(text: &str) -> String {
    text.replace(' ', GLUE.encode_utf8(&mut [0; 4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(choice: ColorChoice, terminal: bool, env: &[(&str, &str)]) -> Style {
        let lookup =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        Style::detect(choice, terminal, lookup, Some(100))
    }

    #[test]
    fn colour_follows_option_then_environment_then_terminal() {
        use ColorChoice::{Always, Auto, Never};
        let xterm = ("TERM", "xterm-256color");
        for (choice, terminal, env, expected) in [
            (Auto, true, &[xterm][..], true),
            (Auto, false, &[xterm], false),
            (Auto, true, &[("TERM", "dumb")], false),
            (Auto, true, &[], false),
            (Auto, true, &[xterm, ("NO_COLOR", "1")], false),
            (Auto, true, &[xterm, ("NO_COLOR", "")], true),
            (Auto, false, &[("CLICOLOR_FORCE", "1")], true),
            (Auto, false, &[("CLICOLOR_FORCE", "0")], false),
            (Auto, false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
            (Auto, true, &[xterm, ("CLICOLOR", "0")], false),
            (Always, false, &[("NO_COLOR", "1"), ("TERM", "dumb")], true),
            (Never, true, &[xterm, ("CLICOLOR_FORCE", "1")], false),
        ] {
            assert_eq!(
                detect(choice, terminal, env).color,
                expected,
                "{choice:?} {terminal} {env:?}"
            );
        }
    }

    #[test]
    fn characters_follow_the_locale_that_counts() {
        for (env, expected) in [
            (&[("LANG", "de_DE.UTF-8")][..], true),
            (&[("LANG", "C.utf8")], true),
            (&[("LANG", "C")], false),
            (&[], false),
            (&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")], false),
            (&[("LC_ALL", ""), ("LC_CTYPE", "en_US.UTF-8"), ("LANG", "C")], true),
        ] {
            assert_eq!(detect(ColorChoice::Auto, true, env).unicode, expected, "{env:?}");
        }
    }

    #[test]
    fn a_pipe_has_no_width() {
        assert_eq!(detect(ColorChoice::Auto, true, &[]).width, Some(100));
        assert_eq!(detect(ColorChoice::Always, false, &[]).width, None);
    }

    #[test]
    fn an_ascii_terminal_gets_ascii() {
        let ascii = Style { unicode: false, ..Style::PLAIN };
        assert_eq!(ascii.text("grün → 日本…"), "gr?n -> ??...");
        assert_eq!(ascii.text("\u{1b}[2J"), "?[2J");
        assert_eq!(Style::PLAIN.text(" \n"), "(no name)");
    }

    #[test]
    fn paint_is_nothing_without_colour() {
        assert_eq!(Style::PLAIN.paint(Ink::Warn, "x"), "x");
        let color = Style { color: true, ..Style::PLAIN };
        assert_eq!(color.paint(Ink::Strong, "x"), "\u{1b}[1mx\u{1b}[0m");
    }
}
