use serde::Serialize;

use super::*;

fn json(value: &impl Serialize, formatter: SafeJson) -> String {
    let mut out = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter)).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_ranges_are_in_order_and_apart() {
    assert!(HIDDEN.iter().all(|(first, last)| first <= last));
    assert!(HIDDEN.windows(2).all(|two| two[0].1 < two[1].0));
}

#[test]
fn plain_letters_of_all_scripts_are_shown() {
    for text in
        ["nginx ~!", "grüße", "日本語テキスト", "ﬁ", "Ω≈", "кириллица", "ａ", "👍", "\u{fffd}"]
    {
        assert!(!text.chars().any(is_unsafe), "{text}");
    }
}

#[test]
fn json_escapes_and_loses_nothing() {
    let text = json(&[HOSTILE], SafeJson::compact());
    assert!(!text.chars().any(is_unsafe), "{text:?}");
    assert!(
        text.contains("\\u202e") && text.contains("\\u009b") && text.contains("\\udb40\\udc41")
    );
    let back: Vec<String> = serde_json::from_str(&text).unwrap();
    assert_eq!(back, [HOSTILE]);
}

#[test]
fn json_escapes_keys_too_and_keeps_other_text() {
    let map = std::collections::BTreeMap::from([("a\u{202e}b", "grün \"x\" \\")]);
    let text = json(&map, SafeJson::compact());
    assert_eq!(text, r#"{"a\u202eb":"grün \"x\" \\"}"#);
}

#[test]
fn json_is_laid_out_as_serde_json_does() {
    let value = serde_json::json!({"a": [1, {"b": null}, []], "c": {}, "d": "x"});
    assert_eq!(json(&value, SafeJson::compact()), value.to_string());
    assert_eq!(json(&value, SafeJson::pretty()), serde_json::to_string_pretty(&value).unwrap());
}

#[test]
fn json_is_laid_out_down_to_a_level() {
    let value = serde_json::json!({"a": [{"b": [1]}, {}], "c": {"d": {"e": 2}}, "f": []});
    let text = json(&value, SafeJson::levels(2));
    let expected = r#"{
  "a": [
    {"b":[1]},
    {}
  ],
  "c": {
    "d": {"e":2}
  },
  "f": []
}"#;
    assert_eq!(text, expected);
}

#[test]
fn json_escapes_marks_without_end_and_loses_nothing() {
    let tower = format!("e{}", "\u{301}".repeat(9));
    let text = json(&[&tower], SafeJson::compact());
    assert_eq!(text.matches("\\u0301").count(), 5, "{text:?}");
    let back: Vec<String> = serde_json::from_str(&text).unwrap();
    assert_eq!(back, [tower]);
}
