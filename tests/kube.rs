//! Answers on a node of a real Kubernetes: API server, etcd, endpoint controllers and
//! kube-proxy 1.20.2, as scenario A had it.

mod by_name;

use anyhow::{Context as _, ensure};
use lab::{Cluster, Run, Test};
use serde_json::{Value, json};

/// What was noticed.
fn findings(run: &Run) -> Vec<String> {
    let all = run.json["answers"][0]["findings"].as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|finding| finding["what"].as_str().map(str::to_owned)).collect()
}

/// The ends of all paths whose first step is of the kind `kind`.
fn ends<'a>(run: &'a Run, kind: &str) -> Vec<&'a Value> {
    let paths = run.json["answers"][0]["paths"].as_array();
    let of_kind = |path: &&Value| path["hops"][0]["kind"] == kind;
    paths.into_iter().flatten().filter(of_kind).map(|path| &path["end"]).collect()
}

fn pods(ends: &[&Value]) -> Vec<String> {
    let mut names: Vec<String> =
        ends.iter().filter_map(|end| end["pod"]["name"].as_str().map(str::to_owned)).collect();
    names.sort();
    names
}

#[test]
fn a_node_port_leads_to_its_pods_by_name() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    let one = cluster.pod("web-1", "web", "tcp 0.0.0.0:8080")?;
    let two = cluster.pod("web-2", "web", "tcp 0.0.0.0:8080")?;
    cluster.service("web", 30080, &json!({}))?;
    for pod in [&one, &two] {
        cluster.wait_rules(&format!("--to-destination {}:8080", pod.address))?;
    }
    let run = cluster.whereis(&["30080/tcp"])?;
    run.is_found()?;
    let ends = ends(&run, "service");
    ensure!(pods(&ends) == ["web-1", "web-2"], "{}", run.stdout);
    for end in &ends {
        ensure!(end["ending"] == "process", "{end}");
        ensure!(end["service"]["name"] == "web" && end["service"]["port"] == "http", "{end}");
        ensure!(end["pod"]["namespace"] == "default", "{end}");
        ensure!(end["cluster"]["name"] == "lab" && end["cluster"]["node"] == "node1", "{end}");
        ensure!(end["container"]["name"] == "main", "{end}");
    }
    ensure!(findings(&run).is_empty(), "{:?}", findings(&run));
    // The same from the pod's side.
    let run = cluster.whereis(&["--pod", "default/web-1"])?;
    let asked: Vec<&str> = run.json["answers"]
        .as_array()
        .context("answers")?
        .iter()
        .filter_map(|answer| answer["query"]["text"].as_str())
        .collect();
    ensure!(asked.contains(&"8080/tcp") && asked.contains(&"30080/tcp"), "{asked:?}");
    ensure!(!run.stdout.contains("web-2\""), "paths to another pod: {}", run.stdout);
    let run = cluster.whereis(&["--service", "default/web"])?;
    ensure!(run.code == Some(0) && run.stdout.contains("30080/tcp"), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_pods_own_port_names_pod_and_service() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    let pod = cluster.pod("solo-1", "solo", "tcp 0.0.0.0:8181")?;
    // Headless: no address, no rule, and the Service is its all the same.
    cluster.service(
        "solo",
        0,
        &json!({"type": "ClusterIP", "clusterIP": "None", "ports": [
            {"name": "api", "port": 8181, "targetPort": "main"},
        ]}),
    )?;
    let run = cluster.whereis(&["8181"])?;
    run.is_found()?;
    let path = run.path_in(pod.netns.as_ref().context("a namespace")?)?;
    let end = path.end();
    ensure!(end["pod"]["name"] == "solo-1" && end["pod"]["uid"] == pod.uid.as_str(), "{end}");
    ensure!(end["service"]["name"] == "solo" && end["service"]["port"] == "api", "{end}");
    Ok(())
}

#[test]
fn a_udp_node_port_is_followed() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    let pod = cluster.pod("dns-1", "dns", "udp 0.0.0.0:5300")?;
    cluster.service(
        "dns",
        0,
        &json!({"ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "main", "nodePort": 30053},
        ]}),
    )?;
    cluster.wait_rules(&format!("--to-destination {}:5300", pod.address))?;
    let run = cluster.whereis(&["30053/udp"])?;
    let ends = ends(&run, "service");
    ensure!(pods(&ends) == ["dns-1"], "{}", run.stdout);
    ensure!(ends[0]["service"]["port"] == "dns", "{}", ends[0]);
    Ok(())
}

