//! Every parser of what others control, callable by the fuzz targets in `fuzz/`.
//!
//! Each takes any bytes and may do anything with them but panic, run without end or
//! take memory out of proportion. Not part of the tool.

use std::path::Path;

use crate::model::forward;
use crate::model::{Port, Proto, parse_proc_cgroup};
use crate::node::{Recorded, Recording, fuzzing as node, redact};
use crate::view::tui;
use crate::{cli, fleet, resolve};

/// A function that takes whatever a fuzzer makes.
pub type FuzzTarget = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: &[(&str, FuzzTarget)] = &[
    ("agents", agents),
    ("arguments", node::arguments),
    ("btf", node::btf),
    ("certificates", node::certificates),
    ("cgroups", cgroups),
    ("cilium", node::cilium),
    ("conntrack", node::conntrack),
    ("cri", node::cri),
    ("docker", node::docker),
    ("filter", filter),
    ("forwarders", forwarders),
    ("ipset", node::ip_set),
    ("ipvs", node::ipvs),
    ("kube", node::kube),
    ("kubeconfig", node::kubeconfig),
    ("legacy", node::legacy_table),
    ("netlink", node::netlink),
    ("nf_tables", node::nf_tables),
    ("nf_tables_expressions", node::nf_tables_expressions),
    ("proc", node::proc),
    ("recordings", recordings),
    ("records", node::records),
    ("rtnetlink", node::rtnetlink),
    ("screen_config", screen_config),
    ("sock_diag", node::sock_diag),
    ("state_files", node::state_files),
    ("targets", targets),
    ("xtables", node::xtables),
];

/// What the agents of a cluster's nodes print: its exit status, then standard output.
fn agents(bytes: &[u8]) {
    let Some((code, stdout)) = bytes.split_first() else { return };
    let output = fleet::RunOutput {
        code: i32::from(*code & 3),
        stdout: stdout.to_vec(),
        stderr: stdout.to_vec(),
    };
    let _ = fleet::read_output(&output, 1);
}

/// `/proc/PID/cgroup`, and the containers and units in its paths.
fn cgroups(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(path) = parse_proc_cgroup(&text) {
        path.containers();
        path.unit();
    }
}

/// The filter of the screen.
fn filter(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let filter = tui::Filter::parse(&text);
    filter.passes_line(&text);
}

/// The configuration of the screen.
fn screen_config(bytes: &[u8]) {
    let _ = tui::config::Config::parse(&String::from_utf8_lossy(bytes));
}

/// Command lines of programs that pass connections on, one argument a line.
fn forwarders(bytes: &[u8]) {
    let argv = node::lines(bytes);
    for proto in Proto::ALL {
        let address = std::net::IpAddr::from([127, 0, 0, 1]);
        let _ = forward::parse(&argv, proto, address, Port(8080));
    }
    forward::telling_words(&argv);
}

/// Recordings, and a question to the node in one.
fn recordings(bytes: &[u8]) {
    let Ok(mut recording) = Recording::parse(bytes, Path::new("fuzz")) else { return };
    redact(&mut recording);
    let node = Recorded::new(recording);
    for query in cli::parse_target("30518", &cli::HostNames::default()).into_iter().flatten() {
        resolve::answer(&node, &query);
    }
}

/// What somebody asks for, and files of names: the first line and the rest.
fn targets(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (target, services) = text.split_once('\n').unwrap_or((&text, ""));
    let text = || services.to_owned();
    let names = cli::HostNames {
        services: text(),
        hosts: Some(text()),
        order: text(),
        ipv6_loopback: services.len() % 2 == 0,
        commands: cli::commands(),
    };
    let _ = cli::parse_target(target, &names);
}
