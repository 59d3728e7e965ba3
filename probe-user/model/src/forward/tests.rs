use super::*;

/// A target in short.
fn show(forward: Option<&Forward>) -> String {
    let Some(forward) = forward else { return "no".to_owned() };
    let host_port = |ip: &IpAddr, port| match ip {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    };
    match &forward.target {
        ForwardTarget::Address(ip, port, proto) => format!("{}/{proto}", host_port(ip, *port)),
        ForwardTarget::InNetns(path, Some(ip), port, proto) => {
            format!("{path} {}/{proto}", host_port(ip, *port))
        }
        ForwardTarget::InNetns(path, None, port, proto) => format!("{path} *:{port}/{proto}"),
        ForwardTarget::Host(host, port, proto) => format!("name {host}:{port}/{proto}"),
        ForwardTarget::Kubernetes { object, namespace, context, port } => format!(
            "{object} {port} in {} of {}",
            namespace.as_deref().unwrap_or("-"),
            context.as_deref().unwrap_or("-")
        ),
        ForwardTarget::KubernetesApi { context } => {
            format!("api of {}", context.as_deref().unwrap_or("-"))
        }
        ForwardTarget::Unix(path) => format!("unix {path}"),
        ForwardTarget::Remote { via, host, port } => format!("{host}:{port} via {via}"),
        ForwardTarget::Machine(port, proto, _) => {
            let port = port.map_or_else(|| "?".to_owned(), |port| port.to_string());
            format!("machine {port}/{proto}")
        }
        ForwardTarget::Unsaid(_) => "unsaid".to_owned(),
    }
}

/// Words between blanks, `~` standing for a blank inside a word when doubled.
fn argv(line: &str) -> Vec<String> {
    line.split(' ').map(|word| word.replace("~~", " ")).collect()
}

/// Checks where each listener (`tcp 127.0.0.1:80`) of a command line leads, and
/// that its telling words alone say the same.
#[track_caller]
fn check(line: &str, listeners: &[(&str, &str)]) {
    let argv = argv(line);
    let telling: Option<Vec<String>> =
        telling_words(&argv).map(|words| words.iter().map(Word::to_string).collect());
    for (listener, expected) in listeners {
        let (proto, address) = listener.split_once(' ').unwrap();
        let proto = Proto::ALL.into_iter().find(|p| p.as_str() == proto).unwrap();
        let address: std::net::SocketAddr = address.parse().unwrap();
        let ask = |argv: &[String]| parse(argv, proto, address.ip(), Port(address.port()));
        let found = ask(&argv);
        assert_eq!(show(found.as_ref()), *expected, "{line}: {listener}");
        let again = telling.as_deref().and_then(ask);
        assert_eq!(show(again.as_ref()), *expected, "{telling:?}: {listener}");
        let rest = |forward: Option<Forward>| forward.map(|f| (f.kind, f.screens));
        assert_eq!(rest(again), rest(found), "{telling:?}");
    }
}

#[test]
fn docker_proxy() {
    let old = "/usr/sbin/docker-proxy -proto tcp -host-ip 127.0.0.1 -host-port 20971 -container-ip 172.18.0.4 -container-port 6443";
    check(
        old,
        &[
            ("tcp 127.0.0.1:20971", "172.18.0.4:6443/tcp"),
            ("udp 127.0.0.1:20971", "no"),
            ("tcp 127.0.0.2:20971", "no"),
            ("tcp 127.0.0.1:6443", "no"),
        ],
    );
    let new = "/usr/bin/docker-proxy -proto udp -host-ip :: -host-port 53 -container-ip fd00::2 -container-port 5353 -use-listen-fd";
    check(new, &[("udp [::]:53", "[fd00::2]:5353/udp"), ("udp 0.0.0.0:53", "[fd00::2]:5353/udp")]);
    check(
        "nsenter -n/run/user/1000/docker/netns -F -- docker-proxy -proto=tcp --host-ip=0.0.0.0 -host-port=80 -container-ip=172.17.0.2 -container-port=8080",
        &[("tcp 0.0.0.0:80", "172.17.0.2:8080/tcp")],
    );
    check(
        "rootlesskit-docker-proxy -container-ip 172.17.0.2 -container-port 80 -host-port 8080",
        &[("tcp 0.0.0.0:8080", "172.17.0.2:80/tcp")],
    );
    check(
        "vpnkit-expose-port -i -local-bind -control /run/c.sock -proto tcp -host-ip 0.0.0.0 -host-port 80 -container-ip 172.17.0.2 -container-port 8080",
        &[("tcp 0.0.0.0:80", "172.17.0.2:8080/tcp")],
    );
}

