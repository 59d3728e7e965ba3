//! Answers on a node with a real kubelet, containerd and scheduler: nothing about its pods is
//! written by a test. Kubernetes 1.20.2, as scenario A had it.

mod others;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, ensure};
use lab::{KubeletNode, Landing, Netns, POD_IMAGE, Run, Test, View};
use serde_json::{Value, json};

/// The node's address.
const NODE: &str = "10.211.0.1";

/// A container of the lab's image.
fn container(name: &str, args: &str, more: &Value) -> Value {
    let mut command = vec!["/bin/lab-helper"];
    command.extend(args.split(' '));
    let mut one = json!({
        "name": name, "image": POD_IMAGE, "imagePullPolicy": "Never", "command": command,
    });
    if let (Some(one), Some(more)) = (one.as_object_mut(), more.as_object()) {
        one.extend(more.clone());
    }
    one
}

fn pod(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}}, "spec": spec,
    })
}

fn service(name: &str, app: &str, spec: &Value) -> Value {
    let mut whole = json!({"type": "NodePort", "selector": {"app": app}});
    if let (Some(whole), Some(spec)) = (whole.as_object_mut(), spec.as_object()) {
        whole.extend(spec.clone());
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"}, "spec": whole,
    })
}

fn http(node_port: u16) -> Value {
    json!([{"name": "http", "port": 80, "targetPort": "http", "nodePort": node_port}])
}

/// The node with everything that the tests ask about.
fn node() -> Result<&'static KubeletNode> {
    static READY: OnceLock<Result<(), String>> = OnceLock::new();
    let node = KubeletNode::shared()?;
    let ready = READY.get_or_init(|| fill(node).map_err(|error| format!("{error:#}")));
    ready.as_ref().map_err(|error| anyhow!("{error}"))?;
    Ok(node)
}

fn fill(node: &KubeletNode) -> Test {
    let cluster = node.cluster();
    let named = json!({"ports": [{"name": "http", "containerPort": 8080}]});
    let web = container("main", "listen tcp 0.0.0.0:8080 --answer web", &named);
    let hosted = json!({"ports": [{"containerPort": 8087, "hostPort": 8088}]});
    let fixed = pod(
        "fixed",
        &json!({
            "hostNetwork": true,
            "containers": [container("fixed", "listen tcp 0.0.0.0:8099 --answer fixed", &json!({}))],
        }),
    );
    std::fs::write(node.manifests().join("fixed.json"), fixed.to_string())?;
    for object in [
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [web]}},
            },
        }),
        service("web", "web", &json!({"ports": http(30080)})),
        service("local", "web", &json!({"ports": http(30082), "externalTrafficPolicy": "Local"})),
        service("empty", "nobody", &json!({"ports": http(30081)})),
        service(
            "headless",
            "web",
            &json!({
                "type": "ClusterIP", "clusterIP": "None", "ports": [{"name": "http", "port": 8080}],
            }),
        ),
        pod(
            "names",
            &json!({"containers": [
                container("dns", "listen udp 0.0.0.0:5300 --answer names", &json!({})),
            ]}),
        ),
        service(
            "names",
            "names",
            &json!({"ports": [
                {"port": 53, "targetPort": 5300, "nodePort": 30053, "protocol": "UDP"},
            ]}),
        ),
        pod(
            "hosted",
            &json!({"containers": [
                container("hosted", "listen tcp 0.0.0.0:8087 --answer hosted", &hosted),
            ]}),
        ),
        pod(
            "inward",
            &json!({"containers": [
                container("main", "listen tcp 127.0.0.1:8092", &json!({})),
                container("side", "listen tcp 0.0.0.0:8093", &json!({})),
            ]}),
        ),
        service("inward", "inward", &json!({"ports": [{"port": 8092, "nodePort": 30092}]})),
        service(
            "wrong",
            "inward",
            &json!({"ports": [{"port": 80, "targetPort": 8094, "nodePort": 30094}]}),
        ),
        pod(
            "several",
            &json!({
                "initContainers": [{
                    "name": "before", "image": POD_IMAGE, "imagePullPolicy": "Never",
                    "command": ["/bin/busybox", "true"],
                }],
                "containers": [
                    container("main", "listen tcp 0.0.0.0:8090 --answer main", &json!({})),
                    container("side", "listen tcp 0.0.0.0:8091 --answer side", &json!({})),
                ],
            }),
        ),
    ] {
        cluster.apply(&object)?;
    }
    for object in failing().into_iter().chain(exposed()) {
        cluster.apply(&object)?;
    }
    for (name, address) in BALANCED {
        let path = format!("/api/v1/namespaces/default/services/{name}");
        cluster.set_status(&path, &json!({"loadBalancer": {"ingress": [{"ip": address}]}}))?;
    }
    for name in ["names", "hosted", "several", "inward", "fixed-node1"] {
        node.wait_pod(&format!("/api/v1/namespaces/default/pods/{name}"))?;
    }
    node.wait("two replicas", |node| {
        let status = node.get("/apis/apps/v1/namespaces/default/deployments/web")?;
        ensure!(status["status"]["readyReplicas"] == 2, "{}", status["status"]);
        Ok(())
    })?;
    for text in [
        "default/local:http",
        "default/names",
        "default/inward",
        "default/wrong",
        "default/empty:http has no endpoints",
    ] {
        cluster.wait_rules(text)?;
    }
    for (name, _) in replicas(node)? {
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        let address =
            node.get(&path)?["status"]["podIP"].as_str().context("no address")?.to_owned();
        cluster.wait_rules(&format!("--to-destination {address}:8080"))?;
    }
    Ok(())
}

