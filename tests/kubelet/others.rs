//! Ports of other pods and Services that have the same number, or lead to the same one.

use anyhow::{Context as _, Result, ensure};
use lab::{KubeletNode, Run, Test};
use serde_json::{Value, json};

use super::{at, container, http, lands, node, pod, service};

/// Everything that was noticed in all answers.
fn noticed(run: &Run) -> Vec<Value> {
    let answers = run.json["answers"].as_array().cloned().unwrap_or_default();
    answers.iter().flat_map(|one| one["findings"].as_array().cloned().unwrap_or_default()).collect()
}

/// The addresses that somebody surely gets to, of one port, in all answers.
fn open_at(run: &Run, port: u16) -> Vec<String> {
    let answers = run.json["answers"].as_array().cloned().unwrap_or_default();
    let rows =
        answers.iter().flat_map(|one| one["reachable"].as_array().cloned().unwrap_or_default());
    let end = format!(":{port}");
    let mut all: Vec<String> = rows
        .filter(|row| row["reachable"] == true)
        .filter_map(|row| row["address"].as_str().map(str::to_owned))
        .filter(|address| address.ends_with(&end))
        .collect();
    all.sort();
    all.dedup();
    all
}

fn hosted(name: &str, port: u16, host_port: u16, ip: Option<&str>) -> Value {
    let mut declared = json!({"containerPort": port, "hostPort": host_port});
    if let Some(ip) = ip {
        declared["hostIP"] = ip.into();
    }
    let args = format!("listen tcp 0.0.0.0:{port} --answer {name}");
    pod(name, &json!({"containers": [container("main", &args, &json!({"ports": [declared]}))]}))
}

fn make(node: &KubeletNode, objects: &[Value], ready: &[&str]) -> Test {
    for object in objects {
        node.cluster().apply(object)?;
    }
    for name in ready {
        node.wait_pod(&format!("/api/v1/namespaces/default/pods/{name}"))?;
    }
    Ok(())
}

#[test]
fn a_pod_is_told_of_without_the_pods_and_services_that_share_its_ports() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    let leads = |name: &str, node_port: u16| {
        let port = json!({"port": 8462, "targetPort": 8461, "nodePort": node_port});
        service(name, name, &json!({"ports": [port]}))
    };
    let head = json!({
        "type": "ClusterIP", "clusterIP": "None", "ports": [{"port": 8461, "targetPort": 8461}],
    });
    make(
        node,
        &[
            hosted("nearby", 8461, 8460, Some("127.0.0.1")),
            hosted("outward", 8461, 8460, Some(super::NODE)),
            leads("outward", 30460),
            leads("idle", 30461),
            service("headed", "nearby", &head),
        ],
        &["nearby", "outward"],
    )?;
    node.cluster().wait_rules("default/idle has no endpoints")?;
    node.cluster().wait_rules("--dport 30460 -j KUBE-SVC")?;
    let host = node.lab().host();
    let local = |from: &lab::Netns| from.connect("tcp", "127.0.0.1:8460".parse()?);
    ensure!(local(host)? == at("nearby") && lands(host, "tcp", 8460)? == at("outward"));
    for args in [["--pod", "default/nearby"], ["--service", "default/headed"]] {
        let run = node.cluster().whereis(&args)?;
        ensure!(run.code == Some(0), "{}{}", run.stdout, run.stderr);
        ensure!(noticed(&run).is_empty(), "{args:?}: {:?}", noticed(&run));
        ensure!(!run.stdout.contains("outward"), "{args:?}: {}", run.stdout);
        let open = open_at(&run, 8460);
        ensure!(open.iter().all(|at| at == "127.0.0.1:8460"), "{args:?}: {open:?}");
        ensure!(open_at(&run, 8462).is_empty(), "{args:?}: {}", run.stdout);
    }
    let run = node.cluster().whereis(&["--pod", "default/outward"])?;
    ensure!(open_at(&run, 8460) == [format!("{}:8460", super::NODE)], "{}", run.stdout);
    ensure!(open_at(&run, 30460).contains(&format!("{}:30460", super::NODE)), "{}", run.stdout);
    ensure!(!run.stdout.contains("nearby"), "{}", run.stdout);
    // Who owns the port depends on the address.
    let audit = node.lab().tool().args(&["audit"]).run()?;
    let owned = |address: &str, owner: &str| {
        let mut lines =
            audit.stdout.lines().filter(|line| line.trim_start().starts_with("8460/tcp"));
        lines.any(|line| line.contains(address) && line.contains(owner))
    };
    ensure!(owned(super::NODE, "pod default/outward"), "{}", audit.stdout);
    ensure!(owned("127.0.0.1", "pod default/nearby"), "{}", audit.stdout);
    ensure!(!owned(super::NODE, "pod default/nearby"), "{}", audit.stdout);
    Ok(())
}

/// The finding that two rules take a port.
fn shadow(run: &Run) -> Result<Value> {
    let all = noticed(run);
    let is_one = |one: &&Value| one["code"] == "shadowed_rule";
    Ok(all.iter().find(is_one).with_context(|| format!("not noticed: {}", run.stdout))?.clone())
}

