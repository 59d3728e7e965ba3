use crate::recorded::names::{PseudonymKind, Pseudonyms, ids_in};

use super::*;

#[test]
fn ids_are_found_where_runtimes_put_them() {
    let found = |text: &str| -> Vec<String> {
        ids_in(text).iter().map(|(a, b)| text[*a..*b].to_owned()).collect()
    };
    let underscored = POD_UID.replace('-', "_");
    assert_eq!(found(&format!("docker-{CONTAINER_ID}.scope")), [CONTAINER_ID]);
    assert_eq!(found(&format!("system.slice:cri-containerd:{CONTAINER_ID}")), [CONTAINER_ID]);
    assert_eq!(found(&format!("kubepods-besteffort-pod{underscored}.slice")), [&*underscored]);
    assert_eq!(found("poddeadbeefdeadbeefdeadbeefdeadbeef"), ["deadbeefdeadbeefdeadbeefdeadbeef"]);
    assert_eq!(found("cni-8e2ab1c0-1234-4cde-9f01-23456789abcd"), [POD_UID]);
    assert_eq!(found("feedface"), [""; 0]);
    assert_eq!(found("xdeadbeefdeadbeef é deadbeefdeadbeefg"), [""; 0]);
}

#[test]
fn ids_keep_their_length_and_their_short_form() {
    let mut names = Pseudonyms::default();
    let full = names.id(CONTAINER_ID);
    let short = names.id(&CONTAINER_ID[..12]);
    assert_eq!((full.len(), &full[..12]), (64, short.as_str()));
    assert!(full.bytes().all(|b| b.is_ascii_hexdigit()) && full != CONTAINER_ID);
    let (dashes, underscores) = (names.id(POD_UID), names.id(&POD_UID.replace('-', "_")));
    assert_eq!(dashes.replace('-', "_"), underscores);
    assert_eq!(dashes.len(), POD_UID.len());
    assert_ne!(names.id("aaaaaaaaaaaabbbb"), names.id("aaaaaaaaaaaacccc"));
}

#[test]
fn addresses_keep_what_they_mean() {
    let mut names = Pseudonyms::default();
    for same in [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "255.255.255.255",
        "ff02::1",
    ] {
        assert_eq!(names.ip(ip(same)), ip(same));
    }
    assert_eq!(names.ip(ip("10.1.2.3")), ip("198.18.0.3"));
    assert_eq!(names.ip(ip("10.1.2.9")), ip("198.18.0.9"));
    assert_eq!(names.ip(ip("10.1.3.9")), ip("198.18.1.9"));
    assert_eq!(names.ip(ip("::ffff:10.1.2.3")), ip("::ffff:198.18.0.3"));
    let slaac = names.ip(ip("fd00:1::5054:ff:fe12:3456")).to_string();
    assert!(slaac.starts_with("2001:db8:0:1:") && !slaac.contains("fe12"), "{slaac}");
    assert_eq!(names.ip(ip("fd00:1::5")), ip("2001:db8:0:1::5"));
    assert!(names.ip(ip("fe80::5054:ff:fe12:3456")).to_string().starts_with("fe80::"));
    // Very many networks never get the same pseudonym.
    let mut seen = std::collections::HashSet::new();
    for network in 0..5000_u32 {
        assert!(
            seen.insert(names.ip(std::net::Ipv4Addr::from(0x0b00_0000 | (network << 8)).into()))
        );
    }
}

