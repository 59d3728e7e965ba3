use super::*;
use crate::{Listeners as _, Processes as _, Runtimes as _, Sockets as _, Topology as _};
use whereis_port_model::forward::{ForwardTarget, parse as parse_forward};
use whereis_port_model::{Certificate, CertificateName, TlsAsk};

fn redacted() -> Recording {
    let mut recording = recording();
    redact(&mut recording);
    recording
}

/// The kinds of all values, with the numbers, booleans and nulls themselves: what
/// must not change.
fn shape(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::String(_) => Value::String("text".to_owned()),
        Value::Array(list) => list.iter().map(shape).collect(),
        // Labels are the only map whose keys may change.
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match key.as_str() {
                "labels" => (key.clone(), value.as_object().map(serde_json::Map::len).into()),
                "cmdline" | "redacted" => (key.clone(), Value::Null),
                _ => (key.clone(), shape(value)),
            })
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn certificates_lose_what_is_somebodys() {
    let mut recording = recording();
    let named = |full: &str, common: &str| CertificateName {
        full: full.to_owned(),
        common: Some(common.to_owned()),
    };
    let certificate = Certificate {
        subject: named("O=zq7, CN=zq7.example.org", "zq7.example.org"),
        issuer: named("CN=kubernetes", "kubernetes"),
        dns_names: vec!["kubernetes.default".to_owned(), "zq7.example.org".to_owned()],
        addresses: vec!["203.0.113.9".parse().unwrap()],
        sha256: "ab".repeat(32),
        ..Certificate::default()
    };
    let socket = &recording.facts.sockets[0].read.value[0];
    let asked = TlsAsk { netns: socket.netns, address: socket.address, port: socket.port };
    recording.facts.certificates =
        vec![RecordedFact { asked, read: Read::whole(Some(certificate.clone())) }].into();
    redact(&mut recording);
    let text = serde_json::to_string(&recording.facts.certificates).unwrap();
    for secret in ["zq7", "203.0.113.", &certificate.sha256] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    // The listener is still found, and the same name is still the same.
    let socket = recording.facts.sockets[0].read.value[0].clone();
    let asked = TlsAsk { netns: socket.netns, address: socket.address, port: socket.port };
    let shown = Recorded::new(recording).certificates(&[asked]).remove(0).value.unwrap();
    assert_eq!(shown.dns_names[0], "kubernetes.default");
    assert_eq!(shown.subject.common.as_ref(), shown.dns_names.last());
    assert_eq!(shown.issuer, certificate.issuer);
}

