//! Who to turn to: packages, repositories, socket units, logins, and how an owner stops it.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Run, Test};
use serde_json::Value;

/// Asks until something serves it.
fn served(lab: &Lab, question: &str) -> Result<Run> {
    let waited = lab.whereis(&["wait", question, "--timeout", "20s"])?;
    ensure!(waited.code == Some(0), "{}{}", waited.stdout, waited.stderr);
    lab.whereis(&[question])
}

fn end(run: &Run) -> Result<&Value> {
    Ok(&run.is_found()?.answer()?["paths"][0]["end"])
}

fn text(lab: &Lab, question: &str) -> Result<String> {
    Ok(lab.tool().arg(question).run()?.stdout)
}

/// What a program says; its failure is an error.
fn said(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output()?;
    ensure!(output.status.success(), "{program} {args:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A server whose working directory this is.
fn serve_in(lab: &Lab, directory: &str, port: u16) -> Result<lab::Proc> {
    let helper = env!("CARGO_BIN_EXE_lab-helper");
    let at = format!("127.0.0.1:{port}");
    lab.spawn(lab.host(), &["env", "-C", directory, helper, "listen", "tcp", &at])
}

#[test]
fn the_package_of_a_program_is_that_of_dpkg() -> Test {
    lab::root_or_skip!();
    if !lab::has("dpkg") || !lab::has("busybox") {
        lab::skip("dpkg or busybox is not installed");
        return Ok(());
    }
    let lab = Lab::new()?;
    let _server =
        lab.spawn(lab.host(), &["busybox", "httpd", "-f", "-p", "127.0.0.1:28140", "-h", "/"])?;
    let run = served(&lab, "28140/tcp")?;
    let end = end(&run)?;
    let exe = end["process"]["exe"].as_str().context("no executable")?;
    // Lists have the name that it has without /usr, where that is a link.
    let short = exe.strip_prefix("/usr").unwrap_or(exe);
    let owner = said("dpkg", &["-S", exe]).or_else(|_| said("dpkg", &["-S", short]))?;
    let (owner, _) = owner.split_once(':').context("dpkg -S")?;
    ensure!(end["package"]["manager"] == "dpkg" && end["package"]["name"] == owner, "{end}");
    let shown = text(&lab, "28140/tcp")?.contains(&format!("package    {owner} (dpkg)"));
    ensure!(shown == (owner != "busybox"), "in text where it says more: {owner}");
    // What no package has is of none.
    let _helper = serve_in(&lab, "/", 28141)?;
    let run = served(&lab, "28141/tcp")?;
    ensure!(self::end(&run)?["package"].is_null(), "{}", run.stdout);
    Ok(())
}

#[test]
fn the_repository_of_a_server_is_that_of_its_directory() -> Test {
    lab::root_or_skip!();
    if !lab::has("git") {
        lab::skip("git is not installed");
        return Ok(());
    }
    let lab = Lab::new()?;
    let app = lab.dir().join("app");
    let deep = app.join("src/deep");
    std::fs::create_dir_all(&deep)?;
    let (app, deep) = (app.to_str().context("path")?, deep.to_str().context("path")?);
    let git = |args: &[&str]| {
        let who = ["-C", app, "-c", "user.name=x", "-c", "user.email=x@example.org"];
        said("git", &[&who[..], args].concat())
    };
    git(&["init", "-q", "-b", "trunk"])?;
    git(&["commit", "-q", "--allow-empty", "-m", "x"])?;
    let beside = lab.dir().join("beside");
    let beside = beside.to_str().context("path")?;
    git(&["worktree", "add", "-q", "-b", "side", beside])?;
    let _one = serve_in(&lab, deep, 28142)?;
    let run = served(&lab, "28142/tcp")?;
    let found = &end(&run)?["repository"];
    ensure!(found["directory"] == app && found["branch"] == "trunk", "{found}");
    let told = format!("project    {app} (git, branch trunk)");
    ensure!(text(&lab, "28142/tcp")?.contains(&told));
    let _two = serve_in(&lab, beside, 28143)?;
    let run = served(&lab, "28143/tcp")?;
    let found = &end(&run)?["repository"];
    ensure!(found["directory"] == beside && found["branch"] == "side", "{found}");
    // One commit, and no branch.
    git(&["checkout", "-q", "--detach"])?;
    let commit = git(&["rev-parse", "HEAD"])?;
    let run = lab.whereis(&["28142/tcp"])?;
    let found = &end(&run)?["repository"];
    ensure!(found["branch"].is_null() && found["commit"] == commit[..12], "{found}");
    // Not a file: nobody waits for it.
    let odd = lab.dir().join("odd/.git");
    std::fs::create_dir_all(&odd)?;
    said("mkfifo", &[odd.join("HEAD").to_str().context("path")?])?;
    let _three = serve_in(&lab, lab.dir().join("odd").to_str().context("path")?, 28144)?;
    let run = served(&lab, "28144/tcp")?;
    ensure!(end(&run)?["repository"].is_null(), "{}", run.stdout);
    // A recording has it, and a redacted one names nothing.
    let file = lab.dir().join("turn.json");
    let path = file.to_str().context("path")?;
    lab.whereis(&["28143/tcp", "--record", path])?;
    let run = lab.whereis(&["28143/tcp", "--replay", path])?;
    ensure!(end(&run)?["repository"]["branch"] == "side", "{}", run.stdout);
    lab.whereis(&["28143/tcp", "--record", path, "--redact"])?;
    let kept = std::fs::read_to_string(path)?;
    ensure!(!kept.contains("\"side\"") && !kept.contains("/beside"), "a name is left in it");
    Ok(())
}

#[test]
fn a_login_is_one_by_a_program_of_roots() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _login =
        lab.listen_like(lab.host(), "tcp 127.0.0.1:28145 --under sshd", &["sshd", "-x"])?;
    let run = lab.whereis(&["28145/tcp"])?;
    let session = &end(&run)?["session"];
    ensure!(session["kind"] == "ssh" && session["program"] == "sshd", "{}", run.stdout);
    ensure!(text(&lab, "28145/tcp")?.contains("started by a login by SSH: sshd, pid"));
    // Who only calls itself so is none.
    let _other = lab.listen_like(lab.host(), "tcp 127.0.0.1:28146 --under sshd", &["other"])?;
    let run = lab.whereis(&["28146/tcp"])?;
    ensure!(end(&run)?["session"].is_null(), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_listener_of_systemds_is_that_of_its_socket_unit() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let program = lab.dir().join("systemd");
    std::fs::copy(env!("CARGO_BIN_EXE_lab-helper"), &program)?;
    let script = format!(
        "set -e
         mount -t tmpfs -o mode=755 tmpfs /run
         mkdir -p /run/systemd/system
         printf '[Socket]\\nListenStream=127.0.0.1:28147\\nService=wp-web.service\\n' > /run/systemd/system/wp.socket
         printf '[Socket]\\nListenStream=28148\\n' > /run/systemd/system/wp-other.socket
         exec {} listen tcp 127.0.0.1:28147 tcp 127.0.0.1:28148 --imitate /lib/systemd/systemd",
        program.display()
    );
    let argv = ["unshare", "-mpf", "--propagation", "private", "--mount-proc", "sh", "-c", &script];
    let outside = lab.spawn(lab.host(), &argv)?;
    served(&lab, "28147/tcp")?;
    let first = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", outside.pid))?;
    let first = first.split_whitespace().next().context("no first process")?;
    let ask = |args: &[&str]| {
        let enter = ["nsenter", "-t", first, "-m", "-p"];
        lab.tool().through(&enter).args(&["--json", "--no-kube"]).args(args).run()
    };
    let run = ask(&["28147/tcp"])?;
    let found = end(&run)?;
    ensure!(found["process"]["pid"] == 1, "{found}");
    let units = &found["socket_units"];
    ensure!(units[0]["name"] == "wp.socket" && units[0]["service"] == "wp-web.service", "{units}");
    ensure!(units[1].is_null(), "{units}");
    let run = ask(&["bind", "127.0.0.1:28147/tcp"])?;
    ensure!(run.stdout.contains("systemctl"), "{}", run.stdout);
    let held = &run.json["binds"][0]["held"][0];
    let stop = serde_json::json!(["systemctl", "stop", "wp.socket", "wp-web.service"]);
    ensure!(held["fix"]["command"] == stop, "{held}");
    ensure!(held["text"].to_string().contains("systemd, pid 1, of wp.socket"), "{held}");
    // Not at this address: no unit's.
    let run = ask(&["28148/tcp"])?;
    ensure!(end(&run)?["socket_units"] == serde_json::json!([]), "{}", run.stdout);
    Ok(())
}