/// Services that lead to nobody, each for another reason.
fn failing() -> Vec<Value> {
    let leads = |name: &str, node_port: u16| {
        let ports = json!([{"port": 80, "targetPort": 8080, "nodePort": node_port}]);
        service(name, name, &json!({"ports": ports}))
    };
    let listen = "listen tcp 0.0.0.0:8080";
    let probe = json!({"readinessProbe": {"httpGet": {"port": 8081, "path": "/healthz"}}});
    let missing = json!({
        "name": "main", "image": "127.0.0.1:1/missing:9", "imagePullPolicy": "IfNotPresent",
    });
    let ends = json!({
        "name": "main", "image": POD_IMAGE, "imagePullPolicy": "Never",
        "command": ["/bin/busybox", "false"],
    });
    let nowhere = json!({
        "nodeSelector": {"disk": "none"}, "containers": [container("main", listen, &json!({}))],
    });
    vec![
        pod("crash", &json!({"containers": [ends]})),
        leads("crash", 30101),
        pod("pull", &json!({"containers": [missing]})),
        leads("pull", 30102),
        pod("pending", &nowhere),
        leads("pending", 30103),
        pod("probe", &json!({"containers": [container("main", listen, &probe)]})),
        leads("probe", 30104),
        service(
            "unnamed",
            "web",
            &json!({"ports": [{"port": 80, "targetPort": "metrics", "nodePort": 30105}]}),
        ),
    ]
}

/// Services whose address is a load balancer's.
const BALANCED: [(&str, &str); 2] = [("lblocal", "203.0.113.22"), ("lbranges", "203.0.113.21")];

/// Services that have ports at more than the node's addresses, or at none.
fn exposed() -> Vec<Value> {
    let http = |port: u16, node_port: u16| json!([{"name": "http", "port": port, "targetPort": "http", "nodePort": node_port}]);
    vec![
        service(
            "lblocal",
            "web",
            &json!({
                "type": "LoadBalancer", "externalTrafficPolicy": "Local",
                "healthCheckNodePort": 30341, "ports": http(8084, 30112),
            }),
        ),
        service(
            "lbranges",
            "web",
            &json!({
                "type": "LoadBalancer", "loadBalancerSourceRanges": ["10.9.0.0/16"],
                "ports": http(8085, 30113),
            }),
        ),
        service(
            "extip",
            "web",
            &json!({
                "type": "ClusterIP", "externalIPs": ["203.0.113.10"],
                "ports": [{"name": "http", "port": 8086, "targetPort": "http"}],
            }),
        ),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "elsewhere", "namespace": "default"},
            "spec": {"type": "ExternalName", "externalName": "db.example.com"},
        }),
    ]
}

