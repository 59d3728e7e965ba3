//! Pins: made, found, trusted or not, and removed.

use anyhow::{Context, Result, ensure};
use lab::{Lab, Mounts, Run, Test, Trace};

use crate::probe::{pin, used_pin};

/// A user without any rights, and a group that he may be in.
const NOBODY: &str = "65534";
const GROUP: &str = "65533";

/// Asks as a user in a group, without any capability.
fn ask_as(lab: &Lab, mounts: &Mounts, groups: &[&str], args: &[&str]) -> Result<Run> {
    let mut user = vec!["setpriv", "--reuid", NOBODY, "--regid", NOBODY];
    user.extend(groups);
    lab.tool().inside(mounts).through(&user).args(args).run()
}

#[test]
fn members_of_the_group_get_owners_without_any_right() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let other = lab.netns("other")?;
    let theirs = lab.listen(lab.host(), "tcp 127.0.0.1:22101")?;
    let hidden = lab.listen(&other, "tcp 127.0.0.1:22101")?;
    let mounts = lab.bpffs()?;
    let said = pin(&lab, &mounts, &["--group", GROUP])?.stdout;
    ensure!(said.contains(GROUP), "{said}");
    let modes = mounts.sh("cd /sys/fs/bpf/whereis-port; stat -c '%a %u:%g' . *")?;
    let modes: Vec<&str> = modes.lines().collect();
    ensure!(modes == ["755 0:0", "440 0:65533", "440 0:65533"], "{modes:?}");

    let run = ask_as(&lab, &mounts, &["--groups", GROUP], &["--json", "22101"])?;
    ensure!(used_pin(run.is_found()?), "{}", run.stdout);
    let path = run.path_in(lab.host())?;
    ensure!(path.ending() == "process" && path.pids() == [u64::from(theirs.pid)], "{}", path.0);
    let path = run.path_in(&other)?;
    ensure!(path.ending() == "process" && path.pids() == [u64::from(hidden.pid)], "{}", path.0);
    let run = ask_as(&lab, &mounts, &["--groups", GROUP], &["--json", "list"])?;
    ensure!(run.listeners()?.len() == 2, "{}", run.stdout);
    ensure!(run.listeners()?.iter().all(|l| l.ending() == "process"), "{}", run.stdout);

    let run = lab.tool().inside(&mounts).args(&["--json", "doctor"]).run()?;
    ensure!(run.stdout.contains("pinned in /sys/fs/bpf/whereis-port"), "{}", run.stdout);

    // Who is not in the group gets what he got without a pin.
    let run = ask_as(&lab, &mounts, &["--clear-groups"], &["--json", "22101"])?;
    ensure!(!used_pin(run.is_found()?), "{}", run.stdout);
    let path = run.path_in(lab.host())?;
    ensure!(path.ending() == "not_readable" && path.pids().is_empty(), "{}", path.0);
    let run = ask_as(&lab, &mounts, &["--clear-groups"], &["--json", "doctor"])?;
    ensure!(run.stdout.contains("not for this user"), "{}", run.stdout);
    ensure!(run.stdout.contains("pin --group"), "{}", run.stdout);
    Ok(())
}

#[test]
fn without_a_group_a_pin_is_roots_alone() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _theirs = lab.listen(lab.host(), "tcp 127.0.0.1:22102")?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;
    let modes = mounts.sh("cd /sys/fs/bpf/whereis-port; stat -c '%a %u:%g' . *")?;
    let modes: Vec<&str> = modes.lines().collect();
    ensure!(modes == ["755 0:0", "400 0:0", "400 0:0"], "{modes:?}");
    let run = ask_as(&lab, &mounts, &["--groups", GROUP], &["--json", "22102"])?;
    ensure!(!used_pin(run.is_found()?), "{}", run.stdout);
    ensure!(run.path_in(lab.host())?.ending() == "not_readable", "{}", run.stdout);
    Ok(())
}

#[test]
fn a_group_that_may_not_enter_the_bpffs_gets_its_own() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let theirs = lab.listen(lab.host(), "tcp 127.0.0.1:22103")?;
    // As systemd mounts it.
    let mounts = lab.mounts("mount -t bpf -o mode=700 bpf /sys/fs/bpf")?;
    let said = pin(&lab, &mounts, &["--group", GROUP])?.stdout;
    ensure!(said.contains("/run/whereis-port/bpf"), "{said}");
    let run = ask_as(&lab, &mounts, &["--groups", GROUP], &["--json", "22103"])?;
    ensure!(used_pin(run.is_found()?), "{}", run.stdout);
    ensure!(run.path_in(lab.host())?.pids() == [u64::from(theirs.pid)], "{}", run.stdout);
    let run = lab.tool().inside(&mounts).arg("unpin").run()?;
    ensure!(run.code == Some(0), "{}", run.stderr);
    mounts.sh("! test -e /run/whereis-port && ! grep -q /run/whereis-port /proc/self/mountinfo")?;
    Ok(())
}

