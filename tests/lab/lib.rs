//! The lab: nodes made from real parts, for end-to-end tests of `whereis-port`.
//!
//! A [`Lab`] has a network namespace of its own, which stands for the host, and
//! as many more as a test wants; real processes ([`Lab::listen`]), real Docker
//! ([`Docker`]), and the tool itself, run in there ([`Lab::tool`]). Everything a
//! lab makes carries its name, `wp-<pid>-<n>`: namespaces, cgroups, directories.
//! So labs run side by side, and what is left of one can be found and removed.
//!
//! Cleaning up never goes by process name. Every process of a lab is in the
//! lab's cgroup, and exactly what is in there is killed: when the [`Lab`] is
//! dropped, and if the test process dies before, by a watcher (`lab-helper
//! reap`) that waits for its end. [`Lab::new`] also sweeps what dead test
//! processes left.

pub mod apiserver;
mod attach;
mod cgroup;
mod cluster;
mod connect;
mod containerd;
mod control;
mod cri;
mod crowd;
mod docker;
mod fake;
pub mod fleet;
mod hostile;
mod k3s;
mod kind;
pub mod kube;
mod kubelet;
mod loaded;
mod mounts;
mod netns;
mod node;
mod process;
mod programs;
mod rootfs;
mod ruleset;
mod sweep;
mod terminal;
mod tool;
mod trace;
mod waiting;

pub use attach::{Attached, Place};
pub use cluster::{Cluster, Pod, no_kube};
pub use connect::{Landing, within};
pub use containerd::{Containerd, CriPod, PAUSE_IMAGE, POD_IMAGE, PodContainer, PodSpec};
pub use crowd::{Crowd, Entry, Random, difference, listed};
pub use docker::{Container, Docker, KindNode};
pub use fake::{FakeContainer, FakeDocker};
pub use hostile::Fuse;
pub use k3s::{K3sApi, K3sContainer, K3sPod};
pub use kind::{KindCluster, KindPod, Kinds};
pub use kubelet::KubeletNode;
pub use loaded::{is_loaded, programs_of};
pub use mounts::Mounts;
pub use netns::{Netns, netns_inode, unused_port};
pub use node::Lab;
pub use process::Proc;
pub use programs::binary;
pub use ruleset::{Backend, no_rules};
pub use sweep::{sweep, sweep_dead};
pub use terminal::Terminal;
pub use tool::{Run, Tool, View, ask};
pub use trace::Trace;

/// What a test returns.
pub type Test = anyhow::Result<()>;

/// Why the lab can't be built here, if it can't.
pub fn no_lab() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("the lab needs root (network namespaces, cgroups)".to_owned());
    }
    let missing = ["ip", "nsenter", "unshare", "ss"].into_iter().find(|tool| !has(tool));
    missing.map(|tool| format!("{tool} is not installed (packages iproute2, util-linux)"))
}

/// Why a terminal can't be had here, if it can't.
pub fn no_terminal() -> Option<String> {
    let missing = || ["tmux", "screen", "bash"].into_iter().find(|tool| !has(tool));
    no_lab().or_else(|| missing().map(|tool| format!("{tool} is not installed")))
}

/// Why Docker can't be run here, if it can't.
pub fn no_docker() -> Option<String> {
    no_lab().or_else(|| {
        let missing = ["dockerd", "docker", "busybox", "iptables"].into_iter().find(|t| !has(t));
        missing.map(|tool| {
            format!("{tool} is not installed (packages docker.io, busybox-static, iptables)")
        })
    })
}

/// Why containerd can't be run here, if it can't.
pub fn no_containerd() -> Option<String> {
    no_lab().or_else(|| {
        let missing = ["containerd", "ctr", "runc", "busybox"].into_iter().find(|t| !has(t));
        let plugin = !std::path::Path::new("/usr/lib/cni/bridge").exists();
        missing.or(plugin.then_some("CNI's bridge")).map(|tool| {
            format!(
                "{tool} is not installed (packages containerd, runc, busybox-static, \
                 containernetworking-plugins)"
            )
        })
    })
}

/// Whether `program` is on the search path.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

/// Says loudly that a test was skipped. With `WHEREIS_PORT_REQUIRE_LAB` set, as
/// in CI, a skipped test is a failed one.
///
/// # Panics
/// When the lab is required.
pub fn skip(reason: &str) {
    assert!(
        std::env::var_os("WHEREIS_PORT_REQUIRE_LAB").is_none(),
        "WHEREIS_PORT_REQUIRE_LAB is set, but {reason}"
    );
    show_skipped(reason);
}

/// Says loudly that a test was skipped because this kernel lacks something. The
/// kernels of `cargo xtask vm` have everything: there it is a failed test.
///
/// # Panics
/// In such a virtual machine.
pub fn skip_on_this_kernel(reason: &str) {
    assert!(!is_other_kernel(), "{reason}");
    show_skipped(reason);
}

/// Whether this runs on one of the kernels of `cargo xtask vm`.
pub fn is_other_kernel() -> bool {
    std::env::var_os("WHEREIS_PORT_VM").is_some()
}

/// Says that a test was skipped, also where everything else has to run: what it is about is not
/// part of every build.
pub fn show_skipped(reason: &str) {
    // Not `eprintln!`: the test harness would keep that for itself.
    let message = format!("SKIPPED: {reason}\n");
    let _nobody_listens = std::io::Write::write_all(&mut std::io::stderr(), message.as_bytes());
}

/// Leaves the test, saying so, when the lab can't be built here.
#[macro_export]
macro_rules! root_or_skip {
    () => {
        if let Some(reason) = $crate::no_lab() {
            $crate::skip(&reason);
            return Ok(());
        }
    };
}

/// Leaves the test, saying so, when a terminal can't be had here.
#[macro_export]
macro_rules! terminal_or_skip {
    () => {
        if let Some(reason) = $crate::no_terminal() {
            $crate::skip(&reason);
            return Ok(());
        }
    };
}

/// Leaves the test, saying so, when containerd can't be run here.
#[macro_export]
macro_rules! containerd_or_skip {
    () => {
        if let Some(reason) = $crate::no_containerd() {
            $crate::skip(&reason);
            return Ok(());
        }
    };
}

/// Leaves the test, saying so, when Kubernetes can't be run here.
#[macro_export]
macro_rules! kube_or_skip {
    () => {
        if let Some(reason) = $crate::no_kube() {
            $crate::skip(&reason);
            return Ok(());
        }
    };
}

/// Leaves the test, saying so, when Docker can't be run here.
#[macro_export]
macro_rules! docker_or_skip {
    () => {
        if let Some(reason) = $crate::no_docker() {
            $crate::skip(&reason);
            return Ok(());
        }
    };
}