#[test]
fn a_host_port_that_a_node_port_takes_is_told_with_what_helps() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    make(
        node,
        &[
            service("shadowing", "web", &json!({"ports": http(30480)})),
            hosted("shadowed", 8480, 30480, None),
        ],
        &["shadowed"],
    )?;
    node.cluster().wait_rules("--dport 30480 -j KUBE-SVC")?;
    node.cluster().wait_rules("-p tcp -m tcp --dport 30480 -j DNAT")?;
    let host = node.lab().host();
    ensure!(lands(host, "tcp", 30480)? == at("web"));
    for args in [&["30480/tcp"][..], &["--pod", "default/shadowed"]] {
        let found = shadow(&node.cluster().whereis(args)?)?;
        let what = found["what"].as_str().unwrap_or_default();
        for part in ["30480/tcp", "goes to Service default/shadowing", "never to", "shadowed"] {
            ensure!(what.contains(part), "{args:?}: {part:?} is not in {what}");
        }
        // Rules of kube-proxy come back.
        let fix = found["fix"]["text"].as_str().unwrap_or_default();
        ensure!(fix.contains("another nodePort") && !fix.contains("delete"), "{fix}");
    }
    // What keeps the port is neither ended nor is a container that does not have it.
    let run = node.lab().tool().args(&["bind", "30480/tcp"]).run()?;
    ensure!(run.code == Some(1), "{}", run.stdout);
    ensure!(run.stdout.contains("NodePort of Service default/shadowing"), "{}", run.stdout);
    ensure!(run.stdout.contains("use another port"), "{}", run.stdout);
    for harm in ["kill", "crictl"] {
        ensure!(!run.stdout.contains(harm), "{}", run.stdout);
    }
    // Carried out.
    let path = "/api/v1/namespaces/default/services/shadowing";
    let mut object = node.get(path)?;
    object["spec"]["ports"][0]["nodePort"] = 30481.into();
    node.cluster().apply(&object)?;
    node.wait("the hostPort", |node| {
        let landed = lands(node.lab().host(), "tcp", 30480)?;
        ensure!(landed == at("shadowed"), "{landed:?}");
        Ok(())
    })
}

#[test]
fn a_host_port_of_a_container_that_does_not_run_says_why() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    let one = |name: &str, image: &str, host_port: u16| {
        let ports = json!([{"containerPort": 8490, "hostPort": host_port}]);
        let main = json!({
            "name": "main", "image": image, "imagePullPolicy": "Never", "ports": ports,
            "command": ["/bin/busybox", "false"],
        });
        pod(name, &json!({"containers": [main]}))
    };
    make(
        node,
        &[
            one("looping", lab::POD_IMAGE, 8491),
            one("imageless", "lab/missing:9", 8492),
            service("imageless", "imageless", &json!({"ports": [{"port": 8490}]})),
        ],
        &[],
    )?;
    for (port, name, says) in
        [("8491", "looping", "CrashLoopBackOff"), ("8492", "imageless", "ErrImageNeverPull")]
    {
        node.wait(says, |node| {
            let run = node.cluster().whereis(&[&format!("{port}/tcp")])?;
            let all = noticed(&run);
            ensure!(all.len() == 1, "{all:?}");
            let (what, cause) = (all[0]["what"].as_str(), all[0]["cause"].as_str());
            ensure!(what.is_some_and(|what| what.contains(name)), "{all:?}");
            ensure!(cause.is_some_and(|cause| cause.contains(says)), "{all:?}");
            // No Service is on the way.
            ensure!(!run.stdout.contains("\"service\":{"), "{}", run.stdout);
            ensure!(run.answer()?["paths"][0]["end"]["service"].is_null(), "{}", run.stdout);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_pod_that_is_being_deleted_is_no_endpoint_for_that() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    // It goes on when it is told to end.
    let script = "trap '' TERM; while :; do sleep 1; done";
    let main = json!({
        "name": "main", "image": lab::POD_IMAGE, "imagePullPolicy": "Never",
        "command": ["/bin/busybox", "sh", "-c", script],
    });
    let spec = json!({"terminationGracePeriodSeconds": 120, "containers": [main]});
    let ports = json!([{"port": 80, "targetPort": 8080, "nodePort": 30495}]);
    let objects = [pod("leaving", &spec), service("leaving", "leaving", &json!({"ports": ports}))];
    make(node, &objects, &["leaving"])?;
    node.cluster().kubectl(&["delete", "pod", "leaving", "--wait=false"])?;
    node.wait("the cause", |node| {
        let run = node.cluster().whereis(&["30495/tcp"])?;
        let all = noticed(&run);
        let causes = all.iter().filter_map(|one| one["cause"].as_str());
        let wanted = "default/leaving is being deleted";
        ensure!(causes.clone().any(|cause| cause.contains(wanted)), "{all:?}");
        Ok(())
    })?;
    node.cluster().kubectl(&["delete", "pod", "leaving", "--grace-period=0", "--force"]).map(drop)
}

#[test]
fn an_audit_takes_a_cluster_for_what_it_is() -> Test {
    lab::kube_or_skip!();
    let node = node()?;
    let run = node.cluster().whereis(&["audit", "--profile", "kubeadm-worker"])?;
    let all = run.json["audit_findings"].as_array().context("no findings")?;
    let of = |code: &str| all.iter().filter(|one| one["code"] == code).collect::<Vec<_>>();
    // Pods of other nodes have to get to a pod untranslated.
    ensure!(of("open_by_route").is_empty(), "{:?}", of("open_by_route"));
    // Services without endpoints close no port of the node.
    let text = "NodePorts";
    let shut = of("required_unreachable");
    let is_theirs = |one: &&&Value| one["what"].as_str().is_some_and(|what| what.contains(text));
    ensure!(shut.iter().find(is_theirs).is_none(), "{shut:?}");
    let profiles = run.json["profiles"].as_array().context("no profiles")?;
    let checks = profiles[0]["checks"].as_array().context("no checks")?;
    let range = |one: &&Value| one["first"] == 30000;
    let why: Vec<&str> =
        checks.iter().filter(range).filter_map(|one| one["why"].as_str()).collect();
    ensure!(why.iter().any(|why| why.contains("that nobody serves: ")), "{why:?} {checks:?}");
    Ok(())
}
