//! Files made by hand: each shape that kernels have.

use probe_common::{MISSING, Offsets};

use super::super::offsets::{KernelLayout, find, read};
use super::super::parts::ProbePart;
use super::super::reader::Error;
use super::builder::Builder;

/// What a part of `struct sock` and its like can look like.
pub(super) fn kernel() -> Builder {
    let mut b = Builder::new();
    let (byte, short, word, long) = (b.int(1), b.int(2), b.int(4), b.int(8));
    let pointer = b.pointer();
    let alias = b.link(8, short);
    let volatile = b.link(9, byte);
    let sixteen = b.array(byte, 16);
    let inner = b.structure("", 4, &[("skc_dport", alias, 0), ("skc_num", short, 16)]);
    let either = b.composite(5, "", 8, &[("skc_portpair", long, 0), ("", inner, 32)]);
    let bit = |at: u32| 1 << 24 | at;
    let members = [
        ("", either, 64),
        ("skc_family", short, 128),
        ("skc_state", volatile, 144),
        ("skc_reuse", byte, 4 << 24 | 152),
        ("skc_ipv6only", byte, bit(157)),
        ("skc_v6_daddr", sixteen, 160),
    ];
    let common = b.structure("sock_common", 40, &members);
    let own = b.structure("sock_cgroup_data", 8, &[("val", long, 0)]);
    let members = [
        ("__sk_common", common, 64),
        ("sk_type", short, 48 * 8),
        ("sk_protocol", word, (8 << 24) | (51 * 8)),
        ("sk_socket", pointer, 56 * 8),
        ("sk_cgrp_data", own, 64 * 8),
    ];
    b.structure("sock", 72, &members);
    let members = [("real_start_time", long, 64), ("comm", sixteen, 128)];
    b.structure("task_struct", 64, &members);
    b.structure("kernfs_node", 8, &[("id", word, 0)]);
    b.enumeration("cgroup_subsys_id", &[("cpuset_cgrp_id", 0), ("memory_cgrp_id", 4)]);
    let subsystems = b.array(pointer, 14);
    b.structure("css_set", 128, &[("subsys", subsystems, 32)]);
    let socket = b.structure("socket", 128, &[("sk", pointer, 24 * 8)]);
    let inode = b.structure("inode", 600, &[("i_ino", long, 64 * 8)]);
    b.structure("socket_alloc", 728, &[("socket", socket, 0), ("vfs_inode", inode, 1024)]);
    b.raw("bpf_iter_task", 12 << 24, 1, &[]);
    b
}

/// The BTF of the module that has connection tracking.
pub(super) fn module(kernel: &Builder) -> Builder {
    let mut b = Builder::after(kernel);
    // Ids of the kernel's own file: 1 is a byte, 4 a long.
    let tuple = b.structure("nf_conntrack_tuple", 40, &[]);
    let hash = b.structure("nf_conntrack_tuple_hash", 56, &[("tuple", tuple, 128)]);
    let two = b.array(hash, 2);
    let net = b.structure("", 8, &[("net", 5, 0)]);
    let members = [("status", 4, 1024), ("tuplehash", two, 128), ("ct_net", net, 1088)];
    b.structure("nf_conn", 248, &members);
    b
}

fn layout(kernel: &Builder) -> KernelLayout {
    find(&kernel.bytes(), || None, &["bpf_iter_task", "bpf_iter_none"]).unwrap()
}

fn reason<'l>(layout: &'l KernelLayout, part: &str) -> Option<&'l str> {
    layout.missing.iter().map(|m| m.reason.as_str()).find(|reason| reason.contains(part))
}

#[test]
fn members_are_found_through_whatever_is_around_them() {
    let layout = layout(&kernel());
    let o = layout.offsets;
    assert_eq!((o.sock_dport, o.sock_num), (20, 22), "anonymous struct in a union, typedef");
    assert_eq!((o.sock_family, o.sock_state), (24, 26), "volatile");
    assert_eq!((o.sock_v6_daddr, o.sock_socket, o.sock_type), (28, 56, 48));
    assert_eq!((o.sock_ipv6only, o.sock_ipv6only_mask), (27, 1 << 5));
    assert_eq!((o.task_start, o.task_comm), (8, 16), "the name it had before Linux 5.5");
    assert_eq!(o.css_set_memory, 4 + 8 * 4);
    assert_eq!((o.socket_inode, o.inode_ino), (128, 64));
    assert_eq!(layout.functions, [Some(22), None]);
}

