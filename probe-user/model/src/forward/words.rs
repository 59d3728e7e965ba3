//! Words of a command line, taken apart by what their parts are.

use std::fmt;

/// A part of a command line's word, by what it says of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WordPart {
    /// A flag, a keyword, a number or punctuation: the same on every machine.
    Keep(String),
    /// An IP address or a host name.
    Host(String),
    /// A name that people gave.
    Name(String),
    /// A path in the file system.
    Path(String),
}

impl WordPart {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        let (Self::Keep(text) | Self::Host(text) | Self::Name(text) | Self::Path(text)) = self;
        text
    }
}

/// One word of a command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word(pub Vec<WordPart>);

impl Word {
    /// A word that is the same everywhere.
    pub(super) fn keep(text: impl fmt::Display) -> Self {
        Self::default().then(text)
    }

    /// A word that is a host.
    pub(super) fn host(text: impl fmt::Display) -> Self {
        Self::default().then_host(text)
    }

    /// A word that is a name.
    pub(super) fn name(text: impl fmt::Display) -> Self {
        Self::default().then_name(text)
    }

    /// A word that is a path.
    pub(super) fn path(text: impl fmt::Display) -> Self {
        Self::default().then_path(text)
    }

    /// The word, followed by text that is the same everywhere.
    pub(super) fn then(mut self, text: impl fmt::Display) -> Self {
        self.0.push(WordPart::Keep(text.to_string()));
        self
    }

    /// The word, followed by a host.
    pub(super) fn then_host(mut self, text: impl fmt::Display) -> Self {
        self.0.push(WordPart::Host(text.to_string()));
        self
    }

    /// The word, followed by a host that is bracketed if it has colons.
    pub(super) fn then_bracketed(self, text: &str) -> Self {
        if text.contains(':') {
            self.then("[").then_host(text).then("]")
        } else {
            self.then_host(text)
        }
    }

    /// The word, followed by a name.
    pub(super) fn then_name(mut self, text: impl fmt::Display) -> Self {
        self.0.push(WordPart::Name(text.to_string()));
        self
    }

    /// The word, followed by a path.
    pub(super) fn then_path(mut self, text: impl fmt::Display) -> Self {
        self.0.push(WordPart::Path(text.to_string()));
        self
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| f.write_str(piece.as_str()))
    }
}
