//! What controllers of Ingress and Gateway lead to, by the names that clients ask for.

use anyhow::{Context as _, Result, ensure};
use lab::{Cluster, Run, Test};
use serde_json::{Value, json};

use super::ends;

/// A class of Ingress or Gateway.
fn class(kind: &str, name: &str, controller: &str) -> Value {
    let (version, field) = match kind {
        "IngressClass" => ("networking.k8s.io/v1", "controller"),
        _ => ("gateway.networking.k8s.io/v1", "controllerName"),
    };
    json!({
        "apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": {field: controller},
    })
}

/// An Ingress with these hosts, all of whose paths `/api` lead to the Service `shop`.
fn ingress(name: &str, class: Option<&str>, hosts: &[&str]) -> Value {
    let backend = json!({"service": {"name": "shop", "port": {"number": 8000}}});
    let path = json!({"path": "/api", "pathType": "Prefix", "backend": backend});
    let rules: Vec<Value> =
        hosts.iter().map(|host| json!({"host": host, "http": {"paths": [path.clone()]}})).collect();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ingressClassName": class, "rules": rules, "tls": [{"hosts": hosts.get(..1)}]},
    })
}

/// A kind of object that the API does not have by itself.
fn defined(group: &str, kind: &str, version: &str, scope: &str) -> Value {
    let singular = kind.to_lowercase();
    let plural =
        if kind.ends_with("Class") { format!("{singular}es") } else { format!("{singular}s") };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "annotations": {"api-approved.kubernetes.io": "unapproved, made by a test"},
        },
        "spec": {
            "group": group, "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": singular},
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    })
}

/// Defines kinds, and waits until the API serves them.
fn define(cluster: &Cluster, kinds: &[(&str, &str, &str, &str)]) -> Test {
    for (group, kind, version, scope) in kinds {
        let object = defined(group, kind, version, scope);
        cluster.apply(&object)?;
        let name = object["metadata"]["name"].as_str().context("name")?.to_owned();
        cluster.kubectl(&[
            "wait",
            "--for=condition=established",
            "--timeout=30s",
            &format!("crd/{name}"),
        ])?;
    }
    Ok(())
}

type ByName = (String, String, Option<String>);

/// The names at the only end that has any: host or match, where to, and how that is known.
fn names(run: &Run) -> Result<(String, Vec<ByName>)> {
    let ends = ends(run, "service");
    let with: Vec<&Value> = ends.into_iter().filter(|end| !end["by_name"].is_null()).collect();
    let [end] = with.as_slice() else { anyhow::bail!("{} ends: {}", with.len(), run.stdout) };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |route: &Value| {
        let to = &route["to"][0];
        let key = if route["host"].is_null() { &route["matches"] } else { &route["host"] };
        let path = text(&route["path"]);
        (
            format!("{}{path}", text(key)),
            format!("{}/{}:{}", text(&to["namespace"]), text(&to["service"]), text(&to["port"])),
            route["serves"].as_str().map(str::to_owned),
        )
    };
    let all = end["by_name"]["names"].as_array().context("no names")?;
    Ok((text(&end["by_name"]["controller"]), all.iter().map(one).collect()))
}

fn known(name: &str, to: &str, serves: &str) -> (String, String, Option<String>) {
    (name.to_owned(), to.to_owned(), Some(serves.to_owned()))
}

