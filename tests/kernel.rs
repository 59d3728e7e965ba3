//! Ports that the kernel itself holds.

use std::process::Command;

use anyhow::{Context, ensure};
use lab::{Lab, Netns, Test};

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

#[test]
fn a_wireguard_device_holds_the_port_that_it_chose() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    if let Err(error) = lab.host().ip(&["link", "add", "wgx", "type", "wireguard"]) {
        lab::skip_on_this_kernel(&format!("no WireGuard devices: {error:#}"));
        return Ok(());
    }
    lab.host().ip(&["link", "set", "wgx", "up"])?;
    let port = only_udp_port(lab.host())?;
    holds_its_port(&lab, port, "wgx", "wireguard")?;

    lab.host().ip(&["link", "set", "wgx", "down"])?;
    lab.whereis(&[&format!("{port}/udp")])?.is_nothing()?;
    Ok(())
}

#[test]
fn a_geneve_device_holds_its_port() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let geneve = ["link", "add", "gx0", "type", "geneve", "external", "dstport", "6082"];
    if let Err(error) = lab.host().ip(&geneve) {
        lab::skip_on_this_kernel(&format!("no GENEVE devices: {error:#}"));
        return Ok(());
    }
    lab.whereis(&["6082/udp"])?.is_nothing()?;
    lab.host().ip(&["link", "set", "gx0", "up"])?;
    holds_its_port(&lab, 6082, "gx0", "geneve")
}

/// The device of that kind is what has the port, and no process.
fn holds_its_port(lab: &Lab, port: u16, device: &str, kind: &str) -> Test {
    let run = lab.whereis(&[&format!("{port}/udp")])?;
    let paths = run.is_found()?.paths_in(lab.host())?;
    ensure!(!paths.is_empty(), "{}", run.json);
    for path in paths {
        ensure!(path.ending() == "kernel" && path.pids().is_empty(), "{}", path.0);
        let text = path.0.to_string();
        ensure!(text.contains(device) && text.to_lowercase().contains(kind), "{text}");
    }
    Ok(())
}

/// The UDP port in use in a namespace where one device opened its sockets.
fn only_udp_port(netns: &Netns) -> anyhow::Result<u16> {
    let ss = ["netns", "exec", &netns.name, "ss", "-Hnau"];
    let text = String::from_utf8(Command::new("ip").args(ss).output()?.stdout)?;
    let address = text.split_whitespace().nth(3).with_context(|| format!("no socket: {text:?}"))?;
    let (_, port) = address.rsplit_once(':').context("no port")?;
    port.parse().with_context(|| format!("{address} has no port"))
}
