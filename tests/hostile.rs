//! Nodes on which somebody means harm: the tool ends, names the right owner, and says what it
//! left out.

use anyhow::{Result, ensure};
use lab::{Fuse, Lab, Proc, Test};

/// The cgroup of a container that no other lab has.
fn container(lab: &Lab) -> String {
    let id: String = lab.name().chars().filter(char::is_ascii_digit).collect();
    format!("docker/{id:0>64}")
}

/// A container that listens, and whose mount namespace is that of `fuse`.
fn in_container(lab: &Lab, fuse: &Fuse, argv: &[&str]) -> Result<Proc> {
    lab.listen_at(fuse, lab.host(), &container(lab), "tcp 127.0.0.1:0", argv)
}

/// One that listens in a container below it: for that one the first is the node, whose daemons
/// and files say what it is.
fn below(lab: &Lab, fuse: &Fuse) -> Result<Proc> {
    let inner = format!("{}/docker/{}", container(lab), "8".repeat(64));
    lab.listen_at(fuse, lab.host(), &inner, "tcp 127.0.0.1:0", &["httpd"])
}

/// Asks for the port of `listener`: it is found, with its process, and something is said not
/// to have answered.
fn found_though_silent(lab: &Lab, listener: &Proc) -> Test {
    let port = listener.ports[0].to_string();
    for args in [vec![port.as_str()], vec!["-v", &port]] {
        let run = lab.tool().args(&["--json"]).args(&args).run()?;
        run.is_found()?;
        let path = run.path_in(lab.host())?;
        ensure!(path.pid() == Some(listener.pid.into()), "{}", run.stdout);
        ensure!(run.gap_text().contains("no answer within"), "{}", run.gap_text());
    }
    let list = lab.tool().args(&["list", "--json"]).run()?;
    let listed = list.listeners()?;
    let listed = listed.iter().any(|row| row.pids().contains(&listener.pid.into()));
    ensure!(listed, "{}", list.stdout);
    Ok(())
}

#[test]
fn a_socket_on_a_file_system_that_does_not_answer() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let fuse = lab.fuse("stat /mnt/s > /dev/null")?;
    let _dockerd = in_container(&lab, &fuse, &["dockerd", "-H", "unix:///mnt/s"])?;
    let inside = below(&lab, &fuse)?;
    fuse.silence()?;
    found_though_silent(&lab, &inside)
}

#[test]
fn a_socket_below_a_file_system_that_is_stacked_on_one() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let fuse = lab.fuse(
        "mkdir -p /run/l /run/o
         mount -t overlay o -o lowerdir=/mnt:/run/l /run/o
         stat /run/o/s > /dev/null",
    )?;
    let argv = ["containerd", "--address", "/run/o/s", "--state", "/run/o/d"];
    let _runtime = in_container(&lab, &fuse, &argv)?;
    let inside = below(&lab, &fuse)?;
    fuse.silence()?;
    found_though_silent(&lab, &inside)
}

#[test]
fn state_files_on_a_file_system_that_does_not_answer() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let fuse = lab.fuse("mount --bind /mnt /var/lib")?;
    let argv = ["dockerd", "-H", "unix:///nothing/here"];
    let _node = in_container(&lab, &fuse, &argv)?;
    let inside = below(&lab, &fuse)?;
    fuse.silence()?;
    found_though_silent(&lab, &inside)
}

#[test]
fn a_descriptor_of_an_unmounted_file_system_that_claims_to_be_a_namespace() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let fuse = lab.fuse(
        "mkdir /run/d
         mount --bind /mnt/d /run/d
         exec 9< /run/d
         umount -l /run/d
         umount -l /mnt
         grep -q '^ino:.4026531841$' /proc/self/fdinfo/9",
    )?;
    fuse.silence()?;
    let listener = lab.listen(lab.host(), "tcp 127.0.0.1:0")?;
    // Only a question without an answer looks through the descriptors.
    let nothing = lab::unused_port()?.to_string();
    lab.tool().args(&["--json", &nothing]).run()?.is_nothing()?;
    let run = lab.tool().args(&["--json", &listener.ports[0].to_string()]).run()?;
    ensure!(run.is_found()?.path_in(lab.host())?.pid() == Some(listener.pid.into()), "{run:?}");
    Ok(())
}

#[test]
fn a_namespace_pinned_below_a_file_system_that_does_not_answer() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let fuse = lab.fuse(
        "mount -t tmpfs t /mnt/d
         touch /mnt/d/ns
         unshare --net=/mnt/d/ns true",
    )?;
    fuse.silence()?;
    let listener = lab.listen(lab.host(), "tcp 127.0.0.1:0")?;
    let run = lab.tool().args(&["--json", &listener.ports[0].to_string()]).run()?;
    ensure!(run.is_found()?.path_in(lab.host())?.pid() == Some(listener.pid.into()), "{run:?}");
    ensure!(run.gap_text().contains("may never answer"), "{}", run.gap_text());
    Ok(())
}

#[test]
fn a_command_line_of_which_each_byte_is_an_argument() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    // A question for any container looks at whatever is called a runtime.
    let args = "tcp 127.0.0.1:0";
    let contained = lab.listen_in(lab.host(), &container(&lab), args, &["httpd"])?;
    let hostile = lab.stretch(lab.host(), 65534, "dockerd", 64 << 20)?;
    for listener in [&contained, &hostile] {
        let port = listener.ports[0].to_string();
        // One string for each byte would take 24 times as much.
        let run = lab.tool().through(&["prlimit", "--data=400000000"]).args(&["--json", &port]);
        let run = run.run()?;
        ensure!(run.is_found()?.path_in(lab.host())?.pid() == Some(listener.pid.into()), "{run:?}");
    }
    Ok(())
}

#[test]
fn a_mount_table_without_end() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _binds = lab.binds(lab.host(), 20_000)?;
    let listener = lab.listen(lab.host(), "tcp 127.0.0.1:0")?;
    let run = lab.tool().args(&["--json", &listener.ports[0].to_string()]).run()?;
    ensure!(run.is_found()?.path_in(lab.host())?.pid() == Some(listener.pid.into()), "{run:?}");
    ensure!(run.gap_text().contains("so many mounts"), "{}", run.gap_text());
    Ok(())
}

#[test]
fn without_any_thread_there_is_an_answer() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let listener = lab.listen(lab.host(), "tcp 127.0.0.1:0")?;
    let port = listener.ports[0].to_string();
    let user = 4_000_000 + std::process::id() % 1_000_000;
    for args in [&["--json", &port][..], &["list", "--json"], &["doctor"]] {
        // The user's only process is the tool itself.
        let run = lab.tool().uid(user).through(&["prlimit", "--nproc=1"]).args(args).run()?;
        ensure!(run.code != Some(4) && !run.stderr.contains("panicked"), "{run:?}");
    }
    Ok(())
}

#[test]
fn a_path_that_is_asked_for_on_a_file_system_that_does_not_answer() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let fuse = lab.fuse("stat /mnt/s > /dev/null")?;
    fuse.silence()?;
    let run = lab.tool().inside(&fuse.mounts).args(&["--json", "/mnt/s"]).run()?;
    let answer = &run.json["unix"][0];
    ensure!(answer["file"] == "unknown" && answer["stale"] == false, "{}", run.stdout);
    ensure!(answer["verdict"] == "unknown" && run.code == Some(3), "{:?} {answer}", run.code);
    Ok(())
}
