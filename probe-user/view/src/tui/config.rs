//! The configuration of the screen: `~/.config/whereis-port/config.toml`.
//!
//! Pure: text in, settings out, or everything that is wrong with it, each with its line.

use std::fmt::Write as _;

use crossterm::event::KeyCode;
use toml::de::{DeTable, DeValue};

use super::keys::{KeyAction, KeyContext, KeyMap, KeyPress};
use super::theme::{self, Role, Theme};

/// The settings of the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What keys do.
    pub keys: KeyMap,
    /// Colours.
    pub theme: Theme,
    /// Whether the mouse is used. Terminals then select text with Shift held.
    pub mouse: bool,
    /// From how many columns on the path is shown beside the ports.
    pub wide: u16,
    /// Whether only ASCII is drawn; `None` goes by the locale.
    pub ascii: Option<bool>,
    /// For how many seconds a port that is gone stays on the screen.
    pub keep_gone: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keys: KeyMap::default(),
            theme: Theme::default(),
            mouse: true,
            wide: 160,
            ascii: None,
            keep_gone: 30,
        }
    }
}

/// Something that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// The greatest number of columns that `wide-path` may be.
const WIDEST: i64 = 10_000;
/// The longest that a port which is gone may stay: an hour.
const LONGEST: i64 = 3_600;

impl Config {
    /// Understands a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of its lines.
    pub fn parse(text: &str) -> Result<Self, Vec<ConfigError>> {
        let mut reader = ConfigReader { text, wrong: Vec::new(), config: Self::default() };
        match DeTable::parse(text) {
            Ok(table) => reader.all(table.get_ref()),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                reader.wrong(at, error.message().to_owned());
            }
        }
        if reader.wrong.is_empty() {
            return Ok(reader.config);
        }
        reader.wrong.sort_by_key(|wrong| wrong.line);
        Err(reader.wrong)
    }
}

/// What a value of the configuration is.
type ConfigValue<'i> = toml::Spanned<DeValue<'i>>;

/// A configuration that is being read, and what was wrong with it so far.
struct ConfigReader<'t> {
    text: &'t str,
    wrong: Vec<ConfigError>,
    config: Config,
}

