//! What keys do. The help on the screen and the configuration are made from this table.

use std::fmt;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// The view in which a key does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyContext {
    /// In every view.
    Anywhere,
    /// In the table of ports.
    Ports,
    /// In a view of text: a path, the sources, this help.
    Text,
    /// In the view of events.
    Events,
}

impl KeyContext {
    /// How the help calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Anywhere => "Everywhere",
            Self::Ports => "Ports",
            Self::Text => "Path, Sources, Help",
            Self::Events => "Events",
        }
    }

    /// The places in the order of the help.
    pub const ALL: [Self; 4] = [Self::Anywhere, Self::Ports, Self::Text, Self::Events];
}

macro_rules! actions {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal $place:ident [$($key:literal),*];)*) => {
        /// What a key can do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum KeyAction {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl KeyAction {
            /// All of them, in the order of the help.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in the configuration.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Where it works.
            pub fn place(self) -> KeyContext {
                match self { $(Self::$variant => KeyContext::$place,)* }
            }

            /// What it does, in a few words.
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)* }
            }

            /// The keys that it has when nothing else is configured.
            pub fn usual(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($key),*],)* }
            }
        }
    };
}

actions! {
    /// show the keys
    Help "help" Anywhere ["?", "f1"];
    /// end
    Quit "quit" Anywhere ["q", "ctrl-c"];
    /// next view
    NextView "next-view" Anywhere ["tab"];
    /// previous view
    PreviousView "previous-view" Anywhere ["shift-tab"];
    /// the ports
    ViewPorts "ports" Anywhere ["1"];
    /// the path of the selected port
    ViewPath "path" Anywhere ["2"];
    /// what happens
    ViewEvents "events" Anywhere ["3"];
    /// what is read, and what is missing
    ViewSources "sources" Anywhere ["4"];
    /// down
    Down "down" Anywhere ["j", "down"];
    /// up
    Up "up" Anywhere ["k", "up"];
    /// a page down
    PageDown "page-down" Anywhere ["pgdn", "ctrl-f"];
    /// a page up
    PageUp "page-up" Anywhere ["pgup", "ctrl-b"];
    /// to the top
    Top "top" Anywhere ["home"];
    /// to the bottom
    Bottom "bottom" Anywhere ["G", "end"];
    /// follow: the path of a port, the row of a hop
    Open "open" Anywhere ["enter"];
    /// back, close, undo the filter
    Back "back" Anywhere ["esc", "backspace"];
    /// filter, or search in text
    Filter "filter" Anywhere ["/"];
    /// next match, or next row that is new or gone
    NextMatch "next-match" Anywhere ["n"];
    /// previous match
    PreviousMatch "previous-match" Anywhere ["N"];
    /// copy as text
    Copy "copy" Anywhere ["y"];
    /// copy as JSON
    CopyJson "copy-json" Anywhere ["Y"];
    /// export what the screen answers to a file
    Export "export" Anywhere ["e"];
    /// read everything anew
    Refresh "refresh" Anywhere ["r", "f5"];
    /// pause and go on
    Pause "pause" Anywhere ["p"];
    /// a command
    Command "command" Anywhere [":"];
    /// draw the screen anew
    Redraw "redraw" Anywhere ["ctrl-l"];
    /// stop for now, `fg` goes on
    Suspend "suspend" Anywhere ["ctrl-z"];
    /// group by netns, container, pod, cluster, process, service, workload, or not
    Group "group" Ports ["g"];
    /// fold or unfold the group
    Fold "fold" Ports ["space", "left", "right"];
    /// fold or unfold all groups
    FoldAll "fold-all" Ports ["z"];
    /// sort by the next column
    Sort "sort" Ports ["s"];
    /// sort the other way round
    Reverse "reverse" Ports ["S"];
    /// TCP only
    Tcp "tcp-only" Ports ["t"];
    /// UDP only
    Udp "udp-only" Ports ["u"];
    /// IPv4 only, IPv6 only, both
    Family "family" Ports ["i"];
    /// bound to loopback only
    Loopback "loopback-only" Ports ["l"];
    /// in containers only
    Containers "containers-only" Ports ["c"];
    /// without the kernel's own
    Kernel "kernel-owned" Ports ["K"];
    /// all evidence, or where each step is known from
    Evidence "evidence" Text ["v"];
    /// to the top
    TextTop "text-top" Text ["g"];
    /// copy the command that is proposed
    CopyFix "copy-fix" Text ["f"];
    /// next hop
    NextHop "next-hop" Text ["]", "right"];
    /// previous hop
    PreviousHop "previous-hop" Text ["[", "left"];
    /// to the top
    EventsTop "events-top" Events ["g"];
    /// short-lived listeners and how often they came
    History "history" Events ["h"];
}

