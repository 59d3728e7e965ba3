//! Pods of service meshes: the rules of `istio-iptables`, of `istio-cni` for ambient pods and of
//! `linkerd2-proxy-init`, as they are in real pods.

use anyhow::{Context as _, ensure};
use lab::{Backend, Netns, Proc, Test};

use super::node::{Node, Server, case};

/// Who Istio's sidecar runs as.
const ISTIO_PROXY: u32 = 1337;
/// Who Linkerd's proxy runs as.
const LINKERD_PROXY: u32 = 2102;

/// `istio-iptables` with redirects, which are its default.
const SIDECAR: &str = "*nat\n\
    :ISTIO_INBOUND - [0:0]\n:ISTIO_IN_REDIRECT - [0:0]\n:ISTIO_OUTPUT - [0:0]\n:ISTIO_REDIRECT - [0:0]\n\
    -A PREROUTING -p tcp -j ISTIO_INBOUND\n\
    -A OUTPUT -p tcp -j ISTIO_OUTPUT\n\
    -A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN\n\
    -A ISTIO_INBOUND -p tcp -m tcp --dport 15090 -j RETURN\n\
    -A ISTIO_INBOUND -p tcp -m tcp --dport 15021 -j RETURN\n\
    -A ISTIO_INBOUND -p tcp -m tcp --dport 15020 -j RETURN\n\
    -A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT\n\
    -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006\n\
    -A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN\n\
    -A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT\n\
    -A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN\n\
    -A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN\n\
    -A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT\n\
    -A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN\n\
    -A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN\n\
    -A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN\n\
    -A ISTIO_OUTPUT -j ISTIO_REDIRECT\n\
    -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n";

/// `istio-cni` in an ambient pod, with redirects.
const AMBIENT: &str = "*mangle\n\
    :ISTIO_OUTPUT - [0:0]\n:ISTIO_PRERT - [0:0]\n\
    -A PREROUTING -j ISTIO_PRERT\n\
    -A OUTPUT -j ISTIO_OUTPUT\n\
    -A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff\n\
    -A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff\nCOMMIT\n\
    *nat\n:ISTIO_OUTPUT - [0:0]\n:ISTIO_PRERT - [0:0]\n\
    -A OUTPUT -j ISTIO_OUTPUT\n\
    -A PREROUTING -j ISTIO_PRERT\n\
    -A ISTIO_OUTPUT -d 169.254.7.127/32 -p tcp -m tcp -j ACCEPT\n\
    -A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT\n\
    -A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -j ACCEPT\n\
    -A ISTIO_OUTPUT ! -d 127.0.0.1/32 -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001\n\
    -A ISTIO_PRERT -s 169.254.7.127/32 -p tcp -m tcp -j ACCEPT\n\
    -A ISTIO_PRERT ! -d 127.0.0.1/32 -p tcp -m tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006\nCOMMIT\n";

/// `linkerd2-proxy-init`.
const LINKERD: &str = "*nat\n\
    :PROXY_INIT_REDIRECT - [0:0]\n:PROXY_INIT_OUTPUT - [0:0]\n\
    -A PREROUTING -m comment --comment \"proxy-init/install-proxy-init-prerouting\" -j PROXY_INIT_REDIRECT\n\
    -A OUTPUT -m comment --comment \"proxy-init/install-proxy-init-output\" -j PROXY_INIT_OUTPUT\n\
    -A PROXY_INIT_REDIRECT -p tcp -m multiport --dports 4190,4191,4567,4568 -m comment --comment \"proxy-init/ignore-port-4190,4191,4567,4568\" -j RETURN\n\
    -A PROXY_INIT_REDIRECT -p tcp -m comment --comment \"proxy-init/redirect-all-incoming-to-proxy-port\" -j REDIRECT --to-ports 4143\n\
    -A PROXY_INIT_OUTPUT -m owner --uid-owner 2102 -m comment --comment \"proxy-init/ignore-proxy-user-id\" -j RETURN\n\
    -A PROXY_INIT_OUTPUT -o lo -m comment --comment \"proxy-init/ignore-loopback\" -j RETURN\n\
    -A PROXY_INIT_OUTPUT -p tcp -m comment --comment \"proxy-init/redirect-all-outgoing-to-proxy-port\" -j REDIRECT --to-ports 4140\nCOMMIT\n";

/// A pod with an app, a mesh's rules and its proxy.
struct Meshed {
    node: Node,
    pod: Netns,
    app: u16,
    _proxy: Proc,
}

