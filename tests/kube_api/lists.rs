//! Lists: in pages, expired, cut, endless, and of APIs that are older than slices.

use std::time::Duration;

use anyhow::ensure;
use lab::apiserver::{ApiServer, Objects, Slices, Weather, node, service, slice};
use lab::{Lab, Test};

use crate::kube_api::{ask, findings, gap_says, knows_shop, lab_with_shop};

/// More Services than fit one page; the one that is asked for is the last.
fn crowd(port: u16) -> Objects {
    let mut objects = Objects::many(1200, 1, 1, "192.0.2.77");
    for service in &mut objects.services {
        for port in service.spec.iter_mut().flat_map(|s| s.ports.iter_mut().flatten()) {
            port.node_port = None;
        }
    }
    objects.services.push(service("web", "shop", port));
    objects
}

#[test]
fn lists_are_read_page_by_page() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let api = ApiServer::start(Some(lab.host()), &crowd(port))?;
    knows_shop(&ask(&lab, &api.write_kubeconfig(lab.dir(), "kind-shop")?, port)?)?;
    let pages = api.asked().iter().filter(|path| path.starts_with("/api/v1/services?")).count();
    ensure!(pages == 3, "{pages} pages: {:?}", api.asked());
    Ok(())
}

#[test]
fn a_list_that_expires_is_begun_again_once() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let api = ApiServer::start(Some(lab.host()), &crowd(port))?;
    let file = api.write_kubeconfig(lab.dir(), "kind-shop")?;
    api.weather(Weather { gone: 1, ..Weather::default() });
    knows_shop(&ask(&lab, &file, port)?)?;
    api.weather(Weather { gone: 1000, ..Weather::default() });
    gap_says(&ask(&lab, &file, port)?, &["changed each time while it was read"])
}

#[test]
fn an_answer_that_is_cut_is_not_believed() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    api.weather(Weather { truncated: true, ..Weather::default() });
    let file = api.write_kubeconfig(lab.dir(), "kind-shop")?;
    gap_says(&ask(&lab, &file, port)?, &["an answer is not understood"])
}

#[test]
fn an_answer_without_end_is_ended() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    api.weather(Weather { endless: true, ..Weather::default() });
    let run = ask(&lab, &api.write_kubeconfig(lab.dir(), "kind-shop")?, port)?;
    ensure!(run.took < Duration::from_secs(20), "{:?}", run.took);
    // Whichever limit comes first on this machine.
    let gaps = run.gap_text();
    ensure!(gaps.contains("larger than is read") || gaps.contains("no answer in time"), "{gaps}");
    ensure!(!findings(&run).contains("NodePort"), "{}", run.stdout);
    Ok(())
}

/// What says that a Service has endpoints comes from slices, or where an API has none, from
/// Endpoints. The node is this one, so that the answer looks at them.
#[test]
fn apis_without_slices_tell_the_same() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let objects = Objects {
        services: vec![service("web", "shop", port), service("web", "empty", port + 1)],
        slices: vec![slice("web", "shop", &["10.244.0.5"])],
        pods: Vec::new(),
        nodes: vec![node("node-1", "192.0.2.77")],
    };
    let api = ApiServer::start(Some(lab.host()), &objects)?;
    let file = api.write_kubeconfig(lab.dir(), "kind-shop")?;
    for (slices, path) in [
        (Slices::V1, "/apis/discovery.k8s.io/v1/"),
        (Slices::V1Beta1, "/apis/discovery.k8s.io/v1beta1/"),
        (Slices::None, "/api/v1/namespaces/web/endpoints/"),
    ] {
        api.weather(Weather { slices, ..Weather::default() });
        let run = ask(&lab, &file, port)?;
        knows_shop(&run)?;
        ensure!(!findings(&run).contains("no endpoint"), "{slices:?}: {}", findings(&run));
        ensure!(run.gap_text().find("Kubernetes API").is_none(), "{}", run.gap_text());
        let last = api.asked().last().cloned().unwrap_or_default();
        ensure!(last.starts_with(path), "{slices:?}: {last}");
        let run = ask(&lab, &file, port + 1)?;
        let said = findings(&run);
        ensure!(said.contains("web/empty has no endpoint"), "{slices:?}: {said}");
    }
    Ok(())
}

#[test]
fn a_service_without_selector_is_said_to_have_none() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let mut outside = service("web", "outside", port);
    if let Some(spec) = &mut outside.spec {
        spec.selector = None;
    }
    let objects = Objects {
        services: vec![outside],
        nodes: vec![node("node-1", "192.0.2.77")],
        ..Objects::default()
    };
    let api = ApiServer::start(Some(lab.host()), &objects)?;
    let run = ask(&lab, &api.write_kubeconfig(lab.dir(), "kind-shop")?, port)?;
    let said = findings(&run);
    ensure!(said.contains("it has no selector"), "{said}");
    Ok(())
}

#[test]
fn names_with_control_characters_do_no_harm() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let mut hostile = service("web", "shop\u{1b}[2J\nroot", port);
    hostile.metadata.annotations =
        Some([("note\u{7}".to_owned(), "\u{1b}]0;x\u{7}".to_owned())].into());
    let objects = Objects { services: vec![hostile], ..Objects::default() };
    let api = ApiServer::start(Some(lab.host()), &objects)?;
    let file = api.write_kubeconfig(lab.dir(), "kind-shop")?;
    let file = file.to_str().unwrap_or_default();
    let home = lab.dir().display().to_string();
    let tool = lab.tool().env("HOME", &home);
    let run = tool.args(&["-v", "--kubeconfig", file, &port.to_string()]).run()?;
    ensure!(run.stdout.contains("NodePort"), "{}", run.stdout);
    ensure!(!run.stdout.contains('\u{1b}') && !run.stdout.contains('\u{7}'), "{:?}", run.stdout);
    Ok(())
}

#[test]
fn all_services_of_a_large_cluster_are_listed_in_time() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = 36_000;
    let mut objects = Objects::many(5_000, 4, 30_000, "192.0.2.77");
    objects.services.push(service("web", "shop", port));
    let api = ApiServer::start(Some(lab.host()), &objects)?;
    let run = ask(&lab, &api.write_kubeconfig(lab.dir(), "kind-shop")?, port)?;
    knows_shop(&run)?;
    let pages = api.asked().iter().filter(|path| path.starts_with("/api/v1/services?")).count();
    ensure!(pages == 11, "{pages} pages");
    Ok(())
}
