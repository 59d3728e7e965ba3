use serde_json::Value;

use crate::view::fixtures::{self, HOSTILE, host, listing, sources, user_host};
use crate::view::sanitize::is_unsafe;
use crate::view::trace::Summary;

use super::*;

fn text(document: &impl Serialize) -> String {
    let mut out = Vec::new();
    write(document, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn value(document: &impl Serialize) -> Value {
    serde_json::from_str(&text(document)).unwrap()
}

/// The text, the same in every version of the tool.
fn unversioned(document: &impl Serialize) -> String {
    text(document)
        .replace(&format!("\"tool_version\": \"{TOOL_VERSION}\""), "\"tool_version\": \"(this)\"")
}

/// Every document that the fixtures give.
fn documents() -> Vec<Value> {
    let all: Vec<_> = fixtures::all().into_iter().map(|(_, answer)| answer).collect();
    let (hostile, hostile_host, hostile_sources) = fixtures::hostile();
    vec![
        value(&answers(&all, &host(), &sources())),
        value(&answers(&[hostile], &hostile_host, &hostile_sources)),
        value(&answers(&[], &user_host(), &[])),
        value(&list(&listing(), &host(), &sources())),
        value(&doctor(&host(), &sources())),
    ]
}

/// Every line of `trace` that the fixtures give.
fn lines() -> Vec<Value> {
    let gaps = [model::Gap::new(model::Impact::Port, "eBPF", "not there")];
    let mut lines = vec![
        value(&start(&model::EventKind::ALL, &host(), &gaps, &sources())),
        value(&lost(17, 20)),
    ];
    lines.extend(fixtures::events().iter().map(|traced| value(&event(traced))));
    lines.push(value(&event(&fixtures::hostile_event())));
    let mut seen = Summary { lost: 20, ..Summary::default() };
    fixtures::events().iter().for_each(|traced| seen.count(traced.event.kind));
    lines.push(value(&summary(&seen, &gaps)));
    lines
}

/// What is wrong with `value` by `schema`: as much of JSON schema as ours uses,
/// and no field that the schema does not know.
fn wrong(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/$defs/").ok_or("foreign reference")?;
        return wrong(root, &root["$defs"][name], value, at);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[key].as_array() {
            let fits = choices.iter().filter(|c| wrong(root, c, value, at).is_ok()).count();
            if fits == 0 || (key == "oneOf" && fits != 1) {
                return Err(format!("{at}: {fits} of {key} fit {value}"));
            }
        }
    }
    if let Some(constant) = schema.get("const").filter(|c| *c != value) {
        return Err(format!("{at}: not {constant}"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is = |t: &Value| t == kind || (t == "number" && kind == "integer");
    match &schema["type"] {
        Value::Array(types) if !types.iter().any(is) => return Err(format!("{at}: {kind}")),
        one @ Value::String(_) if !is(one) => return Err(format!("{at}: {kind}")),
        _ => {}
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        wrong(root, &schema["items"], item, &format!("{at}[{index}]"))?;
    }
    if let (Some(object), Some(properties)) = (value.as_object(), schema["properties"].as_object())
    {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                return Err(format!("{at}: no {name}"));
            }
        }
        for (name, value) in object {
            let property =
                properties.get(name).ok_or(format!("{at}: {name} is not in the schema"))?;
            wrong(root, property, value, &format!("{at}.{name}"))?;
        }
    }
    Ok(())
}

#[test]
fn documents_follow_the_schema() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    for document in documents().into_iter().chain(lines()) {
        assert_eq!(wrong(&schema, &schema, &document, "$"), Ok(()));
    }
}

#[test]
fn the_schema_refuses_what_is_no_document() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    let mut document = value(&answers(&[fixtures::vxlan()], &host(), &sources()));
    document["answers"][0]["verdict"] = "perhaps".into();
    assert!(wrong(&schema, &schema, &document, "$").is_err());
    let mut document = value(&doctor(&host(), &sources()));
    document.as_object_mut().unwrap().remove("host");
    assert!(wrong(&schema, &schema, &document, "$").is_err());
}

#[test]
fn every_field_is_required_and_described() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        assert!(definition["description"].is_string(), "{name} has no description");
        let Some(properties) = definition["properties"].as_object() else { continue };
        let required = definition["required"].as_array().unwrap();
        assert_eq!(required.len(), properties.len(), "{name}");
        for (field, property) in properties {
            assert!(property["description"].is_string(), "{name}.{field} has no description");
        }
    }
}