/// A key as it is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyPress {
    code: KeyCode,
    modifiers: KeyModifiers,
}

impl KeyPress {
    /// What a terminal says. Shift is part of a character already.
    pub fn of(event: KeyEvent) -> Self {
        let mut modifiers =
            event.modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SHIFT);
        let mut code = event.code;
        if matches!(code, KeyCode::Char(_) | KeyCode::BackTab) {
            modifiers.remove(KeyModifiers::SHIFT);
        }
        if let (KeyCode::Char(c), true) = (code, modifiers.contains(KeyModifiers::CONTROL)) {
            code = KeyCode::Char(c.to_ascii_lowercase());
        }
        Self { code, modifiers }
    }

    /// What a terminal says when it is pressed.
    pub fn event(self) -> KeyEvent {
        KeyEvent::new(self.code, self.modifiers)
    }

    /// A key as it is written in the configuration.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut modifiers = KeyModifiers::NONE;
        let mut rest = text;
        while let Some((modifier, key)) = rest.split_once('-').filter(|(_, key)| !key.is_empty()) {
            modifiers |= match modifier.to_ascii_lowercase().as_str() {
                "ctrl" => KeyModifiers::CONTROL,
                "alt" => KeyModifiers::ALT,
                "shift" => KeyModifiers::SHIFT,
                _ => break,
            };
            rest = key;
        }
        let mut chars = rest.chars();
        let code = match (chars.next(), chars.next()) {
            (Some(c), None) => KeyCode::Char(c),
            _ => named(&rest.to_ascii_lowercase()).ok_or_else(|| {
                format!(
                    "there is no key {text:?}: write a character, or one of {}, f1 to f12; with \
                     ctrl-, alt- or shift- before it",
                    NAMES.map(|(name, _)| name).join(", ")
                )
            })?,
        };
        if code == KeyCode::Tab && modifiers == KeyModifiers::SHIFT {
            return Ok(Self { code: KeyCode::BackTab, modifiers: KeyModifiers::NONE });
        }
        Ok(Self { code, modifiers })
    }
}

const NAMES: [(&str, KeyCode); 15] = [
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("space", KeyCode::Char(' ')),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
    ("insert", KeyCode::Insert),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("pgup", KeyCode::PageUp),
    ("pgdn", KeyCode::PageDown),
];

fn named(name: &str) -> Option<KeyCode> {
    if let Some((_, code)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*code);
    }
    let number = name.strip_prefix('f')?.parse().ok().filter(|n| (1..=12).contains(n))?;
    Some(KeyCode::F(number))
}

impl fmt::Display for KeyPress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (modifier, name) in [
            (KeyModifiers::CONTROL, "ctrl-"),
            (KeyModifiers::ALT, "alt-"),
            (KeyModifiers::SHIFT, "shift-"),
        ] {
            if self.modifiers.contains(modifier) {
                f.write_str(name)?;
            }
        }
        match self.code {
            KeyCode::BackTab => f.write_str("shift-tab"),
            KeyCode::F(number) => write!(f, "f{number}"),
            code => match (NAMES.iter().find(|(_, known)| *known == code), code) {
                (Some((name, _)), _) => f.write_str(name),
                (None, KeyCode::Char(c)) => write!(f, "{c}"),
                (None, _) => f.write_str("?"),
            },
        }
    }
}

