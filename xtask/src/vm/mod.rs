//! `cargo xtask vm`: the end-to-end tests on other kernels, under QEMU.
//!
//! A virtual machine has no disk and no network: a kernel of Debian's and an
//! initramfs made on the fly, with the tool and the tests in it. It runs the
//! tests, tells of them on its console and powers off.

mod boot;
mod initramfs;
mod kernel;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::{Refused, sh};
use kernel::Kernel;

/// The files of end-to-end tests that run there, each with limits of its own.
/// Those that need Docker, `lsof` or much time are not among them.
const SUITES: &[&str] = &["kernel", "sockets", "lab"];

/// What to boot.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// 6.1 or 6.12: Debian's kernel, downloaded once. Or the file of a Debian
    /// package with a kernel. May be given more than once; without it: both.
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<String>,

    /// Only these files of tests.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(SUITES))]
    suite: Vec<String>,

    /// Only tests whose name contains this.
    #[arg(value_name = "TEST")]
    filter: Option<String>,

    /// Seconds after which a machine that still runs has failed.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,
}

/// Builds the tests, boots each kernel and reports.
pub(crate) fn run(args: &Args) -> Result<()> {
    for program in ["qemu-system-x86_64", "busybox", "cpio", "depmod", "dpkg-deb", "ldd"] {
        if sh::find(program).is_none() {
            return Err(Refused(format!("{program} is missing: run cargo xtask setup")).into());
        }
    }
    if std::env::consts::ARCH != "x86_64" {
        return Err(Refused("the virtual machines are for x86_64 only".to_owned()).into());
    }
    let names = match args.kernel.as_slice() {
        [] => kernel::NAMES.iter().map(|name| (*name).to_owned()).collect(),
        some => some.to_vec(),
    };
    let kernels = names.iter().map(|name| Kernel::get(name)).collect::<Result<Vec<_>>>()?;
    let suites: Vec<&str> = SUITES
        .iter()
        .filter(|suite| args.suite.is_empty() || args.suite.iter().any(|s| s == *suite))
        .copied()
        .collect();

    let dir = sh::target_dir()?.join("vm");
    let base = initramfs::Base::make(&dir, &tests(&suites)?, args.filter.as_deref(), args.limit)?;
    let mut table = Vec::new();
    for kernel in &kernels {
        let initramfs = base.with_modules(kernel)?;
        let log = dir.join(format!("{}.log", kernel.version));
        eprintln!("booting Linux {}, console in {}", kernel.version, log.display());
        let console = boot::boot(kernel, &initramfs, &log, Duration::from_secs(args.limit))?;
        table.push((kernel.version.as_str(), report::parse(&console, &suites)));
    }

    println!("\n{}", report::table(&table));
    if table.iter().flat_map(|(_, suites)| suites).all(report::Suite::is_good) {
        return Ok(());
    }
    bail!("tests failed in a virtual machine; consoles are in {}", dir.display())
}

/// The directory that downloaded kernels are kept in.
fn cache() -> Result<PathBuf> {
    let dir = match std::env::var_os("WHEREIS_PORT_VM_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => sh::target_dir()?.join("vm/kernels"),
    };
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

/// Builds the tool and the tests: the programs of `suites`, by name.
fn tests(suites: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    sh::run(&mut sh::cargo(&["build", "--workspace", "--bins", "--locked"]))?;
    let build = ["test", "--package", "e2e", "--no-run", "--locked", "--message-format=json"];
    let messages = sh::capture(&mut sh::cargo(&build))?;
    let built = executables(&messages);
    suites
        .iter()
        .map(|suite| {
            let found = built.iter().find(|(name, _)| name == suite).cloned();
            found.with_context(|| format!("tests/{suite}.rs is not among the end-to-end tests"))
        })
        .collect()
}

/// The tests that cargo says it built: name and program.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["kind"][0] == "test")
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, Path::new(message["executable"].as_str()?).to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_tests_are_found_in_what_cargo_prints() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"lab"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernel"},"executable":"/t/kernel-12"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"lab-helper"},"executable":"/t/lab-helper"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executables(messages), [("kernel".to_owned(), PathBuf::from("/t/kernel-12"))]);
    }
}