#[test]
fn an_ingress_controller_leads_on_by_the_classes_of_its_own() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    let argv = ["nginx-ingress-controller", "--controller-class=k8s.io/ingress-nginx"];
    let pod = cluster.pod_like("edge-1", "edge", "tcp 0.0.0.0:80", &argv)?;
    cluster.service("edge", 30180, &json!({}))?;
    cluster.apply(&class("IngressClass", "nginx", "k8s.io/ingress-nginx"))?;
    cluster.apply(&class("IngressClass", "else", "example.com/else"))?;
    let hosts: Vec<String> = (0..9).map(|n| format!("h{n}.example.com")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    cluster.apply(&ingress("app", Some("nginx"), &hosts))?;
    cluster.apply(&ingress("others", Some("else"), &["else.example.com"]))?;
    cluster.apply(&ingress("classless", None, &["none.example.com"]))?;
    cluster.wait_rules(&format!("--to-destination {}:80", pod.address))?;

    let run = cluster.whereis(&["30180/tcp"])?;
    let (controller, all) = names(&run)?;
    ensure!(controller == "ingress-nginx", "{controller}");
    for host in &hosts {
        let wanted = known(&format!("{host}/api"), "default/shop:8000", "class");
        ensure!(all.contains(&wanted), "{wanted:?} is not in {all:?}");
    }
    let of =
        |host: &str| all.iter().filter(|(name, ..)| name.starts_with(host)).collect::<Vec<_>>();
    ensure!(of("else.").is_empty(), "another controller's: {all:?}");
    ensure!(matches!(of("none.")[..], [(_, _, None)]), "nothing tells: {all:?}");
    let text = cluster.lab().tool();
    let kubeconfig = cluster.kubeconfig();
    let kubeconfig = kubeconfig.to_str().context("path")?;
    let text = text.env("KUBECONFIG", kubeconfig).args(&["30180/tcp"]).run()?.stdout;
    let line = "h0.example.com/api → default/shop:8000 (Ingress default/app)";
    ensure!(text.contains(line) && text.contains("h7.example"), "{text}");
    ensure!(!text.contains("h8.example") && text.contains("more (-v shows them)"), "{text}");
    // The same port of the pod, when nobody asked for a name.
    ensure!(
        !run.gap_text().contains("gateway"),
        "what the API lacks is no gap: {}",
        run.gap_text()
    );

    // An address in the status is the controller's own word.
    let status = json!({"loadBalancer": {"ingress": [{"ip": cluster_ip(cluster, "edge")?}]}});
    let path = "/apis/networking.k8s.io/v1/namespaces/default/ingresses/classless";
    cluster.set_status(path, &status)?;
    let (_, all) = names(&cluster.whereis(&["30180/tcp"])?)?;
    let wanted = known("none.example.com/api", "default/shop:8000", "address");
    ensure!(all.contains(&wanted), "{all:?}");
    Ok(())
}

fn cluster_ip(cluster: &Cluster, service: &str) -> Result<String> {
    let path = format!("/api/v1/namespaces/default/services/{service}");
    let object: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", &path])?)?;
    Ok(object["spec"]["clusterIP"].as_str().context("no address")?.to_owned())
}

#[test]
fn of_a_controller_that_only_labels_tell_it_is_not_known_what_it_serves() -> Test {
    lab::kube_or_skip!();
    let cluster = Cluster::shared()?;
    let pod = cluster.pod("kong-1", "kong", "tcp 0.0.0.0:8443")?;
    let ports = json!([{"name": "https", "port": 443, "targetPort": "main", "nodePort": 30182}]);
    cluster.service("kong", 30182, &json!({"ports": ports}))?;
    cluster.apply(&class("IngressClass", "kong", "ingress-controllers.konghq.com/kong"))?;
    cluster.apply(&ingress("konged", Some("kong"), &["kong.example.com"]))?;
    cluster.wait_rules(&format!("--to-destination {}:8443", pod.address))?;
    let (_, all) = names(&cluster.whereis(&["30182/tcp"])?)?;
    let of_kong = all.iter().find(|(name, ..)| name == "kong.example.com/api");
    ensure!(of_kong.is_some_and(|(.., serves)| serves.is_none()), "{all:?}");
    ensure!(!all.iter().any(|(name, ..)| name.starts_with("h0.")), "another class: {all:?}");
    // Who may not read them hears which rule would help.
    cluster.certificate("carol", "carol", "", &["carol"])?;
    let config = cluster.dir().join("carol.conf");
    std::fs::write(&config, cluster.kubeconfig_of("carol", "carol", "https://127.0.0.1:6443"))?;
    cluster.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "seer"},
        "rules": [
            {"apiGroups": [""], "resources": ["nodes", "pods", "services"], "verbs": ["get", "list"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]},
        ],
    }))?;
    cluster.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "carol"},
        "subjects": [{"kind": "User", "name": "carol", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "seer", "apiGroup": "rbac.authorization.k8s.io"},
    }))?;
    let config = config.to_str().context("path")?;
    let run = cluster.lab().tool().args(&["--json", "--kubeconfig", config, "30182/tcp"]).run()?;
    let rule = "apiGroups [networking.k8s.io], resources [ingresses, ingressclasses], verbs [list]";
    ensure!(run.stdout.contains(rule), "{}", run.stdout);
    Ok(())
}