/// Which key does what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyMap {
    bound: Vec<(KeyAction, Vec<KeyPress>)>,
}

impl Default for KeyMap {
    fn default() -> Self {
        let keys = |action: KeyAction| {
            let keys = action.usual().iter().filter_map(|key| KeyPress::parse(key).ok());
            (action, keys.collect())
        };
        Self { bound: KeyAction::ALL.iter().map(|action| keys(*action)).collect() }
    }
}

impl KeyMap {
    /// What a key does in a place: what it does there first, else what it does anywhere.
    pub fn action(&self, place: KeyContext, key: KeyPress) -> Option<KeyAction> {
        let of = |place: KeyContext| {
            let mut bound = self.bound.iter();
            bound.find(|(action, keys)| action.place() == place && keys.contains(&key))
        };
        of(place).or_else(|| of(KeyContext::Anywhere)).map(|(action, _)| *action)
    }

    /// The keys of an action, as they are shown: `j down`.
    pub fn shown(&self, action: KeyAction) -> String {
        let keys: Vec<String> = self.keys(action).iter().map(ToString::to_string).collect();
        keys.join(" ")
    }

    /// The first key of an action.
    pub fn first(&self, action: KeyAction) -> String {
        self.keys(action).first().map(ToString::to_string).unwrap_or_default()
    }

    fn keys(&self, action: KeyAction) -> &[KeyPress] {
        let bound = self.bound.iter().find(|(known, _)| *known == action);
        bound.map(|(_, keys)| keys.as_slice()).unwrap_or_default()
    }

    /// Gives an action these keys instead of those that it has.
    pub(super) fn bind(&mut self, action: KeyAction, keys: Vec<KeyPress>) {
        if let Some((_, bound)) = self.bound.iter_mut().find(|(known, _)| *known == action) {
            *bound = keys;
        }
    }

    /// Two actions that have the same key in the same place.
    pub(super) fn conflict(&self) -> Option<(KeyPress, KeyAction, KeyAction)> {
        for (at, (action, keys)) in self.bound.iter().enumerate() {
            for (other, others) in self.bound.get(at + 1..).unwrap_or_default() {
                if action.place() != other.place() {
                    continue;
                }
                if let Some(key) = keys.iter().find(|key| others.contains(key)) {
                    return Some((*key, *action, *other));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_shown() {
        for text in ["q", "Q", "ctrl-c", "alt-x", "shift-tab", "enter", "space", "f12", "?", "-"] {
            assert_eq!(KeyPress::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "f13", "ctrl-", "hyper-x", "ab"] {
            assert!(KeyPress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_usual_keys_are_keys_and_do_not_conflict() {
        for action in KeyAction::ALL {
            for key in action.usual() {
                assert!(KeyPress::parse(key).is_ok(), "{key}");
            }
        }
        assert_eq!(KeyMap::default().conflict(), None);
    }

    #[test]
    fn a_place_goes_before_everywhere() {
        let keys = KeyMap::default();
        let key = KeyPress::parse("g").unwrap();
        assert_eq!(keys.action(KeyContext::Ports, key), Some(KeyAction::Group));
        assert_eq!(keys.action(KeyContext::Text, key), Some(KeyAction::TextTop));
        assert_eq!(
            keys.action(KeyContext::Events, KeyPress::parse("q").unwrap()),
            Some(KeyAction::Quit)
        );
        assert_eq!(keys.action(KeyContext::Ports, KeyPress::parse("~").unwrap()), None);
    }

    #[test]
    fn what_a_terminal_sends_is_the_key_that_is_written() {
        let event = |code, modifiers| KeyPress::of(KeyEvent::new(code, modifiers));
        let shift = KeyModifiers::SHIFT;
        assert_eq!(event(KeyCode::Char('G'), shift), KeyPress::parse("G").unwrap());
        assert_eq!(event(KeyCode::BackTab, shift), KeyPress::parse("shift-tab").unwrap());
        let control = KeyModifiers::CONTROL;
        assert_eq!(event(KeyCode::Char('C'), control), KeyPress::parse("ctrl-c").unwrap());
    }
}