#[test]
fn a_pin_that_root_alone_did_not_make_is_not_used() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let server = lab.listen(lab.host(), "tcp 127.0.0.1:22104")?;
    for (spoil, why) in [
        ("chown 1000 sockets-*", "belongs to user 1000"),
        ("chmod 460 sockets-*", "can be written by others"),
        ("chown 1000 .", "belongs to user 1000"),
        ("chmod 777 .", "can be written by others"),
        ("f=$(echo sockets-*); mv $f aside; ln -s aside $f", "is no pinned iterator"),
        ("f=$(echo sockets-*); rm $f; mkdir $f", "is no pinned iterator"),
        ("mv sockets-* sockets-0000", "is of another version"),
    ] {
        let mounts = lab.bpffs()?;
        pin(&lab, &mounts, &[])?;
        mounts.sh(&format!("cd /sys/fs/bpf/whereis-port; {spoil}"))?;
        let run = lab.tool().inside(&mounts).args(&["--json", "22104"]).run()?;
        ensure!(!used_pin(run.is_found()?), "{spoil}: {}", run.json["sources"]);
        let pids = run.path_in(lab.host())?.pids();
        ensure!(pids == [u64::from(server.pid)], "{spoil}: {}", run.stdout);
        let run = lab.tool().inside(&mounts).args(&["--json", "doctor"]).run()?;
        ensure!(run.stdout.contains(why), "{spoil}: no {why:?} in {}", run.stdout);
        ensure!(run.stdout.contains("whereis-port pin"), "{spoil}: {}", run.stdout);
    }
    Ok(())
}

#[test]
fn a_file_that_is_no_iterator_gives_no_answer() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let server = lab.listen(lab.host(), "tcp 127.0.0.1:22105")?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;
    // Another iterator under the name of the first: what it gives is no socket.
    mounts.sh("cd /sys/fs/bpf/whereis-port; f=$(echo sockets-*); rm $f; mv tasks-* $f")?;
    let run = lab.tool().inside(&mounts).args(&["--json", "22105"]).run()?;
    let pids = run.is_found()?.path_in(lab.host())?.pids();
    ensure!(pids == [u64::from(server.pid)], "{}", run.stdout);
    Ok(())
}

#[test]
fn unpin_leaves_nothing() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mounts = lab.bpffs()?;
    let unpin = || lab.tool().inside(&mounts).arg("unpin").run();
    // The kernel puts two files of its own into each bpffs.
    let files = "cd /sys/fs/bpf; find . ! -name '*.debug' | sort";
    let before = mounts.sh(files)?;
    let run = unpin()?;
    ensure!(run.code == Some(0) && run.stdout.contains("nothing was pinned"), "{}", run.stdout);

    pin(&lab, &mounts, &[])?;
    // Pins of an old version go with the next pin, and with unpin.
    mounts.sh("cd /sys/fs/bpf/whereis-port; mv tasks-* tasks-0000")?;
    pin(&lab, &mounts, &[])?;
    let now = mounts.sh(files)?;
    ensure!(now.lines().count() == 4 && !now.contains("0000"), "{now}");
    mounts.sh("cd /sys/fs/bpf/whereis-port; mv tasks-* tasks-0000")?;
    let run = unpin()?;
    ensure!(run.code == Some(0) && run.stdout.contains("tasks-0000"), "{}", run.stdout);
    let after = mounts.sh(files)?;
    ensure!(after == before, "{before}{after}");
    Ok(())
}

#[test]
fn unpin_does_not_remove_what_it_did_not_make() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;
    mounts.sh("mkdir /sys/fs/bpf/whereis-port/mine")?;
    let run = lab.tool().inside(&mounts).arg("unpin").run()?;
    ensure!(run.code == Some(4) && run.stderr.contains("mine"), "{:?}: {}", run.code, run.stderr);
    let left = mounts.sh("ls /sys/fs/bpf/whereis-port")?;
    ensure!(left.trim() == "mine", "{left}");
    Ok(())
}

#[test]
fn without_a_bpffs_one_is_mounted_and_unmounted() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let server = lab.listen(lab.host(), "tcp 127.0.0.1:22106")?;
    // An empty directory there, as where the kernel has bpffs and nobody mounted it.
    let mounts = lab.mounts("mount -t tmpfs tmpfs /sys/fs/bpf")?;
    // Other tests have their namespaces' names there.
    let mountinfo = "cut -d' ' -f5- /proc/self/mountinfo | grep -v /netns/
                     find /run /sys/fs/bpf -xdev";
    let before = mounts.sh(mountinfo)?;
    let said = pin(&lab, &mounts, &[])?.stdout;
    ensure!(said.contains("a bpffs was mounted"), "{said}");
    pin(&lab, &mounts, &[])?;
    let count = mounts.sh("grep -c ' /run/whereis-port/bpf ' /proc/self/mountinfo")?;
    ensure!(count.trim() == "1", "mounted {count} times");
    let run = lab.tool().inside(&mounts).args(&["--json", "22106"]).run()?;
    ensure!(used_pin(run.is_found()?), "{}", run.stdout);
    ensure!(run.path_in(lab.host())?.pids() == [u64::from(server.pid)], "{}", run.stdout);
    let run = lab.tool().inside(&mounts).arg("unpin").run()?;
    ensure!(run.code == Some(0), "{}", run.stderr);
    let after = mounts.sh(mountinfo)?;
    ensure!(after == before, "{before}\n{after}");
    Ok(())
}

