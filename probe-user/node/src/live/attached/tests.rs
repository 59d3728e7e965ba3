//! What is attached to devices and cgroups of this machine.

use super::super::conntrack::Lab;
use super::super::ebpf::programs::making;
use super::*;

/// `BPF_PROG_TYPE_XDP`, `BPF_PROG_TYPE_SCHED_CLS`, and `BPF_XDP`.
const XDP: (u32, AttachType) = (6, AttachType(37));
const SCHED_CLS: u32 = 3;

fn named(id: NetnsId, node: &LiveNode) -> Vec<(DeviceHook, String)> {
    let read = node.attached(&[id]);
    assert_eq!(read.gaps, []);
    let name = |one: Attached| match one.what {
        Attachment::Program(program) => {
            assert!(program.id.is_some() && program.balancer.is_none() && one.netns == id);
            (one.at, program.name)
        }
        other => panic!("{other:?}"),
    };
    read.value.into_iter().map(name).collect()
}

#[test]
fn programs_of_devices_are_found_in_their_namespace() {
    if !Lab::can_be_made() {
        return;
    }
    let lab = Lab::new();
    let id = lab.door.id;
    assert_eq!(named(id, &LiveNode::new().unwrap()), []);
    let attach = |kind, attach_type| {
        let attach = move |_: &NetnsHandle| making::attach(kind, 1, attach_type, 2);
        super::super::enter::Pool::default()
            .in_each(std::slice::from_ref(&lab.door), attach)
            .pop()
            .unwrap()
    };
    let xdp = attach(XDP.0, XDP.1).unwrap();
    match xdp {
        Ok(_attached) => {
            let found = named(id, &LiveNode::new().unwrap());
            assert_eq!(found, [(DeviceHook::Xdp, "wp_test".to_owned())]);
        }
        Err(error) => eprintln!("SKIPPED: no XDP here: {error}"),
    }
    for (attach_type, at) in TCX {
        match attach(SCHED_CLS, attach_type).unwrap() {
            Ok(_attached) => {
                let found = named(id, &LiveNode::new().unwrap());
                assert_eq!(found, [(at, "wp_test".to_owned())]);
            }
            Err(error) => eprintln!("SKIPPED: no tcx here: {error}"),
        }
    }
    assert_eq!(named(id, &LiveNode::new().unwrap()), [], "they are gone");
}

#[test]
fn the_root_of_all_cgroups_and_that_of_a_process_can_be_asked() {
    let node = LiveNode::new().unwrap();
    for of in [CgroupOf::ROOT, CgroupOf::Process(std::process::id()), CgroupOf::Own] {
        let read = node.cgroup_programs(&of);
        assert!(read.value.is_some() || !read.gaps.is_empty(), "{of:?}: {read:?}");
    }
    let gone = node.cgroup_programs(&CgroupOf::Id(u64::MAX));
    assert_eq!(gone.value, None);
}
