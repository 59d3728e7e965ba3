//! Names the object of the kernel side that is embedded: the prebuilt one, or
//! the file in `WHEREIS_PORT_PROBE_OBJECT` at build time.
//!
//! `PROBE_OBJECT` becomes its path, `PROBE_VERSION` and `PROBE_SOURCES` what the
//! file `.sources` beside it says; `cargo xtask build-ebpf` writes both files.

#![expect(clippy::disallowed_methods, reason = "it reads files of the sources")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const OTHER: &str = "WHEREIS_PORT_PROBE_OBJECT";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={OTHER}");
    let object = std::env::var_os(OTHER).map_or_else(prebuilt, PathBuf::from);
    match describe(&object) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}; cargo xtask build-ebpf makes it");
            ExitCode::FAILURE
        }
    }
}

fn prebuilt() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("prebuilt/probe.o")
}

fn describe(object: &Path) -> Result<(), String> {
    let object = object.canonicalize().map_err(|e| format!("{}: {e}", object.display()))?;
    let stamp = object.with_extension("sources");
    let text = std::fs::read_to_string(&stamp).map_err(|e| format!("{}: {e}", stamp.display()))?;
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
            .ok_or_else(|| format!("{} has no {key}", stamp.display()))
    };
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-changed={}", stamp.display());
    println!("cargo::rustc-env=PROBE_OBJECT={}", object.display());
    println!("cargo::rustc-env=PROBE_SOURCES={}", value("sources")?);
    println!("cargo::rustc-env=PROBE_VERSION={}", value("version")?);
    Ok(())
}