/// The pods of the Deployment, and the ids of their containers.
fn replicas(node: &KubeletNode) -> Result<BTreeSet<(String, String)>> {
    let list = node.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb")?;
    let items = list["items"].as_array().context("no items")?;
    let one = |pod: &Value| {
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str()?;
        let name = pod["metadata"]["name"].as_str()?;
        Some((name.to_owned(), id.strip_prefix("containerd://")?.to_owned()))
    };
    Ok(items.iter().filter_map(one).collect())
}

/// The ends of all paths whose first step is of the kind `kind`.
fn ends<'a>(run: &'a Run, kind: &str) -> Result<Vec<&'a Value>> {
    let paths = run.paths()?;
    let of_kind =
        paths.iter().filter(|path| path.hops().first().is_some_and(|h| h["kind"] == kind));
    Ok(of_kind.map(View::end).collect())
}

/// The only end that is in the pod `name`.
fn end_in<'a>(run: &'a Run, name: &str) -> Result<&'a Value> {
    let paths = run.answer()?["paths"].as_array().context("no paths")?;
    let mut ends: Vec<&Value> = paths.iter().map(|path| &path["end"]).collect();
    ends.retain(|end| end["pod"]["name"] == name);
    ensure!(ends.len() == 1, "{} ends in {name}: {}", ends.len(), run.stdout);
    Ok(ends[0])
}

fn lands(from: &Netns, proto: &str, port: u16) -> Result<Landing> {
    from.connect(proto, format!("{NODE}:{port}").parse::<SocketAddr>()?)
}

fn at(name: &str) -> Landing {
    Landing::At(name.to_owned())
}

/// The answer to a port in both ways: with the API, and without it.
fn both_ways(node: &KubeletNode, port: &str) -> Result<[Run; 2]> {
    let cluster = node.cluster();
    let runs = [cluster.whereis(&[port])?, cluster.whereis(&["--no-kube", port])?];
    for run in &runs {
        run.is_found()?;
    }
    Ok(runs)
}

#[test]
fn a_node_port_of_a_deployment_leads_to_both_replicas() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    let wanted = replicas(node)?;
    ensure!(wanted.len() == 2, "{wanted:?}");
    for port in ["30080", "30082"] {
        for run in both_ways(node, port)? {
            let ends = ends(&run, "service")?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let found: BTreeSet<_> = ends
                .iter()
                .map(|end| (text(&end["pod"]["name"]), text(&end["container"]["id"])))
                .collect();
            ensure!(found == wanted, "{found:?}, not {wanted:?}");
            for end in ends {
                ensure!(end["ending"] == "process", "{end}");
                ensure!(end["pod"]["namespace"] == "default", "{end}");
                ensure!(end["pod"]["labels"]["app"] == "web", "{end}");
                ensure!(end["container"]["name"] == "main", "{end}");
                ensure!(end["service"]["port"] == "http", "{end}");
                ensure!(end["process"]["name"] == "lab-helper", "{end}");
            }
            // kube-proxy holds the port, and serves nothing on it.
            let held = self::ends(&run, "listener")?;
            ensure!(held.iter().all(|end| end["process"]["name"] == "kube-proxy"), "{held:?}");
        }
        ensure!(lands(node.lab().host(), "tcp", port.parse()?)? == at("web"));
    }
    Ok(())
}

#[test]
fn a_udp_node_port_leads_to_its_pod() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    for run in both_ways(node, "30053/udp")? {
        let ends = ends(&run, "service")?;
        let [end] = ends.as_slice() else { return Err(anyhow!("{} ends", ends.len())) };
        ensure!(end["pod"]["name"] == "names" && end["container"]["name"] == "dns", "{end}");
    }
    ensure!(lands(node.lab().host(), "udp", 30053)? == at("names"));
    Ok(())
}

