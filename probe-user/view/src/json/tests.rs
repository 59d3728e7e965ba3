use serde_json::{Value, json};

use crate::fixtures::{self, HOSTILE, host, listing, sources, user_host};
use crate::trace::Summary;
use whereis_port_model::escape::is_unsafe;
use whereis_port_model::{NetnsId, NetnsName, NetnsRef};

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
    let gaps = [model::Gap::new(model::Impact::Port, model::GapKind::Ebpf, "not there")];
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

/// A list as it is printed: the document, and its lines.
fn printed(listing: &model::Listing) -> (String, Vec<String>) {
    let (host, sources) = (host(), sources());
    let (mut document, mut lines) = (Vec::new(), Vec::new());
    write_list(&list(listing, &host, &sources), &mut document).unwrap();
    write_list_lines(listing, &host, &sources, &mut lines).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    (String::from_utf8(document).unwrap(), lines.lines().map(str::to_owned).collect())
}

fn parsed(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A node made up for this: `rows` listeners of eight servers, every other one in a pod.
fn many_rows(rows: u16) -> model::Listing {
    let id = |n: u32| format!("{n:064x}");
    let server = |n: u32| {
        let arguments: Vec<String> =
            (0..12).map(|a| format!("--some-option-{a}=/a/path")).collect();
        let name = format!("/usr/lib/server-{n}/bin/server-{n}");
        let words: Vec<&str> =
            std::iter::once(name.as_str()).chain(arguments.iter().map(String::as_str)).collect();
        let mut end = model::End {
            ending: model::Ending::Process,
            processes: vec![fixtures::process(4_000_000 + n, Some(7), &words)],
            unit: Some("some-long-named-server@instance.service".to_owned()),
            ..model::End::default()
        };
        if n.is_multiple_of(2) {
            let container = |id| fixtures::node_container("some-cluster", id, "172.18.0.2", 30_000);
            end.containers = vec![container(&id(n % 4)), container(&id(100 + n))];
            end.cluster = end.containers[0].cluster();
            end.pod = Some(model::Pod {
                namespace: Some("some-namespace".to_owned()),
                name: Some(format!("some-deployment-6d4cf56db6-abcd{n}")),
                uid: Some("0c9d2f5e-77a1-4e0b-8d3f-52f6b1c3a9e4".to_owned()),
                ..model::Pod::default()
            });
        }
        std::rc::Rc::new(end)
    };
    let ends: Vec<_> = (0..8).map(server).collect();
    let netns = fixtures::netns(fixtures::HOST, "some-namespace/some-deployment-6d4cf56db6-abcde");
    let row = |n: u16| model::ListRow {
        netns: netns.clone(),
        kind: model::HopKind::Listener,
        port_kind: model::PortKind::Listener,
        reached: None,
        proto: model::Proto::Tcp,
        address: "2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap(),
        port: model::Port(20_000 + n),
        socket: Some(fixtures::socket(
            fixtures::HOST,
            model::Proto::Tcp,
            "2001:db8:1234:5678:9abc:def0:1234:5678",
            20_000 + n,
            4_000_000_000,
        )),
        taken_by: None,
        service: None,
        end: ends[usize::from(n) % ends.len()].clone(),
        component: None,
        target: None,
        others: Vec::new(),
        more: 0,
        target_detail: None,
    };
    model::Listing { rows: (0..rows).map(row).collect(), gaps: Vec::new() }
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
    let (_, listed) = printed(&listing());
    for document in documents().into_iter().chain(lines()).chain(parsed(&listed)) {
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
    let (document, lines) = printed(&one);
    let text = document + &lines.join("\n");
    insta::assert_snapshot!("list", text.replace(&format!("\"{TOOL_VERSION}\""), "\"(this)\""));
}

#[test]
fn a_row_of_a_large_list_is_small() {
    let rows = 8_000_u16;
    let (document, lines) = printed(&many_rows(rows));
    let lines = lines.iter().map(|line| line.len() + 1).sum::<usize>();
    for (form, bytes) in [("document", document.len()), ("lines", lines)] {
        let each = bytes / usize::from(rows);
        assert!(each <= 800, "{form}: {each} bytes for each row");
    }
}

#[test]
fn each_thing_is_said_once_and_every_row_refers_to_it() {
    let listing = many_rows(100);
    let (document, _) = printed(&listing);
    let document: Value = serde_json::from_str(&document).unwrap();
    let count = |table: &str| document[table].as_array().unwrap().len();
    assert_eq!(["processes", "containers", "pods", "clusters"].map(count), [8, 6, 4, 1]);
    let rows = document["listeners"].as_array().unwrap();
    assert_eq!(rows.len(), listing.rows.len());
    for (row, model) in rows.iter().zip(&listing.rows) {
        assert_eq!(row["port"], model.port.0);
        let entry = |table: &str, of: &Value| {
            let entry = &document[table][of.as_u64().map(|at| at as usize).unwrap()];
            assert_eq!(entry["ref"], *of);
            entry.clone()
        };
        let process = entry("processes", &row["process"]["ref"]);
        assert_eq!(row["processes"], json!([process["ref"]]));
        assert_eq!(process["pid"], model.end.processes[0].pid);
        assert_eq!(process["cmdline"].as_array().unwrap().len(), 13);
        assert_eq!(row["process"]["pid"], process["pid"]);
        assert_eq!(row["process"]["name"], process["name"]);
        let containers = row["containers"].as_array().unwrap();
        assert_eq!(containers.len(), model.end.containers.len());
        for (at, container) in containers.iter().zip(&model.end.containers) {
            assert_eq!(entry("containers", at)["id"], container.id.as_str());
        }
        assert_eq!(row["container"]["ref"], *containers.last().unwrap_or(&Value::Null));
        if let Some(pod) = &model.end.pod {
            assert_eq!(entry("pods", &row["pod"]["ref"])["name"], *pod.name.as_ref().unwrap());
            assert_eq!(entry("clusters", &row["cluster"]["ref"])["role"], "control-plane");
        }
    }
}

#[test]
fn what_differs_under_one_name_has_places_of_its_own() {
    let mut listing = many_rows(4);
    let again = |row: &model::ListRow, change: fn(&mut model::End)| {
        let mut end = (*row.end).clone();
        change(&mut end);
        model::ListRow { end: std::rc::Rc::new(end), ..row.clone() }
    };
    let same = again(&listing.rows[0], |_| {});
    let newer = again(&listing.rows[0], |end| end.processes[0].start.0 += 1);
    let renamed = again(&listing.rows[0], |end| end.containers[1].name = Some("other".to_owned()));
    listing.rows.extend([same, newer, renamed]);
    let (document, _) = printed(&listing);
    let document: Value = serde_json::from_str(&document).unwrap();
    let of = |row: usize, what: &str| &document["listeners"][row][what]["ref"];
    assert_eq!(of(4, "process"), of(0, "process"));
    assert_ne!(of(5, "process"), of(0, "process"));
    assert_eq!(of(6, "process"), of(0, "process"));
    assert_ne!(of(6, "container"), of(0, "container"));
}

#[test]
fn lines_say_what_the_document_says() {
    let mut listing = listing();
    listing.rows.extend(many_rows(20).rows);
    let (document, lines) = printed(&listing);
    let document: Value = serde_json::from_str(&document).unwrap();
    let lines = parsed(&lines);
    let word = |line: &Value| line["type"].as_str().unwrap().to_owned();
    let tables = [
        ("process", "processes"),
        ("container", "containers"),
        ("pod", "pods"),
        ("list_cluster", "clusters"),
        ("listener", "listeners"),
    ];
    for (kind, table) in tables {
        let said: Vec<Value> = lines
            .iter()
            .filter(|line| word(line) == kind)
            .map(|line| {
                let mut line = line.clone();
                line.as_object_mut().unwrap().remove("type");
                line
            })
            .collect();
        assert_eq!(Value::Array(said), document[table], "{kind}");
    }
    assert_eq!(word(&lines[0]), "list");
    let end = lines.last().unwrap();
    assert_eq!(word(end), "list_end");
    assert_eq!(end["listeners"], listing.rows.len());
    assert_eq!(end["gaps"], document["gaps"]);
    // Nothing is referred to before it is said.
    let mut known = std::collections::BTreeMap::from(tables.map(|(kind, _)| (kind, 0)));
    for line in &lines {
        if let Some(count) = known.get_mut(word(line).as_str()) {
            *count += 1;
        }
        let places = line["processes"].as_array().into_iter().flatten();
        assert!(places.filter_map(Value::as_u64).all(|at| at < known["process"]), "{line}");
        let places = line["containers"].as_array().into_iter().flatten();
        assert!(places.filter_map(Value::as_u64).all(|at| at < known["container"]), "{line}");
    }
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
fn only_the_hosts_namespace_is_said_to_be_it() {
    let mut answer = fixtures::published();
    answer.paths[0].hops[0].netns =
        Some(NetnsRef { id: NetnsId::Inode(7), name: Some(NetnsName::Given("host".to_owned())) });
    let document = value(&answers(&[answer], &host(), &sources()));
    let netns = &document["answers"][0]["paths"][0]["netns"];
    assert_eq!(*netns, json!({"inode": 7, "name": "host", "is_host": false}));
    assert_eq!(document["host"]["own_netns"]["is_host"], true);
}

#[test]
fn a_path_is_flat_and_absent_things_are_null() {
    let document =
        value(&answers(&[fixtures::published(), fixtures::vxlan()], &host(), &sources()));
    let path = &document["answers"][0]["paths"][0];
    assert_eq!(path["netns"]["name"], "host");
    assert_eq!(path["netns"]["is_host"], true);
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
    let (document, lines) = printed(&listing());
    assert!(!document.contains("very-secret") && !lines.join("").contains("very-secret"));
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