#[test]
fn damaged_docker_proxy_is_no_forwarder() {
    let any = "tcp 0.0.0.0:80";
    for line in [
        "docker-proxy",
        "docker-proxy -host-port",
        "docker-proxy -host-port 80 -container-ip 172.17.0.2",
        "docker-proxy -host-port 80 -container-port 80",
        "docker-proxy -host-port 99999 -container-ip 172.17.0.2 -container-port 80",
        "docker-proxy -host-port +80 -container-ip 172.17.0.2 -container-port 80",
        "docker-proxy -host-port 80 -container-ip web -container-port 80",
        "docker-proxy -proto sctp -host-port 80 -container-ip 172.17.0.2 -container-port 80",
        "nsenter -n/x docker-proxy -host-port 80 -container-ip 172.17.0.2 -container-port 80",
        "nsenter --",
        "nsenter -- nsenter -- docker-proxy -host-port 80 -container-ip 1.2.3.4 -container-port 80",
        "/opt/docker-proxy/bin/web -host-port 80 -container-ip 172.17.0.2 -container-port 80",
        "my-docker-proxy -host-port 80 -container-ip 172.17.0.2 -container-port 80",
    ] {
        check(line, &[(any, "no")]);
    }
    assert_eq!(parse(&[], Proto::Tcp, [0, 0, 0, 0].into(), Port(80)), None);
}

#[test]
fn rootless_engines_do_not_say() {
    for line in [
        "rootlesskit --state-dir=/run/user/1000/dockerd-rootless --net=slirp4netns --port-driver=builtin dockerd-rootless.sh",
        "/usr/libexec/podman/rootlessport",
        "rootlessport-child",
        "slirp4netns --mtu 65520 -c -e 3 -r 4 --netns-type=path /run/user/1000/netns/netns-1 tap0",
    ] {
        check(line, &[("tcp 0.0.0.0:8080", "unsaid"), ("udp 127.0.0.1:53", "unsaid")]);
    }
    check("rootlessportly", &[("tcp 0.0.0.0:8080", "no")]);
}

#[test]
fn virtual_machines() {
    for line in [
        "/usr/libexec/podman/gvproxy -listen vsock://:1024 -services unix:///tmp/s.sock",
        "/opt/homebrew/bin/limactl hostagent --pidfile /l/ha.pid --socket /l/ha.sock default",
    ] {
        check(line, &[("tcp 0.0.0.0:8080", "machine ?/tcp")]);
    }
    for line in ["/opt/gvproxy/web", "limactl shell default", "qemu-system-arm -m 4G"] {
        check(line, &[("tcp 0.0.0.0:8080", "no")]);
    }
    check(
        "/usr/bin/qemu-system-x86_64 -m 4G -netdev user,id=n0,net=10.0.2.0/24,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp::53-10.0.2.15:5353 -nic user,hostfwd=::8080-:80 -drive file=x",
        &[
            ("tcp 127.0.0.1:2222", "machine 22/tcp"),
            ("tcp 0.0.0.0:2222", "no"),
            ("udp 0.0.0.0:53", "machine 5353/udp"),
            ("tcp 0.0.0.0:8080", "machine 80/tcp"),
            // Its display, or its monitor.
            ("tcp 127.0.0.1:5900", "no"),
        ],
    );
}

