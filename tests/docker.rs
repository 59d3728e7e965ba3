//! Published ports of a real Docker, from the host to the process inside.

use anyhow::{Context, ensure};
use lab::{Container, Docker, Test, View};
use serde_json::Value;

/// The uid of a static pod: the hash of its manifest.
const POD: &str = "8daa50c3a64c9ff60bb9eab7b44b56fd";

/// Checks that a path ends in the first process of `container`.
fn ends_in(path: View<'_>, container: &Container) -> Test {
    let end = path.end();
    ensure!(path.ending() == "process", "{}", path.0);
    ensure!(path.pids() == [u64::from(container.pid)], "not {}: {}", container.pid, path.0);
    ensure!(end["process"]["inner_pid"] == 1, "{end}");
    let named = &end["container"];
    ensure!(named["name"] == container.name.as_str(), "{named}");
    ensure!(named["id"] == container.id.as_str(), "{named}");
    ensure!(named["runtime"] == "docker" && named["image"] == "lab/server:1", "{named}");
    let evidence = end["evidence"].as_array().context("no evidence")?;
    ensure!(evidence.iter().any(|e| e["source"] == "Docker API"), "{end}");
    Ok(())
}

#[test]
fn a_port_published_on_one_address() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    docker.network("front", "10.215.1.0/24")?;
    let options = "--network front -p 127.0.0.1:21101:80";
    let web = docker.run("one-address", options, "listen tcp [::]:80")?;
    let run = docker.lab().whereis(&["21101"])?;
    let path = run.is_found()?.path_in(docker.lab().host())?;
    let forward = format!("forward {}:80/tcp", web.address(docker)?);
    let steps = path.steps();
    ensure!(
        steps == ["listener 127.0.0.1:21101/tcp", forward.as_str(), "listener [::]:80/tcp"],
        "{steps:?}"
    );
    let hops = path.hops();
    let detail = hops[0]["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains("docker-proxy"), "{}", hops[0]);
    ensure!(path.sources(0).contains(&"socket table"), "{}", hops[0]);
    ensure!(path.sources(1).contains(&"command line"), "{}", hops[1]);
    ensure!(hops[2]["netns"]["inode"] == web.netns.inode, "{}", hops[2]);
    ensure!(hops[2]["netns"]["name"] == "one-address", "{}", hops[2]);
    ends_in(path, &web)?;
    let container = &path.end()["container"];
    ensure!(container["networks"][0]["name"] == "front", "{container}");
    let ports = container["ports"].as_array().context("no ports")?;
    ensure!(ports.iter().any(|port| port["host_port"] == 21101), "{container}");
    let asked = docker.lab().whereis(&["127.0.0.1:21101"])?;
    ensure!(asked.is_found()?.path_in(docker.lab().host())?.steps() == steps, "{}", asked.json);
    // The same port on another address of the host is nobody's.
    docker.lab().whereis(&["10.213.0.1:21101"])?.is_nothing()?;
    // Bound to loopback: no other machine reaches it.
    let reach = run.answer()?["reachable"].as_array().context("no reach")?;
    let outside = reach.iter().find(|entry| entry["from"] == "outside").context("no outside")?;
    ensure!(outside["reachable"] != true, "{outside}");
    Ok(())
}

#[test]
fn a_port_published_on_all_addresses_of_one_family() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    let options = "-p 0.0.0.0:21102:80 -p [::]:21103:80";
    let web = docker.run("wildcards", options, "listen tcp 0.0.0.0:80")?;
    for (port, first) in
        [("21102", "listener 0.0.0.0:21102/tcp"), ("21103", "listener [::]:21103/tcp")]
    {
        let run = docker.lab().whereis(&[port])?;
        // By Docker's proxy, and by its rules beside it.
        let paths = run.is_found()?.paths_in(docker.lab().host())?;
        ensure!(paths.iter().any(|path| path.steps()[0] == first), "{}", run.json);
        for path in paths {
            ends_in(path, &web)?;
        }
    }
    Ok(())
}

