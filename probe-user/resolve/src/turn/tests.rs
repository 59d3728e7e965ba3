use std::collections::BTreeMap;

use super::*;
use whereis_port_model::{
    AdvicePart, CgroupPath, Cluster, Listens, PodRef, Port, Proto, SocketUnit, StartTime, Teller,
    ToldBy,
};

fn process(cgroup: &str) -> Process {
    Process {
        monitored: None,
        pid: 812,
        start: StartTime(1),
        started_at: None,
        comm: "x".to_owned(),
        cmdline: Vec::new(),
        exe: None,
        cwd: None,
        uid: 0,
        own_word: false,
        fs: None,
        user: Some("me".to_owned()),
        nspid: vec![812],
        netns: None,
        cgroup: Some(CgroupPath(cgroup.to_owned())),
        ancestors: Vec::new(),
        health: whereis_port_model::ProcessHealth::default(),
    }
}

fn container(runtime: Runtime, labels: &[(&str, &str)]) -> Container {
    Container {
        state: None,
        runtime,
        id: "0123456789abcdef".repeat(4),
        name: Some("web".to_owned()),
        image: None,
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        networks: Vec::new(),
        ports: Vec::new(),
        network_mode: None,
        pid: None,
        parents: Vec::new(),
        pod: None,
        sandbox: false,
        sort: None,
        via: ToldBy { teller: Teller::DockerApi, place: String::new() },
    }
}

fn end(cgroup: &str) -> End {
    End { processes: vec![process(cgroup)], ..End::default() }
}

/// The proposal, with each argument in quotation marks of its own.
fn told(end: &End) -> String {
    let advice = stop(end).unwrap();
    let piece = |piece: &AdvicePart| match piece {
        AdvicePart::Words(text) | AdvicePart::Name(text) => text.clone(),
        AdvicePart::Command(command) => command.words().join("|"),
        AdvicePart::Or => AdvicePart::OR.to_owned(),
    };
    advice.pieces().iter().map(piece).collect()
}

fn ssh() -> SocketUnit {
    SocketUnit {
        name: "ssh.socket".to_owned(),
        file: "/usr/lib/systemd/system/ssh.socket".to_owned(),
        service: "ssh.service".to_owned(),
        listens: vec![Listens::Port(Proto::Tcp, None, Port(22))],
    }
}

#[test]
fn a_unit_is_stopped_by_its_manager() {
    for (cgroup, expected) in [
        ("/system.slice/nginx.service", "systemctl|stop|nginx.service"),
        ("/system.slice/system-getty.slice/a.service/sub", "systemctl|stop|a.service"),
        // What a service makes below itself is no unit of the system's.
        ("/system.slice/a.service/sshd.service", "systemctl|stop|a.service"),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/dev.service",
            "systemctl|--user|stop|dev.service (as user me)",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/a.service/sshd.service",
            "systemctl|--user|stop|a.service (as user me)",
        ),
        // Of a login not all is to be ended, and of what is no unit only the process.
        ("/user.slice/user-1000.slice/session-3.scope", "kill|812"),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", "kill|812"),
        ("/lab/sshd.service", "kill|812"),
        ("/", "kill|812"),
    ] {
        assert_eq!(told(&end(cgroup)), format!("end it: {expected}"), "{cgroup}");
    }
}

#[test]
fn what_a_socket_starts_is_stopped_with_it() {
    let mut started = end("/system.slice/ssh.service");
    started.socket_units.push(ssh());
    assert_eq!(told(&started), "end it: systemctl|stop|ssh.socket|ssh.service");
    let mut waiting = end("/init.scope");
    waiting.processes[0].pid = 1;
    waiting.processes[0].comm = "systemd".to_owned();
    waiting.socket_units.push(ssh());
    assert_eq!(told(&waiting), "end it: systemctl|stop|ssh.socket|ssh.service");
    waiting.socket_units[0].service = "ssh@.service".to_owned();
    assert_eq!(told(&waiting), "end it: systemctl|stop|ssh.socket");
}

