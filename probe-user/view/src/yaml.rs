//! A JSON document as YAML 1.2: the same keys in the same order.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use whereis_port_model::escape::{Shown, is_unsafe};

/// Writes `document`, as [`super::json::write`] writes it as JSON.
///
/// # Errors
/// Those of `out`.
pub fn write(document: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    let tree: YamlTree = serde_json::from_slice(&serde_json::to_vec(document)?)?;
    let mut text = String::new();
    block(&tree, 0, &mut text);
    out.write_all(text.trim_start_matches('\n').as_bytes())?;
    out.write_all(b"\n")
}

/// A document with its keys in their order.
enum YamlTree {
    /// A number, `true`, `false` or `null`, as it is written.
    Word(String),
    Text(String),
    List(Vec<YamlTree>),
    Map(Vec<(String, YamlTree)>),
}

impl<'de> Deserialize<'de> for YamlTree {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(YamlTreeReader)
    }
}

/// Makes a tree of any JSON document.
struct YamlTreeReader;

impl<'de> Visitor<'de> for YamlTreeReader {
    type Value = YamlTree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<YamlTree, E> {
        Ok(YamlTree::Word("null".to_owned()))
    }

    fn visit_bool<E>(self, is: bool) -> Result<YamlTree, E> {
        Ok(YamlTree::Word(is.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<YamlTree, E> {
        Ok(YamlTree::Word(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<YamlTree, E> {
        Ok(YamlTree::Word(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<YamlTree, E> {
        Ok(YamlTree::Word(format!("{number:?}")))
    }

    fn visit_str<E>(self, text: &str) -> Result<YamlTree, E> {
        Ok(YamlTree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<YamlTree, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = from.next_element()? {
            all.push(one);
        }
        Ok(YamlTree::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<YamlTree, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = from.next_entry()? {
            all.push(one);
        }
        Ok(YamlTree::Map(all))
    }
}

/// Writes a value behind its key or its dash: on the same line, or on those below.
fn block(tree: &YamlTree, depth: usize, out: &mut String) {
    let line = |out: &mut String| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', 2 * depth));
    };
    match tree {
        YamlTree::Word(word) => {
            out.push(' ');
            out.push_str(word);
        }
        YamlTree::Text(text) => {
            out.push(' ');
            scalar(text, out);
        }
        YamlTree::List(all) if all.is_empty() => out.push_str(" []"),
        YamlTree::Map(all) if all.is_empty() => out.push_str(" {}"),
        YamlTree::List(all) => {
            for one in all {
                line(out);
                out.push('-');
                // The first key of an object stands behind its dash.
                let before = out.len();
                block(one, depth + 1, out);
                let indent = 1 + 2 * (depth + 1);
                if matches!(one, YamlTree::Map(all) if !all.is_empty())
                    || matches!(one, YamlTree::List(all) if !all.is_empty())
                {
                    out.replace_range(before..before + indent, " ");
                }
            }
        }
        YamlTree::Map(all) => {
            for (key, value) in all {
                line(out);
                scalar(key, out);
                out.push(':');
                block(value, depth + 1, out);
            }
        }
    }
}

/// Writes a text: as it is where no YAML reader could take it for anything else, and in double
/// quotes otherwise.
fn scalar(text: &str, out: &mut String) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    let mut shown = Shown::default();
    out.push('"');
    for c in text.chars() {
        let is_shown = shown.next(c) && !is_unsafe(c);
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_shown => out.push(c),
            c => {
                let code = u32::from(c);
                out.push_str(&match code {
                    0..=0xff => format!("\\x{code:02x}"),
                    0x100..=0xffff => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                });
            }
        }
    }
    out.push('"');
}

/// Whether a text is one to every reader, of YAML 1.1 as well, without quotes.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 11] =
        ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"];
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'/' || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b))
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::HOSTILE;

    fn yaml(value: &serde_json::Value) -> String {
        let mut out = Vec::new();
        write(value, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn objects_and_lists_are_blocks() {
        let text = yaml(&json!({
            "a": [{"b": 1, "c": [true, null]}, [], {}, ["x", ["z"]]],
            "d": {"e": "no", "f": 0.5},
        }));
        let expected = "a:\n  - b: 1\n    c:\n      - true\n      - null\n  - []\n  - {}\n  - - x\n    - - z\n\
                        d:\n  e: \"no\"\n  f: 0.5\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_text_stays_one() {
        let one = |text: &str| {
            let mut out = String::new();
            scalar(text, &mut out);
            out
        };
        assert_eq!(one("kube-system/nginx_1.2"), "kube-system/nginx_1.2");
        for text in ["", "Yes", "1.5", "0x1f", "~", "- a", "a: b", "a #b", "::", "12:30", "<<", "*"]
        {
            assert_eq!(one(text), format!("\"{text}\""));
        }
        assert_eq!(one("a\"\\\n\u{1b}"), r#""a\"\\\n\x1b""#);
        assert_eq!(one("\u{202e}\u{e0041}"), r#""\u202e\U000e0041""#);
        assert!(!one(HOSTILE).chars().any(is_unsafe));
    }
}