#[test]
fn a_udp_port_and_one_published_everywhere() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    let options = "-p 21104:53/udp -p 21104:80/tcp";
    let dns = docker.run("dns", options, "listen udp 0.0.0.0:53 tcp 0.0.0.0:80")?;
    for (question, last) in
        [("21104/udp", "listener 0.0.0.0:53/udp"), ("21104/tcp", "listener 0.0.0.0:80/tcp")]
    {
        let run = docker.lab().whereis(&[question])?;
        let paths = run.is_found()?.paths_in(docker.lab().host())?;
        ensure!(!paths.is_empty(), "{}", run.json);
        for path in paths {
            ensure!(path.steps().last().is_some_and(|step| step == last), "{:?}", path.steps());
            ends_in(path, &dns)?;
        }
    }
    Ok(())
}

#[test]
fn the_inner_port_is_found_in_the_container() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    let one = docker.run("inner-one", "", "listen tcp 0.0.0.0:21105")?;
    let two = docker.run("inner-two", "", "listen tcp 0.0.0.0:21105")?;
    let run = docker.lab().whereis(&["21105"])?;
    for container in [&one, &two] {
        let path = run.is_found()?.path_in(&container.netns)?;
        ensure!(path.0["netns"]["name"] == container.name.as_str(), "{}", path.0);
        ends_in(path, container)?;
    }
    ensure!(run.paths_in(docker.lab().host())?.is_empty(), "{}", run.json);
    Ok(())
}

#[test]
fn a_container_on_the_host_network() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    let web = docker.run("on-host", "--network host", "listen tcp 0.0.0.0:21106")?;
    ensure!(web.netns.inode == docker.lab().host().inode);
    let run = docker.lab().whereis(&["21106"])?;
    let path = run.is_found()?.path_in(docker.lab().host())?;
    ensure!(path.steps() == ["listener 0.0.0.0:21106/tcp"], "{:?}", path.steps());
    ends_in(path, &web)?;
    ensure!(path.end()["container"]["network_mode"] == "host", "{}", path.0);
    Ok(())
}

#[test]
fn containers_that_share_a_namespace_are_told_apart() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    let options = "-p 127.0.0.1:21107:80 -p 127.0.0.1:21108:81";
    let first = docker.run("sandbox", options, "listen tcp 0.0.0.0:80")?;
    let second = docker.run("sidecar", "--network container:sandbox", "listen tcp 0.0.0.0:81")?;
    ensure!(first.netns.inode == second.netns.inode);
    for (port, container) in [("21107", &first), ("21108", &second)] {
        let run = docker.lab().whereis(&[port])?;
        ends_in(run.is_found()?.path_in(docker.lab().host())?, container)?;
    }
    Ok(())
}

#[test]
fn a_published_port_behind_which_nothing_listens() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    let idle = docker.idle("idle", "-p 127.0.0.1:21109:30000")?;
    let run = docker.lab().whereis(&["21109"])?;
    let path = run.is_found()?.path_in(docker.lab().host())?;
    let forward = format!("forward {}:30000/tcp", idle.address(docker)?);
    ensure!(
        path.steps() == ["listener 127.0.0.1:21109/tcp", forward.as_str()],
        "{:?}",
        path.steps()
    );
    ensure!(path.ending() == "nothing" && path.pids().is_empty(), "{}", path.0);
    ensure!(path.end()["why"].is_string(), "{}", path.0);
    ensure!(path.container() == Some("idle"), "whose port 30000 it is: {}", path.0);
    Ok(())
}

#[test]
fn an_exposed_port_is_not_a_published_one() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    let port = lab::unused_port()?;
    let _idle = docker.idle("exposed-only", &format!("--expose {port}"))?;
    docker.lab().whereis(&[&port.to_string()])?.is_nothing()
}