#[test]
fn a_pod_that_listens_elsewhere_is_told_with_what_it_listens_on() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    for (port, code, says, fix) in [
        ("30092", "other_address", "listens on 127.0.0.1:8092 only", "let it listen on 0.0.0.0"),
        (
            "30094",
            "other_port",
            "listens on 0.0.0.0:8093",
            "let Service default/wrong lead to port 8093",
        ),
    ] {
        node.wait("its endpoint", |node| {
            let run = node.lab().whereis(&[&format!("{port}/tcp"), "--no-kube"])?;
            ensure!(run.json["answers"][0]["findings"][0]["code"] == code, "{}", run.stdout);
            Ok(())
        })?;
        for run in both_ways(node, &format!("{port}/tcp"))? {
            let findings = run.answer()?["findings"].as_array().context("no findings")?.clone();
            let found = findings.iter().find(|f| f["code"] == code).context("not noticed")?;
            let what = found["what"].as_str().context("no words")?;
            ensure!(what.contains(says) && what.contains("lab-helper, pid"), "{what}");
            ensure!(found["fix"]["text"].as_str().is_some_and(|f| f.contains(fix)), "{found}");
        }
    }
    Ok(())
}

#[test]
fn why_a_service_leads_to_nobody_is_named() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    let selects = "no pod in namespace default has the labels of its selector: app=nobody";
    for (port, says) in [
        ("30081", &[selects][..]),
        (
            "30101",
            &[
                "default/crash is not ready (container main: CrashLoopBackOff, exit code 1",
                "restart",
            ],
        ),
        ("30102", &["default/pull is not ready (container main: ", "ImagePull", "missing:9"]),
        ("30103", &["default/pending is on no node: 0/1 nodes are available"]),
        ("30104", &["its readiness probe has not succeeded: HTTP GET :8081/healthz"]),
        (
            "30105",
            &["targetPort is metrics, a name that no port of its pods has: they declare http 8080"],
        ),
    ] {
        node.wait(says[0], |node| {
            let run = node.cluster().whereis(&[&format!("{port}/tcp")])?;
            let findings = run.answer()?["findings"].as_array().context("no findings")?.clone();
            let causes = findings.iter().filter_map(|finding| finding["cause"].as_str());
            let told = |cause: &str| says.iter().all(|part| cause.contains(part));
            ensure!(causes.clone().any(told), "{port}: {findings:?}");
            let all = run.answer()?["reachable"].as_array().context("no reachability")?.clone();
            ensure!(!all.is_empty() && all.iter().all(|one| one["reachable"] == false), "{all:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_port_forward_leads_to_the_pods_that_it_may_have_chosen() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    let (cluster, host) = (node.cluster(), node.lab().host());
    let web: BTreeSet<String> = replicas(node)?.into_iter().map(|(name, _)| name).collect();
    let one = BTreeSet::from(["several".to_owned()]);
    let mut kept = Vec::new();
    for (object, ports, inner, wanted) in [
        ("svc/web", "18080:80", "0.0.0.0:8080/tcp", &web),
        ("deploy/web", "18081:8080", "0.0.0.0:8080/tcp", &web),
        ("pod/several", "18082:8091", "0.0.0.0:8091/tcp", &one),
    ] {
        kept.push(cluster.start_kubectl(&["port-forward", object, ports])?);
        let port = ports.split(':').next().unwrap_or_default();
        node.wait(object, |_| {
            let run = cluster.whereis(&[&format!("127.0.0.1:{port}")])?;
            run.is_found()?;
            let paths = run.paths()?;
            let names = paths.iter().filter_map(|path| path.end()["pod"]["name"].as_str());
            let names: BTreeSet<String> = names.map(str::to_owned).collect();
            ensure!(names == *wanted, "{object}: {names:?}: {}", run.stdout);
            for path in &paths {
                let steps = path.steps();
                let last = format!("listener {inner}");
                ensure!(steps.len() == 3 && steps.last() == Some(&last), "{steps:?}");
                ensure!(path.end()["cluster"]["name"] == "lab", "{}", path.end());
            }
            let all = run.answer()?["reachable"].as_array().context("no reachability")?;
            let loopback = all.iter().find(|one| one["from"] == "loopback");
            ensure!(loopback.is_some_and(|one| one["reachable"] == true), "{all:?}");
            Ok(())
        })?;
    }
    // Its arguments alone are no connection to an API.
    let claims = ["kubectl", "port-forward", "svc/web", "18083:80"];
    let _other = node.lab().listen_like(host, "tcp 127.0.0.1:18083", &claims)?;
    let run = cluster.whereis(&["127.0.0.1:18083"])?;
    let path = run.path_in(host)?;
    ensure!(path.ending() == "elsewhere" && path.end()["pod"].is_null(), "{}", path.0);
    Ok(())
}

#[test]
fn a_health_check_port_is_that_of_its_service() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    let run = node.cluster().whereis(&["30341/tcp"])?;
    let path = run.path_in(node.lab().host())?;
    let end = path.end();
    ensure!(end["process"]["name"] == "kube-proxy" && end["service"]["name"] == "lblocal", "{end}");
    // With and without the API: it is no port that kube-proxy only holds.
    for run in both_ways(node, "30341/tcp")? {
        let all = run.answer()?["reachable"].as_array().context("no reachability")?;
        ensure!(!all.is_empty() && all.iter().all(|one| one["reachable"] == true), "{all:?}");
    }
    let run = node.cluster().whereis(&["--service", "default/lblocal"])?;
    for text in ["30341/tcp", "30112/tcp", "203.0.113.22:8084/tcp"] {
        ensure!(run.stdout.contains(text), "{text} is not in {}", run.stdout);
    }
    let list = node.cluster().whereis(&["list"])?;
    let rows = list.json["listeners"].as_array().context("no rows")?;
    let row = rows.iter().find(|row| row["port"] == 30341).context("no row")?;
    ensure!(row["taken_by"].is_null(), "{row}");
    Ok(())
}

#[test]
fn ports_that_only_addresses_of_services_have_are_found() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    let cluster = node.cluster();
    let list = cluster.whereis(&["list"])?;
    let rows = list.json["listeners"].as_array().context("no rows")?;
    for (name, address, port) in [
        ("extip", "203.0.113.10", 8086),
        ("lblocal", "203.0.113.22", 8084),
        ("lbranges", "203.0.113.21", 8085),
    ] {
        let run = cluster.whereis(&[&format!("{port}/tcp")])?;
        run.is_found()?;
        let paths = run.paths()?;
        let at = |path: &View<'_>| {
            path.hops().first().is_some_and(|hop| hop["address"] == address)
                && path.end()["service"]["name"] == name
        };
        ensure!(paths.iter().any(at), "{address}:{port}: {}", run.stdout);
        let row = |row: &&Value| row["port"] == port && row["address"] == address;
        let row = rows.iter().find(row).with_context(|| format!("no row {address}:{port}"))?;
        ensure!(row["service"]["name"] == name, "{row}");
        let run = cluster.whereis(&["--service", &format!("default/{name}")])?;
        ensure!(run.stdout.contains(&format!("{address}:{port}/tcp")), "{}", run.stdout);
    }
    let run = cluster.whereis(&["--service", "default/elsewhere"])?;
    ensure!(run.stdout.contains("its name stands for db.example.com"), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_node_port_without_endpoints_says_so() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    let run = node.cluster().whereis(&["30081"])?;
    ensure!(run.stdout.contains("no endpoints"), "{}", run.stdout);
    let all = run.answer()?["reachable"].as_array().context("no reachability")?;
    ensure!(!all.is_empty() && all.iter().all(|one| one["reachable"] != true), "{all:?}");
    ensure!(lands(node.lab().host(), "tcp", 30081)? == Landing::Refused);
    Ok(())
}

#[test]
fn a_host_port_without_a_socket_leads_to_its_pod() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    for run in both_ways(node, "8088")? {
        let paths = run.paths()?;
        let [path] = paths.as_slice() else { return Err(anyhow!("{}", run.stdout)) };
        let steps = path.steps();
        ensure!(steps.first().is_some_and(|step| step.starts_with("dnat ")), "{steps:?}");
        ensure!(steps.last().is_some_and(|s| s == "listener 0.0.0.0:8087/tcp"), "{steps:?}");
        ensure!(path.end()["pod"]["name"] == "hosted", "{}", path.end());
    }
    ensure!(lands(node.lab().host(), "tcp", 8088)? == at("hosted"));
    Ok(())
}