#[test]
fn pasta() {
    let ns = "/run/user/1000/netns/netns-7";
    check(
        &format!(
            "/usr/bin/pasta --config-net -t 8080-8082:80-82 -t 192.0.2.1/22 -u 127.0.0.1%lo/53:5353 -T none -U none --dns-forward 169.254.1.1 --no-map-gw --quiet --netns {ns}"
        ),
        &[
            ("tcp 0.0.0.0:8080", &format!("{ns} *:80/tcp")),
            ("tcp 0.0.0.0:8082", &format!("{ns} *:82/tcp")),
            ("tcp 0.0.0.0:8083", "no"),
            ("tcp 192.0.2.1:22", &format!("{ns} *:22/tcp")),
            ("tcp 192.0.2.2:22", "no"),
            ("udp 127.0.0.1:53", &format!("{ns} *:5353/udp")),
            ("udp 0.0.0.0:8080", "no"),
        ],
    );
    check(
        "pasta -t 127.0.0.1/8080:80,443 -u none --netns=web",
        &[
            ("tcp 127.0.0.1:8080", "/run/netns/web *:80/tcp"),
            ("tcp 127.0.0.1:443", "/run/netns/web *:443/tcp"),
            ("tcp 0.0.0.0:443", "no"),
            ("udp 0.0.0.0:443", "no"),
        ],
    );
    check("pasta -t none -u none --netns web", &[("tcp 0.0.0.0:80", "no")]);
    check(
        "pasta.avx2 -f 4711",
        &[
            ("tcp 0.0.0.0:80", "/proc/4711/ns/net *:80/tcp"),
            ("udp 0.0.0.0:53", "/proc/4711/ns/net *:53/udp"),
        ],
    );
    check(
        "pasta -t 2000-5000,~3000-3010 -t ~1-9 -u auto bash -t 1",
        &[("tcp 0.0.0.0:2500", "unsaid"), ("tcp 0.0.0.0:9", "no"), ("udp 0.0.0.0:9", "unsaid")],
    );
    check(
        "pasta -t 2000-5000,~3000-3010 --netns n",
        &[("tcp 0.0.0.0:3005", "no"), ("tcp 0.0.0.0:3011", "/run/netns/n *:3011/tcp")],
    );
    check("pasta -t 80:70000 --netns n", &[("tcp 0.0.0.0:80", "no")]);
    check("pasta --netns", &[("tcp 0.0.0.0:80", "unsaid")]);
    check("passt -t 2222:22", &[("tcp 0.0.0.0:2222", "unsaid"), ("tcp 0.0.0.0:22", "no")]);
    check("passt", &[("tcp 0.0.0.0:22", "no")]);
}

#[test]
fn kubectl() {
    // As `cilium hubble ui` starts it.
    check(
        "kubectl port-forward -n kube-system svc/hubble-ui --address 127.0.0.1 12000:80",
        &[
            ("tcp 127.0.0.1:12000", "svc/hubble-ui 80 in kube-system of -"),
            ("tcp 127.0.0.1:80", "no"),
            ("tcp 0.0.0.0:12000", "no"),
            ("udp 127.0.0.1:12000", "no"),
        ],
    );
    check(
        "kubectl port-forward -n kube-system svc/hubble-relay --address 0.0.0.0 --address :: 4245:80",
        &[
            ("tcp 0.0.0.0:4245", "svc/hubble-relay 80 in kube-system of -"),
            ("tcp [::]:4245", "svc/hubble-relay 80 in kube-system of -"),
        ],
    );
    check(
        "/usr/local/bin/kubectl --context=kind-cluster1 --kubeconfig /home/u/.kube/config -v6 --namespace=web port-forward my-pod 8080 9090:http",
        &[
            ("tcp 127.0.0.1:8080", "pod/my-pod 8080 in web of kind-cluster1"),
            ("tcp [::1]:9090", "pod/my-pod http in web of kind-cluster1"),
            ("tcp 0.0.0.0:8080", "no"),
        ],
    );
    check(
        "kubectl port-forward deploy/web :80 -nweb",
        &[("tcp 127.0.0.1:40001", "deploy/web 80 in web of -")],
    );
    check(
        "kubectl port-forward deploy/web :80 0:443 8080:81",
        &[("tcp 127.0.0.1:8080", "deploy/web 81 in - of -"), ("tcp 127.0.0.1:40001", "unsaid")],
    );
    check(
        "k3s kubectl port-forward --address localhost,10.0.0.5 pod/a 8080:80",
        &[("tcp 10.0.0.5:8080", "pod/a 80 in - of -"), ("tcp [::1]:8080", "pod/a 80 in - of -")],
    );
    check(
        "oc port-forward widget.example.com/a 8080:80",
        &[("tcp [::1]:8080", "widget.example.com/a 80 in - of -")],
    );
    check(
        "kubectl --context kind-a proxy --port=8002",
        &[("tcp 127.0.0.1:8002", "api of kind-a"), ("tcp 127.0.0.1:8001", "no")],
    );
    check("kubectl proxy -p 0 --address 0.0.0.0", &[("tcp 0.0.0.0:41234", "api of -")]);
    check("kubectl proxy", &[("tcp 127.0.0.1:8001", "api of -"), ("tcp [::1]:8001", "no")]);
    for line in [
        "kubectl",
        "kubectl get pods",
        "kubectl proxy --port=8001",
        "kubectl proxy --unix-socket /run/k.sock",
        "kubectl port-forward",
        "kubectl port-forward svc/x",
        "kubectl port-forward svc/ 80:80",
        "kubectl port-forward svc/x 80:",
        "kubectl port-forward svc/x 99999:80",
        "kubectl port-forward svc/x 80:80 -n",
        "kubectl exec web -- kubectl port-forward svc/x 80:80",
        "k3s server",
        "kubectl-plugin port-forward svc/x 80:80",
    ] {
        check(line, &[("tcp 127.0.0.1:80", "no")]);
    }
    check("cilium hubble port-forward", &[("tcp 127.0.0.1:4245", "unsaid")]);
    check("cilium hubble status", &[("tcp 127.0.0.1:4245", "no")]);
}

