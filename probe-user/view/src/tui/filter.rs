//! Filters of the table: words that any cell may have, and `key:value` terms.
//!
//! ```text
//! kube port:6000-7000 cluster:cluster2 proto:udp state:new -netns:host
//! ```

use std::borrow::Cow;

use super::row::{Row, kind};
use crate::list::columns::Column;

/// The keys of terms, as the message about an unknown one lists them.
pub(super) const KEYS: [&str; 15] = [
    "port",
    "proto",
    "ip",
    "address",
    "process",
    "pid",
    "user",
    "container",
    "pod",
    "cluster",
    "netns",
    "service",
    "target",
    "kind",
    "state",
];

/// Whether a row is new, as it was, or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It came a moment ago.
    New,
    /// It was there before.
    Live,
    /// It is no more.
    Gone,
}

impl Life {
    fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Live => "live",
            Self::Gone => "gone",
        }
    }
}

/// What rows are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    text: String,
    terms: Vec<FilterTerm>,
    /// What is wrong with it, if anything. Wrong terms are left out.
    pub wrong: Option<String>,
}

/// One word of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FilterTerm {
    not: bool,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// Any cell has these characters, in this order.
    Any(String),
    Ports(u16, u16),
    /// The cell of a key has this text.
    Cell(&'static str, String),
}

impl Filter {
    /// Understands a filter. What is wrong with it is in it.
    pub fn parse(text: &str) -> Self {
        let mut filter = Self { text: text.to_owned(), ..Self::default() };
        for word in text.split_whitespace() {
            let (not, word) = match word.strip_prefix(['-', '!']) {
                Some(word) if !word.is_empty() => (true, word),
                _ => (false, word),
            };
            match term(word) {
                Ok(Some(what)) => filter.terms.push(FilterTerm { not, what }),
                Ok(None) => {}
                Err(wrong) => filter.wrong = Some(wrong),
            }
        }
        filter
    }

    /// As it was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it lets everything pass.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether a row is wanted.
    pub fn passes(&self, row: &Row, life: Life) -> bool {
        self.terms.iter().all(|term| term.not != has(row, life, &term.what))
    }

    /// Whether a line of text is wanted: by its words alone.
    pub fn passes_line(&self, line: &str) -> bool {
        self.terms.iter().all(|term| {
            let has = match &term.what {
                What::Any(text) | What::Cell(_, text) => contains(line, text),
                What::Ports(first, last) => line
                    .split(|c: char| !c.is_ascii_digit())
                    .filter_map(|number| number.parse::<u16>().ok())
                    .any(|number| (*first..=*last).contains(&number)),
            };
            term.not != has
        })
    }
}

/// One word. `None` while it is being typed: `port:`.
fn term(word: &str) -> Result<Option<What>, String> {
    let Some((key, value)) = word.split_once(':') else {
        return Ok(Some(What::Any(word.to_lowercase())));
    };
    // `::1` and `[::]:80` are addresses.
    if key.is_empty() || key.starts_with('[') || key.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Some(What::Any(word.to_lowercase())));
    }
    let Some(key) = KEYS.into_iter().find(|known| known.eq_ignore_ascii_case(key)) else {
        return Err(format!("no key {key:?}: {}", KEYS.join(" ")));
    };
    if value.is_empty() {
        return Ok(None);
    }
    if key != "port" {
        return Ok(Some(What::Cell(key, value.to_lowercase())));
    }
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) => Ok(Some(What::Ports(first, last))),
        (Ok(_), Err(_)) if last.is_empty() => Ok(None),
        _ => Err(format!("{value:?} is no port: port:443 or port:8000-8010")),
    }
}

fn has(row: &Row, life: Life, what: &What) -> bool {
    match what {
        What::Ports(first, last) => (*first..=*last).contains(&row.key.port.0),
        What::Any(text) => any(row, text),
        What::Cell("ip", text) => {
            (text == "4") == row.key.address.is_ipv4() && (text == "4" || text == "6")
        }
        What::Cell("proto", text) => row.key.proto.as_str() == text,
        What::Cell("pid", text) => row.key.pid.is_some_and(|pid| pid.to_string() == *text),
        What::Cell("state", text) => {
            life.as_str().starts_with(text.as_str())
                || (life == Life::New && "live".starts_with(text.as_str()))
        }
        // As the column has it, or as JSON.
        What::Cell("kind", text) if row.cell(Column::Kind).is_some_and(|c| contains(c, text)) => {
            true
        }
        // A container may be called like this, too.
        What::Cell("netns", text) if text == "host" => &*row.netns == "host",
        What::Cell(key, text) => cell(row, key).is_some_and(|cell| contains(&cell, text)),
    }
}

