//! `cargo xtask vm`: the end-to-end tests on other kernels, under QEMU.
//!
//! A virtual machine has no disk and no network: a kernel of Debian's and an
//! initramfs made on the fly, with the tool and the tests in it. It runs the
//! tests, tells of them on its console and powers off.

mod boot;
mod debian;
mod initramfs;
mod kernel;
mod report;
mod smoke;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::dist::Arch;
use crate::{Refused, sh};
use kernel::Kernel;

/// Tests that run there: a name, and which of a program they are.
struct Suite {
    name: &'static str,
    program: Program,
    /// Only tests whose name has one of these: at its beginning, after `^`.
    names: &'static [&'static str],
}

/// What cargo builds of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    /// The end-to-end tests.
    E2e,
    /// The unit tests of what reads a node's facts.
    Units,
}

impl Program {
    /// The kind of target, as cargo calls it, and its name.
    fn target(self) -> (&'static str, &'static str) {
        match self {
            Self::E2e => ("test", "e2e"),
            Self::Units => ("lib", "whereis_port_node"),
        }
    }

    /// What it is called there.
    fn name(self) -> &'static str {
        match self {
            Self::E2e => "test-e2e",
            Self::Units => "test-units",
        }
    }
}

impl Suite {
    /// End-to-end tests.
    const fn e2e(name: &'static str, names: &'static [&'static str]) -> Self {
        Self { name, program: Program::E2e, names }
    }
}

/// All of them. What needs Docker, `lsof` or much time is not among them.
const SUITES: &[Suite] = &[
    Suite::e2e("kernel", &["^kernel::"]),
    Suite::e2e("sockets", &["^sockets::"]),
    Suite::e2e("lab", &["^lab::"]),
    Suite::e2e("trace", &["^trace::"]),
    Suite::e2e("probe", &["^probe::"]),
    Suite::e2e("learn", &["^learn::"]),
    Suite::e2e("ipvs", &["^paths::ipvs::"]),
    // Only when it is asked for. Docker, podman and CNI plugins are not there.
    Suite::e2e(
        "paths",
        &[
            "^paths::plain::",
            "^paths::dnat::",
            "^paths::kube::",
            "^paths::nested::",
            "^paths::nft::",
        ],
    ),
    // Sources of facts that depend on the kernel, and need no files of the tree.
    Suite {
        name: "live",
        program: Program::Units,
        names: &["live::btf::", "live::conntrack::", "live::ebpf::", "live::nat::"],
    },
];

/// What to boot.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// 6.1, 6.12; 5.10, newest, 6.12-arm64; or the file of a Debian package with a kernel.
    ///
    /// Debian's kernels are downloaded once. May be given more than once; without it: 6.1 and
    /// 6.12. On 5.10, the newest one and arm64, the static binary is asked a few questions
    /// (`smoke`), which `cargo xtask dist --target` has built.
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<String>,

    /// Every kernel that has a name.
    #[arg(long, conflicts_with = "kernel")]
    all: bool,

    /// Only these tests: `live`, `smoke`, or end-to-end tests by their file.
    #[arg(long, value_name = "NAME", value_parser = names())]
    suite: Vec<String>,

    /// Only tests whose name contains this.
    #[arg(value_name = "TEST")]
    filter: Option<String>,

    /// Seconds after which a machine that still runs has failed.
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    limit: u64,
}