#[test]
fn a_container_is_stopped_by_what_made_it() {
    let compose = [("com.docker.compose.project", "shop"), ("com.docker.compose.service", "web")];
    let swarm = [("com.docker.swarm.service.name", "shop_web")];
    let quadlet = [("PODMAN_SYSTEMD_UNIT", "web.service")];
    let odd = [("com.docker.compose.project", "shop"), ("com.docker.compose.service", "-x")];
    let id = "0123456789abcdef".repeat(4);
    for (runtime, labels, expected) in [
        (Runtime::Docker, &[][..], "docker|stop|web".to_owned()),
        (Runtime::Docker, &compose[..], "docker|compose|-p|shop|stop|web".to_owned()),
        (Runtime::Docker, &odd[..], "docker|compose|-p|shop|stop|--|-x".to_owned()),
        (Runtime::Docker, &swarm[..], "docker|service|scale|shop_web=0".to_owned()),
        (Runtime::Podman, &quadlet[..], "systemctl|stop|web.service".to_owned()),
        (Runtime::Podman, &[][..], "podman|stop|web".to_owned()),
        // crictl knows those of pods alone.
        (Runtime::Containerd, &[][..], "kill|812".to_owned()),
        (Runtime::Unknown, &[][..], "kill|812".to_owned()),
    ] {
        let mut end = end("/system.slice/docker.service");
        end.containers.push(container(runtime, labels));
        assert_eq!(told(&end), format!("end it: {expected}"));
    }
    let mut end_of_pod = end("/system.slice/docker.service");
    let mut in_pod = container(Runtime::Containerd, &[]);
    in_pod.pod = Some(Pod::from(&PodRef { uid: "1".to_owned() }));
    end_of_pod.containers.push(in_pod);
    assert_eq!(told(&end_of_pod), format!("end it: crictl|stop|{id}"));
    let go_on = |runtime| {
        let advice = go_on(&[container(runtime, &[])], &end("/x.slice/web.service").processes[0]);
        advice.map(|advice| {
            advice.commands().map(|command| command.words().join(" ")).collect::<String>()
        })
    };
    assert_eq!(go_on(Runtime::Podman).as_deref(), Some("podman unpause web"));
    assert_eq!(go_on(Runtime::Lxc).as_deref(), Some("lxc-unfreeze -n web"));
    assert_eq!(go_on(Runtime::CriO), None);
    // What is inside of a container is none of this system's services.
    let mut nested = end("/system.slice/docker.service");
    nested.containers = vec![container(Runtime::Docker, &[]), container(Runtime::Docker, &[])];
    assert_eq!(told(&nested), "end it: kill|812");
}

#[test]
fn a_pod_is_stopped_by_what_made_it() {
    let of = |owner: Option<&str>, hash: Option<&str>, kind: Option<&str>| {
        let mut end = end("/kubepods/x");
        let labels: BTreeMap<String, String> = hash
            .map(|hash| ("pod-template-hash".to_owned(), hash.to_owned()))
            .into_iter()
            .collect();
        end.pod = Some(Pod {
            namespace: Some("default".to_owned()),
            name: Some("web-1".to_owned()),
            owner: owner.map(str::to_owned),
            labels,
            ..Pod::default()
        });
        end.cluster = kind.map(|name| Cluster {
            name: name.to_owned(),
            distribution: "kind".to_owned(),
            role: None,
            node: None,
            source: String::new(),
        });
        told(&end)
    };
    let scale = "end it: kubectl|-n|default|scale|";
    let set = Some("ReplicaSet/web-6d4cf56db6");
    assert_eq!(of(set, Some("6d4cf56db6"), None), format!("{scale}deployment/web|--replicas=0"));
    assert_eq!(of(set, None, None), format!("{scale}replicaset/web-6d4cf56db6|--replicas=0"));
    assert_eq!(
        of(Some("StatefulSet/db"), None, Some("one")),
        "end it: kubectl|--context|kind-one|-n|default|scale|statefulset/db|--replicas=0"
    );
    assert_eq!(
        of(Some("DaemonSet/agent"), None, None),
        "end it: kubectl|-n|default|delete|pod|web-1, which DaemonSet/agent makes anew"
    );
    assert_eq!(of(None, None, None), "end it: kubectl|-n|default|delete|pod|web-1");
}
