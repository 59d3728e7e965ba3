//! Reading the TOML of policies and profiles: everything that is wrong is told, with its place.

use std::fmt;

use toml::de::{DeTable, DeValue};

/// A value with its place in the text.
pub(super) type TomlValue<'i> = toml::Spanned<DeValue<'i>>;

/// Something that is wrong with a TOML file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TomlError {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for TomlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// A TOML file that is being read, and what was wrong with it so far.
pub(super) struct TomlReader<'t> {
    text: &'t str,
    wrong: Vec<TomlError>,
}

impl<'t> TomlReader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, wrong: Vec::new() }
    }

    /// The table that the text is, if it is one.
    pub(super) fn table(&mut self) -> Option<toml::Spanned<DeTable<'t>>> {
        match DeTable::parse(self.text) {
            Ok(table) => Some(table),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                self.wrong(at, error.message().to_owned());
                None
            }
        }
    }

    /// Notes what is wrong at a byte of the text.
    pub(super) fn wrong(&mut self, at: usize, message: impl Into<String>) {
        let (line, column) = self.place(at);
        self.wrong.push(TomlError { line, column, message: message.into() });
    }

    /// The line and column of a byte.
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let last = before.rsplit('\n').next().unwrap_or_default();
        (line, last.chars().count() + 1)
    }

    /// What was read, or all that is wrong with it in the order of its lines.
    pub(super) fn finish<T>(mut self, read: T) -> Result<T, Vec<TomlError>> {
        if self.wrong.is_empty() {
            return Ok(read);
        }
        self.wrong.sort_by_key(|wrong| (wrong.line, wrong.column));
        Err(self.wrong)
    }

    /// Notes that there is no such key.
    pub(super) fn unknown(&mut self, at: usize, key: &str, place: &str, known: &[&str]) {
        self.wrong(at, format!("no key {key:?} in {place}: there is {}", known.join(", ")));
    }

    /// A text.
    pub(super) fn text(&mut self, key: &str, value: &TomlValue<'_>) -> Option<String> {
        let text = value.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong(value.span().start, format!("{key} is text, in quotation marks"));
        }
        text
    }

    /// Whether it is true.
    pub(super) fn truth(&mut self, key: &str, value: &TomlValue<'_>) -> bool {
        if let DeValue::Boolean(truth) = value.get_ref() {
            return *truth;
        }
        self.wrong(value.span().start, format!("{key} is true or false"));
        false
    }

    /// A text, or a list of them, each understood by `parse`; with what it says where it can't
    /// be.
    pub(super) fn each<T>(
        &mut self,
        key: &str,
        value: &TomlValue<'_>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let one = std::slice::from_ref(value);
        let list = match value.get_ref() {
            DeValue::Array(list) => list,
            _ => one,
        };
        let mut all = Vec::new();
        for value in list {
            match value.get_ref().as_str().map(&parse) {
                Some(Ok(one)) => all.push(one),
                Some(Err(message)) => self.wrong(value.span().start, message),
                None => {
                    let message = format!("{key} is text or a list of texts: {key} = [\"…\"]");
                    self.wrong(value.span().start, message);
                }
            }
        }
        if list.is_empty() {
            self.wrong(value.span().start, format!("{key} is an empty list: leave it out"));
        }
        all
    }

    /// The tables of a list, `[[key]]`.
    pub(super) fn tables<'v, 'i>(
        &mut self,
        key: &str,
        value: &'v TomlValue<'i>,
    ) -> Vec<(usize, &'v DeTable<'i>)> {
        let DeValue::Array(list) = value.get_ref() else {
            self.wrong(value.span().start, format!("{key} is a list of tables: [[{key}]]"));
            return Vec::new();
        };
        let mut all = Vec::new();
        for one in list {
            match one.get_ref() {
                DeValue::Table(table) => all.push((one.span().start, table)),
                _ => self.wrong(one.span().start, format!("{key} is a list of tables: [[{key}]]")),
            }
        }
        all
    }
}