#[test]
fn cgroups_keep_what_runtimes_pods_and_units_are_told_by() {
    let mut names = Pseudonyms::default();
    names.name(PseudonymKind::User, "docker");
    let id = names.id(CONTAINER_ID);
    let uid = names.id(POD_UID);
    let under = uid.replace('-', "_");
    let pod = POD_UID.replace('-', "_");
    let cases = [
        (format!("/docker/{CONTAINER_ID}"), format!("/docker/{id}")),
        (
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{pod}.slice/cri-containerd-{CONTAINER_ID}.scope"
            ),
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{under}.slice/cri-containerd-{id}.scope"
            ),
        ),
        (
            format!("/kubepods/burstable/pod{POD_UID}/{CONTAINER_ID}"),
            format!("/kubepods/burstable/pod{uid}/{id}"),
        ),
        (
            format!("/acme.slice/libpod-{CONTAINER_ID}.scope/container"),
            format!("/unit-1.slice/libpod-{id}.scope/container"),
        ),
        (
            format!("/x/system.slice:docker:{CONTAINER_ID}"),
            format!("/unit-2/system.slice:docker:{id}"),
        ),
        (
            format!("/libpod_parent/libpod-conmon-{CONTAINER_ID}.scope"),
            format!("/unit-3/libpod-conmon-{id}.scope"),
        ),
        (
            "/system.slice/acme-billing.service".to_owned(),
            "/system.slice/unit-4.service".to_owned(),
        ),
        (
            "/user.slice/user-1000.slice/session-3.scope".to_owned(),
            "/user.slice/user-1000.slice/session-3.scope".to_owned(),
        ),
        (
            "/lxc.payload.my-web/init.scope".to_owned(),
            "/lxc.payload.container-1/init.scope".to_owned(),
        ),
        ("/lxc/my-web".to_owned(), "/lxc/container-1".to_owned()),
        (
            "/machine.slice/machine-my\\x2dweb.scope".to_owned(),
            "/machine.slice/machine-container\\x2d1.scope".to_owned(),
        ),
        (
            "/machine.slice/systemd-nspawn@my-web.service".to_owned(),
            "/machine.slice/systemd-nspawn@container\\x2d1.service".to_owned(),
        ),
        ("/".to_owned(), "/".to_owned()),
        ("/../..".to_owned(), "/../..".to_owned()),
    ];
    for (path, expected) in cases {
        assert_eq!(names.cgroup(&path), expected, "{path}");
    }
}

#[test]
fn cgroups_still_name_the_same_containers_pods_and_units() {
    let id = CONTAINER_ID;
    let inner: String = id.chars().rev().collect();
    let under = POD_UID.replace('-', "_");
    let hash = "0123456789abcdef0123456789abcdef";
    let paths = [
        format!("/docker/{id}"),
        format!("/system.slice/docker-{id}.scope"),
        format!(
            "/system.slice/docker-{id}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{under}.slice/cri-containerd-{inner}.scope"
        ),
        format!("/docker/{id}/kubelet/kubepods/burstable/pod{hash}/{inner}"),
        format!("/kubepods.slice/kubepods-pod{under}.slice:cri-containerd:{id}"),
        format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{id}.scope/container"),
        format!("/kubepods.slice/kubepods-pod{under}.slice/crio-conmon-{id}.scope"),
        format!(
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container"
        ),
        format!("/user.slice/user-1000.slice/user@1000.service/acme.slice/nerdctl-{id}.scope"),
        format!("/machine.slice/libpod-{id}.scope/libpod-payload-{id}"),
        format!("/acme/{id}"),
        format!("/default/{id}"),
        format!("/podruntime.slice/acme.slice/docker-{id}.scope/init.scope"),
        "/lxc.payload.acme-web/system.slice/acme.service".to_owned(),
        "/lxc/101/ns".to_owned(),
        "/lxc/acme-web".to_owned(),
        "/machine.slice/machine-acme\\x2dweb.scope/payload/system.slice/acme.service".to_owned(),
        "/machine.slice/systemd-nspawn@acme-web.service".to_owned(),
        "/system.slice/acme-billing.service".to_owned(),
        "/system.slice/system-acme.slice/acme@one.service".to_owned(),
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.acme.Editor-1234.scope"
            .to_owned(),
        "/system.slice/snap.acme.daemon.service".to_owned(),
        "/../../docker.service".to_owned(),
    ];
    let mut names = Pseudonyms::default();
    for path in paths {
        let redacted = names.cgroup(&path);
        assert!(!redacted.contains("acme") && !redacted.contains(id), "{path} {redacted}");
        let (before, after) = (CgroupPath(path), CgroupPath(redacted));
        let expected: Vec<_> = before
            .containers()
            .into_iter()
            .map(|mut reference| {
                reference.id = names.name(PseudonymKind::Container, &reference.id);
                if let Some(pod) = &mut reference.pod {
                    pod.uid = names.name(PseudonymKind::Pod, &pod.uid);
                }
                reference
            })
            .collect();
        assert_eq!(after.containers(), expected, "{before:?} {after:?}");
        let kind = |unit: Option<String>| unit.map(|u| u.rsplit('.').next().map(str::to_owned));
        assert_eq!(kind(after.unit()), kind(before.unit()), "{before:?} {after:?}");
    }
}