#[test]
fn many_pin_and_read_at_once() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let server = lab.listen(lab.host(), "tcp 127.0.0.1:22107")?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &[])?;
    std::thread::scope(|scope| {
        let pins: Vec<_> = (0..4).map(|_| scope.spawn(|| pin(&lab, &mounts, &[]))).collect();
        let asks: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| lab.tool().inside(&mounts).args(&["--json", "22107"]).run()))
            .collect();
        for pin in pins {
            pin.join().ok().context("a panic")??;
        }
        for ask in asks {
            let run = ask.join().ok().context("a panic")??;
            // At no moment is there none.
            ensure!(used_pin(run.is_found()?), "{}", run.stdout);
            ensure!(run.path_in(lab.host())?.pids() == [u64::from(server.pid)], "{}", run.stdout);
        }
        Test::Ok(())
    })?;
    let files = mounts.sh("ls /sys/fs/bpf/whereis-port")?;
    ensure!(files.lines().count() == 2 && !files.contains("new-"), "{files}");
    Ok(())
}

#[test]
fn pinning_is_for_root() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    // Anybody may make a directory in this one.
    let mounts = lab.mounts("mount -t bpf -o mode=1777 bpf /sys/fs/bpf")?;
    for command in ["pin", "unpin"] {
        let run = ask_as(&lab, &mounts, &["--clear-groups"], &[command])?;
        if command == "pin" {
            ensure!(run.code == Some(4) && run.stderr.contains("as root"), "{}", run.stderr);
        }
        // Else root could not pin any more.
        mounts.sh("! test -e /sys/fs/bpf/whereis-port")?;
    }
    pin(&lab, &mounts, &[])?;
    let run = ask_as(&lab, &mounts, &["--clear-groups"], &["unpin"])?;
    ensure!(run.code == Some(4) && run.stderr.contains("as root"), "{}", run.stderr);
    let run = lab.tool().inside(&mounts).args(&["pin", "--group", "nosuch"]).run()?;
    ensure!(run.code == Some(2) && run.stderr.contains("nosuch"), "{}", run.stderr);
    Ok(())
}

#[test]
fn a_directory_of_somebody_else_does_not_hide_ones_own_pin() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mounts = lab.mounts(
        "mount -t bpf -o mode=1777 bpf /sys/fs/bpf
         setpriv --reuid 65534 --clear-groups mkdir /sys/fs/bpf/whereis-port",
    )?;
    let run = lab.tool().inside(&mounts).arg("pin").run()?;
    ensure!(run.code == Some(4), "{:?}: {}", run.code, run.stdout);
    ensure!(run.stderr.contains("only root") && run.stderr.contains("remove"), "{}", run.stderr);
    Ok(())
}

#[test]
fn a_pin_shows_its_group_what_proc_hides() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let theirs = lab.listen(lab.host(), "tcp 127.0.0.1:22108 --comm hidden")?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &["--group", GROUP])?;
    // A new one: remounting the machine's would change it for everybody.
    mounts.sh("mount -t proc -o hidepid=2 proc /proc")?;
    let run = ask_as(&lab, &mounts, &["--groups", GROUP], &["--json", "22108"])?;
    ensure!(used_pin(run.is_found()?), "{}", run.stdout);
    let path = run.path_in(lab.host())?;
    ensure!(path.pids() == [u64::from(theirs.pid)], "{}", path.0);
    ensure!(path.end()["process"]["name"] == "hidden", "{}", path.0);
    Ok(())
}

#[test]
fn the_group_compares_readings_with_owners() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mounts = lab.bpffs()?;
    pin(&lab, &mounts, &["--group", GROUP])?;
    let port = lab::unused_port()?;
    let target = port.to_string();
    let user = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--groups", GROUP];
    let args = ["--json", "-e", "listen", "-n", "1", "--interval", "50ms", &target];
    let mut trace = Trace::start(lab.tool().inside(&mounts).through(&user), &args)?;
    let server = lab.listen(lab.host(), &format!("tcp 127.0.0.1:{port}"))?;
    let line = trace.line()?;
    ensure!(line["seen_by"] == "comparison" && line["port"] == port, "{line}");
    ensure!(line["actor"]["pid"] == server.pid, "{line}");
    Ok(())
}

#[test]
fn unpin_goes_on_past_what_it_does_not_trust() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let mounts = lab.mounts("mount -t bpf -o mode=700 bpf /sys/fs/bpf")?;
    pin(&lab, &mounts, &["--group", GROUP])?;
    mounts.sh("mkdir /sys/fs/bpf/whereis-port; chown 1000 /sys/fs/bpf/whereis-port")?;
    let run = lab.tool().inside(&mounts).arg("unpin").run()?;
    ensure!(run.code == Some(4) && run.stderr.contains("user 1000"), "{}", run.stderr);
    mounts.sh("! test -e /run/whereis-port && test -d /sys/fs/bpf/whereis-port").map(drop)
}
