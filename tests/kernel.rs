//! Ports that the kernel itself holds.

use anyhow::ensure;
use lab::{Lab, Test};

#[test]
fn a_vxlan_device_holds_its_port_while_it_is_up() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let question = format!("{port}/udp");
    lab.vxlan(lab.host(), "cilium_vxlan", 7, port)?;
    lab.whereis(&[&question])?.is_nothing()?;

    lab.host().ip(&["link", "set", "cilium_vxlan", "up"])?;
    let run = lab.whereis(&[&question])?;
    let paths = run.is_found()?.paths_in(lab.host())?;
    ensure!(!paths.is_empty(), "{}", run.json);
    for path in paths {
        ensure!(path.ending() == "kernel" && path.pids().is_empty(), "{}", path.0);
        let text = path.0.to_string();
        ensure!(text.contains("cilium_vxlan"), "{text}");
        // The kind of device, not only a name that happens to have it.
        let text = text.replace("cilium_vxlan", "").to_lowercase();
        ensure!(text.contains("vxlan"), "{text}");
    }
    Ok(())
}

#[test]
fn devices_that_share_a_port_are_all_named() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let node = lab.netns("node")?;
    for (name, vni) in [("flannel.1", 1), ("mine0", 2)] {
        lab.vxlan(&node, name, vni, 8472)?;
        node.ip(&["link", "set", name, "up"])?;
    }
    let run = lab.whereis(&["8472/udp"])?;
    let text: String =
        run.is_found()?.paths_in(&node)?.iter().map(|path| path.0.to_string()).collect();
    ensure!(text.contains("flannel.1") && text.contains("mine0"), "{text}");
    Ok(())
}

#[test]
fn a_process_on_the_port_of_a_device_that_is_down_is_the_owner() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    lab.vxlan(lab.host(), "vx0", 7, 28473)?;
    let proc = lab.listen(lab.host(), "udp 0.0.0.0:28473")?;
    let run = lab.whereis(&["28473/udp"])?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.ending() == "process" && path.pids() == [u64::from(proc.pid)], "{}", path.0);
    Ok(())
}
