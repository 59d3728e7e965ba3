//! What users and scripts see of the interface, fixed: the help, the manual
//! page, the JSON schema and the page of codes. A change must be meant, and the schema's
//! must be in the changelog.

#![expect(clippy::unwrap_used, reason = "a test without its binary or file fails on the spot")]
#![expect(clippy::disallowed_methods, reason = "it reads files of the sources")]

use std::path::Path;
use std::process::Command;

use whereis_port::view::explain::PAGES;

fn run(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_whereis-port"))
        .args(arguments)
        .env_clear()
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn near(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_help_teaches() {
    insta::assert_snapshot!("help", run(&["--help"]));
    insta::assert_snapshot!("help-short", run(&["-h"]));
    insta::assert_snapshot!("help-list", run(&["list", "--help"]));
    insta::assert_snapshot!("help-trace", run(&["trace", "--help"]));
    insta::assert_snapshot!("help-bind", run(&["bind", "--help"]));
    insta::assert_snapshot!("help-wait", run(&["wait", "--help"]));
    insta::assert_snapshot!("help-free", run(&["free", "--help"]));
}

#[test]
fn the_manual_page_is_whole() {
    let page = run(&["man"]);
    for part in [
        ".SH NAME",
        ".SH SYNOPSIS",
        ".SH OPTIONS",
        ".SH COMMANDS",
        ".SH \"EXIT STATUS\"",
        ".SH EXAMPLES\n.nf",
        "\\-\\-replay",
        "\\-\\-no\\-headers",
    ] {
        assert!(page.contains(part), "{part} is not in the manual page");
    }
    // There is this page only, and no option is told twice.
    assert!(!page.contains("(1)") && !page.contains(".SH EXTRA"), "{page}");
    assert_eq!(page.matches("\\-\\-replay\\fR").count(), 1, "{page}");
    insta::assert_snapshot!("man", page);
}

#[test]
fn every_shell_gets_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        assert!(script.contains("replay") && script.contains("doctor"), "{shell}: {script}");
    }
}

/// What bash offers for a command line whose last word is being typed.
fn completed_by_bash(line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let (last, before) = (words.len() - 1, words.len() - 2);
    let script = format!(
        "{}\nCOMP_WORDS=({})\nCOMP_CWORD={last}\n_whereis__port whereis-port '{}' '{}'\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        run(&["completions", "bash"]),
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words[last],
        words[before],
    );
    let output = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_behind_a_command() {
    assert_eq!(completed_by_bash("whereis-port d"), ["diff", "doctor"]);
    let options = completed_by_bash("whereis-port list --n");
    assert_eq!(options, ["--netns", "--ndjson", "--no-headers", "--no-kube"]);
    let forms = completed_by_bash("whereis-port list -o ");
    assert_eq!(
        forms,
        [
            "table",
            "wide",
            "json",
            "ndjson",
            "yaml",
            "csv",
            "markdown",
            "openmetrics",
            "dot",
            "mermaid",
            "svg"
        ]
    );
    let events = completed_by_bash("whereis-port trace --events ");
    assert_eq!(events, ["listen", "bind", "close", "connect", "accept", "nat", "drop"]);
    assert!(completed_by_bash("whereis-port completions ").contains(&"fish".to_owned()));
}

/// FNV-1a, 64 bits: a fingerprint that needs no library and stays the same.
fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[test]
fn a_change_of_the_schema_is_in_the_changelog() {
    let schema = run(&["schema"]);
    let version: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert!(version["$defs"].is_object());
    let path = near("schema/whereis-port.schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap();
    assert!(
        checked_in == schema,
        "the schema of the output changed: run with UPDATE_SCHEMA=1, look at the difference, raise \
         SCHEMA_VERSION if a key went away or changed its meaning, and say so in CHANGELOG.md"
    );
    let changelog = std::fs::read_to_string(near("../CHANGELOG.md")).unwrap();
    let line = format!("schema version 1, fingerprint {}", fingerprint(&schema));
    assert!(changelog.contains(&line), "CHANGELOG.md has to say what changed, with: JSON {line}");
}

/// The book's page of codes is the table that `explain` prints.
#[test]
fn the_book_has_every_code() {
    let mut page = "# Codes\n\n\
        What each code of the [JSON](json.md) means, how it is concluded, and how to check it by \
        hand. `whereis-port explain CODE` prints the same. This page is written by \
        `cargo xtask docs --write`.\n"
        .to_owned();
    let mut place = None;
    for code in PAGES {
        if place != Some(code.group) {
            place = Some(code.group);
            page += &format!("\n## `{}`\n", code.group.place());
        }
        page += &format!(
            "\n### {}\n\n{}\n\nHow it is known: {}\n",
            code.code, code.means, code.concluded
        );
        if !code.check.is_empty() {
            let commands: String = code.check.iter().map(|one| format!("    {one}\n")).collect();
            page += &format!("\nCheck by hand:\n\n{commands}");
        }
    }
    let path = near("../docs/src/reference/codes.md");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "the codes changed: cargo xtask docs --write writes their page");
}
