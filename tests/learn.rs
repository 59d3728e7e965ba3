//! `--watch`: learning from traffic where a proxy leads.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use lab::{Lab, Proc, Test};

/// Why nothing can be learnt here, if so: the tool itself says it.
fn no_learning() -> Result<Option<String>> {
    let run = lab::ask(&["1", "--watch", "1ms", "--json"])?;
    let gap = run.gaps().into_iter().find(|gap| gap["source"] == "--watch");
    Ok(gap.map(|gap| gap["reason"].to_string()))
}

macro_rules! learning_or_skip {
    () => {
        lab::root_or_skip!();
        if let Some(reason) = no_learning()? {
            lab::skip(&reason);
            return Ok(());
        }
    };
}

/// A proxy that looks like haproxy, whose configuration names these targets.
fn proxy(lab: &Lab, address: &str, targets: &str) -> Result<(Proc, PathBuf)> {
    let config = lab.dir().join("targets");
    std::fs::write(&config, targets)?;
    let file = config.to_str().context("the lab's directory")?;
    let argv = ["haproxy", "-f", "/etc/haproxy/haproxy.cfg"];
    Ok((lab.proxy(lab.host(), address, file, &argv)?, config))
}

#[test]
fn a_proxy_is_followed_to_where_its_connections_led() -> Test {
    learning_or_skip!();
    let lab = Lab::new()?;
    let web = lab.netns("web")?;
    lab.veth((lab.host(), "out", "10.77.0.1/24"), (&web, "in", "10.77.0.2/24"))?;
    let backend = lab.listen(&web, "tcp 0.0.0.0:80")?;
    let (_proxy, _config) = proxy(&lab, "127.0.0.1:28080", "10.77.0.2:80")?;
    let _client = lab.knock(lab.host(), "127.0.0.1:28080")?;

    let run = lab.whereis(&["28080", "--watch", "2s"])?;
    let path = run.is_found()?.path_in(lab.host())?;
    let steps =
        ["listener 127.0.0.1:28080/tcp", "forward 10.77.0.2:80/tcp", "listener 0.0.0.0:80/tcp"];
    ensure!(path.steps() == steps, "{:?}: {}", path.steps(), run.stdout);
    ensure!(path.pids() == [u64::from(backend.pid)], "{}", path.0);
    ensure!(path.sources(1) == ["observed connects"], "{}", path.0);
    let detail = path.hops()[1]["detail"].as_str().unwrap_or_default();
    ensure!(detail.starts_with("observed, "), "{detail}");
    Ok(())
}

#[test]
fn several_targets_are_all_named() -> Test {
    learning_or_skip!();
    let lab = Lab::new()?;
    let first = lab.listen(lab.host(), "tcp 127.0.0.1:28091")?;
    let second = lab.listen(lab.host(), "tcp 127.0.0.1:28092")?;
    let (_proxy, _config) = proxy(&lab, "127.0.0.1:28090", "127.0.0.1:28091 127.0.0.1:28092")?;
    let _client = lab.knock(lab.host(), "127.0.0.1:28090")?;

    let run = lab.whereis(&["28090", "--watch", "2s"])?;
    let paths = run.is_found()?.paths_in(lab.host())?;
    let mut pids: Vec<u64> = paths.iter().filter_map(lab::View::pid).collect();
    pids.sort_unstable();
    let mut expected = [u64::from(first.pid), u64::from(second.pid)];
    expected.sort_unstable();
    ensure!(pids == expected, "{pids:?}: {}", run.stdout);
    Ok(())
}

#[test]
fn a_recording_of_what_was_learnt_answers_the_same() -> Test {
    learning_or_skip!();
    let lab = Lab::new()?;
    let _backend = lab.listen(lab.host(), "tcp 127.0.0.1:28101")?;
    let (_proxy, _config) = proxy(&lab, "127.0.0.1:28100", "127.0.0.1:28101")?;
    let _client = lab.knock(lab.host(), "127.0.0.1:28100")?;

    let file = lab.dir().join("node.json");
    let file = file.to_str().context("the lab's directory")?;
    let run = lab.whereis(&["28100", "--watch", "2s", "--record", file])?;
    ensure!(run.is_found()?.path_in(lab.host())?.steps().len() == 3, "{}", run.stdout);
    let again = lab::ask(&["28100", "--json", "--replay", file])?;
    ensure!(again.json["answers"] == run.json["answers"], "{}", again.stdout);
    Ok(())
}