#[test]
fn gateways_and_traefiks_own_objects_lead_on_by_name() -> Test {
    lab::kube_or_skip!();
    // Its own: that an API lacks these kinds is another test's.
    let cluster = Cluster::start()?;
    let gateway_api = "gateway.networking.k8s.io";
    define(
        &cluster,
        &[
            (gateway_api, "GatewayClass", "v1", "Cluster"),
            (gateway_api, "Gateway", "v1", "Namespaced"),
            (gateway_api, "HTTPRoute", "v1", "Namespaced"),
            ("traefik.io", "IngressRoute", "v1alpha1", "Namespaced"),
        ],
    )?;
    let front = cluster.pod("front-1", "front", "tcp 0.0.0.0:8080")?;
    let label = format!("{gateway_api}/gateway-name=front");
    cluster.kubectl(&["label", "pod", "front-1", &label])?;
    cluster.service("front", 30183, &json!({}))?;
    cluster.apply(&class("GatewayClass", "made", "example.com/gateway"))?;
    for name in ["front", "back"] {
        let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
        cluster.apply(&json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"gatewayClassName": "made", "listeners": listeners},
        }))?;
        cluster.apply(&json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": format!("{name}-shop"), "namespace": "default"},
            "spec": {
                "parentRefs": [{"name": name}], "hostnames": [format!("{name}.example.com")],
                "rules": [{
                    "matches": [{"path": {"type": "Exact", "value": "/buy"}, "method": "POST"}],
                    "backendRefs": [{"name": "shop", "port": 8000}],
                }],
            },
        }))?;
    }
    let flags = ["traefik", "--providers.kubernetescrd", "--entrypoints.web.address=:8000"];
    let traefik = cluster.pod_like("traefik-1", "proxy", "tcp 0.0.0.0:8000", &flags)?;
    let ports = json!([{"name": "web", "port": 80, "targetPort": 8000, "nodePort": 30184}]);
    cluster.service("proxy", 30184, &json!({"ports": ports}))?;
    cluster.apply(&json!({
        "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute",
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": {"routes": [{
            "kind": "Rule", "match": "Host(`t.example.com`) && PathPrefix(`/x`)",
            "services": [{"name": "shop", "port": "http"}],
        }]},
    }))?;
    cluster.wait_rules(&format!("--to-destination {}:8080", front.address))?;
    cluster.wait_rules(&format!("--to-destination {}:8000", traefik.address))?;
    let (_, all) = names(&cluster.whereis(&["30183/tcp"])?)?;
    let wanted = known("front.example.com/buy", "default/shop:8000", "gateway");
    ensure!(all == [wanted], "{all:?}");
    let (controller, all) = names(&cluster.whereis(&["30184/tcp"])?)?;
    ensure!(controller == "Traefik", "{controller}");
    let wanted = known("Host(`t.example.com`) && PathPrefix(`/x`)", "default/shop:http", "class");
    ensure!(all == [wanted], "{all:?}");
    Ok(())
}
