//! Every developer command of whereis-port: `cargo xtask COMMAND`.

mod bench;
mod check;
mod dist;
mod docs;
mod ebpf;
mod fuzz;
mod kube;
mod names;
mod publish;
mod setup;
mod sh;
mod test;
mod vm;
mod workflows;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Every developer command of whereis-port.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what the tests and checks need.
    ///
    /// As root, on Debian and Ubuntu: installs the packages that are missing.
    /// As another user: prints the commands to run and exits with 2. Does
    /// nothing, quickly, when all is there.
    Setup,
    /// Check formatting, lints, documentation, licences and advisories.
    ///
    /// Advisories need a database that cargo-deny fetches from GitHub. Where that
    /// can't be reached, they are left out, loudly; all else must pass.
    Check,
    /// Build once and run the unit tests and the end-to-end tests.
    ///
    /// As root: installs what is missing for them first, and a test that can't
    /// make its namespaces or containers fails. As another user: runs what needs
    /// no root, and says what was left out. What needs a Kubernetes from source, or
    /// the kernel side built anew, is left to `test --extended`.
    ///
    /// Examples:
    ///   cargo xtask test                      everything but the extended tests
    ///   cargo xtask test --extended           the extended tests
    ///   cargo xtask test -p e2e docker::      one file of end-to-end tests
    ///   cargo xtask test --durations          and says which took longest
    #[command(verbatim_doc_comment)]
    Test(test::Args),
    /// Build the kernel side into probe-user/node/prebuilt, which builds embed.
    ///
    /// Needed after a change of probe-ebpf only. Takes a rustup nightly with
    /// rust-src, or Debian's rustc-web, and bpf-linker: `setup` installs them.
    BuildEbpf(ebpf::Args),
    /// Run end-to-end tests on Debian's kernels 6.1 and 6.12, under QEMU.
    ///
    /// `--all` also asks the static binary on 5.10, the newest kernel of Debian's and arm64.
    /// Emulated, without network or disk, in a minute or two for each. Kernels are
    /// downloaded once, into target/vm, or $WHEREIS_PORT_VM_CACHE.
    Vm(vm::Args),
    /// Write the screens of recorded nodes anew, in tests/data/screens.
    ///
    /// After a change of the screen, as is `docs --write` for those of the book. Look at the
    /// difference before you commit it.
    Screens,
    /// Check the documents, or write what is generated in them, and build the book.
    ///
    /// Checks links, the table of contents, every example of the README and of docs/src,
    /// and the page of codes. The book becomes HTML, in target/book, where mdbook is installed.
    Docs(docs::Args),
    /// A real Kubernetes for the tests.
    Kube(kube::Args),
    /// Feed damaged messages to every parser of what the kernel says.
    ///
    /// Builds the targets, with libFuzzer, and runs them for a minute each, one for
    /// each processor at a time. An input that makes one panic is kept, in
    /// target/fuzz/work/crashes; what was learnt is kept beside it.
    Fuzz(fuzz::Args),
    /// Compare with ss, lsof and somo, side by side, on a big and a small node.
    ///
    /// Needs root, for a network namespace of its own. Opens some ten thousand
    /// sockets and descriptors in there, in processes that end with this one.
    Bench(bench::Args),
    /// Pack what a release has: binaries, man page, completions, licences; packages.
    ///
    /// Examples:
    ///   cargo xtask dist                      for this machine, with its C library
    ///   cargo xtask dist --target x86_64-unknown-linux-musl --verify
    ///                                         a static binary, built twice
    ///   cargo xtask dist --all                all that a release has
    #[command(verbatim_doc_comment)]
    Dist(dist::Args),
    /// Package every crate, build each from its package alone, and publish them.
    ///
    /// In the order in which they need each other. What a package lacks (licence, README,
    /// metadata, the object of the kernel side) stops it before anything is published.
    ///
    /// Examples:
    ///   cargo xtask publish --dry-run         all of that, and nothing is published
    #[command(verbatim_doc_comment)]
    Publish(publish::Args),
    /// One process of the node that `bench` measures on.
    #[command(hide = true)]
    BenchNode(bench::HelperArgs),
    /// One process of the burst of events that `bench` measures.
    #[command(hide = true)]
    BenchBurst(bench::BurstArgs),
    /// Runs one command for `bench` and prints its peak of memory.
    #[command(hide = true)]
    BenchPeak(bench::PeakArgs),
}

/// Something to be done first by whoever ran the command: shown as it is, and
/// the exit status is 2 instead of 1.
#[derive(Debug)]
struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup => setup::run(setup::For::ALL),
        Command::Check => check::run(),
        Command::Test(args) => test::run(&args),
        Command::BuildEbpf(args) => ebpf::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Screens => screens(),
        Command::Docs(args) => docs::run(&args),
        Command::Kube(args) => kube::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::BenchNode(args) => bench::help(&args),
        Command::BenchBurst(args) => bench::help_burst(&args),
        Command::BenchPeak(args) => bench::print_peak(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Refused>() { 2 } else { 1 })
        }
    }
}

fn screens() -> anyhow::Result<()> {
    let test = ["test", "--package", "e2e", "--test", "e2e", "screens::"];
    sh::run(sh::cargo(&test).env("UPDATE_GOLDEN", "1"))
}