#[test]
fn ssh() {
    check(
        "ssh -fNL 8080:db.internal:5432 alice@bastion",
        &[
            ("tcp 127.0.0.1:8080", "db.internal:5432 via alice@bastion"),
            ("tcp 127.0.0.1:5432", "no"),
        ],
    );
    check(
        "/usr/bin/ssh -i /k -p 2222 -L8080:localhost:80 -L [::1]:8081:[fd00::1]:81 -L *:8082:web:82 bastion -L 127.0.0.1:8083:web:83 sleep -L 9:w:9",
        &[
            ("tcp 127.0.0.1:8080", "localhost:80 via bastion"),
            ("tcp [::1]:8081", "fd00::1:81 via bastion"),
            ("tcp 127.0.0.1:8081", "no"),
            ("tcp 0.0.0.0:8082", "web:82 via bastion"),
            ("tcp 127.0.0.1:8083", "web:83 via bastion"),
            ("tcp 127.0.0.1:9", "no"),
            ("udp 127.0.0.1:8080", "no"),
        ],
    );
    check(
        "ssh -o LocalForward=8080~~web:80 -oLocalForward~~127.0.0.1:8081~~web:81 -o User=root -N -- bastion",
        &[("tcp [::1]:8080", "web:80 via bastion"), ("tcp 127.0.0.1:8081", "web:81 via bastion")],
    );
    check(
        "ssh -L 8080:/run/web.sock -L /tmp/s:web:80 -D 1080 -D [::1]:1081 ssh://a@b:22",
        &[
            ("tcp 127.0.0.1:8080", "unsaid"),
            ("tcp 127.0.0.1:1080", "unsaid"),
            ("tcp [::1]:1081", "unsaid"),
            ("tcp 127.0.0.1:80", "no"),
        ],
    );
    check("ssh bastion", &[("tcp 127.0.0.1:8080", "unsaid")]);
    check("ssh:~~/root/.ssh/cm-a@b:22~~[mux]", &[("tcp 127.0.0.1:8080", "unsaid")]);
    for line in [
        "ssh",
        "ssh -L",
        "ssh -L 8080:web:80",
        "ssh -L 8080:web b",
        "ssh -L :: b",
        "ssh -L 80:[:80 b",
        "sshd: alice",
    ] {
        check(line, &[("tcp 127.0.0.1:8080", "no")]);
    }
}

#[test]
fn of_whom_socat_takes_connections() {
    let screens = |options: &str| {
        let line = argv(&format!("socat TCP-LISTEN:1,fork,{options} TCP:h:1"));
        let told = parse(&line, Proto::Tcp, [0, 0, 0, 0].into(), Port(1)).unwrap().screens;
        let telling = telling_words(&line).unwrap();
        let again: Vec<String> = telling.iter().map(Word::to_string).collect();
        let again = parse(&again, Proto::Tcp, [0, 0, 0, 0].into(), Port(1)).unwrap().screens;
        assert_eq!(told, again, "{telling:?}");
        told
    };
    let net = |a: &str, prefix| ClientFilter::Network(a.parse().unwrap(), prefix);
    assert_eq!(screens("range=192.0.2.0/24"), [net("192.0.2.0", 24)]);
    assert_eq!(screens("RANGE=192.0.2.0:255.255.255.0"), [net("192.0.2.0", 24)]);
    assert_eq!(screens("range=0.0.0.0:0.0.0.0"), [net("0.0.0.0", 0)]);
    assert_eq!(screens("range=[2001:db8::]/64"), [net("2001:db8::", 64)]);
    assert_eq!(screens("range=192.0.2.0:255.0.255.0"), [ClientFilter::Other("range")]);
    assert_eq!(screens("range=example.org/24"), [ClientFilter::Other("range")]);
    assert_eq!(
        screens("lowport,tcpwrap"),
        [ClientFilter::Other("lowport"), ClientFilter::Other("tcpwrap")]
    );
    assert_eq!(screens("reuseaddr,lowport=0"), []);
}