#[test]
fn a_static_pod_in_the_nodes_network_is_told_as_such() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    for run in both_ways(node, "8099")? {
        let end = end_in(&run, "fixed-node1")?;
        ensure!(end["pod"]["is_static"] == true && end["pod"]["host_network"] == true, "{end}");
        ensure!(end["container"]["name"] == "fixed", "{end}");
        let paths = run.paths_in(node.lab().host())?;
        ensure!(paths.len() == 1, "it is a listener of the node itself: {}", run.stdout);
    }
    Ok(())
}

#[test]
fn containers_of_one_pod_are_told_apart() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    for (port, name) in [("8090", "main"), ("8091", "side")] {
        for run in both_ways(node, port)? {
            let end = end_in(&run, "several")?;
            ensure!(end["container"]["name"] == name, "{end}");
            ensure!(!run.stdout.contains("\"before\""), "it has ended: {}", run.stdout);
        }
    }
    Ok(())
}

#[test]
fn a_headless_service_is_that_of_its_pods() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    let run = node.cluster().whereis(&["--service", "default/headless"])?;
    ensure!(run.code == Some(0), "{}{}", run.stdout, run.stderr);
    for (name, _) in replicas(node)? {
        ensure!(run.stdout.contains(&name), "{name} is not in {}", run.stdout);
    }
    Ok(())
}