#[test]
fn ctrl_c_ends_the_watch_with_what_was_seen() -> Test {
    learning_or_skip!();
    let lab = Lab::new()?;
    let _backend = lab.listen(lab.host(), "tcp 127.0.0.1:28141")?;
    let (_proxy, _config) = proxy(&lab, "127.0.0.1:28140", "127.0.0.1:28141")?;
    let _client = lab.knock(lab.host(), "127.0.0.1:28140")?;

    // Far longer than it takes to begin: what is not watched yet is not seen.
    // In the foreground, `timeout` signals the tool once; else its group as well,
    // and a second interrupt ends it without an answer.
    let interrupted = ["timeout", "--foreground", "--preserve-status", "--signal", "INT", "4"];
    let tool = lab.tool().through(&interrupted).args(&["--json", "28140", "--watch", "1h"]);
    let run = tool.run()?;
    ensure!(run.is_found()?.path_in(lab.host())?.steps().len() == 3, "{}", run.stdout);
    Ok(())
}

#[test]
fn an_idle_proxy_stays_unknown_and_says_so() -> Test {
    learning_or_skip!();
    let lab = Lab::new()?;
    let (proxy, _config) = proxy(&lab, "127.0.0.1:28110", "127.0.0.1:28111")?;
    let run = lab.whereis(&["28110", "--watch", "500ms"])?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.pids() == [u64::from(proxy.pid)], "{}", path.0);
    let why = path.end()["why"].as_str().unwrap_or_default();
    ensure!(why.contains("no connection came in while watching"), "{why}");
    Ok(())
}

#[test]
fn a_proxys_command_line_tells_of_watch() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let (proxy, _config) = proxy(&lab, "127.0.0.1:28120", "127.0.0.1:28121")?;
    let run = lab.whereis(&["28120"])?;
    let path = run.is_found()?.path_in(lab.host())?;
    ensure!(path.pids() == [u64::from(proxy.pid)], "{}", path.0);
    let why = path.end()["why"].as_str().unwrap_or_default();
    ensure!(why.contains("--watch 5s can learn it"), "{why}");
    Ok(())
}

#[test]
fn without_ebpf_it_says_so_and_answers_as_before() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _listener = lab.listen(lab.host(), "tcp 127.0.0.1:28130")?;
    // Nobody without capabilities may load programs; a pinned one only lists sockets.
    let tool = lab.tool().uid(65534).args(&["--json", "28130", "--watch", "1h"]);
    let run = tool.run()?;
    ensure!(run.is_found()?.path_in(lab.host())?.steps() == ["listener 127.0.0.1:28130/tcp"]);
    let gap = run.gaps().into_iter().find(|gap| gap["source"] == "--watch");
    let gap = gap.with_context(|| run.gap_text())?;
    let reason = gap["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("needs eBPF") && gap["remedy"].is_string(), "{gap}");
    Ok(())
}

#[test]
fn a_watch_that_makes_no_sense_is_a_usage_error() -> Test {
    for args in [
        &["80", "--watch", "5"][..],
        &["80", "--watch", "0s"],
        &["80", "--watch", "soon"],
        &["80", "--watch"],
        &["80", "--watch", "5s", "--replay", "node.json"],
        &["--watch", "5s"],
        &["--watch", "5s", "list"],
        &["list", "--watch", "5s"],
    ] {
        let run = lab::ask(args)?;
        ensure!(run.code == Some(2) && run.stdout.is_empty(), "{args:?}: {run:?}");
        ensure!(run.stderr.contains("--watch"), "{args:?}: {}", run.stderr);
    }
    Ok(())
}
