use super::*;
use Runtime::{Containerd, CriO, Docker, Lxc, Nerdctl, Nspawn, Podman, Unknown};

/// Expands the short ids of the table: `{a}` to 64 times `a`, `{uid}` and
/// `{uid_}` to a pod's UID, `{hash}` to a static pod's.
fn expand(text: &str) -> String {
    let mut text = text
        .replace("{uid}", "1e597579-417e-482f-bf65-5fe170c3aebd")
        .replace("{uid_}", "1e597579_417e_482f_bf65_5fe170c3aebd")
        .replace("{hash}", "8daa50c3a64c9ff60bb9eab7b44b56fd");
    for letter in ["a", "b", "c"] {
        text = text.replace(&format!("{{{letter}}}"), &letter.repeat(64));
    }
    text
}

/// One row: a path, the containers in it as (runtime, id, pod), the unit.
type Row<'a> = (&'a str, &'a [(Runtime, &'a str, Option<&'a str>)], Option<&'a str>);

fn check(rows: &[Row<'_>]) {
    for (path, containers, unit) in rows {
        let path = CgroupPath(expand(path));
        let expected: Vec<ContainerRef> = containers
            .iter()
            .map(|(runtime, id, pod)| ContainerRef {
                runtime: *runtime,
                id: expand(id),
                pod: pod.map(|uid| PodRef { uid: expand(uid) }),
            })
            .collect();
        assert_eq!(path.containers(), expected, "containers of {}", path.0);
        assert_eq!(path.unit(), unit.map(expand), "unit of {}", path.0);
    }
}

const UID: Option<&str> = Some("{uid}");

#[test]
fn docker_layouts() {
    check(&[
        ("/docker/{a}", &[(Docker, "{a}", None)], None),
        ("/docker/{a} (deleted)", &[(Docker, "{a}", None)], None),
        ("/docker/{a}/init.scope", &[(Docker, "{a}", None)], Some("init.scope")),
        ("/docker/{a}/system.slice/ssh.service", &[(Docker, "{a}", None)], Some("ssh.service")),
        ("/system.slice/docker-{a}.scope", &[(Docker, "{a}", None)], None),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{a}.scope",
            &[(Docker, "{a}", None)],
            Some("user@1000.service"),
        ),
        ("/lab-x/docker/{a}", &[(Docker, "{a}", None)], None),
        ("/lab-x/{a}", &[(Unknown, "{a}", None)], None),
        ("/docker/{a}/docker/{b}", &[(Docker, "{a}", None), (Docker, "{b}", None)], None),
        ("/docker/buildkit/rz2hx5wh1qjjzmn0ev0aeo5at", &[], None),
        ("/buildkit/{a}", &[], None),
    ]);
}

#[test]
fn kubernetes_layouts() {
    check(&[
        ("/kubepods/burstable/pod{uid}/{a}", &[(Containerd, "{a}", UID)], None),
        ("/kubepods/besteffort/pod{uid}/{a}", &[(Containerd, "{a}", UID)], None),
        ("/kubepods/pod{uid}/{a}", &[(Containerd, "{a}", UID)], None),
        ("/kubepods/burstable/pod{hash}/{a}", &[(Containerd, "{a}", Some("{hash}"))], None),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/\
             cri-containerd-{a}.scope",
            &[(Containerd, "{a}", UID)],
            None,
        ),
        (
            "/kubepods.slice/kubepods-pod{uid_}.slice/cri-containerd-{a}.scope",
            &[(Containerd, "{a}", UID)],
            None,
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{hash}.slice/\
             cri-containerd-{a}.scope",
            &[(Containerd, "{a}", Some("{hash}"))],
            None,
        ),
        (
            "/system.slice/containerd.service/kubepods-burstable-pod{uid_}.slice:cri-containerd:{a}",
            &[(Containerd, "{a}", UID)],
            Some("containerd.service"),
        ),
        ("/kubepods.slice/kubepods-pod{uid_}.slice/crio-{a}.scope", &[(CriO, "{a}", UID)], None),
        (
            "/kubepods.slice/kubepods-pod{uid_}.slice/crio-{a}.scope/container",
            &[(CriO, "{a}", UID)],
            None,
        ),
        (
            "/kubepods.slice/kubepods-pod{uid_}.slice/crio-conmon-{a}.scope",
            &[],
            Some("crio-conmon-{a}.scope"),
        ),
        ("/kubepods/besteffort/pod{uid}/crio-{a}", &[(CriO, "{a}", UID)], None),
        ("/kubepods/besteffort/pod{uid}/crio-conmon-{a}", &[], None),
        (
            "/kubepods.slice/kubepods-pod{uid_}.slice/docker-{a}.scope",
            &[(Docker, "{a}", UID)],
            None,
        ),
        ("/kubepods/besteffort/pod{uid}", &[], None),
        ("/system.slice/k3s.service", &[], Some("k3s.service")),
        (
            "/system.slice/snap.microk8s.daemon-kubelite.service",
            &[],
            Some("snap.microk8s.daemon-kubelite.service"),
        ),
        ("/podruntime/kubelet", &[], None),
    ]);
}