#[test]
fn a_service_without_pods_says_so() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    cluster.service("empty", 30081, &json!({}))?;
    cluster.wait_rules("default/empty:http has no endpoints")?;
    let run = cluster.whereis(&["30081/tcp"])?;
    run.is_found()?;
    let found = findings(&run);
    ensure!(
        found.iter().any(|f| f.contains("default/empty has no endpoint that is ready")),
        "{found:?}"
    );
    let cause = run.json["answers"][0]["findings"][0]["cause"].as_str().unwrap_or_default();
    ensure!(cause.contains("app=empty"), "{cause}");
    let open = run.json["answers"][0]["reachable"].as_array().context("reachable")?;
    ensure!(open.iter().all(|reach| reach["reachable"] != true), "{open:?}");
    Ok(())
}

#[test]
fn a_local_policy_names_the_nodes_that_serve() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    let _pod = cluster.pod_elsewhere("away-1", "away", "10.244.1.7")?;
    cluster.service("away", 30082, &json!({"externalTrafficPolicy": "Local"}))?;
    cluster.wait_rules("--dport 30082 -j KUBE-XLB")?;
    let run = cluster.whereis(&["30082/tcp"])?;
    let found = findings(&run);
    ensure!(
        found.iter().any(|f| f.contains("externalTrafficPolicy Local") && f.contains("node2")),
        "{found:?}"
    );
    Ok(())
}

#[test]
fn a_pod_on_another_node_is_named_with_its_node() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    let _pod = cluster.pod_elsewhere("far-1", "far", "10.244.1.8")?;
    cluster.service("far", 30083, &json!({}))?;
    cluster.wait_rules("--to-destination 10.244.1.8:8080")?;
    let run = cluster.whereis(&["30083/tcp"])?;
    let ends = ends(&run, "service");
    ensure!(pods(&ends) == ["far-1"], "{}", run.stdout);
    ensure!(ends[0]["pod"]["node"] == "node2", "{}", ends[0]);
    Ok(())
}

#[test]
fn a_pod_in_the_nodes_network_is_named() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    let _pod = cluster.host_pod("agent-1", "agent", "tcp 0.0.0.0:9797")?;
    let run = cluster.whereis(&["9797"])?;
    let end = run.path_in(cluster.lab().host())?.end();
    ensure!(end["pod"]["name"] == "agent-1" && end["pod"]["host_network"] == true, "{end}");
    Ok(())
}

#[test]
fn rules_and_api_that_differ_are_told() -> Test {
    lab::kube_or_skip!();
    // Its own, for its kube-proxy is ended.
    let mut cluster = Cluster::start()?;
    let old = cluster.pod("old-1", "old", "tcp 0.0.0.0:8080")?;
    cluster.service("old", 30090, &json!({}))?;
    cluster.wait_rules(&format!("--to-destination {}:8080", old.address))?;
    cluster.stop_proxy()?;
    // A NodePort that no rule takes.
    cluster.service("new", 30091, &json!({}))?;
    let run = cluster.whereis(&["30091/tcp"])?;
    let [end] = ends(&run, "service")[..] else { anyhow::bail!("{}", run.stdout) };
    ensure!(end["ending"] == "nothing" && end["service"]["name"] == "new", "{end}");
    let found = findings(&run);
    ensure!(found[0].contains("NodePort 30091/tcp in the API, and no rule"), "{found:?}");
    let cause = run.json["answers"][0]["findings"][0]["cause"].as_str().unwrap_or_default();
    ensure!(cause.contains("kube-proxy does not seem to run on this node"), "{cause}");
    // Rules of a Service that is gone.
    cluster.kubectl(&["delete", "service", "old"])?;
    let run = cluster.whereis(&["30090/tcp"])?;
    let found = findings(&run);
    ensure!(
        found.iter().any(|f| f.contains("default/old, which the API does not have")),
        "{found:?}"
    );
    // The kernel still leads there, and that is what is said.
    ensure!(pods(&ends(&run, "service")) == ["old-1"], "{}", run.stdout);
    // The port is another Service's by now.
    cluster.service("heir", 30090, &json!({}))?;
    for args in [&["30090/tcp"][..], &["--service", "default/heir"]] {
        let run = cluster.whereis(args)?;
        let says = "Service default/heir has NodePort 30090/tcp in the API, and rules here lead to Service default/old";
        ensure!(findings(&run).iter().any(|f| f.contains(says)), "{args:?}: {:?}", findings(&run));
    }
    // Addresses of a Service that no rule takes, by TCP and UDP.
    for (name, port, protocol) in [("later", 8899_u16, "TCP"), ("afterwards", 8898, "UDP")] {
        let ports = json!([{"port": port, "targetPort": "main", "protocol": protocol}]);
        let spec = json!({"type": "ClusterIP", "externalIPs": ["203.0.113.77"], "ports": ports});
        cluster.service(name, 0, &spec)?;
        let path = format!("/api/v1/namespaces/default/services/{name}");
        let object: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", &path])?)?;
        let own = object["spec"]["clusterIP"].as_str().context("no cluster IP")?.to_owned();
        for asked in [port.to_string(), format!("203.0.113.77:{port}"), format!("{own}:{port}")] {
            let run = cluster.whereis(&[&asked])?;
            let [end] = ends(&run, "service")[..] else { anyhow::bail!("{asked}: {}", run.stdout) };
            ensure!(end["ending"] == "nothing" && end["service"]["name"] == name, "{end}");
            let found = findings(&run);
            let says = format!("Service default/{name} has ");
            ensure!(
                found
                    .iter()
                    .any(|f| f.starts_with(&says) && f.contains("no rule or load balancer")),
                "{asked}: {found:?}"
            );
            let cause = run.json["answers"][0]["findings"][0]["cause"].as_str().unwrap_or_default();
            ensure!(cause.contains("kube-proxy does not seem to run"), "{cause}");
        }
        let run = cluster.whereis(&["--service", &format!("default/{name}")])?;
        ensure!(run.stdout.contains("in the API, and no rule or load balancer"), "{}", run.stdout);
    }
    Ok(())
}

