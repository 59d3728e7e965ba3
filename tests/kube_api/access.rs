//! Who asks: credentials that are known, wrong, expired, or come from a program; and what
//! they may read.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::Test;
use lab::apiserver::{ClientCertificate, kubeconfig, write};
use serde_json::{Value, json};

use crate::kube_api::{ask, gap_says, knows_shop, lab_with_shop, says};

#[test]
fn an_api_is_asked_and_said_to_be() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let run = ask(&lab, &api.write_kubeconfig(lab.dir(), "kind-shop")?, port)?;
    knows_shop(&run)?;
    let sources = run.json["sources"].to_string();
    ensure!(sources.contains("Kubernetes API") && sources.contains("1 services"), "{sources}");
    // Nothing is asked for that the question does not need.
    ensure!(api.asked().iter().all(|path| !path.contains("secrets")), "{:?}", api.asked());
    Ok(())
}

#[test]
fn without_kube_no_api_is_asked() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let file = api.write_kubeconfig(lab.dir(), "kind-shop")?;
    let env = file.to_str().unwrap_or_default();
    let tool = lab.tool().env("KUBECONFIG", env).args(&["--json", "--no-kube"]);
    let run = tool.arg(&port.to_string()).run()?;
    ensure!(api.asked().is_empty(), "{:?}", api.asked());
    ensure!(!run.stdout.contains("kind-shop"), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_token_that_has_expired() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let mut config = api.kubeconfig("kind-shop");
    config["users"][0]["user"] = json!({"token": "of-yesterday"});
    let run = ask(&lab, &write(lab.dir(), "old", &config)?, port)?;
    gap_says(&run, &["does not accept the credentials", "log in again", "context kind-shop"])?;
    ensure!(!run.stdout.contains("of-yesterday"), "the token is shown: {}", run.stdout);
    Ok(())
}

#[test]
fn a_client_certificate_that_has_expired() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    ClientCertificate::expired(lab.dir())?;
    let mut config = api.kubeconfig("kind-shop");
    // Relative to the kubeconfig.
    config["users"][0]["user"] =
        json!({"client-certificate": "client.crt", "client-key": "client.key"});
    let run = ask(&lab, &write(lab.dir(), "old", &config)?, port)?;
    gap_says(&run, &["client certificate, which has expired", "2001"])
}

#[test]
fn what_is_refused_is_named() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let file = api.write_kubeconfig(lab.dir(), "kind-shop")?;
    api.allow(|access| access.kind != "services");
    gap_says(&ask(&lab, &file, port)?, &["it refuses to list services", "get and list services"])?;
    // The rest of the answer stays when only endpoints are refused.
    api.allow(|access| access.kind != "endpointslices");
    let run = ask(&lab, &file, port)?;
    knows_shop(&run)?;
    says(&run, &["refuses to list endpointslices in namespace web"])?;
    // Nodes are asked for first: it is said, and does no harm to the rest.
    api.allow(|access| access.kind != "nodes");
    let run = ask(&lab, &file, port)?;
    knows_shop(&run)?;
    says(&run, &["refuses to get nodes"])
}

#[test]
fn a_user_of_one_namespace_gets_that_one() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    api.allow(|access| access.namespace == Some("web"));
    let mut config = api.kubeconfig("kind-shop");
    config["contexts"][0]["context"]["namespace"] = "web".into();
    let run = ask(&lab, &write(lab.dir(), "web", &config)?, port)?;
    knows_shop(&run)?;
    says(&run, &["list services of all namespaces", "only namespace web was seen"])?;
    // One that sees nothing but another namespace is not told that there is no Service.
    config["contexts"][0]["context"]["namespace"] = "other".into();
    api.allow(|access| access.namespace == Some("other"));
    let run = ask(&lab, &write(lab.dir(), "other", &config)?, port)?;
    gap_says(&run, &["only namespace other was seen"])
}

/// A kubeconfig whose credentials come from a shell script.
fn with_program(
    lab: &lab::Lab,
    api: &lab::apiserver::ApiServer,
    script: &str,
) -> anyhow::Result<std::path::PathBuf> {
    let file = lab.dir().join("plugin");
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n"))?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
    let mut config = api.kubeconfig("kind-shop");
    config["users"][0]["user"] = exec("./plugin");
    write(lab.dir(), "plugin", &config)
}

fn exec(command: &str) -> Value {
    json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": command,
        "interactiveMode": "IfAvailable", "installHint": "get it from the platform team",
    }})
}

#[test]
fn a_program_gives_the_credentials() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {"token": lab::apiserver::TOKEN},
    });
    let file = with_program(&lab, &api, &format!("echo '{credential}'"))?;
    gap_says(&ask(&lab, &file, port)?, &["not run as root by themselves", "--kube-exec"])?;
    knows_shop(&ask_and_run(&lab, &file, port)?)
}

/// The same question, with programs that give credentials.
fn ask_and_run(lab: &lab::Lab, kubeconfig: &Path, port: u16) -> anyhow::Result<lab::Run> {
    let home = lab.dir().display().to_string();
    let tool = lab.tool().env("HOME", &home).env("SUDO_USER", "");
    let tool = tool.args(&["--json", "--kube-exec", "--kubeconfig"]);
    tool.arg(&kubeconfig.display().to_string()).arg(&port.to_string()).run()
}

