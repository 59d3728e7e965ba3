//! Credentials that a program gives (`user.exec` of a kubeconfig), as the cloud providers'
//! command lines do. kube would run it, too, but without a limit: one that waits for
//! somebody at a browser would hold the answer up.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use super::client::{ApiFailure, Help, first_line};
use super::config::{ContextConfig, Programs};
use super::files::Unread;
use super::trust;

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
    entry: &ContextConfig,
    limit: Duration,
) -> Result<Credentials, ApiFailure> {
    let Some(program) = exec.command.as_deref().filter(|command| !command.is_empty()) else {
        return Err(ApiFailure::Config(
            "its credentials come from a program that it does not name".to_owned(),
        ));
    };
    let file = allowed(program, entry)?;
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Err(ApiFailure::Login(
            format!("its credentials come from {program:?}, which has to talk to somebody"),
            Help::Kubectl,
        ));
    }
    let version = exec.api_version.as_deref().unwrap_or("client.authentication.k8s.io/v1");
    let info = serde_json::json!({
        "apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": false},
    });
    let mut command = Command::new(file);
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
        ApiFailure::Login(why, Help::Words(hint.unwrap_or_else(|| format!("install {program}"))))
    })?;
    let printed = wait(child, limit).map_err(|why| {
        ApiFailure::Login(
            format!("its credentials come from {program:?}, which {why}"),
            Help::Kubectl,
        )
    })?;
    let credential: Option<ExecCredential> = serde_json::from_slice(&printed).ok();
    credential.and_then(|credential| credential.status).ok_or_else(|| {
        ApiFailure::Login(
            format!("its credentials come from {program:?}, which printed none"),
            Help::Kubectl,
        )
    })
}

/// What is to be run for a program of this context, if it may be.
fn allowed(program: &str, entry: &ContextConfig) -> Result<PathBuf, ApiFailure> {
    let file = &entry.context.file;
    let from = format!("its credentials come from {program:?}");
    let (why, help) = match entry.programs {
        Programs::Run => return Ok(program.into()),
        Programs::Roots => match roots(program) {
            Ok(path) => return Ok(path),
            Err(why) => (
                format!("{from}, which is not run as root: {why}"),
                format!("run without root, {OR_TOKEN}"),
            ),
        },
        Programs::NotAsked => (
            format!("{from}: programs that a kubeconfig names are not run as root by themselves"),
            format!("--kube-exec, or run without root, {OR_TOKEN}"),
        ),
        Programs::Never => (
            format!(
                "{from}, which {file} names: programs that another user's file names are not run"
            ),
            format!("run as that user, {OR_TOKEN}"),
        ),
    };
    Err(ApiFailure::Login(why, Help::Words(help)))
}

/// What gives credentials without a program.
const OR_TOKEN: &str = "or name a kubeconfig of your own with --kubeconfig that has a token in it: \
     kubectl create token SERVICEACCOUNT";

/// The file of a program that nobody but root could have put there. One that is nowhere is
/// itself: to run it fails, and says so.
fn roots(program: &str) -> Result<PathBuf, Unread> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let files: Vec<PathBuf> = if program.contains('/') {
        vec![program.into()]
    } else {
        std::env::split_paths(&path).map(|dir| dir.join(program)).collect()
    };
    for file in &files {
        match trust::is_roots(file) {
            Ok(()) => return Ok(file.clone()),
            Err(Unread::Missing) => {}
            Err(why) => return Err(why),
        }
    }
    Ok(Path::new("/nonexistent").join(program))
}

/// What a program printed, when it ended well and in time. Nothing that it began outlives a
/// failure.
fn wait(mut child: Child, limit: Duration) -> Result<Vec<u8>, String> {
    let group = Pid::from_child(&child);
    let printed = collect(&mut child, limit);
    if printed.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
    }
    printed
}

fn collect(child: &mut Child, limit: Duration) -> Result<Vec<u8>, String> {
    let unread = |error: std::io::Error| format!("can't be read from: {error}");
    let until = Instant::now() + limit;
    // Read in turn with waiting: there may be no thread left for it.
    let mut out = child.stdout.take();
    if let Some(out) = &out {
        rustix::io::ioctl_fionbio(out, true).map_err(|error| unread(error.into()))?;
    }
    let mut printed = Vec::new();
    let mut ended = None;
    loop {
        let all = match &mut out {
            Some(out) => read_some(out, &mut printed).map_err(unread)?,
            None => true,
        };
        if ended.is_none() {
            ended = child.try_wait().map_err(|error| format!("can't be waited for: {error}"))?;
        }
        match ended {
            Some(status) if !status.success() => return Err(format!("failed ({status})")),
            Some(_) if all => return Ok(printed),
            _ if Instant::now() < until => std::thread::sleep(STEP),
            Some(_) => return Err("left something behind that does not end".to_owned()),
            None => return Err("did not end in time".to_owned()),
        }
    }
}

/// Reads what there is, and says whether that is all, or as much as is read.
fn read_some(out: &mut ChildStdout, printed: &mut Vec<u8>) -> std::io::Result<bool> {
    let room = LARGEST.saturating_sub(printed.len() as u64);
    match out.take(room).read_to_end(printed) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
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
