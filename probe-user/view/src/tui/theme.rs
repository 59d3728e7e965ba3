//! Colours: what each thing on the screen looks like, as far as the terminal can show it.

use ratatui::style::{Color, Modifier, Style};

/// What something on the screen is, for its look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The name of the tool, titles.
    Title,
    /// The line at the top, and the one with the keys.
    Bar,
    /// Names of columns.
    Header,
    /// What is selected.
    Selected,
    /// A row that has just come.
    New,
    /// A row that has gone.
    Gone,
    /// The name of a group.
    Group,
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
    /// Lines between parts of the screen.
    Border,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Title,
        Self::Bar,
        Self::Header,
        Self::Selected,
        Self::New,
        Self::Gone,
        Self::Group,
        Self::Strong,
        Self::Dim,
        Self::Label,
        Self::Good,
        Self::Warn,
        Self::Border,
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Bar => "bar",
            Self::Header => "header",
            Self::Selected => "selected",
            Self::New => "new",
            Self::Gone => "gone",
            Self::Group => "group",
            Self::Strong => "strong",
            Self::Dim => "dim",
            Self::Label => "label",
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Border => "border",
        }
    }

    /// How it looks when nothing else is configured: the terminal's own sixteen colours.
    pub fn usual(self) -> &'static str {
        match self {
            Self::Title | Self::Header | Self::Strong => "bold",
            Self::Bar | Self::Selected => "reversed",
            Self::New => "bold green",
            Self::Gone | Self::Dim | Self::Border => "dim",
            Self::Group => "bold cyan",
            Self::Label => "cyan",
            Self::Good => "green",
            Self::Warn => "yellow",
        }
    }
}

/// How many colours a terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// None at all (`NO_COLOR`, a dumb terminal): bold, dim and reversed are left.
    None,
    /// The sixteen of the ANSI palette.
    Sixteen,
    /// 256 of the xterm palette.
    Indexed,
    /// Any of 16 million.
    True,
}

impl Depth {
    /// What the environment says. `env` looks a variable up; `color` is whether there may
    /// be colours at all.
    pub fn detect(color: bool, env: impl Fn(&str) -> Option<String>) -> Self {
        let of = |name: &str| env(name).unwrap_or_default();
        if !color {
            Self::None
        } else if matches!(of("COLORTERM").as_str(), "truecolor" | "24bit") {
            Self::True
        } else if of("TERM").contains("256color") {
            Self::Indexed
        } else {
            Self::Sixteen
        }
    }
}

/// How everything looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Theme {
    looks: [Style; Role::ALL.len()],
}

impl Default for Theme {
    fn default() -> Self {
        let looks = Role::ALL.map(|role| parse(role.usual()).unwrap_or_default());
        Self { looks }
    }
}

impl Theme {
    /// The look of something.
    pub fn of(&self, role: Role) -> Style {
        let at = Role::ALL.iter().position(|known| *known == role);
        at.and_then(|at| self.looks.get(at)).copied().unwrap_or_default()
    }

    /// Changes the look of something.
    pub(super) fn set(&mut self, role: Role, look: Style) {
        let at = Role::ALL.iter().position(|known| *known == role);
        if let Some(known) = at.and_then(|at| self.looks.get_mut(at)) {
            *known = look;
        }
    }

    /// The same with the colours that a terminal has.
    #[must_use]
    pub fn at(mut self, depth: Depth) -> Self {
        for look in &mut self.looks {
            look.fg = look.fg.and_then(|color| reduce(color, depth));
            look.bg = look.bg.and_then(|color| reduce(color, depth));
        }
        self
    }
}

/// A look as it is written in the configuration: `bold cyan on #202020`.
///
/// # Errors
/// The word that is neither a colour nor a modifier.
pub(super) fn parse(text: &str) -> Result<Style, String> {
    let mut look = Style::default();
    let mut background = false;
    for word in text.split_whitespace() {
        let modifier = match word.to_ascii_lowercase().as_str() {
            "bold" => Some(Modifier::BOLD),
            "dim" => Some(Modifier::DIM),
            "italic" => Some(Modifier::ITALIC),
            "underlined" => Some(Modifier::UNDERLINED),
            "reversed" => Some(Modifier::REVERSED),
            _ => None,
        };
        if word.eq_ignore_ascii_case("on") && !background {
            background = true;
        } else if let Some(modifier) = modifier {
            look = look.add_modifier(modifier);
        } else {
            let color: Color = word.parse().map_err(|_| {
                format!(
                    "{word:?} is no colour: write a name (cyan, bright-red), a number of the \
                     256, or #rrggbb; and bold, dim, italic, underlined, reversed, on"
                )
            })?;
            look = if background { look.bg(color) } else { look.fg(color) };
        }
    }
    Ok(look)
}

