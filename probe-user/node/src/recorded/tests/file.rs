use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::*;

fn saved(recording: &Recording) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.json");
    recording.save(&path).unwrap();
    fs::read(path).unwrap()
}

fn parse(bytes: &[u8]) -> Result<Recording, RecordingError> {
    Recording::parse(bytes, Path::new("node.json"))
}

#[track_caller]
fn refused(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err().to_string()
}

#[test]
fn a_recording_survives_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.json");
    let recording = recording();
    recording.save(&path).unwrap();
    assert_eq!(Recording::load(&path).unwrap(), recording);
    assert_eq!(Recorded::load(&path).unwrap().recording(), &recording);
    assert_eq!(saved(&recording), saved(&recording.clone()), "the same bytes each time");
}

#[test]
fn durations_survive_the_file_exactly() {
    let source = recording().sources.remove(0);
    let durations = [0.012_988_000_000_000_003, 40.204_724_999_999_996, 1e6, f64::NAN, 1.0 / 0.0];
    let sources = durations.map(|ms| SourceReport { ms, ..source.clone() }).to_vec();
    let recording = Recording::new(recording().facts, sources);
    assert_eq!(parse(&saved(&recording)).unwrap(), recording);
    assert_eq!(recording.sources[0].ms, 0.013);
}

#[test]
fn only_its_owner_can_read_it_and_nothing_else_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.json");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    recording().save(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_is_no_regular_file_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (target, link) = (dir.path().join("target"), dir.path().join("link"));
    fs::write(&target, "precious").unwrap();
    symlink(&target, &link).unwrap();
    let error = recording().save(&link).unwrap_err().to_string();
    assert!(error.ends_with("link: it is a symbolic link"), "{error}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

    let dangling = dir.path().join("dangling");
    symlink(dir.path().join("nowhere"), &dangling).unwrap();
    assert!(matches!(recording().save(&dangling), Err(RecordingError::NotAFile { .. })));
    assert!(matches!(recording().save(dir.path()), Err(RecordingError::NotAFile { .. })));
    assert!(matches!(
        recording().save(Path::new("/dev/null")),
        Err(RecordingError::NotAFile { what: "not a regular file", .. })
    ));
    let error = recording().save(&dir.path().join("no/where.json")).unwrap_err().to_string();
    assert!(error.ends_with("No such file or directory (os error 2)"), "{error}");
}

#[test]
fn a_truncated_file_is_said_to_be_one() {
    let bytes = saved(&recording());
    for part in 0..50 {
        let cut = bytes.len() * part / 50;
        let error = parse(&bytes[..cut]).unwrap_err();
        assert!(matches!(error, RecordingError::Damaged { .. }), "{cut}: {error}");
        let error = error.to_string();
        assert!(error.starts_with("node.json is truncated or damaged at line "), "{error}");
        assert_eq!(error.matches(" at line ").count(), 1, "{error}");
    }
}

#[test]
fn a_damaged_file_says_where() {
    let text = String::from_utf8(saved(&recording())).unwrap();
    let error = refused(text.replace("\"port\": 12000", "\"port\": 120000").as_bytes());
    assert!(error.contains("is truncated or damaged at line "), "{error}");
    assert!(error.contains("invalid value: integer `120000`, expected u16"), "{error}");
    let error = refused(text.replace("\"facts\"", "\"fakts\"").as_bytes());
    assert!(error.contains("unknown field `fakts`"), "{error}");
}

#[test]
fn foreign_files_are_said_to_be_foreign() {
    let foreign = "node.json is not a whereis-port recording";
    for bytes in [
        &b"{}"[..],
        b"[]",
        b"42",
        b"{\"format\":\"har\",\"version\":1}",
        b"{\"format\":1}",
        b"{\"log\": {\"version\"",
        b"#!/bin/sh\n",
        b"\x7fELF\0\0",
        b"\xff\xfe\x00",
    ] {
        assert_eq!(refused(bytes), foreign, "{bytes:?}");
    }
}

#[test]
fn a_newer_version_is_said_to_be_newer() {
    let error = refused(b"{\"format\":\"whereis-port-recording\",\"version\":7,\"facts\":[1]}");
    assert_eq!(
        error,
        "node.json was made by a newer whereis-port (version 7 of the format); this one reads up to 1"
    );
}

#[test]
fn an_unreadable_file_is_named_with_the_reason() {
    let error = Recorded::load(Path::new("/nonexistent/node.json")).unwrap_err().to_string();
    assert_eq!(error, "can't read /nonexistent/node.json: No such file or directory (os error 2)");
    let error = Recorded::load(Path::new("/")).unwrap_err().to_string();
    assert_eq!(error, "can't read /: Is a directory (os error 21)");
}

#[test]
fn a_file_larger_than_any_recording_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge.json");
    // Sparse: it takes no space.
    fs::File::create(&path).unwrap().set_len((512 << 20) + 1).unwrap();
    assert!(matches!(Recorded::load(&path), Err(RecordingError::TooLarge { .. })));
}
