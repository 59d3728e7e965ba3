//! The same through the node: namespaces, sockets, gaps.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::super::super::super::LiveNode;
use super::super::super::allowance::Allowance;
use super::super::super::{NetnsRules, RulesError, SOCKETS, troubles};
use super::*;
use crate::{Netfilter as _, Reports as _};
use whereis_port_model::Impact;

/// A process in a network namespace of its own, which goes with it.
struct Process(Child);

impl Process {
    /// It says when it is there, and waits for the end of its input.
    fn new(rules: &str) -> Self {
        let script = "nft -f - <<END\n".to_owned() + rules + "\nEND\necho; exec cat";
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        Self(child)
    }

    fn netns(&self) -> NetnsId {
        let file = format!("/proc/{}/ns/net", self.0.id());
        NetnsId::Inode(std::fs::metadata(file).unwrap().ino())
    }

    fn nft(&self, rules: &str) {
        let net = format!("--net=/proc/{}/ns/net", self.0.id());
        let mut child = Command::new("nsenter")
            .args([net.as_str(), "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const RULES: &str = "table ip t { set s { type inet_service; elements = { 80 }; }
  chain in { type filter hook input priority 0; jump c; }; chain c { tcp dport @s accept; }; }";

#[test]
fn the_node_reads_rules_of_namespaces_with_and_without_a_socket_kept() {
    if !can_make_labs() {
        return;
    }
    let (with, without) = (Process::new(RULES), Process::new(""));
    let id = with.netns();
    for kept in [true, false] {
        let node = LiveNode::new().unwrap().with_timeout(Some(std::time::Duration::from_secs(600)));
        if !kept {
            node.rules.sockets.store(SOCKETS, Ordering::Relaxed);
        }
        let read = node.rulesets(&[id, without.netns()]);
        assert_eq!(read.gaps, []);
        let [ruleset] = read.value.as_slice() else { panic!("{read:?}") };
        assert_eq!((ruleset.netns, ruleset.tables.len()), (id, 1));
        assert!(ruleset.generation.is_some());
        let [base] = ruleset.base_chains.as_slice() else { panic!("{ruleset:?}") };
        let rules = node.chain(&base.id);
        assert_eq!(rules.value.unwrap()[0].exprs, [Expr::Verdict(RuleVerdict::Jump("c".into()))]);
        let table = base.id.table.clone();
        let set = SetId { table: table.clone(), name: "s".into() };
        assert_eq!(node.set(&set).value.unwrap().key_len, 2);
        assert_eq!(node.set_elements(&set).value.unwrap().len(), 1);
        assert_eq!(node.set_element(&set, &hex("0050")).value.unwrap().key, hex("0050"));
        assert_eq!(node.set_element(&set, &hex("0051")).value, None);
        let none = ChainId { table, name: "none".into() };
        assert_eq!(node.chain(&none), whereis_port_model::Read::whole(None));
        let sources = node.sources();
        let source = sources.iter().find(|source| source.name == "packet rules").unwrap();
        assert!(source.ok && source.detail == "1 tables in 2 namespaces", "{source:?}");
    }
}

#[test]
fn a_change_while_it_is_read_is_a_gap() {
    if !can_make_labs() {
        return;
    }
    let process = Process::new(RULES);
    let node = LiveNode::new().unwrap().with_timeout(Some(std::time::Duration::from_secs(600)));
    let rulesets = node.rulesets(&[process.netns()]).value;
    let base = &rulesets[0].base_chains[0].id;
    let chain = |name: &str| ChainId { table: base.table.clone(), name: name.into() };
    assert_eq!(node.chain(base).gaps, []);
    process.nft("table ip other { }");
    assert_eq!(node.chain(&chain("c")).gaps, []);
    process.nft("add rule ip t c drop");
    let read = node.chain(&chain("none"));
    let [gap] = read.gaps.as_slice() else { panic!("{read:?}") };
    assert_eq!((gap.impact, gap.remedy.as_deref()), (Impact::Reach, Some("ask again")));
    assert!(gap.source.to_string().starts_with("packet rules of netns "), "{gap:?}");
}

#[test]
fn without_the_right_all_namespaces_are_one_gap() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.nft(RULES);
    let id = lab.id;
    // Rights are those of a thread: this one is spent.
    let trouble = lab.run(move || {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).unwrap();
        NetnsRules::read(id, true, &AtomicUsize::new(0), &Allowance::unlimited()).trouble.unwrap()
    });
    assert!(matches!(trouble, RulesError::Denied(_)), "{trouble:?}");
    let other = NetnsId::Inode(1);
    let spaces = [(id, Err(trouble.clone())), (other, Err(trouble))].into();
    let gaps = troubles(&[id, other], &spaces);
    let [gap] = gaps.as_slice() else { panic!("{gaps:?}") };
    assert_eq!(gap.impact, Impact::Port);
    assert_eq!(gap.remedy.as_deref(), Some("run as root, or with CAP_NET_ADMIN"));
    assert!(gap.source.to_string().starts_with("packet rules of network namespaces "), "{gap:?}");
}

#[test]
fn a_kernel_without_nf_tables_is_not_asked() {
    if !can_make_labs() {
        return;
    }
    let lab = Lab::new();
    lab.nft(RULES);
    let id = lab.id;
    let tables = |has: bool| {
        lab.run(move || {
            NetnsRules::read(id, has, &AtomicUsize::new(0), &Allowance::unlimited()).tables()
        })
    };
    assert_eq!((tables(true), tables(false)), (1, 0));
}
