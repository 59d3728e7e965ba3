//! What our own answers say, to compare with what is there.

use std::collections::BTreeSet;

use serde_json::Value;

/// The processes that our answer to one question names.
pub(crate) fn holders(answer: &Value) -> BTreeSet<u32> {
    let paths = items(&answer["answers"]).flat_map(|answer| items(&answer["paths"]));
    paths.flat_map(|path| pids(&path["end"])).collect()
}

/// The port and process of everything in our list, whose rows refer to its table of processes.
pub(crate) fn listed(list: &Value) -> BTreeSet<(u16, u32)> {
    let pid = |place: &Value| {
        let process = &list["processes"][usize::try_from(place.as_u64()?).ok()?];
        u32::try_from(process["pid"].as_u64()?).ok()
    };
    items(&list["listeners"])
        .filter_map(|row| Some((u16::try_from(row["port"].as_u64()?).ok()?, row)))
        .flat_map(|(port, row)| {
            items(&row["processes"]).filter_map(pid).map(move |pid| (port, pid))
        })
        .collect()
}

fn pids(end: &Value) -> impl Iterator<Item = u32> {
    items(&end["processes"]).filter_map(|process| process["pid"].as_u64()?.try_into().ok())
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn our_answers_are_read() {
        let answer = json!({ "answers": [{ "paths": [
            { "end": { "processes": [{ "pid": 7 }, { "pid": 8 }] } },
            { "end": { "processes": [] } },
        ] }] });
        assert_eq!(holders(&answer), BTreeSet::from([7, 8]));
        let list = json!({
            "processes": [{ "ref": 0, "pid": 6 }, { "ref": 1, "pid": 7 }],
            "listeners": [
                { "port": 80, "processes": [1] },
                { "port": 81, "processes": [] },
                { "port": 82, "processes": [2] },
            ],
        });
        assert_eq!(listed(&list), BTreeSet::from([(80, 7)]));
        assert!(listed(&json!({})).is_empty());
    }
}
