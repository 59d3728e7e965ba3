//! APIs that are out of reach, silent, slow, or somebody else's: what the kernel says comes
//! in time.

use std::time::Duration;

use anyhow::ensure;
use lab::apiserver::{ApiServer, Certificate, Weather, kubeconfig, write};
use lab::{Lab, Run, Test};
use serde_json::json;

use crate::kube_api::{ask, gap_says, knows_shop, lab_with_shop, shop};

/// How long the server is silent: an answer that waited for it would come later than this.
const SILENCE: Duration = Duration::from_secs(30);

/// Whether the listener is named, though the API was not there, and long before it would.
fn kernel_answers(lab: &Lab, run: &Run, pid: u32) -> Test {
    run.is_found()?;
    ensure!(run.path_in(lab.host())?.pid() == Some(pid.into()), "{}", run.stdout);
    ensure!(run.took < SILENCE - Duration::from_secs(5), "{:?}", run.took);
    Ok(())
}

#[test]
fn a_server_that_hangs_does_not_hold_the_answer_up() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    let served = lab.listen(lab.host(), &format!("tcp 0.0.0.0:{port}"))?;
    let file = api.write_kubeconfig(lab.dir(), "kind-shop")?;
    api.weather(Weather { hang: true, ..Weather::default() });
    let run = ask(&lab, &file, port)?;
    gap_says(&run, &["no answer in time", &api.url()])?;
    kernel_answers(&lab, &run, served.pid)?;
    api.weather(Weather { delay: SILENCE, ..Weather::default() });
    let run = ask(&lab, &file, port)?;
    gap_says(&run, &["no answer in time"])?;
    kernel_answers(&lab, &run, served.pid)
}

#[test]
fn a_slow_server_is_waited_for() -> Test {
    lab::root_or_skip!();
    let (lab, api, port) = lab_with_shop()?;
    api.weather(Weather { delay: Duration::from_millis(100), ..Weather::default() });
    knows_shop(&ask(&lab, &api.write_kubeconfig(lab.dir(), "kind-shop")?, port)?)
}

#[test]
fn a_server_that_is_not_there() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let served = lab.listen(lab.host(), &format!("tcp 0.0.0.0:{port}"))?;
    // Refused, and no way there at all.
    for (server, why) in
        [("https://127.0.0.1:9", "refused"), ("https://203.0.113.9:6443", "out of reach")]
    {
        let config = kubeconfig("gone", server, None, json!({"token": "x"}));
        let run = ask(&lab, &write(lab.dir(), "gone", &config)?, port)?;
        gap_says(&run, &["out of reach", why, server, "kubectl --context gone"])?;
        kernel_answers(&lab, &run, served.pid)?;
    }
    Ok(())
}

#[test]
fn a_server_that_speaks_no_tls() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    let served = lab.listen(lab.host(), &format!("tcp 0.0.0.0:{port}"))?;
    // The listener itself never says anything.
    let server = format!("https://127.0.0.1:{port}");
    let config = kubeconfig("mute", &server, None, json!({"token": "x"}));
    let run = ask(&lab, &write(lab.dir(), "mute", &config)?, port)?;
    ensure!(run.gap_text().contains("context mute"), "{}", run.gap_text());
    kernel_answers(&lab, &run, served.pid)
}

/// The port of a cluster that is gone may be another one's now: no token is sent there.
#[test]
fn a_certificate_that_is_not_the_clusters() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let port = lab::unused_port()?;
    for (which, why) in [
        (Certificate::OtherAuthority, "another authority signed it"),
        (Certificate::OtherName, "for other addresses"),
        (Certificate::Expired, "it has expired"),
    ] {
        let api = ApiServer::with_certificate(Some(lab.host()), &shop(port), which)?;
        let run = ask(&lab, &api.write_kubeconfig(lab.dir(), "kind-shop")?, port)?;
        gap_says(&run, &["certificate is not trusted", why])?;
        ensure!(api.asked().is_empty(), "{which:?}: {:?}", api.asked());
    }
    Ok(())
}

/// Of two clusters one is silent: the other is asked all the same.
#[test]
fn a_silent_api_leaves_time_for_the_others() -> Test {
    lab::root_or_skip!();
    let (lab, silent, port) = lab_with_shop()?;
    silent.weather(Weather { hang: true, ..Weather::default() });
    let good = ApiServer::start(Some(lab.host()), &shop(port))?;
    let one = write(lab.dir(), "one", &silent.kubeconfig("default"))?;
    let two = write(lab.dir(), "two", &good.kubeconfig("default"))?;
    let list = format!("{}:{}", one.display(), two.display());
    let home = lab.dir().display().to_string();
    let tool = lab.tool().env("HOME", &home).env("KUBECONFIG", &list);
    let run = tool.args(&["--json", "--context", "default", &port.to_string()]).run()?;
    knows_shop(&run)?;
    crate::kube_api::says(&run, &["no answer in time", &silent.url()])
}
