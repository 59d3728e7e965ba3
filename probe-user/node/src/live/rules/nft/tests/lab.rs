//! A network namespace of a test's own.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use rustix::thread::UnshareFlags;

use super::super::super::allowance::Allowance;
use super::super::{Conversation, NftTables};
use whereis_port_model::NetnsId;

/// A network namespace, and a thread in it that does what it is told. The namespace
/// goes with the thread.
pub(super) struct Lab {
    pub(super) id: NetnsId,
    work: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Lab {
    #[expect(unsafe_code, reason = "the thread, which has nothing yet, leaves its namespace")]
    pub(super) fn new() -> Self {
        let (work, orders) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let thread = std::thread::spawn(move || {
            // SAFETY: only the network namespace changes, and no descriptor.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            orders.into_iter().for_each(|order| order());
        });
        let id = NetnsId::Inode(0);
        let mut lab = Self { id, work: Some(work), thread: Some(thread) };
        let inode = lab.run(|| std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino());
        lab.id = NetnsId::Inode(inode);
        lab
    }

    /// Does something in the namespace.
    pub(super) fn run<T: Send + 'static>(&self, order: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let order = Box::new(move || drop(done.send(order())));
        self.work.as_ref().unwrap().send(order).unwrap();
        result.recv().expect("the order panicked")
    }

    pub(super) fn command(&self, program: &str, arguments: &[&str], input: &str) {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped());
        let input = input.to_owned();
        let status = self.run(move || {
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait().unwrap()
        });
        assert!(status.success(), "{program}: {status}");
    }

    pub(super) fn nft(&self, rules: &str) {
        self.command("nft", &["-f", "-"], rules);
    }

    pub(super) fn iptables(&self, rules: &str) {
        self.command("iptables-nft-restore", &["--wait"], rules);
    }

    /// A conversation with the namespace, for use outside of it.
    pub(super) fn talk(&self) -> Conversation {
        self.talk_within(Allowance::unlimited())
    }

    /// The same, in which so much may be read.
    pub(super) fn talk_within(&self, allowance: Arc<Allowance>) -> Conversation {
        self.run(move || Conversation::open(allowance).unwrap())
    }

    /// The rulesets and a conversation to read more.
    pub(super) fn tables(&self) -> (NftTables, Conversation) {
        let id = self.id;
        self.run(move || {
            let mut talk = Conversation::open(Allowance::unlimited()).unwrap();
            (NftTables::read(id, &mut talk).unwrap(), talk)
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.work = None;
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Whether a namespace with rules can be made here. A skipped test says so, and
/// fails where the lab is required.
pub(super) fn can_make_labs() -> bool {
    let on_path = |tool: &str| {
        ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|d| Path::new(d).join(tool).is_file())
    };
    let reason = if !rustix::process::geteuid().is_root() {
        "reading rules needs root (network namespaces)"
    } else if !on_path("iptables-nft-restore") || !on_path("nft") {
        "iptables or nft is not installed (packages iptables, nftables)"
    } else {
        return true;
    };
    assert!(
        std::env::var_os("WHEREIS_PORT_REQUIRE_LAB").is_none(),
        "WHEREIS_PORT_REQUIRE_LAB is set, but {reason}"
    );
    // Not `eprintln!`: the test harness would keep that for itself.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes());
    false
}
