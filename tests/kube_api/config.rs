//! Kubeconfig files: missing, malformed, merged, with one name twice.

use anyhow::{Context as _, ensure};
use lab::Test;
use lab::apiserver::write;

use crate::kube_api::{ask, findings, knows_shop, lab_with_shop, says};

#[test]
fn a_kubeconfig_that_was_named_has_to_be_there() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let run = ask(&lab, &lab.dir().join("nowhere"), port)?;
    ensure!(run.code == Some(2), "{:?}", run.code);
    ensure!(run.stderr.contains("nowhere: there is no such file"), "{}", run.stderr);

    let file = api.write_kubeconfig(lab.dir(), "kind-shop")?;
    let file = file.to_str().context("path")?;
    let args = ["--kubeconfig", file, "--context", "prod", "80"];
    let run = lab.tool().args(&args).run()?;
    ensure!(run.code == Some(2), "{:?}", run.code);
    ensure!(run.stderr.contains("\"prod\"") && run.stderr.contains("kind-shop"), "{}", run.stderr);

    let run = lab.tool().args(&["--kubeconfig", file, "--no-kube", "80"]).run()?;
    ensure!(run.code == Some(2), "{:?}", run.code);
    Ok(())
}

#[test]
fn what_is_no_kubeconfig_is_said_to_be_and_the_rest_used() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let good = api.write_kubeconfig(lab.dir(), "kind-shop")?;
    let bad = lab.dir().join("bad");
    std::fs::write(&bad, "clusters: [{name: 1, token: very-secret")?;
    let run = ask(&lab, &bad, port)?;
    ensure!(run.code == Some(2) && run.stderr.contains("can't be understood"), "{}", run.stderr);
    ensure!(!run.stderr.contains("very-secret"), "{}", run.stderr);

    let list = format!("{}:/nowhere/config::{}", bad.display(), good.display());
    let home = lab.dir().display().to_string();
    let tool = lab.tool().env("HOME", &home).env("KUBECONFIG", &list);
    let run = tool.args(&["--json", "--context", "kind-shop", &port.to_string()]).run()?;
    knows_shop(&run)?;
    says(&run, &["kubeconfig", "bad", "can't be understood"])?;
    ensure!(!run.gap_text().contains("nowhere"), "{}", run.gap_text());
    Ok(())
}

/// Two copies of k3s.yaml both have a context `default`.
#[test]
fn two_kubeconfigs_with_one_name() -> Test {
    lab::root_or_skip!();
    let (lab, first, port) = lab_with_shop()?;
    let second_port = lab::unused_port()?;
    let second =
        lab::apiserver::ApiServer::start(Some(lab.host()), &crate::kube_api::shop(second_port))?;
    let one = write(lab.dir(), "one", &first.kubeconfig("default"))?;
    let two = write(lab.dir(), "two", &second.kubeconfig("default"))?;
    let list = format!("{}:{}", one.display(), two.display());
    let home = lab.dir().display().to_string();
    let asked = |port: u16| {
        let tool = lab.tool().env("HOME", &home).env("KUBECONFIG", &list);
        tool.args(&["--json", "--context", "default", &port.to_string()]).run()
    };
    knows_shop(&asked(port)?)?;
    knows_shop(&asked(second_port)?)?;
    ensure!(!first.asked().is_empty() && !second.asked().is_empty(), "one was not asked");
    // Named by its file it is the only one.
    let run = ask(&lab, &two, port)?;
    ensure!(!findings(&run).contains("NodePort"), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_redacted_recording_keeps_the_shape_of_what_the_api_said() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let config = api.write_kubeconfig(lab.dir(), "kind-acme")?;
    let config = config.to_str().context("path")?;
    let file = lab.dir().join("node.json");
    let file = file.to_str().context("path")?;
    let port = port.to_string();
    let run = lab
        .tool()
        .args(&["--json", "--kubeconfig", config, "--record", file, "--redact", &port])
        .run()?;
    knows_shop(&run)?;
    let text = std::fs::read_to_string(file)?;
    for secret in ["shop", "acme", "10.244.0.5", "192.0.2.77", lab::apiserver::TOKEN] {
        ensure!(!text.contains(secret), "{secret} is in the recording");
    }
    let again = lab.tool().args(&["--json", "--replay", file, &port]).run()?;
    ensure!(findings(&again).contains("has NodePort"), "{}", again.stdout);
    Ok(())
}