#[test]
fn a_field_of_another_type_is_missing_and_says_so() {
    let layout = layout(&kernel());
    let o = layout.offsets;
    let missing = [o.sock_protocol, o.sock_cgroup, o.kernfs_id, o.task_pid, o.net_inum];
    assert_eq!(missing, [MISSING; 5]);
    assert!(reason(&layout, "`sock.sk_protocol` is a bit field").is_some());
    assert!(reason(&layout, "`sock` has no `sk_cgrp_data.cgroup`").is_some());
    assert!(reason(&layout, "`kernfs_node.id` has another type").is_some());
    assert!(reason(&layout, "the type `net` is not in the kernel's BTF").is_some());
}

#[test]
fn what_is_missing_turns_off_only_what_needs_it() {
    let layout = layout(&kernel());
    let parts = |text: &str| {
        layout.missing.iter().find(|m| m.reason.contains(text)).map(|m| m.parts.clone()).unwrap()
    };
    assert_eq!(parts("sk_protocol"), [ProbePart::Sockets, ProbePart::Listen]);
    assert_eq!(parts("sk_cgrp_data"), [ProbePart::Detail("cgroups of sockets")]);
    assert_eq!(parts("`dfl_cgrp`"), [ProbePart::Cgroup]);
    assert!(layout.refusal(ProbePart::Nat).is_some());
    let text = layout.missing[0].to_string();
    assert!(text.contains("; off without it: "), "{text}");
}

#[test]
fn connection_tracking_comes_from_its_module_when_it_is_one() {
    let (kernel, whole) = (kernel(), |b: &Builder| b.bytes());
    let module = module(&kernel);
    let layout = find(&whole(&kernel), || Some(whole(&module)), &[]).unwrap();
    let o = layout.offsets;
    assert_eq!((o.ct_original, o.ct_reply), (16 + 16, 16 + 56 + 16));
    assert_eq!((o.ct_status, o.ct_net), (128, 136));
    let without = find(&whole(&kernel), || None, &[]).unwrap();
    assert_eq!(without.offsets.ct_original, MISSING);
    assert!(reason(&without, "modprobe nf_conntrack").is_some());
    let damaged = find(&whole(&kernel), || Some(vec![0; 7]), &[]).unwrap();
    assert_eq!(damaged, without);
}

#[test]
fn cycles_and_endless_nesting_end() {
    let mut b = Builder::new();
    b.link(8, 2);
    b.link(10, 1);
    b.array(3, 1);
    let members: Vec<_> = (0..5000).map(|_| ("", 4, 0)).collect();
    b.structure("sock", 8, &members);
    b.structure("file", 8, &[("f_inode", 1, 0)]);
    b.structure("upid", 8, &[("nr", 3, 0)]);
    let layout = layout(&b);
    assert_eq!((layout.offsets.sock_family, layout.offsets.file_inode), (MISSING, MISSING));
    assert_eq!(layout.offsets.upid_nr, MISSING);
}

#[test]
fn a_kind_of_type_that_is_not_known_ends_the_search_not_the_tool() {
    let mut b = kernel();
    b.raw("", 25 << 24, 0, &[]);
    b.structure("upid", 16, &[]);
    let layout = layout(&b);
    assert_eq!(layout.offsets.sock_family, 24);
    assert_eq!(layout.offsets.upid_size, MISSING);
    assert!(reason(&layout, "a kind of type, 25,").is_some());
}

#[test]
fn a_field_outside_of_its_struct_is_not_believed() {
    let mut b = Builder::new();
    let pointer = b.pointer();
    b.structure("file", 8, &[("f_inode", pointer, 64)]);
    let layout = layout(&b);
    assert_eq!(layout.offsets.file_inode, MISSING);
    assert!(reason(&layout, "`file.f_inode` lies outside").is_some());
}

#[test]
fn files_that_are_none_are_refused() {
    let whole = kernel().bytes();
    let error = |bytes: &[u8]| find(bytes, || None, &[]).unwrap_err();
    assert_eq!(error(b""), Error::Magic);
    assert_eq!(error(&[0xeb, 0x9f, 1, 0]), Error::Magic);
    assert_eq!(error(&whole[..whole.len() - 1]), Error::Damaged);
    let mut newer = whole;
    newer[2] = 2;
    assert_eq!(error(&newer), Error::Version(2));
}

#[test]
fn a_kernel_without_btf_says_what_it_needs() {
    let directory = std::env::temp_dir().join("no-such-directory-of-btf");
    let layout = read(&directory, &["bpf_iter_task"]);
    assert_eq!((layout.offsets, layout.functions.as_slice()), (Offsets::NONE, [None].as_slice()));
    for part in ProbePart::ALL {
        let reason = layout.refusal(part).unwrap();
        assert!(reason.starts_with("the kernel has no BTF: /"), "{reason}");
        assert!(reason.ends_with("/vmlinux is not there (needs CONFIG_DEBUG_INFO_BTF)"));
    }
}