#[test]
fn a_program_that_others_could_have_put_there_is_not_run() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let ran = lab.dir().join("ran");
    let file = with_program(&lab, &api, &format!("touch {}", ran.display()))?;
    std::os::unix::fs::chown(lab.dir().join("plugin"), Some(4243), None)?;
    gap_says(&ask_and_run(&lab, &file, port)?, &["not run as root", "user 4243"])?;
    ensure!(!ran.exists(), "the program was run");
    Ok(())
}

/// A name of a context means nothing to a shell that a remedy is copied to.
#[test]
fn a_remedy_quotes_the_name_of_a_context() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let name = "e;touch pwned $(touch pwned)'";
    let mut config = api.kubeconfig(name);
    config["users"][0]["user"] = json!({"token": "of-yesterday"});
    let run = ask(&lab, &write(lab.dir(), "odd", &config)?, port)?;
    let words = json!(["kubectl", "--context", name, "get", "nodes"]);
    let gap = run.gaps().into_iter().find(|gap| gap["remedy_command"] == words);
    let gap = gap.with_context(|| run.gap_text())?;
    let line =
        r"log in again, then: kubectl --context 'e;touch pwned $(touch pwned)'\''' get nodes";
    ensure!(gap["remedy"] == line, "{gap}");
    Ok(())
}

#[test]
fn a_program_that_hangs_is_ended() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let served = lab.listen(lab.host(), &format!("tcp 0.0.0.0:{port}"))?;
    let mark = format!("30{}", lab.name().len());
    let file = with_program(&lab, &api, &format!("sleep {mark}.7 & wait"))?;
    let run = ask_and_run(&lab, &file, port)?;
    gap_says(&run, &["plugin", "did not end in time"])?;
    // What the kernel says is there.
    ensure!(run.path_in(lab.host())?.pid() == Some(served.pid.into()), "{}", run.stdout);
    ensure!(run.took < Duration::from_secs(20), "{:?}", run.took);
    let left = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("sleep")
    };
    ensure!(!lab.processes().iter().any(left), "what the program started is still there");
    Ok(())
}

#[test]
fn a_program_that_is_not_installed() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let mut config = api.kubeconfig("kind-shop");
    config["users"][0]["user"] = exec("no-such-login-helper");
    let run = ask_and_run(&lab, &write(lab.dir(), "absent", &config)?, port)?;
    gap_says(&run, &["no-such-login-helper", "can't be run", "get it from the platform team"])
}

#[test]
fn a_program_of_another_users_kubeconfig_is_not_run_for_root() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let ran = lab.dir().join("ran");
    let file = with_program(&lab, &api, &format!("touch {}", ran.display()))?;
    std::os::unix::fs::chown(&file, Some(65_534), None)?;
    gap_says(&ask(&lab, &file, port)?, &["another user's file", "not run"])?;
    gap_says(&ask_and_run(&lab, &file, port)?, &["another user's file", "not run"])?;
    // Neither is one that the old way of naming it names.
    let mut config = api.kubeconfig("kind-shop");
    let plugin = lab.dir().join("plugin");
    config["users"][0]["user"] =
        json!({"auth-provider": {"name": "gcp", "config": {"cmd-path": plugin}}});
    gap_says(&ask(&lab, &write(lab.dir(), "gcp", &config)?, port)?, &["auth-provider", "gcp"])?;
    ensure!(!ran.exists(), "the program was run");
    Ok(())
}

#[test]
fn another_users_kubeconfig_can_not_send_roots_files_away() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let secret = lab.dir().join("secret-of-root");
    std::fs::write(&secret, lab::apiserver::TOKEN)?;
    let mut config = api.kubeconfig("kind-shop");
    config["users"][0]["user"] = json!({"tokenFile": secret});
    let file = write(lab.dir(), "theirs", &config)?;
    // Root's own may name it.
    knows_shop(&ask(&lab, &file, port)?)?;
    let before = api.asked().len();
    std::os::unix::fs::chown(&file, Some(65_534), None)?;
    gap_says(&ask(&lab, &file, port)?, &["tokenFile", "owns the kubeconfig"])?;
    ensure!(api.asked().len() == before, "it was asked: {:?}", api.asked());
    Ok(())
}

#[test]
fn doctor_says_which_apis_answer() -> Test {
    lab::root_or_skip!();
    let (lab, api, _) = lab_with_shop()?;
    let file = api.write_kubeconfig(lab.dir(), "kind-shop")?;
    let gone = kubeconfig("gone", "https://127.0.0.1:9", None, json!({"token": "x"}));
    let gone = write(lab.dir(), "gone", &gone)?;
    let list = format!("{}:{}", file.display(), gone.display());
    let home = lab.dir().display().to_string();
    let run = lab.tool().env("HOME", &home).env("KUBECONFIG", &list).arg("doctor").run()?;
    let lines: Vec<&str> = run.stdout.lines().collect();
    let says = |name: &str, what: &str| {
        lines.iter().any(|line| line.contains(name) && line.contains(what))
            || run.stdout.contains(name) && run.stdout.contains(what)
    };
    ensure!(says("kube context kind-shop", "v1.33.0"), "{}", run.stdout);
    ensure!(says("context gone", "out of reach"), "{}", run.stdout);
    Ok(())
}
