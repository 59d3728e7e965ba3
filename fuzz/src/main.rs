//! All fuzz targets in one program: `FUZZ_TARGET` says which, `cargo xtask fuzz` runs
//! them. Without it, it prints their names.

#![no_main]

use std::process::exit;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use whereis_port::fuzzing::{FuzzTarget, TARGETS};

static TARGET: OnceLock<FuzzTarget> = OnceLock::new();

fn target() -> FuzzTarget {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    if let Some((_, target)) = TARGETS.iter().find(|(name, _)| *name == wanted) {
        return *target;
    }
    for (name, _) in TARGETS {
        println!("{name}");
    }
    exit(i32::from(!wanted.is_empty()));
}

fuzz_target!(
    init: {
        TARGET.get_or_init(target);
    },
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            target(bytes);
        }
    }
);
