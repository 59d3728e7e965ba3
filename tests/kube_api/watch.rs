//! The screen watches an API: what it has been told it does not ask for again.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::apiserver::{ApiServer, Weather, service};
use lab::{Lab, Terminal, Test};

use crate::kube_api::lab_with_shop;

/// The screen with the path of a port that has no row.
fn screen<'a>(lab: &'a Lab, kubeconfig: &Path, port: u16) -> Result<Terminal<'a>> {
    let terminal = Terminal::open(lab, (160, 40), "")?;
    let home = lab.dir().display();
    let file = kubeconfig.display();
    terminal.run(&format!(
        "HOME={home} SUDO_USER= $TOOL tui --no-ebpf --kubeconfig {file}; echo ended with $?"
    ))?;
    terminal.wait("the screen", |screen| screen.contains("[1 Ports]"))?;
    terminal.wait("the ports", |screen| !screen.contains("reading the node"))?;
    look_at(&terminal, port)?;
    Ok(terminal)
}

fn look_at(terminal: &Terminal<'_>, port: u16) -> Test {
    terminal.keys(&[":"])?;
    terminal.text(&format!("port {port}"))?;
    terminal.keys(&["Enter"])?;
    terminal.wait_line(&["[2 Path]"])?;
    Ok(())
}

fn ended(terminal: &Terminal<'_>) -> Test {
    terminal.keys(&["q"])?;
    terminal.wait_line(&["ended with 0"])?;
    Ok(())
}

/// Waits until the server was asked for something so often.
fn wait(api: &ApiServer, what: &str, times: usize) -> Test {
    let begin = Instant::now();
    while count(api, what) < times {
        ensure!(begin.elapsed() < Duration::from_secs(20), "{what}: {:?}", api.asked());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn count(api: &ApiServer, what: &str) -> usize {
    api.asked().iter().filter(|path| path.starts_with(what)).count()
}

const WATCHES: [&str; 4] = [
    "/api/v1/services?watch=1",
    "/apis/discovery.k8s.io/v1/endpointslices?watch=1",
    "/api/v1/pods?watch=1",
    "/api/v1/nodes?watch=1",
];

#[test]
fn a_new_service_is_seen_at_once_and_nothing_is_listed_again() -> Test {
    lab::terminal_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let late = port.checked_add(1).context("port")?;
    let terminal = screen(&lab, &api.write_kubeconfig(lab.dir(), "kind-shop")?, late)?;
    WATCHES.iter().try_for_each(|what| wait(&api, what, 1))?;
    // Those that were on their way have ended.
    std::thread::sleep(Duration::from_secs(3));
    let before = api.asked().len();
    api.add_service(&service("web", "late", late))?;
    terminal.wait("the Service", |screen| screen.contains("web/late"))?;
    look_at(&terminal, port)?;
    terminal.wait("the other Service", |screen| screen.contains("web/shop"))?;
    ensure!(api.asked().len() == before, "{:?}", api.asked().get(before..));
    terminal.keys(&["4"])?;
    terminal.wait_line(&["Kubernetes watch", "watching, 4 objects, last change"])?;
    ended(&terminal)
}

#[test]
fn a_version_that_is_too_old_is_listed_anew() -> Test {
    lab::terminal_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    api.weather(Weather { expired: 4, ..Weather::default() });
    let terminal = screen(&lab, &api.write_kubeconfig(lab.dir(), "kind-shop")?, port)?;
    for what in WATCHES {
        wait(&api, what, 2)?;
        let list = what.replace("?watch=1", "?limit=");
        ensure!(count(&api, &list) >= 2, "{:?}", api.asked());
    }
    terminal.wait("the Service", |screen| screen.contains("web/shop"))?;
    ended(&terminal)
}

#[test]
fn where_watching_is_refused_the_screen_asks_and_says_so() -> Test {
    lab::terminal_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    api.allow(|access| access.verb != "watch");
    let terminal = screen(&lab, &api.write_kubeconfig(lab.dir(), "kind-shop")?, port)?;
    terminal.wait("the Service", |screen| screen.contains("web/shop"))?;
    WATCHES.iter().try_for_each(|what| wait(&api, what, 1))?;
    let late = port.checked_add(1).context("port")?;
    api.add_service(&service("web", "late", late))?;
    look_at(&terminal, late)?;
    terminal.wait("the Service", |screen| screen.contains("web/late"))?;
    terminal.keys(&["4"])?;
    terminal.wait_line(&["it refuses to watch services"])?;
    // Not again at once.
    ensure!(count(&api, WATCHES[0]) == 1, "{:?}", api.asked());
    ended(&terminal)
}