#[test]
fn two_kind_clusters_on_one_host() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    docker.network("kind", "10.215.2.0/24")?;
    let mut started = Vec::new();
    for (cluster, port, id) in [("cluster1", 45381, "1c"), ("cluster2", 20971, "2c")] {
        let name = format!("{cluster}-control-plane");
        let options = format!("--network kind -p 127.0.0.1:{port}:6443");
        let node = docker.kind_node(&name, cluster, &options)?;
        let argv = ["kube-apiserver", "--advertise-address=172.18.0.4", "--secure-port=6443"];
        let (proc, pid) = node.component(POD, &id.repeat(32), "tcp [::]:6443", &argv)?;
        started.push((cluster, port, id, node, proc, pid));
    }
    for (cluster, port, id, node, _proc, pid) in &started {
        let run = docker.lab().whereis(&[&port.to_string()])?;
        // One path, to this cluster and to no other.
        let path = run.is_found()?.path_in(docker.lab().host())?;
        ensure!(run.paths()?.len() == 1, "{}", run.json);
        let forward = format!("forward {}:6443/tcp", node.container.address(docker)?);
        let first = format!("listener 127.0.0.1:{port}/tcp");
        ensure!(path.steps() == [first, forward, "listener [::]:6443/tcp".to_owned()]);
        ensure!(path.hops()[2]["netns"]["inode"] == node.container.netns.inode, "{}", path.0);
        is_apiserver(path.end(), cluster, id, &node.container, *pid)?;
    }

    let run = docker.lab().whereis(&["6443"])?;
    for (cluster, _, id, node, _proc, pid) in &started {
        let path = run.is_found()?.path_in(&node.container.netns)?;
        ensure!(path.steps() == ["listener [::]:6443/tcp"], "{:?}", path.steps());
        is_apiserver(path.end(), cluster, id, &node.container, *pid)?;
    }
    let text = docker.lab().tool().args(&["--color", "never", "6443"]).run()?.stdout;
    ensure!(text.contains("cluster1") && text.contains("cluster2"), "{text}");
    Ok(())
}

/// Checks an end that is the API server of `cluster`, in a pod on `node`.
fn is_apiserver(end: &Value, cluster: &str, id: &str, node: &Container, pid: u32) -> Test {
    let process = &end["process"];
    ensure!(process["pid"] == pid && process["name"] == "kube-apiserver", "{process}");
    // Its ids here, on the node, and in the pod.
    let nspid = process["nspid"].as_array().context("no nspid")?;
    ensure!(nspid.len() == 3 && process["inner_pid"] == 1, "{process}");
    let containers = end["containers"].as_array().context("no containers")?;
    let [outer, inner] = containers.as_slice() else { anyhow::bail!("not two levels: {end}") };
    ensure!(outer["name"] == node.name.as_str() && outer["id"] == node.id.as_str(), "{outer}");
    ensure!(inner["id"] == id.repeat(32), "{inner}");
    ensure!(end["container"]["id"] == inner["id"], "{end}");
    ensure!(end["pod"]["uid"] == POD, "{end}");
    let named = &end["cluster"];
    ensure!(named["name"] == cluster && named["distribution"] == "kind", "{named}");
    ensure!(named["role"] == "control-plane" && named["node"] == node.name.as_str(), "{named}");
    Ok(())
}

#[test]
fn the_list_names_containers_and_where_forwards_lead() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    let web = docker.run("listed", "-p 127.0.0.1:21111:80", "listen tcp 0.0.0.0:80")?;
    let run = docker.lab().whereis(&["list"])?;
    ensure!(run.code == Some(0), "{}", run.stderr);
    let listeners = run.listeners()?;
    let published = listeners.iter().find(|l| l.0["port"] == 21111).context("not listed")?;
    ensure!(published.0["process"]["name"] == "docker-proxy", "{}", published.0);
    let target = &published.0["target"];
    ensure!(target["address"] == web.address(docker)? && target["port"] == 80, "{target}");
    let inside = listeners.iter().find(|l| l.netns() == Some(web.netns.inode)).context("not in")?;
    ensure!(inside.container() == Some("listed"), "{}", inside.0);
    let only = docker.lab().whereis(&["list", "--container", "listed"])?;
    ensure!(!only.listeners()?.is_empty());
    ensure!(only.listeners()?.iter().all(|l| l.container() == Some("listed")), "{}", only.stdout);
    Ok(())
}