#[test]
fn messages_keep_the_tools_own_words() {
    let mut names = Pseudonyms::default();
    names.name(PseudonymKind::Host, "gandalf");
    for same in [
        "/proc/12/fd",
        "Docker API (/var/run/docker.sock)",
        "permission denied (os error 13)",
        "run as root, or give it CAP_SYS_PTRACE",
        "3 namespaces, 412 sockets in 12.5 ms",
        "sock_diag in net:[4026531833]: tcp/udp, IPv6",
        "record again with `whereis-port list --record FILE`",
        "/run/user/1000/docker.sock: timed out after 300ms",
        "/proc/{12,13, …}/fd",
        "generic netlink of netns 4026531833",
        "look with: nft list ruleset; iptables-save -t nat; ipvsadm -Ln",
        "fallback for netns 4026532611 (EPERM): v6only and bound device not told",
        "HTTP/1.1 404; needs Linux ≥ 5.14, listening on [::]:80 or ::1",
    ] {
        assert_eq!(names.message(same), same);
    }
    for (said, expected) in [
        ("no answer from gandalf.", "no answer from host-1."),
        ("connect to 10.0.0.5:2375: refused", "connect to 198.18.0.5:2375: refused"),
        ("route to 10.0.0.0/24", "route to 198.18.0.0/24"),
        ("of 10.0.0.5,10.0.0.6 (fd00::5%eth0)", "of 198.18.0.5,198.18.0.6 (name-1)"),
        ("from 10.0.0.5-10.0.0.9 by 10-0-0-5.pod", "from name-2 by name-3"),
        ("at http://10.0.0.5:2375/v1.41/x", "at http://198.18.0.5:2375/v1.41/path-1"),
        ("said \"my secret\" twice", "said \"[redacted]\" twice"),
        ("/home/bilbo/.docker/config.json", "/home/path-2/.docker/config.json"),
        ("unix:///srv/ring1/docker.sock", "unix:///srv/path-3/docker.sock"),
        ("user bob99 logged in", "user name-4 logged in"),
    ] {
        assert_eq!(names.message(said), expected);
    }
}

#[test]
fn programs_keep_their_names_only() {
    let mut names = Pseudonyms::default();
    let mut line = |text: &str| {
        let argv: Vec<_> = text.split('|').map(str::to_owned).collect();
        names.command_line(&argv).join("|")
    };
    assert_eq!(line("/opt/acme/nginx|-c|/etc/secret.conf"), "nginx|[redacted]|[redacted]");
    assert_eq!(line("nginx: master process /usr/sbin/nginx -c /secret"), "nginx:");
    assert_eq!(line("postgres: alice secretdb 10.0.0.1(5555) idle"), "postgres:");
    assert_eq!(line("alice@host"), "[redacted]");
    assert_eq!(
        line("ssh|-i|/home/alice/key|-L|8080:db:5432|alice@bastion|secret"),
        "ssh|-L|8080:host-1:5432|name-1@host-2"
    );
    assert_eq!(line("ssh|-L|8080:db:5432|alice@db"), "ssh|-L|8080:host-1:5432|name-1@host-1");
    assert_eq!(names.command_line(&[]), [""; 0]);
    assert_eq!(names.program_path("/home/alice/bin/x (deleted)"), "/home/name-1/bin/x (deleted)");
}