fn cell<'a>(row: &'a Row, key: &str) -> Option<Cow<'a, str>> {
    let owner = &row.owner;
    let shared = |text: &'a Option<std::sync::Arc<str>>| text.as_deref().map(Cow::Borrowed);
    let owned = |text: &'a Option<String>| text.as_deref().map(Cow::Borrowed);
    match key {
        "address" => Some(row.key.address.to_string().into()),
        "process" => Some((&*row.process).into()),
        "user" => shared(&row.user),
        "container" => owned(&owner.container),
        "pod" => owned(&owner.pod),
        "cluster" => owned(&owner.cluster),
        "netns" => Some((&*row.netns).into()),
        "service" => shared(&row.service),
        "target" => shared(&row.target),
        "kind" => Some(kind(row).into()),
        _ => None,
    }
}

/// Whether any cell has the characters of `text` in their order.
fn any(row: &Row, text: &str) -> bool {
    let owner = &row.owner;
    let cells = [
        Some(&*row.process),
        Some(&*row.netns),
        row.target.as_deref(),
        row.service.as_deref(),
        row.component.as_deref(),
        row.user.as_deref(),
        owner.container.as_deref(),
        owner.pod.as_deref(),
        owner.cluster.as_deref(),
        Some(row.key.proto.as_str()),
    ];
    if cells.into_iter().flatten().any(|cell| fuzzy(cell, text)) {
        return true;
    }
    // Numbers are not fuzzy: 80 is not 8010.
    row.key.port.to_string().starts_with(text)
        || row.key.pid.is_some_and(|pid| pid.to_string() == text)
        || row.key.address.to_string().contains(text)
}

/// Whether `text` has `part`, in any case. `part` is lower-case.
pub(super) fn contains(text: &str, part: &str) -> bool {
    if text.is_ascii() {
        let (text, part) = (text.as_bytes(), part.as_bytes());
        return part.is_empty()
            || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part));
    }
    text.to_lowercase().contains(part)
}

/// Whether `text` has the characters of `part` in their order: all together, or, for
/// three and more, with others between them, beginning at the start of a word, so that
/// `kapi` finds `kube-apiserver` and not everything with these letters.
fn fuzzy(text: &str, part: &str) -> bool {
    if contains(text, part) {
        return true;
    }
    if part.chars().count() < 3 {
        return false;
    }
    let lower: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
    let starts = (0..lower.len()).filter(|at| {
        at.checked_sub(1).and_then(|before| lower.get(before)).is_none_or(|c| !c.is_alphanumeric())
    });
    let mut starts = starts;
    starts.any(|start| {
        let mut rest = lower.iter().skip(start);
        part.chars().all(|wanted| rest.any(|c| *c == wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::row;
    use super::*;

    fn passes(text: &str) -> bool {
        let row = row(6443, "kube-apiserver", Some("cluster2-control-plane"));
        Filter::parse(text).passes(&row, Life::Live)
    }

    #[test]
    fn words_are_found_in_any_cell_and_fuzzily() {
        for text in ["", "api", "KUBE", "kapi", "kube cluster2", "6443", "644", "tcp", "-nginx"] {
            assert!(passes(text), "{text}");
        }
        for text in ["nginx", "443", "kube nginx", "-kube", "resev", "ka8"] {
            assert!(!passes(text), "{text}");
        }
    }

    #[test]
    fn terms_are_about_their_own_cell() {
        for text in [
            "port:6443",
            "port:6000-7000",
            "container:cluster2",
            "process:apiserver",
            "proto:tcp",
            "ip:4",
            "state:live",
            "kind:listener",
            "-state:new",
            "!container:cluster1",
        ] {
            assert!(passes(text), "{text}");
        }
        for text in ["port:443", "container:kube", "proto:udp", "ip:6", "state:gone", "pod:x"] {
            assert!(!passes(text), "{text}");
        }
    }

    #[test]
    fn a_row_that_is_new_is_live_too() {
        let row = row(80, "nginx", None);
        for (text, life, expected) in [
            ("state:new", Life::New, true),
            ("state:live", Life::New, true),
            ("state:gone", Life::New, false),
            ("state:gone", Life::Gone, true),
            ("state:live", Life::Gone, false),
        ] {
            assert_eq!(Filter::parse(text).passes(&row, life), expected, "{text} {life:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_the_rest_counts() {
        let filter = Filter::parse("colour:red kube");
        assert!(filter.wrong.as_deref().unwrap().starts_with("no key \"colour\": port proto"));
        assert!(!filter.passes(&row(80, "nginx", None), Life::Live));
        assert!(Filter::parse("port:http").wrong.unwrap().contains("is no port"));
        // Not yet finished is not wrong.
        for text in ["port:", "port:80-", "container:"] {
            let filter = Filter::parse(text);
            assert_eq!((filter.wrong.clone(), filter.is_empty()), (None, true), "{text}");
        }
        assert_eq!(Filter::parse("::1 [::]:80 fe80:1").wrong, None);
    }

    #[test]
    fn lines_are_found_by_words_and_numbers() {
        let line = "10:00:00 listen tcp 0.0.0.0:8080 nginx";
        assert!(Filter::parse("nginx port:8080").passes_line(line));
        assert!(!Filter::parse("port:80").passes_line(line));
        assert!(!Filter::parse("-listen").passes_line(line));
    }
}