#[test]
fn a_service_that_rules_have_is_not_missed_for_want_of_endpoints() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    let ports = json!([{"port": 8890, "targetPort": "main"}]);
    cluster.service("bare", 0, &json!({"type": "ClusterIP", "ports": ports}))?;
    cluster.wait_rules("default/bare has no endpoints")?;
    let run = cluster.whereis(&["8890/tcp"])?;
    let found = findings(&run);
    ensure!(!found.iter().any(|f| f.contains("in the API, and no rule")), "{found:?}");
    Ok(())
}

#[test]
fn local_endpoints_that_are_made_by_hand_are_on_no_node() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    let ports = json!([{"port": 80, "targetPort": 9000, "nodePort": 30086}]);
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "manual", "namespace": "default"},
        "spec": {"type": "NodePort", "externalTrafficPolicy": "Local", "ports": ports},
    }))?;
    cluster.apply(&json!({
        "apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice",
        "metadata": {
            "name": "manual-x", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "manual"},
        },
        "addressType": "IPv4", "ports": [{"name": "", "port": 9000, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.211.0.9"], "conditions": {"ready": true}}],
    }))?;
    cluster.wait_rules("--dport 30086 -j KUBE-XLB")?;
    let run = cluster.whereis(&["30086/tcp"])?;
    let all = run.json["answers"][0]["findings"].as_array().context("findings")?;
    let is_it = |one: &&Value| one["what"].as_str().is_some_and(|f| f.contains("Local"));
    let found = all.iter().find(is_it).with_context(|| format!("{all:?}"))?;
    let what = found["what"].as_str().unwrap_or_default();
    ensure!(what.contains("(10.211.0.9) are on no node"), "{what}");
    let fix = found["fix"]["text"].as_str().unwrap_or_default();
    ensure!(fix.contains("set externalTrafficPolicy to Cluster"), "{fix}");
    Ok(())
}

#[test]
fn a_cluster_that_only_its_api_names_is_asked_for_by_that_name() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    let pod = cluster.pod("named-1", "named", "tcp 0.0.0.0:8585")?;
    cluster.service("named", 30085, &json!({}))?;
    cluster.wait_rules(&format!("--to-destination {}:8585", pod.address))?;
    let run = cluster.whereis(&["--cluster", "lab"])?;
    let answers = run.json["answers"].as_array().context("answers")?;
    let asked: Vec<&str> = answers.iter().filter_map(|a| a["query"]["text"].as_str()).collect();
    for port in ["30085/tcp", "8585/tcp", "6443/tcp"] {
        ensure!(asked.contains(&port), "{port} is not among {asked:?}");
    }
    let run = cluster.whereis(&["--cluster", "other"])?;
    ensure!(
        run.json["answers"][0]["paths"].as_array().is_some_and(Vec::is_empty),
        "{}",
        run.stdout
    );
    Ok(())
}