/// The nearest colour that a terminal has; `None` for its own.
fn reduce(color: Color, depth: Depth) -> Option<Color> {
    match (color, depth) {
        (_, Depth::None) => None,
        (Color::Rgb(r, g, b), Depth::Indexed) => Some(Color::Indexed(cube(r, g, b))),
        (Color::Rgb(r, g, b), Depth::Sixteen) => Some(basic(r, g, b)),
        (Color::Indexed(index), Depth::Sixteen) => {
            let (r, g, b) = rgb(index);
            Some(basic(r, g, b))
        }
        (color, _) => Some(color),
    }
}

/// The nearest of the 6 × 6 × 6 colours from 16 on.
fn cube(r: u8, g: u8, b: u8) -> u8 {
    let level = |value: u8| match value {
        0..48 => 0,
        48..115 => 1,
        _ => (value - 35) / 40,
    };
    16 + 36 * level(r) + 6 * level(g) + level(b)
}

/// What one of the 256 is.
fn rgb(index: u8) -> (u8, u8, u8) {
    match index {
        0..16 => {
            let (on, off) = if index > 7 { (255, 85) } else { (170, 0) };
            let bit = |bit: u8| if index & bit == 0 { off } else { on };
            (bit(1), bit(2), bit(4))
        }
        16..232 => {
            let level = |at: u8| if at == 0 { 0 } else { 55 + 40 * at };
            let at = index - 16;
            (level(at / 36), level(at / 6 % 6), level(at % 6))
        }
        _ => {
            let grey = 8 + 10 * (index - 232);
            (grey, grey, grey)
        }
    }
}

/// The nearest of the sixteen.
fn basic(r: u8, g: u8, b: u8) -> Color {
    let most = r.max(g).max(b);
    let bright = most > 200;
    // What is at least half as strong as the strongest is part of the colour.
    let on = |value: u8| most > 60 && u16::from(value) * 2 > u16::from(most);
    match (on(r), on(g), on(b), bright) {
        (false, false, false, _) => Color::Black,
        (true, false, false, false) => Color::Red,
        (false, true, false, false) => Color::Green,
        (true, true, false, false) => Color::Yellow,
        (false, false, true, false) => Color::Blue,
        (true, false, true, false) => Color::Magenta,
        (false, true, true, false) => Color::Cyan,
        (true, true, true, false) => Color::Gray,
        (true, false, false, true) => Color::LightRed,
        (false, true, false, true) => Color::LightGreen,
        (true, true, false, true) => Color::LightYellow,
        (false, false, true, true) => Color::LightBlue,
        (true, false, true, true) => Color::LightMagenta,
        (false, true, true, true) => Color::LightCyan,
        (true, true, true, true) => Color::White,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_modifiers_and_colours() {
        let look = parse("bold cyan on #102030").unwrap();
        assert_eq!(look.fg, Some(Color::Cyan));
        assert_eq!(look.bg, Some(Color::Rgb(0x10, 0x20, 0x30)));
        assert_eq!(look.add_modifier, Modifier::BOLD);
        assert!(parse("bold blurple").unwrap_err().contains("\"blurple\" is no colour"));
    }

    #[test]
    fn every_usual_look_is_one() {
        for role in Role::ALL {
            assert!(parse(role.usual()).is_ok(), "{role:?}");
        }
    }

    #[test]
    fn colours_are_reduced_to_what_there_is() {
        let orange = Color::Rgb(255, 136, 0);
        assert_eq!(reduce(orange, Depth::True), Some(orange));
        assert_eq!(reduce(orange, Depth::Indexed), Some(Color::Indexed(208)));
        assert_eq!(reduce(orange, Depth::Sixteen), Some(Color::LightYellow));
        assert_eq!(reduce(Color::Indexed(196), Depth::Sixteen), Some(Color::LightRed));
        assert_eq!(reduce(Color::Cyan, Depth::Sixteen), Some(Color::Cyan));
        assert_eq!(reduce(Color::Cyan, Depth::None), None);
    }

    #[test]
    fn without_colours_what_is_selected_can_still_be_seen() {
        let theme = Theme::default().at(Depth::None);
        assert_eq!(theme.of(Role::Selected).add_modifier, Modifier::REVERSED);
        assert!(Role::ALL.iter().all(|role| theme.of(*role).fg.is_none()));
    }

    #[test]
    fn the_environment_says_how_many_colours_there_are() {
        let depth = |color, pairs: &[(&str, &str)]| {
            let find = |name: &str| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            Depth::detect(color, find)
        };
        assert_eq!(depth(false, &[("COLORTERM", "truecolor")]), Depth::None);
        assert_eq!(depth(true, &[("COLORTERM", "truecolor")]), Depth::True);
        assert_eq!(depth(true, &[("TERM", "screen-256color")]), Depth::Indexed);
        assert_eq!(depth(true, &[("TERM", "linux")]), Depth::Sixteen);
    }
}