#[test]
fn a_container_looks_at_itself() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    docker.network("dns", "10.215.3.0/24")?;
    let binary = lab::binary()?.display();
    let options = format!("--network dns -v {binary}:/bin/whereis-port:ro");
    docker.run("mirror", &options, "listen tcp 0.0.0.0:80")?;
    let ask = |args: &[&str]| -> anyhow::Result<Value> {
        let mut all = vec!["exec", "mirror", "/bin/whereis-port", "--json"];
        all.extend(args);
        Ok(serde_json::from_str(&docker.cli(&all)?)?)
    };
    let own = ask(&["80"])?;
    ensure!(own["host"]["pid_namespace_is_initial"] == false, "{own}");
    let path = View(&own["answers"][0]["paths"][0]);
    ensure!(path.ending() == "process" && path.pid() == Some(1), "{own}");
    // Docker's own resolver has sockets in here, and lives outside.
    let list = ask(&["list"])?;
    let listeners = list["listeners"].as_array().context("no listeners")?;
    let resolver =
        listeners.iter().find(|l| l["address"] == "127.0.0.11").context("no resolver")?;
    ensure!(resolver["ending"] == "outside_pid_namespace", "{resolver}");
    ensure!(resolver["why"].is_string(), "{resolver}");
    Ok(())
}

#[test]
fn a_member_of_the_docker_group_gets_names() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    docker.run("grouped", "", "listen tcp 0.0.0.0:21112")?;
    let group = Docker::GROUP.to_string();
    let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--groups", &group];
    let host = format!("unix://{}", docker.socket().display());
    let tool = docker.lab().tool().through(&user).env("DOCKER_HOST", &host);
    let run = tool.args(&["--json", "21112"]).run()?;
    ensure!(run.is_found()?.stdout.contains("\"grouped\""), "{}", run.stdout);
    ensure!(run.stdout.contains("not_readable"), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_daemon_that_hangs_leaves_its_files() -> Test {
    lab::docker_or_skip!();
    // Not the shared one: the other tests need theirs awake.
    let docker = Docker::start()?;
    let web = docker.run("frozen-web", "-p 127.0.0.1:21113:80", "listen tcp 0.0.0.0:80")?;
    let daemon = i32::try_from(docker.pid())?;
    let daemon = rustix::process::Pid::from_raw(daemon).context("process id")?;
    rustix::process::kill_process(daemon, rustix::process::Signal::STOP)?;
    let run = docker.lab().whereis(&["21113"])?;
    ensure!(run.took < std::time::Duration::from_secs(5), "it took {:?}", run.took);
    let path = run.is_found()?.path_in(docker.lab().host())?;
    ensure!(path.pids() == [u64::from(web.pid)], "{}", path.0);
    ensure!(path.container() == Some("frozen-web"), "{}", path.0);
    let socket = docker.socket().to_str().context("path")?;
    ensure!(run.gap_text().contains(socket), "no {socket} in: {}", run.gap_text());
    Ok(())
}

#[test]
fn the_daemons_resolver_in_a_container_belongs_to_dockerd() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    docker.network("resolver", "10.215.4.0/24")?;
    let idle = docker.idle("resolved", "--network resolver")?;
    let run = docker.lab().whereis(&["list"])?;
    let listeners = run.listeners()?;
    // Its sockets; port 53 is taken by rules that lead to them.
    let resolver = listeners
        .iter()
        .filter(|l| l.0["kind"] == "listener")
        .find(|l| l.netns() == Some(idle.netns.inode) && l.0["address"] == "127.0.0.11")
        .context("no resolver")?;
    ensure!(resolver.pids().contains(&u64::from(docker.pid())), "{}", resolver.0);
    ensure!(resolver.container().is_none(), "dockerd is in no container: {}", resolver.0);
    Ok(())
}

#[test]
fn who_holds_a_published_port_is_stopped_as_it_was_started() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    let compose = "--label com.docker.compose.project=shop --label com.docker.compose.service=api";
    let options = format!("{compose} -p 127.0.0.1:21131:80");
    let _api = docker.run("shop-api-1", &options, "listen tcp [::]:80")?;
    let _plain = docker.run("alone", "-p 127.0.0.1:21132:80", "listen tcp [::]:80")?;
    let run = docker.lab().whereis(&["21131/tcp"])?;
    let container = &run.is_found()?.path_in(docker.lab().host())?.end()["container"];
    let named = serde_json::json!({ "project": "shop", "service": "api" });
    ensure!(container["compose"] == named, "{container}");
    let text = docker.lab().tool().arg("21131/tcp").run()?.stdout;
    ensure!(text.contains("compose shop, service api"), "{text}");
    // The port is held by docker-proxy; not that, nor all of Docker, is to be ended.
    for (port, stop) in [
        ("21131", &["docker", "compose", "-p", "shop", "stop", "api"][..]),
        ("21132", &["docker", "stop", "alone"]),
    ] {
        let run = docker.lab().whereis(&["bind", &format!("127.0.0.1:{port}/tcp")])?;
        let held = &run.json["binds"][0]["held"][0];
        ensure!(held["fix"]["command"] == serde_json::json!(stop), "{}", run.stdout);
    }
    Ok(())
}

