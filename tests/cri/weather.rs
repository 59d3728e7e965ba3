//! What is left of names when containerd does not answer.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use lab::{Containerd, CriPod, PodContainer, PodSpec, Test};

/// containerd in a lab of its own, for what is done to it, with one pod in which
/// `port` is open.
fn with_pod(port: u16, test: impl Fn(&Containerd, &CriPod<'_>, &PodContainer) -> Test) -> Test {
    let containerd = Containerd::start()?;
    let pod = containerd.pod(&PodSpec {
        namespace: "default",
        name: "web-abc",
        uid: "0f7a2b1c-5d34-4f6e-8a90-1b2c3d4e5f60",
        labels: &[("app", "web")],
        ..PodSpec::default()
    })?;
    let web = pod.run("web", &format!("listen tcp 0.0.0.0:{port}"), port)?;
    test(&containerd, &pod, &web)
}

fn signal(pid: u32, signal: rustix::process::Signal) -> Test {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

#[test]
fn a_containerd_that_hangs_leaves_the_names_of_its_files() -> Test {
    lab::containerd_or_skip!();
    with_pod(22201, |containerd, pod, web| {
        signal(containerd.pid(), rustix::process::Signal::STOP)?;
        let run = containerd.lab().whereis(&["22201"]);
        signal(containerd.pid(), rustix::process::Signal::CONT)?;
        let run = run?;
        let path = run.is_found()?.path_in(&pod.netns)?;
        ensure!(path.pids() == [u64::from(web.pid)], "{}", path.0);
        ensure!(path.container() == Some("web"), "{}", path.0);
        let told = &path.end()["pod"];
        ensure!(told["namespace"] == "default" && told["name"] == "web-abc", "{told}");
        // From the bundle of the pod's sandbox.
        ensure!(told["host_network"] == false, "{told}");
        ensure!(path.hops()[0]["netns"]["name"] == "default/web-abc", "{}", path.0);
        let gaps = run.gap_text();
        ensure!(gaps.contains("CRI (/run/containerd/containerd.sock)"), "{gaps}");
        ensure!(gaps.contains("no answer within 300 ms"), "{gaps}");
        ensure!(gaps.contains("check whether the container runtime hangs"), "{gaps}");
        // Nothing is waited for longer than it may take; the machine may be slow.
        ensure!(run.took < Duration::from_secs(20), "{:?}", run.took);
        Ok(())
    })
}

#[test]
fn a_containerd_that_is_gone_leaves_the_names_of_its_files() -> Test {
    lab::containerd_or_skip!();
    with_pod(22202, |containerd, pod, web| {
        // As during an update: the pods go on.
        signal(containerd.pid(), rustix::process::Signal::KILL)?;
        let status = Path::new("/proc").join(containerd.pid().to_string()).join("status");
        for _ in 0..200 {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            if text.is_empty() || text.contains("State:\tZ") {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let run = containerd.lab().whereis(&["22202"])?;
        let path = run.is_found()?.path_in(&pod.netns)?;
        ensure!(path.pids() == [u64::from(web.pid)], "{}", path.0);
        ensure!(path.container() == Some("web"), "{}", path.0);
        ensure!(path.end()["pod"]["name"] == "web-abc", "{}", path.0);
        Ok(())
    })
}

#[test]
fn without_rights_the_socket_is_a_gap_that_says_what_helps() -> Test {
    lab::containerd_or_skip!();
    with_pod(22203, |containerd, _, _| {
        // Beside containerd, in its mount namespace, as any user of the node.
        let pid = containerd.pid().to_string();
        let log = "/var/log/pods/default_web-abc_0f7a2b1c-5d34-4f6e-8a90-1b2c3d4e5f60/web";
        let prepare = format!("mount -t tmpfs lab /var/log && mkdir -p {log}");
        let enter = ["-t", &pid, "-m", "--", "sh", "-c", &prepare];
        let done = Command::new("nsenter").args(enter).status()?;
        ensure!(done.success(), "preparing logs: {done}");
        let door = ["nsenter", "-t", &pid, "-m", "setpriv", "--reuid", "65534", "--regid", "65534"];
        let door = [&door[..], &["--clear-groups", "--bounding-set=-all"]].concat();
        let run = containerd.lab().tool().through(&door).args(&["--json", "22203"]).run()?;
        // Which namespace it is can't be read, but in which pod its processes are.
        let paths = run.answer()?["paths"].as_array().context("no paths")?;
        let named = paths.iter().any(|path| {
            let pod = &path["end"]["pod"];
            pod["namespace"] == "default" && pod["name"] == "web-abc"
        });
        ensure!(named, "{}", run.stdout);
        let gaps = run.gaps();
        let denied = gaps.iter().find(|gap| gap["source"].as_str().unwrap_or("").contains("CRI"));
        let denied = denied.with_context(|| run.gap_text())?;
        ensure!(denied["reason"] == "permission denied", "{denied}");
        ensure!(denied["remedy"] == "run as root", "{denied}");
        Ok(())
    })
}