impl ConfigReader<'_> {
    fn wrong(&mut self, at: usize, message: String) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        self.wrong.push(ConfigError { line, message });
    }

    fn all(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let Some(section) = value.get_ref().as_table() else {
                let message = format!("{name:?} belongs into a section: [screen], [keys], [theme]");
                self.wrong(key.span().start, message);
                continue;
            };
            for (key, value) in section {
                let at = key.span().start;
                let setting: &str = key.get_ref();
                match name {
                    "screen" => self.screen(at, setting, value),
                    "keys" => self.key(at, setting, value),
                    "theme" => self.look(at, setting, value),
                    _ => {}
                }
            }
            if !matches!(name, "screen" | "keys" | "theme") {
                let message = format!("no section [{name}]: [screen], [keys], [theme]");
                self.wrong(key.span().start, message);
            }
        }
        if let Some((key, first, second)) = self.config.keys.conflict() {
            let message = format!("{} and {} both have the key {key}", first.name(), second.name());
            let at = [second, first].iter().find_map(|action| self.place_of(action.name()));
            self.wrong(at.unwrap_or(0), message);
        }
    }

    /// Where a setting stands.
    fn place_of(&self, name: &str) -> Option<usize> {
        let mut at = 0;
        for line in self.text.split_inclusive('\n') {
            let rest = line.trim_start().strip_prefix(name);
            if rest.is_some_and(|rest| rest.trim_start().starts_with('=')) {
                return Some(at);
            }
            at += line.len();
        }
        None
    }

    fn screen(&mut self, at: usize, setting: &str, value: &ConfigValue<'_>) {
        let place = value.span().start;
        match (setting, value.get_ref()) {
            ("mouse", DeValue::Boolean(on)) => self.config.mouse = *on,
            ("ascii", DeValue::Boolean(on)) => self.config.ascii = Some(*on),
            ("wide-path", value) => match number(value, WIDEST) {
                Some(columns) => self.config.wide = columns,
                None => self.wrong(place, "wide-path is a number of columns: 160".to_owned()),
            },
            ("keep-gone", value) => match number(value, LONGEST) {
                Some(seconds) => self.config.keep_gone = u64::from(seconds),
                None => self.wrong(place, "keep-gone is a number of seconds: 30".to_owned()),
            },
            ("mouse" | "ascii", _) => {
                self.wrong(place, format!("{setting} is true or false"));
            }
            _ => {
                let known = "mouse, ascii, wide-path, keep-gone";
                self.wrong(at, format!("no setting {setting:?} in [screen]: {known}"));
            }
        }
    }

    fn key(&mut self, at: usize, setting: &str, value: &ConfigValue<'_>) {
        let Some(action) = KeyAction::ALL.iter().find(|action| action.name() == setting) else {
            let known: Vec<&str> = KeyAction::ALL.iter().map(|action| action.name()).collect();
            self.wrong(at, format!("no action {setting:?}: {}", known.join(", ")));
            return;
        };
        let mut keys = Vec::new();
        let one = std::slice::from_ref(value);
        let array = match value.get_ref() {
            DeValue::Array(array) => array,
            _ => one,
        };
        for key in array {
            let place = key.span().start;
            match key.get_ref().as_str().map(KeyPress::parse) {
                Some(Ok(key)) => keys.push(key),
                Some(Err(message)) => self.wrong(place, message),
                None => self.wrong(place, format!("a key is text: {setting} = [\"x\"]")),
            }
        }
        self.config.keys.bind(*action, keys);
    }

    fn look(&mut self, at: usize, setting: &str, value: &ConfigValue<'_>) {
        let Some(role) = Role::ALL.into_iter().find(|role| role.name() == setting) else {
            let known = Role::ALL.map(Role::name).join(", ");
            self.wrong(at, format!("nothing on the screen is called {setting:?}: {known}"));
            return;
        };
        let place = value.span().start;
        match value.get_ref().as_str().map(theme::parse) {
            Some(Ok(look)) => self.config.theme.set(role, look),
            Some(Err(message)) => self.wrong(place, message),
            None => self.wrong(place, format!("a look is text: {setting} = \"bold cyan\"")),
        }
    }
}

fn number(value: &DeValue<'_>, most: i64) -> Option<u16> {
    let integer = value.as_integer()?;
    let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
    u16::try_from(number).ok().filter(|_| number <= most)
}

/// A configuration with everything in it as it is without one, and what it means.
pub fn example() -> String {
    let mut text = String::from(
        "# The screen of whereis-port: ~/.config/whereis-port/config.toml\n\
         # (or $XDG_CONFIG_HOME/whereis-port/config.toml, or --config FILE).\n\
         # This is what holds without one. `whereis-port config check` says what is wrong.\n\n\
         [screen]\n\
         # Clicks, the wheel, and sorting by a click on a column's name. Where it is on,\n\
         # terminals select text with Shift held.\n\
         mouse = true\n\
         # Draw with ASCII only. Without this line the locale decides.\n\
         # ascii = false\n\
         # From how many columns on the path stands beside the ports.\n\
         wide-path = 160\n\
         # For how many seconds a port that is gone stays, greyed.\n\
         keep-gone = 30\n\n\
         # A key is a character or a name (enter, esc, tab, space, up, pgdn, f5, ...), with ctrl-,\n\
         # alt- or shift- before it. An action has one key, or a list of them; [] is none.\n\
         [keys]\n",
    );
    for place in KeyContext::ALL {
        let _ = writeln!(text, "# {}", place.title());
        for action in KeyAction::ALL.iter().filter(|action| action.place() == place) {
            let keys: Vec<String> = action.usual().iter().map(|key| format!("{key:?}")).collect();
            let setting = format!("{} = [{}]", action.name(), keys.join(", "));
            let _ = writeln!(text, "{setting:<34} # {}", action.about());
        }
    }
    text.push_str(
        "\n# Colours: names (cyan, light-red), numbers of the 256, #rrggbb, `on` before the\n\
         # background's; and bold, dim, italic, underlined, reversed. A terminal that has fewer\n\
         # shows the nearest; NO_COLOR shows none.\n\
         [theme]\n",
    );
    for role in Role::ALL {
        let _ = writeln!(text, "{} = {:?}", role.name(), role.usual());
    }
    text
}