#[test]
fn who_may_not_see_nodes_hears_of_all_else() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    cluster.service("unserved", 30087, &json!({}))?;
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "outer", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "db.example.com"},
    }))?;
    cluster.wait_rules("default/unserved:http has no endpoints")?;
    cluster.certificate("erin", "erin", "", &["erin"])?;
    let config = cluster.dir().join("erin.conf");
    std::fs::write(&config, cluster.kubeconfig_of("erin", "erin", "https://127.0.0.1:6443"))?;
    let all = ["pods", "services", "endpoints", "endpointslices", "namespaces"];
    cluster.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "viewer-but-nodes"},
        "rules": [{"apiGroups": ["", "discovery.k8s.io"], "resources": all, "verbs": ["get", "list"]}],
    }))?;
    cluster.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "erin-but-nodes"},
        "subjects": [{"kind": "User", "name": "erin", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "viewer-but-nodes", "apiGroup": "rbac.authorization.k8s.io"},
    }))?;
    let config = config.to_str().context("path")?;
    for (args, says) in [
        (&["30087/tcp"][..], "no pod in namespace default has the labels of its selector"),
        (&["--service", "outer"], "its name stands for db.example.com"),
        (&["--service", "nosuch"], "the API has no Service default/nosuch"),
    ] {
        let tool = cluster.lab().tool().args(&["--json", "--kubeconfig", config]);
        let run = tool.args(args).run()?;
        ensure!(run.stdout.contains(says), "{args:?}: {}", run.stdout);
        ensure!(run.stdout.contains("it refuses to get nodes"), "{args:?}: {}", run.stdout);
    }
    Ok(())
}

#[test]
fn who_can_read_no_rules_hears_what_the_api_has() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    let ports = json!([{"name": "http", "port": 8891, "targetPort": "main", "nodePort": 30088}]);
    cluster.service("plainly", 30088, &json!({"ports": ports}))?;
    cluster.wait_rules("default/plainly:http has no endpoints")?;
    let dir = std::env::temp_dir().join(format!("{}-plain", cluster.lab().name()));
    std::fs::create_dir_all(&dir)?;
    for file in ["admin.conf", "admin.key", "admin.crt", "ca.crt"] {
        let text = std::fs::read_to_string(cluster.dir().join(file))?;
        let own = cluster.dir().display().to_string();
        std::fs::write(dir.join(file), text.replace(&own, &dir.display().to_string()))?;
    }
    let config = dir.join("admin.conf");
    let config = config.to_str().context("path")?;
    for (args, says) in [
        (&["--service", "plainly"][..], "the API has Service default/plainly"),
        (&["8891"], ":8891/tcp in the API; whether rules of node node1 take it could not be read"),
    ] {
        let tool = cluster.lab().tool().uid(65534).args(&["--json", "--kubeconfig", config]);
        let run = tool.args(args).run()?;
        ensure!(findings(&run).iter().any(|f| f.contains(says)), "{args:?}: {}", run.stdout);
    }
    Ok(std::fs::remove_dir_all(dir)?)
}

#[test]
fn a_user_with_few_rights_gets_what_he_may_and_hears_what_he_may_not() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    let pod = cluster.pod("few-1", "few", "tcp 0.0.0.0:8282")?;
    cluster.certificate("bob", "bob", "", &["bob"])?;
    let config = cluster.dir().join("bob.conf");
    std::fs::write(&config, cluster.kubeconfig_of("bob", "bob", "https://127.0.0.1:6443"))?;
    let ask = || {
        let config = config.to_str().context("path")?;
        cluster.lab().tool().args(&["--json", "--kubeconfig", config, "8282"]).run()
    };
    // Nothing at all: the kernel's answer stays.
    let run = ask()?;
    run.is_found()?;
    ensure!(run.gap_text().contains("it refuses to get nodes"), "{}", run.gap_text());
    cluster.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "nodes"},
        "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]}],
    }))?;
    cluster.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "bob"},
        "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "nodes", "apiGroup": "rbac.authorization.k8s.io"},
    }))?;
    cluster.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "pods", "namespace": "default"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}],
    }))?;
    cluster.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "bob", "namespace": "default"},
        "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "Role", "name": "pods", "apiGroup": "rbac.authorization.k8s.io"},
    }))?;
    // Pods of his namespace, and nothing else.
    let run = ask()?;
    let end = run.path_in(pod.netns.as_ref().context("a namespace")?)?.end();
    ensure!(end["pod"]["name"] == "few-1", "{} {}", end, run.gap_text());
    ensure!(run.gap_text().contains("only namespace default was seen"), "{}", run.gap_text());
    ensure!(run.gap_text().contains("it refuses to list services"), "{}", run.gap_text());
    Ok(())
}