#[test]
fn nodes_that_are_containers_themselves() {
    check(&[
        (
            "/docker/{a}/kubelet/kubepods/burstable/pod{uid}/{b}",
            &[(Docker, "{a}", None), (Containerd, "{b}", UID)],
            None,
        ),
        (
            "/system.slice/docker-{a}.scope/kubelet.slice/kubelet-kubepods.slice/\
             kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{uid_}.slice/\
             cri-containerd-{b}.scope",
            &[(Docker, "{a}", None), (Containerd, "{b}", UID)],
            None,
        ),
        (
            "/docker/{a}/kubepods.slice/kubepods-besteffort.slice/\
             kubepods-besteffort-pod{uid_}.slice/crio-{b}.scope",
            &[(Docker, "{a}", None), (CriO, "{b}", UID)],
            None,
        ),
        (
            "/docker/{a}/kubepods.slice/kubepods-besteffort.slice/\
             kubepods-besteffort-pod{uid_}.slice/docker-{b}.scope",
            &[(Docker, "{a}", None), (Docker, "{b}", UID)],
            None,
        ),
        (
            "/docker/{a}/kubepods/besteffort/pod{uid}/{b}",
            &[(Docker, "{a}", None), (Containerd, "{b}", UID)],
            None,
        ),
        ("/docker/{a}/init", &[(Docker, "{a}", None)], None),
        (
            "/docker/{a}/system.slice/containerd.service",
            &[(Docker, "{a}", None)],
            Some("containerd.service"),
        ),
        (
            "/machine.slice/libpod-{a}.scope/container/kubelet/kubepods/pod{uid}/{b}/docker/{c}",
            &[(Podman, "{a}", None), (Containerd, "{b}", UID), (Docker, "{c}", None)],
            None,
        ),
    ]);
}

#[test]
fn podman_and_nerdctl_layouts() {
    check(&[
        ("/system.slice/nerdctl-{a}.scope", &[(Nerdctl, "{a}", None)], None),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-{a}.scope",
            &[(Nerdctl, "{a}", None)],
            Some("user@1000.service"),
        ),
        ("/default/{a}", &[(Containerd, "{a}", None)], None),
        ("/machine.slice/libpod-{a}.scope", &[(Podman, "{a}", None)], None),
        ("/machine.slice/libpod-{a}.scope/container", &[(Podman, "{a}", None)], None),
        (
            "/machine.slice/machine-libpod_pod_{b}.slice/libpod-{a}.scope",
            &[(Podman, "{a}", None)],
            None,
        ),
        ("/machine.slice/libpod-conmon-{a}.scope", &[], Some("libpod-conmon-{a}.scope")),
        ("/libpod_parent/libpod-{a}", &[(Podman, "{a}", None)], None),
        ("/libpod_parent/{b}/libpod-{a}", &[(Podman, "{a}", None)], None),
        ("/lab-x/{b}/libpod-{a}", &[(Podman, "{a}", None)], None),
        ("/libpod_parent/{b}", &[], None),
        ("/libpod_parent/conmon", &[], None),
        ("/libpod_parent/libpod-conmon-{a}", &[], None),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{a}.scope/container",
            &[(Podman, "{a}", None)],
            Some("user@1000.service"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/\
             user-libpod_pod_{b}.slice/libpod-{a}.scope",
            &[(Podman, "{a}", None)],
            Some("user@1000.service"),
        ),
        (
            "/system.slice/web.service/libpod-payload-{a}",
            &[(Podman, "{a}", None)],
            Some("web.service"),
        ),
        ("/system.slice/web.service/supervisor", &[], Some("web.service")),
    ]);
}