#[test]
fn ports_of_the_nodes_components_are_named() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    for (port, name) in [
        ("10250", "kubelet"),
        ("10256", "kube-proxy"),
        ("10259", "kube-scheduler"),
        ("6443", "kube-apiserver"),
        ("2379", "etcd"),
    ] {
        let run = node.cluster().whereis(&[port])?;
        run.is_found()?;
        let path = run.path_in(node.lab().host())?;
        let component = &path.end()["component"];
        ensure!(component["name"] == name && component["confirmed"] == true, "{}", path.end());
    }
    Ok(())
}

#[test]
fn an_agent_in_a_pod_of_the_kubelet_answers_for_its_node() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    let manifest = node.lab().tool().args(&["cluster", "manifest"]).run()?;
    ensure!(manifest.code == Some(0), "{}", manifest.stderr);
    let image = manifest.stdout.lines().find_map(|line| line.trim().strip_prefix("image: "));
    node.import_tool(image.context("no image in the manifest")?.trim_matches('"'))?;
    let file = node.lab().dir().join("agents.yaml");
    std::fs::write(&file, &manifest.stdout)?;
    node.cluster().kubectl(&["apply", "-f", file.to_str().context("path")?])?;
    node.wait("the agent", |node| {
        let path = "/apis/apps/v1/namespaces/whereis-port/daemonsets/whereis-port-agent";
        let status = node.get(path)?["status"].clone();
        ensure!(status["numberReady"] == 1, "{status}");
        Ok(())
    })?;
    let kubeconfig = node.cluster().kubeconfig();
    let kubeconfig = kubeconfig.to_str().context("path")?;
    let run = node.lab().tool().env("KUBECONFIG", kubeconfig).args(&["cluster", "30080"]).run()?;
    ensure!(run.code == Some(0), "{:?}: {}{}", run.code, run.stdout, run.stderr);
    for (name, _) in replicas(node)? {
        ensure!(run.stdout.contains(&format!("pod default/{name}")), "{name}: {}", run.stdout);
    }
    for part in ["NodePort of Service default/web", "on 1 of 1 node: node1"] {
        ensure!(run.stdout.contains(part), "{part:?} is not in {}", run.stdout);
    }
    Ok(())
}