/// Whether a key quits wherever it is pressed, whatever is configured: without one, a
/// configuration could lock its user in.
pub(super) fn always_quits(key: crossterm::event::KeyEvent) -> bool {
    key.code == KeyCode::Char('c')
        && key.modifiers.contains(crossterm::event::KeyModifiers::CONTROL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Vec<(usize, String)> {
        let wrong = Config::parse(text).expect_err("it is wrong");
        wrong.into_iter().map(|wrong| (wrong.line, wrong.message)).collect()
    }

    #[test]
    fn the_example_is_what_holds_without_one() {
        assert_eq!(Config::parse(&example()), Ok(Config::default()));
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn settings_change_what_they_name() {
        let text = "[screen]\nmouse = false\nwide-path = 120\nkeep-gone = 5\nascii = true\n\
                    [keys]\nquit = \"ctrl-q\"\ndown = [\"n\", \"down\"]\nnext-match = \"j\"\n\
                    [theme]\nnew = \"#ff8800 on black\"\n";
        let config = Config::parse(text).unwrap();
        assert_eq!((config.mouse, config.wide, config.keep_gone), (false, 120, 5));
        assert_eq!(config.ascii, Some(true));
        let key = |key| config.keys.action(KeyContext::Ports, KeyPress::parse(key).unwrap());
        assert_eq!(key("ctrl-q"), Some(KeyAction::Quit));
        assert_eq!(key("q"), None);
        assert_eq!(key("n"), Some(KeyAction::Down));
        assert_eq!(key("j"), Some(KeyAction::NextMatch));
        assert_ne!(config.theme, Theme::default());
    }

    #[test]
    fn everything_wrong_is_said_with_its_line() {
        let text = "mouse = true\n[screen]\nmouse = 1\nwide-path = -3\nmose = true\n\n[keys]\n\
                    quit = [\"q\", \"hyper-q\"]\nexplode = \"x\"\ndown = 7\n[theme]\n\
                    new = \"blurple\"\nnever = \"red\"\n[colours]\nx = 1\n";
        let wrong = wrong(text);
        let said = |line: usize, part: &str| {
            let has = wrong.iter().any(|(at, message)| *at == line && message.contains(part));
            assert!(has, "line {line}: {part}: {wrong:#?}");
        };
        said(1, "belongs into a section");
        said(3, "mouse is true or false");
        said(4, "wide-path is a number of columns");
        said(5, "no setting \"mose\" in [screen]");
        said(8, "there is no key \"hyper-q\"");
        said(9, "no action \"explode\"");
        said(10, "a key is text");
        said(12, "\"blurple\" is no colour");
        said(13, "nothing on the screen is called \"never\"");
        said(14, "no section [colours]");
        assert_eq!(wrong.len(), 10);
    }

    #[test]
    fn what_is_no_toml_is_said_with_its_line() {
        let wrong = wrong("[screen]\nmouse = true\nwide-path 160\n");
        assert_eq!(wrong.len(), 1);
        assert_eq!(wrong[0].0, 3, "{wrong:?}");
    }

    #[test]
    fn one_key_for_two_actions_is_wrong() {
        let wrong = wrong("[keys]\n\nrefresh = \"q\"\n");
        assert_eq!(wrong, [(3, "quit and refresh both have the key q".to_owned())]);
    }
}
