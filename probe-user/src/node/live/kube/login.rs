//! Credentials that a program gives (`user.exec` of a kubeconfig), as the cloud providers'
//! command lines do. kube would run it, too, but without a limit: one that waits for
//! somebody at a browser would hold the answer up.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use super::client::{Failure, first_line};
use super::config::Found;

/// The most that is read of what such a program prints, in bytes.
const LARGEST: u64 = 1 << 20;
/// How often it is looked whether it has ended.
const STEP: Duration = Duration::from_millis(5);

/// What `client.authentication.k8s.io` calls ExecCredential.
#[derive(Deserialize)]
struct ExecCredential {
    status: Option<Credentials>,
}

/// What lets us in.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Credentials {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

impl Credentials {
    pub(super) fn put_into(self, auth: &mut AuthInfo) {
        if let Some(token) = self.token {
            auth.token = Some(token.into());
        }
        if let (Some(certificate), Some(key)) = (self.client_certificate_data, self.client_key_data)
        {
            // A kubeconfig has these in base64, the program's answer in PEM.
            auth.client_certificate_data = Some(BASE64.encode(certificate));
            auth.client_key_data = Some(BASE64.encode(key).into());
        }
    }
}

/// Runs the program, without a terminal, and ends it when it takes longer than `limit`.
pub(super) fn run(
    exec: &ExecConfig,
    entry: &Found,
    limit: Duration,
) -> Result<Credentials, Failure> {
    let Some(program) = exec.command.as_deref().filter(|command| !command.is_empty()) else {
        return Err(Failure::Config(
            "its credentials come from a program that it does not name".to_owned(),
        ));
    };
    let kubectl = Some(format!("kubectl --context {} get nodes", entry.context.name));
    if !entry.trusted {
        return Err(Failure::Login(
            format!(
                "its credentials come from {program:?}, which {} names: programs that another user's file names \
                 are not run",
                entry.context.file
            ),
            Some("run as that user, or name a kubeconfig of your own with --kubeconfig".to_owned()),
        ));
    }
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Err(Failure::Login(
            format!("its credentials come from {program:?}, which has to talk to somebody"),
            kubectl,
        ));
    }
    let version = exec.api_version.as_deref().unwrap_or("client.authentication.k8s.io/v1");
    let info = serde_json::json!({
        "apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": false},
    });
    let mut command = Command::new(program);
    command
        .args(exec.args.iter().flatten())
        .env("KUBERNETES_EXEC_INFO", info.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // What it starts is to end with it.
        .process_group(0);
    for pair in exec.env.iter().flatten() {
        if let (Some(name), Some(value)) = (pair.get("name"), pair.get("value")) {
            command.env(name, value);
        }
    }
    let child = command.spawn().map_err(|error| {
        let hint = exec.install_hint.as_deref().map(first_line);
        let why = format!("its credentials come from {program:?}, which can't be run: {error}");
        Failure::Login(why, hint.or_else(|| Some(format!("install {program}"))))
    })?;
    let printed = wait(child, limit).map_err(|why| {
        Failure::Login(
            format!("its credentials come from {program:?}, which {why}"),
            kubectl.clone(),
        )
    })?;
    let credential: Option<ExecCredential> = serde_json::from_slice(&printed).ok();
    credential.and_then(|credential| credential.status).ok_or_else(|| {
        Failure::Login(
            format!("its credentials come from {program:?}, which printed none"),
            kubectl,
        )
    })
}

/// What a program printed, when it ended well and in time.
fn wait(mut child: Child, limit: Duration) -> Result<Vec<u8>, String> {
    let group = Pid::from_child(&child);
    let until = Instant::now() + limit;
    let mut printed = Vec::new();
    let reader = child.stdout.take().map(|out| {
        std::thread::spawn(move || {
            let mut printed = Vec::new();
            let _ = out.take(LARGEST).read_to_end(&mut printed);
            printed
        })
    });
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(STEP),
            Ok(None) => break Err("did not end in time".to_owned()),
            Err(error) => break Err(format!("can't be waited for: {error}")),
        }
    };
    if status.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
    }
    // What it leaves behind may keep the pipe open: only who ended well is listened to.
    let status = status?;
    if !status.success() {
        let _ = kill_process_group(group, Signal::KILL);
        return Err(format!("failed ({status})"));
    }
    while let Some(reader) = &reader {
        if reader.is_finished() {
            break;
        }
        if Instant::now() >= until {
            let _ = kill_process_group(group, Signal::KILL);
            return Err("left something behind that does not end".to_owned());
        }
        std::thread::sleep(STEP);
    }
    if let Some(Ok(all)) = reader.map(std::thread::JoinHandle::join) {
        printed = all;
    }
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped()).process_group(0);
        command.spawn().unwrap()
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let begin = Instant::now();
        let why = wait(sh("sleep 100"), Duration::from_millis(50)).unwrap_err();
        assert!(why.contains("in time"), "{why}");
        let why = wait(sh("sleep 100 & echo x"), Duration::from_millis(200)).unwrap_err();
        assert!(why.contains("left something behind"), "{why}");
        assert!(begin.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn what_a_program_prints_counts_only_when_it_ended_well() {
        assert_eq!(wait(sh("echo x"), Duration::from_secs(20)).unwrap(), b"x\n");
        assert!(wait(sh("echo x; exit 3"), Duration::from_secs(20)).is_err());
    }
}