#[test]
fn lxc_and_machine_layouts() {
    check(&[
        ("/lxc.payload.web1", &[(Lxc, "web1", None)], None),
        (
            "/lxc.payload.web1/system.slice/nginx.service",
            &[(Lxc, "web1", None)],
            Some("nginx.service"),
        ),
        ("/lxc.payload/web1", &[(Lxc, "web1", None)], None),
        ("/lxc/web1", &[(Lxc, "web1", None)], None),
        ("/lxc.payload.shop_web1/.lxc", &[(Lxc, "shop_web1", None)], None),
        ("/lxc.monitor.web1", &[], None),
        ("/lxc.monitor/web1", &[], None),
        (
            "/machine.slice/systemd-nspawn@deb.service/payload/system.slice/nginx.service",
            &[(Nspawn, "deb", None)],
            Some("nginx.service"),
        ),
        (
            "/machine.slice/systemd-nspawn@my\\x2ddeb.service/payload",
            &[(Nspawn, "my-deb", None)],
            None,
        ),
        (
            "/machine.slice/systemd-nspawn@deb.service/supervisor",
            &[],
            Some("systemd-nspawn@deb.service"),
        ),
        ("/machine.slice/machine-deb.scope", &[(Nspawn, "deb", None)], None),
        (
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
            &[(Nspawn, "qemu-1-vm", None)],
            None,
        ),
        ("/lxc.payload.host/docker/{a}", &[(Lxc, "host", None), (Docker, "{a}", None)], None),
    ]);
}

#[test]
fn units_without_containers() {
    check(&[
        ("/", &[], None),
        ("/init.scope", &[], Some("init.scope")),
        ("/system.slice/nginx.service", &[], Some("nginx.service")),
        ("/system.slice/system-getty.slice/getty@tty1.service", &[], Some("getty@tty1.service")),
        ("/system.slice/nginx.service/workers", &[], Some("nginx.service")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service",
            &[],
            Some("foo.service"),
        ),
        ("/user.slice/user-1000.slice/session-3.scope", &[], Some("session-3.scope")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-flatpak-org.x.Y-12.scope",
            &[],
            Some("app-flatpak-org.x.Y-12.scope"),
        ),
        ("/system.slice/a\\x2db.service", &[], Some("a-b.service")),
        // What is no escape stays, at the very end of the name too.
        ("/system.slice/a\\xzz\\x2.service", &[], Some("a\\xzz\\x2.service")),
        // Lookalikes: too short, upper case, no UUID.
        ("/docker/abcdef", &[], None),
        ("/kubepods/podinfo.slice", &[], None),
    ]);
}

#[test]
fn paths_from_inside_a_cgroup_namespace() {
    check(&[
        ("/../{a}", &[(Unknown, "{a}", None)], None),
        ("/../../docker/{a}", &[(Docker, "{a}", None)], None),
        ("/../..", &[], None),
        ("/../../system.slice/ssh.service", &[], Some("ssh.service")),
    ]);
}

fn chosen(text: &str) -> Option<String> {
    parse_proc_cgroup(&expand(text)).map(|path| path.0)
}

#[test]
fn the_line_that_names_most_containers_is_chosen() {
    // A hybrid host: the v2 tree does not have the container.
    let hybrid = "4:memory:/docker/{a}\n1:name=systemd:/docker/{a}/docker/{b}\n0::/\n";
    assert_eq!(chosen(hybrid), Some(expand("/docker/{a}/docker/{b}")));
    let both = "4:memory:/docker/{a}\n0::/docker/{a}/init\n";
    assert_eq!(chosen(both), Some(expand("/docker/{a}/init")));
}

#[test]
fn without_containers_v2_goes_first_unless_it_is_the_root() {
    assert_eq!(chosen("1:name=systemd:/b.service\n0::/a.service\n").as_deref(), Some("/a.service"));
    assert_eq!(
        chosen("3:cpu,cpuacct:/c\n2:memory:/b\n1:name=systemd:/a.service\n0::/\n").as_deref(),
        Some("/a.service")
    );
    assert_eq!(chosen("3:cpu,cpuacct:/c\n2:memory:/b\n0::/\n").as_deref(), Some("/b"));
    assert_eq!(chosen("0::/\n").as_deref(), Some("/"));
    // A colon may be part of a path.
    assert_eq!(chosen("0::/a:b:c\n").as_deref(), Some("/a:b:c"));
    assert_eq!(chosen(""), None);
    assert_eq!(chosen("garbage\n0:\n"), None);
}

#[test]
fn the_directory_around_a_container() {
    for (path, above) in [
        ("/docker/{a}", Some("/docker")),
        ("/{a}", Some("")),
        ("/system.slice/docker-{a}.scope/init", Some("/system.slice")),
        (
            "/user.slice/user-1000.slice/user@1000.service/docker-{a}.scope",
            Some("/user.slice/user-1000.slice/user@1000.service"),
        ),
        ("/kubepods/besteffort/pod{uid}/{a}", Some("/kubepods/besteffort/pod{uid}")),
        ("/docker/{a}/docker/{b}", Some("/docker")),
        ("/{a}/libpod-{b}.scope", Some("/{a}")),
        ("/user.slice", None),
    ] {
        let path = CgroupPath(expand(path));
        assert_eq!(path.above_container().map(str::to_owned), above.map(expand), "{}", path.0);
    }
}