/// Which mesh: its rules, where its proxy listens, the proxy's arguments, and its user.
type Kind<'a> = (&'a str, &'a str, &'a [&'a str], u32);

fn meshed((rules, listens, argv, user): Kind<'_>) -> anyhow::Result<Meshed> {
    let mut node = Node::new()?;
    let app = lab::unused_port()?;
    let pod = node.add_pod()?;
    node.serve(&pod, "app", &format!("tcp 0.0.0.0:{app}"))?;
    let proxy = match user {
        0 => node.lab.listen_like(&pod, listens, argv)?,
        user => node.lab.listen_like_a_user(&pod, user, listens, argv)?,
    };
    node.servers.push(Server::kept("proxy", proxy.pid));
    node.lab.iptables(&pod, Backend::Nft, rules)?;
    Ok(Meshed { node, pod, app, _proxy: proxy })
}

const SIDECARS: Kind<'static> = (
    SIDECAR,
    "tcp 0.0.0.0:15006 tcp 0.0.0.0:15001 --answer proxy",
    &["envoy", "-c", "etc/istio/proxy/envoy-rev.json"],
    ISTIO_PROXY,
);
const ZTUNNELS: Kind<'static> = (
    AMBIENT,
    "tcp 0.0.0.0:15006 tcp 0.0.0.0:15008 tcp 0.0.0.0:15001 --answer proxy",
    &["ztunnel", "proxy", "ztunnel"],
    0,
);
const LINKERDS: Kind<'static> = (
    LINKERD,
    "tcp 0.0.0.0:4143 tcp 127.0.0.1:4140 --answer proxy",
    &["linkerd2-proxy"],
    LINKERD_PROXY,
);

/// What comes to the app's port from elsewhere is the proxy's, which passes it on to the app.
fn way_in(kind: Kind<'_>, name: &str) -> Test {
    let meshed = meshed(kind)?;
    let (node, app) = (&meshed.node, meshed.app);
    let pod_ip = node.pod_ip(0);
    let to = format!("{pod_ip}:{app}");
    // Really: the proxy takes it.
    let landed = node.host().connect("tcp", to.parse()?)?;
    ensure!(landed.to_string() == "proxy", "{landed}");
    let run = node.lab.tool().netns(&meshed.pod).args(&["--json", &format!("{app}/tcp")]).run()?;
    let paths = run.paths_in(&meshed.pod)?;
    let by_proxy = paths.iter().find(|path| path.steps().iter().any(|s| s.starts_with("forward")));
    let path = by_proxy.with_context(|| format!("no way through the proxy: {}", run.stdout))?;
    let steps = path.steps();
    let kinds: Vec<&str> = steps.iter().filter_map(|step| step.split(' ').next()).collect();
    ensure!(kinds == ["dnat", "dnat", "listener", "forward", "listener"], "{steps:?}");
    let server = node.servers.iter().find(|server| server.name == "app").context("no app")?;
    ensure!(path.pid() == Some(server.pid.into()), "{}", path.0);
    ensure!(!run.stdout.contains("in a circle"), "{}", run.stdout);
    // Of the proxy's own connection its user is known.
    let steps = path.hops();
    let onward = steps.iter().find(|hop| hop["kind"] == "forward").context("no step")?;
    ensure!(!onward.to_string().contains("the user who connects"), "{onward}");
    let all = run.answer()?["reachable"].as_array().context("no reach")?;
    let outside = all.iter().find(|one| one["from"] == "outside" || one["from"] == "containers");
    let says = format!("the policy of {name}'s proxy");
    ensure!(outside.is_some_and(|one| one["reachable"].is_null()), "{all:?}");
    ensure!(run.stdout.contains(&says), "{says} is not in {}", run.stdout);
    // A port that nobody has is none of the mesh's.
    let free = lab::unused_port()?.to_string();
    let run = node.lab.tool().netns(node.host()).args(&["--json", &format!("{free}/tcp")]).run()?;
    ensure!(run.code == Some(1), "{:?}: {}", run.code, run.stdout);
    Ok(())
}

#[test]
fn istios_sidecar_passes_on_to_the_app() -> Test {
    lab::root_or_skip!();
    way_in(SIDECARS, "Istio")
}

#[test]
fn ztunnel_passes_on_to_the_app_of_an_ambient_pod() -> Test {
    lab::root_or_skip!();
    way_in(ZTUNNELS, "Istio")
}

#[test]
fn linkerds_proxy_passes_on_to_the_app() -> Test {
    lab::root_or_skip!();
    way_in(LINKERDS, "Linkerd")
}

#[test]
fn ports_of_a_meshs_own_are_named() -> Test {
    lab::root_or_skip!();
    for (kind, port, name) in [
        (SIDECARS, "15006", "istio-proxy"),
        (ZTUNNELS, "15008", "ztunnel"),
        (LINKERDS, "4143", "linkerd-proxy"),
    ] {
        let meshed = meshed(kind)?;
        let tool = meshed.node.lab.tool().netns(&meshed.pod);
        let run = tool.args(&["--json", &format!("{port}/tcp")]).run()?;
        let paths = run.paths_in(&meshed.pod)?;
        let named = paths.iter().any(|path| path.end()["component"]["name"] == name);
        ensure!(named, "{port}: {}", run.stdout);
    }
    Ok(())
}

#[test]
fn what_comes_to_a_meshed_pod_lands_as_it_is_said() -> Test {
    lab::root_or_skip!();
    let meshed = meshed(SIDECARS)?;
    // A health check of the sidecar itself is left alone by the rules.
    let mut node = meshed.node;
    node.serve(&meshed.pod, "health", "tcp 0.0.0.0:15021")?;
    let ip = node.pod_ip(0);
    let landed = node.host().connect("tcp", format!("{ip}:15021").parse()?)?;
    ensure!(landed.to_string() == "health", "{landed}");
    node.check(&format!("{ip}:15021"), &[case("node", ip, &["health"])])
}