fn names() -> clap::builder::PossibleValuesParser {
    let names = SUITES.iter().map(|suite| suite.name).chain([smoke::NAME]);
    clap::builder::PossibleValuesParser::new(names)
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
    let names: Vec<&str> = match args.kernel.as_slice() {
        [] if args.all => [kernel::NAMES, kernel::SMOKE].concat(),
        [] => kernel::NAMES.to_vec(),
        some => some.iter().map(String::as_str).collect(),
    };
    let asked = |name: &str| args.suite.iter().any(|suite| suite == name);
    // The paths take minutes there, and are tested on the kernel outside, too.
    let suites: Vec<&Suite> = SUITES
        .iter()
        .filter(
            |suite| {
                if args.suite.is_empty() { suite.name != "paths" } else { asked(suite.name) }
            },
        )
        .collect();
    let mut machines = Vec::new();
    for name in names {
        let kernel = Kernel::get(name)?;
        let few = args.suite.is_empty() && kernel::SMOKE.contains(&name);
        let full = !few && !suites.is_empty();
        if full && kernel.arch != Arch::X86_64 {
            let text = format!("on {name} there is only --suite {}", smoke::NAME);
            return Err(Refused(text).into());
        }
        let program = boot::program(kernel.arch);
        if sh::find(program).is_none() {
            let text = format!("{program} is missing: apt-get install qemu-system-arm");
            return Err(Refused(text).into());
        }
        machines.push((kernel, full, few || asked(smoke::NAME)));
    }

    let dir = sh::target_dir()?.join("vm");
    let base = if machines.iter().any(|(_, full, _)| *full) {
        let tests = build(&suites, args.filter.as_deref())?;
        Some(initramfs::Base::make(&dir, &tests, args.limit)?)
    } else {
        None
    };
    let suites: Vec<&str> = suites.iter().map(|suite| suite.name).collect();
    let mut table = Vec::new();
    for (kernel, full, few) in &machines {
        if let Some(base) = base.as_ref().filter(|_| *full) {
            let initramfs = base.with_modules(kernel)?;
            let log = dir.join(format!("{}.log", kernel.version));
            let reports = boot_and_read(kernel, &initramfs, &log, args.limit, &suites)?;
            table.push((kernel.version.as_str(), reports));
        }
        if *few {
            let initramfs = smoke::initramfs(&dir, kernel, args.limit)?;
            let log = dir.join(format!("{}-{}.log", kernel.version, smoke::NAME));
            let reports = boot_and_read(kernel, &initramfs, &log, args.limit, &[smoke::NAME])?;
            table.push((kernel.version.as_str(), reports));
        }
    }

    println!("\n{}", report::table(&table));
    if table.iter().flat_map(|(_, suites)| suites).all(report::Suite::is_good) {
        return Ok(());
    }
    bail!("tests failed in a virtual machine; consoles are in {}", dir.display())
}

/// Boots one and gives what it says of these suites.
fn boot_and_read(
    kernel: &Kernel,
    initramfs: &Path,
    log: &Path,
    limit: u64,
    suites: &[&str],
) -> Result<Vec<report::Suite>> {
    eprintln!("booting Linux {}, console in {}", kernel.version, log.display());
    let console = boot::boot(kernel, initramfs, log, Duration::from_secs(limit))?;
    Ok(report::parse(&console, suites))
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

/// A program with tests, and which of them to run.
#[derive(Debug)]
struct Tests {
    suite: &'static str,
    file: PathBuf,
    /// What `file` is called there.
    program: &'static str,
    /// Parts of names, of which each test has one.
    names: &'static [&'static str],
    /// A part that all their names have.
    filter: String,
}

/// Builds the tool and the tests of `suites`.
fn build(suites: &[&'static Suite], filter: Option<&str>) -> Result<Vec<Tests>> {
    sh::run(&mut sh::cargo(&["build", "--workspace", "--bins", "--locked"]))?;
    let mut command = sh::cargo(&["test", "--package", "e2e", "--package", "whereis-port-node"]);
    command.args(["--no-run", "--locked", "--message-format=json-render-diagnostics"]);
    for program in [Program::E2e, Program::Units] {
        if suites.iter().any(|suite| suite.program == program) {
            match program.target() {
                ("lib", _) => command.arg("--lib"),
                (_, name) => command.args(["--test", name]),
            };
        }
    }
    let messages = sh::capture(&mut command)?;
    suites
        .iter()
        .map(|suite| {
            let target = suite.program.target();
            let file = executable(&messages, target)
                .with_context(|| format!("cargo built no tests {}", target.1))?;
            let filter = filter.unwrap_or_default().to_owned();
            let (suite, program, names) = (suite.name, suite.program.name(), suite.names);
            Ok(Tests { suite, file, program, names, filter })
        })
        .collect()
}

/// The program that cargo says it built of a target's tests.
fn executable(messages: &str, (kind, name): (&str, &str)) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["kind"][0] == kind && message["target"]["name"] == name)
        // The library itself is built, too, and is no program.
        .find_map(|message| Some(Path::new(message["executable"].as_str()?).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_tests_are_found_in_what_cargo_prints() {
        let messages = concat!(
            r#"{"target":{"kind":["lib"],"name":"whereis_port_node"},"executable":null}"#,
            "\n",
            r#"{"target":{"kind":["lib"],"name":"whereis_port_node"},"executable":"/t/whereis-34"}"#,
            "\n",
            r#"{"target":{"kind":["test"],"name":"e2e"},"executable":"/t/e2e-12"}"#,
            "\n",
            r#"{"target":{"kind":["bin"],"name":"lab-helper"},"executable":"/t/lab-helper"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let built = |program: Program| executable(messages, program.target());
        assert_eq!(built(Program::E2e), Some("/t/e2e-12".into()));
        assert_eq!(built(Program::Units), Some("/t/whereis-34".into()));
        assert_eq!(executable(messages, ("test", "lab-helper")), None);
    }
}