#[test]
fn no_secret_is_left() {
    let text = serde_json::to_string_pretty(&redacted()).unwrap();
    let uid = POD_UID.replace('-', "_");
    for secret in
        ["zq7", "172.18.", "203.0.113.", "dead:beef", &CONTAINER_ID[..12], &POD_UID[..8], &uid]
    {
        let lines: Vec<_> = text.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{secret}: {lines:#?}");
    }
    // The fixture has a secret in every kind of text that can hold one.
    let before = serde_json::to_value(recording()).unwrap();
    let after = serde_json::to_value(redacted()).unwrap();
    let mut same = Vec::new();
    unchanged("", &before, &after, &mut same);
    same.sort();
    same.dedup();
    assert_eq!(
        same,
        [
            "address",
            "at",
            "capabilities",
            "cgroup",
            "cmdline",
            "comm",
            "destination",
            "format",
            "impact",
            "io.x-k8s.kind.role",
            "kernel",
            "kind",
            "name",
            "proto",
            "runtime",
            "state",
            "teller",
            "tool_version"
        ]
    );
}

/// The keys of the texts that redaction left as they are.
fn unchanged(
    key: &str,
    before: &serde_json::Value,
    after: &serde_json::Value,
    same: &mut Vec<String>,
) {
    use serde_json::Value;
    match (before, after) {
        (Value::String(a), Value::String(b)) if a == b => same.push(key.to_owned()),
        (Value::Array(a), Value::Array(b)) => {
            a.iter().zip(b).for_each(|(a, b)| unchanged(key, a, b, same));
        }
        (Value::Object(a), Value::Object(b)) => a.iter().for_each(|(key, a)| {
            if let Some(b) = b.get(key) {
                unchanged(key, a, b, same);
            }
        }),
        _ => {}
    }
}

#[test]
fn answers_keep_their_shape() {
    let before = serde_json::to_value(recording()).unwrap();
    let after = serde_json::to_value(redacted()).unwrap();
    assert_eq!(shape(&after), shape(&before));
}

#[test]
fn what_was_the_same_still_is() {
    let node = Recorded::new(redacted());
    let container = node.containers().value.remove(0);
    let sockets = node.sockets(&[HOST, NODE], &SocketFilter::ALL).value;
    let processes = node.processes(&[10, 20, 21, 30]).value;
    let forward = |at: usize, address: IpAddr, port: u16| {
        parse_forward(&processes[at].cmdline, Proto::Tcp, address, Port(port)).unwrap().target
    };

    // The published port, its docker-proxy, and the container that it leads to.
    assert_eq!(container.ports[0].host_ip, Some(sockets[0].address));
    let address = container.networks[0].addresses[0];
    let expected = ForwardTarget::Address(address, Port(6443), Proto::Tcp);
    assert_eq!(forward(0, sockets[0].address, 20971), expected);
    assert_eq!(node.addresses(&[NODE]).value[0].address, address);

    // The container's id, in its cgroup, its namespace and among its peers.
    let CgroupPath(cgroup) = processes[3].cgroup.clone().unwrap();
    assert!(
        cgroup.starts_with(&format!("/system.slice/docker-{}.scope/", container.id)),
        "{cgroup}"
    );
    let uid = container.pod.as_ref().and_then(|p| p.uid.clone()).unwrap();
    assert!(cgroup.contains(&format!("/kubelet/pod{uid}/")), "{cgroup}");
    assert_eq!(container.network_mode, Some(format!("container:{}", container.id)));
    let netns = node.netns().value;
    assert_eq!(netns[1].paths[1], format!("/run/docker/netns/{}", &container.id[..12]));
    assert_eq!(container.parents[0].id, container.id);
    let chain = container.parents.clone();
    assert_eq!(node.container(&chain, 30).value.as_ref(), Some(&container));

    // The namespace that pasta forwards into.
    let name = netns[1].name.clone().unwrap();
    assert_eq!(netns[1].paths[0], format!("/run/netns/{name}"));
    let expected = ForwardTarget::InNetns(netns[1].paths[0].clone(), None, Port(80), Proto::Tcp);
    assert_eq!(forward(2, sockets[0].address, 8080), expected);

    // The cluster, and the names that come up again.
    let cluster = container.cluster().unwrap();
    assert_eq!(
        (cluster.distribution.as_str(), cluster.role.as_deref()),
        ("kind", Some("control-plane"))
    );
    assert_eq!(container.labels["com.docker.compose.project"], container.name.unwrap());
    let ForwardTarget::Kubernetes { object, namespace, context, port } =
        forward(1, ip("127.0.0.1"), 12000)
    else {
        panic!("kubectl is not recognised any more")
    };
    assert!(object.starts_with("svc/name-") && port.starts_with("name-"), "{object} {port}");
    assert_eq!(namespace, container.pod.and_then(|p| p.namespace));
    assert_eq!(context, Some(cluster.name));
    let CgroupPath(lxc) = processes[2].cgroup.clone().unwrap();
    let CgroupPath(other) = node.cgroup_path(904).value.unwrap();
    let lxc_name = other.split('/').nth(1).unwrap();
    assert!(lxc.starts_with(&format!("/lxc.payload.{lxc_name}/")), "{lxc} {other}");
}

#[test]
fn program_names_root_and_the_host_stay_telling() {
    let mut recording = recording();
    let process = &mut recording.facts.processes[0].read.value[0];
    process.user = Some("root".to_owned());
    redact(&mut recording);
    assert!(recording.redacted);
    assert_eq!(recording.facts.host.value.hostname, "host-1");
    let processes = &recording.facts.processes[0].read.value;
    assert_eq!(processes[0].user.as_deref(), Some("root"));
    assert_eq!(processes[1].user.as_deref(), Some("user-1"));
    assert_eq!(processes[3].cmdline, ["kube-apiserver", "[redacted]", "[redacted]"]);
    assert_eq!(processes[0].exe.as_deref(), Some("/home/user-1/bin/program (deleted)"));
    let once = recording.clone();
    redact(&mut recording);
    assert_eq!(recording, once, "a second time changes nothing");
}