#[test]
fn the_documents_are_as_they_were() {
    insta::assert_snapshot!("schema", schema());
    insta::assert_snapshot!(
        "published",
        unversioned(&answers(&[fixtures::published()], &host(), &sources()))
    );
    insta::assert_snapshot!("doctor", unversioned(&doctor(&host(), &sources())));
    let mut one = listing();
    one.rows.truncate(1);
    insta::assert_snapshot!("list", unversioned(&list(&one, &host(), &sources())));
}

#[test]
fn an_event_is_one_line_in_the_words_of_an_answer() {
    let mut out = Vec::new();
    for traced in fixtures::events() {
        write_line(&event(&traced), &mut out).unwrap();
    }
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), fixtures::events().len());
    assert_eq!(lines[0]["time"], "2023-11-14T22:13:20.042000001Z");
    assert_eq!(lines[0]["unix_ms"], 1_700_000_000_042_u64);
    assert_eq!(lines[0]["process"]["name"], "nginx");
    assert_eq!(lines[1]["seen_by"], "comparison");
    assert_eq!(lines[2]["container"]["name"], "cluster2-control-plane");
    assert_eq!(lines[2]["actor"]["comm"], "kube-apiserver");
    assert_eq!(lines[2].get("process"), Some(&Value::Null));
    assert_eq!(lines[3].get("port"), Some(&Value::Null));
    assert_eq!(lines[5]["nat"]["new_destination"]["port"], 80);
    let mut all = String::new();
    for line in lines {
        all.push_str(&text_of(&line));
    }
    insta::assert_snapshot!("events", all);
}

/// A line for people to compare: indented, without what is null.
fn text_of(line: &Value) -> String {
    let mut line = line.clone();
    let without_nulls =
        |object: &mut serde_json::Map<String, Value>| object.retain(|_, v| !v.is_null());
    line.as_object_mut().map(without_nulls);
    line["process"].as_object_mut().map(without_nulls);
    format!("{line:#}\n")
}

#[test]
fn a_hostile_event_stays_on_its_line() {
    let mut out = Vec::new();
    write_line(&event(&fixtures::hostile_event()), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches('\n').count(), 1);
    assert_eq!(text.trim_end().chars().find(|c| is_unsafe(*c)), None);
    let back: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(back["actor"]["comm"], HOSTILE);
}

#[test]
fn a_path_is_flat_and_absent_things_are_null() {
    let document =
        value(&answers(&[fixtures::published(), fixtures::vxlan()], &host(), &sources()));
    let path = &document["answers"][0]["paths"][0];
    assert_eq!(path["netns"]["name"], "host");
    assert_eq!(path["hops"][1]["kind"], "forward");
    assert_eq!(path["end"]["process"]["inner_pid"], 717);
    assert_eq!(path["end"]["container"]["runtime"], "containerd");
    assert_eq!(path["end"]["containers"][0]["name"], "cluster2-control-plane");
    assert_eq!(path["end"]["service"], Value::Null);
    let end = &document["answers"][1]["paths"][0]["end"];
    assert_eq!(end["ending"], "kernel");
    for field in ["process", "container", "pod", "cluster", "unit"] {
        assert_eq!(end.get(field), Some(&Value::Null), "{field}");
    }
}

#[test]
fn secrets_in_labels_are_not_written() {
    let all = text(&answers(&[fixtures::published()], &host(), &sources()));
    assert!(all.contains("k3d.cluster.token") && !all.contains("very-secret"), "{all}");
    assert!(!text(&list(&listing(), &host(), &sources())).contains("very-secret"));
}

#[test]
fn hostile_text_is_escaped_and_complete() {
    let (answer, hostile_host, hostile_sources) = fixtures::hostile();
    let document = answers(std::slice::from_ref(&answer), &hostile_host, &hostile_sources);
    let text = text(&document);
    assert_eq!(text.chars().find(|c| *c != '\n' && is_unsafe(*c)), None);
    let back: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(back["answers"][0]["paths"][0]["end"]["process"]["comm"], HOSTILE);
    assert_eq!(back["answers"][0]["paths"][0]["end"]["container"]["labels"][HOSTILE], HOSTILE);
}
