//! The certificates that listeners show.

use anyhow::{Context, Result, ensure};
use lab::apiserver::{ApiServer, Certificate};
use lab::{Lab, Run, Test};
use serde_json::Value;

use crate::kube_api::shop;

/// Asks for a port with `--tls`, and with other arguments.
fn tls(lab: &Lab, port: u16, args: &[&str]) -> Result<Run> {
    lab.tool().args(&["--json", "--no-kube", "--tls", &port.to_string()]).args(args).run()
}

/// The end of the one path that there is.
fn end(run: &Run) -> Result<&Value> {
    let end = &run.is_found()?.json["answers"][0]["paths"][0]["end"];
    ensure!(end.is_object(), "{}", run.stdout);
    Ok(end)
}

/// Whether there is no certificate, and a gap says why.
fn is_gap(run: &Run, why: &str) -> Result<()> {
    ensure!(end(run)?["certificate"].is_null(), "{}", run.stdout);
    let gaps = run.gaps();
    let says = |gap: &&Value| gap["impact"] == "name" && gap["reason"].to_string().contains(why);
    ensure!(gaps.iter().any(says), "no gap says {why:?}: {}", run.gap_text());
    Ok(())
}

#[test]
fn a_certificate_is_shown_with_whom_it_is_for() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    // In a namespace of its own, into which nothing leads.
    let inside = lab.netns("cluster")?;
    let api = ApiServer::start(Some(&inside), &shop(30_080))?;
    let file = lab.dir().join("tls.json");
    let file = file.to_str().context("path")?;
    let run = tls(&lab, api.port(), &["--record", file])?;
    let certificate = &end(&run)?["certificate"];
    ensure!(certificate["common_name"] == "kube-apiserver", "{certificate}");
    ensure!(certificate["issuer_common_name"] == "kubernetes", "{certificate}");
    ensure!(certificate["dns_names"][0] == "kubernetes.default.svc", "{certificate}");
    ensure!(certificate["ip_addresses"][0] == "127.0.0.1", "{certificate}");
    ensure!(certificate["validity"] == "valid", "{certificate}");
    let evidence = end(&run)?["evidence"].to_string();
    ensure!(evidence.contains("TLS handshake"), "{evidence}");
    // Nothing was asked of the API: TLS was begun, and no more.
    ensure!(api.asked().is_empty(), "{:?}", api.asked());

    let port = api.port().to_string();
    let text = lab.tool().args(&["--no-kube", "--tls", &port]).run()?.stdout;
    let line = "kube-apiserver, names kubernetes.default.svc, 127.0.0.1, until ";
    ensure!(text.contains("certificate ") && text.contains(line), "{text}");
    ensure!(text.contains("(by CA kubernetes)"), "{text}");

    let without = lab.tool().args(&["--json", "--no-kube", &port]).run()?;
    ensure!(end(&without)?["certificate"].is_null(), "{}", without.stdout);

    // From the recording, when the server is gone.
    drop(api);
    let replayed = lab.tool().args(&["--json", "--tls", "--replay", file, &port]).run()?;
    ensure!(end(&replayed)?["certificate"] == *certificate, "{}", replayed.stdout);
    Ok(())
}

#[test]
fn a_recording_without_certificates_says_so() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let api = ApiServer::start(Some(lab.host()), &shop(30_080))?;
    let file = lab.dir().join("list.json");
    let file = file.to_str().context("path")?;
    lab.whereis(&["--no-kube", "list", "--record", file])?;
    let run = tls(&lab, api.port(), &["--replay", file])?;
    is_gap(&run, "was not asked for when this was recorded")
}

#[test]
fn a_certificate_that_has_expired() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let of = Some(lab.host());
    let api = ApiServer::with_certificate(of, &shop(30_080), Certificate::Expired)?;
    let run = tls(&lab, api.port(), &[])?;
    ensure!(end(&run)?["certificate"]["validity"] == "expired", "{}", run.stdout);
    let evidence = end(&run)?["evidence"].to_string();
    ensure!(evidence.contains("days ago by this node's clock"), "{evidence}");
    let port = api.port().to_string();
    let text = lab.tool().args(&["--no-kube", "--tls", &port]).run()?.stdout;
    ensure!(text.contains("expired 2001-01-01"), "{text}");
    Ok(())
}

#[test]
fn a_server_that_wants_to_know_its_clients_shows_its_own() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let of = Some(lab.host());
    let api = ApiServer::with_certificate(of, &shop(30_080), Certificate::WantsClients)?;
    let run = tls(&lab, api.port(), &[])?;
    let certificate = &end(&run)?["certificate"];
    ensure!(certificate["common_name"] == "kube-apiserver", "{}", run.stdout);
    Ok(())
}

#[test]
fn without_rights_another_namespace_is_not_entered() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let inside = lab.netns("cluster")?;
    let port = lab::unused_port()?;
    let _server = lab.listen(&inside, &format!("tcp 127.0.0.1:{port}"))?;
    let asked = port.to_string();
    let run = lab.tool().uid(65_534).args(&["--json", "--no-kube", "--tls", &asked]).run()?;
    // It is seen by `/proc/PID/net`, which anybody may read.
    is_gap(&run, "can't be entered")
}

#[test]
fn listeners_without_tls_are_said_to_be_so() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    // It accepts nothing, and says nothing.
    let port = lab::unused_port()?;
    let _silent = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
    is_gap(&tls(&lab, port, &[])?, "it is silent")
}

#[test]
fn it_is_a_part_of_a_question() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    for command in
        [&["--tls", "list"][..], &["list", "--tls"], &["--tls", "doctor"], &["--tls", "--json"]]
    {
        let run = lab.tool().args(command).run()?;
        ensure!(run.code == Some(2), "{command:?}: {:?} {}", run.code, run.stderr);
        ensure!(run.stderr.contains("--tls belongs to a question"), "{}", run.stderr);
    }
    Ok(())
}
