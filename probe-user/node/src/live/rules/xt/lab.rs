//! Network namespaces for tests, which go when their thread ends.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::thread::UnshareFlags;

/// Does something in a new network namespace; the programs named must be there.
/// Without root nothing is done, which is said, and fails where the lab is
/// required.
#[expect(unsafe_code, reason = "the thread, which has nothing yet, leaves its namespace")]
pub(in crate::live::rules) fn in_a_namespace(
    tools: &[&str],
    order: impl FnOnce() + Send + 'static,
) {
    let is_there = |tool: &&str| {
        ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|d| Path::new(d).join(tool).exists())
    };
    let missing = tools.iter().find(|tool| !is_there(tool));
    let reason = match missing {
        _ if !rustix::process::geteuid().is_root() => {
            "packet rules need root (network namespaces)".to_owned()
        }
        Some(tool) => format!("{tool} is not installed"),
        None => {
            let thread = std::thread::spawn(|| {
                // SAFETY: only the network namespace changes, and no descriptor.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
                order();
            });
            return thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    };
    assert!(
        std::env::var_os("WHEREIS_PORT_REQUIRE_LAB").is_none(),
        "WHEREIS_PORT_REQUIRE_LAB is set, but {reason}"
    );
    // Not `eprintln!`: the test harness would keep that for itself.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes());
}

/// Runs a program in the calling thread's namespace.
pub(in crate::live::rules) fn run(program: &str, arguments: &[&str], input: &str) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