#[test]
fn socat() {
    check(
        "socat -d -d -T 30 TCP-LISTEN:8080,fork,reuseaddr TCP:10.0.0.1:80",
        &[
            ("tcp 0.0.0.0:8080", "10.0.0.1:80/tcp"),
            ("udp 0.0.0.0:8080", "no"),
            ("tcp 0.0.0.0:80", "no"),
        ],
    );
    check(
        "socat TCP6:[fd00::1]:80,nodelay tcp4-l:8080,bind=127.0.0.1,fork",
        &[("tcp 127.0.0.1:8080", "[fd00::1]:80/tcp"), ("tcp 0.0.0.0:8080", "no")],
    );
    check(
        "socat UDP6-RECVFROM:53,fork,bind=[::1] UDP:localhost:5353",
        &[("udp [::1]:53", "127.0.0.1:5353/udp"), ("udp [::]:53", "no")],
    );
    check("socat -lf /l UDP-LISTEN:53 TCP6:localhost:domain", &[("udp [::]:53", "[::1]:53/tcp")]);
    check(
        "socat TCP-LISTEN:1,fork UNIX-CONNECT:/run/a.sock",
        &[("tcp 0.0.0.0:1", "unix /run/a.sock")],
    );
    check("socat TCP-LISTEN:1,fork ABSTRACT-CONNECT:a", &[("tcp 0.0.0.0:1", "unix @a")]);
    check(
        "socat TCP-LISTEN:1,fork TCP4:web.internal:80",
        &[("tcp 0.0.0.0:1", "name web.internal:80/tcp")],
    );
    for to in [
        "EXEC:/bin/cat",
        "SYSTEM:date",
        "-",
        "SOCKS4A:p:h:80",
        "VSOCK-CONNECT:3:22",
        "TCP:h",
        "TCP:h:nope",
        "/tmp/file",
    ] {
        check(&format!("socat TCP-LISTEN:1,fork {to}"), &[("tcp 0.0.0.0:1", "unsaid")]);
    }
    for line in [
        "socat",
        "socat TCP-LISTEN:1",
        "socat TCP-LISTEN:nope TCP:h:1",
        "socat - TCP:h:1",
        "socat TCP-LISTEN:1 - -",
        "socat -T",
    ] {
        check(line, &[("tcp 0.0.0.0:1", "no")]);
    }
}

#[test]
fn systemd_socket_proxyd() {
    let any = "tcp 0.0.0.0:8080";
    let program = "/usr/lib/systemd/systemd-socket-proxyd";
    check(&format!("{program} --exit-idle-time=10s 10.0.0.1:80"), &[(any, "10.0.0.1:80/tcp")]);
    check(&format!("{program} -c 10 localhost:http"), &[(any, "127.0.0.1:80/tcp")]);
    check(&format!("{program} web"), &[(any, "name web:80/tcp")]);
    check(&format!("{program} web:nobody-knows"), &[(any, "unsaid")]);
    check(
        &format!("{program} [fd00::1]:80"),
        &[(any, "[fd00::1]:80/tcp"), ("udp 0.0.0.0:8080", "no")],
    );
    check(&format!("{program} /run/web.sock"), &[(any, "unix /run/web.sock")]);
    check(&format!("{program} @web"), &[(any, "unix @web")]);
    check(program, &[(any, "no")]);
    check(&format!("{program} a/b:80"), &[(any, "no")]);
}