#[test]
fn several_addresses_of_one_publish_are_one_answer() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    for (name, port, options, places) in [
        (
            "two-addresses",
            "21180",
            "-p 127.0.0.1:21180:80 -p 10.213.0.1:21180:80",
            ["127.0.0.1", "10.213.0.1"],
        ),
        ("both-families", "21181", "-p 21181:80", ["0.0.0.0", "[::]"]),
    ] {
        let web = docker.run(name, options, "listen tcp [::]:80")?;
        let text = docker.lab().tool().arg(port).run()?.stdout;
        let heads: Vec<&str> =
            text.lines().filter(|line| line.starts_with(&format!("{port}/tcp"))).collect();
        let [head] = heads[..] else { anyhow::bail!("{} answers:\n{text}", heads.len()) };
        ensure!(places.iter().all(|place| text.contains(&format!("{place}:{port}"))), "{text}");
        ensure!(head.contains(&format!("container {name} (docker)")), "{head}");
        let table = docker.lab().tool().args(&["list", "-t", "--container", name]).run()?.stdout;
        let rows: Vec<&str> = table.lines().filter(|line| line.contains(port)).collect();
        let [row] = rows[..] else { anyhow::bail!("{} rows:\n{table}", rows.len()) };
        ensure!(row.contains(name) && row.contains(", "), "{row}");
        // A bridge leads to no other machine that is known, which is no "no" of the other address.
        let run = docker.lab().whereis(&[port])?;
        let reach = run.answer()?["reachable"].as_array().context("no statement")?;
        let outside: Vec<&Value> = reach.iter().filter(|r| r["from"] == "outside").collect();
        let known = outside.iter().any(|r| !r["reachable"].is_null());
        ensure!(!outside.is_empty() && !known, "{outside:?}");
        // In JSON each socket has its row, and each its container.
        let json = docker.lab().whereis(&["list", "-t", "--container", name])?.json;
        let listed = json["listeners"].as_array().context("no rows")?.iter();
        let listed = listed.filter(|row| row["port"].as_u64() == port.parse().ok());
        ensure!(listed.count() == 2, "{json}");
        drop(web);
    }
    Ok(())
}

/// What is paused answers nobody, says so, and the command that is proposed lets it go on.
#[test]
fn a_paused_container_is_named_with_what_lets_it_go_on() -> Test {
    lab::docker_or_skip!();
    let docker = Docker::shared()?;
    let _web = docker.run("on-pause", "-p 21182:80", "listen tcp [::]:80")?;
    docker.cli(&["pause", "on-pause"])?;
    let ask = || docker.lab().whereis(&["21182/tcp"]);
    let run = ask()?;
    let findings = run.answer()?["findings"].as_array().context("no findings")?;
    ensure!(findings.len() == 1 && findings[0]["code"] == "owner_frozen", "{findings:?}");
    let command: Vec<&str> = findings[0]["fix"]["command"]
        .as_array()
        .context("no command")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    ensure!(command == ["docker", "unpause", "on-pause"], "{command:?}");
    let reachable = |run: &lab::Run| -> anyhow::Result<bool> {
        let reach = run.answer()?["reachable"].as_array().context("no statement")?;
        Ok(reach.iter().any(|one| one["reachable"] == true))
    };
    ensure!(!reachable(&run)?, "{}", run.json);
    docker.cli(&command[1..])?;
    let run = ask()?;
    ensure!(reachable(&run)?, "{}", run.json);
    ensure!(run.answer()?["findings"].as_array().is_some_and(Vec::is_empty), "{}", run.json);
    Ok(())
}
