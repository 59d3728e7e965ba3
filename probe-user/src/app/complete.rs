//! Says what of this node may come next in a command line: at once, or not at all.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::cli::{CompletionKind, CompletionRequest, wanted};
use crate::exit::Exit;
use crate::model::{Container, SocketFilter};
use crate::node::{KubeOptions, LiveNode, Node};
use crate::resolve::{self, ListFilter};
use crate::view;

/// How long somebody waits who has pressed a key. What is not known by then is not offered.
const AT_ONCE: Duration = Duration::from_millis(80);
/// The variable that says so otherwise, in milliseconds: for machines that are slow.
const PATIENCE: &str = "WHEREIS_PORT_COMPLETE_MS";
/// How many names are offered.
const OFFERED: usize = 500;

/// Names, each with what completion says of it.
type NameHints = BTreeMap<String, String>;

/// Prints what may come next behind these words: how it is meant (`=` where it is all there is, `+`
/// where it is more), then a name on each line, with a tab and what it is behind it. Whatever goes
/// wrong, nothing is said: nobody wants to read it there.
pub(super) fn run(words: &[String]) -> ExitCode {
    let begun = Instant::now();
    let patience = std::env::var(PATIENCE).ok().and_then(|text| text.parse().ok());
    let patience = patience.map_or(AT_ONCE, Duration::from_millis);
    let Some(wanted) = wanted(words) else { return Exit::Found.into() };
    let mut names = known(wanted.of);
    if names.is_empty() {
        let (send, receive) = channel();
        let of = wanted.of;
        let reader = std::thread::Builder::new().spawn(move || {
            // What it may panic with would be printed into what is being typed.
            std::panic::set_hook(Box::new(|_| {}));
            read(of, patience / 2, &send)
        });
        if reader.is_ok() {
            names = take(&receive, begun, patience);
        }
    }
    let mut text = String::from(if wanted.among_others { "+\n" } else { "=\n" });
    for (name, about) in offered(&names, &wanted) {
        text.push_str(&format!("{}{name}\t{about}\n", wanted.before));
    }
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
    Exit::Found.into()
}

/// What was read until the time is over, or until there is no more to read.
fn take(receive: &Receiver<NameHints>, begun: Instant, patience: Duration) -> NameHints {
    let mut names = NameHints::new();
    while let Some(left) = patience.checked_sub(begun.elapsed()) {
        let Ok(more) = receive.recv_timeout(left) else { break };
        names.extend(more);
    }
    names
}

/// Those that begin as what was typed. What a shell could not pass on as one word is left out.
fn offered<'n>(names: &'n NameHints, wanted: &CompletionRequest) -> Vec<(&'n str, String)> {
    let fits = |name: &str| {
        name.starts_with(&wanted.begun)
            && !name.is_empty()
            && name.chars().all(|c| c.is_alphanumeric() || "._-/@+:".contains(c))
    };
    let fitting = names.iter().filter(|(name, _)| fits(name)).take(OFFERED);
    fitting.map(|(name, about)| (name.as_str(), view::clean(about).into_owned())).collect()
}

/// What is known without reading anything.
fn known(of: CompletionKind) -> NameHints {
    let all = |names: &[(&str, &str)]| {
        names.iter().map(|(name, about)| ((*name).to_owned(), (*about).to_owned())).collect()
    };
    match of {
        CompletionKind::Column => view::list::about_columns()
            .into_iter()
            .map(|(name, about)| (name, about.to_owned()))
            .collect(),
        CompletionKind::Proto => all(&[("tcp", ""), ("udp", "")]),
        CompletionKind::Sender => all(&[
            ("pod:", "a pod, by namespace and name"),
            ("container:", "a container, by its name"),
            ("netns:", "whoever is in a network namespace"),
            ("pid:", "a process"),
        ]),
        _ => NameHints::new(),
    }
}

/// Reads what there is and sends it, the quickest first. Container runtimes get `runtimes` of the time.
fn read(of: CompletionKind, runtimes: Duration, send: &Sender<NameHints>) {
    let Ok(node) = LiveNode::new() else { return };
    // No API is asked: one may want a password, or take its time.
    let off = of != CompletionKind::Context;
    let kube = KubeOptions { off, ..KubeOptions::default() };
    let node = node.with_timeout(Some(runtimes)).with_kube(kube);
    let node: &dyn Node = &node;
    let send = |names: NameHints| send.send(names).is_ok();
    match of {
        CompletionKind::Port => {
            let places: Vec<_> = node.netns().value.iter().map(|netns| netns.id).collect();
            let sockets = node.sockets(&places, &SocketFilter { proto: None, ports: None }).value;
            let ports = sockets.iter().map(|socket| (socket.port.to_string(), String::new()));
            if send(ports.collect()) {
                let rows = resolve::list(node, &ListFilter::default()).rows;
                let mut names = NameHints::new();
                for row in &rows {
                    let about = view::list::short(row);
                    names.entry(row.port.to_string()).or_insert(about);
                }
                send(names);
            }
        }
        CompletionKind::Pid => {
            let rows = resolve::list(node, &ListFilter::default()).rows;
            let processes = rows.iter().flat_map(|row| &row.end.processes);
            send(processes.map(|p| (p.pid.to_string(), p.name().to_owned())).collect());
        }
        CompletionKind::Pod => {
            let containers = node.containers().value;
            let pod = |one: &Container| {
                let pod = one.pod.as_ref()?;
                let name = format!("{}/{}", pod.namespace.as_ref()?, pod.name.as_ref()?);
                Some((name, one.runtime.to_string()))
            };
            send(containers.iter().filter_map(pod).collect());
        }
        CompletionKind::Container => {
            let containers = node.containers().value;
            let name =
                |one: &Container| Some((one.name.clone()?, one.image.clone().unwrap_or_default()));
            send(containers.iter().filter_map(name).collect());
        }
        CompletionKind::Netns => {
            let named = node.netns().value.into_iter().filter_map(|netns| netns.name);
            let host = [("host".to_owned(), "the node's own".to_owned())];
            if send(host.into_iter().chain(named.map(|name| (name, String::new()))).collect()) {
                let names = resolve::netns_names(node).into_iter();
                send(names.map(|name| (name, String::new())).collect());
            }
        }
        CompletionKind::Context => {
            let contexts = node.kube_contexts().value.into_iter();
            send(contexts.map(|context| (context.name, context.server)).collect());
        }
        CompletionKind::Proto | CompletionKind::Column | CompletionKind::Sender => {}
    }
}