#[test]
fn forkproxy() {
    check(
        "/usr/libexec/incus/incusd forkproxy -- 1 3 tcp:0.0.0.0:80 4711 4 tcp:127.0.0.1:8080 /log /pid 0 0 0644 0 0",
        &[("tcp 0.0.0.0:80", "/proc/4711/ns/net 127.0.0.1:8080/tcp"), ("tcp 127.0.0.1:80", "no")],
    );
    check(
        "lxd forkproxy 1 udp:[::]:53-55,60 4711 udp:[::1]:1053-1055,1060 /log /pid",
        &[
            ("udp [::]:54", "/proc/4711/ns/net [::1]:1054/udp"),
            ("udp [::]:60", "/proc/4711/ns/net [::1]:1060/udp"),
            ("udp [::]:56", "no"),
        ],
    );
    check(
        "incusd forkproxy -- 1 -1 tcp:0.0.0.0:80-90 4711 -1 tcp:127.0.0.1:80",
        &[("tcp 0.0.0.0:85", "unsaid")],
    );
    check(
        "lxd forkproxy -- 1 3 tcp:0.0.0.0:80 4711 4 unix:/run/a.sock",
        &[("tcp 0.0.0.0:80", "unix /run/a.sock")],
    );
    for line in [
        "lxd forkproxy -- 1 3 unix:/a 4711 4 tcp:127.0.0.1:80",
        "lxd forkproxy -- 1 3 tcp:0.0.0.0:80 x 4 tcp:127.0.0.1:80",
        "lxd forkproxy -- 1 3 tcp:0.0.0.0:80",
        "lxd forkproxy -- 1 3 tcp:0.0.0.0:90-80 2 4 tcp:127.0.0.1:80",
        "lxd --group lxd",
        "incusd",
    ] {
        check(line, &[("tcp 0.0.0.0:80", "no")]);
    }
}

#[test]
fn the_quote_is_bounded_and_tells_the_target() {
    let long = "x".repeat(10_000);
    let line = argv(&format!("socat TCP-LISTEN:80 EXEC:{long}"));
    let forward = parse(&line, Proto::Tcp, [0, 0, 0, 0].into(), Port(80)).unwrap();
    assert!(forward.quote.chars().count() < 310);
    let line = argv("ssh -N -i /key -L 80:web:8080 b");
    let forward = parse(&line, Proto::Tcp, [127, 0, 0, 1].into(), Port(80)).unwrap();
    assert_eq!((forward.kind, forward.quote.as_str()), ("ssh -L", "-L 80:web:8080 b"));
}

/// Arguments put together from all that the recognisers look for, cut anywhere.
#[test]
fn no_command_line_panics() {
    const PROGRAMS: [&str; 19] = [
        "docker-proxy",
        "nsenter",
        "pasta",
        "passt",
        "ssh",
        "socat",
        "kubectl",
        "k3s",
        "cilium",
        "systemd-socket-proxyd",
        "incusd",
        "lxd",
        "rootlesskit",
        "gvproxy",
        "limactl",
        "qemu-system-x86_64",
        "ssh: [mux]",
        "",
        "/",
    ];
    const PARTS: [&str; 59] = [
        "-",
        "--",
        "-L",
        "-o",
        "-D",
        "-fNL",
        "-t",
        "-u",
        "--netns",
        "--netns=",
        "-n",
        "-v",
        "port-forward",
        "-netdev",
        "user,hostfwd=tcp::",
        "hostagent",
        "forkproxy",
        "kubectl",
        "docker-proxy",
        "hubble",
        "svc/x",
        "TCP-LISTEN:",
        "tcp:",
        "udp:",
        "unix:",
        "UNIX:",
        "EXEC:",
        "-host-port",
        "-container-ip",
        "-container-port",
        "-proto",
        "localhost",
        "LocalForward",
        "=",
        ":",
        "[",
        "]",
        "[::1]",
        "::",
        "/",
        "@",
        "~",
        ",",
        "bind=",
        "0",
        "1",
        "80",
        "65535",
        "65536",
        "1-65535",
        "99999999999999999999",
        "é",
        "\u{202e}",
        "\0",
        " ",
        "10.0.0.1",
        "auto",
        "-1",
        "secret",
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..60_000 {
        let mut argv = vec![PROGRAMS[next(PROGRAMS.len())].to_owned()];
        for _ in 0..next(9) {
            argv.push((0..next(5)).map(|_| PARTS[next(PARTS.len())]).collect());
        }
        let port = [1, 80, 65535][next(3)];
        for proto in Proto::ALL {
            let forward = parse(&argv, proto, [127, 0, 0, 1].into(), Port(port));
            let telling: Option<Vec<String>> =
                telling_words(&argv).map(|words| words.iter().map(Word::to_string).collect());
            assert!(forward.is_none() || telling.is_some(), "{argv:?}");
        }
        let pieces = telling_words(&argv).into_iter().flatten().flat_map(|word| word.0);
        for piece in pieces {
            // What is shown to everybody holds nothing but what every machine has.
            let kept = matches!(&piece, WordPart::Keep(text) if text.contains("secret"));
            assert!(!kept, "{argv:?}: {piece:?}");
        }
    }
}
